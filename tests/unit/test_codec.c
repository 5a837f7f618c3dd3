/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec: every kind of stream decodes to what went in, whatever the sizes of the pieces; every
 * point resumes, with our decoder and with zlib; what is broken is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <isa-l/igzip_lib.h>
#include <zlib.h>
#include <zstd.h>

#include "regfs/buf.h"
#include "regfs/codec.h"

#define DATA_LEN   (1536 * KIB + 12345)
#define RESUME_LEN (300 * KIB)

static uint8_t *data; /* read-only after the group's setup */

static uint64_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 33;
}

/* Text with repetitions, runs, noise and code-like records, each of some hundred KiB. */
static int make_data(void **state)
{
	static const char *const words[] = {"layer ",  "of ",	  "a ",	      "file\n", "0x00 ",
					    "resume ", "{\"k\":", "usr/lib/", "so.6 ",	"point "};
	uint64_t seed = 1;
	size_t len = 0;

	(void)state;
	data = malloc(DATA_LEN + 16);
	assert_non_null(data);
	while (len < DATA_LEN) {
		unsigned int kind = (unsigned int)(len >> 17) % 4;

		if (kind == 0)
			len += (size_t)snprintf((char *)data + len, 16, "%s",
						words[next_random(&seed) % ARRAY_SIZE(words)]);
		else if (kind == 1)
			data[len++] = (uint8_t)(next_random(&seed) % 37 ? 0 : 'z');
		else if (kind == 2)
			data[len++] = (uint8_t)next_random(&seed);
		else
			data[len] = (uint8_t)((len >> 3 & 7) * (next_random(&seed) % 3)), len++;
	}
	return 0;
}

static int free_data(void **state)
{
	(void)state;
	free(data);
	return 0;
}

/* --- streams --- */

struct deflate_options {
	int level, strategy, window_bits, mem_level;
	int flush; /* after each flush_every bytes */
	size_t flush_every;
	gz_header *header;
};

static void add_zlib(struct buf *out, const uint8_t *in, size_t len,
		     const struct deflate_options *options)
{
	z_stream z = {0};
	size_t done = 0;
	int rc;

	assert_int_equal(deflateInit2(&z, options->level, Z_DEFLATED,
				      16 + (options->window_bits ? options->window_bits : 15),
				      options->mem_level ? options->mem_level : 8,
				      options->strategy),
			 Z_OK);
	if (options->header)
		assert_int_equal(deflateSetHeader(&z, options->header), Z_OK);
	do {
		size_t step = len - done;
		bool last;

		if (options->flush_every)
			step = MIN(step, options->flush_every);
		last = done + step == len;
		assert_int_equal(buf_reserve(out, deflateBound(&z, step) + 64), 0);
		z.next_in = (uint8_t *)in + done;
		z.avail_in = (uInt)step;
		z.next_out = (uint8_t *)out->data + out->len;
		z.avail_out = (uInt)(out->cap - out->len);
		rc = deflate(&z, last ? Z_FINISH : options->flush);
		assert_true(rc == Z_OK || rc == Z_STREAM_END);
		assert_int_equal(z.avail_in, 0);
		out->len = out->cap - z.avail_out;
		done += step;
	} while (rc != Z_STREAM_END);
	deflateEnd(&z);
}

static void add_isal(struct buf *out, const uint8_t *in, size_t len, uint32_t level)
{
	static const uint32_t sizes[] = {1, ISAL_DEF_LVL1_DEFAULT, ISAL_DEF_LVL2_DEFAULT,
					 ISAL_DEF_LVL3_DEFAULT};
	AUTO_FREE struct isal_zstream *stream = malloc(sizeof(*stream));
	AUTO_FREE uint8_t *level_buf = malloc(sizes[level]);

	assert_int_equal(buf_reserve(out, len + len / 8 + 1024), 0);
	isal_deflate_init(stream);
	stream->level = level;
	stream->level_buf = level_buf;
	stream->level_buf_size = sizes[level];
	stream->gzip_flag = IGZIP_GZIP;
	stream->end_of_stream = 1;
	stream->next_in = (uint8_t *)in;
	stream->avail_in = (uint32_t)len;
	stream->next_out = (uint8_t *)out->data + out->len;
	stream->avail_out = (uint32_t)(out->cap - out->len);
	assert_int_equal(isal_deflate(stream), COMP_OK);
	assert_int_equal(stream->internal_state.state, ZSTATE_END);
	out->len += stream->total_out;
}

