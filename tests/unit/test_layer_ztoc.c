// SPDX-License-Identifier: Apache-2.0
/*
 * layer, with a ztoc: opened without the blob, read span by span, and by the whole blob where the
 * ztoc is no use; over the fake store and a real cache.
 */
#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "../../src/layer_priv.h"
#include "fakestore.h"
#include "regfs/log.h"
#include "regfs/stats.h"
#include "regfs/ztoc.h"

#define FILE_SIZE 900000
#define SPAN	  (128 * KIB)
#define SPANS_MAX 32
#define HEADER	  10 /* of gzip, as encoder_piece() writes it */

struct fixture {
	char dir[64];
	struct cache *cache;
	struct pool *jobs;
	struct blobs *blobs;
	struct layers *layers;
	struct store *store;
	struct wait wait;
	uint8_t *data, *out;
	struct tar_member member;
	struct buf blob;
	struct digest digest;
	struct ztoc_span spans[SPANS_MAX];
	uint8_t windows[SPANS_MAX][CODEC_WINDOW];
	uint32_t nspans;
	struct blob_id id;
	struct toc_ref toc;
	struct layer_claims claims;
	int64_t passes;
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
	f->layers->toc_min = 0;
}

static void close_rooms(struct fixture *f)
{
	layers_free(f->layers);
	blobs_free(f->blobs);
	pool_free(f->jobs);
	cache_close(f->cache);
}

/* --- a layer --- */

static void add_header(struct fixture *f, struct buf *tar)
{
	f->member = (struct tar_member){
		.path = "file", .mode = S_IFREG | 0644, .size = FILE_SIZE, .mtime_sec = 1700000000};
	assert_int_equal(tar_header(&f->member, tar), 0);
	f->member.data_off = tar->len;
}

static int note_point(void *arg, const struct codec_point *point)
{
	struct fixture *f = arg;
	struct ztoc_span *span = &f->spans[f->nspans];
	uint8_t *window = f->windows[f->nspans];

	assert_true(f->nspans < SPANS_MAX && !point->member);
	span->point = *point;
	span->point.window = window + CODEC_WINDOW - point->window_len;
	memcpy(window + CODEC_WINDOW - point->window_len, point->window, point->window_len);
	f->nspans++;
	return 0;
}

/* Where the blob can be cut. */
static void find_points(struct fixture *f, size_t decoded_len)
{
	const struct decoder_options options = {.spacing = SPAN, .on_point = note_point, .arg = f};
	AUTO_DECODER struct decoder *decoder = decoder_new(CODEC_GZIP, &options);
	AUTO_FREE uint8_t *out = malloc(decoded_len + 1);

	assert_true(decoder && out);
	f->spans[0] = (struct ztoc_span){.point.in_off = HEADER};
	f->nspans = 1;
	decoder_input(decoder, f->blob.data, f->blob.len, true);
	while (decoder_read(decoder, out, decoded_len) > 0)
		continue;
	assert_true(decoder_done(decoder) && f->nspans > 3);
}

static void finish_spans(struct fixture *f, size_t decoded_len)
{
	for (uint32_t n = 0; n < f->nspans; n++) {
		struct ztoc_span *span = &f->spans[n];
		const struct ztoc_span *next = n + 1 < f->nspans ? span + 1 : NULL;

		span->in_begin = span->point.in_off - (span->point.bits ? 1 : 0);
		span->in_end = next ? next->point.in_off : f->blob.len;
		span->out_end = next ? next->point.out_off : decoded_len;
		digest_of(DIGEST_SHA256, f->blob.data + span->in_begin,
			  span->in_end - span->in_begin, &span->digest);
	}
}

/* One member of gzip: one file of bytes that make several deflate blocks. */
static void make_layer(struct fixture *f)
{
	AUTO_BUF struct buf tar = BUF_INIT(MIB);
	CLEANUP(buf_release) struct buf zeros = BUF_INIT(MIB);
	struct encoder *encoder = encoder_new(CODEC_GZIP, 6);
	uint32_t x = 1;

	for (size_t i = 0; i < FILE_SIZE; i++) {
		x = x * 1664525 + 1013904223;
		f->data[i] = "0123456789abcdefghijklmnopqrstuv"[x >> 27];
	}
	add_header(f, &tar);
	assert_int_equal(buf_add(&tar, f->data, FILE_SIZE), 0);
	size_t end = tar_padding(FILE_SIZE) + TAR_TRAILER;
	assert_int_equal(buf_reserve(&tar, end), 0);
	memset(tar.data + tar.len, 0, end);
	tar.len += end;
	f->blob.max = 2 * MIB;
	assert_int_equal(buf_reserve(&f->blob, encoder_bound(CODEC_GZIP, tar.len)), 0);
	ssize_t len = encoder_piece(encoder, tar.data, tar.len, f->blob.data, f->blob.cap);
	assert_true(len > 0);
	f->blob.len = (size_t)len;
	encoder_free(encoder);
	find_points(f, tar.len);
	finish_spans(f, tar.len);
	fakestore_add_blob(f->store, "repo", f->blob.data, f->blob.len, &f->digest);
	f->id = (struct blob_id){
		.digest = &f->digest, .size = f->blob.len, .store = f->store, .repo = "repo"};
}

