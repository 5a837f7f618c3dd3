/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codec_streams: streams of every kind to decode, and the loop that decodes them, for the tests
 * of codec.
 */
#ifndef TESTS_CODEC_STREAMS_H
#define TESTS_CODEC_STREAMS_H

#include <zlib.h>

#include "regfs/buf.h"
#include "regfs/codec.h"

#define DATA_LEN (1536 * KIB + 12345)

/* Read-only between the two: setup and teardown of a group. */
extern uint8_t *codec_data;
int make_codec_data(void **state);
int free_codec_data(void **state);

uint64_t codec_random(uint64_t *state);

struct deflate_options {
	int level, strategy, window_bits, mem_level;
	int flush; /* after each flush_every bytes */
	size_t flush_every;
	gz_header *header;
};

/* Append one member; pieces: as many members or frames as it takes. */
void add_zlib(struct buf *out, const uint8_t *in, size_t len,
	      const struct deflate_options *options);
void add_isal(struct buf *out, const uint8_t *in, size_t len, uint32_t level);
void add_pieces(struct buf *out, enum codec codec, const uint8_t *in, size_t len, size_t piece);

struct points {
	struct codec_point *points;
	size_t count;
};

/* A codec_point_fn for a struct points. */
int collect_point(void *arg, const struct codec_point *point);
void points_release(struct points *points);

/* Feeds FEED bytes and reads CAP at a time: 0 or the error, and what came before in OUT. */
ssize_t decode_all(struct decoder *decoder, const struct buf *in, size_t feed, size_t cap,
		   uint8_t *out, size_t *ret_len);

#endif
