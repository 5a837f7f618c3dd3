/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec_encode: pieces of at most 1 MiB to gzip members or zstd frames.
 * Knows ISA-L's deflate (gzip up to level 3), zlib's (from 4 on) and libzstd. Must not know who
 * pushes what. Deterministic: no times, no names.
 */
#include <errno.h>
#include <isa-l/igzip_lib.h>
#include <zlib.h>
#include <zstd.h>

#include "regfs/codec.h"

#define PIECE_MAX     (1 * MIB)
#define GZIP_WRAPPER  (10 + 8)	 /* header and trailer */
#define STORED_BLOCK  (16 * KIB) /* what a stored block holds at least, behind 5 bytes */
#define GZIP_LEVEL    2
#define ISAL_LEVEL_UP 3
#define GZIP_LEVEL_UP 9
#define ZSTD_LEVEL    1 /* about as small as gzip -6, at a small part of its time */

struct encoder {
	enum codec codec;
	ZSTD_CCtx *zstd;	   /* CODEC_ZSTD */
	struct isal_zstream *gzip; /* CODEC_GZIP up to ISAL_LEVEL_UP, else */
	z_stream *zlib;
	uint8_t *level_buf;
	uint32_t level_buf_size;
	int level;
};

static void encoder_cleanup(struct encoder **encoder)
{
	encoder_free(*encoder);
}

#define ZLIB_GZIP 16 /* added to the window's bits: a gzip wrapper */
#define ZLIB_MEM  9

static bool open_zlib(struct encoder *encoder)
{
	z_stream *zlib = calloc(1, sizeof(*zlib));

	if (zlib && deflateInit2(zlib, encoder->level, Z_DEFLATED, MAX_WBITS + ZLIB_GZIP, ZLIB_MEM,
				 Z_DEFAULT_STRATEGY) != Z_OK)
		free(STEAL(zlib));
	encoder->zlib = zlib;
	return zlib;
}

static bool open_gzip(struct encoder *encoder, int level)
{
	static const uint32_t buf_sizes[] = {
		0,
		ISAL_DEF_LVL1_DEFAULT,
		ISAL_DEF_LVL2_DEFAULT,
		ISAL_DEF_LVL3_DEFAULT,
	};

	encoder->level = level <= 0 ? GZIP_LEVEL : MIN(level, GZIP_LEVEL_UP);
	if (encoder->level > ISAL_LEVEL_UP)
		return open_zlib(encoder);
	encoder->level_buf_size = buf_sizes[encoder->level];
	encoder->level_buf = malloc(encoder->level_buf_size);
	encoder->gzip = malloc(sizeof(*encoder->gzip));
	return encoder->level_buf && encoder->gzip;
}

static bool open_zstd(struct encoder *encoder, int level)
{
	level = level <= 0 ? ZSTD_LEVEL : MIN(level, ZSTD_maxCLevel());
	encoder->zstd = ZSTD_createCCtx();
	return encoder->zstd &&
	       !ZSTD_isError(
		       ZSTD_CCtx_setParameter(encoder->zstd, ZSTD_c_compressionLevel, level)) &&
	       !ZSTD_isError(ZSTD_CCtx_setParameter(encoder->zstd, ZSTD_c_checksumFlag, 1));
}

struct encoder *encoder_new(enum codec codec, int level)
{
	CLEANUP(encoder_cleanup) struct encoder *encoder = calloc(1, sizeof(*encoder));

	if (!encoder)
		return NULL;
	encoder->codec = codec;
	if (codec == CODEC_GZIP && !open_gzip(encoder, level))
		return NULL;
	if (codec == CODEC_ZSTD && !open_zstd(encoder, level))
		return NULL;
	return STEAL(encoder);
}

void encoder_free(struct encoder *encoder)
{
	if (!encoder)
		return;
	ZSTD_freeCCtx(encoder->zstd);
	if (encoder->zlib)
		deflateEnd(encoder->zlib);
	free(encoder->zlib);
	free(encoder->gzip);
	free(encoder->level_buf);
	free(encoder);
}

static ssize_t zlib_piece(struct encoder *encoder, const void *in, size_t len, void *out,
			  size_t cap)
{
	z_stream *zlib = encoder->zlib;

	if (deflateReset(zlib) != Z_OK)
		return -EINVAL;
	zlib->next_in = (uint8_t *)in;
	zlib->avail_in = (uInt)len;
	zlib->next_out = out;
	zlib->avail_out = (uInt)MIN(cap, UINT32_MAX);
	return deflate(zlib, Z_FINISH) == Z_STREAM_END ? (ssize_t)zlib->total_out : -EINVAL;
}

static ssize_t gzip_piece(struct encoder *encoder, const void *in, size_t len, void *out,
			  size_t cap)
{
	struct isal_zstream *stream = encoder->gzip;

	isal_deflate_init(stream);
	stream->level = (uint32_t)encoder->level;
	stream->level_buf = encoder->level_buf;
	stream->level_buf_size = encoder->level_buf_size;
	stream->gzip_flag = IGZIP_GZIP;
	stream->end_of_stream = 1;
	stream->flush = NO_FLUSH;
	stream->next_in = (uint8_t *)in;
	stream->avail_in = (uint32_t)len;
	stream->next_out = out;
	stream->avail_out = (uint32_t)MIN(cap, UINT32_MAX);
	if (isal_deflate(stream) != COMP_OK || stream->internal_state.state != ZSTATE_END)
		return -EINVAL;
	return (ssize_t)stream->total_out;
}

static ssize_t zstd_piece(struct encoder *encoder, const void *in, size_t len, void *out,
			  size_t cap)
{
	size_t rc = ZSTD_compress2(encoder->zstd, out, cap, in, len);

	return ZSTD_isError(rc) ? -EINVAL : (ssize_t)rc;
}

ssize_t encoder_piece(struct encoder *encoder, const void *in, size_t len, void *out, size_t cap)
{
	if (len > PIECE_MAX || cap < encoder_bound(encoder->codec, len))
		return -EINVAL;
	switch (encoder->codec) {
	case CODEC_GZIP:
		return encoder->zlib ? zlib_piece(encoder, in, len, out, cap)
				     : gzip_piece(encoder, in, len, out, cap);
	case CODEC_ZSTD:
		return zstd_piece(encoder, in, len, out, cap);
	default:
		if (len)
			memcpy(out, in, len);
		return (ssize_t)len;
	}
}

size_t encoder_bound(enum codec codec, size_t len)
{
	switch (codec) {
	case CODEC_GZIP:
		return len + 5 * (len / STORED_BLOCK + 1) + GZIP_WRAPPER;
	case CODEC_ZSTD:
		return ZSTD_compressBound(len);
	default:
		return len;
	}
}
