/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of an archive that is pushed while it is written: blobs and layers, each checked,
 * compressed where that is wanted, and sent, as soon as its bytes are there.
 * Knows what a member looks like. Must not know which image it belongs to: that is found out at the
 * flush, which takes the parts it needs, by their place in the archive.
 *
 * A blob (blobs/sha256/<hex>) is sent as it is, if it is what its name says. A tar that is not
 * compressed is a layer of docker save, in an OCI layout too, as long as its index.json was not
 * seen: there the layers come first (docker from 25 on). If it then is an OCI archive after all,
 * push_restore.c makes the blob from what was sent.
 */
#include <errno.h>

#include "push_priv.h"

#define TAR_MAGIC_OFF 257
#define TAR_MAGIC     "ustar"

/* So far the writer may be ahead of a blob under way, beside the stream's own window: the next
 * layer is unpacked while the store syncs this one to its disk. */
#define AHEAD (96 * MIB)

/* --- which members are parts --- */

static bool is_tar(const char *head, size_t len)
{
	if (len < PUSH_PART_HEAD)
		return false;
	if (!memcmp(head + TAR_MAGIC_OFF, TAR_MAGIC, strlen(TAR_MAGIC)))
		return true;
	/* An empty one is zeros alone. */
	for (size_t i = 0; i < len; i++) {
		if (head[i])
			return false;
	}
	return true;
}

/* Whether PATH is that of a blob in a layout, and whose. */
static bool is_blob_path(const char *path, struct digest *ret)
{
	static const char prefix[] = "blobs/";

	return starts_with(path, prefix) && !digest_parse_sep(path + strlen(prefix), '/', ret);
}

/* What the flush will read: manifests and configs. */
static bool is_document(const struct archive_seen *seen, const char *head, size_t len)
{
	static const char white[] = {' ', '\t', '\r', '\n'};
	size_t blank = 0;

	while (blank < len && memchr(white, head[blank], sizeof(white)))
		blank++;
	/* White space alone does not tell. */
	return seen->at.len <= OCI_CONFIG_MAX &&
	       (blank == len || head[blank] == '{' || head[blank] == '[');
}

static struct push_part *part_new(struct push_stream *stream, const struct archive_seen *seen)
{
	struct push_part *part = calloc(1, sizeof(*part));

	if (!part)
		return NULL;
	part->stream = stream;
	part->at = part->layer.at = seen->at;
	part->needed = seen->at.off;
	part->layer.diff_id.algo = DIGEST_SHA256;
	push_reason_init(&part->why);
	wait_init(&part->wait, true);
	part->run = (struct push_run){
		.push = stream->push,
		.why = &part->why,
		.wait = &part->wait,
		.fd = stream->data,
		.size = UINT64_MAX,
		.stream = stream,
		.part = part,
	};
	return part;
}

void push_part_free(struct push_part *part)
{
	wait_release(&part->wait);
	push_reason_release(&part->why);
	free(part);
}

/* Lock held. The array grows by doubling. */
static int append(struct push_stream *stream, struct push_part *part)
{
	size_t n = stream->nparts;

	if ((n & (n - 1)) == 0) {
		struct push_part **grown = reallocarray(stream->parts, n ? 2 * n : 1,
							sizeof(struct push_part *));
		if (!grown)
			return -ENOMEM;
		stream->parts = grown;
	}
	stream->parts[stream->nparts++] = part;
	return 0;
}

static void part_run(struct pool_work *work);

int push_part_add(struct push_stream *stream, const struct archive_seen *seen, const char *head,
		  size_t len)
{
	struct digest named = {.algo = DIGEST_NONE};
	bool blob = is_blob_path(seen->path, &named), tar = is_tar(head, len);
	enum codec codec = codec_detect(head, len);

	if (!strcmp(seen->path, "index.json"))
		stream->index_seen = true;
	if (stream->nparts == PUSH_PARTS_MAX || is_document(seen, head, len) ||
	    (!blob && !tar && codec == CODEC_PLAIN))
		return 0;
	struct push_part *part = part_new(stream, seen);
	if (!part)
		return -ENOMEM;
	part->is_blob = blob && !(tar && named.algo == DIGEST_SHA256 && !stream->index_seen);
	part->named = named;
	part->layer.codec = codec;
	part->work.run = part_run;
	pthread_mutex_lock(&stream->lock);
	int err = append(stream, part);
	/* A stream that failed meanwhile has not cancelled this one. */
	if (!err && stream->error)
		wait_cancel(&part->wait);
	pthread_mutex_unlock(&stream->lock);
	if (err)
		push_part_free(part);
	return err;
}

/* --- what becomes of one --- */

/* Whoever sends a small one mostly waits for the store, which syncs each to its disk: they hold up
 * neither a large one nor the writer. */
static bool is_small(const struct push_part *part)
{
	return part->at.len <= PUSH_SMALL;
}

