// SPDX-License-Identifier: Apache-2.0
/*
 * The cursors that make decoded pieces (layer_pieces.c keeps them in memory).
 * Knows resume points and decoders. Must not know files.
 *
 * A *cursor* is a decoder that stands somewhere in a layer's stream. To get at a piece, the cursor
 * that stands nearest before it is moved on, or a new one is set up at the last resume point: so a
 * sequential reader decodes each byte once, a random one only from its point up to what it wants.
 *
 * A cursor is either idle (in the list, anybody may take it) or busy (one thread moves it; others
 * that want what it will come to wait for it: single flight). A thread that has to stop, because it
 * may not block or was called off, leaves the cursor as it stands, with the piece half made, and
 * the next one goes on.
 *
 * The list of cursors is guarded by spans->lock; a busy cursor's other fields belong to its thread.
 * Who finds a complete piece takes none of that.
 */
#include <errno.h>

#include "layer_priv.h"
#include "regfs/log.h"
#include "regfs/stats.h"

#define CURSORS_MAX 8	       /* idle ones */
#define IDLE_BYTES  (32 * MIB) /* of their decoders, beside the one used last */
#define QUICK_LEN   (2 * MIB)  /* decoded at most by a thread that may not block */
#define NO_POSITION UINT64_MAX
#define INPUT_SLACK (24 * KIB)

struct cursor {
	struct cursor *next;
	bool busy;
	uint64_t serial;
	uint64_t pos; /* where its next piece begins */
	/* its thread's */
	struct decoder *decoder;
	struct span_piece *part; /* the next piece, as far as it has come; NULL: nothing yet */
	uint64_t in_off;	 /* of the next input */
	uint64_t in_until;	 /* where the input will end that the reader makes it take */
	uint64_t whole_off;	 /* where the input of all of the reader's file lies, about */
	uint64_t whole_end;
	uint8_t in[CACHE_BLOCK];
};

struct spans {
	struct pieces *pieces;
	pthread_mutex_t lock;	/* of what follows */
	struct cursor *cursors; /* all, the last used first */
	struct wait_queue moved;
};

/* Where a piece lies. */
struct place {
	uint64_t base; /* its resume point */
	uint64_t off;
	size_t len;
	uint64_t to; /* where its reader goes on to; of no meaning before the piece's end */
	const struct stream_part *part; /* what it is read for */
};

struct spans *spans_new(void)
{
	struct spans *spans = calloc(1, sizeof(*spans));

	if (!spans)
		return NULL;
	spans->pieces = pieces_new();
	if (!spans->pieces) {
		free(spans);
		return NULL;
	}
	pthread_mutex_init(&spans->lock, NULL);
	return spans;
}

static void cursor_free(struct cursor *cursor)
{
	if (!cursor)
		return;
	decoder_free(cursor->decoder);
	span_piece_unref(cursor->part);
	free(cursor);
}

void spans_free(struct spans *spans)
{
	if (!spans)
		return;
	while (spans->cursors) {
		struct cursor *cursor = spans->cursors;

		spans->cursors = cursor->next;
		cursor_free(cursor);
	}
	pieces_free(spans->pieces);
	pthread_mutex_destroy(&spans->lock);
	free(spans);
}

static int place_of(const struct index *index, uint64_t off, struct place *ret)
{
	uint32_t n = index_point_before(index, off);
	uint64_t end = index->info.decoded_size;
	struct codec_point point, next;

	int r = index_point(index, n, NULL, &point);
	if (r == 0 && n + 1 < index->info.npoints) {
		r = index_point(index, n + 1, NULL, &next);
		end = next.out_off;
	}
	if (r < 0)
		return r;
	if (off < point.out_off || off >= end)
		return -EIO;
	ret->base = point.out_off;
	ret->off = off - (off - point.out_off) % LAYER_PIECE;
	ret->len = MIN(LAYER_PIECE, end - ret->off);
	return 0;
}

/* --- cursors --- */

/* Input up to the next boundary of the cache's blocks, which are checked as a whole anyway. */
static ssize_t cursor_input(struct layer *layer, struct cursor *cursor, struct wait *wait)
{
	const struct blob_piece piece = {
		.off = cursor->in_off,
		.buf = cursor->in,
		.len = CACHE_BLOCK - cursor->in_off % CACHE_BLOCK,
		.until = cursor->in_until,
		.whole_off = cursor->whole_off,
		.whole_end = cursor->whole_end,
	};

	ssize_t n = layer_blob_read(layer, &piece, wait);
	if (n < 0)
		return n;
	cursor->in_off += n;
	decoder_input(cursor->decoder, cursor->in, n, cursor->in_off >= layer->size);
	return n;
}

