/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a layer's blob decodes to: its diff ID, found while the blob is sent.
 * Knows codecs, hashes and a thread. Must not know images, nor what the diff ID should be.
 *
 * The blob's reader and this one are apart: a thread under SCHED_IDLE decodes with the time that
 * nobody else wants, while the registry and the line are what is waited for. Such a thread may not
 * get any for long, and could not leave its class without privilege; so who finishes takes over
 * from it, where it stands, and decodes the rest by itself.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>

#include "push_priv.h"

#define STEP	   (128 * KIB) /* what the thread holds on to when it is to stop */
#define ALONE_SIZE (256 * KIB) /* of a blob so small a thread is not worth it */

struct push_diff {
	const struct store_source *source;
	struct push_inside inside; /* the result */
	struct decoder *decoder;   /* NULL: the blob is what it decodes to */
	struct hasher *hasher;
	uint64_t off, len; /* of the blob, taken; decoded */
	bool filled;	   /* the decoder has input */
	int result;	   /* of the last step */
	char *in, *out;
	bool helped; /* there is a thread, to be joined */
	pthread_t thread;
	struct wait thread_wait;
	atomic_bool enough; /* the thread is to stop */
};

uint64_t push_unpacked_max(uint64_t size)
{
	uint64_t ratio = PUSH_RATIO_MAX;

	return size > (PUSH_SIZE_MAX - PUSH_RATIO_FREE) / ratio ? PUSH_SIZE_MAX
								: size * ratio + PUSH_RATIO_FREE;
}

/* 1: it is decoded; 0: go on; or a negative errno. What cannot be decoded is a result. */
static int flawed(struct push_diff *diff, const char *flaw)
{
	diff->inside.flaw = flaw;
	return 1;
}

static int fill(struct push_diff *diff, struct wait *wait)
{
	const struct store_source *source = diff->source;
	size_t want = (size_t)MIN(source->size - diff->off, (uint64_t)STEP);

	if (!want)
		return flawed(diff, "it is cut off");
	ssize_t got = store_source_read(source, diff->off, diff->in, want, wait);
	if (got <= 0)
		return got ? (int)got : -EIO;
	diff->off += (uint64_t)got;
	decoder_input(diff->decoder, diff->in, (size_t)got, diff->off == source->size);
	diff->filled = true;
	return 0;
}

static int step(struct push_diff *diff, struct wait *wait)
{
	if (wait_cancelled(wait))
		return -EINTR;
	if (!diff->filled)
		return fill(diff, wait);
	ssize_t got = decoder_read(diff->decoder, diff->out, STEP);
	if (got == -EINVAL)
		return flawed(diff, decoder_error(diff->decoder));
	if (got < 0)
		return (int)got;
	hasher_add(diff->hasher, diff->out, (size_t)got);
	diff->len += (uint64_t)got;
	if (diff->len > push_unpacked_max(diff->source->size))
		return flawed(diff, "it unpacks to more than any layer does");
	diff->filled = got > 0;
	if (got > 0 || !decoder_done(diff->decoder))
		return 0;
	hasher_final(diff->hasher, &diff->inside.diff_id);
	return 1;
}

/* --- the thread --- */

static void *help(void *arg)
{
	struct push_diff *diff = arg;

	while (!atomic_load(&diff->enough) && !diff->result)
		diff->result = step(diff, &diff->thread_wait);
	/* Called off where it changed nothing. */
	if (diff->result == -EINTR)
		diff->result = 0;
	return NULL;
}

static void start_thread(struct push_diff *diff)
{
	const struct sched_param param = {0};
	sigset_t all, before;

	/* Signals are for the main thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	diff->helped = pthread_create(&diff->thread, NULL, help, diff) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (diff->helped)
		pthread_setschedparam(diff->thread, SCHED_IDLE, &param);
}

static void stop_thread(struct push_diff *diff)
{
	if (!diff->helped)
		return;
	atomic_store(&diff->enough, true);
	wait_cancel(&diff->thread_wait);
	pthread_join(diff->thread, NULL);
	diff->helped = false;
}

/* --- its life --- */

static bool prepare(struct push_diff *diff, enum codec codec)
{
	diff->decoder = decoder_new(codec, NULL);
	diff->hasher = hasher_new(DIGEST_SHA256);
	diff->in = malloc(STEP);
	diff->out = malloc(STEP);
	return diff->decoder && diff->hasher && diff->in && diff->out;
}

int push_diff_start(const struct push *push, const struct store_source *source,
		    const struct digest *digest, struct push_diff **ret)
{
	CLEANUP(push_diff_cleanup) struct push_diff *diff = calloc(1, sizeof(*diff));
	char magic[CODEC_MAGIC_LEN];

	if (!diff)
		return -ENOMEM;
	diff->source = source;
	diff->inside.blob = *digest;
	wait_init(&diff->thread_wait, true);
	ssize_t got = source->read(source->arg, 0, magic, (size_t)MIN(source->size, sizeof(magic)));
	if (got < 0)
		return (int)got;
	enum codec codec = codec_detect(magic, (size_t)got);
	if (codec == CODEC_PLAIN) {
		diff->inside.diff_id = *digest;
		diff->result = 1;
	} else if (push->pushes->options.believe_layers) {
		diff->result = 1;
	} else if (!prepare(diff, codec)) {
		return -ENOMEM;
	} else if (source->size > ALONE_SIZE) {
		start_thread(diff);
	}
	*ret = STEAL(diff);
	return 0;
}

int push_diff_finish(struct push_diff *diff, struct wait *wait, struct push_inside *ret)
{
	stop_thread(diff);
	while (!diff->result)
		diff->result = step(diff, wait);
	if (diff->result < 0)
		return diff->result;
	*ret = diff->inside;
	return 0;
}

void push_diff_free(struct push_diff *diff)
{
	if (!diff)
		return;
	stop_thread(diff);
	wait_release(&diff->thread_wait);
	decoder_free(diff->decoder);
	hasher_free(diff->hasher);
	free(diff->in);
	free(diff->out);
	free(diff);
}

void push_diff_cleanup(struct push_diff **diff)
{
	push_diff_free(*diff);
}
