// SPDX-License-Identifier: Apache-2.0
/*
 * index: reading the table in place.
 * Knows the layout and trusts nothing in it: each value is copied out once and checked before it
 * is used as a place. Must not know how the bytes came to memory.
 */
#include <errno.h>
#include <isa-l/crc64.h>
#include <sys/stat.h>

#include "index_priv.h"

/* --- records --- */

/* Copies record AT of SIZE bytes out of SECTION; the places of arrays are counted in records. */
static inline bool load(const struct index *index, enum index_section section, uint64_t at,
			void *out, size_t size)
{
	if (at >= index->limit[section])
		return false;
	memcpy(out, (const uint8_t *)index->priv[section] + at * size, size);
	return true;
}

/* LEN bytes of the pool, or NULL. */
static const uint8_t *pool_bytes(const struct index *index, uint64_t off, uint64_t len)
{
	uint64_t limit = index->limit[SECTION_POOL];

	if (off > limit || len > limit - off)
		return NULL;
	return (const uint8_t *)index->priv[SECTION_POOL] + off;
}

static bool load_u32(const struct index *index, enum index_section section, uint64_t at,
		     uint32_t *ret)
{
	uint32_t value;

	if (!load(index, section, at, &value, sizeof(value)))
		return false;
	*ret = le32toh(value);
	return true;
}

/* Converted in place: on most machines nothing is left to do. */
static bool load_inode(const struct index *index, uint32_t ino, struct index_inode_rec *ret)
{
	if (!load(index, SECTION_INODES, ino, ret, sizeof(*ret)))
		return false;
	ret->mtime_sec = (int64_t)le64toh((uint64_t)ret->mtime_sec);
	ret->size = le64toh(ret->size);
	ret->data = le64toh(ret->data);
	ret->mtime_nsec = le32toh(ret->mtime_nsec);
	ret->attr = le32toh(ret->attr);
	ret->name = le32toh(ret->name);
	ret->nlink = le32toh(ret->nlink);
	ret->first_child = le32toh(ret->first_child);
	ret->nchunks = le32toh(ret->nchunks);
	return true;
}

static bool load_attr(const struct index *index, uint32_t at, struct index_attr_rec *ret)
{
	if (!load(index, SECTION_ATTRS, at, ret, sizeof(*ret)))
		return false;
	ret->mode = le32toh(ret->mode);
	ret->uid = le32toh(ret->uid);
	ret->gid = le32toh(ret->gid);
	ret->flags = le32toh(ret->flags);
	ret->rdev_major = le32toh(ret->rdev_major);
	ret->rdev_minor = le32toh(ret->rdev_minor);
	ret->xattrs = le64toh(ret->xattrs);
	return true;
}

static bool load_extent(const struct index *index, uint64_t at, struct tar_extent *ret)
{
	struct index_extent_rec rec;

	if (!load(index, SECTION_EXTENTS, at, &rec, sizeof(rec)))
		return false;
	ret->off = le64toh(rec.off);
	ret->len = le64toh(rec.len);
	return true;
}

static bool load_point(const struct index *index, uint32_t at, struct index_point_rec *ret)
{
	if (!load(index, SECTION_POINTS, at, ret, sizeof(*ret)))
		return false;
	ret->in_off = le64toh(ret->in_off);
	ret->out_off = le64toh(ret->out_off);
	ret->window = le64toh(ret->window);
	ret->packed_len = le32toh(ret->packed_len);
	ret->window_len = le16toh(ret->window_len);
	return true;
}

/* The name at position POS. */
static int load_name(const struct index *index, uint64_t pos, struct index_name *ret)
{
	struct index_name_rec rec;
	const uint8_t *str;
	uint32_t ino, dir;

	if (!load(index, SECTION_NAMES, pos, &rec, sizeof(rec)))
		return -EIO;
	ino = le32toh(rec.ino);
	dir = le32toh(rec.dir);
	str = pool_bytes(index, le32toh(rec.str), 1);
	if (!str || ino >= index->info.ninodes || dir >= index->info.ninodes)
		return -EIO;
	size_t len = *str;
	if (!len || !pool_bytes(index, (uint64_t)le32toh(rec.str) + 1, len))
		return -EIO;
	ret->name = (const char *)str + 1;
	ret->len = len;
	ret->ino = ino;
	ret->dir = dir;
	return 0;
}

