/* SPDX-License-Identifier: Apache-2.0 */
/* test_registry_foreign: which URLs of a manifest's layers are followed, and which are kept. */
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../../src/registry_priv.h"
#include "regfs/log.h"

#define REPO "team/app"

/* For libcurl: every name below .example leads to this machine. */
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
		struct addrinfo **ret)
{
	typeof(&getaddrinfo) system = (typeof(&getaddrinfo))dlsym(RTLD_NEXT, "getaddrinfo");

	return system(node && ends_with(node, ".example") ? "127.0.0.1" : node, service, hints,
		      ret);
}

/* What a manifest says of where its layers are is anybody's word. */
static void test_foreign_urls(void **state)
{
	static const struct {
		const char *host, *url;
		bool allowed;
	} cases[] = {
		{"ghcr.io", "https://mcr.example/v2/x", true},
		{"ghcr.io", "http://mcr.example:8080/x", true},
		{"ghcr.io", "http://127.0.0.1/x", false},
		{"ghcr.io", "http://localhost:5000/x", false},
		{"ghcr.io", "http://[::1]/x", false},
		{"ghcr.io", "http://169.254.169.254/latest/meta-data", false},
		{"localhost:5000", "http://127.0.0.1/x", true},
		{"ghcr.io", "ftp://mcr.example/x", false},
		{"ghcr.io", "file:///etc/passwd", false},
		{"ghcr.io", "https://me:secret@mcr.example/x", false},
		{"ghcr.io", "/v2/x", false},
		{"ghcr.io", "", false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(!registry_foreign_refusal(cases[i].host, cases[i].url),
				 cases[i].allowed);
}

static struct digest digest_n(unsigned n)
{
	return (struct digest){.algo = DIGEST_SHA256, .bytes = {(uint8_t)n, (uint8_t)(n >> 8)}};
}

/* How many URLs are known for blob N of REPO; the first of them ends with LAST. */
static int known(struct store *store, const char *repo, unsigned n, const char *last)
{
	char *urls[REGISTRY_URLS_MAX] = {NULL};
	struct digest digest = digest_n(n);
	int count = 0;

	if (registry_foreign_urls(registry_of(store), repo, &digest, urls) < 0)
		return 0;
	assert_true(ends_with(urls[0], last));
	while (urls[count])
		count++;
	registry_urls_free(urls);
	return count;
}

static void learn(struct store *store, unsigned n, char *const *urls, size_t nurls)
{
	struct digest digest = digest_n(n);

	registry_learn_urls(store, REPO, &digest, urls, nurls);
}

static void test_learned(void **state)
{
	char *two[] = {"https://a.example/1", "ftp://a.example/", "https://b.example/2"};
	char *other[] = {"https://c.example/3"};
	char *many[12];
	struct http *http = http_new(&(struct http_options){0});
	const struct registry_options options = {.http = http, .host = "registry.example"};
	struct store *store;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(many); i++)
		many[i] = "https://d.example/many";
	assert_int_equal(registry_new(&options, &store), 0);
	assert_int_equal(known(store, REPO, 1, ""), 0);
	learn(store, 1, two, 3);
	assert_int_equal(known(store, REPO, 1, "/1"), 2);
	assert_int_equal(known(store, "other/app", 1, ""), 0);
	/* the newest word counts, and nothing grows without end */
	learn(store, 1, other, 1);
	assert_int_equal(known(store, REPO, 1, "/3"), 1);
	learn(store, 2, many, ARRAY_SIZE(many));
	assert_int_equal(known(store, REPO, 2, "/many"), REGISTRY_URLS_MAX - 1);
	learn(store, 1, &two[1], 1);
	assert_int_equal(known(store, REPO, 1, "/3"), 1);
	for (unsigned n = 10; n < 10 + 256; n++)
		learn(store, n, other, 1);
	assert_int_equal(known(store, REPO, 1, ""), 0);
	assert_int_equal(known(store, REPO, 10, "/3"), 1);
	store_free(store);
	http_free(http);
}

/* Nobody listens there; who may not even try says so. */
static int send_to(const char *host, const char *url)
{
	struct http *http = http_new(&(struct http_options){0});
	const struct registry_options options = {.http = http, .host = host};
	const struct registry_call call = {.method = HTTP_GET, .url = url, .anonymous = true};
	struct http_transfer *transfer = NULL;
	struct store *store;
	struct wait wait;

	wait_init(&wait, true);
	assert_int_equal(registry_new(&options, &store), 0);
	int r = registry_send(registry_of(store), &call, &wait, &transfer);
	http_close(transfer);
	store_free(store);
	http_free(http);
	wait_release(&wait);
	return r;
}

/* A name says nothing of where it leads. */
static void test_names_that_lead_home(void **state)
{
	(void)state;
	assert_int_equal(send_to("ghcr.io", "http://mcr.example:1/x"), -EIO);
	assert_int_equal(send_to("localhost:5000", "http://mcr.example:1/x"), -ECONNREFUSED);
	/* the user's own word */
	assert_int_equal(send_to("mcr.example:1", "https://mcr.example:1/x"), -ECONNREFUSED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_foreign_urls),
		cmocka_unit_test(test_learned),
		cmocka_unit_test(test_names_that_lead_home),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
