/* SPDX-License-Identifier: Apache-2.0 */
/* test_auth: challenges as text; tokens and passwords against badregistry.py's token service. */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <cmocka.h>

#include "../../src/auth_priv.h"
#include "registry_help.h"

/* The clock, for the whole program: what lasts minutes is over when a test says so. The kernel's is
 * not: nothing may wait meanwhile. */
static atomic_int ahead_s;

int clock_gettime(clockid_t clock, struct timespec *ret)
{
	int r = (int)syscall(SYS_clock_gettime, clock, ret);
	if (!r && clock == CLOCK_MONOTONIC)
		ret->tv_sec += ahead_s;
	return r;
}

/* ---- text ---- */

static void parses_challenges(void **state)
{
	(void)state;
	static const struct {
		const char *header, *realm, *service, *scope;
		bool basic, bearer;
	} cases[] = {
		{"Bearer realm=\"https://auth.io/token\",service=\"registry.io\","
		 "scope=\"repository:a/b:pull,push\"",
		 "https://auth.io/token", "registry.io", "repository:a/b:pull,push", false, true},
		{"bearer REALM = \"https://a\" , Service=x", "https://a", "x", NULL, false, true},
		{"Basic realm=\"x, Bearer realm=y\"", NULL, NULL, NULL, true, false},
		{"Negotiate, Basic realm=\"x\", Bearer realm=\"https://b\",service=\"q\\\"q\"",
		 "https://b", "q\"q", NULL, true, true},
		{"Negotiate YWJjZA==, Bearer realm=\"https://b\"", "https://b", NULL, NULL, false,
		 true},
		{"Bearer realm=\"one\", Bearer realm=\"two\",scope=\"s\"", "one", NULL, NULL, false,
		 true},
		{"Bearer realm=\"one\", realm=\"two\"", "one", NULL, NULL, false, true},
		{"Bearer realm=\"unterminated", NULL, NULL, NULL, false, true},
		{"Digest realm=\"d\", nonce=\"n\"", NULL, NULL, NULL, false, false},
		{"", NULL, NULL, NULL, false, false},
		{",,, ,", NULL, NULL, NULL, false, false},
		{"=\"x\"", NULL, NULL, NULL, false, false},
		{"Bearer \x80\xff", NULL, NULL, NULL, false, true},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		CLEANUP(auth_challenges_release) struct auth_challenges got = {0};
		assert_int_equal(auth_parse(cases[i].header, &got), 0);
		bool right = got.basic == cases[i].basic && got.bearer == cases[i].bearer &&
			     !strcmp(got.realm ? got.realm : "", cases[i].realm ?: "") &&
			     !strcmp(got.service ? got.service : "", cases[i].service ?: "") &&
			     !strcmp(got.scope ? got.scope : "", cases[i].scope ?: "");
		if (!right)
			fail_msg("%s", cases[i].header);
	}
}

static void realms_are_judged(void **state)
{
	(void)state;
	static const struct {
		const char *registry, *realm;
		bool fine;
	} cases[] = {
		{"https://ghcr.io/v2/", "https://ghcr.io/token", true},
		{"https://registry-1.docker.io/v2/", "https://auth.docker.io/token", true},
		{"https://ghcr.io/v2/", "http://ghcr.io/token", false},
		{"https://ghcr.io/v2/", "https://10.0.0.1/token", false},
		{"https://ghcr.io/v2/", "https://[fd00::1]/token", false},
		{"https://ghcr.io/v2/", "https://169.254.169.254/token", false},
		{"https://ghcr.io/v2/", "https://localhost/token", false},
		{"https://8.8.8.8/v2/", "https://192.168.0.1/token", false},
		/* somebody's own network, by its name or address */
		{"https://harbor.corp/v2/", "https://10.0.0.1/service/token", true},
		{"https://harbor:8443/v2/", "https://10.0.0.1/service/token", true},
		{"https://10.0.0.2:5000/v2/", "https://10.0.0.1/token", true},
		{"http://10.0.0.2:5000/v2/", "http://10.0.0.1/token", true},
		{"https://harbor.corp/v2/", "https://127.0.0.1/token", false},
		{"http://localhost:5000/v2/", "http://127.0.0.1:5001/token", true},
		{"http://localhost:5000/v2/", "http://example.com/token", false},
		{"http://localhost:5000/v2/", "https://auth.example.com/token", true},
		{"https://ghcr.io/v2/", "ftp://ghcr.io/token", false},
		{"https://ghcr.io/v2/", "https://user:pass@ghcr.io/token", false},
		{"https://ghcr.io/v2/", "token", false},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *why = auth_realm_refusal(cases[i].registry, cases[i].realm);
		if (!why != cases[i].fine)
			fail_msg("%s at %s: %s", cases[i].realm, cases[i].registry, why ?: "fine");
	}
}

