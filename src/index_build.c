// SPDX-License-Identifier: Apache-2.0
/*
 * index, building: members in the order of the archive to a tree.
 * Knows paths, replacement and links inside one layer. Must not know how the table is written
 * (index_write.c).
 */
#include <errno.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "index_priv.h"

#define MAX_EXTENTS (1u << 24)
#define MAX_SET	    (2 * MIB) /* of xattrs */

/* --- the tree --- */

static uint32_t parent_of(const struct index_builder *builder, uint32_t dir)
{
	return dir == INDEX_ROOT ? INDEX_ROOT : builder->names[builder->inodes[dir].name].dir;
}

static int add_inode(struct index_builder *builder, const struct build_inode *inode, uint32_t *ret)
{
	int err = index_grow(&builder->inodes, builder->ninodes, &builder->inodes_cap,
			     sizeof(*inode));

	if (err)
		return err;
	builder->inodes[builder->ninodes] = *inode;
	*ret = builder->ninodes++;
	return 0;
}

/* Makes NAME stand for INO. */
static void point_name(struct index_builder *builder, uint32_t name, uint32_t ino)
{
	struct build_name *at = &builder->names[name];

	if (at->ino != INDEX_NONE)
		builder->replaced++;
	at->ino = ino;
}

static int find_or_add_name(struct index_builder *builder, uint32_t dir, const char *name,
			    size_t len, uint32_t *ret)
{
	uint32_t found = index_intern_find(builder, dir, name, len);

	if (found == INDEX_NONE)
		return index_intern_name(builder, dir, name, len, ret);
	*ret = found;
	return 0;
}

/* Makes NAME of DIR a directory, or what it is anew. */
static int set_directory(struct index_builder *builder, uint32_t dir, const char *name, size_t len,
			 struct build_inode *inode)
{
	uint32_t at, ino;
	int err = find_or_add_name(builder, dir, name, len, &at);

	if (err)
		return err;
	inode->name = at;
	ino = builder->names[at].ino;
	if (ino != INDEX_NONE && build_is(builder, ino, S_IFDIR)) {
		builder->inodes[ino] = *inode;
		return 0;
	}
	err = add_inode(builder, inode, &ino);
	if (!err)
		point_name(builder, at, ino);
	return err;
}

static int add_implicit(struct index_builder *builder, uint32_t dir, const char *name, size_t len,
			uint32_t *ret)
{
	static const struct index_attr_rec attr = {.mode = S_IFDIR | 0755, .flags = INDEX_IMPLICIT};
	struct build_inode inode = {};
	int err = index_intern_attr(builder, &attr, &inode.attr);

	if (!err)
		err = set_directory(builder, dir, name, len, &inode);
	if (!err)
		*ret = builder->ninodes - 1;
	return err;
}

/* What name NAME of DIR stands for, or INDEX_NONE. */
static uint32_t look_up(const struct index_builder *builder, uint32_t dir, const char *name,
			size_t len)
{
	uint32_t at = len > INDEX_MAX_NAME ? INDEX_NONE
					   : index_intern_find(builder, dir, name, len);

	return at == INDEX_NONE ? INDEX_NONE : builder->names[at].ino;
}

/* Goes on from *DIR through symlink INO. False when that leads nowhere. */
static bool follow(const struct index_builder *builder, uint32_t ino, struct index_trail *trail,
		   uint32_t *dir)
{
	const struct build_inode *inode = &builder->inodes[ino];
	const char *target = builder->arena.data + inode->data;

	if (!build_is(builder, ino, S_IFLNK) || !index_trail_follow(trail, target, inode->size))
		return false;
	if (inode->size && target[0] == '/')
		*dir = INDEX_ROOT;
	return true;
}

/* The directory that the cleaned PATH leads to; what is missing on the way becomes an implicit
 * directory, and so does what is in the way, if that MAY_REPLACE (else -ENOTDIR). */
