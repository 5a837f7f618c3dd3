/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_resolve: from a tag to a digest, and what is remembered of manifests and tags in the
 * cache, so that an image that was seen can be opened with the registry gone.
 * Must not know what a manifest says.
 */
#include <errno.h>

#include "regfs/log.h"

#include "image_priv.h"

#define RECORD_MAX 4096

/* --- one question at a time --- */

int flight_begin(struct images *images, struct flight *flight, const char *key, struct wait *wait)
{
	struct flight *other;
	int r = 1;

	pthread_mutex_lock(&images->lock);
	for (other = images->flights; other; other = other->next)
		if (!strcmp(other->key, key))
			break;
	if (other) {
		r = wait_on(wait, &other->waiters, &images->lock, WAIT_FOREVER);
	} else {
		*flight = (struct flight){.key = key, .next = images->flights};
		images->flights = flight;
	}
	pthread_mutex_unlock(&images->lock);
	return r;
}

void flight_end(struct images *images, struct flight *flight)
{
	pthread_mutex_lock(&images->lock);
	for (struct flight **at = &images->flights; *at; at = &(*at)->next) {
		if (*at == flight) {
			*at = flight->next;
			break;
		}
	}
	wait_wake(&flight->waiters);
	pthread_mutex_unlock(&images->lock);
}

/* --- what the cache remembers --- */

static int name_id(const char *kind, const struct store *store, const char *repo,
		   const char *reference, struct cache_id *ret)
{
	AUTO_FREE char *name = format("%s %s/%s %s", kind, store->name, repo, reference);
	struct digest digest;

	if (!name)
		return -ENOMEM;
	digest_of(DIGEST_SHA256, name, strlen(name), &digest);
	ret->kind = CACHE_NAME;
	digest_key(&digest, ret->key);
	return 0;
}

static void manifest_id(const struct digest *digest, struct cache_id *ret)
{
	ret->kind = CACHE_MANIFEST;
	digest_key(digest, ret->key);
}

static void put_record(struct images *images, const struct cache_id *id, const char *text)
{
	(void)cache_put(images->options.cache, id, text, strlen(text));
}

/* The registry answered for this manifest in this repository: that is remembered apart from the
 * bytes, which other repositories share. */
void record_manifest(struct images *images, struct store *store, const char *repo,
		     const struct store_manifest *manifest)
{
	char reference[DIGEST_STR_MAX];
	struct cache_id id;

	manifest_id(&manifest->digest, &id);
	if (cache_put(images->options.cache, &id, manifest->bytes.data, manifest->bytes.len) < 0)
		return;
	if (name_id("manifest", store, repo, digest_format(&manifest->digest, reference), &id) == 0)
		put_record(images, &id, manifest->media_type);
}

int recall_manifest(struct images *images, struct store *store, const char *repo,
		    const struct digest *digest, struct store_manifest *ret)
{
	AUTO_BUF struct buf type = BUF_INIT(RECORD_MAX);
	AUTO_BUF struct buf bytes = BUF_INIT(OCI_MANIFEST_MAX);
	char reference[DIGEST_STR_MAX];
	struct digest found;
	struct cache_id id;

	if (name_id("manifest", store, repo, digest_format(digest, reference), &id) < 0 ||
	    cache_get(images->options.cache, &id, &type) < 0)
		return -ENOENT;
	manifest_id(digest, &id);
	if (cache_get(images->options.cache, &id, &bytes) < 0)
		return -ENOENT;
	digest_of(digest->algo, bytes.data, bytes.len, &found);
	if (!digest_equal(&found, digest)) {
		cache_remove(images->options.cache, &id);
		return -ENOENT;
	}
	*ret = (struct store_manifest){
		.digest = found,
		.media_type = buf_steal(&type, NULL),
		.bytes = bytes,
	};
	bytes = (struct buf)BUF_INIT(OCI_MANIFEST_MAX);
	if (!ret->media_type)
		ret->media_type = strdup("");
	if (ret->media_type)
		return 0;
	store_manifest_release(ret);
	return -ENOENT;
}

static void record_tag(struct images *images, struct store *store, const char *repo,
		       const char *tag, const struct digest *digest)
{
	char text[DIGEST_STR_MAX];
	struct cache_id id;

	if (name_id("tag", store, repo, tag, &id) == 0)
		put_record(images, &id, digest_format(digest, text));
}

static int recall_tag(struct images *images, struct store *store, const char *repo, const char *tag,
		      struct digest *ret)
{
	AUTO_BUF struct buf text = BUF_INIT(RECORD_MAX);
	struct cache_id id;

	if (name_id("tag", store, repo, tag, &id) < 0 ||
	    cache_get(images->options.cache, &id, &text) < 0 || !text.data)
		return -ENOENT;
	return digest_parse(text.data, ret) == 0 ? 0 : -ENOENT;
}

void image_forget_tag(struct images *images, struct store *store, const char *repo, const char *tag)
{
	struct cache_id id;

	if (name_id("tag", store, repo, tag, &id) == 0)
		cache_remove(images->options.cache, &id);
}

/* --- resolving --- */

bool image_store_gone(int error)
{
	return error == -EHOSTUNREACH || error == -ECONNREFUSED || error == -ETIMEDOUT ||
	       error == -ECONNRESET || error == -EIO;
}

/*
 * Asks the store. A tag that is known and whose manifest is here is asked about by HEAD,
 * which costs no quota and no bytes; else its manifest comes with the answer.
 */
static int resolve_ask(struct images *images, struct store *store, const char *repo,
		       const char *tag, struct wait *wait, struct digest *ret)
{
	CLEANUP(store_manifest_release) struct store_manifest kept = {0}, fresh = {0};
	struct digest known, now;
	int r;

	if (recall_tag(images, store, repo, tag, &known) == 0 &&
	    recall_manifest(images, store, repo, &known, &kept) == 0) {
		r = store->ops->head(store, repo, tag, &now, wait);
		if (r < 0)
			return r;
		if (digest_equal(&now, &known)) {
			*ret = known;
			return 0;
		}
	}
	r = store->ops->get_manifest(store, repo, tag, &fresh, wait);
	if (r < 0)
		return r;
	record_manifest(images, store, repo, &fresh);
	record_tag(images, store, repo, tag, &fresh.digest);
	*ret = fresh.digest;
	return 0;
}

static int resolve_leading(struct images *images, struct store *store, const char *repo,
			   const char *tag, struct wait *wait, struct digest *ret)
{
	int r = resolve_ask(images, store, repo, tag, wait, ret);

	if (!image_store_gone(r) || recall_tag(images, store, repo, tag, ret) < 0)
		return r;
	log_warn("%s/%s:%s: the registry cannot say (%s): the last known image is shown",
		 store->name, repo, tag, strerror(-r));
	return 0;
}

int image_resolve(struct images *images, struct store *store, const char *repo, const char *tag,
		  struct wait *wait, struct digest *ret)
{
	AUTO_FREE char *key = format("tag %s/%s:%s", store->name, repo, tag);
	struct flight flight;
	int r;

	if (!key)
		return -ENOMEM;
	r = flight_begin(images, &flight, key, wait);
	if (r < 0)
		return r;
	if (r == 1) {
		r = resolve_leading(images, store, repo, tag, wait, ret);
		flight_end(images, &flight);
		return r;
	}
	/* Somebody just asked: what they learned is remembered, and new enough. */
	if (recall_tag(images, store, repo, tag, ret) == 0)
		return 0;
	return resolve_leading(images, store, repo, tag, wait, ret);
}
