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
/* So long an answer may fail to come without consequences; and these: so many times as long, at
 * most so long. */
#define SILENCE_MS     500
#define SILENCE_TIMES  5
#define SILENCE_MAX_MS 10000
/*
 * The kernel lets one lookup of a name through at a time, and those behind it cannot be called off:
 * that an answer did not come in time is told to all who stand there, else each would wait anew.
 */
#define LATE_MS 1000

/* --- one question at a time --- */

static struct flight *flight_new(const char *key)
{
	struct flight *flight = calloc(1, sizeof(*flight));

	if (!flight)
		return NULL;
	flight->refs = 1;
	flight->begun_ms = now_ms();
	flight->key = strdup(key);
	if (!flight->key) {
		free(flight);
		return NULL;
	}
	return flight;
}

/* Lock held. */
static void flight_unref(struct flight *flight)
{
	if (--flight->refs > 0)
		return;
	free(flight->key);
	free(flight);
}

/* Lock held. On the way it drops those that stayed long enough. */
static struct flight *flight_find(struct images *images, const char *key)
{
	struct flight **at = &images->flights;
	int64_t now = now_ms();

	while (*at) {
		struct flight *flight = *at;

		if (flight->done && now >= flight->until_ms) {
			*at = flight->next;
			flight_unref(flight);
		} else if (!strcmp(flight->key, key)) {
			return flight;
		} else {
			at = &flight->next;
		}
	}
	return NULL;
}

/* Waits for the answer of FLIGHT. 1: whoever asked was called off. Lock held. */
static int flight_follow(struct images *images, struct flight *flight, struct wait *wait,
			 struct digest *ret)
{
	int r = 0;

	flight->refs++;
	while (r == 0 && !flight->done)
		r = wait_on(wait, &flight->waiters, &images->lock, WAIT_FOREVER);
	if (r == 0 && flight->result == 0)
		*ret = flight->digest;
	if (r == 0)
		r = flight->result == -EINTR || flight->result == -EWOULDBLOCK ? 1 : flight->result;
	flight_unref(flight);
	return r;
}

int flight_begin(struct images *images, const char *key, struct wait *wait,
		 struct flight **ret_lead, struct digest *ret)
{
	struct flight *fresh = flight_new(key), *other;
	int r = 1;

	if (!fresh)
		return -ENOMEM;
	pthread_mutex_lock(&images->lock);
	while (r == 1 && (other = flight_find(images, key)))
		r = flight_follow(images, other, wait, ret);
	if (r == 1) {
		fresh->next = images->flights;
		images->flights = fresh;
		*ret_lead = fresh;
	} else {
		flight_unref(fresh);
	}
	pthread_mutex_unlock(&images->lock);
	return r;
}

/* Lock held. */
static void flight_leave(struct images *images, struct flight *flight)
{
	struct flight **at = &images->flights;

	while (*at != flight)
		at = &(*at)->next;
	*at = flight->next;
	flight_unref(flight);
}

void flight_end(struct images *images, struct flight *lead, int result, const struct digest *digest)
{
	pthread_mutex_lock(&images->lock);
	lead->done = true;
	lead->result = result;
	if (result == 0)
		lead->digest = *digest;
	wait_wake(&lead->waiters);
	if (result == -ETIMEDOUT && now_ms() - lead->begun_ms >= SILENCE_MS)
		lead->until_ms = now_ms() + LATE_MS;
	else
		flight_leave(images, lead);
	pthread_mutex_unlock(&images->lock);
}

void flights_release(struct images *images)
{
	while (images->flights)
		flight_leave(images, images->flights);
}

/* --- what the cache remembers --- */

int image_name_id(const char *kind, const struct store *store, const char *repo,
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

	if (manifest->bytes.len > OCI_MANIFEST_MAX)
		return;
	manifest_id(&manifest->digest, &id);
	if (cache_put(images->options.cache, &id, manifest->bytes.data, manifest->bytes.len) < 0)
		return;
	if (image_name_id("manifest", store, repo, digest_format(&manifest->digest, reference),
			  &id) == 0)
		put_record(images, &id, manifest->media_type);
}

