// SPDX-License-Identifier: Apache-2.0
/*
 * test_cache: what the cache keeps, gives back and lets go. Crashes, damage and full disks are
 * in test_cache_crash.c.
 */
#include <pthread.h>

#include "cache_help.h"

#define ROOMY (16 * MIB)

/* --- blocks --- */

static void test_block_round_trip(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, ROOMY);
	struct cache_id id = id_of(CACHE_BLOB, 1), other = id_of(CACHE_DECODED, 1);
	static const size_t lens[] = {0, 1, 4095, 4096, 4097, CACHE_BLOCK - 1, CACHE_BLOCK};
	for (uint32_t i = 0; i < ARRAY_SIZE(lens); i++) {
		assert_int_equal(look(cache, &id, i, lens[i], 0), 0);
		assert_false(cache_has(cache, &id, i));
		assert_int_equal(put_block(cache, &id, i, lens[i], 0), 0);
		assert_true(cache_has(cache, &id, i));
		assert_int_equal(look(cache, &id, i, lens[i], 0), 1);
	}
	assert_false(cache_has(cache, &other, 1));
	assert_int_equal(put_block(cache, &id, 9, CACHE_BLOCK + 1, 0), -EINVAL);
	struct cache_id file = id_of(CACHE_MANIFEST, 1);
	assert_int_equal(put_block(cache, &file, 0, 10, 0), -EINVAL);
	close_cache(cache);
	/* and still there for the next one */
	cache = open_cache(place->cache, ROOMY);
	for (uint32_t i = 0; i < ARRAY_SIZE(lens); i++)
		assert_int_equal(look(cache, &id, i, lens[i], 0), 1);
	close_cache(cache);
}

static void test_block_parts(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, ROOMY);
	struct cache_id id = id_of(CACHE_BLOB, 1);
	char *want = malloc(CACHE_BLOCK), *got = malloc(CACHE_BLOCK);
	fill(&id, 3, 0, want, 70000);
	assert_int_equal(cache_write(cache, &id, 3, want, 70000, 0), 0);
	assert_int_equal(cache_read(cache, &id, 3, 100, got, 5000, 0), 5000);
	assert_memory_equal(got, want + 100, 5000);
	assert_int_equal(cache_read(cache, &id, 3, 69990, got, 5000, 0), 10);
	assert_memory_equal(got, want + 69990, 10);
	assert_int_equal(cache_read(cache, &id, 3, 0, got, 70000, 0), 70000);
	assert_int_equal(cache_read(cache, &id, 3, 0, got, 10, 0), 10);
	assert_int_equal(cache_read(cache, &id, 3, 70000, got, 10, 0), 0);
	assert_int_equal(cache_read(cache, &id, 3, SIZE_MAX, got, 10, 0), 0);
	assert_int_equal(cache_read(cache, &id, 4, 0, got, 10, 0), -ENOENT);
	free(want);
	free(got);
	close_cache(cache);
}

static void test_verified_block_is_left_alone(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, ROOMY);
	struct cache_id id = id_of(CACHE_BLOB, 1);
	assert_int_equal(put_block(cache, &id, 0, 1000, 0), 0);
	assert_int_equal(cache_write(cache, &id, 0, "wrong", 5, 0), 0);
	assert_int_equal(cache_write(cache, &id, 0, "wrong", 5, 77), 0);
	assert_int_equal(look(cache, &id, 0, 1000, 77), 1);
	struct cache_info info;
	cache_info(cache, &info);
	assert_int_equal(info.entries, 1);
	close_cache(cache);
}

/* --- passes --- */

