/* SPDX-License-Identifier: Apache-2.0 */
/* test_registry_split: where a list is divided whose names are not known yet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../../src/registry_list_priv.h"

static struct list_alphabet alphabet;

static int setup(void **state)
{
	(void)state;
	list_alphabet_init(&alphabet);
	return 0;
}

/* The gap behind a page from FIRST to LAST, which ends at TO. */
static struct list_gap gap_behind(const char *first, const char *last, const char *to)
{
	struct list_gap gap = {.from = last, .to = to};
	list_alphabet_note(&alphabet, first);
	list_alphabet_note(&alphabet, last);
	list_gap_measure(&alphabet, first, last, &gap);
	gap.level = gap.turn;
	return gap;
}

static void expect_split(const struct list_gap *gap, const char *text)
{
	size_t place = 0;
	AUTO_FREE char *got = list_gap_split(&alphabet, gap, &place);
	if (!text) {
		assert_null(got);
		return;
	}
	assert_non_null(got);
	assert_string_equal(got, text);
	assert_int_equal(place, strlen(text) - 1);
}

/* The place that has begun to change; then the one before it, and so on. */
static void an_open_end_is_looked_for(void **state)
{
	(void)state;
	struct list_gap gap = gap_behind("v00000", "v00999", NULL);
	assert_int_equal(gap.turn, 3);
	expect_split(&gap, "v05");
	gap.level = 1;
	expect_split(&gap, "v5");
	gap = gap_behind("v00000", "v00399", NULL);
	expect_split(&gap, "v007");
}

static void a_gap_is_divided_at_its_leftmost_place(void **state)
{
	(void)state;
	struct list_gap gap = gap_behind("v00000", "v00999", "v07000");
	expect_split(&gap, "v04");
	gap.to = "v01";
	expect_split(&gap, NULL); /* there is no digit between, nor after the nines */
	gap = gap_behind("v00000", "v00399", "v01");
	expect_split(&gap, "v007");
}

/* Where nothing was found by varying the beginning, it is what is behind the slash. */
static void words_are_passed_over(void **state)
{
	(void)state;
	struct list_gap gap = gap_behind("data/apple1", "data/lemon1", "library/api");
	gap.floor = 1;
	expect_split(&gap, "data/o");
}

static void what_is_less_than_a_page_is_left(void **state)
{
	(void)state;
	struct list_gap gap = gap_behind("v00000", "v00999", "v00999-rc1");
	expect_split(&gap, NULL);
	gap.to = "v00500"; /* it was passed, or is not sorted */
	expect_split(&gap, NULL);
	gap = gap_behind("v00000", "", NULL);
	expect_split(&gap, NULL);
}

static void odd_names_do_no_harm(void **state)
{
	(void)state;
	char lengthy[600], later[600];
	memset(lengthy, 'a', sizeof(lengthy) - 1);
	memset(later, 'a', sizeof(later) - 1);
	lengthy[sizeof(lengthy) - 1] = later[sizeof(later) - 1] = '\0';
	later[500] = 'b';
	struct list_gap gap = gap_behind(lengthy, later, NULL);
	assert_int_equal(gap.turn, 500);
	size_t place = 0;
	AUTO_FREE char *text = list_gap_split(&alphabet, &gap, &place);
	assert_true(place < LIST_PLACES);
	gap = gap_behind("\x80\xff", "\xff\xff", NULL);
	AUTO_FREE char *other = list_gap_split(&alphabet, &gap, &place);
}

static void order_is_judged_leniently(void **state)
{
	(void)state;
	assert_true(list_is_sorted("a\0b\0c\0d\0e\0f\0g\0i\0h", 9));
	assert_false(list_is_sorted("d\0a\0c\0b", 4));
	assert_true(list_is_sorted("", 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(an_open_end_is_looked_for, setup),
		cmocka_unit_test_setup(a_gap_is_divided_at_its_leftmost_place, setup),
		cmocka_unit_test_setup(words_are_passed_over, setup),
		cmocka_unit_test_setup(what_is_less_than_a_page_is_left, setup),
		cmocka_unit_test_setup(odd_names_do_no_harm, setup),
		cmocka_unit_test_setup(order_is_judged_leniently, setup),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
