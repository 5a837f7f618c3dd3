/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry: the store behind the distribution protocol (OCI distribution-spec v1.1, Docker
 * Registry HTTP API V2).
 * Knows requests, challenges, redirects, retries, paging. Must not know caching.
 */
#ifndef REGFS_REGISTRY_H
#define REGFS_REGISTRY_H

#include "regfs/auth.h"
#include "regfs/store.h"

struct registry_options {
	struct http *http; /* borrowed; outlives the store */
	const char *host;  /* "localhost:5000", "docker.io"; copied */
	bool plain_http;   /* forced by http:// or insecure=; loopback may always fall back to it */
	bool https_only;   /* https:// was given */
	const char *cacert;	 /* PEM file, or NULL; copied */
	int64_t timeout_ms;	 /* without progress */
	int64_t name_timeout_ms; /* for a request that asks about a name, whole */
	auth_lookup_fn *lookup;	 /* what is stored for a host; NULL: anonymous */
	void *lookup_arg;
	bool offline; /* every request is -EHOSTUNREACH, unsent */
};

/* No request is sent here. 0 or -ENOMEM. */
int registry_new(const struct registry_options *options, struct store **ret);

/* Whether the credentials that the lookup gives let us in. 0; *RET_ASKED is false where the
 * registry asks nobody for any. -EACCES: refused; others of store.h. All logged. */
int registry_login(struct store *store, struct wait *wait, bool *ret_asked);

#endif
