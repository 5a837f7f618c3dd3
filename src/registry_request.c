/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_request: one call to a registry until its final answer.
 * Knows credentials, redirects, and what is worth a repetition. Must not know what is asked for.
 *
 * Authorization goes to the registry's own scheme, host and port and nowhere else, however often
 * the call is redirected.
 */
#include <errno.h>
#include <strings.h>

#include "registry_priv.h"
#include "regfs/log.h"
#include "regfs/stats.h"

#define REDIRECTS_MAX 5
/* A challenge, and another one where an expired token is answered in an odd way (auth.c). */
#define CHALLENGES_MAX 2
#define RETRIES_MAX    3
/* A remembered redirect that failed, and a fresh one. */
#define RESTARTS_MAX 2
#define HEADERS_MAX  16
/* A connection that was idle for so long may be gone, at the hastier servers. */
#define IDLE_MS 60000

/* What one call has gone through. */
struct exchange {
	struct registry *registry;
	const struct registry_call *call;
	struct wait *wait;
	char *base, *start, *url; /* the registry; where the call began; where it is now */
	char *used;		  /* the Authorization header sent last, or NULL */
	int64_t begun_ms;
	int64_t patience_ms; /* nothing is repeated after this, in now_ms() time */
	unsigned redirects, challenges, retries, restarts;
	bool remembered; /* .url is out of the table (registry_redirect.c) */
	bool leads;	 /* others wait for what comes of this */
	char why[HTTP_WHY_MAX];
};

static void exchange_release(struct exchange *x)
{
	if (x->leads)
		redirects_drop(x->registry->redirects, x->start, NULL);
	free(x->base);
	free(x->start);
	free(x->url);
	secret_free(&x->used);
}

/* ---- whether a URL is the registry's own ---- */

/* HOST without the port that SCHEME implies. */
static size_t host_len(const struct http_url *url)
{
	const char *port = strcmp(url->scheme, "https") ? ":80" : ":443";
	size_t len = strlen(url->host);
	return ends_with(url->host, port) ? len - strlen(port) : len;
}

static bool same_origin(const struct http_url *a, const struct http_url *b)
{
	return !strcmp(a->scheme, b->scheme) && host_len(a) == host_len(b) &&
	       !strncasecmp(a->host, b->host, host_len(a));
}

static bool is_home(const struct exchange *x)
{
	CLEANUP(http_url_release) struct http_url home = {0};
	CLEANUP(http_url_release) struct http_url here = {0};
	if (http_url_parse(x->base, &home) || http_url_parse(x->url, &here))
		return false;
	return same_origin(&home, &here);
}

const char *registry_detour_refusal(const char *from, const char *to)
{
	CLEANUP(http_url_release) struct http_url here = {0};
	CLEANUP(http_url_release) struct http_url there = {0};
	if (http_url_parse(from, &here) || http_url_parse(to, &there))
		return "sends us to something that is no http or https URL";
	if (!strcmp(here.scheme, "https") && strcmp(there.scheme, "https"))
		return "sends us from https to http";
	if (!http_host_is_local(here.host) && http_host_is_local(there.host))
		return "sends us to an address that only means something nearby";
	return NULL;
}

/* ---- one request ---- */

static int add_headers(const char *headers[static HEADERS_MAX], size_t *n, const char *const *from)
{
	for (; from && *from; from++) {
		if (*n == HEADERS_MAX - 1)
			return -EINVAL;
		headers[(*n)++] = *from;
	}
	headers[*n] = NULL;
	return 0;
}

static int fill_headers(const struct exchange *x, bool home,
			const char *headers[static HEADERS_MAX])
{
	size_t n = 0;
	if (x->used)
		headers[n++] = x->used;
	int err = add_headers(headers, &n, x->call->headers);
	if (!err && home)
		err = add_headers(headers, &n, (const char *const *)x->registry->headers);
	return err;
}

