/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Links under temporary names: which are, what becomes of them, and who may have them.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../src/names_priv.h"

struct fixture {
	struct pendings *pendings;
	struct host host;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* guarded by lock */
	char published[256];
	bool stalls; /* who publishes waits */
};

/* Nothing is due before the test ends. */
#define NEVER_MS 600000

static void publish(void *arg, struct host *host, const char *repo, const char *tag,
		    const char *text, struct wait *wait)
{
	struct fixture *f = arg;
	size_t len;

	assert_ptr_equal(host, &f->host);
	assert_true(wait_may_block(wait));
	pthread_mutex_lock(&f->lock);
	len = strlen(f->published);
	snprintf(f->published + len, sizeof(f->published) - len, "%s:%s->%s ", repo, tag, text);
	pthread_cond_broadcast(&f->changed);
	while (f->stalls)
		pthread_cond_wait(&f->changed, &f->lock);
	pthread_mutex_unlock(&f->lock);
}

static void await_published(struct fixture *f, const char *expected)
{
	pthread_mutex_lock(&f->lock);
	while (strcmp(f->published, expected) != 0)
		pthread_cond_wait(&f->changed, &f->lock);
	pthread_mutex_unlock(&f->lock);
}

static void start(struct fixture *f, int64_t stays_ms)
{
	const struct pendings_options options = {
		.stays_ms = stays_ms, .publish = publish, .arg = f};

	f->pendings = pendings_new(&options);
	assert_non_null(f->pendings);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->host.name = (char *)"reg:5000";
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->changed, NULL);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	pendings_free(f->pendings);
	pthread_cond_destroy(&f->changed);
	pthread_mutex_destroy(&f->lock);
	free(f);
	return 0;
}

static int add(struct fixture *f, const char *repo, const char *name, const char *text)
{
	const struct pending_link link = {
		.host = &f->host, .repo = repo, .name = name, .text = text};

	return pendings_add(f->pendings, &link);
}

/* The link's text, or its absence. */
static void assert_text(struct fixture *f, const char *repo, const char *name, const char *expected)
{
	AUTO_FREE char *text = NULL;
	uint64_t number = 0;
	int r = pendings_find(f->pendings, &f->host, repo, name, &text, &number);

	assert_int_equal(r, expected ? 0 : -ENOENT);
	assert_string_equal(text ? text : "", expected ? expected : "");
}

static void names_are_told_apart(void **state)
{
	static const char *const temporary[] = {".",	    ".x",	".stable.tmp",
						"CuAbCdEf", "Cu012345", "Customer"};
	static const char *const tags[] = {"",		"1.5",	    "Cu",	"CuAbCdE",
					   "CuAbCdEfG", "cuAbCdEf", "CuAbC.Ef", "CuAbC_Ef",
					   "stable",	"CuAbC-Ef", "xCuAbCdE"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(temporary); i++)
		assert_true(pending_is_temporary(temporary[i]));
	for (size_t i = 0; i < ARRAY_SIZE(tags); i++)
		assert_false(pending_is_temporary(tags[i]));
}

static void a_link_belongs_to_its_repository(void **state)
{
	struct fixture *f = *state;
	struct host other = f->host;
	AUTO_FREE char *text = NULL;
	uint64_t number;

	start(f, NEVER_MS);
	assert_int_equal(add(f, "app", ".x", "1"), 0);
	assert_int_equal(add(f, "app", ".x", "2"), -EEXIST);
	assert_int_equal(add(f, "web", ".x", "3"), 0);
	assert_text(f, "app", ".x", "1");
	assert_text(f, "web", ".x", "3");
	assert_text(f, "ap", ".x", NULL);
	assert_text(f, "app", ".y", NULL);
	assert_int_equal(pendings_find(f->pendings, &other, "app", ".x", &text, &number), -ENOENT);
	assert_int_equal(pendings_drop(f->pendings, &f->host, "app", ".x"), 0);
	assert_int_equal(pendings_drop(f->pendings, &f->host, "app", ".x"), -ENOENT);
	assert_text(f, "app", ".x", NULL);
	assert_text(f, "web", ".x", "3");
}

static void a_name_used_again_has_another_number(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *first = NULL, *second = NULL;
	uint64_t one, two;

	start(f, NEVER_MS);
	assert_int_equal(add(f, "app", ".x", "1"), 0);
	assert_int_equal(pendings_find(f->pendings, &f->host, "app", ".x", &first, &one), 0);
	assert_int_equal(pendings_drop(f->pendings, &f->host, "app", ".x"), 0);
	assert_int_equal(add(f, "app", ".x", "2"), 0);
	assert_int_equal(pendings_find(f->pendings, &f->host, "app", ".x", &second, &two), 0);
	assert_true(one != two);
}

