// SPDX-License-Identifier: Apache-2.0
/*
 * share_layer: one layer's bytes to a ztoc: decoded, its members walked, points taken on the way;
 * then, when the points are known, the digest of the compressed bytes between each two.
 * Nothing counts before the blob's stream has come to its verified end.
 */
#include <errno.h>

#include "regfs/tar.h"
#include "share_priv.h"

#define PIECE_LEN (256 * KIB)
#define POINT_LEN (8 + 8 + 1 + CODEC_WINDOW) /* of a point in a ztoc */
/* A document holds no more. */
#define POINTS_MAX (ZTOC_MAX / POINT_LEN)
/* The points of a layer with many members may take this part of its decoded bytes. */
#define POINTS_SHARE 16

struct point {
	uint64_t in_off, out_off;
	uint8_t *window; /* NULL: none */
	size_t window_len;
	uint8_t bits;
};

struct reading {
	const struct share_options *options;
	const struct blob_id *id;
	struct wait *wait;
	struct blob_stream *stream;
	enum codec codec;
	struct decoder *decoder; /* NULL: plain */
	uint8_t *piece;		 /* PIECE_LEN bytes: decoded ones, later those of a span */
	const void *first;	 /* of a plain blob: the piece that told what it is */
	size_t first_len;
	struct ztoc_builder *builder;
	struct point *points;
	uint32_t npoints, cap;
	uint32_t nfiles;
	char *why; /* SHARE_WHY_MAX */
};

static int unsuited(struct reading *reading, const char *why)
{
	snprintf(reading->why, SHARE_WHY_MAX, "%s", why);
	return -EMEDIUMTYPE;
}

/* --- points --- */

