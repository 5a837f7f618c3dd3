/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the room `blob` share: blob.c (the table, the read paths), blob_pass.c (whole
 * streams), blob_follow.c (those who take from them), blob_fetch.c (verified ranges), blob_feed.c
 * (where bytes come from), blob_lanes.c (over several connections), blob_ahead.c (what is fetched
 * before it is asked for), blob_way.c (the ways to the stores, and who goes first), blob_sums.c
 * (block sums), blob_unverified.c (ranges for callers who check them), blob_stale.c (raw bytes that
 * turned out to be wrong).
 *
 * One lock, blobs->lock, guards the table and every field marked so below. It is held for
 * bookkeeping only, never across the cache, a store, the log or a copy of a block.
 *
 * References: whoever works on a struct blob holds one reference (callers in the slow path,
 * streams, running jobs). A blob nobody holds stays in the list for its sums, its half-done pass
 * and its memory of failure, until BLOBS_IDLE_MAX others came after it.
 *
 *   a block is wanted:     in the cache as verified?   -> copy (no lock of ours)
 *                          sums known?                 -> fetch: a range, checked by the sums
 *                          else                        -> pass: wait for it, start or resume it
 */
#ifndef REGFS_BLOB_PRIV_H
#define REGFS_BLOB_PRIV_H

#include <stdatomic.h>

#include "regfs/blob.h"

#define BLOBS_IDLE_MAX 32
#define BLOB_MAX_SIZE  ((uint64_t)1 << 40) /* 8 million blocks, 256 MiB of sums */
#define PASS_WINDOW    32		   /* blocks that a pass keeps in memory: 4 MiB */
#define PASS_IDLE_MS   5000		   /* a pass nobody wants is paused after that */
#define RETRY_MS       1000		   /* a failure is repeated, not tried again, for so long */
#define YIELD_MS       2000		   /* what is in the background stands back, for a block */
#define SLOW_MS	       10000		   /* without a block, while another registry has it */
#define FETCH_MAX      32		   /* blocks of one range request: 4 MiB */
#define RUNS	       4		   /* sequential readers told apart, in one blob */
#define MARKS	       64		   /* blocks that set off more when they are read */
#define AHEAD_FIRST    8		   /* blocks of a sequential reader's first window: 1 MiB */
#define AHEAD_STREAMS  6		   /* ranges on their way for one reader, at most */
#define BRING_STREAMS  16		   /* for what is brought in: fresh connections are slow */
#define LANE_PART      (4 * MIB)	   /* what a pass over a long way asks for at once */
#define STALE_MAX      64		   /* blobs whose raw bytes were wrong, remembered */
#define ALONG_WHOLE    8		   /* blocks of a file that comes whole at its first miss */
#define ALONG_AROUND   32		   /* blocks on either side of a miss that are looked at */
#define RECENT	       8		   /* ranges kept in memory where the cache keeps nothing */

/* The state of a blob's hash after each of its blocks but the last. Immutable once a blob points to
 * it. */
struct sums {
	struct digest digest; /* of the blob */
	uint64_t size;
	uint32_t count, cap;
	uint8_t *states; /* digest_len() bytes each */
};

struct sums *sums_new(const struct digest *digest, uint64_t blob_size);
void sums_free(struct sums *sums);
/* Room for one more. 0 or -ENOMEM. */
int sums_reserve(struct sums *sums);
/* After the next block was added to HASHER, the blob's. Room must have been reserved. */
void sums_add(struct sums *sums, const struct hasher *hasher);
/* What block NR should lead to, and what these bytes lead to. 0 or -ENOMEM. */
struct block_sums {
	struct digest want, got;
};
int sums_of(const struct sums *sums, uint32_t nr, const void *block, size_t len,
	    struct block_sums *ret);
/* Keeps SUMS in the cache; a failure only means it is not kept. */
void sums_save(struct cache *cache, const struct sums *sums);
/* -ENOENT: none, or a damaged file (removed). -EIO: the sums of a blob of another size. */
int sums_load(struct cache *cache, const struct digest *digest, uint64_t blob_size,
	      struct sums **ret);

