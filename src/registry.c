/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry: the store behind the distribution protocol; its options, whether the host is a
 * registry, and which scheme it speaks.
 * Must not know requests in detail (registry_request.c) nor caching.
 *
 * A host on this machine may speak plain HTTP or TLS, and nothing in its name says which. It is
 * asked for /v2/ over plain HTTP first: a TLS server answers that at once, with status 400 or by
 * hanging up, while a plain server may wait long for the end of a TLS greeting. No credentials go
 * along. The answer is kept until a request fails below HTTP.
 */
#include <errno.h>

#include "registry_priv.h"
#include "regfs/log.h"

#define HUB_HOST     "docker.io"
#define HUB_ENDPOINT "registry-1.docker.io"
#define HUB_KEY	     "https://index.docker.io/v1/"

int64_t registry_name_deadline(const struct registry *registry)
{
	return now_ms() + registry->name_timeout_ms;
}

char *registry_scope(const char *repo, const char *actions)
{
	return format("repository:%s:%s", repo, actions);
}

bool registry_is_html(const struct http_transfer *transfer)
{
	const char *type = http_header(transfer, "Content-Type");
	return type && starts_with(type, "text/html");
}

/* ---- the scheme ---- */

static enum registry_scheme scheme_get(struct registry *registry)
{
	pthread_mutex_lock(&registry->lock);
	enum registry_scheme scheme = registry->scheme;
	pthread_mutex_unlock(&registry->lock);
	return scheme;
}

static void scheme_set(struct registry *registry, enum registry_scheme scheme)
{
	pthread_mutex_lock(&registry->lock);
	registry->scheme = scheme;
	pthread_mutex_unlock(&registry->lock);
}

void registry_doubt_scheme(struct registry *registry)
{
	if (registry->may_probe)
		scheme_set(registry, SCHEME_UNKNOWN);
}

static char *base_of(const struct registry *registry, enum registry_scheme scheme)
{
	return format("%s://%s", scheme == SCHEME_HTTP ? "http" : "https", registry->endpoint);
}

static int try_scheme(struct registry *registry, enum registry_scheme scheme, int64_t deadline_ms,
		      struct wait *wait, struct http_transfer **ret)
{
	char why[HTTP_WHY_MAX] = "";
	AUTO_FREE char *base = base_of(registry, scheme);
	AUTO_FREE char *url = base ? format("%s/v2/", base) : NULL;
	if (!url)
		return -ENOMEM;
	const struct http_request request = {
		.method = HTTP_GET,
		.url = url,
		.tls = &registry->tls,
		.deadline_ms = deadline_ms,
		.why = why,
	};
	int err = http_start(registry->http, &request, wait, ret);
	/* Over plain HTTP, nonsense is an answer too: it may be TLS. */
	bool expected = scheme == SCHEME_HTTP && (err == -EPROTO || err == -ECONNRESET);
	bool silent = expected || err == -EINTR || err == -EWOULDBLOCK;
	if (err && !silent && registry_gone(registry, err))
		log_warn("%s: %s", registry->store.name, why);
	if (!err)
		registry_back(registry);
	return err;
}

/* Whether an answer over plain HTTP sends us to TLS. */
static bool wants_tls(const struct http_transfer *transfer)
{
	int status = http_status(transfer);
	const char *location = http_header(transfer, "Location");
	return status == 400 ||
	       (status >= 300 && status < 400 && location && starts_with(location, "https://"));
}

/* Finds the scheme out; *RET is the host's answer to GET /v2/, its challenges taken in. */
static int probe(struct registry *registry, int64_t deadline_ms, struct wait *wait,
		 struct http_transfer **ret)
{
	AUTO_TRANSFER struct http_transfer *answer = NULL;
	enum registry_scheme scheme = SCHEME_HTTP;
	int err = try_scheme(registry, scheme, deadline_ms, wait, &answer);
	if (err == -EPROTO || err == -ECONNRESET || (!err && wants_tls(answer))) {
		http_close(STEAL(answer));
		scheme = SCHEME_HTTPS;
		err = try_scheme(registry, scheme, deadline_ms, wait, &answer);
	}
	if (err)
		return registry_errno(err);
	scheme_set(registry, scheme);
	if (http_status(answer) == 401)
		auth_challenge(registry->auth, &(struct auth_ask){0}, answer, NULL);
	*ret = STEAL(answer);
	return 0;
}

int registry_base(struct registry *registry, int64_t deadline_ms, struct wait *wait, char **ret)
{
	enum registry_scheme scheme = scheme_get(registry);
	if (scheme == SCHEME_UNKNOWN) {
		AUTO_TRANSFER struct http_transfer *answer = NULL;
		int err = probe(registry,
				deadline_ms ? deadline_ms : registry_name_deadline(registry), wait,
				&answer);
		if (err)
			return err;
		scheme = scheme_get(registry);
		if (scheme == SCHEME_UNKNOWN) /* another thread has come to doubt it */
			return -EIO;
	}
	char *base = base_of(registry, scheme);
	if (!base)
		return -ENOMEM;
	*ret = base;
	return 0;
}

/* ---- ping ---- */

