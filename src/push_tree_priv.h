/* SPDX-License-Identifier: Apache-2.0 */
/*
 * push_tree, inside. Shared by push_tree*.c alone.
 *
 *   push_tree.c           what kind of tree it is, and the verdict
 *   push_tree_tar.c       rootfs/ as one reproducible tar
 *   push_tree_build.c     layer, config and manifest of an image
 *   push_tree_base.c      the image below, and its blobs
 *   push_tree_artifact.c  files/ as an artifact
 *   push_tree_layout.c    an OCI layout, published when it is whole
 *   push_tree_plan.c      which image a layout holds, and what is missing
 *   push_tree_blobs.c     its blobs, travelling as they come
 */
#ifndef REGFS_PUSH_TREE_PRIV_H
#define REGFS_PUSH_TREE_PRIV_H

#include "push_priv.h"
#include "regfs/push_tree.h"

#define TREE_ROOTFS	   "rootfs"
#define TREE_BASE	   "base"
#define TREE_CONFIG	   "config.json"
#define TREE_FILES	   "files"
#define TREE_MEDIA_TYPE	   "user.regfs.media_type"    /* of a file of an artifact */
#define TREE_ARTIFACT_TYPE "user.regfs.artifact_type" /* of files/ */
#define PUSH_WHY_MAX	   240

struct push_tree {
	struct push *push;
	struct stage *stage;
	struct blobs *blobs;
	const struct oci_platform *platform;
	struct travels *travels;
	/* guarded by push->lock */
	uint64_t judged; /* the version that the verdict is about; 0: none */
	int verdict;
	struct digest published; /* of a layout; .algo DIGEST_NONE: nothing */
};

/* Its tag now; false, and "": it is a temporary. For who does not have the turn. */
bool push_tree_tag(struct push_tree *tree, char out[static REF_TAG_MAX]);
/* Whether something of that name, at the top, has a meaning. */
bool push_tree_is_part(const char *name);
/* Reads a whole file of the tree, at most MAX bytes (-EFBIG). */
int push_tree_read(struct stage_inode *file, size_t max, struct buf *ret);
/* The digest of a file's bytes, hashed by ALGO. */
int push_tree_digest(struct stage_inode *file, enum digest_algo algo, struct wait *wait,
		     struct digest *ret);
/* Sends bytes as a blob. */
int push_tree_send_bytes(struct push_run *run, const void *data, size_t len,
			 const struct digest *digest);
/* A file of the tree as a blob's bytes: store_source's read, with ARG the inode. */
ssize_t push_tree_source(void *arg, uint64_t off, void *buf, size_t cap);

/* --- push_tree_tar.c --- */

struct tree_tar;
/* All below ROOT, sorted; while it lives the tree stays frozen. */
int push_tree_tar_new(struct push_tree *tree, struct stage_inode *root, struct wait *wait,
		      struct tree_tar **ret);
void push_tree_tar_free(struct tree_tar *tar);
/* Its bytes; any thread, many at once. */
const struct store_source *push_tree_tar_source(const struct tree_tar *tar);

/* --- push_tree_base.c --- */

/* The image below: of the platform wanted, with its config. Each field as long as .image is held.
 */
struct tree_base {
	struct image *image;
	const struct oci_manifest *manifest;
	const char *config;
	size_t config_len;
};
int push_tree_base_open(struct push_tree *tree, const struct push_base *base, struct wait *wait,
			struct tree_base *ret);
void push_tree_base_release(struct tree_base *base);
/* Brings the layers of BASE to the push's repository. */
int push_tree_base_send(struct push_run *run, struct push_tree *tree, const struct tree_base *base,
			struct wait *wait);

/* --- the kinds; each with the tree frozen but for the layout --- */

int push_tree_build(struct push_tree *tree, const struct push_base *base, struct wait *wait);
int push_tree_artifact(struct push_tree *tree, struct wait *wait);

/* --- push_tree_layout.c --- */

/* The verdict if the layout is whole; if it is not, 0, or (MUST_BE_WHOLE) -EINVAL. As
 * push_tree_sync(). */
int push_tree_layout_judge(struct push_tree *tree, bool must_be_whole, struct wait *wait);
bool push_tree_layout_is_confirmed(struct push_tree *tree);

/* --- push_tree_plan.c --- */

struct layout_plan {
	uint64_t version; /* of the tree, as it was planned */
	int error;	  /* with .why */
	char why[PUSH_WHY_MAX];
	struct digest top;		    /* of the image that index.json means */
	struct archive_document *documents; /* the lowest first, the top last; .manifest unused */
	size_t ndocuments;
	struct layout_part {
		struct digest digest;
		uint64_t size;
		struct stage_inode *inode; /* held */
		bool layer;		   /* of an image that can be run */
	} * parts;			   /* without repetition */
	size_t nparts;
};
/* 0: it is whole; -ENODATA: something is missing; -EINVAL: something is wrong; both with .why.
 * ONLY_TOP: no more than which image it is. */
int layout_plan_make(struct push_tree *tree, bool only_top, struct layout_plan *ret);
/* Borrowed, or NULL. */
struct layout_part *layout_plan_part(const struct layout_plan *plan, const struct digest *digest);
void layout_plan_release(struct layout_plan *plan);

/* --- push_tree_blobs.c --- */

struct travels *travels_new(struct push_tree *tree);
/* Calls off what is under way, and waits for its end. NULL is fine. */
void travels_free(struct travels *travels);
/* The file is said to be the blob of DIGEST: if it is, it is sent. */
void travels_offer(struct travels *travels, struct stage_inode *inode, const struct digest *digest);
/* Waits for the file if it is under way. 1: the store has it, and RET_INSIDE says what it decodes
 * to; 0: it is for the caller to send. */
int travels_await(struct travels *travels, struct stage_inode *inode, const struct digest *digest,
		  struct wait *wait, struct push_inside *ret_inside);

#endif
