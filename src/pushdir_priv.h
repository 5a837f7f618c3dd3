/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pushdir, inside; shared by pushdir*.c alone.
 *
 *   pushdir.c        the directory: names, creating, renaming
 *   pushdir_entry.c  its entries, which outlive their nodes
 *   pushdir_file.c   a file: bytes, attributes, the close
 */
#ifndef REGFS_PUSHDIR_PRIV_H
#define REGFS_PUSHDIR_PRIV_H

#include "regfs/pushdir.h"
#include "regfs/stagedir.h"

/* One file under some _push. */
struct pushentry {
	struct pushentry *next; /* guarded by pushdirs->lock */
	unsigned refs;		/* guarded by pushdirs->lock: the table's and the nodes' */
	bool listed;		/* in the table; guarded by pushdirs->lock */
	struct store *store;
	char *repo;	   /* "" for a registry's _push */
	char *node_name;   /* the first: a rename leaves the node as it is */
	struct push *push; /* held */
	uint64_t number;   /* in the order of creation, from 1 */
	uint64_t ino;
	/* guarded by pushdirs->lock */
	char *name;
	bool kept;	      /* a temporary: to be renamed */
	int64_t touched_ms;   /* written, closed or renamed */
	int64_t confirmed_ms; /* 0: not */
	int64_t failed_ms;    /* of the last flush, if nothing was written since; 0: none */
	mode_t mode;
	uid_t uid;
	gid_t gid;
	struct timespec mtime;
};

struct pushdirs {
	const struct context *context;
	struct pushdirs_hooks hooks;
	pthread_mutex_t lock;
	struct pushentry *entries; /* guarded by lock */
	uint64_t made;		   /* numbers entries; guarded by lock */
	struct stagedirs *staged;  /* those entries that are directories */
};

struct pushdir {
	struct node node;
	struct pushdirs *dirs;
	struct store *store;
	char *repo; /* "" for a registry's */
};

struct pushfile {
	struct node node;
	struct pushdirs *dirs;
	struct pushentry *entry; /* held */
};

void pushentry_free(struct pushentry *entry);
void pushentry_unref(struct pushdirs *dirs, struct pushentry *entry);
/* Takes ENTRY out of the table; what is open goes on until it is closed. */
void pushentry_unlist(struct pushdirs *dirs, struct pushentry *entry);
/* Drops what was confirmed, or failed or kept and not touched again, long enough ago. */
void pushentries_sweep(struct pushdirs *dirs);
/* The lock is held. */
bool pushentry_is_in(const struct pushentry *entry, const struct pushdir *dir);
/* The entry NAME, held, or NULL. */
struct pushentry *pushentry_find(struct pushdir *dir, const char *name);

/* ENTRY's node. Held, interned. */
int pushfile_new(struct pushdir *dir, struct pushentry *entry, struct node **ret);

#endif
