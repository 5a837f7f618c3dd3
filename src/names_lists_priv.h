/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names_lists: catalogues and tag lists as names_answers.c uses them, under one lock of the two.
 */
#ifndef REGFS_NAMES_LISTS_PRIV_H
#define REGFS_NAMES_LISTS_PRIV_H

#include "names_priv.h"

struct list {
	enum list_kind kind;
	struct host *host;
	char *repo; /* "" for LIST_REPOS */
	/* all below guarded by lists->lock */
	struct nameset *names; /* as the store listed them; NULL: never */
	struct nameset *added; /* confirmed since the store listed them */
	struct nameset *extra; /* visited or made (repositories), seen (digests) */
	int64_t until_ms;      /* believed until then */
	int64_t fetched_ms;    /* when the store was last asked */
	int64_t took_ms;       /* and how long it took */
	int error;	       /* of the last fetch */
	int64_t refused_ms;    /* when the store refused it, in wall_ms() time; 0: it did not */
	bool recalled;	       /* what was kept (names_kept.c) is in .names, .added, .refused_ms */
	bool fetching;
	bool changed; /* since the present fetch began: what comes is old already */
	unsigned users;
	struct wait_queue waiters;
	struct list *next; /* most recently used first */
};

struct lists {
	const struct context *context;
	pthread_mutex_t lock;
	struct list *head; /* guarded by lock */
	size_t n;	   /* guarded by lock */
};
void lists_init(struct lists *lists, const struct context *context);
void lists_release(struct lists *lists);
/* For how long what HOST says is believed. */
int64_t lists_ttl_ms(const struct lists *lists, const struct host *host);

/* All below: the lock is held, and where that is said released meanwhile. */

/* The list, made if need be, and in use until list_put(); NULL when memory is short. */
struct list *list_get(struct lists *lists, enum list_kind kind, struct host *host,
		      const char *repo);
void list_put(struct list *list);
/* Makes the list fresh; released while the store is asked. 0 if there are names to be had, old ones
 * included; else the store's error, or -EWOULDBLOCK, -EINTR. */
int list_want(struct lists *lists, struct list *list, struct wait *wait);
/* Whether R, of list_want(), leaves something to be shown: some names are known. */
bool list_serves(const struct list *list, int r);
/* Takes what was kept of the list, if nobody has asked the store yet; released meanwhile. */
void list_recall(struct lists *lists, struct list *list);
/* What is being fetched is not believed either. */
void list_expire(struct list *list);
/* .names, .added and .extra in one set. */
struct nameset *list_union(const struct list *list);

/* 0, -ENOMEM. */
int names_set_add(struct nameset **set, const char *name);
void names_set_drop(struct nameset **set, const char *name);

#endif
