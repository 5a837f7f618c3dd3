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

#include "regfs/hosts.h"

struct auth;

/* Strings are owned, and wiped when they are released; NULL: none. */
struct auth_credential {
	char *user, *password;
	char *identity_token; /* a refresh token, for the token service */
	char *registry_token; /* goes to the registry as it is; wins over all others */
};
void auth_credential_release(struct auth_credential *credential);

/* What is stored for HOST/REPO? */
struct auth_query {
	const char *host;
	const char *repo;    /* may be NULL */
	bool fresh;	     /* the registry refused what was found before: look again */
	int64_t deadline_ms; /* in now_ms() time */
};
/* Called anew for each token, with a WAIT that may block. 0; -ENOENT: nothing, go anonymously;
 * other errors are logged by it: the request fails with them. */
typedef int auth_lookup_fn(void *arg, const struct auth_query *query, struct wait *wait,
			   struct auth_credential *ret);

struct auth_options {
	struct http *http;
	const char *host; /* the key for LOOKUP; copied */
	/* The registry, and its TLS settings; borrowed for the auth's life, may be NULL. A token
	 * service on the same host, whatever its port, is asked with them too; one elsewhere with
	 * those that HOSTS (NULL: the system's) has for it, and the CA that the registry has. */
	const char *endpoint;
	const struct http_tls *tls;
	struct hosts *hosts;
	auth_lookup_fn *lookup; /* NULL: anonymous */
	void *lookup_arg;
	int64_t timeout_ms; /* of a token request, whole */
};
/* NULL when memory is short. */
struct auth *auth_new(const struct auth_options *options);
void auth_free(struct auth *auth);

/* What is asked for: SCOPE as token services write it ("repository:team/app:pull"; several are
 * separated by spaces; NULL for none), REPO for the lookup (may be NULL), and until when, in
 * now_ms() time (0: timeout_ms from now). */
struct auth_ask {
	const char *scope;
	const char *repo;
	int64_t deadline_ms;
	/* When the caller began: a header that was made since, and for the same challenge, will not
	 * be made better. 0: not known. */
	int64_t begun_ms;
};

/* The Authorization header ("Authorization: …", for secret_free()) to send with a request, as far
 * as it is known without a challenge; *RET is NULL if none. Fetches a token where there is none, or
 * one that is about to expire. 0; -EACCES (the token service refuses; logged), -EIO, the errors of
 * http_start() and of the lookup. */
int auth_header(struct auth *auth, const struct auth_ask *ask, struct wait *wait, char **ret);
/* After a 401 or 403: takes in the challenges of TRANSFER. Does not wait. 0: try again with
 * auth_header(); -EACCES: nothing more to try (not logged). USED is the header that was refused
 * (NULL: none): it is not used again. */
int auth_challenge(struct auth *auth, const struct auth_ask *ask,
		   const struct http_transfer *transfer, const char *used);
/* Whether the registry has ever asked who we are. */
bool auth_was_challenged(struct auth *auth);
/* Whether the registry wants tokens, and we ask for them as nobody: there is nothing stored. What
 * it refuses us it may refuse to everybody, and still show the rest. */
bool auth_is_anonymous(struct auth *auth);
/* Whether the registry, or its token service, has ever refused what we are: not merely that it
 * could not be asked. */
bool auth_was_refused(struct auth *auth);

#endif
