/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image: the table of images, and from a digest to an image.
 * Must not know FUSE, nor names in the tree.
 */
#include <errno.h>

#include "regfs/log.h"

#include "image_priv.h"

#define MAX_IDLE    32
#define MAX_NESTING 4 /* of indexes in indexes */

struct images *images_new(const struct images_options *options)
{
	struct images *images = calloc(1, sizeof(*images));

	if (!images)
		return NULL;
	images->options = *options;
	pthread_mutex_init(&images->lock, NULL);
	prefetcher_init(&images->prefetcher);
	tracers_init(&images->tracers);
	return images;
}

static void image_free(struct image *image)
{
	trace_free(image->trace);
	image_content_release(image);
	image_soci_release(image);
	image_apart_release(image);
	referrers_unref(image, image->referrers);
	oci_manifest_release(&image->manifest);
	buf_release(&image->bytes);
	pthread_mutex_destroy(&image->lock);
	free(image->repo);
	free(image);
}

void images_stop(struct images *images)
{
	if (!images || images->stopped)
		return;
	images->stopped = true;
	tracers_stop(images);
	prefetcher_stop(images);
}

void images_free(struct images *images)
{
	if (!images)
		return;
	images_stop(images);
	while (images->images) {
		struct image *image = images->images;

		images->images = image->next;
		image_free(image);
	}
	flights_release(images);
	pthread_mutex_destroy(&images->lock);
	free(images);
}

/* --- the table --- */

/* Lock held. The image, held and moved to the front, or NULL. */
static struct image *table_find(struct images *images, const struct store *store, const char *repo,
				const struct digest *digest)
{
	struct image **at = &images->images;
	struct image *image;

	while (*at && !(!(*at)->deleted && (*at)->store == store &&
			digest_equal(&(*at)->digest, digest) && !strcmp((*at)->repo, repo)))
		at = &(*at)->next;
	image = *at;
	if (!image)
		return NULL;
	*at = image->next;
	image->next = images->images;
	images->images = image;
	image->refs++;
	return image;
}

/* Lock held. Takes the idle images beyond MAX_IDLE out of the table. */
static struct image *table_trim(struct images *images)
{
	struct image *gone = NULL;
	unsigned idle = 0;

	for (struct image **at = &images->images; *at;) {
		struct image *image = *at;

		if (image->refs || (!image->deleted && ++idle <= MAX_IDLE)) {
			at = &image->next;
			continue;
		}
		*at = image->next;
		image->next = gone;
		gone = image;
	}
	return gone;
}

static struct image *table_get(struct images *images, const struct store *store, const char *repo,
			       const struct digest *digest)
{
	struct image *image;

	pthread_mutex_lock(&images->lock);
	image = table_find(images, store, repo, digest);
	pthread_mutex_unlock(&images->lock);
	return image;
}

void image_drop(struct images *images, const struct store *store, const char *repo,
		const struct digest *digest)
{
	struct image *image;

	pthread_mutex_lock(&images->lock);
	image = table_find(images, store, repo, digest);
	if (image)
		image->deleted = true;
	pthread_mutex_unlock(&images->lock);
	image_unref(image);
}

struct image *image_ref(struct image *image)
{
	pthread_mutex_lock(&image->images->lock);
	image->refs++;
	pthread_mutex_unlock(&image->images->lock);
	return image;
}

void image_unref(struct image *image)
{
	struct image *gone = NULL;
	struct images *images;

	if (!image)
		return;
	images = image->images;
	pthread_mutex_lock(&images->lock);
	if (--image->refs == 0)
		gone = table_trim(images);
	pthread_mutex_unlock(&images->lock);
	while (gone) {
		struct image *next = gone->next;

		image_free(gone);
		gone = next;
	}
}

/* --- opening --- */

static int parse_manifest(struct store *store, const char *repo,
			  const struct store_manifest *manifest, struct oci_manifest *ret)
{
	char digest[DIGEST_STR_MAX];
	const char *why = "";
	int r = oci_manifest_parse(manifest->bytes.data, manifest->bytes.len, manifest->media_type,
				   ret, &why);

	if (r == 0 || r == -ENOMEM)
		return r;
	log_error("%s/%s: manifest %s: %s", store->name, repo,
		  digest_format(&manifest->digest, digest), why);
	return r == -EOPNOTSUPP ? r : -EIO;
}

