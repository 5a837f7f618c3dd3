// SPDX-License-Identifier: Apache-2.0
/*
 * layer_ahead: what a sequential reader comes to next is decoded beside it, on other threads: one
 * decoder keeps one processor busy, and the reader waits for it.
 * Knows who reads on where a read has ended. Must not know how spans are decoded, nor fetch: what
 * is not at hand is left to the reader.
 */
#include "layer_priv.h"

#define READ_MIN (64 * KIB) /* the kernel asks for so much only where somebody reads on */
/* Spans that begin within that are made: of all readers less than the pieces kept in memory. */
#define AHEAD_LEN (3 * MIB)

struct ahead {
	struct pool_work work;
	struct layer *layer; /* counted in */
	struct stream_part part;
};

static void ahead_end(struct ahead *ahead)
{
	struct layer *layer = ahead->layer;

	atomic_fetch_sub(&layer->layers->ahead_now, 1);
	free(ahead);
	layer_job_end(layer);
}

static void ahead_run(struct pool_work *work)
{
	struct ahead *ahead = CONTAINER_OF(work, struct ahead, work);
	struct wait wait;

	wait_init(&wait, false);
	spans_read(ahead->layer, &ahead->part, &wait);
	wait_release(&wait);
	ahead_end(ahead);
}

/* False: there are enough already. */
static bool ahead_start(struct layer *layer, const struct stream_part *part)
{
	struct layers *layers = layer->layers;
	struct ahead *ahead;

	if (atomic_load(&layers->ahead_now) >= layers->ahead_max)
		return false;
	ahead = malloc(sizeof(*ahead));
	if (!ahead || layer_job_begin(layer) < 0) {
		free(ahead);
		return false;
	}
	atomic_fetch_add(&layers->ahead_now, 1);
	*ahead = (struct ahead){.work = {.run = ahead_run}, .layer = layer, .part = *part};
	if (pool_submit(layers->jobs, &ahead->work) < 0) {
		ahead_end(ahead);
		return false;
	}
	return true;
}

/* Who reads PART on; NULL: nobody does, or the read is done once more. */
static struct layer_reader *reader_find(struct layer *layer, const struct stream_part *part)
{
	struct layers *layers = layer->layers;
	struct layer_reader *reader = NULL;
	uint64_t stop = part->off + part->len;
	uint64_t begin = hash64(layer->serial, &part->off, sizeof(part->off));
	uint64_t end = hash64(layer->serial, &stop, sizeof(stop));

	for (size_t i = 0; i < LAYER_READERS; i++) {
		uint64_t at = atomic_load(&layers->readers[i].end);

		if (at == end)
			return NULL;
		if (at == begin)
			reader = &layers->readers[i];
	}
	if (reader) {
		atomic_store(&reader->end, end);
		return reader;
	}
	/* perhaps the first read of one */
	reader = &layers->readers[atomic_fetch_add(&layers->next_reader, 1) % LAYER_READERS];
	atomic_store(&reader->made, 0);
	atomic_store(&reader->end, end);
	return NULL;
}

void layer_ahead(struct layer *layer, const struct stream_part *read, const struct wait *wait)
{
	uint64_t end = read->off + read->len, to = MIN(end + AHEAD_LEN, read->file_end);

	/* in the background nobody waits for more of it */
	if (read->len < READ_MIN || layer->layers->ahead_max == 0 || wait_background(wait))
		return;
	struct layer_reader *reader = reader_find(layer, read);
	if (!reader)
		return;
	/* the rest of the span that END is in is for who decodes it now */
	struct stream_part part = *read;
	part.buf = NULL;
	part.off = MAX(atomic_load(&reader->made), spans_end(layer, end - 1));
	while (part.off < to) {
		uint64_t span_end = spans_end(layer, part.off);

		part.len = MIN(span_end, read->file_end) - part.off;
		if (!spans_has(layer, part.off) && !ahead_start(layer, &part))
			break;
		part.off = span_end;
	}
	atomic_store(&reader->made, part.off);
}
