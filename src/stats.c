/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats: counters of this process.
 * Knows numbers. Must not know what is counted.
 */
#include <stdatomic.h>

#include "regfs/stats.h"

/* Mutable and global on purpose: a counter has no owner. Each stands alone, so relaxed
 * order is enough. */
static _Atomic int64_t counters[STAT_COUNT];

static const char *const names[] = {
#define STATS_NAME(id, name, help) [STAT_##id] = (name),
	STATS_LIST(STATS_NAME)
#undef STATS_NAME
};

static const char *const helps[] = {
#define STATS_HELP(id, name, help) [STAT_##id] = (help),
	STATS_LIST(STATS_HELP)
#undef STATS_HELP
};

void stats_add(enum stat_id id, int64_t n)
{
	atomic_fetch_add_explicit(&counters[id], n, memory_order_relaxed);
}

int64_t stats_get(enum stat_id id)
{
	return atomic_load_explicit(&counters[id], memory_order_relaxed);
}

const char *stats_name(enum stat_id id)
{
	return names[id];
}

const char *stats_help(enum stat_id id)
{
	return helps[id];
}
