// SPDX-License-Identifier: Apache-2.0
/*
 * layer_backing: a file of a layer as a file of its own in the cache, so that others can be given a
 * descriptor of its bytes.
 * Knows which files of which layers. Must not know what is done with the descriptor.
 */
#include <endian.h>
#include <errno.h>

#include "layer_priv.h"

/* A smaller one costs more to be opened so than the kernel's own pages save when it is read; the
 * two meet between 64 and 256 KiB. */
#define BACKING_MIN (128 * KIB)
#define QUICK_LEN   (1 * MIB) /* checked at most by a thread that may not block */

/* Which file of which index; an index of another version may number them otherwise. */
static struct cache_id backing_id(const struct layer *layer, uint32_t ino,
				  const struct index_inode *inode)
{
	struct cache_id id = {.kind = CACHE_COPY};
	struct {
		uint8_t index[DIGEST_KEY_LEN];
		uint64_t size, data_off;
		uint32_t version, ino;
	} name = {
		.size = htole64(inode->size),
		.data_off = htole64(inode->data_off),
		.version = htole32(INDEX_VERSION),
		.ino = htole32(ino),
	};
	struct digest digest;

	memcpy(name.index, layer->index.info.by_toc ? layer->toc_key : layer->index_key,
	       sizeof(name.index));
	digest_of(DIGEST_SHA256, &name, sizeof(name), &digest);
	digest_key(&digest, id.key);
	return id;
}

int layer_backing(struct layer *layer, uint32_t ino, struct wait *wait)
{
	struct index_inode inode;

	int r = layer_file(layer, ino, &inode);
	if (r < 0)
		return r;
	if (inode.size < BACKING_MIN || layer_broken(layer))
		return -ENOENT;
	struct cache_id id = backing_id(layer, ino, &inode);
	if (!cache_has(layer->layers->cache, &id, 0))
		return -ENOENT;
	if (inode.size > QUICK_LEN && !wait_may_block(wait))
		return -EWOULDBLOCK;
	return cache_open_file(layer->layers->cache, &id);
}

struct backing_read {
	struct layer *layer;
	uint32_t ino;
	struct wait *wait;
};

static int fill_backing(void *arg, uint64_t off, void *buf, size_t len)
{
	const struct backing_read *read = arg;

	/* there is much of it, and what is at hand is read without a wait */
	if (wait_cancelled(read->wait))
		return -EINTR;
	ssize_t n = layer_read(read->layer, read->ino, off, buf, len, read->wait);
	if (n < 0)
		return (int)n;
	return n == (ssize_t)len ? 0 : -EIO;
}

int layer_make_backing(struct layer *layer, uint32_t ino, struct wait *wait)
{
	struct backing_read read = {.layer = layer, .ino = ino, .wait = wait};
	struct index_inode inode;

	int r = layer_file(layer, ino, &inode);
	if (r < 0)
		return r;
	if (inode.size < BACKING_MIN)
		return -EOPNOTSUPP;
	struct cache_id id = backing_id(layer, ino, &inode);
	if (cache_has(layer->layers->cache, &id, 0))
		return 0;
	return cache_put_by(layer->layers->cache, &id, inode.size, fill_backing, &read);
}
