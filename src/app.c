// SPDX-License-Identifier: Apache-2.0
/*
 * app: wiring of what a mount and the commands on images share: each room with what it needs, in
 * order, let go of in reverse.
 */
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>

#include "regfs/app.h"
#include "regfs/layout.h"
#include "regfs/registry.h"

void app_process(const struct cli_options *options)
{
	log_set_level(options->log);
	/* no core file, and no other process of this user, is to have the credentials */
	(void)prctl(PR_SET_DUMPABLE, 0);
	/* a parent may have ignored it, and credential helpers are waited for */
	signal(SIGCHLD, SIG_DFL);
	/* after mount nothing ends the process: a write that cannot be is an error like others */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
}

int app_prepare(struct app *app, struct cli_options *options)
{
	const struct hosts_options hosts = {
		.registries_conf = options->registries_conf,
		.certs_dir = options->certs_dir,
		.cacert = options->cacert,
		.insecure = (const char *const *)options->insecure.words,
	};
	/* a helper that hangs is given up before the lookup that waits for it */
	struct creds_options creds = {
		.authfile = options->authfile,
		.helper_timeout_ms = options->name_timeout_s * 1000 * 3 / 4,
	};
	int r;

	app->options = options;
	r = cache_open(options->cache_dir, options->cache_size_bytes, &app->cache);
	if (r < 0) {
		fprintf(stderr, "regfs: cache directory %s: %s\n", options->cache_dir,
			strerror(-r));
		return r;
	}
	app->hosts = hosts_new(&hosts);
	creds.hosts = app->hosts;
	app->creds = app->hosts ? creds_new(&creds) : NULL;
	if (!app->creds)
		fprintf(stderr, "regfs: out of memory\n");
	return app->creds ? 0 : -ENOMEM;
}

int app_make_store(void *arg, const char *host, struct store **ret)
{
	const struct app *app = arg;
	const struct source *source = &app->options->source;
	bool is_source = source->kind == SOURCE_HOST && !strcmp(source->ref.host, host);
	const struct registry_options options = {
		.http = app->http,
		.host = host,
		.hosts = app->hosts,
		.plain_http = is_source && source->plain_http,
		.https_only = is_source && source->https,
		.timeout_ms = app->options->timeout_s * 1000,
		.name_timeout_ms = app->options->name_timeout_s * 1000,
		.offline = app->options->offline,
		.lookup = creds_lookup,
		.lookup_arg = app->creds,
	};

	if (!strcmp(host, "local"))
		return layout_new(app->options->store_dir, host, ret);
	return registry_new(&options, ret);
}

void app_follow_alias(const struct app *app, const char *text, struct ref *ref)
{
	bool is_short = !strcmp(ref->host, "docker.io") && !starts_with(text, "docker.io/");
	const char *name = starts_with(ref->repo, "library/") ? ref->repo + 8 : ref->repo;
	AUTO_FREE char *alias = NULL;
	const char *why;
	struct ref real;

	if (!is_short || hosts_alias(app->hosts, name, &alias) < 0)
		return;
	if (ref_parse(alias, &real, &why) < 0) {
		log_warn("the alias %s of %s in registries.conf: %s", alias, name, why);
		return;
	}
	memcpy(ref->host, real.host, sizeof(ref->host));
	memcpy(ref->repo, real.repo, sizeof(ref->repo));
	log_info("%s is %s, as registries.conf has it", name, alias);
}

static int start_below(struct app *app)
{
	const struct cli_options *options = app->options;
	const struct http_options http = {
		.timeout_ms = options->timeout_s * 1000,
		.user_agent = "regfs/" REGFS_VERSION,
	};

	app->jobs = pool_new("job", 0);
	app->http = http_new(&http);
	return app->jobs && app->http ? 0 : -ENOMEM;
}

int app_start(struct app *app)
{
	const struct cli_options *options = app->options;
	int r = start_below(app);

	if (r < 0)
		return r;
	app->blobs = blobs_new(app->cache, app->jobs, options->timeout_s * 1000);
	if (app->blobs) {
		blobs_limit_background(app->blobs, options->prefetch_rate);
		app->layers = layers_new(app->blobs, app->cache, app->jobs);
	}
	if (!app->layers)
		return -ENOMEM;

	const struct images_options images = {
		.blobs = app->blobs,
		.layers = app->layers,
		.cache = app->cache,
		.platform = &options->platform,
		.offline = options->offline,
		.tag_ttl_ms = options->tag_ttl_s * 1000,
		.trust_index = options->trust_index.words,
		.prefetch = options->prefetch == CLI_PREFETCH_IMAGE ? app->jobs : NULL,
		.traces = options->prefetch != CLI_PREFETCH_NONE ? app->jobs : NULL,
	};
	app->images = images_new(&images);
	return app->images ? 0 : -ENOMEM;
}

void app_halt(struct app *app)
{
	images_stop(app->images);
	layers_stop(app->layers);
	blobs_stop(app->blobs);
}

void app_stop(struct app *app)
{
	images_free(app->images);
	layers_free(app->layers);
	blobs_free(app->blobs);
}

void app_release(struct app *app)
{
	pool_free(app->jobs);
	creds_free(app->creds);
	hosts_free(app->hosts);
	http_free(app->http);
	cache_close(app->cache);
}
