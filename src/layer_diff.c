// SPDX-License-Identifier: Apache-2.0
/*
 * The diff ID: the SHA-256 of what a layer decodes to, computed beside the decoding where a core
 * has nothing better to do.
 * Knows a ring and a thread. Must not know layers.
 *
 * The thread runs under SCHED_IDLE, which it could not leave again without privilege; so it
 * is not one of the pool's. There is no lock that it could hold while it is not scheduled: one side
 * only adds to the ring, the other only takes, and two counters say how far they are. When the ring
 * is full the hash is given up, for it is a luxury: the blob's digest vouches for the bytes
 * already.
 */
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>

#include "layer_priv.h"

#define SLOTS	   16
#define SLOT_LEN   (256 * KIB)
#define STACK_SIZE (128 * KIB)

struct slot {
	size_t len; /* 0: the end */
	uint8_t data[SLOT_LEN];
};

struct diff {
	pthread_t thread;
	sem_t filled;	   /* slots the hasher may take */
	atomic_uint taken; /* slots it has done with */
	atomic_bool given_up;
	unsigned pushed; /* the pusher's */
	struct hasher *hasher;
	struct slot *slots;
};

static void take_slot(struct diff *diff)
{
	while (sem_wait(&diff->filled) < 0)
		;
}

static void *diff_main(void *arg)
{
	struct diff *diff = arg;
	unsigned taken = 0;

	for (;;) {
		take_slot(diff);
		const struct slot *slot = &diff->slots[taken % SLOTS];
		if (slot->len == 0 || atomic_load(&diff->given_up))
			return NULL;
		hasher_add(diff->hasher, slot->data, slot->len);
		atomic_store(&diff->taken, ++taken);
	}
}

static int diff_spawn(struct diff *diff)
{
	const struct sched_param param = {.sched_priority = 0};
	pthread_attr_t attr;
	sigset_t all, old;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int r = pthread_create(&diff->thread, &attr, diff_main, diff);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (r == 0)
		pthread_setschedparam(diff->thread, SCHED_IDLE, &param);
	return r;
}

static void diff_release(struct diff *diff)
{
	sem_destroy(&diff->filled);
	hasher_free(diff->hasher);
	free(diff->slots);
	free(diff);
}

struct diff *diff_start(void)
{
	struct diff *diff = calloc(1, sizeof(*diff));

	if (!diff)
		return NULL;
	sem_init(&diff->filled, 0, 0);
	diff->hasher = hasher_new(DIGEST_SHA256);
	diff->slots = malloc(SLOTS * sizeof(*diff->slots));
	if (!diff->hasher || !diff->slots || diff_spawn(diff) != 0) {
		diff_release(diff);
		return NULL;
	}
	return diff;
}

static bool diff_slot(struct diff *diff, const void *data, size_t len)
{
	struct slot *slot = &diff->slots[diff->pushed % SLOTS];

	if (diff->pushed - atomic_load(&diff->taken) == SLOTS)
		return false;
	slot->len = len;
	if (len > 0)
		memcpy(slot->data, data, len);
	diff->pushed++;
	sem_post(&diff->filled);
	return true;
}

void diff_push(struct diff *diff, const void *data, size_t len)
{
	const uint8_t *at = data;

	while (diff && len > 0 && !atomic_load(&diff->given_up)) {
		size_t n = MIN(len, SLOT_LEN);

		if (!diff_slot(diff, at, n))
			atomic_store(&diff->given_up, true);
		at += n;
		len -= n;
	}
}

bool diff_finish(struct diff *diff, struct digest *ret)
{
	if (!diff)
		return false;
	if (!diff_slot(diff, NULL, 0)) {
		/* full: a slot that is there is enough to see that it is over */
		atomic_store(&diff->given_up, true);
		sem_post(&diff->filled);
	}
	pthread_join(diff->thread, NULL);
	bool computed = !atomic_load(&diff->given_up);
	if (computed)
		hasher_final(diff->hasher, ret);
	diff_release(diff);
	return computed;
}

void diff_free(struct diff *diff)
{
	struct digest unused;

	if (!diff)
		return;
	/* what is in the ring is not hashed: on a busy machine that could take long */
	atomic_store(&diff->given_up, true);
	diff_finish(diff, &unused);
}
