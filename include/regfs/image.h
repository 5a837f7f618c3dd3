/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image: from a reference to an immutable image: manifest, config, layers, platforms.
 * Knows manifests and the cache of them. Must not know FUSE or names in the tree.
 *
 * Images are shared by (store, repository, digest) and counted. Any thread.
 */
#ifndef REGFS_IMAGE_H
#define REGFS_IMAGE_H

#include "regfs/layer.h"
#include "regfs/oci.h"
#include "regfs/rootfs.h"

struct images;
struct image;

struct images_options {
	struct blobs *blobs;
	struct layers *layers;
	struct cache *cache;
	const struct oci_platform *platform; /* copied by reference: outlives the images */
	bool offline;
	int64_t tag_ttl_ms; /* how long a list of referrers is believed */
	/* Hosts and "HOST/path" whose published SOCI indexes are used though no manifest vouches
	 * for them; ends in NULL; NULL: none. Outlives the images. */
	char *const *trust_index;
	struct pool *prefetch; /* runs what image_entered() starts; NULL: nothing is prefetched */
	struct pool *traces;   /* runs what image_reads() starts; NULL: no run is recorded */
};
struct images *images_new(const struct images_options *options);
/* Ends what goes on behind requests and waits for that: before the stores go, which it uses. No
 * request comes any more. NULL is fine. */
void images_stop(struct images *images);
/* NULL is fine. */
void images_free(struct images *images);

/*
 * The digest that TAG of REPO names: asks the store, and remembers the answer in the cache; where
 * the store is gone (-EHOSTUNREACH, -ECONNREFUSED, -ETIMEDOUT, -EIO on 5xx) the last known one
 * serves, and the log says so. Fetches the manifest with it, so that image_open needs no request.
 */
int image_resolve(struct images *images, struct store *store, const char *repo, const char *tag,
		  struct wait *wait, struct digest *ret);
/* The store has confirmed that TAG names DIGEST: what the last known one is by now. */
void image_remember_tag(struct images *images, struct store *store, const char *repo,
			const char *tag, const struct digest *digest);
/* Forgets what is remembered of a tag (it was pushed, or deleted). */
void image_forget_tag(struct images *images, struct store *store, const char *repo,
		      const char *tag);

/* Forgets that REPO holds the manifest (it was deleted). */
void image_forget_manifest(struct images *images, struct store *store, const char *repo,
			   const struct digest *digest);

/* The image of DIGEST in REPO. The manifest comes from the cache if this repository is known to
 * hold it, else from the store. The caller unrefs. */
int image_open(struct images *images, struct store *store, const char *repo,
	       const struct digest *digest, struct wait *wait, struct image **ret);
/* TAG led to the image: what it has elsewhere under names that are made of its tag (eStargz's
 * external tables) can be found. The first one is kept. */
void image_tagged(struct image *image, const char *tag);
struct image *image_ref(struct image *image);
void image_unref(struct image *image);

/* Constant while the image is held. */
const struct digest *image_digest(const struct image *image);
const struct oci_manifest *image_manifest(const struct image *image);
void image_manifest_bytes(const struct image *image, const char **ret, size_t *ret_len);
struct store *image_store(const struct image *image);
const char *image_repo(const struct image *image);

/* Of an index: the chosen platform's image, or -ENOENT. Of a manifest: itself, again counted. */
int image_platform(struct image *image, struct wait *wait, struct image **ret);
/* Of an index: child N (any child). */
int image_child(struct image *image, size_t n, struct wait *wait, struct image **ret);

/*
 * A layer by its digest, or by that of its table of contents, in an image or (of an index) in the
 * chosen platform's, else in another's. The same layer twice: the upper one. -ENOENT. The caller
 * unrefs ret->image.
 */
struct image_part {
	struct image *image;
	unsigned layer;
};
int image_find_layer(struct image *image, const struct digest *digest, struct wait *wait,
		     struct image_part *ret);
/* Notes in the cache in which image a layer was found, and finds it there again: whoever uses a
 * layer may do so for longer than the tag stands that he knows it by. */
struct image_layer_name {
	struct store *store;
	const char *repo, *tag;
	const struct digest *digest;
};
void image_note_layer(const struct image_layer_name *name, const struct image_part *part);
int image_noted_layer(struct images *images, const struct image_layer_name *name, struct wait *wait,
		      struct image_part *ret);

/*
 * What refers to an image: signatures, SBOMs, attestations (whatever has it as its subject). A list
 * is constant, and counted; it is asked for once in tag_ttl; where the store is gone, the last
 * known one serves.
 */
struct referrers {
	struct oci_descriptor *list; /* by digest, each once */
	size_t n;
	struct timespec read_at;
	/* image_referrers.c's */
	unsigned refs;
	int64_t until_ms;
	uint64_t generation;
};
int image_referrers(struct image *image, struct wait *wait, struct referrers **ret);
/* The last list if there is one, else NULL; FRESH: it would not be asked for again now. */
struct referrers *image_referrers_known(struct image *image, bool *ret_fresh);
void referrers_unref(struct image *image, struct referrers *referrers);

/* The rest is for manifests (-EINVAL on an index). */
/* Config bytes and parsed; both live as long as the image. */
int image_config(struct image *image, struct wait *wait, const struct oci_config **ret);
int image_config_bytes(struct image *image, struct wait *wait, const char **ret, size_t *ret_len);
/* Layer N from 0 at the bottom, indexed. */
int image_layer(struct image *image, unsigned n, struct wait *wait, struct layer **ret);
/* The merged tree; lives as long as the image. -EOPNOTSUPP for artifacts. */
int image_rootfs(struct image *image, struct wait *wait, struct rootfs **ret);
/* Somebody went into the merged tree: its layers are brought in behind whatever is asked for, one
 * after the other, if the images were told to. Does not wait. */
void image_entered(struct image *image);
/*
 * LEN bytes at OFF of file INO of layer N are about to be read. The first while of an image's use
 * is its *run*: from its first read on until nothing new was read for some seconds. What was read
 * in it, and in which order, is kept in the cache by the image's digest; and where there is such a
 * record, it is replayed at the first read: what the run will need is brought in before it is asked
 * for. Does not wait.
 */
void image_reads(struct image *image, unsigned n, uint32_t ino, uint64_t off, size_t len);
/* How a layer's own tree looks: as stored, or as overlayfs stacks it on those below. */
enum image_form { IMAGE_STORED, IMAGE_STACKED, IMAGE_FORMS };
/* Layer N's own tree; lives as long as the image. */
int image_layer_tree(struct image *image, unsigned n, enum image_form form, struct wait *wait,
		     struct rootfs **ret);
/* What trees have in common whose files have the same numbers, whatever image or repository they
 * are reached by: merged ones, and those of layers. A layer as stored is the same in all images, as
 * overlayfs stacks it, it depends on those below; and a table of contents by which a layer is read
 * may number its files in its own way. After the tree was made. */
void image_tree_files(struct image *image, struct digest *ret);
void image_layer_tree_files(struct image *image, unsigned n, enum image_form form,
			    struct digest *ret);
/* How to read blob DESCRIPTOR of this image raw. */
void image_blob_id(const struct image *image, const struct oci_descriptor *descriptor,
		   struct blob_id *ret);
/* The history line that made layer N ("" if the config has none); borrowed. */
int image_created_by(struct image *image, unsigned n, struct wait *wait, const char **ret);

#endif
