// SPDX-License-Identifier: Apache-2.0
/*
 * image: from references to images, and what is remembered of them, over the fake store and a real
 * cache.
 */
#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "../../src/image_priv.h"
#include "fakestore.h"
#include "regfs/log.h"
#include "regfs/stats.h"

#define REPO "team/app"

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
	struct digest layer, diff_id, config, manifest;
	size_t layer_len, config_len;
};

/* --- rooms --- */

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

static void close_rooms(struct fixture *f)
{
	images_free(f->images);
	layers_free(f->layers);
	blobs_free(f->blobs);
	pool_free(f->jobs);
	cache_close(f->cache);
}

static void reopen(struct fixture *f)
{
	close_rooms(f);
	open_rooms(f);
}

/* --- content --- */

static void add_file(struct buf *tar, const char *path, const char *text)
{
	const struct tar_member member = {
		.path = path, .mode = S_IFREG | 0644, .size = strlen(text)};
	static const char zeros[512];

	assert_int_equal(tar_header(&member, tar), 0);
	assert_int_equal(buf_puts(tar, text), 0);
	assert_int_equal(buf_add(tar, zeros, tar_padding(member.size)), 0);
}

static void add_layer(struct fixture *f)
{
	AUTO_BUF struct buf tar = BUF_INIT(MIB);
	static const char zeros[TAR_TRAILER];

	add_file(&tar, "etc/os-release", "NAME=fake\n");
	assert_int_equal(buf_add(&tar, zeros, sizeof(zeros)), 0);
	fakestore_add_blob(f->store, REPO, tar.data, tar.len, &f->layer);
	f->diff_id = f->layer;
	f->layer_len = tar.len;
}

