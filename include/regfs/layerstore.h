/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layerstore: _regfs/store/: layers as podman and CRI-O take them in place of a pull (the
 * "additional layer stores" of containers-storage.conf(5)):
 * store/REFERENCE/DIGEST/{diff,info,blob}.
 * Knows what containers/storage asks for. Must not know FUSE, nor how references are resolved.
 *
 * REFERENCE is a full reference in base64 (RFC 4648, section 4). DIGEST is a layer's, or that of
 * the table of contents of an eStargz or zstd:chunked layer, which newer runtimes name it by.
 * diff is the layer as overlayfs stacks it, info what the runtime keeps of it, blob its bytes.
 * Nothing there costs more than manifest and config before a file of diff is looked for.
 *
 * A runtime says that it uses a layer by creating DIGEST/use, and that it does so no more by
 * rmdir DIGEST; both have to fail with ENOENT, and mean nothing here: what is in use is what the
 * kernel holds, and the cache keeps what is used.
 */
#ifndef REGFS_LAYERSTORE_H
#define REGFS_LAYERSTORE_H

#include "regfs/context.h"
#include "regfs/ref.h"

/* Finds images for a layer store. */
struct layerstore_source {
	/* The image that REF names now. The caller unrefs. */
	int (*image)(void *arg, const struct ref *ref, struct call *call, struct image **ret);
	/* The image of REF, now or when it was last asked for, that has layer DIGEST, and which of
	 * its layers that is. The caller unrefs. -ENOENT. */
	int (*layer)(void *arg, const struct ref *ref, const struct digest *digest,
		     struct call *call, struct image_part *ret);
	void *arg;
};

/* Directory "store" of PARENT. Held, interned. SOURCE outlives it. */
int layerstore_new(const struct context *context, const struct layerstore_source *source,
		   struct node *parent, struct node **ret);

#endif
