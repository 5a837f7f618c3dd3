// SPDX-License-Identifier: Apache-2.0
/*
 * layer_chunks: files of layers that have a table of contents, chunk by chunk.
 * Knows chunks, their digests and read-ahead. Must not know where the table came from, nor what is
 * done when a chunk is wrong.
 *
 * A decoded chunk is named by its length and the digest of its bytes: in the cache (CACHE_CHUNK, in
 * blocks), and here while it is on its way, so that all layers and readers share it. What brings
 * chunks in is a *flight*: a job of its own with its own wait, so that a reader that is called off
 * neither stops nor delays others. It fetches one range of the blob that holds some chunks of a
 * file, one after the other, and publishes each as soon as its digest was found right.
 *
 * Everything here is guarded by chunks->lock, but for what a flight has published.
 */
#include <endian.h>
#include <errno.h>

#include "layer_priv.h"
#include "regfs/log.h"
#include "regfs/stats.h"

#define RANGE_MAX   (4 * MIB)  /* of a blob, for one flight, unless a single chunk is larger */
#define DECODED_MAX (16 * MIB) /* likewise */
#define ITEMS_MAX   256
#define RUNS	    8 /* sequential readers told apart */
#define RECENT	    2 /* flights kept where the cache does not keep what they brought */

struct item {
	struct index_chunk chunk;
	uint8_t *data; /* constant once published */
};

struct flight {
	struct pool_work work;
	struct layer *layer; /* held by the job; afterwards only compared */
	struct wait wait;
	struct item *items;
	uint32_t count;
	bool unkept; /* the job's: the cache refused some */
	/* guarded by chunks->lock */
	unsigned refs; /* readers', the job's, recent's */
	uint32_t ready;
	bool ended;
	int result;
	struct flight *next;
};

/* A sequential reader: the chunk it will want next, and how far to read ahead for it. */
struct run {
	uint64_t serial; /* of the layer */
	uint32_t next;	 /* among all chunks of its index */
	uint64_t ahead;	 /* bytes of the blob */
};

struct chunks {
	pthread_mutex_t lock;
	struct flight *flights;
	struct wait_queue moved;
	struct flight *recent[RECENT];
	unsigned next_recent;
	struct run runs[RUNS];
	unsigned next_run;
};

/* What a reader wants of one chunk. */
struct want {
	const struct index_inode *inode;
	uint32_t nr; /* of the file's chunks */
	uint64_t to; /* in the file: where the whole request ends */
	struct index_chunk chunk;
	size_t off; /* in the chunk */
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

static void flight_free(struct flight *flight)
{
	if (!flight)
		return;
	for (uint32_t i = 0; i < flight->count; i++)
		free(flight->items[i].data);
	free(flight->items);
	wait_release(&flight->wait);
	free(flight);
}

void chunks_free(struct chunks *chunks)
{
	if (!chunks)
		return;
	for (size_t i = 0; i < RECENT; i++)
		flight_free(chunks->recent[i]);
	pthread_mutex_destroy(&chunks->lock);
	free(chunks);
}

void chunks_cancel_all(struct chunks *chunks)
{
	pthread_mutex_lock(&chunks->lock);
	for (struct flight *flight = chunks->flights; flight; flight = flight->next)
		wait_cancel(&flight->wait);
	pthread_mutex_unlock(&chunks->lock);
}

/* Lock held; gives what is to be freed without it. */
static struct flight *flight_unref_locked(struct flight *flight)
{
	return flight && --flight->refs == 0 ? flight : NULL;
}

static void flight_unref(struct chunks *chunks, struct flight *flight)
{
	pthread_mutex_lock(&chunks->lock);
	flight = flight_unref_locked(flight);
	pthread_mutex_unlock(&chunks->lock);
	flight_free(flight);
}

/* --- the cache --- */

/* The digest alone would not do: a table that gives it a wrong length would be shown a part of what
 * the digest is of, unchecked. */
static struct cache_id chunk_id(const struct index_chunk *chunk)
{
	struct cache_id id = {.kind = CACHE_CHUNK};
	uint8_t name[DIGEST_KEY_LEN + sizeof(uint32_t)];
	uint32_t len = htole32(chunk->len);
	struct digest digest;

