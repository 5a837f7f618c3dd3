// SPDX-License-Identifier: Apache-2.0
/*
 * cache: blocks and files by digest, for the rest of regfs.
 * Knows the order of a read and of a write, and when to leave a full disk alone. Must not know
 * the network, what the bytes are, or how the table keeps its lists.
 *
 * A read copies the entry under the lock, reads without it, and trusts the CRC of the copy: if
 * the slot was given to another block meanwhile, the CRC tells, and the entry has another
 * generation. A write fills an entry that nobody else can see, and publishes it.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "regfs/log.h"
#include "regfs/stats.h"

#include "cache_priv.h"

#define CHECK_MS   1000	 /* between two looks at the directory */
#define RETRY_MS   30000 /* after a full disk, or if the directory cannot be made */
#define READ_TRIES 4	 /* for an entry that is replaced again and again */

/* --- the current view --- */

struct cache_view *cache_get_view(struct cache *cache)
{
	struct cache_view *broken = NULL;
	pthread_mutex_lock(&cache->mutex);
	struct cache_view *view = cache->view;
	if (view && cache_guard_broken(view->broken)) {
		broken = view;
		view = cache->view = NULL;
		atomic_store(&cache->next_check_ms, 0);
	}
	if (view)
		cache_view_ref(view);
	pthread_mutex_unlock(&cache->mutex);
	if (broken)
		log_warn("cache %s: its table was cut short", broken->dir);
	cache_view_unref(broken);
	return view;
}

static void set_view(struct cache *cache, struct cache_view *view)
{
	pthread_mutex_lock(&cache->mutex);
	struct cache_view *old = cache->view;
	cache->view = view;
	pthread_mutex_unlock(&cache->mutex);
	cache_view_unref(old);
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
	pthread_mutex_init(&cache->mutex, NULL);
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
	cache_view_unref(cache->view);
	pthread_mutex_destroy(&cache->mutex);
	free(cache->dir);
	free(cache);
}

/* --- look up --- */

/* The ordinary entry, else PASS's; touched. 0, -ENOENT. */
static int look_up(struct cache_view *view, const struct cache_id *id, uint32_t block,
		   uint64_t pass, struct cache_hit *ret)
{
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

/* The table lies on the same disk as the content. */
static bool is_sealed(const struct cache_entry *entry)
{
	return entry->seal == cache_entry_seal(entry);
}

/* Other errors (no descriptors, no memory) say nothing about the bytes. */
static bool is_damage(int err)
{
	return err == -EBADMSG || err == -ENOENT || err == -EIO || err == -ELOOP || err == -EISDIR;
}

/* READING HIT ended with ERR: see cache_read_hit. */
static int judge(struct cache_view *view, const struct cache_hit *hit, int err)
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
	int err = is_sealed(&hit->entry) ? cache_disk_read(view, hit, buf) : -EBADMSG;
	return judge(view, hit, err);
}

/* --- blocks: read --- */

struct span {
	void *buf;
	size_t off, len;
};