/* --- opening --- */

static const size_t record_size[NSECTIONS] = {
	[SECTION_INODES] = sizeof(struct index_inode_rec),
	[SECTION_NAMES] = sizeof(struct index_name_rec),
	[SECTION_ATTRS] = sizeof(struct index_attr_rec),
	[SECTION_EXTENTS] = sizeof(struct index_extent_rec),
	[SECTION_POINTS] = sizeof(struct index_point_rec),
	[SECTION_LINKS] = sizeof(uint32_t),
	[SECTION_OUTS] = sizeof(uint32_t),
	[SECTION_CHUNKS] = sizeof(struct index_chunk_rec),
	[SECTION_POOL] = 1,
};

static int open_sections(const struct index_header *header, struct index *index)
{
	size_t end = index->len - sizeof(uint64_t);

	for (int i = 0; i < NSECTIONS; i++) {
		uint64_t off = le64toh(header->sections[i].off);
		uint64_t len = le64toh(header->sections[i].len);

		if (off > end || len > end - off || len % record_size[i])
			return -EIO;
		index->priv[i] = index->data + off;
		index->limit[i] = len / record_size[i];
		if (i != SECTION_POOL && index->limit[i] >= INDEX_NONE)
			return -EIO;
	}
	return index->limit[SECTION_INODES] && index->limit[SECTION_POINTS] ? 0 : -EIO;
}

static int open_info(const struct index_header *header, struct index *index)
{
	struct index_info *info = &index->info;
	uint32_t codec = le32toh(header->codec);
	uint32_t blob_algo = le32toh(header->blob_algo), diff_algo = le32toh(header->diff_algo);

	if (codec > CODEC_ZSTD || blob_algo > DIGEST_SHA512 || diff_algo > DIGEST_SHA512)
		return -EIO;
	info->blob.algo = (enum digest_algo)blob_algo;
	memcpy(info->blob.bytes, header->blob_bytes, sizeof(info->blob.bytes));
	info->blob_size = le64toh(header->blob_size);
	info->decoded_size = le64toh(header->decoded_size);
	info->codec = (enum codec)codec;
	info->keep_decoded = header->keep_decoded != 0;
	info->by_toc = header->by_toc != 0;
	info->by_spans = header->by_spans != 0;
	info->diff_id.algo = (enum digest_algo)diff_algo;
	memcpy(info->diff_id.bytes, header->diff_bytes, sizeof(info->diff_id.bytes));
	info->ninodes = (uint32_t)index->limit[SECTION_INODES];
	info->nnames = (uint32_t)index->limit[SECTION_NAMES];
	info->npoints = (uint32_t)index->limit[SECTION_POINTS];
	info->nchunks = (uint32_t)index->limit[SECTION_CHUNKS];
	return 0;
}

static bool crc_right(const void *data, size_t len)
{
#ifdef REGFS_FUZZ
	/* The fuzzer is to get through to the accessors. */
	(void)data;
	(void)len;
	return true;
#else
	size_t end = len - sizeof(uint64_t);
	uint64_t crc;

	memcpy(&crc, (const uint8_t *)data + end, sizeof(crc));
	return crc64_ecma_refl(0, data, end) == le64toh(crc);
#endif
}

int index_open(const void *data, size_t len, struct index *ret)
{
	struct index index = {.data = data, .len = len};
	struct index_header header;
	int err;

	if (len < sizeof(header) + sizeof(uint64_t))
		return -EIO;
	memcpy(&header, data, sizeof(header));
	if (memcmp(header.magic, INDEX_MAGIC, sizeof(header.magic)) != 0)
		return -EIO;
	if (le32toh(header.version) != INDEX_VERSION)
		return -ESTALE;
	if (!crc_right(data, len))
		return -EIO;
	err = open_sections(&header, &index);
	if (!err)
		err = open_info(&header, &index);
	if (!err)
		*ret = index;
	return err;
}

/* --- inodes --- */

