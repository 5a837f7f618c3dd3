/* SPDX-License-Identifier: Apache-2.0 */
/*
 * treedir: the files of rootfs/ and of layers/NN/ as nodes; a whole tree is one node object.
 * Must not know FUSE, nor bytes.
 *
 * Directories belong to the path they were reached by; all other files to one node per image (or
 * layer), so that the kernel caches a file's pages once whatever path leads to it.
 */
#ifndef REGFS_TREEDIR_H
#define REGFS_TREEDIR_H

#include "regfs/context.h"

#define TREEDIR_ROOTFS (-1)

struct treedir_options {
	const struct context *context;
	struct node *parent;
	const char *name;
	struct image *image;  /* takes no reference of the caller's */
	int layer;	      /* TREEDIR_ROOTFS: the merged tree; else one layer's own */
	enum image_form form; /* of a layer's own */
	bool serves;	      /* whoever goes in uses the image: image_entered() */
	bool verbatim; /* for a container: symlinks as they are, whatever the mount's options */
};
/* Directory NAME of PARENT. Held, interned. */
int treedir_new(const struct treedir_options *options, struct wait *wait, struct node **ret);

/* TARGET of a symlink that stands DEPTH directories below its tree's root, as a relative path that
 * does not lead out of the tree by itself. Pure. The caller frees. 0, -ENOMEM, -ENAMETOOLONG. */
int treedir_target(const char *target, unsigned depth, char **ret);

#endif
