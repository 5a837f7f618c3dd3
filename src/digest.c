/* SPDX-License-Identifier: Apache-2.0 */
/*
 * digest: "sha256:…" and hashing (OCI image-spec, descriptor.md, "Digests").
 * The only user of OpenSSL's hashes. Must not know storage.
 *
 * OpenSSL's low-level functions, not EVP, because only they show the state; they cannot fail.
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <endian.h>
#include <errno.h>
#include <openssl/sha.h>

#include "regfs/digest.h"

struct hasher {
	enum digest_algo algo;
	union {
		SHA256_CTX sha256;
		SHA512_CTX sha512;
	};
};

static const struct {
	const char *name;
	size_t len;
} algos[] = {
	[DIGEST_NONE] = {"", 0},
	[DIGEST_SHA256] = {"sha256", SHA256_DIGEST_LENGTH},
	[DIGEST_SHA512] = {"sha512", SHA512_DIGEST_LENGTH},
};

size_t digest_len(enum digest_algo algo)
{
	return algos[algo].len;
}

const char *digest_algo_name(enum digest_algo algo)
{
	return algos[algo].name;
}

/* A lower-case hex digit's value, or -1: the specification allows no other. */
static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int parse_hex(const char *hex, uint8_t *out, size_t len)
{
	if (strlen(hex) != 2 * len)
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		int high = hex_value(hex[2 * i]), low = hex_value(hex[2 * i + 1]);
		if (high < 0 || low < 0)
			return -EINVAL;
		out[i] = (uint8_t)(high << 4 | low);
	}
	return 0;
}

int digest_parse_sep(const char *str, char sep, struct digest *ret)
{
	for (enum digest_algo algo = DIGEST_SHA256; algo <= DIGEST_SHA512; algo++) {
		struct digest digest = {.algo = algo};
		size_t name_len = strlen(algos[algo].name);
		if (strncmp(str, algos[algo].name, name_len) != 0 || str[name_len] != sep)
			continue;
		if (parse_hex(str + name_len + 1, digest.bytes, algos[algo].len) != 0)
			return -EINVAL;
		*ret = digest;
		return 0;
	}
	return -EINVAL;
}

int digest_parse(const char *str, struct digest *ret)
{
	return digest_parse_sep(str, ':', ret);
}

const char *digest_hex(const struct digest *digest, char out[static DIGEST_STR_MAX])
{
	static const char digits[] = "0123456789abcdef";
	size_t len = digest_len(digest->algo);

	for (size_t i = 0; i < len; i++) {
		out[2 * i] = digits[digest->bytes[i] >> 4];
		out[2 * i + 1] = digits[digest->bytes[i] & 15];
	}
	out[2 * len] = '\0';
	return out;
}

const char *digest_format(const struct digest *digest, char out[static DIGEST_STR_MAX])
{
	char hex[DIGEST_STR_MAX];

	snprintf(out, DIGEST_STR_MAX, "%s:%.128s", digest_algo_name(digest->algo),
		 digest_hex(digest, hex));
	return out;
}

bool digest_equal(const struct digest *a, const struct digest *b)
{
	return a->algo == b->algo && memcmp(a->bytes, b->bytes, digest_len(a->algo)) == 0;
}

/* Keys that begin with KEY_HASHED are hashes, the next byte says of what: so no digest that
 * somebody makes up is another's key. */
#define KEY_HASHED     0xff
#define KEY_HASHED_LEN 3

static bool is_like_hashed(const uint8_t *bytes)
{
	static const uint8_t hashed[KEY_HASHED_LEN] = {KEY_HASHED, KEY_HASHED, KEY_HASHED};

	return memcmp(bytes, hashed, sizeof(hashed)) == 0;
}

void digest_key(const struct digest *digest, uint8_t out[static DIGEST_KEY_LEN])
{
	size_t len = digest_len(digest->algo);
	struct digest hash;

	if (len == DIGEST_KEY_LEN && !is_like_hashed(digest->bytes)) {
		memcpy(out, digest->bytes, DIGEST_KEY_LEN);
		return;
	}
	digest_of(DIGEST_SHA512, digest->bytes, len, &hash);
	memset(out, KEY_HASHED, KEY_HASHED_LEN);
	out[KEY_HASHED_LEN] = (uint8_t)digest->algo;
	memcpy(out + KEY_HASHED_LEN + 1, hash.bytes, DIGEST_KEY_LEN - KEY_HASHED_LEN - 1);
}

