/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wait: how a request waits, and how it is called off.
 * Knows threads. Must not know what is waited for.
 *
 * Two locks, always in this order: the queue owner's, then the wait's own. The owner's guards
 * the links, the wait's own guards the two flags. So
 *  - wait_wake() may touch every wait that it finds in the queue: its owner cannot leave
 *    wait_on() without the owner's lock, which the waker holds;
 *  - no wake-up is lost: the wait is in the queue, its flag down, before the owner's lock is
 *    let go, and the flag is looked at under the wait's lock before it blocks;
 *  - wait_cancel() needs no queue: it raises a flag and signals, and the waiter itself leaves
 *    the queue.
 */
#include <errno.h>
#include <time.h>

#include "regfs/wait.h"

void wait_init(struct wait *wait, bool may_block)
{
	pthread_condattr_t attr;

	*wait = (struct wait){.may_block = may_block};
	pthread_mutex_init(&wait->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&wait->cond, &attr);
	pthread_condattr_destroy(&attr);
}

void wait_release(struct wait *wait)
{
	pthread_cond_destroy(&wait->cond);
	pthread_mutex_destroy(&wait->lock);
}

void wait_set_background(struct wait *wait)
{
	atomic_store(&wait->background, true);
}

void wait_hurry(struct wait *wait)
{
	pthread_mutex_lock(&wait->lock);
	wait->hurried = atomic_exchange(&wait->background, false) || wait->hurried;
	pthread_cond_signal(&wait->cond);
	pthread_mutex_unlock(&wait->lock);
}

bool wait_cancelled(struct wait *wait)
{
	bool cancelled;

	pthread_mutex_lock(&wait->lock);
	cancelled = wait->cancelled;
	pthread_mutex_unlock(&wait->lock);
	return cancelled;
}

int wait_go_on(struct wait *wait)
{
	if (wait_cancelled(wait))
		return -EINTR;
	if (wait->may_block)
		return 0;
	int64_t now = now_ms();
	if (!wait->begun_ms)
		wait->begun_ms = now;
	return now - wait->begun_ms < WAIT_QUICK_MS ? 0 : -EWOULDBLOCK;
}

void wait_cancel(struct wait *wait)
{
	pthread_mutex_lock(&wait->lock);
	wait->cancelled = true;
	pthread_cond_signal(&wait->cond);
	pthread_mutex_unlock(&wait->lock);
}

void wait_renew(struct wait *wait)
{
	pthread_mutex_lock(&wait->lock);
	wait->cancelled = false;
	pthread_mutex_unlock(&wait->lock);
}

static void enqueue(struct wait *wait, struct wait_queue *queue)
{
	wait->next = queue->head;
	if (wait->next)
		wait->next->link = &wait->next;
	wait->link = &queue->head;
	queue->head = wait;
}

static void dequeue(struct wait *wait)
{
	*wait->link = wait->next;
	if (wait->next)
		wait->next->link = wait->link;
	wait->next = NULL;
	wait->link = NULL;
}

/* Lowers the flag for a new wait. Before the wait is in a queue. */
static int begin(struct wait *wait)
{
	int err = 0;

	pthread_mutex_lock(&wait->lock);
	if (wait->cancelled)
		err = -EINTR;
	else if (!wait->may_block)
		err = -EWOULDBLOCK;
	wait->signalled = false;
	pthread_mutex_unlock(&wait->lock);
	return err;
}

/* Until woken (0), cancelled (-EINTR) or late (-ETIMEDOUT). */
static int block(struct wait *wait, int64_t deadline_ms)
{
	int64_t ms = MAX(deadline_ms, (int64_t)0);
	struct timespec deadline = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
	bool late = false;
	int err;

	pthread_mutex_lock(&wait->lock);
	while (!wait->cancelled && !wait->signalled && !wait->hurried && !late) {
		if (deadline_ms == WAIT_FOREVER)
			pthread_cond_wait(&wait->cond, &wait->lock);
		else
			late = pthread_cond_timedwait(&wait->cond, &wait->lock, &deadline) != 0;
	}
	if (wait->cancelled)
		err = -EINTR;
	else
		err = wait->signalled || wait->hurried ? 0 : -ETIMEDOUT;
	wait->hurried = false;
	pthread_mutex_unlock(&wait->lock);
	return err;
}

int wait_on(struct wait *wait, struct wait_queue *queue, pthread_mutex_t *lock, int64_t deadline_ms)
{
	int err = begin(wait);

	if (err)
		return err;
	enqueue(wait, queue);
	pthread_mutex_unlock(lock);
	err = block(wait, deadline_ms);
	pthread_mutex_lock(lock);
	if (wait->link)
		dequeue(wait);
	return err;
}

void wait_wake(struct wait_queue *queue)
{
	while (queue->head) {
		struct wait *wait = queue->head;
		dequeue(wait);
		pthread_mutex_lock(&wait->lock);
		wait->signalled = true;
		pthread_cond_signal(&wait->cond);
		pthread_mutex_unlock(&wait->lock);
	}
}

int wait_until(struct wait *wait, int64_t deadline_ms)
{
	int err = begin(wait);

	/* nobody wakes it: 0 is but a hurry */
	while (!err)
		err = block(wait, deadline_ms);
	return err == -ETIMEDOUT ? 0 : err;
}
