// SPDX-License-Identifier: Apache-2.0
/*
 * layer: the table of layers, and how one comes to its index.
 * Knows states and references. Must not know decoding (layer_build.c, layer_spans.c).
 */
#include <errno.h>

#include "layer_priv.h"
#include "regfs/log.h"

/* --- the room as a whole --- */

struct layers *layers_new(struct blobs *blobs, struct cache *cache, struct pool *jobs)
{
	struct layers *layers = calloc(1, sizeof(*layers));

	if (!layers)
		return NULL;
	layers->spans = spans_new();
	layers->chunks = chunks_new();
	if (!layers->spans || !layers->chunks) {
		spans_free(layers->spans);
		chunks_free(layers->chunks);
		free(layers);
		return NULL;
	}
	layers->toc_min = LAYER_TOC_MIN;
	layers->blobs = blobs;
	layers->cache = cache;
	layers->jobs = jobs;
	layers->idle_ms = BUILD_IDLE_MS;
	layers->retry_ms = LAYER_RETRY_MS;
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	layers->ahead_max = processors > 1 ? (unsigned)MIN(processors, LAYER_AHEAD_MAX) : 0;
	pthread_mutex_init(&layers->lock, NULL);
	pthread_cond_init(&layers->drained, NULL);
	return layers;
}

static void layer_free(struct layer *layer)
{
	if (!layer)
		return;
	if (layer->map.data)
		cache_unmap(&layer->map);
	whole_release(layer);
	free(layer->memory);
	for (unsigned i = 0; i < atomic_load(&layer->nsources); i++)
		free(layer->sources[i].repo);
	free(layer);
}

static void layer_unlink(struct layer *layer)
{
	struct layers *layers = layer->layers;

	*(layer->prev ? &layer->prev->next : &layers->first) = layer->next;
	*(layer->next ? &layer->next->prev : &layers->last) = layer->prev;
}

static void layer_link_first(struct layer *layer)
{
	struct layers *layers = layer->layers;

	layer->prev = NULL;
	layer->next = layers->first;
	*(layers->first ? &layers->first->prev : &layers->last) = layer;
	layers->first = layer;
}

void layers_stop(struct layers *layers)
{
	if (!layers)
		return;
	pthread_mutex_lock(&layers->lock);
	layers->closing = true;
	build_cancel_all(layers);
	pthread_mutex_unlock(&layers->lock);
	chunks_cancel_all(layers->chunks);
	pthread_mutex_lock(&layers->lock);
	while (layers->running > 0)
		pthread_cond_wait(&layers->drained, &layers->lock);
	pthread_mutex_unlock(&layers->lock);
}

void layers_free(struct layers *layers)
{
	if (!layers)
		return;
	layers_stop(layers);
	/* all go now, whoever refers to them */
	for (struct layer *layer = layers->first; layer; layer = layer->next) {
		const struct layer *whole = atomic_load(&layer->whole);
		if (whole && !whole->unlisted)
			atomic_store(&layer->whole, NULL);
	}
	while (layers->first) {
		struct layer *layer = layers->first;

		layer_unlink(layer);
		layer_free(layer);
	}
	spans_free(layers->spans);
	chunks_free(layers->chunks);
	pthread_cond_destroy(&layers->drained);
	pthread_mutex_destroy(&layers->lock);
	free(layers);
}

/* --- the table --- */

/* An index without the members of a format is another one, and so is one that was made from a
 * table: the blob alone does not decide what it says. What is kept of the decoded output is cut
 * where the points of an index are. */
