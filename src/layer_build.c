/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_build: a layer's blob to its index: streamed, decoded, scanned, all in one go. The
 * blob's pass fetches and hashes on another thread.
 * Must not know waiters.
 *
 * Where points are too far apart to resume from (one huge zstd frame, one huge deflate block)
 * the decoded output is kept in the cache instead: written on the way as long as that is how it
 * looks, or made again by build_decoded().
 */
#include <errno.h>

#include "regfs/log.h"
#include "regfs/stats.h"

#include "layer_priv.h"

#define FAR_ZSTD  (4 * MIB)
#define FAR_GZIP  (16 * MIB)
#define INDEX_MAX (UINT64_C(4) << 30)

/* A blob being decoded. */
struct feed {
	struct build *build;
	struct blob_stream *stream;
	struct decoder *decoder;
	struct diff *diff;
	struct index_builder *builder; /* NULL: only the bytes count */
	enum codec codec;
	bool stream_ended;
	uint64_t last_point; /* where the last point lies, decoded */
	bool far;	     /* there was a gap too large to resume over */
	/* decoded output that is kept */
	bool keeping;
	uint64_t pass;
	uint8_t *block;
	size_t block_len;
	uint32_t nblocks;
};

static void feed_cleanup(struct feed *feed)
{
	struct cache_id id;

	if (feed->nblocks && feed->pass) {
		layer_blob_cache_id(&feed->build->digest, CACHE_DECODED, &id);
		cache_drop(feed->build->layers->cache, &id, feed->nblocks, feed->pass);
	}
	blob_stream_close(feed->stream);
	decoder_free(feed->decoder);
	diff_cleanup(&feed->diff);
	free(feed->block);
}

/* --- keeping decoded output --- */

static void keep_block(struct feed *feed)
{
	struct cache_id id;

	if (!feed->block_len)
		return;
	layer_blob_cache_id(&feed->build->digest, CACHE_DECODED, &id);
	/* what the cache cannot keep is decoded again when it is read */
	(void)cache_write(feed->build->layers->cache, &id, feed->nblocks++, feed->block,
			  feed->block_len, feed->pass);
	feed->block_len = 0;
}

static void keep_bytes(struct feed *feed, const uint8_t *data, size_t len)
{
	while (len && feed->keeping) {
		size_t n = MIN(len, CACHE_BLOCK - feed->block_len);

		memcpy(feed->block + feed->block_len, data, n);
		feed->block_len += n;
		data += n;
		len -= n;
		if (feed->block_len == CACHE_BLOCK)
			keep_block(feed);
	}
}

static void keep_stop(struct feed *feed)
{
	struct cache_id id;

	if (!feed->keeping)
		return;
	feed->keeping = false;
	layer_blob_cache_id(&feed->build->digest, CACHE_DECODED, &id);
	cache_drop(feed->build->layers->cache, &id, feed->nblocks, feed->pass);
	feed->nblocks = 0;
}

static int keep_start(struct feed *feed)
{
	feed->block = malloc(CACHE_BLOCK);
	if (!feed->block)
		return -ENOMEM;
	feed->pass = cache_pass_new(feed->build->layers->cache);
	feed->keeping = true;
	return 0;
}

/* The blob was right: what was kept counts. */
static void keep_commit(struct feed *feed)
{
	struct cache_id id;

	if (!feed->keeping)
		return;
	keep_block(feed);
	layer_blob_cache_id(&feed->build->digest, CACHE_DECODED, &id);
	cache_commit(feed->build->layers->cache, &id, feed->nblocks, feed->pass);
	feed->nblocks = 0;
}

/* --- decoding --- */

static void note_gap(struct feed *feed, uint64_t out_off)
{
	uint64_t most = feed->codec == CODEC_ZSTD ? FAR_ZSTD : FAR_GZIP;

	if (out_off - feed->last_point > most)
		feed->far = true;
}

static int on_point(void *arg, const struct codec_point *point)
{
	struct feed *feed = arg;

	note_gap(feed, point->out_off);
	feed->last_point = point->out_off;
	if (!feed->far)
		keep_stop(feed);
	return feed->builder ? index_builder_point(feed->builder, point) : 0;
}

static int fail_decode(const struct feed *feed, const char *why)
{
	char digest[DIGEST_STR_MAX];

	log_error("%s/%s: layer %s: %s", feed->build->store->name, feed->build->repo,
		  digest_format(&feed->build->digest, digest), why);
	return -EIO;
}

/* More of the blob for the decoder. 0, or a negative errno. */
static int feed_input(struct feed *feed)
{
	const void *data = NULL;
	ssize_t n;

	if (build_is_unwanted(feed->build))
		return -EINTR;
	n = blob_stream_read(feed->stream, &data, &feed->build->wait);
	if (n < 0)
		return n;
	feed->stream_ended = n == 0;
	decoder_input(feed->decoder, data, n, n == 0);
	return 0;
}

