/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth: what is known of one registry's ways to let somebody in, and the tokens it took.
 * Knows schemes, scopes, who waits for a token. Must not know manifests or blobs.
 *
 * A token is kept for each scope that was asked for. One thread fetches it, without the lock;
 * the others that want it wait in the token's queue and share its success or failure, so that a
 * slow token service is asked once and not once for each reader.
 */
#include <errno.h>

#include "auth_priv.h"
#include "regfs/log.h"

#define TOKENS_MAX 128
/* A token that ends so soon may end on its way. */
#define MARGIN_MS 10000

struct token {
	struct token *next;
	char *scope;	  /* as it was asked for; "" for none */
	char *challenged; /* as the registry put it, where that differs */
	char *value;	  /* NULL: none, or refused */
	int64_t until_ms;
	int64_t used_ms;
	bool fetching;
	unsigned fetches; /* that have ended */
	int error;	  /* of the last one */
	unsigned refs;	  /* who looks at it without the lock, or waits */
	struct wait_queue waiters;
};

enum scheme { SCHEME_NONE, SCHEME_BASIC, SCHEME_BEARER };

struct auth {
	struct http *http;
	char *host;
	const struct http_tls *tls;
	auth_lookup_fn *lookup;
	void *lookup_arg;
	int64_t timeout_ms;

	pthread_mutex_t lock;
	/* guarded by lock */
	enum scheme scheme;
	char *realm, *service; /* of Bearer */
	char *basic;	       /* the header that was not refused yet */
	struct token *tokens;
	size_t ntokens;
};

struct auth *auth_new(const struct auth_options *options)
{
	struct auth *auth = calloc(1, sizeof(*auth));
	if (!auth)
		return NULL;
	*auth = (struct auth){
		.http = options->http,
		.host = strdup(options->host),
		.tls = options->tls,
		.lookup = options->lookup,
		.lookup_arg = options->lookup_arg,
		.timeout_ms = options->timeout_ms ? options->timeout_ms : 10000,
	};
	pthread_mutex_init(&auth->lock, NULL);
	if (!auth->host) {
		auth_free(auth);
		return NULL;
	}
	return auth;
}

static void token_free(struct token *token)
{
	free(token->scope);
	free(token->challenged);
	auth_forget(&token->value);
	free(token);
}

void auth_free(struct auth *auth)
{
	if (!auth)
		return;
	while (auth->tokens) {
		struct token *token = auth->tokens;
		auth->tokens = token->next;
		token_free(token);
	}
	free(auth->host);
	free(auth->realm);
	free(auth->service);
	auth_forget(&auth->basic);
	pthread_mutex_destroy(&auth->lock);
	free(auth);
}

/* Without the lock. 0 or -ENOENT: anonymous; -ENOMEM and the like. */
static int look_up(const struct auth *auth, const char *repo, struct auth_credential *ret)
{
	return auth->lookup ? auth->lookup(auth->lookup_arg, auth->host, repo, ret) : -ENOENT;
}

/* ---- tokens, with the lock ---- */

static struct token *token_find(struct auth *auth, const char *scope)
{
	for (struct token *token = auth->tokens; token; token = token->next) {
		if (!strcmp(token->scope, scope))
			return token;
	}
	return NULL;
}

static void token_evict(struct auth *auth)
{
	struct token **oldest = NULL;
	for (struct token **at = &auth->tokens; *at; at = &(*at)->next) {
		if (!(*at)->refs && (!oldest || (*at)->used_ms < (*oldest)->used_ms))
			oldest = at;
	}
	if (!oldest)
		return;
	struct token *gone = *oldest;
	*oldest = gone->next;
	token_free(gone);
	auth->ntokens--;
}

static struct token *token_of(struct auth *auth, const char *scope)
{
	struct token *token = token_find(auth, scope);
	if (token)
		return token;
	if (auth->ntokens >= TOKENS_MAX)
		token_evict(auth);
	token = calloc(1, sizeof(*token));
	if (!token || !(token->scope = strdup(scope))) {
		free(token);
		return NULL;
	}
	token->next = auth->tokens;
	auth->tokens = token;
	auth->ntokens++;
	return token;
}

/* Whether HEADER is the one made of TOKEN. */
static bool token_in(const struct token *token, const char *header)
{
	static const char prefix[] = "Authorization: Bearer ";
	return header && token->value && starts_with(header, prefix) &&
	       !strcmp(header + sizeof(prefix) - 1, token->value);
}

