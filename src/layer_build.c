// SPDX-License-Identifier: Apache-2.0
/*
 * The job that builds a layer's index: the blob's stream, decoded, scanned as tar, with resume
 * points, all in one walk; while the blob's pass fetches and hashes on its own thread.
 * Knows the pipeline. Must not know how an index is read.
 *
 * Nothing leaves the job before the blob's stream has come to its verified end.
 */
#include <errno.h>
#include <sys/stat.h>

#include "layer_priv.h"
#include "regfs/log.h"
#include "regfs/stats.h"
#include "regfs/tar.h"

#define OUT_LEN	    (128 * KIB) /* less than LAYER_SPACING: one point at most in each */
#define WHY_LEN	    128
#define MEMBERS_MAX 8000000 /* of one layer; they are in memory until the index is written */

struct build {
	struct pool_work work;
	struct layer *layer;
	struct wait wait;
	char *repo;
	struct blob_id id;
	uint64_t source; /* what that was when it began */
	bool slot;	 /* it may decode; guarded by layers->lock */
	struct build *next;

	struct blob_stream *stream;
	enum codec codec;
	struct decoder *decoder; /* NULL: plain */
	struct index_builder *builder;
	struct diff *diff;
	struct keep keep;
	uint8_t *out;
	uint64_t plain_len;
	uint32_t members;
	bool has_point; /* keep still has to hear of point */
	uint64_t point;
	bool ended;	  /* the stream came to its verified end */
	int stream_error; /* the blob's, not the content's */
	char why[WHY_LEN];
};

/* --- being wanted --- */

/* -ECANCELED when nobody has waited for a while. Lock held. */
static int build_wanted(const struct build *build)
{
	const struct layer *layer = build->layer;

	if (layer->layers->closing)
		return -EINTR;
	if (layer->waiters == 0 && now_ms() - layer->idle_ms >= layer->layers->idle_ms)
		return -ECANCELED;
	return 0;
}

static int build_check(struct build *build)
{
	struct layers *layers = build->layer->layers;

	pthread_mutex_lock(&layers->lock);
	int r = build_wanted(build);
	pthread_mutex_unlock(&layers->lock);
	return r;
}

/* What one store is slow with keeps only its own layers waiting. Lock held. */
static bool build_has_room(const struct build *build)
{
	const struct layers *layers = build->layer->layers;
	unsigned same = 0;

	for (const struct build *other = layers->builds; other; other = other->next)
		same += other->slot && other->id.store == build->id.store;
	return same < LAYERS_BUILDS_MAX && layers->decoding < LAYERS_DECODING_MAX;
}

static int build_take_slot(struct build *build)
{
	struct layers *layers = build->layer->layers;
	int r = 0;

	pthread_mutex_lock(&layers->lock);
	while (r == 0 && !build_has_room(build)) {
		r = wait_on(&build->wait, &layers->slots, &layers->lock,
			    now_ms() + layers->idle_ms);
		if (r == -ETIMEDOUT)
			r = build_wanted(build);
	}
	if (r == 0) {
		build->slot = true;
		layers->decoding++;
	}
	pthread_mutex_unlock(&layers->lock);
	return r;
}

/* --- the source of the scan --- */

static int build_point(void *arg, const struct codec_point *point)
{
	struct build *build = arg;

	build->has_point = true;
	build->point = point->out_off;
	return index_builder_point(build->builder, point);
}

/* The next bytes of the blob. 0: its verified end. */
static ssize_t build_piece(struct build *build, const void **ret)
{
	ssize_t n = 0;

	if (build->ended)
		return 0;
	int r = build_check(build);
	if (r == 0)
		n = blob_stream_read(build->stream, ret, &build->wait);
	if (r < 0 || n < 0) {
		build->stream_error = r < 0 ? r : (int)n;
		return build->stream_error;
	}
	build->ended = n == 0;
	return n;
}

/* Hands on what the decoder gave: the output ends at the decoder's offset. A point may lie in or at
 * the end of it, or further on still: decoding runs ahead. */
static void build_decoded(struct build *build, size_t len)
{
	uint64_t end = decoder_out_off(build->decoder);
	bool reached = build->has_point && build->point <= end;
	size_t before = reached ? len - (end - build->point) : len;

	diff_push(build->diff, build->out, len);
	keep_data(&build->keep, build->out, before);
	if (reached) {
		keep_point(&build->keep);
		build->has_point = false;
	}
	keep_data(&build->keep, build->out + before, len - before);
}

