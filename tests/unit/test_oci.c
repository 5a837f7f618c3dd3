// SPDX-License-Identifier: Apache-2.0
/* oci: manifests, indexes, configs: what is taken, what is refused, and what kind it is. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "regfs/oci.h"

#define HEX_A  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HEX_B  "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define DIGEST "\"digest\":\"sha256:" HEX_A "\""
#define DESC   "{\"mediaType\":\"t\"," DIGEST ",\"size\":3}"
#define CONFIG "\"config\":" DESC
/* sha256 of "{}" */
#define EMPTY_HEX "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"

static int parse(const char *json, struct oci_manifest *ret, const char **ret_why)
{
	return oci_manifest_parse(json, strlen(json), NULL, ret, ret_why);
}

/* Takes JSON or fails the test with the sentence. */
static struct oci_manifest must_parse(const char *json)
{
	struct oci_manifest manifest = {0};
	const char *why = "?";

	if (parse(json, &manifest, &why))
		fail_msg("%s: %s", json, why);
	return manifest;
}

static void test_manifest(void **state)
{
	struct oci_manifest m = must_parse(
		"{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_MANIFEST "\","
		"\"artifactType\":\"application/x\",\"config\":{\"mediaType\":\"" OCI_TYPE_CONFIG
		"\"," DIGEST ",\"size\":7023},"
		"\"layers\":[{\"mediaType\":\"" OCI_TYPE_LAYER_GZIP "\",\"digest\":\"sha256:" HEX_B
		"\",\"size\":9007199254740991,\"annotations\":{\"k\":\"v\",\"n\":null}},"
		"{\"digest\":\"sha512:" HEX_A HEX_B "\",\"size\":0,\"urls\":[\"http://a\",\"b\"]}],"
		"\"subject\":" DESC ",\"annotations\":{\"a\":\"1\",\"b\":\"2\"},\"unknown\":[{}]}");

	(void)state;
	assert_int_equal(m.kind, OCI_KIND_MANIFEST);
	assert_string_equal(m.media_type, OCI_TYPE_MANIFEST);
	assert_string_equal(m.artifact_type, "application/x");
	assert_string_equal(m.config.media_type, OCI_TYPE_CONFIG);
	assert_int_equal(m.config.size, 7023);
	assert_int_equal(m.nlayers, 2);
	assert_true(m.layers[0].size == INT64_C(9007199254740991));
	assert_int_equal(m.layers[0].digest.bytes[31], 0xbb);
	assert_string_equal(oci_annotation(m.layers[0].annotations, m.layers[0].nannotations, "k"),
			    "v");
	assert_string_equal(oci_annotation(m.layers[0].annotations, m.layers[0].nannotations, "n"),
			    "");
	assert_string_equal(m.layers[1].media_type, "");
	assert_int_equal(m.layers[1].digest.algo, DIGEST_SHA512);
	assert_int_equal(m.layers[1].nurls, 2);
	assert_string_equal(m.layers[1].urls[1], "b");
	assert_int_equal(m.subject->size, 3);
	assert_string_equal(oci_annotation(m.annotations, m.nannotations, "b"), "2");
	assert_null(oci_annotation(m.annotations, m.nannotations, "c"));
	oci_manifest_release(&m);
	oci_manifest_release(&m);
}

static void test_index(void **state)
{
	struct oci_manifest m = must_parse(
		"{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"" OCI_TYPE_MANIFEST
		"\"," DIGEST ",\"size\":1,\"platform\":{\"architecture\":\"arm\",\"os\":\"linux\","
		"\"variant\":\"v7\",\"os.version\":\"10.0\",\"features\":[\"x\"]}},"
		"{\"mediaType\":\"m\",\"artifactType\":\"a\"," DIGEST ",\"size\":2}]}");

	(void)state;
	assert_int_equal(m.kind, OCI_KIND_INDEX);
	assert_string_equal(m.media_type, OCI_TYPE_INDEX);
	assert_int_equal(m.nchildren, 2);
	assert_string_equal(m.children[0].platform.architecture, "arm");
	assert_string_equal(m.children[0].platform.os, "linux");
	assert_string_equal(m.children[0].platform.variant, "v7");
	assert_string_equal(m.children[0].platform.os_version, "10.0");
	assert_null(m.children[1].platform.os);
	assert_string_equal(m.children[1].artifact_type, "a");
	oci_manifest_release(&m);
}

