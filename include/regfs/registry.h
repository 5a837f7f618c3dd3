/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry: the store behind the distribution protocol (OCI distribution-spec v1.1, Docker
 * Registry HTTP API V2).
 * Knows requests, challenges, redirects, retries, paging, mirrors. Must not know caching.
 *
 * With hosts.h, what is read comes from the mirrors in their order, each asked with its own
 * credentials, and from the origin when they cannot give it; what is written goes to the one place
 * that may be pushed to. A mirror that cannot be reached, or whose bytes were wrong, is left aside
 * for a while.
 */
#ifndef REGFS_REGISTRY_H
#define REGFS_REGISTRY_H

#include "regfs/auth.h"
#include "regfs/hosts.h"
#include "regfs/store.h"

struct registry_options {
	struct http *http; /* borrowed; outlives the store */
	const char *host;  /* "localhost:5000", "docker.io"; copied */
	/* Mirrors, TLS, who is blocked; borrowed, outlives the store. NULL: the host alone. */
	struct hosts *hosts;
	bool plain_http;	 /* http:// was given: for the host itself, not for its mirrors */
	bool https_only;	 /* https:// was given */
	int64_t timeout_ms;	 /* without progress */
	int64_t name_timeout_ms; /* for a request that asks about a name, whole */
	auth_lookup_fn *lookup;	 /* what is stored for a host; NULL: anonymous */
	void *lookup_arg;
	bool offline; /* every request is -EHOSTUNREACH, unsent */
};

/* No request is sent here. 0 or -ENOMEM. */
int registry_new(const struct registry_options *options, struct store **ret);

/* Whether the credentials that the lookup gives let us in. 0; *RET_ASKED is false where the
 * registry asks nobody for any. -EKEYREJECTED: it, or its token service, refuses them; -EACCES: it
 * was never asked (a certificate that nobody vouches for, a configuration that blocks it); others
 * of store.h. All logged. */
int registry_login(struct store *store, struct wait *wait, bool *ret_asked);

#endif
