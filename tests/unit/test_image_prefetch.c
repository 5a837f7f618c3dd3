// SPDX-License-Identifier: Apache-2.0
/* image: the layers of an image that was entered come in, one after the other, and only if asked
 * for. */
#include <errno.h>
#include <ftw.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/blob_priv.h"
#include "../../src/image_priv.h"
#include "../../src/layer_priv.h"
#include "fakestore.h"
#include "regfs/log.h"

#define REPO   "team/app"
#define LAYERS 3

struct fixture {
	char dir[64];
	struct cache *cache;
	struct pool *jobs;
	struct blobs *blobs;
	struct layers *layers;
	struct images *images;
	struct store *store;
	struct image *image;
	struct wait wait;
};

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

/* A layer of one empty file, which is named after N. */
static void add_layer(struct fixture *f, int n, struct digest *ret, size_t *ret_len)
{
	AUTO_BUF struct buf tar = BUF_INIT(MIB);
	AUTO_FREE char *path = format("file%d", n);
	const struct tar_member member = {.path = path, .mode = S_IFREG | 0644};
	static const char zeros[TAR_TRAILER];

	assert_int_equal(tar_header(&member, &tar), 0);
	assert_int_equal(buf_add(&tar, zeros, sizeof(zeros)), 0);
	fakestore_add_blob(f->store, REPO, tar.data, tar.len, ret);
	*ret_len = tar.len;
}

static void add_image(struct fixture *f, struct digest *ret)
{
	AUTO_BUF struct buf layers = BUF_INIT(MIB), diff_ids = BUF_INIT(MIB);
	struct digest digest;
	char text[DIGEST_STR_MAX];
	size_t len;

	for (int n = 0; n < LAYERS; n++) {
		add_layer(f, n, &digest, &len);
		buf_printf(&layers,
			   "%s{\"mediaType\":\"" OCI_TYPE_LAYER
			   "\",\"digest\":\"%s\",\"size\":%zu}",
			   n ? "," : "", digest_format(&digest, text), len);
		buf_printf(&diff_ids, "%s\"%s\"", n ? "," : "", text);
	}
	AUTO_FREE char *config = format("{\"os\":\"linux\",\"architecture\":\"amd64\",\"rootfs\":"
					"{\"type\":\"layers\",\"diff_ids\":[%s]}}",
					diff_ids.data);
	fakestore_add_blob(f->store, REPO, config, strlen(config), &digest);
	AUTO_FREE char *json = format("{\"schemaVersion\":2,\"config\":{\"mediaType\":"
				      "\"" OCI_TYPE_CONFIG "\",\"digest\":\"%s\",\"size\":%zu},"
				      "\"layers\":[%s]}",
				      digest_format(&digest, text), strlen(config), layers.data);
	fakestore_add_manifest(f->store, REPO, NULL, OCI_TYPE_MANIFEST, json, ret);
}