/* A ztoc of what the fixture has; a test may have changed that. */
static void publish(struct fixture *f)
{
	struct ztoc_builder *builder = ztoc_builder_new(CODEC_GZIP, SPAN);
	AUTO_BUF struct buf ztoc = BUF_INIT(ZTOC_MAX);

	assert_non_null(builder);
	assert_int_equal(ztoc_builder_member(builder, &f->member), 0);
	for (uint32_t n = 0; n < f->nspans; n++)
		assert_int_equal(ztoc_builder_span(builder, &f->spans[n]), 0);
	assert_int_equal(ztoc_builder_finish(builder, &ztoc), 0);
	ztoc_builder_free(builder);
	f->toc = (struct toc_ref){.kind = TOC_ZTOC, .len = ztoc.len};
	fakestore_add_blob(f->store, "repo", ztoc.data, ztoc.len, &f->toc.packed);
	f->claims.toc = &f->toc;
}

static struct fixture *setup_sized(uint64_t cache_size)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	snprintf(f->dir, sizeof(f->dir), "/tmp/regfs-layer-ztoc-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	f->data = malloc(FILE_SIZE);
	f->out = malloc(FILE_SIZE);
	assert_true(f->data && f->out);
	f->store = fakestore_new("fake.example");
	wait_init(&f->wait, true);
	open_rooms(f, cache_size);
	make_layer(f);
	f->passes = stats_get(STAT_PASSES);
	return f;
}

static int setup(void **state)
{
	*state = setup_sized(256 * MIB);
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
	buf_release(&f->blob);
	store_free(f->store);
	wait_release(&f->wait);
	nftw(f->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	free(f->data);
	free(f->out);
	free(f);
	return 0;
}

/* --- looking --- */

static struct layer *open_layer(struct fixture *f)
{
	struct layer *layer = NULL;

	assert_int_equal(layer_open(f->layers, &f->id, &f->claims, &f->wait, &layer), 0);
	return layer;
}

static uint32_t file_of(struct layer *layer)
{
	struct index_name found;

	assert_int_equal(index_lookup(layer_index(layer), INDEX_ROOT, "file", 4, &found), 0);
	return found.ino;
}

static void check(struct fixture *f, struct layer *layer, uint64_t off, size_t len)
{
	memset(f->out, 0xee, len);
	assert_int_equal(layer_read(layer, file_of(layer), off, f->out, len, &f->wait), len);
	assert_memory_equal(f->out, f->data + off, len);
}

static bool logged(const char *words)
{
	AUTO_BUF struct buf text = BUF_INIT(16 * MIB);

	return log_recent(&text) == 0 && text.data && strstr(text.data, words);
}

/* Of the layer; a ztoc takes one too. */
static int64_t passes(const struct fixture *f)
{
	return stats_get(STAT_PASSES) - f->passes;
}

/* --- reading --- */

static void reads_spans(void **state)
{
	struct fixture *f = *state;

	publish(f);
	struct layer *layer = open_layer(f);
	uint64_t before = fakestore_bytes(f->store);

	assert_true(layer_index(layer)->info.by_spans);
	/* a piece from the middle: its span alone */
	check(f, layer, f->spans[2].point.out_off, 100);
	assert_true(fakestore_bytes(f->store) - before <=
		    f->spans[2].in_end - f->spans[2].in_begin);
	/* over the ends of all */
	check(f, layer, 0, FILE_SIZE);
	check(f, layer, FILE_SIZE - 1, 1);
	assert_true(fakestore_bytes(f->store) - before <= f->blob.len + f->nspans);
	layer_unref(layer);
	/* all of it is kept */
	close_rooms(f);
	open_rooms(f, 256 * MIB);
	fakestore_fail(f->store, FAKE_OPS, -ECONNREFUSED);
	layer = open_layer(f);
	check(f, layer, 0, FILE_SIZE);
	assert_int_equal(passes(f), 1);
	layer_unref(layer);
}

static void reads_without_a_cache(void **state)
{
	struct fixture *f = *state;

	publish(f);
	struct layer *layer = open_layer(f);
	check(f, layer, 0, FILE_SIZE);
	check(f, layer, 1, FILE_SIZE - 1);
	layer_unref(layer);
}

struct reader {
	struct fixture *f;
	struct layer *layer;
	uint8_t *out;
	ssize_t n;
};

static void *read_one(void *arg)
{
	struct reader *reader = arg;
	struct wait wait;

	wait_init(&wait, true);
	reader->n = layer_read(reader->layer, file_of(reader->layer), 1000, reader->out, 5000,
			       &wait);
	wait_release(&wait);
	return NULL;
}

static void one_request_for_many(void **state)
{
	struct fixture *f = *state;
	struct reader readers[8];
	pthread_t threads[8];

	publish(f);
	struct layer *layer = open_layer(f);
	unsigned calls = fakestore_calls(f->store, FAKE_OPEN_BLOB);

	fakestore_stall(f->store, FAKE_OPEN_BLOB);
	for (size_t i = 0; i < ARRAY_SIZE(readers); i++) {
		readers[i] = (struct reader){.f = f, .layer = layer, .out = malloc(5000)};
		assert_int_equal(pthread_create(&threads[i], NULL, read_one, &readers[i]), 0);
	}
	fakestore_await_stalled(f->store, 1);
	fakestore_release(f->store);
	for (size_t i = 0; i < ARRAY_SIZE(readers); i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(readers[i].n, 5000);
		assert_memory_equal(readers[i].out, f->data + 1000, 5000);
		free(readers[i].out);
	}
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB) - calls, 1);
	layer_unref(layer);
}

