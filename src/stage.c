/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stage: the tree as a whole, its inodes and their attributes.
 * Must not know how names and bytes are kept.
 */
#include <errno.h>
#include <time.h>

#include "stage_priv.h"

int stage_new(const struct stage_options *options, struct stage **ret)
{
	const struct stage_made root = {
		.mode = S_IFDIR | options->mode, .uid = options->uid, .gid = options->gid};
	struct stage *stage = calloc(1, sizeof(*stage));

	if (!stage)
		return -ENOMEM;
	pthread_mutex_init(&stage->lock, NULL);
	stage->spool = -1;
	stage->version = stage->content_version = 1;
	stage->spool_dir = strdup(options->spool_dir);
	if (!stage->spool_dir || stage_inode_new(stage, &root, &stage->root) < 0) {
		stage_free(stage);
		return -ENOMEM;
	}
	stage->root->names = 1; /* the tree's own */
	stage->root->holders = 0;
	*ret = stage;
	return 0;
}

void stage_free(struct stage *stage)
{
	struct stage_inode *next;

	if (!stage)
		return;
	/* The spool goes as a whole: nothing is given back to it. */
	if (stage->spool >= 0)
		close(stage->spool);
	stage->spool = -1;
	for (struct stage_inode *inode = stage->inodes; inode; inode = next) {
		next = inode->next;
		for (size_t i = 0; stage_is_dir(inode) && i < inode->dir.n; i++) {
			free(inode->dir.sorted[i]->name);
			free(inode->dir.sorted[i]);
		}
		stage_inode_free(inode);
	}
	pthread_mutex_destroy(&stage->lock);
	free(stage->free.extents);
	free(stage->spool_dir);
	free(stage);
}

uint64_t stage_content_version(struct stage *stage)
{
	uint64_t version;

	pthread_mutex_lock(&stage->lock);
	version = stage->content_version;
	pthread_mutex_unlock(&stage->lock);
	return version;
}

uint64_t stage_version(struct stage *stage)
{
	uint64_t version;

	pthread_mutex_lock(&stage->lock);
	version = stage->version;
	pthread_mutex_unlock(&stage->lock);
	return version;
}

int stage_freeze(struct stage *stage, struct wait *wait)
{
	int r = 0;

	pthread_mutex_lock(&stage->lock);
	stage->frozen = true; /* or new writers would keep it for ever */
	while (r == 0 && stage->writers)
		r = wait_on(wait, &stage->changed, &stage->lock, WAIT_FOREVER);
	stage->frozen = r == 0;
	pthread_mutex_unlock(&stage->lock);
	return r;
}

void stage_thaw(struct stage *stage)
{
	pthread_mutex_lock(&stage->lock);
	stage->frozen = false;
	pthread_mutex_unlock(&stage->lock);
}

int stage_begin(struct stage *stage)
{
	pthread_mutex_lock(&stage->lock);
	int err = stage->spent ? -ESTALE : stage->frozen ? -EBUSY : 0;
	if (err)
		pthread_mutex_unlock(&stage->lock);
	return err;
}

void stage_end(struct stage *stage, bool content)
{
	stage->version++;
	stage->content_version += content;
	pthread_mutex_unlock(&stage->lock);
}

/* --- inodes --- */

static struct timespec stage_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now;
}

void stage_touch(struct stage_inode *inode, bool mtime)
{
	inode->ctime = stage_now();
	if (mtime)
		inode->mtime = inode->ctime;
}

int stage_inode_new(struct stage *stage, const struct stage_made *made, struct stage_inode **ret)
{
	struct stage_inode *inode;

	if (stage->ninodes >= STAGE_INODES_MAX)
		return -ENOSPC;
	inode = calloc(1, sizeof(*inode));
	if (!inode)
		return -ENOMEM;
	if (S_ISLNK(made->mode)) {
		inode->target = strdup(made->target);
		if (!inode->target) {
			free(inode);
			return -ENOMEM;
		}
	}
	inode->stage = stage;
	inode->number = ++stage->last_number;
	inode->holders = 1;
	inode->mode = made->mode & (S_IFMT | 07777);
	inode->uid = made->uid;
	inode->gid = made->gid;
	inode->rdev = S_ISCHR(made->mode) || S_ISBLK(made->mode) ? made->rdev : 0;
	inode->atime = inode->mtime = inode->ctime = stage_now();
	inode->next = stage->inodes;
	inode->link = &stage->inodes;
	if (inode->next)
		inode->next->link = &inode->next;
	stage->inodes = inode;
	stage->ninodes++;
	*ret = inode;
	return 0;
}

