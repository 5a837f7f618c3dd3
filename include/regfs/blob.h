/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blob: verified reads by digest, over a store and the cache.
 * Knows passes, block sums and single flight. Must not know what a blob holds.
 *
 * A blob without sums is fetched by a *pass*: one stream from its first byte to its last (or,
 * where answers take long, several ranges at once, taken in order), hashed on the way, its blocks
 * put into the cache as tentative; when the digest is right
 * they are committed and the SHA-256 of each block (the sums) is kept; when it is wrong all of
 * it is dropped, logged with both digests, and every waiter gets -EIO. There is one pass per digest
 * at a time, for all that want the blob. From then on any range is fetched by itself, checked by
 * the sums (which a verified pass vouches for). Blobs of at most BLOB_SMALL bytes are fetched and
 * checked whole.
 *
 * A pass runs on its own thread and ends early when nobody has wanted it for some seconds. Any
 * thread may call; those that wait take a struct wait.
 *
 * Where the cache cannot keep blocks (full disk, limit smaller than the blob), reads go on from
 * the pass's window and by range.
 */
#ifndef REGFS_BLOB_H
#define REGFS_BLOB_H

#include "regfs/cache.h"
#include "regfs/pool.h"
#include "regfs/store.h"

#define BLOB_SMALL (1 * MIB)

struct blobs;

/* Which blob, how large the manifest says it is, and where it may be had. Borrowed for the
 * call; the store must outlive the blobs. */
struct blob_id {
	const struct digest *digest;
	uint64_t size;
	struct store *store;
	const char *repo;
};

/* A number for where ID may be had. A failure there says nothing about other places. */
static inline uint64_t blob_source(const struct blob_id *id)
{
	unsigned route = atomic_load(&id->store->route);
	uint64_t hash = hash64(hash64(0, &id->store, sizeof(id->store)), &route, sizeof(route));
	return hash64(hash, id->repo, strlen(id->repo));
}

/* CACHE and JOBS (a pool without maximum) are borrowed. */
struct blobs *blobs_new(struct cache *cache, struct pool *jobs, int64_t timeout_ms);
/* Ends all that is under way: after it no store is used, and who needs one fails with -EINTR.
 * Waits, a moment. NULL is fine, and twice. */
void blobs_stop(struct blobs *blobs);
/* Stops, too. */
void blobs_free(struct blobs *blobs);

/* Whole, verified, at most MAX bytes; for configs and the like. Kept as a cache file if
 * it is small. 0, -EFBIG, -EIO (digest), the store's errors. */
int blob_get(struct blobs *blobs, const struct blob_id *id, size_t max, struct buf *ret,
	     struct wait *wait);

/* Takes note of all the bytes of ID, which the caller has and knows to be right: as far as the
 * cache keeps them, nobody need fetch them. */
void blob_known(struct blobs *blobs, const struct blob_id *id, const void *data);

/* Verified bytes only: waits for the pass if there are no sums yet. Returns the count, short
 * only at the blob's end. */
ssize_t blob_read(struct blobs *blobs, const struct blob_id *id, uint64_t off, void *buf,
		  size_t len, struct wait *wait);

/* The same for a reader who goes on up to offset UNTIL at once: what is missing up to there comes
 * in the same range. It is a reader of something that lies from WHOLE_OFF to WHOLE_END (0, 0: not
 * known): where the way is long, a miss may bring that along, and what lies around it. */
struct blob_piece {
	uint64_t off;
	uint8_t *buf;
	size_t len;
	uint64_t until;
	uint64_t whole_off, whole_end;
};
ssize_t blob_read_on(struct blobs *blobs, const struct blob_id *id, const struct blob_piece *piece,
		     struct wait *wait);

/* Brings the blocks of PIECE (its buffer is of no meaning) into the cache, verified, in as few
 * ranges as there are gaps in what it has; nothing, where that would take a pass of a large blob.
 * Waits: for jobs. How many bytes of ranges that took, or an error. */
ssize_t blob_bring(struct blobs *blobs, const struct blob_id *id, const struct blob_piece *piece,
		   struct wait *wait);

/* How many ranges at once suit the way to STORE: 1 where answers come at once, and as for a long
 * one while that is not known. */
unsigned blobs_parallel(struct blobs *blobs, const struct store *store);

/* What is fetched in the background (wait.h) takes no more than this; 0: as much as there is. It
 * stands back behind all else that comes from the same store either way. */
void blobs_limit_background(struct blobs *blobs, uint64_t bytes_per_second);

/* LEN bytes at OFF for somebody who checks them by other means: as the store gives them (or out of
 * the cache, where it has them all). Nothing of them is kept. Waits for the store by itself: for
 * jobs. The count, short only at the blob's end; -EIO where the store has less. */
ssize_t blob_fetch_unverified(struct blobs *blobs, const struct blob_id *id, uint64_t off,
			      void *buf, size_t len, struct wait *wait);

/* Bytes as they arrive, not verified, in the raw-blob way of SPEC section 3: the blob's last
 * byte is only given once the digest was found right. */
ssize_t blob_read_raw(struct blobs *blobs, const struct blob_id *id, uint64_t off, void *buf,
		      size_t len, struct wait *wait);

/* How long raw bytes of ID that were given may be believed. JUDGED: for good, as no others are
 * given any more. TIMES is another number whenever some may have been wrong; a reader who was in
 * the middle then gets -EIO until somebody has read from the beginning. Does not wait. */
struct blob_raw {
	bool judged;
	uint32_t times;
};
void blob_raw_state(struct blobs *blobs, const struct blob_id *id, struct blob_raw *ret);

/* The whole blob in order, as it arrives (starting or joining a pass) or out of the cache: what
 * a layer's index is built from. Nothing read this way may be shown to anybody before the read that
 * returned 0: that is the end, with the digest right. The pass does not run ahead of an open
 * stream by more than its window. */
struct blob_stream;
int blob_stream_open(struct blobs *blobs, const struct blob_id *id, struct wait *wait,
		     struct blob_stream **ret);
/* > 0 and *RET borrowed until the next call; 0 at the verified end; negative errno. */
ssize_t blob_stream_read(struct blob_stream *stream, const void **ret, struct wait *wait);
void blob_stream_close(struct blob_stream *stream);

#endif