static void layer_keys(struct layer *layer)
{
	char blob[DIGEST_STR_MAX], json[DIGEST_STR_MAX], packed[DIGEST_STR_MAX];
	char text[64 + 3 * DIGEST_STR_MAX + 3 * 20];
	const struct toc_ref *toc = &layer->toc;
	struct digest digest;

	digest_key(&layer->digest, layer->index_key);
	digest_format(&layer->digest, blob);
	snprintf(text, sizeof(text), "decoded output, cut in way %d, of %s", LAYER_CUT, blob);
	digest_of(DIGEST_SHA256, text, strlen(text), &digest);
	digest_key(&digest, layer->decoded_key);
	if (layer->hides) {
		snprintf(text, sizeof(text), "layer of a lazy format %s", blob);
		digest_of(DIGEST_SHA256, text, strlen(text), &digest);
		digest_key(&digest, layer->index_key);
	}
	if (layer->has_toc) {
		snprintf(text, sizeof(text), "%s of %s %s %s %llu %llu %llu",
			 toc->kind == TOC_ZTOC ? "ztoc" : "table", blob,
			 digest_format(&toc->json, json), digest_format(&toc->packed, packed),
			 (unsigned long long)toc->off, (unsigned long long)toc->len,
			 (unsigned long long)toc->json_len);
		digest_of(DIGEST_SHA256, text, strlen(text), &digest);
		digest_key(&digest, layer->toc_key);
	}
}

static struct layer *layer_new(struct layers *layers, const struct layer_name *name)
{
	struct layer *layer = calloc(1, sizeof(*layer));
	const struct blob_id *id = name->id;

	if (!layer)
		return NULL;
	layer->layers = layers;
	layer->digest = *id->digest;
	layer->size = id->size;
	layer->hides = name->hides;
	layer->has_toc = name->toc != NULL;
	if (name->toc)
		layer->toc = *name->toc;
	layer_keys(layer);
	layer->sources[0] = (struct layer_source){.store = id->store, .repo = strdup(id->repo)};
	atomic_init(&layer->nsources, 1);
	if (!layer->sources[0].repo) {
		layer_free(layer);
		return NULL;
	}
	return layer;
}

static bool layer_is(const struct layer *layer, const struct layer_name *name)
{
	return layer->size == name->id->size && digest_equal(&layer->digest, name->id->digest) &&
	       layer->hides == name->hides && layer->has_toc == (name->toc != NULL) &&
	       (!name->toc || toc_ref_equal(&layer->toc, name->toc));
}

/* The layer of NAME. One whose index broke leaves the table, to make room for another try; it lives
 * on for those that hold it, or is handed over as GONE. Lock held. */
static struct layer *layer_find(struct layers *layers, const struct layer_name *name,
				struct layer **gone)
{
	struct layer *layer = layers->first;

	while (layer && !layer_is(layer, name))
		layer = layer->next;
	if (!layer || layer->state != LAYER_READY || !layer_broken(layer))
		return layer;
	layer_unlink(layer);
	layer->unlisted = true;
	if (layer->refs == 0) {
		layers->idle--;
		*gone = layer;
	}
	return NULL;
}

static struct layer *layer_hold_locked(struct layer *layer)
{
	if (layer->refs++ == 0)
		layer->layers->idle--;
	layer_unlink(layer);
	layer_link_first(layer);
	return layer;
}

static bool layer_has_source(const struct layer *layer, const struct blob_id *id)
{
	unsigned n = atomic_load(&layer->nsources);

	for (unsigned i = 0; i < n; i++)
		if (layer->sources[i].store == id->store &&
		    strcmp(layer->sources[i].repo, id->repo) == 0)
			return true;
	return n == LAYER_SOURCES;
}

static void layer_add_source(struct layer *layer, struct store *store, char *repo)
{
	unsigned n = atomic_load(&layer->nsources);

	layer->sources[n] = (struct layer_source){.store = store, .repo = repo};
	atomic_store(&layer->nsources, n + 1);
}

/* The layer if it is known, with this source too. */
static struct layer *layer_hold_known(struct layers *layers, const struct layer_name *name)
{
	struct layer *gone = NULL;

	pthread_mutex_lock(&layers->lock);
	struct layer *layer = layer_find(layers, name, &gone);
	if (layer && layer_has_source(layer, name->id))
		layer_hold_locked(layer);
	else
		layer = NULL;
	pthread_mutex_unlock(&layers->lock);
	layer_free(gone);
	return layer;
}

/* Makes FRESH part of the table, or only takes its source where the layer is there. */
static struct layer *layer_install(struct layer *fresh, const struct layer_name *name)
{
	struct layers *layers = fresh->layers;
	const struct blob_id *id = name->id;
	struct layer *gone = NULL;

