/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec_gzip: gzip streams (RFC 1952, RFC 1951), decoded by ISA-L, with resume points.
 * Knows ISA-L's inflate. Must not know zstd, or what the bytes mean.
 *
 * A resume point is a block boundary of the deflate stream. ISA-L does not stop there, but it
 * stops at the end of the block that its state calls final. So when a point is due, the block at
 * hand is called final (seek), and when ISA-L has come to its end, the state is put back to
 * "a new block begins here". Then the bits it holds unread tell the boundary's place to the bit,
 * and its own history is the window.
 *
 * ISA-L decodes into state.tmp_out_buffer first: [0, tmp_out_processed) was handed out,
 * [tmp_out_processed, tmp_out_valid) is pending. The last 32 KiB before tmp_out_valid are always
 * there (fewer at a member's start): it needs them itself to decode on.
 */
#include <errno.h>
#include <isa-l/crc.h>
#include <isa-l/igzip_lib.h>

#include "codec_priv.h"

#define FIXED_HEADER 10
#define FEED_MAX     (1U << 30) /* ISA-L adds to its 32-bit counts */

enum { FLAG_HCRC = 2, FLAG_EXTRA = 4, FLAG_NAME = 8, FLAG_COMMENT = 16, FLAG_RESERVED = 0xe0 };

enum gzip_stage {
	GZIP_FIXED, /* the member's first ten bytes */
	GZIP_EXTRA_LEN,
	GZIP_EXTRA,
	GZIP_NAME,
	GZIP_COMMENT,
	GZIP_HCRC,
	GZIP_BODY, /* deflate data and the trailer, which ISA-L checks */
};

struct gzip {
	enum gzip_stage stage;
	uint8_t field[FIXED_HEADER]; /* a fixed field as far as it came */
	size_t have;
	size_t extra; /* bytes of the extra field to come */
	unsigned int flags;
	uint32_t header_crc;
	bool first;	/* the stream's first member */
	bool unchecked; /* resumed inside the member: its checksum cannot be known */
	bool seeking;	/* state.bfinal was set to stop at the block's end */
	struct inflate_state state;
};

static struct gzip *gzip_alloc(void)
{
	/* Not calloc: ISA-L initialises what it reads of its 90 KiB. */
	struct gzip *gzip = malloc(sizeof(*gzip));

	if (!gzip)
		return NULL;
	memset(gzip, 0, offsetof(struct gzip, state));
	gzip->first = true;
	isal_inflate_init(&gzip->state);
	gzip->state.crc_flag = ISAL_GZIP_NO_HDR_VER;
	return gzip;
}

int gzip_open(struct decoder *decoder)
{
	decoder->gzip = gzip_alloc();
	return decoder->gzip ? 0 : -ENOMEM;
}

int gzip_open_at(struct decoder *decoder, const struct codec_point *point, uint8_t first)
{
	struct gzip *gzip = decoder->gzip;
	struct inflate_state *state = &gzip->state;

	gzip->stage = GZIP_BODY;
	gzip->unchecked = true;
	if (point->window_len &&
	    isal_inflate_set_dict(state, (uint8_t *)point->window, (uint32_t)point->window_len))
		return -EINVAL;
	state->read_in = (uint64_t)first >> (8 - point->bits);
	state->read_in_length = point->bits;
	return 0;
}

void gzip_close(struct decoder *decoder)
{
	free(decoder->gzip);
}

/* --- the member's header --- */

static void header_consume(struct decoder *decoder, size_t len)
{
	struct gzip *gzip = decoder->gzip;

	if (len && gzip->flags & FLAG_HCRC)
		gzip->header_crc = crc32_gzip_refl(gzip->header_crc, decoder->in, len);
	decoder_consumed(decoder, len);
}

/* Collects a field of LEN bytes; true when it is whole. */
static bool header_field(struct decoder *decoder, size_t len)
{
	struct gzip *gzip = decoder->gzip;
	size_t step = MIN(len - gzip->have, decoder->in_len);

	if (!step)
		return false;
	memcpy(gzip->field + gzip->have, decoder->in, step);
	gzip->have += step;
	header_consume(decoder, step);
	if (gzip->have < len)
		return false;
	gzip->have = 0;
	return true;
}

static void header_next(struct gzip *gzip, enum gzip_stage stage)
{
	static const unsigned int wants[] = {
		[GZIP_EXTRA_LEN] = FLAG_EXTRA, [GZIP_EXTRA] = FLAG_EXTRA, [GZIP_NAME] = FLAG_NAME,
		[GZIP_COMMENT] = FLAG_COMMENT, [GZIP_HCRC] = FLAG_HCRC,
	};

	while (stage < GZIP_BODY && !(gzip->flags & wants[stage]))
		stage++;
	gzip->stage = stage;
}

/* Behind a whole member anything but a new member's magic ends the stream. */
static int stream_ends(struct decoder *decoder, size_t have)
{
	if (decoder->gzip->first)
		return decoder_invalid(decoder, "gzip: no gzip header");
	decoder->in_off -= have;
	decoder->done = true;
	return STEP_WAIT;
}

static int header_fixed(struct decoder *decoder)
{
	static const uint8_t magic[2] = {0x1f, 0x8b};
	struct gzip *gzip = decoder->gzip;
	bool whole = header_field(decoder, FIXED_HEADER);
	size_t have = whole ? FIXED_HEADER : gzip->have;
	int rc;

	if (memcmp(gzip->field, magic, MIN(have, sizeof(magic))) != 0)
		return stream_ends(decoder, have);
	if (!whole && have < sizeof(magic) && decoder_input_ended(decoder))
		return stream_ends(decoder, have);
	if (!whole)
		return STEP_WAIT;
	if (gzip->field[2] != 8)
		return decoder_invalid(decoder, "gzip: unknown compression method");
	gzip->flags = gzip->field[3];
	if (gzip->flags & FLAG_RESERVED)
		return decoder_invalid(decoder, "gzip: reserved header flags are set");
	if (!decoder->options.raw_members) {
		rc = decoder_emit_member(decoder, decoder->in_off - FIXED_HEADER);
		if (rc < 0)
			return rc;
	}
	gzip->header_crc = crc32_gzip_refl(0, gzip->field, FIXED_HEADER);
	header_next(gzip, GZIP_EXTRA_LEN);
	return STEP_MORE;
}

static int header_extra(struct decoder *decoder)
{
	struct gzip *gzip = decoder->gzip;
	size_t step = MIN(gzip->extra, decoder->in_len);

	header_consume(decoder, step);
	gzip->extra -= step;
	if (gzip->extra)
		return STEP_WAIT;
	header_next(gzip, GZIP_NAME);
	return STEP_MORE;
}

static int header_string(struct decoder *decoder)
{
	struct gzip *gzip = decoder->gzip;
	const uint8_t *end = decoder->in_len ? memchr(decoder->in, 0, decoder->in_len) : NULL;

	header_consume(decoder, end ? (size_t)(end - decoder->in) + 1 : decoder->in_len);
	if (!end)
		return STEP_WAIT;
	header_next(gzip, gzip->stage + 1);
	return STEP_MORE;
}

static int header_crc(struct decoder *decoder)
{
	struct gzip *gzip = decoder->gzip;
	uint32_t crc = gzip->header_crc; /* of what is before this field */
	bool whole = header_field(decoder, 2);

	gzip->header_crc = crc;
	if (!whole)
		return STEP_WAIT;
	if ((gzip->field[0] | gzip->field[1] << 8) != (int)(crc & 0xffff))
		return decoder_invalid(decoder, "gzip: wrong header checksum");
	gzip->stage = GZIP_BODY;
	return STEP_MORE;
}

/* --- the member's body --- */

/* One call of ISA-L that hands out at most ROOM bytes. 0 or -EINVAL. */
static int inflate_some(struct decoder *decoder, size_t room)
{
	struct gzip *gzip = decoder->gzip;
	struct inflate_state *state = &gzip->state;
	int rc;

	state->next_in = (uint8_t *)decoder->in;
	state->avail_in = (uint32_t)MIN(decoder->in_len, FEED_MAX);
	state->next_out = decoder->out;
	state->avail_out = (uint32_t)MIN(room, FEED_MAX);
	rc = isal_inflate(state);
	decoder_consumed(decoder, (size_t)(state->next_in - decoder->in));
	decoder_produced(decoder, (size_t)(state->next_out - decoder->out));
	if (rc == ISAL_INCORRECT_CHECKSUM && gzip->unchecked)
		return 0;
	if (rc == ISAL_INCORRECT_CHECKSUM)
		return decoder_invalid(decoder, "gzip: wrong checksum or length");
	return rc < 0 ? decoder_invalid(decoder, "gzip: invalid deflate data") : 0;
}

static size_t pending(const struct inflate_state *state)
{
	return (size_t)(state->tmp_out_valid - state->tmp_out_processed);
}

/* At a block boundary, behind all that was decoded. */
static int emit_boundary(struct decoder *decoder)
{
	const struct inflate_state *state = &decoder->gzip->state;
	size_t window_len = MIN((size_t)state->tmp_out_valid, CODEC_WINDOW);
	/* Read, but not decoded: whole bytes in the bit buffer, and those of a block header that
	 * is not whole yet. */
	size_t unread = (size_t)state->read_in_length / 8 + (size_t)state->tmp_in_size;
	const struct codec_point point = {
		.in_off = decoder->in_off - unread,
		.out_off = decoder->out_off + pending(state),
		.bits = (uint8_t)(state->read_in_length % 8),
		.window = state->tmp_out_buffer + state->tmp_out_valid - window_len,
		.window_len = window_len,
	};

	return decoder_emit(decoder, &point);
}

/*
 * Drops what was handed out and is older than the window, as ISA-L does at the end of each call,
 * but not at INPUT_DONE. With its buffer left full it would decode the next bytes straight into the
 * caller's, and, were those fewer than a window, not have them as history later.
 */
static void drop_old(struct inflate_state *state)
{
	int32_t old = MIN(state->tmp_out_valid - (int32_t)CODEC_WINDOW, state->tmp_out_processed);

	if (old <= 0)
		return;
	memmove(state->tmp_out_buffer, state->tmp_out_buffer + old,
		(size_t)(state->tmp_out_valid - old));
	state->tmp_out_valid -= old;
	state->tmp_out_processed -= old;
}

/*
 * Goes on to the end of the block at hand. As long as a byte is pending, ISA-L stays at the state
 * INPUT_DONE there, with the unread bits kept; were all handed out, it would go on to the
 * trailer. So nothing is handed out while it decodes (if all was, the last byte counts as
 * pending again), and all but one byte afterwards, when it cannot decode: its buffer is full or
 * the input is used up.
 */
static int gzip_seek(struct decoder *decoder)
{
	struct inflate_state *state = &decoder->gzip->state;
	uint64_t before = decoder->in_off;
	int hold = pending(state) == 0;
	int rc;

	state->tmp_out_processed -= hold;
	rc = inflate_some(decoder, 0);
	state->tmp_out_processed += hold;
	if (rc < 0)
		return rc;
	if (state->block_state == ISAL_BLOCK_INPUT_DONE) {
		state->block_state = ISAL_BLOCK_NEW_HDR;
		state->bfinal = 0;
		decoder->gzip->seeking = false;
		drop_old(state);
		rc = emit_boundary(decoder);
		return rc < 0 ? rc : STEP_MORE;
	}
	if (pending(state) > 1) {
		rc = inflate_some(decoder, MIN(decoder->room, pending(state) - 1));
		return rc < 0 ? rc : STEP_MORE;
	}
	return decoder->in_off != before ? STEP_MORE : STEP_WAIT;
}

/* A point is due: emits it if this is a boundary, else goes to look for the next. */
static int gzip_point_due(struct decoder *decoder)
{
	struct inflate_state *state = &decoder->gzip->state;

	switch (state->block_state) {
	case ISAL_BLOCK_NEW_HDR:
	case ISAL_BLOCK_HDR:
		return emit_boundary(decoder);
	case ISAL_BLOCK_TYPE0:
	case ISAL_BLOCK_CODED:
		/* Behind the final block comes no block to resume at. */
		if (state->bfinal)
			return 0;
		state->bfinal = 1;
		decoder->gzip->seeking = true;
		return 0;
	default:
		return 0;
	}
}

static void member_ends(struct gzip *gzip)
{
	isal_inflate_reset(&gzip->state);
	gzip->stage = GZIP_FIXED;
	gzip->have = 0;
	gzip->first = false;
	gzip->unchecked = false;
	gzip->flags = 0;
}

static int gzip_body(struct decoder *decoder)
{
	struct gzip *gzip = decoder->gzip;
	uint64_t in_off = decoder->in_off, out_off = decoder->out_off;
	size_t room = decoder->room;
	int rc;

	if (!gzip->seeking && decoder->out_off >= decoder->next_point) {
		rc = gzip_point_due(decoder);
		if (rc < 0)
			return rc;
	}
	if (gzip->seeking)
		return gzip_seek(decoder);
	/* Come back when the next point is due. */
	if (decoder->next_point > out_off)
		room = MIN(room, decoder->next_point - out_off);
	rc = inflate_some(decoder, room);
	if (rc < 0)
		return rc;
	if (gzip->state.block_state == ISAL_BLOCK_FINISH) {
		member_ends(gzip);
		return STEP_MORE;
	}
	return decoder->in_off != in_off || decoder->out_off != out_off ? STEP_MORE : STEP_WAIT;
}

static int gzip_member(struct decoder *decoder)
{
	struct gzip *gzip = decoder->gzip;

	switch (gzip->stage) {
	case GZIP_FIXED:
		return header_fixed(decoder);
	case GZIP_EXTRA_LEN:
		if (!header_field(decoder, 2))
			return STEP_WAIT;
		gzip->extra = (size_t)(gzip->field[0] | gzip->field[1] << 8);
		gzip->stage = GZIP_EXTRA;
		return STEP_MORE;
	case GZIP_EXTRA:
		return header_extra(decoder);
	case GZIP_NAME:
	case GZIP_COMMENT:
		return header_string(decoder);
	case GZIP_HCRC:
		return header_crc(decoder);
	default:
		return gzip_body(decoder);
	}
}

/* Behind a member's header. */
static int emit_raw_member(struct decoder *decoder)
{
	const struct codec_point point = {.in_off = decoder->in_off, .out_off = decoder->out_off};

	return decoder_emit(decoder, &point);
}

int gzip_step(struct decoder *decoder)
{
	enum gzip_stage before = decoder->gzip->stage;
	int step = gzip_member(decoder);

	if (before != GZIP_BODY && decoder->gzip->stage == GZIP_BODY &&
	    decoder->options.raw_members) {
		int rc = emit_raw_member(decoder);
		if (rc < 0)
			return rc;
	}
	if (step != STEP_WAIT || decoder->done)
		return step;
	/* There is room: only input can be short. */
	if (decoder_input_ended(decoder))
		return decoder_invalid(decoder, "gzip: the stream is cut off");
	return decoder->in_len ? decoder_invalid(decoder, "gzip: invalid deflate data") : STEP_WAIT;
}

bool gzip_whole(const struct decoder *decoder)
{
	const struct gzip *gzip = decoder->gzip;

	return !gzip->first && gzip->stage == GZIP_FIXED && gzip->have == 0;
}

size_t gzip_memory(const struct decoder *decoder)
{
	return decoder->gzip ? sizeof(*decoder->gzip) : 0;
}