/* What is before OFF keeps no writer back. */
static void need_from(struct push_part *part, uint64_t off)
{
	pthread_mutex_lock(&part->stream->lock);
	part->needed = MAX(part->needed, off);
	wait_wake(&part->stream->changed);
	pthread_mutex_unlock(&part->stream->lock);
}

/* All its bytes are as good as taken: the spool keeps them until they are confirmed. */
static void need_no_room(struct push_part *part)
{
	need_from(part, is_small(part) ? UINT64_MAX : part->at.off + part->at.len + AHEAD);
}

static int blob_send(struct push_part *part)
{
	const struct push_blob blob = {.repo = part->stream->push->repo, .digest = &part->named};

	need_no_room(part);
	part->layer.digest = part->named;
	part->layer.size = part->at.len;
	int err = push_send_checked(&part->run, &blob, &part->at, &part->wait, &part->inside);
	/* It may be a layer of docker save after all. */
	part->layer.diff_id = part->inside.diff_id;
	return err;
}

static int layer_send(struct push_part *part)
{
	const struct pushes_options *options = &part->stream->push->pushes->options;

	if (part->layer.codec != CODEC_PLAIN || options->compress == CODEC_PLAIN)
		need_no_room(part);
	return push_layer_send(&part->run, &part->layer, part->stream->push->repo, &part->wait);
}

static void part_run(struct pool_work *work)
{
	struct push_part *part = CONTAINER_OF(work, struct push_part, work);
	struct push_stream *stream = part->stream;

	int err = part->is_blob ? blob_send(part) : layer_send(part);
	push_stream_drop(stream, part->at.off, part->at.len);
	/* What is wrong with it may be of no importance: nothing need refer to it. */
	bool fatal = err && err != -EINVAL;
	if (fatal)
		push_stream_fail(stream, err, &part->why);
	pthread_mutex_lock(&stream->lock);
	part->state = PART_DONE;
	part->err = err;
	part->needed = UINT64_MAX;
	stream->nrunning[is_small(part)]--;
	wait_wake(&stream->changed);
	pthread_mutex_unlock(&stream->lock);
	push_parts_start(stream);
	push_stream_unref(stream);
}

/* The next that may run now, or NULL. */
static struct push_part *take_next(struct push_stream *stream)
{
	struct push_part *part = NULL;

	pthread_mutex_lock(&stream->lock);
	if (!stream->error && stream->next_part < stream->nparts)
		part = stream->parts[stream->next_part];
	if (part && stream->nrunning[is_small(part)] < PUSH_PARALLEL) {
		stream->next_part++;
		part->state = PART_RUNNING;
		stream->nrunning[is_small(part)]++;
		stream->refs++;
	} else {
		part = NULL;
	}
	pthread_mutex_unlock(&stream->lock);
	return part;
}

void push_parts_start(struct push_stream *stream)
{
	struct push_part *part;

	while ((part = take_next(stream))) {
		if (pool_submit(stream->push->pushes->options.jobs, &part->work) == 0)
			continue;
		push_stream_fail(stream, push_fail_errno(&part->why, -ENOMEM, "a thread"),
				 &part->why);
		push_stream_unref(stream);
	}
}

void push_part_passed(struct push_part *part, uint64_t off, uint64_t len)
{
	push_stream_drop(part->stream, off, len);
	need_from(part, off + len);
}

void push_part_confirmed(struct push_part *part)
{
	need_from(part, UINT64_MAX);
}

/* --- for the flush --- */

static struct push_part *part_at(struct push_stream *stream, uint64_t off)
{
	for (size_t i = 0; i < stream->nparts; i++) {
		if (stream->parts[i]->at.off == off)
			return stream->parts[i];
	}
	return NULL;
}

bool push_part_exists(const struct push_run *run, const struct archive_blob *at)
{
	struct push_stream *stream = run->stream;

	if (!stream)
		return false;
	pthread_mutex_lock(&stream->lock);
	bool exists = part_at(stream, at->off) != NULL;
	pthread_mutex_unlock(&stream->lock);
	return exists;
}

int push_part_find(struct push_run *run, const struct archive_blob *at, struct push_part **ret)
{
	struct push_stream *stream = run->stream;
	int err = 0;

	if (!stream)
		return -ENOENT;
	pthread_mutex_lock(&stream->lock);
	struct push_part *part = part_at(stream, at->off);
	/* What ended the stream comes first: others were called off because of it. */
	while (part && !err) {
		if (stream->error)
			err = push_fail(run->why, stream->error, "%s", stream->error_text);
		else if (part->state == PART_DONE)
			break;
		else
			err = wait_on(run->wait, &stream->changed, &stream->lock, WAIT_FOREVER);
	}
	pthread_mutex_unlock(&stream->lock);
	if (!part || err)
		return err ? err : -ENOENT;
	if (part->err) {
		pthread_mutex_lock(&part->why.lock);
		push_fail(run->why, part->err, "%s", part->why.text);
		pthread_mutex_unlock(&part->why.lock);
		return part->err;
	}
	*ret = part;
	return 0;
}
