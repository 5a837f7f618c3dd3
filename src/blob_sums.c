// SPDX-License-Identifier: Apache-2.0
/*
 * Block sums: what a verified pass leaves behind, so that ranges can be checked later.
 * Knows their file in the cache. Must not know the network or who reads.
 *
 * The file: magic (8), blob size (8, LE), then SHA-256 of each block. The cache's CRC
 * covers it against damage, its directory's mode against others.
 */
#include <endian.h>
#include <errno.h>

#include "blob_priv.h"
#include "regfs/log.h"

static const char magic[8] = "RFSUMS01";

#define HEAD_LEN (sizeof(magic) + sizeof(uint64_t))

static uint32_t blocks_of(uint64_t size)
{
	return (size + CACHE_BLOCK - 1) / CACHE_BLOCK;
}

struct sums *sums_new(uint64_t blob_size)
{
	struct sums *sums = calloc(1, sizeof(*sums));

	if (sums)
		sums->size = blob_size;
	return sums;
}

void sums_free(struct sums *sums)
{
	if (!sums)
		return;
	free(sums->sum);
	free(sums);
}

/* Grows with what has arrived, not with the size that a manifest claims. */
int sums_reserve(struct sums *sums)
{
	if (sums->nblocks < sums->cap)
		return 0;

	uint32_t cap = sums->cap ? sums->cap * 2 : 64;
	void *grown = realloc(sums->sum, (size_t)cap * SUM_LEN);
	if (!grown)
		return -ENOMEM;
	sums->sum = grown;
	sums->cap = cap;
	return 0;
}

void sums_add(struct sums *sums, const void *block, size_t len)
{
	struct digest digest;

	digest_of(DIGEST_SHA256, block, len, &digest);
	memcpy(sums->sum[sums->nblocks++], digest.bytes, SUM_LEN);
}

bool sums_match(const struct sums *sums, uint32_t nr, const void *block, size_t len)
{
	struct digest digest;

	digest_of(DIGEST_SHA256, block, len, &digest);
	return nr < sums->nblocks && memcmp(sums->sum[nr], digest.bytes, SUM_LEN) == 0;
}

static struct cache_id sums_id(const uint8_t key[static DIGEST_KEY_LEN])
{
	struct cache_id id = {.kind = CACHE_SUMS};

	memcpy(id.key, key, DIGEST_KEY_LEN);
	return id;
}

void sums_save(struct cache *cache, const uint8_t key[static DIGEST_KEY_LEN],
	       const struct sums *sums)
{
	struct cache_id id = sums_id(key);
	AUTO_BUF struct buf file = BUF_INIT(HEAD_LEN + (size_t)sums->nblocks * SUM_LEN);
	uint64_t size = htole64(sums->size);

	if (buf_add(&file, magic, sizeof(magic)) || buf_add(&file, &size, sizeof(size)) ||
	    buf_add(&file, sums->sum, (size_t)sums->nblocks * SUM_LEN))
		return;
	cache_put(cache, &id, file.data, file.len);
}

static int sums_parse(const struct buf *file, struct sums **ret)
{
	uint64_t size;

	if (file->len < HEAD_LEN || memcmp(file->data, magic, sizeof(magic)) != 0)
		return -EINVAL;
	memcpy(&size, file->data + sizeof(magic), sizeof(size));
	size = le64toh(size);
	if (size > BLOB_MAX_SIZE || file->len != HEAD_LEN + (size_t)blocks_of(size) * SUM_LEN)
		return -EINVAL;

	struct sums *sums = sums_new(size);
	if (!sums)
		return -ENOMEM;
	sums->nblocks = sums->cap = blocks_of(size);
	sums->sum = malloc((size_t)sums->nblocks * SUM_LEN + 1);
	if (!sums->sum) {
		sums_free(sums);
		return -ENOMEM;
	}
	memcpy(sums->sum, file->data + HEAD_LEN, (size_t)sums->nblocks * SUM_LEN);
	*ret = sums;
	return 0;
}

int sums_load(struct cache *cache, const uint8_t key[static DIGEST_KEY_LEN], uint64_t blob_size,
	      struct sums **ret)
{
	struct cache_id id = sums_id(key);
	AUTO_BUF struct buf file = BUF_INIT(HEAD_LEN + (size_t)blocks_of(BLOB_MAX_SIZE) * SUM_LEN);
	struct sums *sums;

	int r = cache_get(cache, &id, &file);
	if (r == -ENOMEM)
		return r;
	if (r < 0)
		return -ENOENT;
	r = sums_parse(&file, &sums);
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
