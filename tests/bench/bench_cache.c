/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_cache: the cache's bookkeeping when it is full of small blocks, whose bytes are left out.
 *
 *   bench_cache DIR GIB     one line of JSON: what finding and replacing a block costs, and opening
 *                           the cache, also after a restart of the machine
 *
 * Fills the table of a cache directory made for that limit, as a process that has it open alone
 * would.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../src/cache_priv.h"

#define OWNER  1
#define ROUNDS 200000
#define LEN    3000 /* bytes of a small block */
#define FACTOR 2654435761u

struct mapped {
	void *map;
	size_t len;
	struct cache_table table;
};

static double now_s(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static bool table_map(const char *dir, struct mapped *ret)
{
	AUTO_FREE char *path = format("%s/table", dir);
	AUTO_CLOSE int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	struct stat stat;
	if (fd < 0 || fstat(fd, &stat))
		return false;
	ret->len = (size_t)stat.st_size;
	ret->map = mmap(NULL, ret->len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (ret->map == MAP_FAILED)
		return false;
	cache_table_init(&ret->table, ret->map, ((struct cache_head *)ret->map)->n);
	return true;
}

static struct cache_entry block_of(uint32_t number)
{
	struct cache_entry entry = {
		.kind = CACHE_CHUNK, .len = LEN, .pages = cache_pages(LEN), .crc = number};
	uint64_t hash = hash64(0, &number, sizeof(number));
	for (size_t i = 0; i < sizeof(entry.key); i += sizeof(hash))
		memcpy(entry.key + i, &hash, MIN(sizeof(hash), sizeof(entry.key) - i));
	return entry;
}

/* Block NUMBER comes in; where the table is full, the least recently used gives way. */
static bool bring_in(struct cache_table *table, uint32_t number)
{
	struct cache_entry want = block_of(number);
	struct cache_batch batch = {0};
	struct cache_hit hit;
	return cache_table_reserve(table, &want, OWNER, &batch, &hit) == 0 &&
	       cache_table_publish(table, &hit, OWNER, &batch) == 0 && batch.len == 0;
}

static bool find(struct cache_table *table, uint32_t number)
{
	struct cache_entry entry = block_of(number);
	struct cache_id id;
	cache_entry_id(&entry, &id);
	uint32_t index = cache_table_find(table, &id, 0, 0);
	if (index)
		cache_table_touch(table, index);
	return index != 0;
}

/* Nanoseconds for each of the two; blocks 0 … n - 1 are there. */
static bool measure(struct cache_table *table, double *ret_find, double *ret_replace)
{
	bool ok = true;
	double start = now_s();
	for (uint32_t i = 0; ok && i < ROUNDS; i++)
		ok = find(table, i * FACTOR % table->n);
	double middle = now_s();
	for (uint32_t i = 0; ok && i < ROUNDS; i++)
		ok = bring_in(table, table->n + i);
	*ret_find = (middle - start) / ROUNDS * 1e9;
	*ret_replace = (now_s() - middle) / ROUNDS * 1e9;
	return ok;
}

static bool timed_open(const char *dir, uint64_t limit, double *ret_ms)
{
	struct cache *cache = NULL;
	double start = now_s();
	int err = cache_open(dir, limit, &cache);
	*ret_ms = (now_s() - start) * 1000;
	cache_close(cache);
	return err == 0;
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	const char *dir = argv[1];
	uint64_t limit = strtoull(argv[2], NULL, 10) << 30;
	double made_ms, open_ms, reboot_ms, find_ns, replace_ns;
	struct mapped mapped;
	if (!timed_open(dir, limit, &made_ms) || !table_map(dir, &mapped))
		return 1;
	uint32_t n = mapped.table.n;
	for (uint32_t i = 0; i < n; i++) {
		if (!bring_in(&mapped.table, i))
			return 1;
	}
	if (!measure(&mapped.table, &find_ns, &replace_ns) || !timed_open(dir, limit, &open_ms))
		return 1;
	mapped.table.head->boot = 0;
	if (!timed_open(dir, limit, &reboot_ms) || mapped.table.head->live != n)
		return 1;
	printf("{\"entries\": %u, \"find_ns\": %.0f, \"replace_ns\": %.0f, \"make_ms\": %.1f, "
	       "\"open_ms\": %.1f, \"reboot_ms\": %.1f}\n",
	       n, find_ns, replace_ns, made_ms, open_ms, reboot_ms);
	munmap(mapped.map, mapped.len);
	return 0;
}
