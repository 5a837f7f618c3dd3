// SPDX-License-Identifier: Apache-2.0
/*
 * A pass: a blob streamed once from its first byte to its last, hashed on the way; and the streams
 * that follow it.
 * Knows the window, the followers and how a pass is paused. Must not know ranges.
 *
 * States of a pass, guarded by blobs->lock:
 *
 *   PAUSED   no job. New, or nobody wanted it for a while, or the store failed. What has
 *            arrived (hash state, sums, tentative blocks) stays for whoever resumes it.
 *   RUNNING  one job pulls blocks; only that job touches feed, hasher and sums.
 *   DONE     the digest was right (result 0, the sums are the blob's now) or wrong (-EIO). The
 *            blob has forgotten it; the references of waiters keep it alive.
 *
 *   PAUSED -> RUNNING: pass_join().  RUNNING -> PAUSED, DONE: pass_finish().
 *
 * Block n is published by setting done to n + 1; window[n % PASS_WINDOW] then holds it until
 * block n + PASS_WINDOW comes. The job waits before that for attached streams, those that read
 * out of the window. A stream that has fallen out of it (it joined late, or was not read for long)
 * takes blocks from the cache, and what was lost there by range after the end.
 */
#include <errno.h>

#include "blob_priv.h"
#include "regfs/log.h"
#include "regfs/stats.h"

/* Why somebody joins. A stream wants the whole pass, though the sums may be known; that of
 * blob_get() keeps what it reads in its own way. */
enum join { JOIN_READ, JOIN_RAW, JOIN_STREAM, JOIN_GET };

static bool is_stream(enum join why)
{
	return why == JOIN_STREAM || why == JOIN_GET;
}

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
	unsigned interested; /* waiters and streams */
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

/* --- life --- */

static void window_clear(struct pass *pass)
{
	for (size_t i = 0; i < PASS_WINDOW; i++)
		piece_unref(STEAL(pass->window[i]));
}

void pass_free(struct pass *pass)
{
	if (!pass)
		return;
	if (pass->state != PASS_DONE && pass->received > 0)
		cache_drop(pass->blob->blobs->cache, &pass->blob->id, pass->received, pass->number);
	window_clear(pass);
	feed_release(&pass->feed);
	hasher_free(pass->hasher);
	sums_free(pass->sums);
	wait_release(&pass->wait);
	free(pass);
}

static struct pass *pass_new(struct blob *blob)
{
	struct pass *pass = calloc(1, sizeof(*pass));

	if (!pass)
		return NULL;
	wait_init(&pass->wait, true);
	pass->blob = blob;
	pass->refs = 1;
	pass->feed = (struct feed){.blob = blob, .end = blob->size};
	pass->hasher = hasher_new(blob->digest.algo);
	pass->sums = sums_new(blob->size);
	if (!pass->hasher || !pass->sums) {
		pass_free(pass);
		return NULL;
	}
	pass->number = cache_pass_new(blob->blobs->cache);
	return pass;
}

void pass_cancel(struct pass *pass)
{
	wait_cancel(&pass->wait);
}

static void pass_run(struct pool_work *work);
static void pass_finish(struct pass *pass, int result, bool over);

static void pass_unref(struct pass *pass)
{
	struct blobs *blobs = pass->blob->blobs;

	pthread_mutex_lock(&blobs->lock);
	bool last = --pass->refs == 0;
	pthread_mutex_unlock(&blobs->lock);
	if (last)
		pass_free(pass);
}

/* --- joining and leaving --- */

/* With the state set to RUNNING by us: nobody else touches the job's fields. */
static int pass_launch(struct pass *pass, const struct blob_id *id)
{
	pass->work.run = pass_run;
	int r = feed_source(&pass->feed, id);
	if (r == 0 && pool_submit(pass->blob->blobs->jobs, &pass->work) < 0)
		r = -ENOMEM;
	if (r < 0)
		pass_finish(pass, r, false);
	return r;
}

