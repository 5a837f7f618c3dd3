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

#include "registry_priv.h"
#include "regfs/log.h"
#include "regfs/oci.h"
#include "regfs/ref.h"

#define PAGES_MAX 10000
#define NAMES_MAX 1000000
#define PAGE_MAX  (32 * MIB)
/* Of those who refuse large pages, ECR allows just so many (go-containerregistry#681). Lists that
 * turn out to be long are gone on with in larger steps, where the server allows that. */
#define PAGE_NAMES  "1000"
#define LARGE_NAMES "10000"
/* Filtered lists may have some pages with nothing on them. */
#define EMPTY_PAGES_MAX 100

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
	size_t nempty;	/* pages in a row that brought nothing */
	bool small;	/* large pages were refused */
	char *verbatim; /* the Link behind .call.url, where that asks for a larger page */
};

static void listing_release(struct listing *listing)
{
	free(listing->seen);
	free(listing->verbatim);
}

/* 1 if URL is new, 0 if it was visited, or -ENOMEM. It never leaves the host, so the path tells. */
static int visit(struct listing *listing, const char *url)
{
	const char *path = strstr(url, "/v2/");
	path = path ? path : url;
	uint64_t hash = hash64(0, path, strlen(path));
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
	else if (listing->nempty >= EMPTY_PAGES_MAX)
		why = "page after page is empty";
	if (!why) {
		int fresh = visit(listing, next);
		if (fresh < 0)
			return fresh;
		why = fresh ? NULL : "the same page comes again";
	}
	free(STEAL(listing->verbatim));
	if (why) {
		cut_short(listing, why);
		return 0;
	}
	AUTO_FREE char *large = listing->small ? NULL : enlarge(next);
	if (large && visit(listing, large) < 0)
		return -ENOMEM;
	if (large)
		listing->verbatim = STEAL(next);
	*ret = large ? STEAL(large) : STEAL(next);
	return 0;
}

static int read_page(struct listing *listing, struct http_transfer *transfer, struct wait *wait)
{
	AUTO_BUF struct buf body = {0};
	const char *why = "it is larger than 32 MiB";
	size_t before = listing->nnames;
	int err = http_read_all(transfer, PAGE_MAX, &body, wait);
	if (err && err != -EFBIG)
		return registry_failed(listing->registry, &listing->call, err, http_why(transfer));
	if (!err)
		err = oci_names_parse(body.data ? body.data : "", body.len, listing->field, on_name,
				      listing, &why);
	listing->nempty = listing->nnames == before ? listing->nempty + 1 : 0;
	if (!err || listing->stopped || err == -ENOMEM)
		return err;
	const char *encoding = http_header(transfer, "Content-Encoding");
	AUTO_FREE char *words = format("the list makes no sense: %s%s%s", why,
				       encoding ? "; unasked, it has the Content-Encoding " : "",
				       encoding ? encoding : "");
	return registry_failed(listing->registry, &listing->call, -EIO, words ? words : why);
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

/* One page from URL; *RET is the next page's, or NULL. */
static int walk_page(struct listing *listing, const char *url, char **ret, struct wait *wait)
{
	AUTO_TRANSFER struct http_transfer *transfer = NULL;
	AUTO_FREE char *next = NULL;
	listing->call.url = url;
	listing->call.deadline_ms = registry_name_deadline(listing->registry);
	int err = ask_page(listing, listing->npages == 1, wait, &transfer);
	err = err ? err : read_page(listing, transfer, wait);
	err = err ? err : find_next(listing, transfer, &next);
	if (!err)
		*ret = STEAL(next);
	return err;
}

static int walk(struct listing *listing, const char *path, struct wait *wait)
{
	AUTO_FREE char *url = format("%s?n=" PAGE_NAMES, path);
	if (!url || visit(listing, url) < 0)
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
