// SPDX-License-Identifier: Apache-2.0
/*
 * test_cache_disk: files that are damaged, cut short or deleted under the cache, and disks that are
 * full or unusable. A read is right or a miss, and nothing ends the process.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>

#include "cache_help.h"

/* --- damage --- */

static void test_damaged_bytes(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, LIMIT);
	struct cache_id id = id_of(CACHE_BLOB, 1), file = id_of(CACHE_SUMS, 1);
	AUTO_FREE char *arena = format("%s/arena", place->cache);
	int64_t corrupt = stats_get(STAT_CACHE_CORRUPT);
	char byte;
	/* a byte of a block: also when another part of it is asked for */
	assert_int_equal(put_block(cache, &id, 0, 50000, 0), 0);
	assert_int_equal(put_block(cache, &id, 1, 50000, 0), 0);
	scribble(arena, slot_offset(cache, &id, 0) + 40000, "x!");
	assert_int_equal(cache_read(cache, &id, 0, 0, &byte, 1, 0), -ENOENT);
	assert_false(cache_has(cache, &id, 0));
	assert_int_equal(look(cache, &id, 1, 50000, 0), 1);
	assert_int_equal(stats_get(STAT_CACHE_CORRUPT), corrupt + 1);
	/* files: a byte, a byte less, gone, a directory, a link */
	for (int how = 0; how < 5; how++) {
		struct cache_map map;
		assert_int_equal(put_file(cache, &file, 0, 5000), 0);
		AUTO_FREE char *path = file_path(cache, &file);
		if (how == 0)
			scribble(path, 4000, "x!");
		if (how == 1)
			assert_int_equal(truncate(path, 4999), 0);
		if (how >= 2)
			assert_int_equal(unlink(path), 0);
		if (how == 3)
			assert_int_equal(mkdir(path, 0700), 0);
		if (how == 4)
			assert_int_equal(symlink("/dev/zero", path), 0);
		if (how % 2)
			assert_int_equal(cache_map(cache, &file, &map), -ENOENT);
		assert_int_equal(look_file(cache, &file, 0, 5000), 0);
		assert_int_equal(stats_get(STAT_CACHE_CORRUPT), corrupt + 2 + how);
		assert_int_equal(cache_check(cache), 0);
	}
	close_cache(cache);
}

static void test_verify(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, LIMIT);
	struct cache_id id = id_of(CACHE_BLOB, 1), file = id_of(CACHE_INDEX, 1);
	AUTO_FREE char *arena = format("%s/arena", place->cache);
	uint64_t checked, dropped;
	for (uint32_t i = 0; i < 60; i++)
		assert_int_equal(put_block(cache, &id, i, 1000, 0), 0);
	assert_int_equal(put_file(cache, &file, 0, 10000), 0);
	assert_int_equal(cache_verify(cache, &checked, &dropped), 0);
	assert_int_equal(checked, 61);
	assert_int_equal(dropped, 0);
	scribble(arena, slot_offset(cache, &id, 50), "x");
	AUTO_FREE char *path = file_path(cache, &file);
	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(cache_verify(cache, &checked, &dropped), 0);
	assert_int_equal(dropped, 2);
	assert_false(cache_has(cache, &id, 50));
	close_cache(cache);
}

/* Another process was stopped with the table locked: what can be told without the lock is there,
 * the rest is a miss at once, and all is as before when it goes on. */
static void test_stopped_holder(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, LIMIT);
	struct cache_id id = id_of(CACHE_BLOB, 1);
	AUTO_FREE char *table = format("%s/table", place->cache);
	assert_int_equal(put_block(cache, &id, 0, 50000, 0), 0);
	int fd = open(table, O_RDWR | O_CLOEXEC);
	assert_int_equal(cache_lock_byte(fd, F_WRLCK, CACHE_LOCK_TABLE, 0), 0);
	cache->view->lock_ms = 20;
	assert_true(put_block(cache, &id, 1, 50000, 0) < 0);
	cache->view->lock_ms = INT32_MAX; /* nobody waits a second time */
	assert_int_equal(look(cache, &id, 0, 50000, 0), 1);
	assert_int_equal(look(cache, &id, 1, 50000, 0), 0);
	assert_true(put_block(cache, &id, 1, 50000, 0) < 0);
	close(fd);
	assert_int_equal(put_block(cache, &id, 1, 50000, 0), 0);
	assert_int_equal(look(cache, &id, 1, 50000, 0), 1);
	assert_int_equal(cache_check(cache), 0);
	close_cache(cache);
}

