/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main: wiring: makes each room with what it needs, in order, and lets go of them in reverse.
 *
 * What can be wrong with the command line, the cache directory or the mountpoint is said before the
 * process goes to the background; no thread is started and nothing is sent before that.
 */
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>

#include "regfs/cli.h"
#include "regfs/creds.h"
#include "regfs/fs.h"
#include "regfs/layout.h"
#include "regfs/names.h"
#include "regfs/registry.h"

struct app {
	struct cli_options options;
	struct cache *cache;
	struct fs *fs;
	struct pool *jobs;
	struct http *http;
	struct creds *creds;
	struct hosts *hosts;
	struct events *events;
	struct blobs *blobs;
	struct layers *layers;
	struct images *images;
	struct pushes *pushes;
	struct nodes *nodes;
	struct names *names;
	struct context context;
	int64_t source_date; /* SOURCE_DATE_EPOCH */
	bool has_source_date;
};

static int make_store(void *arg, const char *host, struct store **ret)
{
	const struct app *app = arg;
	const struct source *source = &app->options.source;
	bool is_source = source->kind == SOURCE_HOST && !strcmp(source->ref.host, host);
	const struct registry_options options = {
		.http = app->http,
		.host = host,
		.hosts = app->hosts,
		.plain_http = is_source && source->plain_http,
		.https_only = is_source && source->https,
		.timeout_ms = app->options.timeout_s * 1000,
		.name_timeout_ms = app->options.name_timeout_s * 1000,
		.offline = app->options.offline,
		.lookup = creds_lookup,
		.lookup_arg = app->creds,
	};

	if (!strcmp(host, "local"))
		return layout_new(app->options.store_dir, host, ret);
	return registry_new(&options, ret);
}

static void on_tag(void *arg, struct store *store, const char *repo, const char *tag)
{
	struct app *app = arg;

	names_tag_changed(app->names, store, repo, tag);
}

static int stored_hosts(void *arg, names_host_fn *fn, void *fn_arg, struct wait *wait)
{
	struct app *app = arg;

	return creds_hosts(app->creds, fn, fn_arg, wait);
}

static void on_forget(void *arg, const struct node_ref *dir, const char *name)
{
	struct app *app = arg;

	fs_forget_name(app->fs, dir, name);
}

/* reproducible-builds.org, "SOURCE_DATE_EPOCH specification". */
static int read_source_date(struct app *app)
{
	const char *text = getenv("SOURCE_DATE_EPOCH");
	uint64_t seconds;

	if (!text || !*text)
		return 0;
	if (!parse_u64(text, &seconds) || seconds > INT32_MAX * UINT64_C(1000)) {
		fprintf(stderr, "regfs: SOURCE_DATE_EPOCH: '%s' is no number of seconds\n", text);
		return -EINVAL;
	}
	app->source_date = (int64_t)seconds;
	app->has_source_date = true;
	return 0;
}

/* What needs no kernel; says itself what is wrong. */
static int app_prepare(struct app *app)
{
	const struct cli_options *options = &app->options;
	int r = read_source_date(app);

	if (r < 0)
		return r;
	r = cache_open(options->cache_dir, options->cache_size_bytes, &app->cache);
	if (r < 0)
		fprintf(stderr, "regfs: cache directory %s: %s\n", options->cache_dir,
			strerror(-r));
	return r;
}

/* Before the process goes to the background. */
static int app_mount(struct app *app)
{
	const struct cli_options *options = &app->options;
	const struct fs_options fs_options = {
		.mountpoint = options->mountpoint,
		.source = options->source_text,
		.fuse_options = options->fuse_options.data,
		.foreground = options->foreground,
		.debug = options->debug,
		.single_thread = options->single_thread,
		.set_uid = options->set_uid,
		.set_gid = options->set_gid,
		.set_umask = options->set_umask,
		.uid = options->uid,
		.gid = options->gid,
		.umask = options->umask,
		.statfs_path = options->cache_dir,
	};
	/* a helper that hangs is given up before the lookup that waits for it */
	const struct creds_options creds = {
		.authfile = options->authfile,
		.helper_timeout_ms = options->name_timeout_s * 1000 * 3 / 4,
	};

	/* knows relative paths while the working directory is the user's */
	app->creds = creds_new(&creds);
	return app->creds ? fs_mount(&fs_options, &app->fs) : -ENOMEM;
}