/* The header to send here: none away from home. */
static int take_credentials(struct exchange *x)
{
	const struct registry_call *call = x->call;
	char *header = NULL;
	if (!call->anonymous && is_home(x)) {
		const struct auth_ask ask = {
			.scope = call->scope, .repo = call->repo, .deadline_ms = call->deadline_ms};
		int err = auth_header(x->registry->auth, &ask, x->wait, &header);
		if (err)
			return err;
	}
	secret_free(&x->used);
	x->used = header;
	return 0;
}

/* Who is nearby himself may name others that are. */
static bool is_near(const struct registry *registry)
{
	return atomic_load(&registry->near) || http_host_is_local(registry->endpoint);
}

static int send_once(struct exchange *x, struct http_transfer **ret)
{
	const struct registry_call *call = x->call;
	const char *headers[HEADERS_MAX];
	bool home = is_home(x);
	int err = fill_headers(x, home, headers);
	if (err)
		return err;
	const struct http_request request = {
		.method = call->method,
		.url = x->url,
		.headers = headers,
		.body = call->body,
		.body_len = call->body_len,
		.body_read = call->body_read,
		.body_await = call->body_await,
		.body_arg = call->body_arg,
		.tls = home ? &x->registry->tls : &x->registry->away,
		.timeout_ms = call->timeout_ms ? call->timeout_ms : x->registry->timeout_ms,
		.deadline_ms = call->deadline_ms,
		.outside = !home && !is_near(x->registry),
		.bulk = call->bulk,
		.why = x->why,
	};
	return http_start(x->registry->http, &request, x->wait, ret);
}

/* ---- what follows from an answer ---- */

/* AGAIN: send anew. */
enum verdict { VERDICT_FINAL, VERDICT_AGAIN };

static int failed(struct exchange *x, int err, const char *why)
{
	return registry_failed(x->registry, x->call, err, why);
}

/* Sleeps before a repetition. 1: go on; 0: no patience left; or a negative errno. */
static int back_off(struct exchange *x, const struct http_transfer *transfer)
{
	if (x->retries == RETRIES_MAX)
		return 0;
	int64_t until_ms = now_ms() + http_backoff_ms(transfer, ++x->retries);
	if (until_ms >= x->patience_ms)
		return 0;
	int err = wait_until(x->wait, until_ms);
	if (err)
		return err;
	stats_add(STAT_HTTP_RETRIES, 1);
	return 1;
}

static int challenged(struct exchange *x, const struct http_transfer *transfer, enum verdict *ret)
{
	const struct auth_ask ask = {
		.scope = x->call->scope, .repo = x->call->repo, .begun_ms = x->begun_ms};
	*ret = VERDICT_FINAL;
	if (!is_home(x))
		return 0;
	int err = auth_challenge(x->registry->auth, &ask, transfer, x->used);
	if (err == -EACCES || x->call->anonymous || x->challenges++ == CHALLENGES_MAX)
		return 0;
	if (err)
		return err;
	AUTO_SECRET char *refused = STEAL(x->used);
	err = take_credentials(x);
	if (err)
		return err;
	/* The same again will not do better. */
	bool changed = !refused != !x->used || (refused && strcmp(refused, x->used));
	*ret = changed ? VERDICT_AGAIN : VERDICT_FINAL;
	return 0;
}

static int redirected(struct exchange *x, const char *location)
{
	if (x->redirects++ == REDIRECTS_MAX)
		return failed(x, -EIO, "redirected too often");
	AUTO_FREE char *to = NULL;
	int err = http_url_resolve(x->url, location, &to);
	if (err == -ENOMEM)
		return err;
	const char *why = err ? "redirected to nonsense" : registry_detour_refusal(x->url, to);
	if (why)
		return failed(x, -EIO, why);
	free(x->url);
	x->url = STEAL(to);
	return take_credentials(x);
}

