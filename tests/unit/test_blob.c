// SPDX-License-Identifier: Apache-2.0
/*
 * blob: passes, ranges, raw reads and streams, over the fake store and a real cache.
 */
#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "../../src/blob_priv.h"
#include "fakestore.h"
#include "regfs/log.h"
#include "regfs/stats.h"

#define BIG_BLOCKS 80
#define BIG	   (BIG_BLOCKS * CACHE_BLOCK + 77) /* 81 blocks, more than two windows */

struct fixture {
	char dir[64];
	struct cache *cache;
	struct pool *jobs;
	struct blobs *blobs;
	struct store *store;
	struct wait wait;
	uint8_t *big;
	struct digest digest;
	struct blob_id id;
	uint8_t *out;
};

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

static void open_rooms(struct fixture *f, uint64_t cache_size)
{
	assert_int_equal(cache_open(f->dir, cache_size, &f->cache), 0);
	f->jobs = pool_new("jobs", 0);
	assert_non_null(f->jobs);
	f->blobs = blobs_new(f->cache, f->jobs, 60000);
	/* passes wait for readers as slow as a loaded machine makes them */
	f->blobs->idle_ms = 600000;
	assert_non_null(f->blobs);
}

static void close_rooms(struct fixture *f)
{
	blobs_free(f->blobs);
	pool_free(f->jobs);
	cache_close(f->cache);
}

static void fill(uint8_t *data, size_t len)
{
	uint32_t x = 12345;

	for (size_t i = 0; i < len; i++) {
		x = x * 1664525 + 1013904223;
		data[i] = x >> 24;
	}
}

static struct fixture *setup_sized(uint64_t cache_size)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const char *tmp = getenv("TMPDIR");

	assert_non_null(f);
	snprintf(f->dir, sizeof(f->dir), "%s/regfs-blob-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(f->dir));
	open_rooms(f, cache_size);
	f->store = fakestore_new("fake.test");
	f->big = malloc(BIG);
	f->out = malloc(BIG + 1);
	assert_non_null(f->big);
	assert_non_null(f->out);
	fill(f->big, BIG);
	fakestore_add_blob(f->store, "team/app", f->big, BIG, &f->digest);
	f->id = (struct blob_id){
		.digest = &f->digest, .size = BIG, .store = f->store, .repo = "team/app"};
	wait_init(&f->wait, true);
	return f;
}

