/* SPDX-License-Identifier: Apache-2.0 */
/* buf: the cap is exact, failure changes nothing, JSON strings are well-formed UTF-8. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "regfs/buf.h"

static void test_grows_and_keeps_a_nul(void **state)
{
	AUTO_BUF struct buf buf = BUF_INIT(100000);
	(void)state;

	assert_null(buf.data);
	for (int i = 0; i < 10000; i++)
		assert_int_equal(buf_printf(&buf, "%d,", i % 10), 0);
	assert_int_equal(buf.len, 20000);
	assert_int_equal(strlen(buf.data), 20000);
	assert_memory_equal(buf.data + 19996, "8,9,", 5);
}

static void test_cap_is_exact_and_failure_changes_nothing(void **state)
{
	AUTO_BUF struct buf buf = BUF_INIT(5);
	(void)state;

	assert_int_equal(buf_puts(&buf, "abc"), 0);
	assert_int_equal(buf_puts(&buf, "def"), -EFBIG);
	assert_int_equal(buf_printf(&buf, "%d", 1000), -EFBIG);
	assert_string_equal(buf.data, "abc");
	assert_int_equal(buf_puts(&buf, "de"), 0);
	assert_string_equal(buf.data, "abcde");
	assert_int_equal(buf_add(&buf, "", 0), 0);
	assert_int_equal(buf_add(&buf, "x", 1), -EFBIG);
	assert_int_equal(buf_reserve(&buf, SIZE_MAX), -EFBIG);
}

static void test_empty_addition_makes_a_string(void **state)
{
	AUTO_BUF struct buf buf = BUF_INIT(0);
	(void)state;

	assert_int_equal(buf_add(&buf, NULL, 0), 0);
	assert_string_equal(buf.data, "");
}

static void test_clear_keeps_memory_release_does_not(void **state)
{
	struct buf buf = BUF_INIT(10);
	(void)state;

	assert_int_equal(buf_puts(&buf, "abc"), 0);
	char *data = buf.data;
	buf_clear(&buf);
	assert_ptr_equal(buf.data, data);
	assert_string_equal(buf.data, "");
	assert_int_equal(buf_puts(&buf, "0123456789"), 0);
	buf_release(&buf);
	assert_null(buf.data);
	assert_int_equal(buf_puts(&buf, "xy"), 0);
	assert_string_equal(buf.data, "xy");
	buf_release(&buf);
}

static void test_steal(void **state)
{
	struct buf buf = BUF_INIT(10);
	size_t len = 99;
	(void)state;

	assert_null(buf_steal(&buf, &len));
	assert_int_equal(len, 0);
	assert_int_equal(buf_puts(&buf, "abc"), 0);
	char *data = buf_steal(&buf, &len);
	assert_string_equal(data, "abc");
	assert_int_equal(len, 3);
	assert_null(buf.data);
	assert_int_equal(buf.len, 0);
	free(data);
}

static void json_is(const char *in, const char *out)
{
	AUTO_BUF struct buf buf = BUF_INIT(1000);

	assert_int_equal(buf_json_string(&buf, in), 0);
	assert_string_equal(buf.data, out);
}

static void test_json_string(void **state)
{
	(void)state;
	json_is("", "\"\"");
	json_is("a \"b\" \\ /", "\"a \\\"b\\\" \\\\ /\"");
	json_is("\n\t\r\b\f\x01\x1f", "\"\\n\\t\\r\\b\\f\\u0001\\u001f\"");
	json_is("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\xb3",
		"\"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\xb3\"");
}

#define BAD "\xef\xbf\xbd"

static void test_json_string_replaces_what_is_not_utf8(void **state)
{
	(void)state;
	json_is("a\xff"
		"b",
		"\"a" BAD "b\"");
	json_is("\xc3", "\"" BAD "\"");
	json_is("\xe2\x82", "\"" BAD BAD "\"");
	json_is("\xc0\xaf", "\"" BAD BAD "\"");			/* overlong */
	json_is("\xe0\x80\x80", "\"" BAD BAD BAD "\"");		/* overlong */
	json_is("\xed\xa0\x80", "\"" BAD BAD BAD "\"");		/* surrogate */
	json_is("\xf4\x90\x80\x80", "\"" BAD BAD BAD BAD "\""); /* above U+10FFFF */
}

static void test_json_string_undone_on_failure(void **state)
{
	AUTO_BUF struct buf buf = BUF_INIT(6);
	(void)state;

	assert_int_equal(buf_puts(&buf, "ab"), 0);
	assert_int_equal(buf_json_string(&buf, "cdef"), -EFBIG);
	assert_string_equal(buf.data, "ab");
	assert_int_equal(buf.len, 2);
	assert_int_equal(buf_json_string(&buf, "cd"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_grows_and_keeps_a_nul),
		cmocka_unit_test(test_cap_is_exact_and_failure_changes_nothing),
		cmocka_unit_test(test_empty_addition_makes_a_string),
		cmocka_unit_test(test_clear_keeps_memory_release_does_not),
		cmocka_unit_test(test_steal),
		cmocka_unit_test(test_json_string),
		cmocka_unit_test(test_json_string_replaces_what_is_not_utf8),
		cmocka_unit_test(test_json_string_undone_on_failure),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
