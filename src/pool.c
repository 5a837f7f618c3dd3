/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool: threads that appear with work and go when idle.
 * Knows threads. Must not know the work.
 *
 * Each thread that ends joins the one that ended before it, and pool_free() the last: so none
 * is left, not even in its last instructions, when the pool's memory goes.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "regfs/pool.h"

#define POOL_IDLE_S 10
#define POOL_STACK  (256 * KIB)
#define POOL_NAME   16 /* of a thread, with its NUL (pthread_setname_np) */

struct pool {
	char name[POOL_NAME];
	unsigned max_threads;
	pthread_mutex_t lock;
	/* all below: guarded by lock */
	pthread_cond_t work;  /* there is work, or the pool closes */
	pthread_cond_t empty; /* the last thread has left */
	struct pool_work *head, **tail;
	size_t queued; /* works in the list */
	unsigned threads;
	unsigned idle; /* threads that wait for work */
	bool closing;
	bool has_ended;
	pthread_t ended; /* to be joined, if has_ended */
};

struct pool *pool_new(const char *name, unsigned max_threads)
{
	struct pool *pool = calloc(1, sizeof(*pool));
	pthread_condattr_t attr;

	if (!pool)
		return NULL;
	snprintf(pool->name, sizeof(pool->name), "%s", name);
	pool->max_threads = max_threads;
	pool->tail = &pool->head;
	pthread_mutex_init(&pool->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&pool->work, &attr);
	pthread_cond_init(&pool->empty, &attr);
	pthread_condattr_destroy(&attr);
	return pool;
}

/* The next work, waited for; NULL after an idle time or when the pool closes. Lock held. */
static struct pool_work *take(struct pool *pool)
{
	struct timespec deadline;
	struct pool_work *work;
	bool late = false;

	clock_gettime(CLOCK_MONOTONIC, &deadline);
	deadline.tv_sec += POOL_IDLE_S;
	pool->idle++;
	while (!pool->head && !pool->closing && !late)
		late = pthread_cond_timedwait(&pool->work, &pool->lock, &deadline) != 0;
	pool->idle--;
	work = pool->head;
	if (work) {
		pool->head = work->next;
		pool->queued--;
		if (!pool->head)
			pool->tail = &pool->head;
	}
	return work;
}

static void *thread_main(void *arg)
{
	struct pool *pool = arg;
	struct pool_work *work;
	pthread_t previous;
	bool has_previous;

	pthread_mutex_lock(&pool->lock);
	pthread_setname_np(pthread_self(), pool->name);
	while ((work = take(pool))) {
		pthread_mutex_unlock(&pool->lock);
		work->run(work);
		pthread_mutex_lock(&pool->lock);
	}
	has_previous = pool->has_ended;
	previous = pool->ended;
	pool->has_ended = true;
	pool->ended = pthread_self();
	if (--pool->threads == 0)
		pthread_cond_signal(&pool->empty);
	pthread_mutex_unlock(&pool->lock);

	if (has_previous)
		pthread_join(previous, NULL);
	return NULL;
}

/* Lock held: the thread's first act is to wait for it. */
static int start_thread(struct pool *pool)
{
	pthread_attr_t attr;
	sigset_t all, old;
	pthread_t thread;
	int err;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, POOL_STACK);
	/* Signals are the main thread's. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&thread, &attr, thread_main, pool);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (err)
		return -EAGAIN;
	pool->threads++;
	return 0;
}

int pool_submit(struct pool *pool, struct pool_work *work)
{
	int err = 0;

	pthread_mutex_lock(&pool->lock);
	/* Idle threads are spoken for by what is queued already: each work needs its own. */
	if (pool->queued >= pool->idle &&
	    (pool->max_threads == 0 || pool->threads < pool->max_threads))
		err = start_thread(pool);
	/* With a maximum it may queue behind others anyway; without one, those that run may be
	 * waiting for just this work. */
	if (err && pool->max_threads > 0 && pool->threads > 0)
		err = 0;
	if (!err) {
		work->next = NULL;
		*pool->tail = work;
		pool->tail = &work->next;
		pool->queued++;
		pthread_cond_signal(&pool->work);
	}
	pthread_mutex_unlock(&pool->lock);
	return err;
}

void pool_free(struct pool *pool)
{
	if (!pool)
		return;
	pthread_mutex_lock(&pool->lock);
	pool->closing = true;
	pthread_cond_broadcast(&pool->work);
	while (pool->threads > 0)
		pthread_cond_wait(&pool->empty, &pool->lock);
	pthread_mutex_unlock(&pool->lock);
	if (pool->has_ended)
		pthread_join(pool->ended, NULL);
	pthread_cond_destroy(&pool->empty);
	pthread_cond_destroy(&pool->work);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}
