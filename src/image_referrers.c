/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_referrers: what refers to an image, as its store says, and as the cache remembers it for
 * when the store is gone.
 * Knows how long such a list is believed. Must not know what the referring documents are.
 */
#include <errno.h>

#include "regfs/log.h"

#include "image_priv.h"

/* ---- lists ---- */

static void list_free(struct referrers *referrers)
{
	for (size_t i = 0; i < referrers->n; i++)
		oci_descriptor_release(&referrers->list[i]);
	free(referrers->list);
	free(referrers);
}

void referrers_unref(struct image *image, struct referrers *referrers)
{
	if (!referrers)
		return;
	pthread_mutex_lock(&image->lock);
	bool last = --referrers->refs == 0;
	pthread_mutex_unlock(&image->lock);
	if (last)
		list_free(referrers);
}

static int compare(const void *a, const void *b)
{
	const struct oci_descriptor *x = a, *y = b;
	int diff = memcmp(x->digest.bytes, y->digest.bytes, DIGEST_MAX);

	return diff ? diff : (x->digest.algo > y->digest.algo) - (x->digest.algo < y->digest.algo);
}

/* Sorted, each once. */
static void tidy(struct referrers *referrers)
{
	size_t kept = 0;

	if (referrers->n == 0)
		return;
	qsort(referrers->list, referrers->n, sizeof(*referrers->list), compare);
	for (size_t i = 1; i < referrers->n; i++) {
		if (compare(&referrers->list[kept], &referrers->list[i]) == 0)
			oci_descriptor_release(&referrers->list[i]);
		else
			referrers->list[++kept] = referrers->list[i];
	}
	referrers->n = kept + 1;
}

struct collection {
	struct referrers *referrers;
	size_t cap;
};

static int collect(void *arg, struct oci_descriptor *descriptor)
{
	struct collection *collection = arg;
	struct referrers *referrers = collection->referrers;

	if (referrers->n == collection->cap) {
		size_t cap = MAX(collection->cap * 2, (size_t)8);
		void *list = reallocarray(referrers->list, cap, sizeof(*referrers->list));

		if (!list)
			return -ENOMEM;
		referrers->list = list;
		collection->cap = cap;
	}
	referrers->list[referrers->n++] = *descriptor;
	*descriptor = (struct oci_descriptor){0};
	return 0;
}

/* ---- what the cache remembers ---- */

static int record_id(const struct image *image, struct cache_id *ret)
{
	char digest[DIGEST_STR_MAX];

	return image_name_id("referrers", image->store, image->repo,
			     digest_format(&image->digest, digest), ret);
}

static void record(struct image *image, const struct referrers *referrers)
{
	AUTO_BUF struct buf text = BUF_INIT(OCI_MANIFEST_MAX);
	struct cache_id id;

	if (record_id(image, &id) == 0 &&
	    oci_index_write(referrers->list, referrers->n, &text) == 0)
		(void)cache_put(image->images->options.cache, &id, text.data, text.len);
}

static int recall(struct image *image, struct collection *ret)
{
	CLEANUP(oci_manifest_release) struct oci_manifest index = {0};
	AUTO_BUF struct buf text = BUF_INIT(OCI_MANIFEST_MAX);
	const char *why;
	struct cache_id id;
	int r = record_id(image, &id);

	if (r == 0)
		r = cache_get(image->images->options.cache, &id, &text);
	if (r == 0)
		r = oci_manifest_parse(text.data, text.len, OCI_TYPE_INDEX, &index, &why);
	for (size_t i = 0; r == 0 && i < index.nchildren; i++)
		r = collect(ret, &index.children[i]);
	return r;
}

/* ---- asking ---- */

static uint64_t generation_of(const struct image *image)
{
	return image->store->ops->generation(image->store, image->repo);
}

/* The last list, held. */
struct referrers *image_referrers_known(struct image *image, bool *ret_fresh)
{
	uint64_t generation = generation_of(image);

	pthread_mutex_lock(&image->lock);
	struct referrers *known = image->referrers;
	if (known)
		known->refs++;
	pthread_mutex_unlock(&image->lock);
	*ret_fresh = known && known->generation == generation && now_ms() < known->until_ms;
	return known;
}

static void remember(struct image *image, struct referrers *referrers)
{
	pthread_mutex_lock(&image->lock);
	struct referrers *old = image->referrers;
	image->referrers = referrers;
	referrers->refs = 1;
	pthread_mutex_unlock(&image->lock);
	referrers_unref(image, old);
}

static int ask(struct image *image, struct collection *collection, struct wait *wait)
{
	const struct store_ops *ops = image->store->ops;
	int r = ops->referrers(image->store, image->repo, &image->digest, collect, collection,
			       wait);

	if (r == 0) {
		tidy(collection->referrers);
		record(image, collection->referrers);
		return 0;
	}
	if (!image_store_gone(r))
		return r;
	while (collection->referrers->n > 0)
		oci_descriptor_release(&collection->referrers->list[--collection->referrers->n]);
	if (recall(image, collection) < 0)
		return r;
	if (!image->images->options.offline)
		log_warn("%s/%s: the registry cannot say what refers to an image (%s): the last "
			 "known list is shown",
			 image->store->name, image->repo, strerror(-r));
	return 0;
}

/* Asks the store. One caller at a time for one image. */
static int fetch(struct image *image, struct wait *wait)
{
	struct referrers *fresh = calloc(1, sizeof(*fresh));
	struct collection collection = {.referrers = fresh};

	if (!fresh)
		return -ENOMEM;
	/* what changes while it is read is to be read again */
	fresh->generation = generation_of(image);
	int r = ask(image, &collection, wait);
	if (r < 0) {
		list_free(fresh);
		return r;
	}
	fresh->until_ms = now_ms() + image->images->options.tag_ttl_ms;
	clock_gettime(CLOCK_REALTIME, &fresh->read_at);
	remember(image, fresh);
	return 0;
}

int image_referrers(struct image *image, struct wait *wait, struct referrers **ret)
{
	char text[DIGEST_STR_MAX];
	AUTO_FREE char *key = format("referrers %s/%s@%s", image->store->name, image->repo,
				     digest_format(&image->digest, text));
	bool fresh;
	struct referrers *known = image_referrers_known(image, &fresh);
	struct flight *lead;
	struct digest unused;
	int r;

	if (fresh) {
		*ret = known;
		return 0;
	}
	referrers_unref(image, known);
	if (!key)
		return -ENOMEM;
	r = flight_begin(image->images, key, wait, &lead, &unused);
	if (r == 1) {
		r = fetch(image, wait);
		flight_end(image->images, lead, r, &image->digest);
	}
	if (r < 0)
		return r;
	*ret = image_referrers_known(image, &fresh);
	return 0;
}