	memcpy(name, chunk->digest, DIGEST_KEY_LEN);
	memcpy(name + DIGEST_KEY_LEN, &len, sizeof(len));
	digest_of(DIGEST_SHA256, name, sizeof(name), &digest);
	digest_key(&digest, id.key);
	return id;
}

/* True if the cache had all of WANT. */
static bool read_cached(struct layer *layer, const struct want *want)
{
	struct cache_id id = chunk_id(&want->chunk);
	size_t done = 0;

	while (done < want->len) {
		size_t at = want->off + done;
		size_t len = MIN(want->len - done, CACHE_BLOCK - at % CACHE_BLOCK);

		ssize_t n = cache_read(layer->layers->cache, &id, (uint32_t)(at / CACHE_BLOCK),
				       at % CACHE_BLOCK, want->buf + done, len, 0);
		if (n != (ssize_t)len)
			return false;
		done += len;
	}
	return true;
}

/* False if some of it is not kept. */
static bool keep(struct layer *layer, const struct item *item)
{
	struct cache_id id = chunk_id(&item->chunk);
	bool kept = true;

	for (size_t off = 0; off < item->chunk.len; off += CACHE_BLOCK)
		kept &= cache_write(layer->layers->cache, &id, (uint32_t)(off / CACHE_BLOCK),
				    item->data + off, MIN(CACHE_BLOCK, item->chunk.len - off),
				    0) == 0;
	return kept;
}

/* --- the job --- */

/* Decodes the chunk out of its LEN bytes of the blob. -EBADMSG: they do not hold it. */
static int item_decode(enum codec codec, const uint8_t *in, struct item *item)
{
	AUTO_DECODER struct decoder *decoder = decoder_new(codec, NULL);
	const struct index_chunk *chunk = &item->chunk;
	/* what is before the chunk is decoded into its place, and overwritten */
	uint64_t end = (uint64_t)chunk->inner_off + chunk->len;
	uint64_t at = 0;

	if (!decoder)
		return -ENOMEM;
	decoder_input(decoder, in, chunk->in_len, true);
	while (at < end) {
		bool before = at < chunk->inner_off;
		uint64_t room = before ? MIN(chunk->len, chunk->inner_off - at) : end - at;
		uint8_t *out = item->data + (before ? 0 : at - chunk->inner_off);

		ssize_t n = decoder_read(decoder, out, room);
		if (n <= 0)
			return n == -ENOMEM ? -ENOMEM : -EBADMSG;
		at += (uint64_t)n;
	}
	return 0;
}

/* DIGEST is what it is; NULL: nothing. */
static int item_wrong(const struct flight *flight, const struct item *item,
		      const struct digest *digest)
{
	char name[DIGEST_STR_MAX], want[DIGEST_STR_MAX], got[DIGEST_STR_MAX];
	struct digest right = {.algo = DIGEST_SHA256};

	memcpy(right.bytes, item->chunk.digest, sizeof(item->chunk.digest));
	layer_log_name(flight->layer, name);
	stats_add(STAT_DIGEST_MISMATCHES, 1);
	log_error("layer %s: the chunk at %llu should be %s and %s%s", name,
		  (unsigned long long)item->chunk.in_off, digest_format(&right, want),
		  digest ? "is " : "cannot be decoded", digest ? digest_format(digest, got) : "");
	return -EBADMSG;
}

/* 0, -EBADMSG (it is not what its digest says; logged if this is the LAST try), -ENOMEM. */
static int item_make(const struct flight *flight, const uint8_t *in, struct item *item, bool last)
{
	struct digest digest;

	if (!item->data)
		item->data = calloc(1, item->chunk.len);
	if (!item->data)
		return -ENOMEM;
	int r = item_decode(flight->layer->index.info.codec, in, item);
	if (r < 0)
		return r == -EBADMSG && last ? item_wrong(flight, item, NULL) : r;
	digest_of(DIGEST_SHA256, item->data, item->chunk.len, &digest);
	stats_add(STAT_CHUNKS_DECODED, 1);
	if (memcmp(digest.bytes, item->chunk.digest, DIGEST_KEY_LEN) == 0)
		return 0;
	return last ? item_wrong(flight, item, &digest) : -EBADMSG;
}

static int fetch_range(struct flight *flight, uint64_t off, uint8_t *buf, size_t len)
{
	ssize_t n = layer_blob_fetch(flight->layer, off, buf, len, &flight->wait);

	if (n < 0)
		return (int)n;
	return n == (ssize_t)len ? 0 : -EIO;
}

/* IN holds the chunk's bytes. A wrong one is asked for once more, elsewhere if there is such a
 * place: it may have been the way. */
static int item_bring(struct flight *flight, uint8_t *in, struct item *item)
{
	const struct layer *layer = flight->layer;
	const struct layer_source *source = &layer->sources[atomic_load(&layer->preferred)];
	int r = item_make(flight, in, item, false);

	if (r != -EBADMSG)
		return r;
	store_distrust(source->store, source->repo, &layer->digest);
	r = fetch_range(flight, item->chunk.in_off, in, item->chunk.in_len);
	return r < 0 ? r : item_make(flight, in, item, true);
}

static void flight_publish(struct flight *flight)
{
	struct chunks *chunks = flight->layer->layers->chunks;

	pthread_mutex_lock(&chunks->lock);
	flight->ready++;
	wait_wake(&chunks->moved);
	pthread_mutex_unlock(&chunks->lock);
}

static int flight_bring(struct flight *flight)
{
	const struct index_chunk *first = &flight->items[0].chunk;
	const struct index_chunk *last = &flight->items[flight->count - 1].chunk;
	size_t len = (size_t)(last->in_off + last->in_len - first->in_off);
	AUTO_FREE uint8_t *in = malloc(len);

	if (!in)
		return -ENOMEM;
	int r = fetch_range(flight, first->in_off, in, len);
	for (uint32_t i = 0; r == 0 && i < flight->count; i++) {
		struct item *item = &flight->items[i];

		r = item_bring(flight, in + (item->chunk.in_off - first->in_off), item);
		if (r < 0)
			break;
		flight->unkept |= !keep(flight->layer, item);
		flight_publish(flight);
	}
	return r;
}

static void flight_end(struct flight *flight, int result)
{
	struct layer *layer = flight->layer;
	struct chunks *chunks = layer->layers->chunks;
	struct flight *old = NULL;

	pthread_mutex_lock(&chunks->lock);
	struct flight **link = &chunks->flights;
	while (*link != flight)
		link = &(*link)->next;
	*link = flight->next;
	flight->ended = true;
	flight->result = result;
	if (flight->unkept) {
		old = flight_unref_locked(chunks->recent[chunks->next_recent]);
		chunks->recent[chunks->next_recent] = flight;
		chunks->next_recent = (chunks->next_recent + 1) % RECENT;
		flight->refs++;
	}
	wait_wake(&chunks->moved);
	struct flight *gone = flight_unref_locked(flight);
	pthread_mutex_unlock(&chunks->lock);
	flight_free(old);
	flight_free(gone);
	layer_job_end(layer);
}

static void flight_run(struct pool_work *work)
{
	struct flight *flight = CONTAINER_OF(work, struct flight, work);

	int r = flight_bring(flight);
	flight_end(flight, r);
}

/* --- which chunks a flight takes --- */

/* Bytes of the blob to read beyond what is wanted: where the reader goes on where another flight
 * ended, twice what that took. Lock held. */
static uint64_t read_ahead(struct chunks *chunks, uint64_t serial, uint32_t chunk)
{
	for (size_t i = 0; i < RUNS; i++)
		if (chunks->runs[i].serial == serial && chunks->runs[i].next == chunk)
			return MIN(2 * chunks->runs[i].ahead, RANGE_MAX);
	return 0;
}

/* Lock held. */
static void note_run(struct chunks *chunks, uint64_t serial, uint32_t chunk,
		     const struct flight *flight)
{
	const struct index_chunk *last = &flight->items[flight->count - 1].chunk;
	struct run *run = NULL;

	for (size_t i = 0; i < RUNS; i++)
		if (chunks->runs[i].serial == serial && chunks->runs[i].next == chunk)
			run = &chunks->runs[i];
	if (!run) {
		run = &chunks->runs[chunks->next_run];
		chunks->next_run = (chunks->next_run + 1) % RUNS;
	}
	run->serial = serial;
	run->next = chunk + flight->count;
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
	struct cache_id id = chunk_id(chunk);

	if (chunk->off < want->to)
		limit = RANGE_MAX;
	return chunk->in_len && chunk->in_off >= batch->in_end && end - batch->in_off <= limit &&
	       batch->decoded + chunk->len <= DECODED_MAX &&
	       !cache_has(layer->layers->cache, &id, 0);
}

/* The chunk wanted, and those after it that are taken with it. */
static int flight_fill(struct flight *flight, const struct want *want, uint64_t ahead)
{
	uint32_t most = MIN(want->inode->nchunks - want->nr, ITEMS_MAX);
	struct index_chunk chunk = want->chunk;
	struct batch batch = {
		.in_off = chunk.in_off,
		.ahead = chunk.in_len + ahead,
	};

	flight->items = calloc(most, sizeof(*flight->items));
	if (!flight->items)
		return -ENOMEM;
	while (flight->count < most) {
		flight->items[flight->count++].chunk = chunk;
		batch.in_end = chunk.in_off + chunk.in_len;
		batch.decoded += chunk.len;
		if (index_chunk(&flight->layer->index, want->inode, want->nr + flight->count,
				&chunk) < 0 ||
		    !batch_takes(flight->layer, &batch, want, &chunk))
			break;
	}
	return 0;
}

static struct flight *flight_new(struct layer *layer, const struct want *want, uint64_t ahead)
{
	struct flight *flight = calloc(1, sizeof(*flight));

