/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec_priv: what codec.c and the bodies of the codecs share. For src/codec*.c only.
 */
#ifndef REGFS_CODEC_PRIV_H
#define REGFS_CODEC_PRIV_H

#include "regfs/codec.h"

struct gzip;
struct ZSTD_DCtx_s;

/*
 * A body advances IN and OUT with decoder_consumed and decoder_produced only, so that the
 * offsets are always those of the pointers.
 */
struct decoder {
	enum codec codec;
	struct decoder_options options;
	uint64_t next_point; /* no point before this out_off; UINT64_MAX: none at all */
	const uint8_t *in;   /* the caller's, not consumed yet */
	size_t in_len;
	bool last;    /* nothing comes after IN */
	uint8_t *out; /* the caller's, during decoder_read only */
	size_t room;
	uint64_t in_off, out_off;
	bool done;
	int failed; /* sticky: a negative errno */
	const char *error;
	struct gzip *gzip;	  /* CODEC_GZIP */
	struct ZSTD_DCtx_s *zstd; /* CODEC_ZSTD */
	bool between;		  /* zstd: the next byte begins a frame */
};

/* What a step says: a negative errno, or one of these. */
enum { STEP_WAIT, STEP_MORE };

static inline void decoder_consumed(struct decoder *decoder, size_t len)
{
	/* Before the first input there is no pointer to add to. */
	if (!len)
		return;
	decoder->in += len;
	decoder->in_len -= len;
	decoder->in_off += len;
}

static inline void decoder_produced(struct decoder *decoder, size_t len)
{
	decoder->out += len;
	decoder->room -= len;
	decoder->out_off += len;
}

static inline bool decoder_input_ended(const struct decoder *decoder)
{
	return decoder->last && decoder->in_len == 0;
}

/* Remembers the sentence and returns -EINVAL. */
int decoder_invalid(struct decoder *decoder, const char *sentence);
/* Hands POINT to the caller and sets the next point's least offset. 0 or its errno. */
int decoder_emit(struct decoder *decoder, const struct codec_point *point);
/* A member or frame begins at IN_OFF: emits a point if one is due. 0 or its errno. */
int decoder_emit_member(struct decoder *decoder, uint64_t in_off);

/* The bodies. open: 0 or -ENOMEM. step: decodes what it can; STEP_WAIT when it needs input
 * or room, STEP_MORE to be called again. */
int gzip_open(struct decoder *decoder);
int gzip_open_at(struct decoder *decoder, const struct codec_point *point, uint8_t first);
int gzip_step(struct decoder *decoder);
void gzip_close(struct decoder *decoder);
bool gzip_whole(const struct decoder *decoder);
size_t gzip_memory(const struct decoder *decoder);

int zstd_open(struct decoder *decoder);
int zstd_step(struct decoder *decoder);
void zstd_close(struct decoder *decoder);
size_t zstd_memory(const struct decoder *decoder);

#endif
