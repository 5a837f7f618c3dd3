/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth: the headers one registry lets us in with, and who waits for one.
 * Knows schemes, scopes, lifetimes. Must not know how a token service is spoken to, nor where
 * credentials are stored.
 *
 * A header is kept for each scope (Bearer) or repository (Basic) that was asked for. One thread
 * fetches it, without the lock; the others that want it wait in its queue and share its success or
 * failure, so that a slow token service or credential helper is asked once and not once for each
 * reader.
 */
#include <errno.h>

#include "auth_priv.h"

#define PASSES_MAX 128
/* A token that ends so soon may end on its way. */
#define MARGIN_MS 10000
/* What is stored is looked at again after this: it may have changed without a refusal. */
#define STORED_MS 60000

struct auth *auth_new(const struct auth_options *options)
{
	struct auth *auth = calloc(1, sizeof(*auth));
	if (!auth)
		return NULL;
	*auth = (struct auth){
		.http = options->http,
		.host = strdup(options->host),
		.endpoint = options->endpoint,
		.tls = options->tls,
		.hosts = options->hosts,
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

static void pass_free(struct auth_pass *pass)
{
	free(pass->name);
	free(pass->challenged);
	secret_free(&pass->header);
	free(pass);
}

void auth_free(struct auth *auth)
{
	if (!auth)
		return;
	while (auth->passes) {
		struct auth_pass *pass = auth->passes;
		auth->passes = pass->next;
		pass_free(pass);
	}
	free(auth->host);
	free(auth->realm);
	free(auth->service);
	pthread_mutex_destroy(&auth->lock);
	free(auth);
}

/* ---- passes, with the lock ---- */

static void evict(struct auth *auth)
{
	struct auth_pass **oldest = NULL;
	for (struct auth_pass **at = &auth->passes; *at; at = &(*at)->next) {
		if (!(*at)->refs && (!oldest || (*at)->used_ms < (*oldest)->used_ms))
			oldest = at;
	}
	if (!oldest)
		return;
	struct auth_pass *gone = *oldest;
	*oldest = gone->next;
	pass_free(gone);
	auth->npasses--;
}

struct auth_pass *auth_pass_of(struct auth *auth, enum auth_scheme scheme, const char *name)
{
	struct auth_pass *pass = auth->passes;
	while (pass && (pass->scheme != scheme || strcmp(pass->name, name)))
		pass = pass->next;
	if (pass)
		return pass;
	if (auth->npasses >= PASSES_MAX)
		evict(auth);
	pass = calloc(1, sizeof(*pass));
	if (!pass || !(pass->name = strdup(name))) {
		free(pass);
		return NULL;
	}
	pass->scheme = scheme;
	pass->next = auth->passes;
	auth->passes = pass;
	auth->npasses++;
	return pass;
}

/* What a fetch needs, copied while the lock is held. */
struct errand {
	enum auth_scheme scheme;
	bool refused;
	char *realm, *service, *challenged; /* of BEARER */
	bool outside;			    /* as in struct http_request */
};

static void errand_release(struct errand *errand)
{
	free(errand->realm);
	free(errand->service);
	free(errand->challenged);
}

static int copy(const char *from, char **ret)
{
	*ret = from ? strdup(from) : NULL;
	return from && !*ret ? -ENOMEM : 0;
}

static int errand_take(const struct auth *auth, const struct auth_pass *pass, struct errand *ret)
{
	ret->scheme = pass->scheme;
	ret->refused = pass->refused;
	if (pass->scheme != AUTH_BEARER)
		return 0;
	ret->outside = !auth->near && !http_host_is_local(auth->endpoint);
	int err = copy(auth->realm, &ret->realm);
	err = err ? err : copy(auth->service, &ret->service);
	return err ? err : copy(pass->challenged, &ret->challenged);
}

/* ---- fetching, without the lock ---- */

struct fetched {
	char *header;
	int64_t lifetime_ms;
	bool anonymous;
};

static void unref_hold(const struct hosts_answer **hold)
{
	hosts_answer_unref(*hold);
}

static int bearer_header(const char *token, int64_t lifetime_ms, struct fetched *ret)
{
	ret->header = format("Authorization: Bearer %s", token);
	ret->lifetime_ms = lifetime_ms;
	return ret->header ? 0 : -ENOMEM;
}

/* -ENOENT: there is nothing to send. */
static int basic_header(const struct auth_credential *credential, struct fetched *ret)
{
	if (!credential->user || !credential->password)
		return -ENOENT;
	ret->header = auth_basic_header(credential);
	ret->lifetime_ms = STORED_MS + MARGIN_MS;
	return ret->header ? 0 : -ENOMEM;
}

static int token_header(struct auth *auth, struct auth_token_request *request, struct wait *wait,
			struct fetched *ret)
{
	CLEANUP(unref_hold) const struct hosts_answer *hold = NULL;
	struct auth_token token = {0};
	struct http_tls tls = {0};
	int err = auth_realm_tls(auth, request->realm, &tls, &hold);
	if (err)
		return err;
	request->tls = &tls;
	err = auth_token_fetch(auth->http, request, wait, &token);
	if (!err)
		err = bearer_header(token.value, token.lifetime_ms, ret);
	secret_free(&token.value);
	return err;
}

static int fetch(struct auth *auth, const struct auth_ask *ask, const struct errand *errand,
		 struct wait *wait, struct fetched *ret)
{
	const struct auth_query query = {
		.host = auth->host,
		.repo = ask->repo,
		.fresh = errand->refused,
		.deadline_ms = ask->deadline_ms,
	};
	CLEANUP(auth_credential_release) struct auth_credential credential = {0};
	int err = auth->lookup ? auth->lookup(auth->lookup_arg, &query, wait, &credential)
			       : -ENOENT;
	ret->anonymous = err == -ENOENT;
	if (err && !ret->anonymous)
		return err;
	if (credential.registry_token)
		return bearer_header(credential.registry_token, STORED_MS + MARGIN_MS, ret);
	if (errand->scheme == AUTH_BASIC)
		return basic_header(&credential, ret);
	struct auth_token_request request = {
		.realm = errand->realm,
		.service = errand->service,
		.challenged = errand->challenged,
		.scope = ask->scope ? ask->scope : "",
		.credential = ret->anonymous ? NULL : &credential,
		.deadline_ms = query.deadline_ms,
		.outside = errand->outside,
	};
	return token_header(auth, &request, wait, ret);
}

/* Whether ERR says that the token service is not what or where we think: the registry may name
 * another one by now. */
static bool is_astray(int err)
{
	return err && err != -EACCES && err != -EBUSY && err != -EINTR && err != -ENOMEM &&
	       err != -ENOENT;
}

/* With the lock, which is let go meanwhile. */
static int refresh(struct auth *auth, struct auth_pass *pass, const struct auth_ask *ask,
		   struct wait *wait)
{
	CLEANUP(errand_release) struct errand errand = {0};
	int err = errand_take(auth, pass, &errand);
	if (err)
		return err;
	struct fetched fetched = {0};
	int64_t begun_ms = now_ms();
	pass->fetching = true;
	pthread_mutex_unlock(&auth->lock);
	err = fetch(auth, ask, &errand, wait, &fetched);
	pthread_mutex_lock(&auth->lock);
	auth->refused |= err == -EKEYREJECTED;
	auth->anonymous = fetched.anonymous;
	err = err == -EKEYREJECTED ? -EACCES : err;
	pass->fetching = false;
	pass->fetches++;
	pass->error = err;
	pass->took_ms = now_ms() - begun_ms;
	if (pass->scheme == AUTH_BEARER && is_astray(err))
		auth->scheme = AUTH_NONE; /* until it challenges us again */
	if (!err) {
		secret_free(&pass->header);
		pass->header = fetched.header;
		pass->made_ms = now_ms();
		pass->until_ms = pass->made_ms + fetched.lifetime_ms;
		pass->refused = false;
	}
	wait_wake(&pass->waiters);
	return err;
}

/* With the lock: waits for the fetch of another thread; 0: look again. */
static int share(struct auth *auth, struct auth_pass *pass, const struct auth_ask *ask,
		 struct wait *wait)
{
	unsigned before = pass->fetches;
	int err = wait_on(wait, &pass->waiters, &auth->lock, ask->deadline_ms);
	if (err || pass->fetches == before)
		return err;
	/* What befell that thread alone is no verdict for us; but who has far less time left than
	 * it took in vain need not try. */
	bool hopeless = ask->deadline_ms - now_ms() < pass->took_ms / 2;
	bool verdict = pass->error != -EINTR && (pass->error != -ETIMEDOUT || hopeless);
	return verdict ? pass->error : 0;
}

/* With the lock. */
static int header_of(struct auth *auth, struct auth_pass *pass, const struct auth_ask *ask,
		     struct wait *wait)
{
	int err = 0;
	while (!err && (!pass->header || pass->until_ms - now_ms() < MARGIN_MS)) {
		if (!wait_may_block(wait))
			err = -EWOULDBLOCK;
		else if (pass->fetching)
			err = share(auth, pass, ask, wait);
		else
			err = refresh(auth, pass, ask, wait);
	}
	return err;
}

/* With the lock. *RET stays NULL where nothing is to be sent. */
static int known_header(struct auth *auth, const struct auth_ask *ask, struct wait *wait,
			char **ret)
{
	bool bearer = auth->scheme == AUTH_BEARER;
	if (auth->scheme == AUTH_NONE || (!bearer && !auth->lookup))
		return 0;
	const char *name = bearer ? ask->scope : ask->repo;
	struct auth_pass *pass = auth_pass_of(auth, auth->scheme, name ? name : "");
	if (!pass)
		return -ENOMEM;
	pass->refs++;
	pass->used_ms = now_ms();
	int err = header_of(auth, pass, ask, wait);
	if (!err) {
		*ret = strdup(pass->header);
		err = *ret ? 0 : -ENOMEM;
	}
	pass->refs--;
	return err == -ENOENT ? 0 : err;
}

int auth_header(struct auth *auth, const struct auth_ask *ask, struct wait *wait, char **ret)
{
	struct auth_ask bounded = *ask;
	char *header = NULL;
	if (!bounded.deadline_ms)
		bounded.deadline_ms = now_ms() + auth->timeout_ms;
	pthread_mutex_lock(&auth->lock);
	int err = known_header(auth, &bounded, wait, &header);
	pthread_mutex_unlock(&auth->lock);
	if (!err)
		*ret = header;
	return err;
}

bool auth_was_challenged(struct auth *auth)
{
	pthread_mutex_lock(&auth->lock);
	bool challenged = auth->challenged;
	pthread_mutex_unlock(&auth->lock);
	return challenged;
}

bool auth_is_anonymous(struct auth *auth)
{
	pthread_mutex_lock(&auth->lock);
	bool anonymous = auth->scheme == AUTH_BEARER && auth->anonymous;
	pthread_mutex_unlock(&auth->lock);
	return anonymous;
}

bool auth_was_refused(struct auth *auth)
{
	pthread_mutex_lock(&auth->lock);
	bool refused = auth->refused;
	pthread_mutex_unlock(&auth->lock);
	return refused;
}
