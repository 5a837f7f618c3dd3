/* SPDX-License-Identifier: Apache-2.0 */
/* pool: the maximum holds, nothing queues behind an idle thread, free drains. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "regfs/pool.h"

static atomic_bool no_threads;

/* In place of the C library's: fails as it does where the system has no more threads. */
int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg)
{
	int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

	*(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
	return atomic_load(&no_threads) ? EAGAIN : real(thread, attr, start, arg);
}

/* Counts what runs, and holds it back until it is let go. */
struct bench {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* all below: guarded by lock */
	int running, most, done;
	bool held;
	int order[64];
};

#define BENCH_INIT                                                                                 \
	{                                                                                          \
		.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER             \
	}

struct job {
	struct pool_work work;
	struct bench *bench;
	int number;
};

static void run_job(struct pool_work *work)
{
	struct job *job = CONTAINER_OF(work, struct job, work);
	struct bench *bench = job->bench;

	pthread_mutex_lock(&bench->lock);
	bench->running++;
	bench->most = MAX(bench->most, bench->running);
	pthread_cond_broadcast(&bench->changed);
	while (bench->held)
		pthread_cond_wait(&bench->changed, &bench->lock);
	bench->running--;
	bench->order[bench->done++ % 64] = job->number;
	pthread_cond_broadcast(&bench->changed);
	pthread_mutex_unlock(&bench->lock);
	free(job);
}

static void submit(struct pool *pool, struct bench *bench, int number)
{
	struct job *job = calloc(1, sizeof(*job));

	assert_non_null(job);
	job->work.run = run_job;
	job->bench = bench;
	job->number = number;
	assert_int_equal(pool_submit(pool, &job->work), 0);
}

static void hold(struct bench *bench, bool held)
{
	pthread_mutex_lock(&bench->lock);
	bench->held = held;
	pthread_cond_broadcast(&bench->changed);
	pthread_mutex_unlock(&bench->lock);
}

static void await_running(struct bench *bench, int n)
{
	pthread_mutex_lock(&bench->lock);
	while (bench->running != n)
		pthread_cond_wait(&bench->changed, &bench->lock);
	pthread_mutex_unlock(&bench->lock);
}

static void await_done(struct bench *bench, int n)
{
	pthread_mutex_lock(&bench->lock);
	while (bench->done != n)
		pthread_cond_wait(&bench->changed, &bench->lock);
	pthread_mutex_unlock(&bench->lock);
}

static void test_free_of_nothing(void **state)
{
	(void)state;
	pool_free(NULL);
	pool_free(pool_new("a name longer than a thread's may be", 0));
}

static void test_without_maximum_all_run_at_once(void **state)
{
	struct bench bench = BENCH_INIT;
	struct pool *pool = pool_new("test", 0);
	(void)state;

	hold(&bench, true);
	for (int i = 0; i < 20; i++)
		submit(pool, &bench, i);
	await_running(&bench, 20);
	hold(&bench, false);
	pool_free(pool);
	assert_int_equal(bench.done, 20);
}

static void test_maximum_holds_and_free_drains(void **state)
{
	struct bench bench = BENCH_INIT;
	struct pool *pool = pool_new("test", 3);
	(void)state;

	hold(&bench, true);
	for (int i = 0; i < 40; i++)
		submit(pool, &bench, i);
	await_running(&bench, 3);
	hold(&bench, false);
	pool_free(pool);
	assert_int_equal(bench.done, 40);
	assert_int_equal(bench.most, 3);
}

static void test_one_thread_keeps_the_order(void **state)
{
	struct bench bench = BENCH_INIT;
	struct pool *pool = pool_new("test", 1);
	(void)state;

	hold(&bench, true);
	for (int i = 0; i < 50; i++)
		submit(pool, &bench, i);
	hold(&bench, false);
	pool_free(pool);
	for (int i = 0; i < 50; i++)
		assert_int_equal(bench.order[i], i);
}

static int count_threads(void)
{
	DIR *dir = opendir("/proc/self/task");
	int n = 0;

	assert_non_null(dir);
	for (struct dirent *entry; (entry = readdir(dir));)
		n += entry->d_name[0] != '.';
	closedir(dir);
	return n;
}

/* Without a maximum nothing waits behind what runs: that might be waiting for it. */
static void test_without_threads_work_is_refused(void **state)
{
	struct bench bench = BENCH_INIT;
	struct pool *unbounded = pool_new("test", 0);
	struct pool *bounded = pool_new("test", 4);
	struct job *refused = calloc(1, sizeof(*refused));

	(void)state;
	hold(&bench, true);
	submit(unbounded, &bench, 0);
	submit(bounded, &bench, 0);
	await_running(&bench, 2);
	atomic_store(&no_threads, true);
	refused->work.run = run_job;
	assert_int_equal(pool_submit(unbounded, &refused->work), -EAGAIN);
	submit(bounded, &bench, 1);
	atomic_store(&no_threads, false);
	hold(&bench, false);
	pool_free(unbounded);
	pool_free(bounded);
	assert_int_equal(bench.done, 3);
	free(refused);
}

static void test_idle_threads_are_used_again(void **state)
{
	struct bench bench = BENCH_INIT;
	struct pool *pool = pool_new("test", 0);
	(void)state;

	for (int i = 0; i < 500; i++) {
		submit(pool, &bench, i);
		submit(pool, &bench, i);
		await_done(&bench, 2 * i + 2);
	}
	assert_in_range(bench.most, 1, 2);
	/* Not one for each work; a few more than two where a thread was not idle yet. */
	assert_in_range(count_threads(), 2, 50);
	pool_free(pool);
}

/* An idle thread serves one work, not all that come before it has woken up. */
static void test_works_do_not_queue_behind_an_idle_thread(void **state)
{
	struct bench bench = BENCH_INIT;
	struct pool *pool = pool_new("test", 0);
	(void)state;

	for (int n = 1; n <= 20; n++) {
		hold(&bench, true);
		for (int i = 0; i < n; i++)
			submit(pool, &bench, i);
		await_running(&bench, n);
		hold(&bench, false);
		await_running(&bench, 0);
	}
	pool_free(pool);
	assert_int_equal(bench.done, 20 * 21 / 2);
}

struct submitter {
	struct pool *pool;
	struct bench *bench;
};

static void *submit_many(void *arg)
{
	struct submitter *submitter = arg;

	for (int i = 0; i < 1000; i++)
		submit(submitter->pool, submitter->bench, i);
	return NULL;
}

static void test_submits_from_any_thread(void **state)
{
	struct bench bench = BENCH_INIT;
	struct pool *pool = pool_new("test", 4);
	struct submitter submitter = {.pool = pool, .bench = &bench};
	pthread_t threads[4];
	(void)state;

	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, submit_many, &submitter), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	pool_free(pool);
	assert_int_equal(bench.done, 4000);
	assert_in_range(bench.most, 1, 4);
}

