/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names_memo: which digests tags were found to name, each until a time. A table in which a later
 * one of the same slot wins.
 * Must not know how a tag is resolved, nor for how long that is to be believed.
 */
#include <errno.h>

#include "names_priv.h"

#define SLOTS 4096 /* a power of two */

struct slot {
	const struct host *host; /* NULL: empty */
	char *name;		 /* "repo:tag" */
	struct digest digest;
	int64_t until_ms;
};

struct memos {
	pthread_mutex_t lock;
	struct slot slots[SLOTS]; /* guarded by lock */
	uint64_t moves;		  /* of tags, by us; guarded by lock */
};

struct memos *memos_new(void)
{
	struct memos *memos = calloc(1, sizeof(*memos));

	if (memos)
		pthread_mutex_init(&memos->lock, NULL);
	return memos;
}

void memos_free(struct memos *memos)
{
	if (!memos)
		return;
	for (size_t i = 0; i < SLOTS; i++)
		free(memos->slots[i].name);
	pthread_mutex_destroy(&memos->lock);
	free(memos);
}

/* Lock held. */
static struct slot *slot_of(struct memos *memos, const struct host *host, const char *name)
{
	uint64_t hash = hash64((uintptr_t)host, name, strlen(name));

	return &memos->slots[hash & (SLOTS - 1)];
}

static bool slot_is(const struct slot *slot, const struct host *host, const char *name)
{
	return slot->host == host && !strcmp(slot->name, name);
}

bool memos_find(struct memos *memos, const struct host *host, const char *name, struct memo *ret)
{
	const struct slot *slot;
	bool found;

	pthread_mutex_lock(&memos->lock);
	slot = slot_of(memos, host, name);
	found = slot_is(slot, host, name) && now_ms() < slot->until_ms;
	if (found)
		*ret = (struct memo){slot->digest, slot->until_ms, memos->moves};
	else
		ret->moves = memos->moves;
	pthread_mutex_unlock(&memos->lock);
	return found;
}

bool memos_store(struct memos *memos, const struct host *host, char **name,
		 const struct memo *fresh)
{
	struct slot *slot;
	bool current;

	pthread_mutex_lock(&memos->lock);
	current = memos->moves == fresh->moves;
	slot = slot_of(memos, host, *name);
	free(slot->name);
	*slot = (struct slot){.host = host,
			      .name = STEAL(*name),
			      .digest = fresh->digest,
			      .until_ms = current ? fresh->until_ms : 0};
	pthread_mutex_unlock(&memos->lock);
	return current;
}

void memos_forget(struct memos *memos, const struct host *host, const char *name)
{
	struct slot *slot;

	pthread_mutex_lock(&memos->lock);
	slot = slot_of(memos, host, name);
	if (slot_is(slot, host, name))
		slot->until_ms = 0;
	memos->moves++;
	pthread_mutex_unlock(&memos->lock);
}

/* The tag of "REPO:TAG", or NULL if it is another repository's. Lock held. */
static const char *slot_tag(const struct slot *slot, const struct host *host, const char *repo)
{
	size_t len = strlen(repo);

	if (slot->host != host || strncmp(slot->name, repo, len) != 0 || slot->name[len] != ':')
		return NULL;
	return slot->name + len + 1;
}

struct nameset *memos_tags(struct memos *memos, const struct host *host, const char *repo,
			   const struct digest *digest)
{
	struct nameset *tags = nameset_new();
	int r = tags ? 0 : -ENOMEM;

	pthread_mutex_lock(&memos->lock);
	for (size_t i = 0; r == 0 && i < SLOTS; i++) {
		const char *tag = slot_tag(&memos->slots[i], host, repo);

		if (tag && digest_equal(&memos->slots[i].digest, digest))
			r = nameset_add(tags, tag);
	}
	pthread_mutex_unlock(&memos->lock);
	if (tags)
		nameset_seal(tags);
	return tags;
}
