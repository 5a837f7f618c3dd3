/* SPDX-License-Identifier: Apache-2.0 */
/*
 * push_tree_tar: rootfs/ of a tree as the tar of a layer (image-spec, layer.md), the same bytes
 * for the same tree: names sorted by their bytes, owners, modes, times and xattrs as they are, a
 * file with several names once and then as hard links. The tar is never built: a table says where
 * each member is in it, and any part is readable at any time, from any thread, while the tree is
 * frozen.
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

struct member {
	uint64_t off;  /* of its header */
	uint64_t size; /* of its bytes, behind the header */
	size_t header_len;
	struct stage_inode *inode; /* held */
	char *path;
	const char *hard_link; /* another member's path, or NULL */
};

struct tree_tar {
	struct push *push;
	const int64_t *clamp;
	struct member *members; /* by .off */
	size_t nmembers, cap;
	uint64_t size;
	struct store_source source;
};

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

/* --- one member --- */

static bool is_whiteout(const char *path)
{
	const char *slash = strrchr(path, '/');

	return starts_with(slash ? slash + 1 : path, ".wh.");
}

static void describe(const struct tree_tar *tar, const struct member *member,
		     struct tar_member *ret)
{
	struct stat st;

	stage_stat(member->inode, &st);
	*ret = (struct tar_member){
		.path = member->path,
		.hard_link = member->hard_link,
		.symlink = member->hard_link ? NULL : stage_target(member->inode),
		.mode = st.st_mode,
		.uid = st.st_uid,
		.gid = st.st_gid,
		.size = member->size,
		.mtime_sec = st.st_mtim.tv_sec,
		.mtime_nsec = (uint32_t)st.st_mtim.tv_nsec,
		.rdev_major = major(st.st_rdev),
		.rdev_minor = minor(st.st_rdev),
	};
	if (tar->clamp && ret->mtime_sec >= *tar->clamp) {
		ret->mtime_sec = *tar->clamp;
		ret->mtime_nsec = 0;
	}
}

static int make_header(const struct tree_tar *tar, const struct member *member, struct buf *ret)
{
	CLEANUP(xattrs_release)
	struct xattrs xattrs = {
		.names = BUF_INIT(XATTR_LIST_MAX_BYTES),
		.values = BUF_INIT(XATTR_LIST_MAX_BYTES),
	};
	struct tar_member what;

	/* Readers take a link's attributes from the file. */
	int err = member->hard_link ? 0 : read_xattrs(member->inode, &xattrs);
	if (err)
		return err;
	describe(tar, member, &what);
	what.xattrs = xattrs.list;
	what.nxattrs = xattrs.n;
	err = tar_header(&what, ret);
	return err && err != -ENOMEM ? -EINVAL : err;
}

/* --- the table --- */

/* Where an inode with several names was met first. */
struct seen {
	const struct stage_inode *inode;
	const char *path; /* borrowed */
};

struct walker {
	struct tree_tar *tar;
	struct wait *wait;
	struct buf path, header;
	void *seen; /* of tsearch() */
};

static void walker_release(struct walker *walker)
{
	buf_release(&walker->path);
	buf_release(&walker->header);
	tdestroy(walker->seen, free);
}

static int compare_seen(const void *a, const void *b)
{
	const struct seen *left = a, *right = b;

	return left->inode < right->inode ? -1 : left->inode > right->inode;
}

/* Sets member->hard_link if the inode was met before, else remembers it. */
static int look_for_link(struct walker *walker, struct member *member)
{
	struct seen *fresh = calloc(1, sizeof(*fresh));

	if (!fresh)
		return -ENOMEM;
	*fresh = (struct seen){.inode = member->inode, .path = member->path};
	struct seen **found = tsearch(fresh, &walker->seen, compare_seen);
	if (found && *found == fresh)
		return 0;
	free(fresh);
	if (!found)
		return -ENOMEM;
	member->hard_link = (*found)->path;
	return 0;
}

static struct member *add_member(struct tree_tar *tar, struct stage_inode *inode, const char *path)
{
	if (tar->nmembers == tar->cap) {
		size_t cap = MAX(64, 2 * tar->cap);
		struct member *grown = reallocarray(tar->members, cap, sizeof(*grown));
		if (!grown)
			return NULL;
		tar->members = grown;
		tar->cap = cap;
	}
	struct member *member = &tar->members[tar->nmembers];
	*member = (struct member){.off = tar->size, .path = strdup(path)};
	if (!member->path)
		return NULL;
	member->inode = stage_inode_ref(inode);
	tar->nmembers++;
	return member;
}

static int put_dir(struct walker *walker, struct stage_inode *dir, unsigned depth);