static int setup(void **state)
{
	*state = setup_sized(256 * MIB);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	close_rooms(f);
	assert_int_equal(fakestore_streams(f->store), 0);
	store_free(f->store);
	wait_release(&f->wait);
	free(f->big);
	free(f->out);
	nftw(f->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static struct cache_id blocks_id(const struct digest *digest)
{
	struct cache_id id = {.kind = CACHE_BLOB};

	digest_key(digest, id.key);
	return id;
}

/* A job that published its last may still be on its way out. */
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

/* Evicts all blocks. */
static void forget_blocks(struct fixture *f)
{
	struct cache_id id = blocks_id(&f->digest);

	settle(f);
	cache_drop(f->cache, &id, BIG_BLOCKS + 1, 0);
}

static ssize_t read_at(struct fixture *f, uint64_t off, size_t len)
{
	memset(f->out, 0, len);
	return blob_read(f->blobs, &f->id, off, f->out, len, &f->wait);
}

static ssize_t read_raw_at(struct fixture *f, uint64_t off, size_t len)
{
	memset(f->out, 0, len);
	return blob_read_raw(f->blobs, &f->id, off, f->out, len, &f->wait);
}

static void check_read(struct fixture *f, uint64_t off, size_t len)
{
	assert_int_equal(read_at(f, off, len), len);
	assert_memory_equal(f->out, f->big + off, len);
}

/* A read in another thread. */
struct reader {
	pthread_t thread;
	struct fixture *f;
	struct wait wait;
	uint64_t off;
	size_t len;
	bool raw;
	uint8_t *out;
	ssize_t result;
};

static void *reader_main(void *arg)
{
	struct reader *r = arg;

	r->result = (r->raw ? blob_read_raw : blob_read)(r->f->blobs, &r->f->id, r->off, r->out,
							 r->len, &r->wait);
	return NULL;
}

static void reader_start(struct reader *r, struct fixture *f, uint64_t off, size_t len, bool raw)
{
	*r = (struct reader){.f = f, .off = off, .len = len, .raw = raw};
	r->out = calloc(1, len);
	assert_non_null(r->out);
	wait_init(&r->wait, true);
	assert_int_equal(pthread_create(&r->thread, NULL, reader_main, r), 0);
}

static ssize_t reader_join(struct reader *r)
{
	pthread_join(r->thread, NULL);
	if (r->result > 0)
		assert_memory_equal(r->out, r->f->big + r->off, r->result);
	wait_release(&r->wait);
	free(r->out);
	return r->result;
}

static void check_stream(struct fixture *f, struct blob_stream *stream, uint64_t from)
{
	const void *data;
	ssize_t n;

	while ((n = blob_stream_read(stream, &data, &f->wait)) > 0) {
		assert_memory_equal(data, f->big + from, n);
		from += n;
	}
	assert_int_equal(n, 0);
	assert_int_equal(from, BIG);
	assert_int_equal(blob_stream_read(stream, &data, &f->wait), 0);
}

/* --- passes and ranges --- */

static void test_pass_once(void **state)
{
	struct fixture *f = *state;
	int64_t passes = stats_get(STAT_PASSES);

	check_read(f, 5 * CACHE_BLOCK - 100, 300);
	check_read(f, 0, BIG);
	assert_int_equal(read_at(f, BIG - 7, 100), 7);
	assert_memory_equal(f->out, f->big + BIG - 7, 7);
	assert_int_equal(read_at(f, BIG, 1), 0);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 1);
	assert_int_equal(fakestore_bytes(f->store), BIG);
	assert_int_equal(stats_get(STAT_PASSES), passes + 1);
}

/* A digest that nobody found, made out of that of a blob that is cached, names no blob. */
static void test_made_up_digest(void **state)
{
	struct fixture *f = *state;
	struct digest made_up = {.algo = DIGEST_SHA512};

	check_read(f, 0, BIG);
	memcpy(made_up.bytes, f->digest.bytes, DIGEST_KEY_LEN);
	fakestore_add_wrong_blob(f->store, f->id.repo, &made_up, f->big, BIG);
	f->id.digest = &made_up;
	assert_int_equal(read_at(f, 0, BIG), -EIO);
	f->id.digest = &f->digest;
	check_read(f, 0, BIG);
	assert_int_equal(fakestore_bytes(f->store), 2 * BIG);
}

static void test_ranges_after_pass(void **state)
{
	struct fixture *f = *state;

	check_read(f, 0, 1);
	forget_blocks(f);
	check_read(f, 3 * CACHE_BLOCK + 5, 2 * CACHE_BLOCK);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 2);
	assert_int_equal(fakestore_bytes(f->store), BIG + 3 * CACHE_BLOCK);
	/* those are cached now, and those around them are not */
	check_read(f, 3 * CACHE_BLOCK, 3 * CACHE_BLOCK);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 2);
	check_read(f, 2 * CACHE_BLOCK, 2 * CACHE_BLOCK);
	assert_int_equal(fakestore_bytes(f->store), BIG + 4 * CACHE_BLOCK);
}

static void test_sums_survive(void **state)
{
	struct fixture *f = *state;

	check_read(f, 0, 1);
	close_rooms(f);
	open_rooms(f, 256 * MIB);
	forget_blocks(f);
	check_read(f, BIG - 10, 10);
	assert_int_equal(fakestore_bytes(f->store), BIG + 77);
}

static void test_sequential_reads_ahead(void **state)
{
	struct fixture *f = *state;

	check_read(f, 0, 1);
	forget_blocks(f);
	for (uint64_t off = 0; off < BIG; off += CACHE_BLOCK)
		check_read(f, off, MIN(CACHE_BLOCK, BIG - off));
	assert_int_equal(fakestore_bytes(f->store), 2 * BIG);
	assert_in_range(fakestore_calls(f->store, FAKE_OPEN_BLOB), 1 + 3, 1 + 7);
}

static void test_small_blob(void **state)
{
	struct fixture *f = *state;
	struct digest digest;
	struct blob_id id = f->id;

	fakestore_add_blob(f->store, "team/app", f->big, 200000, &digest);
	id.digest = &digest;
	id.size = 200000;
	assert_int_equal(blob_read(f->blobs, &id, 150000, f->out, 100000, &f->wait), 50000);
	assert_memory_equal(f->out, f->big + 150000, 50000);
	assert_int_equal(blob_read(f->blobs, &id, 0, f->out, 200000, &f->wait), 200000);
	assert_memory_equal(f->out, f->big, 200000);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 1);
}

