/* SPDX-License-Identifier: Apache-2.0 */
/* test_toml: what is understood of TOML v1.0.0, and what is refused, with line and words. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "regfs/buf.h"
#include "regfs/toml.h"

static struct toml *root;

static const struct toml *parse(const char *text)
{
	struct toml_error error = {0};
	toml_free(STEAL(root));
	int err = toml_parse(text, strlen(text), &root, &error);
	if (err)
		print_message("line %u: %s\n", error.line, error.why ? error.why : "");
	assert_int_equal(err, 0);
	return root;
}

static int tidy(void **state)
{
	(void)state;
	toml_free(STEAL(root));
	return 0;
}

static void refused(const char *text, unsigned line, const char *words)
{
	struct toml_error error = {0};
	struct toml *none = NULL;
	assert_int_equal(toml_parse(text, strlen(text), &none, &error), -EINVAL);
	assert_null(none);
	if (!strstr(error.why, words) || error.line != line)
		print_message("%s: line %u: %s\n", text, error.line, error.why);
	assert_non_null(strstr(error.why, words));
	assert_int_equal(error.line, line);
}

/* The value at a path of bare keys. */
static const struct toml *at(const char *path)
{
	const struct toml *value = root;
	while (value && *path) {
		size_t len = strcspn(path, ".");
		AUTO_FREE char *key = strndup(path, len);
		value = toml_get(value, key);
		path += len + (path[len] == '.');
	}
	return value;
}

static void is_string(const char *path, const char *expected)
{
	assert_non_null(toml_string(at(path)));
	assert_string_equal(toml_string(at(path)), expected);
}

static void is_integer(const char *path, int64_t expected)
{
	int64_t got;
	assert_true(toml_integer(at(path), &got));
	assert_true(got == expected);
}

static void reads_registries_conf(void **state)
{
	(void)state;
	parse("# comment\n"
	      "unqualified-search-registries = [\"example.com\"] # another\n"
	      "\n"
	      "[[registry]]\r\n"
	      "prefix = \"example.com/foo\"\n"
	      "insecure = false\n"
	      "[[registry.mirror]]\n"
	      "location = 'one.local/foo'\n"
	      "  [[registry.mirror]]\n"
	      "  location = \"two.local\"\n"
	      "  insecure = true\n"
	      "[[registry]]\n"
	      "location = \"registry.com\"\n"
	      "[aliases]\n"
	      "\"alpine\" = \"docker.io/library/alpine\"\n"
	      "\"team/app\" = \"\"");
	const struct toml *registry = toml_first(at("registry"));
	assert_string_equal(toml_string(toml_get(registry, "prefix")), "example.com/foo");
	assert_int_equal(toml_line(registry), 4);
	const struct toml *mirror = toml_first(toml_get(registry, "mirror"));
	assert_string_equal(toml_string(toml_get(mirror, "location")), "one.local/foo");
	mirror = toml_next(mirror);
	bool insecure = false;
	assert_true(toml_boolean(toml_get(mirror, "insecure"), &insecure));
	assert_true(insecure);
	assert_null(toml_next(mirror));
	registry = toml_next(registry);
	assert_string_equal(toml_string(toml_get(registry, "location")), "registry.com");
	assert_null(toml_get(registry, "mirror"));
	is_string("aliases.alpine", "docker.io/library/alpine");
	assert_string_equal(toml_key(toml_next(toml_first(at("aliases")))), "team/app");
}

static void reads_hosts_toml(void **state)
{
	(void)state;
	parse("server = \"https://docker.io\"\n"
	      "[host.\"https://m.example:5000\"]\n"
	      "  capabilities = [\"pull\",\n"
	      "    # only this\n"
	      "    \"resolve\",\n"
	      "  ]\n"
	      "  client = [[\"a.cert\", \"a.key\"], [\"b.pem\", \"\"]]\n"
	      "  [host.\"https://m.example:5000\".header]\n"
	      "    x-one = [\"a\", \"b\"]\n"
	      "[host.'http://n']\n"
	      "skip_verify = true\n");
	const struct toml *host = toml_first(at("host"));
	assert_string_equal(toml_key(host), "https://m.example:5000");
	const struct toml *capability = toml_first(toml_get(host, "capabilities"));
	assert_string_equal(toml_string(toml_next(capability)), "resolve");
	assert_null(toml_next(toml_next(capability)));
	const struct toml *pair = toml_first(toml_get(host, "client"));
	assert_string_equal(toml_string(toml_next(toml_first(pair))), "a.key");
	assert_non_null(toml_get(toml_get(host, "header"), "x-one"));
	assert_string_equal(toml_key(toml_next(host)), "http://n");
}

