/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_open: open, release and passthrough: the kernel is given a file of its own to read where one
 * has all the bytes.
 * Must not know where such files come from.
 *
 * Without -o passthrough open is answered ENOSYS once, which turns it off for the whole mount, and
 * nothing below is used.
 *
 * An inode is open in one way at a time, so the kernel wants it: its descriptors either all read
 * through us, or all the same backing file. So the first open decides, and the others follow until
 * the last release; in between a struct open_file stands for the inode.
 */
#include <errno.h>
#include <sys/ioctl.h>

#include "regfs/log.h"

#include "fs_kernel.h"
#include "fs_priv.h"

#define BUCKETS	    1024
#define WAITING_MAX 4096 /* files that are to have a backing file, and wait for it */

struct open_file {
	fuse_ino_t ino;
	int backing;		/* the kernel's number of it; 0: read through us */
	_Atomic uint64_t bytes; /* read through us */
	/* guarded by lock */
	struct open_file *next; /* of its bucket */
	unsigned opens;
};

/* A file that was read to its end, and shall have a backing file when it is opened next. */
struct wanted {
	struct wanted *next;
	struct node_ref ref; /* held */
};

struct opens {
	struct fs *fs;
	struct wait wait; /* of whoever makes what is wanted; called off at the end */
	pthread_mutex_t lock;
	/* guarded by lock */
	struct open_file *buckets[BUCKETS];
	struct wanted *first, **last;
	unsigned nwanted;
	bool working; /* the work below is under way */
	bool ending;
	struct pool_work work;
};

static void make_wanted(struct pool_work *work);

struct opens *opens_new(struct fs *fs)
{
	struct opens *opens = calloc(1, sizeof(*opens));

	if (!opens)
		return NULL;
	opens->fs = fs;
	opens->last = &opens->first;
	opens->work.run = make_wanted;
	/* out of what is at hand */
	wait_init(&opens->wait, false);
	wait_set_background(&opens->wait);
	pthread_mutex_init(&opens->lock, NULL);
	return opens;
}

/* The next one that is wanted, or NULL, and then nobody works at it any more. */
static struct wanted *wanted_take(struct opens *opens)
{
	struct wanted *wanted;

	pthread_mutex_lock(&opens->lock);
	wanted = opens->first;
	if (wanted) {
		opens->first = wanted->next;
		opens->nwanted--;
		if (!opens->first)
			opens->last = &opens->first;
	}
	opens->working = wanted;
	pthread_mutex_unlock(&opens->lock);
	return wanted;
}

static void wanted_free(struct wanted *wanted)
{
	node_unref(wanted->ref.node);
	free(wanted);
}

void opens_end(struct opens *opens)
{
	struct wanted *wanted;

	if (!opens)
		return;
	wait_cancel(&opens->wait);
	pthread_mutex_lock(&opens->lock);
	opens->ending = true;
	wanted = opens->first;
	opens->first = NULL;
	opens->last = &opens->first;
	opens->nwanted = 0;
	pthread_mutex_unlock(&opens->lock);
	while (wanted) {
		struct wanted *next = wanted->next;

		wanted_free(wanted);
		wanted = next;
	}
}

void opens_free(struct opens *opens)
{
	if (!opens)
		return;
	opens_end(opens);
	for (size_t i = 0; i < BUCKETS; i++) {
		for (struct open_file *file = opens->buckets[i], *next; file; file = next) {
			next = file->next;
			free(file);
		}
	}
	pthread_mutex_destroy(&opens->lock);
	wait_release(&opens->wait);
	free(opens);
}

/* --- making backing files --- */

static void make_wanted(struct pool_work *work)
{
	struct opens *opens = CONTAINER_OF(work, struct opens, work);
	struct call call = {.wait = &opens->wait};
	struct wanted *wanted;

	while ((wanted = wanted_take(opens))) {
		if (node_make_backing(&wanted->ref, &call) == 0)
			stats_add(STAT_PASSTHROUGH_MADE, 1);
		wanted_free(wanted);
	}
}

static void want(struct opens *opens, const struct node_ref *ref)
{
	struct wanted *wanted = calloc(1, sizeof(*wanted));
	bool start = false;

	if (!wanted)
		return;
	wanted->ref = *ref;
	node_ref(ref->node);
	pthread_mutex_lock(&opens->lock);
	if (!opens->ending && opens->nwanted < WAITING_MAX) {
		*opens->last = wanted;
		opens->last = &wanted->next;
		opens->nwanted++;
		start = !opens->working;
		opens->working = true;
		wanted = NULL;
	}
	pthread_mutex_unlock(&opens->lock);
	if (wanted)
		wanted_free(wanted);
	if (start && pool_submit(opens->fs->pool, &opens->work) < 0) {
		pthread_mutex_lock(&opens->lock);
		opens->working = false; /* the next one tries again */
		pthread_mutex_unlock(&opens->lock);
	}
}

/* --- the kernel's backings --- */

/* The kernel will not have it: from now on as without the option. Those that are open stay so. */
static void give_up(struct fs *fs, int err)
{
	if (!atomic_exchange(&fs->passthrough, false))
		return;
	log_info("passthrough is off: the kernel does not take files of the cache: %s",
		 strerror(err));
	fs->options.modes->passthrough = false;
	fs->no_open = fs->can_no_open;
}

