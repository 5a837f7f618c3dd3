// SPDX-License-Identifier: Apache-2.0
/*
 * codec: any bytes as a stream, and streams made of any bytes. The first four bytes choose; then:
 * the pieces' sizes change nothing, what zlib decodes we decode, and each point resumes.
 */
#include <stddef.h>
#include <stdint.h>
#include <zlib.h>

#include "regfs/buf.h"
#include "regfs/codec.h"

#define OUT_MAX	   (192 * KIB) /* decoded bytes that are looked at */
#define READ_MIN   1000	       /* smaller steps and more of them */
#define FEEDS_MAX  200	       /* make a slow fuzzer */
#define POINTS_MAX 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(bool holds)
{
	if (!holds)
		__builtin_trap();
}

struct points {
	size_t count;
	bool raw_members;
	struct codec_point points[POINTS_MAX];
	uint8_t windows[POINTS_MAX][CODEC_WINDOW];
};

static int keep_point(void *arg, const struct codec_point *point)
{
	struct points *points = arg;
	struct codec_point *kept = &points->points[points->count];

	check(point->window_len <= CODEC_WINDOW && point->bits < 8);
	check(point->window_len == 0 || !point->member);
	/* an empty member has a point, too */
	check(points->count == 0 || point->out_off + points->raw_members > kept[-1].out_off);
	check(points->count == 0 || point->in_off > kept[-1].in_off);
	check(!points->raw_members || !point->member);
	if (points->count + 1 == POINTS_MAX)
		return 0;
	*kept = *point;
	kept->window = points->windows[points->count];
	if (point->window_len)
		memcpy(points->windows[points->count], point->window, point->window_len);
	points->count++;
	return 0;
}

/* 0 or an error, and how much came out, OUT_MAX at most. */
static int decode(struct decoder *decoder, const uint8_t *in, size_t len, size_t piece,
		  uint8_t *out, size_t *ret_len)
{
	size_t fed = 0, got = 0;

	while (!decoder_done(decoder) && got < OUT_MAX) {
		ssize_t rc = decoder_read(decoder, out + got, MIN(piece + READ_MIN, OUT_MAX - got));
		size_t step = MIN(piece, len - fed);

		*ret_len = got;
		if (rc < 0) {
			check(*decoder_error(decoder));
			return (int)rc;
		}
		got += (size_t)rc;
		if (rc > 0 || decoder_done(decoder))
			continue;
		/* Asking for more than there is would go on for ever. */
		check(fed < len || !decoder_in_off(decoder) || len == 0);
		decoder_input(decoder, in + fed, step, fed + step == len);
		fed += step;
	}
	*ret_len = got;
	check(decoder_in_off(decoder) <= len);
	return 0;
}

/* The first member only. False: not valid, or not all there. */
static bool zlib_decodes(const uint8_t *in, size_t len, uint8_t *out, size_t *ret_len)
{
	z_stream z = {.next_in = (uint8_t *)in, .avail_in = (uInt)len};
	int rc;

	if (inflateInit2(&z, 31) != Z_OK)
		return false;
	z.next_out = out;
	z.avail_out = OUT_MAX;
	rc = inflate(&z, Z_NO_FLUSH);
	*ret_len = z.total_out;
	inflateEnd(&z);
	return rc == Z_STREAM_END || (rc == Z_OK && z.avail_out == 0);
}

static void check_points(enum codec codec, const struct points *points, const struct buf *in,
			 const uint8_t *expected, size_t expected_len, uint8_t *out)
{
	for (size_t i = 0; i < points->count; i++) {
		const struct codec_point *point = &points->points[i];
		const uint8_t *bytes = (const uint8_t *)in->data;
		size_t want, got = 0;
		AUTO_DECODER struct decoder *decoder = decoder_resume(
			codec, point, point->in_off ? bytes[point->in_off - 1] : 0);

		check(decoder && point->in_off <= in->len);
		/* Decoded ahead of what was asked for. */
		if (point->out_off > expected_len)
			continue;
		want = expected_len - point->out_off;
		decoder_input(decoder, bytes + point->in_off, in->len - point->in_off, true);
		while (got < want) {
			ssize_t rc = decoder_read(decoder, out + got, want - got);

			check(rc > 0);
			got += (size_t)rc;
		}
		check(want == 0 || memcmp(out, expected + point->out_off, want) == 0);
	}
}

