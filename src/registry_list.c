/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_list: catalogues and tag lists (distribution-spec, "Listing Tags"; the catalogue is
 * from the Registry HTTP API V2), page by page along Link (RFC 8288).
 * Knows pages. Must not know what the names are for.
 *
 * A server may page for ever, in circles, or elsewhere: pages and names are bounded, a page is
 * visited once, and Link stays on the host. Such a list ends there, with a line in the log; what
 * was read so far is real.
 */
#include <errno.h>

#include "regfs/log.h"
#include "regfs/ref.h"

#include "registry_list_priv.h"

#define PAGES_MAX 10000
#define NAMES_MAX 1000000
/* Of those who refuse large pages, ECR allows just so many (go-containerregistry#681). Lists that
 * turn out to be long are gone on with in larger steps, where the server allows that. */
#define PAGE_NAMES     "1000"
#define PAGE_NAMES_MAX 1000
#define LARGE_NAMES    "10000"
/* Most that go on behind a page or two end soon: what is begun further on would be for nothing. */
#define LONG_PAGES 3
/* Filtered lists may have some pages with nothing on them. */
#define EMPTY_PAGES_MAX 100

static void listing_release(struct listing *listing)
{
	free(listing->seen);
	free(listing->first);
	free(listing->verbatim);
}

/* 1 if URL is new, 0 if it was visited, or -ENOMEM. It never leaves the host, so the path tells. */
static int visit(struct listing *listing, const char *url)
{
	const char *path = strstr(url, "/v2/");
	path = path ? path : url;
	uint64_t hash = hash64(0, path, strlen(path));
	for (size_t i = 0; i < listing->nseen; i++) {
		if (listing->seen[i] == hash)
			return 0;
	}
	if (listing->nseen == listing->cap) {
		size_t cap = MAX(listing->cap * 2, 16);
		uint64_t *seen = realloc(listing->seen, cap * sizeof(*seen));
		if (!seen)
			return -ENOMEM;
		listing->seen = seen;
		listing->cap = cap;
	}
	listing->seen[listing->nseen++] = hash;
	return 1;
}

bool listing_is_full(const struct listing *listing)
{
	return listing->npages >= PAGES_MAX || listing->nnames >= NAMES_MAX;
}

/* Names that are none (digests among tags, as Artifactory gives them) are left out: they could not
 * be entered. */
int listing_give(struct listing *listing, const char *name)
{
	if (!listing->valid(name) || listing->nnames == NAMES_MAX)
		return 0;
	listing->nnames++;
	listing->stopped = listing->fn(listing->arg, name);
	return listing->stopped;
}

/* URL with a larger page than ours; NULL where it says no size. The caller frees. */
static char *enlarge(const char *url)
{
	static const char ours[] = "n=" PAGE_NAMES;
	const char *at = strchr(url, '?');
	while (at) {
		const char *field = at + 1;
		size_t len = strcspn(field, "&");
		if (len == strlen(ours) && !strncmp(field, ours, len))
			return format("%.*sn=" LARGE_NAMES "%s", (int)(field - url), url,
				      field + len);
		at = field[len] ? field + len : NULL;
	}
	return NULL;
}

static void cut_short(const struct listing *listing, const char *why)
{
	log_warn("%s%s%s: the list of %s ends after %zu names: %s", listing->registry->store.name,
		 listing->call.repo ? "/" : "", listing->call.repo ? listing->call.repo : "",
		 listing->field, listing->nnames, why);
}

/* The URL of the page after PAGE; *RET stays NULL at the end. */
static int find_next(struct listing *listing, struct list_page *page, char **ret)
{
	const char *why = NULL;
	free(STEAL(listing->verbatim));
	if (page->lost)
		why = page->lost == -EXDEV ? "the next page is on another host"
					   : "its Link is no URL";
	else if (!page->next)
		return 0;
	else if (listing_is_full(listing))
		why = "there are too many";
	else if (listing->nempty >= EMPTY_PAGES_MAX)
		why = "page after page is empty";
	if (!why) {
		int fresh = visit(listing, page->next);
		if (fresh < 0)
			return fresh;
		why = fresh ? NULL : "the same page comes again";
	}
	if (why) {
		cut_short(listing, why);
		return 0;
	}
	AUTO_FREE char *large = listing->small ? NULL : enlarge(page->next);
	if (large && visit(listing, large) < 0)
		return -ENOMEM;
	if (large)
		listing->verbatim = STEAL(page->next);
	*ret = large ? STEAL(large) : STEAL(page->next);
	return 0;
}

/* Gives the names of PAGE. */
static int take_names(struct listing *listing, const struct list_page *page)
{
	const char *name = page->text.data;
	size_t before = listing->nnames;
	int stopped = 0;
	if (page->n && !listing->first) {
		listing->first = strdup(name);
		if (!listing->first)
			return -ENOMEM;
	}
	for (size_t i = 0; i < page->n && !stopped; i++, name += strlen(name) + 1)
		stopped = listing_give(listing, name);
	listing->nempty = listing->nnames == before ? listing->nempty + 1 : 0;
	return stopped;
}

/* Whether STATUS may be about the page's size. */
static bool is_refusal(int status)
{
	return status >= 400 && status < 500 && status != 401 && status != 403 && status != 429;
}

