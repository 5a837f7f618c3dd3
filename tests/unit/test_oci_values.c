// SPDX-License-Identifier: Apache-2.0
/* oci: platforms, times, the smaller documents, and the writers. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "regfs/oci.h"

#define HEX_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HEX_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

/* --- platforms --- */

static void test_platform_name(void **state)
{
	static const struct {
		struct oci_platform platform;
		const char *name;
	} table[] = {
		{{.os = "linux", .architecture = "arm64", .variant = "v8"}, "linux-arm64-v8"},
		{{.os = "linux", .architecture = "amd64"}, "linux-amd64"},
		{{.os = "windows", .architecture = "amd64", .os_version = "10.0.17763"},
		 "windows-amd64-10.0.17763"},
		{{.architecture = "amd64"}, "amd64"},
		{{.os = "", .architecture = "", .variant = "v7"}, "v7"},
		{{0}, "unknown"},
		{{.os = "../..", .architecture = "a b\n"}, "_._..-a_b_"},
		{{.os = ".."}, "_."},
		{{.os = "\xc3\xa9"}, "__"},
	};
	struct oci_platform huge = {.os = "linux"};
	char *name;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		name = oci_platform_name(&table[i].platform);
		assert_non_null(name);
		assert_string_equal(name, table[i].name);
		free(name);
	}
	huge.architecture = malloc(1001);
	assert_non_null(huge.architecture);
	memset(huge.architecture, 'x', 1000);
	huge.architecture[1000] = '\0';
	name = oci_platform_name(&huge);
	assert_true(name && strlen(name) < 255);
	free(name);
	free(huge.architecture);
}

static void test_platform_parse(void **state)
{
	static const char *const refused[] = {
		"",	     "linux",	    "linux/",	    "/amd64",
		"linux//v8", "linux/a/b/c", "linux/arm64/", "linux/a b"};
	struct oci_platform p;

	(void)state;
	assert_int_equal(oci_platform_parse("linux/arm64/v8", &p), 0);
	assert_string_equal(p.os, "linux");
	assert_string_equal(p.architecture, "arm64");
	assert_string_equal(p.variant, "v8");
	oci_platform_release(&p);
	assert_int_equal(oci_platform_parse("linux/amd64", &p), 0);
	assert_null(p.variant);
	oci_platform_release(&p);
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
		if (oci_platform_parse(refused[i], &p) != -EINVAL)
			fail_msg("taken: \"%s\"", refused[i]);
}

static void test_platform_host(void **state)
{
	struct oci_platform host;

	(void)state;
	assert_int_equal(oci_platform_host(&host), 0);
	assert_string_equal(host.os, "linux");
#if defined(__x86_64__)
	assert_string_equal(host.architecture, "amd64");
	assert_null(host.variant);
#elif defined(__aarch64__)
	assert_string_equal(host.architecture, "arm64");
#endif
	oci_platform_release(&host);
}

/* "linux/arm/v7"; "-" for a child without platform. */
static struct oci_descriptor child_of(const char *str)
{
	struct oci_descriptor child = {.media_type = OCI_TYPE_MANIFEST};

	if (strcmp(str, "-") != 0)
		assert_int_equal(oci_platform_parse(str, &child.platform), 0);
	return child;
}

