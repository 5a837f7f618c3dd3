// SPDX-License-Identifier: Apache-2.0
/*
 * cache_table: the cache's bookkeeping: hash, LRU list, accounting, the states of entries.
 * Knows the mapped table. Must not know descriptors, files or locks: the caller holds the
 * lock, and moves the bytes.
 *
 * The table is a file that a crash of the machine may have torn and that anybody may scribble
 * over, so that no index is followed unchecked and no walk is unbounded. What makes no sense
 * marks the table suspect: it is rebuilt under the next lock.
 */
#include <errno.h>
#include <isa-l/crc64.h>

#include "cache_priv.h"

size_t cache_table_bytes(uint32_t n)
{
	size_t bytes = CACHE_PAGE + (size_t)n * (sizeof(struct cache_entry) + sizeof(uint32_t));
	return (bytes + CACHE_PAGE - 1) / CACHE_PAGE * CACHE_PAGE;
}

void cache_table_init(struct cache_table *table, void *map, uint32_t n)
{
	struct cache_entry *entry = (struct cache_entry *)((char *)map + CACHE_PAGE);
	struct cache_head *head = map;
	*table = (struct cache_table){
		.head = head,
		.entry = entry,
		.bucket = (uint32_t *)(entry + n),
		.n = n,
		.hash_seed = head->hash_seed,
	};
}

struct cache_entry *cache_table_at(const struct cache_table *table, uint32_t index)
{
	return index >= 1 && index <= table->n ? &table->entry[index - 1] : NULL;
}

void cache_entry_id(const struct cache_entry *entry, struct cache_id *ret)
{
	ret->kind = (enum cache_kind)entry->kind;
	memcpy(ret->key, entry->key, sizeof(ret->key));
}

uint64_t cache_entry_seal(const struct cache_entry *entry)
{
	uint64_t seal = crc64_ecma_refl(CACHE_MAGIC, (const unsigned char *)entry,
					offsetof(struct cache_entry, seal));
	return seal ? seal : 1;
}

static void suspect(struct cache_table *table)
{
	table->head->suspect = 1;
}

/* --- lists --- */

static void list_push(struct cache_table *table, struct cache_list *list, uint32_t index)
{
	struct cache_entry *entry = cache_table_at(table, index);
	struct cache_entry *first = cache_table_at(table, list->first);
	entry->prev = 0;
	entry->next = list->first;
	if (first)
		first->prev = index;
	else
		list->last = index;
	list->first = index;
}

static void list_remove(struct cache_table *table, struct cache_list *list, uint32_t index)
{
	struct cache_entry *entry = cache_table_at(table, index);
	struct cache_entry *prev = cache_table_at(table, entry->prev);
	struct cache_entry *next = cache_table_at(table, entry->next);
	if ((prev ? prev->next : list->first) != index || (next ? next->prev : list->last) != index)
		suspect(table);
	if (prev)
		prev->next = entry->next;
	else
		list->first = entry->next;
	if (next)
		next->prev = entry->prev;
	else
		list->last = entry->prev;
	entry->prev = entry->next = 0;
}

void cache_table_push_lru(struct cache_table *table, uint32_t index)
{
	struct cache_head *head = table->head;
	list_push(table, &head->lru_list, index);
	head->live++;
	if (cache_kind_is_file(cache_table_at(table, index)->kind))
		head->files++;
	else
		head->blocks++;
}

static void leave_lru(struct cache_table *table, uint32_t index)
{
	struct cache_head *head = table->head;
	list_remove(table, &head->lru_list, index);
	head->live--;
	if (cache_kind_is_file(cache_table_at(table, index)->kind))
		head->files--;
	else
		head->blocks--;
}

void cache_table_push_busy(struct cache_table *table, uint32_t index)
{
	list_push(table, &table->head->busy_list, index);
	table->head->busy++;
}

static void leave_busy(struct cache_table *table, uint32_t index)
{
	list_remove(table, &table->head->busy_list, index);
	table->head->busy--;
}

void cache_table_push_free(struct cache_table *table, uint32_t index)
{
	struct cache_entry *entry = cache_table_at(table, index);
	entry->prev = 0;
	entry->next = table->head->free_first;
	table->head->free_first = index;
}

/* A free entry, off its list; 0 if there is none. */
static uint32_t pop_free(struct cache_table *table)
{
	struct cache_head *head = table->head;
	struct cache_entry *entry = cache_table_at(table, head->free_first);
	if (entry) {
		uint32_t index = head->free_first;
		head->free_first = entry->next;
		if (entry->state == CACHE_FREE)
			return index;
		suspect(table);
		return 0;
	}
	return head->fresh < table->n ? ++head->fresh : 0;
}

