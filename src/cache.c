// SPDX-License-Identifier: Apache-2.0
/*
 * cache: a cache as the rest of regfs holds it, and how any entry is read and stored.
 * Knows the order of a read and of a write, when to leave a full disk alone, and when the directory
 * is to be opened again. Must not know the network, what the bytes are, or how the table
 * keeps its lists.
 *
 * A read copies the entry under the lock, reads without it, and trusts the CRC of the copy: if
 * the slot was given to another block meanwhile, the CRC tells, and the entry has another
 * generation. A write fills an entry that nobody else can see, and publishes it.
 */
#include <errno.h>
#include <sched.h>

#include "regfs/log.h"
#include "regfs/stats.h"

#include "cache_priv.h"

#define CHECK_MS 1000  /* between two looks at the directory */
#define RETRY_MS 30000 /* after a full disk, or if the directory cannot be made */

/* --- the current view --- */

/* OLD is nobody's current view any more: once those are through who may have seen it, its
 * reference goes. They are a few instructions from there. */
static void retire(struct cache *cache, struct cache_view *old)
{
	while (atomic_load(&cache->entering))
		sched_yield();
	cache_view_unref(old);
}

static void leave_broken(struct cache *cache, struct cache_view *view)
{
	struct cache_view *current = view;
	if (!atomic_compare_exchange_strong(&cache->view, &current, NULL))
		return;
	atomic_store(&cache->next_check_ms, 0);
	log_warn("cache %s: its table was cut short", view->dir);
	retire(cache, view);
}

struct cache_view *cache_get_view(struct cache *cache)
{
	atomic_fetch_add(&cache->entering, 1);
	struct cache_view *view = atomic_load(&cache->view);
	if (view)
		cache_view_ref(view);
	atomic_fetch_sub(&cache->entering, 1);
	if (!view || !cache_guard_broken(view->broken))
		return view;
	leave_broken(cache, view);
	cache_view_unref(view);
	return NULL;
}

static void set_view(struct cache *cache, struct cache_view *view)
{
	retire(cache, atomic_exchange(&cache->view, view));
}

static int reopen(struct cache *cache)
{
	struct cache_view *view = NULL;
	int err = cache_view_open(cache->dir, cache->limit_bytes, &view);
	set_view(cache, view);
	return err;
}

/* One thread at a time looks whether the directory is still there. */
static void check_view(struct cache *cache)
{
	int64_t now = now_ms(), due = atomic_load(&cache->next_check_ms);
	if (now < due || !atomic_compare_exchange_strong(&cache->next_check_ms, &due, INT64_MAX))
		return;
	AUTO_VIEW struct cache_view *view = cache_get_view(cache);
	int err = 0;
	if (view && cache_view_current(view)) {
		cache_sweep(view);
	} else {
		if (view)
			log_warn("cache %s: it was deleted or replaced, and is made again",
				 cache->dir);
		err = reopen(cache);
	}
	/* -ENOENT: it is being deleted just now. */
	now += err && err != -ENOENT ? RETRY_MS : CHECK_MS;
	atomic_store(&cache->next_check_ms, now);
}

/* --- a full disk --- */

static bool is_off(struct cache *cache)
{
	return now_ms() < atomic_load(&cache->off_until_ms);
}

static bool is_disk_trouble(int err)
{
	return err == -ENOSPC || err == -EDQUOT || err == -EROFS || err == -EIO;
}

static void turn_off(struct cache *cache, int err)
{
	bool was_off = is_off(cache);
	atomic_store(&cache->off_until_ms, now_ms() + RETRY_MS);
	if (!was_off)
		log_warn("cache %s: writes are off for %d s: %s", cache->dir, RETRY_MS / 1000,
			 strerror(-err));
}

/* --- open --- */

/* The process may change its directory later. */
static char *absolute(const char *dir)
{
	if (dir[0] == '/')
		return strdup(dir);
	AUTO_FREE char *cwd = getcwd(NULL, 0);
	return cwd ? format("%s/%s", cwd, dir) : NULL;
}

static struct cache *cache_new(const char *dir, uint64_t limit_bytes)
{
	struct cache *cache = calloc(1, sizeof(*cache));
	if (!cache)
		return NULL;
	pthread_mutex_init(&cache->stamps_lock, NULL);
	cache->settle_ms = CACHE_SETTLE_MS;
	cache->limit_bytes = limit_bytes;
	cache->dir = absolute(dir);
	if (cache->dir)
		return cache;
	cache_close(cache);
	return NULL;
}