/* How long and how fast the way to a store is, as the requests of late had it. */
struct pace {
	atomic_int_fast64_t latency_us; /* from a request to its first byte; 0: not known */
	bool fixed;			/* by a test */
	/* guarded by blobs->lock */
	uint64_t rate; /* bytes a second, of all ranges together; 0: not known */
	unsigned running;
	int64_t since_us; /* when the bytes below began to come */
	uint64_t bytes;
};

struct way {
	const struct store *store; /* only compared */
	struct way *next;
	struct pace pace;
	/* guarded by blobs->lock */
	unsigned awaited;	/* fetches, and passes that somebody waits for, under way */
	unsigned parts;		/* of passes, under way */
	int64_t parts_since_us; /* when the bytes below began to come */
	uint64_t parts_bytes;
	uint64_t parts_rate;	 /* bytes a second of parts; 0: not known */
	bool takes_parts;	 /* it was seen to serve one by itself */
	int64_t narrow_until_ms; /* until then passes keep to one stream */
	struct wait_queue quiet; /* passes that nobody waits for, until there are none */
};

/* A blob of which raw readers were given bytes that nobody vouches for any more. */
struct stale {
	uint8_t key[DIGEST_KEY_LEN];
	uint32_t times; /* 0: free */
	bool refused;	/* to readers in the middle */
};

struct blobs {
	struct cache *cache;
	struct pool *jobs;
	int64_t timeout_ms; /* how long a stream that is not read holds up a pass */
	int64_t idle_ms;    /* PASS_IDLE_MS; tests shorten it */
	int64_t retry_ms;   /* RETRY_MS; tests shorten it */
	int64_t yield_ms;   /* YIELD_MS; tests change it */
	int64_t slow_ms;    /* SLOW_MS; tests shorten it */
	size_t lane_part;   /* LANE_PART; tests shorten it */

	pthread_mutex_t lock;
	pthread_cond_t drained; /* running became 0 */
	/* guarded by lock */
	struct blob *first, *last; /* most recently used first */
	unsigned idle;		   /* blobs nobody holds */
	unsigned running;	   /* jobs */
	unsigned parts;		   /* of passes, in memory */
	bool closing;
	struct fetch *recent[RECENT];
	unsigned next_recent;
	struct way *ways;   /* one is never freed before the room */
	struct way any_way; /* of those that there was no memory for */
	uint64_t rate;	    /* bytes a second of passes in the background; 0: no limit */
	int64_t due_us;	    /* when they may take more */
	struct stale stale[STALE_MAX];
	unsigned next_stale;
	atomic_bool has_stale; /* set with the lock held */
	/* hashes of (blob, block); 0: none */
	atomic_uint_fast64_t marks[MARKS];
	atomic_uint nmarks;
};

/* A sequential reader seen in a blob: where it will find nothing, how many blocks it gets at a
 * time, and up to where it is known to have come. */
struct run {
	uint32_t next, window, used;
};

struct blob {
	struct blobs *blobs;
	struct digest digest;
	struct cache_id id; /* CACHE_BLOB */
	uint64_t size;
	uint32_t nblocks;
	/* guarded by blobs->lock */
	struct blob *prev, *next;
	unsigned refs;
	struct sums *sums;     /* NULL until known; then constant */
	struct pass *pass;     /* running or paused; owned */
	struct fetch *fetches; /* in flight */
	struct wait_queue fetched;
	unsigned brings; /* callers of fetch_bring() */
	struct run runs[RUNS];
	unsigned next_run;
	/* How the last pass failed, and where; for that source repeated until retry_ms. */
	int error;
	uint64_t error_source;
	bool wrong; /* it was the digest: raw readers may hold bytes of it, whatever comes next */
	int64_t retry_ms;
	bool one_stream; /* parts of it came wrong */
};

/* Blocks FIRST … END - 1. */
struct blocks {
	uint32_t first, end;
};

/* The part of a block that somebody wants, the last block of the whole request, and the blocks of
 * the file that it is for (none: not known). */
