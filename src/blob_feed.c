// SPDX-License-Identifier: Apache-2.0
/*
 * Where the bytes of a pass or a range come from: the cache as far as it has them, then one
 * stream of the store, or what passes for one (blob_lanes.c). And the blocks in memory that they
 * fill. Must not know digests or who waits.
 */
#include <errno.h>

#include "blob_priv.h"

struct piece *piece_new(void)
{
	struct piece *piece = malloc(sizeof(*piece));

	if (piece)
		atomic_init(&piece->refs, 1);
	return piece;
}

void piece_unref(struct piece *piece)
{
	if (piece && atomic_fetch_sub(&piece->refs, 1) == 1)
		free(piece);
}

int feed_source(struct feed *feed, const struct blob_id *id)
{
	char *repo = strdup(id->repo);

	if (!repo)
		return -ENOMEM;
	free(feed->repo);
	feed->repo = repo;
	feed->store = id->store;
	feed->source = blob_source(id);
	return 0;
}

void feed_stop(struct feed *feed)
{
	store_stream_close(STEAL(feed->stream));
}

void feed_release(struct feed *feed)
{
	feed_stop(feed);
	free(STEAL(feed->repo));
}

static bool feed_is_far(const struct feed *feed, uint64_t off)
{
	struct blobs *blobs = feed->blob->blobs;

	pthread_mutex_lock(&blobs->lock);
	bool far = lanes_suit(feed->blob, way_of(blobs, feed->store), off);
	pthread_mutex_unlock(&blobs->lock);
	return far;
}

static int feed_open(struct feed *feed, uint64_t off, struct wait *wait)
{
	uint64_t len = feed->end == feed->blob->size ? UINT64_MAX : feed->end - off;
	int64_t begun = now_us();

	if (feed->wide && feed_is_far(feed, off))
		return lanes_open(feed, off, &feed->stream);

	int r = feed->store->ops->open_blob(feed->store, feed->repo, &feed->blob->digest, off, len,
					    &feed->stream, wait);
	if (r == 0)
		pace_latency(&way_find(feed->blob->blobs, feed->store)->pace, now_us() - begun);
	return r;
}

int feed_block(struct feed *feed, uint32_t nr, void *data, struct wait *wait, bool *ret_cached)
{
	struct blob *blob = feed->blob;
	size_t len = block_len(blob, nr), have = 0;

	if (!feed->stream) {
		ssize_t n = cache_read(blob->blobs->cache, &blob->id, nr, 0, data, len, 0);
		if (n == (ssize_t)len) {
			*ret_cached = true;
			return 0;
		}
		int r = feed_open(feed, (uint64_t)nr * CACHE_BLOCK, wait);
		if (r < 0)
			return r;
	}
	while (have < len) {
		ssize_t n = feed->stream->read(feed->stream, (char *)data + have, len - have, wait);
		if (n < 0)
			return n;
		if (n == 0)
			return -ENODATA;
		have += n;
	}
	feed->received += len;
	*ret_cached = false;
	return 0;
}
