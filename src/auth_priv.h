/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the auth room share; nobody else includes it.
 *
 * auth.c        what is known of a registry's ways, the tokens, one refresh for many waiters
 * auth_token.c  a conversation with a token service
 * auth_parse.c  WWW-Authenticate, base64; pure
 */
#ifndef REGFS_AUTH_PRIV_H
#define REGFS_AUTH_PRIV_H

#include "regfs/auth.h"

/* What a registry's challenges come down to. Strings are owned; NULL where absent. */
struct auth_challenges {
	bool basic, bearer;
	char *realm, *service, *scope; /* of Bearer */
};
void auth_challenges_release(struct auth_challenges *challenges);
/* Adds the challenges of one WWW-Authenticate header (RFC 7235, section 4.1). What cannot be
 * understood ends the header. 0 or -ENOMEM. */
int auth_parse(const char *header, struct auth_challenges *challenges);
/* The caller frees. NULL when memory is short. */
char *auth_base64(const char *text);
/* "Authorization: Basic …"; NULL when memory is short. */
char *auth_basic_header(const struct auth_credential *credential);
/* Frees text that is a secret, and wipes it first. */
void auth_forget(char **secret);

struct auth_token_request {
	const char *realm, *service;		  /* service may be NULL */
	const char *challenged;			  /* scopes in the registry's words, or NULL */
	const char *scope;			  /* scopes in ours; "" for none */
	const struct auth_credential *credential; /* NULL: anonymous */
	const struct http_tls *tls;
	int64_t deadline_ms;
};
struct auth_token {
	char *value;
	int64_t lifetime_ms;
};
/* Asks the token service. 0; -EACCES, -EBUSY, -EIO (logged), the errors of http_start(). */
int auth_token_fetch(struct http *http, const struct auth_token_request *request, struct wait *wait,
		     struct auth_token *ret);

#endif
