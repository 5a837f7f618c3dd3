/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index: the table of one layer: its names, inodes and resume points, as a compact file
 * that is mapped and used in place.
 * Pure: built into memory, read from (pointer, length). Must not know other layers, where
 * the file lies, or what a whiteout means (they are names like any other here).
 *
 * The file is not trusted: opening checks magic, version, size and the CRC-64 of the
 * whole, and each accessor checks the bounds of what it touches, so that a damaged file gives
 * -EIO and never a wild read. Little-endian; a file of another version is -ESTALE (rebuilt).
 *
 * Inode 0 is the layer's root. Names are sorted bytewise within their directory. What a
 * tar says is applied in order (the last entry of a name wins; a hard link is resolved when
 * it is met, so that a name replaced later keeps its inode alive through the link):
 *  - paths are cleaned: "./", leading "/", empty and "." components go; a ".." is resolved within
 *    the root and cannot leave it;
 *  - a parent that was not named is an implicit directory (INDEX_IMPLICIT, 0755 0:0); one that
 *    is a symlink of this layer is followed within the layer (40 at most), one that is another
 *    non-directory is replaced by an implicit directory (a name that begins with ".wh." below
 *    one is left out: it has nothing to hide);
 *  - a directory entry over a directory replaces its attributes and keeps its children; any
 *    other replacement drops the old subtree;
 *  - a hard link whose target this layer does not have is kept by its target's path
 *    (INDEX_LINK_OUT: resolved in lower layers by rootfs), cleaned and with this layer's
 *    symlinks followed; one to a directory of this layer by an empty path, which is nowhere;
 *  - an entry for the root that is no directory is passed over.
 *
 * An index is made either from all of the layer's bytes, with resume points, or from a table of
 * contents: with the chunks that its files consist of (toc.h), or with the spans that the stream
 * does (ztoc.h).
 */
#ifndef REGFS_INDEX_H
#define REGFS_INDEX_H

#include "regfs/buf.h"
#include "regfs/codec.h"
#include "regfs/digest.h"
#include "regfs/tar.h"

#define INDEX_VERSION 3
#define INDEX_ROOT    0
#define INDEX_NONE    UINT32_MAX
#define INDEX_MAX     ((size_t)1 << 30) /* bytes of a file */

enum {
	INDEX_IMPLICIT = 1, /* a directory no entry named (on the root: no "./" entry) */
	INDEX_LINK_OUT = 2, /* a hard link out of the layer: target in .symlink */
	INDEX_SPARSE = 4,
	INDEX_XATTRS = 8,
	INDEX_WHITEOUTS = 16, /* a directory with a name that begins with ".wh." */
};

struct index_inode {
	uint32_t mode; /* with S_IFMT; S_IFREG for LINK_OUT */
	uint32_t uid, gid;
	uint32_t flags;
	uint32_t nlink; /* names in this layer; directories: 2 + subdirectories */
	uint64_t size;	/* regular files, symlinks (the target's length); 0 for others */
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	uint32_t rdev_major, rdev_minor;
	uint64_t data_off;    /* in the decoded stream; of no meaning where the file has chunks */
	uint32_t nchildren;   /* directories */
	uint32_t parent;      /* directories: the parent's inode; the root is its own */
	uint32_t first_child; /* directories: position of its first name */
	uint32_t nextents;
	uint32_t first_extent;
	uint32_t nchunks; /* by_toc; 0 where nothing vouches for the file's pieces */
	uint32_t first_chunk;
};

/* A piece of a regular file that can be had by itself: decoded from the first byte of a gzip member
 * or zstd frame on. A file's chunks follow each other without gaps. Of an index by_spans: a piece
 * of the stream, decoded from the resume point of the same number on. */
struct index_chunk {
	uint64_t off;			/* in the file, or the stream */
	uint64_t in_off;		/* of the member or frame, in the blob */
	uint32_t len;			/* decoded */
	uint32_t in_len;		/* bytes of the blob that hold it; 0: it is zeros */
	uint32_t inner_off;		/* decoded bytes before it */
	uint8_t digest[DIGEST_KEY_LEN]; /* SHA-256 of its bytes; of a span: of those in the blob */
};

struct index_name {
	const char *name; /* not NUL-terminated; borrowed from the map */
	size_t len;
	uint32_t ino;
	uint32_t dir; /* the inode of the directory it stands in */
};

/* What the layer is, beside its table. */
struct index_info {
	struct digest blob;
	uint64_t blob_size;
	uint64_t decoded_size;
	enum codec codec;
	bool keep_decoded;     /* no usable points: the decoded output is kept instead */
	bool by_toc;	       /* made from a table of contents: not from the bytes */
	bool by_spans;	       /* by_toc, and the chunks are those of the stream, not of files;
				* else, by_toc, decoded_size is not known */
	struct digest diff_id; /* of the decoded bytes; DIGEST_NONE if it was not computed */
	uint32_t ninodes, nnames, npoints, nchunks;
};

