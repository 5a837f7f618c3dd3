/* SPDX-License-Identifier: Apache-2.0 */
/* digest: what is one, and known answers (FIPS 180-4). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "regfs/digest.h"

#define EMPTY_256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define ABC_256	  "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define ABC_512                                                                                    \
	"ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"                         \
	"2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"

static void test_parse_and_format(void **state)
{
	struct digest digest;
	char str[DIGEST_STR_MAX];
	(void)state;

	assert_int_equal(digest_parse("sha256:" ABC_256, &digest), 0);
	assert_int_equal(digest.algo, DIGEST_SHA256);
	assert_int_equal(digest.bytes[0], 0xba);
	assert_int_equal(digest.bytes[31], 0xad);
	assert_int_equal(digest.bytes[32], 0);
	assert_string_equal(digest_format(&digest, str), "sha256:" ABC_256);
	assert_string_equal(digest_hex(&digest, str), ABC_256);
	assert_int_equal(digest_parse("sha512:" ABC_512, &digest), 0);
	assert_string_equal(digest_format(&digest, str), "sha512:" ABC_512);
	assert_int_equal(digest_parse_sep("sha256-" ABC_256, '-', &digest), 0);
	assert_string_equal(digest_format(&digest, str), "sha256:" ABC_256);
}

static void test_refuses(void **state)
{
	static const char *const bad[] = {
		"",
		"sha256",
		"sha256:",
		"sha256:abc",
		ABC_256,
		"sha256:" ABC_256 "0",
		"sha256:" ABC_256 "\n",
		" sha256:" ABC_256,
		"sha256-" ABC_256,
		"SHA256:" ABC_256,
		"sha512:" ABC_256,
		"sha256:" ABC_512,
		"md5:900150983cd24fb0d6963f7d28e17f72",
		"sha256:BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD",
		"sha256:ga7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
	};
	struct digest digest = {.algo = DIGEST_NONE};
	(void)state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(digest_parse(bad[i], &digest), -EINVAL);
	assert_int_equal(digest_parse_sep("sha256:" ABC_256, '-', &digest), -EINVAL);
	assert_int_equal(digest.algo, DIGEST_NONE);
}

static void is(const struct digest *digest, const char *expected)
{
	char str[DIGEST_STR_MAX];

	assert_string_equal(digest_format(digest, str), expected);
}

static void test_hashes(void **state)
{
	struct digest digest;
	(void)state;

	digest_of(DIGEST_SHA256, "", 0, &digest);
	is(&digest, "sha256:" EMPTY_256);
	digest_of(DIGEST_SHA256, "abc", 3, &digest);
	is(&digest, "sha256:" ABC_256);
	digest_of(DIGEST_SHA512, "abc", 3, &digest);
	is(&digest, "sha512:" ABC_512);
}

static void test_hasher_starts_anew(void **state)
{
	AUTO_HASHER struct hasher *hasher = hasher_new(DIGEST_SHA256);
	struct digest digest;
	(void)state;

	assert_non_null(hasher);
	hasher_add(hasher, "a", 1);
	hasher_add(hasher, "", 0);
	hasher_add(hasher, "bc", 2);
	hasher_final(hasher, &digest);
	is(&digest, "sha256:" ABC_256);
	hasher_final(hasher, &digest);
	is(&digest, "sha256:" EMPTY_256);
	hasher_add(hasher, "abc", 3);
	hasher_final(hasher, &digest);
	is(&digest, "sha256:" ABC_256);
}

static void test_no_algorithm_gives_no_digest(void **state)
{
	struct digest digest = {.algo = DIGEST_SHA256};
	(void)state;

	assert_null(hasher_new(DIGEST_NONE));
	digest_of(DIGEST_NONE, "abc", 3, &digest);
	assert_int_equal(digest.algo, DIGEST_NONE);
	hasher_free(NULL);
}

static void test_equal(void **state)
{
	struct digest a, b, c;
	(void)state;

	digest_of(DIGEST_SHA256, "a", 1, &a);
	digest_of(DIGEST_SHA256, "a", 1, &b);
	digest_of(DIGEST_SHA512, "a", 1, &c);
	assert_true(digest_equal(&a, &b));
	assert_false(digest_equal(&a, &c));
	b.bytes[31] ^= 1;
	assert_false(digest_equal(&a, &b));
}

static void test_key(void **state)
{
	uint8_t key[DIGEST_KEY_LEN], other[DIGEST_KEY_LEN];
	struct digest digest, longer, hashed;
	(void)state;

	digest_of(DIGEST_SHA256, "a", 1, &digest);
	digest_key(&digest, key);
	assert_memory_equal(key, digest.bytes, DIGEST_KEY_LEN);
	digest_of(DIGEST_SHA512, "a", 1, &longer);
	digest_of(DIGEST_SHA256, longer.bytes, 64, &hashed);
	digest_key(&longer, key);
	/* not that of a sha256 that is made of a part of it */
	assert_memory_not_equal(key, longer.bytes, DIGEST_KEY_LEN);
	/* nor that of the blob whose bytes the digest is */
	assert_memory_not_equal(key, hashed.bytes, DIGEST_KEY_LEN);
	/* nor that of a sha256 that is made up to be it */
	memcpy(digest.bytes, key, DIGEST_KEY_LEN);
	digest_key(&digest, other);
	assert_memory_not_equal(key, other, DIGEST_KEY_LEN);
	/* nor that one's */
	memcpy(hashed.bytes, other, DIGEST_KEY_LEN);
	digest_key(&hashed, key);
	assert_memory_not_equal(key, other, DIGEST_KEY_LEN);
	digest_key(&longer, key);
	longer.bytes[63] ^= 1;
	digest_key(&longer, other);
	assert_memory_not_equal(key, other, DIGEST_KEY_LEN);
}

