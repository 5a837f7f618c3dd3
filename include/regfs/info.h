/* SPDX-License-Identifier: Apache-2.0 */
/*
 * info: _regfs/: version, stats.json, metrics, log, pushes; store/ is layerstore's.
 * Must not know FUSE.
 *
 * A file's text is made when it is looked at, and kept for a moment so that its size and its
 * bytes agree.
 */
#ifndef REGFS_INFO_H
#define REGFS_INFO_H

#include "regfs/layerstore.h"

/* Directory _regfs in PARENT. Held, interned. SOURCE outlives it. */
int info_new(const struct context *context, const struct layerstore_source *source,
	     struct node *parent, struct node **ret);

#endif