static void test_empty_blob(void **state)
{
	struct fixture *f = *state;
	struct digest digest;
	struct blob_id id = {.digest = &digest, .store = f->store, .repo = "team/app"};
	AUTO_BUF struct buf bytes = BUF_INIT(10);

	digest_of(DIGEST_SHA256, "", 0, &digest);
	assert_int_equal(blob_get(f->blobs, &id, 10, &bytes, &f->wait), 0);
	assert_int_equal(bytes.len, 0);
	f->blobs->retry_ms = 0;
	id.digest = &f->digest;
	assert_int_equal(blob_get(f->blobs, &id, 10, &bytes, &f->wait), -EIO);
}

static void test_single_flight(void **state)
{
	struct fixture *f = *state;
	struct reader readers[4];

	fakestore_stall_at(f->store, CACHE_BLOCK);
	for (size_t i = 0; i < ARRAY_SIZE(readers); i++)
		reader_start(&readers[i], f, i * 1000000, 300000, i % 2);
	fakestore_await_stalled(f->store, 1);
	fakestore_release(f->store);
	for (size_t i = 0; i < ARRAY_SIZE(readers); i++)
		assert_int_equal(reader_join(&readers[i]), 300000);
	assert_int_equal(fakestore_bytes(f->store), BIG);

	forget_blocks(f);
	fakestore_stall(f->store, FAKE_OPEN_BLOB);
	for (size_t i = 0; i < ARRAY_SIZE(readers); i++)
		reader_start(&readers[i], f, 1000, 100, i % 2);
	fakestore_await_stalled(f->store, 1);
	fakestore_release(f->store);
	for (size_t i = 0; i < ARRAY_SIZE(readers); i++)
		assert_int_equal(reader_join(&readers[i]), 100);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 2);
	assert_int_equal(fakestore_bytes(f->store), BIG + CACHE_BLOCK);
}

/* What another request brings already is not asked for again. */
static void test_overlapping_ranges(void **state)
{
	struct fixture *f = *state;
	struct reader a, b;

	check_read(f, 0, 1);
	forget_blocks(f);
	fakestore_stall(f->store, FAKE_OPEN_BLOB);
	reader_start(&a, f, 10 * CACHE_BLOCK, 100, false);
	fakestore_await_stalled(f->store, 1);
	reader_start(&b, f, 5 * CACHE_BLOCK, 6 * CACHE_BLOCK, false);
	fakestore_await_stalled(f->store, 2);
	fakestore_release(f->store);
	assert_int_equal(reader_join(&a), 100);
	assert_int_equal(reader_join(&b), 6 * CACHE_BLOCK);
	assert_int_equal(fakestore_bytes(f->store), BIG + 6 * CACHE_BLOCK);
}

/* --- what may go wrong --- */

static void test_wrong_digest(void **state)
{
	struct fixture *f = *state;
	int64_t mismatches = stats_get(STAT_DIGEST_MISMATCHES);
	struct cache_info info;

	fakestore_corrupt(f->store, BIG / 2, 2);
	f->blobs->retry_ms = 60000;
	assert_int_equal(read_at(f, 0, 10), -EIO);
	cache_info(f->cache, &info);
	assert_int_equal(info.blocks, 0);
	assert_int_equal(stats_get(STAT_DIGEST_MISMATCHES), mismatches + 1);
	/* no storm: the failure is repeated for a while, not tried again */
	assert_int_equal(read_at(f, 0, 10), -EIO);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 1);
}

static void test_wrong_digest_is_not_for_ever(void **state)
{
	struct fixture *f = *state;

	f->blobs->retry_ms = 0;
	fakestore_corrupt(f->store, BIG / 2, 1);
	assert_int_equal(read_at(f, 0, 10), -EIO);
	check_read(f, 0, BIG);
}

static void test_cut_short(void **state)
{
	struct fixture *f = *state;

	f->blobs->retry_ms = 0;
	fakestore_end_at(f->store, BIG - 1);
	assert_int_equal(read_at(f, 0, 10), -EIO);
	fakestore_end_at(f->store, UINT64_MAX);
	check_read(f, 0, BIG);
}

