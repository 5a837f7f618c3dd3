/* SPDX-License-Identifier: Apache-2.0 */
/* util: numbers, paths, whole reads and the hash that st_ino depends on. */
#include <fcntl.h>
#include <sys/stat.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "regfs/util.h"

static void test_parse_u64(void **state)
{
	uint64_t value = 7;
	(void)state;

	assert_true(parse_u64("0", &value) && value == 0);
	assert_true(parse_u64("18446744073709551615", &value) && value == UINT64_MAX);
	value = 7;
	assert_false(parse_u64("18446744073709551616", &value));
	assert_false(parse_u64("99999999999999999999", &value));
	assert_false(parse_u64("", &value));
	assert_false(parse_u64("-1", &value));
	assert_false(parse_u64("+1", &value));
	assert_false(parse_u64(" 1", &value));
	assert_false(parse_u64("1 ", &value));
	assert_false(parse_u64("0x10", &value));
	assert_int_equal(value, 7);
}

static void size_is(const char *str, uint64_t bytes)
{
	uint64_t value = 0;

	assert_int_equal(parse_size(str, &value), 0);
	assert_int_equal(value, bytes);
}

static void test_parse_size(void **state)
{
	static const char *const bad[] = {"", "G", "10X", "10GB", "-1", "1.5G", "16777216T", "1 G"};
	uint64_t value = 7;
	(void)state;

	size_is("123", 123);
	size_is("64K", 64 * 1024);
	size_is("512m", UINT64_C(512) << 20);
	size_is("10G", UINT64_C(10) << 30);
	size_is("16777215T", UINT64_C(16777215) << 40);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(parse_size(bad[i], &value), -EINVAL);
	assert_int_equal(value, 7);
}

static void test_starts_and_ends_with(void **state)
{
	(void)state;
	assert_true(starts_with("sha256:ab", "sha256:"));
	assert_true(starts_with("a", ""));
	assert_false(starts_with("sha", "sha256:"));
	assert_true(ends_with("x.tar.gz", ".gz"));
	assert_true(ends_with("a", ""));
	assert_false(ends_with("gz", ".gz"));
}

static void test_replace_controls(void **state)
{
	static const char *const cases[][2] = {
		{"a\nb\033[1m\x7f", "a?b?[1m?"},
		/* CSI as xterm takes it in UTF-8; letters beside it stay */
		{"a\xc2\x9b"
		 "31m",
		 "a??31m"},
		{"\xc2\x80\xc2\x9f\xc2\xa0\xc3\x9b", "????\xc2\xa0\xc3\x9b"},
		{"\xc2", "\xc2"},
		{"", ""},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		AUTO_FREE char *text = strdup(cases[i][0]);

		replace_controls(text, '?');
		assert_string_equal(text, cases[i][1]);
	}
}

static void test_format(void **state)
{
	AUTO_FREE char *str = format("%s/%d", "a", 7);
	(void)state;

	assert_string_equal(str, "a/7");
}

static void test_clocks_advance(void **state)
{
	int64_t start = now_ms();
	(void)state;

	while (now_ms() == start)
		;
	assert_true(now_ms() > start);
	assert_true(wall_ms() > INT64_C(1700000000000)); /* so: milliseconds */
}

/* A temporary directory with room for names in it; the test removes what it made. */
static char dir[] = "/tmp/regfs-util-XXXXXX";