#define ARTIFACT "application/vnd.oci.artifact.manifest.v1+json"

static void test_kind(void **state)
{
	static const struct {
		const char *json, *served, *type;
		enum oci_kind kind;
	} table[] = {
		{"{" CONFIG "}", NULL, OCI_TYPE_MANIFEST, OCI_KIND_MANIFEST},
		{"{" CONFIG ",\"layers\":null}", "", OCI_TYPE_MANIFEST, OCI_KIND_MANIFEST},
		{"{" CONFIG ",\"layers\":[],\"manifests\":null}", "text/plain", OCI_TYPE_MANIFEST,
		 OCI_KIND_MANIFEST},
		{"{" CONFIG "}", DOCKER_TYPE_MANIFEST "; charset=utf-8", DOCKER_TYPE_MANIFEST,
		 OCI_KIND_MANIFEST},
		/* the body wins over what the server said */
		{"{\"mediaType\":\"" OCI_TYPE_MANIFEST "\"," CONFIG "}", DOCKER_TYPE_LIST,
		 OCI_TYPE_MANIFEST, OCI_KIND_MANIFEST},
		{"{" CONFIG "}", OCI_TYPE_INDEX, OCI_TYPE_MANIFEST, OCI_KIND_MANIFEST},
		{"{\"manifests\":[]}", DOCKER_TYPE_LIST, DOCKER_TYPE_LIST, OCI_KIND_INDEX},
		{"{\"manifests\":[]}", DOCKER_TYPE_MANIFEST, OCI_TYPE_INDEX, OCI_KIND_INDEX},
		{"{\"manifests\":null}", OCI_TYPE_INDEX, OCI_TYPE_INDEX, OCI_KIND_INDEX},
		{"{\"mediaType\":\"" DOCKER_TYPE_LIST "\"}", NULL, DOCKER_TYPE_LIST,
		 OCI_KIND_INDEX},
		/* another type, and the fields of one: an artifact */
		{"{\"mediaType\":\"a/b\"," CONFIG "}", NULL, "a/b", OCI_KIND_MANIFEST},
		{"{\"mediaType\":\"a/b\",\"layers\":[]}", NULL, "a/b", OCI_KIND_MANIFEST},
		{"{\"mediaType\":\"a/b\",\"manifests\":[]}", NULL, "a/b", OCI_KIND_INDEX},
		{"{\"mediaType\":\"" ARTIFACT "\"}", NULL, ARTIFACT, OCI_KIND_MANIFEST},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct oci_manifest m;
		const char *why = "?";

		if (oci_manifest_parse(table[i].json, strlen(table[i].json), table[i].served, &m,
				       &why))
			fail_msg("%s: %s", table[i].json, why);
		assert_int_equal(m.kind, table[i].kind);
		assert_string_equal(m.media_type, table[i].type);
		oci_manifest_release(&m);
	}
}

/* One descriptor of a manifest, with FIELDS after a valid digest. */
#define LAYER(fields) "{" CONFIG ",\"layers\":[{" DIGEST "," fields "}]}"