/* --- hash --- */

uint32_t cache_table_bucket(const struct cache_table *table, const struct cache_id *id,
			    uint32_t block)
{
	uint32_t tail[2] = {id->kind, block};
	uint64_t hash = hash64(table->hash_seed, id->key, sizeof(id->key));
	hash = hash64(hash, tail, sizeof(tail));
	return (uint32_t)(((hash & UINT32_MAX) * table->n) >> 32);
}

static uint32_t *bucket_of(struct cache_table *table, const struct cache_entry *entry)
{
	struct cache_id id;
	cache_entry_id(entry, &id);
	return &table->bucket[cache_table_bucket(table, &id, entry->block)];
}

void cache_table_hash(struct cache_table *table, uint32_t index)
{
	struct cache_entry *entry = cache_table_at(table, index);
	uint32_t *link = bucket_of(table, entry);
	entry->hash_next = *link;
	*link = index;
}

static void unhash(struct cache_table *table, uint32_t index)
{
	struct cache_entry *entry = cache_table_at(table, index);
	uint32_t *link = bucket_of(table, entry);
	for (uint32_t steps = 0; steps <= table->n; steps++) {
		if (*link == index) {
			*link = entry->hash_next;
			entry->hash_next = 0;
			return;
		}
		struct cache_entry *other = cache_table_at(table, *link);
		if (!other)
			break;
		link = &other->hash_next;
	}
	suspect(table);
}

static uint32_t find(struct cache_table *table, const struct cache_id *id, uint32_t block,
		     const uint64_t *pass)
{
	uint32_t index = table->bucket[cache_table_bucket(table, id, block)];
	for (uint32_t steps = 0; index && steps <= table->n; steps++) {
		const struct cache_entry *entry = cache_table_at(table, index);
		if (!entry)
			break;
		if (entry->state == CACHE_LIVE && entry->block == block &&
		    entry->kind == id->kind && (!pass || entry->pass == *pass) &&
		    memcmp(entry->key, id->key, sizeof(id->key)) == 0)
			return index;
		index = entry->hash_next;
	}
	if (index)
		suspect(table);
	return 0;
}

uint32_t cache_table_find(struct cache_table *table, const struct cache_id *id, uint32_t block,
			  uint64_t pass)
{
	return find(table, id, block, &pass);
}

uint32_t cache_table_find_any(struct cache_table *table, const struct cache_id *id, uint32_t block)
{
	return find(table, id, block, NULL);
}

static uint32_t stamp_now(void)
{
	return (uint32_t)(wall_ms() / 1000) & ~CACHE_STAMP_USED;
}

void cache_table_touch(struct cache_table *table, uint32_t index)
{
	struct cache_list *list = &table->head->lru_list;
	cache_table_at(table, index)->stamp = stamp_now();
	if (list->first != index) {
		list_remove(table, list, index);
		list_push(table, list, index);
	}
}

/* --- transitions --- */

static void batch_add(struct cache_batch *batch, uint32_t index, const struct cache_entry *entry)
{
	batch->hit[batch->len++] = (struct cache_hit){.index = index, .entry = *entry};
}

static void leave_live(struct cache_table *table, uint32_t index)
{
	cache_table_at(table, index)->seal = 0;
	unhash(table, index);
	leave_lru(table, index);
}

void cache_table_doom(struct cache_table *table, uint32_t index, uint64_t owner,
		      struct cache_batch *batch)
{
	struct cache_entry *entry = cache_table_at(table, index);
	if (entry->state == CACHE_LIVE) {
		leave_live(table, index);
		cache_table_push_busy(table, index);
	}
	entry->state = CACHE_DOOMED;
	entry->owner = owner;
	batch_add(batch, index, entry);
}

/* Makes INDEX, which is in no list, WANT's; its pages are charged by the caller. */
static void begin(struct cache_table *table, uint32_t index, const struct cache_entry *want,
		  uint64_t owner, struct cache_hit *ret)
{
	struct cache_entry *entry = cache_table_at(table, index);
	*entry = *want;
	entry->gen = ++table->head->gen;
	entry->state = CACHE_WRITING;
	entry->seal = 0;
	entry->hash_next = 0;
	entry->owner = owner;
	cache_table_push_busy(table, index);
	*ret = (struct cache_hit){.index = index, .entry = *entry};
}

/* The least recently used, which is then the list's last; NULL if there is none. What was used
 * without the lock is moved now. */
