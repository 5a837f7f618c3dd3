// SPDX-License-Identifier: Apache-2.0
/*
 * image: the first while of an image's use is recorded, and replayed at its next: in how many
 * requests and bytes, and that nothing is served by it that a reader would not have been given.
 */
#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/blob_priv.h"
#include "../../src/image_priv.h"
#include "fakestore.h"
#include "regfs/log.h"
#include "regfs/stats.h"

#define REPO	  "team/app"
#define LAYERS	  2
#define FILES	  40
#define FILE_SIZE (300 * KIB)

struct fixture {
	char dir[64];
	enum codec codec;
	struct cache *cache;
	struct pool *jobs;
	struct blobs *blobs;
	struct layers *layers;
	struct images *images;
	struct store *store;
	struct image *image;
	struct wait wait;
	struct digest manifest, layer_digests[LAYERS];
	uint8_t *out;
	unsigned calls;
	uint64_t bytes;
};

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

/* Byte OFF of file N of LAYER: about 2:1. */
static uint8_t byte_of(unsigned layer, unsigned n, size_t off)
{
	uint64_t at = off / 8 * 8 + n * 1000003ULL + layer * 7000001ULL;

	return off % 8 < 4 ? 'x' : (uint8_t)(hash64(0, &at, sizeof(at)) >> (8 * (off % 4)));
}

static void pack(struct fixture *f, struct buf *tar)
{
	AUTO_BUF struct buf packed = BUF_INIT(SIZE_MAX / 2);
	struct encoder *encoder = encoder_new(f->codec, 1);

	for (size_t off = 0; off < tar->len; off += MIB) {
		size_t len = MIN(MIB, tar->len - off);

		assert_int_equal(buf_reserve(&packed, encoder_bound(f->codec, len)), 0);
		ssize_t n = encoder_piece(encoder, tar->data + off, len, packed.data + packed.len,
					  encoder_bound(f->codec, len));
		assert_true(n > 0);
		packed.len += (size_t)n;
	}
	encoder_free(encoder);
	buf_clear(tar);
	assert_int_equal(buf_add(tar, packed.data, packed.len), 0);
}

static size_t add_layer(struct fixture *f, unsigned layer, struct digest *ret_diff)
{
	AUTO_BUF struct buf tar = BUF_INIT(SIZE_MAX / 2);
	static const char zeros[TAR_TRAILER];
	AUTO_FREE uint8_t *data = malloc(FILE_SIZE);

	for (unsigned n = 0; n < FILES; n++) {
		AUTO_FREE char *path = format("f%02u.%u", n, layer);
		const struct tar_member member = {
			.path = path, .mode = S_IFREG | 0644, .size = FILE_SIZE};

		for (size_t i = 0; i < FILE_SIZE; i++)
			data[i] = byte_of(layer, n, i);
		assert_int_equal(tar_header(&member, &tar), 0);
		assert_int_equal(buf_add(&tar, data, FILE_SIZE), 0);
		assert_int_equal(buf_add(&tar, zeros, tar_padding(FILE_SIZE)), 0);
	}
	assert_int_equal(buf_add(&tar, zeros, sizeof(zeros)), 0);
	digest_of(DIGEST_SHA256, tar.data, tar.len, ret_diff);
	if (f->codec != CODEC_PLAIN)
		pack(f, &tar);
	fakestore_add_blob(f->store, REPO, tar.data, tar.len, &f->layer_digests[layer]);
	return tar.len;
}

static void add_image(struct fixture *f)
{
	AUTO_BUF struct buf layers = BUF_INIT(MIB), diff_ids = BUF_INIT(MIB);
	struct digest digest;
	char text[DIGEST_STR_MAX];

	for (unsigned n = 0; n < LAYERS; n++) {
		size_t len = add_layer(f, n, &digest);

		buf_printf(&diff_ids, "%s\"%s\"", n ? "," : "", digest_format(&digest, text));
		buf_printf(&layers,
			   "%s{\"mediaType\":\"" OCI_TYPE_LAYER
			   "\",\"digest\":\"%s\",\"size\":%zu}",
			   n ? "," : "", digest_format(&f->layer_digests[n], text), len);
	}
	AUTO_FREE char *config = format("{\"os\":\"linux\",\"architecture\":\"amd64\",\"rootfs\":"
					"{\"type\":\"layers\",\"diff_ids\":[%s]}}",
					diff_ids.data);
	fakestore_add_blob(f->store, REPO, config, strlen(config), &digest);
	AUTO_FREE char *json = format("{\"schemaVersion\":2,\"config\":{\"mediaType\":"
				      "\"" OCI_TYPE_CONFIG "\",\"digest\":\"%s\",\"size\":%zu},"
				      "\"layers\":[%s]}",
				      digest_format(&digest, text), strlen(config), layers.data);
	fakestore_add_manifest(f->store, REPO, NULL, OCI_TYPE_MANIFEST, json, &f->manifest);
}

/* --- rooms --- */