/* What a fetch needs, copied while the lock is held. */
struct errand {
	char *realm, *service, *challenged;
};

static void errand_release(struct errand *errand)
{
	free(errand->realm);
	free(errand->service);
	free(errand->challenged);
}

static int errand_take(const struct auth *auth, const struct token *token, struct errand *ret)
{
	ret->realm = strdup(auth->realm);
	ret->service = auth->service ? strdup(auth->service) : NULL;
	ret->challenged = token->challenged ? strdup(token->challenged) : NULL;
	bool complete = ret->realm && !!ret->service == !!auth->service &&
			!!ret->challenged == !!token->challenged;
	return complete ? 0 : -ENOMEM;
}

/* ---- fetching ---- */

/* Without the lock. */
static int fetch(struct auth *auth, const struct auth_ask *ask, const struct errand *errand,
		 struct wait *wait, struct auth_token *ret)
{
	CLEANUP(auth_credential_release) struct auth_credential credential = {0};
	int err = look_up(auth, ask->repo, &credential);
	if (err && err != -ENOENT)
		return err;
	const struct auth_token_request request = {
		.realm = errand->realm,
		.service = errand->service,
		.challenged = errand->challenged,
		.scope = ask->scope ? ask->scope : "",
		.credential = err ? NULL : &credential,
		.tls = auth->tls,
		.deadline_ms = ask->deadline_ms ? ask->deadline_ms : now_ms() + auth->timeout_ms,
	};
	return auth_token_fetch(auth->http, &request, wait, ret);
}

/* With the lock, which is let go meanwhile. */
static int refresh(struct auth *auth, struct token *token, const struct auth_ask *ask,
		   struct wait *wait)
{
	CLEANUP(errand_release) struct errand errand = {0};
	int err = errand_take(auth, token, &errand);
	if (err)
		return err;
	struct auth_token fresh = {0};
	token->fetching = true;
	pthread_mutex_unlock(&auth->lock);
	err = fetch(auth, ask, &errand, wait, &fresh);
	pthread_mutex_lock(&auth->lock);
	token->fetching = false;
	token->fetches++;
	token->error = err;
	if (!err) {
		auth_forget(&token->value);
		token->value = fresh.value;
		token->until_ms = now_ms() + fresh.lifetime_ms;
	}
	wait_wake(&token->waiters);
	return err;
}

/* With the lock: waits for the fetch of another thread; 0: look again. */
static int share(struct auth *auth, struct token *token, const struct auth_ask *ask,
		 struct wait *wait)
{
	unsigned before = token->fetches;
	int err = wait_on(wait, &token->waiters, &auth->lock,
			  ask->deadline_ms ? ask->deadline_ms : WAIT_FOREVER);
	if (err || token->fetches == before)
		return err;
	/* What befell that thread alone is no verdict for us. */
	bool verdict = token->error != -EINTR && token->error != -ETIMEDOUT;
	return verdict ? token->error : 0;
}

/* With the lock. */
static int bearer_header(struct auth *auth, const struct auth_ask *ask, struct wait *wait,
			 char **ret)
{
	struct token *token = token_of(auth, ask->scope ? ask->scope : "");
	if (!token)
		return -ENOMEM;
	int err = 0;
	token->refs++;
	token->used_ms = now_ms();
	while (!err && (!token->value || token->until_ms - now_ms() < MARGIN_MS)) {
		if (!wait_may_block(wait))
			err = -EWOULDBLOCK;
		else if (token->fetching)
			err = share(auth, token, ask, wait);
		else
			err = refresh(auth, token, ask, wait);
	}
	if (!err) {
		*ret = format("Authorization: Bearer %s", token->value);
		err = *ret ? 0 : -ENOMEM;
	}
	token->refs--;
	return err;
}

/* With the lock, which is let go while the credentials are looked up. */
static int basic_header(struct auth *auth, const struct auth_ask *ask, struct wait *wait,
			char **ret)
{
	if (!auth->basic && auth->lookup) {
		if (!wait_may_block(wait))
			return -EWOULDBLOCK;
		CLEANUP(auth_credential_release) struct auth_credential credential = {0};
		pthread_mutex_unlock(&auth->lock);
		int err = look_up(auth, ask->repo, &credential);
		bool known = !err && credential.user && credential.password;
		char *header = known ? auth_basic_header(&credential) : NULL;
		pthread_mutex_lock(&auth->lock);
		if (err && err != -ENOENT)
			return err;
		if (known && !header)
			return -ENOMEM;
		auth_forget(&auth->basic);
		auth->basic = header;
	}
	*ret = auth->basic ? strdup(auth->basic) : NULL;
	return auth->basic && !*ret ? -ENOMEM : 0;
}