/* Installs a pass, unless somebody else was faster. */
static int pass_ensure(struct blob *blob)
{
	struct pass *fresh = pass_new(blob);

	if (!fresh)
		return -ENOMEM;
	pthread_mutex_lock(&blob->blobs->lock);
	if (!blob->pass)
		blob->pass = STEAL(fresh);
	pthread_mutex_unlock(&blob->blobs->lock);
	pass_free(fresh);
	return 0;
}

/* Takes part in the blob's pass if it runs or may be made to. Lock held. *START: the caller has to
 * launch it. 1: no need. -ENOENT: there is none to join yet. */
static int join_locked(struct blob *blob, enum join why, bool may_block, struct pass **ret,
		       bool *ret_start)
{
	struct pass *pass = blob->pass;

	if (blob->sums && !is_stream(why))
		return 1;
	if (blob->error && now_ms() < blob->retry_ms)
		return blob->error;
	if ((!pass || pass->state != PASS_RUNNING) && !may_block)
		return -EWOULDBLOCK;
	if (blob->blobs->closing)
		return -EINTR;
	if (!pass)
		return -ENOENT;
	*ret_start = pass->state == PASS_PAUSED;
	if (*ret_start) {
		pass->state = PASS_RUNNING;
		pass->refs++;
		job_begin(blob);
	}
	pass->refs++;
	pass->interested++;
	pass->keep |= why != JOIN_GET;
	/* From here on the window waits for them. */
	if (why == JOIN_RAW)
		pass->raw_ms = now_ms();
	if (is_stream(why))
		pass->opening++;
	*ret = pass;
	return 0;
}

/* 0 and a pass held; 1: no need, the sums are known; an error. */
static int pass_join(struct blob *blob, const struct blob_id *id, enum join why, struct wait *wait,
		     struct pass **ret)
{
	struct blobs *blobs = blob->blobs;
	struct pass *pass = NULL;
	bool start = false;
	int r;

	for (;;) {
		pthread_mutex_lock(&blobs->lock);
		r = join_locked(blob, why, wait_may_block(wait), &pass, &start);
		pthread_mutex_unlock(&blobs->lock);
		if (r != -ENOENT)
			break;
		r = pass_ensure(blob);
		if (r < 0)
			break;
	}
	if (r != 0)
		return r;
	/* Where the launch fails the result says so to all who joined. */
	if (start)
		pass_launch(pass, id);
	*ret = pass;
	return 0;
}

static void pass_leave(struct pass *pass)
{
	struct blobs *blobs = pass->blob->blobs;

	pthread_mutex_lock(&blobs->lock);
	if (--pass->interested == 0)
		pass->idle_ms = now_ms();
	pthread_mutex_unlock(&blobs->lock);
	pass_unref(pass);
}

/* --- the job --- */

/* Whether block NR would push something out of the window that an attached stream, or a raw reader
 * where the cache keeps nothing, has yet to take; then until when to wait. Lock held. */
static bool window_full(const struct pass *pass, uint32_t nr, int64_t *ret_deadline_ms)
{
	const struct blobs *blobs = pass->blob->blobs;

	for (const struct blob_stream *s = pass->streams; s; s = s->next_stream) {
		if (s->attached && s->next + PASS_WINDOW <= nr) {
			*ret_deadline_ms = now_ms() + blobs->timeout_ms;
			return true;
		}
	}
	if (pass->opening > 0 && nr >= PASS_WINDOW) {
		*ret_deadline_ms = WAIT_FOREVER;
		return true;
	}
	if (pass->unkept && pass->raw_at + PASS_WINDOW <= nr &&
	    now_ms() < pass->raw_ms + blobs->idle_ms) {
		*ret_deadline_ms = pass->raw_ms + blobs->idle_ms;
		return true;
	}
	return false;
}

static void detach_laggards(struct pass *pass, uint32_t nr)
{
	for (struct blob_stream *s = pass->streams; s; s = s->next_stream)
		if (s->next + PASS_WINDOW <= nr)
			s->attached = false;
}

/* Waits until block NR may come; then gives the piece whose place it takes (NULL: make one).
 * -ECANCELED: nobody wants it any more. */