static ssize_t build_read_decoded(struct build *build, const void **ret)
{
	for (;;) {
		const void *piece = NULL;
		ssize_t n = decoder_read(build->decoder, build->out, OUT_LEN);

		if (n == -EINVAL)
			snprintf(build->why, WHY_LEN, "%s", decoder_error(build->decoder));
		if (n > 0) {
			build_decoded(build, n);
			*ret = build->out;
		}
		if (n != 0 || decoder_done(build->decoder))
			return n;
		n = build_piece(build, &piece);
		if (n < 0)
			return n;
		decoder_input(build->decoder, piece, n, n == 0);
	}
}

static ssize_t build_read(void *arg, const void **ret)
{
	struct build *build = arg;

	if (build->decoder)
		return build_read_decoded(build, ret);
	ssize_t n = build_piece(build, ret);
	if (n > 0)
		build->plain_len += n;
	return n;
}

static int build_member(void *arg, const struct tar_member *member)
{
	struct build *build = arg;

	if (build->layer->hides && S_ISREG(member->mode) && !member->hard_link &&
	    toc_is_hidden(member->path))
		return 0;
	if (++build->members > MEMBERS_MAX) {
		snprintf(build->why, WHY_LEN, "it has more than %d members", MEMBERS_MAX);
		return -EINVAL;
	}
	int r = index_builder_member(build->builder, member);
	if (r == -EINVAL)
		snprintf(build->why, WHY_LEN, "a member has an impossible name");
	if (r == -EFBIG)
		snprintf(build->why, WHY_LEN, "it names too many files and directories");
	return r == -EFBIG ? -EINVAL : r;
}

/* --- the walk --- */

/* The first piece says how the blob is encoded. It stays lent out until the next is asked for. */
static int build_prepare(struct build *build, const void **ret_first, ssize_t *ret_len)
{
	const struct decoder_options options = {
		.spacing = LAYER_SPACING, .on_point = build_point, .arg = build};

	int r = blob_stream_open(build->layer->layers->blobs, &build->id, &build->wait,
				 &build->stream);
	if (r < 0)
		return build->stream_error = r;
	ssize_t n = build_piece(build, ret_first);
	if (n < 0)
		return n;
	build->codec = n > 0 ? codec_detect(*ret_first, n) : CODEC_PLAIN;
	build->builder = index_builder_new();
	build->out = malloc(OUT_LEN);
	if (!build->builder || !build->out)
		return -ENOMEM;
	if (build->codec != CODEC_PLAIN) {
		build->decoder = decoder_new(build->codec, &options);
		if (!build->decoder)
			return -ENOMEM;
		build->diff = diff_start();
		decoder_input(build->decoder, *ret_first, n, n == 0);
	}
	*ret_len = n;
	return 0;
}

/* For plain blobs: the first piece was read already, to look at its magic. */
struct replay {
	struct build *build;
	const void *first;
	ssize_t len;
};

static ssize_t replay_read(void *arg, const void **ret)
{
	struct replay *replay = arg;
	ssize_t n = replay->len;

	if (n == 0 || replay->build->decoder)
		return build_read(replay->build, ret);
	*ret = replay->first;
	replay->len = 0;
	replay->build->plain_len += n;
	return n;
}

static int member_of_replay(void *arg, const struct tar_member *member)
{
	struct replay *replay = arg;

	return build_member(replay->build, member);
}

static int build_scan(struct build *build)
{
	struct replay replay = {.build = build};
	const struct tar_source source = {.read = replay_read, .arg = &replay};
	char why[WHY_LEN] = "";

	int r = build_prepare(build, &replay.first, &replay.len);
	if (r < 0)
		return r;
	r = tar_scan(&source, member_of_replay, &replay, NULL, why, sizeof(why));
	if (r == -EINVAL && !build->why[0])
		snprintf(build->why, WHY_LEN, "%s", why);
	return r;
}

/* What follows the archive, up to the verified end: without it nothing counts, not even what is
 * wrong with the content. */
static int build_drain(struct build *build)
{
	const void *piece;
	ssize_t n;

	do {
		n = build_piece(build, &piece);
	} while (n > 0);
	return n;
}

/* --- the index --- */

static void build_describe(struct build *build, struct index_info *info)
{
	const struct layer *layer = build->layer;

	*info = (struct index_info){
		.blob = layer->digest,
		.blob_size = layer->size,
		.decoded_size = build->decoder ? decoder_out_off(build->decoder) : build->plain_len,
		.codec = build->codec,
		.keep_decoded = build->keep.gap,
	};
	if (build->codec == CODEC_PLAIN)
		info->diff_id = layer->digest;
	else if (!diff_finish(STEAL(build->diff), &info->diff_id))
		info->diff_id = (struct digest){.algo = DIGEST_NONE};
}

