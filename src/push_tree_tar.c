/* SPDX-License-Identifier: Apache-2.0 */
/*
 * push_tree_tar: rootfs/ of a tree as the tar of a layer (image-spec, layer.md), the same bytes
 * for the same tree: names sorted by their bytes, owners, modes, times and xattrs as they are, a
 * file with several names once and then as hard links.
 * Must not know compression.
 *
 * A file .wh.NAME is a whiteout as it stands, and its bytes do not count. The root has no entry of
 * its own: whoever made rootfs/ does not say by it what the container's root is to be. Sockets are
 * left out, and so is what describes this machine or regfs: security.selinux, user.regfs.*.
 */
#include <errno.h>
#include <search.h>
#include <sys/sysmacros.h>

#include "push_tree_priv.h"
#include "regfs/log.h"
#include "regfs/tar.h"

#define HEADER_MAX	     (2 * MIB)
#define PATH_LIMIT	     (64 * KIB) /* in bytes */
#define DEPTH_MAX	     512
#define XATTR_LIST_MAX_BYTES (512 * KIB)

/* Where an inode with several names was written. */
struct seen {
	const struct stage_inode *inode;
	char *path;
};

struct writer {
	struct push *push;
	struct wait *wait;
	const int64_t *clamp;
	int fd;
	uint64_t off;
	struct hasher *hasher;
	struct buf header, path;
	char *piece;
	void *seen; /* of tsearch() */
};

static int compare_seen(const void *a, const void *b)
{
	const struct seen *left = a, *right = b;

	return left->inode < right->inode ? -1 : left->inode > right->inode;
}

static void free_seen(void *seen)
{
	free(((struct seen *)seen)->path);
	free(seen);
}

static void writer_release(struct writer *writer)
{
	hasher_free(writer->hasher);
	buf_release(&writer->header);
	buf_release(&writer->path);
	free(writer->piece);
	tdestroy(writer->seen, free_seen);
	if (writer->fd >= 0)
		close(writer->fd);
}

static int put(struct writer *writer, const void *data, size_t len)
{
	ssize_t done = pwrite_full(writer->fd, data, len, (off_t)writer->off);

	if (done < 0)
		return push_fail_spool(&writer->push->why, (int)done, "writing the layer");
	hasher_add(writer->hasher, data, len);
	writer->off += len;
	return 0;
}

/* --- attributes --- */

struct xattrs {
	struct tar_xattr *list;
	size_t n;
	struct buf names, values;
};

static void xattrs_release(struct xattrs *xattrs)
{
	free(xattrs->list);
	buf_release(&xattrs->names);
	buf_release(&xattrs->values);
}

static bool is_of_the_image(const char *name)
{
	return !starts_with(name, "user.regfs.") && strcmp(name, "security.selinux") != 0;
}

/* Appends the value; its place is known when all are there, and do not move any more. */
static int add_xattr(struct xattrs *xattrs, struct stage_inode *inode, const char *name)
{
	ssize_t len = stage_getxattr(inode, name, NULL, 0);

	if (len < 0)
		return (int)len;
	int err = buf_reserve(&xattrs->values, (size_t)len + 1);
	if (err)
		return err;
	len = stage_getxattr(inode, name, xattrs->values.data + xattrs->values.len,
			     (size_t)len + 1);
	if (len < 0)
		return (int)len;
	xattrs->list[xattrs->n++] = (struct tar_xattr){.name = name, .len = (size_t)len};
	xattrs->values.len += (size_t)len;
	return 0;
}

/* By their names, as the tree has them. */
static int read_xattrs(struct stage_inode *inode, struct xattrs *ret)
{
	ssize_t len = stage_listxattr(inode, NULL, 0);
	size_t off = 0;

	if (len <= 0)
		return (int)len;
	int err = buf_reserve(&ret->names, (size_t)len);
	ret->list = calloc((size_t)len, sizeof(*ret->list));
	if (err || !ret->list)
		return -ENOMEM;
	len = stage_listxattr(inode, ret->names.data, (size_t)len);
	for (ssize_t at = 0; at < len && !err; at += (ssize_t)strlen(ret->names.data + at) + 1) {
		if (is_of_the_image(ret->names.data + at))
			err = add_xattr(ret, inode, ret->names.data + at);
	}
	for (size_t i = 0; i < ret->n; off += ret->list[i++].len)
		ret->list[i].value = ret->values.data + off;
	return err ? err : (int)MIN(len, 0);
}

static bool is_whiteout(const char *path)
{
	const char *slash = strrchr(path, '/');

	return starts_with(slash ? slash + 1 : path, ".wh.");
}

/* --- one entry --- */

static int put_header(struct writer *writer, struct stage_inode *inode,
		      const struct tar_member *member)
{
	CLEANUP(xattrs_release)
	struct xattrs xattrs = {
		.names = BUF_INIT(XATTR_LIST_MAX_BYTES),
		.values = BUF_INIT(XATTR_LIST_MAX_BYTES),
	};
	struct tar_member whole = *member;

	int err = member->hard_link ? 0 : read_xattrs(inode, &xattrs);
	if (err)
		return err;
	whole.xattrs = xattrs.list;
	whole.nxattrs = xattrs.n;
	buf_clear(&writer->header);
	err = tar_header(&whole, &writer->header);
	if (err && err != -ENOMEM)
		return push_fail(&writer->push->why, -EINVAL,
				 "rootfs/%s: its attributes do not fit into a tar archive",
				 member->path);
	return err ? err : put(writer, writer->header.data, writer->header.len);
}

