/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer: the table of layers, and their indexes out of the cache.
 * Must not know other layers' content, nor how an index is built.
 */
#include <errno.h>

#include "regfs/log.h"

#include "layer_priv.h"

#define MAX_IDLE 512 /* layers nobody holds that stay mapped: re-opening is free */

struct layers *layers_new(struct blobs *blobs, struct cache *cache, struct pool *jobs)
{
	struct layers *layers = calloc(1, sizeof(*layers));

	if (!layers)
		return NULL;
	layers->blobs = blobs;
	layers->cache = cache;
	layers->jobs = jobs;
	pthread_mutex_init(&layers->lock, NULL);
	spans_init(&layers->spans);
	return layers;
}

void layer_free(struct layer *layer)
{
	if (!layer)
		return;
	if (layer->map.data)
		cache_unmap(&layer->map);
	free(layer->memory);
	free(layer->repo);
	free(layer);
}

void layers_free(struct layers *layers)
{
	if (!layers)
		return;
	builds_end(layers);
	while (layers->table) {
		struct layer *layer = layers->table;

		layers->table = layer->next;
		layer_free(layer);
	}
	spans_release(&layers->spans);
	pthread_mutex_destroy(&layers->lock);
	free(layers);
}

/* --- making one --- */

static struct layer *layer_make(struct layers *layers, const struct blob_id *id)
{
	struct layer *layer = calloc(1, sizeof(*layer));

	if (!layer)
		return NULL;
	layer->repo = strdup(id->repo);
	if (!layer->repo) {
		free(layer);
		return NULL;
	}
	layer->layers = layers;
	layer->digest = *id->digest;
	layer->blob_size = id->size;
	layer->store = id->store;
	layer->refs = 1;
	return layer;
}

/* Whether the index is of this blob. */
static bool index_is_of(const struct index *index, const struct blob_id *id)
{
	uint8_t key[DIGEST_KEY_LEN];

	digest_key(id->digest, key);
	return !memcmp(index->info.blob_key, key, sizeof(key)) && index->info.blob_size == id->size;
}

int layer_load(struct layers *layers, const struct blob_id *id, struct layer **ret)
{
	struct layer *layer;
	struct cache_id cache_id;
	char text[DIGEST_STR_MAX];
	int r;

	layer = layer_make(layers, id);
	if (!layer)
		return -ENOMEM;
	layer_blob_cache_id(id->digest, CACHE_INDEX, &cache_id);
	if (cache_map(layers->cache, &cache_id, &layer->map) < 0) {
		layer->map.data = NULL;
		layer_free(layer);
		return -ENOENT;
	}
	r = index_open(layer->map.data, layer->map.len, &layer->index);
	if (r == 0 && !index_is_of(&layer->index, id))
		r = -EIO;
	if (r == 0) {
		*ret = layer;
		return 0;
	}
	if (r != -ESTALE)
		log_warn("index of layer %s: damaged; it is made again",
			 digest_format(id->digest, text));
	cache_remove(layers->cache, &cache_id);
	layer_free(layer);
	return -ENOENT;
}

int layer_from_memory(struct layers *layers, const struct blob_id *id, char *memory, size_t len,
		      struct layer **ret)
{
	struct layer *layer = layer_make(layers, id);
	int r;

	if (!layer)
		return -ENOMEM;
	r = index_open(memory, len, &layer->index);
	if (r < 0) {
		layer_free(layer);
		return r;
	}
	layer->memory = memory;
	*ret = layer;
	return 0;
}

/* --- the table --- */

/* Lock held. Held and moved to the front, or NULL. One whose map broke is left out. */
static struct layer *table_find(struct layers *layers, const struct digest *digest, uint64_t size)
{
	for (struct layer **at = &layers->table; *at; at = &(*at)->next) {
		struct layer *layer = *at;

		if (!digest_equal(&layer->digest, digest) || layer->blob_size != size ||
		    layer_broken(layer))
			continue;
		*at = layer->next;
		layer->next = layers->table;
		layers->table = layer;
		layer->refs++;
		return layer;
	}
	return NULL;
}

