/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imagedir: the directory of one image: digest, manifest.json, config.json, history, rootfs/,
 * layers/, image.tar, oci/, platforms/, referrers/, files/.
 * Must not know FUSE, nor how references are resolved.
 */
#ifndef REGFS_IMAGEDIR_H
#define REGFS_IMAGEDIR_H

#include "regfs/context.h"

/* The directory NAME of PARENT (NULL: a root) for IMAGE, held and interned; takes no reference of
 * the caller's image. REF_NAME is the tag for image.tar ("1.5"), REPO_TAG the full name; both may
 * be NULL. May have to wait for the chosen platform's manifest. */
struct imagedir_options {
	const struct context *context;
	struct node *parent;
	const char *name;
	struct image *image;
	struct image *index; /* whose child it was reached as, or NULL */
	const char *ref_name;
	const char *repo_tag;
};
int imagedir_new(const struct imagedir_options *options, struct wait *wait, struct node **ret);
/* The image whose directory REF is; the caller unrefs. -ENOENT if it is none. */
int imagedir_image(const struct node_ref *ref, struct image **ret);

#endif