static void add_pieces(struct buf *out, enum codec codec, const uint8_t *in, size_t len,
		       size_t piece)
{
	struct encoder *encoder = encoder_new(codec, 0);

	assert_non_null(encoder);
	for (size_t off = 0; off < len || off == 0; off += piece) {
		size_t step = MIN(piece, len - off);
		ssize_t got;

		assert_int_equal(buf_reserve(out, encoder_bound(codec, step)), 0);
		got = encoder_piece(encoder, in + off, step, out->data + out->len,
				    out->cap - out->len);
		assert_true(got >= 0);
		out->len += (size_t)got;
	}
	encoder_free(encoder);
}

/* --- decoding, and the check of every point --- */

struct points {
	struct codec_point *points;
	size_t count;
};

static int keep_point(void *arg, const struct codec_point *point)
{
	struct points *points = arg;
	struct codec_point *kept;
	uint8_t *window = NULL;

	points->points = reallocarray(points->points, points->count + 1, sizeof(*points->points));
	kept = &points->points[points->count++];
	*kept = *point;
	if (point->window_len) {
		window = malloc(point->window_len);
		memcpy(window, point->window, point->window_len);
	}
	kept->window = window;
	return 0;
}

static void points_release(struct points *points)
{
	for (size_t i = 0; i < points->count; i++)
		free((void *)points->points[i].window);
	free(points->points);
}

/* Feeds FEED bytes and reads CAP at a time; the last answer, and what came before in OUT. */
static ssize_t decode(struct decoder *decoder, const uint8_t *in, size_t len, size_t feed,
		      size_t cap, uint8_t *out, size_t *ret_len)
{
	size_t fed = 0, got = 0;
	ssize_t rc = 0;

	while (!decoder_done(decoder)) {
		rc = decoder_read(decoder, out + got, cap);
		if (rc < 0)
			break;
		got += (size_t)rc;
		if (rc == 0 && !decoder_done(decoder)) {
			size_t step = MIN(feed, len - fed);

			decoder_input(decoder, in + fed, step, fed + step == len);
			fed += step;
		}
	}
	*ret_len = got;
	return rc < 0 ? rc : 0;
}

/* Raw inflate by zlib, from the point to the end of its member at most. */
static void check_by_zlib(const struct codec_point *point, const uint8_t *in, size_t len,
			  const uint8_t *expected, size_t expected_len)
{
	AUTO_FREE uint8_t *out = malloc(RESUME_LEN);
	z_stream z = {0};
	int rc;

	assert_int_equal(inflateInit2(&z, point->member ? 31 : -15), Z_OK);
	if (point->bits)
		assert_int_equal(
			inflatePrime(&z, point->bits, in[point->in_off - 1] >> (8 - point->bits)),
			Z_OK);
	if (point->window_len)
		assert_int_equal(inflateSetDictionary(&z, point->window, (uInt)point->window_len),
				 Z_OK);
	z.next_in = (uint8_t *)in + point->in_off;
	z.avail_in = (uInt)(len - point->in_off);
	z.next_out = out;
	z.avail_out = (uInt)MIN(expected_len, RESUME_LEN);
	do
		rc = inflate(&z, Z_SYNC_FLUSH);
	while (rc == Z_OK && z.avail_out);
	assert_true(rc == Z_OK || rc == Z_STREAM_END || rc == Z_BUF_ERROR);
	assert_memory_equal(out, expected, z.total_out);
	assert_true(z.total_out > 0 || expected_len == 0 || rc == Z_STREAM_END);
	inflateEnd(&z);
}

