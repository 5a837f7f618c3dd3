/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool: threads that appear with work and go when idle.
 * Knows threads. Must not know the work.
 *
 * Requests that wait are run by one pool with a maximum, so that a dead registry
 * costs at most so many threads; jobs that others wait for (a pass over a blob, a
 * layer's index) are run by another without one, so that they never queue behind
 * their own waiters: what bounds them is the room that starts them.
 */
#ifndef REGFS_POOL_H
#define REGFS_POOL_H

#include "regfs/util.h"

struct pool;

/* A unit of work; embed it. run() owns it from then on. */
struct pool_work {
	void (*run)(struct pool_work *work);
	struct pool_work *next; /* the pool's */
};

/* MAX_THREADS 0: no maximum. Threads idle for 10 s end. NULL when memory is short. */
struct pool *pool_new(const char *name, unsigned max_threads);
/* Waits for all queued and running work. NULL is fine. */
void pool_free(struct pool *pool);
/* Never blocks. Any thread. 0, or -EAGAIN when no thread could be made (the work was not taken);
 * a pool with a maximum keeps the work for a thread that runs, one without never does. */
int pool_submit(struct pool *pool, struct pool_work *work);

#endif
