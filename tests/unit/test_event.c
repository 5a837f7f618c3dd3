/* SPDX-License-Identifier: Apache-2.0 */
/* event: all subscribers get all events, in order, on another thread. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>

#include "regfs/event.h"

struct record {
	char text[4000];
	pthread_t thread;
	int count;
};

static void note(void *arg, const struct event *event)
{
	static const char *const kinds[] = {
		[EVENT_TAG] = "tag",
		[EVENT_IMAGE] = "image",
		[EVENT_TAGS] = "tags",
		[EVENT_REPOS] = "repos",
	};
	struct record *record = arg;
	size_t len = strlen(record->text);

	snprintf(record->text + len, sizeof(record->text) - len, "%s %s %s %s;", kinds[event->kind],
		 event->host, event->repo ? event->repo : "-", event->name ? event->name : "-");
	record->thread = pthread_self();
	record->count++;
}

static void test_delivers_in_order_to_all(void **state)
{
	struct events *events = events_new();
	struct record a = {.count = 0}, b = {.count = 0};
	char repo[] = "team/app";
	(void)state;

	assert_int_equal(events_subscribe(events, note, &a), 0);
	assert_int_equal(events_subscribe(events, note, &b), 0);
	events_publish(events, &(struct event){EVENT_TAG, "reg:5000", repo, "1.5"});
	events_publish(events, &(struct event){EVENT_TAGS, "reg:5000", repo, NULL});
	/* The strings were copied: */
	memset(repo, 'x', sizeof(repo) - 1);
	events_publish(events, &(struct event){EVENT_REPOS, "reg:5000", NULL, NULL});
	events_free(events);
	assert_string_equal(
		a.text, "tag reg:5000 team/app 1.5;tags reg:5000 team/app -;repos reg:5000 - -;");
	assert_string_equal(b.text, a.text);
	assert_false(pthread_equal(a.thread, pthread_self()));
}

static void test_nobody_listens(void **state)
{
	struct events *events = events_new();
	(void)state;

	events_publish(events, &(struct event){EVENT_REPOS, "h", NULL, NULL});
	events_free(events);
	events_free(NULL);
}

static void *publish_many(void *arg)
{
	for (int i = 0; i < 500; i++)
		events_publish(arg, &(struct event){EVENT_TAG, "h", "r", "t"});
	return NULL;
}

static void test_any_thread_may_publish(void **state)
{
	struct events *events = events_new();
	struct record record = {.count = 0};
	pthread_t threads[4];
	(void)state;

	assert_int_equal(events_subscribe(events, note, &record), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, publish_many, events), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	events_free(events);
	assert_int_equal(record.count, 2000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_delivers_in_order_to_all),
		cmocka_unit_test(test_nobody_listens),
		cmocka_unit_test(test_any_thread_may_publish),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
