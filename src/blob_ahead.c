// SPDX-License-Identifier: Apache-2.0
/*
 * What is fetched of a blob before it is asked for.
 * Knows sequential readers. Must not know streams, nor verify anything.
 *
 * A reader who continues where its last range ended gets more each time: 1 MiB, 2, 4. Where an
 * answer takes long, one whose window has grown to the full gets ranges set off before it comes to
 * them, as many at once as keep the way full: twice what fits into it (rate times latency), so that
 * the rate shows whether more would come. Where answers come at once, one stream is as fast.
 *
 * The first block of what a range brings unasked is *marked*: when it is read, out of the cache or
 * on its way, the reader has come on, and the next range is due. Marks are looked at without a
 * lock; one that is lost to another only means that its reader has to miss once.
 */
#include "blob_priv.h"
#include "regfs/stats.h"

/* --- marks --- */

static uint64_t mark_of(const struct cache_id *id, uint32_t nr)
{
	return hash64(nr, id->key, sizeof(id->key)) | 1;
}

static void mark_set(struct blob *blob, uint32_t nr)
{
	uint64_t mark = mark_of(&blob->id, nr);

	if (atomic_exchange(&blob->blobs->marks[(mark >> 1) % MARKS], mark) == 0)
		atomic_fetch_add(&blob->blobs->nmarks, 1);
}

bool ahead_marked(struct blobs *blobs, const struct cache_id *id, uint32_t nr)
{
	if (atomic_load_explicit(&blobs->nmarks, memory_order_relaxed) == 0)
		return false;
	uint64_t mark = mark_of(id, nr);
	if (!atomic_compare_exchange_strong(&blobs->marks[(mark >> 1) % MARKS], &mark, 0))
		return false;
	atomic_fetch_sub(&blobs->nmarks, 1);
	return true;
}

/* --- runs --- */

static void run_end(struct run *run)
{
	if (run->next > run->used)
		stats_add(STAT_AHEAD_UNUSED_BYTES, (int64_t)(run->next - run->used) * CACHE_BLOCK);
	*run = (struct run){0};
}

void ahead_forget(struct blob *blob)
{
	for (size_t i = 0; i < RUNS; i++)
		run_end(&blob->runs[i]);
}

/* The number of the reader who misses NR on its way; RUNS: none. */
static size_t run_at(const struct blob *blob, uint32_t nr)
{
	size_t i = 0;

	for (; i < RUNS; i++) {
		const struct run *run = &blob->runs[i];

		/* something may have been evicted before it came there */
		if (nr > 0 && (run->next == nr || (nr >= run->used && nr < run->next)))
			break;
	}
	return i;
}

uint32_t ahead_window(const struct blob *blob, const struct want *want)
{
	size_t n = run_at(blob, want->block);
	uint32_t count = want->last - want->block + 1;

	if (n == RUNS)
		return 0;
	return MIN(MAX(2 * MAX(blob->runs[n].window, count), AHEAD_FIRST), FETCH_MAX);
}

void ahead_started(struct blob *blob, const struct ahead_note *note)
{
	size_t n = run_at(blob, note->first);

	if (n == RUNS) {
		n = blob->next_run;
		blob->next_run = (blob->next_run + 1) % RUNS;
		run_end(&blob->runs[n]);
	}
	blob->runs[n] = (struct run){
		.next = note->end,
		.window = note->window,
		.used = MIN(note->wanted, note->end),
	};
	if (note->wanted >= note->end)
		return;
	mark_set(blob, note->wanted);
	stats_add(STAT_AHEAD_BYTES, (int64_t)(note->end - note->wanted) * CACHE_BLOCK);
}

/* The reader that NR is of: it lies in what was fetched for it last. */
static struct run *run_over(struct blob *blob, uint32_t nr)
{
	for (size_t i = 0; i < RUNS; i++) {
		struct run *run = &blob->runs[i];

		if (nr < run->next && run->next - nr <= (AHEAD_STREAMS + 1) * FETCH_MAX)
			return run;
	}
	return NULL;
}

