/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layerstore_priv: what the directories of a layer store share.
 */
#ifndef REGFS_LAYERSTORE_PRIV_H
#define REGFS_LAYERSTORE_PRIV_H

#include "regfs/layerstore.h"

#define LAYERSTORE_INFO_MAX 4096

/* --- layerstore.c --- */

/* The entry of a node (taking its reference). */
int layerstore_entry(struct node *node, struct call *call, struct node_entry *ret);
/* Hands one name of DIR to a listing; POS is the position after it. */
int layerstore_list_name(const struct node *dir, uint64_t pos, const char *name, mode_t type,
			 node_list_fn *fn, void *arg);

/* --- layerstore_layer.c --- */

struct layerdir_options {
	const struct context *context;
	struct node *parent;	     /* a reference's directory */
	const struct digest *digest; /* what the layer was asked for as: its name */
	const struct image_part *part;
};
/* The directory of a layer; held, interned. */
int layerdir_new(const struct layerdir_options *options, struct wait *wait, struct node **ret);

/* --- layerstore_info.c; pure --- */

/* What the name of a directory in store/ means. 0, -ENOENT, -ENOMEM. */
int layerstore_reference(const char *name, struct ref *ret);

struct layerstore_facts {
	const struct oci_descriptor *layer;
	const struct digest *diff_id;
	const struct digest *toc; /* the table of contents that it is named by; NULL: it is not */
	int64_t diff_size;	  /* of its tar; -1: not known */
};
/* The JSON of "info" for RET. 0, -ENOMEM, -EFBIG. */
int layerstore_info(const struct layerstore_facts *facts, struct buf *ret);

#endif
