/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One layer of docker save: its diff ID compared with what the config says, its bytes compressed,
 * and sent.
 * Knows codecs and hashes. Must not know manifests.
 *
 * Pieces of a layer are compressed side by side, and appended to a spool file in their order: each
 * worker takes the next piece, and waits for its turn once it is compressed. The spool file is
 * gone as soon as the store has confirmed the blob.
 */
#include <errno.h>

#include "push_priv.h"
#include "regfs/layer.h"

#define WORKERS_MAX 4

/* A layer under way. */
struct press {
	struct push_run *run;
	const struct push_layer *layer;
	enum codec codec;
	int spool;
	uint64_t npieces;
	pthread_mutex_t lock;
	struct wait_queue turned; /* guarded by lock */
	uint64_t taken;		  /* guarded by lock: pieces that workers have begun */
	uint64_t turn;		  /* guarded by lock: the piece that is to be appended next */
	/* owned by the worker whose turn it is */
	struct hasher *inside, *outside;
	uint64_t len;
};

struct press_task {
	struct push_task task;
	struct press *press;
};

int push_layer_check(struct push_run *run, const struct push_layer *layer,
		     const struct digest *found)
{
	char wanted_str[DIGEST_STR_MAX], found_str[DIGEST_STR_MAX];

	if (digest_equal(found, &layer->diff_id))
		return 0;
	return push_fail(run->why, -EINVAL, "layer %u is %s, the image's config says %s",
			 layer->number, digest_format(found, found_str),
			 digest_format(&layer->diff_id, wanted_str));
}

/* What the layer is found to be: kept if nobody knows yet what it should be, else compared. */
static int settle_diff_id(struct push_run *run, struct push_layer *layer,
			  const struct digest *found)
{
	if (!run->part && !run->source)
		return push_layer_check(run, layer, found);
	layer->diff_id = *found;
	return 0;
}

/* The number of a piece that is this worker's now; npieces: none is left. */
static uint64_t press_take(struct press *press)
{
	pthread_mutex_lock(&press->lock);
	uint64_t piece = press->taken;
	if (piece < press->npieces)
		press->taken++;
	pthread_mutex_unlock(&press->lock);
	return piece;
}

static int press_await_turn(struct press *press, uint64_t piece, struct wait *wait)
{
	int err = 0;

	pthread_mutex_lock(&press->lock);
	while (!err && press->turn != piece)
		err = wait_on(wait, &press->turned, &press->lock, WAIT_FOREVER);
	pthread_mutex_unlock(&press->lock);
	return err;
}

struct worker {
	struct encoder *encoder;
	char *in, *out;
	size_t cap;
};

static void worker_release(struct worker *worker)
{
	encoder_free(worker->encoder);
	free(worker->in);
	free(worker->out);
}

static int press_append(struct press *press, const struct worker *worker, size_t in_len, size_t len)
{
	hasher_add(press->inside, worker->in, in_len);
	hasher_add(press->outside, worker->out, len);
	ssize_t put = pwrite_full(press->spool, worker->out, len, (off_t)press->len);
	if (put < 0)
		return push_fail_spool(press->run->why, (int)put, "compressing a layer");
	press->len += len;
	pthread_mutex_lock(&press->lock);
	press->turn++;
	wait_wake(&press->turned);
	pthread_mutex_unlock(&press->lock);
	return 0;
}

static int press_piece(struct press *press, struct worker *worker, uint64_t piece,
		       struct wait *wait)
{
	const struct archive_blob *at = &press->layer->at;
	uint64_t off = piece * PUSH_PIECE;
	size_t want = (size_t)MIN(at->len - off, PUSH_PIECE);

	int err = push_archive_take(press->run, at->off + off, worker->in, want, wait);
	if (err)
		return err;
	ssize_t len = encoder_piece(worker->encoder, worker->in, want, worker->out, worker->cap);
	if (len < 0)
		return (int)len;
	err = press_await_turn(press, piece, wait);
	if (!err)
		err = press_append(press, worker, want, (size_t)len);
	if (!err)
		push_archive_passed(press->run, at->off + off, want);
	return err;
}