static int pass_room(struct pass *pass, uint32_t nr, struct piece **ret)
{
	struct blobs *blobs = pass->blob->blobs;
	int64_t deadline_ms;
	int r = 0;

	pthread_mutex_lock(&blobs->lock);
	for (;;) {
		if (blobs->closing ||
		    (pass->interested == 0 && now_ms() - pass->idle_ms >= blobs->idle_ms))
			r = -ECANCELED;
		if (r < 0 || !window_full(pass, nr, &deadline_ms))
			break;
		r = wait_on(&pass->wait, &pass->room, &blobs->lock, deadline_ms);
		if (r == -ETIMEDOUT) {
			detach_laggards(pass, nr);
			r = 0;
		}
	}
	if (r == 0)
		*ret = STEAL(pass->window[nr % PASS_WINDOW]);
	pthread_mutex_unlock(&blobs->lock);
	return r;
}

/* The old piece, if nobody reads it any more; memory that is warm. */
static struct piece *piece_recycle(struct piece *old)
{
	if (old && atomic_load(&old->refs) == 1)
		return old;
	piece_unref(old);
	return piece_new();
}

static void pass_publish(struct pass *pass, struct piece *piece, bool unkept)
{
	struct blobs *blobs = pass->blob->blobs;

	pthread_mutex_lock(&blobs->lock);
	pass->window[piece->block % PASS_WINDOW] = piece;
	pass->done = piece->block + 1;
	pass->unkept |= unkept;
	wait_wake(&pass->progress);
	pthread_mutex_unlock(&blobs->lock);
}

static bool pass_keeps(struct pass *pass)
{
	struct blobs *blobs = pass->blob->blobs;

	pthread_mutex_lock(&blobs->lock);
	bool keep = pass->keep;
	pthread_mutex_unlock(&blobs->lock);
	return keep;
}

static int pass_block(struct pass *pass, uint32_t nr)
{
	struct blob *blob = pass->blob;
	struct piece *old = NULL;
	bool cached = false, unkept = false;

	int r = pass_room(pass, nr, &old);
	if (r < 0)
		return r;
	struct piece *piece = piece_recycle(old);
	if (!piece)
		return -ENOMEM;
	piece->block = nr;
	piece->len = block_len(blob, nr);
	r = sums_reserve(pass->sums);
	if (r == 0)
		r = feed_block(&pass->feed, nr, piece->data, &pass->wait, &cached);
	if (r < 0) {
		piece_unref(piece);
		return r;
	}
	hasher_add(pass->hasher, piece->data, piece->len);
	sums_add(pass->sums, piece->data, piece->len);
	if (cached)
		pass->mixed = true;
	else if (pass_keeps(pass))
		unkept = cache_write(blob->blobs->cache, &blob->id, nr, piece->data, piece->len,
				     pass->number) < 0;
	pass->received = nr + 1;
	pass_publish(pass, piece, unkept);
	return 0;
}

static int pass_blocks(struct pass *pass)
{
	while (pass->received < pass->blob->nblocks) {
		int r = pass_block(pass, pass->received);
		stats_add(STAT_PASS_BYTES, pass->feed.received);
		pass->feed.received = 0;
		if (r < 0)
			return r;
	}
	return 0;
}

/* Nothing of it stays; if part of it had been in the cache, that may be what is wrong. */
static void pass_reject(struct pass *pass)
{
	struct blob *blob = pass->blob;

	stats_add(STAT_DIGEST_MISMATCHES, 1);
	cache_drop(blob->blobs->cache, &blob->id, blob->nblocks, pass->number);
	if (pass->mixed)
		cache_drop(blob->blobs->cache, &blob->id, blob->nblocks, 0);
}

