/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A push: the file that is written, the one flush at a time, and its verdict.
 * Knows the spool file and who waits. Must not know what is in an archive.
 */
#include <errno.h>
#include <fcntl.h>

#include "push_priv.h"
#include "regfs/log.h"
#include "regfs/stats.h"

/* --- all pushes --- */

/* The push's own reference to its stream, which it has no more. */
static struct push_stream *take_stream(struct push *push)
{
	pthread_mutex_lock(&push->lock);
	struct push_stream *stream = STEAL(push->stream);
	pthread_mutex_unlock(&push->lock);
	return stream;
}

struct pushes *pushes_new(const struct pushes_options *options)
{
	struct pushes *pushes = calloc(1, sizeof(*pushes));

	if (!pushes)
		return NULL;
	pushes->options = *options;
	pushes->spool_dir = strdup(options->spool_dir);
	if (!pushes->spool_dir) {
		free(pushes);
		return NULL;
	}
	pushes->options.spool_dir = pushes->spool_dir;
	pthread_mutex_init(&pushes->lock, NULL);
	return pushes;
}

const char *pushes_spool_dir(const struct pushes *pushes)
{
	return pushes->spool_dir;
}

static struct push *next_push(struct pushes *pushes, struct push *at);

void pushes_stop(struct pushes *pushes)
{
	struct wait patient;
	struct push *push = NULL;

	if (!pushes)
		return;
	pthread_mutex_lock(&pushes->lock);
	pushes->stopping = true;
	pthread_mutex_unlock(&pushes->lock);
	while ((push = next_push(pushes, push)))
		push_stream_abandon(take_stream(push));
	wait_init(&patient, true);
	pthread_mutex_lock(&pushes->lock);
	while (pushes->holds)
		wait_on(&patient, &pushes->let_go, &pushes->lock, WAIT_FOREVER);
	pthread_mutex_unlock(&pushes->lock);
	wait_release(&patient);
}

void pushes_free(struct pushes *pushes)
{
	if (!pushes)
		return;
	pushes_stop(pushes);
	for (size_t i = 0; i < PUSH_ENDED_MAX; i++)
		free(pushes->ended[i].label);
	pthread_mutex_destroy(&pushes->lock);
	free(pushes->spool_dir);
	free(pushes);
}

static void pushes_add(struct pushes *pushes, struct push *push)
{
	pthread_mutex_lock(&pushes->lock);
	push->next = pushes->head;
	if (push->next)
		push->next->link = &push->next;
	push->link = &pushes->head;
	pushes->head = push;
	pthread_mutex_unlock(&pushes->lock);
}

/* PUSH has one reference fewer; true: that was the last, and it is in no list, but held. */
static bool pushes_drop(struct pushes *pushes, struct push *push)
{
	pthread_mutex_lock(&pushes->lock);
	bool last = --push->refs == 0;
	if (last) {
		*push->link = push->next;
		if (push->next)
			push->next->link = push->link;
		push->holds++;
		pushes->holds++;
	}
	pthread_mutex_unlock(&pushes->lock);
	return last;
}

/* Takes LABEL over. */
static void pushes_remember(struct pushes *pushes, char *label, const struct push_status *status)
{
	pthread_mutex_lock(&pushes->lock);
	struct push_ended *ended = &pushes->ended[pushes->next_ended++ % PUSH_ENDED_MAX];
	char *forgotten = ended->label;
	*ended = (struct push_ended){.label = label, .status = *status, .end_ms = now_ms()};
	pthread_mutex_unlock(&pushes->lock);
	free(forgotten);
}

/* --- one push --- */

static void push_free(struct push *push)
{
	if (push->spool >= 0)
		close(push->spool);
	pthread_mutex_destroy(&push->lock);
	push_reason_release(&push->why);
	push_staged_free(push->staged);
	free(push->repo);
	free(push->tag);
	free(push->label);
	free(push);
}

