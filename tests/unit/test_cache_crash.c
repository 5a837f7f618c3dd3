// SPDX-License-Identifier: Apache-2.0
/*
 * test_cache_crash: killed processes, several processes, a machine that went down. Whatever
 * happens, a read is right or a miss, and the limit holds.
 */
#include <signal.h>

#include "cache_help.h"

/* A child that works until it is killed, and tells of each step on its pipe. */
static pid_t start_worker(const char *dir, unsigned seed, int *ret_fd)
{
	int fds[2];
	assert_int_equal(pipe(fds), 0);
	pid_t pid = fork();
	if (pid == 0) {
		struct cache *cache;
		CHECK(cache_open(dir, LIMIT, &cache) == 0);
		for (;;) {
			CHECK(one_step(cache, &seed) >= 0);
			CHECK(write(fds[1], "", 1) == 1);
		}
	}
	close(fds[1]);
	*ret_fd = fds[0];
	return pid;
}

static void test_kill_at_any_moment(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, LIMIT);
	unsigned seed = 1;
	for (unsigned round = 0; round < 40; round++) {
		pid_t pid[3];
		int fd[3];
		for (unsigned i = 0; i < ARRAY_SIZE(pid); i++)
			pid[i] = start_worker(place->cache, round * 10 + i, &fd[i]);
		for (unsigned i = 0; i < ARRAY_SIZE(pid); i++) {
			char byte;
			for (int n = rand_r(&seed) % 60; n >= 0; n--)
				assert_int_equal(read(fd[i], &byte, 1), 1);
			kill(pid[i], SIGKILL);
		}
		for (unsigned i = 0; i < ARRAY_SIZE(pid); i++) {
			assert_int_equal(WTERMSIG(wait_for(pid[i])), SIGKILL);
			close(fd[i]);
		}
		all_right(cache);
		assert_true(du(place->cache) <= LIMIT);
		/* now and then nobody has it open */
		if (round % 4 == 0) {
			cache_close(cache);
			cache = open_cache(place->cache, LIMIT);
		}
	}
	cache_sweep(cache->view);
	assert_int_equal(cache->view->table.head->busy, 0);
	uint64_t checked, dropped;
	assert_int_equal(cache_verify(cache, &checked, &dropped), 0);
	assert_true(checked > 10);
	assert_int_equal(dropped, 0);
	close_cache(cache);
}

/* du takes its time: what moves while it walks would be counted twice. False: all have ended, and
 * well; those have pid 0. */
static bool pause_all(pid_t *pid, size_t n)
{
	bool running = false;
	for (size_t i = 0; i < n; i++)
		if (pid[i])
			kill(pid[i], SIGSTOP);
	for (size_t i = 0; i < n; i++) {
		int status = 0;
		if (!pid[i])
			continue;
		while (waitpid(pid[i], &status, WUNTRACED) < 0)
			assert_int_equal(errno, EINTR);
		if (WIFSTOPPED(status)) {
			running = true;
			continue;
		}
		assert_int_equal(status, 0);
		pid[i] = 0;
	}
	return running;
}

static void test_limit_under_load(void **state)
{
	const struct place *place = *state;
	pid_t pid[4];
	uint64_t most = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(pid); i++) {
		pid[i] = fork();
		if (pid[i] == 0) {
			struct cache *cache;
			unsigned seed = i;
			CHECK(cache_open(place->cache, LIMIT, &cache) == 0);
			for (int n = 0; n < 1500; n++)
				CHECK(one_step(cache, &seed) >= 0);
			cache_close(cache);
			_exit(0);
		}
	}
	for (bool running = true; running;) {
		running = pause_all(pid, ARRAY_SIZE(pid));
		most = MAX(most, du(place->cache));
		for (unsigned i = 0; i < ARRAY_SIZE(pid); i++)
			if (pid[i])
				kill(pid[i], SIGCONT);
	}
	assert_true(most <= LIMIT);
	assert_true(most > LIMIT / 2);
	struct cache *cache = open_cache(place->cache, LIMIT);
	all_right(cache);
	close_cache(cache);
}