static int pass_verify(struct pass *pass)
{
	struct blob *blob = pass->blob;
	char want[DIGEST_STR_MAX], got[DIGEST_STR_MAX];
	struct digest digest;

	hasher_final(pass->hasher, &digest);
	if (!digest_equal(&digest, &blob->digest)) {
		log_error("%s/%s: blob %s: the %llu bytes received have the digest %s",
			  pass->feed.store->name, pass->feed.repo,
			  digest_format(&blob->digest, want), (unsigned long long)blob->size,
			  digest_format(&digest, got));
		pass_reject(pass);
		return -EIO;
	}
	cache_commit(blob->blobs->cache, &blob->id, blob->nblocks, pass->number);
	if (blob->size > BLOB_SMALL)
		sums_save(blob->blobs->cache, blob->id.key, pass->sums);
	stats_add(STAT_PASSES, 1);
	return 0;
}

static int pass_cut_short(struct pass *pass)
{
	char want[DIGEST_STR_MAX];

	log_error("%s/%s: blob %s ends before its %llu bytes", pass->feed.store->name,
		  pass->feed.repo, digest_format(&pass->blob->digest, want),
		  (unsigned long long)pass->blob->size);
	pass_reject(pass);
	return -EIO;
}

/* Lock held. */
static void pass_set_result(struct pass *pass, int result, bool over)
{
	struct blob *blob = pass->blob;

	pass->state = over ? PASS_DONE : PASS_PAUSED;
	pass->result = result;
	if (over) {
		blob->pass = NULL;
		pass->refs--;
	} else {
		window_clear(pass);
	}
	if (over && result == 0 && !blob->sums)
		blob->sums = STEAL(pass->sums);
	blob->error = result == -ECANCELED ? 0 : result;
	blob->retry_ms = now_ms() + blob->blobs->retry_ms;
	wait_wake(&pass->progress);
	wait_wake(&pass->ended);
}

/* Ends the job. OVER: the digest is known to be right or wrong. */
static void pass_finish(struct pass *pass, int result, bool over)
{
	struct blob *blob = pass->blob;

	feed_release(&pass->feed);
	pthread_mutex_lock(&blob->blobs->lock);
	pass_set_result(pass, result, over);
	pthread_mutex_unlock(&blob->blobs->lock);
	pass_unref(pass);
	job_end(blob);
}

/* Somebody may have come just when the job decided that nobody wants it. */
static bool pass_still_wanted(struct pass *pass)
{
	struct blobs *blobs = pass->blob->blobs;

	pthread_mutex_lock(&blobs->lock);
	bool wanted = pass->interested > 0 && !blobs->closing;
	pthread_mutex_unlock(&blobs->lock);
	return wanted;
}

static void pass_run(struct pool_work *work)
{
	struct pass *pass = CONTAINER_OF(work, struct pass, work);
	bool over = true;
	int r;

	do {
		r = pass_blocks(pass);
	} while (r == -ECANCELED && pass_still_wanted(pass));
	if (r == 0)
		r = pass_verify(pass);
	else if (r == -ENODATA)
		r = pass_cut_short(pass);
	else
		over = false;
	pass_finish(pass, r, over);
}

/* --- reading from a pass --- */

/* Block NR, if the window still has it. Lock held. */
static struct piece *window_get(const struct pass *pass, uint32_t nr)
{
	struct piece *piece = pass->window[nr % PASS_WINDOW];

	if (!piece || piece->block != nr)
		return NULL;
	atomic_fetch_add(&piece->refs, 1);
	return piece;
}

static ssize_t piece_copy(struct piece *piece, const struct want *want)
{
	memcpy(want->buf, piece->data + want->off, want->len);
	piece_unref(piece);
	return want->len;
}

/* The verified end of the pass; PIECE is what is wanted, if the window has it then. */
static int pass_wait_end(struct pass *pass, uint32_t nr, struct wait *wait, struct piece **ret)
{
	struct blobs *blobs = pass->blob->blobs;
	int r = 0;

	pthread_mutex_lock(&blobs->lock);
	while (r == 0 && pass->state == PASS_RUNNING)
		r = wait_on(wait, &pass->ended, &blobs->lock, WAIT_FOREVER);
	if (r == 0)
		r = pass->result;
	if (r == 0)
		*ret = window_get(pass, nr);
	pthread_mutex_unlock(&blobs->lock);
	return r;
}