static int walk_making(struct index_builder *builder, const char *path, size_t path_len,
		       bool may_replace, uint32_t *ret)
{
	struct index_trail trail;
	uint32_t dir = INDEX_ROOT;
	const char *name;
	size_t len;
	int err = 0;

	index_trail_init(&trail, path, path_len);
	while (!err && index_trail_next(&trail, &name, &len)) {
		if (index_path_is_up(name, len)) {
			dir = parent_of(builder, dir);
			continue;
		}
		uint32_t ino = look_up(builder, dir, name, len);
		if (ino != INDEX_NONE && build_is(builder, ino, S_IFDIR))
			dir = ino;
		else if (ino != INDEX_NONE && follow(builder, ino, &trail, &dir))
			continue;
		else if (ino != INDEX_NONE && !may_replace)
			err = -ENOTDIR;
		else
			err = len > INDEX_MAX_NAME ? -EINVAL
						   : add_implicit(builder, dir, name, len, &dir);
	}
	if (!err)
		*ret = dir;
	return err;
}

/* walk_making with a memory of one: members of a directory mostly stand together. */
static int find_parent(struct index_builder *builder, const char *path, size_t len,
		       bool may_replace, uint32_t *ret)
{
	struct buf *last = &builder->parent_path;
	uint64_t replaced = builder->replaced;
	uint32_t dir;
	int err;

	if (builder->parent_dir != INDEX_NONE && builder->parent_replaced == replaced &&
	    last->len == len && (len == 0 || memcmp(last->data, path, len) == 0)) {
		*ret = builder->parent_dir;
		return 0;
	}
	err = walk_making(builder, path, len, may_replace, &dir);
	if (err)
		return err;
	builder->parent_dir = INDEX_NONE;
	buf_clear(last);
	err = buf_add(last, path, len);
	if (err)
		return err;
	builder->parent_dir = dir;
	/* as of before the walk, which may have replaced what it came through */
	builder->parent_replaced = replaced;
	*ret = dir;
	return 0;
}

/* --- hard links --- */

static const char *dir_name(const struct index_builder *builder, uint32_t dir, size_t *ret_len)
{
	const struct build_name *name = &builder->names[builder->inodes[dir].name];
	const char *str = builder->arena.data + name->str;

	*ret_len = (uint8_t)str[0];
	return str + 1;
}

/* The cleaned path of DIR, "/" and REST (with a NUL) into OUT (INDEX_MAX_PATH bytes). */
static int path_below(struct index_builder *builder, uint32_t dir, const char *rest, char *out,
		      size_t *ret_len)
{
	struct buf *text = &builder->scratch;
	size_t dir_len = 0, len;
	int err;

	for (uint32_t at = dir; at != INDEX_ROOT && dir_len <= INDEX_MAX_PATH;
	     at = parent_of(builder, at)) {
		dir_name(builder, at, &len);
		dir_len += len + 1;
	}
	if (dir_len > INDEX_MAX_PATH)
		return -EINVAL;
	buf_clear(text);
	err = buf_reserve(text, dir_len + TRAIL_CAP);
	if (err)
		return err;

	size_t pos = dir_len;
	for (uint32_t at = dir; at != INDEX_ROOT; at = parent_of(builder, at)) {
		const char *name = dir_name(builder, at, &len);
		text->data[--pos] = '/';
		pos -= len;
		memcpy(text->data + pos, name, len);
	}
	text->len = dir_len;
	err = buf_puts(text, rest);
	return err ? err : index_path_clean(text->data, out, ret_len);
}

/* What a hard link's target is: an inode of this layer, or (INDEX_NONE) a path in lower ones; an
 * empty path where no layer can have a file. */
struct link_target {
	uint32_t ino;
	size_t len;
	char path[INDEX_MAX_PATH];
};

static int find_target(struct index_builder *builder, const char *path, struct link_target *ret)
{
	struct index_trail trail;
	uint32_t dir = INDEX_ROOT, ino;
	const char *name, *more, *unused;
	size_t len, unused_len;
	int err = index_path_clean(path, ret->path, &ret->len);

	if (err)
		return err;
	index_trail_init(&trail, ret->path, ret->len);
	ret->ino = INDEX_NONE;
	while (index_trail_next(&trail, &name, &len)) {
		if (index_path_is_up(name, len)) {
			dir = parent_of(builder, dir);
			continue;
		}
		ino = look_up(builder, dir, name, len);
		more = trail.at;
		if (ino != INDEX_NONE && build_is(builder, ino, S_IFDIR)) {
			dir = ino;
		} else if (ino != INDEX_NONE &&
			   !index_path_next(&more, index_trail_end(&trail), &unused, &unused_len)) {
			ret->ino = ino;
			return 0;
		} else if (ino == INDEX_NONE || !follow(builder, ino, &trail, &dir)) {
			return path_below(builder, dir, name, ret->path, &ret->len);
		}
	}
	ret->len = 0; /* a directory */
	return 0;
}