struct choice {
	size_t piece;
	uint64_t spacing;
	int level, strategy, flush;
	size_t flush_every;
	bool compress, raw_members;
};

static struct choice choose(const uint8_t bytes[static 4])
{
	static const int flushes[] = {Z_NO_FLUSH, Z_SYNC_FLUSH, Z_FULL_FLUSH, Z_BLOCK};

	return (struct choice){
		.piece = 1 + (size_t)bytes[0] * bytes[0],
		.spacing = 1 + (uint64_t)bytes[1] * bytes[1],
		.level = bytes[2] % 10,
		.strategy = bytes[2] / 10 % 5,
		.flush = flushes[bytes[3] % 4],
		.flush_every = 99 + (size_t)(bytes[3] / 4 % 32) * 997,
		.compress = bytes[3] & 128,
		.raw_members = bytes[2] & 128,
	};
}

static bool deflate_some(z_stream *z, struct buf *out, const uint8_t *in, size_t len, int flush)
{
	z->next_in = (uint8_t *)in;
	z->avail_in = (uInt)len;
	do {
		if (buf_reserve(out, len + 4 * KIB) < 0)
			return false;
		z->next_out = (uint8_t *)out->data + out->len;
		z->avail_out = (uInt)(out->cap - out->len);
		deflate(z, flush);
		out->len = out->cap - z->avail_out;
	} while (z->avail_out == 0);
	return true;
}

/* The bytes, repeated to some length that fills windows, as one gzip member. */
static bool compress_bytes(const struct choice *choice, const uint8_t *in, size_t len,
			   struct buf *out)
{
	size_t repeats = len ? MIN(32, 1 + (100 * KIB) / len) : 0;
	z_stream z = {0};
	bool ok = true;

	if (deflateInit2(&z, choice->level, Z_DEFLATED, 31, 8, choice->strategy) != Z_OK)
		return false;
	for (size_t off = 0, step; ok && off < repeats * len; off += step) {
		step = MIN(choice->flush_every, len - off % len);
		ok = deflate_some(&z, out, in + off % len, step, choice->flush);
	}
	ok = ok && deflate_some(&z, out, in, 0, Z_FINISH);
	deflateEnd(&z);
	return ok;
}

static void check_stream(const struct choice *choice, const struct buf *in)
{
	enum codec codec = codec_detect(in->data, in->len);
	AUTO_FREE struct points *points = calloc(1, sizeof(*points));
	AUTO_FREE uint8_t *out = malloc(OUT_MAX), *other = malloc(OUT_MAX);
	bool raw_members = choice->raw_members && codec == CODEC_GZIP;
	struct decoder_options options = {.spacing = choice->spacing,
					  .on_point = keep_point,
					  .arg = points,
					  .raw_members = raw_members};
	AUTO_DECODER struct decoder *decoder = decoder_new(codec, &options);
	AUTO_DECODER struct decoder *whole = decoder_new(codec, NULL);
	const uint8_t *bytes = (const uint8_t *)in->data;
	size_t len = 0, other_len = 0;
	int rc;

	check(points && out && other && decoder && whole);
	points->raw_members = raw_members;
	rc = decode(decoder, bytes, in->len, MAX(choice->piece, in->len / FEEDS_MAX), out, &len);
	check(decode(whole, bytes, in->len, in->len + 1, other, &other_len) == rc);
	check(rc < 0 || (len == other_len && memcmp(out, other, len) == 0));
	if (rc == 0)
		check_points(codec, points, in, out, len, other);
	if (codec == CODEC_GZIP && zlib_decodes(bytes, in->len, other, &other_len)) {
		check(len >= other_len || rc < 0);
		check(memcmp(out, other, MIN(len, other_len)) == 0);
		check(rc == 0 || len <= other_len || !choice->compress);
	}
	check(rc == 0 || !choice->compress);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	AUTO_BUF struct buf in = BUF_INIT(16 * MIB);
	struct choice choice;

	if (len < 4)
		return 0;
	choice = choose(data);
	if (choice.compress ? !compress_bytes(&choice, data + 4, len - 4, &in)
			    : buf_add(&in, data + 4, len - 4) < 0)
		return 0;
	check_stream(&choice, &in);
	return 0;
}
