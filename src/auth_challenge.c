/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth_challenge: what follows from a refusal: which scheme the registry wants, which token service
 * it may send us to, which header is not sent again.
 * Knows 401 and 403. Must not know how a header is made.
 */
#include <errno.h>
#include <strings.h>

#include "auth_priv.h"
#include "regfs/log.h"

#define HEADERS_MAX 16

static bool is_plain(const struct http_url *url)
{
	return !strcmp(url->scheme, "http");
}

/* Whether a host's name says that it is somebody's own: no such name is in the public DNS (RFC
 * 6761, RFC 6762, RFC 8375, and what ICANN set aside). */
static bool has_private_name(const char *host)
{
	static const char *const suffixes[] = {".local", ".internal", ".home.arpa", ".test",
					       ".lan",	 ".corp",     ".home",	    ".intranet"};
	char name[256];
	snprintf(name, sizeof(name), "%.*s", (int)strcspn(host, ":"), host);
	if (!strchr(name, '.') && *host != '[')
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		if (ends_with(name, suffixes[i]))
			return true;
	}
	return false;
}

static bool is_nearby(const char *host)
{
	return http_host_is_local(host) || http_host_is_private(host) || has_private_name(host);
}

const char *auth_realm_refusal(const char *url, const char *realm)
{
	CLEANUP(http_url_release) struct http_url registry = {0};
	CLEANUP(http_url_release) struct http_url service = {0};
	if (http_url_parse(url, &registry) || http_url_parse(realm, &service))
		return "it is not an http or https URL";
	bool at_home = http_host_is_loopback(registry.host);
	if (!http_host_is_local(registry.host) && http_host_is_local(service.host))
		return "it lies on this machine, the registry does not";
	if (!is_nearby(registry.host) && http_host_is_private(service.host))
		return "it lies in a private network, the registry does not";
	if (!is_plain(&service))
		return NULL;
	if (!is_plain(&registry))
		return "it is not on https as the registry is";
	if (at_home && !http_host_is_loopback(service.host))
		return "plain HTTP leads away from this machine";
	return NULL;
}

/* All of the answer's challenges. 0 or -ENOMEM. */
static int take_challenges(const struct auth *auth, const struct http_transfer *transfer,
			   struct auth_challenges *ret)
{
	for (unsigned n = 0; n < HEADERS_MAX; n++) {
		const char *header = http_header_n(transfer, "WWW-Authenticate", n);
		if (!header)
			break;
		int err = auth_parse(header, ret);
		if (err)
			return err;
	}
	if (!ret->bearer)
		return 0;
	const char *why = ret->realm ? auth_realm_refusal(http_url(transfer), ret->realm)
				     : "it is missing";
	if (why) {
		log_warn("%s: the token service's address \"%s\" is refused: %s", auth->host,
			 ret->realm ? ret->realm : "", why);
		ret->bearer = false;
	}
	return 0;
}

/* With the lock. Whether it was made since BEGUN_MS. */
static bool forget_refused(struct auth *auth, const char *used, int64_t begun_ms)
{
	bool fresh = false;
	for (struct auth_pass *pass = auth->passes; used && pass; pass = pass->next) {
		if (!pass->header || strcmp(pass->header, used))
			continue;
		fresh |= begun_ms && pass->made_ms >= begun_ms;
		secret_free(&pass->header);
		pass->refused = true;
	}
	return fresh;
}

static bool differs(const char *a, const char *b)
{
	return !a != !b || (a && strcmp(a, b));
}

static void replace(char **field, char **value)
{
	free(*field);
	*field = STEAL(*value);
}

/* With the lock. 1: it says something that we did not know. */
static int adopt_bearer(struct auth *auth, const char *scope, struct auth_challenges *challenges)
{
	struct auth_pass *pass = auth_pass_of(auth, AUTH_BEARER, scope);
	if (!pass)
		return -ENOMEM;
	bool news = auth->scheme != AUTH_BEARER || differs(auth->realm, challenges->realm) ||
		    differs(auth->service, challenges->service);
	auth->scheme = AUTH_BEARER;
	replace(&auth->realm, &challenges->realm);
	replace(&auth->service, &challenges->service);
	if (challenges->scope && strcmp(challenges->scope, scope)) {
		news |= differs(pass->challenged, challenges->scope);
		replace(&pass->challenged, &challenges->scope);
	}
	return news;
}

/* With the lock. 1: as above. */
static int adopt(struct auth *auth, const char *scope, struct auth_challenges *challenges,
		 const char *used)
{
	auth->challenged = true;
	if (challenges->bearer)
		return adopt_bearer(auth, scope, challenges);
	/* Harbor answers an expired token with a Basic challenge, and names its token service only
	 * to those who come without any (nydus, storage/src/backend/registry.rs). */
	bool expired = used && starts_with(used, "Authorization: Bearer ");
	enum auth_scheme scheme = expired ? AUTH_NONE : AUTH_BASIC;
	bool news = auth->scheme != scheme;
	auth->scheme = scheme;
	return news;
}

/* Whether a 403 may be one for want of other credentials. A token that covers too little should
 * earn a 401, but RFC 6750 (section 3.1) has this status for it; ECR answers a password that
 * expired so, without any challenge ("Your authorization token has expired"). */
static bool is_curable(const struct auth_challenges *challenges, const char *used)
{
	if (challenges->bearer && challenges->error)
		return !strcasecmp(challenges->error, "insufficient_scope");
	return used && starts_with(used, "Authorization: Basic ");
}

int auth_challenge(struct auth *auth, const struct auth_ask *ask,
		   const struct http_transfer *transfer, const char *used)
{
	CLEANUP(auth_challenges_release) struct auth_challenges challenges = {0};
	int err = take_challenges(auth, transfer, &challenges);
	if (err)
		return err;
	bool forbidden = http_status(transfer) == 403;
	bool final = forbidden && !is_curable(&challenges, used);
	bool challenged = challenges.bearer || challenges.basic;
	int news = 0;
	pthread_mutex_lock(&auth->lock);
	auth->refused |= used != NULL;
	bool fresh = !final && forget_refused(auth, used, ask->begun_ms);
	auth->near = http_is_near(transfer);
	if (!final && challenged)
		news = adopt(auth, ask->scope ? ask->scope : "", &challenges, used);
	pthread_mutex_unlock(&auth->lock);
	if (news < 0)
		return news;
	bool hopeless = challenged || forbidden ? fresh && !news : true;
	return final || hopeless ? -EACCES : 0;
}
