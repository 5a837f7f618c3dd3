// SPDX-License-Identifier: Apache-2.0
/*
 * Block sums: what a verified pass leaves behind, so that ranges can be checked later.
 * Knows their file in the cache. Must not know the network or who reads.
 *
 * The sum of a block is the state of the blob's own hash after it; that of the last block is the
 * digest itself. So a pass hashes its bytes once, and a block is checked by going from the state
 * before it to the one after it.
 *
 * The file: magic (8), blob size (8, LE), then the state after each block but the last. The cache's
 * CRC covers it against damage, its directory's mode against others.
 */
#include <endian.h>
#include <errno.h>

#include "blob_priv.h"
#include "regfs/log.h"

static const char magic[8] = "RFSUMS02";

#define HEAD_LEN (sizeof(magic) + sizeof(uint64_t))

_Static_assert(CACHE_BLOCK % HASHER_STEP == 0, "a hash has a state where a block ends");

static uint32_t states_of(uint64_t size)
{
	return size ? (size - 1) / CACHE_BLOCK : 0;
}

struct sums *sums_new(const struct digest *digest, uint64_t blob_size)
{
	struct sums *sums = calloc(1, sizeof(*sums));

	if (!sums)
		return NULL;
	sums->digest = *digest;
	sums->size = blob_size;
	return sums;
}

void sums_free(struct sums *sums)
{
	if (!sums)
		return;
	free(sums->states);
	free(sums);
}

static size_t state_len(const struct sums *sums)
{
	return digest_len(sums->digest.algo);
}

static uint8_t *state_after(const struct sums *sums, uint32_t nr)
{
	return sums->states + nr * state_len(sums);
}

/* Grows with what has arrived, not with the size that a manifest claims. */
int sums_reserve(struct sums *sums)
{
	if (sums->count < sums->cap)
		return 0;

	uint32_t cap = sums->cap ? sums->cap * 2 : 64;
	void *grown = realloc(sums->states, cap * state_len(sums));
	if (!grown)
		return -ENOMEM;
	sums->states = grown;
	sums->cap = cap;
	return 0;
}

void sums_add(struct sums *sums, const struct hasher *hasher)
{
	struct digest_state state;

	if (sums->count == states_of(sums->size))
		return; /* the last block's is the digest */
	hasher_state(hasher, &state);
	memcpy(state_after(sums, sums->count++), state.bytes, state_len(sums));
}

int sums_of(const struct sums *sums, uint32_t nr, const void *block, size_t len,
	    struct block_sums *ret)
{
	AUTO_HASHER struct hasher *hasher = hasher_new(sums->digest.algo);
	struct block_sums found = {.want = sums->digest, .got = sums->digest};
	struct digest_state state = {0};

	if (!hasher)
		return -ENOMEM;
	if (nr > 0)
		memcpy(state.bytes, state_after(sums, nr - 1), state_len(sums));
	hasher_resume(hasher, &state, (uint64_t)nr * CACHE_BLOCK);
	hasher_add(hasher, block, len);
	if (nr == sums->count) {
		hasher_final(hasher, &found.got);
	} else {
		hasher_state(hasher, &state);
		memcpy(found.got.bytes, state.bytes, state_len(sums));
		memcpy(found.want.bytes, state_after(sums, nr), state_len(sums));
	}
	*ret = found;
	return 0;
}

static struct cache_id sums_id(const struct digest *digest)
{
	struct cache_id id = {.kind = CACHE_SUMS};

	digest_key(digest, id.key);
	return id;
}

void sums_save(struct cache *cache, const struct sums *sums)
{
	struct cache_id id = sums_id(&sums->digest);
	size_t len = sums->count * state_len(sums);
	AUTO_BUF struct buf file = BUF_INIT(HEAD_LEN + len);
	uint64_t size = htole64(sums->size);

	if (buf_add(&file, magic, sizeof(magic)) || buf_add(&file, &size, sizeof(size)) ||
	    buf_add(&file, sums->states, len))
		return;
	cache_put(cache, &id, file.data, file.len);
}

static int sums_parse(const struct buf *file, const struct digest *digest, struct sums **ret)
{
	uint64_t size;

	if (file->len < HEAD_LEN || memcmp(file->data, magic, sizeof(magic)) != 0)
		return -EINVAL;
	memcpy(&size, file->data + sizeof(magic), sizeof(size));
	size = le64toh(size);
	size_t len = file->len - HEAD_LEN;
	if (size > BLOB_MAX_SIZE || len != states_of(size) * digest_len(digest->algo))
		return -EINVAL;

	struct sums *sums = sums_new(digest, size);
	if (!sums)
		return -ENOMEM;
	sums->count = sums->cap = states_of(size);
	sums->states = malloc(len + 1);
	if (!sums->states) {
		sums_free(sums);
		return -ENOMEM;
	}
	memcpy(sums->states, file->data + HEAD_LEN, len);
	*ret = sums;
	return 0;
}

int sums_load(struct cache *cache, const struct digest *digest, uint64_t blob_size,
	      struct sums **ret)
{
	struct cache_id id = sums_id(digest);
	size_t max = states_of(BLOB_MAX_SIZE) * digest_len(digest->algo);
	AUTO_BUF struct buf file = BUF_INIT(HEAD_LEN + max);
	struct sums *sums;

	int r = cache_get(cache, &id, &file);
	if (r == -ENOMEM)
		return r;
	if (r < 0)
		return -ENOENT;
	r = sums_parse(&file, digest, &sums);
	if (r == -EINVAL) {
		log_warn("cache: a file of block sums makes no sense and is removed");
		cache_remove(cache, &id);
		return -ENOENT;
	}
	if (r < 0)
		return r;
	if (sums->size != blob_size) {
		sums_free(sums);
		return -EIO;
	}
	*ret = sums;
	return 0;
}
