/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry: the store of one endpoint; its options, whether it is a registry, and which scheme it
 * speaks.
 * Must not know requests in detail (registry_request.c), mirrors (registry_front.c), nor caching.
 *
 * A host on this machine may speak plain HTTP or TLS, and nothing in its name says which. It is
 * asked for /v2/ over plain HTTP first: a TLS server answers that at once, with status 400 or by
 * hanging up, while a plain server may wait long for the end of a TLS greeting. An insecure host
 * elsewhere is asked in both ways, and TLS is taken where it answers; the question is what is
 * wanted of it first, be it no more than a name's digest. No credentials go along. What was found
 * out is kept until a request fails below HTTP.
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

char *registry_url(const struct registry *registry, const char *base, const char *path)
{
	const char *rest = path + strlen("/v2");
	AUTO_FREE char *url = format("%s%s%s", base, registry->root, rest);
	if (!url || !registry->ns)
		return STEAL(url);
	AUTO_FREE char *ns = http_url_escape(registry->ns);
	return ns ? format("%s%sns=%s", url, strchr(rest, '?') ? "&" : "?", ns) : NULL;
}

static enum registry_scheme first_of(const struct registry *registry)
{
	return registry->tls_first ? SCHEME_HTTPS : SCHEME_HTTP;
}

/* Whether ERR over SCHEME may come from a server that speaks the other one: nonsense is an answer
 * too. Without a port in the host's name the two are different servers. */
static bool speaks_other(enum registry_scheme scheme, int err)
{
	return err == -EPROTO || err == -ECONNRESET ||
	       (err == -ECONNREFUSED && scheme == SCHEME_HTTPS);
}

/* Asks QUESTION over SCHEME, without credentials, and does not wait. */
static int ask_scheme(struct registry *registry, enum registry_scheme scheme,
		      const struct registry_call *question, struct wait *wait,
		      struct http_transfer **ret)
{
	char why[HTTP_WHY_MAX];
	AUTO_FREE char *base = base_of(registry, scheme);
	AUTO_FREE char *url = base ? registry_url(registry, base, question->url) : NULL;
	if (!url)
		return -ENOMEM;
	const struct http_request request = {
		.method = question->method,
		.url = url,
		.headers = question->headers,
		.tls = &registry->tls,
		.deadline_ms = question->deadline_ms,
		.bulk = question->bulk,
		.why = why,
	};
	return http_begin(registry->http, &request, wait, ret);
}

