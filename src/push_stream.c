/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An archive that is pushed while it is still being written.
 * Knows which bytes have arrived, which are still needed, and who waits for which. Must not know
 * what a part of the archive becomes (push_part.c), nor what the image is (push_images.c).
 *
 *     writer → spool → (decoder → a second spool) → scanner → parts
 *
 * The scanner walks the members of the tar as they arrive. Those that are blobs or layers become
 * parts: each is hashed, compressed if it is a layer of docker save, and sent, by a job of its own,
 * which waits for its bytes as the scanner does; PUSH_PARALLEL at once, in the order of the
 * archive. What they have done with is punched out of the spool, which so holds what is not yet
 * confirmed, the small documents, and WINDOW bytes. All else (config, manifests) is read at the
 * flush, when the whole archive is known, and only then is it clear what the parts were for.
 *
 * The writer is kept back (in its own request, which may be called off) when it is WINDOW bytes
 * ahead of what is needed first: so a slow registry slows the writer and fills no disk.
 *
 * A first failure that is not about one part alone ends the stream: what goes on is called off,
 * and every write and flush says so.
 */
#include <errno.h>
#include <fcntl.h>

#include "push_priv.h"
#include "regfs/log.h"

#define WINDOW	     (32 * MIB)
#define DECODE_CHUNK (256 * KIB)

/* --- its life --- */

static void stream_free(struct push_stream *stream)
{
	for (size_t i = 0; i < stream->nparts; i++)
		push_part_free(stream->parts[i]);
	free(stream->parts);
	archive_table_free(stream->table);
	decoder_free(stream->decoder);
	if (stream->data >= 0 && stream->data != stream->raw)
		close(stream->data);
	if (stream->raw >= 0)
		close(stream->raw);
	wait_release(&stream->scan_wait);
	wait_release(&stream->decode_wait);
	push_reason_release(&stream->why);
	pthread_mutex_destroy(&stream->lock);
	free(stream);
}

void push_stream_unref(struct push_stream *stream)
{
	if (!stream)
		return;
	struct push *push = stream->push;
	pthread_mutex_lock(&stream->lock);
	bool last = --stream->refs == 0;
	pthread_mutex_unlock(&stream->lock);
	if (!last)
		return;
	stream_free(stream);
	push_let_go(push);
}

void push_stream_cleanup(struct push_stream **stream)
{
	push_stream_unref(*stream);
}

struct push_stream *push_stream_ref(struct push_stream *stream)
{
	pthread_mutex_lock(&stream->lock);
	stream->refs++;
	pthread_mutex_unlock(&stream->lock);
	return stream;
}

/* Lock held. */
static void cancel_all(struct push_stream *stream)
{
	wait_cancel(&stream->scan_wait);
	wait_cancel(&stream->decode_wait);
	for (size_t i = 0; i < stream->nparts; i++)
		wait_cancel(&stream->parts[i]->wait);
	wait_wake(&stream->changed);
}

int push_stream_fail(struct push_stream *stream, int err, struct push_reason *why)
{
	char text[PUSH_REASON_MAX];

	push_reason_take(why, text);
	pthread_mutex_lock(&stream->lock);
	bool first = !stream->error;
	if (first) {
		stream->error = err;
		memcpy(stream->error_text, text, sizeof(text));
		cancel_all(stream);
	}
	pthread_mutex_unlock(&stream->lock);
	return err;
}

void push_stream_abandon(struct push_stream *stream)
{
	if (!stream)
		return;
	struct push_reason why;
	push_reason_init(&why);
	push_stream_fail(stream, push_fail(&why, -EINTR, "called off"), &why);
	push_reason_release(&why);
	push_stream_unref(stream);
}

/* --- what has arrived --- */

/* Lock held. The first byte that somebody still has to look at. */
static uint64_t first_needed(struct push_stream *stream)
{
	uint64_t first = stream->scanned ? UINT64_MAX : stream->scan_off;

	while (stream->first_open < stream->nparts &&
	       stream->parts[stream->first_open]->state == PART_DONE)
		stream->first_open++;
	for (size_t i = stream->first_open; i < stream->nparts; i++)
		first = MIN(first, stream->parts[i]->needed);
	return first;
}

