// SPDX-License-Identifier: Apache-2.0
/*
 * Ranges of a blob whose block sums are known: single flight, coalesced, each block checked before
 * anybody sees it.
 * Knows sums. Must not know passes, nor who is read ahead for (blob_ahead.c).
 *
 * A fetch is a job of its own with its own wait, so that a reader that is called off neither stops
 * nor delays the others that want the same blocks. Blocks are published in order as they are
 * verified: a reader of the first one does not wait for the rest.
 */
#include <errno.h>

#include "blob_priv.h"
#include "regfs/log.h"
#include "regfs/stats.h"

struct fetch {
	struct pool_work work;
	struct blob *blob; /* held by the job; for those in blobs->recent only compared */
	struct wait wait;
	struct feed feed;
	struct way *way; /* to its store */
	uint32_t first, count;
	uint8_t *data; /* blocks below ready are constant */
	/* guarded by blobs->lock */
	unsigned refs; /* readers', the job's, blobs->recent's */
	uint32_t ready;
	bool ended;
	int result;
	struct fetch *then; /* begins when this one is over */
	struct fetch *next;
};

static void fetch_free(struct fetch *fetch)
{
	if (!fetch)
		return;
	feed_release(&fetch->feed);
	wait_release(&fetch->wait);
	free(fetch->data);
	free(fetch);
}

/* Lock held; gives what is to be freed without it. */
static struct fetch *fetch_unref_locked(struct fetch *fetch)
{
	return fetch && --fetch->refs == 0 ? fetch : NULL;
}

static void fetch_unref(struct blobs *blobs, struct fetch *fetch)
{
	pthread_mutex_lock(&blobs->lock);
	fetch = fetch_unref_locked(fetch);
	pthread_mutex_unlock(&blobs->lock);
	fetch_free(fetch);
}

static struct fetch *fetch_new(struct blob *blob, const struct blob_id *id, uint32_t first,
			       uint32_t count)
{
	struct fetch *fetch = calloc(1, sizeof(*fetch));

	if (!fetch)
		return NULL;
	wait_init(&fetch->wait, true);
	fetch->blob = blob;
	fetch->feed.blob = blob;
	fetch->first = first;
	fetch->count = count;
	fetch->data = malloc((size_t)count * CACHE_BLOCK);
	if (!fetch->data || feed_source(&fetch->feed, id) < 0) {
		fetch_free(fetch);
		return NULL;
	}
	return fetch;
}

void fetch_cancel_all(struct blob *blob)
{
	for (struct fetch *fetch = blob->fetches; fetch; fetch = fetch->next)
		wait_cancel(&fetch->wait);
}

/* --- the ranges kept in memory where the cache keeps none --- */

static void recent_add(struct blobs *blobs, struct fetch *fetch)
{
	pthread_mutex_lock(&blobs->lock);
	struct fetch *old = fetch_unref_locked(blobs->recent[blobs->next_recent]);
	blobs->recent[blobs->next_recent] = fetch;
	fetch->refs++;
	blobs->next_recent = (blobs->next_recent + 1) % RECENT;
	pthread_mutex_unlock(&blobs->lock);
	fetch_free(old);
}

void fetch_forget(struct blobs *blobs, const struct blob *blob)
{
	for (size_t i = 0; i < RECENT; i++)
		if (blobs->recent[i] && (!blob || blobs->recent[i]->blob == blob))
			fetch_free(fetch_unref_locked(STEAL(blobs->recent[i])));
}

/* --- the job --- */

static void fetch_publish(struct fetch *fetch)
{
	struct blobs *blobs = fetch->blob->blobs;

	pthread_mutex_lock(&blobs->lock);
	fetch->ready++;
	wait_wake(&fetch->blob->fetched);
	pthread_mutex_unlock(&blobs->lock);
}