static void test_tentative(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, ROOMY);
	struct cache *another = open_cache(place->cache, ROOMY);
	struct cache_id id = id_of(CACHE_BLOB, 1);
	uint64_t pass = cache_pass_new(cache), other = cache_pass_new(another);
	assert_true(pass && other && pass != other);
	for (uint32_t i = 0; i < 40; i++)
		assert_int_equal(put_block(cache, &id, i, 5000, pass), 0);
	assert_false(cache_has(cache, &id, 0));
	assert_int_equal(look(cache, &id, 0, 5000, 0), 0);
	assert_int_equal(look(another, &id, 0, 5000, other), 0);
	assert_int_equal(look(cache, &id, 0, 5000, pass), 1);
	/* the same pass may write a block again */
	assert_int_equal(cache_write(cache, &id, 0, "again", 5, pass), 0);
	char buf[16];
	assert_int_equal(cache_read(cache, &id, 0, 0, buf, sizeof(buf), pass), 5);
	assert_int_equal(put_block(cache, &id, 0, 5000, pass), 0);
	/* two passes beside each other, of which one is right */
	assert_int_equal(cache_write(another, &id, 0, "bad", 3, other), 0);
	assert_int_equal(look(cache, &id, 0, 5000, pass), 1);
	cache_commit(cache, &id, 30, pass);
	for (uint32_t i = 0; i < 40; i++)
		assert_int_equal(look(another, &id, i, 5000, 0), i < 30);
	cache_commit(another, &id, 30, other);
	assert_int_equal(look(another, &id, 0, 5000, 0), 1);
	cache_drop(cache, &id, 40, pass);
	struct cache_info info;
	cache_info(cache, &info);
	assert_int_equal(info.entries, 30);
	cache_close(another);
	close_cache(cache);
}

/* More blocks than the table has entries: walked the other way round. */
static void test_drop(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, ROOMY);
	struct cache_id id = id_of(CACHE_BLOB, 1), other = id_of(CACHE_BLOB, 2);
	static const uint32_t nblocks[] = {50, UINT32_MAX};
	for (size_t round = 0; round < ARRAY_SIZE(nblocks); round++) {
		for (uint32_t i = 0; i < 50; i++) {
			assert_int_equal(put_block(cache, &id, i, 100, 7), 0);
			assert_int_equal(put_block(cache, &id, i, 100, 8), 0);
			assert_int_equal(put_block(cache, &other, i, 100, 0), 0);
		}
		cache_drop(cache, &id, nblocks[round], 8);
		assert_int_equal(look(cache, &id, 3, 100, 8), 0);
		cache_commit(cache, &id, nblocks[round], 7);
		assert_int_equal(look(cache, &id, 3, 100, 0), 1);
		assert_int_equal(put_block(cache, &id, 1000, 100, 9), 0);
		cache_drop(cache, &id, nblocks[round], 0);
		for (uint32_t i = 0; i < 50; i++) {
			assert_int_equal(look(cache, &id, i, 100, 7), 0);
			assert_int_equal(look(cache, &other, i, 100, 0), 1);
		}
		assert_int_equal(look(cache, &id, 1000, 100, 9), round == 0);
		cache_drop(cache, &id, 1001, 0);
		assert_int_equal(cache_check(cache), 0);
	}
	close_cache(cache);
}

/* --- files --- */

static void test_files(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, ROOMY);
	struct cache_id id = id_of(CACHE_MANIFEST, 1), name = id_of(CACHE_NAME, 1);
	assert_int_equal(look_file(cache, &id, 0, 10), 0);
	static const size_t lens[] = {0, 1, 4096, 300000};
	for (uint32_t i = 0; i < ARRAY_SIZE(lens); i++) {
		assert_int_equal(put_file(cache, &id, i, lens[i]), 0);
		assert_int_equal(look_file(cache, &id, i, lens[i]), 1);
		assert_int_equal(look_file(cache, &name, i, lens[i]), 0);
	}
	AUTO_BUF struct buf small = BUF_INIT(1000);
	assert_int_equal(buf_add(&small, "x", 1), 0);
	assert_int_equal(cache_get(cache, &id, &small), -EFBIG);
	assert_string_equal(small.data, "x");
	assert_int_equal(put_file(cache, &id, 9, 999), 0);
	assert_int_equal(cache_get(cache, &id, &small), 0);
	assert_int_equal(small.len, 1000);
	struct cache_info info;
	cache_info(cache, &info);
	assert_int_equal(info.files, 1);
	cache_remove(cache, &id);
	assert_int_equal(look_file(cache, &id, 9, 999), 0);
	struct cache_id block = id_of(CACHE_BLOB, 1);
	assert_int_equal(cache_put(cache, &block, "x", 1), -EINVAL);
	close_cache(cache);
}

