/* SPDX-License-Identifier: Apache-2.0 */
/* wait: no wake-up is lost, a cancel ends one wait and stays, and a wait may be freed as soon as it
 * has returned. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "regfs/wait.h"

/* A room: something that becomes true, and those who wait for it. */
struct gate {
	pthread_mutex_t lock;
	struct wait_queue queue;
	int value;   /* guarded by lock */
	int waiters; /* guarded by lock: threads in, or about to be in, wait_on() */
};

#define GATE_INIT                                                                                  \
	{                                                                                          \
		.lock = PTHREAD_MUTEX_INITIALIZER                                                  \
	}

struct waiter {
	pthread_t thread;
	struct gate *gate;
	struct wait wait;
	int64_t deadline_ms;
	int result;
};

/* Waits until the gate's value is no longer 0. */
static void *wait_at_gate(void *arg)
{
	struct waiter *waiter = arg;
	struct gate *gate = waiter->gate;
	int err = 0;

	pthread_mutex_lock(&gate->lock);
	gate->waiters++;
	while (!err && gate->value == 0)
		err = wait_on(&waiter->wait, &gate->queue, &gate->lock, waiter->deadline_ms);
	gate->waiters--;
	pthread_mutex_unlock(&gate->lock);
	waiter->result = err;
	return NULL;
}

static void start(struct waiter *waiter, struct gate *gate, int64_t deadline_ms)
{
	waiter->gate = gate;
	waiter->deadline_ms = deadline_ms;
	wait_init(&waiter->wait, true);
	assert_int_equal(pthread_create(&waiter->thread, NULL, wait_at_gate, waiter), 0);
}

static int finish(struct waiter *waiter)
{
	pthread_join(waiter->thread, NULL);
	assert_null(waiter->wait.link);
	wait_release(&waiter->wait);
	return waiter->result;
}

/* Returns with N threads standing in the queue. */
static void await_waiters(struct gate *gate, int n)
{
	bool there = false;

	while (!there) {
		pthread_mutex_lock(&gate->lock);
		there = gate->waiters == n;
		pthread_mutex_unlock(&gate->lock);
		sched_yield();
	}
}

static void open_gate(struct gate *gate)
{
	pthread_mutex_lock(&gate->lock);
	gate->value = 1;
	wait_wake(&gate->queue);
	pthread_mutex_unlock(&gate->lock);
}

static void test_without_permission(void **state)
{
	struct gate gate = GATE_INIT;
	struct wait wait;
	(void)state;

	wait_init(&wait, false);
	assert_false(wait_may_block(&wait));
	pthread_mutex_lock(&gate.lock);
	assert_int_equal(wait_on(&wait, &gate.queue, &gate.lock, WAIT_FOREVER), -EWOULDBLOCK);
	assert_null(gate.queue.head);
	pthread_mutex_unlock(&gate.lock);
	assert_int_equal(wait_until(&wait, WAIT_FOREVER), -EWOULDBLOCK);
	wait_release(&wait);
}

static void test_wake_reaches_all(void **state)
{
	struct gate gate = GATE_INIT;
	struct waiter waiters[8];
	(void)state;

	for (size_t i = 0; i < ARRAY_SIZE(waiters); i++)
		start(&waiters[i], &gate, WAIT_FOREVER);
	await_waiters(&gate, ARRAY_SIZE(waiters));
	open_gate(&gate);
	for (size_t i = 0; i < ARRAY_SIZE(waiters); i++)
		assert_int_equal(finish(&waiters[i]), 0);
	assert_null(gate.queue.head);
}

static void test_cancel_ends_one_wait(void **state)
{
	struct gate gate = GATE_INIT;
	struct waiter waiters[3];
	(void)state;

	for (size_t i = 0; i < ARRAY_SIZE(waiters); i++)
		start(&waiters[i], &gate, WAIT_FOREVER);
	await_waiters(&gate, 3);
	assert_false(wait_cancelled(&waiters[1].wait));
	wait_cancel(&waiters[1].wait);
	assert_true(wait_cancelled(&waiters[1].wait));
	assert_int_equal(finish(&waiters[1]), -EINTR);
	await_waiters(&gate, 2);
	open_gate(&gate);
	assert_int_equal(finish(&waiters[0]), 0);
	assert_int_equal(finish(&waiters[2]), 0);
}

static void test_cancel_holds_for_later_waits(void **state)
{
	struct gate gate = GATE_INIT;
	struct wait wait;
	(void)state;

	wait_init(&wait, true);
	wait_cancel(&wait);
	for (int i = 0; i < 2; i++) {
		pthread_mutex_lock(&gate.lock);
		assert_int_equal(wait_on(&wait, &gate.queue, &gate.lock, WAIT_FOREVER), -EINTR);
		pthread_mutex_unlock(&gate.lock);
		assert_int_equal(wait_until(&wait, WAIT_FOREVER), -EINTR);
	}
	assert_null(gate.queue.head);
	wait_release(&wait);
}

