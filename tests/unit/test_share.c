/* SPDX-License-Identifier: Apache-2.0 */
/*
 * share: an image's index over the fake store and a real cache: what is put, and that nothing is
 * published after a failure. What readers make of it is for tests/fs/test_index_push.py.
 */
#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "codec_streams.h"
#include "fakestore.h"
#include "regfs/log.h"
#include "regfs/share.h"
#include "regfs/ztoc.h"

#define REPO	  "team/app"
#define SPAN_SIZE (100 * KIB)
#define FILE_SIZE (1 * MIB)

struct fixture {
	char dir[64];
	struct cache *cache;
	struct pool *jobs;
	struct blobs *blobs;
	struct layers *layers;
	struct images *images;
	struct oci_platform platform;
	struct store *store;
	struct wait wait;
	struct buf tar, blob;
	struct image *image;
	struct share_layer said[4];
	char reason[128];
	unsigned nsaid;
};

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

static void open_rooms(struct fixture *f)
{
	assert_int_equal(cache_open(f->dir, 64 * MIB, &f->cache), 0);
	f->jobs = pool_new("jobs", 0);
	f->blobs = blobs_new(f->cache, f->jobs, 60000);
	f->layers = layers_new(f->blobs, f->cache, f->jobs);
	const struct images_options options = {.blobs = f->blobs,
					       .layers = f->layers,
					       .cache = f->cache,
					       .platform = &f->platform};
	f->images = images_new(&options);
	assert_non_null(f->images);
}

