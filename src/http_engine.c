/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http_engine: a thread that drives transfers through curl's multi interface.
 * Knows curl's multi handle and who may go. Must not know requests and answers.
 *
 * Callers put a transfer into the inbox and wake the thread; it looks at the transfer's fields
 * and begins it, lets it go on, or lets go of it.
 *
 * Who may go: at most .per_host *moving* transfers to one host. One that is paused because its
 * reader does not read, or that has had no byte for STALL_MS, does not count: else as many
 * sleeping readers as there are places would stop all others. Uploads leave some of the places
 * free. And nobody queues for longer than QUEUE_MS: the limit keeps a burst from opening many
 * connections, it is no reason to starve behind long downloads. What bounds the connections then is
 * the number of callers.
 */
#include <errno.h>
#include <signal.h>

#include "http_priv.h"

#define STALL_MS 2000
#define QUEUE_MS 2000
/* Idle connections kept; curl closes those that were idle for two minutes. */
#define IDLE_CONNECTIONS 32L

void http_engine_attend(struct http_engine *engine, struct http_transfer *transfer)
{
	http_transfer_ref(transfer);
	pthread_mutex_lock(&engine->lock);
	bool queued = !transfer->in_inbox;
	if (queued) {
		transfer->in_inbox = true;
		transfer->inbox_next = NULL;
		*engine->inbox_tail = transfer;
		engine->inbox_tail = &transfer->inbox_next;
	}
	pthread_mutex_unlock(&engine->lock);
	if (!queued)
		http_transfer_unref(transfer);
	curl_multi_wakeup(engine->multi);
}

static void adopt(struct http_engine *engine, struct http_transfer *transfer)
{
	http_transfer_ref(transfer);
	transfer->owned = true;
	transfer->arrived_ms = now_ms();
	transfer->next = NULL;
	transfer->link = engine->transfers_tail;
	*engine->transfers_tail = transfer;
	engine->transfers_tail = &transfer->next;
	engine->nqueued++;
	engine->recheck = true;
}

static void let_go(struct http_engine *engine, struct http_transfer *transfer)
{
	if (!transfer->easy)
		engine->nqueued--;
	http_easy_drop(transfer);
	*transfer->link = transfer->next;
	if (transfer->next)
		transfer->next->link = transfer->link;
	else
		engine->transfers_tail = transfer->link;
	transfer->owned = false;
	engine->recheck = true;
	http_transfer_unref(transfer);
}

/* ---- hosts that keep silent ---- */

/*
 * A connection may go dead without a sign: something on the way still takes what is sent and passes
 * nothing on. Over HTTP/2 such a one would be chosen for each new request. So what was given up
 * after a silence takes its connection with it, and the next requests to that host use none that is
 * there, until one of them is answered.
 */
static bool was_silent(struct http_transfer *transfer)
{
	pthread_mutex_lock(&transfer->lock);
	bool unanswered = !transfer->status && now_ms() - transfer->progress_ms >= STALL_MS;
	bool silent = transfer->error == -ETIMEDOUT || unanswered;
	pthread_mutex_unlock(&transfer->lock);
	return transfer->easy && silent;
}

static bool is_silent(const struct http_engine *engine, uint64_t host)
{
	for (size_t i = 0; i < HTTP_SILENT_MAX; i++) {
		if (engine->silent[i] == host)
			return true;
	}
	return false;
}

static void note_silence(struct http_engine *engine, uint64_t host)
{
	if (!is_silent(engine, host))
		engine->silent[engine->nsilent++ % HTTP_SILENT_MAX] = host;
}

void http_engine_note_answer(struct http_engine *engine, const struct http_transfer *transfer)
{
	for (size_t i = 0; i < HTTP_SILENT_MAX; i++) {
		if (engine->silent[i] == transfer->host_hash)
			engine->silent[i] = 0;
	}
}

static void give_up(struct http_engine *engine, struct http_transfer *transfer)
{
	transfer->silent = was_silent(transfer);
	if (transfer->silent)
		note_silence(engine, transfer->host_hash);
	let_go(engine, transfer);
}

/* ---- what is in the inbox ---- */

static void look_at(struct http_engine *engine, struct http_transfer *transfer)
{
	pthread_mutex_lock(&transfer->lock);
	bool closed = transfer->closed;
	bool fresh = !transfer->owned && transfer->state == HTTP_STATE_QUEUED;
	bool resume = transfer->resume;
	transfer->resume = false;
	if (resume)
		transfer->paused = transfer->starved = false;
	pthread_mutex_unlock(&transfer->lock);

	if (closed) {
		if (transfer->owned)
			give_up(engine, transfer);
	} else if (fresh) {
		adopt(engine, transfer);
	} else if (resume && transfer->easy) {
		/* Delivers what curl kept back from within this call, and sends again. */
		CURLcode code = curl_easy_pause(transfer->easy, CURLPAUSE_CONT);
		if (code) {
			http_easy_end(transfer, code);
			let_go(engine, transfer);
		}
	}
}

static struct http_transfer *next_of_inbox(struct http_engine *engine, bool *ret_stop)
{
	pthread_mutex_lock(&engine->lock);
	struct http_transfer *transfer = engine->inbox;
	if (transfer) {
		engine->inbox = transfer->inbox_next;
		if (!engine->inbox)
			engine->inbox_tail = &engine->inbox;
		transfer->in_inbox = false;
	}
	*ret_stop = engine->stop;
	pthread_mutex_unlock(&engine->lock);
	return transfer;
}