static void test_deadline(void **state)
{
	struct gate gate = GATE_INIT;
	struct wait wait;
	int64_t deadline = now_ms() + 20;
	(void)state;

	wait_init(&wait, true);
	pthread_mutex_lock(&gate.lock);
	assert_int_equal(wait_on(&wait, &gate.queue, &gate.lock, deadline), -ETIMEDOUT);
	assert_true(now_ms() >= deadline);
	assert_null(gate.queue.head);
	/* One that is past already, and one that never was. */
	assert_int_equal(wait_on(&wait, &gate.queue, &gate.lock, deadline), -ETIMEDOUT);
	assert_int_equal(wait_on(&wait, &gate.queue, &gate.lock, -1), -ETIMEDOUT);
	pthread_mutex_unlock(&gate.lock);
	deadline = now_ms() + 20;
	assert_int_equal(wait_until(&wait, deadline), 0);
	assert_true(now_ms() >= deadline);
	wait_release(&wait);
}

static void test_wake_of_an_earlier_wait_does_not_count(void **state)
{
	struct gate gate = GATE_INIT;
	struct waiter waiter;
	(void)state;

	start(&waiter, &gate, WAIT_FOREVER);
	await_waiters(&gate, 1);
	open_gate(&gate);
	pthread_join(waiter.thread, NULL);
	pthread_mutex_lock(&gate.lock);
	assert_int_equal(wait_on(&waiter.wait, &gate.queue, &gate.lock, now_ms() + 5), -ETIMEDOUT);
	pthread_mutex_unlock(&gate.lock);
	assert_int_equal(waiter.result, 0);
	wait_release(&waiter.wait);
}

/* Two threads hand a value to and fro: a lost wake-up hangs, and the deadline says so. */
struct pingpong {
	struct gate *gate;
	int mine;
	int rounds;
	int result;
};

static void *play(void *arg)
{
	struct pingpong *player = arg;
	struct gate *gate = player->gate;
	int err = 0;

	for (int round = 0; round < player->rounds && !err; round++) {
		struct wait wait;
		wait_init(&wait, true);
		pthread_mutex_lock(&gate->lock);
		while (!err && gate->value != player->mine)
			err = wait_on(&wait, &gate->queue, &gate->lock, now_ms() + 60000);
		gate->value = !player->mine;
		wait_wake(&gate->queue);
		pthread_mutex_unlock(&gate->lock);
		wait_release(&wait);
	}
	player->result = err;
	return NULL;
}

static void test_no_wakeup_is_lost(void **state)
{
	struct gate gate = GATE_INIT;
	struct pingpong players[2];
	pthread_t threads[2];
	(void)state;

	for (int i = 0; i < 2; i++) {
		players[i] = (struct pingpong){.gate = &gate, .mine = i, .rounds = 5000};
		assert_int_equal(pthread_create(&threads[i], NULL, play, &players[i]), 0);
	}
	for (int i = 0; i < 2; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(players[i].result, 0);
	}
}

/* Waits that end by deadline, wake and cancel at the same time, each freed at once:
 * what the sanitizers look at. */
static void *cancel_all(void *arg)
{
	struct waiter *waiters = arg;

	for (int i = 0; i < 4; i++)
		wait_cancel(&waiters[i].wait);
	return NULL;
}

static void test_all_ends_race(void **state)
{
	(void)state;
	for (int round = 0; round < 200; round++) {
		struct gate gate = GATE_INIT;
		struct waiter *waiters = calloc(4, sizeof(*waiters));
		pthread_t canceller;
		assert_non_null(waiters);
		for (int i = 0; i < 4; i++)
			start(&waiters[i], &gate, now_ms() + round % 2);
		assert_int_equal(pthread_create(&canceller, NULL, cancel_all, waiters), 0);
		open_gate(&gate);
		pthread_join(canceller, NULL);
		for (int i = 0; i < 4; i++) {
			int err = finish(&waiters[i]);
			assert_true(err == 0 || err == -EINTR || err == -ETIMEDOUT);
		}
		assert_null(gate.queue.head);
		free(waiters);
	}
}

/* A hurry is seen once: by the wait that is on, or by the next one. */
static void test_hurry(void **state)
{
	struct wait_queue queue = {0};
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct wait wait;

	(void)state;
	wait_init(&wait, true);
	wait_hurry(&wait); /* it is not in the background */
	pthread_mutex_lock(&lock);
	assert_int_equal(wait_on(&wait, &queue, &lock, now_ms()), -ETIMEDOUT);
	wait_set_background(&wait);
	wait_hurry(&wait);
	assert_false(wait_background(&wait));
	assert_int_equal(wait_on(&wait, &queue, &lock, WAIT_FOREVER), 0);
	assert_int_equal(wait_on(&wait, &queue, &lock, now_ms()), -ETIMEDOUT);
	pthread_mutex_unlock(&lock);
	wait_release(&wait);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_without_permission),
		cmocka_unit_test(test_wake_reaches_all),
		cmocka_unit_test(test_cancel_ends_one_wait),
		cmocka_unit_test(test_cancel_holds_for_later_waits),
		cmocka_unit_test(test_deadline),
		cmocka_unit_test(test_wake_of_an_earlier_wait_does_not_count),
		cmocka_unit_test(test_no_wakeup_is_lost),
		cmocka_unit_test(test_all_ends_race),
		cmocka_unit_test(test_hurry),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