/* --- members --- */

static int keep_target(struct index_builder *builder, const char *target, size_t len,
		       struct build_inode *inode)
{
	int err;

	/* Also without bytes it has a place: 0 is not one. */
	inode->data = builder->arena.len;
	inode->size = len;
	err = buf_add(&builder->arena, target, len);
	return err == -EFBIG ? -EINVAL : err;
}

static int keep_extents(struct index_builder *builder, const struct tar_member *member,
			struct build_inode *inode)
{
	struct index_extent_rec rec = {.off = member->data_off, .len = member->nextents};
	uint64_t pos = 0;
	int err;

	if (member->nextents > MAX_EXTENTS)
		return -EINVAL;
	inode->data = builder->nextents;
	for (size_t i = 0;; i++) {
		err = index_grow(&builder->extents, builder->nextents, &builder->extents_cap,
				 sizeof(rec));
		if (err)
			return err;
		builder->extents[builder->nextents++] = rec;
		if (i == member->nextents)
			return 0;
		rec.off = member->extents[i].off;
		rec.len = member->extents[i].len;
		if (rec.off < pos || rec.off > member->size || rec.len > member->size - rec.off)
			return -EINVAL;
		pos = rec.off + rec.len;
	}
}

/* What MEMBER says, all but its name. */
static int read_member(struct index_builder *builder, const struct tar_member *member,
		       uint32_t flags, struct build_inode *ret)
{
	uint32_t type = member->mode & S_IFMT;
	struct index_attr_rec attr = {
		.mode = member->mode & (S_IFMT | 07777),
		.uid = member->uid,
		.gid = member->gid,
		.flags = flags,
	};
	int err = 0;

	ret->mtime_sec = member->mtime_sec;
	ret->mtime_nsec = MIN(member->mtime_nsec, 999999999u);
	if (type == S_IFCHR || type == S_IFBLK) {
		attr.rdev_major = member->rdev_major;
		attr.rdev_minor = member->rdev_minor;
	} else if (type == S_IFREG && !(flags & INDEX_LINK_OUT)) {
		ret->size = member->size;
		ret->data = member->data_off;
		attr.flags |= member->sparse ? INDEX_SPARSE : 0;
	}
	if (member->nxattrs) {
		attr.flags |= INDEX_XATTRS;
		err = index_intern_xattrs(builder, member->xattrs, member->nxattrs, &attr.xattrs);
	}
	if (!err && attr.flags & INDEX_SPARSE)
		err = keep_extents(builder, member, ret);
	if (!err)
		err = index_intern_attr(builder, &attr, &ret->attr);
	return err;
}

static int set_inode(struct index_builder *builder, uint32_t name, const struct build_inode *inode)
{
	uint32_t ino;
	int err = add_inode(builder, inode, &ino);

	if (err)
		return err;
	point_name(builder, name, ino);
	builder->last_file = ino;
	return 0;
}

/* NAME, no directory, in DIR. */
static int set_other(struct index_builder *builder, uint32_t name, const struct tar_member *member)
{
	struct build_inode inode = {};
	int err = read_member(builder, member, 0, &inode);

	if (!err && S_ISLNK(member->mode))
		err = keep_target(builder, member->symlink, strlen(member->symlink), &inode);
	return err ? err : set_inode(builder, name, &inode);
}

