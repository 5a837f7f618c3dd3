/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tar: the bytes of a tar archive to members, and members to headers.
 * Pure: no descriptor, no lock. Reading is libarchive's (tar only, no filters), fed by a
 * callback. Must not know compression, and must not know what whiteouts are.
 *
 * ustar, PAX (POSIX.1-2001 pax, "pax Interchange Format"), GNU long names and base-256
 * numbers, GNU sparse 0.0, 0.1, 1.0 and old.
 */
#ifndef REGFS_TAR_H
#define REGFS_TAR_H

#include "regfs/buf.h"

struct tar_xattr {
	const char *name;
	const void *value;
	size_t len;
};

struct tar_extent {
	uint64_t off; /* in the file */
	uint64_t len;
};

/* One member; everything it points to is borrowed for the callback. */
struct tar_member {
	const char *path;      /* as in the archive: raw bytes, not cleaned */
	const char *hard_link; /* target as in the archive, or NULL */
	const char *symlink;   /* target, or NULL */
	uint32_t mode;	       /* S_IFMT and permission bits; S_IFREG for hard links */
	uint32_t uid, gid;
	uint64_t size; /* of the file as seen (sparse expanded); 0 for all but regular files */
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	uint32_t rdev_major, rdev_minor;
	uint64_t header_off; /* of the first header of the member in the (decoded) stream */
	uint64_t data_off;   /* of the data in the stream; extents follow each other there */
	const struct tar_xattr *xattrs;
	size_t nxattrs;
	const struct tar_extent
		*extents; /* data extents, ascending; none and !sparse: one of .size */
	size_t nextents;
	bool sparse;
};

/* Gives the next bytes: > 0 and *RET borrowed until the next call, 0 at the end, or a
 * negative errno, which tar_scan returns. */
typedef ssize_t tar_source_fn(void *arg, const void **ret);
/* Called for each member in order. Non-zero ends the scan and is returned. */
typedef int tar_member_fn(void *arg, const struct tar_member *member);

/* Skips LEN bytes of the source cheaply: returns how many it skipped (0 to LEN; the rest is
 * read), or a negative errno. For sources that can seek. */
typedef int64_t tar_skip_fn(void *arg, int64_t len);

struct tar_source {
	tar_source_fn *read;
	tar_skip_fn *skip; /* may be NULL */
	void *arg;
	bool to_marker; /* the scan ends with the end marker: what follows may not have come yet */
};

/*
 * Walks the archive up to its end marker (two zero blocks) or, if it has none, to a clean
 * end between members, then reads the source to its end. 0; -EINVAL for a damaged or
 * cut-off archive, with a sentence in RET_WHY (at most WHY_LEN bytes); the source's or the
 * callback's error. *RET_MARKER (may be NULL): whether an end marker was seen. An empty
 * source is an empty archive.
 */
int tar_scan(const struct tar_source *source, tar_member_fn *fn, void *arg, bool *ret_marker,
	     char *ret_why, size_t why_len);

/*
 * Appends the header blocks of MEMBER (with a PAX header where ustar cannot hold it: long
 * names, large sizes and ids, nanoseconds, xattrs) to RET. Only path, hard_link, symlink,
 * mode, uid, gid, size, mtime, rdev and xattrs count. The data, padded to 512, is the caller's.
 * Deterministic. 0, -ENOMEM, -EFBIG, -EINVAL (empty path).
 */
int tar_header(const struct tar_member *member, struct buf *ret);
static inline uint64_t tar_padding(uint64_t size)
{
	return -size & 511;
}
#define TAR_TRAILER 1024 /* zero bytes that end an archive */

#endif
