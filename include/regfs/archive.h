/* SPDX-License-Identifier: Apache-2.0 */
/*
 * archive: an image as one tar, both ways.
 * Knows the archives of docker save (old and new), podman save, OCI archives. Must not know stores
 * or the network.
 */
#ifndef REGFS_ARCHIVE_H
#define REGFS_ARCHIVE_H

#include "regfs/buf.h"
#include "regfs/digest.h"
#include "regfs/oci.h"

/* --- out: image.tar and oci/, never built, readable anywhere --- */

/* A file of an OCI layout: bytes at hand, or a blob by digest. */
struct archive_file {
	char *path;  /* "oci-layout", "blobs/sha256/<hex>" */
	char *bytes; /* with a NUL behind them; NULL: the blob of .digest */
	struct digest digest;
	uint64_t size;
	uint64_t header_off; /* of its header in image.tar */
	uint64_t data_off;
};

/* An image laid out; immutable once made. */
struct archive_map {
	/* In the order of image.tar: oci-layout, index.json, manifest.json (if there is a docker
	 * manifest), then the blobs by path. Paths are unique. */
	struct archive_file *files;
	size_t nfiles;
	uint64_t size; /* of image.tar */
};

/* One manifest (or index) that goes in, with its bytes. Borrowed. */
struct archive_manifest {
	const struct oci_manifest *manifest;
	const struct digest *digest;
	const char *bytes;
	size_t len;
};

/*
 * An OCI layout of manifests[0] (the image named; the others are its children, if it is an index)
 * and their blobs, plus docker's manifest.json for DOCKER (may be NULL: the manifest that docker
 * load is to take), with REF_NAME ("1.5", may be NULL) and REPO_TAG ("ghcr.io/acme/web:1.5", may be
 * NULL). Children whose blobs are foreign are left as they are. 0, -ENOMEM, -EINVAL.
 */
int archive_map_new(const struct archive_manifest *manifests, size_t nmanifests,
		    const struct oci_manifest *docker, const char *ref_name, const char *repo_tag,
		    struct archive_map **ret);
void archive_map_free(struct archive_map *map);
/* Index of the file by its path, or -1. */
ssize_t archive_map_find(const struct archive_map *map, const char *path);
/* Reads a blob's bytes for archive_read. */
typedef ssize_t archive_blob_fn(void *arg, const struct archive_file *file, uint64_t off, void *buf,
				size_t len);
/* Bytes of image.tar at OFF. Count, short only at the end. FN may give fewer bytes than asked for;
 * its error is returned whatever was read before it, and its 0 is -EIO. */
ssize_t archive_read(const struct archive_map *map, uint64_t off, void *buf, size_t len,
		     archive_blob_fn *fn, void *arg);

/* --- in: what somebody copied into _push --- */

/* Random access to the (decompressed) archive. */
typedef ssize_t archive_pread_fn(void *arg, uint64_t off, void *buf, size_t len);
struct archive_input {
	archive_pread_fn *pread;
	void *arg;
	uint64_t size;
};

/* A blob found in the archive. */
struct archive_blob {
	uint64_t off, len; /* in the archive */
};

/* One image of the archive. */
struct archive_image {
	char **names; /* RepoTags, else containerd's name, else the OCI ref name; may be none */
	size_t nnames;
	/* OCI: the manifest or index to be pushed byte for byte (the last), and for an index its
	 * children before it. An index of which docker save wrote one platform alone is left out,
	 * and that platform's manifest is the image, as for docker push. podman save, and docker
	 * save without containerd's store: nmanifests == 0, also where it wrote (from 25 on) an OCI
	 * layout around the layers it has unpacked: nobody knows that manifest. */
	struct archive_document {
		struct digest digest;
		char *media_type;
		char *bytes;
		size_t len;
		struct oci_manifest manifest;
	} * manifests;
	size_t nmanifests;
	/* The blobs of the image, configs and layers, without repetition. For OCI their digests are
	 * those the manifests say and are not yet checked. For docker save: blobs[0] is the config
	 * and blobs[1 …] are the layers, bottom first, as they stand in the archive (tar, or
	 * compressed), with .digest NONE. */
	struct archive_part {
		struct digest digest;
		struct archive_blob at;
	} * blobs;
	size_t nblobs;
};

struct archive {
	struct archive_image *images;
	size_t nimages;
};

/*
 * Reads the archive's table and documents: both steps below in one. 0; -EINVAL with a sentence
 * (RET_WHY, WHY_LEN bytes) that says what is missing or wrong: no manifest, a missing layer,
 * damaged, cut off; -ENODATA if it is cut off before its end marker (not finished yet); PREAD's
 * error.
 */
int archive_parse(const struct archive_input *input, struct archive **ret, char *ret_why,
		  size_t why_len);

/*
 * In two steps, for an archive that is still arriving. The first walks it to its end marker and
 * calls SEEN for each file in its order, before anything of the file is read; INPUT's pread may
 * wait for the bytes it is to give, INPUT's size be INT64_MAX. Files that are stored with holes
 * are left out. SEEN's error ends the walk and is returned.
 */
struct archive_seen {
	const char *path; /* clean: no empty, "." or ".." component */
	struct archive_blob at;
};
typedef int archive_seen_fn(void *arg, const struct archive_seen *seen);
struct archive_table; /* what is where */
int archive_table_read(const struct archive_input *input, archive_seen_fn *seen, void *arg,
		       struct archive_table **ret, char *ret_why, size_t why_len);
/* The second reads the documents, of at most OCI_CONFIG_MAX bytes each, and nothing else. May be
 * called again. */
int archive_table_images(struct archive_table *table, const struct archive_input *input,
			 struct archive **ret, char *ret_why, size_t why_len);
void archive_table_free(struct archive_table *table);
/* Not archive_free, which libarchive has, and calls. */
void archive_parsed_free(struct archive *archive);

#endif