static void test_platform_choose(void **state)
{
	static const struct {
		const char *want, *children[5];
		int chosen;
	} table[] = {
		{"linux/amd64", {"linux/arm64", "linux/amd64", "linux/amd64"}, 1},
		{"linux/amd64", {"linux/arm64/v8", "windows/amd64"}, -1},
		{"linux/amd64", {"linux/386"}, -1},
		{"linux/amd64", {"linux/amd64/v2", "linux/amd64/v1"}, 1},
		{"linux/amd64", {"linux/amd64/v2"}, -1},
		{"linux/amd64/v3", {"linux/amd64", "linux/amd64/v2", "linux/amd64/v4"}, 1},
		{"linux/x86_64", {"linux/amd64"}, 0},
		{"linux/arm64", {"linux/arm64/v8"}, 0},
		{"linux/arm64/v8", {"linux/arm64"}, 0},
		{"linux/arm64", {"linux/arm/v7", "linux/arm64/v9"}, -1},
		{"linux/arm64/v9", {"linux/arm64/v8", "linux/arm64/v8.2"}, 1},
		{"linux/aarch64", {"linux/arm64"}, 0},
		{"linux/arm/v7", {"linux/arm/v5", "linux/arm/v6", "linux/arm/v8"}, 1},
		{"linux/arm/v6", {"linux/arm", "linux/arm/v5"}, 1},
		{"linux/arm", {"linux/arm/v6", "linux/arm/7"}, 1},
		{"linux/armhf", {"linux/arm/v7"}, 0},
		{"linux/ppc64le", {"linux/ppc64le/power9", "linux/ppc64le"}, 1},
		{"linux/s390x", {"linux/s390"}, -1},
		{"linux/amd64", {"-"}, 0},
		{"linux/amd64", {"-", "linux/amd64"}, 1},
		{"linux/amd64", {"linux/arm64", "-"}, 1},
		{"linux/amd64", {NULL}, -1},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct oci_descriptor children[5];
		struct oci_manifest index = {.kind = OCI_KIND_INDEX, .children = children};
		struct oci_descriptor want = child_of(table[i].want);

		while (index.nchildren < 5 && table[i].children[index.nchildren]) {
			children[index.nchildren] = child_of(table[i].children[index.nchildren]);
			index.nchildren++;
		}
		if (oci_platform_choose(&index, &want.platform) != table[i].chosen)
			fail_msg("row %zu: %s", i, table[i].want);
		for (size_t j = 0; j < index.nchildren; j++)
			oci_platform_release(&children[j].platform);
		oci_platform_release(&want.platform);
	}
}

static void test_choose_passes_attestations(void **state)
{
	struct oci_annotation mark = {"com.amazon.soci.image-manifest-digest", "x"};
	struct oci_descriptor children[] = {
		{.media_type = OCI_TYPE_MANIFEST,
		 .platform = {.os = "linux", .architecture = "amd64"},
		 .annotations = &mark,
		 .nannotations = 1},
		{.media_type = OCI_TYPE_MANIFEST, .artifact_type = "application/x"},
		{.media_type = "application/x"},
		{.media_type = OCI_TYPE_MANIFEST,
		 .platform = {.os = "linux", .architecture = "amd64"}},
	};
	struct oci_manifest index = {.kind = OCI_KIND_INDEX, .children = children, .nchildren = 4};

	(void)state;
	assert_int_equal(oci_platform_choose(&index, &children[0].platform), 3);
	index.nchildren = 3;
	assert_int_equal(oci_platform_choose(&index, &children[0].platform), -1);
}

/* --- times --- */

static void test_times(void **state)
{
	static const struct {
		const char *str;
		int64_t sec;
		uint32_t nsec;
	} table[] = {
		{"1970-01-01T00:00:00Z", 0, 0},
		{"2024-02-29T12:34:56.789Z", 1709210096, 789000000},
		{"2024-02-29T12:34:56.123456789123Z", 1709210096, 123456789},
		{"2024-02-29t12:34:56z", 1709210096, 0},
		{"2024-02-29T14:34:56+02:00", 1709210096, 0},
		{"2024-02-29T07:04:56-05:30", 1709210096, 0},
		{"2000-12-31T23:59:60Z", 978307200, 0},
		{"2000-02-29T00:00:00Z", 951782400, 0},
		{"1969-12-31T23:59:59.5Z", -1, 500000000},
		{"0001-01-01T00:00:00Z", -62135596800, 0},
		{"0000-03-01T00:00:00Z", -62162035200, 0},
		{"9999-12-31T23:59:59Z", 253402300799, 0},
	};
	static const char *const refused[] = {
		"",
		"2024",
		"2024-01-01",
		"2024-01-01T00:00:00",
		"2024-01-01 00:00:00Z",
		"2024-13-01T00:00:00Z",
		"2024-00-01T00:00:00Z",
		"2024-01-32T00:00:00Z",
		"2024-01-00T00:00:00Z",
		"2023-02-29T00:00:00Z",
		"1900-02-29T00:00:00Z",
		"2024-01-01T24:00:00Z",
		"2024-01-01T00:60:00Z",
		"2024-01-01T00:00:61Z",
		"2024-01-01T00:00:00.Z",
		"2024-01-01T00:00:00,5Z",
		"2024-01-01T00:00:00+0200",
		"2024-01-01T00:00:00+24:00",
		"2024-01-01T00:00:00ZZ",
		"+024-01-01T00:00:00Z",
		"2024-1-01T00:00:00Z",
	};
	int64_t sec = 77;
	uint32_t nsec = 77;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
		if (oci_time_parse(refused[i], &sec, &nsec) != -EINVAL)
			fail_msg("taken: \"%s\"", refused[i]);
	assert_true(sec == 77 && nsec == 77);
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		assert_int_equal(oci_time_parse(table[i].str, &sec, &nsec), 0);
		if (sec != table[i].sec || nsec != table[i].nsec)
			fail_msg("%s is %lld.%09u", table[i].str, (long long)sec, nsec);
	}
}

