/* SPDX-License-Identifier: Apache-2.0 */
/* test_registry_write: what is sent to a registry, and what a bad one does to it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <cmocka.h>

#include "regfs/oci.h"
#include "registry_help.h"

#define SIZE	 5000001
#define MANIFEST "{\"schemaVersion\": 2}"

/* A blob that is made up while it is read. */
struct made {
	struct store_source source;
	struct digest digest;
	uint64_t fail_at;
	uint64_t progress;
	struct wait *cancel; /* is cancelled by the first read */
	/* What is still to come does when it is waited for, a part at a time. */
	bool arrives;
	atomic_ullong arrived, awaited, furthest;
	int await_error; /* in the middle */
	int verdict;
};

static ssize_t made_read(void *arg, uint64_t off, void *buf, size_t cap)
{
	struct made *made = arg;
	if (made->cancel)
		wait_cancel(made->cancel);
	if (off >= made->fail_at)
		return -ENOSPC;
	if (off >= made->source.size)
		return 0;
	size_t len = (size_t)MIN((uint64_t)cap, made->source.size - off);
	if (made->arrives && off >= made->arrived)
		return -EAGAIN;
	if (made->arrives)
		len = (size_t)MIN((uint64_t)len, made->arrived - off);
	for (size_t i = 0; i < len; i++)
		((uint8_t *)buf)[i] = help_byte(off + i);
	return (ssize_t)len;
}

static int made_await(void *arg, uint64_t off, struct wait *wait)
{
	struct made *made = arg;
	assert_true(wait_may_block(wait));
	assert_true(off < made->source.size);
	made->awaited++;
	made->furthest = MAX(made->furthest, off);
	if (made->await_error && off >= made->source.size / 2)
		return made->await_error;
	made->arrived = MIN(off + 700000, made->source.size);
	return 0;
}

static int made_judge(void *arg)
{
	const struct made *made = arg;
	return made->verdict;
}

static void made_init(struct made *made, uint64_t size)
{
	AUTO_FREE uint8_t *data = malloc(size + 1);
	for (uint64_t i = 0; i < size; i++)
		data[i] = help_byte(i);
	*made = (struct made){.source = {.read = made_read, .arg = made, .size = size},
			      .fail_at = UINT64_MAX};
	digest_of(DIGEST_SHA256, data, size, &made->digest);
}

static void on_progress(void *arg, uint64_t bytes)
{
	struct made *made = arg;
	made->progress = bytes;
}

static int put(struct made *made, const char *from)
{
	const struct store_put put = {
		.digest = &made->digest,
		.source = &made->source,
		.mount_from = from,
		.progress = on_progress,
		.progress_arg = made,
	};
	return help.store->ops->put_blob(help.store, "team/app", &put, &help.wait);
}

static bool has(const struct made *made)
{
	uint64_t size;
	return help.store->ops->has_blob(help.store, "team/app", &made->digest, &size,
					 &help.wait) == 0 &&
	       size == made->source.size;
}

static int requests(const char *regex)
{
	return server_count(&help.server, regex);
}

static void rule(const char *method, const char *path, const char *actions)
{
	server_rule(&help.server, method, path, actions);
}

/* ---- blobs ---- */

static void puts_a_blob(void **state)
{
	(void)state;
	struct made made;
	made_init(&made, SIZE);
	assert_int_equal(put(&made, NULL), 0);
	assert_int_equal(made.progress, SIZE);
	assert_int_equal(requests("POST"), 1);
	assert_int_equal(requests("PUT"), 1);
	assert_int_equal(requests("DELETE"), 0);
	assert_true(has(&made));
	made_init(&made, 0);
	assert_int_equal(put(&made, NULL), 0);
	assert_true(has(&made));
}

static void mounts_a_blob(void **state)
{
	(void)state;
	struct made made;
	made_init(&made, SIZE);
	help_blob("team/base", SIZE);
	assert_int_equal(put(&made, "team/base"), 0);
	assert_int_equal(requests("PUT"), 0);
	assert_int_equal(made.progress, SIZE);
	assert_true(has(&made));
}

static void a_refused_mount_is_an_upload(void **state)
{
	(void)state;
	struct made made;
	made_init(&made, SIZE);
	assert_int_equal(put(&made, "team/none"), 0);
	assert_int_equal(requests("POST"), 1);
	assert_int_equal(requests("PUT"), 1);
	rule("POST", "mount=", "\"status\": 404, \"times\": 1");
	made_init(&made, SIZE - 1);
	assert_int_equal(put(&made, "team/none"), 0);
	assert_int_equal(requests("POST"), 3);
	assert_true(has(&made));
}

