/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of registry's front share; nobody else includes it.
 *
 * registry_front.c         endpoints, in which order they are tried, which are left aside
 * registry_front_ops.c     the operations of store.h
 * registry_front_stream.c  a blob's bytes, from one endpoint after the other
 */
#ifndef REGFS_REGISTRY_FRONT_PRIV_H
#define REGFS_REGISTRY_FRONT_PRIV_H

#include <pthread.h>

#include "registry_priv.h"

/* What is remembered of blobs that were served, and of those that were wrong. */
#define SERVED_MAX  64
#define DENIALS_MAX 64
/* Tags that we moved. */
#define MOVED_MAX 256

/* The store of one endpoint; kept as long as the front. */
struct way {
	struct way *next; /* constant once it is listed */
	uint64_t identity;
	bool mirror; /* one host may be a mirror for some and the origin of others */
	struct store *store;
	/* guarded by front->lock */
	unsigned failures;
	int64_t aside_ms; /* until then, in now_ms() time */
};

struct served {
	uint64_t blob; /* a hash of its digest */
	struct way *way;
};

/* A mirror that does not let us read a repository: it may well let us read others. */
struct denial {
	uint64_t what; /* a hash of the mirror and its repository */
	int64_t until_ms;
};

struct front {
	struct store store;
	atomic_bool offline_said;	 /* in the log */
	struct registry_options options; /* .host is store.name */

	pthread_mutex_t lock;
	/* guarded by lock */
	struct way *ways;
	struct served served[SERVED_MAX]; /* by mirrors; the oldest is overwritten */
	unsigned nserved;
	uint64_t wrong[SERVED_MAX]; /* blobs that mirrors are not asked for any more */
	unsigned nwrong;
	struct denial denials[DENIALS_MAX]; /* the oldest is overwritten */
	unsigned ndenials;
	uint64_t moved[MOVED_MAX]; /* tags that mirrors may not know yet; the oldest is overwritten
				    */
	unsigned nmoved;
};

static inline struct front *front_of(struct store *store)
{
	return CONTAINER_OF(store, struct front, store);
}

struct leg {
	const struct hosts_endpoint *endpoint;
	struct way *way;
};

/* The endpoints to try, in order. */
struct route {
	const struct hosts_answer *answer;
	struct leg legs[32];
	size_t n;
};

static inline void route_release(struct route *route)
{
	hosts_answer_unref(route->answer);
}
#define AUTO_ROUTE CLEANUP(route_release)

/* What is wanted of endpoints, and in which order. */
struct errand {
	unsigned can;	   /* all of these */
	bool origin_first; /* the mirrors only in its place */
	bool no_mirrors;
};

/* 0, or why there is nobody to ask: -EACCES (logged), -EHOSTUNREACH (offline), -EWOULDBLOCK,
 * -ENOMEM.
 */
int front_route(struct front *front, const char *repo, const struct errand *errand,
		struct wait *wait, struct route *ret);
/* One operation at one endpoint. */
typedef int leg_fn(void *arg, struct store *store, const char *repo, struct wait *wait);
/* Tries all until one gives 0; else the origin's error, or that of the last. */
int front_try(struct front *front, const struct route *route, leg_fn *fn, void *arg,
	      struct wait *wait);

/* We are about to move a tag: what mirrors say of it is older from then on. */
void front_move(struct front *front, const char *repo, const char *tag);
bool front_has_moved(struct front *front, const char *repo, const char *tag);

bool front_is_origin(const struct hosts_endpoint *endpoint);
/* Of no endpoint's making. */
bool front_is_ours(int err);
/* It could not be asked: which says nothing about what it has. */
bool front_is_gone(int err);
void front_leave_aside(struct front *front, struct way *way);
/* The mirror of LEG said -EACCES: it is asked later for that repository, for a while. */
void front_deny(struct front *front, const struct leg *leg);

extern const struct store_ops front_ops;
void front_free(struct store *store);
int front_open_blob(struct store *store, const char *repo, const struct digest *digest,
		    uint64_t off, uint64_t len, struct store_stream **ret, struct wait *wait);
void front_distrust(struct store *store, const char *repo, const struct digest *digest);

#endif
