// SPDX-License-Identifier: Apache-2.0
/*
 * Which chunks of other files come along with one that is wanted: those that lie beside it in the
 * blob, of files of the same directory; and what follows it, where somebody goes from file to file.
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

/* A walk goes on where what was brought for it ends, but for headers and what is here already.
 * Before it is one, so many files have to follow each other; a program that starts seldom does
 * that. What it gets then doubles each time. */
#define WALK_GAP     (16 * KIB)
#define WALK_FILES   8
#define WALK_FIRST   (128 * KIB)
#define WALK_MOST    (1 * MIB)
#define WALK_DECODED (16 * MIB)

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

/* --- walks --- */

void near_step(const struct layer *layer, const struct index_inode *inode, uint32_t nr,
	       struct walk_step *ret)
{
	struct index_chunk first = {0}, last = {0}, chunk = {0};

	*ret = (struct walk_step){.first = nr == 0};
	/* spans are large, and of no file */
	if (layer->index.info.by_spans || index_chunk(&layer->index, inode, 0, &first) < 0 ||
	    index_chunk(&layer->index, inode, nr, &chunk) < 0 ||
	    index_chunk(&layer->index, inode, inode->nchunks - 1, &last) < 0)
		return;
	ret->serial = layer->serial + 1;
	ret->off = chunk.in_off;
	ret->file_off = first.in_off;
	ret->file_end = last.in_off + last.in_len;
}

/* Readers of a large file need not come in order: it is enough that the walk stands in it. */
static bool walk_has(const struct chunk_walk *walk, const struct walk_step *step)
{
	if (walk->serial != step->serial)
		return false;
	if (step->first)
		return step->off >= walk->end && step->off - walk->end <= WALK_GAP;
	return walk->end > step->file_off && walk->end <= step->file_end;
}

/* CHUNKS_WALKS: it belongs to none. */
static size_t find_walk(const struct chunks *chunks, const struct walk_step *step)
{
	size_t i = 0;

	while (i < CHUNKS_WALKS && !walk_has(&chunks->walks[i], step))
		i++;
	return i;
}

uint64_t near_walk_ahead(const struct chunks *chunks, const struct walk_step *step)
{
	size_t found = find_walk(chunks, step);

	return step->serial && found < CHUNKS_WALKS ? chunks->walks[found].ahead : 0;
}

void near_walk_note(struct chunks *chunks, const struct walk_step *step,
		    const struct chunk_flight *flight)
{
	const struct index_chunk *last =
		&flight->items[MIN(flight->forward, flight->count) - 1].chunk;
	size_t found = find_walk(chunks, step);
	struct chunk_walk *walk = &chunks->walks[found % CHUNKS_WALKS];

	if (!step->serial || (found == CHUNKS_WALKS && !step->first))
		return;
	if (found == CHUNKS_WALKS) {
		walk = &chunks->walks[chunks->next_walk];
		chunks->next_walk = (chunks->next_walk + 1) % CHUNKS_WALKS;
		*walk = (struct chunk_walk){.serial = step->serial};
	}
	walk->end = MAX(walk->end, last->in_off + last->in_len);
	if (step->first && ++walk->files >= WALK_FILES)
		walk->ahead = MIN(MAX(2 * walk->ahead, WALK_FIRST), WALK_MOST);
}

void near_walk_add(struct chunk_flight *flight, uint32_t next, uint64_t ahead)
{
	const struct layer *layer = flight->layer;
	const struct index_inode all = {.nchunks = layer->index.info.nchunks};
	struct index_chunk last = flight->items[flight->count - 1].chunk;
	uint64_t limit = flight->items[0].chunk.in_off + ahead, decoded = 0;
	struct chunk_item item = {.nr = next};

	flight->own = flight->count;
	/* no more are looked at than may come along: all the rest may be here already */
	for (; item.nr - next < NEAR_ITEMS_MAX &&
	       index_chunk(&layer->index, &all, item.nr, &item.chunk) == 0;
	     item.nr++) {
		const struct index_chunk *chunk = &item.chunk;
		uint64_t end = last.in_off + last.in_len;
		bool shared = chunk->in_off == last.in_off && chunk->in_len == last.in_len;

		item.id = chunk_id(layer, chunk);
		if (!chunk->in_len || is_cached(layer, &item))
			continue;
		if ((chunk->in_off < end && !shared) || chunk->in_off > end + WALK_GAP ||
		    chunk->in_off + chunk->in_len > limit || decoded + chunk->len > WALK_DECODED)
			break;
		decoded += chunk->len;
		flight->items[flight->count++] = item;
		last = *chunk;
	}
	flight->forward = flight->count;
}