/* Anything may stand in the table: no crash, no endless walk, no wrong byte. */
static void test_scribbled_table(void **state)
{
	const struct place *place = *state;
	AUTO_FREE char *table = format("%s/table", place->cache);
	unsigned seed = 5;
	for (int round = 0; round < 60; round++) {
		struct cache *cache = open_cache(place->cache, LIMIT);
		for (int i = 0; i < 60; i++)
			assert_true(one_step(cache, &seed) >= 0);
		for (int i = 0; i < 30; i++) {
			off_t at = rand_r(&seed) % (i % 2 ? 4096 + 60 * 104 : 60000);
			char byte[2] = {(char)rand_r(&seed), 0};
			/* not the number of entries, nor the fixed part before it */
			if (at >= 40 && byte[0])
				scribble(table, at, byte);
			assert_true(one_step(cache, &seed) >= 0);
		}
		for (int i = 0; i < 60; i++)
			assert_true(one_step(cache, &seed) >= 0);
		cache_close(cache);
	}
}

/* --- files cut short, deleted, replaced --- */

static struct sigaction guard;

/* cmocka has its own handler for each test; regfs has nobody who takes the guard's place. */
static void install_guard(void)
{
	bool *broken = cache_guard_add(&guard, 1, PROT_READ);
	sigaction(SIGBUS, NULL, &guard);
	cache_guard_remove(broken);
}

static void test_map_cut_short(void **state)
{
	const struct place *place = *state;
	sigaction(SIGBUS, &guard, NULL);
	struct cache *cache = open_cache(place->cache, LIMIT);
	struct cache_id id = id_of(CACHE_INDEX, 1), other = id_of(CACHE_INDEX, 2);
	struct cache_map map, sound;
	assert_int_equal(put_file(cache, &id, 0, 100000), 0);
	assert_int_equal(put_file(cache, &other, 0, 100000), 0);
	assert_int_equal(cache_map(cache, &id, &map), 0);
	assert_int_equal(cache_map(cache, &other, &sound), 0);
	AUTO_FREE char *path = file_path(cache, &id);
	assert_int_equal(truncate(path, 5000), 0);
	for (size_t i = 8192; i < map.len; i++)
		assert_int_equal(map.data[i], 0);
	assert_true(*map.broken);
	assert_false(*sound.broken);
	cache_unmap(&map);
	cache_unmap(&sound);
	close_cache(cache);
}

static void on_bus(int sig)
{
	(void)sig;
	_exit(43);
}

/* A map that nobody guards, of a file that is too short. */
static volatile const char *unguarded(const struct place *place)
{
	AUTO_FREE char *path = format("%s/short", place->dir);
	int fd = open(path, O_RDWR | O_CREAT, 0600);
	CHECK(fd >= 0);
	char *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(map != MAP_FAILED);
	return map;
}

static void fault(const struct place *place)
{
	volatile const char *map = unguarded(place);
	struct cache *cache;
	CHECK(cache_open(place->cache, LIMIT, &cache) == 0);
	(void)map[0];
}

static void foreign_handler(const struct place *place)
{
	signal(SIGBUS, on_bus);
	fault(place);
}

static void foreign_fault(const struct place *place)
{
	signal(SIGBUS, SIG_DFL);
	fault(place);
}

/* In a group of its own: the guard must not be there yet when the children start. */
static void test_foreign_sigbus(void **state)
{
	const struct place *place = *state;
	assert_int_equal(in_child(foreign_handler, place), 43);
	assert_int_equal(in_child(foreign_fault, place), -SIGBUS);
}

static void test_table_cut_short(void **state)
{
	const struct place *place = *state;
	sigaction(SIGBUS, &guard, NULL);
	AUTO_FREE char *table = format("%s/table", place->cache);
	struct cache_id id = id_of(CACHE_BLOB, 1);
	unsigned seed = 3;
	static const off_t lens[] = {0, 100, 4096, 9000};
	for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
		struct cache *cache = open_cache(place->cache, LIMIT);
		struct cache *second = open_cache(place->cache, LIMIT);
		for (int n = 0; n < 50; n++)
			assert_true(one_step(cache, &seed) >= 0);
		assert_int_equal(truncate(table, lens[i]), 0);
		for (int n = 0; n < 50; n++)
			assert_true(one_step(n % 2 ? cache : second, &seed) >= 0);
		look_again(cache);
		look_again(second);
		assert_int_equal(put_block(cache, &id, 1000, 100, 0), 0);
		look_again(second); /* it may have been made again by the other */
		assert_int_equal(put_block(second, &id, 1001, 100, 0), 0);
		assert_int_equal(look(second, &id, 1000, 100, 0), 1);
		cache_close(second);
		close_cache(cache);
	}
}

