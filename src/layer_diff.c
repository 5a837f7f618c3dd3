/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_diff: the diff ID, hashed on another core while the layer is decoded. Decoding never
 * waits for it: when all buffers are still to be hashed there is no idle core, and it
 * gives up.
 * Must not know what is decoded.
 */
#include "layer_priv.h"

#define BUFFERS 8

struct diff {
	struct pool_work work;
	struct hasher *hasher;
	uint8_t *buffers[BUFFERS];
	size_t lens[BUFFERS];
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* guarded by lock; counts of buffers since the start */
	uint64_t given, hashed;
	bool given_up, ended, running;
};

static void hash_loop(struct pool_work *work)
{
	struct diff *diff = CONTAINER_OF(work, struct diff, work);

	pthread_mutex_lock(&diff->lock);
	for (;;) {
		while (diff->hashed == diff->given && !diff->ended && !diff->given_up)
			pthread_cond_wait(&diff->changed, &diff->lock);
		if (diff->given_up || diff->hashed == diff->given)
			break;
		size_t at = diff->hashed % BUFFERS;

		pthread_mutex_unlock(&diff->lock);
		hasher_add(diff->hasher, diff->buffers[at], diff->lens[at]);
		pthread_mutex_lock(&diff->lock);
		diff->hashed++;
		pthread_cond_signal(&diff->changed);
	}
	diff->running = false;
	pthread_cond_signal(&diff->changed);
	pthread_mutex_unlock(&diff->lock);
}

struct diff *diff_new(struct pool *jobs)
{
	struct diff *diff = calloc(1, sizeof(*diff));

	if (!diff)
		return NULL;
	pthread_mutex_init(&diff->lock, NULL);
	pthread_cond_init(&diff->changed, NULL);
	diff->given_up = true;
	for (size_t i = 0; i < BUFFERS; i++) {
		diff->buffers[i] = malloc(DIFF_BUFFER);
		if (!diff->buffers[i]) {
			diff_cleanup(&diff);
			return NULL;
		}
	}
	diff->hasher = hasher_new(DIGEST_SHA256);
	diff->work.run = hash_loop;
	diff->given_up = diff->hasher == NULL;
	diff->running = !diff->given_up;
	if (diff->running && pool_submit(jobs, &diff->work) < 0)
		diff->given_up = !(diff->running = false);
	return diff;
}

/* Lock held. The hasher's thread reads a buffer at most once more. */
static void give_up(struct diff *diff)
{
	diff->given_up = true;
	pthread_cond_signal(&diff->changed);
	while (diff->running)
		pthread_cond_wait(&diff->changed, &diff->lock);
}

uint8_t *diff_buffer(struct diff *diff)
{
	uint8_t *buffer;

	pthread_mutex_lock(&diff->lock);
	/* the one given last may still be in use by the decoder's reader, so one stays free */
	if (!diff->given_up && diff->given - diff->hashed >= BUFFERS - 1)
		give_up(diff);
	buffer = diff->buffers[diff->given % BUFFERS];
	pthread_mutex_unlock(&diff->lock);
	return buffer;
}

void diff_add(struct diff *diff, size_t len)
{
	pthread_mutex_lock(&diff->lock);
	diff->lens[diff->given % BUFFERS] = len;
	diff->given++;
	pthread_cond_signal(&diff->changed);
	pthread_mutex_unlock(&diff->lock);
}

void diff_finish(struct diff *diff, struct digest *ret)
{
	struct digest digest = {.algo = DIGEST_NONE};

	pthread_mutex_lock(&diff->lock);
	diff->ended = true;
	pthread_cond_signal(&diff->changed);
	while (diff->running)
		pthread_cond_wait(&diff->changed, &diff->lock);
	if (!diff->given_up)
		hasher_final(diff->hasher, &digest);
	pthread_mutex_unlock(&diff->lock);
	*ret = digest;
}

void diff_cleanup(struct diff **at)
{
	struct diff *diff = *at;

	if (!diff)
		return;
	pthread_mutex_lock(&diff->lock);
	give_up(diff);
	pthread_mutex_unlock(&diff->lock);
	hasher_free(diff->hasher);
	for (size_t i = 0; i < BUFFERS; i++)
		free(diff->buffers[i]);
	pthread_cond_destroy(&diff->changed);
	pthread_mutex_destroy(&diff->lock);
	free(diff);
}