static int put_entry(struct walker *walker, struct stage_inode *inode, unsigned depth)
{
	struct tree_tar *tar = walker->tar;
	struct stat st;
	int err = 0;

	stage_stat(inode, &st);
	if (S_ISSOCK(st.st_mode)) {
		log_info("push %s: rootfs/%s: a socket is left out", tar->push->label,
			 walker->path.data);
		return 0;
	}
	if (S_ISDIR(st.st_mode))
		err = buf_puts(&walker->path, "/");
	struct member *member = err ? NULL : add_member(tar, inode, walker->path.data);
	if (!member)
		return err ? err : -ENOMEM;
	if (!S_ISDIR(st.st_mode) && st.st_nlink > 1)
		err = look_for_link(walker, member);
	if (S_ISREG(st.st_mode) && !member->hard_link && !is_whiteout(member->path))
		member->size = (uint64_t)st.st_size;
	buf_clear(&walker->header);
	if (!err)
		err = make_header(tar, member, &walker->header);
	if (err == -EINVAL)
		return push_fail(&tar->push->why, err,
				 "rootfs/%s: its attributes do not fit into a tar archive",
				 member->path);
	member->header_len = walker->header.len;
	tar->size += member->header_len + member->size + tar_padding(member->size);
	return err || !S_ISDIR(st.st_mode) ? err : put_dir(walker, inode, depth + 1);
}

/* The path stands for DIR, with its slash. */
static int put_dir(struct walker *walker, struct stage_inode *dir, unsigned depth)
{
	CLEANUP(stage_children_release) struct stage_children children = {0};
	size_t len = walker->path.len;

	if (depth > DEPTH_MAX)
		return push_fail(&walker->tar->push->why, -EINVAL,
				 "rootfs/ is deeper than %d directories", DEPTH_MAX);
	int err = stage_sorted(dir, &children);
	for (size_t i = 0; i < children.n && !err; i++) {
		if (wait_cancelled(walker->wait))
			return -EINTR;
		err = buf_puts(&walker->path, children.children[i].name);
		if (!err)
			err = put_entry(walker, children.children[i].inode, depth);
		walker->path.len = len;
		walker->path.data[len] = '\0';
	}
	return err;
}

/* --- reading --- */

/* The member whose header, bytes or padding are at OFF; NULL: the end's zeros. */
static const struct member *member_at(const struct tree_tar *tar, uint64_t off)
{
	size_t low = 0, high = tar->nmembers;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (tar->members[middle].off <= off)
			low = middle + 1;
		else
			high = middle;
	}
	return low ? &tar->members[low - 1] : NULL;
}

static ssize_t read_header(const struct tree_tar *tar, const struct member *member, size_t off,
			   char *buf, size_t cap)
{
	AUTO_BUF struct buf header = BUF_INIT(HEADER_MAX);

	int err = make_header(tar, member, &header);
	if (err)
		return err;
	if (header.len != member->header_len)
		return -EIO;
	cap = MIN(cap, header.len - off);
	memcpy(buf, header.data + off, cap);
	return (ssize_t)cap;
}

/* Some of what is at OFF, which is before the end. */
static ssize_t read_some(const struct tree_tar *tar, uint64_t off, char *buf, size_t cap)
{
	const struct member *member = member_at(tar, off);
	uint64_t bytes = member ? member->off + member->header_len : 0;
	uint64_t next = tar->size;

	if (member && off < bytes)
		return read_header(tar, member, (size_t)(off - member->off), buf, cap);
	if (member && off < bytes + member->size)
		return stage_read(member->inode, off - bytes, buf,
				  (size_t)MIN((uint64_t)cap, bytes + member->size - off));
	if (member && member + 1 < tar->members + tar->nmembers)
		next = member[1].off;
	cap = (size_t)MIN((uint64_t)cap, next - off);
	memset(buf, 0, cap);
	return (ssize_t)cap;
}

static ssize_t read_tar(void *arg, uint64_t off, void *buf, size_t cap)
{
	const struct tree_tar *tar = arg;
	size_t done = 0;

	while (done < cap && off + done < tar->size) {
		ssize_t got = read_some(tar, off + done, (char *)buf + done, cap - done);
		if (got <= 0)
			return got < 0 ? got : -EIO;
		done += (size_t)got;
	}
	return (ssize_t)done;
}

/* --- */

void push_tree_tar_free(struct tree_tar *tar)
{
	if (!tar)
		return;
	for (size_t i = 0; i < tar->nmembers; i++) {
		free(tar->members[i].path);
		stage_inode_unref(tar->members[i].inode);
	}
	free(tar->members);
	free(tar);
}

int push_tree_tar_new(struct push_tree *tree, struct stage_inode *root, struct wait *wait,
		      struct tree_tar **ret)
{
	struct tree_tar *tar = calloc(1, sizeof(*tar));
	CLEANUP(walker_release)
	struct walker walker = {
		.tar = tar,
		.wait = wait,
		.path = BUF_INIT(PATH_LIMIT),
		.header = BUF_INIT(HEADER_MAX),
	};

	if (!tar)
		return -ENOMEM;
	tar->push = tree->push;
	tar->clamp = tree->push->pushes->options.source_date;
	int err = buf_reserve(&walker.path, 1);
	if (!err)
		err = put_dir(&walker, root, 0);
	if (err) {
		push_tree_tar_free(tar);
		return err;
	}
	tar->size += TAR_TRAILER;
	tar->source = (struct store_source){.read = read_tar, .arg = tar, .size = tar->size};
	*ret = tar;
	return 0;
}

const struct store_source *push_tree_tar_source(const struct tree_tar *tar)
{
	return &tar->source;
}