static int fetch_wrong(const struct fetch *fetch, uint32_t nr, const struct block_sums *sums)
{
	char name[DIGEST_STR_MAX], want[DIGEST_STR_MAX], got[DIGEST_STR_MAX];

	stats_add(STAT_DIGEST_MISMATCHES, 1);
	log_error("%s/%s: blob %s: with its block %u the hash should come to %s and comes to %s",
		  fetch->feed.store->name, fetch->feed.repo,
		  digest_format(&fetch->blob->digest, name), nr, digest_format(&sums->want, want),
		  digest_format(&sums->got, got));
	return -EIO;
}

/* One block, verified. A wrong one is asked for once more: the sums are the trusted side, and what
 * was wrong may have been the way. */
static int fetch_block(struct fetch *fetch, uint32_t nr, bool *cached)
{
	struct blob *blob = fetch->blob;
	uint8_t *data = fetch->data + (size_t)(nr - fetch->first) * CACHE_BLOCK;
	struct block_sums sums;

	for (int tries = 0; tries < 2; tries++) {
		int r = feed_block(&fetch->feed, nr, data, &fetch->wait, cached);
		if (r == 0 && *cached)
			return 0;
		if (r == -ENODATA) {
			memset(data, 0, CACHE_BLOCK);
			r = 0;
		}
		if (r == 0)
			r = sums_of(blob->sums, nr, data, block_len(blob, nr), &sums);
		if (r < 0 || digest_equal(&sums.want, &sums.got))
			return r;
		feed_stop(&fetch->feed);
		store_distrust(fetch->feed.store, fetch->feed.repo, &blob->digest);
	}
	return fetch_wrong(fetch, nr, &sums);
}

static int fetch_blocks(struct fetch *fetch, bool *unkept)
{
	struct blob *blob = fetch->blob;

	for (uint32_t i = fetch->ready; i < fetch->count; i++) {
		uint32_t nr = fetch->first + i;
		bool cached = false;

		int r = fetch_block(fetch, nr, &cached);
		if (r < 0)
			return r;
		if (!cached &&
		    cache_write(blob->blobs->cache, &blob->id, nr,
				fetch->data + (size_t)i * CACHE_BLOCK, block_len(blob, nr), 0) < 0)
			*unkept = true;
		fetch_publish(fetch);
	}
	return 0;
}

static void fetch_submit(struct fetch *fetch);

static void fetch_finish(struct fetch *fetch, int result, bool unkept)
{
	struct blob *blob = fetch->blob;
	struct blobs *blobs = blob->blobs;

	feed_stop(&fetch->feed);
	if (unkept)
		recent_add(blobs, fetch);
	pthread_mutex_lock(&blobs->lock);
	struct fetch **link = &blob->fetches;
	while (*link != fetch)
		link = &(*link)->next;
	*link = fetch->next;
	pace_end(&fetch->way->pace, fetch->feed.received);
	way_leave(fetch->way);
	fetch->ended = true;
	fetch->result = result;
	struct fetch *then = STEAL(fetch->then);
	over_drop(&fetch->feed, &fetch->wait);
	wait_wake(&blob->fetched);
	pthread_mutex_unlock(&blobs->lock);
	if (then)
		fetch_submit(then);
	fetch_unref(blobs, fetch);
	job_end(blob);
}

/* Whether it was called off so that it goes on elsewhere. */
static bool fetch_goes_over(struct fetch *fetch)
{
	struct blobs *blobs = fetch->blob->blobs;

	pthread_mutex_lock(&blobs->lock);
	struct way *way = over_take(&fetch->feed, &fetch->wait);
	if (way) {
		pace_end(&fetch->way->pace, fetch->feed.received);
		way_leave(fetch->way);
		fetch->way = way;
		way_enter(way);
		pace_begin(&way->pace);
	}
	pthread_mutex_unlock(&blobs->lock);
	if (!way)
		return false;
	over_go(&fetch->feed);
	stats_add(STAT_RANGE_BYTES, fetch->feed.received);
	fetch->feed.received = 0;
	return true;
}

static void fetch_run(struct pool_work *work)
{
	struct fetch *fetch = CONTAINER_OF(work, struct fetch, work);
	bool unkept = false;
	int r;

	do {
		r = fetch_blocks(fetch, &unkept);
	} while (r == -EINTR && fetch_goes_over(fetch));
	stats_add(STAT_RANGE_BYTES, fetch->feed.received);
	fetch_finish(fetch, r, unkept);
}

