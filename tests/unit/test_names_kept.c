/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What later mounts know of a list: its names, and single ones that were confirmed since.
 */
#include <errno.h>
#include <pthread.h>

#include "cache_help.h"

#include "../../src/names_priv.h"

#define THREADS	 4
#define EACH	 25
#define NO_NAMES ((const char *const[]){NULL})

static const struct kept_key repos = {LIST_REPOS, "reg.test", ""};
static const struct kept_key tags = {LIST_TAGS, "reg.test", "team/app"};

static struct nameset *set_of(const char *const *names)
{
	struct nameset *set = nameset_new();

	assert_non_null(set);
	for (; *names; names++)
		assert_int_equal(nameset_add(set, *names), 0);
	nameset_seal(set);
	return set;
}

static void assert_set(const struct nameset *set, const char *const *want)
{
	size_t n = 0;

	for (; want[n]; n++) {
		assert_true(n < nameset_len(set));
		assert_string_equal(nameset_at(set, n), want[n]);
	}
	assert_int_equal(nameset_len(set), n);
}

static void save(struct cache *cache, const struct kept_key *key, int64_t asked_ms,
		 const char *const *names)
{
	const struct kept_list list = {.names = set_of(names), .asked_ms = asked_ms};

	kept_list_save(cache, key, &list);
	nameset_unref(list.names);
}

static void assert_kept(struct cache *cache, const struct kept_key *key, const char *const *names,
			const char *const *added)
{
	struct kept_list list = {0};

	assert_int_equal(kept_list_load(cache, key, &list), 0);
	assert_set(list.names, names);
	assert_set(list.added, added);
	nameset_unref(list.names);
	nameset_unref(list.added);
}

static void single_names_join_a_list(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, LIMIT);
	struct cache *other = open_cache(place->cache, LIMIT);
	struct kept_list list = {0};

	assert_int_equal(kept_list_load(cache, &repos, &list), -ENOENT);
	kept_add(cache, &repos, "team/new");
	assert_kept(cache, &repos, NO_NAMES, (const char *const[]){"team/new", NULL});
	save(cache, &repos, wall_ms(), (const char *const[]){"team/app", NULL});
	/* by two mounts of one cache */
	kept_add(other, &repos, "other");
	kept_add(other, &repos, "other");
	kept_add(cache, &tags, "1.6");
	assert_kept(cache, &repos, (const char *const[]){"team/app", NULL},
		    (const char *const[]){"other", "team/new", NULL});
	assert_kept(other, &tags, NO_NAMES, (const char *const[]){"1.6", NULL});
	kept_drop(cache, &repos, "other");
	kept_drop(cache, &repos, "other");
	assert_kept(other, &repos, (const char *const[]){"team/app", NULL},
		    (const char *const[]){"team/new", NULL});
	cache_close(other);
	cache_close(cache);
}

/* A repository may be none of the catalogue's; but what it names may be deleted later. */
static void the_catalogue_takes_over_what_it_names(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, LIMIT);

	kept_add(cache, &repos, "private");
	kept_add(cache, &repos, "team/new");
	save(cache, &repos, wall_ms() + 1000, (const char *const[]){"team/app", "team/new", NULL});
	save(cache, &repos, wall_ms() + 1000, (const char *const[]){"team/app", NULL});
	assert_kept(cache, &repos, (const char *const[]){"team/app", NULL},
		    (const char *const[]){"private", NULL});
	cache_close(cache);
}

/* All tags are in the list of tags, if it was asked for after they were made. */
static void tags_are_all_listed(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, LIMIT);

	kept_add(cache, &tags, "1.6");
	save(cache, &tags, 1, (const char *const[]){"1.4", NULL});
	assert_kept(cache, &tags, (const char *const[]){"1.4", NULL},
		    (const char *const[]){"1.6", NULL});
	save(cache, &tags, wall_ms() + 1000, (const char *const[]){"1.4", NULL});
	assert_kept(cache, &tags, (const char *const[]){"1.4", NULL}, NO_NAMES);
	cache_close(cache);
}

static void a_refused_list_has_single_names(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, LIMIT);
	const struct kept_list refused = {.refused_ms = 1234};
	struct kept_list list = {0};

	kept_add(cache, &repos, "library/alpine");
	kept_list_save(cache, &repos, &refused);
	assert_int_equal(kept_list_load(cache, &repos, &list), 0);
	assert_null(list.names);
	assert_int_equal(list.refused_ms, 1234);
	assert_set(list.added, (const char *const[]){"library/alpine", NULL});
	nameset_unref(list.added);
	cache_close(cache);
}

/* The clock was set back since. */
static void a_refusal_of_the_future_is_not_believed(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, LIMIT);
	const struct kept_list refused = {.refused_ms = wall_ms() + 3600 * 1000};
	struct kept_list list = {0};

	kept_list_save(cache, &repos, &refused);
	assert_int_equal(kept_list_load(cache, &repos, &list), -ENOENT);
	cache_close(cache);
}

struct adder {
	pthread_t thread;
	struct cache *cache;
	unsigned number;
};

static void *add_many(void *arg)
{
	const struct adder *adder = arg;
	char name[32];

	for (unsigned i = 0; i < EACH; i++) {
		snprintf(name, sizeof(name), "app%u-%u", adder->number, i);
		kept_add(adder->cache, &repos, name);
	}
	return NULL;
}

static void nobody_undoes_what_another_added(void **state)
{
	const struct place *place = *state;
	struct adder adders[THREADS];
	struct kept_list list = {0};

	for (unsigned i = 0; i < THREADS; i++) {
		adders[i] = (struct adder){.cache = open_cache(place->cache, LIMIT), .number = i};
		assert_int_equal(pthread_create(&adders[i].thread, NULL, add_many, &adders[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(adders[i].thread, NULL);
	assert_int_equal(kept_list_load(adders[0].cache, &repos, &list), 0);
	assert_int_equal(nameset_len(list.added), THREADS * EACH);
	nameset_unref(list.added);
	for (unsigned i = 0; i < THREADS; i++)
		cache_close(adders[i].cache);
}

#define AT_A_PLACE(test) cmocka_unit_test_setup_teardown(test, place_setup, place_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		AT_A_PLACE(single_names_join_a_list),
		AT_A_PLACE(the_catalogue_takes_over_what_it_names),
		AT_A_PLACE(tags_are_all_listed),
		AT_A_PLACE(a_refused_list_has_single_names),
		AT_A_PLACE(a_refusal_of_the_future_is_not_believed),
		AT_A_PLACE(nobody_undoes_what_another_added),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