static int cursor_resume(struct layer *layer, struct cursor *cursor, struct wait *wait)
{
	const struct index *index = &layer->index;
	struct codec_point point;
	uint8_t first = 0;

	/* the window is only looked at now: the input buffer has room for it */
	int r = index_point(index, index_point_before(index, cursor->pos), cursor->in, &point);
	if (r < 0)
		return r;
	if (point.bits && point.in_off > 0) {
		const struct blob_piece piece = {
			.off = point.in_off - 1,
			.buf = &first,
			.len = 1,
			.until = cursor->in_until,
			.whole_off = cursor->whole_off,
			.whole_end = cursor->whole_end,
		};
		ssize_t n = layer_blob_read(layer, &piece, wait);
		if (n <= 0)
			return n < 0 ? n : -EIO;
	}
	cursor->decoder = decoder_resume(index->info.codec, &point, first);
	if (!cursor->decoder)
		return -ENOMEM;
	cursor->in_off = point.in_off;
	stats_add(STAT_SPANS_DECODED, 1);
	return 0;
}

/* The index and the blob are both verified: they can only disagree through a fault of ours. */
static int cursor_astray(const struct layer *layer, const struct cursor *cursor)
{
	char name[DIGEST_STR_MAX];

	layer_log_name(layer, name);
	log_error("layer %s: it does not decode at %llu as its index says", name,
		  (unsigned long long)(cursor->pos + cursor->part->len));
	return -EIO;
}

/* Decodes until the part is LEN long. */
static int cursor_decode(struct layer *layer, struct cursor *cursor, size_t len, struct wait *wait)
{
	struct span_piece *part = cursor->part;

	while (part->len < len) {
		ssize_t n = decoder_read(cursor->decoder, part->data + part->len, len - part->len);
		if (n == -ENOMEM)
			return n;
		if (n < 0 || (n == 0 && decoder_done(cursor->decoder)))
			return cursor_astray(layer, cursor);
		part->len += n;
		if (n == 0)
			n = cursor_input(layer, cursor, wait);
		if (n < 0)
			return n;
	}
	return 0;
}

/* Makes the cursor's next piece. Its place is in *RET; the piece is the cursor's part. */
static int cursor_make(struct layer *layer, struct cursor *cursor, struct wait *wait,
		       struct place *ret)
{
	int r = place_of(&layer->index, cursor->pos, ret);

	if (r == 0 && ret->off != cursor->pos)
		r = -EIO;
	if (r == 0 && wait_cancelled(wait))
		r = -EINTR;
	if (r == 0 && !cursor->decoder)
		r = cursor_resume(layer, cursor, wait);
	if (r == 0 && !cursor->part) {
		cursor->part = span_piece_new(layer->serial, cursor->pos);
		r = cursor->part ? 0 : -ENOMEM;
	}
	return r < 0 ? r : cursor_decode(layer, cursor, ret->len, wait);
}

static struct cache_id decoded_id(const struct layer *layer)
{
	struct cache_id id = {.kind = CACHE_DECODED};

	memcpy(id.key, layer->decoded_key, DIGEST_KEY_LEN);
	return id;
}

static bool is_kept(const struct place *place)
{
	return place->off - place->base >= LAYER_GAP && place->off / LAYER_PIECE < UINT32_MAX;
}

/* The cursor's part is done: everybody may have it, and the cursor stands behind it. */
static void cursor_publish(struct layer *layer, struct cursor *cursor, const struct place *place)
{
	struct spans *spans = layer->layers->spans;
	struct span_piece *piece = STEAL(cursor->part);

	if (is_kept(place)) {
		struct cache_id id = decoded_id(layer);
		cache_write(layer->layers->cache, &id, place->off / LAYER_PIECE, piece->data,
			    piece->len, 0);
	}
	pieces_add(spans->pieces, piece);
	pthread_mutex_lock(&spans->lock);
	cursor->pos = place->off + place->len;
	wait_wake(&spans->moved);
	pthread_mutex_unlock(&spans->lock);
}

