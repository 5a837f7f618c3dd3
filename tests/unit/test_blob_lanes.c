// SPDX-License-Identifier: Apache-2.0
/*
 * blob: a pass over a long way, in parts. Counted in requests and bytes; how long the way is, the
 * tests say.
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

#define PART  ((size_t)2 * CACHE_BLOCK)
#define PARTS 13
#define SIZE  (12 * PART + 77)
#define FAR   100000 /* µs */
#define NEAR  1000
#define WIDE  (1000 * MIB) /* bytes a second */
#define MOST  6		   /* at once */
#define FEW   3		   /* over a narrow way */

struct request {
	uint64_t off, len;
};

struct fixture {
	char dir[64];
	struct cache *cache;
	struct pool *jobs;
	struct blobs *blobs;
	struct store *store;
	const struct store_ops *plain;
	struct way *way;
	struct wait wait, background;
	uint8_t *data, *out;
	struct digest digest, other_digest;
	struct blob_id id, other;
	pthread_t reader;
	ssize_t result;
	struct wait *reader_wait;
};

/* The store between the room and the fake one: it keeps what was asked for, and refuses. */
static struct {
	pthread_mutex_t lock;
	const struct store_ops *plain;
	struct request asked[64];
	unsigned n;
	bool unranged;
	uint64_t refused; /* the part there is, once */
	int error;
} played = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int played_open_blob(struct store *store, const char *repo, const struct digest *digest,
			    uint64_t off, uint64_t len, struct store_stream **ret,
			    struct wait *wait)
{
	pthread_mutex_lock(&played.lock);
	if (played.n < ARRAY_SIZE(played.asked))
		played.asked[played.n++] = (struct request){.off = off, .len = len};
	int error = off == played.refused ? played.error : 0;
	if (error)
		played.error = 0;
	pthread_mutex_unlock(&played.lock);
	if (error)
		return error;
	int r = played.plain->open_blob(store, repo, digest, off, len, ret, wait);
	if (r == 0)
		(*ret)->unranged = played.unranged && len != UINT64_MAX;
	return r;
}

static unsigned requests(void)
{
	pthread_mutex_lock(&played.lock);
	unsigned n = played.n;
	pthread_mutex_unlock(&played.lock);
	return n;
}

/* The request of that number. Parts may still be under way where a pass has failed. */
static struct request asked(unsigned number)
{
	pthread_mutex_lock(&played.lock);
	struct request request = played.asked[number];
	pthread_mutex_unlock(&played.lock);
	return request;
}

/* The range that byte OFF was asked for with last. */
static struct request last_over(uint64_t off)
{
	struct request found = {0};

	for (unsigned i = 0; i < requests(); i++) {
		struct request request = asked(i);
		if (request.off <= off && off - request.off < request.len)
			found = request;
	}
	return found;
}

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

static void far(struct fixture *f, int64_t us)
{
	f->way->pace.fixed = true;
	atomic_store(&f->way->pace.latency_us, us);
}

