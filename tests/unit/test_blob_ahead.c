// SPDX-License-Identifier: Apache-2.0
/*
 * blob: what is fetched before it is asked for: requests and bytes of sequential and of random
 * readers, where answers come at once and where they take long.
 */
#include <errno.h>
#include <ftw.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/blob_priv.h"
#include "fakestore.h"
#include "regfs/log.h"
#include "regfs/stats.h"

#define BLOCKS 400u
#define SIZE   ((uint64_t)BLOCKS * CACHE_BLOCK)

struct fixture {
	char dir[64];
	struct cache *cache;
	struct pool *jobs;
	struct blobs *blobs;
	struct store *store;
	struct wait wait;
	uint8_t *data;
	struct digest digest;
	struct blob_id id;
	uint8_t out[CACHE_BLOCK];
	/* before what is looked at */
	unsigned calls;
	uint64_t bytes;
	int64_t ahead, unused;
};

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

/* Until no job is on its way: then all counts are. */
static void settle(struct fixture *f)
{
	unsigned running;

	do {
		sched_yield();
		pthread_mutex_lock(&f->blobs->lock);
		running = f->blobs->running;
		pthread_mutex_unlock(&f->blobs->lock);
	} while (running > 0);
}

static void read_block(struct fixture *f, uint32_t nr)
{
	assert_int_equal(blob_read(f->blobs, &f->id, (uint64_t)nr * CACHE_BLOCK, f->out,
				   CACHE_BLOCK, &f->wait),
			 CACHE_BLOCK);
	assert_memory_equal(f->out, f->data + (size_t)nr * CACHE_BLOCK, CACHE_BLOCK);
}

static void evict(struct fixture *f)
{
	struct cache_id id = {.kind = CACHE_BLOB};

	settle(f);
	digest_key(&f->digest, id.key);
	cache_drop(f->cache, &id, BLOCKS, 0);
}

static void look(struct fixture *f)
{
	settle(f);
	f->calls = fakestore_calls(f->store, FAKE_OPEN_BLOB);
	f->bytes = fakestore_bytes(f->store);
	f->ahead = stats_get(STAT_AHEAD_BYTES);
	f->unused = stats_get(STAT_AHEAD_UNUSED_BYTES);
}

static unsigned calls_since(struct fixture *f)
{
	settle(f);
	return fakestore_calls(f->store, FAKE_OPEN_BLOB) - f->calls;
}

static uint64_t blocks_since(struct fixture *f)
{
	settle(f);
	return (fakestore_bytes(f->store) - f->bytes) / CACHE_BLOCK;
}

/* A way of LATENCY_US, at 100 MB a second. */
static void set_pace(struct fixture *f, int64_t latency_us)
{
	way_find(f->blobs, f->store)->pace.fixed = true;
	way_find(f->blobs, f->store)->pace.rate = 100000000;
	atomic_store(&way_find(f->blobs, f->store)->pace.latency_us, latency_us);
}

static void fill(uint8_t *data, size_t len)
{
	uint32_t x = 4711;

	for (size_t i = 0; i < len; i++) {
		x = x * 1664525 + 1013904223;
		data[i] = x >> 24;
	}
}

