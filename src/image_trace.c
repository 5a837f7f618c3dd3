// SPDX-License-Identifier: Apache-2.0
/*
 * image_trace: the first while of an image's use, recorded; and replayed at its next.
 * Knows the record and the order. Must not know how bytes come (layer_plan()), nor what a read
 * gives: nothing that is brought in here is shown to anybody.
 *
 * A job for each image that is read first replays the record there is, then waits until nothing new
 * was read for a while, and puts the record back: what was read in this run, in its order, and
 * behind that what earlier runs read, for some runs more. A mount that ends keeps what it has so
 * far; a crash, the record before.
 */
#include <errno.h>

#include "image_priv.h"
#include "image_trace_priv.h"
#include "regfs/stats.h"

#define RUN_MS	     60000 /* a run is no longer than that */
#define TRACINGS_MAX 16	   /* more images at once are not runs of programs */

/* --- the record at rest --- */

static struct cache_id record_id(const struct image *image)
{
	struct cache_id id = {.kind = CACHE_TRACE};

	digest_key(&image->digest, id.key);
	return id;
}

/* What is known of earlier runs, or NULL. */
static struct trace *recall(const struct image *image)
{
	AUTO_BUF struct buf bytes = BUF_INIT(TRACE_BYTES_MAX);
	struct cache_id id = record_id(image);
	struct trace *trace = NULL;

	if (cache_get(image->images->options.cache, &id, &bytes) == 0 &&
	    trace_parse(bytes.data, bytes.len, &trace) == -EINVAL)
		cache_remove(image->images->options.cache, &id);
	return trace;
}

/* By which numbering the inodes of TRACE are to be understood; what OLD has of other layers stays.
 */
static void set_tags(struct image *image, struct trace *trace, const struct trace *old)
{
	struct wait wait;

	wait_init(&wait, false);
	for (unsigned n = 0; n < MIN(image->manifest.nlayers, (size_t)TRACE_LAYERS_MAX); n++) {
		struct layer *layer;

		trace->tags[n] = old ? old->tags[n] : 0;
		if (image_layer(image, n, &wait, &layer) < 0)
			continue;
		trace->tags[n] = layer_numbering(layer);
		layer_unref(layer);
	}
	wait_release(&wait);
}

static void keep(struct image *image, struct trace *trace, const struct trace *old)
{
	AUTO_BUF struct buf bytes = BUF_INIT(TRACE_BYTES_MAX);
	AUTO_BUF struct buf before = BUF_INIT(TRACE_BYTES_MAX);
	struct cache *cache = image->images->options.cache;
	struct cache_id id = record_id(image);

	if (trace->nparts == 0)
		return;
	set_tags(image, trace, old);
	if (old)
		trace_merge(trace, old);
	if (trace_write(trace, &bytes) < 0 || (old && trace_write(old, &before) < 0))
		return;
	if (bytes.len != before.len || memcmp(bytes.data, before.data, bytes.len) != 0)
		cache_put(cache, &id, bytes.data, bytes.len);
	/* what was used once outlasts what was not: the record is to outlast the blocks it names */
	buf_clear(&before);
	(void)cache_get(cache, &id, &before);
}

static void count_unused(const struct trace *trace, const struct trace *old)
{
	for (uint32_t i = 0; i < old->nparts; i++)
		if (!trace_has(trace, &old->parts[i]))
			stats_add(STAT_REPLAY_UNUSED_BYTES,
				  (int64_t)old->parts[i].count * TRACE_UNIT);
}

/* --- the job --- */

/* Until nothing new was read for a while, the run is long, or the mount ends. */
static void watch(struct tracing *tracing)
{
	struct image *image = tracing->image;
	int64_t end = now_ms() + RUN_MS;
	int64_t settle = image->images->tracers.settle_ms;

	for (;;) {
		pthread_mutex_lock(&image->lock);
		int64_t due = MIN(end, image->trace_ms + settle);
		pthread_mutex_unlock(&image->lock);
		if (now_ms() >= due || wait_until(&tracing->waits[0], due) < 0)
			return;
	}
}

static void finish(struct tracing *tracing, const struct trace *old)
{
	struct image *image = tracing->image;
	AUTO_TRACE struct trace *trace = NULL;

	atomic_store(&image->tracing, TRACE_OVER);
	pthread_mutex_lock(&image->lock);
	trace = STEAL(image->trace);
	pthread_mutex_unlock(&image->lock);
	if (!trace)
		return;
	if (old)
		count_unused(trace, old);
	keep(image, trace, old);
}

