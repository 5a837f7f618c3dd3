// SPDX-License-Identifier: Apache-2.0
/*
 * cache_peek: looks at an entry, and at its block, without the table's lock.
 * Knows what a reader may believe while others write. Must not change the table, but for the one
 * bit that says that an entry is used.
 *
 * An entry that was copied while somebody changed it is told by its seal. Its slot is given to
 * others only after the entry has lost its seal: so if the entry is the same before and after
 * its bytes were copied, they are its own, and the CRC says whether they are right.
 *
 * Other threads and processes change what is read here: the compiler is told so (volatile), and
 * the thread sanitizer not to mind.
 */
#include <errno.h>
#include <stdatomic.h>

#include "cache_priv.h"

#define STEPS 64 /* of a bucket's chain; what is beyond is looked for under the lock */

#define UNORDERED __attribute__((no_sanitize("thread"), noinline))

/* After what was read before. */
UNORDERED static void copy_words(uint64_t *to, const volatile uint64_t *from, size_t n)
{
	atomic_thread_fence(memory_order_acquire);
	for (size_t i = 0; i < n; i++)
		to[i] = from[i];
}

UNORDERED static uint32_t read_word(const volatile uint32_t *word)
{
	return *word;
}

UNORDERED static void set_used(volatile uint32_t *stamp)
{
	/* What is lost when the lock's holder writes it at the same time is his own, newer one. */
	if (!(*stamp & CACHE_STAMP_USED))
		*stamp |= CACHE_STAMP_USED;
}

static void snapshot(const struct cache_entry *entry, struct cache_entry *ret)
{
	_Static_assert(sizeof(*entry) % sizeof(uint64_t) == 0, "an entry is a row of words");
	uint64_t words[sizeof(*entry) / sizeof(uint64_t)];
	copy_words(words, (const volatile uint64_t *)(const void *)entry, ARRAY_SIZE(words));
	memcpy(ret, words, sizeof(*ret));
}

bool cache_peek(struct cache_view *view, const struct cache_id *id, uint32_t block,
		struct cache_hit *ret)
{
	const struct cache_table *table = &view->table;
	uint32_t index = read_word(&table->bucket[cache_table_bucket(table, id, block)]);
	for (unsigned steps = 0; index && steps < STEPS; steps++) {
		struct cache_entry *entry = cache_table_at(table, index), seen;
		if (!entry)
			return false;
		snapshot(entry, &seen);
		if (seen.state == CACHE_LIVE && seen.kind == id->kind && seen.block == block &&
		    seen.pass == 0 && memcmp(seen.key, id->key, sizeof(seen.key)) == 0) {
			if (!cache_entry_is_sealed(&seen) || cache_guard_broken(view->broken))
				return false;
			set_used(&entry->stamp);
			*ret = (struct cache_hit){.index = index, .entry = seen};
			return true;
		}
		index = seen.hash_next;
	}
	return false;
}

static bool is_still(const struct cache_view *view, const struct cache_hit *hit)
{
	struct cache_entry now;
	snapshot(cache_table_at(&view->table, hit->index), &now);
	return now.gen == hit->entry.gen && now.state == CACHE_LIVE &&
	       now.seal == hit->entry.seal && !cache_guard_broken(view->broken);
}

ssize_t cache_peek_read(struct cache_view *view, const struct cache_hit *hit,
			const struct cache_span *span)
{
	size_t len = hit->entry.len;
	if (!view->arena || cache_guard_broken(view->arena_broken))
		return -ENOSYS;
	if (!cache_entry_is_sealed(&hit->entry) || len > CACHE_BLOCK)
		return -EBADMSG;
	if (span->off >= len)
		return 0;
	const uint8_t *data = view->arena + (size_t)(hit->index - 1) * CACHE_BLOCK;
	size_t n = MIN(span->len, len - span->off);
	memcpy(span->buf, data + span->off, n);
	bool right = cache_crc(data, len) == hit->entry.crc;
	if (!is_still(view, hit))
		return -EAGAIN;
	return right ? (ssize_t)n : -EBADMSG;
}
