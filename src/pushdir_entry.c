/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The entries of all _push directories: how long they stay, and finding them.
 * Knows names and times. Must not know nodes, archives or uploads.
 */
#include "pushdir_priv.h"

#define STAYS_MS (60 * 1000)
#define KEPT_MS	 (60 * 60 * 1000)

struct pushdirs *pushdirs_new(const struct context *context, const struct pushdirs_hooks *hooks)
{
	struct pushdirs *dirs = calloc(1, sizeof(*dirs));

	if (!dirs)
		return NULL;
	dirs->staged = stagedirs_new(context, hooks);
	if (!dirs->staged) {
		free(dirs);
		return NULL;
	}
	dirs->context = context;
	dirs->hooks = *hooks;
	pthread_mutex_init(&dirs->lock, NULL);
	return dirs;
}

void pushentry_free(struct pushentry *entry)
{
	push_unref(entry->push);
	free(entry->repo);
	free(entry->node_name);
	free(entry->name);
	free(entry);
}

void pushdirs_free(struct pushdirs *dirs)
{
	if (!dirs)
		return;
	while (dirs->entries) {
		struct pushentry *entry = dirs->entries;

		dirs->entries = entry->next;
		pushentry_free(entry);
	}
	stagedirs_free(dirs->staged);
	pthread_mutex_destroy(&dirs->lock);
	free(dirs);
}

void pushentry_unref(struct pushdirs *dirs, struct pushentry *entry)
{
	bool last;

	pthread_mutex_lock(&dirs->lock);
	last = --entry->refs == 0;
	pthread_mutex_unlock(&dirs->lock);
	if (last)
		pushentry_free(entry);
}

void pushentry_unlist(struct pushdirs *dirs, struct pushentry *entry)
{
	bool was_listed;

	pthread_mutex_lock(&dirs->lock);
	was_listed = entry->listed;
	for (struct pushentry **at = &dirs->entries; was_listed && *at; at = &(*at)->next) {
		if (*at == entry) {
			*at = entry->next;
			break;
		}
	}
	entry->listed = false;
	pthread_mutex_unlock(&dirs->lock);
	if (was_listed)
		pushentry_unref(dirs, entry);
}

/* Lock held. */
static bool is_over(const struct pushentry *entry, int64_t now)
{
	int64_t before = now - STAYS_MS;

	if (entry->kept)
		return entry->touched_ms < now - KEPT_MS;
	return (entry->confirmed_ms && entry->confirmed_ms < before) ||
	       (entry->failed_ms && entry->failed_ms < before);
}

void pushentries_sweep(struct pushdirs *dirs)
{
	int64_t now = now_ms();
	struct pushentry *old = NULL;

	pthread_mutex_lock(&dirs->lock);
	for (struct pushentry **at = &dirs->entries; *at;) {
		struct pushentry *entry = *at;

		if (!is_over(entry, now)) {
			at = &entry->next;
			continue;
		}
		*at = entry->next;
		entry->listed = false;
		if (--entry->refs == 0) {
			entry->next = old;
			old = entry;
		}
	}
	pthread_mutex_unlock(&dirs->lock);
	while (old) {
		struct pushentry *entry = old;

		old = entry->next;
		pushentry_free(entry);
	}
}

bool pushentry_is_in(const struct pushentry *entry, const struct pushdir *dir)
{
	return entry->store == dir->store && !strcmp(entry->repo, dir->repo);
}

struct pushentry *pushentry_find(struct pushdir *dir, const char *name)
{
	struct pushentry *entry;

	pthread_mutex_lock(&dir->dirs->lock);
	entry = dir->dirs->entries;
	while (entry && !(pushentry_is_in(entry, dir) && !strcmp(entry->name, name)))
		entry = entry->next;
	if (entry)
		entry->refs++;
	pthread_mutex_unlock(&dir->dirs->lock);
	return entry;
}