void ahead_came(struct blob *blob, uint32_t nr)
{
	struct run *run = run_over(blob, nr);

	/* of a range that somebody came to, all counts as used */
	if (run)
		run->used = MAX(run->used, MIN(run->next, nr + FETCH_MAX));
}

bool ahead_next(struct blob *blob, const struct pace *pace, uint32_t nr, struct ahead_note *ret)
{
	uint32_t depth = pace_depth(pace);
	struct run *run = run_over(blob, nr);

	if (!run)
		return false;
	if (run->window < FETCH_MAX || run->next - nr > depth || run->next >= blob->nblocks)
		return false;
	*ret = (struct ahead_note){
		.first = run->next,
		.end = MIN(run->next + FETCH_MAX, blob->nblocks),
		.window = run->window,
	};
	run->next = ret->end;
	mark_set(blob, ret->first);
	stats_add(STAT_AHEAD_BYTES, (int64_t)(ret->end - ret->first) * CACHE_BLOCK);
	return true;
}

/* --- what comes along --- */

static uint32_t count_here(const struct blob *blob, const struct blocks *blocks)
{
	uint32_t n = 0;

	for (uint32_t nr = blocks->first; nr < blocks->end; nr++)
		n += cache_has(blob->blobs->cache, &blob->id, nr);
	return n;
}

static void join(struct blocks *blocks, const struct blocks *other)
{
	blocks->first = MIN(blocks->first, other->first);
	blocks->end = MAX(blocks->end, other->end);
}

/* Whether the file of a reader who misses should come whole. */
static bool comes_whole(const struct blob *blob, const struct blocks *file)
{
	if (file->end <= file->first || file->end - file->first > FETCH_MAX)
		return false;
	return file->end - file->first <= ALONG_WHOLE || count_here(blob, file) > 0;
}

/* Which of the blocks around WANTED are here, it among them. */
struct surroundings {
	uint32_t first, count;
	bool here[2 * ALONG_AROUND + FETCH_MAX];
};

static void look_around(const struct blob *blob, const struct blocks *wanted,
			struct surroundings *ret)
{
	uint32_t first = wanted->first - MIN(wanted->first, ALONG_AROUND);
	uint32_t end = MIN(wanted->end + ALONG_AROUND, blob->nblocks);

	ret->first = first;
	ret->count = MIN(end - first, (uint32_t)ARRAY_SIZE(ret->here));
	for (uint32_t i = 0; i < ret->count; i++)
		ret->here[i] = (first + i >= wanted->first && first + i < wanted->end) ||
			       cache_has(blob->blobs->cache, &blob->id, first + i);
}

/* The widest stretch around block AT that begins and ends with what is here, and is half here. */
static struct blocks half_here(const struct surroundings *all, uint32_t at)
{
	struct blocks best = {at, at + 1};

	for (uint32_t from = 0; from <= at - all->first; from++) {
		uint32_t here = 0;

		for (uint32_t to = from; all->here[from] && to < all->count; to++) {
			here += all->here[to];
			if (all->here[to] && all->first + to >= at && 2 * here > to - from &&
			    to - from >= best.end - best.first)
				best = (struct blocks){all->first + from, all->first + to + 1};
		}
	}
	return best;
}

static bool is_brought(const struct blob *blob)
{
	pthread_mutex_lock(&blob->blobs->lock);
	bool brought = blob->brings > 0;
	pthread_mutex_unlock(&blob->blobs->lock);
	return brought;
}

struct blocks ahead_along(const struct blob *blob, const struct pace *pace, const struct want *want)
{
	/* who goes on far gets it range by range */
	struct blocks ret = {want->block, MIN(want->last + 1, want->block + FETCH_MAX)};

	if (!pace_is_long(pace) || is_brought(blob))
		return ret;
	if (comes_whole(blob, &want->whole))
		join(&ret, &want->whole);
	struct surroundings all;
	look_around(blob, &ret, &all);
	struct blocks around = half_here(&all, want->block);
	join(&ret, &around);
	return ret;
}
