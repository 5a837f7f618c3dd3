/* SPDX-License-Identifier: Apache-2.0 */
/*
 * push_tree: a push out of a directory: a tree of `stage` becomes an image, an artifact, or is an
 * OCI layout.
 * Knows trees, images and stores. Must not know nodes.
 *
 *   rootfs/ base config.json        one layer, reproducible, on the image that the link base leads
 *                                   to; at least one of rootfs/ and base
 *   files/                          an artifact: each file a blob with its path as title
 *   oci-layout index.json blobs/    an image as it is
 *
 * Any thread. While a verdict is made the tree is frozen (stage.h), but for a layout.
 */
#ifndef REGFS_PUSH_TREE_H
#define REGFS_PUSH_TREE_H

#include "regfs/image.h"
#include "regfs/push.h"
#include "regfs/stage.h"

struct push_tree;

struct push_tree_options {
	struct stage *stage; /* outlives it */
	struct store *store;
	const char *repo;
	const char *tag; /* NULL: a temporary, which is only kept */
	const char *label;
	struct blobs *blobs;		     /* for the bytes of base */
	const struct oci_platform *platform; /* of an image without base */
};
int push_tree_new(struct pushes *pushes, const struct push_tree_options *options,
		  struct push_tree **ret);
/* Calls off what is under way. Nobody else uses it any more. NULL is fine. */
void push_tree_free(struct push_tree *tree);

/* The image that TARGET, the text of the link base, leads to; an index is fine. Negative errno, and
 * a constant sentence in *RET_WHY. */
typedef int push_base_fn(void *arg, const char *target, struct wait *wait, struct image **ret,
			 const char **ret_why);
struct push_base {
	push_base_fn *find;
	void *arg;
};

/*
 * The verdict (of a temporary 0, and nothing is done): 1 when the store has confirmed the manifest
 * just now, 0 when it had before and nothing changed since, or a negative errno; after that it is
 * tried anew: what was wrong may lie outside. -EINVAL, with words: what is in the tree makes no
 * image. -EWOULDBLOCK where WAIT may not block.
 */
int push_tree_sync(struct push_tree *tree, const struct push_base *base, struct wait *wait);
/*
 * FILE was closed, or came by its name, in a tree that is a layout: its blob begins to travel. The
 * verdict if the layout is whole now, else 0.
 */
int push_tree_settle(struct push_tree *tree, struct stage_inode *file, struct wait *wait);
struct push_tree_name {
	const char *tag; /* NULL: a temporary */
	const char *label;
};
/* From now on it goes by NAME. With a tag, and unless it is empty, that is a sync: after an error
 * it is called as before. */
int push_tree_rename(struct push_tree *tree, const struct push_tree_name *name,
		     const struct push_base *base, struct wait *wait);
/* Whether there is an OCI layout, or the beginning of one. */
bool push_tree_is_layout(struct push_tree *tree);
/* Whether what is in the tree now was confirmed. */
bool push_tree_is_confirmed(struct push_tree *tree);

#endif
