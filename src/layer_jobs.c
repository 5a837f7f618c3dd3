/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_jobs: builds as jobs: one for many waiters, a few at a time, called off when nobody wants
 * them any more.
 * Must not know what is built.
 */
#include <errno.h>

#include "layer_priv.h"

#define MAX_DECODING 4
#define UNWANTED_MS  5000 /* a build goes on for so long after its last waiter left */

static void build_unref(struct build *build)
{
	struct layers *layers = build->layers;
	bool last;

	pthread_mutex_lock(&layers->lock);
	last = --build->refs == 0;
	pthread_mutex_unlock(&layers->lock);
	if (!last)
		return;
	layer_unref(build->layer);
	wait_release(&build->wait);
	free(build->repo);
	free(build);
}

bool build_is_unwanted(struct build *build)
{
	bool unwanted;

	pthread_mutex_lock(&build->layers->lock);
	unwanted = !build->prepared && !build->interested && build->left_ms &&
		   now_ms() - build->left_ms > UNWANTED_MS;
	pthread_mutex_unlock(&build->layers->lock);
	return unwanted;
}

/* A slot among those that decode. */
static int take_slot(struct build *build)
{
	struct layers *layers = build->layers;
	int r = 0;

	pthread_mutex_lock(&layers->lock);
	while (layers->decoding >= MAX_DECODING && r == 0)
		r = wait_on(&build->wait, &layers->slots, &layers->lock, WAIT_FOREVER);
	if (r == 0)
		layers->decoding++;
	pthread_mutex_unlock(&layers->lock);
	return r;
}

static void give_slot(struct layers *layers)
{
	pthread_mutex_lock(&layers->lock);
	layers->decoding--;
	wait_wake(&layers->slots);
	pthread_mutex_unlock(&layers->lock);
}

/* Takes the build off the list and tells its waiters. */
static void finish(struct build *build, int result, struct layer *layer)
{
	struct layers *layers = build->layers;

	pthread_mutex_lock(&layers->lock);
	for (struct build **at = &layers->builds; *at; at = &(*at)->next) {
		if (*at == build) {
			*at = build->next;
			break;
		}
	}
	build->done = true;
	build->result = result;
	build->layer = layer;
	wait_wake(&build->waiters);
	wait_wake(&layers->ended);
	pthread_mutex_unlock(&layers->lock);
	build_unref(build);
}

static void run(struct pool_work *work)
{
	struct build *build = CONTAINER_OF(work, struct build, work);
	struct layer *layer = NULL;
	int r = take_slot(build);

	if (r == 0) {
		r = build->kind == BUILD_INDEX ? build_index(build, &layer) : build_decoded(build);
		give_slot(build->layers);
	}
	finish(build, r, layer ? layer_install(layer) : NULL);
}

static struct build *build_new(struct layers *layers, enum build_kind kind,
			       const struct blob_id *id)
{
	struct build *build = calloc(1, sizeof(*build));

	if (!build)
		return NULL;
	build->repo = strdup(id->repo);
	if (!build->repo) {
		free(build);
		return NULL;
	}
	build->layers = layers;
	build->kind = kind;
	build->digest = *id->digest;
	build->size = id->size;
	build->store = id->store;
	build->work.run = run;
	build->refs = 1;
	wait_init(&build->wait, true);
	return build;
}

/* The build of ID, with a reference for the caller; started if there is none. */
static int join(struct layers *layers, enum build_kind kind, const struct blob_id *id,
		bool interested, struct build **ret)
{
	struct build *fresh = build_new(layers, kind, id);
	struct build *build;
	int r = 0;

	if (!fresh)
		return -ENOMEM;
	pthread_mutex_lock(&layers->lock);
	for (build = layers->builds; build; build = build->next)
		if (build->kind == kind && digest_equal(&build->digest, id->digest) &&
		    build->size == id->size)
			break;
	if (!build && layers->ending)
		r = -EINTR;
	if (!build && r == 0) {
		build = fresh;
		build->next = layers->builds;
		layers->builds = build;
	}
	if (build) {
		build->refs++;
		build->interested += interested;
		build->prepared |= !interested;
	}
	pthread_mutex_unlock(&layers->lock);

	if (build == fresh && pool_submit(layers->jobs, &fresh->work) < 0) {
		finish(fresh, -EAGAIN, NULL);
		*ret = build;
		return 0;
	}
	if (build != fresh)
		build_unref(fresh);
	if (r == 0)
		*ret = build;
	return r;
}

int build_run(struct layers *layers, enum build_kind kind, const struct blob_id *id,
	      struct wait *wait, struct layer **ret)
{
	struct build *build;
	int r;

	if (!wait_may_block(wait))
		return -EWOULDBLOCK;
	r = join(layers, kind, id, true, &build);
	if (r < 0)
		return r;
	pthread_mutex_lock(&layers->lock);
	while (!build->done && r == 0)
		r = wait_on(wait, &build->waiters, &layers->lock, WAIT_FOREVER);
	if (--build->interested == 0)
		build->left_ms = now_ms();
	if (r == 0)
		r = build->result;
	pthread_mutex_unlock(&layers->lock);
	if (r == 0 && ret)
		*ret = layer_ref(build->layer);
	build_unref(build);
	return r;
}

void build_prepare(struct layers *layers, const struct blob_id *id)
{
	struct build *build;

	if (join(layers, BUILD_INDEX, id, false, &build) == 0)
		build_unref(build);
}

void builds_end(struct layers *layers)
{
	struct wait wait;

	wait_init(&wait, true);
	pthread_mutex_lock(&layers->lock);
	layers->ending = true;
	for (struct build *build = layers->builds; build; build = build->next)
		wait_cancel(&build->wait);
	while (layers->builds)
		wait_on(&wait, &layers->ended, &layers->lock, WAIT_FOREVER);
	pthread_mutex_unlock(&layers->lock);
	wait_release(&wait);
}