static const struct {
	const char *json, *word; /* of the sentence */
} refused[] = {
	{"", "empty"},
	{" \n", "empty"},
	{"null", "object or list"},
	{"\"x\"", "object or list"},
	{"12", "object or list"},
	{"[]", "object"},
	{"{}", "neither"},
	{"{", "cut off"},
	{"{\"a\":1,", "cut off"},
	{"{\"a", "cut off"},
	{"{\"a\\", "cut off"},
	{"{\"a\\\"", "cut off"},
	{"{]", "not JSON"},
	{"{,}", "not JSON"},
	{"{" CONFIG ",}", "not JSON"},
	{"{\"a\" 1}", "not JSON"},
	{"{'a':1}", "not JSON"},
	{"{\"a\":tru}", "not JSON"},
	{"{\"a\":\"\\x\"}", "not JSON"},
	{"{\"a\":\"\\ud800\"}", "not JSON"},
	{"{}{}", "follows"},
	{"{} x", "follows"},
	{"{}]", "follows"},
	{"\xef\xbf\xbd{}", "not JSON"},
	{"{\"a\":\"\\u0000\"," CONFIG "}", "NUL"},
	{"{\"\\u0000\":1," CONFIG "}", "NUL"},
	{"{\"a\":\"\n\"}", "control"},
	{"{\"a\":\"\xff\"}", "UTF-8"},
	{"{\"a\":\"\xc0\x80\"}", "UTF-8"},
	{"{\"a\":\"\xe0\x80\x80\"}", "UTF-8"},
	{"{\"a\":\"\xed\xa0\x80\"}", "UTF-8"},
	{"{\"a\":\"\xf0\x80\x80\x80\"}", "UTF-8"},
	{"{\"a\":\"\xf4\x90\x80\x80\"}", "UTF-8"},
	{"{\"a\":\"\xe2\x82\"}", "UTF-8"},
	{"{\"a\":\"\\\xe2\x82\"}", "UTF-8"},
	{"{\"schemaVersion\":3," CONFIG "}", "schemaVersion"},
	{"{\"schemaVersion\":\"2\"," CONFIG "}", "schemaVersion"},
	{"{\"schemaVersion\":2,\"schemaVersion\":2," CONFIG "}", "schemaVersion"},
	{"{\"mediaType\":3," CONFIG "}", "mediaType"},
	{"{\"mediaType\":\"application/json\"}", "mediaType"},
	{"{\"mediaType\":\"" OCI_TYPE_INDEX "\"," CONFIG "}", "suit"},
	{"{\"mediaType\":\"" OCI_TYPE_MANIFEST "\",\"manifests\":[]}", "suit"},
	{"{\"manifests\":[],\"layers\":[]}", "manifest and of an index"},
	{"{\"manifests\":[]," CONFIG "}", "manifest and of an index"},
	{"{\"mediaType\":\"" OCI_TYPE_INDEX "\",\"manifests\":[]," CONFIG "}", "and of an index"},
	{"{\"mediaType\":\"" OCI_TYPE_MANIFEST "\"}", "config"},
	{"{\"layers\":[]}", "config"},
	{"{\"config\":[]}", "config"},
	{"{" CONFIG "," CONFIG "}", "config"},
	{"{" CONFIG ",\"layers\":{}}", "layers"},
	{"{" CONFIG ",\"layers\":[],\"layers\":[]}", "layers"},
	{"{" CONFIG ",\"layers\":[1]}", "descriptor"},
	{"{" CONFIG ",\"layers\":[null]}", "descriptor"},
	{"{\"manifests\":[[]]}", "descriptor"},
	{"{\"manifests\":\"\"}", "manifests"},
	{"{\"config\":{\"size\":1}}", "digest"},
	{"{\"config\":{\"digest\":\"sha256:12\",\"size\":1}}", "digest"},
	{"{\"config\":{\"digest\":7,\"size\":1}}", "digest"},
	{"{\"config\":{" DIGEST "," DIGEST ",\"size\":1}}", "digest"},
	{"{\"config\":{" DIGEST "}}", "size"},
	{LAYER("\"size\":null"), "size"},
	{LAYER("\"size\":-1"), "size"},
	{LAYER("\"size\":1.5"), "size"},
	{LAYER("\"size\":\"1\""), "size"},
	{LAYER("\"size\":9007199254740992"), "size"},
	{LAYER("\"size\":9007199254740993"), "size"},
	{LAYER("\"size\":18446744073709551615"), "size"},
	{LAYER("\"size\":1e999"), "size"},
	{LAYER("\"size\":1,\"size\":2"), "size"},
	{LAYER("\"size\":1,\"mediaType\":[]"), "mediaType"},
	{LAYER("\"size\":1,\"artifactType\":1"), "artifactType"},
	{LAYER("\"size\":1,\"annotations\":[]"), "annotations"},
	{LAYER("\"size\":1,\"annotations\":{\"a\":1}"), "annotation"},
	{LAYER("\"size\":1,\"platform\":\"linux\""), "platform"},
	{LAYER("\"size\":1,\"platform\":{\"os\":1}"), "os"},
	{LAYER("\"size\":1,\"urls\":\"x\""), "urls"},
	{LAYER("\"size\":1,\"urls\":[1]"), "urls"},
	{LAYER("\"size\":1,\"data\":\"a\""), "data"},
	{LAYER("\"size\":1,\"data\":\"YQ=a\""), "data"},
	{LAYER("\"size\":1,\"data\":\"YQ-_\""), "data"},
	{LAYER("\"size\":1,\"data\":\"====\""), "data"},
	{LAYER("\"size\":1,\"data\":\"A===\""), "data"},
	{"{" CONFIG ",\"subject\":[]}", "subject"},
	{"{" CONFIG ",\"subject\":{}}", "digest"},
	{"{" CONFIG ",\"annotations\":\"x\"}", "annotations"},
	{"{" CONFIG ",\"artifactType\":{}}", "artifactType"},
};

