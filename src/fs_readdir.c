/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_readdir: listings, with attributes where they cost no wait.
 * Must not know HTTP, JSON or tar.
 */
#include <errno.h>
#include <linux/limits.h>

#include "fs_priv.h"

/* Offsets: 1 is after ".", 2 after "..", and a node's position P is P + 2. */
#define DOTS	   2
#define MIN_DIRENT 24 /* the least a name takes in a reply */

struct listing {
	struct request *request;
	char *buf;
	size_t len, cap;
	bool plus;
	uint64_t *counted; /* numbers whose look-up the reply counts, to undo it */
	size_t ncounted;
};

/* The entry of a child, held: what the listing gave, else a look-up if it need not wait. */
static int child_entry(struct listing *listing, const char *name, const struct node_listed *listed,
		       struct node_entry *ret)
{
	struct request *request = listing->request;
	struct wait wait;
	struct call call = request->call;
	int r;

	if (listed->entry) {
		*ret = *listed->entry;
		node_ref(ret->ref.node);
		return 0;
	}
	wait_init(&wait, false);
	call.wait = &wait;
	r = node_lookup(&request->ref, name, &call, ret);
	wait_release(&wait);
	return r;
}

static size_t add_plain(struct listing *listing, const char *name, const struct stat *st,
			uint64_t off)
{
	return fuse_add_direntry(listing->request->req, listing->buf + listing->len,
				 listing->cap - listing->len, name, st, off);
}

/* Number 0 tells the kernel that only name and type are known. */
static size_t add_plus(struct listing *listing, const char *name,
		       const struct fuse_entry_param *param, uint64_t off)
{
	return fuse_add_direntry_plus(listing->request->req, listing->buf + listing->len,
				      listing->cap - listing->len, name, param, off);
}

static int add_known(struct listing *listing, const char *name, const struct stat *st, uint64_t off)
{
	struct fuse_entry_param param = {.attr = *st};
	size_t used = listing->plus ? add_plus(listing, name, &param, off)
				    : add_plain(listing, name, st, off);

	if (used > listing->cap - listing->len)
		return 1;
	listing->len += used;
	return 0;
}

static int add_child(void *arg, const struct node_listed *listed)
{
	struct listing *listing = arg;
	struct fs *fs = listing->request->fs;
	struct stat st = {.st_mode = listed->type, .st_ino = listed->ino};
	uint64_t off = listed->pos + DOTS;
	struct fuse_entry_param param;
	struct node_entry entry = {0};
	char name[NAME_MAX + 1];
	size_t used;
	int r;

	if (listed->len >= sizeof(name))
		return 0;
	memcpy(name, listed->name, listed->len);
	name[listed->len] = 0;
	if (!listing->plus || child_entry(listing, name, listed, &entry) < 0)
		return add_known(listing, name, &st, off);
	r = entry_param(fs, &entry, &param);
	node_unref(entry.ref.node);
	if (r < 0)
		return add_known(listing, name, &st, off);
	used = add_plus(listing, name, &param, off);
	if (used > listing->cap - listing->len) {
		inodes_forget(fs->inodes, param.ino, 1);
		return 1;
	}
	listing->counted[listing->ncounted++] = param.ino;
	listing->len += used;
	return 0;
}

static int add_dots(struct listing *listing, uint64_t off)
{
	struct stat st = {.st_mode = S_IFDIR, .st_ino = listing->request->ref.node->ino};

	if (off < 1 && add_known(listing, ".", &st, 1))
		return 1;
	return off < DOTS && add_known(listing, "..", &st, DOTS);
}

static int run_list(struct request *request)
{
	size_t cap = MIN(request->size, (size_t)FS_BUFFER);
	AUTO_FREE char *buf = malloc(cap);
	AUTO_FREE uint64_t *counted = malloc((cap / MIN_DIRENT + 1) * sizeof(*counted));
	struct listing listing = {
		.request = request,
		.buf = buf,
		.cap = cap,
		.plus = request->flags,
		.counted = counted,
	};
	uint64_t pos = request->off > DOTS ? request->off - DOTS : 0;
	int r = 0;

	if (!buf || !counted)
		return -ENOMEM;
	if (!add_dots(&listing, request->off))
		r = node_list(&request->ref, pos, add_child, &listing, &request->call);
	if (r >= 0) {
		request_settle(request);
		/* an answer to a request that the kernel gave up does not count either */
		if (fuse_reply_buf(request->req, buf, listing.len) == 0)
			return 0;
		r = 0;
	}
	for (size_t i = 0; i < listing.ncounted; i++)
		inodes_forget(request->fs->inodes, counted[i], 1);
	return r;
}

void fs_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		   struct fuse_file_info *fi)
{
	struct request request = {.size = size, .off = off, .flags = false};

	(void)fi;
	request_start(&request, req, ino, run_list);
}

void fs_op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	struct request request = {.size = size, .off = off, .flags = true};

	(void)fi;
	request_start(&request, req, ino, run_list);
}
