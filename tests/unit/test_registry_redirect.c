/* SPDX-License-Identifier: Apache-2.0 */
/* test_registry_redirect: blobs that the registry keeps elsewhere. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "registry_help.h"

#define SIZE	3000001
#define READERS 8

static int requests(const char *regex)
{
	return server_count(&help.server, regex);
}

static void rule(const char *path, const char *actions)
{
	server_rule(&help.server, "GET", path, actions);
}

/* The registry sends to its other port, under a signature. */
static void sign_as(const char *signature)
{
	AUTO_FREE char *actions = format(
		"\"redirect\": \"{other}{path}?sig=%s\", \"where\": \"main\"", signature);
	rule("blobs", actions);
}

static ssize_t read_from(struct store *store, const struct digest *digest, uint64_t off,
			 uint64_t len, struct wait *wait)
{
	struct store_stream *stream = NULL;
	int err = store->ops->open_blob(store, "team/app", digest, off, len, &stream, wait);
	if (err)
		return err;
	uint8_t data[5000];
	ssize_t n, all = 0;
	while ((n = stream->read(stream, data, sizeof(data), wait)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(data[i], help_byte(off + (uint64_t)(all + i)));
		all += n;
	}
	store_stream_close(stream);
	return n < 0 ? n : all;
}

static ssize_t read_range(const struct digest *digest, uint64_t off, uint64_t len)
{
	return read_from(help.store, digest, off, len, &help.wait);
}

static void a_signed_url_is_used_again(void **state)
{
	(void)state;
	struct digest digest = help_blob("team/app", SIZE);
	sign_as("1");
	for (uint64_t off = 0; off < 5; off++)
		assert_int_equal(read_range(&digest, off * 1000, 1000), 1000);
	assert_int_equal(requests("main GET /v2/team"), 1);
	assert_int_equal(requests("other GET .*sig=1"), 5);
	/* Another blob is another question. */
	struct digest second = help_blob("team/app", SIZE + 1);
	assert_int_equal(read_range(&second, 7, 1000), 1000);
	assert_int_equal(requests("main GET /v2/team"), 2);
}

/* S3 says 400 (ExpiredToken), others 403 or 401; 404 and 410 where it was moved (soci-snapshotter
 * fs/remote, S3 "Error responses"). */
static void an_expired_url_is_asked_for_again(void **state)
{
	(void)state;
	static const int statuses[] = {400, 401, 403, 404, 410};
	struct digest digest = help_blob("team/app", SIZE);
	for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) {
		server_order(&help.server, "{\"clear\": true}");
		sign_as("1");
		assert_int_equal(read_range(&digest, 0, 1000), 1000);
		server_order(&help.server, "{\"clear\": true}");
		AUTO_FREE char *expired = format("\"status\": %d, \"where\": \"other\"",
						 statuses[i]);
		rule("sig=1", expired);
		sign_as("2");
		assert_int_equal(read_range(&digest, 1000, 1000), 1000);
		assert_int_equal(read_range(&digest, 2000, 1000), 1000);
		assert_int_equal(requests("main GET /v2/team"), 1);
		assert_int_equal(requests("other GET .*sig=1"), 1);
		assert_int_equal(requests("other GET .*sig=2"), 2);
		/* As the next round wants it. */
		server_order(&help.server, "{\"clear\": true}");
		rule("sig=2", "\"status\": 403, \"where\": \"other\"");
		sign_as("1");
		assert_int_equal(read_range(&digest, 0, 10), 10);
	}
}

static void what_expires_at_once_is_refused(void **state)
{
	(void)state;
	struct digest digest = help_blob("team/app", SIZE);
	sign_as("1");
	rule("blobs", "\"status\": 403, \"where\": \"other\"");
	assert_int_equal(read_range(&digest, 0, 1000), -EACCES);
	assert_true(requests("main GET /v2/team") <= 3);
}

/* The other host is gone, and the registry knows a better one. */
static void a_dead_host_is_left(void **state)
{
	(void)state;
	struct digest digest = help_blob("team/app", SIZE);
	sign_as("1");
	assert_int_equal(read_range(&digest, 0, 1000), 1000);
	server_order(&help.server, "{\"clear\": true}");
	rule("blobs", "\"reset\": true, \"where\": \"other\"");
	assert_int_equal(read_range(&digest, 1000, 1000), 1000);
	assert_int_equal(requests("main GET /v2/team"), 1);
}

struct reader {
	pthread_t thread;
	const struct digest *digest;
	uint64_t off;
	ssize_t result;
};

static void *run_reader(void *arg)
{
	struct reader *reader = arg;
	struct wait wait;
	wait_init(&wait, true);
	reader->result = read_from(help.store, reader->digest, reader->off, 1000, &wait);
	wait_release(&wait);
	return NULL;
}

/* READERS at a time, each another range; all have to succeed. */
static void read_at_once(const struct digest *digest)
{
	struct reader readers[READERS];
	for (size_t i = 0; i < READERS; i++) {
		readers[i] = (struct reader){.digest = digest, .off = i * 1000};
		pthread_create(&readers[i].thread, NULL, run_reader, &readers[i]);
	}
	for (size_t i = 0; i < READERS; i++) {
		pthread_join(readers[i].thread, NULL);
		assert_int_equal(readers[i].result, 1000);
	}
}