/* The bytes of DIGEST, hashed again, whoever they came from. */
static int recall_bytes(struct images *images, const struct digest *digest, struct buf *ret)
{
	AUTO_BUF struct buf bytes = BUF_INIT(OCI_MANIFEST_MAX);
	struct digest found;
	struct cache_id id;

	manifest_id(digest, &id);
	if (cache_get(images->options.cache, &id, &bytes) < 0)
		return -ENOENT;
	digest_of(digest->algo, bytes.data, bytes.len, &found);
	if (!digest_equal(&found, digest)) {
		cache_remove(images->options.cache, &id);
		return -ENOENT;
	}
	*ret = bytes;
	bytes = (struct buf)BUF_INIT(OCI_MANIFEST_MAX);
	return 0;
}

int recall_vouched(struct images *images, const struct digest *digest, const char *media_type,
		   struct store_manifest *ret)
{
	struct store_manifest manifest = {.digest = *digest, .media_type = strdup(media_type)};

	if (manifest.media_type && recall_bytes(images, digest, &manifest.bytes) == 0) {
		*ret = manifest;
		return 0;
	}
	free(manifest.media_type);
	return -ENOENT;
}

int recall_manifest(struct images *images, struct store *store, const char *repo,
		    const struct digest *digest, struct store_manifest *ret)
{
	AUTO_BUF struct buf type = BUF_INIT(RECORD_MAX);
	char reference[DIGEST_STR_MAX];
	struct cache_id id;

	if (image_name_id("manifest", store, repo, digest_format(digest, reference), &id) < 0 ||
	    cache_get(images->options.cache, &id, &type) < 0)
		return -ENOENT;
	return recall_vouched(images, digest, type.data ? type.data : "", ret);
}

int recall_digest(struct images *images, const struct cache_id *id, struct digest *ret)
{
	AUTO_BUF struct buf text = BUF_INIT(RECORD_MAX);

	if (cache_get(images->options.cache, id, &text) < 0 || !text.data)
		return -ENOENT;
	return digest_parse(text.data, ret) == 0 ? 0 : -ENOENT;
}

void record_digest(struct images *images, const struct cache_id *id, const struct digest *digest)
{
	char text[DIGEST_STR_MAX];
	struct digest known;

	if (recall_digest(images, id, &known) < 0 || !digest_equal(&known, digest))
		put_record(images, id, digest_format(digest, text));
}

static int recall_tag(struct images *images, struct store *store, const char *repo, const char *tag,
		      struct digest *ret)
{
	struct cache_id id;

	if (image_name_id("tag", store, repo, tag, &id) < 0)
		return -ENOENT;
	return recall_digest(images, &id, ret);
}

void image_remember_tag(struct images *images, struct store *store, const char *repo,
			const char *tag, const struct digest *digest)
{
	struct cache_id id;

	if (image_name_id("tag", store, repo, tag, &id) == 0)
		record_digest(images, &id, digest);
}

void image_forget_tag(struct images *images, struct store *store, const char *repo, const char *tag)
{
	struct cache_id id;

	if (image_name_id("tag", store, repo, tag, &id) == 0)
		cache_remove(images->options.cache, &id);
}

void image_forget_manifest(struct images *images, struct store *store, const char *repo,
			   const struct digest *digest)
{
	char reference[DIGEST_STR_MAX];
	struct cache_id id;

	if (image_name_id("manifest", store, repo, digest_format(digest, reference), &id) == 0)
		cache_remove(images->options.cache, &id);
	image_drop(images, store, repo, digest);
}

/* --- resolving --- */

bool image_store_gone(int error)
{
	return error == -EHOSTUNREACH || error == -ECONNREFUSED || error == -ETIMEDOUT ||
	       error == -ECONNRESET || error == -EIO || error == -EBUSY;
}