static void reads_strings(void **state)
{
	(void)state;
	parse("a = \"x\\t\\\"\\\\\\u00e9\\U0001F600\"\n"
	      "b = 'x\\t\"'\n"
	      "c = \"\"\"\n"
	      "one\n"
	      "two \\\n"
	      "   three \"\"quoted\"\"\"\"\"\n"
	      "d = '''\r\n"
	      "a'b\r\n"
	      "'''\n"
	      "e = ''\n"
	      "f = ''''''\n"
	      "g = 1");
	is_string("a", "x\t\"\\\xc3\xa9\xf0\x9f\x98\x80");
	is_string("b", "x\\t\"");
	is_string("c", "one\ntwo three \"\"quoted\"\"");
	is_string("d", "a'b\n");
	is_string("e", "");
	is_string("f", "");
	/* Lines are counted in strings, too. */
	assert_int_equal(toml_line(at("g")), 12);
}

static void reads_numbers_and_booleans(void **state)
{
	(void)state;
	parse("a = 0\nb = -9223372036854775808\nc = +1_000\nd = 0xDEAD_beef\ne = 0o755\n"
	      "f = 0b101\ng = true\nh = 9223372036854775807");
	is_integer("a", 0);
	is_integer("b", INT64_MIN);
	is_integer("c", 1000);
	is_integer("d", 0xdeadbeef);
	is_integer("e", 0755);
	is_integer("f", 5);
	is_integer("h", INT64_MAX);
	bool yes = false;
	assert_true(toml_boolean(at("g"), &yes));
	assert_true(yes);
	assert_false(toml_boolean(at("a"), &yes));
	assert_null(toml_string(at("a")));
	int64_t number;
	assert_false(toml_integer(at("g"), &number));
}

static void reads_tables(void **state)
{
	(void)state;
	parse("a.b . \"c\" = 1\n"
	      "a.b.d = {x = 1, y.z = [{}, {k = 'v'}]}\n"
	      "[t.u]\n"
	      "k = 1\n"
	      "[t]\n"
	      "k = 2\n"
	      "[t.v.w]\n"
	      "k = 3\n"
	      "[[l]]\n"
	      "[l.sub]\n"
	      "k = 4\n"
	      "[a.b.new]\n"
	      "k = 5\n");
	is_integer("a.b.c", 1);
	is_integer("a.b.d.x", 1);
	assert_int_equal(toml_kind(at("a.b.d.y.z")), TOML_ARRAY);
	is_integer("t.u.k", 1);
	is_integer("t.k", 2);
	is_integer("t.v.w.k", 3);
	is_integer("a.b.new.k", 5);
	assert_non_null(toml_get(toml_first(at("l")), "sub"));
	parse("");
	assert_null(toml_first(root));
	assert_null(toml_get(NULL, "x"));
}

static void refuses_what_is_twice(void **state)
{
	(void)state;
	refused("a = 1\na = 2\n", 2, "defined already");
	refused("[a]\n[a]\n", 2, "defined already");
	refused("a.b = 1\n[a]\n", 2, "defined already");
	refused("[a.b]\n[a]\nb.c = 1\n", 3, "defined already");
	refused("a = {b = 1}\na.c = 2\n", 2, "defined already");
	refused("a = {b = 1}\n[a.c]\n", 2, "no table");
	refused("a = {b = 1, b = 2}\n", 1, "defined already");
	refused("a = []\n[[a]]\n", 2, "no array of tables");
	refused("[[a]]\n[a]\n", 2, "defined already");
	refused("a = 1\n[a.b]\n", 2, "no table");
}