static int setup(void **state)
{
	static struct store_ops ops;
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	snprintf(f->dir, sizeof(f->dir), "/tmp/regfs-lanes-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	assert_int_equal(cache_open(f->dir, 256 * MIB, &f->cache), 0);
	f->jobs = pool_new("jobs", 0);
	f->blobs = blobs_new(f->cache, f->jobs, 60000);
	f->blobs->lane_part = PART;
	f->blobs->retry_ms = 0;
	f->store = fakestore_new("fake.test");
	f->data = malloc(SIZE);
	f->out = malloc(SIZE);
	assert_true(f->data && f->out);
	for (size_t i = 0; i < SIZE; i++)
		f->data[i] = (uint8_t)(i * 2654435761u >> 13);
	fakestore_add_blob(f->store, "app", f->data, SIZE, &f->digest);
	fakestore_add_blob(f->store, "app", f->data, SIZE - 1, &f->other_digest);
	f->id = (struct blob_id){
		.digest = &f->digest, .size = SIZE, .store = f->store, .repo = "app"};
	f->other = (struct blob_id){
		.digest = &f->other_digest, .size = SIZE - 1, .store = f->store, .repo = "app"};
	wait_init(&f->wait, true);
	wait_init(&f->background, true);
	wait_set_background(&f->background);
	f->plain = played.plain = f->store->ops;
	ops = *f->plain;
	ops.open_blob = played_open_blob;
	f->store->ops = &ops;
	played.n = 0;
	played.unranged = false;
	played.error = 0;
	f->way = way_find(f->blobs, f->store);
	f->way->parts_rate = WIDE;
	far(f, FAR);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	blobs_free(f->blobs);
	pool_free(f->jobs);
	cache_close(f->cache);
	assert_int_equal(fakestore_streams(f->store), 0);
	store_free(f->store);
	wait_release(&f->wait);
	wait_release(&f->background);
	free(f->data);
	free(f->out);
	nftw(f->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static ssize_t read_all(struct fixture *f, const struct blob_id *id, struct wait *wait)
{
	memset(f->out, 0, SIZE);
	return blob_read(f->blobs, id, 0, f->out, id->size, wait);
}

static void check_all(struct fixture *f, const struct blob_id *id)
{
	assert_int_equal(read_all(f, id, &f->wait), id->size);
	assert_memory_equal(f->out, f->data, id->size);
}

/* Until so many parts are held. The last of them goes with its job, which may end after its pass.
 */
static void await_parts(struct fixture *f, unsigned wanted)
{
	unsigned n;

	do {
		sched_yield();
		pthread_mutex_lock(&f->blobs->lock);
		n = f->blobs->parts;
		pthread_mutex_unlock(&f->blobs->lock);
	} while (n != wanted);
}

static void *reader_main(void *arg)
{
	struct fixture *f = arg;

	f->result = read_all(f, &f->id, f->reader_wait);
	return NULL;
}

static void reader_start(struct fixture *f, struct wait *wait)
{
	f->reader_wait = wait;
	assert_int_equal(pthread_create(&f->reader, NULL, reader_main, f), 0);
}

static void reader_join(struct fixture *f)
{
	pthread_join(f->reader, NULL);
	assert_int_equal(f->result, SIZE);
	assert_memory_equal(f->out, f->data, SIZE);
}

/* --- how it comes --- */

static void test_a_long_way_takes_parts(void **state)
{
	struct fixture *f = *state;

	check_all(f, &f->id);
	assert_int_equal(requests(), PARTS);
	for (unsigned i = 0; i < PARTS; i++) {
		struct request one = last_over(i * PART);

		assert_int_equal(one.off, i * PART);
		assert_int_equal(one.len, i == PARTS - 1 ? 77 : PART);
	}
	assert_int_equal(fakestore_bytes(f->store), SIZE);
	await_parts(f, 0);
	assert_int_equal(f->way->parts, 0);
}

static void test_a_short_way_takes_one_stream(void **state)
{
	struct fixture *f = *state;

	far(f, NEAR);
	check_all(f, &f->id);
	assert_int_equal(requests(), 1);
	assert_true(asked(0).len == UINT64_MAX);
}

static void test_a_way_of_unknown_length_takes_one_stream(void **state)
{
	struct fixture *f = *state;

	far(f, 0);
	check_all(f, &f->id);
	assert_int_equal(requests(), 1);
}

static void test_a_blob_of_less_than_two_parts(void **state)
{
	struct fixture *f = *state;

	f->blobs->lane_part = SIZE / 2 + 1;
	check_all(f, &f->id);
	assert_int_equal(requests(), 1);
}

/* Until it is known whether the server takes ranges, one has to do. */
static void test_the_first_part_goes_alone(void **state)
{
	struct fixture *f = *state;

	fakestore_stall(f->store, FAKE_OPEN_BLOB);
	reader_start(f, &f->wait);
	fakestore_await_stalled(f->store, 1);
	for (int i = 0; i < 1000; i++)
		sched_yield();
	assert_int_equal(requests(), 1);
	fakestore_release(f->store);
	reader_join(f);
}

static void test_so_many_at_once(void **state)
{
	struct fixture *f = *state;

	f->way->takes_parts = true;
	fakestore_stall(f->store, FAKE_OPEN_BLOB);
	reader_start(f, &f->wait);
	fakestore_await_stalled(f->store, MOST);
	for (int i = 0; i < 1000; i++)
		sched_yield();
	assert_int_equal(requests(), MOST);
	fakestore_release(f->store);
	reader_join(f);
	assert_int_equal(requests(), PARTS);
}

/* Over a narrow way more would only keep others waiting. */
static void test_at_once(void **state)
{
	(void)state;
	assert_int_equal(lanes_at_once(0, FAR), FEW);
	assert_int_equal(lanes_at_once(1250000, FAR), FEW); /* 10 Mbit/s */
	assert_int_equal(lanes_at_once(3000000, FAR), FEW + 2);
	assert_int_equal(lanes_at_once(3000000, FAR / 3), FEW);
	assert_int_equal(lanes_at_once(12500000, FAR), MOST);
}

static void test_few_while_the_rate_is_unknown(void **state)
{
	struct fixture *f = *state;

	f->way->takes_parts = true;
	f->way->parts_rate = 0;
	fakestore_stall(f->store, FAKE_OPEN_BLOB);
	reader_start(f, &f->wait);
	fakestore_await_stalled(f->store, FEW);
	for (int i = 0; i < 1000; i++)
		sched_yield();
	assert_int_equal(requests(), FEW);
	fakestore_release(f->store);
	reader_join(f);
}

static void test_the_rate_is_measured(void **state)
{
	struct fixture *f = *state;

	f->way->parts_rate = 0;
	fakestore_stall_at(f->store, SIZE - 1);
	reader_start(f, &f->wait);
	fakestore_await_stalled(f->store, 1);
	/* what has come, came in longer than one answer takes */
	pthread_mutex_lock(&f->blobs->lock);
	f->way->parts_since_us -= FAR;
	pthread_mutex_unlock(&f->blobs->lock);
	fakestore_release(f->store);
	reader_join(f);
	assert_true(f->way->parts_rate > 0 && f->way->parts_rate <= SIZE * (1000000 / FAR));
}

/* Ranges that others wait for take places. */
static void test_others_go_first(void **state)
{
	struct fixture *f = *state;

	f->way->takes_parts = true;
	f->way->pace.running = MOST - 2;
	fakestore_stall(f->store, FAKE_OPEN_BLOB);
	reader_start(f, &f->wait);
	fakestore_await_stalled(f->store, 2);
	for (int i = 0; i < 1000; i++)
		sched_yield();
	assert_int_equal(requests(), 2);
	fakestore_release(f->store);
	reader_join(f);
}

static void test_memory_is_bounded(void **state)
{
	struct fixture *f = *state;

	f->blobs->parts = 16;
	check_all(f, &f->id);
	assert_int_equal(requests(), 1);
	f->blobs->parts = 15;
	check_all(f, &f->other);
	assert_int_equal(requests(), 1 + PARTS);
	await_parts(f, 15);
	f->blobs->parts = 0;
}

static void test_nobody_waits_for_it(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(read_all(f, &f->id, &f->background), SIZE);
	assert_int_equal(requests(), 1);
}

/* What began for nobody goes on in parts when somebody comes. */
static void test_somebody_comes(void **state)
{
	struct fixture *f = *state;
	struct pass *pass;

	fakestore_stall_at(f->store, PART + 5);
	reader_start(f, &f->background);
	fakestore_await_stalled(f->store, 1);
	struct blob *blob;
	assert_int_equal(blob_hold(f->blobs, &f->id, false, &blob), 0);
	assert_int_equal(pass_join(blob, &f->id, JOIN_READ, &f->wait, &pass), 0);
	fakestore_release(f->store);
	reader_join(f);
	pass_leave(pass);
	blob_put(blob);
	/* the stream ends with the block that it was in */
	assert_int_equal(requests(), 1 + (SIZE - PART - CACHE_BLOCK + PART - 1) / PART);
	assert_true(asked(1).off == PART + CACHE_BLOCK);
	assert_int_equal(fakestore_bytes(f->store), SIZE);
}

/* --- what goes wrong --- */

/* A server that sends all of it whatever was asked for. */
static void test_no_ranges(void **state)
{
	struct fixture *f = *state;

	played.unranged = true;
	check_all(f, &f->id);
	assert_int_equal(requests(), 2);
	assert_int_equal(asked(0).len, PART);
	assert_true(asked(1).off == 0 && asked(1).len == UINT64_MAX);
	/* it is remembered */
	check_all(f, &f->other);
	assert_int_equal(requests(), 3);
	assert_true(asked(2).off == 0 && asked(2).len == UINT64_MAX);
}

static void test_a_part_is_refused(void **state)
{
	struct fixture *f = *state;

	played.refused = 5 * PART;
	played.error = -EBUSY;
	check_all(f, &f->id);
	assert_true(last_over(SIZE - 1).off == 5 * PART);
	assert_true(last_over(SIZE - 1).len == UINT64_MAX);
	assert_int_equal(last_over(5 * PART - 1).len, PART);
	unsigned before = requests();
	check_all(f, &f->other);
	assert_int_equal(requests(), before + 1);
	/* not for ever */
	assert_true(f->way->narrow_until_ms < INT64_MAX);
}

/* Who is not there is not asked once more for as long. */
static void test_nobody_answers(void **state)
{
	struct fixture *f = *state;

	played.refused = 5 * PART;
	played.error = -ETIMEDOUT;
	assert_int_equal(read_all(f, &f->id, &f->wait), -ETIMEDOUT);
	for (unsigned i = 0; i < requests(); i++)
		assert_true(asked(i).len != UINT64_MAX);
	/* and the pass goes on from there */
	check_all(f, &f->id);
	assert_true(last_over(SIZE - 1).off == 5 * PART);
	assert_true(last_over(SIZE - 1).len == UINT64_MAX);
}

static void test_a_part_breaks_off(void **state)
{
	struct fixture *f = *state;

	fakestore_fail_at(f->store, 5 * PART + 1000, -EIO);
	assert_int_equal(read_all(f, &f->id, &f->wait), -EIO);
	assert_true(last_over(5 * PART + 1000).off == 5 * PART + 1000);
	fakestore_fail_at(f->store, 0, 0);
	check_all(f, &f->id);
	assert_true(last_over(SIZE - 1).off == 5 * PART);
}

static void test_a_part_is_wrong(void **state)
{
	struct fixture *f = *state;

	fakestore_corrupt(f->store, 5 * PART + 1000, 1);
	assert_int_equal(read_all(f, &f->id, &f->wait), -EIO);
	unsigned before = requests();
	check_all(f, &f->id);
	assert_int_equal(requests(), before + 1);
	assert_true(asked(before).len == UINT64_MAX);
	/* other blobs may come in parts */
	check_all(f, &f->other);
	assert_int_equal(requests(), before + 1 + PARTS);
}

static void test_the_blob_ends_too_soon(void **state)
{
	struct fixture *f = *state;

	fakestore_end_at(f->store, 5 * PART + 1000);
	assert_int_equal(read_all(f, &f->id, &f->wait), -EIO);
}

static void test_interrupted(void **state)
{
	struct fixture *f = *state;

	f->blobs->idle_ms = 0;
	f->way->takes_parts = true;
	fakestore_stall_at(f->store, 3 * PART + 7);
	reader_start(f, &f->wait);
	fakestore_await_stalled(f->store, 1);
	wait_cancel(&f->wait);
	pthread_join(f->reader, NULL);
	assert_int_equal(f->result, -EINTR);
	/* teardown frees the blobs while parts are under way */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_a_long_way_takes_parts),
		TEST(test_a_short_way_takes_one_stream),
		TEST(test_a_way_of_unknown_length_takes_one_stream),
		TEST(test_a_blob_of_less_than_two_parts),
		TEST(test_the_first_part_goes_alone),
		TEST(test_so_many_at_once),
		cmocka_unit_test(test_at_once),
		TEST(test_few_while_the_rate_is_unknown),
		TEST(test_the_rate_is_measured),
		TEST(test_others_go_first),
		TEST(test_memory_is_bounded),
		TEST(test_nobody_waits_for_it),
		TEST(test_somebody_comes),
		TEST(test_no_ranges),
		TEST(test_a_part_is_refused),
		TEST(test_nobody_answers),
		TEST(test_a_part_breaks_off),
		TEST(test_a_part_is_wrong),
		TEST(test_the_blob_ends_too_soon),
		TEST(test_interrupted),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
