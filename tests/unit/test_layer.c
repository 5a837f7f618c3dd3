// SPDX-License-Identifier: Apache-2.0
/*
 * layer: indexes built and kept, and files read from resume points, over the fake store and a real
 * cache.
 */
#include <errno.h>
#include <ftw.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <cmocka.h>
#include <zstd.h>

#include "../../src/blob_priv.h"
#include "../../src/layer_priv.h"
#include "codec_streams.h"
#include "fakestore.h"
#include "regfs/log.h"
#include "regfs/stats.h"
#include "regfs/tar.h"

#define BIG	    (12 * MIB + 345) /* of the file "big" */
#define ARCHIVE_MAX (16 * MIB)

struct fixture {
	char dir[64];
	struct cache *cache;
	struct pool *jobs;
	struct blobs *blobs;
	struct layers *layers;
	struct store *store;
	struct wait wait;
	struct buf tar;
	struct buf blob;
	struct digest digest, diff_id;
	struct blob_id id;
	uint8_t *big;
	uint8_t *out;
};

/* --- rooms --- */

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

static void open_rooms(struct fixture *f, uint64_t cache_size)
{
	assert_int_equal(cache_open(f->dir, cache_size, &f->cache), 0);
	f->jobs = pool_new("jobs", 0);
	f->blobs = blobs_new(f->cache, f->jobs, 60000);
	f->layers = layers_new(f->blobs, f->cache, f->jobs);
	assert_non_null(f->layers);
}

static void close_rooms(struct fixture *f)
{
	layers_free(f->layers);
	blobs_free(f->blobs);
	pool_free(f->jobs);
	cache_close(f->cache);
}

/* --- content --- */

/* Some of it repeats, much of it does not: about 2:1. */
static void fill(uint8_t *data, size_t len)
{
	uint32_t x = 1;

	for (size_t i = 0; i < len; i++) {
		x = x * 1664525 + 1013904223;
		data[i] = i % 64 < 32 ? 'a' + (i / 64) % 26 : x >> 24;
	}
}

static void add_data(struct buf *tar, const void *data, size_t len)
{
	static const char zeros[512];

	assert_int_equal(buf_add(tar, data, len), 0);
	assert_int_equal(buf_add(tar, zeros, tar_padding(len)), 0);
}

static void add_file(struct buf *tar, const char *path, const void *data, size_t len)
{
	const struct tar_member member = {.path = path, .mode = S_IFREG | 0644, .size = len};

	assert_int_equal(tar_header(&member, tar), 0);
	add_data(tar, data, len);
}

/* A file of 3 MiB with data at 4096 (5 bytes) and 2 MiB (6 bytes): PAX, GNU sparse 1.0. */
static void add_sparse(struct buf *tar)
{
	static const char records[] = "22 GNU.sparse.major=1\n"
				      "22 GNU.sparse.minor=0\n"
				      "29 GNU.sparse.name=dir/holes\n"
				      "31 GNU.sparse.realsize=3145728\n";
	static const char map[512] = "2\n4096\n5\n2097152\n6\n";
	struct tar_member member = {.path = "pax", .mode = S_IFREG | 0644};
	size_t at = tar->len;

	member.size = sizeof(records) - 1;
	assert_int_equal(tar_header(&member, tar), 0);
	/* the type of an extended header, and the checksum that goes with it */
	uint8_t *head = (uint8_t *)tar->data + at;
	unsigned sum = 0;
	head[156] = 'x';
	memset(head + 148, ' ', 8);
	for (size_t i = 0; i < 512; i++)
		sum += head[i];
	snprintf((char *)head + 148, 8, "%06o", sum);
	add_data(tar, records, sizeof(records) - 1);

	member.path = "GNUSparseFile/holes";
	member.size = 512 + 11;
	assert_int_equal(tar_header(&member, tar), 0);
	assert_int_equal(buf_add(tar, map, sizeof(map)), 0);
	add_data(tar, "helloworld!", 11);
}

static void make_tar(struct fixture *f)
{
	const struct tar_member dir = {.path = "dir/", .mode = S_IFDIR | 0755};
	const struct tar_member link = {.path = "link", .mode = S_IFLNK | 0777, .symlink = "big"};
	static const char zeros[TAR_TRAILER];

	assert_int_equal(tar_header(&dir, &f->tar), 0);
	add_file(&f->tar, "dir/hello", "hello, layer\n", 13);
	assert_int_equal(tar_header(&link, &f->tar), 0);
	add_file(&f->tar, "big", f->big, BIG);
	add_sparse(&f->tar);
	add_file(&f->tar, "last", "the end", 7);
	assert_int_equal(buf_add(&f->tar, zeros, TAR_TRAILER), 0);
}

static void compress_zstd(const struct buf *in, struct buf *out, size_t frame)
{
	for (size_t off = 0; off < in->len; off += frame) {
		size_t len = MIN(frame, in->len - off);

		assert_int_equal(buf_reserve(out, ZSTD_compressBound(len)), 0);
		size_t n = ZSTD_compress(out->data + out->len, ZSTD_compressBound(len),
					 in->data + off, len, 1);
		assert_false(ZSTD_isError(n));
		out->len += n;
	}
}

enum kind { PLAIN, GZIP, FRAMES, BIG_FRAMES, ONE_FRAME };

static void set_blob(struct fixture *f, const void *data, size_t len)
{
	fakestore_add_blob(f->store, "team/app", data, len, &f->digest);
	f->id = (struct blob_id){
		.digest = &f->digest, .size = len, .store = f->store, .repo = "team/app"};
}

