/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_spans: decoded bytes from resume points on, in a small memory cache that all layers share.
 * Two readers of one span cause one decoding.
 * Must not know files.
 */
#include <errno.h>

#include "regfs/log.h"
#include "regfs/stats.h"

#include "layer_priv.h"

#define SPANS_BYTES (16 * MIB)
#define SPAN_WHOLE  (4 * MIB) /* up to here a span is decoded whole */
#define SPAN_PIECE  (2 * MIB) /* of longer ones, pieces of that */
#define INPUT_MAX   (1 * MIB)

void spans_init(struct spans *spans)
{
	*spans = (struct spans){0};
	pthread_mutex_init(&spans->lock, NULL);
}

static void span_free(struct span *span)
{
	free(span->data);
	free(span);
}

void spans_release(struct spans *spans)
{
	while (spans->list) {
		struct span *span = spans->list;

		spans->list = span->next;
		span_free(span);
	}
	pthread_mutex_destroy(&spans->lock);
}

/* --- where a span lies --- */

struct place {
	uint32_t point, piece;
	uint64_t start;	  /* decoded offset of the piece */
	size_t len;	  /* of the piece */
	uint64_t in_end;  /* compressed offset where its span ends */
	uint64_t out_off; /* of the point */
};

static int find_place(const struct layer *layer, uint64_t off, struct place *ret)
{
	const struct index_info *info = &layer->index.info;
	uint64_t end = info->decoded_size, in_end = info->blob_size;
	uint32_t n = index_point_before(&layer->index, off);
	struct codec_point point, next;
	int r = index_point(&layer->index, n, NULL, &point);

	if (r < 0)
		return r;
	if (n + 1 < info->npoints) {
		r = index_point(&layer->index, n + 1, NULL, &next);
		if (r < 0)
			return r;
		end = next.out_off;
		in_end = next.in_off;
	}
	if (off < point.out_off || off >= end || end > info->decoded_size)
		return -EIO;
	*ret = (struct place){
		.point = n,
		.start = point.out_off,
		.len = end - point.out_off,
		.in_end = in_end,
		.out_off = point.out_off,
	};
	if (end - point.out_off > SPAN_WHOLE) {
		ret->piece = (off - point.out_off) / SPAN_PIECE;
		ret->start += (uint64_t)ret->piece * SPAN_PIECE;
		ret->len = MIN((uint64_t)SPAN_PIECE, end - ret->start);
	}
	return 0;
}

/* --- decoding --- */

/* The compressed bytes from a point on, verified. */
struct input {
	struct layer *layer;
	uint64_t off, end;
	uint8_t *buf;
	size_t cap;
};

static ssize_t input_next(struct input *input, struct wait *wait)
{
	const struct blob_id id = {
		.digest = &input->layer->digest,
		.size = input->layer->blob_size,
		.store = input->layer->store,
		.repo = input->layer->repo,
	};
	ssize_t n;

	/* a span's last block may end in the byte that the next point begins in */
	if (input->off >= input->end)
		input->end = MIN(input->off + CACHE_BLOCK, input->layer->blob_size);
	if (input->off >= input->end)
		return 0;
	n = blob_read(input->layer->layers->blobs, &id, input->off, input->buf,
		      MIN(input->cap, input->end - input->off), wait);
	if (n > 0)
		input->off += n;
	return n;
}

static int fail(const struct layer *layer, const char *why)
{
	char digest[DIGEST_STR_MAX];

	log_error("layer %s: its index does not fit it: %s", digest_format(&layer->digest, digest),
		  why);
	return -EIO;
}

/* Produces LEN bytes into OUT after SKIP bytes, which pass through OUT as well. */
static int decode(struct decoder *decoder, struct input *input, uint64_t skip, uint8_t *out,
		  size_t len, struct wait *wait)
{
	size_t done = 0;

	while (done < len) {
		size_t room = skip ? MIN(skip, (uint64_t)len) : len - done;
		ssize_t n = decoder_read(decoder, out + (skip ? 0 : done), room);

		if (n < 0)
			return n == -EINVAL ? fail(input->layer, decoder_error(decoder)) : (int)n;
		if (skip)
			skip -= n;
		else
			done += n;
		if (n > 0)
			continue;
		if (decoder_done(decoder))
			return fail(input->layer, "it ends early");
		n = input_next(input, wait);
		if (n < 0)
			return n;
		decoder_input(decoder, input->buf, n, n == 0);
	}
	return 0;
}

static int open_decoder(struct layer *layer, const struct place *place, struct input *input,
			struct wait *wait, struct decoder **ret)
{
	AUTO_FREE uint8_t *window = malloc(CODEC_WINDOW);
	struct codec_point point;
	uint8_t first = 0;
	int r;

	if (!window)
		return -ENOMEM;
	r = index_point(&layer->index, place->point, window, &point);
	if (r < 0)
		return r;
	input->off = point.in_off;
	if (point.bits) {
		ssize_t n;

		if (!point.in_off)
			return -EIO;
		/* the byte before, with what follows it: both mostly lie in one block */
		input->off--;
		n = input_next(input, wait);
		if (n <= 0)
			return n < 0 ? (int)n : -EIO;
		first = input->buf[0];
	}
	*ret = decoder_resume(layer->index.info.codec, &point, first);
	return *ret ? 0 : -ENOMEM;
}