/* To where the call begins: where its blob was found before, or the registry. */
static int set_out(struct exchange *x)
{
	AUTO_FREE char *url = NULL;
	int found = 0;
	if (x->call->is_blob && !x->leads)
		found = redirects_find(x->registry->redirects, x->start, x->wait, &url);
	if (found < 0)
		return found;
	x->leads |= found == 1;
	x->remembered = url != NULL;
	x->redirects = x->remembered;
	if (!url)
		url = strdup(x->start);
	if (!url)
		return -ENOMEM;
	free(x->url);
	x->url = STEAL(url);
	return take_credentials(x);
}

/* A URL that we were sent to does not serve any more: the registry is asked for another. */
static int restart(struct exchange *x)
{
	x->restarts++;
	if (x->remembered)
		redirects_drop(x->registry->redirects, x->start, x->url);
	return set_out(x);
}

/* Whether an answer away from the registry says that its URL has expired. S3 says 400, others 401
 * or 403; and what served before may be gone altogether. */
static bool has_expired(const struct exchange *x, int status)
{
	if (!x->redirects || x->restarts == RESTARTS_MAX)
		return false;
	if (x->remembered)
		return status >= 400 && status < 500 && status != 416 && status != 429;
	/* A fresh one that fails like this twice does so for another reason. */
	return status == 400 || status == 401 || status == 403;
}

/* What later ranges of the blob need to know. */
static void remember(struct exchange *x, const struct http_transfer *transfer)
{
	int status = http_status(transfer);
	bool served = status == 200 || status == 206;
	if (!x->call->is_blob || x->remembered || !served)
		return;
	if (x->leads || x->redirects)
		redirects_settle(x->registry->redirects, x->start, x->redirects ? x->url : NULL);
	x->leads = false;
}

/* What is sent with a body is only sent again where the status says so. */
static bool is_redirect(int status, enum http_method method)
{
	if (status == 307 || status == 308)
		return true;
	return (status == 301 || status == 302 || status == 303) &&
	       (method == HTTP_GET || method == HTTP_HEAD);
}

static int busy(struct exchange *x, const struct http_transfer *transfer, enum verdict *ret)
{
	int status = http_status(transfer);
	bool untouched = status == 429 || (status == 503 && http_header(transfer, "Retry-After"));
	*ret = VERDICT_FINAL;
	if (untouched && !x->redirects)
		registry_limited(x->registry, x->call, transfer);
	/* 501 and 507 will not pass. */
	bool passing = status == 500 || status == 502 || status == 503 || status == 504;
	if (!untouched && (!passing || x->call->once))
		return 0;
	int go = back_off(x, transfer);
	if (go > 0)
		*ret = VERDICT_AGAIN;
	return MIN(go, 0);
}

static int look_at(struct exchange *x, const struct http_transfer *transfer, enum verdict *ret)
{
	int status = http_status(transfer);
	const char *location = http_header(transfer, "Location");
	if (x->call->no_redirect)
		location = NULL;
	*ret = VERDICT_AGAIN;
	if (is_redirect(status, x->call->method) && location)
		return redirected(x, location);
	if (has_expired(x, status))
		return restart(x);
	if (status == 401 || status == 403)
		return challenged(x, transfer, ret);
	return busy(x, transfer, ret);
}

/* After a failure below HTTP: 0 to try again. */
static int lost(struct exchange *x, int err)
{
	if (x->remembered && err != -EINTR && err != -ETIMEDOUT && x->restarts < RESTARTS_MAX)
		return restart(x);
	if (x->remembered)
		redirects_drop(x->registry->redirects, x->start, x->url);
	else
		registry_doubt_scheme(x->registry);
	if (x->call->lost && (err == -ECONNRESET || err == -ETIMEDOUT || err == -EPROTO))
		*x->call->lost = true;
	/* For the log it is one thing, whatever was asked for; but for what was to be changed. */
	if (!x->redirects && !x->call->once && !registry_gone(x->registry, err)) {
		log_debug("%s: %s", x->registry->store.name, x->why);
		return err;
	}
	if (err != -ECONNRESET || x->call->once)
		return failed(x, err, x->why);
	int go = back_off(x, NULL);
	if (go > 0)
		return 0;
	return go < 0 ? go : failed(x, err, x->why);
}