static void test_map(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, ROOMY);
	struct cache_id id = id_of(CACHE_INDEX, 1);
	struct cache_map map = {0}, empty;
	cache_unmap(&map);
	assert_int_equal(cache_map(cache, &id, &map), -ENOENT);
	assert_int_equal(put_file(cache, &id, 0, 100000), 0);
	assert_int_equal(cache_map(cache, &id, &map), 0);
	assert_int_equal(map.len, 100000);
	char *want = malloc(100000);
	fill(&id, 0, 0, want, 100000);
	/* it outlives its replacement, its eviction and the cache */
	assert_int_equal(put_file(cache, &id, 0, 0), 0);
	assert_int_equal(cache_map(cache, &id, &empty), 0);
	assert_int_equal(empty.len, 0);
	assert_non_null(empty.data);
	cache_unmap(&empty);
	assert_int_equal(cache_prune(cache, 0), 0);
	close_cache(cache);
	assert_memory_equal(map.data, want, 100000);
	assert_false(*map.broken);
	cache_unmap(&map);
	free(want);
}

/* --- eviction --- */

static void test_least_recently_used_goes_first(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, 4 * MIB);
	struct cache_id id = id_of(CACHE_BLOB, 1), file = id_of(CACHE_MANIFEST, 1);
	assert_int_equal(put_file(cache, &file, 0, 2000), 0);
	uint32_t n = 0, kept = 0;
	for (; n < 200; n++) {
		assert_int_equal(put_block(cache, &id, n, CACHE_BLOCK, 0), 0);
		assert_int_equal(look(cache, &id, 0, CACHE_BLOCK, 0), 1);
		assert_int_equal(look_file(cache, &file, 0, 2000), 1);
		cache_has(cache, &id, 1); /* does not count as a use */
		assert_true(du(place->cache) <= 4 * MIB);
	}
	assert_false(cache_has(cache, &id, 1));
	for (uint32_t i = 1; i < n; i++) {
		bool has = cache_has(cache, &id, i);
		assert_true(has || kept == 0); /* the old ones are those that are gone */
		kept += has;
	}
	assert_in_range(kept, 24, 31);
	close_cache(cache);
}

static void test_sizes_mixed(void **state)
{
	const struct place *place = *state;
	const uint64_t limit = 2 * MIB;
	struct cache *cache = open_cache(place->cache, limit);
	unsigned seed = 1;
	for (unsigned i = 0; i < 4000; i++) {
		size_t len = (size_t)rand_r(&seed) % (i % 7 ? 9000 : CACHE_BLOCK + 1);
		bool is_file = rand_r(&seed) % 3 == 0;
		struct cache_id id = id_of(is_file ? CACHE_SUMS : CACHE_BLOB, i);
		int err = is_file ? put_file(cache, &id, 0, len) : put_block(cache, &id, 0, len, 0);
		assert_int_equal(err, 0);
		assert_int_equal(
			is_file ? look_file(cache, &id, 0, len) : look(cache, &id, 0, len, 0), 1);
		if (i % 50 == 0)
			assert_int_equal(cache_check(cache), 0);
		if (i % 50 == 0)
			assert_true(du(place->cache) <= limit);
	}
	/* larger than the whole: not kept, and nothing else had to go for it */
	struct cache_info before, after;
	cache_info(cache, &before);
	struct cache_id big = id_of(CACHE_INDEX, 1);
	assert_int_equal(put_file(cache, &big, 0, 3 * MIB), -ENOSPC);
	cache_info(cache, &after);
	assert_int_equal(before.entries, after.entries);
	assert_true(before.used_bytes <= limit);
	close_cache(cache);
}