/* --- what is wrong --- */

static void wrong_on_the_way(void **state)
{
	struct fixture *f = *state;

	publish(f);
	struct layer *layer = open_layer(f);
	fakestore_corrupt(f->store, f->spans[1].in_begin + 50, 1);
	check(f, layer, f->spans[1].point.out_off, 1000);
	assert_int_equal(passes(f), 1);
	layer_unref(layer);
}

static void wrong_digest(void **state)
{
	struct fixture *f = *state;

	digest_of(DIGEST_SHA256, "", 0, &f->spans[1].digest);
	publish(f);
	struct layer *layer = open_layer(f);
	/* what is before it is fine */
	check(f, layer, 0, 1000);
	assert_int_equal(passes(f), 1);
	check(f, layer, f->spans[1].point.out_off, 1000);
	assert_int_equal(passes(f), 2);
	assert_true(logged("a chunk is not what it says"));
	check(f, layer, 0, FILE_SIZE);
	assert_int_equal(layer_bring_in(layer, &f->wait), 0);
	layer_unref(layer);
	/* from then on the index of all of it is used */
	close_rooms(f);
	open_rooms(f, 256 * MIB);
	layer = open_layer(f);
	assert_false(layer_index(layer)->info.by_toc);
	layer_unref(layer);
}

/* What a span decodes to depends on the ztoc's window: it is kept for that ztoc alone. */
static void another_window(void **state)
{
	struct fixture *f = *state;
	uint64_t off = f->spans[1].point.out_off;

	for (size_t i = 0; i < CODEC_WINDOW; i++)
		f->windows[1][i] ^= 1;
	publish(f);
	struct layer *layer = open_layer(f);
	assert_int_equal(layer_read(layer, file_of(layer), off, f->out, 20000, &f->wait), 20000);
	assert_memory_not_equal(f->out, f->data + off, 20000);
	layer_unref(layer);

	for (size_t i = 0; i < CODEC_WINDOW; i++)
		f->windows[1][i] ^= 1;
	publish(f);
	layer = open_layer(f);
	check(f, layer, off, 20000);
	layer_unref(layer);
	/* and not at all for the layer without one */
	f->claims.toc = NULL;
	layer = open_layer(f);
	check(f, layer, off, 20000);
	layer_unref(layer);
}

static void ztoc_of_another_layer(void **state)
{
	struct fixture *f = *state;

	f->spans[f->nspans - 1].in_end++;
	publish(f);
	struct layer *layer = open_layer(f);
	assert_false(layer_index(layer)->info.by_toc);
	assert_true(logged("of a layer of another size"));
	check(f, layer, 0, FILE_SIZE);
	layer_unref(layer);
}

static void ztoc_that_is_not_there(void **state)
{
	struct fixture *f = *state;

	publish(f);
	fakestore_remove_blob(f->store, "repo", &f->toc.packed);
	struct layer *layer = open_layer(f);
	assert_false(layer_index(layer)->info.by_toc);
	check(f, layer, 0, FILE_SIZE);
	layer_unref(layer);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(reads_spans),
		cmocka_unit_test_setup_teardown(reads_without_a_cache, setup_no_cache, teardown),
		TEST(one_request_for_many),
		TEST(wrong_on_the_way),
		TEST(wrong_digest),
		TEST(another_window),
		TEST(ztoc_of_another_layer),
		TEST(ztoc_that_is_not_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