/* A work that submits the next, also while the pool is being freed. */
struct chain {
	struct pool_work work;
	struct pool *pool;
	int left;
};

static void run_chain(struct pool_work *work)
{
	struct chain *chain = CONTAINER_OF(work, struct chain, work);

	if (chain->left > 0) {
		chain->left--;
		assert_int_equal(pool_submit(chain->pool, &chain->work), 0);
	}
}

static void test_work_may_submit_work(void **state)
{
	struct pool *pool = pool_new("test", 2);
	struct chain chain = {.work.run = run_chain, .pool = pool, .left = 1000};
	(void)state;

	assert_int_equal(pool_submit(pool, &chain.work), 0);
	pool_free(pool);
	assert_int_equal(chain.left, 0);
}

struct masked {
	struct pool_work work;
	bool usr1_blocked;
};

static void run_masked(struct pool_work *work)
{
	struct masked *masked = CONTAINER_OF(work, struct masked, work);
	sigset_t set;

	pthread_sigmask(SIG_SETMASK, NULL, &set);
	masked->usr1_blocked = sigismember(&set, SIGUSR1);
}

static void test_threads_take_no_signals(void **state)
{
	struct pool *pool = pool_new("test", 1);
	struct masked masked = {.work.run = run_masked};
	sigset_t set;
	(void)state;

	assert_int_equal(pool_submit(pool, &masked.work), 0);
	pool_free(pool);
	assert_true(masked.usr1_blocked);
	pthread_sigmask(SIG_SETMASK, NULL, &set);
	assert_false(sigismember(&set, SIGUSR1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_free_of_nothing),
		cmocka_unit_test(test_without_maximum_all_run_at_once),
		cmocka_unit_test(test_maximum_holds_and_free_drains),
		cmocka_unit_test(test_one_thread_keeps_the_order),
		cmocka_unit_test(test_without_threads_work_is_refused),
		cmocka_unit_test(test_idle_threads_are_used_again),
		cmocka_unit_test(test_works_do_not_queue_behind_an_idle_thread),
		cmocka_unit_test(test_submits_from_any_thread),
		cmocka_unit_test(test_work_may_submit_work),
		cmocka_unit_test(test_threads_take_no_signals),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