static void check_resume(enum codec codec, const struct codec_point *point, const struct buf *in,
			 const uint8_t *expected, size_t expected_len)
{
	AUTO_FREE uint8_t *out = malloc(RESUME_LEN);
	const uint8_t *bytes = (const uint8_t *)in->data;
	size_t want = MIN(expected_len, RESUME_LEN), got = 0;
	AUTO_DECODER struct decoder *decoder = decoder_resume(
		codec, point, point->in_off ? bytes[point->in_off - 1] : 0);

	assert_non_null(decoder);
	decoder_input(decoder, bytes + point->in_off, in->len - point->in_off, true);
	while (got < want) {
		ssize_t rc = decoder_read(decoder, out + got, want - got);

		assert_true(rc > 0);
		got += (size_t)rc;
	}
	assert_memory_equal(out, expected, want);
	assert_int_equal(decoder_out_off(decoder), point->out_off + want);
	if (codec == CODEC_GZIP)
		check_by_zlib(point, bytes, in->len, expected, expected_len);
}

static void check_points(enum codec codec, const struct points *points, const struct buf *in,
			 const uint8_t *expected, size_t len, uint64_t spacing)
{
	uint64_t last = 0;

	for (size_t i = 0; i < points->count; i++) {
		const struct codec_point *point = &points->points[i];

		assert_true(point->out_off >= last + spacing);
		assert_true(point->out_off <= len && point->in_off <= in->len);
		assert_int_equal(point->window_len == 0, point->member);
		last = point->out_off;
		/* Each is costly where every block has one. */
		if (points->count < 64 || i % (points->count / 64) == 0)
			check_resume(codec, point, in, expected + last, len - last);
	}
}

struct run {
	uint64_t spacing;
	size_t feed, cap;
};

/* Decodes IN to EXPECTED once; returns the number of points. */
static size_t check_run(enum codec codec, const struct buf *in, const uint8_t *expected, size_t len,
			const struct run *run)
{
	CLEANUP(points_release) struct points points = {0};
	struct decoder_options options = {
		.spacing = run->spacing, .on_point = keep_point, .arg = &points};
	AUTO_FREE uint8_t *out = malloc(len + run->cap);
	AUTO_DECODER struct decoder *decoder = decoder_new(codec, &options);
	size_t got = 0;
	ssize_t rc = decode(decoder, (uint8_t *)in->data, in->len, run->feed, run->cap, out, &got);

	if (rc < 0)
		print_error("%s at %zu\n", decoder_error(decoder), got);
	assert_int_equal(rc, 0);
	assert_int_equal(got, len);
	assert_memory_equal(out, expected, len);
	assert_true(decoder_done(decoder));
	assert_int_equal(decoder_out_off(decoder), len);
	assert_int_equal(decoder_in_off(decoder), in->len);
	check_points(codec, &points, in, expected, len, run->spacing);
	return points.count;
}

/* All sizes of pieces that matter; the number of points at a spacing of 64 KiB. */
static size_t check_stream(enum codec codec, const struct buf *in, size_t len)
{
	static const struct run runs[] = {
		{1, 1 * MIB, 1 * MIB}, {0, 4096, 4096},	    {100000, 65521, 10007},
		{MIB, 333, 40 * KIB},  {70 * KIB, 41, 999}, {64 * KIB, SIZE_MAX, 8 * MIB},
	};
	size_t count = 0;

	assert_int_equal(codec_detect(in->data, in->len), codec);
	for (size_t i = 0; i < ARRAY_SIZE(runs); i++)
		count = check_run(codec, in, data, len, &runs[i]);
	return count;
}

static void check_zlib(const struct deflate_options *options, size_t least_points)
{
	AUTO_BUF struct buf in = BUF_INIT(64 * MIB);

	add_zlib(&in, data, DATA_LEN, options);
	assert_true(check_stream(CODEC_GZIP, &in, DATA_LEN) >= least_points);
}

/* --- gzip --- */

static void gzip_of_every_level(void **state)
{
	(void)state;
	for (int level = 0; level <= 9; level += 3)
		check_zlib(&(struct deflate_options){.level = level}, 15);
}

