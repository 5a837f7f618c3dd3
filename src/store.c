/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store: the helpers that every body of the store interface shares.
 * Knows the structures of store.h. Must not know any body.
 */
#include <errno.h>

#include "regfs/store.h"

void store_manifest_release(struct store_manifest *manifest)
{
	free(manifest->media_type);
	manifest->media_type = NULL;
	buf_release(&manifest->bytes);
}

int store_holds(struct store *store, const char *repo, const struct digest *digest, uint64_t size,
		struct wait *wait)
{
	const struct store_ops *ops = store->ops;
	uint64_t found;
	int err = ops->holds_blob ? ops->holds_blob(store, repo, digest, &found, wait)
				  : ops->has_blob(store, repo, digest, &found, wait);
	/* One that was cut short is none. */
	bool lacks = err == -EACCES || (!err && found != size);
	return lacks ? -ENOENT : err;
}

int store_offer(struct store *store, const char *repo, const struct store_put *put, uint64_t size,
		struct wait *wait)
{
	int err = store_holds(store, repo, put->digest, size, wait);

	if (put->answered && (!err || err == -ENOENT))
		atomic_store(put->answered, true);
	/* Of one that went away put_blob asks again, as soon as it can. */
	bool away = store_put_waits(put) && (err == -ECONNREFUSED || err == -EHOSTUNREACH);
	return err == -ENOENT || away ? store->ops->put_blob(store, repo, put, wait) : err;
}

ssize_t store_source_read(const struct store_source *source, uint64_t off, void *buf, size_t cap,
			  struct wait *wait)
{
	for (;;) {
		ssize_t got = source->read(source->arg, off, buf, cap);
		if (got != -EAGAIN || !source->await)
			return got;
		int err = source->await(source->arg, off, wait);
		if (err)
			return err;
	}
}

ssize_t store_bytes_read(void *arg, uint64_t off, void *buf, size_t cap)
{
	const struct store_bytes *bytes = arg;
	if (off >= bytes->len)
		return 0;
	size_t len = MIN(cap, bytes->len - (size_t)off);
	memcpy(buf, (const char *)bytes->data + off, len);
	return (ssize_t)len;
}

ssize_t store_file_read(void *arg, uint64_t off, void *buf, size_t cap)
{
	const struct store_file *file = arg;
	if (off >= file->len)
		return 0;
	size_t len = (size_t)MIN((uint64_t)cap, file->len - off);
	ssize_t n = pread_full(file->fd, buf, len, (off_t)(file->off + off));
	/* Somebody cut the file short: that is not the end of the blob. */
	return n == 0 ? -EIO : n;
}
