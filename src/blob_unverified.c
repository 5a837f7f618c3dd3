// SPDX-License-Identifier: Apache-2.0
/*
 * Ranges for callers who know by other means what the bytes must be.
 * Knows the cache and the store. Must not know passes or sums, and keeps nothing.
 */
#include <errno.h>

#include "blob_priv.h"
#include "regfs/log.h"
#include "regfs/stats.h"

struct range {
	uint64_t off;
	uint8_t *buf;
	size_t len;
};

/* True if the cache had all of it, verified. */
static bool range_cached(struct blobs *blobs, const struct blob_id *id, const struct range *range)
{
	struct cache_id cache_id = {.kind = CACHE_BLOB};
	size_t done = 0;

	digest_key(id->digest, cache_id.key);
	while (done < range->len) {
		uint64_t at = range->off + done;
		size_t len = MIN(range->len - done, CACHE_BLOCK - at % CACHE_BLOCK);

		ssize_t n = cache_read(blobs->cache, &cache_id, (uint32_t)(at / CACHE_BLOCK),
				       at % CACHE_BLOCK, range->buf + done, len, 0);
		if (n != (ssize_t)len)
			return false;
		done += len;
	}
	return true;
}

static int range_read(const struct blob_id *id, struct store_stream *stream,
		      const struct range *range, struct wait *wait)
{
	size_t done = 0;

	while (done < range->len) {
		ssize_t n = stream->read(stream, range->buf + done, range->len - done, wait);
		if (n < 0)
			return (int)n;
		if (n == 0) {
			log_error("%s/%s: the registry has less of a blob than its manifest says",
				  id->store->name, id->repo);
			return -EIO;
		}
		done += (size_t)n;
	}
	stats_add(STAT_TOC_BYTES, (int64_t)done);
	return 0;
}

static int range_fetch(const struct blob_id *id, const struct range *range, struct wait *wait)
{
	uint64_t len = range->off + range->len == id->size ? UINT64_MAX : range->len;
	struct store_stream *stream;

	int r = id->store->ops->open_blob(id->store, id->repo, id->digest, range->off, len, &stream,
					  wait);
	if (r < 0)
		return r;
	r = range_read(id, stream, range, wait);
	store_stream_close(stream);
	return r;
}

static void range_under_way(struct blobs *blobs, struct way *way, bool begins)
{
	pthread_mutex_lock(&blobs->lock);
	if (begins)
		way_enter(way);
	else
		way_leave(way);
	pthread_mutex_unlock(&blobs->lock);
}

ssize_t blob_fetch_unverified(struct blobs *blobs, const struct blob_id *id, uint64_t off,
			      void *buf, size_t len, struct wait *wait)
{
	struct range range = {.off = off, .buf = buf};

	if (id->size > BLOB_MAX_SIZE)
		return -EFBIG;
	if (off >= id->size || len == 0)
		return 0;
	range.len = MIN(len, id->size - off);
	if (range_cached(blobs, id, &range))
		return (ssize_t)range.len;
	if (!wait_may_block(wait))
		return -EWOULDBLOCK;
	struct way *way = way_find(blobs, id->store);
	range_under_way(blobs, way, true);
	int r = range_fetch(id, &range, wait);
	range_under_way(blobs, way, false);
	return r < 0 ? r : (ssize_t)range.len;
}
