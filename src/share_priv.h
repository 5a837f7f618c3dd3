/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the room `share` share: share.c (an image's index) and share_layer.c (a layer's
 * table).
 */
#ifndef REGFS_SHARE_PRIV_H
#define REGFS_SHARE_PRIV_H

#include "regfs/share.h"
#include "regfs/ztoc.h"

#define SHARE_WHY_MAX 160

/* A layer's document, or why it has none. */
struct share_ztoc {
	struct buf bytes;
	uint32_t nfiles, nspans;
	char why[SHARE_WHY_MAX];
};

/* Reads the blob ID once for its members and points, and again for its spans' digests. 0;
 * -EMEDIUMTYPE: SOCI's tables do not suit it, and RET->why says why; the blob's errors. */
int share_read_layer(const struct share_options *options, const struct blob_id *id,
		     struct wait *wait, struct share_ztoc *ret);

#endif
