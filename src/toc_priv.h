/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the room `toc` share: toc.c (annotations, footers, unpacking), toc_json.c (the
 * JSON to entries), toc_index.c (entries to members and chunks), toc_zeros.c (pieces of zeros).
 */
#ifndef REGFS_TOC_PRIV_H
#define REGFS_TOC_PRIV_H

#include "regfs/toc.h"

#define TOC_XATTRS_MAX 1024

enum toc_type {
	TOC_REG,
	TOC_DIR,
	TOC_SYMLINK,
	TOC_HARDLINK,
	TOC_CHAR,
	TOC_BLOCK,
	TOC_FIFO,
	TOC_CHUNK, /* goes on with the file before it */
};

/* One entry as the table has it; numbers are not negative. Strings are borrowed for the call that
 * gives it. */
struct toc_entry {
	enum toc_type type;
	const char *name;
	const char *link; /* "" where absent */
	uint32_t mode, uid, gid, major, minor;
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	uint64_t size;
	uint64_t off, end_off; /* in the blob; end_off 0: not said */
	uint64_t inner_off;    /* in what is decoded from there on */
	uint64_t chunk_off, chunk_size;
	bool zeros;
	struct digest digest, chunk_digest; /* DIGEST_NONE where absent */
	const struct tar_xattr *xattrs;
	size_t nxattrs;
};

typedef int toc_entry_fn(void *arg, const struct toc_entry *entry);

/* Calls FN for each entry in order; its non-zero ends the walk and is returned. What FN says is
 * wrong it puts into *RET_WHY. 0, -EINVAL, -ENOMEM. */
int toc_each(const struct buf *json, toc_entry_fn *fn, void *arg, const char **ret_why);

/* Of CHUNKS those that are zeros (.in_len is 0), and have a digest, against it. 0; -EINVAL: one is
 * not its; -ENOMEM. */
int toc_zeros_check(const struct index_chunk *chunks, size_t n);

#endif
