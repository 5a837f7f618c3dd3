// SPDX-License-Identifier: Apache-2.0
/*
 * layer_plan: what of a blob it takes to read some parts of a layer's files, and bringing that in.
 * Knows resume points, chunks and what the cache has. Must not know why they are wanted; nothing
 * is decoded or given to anybody here.
 *
 * Parts become *needs*: blocks of the blob, or chunks. Needs that lie close together become one
 * *range*, whose place in the order is that of the first part it is needed for.
 */
#include <errno.h>
#include <sys/stat.h>

#include "layer_chunks_priv.h"

#define PLAN_RANGE   (1 * MIB)	/* of a blob, for one range: a fresh connection is slow with more */
#define PLAN_DECODED (16 * MIB) /* of chunks, likewise */
#define PLAN_GAP     (CACHE_BLOCK)	 /* is fetched along, between two needs */
#define PLAN_SPAN    ((uint64_t)8 * MIB) /* a point further behind is no way to a part */
#define PLAN_NEEDS   65536

/* Bytes of the blob from OFF to END, for the FIRST part. */
struct need {
	uint64_t off, end;
	size_t first;
	uint32_t chunk; /* of those of its file */
	uint32_t ino;	/* the file; INDEX_NONE: the stream */
	uint32_t len;	/* of the chunk */
};

struct plan_range {
	uint64_t off, end, decoded;
	size_t first;
	uint32_t need, nneeds; /* chunks: of .needs */
};

struct layer_plan {
	struct layer *layer; /* borrowed */
	struct need *needs;
	uint32_t nneeds, cap;
	struct plan_range *ranges;
	uint32_t nranges;
};

void layer_plan_free(struct layer_plan *plan)
{
	if (!plan)
		return;
	free(plan->needs);
	free(plan->ranges);
	free(plan);
}

/* --- needs --- */

static int need_add(struct layer_plan *plan, const struct need *need)
{
	if (need->off >= need->end)
		return 0;
	if (plan->nneeds == PLAN_NEEDS)
		return -EFBIG;
	if (plan->nneeds == plan->cap) {
		uint32_t cap = plan->cap ? 2 * plan->cap : 64;
		struct need *needs = reallocarray(plan->needs, cap, sizeof(*needs));

		if (!needs)
			return -ENOMEM;
		plan->needs = needs;
		plan->cap = cap;
	}
	plan->needs[plan->nneeds++] = *need;
	return 0;
}

/* Bytes OFF … END - 1 of the decoded stream. */
static int need_stream(struct layer_plan *plan, uint64_t off, uint64_t end, size_t first)
{
	const struct index *index = &plan->layer->index;
	struct need need = {.off = off, .end = end, .first = first};
	struct codec_point point;

	if (off >= end || end > index->info.decoded_size)
		return 0;
	if (index->info.codec != CODEC_PLAIN) {
		int r = index_point(index, index_point_before(index, off), NULL, &point);
		if (r < 0)
			return r;
		need.off = point.in_off - (point.bits && point.in_off ? 1 : 0);
		need.end = spans_input_until(plan->layer, end);
		/* what is kept decoded, or decoded from far behind, is left to whoever reads it */
		if (off - point.out_off >= LAYER_GAP || need.end > need.off + PLAN_SPAN)
			return 0;
	}
	need.off -= need.off % CACHE_BLOCK;
	need.end = MIN((need.end + CACHE_BLOCK - 1) / CACHE_BLOCK * CACHE_BLOCK, plan->layer->size);
	return need_add(plan, &need);
}

