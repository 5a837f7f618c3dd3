// SPDX-License-Identifier: Apache-2.0
/*
 * Those who take from a pass: readers of single blocks, raw or verified, and streams of the whole.
 * Knows the window and what to do for a block that has left it. Must not know how blocks come.
 */
#include <errno.h>

#include "blob_priv.h"

/* --- reading from a pass --- */

/* Block NR, if the window still has it. Lock held. */
static struct piece *window_get(const struct pass *pass, uint32_t nr)
{
	struct piece *piece = pass->window[nr % PASS_WINDOW];

	if (!piece || piece->block != nr)
		return NULL;
	atomic_fetch_add(&piece->refs, 1);
	return piece;
}

static ssize_t piece_copy(struct piece *piece, const struct want *want)
{
	memcpy(want->buf, piece->data + want->off, want->len);
	piece_unref(piece);
	return want->len;
}

static struct over_await await_of(struct pass *pass, struct wait_queue *queue,
				  const struct blob_id *id)
{
	return (struct over_await){
		.feed = &pass->feed,
		.job = &pass->wait,
		.way = &pass->way,
		.done = &pass->done,
		.queue = queue,
		.id = id,
	};
}

/* The verified end of the pass; PIECE is what is wanted, if the window has it then. */
static int pass_wait_end(struct pass *pass, const struct blob_id *id, uint32_t nr,
			 struct wait *wait, struct piece **ret)
{
	struct blobs *blobs = pass->blob->blobs;
	struct over_await await = await_of(pass, &pass->ended, id);
	int r = 0;

	pthread_mutex_lock(&blobs->lock);
	while (r == 0 && pass->state == PASS_RUNNING)
		r = over_await(&await, wait);
	if (r == 0)
		r = pass->result;
	if (r == 0)
		*ret = window_get(pass, nr);
	pthread_mutex_unlock(&blobs->lock);
	return r;
}

/* Until block NR was published, for a raw reader: 0, *RET as above. An error if the pass stopped
 * before. */
static int pass_wait_block(struct pass *pass, const struct blob_id *id, uint32_t nr,
			   struct wait *wait, struct piece **ret)
{
	struct blobs *blobs = pass->blob->blobs;
	struct over_await await = await_of(pass, &pass->progress, id);
	int r = 0;

	pthread_mutex_lock(&blobs->lock);
	pass->raw_at = nr;
	pass->raw_ms = now_ms();
	wait_wake(&pass->room);
	while (r == 0 && pass->done <= nr) {
		r = pass->state == PASS_RUNNING ? over_await(&await, wait) : pass->result;
	}
	/* who comes late need not guess */
	if (r == 0 && pass->state == PASS_DONE)
		r = pass->result;
	if (r == 0) {
		*ret = window_get(pass, nr);
		pass->given |= pass->state != PASS_DONE;
	}
	pthread_mutex_unlock(&blobs->lock);
	return r;
}

/* Unverified. 0: the block came and is lost. */
static ssize_t pass_read_raw(struct pass *pass, const struct blob_id *id, const struct want *want,
			     struct wait *wait)
{
	struct blob *blob = pass->blob;
	struct piece *piece = NULL;

	int r = pass_wait_block(pass, id, want->block, wait, &piece);
	if (r < 0)
		return r;
	if (piece)
		return piece_copy(piece, want);
	ssize_t n = cache_read(blob->blobs->cache, &blob->id, want->block, want->off, want->buf,
			       want->len, pass->number);
	return n == (ssize_t)want->len ? n : 0;
}

static ssize_t pass_read_joined(struct pass *pass, const struct blob_id *id,
				const struct want *want, bool raw, struct wait *wait)
{
	struct piece *piece = NULL;

	/* The last block is given with the verdict only: nobody reads a wrong blob to its end. */
	if (raw && want->block + 1 < pass->blob->nblocks) {
		ssize_t n = pass_read_raw(pass, id, want, wait);
		if (n != 0)
			return n;
	}
	int r = pass_wait_end(pass, id, want->block, wait, &piece);
	if (r < 0)
		return r;
	return piece ? piece_copy(piece, want) : 0;
}

ssize_t pass_read(struct blob *blob, const struct blob_id *id, const struct want *want, bool raw,
		  struct wait *wait)
{
	struct pass *pass;

	int r = pass_join(blob, id, raw ? JOIN_RAW : JOIN_READ, wait, &pass);
	if (r != 0)
		return r < 0 ? r : 0;
	ssize_t n = pass_read_joined(pass, id, want, raw, wait);
	pass_leave(pass);
	return n;
}

/* --- streams --- */

static void stream_attach(struct blob_stream *stream)
{
	struct pass *pass = stream->pass;
	struct blobs *blobs = stream->blob->blobs;

	pthread_mutex_lock(&blobs->lock);
	stream->attached = pass->done < PASS_WINDOW;
	stream->next_stream = pass->streams;
	pass->streams = stream;
	pass->opening--;
	wait_wake(&pass->room);
	pthread_mutex_unlock(&blobs->lock);
}

static void stream_detach(struct blob_stream *stream)
{
	struct pass *pass = stream->pass;
	struct blobs *blobs = stream->blob->blobs;
	struct blob_stream **link = &pass->streams;

	pthread_mutex_lock(&blobs->lock);
	while (*link != stream)
		link = &(*link)->next_stream;
	*link = stream->next_stream;
	wait_wake(&pass->room);
	pthread_mutex_unlock(&blobs->lock);
}

static void stream_free(struct blob_stream *stream)
{
	piece_unref(stream->piece);
	if (stream->blob)
		blob_put(stream->blob);
	free(stream->repo);
	free(stream);
}

