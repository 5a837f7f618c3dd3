// SPDX-License-Identifier: Apache-2.0
/*
 * layer: whatever wrote a layer without a table of contents, once it was passed over a small read
 * in its middle costs a span of compressed bytes at most. Bytes are counted.
 */
#include <ftw.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <cmocka.h>
#include <zstd.h>

#include "../../src/layer_priv.h"
#include "codec_streams.h"
#include "fakestore.h"
#include "regfs/log.h"
#include "regfs/tar.h"

#define FILE_LEN  (9 * MIB + 345)
#define READ_LEN  4096
#define BLOBS_MAX (64 * MIB)

struct fixture {
	char dir[64];
	struct cache *cache;
	struct pool *jobs;
	struct blobs *blobs;
	struct layers *layers;
	struct store *store;
	struct wait wait;
	struct buf tar, blob;
	uint8_t *file;
};

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

/* Some of it repeats, much of it does not: about 2:1. */
static void fill(uint8_t *data, size_t len)
{
	uint64_t x = 7;

	for (size_t i = 0; i < len; i++)
		data[i] = i % 64 < 32 ? 'a' + (i / 64) % 26 : (uint8_t)codec_random(&x);
}

static void make_tar(struct fixture *f)
{
	const struct tar_member member = {.path = "file", .mode = S_IFREG | 0644, .size = FILE_LEN};
	static const char zeros[TAR_TRAILER];

	assert_int_equal(tar_header(&member, &f->tar), 0);
	assert_int_equal(buf_add(&f->tar, f->file, FILE_LEN), 0);
	assert_int_equal(buf_add(&f->tar, zeros, tar_padding(FILE_LEN)), 0);
	assert_int_equal(buf_add(&f->tar, zeros, TAR_TRAILER), 0);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	snprintf(f->dir, sizeof(f->dir), "/tmp/regfs-forms-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	assert_int_equal(cache_open(f->dir, 256 * MIB, &f->cache), 0);
	f->jobs = pool_new("jobs", 0);
	f->blobs = blobs_new(f->cache, f->jobs, 60000);
	f->layers = layers_new(f->blobs, f->cache, f->jobs);
	f->store = fakestore_new("fake.test");
	wait_init(&f->wait, true);
	f->tar = (struct buf)BUF_INIT(BLOBS_MAX);
	f->blob = (struct buf)BUF_INIT(BLOBS_MAX);
	f->file = malloc(FILE_LEN);
	assert_non_null(f->file);
	fill(f->file, FILE_LEN);
	make_tar(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	layers_free(f->layers);
	blobs_free(f->blobs);
	pool_free(f->jobs);
	cache_close(f->cache);
	store_free(f->store);
	wait_release(&f->wait);
	buf_release(&f->tar);
	buf_release(&f->blob);
	free(f->file);
	nftw(f->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static struct layer *open_blob(struct fixture *f)
{
	struct digest digest;
	struct layer *layer;

	fakestore_add_blob(f->store, "app", f->blob.data, f->blob.len, &digest);
	const struct blob_id id = {
		.digest = &digest, .size = f->blob.len, .store = f->store, .repo = "app"};
	assert_int_equal(layer_open(f->layers, &id, NULL, &f->wait, &layer), 0);
	return layer;
}

static void read_at(struct fixture *f, struct layer *layer, uint64_t off)
{
	struct index_name found;
	uint8_t out[READ_LEN];

	assert_int_equal(index_lookup(layer_index(layer), INDEX_ROOT, "file", 4, &found), 0);
	assert_int_equal(layer_read(layer, found.ino, off, out, READ_LEN, &f->wait), READ_LEN);
	assert_memory_equal(out, f->file + off, READ_LEN);
}

/* The blob is a layer: a pass, and then single reads of what the cache does not hold. SPAN is
 * LAYER_GAP where there are no points: what lies further behind the last one is kept decoded. */
static void check_form(struct fixture *f, uint64_t span)
{
	struct layer *layer = open_blob(f);

	assert_int_equal(layer_index(layer)->info.keep_decoded, span == LAYER_GAP);
	struct cache_id blocks = {.kind = CACHE_BLOB};
	digest_key(&layer->digest, blocks.key);
	cache_drop(f->cache, &blocks, BLOBS_MAX / CACHE_BLOCK, 0);
	/* SPAN, the piece that the next point lies behind, and a block cut at either end */
	uint64_t most = (span + LAYER_PIECE) * f->blob.len / f->tar.len + 2 * CACHE_BLOCK;
	for (uint64_t off = 2 * MIB + 77; off < FILE_LEN - MIB; off += 5 * MIB / 2) {
		uint64_t bytes = fakestore_bytes(f->store);

		read_at(f, layer, off);
		assert_in_range(fakestore_bytes(f->store) - bytes, 0, most);
	}
	layer_unref(layer);
}

static void check_deflate(struct fixture *f, const struct deflate_options *options)
{
	add_zlib(&f->blob, (const uint8_t *)f->tar.data, f->tar.len, options);
	check_form(f, LAYER_SPACING);
}

static struct deflate_options deflate_options(int level)
{
	return (struct deflate_options){.level = level};
}

static void test_one_member(void **state)
{
	const struct deflate_options options = deflate_options(1);

	check_deflate(*state, &options);
}

static void test_stored_blocks(void **state)
{
	const struct deflate_options options = deflate_options(0);

	check_deflate(*state, &options);
}

/* pigz: blocks of 128 KiB, each ended by a sync marker, with the window of the one before. */
static void test_pigz(void **state)
{
	struct deflate_options options = deflate_options(1);

	options.flush = Z_SYNC_FLUSH;
	options.flush_every = 128 * KIB;
	check_deflate(*state, &options);
}

/* --rsyncable: the window is forgotten every few KiB. */
static void test_rsyncable(void **state)
{
	struct deflate_options options = deflate_options(1);

	options.flush = Z_FULL_FLUSH;
	options.flush_every = 7919;
	check_deflate(*state, &options);
}

/* A single block of deflate, as igzip's level 0 makes it: there is no boundary to resume at. */
static void test_one_block(void **state)
{
	struct fixture *f = *state;

	add_isal(&f->blob, (const uint8_t *)f->tar.data, f->tar.len, 0);
	check_form(f, LAYER_GAP);
}

/* Something that is not packed much, and then what is packed as well as can be. */
static void fill_two(uint8_t *data, size_t literals)
{
	uint64_t x = 7;

	for (size_t i = 0; i < FILE_LEN; i++)
		if (i >= 1200 * KIB)
			data[i] = data[i - 997];
		else
			data[i] = i % 64 < literals ? (uint8_t)codec_random(&x) : 'a';
}

/* Where all matches are as long as can be, gzip(1) makes blocks of 8 MiB: between two points there
 * is much that is kept. The decoder comes to the point before what it has given so far ends, or
 * sees it when it has not given all before it yet. */
static void test_long_blocks(void **state)
{
	struct fixture *f = *state;
	struct deflate_options options = deflate_options(6);

	options.mem_level = 9;
	for (size_t literals = 20; literals < 28; literals += 2) {
		fill_two(f->file, literals);
		buf_clear(&f->tar);
		buf_clear(&f->blob);
		make_tar(f);
		add_zlib(&f->blob, (const uint8_t *)f->tar.data, f->tar.len, &options);
		struct layer *layer = open_blob(f);
		for (uint64_t off = 0; off < FILE_LEN - READ_LEN; off += LAYER_PIECE)
			read_at(f, layer, off);
		layer_unref(layer);
	}
}

static void check_pieces(struct fixture *f, enum codec codec, size_t piece)
{
	add_pieces(&f->blob, codec, (const uint8_t *)f->tar.data, f->tar.len, piece);
	check_form(f, LAYER_SPACING);
}

static void test_many_members(void **state)
{
	check_pieces(*state, CODEC_GZIP, 300 * KIB);
}

static void test_zstd_frames(void **state)
{
	check_pieces(*state, CODEC_ZSTD, 700 * KIB);
}

static void test_zstd_one_frame(void **state)
{
	struct fixture *f = *state;
	size_t bound = ZSTD_compressBound(f->tar.len);

	assert_int_equal(buf_reserve(&f->blob, bound), 0);
	size_t n = ZSTD_compress(f->blob.data, bound, f->tar.data, f->tar.len, 1);
	assert_false(ZSTD_isError(n));
	f->blob.len = n;
	check_form(f, LAYER_GAP);
}

static size_t allocated(void)
{
	struct mallinfo2 info = mallinfo2();

	return info.hblkhd + info.uordblks;
}

/* Decoders that wait to be used again may each have a window as large as their frame asks for. */
static void test_windows_at_rest(void **state)
{
	struct fixture *f = *state;
	ZSTD_CCtx *zstd = ZSTD_createCCtx();
	assert_int_equal(buf_reserve(&f->blob, ZSTD_compressBound(f->tar.len)), 0);
	size_t before = allocated(), known = 16 * MIB; /* pieces in memory, and the store's blobs */

	ZSTD_CCtx_setParameter(zstd, ZSTD_c_compressionLevel, 1);
	ZSTD_CCtx_setParameter(zstd, ZSTD_c_windowLog, 24);
	for (uint8_t i = 0; i < 8; i++) {
		f->tar.data[512] = (char)(f->file[0] = i);
		f->blob.len = ZSTD_compress2(zstd, f->blob.data, f->blob.cap, f->tar.data,
					     f->tar.len);
		assert_false(ZSTD_isError(f->blob.len));
		known += f->blob.len;
		struct layer *layer = open_blob(f);
		read_at(f, layer, 2 * MIB);
		layer_unref(layer);
	}
	ZSTD_freeCCtx(zstd);
	/* each has one of 9 MiB */
	assert_in_range(allocated(), 0, before + known + 5 * FILE_LEN);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_one_member),	TEST(test_many_members),   TEST(test_pigz),
		TEST(test_rsyncable),	TEST(test_stored_blocks),  TEST(test_one_block),
		TEST(test_zstd_frames), TEST(test_zstd_one_frame), TEST(test_windows_at_rest),
		TEST(test_long_blocks),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
