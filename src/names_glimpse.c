/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names_glimpse: what a process was told a moment ago of a tag: that it is there.
 * Must not know what a tag is.
 *
 * ln -sfn asks in steps: symlink(2) says EEXIST, lstat(2) what is there, and only then it makes
 * a link under another name and renames it. In the embedded store the tag may vanish between
 * two of them, as skopeo writes index.json as it was when it began, and ln fails with the first
 * one's EEXIST. So what a process was told stays true for it until its next step.
 */
#include "names_priv.h"

#define SLOTS	 256  /* a power of two; a later one of the same slot wins */
#define STAYS_MS 2000 /* longer than a lookup waits for an index that is half written */

struct slot {
	uint64_t hash; /* two that have the same are one: it is only for a moment */
	int64_t until_ms;
};

struct glimpses {
	pthread_mutex_t lock;
	struct slot slots[SLOTS]; /* guarded by lock */
};

struct glimpses *glimpses_new(void)
{
	struct glimpses *glimpses = calloc(1, sizeof(*glimpses));

	if (glimpses)
		pthread_mutex_init(&glimpses->lock, NULL);
	return glimpses;
}

void glimpses_free(struct glimpses *glimpses)
{
	if (!glimpses)
		return;
	pthread_mutex_destroy(&glimpses->lock);
	free(glimpses);
}

static uint64_t hash_of(const struct glimpse *key)
{
	uint64_t hash = hash64((uintptr_t)key->host, &key->pid, sizeof(key->pid));

	hash = hash64(hash, key->repo, strlen(key->repo));
	return hash64(hash, key->tag, strlen(key->tag));
}

void glimpses_add(struct glimpses *glimpses, const struct glimpse *key, int64_t now)
{
	uint64_t hash = hash_of(key);

	if (key->pid <= 0)
		return;
	pthread_mutex_lock(&glimpses->lock);
	glimpses->slots[hash & (SLOTS - 1)] = (struct slot){.hash = hash,
							    .until_ms = now + STAYS_MS};
	pthread_mutex_unlock(&glimpses->lock);
}

bool glimpses_has(struct glimpses *glimpses, const struct glimpse *key, int64_t now)
{
	uint64_t hash = hash_of(key);
	const struct slot *slot = &glimpses->slots[hash & (SLOTS - 1)];
	bool has;

	pthread_mutex_lock(&glimpses->lock);
	has = key->pid > 0 && slot->hash == hash && now < slot->until_ms;
	pthread_mutex_unlock(&glimpses->lock);
	return has;
}

void glimpses_forget(struct glimpses *glimpses)
{
	pthread_mutex_lock(&glimpses->lock);
	memset(glimpses->slots, 0, sizeof(glimpses->slots));
	pthread_mutex_unlock(&glimpses->lock);
}
