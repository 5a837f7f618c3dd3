// SPDX-License-Identifier: Apache-2.0
/*
 * A blob's bytes in order, over several connections: where answers take long one stream is slow,
 * since its window has to grow first and has a limit, and each connection has one of its own.
 * Knows parts, and when a way takes them. Must not know digests, blocks, or the cache.
 *
 * Parts of LANE_PART bytes are fetched by a job each into memory, at most LANES at once and ahead
 * of the reader, who takes them in order. To him all is one stream of the store. How many there are
 * depends on how much arrived within the time of one answer: over a narrow way a few do, and more
 * would only be in the way of what else somebody waits for. That goes first: a part is only begun
 * where it leaves room.
 *
 * Where a part cannot be had (the server takes no ranges, or gives up under so many requests), the
 * rest comes by one stream, and so do all passes on that way for some time.
 */
#include <errno.h>
#include <sys/mman.h>

#include "blob_priv.h"

#define LANES	    6		/* parts of one pass, and of all on one way that move */
#define PARTS_MAX   16		/* in memory, of all passes, unless it is a pass's only one */
#define LONG_WAY_US 30000	/* over a shorter one, one stream keeps a core busy */
#define LANES_FEW   3		/* where a way is narrow, or not known */
#define ANSWER	    (128 * KIB) /* for so much within the time of an answer, another part */
#define NARROW_MS   60000	/* so long one stream it is, after a part failed */
#define NARROW_EVER INT64_MAX

struct part {
	struct pool_work work;
	struct lanes *lanes;
	struct wait wait; /* the job's */
	uint64_t off;
	size_t len;
	struct part *next;
	/* guarded by lanes->lock until ended, and constant then */
	size_t have;
	bool ended;
	int error;
	uint8_t *data; /* mapped, so that it is given back: malloc keeps what is often as large */
};

struct lanes {
	struct store_stream base;
	struct blob *blob;
	struct way *way;
	struct store *store;
	char *repo;
	uint64_t end;

	/* the reader's */
	struct part *first, *last; /* in order, not taken yet */
	unsigned count;
	size_t taken;		   /* of the first */
	uint64_t next;		   /* where the next part begins */
	struct store_stream *rest; /* in place of further parts */

	pthread_mutex_t lock;
	unsigned refs; /* the reader's and the jobs'; guarded by lock */
	struct wait_queue arrived;
};

/* --- the way --- */

bool lanes_suit(const struct blob *blob, const struct way *way, uint64_t off)
{
	const struct blobs *blobs = blob->blobs;

	return atomic_load(&way->pace.latency_us) >= LONG_WAY_US && !blob->one_stream &&
	       blob->size - off >= 2 * blobs->lane_part && blobs->parts < PARTS_MAX &&
	       now_ms() >= way->narrow_until_ms;
}

unsigned lanes_at_once(uint64_t rate, int64_t latency_us)
{
	uint64_t within = rate * (uint64_t)latency_us / 1000000;

	return (unsigned)MIN(LANES_FEW + within / ANSWER, (uint64_t)LANES);
}

/* LEN more bytes of a part have come. */
static void way_meter(struct lanes *lanes, size_t len)
{
	struct blobs *blobs = lanes->blob->blobs;
	struct way *way = lanes->way;
	int64_t now = now_us();

	pthread_mutex_lock(&blobs->lock);
	int64_t span = now - way->parts_since_us;
	way->parts_bytes += len;
	if (span >= atomic_load(&way->pace.latency_us)) {
		uint64_t rate = way->parts_bytes * 1000000 / (uint64_t)MAX(span, 1);

		/* a reader who is slow for a while does not make the way narrow */
		way->parts_rate = MAX(rate, way->parts_rate / 8 * 7);
		way->parts_since_us = now;
		way->parts_bytes = 0;
	}
	pthread_mutex_unlock(&blobs->lock);
}

/* Counts another part in, if the way has room for it. */
static bool part_admit(const struct lanes *lanes)
{
	struct blobs *blobs = lanes->blob->blobs;
	struct way *way = lanes->way;

	pthread_mutex_lock(&blobs->lock);
	unsigned most = lanes_at_once(way->parts_rate, atomic_load(&way->pace.latency_us));
	bool may = lanes->count == 0 || (way->takes_parts && blobs->parts < PARTS_MAX &&
					 way->parts + way->pace.running < most);
	if (may) {
		blobs->parts++;
		if (way->parts++ == 0) {
			way->parts_since_us = now_us();
			way->parts_bytes = 0;
		}
		job_begin(lanes->blob);
	}
	pthread_mutex_unlock(&blobs->lock);
	return may;
}

