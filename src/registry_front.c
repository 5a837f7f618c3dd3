/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_front: the store that a host is to the rest of regfs: for each operation the endpoints
 * that hosts.h names, in their order, until one can.
 * Knows mirrors and origins, and which of them is left aside. Must not know requests: each
 * endpoint is a store of its own (registry.c), with its own credentials, TLS and connections.
 *
 * Reading: mirrors, then the origin, then the mirrors that are left aside. What the origin says is
 * final; a mirror's no is not. Lists, which only the origin knows to be complete, and tags that we
 * moved, which mirrors may not know yet, begin with the origin. Writing: one place, and no other
 * instead.
 */
#include <errno.h>

#include "registry_front_priv.h"
#include "regfs/log.h"

/* How long a mirror that failed is left aside: twice as long each time, up to the maximum. */
#define ASIDE_MS     2000
#define ASIDE_MAX_MS 60000

/* ---- endpoints ---- */

bool front_is_origin(const struct hosts_endpoint *endpoint)
{
	return endpoint->can & HOSTS_ORIGIN;
}

/* The endpoint with what the command line says of the host itself. */
static struct hosts_endpoint adapt(const struct front *front, const struct hosts_endpoint *endpoint)
{
	struct hosts_endpoint adapted = *endpoint;
	if (strcmp(endpoint->host, front->store.name) != 0)
		return adapted;
	if (front->options.plain_http)
		adapted.scheme = HOSTS_HTTP;
	else if (front->options.https_only && endpoint->scheme == HOSTS_LOCAL)
		adapted.scheme = HOSTS_HTTPS;
	return adapted;
}

/* What each of NMIRRORS may take of what a lookup may take in all: it is shared, so that an origin
 * is reached behind mirrors that do not answer. */
static int64_t mirrors_share(int64_t whole_ms, size_t nmirrors)
{
	return MIN(whole_ms / 4, whole_ms / 2 / (int64_t)MAX(nmirrors, 1));
}

/* ENDPOINT, one of N. */
static int way_new(const struct front *front, const struct hosts_endpoint *endpoint, size_t n,
		   struct way **ret)
{
	const struct hosts_endpoint adapted = adapt(front, endpoint);
	struct registry_options options = front->options;
	bool mirror = !front_is_origin(endpoint);
	options.host = mirror ? endpoint->host : front->store.name;
	size_t nmirrors = n - 1;
	int64_t share_ms = mirrors_share(options.name_timeout_ms, nmirrors);
	if (mirror) {
		options.name_timeout_ms = share_ms;
		options.timeout_ms /= 4;
	} else {
		options.name_timeout_ms -= share_ms * (int64_t)nmirrors;
	}
	struct way *way = calloc(1, sizeof(*way));
	if (!way)
		return -ENOMEM;
	way->identity = endpoint->identity;
	way->mirror = mirror;
	int err = registry_endpoint_new(&options, &adapted, &way->store);
	if (err) {
		free(way);
		return err;
	}
	*ret = way;
	return 0;
}

/* With the lock. */
static struct way *way_find(const struct front *front, const struct hosts_endpoint *endpoint)
{
	struct way *way = front->ways;
	bool mirror = !front_is_origin(endpoint);
	while (way && !(way->identity == endpoint->identity && way->mirror == mirror))
		way = way->next;
	return way;
}

static int way_of(struct front *front, const struct hosts_endpoint *endpoint, size_t n,
		  struct way **ret)
{
	pthread_mutex_lock(&front->lock);
	struct way *way = way_find(front, endpoint);
	pthread_mutex_unlock(&front->lock);
	if (way) {
		*ret = way;
		return 0;
	}
	struct way *fresh = NULL;
	int err = way_new(front, endpoint, n, &fresh);
	if (err)
		return err;
	pthread_mutex_lock(&front->lock);
	way = way_find(front, endpoint);
	if (!way) {
		fresh->next = front->ways;
		way = front->ways = STEAL(fresh);
	}
	pthread_mutex_unlock(&front->lock);
	if (fresh) { /* another thread was faster */
		store_free(fresh->store);
		free(fresh);
	}
	*ret = way;
	return 0;
}

