/* SPDX-License-Identifier: Apache-2.0 */
/*
 * digest: "sha256:…" and hashing (OCI image-spec, descriptor.md, "Digests").
 * The only user of OpenSSL's hashes. Must not know storage.
 *
 * sha256 and sha512 are known. Values are plain: copy them freely. Any thread; a
 * hasher belongs to one thread at a time.
 */
#ifndef REGFS_DIGEST_H
#define REGFS_DIGEST_H

#include "regfs/util.h"

enum digest_algo { DIGEST_NONE, DIGEST_SHA256, DIGEST_SHA512 };

#define DIGEST_MAX     64	     /* bytes of the longest hash */
#define DIGEST_STR_MAX (7 + 128 + 1) /* "sha512:" + hex + NUL */
#define DIGEST_KEY_LEN 32

struct digest {
	enum digest_algo algo;
	uint8_t bytes[DIGEST_MAX]; /* those past the algorithm's length are 0 */
};

size_t digest_len(enum digest_algo algo);
/* "sha256:<64 lower-case hex>" or sha512, nothing after it. 0 or -EINVAL. */
int digest_parse(const char *str, struct digest *ret);
/* ALGO-HEX and ALGO:HEX alike, as _digests/ and links spell it; SEP is the separator. */
int digest_parse_sep(const char *str, char sep, struct digest *ret);
/* Writes "sha256:<hex>"; returns OUT. */
const char *digest_format(const struct digest *digest, char out[static DIGEST_STR_MAX]);
/* The hex part alone. */
const char *digest_hex(const struct digest *digest, char out[static DIGEST_STR_MAX]);
const char *digest_algo_name(enum digest_algo algo);
bool digest_equal(const struct digest *a, const struct digest *b);
/* 32 bytes that stand for the digest in tables and file names: a sha256 itself; of anything longer,
 * and of the few sha256 that look so (they begin with three bytes 0xff), those three bytes, the
 * algorithm, and the start of a hash of it. So two digests have one key only where SHA-512, cut to
 * 224 bits, collides, whether there is a blob for them or not. */
void digest_key(const struct digest *digest, uint8_t out[static DIGEST_KEY_LEN]);

struct hasher;
/* NULL when memory is short. free takes NULL. */
struct hasher *hasher_new(enum digest_algo algo);
void hasher_free(struct hasher *hasher);
void hasher_cleanup(struct hasher **hasher);
#define AUTO_HASHER CLEANUP(hasher_cleanup)
void hasher_add(struct hasher *hasher, const void *data, size_t len);
/* The digest of all that was added; the hasher starts anew. */
void hasher_final(struct hasher *hasher, struct digest *ret);

/*
 * What SHA-2 has come to after a whole number of its blocks (FIPS 180-4, section 6). From one state
 * of a stream whose digest was right, bytes that lead to the next one are those of the stream:
 * others would be as hard to find as others with the same digest. So the states of a pass vouch for
 * its parts, and cost nothing to compute.
 */
#define HASHER_STEP 128 /* bytes; a multiple of the block of every algorithm */
struct digest_state {
	uint8_t bytes[DIGEST_MAX]; /* digest_len() of them count */
};
/* After a multiple of HASHER_STEP bytes was added. */
void hasher_state(const struct hasher *hasher, struct digest_state *ret);
/* Goes on from STATE, that after LEN bytes (a multiple of HASHER_STEP; 0: the start, STATE is not
 * looked at). */
void hasher_resume(struct hasher *hasher, const struct digest_state *state, uint64_t len);

/* In one step. */
void digest_of(enum digest_algo algo, const void *data, size_t len, struct digest *ret);

#endif
