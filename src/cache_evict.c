// SPDX-License-Identifier: Apache-2.0
/*
 * cache_evict: makes room, and sweeps up after processes that died.
 * Knows the order of things: doom under the lock, remove the bytes without it, only then count
 * them as free. Must not know what is stored, nor why.
 */
#include <errno.h>

#include "regfs/log.h"
#include "regfs/stats.h"

#include "cache_priv.h"

/* Others may take what this one has freed: then it tries again, but not for ever. */
#define RESERVE_TRIES 64

static void settle_batch(struct cache_view *view, const struct cache_batch *batch,
			 const bool gone[static CACHE_BATCH])
{
	if (cache_view_lock(view))
		return;
	for (unsigned i = 0; i < batch->len; i++) {
		const struct cache_hit *hit = &batch->hit[i];
		struct cache_entry *entry = cache_table_at(&view->table, hit->index);
		if (!entry || entry->gen != hit->entry.gen || entry->state != CACHE_DOOMED)
			continue;
		if (gone[i])
			cache_table_release(&view->table, hit->index);
		else
			entry->owner = 0; /* still counted; the sweep tries again */
	}
	cache_view_unlock(view);
}

int cache_discard(struct cache_view *view, struct cache_batch *batch)
{
	bool gone[CACHE_BATCH];
	int failed = 0;
	if (batch->len == 0)
		return 0;
	for (unsigned i = 0; i < batch->len; i++) {
		int err = cache_disk_discard(view, &batch->hit[i]);
		gone[i] = err == 0;
		failed = err ? err : failed;
	}
	if (failed)
		log_warn("cache %s: cannot remove what was evicted: %s", view->dir,
			 strerror(-failed));
	settle_batch(view, batch, gone);
	batch->len = 0;
	return failed;
}

static int reserve_once(struct cache_view *view, const struct cache_entry *want,
			struct cache_batch *batch, struct cache_hit *ret)
{
	int err = cache_view_lock(view);
	if (err)
		return err;
	uint32_t live = view->table.head->live;
	err = cache_table_reserve(&view->table, want, view->owner, batch, ret);
	uint32_t evicted = live - view->table.head->live;
	cache_view_unlock(view);
	stats_add(STAT_CACHE_EVICTIONS, evicted);
	return err;
}

int cache_reserve(struct cache_view *view, const struct cache_entry *want, struct cache_hit *ret)
{
	struct cache_batch batch = {0};
	for (int i = 0; i < RESERVE_TRIES; i++) {
		int err = reserve_once(view, want, &batch, ret);
		if (err != -EAGAIN)
			return err;
		/* Where nothing can be removed, what can still be read shall not go in vain. */
		err = cache_discard(view, &batch);
		if (err)
			return err;
	}
	return -EBUSY;
}

bool cache_drop_hit(struct cache_view *view, const struct cache_hit *hit)
{
	struct cache_batch batch = {0};
	if (cache_view_lock(view))
		return false;
	const struct cache_entry *entry = cache_table_at(&view->table, hit->index);
	bool same = entry->gen == hit->entry.gen &&
		    (entry->state == CACHE_LIVE || entry->state == CACHE_WRITING);
	if (same)
		cache_table_doom(&view->table, hit->index, view->owner, &batch);
	cache_view_unlock(view);
	cache_discard(view, &batch);
	return same;
}

int cache_shrink(struct cache_view *view, uint64_t pages)
{
	struct cache_batch batch = {0};
	bool more = true;
	int err = 0;
	while (more && !err) {
		if (cache_view_lock(view))
			return -ESTALE;
		cache_table_shrink(&view->table, pages, view->owner, &batch);
		cache_view_unlock(view);
		more = batch.len > 0;
		stats_add(STAT_CACHE_EVICTIONS, batch.len);
		err = cache_discard(view, &batch);
	}
	return err;
}

/* --- the dead --- */

/* Copies of the busy entries whose owner is not us, from the oldest. */
static void list_strangers(struct cache_view *view, struct cache_batch *ret)
{
	ret->len = 0;
	if (cache_view_lock(view))
		return;
	uint32_t index = view->table.head->busy_list.last;
	for (uint32_t n = 0; n < view->table.n && ret->len < CACHE_BATCH; n++) {
		const struct cache_entry *entry = cache_table_at(&view->table, index);
		if (!entry)
			break;
		if (entry->owner != view->owner)
			ret->hit[ret->len++] = (struct cache_hit){.index = index, .entry = *entry};
		index = entry->prev;
	}
	cache_view_unlock(view);
}

/* Takes over those of LOOSE that are still as they were. */
static void adopt(struct cache_view *view, const struct cache_batch *loose, struct cache_batch *ret)
{
	if (cache_view_lock(view))
		return;
	for (unsigned i = 0; i < loose->len; i++) {
		const struct cache_hit *hit = &loose->hit[i];
		const struct cache_entry *entry = cache_table_at(&view->table, hit->index);
		if (entry->gen == hit->entry.gen && entry->owner == hit->entry.owner &&
		    (entry->state == CACHE_WRITING || entry->state == CACHE_DOOMED))
			cache_table_doom(&view->table, hit->index, view->owner, ret);
	}
	cache_view_unlock(view);
}

static bool is_alive(const struct cache_view *view, uint64_t owner)
{
	return owner && cache_lock_is_held(view->table_fd, (off_t)owner);
}

/* One round; false: there is no more that could be removed. */
static bool sweep_once(struct cache_view *view)
{
	struct cache_batch strangers, loose = {0}, mine = {0};
	list_strangers(view, &strangers);
	for (unsigned i = 0; i < strangers.len; i++)
		if (!is_alive(view, strangers.hit[i].entry.owner))
			loose.hit[loose.len++] = strangers.hit[i];
	adopt(view, &loose, &mine);
	return mine.len && cache_discard(view, &mine) == 0;
}

void cache_sweep(struct cache_view *view)
{
	while (sweep_once(view))
		;
}