static int build_publish(struct build *build)
{
	AUTO_BUF struct buf file = BUF_INIT(INDEX_MAX);
	struct index_info info;

	build_describe(build, &info);
	int r = index_builder_finish(build->builder, &info, &file);
	if (r < 0)
		return r;
	return layer_publish(build->layer, CACHE_INDEX, &file);
}

static void build_log_content(const struct build *build)
{
	char name[DIGEST_STR_MAX];

	layer_log_name(build->layer, name);
	log_error("%s/%s: layer %s: its digest is right, but it cannot be read as a layer: %s",
		  build->id.store->name, build->id.repo, name,
		  build->why[0] ? build->why : "unknown reason");
}

/* *RET_FOR_GOOD: it is the content itself that is wrong. */
static int build_index(struct build *build, bool *ret_for_good)
{
	int r = build_scan(build);

	if (r < 0 && (build->stream_error || r != -EINVAL))
		return build->stream_error ? build->stream_error : r;
	int end = build_drain(build);
	if (end < 0)
		return end;
	if (r == 0)
		r = build_publish(build);
	if (r == -EINVAL || r == -EFBIG) {
		build_log_content(build);
		*ret_for_good = true;
		return -EIO;
	}
	return r;
}

/* --- the job --- */

static void build_free(struct build *build)
{
	blob_stream_close(build->stream);
	decoder_free(build->decoder);
	index_builder_free(build->builder);
	diff_free(build->diff);
	wait_release(&build->wait);
	free(build->out);
	free(build->repo);
	free(build);
}

static void build_unlist(struct build *build)
{
	struct layers *layers = build->layer->layers;
	struct build **link = &layers->builds;

	pthread_mutex_lock(&layers->lock);
	while (*link != build)
		link = &(*link)->next;
	*link = build->next;
	if (build->slot)
		layers->decoding--;
	wait_wake(&layers->slots);
	pthread_mutex_unlock(&layers->lock);
}

static void build_end(struct build *build, int result, bool for_good)
{
	struct layer *layer = build->layer;
	struct layers *layers = layer->layers;
	uint64_t source = build->source;

	keep_finish(&build->keep, result == 0);
	build_unlist(build);
	build_free(build);
	layer_settle(layer, result, source, for_good);
	layer_unref(layer);
	pthread_mutex_lock(&layers->lock);
	if (--layers->running == 0)
		pthread_cond_broadcast(&layers->drained);
	pthread_mutex_unlock(&layers->lock);
}

/* By the shortest way there is. */
static int build_any(struct build *build, bool *ret_for_good)
{
	struct layer *layer = build->layer;
	/* another process may have built it while this one queued */
	int r = layer_map(layer);

	if (r != -ENOENT)
		return r;
	r = build_take_slot(build);
	if (r == 0)
		r = layer->has_toc ? layer_by_toc(layer, &build->id, &build->wait) : 1;
	if (r <= 0)
		return r;
	keep_init(&build->keep, layer->layers->cache, layer->decoded_key);
	r = build_index(build, ret_for_good);
	if (r == 0)
		stats_add(STAT_LAYERS_INDEXED, 1);
	return r;
}

static void build_run(struct pool_work *work)
{
	struct build *build = CONTAINER_OF(work, struct build, work);
	bool for_good = false;

	int r = build_any(build, &for_good);
	build_end(build, r, for_good);
}

static struct build *build_new(struct layer *layer, const struct blob_id *id)
{
	struct build *build = calloc(1, sizeof(*build));

	if (!build)
		return NULL;
	wait_init(&build->wait, true);
	build->work.run = build_run;
	build->layer = layer;
	build->repo = strdup(id->repo);
	build->id = *id;
	build->id.digest = &layer->digest;
	build->id.repo = build->repo;
	build->source = blob_source(id);
	if (!build->repo) {
		build_free(build);
		return NULL;
	}
	return build;
}

int build_start(struct layer *layer, const struct blob_id *id)
{
	struct layers *layers = layer->layers;
	struct build *build = build_new(layer, id);

	if (!build)
		return -ENOMEM;
	pthread_mutex_lock(&layers->lock);
	if (!layer->awaited)
		wait_set_background(&build->wait);
	build->next = layers->builds;
	layers->builds = build;
	layers->running++;
	layer->refs++;
	pthread_mutex_unlock(&layers->lock);
	if (pool_submit(layers->jobs, &build->work) < 0)
		build_end(build, -ENOMEM, false);
	return 0;
}

void build_hurry(struct layer *layer)
{
	layer->awaited = true;
	for (struct build *build = layer->layers->builds; build; build = build->next)
		if (build->layer == layer)
			wait_hurry(&build->wait);
}

void build_cancel_all(struct layers *layers)
{
	for (struct build *build = layers->builds; build; build = build->next)
		wait_cancel(&build->wait);
}
