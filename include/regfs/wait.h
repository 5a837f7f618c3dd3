/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wait: how a request waits, and how it is called off.
 * Knows threads. Must not know what is waited for.
 *
 * Each kernel request, and each background job, has one struct wait, which every
 * function that might wait takes. A wait is made without permission to block at
 * first: a function that would have to block then returns -EWOULDBLOCK having
 * changed nothing that matters, and the request is parked: run again by a thread
 * that may block. wait_cancel() may come from any thread at any time; the blocked
 * function then returns -EINTR at once.
 *
 * A wait_queue is where waits line up for a condition; it lives in a structure of
 * some room and is guarded by that room's lock, which is the LOCK argument below.
 * wait_on() is to a queue and a lock what pthread_cond_wait() is to a condition
 * variable and a mutex: look at the condition again whenever it returns 0.
 */
#ifndef REGFS_WAIT_H
#define REGFS_WAIT_H

#include <pthread.h>
#include <stdatomic.h>

#include "regfs/util.h"

struct wait_queue {
	struct wait *head; /* guarded by the owner's lock */
};

struct wait {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool may_block;
	int64_t begun_ms; /* when wait_go_on() was asked first; 0: not yet. The waiter's own */
	/* no request is behind it: what it is for stands back behind what others wait for */
	atomic_bool background;
	bool cancelled; /* guarded by lock */
	bool signalled; /* guarded by lock */
	bool hurried;	/* guarded by lock: not seen yet */
	/* the queue it stands in, guarded by that queue's lock; a wait stands in one at most */
	struct wait *next;
	struct wait **link;
};

/* Failures of the pthread initialisers are not possible on Linux with these arguments. */
void wait_init(struct wait *wait, bool may_block);
void wait_release(struct wait *wait);

/* True where blocking is allowed. A function that is about to do something slow by
 * itself (network, a fill) asks first and returns -EWOULDBLOCK if not. */
static inline bool wait_may_block(const struct wait *wait)
{
	return wait->may_block;
}

static inline bool wait_background(const struct wait *wait)
{
	return atomic_load_explicit(&wait->background, memory_order_relaxed);
}
/* Before anybody else knows WAIT. */
void wait_set_background(struct wait *wait);
/* Somebody waits for it by now: ends its being in the background, and its present wait, if it is in
 * one, or else the next, returns 0 once for that. Any thread. */
void wait_hurry(struct wait *wait);

bool wait_cancelled(struct wait *wait);
/* For work that may take long though it waits for nothing, now and then: 0 to go on, -EINTR if
 * cancelled, -EWOULDBLOCK if blocking is not allowed and the work has taken WAIT_QUICK_MS since it
 * was asked first: it is done by somebody who can be called off. */
#define WAIT_QUICK_MS 50
int wait_go_on(struct wait *wait);
/* Ends the present and every later wait of WAIT with -EINTR. Any thread. */
void wait_cancel(struct wait *wait);
/* Takes that back: by who knows why it was done, and that nobody stands in WAIT. */
void wait_renew(struct wait *wait);

#define WAIT_FOREVER INT64_MAX
/*
 * Called with *LOCK held; releases it while blocked and holds it again on return.
 * 0 when woken, -EWOULDBLOCK if blocking is not allowed, -EINTR if cancelled,
 * -ETIMEDOUT when now_ms() reaches DEADLINE_MS.
 */
int wait_on(struct wait *wait, struct wait_queue *queue, pthread_mutex_t *lock,
	    int64_t deadline_ms);
/* Wakes all that stand in QUEUE. The queue's lock is held by the caller. */
void wait_wake(struct wait_queue *queue);
/* Blocks until DEADLINE_MS: 0 then, else -EINTR or -EWOULDBLOCK. For backing off. */
int wait_until(struct wait *wait, int64_t deadline_ms);

#endif
