// SPDX-License-Identifier: Apache-2.0
/* image: what refers to an image: asked for once, remembered for when the store is gone. */
#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/image_priv.h"
#include "fakestore.h"
#include "regfs/log.h"

#define REPO  "team/app"
#define EMPTY "{\"mediaType\":\"" OCI_TYPE_EMPTY "\",\"digest\":\"%s\",\"size\":2}"

struct fixture {
	char dir[64];
	struct cache *cache;
	struct images *images;
	struct store *store;
	struct image *image;
	struct digest manifest;
	struct wait wait;
};

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

static void open_rooms(struct fixture *f, int64_t tag_ttl_ms)
{
	const struct images_options options = {.cache = f->cache, .tag_ttl_ms = tag_ttl_ms};

	f->images = images_new(&options);
	assert_int_equal(image_open(f->images, f->store, REPO, &f->manifest, &f->wait, &f->image),
			 0);
}

static void close_rooms(struct fixture *f)
{
	image_unref(f->image);
	images_free(f->images);
}

/* An artifact about SUBJECT (NULL: about nothing), NAME to tell it from others. */
static void add_artifact(struct fixture *f, const struct digest *subject, const char *name,
			 struct digest *ret)
{
	char digest[DIGEST_STR_MAX];
	AUTO_FREE char *about = subject ? format(",\"subject\":" EMPTY,
						 digest_format(subject, digest))
					: strdup("");
	AUTO_FREE char *json = format("{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_MANIFEST
				      "\",\"artifactType\":\"test/%s\",\"config\":" EMPTY
				      ",\"layers\":[]%s}",
				      name, digest_format(&f->manifest, digest), about);

	fakestore_add_manifest(f->store, REPO, NULL, OCI_TYPE_MANIFEST, json, ret);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const struct digest nothing = {.algo = DIGEST_SHA256};

	snprintf(f->dir, sizeof(f->dir), "/tmp/regfs-referrers-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	assert_int_equal(cache_open(f->dir, 64 * MIB, &f->cache), 0);
	f->store = fakestore_new("fake.test");
	wait_init(&f->wait, true);
	f->manifest = nothing;
	add_artifact(f, NULL, "subject", &f->manifest);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	store_free(f->store);
	cache_close(f->cache);
	wait_release(&f->wait);
	nftw(f->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

/* The number of referrers, or the error. */
static int count(struct fixture *f)
{
	struct referrers *referrers;
	int r = image_referrers(f->image, &f->wait, &referrers);

	if (r < 0)
		return r;
	r = (int)referrers->n;
	referrers_unref(f->image, referrers);
	return r;
}

static void test_asked_once(void **state)
{
	struct fixture *f = *state;
	struct digest other, found;
	struct referrers *referrers;

	open_rooms(f, 60000);
	add_artifact(f, &f->manifest, "b", &found);
	add_artifact(f, &f->manifest, "c", NULL);
	add_artifact(f, &found, "of the other", &other);
	assert_int_equal(count(f), 2);
	assert_int_equal(image_referrers(f->image, &f->wait, &referrers), 0);
	assert_int_equal(referrers->n, 2);
	assert_true(memcmp(referrers->list[0].digest.bytes, referrers->list[1].digest.bytes, 32) <
		    0);
	assert_true(starts_with(referrers->list[0].artifact_type, "test/"));
	assert_int_equal(fakestore_calls(f->store, FAKE_REFERRERS), 1);
	/* the store says that something changed; a list that somebody holds outlives the next */
	add_artifact(f, &f->manifest, "later", NULL);
	assert_int_equal(count(f), 3);
	assert_int_equal(referrers->n, 2);
	referrers_unref(f->image, referrers);
	close_rooms(f);
}

static void test_no_waiting(void **state)
{
	struct fixture *f = *state;
	struct referrers *referrers = NULL;
	struct wait wait;

	open_rooms(f, 60000);
	wait_init(&wait, false);
	assert_int_equal(image_referrers(f->image, &wait, &referrers), -EWOULDBLOCK);
	assert_int_equal(count(f), 0);
	assert_int_equal(image_referrers(f->image, &wait, &referrers), 0);
	assert_int_equal(referrers->n, 0);
	referrers_unref(f->image, referrers);
	wait_release(&wait);
	close_rooms(f);
}

static void test_store_gone(void **state)
{
	struct fixture *f = *state;

	open_rooms(f, 0);
	fakestore_fail(f->store, FAKE_REFERRERS, -ECONNREFUSED);
	assert_int_equal(count(f), -ECONNREFUSED);
	fakestore_fail(f->store, FAKE_REFERRERS, 0);
	add_artifact(f, &f->manifest, "a", NULL);
	assert_int_equal(count(f), 1);
	close_rooms(f);
	/* also in the next life */
	fakestore_fail(f->store, FAKE_REFERRERS, -ETIMEDOUT);
	open_rooms(f, 0);
	assert_int_equal(count(f), 1);
	/* no, is an answer */
	fakestore_fail(f->store, FAKE_REFERRERS, -EACCES);
	assert_int_equal(count(f), -EACCES);
	close_rooms(f);
}

static void test_attests(void **state)
{
	struct oci_annotation docker = {"vnd.docker.reference.digest", NULL};
	struct oci_descriptor child = {.annotations = &docker, .nannotations = 1};
	struct fixture *f = *state;
	char text[DIGEST_STR_MAX], tag[OCI_REFERRERS_TAG_MAX];
	const struct digest long_one = {.algo = DIGEST_SHA512};

	docker.value = (char *)digest_format(&f->manifest, text);
	assert_true(oci_attests(&child, &f->manifest));
	assert_false(oci_attests(&child, &long_one));
	oci_referrers_tag(&f->manifest, tag);
	assert_int_equal(strlen(tag), 7 + 64);
	assert_memory_equal(tag, "sha256-", 7);
	/* the specification cuts longer hashes off */
	assert_int_equal(strlen(oci_referrers_tag(&long_one, tag)), 7 + 64);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_asked_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_waiting, setup, teardown),
		cmocka_unit_test_setup_teardown(test_store_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_attests, setup, teardown),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
