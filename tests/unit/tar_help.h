/* SPDX-License-Identifier: Apache-2.0 */
/* tar_help: archives in memory, and their members kept to look at, for the tests of tar. */
#ifndef TESTS_TAR_HELP_H
#define TESTS_TAR_HELP_H

#include "regfs/tar.h"

#define ARCHIVE_MAX (4 * MIB)

extern const struct tar_member plain_member; /* a file of 5 bytes */

/* What a scan found; everything is owned. */
struct seen {
	struct tar_member *members;
	size_t count;
	bool marker;
	int rc;
	char why[200];
	uint64_t source_read; /* bytes the source gave or skipped */
};

struct scan_options {
	size_t piece;	/* bytes the source gives at a time; 0: all */
	bool skip;	/* the source can skip */
	uint64_t zeros; /* bytes of zeros behind the first HEAD bytes, not in memory */
	size_t head;
	int skip_fails_with;
	int fail_with; /* the source's error at its end, and where it is asked to skip */
};

void scan_bytes(const void *data, size_t len, const struct scan_options *options, struct seen *ret);
void seen_release(struct seen *seen);
/* The member with that path; fails the test if there is none. */
const struct tar_member *seen_find(const struct seen *seen, const char *path);

/* Appends header blocks, DATA (member->size bytes) and padding; the end marker. */
void add_member(struct buf *archive, const struct tar_member *member, const void *data);
void add_end(struct buf *archive);

/* Appends a header by hand: fields as text, the checksum computed. */
struct raw_header {
	const char *name;
	char type;
	const char *linkname;
	const char *size; /* NULL: "0" */
	const char *uid;
	const char *mtime;
	const char *magic; /* NULL: ustar */
};
void add_raw(struct buf *archive, const struct raw_header *header);
void fix_checksum(char *block);
/* A PAX header of one record or several: "KEY=VALUE\n" without lengths. */
void add_pax(struct buf *archive, const char *const *records, size_t count);
/* LEN bytes of PATTERN, over and over, and a NUL. */
void fill_name(char *name, size_t len, const char *pattern);
void add_bytes(struct buf *archive, const void *data, size_t len);

void assert_same_member(const struct tar_member *a, const struct tar_member *b);

#endif
