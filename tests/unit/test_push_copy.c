/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An image under another name: within a repository, between two, and what failure leaves.
 */
#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fakestore.h"
#include "regfs/layout.h"
#include "regfs/oci.h"
#include "regfs/push.h"

struct fixture {
	char dir[128];
	struct pool *jobs;
	struct pushes *pushes;
	struct store *fake, *layout;
	struct wait wait;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const char *tmp = getenv("TMPDIR");
	char spool[160];

	snprintf(f->dir, sizeof(f->dir), "%s/regfs-copy-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(f->dir));
	snprintf(spool, sizeof(spool), "%s/spool", f->dir);
	f->jobs = pool_new("jobs", 0);
	const struct pushes_options options = {.spool_dir = spool, .jobs = f->jobs};
	f->pushes = pushes_new(&options);
	f->fake = fakestore_new("reg.example:5000");
	assert_non_null(f->pushes);
	snprintf(spool, sizeof(spool), "%s/store", f->dir);
	assert_int_equal(layout_new(spool, "local", &f->layout), 0);
	wait_init(&f->wait, true);
	*state = f;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	pushes_free(f->pushes);
	store_free(f->fake);
	store_free(f->layout);
	pool_free(f->jobs);
	wait_release(&f->wait);
	nftw(f->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

/* --- images --- */

static char *descriptor(const char *type, const char *bytes)
{
	struct digest digest;
	char text[DIGEST_STR_MAX];

	digest_of(DIGEST_SHA256, bytes, strlen(bytes), &digest);
	char *json = format("{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%zu}", type,
			    digest_format(&digest, text), strlen(bytes));
	assert_non_null(json);
	return json;
}

/* A manifest of one config and one layer; the caller frees. */
static char *manifest_of(const char *layer)
{
	AUTO_FREE char *c = descriptor(OCI_TYPE_CONFIG, "{}");
	AUTO_FREE char *l = descriptor(OCI_TYPE_LAYER, layer);
	char *json = format("{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_MANIFEST
			    "\",\"config\":%s,\"layers\":[%s]}",
			    c, l);

	assert_non_null(json);
	return json;
}

static char *index_of(const char *a, const char *b)
{
	AUTO_FREE char *first = descriptor(OCI_TYPE_MANIFEST, a);
	AUTO_FREE char *second = descriptor(OCI_TYPE_MANIFEST, b);
	char *json = format("{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_INDEX
			    "\",\"manifests\":[%s,%s]}",
			    first, second);

	assert_non_null(json);
	return json;
}

static void put(struct store *store, const char *repo, const char *data, struct wait *wait)
{
	struct store_bytes bytes = {.data = data, .len = strlen(data)};
	struct store_source source = {.read = store_bytes_read, .arg = &bytes, .size = bytes.len};
	struct digest digest;
	const struct store_put blob = {.digest = &digest, .source = &source};

	digest_of(DIGEST_SHA256, data, strlen(data), &digest);
	assert_int_equal(store->ops->put_blob(store, repo, &blob, wait), 0);
}

/* The image of LAYER in REPO, under TAG (NULL: by its digest). The caller frees its manifest. */
static char *push(struct fixture *f, struct store *store, const char *tag, const char *layer)
{
	char *json = manifest_of(layer);

	put(store, "app", "{}", &f->wait);
	put(store, "app", layer, &f->wait);
	assert_int_equal(store->ops->put_manifest(store, "app", tag, OCI_TYPE_MANIFEST, json,
						  strlen(json), &f->wait),
			 0);
	return json;
}

static int copy(struct fixture *f, struct store *store, const char *from, const char *repo)
{
	const struct push_copy what = {
		.store = store, .from_repo = "app", .from = from, .repo = repo, .tag = "new"};

	struct digest made;

	return push_copy(f->pushes, &what, &f->wait, &made);
}

static void assert_manifest(struct fixture *f, struct store *store, const char *repo,
			    const char *reference, const char *expected)
{
	CLEANUP(store_manifest_release) struct store_manifest manifest = {0};
	int err = store->ops->get_manifest(store, repo, reference, &manifest, &f->wait);

	assert_int_equal(err, expected ? 0 : -ENOENT);
	if (expected) {
		assert_int_equal(manifest.bytes.len, strlen(expected));
		assert_memory_equal(manifest.bytes.data, expected, strlen(expected));
	}
}

static bool has(struct fixture *f, struct store *store, const char *repo, const char *blob)
{
	struct digest digest;
	uint64_t size;

	digest_of(DIGEST_SHA256, blob, strlen(blob), &digest);
	return store->ops->has_blob(store, repo, &digest, &size, &f->wait) == 0;
}

/* --- tests --- */

static void within_a_repository_only_the_manifest_goes(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *json = push(f, f->fake, "1", "layer");
	unsigned puts = fakestore_calls(f->fake, FAKE_PUT_BLOB);
	char text[DIGEST_STR_MAX];
	struct digest digest;

	assert_int_equal(copy(f, f->fake, "1", "app"), 0);
	assert_manifest(f, f->fake, "app", "new", json);
	digest_of(DIGEST_SHA256, json, strlen(json), &digest);
	assert_int_equal(copy(f, f->fake, digest_format(&digest, text), "app"), 0);
	assert_int_equal(fakestore_calls(f->fake, FAKE_PUT_BLOB), puts);
	assert_int_equal(fakestore_bytes(f->fake), 0);
	assert_int_equal(copy(f, f->fake, "nope", "app"), -ENOENT);
}

static void between_repositories_blobs_go_first(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *json = push(f, f->fake, "1", "layer");

	assert_int_equal(copy(f, f->fake, "1", "prod"), 0);
	assert_manifest(f, f->fake, "prod", "new", json);
	assert_true(has(f, f->fake, "prod", "layer"));
	assert_true(has(f, f->fake, "prod", "{}"));
	/* once there, they do not travel again */
	uint64_t bytes = fakestore_bytes(f->fake);
	assert_int_equal(bytes, strlen("layer") + strlen("{}"));
	assert_int_equal(copy(f, f->fake, "1", "prod"), 0);
	assert_int_equal(fakestore_bytes(f->fake), bytes);
}

static void a_layout_links_its_blobs(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *json = push(f, f->layout, "1", "layer");
	char path[256], hex[DIGEST_STR_MAX];
	struct digest digest;
	struct stat st;

	assert_int_equal(copy(f, f->layout, "1", "prod"), 0);
	assert_manifest(f, f->layout, "prod", "new", json);
	digest_of(DIGEST_SHA256, "layer", 5, &digest);
	snprintf(path, sizeof(path), "%s/store/prod/blobs/sha256/%s", f->dir,
		 digest_hex(&digest, hex));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_nlink, 2);
}

static void an_index_brings_its_children(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *arm = push(f, f->fake, NULL, "arm");
	AUTO_FREE char *amd = push(f, f->fake, NULL, "amd");
	AUTO_FREE char *index = index_of(arm, amd);
	char text[DIGEST_STR_MAX];
	struct digest digest;

	fakestore_add_manifest(f->fake, "app", "multi", OCI_TYPE_INDEX, index, NULL);
	assert_int_equal(copy(f, f->fake, "multi", "prod"), 0);
	assert_manifest(f, f->fake, "prod", "new", index);
	digest_of(DIGEST_SHA256, arm, strlen(arm), &digest);
	assert_manifest(f, f->fake, "prod", digest_format(&digest, text), arm);
	digest_of(DIGEST_SHA256, amd, strlen(amd), &digest);
	assert_manifest(f, f->fake, "prod", digest_format(&digest, text), amd);
	assert_true(has(f, f->fake, "prod", "arm") && has(f, f->fake, "prod", "amd"));
}

/* Only some platforms were copied there: so they are here. */
static void an_absent_child_stays_absent(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *arm = push(f, f->fake, NULL, "arm");
	AUTO_FREE char *absent = manifest_of("absent");
	AUTO_FREE char *index = index_of(absent, arm);

	fakestore_add_manifest(f->fake, "app", "multi", OCI_TYPE_INDEX, index, NULL);
	assert_int_equal(copy(f, f->fake, "multi", "prod"), 0);
	assert_manifest(f, f->fake, "prod", "new", index);
	assert_true(has(f, f->fake, "prod", "arm"));
	assert_false(has(f, f->fake, "prod", "absent"));
}

/* Of what may not be read nobody knows what is there. */
static void what_need_not_be_there_is_sent(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *json = push(f, f->fake, "1", "layer");

	fakestore_fail(f->fake, FAKE_HAS_BLOB, -EACCES);
	assert_int_equal(copy(f, f->fake, "1", "prod"), 0);
	fakestore_fail(f->fake, FAKE_HAS_BLOB, 0);
	assert_manifest(f, f->fake, "prod", "new", json);
	assert_true(has(f, f->fake, "prod", "layer"));
}

static void failure_leaves_the_tag(void **state)
{
	static const enum fakestore_op ops[] = {FAKE_GET_MANIFEST, FAKE_OPEN_BLOB,
						FAKE_PUT_MANIFEST, FAKE_HAS_BLOB};
	struct fixture *f = *state;
	AUTO_FREE char *json = push(f, f->fake, "1", "layer");
	AUTO_FREE char *old = manifest_of("old");
	struct digest digest;

	fakestore_add_manifest(f->fake, "prod", "new", OCI_TYPE_MANIFEST, old, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		fakestore_fail(f->fake, ops[i], -EDQUOT);
		assert_int_equal(copy(f, f->fake, "1", "prod"), -EDQUOT);
		fakestore_fail(f->fake, ops[i], 0);
		assert_manifest(f, f->fake, "prod", "new", old);
		digest_of(DIGEST_SHA256, "layer", 5, &digest);
		fakestore_remove_blob(f->fake, "prod", &digest);
	}
	/* a blob that is not what it should be, and one that is not there */
	fakestore_corrupt(f->fake, 1, UINT32_MAX);
	assert_int_equal(copy(f, f->fake, "1", "prod"), -EIO);
	assert_manifest(f, f->fake, "prod", "new", old);
	fakestore_corrupt(f->fake, 0, 0);
	fakestore_remove_blob(f->fake, "app", &digest);
	assert_int_equal(copy(f, f->fake, "1", "prod"), -EIO);
	assert_manifest(f, f->fake, "prod", "new", old);
	assert_manifest(f, f->fake, "app", "1", json);
}

static void what_is_no_manifest_is_refused(void **state)
{
	struct fixture *f = *state;

	fakestore_add_manifest(f->fake, "app", "bad", OCI_TYPE_MANIFEST, "{\"layers\":7}", NULL);
	assert_int_equal(copy(f, f->fake, "bad", "prod"), -EIO);
	assert_manifest(f, f->fake, "prod", "new", NULL);
}

static void it_does_not_wait_where_it_may_not(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *json = push(f, f->fake, "1", "layer");
	const struct push_copy what = {
		.store = f->fake, .from_repo = "app", .from = "1", .repo = "app", .tag = "new"};
	struct wait wait;
	struct digest made;

	wait_init(&wait, false);
	assert_int_equal(push_copy(f->pushes, &what, &wait, &made), -EWOULDBLOCK);
	wait_release(&wait);
	assert_manifest(f, f->fake, "app", "new", NULL);
}

static void *copy_run(void *arg)
{
	struct fixture *f = arg;

	return (void *)(intptr_t)copy(f, f->fake, "1", "prod");
}

static void it_can_be_called_off(void **state)
{
	static const enum fakestore_op ops[] = {FAKE_GET_MANIFEST, FAKE_PUT_BLOB};
	struct fixture *f = *state;
	AUTO_FREE char *json = push(f, f->fake, "1", "layer");

	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		pthread_t thread;
		void *result;

		fakestore_stall(f->fake, ops[i]);
		assert_int_equal(pthread_create(&thread, NULL, copy_run, f), 0);
		fakestore_await_stalled(f->fake, 1);
		wait_cancel(&f->wait);
		pthread_join(thread, &result);
		assert_int_equal((intptr_t)result, -EINTR);
		fakestore_release(f->fake);
		wait_release(&f->wait);
		wait_init(&f->wait, true);
		assert_manifest(f, f->fake, "prod", "new", NULL);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(within_a_repository_only_the_manifest_goes),
		TEST(between_repositories_blobs_go_first),
		TEST(a_layout_links_its_blobs),
		TEST(an_index_brings_its_children),
		TEST(an_absent_child_stays_absent),
		TEST(what_need_not_be_there_is_sent),
		TEST(failure_leaves_the_tag),
		TEST(what_is_no_manifest_is_refused),
		TEST(it_does_not_wait_where_it_may_not),
		TEST(it_can_be_called_off),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