static void open_rooms(struct fixture *f, bool offline)
{
	assert_int_equal(cache_open(f->dir, 256 * MIB, &f->cache), 0);
	f->jobs = pool_new("jobs", 0);
	f->blobs = blobs_new(f->cache, f->jobs, 60000);
	way_find(f->blobs, f->store)->pace.fixed = true;
	atomic_store(&way_find(f->blobs, f->store)->pace.latency_us, 1);
	f->layers = layers_new(f->blobs, f->cache, f->jobs);
	const struct images_options options = {.blobs = f->blobs,
					       .layers = f->layers,
					       .cache = f->cache,
					       .offline = offline,
					       .traces = f->jobs};
	f->images = images_new(&options);
	assert_int_equal(image_open(f->images, f->store, REPO, &f->manifest, &f->wait, &f->image),
			 0);
}

static void close_rooms(struct fixture *f)
{
	image_unref(f->image);
	images_free(f->images);
	layers_free(f->layers);
	blobs_free(f->blobs);
	pool_free(f->jobs);
	cache_close(f->cache);
}

static void evict(struct fixture *f)
{
	for (unsigned n = 0; n < LAYERS; n++) {
		struct cache_id id = {.kind = CACHE_BLOB};

		digest_key(&f->layer_digests[n], id.key);
		cache_drop(f->cache, &id, 2 * FILES * FILE_SIZE / CACHE_BLOCK, 0);
	}
}

/* A mount later, with nothing of the layers but their indexes and sums. */
static void remount(struct fixture *f, bool offline)
{
	close_rooms(f);
	open_rooms(f, offline);
	evict(f);
	f->calls = fakestore_calls(f->store, FAKE_OPEN_BLOB);
	f->bytes = fakestore_bytes(f->store);
}

static int setup_codec(void **state, enum codec codec)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const struct oci_config *config;

	assert_non_null(f);
	f->codec = codec;
	f->out = malloc(FILE_SIZE);
	snprintf(f->dir, sizeof(f->dir), "/tmp/regfs-trace-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	f->store = fakestore_new("fake.test");
	wait_init(&f->wait, true);
	add_image(f);
	open_rooms(f, false);
	assert_int_equal(image_config(f->image, &f->wait, &config), 0);
	*state = f;
	return 0;
}

static int setup_gzip(void **state)
{
	return setup_codec(state, CODEC_GZIP);
}

static int setup_plain(void **state)
{
	return setup_codec(state, CODEC_PLAIN);
}

