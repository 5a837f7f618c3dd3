/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_registry_referrers: what refers to a manifest, read by the API and by the tag, and what is
 * written for it (distribution-spec, "Listing Referrers", "Pushing Manifests with Subject").
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "regfs/log.h"
#include "regfs/oci.h"
#include "registry_help.h"

#define REPO	"team/app"
#define SUBJECT "{\"schemaVersion\":2,\"config\":" BLOB ",\"layers\":[]}"
#define BLOB                                                                                       \
	"{\"mediaType\":\"a/b\",\"size\":2,\"digest\":\"sha256:"                                   \
	"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\"}"

static struct digest subject;

static void rule(const char *method, const char *path, const char *actions)
{
	server_rule(&help.server, method, path, actions);
}

static void api(bool on)
{
	server_order(&help.server, on ? "{\"set\": {\"referrers_api\": true}}"
				      : "{\"set\": {\"referrers_api\": false}}");
}

static int requests(const char *regex)
{
	return server_count(&help.server, regex);
}

/* An artifact about the subject, NAME to tell it from others. The caller frees. */
static char *artifact(const char *name)
{
	char text[DIGEST_STR_MAX];
	char *json = format("{\"schemaVersion\":2,\"artifactType\":\"test/%s\",\"config\":" BLOB
			    ",\"layers\":[],\"annotations\":{\"name\":\"%s\"},\"subject\":"
			    "{\"mediaType\":\"" OCI_TYPE_MANIFEST "\",\"size\":%zu,"
			    "\"digest\":\"%s\"}}",
			    name, name, strlen(SUBJECT), digest_format(&subject, text));

	assert_non_null(json);
	return json;
}

static int put(const char *name)
{
	AUTO_FREE char *json = artifact(name);

	return help.store->ops->put_manifest(help.store, REPO, NULL, OCI_TYPE_MANIFEST, json,
					     strlen(json), &help.wait);
}

static int add_type(void *arg, struct oci_descriptor *descriptor)
{
	struct buf *text = arg;
	const char *name = oci_annotation(descriptor->annotations, descriptor->nannotations,
					  "name");

	return buf_printf(text, "%s%s(%s)", text->len ? " " : "",
			  descriptor->artifact_type ? descriptor->artifact_type : "-",
			  name ? name : "-");
}

static void assert_referrers(const char *expected)
{
	AUTO_BUF struct buf text = BUF_INIT(MIB);

	assert_int_equal(
		help.store->ops->referrers(help.store, REPO, &subject, add_type, &text, &help.wait),
		0);
	buf_puts(&text, "");
	assert_string_equal(text.data, expected);
}

static int setup(void **state)
{
	int err = help_setup(state);

	subject = help_manifest(REPO, "1", SUBJECT);
	api(false);
	return err;
}

/* ---- reading ---- */

static void no_referrers(void **state)
{
	(void)state;
	assert_referrers("");
	api(true);
	assert_referrers("");
	assert_int_equal(requests("GET /v2/.*/manifests/sha256-"), 1);
}

static void the_next_page_is_elsewhere(void **state)
{
	(void)state;
	api(true);
	assert_int_equal(put("a"), 0);
	rule("GET", "referrers",
	     "\"set\": {\"Link\": \"<https://other.example/x>; rel=\\\"next\\\"\"}");
	assert_referrers("test/a(a)");
	assert_true(help_logged("on another host"));
}

static void pages_in_a_circle_end(void **state)
{
	AUTO_BUF struct buf text = BUF_INIT(MIB);

	(void)state;
	api(true);
	assert_int_equal(put("a"), 0);
	rule("GET", "referrers",
	     "\"set\": {\"Link\": \"</v2/" REPO "/referrers/x>; rel=\\\"next\\\"\"}");
	assert_int_equal(
		help.store->ops->referrers(help.store, REPO, &subject, add_type, &text, &help.wait),
		0);
	assert_int_equal(requests("GET .*/referrers/"), 100);
}

static void a_failure_is_no_empty_list(void **state)
{
	AUTO_BUF struct buf text = BUF_INIT(MIB);

	(void)state;
	rule("GET", "referrers", "\"status\": 500");
	assert_int_equal(
		help.store->ops->referrers(help.store, REPO, &subject, add_type, &text, &help.wait),
		-EIO);
	server_order(&help.server, "{\"clear\": true}");
	rule("GET", "manifests/sha256-", "\"status\": 403");
	assert_int_equal(
		help.store->ops->referrers(help.store, REPO, &subject, add_type, &text, &help.wait),
		-EACCES);
	/* a limit passes, and says nothing about the API */
	server_order(&help.server, "{\"clear\": true}");
	rule("GET", "referrers", "\"status\": 429, \"headers\": {\"Retry-After\": \"3600\"}");
	assert_int_equal(
		help.store->ops->referrers(help.store, REPO, &subject, add_type, &text, &help.wait),
		-EBUSY);
}

/* GitLab (oras-project/oras-go#1396): of an index that is asked about, its children would be taken
 * for what refers to it. */