static void fetch_submit(struct fetch *fetch)
{
	if (pool_submit(fetch->blob->blobs->jobs, &fetch->work) < 0)
		fetch_finish(fetch, -ENOMEM, false);
}

/* Begins FETCH, or has it wait until AFTER (NULL: nothing) is over. */
static void fetch_begin(struct fetch *fetch, struct fetch *after)
{
	struct blobs *blobs = fetch->blob->blobs;

	pthread_mutex_lock(&blobs->lock);
	bool waits = after && !after->ended && !after->then;
	if (waits)
		after->then = fetch;
	pthread_mutex_unlock(&blobs->lock);
	if (!waits)
		fetch_submit(fetch);
}

/* --- which blocks --- */

/* The blocks from FIRST on that are missing, at most MOST. */
static uint32_t missing_run(const struct blob *blob, uint32_t first, uint32_t most)
{
	uint32_t limit = MIN(MIN(most, FETCH_MAX), blob->nblocks - first), count = 1;

	while (count < limit && !cache_has(blob->blobs->cache, &blob->id, first + count))
		count++;
	return count;
}

static bool fetch_covers(const struct fetch *fetch, uint32_t nr)
{
	return nr >= fetch->first && nr - fetch->first < fetch->count;
}

/* A fetch in flight or kept that has or will have block NR, held. Lock held. */
static struct fetch *fetch_find(struct blob *blob, uint32_t nr)
{
	struct fetch *found = NULL;

	for (struct fetch *fetch = blob->fetches; fetch && !found; fetch = fetch->next)
		if (fetch_covers(fetch, nr))
			found = fetch;
	for (size_t i = 0; i < RECENT && !found; i++) {
		struct fetch *fetch = blob->blobs->recent[i];
		if (fetch && fetch->blob == blob && fetch_covers(fetch, nr) &&
		    nr - fetch->first < fetch->ready)
			found = fetch;
	}
	if (found)
		found->refs++;
	return found;
}

/* Makes FRESH the fetch of its first block, without the blocks that are in flight already, and
 * takes it; or finds that somebody was faster. Lock held. */
static struct fetch *fetch_install(struct blob *blob, struct fetch **fresh)
{
	struct fetch *fetch = fetch_find(blob, (*fresh)->first);

	if (fetch)
		return fetch;
	fetch = STEAL(*fresh);
	for (struct fetch *other = blob->fetches; other; other = other->next)
		if (other->first > fetch->first)
			fetch->count = MIN(fetch->count, other->first - fetch->first);
	fetch->feed.end = MIN((uint64_t)(fetch->first + fetch->count) * CACHE_BLOCK, blob->size);
	fetch->work.run = fetch_run;
	fetch->refs = 2; /* the caller's and the job's */
	fetch->next = blob->fetches;
	blob->fetches = fetch;
	fetch->way = way_of(blob->blobs, fetch->feed.store);
	way_enter(fetch->way);
	pace_begin(&fetch->way->pace);
	job_begin(blob);
	return fetch;
}

/* At most MOST blocks from FIRST on; NOTE, of who asks, may be NULL. */
struct start {
	uint32_t first, most;
	struct ahead_note *note;
	struct fetch *after; /* what goes first, or NULL */
};

/* Sets off what is missing of START's blocks; its note gets what came of it. Held; NULL when memory
 * is short. */
static struct fetch *fetch_start(struct blob *blob, const struct blob_id *id,
				 const struct start *start)
{
	struct blobs *blobs = blob->blobs;
	struct ahead_note *note = start->note;

	struct fetch *fresh = fetch_new(blob, id, start->first,
					missing_run(blob, start->first, start->most));
	if (!fresh)
		return NULL;
	pthread_mutex_lock(&blobs->lock);
	struct fetch *fetch = fetch_install(blob, &fresh);
	if (!fresh && note) {
		note->first = fetch->first;
		note->end = fetch->first + fetch->count;
		ahead_started(blob, note);
	}
	pthread_mutex_unlock(&blobs->lock);
	if (!fresh)
		fetch_begin(fetch, start->after);
	fetch_free(fresh);
	return fetch;
}

