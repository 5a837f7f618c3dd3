/* SPDX-License-Identifier: Apache-2.0 */
/*
 * digest: "sha256:…" and hashing (OCI image-spec, descriptor.md, "Digests").
 * The only user of OpenSSL's EVP. Must not know storage.
 */
#include <errno.h>
#include <openssl/evp.h>

#include "regfs/digest.h"

struct hasher {
	EVP_MD_CTX *ctx;
	enum digest_algo algo;
	bool failed; /* OpenSSL refused something: the result must not look like a digest */
};

static const struct {
	const char *name;
	size_t len;
	const EVP_MD *(*md)(void);
} algos[] = {
	[DIGEST_NONE] = {"", 0, NULL},
	[DIGEST_SHA256] = {"sha256", 32, EVP_sha256},
	[DIGEST_SHA512] = {"sha512", 64, EVP_sha512},
};

size_t digest_len(enum digest_algo algo)
{
	return algos[algo].len;
}

/* NULL for DIGEST_NONE: OpenSSL then refuses. */
static const EVP_MD *md_of(enum digest_algo algo)
{
	return algos[algo].md ? algos[algo].md() : NULL;
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

void digest_key(const struct digest *digest, uint8_t out[static DIGEST_KEY_LEN])
{
	struct digest key = *digest;

	if (digest_len(digest->algo) > DIGEST_KEY_LEN)
		digest_of(DIGEST_SHA256, digest->bytes, digest_len(digest->algo), &key);
	memcpy(out, key.bytes, DIGEST_KEY_LEN);
}

struct hasher *hasher_new(enum digest_algo algo)
{
	AUTO_HASHER struct hasher *hasher = calloc(1, sizeof(*hasher));

	if (!hasher)
		return NULL;
	hasher->algo = algo;
	hasher->ctx = EVP_MD_CTX_new();
	if (!hasher->ctx || !EVP_DigestInit_ex(hasher->ctx, md_of(algo), NULL))
		return NULL;
	return STEAL(hasher);
}

void hasher_free(struct hasher *hasher)
{
	if (!hasher)
		return;
	EVP_MD_CTX_free(hasher->ctx);
	free(hasher);
}

void hasher_cleanup(struct hasher **hasher)
{
	hasher_free(*hasher);
}

void hasher_add(struct hasher *hasher, const void *data, size_t len)
{
	if (!EVP_DigestUpdate(hasher->ctx, data, len))
		hasher->failed = true;
}

void hasher_final(struct hasher *hasher, struct digest *ret)
{
	struct digest digest = {.algo = hasher->algo};

	if (!EVP_DigestFinal_ex(hasher->ctx, digest.bytes, NULL) || hasher->failed)
		digest = (struct digest){.algo = DIGEST_NONE};
	hasher->failed = !EVP_DigestInit_ex(hasher->ctx, md_of(hasher->algo), NULL);
	*ret = digest;
}

void digest_of(enum digest_algo algo, const void *data, size_t len, struct digest *ret)
{
	struct digest digest = {.algo = algo};

	if (!EVP_Digest(data, len, digest.bytes, NULL, md_of(algo), NULL))
		digest = (struct digest){.algo = DIGEST_NONE};
	*ret = digest;
}