static void gzip_of_odd_blocks(void **state)
{
	static const struct deflate_options options[] = {
		{.level = 6, .strategy = Z_FIXED},
		{.level = 6, .strategy = Z_HUFFMAN_ONLY},
		{.level = 6, .strategy = Z_RLE, .mem_level = 1},
		{.level = 9, .window_bits = 9, .mem_level = 9},
		{.level = 6, .flush = Z_FULL_FLUSH, .flush_every = 50000},
		{.level = 1, .flush = Z_SYNC_FLUSH, .flush_every = 3000},
		{.level = 6, .flush = Z_PARTIAL_FLUSH, .flush_every = 5000},
		{.level = 0, .flush = Z_BLOCK, .flush_every = 777},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		check_zlib(&options[i], 15);
}

static void gzip_of_isal(void **state)
{
	(void)state;
	for (uint32_t level = 0; level <= 3; level++) {
		AUTO_BUF struct buf in = BUF_INIT(64 * MIB);
		size_t points;

		add_isal(&in, data, DATA_LEN, level);
		points = check_stream(CODEC_GZIP, &in, DATA_LEN);
		/* Its blocks are large, and level 0 has few. */
		assert_true(level == 0 || points >= 5);
	}
}

static void gzip_byte_by_byte(void **state)
{
	const struct run run = {.spacing = 10000, .feed = 1, .cap = 1};
	AUTO_BUF struct buf in = BUF_INIT(64 * MIB);

	(void)state;
	add_zlib(&in, data, 100 * KIB, &(struct deflate_options){.level = 6, .mem_level = 1});
	add_pieces(&in, CODEC_GZIP, data + 100 * KIB, 100 * KIB, 5000);
	assert_true(check_run(CODEC_GZIP, &in, data, 200 * KIB, &run) >= 15);
}

static void gzip_without_boundaries(void **state)
{
	AUTO_BUF struct buf in = BUF_INIT(64 * MIB);

	(void)state;
	add_isal(&in, data, 120 * KIB, 0);
	assert_int_equal(check_stream(CODEC_GZIP, &in, 120 * KIB), 0);
}

static void gzip_of_members(void **state)
{
	static const size_t pieces[] = {100, 4000, 65536, MIB};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
		AUTO_BUF struct buf in = BUF_INIT(64 * MIB);
		size_t len = pieces[i] < 1000 ? 300 * KIB : DATA_LEN;

		add_pieces(&in, CODEC_GZIP, data, 0, 1);
		add_pieces(&in, CODEC_GZIP, data, len, pieces[i]);
		add_pieces(&in, CODEC_GZIP, data, 0, 1);
		assert_true(check_stream(CODEC_GZIP, &in, len) >= len / (512 * KIB));
	}
}

static void gzip_header_fields(void **state)
{
	uint8_t extra[300], long_name[5000];

	(void)state;
	memset(extra, 'e', sizeof(extra));
	memset(long_name, 'n', sizeof(long_name));
	long_name[sizeof(long_name) - 1] = '\0';
	for (int fields = 0; fields < 16; fields++) {
		AUTO_BUF struct buf in = BUF_INIT(64 * MIB);
		gz_header header = {
			.extra = fields & 1 ? extra : NULL,
			.extra_len = sizeof(extra),
			.name = fields & 2 ? long_name : NULL,
			.comment = fields & 4 ? (uint8_t *)"a comment" : NULL,
			.hcrc = fields & 8,
		};

		add_zlib(&in, data, 10000,
			 &(struct deflate_options){.level = 6, .header = &header});
		add_zlib(&in, data + 10000, 70000,
			 &(struct deflate_options){.level = 6, .header = &header});
		check_stream(CODEC_GZIP, &in, 80000);
		if (fields & 8) {
			AUTO_DECODER struct decoder *decoder = decoder_new(CODEC_GZIP, NULL);
			uint8_t out[100];

			in.data[4] ^= 1; /* the time */
			decoder_input(decoder, in.data, in.len, true);
			assert_int_equal(decoder_read(decoder, out, sizeof(out)), -EINVAL);
			assert_string_equal(decoder_error(decoder), "gzip: wrong header checksum");
		}
	}
}

