/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_ops: each operation of the kernel: its arguments to a request, the node call, the answer.
 * Must not know HTTP, JSON or tar.
 */
#include <errno.h>
#include <linux/limits.h>
#include <sys/statvfs.h>

#include "regfs/log.h"

#include "fs_priv.h"

static int run_lookup(struct request *request)
{
	struct node_entry entry = {0};
	int r = node_lookup(&request->ref, request->name, &request->call, &entry);

	return r < 0 ? r : reply_entry(request, &entry);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct request request = {.name = name};

	request_start(&request, req, parent, run_lookup);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	struct fs *fs = fuse_req_userdata(req);

	inodes_forget(fs->inodes, ino, count);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	struct fs *fs = fuse_req_userdata(req);

	for (size_t i = 0; i < count; i++)
		inodes_forget(fs->inodes, forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

static int run_getattr(struct request *request)
{
	struct node_attr attr = {0};
	int r = node_getattr(&request->ref, &request->call, &attr);

	return r < 0 ? r : reply_attr(request, &attr);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct request request = {0};

	(void)fi;
	request_start(&request, req, ino, run_getattr);
}

static int run_setattr(struct request *request)
{
	const struct stat *attr = &request->attr;
	int set = request->flags;
	struct timespec now;
	struct node_change change = {
		.size = set & FUSE_SET_ATTR_SIZE ? &attr->st_size : NULL,
		.mode = set & FUSE_SET_ATTR_MODE ? &attr->st_mode : NULL,
		.uid = set & FUSE_SET_ATTR_UID ? &attr->st_uid : NULL,
		.gid = set & FUSE_SET_ATTR_GID ? &attr->st_gid : NULL,
		.atime = set & FUSE_SET_ATTR_ATIME ? &attr->st_atim : NULL,
		.mtime = set & FUSE_SET_ATTR_MTIME ? &attr->st_mtim : NULL,
	};
	int r;

	clock_gettime(CLOCK_REALTIME, &now);
	if (set & FUSE_SET_ATTR_ATIME_NOW)
		change.atime = &now;
	if (set & FUSE_SET_ATTR_MTIME_NOW)
		change.mtime = &now;
	r = node_setattr(&request->ref, &change, &request->call);
	return r < 0 ? r : run_getattr(request);
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int set,
		       struct fuse_file_info *fi)
{
	struct request request = {.attr = *attr, .flags = set};

	(void)fi;
	request_start(&request, req, ino, run_setattr);
}

static int run_readlink(struct request *request)
{
	AUTO_FREE char *target = NULL;
	int r = node_readlink(&request->ref, &request->call, &target);

	return r < 0 ? r : reply_readlink(request, target);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct request request = {0};

	request_start(&request, req, ino, run_readlink);
}

static int run_mkdir(struct request *request)
{
	struct node_entry entry = {0};
	int r = node_mkdir(&request->ref, request->name, request->mode, &request->call, &entry);

	return r < 0 ? r : reply_entry(request, &entry);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct request request = {.name = name, .mode = mode};

	request_start(&request, req, parent, run_mkdir);
}

static int run_symlink(struct request *request)
{
	struct node_entry entry = {0};
	int r = node_symlink(&request->ref, request->name, request->to_name, &request->call,
			     &entry);

	return r < 0 ? r : reply_entry(request, &entry);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	struct request request = {.name = name, .to_name = target};

	request_start(&request, req, parent, run_symlink);
}

static int run_unlink(struct request *request)
{
	int r = node_unlink(&request->ref, request->name, &request->call);

	return r < 0 ? r : reply_ok(request);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct request request = {.name = name};

	request_start(&request, req, parent, run_unlink);
}

static int run_rmdir(struct request *request)
{
	int r = node_rmdir(&request->ref, request->name, &request->call);

	return r < 0 ? r : reply_ok(request);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct request request = {.name = name};

	request_start(&request, req, parent, run_rmdir);
}

static int run_rename(struct request *request)
{
	int r = node_rename(&request->ref, request->name, &request->to_ref, request->to_name,
			    request->flags, &request->call);

	return r < 0 ? r : reply_ok(request);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to_parent,
		      const char *to_name, unsigned int flags)
{
	struct fs *fs = fuse_req_userdata(req);
	struct request request = {.name = name, .to_name = to_name, .flags = flags};
	int r = inodes_get(fs->inodes, to_parent, &request.to_ref);

	if (r < 0)
		fuse_reply_err(req, -r);
	else
		request_start(&request, req, parent, run_rename);
}

static int run_mknod(struct request *request)
{
	const struct node_device what = {.mode = request->mode, .rdev = request->attr.st_rdev};
	struct node_entry entry = {0};
	int r = -EROFS; /* as in run_create() */

	if (!request->fs->options.no_push)
		r = node_mknod(&request->ref, request->name, &what, &request->call, &entry);
	return r < 0 ? r : reply_entry(request, &entry);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct request request = {.name = name, .mode = mode, .attr = {.st_rdev = rdev}};

	request_start(&request, req, parent, run_mknod);
}

static int run_link(struct request *request)
{
	struct node_entry entry = {0};
	int r = node_link(&request->ref, request->name, &request->to_ref, &request->call, &entry);

	return r < 0 ? r : reply_entry(request, &entry);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	struct fs *fs = fuse_req_userdata(req);
	struct request request = {.name = name};
	int r = inodes_get(fs->inodes, ino, &request.to_ref);

	if (r < 0)
		fuse_reply_err(req, -r);
	else
		request_start(&request, req, parent, run_link);
}

/* ENOSYS once turns it off for the whole mount; a kernel that cannot do that gets an ordinary
 * answer. */
static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	const struct fs *fs = fuse_req_userdata(req);

	(void)ino;
	fi->keep_cache = 1;
	fi->cache_readdir = 1;
	if (fs->no_opendir)
		fuse_reply_err(req, ENOSYS);
	else
		fuse_reply_open(req, fi);
}

static int run_read(struct request *request)
{
	AUTO_FREE void *owned = NULL;
	size_t size = MIN(request->size, (size_t)FS_BUFFER);
	void *buffer = request_buffer(request, &owned);
	ssize_t n;

	if (!buffer)
		return -ENOMEM;
	n = node_read(&request->ref, request->off, buffer, size, &request->call);
	if (n < 0)
		return (int)n;
	open_file_read(request->file, n);
	return reply_data(request, buffer, n);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	struct request request = {
		.size = size,
		.off = off,
		.file = (struct open_file *)(uintptr_t)fi->fh,
	};

	request_start(&request, req, ino, run_read);
}

static int run_write(struct request *request)
{
	ssize_t n = node_write(&request->ref, request->off, request->data, request->data_len,
			       &request->call);

	return n < 0 ? (int)n : reply_written(request, n);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t len, off_t off,
		     struct fuse_file_info *fi)
{
	struct request request = {.data = data, .data_len = len, .off = off};

	(void)fi;
	request_start(&request, req, ino, run_write);
}

static int run_flush(struct request *request)
{
	int r = node_flush(&request->ref, &request->call);

	return r < 0 ? r : reply_ok(request);
}

static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct request request = {.closes = true};
	const struct fs *fs = fuse_req_userdata(req);

	(void)fi;
	/* Once turns it off for the whole mount: a close() is then no request. */
	if (fs->options.no_push) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	request_start(&request, req, ino, run_flush);
}

