/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stage, inside. Shared by stage*.c alone.
 *
 *   stage.c        the tree as a whole, its inodes, their attributes
 *   stage_names.c  directories: names found, made, moved, listed
 *   stage_data.c   the bytes of files in the spool
 *   stage_xattr.c  extended attributes
 *
 * Invariants, under stage->lock:
 *   - an inode is in stage->inodes until it has neither names nor holders; then it is freed
 *   - a directory's names are sorted by their bytes in .sorted, and linked by .pos, ascending, from
 *     .first to .last
 *   - a file's extents ascend, do not overlap, and own their chunks of the spool; each byte of a
 *     chunk that is not below the file's size is zero
 *   - chunks on the free list are holes in the spool
 */
#ifndef REGFS_STAGE_PRIV_H
#define REGFS_STAGE_PRIV_H

#include "regfs/stage.h"

#define STAGE_CHUNK	 (128 * KIB)
#define STAGE_XATTRS_MAX (256 * KIB) /* names and values of one inode */

struct stage_name {
	char *name;
	struct stage_inode *inode;
	uint64_t pos;
	struct stage_name *next, *previous;
};

struct stage_dir {
	struct stage_inode *parent; /* NULL: the root, or removed */
	struct stage_name **sorted;
	size_t n, cap;
	struct stage_name *first, *last;
	uint64_t last_pos;
	uint32_t subdirs;
};

/* N chunks from chunk AT of the file on are those from SPOOL on. */
struct stage_extent {
	uint32_t at, spool, n;
};
struct stage_extents {
	struct stage_extent *extents;
	size_t n, cap;
};

struct stage_data {
	uint64_t size;
	struct stage_extents extents;
	uint64_t version; /* of the bytes */
	uint64_t cuts; /* how often chunks were taken away: a read that ran beside is done anew */
	unsigned writers; /* under way */
	bool cutting;	  /* a truncation is under way: excludes writers */
};

struct stage_xattr {
	char *name;
	void *value;
	size_t len;
};

/* Fields are guarded by stage->lock, but for those that never change: stage, number, type bits of
 * mode, rdev, target. */
struct stage_inode {
	struct stage *stage;
	struct stage_inode *next, **link; /* in stage->inodes */
	uint64_t number;
	unsigned holders;
	uint32_t names;
	mode_t mode;
	uid_t uid;
	gid_t gid;
	dev_t rdev;
	struct timespec atime, mtime, ctime;
	struct stage_xattr *xattrs; /* by name */
	size_t nxattrs;
	union {
		struct stage_dir dir;
		struct stage_data data;
		char *target;
	};
};

struct stage {
	char *spool_dir;
	pthread_mutex_t lock;
	/* guarded by lock */
	struct wait_queue changed; /* writers, cutting */
	struct stage_inode *inodes, *root;
	uint64_t ninodes, last_number;
	uint64_t version, content_version;
	unsigned writers;
	bool frozen;
	bool spent;		   /* the bytes are gone */
	int spool;		   /* -1: not yet */
	struct stage_extents free; /* chunks; .at is of no use */
	uint32_t spool_chunks;	   /* the spool's length */
};

/* Takes the lock for a change; without it -EBUSY, while the tree is frozen, or -ESTALE. */
int stage_begin(struct stage *stage);
/* Counts the change, and drops the lock. */
void stage_end(struct stage *stage, bool content);

/* The rest: lock held. */
/* A change of INODE: its ctime, and of its bytes or names the mtime. */
void stage_touch(struct stage_inode *inode, bool mtime);
/* A new inode without a name, held. */
int stage_inode_new(struct stage *stage, const struct stage_made *made, struct stage_inode **ret);
/* Takes it out of the tree's list, if it has neither names nor holders: it is to be freed with
 * stage_inode_free(), without the lock. */
bool stage_inode_drop(struct stage_inode *inode);
void stage_inode_free(struct stage_inode *inode);
/* The file's chunks, with their bytes; no lock. */
void stage_data_release(struct stage *stage, struct stage_data *data);

static inline bool stage_is_dir(const struct stage_inode *inode)
{
	return S_ISDIR(inode->mode);
}

#endif
