/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_link: where a list goes on (RFC 8288, distribution-spec "Listing Tags").
 * Knows the Link header. Must not know what is listed.
 */
#include <errno.h>
#include <strings.h>

#include "registry_priv.h"

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

/*
 * Where the next page is. It stays on the host, over the scheme that we came by: behind a proxy
 * that ends TLS some servers say http. Nexus puts its internal path before ours
 * (nexus-public#1011).
 */
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
	if (strcasecmp(here.host, there.host))
		return -EXDEV;
	bool inside = ends_with(there.path, here.path);
	char *url = format("%s://%s%s%s%s", here.scheme, here.host, inside ? here.path : there.path,
			   there.query ? "?" : "", there.query ? there.query : "");
	if (!url)
		return -ENOMEM;
	*ret = url;
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
