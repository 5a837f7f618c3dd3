/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_prefetch: the layers of images that somebody entered, brought in before they are needed.
 * Knows the order. Must not know how a layer is brought in.
 *
 * One thread, one layer at a time, the top one first: whatever is asked for meanwhile has the
 * other connections to itself, and a layer that is asked for joins the work that is going on.
 */
#include <errno.h>

#include "image_priv.h"

/* Who walks through many images wants none of them in particular: later ones are let go. */
#define QUEUE_MAX 16

struct prefetch {
	struct image *image; /* held */
	struct prefetch *next;
};

/* A failure was logged where it happened; the next reader will see it again. */
static void bring_in(struct prefetcher *prefetcher, struct image *image)
{
	for (size_t n = image->manifest.nlayers; n-- > 0;) {
		struct layer *layer;

		if (wait_cancelled(&prefetcher->wait))
			return;
		if (image_layer(image, (unsigned)n, &prefetcher->wait, &layer) < 0)
			continue;
		(void)layer_bring_in(layer, &prefetcher->wait);
		layer_unref(layer);
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