static int stream_init(struct blob_stream *stream, struct blobs *blobs, const struct blob_id *id,
		       bool keep, struct wait *wait)
{
	stream->repo = strdup(id->repo);
	if (!stream->repo)
		return -ENOMEM;
	int r = blob_hold(blobs, id, true, &stream->blob);
	if (r < 0)
		return r;
	stream->id = *id;
	stream->id.digest = &stream->blob->digest;
	stream->id.repo = stream->repo;
	/* Readers of single blocks need not wait for this pass where there are sums. */
	r = blob_know_sums(stream->blob, wait);
	if (r < 0)
		return r;
	return pass_join(stream->blob, &stream->id, keep ? JOIN_STREAM : JOIN_GET, wait,
			 &stream->pass);
}

int stream_open(struct blobs *blobs, const struct blob_id *id, bool keep, struct wait *wait,
		struct blob_stream **ret)
{
	if (id->size > BLOB_MAX_SIZE)
		return -EFBIG;
	if (!wait_may_block(wait))
		return -EWOULDBLOCK;
	struct blob_stream *stream = calloc(1, sizeof(*stream));
	if (!stream)
		return -ENOMEM;
	int r = stream_init(stream, blobs, id, keep, wait);
	if (r < 0) {
		stream_free(stream);
		return r;
	}
	stream_attach(stream);
	*ret = stream;
	return 0;
}

int blob_stream_open(struct blobs *blobs, const struct blob_id *id, struct wait *wait,
		     struct blob_stream **ret)
{
	return stream_open(blobs, id, true, wait, ret);
}

void blob_stream_close(struct blob_stream *stream)
{
	if (!stream)
		return;
	stream_detach(stream);
	pass_leave(stream->pass);
	stream_free(stream);
}

/* Waits until block NR was published. Lock held. */
static int stream_await(struct blob_stream *stream, uint32_t nr, struct wait *wait)
{
	struct pass *pass = stream->pass;
	struct over_await await = await_of(pass, &pass->progress, &stream->id);
	int r = 0;

	while (r == 0 && pass->done <= nr) {
		if (pass->state != PASS_RUNNING)
			return pass->result;
		/* what began in the background may be wanted by now */
		if (!wait_background(wait))
			pass_hurry(pass);
		r = over_await(&await, wait);
	}
	return r;
}

/* The next block out of the window. NULL with 0: it has come and gone. */
static int stream_next(struct blob_stream *stream, struct wait *wait, struct piece **ret)
{
	struct blobs *blobs = stream->blob->blobs;

	pthread_mutex_lock(&blobs->lock);
	int r = stream_await(stream, stream->next, wait);
	if (r == 0)
		*ret = window_get(stream->pass, stream->next);
	stream->attached = *ret;
	if (*ret)
		stream->next++;
	wait_wake(&stream->pass->room);
	pthread_mutex_unlock(&blobs->lock);
	return r;
}

static void stream_skip(struct blob_stream *stream)
{
	struct blobs *blobs = stream->blob->blobs;

	pthread_mutex_lock(&blobs->lock);
	stream->next++;
	pthread_mutex_unlock(&blobs->lock);
}

/* A block that has left the window: from the cache, or by range after the pass's end. */
static int stream_catch_up(struct blob_stream *stream, struct wait *wait, struct piece **ret)
{
	struct blob *blob = stream->blob;
	struct piece *piece = piece_new();

	if (!piece)
		return -ENOMEM;
	piece->block = stream->next;
	piece->len = block_len(blob, stream->next);
	struct want want = {.block = piece->block,
			    .last = MIN(piece->block + FETCH_MAX, blob->nblocks) - 1,
			    .len = piece->len,
			    .buf = piece->data};
	ssize_t n = cache_read(blob->blobs->cache, &blob->id, want.block, 0, want.buf, want.len,
			       stream->pass->number);
	if (n != (ssize_t)want.len) {
		struct piece *kept = NULL;

		n = pass_wait_end(stream->pass, &stream->id, want.block, wait, &kept);
		if (n == 0)
			n = kept ? piece_copy(kept, &want)
				 : blob_read_block(blob, &stream->id, &want, false, wait);
	}
	if (n < 0) {
		piece_unref(piece);
		return n;
	}
	*ret = piece;
	stream_skip(stream);
	return 0;
}

/* The pass was another source's and failed there: lets it go on with ours. Not if its digest was
 * wrong: that pass is over. */
static bool stream_resume(struct blob_stream *stream, struct wait *wait)
{
	struct pass *pass;

	if (!blob_failed_elsewhere(stream->blob, &stream->id, false) ||
	    pass_join(stream->blob, &stream->id, JOIN_READ, wait, &pass) != 0)
		return false;
	bool same = pass == stream->pass;
	pass_leave(pass);
	return same;
}

ssize_t blob_stream_read(struct blob_stream *stream, const void **ret, struct wait *wait)
{
	struct piece *piece = NULL;
	int r;

	piece_unref(STEAL(stream->piece));
	if (stream->next == stream->blob->nblocks)
		return pass_wait_end(stream->pass, &stream->id, stream->next, wait, &piece);
	do {
		r = stream_next(stream, wait, &piece);
		if (r == 0 && !piece)
			r = stream_catch_up(stream, wait, &piece);
	} while (r < 0 && r != -EINTR && r != -EWOULDBLOCK && stream_resume(stream, wait));
	if (r < 0)
		return r;
	stream->piece = piece;
	*ret = piece->data;
	return piece->len;
}
