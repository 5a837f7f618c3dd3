/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names_pending: links under temporary names in _tags: what ln -sf makes before it renames it over
 * the tag. Such a link is remembered here alone, and is no tag.
 * Knows names and times. Must not know what a link's text means.
 *
 * One that is still there after a while was meant, if its name can be a tag: it is published. One
 * that ln(1) made for itself, or that was to be renamed and could not be, never is.
 *
 * pool runs the watch, which sleeps until the next one is due, and what is published; so neither a
 * request nor a slow registry keeps the others.
 */
#include <errno.h>

#include "regfs/log.h"
#include "regfs/pool.h"

#include "names_priv.h"

#define MAX_PENDING 4096
#define MAX_THREADS 8
#define PROC_MAX    4096

struct pending {
	struct pool_work work;
	struct pendings *pendings;
	struct pending *next; /* guarded by pendings->lock */
	struct host *host;
	char *repo, *name, *text;
	uint64_t number; /* tells apart those of the same name */
	/* guarded by pendings->lock */
	int64_t due_ms;
	bool meant; /* a tag, if it is left alone */
	bool busy;  /* being renamed or published: whoever set it takes it out, or gives it back */
};

struct pendings {
	struct pendings_options options;
	struct pool *pool;
	struct pool_work watch;
	struct wait wait; /* the watch's, and what is published */
	pthread_mutex_t lock;
	struct wait_queue changed;
	struct pending *head; /* guarded by lock */
	size_t count;	      /* guarded by lock */
	uint64_t made;	      /* guarded by lock */
	bool watching;	      /* guarded by lock */
};

/* --- names --- */

