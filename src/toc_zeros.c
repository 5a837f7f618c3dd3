// SPDX-License-Identifier: Apache-2.0
/*
 * toc_zeros: whether pieces that a table calls zeros have the digests that it gives them.
 * Knows nothing of files, nor of the blob, in which they need no bytes: nobody would look
 * otherwise.
 *
 * The digests of all lengths come from one run over as many zeros as the longest piece has.
 */
#include <errno.h>

#include "toc_priv.h"

static int by_length(const void *left, const void *right)
{
	const struct index_chunk *a = *(const struct index_chunk *const *)left;
	const struct index_chunk *b = *(const struct index_chunk *const *)right;

	return (a->len > b->len) - (a->len < b->len);
}

static bool has_digest(const struct index_chunk *chunk)
{
	static const uint8_t none[DIGEST_KEY_LEN];

	return memcmp(chunk->digest, none, sizeof(none)) != 0;
}

struct zeros {
	struct hasher *run;  /* has AT of them, a multiple of HASHER_STEP */
	struct hasher *last; /* goes on from there */
	uint64_t at;
};

static void zeros_release(struct zeros *zeros)
{
	hasher_free(zeros->run);
	hasher_free(zeros->last);
}

/* Of LEN zeros, no fewer than before. */
static void zeros_digest(struct zeros *zeros, uint64_t len, struct digest *ret)
{
	static const uint8_t nothing[64 * KIB];
	uint64_t whole = len - len % HASHER_STEP;
	struct digest_state state;

	while (zeros->at < whole) {
		size_t n = MIN(whole - zeros->at, sizeof(nothing));

		hasher_add(zeros->run, nothing, n);
		zeros->at += n;
	}
	hasher_state(zeros->run, &state);
	hasher_resume(zeros->last, &state, zeros->at);
	hasher_add(zeros->last, nothing, len - whole);
	hasher_final(zeros->last, ret);
}

int toc_zeros_check(const struct index_chunk *chunks, size_t n)
{
	AUTO_FREE const struct index_chunk **said = calloc(n + 1, sizeof(*said));
	CLEANUP(zeros_release)
	struct zeros zeros = {.run = hasher_new(DIGEST_SHA256), .last = hasher_new(DIGEST_SHA256)};
	size_t count = 0;

	if (!said || !zeros.run || !zeros.last)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		if (chunks[i].in_len == 0 && has_digest(&chunks[i]))
			said[count++] = &chunks[i];
	if (count)
		qsort(said, count, sizeof(*said), by_length);
	for (size_t i = 0; i < count; i++) {
		struct digest digest;

		zeros_digest(&zeros, said[i]->len, &digest);
		if (memcmp(digest.bytes, said[i]->digest, DIGEST_KEY_LEN) != 0)
			return -EINVAL;
	}
	return 0;
}