static int put_bytes(struct writer *writer, struct stage_inode *inode, uint64_t size)
{
	static const char zeros[512];

	for (uint64_t off = 0; off < size;) {
		if (wait_cancelled(writer->wait))
			return -EINTR;
		ssize_t got = stage_read(inode, off, writer->piece,
					 (size_t)MIN(size - off, PUSH_PIECE));
		if (got <= 0)
			return got < 0 ? (int)got : -EIO;
		int err = put(writer, writer->piece, (size_t)got);
		if (err)
			return err;
		off += (uint64_t)got;
	}
	return put(writer, zeros, tar_padding(size));
}

/* The path of an earlier name of the inode; NULL: this is the first, and is remembered. */
static int seen_before(struct writer *writer, const struct stage_inode *inode, const char **ret)
{
	struct seen *fresh = calloc(1, sizeof(*fresh));

	if (!fresh)
		return -ENOMEM;
	fresh->inode = inode;
	fresh->path = strdup(writer->path.data);
	struct seen **found = fresh->path ? tsearch(fresh, &writer->seen, compare_seen) : NULL;
	if (!found) {
		free_seen(fresh);
		return -ENOMEM;
	}
	*ret = NULL;
	if (*found != fresh) {
		*ret = (*found)->path;
		free_seen(fresh);
	}
	return 0;
}

static struct tar_member member_of(const struct writer *writer, struct stage_inode *inode,
				   const struct stat *st)
{
	struct tar_member member = {
		.path = writer->path.data,
		.symlink = stage_target(inode),
		.mode = st->st_mode,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.mtime_sec = st->st_mtim.tv_sec,
		.mtime_nsec = (uint32_t)st->st_mtim.tv_nsec,
		.rdev_major = major(st->st_rdev),
		.rdev_minor = minor(st->st_rdev),
	};

	if (writer->clamp && member.mtime_sec >= *writer->clamp) {
		member.mtime_sec = *writer->clamp;
		member.mtime_nsec = 0;
	}
	if (S_ISREG(st->st_mode) && !is_whiteout(member.path))
		member.size = (uint64_t)st->st_size;
	return member;
}

static int put_dir(struct writer *writer, struct stage_inode *dir, unsigned depth);

static int put_entry(struct writer *writer, struct stage_inode *inode, unsigned depth)
{
	struct stat st;
	int err = 0;

	stage_stat(inode, &st);
	if (S_ISSOCK(st.st_mode)) {
		log_info("push %s: rootfs/%s: a socket is left out", writer->push->label,
			 writer->path.data);
		return 0;
	}
	if (S_ISDIR(st.st_mode))
		err = buf_puts(&writer->path, "/");
	struct tar_member member = member_of(writer, inode, &st);
	if (!err && !S_ISDIR(st.st_mode) && st.st_nlink > 1)
		err = seen_before(writer, inode, &member.hard_link);
	if (member.hard_link) {
		/* Readers take a link for a file of no bytes. */
		member.symlink = NULL;
		member.size = 0;
	}
	if (!err)
		err = put_header(writer, inode, &member);
	if (!err && S_ISDIR(st.st_mode))
		return put_dir(writer, inode, depth + 1);
	return err ? err : put_bytes(writer, inode, member.size);
}

/* The path stands for DIR, with its slash. */
static int put_dir(struct writer *writer, struct stage_inode *dir, unsigned depth)
{
	CLEANUP(stage_children_release) struct stage_children children = {0};
	size_t len = writer->path.len;

	if (depth > DEPTH_MAX)
		return push_fail(&writer->push->why, -EINVAL,
				 "rootfs/ is deeper than %d directories", DEPTH_MAX);
	int err = stage_sorted(dir, &children);
	for (size_t i = 0; i < children.n && !err; i++) {
		if (wait_cancelled(writer->wait))
			return -EINTR;
		err = buf_puts(&writer->path, children.children[i].name);
		if (!err)
			err = put_entry(writer, children.children[i].inode, depth);
		writer->path.len = len;
		writer->path.data[len] = '\0';
	}
	return err;
}

int push_tree_tar(struct push_tree *tree, struct stage_inode *root, const int64_t *clamp,
		  struct wait *wait, struct tree_tar *ret)
{
	static const char trailer[TAR_TRAILER];
	CLEANUP(writer_release)
	struct writer writer = {
		.push = tree->push,
		.wait = wait,
		.clamp = clamp,
		.fd = push_spool_open(tree->push->pushes->spool_dir),
		.hasher = hasher_new(DIGEST_SHA256),
		.header = BUF_INIT(HEADER_MAX),
		.path = BUF_INIT(PATH_LIMIT),
		.piece = malloc(PUSH_PIECE),
	};

	if (writer.fd < 0)
		return push_fail_spool(&tree->push->why, writer.fd, "the spool");
	if (!writer.hasher || !writer.piece || buf_reserve(&writer.path, 1) < 0)
		return -ENOMEM;
	int err = put_dir(&writer, root, 0);
	if (!err)
		err = put(&writer, trailer, sizeof(trailer));
	if (err)
		return err;
	ret->size = writer.off;
	hasher_final(writer.hasher, &ret->diff_id);
	ret->fd = steal_fd(&writer.fd);
	return 0;
}
