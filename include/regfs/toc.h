/* SPDX-License-Identifier: Apache-2.0 */
/*
 * toc: tables of contents that lazy formats put into a layer's blob, to an index.
 * Pure: (pointer, length) in, values out. Must not know fetching.
 *
 * eStargz (stargz-snapshotter, docs/estargz.md): gzip; a footer at the blob's end says where the
 * table lies, and the layer's annotation toc.digest is the digest of its JSON. Or the footer says
 * that it is in a blob of its own ("external TOC"), a layer of another image. zstd:chunked:
 * annotations say where the table lies, and what the compressed table's digest is, in two dialects
 * (containers/storage, pkg/chunked; stargz-snapshotter, estargz/zstdchunked).
 *
 * A table whose digest is right was meant by whoever made the manifest, and may lie all the same:
 * -EINVAL, with a sentence in *RET_WHY, for what cannot be true of a layer. Then the blob itself
 * decides. The order of a layer with a table:
 *
 *	toc_ref_find    what the annotations say            (none: the layer has no table)
 *	toc_locate      where it is, from the footer        (unless the annotations said so)
 *	toc_unpack      its bytes to JSON, digests checked
 *	toc_index       the JSON to the members and chunks of an index
 */
#ifndef REGFS_TOC_H
#define REGFS_TOC_H

#include "regfs/index.h"
#include "regfs/oci.h"

#define TOC_PACKED_MAX	(128 * MIB)
#define TOC_JSON_MAX	(256 * MIB) /* about 390 bytes an entry */
#define TOC_ENTRIES_MAX 4000000	    /* files and further chunks */
#define TOC_CHUNK_MAX	(64 * MIB)  /* decoded; a file with a larger one has no chunks here */
#define TOC_FOOTER_MAX	64

enum toc_kind {
	TOC_INSIDE, /* in the layer's own blob */
	TOC_ZTOC,   /* SOCI's (ztoc.h), a blob of its own: .packed and .len are that blob's */
};

/* A table that somebody vouches for: for TOC_INSIDE, the manifest. Plain: copy it freely. */
struct toc_ref {
	enum toc_kind kind;
	struct digest json;   /* of the JSON */
	struct digest packed; /* of the bytes in the blob; one of the two may be DIGEST_NONE */
	uint64_t off, len;    /* of those bytes; len 0: the footer tells */
	uint64_t json_len;    /* 0: not known */
};

/* Where a table is that is not in the layer's blob. Plain. */
struct toc_apart {
	struct digest digest; /* of the blob that holds it; DIGEST_NONE: nowhere */
	uint64_t size;
};

#define TOC_APART_FOOTER 46 /* bytes of the footer that says so; they end the layer's blob */
#define TOC_APART_TAG	 "-esgztoc" /* behind the image's tag: that of the image with the tables */

/* The table of LAYER in the image with the tables of others. 0 or -ENOENT. */
int toc_apart_find(const struct oci_manifest *tables, const struct digest *layer,
		   struct toc_apart *ret);

/* From a layer descriptor's annotations. 0; -ENOENT: none; -EINVAL: some that make no sense. */
int toc_ref_find(const struct oci_annotation *annotations, size_t n, struct toc_ref *ret);
bool toc_ref_equal(const struct toc_ref *a, const struct toc_ref *b);

/* Where the table lies in a blob of BLOB_SIZE bytes: TAIL is its last LEN bytes, TOC_FOOTER_MAX or
 * more, or all of it. Sets .off and .len (and .json_len, where the footer has it). 0; -EINVAL;
 * -EREMOTE: it is not in the blob. */
int toc_locate(const void *tail, size_t len, uint64_t blob_size, struct toc_ref *ref,
	       const char **ret_why);

/* The table's DATA, REF->len bytes, to JSON in RET, which is fresh. 0; -EINVAL: wrong digest, not
 * what a table is packed in, too large; -ENOMEM. */
int toc_unpack(const struct toc_ref *ref, const void *data, struct buf *ret, const char **ret_why);

/*
 * What JSON says of a layer to BUILDER: its members, in their order, and their chunks, all of which
 * lie before DATA_END in the blob. A file for which nothing vouches piece by piece has no chunks.
 * Entries that only serve the format are left out. 0; -EINVAL (the builder is only to be freed):
 * not JSON of this kind, or it says what cannot be: places outside of the data or over each other,
 * chunks that do not make up the file, zeros with a digest that is not of zeros, names that JSON
 * could not hold, too much of anything; -ENOMEM.
 */
int toc_index(const struct buf *json, uint64_t data_end, struct index_builder *builder,
	      const char **ret_why);
/* An index of a table, as a whole: -EINVAL where a hard link leads to what comes after it (a circle
 * of links is that). 0, -EIO. */
int toc_check(const struct index *index, const char **ret_why);

/* Whether a member of a layer that has a table only serves the format: stargz.index.json and the
 * landmarks, in the root. */
bool toc_is_hidden(const char *path);

#endif
