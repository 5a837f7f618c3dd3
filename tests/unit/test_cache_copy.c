// SPDX-License-Identifier: Apache-2.0
/*
 * test_cache_copy: files that are made in pieces, and given out as descriptors.
 */
#include "cache_help.h"

#define ROOMY (64 * MIB)

/* Contents that tell where they are from. */
struct source {
	uint64_t len, fail_at, next, zeros; /* zeros: so many at the beginning */
};

static uint8_t byte_at(const struct source *source, uint64_t off)
{
	return off < source->zeros ? 0 : (uint8_t)(off * 31 + off / 977 + source->len);
}

static int give(void *arg, uint64_t off, void *buf, size_t len)
{
	struct source *source = arg;
	assert_int_equal(off, source->next);
	assert_true(len > 0 && len <= source->len - off);
	if (off >= source->fail_at)
		return -EIO;
	for (size_t i = 0; i < len; i++)
		((uint8_t *)buf)[i] = byte_at(source, off + i);
	source->next = off + len;
	return 0;
}

static int put(struct cache *cache, const struct cache_id *id, struct source *source)
{
	return cache_put_by(cache, id, source->len, give, source);
}

static bool is_right(int fd, const struct source *source)
{
	AUTO_FREE uint8_t *got = malloc(source->len + 1);
	bool right = pread_full(fd, got, source->len + 1, 0) == (ssize_t)source->len;
	for (uint64_t i = 0; right && i < source->len; i++)
		right = got[i] == byte_at(source, i);
	return right;
}

static void test_round_trip(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, ROOMY);
	static const uint64_t lens[] = {0, 1, 1 * MIB - 1, 1 * MIB, 1 * MIB + 1, 5 * MIB / 2};
	for (uint32_t i = 0; i < ARRAY_SIZE(lens); i++) {
		struct cache_id id = id_of(CACHE_COPY, i);
		struct source source = {.len = lens[i], .fail_at = UINT64_MAX};
		assert_int_equal(cache_open_file(cache, &id), -ENOENT);
		assert_int_equal(put(cache, &id, &source), 0);
		assert_int_equal(source.next, lens[i]);
		AUTO_CLOSE int fd = cache_open_file(cache, &id);
		assert_true(fd >= 0);
		assert_true(is_right(fd, &source));
		assert_int_equal(write(fd, "x", 1), -1);
		/* what else reads files takes it for one */
		AUTO_BUF struct buf whole = BUF_INIT(16 * MIB);
		assert_int_equal(cache_get(cache, &id, &whole), 0);
		assert_int_equal(whole.len, lens[i]);
	}
	uint64_t checked, dropped;
	assert_int_equal(cache_verify(cache, &checked, &dropped), 0);
	assert_int_equal(checked, ARRAY_SIZE(lens));
	assert_int_equal(dropped, 0);
	close_cache(cache);
}

static void test_zeros_are_a_hole(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, ROOMY);
	struct cache_id id = id_of(CACHE_COPY, 1);
	struct source source = {.len = 8 * MIB + 3, .fail_at = UINT64_MAX, .zeros = 8 * MIB};
	struct stat st;
	assert_int_equal(put(cache, &id, &source), 0);
	AUTO_CLOSE int fd = cache_open_file(cache, &id);
	assert_true(is_right(fd, &source));
	assert_int_equal(fstat(fd, &st), 0);
	assert_true(st.st_blocks * 512 <= MIB);
	close_cache(cache);
}

static void test_what_fails_is_not_kept(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, 8 * MIB);
	struct cache_id id = id_of(CACHE_COPY, 1), block = id_of(CACHE_BLOB, 1);
	struct source source = {.len = 3 * MIB, .fail_at = 2 * MIB};
	struct source large = {.len = 9 * MIB, .fail_at = UINT64_MAX};
	struct cache_info info;
	assert_true(put(cache, &id, &source) < 0);
	assert_int_equal(cache_open_file(cache, &id), -ENOENT);
	/* the source's trouble is not the disk's */
	cache_info(cache, &info);
	assert_true(info.writable);
	assert_int_equal(info.entries, 0);
	assert_int_equal(put(cache, &id, &large), -ENOSPC);
	large.len = CACHE_COPY_MAX + 1;
	assert_int_equal(put(cache, &id, &large), -EFBIG);
	source.len = 10;
	assert_int_equal(put(cache, &block, &source), -EINVAL);
	assert_int_equal(cache_open_file(cache, &block), -ENOENT);
	close_cache(cache);
}

