/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ztoc: SOCI's table of contents of a tar or tar+gzip layer: its members, and the spans that its
 * compressed bytes can be fetched, checked and decoded in.
 * Pure: (pointer, length) in, values out. Must not know fetching, nor how a ztoc is found.
 *
 * soci-snapshotter, ztoc/fbs/ztoc.fbs (a FlatBuffer, https://flatbuffers.dev/internals/) and
 * ztoc/compression/gzip_zinfo.h (the checkpoints in it), version 0.9. It is a document of its own,
 * beside the layer, and binds the layer's *compressed* bytes: each span has a digest.
 *
 * Reading (src/ztoc*.c) uses the bytes in place: nothing is allocated, whatever the document
 * claims. Writing (src/ztoc_build.c) makes the bytes that upstream's reader and this one take.
 */
#ifndef REGFS_ZTOC_H
#define REGFS_ZTOC_H

#include "regfs/codec.h"
#include "regfs/digest.h"
#include "regfs/index.h"
#include "regfs/tar.h"

#define ZTOC_MAX	(256 * MIB) /* bytes of a document */
#define ZTOC_FILES_MAX	4000000
#define ZTOC_SPANS_MAX	(1 << 20)  /* a plain tar's may be as small as it says */
#define ZTOC_XATTRS_MAX 1024	   /* PAX records of one member */
#define ZTOC_SPAN_MAX	(64 * MIB) /* of a span, compressed or decoded */
#define ZTOC_SPAN_SIZE	(4 * MIB)  /* upstream's default distance of points, decoded bytes */

/*
 * A piece of the layer that is fetched and checked as a whole. Its compressed bytes are
 * [in_begin, in_end); in_begin is point.in_off, or the byte before it where bits of that belong to
 * the span (spans of gzip then share that byte). They decode, from the point on, to
 * [point.out_off, out_end).
 */
struct ztoc_span {
	struct codec_point point; /* never .member; its window is CODEC_WINDOW bytes, or none */
	uint64_t in_begin, in_end;
	uint64_t out_end;
	struct digest digest; /* SHA-256 of the compressed bytes */
};

/* --- reading; any thread --- */

/* A whole document, borrowed. Only the functions here look into .priv. */
struct ztoc {
	enum codec codec;      /* CODEC_GZIP or CODEC_PLAIN */
	uint64_t blob_size;    /* of the layer's blob */
	uint64_t decoded_size; /* of the tar in it */
	uint64_t span_size;
	uint32_t nfiles, nspans;
	struct {
		const uint8_t *data;
		uint32_t len;
		uint32_t files, digests; /* vectors */
		const uint8_t *points;
		bool headless; /* the first point is not there: it is always the same */
	} priv;
};

/* What one member's strings are put together in. */
struct ztoc_scratch {
	struct tar_xattr xattrs[ZTOC_XATTRS_MAX];
	uint64_t strings; /* bytes of them that were looked at, of all members so far; 0 first */
};

/* All functions: 0, or -EINVAL with a sentence in *RET_WHY for what cannot be true of a layer. */

/* Checks the document's frame and all of its spans: they follow each other, begin at the tar's
 * first byte, end with the blob and the tar, and none is over ZTOC_SPAN_MAX. */
int ztoc_open(const void *data, size_t len, struct ztoc *ret, const char **ret_why);
/* The N-th span (0 … nspans - 1). Its window is borrowed from the document. */
int ztoc_span(const struct ztoc *ztoc, uint32_t n, struct ztoc_span *ret, const char **ret_why);
/*
 * The N-th member (0 … nfiles - 1) in the archive's order, as tar_scan() would give it: .header_off
 * is 0, and a sparse file has .sparse set and no extents, as where its data are is not in a ztoc.
 * Strings are borrowed from the document, the list of xattrs from SCRATCH. A file's bytes lie
 * within the tar; that members do not lie over each other is the caller's to check. With the same
 * SCRATCH all members' strings together are at most ZTOC_MAX bytes.
 */
int ztoc_member(const struct ztoc *ztoc, uint32_t n, struct ztoc_scratch *scratch,
		struct tar_member *ret, const char **ret_why);

/*
 * All of it to BUILDER: members, resume points, and a chunk for each span; decoded_size and
 * by_spans are the caller's to put into the index's info. A sparse file gets a data_off of
 * ZTOC_NOWHERE. -ENOMEM too; after a failure the builder is only to be freed.
 */
#define ZTOC_NOWHERE UINT64_MAX
int ztoc_index(const struct ztoc *ztoc, struct index_builder *builder, const char **ret_why);

/* --- writing; one thread at a time --- */

struct ztoc_builder;
/* Of a layer of CODEC (gzip or plain); SPAN_SIZE is the least distance of points that it was cut
 * with. NULL when memory is short. free takes NULL. */
struct ztoc_builder *ztoc_builder_new(enum codec codec, uint64_t span_size);
void ztoc_builder_free(struct ztoc_builder *builder);
void ztoc_builder_cleanup(struct ztoc_builder **builder);
/* In the archive's order; copies. 0; -ENOMEM; -EINVAL (what a ztoc cannot say: a sparse file). */
int ztoc_builder_member(struct ztoc_builder *builder, const struct tar_member *member);
/* In order, the first one at decoded offset 0; copies. A plain tar's have no window. 0; -ENOMEM;
 * -EINVAL (they do not follow each other). */
int ztoc_builder_span(struct ztoc_builder *builder, const struct ztoc_span *span);
/* The document, appended to RET. Once. The sizes are the last span's ends. 0; -ENOMEM; -EFBIG
 * (RET's max); -EINVAL (no span). */
int ztoc_builder_finish(struct ztoc_builder *builder, struct buf *ret);

#endif