static void test_tiny_limits(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, 1);
	struct cache_id id = id_of(CACHE_BLOB, 1);
	assert_int_equal(put_block(cache, &id, 0, 10, 0), -ENOSPC);
	assert_int_equal(look(cache, &id, 0, 10, 0), 0);
	assert_int_equal(access(place->cache, F_OK), -1);
	close_cache(cache);
	cache = open_cache(place->cache, 1 * MIB);
	for (uint32_t i = 0; i < 20; i++)
		assert_int_equal(put_block(cache, &id, i, CACHE_BLOCK, 0), 0);
	struct cache_info info;
	cache_info(cache, &info);
	assert_in_range(info.blocks, 6, 8);
	assert_true(du(place->cache) <= 1 * MIB);
	close_cache(cache);
}

/* --- limits that change --- */

static unsigned count(struct cache *cache, uint32_t n)
{
	struct cache_id id = id_of(CACHE_BLOB, 1);
	unsigned found = 0;
	for (uint32_t i = 0; i < n; i++) {
		int is = look(cache, &id, i, CACHE_BLOCK, 0);
		assert_true(is >= 0);
		found += (unsigned)is;
	}
	return found;
}

static void test_another_limit(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, 8 * MIB);
	struct cache_id id = id_of(CACHE_BLOB, 1), file = id_of(CACHE_MANIFEST, 1);
	for (uint32_t i = 0; i < 50; i++)
		assert_int_equal(put_block(cache, &id, i, CACHE_BLOCK, 0), 0);
	assert_int_equal(put_file(cache, &file, 0, 5000), 0);
	struct cache_info info;
	/* somebody has it open: what is there stays */
	struct cache *second = open_cache(place->cache, 64 * MIB);
	cache_info(second, &info);
	assert_int_equal(info.limit_bytes, 8 * MIB);
	assert_int_equal(count(second, 50), 50);
	close_cache(second);
	close_cache(cache);
	/* larger, much larger, the same, smaller, much smaller */
	static const struct {
		uint64_t limit, expect;
		unsigned min, max;
	} steps[] = {
		{16 * MIB, 16 * MIB, 50, 50},
		{1024ull * MIB, 1024ull * MIB, 50, 50},
		{0, 1024ull * MIB, 50, 50},
		{512ull * MIB, 512ull * MIB, 50, 50},
		{4 * MIB, 4 * MIB, 20, 31},
		{3 * MIB, 3 * MIB, 15, 23},
		{2048ull * MIB, 2048ull * MIB, 15, 23},
	};
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		cache = open_cache(place->cache, steps[i].limit);
		cache_info(cache, &info);
		assert_int_equal(info.limit_bytes, steps[i].expect);
		assert_true(info.used_bytes <= info.limit_bytes);
		assert_true(du(place->cache) <= info.limit_bytes);
		assert_in_range(count(cache, 50), steps[i].min, steps[i].max);
		close_cache(cache);
	}
}

static void test_table_size(void **state)
{
	(void)state;
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, 0);
	struct cache_info info;
	cache_info(cache, &info);
	assert_int_equal(info.limit_bytes, 10ull * 1024 * MIB);
	assert_in_range(info.used_bytes, 1 * MIB, 50 * MIB);
	close_cache(cache);
}

