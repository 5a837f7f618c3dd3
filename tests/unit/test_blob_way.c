// SPDX-License-Identifier: Apache-2.0
/*
 * blob: what nobody waits for stands back behind what somebody does, on the same way, and keeps to
 * its rate. Counted in requests, bytes and places in a queue; the rate by a clock that is played.
 */
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

#define HELD_AT ((uint64_t)9 * MIB) /* only the blob that is waited for is longer */
#define FORE	((uint64_t)10 * MIB)
#define BACK	((uint64_t)8 * MIB)
#define HOUR_MS 3600000

struct fixture {
	char dir[64];
	struct cache *cache;
	struct pool *jobs;
	struct blobs *blobs;
	struct store *store, *other;
	uint8_t *data;
	struct digest fore_digest, back_digest;
	struct blob_id fore, back;
	struct wait wait, background;
	pthread_t reader, streamer;
	uint64_t streamed;
};

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	snprintf(f->dir, sizeof(f->dir), "/tmp/regfs-way-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	assert_int_equal(cache_open(f->dir, 256 * MIB, &f->cache), 0);
	f->jobs = pool_new("jobs", 0);
	f->blobs = blobs_new(f->cache, f->jobs, 60000);
	f->blobs->yield_ms = HOUR_MS;
	f->store = fakestore_new("fake.test");
	f->other = fakestore_new("other.test");
	f->data = calloc(1, FORE);
	assert_non_null(f->data);
	fakestore_add_blob(f->store, "app", f->data, FORE, &f->fore_digest);
	fakestore_add_blob(f->store, "app", f->data, BACK, &f->back_digest);
	fakestore_add_blob(f->other, "app", f->data, BACK, NULL);
	f->fore = (struct blob_id){
		.digest = &f->fore_digest, .size = FORE, .store = f->store, .repo = "app"};
	f->back = (struct blob_id){
		.digest = &f->back_digest, .size = BACK, .store = f->store, .repo = "app"};
	wait_init(&f->wait, true);
	wait_init(&f->background, true);
	wait_set_background(&f->background);
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
	store_free(f->other);
	wait_release(&f->wait);
	wait_release(&f->background);
	free(f->data);
	nftw(f->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static void *read_fore(void *arg)
{
	struct fixture *f = arg;
	AUTO_FREE uint8_t *out = malloc(FORE);

	assert_int_equal(blob_read_raw(f->blobs, &f->fore, 0, out, FORE, &f->wait), FORE);
	return NULL;
}

/* Somebody waits for bytes that their registry keeps back. */
static void hold_fore(struct fixture *f)
{
	fakestore_stall_at(f->store, HELD_AT);
	assert_int_equal(pthread_create(&f->reader, NULL, read_fore, f), 0);
	fakestore_await_stalled(f->store, 1);
}

static void release_fore(struct fixture *f)
{
	fakestore_release(f->store);
	pthread_join(f->reader, NULL);
}

static void *stream_back(void *arg)
{
	struct fixture *f = arg;
	struct blob_stream *stream;
	const void *data;
	ssize_t n;

	assert_int_equal(blob_stream_open(f->blobs, &f->back, &f->background, &stream), 0);
	while ((n = blob_stream_read(stream, &data, &f->background)) > 0)
		f->streamed += (uint64_t)n;
	assert_int_equal(n, 0);
	blob_stream_close(stream);
	return NULL;
}

static void start_back(struct fixture *f)
{
	assert_int_equal(pthread_create(&f->streamer, NULL, stream_back, f), 0);
}

static void join_back(struct fixture *f)
{
	pthread_join(f->streamer, NULL);
	assert_int_equal(f->streamed, BACK);
}

/* Until a pass stands back. */
static void await_standing(struct fixture *f)
{
	struct way *way = way_find(f->blobs, f->back.store);
	bool standing;

	do {
		sched_yield();
		pthread_mutex_lock(&f->blobs->lock);
		standing = way->quiet.head != NULL;
		pthread_mutex_unlock(&f->blobs->lock);
	} while (!standing);
}

/* --- who goes first --- */

static void test_asks_for_nothing(void **state)
{
	struct fixture *f = *state;

	hold_fore(f);
	start_back(f);
	await_standing(f);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 1);
	assert_int_equal(fakestore_bytes(f->store), HELD_AT);
	release_fore(f);
	join_back(f);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 2);
	assert_int_equal(fakestore_bytes(f->store), FORE + BACK);
}

/* The same in the middle of a stream. */
static void test_reads_no_further(void **state)
{
	const uint64_t window = (uint64_t)PASS_WINDOW * CACHE_BLOCK;
	struct fixture *f = *state;
	struct blob_stream *stream;
	const void *data;

	assert_int_equal(blob_stream_open(f->blobs, &f->back, &f->background, &stream), 0);
	while (fakestore_bytes(f->store) < window)
		sched_yield();
	hold_fore(f);
	for (int i = 0; i < 5; i++)
		assert_int_equal(blob_stream_read(stream, &data, &f->background), CACHE_BLOCK);
	await_standing(f);
	assert_int_equal(fakestore_bytes(f->store), window + HELD_AT);
	release_fore(f);
	while (blob_stream_read(stream, &data, &f->background) > 0)
		;
	blob_stream_close(stream);
	assert_int_equal(fakestore_bytes(f->store), FORE + BACK);
}