static void test_open_while_it_goes(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, 8 * MIB);
	struct source source = {.len = 3 * MIB, .fail_at = UINT64_MAX};
	struct cache_id id = id_of(CACHE_COPY, 1);
	assert_int_equal(put(cache, &id, &source), 0);
	AUTO_CLOSE int fd = cache_open_file(cache, &id);
	for (uint32_t i = 2; i < 8; i++) {
		struct cache_id other = id_of(CACHE_COPY, i);
		source.next = 0;
		assert_int_equal(put(cache, &other, &source), 0);
		assert_true(du(place->cache) <= 8 * MIB);
	}
	assert_int_equal(cache_open_file(cache, &id), -ENOENT);
	assert_true(is_right(fd, &source));
	close_cache(cache);
}

/* The one file of the cache. */
static char damaged_path[600];
static int note_path(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)ftw;
	if (type == FTW_F && strstr(path, "/files/copy/"))
		snprintf(damaged_path, sizeof(damaged_path), "%s", path);
	return 0;
}

static void test_damage(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, ROOMY);
	struct cache_id id = id_of(CACHE_COPY, 1);
	for (int how = 0; how < 3; how++) {
		struct source source = {.len = 2 * MIB + 5, .fail_at = UINT64_MAX};
		int64_t corrupt = stats_get(STAT_CACHE_CORRUPT);
		assert_int_equal(put(cache, &id, &source), 0);
		assert_int_equal(nftw(place->cache, note_path, 16, FTW_PHYS), 0);
		if (how == 0) {
			AUTO_CLOSE int fd = open(damaged_path, O_WRONLY);
			assert_int_equal(pwrite(fd, "!!", 2, 2 * MIB + 1), 2);
		} else {
			off_t len = how == 1 ? 2 * MIB : 2 * MIB + 6;
			assert_int_equal(truncate(damaged_path, len), 0);
		}
		assert_int_equal(cache_open_file(cache, &id), -ENOENT);
		assert_int_equal(stats_get(STAT_CACHE_CORRUPT), corrupt + 1);
		assert_int_equal(access(damaged_path, F_OK), -1);
	}
	close_cache(cache);
}

static uint64_t bytes_read(void)
{
	AUTO_FREE char *text = NULL;
	size_t len;
	assert_int_equal(read_file("/proc/self/io", 4096, &text, &len), 0);
	return strtoull(strstr(text, "rchar: ") + 7, NULL, 10);
}

/* A file that was checked, and that nobody has written to, is not read again. */
static void test_checked_once(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, ROOMY);
	struct cache_id id = id_of(CACHE_COPY, 1);
	struct source source = {.len = 2 * MIB, .fail_at = UINT64_MAX};
	assert_int_equal(put(cache, &id, &source), 0);
	for (int i = 0; i < 5; i++) {
		/* twice while it is new; then the third check counts */
		cache->settle_ms = i < 2 ? 60000 : -60000;
		uint64_t before = bytes_read();
		AUTO_CLOSE int fd = cache_open_file(cache, &id);
		assert_true(fd >= 0);
		assert_true((bytes_read() - before >= source.len) == (i < 3));
	}
	assert_int_equal(nftw(place->cache, note_path, 16, FTW_PHYS), 0);
	AUTO_CLOSE int fd = open(damaged_path, O_WRONLY);
	assert_int_equal(pwrite(fd, "!!", 2, MIB), 2);
	assert_int_equal(cache_open_file(cache, &id), -ENOENT);
	close_cache(cache);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, place_setup, place_teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_round_trip),
		TEST(test_zeros_are_a_hole),
		TEST(test_what_fails_is_not_kept),
		TEST(test_open_while_it_goes),
		TEST(test_damage),
		TEST(test_checked_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
