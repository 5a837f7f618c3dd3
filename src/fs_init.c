/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_init: what is agreed with the kernel when the mount begins, and libfuse does not agree on.
 * Must not know what is served.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>

#include "regfs/log.h"

#include "fs_kernel.h"
#include "fs_priv.h"

/* The kernel reads 128 KiB ahead whatever INIT says, unless root asks for more where block
 * devices are set up. Of the rest of the world nobody misses it. */
static void set_read_ahead(const struct fs *fs)
{
	struct statx stx;
	AUTO_FREE char *path = NULL;

	/* without a request to ourselves */
	if (statx(AT_FDCWD, fs->options.mountpoint, AT_STATX_DONT_SYNC, STATX_TYPE, &stx) != 0)
		return;
	path = format("/sys/class/bdi/%u:%u/read_ahead_kb", stx.stx_dev_major, stx.stx_dev_minor);
	if (!path)
		return;
	AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0 && dprintf(fd, "%d\n", FS_BUFFER / 1024) < 0)
		log_debug("%s: %s", path, strerror(errno));
}

/*
 * libfuse 3.14 wants FUSE_PARALLEL_DIROPS but never tells the kernel, which then keeps a
 * whole directory locked during each look-up; and it knows nothing of passthrough. So the answer to
 * INIT is completed on its way out: the request is recognised by its opcode as it is read, its
 * answer by the number.
 */
ssize_t fs_session_read(int fd, void *buf, size_t len, void *userdata)
{
	const struct fuse_in_header *head = buf;
	struct fs *fs = userdata;
	ssize_t n = read(fd, buf, len);

	if (n >= (ssize_t)sizeof(*head) && head->opcode == FUSE_INIT) {
		const struct fuse_init_in *init = (const void *)(head + 1);

		fs->init_unique = head->unique;
		fs->can_passthrough = n >= (ssize_t)(sizeof(*head) + sizeof(*init)) &&
				      (init->flags2 & FS_INIT2_PASSTHROUGH);
	}
	return n;
}

static void complete_init(struct fs *fs, struct iovec *answer)
{
	struct fs_init_out *init = answer->iov_base;

	if (answer->iov_len >= FUSE_COMPAT_22_INIT_OUT_SIZE)
		init->flags |= FUSE_PARALLEL_DIROPS;
	if (fs->passthrough && answer->iov_len >= sizeof(*init)) {
		init->flags |= FUSE_INIT_EXT;
		init->flags2 |= FS_INIT2_PASSTHROUGH;
		/* what backs us may not be stacked on anything itself */
		init->max_stack_depth = 1;
	}
}

ssize_t fs_session_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	const struct fuse_out_header *head = iov[0].iov_base;
	struct fs *fs = userdata;
	bool is_init = fs->init_unique && head->unique == fs->init_unique;
	ssize_t n;

	if (!is_init)
		return writev(fd, iov, count);
	fs->init_unique = 0;
	if (count == 2 && head->error == 0)
		complete_init(fs, &iov[1]);
	n = writev(fd, iov, count);
	set_read_ahead(fs);
	return n;
}