static void cut_arena(const struct place *place)
{
	AUTO_FREE char *path = format("%s/arena", place->cache);
	assert_int_equal(truncate(path, 5 * CACHE_BLOCK), 0);
}

static void remove_arena(const struct place *place)
{
	AUTO_FREE char *path = format("%s/arena", place->cache);
	assert_int_equal(unlink(path), 0);
}

static void remove_files(const struct place *place)
{
	AUTO_FREE char *path = format("%s/files", place->cache);
	remove_tree(path);
}

static void remove_kind(const struct place *place)
{
	AUTO_FREE char *path = format("%s/files/index", place->cache);
	remove_tree(path);
}

static void remove_everything(const struct place *place)
{
	remove_tree(place->cache);
}

static void replace_everything(const struct place *place)
{
	AUTO_FREE char *aside = format("%s/aside", place->dir);
	remove_tree(aside);
	assert_int_equal(rename(place->cache, aside), 0);
	close_cache(open_cache(place->cache, LIMIT));
}

static void test_deleted_under_use(void **state)
{
	const struct place *place = *state;
	static void (*const how[])(const struct place *) = {
		cut_arena,   remove_arena,	remove_files,
		remove_kind, remove_everything, replace_everything,
	};
	unsigned seed = 9;
	for (size_t i = 0; i < ARRAY_SIZE(how); i++) {
		struct cache *cache = open_cache(place->cache, LIMIT);
		struct cache_id keep = id_of(CACHE_INDEX, 100), id = id_of(CACHE_BLOB, 100);
		struct cache_map map;
		assert_int_equal(put_file(cache, &keep, 0, 50000), 0);
		assert_int_equal(cache_map(cache, &keep, &map), 0);
		for (int n = 0; n < 60; n++)
			assert_true(one_step(cache, &seed) >= 0);
		how[i](place);
		for (int n = 0; n < 60; n++)
			assert_true(one_step(cache, &seed) >= 0);
		look_again(cache);
		assert_int_equal(put_block(cache, &id, 7, 100, 0), 0);
		assert_int_equal(put_file(cache, &keep, 1, 100), 0);
		assert_true(cache_view_current(cache->view));
		struct cache *second = open_cache(place->cache, LIMIT);
		assert_int_equal(look(second, &id, 7, 100, 0), 1);
		assert_int_equal(look_file(second, &keep, 1, 100), 1);
		cache_close(second);
		all_right(cache);
		assert_false(*map.broken);
		assert_int_equal(cache_crc(map.data, map.len) != 0, 1);
		cache_unmap(&map);
		assert_true(du(place->cache) <= LIMIT);
		close_cache(cache);
	}
}

static void test_process_outlives_its_directory(void **state)
{
	const struct place *place = *state;
	AUTO_FREE char *was = getcwd(NULL, 0);
	assert_int_equal(chdir(place->dir), 0);
	struct cache *cache = open_cache("cache", LIMIT);
	assert_int_equal(chdir("/"), 0);
	remove_everything(place);
	look_again(cache);
	struct cache_id id = id_of(CACHE_BLOB, 1);
	assert_int_equal(put_block(cache, &id, 0, 10, 0), 0);
	assert_int_equal(access(place->cache, F_OK), 0);
	assert_int_equal(chdir(was), 0);
	close_cache(cache);
}

/* Nothing can be written or punched any more: what is there stays readable. */
static void test_nothing_can_be_removed(void **state)
{
	const struct place *place = *state;
	struct cache *cache = open_cache(place->cache, LIMIT);
	struct cache_id id = id_of(CACHE_BLOB, 1);
	AUTO_FREE char *arena = format("%s/arena", place->cache);
	struct cache_info before, after;
	for (uint32_t i = 0; i < 400; i++)
		assert_int_equal(put_block(cache, &id, i, 9000, 0), 0);
	cache_info(cache, &before);
	AUTO_CLOSE int read_only = open(arena, O_RDONLY), kept = dup(cache->view->arena_fd);
	assert_int_equal(dup2(read_only, cache->view->arena_fd), cache->view->arena_fd);
	assert_true(put_block(cache, &id, 1000, CACHE_BLOCK, 0) < 0);
	assert_true(cache_prune(cache, 0) < 0);
	cache_info(cache, &after);
	assert_in_range(after.blocks, before.blocks - 2 * CACHE_BATCH, before.blocks);
	assert_int_equal(after.used_bytes, before.used_bytes);
	assert_int_equal(look(cache, &id, 399, 9000, 0), 1);
	assert_int_equal(cache_check(cache), 0);
	/* until it works again */
	assert_int_equal(dup2(kept, cache->view->arena_fd), cache->view->arena_fd);
	look_again(cache);
	assert_int_equal(put_block(cache, &id, 1000, CACHE_BLOCK, 0), 0);
	assert_int_equal(cache->view->table.head->busy, 0);
	close_cache(cache);
}