int auth_header(struct auth *auth, const struct auth_ask *ask, struct wait *wait, char **ret)
{
	char *header = NULL;
	int err = 0;
	pthread_mutex_lock(&auth->lock);
	if (auth->scheme == SCHEME_BEARER)
		err = bearer_header(auth, ask, wait, &header);
	else if (auth->scheme == SCHEME_BASIC)
		err = basic_header(auth, ask, wait, &header);
	pthread_mutex_unlock(&auth->lock);
	if (!err)
		*ret = header;
	return err;
}

/* ---- challenges ---- */

/* Why credentials must not go to REALM on the word of the registry at URL; NULL: they may. */
static const char *realm_refusal(const char *url, const char *realm)
{
	CLEANUP(http_url_release) struct http_url registry = {0};
	CLEANUP(http_url_release) struct http_url service = {0};
	if (http_url_parse(url, &registry) || http_url_parse(realm, &service))
		return "it is not an http or https URL";
	bool local = http_host_is_loopback(registry.host);
	if (!http_host_is_local(registry.host) && http_host_is_local(service.host))
		return "it lies on this machine, the registry does not";
	if (strcmp(service.scheme, "http"))
		return NULL;
	if (strcmp(registry.scheme, "http"))
		return "it is not on https as the registry is";
	if (local && !http_host_is_loopback(service.host))
		return "plain HTTP leads away from this machine";
	return NULL;
}

/* All of the answer's challenges. 0 or -ENOMEM. */
static int take_challenges(const struct auth *auth, const struct http_transfer *transfer,
			   struct auth_challenges *ret)
{
	const char *header;
	for (unsigned n = 0; n < 16; n++) {
		header = http_header_n(transfer, "WWW-Authenticate", n);
		if (!header)
			break;
		int err = auth_parse(header, ret);
		if (err)
			return err;
	}
	if (!ret->bearer)
		return 0;
	const char *why = ret->realm ? realm_refusal(http_url(transfer), ret->realm)
				     : "it is missing";
	if (why) {
		log_warn("%s: the token service's address \"%s\" is refused: %s", auth->host,
			 ret->realm ? ret->realm : "", why);
		ret->bearer = false;
	}
	return 0;
}

/* With the lock. */
static void forget_refused(struct auth *auth, const char *used)
{
	if (auth->basic && used && !strcmp(auth->basic, used))
		auth_forget(&auth->basic);
	for (struct token *token = auth->tokens; token; token = token->next) {
		if (token_in(token, used))
			auth_forget(&token->value);
	}
}

/* With the lock. */
static int adopt(struct auth *auth, const char *scope, struct auth_challenges *challenges,
		 const char *used)
{
	if (!challenges->bearer) {
		/* Harbor answers an expired token with a Basic challenge, and names its token
		 * service only to those who come without any (nydus, storage/src/backend/
		 * registry.rs). */
		bool expired = used && starts_with(used, "Authorization: Bearer ");
		auth->scheme = expired ? SCHEME_NONE : SCHEME_BASIC;
		return 0;
	}
	struct token *token = token_of(auth, scope);
	if (!token)
		return -ENOMEM;
	auth->scheme = SCHEME_BEARER;
	free(auth->realm);
	auth->realm = STEAL(challenges->realm);
	free(auth->service);
	auth->service = STEAL(challenges->service);
	if (challenges->scope && strcmp(challenges->scope, scope)) {
		free(token->challenged);
		token->challenged = STEAL(challenges->scope);
	}
	return 0;
}

int auth_challenge(struct auth *auth, const struct auth_ask *ask,
		   const struct http_transfer *transfer, const char *used)
{
	CLEANUP(auth_challenges_release) struct auth_challenges challenges = {0};
	int err = take_challenges(auth, transfer, &challenges);
	if (err)
		return err;
	pthread_mutex_lock(&auth->lock);
	forget_refused(auth, used);
	if (challenges.bearer || challenges.basic)
		err = adopt(auth, ask->scope ? ask->scope : "", &challenges, used);
	else
		err = -EACCES;
	pthread_mutex_unlock(&auth->lock);
	return err;
}