static void a_dropped_upload_resumes(void **state)
{
	(void)state;
	struct made made;
	made_init(&made, SIZE);
	rule("PUT", "uploads", "\"take\": 3000000, \"times\": 1");
	assert_int_equal(put(&made, NULL), 0);
	assert_true(has(&made));
	assert_int_equal(requests("POST"), 1);
	char range[64];
	server_header(&help.server, "PATCH", "Content-Range", range, sizeof(range));
	assert_string_equal(range, "3000000-5000000");
	/* And again while it resumes. */
	made_init(&made, SIZE - 1);
	server_order(&help.server, "{\"clear\": true}");
	rule("PUT|PATCH", "uploads", "\"take\": 1500000, \"times\": 2");
	assert_int_equal(put(&made, NULL), 0);
	assert_true(has(&made));
	assert_int_equal(requests("POST"), 1);
	assert_int_equal(requests("PATCH"), 2);
}

static void a_forgotten_session_begins_anew(void **state)
{
	(void)state;
	struct made made;
	made_init(&made, SIZE);
	rule("PUT", "uploads", "\"take\": 3000000, \"times\": 1");
	rule("GET", "uploads", "\"status\": 404, \"times\": 1");
	assert_int_equal(put(&made, NULL), 0);
	assert_true(has(&made));
	assert_int_equal(requests("POST"), 2);
	/* One that tells nonsense about what it has. */
	made_init(&made, SIZE - 1);
	rule("PUT", "uploads", "\"take\": 3000000, \"times\": 1");
	rule("GET", "uploads", "\"set\": {\"Range\": \"0-1234567\"}, \"times\": 1");
	assert_int_equal(put(&made, NULL), 0);
	assert_true(has(&made));
}

/* On a connection that was used before, libcurl would resend what it read by itself. */
static void a_dropped_upload_on_a_used_connection(void **state)
{
	(void)state;
	struct made made;
	made_init(&made, SIZE - 2);
	assert_int_equal(put(&made, NULL), 0);
	made_init(&made, SIZE);
	rule("PUT", "uploads", "\"take\": 5000001, \"times\": 1");
	assert_int_equal(put(&made, NULL), 0);
	assert_true(has(&made));
	assert_int_equal(requests("POST"), 2);
	/* All of it was there: only the end had to be said again. */
	char length[64];
	server_header(&help.server, "PUT", "Content-Length", length, sizeof(length));
	assert_string_equal(length, "0");
}

static void an_upload_that_always_breaks_ends(void **state)
{
	(void)state;
	struct made made;
	made_init(&made, SIZE);
	rule("PUT|PATCH", "uploads", "\"reset\": true");
	assert_int_equal(put(&made, NULL), -EIO);
	assert_true(requests("PUT") <= 5);
	assert_false(has(&made));
	assert_true(requests("DELETE") >= 1);
}

/* Two servers behind one name, that know nothing of each other's sessions: each time as far. */
static void an_upload_that_gets_no_further_ends(void **state)
{
	(void)state;
	struct made made;
	made_init(&made, SIZE);
	rule("PUT", "uploads", "\"take\": 2000000, \"times\": 20");
	rule("PATCH", "uploads", "\"status\": 404");
	assert_int_equal(put(&made, NULL), -EIO);
	assert_true(requests("PUT") <= 5);
	assert_false(has(&made));
}

static void a_wrong_digest_is_refused(void **state)
{
	(void)state;
	struct made made;
	made_init(&made, SIZE);
	made.digest.bytes[0] ^= 1;
	assert_int_equal(put(&made, NULL), -EINVAL);
}

static void a_source_that_fails_ends_the_upload(void **state)
{
	(void)state;
	struct made made;
	made_init(&made, SIZE);
	made.fail_at = 2000000;
	assert_int_equal(put(&made, NULL), -ENOSPC);
	assert_int_equal(requests("DELETE"), 1);
	assert_false(has(&made));
}

static void bytes_that_are_still_to_come_are_waited_for(void **state)
{
	(void)state;
	struct made made;
	made_init(&made, SIZE);
	made.arrives = true;
	made.source.await = made_await;
	assert_int_equal(put(&made, NULL), 0);
	assert_true(has(&made));
	assert_int_equal(requests("POST"), 1);
	assert_int_equal(requests("PATCH"), 0);
	assert_int_equal(made.awaited, SIZE / 700000 + 1);
}

