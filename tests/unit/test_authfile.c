/* SPDX-License-Identifier: Apache-2.0 */
/* test_authfile: docker's and podman's credential files as text; which entry serves which
 * repository. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "regfs/authfile.h"

#define ANN "YW5uOnNlY3JldA==" /* ann:secret */
#define BOB "Ym9iOnc6dw=="     /* bob:w:w */

static struct authfile parse(const char *json, enum authfile_form form)
{
	struct authfile file = {0};
	const char *why = "";

	if (authfile_parse(json, strlen(json), form, &file, &why))
		fail_msg("%s: %s", json, why);
	return file;
}

static void entries_are_read(void **state)
{
	CLEANUP(authfile_release)
	struct authfile file = parse("{\"auths\": {\"a.io\": {\"auth\": \"" BOB "\"},"
				     "\"b.io\": {\"username\": \"u\", \"password\": \"p\"},"
				     "\"c.io\": {\"auth\": \"MDA6\", \"identitytoken\": \"id\"},"
				     "\"d.io\": {\"registrytoken\": \"reg\"},"
				     "\"e.io\": {}, \"f.io\": {\"auth\": \"PHRva2VuPjppZA==\"},"
				     "\"g.io\": {\"auth\": \"dTpwAAA=\"}},"
				     "\"HttpHeaders\": {\"x\": [1]}}",
				     AUTHFILE_CONFIG);
	const struct authfile_entry *entries = file.entries;

	(void)state;
	assert_int_equal(file.nentries, 7);
	assert_string_equal(entries[0].user, "bob");
	assert_string_equal(entries[0].password, "w:w");
	assert_string_equal(entries[1].user, "u");
	assert_string_equal(entries[1].password, "p");
	assert_string_equal(entries[2].identity_token, "id");
	assert_string_equal(entries[2].user, "00");
	assert_string_equal(entries[2].password, "");
	assert_string_equal(entries[3].registry_token, "reg");
	assert_true(authfile_entry_is_empty(&entries[4]));
	assert_string_equal(entries[5].identity_token, "id"); /* <token>:id */
	assert_null(entries[5].user);
	assert_string_equal(entries[6].password, "p"); /* NULs at the end */
}

static void a_bad_entry_spoils_no_other(void **state)
{
	CLEANUP(authfile_release)
	struct authfile file = parse("{\"auths\": {\"a.io\": {\"auth\": \"%%%\"}, \"b.io\": 7,"
				     "\"c.io\": {\"auth\": \"bm9jb2xvbg==\"},"
				     "\"d.io\": {\"auth\": \"" ANN "\"}}}",
				     AUTHFILE_CONFIG);

	(void)state;
	for (size_t i = 0; i < 3; i++)
		assert_non_null(file.entries[i].why);
	assert_null(file.entries[3].why);
	assert_string_equal(file.entries[3].user, "ann");
}

static void nonsense_is_refused(void **state)
{
	static const char *const cases[] = {
		"",
		"nonsense",
		"[]",
		"7",
		"{\"auths\": []}",
		"{\"auths\": {\"a.io\": {\"auth\": 7}}}",
		"{\"auths\": {}, \"auths\": {}}",
		"{\"credsStore\": 7}",
		"{\"credsStore\": \"../../bin/sh\"}",
		"{\"credHelpers\": {\"a.io\": \"x y\"}}",
		"{\"credHelpers\": {\"a.io\": null}}",
		"{\"auths\": {\"a.io\": {}}",
	};
	AUTO_FREE char *deep = malloc(200001);
	struct authfile file;
	const char *why;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		why = NULL;
		if (authfile_parse(cases[i], strlen(cases[i]), AUTHFILE_CONFIG, &file, &why) !=
			    -EINVAL ||
		    !why)
			fail_msg("%s", cases[i]);
	}
	memset(deep, '[', 100000);
	memset(deep + 100000, ']', 100000);
	assert_int_equal(authfile_parse(deep, 200000, AUTHFILE_CONFIG, &file, &why), -EINVAL);
}

static void keys_name_hosts(void **state)
{
	static const char *const cases[][2] = {
		{"quay.io", "quay.io"},
		{"Quay.IO/team/app", "quay.io"},
		{"https://index.docker.io/v1/", "docker.io"},
		{"index.docker.io/v1/", "docker.io"},
		{"registry-1.docker.io", "docker.io"},
		{"http://localhost:5000/v2/", "localhost:5000"},
		{"[::1]:5000", "[::1]:5000"},
		{"token", NULL},
		{"", NULL},
		{"/a", NULL},
		{"local", NULL},
		{"https://", NULL},
		{"a b.io", NULL},
	};
	char host[REF_HOST_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		bool found = authfile_key_host(cases[i][0], host);

		if (found != !!cases[i][1] || (found && strcmp(host, cases[i][1]) != 0))
			fail_msg("%s", cases[i][0]);
	}
}