	if (!flight)
		return NULL;
	wait_init(&flight->wait, true);
	flight->layer = layer;
	flight->work.run = flight_run;
	flight->refs = 2; /* the reader's and the job's */
	if (flight_fill(flight, want, ahead) < 0) {
		flight_free(flight);
		return NULL;
	}
	return flight;
}

/* --- who brings what --- */

static bool same_chunk(const struct index_chunk *a, const struct index_chunk *b)
{
	return a->len == b->len && memcmp(a->digest, b->digest, sizeof(a->digest)) == 0;
}

static bool flight_has(const struct flight *flight, const struct index_chunk *chunk,
		       uint32_t *ret_nr)
{
	for (uint32_t i = 0; i < flight->count; i++) {
		if (same_chunk(&flight->items[i].chunk, chunk)) {
			*ret_nr = i;
			return true;
		}
	}
	return false;
}

/* A flight under way or kept that has or will have CHUNK, held. Lock held. */
static struct flight *flight_find(struct chunks *chunks, const struct index_chunk *chunk,
				  uint32_t *ret_nr)
{
	struct flight *found = NULL;

	for (struct flight *flight = chunks->flights; flight && !found; flight = flight->next)
		if (flight_has(flight, chunk, ret_nr))
			found = flight;
	for (size_t i = 0; i < RECENT && !found; i++) {
		struct flight *flight = chunks->recent[i];
		if (flight && flight_has(flight, chunk, ret_nr) && *ret_nr < flight->ready)
			found = flight;
	}
	if (found)
		found->refs++;
	return found;
}

/* Leaves out of FRESH what is under way already, its first chunk not. Lock held. */
static void flight_trim(const struct chunks *chunks, struct flight *fresh)
{
	uint32_t unused;

	for (uint32_t i = 1; i < fresh->count; i++)
		for (const struct flight *other = chunks->flights; other; other = other->next)
			if (flight_has(other, &fresh->items[i].chunk, &unused))
				fresh->count = i;
}

/* Sets a flight off for WANT, or finds that somebody was faster. */
static int flight_start(struct layer *layer, const struct want *want, struct flight **ret,
			uint32_t *ret_nr)
{
	struct chunks *chunks = layer->layers->chunks;
	uint32_t chunk = want->inode->first_chunk + want->nr;

	int r = layer_job_begin(layer);
	if (r < 0)
		return r;
	pthread_mutex_lock(&chunks->lock);
	uint64_t ahead = read_ahead(chunks, layer->serial, chunk);
	pthread_mutex_unlock(&chunks->lock);
	struct flight *fresh = flight_new(layer, want, ahead);
	if (!fresh) {
		layer_job_end(layer);
		return -ENOMEM;
	}
	pthread_mutex_lock(&chunks->lock);
	struct flight *flight = flight_find(chunks, &want->chunk, ret_nr);
	bool ours = !flight;
	if (ours) {
		flight = STEAL(fresh);
		flight_trim(chunks, flight);
		flight->next = chunks->flights;
		chunks->flights = flight;
		note_run(chunks, layer->serial, chunk, flight);
		*ret_nr = 0;
	}
	pthread_mutex_unlock(&chunks->lock);
	if (!ours)
		layer_job_end(layer);
	else if (pool_submit(layer->layers->jobs, &flight->work) < 0)
		flight_end(flight, -ENOMEM);
	flight_free(fresh);
	*ret = flight;
	return 0;
}

/* Until item NR of FLIGHT is there: 0; 1: it failed at another layer's blob. */
static int flight_wait(const struct layer *layer, struct flight *flight, uint32_t nr,
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

/* One round: from a flight. 0, 1 to look again, or an error. */
static int read_flight(struct layer *layer, const struct want *want, struct wait *wait)
{
	struct chunks *chunks = layer->layers->chunks;
	uint32_t nr = 0;

	pthread_mutex_lock(&chunks->lock);
	struct flight *flight = flight_find(chunks, &want->chunk, &nr);
	pthread_mutex_unlock(&chunks->lock);
	if (!flight && !wait_may_block(wait))
		return -EWOULDBLOCK;
	int r = flight ? 0 : flight_start(layer, want, &flight, &nr);
	if (r < 0)
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
		r = read_cached(layer, want) ? 0 : read_flight(layer, want, wait);
	} while (r == 1);
	return r;
}

int chunks_read(struct layer *layer, const struct index_inode *inode, const struct file_read *read,
		struct wait *wait)
{
	struct want want = {
		.inode = inode,
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
