// SPDX-License-Identifier: Apache-2.0
/*
 * layer_flight: chunks of files on their way from the blob to the cache and to those who wait.
 * Knows decoding and digests. Must not know who wants them, nor what is done when one is wrong.
 */
#include <errno.h>

#include "layer_chunks_priv.h"
#include "regfs/log.h"
#include "regfs/stats.h"

void chunk_flight_free(struct chunk_flight *flight)
{
	if (!flight)
		return;
	for (uint32_t i = 0; i < flight->count; i++)
		free(flight->items[i].data);
	free(flight->items);
	wait_release(&flight->wait);
	free(flight);
}

struct chunk_flight *chunk_flight_unref_locked(struct chunk_flight *flight)
{
	return flight && --flight->refs == 0 ? flight : NULL;
}

/* --- one chunk --- */

/* False if some of it is not kept. */
static bool keep(struct layer *layer, const struct chunk_item *item)
{
	bool kept = true;

	for (size_t off = 0; off < item->chunk.len; off += CACHE_BLOCK)
		kept &= cache_write(layer->layers->cache, &item->id, (uint32_t)(off / CACHE_BLOCK),
				    item->data + off, MIN(CACHE_BLOCK, item->chunk.len - off),
				    0) == 0;
	return kept;
}

/* At the point that the span of ITEM begins at. */
static int span_begin(const struct layer *layer, const uint8_t *in, const struct chunk_item *item,
		      struct decoder **ret)
{
	AUTO_FREE uint8_t *window = malloc(CODEC_WINDOW);
	struct codec_point point;
	int r = window ? index_point(&layer->index, item->nr, window, &point) : -ENOMEM;

	if (r < 0)
		return r;
	/* the stream's start has no point: the first span begins behind gzip's header */
	if (item->nr == 0)
		point = (struct codec_point){.in_off = item->chunk.in_off};
	if (layer->index.info.codec == CODEC_PLAIN)
		point.in_off = point.out_off;
	*ret = decoder_resume(layer->index.info.codec, &point, in[0]);
	if (!*ret)
		return -ENOMEM;
	size_t shared = point.bits ? 1 : 0;
	decoder_input(*ret, in + shared, item->chunk.in_len - shared, true);
	return 0;
}

static int chunk_begin(const struct layer *layer, const uint8_t *in, const struct chunk_item *item,
		       struct decoder **ret)
{
	*ret = decoder_new(layer->index.info.codec, NULL);
	if (!*ret)
		return -ENOMEM;
	decoder_input(*ret, in, item->chunk.in_len, true);
	return 0;
}