static void use(struct fixture *f, enum kind kind)
{
	/* the middle one has gaps, and a point within a block */
	const size_t frame_len[] = {
		[FRAMES] = MIB, [BIG_FRAMES] = 6 * MIB - 1000, [ONE_FRAME] = f->tar.len};

	buf_clear(&f->blob);
	if (kind == PLAIN)
		assert_int_equal(buf_add(&f->blob, f->tar.data, f->tar.len), 0);
	else if (kind == GZIP)
		add_isal(&f->blob, (const uint8_t *)f->tar.data, f->tar.len, 1);
	else
		compress_zstd(&f->tar, &f->blob, frame_len[kind]);
	set_blob(f, f->blob.data, f->blob.len);
}

static struct fixture *setup_sized(uint64_t cache_size)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const char *tmp = getenv("TMPDIR");

	assert_non_null(f);
	snprintf(f->dir, sizeof(f->dir), "%s/regfs-layer-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(f->dir));
	open_rooms(f, cache_size);
	f->store = fakestore_new("fake.test");
	f->tar = (struct buf)BUF_INIT(ARCHIVE_MAX);
	f->blob = (struct buf)BUF_INIT(ARCHIVE_MAX);
	f->big = malloc(BIG);
	f->out = malloc(BIG);
	assert_non_null(f->big);
	assert_non_null(f->out);
	fill(f->big, BIG);
	make_tar(f);
	digest_of(DIGEST_SHA256, f->tar.data, f->tar.len, &f->diff_id);
	wait_init(&f->wait, true);
	use(f, GZIP);
	return f;
}

static int setup(void **state)
{
	*state = setup_sized(512 * MIB);
	return 0;
}

static int setup_no_cache(void **state)
{
	*state = setup_sized(1);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	close_rooms(f);
	assert_int_equal(fakestore_streams(f->store), 0);
	store_free(f->store);
	wait_release(&f->wait);
	buf_release(&f->tar);
	buf_release(&f->blob);
	free(f->big);
	free(f->out);
	nftw(f->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

/* --- looking --- */

static struct layer *open_layer(struct fixture *f)
{
	const struct layer_claims claims = {.diff_id = &f->diff_id};
	struct layer *layer = NULL;

	assert_int_equal(layer_open(f->layers, &f->id, &claims, &f->wait, &layer), 0);
	return layer;
}

static uint32_t find(struct layer *layer, const char *dir, const char *name)
{
	struct index_name found = {.ino = INDEX_ROOT};

	if (dir)
		assert_int_equal(
			index_lookup(layer_index(layer), INDEX_ROOT, dir, strlen(dir), &found), 0);
	assert_int_equal(index_lookup(layer_index(layer), found.ino, name, strlen(name), &found),
			 0);
	return found.ino;
}

static void check_big(struct fixture *f, struct layer *layer, uint64_t off, size_t len)
{
	uint32_t ino = find(layer, NULL, "big");

	memset(f->out, 0, len);
	assert_int_equal(layer_read(layer, ino, off, f->out, len, &f->wait), len);
	assert_memory_equal(f->out, f->big + off, len);
}

static void check_all(struct fixture *f, struct layer *layer)
{
	uint32_t hello = find(layer, "dir", "hello"), last = find(layer, NULL, "last");

	assert_int_equal(layer_read(layer, hello, 0, f->out, 100, &f->wait), 13);
	assert_memory_equal(f->out, "hello, layer\n", 13);
	assert_int_equal(layer_read(layer, hello, 7, f->out, 5, &f->wait), 5);
	assert_memory_equal(f->out, "layer", 5);
	assert_int_equal(layer_read(layer, hello, 13, f->out, 5, &f->wait), 0);
	assert_int_equal(layer_read(layer, last, 0, f->out, 100, &f->wait), 7);
	assert_memory_equal(f->out, "the end", 7);
	check_big(f, layer, 11 * MIB, 4096);
	check_big(f, layer, 0, BIG);
	check_big(f, layer, 3 * MIB + 17, 2 * MIB);
	assert_int_equal(layer_read(layer, find(layer, NULL, "big"), BIG - 3, f->out, 10, &f->wait),
			 3);
	assert_memory_equal(f->out, f->big + BIG - 3, 3);
}

/* Evicts what is kept of the blob's bytes. */
static void evict(struct fixture *f)
{
	struct cache_id id = {.kind = CACHE_BLOB};

	digest_key(&f->digest, id.key);
	cache_drop(f->cache, &id, ARCHIVE_MAX / CACHE_BLOCK, 0);
}

/* Without anything in memory. */
static void reopen(struct fixture *f)
{
	close_rooms(f);
	open_rooms(f, 0);
}

/* --- every kind of layer --- */

static void check_kind(struct fixture *f, enum kind kind)
{
	int64_t indexed = stats_get(STAT_LAYERS_INDEXED);

	use(f, kind);
	struct layer *layer = open_layer(f);
	assert_int_equal(fakestore_bytes(f->store), f->id.size);
	check_all(f, layer);
	layer_unref(layer);
	/* once for all, over remounts */
	reopen(f);
	layer = open_layer(f);
	check_all(f, layer);
	layer_unref(layer);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 1);
	assert_int_equal(stats_get(STAT_LAYERS_INDEXED), indexed + 1);
}

static void test_plain(void **state)
{
	check_kind(*state, PLAIN);
}

static void test_gzip(void **state)
{
	check_kind(*state, GZIP);
}

static void test_zstd_frames(void **state)
{
	check_kind(*state, FRAMES);
}

static void test_zstd_big_frames(void **state)
{
	check_kind(*state, BIG_FRAMES);
}

static void test_zstd_one_frame(void **state)
{
	check_kind(*state, ONE_FRAME);
}

static void test_range_of_evicted_blob(void **state)
{
	struct fixture *f = *state;
	struct layer *layer = open_layer(f);

	evict(f);
	check_big(f, layer, 6 * MIB, 4096);
	/* one span at most, and not the layer */
	assert_in_range(fakestore_bytes(f->store) - f->id.size, 1, 2 * MIB);
	check_all(f, layer);
	layer_unref(layer);
}

static void test_one_request_for_a_span(void **state)
{
	struct fixture *f = *state;
	struct layer *layer = open_layer(f);

	evict(f);
	for (uint64_t at = MIB + 200 * KIB; at < BIG - 2 * MIB; at += 3 * MIB) {
		unsigned calls = fakestore_calls(f->store, FAKE_OPEN_BLOB);
		uint64_t bytes = fakestore_bytes(f->store);

		/* wherever in its span: what leads to it, and no more than a block beside it */
		check_big(f, layer, at, 4096);
		assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB) - calls, 1);
		assert_in_range(fakestore_bytes(f->store) - bytes, 1,
				(LAYER_SPACING + LAYER_PIECE) * f->id.size / f->tar.len +
					2 * CACHE_BLOCK);
	}
	layer_unref(layer);
}

