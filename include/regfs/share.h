/* SPDX-License-Identifier: Apache-2.0 */
/*
 * share: the index of an image, put beside it into its repository, so that the next machine can
 * read the image's layers by range at first sight: SOCI's tables (ztoc.h) under a manifest whose
 * subject is the image (soci-snapshotter, soci/soci_index.go, version 1).
 * Knows what SOCI's readers need of a layer's table. Must not know who asks, nor how a repository
 * keeps its lists of referrers.
 *
 * A layer is indexed if its blob is gzip or a plain tar, and it has no table of its own. Of an
 * image there is one index: the same one whenever and wherever it is made.
 *
 * SOCI's readers begin at a point with raw deflate data. Those before version 0.14 stop at the end
 * of the gzip member, and then take zeros for what a span holds beyond it (soci-snapshotter,
 * ztoc/compression/gzip_zinfo.c). So no span crosses the end of a member, and a layer of members so
 * small that the points outweigh them is left out.
 */
#ifndef REGFS_SHARE_H
#define REGFS_SHARE_H

#include "regfs/image.h"

#define SHARE_LAYER_MIN (10 * MIB) /* upstream's default: a smaller layer is fetched whole */

/* What became of one layer. */
struct share_layer {
	const struct oci_descriptor *layer;
	const char *left_out; /* why; NULL: it is indexed */
	struct digest ztoc;
	uint64_t ztoc_size;
	uint32_t nfiles, nspans;
};
typedef void share_layer_fn(void *arg, const struct share_layer *layer);

struct share_options {
	struct blobs *blobs;
	uint64_t layer_min;  /* smaller blobs are left out */
	uint64_t span_size;  /* least distance of points, decoded bytes; ZTOC_SPAN_SIZE */
	share_layer_fn *say; /* called for each layer, from the bottom */
	void *arg;
};

/*
 * Makes the index of IMAGE, a manifest, from its layers' verified bytes, fetched as far as the
 * cache does not have them, and puts it into the image's repository. 0, and *RET is the index's
 * digest; 1: no layer needs one, and nothing was put; -EMEDIUMTYPE: IMAGE is no image of layers;
 * the blobs' and the store's errors, logged.
 */
int share_image(const struct share_options *options, struct image *image, struct wait *wait,
		struct digest *ret);

#endif
