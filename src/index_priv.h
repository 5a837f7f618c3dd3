/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index: the file's layout, and the builder's tables, for index*.c alone.
 *
 *	header | inodes | names | attrs | extents | points | links | outs | chunks | pool | CRC-64
 *
 * Sections begin at multiples of 8; all but the pool are arrays of the records below, whose
 * fields are little-endian at rest. The CRC is over all bytes before it.
 *
 *  - Inodes: 0 is the root; directories come after their parents.
 *  - Names: each directory's are contiguous and sorted; the directories follow each other in the
 *    order of their inodes.
 *  - Attrs: what many inodes have in common, once.
 *  - Extents: a sparse file has a record {data_off, count}, then its extents.
 *  - Links: of an inode with several names, the positions of those; outs: the INDEX_LINK_OUT
 *    inodes, ascending.
 *  - Chunks: those of a file follow each other.
 *  - Pool: names (a length byte, then the bytes), targets, xattr sets, packed windows.
 */
#ifndef REGFS_INDEX_PRIV_H
#define REGFS_INDEX_PRIV_H

#include <endian.h>
#include <sys/stat.h>

#include "regfs/index.h"

#define INDEX_MAGIC    "regfsidx"
#define INDEX_MAX_NAME 255
#define INDEX_MAX_PATH 4096

enum index_section {
	SECTION_INODES,
	SECTION_NAMES,
	SECTION_ATTRS,
	SECTION_EXTENTS,
	SECTION_POINTS,
	SECTION_LINKS,
	SECTION_OUTS,
	SECTION_CHUNKS,
	SECTION_POOL,
	NSECTIONS
};

struct index_header {
	char magic[8];
	uint32_t version;
	uint32_t codec;
	uint32_t blob_algo;
	uint8_t blob_bytes[DIGEST_MAX];
	uint64_t blob_size, decoded_size;
	uint32_t keep_decoded;
	uint32_t by_toc;
	uint32_t by_spans;
	uint32_t diff_algo;
	uint8_t diff_bytes[DIGEST_MAX];
	struct {
		uint64_t off, len;
	} sections[NSECTIONS];
};

struct index_inode_rec {
	int64_t mtime_sec;
	uint64_t size; /* of a regular file or a target; directories: children */
	uint64_t data; /* data_off, or the first chunk; targets: in the pool; sparse: in the
			  extents; directories: the parent */
	uint32_t mtime_nsec;
	uint32_t attr;
	uint32_t name;	/* position of its name; of several: in the links */
	uint32_t nlink; /* names; directories: 2 + subdirectories */
	uint32_t first_child;
	uint32_t nchunks;
};

struct index_name_rec {
	uint32_t str; /* in the pool */
	uint32_t ino;
	uint32_t dir;
};

struct index_attr_rec {
	uint32_t mode, uid, gid, flags;
	uint32_t rdev_major, rdev_minor;
	uint64_t xattrs; /* in the pool; 0 if !INDEX_XATTRS */
};

struct index_extent_rec {
	uint64_t off, len;
};

struct index_point_rec {
	uint64_t in_off, out_off;
	uint64_t window; /* in the pool */
	uint32_t packed_len;
	uint16_t window_len;
	uint8_t bits, member;
};

struct index_chunk_rec {
	uint64_t off, in_off;
	uint32_t len, in_len, inner_off;
	uint32_t spare;
	uint8_t digest[DIGEST_KEY_LEN];
};

/* An xattr set in the pool: a le32 count, then for each one this, its name with the NUL, and its
 * value. Not aligned. */
struct index_xattr_rec {
	uint32_t name_len; /* with the NUL */
	uint32_t value_len;
};

_Static_assert(sizeof(struct index_header) % 8 == 0, "sections are aligned");
_Static_assert(sizeof(struct index_inode_rec) == 48, "no padding");
_Static_assert(sizeof(struct index_name_rec) == 12, "no padding");
_Static_assert(sizeof(struct index_attr_rec) == 32, "no padding");
_Static_assert(sizeof(struct index_point_rec) == 32, "no padding");
_Static_assert(sizeof(struct index_chunk_rec) == 64, "no padding");
_Static_assert(sizeof(struct index_xattr_rec) == 8, "no padding");
_Static_assert(NSECTIONS == sizeof(((struct index *)0)->limit) / sizeof(uint64_t), "as in index.h");

/* --- paths --- */

/* The next component of *PATH, skipping slashes and ".". False at the end. */
bool index_path_next(const char **path, const char *end, const char **ret, size_t *ret_len);
bool index_path_is_up(const char *name, size_t len); /* ".." */
/*
 * PATH without leading slash, "." or ".." ("" for the root) to OUT, which holds INDEX_MAX_PATH
 * bytes and gets no NUL. ".." takes away what stands before it, whatever that is, as tar extractors
 * do. 0 or -EINVAL (too long).
 */
