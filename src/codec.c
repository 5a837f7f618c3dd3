/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec: the decoder that the callers see, and plain streams.
 * Knows which body decodes what, and the rules for points. Must not know how gzip or zstd
 * work (codec_gzip.c, codec_zstd.c).
 */
#include <errno.h>

#include "codec_priv.h"

enum codec codec_detect(const void *data, size_t len)
{
	const uint8_t *p = data;

	if (len >= 2 && p[0] == 0x1f && p[1] == 0x8b)
		return CODEC_GZIP;
	if (len < CODEC_MAGIC_LEN)
		return CODEC_PLAIN;
	if (p[0] == 0x28 && p[1] == 0xb5 && p[2] == 0x2f && p[3] == 0xfd)
		return CODEC_ZSTD;
	if ((p[0] & 0xf0) == 0x50 && p[1] == 0x2a && p[2] == 0x4d && p[3] == 0x18)
		return CODEC_ZSTD;
	return CODEC_PLAIN;
}

int decoder_invalid(struct decoder *decoder, const char *sentence)
{
	decoder->error = sentence;
	return -EINVAL;
}

int decoder_emit(struct decoder *decoder, const struct codec_point *point)
{
	decoder->next_point = point->out_off + decoder->options.spacing;
	return decoder->options.on_point(decoder->options.arg, point);
}

int decoder_emit_member(struct decoder *decoder, uint64_t in_off)
{
	const struct codec_point point = {
		.in_off = in_off,
		.out_off = decoder->out_off,
		.member = true,
	};

	return decoder->out_off >= decoder->next_point ? decoder_emit(decoder, &point) : 0;
}

static int plain_step(struct decoder *decoder)
{
	size_t len = MIN(decoder->in_len, decoder->room);

	if (len) {
		memcpy(decoder->out, decoder->in, len);
		decoder_consumed(decoder, len);
		decoder_produced(decoder, len);
	}
	decoder->done = decoder_input_ended(decoder);
	return STEP_WAIT;
}

static struct decoder *decoder_alloc(enum codec codec, const struct decoder_options *options)
{
	struct decoder *decoder = calloc(1, sizeof(*decoder));

	if (!decoder)
		return NULL;
	decoder->codec = codec;
	decoder->error = "";
	decoder->next_point = UINT64_MAX;
	if (options) {
		decoder->options = *options;
		/* Everybody has the point at 0: the stream's start. */
		if (options->spacing && options->on_point)
			decoder->next_point = options->spacing;
	}
	return decoder;
}

struct decoder *decoder_new(enum codec codec, const struct decoder_options *options)
{
	AUTO_DECODER struct decoder *decoder = decoder_alloc(codec, options);

	if (!decoder)
		return NULL;
	if (codec == CODEC_GZIP && gzip_open(decoder) < 0)
		return NULL;
	if (codec == CODEC_ZSTD && zstd_open(decoder) < 0)
		return NULL;
	return STEAL(decoder);
}

static bool point_makes_sense(enum codec codec, const struct codec_point *point)
{
	if (point->bits > 7 || point->window_len > CODEC_WINDOW)
		return false;
	if (point->window_len && !point->window)
		return false;
	if (codec == CODEC_PLAIN)
		return point->in_off == point->out_off && point->bits == 0;
	if (codec == CODEC_ZSTD || point->member)
		return point->member && point->bits == 0;
	return true;
}

struct decoder *decoder_resume(enum codec codec, const struct codec_point *point, uint8_t first)
{
	AUTO_DECODER struct decoder *decoder = NULL;

	if (!point_makes_sense(codec, point))
		return NULL;
	decoder = decoder_new(codec, NULL);
	if (!decoder)
		return NULL;
	if (codec == CODEC_GZIP && !point->member && gzip_open_at(decoder, point, first) < 0)
		return NULL;
	decoder->in_off = point->in_off;
	decoder->out_off = point->out_off;
	return STEAL(decoder);
}

void decoder_free(struct decoder *decoder)
{
	if (!decoder)
		return;
	gzip_close(decoder);
	zstd_close(decoder);
	free(decoder);
}

void decoder_cleanup(struct decoder **decoder)
{
	decoder_free(*decoder);
}

void decoder_input(struct decoder *decoder, const void *data, size_t len, bool last)
{
	decoder->in = data;
	decoder->in_len = len;
	decoder->last = last;
}

static int decoder_step(struct decoder *decoder)
{
	switch (decoder->codec) {
	case CODEC_GZIP:
		return gzip_step(decoder);
	case CODEC_ZSTD:
		return zstd_step(decoder);
	default:
		return plain_step(decoder);
	}
}

ssize_t decoder_read(struct decoder *decoder, void *out, size_t cap)
{
	int step = STEP_MORE;

	decoder->out = out;
	decoder->room = cap;
	while (step == STEP_MORE && !decoder->failed && !decoder->done && decoder->room) {
		step = decoder_step(decoder);
		if (step < 0)
			decoder->failed = step;
	}
	/* What was decoded before a fault is the caller's; the fault is the next answer. */
	if (decoder->room == cap && decoder->failed)
		return decoder->failed;
	return (ssize_t)(cap - decoder->room);
}

bool decoder_done(const struct decoder *decoder)
{
	return decoder->done;
}

bool decoder_whole(const struct decoder *decoder)
{
	if (decoder->failed || decoder->in_len)
		return false;
	if (decoder->done)
		return true;
	switch (decoder->codec) {
	case CODEC_GZIP:
		return gzip_whole(decoder);
	case CODEC_ZSTD:
		return decoder->between && decoder->in_off > 0;
	default:
		return true;
	}
}

uint64_t decoder_in_off(const struct decoder *decoder)
{
	return decoder->in_off;
}

uint64_t decoder_out_off(const struct decoder *decoder)
{
	return decoder->out_off;
}

size_t decoder_memory(const struct decoder *decoder)
{
	return sizeof(*decoder) + gzip_memory(decoder) + zstd_memory(decoder);
}

const char *decoder_error(const struct decoder *decoder)
{
	return decoder->error;
}