/* Issued at 2026-01-31T12:00:00Z. */
static void lifetimes_are_read(void **state)
{
	(void)state;
	static const struct {
		const char *json;
		int64_t age_s, lifetime_s;
	} cases[] = {
		{"{\"token\": \"t\"}", 0, 60},
		{"{\"token\": \"t\", \"expires_in\": 3}", 0, 60},
		{"{\"token\": \"t\", \"expires_in\": -7}", 0, 60},
		{"{\"token\": \"t\", \"expires_in\": 300}", 0, 300},
		{"{\"access_token\": \"t\", \"expires_in\": 300}", 0, 300},
		{"{\"token\": \"\", \"access_token\": \"t\"}", 0, 60},
		{"{\"token\": \"t\", \"expires_in\": 300, \"issued_at\": \"2026-01-31T12:00:00Z\"}",
		 100, 200},
		{"{\"token\": \"t\", \"expires_in\": 300, \"issued_at\": \"2026-01-31T12:00:00Z\"}",
		 280, 60},
		/* clocks that differ say nothing */
		{"{\"token\": \"t\", \"expires_in\": 300, \"issued_at\": \"2026-01-31T12:00:00Z\"}",
		 5000, 300},
		{"{\"token\": \"t\", \"expires_in\": 300, \"issued_at\": \"2026-01-31T12:00:00Z\"}",
		 -50, 300},
		{"{\"token\": \"t\", \"expires_in\": 300, \"issued_at\": \"yesterday\"}", 0, 300},
		{"{\"token\": \"t\", \"expires_in\": 9007199254740991}", 0, 86400},
	};
	int64_t issued_s = INT64_C(1769860800);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct auth_token token = {0};
		assert_int_equal(auth_token_parse(cases[i].json, strlen(cases[i].json),
						  (issued_s + cases[i].age_s) * 1000, &token),
				 0);
		assert_string_equal(token.value, "t");
		if (token.lifetime_ms != cases[i].lifetime_s * 1000)
			fail_msg("%s: %" PRId64, cases[i].json, token.lifetime_ms);
		secret_free(&token.value);
	}
}

/* ---- with a registry ---- */

struct keys {
	const char *user, *password, *identity, *registry;
	int error;
	bool fresh;
	char host[64], repo[64]; /* what was looked up last */
	int lookups;
};

static int look_up(void *arg, const struct auth_query *query, struct wait *wait,
		   struct auth_credential *ret)
{
	struct keys *keys = arg;
	assert_true(wait_may_block(wait));
	keys->lookups++;
	keys->fresh = query->fresh;
	snprintf(keys->host, sizeof(keys->host), "%s", query->host);
	snprintf(keys->repo, sizeof(keys->repo), "%s", query->repo ? query->repo : "");
	if (keys->error)
		return keys->error;
	if (!keys->user && !keys->identity && !keys->registry)
		return -ENOENT;
	ret->registry_token = keys->registry ? strdup(keys->registry) : NULL;
	ret->user = keys->user ? strdup(keys->user) : NULL;
	ret->password = keys->password ? strdup(keys->password) : NULL;
	ret->identity_token = keys->identity ? strdup(keys->identity) : NULL;
	return 0;
}

static struct auth *make_auth(struct keys *keys)
{
	const struct auth_options options = {
		.http = help.http,
		.host = "the.key",
		.lookup = keys ? look_up : NULL,
		.lookup_arg = keys,
		.timeout_ms = HELP_NAME_TIMEOUT_MS,
	};
	struct auth *auth = auth_new(&options);
	assert_non_null(auth);
	return auth;
}

