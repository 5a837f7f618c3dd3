// SPDX-License-Identifier: Apache-2.0
/*
 * layer_chunks: files of layers that have a table of contents, chunk by chunk.
 * Knows the cache, read-ahead and who waits for what. Must not know decoding (layer_flight.c),
 * where the table came from, nor what is done when a chunk is wrong.
 */
#include <endian.h>
#include <errno.h>

#include "layer_chunks_priv.h"

#define RANGE_MAX   (4 * MIB)  /* of a blob, for one flight, unless a single chunk is larger */
#define DECODED_MAX (16 * MIB) /* likewise */

/* What a reader wants of one chunk. */
struct want {
	const struct index_inode *inode;
	uint32_t dir; /* whose other files may come along; or INDEX_NONE */
	uint32_t nr;  /* of the file's chunks */
	uint64_t to;  /* in the file: where the whole request ends */
	struct index_chunk chunk;
	struct cache_id id; /* the chunk's */
	size_t off;	    /* in the chunk */
	uint8_t *buf;
	size_t len;
};

/* --- the room's part --- */

struct chunks *chunks_new(void)
{
	struct chunks *chunks = calloc(1, sizeof(*chunks));

	if (chunks)
		pthread_mutex_init(&chunks->lock, NULL);
	return chunks;
}

void chunks_free(struct chunks *chunks)
{
	if (!chunks)
		return;
	for (size_t i = 0; i < CHUNKS_RECENT; i++)
		chunk_flight_free(chunks->recent[i]);
	pthread_mutex_destroy(&chunks->lock);
	free(chunks);
}

void chunks_cancel_all(struct chunks *chunks)
{
	pthread_mutex_lock(&chunks->lock);
	for (struct chunk_flight *flight = chunks->flights; flight; flight = flight->next)
		wait_cancel(&flight->wait);
	pthread_mutex_unlock(&chunks->lock);
}

static void flight_unref(struct chunks *chunks, struct chunk_flight *flight)
{
	pthread_mutex_lock(&chunks->lock);
	flight = chunk_flight_unref_locked(flight);
	pthread_mutex_unlock(&chunks->lock);
	chunk_flight_free(flight);
}

/* --- the cache --- */

/* The digest alone would not do: a table that gives it a wrong length would be shown a part of what
 * the digest is of, unchecked. */
struct cache_id chunk_id(const struct layer *layer, const struct index_chunk *chunk)
{
	struct cache_id id = {.kind = CACHE_CHUNK};
	struct {
		uint8_t digest[DIGEST_KEY_LEN];
		uint32_t len;
		uint8_t table[DIGEST_KEY_LEN], off[sizeof(uint64_t)]; /* of a span */
	} name = {.len = htole32(chunk->len)};
	size_t len = offsetof(typeof(name), table);
	struct digest digest;

	memcpy(name.digest, chunk->digest, DIGEST_KEY_LEN);
	if (layer->index.info.by_spans) {
		uint64_t off = htole64(chunk->off);

		memcpy(name.table, layer->toc_key, DIGEST_KEY_LEN);
		memcpy(name.off, &off, sizeof(off));
		len = sizeof(name);
	}
	digest_of(DIGEST_SHA256, &name, len, &digest);
	digest_key(&digest, id.key);
	return id;
}

/* True if the cache had all of WANT. */
static bool read_cached(struct layer *layer, const struct want *want)
{
	size_t done = 0;

	while (done < want->len) {
		size_t at = want->off + done;
		size_t len = MIN(want->len - done, CACHE_BLOCK - at % CACHE_BLOCK);

		ssize_t n = cache_read(layer->layers->cache, &want->id,
				       (uint32_t)(at / CACHE_BLOCK), at % CACHE_BLOCK,
				       want->buf + done, len, 0);
		if (n != (ssize_t)len)
			return false;
		done += len;
	}
	return true;
}

/* --- which chunks a flight takes --- */

/* Bytes of the blob to read beyond what is wanted: where the reader goes on where another flight
 * ended, twice what that took. Lock held. */
static uint64_t read_ahead(struct chunks *chunks, uint64_t serial, uint32_t chunk)
{
	for (size_t i = 0; i < CHUNKS_RUNS; i++)
		if (chunks->runs[i].serial == serial && chunks->runs[i].next == chunk)
			return MIN(2 * chunks->runs[i].ahead, RANGE_MAX);
	return 0;
}

