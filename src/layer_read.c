// SPDX-License-Identifier: Apache-2.0
/*
 * A file's bytes: from the file to its extents, to the decoded stream.
 * Knows the index and the sources. Must not know decoding (layer_spans.c).
 */
#include <errno.h>
#include <sys/stat.h>

#include "layer_priv.h"

/* --- where the blob may be had --- */

/* An error that another repository might not give. */
static bool is_the_sources(int error)
{
	return error != -EWOULDBLOCK && error != -EINTR && error != -ENOMEM && error != -EFBIG;
}

typedef ssize_t blob_read_fn(struct blobs *blobs, const struct blob_id *id,
			     const struct blob_piece *piece, struct wait *wait);

static ssize_t fetch_piece(struct blobs *blobs, const struct blob_id *id,
			   const struct blob_piece *piece, struct wait *wait)
{
	return blob_fetch_unverified(blobs, id, piece->off, piece->buf, piece->len, wait);
}

/* PIECE by FN from the sources in turn, beginning with the one that worked last. */
static ssize_t read_sources(struct layer *layer, blob_read_fn *fn, const struct blob_piece *piece,
			    struct wait *wait)
{
	unsigned n = atomic_load(&layer->nsources);
	unsigned preferred = atomic_load(&layer->preferred);
	ssize_t r = -EIO;

	for (unsigned i = 0; i < n; i++) {
		const struct layer_source *source = &layer->sources[(preferred + i) % n];
		const struct blob_id id = {.digest = &layer->digest,
					   .size = layer->size,
					   .store = source->store,
					   .repo = source->repo};

		r = fn(layer->layers->blobs, &id, piece, wait);
		if (r >= 0 && i > 0)
			atomic_store(&layer->preferred, (preferred + i) % n);
		if (r >= 0 || !is_the_sources(r))
			break;
	}
	return r;
}

ssize_t layer_blob_read(struct layer *layer, const struct blob_piece *piece, struct wait *wait)
{
	return read_sources(layer, blob_read_on, piece, wait);
}

ssize_t layer_blob_bring(struct layer *layer, uint64_t off, size_t len, struct wait *wait)
{
	const struct blob_piece piece = {.off = off, .len = len};

	return read_sources(layer, blob_bring, &piece, wait);
}

ssize_t layer_blob_fetch(struct layer *layer, uint64_t off, void *buf, size_t len,
			 struct wait *wait)
{
	const struct blob_piece piece = {.off = off, .buf = buf, .len = len};

	return read_sources(layer, fetch_piece, &piece, wait);
}

/* All of PART of the decoded stream. */
static int stream_read(struct layer *layer, const struct stream_part *part, struct wait *wait)
{
	const struct index_info *info = &layer->index.info;

	if (part->off > info->decoded_size || part->len > info->decoded_size - part->off)
		return -EIO;
	if (info->codec != CODEC_PLAIN) {
		layer_ahead(layer, part, wait);
		return spans_read(layer, part, wait);
	}
	const struct blob_piece piece = {
		.off = part->off,
		.buf = part->buf,
		.len = part->len,
		.whole_off = part->file_off,
		.whole_end = part->file_end,
	};
	ssize_t n = layer_blob_read(layer, &piece, wait);
	if (n < 0)
		return n;
	return n == (ssize_t)part->len ? 0 : -EIO;
}

/* --- extents --- */

/* A file without a map of its holes is one extent. */
static uint32_t extent_count(const struct index_inode *inode)
{
	return inode->flags & INDEX_SPARSE ? inode->nextents : inode->size > 0;
}

static int extent_get(const struct layer *layer, const struct index_inode *inode, uint32_t n,
		      struct tar_extent *ret)
{
	if (inode->flags & INDEX_SPARSE)
		return index_extent(&layer->index, inode, n, ret);
	*ret = (struct tar_extent){.len = inode->size};
	return 0;
}

/* The part of EXTENT, whose data begins at DATA_OFF of the stream, that is asked for. */
static int read_extent(struct layer *layer, const struct tar_extent *extent, uint64_t data_off,
		       const struct file_read *read, struct wait *wait)
{
	uint64_t from = MAX(extent->off, read->off);
	uint64_t to = MIN(extent->off + extent->len, read->off + read->len);

	if (from >= to)
		return 0;
	const struct stream_part part = {
		.off = data_off + (from - extent->off),
		.buf = read->buf + (from - read->off),
		.len = to - from,
		.file_off = data_off,
		.file_end = data_off + extent->len,
	};
	return stream_read(layer, &part, wait);
}