void fetch_ahead(struct blob *blob, const struct blob_id *id, uint32_t nr)
{
	struct blobs *blobs = blob->blobs;
	const struct pace *pace = &way_find(blobs, id->store)->pace;
	struct ahead_note note;

	for (;;) {
		pthread_mutex_lock(&blobs->lock);
		bool more = !blobs->closing && ahead_next(blob, pace, nr, &note);
		pthread_mutex_unlock(&blobs->lock);
		if (!more)
			return;
		const struct start start = {.first = note.first, .most = note.end - note.first};
		struct fetch *fetch = fetch_start(blob, id, &start);
		if (!fetch)
			return;
		fetch_unref(blobs, fetch);
	}
}

/* Sets off what is missing of BLOCKS: the first range AFTER another one, where it finds a
 * connection that is fast already; a fresh one takes many round trips to become that. */
static void fetch_along(struct blob *blob, const struct blob_id *id, const struct blocks *blocks,
			struct fetch *after)
{
	struct start start = {.first = blocks->first, .after = after};

	while (start.first < blocks->end) {
		if (cache_has(blob->blobs->cache, &blob->id, start.first)) {
			start.first++;
			continue;
		}
		start.most = blocks->end - start.first;
		struct fetch *fetch = fetch_start(blob, id, &start);
		if (!fetch)
			return;
		if (fetch->first == start.first)
			stats_add(STAT_AHEAD_BYTES, (int64_t)fetch->count * CACHE_BLOCK);
		start.first = fetch->first + fetch->count;
		fetch_unref(blob->blobs, fetch);
	}
}

/* --- reading --- */

static struct over_await await_of(struct fetch *fetch, const struct blob_id *id)
{
	return (struct over_await){
		.feed = &fetch->feed,
		.job = &fetch->wait,
		.way = &fetch->way,
		.done = &fetch->ready,
		.queue = &fetch->blob->fetched,
		.id = id,
	};
}

static ssize_t fetch_take(struct fetch *fetch, const struct blob_id *id, const struct want *want,
			  struct wait *wait)
{
	struct over_await await = await_of(fetch, id);
	struct blob *blob = fetch->blob;
	uint32_t nr = want->block - fetch->first;
	int r = 0;

	pthread_mutex_lock(&blob->blobs->lock);
	while (r == 0 && fetch->ready <= nr) {
		r = fetch->ended ? fetch->result : over_await(&await, wait);
	}
	pthread_mutex_unlock(&blob->blobs->lock);
	if (r < 0)
		return r;
	memcpy(want->buf, fetch->data + (size_t)nr * CACHE_BLOCK + want->off, want->len);
	return want->len;
}

/* Whether FETCH failed with ERROR by itself, at another source than ID's: with its own it may work.
 */
static bool fetch_failed_elsewhere(const struct fetch *fetch, const struct blob_id *id,
				   ssize_t error)
{
	return error < 0 && error != -EINTR && error != -EWOULDBLOCK &&
	       fetch->feed.source != blob_source(id);
}

/* Somebody wants a block that is nowhere. */
static struct fetch *fetch_missed(struct blob *blob, const struct blob_id *id,
				  const struct want *want)
{
	struct blobs *blobs = blob->blobs;
	struct ahead_note note = {.wanted = want->last + 1};
	const struct pace *pace = &way_find(blobs, id->store)->pace;
	struct blocks along = ahead_along(blob, pace, want);
	uint32_t count = along.end - want->block;

	pthread_mutex_lock(&blobs->lock);
	note.window = ahead_window(blob, want);
	pthread_mutex_unlock(&blobs->lock);
	count = MAX(count, note.window);
	const struct start start = {.first = want->block, .most = count, .note = &note};
	struct fetch *fetch = fetch_start(blob, id, &start);
	if (!fetch || !pace_is_long(pace))
		return fetch;
	const struct blocks before = {along.first, want->block};
	const struct blocks behind = {fetch->first + fetch->count, along.end};
	fetch_along(blob, id, &before, fetch);
	fetch_along(blob, id, &behind, fetch);
	return fetch;
}

