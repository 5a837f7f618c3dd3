/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec: every kind of stream decodes to what went in, whatever the sizes of the pieces, and
 * every point resumes, with our decoder and with zlib.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>

#include "codec_streams.h"

#define RESUME_LEN (300 * KIB)

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
		.spacing = run->spacing, .on_point = collect_point, .arg = &points};
	AUTO_FREE uint8_t *out = malloc(len + run->cap);
	AUTO_DECODER struct decoder *decoder = decoder_new(codec, &options);
	size_t got = 0;
	ssize_t rc = decode_all(decoder, in, run->feed, run->cap, out, &got);

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
		count = check_run(codec, in, codec_data, len, &runs[i]);
	return count;
}

static void check_zlib(const struct deflate_options *options, size_t least_points)
{
	AUTO_BUF struct buf in = BUF_INIT(64 * MIB);

	add_zlib(&in, codec_data, DATA_LEN, options);
	assert_true(check_stream(CODEC_GZIP, &in, DATA_LEN) >= least_points);
}

/* --- gzip --- */

static void gzip_of_every_level(void **state)
{
	(void)state;
	for (int level = 0; level <= 9; level += 3)
		check_zlib(&(struct deflate_options){.level = level}, 8);
}

static void gzip_of_odd_blocks(void **state)
{
	static const struct deflate_options options[] = {
		{.level = 6, .strategy = Z_FIXED},
		{.level = 6, .strategy = Z_HUFFMAN_ONLY},
		{.level = 6, .strategy = Z_RLE, .mem_level = 1},
		{.level = 9, .window_bits = 9, .mem_level = 9},
		{.level = 6, .mem_level = 9, .flush = Z_FULL_FLUSH, .flush_every = 50000},
		{.level = 1, .flush = Z_SYNC_FLUSH, .flush_every = 3000},
		{.level = 6, .flush = Z_PARTIAL_FLUSH, .flush_every = 5000},
		{.level = 0, .flush = Z_BLOCK, .flush_every = 777},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		check_zlib(&options[i], 8);
}

static void gzip_of_isal(void **state)
{
	(void)state;
	for (uint32_t level = 0; level <= 3; level++) {
		AUTO_BUF struct buf in = BUF_INIT(64 * MIB);
		size_t points;

		add_isal(&in, codec_data, DATA_LEN, level);
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
	add_zlib(&in, codec_data, 100 * KIB, &(struct deflate_options){.level = 6, .mem_level = 1});
	add_pieces(&in, CODEC_GZIP, codec_data + 100 * KIB, 100 * KIB, 5000);
	assert_true(check_run(CODEC_GZIP, &in, codec_data, 200 * KIB, &run) >= 15);
}

/*
 * A point is due, or the decoder's buffer full, just before, at and behind a block's end; blocks of
 * 32767 one-bit literals, where one look-up yields literals and the end.
 */
static void gzip_points_near_block_ends(void **state)
{
	static const struct deflate_options options = {
		.level = 6, .strategy = Z_HUFFMAN_ONLY, .mem_level = 9};
	const size_t block = 32767, len = 10 * block;
	AUTO_FREE uint8_t *zeros = calloc(1, len);
	AUTO_BUF struct buf in = BUF_INIT(64 * MIB);

	(void)state;
	add_zlib(&in, zeros, len, &options);
	for (size_t spacing = 3 * block - 9; spacing < 3 * block + 9; spacing++) {
		const struct run run = {.spacing = spacing, .feed = MIB, .cap = MIB};

		assert_true(check_run(CODEC_GZIP, &in, zeros, len, &run) >= 2);
	}
}

/* A block's output is all handed out before the input with the block's end is in. */
static void gzip_block_ends_in_later_input(void **state)
{
	AUTO_FREE uint8_t *zeros = calloc(1, MIB);

	(void)state;
	for (size_t block = 10000; block < 10258; block += 3) {
		const struct run run = {.spacing = block, .feed = 1, .cap = MIB};
		AUTO_BUF struct buf in = BUF_INIT(64 * MIB);

		add_zlib(&in, zeros, 6 * block,
			 &(struct deflate_options){
				 .level = 6, .flush = Z_BLOCK, .flush_every = block});
		assert_true(check_run(CODEC_GZIP, &in, zeros, 6 * block, &run) >= 4);
	}
}

/* The last match of a block is the one that overflows the decoder's buffer. */
static void gzip_points_at_full_buffer(void **state)
{
	/* A literal, 508 matches of 258 bytes, and one of 200. */
	const size_t block = 1 + 508 * 258 + 200, len = 4 * block;
	const struct deflate_options options = {
		.level = 6, .flush = Z_SYNC_FLUSH, .flush_every = block};
	AUTO_FREE uint8_t *zeros = calloc(1, len);
	AUTO_BUF struct buf in = BUF_INIT(64 * MIB);

	(void)state;
	add_zlib(&in, zeros, len, &options);
	for (size_t before = 0; before < 220; before += 20) {
		const struct run run = {
			.spacing = block - CODEC_WINDOW - before, .feed = MIB, .cap = MIB};

		assert_true(check_run(CODEC_GZIP, &in, zeros, len, &run) >= 3);
	}
}

/* Where ISA-L's buffer fills up behind a point and a read ends there, what it decoded directly
 * must be there as history for the next read. */
static void gzip_read_ends_behind_point(void **state)
{
	enum { LEAST = 192 * KIB - 300, MOST = 192 * KIB + 100, STEP = 1, TAIL = 2000 };
	AUTO_FREE uint8_t *data = malloc(MOST + TAIL);

	(void)state;
	for (size_t block = LEAST; block < MOST; block += STEP) {
		const struct deflate_options options = {
			.level = 6, .mem_level = 9, .flush = Z_FULL_FLUSH, .flush_every = block};
		const struct run run = {128 * KIB, SIZE_MAX, block + 4};
		AUTO_BUF struct buf in = BUF_INIT(1 * MIB);
		uint64_t random = 1, word = 0;

		for (size_t i = 0; i < block + TAIL; i++) {
			word = i % 16 ? word : codec_random(&random) & 1;
			data[i] = (uint8_t)(i < block ? 'A' + word * 16 + i % 16 : 'k' + i % 5);
		}
		add_zlib(&in, data, block + TAIL, &options);
		assert_int_equal(check_run(CODEC_GZIP, &in, data, block + TAIL, &run), 1);
	}
}

static void gzip_without_boundaries(void **state)
{
	AUTO_BUF struct buf in = BUF_INIT(64 * MIB);

	(void)state;
	add_isal(&in, codec_data, 120 * KIB, 0);
	assert_int_equal(check_stream(CODEC_GZIP, &in, 120 * KIB), 0);
}

static void gzip_of_members(void **state)
{
	static const size_t pieces[] = {100, 4000, 65536, MIB};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
		AUTO_BUF struct buf in = BUF_INIT(64 * MIB);
		size_t len = pieces[i] < 1000 ? 300 * KIB : DATA_LEN;

		add_pieces(&in, CODEC_GZIP, codec_data, 0, 1);
		add_pieces(&in, CODEC_GZIP, codec_data, len, pieces[i]);
		add_pieces(&in, CODEC_GZIP, codec_data, 0, 1);
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

		add_zlib(&in, codec_data, 10000,
			 &(struct deflate_options){.level = 6, .header = &header});
		add_zlib(&in, codec_data + 10000, 70000,
			 &(struct deflate_options){.level = 6, .header = &header});
		check_stream(CODEC_GZIP, &in, 80000);
		check_run(CODEC_GZIP, &in, codec_data, 80000, &(struct run){0, 1, 5000});
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

/* Points for readers that know deflate alone: behind each member's header, and in between where
 * they are due. The second member is empty, the third has a header with all there can be. */
static void gzip_raw_members(void **state)
{
	static const size_t lens[] = {300000, 0, 500000, 1000};
	static const size_t feeds[] = {1, 100, 64 * MIB};
	gz_header header = {
		.extra = (uint8_t *)"extra", .extra_len = 5, .name = (uint8_t *)"name", .hcrc = 1};
	AUTO_FREE uint8_t *out = malloc(2 * MIB);
	AUTO_BUF struct buf in = BUF_INIT(64 * MIB);
	size_t bodies[ARRAY_SIZE(lens)], outs[ARRAY_SIZE(lens)], len = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
		bodies[i] = in.len + (i == 2 ? 10 + 2 + 5 + 5 + 2 : 10);
		outs[i] = len;
		add_zlib(&in, codec_data + len, lens[i],
			 &(struct deflate_options){.level = 6, .header = i == 2 ? &header : NULL});
		len += lens[i];
	}
	for (size_t run = 0; run < ARRAY_SIZE(feeds); run++) {
		CLEANUP(points_release) struct points points = {0};
		const struct decoder_options options = {
			.spacing = 64 * KIB,
			.on_point = collect_point,
			.arg = &points,
			.raw_members = true,
		};
		AUTO_DECODER struct decoder *decoder = decoder_new(CODEC_GZIP, &options);
		size_t got = 0, member = 0;
		uint64_t last = 0;

		assert_int_equal(decode_all(decoder, &in, feeds[run], 10000, out, &got), 0);
		assert_int_equal(got, len);
		for (size_t i = 0; i < points.count; i++) {
			const struct codec_point *point = &points.points[i];

			assert_false(point->member);
			if (member < ARRAY_SIZE(lens) && point->in_off == bodies[member]) {
				assert_int_equal(point->out_off, outs[member]);
				assert_int_equal(point->bits, 0);
				assert_int_equal(point->window_len, 0);
				member++;
			} else {
				assert_true(point->out_off >= last + options.spacing);
				assert_true(point->window_len > 0);
			}
			last = point->out_off;
			check_resume(CODEC_GZIP, point, &in, codec_data + last, len - last);
		}
		assert_int_equal(member, ARRAY_SIZE(lens));
		assert_true(points.count >= member + 2);
	}
}

/* --- zstd, plain, pieces --- */

static void zstd_frames(void **state)
{
	static const char skippable[] = "\x50\x2a\x4d\x18\x05\0\0\0abcde";
	static const size_t pieces[] = {1000, 65536, MIB};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
		AUTO_BUF struct buf in = BUF_INIT(64 * MIB);
		size_t half = DATA_LEN / 2;

		buf_add(&in, skippable, sizeof(skippable) - 1);
		add_pieces(&in, CODEC_ZSTD, codec_data, half, pieces[i]);
		buf_add(&in, skippable, sizeof(skippable) - 1);
		add_pieces(&in, CODEC_ZSTD, codec_data + half, DATA_LEN - half, pieces[i]);
		buf_add(&in, skippable, sizeof(skippable) - 1);
		assert_true(check_stream(CODEC_ZSTD, &in, DATA_LEN) >= 2);
	}
}

static void plain_bytes(void **state)
{
	const struct codec_point point = {.in_off = 1000, .out_off = 1000};
	AUTO_BUF struct buf in = BUF_INIT(64 * MIB);

	(void)state;
	buf_add(&in, codec_data, DATA_LEN);
	check_stream(CODEC_PLAIN, &in, DATA_LEN);
	check_resume(CODEC_PLAIN, &point, &in, codec_data + 1000, DATA_LEN - 1000);
}

static void pieces_and_their_bounds(void **state)
{
	static const size_t lens[] = {0, 1, 65535, 65536, MIB};
	AUTO_FREE uint8_t *noise = malloc(MIB), *out = malloc(2 * MIB);
	uint64_t seed = 7;

	(void)state;
	for (size_t i = 0; i < MIB; i++)
		noise[i] = (uint8_t)codec_random(&seed);
	for (enum codec codec = CODEC_PLAIN; codec <= CODEC_ZSTD; codec++) {
		for (int level = 0; level <= 9; level += level < 4 ? 1 : 5) {
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

/* Whole only at the end of a member or frame, its trailer included. */
static void whole_streams(void **state)
{
	AUTO_FREE uint8_t *packed = malloc(2 * MIB), *out = malloc(MIB);

	(void)state;
	for (enum codec codec = CODEC_GZIP; codec <= CODEC_ZSTD; codec++) {
		struct encoder *encoder = encoder_new(codec, 0);
		ssize_t len = encoder_piece(encoder, codec_data, 100000, packed, 2 * MIB);
		AUTO_DECODER struct decoder *decoder = decoder_new(codec, NULL);

		assert_true(len > 0);
		for (int member = 0; member < 2; member++) {
			for (ssize_t i = 0; i < len; i++) {
				/* Where it would end is where it is whole. */
				assert_true(decoder_whole(decoder) == (i == 0 && member == 1));
				decoder_input(decoder, packed + i, 1, false);
				while (decoder_read(decoder, out, MIB) > 0)
					;
			}
		}
		assert_true(decoder_whole(decoder));
		assert_int_equal(decoder_out_off(decoder), 200000);
		encoder_free(encoder);
	}
}

static void *in_small_stack(void *arg)
{
	pieces_and_their_bounds(NULL);
	return arg;
}

static void small_stacks(void **state)
{
	pthread_attr_t attr;
	pthread_t thread;

	(void)state;
	pthread_attr_init(&attr);
	assert_int_equal(pthread_attr_setstacksize(&attr, 256 * KIB), 0);
	assert_int_equal(pthread_create(&thread, &attr, in_small_stack, NULL), 0);
	pthread_join(thread, NULL);
	pthread_attr_destroy(&attr);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gzip_of_every_level),
		cmocka_unit_test(gzip_of_odd_blocks),
		cmocka_unit_test(gzip_of_isal),
		cmocka_unit_test(gzip_byte_by_byte),
		cmocka_unit_test(gzip_points_near_block_ends),
		cmocka_unit_test(gzip_block_ends_in_later_input),
		cmocka_unit_test(gzip_points_at_full_buffer),
		cmocka_unit_test(gzip_read_ends_behind_point),
		cmocka_unit_test(gzip_without_boundaries),
		cmocka_unit_test(gzip_of_members),
		cmocka_unit_test(gzip_header_fields),
		cmocka_unit_test(gzip_raw_members),
		cmocka_unit_test(zstd_frames),
		cmocka_unit_test(plain_bytes),
		cmocka_unit_test(pieces_and_their_bounds),
		cmocka_unit_test(whole_streams),
		cmocka_unit_test(small_stacks),
	};

	return cmocka_run_group_tests(tests, make_codec_data, free_codec_data);
}