/* What depends on the kind of inode. */
struct kind {
	uint64_t size, data_off;
	uint32_t parent, first_extent, nextents;
	uint32_t first_chunk, nchunks;
};

/* The extents begin with a record of where the data are and how many there are. */
static bool load_sparse(const struct index *index, uint64_t at, struct kind *kind)
{
	struct tar_extent head;

	if (!load_extent(index, at, &head) || head.len > index->limit[SECTION_EXTENTS])
		return false;
	kind->data_off = head.off;
	kind->nextents = (uint32_t)head.len;
	kind->first_extent = (uint32_t)at + 1;
	return true;
}

static bool load_chunks(const struct index *index, const struct index_inode_rec *rec,
			struct kind *kind)
{
	uint64_t limit = index->limit[SECTION_CHUNKS];

	if (rec->data > limit || rec->nchunks > limit - rec->data)
		return false;
	kind->first_chunk = (uint32_t)rec->data;
	kind->nchunks = rec->nchunks;
	return true;
}

/* A directory's names: .first_child and .size of them. */
static bool has_names(const struct index *index, const struct index_inode_rec *rec)
{
	uint64_t nnames = index->limit[SECTION_NAMES];

	return rec->first_child <= nnames && rec->size <= nnames - rec->first_child;
}

static bool load_kind(const struct index *index, const struct index_inode_rec *rec,
		      const struct index_attr_rec *attr, struct kind *kind)
{
	if (S_ISDIR(attr->mode)) {
		kind->parent = (uint32_t)rec->data;
		return has_names(index, rec) && rec->data < index->info.ninodes;
	}
	if (attr->flags & INDEX_LINK_OUT)
		return true;
	kind->size = rec->size;
	if (attr->flags & INDEX_SPARSE)
		return load_sparse(index, rec->data, kind);
	if (S_ISREG(attr->mode) && rec->nchunks)
		return load_chunks(index, rec, kind);
	if (S_ISREG(attr->mode))
		kind->data_off = rec->data;
	return true;
}

int index_inode(const struct index *index, uint32_t ino, struct index_inode *ret)
{
	struct index_inode_rec rec;
	struct index_attr_rec attr;
	struct kind kind = {};

	if (!load_inode(index, ino, &rec) || !load_attr(index, rec.attr, &attr) ||
	    !load_kind(index, &rec, &attr, &kind))
		return -EIO;
	/* Straight into *RET: this is what every walk spends its time on, and copying a structure
	 * whose fields were just written waits for each of them. */
	ret->mode = attr.mode;
	ret->uid = attr.uid;
	ret->gid = attr.gid;
	ret->flags = attr.flags;
	ret->nlink = rec.nlink;
	ret->size = kind.size;
	ret->mtime_sec = rec.mtime_sec;
	ret->mtime_nsec = rec.mtime_nsec;
	ret->rdev_major = attr.rdev_major;
	ret->rdev_minor = attr.rdev_minor;
	ret->data_off = kind.data_off;
	ret->nchildren = S_ISDIR(attr.mode) ? (uint32_t)rec.size : 0;
	ret->parent = kind.parent;
	ret->first_child = rec.first_child;
	ret->nextents = kind.nextents;
	ret->first_extent = kind.first_extent;
	ret->nchunks = kind.nchunks;
	ret->first_chunk = kind.first_chunk;
	return 0;
}

int index_target(const struct index *index, uint32_t ino, const char **ret, size_t *ret_len)
{
	struct index_inode_rec rec;
	struct index_attr_rec attr;
	const uint8_t *target;

	if (!load_inode(index, ino, &rec) || !load_attr(index, rec.attr, &attr))
		return -EIO;
	if (!S_ISLNK(attr.mode) && !(attr.flags & INDEX_LINK_OUT))
		return -EINVAL;
	target = pool_bytes(index, rec.data, rec.size);
	if (!target || rec.size > INDEX_MAX_PATH)
		return -EIO;
	*ret = (const char *)target;
	*ret_len = rec.size;
	return 0;
}

/* --- names --- */