/* --- a process that died half way --- */

static void die_inside(const struct place *place)
{
	struct cache *cache;
	CHECK(cache_open(place->cache, LIMIT, &cache) == 0);
	CHECK(cache_view_lock(cache->view) == 0);
	struct cache_head *head = cache->view->table.head;
	/* the LRU list cut in two, an entry half published, sums off */
	struct cache_entry *entry = cache_table_at(&cache->view->table, 3);
	CHECK(entry->state == CACHE_LIVE);
	cache_table_at(&cache->view->table, entry->next)->prev = 0;
	head->lru_list.first = 3;
	cache_table_at(&cache->view->table, 5)->block = 77;
	head->used_pages += 5;
	cache->view->table.bucket[1] = 4;
	_exit(0);
}

static void test_died_inside(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, LIMIT);
	struct cache_id id = id_of(CACHE_BLOB, 1);
	for (uint32_t i = 0; i < 10; i++)
		assert_int_equal(put_block(cache, &id, i, 9000, 0), 0);
	assert_int_equal(in_child(die_inside, place), 0);
	assert_int_equal(cache_check(cache), 0);
	unsigned found = 0;
	for (uint32_t i = 0; i < 100; i++) {
		int is = look(cache, &id, i, 9000, 0);
		assert_true(is >= 0);
		found += (unsigned)is;
	}
	assert_int_equal(found, 9);
	cache_sweep(cache->view);
	assert_int_equal(cache->view->table.head->busy, 0);
	close_cache(cache);
}

static void die_writing(const struct place *place)
{
	struct cache *cache;
	struct cache_hit hit[3];
	char *data = calloc(1, CACHE_BLOCK);
	CHECK(cache_open(place->cache, LIMIT, &cache) == 0);
	for (unsigned i = 0; i < 3; i++) {
		struct cache_entry want = {.kind = i ? CACHE_BLOB : CACHE_INDEX,
					   .block = i,
					   .len = CACHE_BLOCK,
					   .pages = CACHE_BLOCK_PAGES};
		CHECK(cache_reserve(cache->view, &want, &hit[i]) == 0);
		CHECK(cache_disk_write(cache->view, &hit[i], data) == 0);
	}
	struct cache_batch batch = {0};
	CHECK(cache_view_lock(cache->view) == 0);
	cache_table_doom(&cache->view->table, hit[2].index, cache->view->owner, &batch);
	cache_view_unlock(cache->view);
	_exit(0);
}

static void test_died_writing(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, LIMIT);
	uint64_t empty = du(place->cache);
	assert_int_equal(in_child(die_writing, place), 0);
	assert_int_equal(cache_check(cache), 0);
	assert_int_equal(cache->view->table.head->busy, 3);
	assert_true(du(place->cache) >= empty + 3 * CACHE_BLOCK);
	look_again(cache);
	struct cache_id id = id_of(CACHE_BLOB, 1);
	assert_int_equal(put_block(cache, &id, 0, 10, 0), 0);
	assert_int_equal(cache->view->table.head->busy, 0);
	assert_true(du(place->cache) <= empty + 4 * CACHE_PAGE);
	close_cache(cache);
}

static void sweep_beside(const struct place *place)
{
	struct cache *cache;
	CHECK(cache_open(place->cache, LIMIT, &cache) == 0);
	cache_sweep(cache->view);
	cache_close(cache);
}

