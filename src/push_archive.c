/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of the archive, as those read them who send them: from the spool, and waited for where
 * they are still being written.
 * Must not know what they are.
 */
#include <errno.h>

#include "push_priv.h"

ssize_t push_archive_read(struct push_run *run, uint64_t off, void *buf, size_t len)
{
	if (off >= run->size)
		return 0;
	len = (size_t)MIN((uint64_t)len, run->size - off);
	ssize_t got = run->source ? run->source->read(run->source->arg, off, buf, len)
				  : pread_full(run->fd, buf, len, (off_t)off);
	return got < 0 ? push_fail_spool(run->why, (int)got, "reading the spool") : got;
}

ssize_t push_archive_peek(struct push_run *run, uint64_t off, void *buf, size_t len)
{
	uint64_t avail = run->part ? push_stream_avail(run->stream) : UINT64_MAX;

	if (off >= avail)
		return -EAGAIN;
	return push_archive_read(run, off, buf, (size_t)MIN((uint64_t)len, avail - off));
}

int push_archive_await(struct push_run *run, uint64_t end, struct wait *wait)
{
	int err = run->part ? push_stream_await(run->stream, end, wait) : 0;

	return err == -EINVAL ? push_fail(run->why, err, "the archive is cut off") : err;
}

int push_archive_take(struct push_run *run, uint64_t off, void *buf, size_t len, struct wait *wait)
{
	if (wait_cancelled(wait))
		return -EINTR;
	int err = push_archive_await(run, off + len, wait);
	if (err)
		return err;
	ssize_t got = push_archive_read(run, off, buf, len);
	if (got < 0)
		return (int)got;
	return (size_t)got == len ? 0
				  : push_fail(run->why, -EIO, "the spool is shorter than it was");
}

int push_archive_config(struct push_run *run, const struct archive_blob *at, struct buf *ret)
{
	if (at->len > OCI_CONFIG_MAX)
		return push_fail(run->why, -EINVAL, "the image's config is larger than %d MiB",
				 OCI_CONFIG_MAX / MIB);
	int err = buf_reserve(ret, (size_t)at->len + 1);
	if (err)
		return err;
	ssize_t got = push_archive_read(run, at->off, ret->data, (size_t)at->len);
	if (got < 0)
		return (int)got;
	ret->len = (size_t)got;
	ret->data[ret->len] = '\0';
	return 0;
}

ssize_t push_archive_part_read(void *arg, uint64_t off, void *buf, size_t cap)
{
	const struct push_archive_part *part = arg;

	if (off >= part->at.len)
		return 0;
	cap = (size_t)MIN((uint64_t)cap, part->at.len - off);
	ssize_t got = push_archive_peek(part->run, part->at.off + off, buf, cap);
	return got ? got : push_fail(part->run->why, -EIO, "the spool is shorter than it was");
}

int push_archive_part_await(void *arg, uint64_t off, struct wait *wait)
{
	const struct push_archive_part *part = arg;
	uint64_t end = MIN(off + PUSH_STEP, part->at.len);

	return push_archive_await(part->run, part->at.off + end, wait);
}

void push_archive_passed(struct push_run *run, uint64_t off, uint64_t len)
{
	if (run->part)
		push_part_passed(run->part, off, len);
}

void push_archive_confirmed(struct push_run *run)
{
	if (run->part)
		push_part_confirmed(run->part);
}

int push_archive_hash(struct push_run *run, const struct archive_blob *at, enum digest_algo algo,
		      struct digest *ret, struct wait *wait)
{
	AUTO_HASHER struct hasher *hasher = hasher_new(algo);
	AUTO_FREE char *piece = malloc(PUSH_PIECE);

	if (!hasher || !piece)
		return -ENOMEM;
	for (uint64_t off = 0; off < at->len;) {
		size_t len = (size_t)MIN(at->len - off, PUSH_PIECE);
		int err = push_archive_take(run, at->off + off, piece, len, wait);
		if (err)
			return err;
		hasher_add(hasher, piece, len);
		off += len;
	}
	hasher_final(hasher, ret);
	return 0;
}
