/* SPDX-License-Identifier: Apache-2.0 */
/* test_registry_ahead: long lists in small pages, read at several places at a time. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "regfs/nameset.h"
#include "registry_help.h"

#define PAGE	  20
#define PAGES	  100
#define AT_A_TIME 12

struct names {
	struct nameset *set;
	size_t given, stop_at;
};

static int on_name(void *arg, const char *name)
{
	struct names *names = arg;
	if (++names->given == names->stop_at)
		return 42;
	return nameset_add(names->set, name);
}

static int list_tags(struct names *names)
{
	nameset_unref(names->set);
	names->set = nameset_new();
	names->given = 0;
	int err = help.store->ops->list_tags(help.store, "team/app", on_name, names, &help.wait);
	nameset_seal(names->set);
	return err;
}

static void order(const char *json)
{
	server_order(&help.server, json);
}

/* PAGES pages of tags named so, in pages as small as distribution and ECR give them, in little. */
static void add_tags(const char *names)
{
	AUTO_FREE char *json = format("{\"set\": {\"page_size\": %d, \"n_max\": 1000,"
				      " \"repos\": {}}}",
				      PAGE);
	order(json);
	AUTO_FREE char *tags = format("{\"repo\": \"team/app\", \"many\": %d, \"names\": \"%s\"}",
				      PAGE * PAGES, names);
	order(tags);
}

static int requests(const char *regex)
{
	return server_count(&help.server, regex);
}

static int rounds(void)
{
	AUTO_FREE char *text = server_get(&help.server, "/_control?rounds=1");
	return (int)strtol(text, NULL, 10);
}

static int connections(void)
{
	AUTO_FREE char *text = server_get(&help.server, "/_control?clients=tags/list");
	return (int)strtol(text, NULL, 10);
}

/* Lists them all; at most so many requests one after another. */
static void expect_rounds(const char *tags, int most)
{
	struct names names = {0};
	add_tags(tags);
	server_rule(&help.server, "GET", "tags/list", "\"gather\": 0.04");
	assert_int_equal(list_tags(&names), 0);
	assert_int_equal(nameset_len(names.set), PAGE * PAGES);
	assert_in_range(rounds(), 3, most);
	assert_in_range(requests("tags/list"), PAGES, PAGES * 7 / 5);
	assert_in_range(connections(), 2, AT_A_TIME);
	nameset_unref(names.set);
	order("{\"clear\": true}");
}

/* Where nothing else runs it takes 15 to 25; more where a request is so late that it counts for the
 * next round. */
static void names_that_count_up(void **state)
{
	(void)state;
	expect_rounds("v{n:05}", 45);
	expect_rounds("build-{n}", 45);
}

static void names_that_are_hashes(void **state)
{
	(void)state;
	expect_rounds("{h}", 45);
	expect_rounds("sha-{h}", 45);
}

/* Where to divide these is hard to guess: some are found. */
static void names_that_are_words(void **state)
{
	(void)state;
	expect_rounds("{n:06}-ubuntu-amd64", 45);
	expect_rounds("release-{h:.1}-candidate-{n}", 70);
}

/* distribution sorts '/' before all other characters; what sorts by anything else has its names
 * read as well, in whatever time. */
static void any_order_will_do(void **state)
{
	(void)state;
	static const char *const sorts[] = {"path", "hash"};
	for (size_t i = 0; i < ARRAY_SIZE(sorts); i++) {
		struct names names = {0};
		add_tags("v{n:05}");
		AUTO_FREE char *json = format("{\"set\": {\"sort\": \"%s\"}}", sorts[i]);
		order(json);
		assert_int_equal(list_tags(&names), 0);
		assert_int_equal(nameset_len(names.set), PAGE * PAGES);
		assert_in_range(requests("tags/list"), PAGES, PAGES * 7 / 5);
		nameset_unref(names.set);
		order("{\"clear\": true}");
	}
}

/* What does not know a text that is no name: the list is read one page after the other. */
static void unknown_names_may_be_refused(void **state)
{
	(void)state;
	static const char *const ways[] = {"ignore", "refuse"};
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		struct names names = {0};
		add_tags("v{n:05}");
		AUTO_FREE char *json = format("{\"set\": {\"unknown_last\": \"%s\"}}", ways[i]);
		order(json);
		assert_int_equal(list_tags(&names), 0);
		assert_int_equal(nameset_len(names.set), PAGE * PAGES);
		assert_in_range(requests("tags/list"), PAGES, PAGES + 5);
		nameset_unref(names.set);
		order("{\"clear\": true}");
	}
}

static void opaque_links_are_followed(void **state)
{
	(void)state;
	struct names names = {0};
	add_tags("v{n:05}");
	order("{\"set\": {\"link_style\": \"opaque\"}}");
	assert_int_equal(list_tags(&names), 0);
	assert_int_equal(nameset_len(names.set), PAGE * PAGES);
	assert_in_range(requests("tags/list"), PAGES, PAGES);
	nameset_unref(names.set);
}

/* A page that fails on the way is asked for in the usual way; and then it is the list's error. */
static void a_page_may_fail(void **state)
{
	(void)state;
	struct names names = {0};
	add_tags("v{n:05}");
	server_rule(&help.server, "GET", "last=v", "\"skip\": 20, \"times\": 1, \"status\": 404");
	assert_int_equal(list_tags(&names), 0);
	assert_int_equal(nameset_len(names.set), PAGE * PAGES);
	server_rule(&help.server, "GET", "last=v", "\"skip\": 20, \"status\": 403");
	assert_int_equal(list_tags(&names), -EACCES);
	nameset_unref(names.set);
}

static void the_callers_stop_is_returned(void **state)
{
	(void)state;
	struct names names = {.stop_at = 10 * PAGE};
	add_tags("v{n:05}");
	assert_int_equal(list_tags(&names), 42);
	assert_int_equal(names.given, 10 * PAGE);
	nameset_unref(names.set);
}

static void *cancel_later(void *arg)
{
	while (requests("tags/list") < 7)
		usleep(1000);
	wait_cancel(arg);
	return NULL;
}

static void it_can_be_interrupted(void **state)
{
	(void)state;
	struct names names = {0};
	pthread_t thread;
	add_tags("v{n:05}");
	server_rule(&help.server, "GET", "last=v", "\"skip\": 4, \"stall\": null");
	assert_int_equal(pthread_create(&thread, NULL, cancel_later, &help.wait), 0);
	assert_int_equal(list_tags(&names), -EINTR);
	pthread_join(thread, NULL);
	nameset_unref(names.set);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, help_setup, help_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(names_that_count_up),
		TEST(names_that_are_hashes),
		TEST(names_that_are_words),
		TEST(any_order_will_do),
		TEST(unknown_names_may_be_refused),
		TEST(opaque_links_are_followed),
		TEST(a_page_may_fail),
		TEST(the_callers_stop_is_returned),
		TEST(it_can_be_interrupted),
	};
	return cmocka_run_group_tests(tests, help_group_setup, help_group_teardown);
}