/* A file of half a MiB and one of six, apart from each other. */
static void use_two_files(struct fixture *f, enum kind kind)
{
	buf_clear(&f->tar);
	add_file(&f->tar, "before", f->big, MIB);
	add_file(&f->tar, "one", f->big, MIB / 2);
	add_file(&f->tar, "between", f->big, 3 * MIB);
	add_file(&f->tar, "six", f->big, 6 * MIB);
	add_file(&f->tar, "last", f->big, MIB);
	assert_int_equal(buf_add(&f->tar, f->out, TAR_TRAILER), 0);
	memset(f->tar.data + f->tar.len - TAR_TRAILER, 0, TAR_TRAILER);
	digest_of(DIGEST_SHA256, f->tar.data, f->tar.len, &f->diff_id);
	use(f, kind);
}

/* Requests that reading LEN bytes at OFF of a file costs, and what follows from it. */
static unsigned cost_of(struct fixture *f, struct layer *layer, const char *name, uint64_t off,
			size_t len)
{
	unsigned before = fakestore_calls(f->store, FAKE_OPEN_BLOB), running;

	assert_int_equal(layer_read(layer, find(layer, NULL, name), off, f->out, len, &f->wait),
			 len);
	assert_memory_equal(f->out, f->big + off, len);
	do {
		sched_yield();
		pthread_mutex_lock(&f->blobs->lock);
		running = f->blobs->running;
		pthread_mutex_unlock(&f->blobs->lock);
	} while (running > 0);
	return fakestore_calls(f->store, FAKE_OPEN_BLOB) - before;
}

/* Of a small file all comes with a first look, of a larger one with the second. */
static void check_whole_files(struct fixture *f, enum kind kind)
{
	use_two_files(f, kind);
	struct layer *layer = open_layer(f);
	struct pace *pace = &way_find(f->blobs, f->store)->pace;
	bool packed = kind != PLAIN; /* else six MiB are 48 blocks */

	evict(f);
	pace->fixed = true;
	atomic_store(&pace->latency_us, 100000);
	/* how far packed bytes reach is only known about */
	assert_in_range(cost_of(f, layer, "one", 100, 10), 1, 2);
	assert_int_equal(cost_of(f, layer, "one", 350 * KIB, 10), 0);
	assert_in_range(cost_of(f, layer, "six", 100, 10), 1, 2);
	assert_in_range(cost_of(f, layer, "six", 4 * MIB, 10), 1, 3);
	if (packed)
		assert_in_range(cost_of(f, layer, "six", 0, 6 * MIB), 0, 1);
	layer_unref(layer);
}

static void test_whole_files_gzip(void **state)
{
	check_whole_files(*state, GZIP);
}

static void test_whole_files_plain(void **state)
{
	check_whole_files(*state, PLAIN);
}

static void check_kept_output(struct fixture *f, enum kind kind)
{
	int64_t decoded;

	use(f, kind);
	struct layer *layer = open_layer(f);
	assert_true(layer_index(layer)->info.keep_decoded);
	decoded = stats_get(STAT_SPANS_DECODED);
	evict(f);
	/* out of what was kept: no decoding, no network */
	check_big(f, layer, 5 * MIB, 128 * KIB);
	check_big(f, layer, 11 * MIB, 128 * KIB);
	assert_int_equal(fakestore_bytes(f->store), f->id.size);
	assert_int_equal(stats_get(STAT_SPANS_DECODED), decoded);
	struct cache_id kept = {.kind = CACHE_DECODED};
	memcpy(kept.key, layer->decoded_key, sizeof(kept.key));
	cache_drop(f->cache, &kept, ARCHIVE_MAX / CACHE_BLOCK, 0);
	layer_unref(layer);
	reopen(f);
	layer = open_layer(f);
	check_all(f, layer);
	layer_unref(layer);
	/* and it was kept again */
	uint64_t bytes = fakestore_bytes(f->store);
	evict(f);
	reopen(f);
	layer = open_layer(f);
	check_big(f, layer, 5 * MIB, 128 * KIB);
	assert_int_equal(fakestore_bytes(f->store), bytes);
	layer_unref(layer);
}

static void test_kept_output_of_one_frame(void **state)
{
	check_kept_output(*state, ONE_FRAME);
}

static void test_kept_output_of_big_frames(void **state)
{
	check_kept_output(*state, BIG_FRAMES);
}

static void test_small_reads(void **state)
{
	struct fixture *f = *state;
	struct layer *layer = open_layer(f);
	int64_t decoded = stats_get(STAT_SPANS_DECODED);

	/* a sequential reader decodes each span once at most, whatever the size of its reads */
	for (uint64_t off = 0; off < BIG; off += 50000)
		check_big(f, layer, off, MIN(50000, BIG - off));
	assert_in_range(stats_get(STAT_SPANS_DECODED) - decoded, 1, BIG / LAYER_SPACING + 1);
	layer_unref(layer);
}

