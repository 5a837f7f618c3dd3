/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_priv: what the files of the image room share.
 *
 * An image is made whole from its manifest and never changes; config, merged tree and layer trees
 * are added when first asked for, each once. Nobody's reference gone, it stays among the idle
 * ones for a while.
 */
#ifndef REGFS_IMAGE_PRIV_H
#define REGFS_IMAGE_PRIV_H

#include "regfs/image.h"

struct image_tree {
	struct image *image; /* the one it is part of */
	unsigned layer;
	struct rootfs *rootfs; /* NULL until asked for; guarded by image->lock, set once */
};

struct image {
	struct images *images;
	struct store *store;
	char *repo;
	struct digest digest;
	struct oci_manifest manifest;
	struct buf bytes;
	/* guarded by images->lock */
	unsigned refs;
	struct image *next; /* most recently used first */
	/* guarded by .lock, set once */
	pthread_mutex_t lock;
	bool has_config;
	struct oci_config config;
	struct buf config_bytes;
	struct rootfs *rootfs;
	struct image_tree *trees; /* manifest.nlayers of them */
};

/* A question under way, for those who ask the same. */
struct flight {
	const char *key;
	struct wait_queue waiters;
	struct flight *next;
};

struct images {
	struct images_options options;
	pthread_mutex_t lock;
	struct image *images;	/* guarded by lock */
	struct flight *flights; /* guarded by lock */
};

/* Joins the question KEY: 1 where the caller is to ask (and then to call flight_end), 0 where
 * somebody else just did, -EINTR, -EWOULDBLOCK. FLIGHT is the caller's, on its stack. */
int flight_begin(struct images *images, struct flight *flight, const char *key, struct wait *wait);
void flight_end(struct images *images, struct flight *flight);

/* Keeps a manifest as given by STORE for REPO. */
void record_manifest(struct images *images, struct store *store, const char *repo,
		     const struct store_manifest *manifest);
/* What is kept of DIGEST for REPO, hashed again. 0 or -ENOENT. The caller releases. */
int recall_manifest(struct images *images, struct store *store, const char *repo,
		    const struct digest *digest, struct store_manifest *ret);

/* Whether ERROR means that the store cannot be reached or does not work just now. */
bool image_store_gone(int error);

/* Drops what image_content.c made. */
void image_content_release(struct image *image);

#endif