/* Until block NR was published: 0, *RET as above. An error if the pass stopped before. */
static int pass_wait_block(struct pass *pass, uint32_t nr, struct wait *wait, struct piece **ret)
{
	struct blobs *blobs = pass->blob->blobs;
	int r = 0;

	pthread_mutex_lock(&blobs->lock);
	pass->raw_at = nr;
	pass->raw_ms = now_ms();
	wait_wake(&pass->room);
	while (r == 0 && pass->done <= nr) {
		r = pass->state == PASS_RUNNING
			    ? wait_on(wait, &pass->progress, &blobs->lock, WAIT_FOREVER)
			    : pass->result;
	}
	if (r == 0)
		*ret = window_get(pass, nr);
	pthread_mutex_unlock(&blobs->lock);
	return r;
}

/* Unverified. 0: the block came and is lost. */
static ssize_t pass_read_raw(struct pass *pass, const struct want *want, struct wait *wait)
{
	struct blob *blob = pass->blob;
	struct piece *piece = NULL;

	int r = pass_wait_block(pass, want->block, wait, &piece);
	if (r < 0)
		return r;
	if (piece)
		return piece_copy(piece, want);
	ssize_t n = cache_read(blob->blobs->cache, &blob->id, want->block, want->off, want->buf,
			       want->len, pass->number);
	return n == (ssize_t)want->len ? n : 0;
}

static ssize_t pass_read_joined(struct pass *pass, const struct want *want, bool raw,
				struct wait *wait)
{
	struct piece *piece = NULL;

	/* The last block is given with the verdict only: nobody reads a wrong blob to its end. */
	if (raw && want->block + 1 < pass->blob->nblocks) {
		ssize_t n = pass_read_raw(pass, want, wait);
		if (n != 0)
			return n;
	}
	int r = pass_wait_end(pass, want->block, wait, &piece);
	if (r < 0)
		return r;
	return piece ? piece_copy(piece, want) : 0;
}

ssize_t pass_read(struct blob *blob, const struct blob_id *id, const struct want *want, bool raw,
		  struct wait *wait)
{
	struct pass *pass;

	int r = pass_join(blob, id, raw ? JOIN_RAW : JOIN_READ, wait, &pass);
	if (r != 0)
		return r < 0 ? r : 0;
	ssize_t n = pass_read_joined(pass, want, raw, wait);
	pass_leave(pass);
	return n;
}

/* --- streams --- */

static void stream_attach(struct blob_stream *stream)
{
	struct pass *pass = stream->pass;
	struct blobs *blobs = stream->blob->blobs;

	pthread_mutex_lock(&blobs->lock);
	stream->attached = pass->done < PASS_WINDOW;
	stream->next_stream = pass->streams;
	pass->streams = stream;
	pass->opening--;
	wait_wake(&pass->room);
	pthread_mutex_unlock(&blobs->lock);
}

static void stream_detach(struct blob_stream *stream)
{
	struct pass *pass = stream->pass;
	struct blobs *blobs = stream->blob->blobs;
	struct blob_stream **link = &pass->streams;

	pthread_mutex_lock(&blobs->lock);
	while (*link != stream)
		link = &(*link)->next_stream;
	*link = stream->next_stream;
	wait_wake(&pass->room);
	pthread_mutex_unlock(&blobs->lock);
}

static void stream_free(struct blob_stream *stream)
{
	piece_unref(stream->piece);
	if (stream->blob)
		blob_put(stream->blob);
	free(stream->repo);
	free(stream);
}

static int stream_init(struct blob_stream *stream, struct blobs *blobs, const struct blob_id *id,
		       bool keep, struct wait *wait)
{
	stream->repo = strdup(id->repo);
	if (!stream->repo)
		return -ENOMEM;
	int r = blob_hold(blobs, id, true, &stream->blob);
	if (r < 0)
		return r;
	stream->id = *id;
	stream->id.digest = &stream->blob->digest;
	stream->id.repo = stream->repo;
	/* Readers of single blocks need not wait for this pass where there are sums. */
	r = blob_know_sums(stream->blob, wait);
	if (r < 0)
		return r;
	return pass_join(stream->blob, &stream->id, keep ? JOIN_STREAM : JOIN_GET, wait,
			 &stream->pass);
}