/* An image without a host may be another's by a configured alias. */
static void follow_alias(struct app *app)
{
	struct ref *ref = &app->options.source.ref;
	const char *text = app->options.source_text;
	bool is_short = app->options.source.kind == SOURCE_IMAGE &&
			!strcmp(ref->host, "docker.io") && !starts_with(text, "docker.io/");
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

static int start_rooms(struct app *app)
{
	const struct http_options http = {
		.timeout_ms = app->options.timeout_s * 1000,
		.user_agent = "regfs/" REGFS_VERSION,
	};

	const struct hosts_options hosts = {
		.registries_conf = app->options.registries_conf,
		.certs_dir = app->options.certs_dir,
		.cacert = app->options.cacert,
		.insecure = (const char *const *)app->options.insecure.words,
	};

	app->jobs = pool_new("job", 0);
	app->http = http_new(&http);
	app->hosts = hosts_new(&hosts);
	app->events = events_new();
	app->nodes = nodes_new();
	if (!app->jobs || !app->http || !app->hosts || !app->events || !app->nodes)
		return -ENOMEM;
	app->blobs = blobs_new(app->cache, app->jobs, app->options.timeout_s * 1000);
	follow_alias(app);
	if (app->blobs)
		app->layers = layers_new(app->blobs, app->cache, app->jobs);
	return app->layers ? 0 : -ENOMEM;
}

static int start_images(struct app *app)
{
	const struct images_options images = {
		.blobs = app->blobs,
		.layers = app->layers,
		.cache = app->cache,
		.platform = &app->options.platform,
		.offline = app->options.offline,
		.tag_ttl_ms = app->options.tag_ttl_s * 1000,
		.overlay_whiteouts = app->options.overlay_whiteouts,
		.prefetch = app->options.prefetch ? app->jobs : NULL,
	};
	/* names publishes the changes itself: it waits until the kernel was told */
	const struct pushes_options pushes = {
		.spool_dir = app->options.cache_dir,
		.jobs = app->jobs,
		.compress = app->options.compress,
		.compress_level = app->options.compress_level,
		.source_date = app->has_source_date ? &app->source_date : NULL,
		.on_tag = on_tag,
		.arg = app,
	};

	app->images = images_new(&images);
	app->pushes = pushes_new(&pushes);
	if (!app->images || !app->pushes)
		return -ENOMEM;
	app->context = (struct context){
		.nodes = app->nodes,
		.images = app->images,
		.blobs = app->blobs,
		.cache = app->cache,
		.pushes = app->pushes,
		.events = app->events,
		.uid = getuid(),
		.gid = getgid(),
		.allow_other = app->options.allow_other,
		.allow_delete = app->options.allow_delete,
		.platform = &app->options.platform,
		.mountpoint = app->options.mountpoint,
		.offline = app->options.offline,
		.transform_symlinks = app->options.transform_symlinks,
		.tag_ttl_ms = app->options.tag_ttl_s * 1000,
		.version = REGFS_VERSION,
	};
	clock_gettime(CLOCK_REALTIME, &app->context.started);
	return 0;
}

static int start_names(struct app *app, struct node **ret_root)
{
	const struct cli_words *registries = &app->options.registries;
	const char **hosts = calloc(registries->n + 3, sizeof(*hosts));
	const struct names_options names = {
		.context = &app->context,
		.store = make_store,
		.arg = app,
		.hosts = hosts,
		.stored_hosts = stored_hosts,
		.forget = on_forget,
		.forget_arg = app,
	};

	if (!hosts)
		return -ENOMEM;
	hosts[0] = "local";
	hosts[1] = "docker.io";
	for (size_t i = 0; i < registries->n; i++)
		hosts[i + 2] = registries->words[i];
	app->names = names_new(&names);
	free(hosts);
	return app->names ? names_root(app->names, &app->options.source, ret_root) : -ENOMEM;
}

static int app_serve(struct app *app)
{
	struct node *root = NULL;
	int r = start_rooms(app);

	if (r == 0)
		r = start_images(app);
	if (r == 0)
		r = start_names(app, &root);
	if (r == 0)
		r = fs_serve(app->fs, root);
	names_finish(app->names);
	node_unref(root);
	return r;
}

static int app_run(struct app *app)
{
	int r = app_mount(app);

	if (r == 0)
		r = fs_daemonize(app->fs);
	if (r == 0 && !app->options.foreground)
		log_to_syslog();
	return r == 0 ? app_serve(app) : r;
}

/* What publishes goes before what listens, what uses before what is used. */
static void app_release(struct app *app)
{
	pushes_stop(app->pushes);
	events_free(app->events);
	names_free(app->names);
	pushes_free(app->pushes); /* _push holds some until names is gone */
	images_free(app->images);
	layers_free(app->layers);
	blobs_free(app->blobs);
	nodes_free(app->nodes);
	pool_free(app->jobs);
	creds_free(app->creds);
	hosts_free(app->hosts);
	http_free(app->http);
	fs_free(app->fs);
	cache_close(app->cache);
	cli_options_release(&app->options);
}

int main(int argc, char **argv)
{
	struct app app = {0};
	int status = cli_command(argc, argv);
	int r;

	if (status != -ENOENT)
		return status;
	if (cli_parse(argc, argv, &app.options, &status) < 0)
		return status;
	log_set_level(app.options.log);
	/* no core file, and no other process of this user, is to have the credentials */
	(void)prctl(PR_SET_DUMPABLE, 0);
	/* a parent may have ignored it, and credential helpers are waited for */
	signal(SIGCHLD, SIG_DFL);
	/* after mount nothing ends the process: a write that cannot be is an error like others */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	r = app_prepare(&app);
	if (r == 0) {
		r = app_run(&app);
		if (r < 0)
			log_error("%s: %s", app.options.mountpoint, strerror(-r));
	}
	app_release(&app);
	return r < 0 ? CLI_FAILED : CLI_OK;
}