#define PULL	 "repository:team/app:pull"
#define MANIFEST "/v2/team/app/manifests/1"

static const struct auth_ask ask_pull = {.scope = PULL, .repo = "team/app"};

/* One request with HEADER (may be NULL); the transfer. */
static struct http_transfer *request(const char *header)
{
	AUTO_FREE char *url = format("http://%s" MANIFEST, help.server.host);
	const struct http_request get = {.url = url,
					 .headers = (const char *const[]){header, NULL}};
	struct http_transfer *transfer = NULL;
	assert_int_equal(http_start(help.http, &get, &help.wait, &transfer), 0);
	return transfer;
}

/* A request as a caller makes it: what is known, then after one challenge. The status, or the
 * errno of auth. */
static int status_of(struct auth *auth, const struct auth_ask *ask)
{
	for (int round = 0;; round++) {
		AUTO_FREE char *header = NULL;
		int err = auth_header(auth, ask, &help.wait, &header);
		if (err)
			return err;
		struct http_transfer *transfer = request(header);
		int status = http_status(transfer);
		if (status == 401 && !round)
			err = auth_challenge(auth, ask, transfer, header);
		http_close(transfer);
		if (err || status != 401 || round)
			return err ? err : status;
	}
}

static int tokens(void)
{
	return server_count(&help.server, "/token");
}

static void set(const char *json)
{
	AUTO_FREE char *order = format("{\"set\": {%s}}", json);
	server_order(&help.server, order);
}

static int auth_setup(void **state)
{
	ahead_s = 0;
	int err = help_setup(state);
	if (!err) {
		help_manifest("team/app", "1", "{}");
		set("\"auth\": \"bearer\", \"expires_in\": 300");
	}
	return err;
}

static void an_anonymous_token_serves_many_requests(void **state)
{
	(void)state;
	struct auth *auth = make_auth(NULL);
	for (int i = 0; i < 5; i++)
		assert_int_equal(status_of(auth, &ask_pull), 200);
	assert_int_equal(tokens(), 1);
	assert_int_equal(server_count(&help.server, "GET /v2/"), 6);
	/* Another scope needs no challenge any more, only its token. */
	AUTO_FREE char *header = NULL;
	const struct auth_ask other = {.scope = "repository:team/web:pull"};
	assert_int_equal(auth_header(auth, &other, &help.wait, &header), 0);
	assert_non_null(header);
	assert_int_equal(tokens(), 2);
	assert_int_equal(server_count(&help.server, "scope=repository%3Ateam%2Fweb%3Apull"), 1);
	assert_int_equal(server_count(&help.server, "service=test%2C%20%22quoted%22"), 2);
	auth_free(auth);
}

/* The registry would still take it: nobody has to meet a 401 to find out. */
static void a_token_is_renewed_before_it_expires(void **state)
{
	(void)state;
	struct auth *auth = make_auth(NULL);
	assert_int_equal(status_of(auth, &ask_pull), 200);
	ahead_s += 280;
	assert_int_equal(status_of(auth, &ask_pull), 200);
	assert_int_equal(tokens(), 1);
	ahead_s += 15;
	assert_int_equal(status_of(auth, &ask_pull), 200);
	assert_int_equal(tokens(), 2);
	/* the challenge, and then no refusal */
	assert_int_equal(server_count(&help.server, "GET /v2/"), 4);
	ahead_s = 0;
	auth_free(auth);
}

static void a_refused_token_is_renewed_once(void **state)
{
	(void)state;
	struct auth *auth = make_auth(NULL);
	assert_int_equal(status_of(auth, &ask_pull), 200);
	set("\"tokens\": {}");
	assert_int_equal(status_of(auth, &ask_pull), 200);
	assert_int_equal(tokens(), 2);
	auth_free(auth);
}

static void the_password_goes_to_the_token_service(void **state)
{
	(void)state;
	struct keys keys = {.user = "ann", .password = "secret"};
	struct auth *auth = make_auth(&keys);
	set("\"anonymous\": false, \"users\": {\"ann\": \"secret\"}, \"token_field\": "
	    "\"access_token\"");
	assert_int_equal(status_of(auth, &ask_pull), 200);
	assert_string_equal(keys.host, "the.key");
	assert_string_equal(keys.repo, "team/app");
	char value[100];
	server_header(&help.server, "GET /token", "Authorization", value, sizeof(value));
	assert_string_equal(value, "Basic YW5uOnNlY3JldA==");
	server_header(&help.server, "GET /v2/", "Authorization", value, sizeof(value));
	assert_memory_equal(value, "Bearer ", 7);
	auth_free(auth);
}

