// SPDX-License-Identifier: Apache-2.0
/*
 * cache_blocks: the public calls on blocks.
 * Knows passes: what is tentative, what becomes ordinary. Must not know where a block lies.
 */
#include <errno.h>
#include <sys/random.h>

#include "regfs/stats.h"

#include "cache_priv.h"

/* --- read --- */

/* The whole block is read and checked, into the caller's memory where it fits. */
static ssize_t read_span(struct cache_view *view, const struct cache_hit *hit,
			 const struct cache_span *span)
{
	size_t len = hit->entry.len;
	if (span->off == 0 && span->len >= len) {
		int err = cache_read_hit(view, hit, span->buf);
		return err ? err : (ssize_t)len;
	}
	if (span->off >= len)
		return 0;
	ssize_t copied = cache_peek_read(view, hit, span);
	if (copied != -ENOSYS)
		return copied < 0 ? cache_judge(view, hit, (int)copied) : copied;
	AUTO_FREE char *whole = malloc(len);
	int err = whole ? cache_read_hit(view, hit, whole) : -ENOENT;
	if (err)
		return err;
	size_t n = MIN(span->len, len - span->off);
	memcpy(span->buf, whole + span->off, n);
	return (ssize_t)n;
}

ssize_t cache_read(struct cache *cache, const struct cache_id *id, uint32_t block, size_t off,
		   void *buf, size_t len, uint64_t pass)
{
	struct cache_span span = {.buf = buf, .off = off, .len = len};
	struct cache_hit hit;
	AUTO_VIEW struct cache_view *view = cache_get_view(cache);
	ssize_t n = -ENOENT;
	for (int i = 0; view && cache_kind_is_block(id->kind) && i < CACHE_READ_TRIES; i++) {
		n = cache_look_up(view, id, block, pass, &hit);
		if (n == 0)
			n = read_span(view, &hit, &span);
		if (n != -EAGAIN)
			break;
	}
	stats_add(n >= 0 ? STAT_CACHE_HITS : STAT_CACHE_MISSES, 1);
	return n >= 0 ? n : -ENOENT;
}

bool cache_has(struct cache *cache, const struct cache_id *id, uint32_t block)
{
	AUTO_VIEW struct cache_view *view = cache_get_view(cache);
	if (!view || cache_view_lock(view))
		return false;
	bool found = cache_table_find(&view->table, id, block, 0) != 0;
	cache_view_unlock(view);
	return found;
}

/* --- write --- */

int cache_write(struct cache *cache, const struct cache_id *id, uint32_t block, const void *data,
		size_t len, uint64_t pass)
{
	if (!cache_kind_is_block(id->kind) || len > CACHE_BLOCK)
		return -EINVAL;
	if (cache_has(cache, id, block))
		return 0;
	struct cache_entry want = cache_want(id, block, len);
	want.pass = pass;
	int err = cache_store(cache, &want, data);
	stats_add(STAT_CACHE_WRITES, err ? 0 : 1);
	return err;
}

uint64_t cache_pass_new(struct cache *cache)
{
	uint64_t pass = 0;
	(void)cache;
	while (pass == 0)
		if (getrandom(&pass, sizeof(pass), 0) != sizeof(pass))
			pass = (uint64_t)now_ms() << 20 ^ (uint64_t)getpid();
	return pass;
}

/* --- commit, drop --- */

/* Blocks 0 … NBLOCKS - 1 of ID, of PASS if that is not 0. */
struct range {
	const struct cache_id *id;
	uint64_t pass;
	uint32_t nblocks;
	bool commit;
};

/* An entry of the range goes, or becomes ordinary. */
static void treat(struct cache_view *view, const struct range *range, uint32_t index,
		  struct cache_batch *batch)
{
	const struct cache_entry *entry = cache_table_at(&view->table, index);
	if (!entry || entry->state != CACHE_LIVE || entry->kind != range->id->kind ||
	    entry->block >= range->nblocks || (range->pass && entry->pass != range->pass) ||
	    memcmp(entry->key, range->id->key, sizeof(entry->key)) != 0)
		return;
	if (range->commit)
		cache_table_commit(&view->table, index, view->owner, batch);
	else
		cache_table_doom(&view->table, index, view->owner, batch);
}

/* From AT on, as long as one may hold the lock; where to go on, or UINT32_MAX. AT counts blocks,
 * which are looked for in the hash, or entries, if those are fewer. */
static uint32_t treat_some(struct cache_view *view, const struct range *range, uint32_t at,
			   struct cache_batch *batch)
{
	const uint32_t most = 256; /* under one lock */
	bool by_entry = range->nblocks > view->table.n;
	uint32_t fresh = MIN(view->table.head->fresh, view->table.n);
	uint32_t end = by_entry ? fresh : range->nblocks;
	for (uint32_t i = 0; i < most && at < end && batch->len < CACHE_BATCH; i++) {
		uint32_t index = at + 1;
		if (!by_entry && range->pass)
			index = cache_table_find(&view->table, range->id, at, range->pass);
		else if (!by_entry)
			index = cache_table_find_any(&view->table, range->id, at);
		treat(view, range, index, batch);
		/* A block may be there several times, under several passes. */
		if (by_entry || range->pass || !index)
			at++;
	}
	return at < end ? at : UINT32_MAX;
}

static void treat_all(struct cache *cache, const struct range *range)
{
	AUTO_VIEW struct cache_view *view = cache_get_view(cache);
	struct cache_batch batch = {0};
	for (uint32_t at = 0; view && at != UINT32_MAX;) {
		if (cache_view_lock(view))
			return;
		at = treat_some(view, range, at, &batch);
		cache_view_unlock(view);
		cache_discard(view, &batch);
	}
}

void cache_commit(struct cache *cache, const struct cache_id *id, uint32_t nblocks, uint64_t pass)
{
	struct range range = {.id = id, .pass = pass, .nblocks = nblocks, .commit = true};
	if (pass)
		treat_all(cache, &range);
}

void cache_drop(struct cache *cache, const struct cache_id *id, uint32_t nblocks, uint64_t pass)
{
	struct range range = {.id = id, .pass = pass, .nblocks = nblocks};
	treat_all(cache, &range);
}