int index_path_clean(const char *path, char *out, size_t *ret_len);
/* Splits a cleaned path; the directory's part is "" for a name in the root. */
void index_path_split(const char *path, size_t len, size_t *ret_dir_len, const char **ret_name);

#define TRAIL_CAP (2 * INDEX_MAX_PATH)

/* What is still to be walked of a path; symlinks met on the way are put before the rest, so it
 * stands at the end of the space. Targets of INDEX_MAX_PATH bytes in all are followed, so that a
 * member of few bytes cannot make a long walk. */
struct index_trail {
	const char *at;
	unsigned hops;
	size_t followed;	  /* bytes */
	char text[TRAIL_CAP + 1]; /* ends in a NUL */
};

const char *index_trail_end(const struct index_trail *trail);
/* PATH is at most INDEX_MAX_PATH bytes. */
void index_trail_init(struct index_trail *trail, const char *path, size_t len);
/* *RET is followed by what is still to come, to index_trail_end(). */
bool index_trail_next(struct index_trail *trail, const char **ret, size_t *ret_len);
/* Puts a symlink's target before the rest. False when there were too many. */
bool index_trail_follow(struct index_trail *trail, const char *target, size_t len);

/* --- the builder --- */

/* Open addressing, linear probing; nothing is ever taken out. A slot is hash << 32 | value + 1,
 * 0 when free. */
struct index_table {
	uint64_t *slots;
	uint32_t mask; /* slots - 1; meaningless without slots */
	uint32_t used;
};

struct build_inode {
	int64_t mtime_sec;
	uint64_t size;
	uint64_t data; /* as in index_inode_rec, but targets are in the arena */
	uint32_t mtime_nsec;
	uint32_t attr;
	uint32_t name; /* directories: their build_name */
	uint32_t nchunks;
	/* set by index_builder_finish: */
	uint32_t count;	 /* names; of a directory: children */
	uint32_t extra;	 /* subdirectories; names placed in the links so far */
	uint32_t number; /* in the file; INDEX_NONE: not in it */
	uint32_t first;	 /* a directory's first child; else as index_inode_rec.name */
};

/* (dir, name) is unique; what the name stands for changes. */
struct build_name {
	uint32_t dir;
	uint32_t str; /* in the arena */
	uint32_t ino;
};

/*
 * Directories are never renamed, so a directory's inode is greater than its parent's. A dropped
 * subtree is only cut off at its top; index_builder_finish finds what is still reached.
 */
struct index_builder {
	struct build_inode *inodes;
	uint32_t ninodes, inodes_cap;
	struct build_name *names;
	uint32_t nnames, names_cap;
	struct index_attr_rec *attrs;
	uint32_t nattrs, attrs_cap;
	struct index_extent_rec *extents;
	uint32_t nextents, extents_cap;
	struct index_point_rec *points; /* .window counts from the start of windows */
	uint32_t npoints, points_cap;
	struct index_chunk_rec *chunks;
	uint32_t nchunks;
	uint32_t last_file; /* that the last member made; INDEX_NONE: none */
	struct index_table name_table, attr_table, xattr_table;
	uint64_t seed; /* so that nobody can make names collide */
	uint64_t max;  /* bytes of a file; what has more is given up before it is all in memory */
	struct buf arena;
	struct buf windows;
	struct packer *packer; /* NULL until there is a window */
	struct buf scratch;
	uint64_t replaced; /* how often a name came to stand for something else */
	/* The directory that the last member's parent path led to, when .replaced was so. */
	struct buf parent_path;
	uint32_t parent_dir; /* INDEX_NONE: none yet */
	uint64_t parent_replaced;
};

/* Room for one more record of SIZE bytes in *ARRAY. 0 or -ENOMEM. */
int index_grow(void *array, uint32_t len, uint32_t *cap, size_t size);
/* The name NAME of DIR, or INDEX_NONE. */
uint32_t index_intern_find(const struct index_builder *builder, uint32_t dir, const char *name,
			   size_t len);
/* Adds it; it must not be there. */
int index_intern_name(struct index_builder *builder, uint32_t dir, const char *name, size_t len,
		      uint32_t *ret);
int index_intern_attr(struct index_builder *builder, const struct index_attr_rec *attr,
		      uint32_t *ret);
int index_intern_xattrs(struct index_builder *builder, const struct tar_xattr *xattrs, size_t n,
			uint64_t *ret);

static inline bool build_is(const struct index_builder *builder, uint32_t ino, uint32_t type)
{
	return (builder->attrs[builder->inodes[ino].attr].mode & S_IFMT) == type;
}

#endif