static void test_wrong_size(void **state)
{
	struct fixture *f = *state;
	struct blob_id id = f->id;

	check_read(f, 0, 1);
	forget_blocks(f);
	id.size = BIG + 5;
	assert_int_equal(blob_read(f->blobs, &id, 0, f->out, 10, &f->wait), -EIO);
	check_read(f, 0, BIG);
}

static void test_failed_pass_resumes(void **state)
{
	struct fixture *f = *state;

	f->blobs->retry_ms = 0;
	fakestore_fail_at(f->store, 10 * CACHE_BLOCK, -ETIMEDOUT);
	assert_int_equal(read_at(f, 0, 10), -ETIMEDOUT);
	fakestore_fail_at(f->store, 0, 0);
	/* not by one that may not wait */
	struct wait quick;
	wait_init(&quick, false);
	assert_int_equal(blob_read(f->blobs, &f->id, 0, f->out, 10, &quick), -EWOULDBLOCK);
	wait_release(&quick);
	settle(f);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 1);
	check_read(f, 0, BIG);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 2);
	assert_int_equal(fakestore_bytes(f->store), BIG);
}

/* What one repository refuses, another may give: to its own readers, at once. */
static void test_other_source_takes_over(void **state)
{
	struct fixture *f = *state;
	struct blob_id other = f->id;
	struct blob_stream *stream;
	struct reader a;

	fakestore_add_blob(f->store, "team/copy", f->big, BIG, NULL);
	fakestore_remove_blob(f->store, "team/app", &f->digest);
	other.repo = "team/copy";
	fakestore_stall(f->store, FAKE_OPEN_BLOB);
	reader_start(&a, f, 0, 10, false);
	fakestore_await_stalled(f->store, 1);
	assert_int_equal(blob_stream_open(f->blobs, &other, &f->wait, &stream), 0);
	fakestore_release(f->store);
	assert_int_equal(reader_join(&a), -ENOENT);
	check_stream(f, stream, 0);
	blob_stream_close(stream);
}

/* What comes to nothing from one registry, another one gives: to its own readers, and to those who
 * waited. */
static void test_other_registry_takes_over(void **state)
{
	struct fixture *f = *state;
	struct store *other = fakestore_new("other.test");
	struct blob_id id = f->id;
	struct reader slow;

	f->blobs->slow_ms = 1;
	id.store = other;
	fakestore_add_blob(other, "team/copy", f->big, BIG, NULL);
	id.repo = "team/copy";
	fakestore_stall_at(f->store, 2 * CACHE_BLOCK + 5);
	for (int ranges = 0; ranges < 2; ranges++) {
		reader_start(&slow, f, 2 * CACHE_BLOCK, CACHE_BLOCK, ranges);
		fakestore_await_stalled(f->store, 1);
		assert_int_equal(
			blob_read(f->blobs, &id, 3 * CACHE_BLOCK - 10, f->out, 10, &f->wait), 10);
		assert_memory_equal(f->out, f->big + 3 * CACHE_BLOCK - 10, 10);
		assert_int_equal(reader_join(&slow), CACHE_BLOCK);
		settle(f);
		forget_blocks(f);
	}
	close_rooms(f);
	open_rooms(f, 256 * MIB);
	store_free(other);
}

static void test_failure_is_its_sources(void **state)
{
	struct fixture *f = *state;
	struct blob_id other = f->id;

	fakestore_add_blob(f->store, "team/copy", f->big, BIG, NULL);
	fakestore_remove_blob(f->store, "team/app", &f->digest);
	other.repo = "team/copy";
	f->blobs->retry_ms = 60000;
	assert_int_equal(read_at(f, 0, 10), -ENOENT);
	assert_int_equal(read_at(f, 0, 10), -ENOENT);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 1);
	assert_int_equal(blob_read(f->blobs, &other, 0, f->out, 10, &f->wait), 10);
}