uint64_t spans_input_until(const struct layer *layer, uint64_t out_off)
{
	const struct index *index = &layer->index;
	struct codec_point from, to = {.in_off = layer->size, .out_off = index->info.decoded_size};
	uint32_t n = index_point_before(index, out_off - 1);

	if (index_point(index, n, NULL, &from) < 0 ||
	    (n + 1 < index->info.npoints && index_point(index, n + 1, NULL, &to) < 0) ||
	    to.in_off <= from.in_off || to.out_off <= from.out_off)
		return 0;
	/* as if all of the span were packed as tightly, and a little more */
	double part = (double)(out_off - from.out_off) / (double)(to.out_off - from.out_off);
	uint64_t len = (uint64_t)(part * (double)(to.in_off - from.in_off)) + INPUT_SLACK;
	return MIN(from.in_off + len, to.in_off);
}

/* What input CURSOR will take for WANT and its reader. */
static void cursor_expect(const struct layer *layer, struct cursor *cursor,
			  const struct place *want)
{
	const struct stream_part *part = want->part;
	struct codec_point point;

	cursor->in_until = spans_input_until(layer, MAX(want->to, want->off + want->len));
	cursor->whole_off = cursor->whole_end = 0;
	if (part->file_off >= part->file_end ||
	    index_point(&layer->index, index_point_before(&layer->index, part->file_off), NULL,
			&point) < 0)
		return;
	cursor->whole_off = point.in_off;
	cursor->whole_end = spans_input_until(layer, part->file_end);
}

bool spans_has(struct layer *layer, uint64_t off)
{
	struct span_piece *piece = pieces_find(layer->layers->spans->pieces, layer->serial, off);

	span_piece_unref(piece);
	return piece;
}

uint64_t spans_end(const struct layer *layer, uint64_t off)
{
	const struct index *index = &layer->index;
	uint32_t n = index_point_before(index, off);
	struct codec_point next;

	if (n + 1 >= index->info.npoints || index_point(index, n + 1, NULL, &next) < 0 ||
	    next.out_off <= off)
		return index->info.decoded_size;
	return next.out_off;
}

/* Moves a busy cursor until it has made the piece at WANT. */
static int cursor_move(struct layer *layer, struct cursor *cursor, const struct place *want,
		       struct wait *wait)
{
	cursor_expect(layer, cursor, want);
	while (cursor->pos <= want->off) {
		struct place place;

		int r = cursor_make(layer, cursor, wait, &place);
		if (r < 0)
			return r;
		cursor_publish(layer, cursor, &place);
	}
	return 0;
}

/* --- who moves which cursor --- */

/* Whether moving CURSOR is better than resuming at WANT's point. Lock held. */
static bool cursor_leads_to(const struct cursor *cursor, uint64_t serial, const struct place *want)
{
	return cursor->serial == serial && cursor->pos >= want->base && cursor->pos <= want->off;
}

/* The cursor that stands nearest before WANT, busy or not. Lock held. */
static struct cursor *cursor_find(struct spans *spans, uint64_t serial, const struct place *want)
{
	struct cursor *best = NULL;

	for (struct cursor *cursor = spans->cursors; cursor; cursor = cursor->next)
		if (cursor_leads_to(cursor, serial, want) && (!best || cursor->pos > best->pos))
			best = cursor;
	return best;
}

/* Lock held. */
static void cursor_to_front(struct spans *spans, struct cursor *cursor)
{
	struct cursor **link = &spans->cursors;

	while (*link && *link != cursor)
		link = &(*link)->next;
	if (*link)
		*link = cursor->next;
	cursor->next = spans->cursors;
	spans->cursors = cursor;
}

/* The idle cursors that are too many or too large together, or lead nowhere, out of the list. Lock
 * held. */
static struct cursor *cursors_trim(struct spans *spans)
{
	struct cursor **link = &spans->cursors, *gone = NULL;
	unsigned idle = 0;
	size_t bytes = 0;

	while (*link) {
		struct cursor *cursor = *link;
		bool keep = cursor->busy;

		if (!keep && cursor->pos != NO_POSITION) {
			bytes += idle && cursor->decoder ? decoder_memory(cursor->decoder) : 0;
			keep = ++idle <= CURSORS_MAX && bytes <= IDLE_BYTES;
		}
		if (keep) {
			link = &cursor->next;
			continue;
		}
		*link = cursor->next;
		cursor->next = gone;
		gone = cursor;
	}
	return gone;
}

/* A cursor that failed in earnest is of no use to anybody: it leads nowhere. */
static bool is_passing(int error)
{
	return error == 0 || error == -EWOULDBLOCK || error == -EINTR;
}