/* Counts one out that was not begun after all. */
static void part_withdraw(const struct lanes *lanes)
{
	struct blobs *blobs = lanes->blob->blobs;

	pthread_mutex_lock(&blobs->lock);
	blobs->parts--;
	lanes->way->parts--;
	pthread_mutex_unlock(&blobs->lock);
	job_end(lanes->blob);
}

static void part_answered(struct lanes *lanes, int64_t begun_us)
{
	struct blobs *blobs = lanes->blob->blobs;

	pace_latency(&lanes->way->pace, now_us() - begun_us);
	pthread_mutex_lock(&blobs->lock);
	lanes->way->takes_parts = true;
	pthread_mutex_unlock(&blobs->lock);
}

static void part_failed(struct lanes *lanes, int error)
{
	struct blobs *blobs = lanes->blob->blobs;

	pthread_mutex_lock(&blobs->lock);
	lanes->way->narrow_until_ms = error == -EOPNOTSUPP ? NARROW_EVER : now_ms() + NARROW_MS;
	pthread_mutex_unlock(&blobs->lock);
}

/* --- life --- */

static void part_free(struct lanes *lanes, struct part *part)
{
	struct blobs *blobs = lanes->blob->blobs;

	wait_release(&part->wait);
	munmap(part->data, part->len);
	free(part);
	pthread_mutex_lock(&blobs->lock);
	blobs->parts--;
	pthread_mutex_unlock(&blobs->lock);
}

static void lanes_unref(struct lanes *lanes)
{
	pthread_mutex_lock(&lanes->lock);
	bool last = --lanes->refs == 0;
	pthread_mutex_unlock(&lanes->lock);
	if (!last)
		return;
	while (lanes->first) {
		struct part *part = lanes->first;

		lanes->first = part->next;
		part_free(lanes, part);
	}
	pthread_mutex_destroy(&lanes->lock);
	free(lanes->repo);
	free(lanes);
}

/* What has not arrived is called off. */
static void parts_cancel(struct lanes *lanes)
{
	for (struct part *part = lanes->first; part; part = part->next)
		wait_cancel(&part->wait);
}

static void lanes_close(struct store_stream *base)
{
	struct lanes *lanes = CONTAINER_OF(base, struct lanes, base);

	parts_cancel(lanes);
	store_stream_close(STEAL(lanes->rest));
	lanes_unref(lanes);
}

/* --- the job of a part --- */

static void part_arrived(struct part *part, size_t len)
{
	struct lanes *lanes = part->lanes;

	pthread_mutex_lock(&lanes->lock);
	part->have += len;
	wait_wake(&lanes->arrived);
	pthread_mutex_unlock(&lanes->lock);
	way_meter(lanes, len);
}

/* Bytes as they come. -ENODATA: too few. -EOPNOTSUPP: parts are not served. */
static int part_fetch(struct part *part)
{
	struct lanes *lanes = part->lanes;
	struct store_stream *stream;
	int64_t begun = now_us();
	size_t have = 0;
	ssize_t n = 1;

	int r = lanes->store->ops->open_blob(lanes->store, lanes->repo, &lanes->blob->digest,
					     part->off, part->len, &stream, &part->wait);
	if (r < 0)
		return r;
	if (stream->unranged)
		n = -EOPNOTSUPP;
	else
		part_answered(lanes, begun);
	while (n > 0 && have < part->len) {
		n = stream->read(stream, part->data + have, part->len - have, &part->wait);
		if (n > 0) {
			have += (size_t)n;
			part_arrived(part, (size_t)n);
		}
	}
	store_stream_close(stream);
	return n < 0 ? (int)n : have < part->len ? -ENODATA : 0;
}

static void part_end(struct part *part, int error)
{
	struct lanes *lanes = part->lanes;
	struct blob *blob = lanes->blob;

	pthread_mutex_lock(&blob->blobs->lock);
	lanes->way->parts--;
	pthread_mutex_unlock(&blob->blobs->lock);
	if (error < 0 && error != -EINTR)
		part_failed(lanes, error);
	pthread_mutex_lock(&lanes->lock);
	part->error = error;
	part->ended = true;
	wait_wake(&lanes->arrived);
	pthread_mutex_unlock(&lanes->lock);
	lanes_unref(lanes);
	job_end(blob);
}

static void part_run(struct pool_work *work)
{
	struct part *part = CONTAINER_OF(work, struct part, work);

	part_end(part, part_fetch(part));
}

/* --- the reader --- */