static void test_sparse(void **state)
{
	struct fixture *f = *state;
	struct layer *layer = open_layer(f);
	uint32_t ino = find(layer, "dir", "holes");
	uint8_t expected[8192] = {0};

	memcpy(expected + 4096, "hello", 5);
	assert_int_equal(layer_read(layer, ino, 0, f->out, 8192, &f->wait), 8192);
	assert_memory_equal(f->out, expected, 8192);
	assert_int_equal(layer_read(layer, ino, 2 * MIB - 2, f->out, 10, &f->wait), 10);
	assert_memory_equal(f->out, "\0\0world!\0\0", 10);
	assert_int_equal(layer_read(layer, ino, 3 * MIB - 1, f->out, 10, &f->wait), 1);

	assert_int_equal(layer_seek(layer, ino, 0, SEEK_DATA), 4096);
	assert_int_equal(layer_seek(layer, ino, 4098, SEEK_DATA), 4098);
	assert_int_equal(layer_seek(layer, ino, 4101, SEEK_DATA), 2 * MIB);
	assert_int_equal(layer_seek(layer, ino, 2 * MIB + 6, SEEK_DATA), -ENXIO);
	assert_int_equal(layer_seek(layer, ino, 0, SEEK_HOLE), 0);
	assert_int_equal(layer_seek(layer, ino, 4096, SEEK_HOLE), 4101);
	assert_int_equal(layer_seek(layer, ino, 2 * MIB, SEEK_HOLE), 2 * MIB + 6);
	assert_int_equal(layer_seek(layer, ino, 3 * MIB, SEEK_HOLE), -ENXIO);
	ino = find(layer, NULL, "last");
	assert_int_equal(layer_seek(layer, ino, 3, SEEK_DATA), 3);
	assert_int_equal(layer_seek(layer, ino, 3, SEEK_HOLE), 7);
	assert_int_equal(layer_seek(layer, ino, 7, SEEK_DATA), -ENXIO);
	layer_unref(layer);
}

static void test_not_files(void **state)
{
	struct fixture *f = *state;
	struct layer *layer = open_layer(f);

	assert_int_equal(layer_read(layer, INDEX_ROOT, 0, f->out, 1, &f->wait), -EISDIR);
	assert_int_equal(layer_read(layer, find(layer, NULL, "link"), 0, f->out, 1, &f->wait),
			 -EINVAL);
	assert_int_equal(layer_read(layer, 1000000, 0, f->out, 1, &f->wait), -EIO);
	layer_unref(layer);
}

static void test_empty(void **state)
{
	struct fixture *f = *state;
	struct layer *layer;
	struct index_inode root;

	set_blob(f, "", 0);
	assert_int_equal(layer_open(f->layers, &f->id, NULL, &f->wait, &layer), 0);
	assert_int_equal(index_inode(layer_index(layer), INDEX_ROOT, &root), 0);
	assert_int_equal(root.nchildren, 0);
	layer_unref(layer);
}

/* --- what may be wrong --- */

static int try_open(struct fixture *f, const struct digest *diff_id)
{
	const struct layer_claims claims = {.diff_id = diff_id};
	struct layer *layer = NULL;

	int r = layer_open(f->layers, &f->id, &claims, &f->wait, &layer);
	if (r == 0)
		layer_unref(layer);
	return r;
}

static void test_wrong_digest(void **state)
{
	struct fixture *f = *state;
	struct cache_id id = {.kind = CACHE_INDEX};
	AUTO_BUF struct buf file = BUF_INIT(ARCHIVE_MAX);

	/* in the last bytes: all of it decoded well */
	fakestore_corrupt(f->store, f->id.size - 2, 1);
	assert_int_equal(try_open(f, NULL), -EIO);
	digest_key(&f->digest, id.key);
	assert_int_equal(cache_get(f->cache, &id, &file), -ENOENT);
}

/* What does not decode is first of all a blob with a wrong digest, and the next try gets another.
 */
static void test_wrong_digest_at_the_start(void **state)
{
	struct fixture *f = *state;
	int64_t mismatches = stats_get(STAT_DIGEST_MISMATCHES);

	fakestore_corrupt(f->store, 3, 1);
	assert_int_equal(try_open(f, NULL), -EIO);
	assert_int_equal(stats_get(STAT_DIGEST_MISMATCHES), mismatches + 1);
	reopen(f);
	assert_int_equal(try_open(f, NULL), 0);
}

static void test_not_a_layer(void **state)
{
	struct fixture *f = *state;
	int64_t hits;

	f->layers->retry_ms = 0;
	/* a text in gzip; half a tar; a cut stream */
	buf_clear(&f->blob);
	add_isal(&f->blob, f->big, 3 * MIB, 1);
	set_blob(f, f->blob.data, f->blob.len);
	assert_int_equal(try_open(f, NULL), -EIO);
	hits = stats_get(STAT_CACHE_HITS);
	assert_int_equal(try_open(f, NULL), -EIO);
	/* it is not decoded again to be found wrong again */
	assert_int_equal(stats_get(STAT_CACHE_HITS), hits);
	set_blob(f, f->tar.data, 2 * MIB);
	assert_int_equal(try_open(f, NULL), -EIO);
	use(f, GZIP);
	set_blob(f, f->blob.data, f->blob.len - 100);
	assert_int_equal(try_open(f, NULL), -EIO);
}

static void test_diff_id(void **state)
{
	struct fixture *f = *state;
	struct digest wrong = f->diff_id;

	wrong.bytes[0] ^= 1;
	use(f, PLAIN);
	assert_int_equal(try_open(f, &wrong), -EIO);
	assert_int_equal(try_open(f, &f->diff_id), 0);
	/* beside the decoding it may have been given up; where it was not, it is right */
	use(f, GZIP);
	assert_int_equal(try_open(f, &f->diff_id), 0);
}

