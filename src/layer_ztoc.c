// SPDX-License-Identifier: Apache-2.0
/*
 * layer_ztoc: an index out of a ztoc, which is a blob of its own.
 * Knows how it is fetched. Must not know what is in it (ztoc.h), nor who vouches for it: its digest
 * is right.
 */
#include <errno.h>

#include "layer_priv.h"
#include "regfs/ztoc.h"

static int fetch(const struct layer *layer, const struct blob_id *id, struct wait *wait,
		 struct buf *ret, const char **ret_why)
{
	const struct toc_ref *ref = &layer->toc;
	const struct blob_id ztoc = {
		.digest = &ref->packed, .size = ref->len, .store = id->store, .repo = id->repo};

	if (ref->len > ZTOC_MAX) {
		*ret_why = "it is too large";
		return -EINVAL;
	}
	int r = blob_get(layer->layers->blobs, &ztoc, ret->max, ret, wait);
	/* who lacks it may have the layer */
	return r == -ENOENT ? -EINVAL : r;
}

static int build(const struct layer *layer, const struct ztoc *ztoc, struct buf *ret,
		 const char **ret_why)
{
	CLEANUP(index_builder_cleanup) struct index_builder *builder = index_builder_new();
	struct index_info info = {
		.blob = layer->digest,
		.blob_size = layer->size,
		.decoded_size = ztoc->decoded_size,
		.codec = ztoc->codec,
		.by_toc = true,
		.by_spans = true,
	};

	if (!builder)
		return -ENOMEM;
	int r = ztoc_index(ztoc, builder, ret_why);
	return r < 0 ? r : index_builder_finish(builder, &info, ret);
}

int layer_ztoc(struct layer *layer, const struct blob_id *id, struct wait *wait, struct buf *ret,
	       const char **ret_why)
{
	AUTO_BUF struct buf bytes = BUF_INIT(ZTOC_MAX);
	struct ztoc ztoc;

	int r = fetch(layer, id, wait, &bytes, ret_why);
	if (r == 0)
		r = ztoc_open(bytes.data ? bytes.data : "", bytes.len, &ztoc, ret_why);
	if (r == 0 && ztoc.blob_size != layer->size) {
		*ret_why = "it is of a layer of another size";
		r = -EINVAL;
	}
	return r < 0 ? r : build(layer, &ztoc, ret, ret_why);
}
