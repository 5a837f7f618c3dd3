// SPDX-License-Identifier: Apache-2.0
/*
 * Decoded output that no resume point is near to, kept in the cache as it is produced.
 * Knows pieces. Must not know decoders.
 */
#include "layer_priv.h"

/* Of the cache's limit: one layer must not push out everything else. */
#define KEEP_SHARE 2

void keep_init(struct keep *keep, struct cache *cache, const uint8_t key[static DIGEST_KEY_LEN])
{
	struct cache_info info;

	*keep = (struct keep){.cache = cache, .id = {.kind = CACHE_DECODED}};
	memcpy(keep->id.key, key, DIGEST_KEY_LEN);
	cache_info(cache, &info);
	keep->limit = info.limit_bytes / KEEP_SHARE;
	keep->pass = cache_pass_new(cache);
}

/* What cannot be kept will be decoded again. */
static void keep_flush(struct keep *keep)
{
	uint64_t nr = (keep->off - keep->len) / LAYER_PIECE;

	if (keep->len == 0)
		return;
	if (nr < UINT32_MAX && keep->kept < keep->limit) {
		cache_write(keep->cache, &keep->id, nr, keep->piece, keep->len, keep->pass);
		keep->kept += keep->len;
		keep->nblocks = nr + 1;
	}
	keep->len = 0;
}

static size_t keep_fill(struct keep *keep, const uint8_t *data, size_t len)
{
	size_t n = MIN(len, LAYER_PIECE - keep->len);

	if (!keep->piece)
		keep->piece = malloc(LAYER_PIECE);
	if (!keep->piece) {
		keep->limit = 0;
		return len;
	}
	memcpy(keep->piece + keep->len, data, n);
	keep->len += n;
	return n;
}

void keep_data(struct keep *keep, const uint8_t *data, size_t len)
{
	while (len > 0) {
		uint64_t behind = keep->off - keep->base;
		size_t n = len;

		if (behind < LAYER_GAP)
			n = MIN(len, LAYER_GAP - behind);
		else if (keep->kept < keep->limit)
			n = keep_fill(keep, data, len);
		keep->gap |= behind >= LAYER_GAP;
		keep->off += n;
		data += n;
		len -= n;
		if (keep->len == LAYER_PIECE)
			keep_flush(keep);
	}
}

void keep_point(struct keep *keep)
{
	keep_flush(keep);
	keep->base = keep->off;
}

void keep_finish(struct keep *keep, bool verified)
{
	if (verified) {
		keep_flush(keep);
		if (keep->nblocks > 0)
			cache_commit(keep->cache, &keep->id, keep->nblocks, keep->pass);
	} else if (keep->nblocks > 0) {
		cache_drop(keep->cache, &keep->id, keep->nblocks, keep->pass);
	}
	free(STEAL(keep->piece));
}
