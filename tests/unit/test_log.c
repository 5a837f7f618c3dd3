/* SPDX-License-Identifier: Apache-2.0 */
/* log: no secret gets through, and the ring keeps the last 1,000 lines. */
#include <fcntl.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "regfs/log.h"

static void redacts(const char *in, const char *out)
{
	AUTO_FREE char *line = strdup(in);

	log_redact(line);
	assert_string_equal(line, out);
}

static void test_redacts_headers(void **state)
{
	(void)state;
	redacts("> Authorization: Bearer abc.def", "> Authorization: ***");
	redacts("authorization:Basic dXNlcjpwdw==", "authorization:***");
	redacts("PROXY-AUTHORIZATION: Basic dXNlcjpwdw==", "PROXY-AUTHORIZATION: ***");
	redacts("{\"Authorization\": \"Bearer abc def\", \"a\": 1}",
		"{\"Authorization\": \"***\", \"a\": 1}");
	redacts("Authorization: x", "Authorization: *");
	redacts("Authorization:", "Authorization:");
	redacts("authorization failed for team/app", "authorization failed for team/app");
}

static void test_redacts_userinfo(void **state)
{
	(void)state;
	redacts("GET https://user:pass@reg:5000/v2/ ok", "GET https://***@reg:5000/v2/ ok");
	redacts("https://token@reg/v2/", "https://***@reg/v2/");
	redacts("https://u:p@ss@reg", "https://***@reg");
	redacts("https://@reg", "https://@reg");
	redacts("https://reg/v2/a@sha256:12", "https://reg/v2/a@sha256:12");
	redacts("reg/app@sha256:12 from me@example.org", "reg/app@sha256:12 from me@example.org");
}

static void test_redacts_query(void **state)
{
	(void)state;
	redacts("see https://s3/b?X-Sig=abc&X-Date=2026 (403)",
		"see https://s3/b?X-Sig=***&X-Date=*** (403)");
	redacts("'https://s3/b?a=1;bb=22'", "'https://s3/b?a=*;bb=**'");
	redacts("\"/v2/x/uploads/1?_state=abcd\"", "\"/v2/x/uploads/1?_state=***\"");
	redacts("https://h/?flag&a=", "https://h/?flag&a=");
	redacts("https://h/?a=b=c=d e=f", "https://h/?a=*** e=f");
	redacts("why? a=1", "why? a=1");
	redacts("https://u:p@h/?a=12345 then https://u:p@h/?b=12345",
		"https://***@h/?a=*** then https://***@h/?b=***");
	redacts("", "");
	redacts("?", "?");
	redacts("://", "://");
}

static void test_level_parse(void **state)
{
	enum log_level level = LOG_LEVEL_ERROR;
	(void)state;

	assert_int_equal(log_level_parse("debug", &level), 0);
	assert_int_equal(level, LOG_LEVEL_DEBUG);
	assert_int_equal(log_level_parse("loud", &level), -EINVAL);
	assert_int_equal(log_level_parse("", &level), -EINVAL);
	assert_int_equal(level, LOG_LEVEL_DEBUG);
}

static size_t count_lines(const char *text)
{
	size_t n = 0;

	for (; (text = strchr(text, '\n')); text++)
		n++;
	return n;
}

static void test_ring_keeps_the_last_thousand(void **state)
{
	AUTO_BUF struct buf all = BUF_INIT(4 * MIB);
	AUTO_BUF struct buf tiny = BUF_INIT(10);
	uint64_t before = log_generation();
	(void)state;

	for (int i = 0; i < 1234; i++)
		log_warn("event number %d", i);
	assert_int_equal(log_generation() - before, 1234);
	assert_int_equal(log_recent(&tiny), -EFBIG);
	assert_int_equal(log_recent(&all), 0);
	assert_int_equal(count_lines(all.data), 1000);
	assert_int_equal(strlen(all.data), all.len);
	assert_null(strstr(all.data, "number 233\n"));
	assert_non_null(strstr(all.data, "number 234\n"));
	assert_true(strstr(all.data, "number 234\n") < strstr(all.data, "number 1233\n"));
	assert_true(ends_with(all.data, "Z warn event number 1233\n"));
	assert_true(all.data[4] == '-' && all.data[10] == 'T' && all.data[19] == 'Z');
}

static void test_what_is_kept(void **state)
{
	AUTO_BUF struct buf all = BUF_INIT(4 * MIB);
	AUTO_FREE char *large = malloc(100001);
	(void)state;

	memset(large, 'x', 100000);
	large[100000] = '\0';
	log_set_level(LOG_LEVEL_WARN);
	errno = EXDEV;
	log_error("line one\nline two\x1b[0m\xc2\x9b[m https://u:secret@h/");
	assert_int_equal(errno, EXDEV);
	log_info("below the level");
	log_error("%s", large);
	log_set_level(LOG_LEVEL_DEBUG);
	log_debug("at the level");
	log_set_level(LOG_LEVEL_INFO);
	assert_int_equal(log_recent(&all), 0);
	assert_non_null(strstr(all.data, " error line one line two [0m  [m https://***@h/\n"));
	assert_null(strstr(all.data, "below"));
	assert_non_null(strstr(all.data, " debug at the level\n"));
	assert_true(all.len < 200000);
	assert_int_equal(count_lines(all.data), 1000);
}

/* What the logger writes beside the ring would only drown the results. It fails, too: errno stays.
 */
static int saved_stderr = -1;

static int silence_stderr(void **state)
{
	AUTO_CLOSE int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	(void)state;

	saved_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	return saved_stderr < 0 || dup2(full, STDERR_FILENO) < 0 ? -1 : 0;
}

static int restore_stderr(void **state)
{
	AUTO_CLOSE int saved = steal_fd(&saved_stderr);
	(void)state;

	return dup2(saved, STDERR_FILENO) < 0 ? -1 : 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_redacts_headers),
		cmocka_unit_test(test_redacts_userinfo),
		cmocka_unit_test(test_redacts_query),
		cmocka_unit_test(test_level_parse),
		cmocka_unit_test_setup_teardown(test_ring_keeps_the_last_thousand, silence_stderr,
						restore_stderr),
		cmocka_unit_test_setup_teardown(test_what_is_kept, silence_stderr, restore_stderr),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
