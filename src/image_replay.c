// SPDX-License-Identifier: Apache-2.0
/*
 * image_replay: what a record of an earlier run names, brought in.
 * Knows layers, plans and helpers. Must not know who reads, nor where the record comes from.
 *
 * Layers whose index is at hand go first, all their ranges in the order of the record; then the
 * others, whose tables have been on their way meanwhile. Where the way to the registry is long,
 * helpers bring several ranges at once.
 */
#include <errno.h>

#include "image_trace_priv.h"
#include "regfs/stats.h"

/* One range of one layer's plan. */
struct step {
	uint32_t plan;
	size_t range;
	uint32_t order;
};

struct planned {
	struct layer *layer; /* held */
	struct layer_plan *plan;
	uint32_t *order; /* of each of its parts, in the record */
};

struct replay;

struct helper {
	struct pool_work work;
	struct replay *replay;
	struct wait *wait;
};

struct replay {
	struct tracing *tracing;
	const struct trace *old;
	struct planned *plans; /* of this round */
	uint32_t nplans;
	struct step *steps;
	uint32_t nsteps;
	bool done[TRACE_LAYERS_MAX]; /* layers */
	struct helper helpers[TRACE_WORKERS - 1];
	/* guarded by tracing->lock */
	uint32_t next;
	unsigned started, busy; /* helpers */
};

/* --- plans --- */

static void planned_release(struct planned *planned)
{
	layer_plan_free(planned->plan);
	layer_unref(planned->layer);
	free(planned->order);
}

/* What OLD has of layer N, as parts. Their number, or -ENOMEM. */
static ssize_t parts_of(const struct trace *old, unsigned n, struct layer_part **ret,
			uint32_t **ret_order)
{
	AUTO_FREE struct layer_part *parts = calloc(old->nparts, sizeof(*parts));
	AUTO_FREE uint32_t *order = calloc(old->nparts, sizeof(*order));
	size_t count = 0;

	if (!parts || !order)
		return -ENOMEM;
	for (uint32_t i = 0; i < old->nparts; i++) {
		const struct trace_part *part = &old->parts[i];

		if (part->layer != n)
			continue;
		order[count] = i;
		parts[count++] = (struct layer_part){
			.ino = part->ino,
			.off = (uint64_t)part->unit * TRACE_UNIT,
			.len = (uint64_t)part->count * TRACE_UNIT,
		};
	}
	*ret = STEAL(parts);
	*ret_order = STEAL(order);
	return (ssize_t)count;
}

/* Adds the plan for layer N. -EWOULDBLOCK where its index is not at hand and WAIT may not block;
 * other failures are those of reading, and whoever reads will see them. */
static int plan_layer(struct replay *replay, unsigned n, struct wait *wait)
{
	AUTO_FREE struct layer_part *parts = NULL;
	struct planned *planned = &replay->plans[replay->nplans];
	struct layer *layer;

	int r = image_layer(replay->tracing->image, n, wait, &layer);
	if (r < 0)
		return r;
	*planned = (struct planned){.layer = layer};
	ssize_t count = 0;
	if (layer_numbering(layer) == replay->old->tags[n])
		count = parts_of(replay->old, n, &parts, &planned->order);
	if (count > 0)
		r = layer_plan(layer, parts, (size_t)count, &planned->plan);
	if (count <= 0 || r < 0)
		planned_release(planned);
	else
		replay->nplans++;
	return r;
}

/* --- steps --- */

static int by_order(const void *a, const void *b)
{
	const struct step *x = a, *y = b;

	return x->order < y->order ? -1 : x->order > y->order;
}

static int list_steps(struct replay *replay)
{
	size_t count = 0;

	for (uint32_t i = 0; i < replay->nplans; i++)
		count += layer_plan_count(replay->plans[i].plan);
	replay->steps = calloc(count + 1, sizeof(*replay->steps));
	replay->nsteps = replay->next = 0;
	if (!replay->steps)
		return -ENOMEM;
	for (uint32_t i = 0; i < replay->nplans; i++) {
		const struct planned *planned = &replay->plans[i];

		for (size_t range = 0; range < layer_plan_count(planned->plan); range++)
			replay->steps[replay->nsteps++] = (struct step){
				.plan = i,
				.range = range,
				.order = planned->order[layer_plan_first(planned->plan, range)],
			};
	}
	qsort(replay->steps, replay->nsteps, sizeof(*replay->steps), by_order);
	return 0;
}

/* The next step that nobody has taken; NULL: there is none. */
static const struct step *step_take(struct replay *replay)
{
	struct tracing *tracing = replay->tracing;
	const struct step *step = NULL;

	pthread_mutex_lock(&tracing->lock);
	if (replay->next < replay->nsteps)
		step = &replay->steps[replay->next++];
	pthread_mutex_unlock(&tracing->lock);
	return step;
}

