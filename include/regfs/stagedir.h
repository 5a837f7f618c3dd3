/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stagedir: the directories under _push/ of a repository, and all that is in them.
 * Knows names, which of them are tags, and how long a directory stays. Must not know FUSE, nor how
 * a tree becomes an image.
 *
 * A directory outlives its nodes: it stays until it is removed, or was confirmed and not touched
 * for a minute since. One whose name is no tag (a leading dot) is only kept, and pushed by the
 * rename to one.
 */
#ifndef REGFS_STAGEDIR_H
#define REGFS_STAGEDIR_H

#include "regfs/pushdir.h"

struct stagedirs;
/* CONTEXT outlives it. NULL when memory is short. */
struct stagedirs *stagedirs_new(const struct context *context, const struct pushdirs_hooks *hooks);
void stagedirs_free(struct stagedirs *dirs);

/* One _push directory. */
struct stageplace {
	struct stagedirs *dirs;
	struct node *node; /* the _push directory's own */
	struct store *store;
	const char *repo; /* "" for a registry's: directories are -EINVAL there */
};

/* -ENOENT. */
int stagedir_lookup(const struct stageplace *place, const char *name, struct call *call,
		    struct node_entry *ret);
/* Its positions are from STAGEDIR_POS on; POS below that is the beginning. */
#define STAGEDIR_POS (UINT64_C(1) << 48)
int stagedir_list(const struct stageplace *place, uint64_t pos, node_list_fn *fn, void *arg);
/* -EINVAL, logged, for a name that is neither a tag nor a temporary. */
int stagedir_mkdir(const struct stageplace *place, const char *name, mode_t mode, struct call *call,
		   struct node_entry *ret);
int stagedir_rmdir(const struct stageplace *place, const char *name);
/* Within PLACE. To a tag: it is published, and stays where it was if that fails. -ENOENT if NAME
 * is no directory. */
int stagedir_rename(const struct stageplace *place, const char *name, const char *to_name,
		    unsigned flags, struct call *call);

#endif