/* *RET_ANSWER is the first answer where there is one already; else NULL. */
static int begin(struct exchange *x, struct http_transfer **ret_answer)
{
	const struct registry_call *call = x->call;
	x->begun_ms = now_ms();
	int64_t patience_ms = x->begun_ms + x->registry->timeout_ms;
	x->patience_ms = call->deadline_ms ? call->deadline_ms : patience_ms;
	int err = call->is_blob ? 0
				: registry_await_turn(x->registry, call, x->patience_ms, x->wait);
	err = err ? err : registry_base(x->registry, call, x->wait, &x->base, ret_answer);
	if (err)
		return err;
	x->start = *call->url == '/' ? registry_url(x->registry, x->base, call->url)
				     : strdup(call->url);
	if (x->start && *ret_answer)
		x->url = strdup(x->start);
	if (*ret_answer)
		return x->url ? 0 : -ENOMEM;
	err = x->start ? set_out(x) : -ENOMEM;
	if (!err && call->is_blob && !x->remembered)
		err = registry_await_turn(x->registry, call, x->patience_ms, x->wait);
	return err;
}

/* Whether CALL is the first one, and in front of bulk that is likely to come. */
static bool take_lead(struct registry *registry, const struct registry_call *call)
{
	int64_t now = now_ms();
	pthread_mutex_lock(&registry->lock);
	bool idle = !registry->asked_ms || now - registry->asked_ms >= IDLE_MS;
	bool leads = call->leads && idle && !registry->leading;
	if (leads)
		registry->leading = true;
	else
		registry->asked_ms = now;
	pthread_mutex_unlock(&registry->lock);
	return leads;
}

static void leave_lead(struct registry *registry)
{
	pthread_mutex_lock(&registry->lock);
	registry->leading = false;
	pthread_mutex_unlock(&registry->lock);
}

static int exchange(struct registry *registry, const struct registry_call *call, struct wait *wait,
		    struct http_transfer **ret)
{
	CLEANUP(exchange_release)
	struct exchange x = {.registry = registry, .call = call, .wait = wait};
	AUTO_TRANSFER struct http_transfer *first = NULL;
	int err = begin(&x, &first);
	while (!err) {
		AUTO_TRANSFER struct http_transfer *transfer = STEAL(first);
		if (!transfer)
			err = send_once(&x, &transfer);
		if (err) {
			err = lost(&x, err);
			continue;
		}
		registry_back(registry);
		if (is_home(&x))
			atomic_store(&registry->near, http_is_near(transfer));
		enum verdict verdict;
		err = look_at(&x, transfer, &verdict);
		if (!err && verdict == VERDICT_FINAL) {
			remember(&x, transfer);
			*ret = STEAL(transfer);
			return 0;
		}
	}
	return registry_errno(err);
}

int registry_send(struct registry *registry, const struct registry_call *call, struct wait *wait,
		  struct http_transfer **ret)
{
	if (registry->offline)
		return -EHOSTUNREACH;
	if (!wait_may_block(wait))
		return -EWOULDBLOCK;
	struct registry_call settled = *call;
	bool leads = take_lead(registry, call);
	settled.bulk |= leads;
	int err = exchange(registry, &settled, wait, ret);
	if (leads)
		leave_lead(registry);
	return err;
}

int registry_ask(struct registry *registry, const struct registry_call *call, struct wait *wait,
		 struct http_transfer **ret)
{
	AUTO_TRANSFER struct http_transfer *transfer = NULL;
	int err = registry_send(registry, call, wait, &transfer);
	if (err)
		return err;
	int status = http_status(transfer);
	if (status < 200 || status > 299)
		return registry_refused(registry, call, transfer, wait);
	*ret = STEAL(transfer);
	return 0;
}
