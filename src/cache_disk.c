// SPDX-License-Identifier: Apache-2.0
/*
 * cache_disk: the bytes of one entry: a slot of the arena for a block, a file of its own for
 * the rest.
 * Knows entries by copy. Must not know the table or its lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <isa-l/crc64.h>
#include <linux/falloc.h>
#include <stdio.h>

#include "cache_priv.h"

static const char *const kind_dirs[] = {
	[CACHE_MANIFEST] = "manifest", [CACHE_INDEX] = "index",	    [CACHE_SUMS] = "sums",
	[CACHE_NAME] = "name",	       [CACHE_TOC] = "toc",	    [CACHE_COPY] = "copy",
	[CACHE_TRACE] = "trace",       [CACHE_DIFF_ID] = "diff_id",
};

const char *cache_kind_dir(unsigned kind)
{
	return kind < ARRAY_SIZE(kind_dirs) ? kind_dirs[kind] : NULL;
}

uint64_t cache_crc(const void *data, size_t len)
{
	/* Not from 0: a run of zeros is what a lost write leaves behind. */
	return cache_crc_more(CACHE_MAGIC, data, len);
}

uint64_t cache_crc_more(uint64_t crc, const void *data, size_t len)
{
	return crc64_ecma_refl(crc, data, len);
}

/* --- names --- */

void cache_name_format(const struct cache_entry *entry, char out[static CACHE_NAME_LEN + 1])
{
	char *at = out;
	for (size_t i = 0; i < sizeof(entry->key); i++, at += 2)
		snprintf(at, 3, "%02x", entry->key[i]);
	snprintf(at, 18, "-%016llx", (unsigned long long)entry->gen);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool cache_name_parse(const char *name, uint8_t ret_key[static DIGEST_KEY_LEN], uint64_t *ret_gen)
{
	uint8_t key[DIGEST_KEY_LEN];
	uint64_t gen = 0;
	if (strlen(name) != CACHE_NAME_LEN || name[2 * DIGEST_KEY_LEN] != '-')
		return false;
	for (size_t i = 0; i < CACHE_NAME_LEN; i++) {
		int digit = hex_digit(name[i]);
		if (i == 2 * DIGEST_KEY_LEN)
			continue;
		if (digit < 0)
			return false;
		if (i > 2 * DIGEST_KEY_LEN)
			gen = gen << 4 | (uint64_t)digit;
		else
			key[i / 2] = (uint8_t)(i % 2 ? key[i / 2] << 4 | digit : digit);
	}
	memcpy(ret_key, key, sizeof(key));
	*ret_gen = gen;
	return true;
}

/* "manifest/<64 hex>-<generation>", below files/. */
struct path {
	char str[16 + CACHE_NAME_LEN + 1];
};

static int path_of(const struct cache_entry *entry, struct path *ret)
{
	char name[CACHE_NAME_LEN + 1];
	const char *dir = cache_kind_dir(entry->kind);
	if (!dir)
		return -EINVAL;
	cache_name_format(entry, name);
	snprintf(ret->str, sizeof(ret->str), "%s/%s", dir, name);
	return 0;
}

/* --- files --- */

int cache_disk_create(struct cache_view *view, const struct cache_hit *hit)
{
	const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
	struct path path;
	int err = path_of(&hit->entry, &path);
	if (err)
		return err;
	int fd = openat(view->files_fd, path.str, flags, 0600);
	if (fd < 0 && errno == ENOENT) {
		mkdirat(view->files_fd, cache_kind_dir(hit->entry.kind), 0700);
		fd = openat(view->files_fd, path.str, flags, 0600);
	}
	return fd >= 0 ? fd : -errno;
}

static int file_write(struct cache_view *view, const struct cache_hit *hit, const void *data)
{
	AUTO_CLOSE int fd = cache_disk_create(view, hit);
	if (fd < 0)
		return fd;
	ssize_t n = pwrite_full(fd, data, hit->entry.len, 0);
	if (n < 0)
		return (int)n;
	/* Where writing is put off (NFS), close is the one that tells. */
	return close(steal_fd(&fd)) == 0 ? 0 : -errno;
}

int cache_disk_open(struct cache_view *view, const struct cache_hit *hit)
{
	struct path path;
	int err = path_of(&hit->entry, &path);
	if (err)
		return err;
	int fd = openat(view->files_fd, path.str, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	return fd >= 0 ? fd : -errno;
}

/* --- blocks --- */

static off_t slot_of(const struct cache_hit *hit)
{
	return (off_t)(hit->index - 1) * CACHE_BLOCK;
}

static int slot_punch(const struct cache_view *view, const struct cache_hit *hit)
{
	int flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	while (fallocate(view->arena_fd, flags, slot_of(hit), CACHE_BLOCK) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

/* --- either --- */

int cache_disk_write(struct cache_view *view, const struct cache_hit *hit, const void *data)
{
	if (cache_kind_is_file(hit->entry.kind))
		return file_write(view, hit, data);
	ssize_t n = pwrite_full(view->arena_fd, data, hit->entry.len, slot_of(hit));
	return n < 0 ? (int)n : 0;
}

int cache_disk_read(struct cache_view *view, const struct cache_hit *hit, void *buf)
{
	ssize_t n;
	if (cache_kind_is_file(hit->entry.kind)) {
		AUTO_CLOSE int fd = cache_disk_open(view, hit);
		if (fd < 0)
			return fd;
		n = pread_full(fd, buf, hit->entry.len, 0);
	} else {
		n = pread_full(view->arena_fd, buf, hit->entry.len, slot_of(hit));
	}
	if (n < 0)
		return (int)n;
	bool right = (size_t)n == hit->entry.len && cache_crc(buf, (size_t)n) == hit->entry.crc;
	return right ? 0 : -EBADMSG;
}

int cache_disk_discard(struct cache_view *view, const struct cache_hit *hit)
{
	struct path path;
	if (!cache_kind_is_file(hit->entry.kind))
		return slot_punch(view, hit);
	if (path_of(&hit->entry, &path) == 0 && unlinkat(view->files_fd, path.str, 0) < 0 &&
	    errno != ENOENT && errno != ENOTDIR)
		return -errno;
	return 0;
}
