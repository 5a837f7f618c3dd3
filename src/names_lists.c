/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names_lists: catalogues and tag lists, each believed for a while, and what is known beside them.
 * Must not know what is done with them.
 *
 * A list is fetched by one caller while others wait for it; a failure is believed for two seconds
 * only, so that a passing one passes. When the store is gone the last list serves, out of memory or
 * out of the cache, with the single names that the store has confirmed since.
 */
#include <errno.h>

#include "names_lists_priv.h"

#define FAILURE_MS  2000
#define SLOW_MS	    500
#define SLOW_TIMES  5
#define SLOW_MAX_MS 10000
#define MAX_LISTS   512
#define MAX_NAMES   2000000 /* in all lists */

void lists_init(struct lists *lists, const struct context *context)
{
	*lists = (struct lists){.context = context};
	pthread_mutex_init(&lists->lock, NULL);
}

static void list_free(struct list *list)
{
	nameset_unref(list->names);
	nameset_unref(list->added);
	nameset_unref(list->extra);
	free(list->repo);
	free(list);
}

void lists_release(struct lists *lists)
{
	while (lists->head) {
		struct list *list = lists->head;

		lists->head = list->next;
		list_free(list);
	}
	pthread_mutex_destroy(&lists->lock);
}

/* The embedded store is looked at anew each time: others write to it, and it costs no network. Nor
 * is it ever gone. */
int64_t lists_ttl_ms(const struct lists *lists, const struct host *host)
{
	return host_is_local(host) ? 0 : lists->context->tag_ttl_ms;
}

/* Lock held. */
static bool lists_are_many(const struct lists *lists)
{
	size_t n = 0;

	for (const struct list *list = lists->head; list; list = list->next)
		n += nameset_len(list->names);
	return lists->n > MAX_LISTS || n > MAX_NAMES;
}

/* Lock held. The list of tags that was not used for longest; NULL if all are in use. Lists that
 * hold what no store would tell again (visited repositories) stay. */
static struct list **oldest_list(struct lists *lists)
{
	struct list **last = NULL;

	for (struct list **at = &lists->head; *at; at = &(*at)->next)
		if (!(*at)->users && (*at)->kind == LIST_TAGS)
			last = at;
	return last;
}

/* Lock held. */
static void drop_old_lists(struct lists *lists)
{
	struct list **last;

	while (lists_are_many(lists) && (last = oldest_list(lists))) {
		struct list *old = *last;

		*last = old->next;
		lists->n--;
		list_free(old);
	}
}

/* Lock held. */
static struct list **list_find(struct lists *lists, enum list_kind kind, const struct host *host,
			       const char *repo)
{
	struct list **at = &lists->head;

	while (*at && !((*at)->kind == kind && (*at)->host == host && !strcmp((*at)->repo, repo)))
		at = &(*at)->next;
	return at;
}

struct list *list_get(struct lists *lists, enum list_kind kind, struct host *host, const char *repo)
{
	struct list **at = list_find(lists, kind, host, repo);
	struct list *list = *at;

	if (list) {
		*at = list->next;
	} else {
		list = calloc(1, sizeof(*list));
		if (!list)
			return NULL;
		list->repo = strdup(repo);
		if (!list->repo) {
			free(list);
			return NULL;
		}
		list->kind = kind;
		list->host = host;
		lists->n++;
	}
	list->next = lists->head;
	lists->head = list;
	list->users++;
	drop_old_lists(lists);
	return list;
}

void list_put(struct list *list)
{
	list->users--;
}

void list_expire(struct list *list)
{
	list->until_ms = 0;
	list->changed = true;
}

int names_set_add(struct nameset **set, const char *name)
{
	struct nameset *bigger;

	if (nameset_has(*set, name))
		return 0;
	bigger = nameset_with(*set, name);
	if (!bigger)
		return -ENOMEM;
	nameset_unref(*set);
	*set = bigger;
	return 0;
}

void names_set_drop(struct nameset **set, const char *name)
{
	struct nameset *smaller = nameset_has(*set, name) ? nameset_without(*set, name) : NULL;

	if (!smaller)
		return;
	nameset_unref(*set);
	*set = smaller;
}