	pthread_mutex_lock(&layers->lock);
	struct layer *layer = layer_find(layers, name, &gone);
	if (!layer) {
		layer = STEAL(fresh);
		layer->refs = 1;
		layer->serial = layers->next_serial++;
		layer_link_first(layer);
	} else {
		layer_hold_locked(layer);
		if (!layer_has_source(layer, id))
			layer_add_source(layer, id->store, STEAL(fresh->sources[0].repo));
	}
	pthread_mutex_unlock(&layers->lock);
	layer_free(fresh);
	layer_free(gone);
	return layer;
}

static int layer_hold(struct layers *layers, const struct layer_name *name, struct layer **ret)
{
	struct layer *layer = layer_hold_known(layers, name);

	if (!layer) {
		struct layer *fresh = layer_new(layers, name);
		if (!fresh)
			return -ENOMEM;
		layer = layer_install(fresh, name);
	}
	*ret = layer;
	return 0;
}

/* The layer that has to go for one that became idle. Lock held. */
static struct layer *layer_evict(struct layers *layers)
{
	struct layer *layer = layers->last;

	if (layers->idle <= LAYERS_IDLE_MAX)
		return NULL;
	while (layer->refs > 0)
		layer = layer->prev;
	layers->idle--;
	layer_unlink(layer);
	return layer;
}

void layer_unref(struct layer *layer)
{
	struct layer *gone = NULL;

	if (!layer)
		return;
	struct layers *layers = layer->layers;
	pthread_mutex_lock(&layers->lock);
	if (--layer->refs == 0 && layer->unlisted) {
		gone = layer;
	} else if (layer->refs == 0) {
		layers->idle++;
		gone = layer_evict(layers);
	}
	pthread_mutex_unlock(&layers->lock);
	layer_free(gone);
}

/* --- jobs --- */

int layer_job_begin(struct layer *layer)
{
	struct layers *layers = layer->layers;
	int r = 0;

	pthread_mutex_lock(&layers->lock);
	if (layers->closing) {
		r = -EINTR;
	} else {
		layers->running++;
		layer->refs++;
	}
	pthread_mutex_unlock(&layers->lock);
	return r;
}

void layer_job_end(struct layer *layer)
{
	struct layers *layers = layer->layers;

	layer_unref(layer);
	pthread_mutex_lock(&layers->lock);
	if (--layers->running == 0)
		pthread_cond_broadcast(&layers->drained);
	pthread_mutex_unlock(&layers->lock);
}

/* --- the index out of the cache --- */

void layer_log_name(const struct layer *layer, char out[static DIGEST_STR_MAX])
{
	digest_format(&layer->digest, out);
}

static int map_check(const struct layer *layer, const struct cache_map *map, struct index *ret)
{
	int r = index_open(map->data, map->len, ret);

	if (r < 0)
		return r;
	if (*map->broken || !digest_equal(&ret->info.blob, &layer->digest))
		return -EIO;
	/* the right layer under a wrong size: the pass over the blob will find the lie */
	return ret->info.blob_size == layer->size ? 0 : -ENOENT;
}

static struct cache_id index_id(const struct layer *layer, enum cache_kind kind)
{
	struct cache_id id = {.kind = kind};

	memcpy(id.key, kind == CACHE_TOC ? layer->toc_key : layer->index_key, DIGEST_KEY_LEN);
	return id;
}

static int layer_map_kind(struct layer *layer, enum cache_kind kind)
{
	struct cache_id id = index_id(layer, kind);
	char name[DIGEST_STR_MAX];
	struct cache_map map;

	int r = cache_map(layer->layers->cache, &id, &map);
	if (r < 0)
		return r == -ENOMEM ? r : -ENOENT;
	r = map_check(layer, &map, &layer->index);
	if (r == 0 && layer->index.info.by_toc != (kind == CACHE_TOC))
		r = -EIO;
	if (r == 0) {
		layer->map = map;
		return 0;
	}
	cache_unmap(&map);
	if (r == -ENOENT)
		return r;
	layer_log_name(layer, name);
	log_warn("layer %s: its index in the cache is %s and is built anew", name,
		 r == -ESTALE ? "of another version" : "damaged");
	cache_remove(layer->layers->cache, &id);
	return -ENOENT;
}