static void test_wrong_range(void **state)
{
	struct fixture *f = *state;
	struct cache_id id = blocks_id(&f->digest);

	check_read(f, 0, 1);
	forget_blocks(f);
	fakestore_corrupt(f->store, 7 * CACHE_BLOCK + 1, 1);
	check_read(f, 7 * CACHE_BLOCK, 10);
	forget_blocks(f);
	fakestore_corrupt(f->store, 7 * CACHE_BLOCK + 1, UINT_MAX);
	assert_int_equal(read_at(f, 6 * CACHE_BLOCK, 2 * CACHE_BLOCK), -EIO);
	fakestore_corrupt(f->store, 0, 0);
	assert_true(cache_has(f->cache, &id, 6));
	assert_false(cache_has(f->cache, &id, 7));
	check_read(f, 7 * CACHE_BLOCK, 10);
}

static void test_range_errors(void **state)
{
	struct fixture *f = *state;

	check_read(f, 0, 1);
	forget_blocks(f);
	fakestore_fail(f->store, FAKE_OPEN_BLOB, -ECONNREFUSED);
	assert_int_equal(read_at(f, 0, 10), -ECONNREFUSED);
	fakestore_fail(f->store, FAKE_OPEN_BLOB, 0);
	fakestore_end_at(f->store, 100);
	assert_int_equal(read_at(f, 0, 10), -EIO);
	fakestore_end_at(f->store, UINT64_MAX);
	check_read(f, 0, 10);
}

/* --- waiting --- */

static void test_would_block(void **state)
{
	struct fixture *f = *state;
	struct wait quick;

	wait_init(&quick, false);
	assert_int_equal(blob_read(f->blobs, &f->id, 0, f->out, 10, &quick), -EWOULDBLOCK);
	assert_int_equal(blob_read_raw(f->blobs, &f->id, 0, f->out, 10, &quick), -EWOULDBLOCK);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 0);
	check_read(f, 0, BIG);
	assert_int_equal(blob_read(f->blobs, &f->id, 0, f->out, BIG, &quick), BIG);
	assert_memory_equal(f->out, f->big, BIG);
	forget_blocks(f);
	assert_int_equal(blob_read(f->blobs, &f->id, 0, f->out, 10, &quick), -EWOULDBLOCK);
	settle(f);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 1);
	wait_release(&quick);
}

static void test_interrupt(void **state)
{
	struct fixture *f = *state;
	struct reader a, b;

	fakestore_stall_at(f->store, 3 * CACHE_BLOCK);
	reader_start(&a, f, 0, 10, false);
	reader_start(&b, f, BIG - 10, 10, true);
	fakestore_await_stalled(f->store, 1);
	wait_cancel(&a.wait);
	assert_int_equal(reader_join(&a), -EINTR);
	fakestore_release(f->store);
	assert_int_equal(reader_join(&b), 10);

	forget_blocks(f);
	fakestore_stall(f->store, FAKE_OPEN_BLOB);
	reader_start(&a, f, 0, 10, false);
	fakestore_await_stalled(f->store, 1);
	wait_cancel(&a.wait);
	assert_int_equal(reader_join(&a), -EINTR);
	fakestore_release(f->store);
	check_read(f, 0, 10);
}

static void test_pause_and_resume(void **state)
{
	struct fixture *f = *state;

	fakestore_stall_at(f->store, 10 * CACHE_BLOCK);
	assert_int_equal(read_raw_at(f, 0, 10), 10);
	fakestore_await_stalled(f->store, 1);
	pthread_mutex_lock(&f->blobs->lock);
	f->blobs->idle_ms = 0;
	pthread_mutex_unlock(&f->blobs->lock);
	fakestore_release(f->store);
	/* nobody wants it: its stream is closed */
	while (fakestore_streams(f->store) > 0)
		sched_yield();
	assert_int_equal(fakestore_bytes(f->store), 11 * CACHE_BLOCK);
	check_read(f, 0, BIG);
	assert_int_equal(fakestore_bytes(f->store), BIG);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 2);
}

static void test_free_ends_passes(void **state)
{
	struct fixture *f = *state;

	fakestore_stall_at(f->store, 10 * CACHE_BLOCK);
	assert_int_equal(read_raw_at(f, 0, 10), 10);
	fakestore_await_stalled(f->store, 1);
	/* teardown frees the blobs while it stalls */
}

/* --- raw --- */

