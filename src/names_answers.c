/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names_answers: catalogues, tag lists and resolutions, each believed for a while.
 * Must not know nodes.
 *
 * A list is fetched by one caller while others wait for it; a failure is believed for two seconds
 * only, so that a passing one passes. When the store is gone the last list serves, out of
 * memory or out of the cache.
 */
#include <errno.h>

#include "regfs/log.h"

#include "names_priv.h"

#define FAILURE_MS	2000
#define MISSED_MS	1000
#define MISSED_TIMES	10
#define SLOW_MS		500
#define SLOW_TIMES	5
#define SLOW_MAX_MS	10000
#define REFUSED_MS	60000
#define REFUSED_KEPT_MS (24 * 60 * 60 * 1000) /* for who enters a name */
#define MAX_LISTS	512
#define MAX_NAMES	2000000 /* in all lists */
#define MEMO_SLOTS	4096	/* a power of two */

struct list {
	enum list_kind kind;
	struct host *host;
	char *repo; /* "" for LIST_REPOS */
	/* all below guarded by answers->lock */
	struct nameset *names; /* as the store listed them; NULL: never */
	struct nameset *extra; /* visited or made (repositories), seen (digests) */
	int64_t until_ms;      /* believed until then */
	int64_t fetched_ms;    /* when the store was last asked */
	int64_t took_ms;       /* and how long it took */
	int error;	       /* of the last fetch */
	int64_t refused_ms;    /* when the store refused it, in wall_ms() time; 0: it did not */
	bool recalled;	       /* what was kept of it (names_kept.c) is in .names, .refused_ms */
	bool fetching;
	bool changed; /* since the present fetch began: what comes is old already */
	unsigned users;
	struct wait_queue waiters;
	struct list *next; /* most recently used first */
};

/* One resolution, in a table where a later one of the same slot wins. */
struct memo {
	struct host *host; /* NULL: empty */
	char *name;	   /* "repo:tag" */
	struct digest digest;
	int64_t until_ms;
};

struct answers {
	const struct context *context;
	pthread_mutex_t lock;
	struct list *lists;
	size_t nlists;
	struct memo memos[MEMO_SLOTS];
	uint64_t moves; /* of tags, by us; guarded by lock */
};

struct answers *answers_new(const struct context *context)
{
	struct answers *answers = calloc(1, sizeof(*answers));

	if (!answers)
		return NULL;
	answers->context = context;
	pthread_mutex_init(&answers->lock, NULL);
	return answers;
}

static void list_free(struct list *list)
{
	nameset_unref(list->names);
	nameset_unref(list->extra);
	free(list->repo);
	free(list);
}

void answers_free(struct answers *answers)
{
	if (!answers)
		return;
	while (answers->lists) {
		struct list *list = answers->lists;

		answers->lists = list->next;
		list_free(list);
	}
	for (size_t i = 0; i < MEMO_SLOTS; i++)
		free(answers->memos[i].name);
	pthread_mutex_destroy(&answers->lock);
	free(answers);
}

/* The embedded store is looked at anew each time: others write to it, and it costs no network. Nor
 * is it ever gone. */
static bool is_here(const struct host *host)
{
	return !strcmp(host->store->ops->kind, "layout");
}

static int64_t ttl_ms(const struct answers *answers, const struct host *host)
{
	return is_here(host) ? 0 : answers->context->tag_ttl_ms;
}

/* Lock held. */
static bool lists_are_many(const struct answers *answers)
{
	size_t n = 0;

	for (const struct list *list = answers->lists; list; list = list->next)
		n += nameset_len(list->names);
	return answers->nlists > MAX_LISTS || n > MAX_NAMES;
}

/* Lock held. The list of tags that was not used for longest; NULL if all are in use. Lists that
 * hold what no store would tell again (visited repositories) stay. */
static struct list **oldest_list(struct answers *answers)
{
	struct list **last = NULL;

	for (struct list **at = &answers->lists; *at; at = &(*at)->next)
		if (!(*at)->users && (*at)->kind == LIST_TAGS)
			last = at;
	return last;
}

/* Lock held. */
static void drop_old_lists(struct answers *answers)
{
	struct list **last;

	while (lists_are_many(answers) && (last = oldest_list(answers))) {
		struct list *old = *last;

		*last = old->next;
		answers->nlists--;
		list_free(old);
	}
}