/* --- the smaller documents --- */

static void test_docker_archive(void **state)
{
	static const char json[] = "[{\"Config\":\"c.json\",\"RepoTags\":[\"a:1\",\"b:2\"],"
				   "\"Layers\":[\"x/layer.tar\"]},"
				   "{\"Config\":\"d.json\",\"RepoTags\":null}]";
	static const char *const refused[] = {
		"{}",
		"[1]",
		"[{}]",
		"[{\"Config\":1}]",
		"[{\"Config\":\"c\",\"Layers\":\"x\"}]",
		"[{\"Config\":\"c\",\"Layers\":[null]}]",
		"[{\"Config\":\"c\",\"RepoTags\":[1]}]",
		"[{\"Config\":\"c\",\"Config\":\"d\"}]",
	};
	AUTO_BUF struct buf text = BUF_INIT(MIB);
	struct docker_archive archive;
	const char *why = "?";

	(void)state;
	assert_int_equal(docker_archive_parse(json, strlen(json), &archive, &why), 0);
	assert_int_equal(archive.nentries, 2);
	assert_string_equal(archive.entries[0].config, "c.json");
	assert_int_equal(archive.entries[0].nrepo_tags, 2);
	assert_string_equal(archive.entries[0].repo_tags[1], "b:2");
	assert_string_equal(archive.entries[0].layers[0], "x/layer.tar");
	assert_int_equal(archive.entries[1].nrepo_tags, 0);
	assert_int_equal(archive.entries[1].nlayers, 0);
	assert_int_equal(docker_archive_write(&archive, &text), 0);
	assert_string_equal(text.data, "[{\"Config\":\"c.json\",\"RepoTags\":[\"a:1\",\"b:2\"],"
				       "\"Layers\":[\"x/layer.tar\"]},"
				       "{\"Config\":\"d.json\",\"RepoTags\":null,\"Layers\":[]}]");
	docker_archive_release(&archive);
	docker_archive_release(&archive);
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
		if (docker_archive_parse(refused[i], strlen(refused[i]), &archive, &why) != -EINVAL)
			fail_msg("taken: %s", refused[i]);
}

struct names {
	char text[64];
	unsigned stop_after;
};

static int add_name(void *arg, const char *name)
{
	struct names *names = arg;
	size_t len = strlen(names->text);

	snprintf(names->text + len, sizeof(names->text) - len, "%s;", name);
	return --names->stop_after == 0 ? 42 : 0;
}

