/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_request: the life of a kernel request: tried, parked, interrupted, answered.
 * Must not know what the operations do.
 */
#include <errno.h>

#include "regfs/log.h"

#include "fs_priv.h"

/*
 * The kernel's INTERRUPT. libfuse calls it with the request's own lock held, and settle()
 * takes that lock too before the request is answered and freed; so REQUEST is alive here.
 * At most it wakes the thread that runs the request: that one answers.
 */
static void on_interrupt(fuse_req_t req, void *data)
{
	struct request *request = data;

	(void)req;
	stats_add(STAT_FUSE_INTERRUPTED, 1);
	request_interrupted(request);
}

void request_settle(struct request *request)
{
	if (request->parked)
		fuse_req_interrupt_func(request->req, NULL, NULL);
}

static void request_free(struct request *request)
{
	pthread_mutex_lock(&request->fs->lock);
	*request->link = request->next;
	if (request->next)
		request->next->link = request->link;
	pthread_mutex_unlock(&request->fs->lock);
	if (request->ref.node)
		node_unref(request->ref.node);
	if (request->to_ref.node)
		node_unref(request->to_ref.node);
	free((void *)request->name);
	free((void *)request->to_name);
	free((void *)request->data);
	wait_release(&request->wait);
	free(request);
}

static void run_parked(struct pool_work *work)
{
	struct request *request = CONTAINER_OF(work, struct request, work);
	bool skip = !request->closes && wait_cancelled(&request->wait);
	int r = skip ? -EINTR : request->run(request);

	if (r < 0) {
		request_settle(request);
		fuse_reply_err(request->req, r == -EWOULDBLOCK ? EIO : -r);
	}
	stats_add(STAT_FUSE_WAITING_NOW, -1);
	request_free(request);
}

static char *copy_string(const char *str, bool *failed)
{
	char *copy = str ? strdup(str) : NULL;

	*failed |= str && !copy;
	return copy;
}

static int request_park(const struct request *tried)
{
	struct fs *fs = tried->fs;
	struct request *request = malloc(sizeof(*request));
	bool failed = false;
	int r;

	if (!request)
		return -ENOMEM;
	*request = *tried;
	request->name = copy_string(tried->name, &failed);
	request->to_name = copy_string(tried->to_name, &failed);
	request->data = NULL;
	if (tried->data) {
		void *copy = malloc(tried->data_len + 1);

		if (copy)
			memcpy(copy, tried->data, tried->data_len);
		request->data = copy;
		failed |= !copy;
	}
	if (request->ref.node)
		node_ref(request->ref.node);
	if (request->to_ref.node)
		node_ref(request->to_ref.node);
	wait_init(&request->wait, true);
	request->call.wait = &request->wait;
	request->work.run = run_parked;
	request->parked = true;
	pthread_mutex_lock(&fs->lock);
	failed |= fs->ending;
	request->next = fs->parked;
	request->link = &fs->parked;
	if (request->next)
		request->next->link = &request->next;
	fs->parked = request;
	pthread_mutex_unlock(&fs->lock);

	if (failed) {
		request_free(request);
		return -ENOMEM;
	}
	stats_add(STAT_FUSE_PARKED, 1);
	stats_add(STAT_FUSE_WAITING_NOW, 1);
	fuse_req_interrupt_func(request->req, on_interrupt, request);
	r = pool_submit(fs->pool, &request->work);
	if (r < 0) {
		request_settle(request);
		stats_add(STAT_FUSE_WAITING_NOW, -1);
		request_free(request);
	}
	return r;
}

void request_start(struct request *request, fuse_req_t req, fuse_ino_t ino,
		   int (*run)(struct request *request))
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	int r;

	request->fs = fuse_req_userdata(req);
	request->req = req;
	request->run = run;
	wait_init(&request->wait, false);
	request->call = (struct call){
		.wait = &request->wait, .uid = ctx->uid, .gid = ctx->gid, .pid = ctx->pid};
	stats_add(STAT_FUSE_REQUESTS, 1);
	if (!request->fs->begun && !atomic_exchange(&request->fs->begun, true))
		fs_set_read_ahead(request->fs);
	r = inodes_get(request->fs->inodes, ino, &request->ref);
	if (r == 0)
		r = run(request);
	if (r == -EWOULDBLOCK)
		r = request_park(request);
	if (r < 0)
		fuse_reply_err(req, -r);
	wait_release(&request->wait);
}