/* An image of MANIFEST (whose bytes it takes), with one reference; not in the table yet. */
static int image_make(struct images *images, struct store *store, const char *repo,
		      struct store_manifest *manifest, struct image **ret)
{
	struct image *image = calloc(1, sizeof(*image));
	int r = -ENOMEM;

	if (!image)
		return -ENOMEM;
	image->repo = strdup(repo);
	if (image->repo)
		r = parse_manifest(store, repo, manifest, &image->manifest);
	if (r == 0 && image->manifest.nlayers) {
		image->trees = calloc(image->manifest.nlayers, sizeof(*image->trees));
		r = image->trees ? 0 : -ENOMEM;
	}
	if (r < 0) {
		oci_manifest_release(&image->manifest);
		free(image->repo);
		free(image);
		return r;
	}
	image->images = images;
	image->store = store;
	image->digest = manifest->digest;
	image->bytes = manifest->bytes;
	manifest->bytes = (struct buf)BUF_INIT(OCI_MANIFEST_MAX);
	image->refs = 1;
	pthread_mutex_init(&image->lock, NULL);
	for (unsigned n = 0; n < image->manifest.nlayers; n++)
		image->trees[n] = (struct image_tree){.image = image, .layer = n};
	*ret = image;
	return 0;
}

static void tell_urls(const struct image *image)
{
	const struct store_ops *ops = image->store->ops;

	for (size_t n = 0; ops->learn_urls && n < image->manifest.nlayers; n++) {
		const struct oci_descriptor *layer = &image->manifest.layers[n];

		if (layer->nurls > 0)
			ops->learn_urls(image->store, image->repo, &layer->digest, layer->urls,
					layer->nurls);
	}
}

static int image_install(struct images *images, struct store *store, const char *repo,
			 struct store_manifest *manifest, struct image **ret)
{
	struct image *fresh, *first;
	int r = image_make(images, store, repo, manifest, &fresh);

	if (r < 0)
		return r;
	tell_urls(fresh);
	pthread_mutex_lock(&images->lock);
	first = table_find(images, store, repo, &fresh->digest);
	if (!first) {
		fresh->next = images->images;
		images->images = fresh;
	}
	pthread_mutex_unlock(&images->lock);
	if (first)
		image_free(fresh);
	*ret = first ? first : fresh;
	return 0;
}

/* What is to be opened. A document of the repository may vouch for it: an index for its children.
 */
struct wanted {
	struct store *store;
	const char *repo;
	const struct digest *digest;
	const char *vouched_type; /* the media type that document gives; NULL: nothing vouches */
};

/* Asks the store. One caller at a time for one image. */
static int image_fetch(struct images *images, const struct wanted *wanted, struct wait *wait,
		       struct image **ret)
{
	CLEANUP(store_manifest_release) struct store_manifest manifest = {0};
	char reference[DIGEST_STR_MAX];

	int r = wanted->store->ops->get_manifest(wanted->store, wanted->repo,
						 digest_format(wanted->digest, reference),
						 &manifest, wait);
	if (r < 0)
		return r;
	record_manifest(images, wanted->store, wanted->repo, &manifest);
	return image_install(images, wanted->store, wanted->repo, &manifest, ret);
}

/* From the cache: 0; -ENOENT; what is wrong with it. */
static int image_recall(struct images *images, const struct wanted *wanted, struct image **ret)
{
	CLEANUP(store_manifest_release) struct store_manifest manifest = {0};
	int r = -ENOENT;

	if (wanted->vouched_type)
		r = recall_vouched(images, wanted->digest, wanted->vouched_type, &manifest);
	if (r < 0)
		r = recall_manifest(images, wanted->store, wanted->repo, wanted->digest, &manifest);
	if (r < 0)
		return r;
	return image_install(images, wanted->store, wanted->repo, &manifest, ret);
}

/* Somebody else may have fetched it since we looked, and before we began to lead. */
static int image_lead(struct images *images, const struct wanted *wanted, struct wait *wait,
		      struct flight *lead, struct image **ret)
{
	int r = 0;

	*ret = table_get(images, wanted->store, wanted->repo, wanted->digest);
	if (!*ret)
		r = image_fetch(images, wanted, wait, ret);
	flight_end(images, lead, r, wanted->digest);
	return r;
}

