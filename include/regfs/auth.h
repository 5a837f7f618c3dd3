/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth: challenges and tokens (distribution "Token Authentication Specification", RFC 7235,
 * RFC 6749 for the POST form).
 * Knows WWW-Authenticate and token services. Must not know manifests or blobs.
 *
 * A credential goes only to the host it was stored for, and a token only to the registry that
 * named its realm. Any thread; one refresh for many waiters.
 */
#ifndef REGFS_AUTH_H
#define REGFS_AUTH_H

#include "regfs/http.h"

struct auth;

struct auth_credential {
	char *user, *password; /* NULL: none */
	char *identity_token;  /* NULL: none */
};
void auth_credential_release(struct auth_credential *credential);
/* Finds what is stored for HOST/REPO (REPO may be NULL). 0, -ENOENT: anonymous; other errors are
 * logged by it. Called anew for each token, so that changes are noticed. */
typedef int auth_lookup_fn(void *arg, const char *host, const char *repo,
			   struct auth_credential *ret);

struct auth_options {
	struct http *http;
	const char *host; /* copied */
	const struct http_tls *tls;
	auth_lookup_fn *lookup; /* NULL: anonymous */
	void *lookup_arg;
	int64_t timeout_ms;
};
struct auth *auth_new(const struct auth_options *options);
void auth_free(struct auth *auth);

/* The Authorization header ("Authorization: …", the caller frees) to send with a request of
 * SCOPE ("repository:team/app:pull", may be NULL) as far as it is known without a challenge;
 * *RET is NULL if none. May refresh a token that is about to expire. */
int auth_header(struct auth *auth, const char *scope, struct wait *wait, char **ret);
/* After a 401: takes in the challenges of TRANSFER and gets what they ask for. 0: try again
 * with auth_header(); -EACCES: nothing more to try. USED is the header that was refused (NULL:
 * none). */
int auth_challenge(struct auth *auth, const struct http_transfer *transfer, const char *scope,
		   const char *used, struct wait *wait);

#endif