/* Lock held. Takes out what is idle and too many, or broken. */
static struct layer *table_trim(struct layers *layers)
{
	struct layer *gone = NULL;
	unsigned idle = 0;

	for (struct layer **at = &layers->table; *at;) {
		struct layer *layer = *at;

		if (layer->refs || (!layer_broken(layer) && ++idle <= MAX_IDLE)) {
			at = &layer->next;
			continue;
		}
		*at = layer->next;
		layer->next = gone;
		gone = layer;
	}
	return gone;
}

struct layer *layer_install(struct layer *fresh)
{
	struct layers *layers = fresh->layers;
	struct layer *first;

	pthread_mutex_lock(&layers->lock);
	first = table_find(layers, &fresh->digest, fresh->blob_size);
	if (!first) {
		fresh->number = ++layers->numbers;
		fresh->listed = true;
		fresh->next = layers->table;
		layers->table = fresh;
	}
	pthread_mutex_unlock(&layers->lock);
	if (!first)
		return fresh;
	layer_free(fresh);
	return first;
}

struct layer *layer_ref(struct layer *layer)
{
	pthread_mutex_lock(&layer->layers->lock);
	layer->refs++;
	pthread_mutex_unlock(&layer->layers->lock);
	return layer;
}

void layer_unref(struct layer *layer)
{
	struct layer *gone = NULL;

	if (!layer)
		return;
	pthread_mutex_lock(&layer->layers->lock);
	if (--layer->refs == 0)
		gone = table_trim(layer->layers);
	pthread_mutex_unlock(&layer->layers->lock);
	while (gone) {
		struct layer *next = gone->next;

		layer_free(gone);
		gone = next;
	}
}

/* --- opening --- */

static int layer_find(struct layers *layers, const struct blob_id *id, struct layer **ret)
{
	struct layer *layer;
	int r;

	pthread_mutex_lock(&layers->lock);
	layer = table_find(layers, id->digest, id->size);
	pthread_mutex_unlock(&layers->lock);
	if (!layer) {
		r = layer_load(layers, id, &layer);
		if (r < 0)
			return r;
		layer = layer_install(layer);
	}
	*ret = layer;
	return 0;
}

static int check_diff_id(const struct layer *layer, const struct digest *diff_id)
{
	const struct digest *found = &layer->index.info.diff_id;
	char blob[DIGEST_STR_MAX], want[DIGEST_STR_MAX], is[DIGEST_STR_MAX];

	if (!diff_id || found->algo != diff_id->algo || digest_equal(found, diff_id))
		return 0;
	log_error("layer %s: its diff ID is %s, the config says %s",
		  digest_format(&layer->digest, blob), digest_format(found, is),
		  digest_format(diff_id, want));
	return -EIO;
}

int layer_open(struct layers *layers, const struct blob_id *id, const struct digest *diff_id,
	       struct wait *wait, struct layer **ret)
{
	struct layer *layer;
	int r = layer_find(layers, id, &layer);

	if (r == -ENOENT)
		r = build_run(layers, BUILD_INDEX, id, wait, &layer);
	if (r < 0)
		return r;
	r = check_diff_id(layer, diff_id);
	if (r < 0) {
		layer_unref(layer);
		return r;
	}
	*ret = layer;
	return 0;
}

void layer_prepare(struct layers *layers, const struct blob_id *id)
{
	struct layer *layer;
	int r = layer_find(layers, id, &layer);

	if (r == 0)
		layer_unref(layer);
	else if (r == -ENOENT)
		build_prepare(layers, id);
}

const struct index *layer_index(const struct layer *layer)
{
	return &layer->index;
}

bool layer_broken(const struct layer *layer)
{
	return layer->map.data && layer->map.broken &&
	       __atomic_load_n(layer->map.broken, __ATOMIC_ACQUIRE);
}
