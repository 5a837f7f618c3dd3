/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imagedir_priv: how an image directory numbers its files, and what its files share.
 */
#ifndef REGFS_IMAGEDIR_PRIV_H
#define REGFS_IMAGEDIR_PRIV_H

#include "regfs/archive.h"
#include "regfs/imagedir.h"

/* A sub is a class and a number; class 0 are the names of the directory itself. */
enum imagedir_class {
	CLASS_TOP,
	CLASS_LAYER,	/* layers/NN.tar.gz: the layer's number from 0 */
	CLASS_OCI_FILE, /* oci/…: the file's number in the archive map */
	CLASS_OCI_DIR,	/* oci/blobs, oci/blobs/sha256: enum oci_dir */
	CLASS_FILE,	/* files/…: the file's number in the table of titles */
	CLASS_FILE_DIR, /* files/…/: imagedir_artifact.c's */
};

enum imagedir_sub {
	SUB_DIR,
	SUB_DIGEST,
	SUB_MANIFEST,
	SUB_CONFIG,
	SUB_HISTORY,
	SUB_ROOTFS, /* a node of its own */
	SUB_LAYERS,
	SUB_TAR,
	SUB_OCI,
	SUB_PLATFORMS,
	SUB_REFERRERS,
	SUB_FILES,
};

#define SUB(class, number) ((uint64_t)(class) << 32 | (number))
#define LAYER_NAME_MAX	   32

static inline enum imagedir_class sub_class(uint64_t sub)
{
	return sub >> 32;
}

static inline uint32_t sub_number(uint64_t sub)
{
	return (uint32_t)sub;
}

/* The files of an artifact: paths, none of which is a directory of another, in order. */
struct titles {
	size_t n;
	struct titled {
		char *path;
		size_t blob; /* which of the manifest's layers */
	} files[];
};
#define TITLES_PATH_MAX 1024

struct imagedir {
	struct node node;
	const struct context *context;
	struct image *image; /* held */
	struct image
		*main; /* held: the chosen platform's; the same for a single image; NULL: none */
	struct image *index; /* held: the index whose child it was reached as; NULL: none */
	char *ref_name, *repo_tag;
	pthread_mutex_t lock;
	struct archive_map *map; /* guarded by lock; set once, then constant */
	char *history;		 /* guarded by lock; set once, then constant */
	struct titles *titles;	 /* guarded by lock; set once, then constant */
};

struct imagedir *imagedir_of(const struct node_ref *ref);
/* The manifest whose layers and config are shown, or NULL. */
const struct oci_manifest *imagedir_main(const struct imagedir *dir);

/* The entry of one of the directory's own files; of a node of its own (taking its reference). */
int imagedir_entry(struct imagedir *dir, uint64_t sub, struct call *call, struct node_entry *ret);
int imagedir_node_entry(struct node *node, struct call *call, struct node_entry *ret);
/* Hands one name to a listing; POS is the position after it. */
int imagedir_list_name(const struct imagedir *dir, uint64_t pos, const char *name, mode_t type,
		       node_list_fn *fn, void *arg);

/* imagedir_files.c */
int imagedir_getattr(const struct node_ref *ref, struct call *call, struct node_attr *ret);
ssize_t imagedir_read(const struct node_ref *ref, uint64_t off, void *buf, size_t len,
		      struct call *call);

/* imagedir_oci.c: oci/ and image.tar, which are two views of one map. */
int imagedir_map(struct imagedir *dir, struct wait *wait, const struct archive_map **ret);
int imagedir_oci_lookup(struct imagedir *dir, uint64_t sub, const char *name, struct call *call,
			struct node_entry *ret);
int imagedir_oci_list(struct imagedir *dir, uint64_t sub, uint64_t pos, node_list_fn *fn, void *arg,
		      struct call *call);
/* How to read FILE, whose bytes the map does not have. */
struct blob_id imagedir_oci_blob(const struct imagedir *dir, const struct archive_file *file);
ssize_t imagedir_oci_read(struct imagedir *dir, const struct archive_file *file, uint64_t off,
			  void *buf, size_t len, struct wait *wait);
ssize_t imagedir_tar_read(struct imagedir *dir, uint64_t off, void *buf, size_t len,
			  struct wait *wait);

/* imagedir_referrers.c: referrers/ */
int imagedir_referrers_lookup(struct imagedir *dir, const char *name, struct call *call,
			      struct node_entry *ret);
int imagedir_referrers_list(struct imagedir *dir, uint64_t pos, node_list_fn *fn, void *arg,
			    struct call *call);
/* Corrects what the directory's attributes say of time. */
void imagedir_referrers_attr(struct imagedir *dir, struct node_attr *attr);

/* imagedir_artifact.c: files/ */
int imagedir_artifact_lookup(struct imagedir *dir, uint64_t sub, const char *name,
			     struct call *call, struct node_entry *ret);
int imagedir_artifact_list(struct imagedir *dir, uint64_t sub, uint64_t pos, node_list_fn *fn,
			   void *arg);
/* The blob of a file; NULL when memory is short. */
const struct oci_descriptor *imagedir_artifact_blob(struct imagedir *dir, uint64_t sub);

/* imagedir_titles.c; pure */
/* 0 or -ENOMEM. */
int titles_new(const struct oci_manifest *manifest, struct titles **ret);
void titles_free(struct titles *titles);
/* Whether file N is the first that stands for a name of directory DIR ("", "a/b/"): the name is the
 * next LEN bytes of its path. */
bool titles_child(const struct titles *titles, const char *dir, size_t n, size_t *ret_len);

#endif