static int run_fsync(struct request *request)
{
	int r = node_fsync(&request->ref, &request->call);

	return r < 0 ? r : reply_ok(request);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct request request = {0};

	(void)datasync, (void)fi;
	request_start(&request, req, ino, run_fsync);
}

static int run_create(struct request *request)
{
	struct node_entry entry = {0};
	int r = -EROFS;

	/* its close() would not be seen: somebody has remounted what was read-only */
	if (!request->fs->options.no_push)
		r = node_create(&request->ref, request->name, request->mode, &request->call,
				&entry);
	return r < 0 ? r : reply_create(request, &entry);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		      struct fuse_file_info *fi)
{
	struct request request = {.name = name, .mode = mode};

	(void)fi;
	request_start(&request, req, parent, run_create);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	const struct fs *fs = fuse_req_userdata(req);
	struct statvfs st = {.f_bsize = 4096, .f_frsize = 4096};

	(void)ino;
	if (fs->options.statfs_path)
		(void)statvfs(fs->options.statfs_path, &st);
	st.f_namemax = 255;
	fuse_reply_statfs(req, &st);
}

static int run_getxattr(struct request *request)
{
	AUTO_FREE char *value = NULL;
	ssize_t n;

	if (request->size) {
		value = malloc(request->size);
		if (!value)
			return -ENOMEM;
	}
	n = node_getxattr(&request->ref, request->name, value, request->size, &request->call);
	if (n < 0)
		return n;
	return request->size ? reply_data(request, value, n) : reply_size(request, n);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct request request = {.name = name, .size = MIN(size, (size_t)XATTR_SIZE_MAX)};

	request_start(&request, req, ino, run_getxattr);
}