/* What breaks off goes on when all is there: nobody but the registry is waited for again. */
static void a_dropped_upload_waits_for_the_rest(void **state)
{
	(void)state;
	struct made made;
	made_init(&made, SIZE);
	made.arrives = true;
	made.source.await = made_await;
	rule("PUT", "uploads", "\"take\": 1500000, \"times\": 1");
	assert_int_equal(put(&made, NULL), 0);
	assert_true(has(&made));
	assert_int_equal(made.furthest, SIZE - 1);
	assert_int_equal(requests("PATCH"), 1);
	/* Proxies say so where they have waited for long (RFC 9110, section 15.5.9). */
	made_init(&made, SIZE - 1);
	server_order(&help.server, "{\"clear\": true}");
	rule("PUT", "uploads", "\"status\": 408, \"times\": 1");
	assert_int_equal(put(&made, NULL), 0);
	assert_true(has(&made));
}

static void bytes_that_never_come_end_the_upload(void **state)
{
	(void)state;
	struct made made;
	made_init(&made, SIZE);
	made.arrives = true;
	made.source.await = made_await;
	made.await_error = -EINTR;
	assert_int_equal(put(&made, NULL), -EINTR);
	assert_int_equal(requests("DELETE"), 1);
	made.arrived = 0;
	made.await_error = -EINVAL;
	assert_int_equal(put(&made, NULL), -EINVAL);
	assert_int_equal(requests("DELETE"), 2);
	assert_false(has(&made));
}

static void what_is_judged_at_the_end_is_confirmed_after_it(void **state)
{
	(void)state;
	struct made made;
	made_init(&made, SIZE);
	made.source.judge = made_judge;
	made.verdict = -EINVAL;
	assert_int_equal(put(&made, NULL), -EINVAL);
	assert_int_equal(requests("PATCH"), 1);
	assert_int_equal(requests("PUT"), 0);
	assert_int_equal(requests("DELETE"), 1);
	made.verdict = 0;
	assert_int_equal(put(&made, NULL), 0);
	assert_true(has(&made));
	assert_int_equal(requests("PUT"), 1);
	/* Broken off in the middle, and at the end. */
	made_init(&made, SIZE - 1);
	made.source.judge = made_judge;
	rule("PATCH", "uploads", "\"take\": 3000000, \"times\": 1");
	rule("PUT", "uploads", "\"lose\": true, \"times\": 1");
	assert_int_equal(put(&made, NULL), 0);
	assert_true(has(&made));
}

static void an_interrupted_upload_is_called_off(void **state)
{
	(void)state;
	struct made made;
	made_init(&made, SIZE);
	made.cancel = &help.wait;
	rule("PUT", "uploads", "\"stall\": 60");
	assert_int_equal(put(&made, NULL), -EINTR);
	assert_int_equal(requests("DELETE"), 1);
}

static void refusals_of_blobs(void **state)
{
	(void)state;
	struct made made;
	made_init(&made, SIZE);
	rule("PUT", "uploads", "\"status\": 413, \"times\": 1");
	assert_int_equal(put(&made, NULL), -EDQUOT);
	rule("POST", "uploads", "\"status\": 403, \"times\": 1");
	assert_int_equal(put(&made, NULL), -EACCES);
	rule("POST", "uploads", "\"set\": {\"Location\": null}, \"times\": 1");
	assert_int_equal(put(&made, NULL), -EIO);
	rule("POST", "uploads",
	     "\"status\": 429, \"headers\": {\"Retry-After\": \"0\"}, \"times\": 1");
	assert_int_equal(put(&made, NULL), 0);
}

/* An upload that goes on at another host does so without credentials. */
static void an_upload_elsewhere_gets_no_credentials(void **state)
{
	(void)state;
	struct made made;
	made_init(&made, SIZE);
	server_order(&help.server, "{\"set\": {\"auth\": \"basic\", \"users\": {\"a\": \"b\"}}}");
	rule("POST", "uploads",
	     "\"status\": 202, \"headers\": {\"Location\": \"http://x.invalid/\"}");
	assert_true(put(&made, NULL) < 0);
	server_order(&help.server, "{\"clear\": true, \"set\": {\"auth\": null}}");
	AUTO_FREE char *actions = format(
		"\"status\": 202, \"headers\": {\"Location\": \"http://%s/v2/x?a=1\"}",
		help.server.other);
	rule("POST", "uploads", actions);
	rule("PUT", "/v2/x", "\"status\": 201, \"where\": \"other\"");
	assert_int_equal(put(&made, NULL), 0);
	char value[100];
	server_header(&help.server, "other PUT", "Authorization", value, sizeof(value));
	assert_string_equal(value, "-");
	/* Its query is kept. */
	assert_int_equal(requests("other PUT /v2/x.a=1&digest=sha256"), 1);
}

