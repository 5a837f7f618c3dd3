/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A push: who holds it, the one flush at a time, its name, and its verdict.
 * Knows who waits. Must not know what is in an archive.
 */
#include <errno.h>

#include "push_priv.h"
#include "regfs/log.h"
#include "regfs/stats.h"

/* --- all pushes --- */

struct pushes *pushes_new(const struct pushes_options *options)
{
	struct pushes *pushes = calloc(1, sizeof(*pushes));

	if (!pushes)
		return NULL;
	pushes->options = *options;
	pushes->unpack_free = PUSH_RATIO_FREE;
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
		push_stream_abandon(push_take_stream(push));
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
		log_info("push %s: confirmed", push->label);
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
	if (!err && !push->kept)
		push_spend(push);
	atomic_store(&push->answered, false); /* who knows when the next flush comes */
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
		.done_bytes = push_done_before(push),
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

static const char *push_state_name(enum push_state state)
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

char *push_label(struct push *push)
{
	struct push_status unused;

	return label_copy(push, &unused);
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
