/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a layer's blob decodes to: its diff ID, found while the blob is sent.
 * Knows codecs, hashes and a job. Must not know images, nor what the diff ID should be.
 *
 * The blob's reader and this one are apart: a job of its own decodes what the source has, beside
 * whatever sends it. (Decoding and hashing on a thread each was slower where cores are few: the
 * pieces then change caches.)
 */
#include <errno.h>

#include "push_priv.h"
#include "regfs/layer.h"
#include "regfs/stats.h"

#define STEP (128 * KIB) /* stays in a core's own cache until it is hashed */

struct push_diff {
	struct cache *cache;	  /* or NULL */
	struct push_inside found; /* the result, once the job does not run */
	const struct store_source *source;
	/* the job's */
	struct pool_work work;
	struct wait work_wait;
	struct decoder *decoder;
	struct hasher *inside;
	struct hasher *outside; /* of what may be another blob by now; else NULL */
	uint64_t off;		/* of the blob, taken */
	uint64_t len_max;	/* it may unpack to */
	char *in, *out;

	pthread_mutex_t lock;
	struct wait_queue ended; /* guarded by lock */
	bool running;		 /* guarded by lock */
	int error;		 /* guarded by lock */
};

uint64_t push_unpacked_max(const struct pushes *pushes, uint64_t size)
{
	uint64_t ratio = PUSH_RATIO_MAX, free = pushes->unpack_free;

	return size > (PUSH_SIZE_MAX - free) / ratio ? PUSH_SIZE_MAX : size * ratio + free;
}

/* --- the job --- */

/* The end: what cannot be decoded is a result. */
static int flawed(struct push_diff *diff, const char *flaw)
{
	diff->found.flaw = flaw;
	return 0;
}

/* More of the blob. 1, 0 at the end, or a negative errno. */
static int take(struct push_diff *diff)
{
	const struct store_source *source = diff->source;
	size_t want = (size_t)MIN(source->size - diff->off, (uint64_t)STEP);

	if (wait_cancelled(&diff->work_wait))
		return -EINTR;
	if (!want)
		return flawed(diff, "it is cut off");
	ssize_t got = store_source_read(source, diff->off, diff->in, want, &diff->work_wait);
	if (got <= 0)
		return got ? (int)got : -EIO;
	diff->off += (uint64_t)got;
	if (diff->outside)
		hasher_add(diff->outside, diff->in, (size_t)got);
	decoder_input(diff->decoder, diff->in, (size_t)got, diff->off == source->size);
	return 1;
}

/* All that was taken. 1: more of the blob is wanted; 0 at the end, or a negative errno. */
static int unpack(struct push_diff *diff, uint64_t *len)
{
	ssize_t got;

	while ((got = decoder_read(diff->decoder, diff->out, STEP)) > 0) {
		hasher_add(diff->inside, diff->out, (size_t)got);
		*len += (uint64_t)got;
		if (*len > diff->len_max)
			return flawed(diff, PUSH_TOO_LARGE);
	}
	if (got == -EINVAL)
		return flawed(diff, decoder_error(diff->decoder));
	if (got < 0)
		return (int)got;
	if (!decoder_done(diff->decoder))
		return 1;
	hasher_final(diff->inside, &diff->found.diff_id);
	return 0;
}

static void diff_run(struct pool_work *work)
{
	struct push_diff *diff = CONTAINER_OF(work, struct push_diff, work);
	uint64_t len = 0;
	int err;

	do {
		err = take(diff);
		if (err > 0)
			err = unpack(diff, &len);
	} while (err > 0);
	pthread_mutex_lock(&diff->lock);
	diff->error = err;
	diff->running = false;
	wait_wake(&diff->ended);
	pthread_mutex_unlock(&diff->lock);
}

/* --- its life --- */