/* A config with N diff IDs, all the layer's. */
static void add_config(struct fixture *f, int n)
{
	AUTO_BUF struct buf json = BUF_INIT(MIB);
	char digest[DIGEST_STR_MAX];

	assert_int_equal(buf_puts(&json, "{\"os\":\"linux\",\"architecture\":\"amd64\","
					 "\"created\":\"2026-01-02T03:04:05Z\",\"history\":["
					 "{\"created_by\":\"ENV A=1\",\"empty_layer\":true},"
					 "{\"created_by\":\"COPY etc /etc\"}],"
					 "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":["),
			 0);
	for (int i = 0; i < n; i++)
		assert_int_equal(buf_printf(&json, "%s\"%s\"", i ? "," : "",
					    digest_format(&f->diff_id, digest)),
				 0);
	assert_int_equal(buf_puts(&json, "]}}"), 0);
	fakestore_add_blob(f->store, REPO, json.data, json.len, &f->config);
	f->config_len = json.len;
}

/* EXTRA goes into the config's descriptor. */
static char *manifest_json(struct fixture *f, const char *extra)
{
	char config[DIGEST_STR_MAX], layer[DIGEST_STR_MAX];
	char *json = format("{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_MANIFEST "\","
			    "\"config\":{\"mediaType\":\"" OCI_TYPE_CONFIG "\","
			    "\"digest\":\"%s\",\"size\":%zu%s},"
			    "\"layers\":[{\"mediaType\":\"" OCI_TYPE_LAYER "\","
			    "\"digest\":\"%s\",\"size\":%zu}]}",
			    digest_format(&f->config, config), f->config_len, extra,
			    digest_format(&f->layer, layer), f->layer_len);

	assert_non_null(json);
	return json;
}

static void add_manifest(struct fixture *f, const char *repo, const char *tag, const char *extra,
			 struct digest *ret)
{
	AUTO_FREE char *json = manifest_json(f, extra);

	fakestore_add_manifest(f->store, repo, tag, OCI_TYPE_MANIFEST, json, ret);
}

/* An index with one child, for ARCHITECTURE. */
static void add_index(struct fixture *f, const char *repo, const char *architecture,
		      struct digest *ret)
{
	char child[DIGEST_STR_MAX];
	AUTO_FREE char *body = manifest_json(f, "");
	AUTO_FREE char *json = format(
		"{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_INDEX "\",\"manifests\":[{"
		"\"mediaType\":\"" OCI_TYPE_MANIFEST "\",\"digest\":\"%s\",\"size\":%zu,"
		"\"platform\":{\"os\":\"linux\",\"architecture\":\"%s\"}}]}",
		digest_format(&f->manifest, child), strlen(body), architecture);

	fakestore_add_manifest(f->store, repo, "multi", OCI_TYPE_INDEX, json, ret);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const char *tmp = getenv("TMPDIR");

	assert_non_null(f);
	snprintf(f->dir, sizeof(f->dir), "%s/regfs-image-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(f->dir));
	assert_int_equal(oci_platform_parse("linux/amd64", &f->platform), 0);
	open_rooms(f);
	f->store = fakestore_new("fake.test");
	wait_init(&f->wait, true);
	add_layer(f);
	add_config(f, 1);
	add_manifest(f, REPO, "1.0", "", &f->manifest);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	close_rooms(f);
	store_free(f->store);
	wait_release(&f->wait);
	oci_platform_release(&f->platform);
	nftw(f->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static int resolve(struct fixture *f, const char *tag, struct digest *ret)
{
	return image_resolve(f->images, f->store, REPO, tag, &f->wait, ret);
}

static int open_in(struct fixture *f, const char *repo, const struct digest *digest,
		   struct image **ret)
{
	return image_open(f->images, f->store, repo, digest, &f->wait, ret);
}

static struct image *open_manifest(struct fixture *f, const struct digest *digest)
{
	struct image *image = NULL;

	assert_int_equal(open_in(f, REPO, digest, &image), 0);
	return image;
}

static unsigned requests(struct fixture *f)
{
	return fakestore_calls(f->store, FAKE_HEAD) + fakestore_calls(f->store, FAKE_GET_MANIFEST) +
	       fakestore_calls(f->store, FAKE_OPEN_BLOB);
}

/* --- tags --- */

static void test_cold_tag_costs_one_request(void **state)
{
	struct fixture *f = *state;
	struct digest digest;

	assert_int_equal(resolve(f, "1.0", &digest), 0);
	assert_true(digest_equal(&digest, &f->manifest));
	struct image *image = open_manifest(f, &digest);
	assert_int_equal(fakestore_calls(f->store, FAKE_GET_MANIFEST), 1);
	assert_int_equal(requests(f), 1);
	assert_true(digest_equal(image_digest(image), &f->manifest));
	assert_int_equal(image_manifest(image)->nlayers, 1);
	assert_string_equal(image_repo(image), REPO);
	assert_ptr_equal(image_store(image), f->store);
	image_unref(image);
}

static void test_known_tag_is_asked_by_head(void **state)
{
	struct fixture *f = *state;
	struct digest digest, newer;

	assert_int_equal(resolve(f, "1.0", &digest), 0);
	assert_int_equal(resolve(f, "1.0", &digest), 0);
	assert_int_equal(fakestore_calls(f->store, FAKE_HEAD), 1);
	assert_int_equal(fakestore_calls(f->store, FAKE_GET_MANIFEST), 1);
	/* it moves: its manifest comes along; it moves back: that is known */
	add_manifest(f, REPO, "1.0", ",\"annotations\":{}", &newer);
	assert_int_equal(resolve(f, "1.0", &digest), 0);
	assert_true(digest_equal(&digest, &newer));
	assert_int_equal(fakestore_calls(f->store, FAKE_GET_MANIFEST), 2);
	add_manifest(f, REPO, "1.0", "", NULL);
	assert_int_equal(resolve(f, "1.0", &digest), 0);
	assert_true(digest_equal(&digest, &f->manifest));
	assert_int_equal(fakestore_calls(f->store, FAKE_GET_MANIFEST), 2);
}

static void test_registry_gone(void **state)
{
	static const int gone[] = {-EHOSTUNREACH, -ECONNREFUSED, -ETIMEDOUT, -EIO};
	struct fixture *f = *state;
	struct digest digest;

	assert_int_equal(resolve(f, "1.0", &digest), 0);
	reopen(f);
	for (size_t i = 0; i < ARRAY_SIZE(gone); i++) {
		fakestore_fail(f->store, FAKE_OPS, gone[i]);
		memset(&digest, 0, sizeof(digest));
		assert_int_equal(resolve(f, "1.0", &digest), 0);
		assert_true(digest_equal(&digest, &f->manifest));
		assert_int_equal(resolve(f, "2.0", &digest), gone[i]);
	}
	image_unref(open_manifest(f, &f->manifest));
	/* it is there, and says no */
	fakestore_fail(f->store, FAKE_OPS, -EACCES);
	assert_int_equal(resolve(f, "1.0", &digest), -EACCES);
}

static void test_deleted_tag_stays_deleted(void **state)
{
	struct fixture *f = *state;
	struct digest digest;

	assert_int_equal(resolve(f, "1.0", &digest), 0);
	fakestore_remove_tag(f->store, REPO, "1.0");
	assert_int_equal(resolve(f, "1.0", &digest), -ENOENT);
	fakestore_fail(f->store, FAKE_OPS, -ECONNREFUSED);
	assert_int_equal(resolve(f, "1.0", &digest), -ECONNREFUSED);
}

static void test_forgotten_tag(void **state)
{
	struct fixture *f = *state;
	struct digest digest;

	assert_int_equal(resolve(f, "1.0", &digest), 0);
	image_forget_tag(f->images, f->store, REPO, "1.0");
	fakestore_fail(f->store, FAKE_OPS, -ECONNREFUSED);
	assert_int_equal(resolve(f, "1.0", &digest), -ECONNREFUSED);
	/* of another repository nothing is known */
	assert_int_equal(image_resolve(f->images, f->store, "team/web", "1.0", &f->wait, &digest),
			 -ECONNREFUSED);
}

static void test_no_waiting(void **state)
{
	struct fixture *f = *state;
	struct digest digest;
	struct image *image;
	struct wait quick;

	wait_init(&quick, false);
	assert_int_equal(image_resolve(f->images, f->store, REPO, "1.0", &quick, &digest),
			 -EWOULDBLOCK);
	assert_int_equal(image_open(f->images, f->store, REPO, &f->manifest, &quick, &image),
			 -EWOULDBLOCK);
	assert_int_equal(requests(f), 0);
	image_unref(open_manifest(f, &f->manifest));
	reopen(f);
	assert_int_equal(image_open(f->images, f->store, REPO, &f->manifest, &quick, &image), 0);
	const struct oci_config *config;
	assert_int_equal(image_config(image, &quick, &config), -EWOULDBLOCK);
	assert_int_equal(image_config(image, &f->wait, &config), 0);
	assert_int_equal(image_config(image, &quick, &config), 0);
	image_unref(image);
	wait_release(&quick);
}

/* --- many at once --- */

struct asker {
	pthread_t thread;
	struct fixture *f;
	struct wait wait;
	bool open;
	int result;
	struct digest digest;
};

static void *asker_main(void *arg)
{
	struct asker *a = arg;
	struct image *image;

	if (!a->open) {
		a->result = image_resolve(a->f->images, a->f->store, REPO, "1.0", &a->wait,
					  &a->digest);
		return NULL;
	}
	a->result = image_open(a->f->images, a->f->store, REPO, &a->f->manifest, &a->wait, &image);
	if (a->result == 0) {
		a->digest = *image_digest(image);
		image_unref(image);
	}
	return NULL;
}

static void ask(struct asker *a, struct fixture *f, bool open)
{
	*a = (struct asker){.f = f, .open = open};
	wait_init(&a->wait, true);
	assert_int_equal(pthread_create(&a->thread, NULL, asker_main, a), 0);
}

static int answer(struct asker *a)
{
	pthread_join(a->thread, NULL);
	wait_release(&a->wait);
	if (a->result == 0)
		assert_true(digest_equal(&a->digest, &a->f->manifest));
	return a->result;
}

static void check_single_flight(struct fixture *f, bool open)
{
	struct asker askers[4];

	fakestore_stall(f->store, FAKE_GET_MANIFEST);
	for (size_t i = 0; i < ARRAY_SIZE(askers); i++)
		ask(&askers[i], f, open);
	fakestore_await_stalled(f->store, 1);
	fakestore_release(f->store);
	for (size_t i = 0; i < ARRAY_SIZE(askers); i++)
		assert_int_equal(answer(&askers[i]), 0);
	assert_int_equal(fakestore_calls(f->store, FAKE_GET_MANIFEST), 1);
}

static void test_resolve_single_flight(void **state)
{
	check_single_flight(*state, false);
}

static void test_open_single_flight(void **state)
{
	check_single_flight(*state, true);
}

/* Who leads may be called off: another one asks. */
static void check_take_over(struct fixture *f, bool open)
{
	struct asker leader, follower;

	fakestore_stall(f->store, FAKE_GET_MANIFEST);
	ask(&leader, f, open);
	fakestore_await_stalled(f->store, 1);
	ask(&follower, f, open);
	wait_cancel(&leader.wait);
	assert_int_equal(answer(&leader), -EINTR);
	fakestore_await_stalled(f->store, 1);
	fakestore_release(f->store);
	assert_int_equal(answer(&follower), 0);
	assert_int_equal(fakestore_calls(f->store, FAKE_GET_MANIFEST), 2);
}

static void test_resolve_take_over(void **state)
{
	check_take_over(*state, false);
}

static void test_open_take_over(void **state)
{
	check_take_over(*state, true);
}

static void test_follower_interrupted(void **state)
{
	struct fixture *f = *state;
	struct asker leader, follower;

	fakestore_stall(f->store, FAKE_GET_MANIFEST);
	ask(&leader, f, true);
	fakestore_await_stalled(f->store, 1);
	ask(&follower, f, true);
	wait_cancel(&follower.wait);
	assert_int_equal(answer(&follower), -EINTR);
	fakestore_release(f->store);
	assert_int_equal(answer(&leader), 0);
}

/* --- manifests --- */

static void test_manifest_survives_the_registry(void **state)
{
	struct fixture *f = *state;
	const char *bytes;
	size_t len;
	AUTO_FREE char *json = manifest_json(f, "");

	image_unref(open_manifest(f, &f->manifest));
	reopen(f);
	fakestore_fail(f->store, FAKE_OPS, -ECONNREFUSED);
	struct image *image = open_manifest(f, &f->manifest);
	image_manifest_bytes(image, &bytes, &len);
	assert_int_equal(len, strlen(json));
	assert_memory_equal(bytes, json, len);
	assert_string_equal(image_manifest(image)->media_type, OCI_TYPE_MANIFEST);
	image_unref(image);
}

static void test_other_repository_has_to_vouch(void **state)
{
	struct fixture *f = *state;
	struct image *image;

	image_unref(open_manifest(f, &f->manifest));
	assert_int_equal(open_in(f, "team/web", &f->manifest, &image), -ENOENT);
	add_manifest(f, "team/web", NULL, "", NULL);
	assert_int_equal(open_in(f, "team/web", &f->manifest, &image), 0);
	assert_string_equal(image_repo(image), "team/web");
	image_unref(image);
}

static void test_kept_manifest_is_hashed_again(void **state)
{
	struct fixture *f = *state;
	struct cache_id id = {.kind = CACHE_MANIFEST};

	image_unref(open_manifest(f, &f->manifest));
	digest_key(&f->manifest, id.key);
	assert_int_equal(cache_put(f->cache, &id, "{}", 2), 0);
	reopen(f);
	struct image *image = open_manifest(f, &f->manifest);
	assert_int_equal(image_manifest(image)->nlayers, 1);
	image_unref(image);
	assert_int_equal(fakestore_calls(f->store, FAKE_GET_MANIFEST), 2);
}

static void test_bad_manifests(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *large = malloc(OCI_MANIFEST_MAX + 2);
	struct digest digest;
	struct image *image;

	fakestore_add_manifest(f->store, REPO, "bad", OCI_TYPE_MANIFEST, "no json", &digest);
	assert_int_equal(open_in(f, REPO, &digest, &image), -EIO);
	fakestore_add_manifest(f->store, REPO, "old", DOCKER_TYPE_SCHEMA1,
			       "{\"schemaVersion\":1,\"fsLayers\":[]}", &digest);
	assert_int_equal(open_in(f, REPO, &digest, &image), -EOPNOTSUPP);
	memset(large, ' ', OCI_MANIFEST_MAX + 1);
	large[OCI_MANIFEST_MAX + 1] = 0;
	fakestore_add_manifest(f->store, REPO, "large", OCI_TYPE_MANIFEST, large, &digest);
	assert_int_equal(open_in(f, REPO, &digest, &image), -EIO);
}

static void test_idle_images_are_bounded_and_held_ones_stay(void **state)
{
	struct fixture *f = *state;
	struct image *held = open_manifest(f, &f->manifest);

	for (int i = 0; i < 100; i++) {
		AUTO_FREE char *extra = format(",\"annotations\":{\"n\":\"%d\"}", i);
		struct digest digest;

		add_manifest(f, REPO, NULL, extra, &digest);
		struct image *image = open_manifest(f, &digest);
		image_unref(image_ref(image));
		image_unref(image);
	}
	unsigned kept = 0;
	for (struct image *image = f->images->images; image; image = image->next)
		kept++;
	assert_in_range(kept, 2, 33);
	struct image *again = open_manifest(f, &f->manifest);
	assert_ptr_equal(again, held);
	image_unref(again);
	image_unref(held);
}

/* --- indexes --- */

static void test_platform(void **state)
{
	struct fixture *f = *state;
	struct digest digest;
	struct image *chosen, *self;

	add_index(f, REPO, "amd64", &digest);
	struct image *index = open_manifest(f, &digest);
	assert_int_equal(image_manifest(index)->kind, OCI_KIND_INDEX);
	assert_int_equal(image_platform(index, &f->wait, &chosen), 0);
	assert_true(digest_equal(image_digest(chosen), &f->manifest));
	assert_int_equal(image_platform(chosen, &f->wait, &self), 0);
	assert_ptr_equal(self, chosen);
	const struct oci_config *config;
	assert_int_equal(image_config(index, &f->wait, &config), -EINVAL);
	struct image *none;
	assert_int_equal(image_child(index, 1, &f->wait, &none), -EINVAL);
	assert_int_equal(image_child(chosen, 0, &f->wait, &none), -EINVAL);
	image_unref(self);
	image_unref(chosen);
	image_unref(index);

	add_index(f, REPO, "s390x", &digest);
	index = open_manifest(f, &digest);
	assert_int_equal(image_platform(index, &f->wait, &chosen), -ENOENT);
	image_unref(index);
}

/* What an index of the repository names needs no question. */
static void test_index_vouches_for_children(void **state)
{
	struct fixture *f = *state;
	struct digest digest;
	struct image *index, *child;

	image_unref(open_manifest(f, &f->manifest));
	add_index(f, "team/web", "amd64", &digest);
	assert_int_equal(open_in(f, "team/web", &digest, &index), 0);
	unsigned before = requests(f);
	assert_int_equal(image_child(index, 0, &f->wait, &child), 0);
	assert_int_equal(requests(f), before);
	assert_string_equal(image_repo(child), "team/web");
	image_unref(child);
	image_unref(index);
}

/* --- config, layers, trees --- */

static void test_config(void **state)
{
	struct fixture *f = *state;
	struct image *image = open_manifest(f, &f->manifest);
	const struct oci_config *config;
	const char *text;
	size_t len;

	assert_int_equal(image_config(image, &f->wait, &config), 0);
	assert_string_equal(config->platform.architecture, "amd64");
	assert_int_equal(image_config_bytes(image, &f->wait, &text, &len), 0);
	assert_int_equal(len, f->config_len);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 1);
	assert_int_equal(image_created_by(image, 0, &f->wait, &text), 0);
	assert_string_equal(text, "COPY etc /etc");
	assert_int_equal(image_created_by(image, 1, &f->wait, &text), 0);
	assert_string_equal(text, "");
	image_unref(image);
}

static void test_inline_config(void **state)
{
	struct fixture *f = *state;
	const struct oci_config *config;
	const char *bytes;
	size_t len;
	struct digest digest;

	static const char data[] = ",\"data\":\"e30=\""; /* {} */
	digest_of(DIGEST_SHA256, "{}", 2, &f->config);
	f->config_len = 2;
	add_manifest(f, REPO, NULL, data, &digest);
	struct image *image = open_manifest(f, &digest);
	/* taken as it is, without a request; that it has no diff IDs is another matter */
	assert_int_equal(image_config(image, &f->wait, &config), -EIO);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 0);
	image_unref(image);

	fakestore_add_blob(f->store, REPO, "[]", 2, &f->config);
	add_manifest(f, REPO, NULL, data, &digest);
	image = open_manifest(f, &digest);
	assert_int_equal(image_config_bytes(image, &f->wait, &bytes, &len), -EIO);
	/* inline data with a wrong digest is not used */
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 1);
	image_unref(image);
}

static void test_config_that_does_not_fit(void **state)
{
	struct fixture *f = *state;
	const struct oci_config *config;
	struct digest digest;

	add_config(f, 2);
	add_manifest(f, REPO, NULL, "", &digest);
	struct image *image = open_manifest(f, &digest);
	uint64_t lines = log_generation();
	assert_int_equal(image_config(image, &f->wait, &config), -EIO);
	assert_int_equal(log_generation(), lines + 1);
	/* said once */
	assert_int_equal(image_config(image, &f->wait, &config), -EIO);
	assert_int_equal(log_generation(), lines + 1);
	image_unref(image);
}

static void test_config_failure_passes(void **state)
{
	struct fixture *f = *state;
	struct image *image = open_manifest(f, &f->manifest);
	const struct oci_config *config;

	fakestore_fail(f->store, FAKE_OPEN_BLOB, -ETIMEDOUT);
	assert_int_equal(image_config(image, &f->wait, &config), -ETIMEDOUT);
	image_unref(image);
	reopen(f);
	fakestore_fail(f->store, FAKE_OPEN_BLOB, 0);
	image = open_manifest(f, &f->manifest);
	assert_int_equal(image_config(image, &f->wait, &config), 0);
	image_unref(image);
}

static void check_os_release(struct fixture *f, struct rootfs *rootfs)
{
	struct rootfs_node etc, file;
	char text[32] = "";

	assert_int_equal(rootfs_lookup(rootfs, ROOTFS_ROOT, "etc", 3, &f->wait, &etc), 0);
	assert_int_equal(rootfs_lookup(rootfs, etc, "os-release", 10, &f->wait, &file), 0);
	assert_int_equal(rootfs_read(rootfs, file, 0, text, sizeof(text), &f->wait), 10);
	assert_string_equal(text, "NAME=fake\n");
}

static void test_trees(void **state)
{
	struct fixture *f = *state;
	struct image *image = open_manifest(f, &f->manifest);
	struct rootfs *rootfs, *again, *tree;
	struct layer *layer;
	struct stat st;
	bool exact;

	assert_int_equal(image_rootfs(image, &f->wait, &rootfs), 0);
	check_os_release(f, rootfs);
	assert_int_equal(image_rootfs(image, &f->wait, &again), 0);
	assert_ptr_equal(again, rootfs);
	/* no layer names the root: it has the image's time */
	assert_int_equal(rootfs_stat(rootfs, ROOTFS_ROOT, &f->wait, &st, &exact), 0);
	assert_int_equal(st.st_mtime, 1767323045);
	assert_int_equal(image_layer_tree(image, 0, IMAGE_STORED, &f->wait, &tree), 0);
	check_os_release(f, tree);
	assert_int_equal(image_layer_tree(image, 1, IMAGE_STORED, &f->wait, &tree), -EINVAL);
	assert_int_equal(image_layer(image, 0, &f->wait, &layer), 0);
	layer_unref(layer);
	assert_int_equal(image_layer(image, 1, &f->wait, &layer), -EINVAL);
	image_unref(image);
}

static void test_wrong_diff_id(void **state)
{
	struct fixture *f = *state;
	struct digest digest;
	struct layer *layer;

	f->diff_id.bytes[0] ^= 1;
	add_config(f, 1);
	add_manifest(f, REPO, NULL, "", &digest);
	struct image *image = open_manifest(f, &digest);
	assert_int_equal(image_layer(image, 0, &f->wait, &layer), -EIO);
	image_unref(image);
}

static void test_artifact(void **state)
{
	static const char json[] =
		"{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_MANIFEST "\","
		"\"artifactType\":\"application/x.notes\",\"config\":{\"mediaType\":"
		"\"" OCI_TYPE_EMPTY "\",\"digest\":\"sha256:"
		"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\","
		"\"size\":2},\"layers\":[{\"mediaType\":\"text/plain\",\"digest\":\"sha256:"
		"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\",\"size\":2}]}";
	struct fixture *f = *state;
	struct rootfs *rootfs;
	struct digest digest;
	struct blob_id id;
	char text[4] = "";

	fakestore_add_blob(f->store, REPO, "{}", 2, NULL);
	fakestore_add_manifest(f->store, REPO, "notes", OCI_TYPE_MANIFEST, json, &digest);
	struct image *image = open_manifest(f, &digest);
	assert_int_equal(image_rootfs(image, &f->wait, &rootfs), -EOPNOTSUPP);
	image_blob_id(image, &image_manifest(image)->layers[0], &id);
	assert_int_equal(blob_read_raw(f->blobs, &id, 0, text, sizeof(text), &f->wait), 2);
	assert_string_equal(text, "{}");
	image_unref(image);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_cold_tag_costs_one_request),
		TEST(test_known_tag_is_asked_by_head),
		TEST(test_registry_gone),
		TEST(test_deleted_tag_stays_deleted),
		TEST(test_forgotten_tag),
		TEST(test_no_waiting),
		TEST(test_resolve_single_flight),
		TEST(test_open_single_flight),
		TEST(test_resolve_take_over),
		TEST(test_open_take_over),
		TEST(test_follower_interrupted),
		TEST(test_manifest_survives_the_registry),
		TEST(test_other_repository_has_to_vouch),
		TEST(test_kept_manifest_is_hashed_again),
		TEST(test_bad_manifests),
		TEST(test_idle_images_are_bounded_and_held_ones_stay),
		TEST(test_platform),
		TEST(test_index_vouches_for_children),
		TEST(test_config),
		TEST(test_inline_config),
		TEST(test_config_that_does_not_fit),
		TEST(test_config_failure_passes),
		TEST(test_trees),
		TEST(test_wrong_diff_id),
		TEST(test_artifact),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