static int worker_run(struct push_task *task, struct wait *wait)
{
	struct press *press = CONTAINER_OF(task, struct press_task, task)->press;
	CLEANUP(worker_release)
	struct worker worker = {
		.encoder = encoder_new(press->codec,
				       press->run->push->pushes->options.compress_level),
		.in = malloc(PUSH_PIECE),
		.cap = encoder_bound(press->codec, PUSH_PIECE),
	};

	worker.out = malloc(worker.cap);
	if (!worker.encoder || !worker.in || !worker.out)
		return -ENOMEM;
	for (;;) {
		uint64_t piece = press_take(press);
		if (piece >= press->npieces)
			return 0;
		int err = press_piece(press, &worker, piece, wait);
		if (err)
			return err;
	}
}

static size_t count_workers(uint64_t npieces)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t useful = MIN(npieces, WORKERS_MAX);

	return cpus < 1 ? 1 : (size_t)MIN((uint64_t)cpus, useful);
}

/* The layer's blob, compressed, in a spool file. */
static int press_layer(struct push_run *run, struct push_layer *layer, struct wait *wait,
		       int *ret_fd)
{
	const struct pushes_options *options = &run->push->pushes->options;
	AUTO_HASHER struct hasher *inside = hasher_new(layer->diff_id.algo);
	AUTO_HASHER struct hasher *outside = hasher_new(DIGEST_SHA256);
	AUTO_CLOSE int spool = push_spool_open(options->spool_dir);
	struct press press = {
		.run = run,
		.layer = layer,
		.codec = options->compress,
		.spool = spool,
		.npieces = layer->at.len / PUSH_PIECE +
			   (layer->at.len % PUSH_PIECE || !layer->at.len),
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.inside = inside,
		.outside = outside,
	};
	struct press_task steps[WORKERS_MAX];
	struct push_task *tasks[WORKERS_MAX];
	size_t ntasks = count_workers(press.npieces);
	struct digest found;

	if (spool < 0)
		return push_fail_spool(run->why, spool, "the spool");
	if (!inside || !outside)
		return -ENOMEM;
	for (size_t i = 0; i < ntasks; i++) {
		steps[i] = (struct press_task){{worker_run}, &press};
		tasks[i] = &steps[i].task;
	}
	int err = push_tasks_run(options->jobs, tasks, ntasks, (unsigned)ntasks, wait);
	pthread_mutex_destroy(&press.lock);
	if (err)
		return err;
	hasher_final(inside, &found);
	err = settle_diff_id(run, layer, &found);
	if (err)
		return err;
	hasher_final(outside, &layer->digest);
	layer->size = press.len;
	layer->codec = press.codec;
	*ret_fd = steal_fd(&spool);
	return 0;
}

/* --- layers that are compressed already --- */

struct packed {
	struct push_run *run;
	const struct push_layer *layer;
	struct decoder *decoder;
	struct hasher *inside, *outside;
	uint64_t len; /* unpacked */
	char *in, *out;
};

static void packed_release(struct packed *packed)
{
	decoder_free(packed->decoder);
	hasher_free(packed->inside);
	hasher_free(packed->outside);
	free(packed->in);
	free(packed->out);
}

static int packed_piece(struct packed *packed, size_t len, bool last)
{
	ssize_t got = 0;

	hasher_add(packed->outside, packed->in, len);
	if (decoder_done(packed->decoder))
		return 0; /* what follows the stream is part of the blob all the same */
	decoder_input(packed->decoder, packed->in, len, last);
	while ((got = decoder_read(packed->decoder, packed->out, PUSH_PIECE)) > 0) {
		hasher_add(packed->inside, packed->out, (size_t)got);
		packed->len += (uint64_t)got;
		if (packed->len >
		    push_unpacked_max(packed->run->push->pushes, packed->layer->at.len))
			return push_fail(packed->run->why, -EINVAL, "a layer: %s", PUSH_TOO_LARGE);
	}
	if (got == -EINVAL)
		push_fail(packed->run->why, -EINVAL, "a layer: %s", decoder_error(packed->decoder));
	return (int)got;
}