/* The names of directory DIR: LOW … HIGH - 1. */
static int names_of(const struct index *index, uint32_t dir, uint32_t *ret_low, uint32_t *ret_high)
{
	struct index_inode_rec rec;
	struct index_attr_rec attr;

	if (!load_inode(index, dir, &rec) || !load_attr(index, rec.attr, &attr))
		return -EIO;
	if (!S_ISDIR(attr.mode))
		return -ENOTDIR;
	if (!has_names(index, &rec))
		return -EIO;
	*ret_low = rec.first_child;
	*ret_high = rec.first_child + (uint32_t)rec.size;
	return 0;
}

int index_lookup(const struct index *index, uint32_t dir, const char *name, size_t len,
		 struct index_name *ret)
{
	struct index_name at;
	uint32_t low, high;
	int err = names_of(index, dir, &low, &high);

	if (err)
		return err;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		int diff;

		err = load_name(index, middle, &at);
		if (err)
			return err;
		diff = memcmp(name, at.name, MIN(len, at.len));
		if (!diff && len == at.len) {
			*ret = at;
			return 0;
		}
		if (diff < 0 || (!diff && len < at.len))
			high = middle;
		else
			low = middle + 1;
	}
	return -ENOENT;
}

int index_resolve(const struct index *index, const char *path, size_t len, uint32_t *ret)
{
	const char *end = path + len;
	uint32_t at = INDEX_ROOT;

	while (path < end) {
		const char *slash = memchr(path, '/', (size_t)(end - path));
		struct index_name name;
		int err = index_lookup(index, at, path, (size_t)((slash ? slash : end) - path),
				       &name);

		if (err)
			return err;
		at = name.ino;
		path = slash ? slash + 1 : end;
	}
	*ret = at;
	return 0;
}

int index_child(const struct index *index, uint32_t dir, uint32_t n, struct index_name *ret)
{
	uint32_t low, high;
	int err = names_of(index, dir, &low, &high);

	if (err)
		return err;
	return n < high - low ? load_name(index, (uint64_t)low + n, ret) : -ENOENT;
}

int index_name_of(const struct index *index, uint32_t ino, uint32_t n, struct index_name *ret)
{
	struct index_inode_rec rec;
	struct index_attr_rec attr;
	uint32_t pos;

	if (!load_inode(index, ino, &rec) || !load_attr(index, rec.attr, &attr))
		return -EIO;
	if (ino == INDEX_ROOT || n >= (S_ISDIR(attr.mode) ? 1 : rec.nlink))
		return -ENOENT;
	pos = rec.name;
	if (!S_ISDIR(attr.mode) && rec.nlink > 1 &&
	    !load_u32(index, SECTION_LINKS, (uint64_t)rec.name + n, &pos))
		return -EIO;
	return load_name(index, pos, ret);
}

ssize_t index_path(const struct index *index, uint32_t dir, char *out, size_t cap)
{
	struct index_inode_rec rec;
	struct index_name name;
	size_t pos = cap;
	int err;

	/* From the end of OUT backwards, as the names come. Each takes a byte or more of it, so a
	 * damaged file's circles end. */
	while (dir != INDEX_ROOT) {
		err = load_inode(index, dir, &rec) ? load_name(index, rec.name, &name) : -EIO;
		if (err)
			return err;
		if (name.len + (pos < cap) > pos)
			return -ENAMETOOLONG;
		if (pos < cap)
			out[--pos] = '/';
		pos -= name.len;
		memcpy(out + pos, name.name, name.len);
		dir = name.dir;
	}
	memmove(out, out + pos, cap - pos);
	return (ssize_t)(cap - pos);
}

/* --- xattrs, extents, links out --- */