static void help(struct pool_work *work);

/* As many helpers as suit the way to the registry, by now. */
static void call_helpers(struct replay *replay)
{
	struct tracing *tracing = replay->tracing;
	const struct images_options *options = &tracing->image->images->options;
	unsigned wanted = MIN(blobs_parallel(options->blobs, tracing->image->store),
			      (unsigned)TRACE_WORKERS) -
			  1;

	while (replay->started < wanted) {
		struct helper *helper = &replay->helpers[replay->started];

		*helper = (struct helper){.work.run = help,
					  .replay = replay,
					  .wait = &tracing->waits[1 + replay->started]};
		pthread_mutex_lock(&tracing->lock);
		replay->busy++;
		pthread_mutex_unlock(&tracing->lock);
		replay->started++;
		if (pool_submit(options->traces, &helper->work) == 0)
			continue;
		pthread_mutex_lock(&tracing->lock);
		replay->busy--;
		pthread_mutex_unlock(&tracing->lock);
		return;
	}
}

/* A range that fails was logged, and is its reader's to see. */
static void bring(struct replay *replay, const struct step *step, struct wait *wait)
{
	ssize_t n = layer_plan_bring(replay->plans[step->plan].plan, step->range, wait);

	if (n > 0)
		stats_add(STAT_REPLAY_BYTES, n);
}

static void help(struct pool_work *work)
{
	struct helper *helper = CONTAINER_OF(work, struct helper, work);
	struct replay *replay = helper->replay;
	struct tracing *tracing = replay->tracing;
	const struct step *step;

	while (!wait_cancelled(helper->wait) && (step = step_take(replay)))
		bring(replay, step, helper->wait);
	pthread_mutex_lock(&tracing->lock);
	replay->busy--;
	pthread_cond_signal(&tracing->idle);
	pthread_mutex_unlock(&tracing->lock);
}

static void run_steps(struct replay *replay)
{
	struct tracing *tracing = replay->tracing;
	struct wait *wait = &tracing->waits[0];
	const struct step *step;

	replay->started = 0;
	while (!wait_cancelled(wait)) {
		if (replay->nsteps > 1)
			call_helpers(replay);
		step = step_take(replay);
		if (!step)
			break;
		bring(replay, step, wait);
	}
	pthread_mutex_lock(&tracing->lock);
	while (replay->busy > 0)
		pthread_cond_wait(&tracing->idle, &tracing->lock);
	pthread_mutex_unlock(&tracing->lock);
}

/* Brings in what is planned. */
static void run_round(struct replay *replay)
{
	if (replay->nplans > 0 && list_steps(replay) == 0)
		run_steps(replay);
	while (replay->nplans > 0)
		planned_release(&replay->plans[--replay->nplans]);
	free(STEAL(replay->steps));
}

/* --- layers --- */

static void find_layers(const struct trace *old, size_t nlayers, bool wanted[])
{
	for (uint32_t i = 0; i < old->nparts; i++)
		if (old->parts[i].layer < nlayers && old->tags[old->parts[i].layer])
			wanted[old->parts[i].layer] = true;
}

static void replay_layers(struct replay *replay, const bool wanted[], size_t nlayers)
{
	struct image *image = replay->tracing->image;
	struct wait quick;

	wait_init(&quick, false);
	for (unsigned n = 0; n < nlayers; n++)
		if (wanted[n])
			replay->done[n] = plan_layer(replay, n, &quick) != -EWOULDBLOCK;
	wait_release(&quick);
	/* the run read them: what they cost, it costs anyway */
	for (unsigned n = 0; n < nlayers; n++)
		if (wanted[n] && !replay->done[n])
			image_layer_prepare(image, n);
	run_round(replay);
	for (unsigned n = 0; n < nlayers; n++) {
		if (!wanted[n] || replay->done[n] || wait_cancelled(&replay->tracing->waits[0]))
			continue;
		plan_layer(replay, n, &replay->tracing->waits[0]);
		run_round(replay);
	}
}

void trace_replay(struct tracing *tracing, const struct trace *old)
{
	size_t nlayers = MIN(tracing->image->manifest.nlayers, (size_t)TRACE_LAYERS_MAX);
	AUTO_FREE struct replay *replay = calloc(1, sizeof(*replay));
	AUTO_FREE struct planned *plans = calloc(nlayers + 1, sizeof(*plans));
	bool wanted[TRACE_LAYERS_MAX] = {false};

	if (!replay || !plans)
		return;
	replay->tracing = tracing;
	replay->old = old;
	replay->plans = plans;
	find_layers(old, nlayers, wanted);
	replay_layers(replay, wanted, nlayers);
}
