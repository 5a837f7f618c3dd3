/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pushdir: _push/ of a repository or of a registry, and the files in it.
 * Knows entry names and how long entries stay. Must not know FUSE, archives or uploads.
 */
#ifndef REGFS_PUSHDIR_H
#define REGFS_PUSHDIR_H

#include "regfs/context.h"

/* The entries of all _push directories; they outlive their nodes. */
struct pushdirs;
struct pushdirs_hooks {
	/* After a push was confirmed, from the flush that confirmed it: may wait. */
	void (*changed)(void *arg, struct wait *wait);
	/* Makes the kernel forget NAME in DIR; called from a flush, which holds no directory. */
	void (*forget)(void *arg, const struct node_ref *dir, const char *name);
	void *arg;
};
struct pushdirs *pushdirs_new(const struct context *context, const struct pushdirs_hooks *hooks);
void pushdirs_free(struct pushdirs *pushdirs);

/* _push in PARENT, for STORE; REPO is NULL for a registry's. Held, interned. */
int pushdir_new(struct pushdirs *pushdirs, struct node *parent, struct store *store,
		const char *repo, struct node **ret);

#endif
