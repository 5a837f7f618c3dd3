// SPDX-License-Identifier: Apache-2.0
/*
 * cache_check: builds the table's lists, hash and sums anew from its entries, and checks the
 * invariants of cache_priv.h.
 * Knows the mapped table. Must not know descriptors or locks: the caller holds the lock.
 */
#include <errno.h>

#include "cache_priv.h"

/* --- rebuild --- */

/* The entries to be put in order of use: the stamp above, the index below. */
struct order {
	uint64_t *item; /* NULL: no memory, the order of the entries will do */
	size_t len;
};

static void forget(struct cache_table *table)
{
	struct cache_head *head = table->head;
	head->used_pages = 0;
	head->live = head->blocks = head->files = head->busy = 0;
	head->free_first = 0;
	head->lru_list = head->busy_list = (struct cache_list){0};
	memset(table->bucket, 0, (size_t)table->n * sizeof(*table->bucket));
}

static bool is_used(const struct cache_entry *entry)
{
	return entry->state != CACHE_FREE || entry->pages != 0;
}

static bool is_whole(const struct cache_entry *entry)
{
	if (entry->state != CACHE_LIVE || !cache_entry_is_sealed(entry))
		return false;
	return cache_kind_is_file(entry->kind) || cache_kind_is_block(entry->kind);
}

static bool is_double(struct cache_table *table, const struct cache_entry *entry)
{
	struct cache_id id;
	cache_entry_id(entry, &id);
	return cache_table_find(table, &id, entry->block, entry->pass) != 0;
}

/* What is not whole is given up: its bytes are swept later. A torn entry may say anything. */
static void give_up(struct cache_entry *entry)
{
	uint32_t most = cache_kind_is_file(entry->kind) ? cache_pages(CACHE_FILE_MAX)
							: CACHE_BLOCK_PAGES;
	entry->pages = MIN(entry->pages, most);
	entry->seal = 0;
	entry->state = CACHE_DOOMED;
	entry->owner = 0;
}

static void settle_live(struct cache_table *table, uint32_t index, struct order *order)
{
	const struct cache_entry *entry = cache_table_at(table, index);
	table->head->gen = MAX(table->head->gen, entry->gen);
	cache_table_hash(table, index);
	if (order->item)
		order->item[order->len++] = (uint64_t)entry->stamp << 32 | index;
	else
		cache_table_push_lru(table, index);
}