static int run_listxattr(struct request *request)
{
	AUTO_FREE char *names = NULL;
	ssize_t n;

	if (request->size) {
		names = malloc(request->size);
		if (!names)
			return -ENOMEM;
	}
	n = node_listxattr(&request->ref, names, request->size, &request->call);
	if (n < 0)
		return n;
	return request->size ? reply_data(request, names, n) : reply_size(request, n);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct request request = {.size = MIN(size, (size_t)XATTR_LIST_MAX)};

	request_start(&request, req, ino, run_listxattr);
}

static int run_setxattr(struct request *request)
{
	int r = node_setxattr(&request->ref, request->name, request->data, request->data_len,
			      request->flags, &request->call);

	return r < 0 ? r : reply_ok(request);
}

static void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
			size_t size, int flags)
{
	struct request request = {.name = name, .data = value, .data_len = size, .flags = flags};

	request_start(&request, req, ino, run_setxattr);
}

static int run_removexattr(struct request *request)
{
	int r = node_removexattr(&request->ref, request->name, &request->call);

	return r < 0 ? r : reply_ok(request);
}

static void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct request request = {.name = name};

	request_start(&request, req, ino, run_removexattr);
}

static int run_lseek(struct request *request)
{
	int64_t off = node_seek(&request->ref, request->off, request->flags, &request->call);

	return off < 0 ? (int)off : reply_offset(request, off);
}

static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence,
		     struct fuse_file_info *fi)
{
	struct request request = {.off = off, .flags = whence};

	(void)fi;
	request_start(&request, req, ino, run_lseek);
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	struct fs *fs = userdata;
	unsigned wanted = FUSE_CAP_ASYNC_READ | FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_READDIRPLUS |
			  FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_PARALLEL_DIROPS;
	unsigned unwanted = FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_WRITEBACK_CACHE |
			    FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_SPLICE_READ |
			    FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE;

	conn->want |= conn->capable & wanted;
	conn->want &= ~unwanted;
	fs->can_no_open = conn->capable & FUSE_CAP_NO_OPEN_SUPPORT;
	fs->passthrough = fs->opens && fs_agree_passthrough(fs, conn);
	fs->options.modes->passthrough = fs->passthrough;
	fs->no_open = fs->can_no_open && !fs->passthrough;
	if (fs->opens && !fs->passthrough)
		log_info("passthrough is off: this kernel does not have it");
	fs->no_opendir = conn->capable & FUSE_CAP_NO_OPENDIR_SUPPORT;
	fs->options.modes->io_uring = fs_has_uring(fs, conn);
	if (fs->options.io_uring && !fs->options.modes->io_uring)
		log_info("io_uring is off: the kernel or libfuse does not have it, or it is not "
			 "enabled");
	conn->max_readahead = FS_BUFFER;
	conn->max_write = FS_BUFFER;
	/* Read-ahead counts as background: stalled readers must not use it up for others. */
	conn->max_background = UINT16_MAX - 1;
	conn->congestion_threshold = UINT16_MAX - 1;
	conn->time_gran = 1;
}

const struct fuse_lowlevel_ops fs_ops = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.readlink = op_readlink,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.symlink = op_symlink,
	.rename = op_rename,
	.link = op_link,
	.open = fs_op_open,
	.release = fs_op_release,
	.opendir = op_opendir,
	.read = op_read,
	.write = op_write,
	.flush = op_flush,
	.fsync = op_fsync,
	.fsyncdir = op_fsync,
	.readdir = fs_op_readdir,
	.readdirplus = fs_op_readdirplus,
	.statfs = op_statfs,
	.setxattr = op_setxattr,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
	.removexattr = op_removexattr,
	.create = op_create,
	.lseek = op_lseek,
};
