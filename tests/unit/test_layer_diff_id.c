/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_diff_id: what is kept is found, by the whole digest of its blob, and nothing else is.
 */
#include "cache_help.h"
#include "regfs/layer.h"

struct pair {
	struct digest blob, diff_id;
};

static struct pair pair_of(enum digest_algo blob, enum digest_algo diff_id, const char *seed)
{
	struct pair pair;

	digest_of(blob, seed, strlen(seed), &pair.blob);
	digest_of(diff_id, seed, strlen(seed) - 1, &pair.diff_id);
	return pair;
}

static bool finds(struct cache *cache, const struct pair *pair)
{
	struct digest found = {.algo = DIGEST_SHA512};
	bool known = layer_diff_id_find(cache, &pair->blob, &found);

	if (!known)
		assert_int_equal(found.algo, DIGEST_SHA512);
	return known && digest_equal(&found, &pair->diff_id);
}

static void what_is_kept_is_found(void **state)
{
	const struct place *place = *state;
	const struct pair usual = pair_of(DIGEST_SHA256, DIGEST_SHA256, "usual"),
			  long_blob = pair_of(DIGEST_SHA512, DIGEST_SHA256, "long"),
			  odd = pair_of(DIGEST_SHA256, DIGEST_SHA512, "odd"),
			  unknown = pair_of(DIGEST_SHA256, DIGEST_SHA256, "unknown");
	struct cache *cache = open_cache(place->cache, LIMIT);

	layer_diff_id_keep(cache, &usual.blob, &usual.diff_id);
	layer_diff_id_keep(cache, &long_blob.blob, &long_blob.diff_id);
	layer_diff_id_keep(cache, &odd.blob, &odd.diff_id);
	close_cache(cache);
	cache = open_cache(place->cache, LIMIT);
	assert_true(finds(cache, &usual));
	assert_true(finds(cache, &long_blob));
	/* No one compares such a one with a config's sha256. */
	assert_false(finds(cache, &odd));
	assert_false(finds(cache, &unknown));
	close_cache(cache);
}

/* TEXT stands where the cache keeps what is known of BLOB. */
static void put_text(struct cache *cache, const struct digest *blob, const char *text)
{
	struct cache_id id = {.kind = CACHE_DIFF_ID};

	digest_key(blob, id.key);
	assert_int_equal(cache_put(cache, &id, text, strlen(text)), 0);
}

static void what_makes_no_sense_is_unknown(void **state)
{
	const struct place *place = *state;
	const struct pair one = pair_of(DIGEST_SHA256, DIGEST_SHA256, "one"),
			  other = pair_of(DIGEST_SHA256, DIGEST_SHA256, "other");
	char blob[DIGEST_STR_MAX], diff_id[DIGEST_STR_MAX], other_blob[DIGEST_STR_MAX];
	struct cache *cache = open_cache(place->cache, LIMIT);

	digest_format(&one.blob, blob);
	digest_format(&one.diff_id, diff_id);
	digest_format(&other.blob, other_blob);
	AUTO_FREE char *right = format("%s %s", blob, diff_id);
	put_text(cache, &one.blob, right);
	assert_true(finds(cache, &one));
	char *wrong[] = {
		format("%s %s ", blob, diff_id),
		format("%s%s", blob, diff_id),
		format("%s ", blob),
		strdup(" "),
		strdup(""),
		format("%s %s", other_blob, diff_id),
	};
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		put_text(cache, &one.blob, wrong[i]);
		assert_false(finds(cache, &one));
		free(wrong[i]);
	}
	close_cache(cache);
}

/* As a pass leaves it. */
static void put_index(struct cache *cache, const struct pair *pair, const struct digest *key)
{
	struct index_builder *builder = index_builder_new();
	AUTO_BUF struct buf file = BUF_INIT(MIB);
	struct index_info info = {.blob = pair->blob, .diff_id = pair->diff_id};
	struct cache_id id = {.kind = CACHE_INDEX};

	digest_key(key, id.key);
	assert_int_equal(index_builder_finish(builder, &info, &file), 0);
	assert_int_equal(cache_put(cache, &id, file.data, file.len), 0);
	index_builder_free(builder);
}

static void what_a_pass_found_is_known(void **state)
{
	const struct place *place = *state;
	const struct pair seen = pair_of(DIGEST_SHA256, DIGEST_SHA256, "seen"),
			  wrong = pair_of(DIGEST_SHA256, DIGEST_SHA256, "wrong");
	struct pair vague = pair_of(DIGEST_SHA256, DIGEST_SHA256, "vague");
	struct cache *cache = open_cache(place->cache, LIMIT);

	vague.diff_id = (struct digest){.algo = DIGEST_NONE};
	put_index(cache, &seen, &seen.blob);
	put_index(cache, &seen, &wrong.blob);
	put_index(cache, &vague, &vague.blob);
	assert_true(finds(cache, &seen));
	assert_false(layer_diff_id_find(cache, &wrong.blob, &vague.diff_id));
	assert_false(layer_diff_id_find(cache, &vague.blob, &vague.diff_id));
	close_cache(cache);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, place_setup, place_teardown)
	const struct CMUnitTest tests[] = {
		TEST(what_is_kept_is_found),
		TEST(what_makes_no_sense_is_unknown),
		TEST(what_a_pass_found_is_known),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
