/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The config of an image that is built: what is wished over what is below, field by field.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "regfs/oci.h"

#define CREATED "2026-01-02T03:04:05Z"

static const char base_config[] =
	"{\"architecture\":\"arm64\",\"os\":\"linux\",\"author\":\"me\",\"config\":{"
	"\"Env\":[\"PATH=/bin\",\"A=1\"],\"Cmd\":[\"sh\"],\"Labels\":{\"a\":\"1\",\"b\":\"2\"},"
	"\"WorkingDir\":\"/w\",\"Odd\":{\"x\":1}},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":["
	"\"sha256:0000000000000000000000000000000000000000000000000000000000000000\"]},"
	"\"history\":[{\"created_by\":\"below\"}]}";

/* 0 and the text, or the error and why. The caller frees. */
static int build(const char *base, const char *given, bool layer, char **ret)
{
	struct oci_platform platform = {.os = "linux", .architecture = "amd64"};
	AUTO_BUF struct buf text = BUF_INIT(OCI_CONFIG_MAX);
	const char *why = "";
	struct digest diff_id;

	digest_of(DIGEST_SHA256, "layer", 5, &diff_id);
	const struct oci_build parts = {
		.base = base,
		.base_len = base ? strlen(base) : 0,
		.given = given,
		.given_len = given ? strlen(given) : 0,
		.platform = &platform,
		.diff_id = layer ? &diff_id : NULL,
		.created = CREATED,
		.created_by = "regfs: test",
	};
	int err = oci_config_build(&parts, &text, &why);
	*ret = err ? strdup(why) : buf_steal(&text, NULL);
	return err;
}

static void assert_has(const char *base, const char *given, const char *part)
{
	AUTO_FREE char *text = NULL;

	if (build(base, given, true, &text) != 0 || !strstr(text, part))
		fail_msg("%s\n  is not in\n%s", part, text);
}

static void assert_refused(const char *given, const char *why)
{
	AUTO_FREE char *text = NULL;

	assert_int_equal(build(base_config, given, true, &text), -EINVAL);
	assert_string_equal(text, why);
}

static void test_without_a_base(void **state)
{
	AUTO_FREE char *text = NULL;

	(void)state;
	assert_int_equal(build(NULL, "{\"Cmd\":[\"/app\"]}", true, &text), 0);
	assert_string_equal(
		text,
		"{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Cmd\":[\"/app\"]},"
		"\"created\":\"" CREATED "\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":["
		"\"sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85\"]},"
		"\"history\":[{\"created\":\"" CREATED "\",\"created_by\":\"regfs: test\"}]}");
}

static void test_what_is_below_stays(void **state)
{
	CLEANUP(oci_config_release) struct oci_config config = {0};
	AUTO_FREE char *text = NULL;
	const char *why;

	(void)state;
	assert_int_equal(build(base_config, NULL, true, &text), 0);
	assert_int_equal(oci_config_parse(text, strlen(text), &config, &why), 0);
	assert_string_equal(config.platform.architecture, "arm64");
	assert_int_equal(config.ndiff_ids, 2);
	assert_int_equal(config.nhistory, 2);
	assert_string_equal(config.history[0].created_by, "below");
	assert_string_equal(config.history[1].created_by, "regfs: test");
	assert_false(config.history[1].empty_layer);
	assert_non_null(strstr(text, "\"author\":\"me\""));
	assert_non_null(strstr(text, "\"Odd\":{\"x\":1}"));
}

static void test_without_a_layer_the_step_is_empty(void **state)
{
	CLEANUP(oci_config_release) struct oci_config config = {0};
	AUTO_FREE char *text = NULL;
	const char *why;

	(void)state;
	assert_int_equal(build(base_config, NULL, false, &text), 0);
	assert_int_equal(oci_config_parse(text, strlen(text), &config, &why), 0);
	assert_int_equal(config.ndiff_ids, 1);
	assert_true(config.history[1].empty_layer);
}

static void test_each_field_is_merged_its_own_way(void **state)
{
	(void)state;
	assert_has(base_config, "{\"Env\":[\"B=2\",\"PATH=/app\"]}",
		   "\"Env\":[\"PATH=/app\",\"A=1\",\"B=2\"]");
	assert_has(base_config, "{\"Labels\":{\"b\":\"3\",\"c\":\"4\"}}",
		   "\"Labels\":{\"a\":\"1\",\"b\":\"3\",\"c\":\"4\"}");
	assert_has(base_config, "{\"Cmd\":[\"x\",\"y\"]}", "\"Cmd\":[\"x\",\"y\"]");
	assert_has(base_config, "{\"Odd\":[]}", "\"Odd\":[]");
	assert_has(base_config, "{\"Cmd\":null,\"WorkingDir\":null,\"Env\":null,\"Odd\":null}",
		   "\"config\":{\"Labels\":{\"a\":\"1\",\"b\":\"2\"}}");
}

static void test_an_entrypoint_takes_the_command_below_away(void **state)
{
	AUTO_FREE char *text = NULL;

	(void)state;
	assert_int_equal(build(base_config, "{\"Entrypoint\":[\"/e\"]}", true, &text), 0);
	assert_null(strstr(text, "Cmd"));
	assert_has(base_config, "{\"Entrypoint\":[\"/e\"],\"Cmd\":[\"c\"]}", "\"Cmd\":[\"c\"]");
}

static void test_a_whole_config_goes_over_the_base(void **state)
{
	static const char whole[] = "{\"architecture\":\"riscv64\",\"config\":{\"User\":\"u\"},"
				    "\"rootfs\":{\"diff_ids\":[\"x\"]},\"history\":[7]}";

	(void)state;
	assert_has(base_config, whole, "\"architecture\":\"riscv64\"");
	assert_has(base_config, whole, "\"Cmd\":[\"sh\"]");
	assert_has(base_config, whole, "\"User\":\"u\"");
	assert_has(base_config, whole, "\"created_by\":\"below\"");
	assert_has(base_config, "{\"os\":\"linux\",\"config\":null}", "\"Cmd\":[\"sh\"]");
}

static void test_what_no_runtime_takes_is_refused(void **state)
{
	(void)state;
	assert_refused("{", "it is cut off");
	assert_refused("[]", "it is not an object");
	assert_refused("{\"Cmd\":\"/app\"}", "\"Cmd\" is not a list of strings");
	assert_refused("{\"Entrypoint\":[1]}", "\"Entrypoint\" is not a list of strings");
	assert_refused("{\"Env\":[\"PATH\"]}", "\"Env\" is not a list of NAME=VALUE strings");
	assert_refused("{\"Env\":[\"=x\"]}", "\"Env\" is not a list of NAME=VALUE strings");
	assert_refused("{\"Labels\":{\"a\":1}}", "\"Labels\" is not an object of strings");
	assert_refused("{\"User\":0}", "\"User\" is not a string");
	assert_refused("{\"config\":7}", "\"config\" is not an object");
	assert_refused("{\"config\":{\"Volumes\":[]}}", "\"Volumes\" is not an object");
}

static void test_artifact(void **state)
{
	struct oci_annotation title = {.key = "t", .value = "a\"b"};
	struct oci_descriptor layer = {
		.media_type = "text/plain", .size = 1, .annotations = &title, .nannotations = 1};
	CLEANUP(oci_manifest_release) struct oci_manifest manifest = {0};
	AUTO_BUF struct buf text = BUF_INIT(OCI_MANIFEST_MAX);
	char digest[DIGEST_STR_MAX];
	const char *why;

	(void)state;
	digest_of(DIGEST_SHA256, "x", 1, &layer.digest);
	assert_int_equal(oci_artifact_write("a/b", &layer, 1, &text), 0);
	assert_int_equal(oci_manifest_parse(text.data, text.len, NULL, &manifest, &why), 0);
	assert_string_equal(manifest.artifact_type, "a/b");
	assert_string_equal(manifest.config.media_type, OCI_TYPE_EMPTY);
	/* image-spec, manifest.md, "Guidance for an Empty Descriptor" */
	assert_string_equal(
		digest_format(&manifest.config.digest, digest),
		"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
	assert_int_equal(manifest.config.size, 2);
	assert_string_equal(manifest.layers[0].annotations[0].value, "a\"b");
	assert_false(oci_is_image(&manifest));
}

static void test_about_another_manifest(void **state)
{
	struct oci_annotation note = {.key = "k", .value = "v"};
	struct oci_descriptor layer = {.media_type = "a/octet", .size = 1};
	struct oci_descriptor subject = {.media_type = OCI_TYPE_MANIFEST, .size = 7};
	CLEANUP(oci_manifest_release) struct oci_manifest manifest = {0};
	AUTO_BUF struct buf text = BUF_INIT(OCI_MANIFEST_MAX);
	const char *why;

	(void)state;
	digest_of(DIGEST_SHA256, "x", 1, &layer.digest);
	digest_of(DIGEST_SHA256, "y", 1, &subject.digest);
	const struct oci_about about = {
		.config_type = "a/kind",
		.layers = &layer,
		.nlayers = 1,
		.subject = &subject,
		.annotations = &note,
		.nannotations = 1,
	};
	assert_int_equal(oci_about_write(&about, &text), 0);
	assert_int_equal(oci_manifest_parse(text.data, text.len, NULL, &manifest, &why), 0);
	assert_string_equal(manifest.media_type, OCI_TYPE_MANIFEST);
	assert_string_equal(oci_artifact_type(&manifest), "a/kind");
	assert_int_equal(manifest.config.size, strlen(OCI_EMPTY_JSON));
	assert_int_equal(manifest.nlayers, 1);
	assert_true(digest_equal(&manifest.layers[0].digest, &layer.digest));
	assert_non_null(manifest.subject);
	assert_true(digest_equal(&manifest.subject->digest, &subject.digest));
	assert_string_equal(manifest.subject->media_type, OCI_TYPE_MANIFEST);
	assert_int_equal(manifest.subject->size, 7);
	assert_string_equal(oci_annotation(manifest.annotations, manifest.nannotations, "k"), "v");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_without_a_base),
		cmocka_unit_test(test_what_is_below_stays),
		cmocka_unit_test(test_without_a_layer_the_step_is_empty),
		cmocka_unit_test(test_each_field_is_merged_its_own_way),
		cmocka_unit_test(test_an_entrypoint_takes_the_command_below_away),
		cmocka_unit_test(test_a_whole_config_goes_over_the_base),
		cmocka_unit_test(test_what_no_runtime_takes_is_refused),
		cmocka_unit_test(test_artifact),
		cmocka_unit_test(test_about_another_manifest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