static void test_raw_streams(void **state)
{
	struct fixture *f = *state;
	struct reader last;

	fakestore_stall_at(f->store, BIG - 20);
	reader_start(&last, f, BIG - 50, 10, true);
	fakestore_await_stalled(f->store, 1);
	assert_int_equal(read_raw_at(f, 100, 3 * CACHE_BLOCK), 3 * CACHE_BLOCK);
	assert_memory_equal(f->out, f->big + 100, 3 * CACHE_BLOCK);
	fakestore_release(f->store);
	assert_int_equal(reader_join(&last), 10);
	assert_int_equal(read_raw_at(f, 0, BIG + 1), BIG);
	assert_memory_equal(f->out, f->big, BIG);
	assert_int_equal(fakestore_bytes(f->store), BIG);
}

static void test_raw_never_to_a_wrong_end(void **state)
{
	struct fixture *f = *state;

	fakestore_stall_at(f->store, BIG - 20);
	fakestore_corrupt(f->store, 5, 1);
	assert_int_equal(read_raw_at(f, 0, 10), 10);
	fakestore_release(f->store);
	assert_int_equal(read_raw_at(f, 0, BIG), -EIO);
	assert_int_equal(read_raw_at(f, BIG - 1, 1), -EIO);
}

/* Who has the beginning of a wrong try does not get the end of a right one. */
static void test_raw_begins_anew(void **state)
{
	struct fixture *f = *state;
	struct blob_raw before, after;

	f->blobs->retry_ms = 0;
	fakestore_stall_at(f->store, BIG - 20);
	fakestore_corrupt(f->store, 5, 1);
	blob_raw_state(f->blobs, &f->id, &before);
	assert_false(before.judged);
	assert_int_equal(read_raw_at(f, 0, 10), 10);
	fakestore_release(f->store);
	assert_int_equal(read_raw_at(f, BIG - 1, 1), -EIO);
	/* by now it would be right */
	assert_int_equal(read_raw_at(f, BIG - 1, 1), -EIO);
	assert_int_equal(read_raw_at(f, CACHE_BLOCK, 10), -EIO);
	blob_raw_state(f->blobs, &f->id, &after);
	assert_int_not_equal(before.times, after.times);
	assert_int_equal(read_raw_at(f, 0, BIG), BIG);
	assert_memory_equal(f->out, f->big, BIG);
	assert_int_equal(read_raw_at(f, BIG - 1, 1), 1);
	/* the last bytes may be had a moment before the pass that judged them has ended */
	settle(f);
	blob_raw_state(f->blobs, &f->id, &before);
	assert_true(before.judged);
	assert_int_equal(before.times, after.times);
}

/* A try that nobody came to the end of is never judged. */
static void test_raw_never_judged(void **state)
{
	struct fixture *f = *state;
	struct blob_raw raw;
	struct blob *blob;

	fakestore_stall_at(f->store, 10 * CACHE_BLOCK);
	assert_int_equal(read_raw_at(f, 0, 10), 10);
	fakestore_await_stalled(f->store, 1);
	pthread_mutex_lock(&f->blobs->lock);
	f->blobs->idle_ms = 0;
	pthread_mutex_unlock(&f->blobs->lock);
	fakestore_release(f->store);
	settle(f);
	for (uint64_t size = 1; size < BLOBS_IDLE_MAX + 2; size++) {
		struct blob_id other = f->id;

		other.size = size;
		assert_int_equal(blob_hold(f->blobs, &other, true, &blob), 0);
		blob_put(blob);
	}
	blob_raw_state(f->blobs, &f->id, &raw);
	assert_int_equal(raw.times, 1);
	/* what was given may have been right */
	assert_int_equal(read_raw_at(f, BIG - 10, 10), 10);
}

/* --- streams --- */

static void test_stream(void **state)
{
	struct fixture *f = *state;
	struct blob_stream *a, *b;

	assert_int_equal(blob_stream_open(f->blobs, &f->id, &f->wait, &a), 0);
	check_stream(f, a, 0);
	blob_stream_close(a);
	/* every block was kept, the first ones too */
	struct cache_id id = blocks_id(&f->digest);
	for (uint32_t i = 0; i <= BIG_BLOCKS; i++)
		assert_true(cache_has(f->cache, &id, i));
	/* from the cache now, whole or in part */
	assert_int_equal(blob_stream_open(f->blobs, &f->id, &f->wait, &b), 0);
	check_stream(f, b, 0);
	blob_stream_close(b);
	assert_int_equal(fakestore_bytes(f->store), BIG);
	cache_drop(f->cache, &id, 20, 0);
	assert_int_equal(blob_stream_open(f->blobs, &f->id, &f->wait, &b), 0);
	check_stream(f, b, 0);
	blob_stream_close(b);
}