/* Lock held. */
static void note_run(struct chunks *chunks, uint64_t serial, uint32_t chunk,
		     const struct chunk_flight *flight)
{
	uint32_t count = MIN(flight->forward, flight->count);
	const struct index_chunk *last = &flight->items[count - 1].chunk;
	struct chunk_run *run = NULL;

	for (size_t i = 0; i < CHUNKS_RUNS; i++)
		if (chunks->runs[i].serial == serial && chunks->runs[i].next == chunk)
			run = &chunks->runs[i];
	if (!run) {
		run = &chunks->runs[chunks->next_run];
		chunks->next_run = (chunks->next_run + 1) % CHUNKS_RUNS;
	}
	run->serial = serial;
	run->next = chunk + count;
	run->ahead = last->in_off + last->in_len - flight->items[0].chunk.in_off;
}

struct batch {
	uint64_t in_off, in_end; /* in the blob */
	uint64_t decoded;
	uint64_t ahead;
};

/* Whether CHUNK, which follows the last one, is worth having in the same range. */
static bool batch_takes(struct layer *layer, const struct batch *batch, const struct want *want,
			const struct index_chunk *chunk)
{
	uint64_t end = chunk->in_off + chunk->in_len;
	uint64_t limit = MIN(RANGE_MAX, batch->ahead);
	struct cache_id id = chunk_id(layer, chunk);

	if (chunk->off < want->to)
		limit = RANGE_MAX;
	/* spans of gzip share a byte */
	return chunk->in_len && chunk->in_off + 1 >= batch->in_end &&
	       end - batch->in_off <= limit && batch->decoded + chunk->len <= DECODED_MAX &&
	       !cache_has(layer->layers->cache, &id, 0);
}

/* How far a reader is expected to go on, in bytes of the blob: in the file, and from file to file.
 */
struct outlook {
	uint64_t run, walk;
};

/* The chunk wanted, and those that are taken with it. */
static int flight_fill(struct chunk_flight *flight, const struct want *want,
		       const struct outlook *outlook)
{
	uint32_t most = MIN(want->inode->nchunks - want->nr, CHUNK_ITEMS_MAX);
	struct index_chunk chunk = want->chunk;
	struct batch batch = {
		.in_off = chunk.in_off,
		.ahead = chunk.in_len + MAX(outlook->run, outlook->walk),
	};

	flight->items = calloc(most + NEAR_ITEMS_MAX, sizeof(*flight->items));
	if (!flight->items)
		return -ENOMEM;
	while (flight->count < most) {
		flight->items[flight->count] = (struct chunk_item){
			.chunk = chunk,
			.nr = want->nr + flight->count,
			.id = chunk_id(flight->layer, &chunk),
		};
		flight->count++;
		batch.in_end = chunk.in_off + chunk.in_len;
		batch.decoded += chunk.len;
		if (index_chunk(&flight->layer->index, want->inode, want->nr + flight->count,
				&chunk) < 0 ||
		    !batch_takes(flight->layer, &batch, want, &chunk))
			break;
	}
	if (outlook->walk && want->nr + flight->count == want->inode->nchunks)
		near_walk_add(flight, want->inode->first_chunk + want->inode->nchunks,
			      outlook->walk);
	else
		near_add(flight, want->inode->first_chunk + want->nr, want->dir);
	return 0;
}

static struct chunk_flight *flight_new(struct layer *layer, const struct want *want,
				       const struct outlook *outlook)
{
	struct chunk_flight *flight = calloc(1, sizeof(*flight));

	if (!flight)
		return NULL;
	wait_init(&flight->wait, true);
	flight->layer = layer;
	flight->work.run = chunk_flight_run;
	flight->refs = 2; /* the reader's and the job's */
	if (flight_fill(flight, want, outlook) < 0) {
		chunk_flight_free(flight);
		return NULL;
	}
	return flight;
}

/* --- who brings what --- */

static bool flight_has(const struct chunk_flight *flight, const struct cache_id *id,
		       uint32_t *ret_nr)
{
	for (uint32_t i = 0; i < flight->count; i++) {
		if (memcmp(flight->items[i].id.key, id->key, sizeof(id->key)) == 0) {
			*ret_nr = i;
			return true;
		}
	}
	return false;
}