/* Those chunks of FILE that hold bytes OFF … END - 1, which the cache lacks. */
static int need_chunks(struct layer_plan *plan, const struct index_inode *file, uint32_t ino,
		       const struct layer_part *part, size_t first)
{
	struct layer *layer = plan->layer;
	uint64_t end = part->off + part->len;
	struct index_chunk chunk = {0};

	for (uint32_t nr = index_chunk_at(&layer->index, file, part->off); nr < file->nchunks;
	     nr++) {
		int r = index_chunk(&layer->index, file, nr, &chunk);
		if (r < 0 || chunk.off >= end)
			return r;
		struct need need = {.off = chunk.in_off,
				    .end = chunk.in_off + chunk.in_len,
				    .first = first,
				    .chunk = nr,
				    .ino = ino,
				    .len = chunk.len};
		struct cache_id id = chunk_id(layer, &chunk);
		if (chunk.len > TOC_CHUNK_MAX || cache_has(layer->layers->cache, &id, 0))
			continue;
		r = need_add(plan, &need);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The data of a file with holes lies together: all of it up to the part's end. */
static int need_file(struct layer_plan *plan, const struct index_inode *inode,
		     const struct layer_part *part, size_t first)
{
	uint64_t off = inode->data_off + part->off, end = off + part->len, len = 0;
	struct tar_extent extent;

	if (!(inode->flags & INDEX_SPARSE))
		return need_stream(plan, off, end, first);
	for (uint32_t n = 0; index_extent(&plan->layer->index, inode, n, &extent) == 0; n++)
		if (extent.off < part->off + part->len)
			len += extent.len;
	return need_stream(plan, inode->data_off, inode->data_off + len, first);
}

static int need_part(struct layer_plan *plan, const struct layer_part *wanted, size_t first)
{
	const struct index_info *info = &plan->layer->index.info;
	struct layer_part part = *wanted;
	struct index_inode inode;

	/* a part that is none is passed over: nothing depends on it */
	if (layer_file(plan->layer, part.ino, &inode) < 0 || part.off >= inode.size)
		return 0;
	part.len = MIN(part.len, inode.size - part.off);
	if (!info->by_toc)
		return need_file(plan, &inode, &part, first);
	if (!info->by_spans)
		return need_chunks(plan, &inode, part.ino, &part, first);
	const struct index_inode stream = {.nchunks = info->nchunks};
	if (inode.data_off > info->decoded_size)
		return 0;
	part.off += inode.data_off;
	return need_chunks(plan, &stream, INDEX_NONE, &part, first);
}

/* --- ranges --- */

static int by_place(const void *a, const void *b)
{
	const struct need *x = a, *y = b;

	return x->off < y->off ? -1 : x->off > y->off;
}

static int by_first(const void *a, const void *b)
{
	const struct plan_range *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

/* Whether NEED, which begins behind the range's beginning, is to be a part of it. Chunks may share
 * a member, and spans of gzip a byte, but not overlap otherwise: the last one has the range's end.
 */
static bool range_takes(const struct layer_plan *plan, const struct plan_range *range,
			const struct need *need)
{
	const struct need *last = &plan->needs[range->need + range->nneeds - 1];

	if (need->off > range->end + PLAN_GAP || need->end - range->off > PLAN_RANGE)
		return false;
	if (!plan->layer->index.info.by_toc)
		return true;
	bool apart = need->off + 1 >= range->end && need->end >= range->end;
	bool shared = need->off == last->off && need->end == last->end;
	return (apart || shared) && range->nneeds < CHUNK_ITEMS_MAX &&
	       range->decoded + need->len <= PLAN_DECODED;
}

static bool same_need(const struct need *a, const struct need *b)
{
	return a->off == b->off && a->end == b->end && a->chunk == b->chunk && a->ino == b->ino;
}

/* Leaves the first of equal needs. */
static void drop_doubles(struct layer_plan *plan)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < plan->nneeds; i++) {
		struct need *last = kept ? &plan->needs[kept - 1] : NULL;

		if (last && same_need(last, &plan->needs[i]))
			last->first = MIN(last->first, plan->needs[i].first);
		else
			plan->needs[kept++] = plan->needs[i];
	}
	plan->nneeds = kept;
}

static int plan_ranges(struct layer_plan *plan)
{
	if (plan->nneeds)
		qsort(plan->needs, plan->nneeds, sizeof(*plan->needs), by_place);
	drop_doubles(plan);
	plan->ranges = calloc(plan->nneeds + 1, sizeof(*plan->ranges));
	if (!plan->ranges)
		return -ENOMEM;
	for (uint32_t i = 0; i < plan->nneeds; i++) {
		const struct need *need = &plan->needs[i];
		struct plan_range *range = plan->nranges ? &plan->ranges[plan->nranges - 1] : NULL;

		if (!range || !range_takes(plan, range, need)) {
			range = &plan->ranges[plan->nranges++];
			*range = (struct plan_range){.off = need->off,
						     .end = need->end,
						     .first = need->first,
						     .need = i};
		}
		range->end = MAX(range->end, need->end);
		range->first = MIN(range->first, need->first);
		range->decoded += need->len;
		range->nneeds++;
	}
	qsort(plan->ranges, plan->nranges, sizeof(*plan->ranges), by_first);
	return 0;
}

int layer_plan(struct layer *layer, const struct layer_part *parts, size_t n,
	       struct layer_plan **ret)
{
	struct layer_plan *plan = calloc(1, sizeof(*plan));
	int r = plan ? 0 : -ENOMEM;

	if (!plan)
		return r;
	plan->layer = layer;
	for (size_t i = 0; r == 0 && i < n; i++)
		r = need_part(plan, &parts[i], i);
	if (r == 0 || r == -EFBIG)
		r = plan_ranges(plan);
	if (r == 0 && layer_broken(layer))
		r = -EIO;
	if (r < 0) {
		layer_plan_free(plan);
		return r;
	}
	*ret = plan;
	return 0;
}

size_t layer_plan_count(const struct layer_plan *plan)
{
	return plan->nranges;
}

size_t layer_plan_first(const struct layer_plan *plan, size_t n)
{
	return plan->ranges[n].first;
}

/* --- bringing in --- */

static ssize_t range_chunks(const struct layer_plan *plan, const struct plan_range *range,
			    struct wait *wait)
{
	struct layer *layer = plan->layer;
	AUTO_FREE struct chunk_item *items = calloc(range->nneeds, sizeof(*items));
	const struct index_inode stream = {.nchunks = layer->index.info.nchunks};

	if (!items)
		return -ENOMEM;
	for (uint32_t i = 0; i < range->nneeds; i++) {
		const struct need *need = &plan->needs[range->need + i];
		struct index_inode inode = stream;

		int r = need->ino == INDEX_NONE ? 0 : layer_file(layer, need->ino, &inode);
		if (r == 0)
			r = index_chunk(&layer->index, &inode, need->chunk, &items[i].chunk);
		if (r < 0)
			return r;
		items[i].nr = need->chunk;
		items[i].id = chunk_id(layer, &items[i].chunk);
	}
	return chunks_bring(layer, items, range->nneeds, wait);
}

ssize_t layer_plan_bring(const struct layer_plan *plan, size_t n, struct wait *wait)
{
	const struct plan_range *range = &plan->ranges[n];

	if (plan->layer->index.info.by_toc)
		return range_chunks(plan, range, wait);
	return layer_blob_bring(plan->layer, range->off, (size_t)(range->end - range->off), wait);
}

uint64_t layer_numbering(const struct layer *layer)
{
	const uint8_t *key = layer->index.info.by_toc ? layer->toc_key : layer->index_key;

	return hash64(INDEX_VERSION, key, DIGEST_KEY_LEN) | 1;
}
