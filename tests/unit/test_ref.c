// SPDX-License-Identifier: Apache-2.0
/* ref: the grammar, valid and not, and what SOURCE means. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "regfs/ref.h"

#define HEX64  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define SHA256 "sha256:" HEX64
#define SHA512 "sha512:" HEX64 HEX64

static char *repeat(char c, size_t n)
{
	char *str = malloc(n + 1);

	assert_non_null(str);
	memset(str, c, n);
	str[n] = '\0';
	return str;
}

struct verdict {
	const char *str;
	bool valid;
};

static void check_verdicts(bool (*fn)(const char *), const struct verdict *table, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (fn(table[i].str) != table[i].valid)
			fail_msg("\"%s\" should be %s", table[i].str,
				 table[i].valid ? "valid" : "invalid");
}

static void test_hosts(void **state)
{
	static const struct verdict table[] = {
		{"docker.io", true},
		{"localhost", true},
		{"local", true},
		{"localhost:5000", true},
		{"reg:5000", true},
		{"a.b-c.d9", true},
		{"127.0.0.1:1", true},
		{"reg:65535", true},
		{"[::1]", true},
		{"[::1]:5000", true},
		{"[fe80::1:2]:80", true},
		{"xn--bcher-kva.example", true},
		{"", false},
		{"reg", false},
		{".git", false},
		{"a..b", false},
		{"a.", false},
		{"a.-b", false},
		{"a-.b", false},
		{"-a.b", false},
		{"a_b.c", false},
		{"GHCR.io", false},
		{"reg:", false},
		{"reg:0", false},
		{"reg:05", false},
		{"reg:65536", false},
		{"reg:655350", false},
		{"reg:+5", false},
		{"reg:5a", false},
		{"reg:5:6", false},
		{":5000", false},
		{"a.b/c", false},
		{"a.b ", false},
		{"a.\xc3\xa9", false},
		{"[::1", false},
		{"[::1]x", false},
		{"[::1]:", false},
		{"[]", false},
		{"[]:5", false},
		{"[1.2.3.4]", false},
		{"[::FF]", false},
		{"[:::]", false},
		{"::1", false},
		{"[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0001]:1", false},
		{"local:", false},
		{"..", false},
		{".", false},
	};
	char *label = repeat('a', 251);
	char host[300];

	(void)state;
	check_verdicts(ref_host_valid, table, ARRAY_SIZE(table));
	snprintf(host, sizeof(host), "%s.com:65535", label);
	assert_true(ref_host_valid(host));
	assert_int_equal(strlen(host), REF_HOST_MAX - 1);
	snprintf(host, sizeof(host), "a%s.com", label);
	assert_false(ref_host_valid(host));
	free(label);
}

static void test_components(void **state)
{
	static const struct verdict table[] = {
		{"a", true},	   {"app", true},    {"0", true},     {"a.b", true},
		{"a_b", true},	   {"a__b", true},   {"a-b", true},   {"a---b", true},
		{"a-1_b.c", true}, {"", false},	     {"A", false},    {"a.", false},
		{".a", false},	   {"_a", false},    {"-a", false},   {"a-", false},
		{"a..b", false},   {"a___b", false}, {"a.-b", false}, {"a_-b", false},
		{"a/b", false},	   {"a b", false},   {"a:b", false},  {"_tags", false},
		{"\xff", false},   {"..", false},
	};
	char *longest = repeat('a', 255), *too_long = repeat('a', 256);

	(void)state;
	check_verdicts(ref_component_valid, table, ARRAY_SIZE(table));
	assert_true(ref_component_valid(longest));
	assert_false(ref_component_valid(too_long));
	free(longest);
	free(too_long);
}

static void test_repos(void **state)
{
	static const struct verdict table[] = {
		{"library/alpine", true},
		{"a", true},
		{"a/b/c/d/e", true},
		{"a-b/c_d/e.f", true},
		{"", false},
		{"/", false},
		{"/a", false},
		{"a/", false},
		{"a//b", false},
		{"a/../b", false},
		{"a/_b", false},
		{"a/B", false},
		{"a/b:c", false},
		{"./a", false},
	};
	char *longest = repeat('a', 255), *too_long = repeat('a', 256);

	(void)state;
	check_verdicts(ref_repo_valid, table, ARRAY_SIZE(table));
	longest[100] = too_long[100] = '/';
	assert_true(ref_repo_valid(longest));
	assert_false(ref_repo_valid(too_long));
	free(longest);
	free(too_long);
}

static void test_tags(void **state)
{
	static const struct verdict table[] = {
		{"1.5", true},	{"latest", true},    {"_x", true},    {"A-b_C.9", true},
		{"1..2", true}, {"", false},	     {".tmp", false}, {"-x", false},
		{"a b", false}, {"a/b", false},	     {"a:b", false},  {"a@b", false},
		{"a+b", false}, {"\xc3\xa9", false},
	};
	char *longest = repeat('a', 128), *too_long = repeat('a', 129);

	(void)state;
	check_verdicts(ref_tag_valid, table, ARRAY_SIZE(table));
	assert_true(ref_tag_valid(longest));
	assert_false(ref_tag_valid(too_long));
	free(longest);
	free(too_long);
}

static void test_parse_valid(void **state)
{
	static const struct {
		const char *str, *formatted; /* the full form */
	} table[] = {
		{"alpine", "docker.io/library/alpine:latest"},
		{"alpine:3.20", "docker.io/library/alpine:3.20"},
		{"acme/web", "docker.io/acme/web:latest"},
		{"docker.io/alpine", "docker.io/library/alpine:latest"},
		{"index.docker.io/alpine", "docker.io/library/alpine:latest"},
		{"docker.io/acme/web:1", "docker.io/acme/web:1"},
		{"ghcr.io/web", "ghcr.io/web:latest"},
		{"ghcr.io/acme/web@" SHA256, "ghcr.io/acme/web@" SHA256},
		{"ghcr.io/acme/web:1@" SHA256, "ghcr.io/acme/web:1@" SHA256},
		{"ghcr.io/acme/web@" SHA512, "ghcr.io/acme/web@" SHA512},
		{"localhost:5000/a/b:1", "localhost:5000/a/b:1"},
		{"localhost/a", "localhost/a:latest"},
		{"local/team/app:1", "local/team/app:1"},
		{"reg:5000/a", "reg:5000/a:latest"},
		{"reg:5000", "docker.io/library/reg:5000"},
		{"[::1]:5000/a/b", "[::1]:5000/a/b:latest"},
		{"my.app:1", "docker.io/library/my.app:1"},
		{"locals/a", "docker.io/locals/a:latest"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		char formatted[REF_STR_MAX];
		const char *why = "?";
		struct ref ref;

		if (ref_parse(table[i].str, &ref, &why))
			fail_msg("%s: %s", table[i].str, why);
		assert_string_equal(ref_format(&ref, formatted), table[i].formatted);
	}
}