static void test_living_writer_is_left_alone(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, LIMIT);
	struct cache_entry want = {.kind = CACHE_BLOB, .len = 5, .pages = 1};
	struct cache_batch batch = {0};
	struct cache_hit hit;
	want.crc = cache_crc("hello", 5);
	assert_int_equal(cache_reserve(cache->view, &want, &hit), 0);
	assert_int_equal(in_child(sweep_beside, place), 0);
	assert_int_equal(cache_disk_write(cache->view, &hit, "hello"), 0);
	assert_int_equal(cache_view_lock(cache->view), 0);
	int err = cache_table_publish(&cache->view->table, &hit, cache->view->owner, &batch);
	cache_view_unlock(cache->view);
	assert_int_equal(err, 0);
	struct cache_id id = {.kind = CACHE_BLOB};
	assert_true(cache_has(cache, &id, 0));
	close_cache(cache);
}

/* Lists that end in the middle, or go round for ever. */
static void test_lists_lead_astray(void **state)
{
	const struct place *place = *state;
	struct cache_id id = id_of(CACHE_BLOB, 1);
	for (int how = 0; how < 4; how++) {
		struct cache *cache = open_cache(place->cache, LIMIT);
		struct cache_table *table = &cache->view->table;
		for (uint32_t i = 0; i < 30; i++)
			assert_int_equal(put_block(cache, &id, i, 100, 0), 0);
		assert_int_equal(cache_view_lock(cache->view), 0);
		uint32_t last = table->head->lru_list.last;
		if (how == 0) /* to an entry that was never used */
			table->head->lru_list.last = table->n;
		else if (how == 1)
			table->head->lru_list.last = UINT32_MAX;
		else if (how == 2)
			table->entry[last - 1].prev = last;
		else
			for (uint32_t i = 0; i < table->n; i++)
				table->bucket[i] = last;
		table->entry[last - 1].hash_next = last;
		cache_view_unlock(cache->view);
		for (uint32_t i = 0; i < 30; i++)
			assert_true(look(cache, &id, i, 100, 0) >= 0);
		assert_int_equal(cache_prune(cache, 0), 0);
		for (uint32_t i = 0; i < 30; i++)
			assert_int_equal(put_block(cache, &id, i, 100, 0), 0);
		assert_int_equal(cache_prune(cache, 0), 0);
		close_cache(cache);
	}
}

/* --- the machine went down --- */

static void edit_head(const struct place *place, size_t at, uint64_t value, size_t len)
{
	AUTO_FREE char *path = format("%s/table", place->cache);
	int fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, &value, len, (off_t)at), (ssize_t)len);
	close(fd);
}

static void test_reboot(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, LIMIT);
	struct cache_id id = id_of(CACHE_BLOB, 1), file = id_of(CACHE_NAME, 2);
	for (uint32_t i = 0; i < 12; i++)
		assert_int_equal(put_block(cache, &id, i, 20000, i == 4 ? 9 : 0), 0);
	assert_int_equal(put_file(cache, &file, 0, 100), 0);
	for (uint32_t i = 1; i <= 12; i++) /* used in this order: 6, 5, …, 12, …, 7 */
		cache->view->table.entry[i - 1].stamp = i <= 6 ? 100 - i : 200 - i;
	/* the head is older than the entries, one entry is torn, one was lost */
	cache->view->table.entry[7].block = 70;
	memset(&cache->view->table.entry[8], 0, sizeof(struct cache_entry));
	cache_close(cache);
	edit_head(place, offsetof(struct cache_head, fresh), 2, 4);
	edit_head(place, offsetof(struct cache_head, gen), 1, 8);
	edit_head(place, offsetof(struct cache_head, boot), 1, 8);
	AUTO_FREE char *stray = format("%s/files/name/%064d-%016d", place->cache, 0, 0);
	int fd = open(stray, O_RDWR | O_CREAT, 0600);
	assert_true(fd >= 0);
	close(fd);

	cache = open_cache(place->cache, LIMIT);
	assert_int_equal(cache_check(cache), 0);
	assert_int_equal(access(stray, F_OK), -1);
	assert_int_equal(cache->view->table.head->busy, 0);
	assert_int_equal(look_file(cache, &file, 0, 100), 1);
	struct stat st;
	assert_int_equal(fstat(cache->view->arena_fd, &st), 0);
	assert_int_equal(cache->view->table.head->blocks, 9);
	assert_true(st.st_blocks * 512 <= 9 * 20480 + 4096);
	/* the order of use is known from the stamps */
	uint32_t last = cache->view->table.head->lru_list.last;
	assert_int_equal(cache->view->table.entry[last - 1].block, 5);
	for (uint32_t i = 0; i < 12; i++)
		assert_int_equal(look(cache, &id, i, 20000, 9), i != 4 && i != 7 && i != 8);
	for (uint32_t i = 0; i < 12; i++)
		assert_int_equal(put_block(cache, &id, i, 20000, 0), 0);
	close_cache(cache);
}