/*
 * A store that let us wait and did not answer is not asked for a while about tags that are known:
 * else each name on the way to a file would wait like that. One that fails at once is asked each
 * time.
 */
static size_t silent_slot(const struct store *store)
{
	return (uintptr_t)store / sizeof(*store) % SILENT_STORES;
}

static bool is_silent(struct images *images, const struct store *store)
{
	size_t slot = silent_slot(store);

	pthread_mutex_lock(&images->lock);
	bool silent = images->silent[slot].store == store &&
		      now_ms() < images->silent[slot].until_ms;
	pthread_mutex_unlock(&images->lock);
	return silent;
}

static void note_silence(struct images *images, const struct store *store, int64_t took_ms)
{
	size_t slot = silent_slot(store);

	if (took_ms < SILENCE_MS)
		return;
	pthread_mutex_lock(&images->lock);
	images->silent[slot].store = store;
	images->silent[slot].until_ms = now_ms() + MIN(SILENCE_TIMES * took_ms, SILENCE_MAX_MS);
	pthread_mutex_unlock(&images->lock);
}

static bool is_recalled(struct images *images, struct store *store, const char *repo,
			const struct digest *digest)
{
	struct store_manifest manifest;

	if (recall_manifest(images, store, repo, digest, &manifest) < 0)
		return false;
	store_manifest_release(&manifest);
	return true;
}

static int resolve_get(struct images *images, struct store *store, const char *repo,
		       const char *tag, struct wait *wait, struct digest *ret)
{
	CLEANUP(store_manifest_release) struct store_manifest manifest = {0};

	int r = store->ops->get_manifest(store, repo, tag, &manifest, wait);
	if (r < 0)
		return r;
	record_manifest(images, store, repo, &manifest);
	*ret = manifest.digest;
	return 0;
}

/*
 * Asks the store. A tag that is known and whose manifest is here is asked about by HEAD,
 * which costs no quota and no bytes; else its manifest comes with the answer.
 */
static int resolve_ask(struct images *images, struct store *store, const char *repo,
		       const char *tag, struct wait *wait, struct digest *ret)
{
	struct digest known, now;

	if (recall_tag(images, store, repo, tag, &known) == 0 &&
	    is_recalled(images, store, repo, &known)) {
		int r = store->ops->head(store, repo, tag, &now, wait);
		if (r < 0)
			return r;
		if (digest_equal(&now, &known) || is_recalled(images, store, repo, &now)) {
			*ret = now;
			return 0;
		}
	}
	return resolve_get(images, store, repo, tag, wait, ret);
}

static int resolve_leading(struct images *images, struct store *store, const char *repo,
			   const char *tag, struct wait *wait, struct digest *ret)
{
	if (is_silent(images, store) && recall_tag(images, store, repo, tag, ret) == 0)
		return 0;
	int64_t begin = now_ms();
	int r = resolve_ask(images, store, repo, tag, wait, ret);

	if (image_store_gone(r))
		note_silence(images, store, now_ms() - begin);
	if (r == 0)
		image_remember_tag(images, store, repo, tag, ret);
	if (r == -ENOENT)
		image_forget_tag(images, store, repo, tag);
	if (!image_store_gone(r) || recall_tag(images, store, repo, tag, ret) < 0)
		return r;
	if (!images->options.offline)
		log_warn("%s/%s:%s: the registry cannot say (%s): the last known image is shown",
			 store->name, repo, tag, strerror(-r));
	return 0;
}

int image_resolve(struct images *images, struct store *store, const char *repo, const char *tag,
		  struct wait *wait, struct digest *ret)
{
	AUTO_FREE char *key = format("tag %s/%s:%s", store->name, repo, tag);
	struct flight *lead;

	if (!key)
		return -ENOMEM;
	int r = flight_begin(images, key, wait, &lead, ret);
	if (r != 1)
		return r;
	r = resolve_leading(images, store, repo, tag, wait, ret);
	flight_end(images, lead, r, ret);
	return r;
}