/* Decodes the chunk out of its bytes of the blob, IN. -EBADMSG: they do not hold it. */
static int item_decode(const struct layer *layer, const uint8_t *in, struct chunk_item *item)
{
	AUTO_DECODER struct decoder *decoder = NULL;
	const struct index_chunk *chunk = &item->chunk;
	/* what is before the chunk is decoded into its place, and overwritten */
	uint64_t end = (uint64_t)chunk->inner_off + chunk->len;
	uint64_t at = 0;

	int r = layer->index.info.by_spans ? span_begin(layer, in, item, &decoder)
					   : chunk_begin(layer, in, item, &decoder);
	if (r < 0)
		return r;
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
static int item_wrong(const struct chunk_flight *flight, const struct chunk_item *item,
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

/* BYTES are those that the item's digest is of, or not. */
static int item_check(const struct chunk_flight *flight, const uint8_t *bytes, size_t len,
		      const struct chunk_item *item, bool last)
{
	struct digest digest;

	digest_of(DIGEST_SHA256, bytes, len, &digest);
	if (memcmp(digest.bytes, item->chunk.digest, DIGEST_KEY_LEN) == 0)
		return 0;
	return last ? item_wrong(flight, item, &digest) : -EBADMSG;
}

/* 0, -EBADMSG (it is not what its digest says; logged if this is the LAST try), -ENOMEM. */
static int item_make(const struct chunk_flight *flight, const uint8_t *in, struct chunk_item *item,
		     bool last)
{
	bool spans = flight->layer->index.info.by_spans;

	if (!item->data)
		item->data = calloc(1, item->chunk.len);
	if (!item->data)
		return -ENOMEM;
	/* nothing of a span is decoded before its bytes are known to be right */
	int r = spans ? item_check(flight, in, item->chunk.in_len, item, last) : 0;
	if (r < 0)
		return r;
	r = item_decode(flight->layer, in, item);
	if (r < 0)
		return r == -EBADMSG && last ? item_wrong(flight, item, NULL) : r;
	stats_add(STAT_CHUNKS_DECODED, 1);
	return spans ? 0 : item_check(flight, item->data, item->chunk.len, item, last);
}

static int fetch_range(struct chunk_flight *flight, uint64_t off, uint8_t *buf, size_t len)
{
	ssize_t n = layer_blob_fetch(flight->layer, off, buf, len, &flight->wait);

	if (n < 0)
		return (int)n;
	return n == (ssize_t)len ? 0 : -EIO;
}

/* IN holds the chunk's bytes. A wrong one is asked for once more, elsewhere if there is such a
 * place: it may have been the way. */
static int item_bring(struct chunk_flight *flight, uint8_t *in, struct chunk_item *item)
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

/* The same for what nobody has asked for. 1: it is wrong, which is for those to find out who do. */
static int item_along(struct chunk_flight *flight, const uint8_t *in, struct chunk_item *item)
{
	int r = item_make(flight, in, item, false);

	return r == -EBADMSG ? 1 : r;
}

/* --- the job --- */

static void flight_publish(struct chunk_flight *flight)
{
	struct chunks *chunks = flight->layer->layers->chunks;

	pthread_mutex_lock(&chunks->lock);
	flight->ready++;
	wait_wake(&chunks->moved);
	pthread_mutex_unlock(&chunks->lock);
}

static int flight_bring(struct chunk_flight *flight)
{
	uint64_t begin = UINT64_MAX, end = 0;

	for (uint32_t i = 0; i < flight->count; i++) {
		const struct index_chunk *chunk = &flight->items[i].chunk;

		begin = MIN(begin, chunk->in_off);
		end = MAX(end, chunk->in_off + chunk->in_len);
	}
	AUTO_FREE uint8_t *in = malloc(end - begin);
	if (!in)
		return -ENOMEM;
	int r = fetch_range(flight, begin, in, end - begin);
	for (uint32_t i = 0; r == 0 && i < flight->count; i++) {
		struct chunk_item *item = &flight->items[i];

		uint8_t *bytes = in + (item->chunk.in_off - begin);

		r = i < flight->own ? item_bring(flight, bytes, item)
				    : item_along(flight, bytes, item);
		if (r != 0)
			break;
		flight->unkept |= !keep(flight->layer, item);
		flight_publish(flight);
	}
	return r;
}

void chunk_flight_end(struct chunk_flight *flight, int result)
{
	struct layer *layer = flight->layer;
	struct chunks *chunks = layer->layers->chunks;
	struct chunk_flight *old = NULL;

	pthread_mutex_lock(&chunks->lock);
	struct chunk_flight **link = &chunks->flights;
	while (*link != flight)
		link = &(*link)->next;
	*link = flight->next;
	atomic_fetch_add(&chunks->nended, 1);
	flight->ended = true;
	flight->result = result;
	if (flight->unkept) {
		old = chunk_flight_unref_locked(chunks->recent[chunks->next_recent]);
		chunks->recent[chunks->next_recent] = flight;
		chunks->next_recent = (chunks->next_recent + 1) % CHUNKS_RECENT;
		flight->refs++;
	}
	wait_wake(&chunks->moved);
	struct chunk_flight *gone = chunk_flight_unref_locked(flight);
	pthread_mutex_unlock(&chunks->lock);
	chunk_flight_free(old);
	chunk_flight_free(gone);
	layer_job_end(layer);
}

void chunk_flight_run(struct pool_work *work)
{
	struct chunk_flight *flight = CONTAINER_OF(work, struct chunk_flight, work);

	int r = flight_bring(flight);
	chunk_flight_end(flight, r);
}
