/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the auth room share; nobody else includes it.
 *
 * auth.c            the headers that are known, one fetch for many waiters
 * auth_challenge.c  what follows from a refusal
 * auth_token.c      a conversation with a token service
 * auth_tls.c        with which TLS settings that is asked
 * auth_parse.c      WWW-Authenticate; pure
 */
#ifndef REGFS_AUTH_PRIV_H
#define REGFS_AUTH_PRIV_H

#include "regfs/auth.h"

/* What a registry's challenges come down to. Strings are owned; NULL where absent. */
struct auth_challenges {
	bool basic, bearer;
	char *realm, *service, *scope, *error; /* of the first Bearer */
};
void auth_challenges_release(struct auth_challenges *challenges);
/* Adds the challenges of one WWW-Authenticate header (RFC 7235, section 4.1). What cannot be
 * understood ends the header. 0 or -ENOMEM. */
int auth_parse(const char *header, struct auth_challenges *challenges);
/* "Authorization: Basic …"; NULL when memory is short. */
char *auth_basic_header(const struct auth_credential *credential);

/* Why credentials must not go to REALM on the word of the registry at URL; NULL: they may. */
const char *auth_realm_refusal(const char *url, const char *realm);

struct auth_token_request {
	const char *realm, *service;		  /* service may be NULL */
	const char *challenged;			  /* scopes in the registry's words, or NULL */
	const char *scope;			  /* scopes in ours; "" for none */
	const struct auth_credential *credential; /* NULL: anonymous */
	const struct http_tls *tls;
	int64_t deadline_ms;
	bool outside; /* as in struct http_request */
};
struct auth_token {
	char *value; /* for secret_free() */
	int64_t lifetime_ms;
};
/* Asks the token service. 0; -EKEYREJECTED (it says no), -EBUSY, -EIO (logged), the errors of
 * http_start(). */
int auth_token_fetch(struct http *http, const struct auth_token_request *request, struct wait *wait,
		     struct auth_token *ret);
/* A token service's answer at WALL_NOW_MS. 0, -EIO (there is no token in it), -ENOMEM. */
int auth_token_parse(const char *json, size_t len, int64_t wall_now_ms, struct auth_token *ret);

/* The TLS settings for REALM, which borrow from *RET_HOLD, for hosts_answer_unref(), and from the
 * auth. 0, -EACCES (logged), -EINVAL, -ENOMEM. */
int auth_realm_tls(const struct auth *auth, const char *realm, struct http_tls *ret,
		   const struct hosts_answer **ret_hold);

enum auth_scheme { AUTH_NONE, AUTH_BASIC, AUTH_BEARER };

/* A header for one purpose. */
struct auth_pass {
	struct auth_pass *next;
	enum auth_scheme scheme; /* how it came to be; not AUTH_NONE */
	char *name;	  /* BEARER: the scope that was asked for; BASIC: the repository; or "" */
	char *challenged; /* BEARER: the scope as the registry put it, where that differs */
	char *header;	  /* "Authorization: …"; NULL: none, or refused */
	bool refused;	  /* the last one was, so what is stored may have changed */
	int64_t made_ms, until_ms;
	int64_t used_ms;
	bool fetching;
	unsigned fetches; /* that have ended */
	int error;	  /* of the last one */
	int64_t took_ms;  /* and how long it took */
	unsigned refs;	  /* who looks at it without the lock, or waits */
	struct wait_queue waiters;
};

struct auth {
	struct http *http;
	char *host;
	const char *endpoint;
	const struct http_tls *tls;
	struct hosts *hosts;
	auth_lookup_fn *lookup;
	void *lookup_arg;
	int64_t timeout_ms;

	pthread_mutex_t lock;
	/* guarded by lock */
	enum auth_scheme scheme; /* the registry's */
	bool challenged;	 /* it has ever asked */
	bool refused;		 /* it, or its token service, has ever said no to an answer */
	bool anonymous;		 /* nothing was stored for it when that was last looked at */
	char *realm, *service;	 /* of Bearer */
	bool near;		 /* who named it was seen nearby */
	struct auth_pass *passes;
	size_t npasses;
};

/* With the lock: the pass for NAME, made where there is none. NULL when memory is short. */
struct auth_pass *auth_pass_of(struct auth *auth, enum auth_scheme scheme, const char *name);

#endif