static void test_parse_invalid(void **state)
{
	static const struct {
		const char *str, *word; /* of the sentence */
	} table[] = {
		{"", "repository"},
		{"/", "repository"},
		{"a/", "repository"},
		{"ghcr.io/", "repository is missing"},
		{"ghcr.io/:1", "repository is missing"},
		{":1", "repository is missing"},
		{"Alpine", "repository"},
		{"a//b", "repository"},
		{"a/../b", "repository"},
		{"a:", "tag"},
		{"a:.x", "tag"},
		{"a:b:c", "tag"},
		{"a:b/c", "HOST"},
		{"a@", "digest"},
		{"a@sha256:12", "digest"},
		{"a@sha256:" HEX64 "0", "digest"},
		{"a@" SHA256 ":1", "digest"},
		{"a@md5:0123456789abcdef0123456789abcdef", "digest"},
		{"GHCR.io/a", "HOST"},
		{"ghcr.io:0/a", "HOST"},
		{"ghcr.io:99999/a", "HOST"},
		{".git/a", "HOST"},
		{"https://ghcr.io/a", "HOST"},
		{"a\nb", "repository"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		const char *why = "no sentence";
		struct ref ref, untouched;

		memset(&ref, 0x5a, sizeof(ref));
		untouched = ref;
		if (ref_parse(table[i].str, &ref, &why) != -EINVAL)
			fail_msg("\"%s\" was taken", table[i].str);
		if (!strstr(why, table[i].word))
			fail_msg("\"%s\": \"%s\" without \"%s\"", table[i].str, why, table[i].word);
		assert_memory_equal(&ref, &untouched, sizeof(ref));
	}
}

static void test_parse_long(void **state)
{
	char *name = repeat('a', 300);
	const char *why;
	struct ref ref;

	(void)state;
	assert_int_equal(ref_parse(name, &ref, &why), -EINVAL);
	name[255] = '\0';
	name[1] = '/';
	assert_int_equal(ref_parse(name, &ref, &why), 0);
	name[1] = 'a'; /* "library/" is added */
	assert_int_equal(ref_parse(name, &ref, &why), -EINVAL);
	name[247] = '\0';
	assert_int_equal(ref_parse(name, &ref, &why), 0);
	assert_int_equal(strlen(ref.repo), 255);
	free(name);
}

static void test_split(void **state)
{
	static const char *const neither[] = {
		"",	  "app",	 "app:",       "app:.x",	  "app@",
		":1.5",	  "App:1",	 "app@sha256", "_tags",		  "app:1@" SHA256,
		".app:1", "app@sha256:", "a/b:1",      "app@" SHA256 "0", "app+1",
	};
	char component[REF_REPO_MAX] = "old", tag[REF_TAG_MAX] = "old", str[DIGEST_STR_MAX];
	struct digest digest = {.algo = DIGEST_SHA512};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(neither); i++)
		if (ref_split_image_name(neither[i], component, tag, &digest) != -ENOENT)
			fail_msg("\"%s\" was taken", neither[i]);
	assert_string_equal(component, "old");
	assert_string_equal(tag, "old");
	assert_int_equal(digest.algo, DIGEST_SHA512);

	assert_int_equal(ref_split_image_name("my-app:1.5", component, tag, &digest), 0);
	assert_string_equal(component, "my-app");
	assert_string_equal(tag, "1.5");
	assert_int_equal(digest.algo, DIGEST_NONE);

	assert_int_equal(ref_split_image_name("app@" SHA256, component, tag, &digest), 0);
	assert_string_equal(component, "app");
	assert_string_equal(tag, "");
	assert_string_equal(digest_format(&digest, str), SHA256);
}