void front_leave_aside(struct front *front, struct way *way)
{
	pthread_mutex_lock(&front->lock);
	int64_t ms = MIN((int64_t)ASIDE_MS << MIN(way->failures, 8), ASIDE_MAX_MS);
	bool news = way->aside_ms <= now_ms();
	way->aside_ms = now_ms() + ms;
	way->failures += news;
	pthread_mutex_unlock(&front->lock);
	if (news)
		log_info("%s: the mirror %s is left aside for %lld s", front->store.name,
			 way->store->name, (long long)(ms / 1000));
}

static uint64_t denial_of(const struct way *way, const struct hosts_endpoint *endpoint)
{
	const char *repo = endpoint->repo ? endpoint->repo : "";
	return hash64(way->identity, repo, strlen(repo));
}

void front_deny(struct front *front, const struct leg *leg)
{
	const struct denial denial = {.what = denial_of(leg->way, leg->endpoint),
				      .until_ms = now_ms() + ASIDE_MAX_MS};
	pthread_mutex_lock(&front->lock);
	front->denials[front->ndenials++ % DENIALS_MAX] = denial;
	pthread_mutex_unlock(&front->lock);
}

/* With the lock. */
static bool is_aside(const struct front *front, const struct way *way,
		     const struct hosts_endpoint *endpoint)
{
	int64_t now = now_ms();
	uint64_t what = denial_of(way, endpoint);
	bool aside = way->aside_ms > now;
	for (size_t i = 0; !aside && i < DENIALS_MAX; i++)
		aside = front->denials[i].what == what && front->denials[i].until_ms > now;
	return aside;
}

static void welcome(struct front *front, struct way *way)
{
	pthread_mutex_lock(&front->lock);
	way->failures = 0;
	way->aside_ms = 0;
	pthread_mutex_unlock(&front->lock);
}

/* ---- routes ---- */

/* Later ranks are tried later; those below 0 not at all. */
static int rank_of(struct front *front, const struct errand *errand,
		   const struct hosts_endpoint *endpoint, struct way *way)
{
	if ((endpoint->can & errand->can) != errand->can)
		return -1;
	if (front_is_origin(endpoint))
		return errand->origin_first ? 0 : 2;
	if (errand->no_mirrors)
		return -1;
	/* What is written has one place, however it is. */
	if (errand->can & HOSTS_PUSH)
		return 1;
	pthread_mutex_lock(&front->lock);
	bool aside = is_aside(front, way, endpoint);
	pthread_mutex_unlock(&front->lock);
	bool late = (endpoint->can & HOSTS_LATE) && !(errand->can & HOSTS_RESOLVE);
	return aside ? 4 : late ? 3 : 1;
}

static int route_fill(struct front *front, const struct errand *errand, struct route *route)
{
	int ranks[ARRAY_SIZE(route->legs)];
	size_t n = MIN(route->answer->n, ARRAY_SIZE(route->legs));
	struct way *ways[ARRAY_SIZE(route->legs)];
	for (size_t i = 0; i < n; i++) {
		const struct hosts_endpoint *endpoint = &route->answer->endpoints[i];
		int err = way_of(front, endpoint, n, &ways[i]);
		if (err)
			return err;
		ranks[i] = rank_of(front, errand, endpoint, ways[i]);
	}
	for (int rank = 0; rank <= 4; rank++) {
		for (size_t i = 0; i < n; i++) {
			if (ranks[i] == rank)
				route->legs[route->n++] = (struct leg){
					.endpoint = &route->answer->endpoints[i], .way = ways[i]};
		}
	}
	return 0;
}

static int offline(struct front *front)
{
	if (!atomic_exchange(&front->offline_said, true))
		log_info("%s: this mount is offline: what is not cached cannot be had, and nothing "
			 "be pushed",
			 front->store.name);
	return -EHOSTUNREACH;
}