/* The page that is asked for instead of URL, of whatever size the server likes. The caller frees.
 */
static char *plain_page(struct listing *listing, const char *url, bool first)
{
	if (listing->verbatim) {
		listing->small = true;
		return STEAL(listing->verbatim);
	}
	return first ? strndup(url, strcspn(url, "?")) : NULL;
}

/* Takes the answer to the page's last request. */
static int take_page(struct listing *listing, struct http_transfer **transfer, struct wait *wait,
		     struct http_transfer **ret)
{
	const struct registry_call *call = &listing->call;
	int status = http_status(*transfer);
	/* There need not be a catalogue, and each has its own way to say so: 400, 404, 405, or the
	 * page that people see. */
	if (call->may_refuse && (is_refusal(status) || registry_is_html(*transfer)))
		return registry_failed(listing->registry, call, -EOPNOTSUPP, "no catalogue here");
	if (status < 200 || status > 299)
		return registry_refused(listing->registry, call, *transfer, wait);
	*ret = STEAL(*transfer);
	return 0;
}

/* Asks for a page. A server that refuses the page's size is asked without one. */
static int ask_page(struct listing *listing, bool first, struct wait *wait,
		    struct http_transfer **ret)
{
	AUTO_TRANSFER struct http_transfer *transfer = NULL;
	int err = registry_send(listing->registry, &listing->call, wait, &transfer);
	if (err)
		return err;
	int status = http_status(transfer);
	AUTO_FREE char *plain = NULL;
	/* 404 is about the repository, where it is the first page of its tags. */
	if (is_refusal(status) && !(status == 404 && first))
		plain = plain_page(listing, listing->call.url, first);
	if (plain) {
		http_close(STEAL(transfer));
		struct registry_call again = listing->call;
		again.url = plain;
		again.deadline_ms = registry_name_deadline(listing->registry);
		err = registry_send(listing->registry, &again, wait, &transfer);
		if (err)
			return err;
	}
	return take_page(listing, &transfer, wait, ret);
}

/* A list that goes on behind its third page, in small pages of sorted names, by the last one. */
static bool is_long(struct listing *listing, const struct list_page *page, const char *path)
{
	size_t from, len;
	if (listing->npages < LONG_PAGES || page->n > PAGE_NAMES_MAX || listing->tried_ahead)
		return false;
	return list_page_is_named(page, path, &from, &len) &&
	       list_is_sorted(page->text.data, page->n);
}

/* One page from URL; *RET is the next page's, or NULL. */
static int walk_page(struct listing *listing, const char *path, const char *url, char **ret,
		     struct wait *wait)
{
	AUTO_TRANSFER struct http_transfer *transfer = NULL;
	AUTO_LIST_PAGE struct list_page page = {0};
	listing->call.url = url;
	listing->call.deadline_ms = registry_name_deadline(listing->registry);
	int err = ask_page(listing, listing->npages++ == 0, wait, &transfer);
	err = err ? err : list_page_read(listing, transfer, &page, wait);
	err = err ? err : take_names(listing, &page);
	if (!err && is_long(listing, &page, path)) {
		AUTO_FREE char *rest = NULL;
		listing->small = listing->tried_ahead = true;
		err = list_ahead(listing, &page, path, wait, &rest);
		free(page.next);
		page.next = STEAL(rest);
	}
	return err ? err : find_next(listing, &page, ret);
}

static int walk(struct listing *listing, const char *path, struct wait *wait)
{
	AUTO_FREE char *url = format("%s?n=" PAGE_NAMES, path);
	if (!url || visit(listing, url) < 0)
		return -ENOMEM;
	while (url) {
		AUTO_FREE char *next = NULL;
		int err = walk_page(listing, path, url, &next, wait);
		if (err)
			return err;
		free(url);
		url = STEAL(next);
	}
	return 0;
}

int registry_list_repos(struct store *store, store_name_fn *fn, void *arg, struct wait *wait)
{
	CLEANUP(listing_release)
	struct listing listing = {
		.registry = registry_of(store),
		.call = {.method = HTTP_GET, .scope = "registry:catalog:*", .may_refuse = true},
		.field = "repositories",
		.valid = ref_repo_valid,
		.fn = fn,
		.arg = arg,
	};
	int err = walk(&listing, "/v2/_catalog", wait);
	/* Those who keep it from everybody say what they say to a wrong password. */
	if (err == -EACCES && !listing.stopped) {
		err = registry_barred(listing.registry, wait);
		return err ? err : -EOPNOTSUPP;
	}
	/* No catalogue is not an empty one. */
	return err == -ENOENT && !listing.stopped ? -EOPNOTSUPP : err;
}

int registry_list_tags(struct store *store, const char *repo, store_name_fn *fn, void *arg,
		       struct wait *wait)
{
	AUTO_FREE char *scope = registry_scope(repo, "pull");
	AUTO_FREE char *path = format("/v2/%s/tags/list", repo);
	if (!scope || !path)
		return -ENOMEM;
	CLEANUP(listing_release)
	struct listing listing = {
		.registry = registry_of(store),
		.call = {.method = HTTP_GET, .repo = repo, .scope = scope},
		.field = "tags",
		.valid = ref_tag_valid,
		.fn = fn,
		.arg = arg,
	};
	return walk(&listing, path, wait);
}