/* Ranges count as well, and those that are checked by others. */
static void test_behind_ranges(void **state)
{
	struct fixture *f = *state;
	struct way *way = way_find(f->blobs, f->store);
	uint8_t out[10];

	way->pace.fixed = true; /* a short one, however busy the machine */
	assert_int_equal(blob_read(f->blobs, &f->fore, 0, out, 10, &f->wait), 10);
	struct cache_id id = {.kind = CACHE_BLOB};
	digest_key(&f->fore_digest, id.key);
	cache_drop(f->cache, &id, (uint32_t)(FORE / CACHE_BLOCK), 0);
	fakestore_stall(f->store, FAKE_OPEN_BLOB);
	assert_int_equal(pthread_create(&f->reader, NULL, read_fore, f), 0);
	fakestore_await_stalled(f->store, 1);
	start_back(f);
	await_standing(f);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 2);
	release_fore(f);
	join_back(f);
	assert_int_equal(blob_fetch_unverified(f->blobs, &f->fore, 0, out, 10, &f->wait), 10);
	assert_int_equal(way->awaited, 0);
}

static void test_another_way_is_free(void **state)
{
	struct fixture *f = *state;

	f->back.store = f->other;
	hold_fore(f);
	start_back(f);
	join_back(f);
	release_fore(f);
}

/* Beside a reader who never stops it comes to its end all the same. */
static void test_does_not_starve(void **state)
{
	struct fixture *f = *state;

	f->blobs->yield_ms = 1;
	hold_fore(f);
	start_back(f);
	join_back(f);
	release_fore(f);
}

/* --- when it is wanted after all --- */

static void test_hurried(void **state)
{
	struct fixture *f = *state;

	hold_fore(f);
	start_back(f);
	await_standing(f);
	wait_hurry(&f->background);
	join_back(f);
	release_fore(f);
}

static void test_joined(void **state)
{
	struct fixture *f = *state;
	uint8_t out[10];

	hold_fore(f);
	start_back(f);
	await_standing(f);
	struct wait mine;
	wait_init(&mine, true);
	assert_int_equal(blob_read_raw(f->blobs, &f->back, MIB, out, 10, &mine), 10);
	wait_release(&mine);
	join_back(f);
	release_fore(f);
}

/* --- the rate --- */

static void test_rate(void **state)
{
	const uint64_t rate = 3 * MIB;
	const int64_t end = 20 * 1000000;
	int64_t now = 5, due = 0;
	uint64_t bytes = 0;

	(void)state;
	while (now < end) {
		due = rate_due(due, now, CACHE_BLOCK, rate);
		bytes += CACHE_BLOCK;
		/* it comes late now and then, and takes its time */
		now = MAX(due, now) + (bytes / CACHE_BLOCK % 3 ? 900 : 7000);
	}
	assert_in_range(bytes, 20 * rate - rate / 50, 20 * rate + rate / 10);
	/* what was not taken for long is not made up for */
	due = rate_due(due, now + 60 * 1000000, CACHE_BLOCK, rate);
	assert_in_range(due, now + 59 * 1000000, now + 61 * 1000000);
}

static void test_rate_is_the_backgrounds(void **state)
{
	struct fixture *f = *state;
	uint8_t out[10];

	blobs_limit_background(f->blobs, (uint64_t)1 << 40);
	assert_int_equal(blob_read(f->blobs, &f->fore, 0, out, 10, &f->wait), 10);
	assert_int_equal(f->blobs->due_us, 0);
	start_back(f);
	join_back(f);
	assert_true(f->blobs->due_us > 0);
}

static void test_waits_for_its_turn(void **state)
{
	struct fixture *f = *state;

	blobs_limit_background(f->blobs, 64 * KIB);
	f->blobs->due_us = now_us() + (int64_t)HOUR_MS * 1000;
	start_back(f);
	await_standing(f);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 0);
	wait_hurry(&f->background);
	join_back(f);
}

/* --- the pace --- */

static void test_a_pace_each(void **state)
{
	struct fixture *f = *state;

	pace_latency(&way_find(f->blobs, f->store)->pace, 100000);
	pace_latency(&way_find(f->blobs, f->other)->pace, 10);
	assert_int_equal(blobs_parallel(f->blobs, f->store), BRING_STREAMS);
	assert_int_equal(blobs_parallel(f->blobs, f->other), 1);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_asks_for_nothing),
		TEST(test_reads_no_further),
		TEST(test_behind_ranges),
		TEST(test_another_way_is_free),
		TEST(test_does_not_starve),
		TEST(test_hurried),
		TEST(test_joined),
		TEST(test_rate),
		TEST(test_waits_for_its_turn),
		TEST(test_rate_is_the_backgrounds),
		TEST(test_a_pace_each),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