static int add_point(struct reading *reading, const struct codec_point *from)
{
	struct point *point;

	if (reading->npoints == POINTS_MAX)
		return unsuited(reading, "it would take too many points to resume at");
	if (reading->npoints == reading->cap) {
		uint32_t cap = MAX(64u, reading->cap * 2);
		struct point *grown = reallocarray(reading->points, cap, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		reading->points = grown;
		reading->cap = cap;
	}
	point = &reading->points[reading->npoints];
	*point = (struct point){
		.in_off = from->in_off, .out_off = from->out_off, .bits = from->bits};
	if (from->window_len) {
		point->window = malloc(from->window_len);
		if (!point->window)
			return -ENOMEM;
		memcpy(point->window, from->window, from->window_len);
		point->window_len = from->window_len;
	}
	reading->npoints++;
	return 0;
}

static void drop_last_point(struct reading *reading)
{
	free(reading->points[--reading->npoints].window);
}

/* The codec_point_fn. A member of no bytes takes its point along: it belongs to the span before. */
static int on_point(void *arg, const struct codec_point *point)
{
	struct reading *reading = arg;
	uint32_t n = reading->npoints;

	if (n > 0 && reading->points[n - 1].out_off == point->out_off)
		drop_last_point(reading);
	return add_point(reading, point);
}

/* A plain tar has a point wherever one is due. */
static int plain_points(struct reading *reading)
{
	int r = 0;

	for (uint64_t off = 0; r == 0 && off < reading->id->size;
	     off += reading->options->span_size)
		r = add_point(reading, &(struct codec_point){.in_off = off, .out_off = off});
	return r;
}

/* What points at members' ends cost, and what lies behind the last byte. */
static int settle_points(struct reading *reading, uint64_t decoded_size)
{
	uint64_t due = decoded_size / reading->options->span_size + 1;

	while (reading->npoints > 0 &&
	       reading->points[reading->npoints - 1].out_off >= decoded_size)
		drop_last_point(reading);
	if (reading->npoints == 0)
		return unsuited(reading, "it is empty");
	if (reading->npoints > due &&
	    (uint64_t)reading->npoints * POINT_LEN > decoded_size / POINTS_SHARE)
		return unsuited(reading, "its gzip members are too small for readers of SOCI");
	return 0;
}

/* --- the walk --- */

static ssize_t read_decoded(struct reading *reading, const void **ret)
{
	for (;;) {
		const void *piece = NULL;
		ssize_t n = decoder_read(reading->decoder, reading->piece, PIECE_LEN);

		if (n == -EINVAL)
			snprintf(reading->why, SHARE_WHY_MAX, "%s",
				 decoder_error(reading->decoder));
		*ret = reading->piece;
		if (n != 0 || decoder_done(reading->decoder))
			return n;
		n = blob_stream_read(reading->stream, &piece, reading->wait);
		if (n < 0)
			return n;
		decoder_input(reading->decoder, piece, n, n == 0);
	}
}

static ssize_t read_plain(struct reading *reading, const void **ret)
{
	ssize_t n = (ssize_t)reading->first_len;

	*ret = reading->first;
	reading->first_len = 0;
	if (n == 0)
		n = blob_stream_read(reading->stream, ret, reading->wait);
	return n;
}

/* The tar_source_fn. */
static ssize_t read_tar(void *arg, const void **ret)
{
	struct reading *reading = arg;

	return reading->decoder ? read_decoded(reading, ret) : read_plain(reading, ret);
}

static int on_member(void *arg, const struct tar_member *member)
{
	struct reading *reading = arg;
	int r = ztoc_builder_member(reading->builder, member);

	if (r == -EINVAL && member->sparse)
		return unsuited(reading, "it has a sparse file, which a ztoc cannot tell");
	if (r == -EINVAL || r == -EFBIG)
		return unsuited(reading, "it has a member, or too many, that a ztoc cannot tell");
	reading->nfiles++;
	return r;
}

/* The first bytes say what the blob is. */
static int begin(struct reading *reading)
{
	const struct share_options *options = reading->options;
	const struct decoder_options decoding = {
		.spacing = options->span_size,
		.on_point = on_point,
		.arg = reading,
		.raw_members = true,
	};
	int r = blob_stream_open(options->blobs, reading->id, reading->wait, &reading->stream);

	if (r < 0)
		return r;
	ssize_t n = blob_stream_read(reading->stream, &reading->first, reading->wait);
	if (n < 0)
		return (int)n;
	reading->first_len = (size_t)n;
	reading->codec = codec_detect(reading->first, reading->first_len);
	if (reading->codec == CODEC_ZSTD)
		return unsuited(reading, "it is zstd");
	reading->builder = ztoc_builder_new(reading->codec, options->span_size);
	reading->piece = malloc(PIECE_LEN);
	if (!reading->builder || !reading->piece)
		return -ENOMEM;
	if (reading->codec == CODEC_PLAIN)
		return plain_points(reading);
	reading->decoder = decoder_new(reading->codec, &decoding);
	if (!reading->decoder)
		return -ENOMEM;
	decoder_input(reading->decoder, reading->first, reading->first_len, n == 0);
	return 0;
}

/* What follows the archive. Without the verified end nothing counts, not even what is wrong. */
static int drain(struct reading *reading)
{
	const void *piece;
	ssize_t n;

	do {
		n = blob_stream_read(reading->stream, &piece, reading->wait);
	} while (n > 0);
	return (int)n;
}

static int walk(struct reading *reading)
{
	const struct tar_source source = {.read = read_tar, .arg = reading};
	int r = begin(reading);

	if (r == 0)
		r = tar_scan(&source, on_member, reading, NULL, reading->why, SHARE_WHY_MAX);
	if (r < 0 && r != -EINVAL)
		return r;
	int end = drain(reading);
	if (end < 0)
		return end;
	return r < 0 ? -EMEDIUMTYPE : 0;
}

/* --- spans --- */

static int hash_span(struct reading *reading, struct ztoc_span *span)
{
	AUTO_HASHER struct hasher *hasher = hasher_new(DIGEST_SHA256);
	uint8_t *piece = reading->piece;

	if (!hasher)
		return -ENOMEM;
	for (uint64_t off = span->in_begin; off < span->in_end;) {
		size_t want = (size_t)MIN(span->in_end - off, (uint64_t)PIECE_LEN);
		ssize_t n = blob_read(reading->options->blobs, reading->id, off, piece, want,
				      reading->wait);

		if (n <= 0)
			return n < 0 ? (int)n : -EIO;
		hasher_add(hasher, piece, (size_t)n);
		off += (uint64_t)n;
	}
	hasher_final(hasher, &span->digest);
	return 0;
}

static int add_span(struct reading *reading, uint32_t i, uint64_t decoded_size)
{
	const struct point *point = &reading->points[i], *next = point + 1;
	bool last = i + 1 == reading->npoints;
	struct ztoc_span span = {
		.point = {.in_off = point->in_off,
			  .out_off = point->out_off,
			  .bits = point->bits,
			  .window = point->window,
			  .window_len = point->window_len},
		.in_begin = point->in_off - (point->bits ? 1 : 0),
		.in_end = last ? reading->id->size : next->in_off,
		.out_end = last ? decoded_size : next->out_off,
	};
	int r = hash_span(reading, &span);

	if (r == 0)
		r = ztoc_builder_span(reading->builder, &span);
	free(STEAL(reading->points[i].window));
	return r == -EINVAL ? unsuited(reading, "a piece between two points is too large") : r;
}

static int add_spans(struct reading *reading)
{
	uint64_t decoded_size = reading->decoder ? decoder_out_off(reading->decoder)
						 : reading->id->size;
	int r = settle_points(reading, decoded_size);

	for (uint32_t i = 0; r == 0 && i < reading->npoints; i++)
		r = add_span(reading, i, decoded_size);
	return r;
}

/* --- the whole --- */

static void release(struct reading *reading)
{
	blob_stream_close(reading->stream);
	decoder_free(reading->decoder);
	ztoc_builder_free(reading->builder);
	while (reading->npoints > 0)
		drop_last_point(reading);
	free(reading->points);
	free(reading->piece);
}

int share_read_layer(const struct share_options *options, const struct blob_id *id,
		     struct wait *wait, struct share_ztoc *ret)
{
	CLEANUP(release)
	struct reading reading = {.options = options, .id = id, .wait = wait, .why = ret->why};
	int r = walk(&reading);

	if (r == 0)
		r = add_spans(&reading);
	if (r == 0)
		r = ztoc_builder_finish(reading.builder, &ret->bytes);
	if (r == -EFBIG)
		return unsuited(&reading, "its table is too large");
	ret->nfiles = reading.nfiles;
	ret->nspans = reading.npoints;
	return r;
}