static void gzip_trailing_bytes(void **state)
{
	static const char *const tails[] = {"\0", "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "garbage",
					    "\x1f", "\x1f\x8c garbage"};
	static const size_t lens[] = {1, 17, 7, 1, 10};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(tails); i++) {
		for (size_t feed = 1; feed < 100000; feed = feed * 7 + 2) {
			AUTO_BUF struct buf in = BUF_INIT(64 * MIB);
			AUTO_DECODER struct decoder *decoder = decoder_new(CODEC_GZIP, NULL);
			AUTO_FREE uint8_t *out = malloc(20000);
			size_t got, whole;

			add_zlib(&in, data, 10000, &(struct deflate_options){.level = 6});
			whole = in.len;
			buf_add(&in, tails[i], lens[i]);
			assert_int_equal(
				decode(decoder, (uint8_t *)in.data, in.len, feed, 1000, out, &got),
				0);
			assert_int_equal(got, 10000);
			assert_memory_equal(out, data, 10000);
			assert_int_equal(decoder_in_off(decoder), whole);
		}
	}
}

/* --- what is broken --- */

static ssize_t decode_broken(enum codec codec, const struct buf *in, size_t len, size_t feed,
			     const char **ret_error)
{
	CLEANUP(points_release) struct points points = {0};
	struct decoder_options options = {.spacing = 1, .on_point = keep_point, .arg = &points};
	AUTO_DECODER struct decoder *decoder = decoder_new(codec, &options);
	AUTO_FREE uint8_t *out = malloc(MIB);
	size_t got;
	ssize_t rc = decode(decoder, (uint8_t *)in->data, len, feed, 5000, out, &got);

	*ret_error = decoder_error(decoder);
	if (rc < 0) {
		/* It stays so. */
		assert_int_equal(decoder_read(decoder, out, 10), rc);
		assert_false(decoder_done(decoder));
	} else {
		assert_memory_equal(out, data, got);
	}
	return rc;
}

static void cut_off_streams(void **state)
{
	const char *error;

	(void)state;
	for (enum codec codec = CODEC_GZIP; codec <= CODEC_ZSTD; codec++) {
		AUTO_BUF struct buf in = BUF_INIT(MIB);

		add_pieces(&in, codec, data, 5000, 5000);
		for (size_t len = 1; len < in.len; len++) {
			assert_int_equal(decode_broken(codec, &in, len, 4096, &error), -EINVAL);
			assert_non_null(strstr(error, len == 1 && codec == CODEC_GZIP
							      ? "no gzip header"
							      : "cut off"));
		}
		assert_int_equal(decode_broken(codec, &in, in.len, 4096, &error), 0);
	}
}

static void empty_streams(void **state)
{
	struct buf none = {0};
	const char *error;

	(void)state;
	assert_int_equal(decode_broken(CODEC_GZIP, &none, 0, 1, &error), -EINVAL);
	assert_int_equal(decode_broken(CODEC_ZSTD, &none, 0, 1, &error), -EINVAL);
	assert_int_equal(decode_broken(CODEC_PLAIN, &none, 0, 1, &error), 0);
}

/* A flipped bit behind the fixed header is seen, or it changed nothing (there are spare bits). */
static void flipped_bits(void **state)
{
	const char *error;

	(void)state;
	for (enum codec codec = CODEC_GZIP; codec <= CODEC_ZSTD; codec++) {
		AUTO_BUF struct buf in = BUF_INIT(MIB);

		size_t seen = 0;

		add_pieces(&in, codec, data, 3000, 3000);
		for (size_t bit = 80; bit < 8 * in.len; bit++) {
			in.data[bit / 8] = (char)(in.data[bit / 8] ^ (1 << bit % 8));
			if (decode_broken(codec, &in, in.len, 100, &error) == -EINVAL)
				seen++;
			in.data[bit / 8] = (char)(in.data[bit / 8] ^ (1 << bit % 8));
		}
		assert_true(seen > 8 * (in.len - 10) * 99 / 100);
	}
}

static void bad_gzip_headers(void **state)
{
	static const struct {
		const char *bytes;
		const char *error;
	} cases[] = {
		{"\x1f\x8b\x07\0\0\0\0\0\0\0", "gzip: unknown compression method"},
		{"\x1f\x8b\x08\x80\0\0\0\0\0\0", "gzip: reserved header flags are set"},
		{"\x1f\x8c\x08\0\0\0\0\0\0\0", "gzip: no gzip header"},
	};
	const char *error;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buf in = {.data = (char *)cases[i].bytes, .len = 10};

		assert_int_equal(decode_broken(CODEC_GZIP, &in, 10, 10, &error), -EINVAL);
		assert_string_equal(error, cases[i].error);
	}
}