static void hasher_start(struct hasher *hasher)
{
	if (hasher->algo == DIGEST_SHA512)
		SHA512_Init(&hasher->sha512);
	else
		SHA256_Init(&hasher->sha256);
}

struct hasher *hasher_new(enum digest_algo algo)
{
	struct hasher *hasher = algo == DIGEST_NONE ? NULL : calloc(1, sizeof(*hasher));

	if (!hasher)
		return NULL;
	hasher->algo = algo;
	hasher_start(hasher);
	return hasher;
}

void hasher_free(struct hasher *hasher)
{
	free(hasher);
}

void hasher_cleanup(struct hasher **hasher)
{
	hasher_free(*hasher);
}

/*
 * ISA-L's checksums leave the upper halves of the vector registers in use. The processor's SHA
 * instructions know only the lower ones, and keep the rest of each register they write: hashing
 * what was just decoded then takes a third longer.
 */
#ifdef __x86_64__
__attribute__((target("avx"))) static void clear_upper_halves(void)
{
	__builtin_ia32_vzeroupper();
}

static void settle_registers(void)
{
	if (__builtin_cpu_supports("avx"))
		clear_upper_halves();
}
#else
static void settle_registers(void)
{
}
#endif

void hasher_add(struct hasher *hasher, const void *data, size_t len)
{
	settle_registers();
	if (hasher->algo == DIGEST_SHA512)
		SHA512_Update(&hasher->sha512, data, len);
	else
		SHA256_Update(&hasher->sha256, data, len);
}

void hasher_final(struct hasher *hasher, struct digest *ret)
{
	struct digest digest = {.algo = hasher->algo};

	if (hasher->algo == DIGEST_SHA512)
		SHA512_Final(digest.bytes, &hasher->sha512);
	else
		SHA256_Final(digest.bytes, &hasher->sha256);
	hasher_start(hasher);
	*ret = digest;
}

void hasher_state(const struct hasher *hasher, struct digest_state *ret)
{
	struct digest_state state = {0};
	uint64_t word64;
	uint32_t word32;

	for (size_t i = 0; i < 8; i++) {
		if (hasher->algo == DIGEST_SHA512) {
			word64 = htobe64(hasher->sha512.h[i]);
			memcpy(state.bytes + i * sizeof(word64), &word64, sizeof(word64));
		} else {
			word32 = htobe32(hasher->sha256.h[i]);
			memcpy(state.bytes + i * sizeof(word32), &word32, sizeof(word32));
		}
	}
	*ret = state;
}

void hasher_resume(struct hasher *hasher, const struct digest_state *state, uint64_t len)
{
	uint64_t word64;
	uint32_t word32;

	hasher_start(hasher);
	if (len == 0)
		return;
	for (size_t i = 0; i < 8; i++) {
		if (hasher->algo == DIGEST_SHA512) {
			memcpy(&word64, state->bytes + i * sizeof(word64), sizeof(word64));
			hasher->sha512.h[i] = be64toh(word64);
		} else {
			memcpy(&word32, state->bytes + i * sizeof(word32), sizeof(word32));
			hasher->sha256.h[i] = be32toh(word32);
		}
	}
	/* Counted in bits, in two words. */
	if (hasher->algo == DIGEST_SHA512) {
		hasher->sha512.Nl = len << 3;
		hasher->sha512.Nh = len >> 61;
	} else {
		hasher->sha256.Nl = (SHA_LONG)(len << 3);
		hasher->sha256.Nh = (SHA_LONG)(len >> 29);
	}
}

void digest_of(enum digest_algo algo, const void *data, size_t len, struct digest *ret)
{
	struct hasher hasher = {.algo = algo};

	if (algo == DIGEST_NONE) {
		*ret = (struct digest){.algo = DIGEST_NONE};
		return;
	}
	hasher_start(&hasher);
	hasher_add(&hasher, data, len);
	hasher_final(&hasher, ret);
}
