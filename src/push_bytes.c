/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of a push: written, read, cut, and from a certain size on handed to a stream.
 * Knows the spool file. Must not know what is in an archive, nor verdicts.
 */
#include <errno.h>
#include <fcntl.h>

#include "push_priv.h"
#include "regfs/log.h"

struct push_stream *push_take_stream(struct push *push)
{
	pthread_mutex_lock(&push->lock);
	struct push_stream *stream = STEAL(push->stream);
	pthread_mutex_unlock(&push->lock);
	return stream;
}

/* A change of the bytes begins: 0, and change_end() is due with the lock held; or -EBUSY. ANEW: it
 * leaves nothing of them. */
static int change_begin(struct push *push, bool anew)
{
	pthread_mutex_lock(&push->lock);
	int err = push->flushing || (push->spent && !anew) ? -EBUSY : 0;
	if (!err)
		push->writers++;
	pthread_mutex_unlock(&push->lock);
	return err;
}

uint64_t push_done_before(const struct push *push)
{
	return push->stream ? push->status.done_bytes : 0;
}

/* The lock is held. A verdict there may have been is about other bytes. */
static void set_size(struct push *push, uint64_t size)
{
	push->size = size;
	push->version++;
	push_staged_free(STEAL(push->staged));
	push->status = (struct push_status){
		.state = PUSH_WRITING,
		.done_bytes = push_done_before(push),
		.total_bytes = size,
	};
}

static void change_end(struct push *push)
{
	push->writers--;
	wait_wake(&push->changed);
	pthread_mutex_unlock(&push->lock);
}

uint64_t push_size(const struct push *push)
{
	pthread_mutex_t *lock = (pthread_mutex_t *)&push->lock;

	pthread_mutex_lock(lock);
	uint64_t size = push->size;
	pthread_mutex_unlock(lock);
	return size;
}

/* Said where it happens; and it is the verdict, unless other bytes come after all. */
static int spool_error(struct push *push, int err)
{
	AUTO_FREE char *label = push_label(push);
	char words[128];

	errno = -err;
	snprintf(words, sizeof(words), "the spool: %m");
	log_error("push %s: %s", label ? label : "", words);
	err = err == -EDQUOT ? -ENOSPC : err;
	pthread_mutex_lock(&push->lock);
	if (!push->flushing) {
		push->status.state = PUSH_FAILED;
		push->status.verdict = err;
		memcpy(push->status.reason, words, sizeof(words));
		push->judged = push->version;
	}
	pthread_mutex_unlock(&push->lock);
	return err;
}

struct push_stream *push_hold_stream(struct push *push)
{
	pthread_mutex_lock(&push->lock);
	struct push_stream *stream = push->stream ? push_stream_ref(push->stream) : NULL;
	pthread_mutex_unlock(&push->lock);
	return stream;
}

static bool is_stopping(struct pushes *pushes)
{
	pthread_mutex_lock(&pushes->lock);
	bool stopping = pushes->stopping;
	pthread_mutex_unlock(&pushes->lock);
	return stopping;
}

/* From a certain size on, what is written in order is sent while it is written, if it is known
 * where to. Where that cannot be begun, it is sent at the end. */
static void maybe_stream(struct push *push)
{
	struct push_stream *stream;

	pthread_mutex_lock(&push->lock);
	bool begin = push->in_order && !push->tried && push->repo && push->size >= PUSH_STREAM_MIN;
	uint64_t size = push->size;
	push->tried |= begin;
	pthread_mutex_unlock(&push->lock);
	if (!begin || is_stopping(push->pushes) || push_stream_new(push, size, &stream))
		return;
	pthread_mutex_lock(&push->lock);
	push->stream = stream;
	pthread_mutex_unlock(&push->lock);
}

/* The bytes are in the spool, or (PUT is an errno) some of them may be. */
static void wrote(struct push *push, struct push_stream *stream, uint64_t off, ssize_t put,
		  size_t len)
{
	pthread_mutex_lock(&push->lock);
	push->in_order = push->in_order && off == push->size && put >= 0;
	if (len)
		set_size(push, MAX(push->size, put < 0 ? 0 : off + len));
	change_end(push);
	if (put <= 0)
		return;
	if (stream)
		push_stream_wrote(stream, off, len);
	else
		maybe_stream(push);
}

