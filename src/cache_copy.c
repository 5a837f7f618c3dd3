// SPDX-License-Identifier: Apache-2.0
/*
 * cache_copy: the public calls on files that are made in pieces, and that the kernel reads by
 * itself.
 * Knows how they are written and checked. Must not know how the table keeps them.
 */
#include <errno.h>

#include "cache_priv.h"

#define PIECE (1 * MIB)

/* --- made --- */

struct source {
	cache_fill_fn *fill;
	void *arg;
};

static bool is_zeros(const uint8_t *data, size_t len)
{
	return len == 0 || (data[0] == 0 && memcmp(data, data + 1, len - 1) == 0);
}

/* Zeros stay a hole. */
static int write_piece(int fd, const uint8_t *data, size_t len, uint64_t off)
{
	ssize_t n = is_zeros(data, len) ? 0 : pwrite_full(fd, data, len, (off_t)off);
	return n < 0 ? (int)n : 0;
}

static int write_by(struct cache_view *view, struct cache_hit *hit, const void *arg)
{
	const struct source *source = arg;
	uint64_t crc = cache_crc(NULL, 0);
	AUTO_FREE uint8_t *piece = malloc(PIECE);
	AUTO_CLOSE int fd = cache_disk_create(view, hit);
	if (fd < 0)
		return fd;
	if (!piece)
		return -ENOMEM;
	if (ftruncate(fd, hit->entry.len) < 0)
		return -errno;
	for (uint64_t off = 0; off < hit->entry.len; off += PIECE) {
		size_t len = MIN(PIECE, hit->entry.len - off);
		/* whatever is wrong with the source is no trouble of the disk's */
		if (source->fill(source->arg, off, piece, len) < 0)
			return -ECANCELED;
		int err = write_piece(fd, piece, len, off);
		if (err)
			return err;
		crc = cache_crc_more(crc, piece, len);
	}
	hit->entry.crc = crc;
	return close(steal_fd(&fd)) == 0 ? 0 : -errno;
}

int cache_put_by(struct cache *cache, const struct cache_id *id, uint64_t len, cache_fill_fn *fill,
		 void *arg)
{
	const struct source source = {.fill = fill, .arg = arg};
	if (!cache_kind_is_file(id->kind))
		return -EINVAL;
	if (len > CACHE_COPY_MAX)
		return -EFBIG;
	struct cache_entry want = cache_want(id, 0, len);
	return cache_store_by(cache, &want, write_by, &source);
}

/* --- opened --- */

static int check_fd(int fd, const struct cache_entry *entry)
{
	uint64_t crc = cache_crc(NULL, 0), off = 0;
	size_t cap = MIN(PIECE, (size_t)entry->len + 1);
	AUTO_FREE char *piece = malloc(cap);
	if (!piece)
		return -ENOMEM;
	for (;;) {
		ssize_t n = pread_full(fd, piece, cap, (off_t)off);
		if (n < 0)
			return (int)n;
		crc = cache_crc_more(crc, piece, (size_t)n);
		off += (uint64_t)n;
		if ((size_t)n < cap || off > entry->len)
			break;
	}
	return off == entry->len && crc == entry->crc ? 0 : -EBADMSG;
}

/* What tells the file at FD from what it may become. */
static int stamp_of(int fd, const struct cache_entry *entry, struct cache_stamp *ret)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size != entry->len)
		return -EBADMSG;
	*ret = (struct cache_stamp){.gen = entry->gen, .ino = st.st_ino, .ctime = st.st_ctim};
	return 0;
}

static bool was_checked(struct cache *cache, const struct cache_stamp *stamp)
{
	pthread_mutex_lock(&cache->stamps_lock);
	struct cache_stamp known = cache->stamps[stamp->gen % CACHE_STAMPS];
	pthread_mutex_unlock(&cache->stamps_lock);
	return known.gen == stamp->gen && known.ino == stamp->ino &&
	       known.ctime.tv_sec == stamp->ctime.tv_sec &&
	       known.ctime.tv_nsec == stamp->ctime.tv_nsec;
}

/* STAMP is from before the check. What was written a moment ago may be written once more without
 * another ctime. */
static void note_checked(struct cache *cache, const struct cache_stamp *stamp)
{
	int64_t age_ms = wall_ms() - (int64_t)stamp->ctime.tv_sec * 1000 -
			 stamp->ctime.tv_nsec / 1000000;
	if (age_ms < cache->settle_ms)
		return;
	pthread_mutex_lock(&cache->stamps_lock);
	cache->stamps[stamp->gen % CACHE_STAMPS] = *stamp;
	pthread_mutex_unlock(&cache->stamps_lock);
}

static int open_hit(struct cache *cache, struct cache_view *view, const struct cache_hit *hit,
		    int *ret)
{
	struct cache_stamp stamp;
	if (!cache_entry_is_sealed(&hit->entry))
		return -EBADMSG;
	AUTO_CLOSE int fd = cache_disk_open(view, hit);
	int err = fd < 0 ? fd : stamp_of(fd, &hit->entry, &stamp);
	if (!err && !was_checked(cache, &stamp)) {
		err = check_fd(fd, &hit->entry);
		if (!err)
			note_checked(cache, &stamp);
	}
	if (!err)
		*ret = steal_fd(&fd);
	return err;
}

int cache_open_file(struct cache *cache, const struct cache_id *id)
{
	struct cache_hit hit;
	AUTO_VIEW struct cache_view *view = cache_get_view(cache);
	int err = -ENOENT, fd = -ENOENT;
	for (int i = 0; view && cache_kind_is_file(id->kind) && i < CACHE_READ_TRIES; i++) {
		err = cache_look_up(view, id, 0, 0, &hit);
		if (!err)
			err = cache_judge(view, &hit, open_hit(cache, view, &hit, &fd));
		if (err != -EAGAIN)
			break;
	}
	return err ? -ENOENT : fd;
}