/* Lock held. Whether the stream may hold bytes up to END without going too far ahead. */
static bool has_room(struct push_stream *stream, uint64_t end)
{
	if (stream->codec != CODEC_PLAIN)
		return stream->data_ended || end <= stream->decoded + WINDOW;
	uint64_t first = first_needed(stream);
	return first == UINT64_MAX || end <= first + WINDOW;
}

/* -ESPIPE: the bytes at OFF are gone. */
static int turned_back(struct push_stream *stream, uint64_t off)
{
	AUTO_FREE char *label = push_label(stream->push);

	log_warn(
		"push %s: byte %ju was sent on already, and can be neither written nor read again: "
		"only the first %d MiB of an archive may come in any order",
		label ? label : "", (uintmax_t)off, PUSH_STREAM_MIN / MIB);
	return -ESPIPE;
}

int push_stream_room(struct push_stream *stream, uint64_t off, uint64_t len, struct wait *wait)
{
	bool back = false;
	int err = 0;

	pthread_mutex_lock(&stream->lock);
	while (!err && !(err = stream->error)) {
		back = off < stream->written;
		/* Behind a gap nothing moves before the gap is filled: nothing to wait for. */
		if (back || off > stream->written || has_room(stream, off + len))
			break;
		err = wait_on(wait, &stream->changed, &stream->lock, WAIT_FOREVER);
	}
	pthread_mutex_unlock(&stream->lock);
	return !err && back ? turned_back(stream, off) : err;
}

int push_stream_past(struct push_stream *stream, uint64_t off)
{
	pthread_mutex_lock(&stream->lock);
	bool back = off < stream->written;
	pthread_mutex_unlock(&stream->lock);
	return back ? turned_back(stream, off) : 0;
}

/* Lock held. */
static void arrived(struct push_stream *stream, uint64_t end)
{
	stream->written = end;
	if (stream->codec == CODEC_PLAIN)
		stream->avail = end;
	wait_wake(&stream->changed);
}

void push_stream_wrote(struct push_stream *stream, uint64_t off, uint64_t len)
{
	pthread_mutex_lock(&stream->lock);
	if (off <= stream->written && off + len > stream->written)
		arrived(stream, off + len);
	pthread_mutex_unlock(&stream->lock);
}

/* Lock held. */
static bool is_whole(const struct push_stream *stream)
{
	if (!stream->scanned)
		return false;
	return stream->codec == CODEC_PLAIN || stream->data_ended ||
	       (stream->decode_idle && stream->decode_whole && stream->decoded == stream->written);
}

/* Lock held. Nothing moves before more is written. */
static bool is_starved(const struct push_stream *stream)
{
	bool scan_stands = stream->scanned ||
			   (stream->scan_idle && stream->avail <= stream->scan_off);

	if (stream->codec == CODEC_PLAIN || stream->data_ended)
		return scan_stands;
	return scan_stands && stream->decode_idle && stream->decoded == stream->written;
}

int push_stream_settle(struct push_stream *stream, uint64_t size, struct push_reason *why,
		       struct wait *wait)
{
	int err = 0;

	pthread_mutex_lock(&stream->lock);
	/* Gaps are zeros. */
	if (stream->written < size)
		arrived(stream, size);
	while (!err) {
		err = stream->error;
		if (err)
			push_fail(why, err, "%s", stream->error_text);
		else if (is_whole(stream))
			break;
		else if (is_starved(stream))
			err = push_fail(why, -EINVAL, "the archive is not finished");
		else
			err = wait_on(wait, &stream->changed, &stream->lock, WAIT_FOREVER);
	}
	pthread_mutex_unlock(&stream->lock);
	return err;
}

int push_stream_await(struct push_stream *stream, uint64_t end, struct wait *wait)
{
	int err = 0;

	pthread_mutex_lock(&stream->lock);
	while (!err && stream->avail < end) {
		if (stream->error)
			err = -EINTR;
		else if (stream->data_ended)
			err = -EINVAL;
		else
			err = wait_on(wait, &stream->changed, &stream->lock, WAIT_FOREVER);
	}
	pthread_mutex_unlock(&stream->lock);
	return err;
}