void requests_cancel(struct fs *fs)
{
	pthread_mutex_lock(&fs->lock);
	fs->ending = true;
	for (struct request *request = fs->parked; request; request = request->next)
		wait_cancel(&request->wait);
	pthread_mutex_unlock(&fs->lock);
}

void *request_buffer(struct request *request, void **ret_owned)
{
	void *buffer;

	if (request->parked)
		return *ret_owned = malloc(FS_BUFFER);
	buffer = pthread_getspecific(request->fs->buffer);
	if (!buffer) {
		buffer = malloc(FS_BUFFER);
		if (buffer && pthread_setspecific(request->fs->buffer, buffer) != 0)
			return *ret_owned = buffer;
	}
	return buffer;
}

int reply_ok(struct request *request)
{
	request_settle(request);
	fuse_reply_err(request->req, 0);
	return 0;
}

int reply_data(struct request *request, const void *data, size_t len)
{
	request_settle(request);
	fuse_reply_buf(request->req, data, len);
	return 0;
}

int reply_size(struct request *request, size_t size)
{
	request_settle(request);
	fuse_reply_xattr(request->req, size);
	return 0;
}

int reply_readlink(struct request *request, const char *target)
{
	request_settle(request);
	fuse_reply_readlink(request->req, target);
	return 0;
}

int reply_offset(struct request *request, int64_t off)
{
	request_settle(request);
	fuse_reply_lseek(request->req, off);
	return 0;
}

int reply_written(struct request *request, size_t len)
{
	request_settle(request);
	fuse_reply_write(request->req, len);
	return 0;
}

/* What the kernel is told, with uid=, gid= and umask= applied. */
static void fs_stat(const struct fs *fs, const struct stat *in, struct stat *ret)
{
	*ret = *in;
	if (fs->options.set_uid)
		ret->st_uid = fs->options.uid;
	if (fs->options.set_gid)
		ret->st_gid = fs->options.gid;
	/* as libfuse: umask= replaces the permission bits, it does not mask them */
	if (fs->options.set_umask)
		ret->st_mode = (in->st_mode & S_IFMT) | (0777 & ~fs->options.umask);
}

int reply_attr(struct request *request, const struct node_attr *attr)
{
	struct stat st;

	fs_stat(request->fs, &attr->st, &st);
	request_settle(request);
	fuse_reply_attr(request->req, &st, attr->timeout);
	return 0;
}

int entry_param(struct fs *fs, const struct node_entry *entry, struct fuse_entry_param *ret)
{
	*ret = (struct fuse_entry_param){
		.attr_timeout = entry->attr.timeout,
		.entry_timeout = entry->timeout,
	};
	fs_stat(fs, &entry->attr.st, &ret->attr);
	return inodes_add(fs->inodes, &entry->ref, &ret->ino, &ret->generation);
}

static int reply_found(struct request *request, const struct node_entry *entry, bool created)
{
	bool cached = created && entry->cached;
	struct fuse_file_info fi = {.direct_io = !cached, .keep_cache = cached};
	struct fuse_entry_param param;
	int r = entry_param(request->fs, entry, &param);

	if (r < 0)
		return r;
	request_settle(request);
	r = created ? fuse_reply_create(request->req, &param, &fi)
		    : fuse_reply_entry(request->req, &param);
	/* The kernel gave the request up before the answer: it does not count the look-up. */
	if (r == -ENOENT)
		inodes_forget(request->fs->inodes, param.ino, 1);
	return 0;
}

int reply_entry(struct request *request, struct node_entry *entry)
{
	int r = reply_found(request, entry, false);

	node_unref(entry->ref.node);
	return r;
}

int reply_create(struct request *request, struct node_entry *entry)
{
	int r = reply_found(request, entry, true);

	node_unref(entry->ref.node);
	return r;
}