/* --- fetching --- */

struct collect {
	struct nameset *names;
	enum list_kind kind;
};

/* Artifactory lists digests among tags, others odd names: what cannot be a name is left out. */
static int collect_name(void *arg, const char *name)
{
	struct collect *collect = arg;
	bool valid = collect->kind == LIST_REPOS ? ref_repo_valid(name) : ref_tag_valid(name);

	return valid ? nameset_add(collect->names, name) : 0;
}

static int list_fetch(const struct list *list, struct wait *wait, struct nameset **ret)
{
	struct store *store = list->host->store;
	struct collect collect = {.names = nameset_new(), .kind = list->kind};
	int r;

	if (!collect.names)
		return -ENOMEM;
	if (list->kind == LIST_REPOS)
		r = store->ops->list_repos(store, collect_name, &collect, wait);
	else
		r = store->ops->list_tags(store, list->repo, collect_name, &collect, wait);
	if (r < 0) {
		nameset_unref(collect.names);
		return r;
	}
	nameset_seal(collect.names);
	*ret = collect.names;
	return 0;
}

/* What came of asking the store for a list. */
struct answer {
	int error;
	int64_t begin_ms;
	bool had;    /* there was a list before */
	bool listed; /* of tags: the catalogue names their repository */
	struct kept_list list;
};

/* Lock held. */
static bool repo_is_listed(struct lists *lists, const struct list *tags)
{
	const struct list *repos = *list_find(lists, LIST_REPOS, tags->host, "");

	return repos && nameset_has(repos->names, tags->repo);
}

/* Lock held. The store does not know the repository of TAGS any more. */
static void repo_is_gone(struct lists *lists, const struct list *tags)
{
	struct list *repos = *list_find(lists, LIST_REPOS, tags->host, "");

	if (repos)
		names_set_drop(&repos->added, tags->repo);
}

/* The answer is kept for later mounts; where there is none, what earlier ones kept is taken. */
static void answer_keep(const struct lists *lists, const struct list *list, struct answer *answer)
{
	const struct kept_key key = {list->kind, list->host->name, list->repo};
	const struct kept_key repos = {LIST_REPOS, list->host->name, ""};
	struct cache *cache = lists->context->cache;

	if (host_is_local(list->host))
		return;
	/* that we are not let in just now is no news of the catalogue */
	if (answer->error == 0 || (answer->error == -EOPNOTSUPP && answer->list.refused_ms))
		kept_list_save(cache, &key, &answer->list);
	else if (store_is_gone(answer->error) && !answer->had)
		(void)kept_list_load(cache, &key, &answer->list);
	if (list->kind != LIST_TAGS)
		return;
	/* a repository that answers exists, and one that the store does not know does not */
	if (answer->error == 0 && !answer->listed)
		kept_add(cache, &repos, list->repo);
	else if (answer->error == -ENOENT)
		kept_drop(cache, &repos, list->repo);
}

/* Lock held. What was kept is joined to what is known. */
static void list_join_added(struct list *list, struct nameset *added)
{
	struct nameset *all = nameset_union(list->added, added);

	nameset_unref(added);
	nameset_unref(list->added);
	list->added = all;
}

/* Whether the store has said something of the list. */
static bool is_answer(int error)
{
	return !store_is_gone(error) && error != -EINTR && error != -EWOULDBLOCK &&
	       error != -ENOMEM;
}

/* Lock held. The names of the answer, or of earlier mounts. */
static void list_take_names(struct list *list, struct answer *answer)
{
	if (answer->list.names || answer->list.refused_ms)
		list->refused_ms = answer->list.refused_ms;
	if (answer->list.names) {
		nameset_unref(list->names);
		list->names = STEAL(answer->list.names);
	} else if (is_answer(answer->error)) {
		nameset_unref(STEAL(list->names)); /* it is not there any more, or refused */
	}
	list_join_added(list, STEAL(answer->list.added));
	/* the store knows better, unless something was made while it answered */
	if (is_answer(answer->error) && !list->changed)
		nameset_unref(STEAL(list->added));
}