/* A name that is resolved by nobody: its requests go to our server as their proxy. */
static void an_upload_does_not_lead_home(void **state)
{
	(void)state;
	static const char *const nearby[] = {"169.254.169.254", "127.0.0.1", "[::1]"};
	AUTO_FREE char *proxy = format("http://%s", help.server.host);
	struct made made;
	made_init(&made, SIZE);
	const struct store_put put = {.digest = &made.digest, .source = &made.source};
	setenv("http_proxy", proxy, 1);
	struct store *store = help_store("registry.invalid",
					 (struct registry_options){.plain_http = true});
	for (size_t i = 0; i < ARRAY_SIZE(nearby); i++) {
		server_order(&help.server, "{\"clear\": true}");
		AUTO_FREE char *actions = format(
			"\"status\": 202, \"headers\": {\"Location\": \"http://%s/latest/\"}",
			nearby[i]);
		rule("POST", "uploads", actions);
		assert_int_equal(store->ops->put_blob(store, "team/app", &put, &help.wait), -EIO);
		assert_int_equal(requests("latest"), 0);
		assert_int_equal(requests("POST http://registry.invalid/v2/team"), 1);
	}
	assert_true(help_logged("only means something nearby"));
	store_free(store);
	unsetenv("http_proxy");
}

/* ---- manifests ---- */

static int put_manifest(const char *tag)
{
	return help.store->ops->put_manifest(help.store, "team/app", tag, OCI_TYPE_MANIFEST,
					     MANIFEST, strlen(MANIFEST), &help.wait);
}

static bool is_tagged(void)
{
	struct digest want, got;
	digest_of(DIGEST_SHA256, MANIFEST, strlen(MANIFEST), &want);
	return help.store->ops->head(help.store, "team/app", "1.5", &got, &help.wait) == 0 &&
	       digest_equal(&want, &got);
}

static void puts_a_manifest(void **state)
{
	(void)state;
	assert_int_equal(put_manifest("1.5"), 0);
	assert_true(is_tagged());
	char value[100];
	server_header(&help.server, "PUT", "Content-Type", value, sizeof(value));
	assert_string_equal(value, OCI_TYPE_MANIFEST);
	assert_int_equal(put_manifest(NULL), 0);
	assert_int_equal(requests("PUT /v2/team/app/manifests/sha256:"), 1);
}

static void a_lost_answer_is_asked_for(void **state)
{
	(void)state;
	rule("PUT", "manifests", "\"lose\": true, \"times\": 1");
	assert_int_equal(put_manifest("1.5"), 0);
	assert_int_equal(requests("PUT"), 1);
	rule("PUT", "manifests", "\"status\": 502, \"times\": 1");
	assert_int_equal(put_manifest("1.5"), 0);
	/* envoyproxy/envoy: 503 "upstream connect error or disconnect/reset before headers" */
	rule("PUT", "manifests", "\"status\": 503, \"times\": 1");
	assert_int_equal(put_manifest("1.5"), 0);
}

/* What stands before a registry answers all with a page to log in at. */
static void a_page_confirms_nothing(void **state)
{
	(void)state;
	rule("PUT", "manifests",
	     "\"status\": 200, \"headers\": {\"Content-Type\": \"text/html\"}, \"body\": \"<p>\"");
	assert_int_equal(put_manifest("1.5"), -EIO);
	assert_true(help_logged("does not confirm it"));
	help_manifest("team/app", "1.5", MANIFEST);
	assert_int_equal(put_manifest("1.5"), 0);
}

/* Nobody can call it off: so it has to end by itself. */
static void a_server_that_drips_is_given_up(void **state)
{
	(void)state;
	rule("PUT", "manifests", "\"drip\": 60");
	assert_int_equal(put_manifest("1.5"), -EIO);
	assert_int_equal(requests("PUT"), 1);
}

static void a_manifest_not_taken_is_eio(void **state)
{
	(void)state;
	help_manifest("team/app", "1.5", "{}");
	rule("PUT", "manifests", "\"reset\": true");
	assert_int_equal(put_manifest("1.5"), -EIO);
	assert_true(help_logged("has not taken it"));
	assert_false(is_tagged());
}

static void an_unknown_outcome_is_called_so(void **state)
{
	(void)state;
	rule("PUT", "manifests", "\"lose\": true");
	rule("HEAD|GET", "manifests", "\"status\": 500");
	assert_int_equal(put_manifest("1.5"), -EIO);
	assert_true(help_logged("outcome unknown"));
}