static int image_get(struct images *images, const struct wanted *wanted, struct wait *wait,
		     struct image **ret)
{
	char text[DIGEST_STR_MAX];
	AUTO_FREE char *key = format("open %s/%s@%s", wanted->store->name, wanted->repo,
				     digest_format(wanted->digest, text));
	struct digest digest;
	struct flight *lead;
	int r;

	if (!key)
		return -ENOMEM;
	/* Once more after somebody else has fetched it. */
	do {
		*ret = table_get(images, wanted->store, wanted->repo, wanted->digest);
		if (*ret)
			return 0;
		r = image_recall(images, wanted, ret);
		if (r != -ENOENT)
			return r;
		r = flight_begin(images, key, wait, &lead, &digest);
	} while (r == 0);
	return r == 1 ? image_lead(images, wanted, wait, lead, ret) : r;
}

int image_open(struct images *images, struct store *store, const char *repo,
	       const struct digest *digest, struct wait *wait, struct image **ret)
{
	const struct wanted wanted = {.store = store, .repo = repo, .digest = digest};
	struct image *image;

	int r = image_get(images, &wanted, wait, &image);
	if (r == 0)
		*ret = image;
	return r;
}

/* --- what it is --- */

const struct digest *image_digest(const struct image *image)
{
	return &image->digest;
}

const struct oci_manifest *image_manifest(const struct image *image)
{
	return &image->manifest;
}

void image_manifest_bytes(const struct image *image, const char **ret, size_t *ret_len)
{
	*ret = image->bytes.data;
	*ret_len = image->bytes.len;
}

struct store *image_store(const struct image *image)
{
	return image->store;
}

const char *image_repo(const struct image *image)
{
	return image->repo;
}

void image_blob_id(const struct image *image, const struct oci_descriptor *descriptor,
		   struct blob_id *ret)
{
	*ret = (struct blob_id){
		.digest = &descriptor->digest,
		.size = descriptor->size,
		.store = image->store,
		.repo = image->repo,
	};
}

/* --- indexes --- */

/* The child whose bytes, checked, DESCRIPTOR holds itself. */
static int image_inline(struct images *images, const struct wanted *wanted,
			const struct oci_descriptor *descriptor, struct image **ret)
{
	CLEANUP(store_manifest_release)
	struct store_manifest manifest = {
		.digest = descriptor->digest,
		.media_type = strdup(descriptor->media_type),
		.bytes = BUF_INIT(OCI_MANIFEST_MAX),
	};

	*ret = table_get(images, wanted->store, wanted->repo, wanted->digest);
	if (*ret)
		return 0;
	int r = manifest.media_type
			? buf_add(&manifest.bytes, descriptor->data, descriptor->data_len)
			: -ENOMEM;
	return r < 0 ? r : image_install(images, wanted->store, wanted->repo, &manifest, ret);
}

int image_child(struct image *image, size_t n, struct wait *wait, struct image **ret)
{
	if (image->manifest.kind != OCI_KIND_INDEX || n >= image->manifest.nchildren)
		return -EINVAL;
	const struct oci_descriptor *descriptor = &image->manifest.children[n];
	const struct wanted wanted = {
		.store = image->store,
		.repo = image->repo,
		.digest = &descriptor->digest,
		.vouched_type = descriptor->media_type,
	};
	struct image *child;

	int r = descriptor->data ? image_inline(image->images, &wanted, descriptor, &child)
				 : image_get(image->images, &wanted, wait, &child);
	if (r < 0)
		return r;
	image_inherit_tag(child, image);
	*ret = child;
	return 0;
}

int image_platform(struct image *image, struct wait *wait, struct image **ret)
{
	struct image *at = image_ref(image);

	for (int depth = 0; at->manifest.kind == OCI_KIND_INDEX; depth++) {
		ssize_t n = oci_platform_choose(&at->manifest, at->images->options.platform);
		struct image *child;
		int r = -ENOENT;

		if (n >= 0 && depth < MAX_NESTING)
			r = image_child(at, n, wait, &child);
		image_unref(at);
		if (r < 0)
			return r;
		at = child;
	}
	*ret = at;
	return 0;
}
