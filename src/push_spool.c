/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spool files: without a name from the start, so that nothing is left of them after a crash.
 * Knows files and decoders. Must not know archives.
 */
#include <errno.h>
#include <fcntl.h>

#include "push_priv.h"

#define SPOOL_DIR_MODE 0700
#define UNPACK_CHUNK   (256 * KIB)

int push_spool_open(const char *dir)
{
	return open_unnamed(dir, SPOOL_DIR_MODE);
}

void push_spool_drop(int fd, uint64_t off, uint64_t len)
{
	/* A file system that cannot only needs more room. */
	if (len)
		(void)fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off,
				(off_t)len);
}

struct unpack {
	struct push_task task;
	struct push *push;
	struct decoder *decoder;
	uint64_t size;
	char *in, *out;
	int fd;
	uint64_t out_off;
};

/* All that the present input gives. */
static int unpack_chunk(struct unpack *unpack)
{
	ssize_t got;

	while ((got = decoder_read(unpack->decoder, unpack->out, UNPACK_CHUNK)) > 0) {
		if (unpack->out_off > push_unpacked_max(unpack->push->pushes, unpack->size))
			return push_fail(&unpack->push->why, -EFBIG,
					 "unpacked the archive is too large for its size");
		ssize_t put = pwrite_full(unpack->fd, unpack->out, (size_t)got,
					  (off_t)unpack->out_off);
		if (put < 0)
			return push_fail_spool(&unpack->push->why, (int)put,
					       "unpacking the archive");
		unpack->out_off += (uint64_t)got;
	}
	if (got == -EINVAL)
		return push_fail(&unpack->push->why, -EINVAL,
				 "the archive is not finished, or damaged: %s",
				 decoder_error(unpack->decoder));
	return (int)got;
}

static int unpack_run(struct push_task *task, struct wait *wait)
{
	struct unpack *unpack = CONTAINER_OF(task, struct unpack, task);
	uint64_t off = 0;

	while (off < unpack->size && !decoder_done(unpack->decoder)) {
		size_t want = (size_t)MIN(unpack->size - off, UNPACK_CHUNK);
		if (wait_cancelled(wait))
			return -EINTR;
		ssize_t got = pread_full(unpack->push->spool, unpack->in, want, (off_t)off);
		if (got < 0)
			return push_fail_spool(&unpack->push->why, (int)got, "reading the spool");
		off += (uint64_t)got;
		decoder_input(unpack->decoder, unpack->in, (size_t)got,
			      off == unpack->size || (size_t)got < want);
		int err = unpack_chunk(unpack);
		if (err)
			return err;
		if ((size_t)got < want)
			break;
	}
	if (!decoder_done(unpack->decoder))
		return push_fail(&unpack->push->why, -EINVAL, "the archive is not finished");
	return 0;
}

int push_spool_unpack(struct push *push, enum codec codec, uint64_t size, struct wait *wait,
		      int *ret_fd, uint64_t *ret_size)
{
	AUTO_DECODER struct decoder *decoder = decoder_new(codec, NULL);
	AUTO_FREE char *in = malloc(UNPACK_CHUNK);
	AUTO_FREE char *out = malloc(UNPACK_CHUNK);
	AUTO_CLOSE int fd = -1;

	if (!decoder || !in || !out)
		return -ENOMEM;
	fd = push_spool_open(push->pushes->spool_dir);
	if (fd < 0)
		return push_fail_spool(&push->why, fd, "the spool");
	struct unpack unpack = {
		.task = {unpack_run},
		.push = push,
		.decoder = decoder,
		.size = size,
		.in = in,
		.out = out,
		.fd = fd,
	};
	struct push_task *const tasks[] = {&unpack.task};
	int err = push_tasks_run(push->pushes->options.jobs, tasks, 1, 1, wait);
	if (err)
		return err;
	*ret_size = unpack.out_off;
	*ret_fd = steal_fd(&fd);
	return 0;
}
