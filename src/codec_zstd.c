/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec_zstd: zstd frames (RFC 8878), decoded as a stream; and windows at rest.
 * Knows libzstd. Must not know gzip. zstd has no way to resume inside a frame, so points
 * are at the first bytes of frames only.
 */
#include <errno.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "codec_priv.h"

#define DEFAULT_MAX_WINDOW (128ULL * MIB)

/* Windows are packed during a layer's first pass, on the thread that everything waits for: one
 * context for all of them, and tables that stay in the first-level cache, save a tenth of the time
 * and cost no bytes. */
#define PACK_WINDOW_LOG 15 /* CODEC_WINDOW */
#define PACK_HASH_LOG	11
#define PACK_MIN_MATCH	5

static int window_log(uint64_t max_window)
{
	ZSTD_bounds bounds = ZSTD_dParam_getBounds(ZSTD_d_windowLogMax);
	int log = 63 - __builtin_clzll(max_window ? max_window : DEFAULT_MAX_WINDOW);

	return MAX(bounds.lowerBound, MIN(bounds.upperBound, log));
}

int zstd_open(struct decoder *decoder)
{
	decoder->zstd = ZSTD_createDCtx();
	if (!decoder->zstd)
		return -ENOMEM;
	ZSTD_DCtx_setParameter(decoder->zstd, ZSTD_d_windowLogMax,
			       window_log(decoder->options.max_window));
	decoder->between = true;
	return 0;
}

void zstd_close(struct decoder *decoder)
{
	ZSTD_freeDCtx(decoder->zstd);
}

size_t zstd_memory(const struct decoder *decoder)
{
	return ZSTD_sizeof_DCtx(decoder->zstd);
}

static int zstd_failed(struct decoder *decoder, size_t code)
{
	switch (ZSTD_getErrorCode(code)) {
	case ZSTD_error_memory_allocation:
		return -ENOMEM;
	case ZSTD_error_frameParameter_windowTooLarge:
		return decoder_invalid(decoder,
				       "zstd: the frame needs a larger window than allowed");
	case ZSTD_error_checksum_wrong:
		return decoder_invalid(decoder, "zstd: wrong checksum");
	case ZSTD_error_dictionary_wrong:
		return decoder_invalid(decoder, "zstd: the frame needs a dictionary");
	default:
		return decoder_invalid(decoder, "zstd: invalid data");
	}
}

int zstd_step(struct decoder *decoder)
{
	ZSTD_inBuffer in = {decoder->in, decoder->in_len, 0};
	ZSTD_outBuffer out = {decoder->out, decoder->room, 0};
	size_t rest;
	int rc;

	if (decoder->between && decoder->in_len == 0) {
		/* An empty input is no zstd stream, as it is none for zstd(1). */
		if (decoder->last && decoder->in_off == 0)
			return decoder_invalid(decoder, "zstd: the stream is cut off");
		decoder->done = decoder->last;
		return STEP_WAIT;
	}
	if (decoder->between) {
		rc = decoder_emit_member(decoder, decoder->in_off);
		if (rc < 0)
			return rc;
		decoder->between = false;
	}
	rest = ZSTD_decompressStream(decoder->zstd, &out, &in);
	if (ZSTD_isError(rest))
		return zstd_failed(decoder, rest);
	decoder_consumed(decoder, in.pos);
	decoder_produced(decoder, out.pos);
	decoder->between = rest == 0;
	if (in.pos || out.pos || decoder->between)
		return STEP_MORE;
	return decoder->last ? decoder_invalid(decoder, "zstd: the stream is cut off") : STEP_WAIT;
}

struct packer {
	ZSTD_CCtx *zstd;
};

static bool packer_set(const struct packer *packer, ZSTD_cParameter parameter, int value)
{
	return !ZSTD_isError(ZSTD_CCtx_setParameter(packer->zstd, parameter, value));
}

struct packer *packer_new(void)
{
	struct packer *packer = calloc(1, sizeof(*packer));

	if (!packer)
		return NULL;
	packer->zstd = ZSTD_createCCtx();
	if (!packer->zstd || !packer_set(packer, ZSTD_c_compressionLevel, 1) ||
	    !packer_set(packer, ZSTD_c_windowLog, PACK_WINDOW_LOG) ||
	    !packer_set(packer, ZSTD_c_hashLog, PACK_HASH_LOG) ||
	    !packer_set(packer, ZSTD_c_minMatch, PACK_MIN_MATCH)) {
		packer_free(packer);
		return NULL;
	}
	return packer;
}

void packer_free(struct packer *packer)
{
	if (!packer)
		return;
	ZSTD_freeCCtx(packer->zstd);
	free(packer);
}

ssize_t packer_pack(struct packer *packer, const void *in, size_t len, void *out, size_t cap)
{
	size_t packed = ZSTD_compress2(packer->zstd, out, cap, in, len);

	if (!ZSTD_isError(packed))
		return (ssize_t)packed;
	return ZSTD_getErrorCode(packed) == ZSTD_error_memory_allocation ? -ENOMEM : -EINVAL;
}

ssize_t codec_unpack(const void *in, size_t len, void *out, size_t cap)
{
	size_t unpacked = ZSTD_decompress(out, cap, in, len);

	if (!ZSTD_isError(unpacked))
		return (ssize_t)unpacked;
	return ZSTD_getErrorCode(unpacked) == ZSTD_error_memory_allocation ? -ENOMEM : -EINVAL;
}

size_t codec_pack_bound(size_t len)
{
	return ZSTD_compressBound(len);
}
