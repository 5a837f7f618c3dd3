/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names_answers: what is known of names: which repositories and tags there are, and what tags name.
 * Must not know nodes, nor how a list is had.
 */
#include <errno.h>

#include "regfs/log.h"

#include "names_lists_priv.h"

#define MISSED_MS	1000
#define MISSED_TIMES	10
#define REFUSED_KEPT_MS (24 * 60 * 60 * 1000) /* for who enters a name */

struct answers {
	struct lists lists;
	struct memos *memos;
};

struct answers *answers_new(const struct context *context)
{
	struct answers *answers = calloc(1, sizeof(*answers));

	if (!answers)
		return NULL;
	lists_init(&answers->lists, context);
	answers->memos = memos_new();
	if (!answers->memos) {
		answers_free(answers);
		return NULL;
	}
	return answers;
}

void answers_free(struct answers *answers)
{
	if (!answers)
		return;
	lists_release(&answers->lists);
	memos_free(answers->memos);
	free(answers);
}

/* --- repositories --- */

/* Lock held. */
static bool list_leads_to(const struct list *list, const char *repo)
{
	int64_t refused_ago_ms = wall_ms() - list->refused_ms;

	return nameset_has_under(list->names, repo) || nameset_has_under(list->added, repo) ||
	       nameset_has_under(list->extra, repo) ||
	       (list->refused_ms && refused_ago_ms >= 0 && refused_ago_ms < REFUSED_KEPT_MS);
}

int answers_repos(struct answers *answers, struct host *host, struct wait *wait,
		  struct nameset **ret, bool *ret_complete)
{
	struct list *list;
	int r;

	pthread_mutex_lock(&answers->lists.lock);
	list = list_get(&answers->lists, LIST_REPOS, host, "");
	r = list ? list_want(&answers->lists, list, wait) : -ENOMEM;
	if (r == -EOPNOTSUPP || r == -ENOENT || (list && list_serves(list, r))) {
		*ret = list_union(list);
		*ret_complete = r == 0;
		r = 0;
	}
	if (list)
		list_put(list);
	pthread_mutex_unlock(&answers->lists.lock);
	return r;
}

int answers_has_repo(struct answers *answers, struct host *host, const char *repo,
		     struct wait *wait)
{
	struct list *list;
	int r;

	/* Who believes nothing asks each time. */
	if (lists_ttl_ms(&answers->lists, host) <= 0)
		return 0;
	pthread_mutex_lock(&answers->lists.lock);
	list = list_get(&answers->lists, LIST_REPOS, host, "");
	r = list ? list_leads_to(list, repo) : -ENOMEM;
	if (r == 0 && !list->recalled && !list->names) {
		if (wait_may_block(wait)) {
			list_recall(&answers->lists, list);
			r = list_leads_to(list, repo);
		} else {
			r = -EWOULDBLOCK;
		}
	}
	if (list)
		list_put(list);
	pthread_mutex_unlock(&answers->lists.lock);
	return r;
}

static struct nameset *list_known(struct answers *answers, enum list_kind kind, struct host *host,
				  const char *repo, bool *ret_fresh)
{
	struct nameset *names = NULL;
	struct list *list;

	pthread_mutex_lock(&answers->lists.lock);
	list = list_get(&answers->lists, kind, host, repo);
	if (list) {
		names = list_union(list);
		*ret_fresh = now_ms() < list->until_ms;
		list_put(list);
	}
	pthread_mutex_unlock(&answers->lists.lock);
	return names;
}

struct nameset *answers_repos_known(struct answers *answers, struct host *host, bool *ret_fresh)
{
	return list_known(answers, LIST_REPOS, host, "", ret_fresh);
}

static int answers_add_extra(struct answers *answers, enum list_kind kind, struct host *host,
			     const char *repo, const char *name)
{
	struct list *list;
	int r = -ENOMEM;

	pthread_mutex_lock(&answers->lists.lock);
	list = list_get(&answers->lists, kind, host, repo);
	if (list) {
		r = names_set_add(&list->extra, name);
		list_put(list);
	}
	pthread_mutex_unlock(&answers->lists.lock);
	return r;
}

int answers_add_repo(struct answers *answers, struct host *host, const char *repo)
{
	return answers_add_extra(answers, LIST_REPOS, host, "", repo);
}

static void answers_drop_extra(struct answers *answers, enum list_kind kind, struct host *host,
			       const char *repo, const char *name)
{
	struct list *list;

	pthread_mutex_lock(&answers->lists.lock);
	list = list_get(&answers->lists, kind, host, repo);
	if (list) {
		names_set_drop(&list->extra, name);
		list_expire(list);
		list_put(list);
	}
	pthread_mutex_unlock(&answers->lists.lock);
}

/* The store has said that a list has NAME by now. */
static void answers_confirm(struct answers *answers, enum list_kind kind, struct host *host,
			    const char *repo, const char *name)
{
	const struct kept_key key = {kind, host->name, repo};
	bool listed = true;
	struct list *list;

	if (host_is_local(host))
		return;
	pthread_mutex_lock(&answers->lists.lock);
	list = list_get(&answers->lists, kind, host, repo);
	if (list) {
		listed = nameset_has(list->names, name);
		if (!listed)
			(void)names_set_add(&list->added, name);
		list->changed = true;
		list_put(list);
	}
	pthread_mutex_unlock(&answers->lists.lock);
	if (!listed)
		kept_add(answers->lists.context->cache, &key, name);
}

/* It has not, any more. */
static void answers_deny(struct answers *answers, enum list_kind kind, struct host *host,
			 const char *repo, const char *name)
{
	const struct kept_key key = {kind, host->name, repo};
	struct list *list;

	pthread_mutex_lock(&answers->lists.lock);
	list = list_get(&answers->lists, kind, host, repo);
	if (list) {
		names_set_drop(&list->added, name);
		list_put(list);
	}
	pthread_mutex_unlock(&answers->lists.lock);
	kept_drop(answers->lists.context->cache, &key, name);
}