/* Up to what the ring holds it cannot fail to keep up; beyond, it is right or given up. */
static void test_diff_beside(void **state)
{
	struct fixture *f = *state;
	struct digest digest, expected;

	struct diff *diff = diff_start();
	diff_push(diff, f->big, 700000);
	diff_push(diff, f->big + 700000, 1);
	assert_true(diff_finish(diff, &digest));
	digest_of(DIGEST_SHA256, f->big, 700001, &expected);
	assert_true(digest_equal(&digest, &expected));
	diff = diff_start();
	for (int i = 0; i < 10; i++)
		diff_push(diff, f->big, BIG);
	if (diff_finish(diff, &digest)) {
		struct hasher *hasher = hasher_new(DIGEST_SHA256);
		for (int i = 0; i < 10; i++)
			hasher_add(hasher, f->big, BIG);
		hasher_final(hasher, &expected);
		hasher_free(hasher);
		assert_true(digest_equal(&digest, &expected));
	}
	/* one that nobody wants any more */
	diff = diff_start();
	diff_push(diff, f->big, BIG);
	diff_free(diff);
	diff_free(NULL);
}

/* Of what is at hand nothing is waited for: it ends all the same. */
static void test_backing_is_called_off(void **state)
{
	struct fixture *f = *state;
	struct wait wait;

	set_blob(f, f->tar.data, f->tar.len);
	struct layer *layer = open_layer(f);
	uint32_t ino = find(layer, NULL, "big");
	assert_int_equal(layer_read(layer, ino, 0, f->out, BIG, &f->wait), BIG);
	wait_init(&wait, false);
	wait_cancel(&wait);
	assert_true(layer_make_backing(layer, ino, &wait) < 0);
	assert_int_equal(layer_backing(layer, ino, &f->wait), -ENOENT);
	wait_release(&wait);
	assert_int_equal(layer_make_backing(layer, ino, &f->wait), 0);
	AUTO_CLOSE int fd = layer_backing(layer, ino, &f->wait);
	assert_int_equal(pread_full(fd, f->out, BIG, 0), BIG);
	assert_memory_equal(f->out, f->big, BIG);
	layer_unref(layer);
}

static void test_damaged_index(void **state)
{
	struct fixture *f = *state;
	struct cache_id id = {.kind = CACHE_INDEX};
	AUTO_BUF struct buf file = BUF_INIT(ARCHIVE_MAX);

	assert_int_equal(try_open(f, NULL), 0);
	digest_key(&f->digest, id.key);
	assert_int_equal(cache_get(f->cache, &id, &file), 0);
	file.data[file.len / 2] ^= 1;
	assert_int_equal(cache_put(f->cache, &id, file.data, file.len), 0);
	reopen(f);
	struct layer *layer = open_layer(f);
	check_all(f, layer);
	layer_unref(layer);
}

/* Sound, and that of another layer of the same size. */
static void test_index_of_another(void **state)
{
	struct fixture *f = *state;
	struct cache_id id = {.kind = CACHE_INDEX};
	AUTO_BUF struct buf file = BUF_INIT(ARCHIVE_MAX);
	AUTO_BUF struct buf a = BUF_INIT(4096), b = BUF_INIT(4096);
	struct layer *layer;

	add_file(&a, "one", "1", 1);
	add_file(&b, "one", "2", 1);
	set_blob(f, a.data, a.len);
	assert_int_equal(try_open(f, NULL), 0);
	digest_key(&f->digest, id.key);
	assert_int_equal(cache_get(f->cache, &id, &file), 0);
	set_blob(f, b.data, b.len);
	digest_key(&f->digest, id.key);
	assert_int_equal(cache_put(f->cache, &id, file.data, file.len), 0);
	assert_int_equal(layer_open(f->layers, &f->id, NULL, &f->wait, &layer), 0);
	find(layer, NULL, "one");
	layer_unref(layer);
}

static void test_broken_index(void **state)
{
	struct fixture *f = *state;
	struct layer *held = open_layer(f);
	uint32_t ino = find(held, NULL, "big");
	struct layer *layer;

	/* what the cache says when the file was cut */
	*held->map.broken = true;
	assert_int_equal(layer_read(held, ino, 0, f->out, 10, &f->wait), -EIO);
	assert_true(layer_broken(held));
	/* others get a new one, beside it */
	layer = open_layer(f);
	assert_ptr_not_equal(layer, held);
	check_all(f, layer);
	layer_unref(held);
	layer_unref(layer);
}

static int verify(struct fixture *f, struct buf *ret_index)
{
	struct cache_id id = {.kind = CACHE_INDEX};

	digest_key(&f->digest, id.key);
	int r = layer_verify(f->blobs, f->cache, &id, &f->wait);
	buf_clear(ret_index);
	cache_get(f->cache, &id, ret_index);
	return r;
}

static void put_diff_id(struct fixture *f, struct buf *file, const struct digest *diff_id)
{
	struct cache_id id = {.kind = CACHE_INDEX};

	digest_key(&f->digest, id.key);
	assert_int_equal(index_set_diff_id(file, diff_id), 0);
	assert_int_equal(cache_put(f->cache, &id, file->data, file->len), 0);
}

static void test_verify(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf file = BUF_INIT(ARCHIVE_MAX);
	const struct digest none = {.algo = DIGEST_NONE};
	struct digest wrong = f->diff_id;
	struct index index;

	wrong.bytes[0] ^= 1;
	assert_int_equal(try_open(f, NULL), 0);
	assert_int_equal(verify(f, &file), 0);
	put_diff_id(f, &file, &none);
	assert_int_equal(verify(f, &file), 0);
	assert_int_equal(index_open(file.data, file.len, &index), 0);
	assert_true(digest_equal(&index.info.diff_id, &f->diff_id));
	put_diff_id(f, &file, &wrong);
	assert_int_equal(verify(f, &file), -EIO);
	assert_int_equal(file.len, 0);
	/* what is not whole in the cache is not asked for */
	use(f, FRAMES);
	assert_int_equal(try_open(f, NULL), 0);
	evict(f);
	assert_int_equal(verify(f, &file), -ENOENT);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 2);
}

