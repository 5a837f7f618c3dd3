/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_redirect: where a registry's blobs were found, so that it is not asked again for each
 * range of them.
 * Knows URLs and how long they served. Must not know requests (registry_request.c).
 *
 * A registry that keeps its blobs elsewhere answers with a signed URL, which serves for some
 * minutes. It is used until it fails. Then one caller asks the registry again, and the others
 * that want the same blob wait for what it finds. So they do for a blob that is new, once
 * this registry was seen to send anybody away: before that, waiting would cost a round trip for
 * nothing.
 *
 * States of an entry: ASKING (somebody leads), DIRECT (the registry serves it itself), AWAY (.url
 * does). If the one who leads fails, the entry goes, and those who waited ask for themselves: else
 * they would fail one after the other.
 */
#include <errno.h>

#include "registry_priv.h"

#define ENTRIES 128

enum entry_state { ENTRY_FREE, ENTRY_ASKING, ENTRY_DIRECT, ENTRY_AWAY };

struct entry {
	enum entry_state state;
	char *key;
	char *url; /* of AWAY */
	uint64_t used;
};

struct redirects {
	pthread_mutex_t lock;
	/* all below guarded by lock */
	struct wait_queue waiters;
	struct entry entries[ENTRIES];
	uint64_t clock; /* counts uses */
	bool seen;	/* somebody was sent away */
};

struct redirects *redirects_new(void)
{
	struct redirects *redirects = calloc(1, sizeof(*redirects));
	if (redirects)
		pthread_mutex_init(&redirects->lock, NULL);
	return redirects;
}

static void entry_clear(struct entry *entry)
{
	free(entry->key);
	free(entry->url);
	*entry = (struct entry){.state = ENTRY_FREE};
}

void redirects_free(struct redirects *redirects)
{
	if (!redirects)
		return;
	for (size_t i = 0; i < ENTRIES; i++)
		entry_clear(&redirects->entries[i]);
	pthread_mutex_destroy(&redirects->lock);
	free(redirects);
}

/* Lock held, here and below. */
static struct entry *find(struct redirects *redirects, const char *key)
{
	for (size_t i = 0; i < ENTRIES; i++) {
		struct entry *entry = &redirects->entries[i];
		if (entry->state != ENTRY_FREE && !strcmp(entry->key, key)) {
			entry->used = ++redirects->clock;
			return entry;
		}
	}
	return NULL;
}

/* A new entry in place of the one that was not used for longest. NULL: there is no room. */
static struct entry *add(struct redirects *redirects, const char *key)
{
	struct entry *oldest = NULL;
	for (size_t i = 0; i < ENTRIES; i++) {
		struct entry *entry = &redirects->entries[i];
		if (entry->state != ENTRY_ASKING && (!oldest || entry->used < oldest->used))
			oldest = entry;
	}
	char *copy = oldest ? strdup(key) : NULL;
	if (!copy)
		return NULL;
	entry_clear(oldest);
	oldest->key = copy;
	oldest->used = ++redirects->clock;
	return oldest;
}

/* Who is nobody's follower: whether they lead. */
static int lead(struct redirects *redirects, const char *key)
{
	struct entry *entry = redirects->seen ? add(redirects, key) : NULL;
	if (!entry)
		return 0;
	entry->state = ENTRY_ASKING;
	return 1;
}

static int find_or_wait(struct redirects *redirects, const char *key, struct wait *wait, char **ret)
{
	struct entry *entry = find(redirects, key);
	if (!entry)
		return lead(redirects, key);
	while (entry && entry->state == ENTRY_ASKING) {
		int err = wait_on(wait, &redirects->waiters, &redirects->lock, WAIT_FOREVER);
		if (err)
			return err;
		entry = find(redirects, key);
	}
	if (!entry || entry->state != ENTRY_AWAY)
		return 0;
	char *url = strdup(entry->url);
	if (!url)
		return -ENOMEM;
	*ret = url;
	return 0;
}

int redirects_find(struct redirects *redirects, const char *key, struct wait *wait, char **ret)
{
	pthread_mutex_lock(&redirects->lock);
	int result = find_or_wait(redirects, key, wait, ret);
	pthread_mutex_unlock(&redirects->lock);
	return result;
}

void redirects_settle(struct redirects *redirects, const char *key, const char *url)
{
	char *copy = url ? strdup(url) : NULL;
	pthread_mutex_lock(&redirects->lock);
	redirects->seen |= url != NULL;
	struct entry *entry = find(redirects, key);
	if (!entry && url)
		entry = add(redirects, key);
	if (entry && url && !copy) {
		entry_clear(entry);
	} else if (entry) {
		free(entry->url);
		entry->url = STEAL(copy);
		entry->state = url ? ENTRY_AWAY : ENTRY_DIRECT;
	}
	wait_wake(&redirects->waiters);
	pthread_mutex_unlock(&redirects->lock);
	free(copy);
}

void redirects_drop(struct redirects *redirects, const char *key, const char *url)
{
	pthread_mutex_lock(&redirects->lock);
	struct entry *entry = find(redirects, key);
	bool theirs = entry && (url ? entry->state == ENTRY_AWAY && !strcmp(entry->url, url)
				    : entry->state == ENTRY_ASKING);
	if (theirs)
		entry_clear(entry);
	wait_wake(&redirects->waiters);
	pthread_mutex_unlock(&redirects->lock);
}
