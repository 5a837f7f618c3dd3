// SPDX-License-Identifier: Apache-2.0
/*
 * The ways to the stores: how long and fast each is, and who goes first on it.
 * Knows latencies, rates, and passes that nobody waits for. Must not know streams, nor what is
 * fetched.
 *
 * A pass in the background (wait.h) takes a block when nobody who waits has bytes under way on the
 * same way, and not more in a second than the limit. It stands back for YIELD_MS at most for one
 * block: so it comes to its end beside readers who never stop, and its server, who gives up a
 * connection that takes nothing for a minute or so, is not kept waiting. Our own timeout does not
 * run while nothing is asked of a transfer. What did break off goes on where it was.
 */
#include <errno.h>
#include <time.h>

#include "blob_priv.h"

#define LATENCY_SHORT_US 5000  /* below, one range at a time does */
#define LATENCY_TRIP_US	 1000  /* from here on a trip costs more than what comes along */
#define RATE_SPAN_US	 50000 /* a rate is taken over so long at least */
#define RATE_SLACK_US	 50000 /* what was not taken in time may be made up for so much */

int64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* --- which --- */

struct way *way_of(struct blobs *blobs, const struct store *store)
{
	struct way *way = blobs->ways;

	while (way && way->store != store)
		way = way->next;
	if (way)
		return way;
	way = calloc(1, sizeof(*way));
	if (!way)
		return &blobs->any_way;
	way->store = store;
	way->next = blobs->ways;
	blobs->ways = way;
	return way;
}

struct way *way_find(struct blobs *blobs, const struct store *store)
{
	pthread_mutex_lock(&blobs->lock);
	struct way *way = way_of(blobs, store);
	pthread_mutex_unlock(&blobs->lock);
	return way;
}

void ways_release(struct blobs *blobs)
{
	while (blobs->ways) {
		struct way *way = blobs->ways;

		blobs->ways = way->next;
		free(way);
	}
}

/* --- the pace --- */

void pace_latency(struct pace *pace, int64_t us)
{
	int64_t old = atomic_load(&pace->latency_us);

	if (pace->fixed)
		return;
	/* a long one may have been a fresh connection; two at a time may lose one, which is as good
	 */
	if (old)
		us = us < old ? (old + us) / 2 : (7 * old + us) / 8;
	atomic_store(&pace->latency_us, MAX(us, 1));
}

void pace_begin(struct pace *pace)
{
	if (pace->running++ > 0)
		return;
	pace->since_us = now_us();
	pace->bytes = 0;
}

void pace_end(struct pace *pace, uint64_t bytes)
{
	int64_t now = now_us(), span = now - pace->since_us;

	pace->running--;
	pace->bytes += bytes;
	if (span < RATE_SPAN_US || pace->fixed)
		return;
	pace->rate = pace->bytes * 1000000 / (uint64_t)span;
	pace->since_us = now;
	pace->bytes = 0;
}

bool pace_is_long(const struct pace *pace)
{
	return atomic_load(&pace->latency_us) >= LATENCY_TRIP_US;
}

uint32_t pace_depth(const struct pace *pace)
{
	int64_t latency = atomic_load(&pace->latency_us);

	if (latency < LATENCY_SHORT_US)
		return 0;
	uint64_t bytes = 2 * pace->rate * (uint64_t)latency / 1000000;
	uint64_t blocks = bytes / CACHE_BLOCK;
	return (uint32_t)MIN(MAX(blocks, (uint64_t)FETCH_MAX), (uint64_t)AHEAD_STREAMS * FETCH_MAX);
}

unsigned blobs_parallel(struct blobs *blobs, const struct store *store)
{
	int64_t latency = atomic_load(&way_find(blobs, store)->pace.latency_us);

	if (latency == 0 || latency >= 4 * LATENCY_SHORT_US)
		return BRING_STREAMS;
	return latency < LATENCY_SHORT_US ? 1 : AHEAD_STREAMS / 2;
}

/* --- who goes first --- */

void way_enter(struct way *way)
{
	way->awaited++;
}

void way_leave(struct way *way)
{
	if (--way->awaited == 0)
		wait_wake(&way->quiet);
}

/* Brings the count of PASS's way up to date. Lock held. */
static void pass_count(struct pass *pass)
{
	bool counts = pass->awaited && pass->state == PASS_RUNNING;

	if (counts == pass->counted)
		return;
	pass->counted = counts;
	if (counts)
		way_enter(pass->way);
	else
		way_leave(pass->way);
}

void pass_hurry(struct pass *pass)
{
	if (pass->awaited)
		return;
	pass->awaited = true;
	pass_count(pass);
	if (pass->way)
		wait_wake(&pass->way->quiet);
}

void pass_state(struct pass *pass, enum pass_state state)
{
	pass->state = state;
	pass_count(pass);
}

void blobs_limit_background(struct blobs *blobs, uint64_t bytes_per_second)
{
	pthread_mutex_lock(&blobs->lock);
	blobs->rate = bytes_per_second;
	pthread_mutex_unlock(&blobs->lock);
}

int64_t rate_due(int64_t due_us, int64_t now, uint64_t bytes, uint64_t rate)
{
	int64_t from = MAX(due_us, now - RATE_SLACK_US);

	return from + (int64_t)(bytes * 1000000 / rate);
}

/* Whether a pass in the background has to stand back at NOW_MS, and until when. Lock held. */
static bool stands_back(const struct pass *pass, int64_t now, int64_t limit_ms, int64_t *ret_ms)
{
	const struct blobs *blobs = pass->blob->blobs;
	int64_t due_ms = (blobs->due_us + 999) / 1000;

	if (pass->awaited)
		return false;
	if (blobs->rate && due_ms > now) {
		*ret_ms = due_ms;
		return true;
	}
	*ret_ms = limit_ms;
	return pass->way->awaited > 0 && now < limit_ms;
}

int pass_yield(struct pass *pass, size_t len)
{
	struct blobs *blobs = pass->blob->blobs;
	int64_t limit_ms = now_ms() + blobs->yield_ms, until_ms;
	int r = 0;

	pthread_mutex_lock(&blobs->lock);
	while (r == 0 && stands_back(pass, now_ms(), limit_ms, &until_ms)) {
		r = wait_on(&pass->wait, &pass->way->quiet, &blobs->lock, until_ms);
		r = r == -ETIMEDOUT ? 0 : r;
	}
	if (r == 0 && blobs->rate && !pass->awaited)
		blobs->due_us = rate_due(blobs->due_us, now_us(), len, blobs->rate);
	pthread_mutex_unlock(&blobs->lock);
	return r;
}