/* Its index knows which digest it is about. */
static void test_verify_sha512(void **state)
{
	static const enum kind kinds[] = {GZIP, PLAIN};
	struct fixture *f = *state;
	AUTO_BUF struct buf file = BUF_INIT(ARCHIVE_MAX);

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		use(f, kinds[i]);
		digest_of(DIGEST_SHA512, f->blob.data, f->blob.len, &f->digest);
		fakestore_add_wrong_blob(f->store, f->id.repo, &f->digest, f->blob.data,
					 f->blob.len);
		assert_int_equal(try_open(f, NULL), 0);
		unsigned fetched = fakestore_calls(f->store, FAKE_OPEN_BLOB);
		assert_int_equal(verify(f, &file), 0);
		assert_true(file.len > 0);
		/* and all of it is still there */
		reopen(f);
		struct layer *layer = open_layer(f);
		check_all(f, layer);
		layer_unref(layer);
		assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), fetched);
	}
}

static void test_store_errors(void **state)
{
	struct fixture *f = *state;

	fakestore_fail(f->store, FAKE_OPEN_BLOB, -EHOSTUNREACH);
	assert_int_equal(try_open(f, NULL), -EHOSTUNREACH);
	reopen(f);
	fakestore_fail(f->store, FAKE_OPEN_BLOB, 0);
	fakestore_fail_at(f->store, 2 * MIB, -ETIMEDOUT);
	assert_int_equal(try_open(f, NULL), -ETIMEDOUT);
	reopen(f);
	fakestore_fail_at(f->store, 0, 0);
	assert_int_equal(try_open(f, NULL), 0);
}

static void test_other_source(void **state)
{
	struct fixture *f = *state;
	struct blob_id other = f->id;
	struct layer *layer = open_layer(f), *same;

	fakestore_add_blob(f->store, "team/copy", f->blob.data, f->blob.len, NULL);
	other.repo = "team/copy";
	assert_int_equal(layer_open(f->layers, &other, NULL, &f->wait, &same), 0);
	assert_ptr_equal(layer, same);
	layer_unref(same);
	fakestore_remove_blob(f->store, "team/app", &f->digest);
	evict(f);
	check_all(f, layer);
	/* and is not asked first again */
	assert_int_equal(atomic_load(&layer->preferred), 1);
	layer_unref(layer);
}

/* --- waiting --- */

static void test_would_block(void **state)
{
	struct fixture *f = *state;
	struct layer *layer;
	struct wait quick;

	wait_init(&quick, false);
	assert_int_equal(layer_open(f->layers, &f->id, NULL, &quick, &layer), -EWOULDBLOCK);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 0);
	layer_unref(open_layer(f));
	assert_int_equal(layer_open(f->layers, &f->id, NULL, &quick, &layer), 0);
	uint32_t big = find(layer, NULL, "big");
	assert_int_equal(layer_read(layer, big, 5 * MIB, f->out, 100000, &quick), 100000);
	assert_memory_equal(f->out, f->big + 5 * MIB, 100000);
	evict(f);
	assert_int_equal(layer_read(layer, big, 9 * MIB, f->out, 100, &quick), -EWOULDBLOCK);
	check_big(f, layer, 9 * MIB, 100);
	assert_int_equal(layer_read(layer, big, 9 * MIB, f->out, 100, &quick), 100);
	layer_unref(layer);
	/* mapped from the cache without waiting, after a remount too */
	reopen(f);
	assert_int_equal(layer_open(f->layers, &f->id, NULL, &quick, &layer), 0);
	layer_unref(layer);
	wait_release(&quick);
}

/* Until nothing is done in the background. */
static void drain(struct fixture *f)
{
	pthread_mutex_lock(&f->layers->lock);
	while (f->layers->running > 0)
		pthread_cond_wait(&f->layers->drained, &f->layers->lock);
	pthread_mutex_unlock(&f->layers->lock);
}

/* Who reads on finds the next spans decoded, who reads here and there has no more done than needed.
 */
static void test_decoded_ahead(void **state)
{
	const size_t len = 128 * KIB;
	struct fixture *f = *state;
	struct wait quick;

	use(f, GZIP);
	f->layers->ahead_max = 2;
	struct layer *layer = open_layer(f);
	uint32_t big = find(layer, NULL, "big");
	int64_t spans = stats_get(STAT_SPANS_DECODED);
	check_big(f, layer, 9 * MIB, len);
	check_big(f, layer, 5 * MIB, len);
	check_big(f, layer, 7 * MIB, len);
	drain(f);
	assert_int_equal(stats_get(STAT_SPANS_DECODED) - spans, 3);
	check_big(f, layer, 0, len);
	check_big(f, layer, len, len);
	drain(f);
	assert_in_range(stats_get(STAT_SPANS_DECODED) - spans, 5, 7);
	/* nothing is needed for it that is not in memory */
	evict(f);
	wait_init(&quick, false);
	assert_int_equal(layer_read(layer, big, 2 * MIB, f->out, len, &quick), len);
	assert_memory_equal(f->out, f->big + 2 * MIB, len);
	assert_int_equal(layer_read(layer, big, 11 * MIB, f->out, len, &quick), -EWOULDBLOCK);
	wait_release(&quick);
	/* the file's last span: it ends where the file does */
	check_big(f, layer, BIG - 2 * len, len);
	check_big(f, layer, BIG - len, len);
	drain(f);
	check_all(f, layer);
	layer_unref(layer);
}

