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
#include <strings.h>

#include "registry_priv.h"
#include "regfs/log.h"
#include "regfs/oci.h"
#include "regfs/ref.h"

#define PAGES_MAX 10000
#define NAMES_MAX 1000000
#define PAGE_MAX  (32 * MIB)
/* Of those who refuse large pages, ECR allows just so many. */
#define PAGE_NAMES "1000"

struct listing {
	struct registry *registry;
	struct registry_call call; /* .url is set for each page */
	const char *field;
	bool (*valid)(const char *name);
	store_name_fn *fn;
	void *arg;
	int stopped; /* what FN returned */
	size_t nnames;
	uint64_t *seen; /* hashes of the pages visited */
	size_t npages, cap;
};

static void listing_release(struct listing *listing)
{
	free(listing->seen);
}

/* 1 if URL is new, 0 if it was visited, or -ENOMEM. */
static int visit(struct listing *listing, const char *url)
{
	uint64_t hash = hash64(0, url, strlen(url));
	for (size_t i = 0; i < listing->npages; i++) {
		if (listing->seen[i] == hash)
			return 0;
	}
	if (listing->npages == listing->cap) {
		size_t cap = MAX(listing->cap * 2, 16);
		uint64_t *seen = realloc(listing->seen, cap * sizeof(*seen));
		if (!seen)
			return -ENOMEM;
		listing->seen = seen;
		listing->cap = cap;
	}
	listing->seen[listing->npages++] = hash;
	return 1;
}

/* One name of a page. Names that are none (digests among tags, as Artifactory gives them) are left
 * out: they could not be entered. */
static int on_name(void *arg, const char *name)
{
	struct listing *listing = arg;
	if (!listing->valid(name))
		return 0;
	if (listing->nnames == NAMES_MAX)
		return 0;
	listing->nnames++;
	listing->stopped = listing->fn(listing->arg, name);
	return listing->stopped;
}

/* The target of a Link header with rel="next", or NULL. The caller frees. */
static char *next_link(const struct http_transfer *transfer)
{
	const char *value;
	for (unsigned n = 0; (value = http_header_n(transfer, "Link", n)); n++) {
		while (*(value += strspn(value, " \t,")) == '<') {
			const char *end = strchr(value, '>');
			if (!end)
				break;
			const char *params = end + 1;
			const char *after = params + strcspn(params, ",");
			AUTO_FREE char *rel = strndup(params, (size_t)(after - params));
			if (rel && (strcasestr(rel, "rel=\"next\"") || strcasestr(rel, "rel=next")))
				return strndup(value + 1, (size_t)(end - value - 1));
			value = after;
		}
	}
	return NULL;
}

/* Where the next page is: scheme, host and port stay those of the page. */
static int resolve_next(const char *page, const char *link, char **ret)
{
	CLEANUP(http_url_release) struct http_url here = {0};
	CLEANUP(http_url_release) struct http_url there = {0};
	AUTO_FREE char *next = NULL;
	int err = http_url_resolve(page, link, &next);
	err = err ? err : http_url_parse(page, &here);
	err = err ? err : http_url_parse(next, &there);
	if (err)
		return err;
	if (strcmp(here.scheme, there.scheme) || strcasecmp(here.host, there.host))
		return -EXDEV;
	*ret = STEAL(next);
	return 0;
}

int registry_next_page(const struct http_transfer *transfer, char **ret)
{
	AUTO_FREE char *link = next_link(transfer);
	if (!link) {
		*ret = NULL;
		return 0;
	}
	return resolve_next(http_url(transfer), link, ret);
}

static void cut_short(const struct listing *listing, const char *why)
{
	log_warn("%s%s%s: the list of %s ends after %zu names: %s", listing->registry->store.name,
		 listing->call.repo ? "/" : "", listing->call.repo ? listing->call.repo : "",
		 listing->field, listing->nnames, why);
}

/* The URL of the page after TRANSFER's; *RET stays NULL at the end. */
static int find_next(struct listing *listing, const struct http_transfer *transfer, char **ret)
{
	AUTO_FREE char *next = NULL;
	int err = registry_next_page(transfer, &next);
	if (err == -ENOMEM || (!err && !next))
		return err;
	const char *why = NULL;
	if (err)
		why = err == -EXDEV ? "the next page is on another host" : "its Link is no URL";
	else if (listing->npages >= PAGES_MAX || listing->nnames >= NAMES_MAX)
		why = "there are too many";
	if (!why) {
		int fresh = visit(listing, next);
		if (fresh < 0)
			return fresh;
		why = fresh ? NULL : "the same page comes again";
	}
	if (why)
		cut_short(listing, why);
	else
		*ret = STEAL(next);
	return 0;
}

static int read_page(struct listing *listing, struct http_transfer *transfer, struct wait *wait)
{
	AUTO_BUF struct buf body = {0};
	const char *why = "it is larger than 32 MiB";
	int err = http_read_all(transfer, PAGE_MAX, &body, wait);
	if (err && err != -EFBIG)
		return registry_failed(listing->registry, &listing->call, err, http_why(transfer));
	if (!err)
		err = oci_names_parse(body.data ? body.data : "", body.len, listing->field, on_name,
				      listing, &why);
	if (!err || listing->stopped || err == -ENOMEM)
		return err;
	AUTO_FREE char *words = format("the list makes no sense: %s", why);
	return registry_failed(listing->registry, &listing->call, -EIO, words ? words : why);
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
	if (status == 400 && first) {
		AUTO_FREE char *url = strndup(listing->call.url, strcspn(listing->call.url, "?"));
		if (!url)
			return -ENOMEM;
		http_close(STEAL(transfer));
		struct registry_call bare = listing->call;
		bare.url = url;
		bare.deadline_ms = registry_name_deadline(listing->registry);
		return registry_ask(listing->registry, &bare, wait, ret);
	}
	if (status < 200 || status > 299)
		return registry_refused(listing->registry, &listing->call, transfer, wait);
	*ret = STEAL(transfer);
	return 0;
}

/* One page from URL; *RET is the next page's, or NULL. */
static int walk_page(struct listing *listing, const char *url, char **ret, struct wait *wait)
{
	AUTO_TRANSFER struct http_transfer *transfer = NULL;
	AUTO_FREE char *next = NULL;
	listing->call.url = url;
	listing->call.deadline_ms = registry_name_deadline(listing->registry);
	int err = ask_page(listing, listing->npages == 0, wait, &transfer);
	err = err ? err : read_page(listing, transfer, wait);
	err = err ? err : find_next(listing, transfer, &next);
	if (!err)
		*ret = STEAL(next);
	return err;
}

static int walk(struct listing *listing, const char *path, struct wait *wait)
{
	AUTO_FREE char *url = format("%s?n=" PAGE_NAMES, path);
	if (!url)
		return -ENOMEM;
	while (url) {
		AUTO_FREE char *next = NULL;
		int err = walk_page(listing, url, &next, wait);
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