static int refuse_point(void *arg, const struct codec_point *point)
{
	(void)arg;
	(void)point;
	return -ECANCELED;
}

static void callback_ends_decoding(void **state)
{
	const struct decoder_options options = {.spacing = 64 * KIB, .on_point = refuse_point};
	AUTO_BUF struct buf in = BUF_INIT(64 * MIB);
	AUTO_DECODER struct decoder *decoder = decoder_new(CODEC_GZIP, &options);
	AUTO_FREE uint8_t *out = malloc(DATA_LEN + MIB);
	size_t got;

	(void)state;
	add_zlib(&in, data, DATA_LEN, &(struct deflate_options){.level = 6});
	assert_int_equal(decode(decoder, (uint8_t *)in.data, in.len, 10000, MIB, out, &got),
			 -ECANCELED);
	assert_memory_equal(out, data, got);
}

static void points_that_make_no_sense(void **state)
{
	static const uint8_t window[1];
	const struct codec_point bits = {.bits = 8, .in_off = 1};
	const struct codec_point no_window = {.window_len = 1};
	const struct codec_point long_window = {.window = window, .window_len = CODEC_WINDOW + 1};
	const struct codec_point inside = {.in_off = 10, .out_off = 10};
	const struct codec_point member_bits = {.member = true, .bits = 1};

	(void)state;
	assert_null(decoder_resume(CODEC_GZIP, &bits, 0));
	assert_null(decoder_resume(CODEC_GZIP, &no_window, 0));
	assert_null(decoder_resume(CODEC_GZIP, &long_window, 0));
	assert_null(decoder_resume(CODEC_GZIP, &member_bits, 0));
	assert_null(decoder_resume(CODEC_ZSTD, &inside, 0));
}

/* --- zstd, plain, and the small things --- */

static void zstd_frames(void **state)
{
	static const char skippable[] = "\x50\x2a\x4d\x18\x05\0\0\0abcde";
	static const size_t pieces[] = {1000, 65536, MIB};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
		AUTO_BUF struct buf in = BUF_INIT(64 * MIB);
		size_t half = DATA_LEN / 2;

		buf_add(&in, skippable, sizeof(skippable) - 1);
		add_pieces(&in, CODEC_ZSTD, data, half, pieces[i]);
		buf_add(&in, skippable, sizeof(skippable) - 1);
		add_pieces(&in, CODEC_ZSTD, data + half, DATA_LEN - half, pieces[i]);
		buf_add(&in, skippable, sizeof(skippable) - 1);
		assert_true(check_stream(CODEC_ZSTD, &in, DATA_LEN) >= 2);
	}
}

static void zstd_window_cap(void **state)
{
	const struct decoder_options options = {.max_window = 1 * MIB};
	AUTO_BUF struct buf in = BUF_INIT(64 * MIB);
	AUTO_FREE uint8_t *out = malloc(DATA_LEN + MIB);
	struct decoder *decoder;
	size_t got;

	(void)state;
	assert_int_equal(buf_reserve(&in, ZSTD_compressBound(DATA_LEN)), 0);
	in.len = ZSTD_compress(in.data, in.cap, data, DATA_LEN, 3);
	decoder = decoder_new(CODEC_ZSTD, &options);
	assert_int_equal(decode(decoder, (uint8_t *)in.data, in.len, 10000, MIB, out, &got),
			 -EINVAL);
	assert_non_null(strstr(decoder_error(decoder), "larger window"));
	decoder_free(decoder);
	decoder = decoder_new(CODEC_ZSTD, NULL);
	assert_int_equal(decode(decoder, (uint8_t *)in.data, in.len, 10000, MIB, out, &got), 0);
	decoder_free(decoder);
}

static void plain_bytes(void **state)
{
	const struct codec_point point = {.in_off = 1000, .out_off = 1000};
	AUTO_BUF struct buf in = BUF_INIT(64 * MIB);

	(void)state;
	buf_add(&in, data, DATA_LEN);
	check_stream(CODEC_PLAIN, &in, DATA_LEN);
	check_resume(CODEC_PLAIN, &point, &in, data + 1000, DATA_LEN - 1000);
}