static void a_wrong_password_is_eacces(void **state)
{
	(void)state;
	struct keys keys = {.user = "ann", .password = "wrong"};
	struct auth *auth = make_auth(&keys);
	set("\"users\": {\"ann\": \"secret\"}");
	assert_int_equal(status_of(auth, &ask_pull), -EACCES);
	assert_true(help_logged("incorrect username or password"));
	assert_false(help_logged("wrong\n"));
	/* It is looked up anew, so that a change is noticed. */
	keys.password = "secret";
	assert_int_equal(status_of(auth, &ask_pull), 200);
	auth_free(auth);
}

static void an_identity_token_is_posted(void **state)
{
	(void)state;
	struct keys keys = {.identity = "id+&=1"};
	struct auth *auth = make_auth(&keys);
	set("\"anonymous\": false, \"identity_token\": \"id+&=1\"");
	assert_int_equal(status_of(auth, &ask_pull), 200);
	assert_int_equal(server_count(&help.server, "POST /token"), 1);
	auth_free(auth);
}

static void an_older_service_gets_the_older_form(void **state)
{
	(void)state;
	struct keys keys = {.user = "ann", .password = "secret", .identity = "id"};
	struct auth *auth = make_auth(&keys);
	set("\"anonymous\": false, \"users\": {\"ann\": \"secret\"}");
	server_rule(&help.server, "POST", "/token", "\"status\": 404");
	assert_int_equal(status_of(auth, &ask_pull), 200);
	assert_int_equal(server_count(&help.server, "GET /token"), 1);
	auth_free(auth);
}

static void basic_is_asked_once(void **state)
{
	(void)state;
	struct keys keys = {.user = "ann", .password = "secret"};
	struct auth *auth = make_auth(&keys);
	set("\"auth\": \"basic\", \"users\": {\"ann\": \"secret\"}");
	assert_int_equal(status_of(auth, &ask_pull), 200);
	assert_int_equal(status_of(auth, &ask_pull), 200);
	assert_int_equal(keys.lookups, 1);
	/* Refused: looked up again. */
	set("\"users\": {\"ann\": \"changed\"}");
	keys.password = "changed";
	assert_int_equal(status_of(auth, &ask_pull), 200);
	assert_int_equal(keys.lookups, 2);
	auth_free(auth);
}

/* Each repository may have its own; what is kept of one is not sent for another. */
static void basic_is_by_repository(void **state)
{
	(void)state;
	struct keys keys = {.user = "ann", .password = "secret"};
	struct auth *auth = make_auth(&keys);
	set("\"auth\": \"basic\", \"users\": {\"ann\": \"secret\", \"bob\": \"bobs\"}");
	assert_int_equal(status_of(auth, &ask_pull), 200);
	keys.user = "bob";
	keys.password = "bobs";
	const struct auth_ask other = {.repo = "other"};
	assert_int_equal(status_of(auth, &other), 200);
	char value[100];
	server_header(&help.server, "GET /v2/", "Authorization", value, sizeof(value));
	assert_string_equal(value, "Basic Ym9iOmJvYnM=");
	assert_int_equal(status_of(auth, &ask_pull), 200);
	server_header(&help.server, "GET /v2/", "Authorization", value, sizeof(value));
	assert_string_equal(value, "Basic YW5uOnNlY3JldA==");
	assert_int_equal(keys.lookups, 2);
	auth_free(auth);
}

static void a_registry_token_is_sent_as_it_is(void **state)
{
	(void)state;
	struct keys keys = {.registry = "reg-token"};
	char value[100];
	static const char *const ways[] = {"\"auth\": \"basic\"", "\"auth\": \"bearer\""};
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		struct auth *auth = make_auth(&keys);
		set(ways[i]);
		assert_int_equal(status_of(auth, &ask_pull), 401);
		server_header(&help.server, "GET /v2/", "Authorization", value, sizeof(value));
		assert_string_equal(value, "Bearer reg-token");
		auth_free(auth);
	}
	assert_int_equal(tokens(), 0);
}