/* Made of what is at hand, without a wait: nobody else decodes what it comes to. */
static void test_backing_of_what_is_packed(void **state)
{
	struct fixture *f = *state;
	struct wait wait;

	use(f, GZIP);
	f->layers->ahead_max = 2;
	struct layer *layer = open_layer(f);
	uint32_t big = find(layer, NULL, "big");
	wait_init(&wait, false);
	wait_set_background(&wait);
	assert_int_equal(layer_make_backing(layer, big, &wait), 0);
	wait_release(&wait);
	AUTO_CLOSE int fd = layer_backing(layer, big, &f->wait);
	assert_int_equal(pread_full(fd, f->out, BIG, 0), BIG);
	assert_memory_equal(f->out, f->big, BIG);
	layer_unref(layer);
}

struct opener {
	pthread_t thread;
	struct fixture *f;
	const char *repo;
	struct wait wait;
	uint64_t off;
	size_t len;
	int result;
};

static void *opener_main(void *arg)
{
	struct opener *o = arg;
	struct layer *layer = NULL;
	AUTO_FREE uint8_t *out = malloc(o->len + 1);

	struct blob_id id = o->f->id;
	if (o->repo)
		id.repo = o->repo;
	o->result = layer_open(o->f->layers, &id, NULL, &o->wait, &layer);
	if (o->result < 0)
		return NULL;
	ssize_t n = layer_read(layer, find(layer, NULL, "big"), o->off, out, o->len, &o->wait);
	if (n < 0)
		o->result = n;
	else if (n != (ssize_t)o->len || memcmp(out, o->f->big + o->off, n) != 0)
		o->result = -EBADMSG;
	layer_unref(layer);
	return NULL;
}

static void opener_start(struct opener *o, struct fixture *f, uint64_t off, size_t len)
{
	*o = (struct opener){.f = f, .off = off, .len = len};
	wait_init(&o->wait, true);
	assert_int_equal(pthread_create(&o->thread, NULL, opener_main, o), 0);
}

static int opener_join(struct opener *o)
{
	pthread_join(o->thread, NULL);
	wait_release(&o->wait);
	return o->result;
}

static void test_single_flight(void **state)
{
	struct fixture *f = *state;
	struct opener openers[6];
	int64_t indexed = stats_get(STAT_LAYERS_INDEXED);

	fakestore_stall_at(f->store, 1000000);
	for (size_t i = 0; i < ARRAY_SIZE(openers); i++)
		opener_start(&openers[i], f, i / 2 * 3 * MIB, 3 * MIB);
	fakestore_await_stalled(f->store, 1);
	fakestore_release(f->store);
	for (size_t i = 0; i < ARRAY_SIZE(openers); i++)
		assert_int_equal(opener_join(&openers[i]), 0);
	assert_int_equal(stats_get(STAT_LAYERS_INDEXED), indexed + 1);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 1);
}

/* As many first passes as may be at once, and all of them stall: another store's layer does not. */
static void test_stalled_store(void **state)
{
	struct fixture *f = *state;
	struct store *other = fakestore_new("other.test");
	const struct blob_id stalled = f->id;

	fakestore_stall(f->store, FAKE_OPEN_BLOB);
	for (size_t i = 0; i < LAYERS_BUILDS_MAX; i++) {
		struct blob_id id = stalled;
		id.size += i;
		layer_prepare(f->layers, &id, NULL);
	}
	fakestore_await_stalled(f->store, LAYERS_BUILDS_MAX);
	fakestore_add_blob(other, "app", f->tar.data, f->tar.len, &f->digest);
	f->id = (struct blob_id){
		.digest = &f->digest, .size = f->tar.len, .store = other, .repo = "app"};
	layer_unref(open_layer(f));
	reopen(f);
	store_free(other);
}

static void test_interrupt(void **state)
{
	struct fixture *f = *state;
	struct opener a, b;

	fakestore_stall_at(f->store, 1000000);
	opener_start(&a, f, 0, 10);
	opener_start(&b, f, 0, 10);
	fakestore_await_stalled(f->store, 1);
	wait_cancel(&a.wait);
	assert_int_equal(opener_join(&a), -EINTR);
	fakestore_release(f->store);
	assert_int_equal(opener_join(&b), 0);

	struct layer *layer = open_layer(f);
	evict(f);
	fakestore_stall(f->store, FAKE_OPEN_BLOB);
	opener_start(&a, f, 8 * MIB, 10);
	fakestore_await_stalled(f->store, 1);
	wait_cancel(&a.wait);
	assert_int_equal(opener_join(&a), -EINTR);
	fakestore_release(f->store);
	check_big(f, layer, 8 * MIB, 10);
	layer_unref(layer);
}

static void test_one_decoding_for_two(void **state)
{
	struct fixture *f = *state;
	struct layer *layer = open_layer(f);
	struct opener a, b;
	int64_t decoded = stats_get(STAT_SPANS_DECODED);

	evict(f);
	fakestore_stall(f->store, FAKE_OPEN_BLOB);
	opener_start(&a, f, 8 * MIB, 10);
	opener_start(&b, f, 8 * MIB, 10);
	fakestore_await_stalled(f->store, 1);
	fakestore_release(f->store);
	assert_int_equal(opener_join(&a), 0);
	assert_int_equal(opener_join(&b), 0);
	assert_int_equal(stats_get(STAT_SPANS_DECODED), decoded + 1);
	layer_unref(layer);
}

static void test_build_from_another_source(void **state)
{
	struct fixture *f = *state;
	struct opener a;

	fakestore_stall(f->store, FAKE_OPEN_BLOB);
	a = (struct opener){.f = f, .repo = "team/none"};
	wait_init(&a.wait, true);
	assert_int_equal(pthread_create(&a.thread, NULL, opener_main, &a), 0);
	fakestore_await_stalled(f->store, 1);
	struct opener b;
	opener_start(&b, f, 0, 10);
	fakestore_release(f->store);
	/* Whether a looks again before or after b has built it is open. */
	int of_a = opener_join(&a), of_b = opener_join(&b);
	assert_true(of_a == -ENOENT || of_a == 0);
	assert_int_equal(of_b, 0);
}