/* A cache whose entries run out long before its bytes: it keeps the newest, and never fails. */
static void test_more_small_ones_than_entries(void **state)
{
	const struct place *place = *state;
	const unsigned n = 4000;
	struct cache *cache = open_cache(place->cache, 12 * MIB);
	struct cache_info info;
	for (unsigned i = 0; i < n; i++) {
		struct cache_id id = id_of(i % 3 ? CACHE_CHUNK : CACHE_MANIFEST, i);
		if (i % 3)
			assert_int_equal(put_block(cache, &id, 0, 100, 0), 0);
		else
			assert_int_equal(put_file(cache, &id, 0, 100), 0);
	}
	cache_info(cache, &info);
	assert_true(info.used_bytes < 12 * MIB * 3 / 4);
	assert_in_range(info.entries, n / 4, n / 2);
	for (unsigned i = n - n / 5; i < n; i++) {
		struct cache_id id = id_of(i % 3 ? CACHE_CHUNK : CACHE_MANIFEST, i);
		assert_true(cache_has(cache, &id, 0)); /* does not count as a use */
	}
	assert_int_equal(cache_check(cache), 0);
	/* and whole blocks still have all of the bytes */
	struct cache_id id = id_of(CACHE_BLOB, n);
	for (uint32_t i = 0; i < 80; i++)
		assert_int_equal(put_block(cache, &id, i, CACHE_BLOCK, 0), 0);
	for (uint32_t i = 0; i < 80; i++)
		assert_int_equal(look(cache, &id, i, CACHE_BLOCK, 0), 1);
	assert_int_equal(cache_check(cache), 0);
	close_cache(cache);
}

/* A layer of small chunks fills a cache of the usual size by its bytes, not by its entries. */
static void test_room_for_small_ones(void **state)
{
	const struct place *place = *state;
	const unsigned n = 20000;
	struct cache *cache = open_cache(place->cache, 1024 * MIB);
	for (unsigned i = 0; i < n; i++) {
		struct cache_id id = id_of(CACHE_CHUNK, i);
		assert_int_equal(put_block(cache, &id, 0, 10, 0), 0);
	}
	for (unsigned i = 0; i < n; i++) {
		struct cache_id id = id_of(CACHE_CHUNK, i);
		assert_true(cache_has(cache, &id, 0));
	}
	close_cache(cache);
}

/* --- for people --- */

static int collect(void *arg, const struct cache_id *id)
{
	uint64_t n, *seen = arg;
	memcpy(&n, id->key, sizeof(n));
	assert_true(n < 300);
	seen[n]++;
	return n == 299 ? 42 : 0;
}

static void test_each(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, 64 * MIB);
	for (uint64_t n = 0; n < 298; n++) {
		struct cache_id id = id_of(CACHE_BLOB, n);
		for (uint32_t block = 3; block < 6; block++)
			assert_int_equal(put_block(cache, &id, block, 10, n == 5 ? 9 : 0), 0);
	}
	uint64_t seen[300] = {0};
	assert_int_equal(cache_each(cache, CACHE_BLOB, collect, seen), 0);
	for (uint64_t n = 0; n < 300; n++)
		assert_int_equal(seen[n], n < 298 && n != 5);
	assert_int_equal(cache_each(cache, CACHE_INDEX, collect, seen), 0);
	struct cache_id last = id_of(CACHE_NAME, 299);
	assert_int_equal(put_file(cache, &last, 0, 10), 0);
	assert_int_equal(cache_each(cache, CACHE_NAME, collect, seen), 42);
	close_cache(cache);
}

static void test_prune(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, 16 * MIB);
	struct cache_id id = id_of(CACHE_BLOB, 1), file = id_of(CACHE_SUMS, 1);
	for (uint32_t i = 0; i < 80; i++)
		assert_int_equal(put_block(cache, &id, i, CACHE_BLOCK, 0), 0);
	assert_int_equal(put_file(cache, &file, 0, 100), 0);
	assert_int_equal(cache_prune(cache, 5 * MIB), 0);
	struct cache_info info;
	cache_info(cache, &info);
	assert_in_range(info.used_bytes, 4 * MIB, 5 * MIB);
	assert_true(cache_has(cache, &id, 79));
	assert_int_equal(cache_prune(cache, 0), 0);
	cache_info(cache, &info);
	assert_int_equal(info.entries, 0);
	assert_true(du(place->cache) <= 1 * MIB);
	close_cache(cache);
}