static void cursor_let_go(struct spans *spans, struct cursor *cursor, int result)
{
	pthread_mutex_lock(&spans->lock);
	cursor->busy = false;
	if (!is_passing(result))
		cursor->pos = NO_POSITION;
	struct cursor *gone = cursors_trim(spans);
	wait_wake(&spans->moved);
	pthread_mutex_unlock(&spans->lock);
	while (gone) {
		struct cursor *next = gone->next;

		cursor_free(gone);
		gone = next;
	}
}

/* Makes an idle cursor busy; a fresh one (FRESH) where none leads to WANT. Lock held. 0 and *RET;
 * 1: the one that does is busy; -ENOENT: it takes a fresh one. */
static int cursor_take(struct spans *spans, const struct layer *layer, const struct place *want,
		       struct cursor **fresh, struct cursor **ret)
{
	struct cursor *cursor = cursor_find(spans, layer->serial, want);

	if (cursor && cursor->busy)
		return 1;
	if (!cursor) {
		if (!*fresh)
			return -ENOENT;
		cursor = STEAL(*fresh);
		cursor->serial = layer->serial;
		cursor->pos = want->base;
	}
	cursor->busy = true;
	cursor_to_front(spans, cursor);
	*ret = cursor;
	return 0;
}

/* 1: *RET is busy, and ours. 0: one that was busy has moved. */
static int cursor_get(struct layer *layer, const struct place *want, struct wait *wait,
		      struct cursor **ret)
{
	struct spans *spans = layer->layers->spans;
	struct cursor *fresh = NULL;

	for (;;) {
		pthread_mutex_lock(&spans->lock);
		int r = cursor_take(spans, layer, want, &fresh, ret);
		if (r == 1)
			r = wait_on(wait, &spans->moved, &spans->lock, WAIT_FOREVER);
		else if (r == 0)
			r = 1;
		pthread_mutex_unlock(&spans->lock);
		if (r != -ENOENT) {
			free(fresh);
			return r;
		}
		fresh = calloc(1, sizeof(*fresh));
		if (!fresh)
			return -ENOMEM;
	}
}

/* One round: moves a cursor to WANT or waits for somebody who does. 0: look again. */
static int pieces_advance(struct layer *layer, const struct place *want, struct wait *wait)
{
	struct cursor *cursor = NULL;

	int r = cursor_get(layer, want, wait, &cursor);
	if (r <= 0)
		return r;
	if (!wait_may_block(wait) && want->off - cursor->pos > QUICK_LEN)
		r = -EWOULDBLOCK;
	else
		r = cursor_move(layer, cursor, want, wait);
	cursor_let_go(layer->layers->spans, cursor, r);
	return r;
}

/* From what was kept of the decoded output. */
static struct span_piece *piece_kept(struct layer *layer, const struct place *want)
{
	struct cache_id id = decoded_id(layer);
	struct span_piece *piece = span_piece_new(layer->serial, want->off);

	if (!piece)
		return NULL;
	ssize_t n = cache_read(layer->layers->cache, &id, want->off / LAYER_PIECE, 0, piece->data,
			       want->len, 0);
	if (n != (ssize_t)want->len) {
		span_piece_unref(piece);
		return NULL;
	}
	piece->len = want->len;
	atomic_fetch_add(&piece->refs, 1);
	pieces_add(layer->layers->spans->pieces, piece);
	return piece;
}

static struct span_piece *piece_find(struct layer *layer, const struct place *want)
{
	struct span_piece *piece = pieces_find(layer->layers->spans->pieces, layer->serial,
					       want->off);
	if (!piece && is_kept(want))
		piece = piece_kept(layer, want);
	return piece;
}

static int piece_get(struct layer *layer, const struct place *want, struct wait *wait,
		     struct span_piece **ret)
{
	for (;;) {
		struct span_piece *piece = piece_find(layer, want);
		if (piece) {
			*ret = piece;
			return 0;
		}
		int r = pieces_advance(layer, want, wait);
		if (r < 0)
			return r;
	}
}

int spans_read(struct layer *layer, const struct stream_part *part, struct wait *wait)
{
	uint64_t off = part->off;
	uint8_t *out = part->buf;
	size_t len = part->len;

	while (len > 0) {
		struct span_piece *piece = NULL;
		struct place want = {.part = part};

		int r = place_of(&layer->index, off, &want);
		want.to = off + len;
		if (r == 0)
			r = piece_get(layer, &want, wait, &piece);
		if (r < 0)
			return r;
		size_t n = MIN(len, want.off + want.len - off);
		if (out) {
			memcpy(out, piece->data + (off - want.off), n);
			out += n;
		}
		span_piece_unref(piece);
		off += n;
		len -= n;
	}
	return 0;
}