static int setup_zstd(void **state)
{
	return setup_codec(state, CODEC_ZSTD);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	close_rooms(f);
	store_free(f->store);
	wait_release(&f->wait);
	free(f->out);
	nftw(f->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

/* --- reading, as treedir does --- */

static void read_file_of(struct fixture *f, unsigned n, unsigned file)
{
	AUTO_FREE char *path = format("f%02u.%u", file, n);
	struct layer *layer;
	uint32_t ino;

	assert_int_equal(image_layer(f->image, n, &f->wait, &layer), 0);
	assert_int_equal(index_resolve(layer_index(layer), path, strlen(path), &ino), 0);
	for (size_t off = 0; off < FILE_SIZE; off += CACHE_BLOCK) {
		size_t len = MIN(CACHE_BLOCK, FILE_SIZE - off);

		image_reads(f->image, n, ino, off, len);
		assert_int_equal(layer_read(layer, ino, off, f->out + off, len, &f->wait), len);
	}
	for (size_t i = 0; i < FILE_SIZE; i += 997)
		assert_int_equal(f->out[i], byte_of(n, file, i));
	layer_unref(layer);
}

/* A program's start: here and there, by twos. */
static void run_program(struct fixture *f)
{
	for (unsigned i = 0; i < 10; i++) {
		read_file_of(f, 1, (i * 13) % FILES);
		read_file_of(f, 0, (i * 13 + 1) % FILES);
	}
}

/* Until no run is recorded or replayed any more. */
static void await_runs(struct fixture *f)
{
	pthread_mutex_lock(&f->images->lock);
	while (f->images->tracers.count > 0)
		pthread_cond_wait(&f->images->tracers.ended, &f->images->lock);
	pthread_mutex_unlock(&f->images->lock);
}

/* One read, and what that sets off. */
static void replay(struct fixture *f)
{
	f->images->tracers.settle_ms = 0;
	image_reads(f->image, 1, 1, 0, 1);
	await_runs(f);
}

static unsigned calls_since(struct fixture *f)
{
	return fakestore_calls(f->store, FAKE_OPEN_BLOB) - f->calls;
}

static uint64_t bytes_since(struct fixture *f)
{
	return fakestore_bytes(f->store) - f->bytes;
}

/* --- tests --- */

static void check_replay(struct fixture *f)
{
	int64_t replays = stats_get(STAT_REPLAYS), replayed = stats_get(STAT_REPLAY_BYTES);

	run_program(f);
	assert_int_equal(stats_get(STAT_REPLAYS), replays);
	/* what the program costs by itself, cold */
	remount(f, false);
	f->image->tracing = TRACE_OVER;
	run_program(f);
	unsigned calls_alone = calls_since(f);
	uint64_t bytes_alone = bytes_since(f);

	remount(f, false);
	replay(f);
	assert_int_equal(stats_get(STAT_REPLAYS), replays + 1);
	unsigned calls = calls_since(f);
	assert_in_range(calls, 2, calls_alone);
	assert_in_range(bytes_since(f), 20 * FILE_SIZE / 3, 3 * 20 * FILE_SIZE / 2);
	assert_in_range(bytes_since(f), 1, bytes_alone * 3 / 2);
	/* in whole blocks; each layer's last is shorter */
	assert_in_range(stats_get(STAT_REPLAY_BYTES) - replayed, bytes_since(f),
			bytes_since(f) + LAYERS * CACHE_BLOCK);
	/* it was all there is to fetch */
	run_program(f);
	assert_int_equal(calls_since(f), calls);
}

static void test_gzip(void **state)
{
	check_replay(*state);
}

static void test_plain(void **state)
{
	check_replay(*state);
}

static void test_zstd(void **state)
{
	check_replay(*state);
}

/* Where answers take long, several ranges travel at once; and not more than that. */
static void test_several_at_once(void **state)
{
	struct fixture *f = *state;

	run_program(f);
	remount(f, false);
	atomic_store(&way_find(f->blobs, f->store)->pace.latency_us, 100000);
	fakestore_stall(f->store, FAKE_OPEN_BLOB);
	f->images->tracers.settle_ms = 0;
	image_reads(f->image, 1, 1, 0, 1);
	/* as many as the record has, or are allowed */
	fakestore_await_stalled(f->store, 6);
	assert_in_range(calls_since(f), 6, BRING_STREAMS);
	fakestore_release(f->store);
	await_runs(f);
	run_program(f);
}

/* A mount that ends does not wait for a replay, and keeps the record. */
static void test_ends_at_once(void **state)
{
	struct fixture *f = *state;

	run_program(f);
	remount(f, false);
	atomic_store(&way_find(f->blobs, f->store)->pace.latency_us, 100000);
	fakestore_stall(f->store, FAKE_OPEN_BLOB);
	image_reads(f->image, 1, 1, 0, 1);
	fakestore_await_stalled(f->store, 2);
	remount(f, false);
	fakestore_release(f->store);
	replay(f);
	assert_in_range(calls_since(f), 2, 40);
	unsigned calls = calls_since(f);
	run_program(f);
	assert_int_equal(calls_since(f), calls);
}

static void test_offline(void **state)
{
	struct fixture *f = *state;

	run_program(f);
	remount(f, true);
	replay(f);
	assert_int_equal(calls_since(f), 0);
}

/* It only warms the cache, on the way that all bytes take. */
static void test_wrong_bytes_stay_out(void **state)
{
	struct fixture *f = *state;

	run_program(f);
	remount(f, false);
	fakestore_corrupt(f->store, 4 * CACHE_BLOCK + 1, 1000);
	fakestore_corrupt(f->store, 1, 1000);
	replay(f);
	fakestore_corrupt(f->store, 1, 0);
	run_program(f);
}

/* A record that makes no sense is none, and is replaced. */
static void test_damaged_record(void **state)
{
	struct fixture *f = *state;
	struct cache_id id = {.kind = CACHE_TRACE};
	AUTO_BUF struct buf bytes = BUF_INIT(MIB);

	run_program(f);
	remount(f, false);
	digest_key(&f->manifest, id.key);
	assert_int_equal(cache_get(f->cache, &id, &bytes), 0);
	cache_put(f->cache, &id, bytes.data, bytes.len - 1);
	replay(f);
	assert_int_equal(calls_since(f), 0);
	/* parts of files that are not there, of layers that are not there */
	for (size_t i = bytes.len - 160; i < bytes.len; i += 16)
		memcpy(bytes.data + i, "\xff\xff\xff\x00", 4);
	remount(f, false);
	cache_put(f->cache, &id, bytes.data, bytes.len);
	replay(f);
	run_program(f);
}

/* What is not read any more is replayed for some runs, and counted. */
static void test_forgets(void **state)
{
	struct fixture *f = *state;
	unsigned runs = 0;

	run_program(f);
	for (;; runs++) {
		int64_t unused = stats_get(STAT_REPLAY_UNUSED_BYTES);

		remount(f, false);
		replay(f);
		if (calls_since(f) <= 1)
			break;
		assert_in_range(stats_get(STAT_REPLAY_UNUSED_BYTES) - unused, 19 * FILE_SIZE,
				21 * (FILE_SIZE + CACHE_BLOCK));
		assert_in_range(runs, 0, TRACE_AGE_MAX);
	}
	assert_int_equal(runs, TRACE_AGE_MAX + 1);
}

#define TEST(fn, setup) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_gzip, setup_gzip),
		TEST(test_plain, setup_plain),
		TEST(test_zstd, setup_zstd),
		TEST(test_several_at_once, setup_gzip),
		TEST(test_ends_at_once, setup_gzip),
		TEST(test_offline, setup_gzip),
		TEST(test_wrong_bytes_stay_out, setup_plain),
		TEST(test_damaged_record, setup_gzip),
		TEST(test_forgets, setup_gzip),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