void answers_drop_repo(struct answers *answers, struct host *host, const char *repo)
{
	answers_drop_extra(answers, LIST_REPOS, host, "", repo);
	answers_deny(answers, LIST_REPOS, host, "", repo);
}

void answers_add_tag(struct answers *answers, struct host *host, const char *repo, const char *tag)
{
	answers_confirm(answers, LIST_REPOS, host, "", repo);
	answers_confirm(answers, LIST_TAGS, host, repo, tag);
}

void answers_drop_tag(struct answers *answers, struct host *host, const char *repo, const char *tag)
{
	answers_deny(answers, LIST_TAGS, host, repo, tag);
}

void answers_miss_repo(struct answers *answers, struct host *host)
{
	struct list *list;

	pthread_mutex_lock(&answers->lists.lock);
	list = list_get(&answers->lists, LIST_REPOS, host, "");
	if (list) {
		/* A long list is not worth reading for each name that is not there. */
		int64_t enough = list->fetched_ms + MAX(MISSED_MS, MISSED_TIMES * list->took_ms);

		list->until_ms = MIN(list->until_ms, enough);
		list_put(list);
	}
	pthread_mutex_unlock(&answers->lists.lock);
}

/* --- tags --- */

int answers_tags(struct answers *answers, struct host *host, const char *repo, struct wait *wait,
		 struct nameset **ret)
{
	struct list *list;
	int r;

	pthread_mutex_lock(&answers->lists.lock);
	list = list_get(&answers->lists, LIST_TAGS, host, repo);
	r = list ? list_want(&answers->lists, list, wait) : -ENOMEM;
	if (list && list_serves(list, r)) {
		*ret = nameset_union(list->names, list->added);
		r = 0;
	}
	if (list)
		list_put(list);
	pthread_mutex_unlock(&answers->lists.lock);
	if (r == 0)
		(void)answers_add_repo(answers, host, repo);
	return r;
}

struct nameset *answers_tags_known(struct answers *answers, struct host *host, const char *repo,
				   bool *ret_fresh)
{
	struct nameset *names = NULL;
	struct list *list;

	pthread_mutex_lock(&answers->lists.lock);
	list = list_get(&answers->lists, LIST_TAGS, host, repo);
	if (list) {
		names = nameset_ref(list->names);
		*ret_fresh = now_ms() < list->until_ms;
		list_put(list);
	}
	pthread_mutex_unlock(&answers->lists.lock);
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
	image_forget_manifest(answers->lists.context->images, host->store, repo, digest);
}

struct nameset *answers_seen(struct answers *answers, struct host *host, const char *repo)
{
	struct nameset *seen = NULL;
	struct list *list;

	pthread_mutex_lock(&answers->lists.lock);
	list = list_get(&answers->lists, LIST_TAGS, host, repo);
	if (list) {
		seen = nameset_ref(list->extra);
		list_put(list);
	}
	pthread_mutex_unlock(&answers->lists.lock);
	return seen;
}

/* --- resolutions --- */

int answers_resolve(struct answers *answers, struct host *host, const char *repo, const char *tag,
		    struct wait *wait, struct digest *ret, int64_t *ret_left_ms)
{
	AUTO_FREE char *name = format("%s:%s", repo, tag);
	int64_t ttl = lists_ttl_ms(&answers->lists, host);
	struct memo memo;
	int r;

	if (!name)
		return -ENOMEM;
	if (memos_find(answers->memos, host, name, &memo)) {
		*ret = memo.digest;
		*ret_left_ms = MAX(memo.until_ms - now_ms(), 0);
		return 0;
	}
	r = image_resolve(answers->lists.context->images, host->store, repo, tag, wait,
			  &memo.digest);
	if (r < 0)
		return r;
	memo.until_ms = now_ms() + ttl;
	if (!memos_store(answers->memos, host, &name, &memo))
		ttl = 0;
	answers_saw(answers, host, repo, &memo.digest);
	*ret = memo.digest;
	*ret_left_ms = ttl;
	return 0;
}

void answers_forget_tags(struct answers *answers, struct host *host, const char *repo)
{
	struct list *list;

	pthread_mutex_lock(&answers->lists.lock);
	list = list_get(&answers->lists, LIST_TAGS, host, repo);
	if (list) {
		list_expire(list);
		list_put(list);
	}
	pthread_mutex_unlock(&answers->lists.lock);
}

void answers_forget_tag(struct answers *answers, struct host *host, const char *repo,
			const char *tag)
{
	AUTO_FREE char *name = format("%s:%s", repo, tag);
	struct list *list;

	if (name)
		memos_forget(answers->memos, host, name);
	pthread_mutex_lock(&answers->lists.lock);
	list = list_get(&answers->lists, LIST_TAGS, host, repo);
	if (list) {
		/* a long list is not fetched anew for a tag that only moved */
		if (!nameset_has(list->names, tag))
			list_expire(list);
		list_put(list);
	}
	pthread_mutex_unlock(&answers->lists.lock);
	image_forget_tag(answers->lists.context->images, host->store, repo, tag);
}

void answers_tags_of_image(struct answers *answers, struct host *host, const char *repo,
			   const struct digest *digest, answers_tag_fn *fn, void *arg)
{
	struct nameset *tags = memos_tags(answers->memos, host, repo, digest);

	for (size_t i = 0; i < nameset_len(tags); i++)
		if (fn(arg, host, repo, nameset_at(tags, i)) != 0)
			break;
	nameset_unref(tags);
}
