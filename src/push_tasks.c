/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work in parallel on the pool, joined, and called off together.
 * Knows threads. Must not know what the work is.
 */
#include <errno.h>

#include "push_priv.h"

struct group;

/* A thread that takes one task after the other. */
struct runner {
	struct pool_work work;
	struct group *group;
	struct wait wait;
};

struct group {
	struct push_task *const *tasks;
	size_t ntasks;
	struct runner runners[PUSH_TASKS_MAX];
	pthread_mutex_t lock;
	struct wait_queue ended; /* guarded by lock */
	size_t next;		 /* guarded by lock */
	unsigned running;	 /* guarded by lock */
	int error;		 /* guarded by lock: the first */
};

/* Keeps the first error and ends what the others wait for. */
static void group_fail(struct group *group, int err)
{
	pthread_mutex_lock(&group->lock);
	if (!group->error)
		group->error = err;
	pthread_mutex_unlock(&group->lock);
	for (size_t i = 0; i < PUSH_TASKS_MAX; i++)
		wait_cancel(&group->runners[i].wait);
}

static struct push_task *group_take(struct group *group)
{
	struct push_task *task = NULL;

	pthread_mutex_lock(&group->lock);
	if (!group->error && group->next < group->ntasks)
		task = group->tasks[group->next++];
	pthread_mutex_unlock(&group->lock);
	return task;
}

static void group_leave(struct group *group)
{
	pthread_mutex_lock(&group->lock);
	if (--group->running == 0)
		wait_wake(&group->ended);
	pthread_mutex_unlock(&group->lock);
}

static void runner_run(struct pool_work *work)
{
	struct runner *runner = CONTAINER_OF(work, struct runner, work);
	struct push_task *task;

	while ((task = group_take(runner->group))) {
		int err = task->run(task, &runner->wait);
		if (err)
			group_fail(runner->group, err);
	}
	group_leave(runner->group);
}

/* Fewer threads than wanted are enough, if there is one. */
static int group_start(struct group *group, struct pool *pool, unsigned nrunners)
{
	for (unsigned i = 0; i < nrunners; i++) {
		pthread_mutex_lock(&group->lock);
		group->running++;
		pthread_mutex_unlock(&group->lock);
		if (pool_submit(pool, &group->runners[i].work) == 0)
			continue;
		group_leave(group);
		return i ? 0 : -ENOMEM;
	}
	return 0;
}

static int group_wait(struct group *group, struct wait *wait)
{
	int err = 0;

	pthread_mutex_lock(&group->lock);
	while (group->running && !err)
		err = wait_on(wait, &group->ended, &group->lock, WAIT_FOREVER);
	pthread_mutex_unlock(&group->lock);
	return err;
}

/* The tasks use what the caller owns: it waits for their end whatever happens. */
static void group_join(struct group *group, struct wait *wait)
{
	struct wait patient;

	int err = group_wait(group, wait);
	if (!err)
		return;
	group_fail(group, err);
	wait_init(&patient, true);
	group_wait(group, &patient);
	wait_release(&patient);
}

int push_tasks_run(struct pool *pool, struct push_task *const *tasks, size_t n, unsigned at_once,
		   struct wait *wait)
{
	unsigned nrunners = (unsigned)MIN(n, MIN(at_once, PUSH_TASKS_MAX));
	AUTO_FREE struct group *group = calloc(1, sizeof(*group));

	if (!group)
		return -ENOMEM;
	group->tasks = tasks;
	group->ntasks = n;
	pthread_mutex_init(&group->lock, NULL);
	for (size_t i = 0; i < PUSH_TASKS_MAX; i++) {
		group->runners[i].work.run = runner_run;
		group->runners[i].group = group;
		wait_init(&group->runners[i].wait, true);
	}
	int err = group_start(group, pool, nrunners);
	if (!err) {
		group_join(group, wait);
		err = group->error;
	}
	for (size_t i = 0; i < PUSH_TASKS_MAX; i++)
		wait_release(&group->runners[i].wait);
	pthread_mutex_destroy(&group->lock);
	return err;
}
