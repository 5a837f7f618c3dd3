/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_diff_id: which diff ID a layer's blob has, as far as that was ever found out.
 * Must not know how. Both are digests: what was true once is true for ever, in every repository.
 */
#include "regfs/layer.h"

/* Kept as "BLOB DIFF_ID": the key may be half a digest. */
#define PAIR_MAX ((size_t)2 * DIGEST_STR_MAX)

static struct cache_id id_of(enum cache_kind kind, const struct digest *blob)
{
	struct cache_id id = {.kind = kind};

	digest_key(blob, id.key);
	return id;
}

static bool find_pair(struct cache *cache, const struct digest *blob, struct digest *ret)
{
	const struct cache_id id = id_of(CACHE_DIFF_ID, blob);
	AUTO_BUF struct buf pair = BUF_INIT(PAIR_MAX);
	struct digest first;

	if (cache_get(cache, &id, &pair) < 0 || !pair.len)
		return false;
	char *space = memchr(pair.data, ' ', pair.len);
	if (!space)
		return false;
	*space = '\0';
	return digest_parse(pair.data, &first) == 0 && digest_equal(&first, blob) &&
	       digest_parse(space + 1, ret) == 0;
}

/* A pass computes it, where there was time. */
static bool find_in_index(struct cache *cache, const struct digest *blob, struct digest *ret)
{
	const struct cache_id id = id_of(CACHE_INDEX, blob);
	struct cache_map map;
	struct index index;

	if (cache_map(cache, &id, &map) < 0)
		return false;
	bool found = index_open(map.data, map.len, &index) == 0 && !*map.broken &&
		     digest_equal(&index.info.blob, blob) && index.info.diff_id.algo != DIGEST_NONE;
	if (found)
		*ret = index.info.diff_id;
	cache_unmap(&map);
	return found;
}

bool layer_diff_id_find(struct cache *cache, const struct digest *blob, struct digest *ret)
{
	struct digest found;

	bool known = find_pair(cache, blob, &found) || find_in_index(cache, blob, &found);
	/* Configs name them by others too, but hardly ever: such a one is not known. */
	if (!known || found.algo != DIGEST_SHA256)
		return false;
	*ret = found;
	return true;
}

void layer_diff_id_keep(struct cache *cache, const struct digest *blob,
			const struct digest *diff_id)
{
	const struct cache_id id = id_of(CACHE_DIFF_ID, blob);
	char first[DIGEST_STR_MAX], second[DIGEST_STR_MAX], pair[PAIR_MAX];

	int len = snprintf(pair, sizeof(pair), "%s %s", digest_format(blob, first),
			   digest_format(diff_id, second));
	(void)!cache_put(cache, &id, pair, (size_t)len);
}