/* One round: 0: somebody else's range was waited for, and failed where ID's source might not. */
static ssize_t read_round(struct blob *blob, const struct blob_id *id, const struct want *want,
			  struct wait *wait)
{
	struct blobs *blobs = blob->blobs;

	pthread_mutex_lock(&blobs->lock);
	struct fetch *fetch = fetch_find(blob, want->block);
	bool closing = blobs->closing;
	if (fetch)
		ahead_came(blob, want->block);
	pthread_mutex_unlock(&blobs->lock);
	if (!fetch && !wait_may_block(wait))
		return -EWOULDBLOCK;
	if (!fetch && closing)
		return -EINTR;
	if (!fetch)
		fetch = fetch_missed(blob, id, want);
	if (!fetch)
		return -ENOMEM;
	fetch_ahead(blob, id, want->block);
	ssize_t n = fetch_take(fetch, id, want, wait);
	if (fetch_failed_elsewhere(fetch, id, n))
		n = 0;
	fetch_unref(blobs, fetch);
	return n;
}

ssize_t fetch_read(struct blob *blob, const struct blob_id *id, const struct want *want,
		   struct wait *wait)
{
	ssize_t n;

	do {
		n = read_round(blob, id, want, wait);
	} while (n == 0);
	return n;
}

/* --- bringing in --- */

/* Until FETCH is over, or has all of what is wanted up to LAST. */
static int fetch_await(struct fetch *fetch, const struct blob_id *id, uint32_t last,
		       struct wait *wait)
{
	struct over_await await = await_of(fetch, id);
	struct blob *blob = fetch->blob;
	uint32_t count = MIN(fetch->count, last - fetch->first + 1);
	int r = 0;

	pthread_mutex_lock(&blob->blobs->lock);
	while (r == 0 && fetch->ready < count && !fetch->ended)
		r = over_await(&await, wait);
	if (r == 0 && fetch->ready < count)
		r = fetch->result;
	pthread_mutex_unlock(&blob->blobs->lock);
	return r;
}

static ssize_t bring_blocks(struct blob *blob, const struct blob_id *id, uint32_t first,
			    uint32_t last, struct wait *wait)
{
	struct blobs *blobs = blob->blobs;
	uint32_t nr = first;
	ssize_t bytes = 0;

	while (nr <= last) {
		if (cache_has(blobs->cache, &blob->id, nr)) {
			nr++;
			continue;
		}
		pthread_mutex_lock(&blobs->lock);
		bool closing = blobs->closing;
		struct fetch *fetch = fetch_find(blob, nr);
		pthread_mutex_unlock(&blobs->lock);
		if (!fetch && closing)
			return -EINTR;
		bool ours = !fetch;
		if (ours)
			fetch = fetch_start(blob, id,
					    &(struct start){.first = nr, .most = last - nr + 1});
		if (!fetch)
			return -ENOMEM;
		int r = fetch_await(fetch, id, last, wait);
		bool elsewhere = fetch_failed_elsewhere(fetch, id, r);
		if (!elsewhere)
			nr = fetch->first + fetch->count;
		if (ours)
			bytes += (ssize_t)((uint64_t)fetch->count * CACHE_BLOCK);
		fetch_unref(blobs, fetch);
		if (r < 0 && !elsewhere)
			return r;
	}
	return bytes;
}

/* Who has things brought in knows better than any guess what comes along. */
static void count_brings(struct blob *blob, int change)
{
	pthread_mutex_lock(&blob->blobs->lock);
	blob->brings += (unsigned)change;
	pthread_mutex_unlock(&blob->blobs->lock);
}

ssize_t fetch_bring(struct blob *blob, const struct blob_id *id, uint32_t first, uint32_t last,
		    struct wait *wait)
{
	count_brings(blob, 1);
	ssize_t n = bring_blocks(blob, id, first, last, wait);
	count_brings(blob, -1);
	return n;
}