static bool copy_names(struct push *push, const char *repo, const char *tag, const char *label)
{
	push->repo = repo ? strdup(repo) : NULL;
	push->tag = tag ? strdup(tag) : NULL;
	push->label = strdup(label);
	return (!repo || push->repo) && (!tag || push->tag) && push->label;
}

int push_new(struct pushes *pushes, struct store *store, const char *repo, const char *tag,
	     const char *label, struct push **ret)
{
	struct push *push = calloc(1, sizeof(*push));
	int err = -ENOMEM;

	if (!push)
		return -ENOMEM;
	push->pushes = pushes;
	push->store = store;
	push->refs = 1;
	push->spool = -1;
	push->in_order = true;
	pthread_mutex_init(&push->lock, NULL);
	push_reason_init(&push->why);
	if (!copy_names(push, repo, tag, label))
		goto fail;
	push->spool = push_spool_open(pushes->spool_dir);
	if (push->spool < 0) {
		err = push->spool;
		errno = -err;
		log_error("push %s: the spool %s cannot be used: %m", label, pushes->spool_dir);
		goto fail;
	}
	pushes_add(pushes, push);
	*ret = push;
	return 0;
fail:
	push_free(push);
	return err;
}

struct push *push_ref(struct push *push)
{
	pthread_mutex_lock(&push->pushes->lock);
	push->refs++;
	pthread_mutex_unlock(&push->pushes->lock);
	return push;
}

void push_hold(struct push *push)
{
	pthread_mutex_lock(&push->pushes->lock);
	push->holds++;
	push->pushes->holds++;
	pthread_mutex_unlock(&push->pushes->lock);
}

void push_let_go(struct push *push)
{
	struct pushes *pushes = push->pushes;

	pthread_mutex_lock(&pushes->lock);
	bool last = --push->holds == 0 && push->refs == 0;
	pthread_mutex_unlock(&pushes->lock);
	if (last)
		push_free(push);
	pthread_mutex_lock(&pushes->lock);
	if (--pushes->holds == 0)
		wait_wake(&pushes->let_go);
	pthread_mutex_unlock(&pushes->lock);
}

void push_unref(struct push *push)
{
	if (!push || !pushes_drop(push->pushes, push))
		return;
	if (push->status.state == PUSH_DONE || push->status.state == PUSH_FAILED)
		pushes_remember(push->pushes, STEAL(push->label), &push->status);
	push_stream_abandon(STEAL(push->stream));
	push_let_go(push);
}

/* --- bytes --- */

/* A change of the bytes begins: 0, and change_end() is due with the lock held; or -EBUSY. */
static int change_begin(struct push *push)
{
	pthread_mutex_lock(&push->lock);
	int err = push->flushing ? -EBUSY : 0;
	if (!err)
		push->writers++;
	pthread_mutex_unlock(&push->lock);
	return err;
}

/* The lock is held. What a stream has sent stays sent. */
static uint64_t done_before(const struct push *push)
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
		.done_bytes = done_before(push),
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