int stream_open(struct blobs *blobs, const struct blob_id *id, bool keep, struct wait *wait,
		struct blob_stream **ret)
{
	if (id->size > BLOB_MAX_SIZE)
		return -EFBIG;
	if (!wait_may_block(wait))
		return -EWOULDBLOCK;
	struct blob_stream *stream = calloc(1, sizeof(*stream));
	if (!stream)
		return -ENOMEM;
	int r = stream_init(stream, blobs, id, keep, wait);
	if (r < 0) {
		stream_free(stream);
		return r;
	}
	stream_attach(stream);
	*ret = stream;
	return 0;
}

int blob_stream_open(struct blobs *blobs, const struct blob_id *id, struct wait *wait,
		     struct blob_stream **ret)
{
	return stream_open(blobs, id, true, wait, ret);
}

void blob_stream_close(struct blob_stream *stream)
{
	if (!stream)
		return;
	stream_detach(stream);
	pass_leave(stream->pass);
	stream_free(stream);
}

/* Waits until block NR was published. Lock held. */
static int stream_await(struct blob_stream *stream, uint32_t nr, struct wait *wait)
{
	struct pass *pass = stream->pass;
	int r = 0;

	while (r == 0 && pass->done <= nr) {
		if (pass->state != PASS_RUNNING)
			return pass->result;
		r = wait_on(wait, &pass->progress, &stream->blob->blobs->lock, WAIT_FOREVER);
	}
	return r;
}

/* The next block out of the window. NULL with 0: it has come and gone. */
static int stream_next(struct blob_stream *stream, struct wait *wait, struct piece **ret)
{
	struct blobs *blobs = stream->blob->blobs;

	pthread_mutex_lock(&blobs->lock);
	int r = stream_await(stream, stream->next, wait);
	if (r == 0)
		*ret = window_get(stream->pass, stream->next);
	stream->attached = *ret;
	if (*ret)
		stream->next++;
	wait_wake(&stream->pass->room);
	pthread_mutex_unlock(&blobs->lock);
	return r;
}

static void stream_skip(struct blob_stream *stream)
{
	struct blobs *blobs = stream->blob->blobs;

	pthread_mutex_lock(&blobs->lock);
	stream->next++;
	pthread_mutex_unlock(&blobs->lock);
}

/* A block that has left the window: from the cache, or by range after the pass's end. */
static int stream_catch_up(struct blob_stream *stream, struct wait *wait, struct piece **ret)
{
	struct blob *blob = stream->blob;
	struct piece *piece = piece_new();

	if (!piece)
		return -ENOMEM;
	piece->block = stream->next;
	piece->len = block_len(blob, stream->next);
	struct want want = {.block = piece->block,
			    .last = MIN(piece->block + FETCH_MAX, blob->nblocks) - 1,
			    .len = piece->len,
			    .buf = piece->data};
	ssize_t n = cache_read(blob->blobs->cache, &blob->id, want.block, 0, want.buf, want.len,
			       stream->pass->number);
	if (n != (ssize_t)want.len) {
		struct piece *kept = NULL;

		n = pass_wait_end(stream->pass, want.block, wait, &kept);
		if (n == 0)
			n = kept ? piece_copy(kept, &want)
				 : blob_read_block(blob, &stream->id, &want, false, wait);
	}
	if (n < 0) {
		piece_unref(piece);
		return n;
	}
	*ret = piece;
	stream_skip(stream);
	return 0;
}

ssize_t blob_stream_read(struct blob_stream *stream, const void **ret, struct wait *wait)
{
	struct piece *piece = NULL;
	int r;

	piece_unref(STEAL(stream->piece));
	if (stream->next == stream->blob->nblocks)
		return pass_wait_end(stream->pass, stream->next, wait, &piece);
	r = stream_next(stream, wait, &piece);
	if (r == 0 && !piece)
		r = stream_catch_up(stream, wait, &piece);
	if (r < 0)
		return r;
	stream->piece = piece;
	*ret = piece->data;
	return piece->len;
}