/* --- building --- */

struct index_builder;
struct index_builder *index_builder_new(void);
void index_builder_free(struct index_builder *builder);
void index_builder_cleanup(struct index_builder **builder);
/* 0; -ENOMEM; -EINVAL (a member that cannot be: names over 4096 bytes or a component over 255,
 * xattrs or extents beyond what Linux can have); -EFBIG (the file would be over INDEX_MAX). Copies.
 * After a failure the builder is only to be freed. */
int index_builder_member(struct index_builder *builder, const struct tar_member *member);
/* In ascending order, else -EINVAL. The window is packed here. One at the stream's start is passed
 * over, as that is always there. */
int index_builder_point(struct index_builder *builder, const struct codec_point *point);
/* The file that the last index_builder_member() made, if it made a regular one, consists of chunks
 * FIRST … FIRST + N - 1 of those that index_builder_chunks() gives. */
void index_builder_file_chunks(struct index_builder *builder, uint32_t first, uint32_t n);
/* All chunks, once. Copies. 0 or -ENOMEM. */
int index_builder_chunks(struct index_builder *builder, const struct index_chunk *chunks,
			 uint32_t n);
/* Appends the file to RET; .ninodes, .nnames, .npoints and .nchunks of INFO are filled in. Once. 0,
 * -ENOMEM, -EFBIG (RET's max), -EINVAL (a path over 4096 bytes, which it became through a symlink).
 */
int index_builder_finish(struct index_builder *builder, struct index_info *info, struct buf *ret);

/* Puts DIFF_ID into a whole index file that has none. 0 or -EIO (no index file). */
int index_set_diff_id(struct buf *file, const struct digest *diff_id);

/* --- reading; all are safe on damaged files and from any thread --- */

struct index {
	const uint8_t *data; /* borrowed: the map */
	size_t len;
	struct index_info info;
	const void *priv[9]; /* section starts */
	uint64_t limit[9];
};

/* 0, -EIO (damaged), -ESTALE (another version). */
int index_open(const void *data, size_t len, struct index *ret);
int index_inode(const struct index *index, uint32_t ino, struct index_inode *ret);
/* The name NAME of directory DIR: 0, -ENOENT, -ENOTDIR, -EIO. */
int index_lookup(const struct index *index, uint32_t dir, const char *name, size_t len,
		 struct index_name *ret);
/* What stands at PATH, components with single slashes ("": the root): 0, as index_lookup(). */
int index_resolve(const struct index *index, const char *path, size_t len, uint32_t *ret);
/* The N-th name (0 … nchildren - 1) of DIR, in order. */
int index_child(const struct index *index, uint32_t dir, uint32_t n, struct index_name *ret);
/* The N-th name (0 … nlink - 1) of a non-directory, or the only one (N = 0) of a directory. */
int index_name_of(const struct index *index, uint32_t ino, uint32_t n, struct index_name *ret);
/* The path of directory DIR from the root, "" for the root, without slashes at its ends, into OUT.
 * Length, or -ENAMETOOLONG, -EIO. */
ssize_t index_path(const struct index *index, uint32_t dir, char *out, size_t cap);
/* Symlink (or LINK_OUT) target; borrowed, not NUL-terminated. -EINVAL for others. */
int index_target(const struct index *index, uint32_t ino, const char **ret, size_t *ret_len);
/* N-th xattr; -ENODATA past the last. Borrowed. */
int index_xattr(const struct index *index, uint32_t ino, uint32_t n, struct tar_xattr *ret);
/* N-th data extent of a sparse file; -ENODATA past the last (and for what is not sparse). */
int index_extent(const struct index *index, const struct index_inode *inode, uint32_t n,
		 struct tar_extent *ret);
/* The N-th chunk of a regular file; -ENODATA past the last. */
int index_chunk(const struct index *index, const struct index_inode *inode, uint32_t n,
		struct index_chunk *ret);
/* The number of the chunk of INODE, which has some, that holds byte OFF; the last one past the
 * end. */
uint32_t index_chunk_at(const struct index *index, const struct index_inode *inode, uint64_t off);
/* The N-th (0 … npoints - 1) resume point. *RET's window is unpacked into WINDOW
 * (CODEC_WINDOW bytes), which may be NULL if only offsets are wanted. Point 0 is always the
 * stream's start. */
int index_point(const struct index *index, uint32_t n, uint8_t *window, struct codec_point *ret);
/* The last point at or before OUT_OFF. */
uint32_t index_point_before(const struct index *index, uint64_t out_off);
/* The N-th LINK_OUT inode of the layer, ascending; -ENOENT past the last. */
int index_link_out(const struct index *index, uint32_t n, uint32_t *ret_ino);

#endif