static void one_asks_for_all(void **state)
{
	(void)state;
	struct digest digest = help_blob("team/app", SIZE);
	sign_as("1");
	assert_int_equal(read_range(&digest, 0, 1000), 1000);
	server_order(&help.server, "{\"clear\": true}");
	rule("sig=1", "\"status\": 403, \"where\": \"other\"");
	/* Slowly, so that all have failed before there is another one. */
	rule("blobs", "\"redirect\": \"{other}{path}?sig=2\", \"where\": \"main\", \"stall\": 0.3");
	read_at_once(&digest);
	assert_int_equal(requests("main GET /v2/team"), 1);
	assert_int_equal(requests("other GET .*sig=2"), READERS);
	/* Nor do readers of a blob that is new ask one by one. */
	struct digest second = help_blob("team/app", SIZE + 1);
	read_at_once(&second);
	assert_int_equal(requests("main GET /v2/team"), 2);
}

static void who_waited_for_a_failure_asks(void **state)
{
	(void)state;
	struct digest digest = help_blob("team/app", SIZE);
	struct digest second = help_blob("team/app", SIZE + 1);
	sign_as("1");
	assert_int_equal(read_range(&digest, 0, 1000), 1000);
	server_order(&help.server, "{\"clear\": true}");
	rule("blobs", "\"status\": 403, \"stall\": 0.2, \"times\": 1");
	struct reader failing = {.digest = &second};
	pthread_create(&failing.thread, NULL, run_reader, &failing);
	while (!requests("main GET /v2/team"))
		;
	read_at_once(&second);
	pthread_join(failing.thread, NULL);
	assert_int_equal(failing.result, -EACCES);
}

/* A registry that serves what it sends others away for goes on to be asked at once by all. */
static void one_that_serves_itself_is_asked_directly(void **state)
{
	(void)state;
	struct digest digest = help_blob("team/app", SIZE);
	struct digest second = help_blob("team/app", SIZE + 1);
	sign_as("1");
	assert_int_equal(read_range(&digest, 0, 1000), 1000);
	server_order(&help.server, "{\"clear\": true}");
	read_at_once(&second);
	assert_int_equal(requests("main GET /v2/team"), READERS);
	assert_int_equal(requests("other"), 0);
}

/* ---- where we do not go ---- */

static void hops_are_few(void **state)
{
	(void)state;
	struct digest digest = help_blob("team/app", SIZE);
	rule("blobs", "\"redirect\": \"{other}{path}x\"");
	assert_int_equal(read_range(&digest, 0, 1000), -EIO);
	assert_true(help_logged("redirected too often"));
	assert_true(requests("GET /v2/team") <= 6);
}

static void https_does_not_lead_to_http(void **state)
{
	(void)state;
	char dir[64];
	struct server tls;
	assert_int_equal(server_make_dir(dir), 0);
	assert_int_equal(server_make_cert(dir), 0);
	AUTO_FREE char *cert = format("%s/cert.pem", dir);
	AUTO_FREE char *key = format("%s/key.pem", dir);
	AUTO_FREE char *way = format("{\"method\": \"GET\", \"path\": \"blobs\", "
				     "\"redirect\": \"http://%s{path}\"}",
				     help.server.host);
	const char *const args[] = {"--tls", cert, key, "--rule", way, NULL};
	assert_int_equal(server_start_bad(&tls, args), 0);
	struct hosts *hosts = hosts_new(&(struct hosts_options){.cacert = cert});
	struct store *store = help_store(
		tls.host, (struct registry_options){.https_only = true, .hosts = hosts});
	struct digest digest = help_blob("team/app", SIZE);
	assert_int_equal(read_from(store, &digest, 0, 10, &help.wait), -EIO);
	assert_true(help_logged("from https to http"));
	assert_int_equal(requests("GET /v2/team"), 0);
	store_free(store);
	hosts_free(hosts);
	server_stop(&tls);
	server_remove_dir(dir);
}

/* A name that is resolved by nobody: its requests go to our server as their proxy. */
static void a_public_host_does_not_lead_home(void **state)
{
	(void)state;
	static const char *const nearby[] = {"169.254.169.254", "127.0.0.1", "localhost",
					     "[::1]",		"0.0.0.0",   "[fe80::1]"};
	AUTO_FREE char *proxy = format("http://%s", help.server.host);
	setenv("http_proxy", proxy, 1);
	struct digest digest = help_blob("team/app", SIZE);
	struct store *store = help_store("registry.invalid",
					 (struct registry_options){.plain_http = true});
	for (size_t i = 0; i < ARRAY_SIZE(nearby); i++) {
		server_order(&help.server, "{\"clear\": true}");
		AUTO_FREE char *actions = format("\"redirect\": \"http://%s/latest/\"", nearby[i]);
		rule("blobs", actions);
		assert_int_equal(read_from(store, &digest, 0, 10, &help.wait), -EIO);
		assert_int_equal(requests("latest"), 0);
		assert_int_equal(requests("GET http://registry.invalid/v2/team"), 1);
	}
	assert_true(help_logged("only means something nearby"));
	store_free(store);
	unsetenv("http_proxy");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, help_setup, help_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_signed_url_is_used_again),
		TEST(an_expired_url_is_asked_for_again),
		TEST(what_expires_at_once_is_refused),
		TEST(a_dead_host_is_left),
		TEST(one_asks_for_all),
		TEST(who_waited_for_a_failure_asks),
		TEST(one_that_serves_itself_is_asked_directly),
		TEST(hops_are_few),
		TEST(https_does_not_lead_to_http),
		TEST(a_public_host_does_not_lead_home),
	};
	return cmocka_run_group_tests(tests, help_group_setup, help_group_teardown);
}
