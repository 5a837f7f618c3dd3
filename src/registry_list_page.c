/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_list_page: one page of a catalogue or a tag list.
 * Knows its names and its Link. Must not know which pages were read before.
 */
#include <errno.h>

#include "regfs/oci.h"

#include "registry_list_priv.h"

#define PAGE_MAX (32 * MIB)

void list_page_release(struct list_page *page)
{
	buf_release(&page->text);
	free(page->next);
}

static int on_name(void *arg, const char *name)
{
	struct list_page *page = arg;
	page->n++;
	return buf_add(&page->text, name, strlen(name) + 1);
}

static int nonsense(const struct listing *listing, const struct http_transfer *transfer,
		    const char *why)
{
	const char *encoding = http_header(transfer, "Content-Encoding");
	AUTO_FREE char *words = format("the list makes no sense: %s%s%s", why,
				       encoding ? "; unasked, it has the Content-Encoding " : "",
				       encoding ? encoding : "");
	return registry_failed(listing->registry, &listing->call, -EIO, words ? words : why);
}

/* The last name in TEXT, whose last byte is a NUL. */
static const char *last_of(const struct buf *text)
{
	size_t at = text->len - 1;
	while (at && text->data[at - 1])
		at--;
	return text->data + at;
}

int list_page_read(const struct listing *listing, struct http_transfer *transfer,
		   struct list_page *ret, struct wait *wait)
{
	AUTO_BUF struct buf body = {0};
	AUTO_LIST_PAGE struct list_page page = {.text = BUF_INIT(PAGE_MAX)};
	const char *why = "it is larger than 32 MiB";
	int err = http_read_all(transfer, PAGE_MAX, &body, wait);
	if (err && err != -EFBIG)
		return registry_failed(listing->registry, &listing->call, err, http_why(transfer));
	if (!err)
		err = oci_names_parse(body.data ? body.data : "", body.len, listing->field, on_name,
				      &page, &why);
	if (err)
		return err == -ENOMEM ? err : nonsense(listing, transfer, why);
	if (page.n)
		page.last = last_of(&page.text);
	page.lost = registry_next_page(transfer, &page.next);
	if (page.lost == -ENOMEM)
		return -ENOMEM;
	*ret = page;
	page = (struct list_page){0};
	return 0;
}

static int hex_value(char c)
{
	static const char digits[] = "0123456789abcdefABCDEF";
	const char *at = c ? strchr(digits, c) : NULL;
	if (!at)
		return -1;
	return (int)(at - digits) < 16 ? (int)(at - digits) : (int)(at - digits) - 6;
}

/* Whether the LEN bytes at VALUE, out of a query, are NAME. */
static bool means(const char *value, size_t len, const char *name)
{
	for (const char *end = value + len; value < end; name++) {
		int c = (unsigned char)*value++;
		if (c == '%' && end - value >= 2 && hex_value(value[0]) >= 0 &&
		    hex_value(value[1]) >= 0) {
			c = hex_value(value[0]) * 16 + hex_value(value[1]);
			value += 2;
		}
		if (!*name || (unsigned char)*name != c)
			return false;
	}
	return !*name;
}

bool list_page_is_named(const struct list_page *page, const char *path, size_t *ret_from,
			size_t *ret_len)
{
	static const char last[] = "last=";
	const char *query = page->next && page->last ? strchr(page->next, '?') : NULL;
	size_t path_len = query ? (size_t)(query - page->next) : 0;
	/* A mirror's path may have more before it. */
	if (path_len < strlen(path) || memcmp(query - strlen(path), path, strlen(path)) != 0)
		return false;
	while (query) {
		const char *field = query + 1;
		size_t len = strcspn(field, "&");
		if (len >= strlen(last) && !strncmp(field, last, strlen(last))) {
			*ret_from = (size_t)(field - page->next) + strlen(last);
			*ret_len = len - strlen(last);
			return means(page->next + *ret_from, *ret_len, page->last);
		}
		query = field[len] ? field + len : NULL;
	}
	return false;
}