static int packed_hash(struct packed *packed, struct wait *wait)
{
	const struct archive_blob *at = &packed->layer->at;

	for (uint64_t off = 0; off < at->len;) {
		size_t want = (size_t)MIN(at->len - off, PUSH_PIECE);
		int err = push_archive_take(packed->run, at->off + off, packed->in, want, wait);
		if (err)
			return err;
		off += want;
		err = packed_piece(packed, want, off == at->len);
		if (err)
			return err;
	}
	return 0;
}

/* Both digests of a compressed layer, which is sent as it is. */
static int check_packed(struct push_run *run, struct push_layer *layer, enum codec codec,
			struct wait *wait)
{
	CLEANUP(packed_release)
	struct packed packed = {
		.run = run,
		.layer = layer,
		.decoder = decoder_new(codec, NULL),
		.inside = hasher_new(layer->diff_id.algo),
		.outside = hasher_new(DIGEST_SHA256),
		.in = malloc(PUSH_PIECE),
		.out = malloc(PUSH_PIECE),
	};
	struct digest found;

	if (!packed.decoder || !packed.inside || !packed.outside || !packed.in || !packed.out)
		return -ENOMEM;
	int err = packed_hash(&packed, wait);
	if (err)
		return err;
	hasher_final(packed.inside, &found);
	err = settle_diff_id(run, layer, &found);
	if (err)
		return err;
	hasher_final(packed.outside, &layer->digest);
	layer->size = layer->at.len;
	layer->codec = codec;
	return 0;
}

/* --- sending --- */

static int check_plain(struct push_run *run, struct push_layer *layer, struct wait *wait)
{
	struct digest found;

	int err = push_archive_hash(run, &layer->at, layer->diff_id.algo, &found, wait);
	if (!err)
		err = settle_diff_id(run, layer, &found);
	if (!err) {
		layer->digest = layer->diff_id;
		layer->size = layer->at.len;
		layer->codec = CODEC_PLAIN;
	}
	return err;
}

static int detect(struct push_run *run, const struct push_layer *layer, struct wait *wait,
		  enum codec *ret)
{
	char magic[CODEC_MAGIC_LEN];
	size_t len = (size_t)MIN(layer->at.len, (uint64_t)sizeof(magic));

	int err = push_archive_take(run, layer->at.off, magic, len, wait);
	if (!err)
		*ret = codec_detect(magic, len);
	return err;
}

/* Makes the layer's blob: its digest and size, and where its bytes are. */
static int make_blob(struct push_run *run, struct push_layer *layer, struct wait *wait,
		     int *ret_spool)
{
	enum codec codec = CODEC_PLAIN;

	/* What is made here is a tar, whatever its first name looks like. */
	int err = run->source ? 0 : detect(run, layer, wait, &codec);
	if (err)
		return err;
	if (codec != CODEC_PLAIN)
		return check_packed(run, layer, codec, wait);
	if (run->push->pushes->options.compress == CODEC_PLAIN)
		return check_plain(run, layer, wait);
	return press_layer(run, layer, wait, ret_spool);
}

/* Both digests are of the same bytes: who pushes the blob again need not unpack it. */
static void keep_diff_id(const struct push_run *run, const struct push_layer *layer)
{
	struct cache *cache = run->push->pushes->options.cache;

	if (cache && layer->codec != CODEC_PLAIN)
		layer_diff_id_keep(cache, &layer->digest, &layer->diff_id);
}

int push_layer_send(struct push_run *run, struct push_layer *layer, const char *repo,
		    struct wait *wait)
{
	AUTO_CLOSE int spool = -1;

	int err = make_blob(run, layer, wait, &spool);
	if (err)
		return err;
	keep_diff_id(run, layer);
	struct store_file file = {.fd = spool < 0 ? run->fd : spool,
				  .off = spool < 0 ? layer->at.off : 0,
				  .len = layer->size};
	const struct store_source source = {
		.read = store_file_read, .arg = &file, .size = layer->size};
	const struct push_blob blob = {
		.repo = repo,
		.mount_from = layer->repo,
		.digest = &layer->digest,
		.source = spool < 0 && run->source ? run->source : &source,
		.share = layer->at.len,
	};
	err = push_send(run, &blob, wait);
	if (!err)
		layer->repo = repo;
	return err;
}