static int set_link(struct index_builder *builder, uint32_t name, const struct tar_member *member,
		    const struct link_target *target)
{
	struct build_inode inode = {};
	int err;

	if (target->ino != INDEX_NONE) {
		if (builder->names[name].ino != target->ino)
			point_name(builder, name, target->ino);
		return 0;
	}
	err = read_member(builder, member, INDEX_LINK_OUT, &inode);
	if (!err)
		err = keep_target(builder, target->path, target->len, &inode);
	return err ? err : set_inode(builder, name, &inode);
}

static bool valid_type(const struct tar_member *member)
{
	switch (member->mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		return true;
	case S_IFLNK:
		return member->symlink &&
		       strnlen(member->symlink, INDEX_MAX_PATH + 1) <= INDEX_MAX_PATH;
	default:
		return false;
	}
}

/* An entry for the root itself: only a directory makes sense, anything else is passed over. */
static int set_root(struct index_builder *builder, const struct tar_member *member)
{
	struct build_inode inode = {};
	int err;

	if (member->hard_link || !S_ISDIR(member->mode))
		return 0;
	err = read_member(builder, member, 0, &inode);
	if (!err)
		builder->inodes[INDEX_ROOT] = inode;
	return err;
}

/* Whether a file could not hold it: few bytes of an archive may name very many directories. */
static bool is_too_large(const struct index_builder *builder)
{
	uint64_t bytes = builder->arena.len + builder->windows.len;

	bytes += (uint64_t)builder->ninodes * sizeof(struct index_inode_rec);
	bytes += (uint64_t)builder->nnames * sizeof(struct index_name_rec);
	bytes += (uint64_t)builder->nattrs * sizeof(struct index_attr_rec);
	bytes += (uint64_t)builder->nextents * sizeof(struct index_extent_rec);
	return bytes > builder->max;
}

int index_builder_member(struct index_builder *builder, const struct tar_member *member)
{
	char path[INDEX_MAX_PATH];
	struct link_target target;
	struct build_inode inode = {};
	size_t path_len, dir_len, name_len;
	const char *name;
	uint32_t dir, at;
	int err = index_path_clean(member->path, path, &path_len);

	builder->last_file = INDEX_NONE;
	if (is_too_large(builder))
		return -EFBIG;
	if (!err && !member->hard_link && !valid_type(member))
		err = -EINVAL;
	if (!err && member->hard_link)
		err = find_target(builder, member->hard_link, &target);
	if (err || !path_len)
		return err ? err : set_root(builder, member);

	index_path_split(path, path_len, &dir_len, &name);
	name_len = path_len - (size_t)(name - path);
	bool marker = name_len >= 4 && memcmp(name, ".wh.", 4) == 0;
	err = find_parent(builder, path, dir_len, !marker, &dir);
	/* umoci deletes what a directory held also where a file took its place: nothing is left to
	 * hide */
	if (err)
		return err == -ENOTDIR ? 0 : err;
	if (!member->hard_link && S_ISDIR(member->mode)) {
		err = read_member(builder, member, 0, &inode);
		return err ? err : set_directory(builder, dir, name, name_len, &inode);
	}
	err = find_or_add_name(builder, dir, name, name_len, &at);
	if (err)
		return err;
	return member->hard_link ? set_link(builder, at, member, &target)
				 : set_other(builder, at, member);
}

/* --- resume points --- */

/* Appends POINT's window to the windows. The packed length, or an error. */
static ssize_t pack_window(struct index_builder *builder, const struct codec_point *point)
{
	struct buf *windows = &builder->windows;
	size_t bound = codec_pack_bound(point->window_len);

	if (!builder->packer)
		builder->packer = packer_new();
	if (!builder->packer)
		return -ENOMEM;
	int r = buf_reserve(windows, bound);
	if (r < 0)
		return r;
	ssize_t packed = packer_pack(builder->packer, point->window, point->window_len,
				     windows->data + windows->len, bound);
	if (packed > 0)
		windows->len += (size_t)packed;
	return packed;
}