static void test_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		struct oci_manifest m = {.kind = OCI_KIND_INDEX, .nlayers = 77};
		const char *why = "no sentence";
		size_t len = strlen(refused[i].json);
		/* exactly as long, so that ASan sees a read behind it */
		char *copy = malloc(len ? len : 1);

		assert_non_null(copy);
		memcpy(copy, refused[i].json, len);
		if (oci_manifest_parse(copy, len, NULL, &m, &why) != -EINVAL)
			fail_msg("taken: %s", refused[i].json);
		if (!strstr(why, refused[i].word))
			fail_msg("%s: \"%s\" without \"%s\"", refused[i].json, why,
				 refused[i].word);
		assert_int_equal(m.nlayers, 77);
		free(copy);
	}
}

static void test_raw_nul(void **state)
{
	static const char in_string[] = "{\"a\":\"\0\"," CONFIG "}", outside[] = "{\0" CONFIG "}";
	struct oci_manifest m;
	const char *why;

	(void)state;
	assert_int_equal(oci_manifest_parse(in_string, sizeof(in_string) - 1, NULL, &m, &why),
			 -EINVAL);
	assert_int_equal(oci_manifest_parse(outside, sizeof(outside) - 1, NULL, &m, &why), -EINVAL);
}

static void test_schema1(void **state)
{
	static const char v1[] = "{\"schemaVersion\":1,\"fsLayers\":[],\"history\":[]}";
	static const char typed[] = "{\"mediaType\":\"" DOCKER_TYPE_SCHEMA1_SIGNED "\"}";
	struct oci_manifest m;
	const char *why = "?";

	(void)state;
	assert_int_equal(parse(v1, &m, &why), -EOPNOTSUPP);
	assert_non_null(strstr(why, "schema 1"));
	assert_int_equal(parse(typed, &m, &why), -EOPNOTSUPP);
	assert_int_equal(oci_manifest_parse("{}", 2, DOCKER_TYPE_SCHEMA1, &m, &why), -EOPNOTSUPP);
}

/* PREFIX, N times ITEM, SUFFIX. */
static void repeated(struct buf *text, const char *prefix, const char *item, size_t n,
		     const char *suffix)
{
	assert_int_equal(buf_puts(text, prefix), 0);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(buf_puts(text, item), 0);
	assert_int_equal(buf_puts(text, suffix), 0);
}

static int parse_repeated(const char *prefix, const char *item, size_t n, const char *suffix)
{
	AUTO_BUF struct buf text = BUF_INIT(16 * MIB);
	struct oci_manifest m = {0};
	const char *why;
	int err;

	repeated(&text, prefix, item, n, suffix);
	err = parse(text.data, &m, &why);
	oci_manifest_release(&m);
	return err;
}

static void test_limits(void **state)
{
	const char *before_layers = "{" CONFIG ",\"layers\":[" DESC;
	AUTO_BUF struct buf deep = BUF_INIT(MIB);

	(void)state;
	assert_int_equal(parse_repeated(before_layers, "," DESC, 4095, "]}"), 0);
	assert_int_equal(parse_repeated(before_layers, "," DESC, 4096, "]}"), -EINVAL);
	assert_int_equal(parse_repeated("{\"manifests\":[" DESC, "," DESC, 4096, "]}"), -EINVAL);
	/* 63 lists in the object are 64 levels */
	repeated(&deep, "]", "]", 62, "," CONFIG "}");
	assert_int_equal(parse_repeated("{\"x\":", "[", 63, deep.data), 0);
	buf_clear(&deep);
	repeated(&deep, "]", "]", 63, "," CONFIG "}");
	assert_int_equal(parse_repeated("{\"x\":", "[", 64, deep.data), -EINVAL);
	assert_int_equal(parse_repeated("", "[", 100000, ""), -EINVAL);
	/* too many values, too many bytes */
	assert_int_equal(parse_repeated("{" CONFIG ",\"x\":[0", ",0", MIB / 2, "]}"), 0);
	assert_int_equal(parse_repeated("{" CONFIG ",\"x\":[0", ",0", MIB, "]}"), -EINVAL);
	assert_int_equal(parse_repeated("{" CONFIG, " ", 4 * MIB - 200, "}"), 0);
	assert_int_equal(parse_repeated("{" CONFIG, " ", 4 * MIB, "}"), -EINVAL);
}