void push_spend(struct push *push)
{
	pthread_mutex_lock(&push->lock);
	uint64_t size = push->size;
	push->spent = size > 0;
	pthread_mutex_unlock(&push->lock);
	push_stream_abandon(push_take_stream(push));
	push_spool_drop(push->spool, 0, size);
}

static bool is_spent(struct push *push)
{
	pthread_mutex_lock(&push->lock);
	bool spent = push->spent;
	pthread_mutex_unlock(&push->lock);
	return spent;
}

/* -ESPIPE: the bytes are gone. */
static int spent_already(struct push *push)
{
	AUTO_FREE char *label = push_label(push);

	log_warn("push %s: it was confirmed, and can be neither read again nor changed, only "
		 "written anew",
		 label ? label : "");
	return -ESPIPE;
}

/* A write at OFF after it was confirmed. 1: it is another archive's first; 0: what follows one that
 * was whole at an earlier close is its padding; or -ESPIPE. */
static int write_again(struct push *push, uint64_t off)
{
	if (off == 0) {
		int err = push_truncate(push, 0);
		return err ? err : 1;
	}
	return off < push_size(push) ? spent_already(push) : 0;
}

ssize_t push_write(struct push *push, uint64_t off, const void *buf, size_t len, struct wait *wait)
{
	if (off > PUSH_SIZE_MAX || len > PUSH_SIZE_MAX - off)
		return -EFBIG;
	int wanted = is_spent(push) ? write_again(push, off) : 1;
	if (wanted <= 0)
		return wanted ? wanted : (ssize_t)len;
	AUTO_STREAM struct push_stream *stream = push_hold_stream(push);
	int err = stream ? push_stream_room(stream, off, len, wait) : 0;
	if (!err)
		err = change_begin(push, false);
	if (err)
		return err;
	ssize_t put = pwrite_full(push->spool, buf, len, (off_t)off);
	wrote(push, stream, off, put, len);
	return put < 0 ? spool_error(push, (int)put) : put;
}

ssize_t push_read(struct push *push, uint64_t off, void *buf, size_t len)
{
	AUTO_STREAM struct push_stream *stream = push_hold_stream(push);

	if (off > PUSH_SIZE_MAX)
		return 0;
	if (stream)
		return push_stream_past(stream, off);
	ssize_t got = pread_full(push->spool, buf, len, (off_t)off);
	/* Asked afterwards: it may have gone meanwhile. */
	return got > 0 && is_spent(push) ? spent_already(push) : got;
}

/* A new beginning: a stream there is goes on with the old file, as far as it goes on. */
static int start_anew(struct push *push)
{
	AUTO_CLOSE int fresh = push_spool_open(push->pushes->spool_dir);

	if (fresh < 0)
		return fresh;
	push_stream_abandon(push_take_stream(push));
	return dup3(fresh, push->spool, O_CLOEXEC) < 0 ? -errno : 0;
}

static int cut(struct push *push, struct push_stream *stream, uint64_t size)
{
	if (stream && size == 0)
		return start_anew(push);
	int err = stream ? push_stream_past(stream, size) : 0;
	if (!err && ftruncate(push->spool, (off_t)size) < 0)
		err = -errno;
	return err;
}

int push_truncate(struct push *push, uint64_t size)
{
	AUTO_STREAM struct push_stream *stream = push_hold_stream(push);

	if (size > PUSH_SIZE_MAX)
		return -EFBIG;
	if (size > 0 && is_spent(push))
		return size == push_size(push) ? 0 : spent_already(push);
	int err = change_begin(push, size == 0);
	if (err)
		return err;
	err = cut(push, stream, size);
	pthread_mutex_lock(&push->lock);
	if (!err && size != push->size)
		set_size(push, size);
	if (!err && size == 0) {
		push->in_order = true;
		push->tried = push->spent = false;
	}
	change_end(push);
	return !err || err == -ESPIPE ? err : spool_error(push, err);
}