static void test_stream_of_wrong_blob(void **state)
{
	struct fixture *f = *state;
	struct blob_stream *stream;
	const void *data;
	ssize_t n;
	size_t have = 0;

	fakestore_corrupt(f->store, BIG - 1, 1);
	assert_int_equal(blob_stream_open(f->blobs, &f->id, &f->wait, &stream), 0);
	while ((n = blob_stream_read(stream, &data, &f->wait)) > 0)
		have += n;
	assert_int_equal(have, BIG);
	assert_int_equal(n, -EIO);
	blob_stream_close(stream);
}

static void test_stream_holds_the_pass_back(void **state)
{
	struct fixture *f = *state;
	struct blob_stream *stream;

	assert_int_equal(blob_stream_open(f->blobs, &f->id, &f->wait, &stream), 0);
	assert_int_equal(read_raw_at(f, (PASS_WINDOW - 1) * CACHE_BLOCK, 5), 5);
	for (int i = 0; i < 1000; i++)
		sched_yield();
	assert_int_equal(fakestore_bytes(f->store), PASS_WINDOW * CACHE_BLOCK);
	check_stream(f, stream, 0);
	blob_stream_close(stream);
}

static void test_lazy_stream_holds_nobody_up_for_ever(void **state)
{
	struct fixture *f = *state;
	struct blob_stream *stream;

	f->blobs->timeout_ms = 1;
	assert_int_equal(blob_stream_open(f->blobs, &f->id, &f->wait, &stream), 0);
	check_read(f, BIG - 10, 10);
	check_stream(f, stream, 0);
	blob_stream_close(stream);
	assert_int_equal(fakestore_bytes(f->store), BIG);
}

static void test_two_streams_one_pass(void **state)
{
	struct fixture *f = *state;
	struct blob_stream *a, *b;
	const void *data;

	assert_int_equal(blob_stream_open(f->blobs, &f->id, &f->wait, &a), 0);
	for (uint32_t i = 0; i < 10; i++)
		assert_int_equal(blob_stream_read(a, &data, &f->wait), CACHE_BLOCK);
	assert_int_equal(blob_stream_open(f->blobs, &f->id, &f->wait, &b), 0);
	assert_int_equal(blob_stream_read(b, &data, &f->wait), CACHE_BLOCK);
	blob_stream_close(b);
	check_stream(f, a, 10 * CACHE_BLOCK);
	blob_stream_close(a);
	assert_int_equal(fakestore_bytes(f->store), BIG);
}

/* --- blob_get --- */

static void test_get(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf bytes = BUF_INIT(2 * MIB);
	struct cache_id file = {.kind = CACHE_MANIFEST};
	struct digest digest;
	struct blob_id id = f->id;

	fakestore_add_blob(f->store, "team/app", "{\"a\": 1}", 8, &digest);
	id.digest = &digest;
	id.size = 8;
	assert_int_equal(blob_get(f->blobs, &id, 7, &bytes, &f->wait), -EFBIG);
	assert_int_equal(blob_get(f->blobs, &id, 8, &bytes, &f->wait), 0);
	assert_string_equal(bytes.data, "{\"a\": 1}");
	buf_clear(&bytes);
	assert_int_equal(blob_get(f->blobs, &id, 8, &bytes, &f->wait), 0);
	assert_string_equal(bytes.data, "{\"a\": 1}");
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 1);
	/* a file that is not what its name says is not believed */
	digest_key(&digest, file.key);
	assert_int_equal(cache_put(f->cache, &file, "{\"a\": 2}", 8), 0);
	buf_clear(&bytes);
	assert_int_equal(blob_get(f->blobs, &id, 8, &bytes, &f->wait), 0);
	assert_string_equal(bytes.data, "{\"a\": 1}");
}

static void test_get_large(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf bytes = BUF_INIT(BIG);

	assert_int_equal(blob_get(f->blobs, &f->id, BIG, &bytes, &f->wait), 0);
	assert_int_equal(bytes.len, BIG);
	assert_memory_equal(bytes.data, f->big, BIG);
}

/* --- a cache that keeps nothing --- */