static void test_names(void **state)
{
	(void)state;
	struct cache_entry entry = {.gen = 0x0123456789abcdefull};
	uint8_t key[DIGEST_KEY_LEN];
	uint64_t gen;
	char name[CACHE_NAME_LEN + 1];
	for (size_t i = 0; i < sizeof(entry.key); i++)
		entry.key[i] = (uint8_t)(i * 9);
	cache_name_format(&entry, name);
	assert_int_equal(strlen(name), CACHE_NAME_LEN);
	assert_true(cache_name_parse(name, key, &gen));
	assert_memory_equal(key, entry.key, sizeof(key));
	assert_int_equal(gen, entry.gen);
	name[3] = 'G';
	assert_false(cache_name_parse(name, key, &gen));
	assert_false(cache_name_parse("x", key, &gen));
}

/* --- many --- */

struct worker {
	struct cache *cache;
	unsigned seed, wrong;
};

static void worker_step(struct worker *worker)
{
	uint64_t n = (uint64_t)rand_r(&worker->seed) % 40;
	uint32_t block = (uint32_t)rand_r(&worker->seed) % 4;
	struct cache_id id = id_of(CACHE_BLOB, n), file = id_of(CACHE_NAME, n);
	size_t len = 1 + n * 3000;
	uint64_t pass = 1 + n % 3;
	switch (rand_r(&worker->seed) % 9) {
	case 0:
	case 1:
		put_block(worker->cache, &id, block, len, rand_r(&worker->seed) % 2 ? pass : 0);
		break;
	case 2:
		put_file(worker->cache, &file, 0, len);
		break;
	case 3:
		worker->wrong += look_file(worker->cache, &file, 0, len) < 0;
		break;
	case 4:
		cache_commit(worker->cache, &id, 4, pass);
		break;
	case 5:
		if (rand_r(&worker->seed) % 10 == 0)
			cache_drop(worker->cache, &id, 4, 0);
		break;
	case 6: {
		struct cache_map map;
		if (cache_map(worker->cache, &file, &map) == 0) {
			worker->wrong += map.len != len;
			cache_unmap(&map);
		}
		break;
	}
	default:
		worker->wrong += look(worker->cache, &id, block, len, pass) < 0;
	}
}

static void *work(void *arg)
{
	for (int i = 0; i < 1500; i++)
		worker_step(arg);
	return NULL;
}

static void test_threads(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, 3 * MIB);
	struct cache *second = open_cache(place->cache, 3 * MIB);
	int64_t corrupt = stats_get(STAT_CACHE_CORRUPT);
	pthread_t thread[6];
	struct worker worker[6];
	for (unsigned i = 0; i < ARRAY_SIZE(thread); i++) {
		worker[i] = (struct worker){.cache = i % 3 ? cache : second, .seed = i};
		assert_int_equal(pthread_create(&thread[i], NULL, work, &worker[i]), 0);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(thread); i++) {
		pthread_join(thread[i], NULL);
		assert_int_equal(worker[i].wrong, 0);
	}
	/* what was evicted under a reader is a miss, not damage */
	assert_int_equal(stats_get(STAT_CACHE_CORRUPT), corrupt);
	assert_true(du(place->cache) <= 3 * MIB);
	close_cache(second);
	close_cache(cache);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, place_setup, place_teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_block_round_trip),
		TEST(test_block_parts),
		TEST(test_verified_block_is_left_alone),
		TEST(test_tentative),
		TEST(test_drop),
		TEST(test_files),
		TEST(test_map),
		TEST(test_least_recently_used_goes_first),
		TEST(test_sizes_mixed),
		TEST(test_tiny_limits),
		TEST(test_another_limit),
		TEST(test_table_size),
		TEST(test_more_small_ones_than_entries),
		TEST(test_room_for_small_ones),
		TEST(test_each),
		TEST(test_prune),
		TEST(test_names),
		TEST(test_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
