/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main: wiring of a mount: what app.c makes, and above it each room with what it needs, in order,
 * let go of in reverse.
 *
 * What can be wrong with the command line, the cache directory or the mountpoint is said before the
 * process goes to the background; no thread is started and nothing is sent before that.
 */
#include <errno.h>

#include "regfs/app.h"
#include "regfs/fs.h"
#include "regfs/names.h"

struct mount {
	struct cli_options options;
	struct app app;
	struct fs *fs;
	struct events *events;
	struct pushes *pushes;
	struct nodes *nodes;
	struct names *names;
	struct context context;
	struct kernel_modes modes;
	int64_t source_date; /* SOURCE_DATE_EPOCH */
	bool has_source_date;
};

static void on_tag(void *arg, struct store *store, const char *repo, const char *tag,
		   const struct digest *digest)
{
	struct mount *mount = arg;

	names_tag_made(mount->names, store, repo, tag, digest);
}

static int stored_hosts(void *arg, names_host_fn *fn, void *fn_arg, struct wait *wait)
{
	const struct app *app = arg;

	return creds_hosts(app->creds, fn, fn_arg, wait);
}

static void on_forget(void *arg, const struct node_ref *dir, const char *name)
{
	struct mount *mount = arg;

	fs_forget_name(mount->fs, dir, name);
}

/* reproducible-builds.org, "SOURCE_DATE_EPOCH specification". */
static int read_source_date(struct mount *mount)
{
	const char *text = getenv("SOURCE_DATE_EPOCH");
	uint64_t seconds;

	if (!text || !*text)
		return 0;
	if (!parse_u64(text, &seconds) || seconds > INT32_MAX * UINT64_C(1000)) {
		fprintf(stderr, "regfs: SOURCE_DATE_EPOCH: '%s' is no number of seconds\n", text);
		return -EINVAL;
	}
	mount->source_date = (int64_t)seconds;
	mount->has_source_date = true;
	return 0;
}

/* Before the process goes to the background. */
static int mount_open(struct mount *mount)
{
	const struct cli_options *options = &mount->options;
	const struct fs_options fs_options = {
		.mountpoint = options->mountpoint,
		.source = options->source_text,
		.fuse_options = options->fuse_options.data,
		.foreground = options->foreground,
		.debug = options->debug,
		.single_thread = options->single_thread,
		.no_push = options->read_only || options->source.kind == SOURCE_IMAGE,
		.passthrough = options->passthrough,
		.io_uring = options->io_uring,
		.modes = &mount->modes,
		.set_uid = options->set_uid,
		.set_gid = options->set_gid,
		.set_umask = options->set_umask,
		.uid = options->uid,
		.gid = options->gid,
		.umask = options->umask,
		.statfs_path = options->cache_dir,
	};

	return fs_mount(&fs_options, &mount->fs);
}

static int start_pushes(struct mount *mount)
{
	const struct cli_options *options = &mount->options;
	/* names publishes the changes itself: it waits until the kernel was told */
	const struct pushes_options pushes = {
		.spool_dir = options->cache_dir,
		.jobs = mount->app.jobs,
		.cache = mount->app.cache,
		.compress = options->compress,
		.compress_level = options->compress_level,
		.believe_layers = options->verify_stream,
		.source_date = mount->has_source_date ? &mount->source_date : NULL,
		.on_tag = on_tag,
		.arg = mount,
	};

	mount->events = events_new();
	mount->nodes = nodes_new();
	mount->pushes = pushes_new(&pushes);
	return mount->events && mount->nodes && mount->pushes ? 0 : -ENOMEM;
}

static void describe(struct mount *mount)
{
	const struct cli_options *options = &mount->options;

	mount->context = (struct context){
		.modes = &mount->modes,
		.nodes = mount->nodes,
		.images = mount->app.images,
		.blobs = mount->app.blobs,
		.cache = mount->app.cache,
		.pushes = mount->pushes,
		.events = mount->events,
		.uid = getuid(),
		.gid = getgid(),
		.allow_other = options->allow_other,
		.allow_delete = options->allow_delete,
		.platform = &options->platform,
		.mountpoint = options->mountpoint,
		.offline = options->offline,
		.transform_symlinks = options->transform_symlinks,
		.overlay_whiteouts = options->overlay_whiteouts,
		.tag_ttl_ms = options->tag_ttl_s * 1000,
		.version = REGFS_VERSION,
	};
	clock_gettime(CLOCK_REALTIME, &mount->context.started);
}

static int start_names(struct mount *mount, struct node **ret_root)
{
	const struct cli_words *registries = &mount->options.registries;
	const char **hosts = calloc(registries->n + 3, sizeof(*hosts));
	const struct names_options names = {
		.context = &mount->context,
		.store = app_make_store,
		.arg = &mount->app,
		.hosts = hosts,
		.stored_hosts = stored_hosts,
		.forget = on_forget,
		.forget_arg = mount,
	};

	if (!hosts)
		return -ENOMEM;
	describe(mount);
	hosts[0] = "local";
	hosts[1] = "docker.io";
	for (size_t i = 0; i < registries->n; i++)
		hosts[i + 2] = registries->words[i];
	mount->names = names_new(&names);
	free(hosts);
	return mount->names ? names_root(mount->names, &mount->options.source, ret_root) : -ENOMEM;
}

static int mount_serve(struct mount *mount)
{
	struct source *source = &mount->options.source;
	struct node *root = NULL;
	int r = app_start(&mount->app);

	if (r == 0 && source->kind == SOURCE_IMAGE)
		app_follow_alias(&mount->app, mount->options.source_text, &source->ref);
	if (r == 0)
		r = start_pushes(mount);
	if (r == 0)
		r = start_names(mount, &root);
	if (r == 0)
		r = fs_serve(mount->fs, root);
	names_finish(mount->names);
	node_unref(root);
	return r;
}

static int mount_run(struct mount *mount)
{
	int r = mount_open(mount);

	if (r == 0)
		r = fs_daemonize(mount->fs);
	if (r == 0 && !mount->options.foreground)
		log_to_syslog();
	return r == 0 ? mount_serve(mount) : r;
}

/* What publishes goes before what listens, what uses before what is used. */
static void mount_release(struct mount *mount)
{
	pushes_stop(mount->pushes);
	app_halt(&mount->app); /* of stores that names has */
	events_free(mount->events);
	names_free(mount->names);
	pushes_free(mount->pushes); /* _push holds some until names is gone */
	app_stop(&mount->app);
	nodes_free(mount->nodes);
	app_release(&mount->app);
	fs_free(mount->fs);
	cli_options_release(&mount->options);
}

int main(int argc, char **argv)
{
	struct mount mount = {0};
	int status = cli_command(argc, argv);
	int r;

	if (status != -ENOENT)
		return status;
	if (cli_parse(argc, argv, &mount.options, &status) < 0)
		return status;
	app_process(&mount.options);
	r = read_source_date(&mount);
	if (r == 0)
		r = app_prepare(&mount.app, &mount.options);
	if (r == 0) {
		r = mount_run(&mount);
		if (r < 0)
			log_error("%s: %s", mount.options.mountpoint, strerror(-r));
	}
	mount_release(&mount);
	return r < 0 ? CLI_FAILED : CLI_OK;
}