/* From any state on, the same bytes come to the same states and digest; others do not. */
static void test_states(void **state)
{
	static const enum digest_algo algos[] = {DIGEST_SHA256, DIGEST_SHA512};
	const size_t step = 4096, steps = 5, rest = 77;
	AUTO_FREE uint8_t *data = malloc(step * steps + rest);

	(void)state;
	assert_non_null(data);
	for (size_t i = 0; i < step * steps + rest; i++)
		data[i] = (uint8_t)(i * i >> 3 ^ i >> 12);
	for (size_t a = 0; a < 2; a++) {
		AUTO_HASHER struct hasher *whole = hasher_new(algos[a]);
		struct digest_state at[6] = {0}, reached;
		struct digest want, got;

		for (size_t i = 0; i < steps; i++) {
			hasher_add(whole, data + i * step, step);
			hasher_state(whole, &at[i + 1]);
		}
		hasher_add(whole, data + step * steps, rest);
		hasher_final(whole, &got);
		digest_of(algos[a], data, step * steps + rest, &want);
		assert_true(digest_equal(&want, &got));
		for (size_t i = 0; i < steps; i++) {
			AUTO_HASHER struct hasher *part = hasher_new(algos[a]);

			hasher_resume(part, &at[i], i * step);
			hasher_add(part, data + i * step, step);
			hasher_state(part, &reached);
			assert_memory_equal(&reached, &at[i + 1], digest_len(algos[a]));
			hasher_resume(part, &at[i], i * step);
			hasher_add(part, data, step);
			hasher_state(part, &reached);
			assert_int_equal(memcmp(&reached, &at[i + 1], digest_len(algos[a])) == 0,
					 i == 0);
		}
		hasher_resume(whole, &at[steps], step * steps);
		hasher_add(whole, data + step * steps, rest);
		hasher_final(whole, &got);
		assert_true(digest_equal(&want, &got));
	}
}

/* A count past 2^32 bits goes into the padding as it should. */
static void test_state_far_on(void **state)
{
	const uint64_t far = 513 * MIB;
	AUTO_FREE uint8_t *data = calloc(1, MIB);
	AUTO_HASHER struct hasher *whole = hasher_new(DIGEST_SHA256);
	struct digest_state at;
	struct digest want, got;

	(void)state;
	assert_non_null(data);
	for (uint64_t off = 0; off < far; off += MIB)
		hasher_add(whole, data, MIB);
	hasher_state(whole, &at);
	hasher_add(whole, data, 100);
	hasher_final(whole, &want);
	hasher_resume(whole, &at, far);
	hasher_add(whole, data, 100);
	hasher_final(whole, &got);
	assert_true(digest_equal(&want, &got));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse_and_format),
		cmocka_unit_test(test_refuses),
		cmocka_unit_test(test_hashes),
		cmocka_unit_test(test_hasher_starts_anew),
		cmocka_unit_test(test_no_algorithm_gives_no_digest),
		cmocka_unit_test(test_equal),
		cmocka_unit_test(test_key),
		cmocka_unit_test(test_states),
		cmocka_unit_test(test_state_far_on),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