/* The kernel's number of REF's backing file, 0: it has none, or -EWOULDBLOCK. */
static int backing_open(struct request *request)
{
	struct fs *fs = request->fs;
	AUTO_CLOSE int fd = node_backing(&request->ref, &request->call);
	struct fs_backing_map map = {.fd = fd};
	int id;

	if (fd < 0)
		return fd == -EWOULDBLOCK ? fd : 0;
	id = ioctl(fuse_session_fd(fs->session), FS_IOC_BACKING_OPEN, &map);
	if (id > 0) {
		stats_add(STAT_PASSTHROUGH_NOW, 1);
		return id;
	}
	if (errno != ENOMEM && errno != EINTR)
		give_up(fs, errno);
	return 0;
}

static void backing_close(const struct fs *fs, int backing)
{
	uint32_t id = (uint32_t)backing;

	if (backing <= 0)
		return;
	ioctl(fuse_session_fd(fs->session), FS_IOC_BACKING_CLOSE, &id);
	stats_add(STAT_PASSTHROUGH_NOW, -1);
}

/* --- open files --- */

static struct open_file **bucket_of(struct opens *opens, fuse_ino_t ino)
{
	return &opens->buckets[hash64(0, &ino, sizeof(ino)) % BUCKETS];
}

/* One more open of INO, if it is open. */
static struct open_file *open_again(struct opens *opens, fuse_ino_t ino)
{
	struct open_file *file;

	pthread_mutex_lock(&opens->lock);
	file = *bucket_of(opens, ino);
	while (file && file->ino != ino)
		file = file->next;
	if (file)
		file->opens++;
	pthread_mutex_unlock(&opens->lock);
	return file;
}

/* The first open of what FRESH says; or another was quicker, and that is given. */
static struct open_file *open_first(struct opens *opens, struct open_file *fresh)
{
	struct open_file *file;

	pthread_mutex_lock(&opens->lock);
	file = *bucket_of(opens, fresh->ino);
	while (file && file->ino != fresh->ino)
		file = file->next;
	if (!file) {
		file = fresh;
		file->next = *bucket_of(opens, fresh->ino);
		*bucket_of(opens, fresh->ino) = file;
	}
	file->opens++;
	pthread_mutex_unlock(&opens->lock);
	return file;
}

/* True if that was the last: FILE is the caller's. */
static bool close_one(struct opens *opens, struct open_file *file)
{
	struct open_file **link;
	bool last;

	pthread_mutex_lock(&opens->lock);
	last = --file->opens == 0;
	for (link = bucket_of(opens, file->ino); last && *link != file; link = &(*link)->next)
		;
	if (last)
		*link = file->next;
	pthread_mutex_unlock(&opens->lock);
	return last;
}

static int open_file_get(struct request *request, struct open_file **ret)
{
	struct fs *fs = request->fs;
	struct open_file *file = open_again(fs->opens, request->ino), *fresh;
	int backing;

	if (file) {
		*ret = file;
		return 0;
	}
	backing = backing_open(request);
	if (backing < 0)
		return backing;
	fresh = calloc(1, sizeof(*fresh));
	if (!fresh) {
		backing_close(fs, backing);
		return -ENOMEM;
	}
	fresh->ino = request->ino;
	fresh->backing = backing;
	file = open_first(fs->opens, fresh);
	if (file != fresh) {
		backing_close(fs, backing);
		free(fresh);
	}
	*ret = file;
	return 0;
}

static void open_file_put(struct request *request, struct open_file *file)
{
	struct fs *fs = request->fs;
	struct node_attr attr;

	if (!close_one(fs->opens, file))
		return;
	backing_close(fs, file->backing);
	if (!file->backing && file->bytes &&
	    node_getattr(&request->ref, &request->call, &attr) == 0 &&
	    file->bytes >= (uint64_t)attr.st.st_size)
		want(fs->opens, &request->ref);
	free(file);
}

/* --- operations --- */

/* libfuse 3.14 has no word for a backing. */
static int reply_open(struct request *request, const struct fs_open_out *out)
{
	request_settle(request);
	return fuse_reply_buf(request->req, (const char *)out, sizeof(*out));
}

static int run_open(struct request *request)
{
	struct fs_open_out out = {.open_flags = FOPEN_KEEP_CACHE};
	struct open_file *file = NULL;
	int r = 0;

	/* What changes, or is written, has its bytes from us; its close() may be a push's. */
	if (!node_may_have_backing(&request->ref)) {
		reply_open(request, &out);
		return 0;
	}
	r = open_file_get(request, &file);
	if (r < 0)
		return r;
	out.fh = (uintptr_t)file;
	out.backing_id = file->backing;
	out.open_flags = FOPEN_NOFLUSH | (file->backing ? FS_FOPEN_PASSTHROUGH : FOPEN_KEEP_CACHE);
	stats_add(STAT_PASSTHROUGH_OPENS, file->backing != 0);
	/* the kernel gave the request up before the answer: it will not release it */
	if (reply_open(request, &out) == -ENOENT)
		open_file_put(request, file);
	return 0;
}

void fs_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	const struct fs *fs = fuse_req_userdata(req);
	struct request request = {.ino = ino};

	fi->keep_cache = 1;
	if (fs->no_open)
		fuse_reply_err(req, ENOSYS);
	else if (fs->opens)
		request_start(&request, req, ino, run_open);
	else
		fuse_reply_open(req, fi);
}

static int run_release(struct request *request)
{
	open_file_put(request, request->file);
	return reply_ok(request);
}

void fs_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct request request = {.ino = ino, .file = (struct open_file *)(uintptr_t)fi->fh};

	if (request.file)
		request_start(&request, req, ino, run_release);
	else
		fuse_reply_err(req, 0);
}

void open_file_read(struct open_file *file, size_t len)
{
	if (file)
		atomic_fetch_add_explicit(&file->bytes, len, memory_order_relaxed);
}