int index_xattr(const struct index *index, uint32_t ino, uint32_t n, struct tar_xattr *ret)
{
	struct index_inode_rec rec;
	struct index_attr_rec attr;
	struct index_xattr_rec xattr;
	const uint8_t *bytes;
	uint32_t count;
	uint64_t at;

	if (!load_inode(index, ino, &rec) || !load_attr(index, rec.attr, &attr))
		return -EIO;
	if (!(attr.flags & INDEX_XATTRS))
		return -ENODATA;
	at = attr.xattrs;
	bytes = pool_bytes(index, at, sizeof(count));
	if (!bytes)
		return -EIO;
	memcpy(&count, bytes, sizeof(count));
	if (n >= le32toh(count))
		return -ENODATA;
	at += sizeof(count);
	for (uint32_t i = 0;; i++) {
		bytes = pool_bytes(index, at, sizeof(xattr));
		if (!bytes)
			return -EIO;
		memcpy(&xattr, bytes, sizeof(xattr));
		xattr.name_len = le32toh(xattr.name_len);
		xattr.value_len = le32toh(xattr.value_len);
		at += sizeof(xattr);
		if (i == n)
			break;
		at += (uint64_t)xattr.name_len + xattr.value_len;
	}
	bytes = pool_bytes(index, at, (uint64_t)xattr.name_len + xattr.value_len);
	if (!bytes || !xattr.name_len || bytes[xattr.name_len - 1] != '\0')
		return -EIO;
	*ret = (struct tar_xattr){
		.name = (const char *)bytes,
		.value = bytes + xattr.name_len,
		.len = xattr.value_len,
	};
	return 0;
}

int index_extent(const struct index *index, const struct index_inode *inode, uint32_t n,
		 struct tar_extent *ret)
{
	if (n >= inode->nextents)
		return -ENODATA;
	return load_extent(index, (uint64_t)inode->first_extent + n, ret) ? 0 : -EIO;
}

int index_link_out(const struct index *index, uint32_t n, uint32_t *ret_ino)
{
	return load_u32(index, SECTION_OUTS, n, ret_ino) ? 0 : -ENOENT;
}

/* --- chunks --- */

int index_chunk(const struct index *index, const struct index_inode *inode, uint32_t n,
		struct index_chunk *ret)
{
	struct index_chunk_rec rec;

	if (n >= inode->nchunks)
		return -ENODATA;
	if (!load(index, SECTION_CHUNKS, (uint64_t)inode->first_chunk + n, &rec, sizeof(rec)))
		return -EIO;
	uint64_t in_off = le64toh(rec.in_off), blob_size = index->info.blob_size;
	uint32_t in_len = le32toh(rec.in_len);
	if (in_off > blob_size || in_len > blob_size - in_off)
		return -EIO;
	ret->off = le64toh(rec.off);
	ret->in_off = in_off;
	ret->len = le32toh(rec.len);
	ret->in_len = in_len;
	ret->inner_off = le32toh(rec.inner_off);
	memcpy(ret->digest, rec.digest, sizeof(ret->digest));
	return 0;
}

uint32_t index_chunk_at(const struct index *index, const struct index_inode *inode, uint64_t off)
{
	uint32_t low = 0, high = inode->nchunks;
	struct index_chunk chunk;

	/* Chunk LOW begins at or before OFF, chunk HIGH does not. */
	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;

		if (index_chunk(index, inode, middle, &chunk) == 0 && chunk.off <= off)
			low = middle;
		else
			high = middle;
	}
	return low;
}

/* --- resume points --- */

int index_point(const struct index *index, uint32_t n, uint8_t *window, struct codec_point *ret)
{
	struct index_point_rec rec;
	const uint8_t *packed;
	ssize_t len;

	if (!load_point(index, n, &rec))
		return -EIO;
	if (rec.window_len > CODEC_WINDOW || rec.bits > 7)
		return -EIO;
	struct codec_point point = {
		.in_off = rec.in_off,
		.out_off = rec.out_off,
		.bits = rec.bits,
		.member = rec.member,
		.window_len = rec.window_len,
	};
	if (window && rec.window_len) {
		packed = pool_bytes(index, rec.window, rec.packed_len);
		if (!packed)
			return -EIO;
		len = codec_unpack(packed, rec.packed_len, window, CODEC_WINDOW);
		if (len != rec.window_len)
			return len == -ENOMEM ? -ENOMEM : -EIO;
		point.window = window;
	}
	*ret = point;
	return 0;
}

uint32_t index_point_before(const struct index *index, uint64_t out_off)
{
	uint32_t low = 0, high = index->info.npoints;
	struct index_point_rec rec;

	/* Point LOW is at or before OUT_OFF (the first is at 0), point HIGH is not. */
	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;

		if (load_point(index, middle, &rec) && rec.out_off <= out_off)
			low = middle;
		else
			high = middle;
	}
	return low;
}
