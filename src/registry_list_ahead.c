/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_list_ahead: a long list whose server gives few names a page, read at several places at a
 * time. A page is asked for by the last name before it (distribution-spec, "Listing Tags"), which
 * need not be a name that there is: so any text begins a *chain* of pages.
 * Knows chains, and when they meet. Must not know how names look (registry_list_split.c).
 *
 * Chains begin in gaps: between the last name that one chain has read and the text that the next
 * one began with. A chain ends where it meets the first name of another, by identity, or at the
 * list's end. The list is complete when the first chain leads, from one to the other, to that
 * end; so nothing but speed depends on how the server sorts. Whatever is odd (a page that is not
 * named by its last name, an error, the list's beginning again) ends it all, and the list is read
 * on one by one from where the first chain has led by then.
 *
 * One thread, the caller's, decides; others only fetch.
 */
#include <errno.h>

#include "regfs/pool.h"

#include "registry_list_priv.h"

/* Pages at a time: the names of other things need connections too. */
#define AT_A_TIME  12
#define CHAINS_MAX 256
/* Chains begin as long as no more than these pages, and a quarter, were read for nothing: one for
 * each page that there was, as a list is the longer, the longer it was. */
#define SPARE_MAX 3

enum chain_state {
	CHAIN_PENDING, /* its first page is on its way */
	CHAIN_RUNNING,
	CHAIN_MARK, /* nothing begins there: a gap's end for others */
	CHAIN_DONE,
};

struct ahead;

struct chain {
	struct ahead *ahead;
	enum chain_state state;
	char *key;   /* the text that it began behind */
	char *at;    /* the last name that it has read; before, the same text */
	char *first; /* NULL while pending */
	uint64_t first_hash;
	char *url;	      /* of the page to read next; NULL: the list's end */
	struct chain *link;   /* DONE: which one goes on; NULL: the end, or nobody */
	struct chain *parent; /* whose gap it divides, by varying .place */
	size_t place;
	struct list_gap gap; /* behind .at; .from and .to are set when it is looked at */

	/* the page on its way */
	struct pool_work work;
	bool busy;
	unsigned round; /* when it was asked for */
	struct wait wait;
	struct list_page page;
	int err;
	struct chain *arrived; /* guarded by ahead->lock */
};

struct ahead {
	struct listing *listing;
	const char *path;		  /* of a page */
	char *before, *after;		  /* a page's URL around the name */
	struct chain *chains[CHAINS_MAX]; /* sorted by .key; the first is the list's beginning */
	size_t nchains;
	struct list_alphabet alphabet;
	size_t page_len; /* names on a full page */
	size_t given;	 /* names given to the caller */
	size_t nread;	 /* pages read */
	size_t nbusy, npending;
	unsigned round; /* how often chains have begun */
	bool odd;	/* one by one from now on */
	struct pool *pool;

	pthread_mutex_t lock;
	struct chain *arrived; /* guarded by lock */
	struct wait_queue waiters;
};

/* ---- one page, on a thread of its own ---- */

static int fetch(struct chain *chain)
{
	const struct listing *listing = chain->ahead->listing;
	struct registry_call call = listing->call;
	AUTO_TRANSFER struct http_transfer *transfer = NULL;
	call.url = chain->url;
	call.deadline_ms = registry_name_deadline(listing->registry);
	int err = registry_send(listing->registry, &call, &chain->wait, &transfer);
	if (err)
		return err;
	/* In whatever words: asked for in the usual way, it may do better. */
	if (http_status(transfer) < 200 || http_status(transfer) > 299)
		return -EIO;
	return list_page_read(listing, transfer, &chain->page, &chain->wait);
}

static void run_fetch(struct pool_work *work)
{
	struct chain *chain = CONTAINER_OF(work, struct chain, work);
	struct ahead *ahead = chain->ahead;
	int err = fetch(chain);
	pthread_mutex_lock(&ahead->lock);
	chain->err = err;
	chain->arrived = ahead->arrived;
	ahead->arrived = chain;
	wait_wake(&ahead->waiters);
	pthread_mutex_unlock(&ahead->lock);
}

static void start(struct chain *chain)
{
	struct ahead *ahead = chain->ahead;
	list_page_release(&chain->page);
	chain->page = (struct list_page){0};
	chain->work = (struct pool_work){.run = run_fetch};
	if (pool_submit(ahead->pool, &chain->work) < 0) {
		ahead->odd = true;
		return;
	}
	chain->busy = true;
	chain->round = ahead->round;
	ahead->nbusy++;
	ahead->npending += chain->state == CHAIN_PENDING;
}

/* Waits for a page. 0 or -EINTR. */
static int next_arrival(struct ahead *ahead, struct wait *wait, struct chain **ret)
{
	int err = 0;
	pthread_mutex_lock(&ahead->lock);
	while (!err && !ahead->arrived)
		err = wait_on(wait, &ahead->waiters, &ahead->lock, WAIT_FOREVER);
	struct chain *chain = ahead->arrived;
	if (!err)
		ahead->arrived = chain->arrived;
	pthread_mutex_unlock(&ahead->lock);
	if (err)
		return err;
	chain->busy = false;
	ahead->nbusy--;
	ahead->npending -= chain->state == CHAIN_PENDING;
	*ret = chain;
	return 0;
}

/* ---- chains ---- */

static void chain_free(struct chain *chain)
{
	if (!chain)
		return;
	wait_release(&chain->wait);
	list_page_release(&chain->page);
	free(chain->key);
	free(chain->at);
	free(chain->first);
	free(chain->url);
	free(chain);
}

/* A chain behind KEY, which is taken, at PLACE in the order. NULL when memory is short. */
static struct chain *chain_add(struct ahead *ahead, size_t at, char *key)
{
	struct chain *chain = calloc(1, sizeof(*chain));
	if (!chain) {
		free(key);
		return NULL;
	}
	wait_init(&chain->wait, true);
	chain->ahead = ahead;
	chain->key = key;
	chain->at = strdup(key);
	AUTO_FREE char *escaped = http_url_escape(key);
	if (escaped)
		chain->url = format("%s%s%s", ahead->before, escaped, ahead->after);
	if (!chain->at || !chain->url) {
		chain_free(chain);
		return NULL;
	}
	memmove(&ahead->chains[at + 1], &ahead->chains[at],
		(ahead->nchains - at) * sizeof(*ahead->chains));
	ahead->chains[at] = chain;
	ahead->nchains++;
	return chain;
}

static bool is_ready(const struct chain *chain)
{
	return chain->state == CHAIN_RUNNING && !chain->busy;
}

/* Whether another chain may begin. What was read for nothing is what the pages read are more than
 * the names given. */
static bool may_begin(const struct ahead *ahead)
{
	size_t asked = (ahead->nread + ahead->npending) * ahead->page_len;
	size_t spare = MIN(ahead->given + ahead->page_len, SPARE_MAX * ahead->page_len);
	size_t allowed = ahead->given + ahead->given / 4 + spare;
	return !ahead->odd && ahead->nbusy < AT_A_TIME && ahead->nchains < CHAINS_MAX &&
	       asked < allowed;
}

/* Where the gap behind the chain at INDEX ends: the index of the chain there, or past the last.
 * Those that it has passed already are none. */
static size_t gap_end(const struct ahead *ahead, size_t index)
{
	const char *at = ahead->chains[index++]->at;
	while (index < ahead->nchains && strcmp(ahead->chains[index]->key, at) <= 0)
		index++;
	return index;
}

struct split {
	char *key;
	size_t place; /* that was varied for it */
	struct chain *parent;
	size_t index; /* where it belongs */
};

/* A gap to divide, and how: the end's, which may be of any length, else the one that is divided
 * furthest to the left. .key is the caller's; NULL: there is none. */
static struct split find_split(const struct ahead *ahead)
{
	struct split best = {0};
	for (size_t i = ahead->nchains; i-- > 0;) {
		struct chain *chain = ahead->chains[i];
		if (chain->state == CHAIN_MARK || chain->state == CHAIN_DONE)
			continue;
		struct split split = {.parent = chain, .index = gap_end(ahead, i)};
		bool is_end = split.index == ahead->nchains;
		chain->gap.from = chain->at;
		chain->gap.to = is_end ? NULL : ahead->chains[split.index]->key;
		split.key = list_gap_split(&ahead->alphabet, &chain->gap, &split.place);
		bool better = split.key && (is_end || !best.key || split.place < best.place);
		free(better ? best.key : split.key);
		if (better)
			best = split;
		if (better && is_end)
			break;
	}
	return best;
}

/* 1, 0 (there is nothing worth it), or -ENOMEM. */
static int begin_chain(struct ahead *ahead)
{
	const struct split split = find_split(ahead);
	if (!split.key)
		return 0;
	struct chain *chain = chain_add(ahead, split.index, split.key);
	if (!chain)
		return -ENOMEM;
	chain->parent = split.parent;
	chain->place = split.place;
	chain->gap = (struct list_gap){.turn = split.parent->gap.turn,
				       .advance = split.parent->gap.advance,
				       .level = split.place ? split.place - 1 : 0};
	start(chain);
	return 1;
}

/* New chains begin when all is known of the gaps that was asked for before the last ones did: else
 * they would begin in pages that are on their way. */
static bool is_known(const struct ahead *ahead)
{
	for (size_t i = 0; i < ahead->nchains; i++) {
		if (ahead->chains[i]->busy && ahead->chains[i]->round != ahead->round)
			return false;
	}
	return true;
}

static int start_all(struct ahead *ahead)
{
	for (size_t i = 0; i < ahead->nchains && !ahead->odd; i++) {
		if (is_ready(ahead->chains[i]))
			start(ahead->chains[i]);
	}
	int more = is_known(ahead);
	ahead->round += (unsigned)more;
	while (more > 0 && may_begin(ahead))
		more = begin_chain(ahead);
	return MIN(more, 0);
}

/* ---- what a page says ---- */

static struct chain *chain_of_first(const struct ahead *ahead, const char *name)
{
	uint64_t hash = hash64(0, name, strlen(name));
	for (size_t i = 0; i < ahead->nchains; i++) {
		struct chain *chain = ahead->chains[i];
		if (chain->first && chain->first_hash == hash && !strcmp(chain->first, name))
			return chain;
	}
	return NULL;
}

/* There is nothing in the rest of the gap that CHAIN divided. */
static void note_nothing(struct chain *chain)
{
	chain->parent->gap.floor = MAX(chain->parent->gap.floor, chain->place + 1);
}

/* The first page of CHAIN: whether it is of use. 1, 0, -ENOMEM. */
static int take_first(struct ahead *ahead, struct chain *chain)
{
	const struct list_page *page = &chain->page;
	const struct chain *same = page->n ? chain_of_first(ahead, page->text.data) : NULL;
	bool passed = false; /* by one that began before it */
	for (size_t i = 0; page->n && ahead->chains[i] != chain; i++)
		passed |= ahead->chains[i] == same || strcmp(ahead->chains[i]->at, page->last) >= 0;
	if (!page->n || same || passed) {
		/* From its beginning: the server looks at no names. */
		ahead->odd |= same == ahead->chains[0];
		chain->state = CHAIN_MARK;
		if (!passed)
			note_nothing(chain);
		return 0;
	}
	chain->first = strdup(page->text.data);
	if (!chain->first)
		return -ENOMEM;
	chain->first_hash = hash64(0, chain->first, strlen(chain->first));
	chain->state = CHAIN_RUNNING;
	return 1;
}

/* The chains whose last name is NAME, which CHAIN has read too, end: CHAIN goes on for them. */
static void end_passed(const struct ahead *ahead, struct chain *chain, const char *name)
{
	for (size_t i = 0; i < ahead->nchains; i++) {
		struct chain *other = ahead->chains[i];
		if (other != chain && other->state == CHAIN_RUNNING && !strcmp(other->at, name)) {
			other->state = CHAIN_DONE;
			other->link = chain;
		}
	}
}

/* Gives the names of CHAIN's page up to where another chain has begun. */
static int give(struct ahead *ahead, struct chain *chain)
{
	const struct list_page *page = &chain->page;
	const char *name = page->text.data;
	for (size_t i = 0; i < page->n; i++, name += strlen(name) + 1) {
		struct chain *other = chain_of_first(ahead, name);
		if (other && other != chain) {
			chain->state = CHAIN_DONE;
			chain->link = other;
			return 0;
		}
		int stopped = listing_give(ahead->listing, name);
		if (stopped)
			return stopped;
		ahead->given++;
		list_alphabet_note(&ahead->alphabet, name);
		if (i + 1 < page->n)
			end_passed(ahead, chain, name);
	}
	return 0;
}

/* Where CHAIN goes on. */
static int advance(struct ahead *ahead, struct chain *chain)
{
	struct list_page *page = &chain->page;
	size_t from, len;
	bool named = list_page_is_named(page, ahead->path, &from, &len);
	if (page->lost || (page->next && !named)) {
		ahead->odd = true;
		return 0;
	}
	free(chain->url);
	chain->url = STEAL(page->next);
	if (chain->state == CHAIN_DONE)
		return 0;
	if (!chain->url) {
		chain->state = CHAIN_DONE;
		return 0;
	}
	list_gap_measure(&ahead->alphabet, page->text.data, page->last, &chain->gap);
	/* What was found out about other beginnings says nothing of this one. */
	if (strncmp(chain->at, page->last, chain->gap.floor) != 0)
		chain->gap.floor = 0;
	free(chain->at);
	chain->at = strdup(page->last);
	return chain->at ? 0 : -ENOMEM;
}

static int take_page(struct ahead *ahead, struct chain *chain)
{
	ahead->nread++;
	ahead->listing->npages++;
	if (chain->err == -ENOMEM)
		return -ENOMEM;
	if (chain->err) {
		ahead->odd = true;
		return 0;
	}
	if (chain->state == CHAIN_DONE) /* somebody has passed it meanwhile */
		return 0;
	int use = chain->state == CHAIN_PENDING ? take_first(ahead, chain) : 1;
	if (use <= 0)
		return use;
	int err = give(ahead, chain);
	return err ? err : advance(ahead, chain);
}

/* ---- all ---- */

static void ahead_release(struct ahead *ahead)
{
	for (size_t i = 0; i < ahead->nchains; i++)
		wait_cancel(&ahead->chains[i]->wait);
	pool_free(ahead->pool);
	for (size_t i = 0; i < ahead->nchains; i++)
		chain_free(ahead->chains[i]);
	free(ahead->before);
	free(ahead->after);
	pthread_mutex_destroy(&ahead->lock);
}

/* The first chain is what was read so far, up to PAGE. */
static int ahead_init(struct ahead *ahead, const struct list_page *page)
{
	size_t from = 0, len = 0;
	(void)list_page_is_named(page, ahead->path, &from, &len);
	pthread_mutex_init(&ahead->lock, NULL);
	ahead->page_len = page->n;
	ahead->before = strndup(page->next, from);
	ahead->after = strdup(page->next + from + len);
	ahead->pool = pool_new("list", AT_A_TIME);
	char *key = strdup("");
	if (!ahead->before || !ahead->after || !ahead->pool || !key) {
		free(key);
		return -ENOMEM;
	}
	list_alphabet_init(&ahead->alphabet);
	const char *name = page->text.data;
	for (size_t i = 0; i < page->n; i++, name += strlen(name) + 1)
		list_alphabet_note(&ahead->alphabet, name);
	struct chain *chain = chain_add(ahead, 0, key);
	if (!chain)
		return -ENOMEM;
	free(chain->at);
	free(chain->url);
	chain->at = strdup(page->last);
	chain->url = strdup(page->next);
	chain->first = strdup(ahead->listing->first);
	chain->state = CHAIN_RUNNING;
	list_gap_measure(&ahead->alphabet, page->text.data, page->last, &chain->gap);
	chain->gap.level = chain->gap.turn;
	if (!chain->at || !chain->url || !chain->first)
		return -ENOMEM;
	chain->first_hash = hash64(0, chain->first, strlen(chain->first));
	return 0;
}

/* Where the first chain has led to: a copy of the URL of the page that follows; NULL: none. */
static int find_rest(const struct ahead *ahead, char **ret)
{
	const struct chain *chain = ahead->chains[0];
	for (size_t n = 0; chain->link && n < ahead->nchains; n++)
		chain = chain->link;
	char *url = chain->url ? strdup(chain->url) : NULL;
	if (chain->url && !url)
		return -ENOMEM;
	*ret = url;
	return 0;
}

int list_ahead(struct listing *listing, const struct list_page *page, const char *path,
	       struct wait *wait, char **ret)
{
	CLEANUP(ahead_release) struct ahead ahead = {.listing = listing, .path = path};
	int err = ahead_init(&ahead, page);
	while (!err) {
		err = start_all(&ahead);
		if (err || ahead.odd || !ahead.nbusy)
			break;
		struct chain *chain = NULL;
		err = next_arrival(&ahead, wait, &chain);
		err = err ? err : take_page(&ahead, chain);
		ahead.odd |= listing_is_full(listing);
	}
	return err ? err : find_rest(&ahead, ret);
}
