// SPDX-License-Identifier: Apache-2.0
/* imagedir: titles to names of files. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/imagedir_priv.h"

#define BLOBS_MAX 8

/* Blobs with these titles (NULL: none); the first byte of a blob's digest is its number, or that of
 * an equal one after "=N:". */
static void make_manifest(const char *const *titles, struct oci_manifest *ret)
{
	size_t n = 0;

	*ret = (struct oci_manifest){.layers = calloc(BLOBS_MAX, sizeof(*ret->layers))};
	for (; titles[n]; n++) {
		struct oci_descriptor *blob = &ret->layers[n];
		const char *title = titles[n];

		blob->media_type = strdup("");
		blob->digest = (struct digest){.algo = DIGEST_SHA256, .bytes = {(uint8_t)n}};
		if (*title == '=') {
			blob->digest.bytes[0] = (uint8_t)(title[1] - '0');
			title += 3;
		}
		blob->annotations = calloc(1, sizeof(*blob->annotations));
		blob->annotations->key = strdup("org.opencontainers.image.title");
		blob->annotations->value = strdup(title);
		blob->nannotations = 1;
	}
	ret->nlayers = n;
}

/* The paths that TITLES become, digests as "#N". */
static void assert_paths(const char *const *titles, const char *expected)
{
	CLEANUP(oci_manifest_release) struct oci_manifest manifest;
	AUTO_BUF struct buf text = BUF_INIT(MIB);
	struct titles *table;

	make_manifest(titles, &manifest);
	assert_int_equal(titles_new(&manifest, &table), 0);
	for (size_t i = 0; i < table->n; i++) {
		const char *path = table->files[i].path;

		buf_printf(&text, "%s", i ? " " : "");
		if (starts_with(path, "sha256-"))
			buf_printf(&text, "#%zu", table->files[i].blob);
		else
			buf_printf(&text, "%s=%zu", path, table->files[i].blob);
	}
	assert_string_equal(text.data, expected);
	titles_free(table);
}

static void test_paths(void **state)
{
	(void)state;
	assert_paths((const char *[]){"b", "a", "d/x", "d/y", NULL}, "a=1 b=0 d/x=2 d/y=3");
	assert_paths((const char *[]){"", ".", "..", "../a", "/a", "a/", "a//b", "a/../b", NULL},
		     "#0 #1 #2 #3 #4 #5 #6 #7");
	assert_paths((const char *[]){"...", "..a", ".a", "a\tb", NULL}, "...=0 ..a=1 .a=2 #3");
}

static void test_conflicts(void **state)
{
	(void)state;
	assert_paths((const char *[]){"a", "a", NULL}, "a=0 #1");
	assert_paths((const char *[]){"a", "=0:a", NULL}, "a=0");
	assert_paths((const char *[]){"a", "a/b", NULL}, "a=0 #1");
	assert_paths((const char *[]){"a/b", "a", "ab", NULL}, "a/b=0 ab=2 #1");
	assert_paths((const char *[]){"..", "=0:..", NULL}, "#0");
}

static void test_directories(void **state)
{
	static const char *const all[] = {"a-b", "a/x", "a/y/z", "a/y/w", "b", NULL};
	static const struct {
		const char *dir, *expected;
	} cases[] = {{"", "a-b a b"}, {"a/", "x y"}, {"a/y/", "w z"}};
	CLEANUP(oci_manifest_release) struct oci_manifest manifest;
	struct titles *table;
	size_t len;

	(void)state;
	make_manifest(all, &manifest);
	assert_int_equal(titles_new(&manifest, &table), 0);
	for (size_t c = 0; c < ARRAY_SIZE(cases); c++) {
		AUTO_BUF struct buf text = BUF_INIT(MIB);

		for (size_t i = 0; i < table->n; i++)
			if (titles_child(table, cases[c].dir, i, &len))
				buf_printf(&text, "%s%.*s", text.len ? " " : "", (int)len,
					   table->files[i].path + strlen(cases[c].dir));
		assert_string_equal(text.data, cases[c].expected);
	}
	titles_free(table);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_conflicts),
		cmocka_unit_test(test_directories),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