static struct part *part_new(struct lanes *lanes)
{
	size_t len = MIN(lanes->blob->blobs->lane_part, lanes->end - lanes->next);
	struct part *part = malloc(sizeof(*part));
	void *data = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (!part || data == MAP_FAILED) {
		if (data != MAP_FAILED)
			munmap(data, len);
		free(part);
		return NULL;
	}
	*part = (struct part){.work = {.run = part_run},
			      .lanes = lanes,
			      .off = lanes->next,
			      .len = len,
			      .data = data};
	wait_init(&part->wait, true);
	return part;
}

/* Begins another part. -EAGAIN: not now; -ENOMEM. */
static int part_start(struct lanes *lanes)
{
	if (!part_admit(lanes))
		return -EAGAIN;
	struct part *part = part_new(lanes);
	if (!part) {
		part_withdraw(lanes);
		return -ENOMEM;
	}
	pthread_mutex_lock(&lanes->lock);
	lanes->refs++;
	pthread_mutex_unlock(&lanes->lock);
	if (lanes->first)
		lanes->last->next = part;
	else
		lanes->first = part;
	lanes->last = part;
	lanes->count++;
	lanes->next += part->len;
	if (pool_submit(lanes->blob->blobs->jobs, &part->work) < 0)
		part_end(part, -ENOMEM);
	return 0;
}

static void lanes_fill(struct lanes *lanes)
{
	int r = 0;

	while (r == 0 && lanes->count < LANES && lanes->next < lanes->end)
		r = part_start(lanes);
}

/* How much more there is of the first part, once there is some; 0: no more comes of it. */
static ssize_t first_await(struct lanes *lanes, struct wait *wait)
{
	const struct part *part = lanes->first;
	ssize_t r = 0;

	pthread_mutex_lock(&lanes->lock);
	while (r == 0 && part->have == lanes->taken && !part->ended)
		r = wait_on(wait, &lanes->arrived, &lanes->lock, WAIT_FOREVER);
	if (r == 0)
		r = (ssize_t)(part->have - lanes->taken);
	pthread_mutex_unlock(&lanes->lock);
	return r;
}

static void first_drop(struct lanes *lanes)
{
	struct part *part = lanes->first;

	lanes->first = part->next;
	lanes->count--;
	lanes->taken = 0;
	part_free(lanes, part);
}

/* ERROR is why the bytes at POS did not come in a part: 0 if one stream gives them, and the rest.
 * Who does not answer at all is not asked again: it would take as long. */
static int rest_open(struct lanes *lanes, uint64_t pos, int error, struct wait *wait)
{
	if (error == -ETIMEDOUT || error == -EHOSTUNREACH || error == -EACCES)
		return error;
	parts_cancel(lanes);
	return lanes->store->ops->open_blob(lanes->store, lanes->repo, &lanes->blob->digest, pos,
					    UINT64_MAX, &lanes->rest, wait);
}

/* How many bytes are there of the first part: 0 at the blob's end, or if .rest goes on from here.
 */
static ssize_t lanes_await(struct lanes *lanes, struct wait *wait)
{
	for (;;) {
		lanes_fill(lanes);
		const struct part *part = lanes->first;
		if (!part)
			return lanes->next < lanes->end
				       ? rest_open(lanes, lanes->next, -ENOMEM, wait)
				       : 0;
		ssize_t n = first_await(lanes, wait);
		if (n != 0)
			return n;
		if (part->error < 0)
			return rest_open(lanes, part->off + lanes->taken, part->error, wait);
		first_drop(lanes);
	}
}

static ssize_t lanes_read(struct store_stream *base, void *buf, size_t cap, struct wait *wait)
{
	struct lanes *lanes = CONTAINER_OF(base, struct lanes, base);
	ssize_t n = 0;

	if (!lanes->rest)
		n = lanes_await(lanes, wait);
	if (lanes->rest)
		return lanes->rest->read(lanes->rest, buf, cap, wait);
	if (n <= 0)
		return n;
	n = MIN(n, (ssize_t)cap);
	memcpy(buf, lanes->first->data + lanes->taken, (size_t)n);
	lanes->taken += (size_t)n;
	return n;
}

int lanes_open(const struct feed *feed, uint64_t off, struct store_stream **ret)
{
	struct lanes *lanes = calloc(1, sizeof(*lanes));
	char *repo = strdup(feed->repo);

	if (!lanes || !repo) {
		free(lanes);
		free(repo);
		return -ENOMEM;
	}
	*lanes = (struct lanes){
		.base = {.read = lanes_read, .close = lanes_close},
		.blob = feed->blob,
		.way = way_find(feed->blob->blobs, feed->store),
		.store = feed->store,
		.repo = repo,
		.end = feed->end,
		.next = off,
		.refs = 1,
	};
	pthread_mutex_init(&lanes->lock, NULL);
	lanes_fill(lanes);
	*ret = &lanes->base;
	return 0;
}
