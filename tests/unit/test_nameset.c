/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "regfs/nameset.h"

static struct nameset *set_of(const char *const *names)
{
	struct nameset *set = nameset_new();

	assert_non_null(set);
	for (; *names; names++)
		assert_int_equal(nameset_add(set, *names), 0);
	nameset_seal(set);
	return set;
}

static void test_sorted_without_repetition(void **state)
{
	const char *const names[] = {"b", "a", "b", "a-b", "a/c", NULL};
	const char *const want[] = {"a", "a-b", "a/c", "b"};
	struct nameset *set = set_of(names);

	(void)state;
	assert_int_equal(nameset_len(set), 4);
	for (size_t i = 0; i < 4; i++)
		assert_string_equal(nameset_at(set, i), want[i]);
	assert_true(nameset_has(set, "a-b"));
	assert_false(nameset_has(set, "a-"));
	assert_int_equal(nameset_lower(set, "a0"), 3);
	nameset_unref(set);
}

static void test_made_of_others(void **state)
{
	const char *const names[] = {"b", "d", NULL}, *const more[] = {"a", "d", NULL};
	struct nameset *set = set_of(names), *other = set_of(more);
	struct nameset *with = nameset_with(set, "c"), *same = nameset_with(set, "b");
	struct nameset *without = nameset_without(set, "b"), *one = nameset_with(NULL, "x");
	struct nameset *both = nameset_union(set, other), *none = nameset_union(NULL, NULL);
	struct nameset *alone[] = {nameset_union(set, NULL), nameset_union(NULL, set)};

	(void)state;
	assert_int_equal(nameset_len(with), 3);
	assert_string_equal(nameset_at(with, 1), "c");
	assert_true(nameset_equal(same, set));
	assert_int_equal(nameset_len(without), 1);
	assert_true(nameset_has(without, "d"));
	assert_true(nameset_has(one, "x"));
	assert_int_equal(nameset_len(both), 3);
	assert_true(nameset_has(both, "a") && nameset_has(both, "b") && nameset_has(both, "d"));
	assert_null(none);
	assert_ptr_equal(alone[0], set);
	assert_ptr_equal(alone[1], set);
	struct nameset *all[] = {set, other, with, same, without, one, both, alone[0], alone[1]};
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		nameset_unref(all[i]);
}

/* '-' and '.' sort before '/', so what lies below a prefix need not follow it. */
static void test_children(void **state)
{
	const char *const names[] = {"team",	     "team-x",	   "team.y/z", "team/app",
				     "team/app/web", "team/app-2", "teams",    NULL};
	const char *const want[] = {"app", "app-2"};
	struct nameset *set = set_of(names);
	struct nameset *below = nameset_children(set, "team");
	struct nameset *top = nameset_children(set, "");

	(void)state;
	assert_int_equal(nameset_len(below), 2);
	for (size_t i = 0; i < 2; i++)
		assert_string_equal(nameset_at(below, i), want[i]);
	assert_int_equal(nameset_len(top), 4);
	assert_true(nameset_has_under(set, "team/app"));
	assert_true(nameset_has_under(set, "team.y"));
	assert_false(nameset_has_under(set, "tea"));
	assert_false(nameset_has_under(set, "team/a"));
	nameset_unref(below);
	nameset_unref(top);
	nameset_unref(set);
}

static void test_null_is_empty(void **state)
{
	(void)state;
	assert_int_equal(nameset_len(NULL), 0);
	assert_false(nameset_has(NULL, "a"));
	assert_false(nameset_has_under(NULL, ""));
	nameset_unref(NULL);
}

static void test_equal(void **state)
{
	const char *const one[] = {"a", "b", NULL};
	const char *const two[] = {"b", "a", "a", NULL};
	const char *const other[] = {"a", "c", NULL};
	struct nameset *a = set_of(one), *b = set_of(two), *c = set_of(other);

	(void)state;
	assert_true(nameset_equal(a, b));
	assert_false(nameset_equal(a, c));
	assert_false(nameset_equal(a, NULL));
	nameset_unref(a);
	nameset_unref(b);
	nameset_unref(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sorted_without_repetition),
		cmocka_unit_test(test_made_of_others),
		cmocka_unit_test(test_children),
		cmocka_unit_test(test_null_is_empty),
		cmocka_unit_test(test_equal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