/* A flight under way or kept that has or will have chunk ID, held. Lock held. */
static struct chunk_flight *flight_find(struct chunks *chunks, const struct cache_id *id,
					uint32_t *ret_nr)
{
	struct chunk_flight *found = NULL;

	for (struct chunk_flight *flight = chunks->flights; flight && !found; flight = flight->next)
		if (flight_has(flight, id, ret_nr))
			found = flight;
	for (size_t i = 0; i < CHUNKS_RECENT && !found; i++) {
		struct chunk_flight *flight = chunks->recent[i];
		if (flight && flight_has(flight, id, ret_nr) && *ret_nr < flight->ready)
			found = flight;
	}
	if (found)
		found->refs++;
	return found;
}

/* Leaves out of FRESH what is under way already, its first chunk not. Lock held. */
static void flight_trim(const struct chunks *chunks, struct chunk_flight *fresh)
{
	uint32_t unused;

	for (uint32_t i = 1; i < fresh->count; i++)
		for (const struct chunk_flight *other = chunks->flights; other; other = other->next)
			if (flight_has(other, &fresh->items[i].id, &unused))
				fresh->count = i;
}

/* Sets a flight off for WANT, or finds that somebody was faster. 1: one has ended since NENDED was
 * read, and may have brought it. */
static int flight_start(struct layer *layer, const struct want *want, uint64_t nended,
			struct chunk_flight **ret, uint32_t *ret_nr)
{
	struct chunks *chunks = layer->layers->chunks;
	uint32_t chunk = want->inode->first_chunk + want->nr;
	struct walk_step step;

	near_step(layer, want->inode, want->nr, &step);
	int r = layer_job_begin(layer);
	if (r < 0)
		return r;
	pthread_mutex_lock(&chunks->lock);
	const struct outlook outlook = {
		.run = read_ahead(chunks, layer->serial, chunk),
		.walk = near_walk_ahead(chunks, &step),
	};
	pthread_mutex_unlock(&chunks->lock);
	struct chunk_flight *fresh = flight_new(layer, want, &outlook);
	if (!fresh) {
		layer_job_end(layer);
		return -ENOMEM;
	}
	pthread_mutex_lock(&chunks->lock);
	struct chunk_flight *flight = flight_find(chunks, &want->id, ret_nr);
	bool again = !flight && atomic_load(&chunks->nended) != nended;
	bool ours = !flight && !again;
	if (ours) {
		flight = STEAL(fresh);
		flight_trim(chunks, flight);
		flight->next = chunks->flights;
		chunks->flights = flight;
		note_run(chunks, layer->serial, chunk, flight);
		near_walk_note(chunks, &step, flight);
		*ret_nr = 0;
	}
	pthread_mutex_unlock(&chunks->lock);
	if (!ours)
		layer_job_end(layer);
	else if (pool_submit(layer->layers->jobs, &flight->work) < 0)
		chunk_flight_end(flight, -ENOMEM);
	chunk_flight_free(fresh);
	if (!again)
		*ret = flight;
	return again;
}

/* Until item NR of FLIGHT is there: 0; 1: it failed at another layer's blob. */
static int flight_wait(const struct layer *layer, struct chunk_flight *flight, uint32_t nr,
		       struct wait *wait)
{
	struct chunks *chunks = layer->layers->chunks;
	int r = 0;

	pthread_mutex_lock(&chunks->lock);
	while (r == 0 && flight->ready <= nr) {
		if (!flight->ended)
			r = wait_on(wait, &chunks->moved, &chunks->lock, WAIT_FOREVER);
		else
			r = flight->layer == layer ? flight->result : 1;
	}
	pthread_mutex_unlock(&chunks->lock);
	return r;
}

/* One round: from a flight, as the cache did not have it after NENDED was read. 0, 1 to look again,
 * or an error. */
static int read_flight(struct layer *layer, const struct want *want, uint64_t nended,
		       struct wait *wait)
{
	struct chunks *chunks = layer->layers->chunks;
	uint32_t nr = 0;

	pthread_mutex_lock(&chunks->lock);
	struct chunk_flight *flight = flight_find(chunks, &want->id, &nr);
	pthread_mutex_unlock(&chunks->lock);
	if (!flight && !wait_may_block(wait))
		return -EWOULDBLOCK;
	int r = flight ? 0 : flight_start(layer, want, nended, &flight, &nr);
	if (r != 0)
		return r;
	r = flight_wait(layer, flight, nr, wait);
	if (r == 0)
		memcpy(want->buf, flight->items[nr].data + want->off, want->len);
	flight_unref(chunks, flight);
	return r;
}

