/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer: one layer's index and its files' bytes.
 * Knows the index, resume points and decoding. Must not know other layers.
 *
 * A layer without an index in the cache is streamed once (blob_stream_*): decompressed,
 * scanned, indexed; the index is kept only if the blob's digest was right. Then a read maps
 * a file's range to the decoded stream, that to a span between two resume points, and decodes the
 * span from verified blob bytes. Decoded spans are kept in a small memory cache shared by all
 * layers.
 *
 * A layer for which the manifest vouches for a table of contents (toc.h) is opened by fetching that
 * alone, and its files are read chunk by chunk, each checked by the table's digest of it; decoded
 * chunks are kept in the cache by that digest. Where an index of a whole pass is at hand, that is
 * used; where the table lies, or does not vouch for a file, or cannot be had, the whole blob
 * decides, with a line in the log. Members that only serve the table's format are not shown either
 * way.
 *
 * A ztoc (ztoc.h) serves likewise, for spans of the stream in place of chunks of files: a span's
 * compressed bytes are checked, and what they decode to is kept for this layer and ztoc alone.
 *
 * Layers are shared by digest (and table) and counted. Any thread.
 */
#ifndef REGFS_LAYER_H
#define REGFS_LAYER_H

#include "regfs/blob.h"
#include "regfs/index.h"
#include "regfs/toc.h"

#define LAYER_SPACING (1 * MIB) /* least distance of resume points, decoded bytes */

struct layers;
struct layer;

/* What documents say of a layer beside its blob; each may be NULL. Borrowed for the call. */
struct layer_claims {
	const struct digest *diff_id; /* the config's */
	const struct toc_ref *toc;    /* the manifest's, or a SOCI index's */
	/* Where the table is, should the blob say that it is elsewhere; NULL: not looked for yet.
	 */
	const struct toc_apart *apart;
};

struct layers *layers_new(struct blobs *blobs, struct cache *cache, struct pool *jobs);
/* Ends all jobs: after it no blob is asked for by one. Waits, a moment. NULL is fine, and twice. */
void layers_stop(struct layers *layers);
/* Stops, too. */
void layers_free(struct layers *layers);

/* The layer of ID, its index at hand: mapped from the cache, or built now, which waits for
 * the blob (-EWOULDBLOCK where that is not allowed). One build for many waiters; it goes on in
 * the background for a while when all of them were called off. CLAIMS may be NULL; a diff ID that
 * is not the computed one is -EIO, logged. -EIO also for what is no tar. The caller unrefs *RET.
 * -EREMOTE: the table of contents is elsewhere, and is to be looked for (CLAIMS->apart). ID's repo
 * is copied as the source of later fetches. */
int layer_open(struct layers *layers, const struct blob_id *id, const struct layer_claims *claims,
	       struct wait *wait, struct layer **ret);
/* Starts the build and does not wait for it. */
void layer_prepare(struct layers *layers, const struct blob_id *id,
		   const struct layer_claims *claims);
/* All of the layer, where only its table of contents was fetched: what is read from then on needs
 * no network. 0 or an error. */
int layer_bring_in(struct layer *layer, struct wait *wait);
void layer_unref(struct layer *layer);

/* The index; valid as long as the layer is held. */
const struct index *layer_index(const struct layer *layer);
/* True once a map of its index was damaged under it: what was read since is not to be used. */
bool layer_broken(const struct layer *layer);
/* The same, after reading all of it: for when what it says makes no sense. */
bool layer_recheck(const struct layer *layer);

/* Bytes of regular file INO at OFF; sparse holes are zeros. Count, short only at the file's
 * end; 0 past it. */
ssize_t layer_read(struct layer *layer, uint32_t ino, uint64_t off, void *buf, size_t len,
		   struct wait *wait);
/* A descriptor, for the caller to close, of a file on disk with exactly the bytes of regular file
 * INO, checked now: -ENOENT where there is none. It is in the cache, and goes as others there do.
 * -EWOULDBLOCK where the check would take long. */
int layer_backing(struct layer *layer, uint32_t ino, struct wait *wait);
/* Makes what layer_backing() opens. 0 or a negative errno: there is none; where WAIT is called off,
 * soon. Under a wait that may not block it takes one in the background: others would be in its way,
 * who decode ahead for it. */
int layer_make_backing(struct layer *layer, uint32_t ino, struct wait *wait);
/*
 * What of the blob it takes to read PARTS (files or bytes that are not there are passed over), as
 * far as a table or points lead to it and the cache may lack it: ranges, in the order of the first
 * part that needs each. LAYER must be held as long as the plan. 0, -ENOMEM, -EIO. The caller frees
 * *RET.
 */
struct layer_part {
	uint32_t ino;
	uint64_t off, len;
};
struct layer_plan;
int layer_plan(struct layer *layer, const struct layer_part *parts, size_t n,
	       struct layer_plan **ret);
void layer_plan_free(struct layer_plan *plan);
size_t layer_plan_count(const struct layer_plan *plan);
/* The part that range N is needed for first. */
size_t layer_plan_first(const struct layer_plan *plan, size_t n);
/* Brings range N into the cache, on the way that a reader's bytes take: verified, and once for all.
 * Waits: for jobs. Bytes of the blob that were fetched for it, or an error. */
ssize_t layer_plan_bring(const struct layer_plan *plan, size_t n, struct wait *wait);
/* The same for two layers (never 0) if the same number is the same file in both. */
uint64_t layer_numbering(const struct layer *layer);
/* Next data (SEEK_DATA) or hole (SEEK_HOLE) at or after OFF: offset, or -ENXIO. */
int64_t layer_seek(struct layer *layer, uint32_t ino, uint64_t off, int whence);

/*
 * Decodes the layer whose index is ID (kind CACHE_INDEX) out of the cache and hashes it: the diff
 * ID goes into the index where it has none, so that later opens compare it with the config. 0;
 * -ENOENT: not all of the blob is cached; -EIO: it is not what the index said (logged; the index is
 * dropped). No store is asked.
 */
int layer_verify(struct blobs *blobs, struct cache *cache, const struct cache_id *id,
		 struct wait *wait);

/* The diff ID (sha256) of the layer's blob, if a pass, a verification or layer_diff_id_keep() found
 * it out and the cache still knows. */
bool layer_diff_id_find(struct cache *cache, const struct digest *blob, struct digest *ret);
/* Bytes that have the digest BLOB were decoded, and what came of it has DIFF_ID. */
void layer_diff_id_keep(struct cache *cache, const struct digest *blob,
			const struct digest *diff_id);

#endif