struct worker {
	struct cache *cache;
	unsigned seed;
	bool wrong;
	atomic_bool *stop;
};

static void *work(void *arg)
{
	struct worker *worker = arg;
	while (!atomic_load(worker->stop))
		if (one_step(worker->cache, &worker->seed) < 0)
			worker->wrong = true;
	return NULL;
}

/* Threads in the middle of calls, while everything is taken away again and again. */
static void test_deleted_under_threads(void **state)
{
	const struct place *place = *state;
	sigaction(SIGBUS, &guard, NULL);
	struct cache *cache = open_cache(place->cache, LIMIT);
	struct cache_id id = id_of(CACHE_BLOB, 100);
	AUTO_FREE char *table = format("%s/table", place->cache);
	atomic_bool stop = false;
	pthread_t thread[4];
	struct worker worker[4];
	for (unsigned i = 0; i < ARRAY_SIZE(thread); i++) {
		worker[i] = (struct worker){.cache = cache, .seed = i, .stop = &stop};
		assert_int_equal(pthread_create(&thread[i], NULL, work, &worker[i]), 0);
	}
	for (uint32_t i = 0; i < 60; i++) {
		if (i % 3 == 0)
			remove_everything(place);
		else if (truncate(table, i % 3 == 1 ? 0 : 5000) < 0)
			assert_int_equal(errno, ENOENT);
		look_again(cache);
		put_block(cache, &id, i, 100, 0);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < ARRAY_SIZE(thread); i++) {
		pthread_join(thread[i], NULL);
		assert_false(worker[i].wrong);
	}
	look_again(cache);
	atomic_store(&cache->off_until_ms, 0);
	assert_int_equal(put_block(cache, &id, 0, 100, 0), 0);
	assert_int_equal(look(cache, &id, 0, 100, 0), 1);
	all_right(cache);
	close_cache(cache);
}

/* --- full and unusable disks --- */

/* A small file system of our own, which goes with the process. */
static void small_disk(const struct place *place)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("tmpfs", place->dir, "tmpfs", 0, "size=4m") < 0)
		_exit(SKIPPED);
}

static void fill_disk(const struct place *place, const char *name)
{
	char path[512], zeros[4096] = {0};
	snprintf(path, sizeof(path), "%s/%s", place->dir, name);
	int fd = open(path, O_WRONLY | O_CREAT, 0600);
	CHECK(fd >= 0);
	while (write(fd, zeros, sizeof(zeros)) > 0)
		;
	close(fd);
}

static void empty_disk(const struct place *place, const char *name)
{
	char path[512];
	snprintf(path, sizeof(path), "%s/%s", place->dir, name);
	CHECK(unlink(path) == 0);
}

static void disk_fills(const struct place *place)
{
	struct cache *cache;
	struct cache_info info;
	struct cache_id id = id_of(CACHE_BLOB, 1), file = id_of(CACHE_INDEX, 1);
	small_disk(place);
	CHECK(cache_open(place->cache, 64 * MIB, &cache) == 0);
	CHECK(put_block(cache, &id, 0, CACHE_BLOCK, 0) == 0);
	fill_disk(place, "big");
	int err = put_block(cache, &id, 1, CACHE_BLOCK, 0);
	CHECK(err == -ENOSPC);
	cache_info(cache, &info);
	CHECK(!info.writable);
	CHECK(info.blocks == 1);
	CHECK(look(cache, &id, 0, CACHE_BLOCK, 0) == 1);
	CHECK(look(cache, &id, 1, CACHE_BLOCK, 0) == 0);
	empty_disk(place, "big");
	CHECK(put_block(cache, &id, 1, CACHE_BLOCK, 0) == -ENOSPC); /* not so soon */
	atomic_store(&cache->off_until_ms, 0);
	CHECK(put_block(cache, &id, 1, CACHE_BLOCK, 0) == 0);
	fill_disk(place, "big");
	CHECK(put_file(cache, &file, 0, 100000) == -ENOSPC);
	CHECK(cache_check(cache) == 0);
	CHECK(cache->view->table.head->busy == 0);
	/* eviction needs no room */
	CHECK(cache_prune(cache, 0) == 0);
	cache_info(cache, &info);
	CHECK(info.entries == 0);
	cache_close(cache);
}