/* Whether an answer to GET /v2/ is a registry's (distribution-spec, "Determining Support"). */
static bool is_registry(const struct http_transfer *transfer)
{
	int status = http_status(transfer);
	if (http_header(transfer, "Docker-Distribution-Api-Version"))
		return status != 404;
	if (status == 401)
		return http_header(transfer, "WWW-Authenticate") != NULL;
	return status == 200 && !registry_is_html(transfer);
}

int registry_ping(struct store *store, struct wait *wait)
{
	struct registry *registry = registry_of(store);
	const struct registry_call call = {
		.method = HTTP_GET,
		.url = "/v2/",
		.anonymous = true,
		.may_refuse = true,
		.deadline_ms = registry_name_deadline(registry),
	};
	AUTO_TRANSFER struct http_transfer *answer = NULL;
	int err;
	if (!registry->offline && scheme_get(registry) == SCHEME_UNKNOWN)
		err = probe(registry, call.deadline_ms, wait, &answer);
	else
		err = registry_send(registry, &call, wait, &answer);
	if (err)
		return err;
	if (is_registry(answer))
		return 0;
	if (http_status(answer) == 200) /* some other web server */
		return -ENOENT;
	return registry_refused(registry, &call, answer, wait);
}

int registry_login(struct store *store, struct wait *wait, bool *ret_asked)
{
	struct registry *registry = registry_of(store);
	const struct registry_call call = {
		.method = HTTP_GET,
		.url = "/v2/",
		.deadline_ms = registry_name_deadline(registry),
	};
	AUTO_TRANSFER struct http_transfer *answer = NULL;
	int err = registry_ask(registry, &call, wait, &answer);
	if (err)
		return err;
	if (!is_registry(answer))
		return registry_failed(registry, &call, -ENOENT, "it is no registry");
	*ret_asked = auth_was_challenged(registry->auth);
	return 0;
}

/* ---- the store ---- */

static int make_repo(struct store *store, const char *repo, struct wait *wait)
{
	/* It comes into being with its first push. */
	(void)store, (void)repo, (void)wait;
	return 0;
}

static uint64_t generation(struct store *store, const char *repo)
{
	(void)store, (void)repo;
	return 0;
}

static void registry_free(struct store *store)
{
	struct registry *registry = registry_of(store);
	registry_foreign_release(registry);
	auth_free(registry->auth);
	redirects_free(registry->redirects);
	free(registry->store.name);
	free(registry->endpoint);
	free(registry->cacert);
	pthread_mutex_destroy(&registry->lock);
	free(registry);
}

static const struct store_ops registry_ops = {
	.kind = "registry",
	.list_repos = registry_list_repos,
	.list_tags = registry_list_tags,
	.head = registry_head,
	.get_manifest = registry_get_manifest,
	.referrers = registry_referrers,
	.has_blob = registry_has_blob,
	.open_blob = registry_open_blob,
	.learn_urls = registry_learn_urls,
	.put_blob = registry_put_blob,
	.put_manifest = registry_put_manifest,
	.untag = registry_untag,
	.delete_manifest = registry_delete_manifest,
	.make_repo = make_repo,
	.remove_repo = registry_remove_repo,
	.ping = registry_ping,
	.generation = generation,
	.free = registry_free,
};

static enum registry_scheme first_scheme(const struct registry_options *options)
{
	if (options->plain_http)
		return SCHEME_HTTP;
	if (options->https_only || !http_host_is_loopback(options->host))
		return SCHEME_HTTPS;
	return SCHEME_UNKNOWN;
}

int registry_new(const struct registry_options *options, struct store **ret)
{
	struct registry *registry = calloc(1, sizeof(*registry));
	if (!registry)
		return -ENOMEM;
	bool hub = !strcmp(options->host, HUB_HOST);
	*registry = (struct registry){
		.store = {.ops = &registry_ops, .name = strdup(options->host)},
		.http = options->http,
		.endpoint = strdup(hub ? HUB_ENDPOINT : options->host),
		.cacert = options->cacert ? strdup(options->cacert) : NULL,
		.timeout_ms = options->timeout_ms ? options->timeout_ms : 60000,
		.name_timeout_ms = options->name_timeout_ms ? options->name_timeout_ms : 10000,
		.offline = options->offline,
		.scheme = first_scheme(options),
	};
	registry->may_probe = registry->scheme == SCHEME_UNKNOWN;
	registry->tls.ca_file = registry->cacert;
	pthread_mutex_init(&registry->lock, NULL);
	const struct auth_options auth = {
		.http = options->http,
		.host = hub ? HUB_KEY : options->host,
		.tls = &registry->tls,
		.lookup = options->lookup,
		.lookup_arg = options->lookup_arg,
		.timeout_ms = registry->name_timeout_ms,
	};
	registry->auth = auth_new(&auth);
	registry->redirects = redirects_new();
	bool cacert_lost = options->cacert && !registry->cacert;
	if (!registry->auth || !registry->redirects || !registry->store.name ||
	    !registry->endpoint || cacert_lost) {
		registry_free(&registry->store);
		return -ENOMEM;
	}
	*ret = &registry->store;
	return 0;
}