static bool prepare(struct push_diff *diff, enum codec codec, bool fixed)
{
	diff->decoder = decoder_new(codec, NULL);
	diff->inside = hasher_new(DIGEST_SHA256);
	diff->outside = fixed ? NULL : hasher_new(diff->found.blob.algo);
	diff->in = malloc(STEP);
	diff->out = malloc(STEP);
	return diff->decoder && diff->inside && (fixed || diff->outside) && diff->in && diff->out;
}

/* Prepared. */
static int start(struct push_diff *diff, struct pool *jobs)
{
	diff->running = true;
	int err = pool_submit(jobs, &diff->work);
	if (err) {
		diff->running = false;
		return -ENOMEM;
	}
	stats_add(STAT_PUSH_LAYERS_UNPACKED, 1);
	return 0;
}

static struct push_diff *diff_new(const struct store_source *source, const struct digest *digest)
{
	struct push_diff *diff = calloc(1, sizeof(*diff));

	if (!diff)
		return NULL;
	diff->source = source;
	diff->found.blob = *digest;
	diff->work.run = diff_run;
	pthread_mutex_init(&diff->lock, NULL);
	wait_init(&diff->work_wait, true);
	return diff;
}

/* Whether there is nothing to find out. */
static bool is_known(struct push_diff *diff, const struct pushes_options *options, enum codec codec)
{
	struct digest *diff_id = &diff->found.diff_id;

	if (codec == CODEC_PLAIN)
		*diff_id = diff->found.blob;
	return codec == CODEC_PLAIN || options->believe_layers ||
	       (diff->cache && layer_diff_id_find(diff->cache, &diff->found.blob, diff_id));
}

int push_diff_start(const struct push *push, const struct store_source *source,
		    const struct digest *digest, bool fixed, struct push_diff **ret)
{
	const struct pushes_options *options = &push->pushes->options;
	AUTO_DIFF struct push_diff *diff = diff_new(source, digest);
	char magic[CODEC_MAGIC_LEN];

	if (!diff)
		return -ENOMEM;
	diff->cache = options->cache;
	diff->len_max = push_unpacked_max(push->pushes, source->size);
	ssize_t got = source->read(source->arg, 0, magic, (size_t)MIN(source->size, sizeof(magic)));
	if (got < 0)
		return (int)got;
	enum codec codec = codec_detect(magic, (size_t)got);
	if (!is_known(diff, options, codec)) {
		int err = prepare(diff, codec, fixed) ? start(diff, options->jobs) : -ENOMEM;
		if (err)
			return err;
	}
	*ret = STEAL(diff);
	return 0;
}

static int await_job(struct push_diff *diff, struct wait *wait)
{
	int err = 0;

	pthread_mutex_lock(&diff->lock);
	while (!err && diff->running)
		err = wait_on(wait, &diff->ended, &diff->lock, WAIT_FOREVER);
	err = err ? err : diff->error;
	pthread_mutex_unlock(&diff->lock);
	return err;
}

int push_diff_finish(struct push_diff *diff, struct wait *wait, struct push_inside *ret)
{
	int err = await_job(diff, wait);

	if (!err)
		*ret = diff->found;
	return err;
}

void push_diff_keep(struct push_diff *diff)
{
	struct digest blob = diff->found.blob;

	if (!diff->cache || !diff->decoder || diff->found.flaw)
		return;
	if (diff->outside)
		hasher_final(diff->outside, &blob);
	if (digest_equal(&blob, &diff->found.blob))
		layer_diff_id_keep(diff->cache, &blob, &diff->found.diff_id);
}

void push_diff_free(struct push_diff *diff)
{
	struct wait patient;

	if (!diff)
		return;
	wait_cancel(&diff->work_wait);
	wait_init(&patient, true);
	(void)!await_job(diff, &patient);
	wait_release(&patient);
	wait_release(&diff->work_wait);
	pthread_mutex_destroy(&diff->lock);
	decoder_free(diff->decoder);
	hasher_free(diff->inside);
	hasher_free(diff->outside);
	free(diff->in);
	free(diff->out);
	free(diff);
}

void push_diff_cleanup(struct push_diff **diff)
{
	push_diff_free(*diff);
}
