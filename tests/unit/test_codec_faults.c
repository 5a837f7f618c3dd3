/* SPDX-License-Identifier: Apache-2.0 */
/* codec: what is broken, cut off or followed by garbage; caps; windows at rest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <zstd.h>

#include "codec_streams.h"

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

			add_zlib(&in, codec_data, 10000, &(struct deflate_options){.level = 6});
			whole = in.len;
			buf_add(&in, tails[i], lens[i]);
			assert_int_equal(decode_all(decoder, &in, feed, 1000, out, &got), 0);
			assert_int_equal(got, 10000);
			assert_memory_equal(out, codec_data, 10000);
			assert_int_equal(decoder_in_off(decoder), whole);
		}
	}
}

/* --- what is broken --- */

static ssize_t decode_broken(enum codec codec, const struct buf *in, size_t feed,
			     const char **ret_error)
{
	CLEANUP(points_release) struct points points = {0};
	struct decoder_options options = {.spacing = 1, .on_point = collect_point, .arg = &points};
	AUTO_DECODER struct decoder *decoder = decoder_new(codec, &options);
	AUTO_FREE uint8_t *out = malloc(MIB);
	size_t got;
	ssize_t rc = decode_all(decoder, in, feed, 5000, out, &got);

	*ret_error = decoder_error(decoder);
	if (rc < 0) {
		/* It stays so. */
		assert_int_equal(decoder_read(decoder, out, 10), rc);
		assert_false(decoder_done(decoder));
	} else {
		assert_memory_equal(out, codec_data, got);
	}
	return rc;
}

static void cut_off_streams(void **state)
{
	const char *error;

	(void)state;
	for (enum codec codec = CODEC_GZIP; codec <= CODEC_ZSTD; codec++) {
		AUTO_BUF struct buf in = BUF_INIT(MIB);

		add_pieces(&in, codec, codec_data, 5000, 5000);
		for (size_t len = 1; len < in.len; len++) {
			const struct buf cut = {.data = in.data, .len = len};

			assert_int_equal(decode_broken(codec, &cut, 4096, &error), -EINVAL);
			assert_non_null(strstr(error, len == 1 && codec == CODEC_GZIP
							      ? "no gzip header"
							      : "cut off"));
		}
		assert_int_equal(decode_broken(codec, &in, 4096, &error), 0);
	}
}

static void empty_streams(void **state)
{
	struct buf none = {.data = (char *)""};
	const char *error;

	(void)state;
	assert_int_equal(decode_broken(CODEC_GZIP, &none, 1, &error), -EINVAL);
	assert_int_equal(decode_broken(CODEC_ZSTD, &none, 1, &error), -EINVAL);
	assert_int_equal(decode_broken(CODEC_PLAIN, &none, 1, &error), 0);
}