/* Lock held. The list, in use until list_put(); NULL when memory is short. */
static struct list *list_get(struct answers *answers, enum list_kind kind, struct host *host,
			     const char *repo)
{
	struct list **at = &answers->lists;
	struct list *list;

	while (*at && !((*at)->kind == kind && (*at)->host == host && !strcmp((*at)->repo, repo)))
		at = &(*at)->next;
	list = *at;
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
		answers->nlists++;
	}
	list->next = answers->lists;
	answers->lists = list;
	list->users++;
	drop_old_lists(answers);
	return list;
}

/* Lock held. */
static void list_put(struct list *list)
{
	list->users--;
}

/* Lock held. What is being fetched is not believed either. */
static void list_expire(struct list *list)
{
	list->until_ms = 0;
	list->changed = true;
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

/* Lock held, released while the store is asked. Takes in the answer. */
static void list_refresh(struct answers *answers, struct list *list, struct wait *wait)
{
	const struct kept_key key = {list->kind, list->host->name, list->repo};
	struct kept_list fresh = {0};
	bool had = list->names != NULL;
	int64_t believe, begin = now_ms();
	int r;

	list->fetching = true;
	list->changed = false;
	pthread_mutex_unlock(&answers->lock);
	r = list_fetch(list, wait, &fresh.names);
	believe = ttl_ms(answers, list->host);
	if (list->kind == LIST_REPOS && (r == -EACCES || r == -EOPNOTSUPP))
		fresh.refused_ms = wall_ms();
	if ((r == 0 || fresh.refused_ms) && !is_here(list->host))
		kept_list_save(answers->context->cache, &key, &fresh);
	else if (store_is_gone(r) && !had)
		(void)kept_list_load(answers->context->cache, &key, &fresh);
	pthread_mutex_lock(&answers->lock);
	list->fetching = false;
	if (fresh.names || fresh.refused_ms)
		list->refused_ms = fresh.refused_ms;
	if (fresh.names) {
		nameset_unref(list->names);
		list->names = fresh.names;
	} else if (!store_is_gone(r) && r != -EINTR && r != -EWOULDBLOCK && r != -ENOMEM) {
		nameset_unref(STEAL(list->names)); /* it is not there any more, or refused */
	}
	list->error = r;
	if (r == -EACCES || r == -EOPNOTSUPP)
		believe = list->kind == LIST_REPOS ? REFUSED_MS : FAILURE_MS;
	else if (r < 0)
		believe = MIN(FAILURE_MS, believe);
	if (store_is_gone(r))
		believe = MAX(believe, store_gone_ms(begin));
	if (r != -EINTR && r != -EWOULDBLOCK)
		list->until_ms = list->changed ? 0 : now_ms() + believe;
	list->fetched_ms = now_ms();
	list->took_ms = list->fetched_ms - begin;
	wait_wake(&list->waiters);
}

/* Lock held. Makes the list fresh. 0 if there are names to be had, old ones included. */
static int list_want(struct answers *answers, struct list *list, struct wait *wait)
{
	bool asked = false;

	while (list->fetching || (!asked && now_ms() >= list->until_ms)) {
		if (!list->fetching) {
			list_refresh(answers, list, wait);
			if (list->error == -EWOULDBLOCK || list->error == -EINTR)
				return list->error;
			asked = true;
			continue;
		}
		int r = wait_on(wait, &list->waiters, &answers->lock, WAIT_FOREVER);

		if (r < 0)
			return r;
		/* what another one just fetched is fresh enough, even with a ttl of 0 */
		asked = list->error != -EINTR && list->error != -EWOULDBLOCK;
	}
	if (list->error < 0 && !(store_is_gone(list->error) && list->names))
		return list->error;
	return 0;
}

/* --- repositories --- */

/* Lock held. NAMES and EXTRA in one sealed set. */
static struct nameset *list_union(const struct list *list)
{
	struct nameset *all;

	if (!nameset_len(list->extra))
		return list->names ? nameset_ref(list->names) : nameset_ref(list->extra);
	all = nameset_new();
	for (size_t i = 0; all && i < nameset_len(list->names); i++)
		if (nameset_add(all, nameset_at(list->names, i)) < 0)
			nameset_unref(STEAL(all));
	for (size_t i = 0; all && i < nameset_len(list->extra); i++)
		if (nameset_add(all, nameset_at(list->extra, i)) < 0)
			nameset_unref(STEAL(all));
	if (all)
		nameset_seal(all);
	return all;
}

int answers_repos(struct answers *answers, struct host *host, struct wait *wait,
		  struct nameset **ret, bool *ret_complete)
{
	struct list *list;
	int r;

	pthread_mutex_lock(&answers->lock);
	list = list_get(answers, LIST_REPOS, host, "");
	r = list ? list_want(answers, list, wait) : -ENOMEM;
	if (r == 0 || r == -EACCES || r == -EOPNOTSUPP || r == -ENOENT) {
		*ret = list_union(list);
		*ret_complete = r == 0;
		r = 0;
	}
	if (list)
		list_put(list);
	pthread_mutex_unlock(&answers->lock);
	return r;
}

/* Lock held. */
static bool list_leads_to(const struct list *list, const char *repo)
{
	return nameset_has_under(list->names, repo) || nameset_has_under(list->extra, repo) ||
	       (list->refused_ms && wall_ms() - list->refused_ms < REFUSED_KEPT_MS);
}

/* Lock held, released meanwhile. What was kept of the list, if nobody has asked the store yet. */
static void list_recall(struct answers *answers, struct list *list)
{
	const struct kept_key key = {list->kind, list->host->name, list->repo};
	struct kept_list kept = {0};
	int r;

	pthread_mutex_unlock(&answers->lock);
	r = kept_list_load(answers->context->cache, &key, &kept);
	pthread_mutex_lock(&answers->lock);
	list->recalled = true;
	if (r == 0 && !list->names && !list->refused_ms) {
		list->names = STEAL(kept.names);
		list->refused_ms = kept.refused_ms;
	}
	nameset_unref(kept.names);
}

int answers_has_repo(struct answers *answers, struct host *host, const char *repo,
		     struct wait *wait)
{
	struct list *list;
	int r;

	/* Who believes nothing asks each time. */
	if (ttl_ms(answers, host) <= 0)
		return 0;
	pthread_mutex_lock(&answers->lock);
	list = list_get(answers, LIST_REPOS, host, "");
	r = list ? list_leads_to(list, repo) : -ENOMEM;
	if (r == 0 && !list->recalled && !list->names) {
		if (wait_may_block(wait)) {
			list_recall(answers, list);
			r = list_leads_to(list, repo);
		} else {
			r = -EWOULDBLOCK;
		}
	}
	if (list)
		list_put(list);
	pthread_mutex_unlock(&answers->lock);
	return r;
}

static struct nameset *list_known(struct answers *answers, enum list_kind kind, struct host *host,
				  const char *repo, bool *ret_fresh)
{
	struct nameset *names = NULL;
	struct list *list;

	pthread_mutex_lock(&answers->lock);
	list = list_get(answers, kind, host, repo);
	if (list) {
		names = list_union(list);
		*ret_fresh = now_ms() < list->until_ms;
		list_put(list);
	}
	pthread_mutex_unlock(&answers->lock);
	return names;
}

struct nameset *answers_repos_known(struct answers *answers, struct host *host, bool *ret_fresh)
{
	return list_known(answers, LIST_REPOS, host, "", ret_fresh);
}

/* Lock held. */
static int list_add_extra(struct list *list, const char *name)
{
	struct nameset *bigger;

	if (nameset_has(list->extra, name))
		return 0;
	bigger = nameset_new();
	if (!bigger)
		return -ENOMEM;
	for (size_t i = 0; i < nameset_len(list->extra); i++) {
		if (nameset_add(bigger, nameset_at(list->extra, i)) < 0)
			goto fail;
	}
	if (nameset_add(bigger, name) < 0)
		goto fail;
	nameset_seal(bigger);
	nameset_unref(list->extra);
	list->extra = bigger;
	return 0;
fail:
	nameset_unref(bigger);
	return -ENOMEM;
}

static int answers_add_extra(struct answers *answers, enum list_kind kind, struct host *host,
			     const char *repo, const char *name)
{
	struct list *list;
	int r = -ENOMEM;

	pthread_mutex_lock(&answers->lock);
	list = list_get(answers, kind, host, repo);
	if (list) {
		r = list_add_extra(list, name);
		list_put(list);
	}
	pthread_mutex_unlock(&answers->lock);
	return r;
}

int answers_add_repo(struct answers *answers, struct host *host, const char *repo)
{
	return answers_add_extra(answers, LIST_REPOS, host, "", repo);
}

/* Lock held. */
static void list_drop_extra(struct list *list, const char *name)
{
	struct nameset *smaller;

	if (!nameset_has(list->extra, name))
		return;
	smaller = nameset_new();
	for (size_t i = 0; smaller && i < nameset_len(list->extra); i++)
		if (strcmp(nameset_at(list->extra, i), name) != 0 &&
		    nameset_add(smaller, nameset_at(list->extra, i)) < 0)
			nameset_unref(STEAL(smaller));
	if (!smaller)
		return;
	nameset_seal(smaller);
	nameset_unref(list->extra);
	list->extra = smaller;
}

static void answers_drop_extra(struct answers *answers, enum list_kind kind, struct host *host,
			       const char *repo, const char *name)
{
	struct list *list;

	pthread_mutex_lock(&answers->lock);
	list = list_get(answers, kind, host, repo);
	if (list) {
		list_drop_extra(list, name);
		list_expire(list);
		list_put(list);
	}
	pthread_mutex_unlock(&answers->lock);
}

void answers_drop_repo(struct answers *answers, struct host *host, const char *repo)
{
	answers_drop_extra(answers, LIST_REPOS, host, "", repo);
}

void answers_miss_repo(struct answers *answers, struct host *host)
{
	struct list *list;

	pthread_mutex_lock(&answers->lock);
	list = list_get(answers, LIST_REPOS, host, "");
	if (list) {
		/* A long list is not worth reading for each name that is not there. */
		int64_t enough = list->fetched_ms + MAX(MISSED_MS, MISSED_TIMES * list->took_ms);

		list->until_ms = MIN(list->until_ms, enough);
		list_put(list);
	}
	pthread_mutex_unlock(&answers->lock);
}

/* --- tags --- */

int answers_tags(struct answers *answers, struct host *host, const char *repo, struct wait *wait,
		 struct nameset **ret)
{
	struct list *list;
	int r;

	pthread_mutex_lock(&answers->lock);
	list = list_get(answers, LIST_TAGS, host, repo);
	r = list ? list_want(answers, list, wait) : -ENOMEM;
	if (r == 0)
		*ret = nameset_ref(list->names);
	if (list)
		list_put(list);
	pthread_mutex_unlock(&answers->lock);
	if (r == 0)
		(void)answers_add_repo(answers, host, repo);
	return r;
}

struct nameset *answers_tags_known(struct answers *answers, struct host *host, const char *repo,
				   bool *ret_fresh)
{
	struct nameset *names = NULL;
	struct list *list;

	pthread_mutex_lock(&answers->lock);
	list = list_get(answers, LIST_TAGS, host, repo);
	if (list) {
		names = nameset_ref(list->names);
		*ret_fresh = now_ms() < list->until_ms;
		list_put(list);
	}
	pthread_mutex_unlock(&answers->lock);
	return names;
}

/* --- digests that were seen: the extra names of the repository's tag list --- */

void answers_saw(struct answers *answers, struct host *host, const char *repo,
		 const struct digest *digest)
{
	char hex[DIGEST_STR_MAX];
	AUTO_FREE char *name = format("%s-%s", digest_algo_name(digest->algo),
				      digest_hex(digest, hex));

	if (name)
		(void)answers_add_extra(answers, LIST_TAGS, host, repo, name);
}

void answers_forget_image(struct answers *answers, struct host *host, const char *repo,
			  const struct digest *digest)
{
	char hex[DIGEST_STR_MAX];
	AUTO_FREE char *name = format("%s-%s", digest_algo_name(digest->algo),
				      digest_hex(digest, hex));

	if (name)
		answers_drop_extra(answers, LIST_TAGS, host, repo, name);
	image_forget_manifest(answers->context->images, host->store, repo, digest);
}

struct nameset *answers_seen(struct answers *answers, struct host *host, const char *repo)
{
	struct nameset *seen = NULL;
	struct list *list;

	pthread_mutex_lock(&answers->lock);
	list = list_get(answers, LIST_TAGS, host, repo);
	if (list) {
		seen = nameset_ref(list->extra);
		list_put(list);
	}
	pthread_mutex_unlock(&answers->lock);
	return seen;
}

/* --- resolutions --- */

/* Lock held. */
static struct memo *memo_slot(struct answers *answers, const struct host *host, const char *name)
{
	uint64_t hash = hash64((uintptr_t)host, name, strlen(name));

	return &answers->memos[hash & (MEMO_SLOTS - 1)];
}

static bool memo_is(const struct memo *memo, const struct host *host, const char *name)
{
	return memo->host == host && !strcmp(memo->name, name);
}

/* Whether it may be believed: no tag was moved since .MOVES was read, before the store was asked.
 */
static bool memo_store(struct answers *answers, char **name, const struct memo *fresh,
		       uint64_t moves)
{
	struct memo *memo;
	bool current;

	pthread_mutex_lock(&answers->lock);
	current = answers->moves == moves;
	memo = memo_slot(answers, fresh->host, *name);
	free(memo->name);
	*memo = *fresh;
	memo->name = STEAL(*name);
	if (!current)
		memo->until_ms = 0;
	pthread_mutex_unlock(&answers->lock);
	return current;
}

int answers_resolve(struct answers *answers, struct host *host, const char *repo, const char *tag,
		    struct wait *wait, struct digest *ret, int64_t *ret_left_ms)
{
	AUTO_FREE char *name = format("%s:%s", repo, tag);
	int64_t ttl = ttl_ms(answers, host);
	struct digest digest;
	bool found = false;
	uint64_t moves;
	int r;

	if (!name)
		return -ENOMEM;
	pthread_mutex_lock(&answers->lock);
	moves = answers->moves;
	const struct memo *memo = memo_slot(answers, host, name);
	if (memo_is(memo, host, name) && now_ms() < memo->until_ms) {
		*ret = memo->digest;
		*ret_left_ms = memo->until_ms - now_ms();
		found = true;
	}
	pthread_mutex_unlock(&answers->lock);
	if (found)
		return 0;
	r = image_resolve(answers->context->images, host->store, repo, tag, wait, &digest);
	if (r < 0)
		return r;
	const struct memo fresh = {.host = host, .digest = digest, .until_ms = now_ms() + ttl};
	if (!memo_store(answers, &name, &fresh, moves))
		ttl = 0;
	answers_saw(answers, host, repo, &digest);
	*ret = digest;
	*ret_left_ms = ttl;
	return 0;
}

void answers_forget_tags(struct answers *answers, struct host *host, const char *repo)
{
	struct list *list;

	pthread_mutex_lock(&answers->lock);
	list = list_get(answers, LIST_TAGS, host, repo);
	if (list) {
		list_expire(list);
		list_put(list);
	}
	pthread_mutex_unlock(&answers->lock);
}

void answers_forget_tag(struct answers *answers, struct host *host, const char *repo,
			const char *tag)
{
	AUTO_FREE char *name = format("%s:%s", repo, tag);
	struct memo *memo;
	struct list *list;

	pthread_mutex_lock(&answers->lock);
	memo = name ? memo_slot(answers, host, name) : NULL;
	if (memo && memo_is(memo, host, name))
		memo->until_ms = 0;
	list = list_get(answers, LIST_TAGS, host, repo);
	if (list) {
		/* a long list is not fetched anew for a tag that only moved */
		if (!nameset_has(list->names, tag))
			list_expire(list);
		list_put(list);
	}
	answers->moves++;
	pthread_mutex_unlock(&answers->lock);
	image_forget_tag(answers->context->images, host->store, repo, tag);
}

/* The tag of a memo "REPO:TAG", or NULL if it is another repository's. Lock held. */
static const char *memo_tag(const struct memo *memo, const struct host *host, const char *repo)
{
	size_t len = strlen(repo);

	if (memo->host != host || strncmp(memo->name, repo, len) != 0 || memo->name[len] != ':')
		return NULL;
	return memo->name + len + 1;
}

void answers_tags_of_image(struct answers *answers, struct host *host, const char *repo,
			   const struct digest *digest, answers_tag_fn *fn, void *arg)
{
	struct nameset *tags = nameset_new();
	int r = tags ? 0 : -ENOMEM;

	pthread_mutex_lock(&answers->lock);
	for (size_t i = 0; r == 0 && i < MEMO_SLOTS; i++) {
		const char *tag = memo_tag(&answers->memos[i], host, repo);

		if (tag && digest_equal(&answers->memos[i].digest, digest))
			r = nameset_add(tags, tag);
	}
	pthread_mutex_unlock(&answers->lock);
	if (tags)
		nameset_seal(tags);
	for (size_t i = 0; i < nameset_len(tags); i++)
		if (fn(arg, host, repo, nameset_at(tags, i)) != 0)
			break;
	nameset_unref(tags);
}