static void the_subject_itself_is_no_list(void **state)
{
	static const char index[] = "{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_INDEX
				    "\",\"manifests\":[" BLOB "]}";
	AUTO_BUF struct buf body = BUF_INIT(MIB), actions = BUF_INIT(MIB);

	(void)state;
	subject = help_manifest(REPO, "2", index);
	buf_json_string(&body, index);
	buf_printf(&actions,
		   "\"status\": 200, \"headers\": {\"Content-Type\": \"%s\"}, \"body\": %s",
		   OCI_TYPE_INDEX, body.data);
	rule("GET", "referrers", actions.data);
	assert_referrers("");
	assert_int_equal(requests("GET .*/manifests/sha256-"), 1);
}

static void a_tag_that_is_no_index(void **state)
{
	char tag[OCI_REFERRERS_TAG_MAX];

	(void)state;
	help_manifest(REPO, oci_referrers_tag(&subject, tag), SUBJECT);
	assert_referrers("");
	assert_true(help_logged("should be an index"));
}

/* ---- writing ---- */

static void a_registry_that_keeps_lists_needs_no_tag(void **state)
{
	(void)state;
	api(true);
	assert_int_equal(put("a"), 0);
	assert_int_equal(requests("PUT"), 1);
	assert_int_equal(requests("manifests/sha256-"), 0);
	assert_referrers("test/a(a)");
}

static void the_tag_is_kept_up(void **state)
{
	(void)state;
	assert_int_equal(put("a"), 0);
	assert_referrers("test/a(a)");
	assert_int_equal(put("b"), 0);
	assert_referrers("test/a(a) test/b(b)");
	assert_int_equal(requests("PUT .*/manifests/sha256-"), 2);
	/* what is named there needs no change */
	assert_int_equal(put("a"), 0);
	assert_int_equal(requests("PUT .*/manifests/sha256-"), 2);
	assert_referrers("test/a(a) test/b(b)");
}

/* Somebody else's index came over ours: it is read again after it was written. */
static void an_index_that_others_write_too(void **state)
{
	(void)state;
	rule("PUT", "manifests/sha256-", "\"status\": 201, \"times\": 1");
	assert_int_equal(put("a"), 0);
	assert_int_equal(requests("PUT .*/manifests/sha256-"), 2);
	assert_referrers("test/a(a)");
}

static void an_index_that_cannot_be_changed(void **state)
{
	(void)state;
	rule("PUT", "manifests/sha256-", "\"status\": 403");
	assert_int_equal(put("a"), -EACCES);
	assert_true(help_logged("nobody will find it by its subject"));
}

static void what_is_deleted_is_named_no_longer(void **state)
{
	AUTO_FREE char *json = artifact("a");
	struct digest digest;

	(void)state;
	digest_of(DIGEST_SHA256, json, strlen(json), &digest);
	assert_int_equal(put("a"), 0);
	assert_int_equal(put("b"), 0);
	assert_int_equal(help.store->ops->delete_manifest(help.store, REPO, &digest, &help.wait),
			 0);
	assert_referrers("test/b(b)");
	/* the registry's own list needs no help */
	api(true);
	assert_int_equal(put("a"), 0);
	int writes = requests("PUT");
	assert_int_equal(help.store->ops->delete_manifest(help.store, REPO, &digest, &help.wait),
			 0);
	assert_int_equal(requests("PUT"), writes);
	assert_referrers("test/b(b)");
}

/* Anybody who may push may leave such an index there. */
static void an_index_about_itself_is_followed_once(void **state)
{
	char tag[OCI_REFERRERS_TAG_MAX], text[DIGEST_STR_MAX];
	AUTO_FREE char *index = format(
		"{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_INDEX "\",\"manifests\":[],"
		"\"subject\":{\"mediaType\":\"" OCI_TYPE_MANIFEST "\",\"size\":%zu,"
		"\"digest\":\"%s\"}}",
		strlen(SUBJECT), digest_format(&subject, text));

	(void)state;
	help_manifest(REPO, oci_referrers_tag(&subject, tag), index);
	assert_int_equal(put("a"), 0);
	assert_int_equal(requests("PUT .*/manifests/sha256-"), 1);
}

static void no_subject_no_tag(void **state)
{
	(void)state;
	assert_int_equal(help.store->ops->put_manifest(help.store, REPO, "2", OCI_TYPE_MANIFEST,
						       SUBJECT, strlen(SUBJECT), &help.wait),
			 0);
	assert_int_equal(requests("manifests/sha256-"), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, help_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(no_referrers),
		TEST(the_next_page_is_elsewhere),
		TEST(pages_in_a_circle_end),
		TEST(a_failure_is_no_empty_list),
		TEST(the_subject_itself_is_no_list),
		TEST(a_tag_that_is_no_index),
		TEST(a_registry_that_keeps_lists_needs_no_tag),
		TEST(the_tag_is_kept_up),
		TEST(an_index_that_others_write_too),
		TEST(an_index_that_cannot_be_changed),
		TEST(what_is_deleted_is_named_no_longer),
		TEST(an_index_about_itself_is_followed_once),
		TEST(no_subject_no_tag),
	};
	return cmocka_run_group_tests(tests, help_group_setup, help_group_teardown);
}