static void test_prepare(void **state)
{
	struct fixture *f = *state;

	fakestore_stall_at(f->store, 1000000);
	layer_prepare(f->layers, &f->id, NULL);
	fakestore_await_stalled(f->store, 1);
	fakestore_release(f->store);
	struct layer *layer = open_layer(f);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 1);
	layer_prepare(f->layers, &f->id, NULL);
	layer_unref(layer);
}

static void test_free_ends_builds(void **state)
{
	struct fixture *f = *state;

	fakestore_stall_at(f->store, 1000000);
	layer_prepare(f->layers, &f->id, NULL);
	fakestore_await_stalled(f->store, 1);
	/* teardown frees the layers while it stalls */
}

static void test_unwanted_build_ends(void **state)
{
	struct fixture *f = *state;
	struct opener a;
	int64_t indexed = stats_get(STAT_LAYERS_INDEXED);

	fakestore_stall_at(f->store, 1000000);
	opener_start(&a, f, 0, 10);
	fakestore_await_stalled(f->store, 1);
	pthread_mutex_lock(&f->layers->lock);
	f->layers->idle_ms = 0;
	pthread_mutex_unlock(&f->layers->lock);
	wait_cancel(&a.wait);
	assert_int_equal(opener_join(&a), -EINTR);
	fakestore_release(f->store);
	for (unsigned running = 1; running > 0; sched_yield()) {
		pthread_mutex_lock(&f->layers->lock);
		running = f->layers->running;
		pthread_mutex_unlock(&f->layers->lock);
	}
	pthread_mutex_lock(&f->layers->lock);
	f->layers->idle_ms = BUILD_IDLE_MS;
	pthread_mutex_unlock(&f->layers->lock);
	/* and that is no failure that anybody remembers */
	assert_int_equal(stats_get(STAT_LAYERS_INDEXED), indexed);
	layer_unref(open_layer(f));
}

static void test_many_layers_stay_bounded(void **state)
{
	struct fixture *f = *state;
	struct layer *held = open_layer(f);
	char text[64];

	for (int i = 0; i < 2 * LAYERS_IDLE_MAX; i++) {
		AUTO_BUF struct buf tar = BUF_INIT(4096);
		struct digest digest;
		struct blob_id id = f->id;

		snprintf(text, sizeof(text), "file %d", i);
		add_file(&tar, "f", text, strlen(text));
		fakestore_add_blob(f->store, "team/app", tar.data, tar.len, &digest);
		id.digest = &digest;
		id.size = tar.len;
		struct layer *layer;
		assert_int_equal(layer_open(f->layers, &id, NULL, &f->wait, &layer), 0);
		layer_unref(layer);
	}
	pthread_mutex_lock(&f->layers->lock);
	assert_in_range(f->layers->idle, 1, LAYERS_IDLE_MAX);
	pthread_mutex_unlock(&f->layers->lock);
	check_all(f, held);
	layer_unref(held);
}

/* --- a cache that keeps nothing --- */

static void check_no_cache(struct fixture *f, enum kind kind)
{
	use(f, kind);
	struct layer *layer = open_layer(f);
	uint64_t before = fakestore_bytes(f->store);

	for (uint64_t off = 0; off < BIG; off += 131072)
		check_big(f, layer, off, MIN(131072, BIG - off));
	/* a sequential reader costs the blob about once more, not once for each read */
	assert_in_range(fakestore_bytes(f->store) - before, 1, 2 * f->id.size);
	layer_unref(layer);
}

static void test_no_cache_gzip(void **state)
{
	check_no_cache(*state, GZIP);
}

static void test_no_cache_one_frame(void **state)
{
	check_no_cache(*state, ONE_FRAME);
}

static void test_no_cache_plain(void **state)
{
	check_no_cache(*state, PLAIN);
}

#define TEST(name)	    cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_NO_CACHE(name) cmocka_unit_test_setup_teardown(name, setup_no_cache, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_plain),
		TEST(test_gzip),
		TEST(test_zstd_frames),
		TEST(test_zstd_big_frames),
		TEST(test_zstd_one_frame),
		TEST(test_range_of_evicted_blob),
		TEST(test_one_request_for_a_span),
		TEST(test_whole_files_gzip),
		TEST(test_whole_files_plain),
		TEST(test_kept_output_of_one_frame),
		TEST(test_kept_output_of_big_frames),
		TEST(test_small_reads),
		TEST(test_sparse),
		TEST(test_not_files),
		TEST(test_empty),
		TEST(test_wrong_digest),
		TEST(test_wrong_digest_at_the_start),
		TEST(test_not_a_layer),
		TEST(test_diff_id),
		TEST(test_diff_beside),
		TEST(test_backing_is_called_off),
		TEST(test_damaged_index),
		TEST(test_index_of_another),
		TEST(test_broken_index),
		TEST(test_verify),
		TEST(test_verify_sha512),
		TEST(test_store_errors),
		TEST(test_other_source),
		TEST(test_would_block),
		TEST(test_decoded_ahead),
		TEST(test_backing_of_what_is_packed),
		TEST(test_single_flight),
		TEST(test_stalled_store),
		TEST(test_interrupt),
		TEST(test_one_decoding_for_two),
		TEST(test_build_from_another_source),
		TEST(test_prepare),
		TEST(test_free_ends_builds),
		TEST(test_unwanted_build_ends),
		TEST(test_many_layers_stay_bounded),
		TEST_NO_CACHE(test_no_cache_gzip),
		TEST_NO_CACHE(test_no_cache_one_frame),
		TEST_NO_CACHE(test_no_cache_plain),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
