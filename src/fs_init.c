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
 * devices are set up. Nobody else misses it. */
void fs_set_read_ahead(const struct fs *fs)
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

#ifdef FUSE_CAP_OVER_IO_URING /* libfuse 3.18 */
bool fs_wants_uring(const struct fs *fs)
{
	AUTO_FREE char *enabled = NULL;
	size_t len;

	return fs->options.io_uring &&
	       read_file("/sys/module/fuse/parameters/enable_uring", 16, &enabled, &len) == 0 &&
	       enabled[0] == 'Y';
}

bool fs_has_uring(const struct fs *fs, const struct fuse_conn_info *conn)
{
	return fs_wants_uring(fs) && (conn->capable_ext & FUSE_CAP_OVER_IO_URING);
}
#else
bool fs_wants_uring(const struct fs *fs)
{
	(void)fs;
	return false;
}

bool fs_has_uring(const struct fs *fs, const struct fuse_conn_info *conn)
{
	(void)conn;
	return fs_wants_uring(fs);
}
#endif

#ifdef FUSE_CAP_PASSTHROUGH /* libfuse 3.17 agrees on all of it by itself */

int fs_watch_init(struct fs *fs)
{
	(void)fs;
	return 0;
}

bool fs_agree_passthrough(struct fs *fs, struct fuse_conn_info *conn)
{
	(void)fs;
	conn->max_backing_stack_depth = 0;
	return fuse_set_feature_flag(conn, FUSE_CAP_PASSTHROUGH);
}

#else

/*
 * libfuse 3.14 wants FUSE_PARALLEL_DIROPS but never tells the kernel, which then keeps a
 * whole directory locked during each look-up; and it knows nothing of passthrough. So the answer to
 * INIT is completed on its way out: the request is recognised by its opcode as it is read, its
 * answer by the number.
 */
static ssize_t session_read(int fd, void *buf, size_t len, void *userdata)
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

static void complete_init(const struct fs *fs, const struct iovec *answer)
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

static ssize_t session_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	const struct fuse_out_header *head = iov[0].iov_base;
	struct fs *fs = userdata;

	if (fs->init_unique && head->unique == fs->init_unique) {
		fs->init_unique = 0;
		if (count == 2 && head->error == 0)
			complete_init(fs, &iov[1]);
	}
	return writev(fd, iov, count);
}

int fs_watch_init(struct fs *fs)
{
	const struct fuse_custom_io io = {.writev = session_writev, .read = session_read};

	return fuse_session_custom_io(fs->session, &io, fuse_session_fd(fs->session));
}

bool fs_agree_passthrough(struct fs *fs, struct fuse_conn_info *conn)
{
	(void)conn;
	return fs->can_passthrough;
}

#endif
