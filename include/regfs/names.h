/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names: the directories above images: registries, repositories, _tags, _digests, _blobs.
 * Knows catalogues, tag lists and how long to believe them. Must not know FUSE, nor what an image
 * directory holds.
 *
 * Lists and resolutions are believed for tag_ttl; one request for many waiters. When the registry
 * is gone the last known answers serve. A directory lists what was known when its listing began,
 * so that positions stay good while the list changes.
 */
#ifndef REGFS_NAMES_H
#define REGFS_NAMES_H

#include "regfs/context.h"
#include "regfs/ref.h"

struct names;

/* Makes the store for HOST; no request is sent. */
typedef int names_store_fn(void *arg, const char *host, struct store **ret);

/* Is called with hosts; stops the walk by returning non-zero. */
typedef int names_host_fn(void *arg, const char *host);

struct names_options {
	const struct context *context;
	names_store_fn *store;
	void *arg;
	const char *const *hosts; /* listed at the root from the start; NULL-terminated */
	/* Calls FN for each host that credentials are stored for now; they are listed too. 0, what
	 * FN returned, -EWOULDBLOCK. */
	int (*stored_hosts)(void *arg, names_host_fn *fn, void *fn_arg, struct wait *wait);
	/* Makes the kernel forget NAME in DIR; called on the event thread. */
	void (*forget)(void *arg, const struct node_ref *dir, const char *name);
	void *forget_arg;
};

struct names *names_new(const struct names_options *options);
/* After the last request, while events are still delivered: ends what goes on in the background.
 * NULL is fine. */
void names_finish(struct names *names);
/* After all nodes are gone. NULL is fine. */
void names_free(struct names *names);

/* The root directory for SOURCE, held. */
int names_root(struct names *names, const struct source *source, struct node **ret);

/* The store has confirmed a tag of a repository that we made or moved: what was remembered of it
 * gives way to DIGEST, the kernel is told, and all of it is known to later mounts. */
void names_tag_made(struct names *names, struct store *store, const char *repo, const char *tag,
		    const struct digest *digest);
/* Waits (a moment at most) until the kernel was told of all changes so far. */
void names_settle(struct names *names, struct wait *wait);

#endif