struct want {
	uint32_t block, last;
	size_t off, len;
	uint8_t *buf;
	struct blocks whole;
};

/* A block in memory, shared by a pass's window and those who read it. */
struct piece {
	atomic_uint refs;
	uint32_t block;
	size_t len;
	uint8_t data[CACHE_BLOCK];
};

struct piece *piece_new(void);
void piece_unref(struct piece *piece);

/* The blob's bytes in order from some block on: the verified ones that the cache holds, then
 * one stream from the store. Belongs to one job. */
struct feed {
	struct blob *blob; /* borrowed */
	struct store *store;
	char *repo; /* owned */
	uint64_t source;
	uint64_t end; /* the offset where it stops */
	bool wide;    /* it may come over several connections */
	struct store_stream *stream;
	uint64_t received; /* bytes from the store since the last look */
	unsigned overs;	   /* how often it went over */
	/* guarded by blobs->lock: where to go over to (blob_over.c); NULL: nowhere */
	struct store *over_store;
	char *over_repo;
};

/* Names the source. 0 or -ENOMEM; the old one stays then. */
int feed_source(struct feed *feed, const struct blob_id *id);
void feed_stop(struct feed *feed); /* closes the stream; the next block opens another */
void feed_release(struct feed *feed);
/* Fills DATA (CACHE_BLOCK bytes) with block NR; the blocks must be asked for in order, until a
 * feed_stop(). *RET_CACHED: it came from the cache. 0; -ENODATA: the store has fewer bytes
 * than it should; the store's errors, -EINTR. */
int feed_block(struct feed *feed, uint32_t nr, void *data, struct wait *wait, bool *ret_cached);

/* --- blob_over.c; lock held unless said --- */

/* Somebody waits, with ID's source at hand, for the job of FEED, which counts its blocks in DONE,
 * waits with JOB and is on WAY. The rest is 0 at first. */
struct over_await {
	struct feed *feed;
	struct wait *job;
	struct way *const *way;
	const uint32_t *done;
	struct wait_queue *queue;
	const struct blob_id *id;
	uint32_t seen;
	int64_t until_ms;
};
/* wait_on() the queue. Where no block comes for too long, and ID's registry is another, the job is
 * called off to go over to that; each time it does it gets twice as long. */
int over_await(struct over_await *await, struct wait *wait);
/* The job was called off (-EINTR): where that was to go over, FEED has its new source, and the way
 * there is returned. NULL: it was not. */
struct way *over_take(struct feed *feed, struct wait *job);
/* Leaves the old one. Without lock. */
void over_go(struct feed *feed);
/* The job is over. */
void over_drop(struct feed *feed, struct wait *job);

/* --- blob_lanes.c --- */

/* Whether the rest of BLOB from OFF on should come over several connections on WAY. Lock held. */
bool lanes_suit(const struct blob *blob, const struct way *way, uint64_t off);
/* How many parts at once suit a way of this rate, in bytes a second. Pure. */
unsigned lanes_at_once(uint64_t rate, int64_t latency_us);
/* What FEED is for from OFF on, so. Waits for nothing. 0 or -ENOMEM. */
int lanes_open(const struct feed *feed, uint64_t off, struct store_stream **ret);

static inline size_t block_len(const struct blob *blob, uint32_t nr)
{
	uint64_t rest = blob->size - (uint64_t)nr * CACHE_BLOCK;

	return rest < CACHE_BLOCK ? rest : CACHE_BLOCK;
}

/* --- blob.c --- */

/* The blob of ID, held. -EWOULDBLOCK where it is not in the list and CREATE is false. */
int blob_hold(struct blobs *blobs, const struct blob_id *id, bool create, struct blob **ret);
void blob_put(struct blob *blob);
/* Counts a job of BLOB in (holding the blob for it), and out again. Lock held for the first. */
void job_begin(struct blob *blob);
void job_end(struct blob *blob);
/* 1 if the sums are known (looks for their file where that makes sense), 0 if not; -EIO, logged:
 * they are those of another size; -ENOMEM. */