/* containerd, core/remotes/docker/auth/fetch.go: Artifactory says 401 to a POST. */
static void a_post_that_is_refused_is_a_get(void **state)
{
	(void)state;
	struct keys keys = {.user = "ann", .password = "secret", .identity = "id"};
	struct auth *auth = make_auth(&keys);
	set("\"anonymous\": false, \"users\": {\"ann\": \"secret\"}");
	assert_int_equal(status_of(auth, &ask_pull), 200);
	assert_int_equal(server_count(&help.server, "POST /token"), 1);
	assert_int_equal(server_count(&help.server, "GET /token"), 1);
	auth_free(auth);
	/* without a password there is nothing else to try */
	keys = (struct keys){.identity = "id"};
	auth = make_auth(&keys);
	assert_int_equal(status_of(auth, &ask_pull), -EACCES);
	assert_int_equal(server_count(&help.server, "GET /token"), 1);
	/* but with a service of the older form there is */
	server_rule(&help.server, "POST", "/token", "\"status\": 405");
	set("\"users\": {\"<token>\": \"id\"}");
	assert_int_equal(status_of(auth, &ask_pull), 200);
	auth_free(auth);
}

static void what_the_lookup_says_is_the_answer(void **state)
{
	(void)state;
	static const char *const ways[] = {"\"auth\": \"basic\"", "\"auth\": \"bearer\""};
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		struct keys keys = {.error = -EACCES};
		struct auth *auth = make_auth(&keys);
		set(ways[i]);
		assert_int_equal(status_of(auth, &ask_pull), -EACCES);
		auth_free(auth);
	}
	/* nobody comes anonymously because a file is broken */
	assert_int_equal(tokens(), 0);
}

/* After a refusal the helper's own memory is not good enough. */
static void what_was_refused_is_looked_up_fresh(void **state)
{
	(void)state;
	struct keys keys = {.user = "ann", .password = "old"};
	struct auth *auth = make_auth(&keys);
	set("\"auth\": \"basic\", \"users\": {\"ann\": \"old\"}");
	assert_int_equal(status_of(auth, &ask_pull), 200);
	assert_false(keys.fresh);
	set("\"users\": {\"ann\": \"new\"}");
	keys.password = "new";
	assert_int_equal(status_of(auth, &ask_pull), 200);
	assert_true(keys.fresh);
	auth_free(auth);
}

/* ---- 403 ---- */

/* What auth makes of a 403 with HEADERS to USED: 0, or -EACCES. */
static int forbidden(struct auth *auth, const char *used, const char *headers)
{
	AUTO_FREE char *rule = format("\"status\": 403, \"times\": 1, \"headers\": {%s}", headers);
	server_rule(&help.server, "GET", "/v2/", rule);
	struct http_transfer *transfer = request(used);
	assert_int_equal(http_status(transfer), 403);
	int err = auth_challenge(auth, &ask_pull, transfer, used);
	http_close(transfer);
	return err;
}

/* RFC 6750, section 3.1. */
static void a_token_that_covers_too_little_is_replaced(void **state)
{
	(void)state;
	struct auth *auth = make_auth(NULL);
	assert_int_equal(status_of(auth, &ask_pull), 200);
	AUTO_SECRET char *used = NULL;
	assert_int_equal(auth_header(auth, &ask_pull, &help.wait, &used), 0);
	/* a 403 alone says no */
	assert_int_equal(forbidden(auth, used, ""), -EACCES);
	AUTO_FREE char *challenge = format(
		"\"WWW-Authenticate\": \"Bearer realm=\\\"http://%s/token\\\","
		"error=\\\"insufficient_scope\\\","
		"scope=\\\"repository:team/app:pull,delete\\\"\"",
		help.server.host);
	assert_int_equal(forbidden(auth, used, challenge), 0);
	AUTO_SECRET char *fresh = NULL;
	assert_int_equal(auth_header(auth, &ask_pull, &help.wait, &fresh), 0);
	assert_string_not_equal(fresh, used);
	assert_int_equal(
		server_count(&help.server, "scope=repository%3Ateam%2Fapp%3Apull%2Cdelete"), 1);
	auth_free(auth);
}