/* For how long the answer is believed. */
static int64_t answer_believed_ms(const struct lists *lists, const struct list *list,
				  const struct answer *answer)
{
	int64_t believe = lists_ttl_ms(lists, list->host);

	/* it will say the same for long */
	if (answer->error == -EOPNOTSUPP)
		return MAX(FAILURE_MS, believe);
	if (answer->error == -EACCES)
		return FAILURE_MS;
	if (answer->error < 0)
		believe = MIN(FAILURE_MS, believe);
	if (store_is_gone(answer->error))
		believe = MAX(believe, store_gone_ms(answer->begin_ms));
	return believe;
}

/* Lock held, released while the store is asked. Takes in the answer. */
static void list_refresh(struct lists *lists, struct list *list, struct wait *wait)
{
	struct answer answer = {
		.begin_ms = now_ms(),
		.had = list->names != NULL,
		.listed = repo_is_listed(lists, list),
		.list = {.asked_ms = wall_ms()},
	};
	int r;

	list->fetching = true;
	list->changed = false;
	pthread_mutex_unlock(&lists->lock);
	answer.error = r = list_fetch(list, wait, &answer.list.names);
	if (list->kind == LIST_REPOS && (r == -EACCES || r == -EOPNOTSUPP))
		answer.list.refused_ms = wall_ms();
	answer_keep(lists, list, &answer);
	pthread_mutex_lock(&lists->lock);
	list->fetching = false;
	list->error = r;
	list_take_names(list, &answer);
	if (list->kind == LIST_TAGS && r == -ENOENT)
		repo_is_gone(lists, list);
	if (r != -EINTR && r != -EWOULDBLOCK)
		list->until_ms = list->changed
					 ? 0
					 : now_ms() + answer_believed_ms(lists, list, &answer);
	list->fetched_ms = now_ms();
	list->took_ms = list->fetched_ms - answer.begin_ms;
	wait_wake(&list->waiters);
}

int list_want(struct lists *lists, struct list *list, struct wait *wait)
{
	bool asked = false;

	while (list->fetching || (!asked && now_ms() >= list->until_ms)) {
		if (!list->fetching) {
			list_refresh(lists, list, wait);
			if (list->error == -EWOULDBLOCK || list->error == -EINTR)
				return list->error;
			asked = true;
			continue;
		}
		int r = wait_on(wait, &list->waiters, &lists->lock, WAIT_FOREVER);

		if (r < 0)
			return r;
		/* what another one just fetched is fresh enough, even with a ttl of 0 */
		asked = list->error != -EINTR && list->error != -EWOULDBLOCK;
	}
	if (list->error < 0 && !(store_is_gone(list->error) && list->names))
		return list->error;
	return 0;
}

bool store_is_gone(int error)
{
	return error == -EHOSTUNREACH || error == -ECONNREFUSED || error == -ETIMEDOUT ||
	       error == -ECONNRESET || error == -EIO || error == -EBUSY;
}

int64_t store_gone_ms(int64_t begin_ms)
{
	int64_t took = now_ms() - begin_ms;

	return took >= SLOW_MS ? MIN(SLOW_TIMES * took, SLOW_MAX_MS) : 0;
}

struct nameset *list_union(const struct list *list)
{
	struct nameset *listed = nameset_union(list->names, list->added);
	struct nameset *all = nameset_union(listed, list->extra);

	nameset_unref(listed);
	return all;
}

bool list_serves(const struct list *list, int r)
{
	return r == 0 || (store_is_gone(r) && nameset_len(list->added));
}

void list_recall(struct lists *lists, struct list *list)
{
	const struct kept_key key = {list->kind, list->host->name, list->repo};
	struct kept_list kept = {0};
	int r;

	pthread_mutex_unlock(&lists->lock);
	r = kept_list_load(lists->context->cache, &key, &kept);
	pthread_mutex_lock(&lists->lock);
	list->recalled = true;
	if (r == 0 && !list->names && !list->refused_ms) {
		list->names = STEAL(kept.names);
		list->refused_ms = kept.refused_ms;
		list_join_added(list, STEAL(kept.added));
	}
	nameset_unref(kept.names);
	nameset_unref(kept.added);
}
