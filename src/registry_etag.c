/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_etag: the entity tags (RFC 9110, section 8.8.3) of manifests whose digest a registry
 * does not tell by HEAD, so that asking again what a tag names costs no manifest.
 * Knows URLs, entity tags and digests. Must not know requests.
 *
 * One entry a slot; a later one takes its place. What is lost costs one manifest.
 */
#include "registry_priv.h"

#define SLOTS	 256
#define ETAG_MAX 512

struct etag {
	char *url; /* NULL: free */
	char *value;
	struct digest digest;
};

struct etags {
	pthread_mutex_t lock;
	struct etag slots[SLOTS]; /* guarded by lock */
};

struct etags *etags_new(void)
{
	struct etags *etags = calloc(1, sizeof(*etags));
	if (etags)
		pthread_mutex_init(&etags->lock, NULL);
	return etags;
}

static void etag_clear(struct etag *etag)
{
	free(etag->url);
	free(etag->value);
	*etag = (struct etag){0};
}

void etags_free(struct etags *etags)
{
	if (!etags)
		return;
	for (size_t i = 0; i < SLOTS; i++)
		etag_clear(&etags->slots[i]);
	pthread_mutex_destroy(&etags->lock);
	free(etags);
}

static struct etag *slot_of(struct etags *etags, const char *url)
{
	return &etags->slots[hash64(0, url, strlen(url)) % SLOTS];
}

/* A weak one ("W/...") is the same for bytes that differ: no digest hangs on it. */
static bool is_strong(const char *value)
{
	return value && *value == '"' && strlen(value) < ETAG_MAX;
}

void etags_note(struct etags *etags, const char *url, const char *value,
		const struct digest *digest)
{
	struct etag fresh = {.digest = *digest};
	if (is_strong(value)) {
		fresh.url = strdup(url);
		fresh.value = strdup(value);
	}
	if (!fresh.url || !fresh.value)
		etag_clear(&fresh);
	pthread_mutex_lock(&etags->lock);
	struct etag *slot = slot_of(etags, url);
	if (fresh.url || (slot->url && !strcmp(slot->url, url))) {
		etag_clear(slot);
		*slot = fresh;
	}
	pthread_mutex_unlock(&etags->lock);
}

bool etags_has(struct etags *etags, const char *url)
{
	pthread_mutex_lock(&etags->lock);
	const struct etag *slot = slot_of(etags, url);
	bool has = slot->url && !strcmp(slot->url, url);
	pthread_mutex_unlock(&etags->lock);
	return has;
}

char *etags_find(struct etags *etags, const char *url, struct digest *ret)
{
	char *header = NULL;
	pthread_mutex_lock(&etags->lock);
	const struct etag *slot = slot_of(etags, url);
	if (slot->url && !strcmp(slot->url, url))
		header = format("If-None-Match: %s", slot->value);
	if (header)
		*ret = slot->digest;
	pthread_mutex_unlock(&etags->lock);
	return header;
}