/* ECR: "Your authorization token has expired", without any challenge. */
static void a_password_that_expired_is_looked_up(void **state)
{
	(void)state;
	struct keys keys = {.user = "AWS", .password = "old"};
	struct auth *auth = make_auth(&keys);
	set("\"auth\": \"basic\", \"users\": {\"AWS\": \"old\"}");
	assert_int_equal(status_of(auth, &ask_pull), 200);
	AUTO_SECRET char *used = NULL;
	assert_int_equal(auth_header(auth, &ask_pull, &help.wait, &used), 0);
	keys.password = "new";
	assert_int_equal(forbidden(auth, used, ""), 0);
	AUTO_SECRET char *fresh = NULL;
	assert_int_equal(auth_header(auth, &ask_pull, &help.wait, &fresh), 0);
	assert_string_not_equal(fresh, used);
	assert_true(keys.fresh);
	auth_free(auth);
}

/* A header that was made for this very request was refused: another will be, too. */
static void what_was_just_made_is_not_made_again(void **state)
{
	(void)state;
	struct auth *auth = make_auth(NULL);
	assert_int_equal(status_of(auth, &ask_pull), 200);
	AUTO_SECRET char *used = NULL;
	struct auth_ask ask = ask_pull;
	assert_int_equal(auth_header(auth, &ask, &help.wait, &used), 0);
	set("\"tokens\": {}");
	struct http_transfer *transfer = request(used);
	ask.begun_ms = 1;
	assert_int_equal(auth_challenge(auth, &ask, transfer, used), -EACCES);
	http_close(transfer);
	/* for the next request it is forgotten */
	assert_int_equal(status_of(auth, &ask_pull), 200);
	assert_int_equal(tokens(), 2);
	auth_free(auth);
}

/* A registry that has moved its token service is asked where to. */
static void a_service_that_went_is_asked_for_again(void **state)
{
	(void)state;
	struct auth *auth = make_auth(NULL);
	AUTO_FREE char *realm = format("\"realm\": \"http://%s/gone\"", help.server.host);
	set(realm);
	assert_int_equal(status_of(auth, &ask_pull), -EIO);
	set("\"realm\": null");
	assert_int_equal(status_of(auth, &ask_pull), 200);
	auth_free(auth);
}

static void unknown_schemes_are_eacces(void **state)
{
	(void)state;
	struct auth *auth = make_auth(NULL);
	server_rule(&help.server, "GET", "/v2/",
		    "\"status\": 401, \"headers\": {\"WWW-Authenticate\": \"Negotiate\"}");
	assert_int_equal(status_of(auth, &ask_pull), -EACCES);
	auth_free(auth);
}

static void bad_realms_are_refused(void **state)
{
	(void)state;
	static const char *const realms[] = {"ftp://x/token", "/token", "http://evil.example/token",
					     "https://u:p@x/", "http://127.0.0.1.evil.example/t"};
	for (size_t i = 0; i < ARRAY_SIZE(realms); i++) {
		struct keys keys = {.user = "ann", .password = "secret"};
		struct auth *auth = make_auth(&keys);
		AUTO_FREE char *json = format("\"realm\": \"%s\"", realms[i]);
		set(json);
		assert_int_equal(status_of(auth, &ask_pull), -EACCES);
		assert_int_equal(keys.lookups, 0);
		auth_free(auth);
	}
	assert_int_equal(tokens(), 0);
}

static void bad_answers_are_refused(void **state)
{
	(void)state;
	static const char *const answers[] = {
		"\"status\": 200, \"body\": \"\"",
		"\"status\": 200, \"body\": \"<html>\"",
		"\"status\": 200, \"body\": \"{\\\"token\\\": \\\"\\\"}\"",
		"\"status\": 200, \"body\": \"{\\\"token\\\": \\\"a\\\\r\\\\nX: y\\\"}\"",
		"\"status\": 200, \"body\": \"{\\\"token\\\": 7}\"",
		"\"status\": 500",
		"\"redirect\": \"{other}/token\"",
	};
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		struct auth *auth = make_auth(NULL);
		server_order(&help.server, "{\"clear\": true}");
		server_rule(&help.server, "GET", "/token", answers[i]);
		if (status_of(auth, &ask_pull) != -EIO)
			fail_msg("%s", answers[i]);
		auth_free(auth);
	}
}