int front_route(struct front *front, const char *repo, const struct errand *errand,
		struct wait *wait, struct route *ret)
{
	if (front->options.offline)
		return offline(front);
	if (!wait_may_block(wait))
		return -EWOULDBLOCK;
	int err = hosts_find(front->options.hosts, front->store.name, repo, &ret->answer);
	err = err ? err : route_fill(front, errand, ret);
	if (err || ret->n)
		return err;
	log_warn("%s%s%s: no endpoint is configured that may be %s", front->store.name,
		 repo ? "/" : "", repo ? repo : "",
		 errand->can & HOSTS_PUSH ? "pushed to" : "asked");
	return -EACCES;
}

/* ---- trying ---- */

bool front_is_ours(int err)
{
	return err == -EINTR || err == -EWOULDBLOCK || err == -ENOMEM;
}

bool front_is_gone(int err)
{
	return err == -EHOSTUNREACH || err == -ECONNREFUSED || err == -ETIMEDOUT || err == -EIO ||
	       err == -EBUSY;
}

/* After LEG failed with ERR: whether that is the last word. */
static bool is_final(struct front *front, const struct leg *leg, int err)
{
	if (front_is_ours(err))
		return true;
	if (front_is_origin(leg->endpoint))
		return !front_is_gone(err);
	if (front_is_gone(err))
		front_leave_aside(front, leg->way);
	else if (err == -EACCES)
		front_deny(front, leg);
	return false;
}

int front_try(struct front *front, const struct route *route, leg_fn *fn, void *arg,
	      struct wait *wait)
{
	int result = -EHOSTUNREACH;
	bool by_origin = false;
	for (size_t i = 0; i < route->n; i++) {
		const struct leg *leg = &route->legs[i];
		int err = fn(arg, leg->way->store, leg->endpoint->repo, wait);
		if (err >= 0) {
			welcome(front, leg->way);
			return err;
		}
		if (is_final(front, leg, err))
			return err;
		if (!by_origin)
			result = err;
		by_origin |= front_is_origin(leg->endpoint);
	}
	return result;
}

/* ---- tags that we moved ---- */

static uint64_t tag_hash(const char *repo, const char *tag)
{
	return hash64(hash64(0, repo, strlen(repo)), tag, strlen(tag));
}

void front_move(struct front *front, const char *repo, const char *tag)
{
	if (front_has_moved(front, repo, tag))
		return;
	pthread_mutex_lock(&front->lock);
	front->moved[front->nmoved++ % MOVED_MAX] = tag_hash(repo, tag);
	pthread_mutex_unlock(&front->lock);
}

bool front_has_moved(struct front *front, const char *repo, const char *tag)
{
	uint64_t hash = tag_hash(repo, tag);
	bool found = false;
	pthread_mutex_lock(&front->lock);
	for (unsigned i = 0; !found && i < MIN(front->nmoved, (unsigned)MOVED_MAX); i++)
		found = front->moved[i] == hash;
	pthread_mutex_unlock(&front->lock);
	return found;
}

/* ---- the store ---- */

void front_free(struct store *store)
{
	struct front *front = front_of(store);
	while (front->ways) {
		struct way *way = front->ways;
		front->ways = way->next;
		store_free(way->store);
		free(way);
	}
	free(store->name);
	pthread_mutex_destroy(&front->lock);
	free(front);
}

int registry_front_new(const struct registry_options *options, struct store **ret)
{
	struct front *front = calloc(1, sizeof(*front));
	if (!front)
		return -ENOMEM;
	front->store.ops = &front_ops;
	front->store.name = strdup(options->host);
	front->options = *options;
	front->options.host = front->store.name;
	if (!options->timeout_ms)
		front->options.timeout_ms = 60000;
	if (!options->name_timeout_ms)
		front->options.name_timeout_ms = 10000;
	pthread_mutex_init(&front->lock, NULL);
	if (!front->store.name) {
		front_free(&front->store);
		return -ENOMEM;
	}
	*ret = &front->store;
	return 0;
}