static void the_most_specific_entry_serves(void **state)
{
	CLEANUP(authfile_release)
	struct authfile file = parse("{\"auths\": {\"q.io\": {\"auth\": \"" ANN "\"},"
				     "\"q.io/team/\": {\"auth\": \"" ANN "\"},"
				     "\"q.io/team/app\": {\"auth\": \"" ANN "\"},"
				     "\"q.io/void\": {},"
				     "\"https://url.io/v1/\": {\"auth\": \"" ANN "\"},"
				     "\"old.io/v1/\": {\"auth\": \"" ANN "\"},"
				     "\"only.io/team\": {\"auth\": \"" ANN "\"},"
				     "\"https://index.docker.io/v1/\": {\"auth\": \"" ANN "\"}}}",
				     AUTHFILE_CONFIG);
	static const struct {
		const char *host, *repo, *key;
	} cases[] = {
		{"q.io", "team/app", "q.io/team/app"},
		{"q.io", "team/app/sub", "q.io/team/app"},
		{"q.io", "team/apple", "q.io/team/"},
		{"q.io", "team", "q.io/team/"},
		{"q.io", "teams", "q.io"},
		{"q.io", "void", "q.io"},
		{"q.io", NULL, "q.io"},
		{"q.io:443", "team", NULL},
		{"url.io", "x", "https://url.io/v1/"},
		{"old.io", "x", "old.io/v1/"},
		{"only.io", "other", NULL},
		{"only.io", NULL, NULL},
		{"docker.io", "library/alpine", "https://index.docker.io/v1/"},
		{"https://index.docker.io/v1/", NULL, "https://index.docker.io/v1/"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct authfile_choice choice;

		authfile_choose(&file, cases[i].host, cases[i].repo, &choice);
		if (!choice.entry != !cases[i].key ||
		    (choice.entry && strcmp(choice.entry->key, cases[i].key) != 0))
			fail_msg("%s/%s", cases[i].host, cases[i].repo ?: "");
		assert_null(choice.helper);
	}
}

static void helpers_go_first(void **state)
{
	CLEANUP(authfile_release)
	struct authfile file = parse("{\"auths\": {\"a.io\": {\"auth\": \"" ANN "\"},"
				     "\"a.io/team\": {\"auth\": \"" ANN "\"},"
				     "\"b.io\": {\"auth\": \"" ANN "\"},"
				     "\"b.io/team\": {\"auth\": \"" ANN "\"}, \"http://c.io\": {}},"
				     "\"credsStore\": \"store\","
				     "\"credHelpers\": {\"a.io\": \"own\", \"d.io\": \"\"}}",
				     AUTHFILE_CONFIG);
	static const struct {
		const char *host, *repo, *helper, *helper_key, *key;
	} cases[] = {
		{"a.io", "team", "own", "a.io", NULL},
		{"b.io", "x", "store", "b.io", "b.io"},
		{"b.io", "team/x", NULL, NULL, "b.io/team"},
		{"c.io", NULL, "store", "http://c.io", NULL},
		{"d.io", NULL, NULL, NULL, NULL},
		{"e.io", NULL, "store", "e.io", NULL},
		{"docker.io", NULL, "store", "https://index.docker.io/v1/", NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct authfile_choice choice;

		authfile_choose(&file, cases[i].host, cases[i].repo, &choice);
		assert_string_equal(choice.helper ?: "-", cases[i].helper ?: "-");
		assert_string_equal(choice.helper_key ?: "-", cases[i].helper_key ?: "-");
		assert_string_equal(choice.entry ? choice.entry->key : "-", cases[i].key ?: "-");
	}
}

static void the_oldest_form_is_read(void **state)
{
	CLEANUP(authfile_release)
	struct authfile file = parse("{\"https://index.docker.io/v1/\": {\"auth\": \"" ANN
				     "\", \"email\": \"x\"}}",
				     AUTHFILE_LEGACY);
	struct authfile_choice choice;

	(void)state;
	authfile_choose(&file, "docker.io", NULL, &choice);
	assert_string_equal(choice.entry->user, "ann");
}

/* --- writing --- */

static char *set(const char *previous, const char *host, char *user, char *password)
{
	const struct authfile_entry entry = {.user = user, .password = password};
	struct buf text = BUF_INIT(AUTHFILE_MAX);

	assert_int_equal(
		authfile_set(previous, previous ? strlen(previous) : 0, host, &entry, &text), 0);
	return buf_steal(&text, NULL);
}

static void a_new_file_is_made(void **state)
{
	AUTO_FREE char *text = set(NULL, "q.io", "ann", "secret");
	AUTO_FREE char *hub = set("", "docker.io", "ann", "secret");

	(void)state;
	assert_string_equal(text, "{\n\t\"auths\":\t{\n\t\t\"q.io\":\t{\n\t\t\t\"auth\":\t\"" ANN
				  "\"\n\t\t}\n\t}\n}\n");
	assert_non_null(strstr(hub, "\"https://index.docker.io/v1/\""));
}

static void all_else_stays(void **state)
{
	static const char before[] =
		"{\"psFormat\": \"{{.Names}}\", \"n\": 9007199254740991, \"auths\": {\"a.io\": "
		"{\"auth\": \"" BOB "\", \"email\": \"e\"}, \"q.io\": {\"auth\": \"" BOB
		"\", \"note\": [1, null, 1.5], \"identitytoken\": \"old\"}, \"q.io/team\": "
		"{\"auth\": \"" BOB "\"}}, \"credsStore\": \"x\"}";
	AUTO_FREE char *text = set(before, "q.io", "ann", "secret");
	CLEANUP(authfile_release) struct authfile file = parse(text, AUTHFILE_CONFIG);

	(void)state;
	assert_non_null(strstr(text, "\"psFormat\":\t\"{{.Names}}\""));
	assert_non_null(strstr(text, "9007199254740991"));
	assert_non_null(strstr(text, "[1, null, 1.5]"));
	assert_non_null(strstr(text, "\"email\":\t\"e\""));
	assert_null(strstr(text, "old"));
	assert_string_equal(file.store, "x");
	assert_int_equal(file.nentries, 3);
	assert_string_equal(file.entries[0].user, "bob");
	assert_string_equal(file.entries[1].user, "ann");
	assert_string_equal(file.entries[2].user, "bob");
}

/* Of what size they ever are: none is rounded, cut off, or written as what is no JSON. */
static void numbers_stay(void **state)
{
	static const char before[] =
		"{\"a\": 2147483648, \"b\": -2147483649, \"c\": 1e300, \"d\": 1e999, \"e\": "
		"[-1e999], \"f\": 0.1, \"auths\": {\"a.io\": {\"x\": "
		"666666666666666666666666666666666666666}}}";
	AUTO_FREE char *text = set(before, "q.io", "ann", "secret");
	AUTO_FREE char *again = set(text, "q.io", "ann", "secret");

	(void)state;
	assert_non_null(strstr(text, "2147483648,"));
	assert_non_null(strstr(text, "-2147483649,"));
	assert_non_null(strstr(text, "1e+300,"));
	assert_non_null(strstr(text, "\t1e999,"));
	assert_non_null(strstr(text, "[-1e999]"));
	assert_non_null(strstr(text, "0.1,"));
	assert_non_null(strstr(text, "6.6666666666666665e+38"));
	assert_string_equal(text, again);
}

/* Docker Hub under two names would be found by chance. */
static void other_names_of_the_host_go(void **state)
{
	AUTO_FREE char *text = set("{\"auths\": {\"docker.io\": {\"auth\": \"" BOB
				   "\"}, \"https://index.docker.io/v1/\": {\"auth\": \"" BOB
				   "\"}}}",
				   "docker.io", "ann", "secret");
	CLEANUP(authfile_release) struct authfile file = parse(text, AUTHFILE_CONFIG);

	(void)state;
	assert_int_equal(file.nentries, 1);
	assert_string_equal(file.entries[0].key, "docker.io");
	assert_string_equal(file.entries[0].user, "ann");
}

static void what_a_helper_keeps_leaves_an_empty_entry(void **state)
{
	AUTO_FREE char *text = set("{\"auths\": {\"q.io\": {\"auth\": \"" BOB "\"}}}", "q.io", NULL,
				   NULL);
	CLEANUP(authfile_release) struct authfile file = parse(text, AUTHFILE_CONFIG);

	(void)state;
	assert_int_equal(file.nentries, 1);
	assert_true(authfile_entry_is_empty(&file.entries[0]));
}

static void entries_are_removed(void **state)
{
	static const char before[] =
		"{\"auths\": {\"http://q.io/v1/\": {}, \"q.io\": {\"auth\": \"" BOB
		"\"}, \"q.io/team\": {}, \"a.io\": {}}}";
	AUTO_BUF struct buf text = BUF_INIT(AUTHFILE_MAX);

	(void)state;
	assert_int_equal(authfile_unset(before, strlen(before), "none.io", &text), -ENOENT);
	assert_int_equal(authfile_unset(before, strlen(before), "q.io", &text), 0);
	CLEANUP(authfile_release) struct authfile file = parse(text.data, AUTHFILE_CONFIG);
	assert_int_equal(file.nentries, 2);
	assert_string_equal(file.entries[0].key, "q.io/team");
	assert_string_equal(file.entries[1].key, "a.io");
}

static void what_is_not_understood_is_not_written(void **state)
{
	static const char *const cases[] = {"nonsense", "[]", "{\"auths\": 7}", "{\"auths\": {}"};
	const struct authfile_entry entry = {.user = (char *)"u", .password = (char *)"p"};
	AUTO_BUF struct buf text = BUF_INIT(AUTHFILE_MAX);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(authfile_set(cases[i], strlen(cases[i]), "q.io", &entry, &text),
				 -EINVAL);
	assert_int_equal(authfile_set(NULL, 0, "nohost", &entry, &text), -EINVAL);
	assert_int_equal(text.len, 0);
}

/* --- helpers --- */

static void helpers_are_understood(void **state)
{
	static const char plain[] = "{\"ServerURL\":\"x\",\"Username\":\"u\",\"Secret\":\"s\"}\n";
	static const char token[] = "{\"Username\":\"<token>\",\"Secret\":\"id\"}";
	static const char *const wrong[] = {"",
					    "garbage",
					    "{}",
					    "[]",
					    "{\"Username\":\"u\"}",
					    "{\"Username\":\"u\",\"Secret\":7}"};
	static const char none[] = "{\"Username\":\"\",\"Secret\":\"\"}";
	CLEANUP(authfile_entry_release) struct authfile_entry entry = {0};

	(void)state;
	assert_int_equal(authfile_helper_parse(none, strlen(none), &entry), -ENOENT);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(authfile_helper_parse(wrong[i], strlen(wrong[i]), &entry),
				 -EINVAL);
	assert_int_equal(authfile_helper_parse(token, strlen(token), &entry), 0);
	assert_null(entry.user);
	assert_string_equal(entry.identity_token, "id");
	authfile_entry_release(&entry);
	assert_int_equal(authfile_helper_parse(plain, strlen(plain), &entry), 0);
	assert_string_equal(entry.user, "u");
	assert_string_equal(entry.password, "s");
}

static void helpers_are_told(void **state)
{
	const struct authfile_entry entry = {.user = (char *)"a\"b", .password = (char *)"p\n"};
	AUTO_BUF struct buf text = BUF_INIT(AUTHFILE_MAX);
	CLEANUP(authfile_entry_release) struct authfile_entry got = {0};

	(void)state;
	assert_int_equal(authfile_helper_write("q.io", &entry, &text), 0);
	assert_non_null(strstr(text.data, "\"ServerURL\":\t\"q.io\""));
	assert_int_equal(authfile_helper_parse(text.data, text.len, &got), 0);
	assert_string_equal(got.user, "a\"b");
	assert_string_equal(got.password, "p\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(entries_are_read),
		cmocka_unit_test(a_bad_entry_spoils_no_other),
		cmocka_unit_test(nonsense_is_refused),
		cmocka_unit_test(keys_name_hosts),
		cmocka_unit_test(the_most_specific_entry_serves),
		cmocka_unit_test(helpers_go_first),
		cmocka_unit_test(the_oldest_form_is_read),
		cmocka_unit_test(a_new_file_is_made),
		cmocka_unit_test(all_else_stays),
		cmocka_unit_test(numbers_stay),
		cmocka_unit_test(other_names_of_the_host_go),
		cmocka_unit_test(what_a_helper_keeps_leaves_an_empty_entry),
		cmocka_unit_test(entries_are_removed),
		cmocka_unit_test(what_is_not_understood_is_not_written),
		cmocka_unit_test(helpers_are_understood),
		cmocka_unit_test(helpers_are_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
