/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_verify: the diff ID of a layer that is whole in the cache, for regfs cache verify: what
 * streaming it the first time had no idle core for.
 * Must not know where layers come from.
 */
#include <errno.h>

#include "regfs/log.h"

#include "layer_priv.h"

#define OUTPUT (256 * KIB)

/* A store that has nothing: only what is cached can be read. */
static int nowhere_open(struct store *store, const char *repo, const struct digest *digest,
			uint64_t off, uint64_t len, struct store_stream **ret, struct wait *wait)
{
	(void)store, (void)repo, (void)digest, (void)off, (void)len, (void)ret, (void)wait;
	return -EHOSTUNREACH;
}

static const struct store_ops nowhere_ops = {.kind = "nowhere", .open_blob = nowhere_open};
/* Never changed; static because a store outlives the blobs (a pass may go on for a while). */
static struct store nowhere = {.ops = &nowhere_ops, .name = (char *)"cache"};

/* Decodes the whole stream. The hash is that of the index's own diff ID, else the usual one. */
static int hash_decoded(struct blob_stream *stream, const struct index_info *info,
			struct digest *ret, struct wait *wait)
{
	enum digest_algo algo = info->diff_id.algo ? info->diff_id.algo : DIGEST_SHA256;
	AUTO_DECODER struct decoder *decoder = decoder_new(info->codec, NULL);
	AUTO_HASHER struct hasher *hasher = hasher_new(algo);
	AUTO_FREE uint8_t *out = malloc(OUTPUT);
	const void *data;
	ssize_t n;

	if (!decoder || !hasher || !out)
		return -ENOMEM;
	do {
		ssize_t got;

		n = blob_stream_read(stream, &data, wait);
		if (n < 0)
			return (int)n;
		if (decoder_done(decoder))
			continue;
		decoder_input(decoder, n ? data : "", (size_t)n, n == 0);
		while ((got = decoder_read(decoder, out, OUTPUT)) > 0)
			hasher_add(hasher, out, (size_t)got);
		if (got < 0)
			return got == -EINVAL ? -EIO : (int)got;
	} while (n > 0);
	hasher_final(hasher, ret);
	return 0;
}

/* The index's own word for the diff ID: it must agree, or is added where there is none. */
static int compare_diff_id(struct cache *cache, const struct cache_id *id, struct buf *bytes,
			   const struct digest *found)
{
	struct index index;
	int r = index_open(bytes->data, bytes->len, &index);

	if (r < 0)
		return r;
	if (index.info.diff_id.algo == DIGEST_NONE) {
		r = index_set_diff_id(bytes, found);
		return r < 0 ? r : cache_put(cache, id, bytes->data, bytes->len);
	}
	return digest_equal(&index.info.diff_id, found) ? 0 : -EIO;
}

int layer_verify(struct blobs *blobs, struct cache *cache, const struct cache_id *id,
		 struct wait *wait)
{
	AUTO_BUF struct buf bytes = BUF_INIT(INDEX_MAX);
	struct digest digest, found;
	struct blob_id blob = {.digest = &digest, .store = &nowhere, .repo = ""};
	char text[DIGEST_STR_MAX];
	struct blob_stream *stream;
	struct index index;
	int r = cache_get(cache, id, &bytes);

	if (r == 0)
		r = index_open(bytes.data, bytes.len, &index);
	if (r < 0)
		return r;
	digest = index.info.blob;
	blob.size = index.info.blob_size;
	r = blob_stream_open(blobs, &blob, wait, &stream);
	if (r < 0)
		return r;
	r = hash_decoded(stream, &index.info, &found, wait);
	blob_stream_close(stream);
	if (r < 0)
		return r == -EHOSTUNREACH ? -ENOENT : r;
	r = compare_diff_id(cache, id, &bytes, &found);
	if (r == -EIO) {
		log_error("layer %s: its diff ID is not what its index says",
			  digest_format(&digest, text));
		cache_remove(cache, id);
	}
	return r;
}