static void a_huge_answer_is_refused(void **state)
{
	(void)state;
	struct auth *auth = make_auth(NULL);
	AUTO_FREE char *realm = format("\"realm\": \"http://%s/raw/5000000?\"", help.server.host);
	set(realm);
	assert_int_equal(status_of(auth, &ask_pull), -EIO);
	assert_true(help_logged("larger than 1 MiB"));
	auth_free(auth);
}

static void a_busy_service_is_asked_again(void **state)
{
	(void)state;
	struct auth *auth = make_auth(NULL);
	server_rule(&help.server, "GET", "/token", "\"status\": 503, \"times\": 1");
	server_rule(&help.server, "GET", "/token",
		    "\"status\": 429, \"headers\": {\"Retry-After\": \"0\"}, \"times\": 1");
	assert_int_equal(status_of(auth, &ask_pull), 200);
	assert_int_equal(tokens(), 3);
	server_rule(&help.server, "GET", "/token",
		    "\"status\": 429, \"headers\": {\"Retry-After\": \"900\"}");
	set("\"tokens\": {}");
	assert_int_equal(status_of(auth, &ask_pull), -EBUSY);
	auth_free(auth);
}

static void a_service_whose_connection_breaks_is_asked_again(void **state)
{
	(void)state;
	struct auth *auth = make_auth(NULL);
	server_rule(&help.server, "GET", "/token", "\"reset\": true, \"times\": 1");
	assert_int_equal(status_of(auth, &ask_pull), 200);
	assert_int_equal(tokens(), 2);
	auth_free(auth);
}

/* A challenge's scope may be spelt in the registry's own way: it goes first. */
static void the_registrys_scope_goes_first(void **state)
{
	(void)state;
	struct auth *auth = make_auth(NULL);
	const struct auth_ask ask = {.scope = "repository:app:pull"};
	assert_int_equal(status_of(auth, &ask), 200);
	assert_int_equal(server_count(&help.server, "scope=repository%3Ateam%2Fapp%3Apull&"
						    "scope=repository%3Aapp%3Apull"),
			 1);
	auth_free(auth);
}

/* Of several scopes none is asked for twice. */
static void scopes_are_joined(void **state)
{
	(void)state;
	struct auth *auth = make_auth(NULL);
	const struct auth_ask ask = {.scope = "repository:team/app:pull repository:team/web:pull"};
	assert_int_equal(status_of(auth, &ask), 200);
	assert_int_equal(server_count(&help.server,
				      "[?&]service=[^&]*&scope=repository%3Ateam%2Fapp%3Apull&"
				      "scope=repository%3Ateam%2Fweb%3Apull$"),
			 1);
	auth_free(auth);
}

/* Harbor: an expired token earns a Basic challenge; without any, the token service is named. */
static void a_basic_answer_to_a_token_means_it_expired(void **state)
{
	(void)state;
	struct keys keys = {.user = "ann", .password = "secret"};
	struct auth *auth = make_auth(&keys);
	set("\"users\": {\"ann\": \"secret\"}");
	assert_int_equal(status_of(auth, &ask_pull), 200);
	server_rule(&help.server, "GET", "/v2/",
		    "\"status\": 401, \"times\": 1, \"headers\": "
		    "{\"WWW-Authenticate\": \"Basic realm=harbor\"}");
	/* It is sent bare, and challenged in the usual way. */
	assert_int_equal(status_of(auth, &ask_pull), 401);
	char *header = NULL;
	assert_int_equal(auth_header(auth, &ask_pull, &help.wait, &header), 0);
	assert_null(header);
	assert_int_equal(status_of(auth, &ask_pull), 200);
	auth_free(auth);
}

/* ---- many ---- */

struct asker {
	pthread_t thread;
	struct auth *auth;
	int result;
};

static void *ask_in_thread(void *arg)
{
	struct asker *asker = arg;
	struct wait wait;
	wait_init(&wait, true);
	AUTO_FREE char *header = NULL;
	asker->result = auth_header(asker->auth, &ask_pull, &wait, &header);
	wait_release(&wait);
	return NULL;
}

