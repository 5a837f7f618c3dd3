// SPDX-License-Identifier: Apache-2.0
/*
 * Blobs of which raw readers were given bytes that then turned out to be wrong, or were never
 * judged. Knows which, as long as the room lives. Must not know passes, nor who reads.
 *
 * Another try may bring the right bytes. Who holds the beginning of the wrong ones must not get the
 * end of these, as that would be a wrong blob read to its end: a reader in the middle is refused
 * until somebody has begun anew. And who keeps what they were given for others (the kernel) is told
 * by a count that it is stale.
 */
#include <errno.h>

#include "blob_priv.h"

/* Lock held. */
static struct stale *stale_find(struct blobs *blobs, const struct cache_id *id)
{
	for (size_t i = 0; i < STALE_MAX; i++) {
		struct stale *stale = &blobs->stale[i];

		if (stale->times && memcmp(stale->key, id->key, sizeof(stale->key)) == 0)
			return stale;
	}
	return NULL;
}

void stale_note(struct blob *blob, bool wrong)
{
	struct blobs *blobs = blob->blobs;
	struct stale *stale = stale_find(blobs, &blob->id);

	if (!stale) {
		stale = &blobs->stale[blobs->next_stale];
		blobs->next_stale = (blobs->next_stale + 1) % STALE_MAX;
		*stale = (struct stale){0};
		memcpy(stale->key, blob->id.key, sizeof(stale->key));
	}
	stale->times++;
	stale->refused |= wrong;
	atomic_store(&blobs->has_stale, true);
}

bool stale_refuses(struct blobs *blobs, const struct cache_id *id)
{
	if (!atomic_load(&blobs->has_stale))
		return false;
	pthread_mutex_lock(&blobs->lock);
	const struct stale *stale = stale_find(blobs, id);
	bool refused = stale && stale->refused;
	pthread_mutex_unlock(&blobs->lock);
	return refused;
}

void stale_begun(struct blobs *blobs, const struct cache_id *id)
{
	if (!atomic_load(&blobs->has_stale))
		return;
	pthread_mutex_lock(&blobs->lock);
	struct stale *stale = stale_find(blobs, id);
	if (stale)
		stale->refused = false;
	pthread_mutex_unlock(&blobs->lock);
}

/* Whether a raw reader gets nothing but what was judged, without looking for the sums' file. */
static bool is_judged(struct blobs *blobs, const struct blob_id *id)
{
	struct cache_id sums = {.kind = CACHE_SUMS};
	struct blob *blob;

	/* the last block is given with the verdict only */
	if (id->size <= CACHE_BLOCK)
		return true;
	if (blob_hold(blobs, id, false, &blob) == 0) {
		pthread_mutex_lock(&blobs->lock);
		bool known = blob->sums;
		pthread_mutex_unlock(&blobs->lock);
		blob_put(blob);
		if (known)
			return true;
	}
	digest_key(id->digest, sums.key);
	return cache_has(blobs->cache, &sums, 0);
}

void blob_raw_state(struct blobs *blobs, const struct blob_id *id, struct blob_raw *ret)
{
	struct cache_id cache_id = {.kind = CACHE_BLOB};
	struct blob_raw state = {.judged = is_judged(blobs, id)};

	digest_key(id->digest, cache_id.key);
	pthread_mutex_lock(&blobs->lock);
	const struct stale *stale = stale_find(blobs, &cache_id);
	state.times = stale ? stale->times : 0;
	pthread_mutex_unlock(&blobs->lock);
	*ret = state;
}