int cache_open(const char *dir, uint64_t limit_bytes, struct cache **ret)
{
	struct cache *cache = cache_new(dir, limit_bytes);
	if (!cache)
		return -ENOMEM;
	int err = 0;
	if (limit_bytes && limit_bytes < CACHE_LIMIT_MIN)
		atomic_store(&cache->next_check_ms, INT64_MAX);
	else
		err = reopen(cache);
	if (err == -ENOSPC || err == -EDQUOT || err == -EIO || err == -EBUSY) {
		log_warn("cache %s: off for now", cache->dir);
		atomic_store(&cache->next_check_ms, now_ms() + RETRY_MS);
	} else if (err) {
		cache_close(cache);
		return err;
	}
	*ret = cache;
	return 0;
}

void cache_close(struct cache *cache)
{
	if (!cache)
		return;
	cache_view_unref(atomic_load(&cache->view));
	pthread_mutex_destroy(&cache->stamps_lock);
	free(cache->dir);
	free(cache);
}

/* --- look up --- */

int cache_look_up(struct cache_view *view, const struct cache_id *id, uint32_t block, uint64_t pass,
		  struct cache_hit *ret)
{
	if (cache_peek(view, id, block, ret))
		return 0;
	if (cache_view_lock(view))
		return -ENOENT;
	uint32_t index = cache_table_find(&view->table, id, block, 0);
	if (!index && pass)
		index = cache_table_find(&view->table, id, block, pass);
	const struct cache_entry *entry = cache_table_at(&view->table, index);
	if (entry) {
		*ret = (struct cache_hit){.index = index, .entry = *entry};
		cache_table_touch(&view->table, index);
	}
	cache_view_unlock(view);
	return entry ? 0 : -ENOENT;
}

/* Other errors (no descriptors, no memory) say nothing about the bytes. */
static bool is_damage(int err)
{
	return err == -EBADMSG || err == -ENOENT || err == -EIO || err == -ELOOP || err == -EISDIR;
}

int cache_judge(struct cache_view *view, const struct cache_hit *hit, int err)
{
	if (!is_damage(err))
		return err ? -ENOENT : 0;
	if (!cache_drop_hit(view, hit))
		return -EAGAIN;
	const char *dir = cache_kind_dir(hit->entry.kind);
	stats_add(STAT_CACHE_CORRUPT, 1);
	log_warn("cache %s: a %s was damaged on disk and is dropped", view->dir,
		 dir ? dir : "block");
	return -ENOENT;
}

int cache_read_hit(struct cache_view *view, const struct cache_hit *hit, void *buf)
{
	int err = cache_entry_is_sealed(&hit->entry) ? cache_disk_read(view, hit, buf) : -EBADMSG;
	return cache_judge(view, hit, err);
}

/* --- write --- */

static int publish(struct cache_view *view, const struct cache_hit *hit)
{
	struct cache_batch batch = {0};
	int err = cache_view_lock(view);
	if (err)
		return err;
	err = cache_table_publish(&view->table, hit, view->owner, &batch);
	cache_view_unlock(view);
	cache_discard(view, &batch);
	return err == -EEXIST ? 0 : err;
}

int cache_store_by(struct cache *cache, struct cache_entry *want, cache_write_fn *write,
		   const void *arg)
{
	struct cache_hit hit;
	check_view(cache);
	AUTO_VIEW struct cache_view *view = cache_get_view(cache);
	if (!view || is_off(cache))
		return -ENOSPC;
	want->pages = cache_pages(want->len);
	int err = cache_reserve(view, want, &hit);
	if (err == -ENOSPC || err == -EBUSY) /* the limit, not the disk */
		return err;
	if (!err) {
		err = write(view, &hit, arg);
		if (!err)
			return publish(view, &hit);
		cache_drop_hit(view, &hit);
	}
	if (is_disk_trouble(err))
		turn_off(cache, err);
	return err;
}

static int write_data(struct cache_view *view, struct cache_hit *hit, const void *data)
{
	hit->entry.crc = cache_crc(data, hit->entry.len);
	return cache_disk_write(view, hit, data);
}

int cache_store(struct cache *cache, struct cache_entry *want, const void *data)
{
	return cache_store_by(cache, want, write_data, data);
}

struct cache_entry cache_want(const struct cache_id *id, uint32_t block, size_t len)
{
	struct cache_entry want = {
		.kind = (uint16_t)id->kind, .block = block, .len = (uint32_t)len};
	memcpy(want.key, id->key, sizeof(want.key));
	return want;
}