int layer_map(struct layer *layer)
{
	int r = layer_map_kind(layer, CACHE_INDEX);

	if (r == -ENOENT && layer->has_toc)
		r = layer_map_kind(layer, CACHE_TOC);
	return r;
}

int layer_publish(struct layer *layer, enum cache_kind kind, struct buf *file)
{
	struct cache_id id = index_id(layer, kind);

	if (cache_put(layer->layers->cache, &id, file->data, file->len) == 0 &&
	    layer_map_kind(layer, kind) == 0)
		return 0;
	int r = index_open(file->data, file->len, &layer->index);
	if (r == 0)
		layer->memory = buf_steal(file, NULL);
	return r;
}

/* --- opening --- */

void layer_settle(struct layer *layer, int error, uint64_t source, bool for_good)
{
	struct layers *layers = layer->layers;

	pthread_mutex_lock(&layers->lock);
	layer->state = error ? LAYER_NEW : LAYER_READY;
	layer->awaited = false;
	layer->error = error;
	layer->error_source = source;
	layer->retry_ms = for_good ? INT64_MAX : now_ms() + layers->retry_ms;
	wait_wake(&layer->ready);
	pthread_mutex_unlock(&layers->lock);
}

/* Whoever set BUSY brings it to an end, or has a job do so. */
static void layer_look(struct layer *layer, const struct blob_id *id, struct wait *wait)
{
	int r = layer_map(layer);

	if (r == -ENOENT && wait_may_block(wait)) {
		r = build_start(layer, id);
		if (r == 0)
			return;
	} else if (r == -ENOENT) {
		r = -EWOULDBLOCK;
	}
	layer_settle(layer, r, blob_source(id), false);
}

bool layer_apart(struct layer *layer, struct toc_apart *ret)
{
	pthread_mutex_lock(&layer->layers->lock);
	bool known = layer->apart_known;
	if (known)
		*ret = layer->apart;
	pthread_mutex_unlock(&layer->layers->lock);
	return known;
}

static void layer_set_apart(struct layer *layer, const struct toc_apart *apart)
{
	pthread_mutex_lock(&layer->layers->lock);
	if (!layer->apart_known)
		layer->apart = *apart;
	layer->apart_known = true;
	pthread_mutex_unlock(&layer->layers->lock);
}

/* How the last try ended. That it might not block, or that nobody waited any more, is no failure;
 * nor is what another source failed with, unless it is the content, nor what was not known then.
 * Lock held. */
static int layer_failure(const struct layer *layer, const struct blob_id *id)
{
	if (layer->error == -EREMOTE && layer->apart_known)
		return 0;
	if (layer->error == -EWOULDBLOCK || layer->error == -ECANCELED)
		return 0;
	if (layer->error_source != blob_source(id) && layer->retry_ms != INT64_MAX)
		return 0;
	return layer->error;
}

/* Whether that is still to be repeated. Lock held. */
static bool layer_failed(const struct layer *layer, const struct blob_id *id)
{
	return layer_failure(layer, id) && now_ms() < layer->retry_ms;
}

/* Until BUSY has ended: 0 to look again, or how it failed. */
static int layer_wait_busy(struct layer *layer, const struct blob_id *id, struct wait *wait)
{
	if (!layer->awaited && wait_may_block(wait) && !wait_background(wait))
		build_hurry(layer);
	layer->waiters++;
	int r = wait_on(wait, &layer->ready, &layer->layers->lock, WAIT_FOREVER);
	if (--layer->waiters == 0)
		layer->idle_ms = now_ms();
	return r == 0 && layer->state == LAYER_NEW ? layer_failure(layer, id) : r;
}

/* One step towards READY: 1 done, 0 look again. Lock held, and let go meanwhile. */
static int layer_step(struct layer *layer, const struct blob_id *id, struct wait *wait)
{
	struct layers *layers = layer->layers;

	if (layer->state == LAYER_READY)
		return 1;
	if (layer->state == LAYER_BUSY)
		return layer_wait_busy(layer, id, wait);
	if (layer_failed(layer, id))
		return layer->error;
	if (layers->closing)
		return -EINTR;
	layer->state = LAYER_BUSY;
	layer->awaited = !wait_background(wait);
	layer->idle_ms = now_ms();
	pthread_mutex_unlock(&layers->lock);
	layer_look(layer, id, wait);
	pthread_mutex_lock(&layers->lock);
	/* a build may be over already, called off because nobody waited yet: that is no failure */
	return layer->state == LAYER_NEW && layer->error != -ECANCELED ? layer->error : 0;
}

