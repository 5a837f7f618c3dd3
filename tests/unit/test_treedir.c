// SPDX-License-Identifier: Apache-2.0
/* treedir: symlinks that stay in their tree. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "regfs/treedir.h"

static void test_targets(void **state)
{
	static const struct {
		const char *target;
		unsigned depth;
		const char *expected;
	} cases[] = {
		{"/etc/x", 0, "etc/x"},
		{"/etc/x", 1, "../etc/x"},
		{"/etc/x", 3, "../../../etc/x"},
		{"/", 0, "."},
		{"/", 2, "../.."},
		{"//etc//x/", 1, "../etc/x"},
		{"/./x", 0, "./x"},
		/* up from the root is the root */
		{"/../x", 1, "../x"},
		{"/a/../../x", 0, "a/../x"},
		{"../x", 0, "x"},
		{"../../x", 1, "../x"},
		{"../a/../../x", 1, "../a/../x"},
		{"..", 0, "."},
		/* the rest stays */
		{"x", 0, "x"},
		{"a/../b", 0, "a/../b"},
		{"../lib/x", 2, "../lib/x"},
		{"..x/...", 0, "..x/..."},
		{"", 1, "."},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		AUTO_FREE char *got = NULL;

		assert_int_equal(treedir_target(cases[i].target, cases[i].depth, &got), 0);
		assert_string_equal(got, cases[i].expected);
	}
}

static void test_too_long(void **state)
{
	char *got = NULL;

	(void)state;
	assert_int_equal(treedir_target("/x", 40000, &got), -ENAMETOOLONG);
	assert_null(got);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_targets),
		cmocka_unit_test(test_too_long),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