static void test_names(void **state)
{
	static const struct {
		const char *json, *names;
		int err;
	} table[] = {
		{"{\"name\":\"x\",\"tags\":[\"b\",\"a\"]}", "b;a;", 0},
		{"{\"tags\":[]}", "", 0},
		{"{\"tags\":null}", "", 0},
		{"{\"tags\":[\"a\",null,\"b\"]}", "a;b;", 0},
		{"{\"tags\":[\"1\",\"2\",\"3\",\"4\"]}", "1;2;3;", 42},
		{"{\"tags\":[\"a\",1]}", "", -EINVAL},
		{"{\"tags\":{}}", "", -EINVAL},
		{"{\"tags\":\"a\"}", "", -EINVAL},
		{"{\"tags\":[\"a\"],\"tags\":[]}", "", -EINVAL},
		{"{\"Tags\":[\"a\"]}", "", -EINVAL},
		{"{}", "", -EINVAL},
		{"[\"a\"]", "", -EINVAL},
		{"<html>", "", -EINVAL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct names names = {.stop_after = 3};
		const char *why = "?", *json = table[i].json;

		if (oci_names_parse(json, strlen(json), "tags", add_name, &names, &why) !=
		    table[i].err)
			fail_msg("%s: %s", json, why);
		assert_string_equal(names.text, table[i].names);
	}
}

static void test_many_names(void **state)
{
	AUTO_BUF struct buf text = BUF_INIT(64 * MIB);
	struct names names = {.stop_after = 0};
	const char *why;

	(void)state;
	assert_int_equal(buf_puts(&text, "{\"tags\":[\"\""), 0);
	for (int i = 0; i < 200000; i++)
		assert_int_equal(buf_puts(&text, ",\"0123456789012345678901234567890123456789\""),
				 0);
	assert_int_equal(buf_puts(&text, "]}"), 0);
	assert_true(text.len > OCI_MANIFEST_MAX);
	assert_int_equal(oci_names_parse(text.data, text.len, "tags", add_name, &names, &why), 0);
	assert_int_equal(UINT32_MAX - names.stop_after + 1, 200001);
}

static void test_single_fields(void **state)
{
	static const char json[] = "{\"token\":\"abc\",\"expires_in\":300,\"half\":0.5,\"no\":null,"
				   "\"twice\":\"a\",\"twice\":\"b\",\"minus\":-5}";
	size_t len = strlen(json);
	char *token = oci_json_string(json, len, "token");

	(void)state;
	assert_string_equal(token, "abc");
	free(token);
	assert_null(oci_json_string(json, len, "expires_in"));
	assert_null(oci_json_string(json, len, "no"));
	assert_null(oci_json_string(json, len, "twice"));
	assert_null(oci_json_string(json, len - 1, "token"));
	assert_null(oci_json_string("[\"token\"]", 9, "token"));
	assert_int_equal(oci_json_number(json, len, "expires_in", 60), 300);
	assert_int_equal(oci_json_number(json, len, "minus", 60), -5);
	assert_int_equal(oci_json_number(json, len, "half", 60), 60);
	assert_int_equal(oci_json_number(json, len, "token", 60), 60);
	assert_int_equal(oci_json_number(json, len, "absent", 60), 60);
	assert_int_equal(oci_json_number("x", 1, "absent", 60), 60);
}

static void test_errors(void **state)
{
	static const struct {
		const char *json, *text, *code;
	} table[] = {
		{"{\"errors\":[{\"code\":\"DENIED\",\"message\":\"quota\",\"detail\":\"5 GB\"}]}",
		 "DENIED: quota (5 GB)", "DENIED"},
		{"{\"errors\":[{\"code\":\"A\",\"message\":\"m\",\"detail\":{\"Tag\":\"x\"}},"
		 "{\"code\":\"B\",\"detail\":null}]}",
		 "A: m ({\"Tag\":\"x\"}); B", "A"},
		{"{\"errors\":[{\"message\":\"two\\nlines\\u001b[0m\"}]}", "two lines [0m", ""},
		{"{\"errors\":[{\"code\":5,\"message\":\"m\"}]}", "m", ""},
		{"{\"errors\":[{\"code\":\"A\"},{\"code\":\"B\"},{\"code\":\"C\"},{\"code\":\"D\"},"
		 "{\"code\":\"E\"}]}",
		 "A; B; C; D", "A"},
		{"{\"errors\":[]}", NULL, ""},
		{"{\"errors\":[1]}", NULL, ""},
		{"{\"errors\":{}}", NULL, ""},
		{"{\"message\":\"m\"}", NULL, ""},
		{"<html>", NULL, ""},
		{"", NULL, ""},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		char code[64] = "old";
		AUTO_FREE char *text = oci_error_message(table[i].json, strlen(table[i].json),
							 code);

		if (!table[i].text != !text)
			fail_msg("%s: %s", table[i].json, text ? text : "NULL");
		if (text)
			assert_string_equal(text, table[i].text);
		assert_string_equal(code, table[i].code);
	}
}

static void test_long_error(void **state)
{
	char json[5000], code[64], *text;
	int len = snprintf(json, sizeof(json),
			   "{\"errors\":[{\"code\":\"%0100d\","
			   "\"message\":\"%0100d\",\"detail\":\"%0500d\"},"
			   "{\"code\":\"%02000d\"}]}",
			   1, 2, 3, 4);

	(void)state;
	text = oci_error_message(json, (size_t)len, code);
	assert_non_null(text);
	assert_int_equal(strlen(text), 202); /* what does not fit is left out as a whole */
	assert_int_equal(strlen(code), 63);
	free(text);
}

/* --- writers --- */

static struct oci_descriptor descriptor_of(const char *type, const char *hex, int64_t size)
{
	struct oci_descriptor descriptor = {.media_type = (char *)type, .size = size};
	char digest[DIGEST_STR_MAX];

	snprintf(digest, sizeof(digest), "sha256:%s", hex);
	assert_int_equal(digest_parse(digest, &descriptor.digest), 0);
	return descriptor;
}

static void test_manifest_write(void **state)
{
	struct oci_annotation title = {"org.opencontainers.image.title", "a \"b\""};
	struct oci_descriptor config = descriptor_of(OCI_TYPE_CONFIG, HEX_A, 2);
	struct oci_descriptor layers[] = {
		descriptor_of(OCI_TYPE_LAYER_GZIP, HEX_A, 5000000000),
		descriptor_of(OCI_TYPE_LAYER, HEX_B, 0),
	};
	AUTO_BUF struct buf text = BUF_INIT(MIB);
	struct oci_manifest m;
	const char *why = "?";

	(void)state;
	layers[1].annotations = &title;
	layers[1].nannotations = 1;
	assert_int_equal(oci_manifest_write(OCI_TYPE_MANIFEST, &config, layers, 2, &text), 0);
	assert_string_equal(text.data,
			    "{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_MANIFEST
			    "\",\"config\":{\"mediaType\":\"" OCI_TYPE_CONFIG
			    "\",\"digest\":\"sha256:" HEX_A
			    "\",\"size\":2},\"layers\":[{\"mediaType\":\"" OCI_TYPE_LAYER_GZIP
			    "\",\"digest\":\"sha256:" HEX_A
			    "\",\"size\":5000000000},{\"mediaType\":\"" OCI_TYPE_LAYER
			    "\",\"digest\":\"sha256:" HEX_B "\",\"size\":0,\"annotations\":{"
			    "\"org.opencontainers.image.title\":\"a \\\"b\\\"\"}}]}");
	assert_int_equal(oci_manifest_parse(text.data, text.len, NULL, &m, &why), 0);
	assert_int_equal(m.nlayers, 2);
	oci_manifest_release(&m);
}

#define ENTRY(hex, name)                                                                           \
	"{\"mediaType\":\"" OCI_TYPE_MANIFEST "\",\"digest\":\"sha256:" hex                        \
	"\",\"size\":7,\"annotations\":{\"org.opencontainers.image.ref.name\":\"" name "\"}}"
#define UNNAMED(hex)                                                                               \
	"{\"mediaType\":\"" OCI_TYPE_MANIFEST "\",\"digest\":\"sha256:" hex "\",\"size\":7}"
#define INDEX(entries) "{\"schemaVersion\":2,\"x\":{\"y\":[1.5]},\"manifests\":[" entries "]}"

static void test_index_update(void **state)
{
	struct oci_descriptor a = descriptor_of(OCI_TYPE_MANIFEST, HEX_A, 7);
	static const struct {
		const char *previous;
		bool put;
		const char *name, *after; /* NULL: -ENOENT */
	} table[] = {
		{INDEX(""), true, "1", INDEX(ENTRY(HEX_A, "1"))},
		{INDEX(ENTRY(HEX_B, "1")), true, "2",
		 INDEX(ENTRY(HEX_B, "1") "," ENTRY(HEX_A, "2"))},
		{INDEX(ENTRY(HEX_B, "1") ",{\"odd\":1}"), true, "1",
		 INDEX(ENTRY(HEX_A, "1") ",{\"odd\":1}")},
		{INDEX(ENTRY(HEX_B, "0") "," ENTRY(HEX_B, "1") "," ENTRY(HEX_A, "1")), true, "1",
		 INDEX(ENTRY(HEX_B, "0") "," ENTRY(HEX_A, "1"))},
		{INDEX(ENTRY(HEX_B, "1") "," ENTRY(HEX_B, "0") "," ENTRY(HEX_B, "1")), true, "1",
		 INDEX(ENTRY(HEX_A, "1") "," ENTRY(HEX_B, "0"))},
		{INDEX(ENTRY(HEX_B, "0") "," ENTRY(HEX_B, "1") "," ENTRY(HEX_B, "2")), true, "1",
		 INDEX(ENTRY(HEX_B, "0") "," ENTRY(HEX_A, "1") "," ENTRY(HEX_B, "2"))},
		{INDEX(UNNAMED(HEX_A)), true, "1", INDEX(UNNAMED(HEX_A) "," ENTRY(HEX_A, "1"))},
		{INDEX(""), true, NULL, INDEX(UNNAMED(HEX_A))},
		{INDEX(ENTRY(HEX_A, "1")), true, NULL, INDEX(ENTRY(HEX_A, "1"))},
		{INDEX(UNNAMED(HEX_B)), true, NULL, INDEX(UNNAMED(HEX_B) "," UNNAMED(HEX_A))},
		{INDEX(ENTRY(HEX_A, "1") "," ENTRY(HEX_A, "2")), false, "1",
		 INDEX(ENTRY(HEX_A, "2"))},
		{INDEX(ENTRY(HEX_A, "1")), false, "2", NULL},
		{"{\"manifests\":null}", true, NULL, "{\"manifests\":[" UNNAMED(HEX_A) "]}"},
		{"{}", true, NULL, "{\"manifests\":[" UNNAMED(HEX_A) "]}"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		AUTO_BUF struct buf text = BUF_INIT(MIB);
		int err = oci_index_update(table[i].previous, strlen(table[i].previous),
					   table[i].put ? &a : NULL, table[i].name, &text);

		assert_int_equal(err, table[i].after ? 0 : -ENOENT);
		assert_string_equal(text.data ? text.data : "",
				    table[i].after ? table[i].after : "");
	}
}

static void test_index_new(void **state)
{
	struct oci_annotation notes[] = {
		{"io.containerd.image.name", "docker.io/library/a:1"},
		{"org.opencontainers.image.ref.name", "old"},
	};
	struct oci_descriptor a = descriptor_of(OCI_TYPE_MANIFEST, HEX_A, 7);
	AUTO_BUF struct buf text = BUF_INIT(MIB);
	struct oci_manifest m;
	const char *why = "?";

	(void)state;
	a.annotations = notes;
	a.nannotations = 2;
	a.artifact_type = "application/x";
	a.platform = (struct oci_platform){.os = "linux", .architecture = "arm", .variant = "v7"};
	assert_int_equal(oci_index_update(NULL, 0, &a, "1", &text), 0);
	assert_int_equal(oci_manifest_parse(text.data, text.len, NULL, &m, &why), 0);
	assert_string_equal(m.media_type, OCI_TYPE_INDEX);
	assert_int_equal(m.nchildren, 1);
	assert_int_equal(m.children[0].nannotations, 2);
	assert_string_equal(
		oci_annotation(m.children[0].annotations, 2, "org.opencontainers.image.ref.name"),
		"1");
	assert_string_equal(m.children[0].platform.variant, "v7");
	assert_string_equal(m.children[0].artifact_type, "application/x");
	assert_true(digest_equal(&m.children[0].digest, &a.digest));
	oci_manifest_release(&m);
}

static void test_index_remove(void **state)
{
	static const char index[] = INDEX(
		ENTRY(HEX_A, "1") "," UNNAMED(HEX_B) "," UNNAMED(HEX_A) "," ENTRY(HEX_B, "2"));
	struct oci_descriptor a = descriptor_of("", HEX_A, 0);
	AUTO_BUF struct buf text = BUF_INIT(MIB), again = BUF_INIT(MIB);

	(void)state;
	assert_int_equal(oci_index_remove(index, strlen(index), &a.digest, &text), 0);
	assert_string_equal(text.data, INDEX(UNNAMED(HEX_B) "," ENTRY(HEX_B, "2")));
	assert_int_equal(oci_index_remove(text.data, text.len, &a.digest, &again), -ENOENT);
	assert_null(again.data);
}

static void test_index_refused(void **state)
{
	static const char *const table[] = {"[]", "{", "{\"manifests\":{}}", "{\"manifests\":1}",
					    ""};
	struct oci_descriptor a = descriptor_of(OCI_TYPE_MANIFEST, HEX_A, 7);
	AUTO_BUF struct buf text = BUF_INIT(MIB);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (oci_index_update(table[i], strlen(table[i]), &a, "1", &text) != -EINVAL)
			fail_msg("taken: %s", table[i]);
	assert_int_equal(oci_index_update(NULL, 0, NULL, NULL, &text), -EINVAL);
	assert_null(text.data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_platform_name),
		cmocka_unit_test(test_platform_parse),
		cmocka_unit_test(test_platform_host),
		cmocka_unit_test(test_platform_choose),
		cmocka_unit_test(test_choose_passes_attestations),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_docker_archive),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_many_names),
		cmocka_unit_test(test_single_fields),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_long_error),
		cmocka_unit_test(test_manifest_write),
		cmocka_unit_test(test_index_update),
		cmocka_unit_test(test_index_new),
		cmocka_unit_test(test_index_remove),
		cmocka_unit_test(test_index_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
