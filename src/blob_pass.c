// SPDX-License-Identifier: Apache-2.0
/*
 * A pass: a blob streamed once from its first byte to its last, hashed on the way.
 * Knows the window, and how a pass is started, held back, paused and judged. Must not know ranges,
 * nor those who take from it (blob_follow.c).
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
 */
#include <errno.h>

#include "blob_priv.h"
#include "regfs/log.h"
#include "regfs/stats.h"

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
	if (pass->state != PASS_DONE && pass->given) {
		pthread_mutex_lock(&pass->blob->blobs->lock);
		stale_note(pass->blob, false);
		pthread_mutex_unlock(&pass->blob->blobs->lock);
	}
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
	pass->sums = sums_new(&blob->digest, blob->size);
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

static bool is_stream(enum join why)
{
	return why == JOIN_STREAM || why == JOIN_GET;
}

struct joiner {
	enum join why;
	bool may_block, background;
	uint64_t source;
	const struct store *store;
};

#define NO_PASS 2 /* no errno: the blob's own error may be any */

/* Takes part in the blob's pass if it runs or may be made to. Lock held. *START: the caller has to
 * launch it. 1: no need. NO_PASS: there is none to join yet. */
static int join_locked(struct blob *blob, const struct joiner *joiner, struct pass **ret,
		       bool *ret_start)
{
	struct pass *pass = blob->pass;

	if (blob->sums && !is_stream(joiner->why))
		return 1;
	bool same = blob->error_source == joiner->source ||
		    (joiner->why == JOIN_RAW && blob->wrong);
	if (blob->error && same && now_ms() < blob->retry_ms)
		return blob->error;
	if ((!pass || pass->state != PASS_RUNNING) && !joiner->may_block)
		return -EWOULDBLOCK;
	if (blob->blobs->closing)
		return -EINTR;
	if (!pass)
		return NO_PASS;
	*ret_start = pass->state == PASS_PAUSED;
	if (*ret_start) {
		pass->way = way_of(blob->blobs, joiner->store);
		pass_state(pass, PASS_RUNNING);
		pass->refs++;
		job_begin(blob);
	}
	pass->refs++;
	pass->interested++;
	pass->keep |= joiner->why != JOIN_GET;
	if (!joiner->background)
		pass_hurry(pass);
	/* From here on the window waits for them. */
	if (joiner->why == JOIN_RAW)
		pass->raw_ms = now_ms();
	if (is_stream(joiner->why))
		pass->opening++;
	*ret = pass;
	return 0;
}

int pass_join(struct blob *blob, const struct blob_id *id, enum join why, struct wait *wait,
	      struct pass **ret)
{
	const struct joiner joiner = {.why = why,
				      .may_block = wait_may_block(wait),
				      .background = wait_background(wait),
				      .source = blob_source(id),
				      .store = id->store};
	struct blobs *blobs = blob->blobs;
	struct pass *pass = NULL;
	bool start = false;
	int r;

	for (;;) {
		pthread_mutex_lock(&blobs->lock);
		r = join_locked(blob, &joiner, &pass, &start);
		pthread_mutex_unlock(&blobs->lock);
		if (r != NO_PASS)
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

void pass_leave(struct pass *pass)
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

/* From when somebody waits for it, what is left may come over several connections. */
static void pass_widen(struct pass *pass, uint32_t nr)
{
	struct blobs *blobs = pass->blob->blobs;

	pthread_mutex_lock(&blobs->lock);
	bool widens = pass->awaited && !pass->feed.wide;
	bool far = widens && lanes_suit(pass->blob, pass->way, (uint64_t)nr * CACHE_BLOCK);
	pthread_mutex_unlock(&blobs->lock);
	pass->feed.wide |= widens;
	if (far)
		feed_stop(&pass->feed);
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
	if (r == 0 && (pass->feed.stream || !cache_has(blob->blobs->cache, &blob->id, nr)))
		r = pass_yield(pass, piece->len);
	pass_widen(pass, nr);
	if (r == 0)
		r = feed_block(&pass->feed, nr, piece->data, &pass->wait, &cached);
	if (r < 0) {
		piece_unref(piece);
		return r;
	}
	hasher_add(pass->hasher, piece->data, piece->len);
	sums_add(pass->sums, pass->hasher);
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
	pthread_mutex_lock(&blob->blobs->lock);
	blob->one_stream |= pass->feed.wide;
	pthread_mutex_unlock(&blob->blobs->lock);
	store_distrust(pass->feed.store, pass->feed.repo, &blob->digest);
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
		sums_save(blob->blobs->cache, pass->sums);
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

	pass_state(pass, over ? PASS_DONE : PASS_PAUSED);
	pass->result = result;
	if (over) {
		blob->pass = NULL;
		pass->refs--;
	} else {
		window_clear(pass);
	}
	if (over && result == 0 && !blob->sums)
		blob->sums = STEAL(pass->sums);
	over_drop(&pass->feed, &pass->wait);
	blob->error = result == -ECANCELED ? 0 : result;
	blob->error_source = pass->feed.source;
	blob->wrong = over && result < 0;
	if (blob->wrong && pass->given)
		stale_note(blob, true);
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

/* Whether it was called off so that it goes on elsewhere. */
static bool pass_goes_over(struct pass *pass)
{
	struct blobs *blobs = pass->blob->blobs;

	pthread_mutex_lock(&blobs->lock);
	struct way *way = over_take(&pass->feed, &pass->wait);
	if (way && pass->counted) {
		way_leave(pass->way);
		way_enter(way);
	}
	if (way)
		pass->way = way;
	pthread_mutex_unlock(&blobs->lock);
	if (way)
		over_go(&pass->feed);
	return way;
}

static void pass_run(struct pool_work *work)
{
	struct pass *pass = CONTAINER_OF(work, struct pass, work);
	bool over = true;
	int r;

	do {
		r = pass_blocks(pass);
	} while ((r == -ECANCELED && pass_still_wanted(pass)) ||
		 (r == -EINTR && pass_goes_over(pass)));
	if (r == 0)
		r = pass_verify(pass);
	else if (r == -ENODATA)
		r = pass_cut_short(pass);
	else
		over = false;
	pass_finish(pass, r, over);
}