static int spool_error(struct push *push, int err)
{
	errno = -err;
	log_error("push %s: the spool: %m", push->label);
	return err == -EDQUOT ? -ENOSPC : err;
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

ssize_t push_write(struct push *push, uint64_t off, const void *buf, size_t len, struct wait *wait)
{
	AUTO_STREAM struct push_stream *stream = push_hold_stream(push);

	if (off > PUSH_SIZE_MAX || len > PUSH_SIZE_MAX - off)
		return -EFBIG;
	int err = stream ? push_stream_room(stream, off, len, wait) : 0;
	if (!err)
		err = change_begin(push);
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
	return pread_full(push->spool, buf, len, (off_t)off);
}

/* A new beginning: a stream there is goes on with the old file, as far as it goes on. */
static int start_anew(struct push *push)
{
	AUTO_CLOSE int fresh = push_spool_open(push->pushes->spool_dir);

	if (fresh < 0)
		return fresh;
	push_stream_abandon(take_stream(push));
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
	int err = change_begin(push);
	if (err)
		return err;
	err = cut(push, stream, size);
	pthread_mutex_lock(&push->lock);
	if (!err && size != push->size)
		set_size(push, size);
	if (!err && size == 0) {
		push->in_order = true;
		push->tried = false;
	}
	change_end(push);
	return !err || err == -ESPIPE ? err : spool_error(push, err);
}

/* --- the verdict --- */

void push_progress(struct push *push, int64_t bytes)
{
	pthread_mutex_lock(&push->lock);
	push->status.done_bytes += (uint64_t)bytes;
	pthread_mutex_unlock(&push->lock);
}

void push_sending(struct push *push, uint64_t total_bytes)
{
	pthread_mutex_lock(&push->lock);
	push->status.state = PUSH_SENDING;
	push->status.total_bytes = total_bytes;
	pthread_mutex_unlock(&push->lock);
}

static void log_verdict(const struct push *push, int err, const char *reason)
{
	if (push->kept) {
		log_info("push %s: kept until it is renamed%s%s", push->label, err ? ": " : "",
			 err ? reason : "");
	} else if (!err) {
		stats_add(STAT_PUSHES, 1);
		log_info("push %s: done", push->label);
	} else if (err == -EINTR) {
		log_info("push %s: %s", push->label, reason);
	} else {
		stats_add(STAT_PUSHES_FAILED, 1);
		log_error("push %s: %s", push->label, reason);
	}
}

/* The bytes did not change meanwhile: flushing keeps writers out. */
void push_judge(struct push *push, int err, bool was_kept)
{
	struct push_status status;

	if (err == -EINTR)
		push_fail(&push->why, err, "called off; what was not confirmed is as it was");
	else if (err)
		push_fail_errno(&push->why, err, "the push");
	push_reason_take(&push->why, status.reason);
	log_verdict(push, err, status.reason);
	pthread_mutex_lock(&push->lock);
	memcpy(push->status.reason, status.reason, sizeof(status.reason));
	push->status.state = err ? PUSH_FAILED : push->kept ? PUSH_WRITING : PUSH_DONE;
	push->status.verdict = err;
	/* What was called off may be tried again as it is. */
	push->judged = err == -EINTR || (was_kept && err) ? 0 : push->version;
	push->kept = push->kept || (was_kept && err);
	push->flushing = false;
	wait_wake(&push->changed);
	pthread_mutex_unlock(&push->lock);
}

int push_await_turn(struct push *push, struct wait *wait)
{
	int err = 0;

	while (!err && (push->flushing || push->writers))
		err = wait_on(wait, &push->changed, &push->lock, WAIT_FOREVER);
	return err;
}

void push_claim(struct push *push)
{
	push->flushing = true;
	push->status = (struct push_status){
		.state = PUSH_CHECKING,
		.done_bytes = done_before(push),
		.total_bytes = push->size,
	};
}

/* Waits its turn. 1: this thread is to flush; 0: *RET_VERDICT says it all. */
static int flush_begin(struct push *push, struct wait *wait, int *ret_verdict)
{
	int err = push_await_turn(push, wait);

	if (err || push->size == 0) {
		*ret_verdict = err;
		return 0;
	}
	if (push->judged == push->version) {
		*ret_verdict = push->status.verdict;
		return 0;
	}
	if (!wait_may_block(wait)) {
		*ret_verdict = -EWOULDBLOCK;
		return 0;
	}
	push_claim(push);
	return 1;
}

int push_flush(struct push *push, struct wait *wait)
{
	int verdict;

	if (wait_cancelled(wait))
		return -EINTR;
	pthread_mutex_lock(&push->lock);
	int mine = flush_begin(push, wait, &verdict);
	pthread_mutex_unlock(&push->lock);
	if (!mine)
		return verdict;
	verdict = push_images(push, wait);
	push_judge(push, verdict, false);
	return verdict;
}

/* --- temporaries --- */

void push_keep(struct push *push)
{
	push->kept = true;
}

/* Waits its turn, and claims the flush under the new names, which it takes over. */
static int rename_begin(struct push *push, char **tag, char **label, struct wait *wait)
{
	int err = push_await_turn(push, wait);

	if (err)
		return err;
	if (push->size == 0) {
		log_error("push %s: it is empty, and cannot become %s", push->label, *label);
		return -EINVAL;
	}
	free(push->tag);
	push->tag = STEAL(*tag);
	free(push->label);
	push->label = STEAL(*label);
	push->kept = false;
	push_claim(push);
	return 0;
}

int push_rename(struct push *push, const char *tag, const char *label, struct wait *wait)
{
	if (!wait_may_block(wait))
		return -EWOULDBLOCK;
	AUTO_FREE char *new_tag = tag ? strdup(tag) : NULL;
	AUTO_FREE char *new_label = strdup(label);
	if ((tag && !new_tag) || !new_label)
		return -ENOMEM;
	pthread_mutex_lock(&push->lock);
	int err = rename_begin(push, &new_tag, &new_label, wait);
	pthread_mutex_unlock(&push->lock);
	if (err)
		return err;
	err = push_images(push, wait);
	push_judge(push, err, true);
	return err;
}

/* --- what is shown --- */

const char *push_state_name(enum push_state state)
{
	static const char *const names[] = {
		[PUSH_WRITING] = "writing", [PUSH_CHECKING] = "checking",
		[PUSH_SENDING] = "sending", [PUSH_DONE] = "done",
		[PUSH_FAILED] = "failed",
	};
	return names[state];
}

void push_status(struct push *push, struct push_status *ret)
{
	pthread_mutex_lock(&push->lock);
	*ret = push->status;
	pthread_mutex_unlock(&push->lock);
}

/* A rename changes the label. */
static char *label_copy(struct push *push, struct push_status *ret)
{
	pthread_mutex_lock(&push->lock);
	char *label = strdup(push->label);
	*ret = push->status;
	pthread_mutex_unlock(&push->lock);
	return label;
}

static int add_line(struct buf *ret, const char *label, const struct push_status *status)
{
	return buf_printf(ret, "%s %ju %ju %s%s%s\n", label, (uintmax_t)status->done_bytes,
			  (uintmax_t)status->total_bytes, push_state_name(status->state),
			  *status->reason ? " " : "", status->reason);
}

/* The I-th oldest of the ended ones that are still shown: a copy, or NULL. */
static char *ended_copy(struct pushes *pushes, unsigned i, struct push_status *ret)
{
	char *label = NULL;

	pthread_mutex_lock(&pushes->lock);
	const struct push_ended *ended = &pushes->ended[(pushes->next_ended + i) % PUSH_ENDED_MAX];
	if (ended->label && now_ms() - ended->end_ms < PUSH_ENDED_MS) {
		label = strdup(ended->label);
		*ret = ended->status;
	}
	pthread_mutex_unlock(&pushes->lock);
	return label;
}

/* The push after AT (NULL: the first), with a reference; AT loses its own. */
static struct push *next_push(struct pushes *pushes, struct push *at)
{
	pthread_mutex_lock(&pushes->lock);
	struct push *next = at ? at->next : pushes->head;
	if (next)
		next->refs++;
	pthread_mutex_unlock(&pushes->lock);
	push_unref(at);
	return next;
}

int pushes_text(struct pushes *pushes, struct buf *ret)
{
	struct push_status status;
	struct push *push = NULL;
	int err = 0;

	for (unsigned i = 0; i < PUSH_ENDED_MAX && !err; i++) {
		AUTO_FREE char *label = ended_copy(pushes, i, &status);
		if (label)
			err = add_line(ret, label, &status);
	}
	while ((push = next_push(pushes, push))) {
		AUTO_FREE char *label = label_copy(push, &status);
		/* After an error too, to give the references back. */
		if (!err)
			err = label ? add_line(ret, label, &status) : -ENOMEM;
	}
	return err;
}
