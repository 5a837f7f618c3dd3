// SPDX-License-Identifier: Apache-2.0
/*
 * cache_admin: what people ask of a cache: how full it is, whether it is sound, to shrink it.
 * Knows the table as a whole. Must not know how blocks and files come to be there.
 */
#include <errno.h>

#include "regfs/log.h"

#include "cache_priv.h"

void cache_info(struct cache *cache, struct cache_info *ret)
{
	AUTO_VIEW struct cache_view *view = cache_get_view(cache);
	struct cache_info info = {.limit_bytes = cache->limit_bytes};
	if (view && cache_view_lock(view) == 0) {
		const struct cache_head *head = view->table.head;
		info.limit_bytes = head->limit_bytes;
		info.used_bytes = view->map_len + head->used_pages * CACHE_PAGE;
		info.entries = head->live;
		info.blocks = head->blocks;
		info.files = head->files;
		info.writable = now_ms() >= atomic_load(&cache->off_until_ms);
		cache_view_unlock(view);
	}
	*ret = info;
}

int cache_prune(struct cache *cache, uint64_t bytes)
{
	AUTO_VIEW struct cache_view *view = cache_get_view(cache);
	if (!view)
		return 0;
	cache_sweep(view);
	return cache_shrink(view, bytes > view->map_len ? (bytes - view->map_len) / CACHE_PAGE : 0);
}

int cache_check(struct cache *cache)
{
	AUTO_VIEW struct cache_view *view = cache_get_view(cache);
	const char *why = "";
	if (!view)
		return 0;
	if (cache_view_lock(view))
		return -EIO;
	int err = cache_table_check(&view->table, &why);
	cache_view_unlock(view);
	if (err == -EIO)
		log_error("cache %s: %s", view->dir, why);
	return err;
}

/* --- walks --- */

/* Copies of the LIVE entries from *AT on, as many as fit; *AT is moved behind them. */
static void list_live(struct cache_view *view, uint32_t *at, struct cache_batch *ret)
{
	const uint32_t most = 1024; /* under one lock */
	ret->len = 0;
	if (cache_view_lock(view)) {
		*at = UINT32_MAX;
		return;
	}
	uint32_t end = MIN(view->table.head->fresh, view->table.n);
	for (uint32_t i = 0; i < most && *at < end && ret->len < CACHE_BATCH; i++) {
		uint32_t index = ++*at;
		const struct cache_entry *entry = cache_table_at(&view->table, index);
		if (entry->state == CACHE_LIVE)
			ret->hit[ret->len++] = (struct cache_hit){.index = index, .entry = *entry};
	}
	if (*at >= end)
		*at = UINT32_MAX;
	cache_view_unlock(view);
}

int cache_verify(struct cache *cache, uint64_t *ret_checked, uint64_t *ret_dropped)
{
	AUTO_VIEW struct cache_view *view = cache_get_view(cache);
	uint64_t checked = 0, dropped = 0;
	struct cache_batch batch;
	for (uint32_t at = 0; view && at != UINT32_MAX;) {
		list_live(view, &at, &batch);
		for (unsigned i = 0; i < batch.len; i++) {
			AUTO_FREE void *buf = malloc((size_t)batch.hit[i].entry.len + 1);
			if (!buf)
				return -ENOMEM;
			int err = cache_read_hit(view, &batch.hit[i], buf);
			checked += err != -EAGAIN;
			dropped += err == -ENOENT;
		}
	}
	*ret_checked = checked;
	*ret_dropped = dropped;
	return 0;
}

/* --- each object once --- */

/* Keys, sorted and made unique whenever they fill their memory. */
struct keys {
	uint8_t (*key)[DIGEST_KEY_LEN];
	size_t len, cap;
};

static int by_bytes(const void *a, const void *b)
{
	return memcmp(a, b, DIGEST_KEY_LEN);
}

static void make_unique(struct keys *keys)
{
	size_t n = 0;
	if (keys->len)
		qsort(keys->key, keys->len, sizeof(*keys->key), by_bytes);
	for (size_t i = 0; i < keys->len; i++)
		if (i == 0 || memcmp(keys->key[n - 1], keys->key[i], sizeof(*keys->key)) != 0)
			memmove(keys->key[n++], keys->key[i], sizeof(*keys->key));
	keys->len = n;
}

static int grow(struct keys *keys)
{
	size_t cap = MAX(keys->cap * 2, 64);
	void *key = realloc(keys->key, cap * sizeof(*keys->key));
	if (!key)
		return -ENOMEM;
	keys->key = key;
	keys->cap = cap;
	return 0;
}

static int add_key(struct keys *keys, const uint8_t key[static DIGEST_KEY_LEN])
{
	if (keys->len == keys->cap) {
		make_unique(keys);
		int err = keys->len >= keys->cap / 2 ? grow(keys) : 0;
		if (err)
			return err;
	}
	memcpy(keys->key[keys->len++], key, sizeof(*keys->key));
	return 0;
}

static int collect(struct cache_view *view, enum cache_kind kind, struct keys *keys)
{
	struct cache_batch batch;
	for (uint32_t at = 0; at != UINT32_MAX;) {
		list_live(view, &at, &batch);
		for (unsigned i = 0; i < batch.len; i++) {
			const struct cache_entry *entry = &batch.hit[i].entry;
			if (entry->kind != kind || entry->pass)
				continue;
			int err = add_key(keys, entry->key);
			if (err)
				return err;
		}
	}
	make_unique(keys);
	return 0;
}

int cache_each(struct cache *cache, enum cache_kind kind,
	       int (*fn)(void *arg, const struct cache_id *id), void *arg)
{
	AUTO_VIEW struct cache_view *view = cache_get_view(cache);
	struct keys keys = {0};
	int err = view ? collect(view, kind, &keys) : 0;
	for (size_t i = 0; !err && i < keys.len; i++) {
		struct cache_id id = {.kind = kind};
		memcpy(id.key, keys.key[i], sizeof(id.key));
		err = fn(arg, &id);
	}
	free(keys.key);
	return err;
}
