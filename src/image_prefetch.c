/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_prefetch: the layers of images that somebody entered, brought in before they are needed.
 * Knows the order. Must not know how a layer is brought in.
 *
 * One thread, one layer at a time, the top one first, in the background (wait.h): whatever is asked
 * for meanwhile goes first, and a layer that is asked for joins the work that is going on, which is
 * in the background no more.
 */
#include <errno.h>

#include "image_priv.h"

/* Who walks through many images wants none of them in particular: later ones are let go. */
#define QUEUE_MAX 16

/* A registry that is gone is asked again after 5 s, 20 s, 80 s. */
#define TRIES	 4
#define PAUSE_MS 5000

struct prefetch {
	struct image *image; /* held */
	struct prefetch *next;
};

static int bring_layer(struct prefetcher *prefetcher, struct image *image, unsigned n)
{
	struct layer *layer;

	int r = image_layer(image, n, &prefetcher->wait, &layer);
	if (r < 0)
		return r;
	r = layer_bring_in(layer, &prefetcher->wait);
	layer_unref(layer);
	return r;
}

/* All layers once. What has come of one that fails stays, and the next try goes on from there; why
 * it failed was logged where that happened. 0 or the last error. */
static int bring_layers(struct prefetcher *prefetcher, struct image *image)
{
	int failure = 0;

	for (size_t n = image->manifest.nlayers; n-- > 0;) {
		int r = bring_layer(prefetcher, image, (unsigned)n);

		if (wait_cancelled(&prefetcher->wait))
			return 0;
		failure = r < 0 ? r : failure;
	}
	return failure;
}

/* Whether another try may end otherwise: the registry was gone, or too busy. */
static bool may_pass(int error)
{
	return image_store_gone(error) || error == -EBUSY;
}

static void bring_in(struct prefetcher *prefetcher, struct image *image)
{
	int64_t pause = prefetcher->pause_ms;

	for (unsigned tries = 1;; tries++, pause *= 4) {
		int r = bring_layers(prefetcher, image);

		if (!may_pass(r) || tries == TRIES ||
		    wait_until(&prefetcher->wait, now_ms() + pause) < 0)
			return;
	}
}

/* The next of the queue, or NULL: then the thread is over. */
static struct prefetch *take(struct images *images)
{
	struct prefetcher *prefetcher = &images->prefetcher;
	struct prefetch *next;

	pthread_mutex_lock(&images->lock);
	next = prefetcher->queue;
	if (next) {
		prefetcher->queue = next->next;
		prefetcher->length--;
	} else {
		prefetcher->running = false;
		pthread_cond_broadcast(&prefetcher->ended);
	}
	pthread_mutex_unlock(&images->lock);
	return next;
}

static void run(struct pool_work *work)
{
	struct images *images = CONTAINER_OF(work, struct images, prefetcher.work);
	struct prefetch *next;

	while ((next = take(images))) {
		bring_in(&images->prefetcher, next->image);
		image_unref(next->image);
		free(next);
	}
}

/* Puts FRESH at the queue's end. 1: the thread is to be started; 0; -EBUSY: there is no room. Lock
 * held. */
static int enqueue(struct prefetcher *prefetcher, struct prefetch *fresh)
{
	struct prefetch **end = &prefetcher->queue;

	if (prefetcher->closing || prefetcher->length == QUEUE_MAX)
		return -EBUSY;
	while (*end)
		end = &(*end)->next;
	*end = fresh;
	prefetcher->length++;
	if (prefetcher->running)
		return 0;
	prefetcher->running = true;
	return 1;
}

/* Once for an image, as long as it is remembered. */
static bool is_first(struct image *image)
{
	pthread_mutex_lock(&image->lock);
	bool first = !image->prefetched;
	image->prefetched = true;
	pthread_mutex_unlock(&image->lock);
	return first;
}

void image_entered(struct image *image)
{
	struct images *images = image->images;
	struct prefetch *fresh;
	int r;

	if (!images->options.prefetch || !is_first(image))
		return;
	fresh = calloc(1, sizeof(*fresh));
	if (!fresh)
		return;
	fresh->image = image_ref(image);
	pthread_mutex_lock(&images->lock);
	r = enqueue(&images->prefetcher, fresh);
	pthread_mutex_unlock(&images->lock);
	if (r < 0) {
		image_unref(image);
		free(fresh);
	} else if (r > 0 && pool_submit(images->options.prefetch, &images->prefetcher.work) < 0) {
		/* no thread is to be had: nothing is fetched ahead */
		wait_cancel(&images->prefetcher.wait);
		run(&images->prefetcher.work);
	}
}

void prefetcher_init(struct prefetcher *prefetcher)
{
	wait_init(&prefetcher->wait, true);
	wait_set_background(&prefetcher->wait);
	prefetcher->pause_ms = PAUSE_MS;
	pthread_cond_init(&prefetcher->ended, NULL);
	prefetcher->work.run = run;
}

void prefetcher_stop(struct images *images)
{
	struct prefetcher *prefetcher = &images->prefetcher;

	wait_cancel(&prefetcher->wait);
	pthread_mutex_lock(&images->lock);
	prefetcher->closing = true;
	while (prefetcher->running)
		pthread_cond_wait(&prefetcher->ended, &images->lock);
	pthread_mutex_unlock(&images->lock);
	pthread_cond_destroy(&prefetcher->ended);
	wait_release(&prefetcher->wait);
}