static void test_inline_data(void **state)
{
	static const struct {
		const char *hex, *size, *data;
		bool kept;
	} table[] = {
		{EMPTY_HEX, "2", "e30=", true},
		{EMPTY_HEX, "3", "e30=", false}, /* another size */
		{HEX_A, "2", "e30=", false},	 /* another content */
		{EMPTY_HEX, "2", "", false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		char json[300];
		struct oci_manifest m;

		snprintf(json, sizeof(json),
			 "{\"config\":{\"digest\":\"sha256:%s\",\"size\":%s,\"data\":\"%s\"}}",
			 table[i].hex, table[i].size, table[i].data);
		m = must_parse(json);
		assert_int_equal(m.config.data != NULL, table[i].kept);
		if (table[i].kept) {
			assert_int_equal(m.config.data_len, 2);
			assert_memory_equal(m.config.data, "{}", 2);
		}
		oci_manifest_release(&m);
	}
}

static void test_is_image(void **state)
{
	static const struct {
		const char *artifact, *config, *layer;
		bool image;
	} table[] = {
		{NULL, OCI_TYPE_CONFIG, OCI_TYPE_LAYER_ZSTD, true},
		{NULL, OCI_TYPE_CONFIG, NULL, true},
		{NULL, DOCKER_TYPE_CONFIG, DOCKER_TYPE_LAYER_GZIP, true},
		{NULL, "application/octet-stream", DOCKER_TYPE_LAYER_GZIP, true},
		{NULL, "application/octet-stream", NULL, false},
		{NULL, "application/octet-stream", "text/plain", false},
		{NULL, OCI_TYPE_CONFIG, "application/vnd.in-toto+json", false},
		{NULL, OCI_TYPE_CONFIG, OCI_TYPE_LAYER_GZIP "+encrypted", false},
		{NULL, OCI_TYPE_EMPTY, OCI_TYPE_LAYER, false},
		{NULL, "application/vnd.cncf.helm.config.v1+json", OCI_TYPE_LAYER_GZIP, false},
		{"application/x", OCI_TYPE_CONFIG, OCI_TYPE_LAYER, true},
		{"application/x", OCI_TYPE_CONFIG, NULL, false},
		{"application/x", "application/octet-stream", OCI_TYPE_LAYER, false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct oci_descriptor layer = {.media_type = (char *)table[i].layer};
		struct oci_manifest m = {
			.artifact_type = (char *)table[i].artifact,
			.config.media_type = (char *)table[i].config,
			.layers = &layer,
			.nlayers = table[i].layer != NULL,
		};

		if (oci_is_image(&m) != table[i].image)
			fail_msg("row %zu", i);
		m.kind = OCI_KIND_INDEX;
		assert_false(oci_is_image(&m));
	}
}

/* The artifact manifest of OCI's 1.1 drafts: blobs, and no config. */
static void test_draft_artifact(void **state)
{
	static const char json[] = "{\"mediaType\":\"" ARTIFACT "\",\"artifactType\":\"a/b\","
				   "\"blobs\":[" DESC "],\"subject\":" DESC "}";
	struct oci_manifest m;
	const char *why;

	(void)state;
	assert_int_equal(oci_manifest_parse(json, strlen(json), NULL, &m, &why), 0);
	assert_int_equal(m.nlayers, 1);
	assert_non_null(m.subject);
	assert_int_equal(m.config.digest.algo, DIGEST_NONE);
	assert_string_equal(m.config.media_type, "");
	assert_string_equal(oci_artifact_type(&m), "a/b");
	assert_false(oci_is_image(&m));
	oci_manifest_release(&m);
}

static void test_types(void **state)
{
	(void)state;
	assert_true(oci_is_index_type(OCI_TYPE_INDEX));
	assert_true(oci_is_index_type(DOCKER_TYPE_LIST));
	assert_false(oci_is_index_type(OCI_TYPE_MANIFEST));
	assert_true(oci_is_manifest_type(DOCKER_TYPE_LIST));
	assert_true(oci_is_manifest_type(DOCKER_TYPE_MANIFEST));
	assert_false(oci_is_manifest_type(DOCKER_TYPE_SCHEMA1));
	assert_false(oci_is_manifest_type(""));
	assert_true(oci_is_layer_type("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"));
	assert_false(oci_is_layer_type(OCI_TYPE_CONFIG));
}

static void test_attestations(void **state)
{
	struct oci_annotation docker = {"vnd.docker.reference.type", "attestation-manifest"};
	struct oci_annotation soci = {"com.amazon.soci.image-manifest-digest", "sha256:…"};
	struct oci_annotation other = {"a", "b"};
	struct oci_descriptor child = {.media_type = OCI_TYPE_MANIFEST,
				       .platform = {.os = "linux", .architecture = "amd64"},
				       .annotations = &other,
				       .nannotations = 1};

	(void)state;
	assert_false(oci_is_attestation(&child));
	child.annotations = &docker;
	assert_true(oci_is_attestation(&child));
	child.annotations = &soci;
	assert_true(oci_is_attestation(&child));
	child.nannotations = 0;
	child.artifact_type = "application/vnd.amazon.soci.index.v2+json";
	assert_true(oci_is_attestation(&child));
	child.artifact_type = NULL;
	child.platform.os = "unknown";
	assert_false(oci_is_attestation(&child));
	child.platform.architecture = "unknown";
	assert_true(oci_is_attestation(&child));
}

static void test_config(void **state)
{
	static const char json[] =
		"{\"architecture\":\"arm64\",\"os\":\"linux\",\"variant\":\"v8\","
		"\"created\":\"2024-01-02T03:04:05Z\",\"config\":{\"Cmd\":[\"sh\"]},"
		"\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:" HEX_A "\",\"sha256:" HEX_B
		"\"]},\"history\":[{\"created\":\"c\",\"created_by\":\"ADD \\u00e9\\n\","
		"\"author\":null},{\"empty_layer\":true,\"comment\":\"x\",\"author\":\"y\"}]}";
	struct oci_config c;
	const char *why;

	(void)state;
	assert_int_equal(oci_config_parse(json, strlen(json), &c, &why), 0);
	assert_string_equal(c.platform.architecture, "arm64");
	assert_string_equal(c.platform.variant, "v8");
	assert_string_equal(c.created, "2024-01-02T03:04:05Z");
	assert_int_equal(c.ndiff_ids, 2);
	assert_int_equal(c.diff_ids[1].bytes[0], 0xbb);
	assert_int_equal(c.nhistory, 2);
	assert_string_equal(c.history[0].created_by, "ADD \xc3\xa9\n");
	assert_null(c.history[0].author);
	assert_false(c.history[0].empty_layer);
	assert_true(c.history[1].empty_layer);
	assert_string_equal(c.history[1].comment, "x");
	assert_string_equal(c.history[1].author, "y");
	oci_config_release(&c);
	oci_config_release(&c);

	assert_int_equal(oci_config_parse("{}", 2, &c, &why), 0);
	assert_null(c.platform.os);
	assert_null(c.created);
	assert_int_equal(c.ndiff_ids, 0);
	oci_config_release(&c);
}

static void test_config_refused(void **state)
{
	static const char *const table[] = {
		"[]",
		"{\"os\":1}",
		"{\"created\":{}}",
		"{\"rootfs\":[]}",
		"{\"rootfs\":{\"diff_ids\":{}}}",
		"{\"rootfs\":{\"diff_ids\":[1]}}",
		"{\"rootfs\":{\"diff_ids\":[\"x\"]}}",
		"{\"rootfs\":{\"diff_ids\":[]},\"rootfs\":{}}",
		"{\"history\":{}}",
		"{\"history\":[\"x\"]}",
		"{\"history\":[{\"empty_layer\":1}]}",
		"{\"history\":[{\"created_by\":[]}]}",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct oci_config c = {.nhistory = 77};
		const char *why = NULL;

		if (oci_config_parse(table[i], strlen(table[i]), &c, &why) != -EINVAL)
			fail_msg("taken: %s", table[i]);
		assert_non_null(why);
		assert_int_equal(c.nhistory, 77);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_manifest), cmocka_unit_test(test_index),
		cmocka_unit_test(test_kind),	 cmocka_unit_test(test_refused),
		cmocka_unit_test(test_raw_nul),	 cmocka_unit_test(test_schema1),
		cmocka_unit_test(test_limits),	 cmocka_unit_test(test_inline_data),
		cmocka_unit_test(test_is_image), cmocka_unit_test(test_draft_artifact),
		cmocka_unit_test(test_types),	 cmocka_unit_test(test_attestations),
		cmocka_unit_test(test_config),	 cmocka_unit_test(test_config_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
