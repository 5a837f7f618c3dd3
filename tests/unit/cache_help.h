/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache_help: what the tests of the cache share: a directory, contents that tell which block they
 * belong to, the disk space a directory takes, random load, and children.
 */
#ifndef REGFS_TEST_CACHE_HELP_H
#define REGFS_TEST_CACHE_HELP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "../../src/cache_priv.h"
#include "regfs/log.h"
#include "regfs/stats.h"

#define HELP __attribute__((unused)) static

HELP int remove_item(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

HELP void remove_tree(const char *path)
{
	nftw(path, remove_item, 16, FTW_DEPTH | FTW_PHYS);
}

/* What du -s says, in bytes. A file that vanishes under the walk counts as nothing. */
static uint64_t du_sum;
HELP int du_item(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)path;
	(void)ftw;
	du_sum += type == FTW_NS ? 0 : (uint64_t)st->st_blocks * 512;
	return 0;
}

HELP uint64_t du(const char *path)
{
	du_sum = 0;
	nftw(path, du_item, 16, FTW_PHYS);
	return du_sum;
}

/* A fresh directory; the cache is DIR/cache, and not there yet. */
struct place {
	char dir[256], cache[272];
};

HELP int place_setup(void **state)
{
	struct place *place = calloc(1, sizeof(*place));
	const char *tmp = getenv("TMPDIR");
	snprintf(place->dir, sizeof(place->dir), "%s/regfs-cache-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(place->dir))
		return -1;
	snprintf(place->cache, sizeof(place->cache), "%s/cache", place->dir);
	log_set_level(LOG_LEVEL_ERROR);
	*state = place;
	return 0;
}

HELP int place_teardown(void **state)
{
	struct place *place = *state;
	remove_tree(place->dir);
	free(place);
	return 0;
}

HELP struct cache *open_cache(const char *dir, uint64_t limit)
{
	struct cache *cache = NULL;
	assert_int_equal(cache_open(dir, limit, &cache), 0);
	assert_non_null(cache);
	return cache;
}

/* Sound, and closed. */
HELP void close_cache(struct cache *cache)
{
	assert_int_equal(cache_check(cache), 0);
	cache_close(cache);
}

HELP struct cache_id id_of(enum cache_kind kind, uint64_t n)
{
	struct cache_id id = {.kind = kind};
	memcpy(id.key, &n, sizeof(n));
	id.key[31] = 0x5a;
	return id;
}

/* Contents that no other (id, block, salt) has, and that can be checked from anywhere. */
HELP void fill(const struct cache_id *id, uint32_t block, uint32_t salt, void *buf, size_t len)
{
	uint64_t x = hash64(salt, id, sizeof(*id)) + block * 0x9e3779b97f4a7c15ull;
	for (size_t i = 0; i < len; i += 8) {
		x = x * 6364136223846793005ull + 1442695040888963407ull;
		memcpy((char *)buf + i, &x, MIN(8, len - i));
	}
}

HELP int put_block(struct cache *cache, const struct cache_id *id, uint32_t block, size_t len,
		   uint64_t pass)
{
	AUTO_FREE char *data = malloc(len + 8);
	fill(id, block, 0, data, len);
	return cache_write(cache, id, block, data, len, pass);
}

/* 1: there and right; 0: missing; -1: WRONG bytes. */
HELP int look(struct cache *cache, const struct cache_id *id, uint32_t block, size_t len,
	      uint64_t pass)
{
	AUTO_FREE char *want = malloc(len + 8);
	AUTO_FREE char *got = malloc(CACHE_BLOCK);
	ssize_t n = cache_read(cache, id, block, 0, got, CACHE_BLOCK, pass);
	if (n == -ENOENT)
		return 0;
	fill(id, block, 0, want, len);
	return n == (ssize_t)len && memcmp(want, got, len) == 0 ? 1 : -1;
}

HELP int put_file(struct cache *cache, const struct cache_id *id, uint32_t salt, size_t len)
{
	AUTO_FREE char *data = malloc(len + 8);
	fill(id, 0, salt, data, len);
	return cache_put(cache, id, data, len);
}

HELP int look_file(struct cache *cache, const struct cache_id *id, uint32_t salt, size_t len)
{
	AUTO_BUF struct buf buf = BUF_INIT(16 * MIB);
	AUTO_FREE char *want = malloc(len + 8);
	int err = cache_get(cache, id, &buf);
	if (err)
		return err == -ENOENT ? 0 : -1;
	fill(id, 0, salt, want, len);
	return buf.len == len && (len == 0 || memcmp(want, buf.data, len) == 0) ? 1 : -1;
}

/* The next write looks whether the directory is still there. */
HELP void look_again(struct cache *cache)
{
	atomic_store(&cache->next_check_ms, 0);
}

/* The path of the file that holds ID. */
HELP char *file_path(struct cache *cache, const struct cache_id *id)
{
	char name[CACHE_NAME_LEN + 1];
	struct cache_view *view = cache_get_view(cache);
	assert_int_equal(cache_view_lock(view), 0);
	uint32_t index = cache_table_find(&view->table, id, 0, 0);
	assert_int_not_equal(index, 0);
	cache_name_format(cache_table_at(&view->table, index), name);
	cache_view_unlock(view);
	cache_view_unref(view);
	return format("%s/files/%s/%s", cache->dir, cache_kind_dir(id->kind), name);
}

/* Where in the arena the block lies. */
HELP off_t slot_offset(struct cache *cache, const struct cache_id *id, uint32_t block)
{
	struct cache_view *view = cache_get_view(cache);
	assert_int_equal(cache_view_lock(view), 0);
	uint32_t index = cache_table_find_any(&view->table, id, block);
	assert_int_not_equal(index, 0);
	cache_view_unlock(view);
	cache_view_unref(view);
	return (off_t)(index - 1) * CACHE_BLOCK;
}

HELP void scribble(const char *path, off_t at, const char *bytes)
{
	int fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, strlen(bytes), at), (ssize_t)strlen(bytes));
	close(fd);
}

