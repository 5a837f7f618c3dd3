/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec: plain, gzip (RFC 1952) and zstd (RFC 8878) streams, forwards and from resume
 * points; and compression for pushes.
 * Pure: (pointer, length) in, bytes out; no descriptor, no lock. Must not know tar.
 *
 * A decoder belongs to one thread at a time; different ones are independent.
 */
#ifndef REGFS_CODEC_H
#define REGFS_CODEC_H

#include "regfs/util.h"

enum codec { CODEC_PLAIN, CODEC_GZIP, CODEC_ZSTD };

#define CODEC_MAGIC_LEN 4
#define CODEC_WINDOW	(32 * KIB) /* deflate's */

/* By magic, never by media type. Fewer than CODEC_MAGIC_LEN bytes are CODEC_PLAIN unless
 * they match. zstd's skippable frames (0x184D2A5?) count as zstd. */
enum codec codec_detect(const void *data, size_t len);

/*
 * A place to resume at. IN_OFF and OUT_OFF are offsets in the compressed and the decoded
 * stream. gzip: BITS (0-7) is how many bits of the byte *before* IN_OFF belong to the
 * stream after the point; WINDOW holds the 32 KiB (or fewer, at the start) before OUT_OFF.
 * A point at a member's or frame's first byte needs no window (WINDOW_LEN 0, MEMBER true).
 */
struct codec_point {
	uint64_t in_off;
	uint64_t out_off;
	uint8_t bits;
	bool member; /* the first byte of a gzip member or zstd frame */
	const uint8_t *window;
	size_t window_len;
};

/* Called while decoding, in ascending order and (but for raw_members) never for the stream's start;
 * POINT and its window are borrowed for the call. Decoding runs ahead of what decoder_read gives:
 * out_off can be a little over decoder_out_off. 0, or a negative errno that ends the decoding. */
typedef int codec_point_fn(void *arg, const struct codec_point *point);

struct decoder;

struct decoder_options {
	uint64_t spacing;	  /* least distance of points in decoded bytes; 0: no points */
	codec_point_fn *on_point; /* may be NULL */
	void *arg;
	/* gzip: a point at each member, whatever the distance, the first one too, and behind its
	 * header: .member is false, and there is no window. For readers that know raw deflate data
	 * alone. */
	bool raw_members;
	/* zstd: frames that need more are -EINVAL; a power of two (else the next lower one counts);
	 * 0: 128 MiB */
	uint64_t max_window;
};

/* At the beginning of a stream. NULL when memory is short. OPTIONS may be NULL. */
struct decoder *decoder_new(enum codec codec, const struct decoder_options *options);
/* At POINT: the next input byte must be the one at point->in_off; for gzip with bits != 0,
 * FIRST is the byte before it. NULL when memory is short or the point makes no sense. */
struct decoder *decoder_resume(enum codec codec, const struct codec_point *point, uint8_t first);
void decoder_free(struct decoder *decoder);
void decoder_cleanup(struct decoder **decoder);
#define AUTO_DECODER CLEANUP(decoder_cleanup)

/* Input, borrowed until the next call of decoder_input or the decoder's end. Only when all
 * of the last was consumed (decoder_read returned 0 and !decoder_done). LAST: no more comes. */
void decoder_input(struct decoder *decoder, const void *data, size_t len, bool last);
/*
 * Decodes at most CAP bytes. > 0: so many. 0: more input is needed, or the end was reached
 * (decoder_done). -EINVAL: not a valid stream, or cut off (decoder_error says which);
 * -ENOMEM. Members and frames are joined; zero bytes or garbage behind a whole gzip member that do
 * not begin a new one end the stream, as gzip(1) does, and are not consumed.
 * After a resume inside a gzip member that member's checksum is not checked: it cannot be.
 */
ssize_t decoder_read(struct decoder *decoder, void *out, size_t cap);
bool decoder_done(const struct decoder *decoder);
/* Whether the input so far is a stream that may end here: whole members or frames, with their
 * trailers, and nothing of another one. */
bool decoder_whole(const struct decoder *decoder);
/* Bytes of compressed input consumed, of decoded output produced, since the stream's start
 * (or the point's offsets). */
uint64_t decoder_in_off(const struct decoder *decoder);
uint64_t decoder_out_off(const struct decoder *decoder);
/* Bytes of memory that it holds: with zstd its frame's window, which may be large. */
size_t decoder_memory(const struct decoder *decoder);
/* A constant sentence for the last -EINVAL. */
const char *decoder_error(const struct decoder *decoder);

/*
 * Compression. Output is cut into members (gzip) or frames (zstd) of 1 MiB of input, so that
 * what is pushed can be read at random (measured: costs under 0.3 % for gzip, 4 % for zstd).
 */
struct encoder;
/* LEVEL 0: the default (gzip: ISA-L 2; zstd: 1). gzip from 4 on is zlib's, and slower. NULL when
 * memory is short. */
struct encoder *encoder_new(enum codec codec, int level);
void encoder_free(struct encoder *encoder);
/* The encoded form of one whole piece: at most 1 MiB of input, a member or frame of its own
 * (for CODEC_PLAIN a copy). OUT must hold encoder_bound(len). Returns its length or -EINVAL.
 * An empty piece gives an empty member. */
ssize_t encoder_piece(struct encoder *encoder, const void *in, size_t len, void *out, size_t cap);
size_t encoder_bound(enum codec codec, size_t len);

/* Windows at rest, at most CODEC_WINDOW bytes in one step. A packer belongs to one thread at a
 * time. Return the length or a negative errno. */
struct packer;
struct packer *packer_new(void); /* NULL when memory is short */
void packer_free(struct packer *packer);
ssize_t packer_pack(struct packer *packer, const void *in, size_t len, void *out, size_t cap);
ssize_t codec_unpack(const void *in, size_t len, void *out, size_t cap);
size_t codec_pack_bound(size_t len);

#endif