static void test_another_version(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, LIMIT);
	struct cache_id id = id_of(CACHE_BLOB, 1);
	assert_int_equal(put_block(cache, &id, 0, 100, 0), 0);
	edit_head(place, offsetof(struct cache_head, version), 99, 4);
	struct cache *second = open_cache(place->cache, LIMIT);
	assert_int_equal(put_block(second, &id, 1, 100, 0), -ENOSPC);
	assert_int_equal(look(second, &id, 0, 100, 0), 0);
	assert_int_equal(look(cache, &id, 0, 100, 0), 1);
	cache_close(second);
	cache_close(cache);
	cache = open_cache(place->cache, LIMIT);
	assert_int_equal(look(cache, &id, 0, 100, 0), 0);
	assert_int_equal(put_block(cache, &id, 0, 100, 0), 0);
	close_cache(cache);
}

/* --- fork --- */

static struct cache *inherited;

static void use_inherited(const struct place *place)
{
	unsigned seed = 77;
	(void)place;
	for (int i = 0; i < 600; i++)
		CHECK(one_step(inherited, &seed) >= 0);
	CHECK(cache_check(inherited) == 0);
}

/* The child holds the lock until it is told to go on. */
static pid_t hold_lock(int *ret_held, int *ret_go_on)
{
	int held[2], go_on[2];
	char byte;
	assert_int_equal(pipe(held) | pipe(go_on), 0);
	pid_t pid = fork();
	if (pid == 0) {
		close(go_on[1]);
		CHECK(cache_view_lock(inherited->view) == 0);
		CHECK(write(held[1], "", 1) == 1);
		CHECK(read(go_on[0], &byte, 1) == 0);
		cache_view_unlock(inherited->view);
		_exit(0);
	}
	close(held[1]);
	close(go_on[0]);
	*ret_held = held[0];
	*ret_go_on = go_on[1];
	return pid;
}

static void test_fork_after_open(void **state)
{
	const struct place *place = *state;
	unsigned seed = 78;
	char byte;
	int held, go_on;
	inherited = open_cache(place->cache, LIMIT);
	assert_true(one_step(inherited, &seed) >= 0);
	/* parent and child keep each other out */
	pid_t pid = hold_lock(&held, &go_on);
	assert_int_equal(read(held, &byte, 1), 1);
	int fd = inherited->view->lock_fd;
	assert_int_equal(cache_lock_byte(fd, F_WRLCK, CACHE_LOCK_TABLE, 0), -EAGAIN);
	close(go_on);
	close(held);
	assert_int_equal(wait_for(pid), 0);
	/* and get on with each other */
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		use_inherited(place);
		_exit(0);
	}
	for (int i = 0; i < 600; i++)
		assert_true(one_step(inherited, &seed) >= 0);
	assert_int_equal(wait_for(pid), 0);
	all_right(inherited);
	close_cache(inherited);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, place_setup, place_teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_kill_at_any_moment),
		TEST(test_limit_under_load),
		TEST(test_died_inside),
		TEST(test_died_writing),
		TEST(test_living_writer_is_left_alone),
		TEST(test_lists_lead_astray),
		TEST(test_reboot),
		TEST(test_another_version),
		TEST(test_fork_after_open),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
