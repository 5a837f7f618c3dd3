/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs: the session: mounting, serving, the end.
 * Must not know HTTP, JSON or tar.
 */
#include <errno.h>

#include "fs_priv.h"

static int add_options(struct fs *fs, struct fuse_args *args)
{
	const struct fs_options *options = &fs->options;
	AUTO_FREE char *text = format("-osubtype=regfs,fsname=%s%s%s%s", options->source,
				      *options->fuse_options ? "," : "", options->fuse_options,
				      fs_wants_uring(fs) ? FS_URING_OPTIONS : "");

	if (!text || fuse_opt_add_arg(args, "regfs") < 0 || fuse_opt_add_arg(args, text) < 0 ||
	    (options->debug && fuse_opt_add_arg(args, "-d") < 0))
		return -ENOMEM;
	return 0;
}

static int session_new(struct fs *fs)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	int r = add_options(fs, &args);

	if (r == 0) {
		fs->session = fuse_session_new(&args, &fs_ops, sizeof(fs_ops), fs);
		r = fs->session ? 0 : -EINVAL;
	}
	fuse_opt_free_args(&args);
	if (r < 0)
		return r;
	if (fuse_session_mount(fs->session, fs->options.mountpoint) != 0)
		return -EIO;
	fs->mounted = true;
	return fs_watch_init(fs);
}

int fs_mount(const struct fs_options *options, struct fs **ret)
{
	struct fs *fs = calloc(1, sizeof(*fs));
	int r;

	if (!fs)
		return -ENOMEM;
	fs->options = *options;
	pthread_mutex_init(&fs->lock, NULL);
	r = -pthread_key_create(&fs->buffer, free);
	if (r == 0)
		r = session_new(fs);
	if (r < 0) {
		fs_free(fs);
		return r;
	}
	*ret = fs;
	return 0;
}

int fs_daemonize(struct fs *fs)
{
	return fuse_daemonize(fs->options.foreground) == 0 ? 0 : -errno;
}

static int session_loop(struct fs *fs)
{
	struct fuse_loop_config *config;
	int r;

	if (fs->options.single_thread)
		return fuse_session_loop(fs->session);
	config = fuse_loop_cfg_create();
	if (!config)
		return -ENOMEM;
	fuse_loop_cfg_set_idle_threads(config, 4);
	r = fuse_session_loop_mt(fs->session, config);
	fuse_loop_cfg_destroy(config);
	return r;
}

static int serve(struct fs *fs)
{
	int r = fuse_set_signal_handlers(fs->session) == 0 ? 0 : -EIO;

	if (r == 0) {
		r = session_loop(fs);
		fuse_remove_signal_handlers(fs->session);
	}
	return MIN(r, 0);
}

int fs_serve(struct fs *fs, struct node *root)
{
	int r = -ENOMEM;

	fs->inodes = inodes_new(root);
	fs->pool = pool_new("request", FS_MAX_PARKED_THREADS);
	if (fs->options.passthrough)
		fs->opens = opens_new(fs);
	if (fs->inodes && fs->pool && (!fs->options.passthrough || fs->opens))
		r = serve(fs);
	/* Those who still wait get EINTR; then nobody uses a node any more. */
	requests_cancel(fs);
	opens_end(fs->opens);
	pool_free(STEAL(fs->pool));
	fuse_session_unmount(fs->session);
	fs->mounted = false;
	opens_free(STEAL(fs->opens));
	inodes_close(fs->inodes);
	return r;
}

void fs_free(struct fs *fs)
{
	if (!fs)
		return;
	pool_free(fs->pool);
	opens_free(fs->opens);
	inodes_free(fs->inodes);
	if (fs->mounted)
		fuse_session_unmount(fs->session);
	if (fs->session)
		fuse_session_destroy(fs->session);
	pthread_mutex_destroy(&fs->lock);
	free(fs);
}

void fs_forget_name(struct fs *fs, const struct node_ref *dir, const char *name)
{
	uint64_t id = fs->inodes ? inodes_id(fs->inodes, dir) : 0;

	if (!id)
		return;
	fuse_lowlevel_notify_inval_entry(fs->session, id, name, strlen(name));
	fuse_lowlevel_notify_inval_inode(fs->session, id, 0, 0);
}