bool stage_inode_drop(struct stage_inode *inode)
{
	if (inode->names || inode->holders)
		return false;
	*inode->link = inode->next;
	if (inode->next)
		inode->next->link = inode->link;
	inode->stage->ninodes--;
	return true;
}

void stage_inode_free(struct stage_inode *inode)
{
	for (size_t i = 0; i < inode->nxattrs; i++) {
		free(inode->xattrs[i].name);
		free(inode->xattrs[i].value);
	}
	free(inode->xattrs);
	if (S_ISREG(inode->mode))
		stage_data_release(inode->stage, &inode->data);
	else if (S_ISLNK(inode->mode))
		free(inode->target);
	else if (S_ISDIR(inode->mode))
		free(inode->dir.sorted);
	free(inode);
}

struct stage_inode *stage_root(struct stage *stage)
{
	return stage_inode_ref(stage->root);
}

struct stage_inode *stage_inode_ref(struct stage_inode *inode)
{
	pthread_mutex_lock(&inode->stage->lock);
	inode->holders++;
	pthread_mutex_unlock(&inode->stage->lock);
	return inode;
}

void stage_inode_unref(struct stage_inode *inode)
{
	struct stage *stage = inode ? inode->stage : NULL;
	bool last;

	if (!inode)
		return;
	pthread_mutex_lock(&stage->lock);
	inode->holders--;
	last = stage_inode_drop(inode);
	pthread_mutex_unlock(&stage->lock);
	if (last)
		stage_inode_free(inode);
}

void stage_inode_cleanup(struct stage_inode **inode)
{
	stage_inode_unref(*inode);
}

uint64_t stage_inode_number(const struct stage_inode *inode)
{
	return inode->number;
}

const char *stage_target(const struct stage_inode *inode)
{
	return S_ISLNK(inode->mode) ? inode->target : NULL;
}

/* --- attributes --- */

/* Holes take no room. */
static uint64_t bytes_kept(const struct stage_data *data)
{
	uint64_t kept = 0;

	for (size_t i = 0; i < data->extents.n; i++)
		kept += (uint64_t)data->extents.extents[i].n * STAGE_CHUNK;
	return MIN(kept, data->size);
}

void stage_stat(struct stage_inode *inode, struct stat *ret)
{
	pthread_mutex_lock(&inode->stage->lock);
	*ret = (struct stat){
		.st_ino = inode->number,
		.st_mode = inode->mode,
		.st_nlink = inode->names,
		.st_uid = inode->uid,
		.st_gid = inode->gid,
		.st_rdev = inode->rdev,
		.st_blksize = 4096,
		.st_atim = inode->atime,
		.st_mtim = inode->mtime,
		.st_ctim = inode->ctime,
	};
	if (S_ISREG(inode->mode)) {
		ret->st_size = (off_t)inode->data.size;
		ret->st_blocks = (blkcnt_t)((bytes_kept(&inode->data) + 511) / 512);
	} else if (S_ISLNK(inode->mode)) {
		ret->st_size = (off_t)strlen(inode->target);
	} else if (S_ISDIR(inode->mode) && inode->names) {
		ret->st_nlink = 2 + inode->dir.subdirs;
	}
	pthread_mutex_unlock(&inode->stage->lock);
}

int stage_change(struct stage_inode *inode, const struct stage_change *change)
{
	int r = stage_begin(inode->stage);

	if (r < 0)
		return r;
	if (change->mode)
		inode->mode = (inode->mode & S_IFMT) | (*change->mode & 07777);
	if (change->uid)
		inode->uid = *change->uid;
	if (change->gid)
		inode->gid = *change->gid;
	if (change->atime)
		inode->atime = *change->atime;
	if (change->mtime)
		inode->mtime = *change->mtime;
	stage_touch(inode, false);
	stage_end(inode->stage, false);
	return 0;
}
