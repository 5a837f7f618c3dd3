/* SPDX-License-Identifier: Apache-2.0 */
/* stats: each counter by itself, from any thread. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>

#include "regfs/stats.h"

static void test_names_are_all_there(void **state)
{
	(void)state;
	for (int id = 0; id < STAT_COUNT; id++) {
		assert_true(stats_name((enum stat_id)id)[0] != '\0');
		assert_true(stats_help((enum stat_id)id)[0] != '\0');
	}
	assert_string_equal(stats_name(STAT_PUSHES), "pushes");
	assert_string_equal(stats_name(STAT_HTTP_REQUESTS), "http_requests");
}

static void *add_many(void *arg)
{
	for (int i = 0; i < 10000; i++) {
		stats_add(STAT_PASSES, 1);
		stats_add(STAT_HTTP_NOW, i % 2 ? -1 : 1);
	}
	return arg;
}

static void test_adds_from_any_thread(void **state)
{
	pthread_t threads[4];
	int64_t passes = stats_get(STAT_PASSES), now = stats_get(STAT_HTTP_NOW);
	int64_t other = stats_get(STAT_PASS_BYTES);
	(void)state;

	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, add_many, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(stats_get(STAT_PASSES) - passes, 40000);
	assert_int_equal(stats_get(STAT_HTTP_NOW), now);
	assert_int_equal(stats_get(STAT_PASS_BYTES), other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_are_all_there),
		cmocka_unit_test(test_adds_from_any_thread),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
