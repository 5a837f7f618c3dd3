// SPDX-License-Identifier: Apache-2.0
/* layerstore: names of references, and what a runtime is told of a layer. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/layerstore_priv.h"

static void assert_reference(const char *text, const char *expected)
{
	AUTO_FREE char *name = base64_encode(text, strlen(text));
	char found[REF_STR_MAX];
	struct ref ref;

	assert_int_equal(layerstore_reference(name, &ref), expected ? 0 : -ENOENT);
	if (expected)
		assert_string_equal(ref_format(&ref, found), expected);
}

static void test_references(void **state)
{
	const char *zeros =
		"sha256:0000000000000000000000000000000000000000000000000000000000000000";
	AUTO_FREE char *digested = format("ghcr.io/a/b@%s", zeros);

	(void)state;
	assert_reference("docker.io/library/alpine:3.20", "docker.io/library/alpine:3.20");
	assert_reference("localhost:5000/team/app:1.5", "localhost:5000/team/app:1.5");
	assert_reference(digested, digested);
	assert_reference("", NULL);
	assert_reference("UPPER/case:1", NULL);
	assert_reference("../../etc/passwd", NULL);
}

static void test_names_that_are_none(void **state)
{
	static const char *const names[] = {"", "=", "====", "a b", "-_-_", ".", "YQ=a"};
	AUTO_FREE char *cut = base64_encode("ghcr.io/a/b:1\0/../c", 19);
	struct ref ref;

	(void)state;
	assert_int_equal(layerstore_reference(cut, &ref), -ENOENT);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		assert_int_equal(layerstore_reference(names[i], &ref), -ENOENT);
}

#define LAYER "sha256:1111111111111111111111111111111111111111111111111111111111111111"
#define DIFF  "sha256:2222222222222222222222222222222222222222222222222222222222222222"

static void assert_info(const char *media_type, const char *layer, const char *toc, int64_t size,
			const char *expected)
{
	AUTO_BUF struct buf text = BUF_INIT(LAYERSTORE_INFO_MAX);
	struct oci_descriptor descriptor = {.media_type = (char *)media_type, .size = 77};
	struct digest diff_id, table;
	const struct layerstore_facts facts = {
		.layer = &descriptor,
		.diff_id = &diff_id,
		.toc = toc ? &table : NULL,
		.diff_size = size,
	};

	assert_int_equal(digest_parse(layer, &descriptor.digest), 0);
	assert_int_equal(digest_parse(DIFF, &diff_id), 0);
	assert_int_equal(toc ? digest_parse(toc, &table) : 0, 0);
	assert_int_equal(layerstore_info(&facts, &text), 0);
	assert_string_equal(text.data, expected);
}

/* The numbers are those of archive.Compression, the names those of Layer, of containers/storage. */
static void test_info(void **state)
{
	const char *gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
	const char *zstd = "application/vnd.oci.image.layer.v1.tar+zstd";

	(void)state;
	assert_info(gzip, LAYER, NULL, -1,
		    "{\"compression\":2,\"compressed-size\":77,\"compressed-diff-digest\":\"" LAYER
		    "\",\"diff-digest\":\"" DIFF "\"}\n");
	assert_info(zstd, LAYER, NULL, 0,
		    "{\"compression\":4,\"compressed-size\":77,\"compressed-diff-digest\":\"" LAYER
		    "\",\"diff-digest\":\"" DIFF "\",\"diff-size\":0}\n");
	/* what is its own diff is not compressed, whatever it is called */
	assert_info(gzip, DIFF, NULL, 77,
		    "{\"compression\":0,\"compressed-size\":77,\"compressed-diff-digest\":\"" DIFF
		    "\",\"diff-digest\":\"" DIFF "\",\"diff-size\":77}\n");
	assert_info(gzip, LAYER, DIFF, -1,
		    "{\"compression\":2,\"compressed-size\":77,\"toc-digest\":\"" DIFF
		    "\",\"flags\":{\"expected-layer-diffid\":\"" DIFF "\"},\"diff-size\":-1}\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_references),
		cmocka_unit_test(test_names_that_are_none),
		cmocka_unit_test(test_info),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