int blob_know_sums(struct blob *blob, struct wait *wait);
/* Whether the blob's last pass failed at another source than ID's: with its own it may work. Not
 * for a RAW reader who was given bytes of it that were wrong. */
bool blob_failed_elsewhere(struct blob *blob, const struct blob_id *id, bool raw);
/* WANT of BLOB, verified, or as it arrives if RAW. The count is all of WANT, or an error. */
ssize_t blob_read_block(struct blob *blob, const struct blob_id *id, const struct want *want,
			bool raw, struct wait *wait);

/*
 * A pass and its window.
 *
 * Block n is published by setting done to n + 1; window[n % PASS_WINDOW] then holds it until
 * block n + PASS_WINDOW comes. The job waits before that for attached streams, those that read
 * out of the window. A stream that has fallen out of it (it joined late, or was not read for long)
 * takes blocks from the cache, and what was lost there by range after the end.
 */

/* Why somebody joins. A stream wants the whole pass, though the sums may be known; that of
 * blob_get() keeps what it reads in its own way. */
enum join { JOIN_READ, JOIN_RAW, JOIN_STREAM, JOIN_GET };

enum pass_state { PASS_PAUSED, PASS_RUNNING, PASS_DONE };

struct pass {
	struct pool_work work;
	struct blob *blob;
	struct wait wait;
	struct feed feed;
	struct hasher *hasher;
	struct sums *sums;
	uint64_t number;   /* the cache's, for tentative blocks */
	bool mixed;	   /* some blocks came from the cache */
	uint32_t received; /* blocks pulled so far; the job's own count */

	/* guarded by blobs->lock */
	unsigned refs; /* the blob's, waiters', streams' and the job's */
	enum pass_state state;
	int result;	     /* once not RUNNING */
	bool keep;	     /* blocks go to the cache */
	bool unkept;	     /* the cache refused one */
	bool given;	     /* raw readers got some that are not judged */
	unsigned interested; /* waiters and streams */
	struct way *way;     /* to the source of its last job */
	bool awaited;	     /* one of them was not in the background */
	bool counted;	     /* in way->awaited */
	unsigned opening;    /* streams that joined and are not in the list yet */
	int64_t idle_ms;     /* when interested became 0 */
	uint32_t done;	     /* blocks published */
	uint32_t raw_at;     /* the block a raw reader took last */
	int64_t raw_ms;	     /* when that was */
	struct piece *window[PASS_WINDOW];
	struct blob_stream *streams;
	struct wait_queue progress; /* those who want the next block */
	struct wait_queue ended;    /* those who want the verified end */
	struct wait_queue room;	    /* the job, before a full window */
};

struct blob_stream {
	struct blob *blob;
	struct pass *pass;
	char *repo; /* for id */
	struct blob_id id;
	struct piece *piece; /* the block lent out */
	/* guarded by blobs->lock */
	uint32_t next;
	bool attached;
	struct blob_stream *next_stream;
};

/* --- blob_pass.c --- */

/* Takes part in the pass over BLOB, starting or resuming it: 0 and a pass held; 1: no need, the
 * sums are known; an error. */
int pass_join(struct blob *blob, const struct blob_id *id, enum join why, struct wait *wait,
	      struct pass **ret);
void pass_leave(struct pass *pass);
/* A pass nobody runs or holds. */
void pass_free(struct pass *pass);
void pass_cancel(struct pass *pass);

/* --- blob_follow.c --- */

/* Takes WANT from the pass over BLOB, starting or resuming it: the count; 0 when there is no need
 * (sums are known): it can be fetched by itself; or an error. */
ssize_t pass_read(struct blob *blob, const struct blob_id *id, const struct want *want, bool raw,
		  struct wait *wait);
int stream_open(struct blobs *blobs, const struct blob_id *id, bool keep, struct wait *wait,
		struct blob_stream **ret);

/* --- blob_fetch.c --- */

/* WANT by verified range; blob->sums is known. The count or an error. */
ssize_t fetch_read(struct blob *blob, const struct blob_id *id, const struct want *want,
		   struct wait *wait);