static void test_source_valid(void **state)
{
	static const struct {
		const char *str;
		enum source_kind kind;
		const char *formatted;
		bool plain_http, https;
	} table[] = {
		{"", SOURCE_NONE, "", false, false},
		{"local", SOURCE_LOCAL, "local", false, false},
		{"localhost", SOURCE_HOST, "localhost", false, false},
		{"localhost:5000", SOURCE_HOST, "localhost:5000", false, false},
		{"ghcr.io", SOURCE_HOST, "ghcr.io", false, false},
		{"reg.io:5000", SOURCE_HOST, "reg.io:5000", false, false},
		{"127.0.0.1:5000", SOURCE_HOST, "127.0.0.1:5000", false, false},
		{"[::1]:5000", SOURCE_HOST, "[::1]:5000", false, false},
		{"https://reg:5000", SOURCE_HOST, "reg:5000", false, true},
		{"https://reg:5000/", SOURCE_HOST, "reg:5000", false, true},
		{"http://reg", SOURCE_HOST, "reg", true, false},
		{"http://localhost:5000", SOURCE_HOST, "localhost:5000", true, false},
		{"debian:12", SOURCE_IMAGE, "docker.io/library/debian:12", false, false},
		{"alpine:3.20", SOURCE_IMAGE, "docker.io/library/alpine:3.20", false, false},
		{"alpine", SOURCE_IMAGE, "docker.io/library/alpine:latest", false, false},
		{"reg:5000", SOURCE_IMAGE, "docker.io/library/reg:5000", false, false},
		{"my.app@" SHA256, SOURCE_IMAGE, "docker.io/library/my.app@" SHA256, false, false},
		{"ghcr.io/acme/web@" SHA256, SOURCE_IMAGE, "ghcr.io/acme/web@" SHA256, false,
		 false},
		{"local/team/app:1", SOURCE_IMAGE, "local/team/app:1", false, false},
		{"locals", SOURCE_IMAGE, "docker.io/library/locals:latest", false, false},
	};
	struct source source = {.kind = SOURCE_IMAGE};
	const char *why = "?";

	(void)state;
	assert_int_equal(source_parse(NULL, &source, &why), 0);
	assert_int_equal(source.kind, SOURCE_NONE);
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		char formatted[REF_STR_MAX];

		if (source_parse(table[i].str, &source, &why))
			fail_msg("%s: %s", table[i].str, why);
		assert_int_equal(source.kind, table[i].kind);
		assert_string_equal(ref_format(&source.ref, formatted), table[i].formatted);
		assert_int_equal(source.plain_http, table[i].plain_http);
		assert_int_equal(source.https, table[i].https);
	}
}

static void test_source_invalid(void **state)
{
	static const struct {
		const char *str, *word;
	} table[] = {
		{"https://", "HOST"},
		{"https://reg/app", "no path"},
		{"https://reg//", "no path"},
		{"https://user:secret@reg", "regfs login"},
		{"http://Reg", "HOST"},
		{"https://reg:0", "HOST"},
		{"ftp://reg", "HOST"},
		{"web.app:1.5", "HOST"},
		{"ghcr.io:", "HOST"},
		{".", "HOST"},
		{"..", "HOST"},
		{"localhost:", "HOST"},
		{"[::1", "HOST"},
		{"ghcr.io/", "repository"},
		{"Debian", "repository"},
		{"/mnt", "repository"},
		{"debian:", "tag"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		const char *why = "no sentence";
		struct source source = {.kind = SOURCE_LOCAL};

		if (source_parse(table[i].str, &source, &why) != -EINVAL)
			fail_msg("\"%s\" was taken", table[i].str);
		if (!strstr(why, table[i].word))
			fail_msg("\"%s\": \"%s\" without \"%s\"", table[i].str, why, table[i].word);
		assert_int_equal(source.kind, SOURCE_LOCAL);
	}
}

static void test_format(void **state)
{
	struct ref ref = {.host = "ghcr.io"};
	char out[REF_STR_MAX];

	(void)state;
	assert_string_equal(ref_format(&ref, out), "ghcr.io");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hosts),	     cmocka_unit_test(test_components),
		cmocka_unit_test(test_repos),	     cmocka_unit_test(test_tags),
		cmocka_unit_test(test_parse_valid),  cmocka_unit_test(test_parse_invalid),
		cmocka_unit_test(test_parse_long),   cmocka_unit_test(test_split),
		cmocka_unit_test(test_source_valid), cmocka_unit_test(test_source_invalid),
		cmocka_unit_test(test_format),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
