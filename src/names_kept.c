/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names_kept: what is known of a list from one mount to the next: its names, or that it was
 * refused. In the cache, so that it may be gone at any time.
 * Must not know for how long it is believed.
 */
#include <errno.h>

#include "names_priv.h"

#define LIST_TEXT_MAX (64 * MIB)
#define REFUSED	      "!refused " /* no name begins so */

static int cache_id_of(const struct kept_key *key, struct cache_id *ret)
{
	AUTO_FREE char *text = format("list %d %s/%s", key->kind, key->host, key->repo);
	struct digest digest;

	if (!text)
		return -ENOMEM;
	digest_of(DIGEST_SHA256, text, strlen(text), &digest);
	ret->kind = CACHE_NAME;
	digest_key(&digest, ret->key);
	return 0;
}

static int write_list(const struct kept_list *list, struct buf *text)
{
	int r = 0;

	if (!list->names)
		return buf_printf(text, REFUSED "%lld\n", (long long)list->refused_ms);
	for (size_t i = 0; r == 0 && i < nameset_len(list->names); i++)
		r = buf_printf(text, "%s\n", nameset_at(list->names, i));
	return r;
}

void kept_list_save(struct cache *cache, const struct kept_key *key, const struct kept_list *list)
{
	AUTO_BUF struct buf text = BUF_INIT(LIST_TEXT_MAX);
	struct cache_id id;

	if (write_list(list, &text) == 0 && cache_id_of(key, &id) == 0)
		(void)cache_put(cache, &id, text.data ? text.data : "", text.len);
}

static int read_names(char *text, struct nameset **ret)
{
	struct nameset *names = nameset_new();
	char *line, *rest = text;

	if (!names)
		return -ENOMEM;
	while (rest && (line = strsep(&rest, "\n")) && *line) {
		int r = nameset_add(names, line);

		if (r < 0) {
			nameset_unref(names);
			return r;
		}
	}
	nameset_seal(names);
	*ret = names;
	return 0;
}

int kept_list_load(struct cache *cache, const struct kept_key *key, struct kept_list *ret)
{
	AUTO_BUF struct buf text = BUF_INIT(LIST_TEXT_MAX);
	struct cache_id id;
	int r = cache_id_of(key, &id);

	r = r < 0 ? r : cache_get(cache, &id, &text);
	if (r < 0)
		return r;
	if (text.data && starts_with(text.data, REFUSED)) {
		*ret = (struct kept_list){
			.refused_ms = strtoll(text.data + strlen(REFUSED), NULL, 10)};
		return 0;
	}
	*ret = (struct kept_list){0};
	return read_names(text.data, &ret->names);
}
