// SPDX-License-Identifier: Apache-2.0
/*
 * cache_files: the public calls on files.
 * Knows maps of files. Must not know where a file lies, nor how the table keeps it.
 */
#include <errno.h>
#include <sys/mman.h>

#include "cache_priv.h"

int cache_put(struct cache *cache, const struct cache_id *id, const void *data, size_t len)
{
	if (!cache_kind_is_file(id->kind))
		return -EINVAL;
	if (len > CACHE_FILE_MAX)
		return -EFBIG;
	struct cache_entry want = cache_want(id, 0, len);
	return cache_store(cache, &want, data);
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
	for (int i = 0; view && cache_kind_is_file(id->kind) && i < CACHE_READ_TRIES; i++) {
		err = cache_look_up(view, id, 0, 0, &hit);
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
	if (!cache_entry_is_sealed(&hit->entry))
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
	for (int i = 0; view && cache_kind_is_file(id->kind) && i < CACHE_READ_TRIES; i++) {
		err = cache_look_up(view, id, 0, 0, &hit);
		if (!err)
			err = cache_judge(view, &hit, map_hit(view, &hit, ret));
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