/* A flipped bit behind the fixed header is seen, or it changed nothing (there are spare bits). */
static void flipped_bits(void **state)
{
	const char *error;

	(void)state;
	for (enum codec codec = CODEC_GZIP; codec <= CODEC_ZSTD; codec++) {
		AUTO_BUF struct buf in = BUF_INIT(MIB);

		size_t seen = 0;

		add_pieces(&in, codec, codec_data, 3000, 3000);
		for (size_t bit = 80; bit < 8 * in.len; bit++) {
			in.data[bit / 8] = (char)(in.data[bit / 8] ^ (1 << bit % 8));
			if (decode_broken(codec, &in, 100, &error) == -EINVAL)
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

		assert_int_equal(decode_broken(CODEC_GZIP, &in, 10, &error), -EINVAL);
		assert_string_equal(error, cases[i].error);
	}
}

/* The member that is resumed cannot be checked; those behind it are. */
static void checksums_after_resuming(void **state)
{
	CLEANUP(points_release) struct points points = {0};
	const struct decoder_options options = {
		.spacing = DATA_LEN / 2, .on_point = collect_point, .arg = &points};
	AUTO_FREE uint8_t *out = malloc(DATA_LEN + MIB);
	AUTO_BUF struct buf in = BUF_INIT(64 * MIB);
	struct decoder *decoder = decoder_new(CODEC_GZIP, &options);
	const struct codec_point *point;
	size_t got;

	(void)state;
	add_zlib(&in, codec_data, DATA_LEN - 1000, &(struct deflate_options){.level = 6});
	add_pieces(&in, CODEC_GZIP, codec_data + DATA_LEN - 1000, 1000, 1000);
	assert_int_equal(decode_all(decoder, &in, 10000, MIB, out, &got), 0);
	decoder_free(decoder);
	assert_int_equal(points.count, 1);
	point = &points.points[0];
	for (int damage = 0; damage < 2; damage++) {
		const struct buf rest = {.data = in.data + point->in_off,
					 .len = in.len - point->in_off};

		in.data[in.len - 5] ^= (char)damage; /* in the last member's CRC-32 */
		decoder = decoder_resume(CODEC_GZIP, point, (uint8_t)in.data[point->in_off - 1]);
		assert_int_equal(decode_all(decoder, &rest, 10000, MIB, out, &got),
				 damage ? -EINVAL : 0);
		decoder_free(decoder);
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
	add_zlib(&in, codec_data, DATA_LEN, &(struct deflate_options){.level = 6});
	assert_int_equal(decode_all(decoder, &in, 10000, MIB, out, &got), -ECANCELED);
	assert_memory_equal(out, codec_data, got);
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

static void zstd_window_cap(void **state)
{
	const struct decoder_options options = {.max_window = 1 * MIB};
	AUTO_BUF struct buf in = BUF_INIT(64 * MIB);
	AUTO_FREE uint8_t *out = malloc(DATA_LEN + MIB);
	struct decoder *decoder;
	size_t got;

	(void)state;
	assert_int_equal(buf_reserve(&in, ZSTD_compressBound(DATA_LEN)), 0);
	in.len = ZSTD_compress(in.data, in.cap, codec_data, DATA_LEN, 3);
	decoder = decoder_new(CODEC_ZSTD, &options);
	assert_int_equal(decode_all(decoder, &in, 10000, MIB, out, &got), -EINVAL);
	assert_non_null(strstr(decoder_error(decoder), "larger window"));
	decoder_free(decoder);
	decoder = decoder_new(CODEC_ZSTD, NULL);
	assert_int_equal(decode_all(decoder, &in, 10000, MIB, out, &got), 0);
	decoder_free(decoder);
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

static void packed_windows(void **state)
{
	AUTO_FREE uint8_t *packed = malloc(codec_pack_bound(CODEC_WINDOW));
	AUTO_FREE uint8_t *back = malloc(CODEC_WINDOW);
	struct packer *packer = packer_new();
	ssize_t len = packer_pack(packer, codec_data, CODEC_WINDOW, packed,
				  codec_pack_bound(CODEC_WINDOW));

	(void)state;
	assert_in_range(len, 1, CODEC_WINDOW - 1);
	assert_int_equal(codec_unpack(packed, (size_t)len, back, CODEC_WINDOW), CODEC_WINDOW);
	assert_memory_equal(back, codec_data, CODEC_WINDOW);
	assert_int_equal(codec_unpack(packed, (size_t)len, back, CODEC_WINDOW - 1), -EINVAL);
	assert_int_equal(codec_unpack(packed, (size_t)len - 1, back, CODEC_WINDOW), -EINVAL);
	assert_int_equal(packer_pack(packer, codec_data, CODEC_WINDOW, packed, 10), -EINVAL);
	/* a failure leaves nothing behind */
	assert_int_equal(packer_pack(packer, codec_data, CODEC_WINDOW, packed,
				     codec_pack_bound(CODEC_WINDOW)),
			 len);
	packer_free(packer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gzip_trailing_bytes),
		cmocka_unit_test(cut_off_streams),
		cmocka_unit_test(empty_streams),
		cmocka_unit_test(flipped_bits),
		cmocka_unit_test(bad_gzip_headers),
		cmocka_unit_test(checksums_after_resuming),
		cmocka_unit_test(callback_ends_decoding),
		cmocka_unit_test(points_that_make_no_sense),
		cmocka_unit_test(zstd_window_cap),
		cmocka_unit_test(detection),
		cmocka_unit_test(packed_windows),
	};

	return cmocka_run_group_tests(tests, make_codec_data, free_codec_data);
}