static int decode_place(struct layer *layer, const struct place *place, uint8_t *out,
			struct wait *wait)
{
	struct input input = {.layer = layer, .end = place->in_end};
	AUTO_FREE uint8_t *buf = NULL;
	AUTO_DECODER struct decoder *decoder = NULL;
	uint64_t before;
	int r;

	input.cap = INPUT_MAX;
	buf = malloc(input.cap);
	if (!buf)
		return -ENOMEM;
	input.buf = buf;
	r = open_decoder(layer, place, &input, wait, &decoder);
	if (r < 0)
		return r;
	/* open_decoder() may have read some: all but the first byte belongs to the decoder */
	before = decoder_in_off(decoder);
	if (input.off > before)
		decoder_input(decoder, buf + 1, input.off - before, false);
	stats_add(STAT_SPANS_DECODED, 1);
	return decode(decoder, &input, place->start - place->out_off, out, place->len, wait);
}

/* --- the memory cache --- */

/* Lock held. Lets go of the least recently used ones that nobody uses. */
static void trim(struct spans *spans)
{
	while (spans->total_bytes > SPANS_BYTES) {
		struct span **last = NULL;

		for (struct span **at = &spans->list; *at; at = &(*at)->next)
			if (!(*at)->users)
				last = at;
		if (!last)
			return;
		struct span *gone = *last;

		*last = gone->next;
		spans->total_bytes -= gone->len;
		span_free(gone);
	}
}

/* Lock held. In use, and moved to the front, or NULL. */
static struct span *find(struct spans *spans, const struct layer *layer, const struct place *place)
{
	for (struct span **at = &spans->list; *at; at = &(*at)->next) {
		struct span *span = *at;

		if (span->layer != layer->number || span->point != place->point ||
		    span->piece != place->piece)
			continue;
		*at = span->next;
		span->next = spans->list;
		spans->list = span;
		span->users++;
		return span;
	}
	return NULL;
}

/* Lock held. */
static void unlist(struct spans *spans, struct span *span)
{
	for (struct span **at = &spans->list; *at; at = &(*at)->next) {
		if (*at == span) {
			*at = span->next;
			return;
		}
	}
}

static void put(struct spans *spans, struct span *span)
{
	pthread_mutex_lock(&spans->lock);
	span->users--;
	/* one that failed is off the list, and goes with its last user */
	if (!span->users && !span->data)
		span_free(span);
	else
		trim(spans);
	pthread_mutex_unlock(&spans->lock);
}

/* Decodes SPAN, which the caller just listed, and tells those who wait for it. */
static int fill(struct layer *layer, const struct place *place, struct span *span,
		struct wait *wait)
{
	struct spans *spans = &layer->layers->spans;
	uint8_t *data = malloc(place->len);
	int r = data ? decode_place(layer, place, data, wait) : -ENOMEM;

	pthread_mutex_lock(&spans->lock);
	if (r == 0) {
		span->data = STEAL(data);
		span->len = place->len;
		spans->total_bytes += span->len;
	} else {
		unlist(spans, span);
	}
	wait_wake(&span->waiters);
	pthread_mutex_unlock(&spans->lock);
	free(data);
	return r;
}

/* The span of PLACE, in use (put() it). */
static int get(struct layer *layer, const struct place *place, struct wait *wait, struct span **ret)
{
	struct spans *spans = &layer->layers->spans;

	for (;;) {
		struct span *span;
		bool mine = false;
		int r = 0;

		pthread_mutex_lock(&spans->lock);
		span = find(spans, layer, place);
		if (!span) {
			span = calloc(1, sizeof(*span));
			if (span) {
				*span = (struct span){
					.layer = layer->number,
					.point = place->point,
					.piece = place->piece,
					.users = 1,
					.next = spans->list,
				};
				spans->list = span;
				mine = true;
			}
		} else if (!span->data) {
			r = wait_on(wait, &span->waiters, &spans->lock, WAIT_FOREVER);
		}
		pthread_mutex_unlock(&spans->lock);
		if (!span)
			return -ENOMEM;
		if (mine)
			r = fill(layer, place, span, wait);
		if (r == 0 && span->data) {
			*ret = span;
			return 0;
		}
		put(spans, span);
		if (r < 0)
			return r;
		/* who decoded it was called off: it is our turn */
	}
}

/* --- */

ssize_t span_read(struct layer *layer, uint64_t off, void *buf, size_t len, struct wait *wait)
{
	struct place place;
	struct span *span;
	size_t n;
	int r = find_place(layer, off, &place);

	if (r == 0)
		r = get(layer, &place, wait, &span);
	if (r < 0)
		return r;
	n = MIN(len, (size_t)(place.start + place.len - off));
	memcpy(buf, span->data + (off - place.start), n);
	put(&layer->layers->spans, span);
	return n;
}
