// SPDX-License-Identifier: Apache-2.0
/*
 * Which chunks of other files come along with one that is wanted: those that lie beside it in the
 * blob, of files of the same directory.
 * Knows the order of chunks and what the cache has. Must not know who waits, nor how anything is
 * fetched.
 *
 * They cost less than a request of their own, and files of a directory are wanted together. (Files
 * that only lie beside each other in the blob are not: of the bytes within 64 KiB of a file that a
 * program read, it read 48 % of those of the same directory, and 3 % of the others.) More of them
 * come where some are here already. A file of several chunks is a large one, whose readers get what
 * they go on to; it neither takes others along nor comes along.
 */
#include <sys/stat.h>

#include "layer_chunks_priv.h"

/* Bytes of the blob to each side of what is wanted; and where something of the directory, no
 * further than that, was wanted before. */
#define WINDOW	     (48 * KIB)
#define WINDOW_KNOWN (192 * KIB)
#define LARGE	     (64 * KIB)		  /* of the blob: a file that says nothing of others */
#define DECODED_MOST (4 * MIB)		  /* a chunk of zeros is a few bytes of the blob */
#define REACH	     (NEAR_ITEMS_MAX / 2) /* chunks to each side */
#define CHILDREN_MAX 16384		  /* of a directory that is looked through */

uint32_t near_dir(const struct layer *layer, const struct index_inode *inode, uint32_t ino)
{
	struct index_name name;

	if (ino == INDEX_NONE || inode->nchunks != 1 ||
	    index_name_of(&layer->index, ino, 0, &name) < 0)
		return INDEX_NONE;
	return name.dir;
}

/* What may come along. */
struct near {
	const uint8_t *is_of_dir; /* of the chunk REACH before the wanted one, and on */
	uint32_t wanted;	  /* the chunk */
	uint64_t from, to;	  /* in the blob */
	uint64_t decoded;	  /* bytes so far */
};

/* Which chunks around WANTED are of files of DIR. */
static void mark_dir(const struct index *index, uint32_t dir, uint32_t wanted,
		     uint8_t ret[static 2 * REACH + 1])
{
	struct index_inode inode;
	struct index_name name;

	if (index_inode(index, dir, &inode) < 0 || inode.nchildren > CHILDREN_MAX)
		return;
	for (uint32_t n = 0; n < inode.nchildren; n++) {
		struct index_inode child;

		if (index_child(index, dir, n, &name) < 0 ||
		    index_inode(index, name.ino, &child) < 0)
			return;
		int64_t at = (int64_t)child.first_chunk - wanted + REACH;
		if (S_ISREG(child.mode) && child.nchunks == 1 && at >= 0 && at <= 2 * REACH)
			ret[at] = 1;
	}
}

/* The chunk BY numbers from the wanted one, if it is of the directory and lies within .from and
 * .to.
 */
static bool get_near(const struct layer *layer, const struct near *near, int by,
		     struct chunk_item *ret)
{
	const struct index_inode all = {.nchunks = layer->index.info.nchunks};
	const struct index_chunk *chunk = &ret->chunk;

	ret->nr = near->wanted + (uint32_t)by;
	if (!near->is_of_dir[REACH + by] ||
	    index_chunk(&layer->index, &all, ret->nr, &ret->chunk) < 0)
		return false;
	ret->id = chunk_id(layer, chunk);
	return chunk->in_len && chunk->in_off >= near->from &&
	       chunk->in_off + chunk->in_len <= near->to;
}

static bool is_cached(const struct layer *layer, const struct chunk_item *item)
{
	return cache_has(layer->layers->cache, &item->id, 0);
}

/* Whether the next chunk that is here already, STEP by step from the wanted one, is a near one. */
static bool is_known(const struct layer *layer, const struct near *near, int step)
{
	struct chunk_item item = {0};

	for (int by = step; abs(by) <= REACH && get_near(layer, near, by, &item); by += step)
		if (is_cached(layer, &item))
			return true;
	return false;
}

/* Adds what may come along, STEP by step. */
static void add_neighbours(struct chunk_flight *flight, struct near *near, int step)
{
	struct chunk_item item = {0};

	for (int by = step; abs(by) <= REACH && get_near(flight->layer, near, by, &item);
	     by += step) {
		if (near->decoded + item.chunk.len > DECODED_MOST ||
		    is_cached(flight->layer, &item))
			return;
		near->decoded += item.chunk.len;
		flight->items[flight->count++] = item;
	}
}

/* The bytes of the blob to each side of CHUNK, as far as WINDOW. */
static void look_around(struct near *near, const struct index_chunk *chunk, uint64_t window)
{
	near->from = chunk->in_off > window ? chunk->in_off - window : 0;
	near->to = chunk->in_off + chunk->in_len + window;
}

void near_add(struct chunk_flight *flight, uint32_t wanted, uint32_t dir)
{
	uint8_t is_of_dir[2 * REACH + 1] = {0};
	const struct layer *layer = flight->layer;
	const struct index_chunk chunk = flight->items[0].chunk;
	struct near near = {.is_of_dir = is_of_dir, .wanted = wanted};

	flight->own = flight->forward = flight->count;
	if (dir == INDEX_NONE || chunk.in_len > LARGE)
		return;
	mark_dir(&layer->index, dir, wanted, is_of_dir);
	look_around(&near, &chunk, WINDOW_KNOWN);
	if (!is_known(layer, &near, 1) && !is_known(layer, &near, -1))
		look_around(&near, &chunk, WINDOW);
	add_neighbours(flight, &near, 1);
	flight->forward = flight->count;
	add_neighbours(flight, &near, -1);
}