bool pending_is_temporary(const char *name)
{
	if (name[0] == '.')
		return true;
	if (strncmp(name, "Cu", 2) != 0 || strlen(name) != 8)
		return false;
	return strspn(name, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") == 8;
}

/* ln makes up the name itself: one that it was called with is the user's own. */
static bool made_by_ln(pid_t pid, const char *name)
{
	char text[PROC_MAX];
	ssize_t len = pid > 0 ? read_proc(pid, "comm", text, sizeof(text)) : -ENOENT;

	if (len != 3 || memcmp(text, "ln\n", 3) != 0)
		return false;
	len = read_proc(pid, "cmdline", text, sizeof(text));
	return len > 0 && (size_t)len < sizeof(text) - 1 && !memmem(text, len, name, strlen(name));
}

/* --- the table --- */

static void pending_free(struct pending *pending)
{
	free(pending->repo);
	free(pending->name);
	free(pending->text);
	free(pending);
}

/* Lock held. */
static struct pending **find(struct pendings *pendings, const struct host *host, const char *repo,
			     const char *name)
{
	struct pending **at = &pendings->head;

	while (*at &&
	       !((*at)->host == host && !strcmp((*at)->name, name) && !strcmp((*at)->repo, repo)))
		at = &(*at)->next;
	return at;
}

/* Lock held. */
static void unlink_pending(struct pendings *pendings, struct pending *pending)
{
	struct pending **at = &pendings->head;

	while (*at != pending)
		at = &(*at)->next;
	*at = pending->next;
	pendings->count--;
}

int pendings_find(struct pendings *pendings, const struct host *host, const char *repo,
		  const char *name, char **ret_text, uint64_t *ret_number)
{
	struct pending *pending;
	char *text = NULL;
	int r = -ENOENT;

	pthread_mutex_lock(&pendings->lock);
	pending = *find(pendings, host, repo, name);
	if (pending) {
		text = strdup(pending->text);
		r = text ? 0 : -ENOMEM;
		*ret_number = pending->number;
	}
	pthread_mutex_unlock(&pendings->lock);
	if (r == 0)
		*ret_text = text;
	return r;
}

int pendings_drop(struct pendings *pendings, const struct host *host, const char *repo,
		  const char *name)
{
	struct pending *pending;
	int r = -ENOENT;

	pthread_mutex_lock(&pendings->lock);
	pending = *find(pendings, host, repo, name);
	if (pending)
		r = pending->busy ? -EBUSY : 0;
	if (r == 0)
		unlink_pending(pendings, pending);
	pthread_mutex_unlock(&pendings->lock);
	if (r == 0)
		pending_free(pending);
	return r;
}

int pendings_take(struct pendings *pendings, const struct host *host, const char *repo,
		  const char *name, struct pending **ret)
{
	struct pending *pending;
	int r = -ENOENT;

	pthread_mutex_lock(&pendings->lock);
	pending = *find(pendings, host, repo, name);
	if (pending)
		r = pending->busy ? -EBUSY : 0;
	if (r == 0) {
		pending->busy = true;
		pending->meant = false;
		*ret = pending;
	}
	pthread_mutex_unlock(&pendings->lock);
	return r;
}

const char *pending_text(const struct pending *pending)
{
	return pending->text;
}

void pendings_put(struct pendings *pendings, struct pending *pending, bool done)
{
	pthread_mutex_lock(&pendings->lock);
	pending->busy = false;
	pending->due_ms = now_ms() + pendings->options.stays_ms;
	if (done)
		unlink_pending(pendings, pending);
	wait_wake(&pendings->changed);
	pthread_mutex_unlock(&pendings->lock);
	if (done)
		pending_free(pending);
}

/* --- the watch --- */

static void publish_run(struct pool_work *work)
{
	struct pending *pending = CONTAINER_OF(work, struct pending, work);
	struct pendings *pendings = pending->pendings;
	struct wait wait;

	wait_init(&wait, true);
	log_info("%s/%s/_tags/%s: nobody renamed it: it is made a tag", pending->host->name,
		 pending->repo, pending->name);
	pendings->options.publish(pendings->options.arg, pending->host, pending->repo,
				  pending->name, pending->text, &wait);
	wait_release(&wait);
	pendings_put(pendings, pending, true);
}

/* Lock held. The next one that is due, out of those nobody works on. */
static struct pending *next_due(struct pendings *pendings)
{
	struct pending *next = NULL;

	for (struct pending *at = pendings->head; at; at = at->next)
		if (!at->busy && (!next || at->due_ms < next->due_ms))
			next = at;
	return next;
}

/* PENDING is out of everybody's reach: busy, or out of the table. */
static void publish(struct pendings *pendings, struct pending *pending)
{
	pending->work.run = publish_run;
	if (pool_submit(pendings->pool, &pending->work) == 0)
		return;
	log_error("%s/%s/_tags/%s: it cannot be made a tag: no thread", pending->host->name,
		  pending->repo, pending->name);
	pendings_put(pendings, pending, true);
}

static void watch_run(struct pool_work *work)
{
	struct pendings *pendings = CONTAINER_OF(work, struct pendings, watch);
	bool ending = false;
	struct pending *next;

	pthread_mutex_lock(&pendings->lock);
	while ((next = next_due(pendings))) {
		if (!ending && now_ms() < next->due_ms) {
			ending = wait_on(&pendings->wait, &pendings->changed, &pendings->lock,
					 next->due_ms) == -EINTR;
			continue;
		}
		next->busy = next->meant;
		if (!next->meant)
			unlink_pending(pendings, next);
		pthread_mutex_unlock(&pendings->lock);
		if (next->meant)
			publish(pendings, next);
		else
			pending_free(next);
		pthread_mutex_lock(&pendings->lock);
	}
	pendings->watching = false;
	pthread_mutex_unlock(&pendings->lock);
}

static void start_watch(struct pendings *pendings)
{
	pendings->watch.run = watch_run;
	if (pool_submit(pendings->pool, &pendings->watch) == 0)
		return;
	pthread_mutex_lock(&pendings->lock);
	pendings->watching = false; /* the next link tries again */
	pthread_mutex_unlock(&pendings->lock);
}

int pendings_add(struct pendings *pendings, const struct pending_link *link)
{
	struct pending *pending = calloc(1, sizeof(*pending));
	bool meant = ref_tag_valid(link->name) && !made_by_ln(link->pid, link->name);
	bool start = false;
	int r = 0;

	if (!pending)
		return -ENOMEM;
	*pending = (struct pending){
		.pendings = pendings,
		.host = link->host,
		.repo = strdup(link->repo),
		.name = strdup(link->name),
		.text = strdup(link->text),
		.meant = meant,
		.due_ms = now_ms() + pendings->options.stays_ms,
	};
	if (!pending->repo || !pending->name || !pending->text) {
		pending_free(pending);
		return -ENOMEM;
	}
	pthread_mutex_lock(&pendings->lock);
	if (*find(pendings, link->host, link->repo, link->name))
		r = -EEXIST;
	else if (pendings->count >= MAX_PENDING)
		r = -EBUSY;
	if (r == 0) {
		pending->number = ++pendings->made;
		pending->next = pendings->head;
		pendings->head = pending;
		pendings->count++;
		start = !pendings->watching;
		pendings->watching = true;
	}
	pthread_mutex_unlock(&pendings->lock);
	if (start)
		start_watch(pendings);
	if (r < 0)
		pending_free(pending);
	return r;
}

/* --- */

struct pendings *pendings_new(const struct pendings_options *options)
{
	struct pendings *pendings = calloc(1, sizeof(*pendings));

	if (!pendings)
		return NULL;
	pendings->options = *options;
	pendings->pool = pool_new("tag", MAX_THREADS);
	pthread_mutex_init(&pendings->lock, NULL);
	wait_init(&pendings->wait, true);
	if (!pendings->pool) {
		pendings_free(pendings);
		return NULL;
	}
	return pendings;
}

void pendings_finish(struct pendings *pendings)
{
	wait_cancel(&pendings->wait);
	pool_free(pendings->pool); /* what runs in it may use it to the end */
	pendings->pool = NULL;
}

void pendings_free(struct pendings *pendings)
{
	if (!pendings)
		return;
	if (pendings->pool)
		pendings_finish(pendings);
	while (pendings->head) {
		struct pending *pending = pendings->head;

		pendings->head = pending->next;
		pending_free(pending);
	}
	wait_release(&pendings->wait);
	pthread_mutex_destroy(&pendings->lock);
	free(pendings);
}