static void disk_is_full(const struct place *place)
{
	struct cache *cache;
	struct cache_id id = id_of(CACHE_BLOB, 1);
	small_disk(place);
	fill_disk(place, "big");
	CHECK(cache_open(place->cache, 64 * MIB, &cache) == 0);
	CHECK(put_block(cache, &id, 0, 100, 0) == -ENOSPC);
	CHECK(look(cache, &id, 0, 100, 0) == 0);
	CHECK(!cache_has(cache, &id, 0));
	CHECK(cache_check(cache) == 0);
	CHECK(cache_prune(cache, 0) == 0);
	empty_disk(place, "big");
	look_again(cache);
	CHECK(put_block(cache, &id, 0, 100, 0) == 0);
	CHECK(look(cache, &id, 0, 100, 0) == 1);
	cache_close(cache);
}

/* The limit is larger than the disk: it fills while the table is in use. */
static void disk_smaller_than_limit(const struct place *place)
{
	struct cache *cache;
	unsigned seed = 4;
	small_disk(place);
	CHECK(cache_open(place->cache, 5 * MIB, &cache) == 0);
	for (int i = 0; i < 3000; i++) {
		CHECK(one_step(cache, &seed) >= 0);
		if (i % 7 == 0)
			atomic_store(&cache->off_until_ms, 0);
	}
	CHECK(cache_check(cache) == 0);
	cache_close(cache);
}

static void test_full_disk(void **state)
{
	static void (*const how[])(const struct place *) = {disk_fills, disk_is_full,
							    disk_smaller_than_limit};
	for (size_t i = 0; i < ARRAY_SIZE(how); i++) {
		int status = in_child(how[i], *state);
		if (status == SKIPPED)
			skip();
		assert_int_equal(status, 0);
	}
}

static void as_nobody(const struct place *place)
{
	struct cache *cache = NULL;
	char path[512];
	if (setgid(65534) < 0 || setuid(65534) < 0)
		_exit(SKIPPED);
	CHECK(cache_open(place->cache, LIMIT, &cache) == -EACCES);
	snprintf(path, sizeof(path), "%s/new/cache", place->dir);
	CHECK(cache_open(path, LIMIT, &cache) == -EACCES);
	CHECK(cache == NULL);
}

static void test_unusable(void **state)
{
	const struct place *place = *state;
	struct cache *cache = NULL;
	close(open(place->cache, O_CREAT | O_WRONLY, 0600));
	int err = cache_open(place->cache, LIMIT, &cache);
	assert_true(err == -ENOTDIR || err == -EEXIST);
	assert_null(cache);
	AUTO_FREE char *below = format("%s/below", place->cache);
	assert_int_equal(cache_open(below, LIMIT, &cache), -ENOTDIR);
	/* a directory that others may write is closed to them, another user's is refused */
	assert_int_equal(unlink(place->cache), 0);
	assert_int_equal(mkdir(place->cache, 0777), 0);
	close_cache(open_cache(place->cache, LIMIT));
	struct stat st;
	assert_int_equal(stat(place->cache, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(chmod(place->cache, 0777), 0);
	assert_int_equal(chmod(place->dir, 0755), 0);
	int status = in_child(as_nobody, place);
	assert_true(status == 0 || status == SKIPPED);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, place_setup, place_teardown)
	const struct CMUnitTest before[] = {TEST(test_foreign_sigbus)};
	const struct CMUnitTest tests[] = {
		TEST(test_damaged_bytes),
		TEST(test_verify),
		TEST(test_stopped_holder),
		TEST(test_scribbled_table),
		TEST(test_map_cut_short),
		TEST(test_table_cut_short),
		TEST(test_deleted_under_use),
		TEST(test_deleted_under_threads),
		TEST(test_nothing_can_be_removed),
		TEST(test_process_outlives_its_directory),
		TEST(test_full_disk),
		TEST(test_unusable),
	};
	int failed = cmocka_run_group_tests(before, NULL, NULL);
	install_guard();
	return failed + cmocka_run_group_tests(tests, NULL, NULL);
}
