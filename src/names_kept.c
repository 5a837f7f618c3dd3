/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names_kept: what is known of a list from one mount to the next: its names, or that it was
 * refused, and single names that the store has confirmed since. In the cache, so that it may be
 * gone at any time.
 * Must not know for how long it is believed.
 *
 * A single name is a record of its own: a push costs one small file however long the list is, and
 * two who add to one list, in one process or in several, do not undo each other's. Its id begins
 * with its list's, so that a list finds its own among all.
 */
#include <errno.h>

#include "names_priv.h"

#define LIST_TEXT_MAX (64 * MIB)
#define NAME_TEXT_MAX KIB
#define REFUSED	      "!refused " /* no name begins so */

/* What the ids of a list's single names begin with; the rest is of the name. */
#define LIST_KEY_LEN (DIGEST_KEY_LEN / 2)

static int hash_key(const struct kept_key *key, const char *what,
		    uint8_t out[static DIGEST_KEY_LEN])
{
	AUTO_FREE char *text = format("%s %d %s/%s", what, key->kind, key->host, key->repo);
	struct digest digest;

	if (!text)
		return -ENOMEM;
	digest_of(DIGEST_SHA256, text, strlen(text), &digest);
	digest_key(&digest, out);
	return 0;
}

static int cache_id_of(const struct kept_key *key, struct cache_id *ret)
{
	ret->kind = CACHE_NAME;
	return hash_key(key, "list", ret->key);
}

static int added_id_of(const struct kept_key *key, const char *name, struct cache_id *ret)
{
	struct digest digest;
	uint8_t of_name[DIGEST_KEY_LEN];
	int r = hash_key(key, "added", ret->key);

	digest_of(DIGEST_SHA256, name, strlen(name), &digest);
	digest_key(&digest, of_name);
	memcpy(ret->key + LIST_KEY_LEN, of_name, DIGEST_KEY_LEN - LIST_KEY_LEN);
	ret->kind = CACHE_NAME;
	return r;
}

/* --- single names --- */

/* What a record holds. */
struct added {
	int64_t ms; /* when it was confirmed, in wall_ms() time */
	struct buf text;
	const char *name; /* in the text */
};
#define ADDED_INIT                                                                                 \
	{                                                                                          \
		.text = BUF_INIT(NAME_TEXT_MAX)                                                    \
	}

static void added_release(struct added *added)
{
	buf_release(&added->text);
}

static int added_read(struct cache *cache, const struct cache_id *id, struct added *added)
{
	char *end;
	int r = cache_get(cache, id, &added->text);

	if (r < 0 || !added->text.len)
		return r < 0 ? r : -ENOENT;
	added->ms = strtoll(added->text.data, &end, 10);
	if (*end != ' ')
		return -ENOENT;
	added->name = end + 1;
	return 0;
}

void kept_add(struct cache *cache, const struct kept_key *key, const char *name)
{
	AUTO_BUF struct buf text = BUF_INIT(NAME_TEXT_MAX);
	struct cache_id id;

	if (added_id_of(key, name, &id) == 0 &&
	    buf_printf(&text, "%lld %s", (long long)wall_ms(), name) == 0)
		(void)cache_put(cache, &id, text.data, text.len);
}

void kept_drop(struct cache *cache, const struct kept_key *key, const char *name)
{
	struct cache_id id;

	if (added_id_of(key, name, &id) == 0)
		cache_remove(cache, &id);
}

/* Looks at the single names of one list. */
struct walk {
	struct cache *cache;
	const struct kept_key *key;
	uint8_t ids[DIGEST_KEY_LEN]; /* begin with LIST_KEY_LEN bytes of this */
	const struct kept_list *fresh;
	struct nameset *found;
};

static int walk_added(struct walk *walk, int (*fn)(void *arg, const struct cache_id *id))
{
	int r = hash_key(walk->key, "added", walk->ids);

	return r < 0 ? r : cache_each(walk->cache, CACHE_NAME, fn, walk);
}

static bool is_of(const struct walk *walk, const struct cache_id *id)
{
	return memcmp(id->key, walk->ids, LIST_KEY_LEN) == 0;
}

/* What the list names itself by now needs no record, and must not outlive it there. A list of tags
 * is all there is; a catalogue may leave out what can be entered by name. */
static int remove_listed(void *arg, const struct cache_id *id)
{
	const struct walk *walk = arg;
	const struct kept_list *fresh = walk->fresh;
	CLEANUP(added_release) struct added added = ADDED_INIT;

	if (is_of(walk, id) && added_read(walk->cache, id, &added) == 0 &&
	    (nameset_has(fresh->names, added.name) ||
	     (walk->key->kind == LIST_TAGS && added.ms < fresh->asked_ms)))
		cache_remove(walk->cache, id);
	return 0;
}

static int collect_added(void *arg, const struct cache_id *id)
{
	struct walk *walk = arg;
	CLEANUP(added_release) struct added added = ADDED_INIT;

	if (!is_of(walk, id) || added_read(walk->cache, id, &added) < 0)
		return 0;
	return nameset_add(walk->found, added.name);
}

/* NULL where there is none. */
static int load_added(struct cache *cache, const struct kept_key *key, struct nameset **ret)
{
	struct walk walk = {.cache = cache, .key = key, .found = nameset_new()};
	int r = walk.found ? walk_added(&walk, collect_added) : -ENOMEM;

	if (r == 0)
		nameset_seal(walk.found);
	if (r == 0 && nameset_len(walk.found))
		*ret = STEAL(walk.found);
	nameset_unref(walk.found);
	return r;
}

/* --- lists --- */

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
	struct walk walk = {.cache = cache, .key = key, .fresh = list};
	struct cache_id id;

	if (write_list(list, &text) == 0 && cache_id_of(key, &id) == 0)
		(void)cache_put(cache, &id, text.data ? text.data : "", text.len);
	if (list->names)
		(void)walk_added(&walk, remove_listed);
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

static int load_list(struct cache *cache, const struct kept_key *key, struct kept_list *ret)
{
	AUTO_BUF struct buf text = BUF_INIT(LIST_TEXT_MAX);
	struct cache_id id;
	int64_t refused_ms;
	int r = cache_id_of(key, &id);

	r = r < 0 ? r : cache_get(cache, &id, &text);
	if (r < 0)
		return r;
	if (!text.data || !starts_with(text.data, REFUSED))
		return read_names(text.data, &ret->names);
	refused_ms = strtoll(text.data + strlen(REFUSED), NULL, 10);
	/* of what is still to come nobody knows how old it is: a clock was set back */
	if (refused_ms > wall_ms())
		return -ENOENT;
	ret->refused_ms = refused_ms;
	return 0;
}

int kept_list_load(struct cache *cache, const struct kept_key *key, struct kept_list *ret)
{
	struct kept_list list = {0};
	int r = load_list(cache, key, &list);
	int added = load_added(cache, key, &list.added);

	if (r < 0 && (added < 0 || !list.added))
		return r;
	*ret = list;
	return 0;
}