static int read_want(struct layer *layer, const struct want *want, struct wait *wait)
{
	int r;

	if (want->chunk.in_len == 0) {
		memset(want->buf, 0, want->len);
		return 0;
	}
	do {
		uint64_t nended = atomic_load(&layer->layers->chunks->nended);

		r = read_cached(layer, want) ? 0 : read_flight(layer, want, nended, wait);
	} while (r == 1);
	return r;
}

int chunks_read(struct layer *layer, uint32_t ino, const struct index_inode *inode,
		const struct file_read *read, struct wait *wait)
{
	struct want want = {
		.inode = inode,
		.dir = near_dir(layer, inode, ino),
		.nr = index_chunk_at(&layer->index, inode, read->off),
		.to = read->off + read->len,
	};
	size_t done = 0;

	for (; done < read->len; want.nr++) {
		uint64_t at = read->off + done;

		int r = index_chunk(&layer->index, inode, want.nr, &want.chunk);
		if (r < 0 || at < want.chunk.off || at - want.chunk.off >= want.chunk.len ||
		    (want.chunk.in_len && want.chunk.len > TOC_CHUNK_MAX))
			return -EIO;
		want.id = chunk_id(layer, &want.chunk);
		want.off = at - want.chunk.off;
		want.buf = read->buf + done;
		want.len = MIN(read->len - done, want.chunk.len - want.off);
		r = read_want(layer, &want, wait);
		if (r < 0)
			return r;
		done += want.len;
	}
	return 0;
}

/* --- bringing in --- */

/* Leaves the items that nobody else brings. Lock held. */
static void flight_leave_out(const struct chunks *chunks, struct chunk_flight *fresh)
{
	uint32_t kept = 0, unused;

	for (uint32_t i = 0; i < fresh->count; i++) {
		bool under_way = false;

		for (const struct chunk_flight *other = chunks->flights; other && !under_way;
		     other = other->next)
			under_way = flight_has(other, &fresh->items[i].id, &unused);
		if (!under_way)
			fresh->items[kept++] = fresh->items[i];
	}
	fresh->count = kept;
}

static struct chunk_flight *flight_of(struct layer *layer, const struct chunk_item *items,
				      uint32_t count)
{
	struct chunk_flight *flight = calloc(1, sizeof(*flight));

	if (!flight)
		return NULL;
	wait_init(&flight->wait, true);
	flight->layer = layer;
	flight->work.run = chunk_flight_run;
	flight->refs = 2; /* the caller's and the job's */
	flight->items = calloc(count, sizeof(*items));
	if (!flight->items) {
		chunk_flight_free(flight);
		return NULL;
	}
	for (uint32_t i = 0; i < count; i++)
		if (!cache_has(layer->layers->cache, &items[i].id, 0))
			flight->items[flight->count++] = items[i];
	flight->own = flight->count;
	return flight;
}

ssize_t chunks_bring(struct layer *layer, const struct chunk_item *items, uint32_t count,
		     struct wait *wait)
{
	struct chunks *chunks = layer->layers->chunks;
	int r = layer_job_begin(layer);

	if (r < 0)
		return r;
	struct chunk_flight *flight = flight_of(layer, items, count);
	if (!flight) {
		layer_job_end(layer);
		return -ENOMEM;
	}
	pthread_mutex_lock(&chunks->lock);
	flight_leave_out(chunks, flight);
	count = flight->count;
	if (count) {
		flight->next = chunks->flights;
		chunks->flights = flight;
	}
	pthread_mutex_unlock(&chunks->lock);
	if (!count) {
		chunk_flight_free(flight);
		layer_job_end(layer);
		return 0;
	}
	if (pool_submit(layer->layers->jobs, &flight->work) < 0)
		chunk_flight_end(flight, -ENOMEM);
	r = flight_wait(layer, flight, count - 1, wait);
	const struct index_chunk *first = &flight->items[0].chunk;
	const struct index_chunk *last = &flight->items[count - 1].chunk;
	ssize_t bytes = (ssize_t)(last->in_off + last->in_len - first->in_off);
	flight_unref(chunks, flight);
	return r < 0 ? r : bytes;
}