/* A blob that was here once: its sums are known, its bytes are not in the cache. */
static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	snprintf(f->dir, sizeof(f->dir), "/tmp/regfs-ahead-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	assert_int_equal(cache_open(f->dir, 256 * MIB, &f->cache), 0);
	f->jobs = pool_new("jobs", 0);
	f->blobs = blobs_new(f->cache, f->jobs, 60000);
	f->store = fakestore_new("fake.test");
	f->data = malloc(SIZE);
	assert_non_null(f->data);
	fill(f->data, SIZE);
	fakestore_add_blob(f->store, "app", f->data, SIZE, &f->digest);
	f->id = (struct blob_id){
		.digest = &f->digest, .size = SIZE, .store = f->store, .repo = "app"};
	wait_init(&f->wait, true);
	read_block(f, 0);
	evict(f);
	set_pace(f, 500);
	look(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	blobs_free(f->blobs);
	pool_free(f->jobs);
	cache_close(f->cache);
	store_free(f->store);
	wait_release(&f->wait);
	free(f->data);
	nftw(f->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static void reopen(struct fixture *f)
{
	blobs_free(f->blobs);
	f->blobs = blobs_new(f->cache, f->jobs, 60000);
	assert_non_null(f->blobs);
}

static void test_random_readers_pay_nothing(void **state)
{
	struct fixture *f = *state;

	set_pace(f, 100000);
	for (uint32_t nr = 7; nr < BLOCKS; nr += 31)
		read_block(f, nr);
	assert_int_equal(blocks_since(f), calls_since(f));
	assert_int_equal(calls_since(f), (BLOCKS - 7 + 30) / 31);
	assert_int_equal(stats_get(STAT_AHEAD_BYTES), f->ahead);
}

/* What is wanted; then 1 MiB, 2, 4; one range at a time. */
static void test_windows_grow(void **state)
{
	struct fixture *f = *state;
	static const uint32_t misses[] = {0, 1, 9, 25, 57, 89};

	for (uint32_t nr = 0; nr < 100; nr++)
		read_block(f, nr);
	assert_int_equal(calls_since(f), ARRAY_SIZE(misses));
	assert_int_equal(blocks_since(f), 89 + FETCH_MAX);
	assert_int_equal(stats_get(STAT_AHEAD_BYTES) - f->ahead,
			 (89 + FETCH_MAX - ARRAY_SIZE(misses)) * CACHE_BLOCK);
}

/* Where answers take long, ranges are on their way before the reader comes to them. */
static void test_many_at_once_where_answers_take_long(void **state)
{
	struct fixture *f = *state;

	set_pace(f, 100000);
	for (uint32_t nr = 0; nr < 25; nr++)
		read_block(f, nr);
	assert_int_equal(calls_since(f), 3);
	/* the fourth range is the first full one, and brings the next ones with it: twice 10 MB */
	look(f);
	read_block(f, 25);
	assert_int_equal(calls_since(f), 1 + 20000000 / CACHE_BLOCK / FETCH_MAX);
	/* nothing more before the reader comes on, and then one for one */
	unsigned calls = calls_since(f);
	for (uint32_t nr = 25; nr < 25 + FETCH_MAX; nr++)
		read_block(f, nr);
	assert_int_equal(calls_since(f), calls);
	read_block(f, 25 + FETCH_MAX);
	assert_int_equal(calls_since(f), calls + 1);
}

static void test_no_byte_twice(void **state)
{
	struct fixture *f = *state;

	set_pace(f, 100000);
	for (uint32_t nr = 0; nr < BLOCKS; nr++)
		read_block(f, nr);
	assert_int_equal(blocks_since(f), BLOCKS);
	/* all of it was come to */
	reopen(f);
	assert_int_equal(stats_get(STAT_AHEAD_UNUSED_BYTES), f->unused);
}

/* A reader who stops leaves what is on its way, and no more; that is counted. */
static void test_bounded_and_counted(void **state)
{
	struct fixture *f = *state;
	uint32_t nr = 0;

	set_pace(f, 10000000);
	for (; nr <= 60; nr++)
		read_block(f, nr);
	uint64_t fetched = blocks_since(f);
	assert_in_range(fetched, 60 + 2 * FETCH_MAX, nr + (AHEAD_STREAMS + 1) * FETCH_MAX);
	reopen(f);
	int64_t unused = stats_get(STAT_AHEAD_UNUSED_BYTES) - f->unused;
	/* to the range that the reader was in, it came */
	assert_in_range(unused / CACHE_BLOCK, fetched - nr - FETCH_MAX, fetched - nr);
}

/* Two readers of one place. */
struct reader {
	pthread_t thread;
	struct fixture *f;
};

static void *read_all(void *arg)
{
	struct reader *reader = arg;
	struct fixture *f = reader->f;
	uint8_t *out = malloc(CACHE_BLOCK);
	struct wait wait;

	wait_init(&wait, true);
	assert_non_null(out);
	for (uint32_t nr = 0; nr < BLOCKS; nr++) {
		assert_int_equal(blob_read(f->blobs, &f->id, (uint64_t)nr * CACHE_BLOCK, out,
					   CACHE_BLOCK, &wait),
				 CACHE_BLOCK);
		assert_memory_equal(out, f->data + (size_t)nr * CACHE_BLOCK, CACHE_BLOCK);
	}
	wait_release(&wait);
	free(out);
	return NULL;
}

static void test_two_readers_one_request(void **state)
{
	struct reader readers[4];

	set_pace(*state, 50);
	for (size_t i = 0; i < ARRAY_SIZE(readers); i++) {
		readers[i].f = *state;
		assert_int_equal(pthread_create(&readers[i].thread, NULL, read_all, &readers[i]),
				 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(readers); i++)
		pthread_join(readers[i].thread, NULL);
	assert_int_equal(blocks_since(*state), BLOCKS);
}

/* Block NR, for a reader of a file of blocks FIRST … END - 1. */
static void read_of(struct fixture *f, uint32_t nr, uint32_t first, uint32_t end)
{
	const struct blob_piece piece = {
		.off = (uint64_t)nr * CACHE_BLOCK,
		.buf = f->out,
		.len = CACHE_BLOCK,
		.whole_off = (uint64_t)first * CACHE_BLOCK,
		.whole_end = (uint64_t)end * CACHE_BLOCK,
	};

	assert_int_equal(blob_read_on(f->blobs, &f->id, &piece, &f->wait), CACHE_BLOCK);
	assert_memory_equal(f->out, f->data + (size_t)nr * CACHE_BLOCK, CACHE_BLOCK);
}

static void expect(struct fixture *f, unsigned calls, uint64_t blocks)
{
	assert_int_equal(calls_since(f), calls);
	assert_int_equal(blocks_since(f), blocks);
	look(f);
}

static void test_small_files_come_whole(void **state)
{
	struct fixture *f = *state;

	set_pace(f, 100000);
	read_of(f, 100, 100, 100 + ALONG_WHOLE);
	expect(f, 1, ALONG_WHOLE);
	for (uint32_t nr = 100; nr < 100 + ALONG_WHOLE; nr++)
		read_of(f, nr, 100, 100 + ALONG_WHOLE);
	expect(f, 0, 0);
	/* whatever is read of them first: what lies before it is a range of its own */
	read_of(f, 203, 200, 206);
	expect(f, 2, 6);
	read_of(f, BLOCKS - 2, BLOCKS - 3, BLOCKS + 100);
	expect(f, 2, 3);
}

static void test_large_files_come_whole_at_a_second_miss(void **state)
{
	struct fixture *f = *state;

	set_pace(f, 100000);
	read_of(f, 100, 100, 120);
	expect(f, 1, 1);
	read_of(f, 110, 100, 120);
	expect(f, 2, 19);
	/* no more than one range would bring */
	read_of(f, 200, 200, 200 + FETCH_MAX + 1);
	read_of(f, 220, 200, 200 + FETCH_MAX + 1);
	expect(f, 2, 2);
}

static void *read_in_the_middle(void *arg)
{
	read_of(arg, 110, 100, 120);
	return NULL;
}

/* What comes along follows on the connection of what is waited for. */
static void test_what_is_waited_for_goes_first(void **state)
{
	struct fixture *f = *state;
	pthread_t reader;

	set_pace(f, 100000);
	read_of(f, 100, 100, 120);
	look(f);
	fakestore_stall(f->store, FAKE_OPEN_BLOB);
	assert_int_equal(pthread_create(&reader, NULL, read_in_the_middle, f), 0);
	fakestore_await_stalled(f->store, 1);
	for (int i = 0; i < 1000; i++)
		sched_yield();
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB) - f->calls, 1);
	fakestore_release(f->store);
	pthread_join(reader, NULL);
	expect(f, 2, 19);
}

static void test_what_lies_between_comes_along(void **state)
{
	struct fixture *f = *state;

	set_pace(f, 100000);
	read_block(f, 100);
	read_block(f, 110);
	read_block(f, 104);
	expect(f, 3, 3);
	/* 100 to 104 are half here, with it; 100 to 110 are not */
	read_block(f, 102);
	expect(f, 2, 3);
	/* all of it, and nothing outside */
	read_block(f, 107);
	expect(f, 2, 5);
	for (uint32_t nr = 100; nr <= 110; nr++)
		read_block(f, nr);
	expect(f, 0, 0);
	/* not from afar */
	read_block(f, 111 + ALONG_AROUND);
	expect(f, 1, 1);
}

/* Who goes on far (decoding what has no points) does not get all of that at once. */
static void test_far_reader(void **state)
{
	struct fixture *f = *state;
	uint8_t byte;
	const struct blob_piece piece = {.off = 0, .buf = &byte, .len = 1, .until = SIZE};

	set_pace(f, 100000);
	look(f);
	assert_int_equal(blob_read_on(f->blobs, &f->id, &piece, &f->wait), 1);
	assert_int_equal(calls_since(f), 1);
	assert_int_equal(blocks_since(f), FETCH_MAX);
}

static void test_nothing_comes_along_on_a_short_way(void **state)
{
	struct fixture *f = *state;

	read_of(f, 100, 100, 104);
	read_of(f, 102, 100, 104);
	read_block(f, 104);
	expect(f, 3, 3);
}

/* What is brought in is known to be wanted; what lies around it is not. */
static void test_nothing_comes_along_with_what_is_brought(void **state)
{
	struct fixture *f = *state;
	struct blob *blob;

	set_pace(f, 100000);
	read_block(f, 100);
	read_block(f, 104);
	expect(f, 2, 2);
	assert_int_equal(blob_hold(f->blobs, &f->id, true, &blob), 0);
	blob->brings = 1;
	read_block(f, 102);
	expect(f, 1, 1);
	blob->brings = 0;
	blob_put(blob);
	read_block(f, 101);
	expect(f, 2, 2);
}

static void test_bring(void **state)
{
	struct fixture *f = *state;
	const struct blob_piece piece = {.off = 10 * CACHE_BLOCK + 5, .len = 39 * CACHE_BLOCK};

	read_block(f, 20);
	look(f);
	assert_int_equal(blob_bring(f->blobs, &f->id, &piece, &f->wait), 39 * CACHE_BLOCK);
	/* 10 to 19, and 21 to 49; what is there is not fetched */
	assert_int_equal(calls_since(f), 2);
	assert_int_equal(blocks_since(f), 39);
	for (uint32_t nr = 10; nr < 50; nr++)
		read_block(f, nr);
	assert_int_equal(calls_since(f), 2);
	assert_int_equal(stats_get(STAT_AHEAD_BYTES), f->ahead);
}

static void test_bring_needs_sums(void **state)
{
	struct fixture *f = *state;
	const struct blob_piece piece = {.len = SIZE};
	struct cache_id sums = {.kind = CACHE_SUMS};

	digest_key(&f->digest, sums.key);
	cache_remove(f->cache, &sums);
	reopen(f);
	assert_int_equal(blob_bring(f->blobs, &f->id, &piece, &f->wait), 0);
	assert_int_equal(calls_since(f), 0);
}

static void test_parallel(void **state)
{
	struct fixture *f = *state;

	set_pace(f, 500);
	assert_int_equal(blobs_parallel(f->blobs, f->store), 1);
	set_pace(f, 10000);
	assert_in_range(blobs_parallel(f->blobs, f->store), 2, AHEAD_STREAMS - 1);
	set_pace(f, 100000);
	assert_int_equal(blobs_parallel(f->blobs, f->store), BRING_STREAMS);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_random_readers_pay_nothing),
		TEST(test_windows_grow),
		TEST(test_many_at_once_where_answers_take_long),
		TEST(test_no_byte_twice),
		TEST(test_bounded_and_counted),
		TEST(test_two_readers_one_request),
		TEST(test_small_files_come_whole),
		TEST(test_large_files_come_whole_at_a_second_miss),
		TEST(test_what_is_waited_for_goes_first),
		TEST(test_what_lies_between_comes_along),
		TEST(test_far_reader),
		TEST(test_nothing_comes_along_on_a_short_way),
		TEST(test_nothing_comes_along_with_what_is_brought),
		TEST(test_bring),
		TEST(test_bring_needs_sums),
		TEST(test_parallel),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