static void open_rooms(struct fixture *f, bool prefetch)
{
	struct digest manifest;

	snprintf(f->dir, sizeof(f->dir), "/tmp/regfs-prefetch-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	assert_int_equal(cache_open(f->dir, 64 * MIB, &f->cache), 0);
	f->store = fakestore_new("fake.test");
	f->jobs = pool_new("jobs", 0);
	f->blobs = blobs_new(f->cache, f->jobs, 60000);
	f->layers = layers_new(f->blobs, f->cache, f->jobs);
	const struct images_options options = {.blobs = f->blobs,
					       .layers = f->layers,
					       .cache = f->cache,
					       .prefetch = prefetch ? f->jobs : NULL};
	f->images = images_new(&options);
	wait_init(&f->wait, true);
	add_image(f, &manifest);
	assert_int_equal(image_open(f->images, f->store, REPO, &manifest, &f->wait, &f->image), 0);
}

static void close_rooms(struct fixture *f)
{
	image_unref(f->image);
	images_free(f->images);
	layers_free(f->layers);
	blobs_free(f->blobs);
	pool_free(f->jobs);
	store_free(f->store);
	cache_close(f->cache);
	wait_release(&f->wait);
	nftw(f->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

/* Blocks until the prefetcher has nothing left to do. */
static void await_end(struct images *images)
{
	pthread_mutex_lock(&images->lock);
	while (images->prefetcher.running)
		pthread_cond_wait(&images->prefetcher.ended, &images->lock);
	pthread_mutex_unlock(&images->lock);
}

static void test_all_layers_come(void **state)
{
	struct fixture f = {0};
	const unsigned all = LAYERS + 1; /* and the config */

	(void)state;
	open_rooms(&f, true);
	assert_int_equal(fakestore_calls(f.store, FAKE_OPEN_BLOB), 0);
	image_entered(f.image);
	await_end(f.images);
	assert_int_equal(fakestore_calls(f.store, FAKE_OPEN_BLOB), all);
	/* once is enough */
	image_entered(f.image);
	await_end(f.images);
	assert_int_equal(fakestore_calls(f.store, FAKE_OPEN_BLOB), all);
	close_rooms(&f);
}

static void test_one_at_a_time(void **state)
{
	struct fixture f = {0};
	const struct oci_config *config;

	(void)state;
	open_rooms(&f, true);
	assert_int_equal(image_config(f.image, &f.wait, &config), 0);
	fakestore_stall(f.store, FAKE_OPEN_BLOB);
	image_entered(f.image);
	fakestore_await_stalled(f.store, 1);
	assert_int_equal(fakestore_calls(f.store, FAKE_OPEN_BLOB), 2);
	fakestore_release(f.store);
	await_end(f.images);
	assert_int_equal(fakestore_calls(f.store, FAKE_OPEN_BLOB), LAYERS + 1);
	close_rooms(&f);
}

/* A mount that ends does not wait for what is being fetched ahead. */
static void test_ends_at_once(void **state)
{
	struct fixture f = {0};

	(void)state;
	open_rooms(&f, true);
	fakestore_stall(f.store, FAKE_OPEN_BLOB);
	image_entered(f.image);
	fakestore_await_stalled(f.store, 1);
	close_rooms(&f);
}

/* A registry that was gone for a while is asked again; what came before is not. */
static void test_goes_on_after_a_failure(void **state)
{
	struct fixture f = {0};
	const struct oci_config *config;
	unsigned calls;

	(void)state;
	open_rooms(&f, true);
	f.images->prefetcher.pause_ms = 1;
	f.blobs->retry_ms = 0;
	f.layers->retry_ms = 0;
	assert_int_equal(image_config(f.image, &f.wait, &config), 0);
	fakestore_fail(f.store, FAKE_OPEN_BLOB, -ECONNREFUSED);
	image_entered(f.image);
	await_end(f.images);
	calls = fakestore_calls(f.store, FAKE_OPEN_BLOB);
	/* four times, and no more */
	assert_int_equal(calls, 1 + 4 * LAYERS);
	close_rooms(&f);

	open_rooms(&f, true);
	f.images->prefetcher.pause_ms = 1000; /* time for us to mend it */
	f.blobs->retry_ms = 0;
	f.layers->retry_ms = 0;
	assert_int_equal(image_config(f.image, &f.wait, &config), 0);
	fakestore_stall(f.store, FAKE_OPEN_BLOB);
	image_entered(f.image);
	fakestore_await_stalled(f.store, 1);
	fakestore_fail(f.store, FAKE_OPEN_BLOB, -ETIMEDOUT);
	fakestore_release(f.store);
	while (fakestore_calls(f.store, FAKE_OPEN_BLOB) < 1 + LAYERS)
		sched_yield();
	fakestore_fail(f.store, FAKE_OPEN_BLOB, 0);
	await_end(f.images);
	calls = fakestore_calls(f.store, FAKE_OPEN_BLOB);
	for (unsigned n = 0; n < LAYERS; n++) {
		struct layer *layer;

		assert_int_equal(image_layer(f.image, n, &f.wait, &layer), 0);
		layer_unref(layer);
	}
	assert_int_equal(fakestore_calls(f.store, FAKE_OPEN_BLOB), calls);
	close_rooms(&f);
}

/* While something that a reader waits for is under way, nothing is fetched; but a layer that a
 * reader comes to wait for is in the background no more. */
static void test_stands_back(void **state)
{
	struct fixture f = {0};
	const struct oci_config *config;
	struct layer *layer;
	bool standing;

	(void)state;
	open_rooms(&f, true);
	f.blobs->yield_ms = 3600000;
	assert_int_equal(image_config(f.image, &f.wait, &config), 0);
	struct way *way = way_find(f.blobs, f.store);
	pthread_mutex_lock(&f.blobs->lock);
	way_enter(way);
	pthread_mutex_unlock(&f.blobs->lock);
	image_entered(f.image);
	do {
		sched_yield();
		pthread_mutex_lock(&f.blobs->lock);
		standing = way->quiet.head != NULL;
		pthread_mutex_unlock(&f.blobs->lock);
	} while (!standing);
	assert_int_equal(fakestore_calls(f.store, FAKE_OPEN_BLOB), 1);
	assert_int_equal(image_layer(f.image, LAYERS - 1, &f.wait, &layer), 0);
	layer_unref(layer);
	assert_int_equal(fakestore_calls(f.store, FAKE_OPEN_BLOB), 2);
	pthread_mutex_lock(&f.blobs->lock);
	way_leave(way);
	pthread_mutex_unlock(&f.blobs->lock);
	await_end(f.images);
	assert_int_equal(fakestore_calls(f.store, FAKE_OPEN_BLOB), LAYERS + 1);
	close_rooms(&f);
}

static void test_not_asked_for(void **state)
{
	struct fixture f = {0};

	(void)state;
	open_rooms(&f, false);
	image_entered(f.image);
	await_end(f.images);
	assert_int_equal(fakestore_calls(f.store, FAKE_OPEN_BLOB), 0);
	close_rooms(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_layers_come),
		cmocka_unit_test(test_one_at_a_time),
		cmocka_unit_test(test_ends_at_once),
		cmocka_unit_test(test_goes_on_after_a_failure),
		cmocka_unit_test(test_stands_back),
		cmocka_unit_test(test_not_asked_for),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