/* Waits for the ANSWER over SCHEME. */
static int take_answer(struct registry *registry, enum registry_scheme scheme,
		       struct http_transfer *answer, struct wait *wait)
{
	int err = http_answer(answer, wait);
	bool more = first_of(registry) == scheme && speaks_other(scheme, err);
	bool silent = more || err == -EINTR || err == -EWOULDBLOCK;
	if (err && !silent && registry_gone(registry, err))
		log_warn("%s: %s", registry->store.name, http_why(answer));
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

static enum registry_scheme other_than(enum registry_scheme scheme)
{
	return scheme == SCHEME_HTTP ? SCHEME_HTTPS : SCHEME_HTTP;
}

/* Finds the scheme out with QUESTION; *RET is the host's answer to it. Gives the scheme, which
 * another thread may come to doubt before the caller looks. A host elsewhere may be far away: it is
 * asked in both ways at once. */
static int probe(struct registry *registry, const struct registry_call *question, struct wait *wait,
		 struct http_transfer **ret)
{
	AUTO_TRANSFER struct http_transfer *answer = NULL;
	AUTO_TRANSFER struct http_transfer *second = NULL;
	enum registry_scheme scheme = first_of(registry);
	int err = ask_scheme(registry, scheme, question, wait, &answer);
	if (!err && registry->tls_first)
		err = ask_scheme(registry, other_than(scheme), question, wait, &second);
	if (err)
		return registry_errno(err);
	err = take_answer(registry, scheme, answer, wait);
	bool other = err ? speaks_other(scheme, err) : scheme == SCHEME_HTTP && wants_tls(answer);
	if (other) {
		scheme = other_than(scheme);
		http_close(answer);
		answer = STEAL(second);
		err = answer ? 0 : ask_scheme(registry, scheme, question, wait, &answer);
		err = err ? err : take_answer(registry, scheme, answer, wait);
	}
	if (err)
		return registry_errno(err);
	scheme_set(registry, scheme);
	*ret = STEAL(answer);
	return (int)scheme;
}

/* The same with GET /v2/, its challenges taken in. */
static int probe_root(struct registry *registry, int64_t deadline_ms, struct wait *wait,
		      struct http_transfer **ret)
{
	const struct registry_call question = {
		.method = HTTP_GET,
		.url = "/v2/",
		.deadline_ms = deadline_ms ? deadline_ms : registry_name_deadline(registry),
	};
	AUTO_TRANSFER struct http_transfer *answer = NULL;
	int scheme = probe(registry, &question, wait, &answer);
	if (scheme < 0)
		return scheme;
	if (http_status(answer) == 401)
		auth_challenge(registry->auth, &(struct auth_ask){0}, answer, NULL);
	*ret = STEAL(answer);
	return scheme;
}

/* Whether CALL may itself be the question that finds the scheme out, which spares a trip. It goes
 * without credentials then, as the first call to a host does anyway; headers that the user wrote
 * for the host may be some. A host that is not asked by TLS first is nearby, and of an answer over
 * plain HTTP to anything but /v2/ nobody knows whether a TLS server meant it for us. */
static bool may_ask(const struct registry *registry, const struct registry_call *call)
{
	bool asks = call->method == HTTP_GET || call->method == HTTP_HEAD;
	bool about_name = call->deadline_ms && (!call->bulk || call->leads) && *call->url == '/';
	return registry->tls_first && !registry->headers && asks && about_name;
}

int registry_base(struct registry *registry, const struct registry_call *call, struct wait *wait,
		  char **ret, struct http_transfer **ret_answer)
{
	AUTO_TRANSFER struct http_transfer *answer = NULL;
	AUTO_TRANSFER struct http_transfer *root = NULL;
	int scheme = (int)scheme_get(registry);
	if (scheme == SCHEME_UNKNOWN && may_ask(registry, call))
		scheme = probe(registry, call, wait, &answer);
	else if (scheme == SCHEME_UNKNOWN)
		scheme = probe_root(registry, call->deadline_ms, wait, &root);
	if (scheme < 0)
		return scheme;
	char *base = base_of(registry, (enum registry_scheme)scheme);
	if (!base)
		return -ENOMEM;
	*ret = base;
	*ret_answer = STEAL(answer);
	return 0;
}

/* ---- ping and login ---- */

static const struct store_ops registry_ops;

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
		err = probe_root(registry, call.deadline_ms, wait, &answer);
	else
		err = registry_send(registry, &call, wait, &answer);
	if (err < 0)
		return err;
	if (is_registry(answer))
		return 0;
	if (http_status(answer) == 200) /* some other web server */
		return -ENOENT;
	return registry_refused(registry, &call, answer, wait);
}

/* What the registry says to who we are, of nothing in particular. */
static int introduce(struct registry *registry, struct wait *wait)
{
	const struct registry_call call = {
		.method = HTTP_GET,
		.url = "/v2/",
		.deadline_ms = registry_name_deadline(registry),
	};
	AUTO_TRANSFER struct http_transfer *answer = NULL;
	int err = registry_ask(registry, &call, wait, &answer);
	if (err)
		return err;
	return is_registry(answer) ? 0
				   : registry_failed(registry, &call, -ENOENT, "it is no registry");
}

int registry_barred(struct registry *registry, struct wait *wait)
{
	if (auth_is_anonymous(registry->auth))
		return 0;
	int err = introduce(registry, wait);
	return err == -ENOENT ? 0 : err;
}