/* One file of bytes that deflate has several blocks for. */
static void make_tar(struct buf *tar)
{
	const struct tar_member member = {
		.path = "file", .mode = S_IFREG | 0644, .size = FILE_SIZE};
	static const char trailer[TAR_TRAILER];

	assert_int_equal(tar_header(&member, tar), 0);
	assert_int_equal(buf_add(tar, codec_data, FILE_SIZE), 0);
	assert_int_equal(buf_add(tar, trailer, sizeof(trailer)), 0);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	snprintf(f->dir, sizeof(f->dir), "/tmp/regfs-share-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	assert_int_equal(oci_platform_parse("linux/amd64", &f->platform), 0);
	open_rooms(f);
	f->store = fakestore_new("fake.test");
	wait_init(&f->wait, true);
	f->tar.max = f->blob.max = 16 * MIB;
	make_tar(&f->tar);
	add_zlib(&f->blob, (uint8_t *)f->tar.data, f->tar.len,
		 &(struct deflate_options){.level = 1});
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	image_unref(f->image);
	images_free(f->images);
	layers_free(f->layers);
	blobs_free(f->blobs);
	pool_free(f->jobs);
	cache_close(f->cache);
	store_free(f->store);
	wait_release(&f->wait);
	oci_platform_release(&f->platform);
	buf_release(&f->tar);
	buf_release(&f->blob);
	nftw(f->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

/* The image of one layer, DIGEST; the blob itself is the caller's to add. */
static void open_image(struct fixture *f, const struct digest *digest)
{
	char text[DIGEST_STR_MAX];
	struct digest manifest;
	AUTO_FREE char *json = format(
		"{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_MANIFEST "\",\"config\":{"
		"\"mediaType\":\"" OCI_TYPE_CONFIG "\",\"digest\":\"%s\",\"size\":9},"
		"\"layers\":[{\"mediaType\":\"" OCI_TYPE_LAYER_GZIP "\",\"digest\":\"%s\","
		"\"size\":%zu}]}",
		digest_format(digest, text), text, f->blob.len);

	fakestore_add_manifest(f->store, REPO, "1", OCI_TYPE_MANIFEST, json, &manifest);
	assert_int_equal(image_open(f->images, f->store, REPO, &manifest, &f->wait, &f->image), 0);
}

static void open_sound_image(struct fixture *f)
{
	struct digest digest;

	fakestore_add_blob(f->store, REPO, f->blob.data, f->blob.len, &digest);
	open_image(f, &digest);
}

static void on_layer(void *arg, const struct share_layer *layer)
{
	struct fixture *f = arg;

	assert_true(f->nsaid < ARRAY_SIZE(f->said));
	f->said[f->nsaid++] = *layer;
	snprintf(f->reason, sizeof(f->reason), "%s", layer->left_out ? layer->left_out : "");
}

static int share(struct fixture *f, struct digest *ret)
{
	const struct share_options options = {
		.blobs = f->blobs, .span_size = SPAN_SIZE, .say = on_layer, .arg = f};

	return share_image(&options, f->image, &f->wait, ret);
}

/* Each span decodes by itself, as raw deflate, to the tar's bytes. */
static void check_spans(const struct fixture *f, const struct ztoc *ztoc)
{
	AUTO_FREE uint8_t *out = malloc(f->tar.len);
	struct ztoc_span span;
	struct digest digest;
	const char *why = "";

	for (uint32_t i = 0; i < ztoc->nspans; i++) {
		assert_int_equal(ztoc_span(ztoc, i, &span, &why), 0);
		const uint8_t *in = (uint8_t *)f->blob.data + span.in_begin;
		size_t len = span.out_end - span.point.out_off, skip = span.point.bits ? 1 : 0;
		AUTO_DECODER struct decoder *decoder = decoder_resume(CODEC_GZIP, &span.point,
								      in[0]);

		digest_of(DIGEST_SHA256, in, span.in_end - span.in_begin, &digest);
		assert_true(digest_equal(&digest, &span.digest));
		decoder_input(decoder, in + skip, span.in_end - span.in_begin - skip, true);
		for (size_t got = 0; got < len;) {
			ssize_t n = decoder_read(decoder, out + got, len - got);

			assert_true(n > 0);
			got += (size_t)n;
		}
		assert_memory_equal(out, f->tar.data + span.point.out_off, len);
	}
}

static void test_index_of_one_layer(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf bytes = BUF_INIT(ZTOC_MAX);
	CLEANUP(store_manifest_release) struct store_manifest manifest = {0};
	char text[DIGEST_STR_MAX];
	const char *why = "";
	struct digest index;
	struct ztoc ztoc;

	open_sound_image(f);
	assert_int_equal(share(f, &index), 0);
	assert_int_equal(f->nsaid, 1);
	assert_null(f->said[0].left_out);
	assert_int_equal(f->said[0].nfiles, 1);
	assert_true(f->said[0].nspans >= 4);
	assert_int_equal(f->store->ops->get_manifest(f->store, REPO, digest_format(&index, text),
						     &manifest, &f->wait),
			 0);
	assert_non_null(strstr(manifest.bytes.data, digest_format(&f->said[0].ztoc, text)));
	const struct blob_id id = {.digest = &f->said[0].ztoc,
				   .size = f->said[0].ztoc_size,
				   .store = f->store,
				   .repo = REPO};
	assert_int_equal(blob_get(f->blobs, &id, ZTOC_MAX, &bytes, &f->wait), 0);
	assert_int_equal(ztoc_open(bytes.data, bytes.len, &ztoc, &why), 0);
	assert_int_equal(ztoc.nspans, f->said[0].nspans);
	check_spans(f, &ztoc);
}

/* Nothing more is put where all is there, and the layer is not fetched again. */
static void test_again(void **state)
{
	struct fixture *f = *state;
	struct digest first, second;

	open_sound_image(f);
	assert_int_equal(share(f, &first), 0);
	unsigned puts = fakestore_calls(f->store, FAKE_PUT_BLOB);
	uint64_t fetched = fakestore_bytes(f->store);
	assert_int_equal(puts, 2); /* the ztoc and the config */
	assert_int_equal(share(f, &second), 0);
	assert_true(digest_equal(&first, &second));
	assert_int_equal(fakestore_calls(f->store, FAKE_PUT_BLOB), puts);
	assert_int_equal(fakestore_bytes(f->store), fetched);
}

/* What the store has under a blob's name, but not all of it, is put once more. */
static void test_cut_short_there(void **state)
{
	struct fixture *f = *state;
	struct digest config, index;

	open_sound_image(f);
	digest_of(DIGEST_SHA256, OCI_EMPTY_JSON, strlen(OCI_EMPTY_JSON), &config);
	fakestore_add_wrong_blob(f->store, REPO, &config, "{", 1);
	assert_int_equal(share(f, &index), 0);
	assert_int_equal(fakestore_calls(f->store, FAKE_PUT_BLOB), 2);
}

/* Bytes that are not the blob's make no index, even where they decode to something. */
static void test_wrong_bytes(void **state)
{
	struct fixture *f = *state;
	struct digest digest;

	digest_of(DIGEST_SHA256, "other", 5, &digest);
	fakestore_add_wrong_blob(f->store, REPO, &digest, f->blob.data, f->blob.len);
	open_image(f, &digest);
	assert_int_equal(share(f, &digest), -EIO);
	assert_int_equal(f->nsaid, 0);
	assert_int_equal(fakestore_calls(f->store, FAKE_PUT_BLOB), 0);
}

/* Nor do those make one that are no archive; but what is wrong there is only said once they are
 * known to be the blob's. */
static void test_no_archive(void **state)
{
	struct fixture *f = *state;
	struct digest digest;

	buf_clear(&f->blob);
	add_zlib(&f->blob, codec_data, 100000, &(struct deflate_options){.level = 1});
	open_sound_image(f);
	assert_int_equal(share(f, &digest), 1);
	assert_int_equal(f->nsaid, 1);
	assert_non_null(strstr(f->reason, "tar"));
	image_unref(STEAL(f->image));

	digest_of(DIGEST_SHA256, "other", 5, &digest);
	fakestore_add_wrong_blob(f->store, REPO, &digest, f->blob.data, f->blob.len);
	open_image(f, &digest);
	assert_int_equal(share(f, &digest), -EIO);
	assert_int_equal(f->nsaid, 1);
}

static void test_a_store_that_refuses(void **state)
{
	struct fixture *f = *state;
	struct digest index;

	open_sound_image(f);
	fakestore_fail(f->store, FAKE_PUT_BLOB, -EACCES);
	assert_int_equal(share(f, &index), -EACCES);
	assert_int_equal(fakestore_calls(f->store, FAKE_PUT_MANIFEST), 0);
	fakestore_fail(f->store, FAKE_PUT_BLOB, 0);
	fakestore_fail(f->store, FAKE_PUT_MANIFEST, -EDQUOT);
	assert_int_equal(share(f, &index), -EDQUOT);
	fakestore_fail(f->store, FAKE_PUT_MANIFEST, 0);
	assert_int_equal(share(f, &index), 0);
}

static void test_called_off(void **state)
{
	struct fixture *f = *state;
	struct digest index;

	open_sound_image(f);
	wait_cancel(&f->wait);
	assert_int_equal(share(f, &index), -EINTR);
	assert_int_equal(fakestore_calls(f->store, FAKE_PUT_BLOB), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_index_of_one_layer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cut_short_there, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wrong_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_archive, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_store_that_refuses, setup, teardown),
		cmocka_unit_test_setup_teardown(test_called_off, setup, teardown),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, make_codec_data, free_codec_data);
}