uint64_t push_stream_avail(struct push_stream *stream)
{
	pthread_mutex_lock(&stream->lock);
	uint64_t avail = stream->avail;
	pthread_mutex_unlock(&stream->lock);
	return avail;
}

void push_stream_drop(struct push_stream *stream, uint64_t off, uint64_t len)
{
	push_spool_drop(stream->data, off, len);
}

/* --- the decoder of a compressed archive --- */

/* Takes the next raw bytes: their number, or an error. */
static ssize_t decode_take(struct push_stream *stream, uint64_t *ret_off)
{
	int err = 0;

	pthread_mutex_lock(&stream->lock);
	while (!err && !(err = stream->error)) {
		bool starved = stream->decoded == stream->written;
		uint64_t first = first_needed(stream);
		if (!starved && (first == UINT64_MAX || stream->avail <= first + WINDOW))
			break;
		stream->decode_idle = starved;
		stream->decode_whole = decoder_whole(stream->decoder);
		wait_wake(&stream->changed);
		err = wait_on(&stream->decode_wait, &stream->changed, &stream->lock, WAIT_FOREVER);
	}
	stream->decode_idle = false;
	uint64_t len = MIN(stream->written - stream->decoded, (uint64_t)DECODE_CHUNK);
	*ret_off = stream->decoded;
	pthread_mutex_unlock(&stream->lock);
	return err ? err : (ssize_t)len;
}

/* All that the present input gives. */
static int decode_chunk(struct push_stream *stream, char *out)
{
	ssize_t got;

	while ((got = decoder_read(stream->decoder, out, DECODE_CHUNK)) > 0) {
		if (stream->avail > push_unpacked_max(stream->push->pushes, stream->decoded))
			return push_fail(&stream->why, -EFBIG,
					 "unpacked the archive is too large for its size");
		ssize_t put = pwrite_full(stream->data, out, (size_t)got, (off_t)stream->avail);
		if (put < 0)
			return push_fail_spool(&stream->why, (int)put, "unpacking the archive");
		pthread_mutex_lock(&stream->lock);
		stream->avail += (uint64_t)got;
		wait_wake(&stream->changed);
		pthread_mutex_unlock(&stream->lock);
	}
	if (got == -EINVAL)
		return push_fail(&stream->why, -EINVAL, "the archive is damaged: %s",
				 decoder_error(stream->decoder));
	return (int)got;
}

static int decode_next(struct push_stream *stream, char *in, char *out)
{
	uint64_t off;
	ssize_t len = decode_take(stream, &off);

	if (len < 0)
		return (int)len;
	ssize_t got = pread_full(stream->raw, in, (size_t)len, (off_t)off);
	if (got < len)
		return push_fail_spool(&stream->why, got < 0 ? (int)got : -EIO,
				       "reading the spool");
	int err = 0;
	/* What follows the compressed stream is nothing, as for gzip(1). */
	if (!decoder_done(stream->decoder)) {
		decoder_input(stream->decoder, in, (size_t)len, false);
		err = decode_chunk(stream, out);
	}
	push_spool_drop(stream->raw, off, (uint64_t)len);
	pthread_mutex_lock(&stream->lock);
	stream->decoded += (uint64_t)len;
	stream->data_ended = decoder_done(stream->decoder);
	wait_wake(&stream->changed);
	pthread_mutex_unlock(&stream->lock);
	return err;
}

static void decode_run(struct pool_work *work)
{
	struct push_stream *stream = CONTAINER_OF(work, struct push_stream, decode_work);
	AUTO_FREE char *in = malloc(DECODE_CHUNK);
	AUTO_FREE char *out = malloc(DECODE_CHUNK);
	int err = in && out ? 0 : -ENOMEM;

	while (!err)
		err = decode_next(stream, in, out);
	push_stream_fail(stream, err, &stream->why);
	push_stream_unref(stream);
}

/* --- the scanner --- */