static void tracing_free(struct tracing *tracing)
{
	for (size_t i = 0; i < TRACE_WORKERS; i++)
		wait_release(&tracing->waits[i]);
	pthread_cond_destroy(&tracing->idle);
	pthread_mutex_destroy(&tracing->lock);
	free(tracing);
}

/* The job's last touch of anything: tracers_stop() waits for it. */
static void tracing_end(struct tracing *tracing)
{
	struct images *images = tracing->image->images;
	struct tracers *tracers = &images->tracers;

	image_unref(tracing->image);
	pthread_mutex_lock(&images->lock);
	struct tracing **link = &tracers->first;
	while (*link != tracing)
		link = &(*link)->next;
	*link = tracing->next;
	tracers->count--;
	pthread_cond_broadcast(&tracers->ended);
	tracing_free(tracing);
	pthread_mutex_unlock(&images->lock);
}

static void run(struct pool_work *work)
{
	struct tracing *tracing = CONTAINER_OF(work, struct tracing, work);
	AUTO_TRACE struct trace *old = recall(tracing->image);

	if (old && !tracing->image->images->options.offline) {
		stats_add(STAT_REPLAYS, 1);
		trace_replay(tracing, old);
	}
	watch(tracing);
	finish(tracing, old);
	tracing_end(tracing);
}

/* --- beginning --- */

static struct tracing *tracing_new(struct image *image)
{
	struct tracing *tracing = calloc(1, sizeof(*tracing));

	if (!tracing)
		return NULL;
	tracing->work.run = run;
	tracing->image = image;
	for (size_t i = 0; i < TRACE_WORKERS; i++)
		wait_init(&tracing->waits[i], true);
	pthread_mutex_init(&tracing->lock, NULL);
	pthread_cond_init(&tracing->idle, NULL);
	return tracing;
}

/* Takes its place among those that run. */
static bool tracing_enlist(struct images *images, struct tracing *tracing)
{
	struct tracers *tracers = &images->tracers;

	pthread_mutex_lock(&images->lock);
	bool room = !tracers->closing && tracers->count < TRACINGS_MAX;
	if (room) {
		tracing->next = tracers->first;
		tracers->first = tracing;
		tracers->count++;
	}
	pthread_mutex_unlock(&images->lock);
	return room;
}

static void begin(struct image *image)
{
	struct images *images = image->images;
	struct trace *trace = trace_new();
	struct tracing *tracing = trace ? tracing_new(image) : NULL;

	if (!tracing || !tracing_enlist(images, tracing)) {
		if (tracing)
			tracing_free(tracing);
		trace_free(trace);
		atomic_store(&image->tracing, TRACE_OVER);
		return;
	}
	image_ref(image);
	pthread_mutex_lock(&image->lock);
	image->trace = trace;
	image->trace_ms = now_ms();
	pthread_mutex_unlock(&image->lock);
	if (pool_submit(images->options.traces, &tracing->work) < 0) {
		finish(tracing, NULL);
		tracing_end(tracing);
	}
}

void image_reads(struct image *image, unsigned n, uint32_t ino, uint64_t off, size_t len)
{
	int state = atomic_load_explicit(&image->tracing, memory_order_relaxed), none = TRACE_NONE;

	if (state == TRACE_OVER || !image->images->options.traces)
		return;
	if (state == TRACE_NONE && atomic_compare_exchange_strong(&image->tracing, &none, TRACE_ON))
		begin(image);
	pthread_mutex_lock(&image->lock);
	if (image->trace && trace_add(image->trace, (uint16_t)n, ino, off, len))
		image->trace_ms = now_ms();
	pthread_mutex_unlock(&image->lock);
}

void tracers_init(struct tracers *tracers)
{
	tracers->settle_ms = TRACE_SETTLE_MS;
	pthread_cond_init(&tracers->ended, NULL);
}

void tracers_stop(struct images *images)
{
	struct tracers *tracers = &images->tracers;

	pthread_mutex_lock(&images->lock);
	tracers->closing = true;
	for (struct tracing *tracing = tracers->first; tracing; tracing = tracing->next)
		for (size_t i = 0; i < TRACE_WORKERS; i++)
			wait_cancel(&tracing->waits[i]);
	while (tracers->count > 0)
		pthread_cond_wait(&tracers->ended, &images->lock);
	pthread_mutex_unlock(&images->lock);
	pthread_cond_destroy(&tracers->ended);
}
