/* SPDX-License-Identifier: Apache-2.0 */
/* codec_streams: see its header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <isa-l/igzip_lib.h>

#include "codec_streams.h"

uint8_t *codec_data;

uint64_t codec_random(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 33;
}

/* Text with repetitions, runs, noise and code-like records, each of some hundred KiB. */
int make_codec_data(void **state)
{
	static const char *const words[] = {"layer ",  "of ",	  "a ",	      "file\n", "0x00 ",
					    "resume ", "{\"k\":", "usr/lib/", "so.6 ",	"point "};
	uint64_t seed = 1;
	size_t len = 0;

	(void)state;
	codec_data = malloc(DATA_LEN + 16);
	assert_non_null(codec_data);
	while (len < DATA_LEN) {
		unsigned int kind = (unsigned int)(len >> 17) % 4;

		if (kind == 0)
			len += (size_t)snprintf((char *)codec_data + len, 16, "%s",
						words[codec_random(&seed) % ARRAY_SIZE(words)]);
		else if (kind == 1)
			codec_data[len++] = (uint8_t)(codec_random(&seed) % 37 ? 0 : 'z');
		else if (kind == 2)
			codec_data[len++] = (uint8_t)codec_random(&seed);
		else {
			codec_data[len] = (uint8_t)((len >> 3 & 7) * (codec_random(&seed) % 3));
			len++;
		}
	}
	return 0;
}

int free_codec_data(void **state)
{
	(void)state;
	free(codec_data);
	return 0;
}

void add_zlib(struct buf *out, const uint8_t *in, size_t len, const struct deflate_options *options)
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

void add_isal(struct buf *out, const uint8_t *in, size_t len, uint32_t level)
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

void add_pieces(struct buf *out, enum codec codec, const uint8_t *in, size_t len, size_t piece)
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

int collect_point(void *arg, const struct codec_point *point)
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

void points_release(struct points *points)
{
	for (size_t i = 0; i < points->count; i++)
		free((void *)points->points[i].window);
	free(points->points);
}

ssize_t decode_all(struct decoder *decoder, const struct buf *in, size_t feed, size_t cap,
		   uint8_t *out, size_t *ret_len)
{
	size_t fed = 0, got = 0;
	ssize_t rc = 0;

	while (!decoder_done(decoder)) {
		rc = decoder_read(decoder, out + got, cap);
		if (rc < 0)
			break;
		got += (size_t)rc;
		if (rc == 0 && !decoder_done(decoder)) {
			size_t step = MIN(feed, in->len - fed);

			decoder_input(decoder, in->data + fed, step, fed + step == in->len);
			fed += step;
		}
	}
	*ret_len = got;
	return rc < 0 ? rc : 0;
}