static void refuses_what_it_does_not_know(void **state)
{
	(void)state;
	refused("\na = 1.5\n", 2, "not supported");
	refused("a = inf\n", 1, "not supported");
	refused("a = 1979-05-27\n", 1, "not supported");
	refused("a = 1e5\n", 1, "not supported");
	refused("a = yes\n", 1, "not supported");
	refused("a = 01\n", 1, "not supported");
	refused("a = 9223372036854775808\n", 1, "not supported");
	refused("a = 1__0\n", 1, "not supported");
	refused("a = 0x\n", 1, "not supported");
	refused("a = \"\\u0000\"\n", 1, "NUL");
	refused("a = \"\\q\"\n", 1, "escape");
	refused("a = \"\\ud800\"\n", 1, "no character");
	refused("a = \"\\u12\"\n", 1, "digits");
}

static void refuses_what_is_broken(void **state)
{
	(void)state;
	refused("\n\na\n", 3, "without =");
	refused("a = \n", 1, "missing");
	refused("= 1\n", 1, "key is missing");
	refused("a = \"x\nb = 1\n", 1, "does not end");
	refused("a = '''x\n\n", 3, "does not end");
	refused("a = [1, 2\nb = 3\n", 2, "array");
	refused("a = [1, 2", 1, "array");
	refused("a = {b = 1,}\n", 1, "key is missing");
	refused("a = {b = 1\n}\n", 1, "inline table");
	refused("a = 1 b = 2\n", 1, "a line of its own");
	refused("[a\nb = 1\n", 1, "does not end with ]");
	refused("[[a]\n", 1, "does not end with ]");
	refused("[]\n", 1, "key is missing");
	refused("\"\"\"a\"\"\" = 1\n", 1, "several lines");
	refused("# \x01\n", 1, "control");
	refused("a = \"\x01\"\n", 1, "control");
	refused("a = '''\x7f'''\n", 1, "control");
}

static void text_ends_where_it_is_said(void **state)
{
	(void)state;
	struct toml_error error = {0};
	struct toml *none = NULL;
	assert_int_equal(toml_parse("a = 1\0", 6, &none, &error), -EINVAL);
	assert_non_null(strstr(error.why, "NUL"));
	assert_int_equal(toml_parse("a = 123", 5, &root, &error), 0);
	is_integer("a", 1);
}

static void is_bounded(void **state)
{
	(void)state;
	AUTO_BUF struct buf text = BUF_INIT(4 * MIB);
	assert_int_equal(buf_puts(&text, "a = "), 0);
	for (int i = 0; i < 100000; i++)
		assert_int_equal(buf_puts(&text, "["), 0);
	refused(text.data, 1, "too deep");
	buf_clear(&text);
	for (int i = 0; i < TOML_DEPTH_MAX; i++)
		assert_int_equal(buf_puts(&text, "a."), 0);
	buf_puts(&text, "a = 1");
	refused(text.data, 1, "too many parts");
	buf_clear(&text);
	buf_puts(&text, "a = [");
	for (int i = 0; i < TOML_VALUES_MAX; i++)
		assert_int_equal(buf_puts(&text, "1,"), 0);
	refused(text.data, 1, "too many values");
	buf_clear(&text);
	buf_puts(&text, "#");
	while (text.len <= TOML_TEXT_MAX)
		assert_int_equal(buf_puts(&text, "0123456789abcdef"), 0);
	refused(text.data, 1, "1 MiB");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(reads_registries_conf, tidy),
		cmocka_unit_test_teardown(reads_hosts_toml, tidy),
		cmocka_unit_test_teardown(reads_strings, tidy),
		cmocka_unit_test_teardown(reads_numbers_and_booleans, tidy),
		cmocka_unit_test_teardown(reads_tables, tidy),
		cmocka_unit_test(refuses_what_is_twice),
		cmocka_unit_test(refuses_what_it_does_not_know),
		cmocka_unit_test(refuses_what_is_broken),
		cmocka_unit_test_teardown(text_ends_where_it_is_said, tidy),
		cmocka_unit_test(is_bounded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
