/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process was told of a tag: whom it concerns, and for how long.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../src/names_priv.h"

#define NOW 5000

static void it_stays_for_who_was_told(void **state)
{
	struct host host = {.name = (char *)"local"}, other = host;
	const struct glimpse key = {.host = &host, .repo = "app", .tag = "1", .pid = 7};
	const struct glimpse others[] = {
		{.host = &other, .repo = "app", .tag = "1", .pid = 7},
		{.host = &host, .repo = "ap", .tag = "p1", .pid = 7},
		{.host = &host, .repo = "app", .tag = "2", .pid = 7},
		{.host = &host, .repo = "app", .tag = "1", .pid = 8},
	};
	struct glimpses *glimpses = glimpses_new();

	(void)state;
	assert_false(glimpses_has(glimpses, &key, NOW));
	glimpses_add(glimpses, &key, NOW);
	assert_true(glimpses_has(glimpses, &key, NOW));
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		assert_false(glimpses_has(glimpses, &others[i], NOW));
	glimpses_free(glimpses);
}

static void it_is_over_after_two_seconds(void **state)
{
	const struct glimpse key = {.repo = "app", .tag = "1", .pid = 7};
	struct glimpses *glimpses = glimpses_new();

	(void)state;
	glimpses_add(glimpses, &key, NOW);
	assert_true(glimpses_has(glimpses, &key, NOW + 1999));
	assert_false(glimpses_has(glimpses, &key, NOW + 2000));
	glimpses_add(glimpses, &key, NOW);
	glimpses_forget(glimpses);
	assert_false(glimpses_has(glimpses, &key, NOW));
	glimpses_free(glimpses);
}

/* The kernel tells none of a process outside of its view. */
static void nobody_is_not_told(void **state)
{
	const struct glimpse key = {.repo = "app", .tag = "1"};
	struct glimpses *glimpses = glimpses_new();

	(void)state;
	glimpses_add(glimpses, &key, NOW);
	assert_false(glimpses_has(glimpses, &key, NOW));
	glimpses_free(glimpses);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_stays_for_who_was_told),
		cmocka_unit_test(it_is_over_after_two_seconds),
		cmocka_unit_test(nobody_is_not_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