static void detection(void **state)
{
	(void)state;
	assert_int_equal(codec_detect("\x1f\x8b\x08\0", 4), CODEC_GZIP);
	assert_int_equal(codec_detect("\x1f\x8b", 2), CODEC_GZIP);
	assert_int_equal(codec_detect("\x1f", 1), CODEC_PLAIN);
	assert_int_equal(codec_detect("", 0), CODEC_PLAIN);
	assert_int_equal(codec_detect("\x28\xb5\x2f\xfd", 4), CODEC_ZSTD);
	assert_int_equal(codec_detect("\x28\xb5\x2f\xfe", 4), CODEC_PLAIN);
	assert_int_equal(codec_detect("\x28\xb5\x2f", 3), CODEC_PLAIN);
	assert_int_equal(codec_detect("\x5f\x2a\x4d\x18", 4), CODEC_ZSTD);
	assert_int_equal(codec_detect("\x60\x2a\x4d\x18", 4), CODEC_PLAIN);
}

static void pieces_and_their_bounds(void **state)
{
	static const size_t lens[] = {0, 1, 65535, 65536, MIB};
	AUTO_FREE uint8_t *noise = malloc(MIB), *out = malloc(2 * MIB);
	uint64_t seed = 7;

	(void)state;
	for (size_t i = 0; i < MIB; i++)
		noise[i] = (uint8_t)next_random(&seed);
	for (enum codec codec = CODEC_PLAIN; codec <= CODEC_ZSTD; codec++) {
		for (int level = 0; level <= 4; level++) {
			struct encoder *encoder = encoder_new(codec, level);

			for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
				size_t bound = encoder_bound(codec, lens[i]);
				ssize_t len = encoder_piece(encoder, noise, lens[i], out, bound);
				struct buf in = {.data = (char *)out, .len = (size_t)len};

				assert_true(len >= 0 && (size_t)len <= bound);
				check_run(codec, &in, noise, lens[i], &(struct run){0, MIB, MIB});
			}
			assert_int_equal(encoder_piece(encoder, noise, MIB + 1, out, 2 * MIB),
					 -EINVAL);
			encoder_free(encoder);
		}
	}
}

static void packed_windows(void **state)
{
	AUTO_FREE uint8_t *packed = malloc(codec_pack_bound(CODEC_WINDOW));
	AUTO_FREE uint8_t *back = malloc(CODEC_WINDOW);
	ssize_t len = codec_pack(data, CODEC_WINDOW, packed, codec_pack_bound(CODEC_WINDOW));

	(void)state;
	assert_in_range(len, 1, CODEC_WINDOW - 1);
	assert_int_equal(codec_unpack(packed, (size_t)len, back, CODEC_WINDOW), CODEC_WINDOW);
	assert_memory_equal(back, data, CODEC_WINDOW);
	assert_int_equal(codec_unpack(packed, (size_t)len, back, CODEC_WINDOW - 1), -EINVAL);
	assert_int_equal(codec_unpack(packed, (size_t)len - 1, back, CODEC_WINDOW), -EINVAL);
	assert_int_equal(codec_pack(data, CODEC_WINDOW, packed, 10), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gzip_of_every_level),
		cmocka_unit_test(gzip_of_odd_blocks),
		cmocka_unit_test(gzip_of_isal),
		cmocka_unit_test(gzip_byte_by_byte),
		cmocka_unit_test(gzip_without_boundaries),
		cmocka_unit_test(gzip_of_members),
		cmocka_unit_test(gzip_header_fields),
		cmocka_unit_test(gzip_trailing_bytes),
		cmocka_unit_test(cut_off_streams),
		cmocka_unit_test(empty_streams),
		cmocka_unit_test(flipped_bits),
		cmocka_unit_test(bad_gzip_headers),
		cmocka_unit_test(callback_ends_decoding),
		cmocka_unit_test(points_that_make_no_sense),
		cmocka_unit_test(zstd_frames),
		cmocka_unit_test(zstd_window_cap),
		cmocka_unit_test(plain_bytes),
		cmocka_unit_test(detection),
		cmocka_unit_test(pieces_and_their_bounds),
		cmocka_unit_test(packed_windows),
	};

	return cmocka_run_group_tests(tests, make_data, free_data);
}