/* A tar_source_fn: the next decoded bytes. */
static ssize_t feed_read(void *arg, const void **ret)
{
	struct feed *feed = arg;
	uint8_t *buffer = diff_buffer(feed->diff);
	ssize_t n;

	for (;;) {
		n = decoder_read(feed->decoder, buffer, DIFF_BUFFER);
		if (n == -EINVAL)
			return fail_decode(feed, decoder_error(feed->decoder));
		if (n != 0 || decoder_done(feed->decoder))
			break;
		int r = feed_input(feed);

		if (r < 0)
			return r;
	}
	if (n <= 0)
		return n;
	diff_add(feed->diff, n);
	keep_bytes(feed, buffer, n);
	*ret = buffer;
	return n;
}

/* Opens the blob and makes the decoder that its first bytes ask for. */
static int feed_open(struct feed *feed)
{
	const struct decoder_options options = {
		.spacing = LAYER_SPACING,
		.on_point = on_point,
		.arg = feed,
	};
	const void *data = NULL;
	struct blob_id id;
	ssize_t n;
	int r;

	build_blob_id(feed->build, &id);
	r = blob_stream_open(feed->build->layers->blobs, &id, &feed->build->wait, &feed->stream);
	if (r < 0)
		return r;
	n = blob_stream_read(feed->stream, &data, &feed->build->wait);
	if (n < 0)
		return n;
	feed->codec = codec_detect(data, n);
	feed->diff = diff_new(feed->build->layers->jobs);
	feed->decoder = decoder_new(feed->codec, feed->codec == CODEC_PLAIN ? NULL : &options);
	if (!feed->diff || !feed->decoder)
		return -ENOMEM;
	feed->stream_ended = n == 0;
	decoder_input(feed->decoder, data, n, n == 0);
	return feed->codec == CODEC_ZSTD ? keep_start(feed) : 0;
}

/* Reads the blob to its verified end: what was decoded may be trusted then. */
static int feed_end(struct feed *feed)
{
	const void *data;
	ssize_t n = 1;

	while (n > 0 && !feed->stream_ended)
		n = blob_stream_read(feed->stream, &data, &feed->build->wait);
	return n < 0 ? n : 0;
}

/* --- the index --- */

static int add_member(void *arg, const struct tar_member *member)
{
	struct feed *feed = arg;

	return index_builder_member(feed->builder, member);
}

static int scan(struct feed *feed)
{
	const struct tar_source source = {.read = feed_read, .arg = feed};
	char why[256] = "";
	int r = tar_scan(&source, add_member, feed, NULL, why, sizeof(why));

	if (r == -EINVAL)
		return fail_decode(feed, *why ? why : "a member that cannot be");
	return r;
}

static int write_index(struct feed *feed, struct buf *ret)
{
	struct index_info info = {
		.blob_size = feed->build->size,
		.decoded_size = decoder_out_off(feed->decoder),
		.codec = feed->codec,
		.keep_decoded = feed->far,
	};

	digest_key(&feed->build->digest, info.blob_key);
	diff_finish(feed->diff, &info.diff_id);
	return index_builder_finish(feed->builder, &info, ret);
}

/* The layer of the index just written: mapped from the cache, or, where that cannot keep it,
 * out of memory. */
static int use_index(struct build *build, struct buf *bytes, struct layer **ret)
{
	struct layers *layers = build->layers;
	struct cache_id cache_id;
	struct blob_id id;
	char *memory;
	size_t len;
	int r = -ENOENT;

	build_blob_id(build, &id);
	layer_blob_cache_id(&build->digest, CACHE_INDEX, &cache_id);
	if (cache_put(layers->cache, &cache_id, bytes->data, bytes->len) == 0)
		r = layer_load(layers, &id, ret);
	if (r != -ENOENT)
		return r;
	memory = buf_steal(bytes, &len);
	r = layer_from_memory(layers, &id, memory, len, ret);
	if (r < 0)
		free(memory);
	return r;
}

int build_index(struct build *build, struct layer **ret)
{
	CLEANUP(index_builder_cleanup) struct index_builder *builder = index_builder_new();
	CLEANUP(feed_cleanup) struct feed feed = {.build = build, .builder = builder};
	AUTO_BUF struct buf bytes = BUF_INIT(INDEX_MAX);
	int r;

	if (!builder)
		return -ENOMEM;
	r = feed_open(&feed);
	if (r == 0)
		r = scan(&feed);
	if (r == 0)
		r = feed_end(&feed);
	if (r < 0)
		return r;
	note_gap(&feed, decoder_out_off(feed.decoder));
	if (!feed.far)
		keep_stop(&feed);
	keep_commit(&feed);
	r = write_index(&feed, &bytes);
	if (r < 0)
		return r;
	stats_add(STAT_LAYERS_INDEXED, 1);
	return use_index(build, &bytes, ret);
}

int build_decoded(struct build *build)
{
	CLEANUP(feed_cleanup) struct feed feed = {.build = build, .far = true};
	const void *data;
	ssize_t n;
	int r = feed_open(&feed);

	if (r == 0 && !feed.keeping)
		r = keep_start(&feed);
	if (r < 0)
		return r;
	/* the first bytes were not decoded yet, so nothing was missed */
	while ((n = feed_read(&feed, &data)) > 0)
		;
	r = n < 0 ? n : feed_end(&feed);
	if (r == 0)
		keep_commit(&feed);
	return r;
}