static int read_extents(struct layer *layer, const struct index_inode *inode,
			const struct file_read *read, struct wait *wait)
{
	uint64_t data_off = inode->data_off;
	uint32_t n = extent_count(inode);

	if (inode->flags & INDEX_SPARSE)
		memset(read->buf, 0, read->len);
	for (uint32_t i = 0; i < n; i++) {
		struct tar_extent extent;

		int r = extent_get(layer, inode, i, &extent);
		if (r < 0)
			return r;
		if (extent.off >= read->off + read->len)
			break;
		if (extent.off > inode->size || extent.len > inode->size - extent.off)
			return -EIO;
		r = read_extent(layer, &extent, data_off, read, wait);
		if (r < 0)
			return r;
		data_off += extent.len;
	}
	return 0;
}

int layer_file(const struct layer *layer, uint32_t ino, struct index_inode *ret)
{
	struct index_inode inode;

	int r = index_inode(&layer->index, ino, &inode);
	if (r < 0)
		return r;
	if (!S_ISREG(inode.mode))
		return S_ISDIR(inode.mode) ? -EISDIR : -EINVAL;
	/* what it links to is another layer's */
	if (inode.flags & INDEX_LINK_OUT)
		inode.size = 0;
	*ret = inode;
	return 0;
}

/* By the stream's chunks, which are of all files. */
static int read_by_spans(struct layer *layer, const struct index_inode *inode,
			 const struct file_read *read, struct wait *wait)
{
	const struct index_info *info = &layer->index.info;
	const struct index_inode stream = {.nchunks = info->nchunks};
	const struct file_read part = {inode->data_off + read->off, read->buf, read->len};

	return chunks_read(layer, INDEX_NONE, &stream, &part, wait);
}

/* Whether chunks hold all of the file. */
static bool has_chunks(const struct layer *layer, const struct index_inode *inode)
{
	const struct index_info *info = &layer->index.info;

	if (!info->by_spans)
		return inode->nchunks > 0;
	return inode->data_off <= info->decoded_size &&
	       inode->size <= info->decoded_size - inode->data_off;
}

/* By chunks; or by the whole blob, and then for good: it is there. */
static int read_by_toc(struct layer *layer, uint32_t ino, const struct index_inode *inode,
		       const struct file_read *read, struct wait *wait)
{
	const char *why = "it vouches for no chunks of a file";
	int r = -EBADMSG;

	if (has_chunks(layer, inode) && !atomic_load(&layer->whole)) {
		why = "a chunk is not what it says";
		r = layer->index.info.by_spans ? read_by_spans(layer, inode, read, wait)
					       : chunks_read(layer, ino, inode, read, wait);
	}
	return r == -EBADMSG ? whole_read(layer, ino, read, why, wait) : r;
}

ssize_t layer_read(struct layer *layer, uint32_t ino, uint64_t off, void *buf, size_t len,
		   struct wait *wait)
{
	struct index_inode inode;

	int r = layer_file(layer, ino, &inode);
	if (r < 0)
		return r;
	if (off >= inode.size)
		return 0;
	const struct file_read read = {.off = off, .buf = buf, .len = MIN(len, inode.size - off)};
	r = layer->index.info.by_toc ? read_by_toc(layer, ino, &inode, &read, wait)
				     : read_extents(layer, &inode, &read, wait);
	if (r == 0 && layer_broken(layer))
		r = -EIO;
	return r < 0 ? r : (ssize_t)read.len;
}

/* The first place at or after OFF that is data, or not. */
static int64_t seek_extents(const struct layer *layer, const struct index_inode *inode,
			    uint64_t off, bool data)
{
	uint32_t n = extent_count(inode);

	for (uint32_t i = 0; i < n; i++) {
		struct tar_extent extent;

		int r = extent_get(layer, inode, i, &extent);
		if (r < 0)
			return r;
		if (extent.len == 0 || extent.off + extent.len <= off)
			continue;
		if (data)
			return MAX(off, extent.off);
		if (off < extent.off)
			return off;
		off = extent.off + extent.len;
	}
	return data ? -ENXIO : (int64_t)MIN(off, inode->size);
}

int64_t layer_seek(struct layer *layer, uint32_t ino, uint64_t off, int whence)
{
	struct index_inode inode;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	int r = layer_file(layer, ino, &inode);
	if (r < 0)
		return r;
	if (off >= inode.size)
		return -ENXIO;
	return seek_extents(layer, &inode, off, whence == SEEK_DATA);
}