static struct cache_entry *oldest(struct cache_table *table)
{
	const struct cache_list *list = &table->head->lru_list;
	for (unsigned chances = 64;; chances--) {
		struct cache_entry *entry = cache_table_at(table, list->last);
		if (entry ? entry->state != CACHE_LIVE : list->last != 0) {
			suspect(table);
			return NULL;
		}
		if (!entry || !(entry->stamp & CACHE_STAMP_USED) || chances == 0)
			return entry;
		cache_table_touch(table, list->last);
	}
}

/* The full cache's usual case: one block goes, one of the same size comes, into its slot. */
static bool take_over(struct cache_table *table, const struct cache_entry *want, uint64_t owner,
		      struct cache_hit *ret)
{
	struct cache_entry *victim = oldest(table);
	uint32_t index = table->head->lru_list.last;
	if (!victim || !cache_kind_is_block(victim->kind) || !cache_kind_is_block(want->kind) ||
	    victim->pages != want->pages || table->head->used_pages > table->head->capacity_pages)
		return false;
	leave_live(table, index);
	begin(table, index, want, owner, ret);
	return true;
}

void cache_table_shrink(struct cache_table *table, uint64_t pages, uint64_t owner,
			struct cache_batch *batch)
{
	struct cache_head *head = table->head;
	uint64_t used = head->used_pages;
	while (used > pages && batch->len < CACHE_BATCH) {
		struct cache_entry *victim = oldest(table);
		if (!victim)
			break;
		used -= MIN(used, victim->pages);
		cache_table_doom(table, head->lru_list.last, owner, batch);
	}
}

int cache_table_reserve(struct cache_table *table, const struct cache_entry *want, uint64_t owner,
			struct cache_batch *batch, struct cache_hit *ret)
{
	struct cache_head *head = table->head;
	if (want->pages > head->capacity_pages)
		return -ENOSPC;
	bool fits = head->used_pages + want->pages <= head->capacity_pages;
	uint32_t index = fits ? pop_free(table) : 0;
	if (index) {
		head->used_pages += want->pages;
		begin(table, index, want, owner, ret);
		return 0;
	}
	if (take_over(table, want, owner, ret))
		return 0;
	if (fits && oldest(table)) /* the entries ran out, not the bytes */
		cache_table_doom(table, head->lru_list.last, owner, batch);
	else
		cache_table_shrink(table, head->capacity_pages - want->pages, owner, batch);
	return batch->len ? -EAGAIN : -ENOSPC;
}

static bool is_ours(const struct cache_entry *entry, const struct cache_hit *hit)
{
	return entry && entry->gen == hit->entry.gen && entry->state == CACHE_WRITING;
}

int cache_table_publish(struct cache_table *table, const struct cache_hit *hit, uint64_t owner,
			struct cache_batch *batch)
{
	struct cache_entry *entry = cache_table_at(table, hit->index);
	if (!is_ours(entry, hit))
		return -ESTALE;
	struct cache_id id;
	cache_entry_id(entry, &id);
	uint32_t older = cache_table_find(table, &id, entry->block, 0);
	if (older && cache_kind_is_block(entry->kind)) {
		cache_table_doom(table, hit->index, owner, batch);
		return -EEXIST;
	}
	if (!older && entry->pass)
		older = cache_table_find(table, &id, entry->block, entry->pass);
	if (older)
		cache_table_doom(table, older, owner, batch);
	leave_busy(table, hit->index);
	entry->crc = hit->entry.crc;
	entry->stamp = stamp_now();
	entry->state = CACHE_LIVE;
	entry->seal = cache_entry_seal(entry);
	cache_table_hash(table, hit->index);
	cache_table_push_lru(table, hit->index);
	return 0;
}

void cache_table_commit(struct cache_table *table, uint32_t index, uint64_t owner,
			struct cache_batch *batch)
{
	struct cache_entry *entry = cache_table_at(table, index);
	struct cache_id id;
	cache_entry_id(entry, &id);
	if (cache_table_find(table, &id, entry->block, 0)) {
		cache_table_doom(table, index, owner, batch);
		return;
	}
	entry->pass = 0;
	entry->seal = cache_entry_seal(entry);
}

void cache_table_release(struct cache_table *table, uint32_t index)
{
	struct cache_entry *entry = cache_table_at(table, index);
	leave_busy(table, index);
	table->head->used_pages -= MIN(table->head->used_pages, entry->pages);
	memset(entry, 0, sizeof(*entry));
	cache_table_push_free(table, index);
}
