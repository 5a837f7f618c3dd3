/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stagedir, inside. Shared by stagedir*.c alone.
 *
 *   stagedir.c       the directories of all _push: made, found, renamed, left after a while
 *   stagedir_node.c  the nodes of what is in one
 *   stagedir_base.c  where a link `base` leads to
 */
#ifndef REGFS_STAGEDIR_PRIV_H
#define REGFS_STAGEDIR_PRIV_H

#include "regfs/stage.h"
#include "regfs/stagedir.h"

/* One directory under some _push. */
struct staged {
	struct staged *next; /* guarded by dirs->lock */
	unsigned refs;	     /* guarded by dirs->lock: the table's and the nodes' */
	bool listed;	     /* in the table; guarded by dirs->lock */
	struct stagedirs *dirs;
	struct store *store;
	char *repo;
	struct stage *stage;
	struct push_tree *tree;
	uint64_t number;      /* in the order they were made, from 1 */
	char *name;	      /* guarded by dirs->lock */
	int64_t confirmed_ms; /* guarded by dirs->lock; 0: not */
};

struct stagedirs {
	const struct context *context;
	struct pushdirs_hooks hooks;
	pthread_mutex_t lock;
	struct staged *head; /* guarded by lock */
	uint64_t made;	     /* guarded by lock */
};

struct staged *staged_ref(struct staged *staged);
void staged_unref(struct staged *staged);

/* The node of INODE, which is taken over whatever happens. PARENT is the _push directory's node. */
int stagenode_entry(struct staged *staged, struct node *parent, struct stage_inode *inode,
		    struct call *call, struct node_entry *ret);

/* Its st_ino; no lock is needed. */
uint64_t stagenode_root_ino(const struct staged *staged);

/* Where `base` of a tree is looked for: push_base's argument. */
struct stage_base_finder {
	struct stagedirs *dirs;
	struct node *push_dir; /* the link lies in a directory of this one */
	struct call *call;
};
/* A push_base_fn. */
int stagedir_find_base(void *arg, const char *target, struct wait *wait, struct image **ret,
		       const char **ret_why);

/* Whether staged_settled() may have to wait: there is an OCI layout, or the beginning of one. */
bool staged_may_settle(struct staged *staged);
/* A file was closed, or came under its name: the verdict, if that makes an OCI layout whole. */
int staged_settled(struct staged *staged, struct stage_inode *inode, struct wait *wait);
/* fsync of the directory: the verdict. */
int staged_sync(struct staged *staged, struct node *push_dir, struct call *call);

#endif