/* Sets off what a sequential reader who has come to block NR should find on its way. */
void fetch_ahead(struct blob *blob, const struct blob_id *id, uint32_t nr);
/* Until all of blocks FIRST … LAST is in the cache that it keeps; blob->sums is known. How many
 * bytes that took, or an error. */
ssize_t fetch_bring(struct blob *blob, const struct blob_id *id, uint32_t first, uint32_t last,
		    struct wait *wait);
void fetch_cancel_all(struct blob *blob); /* lock held */
/* Forgets what is kept in memory of BLOB (NULL: of all). Lock held. */
void fetch_forget(struct blobs *blobs, const struct blob *blob);

/* --- blob_stale.c --- */

/* Raw readers got bytes of BLOB that were WRONG, or that nobody will judge. Lock held. */
void stale_note(struct blob *blob, bool wrong);
/* Whether a raw reader in the middle is to be refused; somebody has begun anew. Without lock. */
bool stale_refuses(struct blobs *blobs, const struct cache_id *id);
void stale_begun(struct blobs *blobs, const struct cache_id *id);

/* --- blob_ahead.c; lock held unless said --- */

/* A range that is set off: blocks FIRST … END - 1, of which those before WANTED are asked for. */
struct ahead_note {
	uint32_t first, end, wanted, window;
};
/* How many blocks a reader gets who misses WANT: 0, what it asks for; else it is a sequential one.
 */
uint32_t ahead_window(const struct blob *blob, const struct want *want);
/* The range of a reader that missed is on its way. */
void ahead_started(struct blob *blob, const struct ahead_note *note);
/* A reader has come to block NR, which was set off ahead, or somewhere behind it. */
void ahead_came(struct blob *blob, uint32_t nr);
/* Whether a reader who has come to NR should have another range on its way, and which. */
bool ahead_next(struct blob *blob, const struct pace *pace, uint32_t nr, struct ahead_note *ret);
/* Of which blocks those that are missing should come to a reader who misses WANT: its own, and
 * those around. Without lock. */
struct blocks ahead_along(const struct blob *blob, const struct pace *pace,
			  const struct want *want);
/* What BLOB's readers got ahead and did not come to is counted. */
void ahead_forget(struct blob *blob);
/* Whether block NR, which was found in the cache, is to set off more. Any thread, without lock. */
bool ahead_marked(struct blobs *blobs, const struct cache_id *id, uint32_t nr);

/* --- blob_way.c; lock held unless said --- */

int64_t now_us(void); /* of CLOCK_MONOTONIC */
/* The way to STORE; it stays as long as the room. */
struct way *way_of(struct blobs *blobs, const struct store *store);
struct way *way_find(struct blobs *blobs, const struct store *store); /* without lock */
void ways_release(struct blobs *blobs);
/* A request was sent and answered. Any thread, without lock. */
void pace_latency(struct pace *pace, int64_t us);
/* Ranges come and go. */
void pace_begin(struct pace *pace);
void pace_end(struct pace *pace, uint64_t bytes);
/* Blocks that a sequential reader should have before it; 0: none but its own range. */
uint32_t pace_depth(const struct pace *pace);
/* Whether a round trip costs more than some bytes that nobody wants. Without lock. */
bool pace_is_long(const struct pace *pace);
/* Something that somebody waits for is under way, and is over. */
void way_enter(struct way *way);
void way_leave(struct way *way);
/* PASS is not (only) for the background, from now on. */
void pass_hurry(struct pass *pass);
void pass_state(struct pass *pass, enum pass_state state);
/* Before the job of PASS asks its store for LEN bytes: waits for its turn where nobody waits for
 * them. 0 or -EINTR. Without lock. */
int pass_yield(struct pass *pass, size_t len);
/* When more may come than the BYTES that are let through at NOW, where DUE_US had come; RATE of
 * them a second. Pure. */
int64_t rate_due(int64_t due_us, int64_t now, uint64_t bytes, uint64_t rate);

#endif