static int setup_no_cache(void **state)
{
	*state = setup_sized(1);
	return 0;
}

/* Room for a few blocks only. */
static int setup_tiny_cache(void **state)
{
	*state = setup_sized(2 * MIB);
	return 0;
}

static void test_no_cache(void **state)
{
	struct fixture *f = *state;
	struct blob_stream *stream;

	assert_int_equal(blob_stream_open(f->blobs, &f->id, &f->wait, &stream), 0);
	check_stream(f, stream, 0);
	blob_stream_close(stream);
	check_read(f, 1000, 3 * CACHE_BLOCK);
	/* a sequential reader costs each block once all the same */
	uint64_t before = fakestore_bytes(f->store);
	for (uint64_t off = 0; off < BIG; off += 65536)
		check_read(f, off, MIN(65536, BIG - off));
	assert_in_range(fakestore_bytes(f->store) - before, 1, BIG);
}

static void test_no_cache_raw(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(read_raw_at(f, 0, 10), 10);
	while (fakestore_bytes(f->store) < PASS_WINDOW * CACHE_BLOCK)
		sched_yield();
	for (int i = 0; i < 1000; i++)
		sched_yield();
	/* the pass keeps step with its reader */
	assert_int_equal(fakestore_bytes(f->store), PASS_WINDOW * CACHE_BLOCK);
	for (uint64_t off = 0; off < BIG; off += 65536) {
		size_t len = MIN(65536, BIG - off);
		assert_int_equal(read_raw_at(f, off, len), len);
		assert_memory_equal(f->out, f->big + off, len);
	}
	/* only its last window came twice */
	assert_in_range(fakestore_bytes(f->store), BIG, BIG + PASS_WINDOW * CACHE_BLOCK);
}

static void test_tiny_cache(void **state)
{
	struct fixture *f = *state;
	struct blob_stream *early, *late;
	const void *data;

	assert_int_equal(blob_stream_open(f->blobs, &f->id, &f->wait, &early), 0);
	for (uint32_t i = 0; i < 2 * PASS_WINDOW; i++)
		assert_int_equal(blob_stream_read(early, &data, &f->wait), CACHE_BLOCK);
	/* what this one has missed is no longer in the window, nor (all of it) in the cache */
	assert_int_equal(blob_stream_open(f->blobs, &f->id, &f->wait, &late), 0);
	check_stream(f, early, 2 * PASS_WINDOW * CACHE_BLOCK);
	check_stream(f, late, 0);
	blob_stream_close(early);
	blob_stream_close(late);
	check_read(f, 0, BIG);
	assert_int_equal(read_raw_at(f, 0, BIG), BIG);
	assert_memory_equal(f->out, f->big, BIG);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_pass_once),
		TEST(test_made_up_digest),
		TEST(test_ranges_after_pass),
		TEST(test_sums_survive),
		TEST(test_sequential_reads_ahead),
		TEST(test_small_blob),
		TEST(test_empty_blob),
		TEST(test_single_flight),
		TEST(test_overlapping_ranges),
		TEST(test_wrong_digest),
		TEST(test_wrong_digest_is_not_for_ever),
		TEST(test_cut_short),
		TEST(test_wrong_size),
		TEST(test_failed_pass_resumes),
		TEST(test_other_source_takes_over),
		TEST(test_other_registry_takes_over),
		TEST(test_failure_is_its_sources),
		TEST(test_wrong_range),
		TEST(test_range_errors),
		TEST(test_would_block),
		TEST(test_interrupt),
		TEST(test_pause_and_resume),
		TEST(test_free_ends_passes),
		TEST(test_raw_streams),
		TEST(test_raw_never_to_a_wrong_end),
		TEST(test_raw_begins_anew),
		TEST(test_raw_never_judged),
		TEST(test_stream),
		TEST(test_stream_of_wrong_blob),
		TEST(test_stream_holds_the_pass_back),
		TEST(test_lazy_stream_holds_nobody_up_for_ever),
		TEST(test_two_streams_one_pass),
		TEST(test_get),
		TEST(test_get_large),
		cmocka_unit_test_setup_teardown(test_no_cache, setup_no_cache, teardown),
		cmocka_unit_test_setup_teardown(test_no_cache_raw, setup_no_cache, teardown),
		cmocka_unit_test_setup_teardown(test_tiny_cache, setup_tiny_cache, teardown),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