/* False when the engine is to stop. */
static bool take_inbox(struct http_engine *engine)
{
	bool stop;
	struct http_transfer *transfer;
	while ((transfer = next_of_inbox(engine, &stop))) {
		look_at(engine, transfer);
		http_transfer_unref(transfer);
	}
	return !stop;
}

static bool moving(const struct http_transfer *transfer, int64_t now)
{
	/* Only this thread writes these once the transfer was adopted. */
	return transfer->easy && !transfer->paused && !transfer->starved &&
	       now - transfer->progress_ms < STALL_MS;
}

/* Those who send leave most of the places to those who read: somebody waits for these. */
static unsigned places(const struct http_engine *engine, const struct http_transfer *transfer)
{
	return transfer->body_read ? MAX(engine->per_host / 3, 1) : engine->per_host;
}

static bool may_go(const struct http_engine *engine, const struct http_transfer *transfer,
		   int64_t now)
{
	if (!engine->per_host || now - transfer->arrived_ms >= QUEUE_MS)
		return true;
	unsigned n = 0;
	for (const struct http_transfer *t = engine->transfers; t; t = t->next) {
		if (t->host_hash == transfer->host_hash && moving(t, now))
			n++;
	}
	return n < places(engine, transfer);
}

static void begin(struct http_engine *engine, struct http_transfer *transfer)
{
	transfer->fresh |= is_silent(engine, transfer->host_hash);
	pthread_mutex_lock(&transfer->lock);
	transfer->state = HTTP_STATE_SENT;
	transfer->progress_ms = now_ms();
	/* Its clock runs from now on, so its caller has to look at it again. */
	wait_wake(&transfer->waiters);
	pthread_mutex_unlock(&transfer->lock);
	int err = http_easy_begin(transfer);
	if (!err) {
		engine->nqueued--;
		return;
	}
	pthread_mutex_lock(&transfer->lock);
	http_transfer_fail(transfer, err, err == -EINVAL ? "the URL is not valid" : strerror(-err));
	pthread_mutex_unlock(&transfer->lock);
	let_go(engine, transfer);
}

static void admit(struct http_engine *engine)
{
	if (!engine->nqueued || !engine->recheck)
		return;
	engine->recheck = false;
	int64_t now = now_ms();
	struct http_transfer *next;
	for (struct http_transfer *t = engine->transfers; t; t = next) {
		next = t->next;
		if (!t->easy && may_go(engine, t, now))
			begin(engine, t);
	}
}

static void collect(struct http_engine *engine)
{
	int left;
	CURLMsg *message;
	while ((message = curl_multi_info_read(engine->multi, &left))) {
		if (message->msg != CURLMSG_DONE)
			continue;
		struct http_transfer *transfer = NULL;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&transfer);
		CURLcode code = message->data.result;
		if (http_easy_spoilt(transfer, code)) {
			http_easy_drop(transfer);
			transfer->fresh = true;
			transfer->header_bytes = 0;
			engine->nqueued++;
			begin(engine, transfer);
			continue;
		}
		http_easy_end(transfer, code);
		let_go(engine, transfer);
	}
}

/* Callers are woken once a round and not for each piece that curl hands over. */
static void wake_readers(struct http_engine *engine)
{
	for (struct http_transfer *t = engine->transfers; t; t = t->next) {
		if (!t->news)
			continue;
		t->news = false;
		pthread_mutex_lock(&t->lock);
		wait_wake(&t->waiters);
		pthread_mutex_unlock(&t->lock);
	}
}

static void *run(void *arg)
{
	struct http_engine *engine = arg;
	int running;
	while (take_inbox(engine)) {
		admit(engine);
		curl_multi_perform(engine->multi, &running);
		collect(engine);
		wake_readers(engine);
		int patience_ms = 10000;
		if (engine->nqueued) {
			patience_ms = engine->recheck ? 0 : 250;
			engine->recheck = true;
		}
		curl_multi_poll(engine->multi, NULL, 0, patience_ms, NULL);
	}
	return NULL;
}

int http_engine_start(struct http_engine *engine)
{
	engine->inbox_tail = &engine->inbox;
	engine->transfers_tail = &engine->transfers;
	engine->multi = curl_multi_init();
	if (!engine->multi)
		return -ENOMEM;
	pthread_mutex_init(&engine->lock, NULL);
	curl_multi_setopt(engine->multi, CURLMOPT_MAXCONNECTS, IDLE_CONNECTIONS);

	/* Signals are for the main thread; a socket's SIGPIPE stays blocked for ever. */
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int err = pthread_create(&engine->thread, NULL, run, engine);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	engine->running = err == 0;
	return -err;
}

void http_engine_stop(struct http_engine *engine)
{
	if (!engine->multi)
		return;
	if (engine->running) {
		pthread_mutex_lock(&engine->lock);
		engine->stop = true;
		pthread_mutex_unlock(&engine->lock);
		curl_multi_wakeup(engine->multi);
		pthread_join(engine->thread, NULL);
	}
	curl_multi_cleanup(engine->multi);
	pthread_mutex_destroy(&engine->lock);
}