int index_builder_point(struct index_builder *builder, const struct codec_point *point)
{
	struct index_point_rec rec = {
		.in_off = point->in_off,
		.out_off = point->out_off,
		.window = builder->windows.len,
		.window_len = (uint16_t)point->window_len,
		.bits = point->bits,
		.member = point->member,
	};
	const struct index_point_rec *last = builder->points + builder->npoints - 1;
	ssize_t packed;
	int err;

	if (point->window_len > CODEC_WINDOW || point->bits > 7)
		return -EINVAL;
	if (point->out_off == 0)
		return 0; /* the start is always there */
	if (rec.in_off < last->in_off || rec.out_off <= last->out_off)
		return -EINVAL;
	if (point->window_len) {
		packed = pack_window(builder, point);
		if (packed < 0)
			return (int)packed;
		rec.packed_len = (uint32_t)packed;
	}
	err = index_grow(&builder->points, builder->npoints, &builder->points_cap, sizeof(rec));
	if (!err)
		builder->points[builder->npoints++] = rec;
	return err;
}

/* --- chunks --- */

void index_builder_file_chunks(struct index_builder *builder, uint32_t first, uint32_t n)
{
	uint32_t ino = builder->last_file;

	if (ino == INDEX_NONE || !build_is(builder, ino, S_IFREG) ||
	    builder->attrs[builder->inodes[ino].attr].flags & (INDEX_LINK_OUT | INDEX_SPARSE))
		return;
	builder->inodes[ino].data = first;
	builder->inodes[ino].nchunks = n;
}

int index_builder_chunks(struct index_builder *builder, const struct index_chunk *chunks,
			 uint32_t n)
{
	builder->chunks = calloc((size_t)n + 1, sizeof(*builder->chunks));
	if (!builder->chunks)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		struct index_chunk_rec *rec = &builder->chunks[i];

		*rec = (struct index_chunk_rec){
			.off = htole64(chunks[i].off),
			.in_off = htole64(chunks[i].in_off),
			.len = htole32(chunks[i].len),
			.in_len = htole32(chunks[i].in_len),
			.inner_off = htole32(chunks[i].inner_off),
		};
		memcpy(rec->digest, chunks[i].digest, sizeof(rec->digest));
	}
	builder->nchunks = n;
	return 0;
}

/* --- the builder itself --- */

/* The root, the stream's start, and a byte so that no place in the arena is 0. */
static int begin(struct index_builder *builder)
{
	static const struct index_attr_rec root_attr = {.mode = S_IFDIR | 0755,
							.flags = INDEX_IMPLICIT};
	struct build_inode root = {};
	uint32_t ino;
	int err;

	if (getrandom(&builder->seed, sizeof(builder->seed), GRND_NONBLOCK) < 0)
		builder->seed = (uint64_t)(uintptr_t)builder;
	err = buf_add(&builder->arena, "", 1);
	if (!err)
		err = index_intern_attr(builder, &root_attr, &root.attr);
	if (!err)
		err = add_inode(builder, &root, &ino);
	if (!err)
		err = index_grow(&builder->points, 0, &builder->points_cap,
				 sizeof(*builder->points));
	if (!err)
		builder->points[builder->npoints++] = (struct index_point_rec){.member = 1};
	return err;
}

struct index_builder *index_builder_new(void)
{
	struct index_builder *builder = calloc(1, sizeof(*builder));

	if (!builder)
		return NULL;
	builder->max = INDEX_MAX;
	builder->arena.max = UINT32_MAX;
	builder->windows.max = SIZE_MAX / 2;
	builder->scratch.max = MAX_SET;
	builder->parent_path.max = INDEX_MAX_PATH;
	builder->parent_dir = INDEX_NONE;
	builder->last_file = INDEX_NONE;
	if (begin(builder)) {
		index_builder_free(builder);
		return NULL;
	}
	return builder;
}

void index_builder_free(struct index_builder *builder)
{
	if (!builder)
		return;
	free(builder->inodes);
	free(builder->names);
	free(builder->attrs);
	free(builder->extents);
	free(builder->points);
	free(builder->chunks);
	free(builder->name_table.slots);
	free(builder->attr_table.slots);
	free(builder->xattr_table.slots);
	buf_release(&builder->arena);
	buf_release(&builder->windows);
	packer_free(builder->packer);
	buf_release(&builder->scratch);
	buf_release(&builder->parent_path);
	free(builder);
}

void index_builder_cleanup(struct index_builder **builder)
{
	index_builder_free(*builder);
}