/* In a child an assertion must not return into cmocka. */
#define CHECK(cond)                                                                                \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                 \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)

#define SKIPPED 77
#define LIMIT	(3 * MIB)

HELP int wait_for(pid_t pid)
{
	int status = 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

/* Runs FN in a child; 0, SKIPPED or what went wrong. */
HELP int in_child(void (*fn)(const struct place *), const struct place *place)
{
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		fn(place);
		_exit(0);
	}
	int status = wait_for(pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* --- load --- */

#define IDS    24
#define BLOCKS 4

HELP size_t len_of(uint64_t n, uint32_t block)
{
	return block ? CACHE_BLOCK : 1 + n * 4000;
}

/* One random call; negative if a read was wrong. */
HELP int one_step(struct cache *cache, unsigned *seed)
{
	uint64_t n = (uint64_t)rand_r(seed) % IDS;
	uint32_t block = (uint32_t)rand_r(seed) % BLOCKS;
	struct cache_id id = id_of(CACHE_BLOB, n), file = id_of(CACHE_INDEX, n);
	size_t len = len_of(n, block);
	switch (rand_r(seed) % 6) {
	case 0:
		put_file(cache, &file, 0, len_of(n, 0));
		return 0;
	case 1:
		return look_file(cache, &file, 0, len_of(n, 0));
	case 2:
		put_block(cache, &id, block, len, n + 1);
		cache_commit(cache, &id, BLOCKS, n + 1);
		return 0;
	case 3:
		return look(cache, &id, block, len, 0);
	default:
		put_block(cache, &id, block, len, 0);
		return 0;
	}
}

HELP void all_right(struct cache *cache)
{
	assert_int_equal(cache_check(cache), 0);
	for (uint64_t n = 0; n < IDS; n++) {
		struct cache_id id = id_of(CACHE_BLOB, n), file = id_of(CACHE_INDEX, n);
		assert_true(look_file(cache, &file, 0, len_of(n, 0)) >= 0);
		for (uint32_t block = 0; block < BLOCKS; block++)
			assert_true(look(cache, &id, block, len_of(n, block), 0) >= 0);
	}
}

#endif