static void ask_by_many(struct auth *auth, int want)
{
	struct asker askers[20];
	for (size_t i = 0; i < ARRAY_SIZE(askers); i++) {
		askers[i].auth = auth;
		pthread_create(&askers[i].thread, NULL, ask_in_thread, &askers[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(askers); i++) {
		pthread_join(askers[i].thread, NULL);
		assert_int_equal(askers[i].result, want);
	}
}

static struct auth *challenged_auth(void)
{
	struct auth *auth = make_auth(NULL);
	struct http_transfer *transfer = request(NULL);
	assert_int_equal(auth_challenge(auth, &ask_pull, transfer, NULL), 0);
	http_close(transfer);
	return auth;
}

static void one_request_serves_many_waiters(void **state)
{
	(void)state;
	struct auth *auth = challenged_auth();
	server_rule(&help.server, "GET", "/token", "\"stall\": 0.5");
	ask_by_many(auth, 0);
	assert_int_equal(tokens(), 1);
	auth_free(auth);
}

static void a_failure_is_shared_too(void **state)
{
	(void)state;
	struct auth *auth = challenged_auth();
	server_rule(&help.server, "GET", "/token", "\"status\": 403, \"stall\": 1");
	ask_by_many(auth, -EACCES);
	assert_true(tokens() <= 3); /* not one for each; late comers ask anew */
	auth_free(auth);
}

/* Else the last of them would wait as often as there are others. */
static void a_silence_is_shared_too(void **state)
{
	(void)state;
	struct auth *auth = challenged_auth();
	server_rule(&help.server, "GET", "/token", "\"stall\": null");
	ask_by_many(auth, -ETIMEDOUT);
	assert_true(tokens() <= 3);
	auth_free(auth);
}

static void without_permission_it_does_not_wait(void **state)
{
	(void)state;
	struct auth *auth = challenged_auth();
	struct wait wait;
	wait_init(&wait, false);
	char *header = NULL;
	assert_int_equal(auth_header(auth, &ask_pull, &wait, &header), -EWOULDBLOCK);
	assert_int_equal(tokens(), 0);
	assert_int_equal(status_of(auth, &ask_pull), 200);
	assert_int_equal(auth_header(auth, &ask_pull, &wait, &header), 0);
	free(header);
	wait_release(&wait);
	auth_free(auth);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, auth_setup, help_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parses_challenges),
		cmocka_unit_test(realms_are_judged),
		cmocka_unit_test(lifetimes_are_read),
		TEST(an_anonymous_token_serves_many_requests),
		TEST(a_token_is_renewed_before_it_expires),
		TEST(a_refused_token_is_renewed_once),
		TEST(the_password_goes_to_the_token_service),
		TEST(a_wrong_password_is_eacces),
		TEST(an_identity_token_is_posted),
		TEST(an_older_service_gets_the_older_form),
		TEST(basic_is_asked_once),
		TEST(basic_is_by_repository),
		TEST(a_registry_token_is_sent_as_it_is),
		TEST(a_post_that_is_refused_is_a_get),
		TEST(what_the_lookup_says_is_the_answer),
		TEST(what_was_refused_is_looked_up_fresh),
		TEST(a_token_that_covers_too_little_is_replaced),
		TEST(a_password_that_expired_is_looked_up),
		TEST(what_was_just_made_is_not_made_again),
		TEST(a_service_that_went_is_asked_for_again),
		TEST(unknown_schemes_are_eacces),
		TEST(bad_realms_are_refused),
		TEST(bad_answers_are_refused),
		TEST(a_huge_answer_is_refused),
		TEST(a_busy_service_is_asked_again),
		TEST(a_service_whose_connection_breaks_is_asked_again),
		TEST(the_registrys_scope_goes_first),
		TEST(scopes_are_joined),
		TEST(a_basic_answer_to_a_token_means_it_expired),
		TEST(one_request_serves_many_waiters),
		TEST(a_failure_is_shared_too),
		TEST(a_silence_is_shared_too),
		TEST(without_permission_it_does_not_wait),
	};
	return cmocka_run_group_tests(tests, help_group_setup, help_group_teardown);
}