static void settle(struct cache_table *table, uint32_t index, bool alone, struct order *order)
{
	struct cache_entry *entry = cache_table_at(table, index);
	entry->prev = entry->next = entry->hash_next = 0;
	if (!is_used(entry)) {
		cache_table_push_free(table, index);
		return;
	}
	bool keep_live = is_whole(entry) && !(alone && entry->pass) && !is_double(table, entry);
	bool keep_busy = !alone && (entry->state == CACHE_WRITING || entry->state == CACHE_DOOMED);
	if (!keep_live && !keep_busy)
		give_up(entry);
	table->head->used_pages += entry->pages;
	if (keep_live)
		settle_live(table, index, order);
	else
		cache_table_push_busy(table, index);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

/* After a crash of the machine the head may be older than the entries. */
static uint32_t last_used(const struct cache_table *table)
{
	uint32_t index = table->n;
	while (index && !is_used(cache_table_at(table, index)))
		index--;
	return index;
}

void cache_table_rebuild(struct cache_table *table, bool alone)
{
	struct cache_head *head = table->head;
	head->fresh = alone ? last_used(table) : MIN(head->fresh, table->n);
	forget(table);
	AUTO_FREE uint64_t *item = malloc(((size_t)head->fresh + 1) * sizeof(*item));
	struct order order = {.item = item};
	for (uint32_t index = head->fresh; index >= 1; index--)
		settle(table, index, alone, &order);
	if (item)
		qsort(item, order.len, sizeof(*item), by_value);
	for (size_t i = 0; i < order.len; i++)
		cache_table_push_lru(table, (uint32_t)(item[i] & UINT32_MAX));
	head->suspect = 0;
}

/* --- check --- */

/* What a walk has seen: a byte an entry. */
struct walk {
	const struct cache_table *table;
	uint8_t *seen;
	const char *why;
};

static bool wrong(struct walk *walk, const char *why)
{
	walk->why = why;
	return false;
}

static const struct cache_entry *step(struct walk *walk, uint32_t index)
{
	const struct cache_entry *entry = cache_table_at(walk->table, index);
	if (!entry || index > walk->table->head->fresh) {
		wrong(walk, "a list leads out of the table");
		return NULL;
	}
	if (walk->seen[index]++) {
		wrong(walk, "an entry is in two lists");
		return NULL;
	}
	return entry;
}

static bool check_list(struct walk *walk, const struct cache_list *list, bool live, uint32_t count)
{
	uint32_t prev = 0, n = 0;
	for (uint32_t index = list->first; index; n++) {
		const struct cache_entry *entry = step(walk, index);
		if (!entry)
			return false;
		if (entry->prev != prev)
			return wrong(walk, "a list's links disagree");
		if (live != (entry->state == CACHE_LIVE) || entry->state == CACHE_FREE)
			return wrong(walk, "an entry is in the wrong list");
		prev = index;
		index = entry->next;
	}
	if (list->last != prev)
		return wrong(walk, "a list's end is wrong");
	return n == count || wrong(walk, "a list's count is wrong");
}

static bool check_free(struct walk *walk)
{
	for (uint32_t index = walk->table->head->free_first; index;) {
		const struct cache_entry *entry = step(walk, index);
		if (!entry)
			return false;
		if (entry->state != CACHE_FREE || entry->pages)
			return wrong(walk, "a free entry is not free");
		index = entry->next;
	}
	return true;
}

static bool same(const struct cache_entry *a, const struct cache_entry *b)
{
	return a->kind == b->kind && a->block == b->block && a->pass == b->pass &&
	       memcmp(a->key, b->key, sizeof(a->key)) == 0;
}

/* A chain is short, so that comparing each with those after it is cheap. */
static bool check_chain(struct walk *walk, uint32_t bucket, uint32_t *hashed)
{
	const struct cache_table *table = walk->table;
	const struct cache_entry *entry;
	for (uint32_t i = table->bucket[bucket]; i; i = entry->hash_next) {
		entry = cache_table_at(table, i);
		struct cache_id id;
		if (!entry || entry->state != CACHE_LIVE || ++*hashed > table->head->live)
			return wrong(walk, "the hash holds what is not live");
		cache_entry_id(entry, &id);
		if (cache_table_bucket(table, &id, entry->block) != bucket)
			return wrong(walk, "an entry is in the wrong bucket");
		for (uint32_t j = entry->hash_next, n = 0; j && n < table->n; n++) {
			const struct cache_entry *other = cache_table_at(table, j);
			if (!other || same(entry, other))
				return wrong(walk, "an entry is in the hash twice");
			j = other->hash_next;
		}
	}
	return true;
}

static bool check_hash(struct walk *walk)
{
	uint32_t hashed = 0;
	for (uint32_t bucket = 0; bucket < walk->table->n; bucket++)
		if (!check_chain(walk, bucket, &hashed))
			return false;
	return hashed == walk->table->head->live || wrong(walk, "a live entry is not in the hash");
}

static bool check_sums(struct walk *walk)
{
	const struct cache_head *head = walk->table->head;
	uint64_t pages = 0;
	uint32_t blocks = 0, files = 0;
	for (uint32_t index = 1; index <= head->fresh; index++) {
		const struct cache_entry *entry = cache_table_at(walk->table, index);
		pages += entry->pages;
		if (!walk->seen[index])
			return wrong(walk, "an entry is in no list");
		if (entry->state != CACHE_LIVE)
			continue;
		if (!cache_entry_is_sealed(entry))
			return wrong(walk, "a live entry's seal is broken");
		files += cache_kind_is_file(entry->kind);
		blocks += cache_kind_is_block(entry->kind);
	}
	if (pages != head->used_pages)
		return wrong(walk, "the pages in use are not the sum of the entries'");
	if (pages > head->capacity_pages)
		return wrong(walk, "more is used than the limit allows");
	return (blocks == head->blocks && files == head->files) ||
	       wrong(walk, "the counts of blocks and files are wrong");
}

int cache_table_check(const struct cache_table *table, const char **ret_why)
{
	const struct cache_head *head = table->head;
	AUTO_FREE uint8_t *seen = calloc((size_t)table->n + 1, 1);
	if (!seen)
		return -ENOMEM;
	struct walk walk = {.table = table, .seen = seen};
	if (head->fresh > table->n || head->n != table->n || head->suspect)
		walk.why = "the head makes no sense";
	else if (check_list(&walk, &head->lru_list, true, head->live) &&
		 check_list(&walk, &head->busy_list, false, head->busy) && check_free(&walk) &&
		 check_hash(&walk) && check_sums(&walk))
		return 0;
	*ret_why = walk.why;
	return -EIO;
}
