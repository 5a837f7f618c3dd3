/* SPDX-License-Identifier: Apache-2.0 */
/*
 * archive_priv: what the files archive_*.c share: paths of blobs, and the members of an archive
 * that is read.
 */
#ifndef REGFS_ARCHIVE_PRIV_H
#define REGFS_ARCHIVE_PRIV_H

#include "regfs/archive.h"

#define ARCHIVE_PATH_MAX    4096
#define ARCHIVE_MEMBERS_MAX (256 * KIB)
#define ARCHIVE_IMAGES_MAX  1024
#define ARCHIVE_BLOBS_MAX   (256 * KIB)
#define ARCHIVE_NAMES_MAX   1024		 /* of one image */
#define ARCHIVE_DOCS_MAX    ((uint64_t)64 * MIB) /* manifests and indexes of all images */

/* containerd's annotation of an entry of index.json: the full reference. */
#define ARCHIVE_CONTAINERD_NAME "io.containerd.image.name"

/* "blobs/sha256/<hex>" */
#define BLOB_PATH_MAX (sizeof("blobs/sha512/") + DIGEST_STR_MAX)
const char *archive_blob_path(const struct digest *digest, char out[static BLOB_PATH_MAX]);

enum member_type { MEMBER_FILE, MEMBER_SYMLINK, MEMBER_HARD_LINK };

struct member {
	char *path;   /* clean: no empty, "." or ".." component */
	char *target; /* of links, as in the archive */
	enum member_type type;
	bool sparse;
	size_t order; /* in the archive */
	struct archive_blob at;
	size_t taken_by; /* the collection (from 1) that has it already */
};

struct archive_table {
	struct member *members; /* sorted by path, then order, once scanned */
	size_t nmembers, members_cap;
};

/* One archive while it is read. */
struct reading {
	const struct archive_input *input;
	struct archive_table *table;
	archive_seen_fn *seen; /* or NULL */
	void *seen_arg;
	uint64_t docs_left; /* bytes of documents that may still be kept */
	size_t collections; /* begun so far; see member.taken_by */
	struct archive *archive;
	char *why;
	size_t why_len;
};

/* Puts a sentence into .why and returns -EINVAL. */
int archive_invalid(struct reading *reading, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Fills .table. 0, -ENODATA, -EINVAL, -ENOMEM, or the input's or .seen's error. */
int archive_scan(struct reading *reading);
/* The last member of that clean path, links followed: NULL if there is none (or no end to the
 * links). */
struct member *archive_find(const struct reading *reading, const char *path);
/* Like it; what cannot be read as one piece is -EINVAL, and so is what is not there: WHAT ("the
 * config") begins the sentence. */
int archive_need(struct reading *reading, const char *what, const char *path, struct member **ret);
/* The whole member, at most MAX bytes, NUL-terminated. The caller frees. */
int archive_read_member(struct reading *reading, const struct member *member, size_t max,
			char **ret);

/* One more, empty. The last one is dropped again by archive_drop_image. 0, -EINVAL, -ENOMEM. */
int archive_add_image(struct reading *reading, struct archive_image **ret);
void archive_drop_image(struct reading *reading);
void archive_document_release(struct archive_document *document);
int archive_add_part(struct reading *reading, struct archive_image *image,
		     const struct digest *digest, const struct member *member);
/* A name the image has already is not added again. */
int archive_add_name(struct reading *reading, struct archive_image *image, const char *name);
void archive_drop_names(struct archive_image *image);

/* The images of an OCI layout; DOCKER are the entries of docker's manifest.json beside it. */
int archive_read_oci(struct reading *reading, const struct docker_archive *docker);

#endif