static int layer_get_ready(struct layer *layer, const struct blob_id *id, struct wait *wait)
{
	struct layers *layers = layer->layers;
	int r;

	pthread_mutex_lock(&layers->lock);
	do {
		r = layer_step(layer, id, wait);
	} while (r == 0);
	pthread_mutex_unlock(&layers->lock);
	return r < 0 ? r : 0;
}

static int layer_check_diff_id(struct layer *layer, const struct digest *diff_id)
{
	const struct digest *computed = &layer->index.info.diff_id;
	char name[DIGEST_STR_MAX], want[DIGEST_STR_MAX], got[DIGEST_STR_MAX];

	if (!diff_id || computed->algo != diff_id->algo || digest_equal(computed, diff_id))
		return 0;
	layer_log_name(layer, name);
	if (!atomic_exchange(&layer->complained, true))
		log_error("layer %s: the config gives its diff ID as %s, and it is %s", name,
			  digest_format(diff_id, want), digest_format(computed, got));
	return -EIO;
}

int layer_open_name(struct layers *layers, const struct layer_name *name, struct wait *wait,
		    struct layer **ret)
{
	struct layer *layer;

	int r = layer_hold(layers, name, &layer);
	if (r < 0)
		return r;
	if (name->apart)
		layer_set_apart(layer, name->apart);
	r = layer_get_ready(layer, name->id, wait);
	if (r < 0)
		layer_unref(layer);
	else
		*ret = layer;
	return r;
}

static struct layer_name layer_name_of(const struct layers *layers, const struct blob_id *id,
				       const struct layer_claims *claims)
{
	const struct toc_ref *toc = claims ? claims->toc : NULL;

	return (struct layer_name){
		.id = id,
		.toc = id->size >= layers->toc_min ? toc : NULL,
		.apart = claims ? claims->apart : NULL,
		.hides = toc && toc->kind == TOC_INSIDE,
	};
}

int layer_open(struct layers *layers, const struct blob_id *id, const struct layer_claims *claims,
	       struct wait *wait, struct layer **ret)
{
	const struct layer_name name = layer_name_of(layers, id, claims);
	struct layer *layer;

	int r = layer_open_name(layers, &name, wait, &layer);
	if (r < 0)
		return r;
	r = layer_check_diff_id(layer, claims ? claims->diff_id : NULL);
	if (r < 0) {
		layer_unref(layer);
		return r;
	}
	*ret = layer;
	return 0;
}

void layer_prepare(struct layers *layers, const struct blob_id *id,
		   const struct layer_claims *claims)
{
	const struct layer_name name = layer_name_of(layers, id, claims);
	struct layer *layer;

	if (layer_hold(layers, &name, &layer) < 0)
		return;
	pthread_mutex_lock(&layers->lock);
	bool start = layer->state == LAYER_NEW && !layer_failed(layer, id) && !layers->closing;
	if (layer->state == LAYER_BUSY)
		build_hurry(layer);
	if (start) {
		layer->state = LAYER_BUSY;
		layer->awaited = true;
		layer->idle_ms = now_ms();
	}
	pthread_mutex_unlock(&layers->lock);
	if (start) {
		int r = build_start(layer, id);
		if (r < 0)
			layer_settle(layer, r, blob_source(id), false);
	}
	layer_unref(layer);
}

const struct index *layer_index(const struct layer *layer)
{
	return &layer->index;
}

bool layer_broken(const struct layer *layer)
{
	return layer->map.data && __atomic_load_n(layer->map.broken, __ATOMIC_RELAXED);
}

bool layer_recheck(const struct layer *layer)
{
	struct index index;

	if (layer->map.data && index_open(layer->map.data, layer->map.len, &index) < 0)
		__atomic_store_n(layer->map.broken, true, __ATOMIC_RELAXED);
	return layer_broken(layer);
}