static void a_sent_manifest_is_not_interrupted(void **state)
{
	(void)state;
	struct wait other;
	wait_init(&other, true);
	wait_cancel(&other);
	assert_int_equal(help.store->ops->put_manifest(help.store, "team/app", "1.5",
						       OCI_TYPE_MANIFEST, "{}", 2, &other),
			 -EINTR);
	wait_release(&other);
	assert_int_equal(requests("PUT"), 0);
}

static void a_busy_registry_takes_the_manifest_later(void **state)
{
	(void)state;
	rule("PUT", "manifests",
	     "\"status\": 429, \"headers\": {\"Retry-After\": \"1\"}, \"times\": 1");
	assert_int_equal(put_manifest("1.5"), 0);
	assert_int_equal(requests("PUT"), 2);
}

static void an_immutable_tag_is_eexist(void **state)
{
	(void)state;
	rule("PUT", "manifests",
	     "\"status\": 400, \"body\": \"{\\\"errors\\\": [{\\\"code\\\": \\\"TAG_INVALID\\\", "
	     "\\\"message\\\": \\\"The image tag '1.5' already exists in the 'app' repository and "
	     "cannot be overwritten because the repository is immutable.\\\"}]}\"");
	help_manifest("team/app", "1.5", "{}");
	assert_int_equal(put_manifest("1.5"), -EEXIST);
	assert_true(help_logged("cannot be overwritten"));
	/* ECR says so too of just this image (moby/buildkit#3776): it is there, as asked. */
	help_manifest("team/app", "1.5", MANIFEST);
	assert_int_equal(put_manifest("1.5"), 0);
}

static void a_registry_that_stored_something_else_is_not_believed(void **state)
{
	(void)state;
	rule("PUT", "manifests",
	     "\"status\": 201, \"headers\": {\"Docker-Content-Digest\": \"sha256:"
	     "0000000000000000000000000000000000000000000000000000000000000000\"}");
	assert_int_equal(put_manifest("1.5"), -EIO);
}

static void deletes(void **state)
{
	(void)state;
	struct digest digest = help_manifest("team/app", "1.5", MANIFEST);
	help_manifest("team/app", "1.6", MANIFEST);
	const struct store_ops *ops = help.store->ops;
	assert_int_equal(ops->untag(help.store, "team/app", "1.6", &help.wait), 0);
	assert_true(is_tagged());
	server_order(&help.server, "{\"set\": {\"tag_delete\": false}}");
	assert_int_equal(ops->untag(help.store, "team/app", "1.5", &help.wait), -EOPNOTSUPP);
	rule("DELETE", "manifests", "\"status\": 405, \"times\": 1");
	assert_int_equal(ops->untag(help.store, "team/app", "1.5", &help.wait), -EOPNOTSUPP);
	assert_true(is_tagged());
	assert_int_equal(ops->delete_manifest(help.store, "team/app", &digest, &help.wait), 0);
	assert_false(is_tagged());
	assert_int_equal(ops->delete_manifest(help.store, "team/app", &digest, &help.wait),
			 -ENOENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, help_setup, help_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(puts_a_blob),
		TEST(mounts_a_blob),
		TEST(a_refused_mount_is_an_upload),
		TEST(a_dropped_upload_resumes),
		TEST(a_forgotten_session_begins_anew),
		TEST(a_dropped_upload_on_a_used_connection),
		TEST(an_upload_that_always_breaks_ends),
		TEST(an_upload_that_gets_no_further_ends),
		TEST(a_wrong_digest_is_refused),
		TEST(a_source_that_fails_ends_the_upload),
		TEST(bytes_that_are_still_to_come_are_waited_for),
		TEST(a_dropped_upload_waits_for_the_rest),
		TEST(bytes_that_never_come_end_the_upload),
		TEST(what_is_judged_at_the_end_is_confirmed_after_it),
		TEST(an_interrupted_upload_is_called_off),
		TEST(refusals_of_blobs),
		TEST(an_upload_elsewhere_gets_no_credentials),
		TEST(an_upload_does_not_lead_home),
		TEST(puts_a_manifest),
		TEST(a_lost_answer_is_asked_for),
		TEST(a_page_confirms_nothing),
		TEST(a_server_that_drips_is_given_up),
		TEST(a_manifest_not_taken_is_eio),
		TEST(an_unknown_outcome_is_called_so),
		TEST(a_sent_manifest_is_not_interrupted),
		TEST(a_busy_registry_takes_the_manifest_later),
		TEST(an_immutable_tag_is_eexist),
		TEST(a_registry_that_stored_something_else_is_not_believed),
		TEST(deletes),
	};
	return cmocka_run_group_tests(tests, help_group_setup, help_group_teardown);
}