static int make_dir_for_tests(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir_of_tests(void **state)
{
	(void)state;
	return rmdir(dir);
}

static void test_make_dirs(void **state)
{
	AUTO_FREE char *a = format("%s/a", dir);
	AUTO_FREE char *deep = format("%s/a/b//c/", dir);
	AUTO_FREE char *c = format("%s/a/b/c", dir);
	AUTO_FREE char *b = format("%s/a/b", dir);
	AUTO_FREE char *file = format("%s/file", dir);
	AUTO_FREE char *below = format("%s/file/x", dir);
	struct stat st;
	(void)state;

	assert_int_equal(make_dirs(deep, 0700), 0);
	assert_int_equal(make_dirs(deep, 0700), 0);
	assert_int_equal(stat(c, &st), 0);
	assert_int_equal(st.st_mode, S_IFDIR | 0700);
	assert_int_equal(make_dirs("/", 0700), 0);
	assert_int_equal(mknod(file, S_IFREG | 0600, 0), 0);
	assert_int_equal(make_dirs(file, 0700), -ENOTDIR);
	assert_int_equal(make_dirs(below, 0700), -ENOTDIR);
	unlink(file);
	rmdir(c);
	rmdir(b);
	rmdir(a);
}

static void test_read_file(void **state)
{
	AUTO_FREE char *path = format("%s/file", dir);
	AUTO_FREE char *data = NULL;
	AUTO_FREE char *big = malloc(100000);
	char *untouched = NULL;
	size_t len = 0;
	(void)state;

	memset(big, 'x', 100000);
	{
		AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		assert_int_equal(pwrite_full(fd, big, 100000, 0), 100000);
		assert_int_equal(pwrite_full(fd, "end", 3, 100000), 3);
		assert_int_equal(pread_full(fd, big, 100, 99999), 4);
		assert_memory_equal(big, "xend", 4);
		assert_int_equal(pread_full(fd, big, 100, 200000), 0);
	}
	assert_int_equal(read_file(path, 100002, &untouched, &len), -EFBIG);
	assert_int_equal(read_file(path, 10, &untouched, &len), -EFBIG);
	assert_null(untouched);
	assert_int_equal(read_file(path, 100003, &data, &len), 0);
	assert_int_equal(len, 100003);
	assert_int_equal(strlen(data), 100003);
	assert_string_equal(data + 99999, "xend");
	unlink(path);
	assert_int_equal(read_file(path, 10, &untouched, &len), -ENOENT);
	assert_int_equal(pread_full(-1, big, 1, 0), -EBADF);
}

static void test_read_empty_file(void **state)
{
	AUTO_FREE char *data = NULL;
	size_t len = 7;
	(void)state;

	assert_int_equal(read_file("/dev/null", 0, &data, &len), 0);
	assert_int_equal(len, 0);
	assert_string_equal(data, "");
}

static void test_hash_is_stable(void **state)
{
	(void)state;
	/* st_ino depends on these: they must never change. */
	assert_int_equal(hash64(0, "", 0), UINT64_C(0xc25f6ff3bd4de572));
	assert_int_equal(hash64(0, "regfs", 5), UINT64_C(0xe68f1e9cc859d9ce));
	assert_int_equal(hash64(1, "sixteen bytes!!!", 16), UINT64_C(0x8de12687965adabe));
}

static void test_hash_tells_apart(void **state)
{
	(void)state;
	assert_true(hash64(0, "a", 1) != hash64(0, "a\0", 2));
	assert_true(hash64(0, "a", 1) != hash64(1, "a", 1));
	assert_true(hash64(0, "ab", 2) != hash64(0, "ba", 2));
	assert_true(hash64(hash64(0, "a", 1), "b", 1) != hash64(hash64(0, "b", 1), "a", 1));
}

/* Each input bit flips each output bit in about half of the cases. */
static void test_hash_avalanche(void **state)
{
	enum { ROUNDS = 400, BYTES = 20 };
	static unsigned flips[BYTES * 8][64];
	(void)state;

	for (uint64_t round = 0; round < ROUNDS; round++) {
		uint8_t data[BYTES];
		for (size_t i = 0; i < BYTES; i++)
			data[i] = (uint8_t)hash64(round, &i, sizeof(i));
		uint64_t before = hash64(0, data, BYTES);
		for (size_t bit = 0; bit < BYTES * 8; bit++) {
			data[bit / 8] ^= (uint8_t)(1u << bit % 8);
			uint64_t changed = before ^ hash64(0, data, BYTES);
			data[bit / 8] ^= (uint8_t)(1u << bit % 8);
			for (size_t out = 0; out < 64; out++)
				flips[bit][out] += changed >> out & 1;
		}
	}
	for (size_t bit = 0; bit < BYTES * 8; bit++) {
		for (size_t out = 0; out < 64; out++) {
			assert_in_range(flips[bit][out], ROUNDS / 4, ROUNDS * 3 / 4);
		}
	}
}

/* RFC 4648, section 10, and what is not base64. */
static void test_base64(void **state)
{
	static const char *const cases[][2] = {
		{"", ""},
		{"f", "Zg=="},
		{"fo", "Zm8="},
		{"foo", "Zm9v"},
		{"foob", "Zm9vYg=="},
		{"fooba", "Zm9vYmE="},
		{"foobar", "Zm9vYmFy"},
		{"\xc3\xa4\xff", "w6T/"},
	};
	static const char *const wrong[] = {
		"Z", "Zg=", "Z===", "====", "Zm9v=", "Zm 9", "Zm9v\n", "Zm9-", "=Zm9", "Zg==Zg=="};
	char *text;
	size_t len;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		AUTO_FREE char *encoded = base64_encode(cases[i][0], strlen(cases[i][0]));

		assert_string_equal(encoded, cases[i][1]);
		assert_int_equal(base64_decode(encoded, &text, &len), 0);
		assert_string_equal(text, cases[i][0]);
		assert_int_equal(len, strlen(cases[i][0]));
		free(text);
	}
	assert_int_equal(base64_decode("Zm8", &text, &len), 0);
	assert_string_equal(text, "fo");
	free(text);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		if (base64_decode(wrong[i], &text, &len) != -EINVAL)
			fail_msg("%s", wrong[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_base64),
		cmocka_unit_test(test_parse_u64),
		cmocka_unit_test(test_parse_size),
		cmocka_unit_test(test_starts_and_ends_with),
		cmocka_unit_test(test_replace_controls),
		cmocka_unit_test(test_format),
		cmocka_unit_test(test_clocks_advance),
		cmocka_unit_test(test_make_dirs),
		cmocka_unit_test(test_read_file),
		cmocka_unit_test(test_read_empty_file),
		cmocka_unit_test(test_hash_is_stable),
		cmocka_unit_test(test_hash_tells_apart),
		cmocka_unit_test(test_hash_avalanche),
	};
	return cmocka_run_group_tests(tests, make_dir_for_tests, remove_dir_of_tests);
}