/* The whole block is read and checked, into the caller's memory where it fits. */
static ssize_t read_span(struct cache_view *view, const struct cache_hit *hit,
			 const struct span *span)
{
	size_t len = hit->entry.len;
	if (span->off == 0 && span->len >= len) {
		int err = cache_read_hit(view, hit, span->buf);
		return err ? err : (ssize_t)len;
	}
	if (span->off >= len)
		return 0;
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
	struct span span = {.buf = buf, .off = off, .len = len};
	struct cache_hit hit;
	AUTO_VIEW struct cache_view *view = cache_get_view(cache);
	ssize_t n = -ENOENT;
	for (int i = 0; view && cache_kind_is_block(id->kind) && i < READ_TRIES; i++) {
		n = look_up(view, id, block, pass, &hit);
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

static int publish(struct cache_view *view, const struct cache_hit *hit)
{
	struct cache_batch batch = {0};
	int err = cache_view_lock(view);
	if (err)
		return err;
	err = cache_table_publish(&view->table, hit, &view->owner, &batch);
	cache_view_unlock(view);
	cache_discard(view, &batch);
	return err == -EEXIST ? 0 : err;
}

/* WANT has everything but the CRC. */
static int store(struct cache *cache, struct cache_entry *want, const void *data)
{
	struct cache_hit hit;
	check_view(cache);
	AUTO_VIEW struct cache_view *view = cache_get_view(cache);
	if (!view || is_off(cache))
		return -ENOSPC;
	want->crc = cache_crc(data, want->len);
	want->pages = cache_pages(want->len);
	int err = cache_reserve(view, want, &hit);
	if (err)
		return err;
	err = cache_disk_write(view, &hit, data);
	if (err) {
		if (is_disk_trouble(err))
			turn_off(cache, err);
		cache_drop_hit(view, &hit);
		return err;
	}
	return publish(view, &hit);
}

static struct cache_entry want_of(const struct cache_id *id, uint32_t block, size_t len)
{
	struct cache_entry want = {
		.kind = (uint16_t)id->kind, .block = block, .len = (uint32_t)len};
	memcpy(want.key, id->key, sizeof(want.key));
	return want;
}

int cache_write(struct cache *cache, const struct cache_id *id, uint32_t block, const void *data,
		size_t len, uint64_t pass)
{
	if (!cache_kind_is_block(id->kind) || len > CACHE_BLOCK)
		return -EINVAL;
	if (cache_has(cache, id, block))
		return 0;
	struct cache_entry want = want_of(id, block, len);
	want.pass = pass;
	int err = store(cache, &want, data);
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

/* --- blocks: commit, drop --- */

/* Blocks FROM … TO - 1 of ID, as far as BATCH goes. Returns the next block. */
struct sweep {
	const struct cache_id *id;
	uint64_t pass;
	uint32_t nblocks;
	bool commit;
};

static void treat(struct cache_view *view, const struct sweep *sweep, uint32_t index,
		  struct cache_batch *batch)
{
	const struct cache_entry *entry = cache_table_at(&view->table, index);
	if (!entry || entry->state != CACHE_LIVE || entry->kind != sweep->id->kind ||
	    entry->block >= sweep->nblocks || (sweep->pass && entry->pass != sweep->pass) ||
	    memcmp(entry->key, sweep->id->key, sizeof(entry->key)) != 0)
		return;
	if (sweep->commit)
		cache_table_commit(&view->table, index, &view->owner, batch);
	else
		cache_table_doom(&view->table, index, &view->owner, batch);
}

/* More blocks than entries are looked for in the table, fewer in the hash. */
static uint32_t treat_some(struct cache_view *view, const struct sweep *sweep, uint32_t at,
			   struct cache_batch *batch)
{
	const uint32_t most = 256; /* under one lock */
	bool by_entry = sweep->nblocks > view->table.n;
	uint32_t end = by_entry ? view->table.n : sweep->nblocks;
	for (uint32_t i = 0; i < most && at < end && batch->len < CACHE_BATCH; i++) {
		uint32_t index = at + 1;
		if (!by_entry && sweep->pass)
			index = cache_table_find(&view->table, sweep->id, at, sweep->pass);
		else if (!by_entry)
			index = cache_table_find_any(&view->table, sweep->id, at);
		treat(view, sweep, index, batch);
		/* A block may be there several times, under several passes. */
		if (by_entry || sweep->pass || !index)
			at++;
	}
	return at < end ? at : UINT32_MAX;
}

static void treat_all(struct cache *cache, const struct sweep *sweep)
{
	AUTO_VIEW struct cache_view *view = cache_get_view(cache);
	struct cache_batch batch = {0};
	for (uint32_t at = 0; view && at != UINT32_MAX;) {
		if (cache_view_lock(view))
			return;
		at = treat_some(view, sweep, at, &batch);
		cache_view_unlock(view);
		cache_discard(view, &batch);
	}
}

void cache_commit(struct cache *cache, const struct cache_id *id, uint32_t nblocks, uint64_t pass)
{
	struct sweep sweep = {.id = id, .pass = pass, .nblocks = nblocks, .commit = true};
	if (pass)
		treat_all(cache, &sweep);
}

void cache_drop(struct cache *cache, const struct cache_id *id, uint32_t nblocks, uint64_t pass)
{
	struct sweep sweep = {.id = id, .pass = pass, .nblocks = nblocks};
	treat_all(cache, &sweep);
}

/* --- files --- */

int cache_put(struct cache *cache, const struct cache_id *id, const void *data, size_t len)
{
	if (!cache_kind_is_file(id->kind))
		return -EINVAL;
	if (len > CACHE_FILE_MAX)
		return -EFBIG;
	struct cache_entry want = want_of(id, 0, len);
	return store(cache, &want, data);
}

static int get_hit(struct cache_view *view, const struct cache_hit *hit, struct buf *ret)
{
	int err = buf_reserve(ret, hit->entry.len);
	if (!err)
		err = cache_read_hit(view, hit, ret->data + ret->len);
	if (!err)
		ret->len += hit->entry.len;
	if (ret->data)
		ret->data[ret->len] = '\0';
	return err;
}

int cache_get(struct cache *cache, const struct cache_id *id, struct buf *ret)
{
	struct cache_hit hit;
	AUTO_VIEW struct cache_view *view = cache_get_view(cache);
	int err = -ENOENT;
	for (int i = 0; view && cache_kind_is_file(id->kind) && i < READ_TRIES; i++) {
		err = look_up(view, id, 0, 0, &hit);
		if (!err)
			err = get_hit(view, &hit, ret);
		if (err != -EAGAIN)
			break;
	}
	return err == -EAGAIN ? -ENOENT : err;
}

/* An empty file maps a page that is there, so that callers need not tell the difference. */
static int map_fd(int fd, size_t len, struct cache_map *ret)
{
	size_t map_len = len ? len : CACHE_PAGE;
	int flags = len ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
	void *addr = mmap(NULL, map_len, PROT_READ, flags, len ? fd : -1, 0);
	if (addr == MAP_FAILED)
		return -errno;
	bool *broken = cache_guard_add(addr, map_len, PROT_READ);
	if (!broken) {
		munmap(addr, map_len);
		return -ENOMEM;
	}
	*ret = (struct cache_map){.data = addr, .len = len, .map_len = map_len, .broken = broken};
	return 0;
}

static int map_hit(struct cache_view *view, const struct cache_hit *hit, struct cache_map *ret)
{
	struct cache_map map;
	struct stat st;
	if (!is_sealed(&hit->entry))
		return -EBADMSG;
	AUTO_CLOSE int fd = cache_disk_open(view, hit);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0 || (uint64_t)st.st_size != hit->entry.len)
		return -EBADMSG;
	int err = map_fd(fd, hit->entry.len, &map);
	if (err)
		return err == -ENOENT ? -ENOMEM : err;
	if (cache_crc(map.data, map.len) != hit->entry.crc || cache_guard_broken(map.broken)) {
		cache_unmap(&map);
		return -EBADMSG;
	}
	*ret = map;
	return 0;
}

int cache_map(struct cache *cache, const struct cache_id *id, struct cache_map *ret)
{
	struct cache_hit hit;
	AUTO_VIEW struct cache_view *view = cache_get_view(cache);
	int err = -ENOENT;
	for (int i = 0; view && cache_kind_is_file(id->kind) && i < READ_TRIES; i++) {
		err = look_up(view, id, 0, 0, &hit);
		if (!err)
			err = judge(view, &hit, map_hit(view, &hit, ret));
		if (err != -EAGAIN)
			break;
	}
	return err ? -ENOENT : 0;
}

void cache_unmap(struct cache_map *map)
{
	if (!map->data)
		return;
	cache_guard_remove(map->broken);
	munmap((void *)map->data, map->map_len);
	*map = (struct cache_map){0};
}

void cache_remove(struct cache *cache, const struct cache_id *id)
{
	if (cache_kind_is_file(id->kind))
		cache_drop(cache, id, 1, 0);
}
