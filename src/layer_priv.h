/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the room `layer` share: layer.c (the table, opening), layer_build.c (stream,
 * decode, scan, index), layer_keep.c (decoded output where no points serve), layer_diff.c (the diff
 * ID beside it), layer_read.c (a file's bytes), layer_backing.c (as a file on disk), layer_spans.c,
 * layer_pieces.c and layer_ahead.c (decoded pieces: made, kept in memory, made ahead),
 * layer_verify.c (regfs cache verify); and where there is a table of contents: layer_toc.c and
 * layer_ztoc.c (an index out of it), layer_chunks.c, layer_near.c and layer_flight.c (decoded
 * chunks), layer_whole.c (the same layer without its table).
 *
 * Locks: layers->lock for the table and the states of layers, spans->lock for cursors, chunks->lock
 * for chunks under way; the table of pieces has its own. None is held across I/O or decoding, nor
 * inside another. A file's bytes that are in memory or in the cache are read without any but that
 * of a few pieces.
 *
 * The decoded stream is cut into *pieces*: from each resume point on, LAYER_PIECE bytes each, the
 * last one before the next point being shorter. A piece is what is kept in memory, and, where it is
 * LAYER_GAP or further behind its point, also in the cache (CACHE_DECODED), because decoding up to
 * it again would take too long. Its number there is its offset / LAYER_PIECE, which is unique among
 * those that are kept.
 */
#ifndef REGFS_LAYER_PRIV_H
#define REGFS_LAYER_PRIV_H

#include <stdatomic.h>

#include "regfs/layer.h"

#define LAYER_PIECE	    CACHE_BLOCK
#define LAYER_CUT	    2 /* another number where points or pieces come to lie otherwise */
#define LAYER_GAP	    (4 * MIB) /* a multiple of LAYER_PIECE */
#define LAYER_SOURCES	    4
#define LAYERS_IDLE_MAX	    64
#define LAYERS_BUILDS_MAX   4		/* of one store, that decode at once */
#define LAYERS_DECODING_MAX 16		/* of all stores */
#define BUILD_IDLE_MS	    30000	/* a build nobody waits for is called off after that */
#define LAYER_RETRY_MS	    1000	/* a failure that may pass is repeated for so long */
#define LAYER_TOC_MIN	    (256 * KIB) /* smaller blobs are fetched whole, in one request */

enum layer_state {
	LAYER_NEW,   /* no index at hand, nobody looks for one; error says how the last try ended */
	LAYER_BUSY,  /* somebody maps it, or a job builds it */
	LAYER_READY, /* the index is there and stays */
};

/* A repository that holds the blob. */
struct layer_source {
	struct store *store;
	char *repo;
};

/* Which layer is meant: the blob, and what it is read by. */
struct layer_name {
	const struct blob_id *id;
	const struct toc_ref *toc;     /* NULL: its own bytes alone */
	const struct toc_apart *apart; /* not part of the name: where .toc may be; or NULL */
	bool hides;		       /* members that serve the format of a table are left out */
};

struct layer {
	struct layers *layers;
	struct digest digest;
	uint64_t size;
	struct toc_ref toc; /* where has_toc */
	bool has_toc, hides;
	uint8_t index_key[DIGEST_KEY_LEN];   /* of the index of a whole pass */
	uint8_t toc_key[DIGEST_KEY_LEN];     /* of one made from the table */
	uint8_t decoded_key[DIGEST_KEY_LEN]; /* of what is kept of the decoded output */
	uint64_t serial; /* unlike any other layer's, for the tables of pieces */
	/* Entries below nsources are constant; it grows under layers->lock. */
	struct layer_source sources[LAYER_SOURCES];
	atomic_uint nsources;
	atomic_uint preferred;	       /* the source that worked last */
	atomic_bool complained;	       /* about a wrong diff ID */
	_Atomic(struct layer *) whole; /* the same without its table, once that was no use */
	struct whole_before *befores;  /* layer_whole.c's; guarded by layers->lock */

	/* guarded by layers->lock */
	struct layer *prev, *next;
	unsigned refs;
	bool unlisted; /* its index broke: replaced in the table */
	enum layer_state state;
	int error;
	uint64_t error_source; /* where that was; blob_source() */
	int64_t retry_ms; /* until when the error is repeated; INT64_MAX: it is the content's */
	unsigned waiters;
	bool awaited;	 /* BUSY, and not only in the background */
	int64_t idle_ms; /* when waiters became 0 */
	struct wait_queue ready;
	bool apart_known;	/* set once, and so is .apart */
	struct toc_apart apart; /* where the table is that is not in the blob */

	/* constant once READY */
	struct cache_map map;
	char *memory; /* where the cache does not keep the index */
	struct index index;
};

struct build;
struct chunks;

/* Somebody who may be reading on: advisory, so that no lock is taken for it. */
struct layer_reader {
	_Atomic uint64_t end;  /* where its last read has ended, in which stream: a hash */
	_Atomic uint64_t made; /* up to there its spans are made, or being made */
};
#define LAYER_READERS	4
#define LAYER_AHEAD_MAX 4

struct layers {
	struct blobs *blobs;
	struct cache *cache;
	struct pool *jobs;
	struct spans *spans;
	struct chunks *chunks;
	uint64_t toc_min;   /* LAYER_TOC_MIN; tests lower it */
	int64_t idle_ms;    /* BUILD_IDLE_MS; tests shorten it */
	int64_t retry_ms;   /* LAYER_RETRY_MS; tests shorten it */
	unsigned ahead_max; /* spans decoded ahead at once, by the processors */
	atomic_uint ahead_now;
	struct layer_reader readers[LAYER_READERS];
	atomic_uint next_reader; /* the oldest of them */

	pthread_mutex_t lock;
	pthread_cond_t drained;
	/* guarded by lock */
	struct layer *first, *last; /* most recently used first */
	unsigned idle;
	uint64_t next_serial;
	struct build *builds;
	unsigned running;  /* builds, and chunks under way */
	unsigned decoding; /* those that have a slot */
	struct wait_queue slots;
	bool closing;
};

/* --- layer.c --- */

/* Maps the index out of the cache. 0, -ENOENT, -ENOMEM. State BUSY, by the caller. */
int layer_map(struct layer *layer);
/* Takes over FILE, an index, into the cache as KIND and maps it, or keeps it in memory. 0 or
 * -EIO. */
int layer_publish(struct layer *layer, enum cache_kind kind, struct buf *file);
int layer_open_name(struct layers *layers, const struct layer_name *name, struct wait *wait,
		    struct layer **ret);
/* Counts a job of LAYER in, holding the layer, and out again. -EINTR: the room closes. */
int layer_job_begin(struct layer *layer);
void layer_job_end(struct layer *layer);
void layer_log_name(const struct layer *layer, char out[static DIGEST_STR_MAX]);
/* Where the table is that is not in LAYER's blob; false: nobody has looked yet. */
bool layer_apart(struct layer *layer, struct toc_apart *ret);
/* Ends BUSY: READY with 0. SOURCE is where an error comes from; FOR_GOOD: it is the content's. */
void layer_settle(struct layer *layer, int error, uint64_t source, bool for_good);

/* --- layer_build.c --- */

/* Starts the job that opens LAYER (state BUSY, set by the caller, who holds it) and ends BUSY; if
 * that fails BUSY stays the caller's: -ENOMEM. In the background if LAYER is not .awaited. */
int build_start(struct layer *layer, const struct blob_id *id);
/* LAYER is awaited by now. Lock held. */
void build_hurry(struct layer *layer);
void build_cancel_all(struct layers *layers); /* lock held */

/* --- layer_keep.c --- */

/* Cuts decoded output into pieces and puts those into the cache that are far behind their point. */
struct keep {
	struct cache *cache;
	struct cache_id id; /* CACHE_DECODED */
	uint64_t pass;
	uint64_t base;	  /* the last point */
	uint64_t off;	  /* how far the output has come */
	uint64_t limit;	  /* kept at most */
	uint64_t kept;	  /* bytes */
	uint32_t nblocks; /* highest block + 1 */
	size_t len;	  /* of the piece being filled */
	uint8_t *piece;	  /* LAYER_PIECE bytes; NULL until needed */
	bool gap;	  /* something was further behind than LAYER_GAP */
};

void keep_init(struct keep *keep, struct cache *cache, const uint8_t key[static DIGEST_KEY_LEN]);
void keep_data(struct keep *keep, const uint8_t *data, size_t len);
void keep_point(struct keep *keep);
/* The blob's digest was right, or not. */
void keep_finish(struct keep *keep, bool verified);

/* --- layer_diff.c --- */

struct diff;
/* NULL where there is no thread or memory for it. */
struct diff *diff_start(void);
/* Copies. Gives up rather than wait. */
void diff_push(struct diff *diff, const void *data, size_t len);
/* Frees DIFF; true and the SHA-256 of all that was pushed, if it kept up. NULL: false. */
bool diff_finish(struct diff *diff, struct digest *ret);
/* Frees DIFF, whose hash nobody wants. NULL is fine. */
void diff_free(struct diff *diff);

/* --- layer_read.c --- */

/* The inode of INO, if it is a regular file: -EISDIR, -EINVAL. */
int layer_file(const struct layer *layer, uint32_t ino, struct index_inode *ret);

/* blob_read_on() from whichever source works. */
ssize_t layer_blob_read(struct layer *layer, const struct blob_piece *piece, struct wait *wait);
/* blob_bring() likewise. */
ssize_t layer_blob_bring(struct layer *layer, uint64_t off, size_t len, struct wait *wait);
/* blob_fetch_unverified() likewise. */
ssize_t layer_blob_fetch(struct layer *layer, uint64_t off, void *buf, size_t len,
			 struct wait *wait);

/* What is asked for: of a file, into a buffer. All of it is there. */
struct file_read {
	uint64_t off;
	uint8_t *buf;
	size_t len;
};

/* LEN bytes of the decoded stream at OFF, of a file whose data is FILE_OFF … FILE_END - 1. */
struct stream_part {
	uint64_t off;
	uint8_t *buf;
	size_t len;
	uint64_t file_off, file_end;
};

/* --- layer_pieces.c --- */

/* A piece of the decoded stream of the layer with that serial. */
struct span_piece {
	atomic_uint refs;
	uint64_t serial, off;
	size_t len;
	/* the table's, guarded by its lock */
	struct span_piece *chain; /* of its bucket */
	struct span_piece *newer, *older;
	uint8_t data[LAYER_PIECE];
};

struct pieces;

/* An empty one, held once. NULL when memory is short. */
struct span_piece *span_piece_new(uint64_t serial, uint64_t off);
void span_piece_unref(struct span_piece *piece); /* NULL is fine */

struct pieces *pieces_new(void);
void pieces_free(struct pieces *pieces);
/* Held for the caller, or NULL. */
struct span_piece *pieces_find(struct pieces *pieces, uint64_t serial, uint64_t off);
/* Takes over the caller's reference to PIECE, which is constant from now on. */
void pieces_add(struct pieces *pieces, struct span_piece *piece);

/* --- layer_spans.c --- */

struct spans *spans_new(void);
void spans_free(struct spans *spans);
/* All of PART of the decoded stream, or an error. Without a buffer: it is only made ready. */
int spans_read(struct layer *layer, const struct stream_part *part, struct wait *wait);

/* Whether the piece that begins at OFF is in memory. */
bool spans_has(struct layer *layer, uint64_t off);
/* Where the span ends that byte OFF of the decoded stream is in. */
uint64_t spans_end(const struct layer *layer, uint64_t off);
/* Where the input ends, about, that makes the output up to OUT_OFF; 0: nobody knows. */
uint64_t spans_input_until(const struct layer *layer, uint64_t out_off);

/* --- layer_ahead.c --- */

/* READ is about to be done under WAIT: if an earlier one has ended where it begins, what follows in
 * the file is decoded by others meanwhile. */
void layer_ahead(struct layer *layer, const struct stream_part *read, const struct wait *wait);

/* --- layer_toc.c --- */

/* Makes the index from the layer's table of contents, fetched from ID. 0; 1: not by this table,
 * logged; -EREMOTE: it is elsewhere, and nobody has looked; an error that the whole blob would meet
 * too. In a job. */
int layer_by_toc(struct layer *layer, const struct blob_id *id, struct wait *wait);

/* --- layer_ztoc.c --- */

/* The same for a ztoc, to an index file in RET. 0, -EINVAL with *RET_WHY, an error. */
int layer_ztoc(struct layer *layer, const struct blob_id *id, struct wait *wait, struct buf *ret,
	       const char **ret_why);

/* --- layer_chunks.c --- */

struct chunks *chunks_new(void);
void chunks_free(struct chunks *chunks);
void chunks_cancel_all(struct chunks *chunks);
/* READ of INODE, number INO, which has chunks. 0; -EBADMSG: they are not what the table says
 * (logged). Of an index by_spans: INODE is one that has all of them, without a number (INDEX_NONE),
 * and READ is of the stream. */
int chunks_read(struct layer *layer, uint32_t ino, const struct index_inode *inode,
		const struct file_read *read, struct wait *wait);

/* --- layer_agree.c --- */

/* Logs it where the ztoc that LAYER's index is of was not true; WHOLE is the same layer by its own
 * bytes. */
void layer_compare(const struct layer *layer, const struct layer *whole);

/* --- layer_whole.c --- */

/* One that was .whole until its index broke: somebody may still be reading by it. */
struct whole_before {
	struct layer *layer;
	struct whole_before *next;
};
/* Lets go of all of LAYER's. */
void whole_release(struct layer *layer);

/* READ of file INO of LAYER, which has a table, by the whole blob. WHY that does not do is logged
 * if it is the first time. */
int whole_read(struct layer *layer, uint32_t ino, const struct file_read *read, const char *why,
	       struct wait *wait);

#endif