static void one_who_takes_it_has_it_alone(void **state)
{
	struct fixture *f = *state;
	struct pending *pending, *other;

	start(f, NEVER_MS);
	assert_int_equal(pendings_take(f->pendings, &f->host, "app", ".x", &pending), -ENOENT);
	assert_int_equal(add(f, "app", ".x", "1"), 0);
	assert_int_equal(pendings_take(f->pendings, &f->host, "app", ".x", &pending), 0);
	assert_string_equal(pending_text(pending), "1");
	assert_int_equal(pendings_take(f->pendings, &f->host, "app", ".x", &other), -EBUSY);
	assert_int_equal(pendings_drop(f->pendings, &f->host, "app", ".x"), -EBUSY);
	pendings_put(f->pendings, pending, false);
	assert_text(f, "app", ".x", "1");
	assert_int_equal(pendings_take(f->pendings, &f->host, "app", ".x", &pending), 0);
	pendings_put(f->pendings, pending, true);
	assert_text(f, "app", ".x", NULL);
}

/* One that can be a tag is published, one that cannot only goes. */
static void what_is_left_alone_was_meant(void **state)
{
	struct fixture *f = *state;

	start(f, 1);
	assert_int_equal(add(f, "app", ".x", "no tag"), 0);
	assert_int_equal(add(f, "app", "CuAbCdEf", "1.5"), 0);
	await_published(f, "app:CuAbCdEf->1.5 ");
	pendings_finish(f->pendings);
	assert_text(f, "app", "CuAbCdEf", NULL);
	assert_text(f, "app", ".x", NULL);
	assert_string_equal(f->published, "app:CuAbCdEf->1.5 ");
}

/* It was to be renamed: whatever became of that, it is no tag. */
static void what_was_taken_was_not_meant(void **state)
{
	struct fixture *f = *state;
	struct pending *pending;

	start(f, NEVER_MS);
	assert_int_equal(add(f, "app", "CuAbCdEf", "1.5"), 0);
	assert_int_equal(pendings_take(f->pendings, &f->host, "app", "CuAbCdEf", &pending), 0);
	pendings_put(f->pendings, pending, false);
	pendings_finish(f->pendings);
	assert_text(f, "app", "CuAbCdEf", NULL);
	assert_string_equal(f->published, "");
}

static void the_end_publishes_what_was_meant(void **state)
{
	struct fixture *f = *state;

	start(f, NEVER_MS);
	assert_int_equal(add(f, "app", "CuAbCdEf", "1.5"), 0);
	assert_int_equal(add(f, "app", ".x", "1.5"), 0);
	pendings_finish(f->pendings);
	assert_string_equal(f->published, "app:CuAbCdEf->1.5 ");
}

/* While one is published others come and go; it is there until it is done. */
static void a_slow_registry_keeps_nobody(void **state)
{
	struct fixture *f = *state;
	struct pending *pending;

	f->stalls = true;
	start(f, 1);
	assert_int_equal(add(f, "app", "CuAbCdEf", "1.5"), 0);
	await_published(f, "app:CuAbCdEf->1.5 ");
	assert_text(f, "app", "CuAbCdEf", "1.5");
	assert_int_equal(pendings_take(f->pendings, &f->host, "app", "CuAbCdEf", &pending), -EBUSY);
	assert_int_equal(add(f, "web", "CuAbCdEf", "2"), 0);
	await_published(f, "app:CuAbCdEf->1.5 web:CuAbCdEf->2 ");
	pthread_mutex_lock(&f->lock);
	f->stalls = false;
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->lock);
	pendings_finish(f->pendings);
	assert_text(f, "app", "CuAbCdEf", NULL);
}

struct user {
	struct fixture *f;
	unsigned number, failed;
};

static void *use(void *arg)
{
	struct user *user = arg;
	struct pendings *pendings = user->f->pendings;
	struct pending *pending;
	char name[16];

	for (unsigned i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), ".%u-%u", user->number, i);
		user->failed += add(user->f, "app", name, "1") != 0;
		if (pendings_take(pendings, &user->f->host, "app", name, &pending) == 0)
			pendings_put(pendings, pending, i % 3 != 0);
		(void)pendings_drop(pendings, &user->f->host, "app", name);
	}
	return NULL;
}

static void many_at_once(void **state)
{
	struct fixture *f = *state;
	struct user users[4];
	pthread_t threads[ARRAY_SIZE(users)];

	start(f, 1);
	for (unsigned i = 0; i < ARRAY_SIZE(users); i++) {
		users[i] = (struct user){.f = f, .number = i};
		assert_int_equal(pthread_create(&threads[i], NULL, use, &users[i]), 0);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(users); i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(users[i].failed, 0);
	}
	pendings_finish(f->pendings);
	assert_string_equal(f->published, "");
	assert_text(f, "app", ".0-0", NULL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_told_apart),
		TEST(a_link_belongs_to_its_repository),
		TEST(a_name_used_again_has_another_number),
		TEST(one_who_takes_it_has_it_alone),
		TEST(what_is_left_alone_was_meant),
		TEST(what_was_taken_was_not_meant),
		TEST(the_end_publishes_what_was_meant),
		TEST(a_slow_registry_keeps_nobody),
		TEST(many_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
