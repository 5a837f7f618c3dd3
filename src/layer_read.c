/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_read: a file's bytes: its range to ranges of the decoded stream, and those from where
 * they can be had: the blob itself, kept decoded blocks, or spans.
 * Must not know names.
 */
#include <errno.h>
#include <sys/stat.h>

#include "layer_priv.h"

static ssize_t read_plain(struct layer *layer, uint64_t off, void *buf, size_t len,
			  struct wait *wait)
{
	const struct blob_id id = {
		.digest = &layer->digest,
		.size = layer->blob_size,
		.store = layer->store,
		.repo = layer->repo,
	};

	return blob_read(layer->layers->blobs, &id, off, buf, len, wait);
}

static ssize_t read_kept_block(struct layer *layer, uint64_t off, void *buf, size_t len)
{
	struct cache_id id;

	layer_blob_cache_id(&layer->digest, CACHE_DECODED, &id);
	return cache_read(layer->layers->cache, &id, off / CACHE_BLOCK, off % CACHE_BLOCK, buf,
			  MIN(len, CACHE_BLOCK - off % CACHE_BLOCK), 0);
}

/* Decoded blocks that were evicted are made again; what the cache cannot keep at all is
 * decoded from the last point, however far that is. */
static ssize_t read_kept(struct layer *layer, uint64_t off, void *buf, size_t len,
			 struct wait *wait)
{
	const struct blob_id id = {
		.digest = &layer->digest,
		.size = layer->blob_size,
		.store = layer->store,
		.repo = layer->repo,
	};
	ssize_t n = read_kept_block(layer, off, buf, len);
	int r;

	if (n > 0)
		return n;
	r = build_run(layer->layers, BUILD_DECODED, &id, wait, NULL);
	if (r < 0)
		return r;
	n = read_kept_block(layer, off, buf, len);
	return n > 0 ? n : span_read(layer, off, buf, len, wait);
}

/* All LEN bytes of the decoded stream at OFF. */
static int read_decoded(struct layer *layer, uint64_t off, uint8_t *buf, size_t len,
			struct wait *wait)
{
	const struct index_info *info = &layer->index.info;

	if (off > info->decoded_size || len > info->decoded_size - off)
		return -EIO;
	while (len) {
		ssize_t n;

		if (info->codec == CODEC_PLAIN)
			n = read_plain(layer, off, buf, len, wait);
		else if (info->keep_decoded)
			n = read_kept(layer, off, buf, len, wait);
		else
			n = span_read(layer, off, buf, len, wait);
		if (n <= 0)
			return n < 0 ? (int)n : -EIO;
		off += n;
		buf += n;
		len -= n;
	}
	return 0;
}

/* The data extents follow each other in the stream; between them are zeros. */
static int read_sparse(struct layer *layer, const struct index_inode *inode, uint64_t off,
		       uint8_t *buf, size_t len, struct wait *wait)
{
	uint64_t data_off = inode->data_off;

	memset(buf, 0, len);
	for (uint32_t i = 0; i < inode->nextents; i++) {
		struct tar_extent extent;
		int r = index_extent(&layer->index, inode, i, &extent);

		if (r < 0)
			return r;
		if (extent.off >= off + len)
			break;
		if (extent.off + extent.len > off) {
			uint64_t from = MAX(extent.off, off);
			uint64_t to = MIN(extent.off + extent.len, off + len);

			r = read_decoded(layer, data_off + (from - extent.off), buf + (from - off),
					 to - from, wait);
			if (r < 0)
				return r;
		}
		data_off += extent.len;
	}
	return 0;
}

ssize_t layer_read(struct layer *layer, uint32_t ino, uint64_t off, void *buf, size_t len,
		   struct wait *wait)
{
	struct index_inode inode;
	int r = index_inode(&layer->index, ino, &inode);

	if (r < 0)
		return r;
	if (!S_ISREG(inode.mode))
		return S_ISDIR(inode.mode) ? -EISDIR : -EINVAL;
	if (off >= inode.size)
		return 0;
	len = MIN(len, inode.size - off);
	if (inode.flags & INDEX_SPARSE)
		r = read_sparse(layer, &inode, off, buf, len, wait);
	else
		r = read_decoded(layer, inode.data_off + off, buf, len, wait);
	if (r < 0)
		return r;
	return layer_broken(layer) ? -EIO : (ssize_t)len;
}

int64_t layer_seek(struct layer *layer, uint32_t ino, uint64_t off, int whence)
{
	struct index_inode inode;
	int r = index_inode(&layer->index, ino, &inode);

	if (r < 0)
		return r;
	if (off >= inode.size)
		return -ENXIO;
	if (!(inode.flags & INDEX_SPARSE))
		return whence == SEEK_DATA ? off : inode.size;
	for (uint32_t i = 0; i < inode.nextents; i++) {
		struct tar_extent extent;

		r = index_extent(&layer->index, &inode, i, &extent);
		if (r < 0)
			return r;
		if (extent.off + extent.len <= off)
			continue;
		if (whence == SEEK_DATA)
			return MAX(off, extent.off);
		if (extent.off > off)
			return off;
		/* inside data: the hole begins behind it, or behind those that touch it */
		off = extent.off + extent.len;
	}
	return whence == SEEK_DATA ? -ENXIO : (int64_t)MIN(off, inode.size);
}