static ssize_t scan_read(void *arg, uint64_t off, void *buf, size_t len)
{
	struct push_stream *stream = arg;
	int err = 0;

	pthread_mutex_lock(&stream->lock);
	stream->scan_off = off;
	while (!err && !(err = stream->error) && stream->avail <= off && !stream->data_ended) {
		stream->scan_idle = true;
		wait_wake(&stream->changed);
		err = wait_on(&stream->scan_wait, &stream->changed, &stream->lock, WAIT_FOREVER);
	}
	stream->scan_idle = false;
	len = stream->avail > off ? (size_t)MIN(stream->avail - off, (uint64_t)len) : 0;
	pthread_mutex_unlock(&stream->lock);
	if (err)
		return err;
	ssize_t got = pread_full(stream->data, buf, len, (off_t)off);
	return got < 0 ? push_fail_spool(&stream->why, (int)got, "reading the spool") : got;
}

static int on_seen(void *arg, const struct archive_seen *seen)
{
	struct push_stream *stream = arg;
	char head[PUSH_PART_HEAD];
	size_t want = (size_t)MIN(seen->at.len, sizeof(head)), have = 0;

	while (have < want) {
		ssize_t got = scan_read(stream, seen->at.off + have, head + have, want - have);
		if (got <= 0)
			return got < 0 ? (int)got : -ENODATA;
		have += (size_t)got;
	}
	int err = push_part_add(stream, seen, head, have);
	if (!err)
		push_parts_start(stream);
	return err;
}

static void scan_run(struct pool_work *work)
{
	struct push_stream *stream = CONTAINER_OF(work, struct push_stream, scan_work);
	const struct archive_input input = {.pread = scan_read, .arg = stream, .size = INT64_MAX};
	struct archive_table *table = NULL;
	char why[200] = "the archive is not finished";

	int err = archive_table_read(&input, on_seen, stream, &table, why, sizeof(why));
	if (err == -EINVAL || err == -ENODATA)
		err = push_fail(&stream->why, -EINVAL, "the archive cannot be used: %s", why);
	if (err) {
		push_stream_fail(stream, err, &stream->why);
	} else {
		pthread_mutex_lock(&stream->lock);
		stream->table = table;
		stream->scanned = true;
		wait_wake(&stream->changed);
		pthread_mutex_unlock(&stream->lock);
	}
	push_stream_unref(stream);
}

/* --- its beginning --- */

static int open_files(struct push_stream *stream, int spool)
{
	char magic[CODEC_MAGIC_LEN];

	stream->raw = fcntl(spool, F_DUPFD_CLOEXEC, 0);
	if (stream->raw < 0)
		return -errno;
	ssize_t got = pread_full(stream->raw, magic, sizeof(magic), 0);
	if (got < 0)
		return (int)got;
	stream->codec = codec_detect(magic, (size_t)got);
	stream->data = stream->raw;
	if (stream->codec == CODEC_PLAIN)
		return 0;
	stream->decoder = decoder_new(stream->codec, NULL);
	if (!stream->decoder)
		return -ENOMEM;
	stream->data = push_spool_open(stream->push->pushes->spool_dir);
	return stream->data < 0 ? stream->data : 0;
}

static void start_job(struct push_stream *stream, struct pool_work *work)
{
	push_stream_ref(stream);
	if (pool_submit(stream->push->pushes->options.jobs, work) == 0)
		return;
	push_stream_fail(stream, push_fail_errno(&stream->why, -ENOMEM, "a thread"), &stream->why);
	push_stream_unref(stream);
}

int push_stream_new(struct push *push, uint64_t size, struct push_stream **ret)
{
	struct push_stream *stream = calloc(1, sizeof(*stream));

	if (!stream)
		return -ENOMEM;
	stream->push = push;
	stream->refs = 1;
	stream->raw = stream->data = -1;
	stream->scan_work.run = scan_run;
	stream->decode_work.run = decode_run;
	pthread_mutex_init(&stream->lock, NULL);
	push_reason_init(&stream->why);
	wait_init(&stream->scan_wait, true);
	wait_init(&stream->decode_wait, true);
	int err = open_files(stream, push->spool);
	if (err) {
		stream_free(stream);
		return err;
	}
	push_hold(push);
	arrived(stream, size);
	start_job(stream, &stream->scan_work);
	if (stream->codec != CODEC_PLAIN)
		start_job(stream, &stream->decode_work);
	*ret = stream;
	return 0;
}