int registry_login(struct store *store, struct wait *wait, bool *ret_asked)
{
	if (store->ops != &registry_ops)
		return registry_front_login(store, wait, ret_asked);
	struct registry *registry = registry_of(store);
	int err = introduce(registry, wait);
	if (err == -EACCES && auth_was_refused(registry->auth))
		return -EKEYREJECTED;
	if (err)
		return err;
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

static void free_texts(char **texts)
{
	for (char **text = texts; text && *text; text++)
		free(*text);
	free(texts);
}

static void registry_free(struct store *store)
{
	struct registry *registry = registry_of(store);
	registry_foreign_release(registry);
	auth_free(registry->auth);
	redirects_free(registry->redirects);
	etags_free(registry->etags);
	free(registry->store.name);
	free(registry->endpoint);
	free(registry->root);
	free(registry->ns);
	free_texts(registry->headers);
	free((char *)registry->tls.ca_pem);
	free((char *)registry->tls.cert_file);
	free((char *)registry->tls.key_file);
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

static void set_scheme(struct registry *registry, enum hosts_scheme scheme)
{
	bool known = scheme == HOSTS_HTTPS || scheme == HOSTS_HTTP;
	registry->may_probe = !known;
	registry->tls_first = scheme == HOSTS_INSECURE &&
			      !http_host_is_loopback(registry->endpoint);
	if (known)
		registry->scheme = scheme == HOSTS_HTTPS ? SCHEME_HTTPS : SCHEME_HTTP;
}

static int copy_text(const char *text, char **ret)
{
	*ret = text ? strdup(text) : NULL;
	return text && !*ret ? -ENOMEM : 0;
}

static int copy_texts(char *const *texts, char ***ret)
{
	size_t n = 0;
	while (texts && texts[n])
		n++;
	*ret = n ? calloc(n + 1, sizeof(char *)) : NULL;
	int err = n && !*ret ? -ENOMEM : 0;
	for (size_t i = 0; i < n && !err; i++)
		err = copy_text(texts[i], &(*ret)[i]);
	return err;
}

static int set_tls(struct registry *registry, const struct hosts_endpoint *endpoint)
{
	struct http_tls *tls = &registry->tls;
	int err = copy_text(endpoint->ca_pem, (char **)&tls->ca_pem);
	err = err ? err : copy_text(endpoint->cert_file, (char **)&tls->cert_file);
	err = err ? err : copy_text(endpoint->key_file, (char **)&tls->key_file);
	tls->skip_verify = endpoint->skip_verify || endpoint->scheme == HOSTS_INSECURE;
	registry->away.ca_pem = tls->ca_pem;
	return err;
}

static int set_endpoint(struct registry *registry, const struct hosts_endpoint *endpoint)
{
	registry->mirror = !(endpoint->can & HOSTS_ORIGIN);
	registry->root = format("%s%s", endpoint->path, endpoint->bare_path ? "" : "/v2");
	int err = registry->root ? 0 : -ENOMEM;
	err = err ? err : copy_text(endpoint->host, &registry->endpoint);
	err = err ? err : copy_text(endpoint->ns, &registry->ns);
	err = err ? err : copy_texts(endpoint->headers, &registry->headers);
	err = err ? err : set_tls(registry, endpoint);
	if (!err)
		set_scheme(registry, endpoint->scheme);
	return err;
}

int registry_endpoint_new(const struct registry_options *options,
			  const struct hosts_endpoint *endpoint, struct store **ret)
{
	struct registry *registry = calloc(1, sizeof(*registry));
	if (!registry)
		return -ENOMEM;
	*registry = (struct registry){
		.store = {.ops = &registry_ops, .name = strdup(options->host)},
		.http = options->http,
		.timeout_ms = options->timeout_ms ? options->timeout_ms : 60000,
		.name_timeout_ms = options->name_timeout_ms ? options->name_timeout_ms : 10000,
		.offline = options->offline,
	};
	pthread_mutex_init(&registry->lock, NULL);
	int err = registry->store.name ? set_endpoint(registry, endpoint) : -ENOMEM;
	const struct auth_options auth = {
		.http = options->http,
		.host = strcmp(endpoint->key, HUB_HOST) ? endpoint->key : HUB_KEY,
		.endpoint = registry->endpoint,
		.tls = &registry->tls,
		.hosts = options->hosts,
		.lookup = options->lookup,
		.lookup_arg = options->lookup_arg,
		.timeout_ms = registry->name_timeout_ms,
	};
	registry->auth = auth_new(&auth);
	registry->redirects = redirects_new();
	registry->etags = etags_new();
	if (err || !registry->auth || !registry->redirects || !registry->etags) {
		registry_free(&registry->store);
		return -ENOMEM;
	}
	*ret = &registry->store;
	return 0;
}

/* The host alone, as its name says. */
static int plain_new(const struct registry_options *options, struct store **ret)
{
	bool hub = !strcmp(options->host, HUB_HOST);
	char *host = (char *)options->host; /* nothing is written through the endpoint */
	bool local = http_host_is_loopback(host) && !options->https_only;
	const struct hosts_endpoint endpoint = {
		.scheme = options->plain_http ? HOSTS_HTTP
			  : local	      ? HOSTS_LOCAL
					      : HOSTS_HTTPS,
		.can = HOSTS_ORIGIN,
		.host = hub ? (char *)HUB_ENDPOINT : host,
		.key = host,
		.path = (char *)"",
	};
	return registry_endpoint_new(options, &endpoint, ret);
}

int registry_new(const struct registry_options *options, struct store **ret)
{
	return options->hosts ? registry_front_new(options, ret) : plain_new(options, ret);
}
