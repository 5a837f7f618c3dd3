/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http_transfer: one transfer as its caller sees it: start, headers, read, close.
 * Knows waiting, deadlines and what is logged. Must not call curl for a transfer: that is its
 * engine's (http_easy.c).
 */
#include <errno.h>
#include <strings.h>
#include <sys/random.h>

#include "http_priv.h"
#include "regfs/log.h"
#include "regfs/stats.h"

const char *http_method_name(enum http_method method)
{
	static const char *const names[] = {
		[HTTP_GET] = "GET",   [HTTP_HEAD] = "HEAD",   [HTTP_PUT] = "PUT",
		[HTTP_POST] = "POST", [HTTP_PATCH] = "PATCH", [HTTP_DELETE] = "DELETE",
	};
	return names[method];
}

/* What is sent may be a password or a token: no copy of it stays in free memory. */
static void forget_request(struct http_transfer *transfer)
{
	for (struct curl_slist *at = transfer->request_headers; at; at = at->next)
		explicit_bzero(at->data, strlen(at->data));
	curl_slist_free_all(transfer->request_headers);
	if (transfer->body)
		explicit_bzero(transfer->body, transfer->body_len);
	free(transfer->body);
}

static void transfer_free(struct http_transfer *transfer)
{
	free(transfer->url);
	free(transfer->host);
	forget_request(transfer);
	free(transfer->ca_file);
	free(transfer->ca_pem);
	free(transfer->ca_dir);
	free(transfer->cert_file);
	free(transfer->key_file);
	free(transfer->user_agent);
	buf_release(&transfer->headers);
	http_queue_release(&transfer->queue);
	pthread_cond_destroy(&transfer->read_done);
	pthread_mutex_destroy(&transfer->lock);
	free(transfer);
}

void http_transfer_ref(struct http_transfer *transfer)
{
	pthread_mutex_lock(&transfer->lock);
	transfer->refs++;
	pthread_mutex_unlock(&transfer->lock);
}

void http_transfer_unref(struct http_transfer *transfer)
{
	pthread_mutex_lock(&transfer->lock);
	bool last = --transfer->refs == 0;
	pthread_mutex_unlock(&transfer->lock);
	if (last)
		transfer_free(transfer);
}

static void transfer_unref_cleanup(struct http_transfer **transfer)
{
	if (*transfer)
		http_transfer_unref(*transfer);
}

/* ---- making one ---- */

static int copy_text(const char *text, char **ret)
{
	if (!text)
		return 0;
	*ret = strdup(text);
	return *ret ? 0 : -ENOMEM;
}

static int add_request_header(struct http_transfer *transfer, const char *header)
{
	struct curl_slist *list = curl_slist_append(transfer->request_headers, header);
	if (!list)
		return -ENOMEM;
	transfer->request_headers = list;
	return 0;
}

static int copy_headers(struct http_transfer *transfer, const char *const *headers)
{
	/* Bytes as they are, or digests and ranges mean nothing. An Expect costs a second at
	 * servers that do not know it. */
	int err = add_request_header(transfer, "Accept-Encoding: identity");
	err = err ? err : add_request_header(transfer, "Expect:");
	for (; !err && headers && *headers; headers++) {
		if (strpbrk(*headers, "\r\n"))
			return -EINVAL;
		err = add_request_header(transfer, *headers);
	}
	return err;
}

static int copy_tls(struct http_transfer *transfer, const struct http_tls *tls)
{
	if (!tls)
		return 0;
	transfer->skip_verify = tls->skip_verify;
	int err = copy_text(tls->ca_file, &transfer->ca_file);
	err = err ? err : copy_text(tls->ca_pem, &transfer->ca_pem);
	err = err ? err : copy_text(tls->ca_dir, &transfer->ca_dir);
	err = err ? err : copy_text(tls->cert_file, &transfer->cert_file);
	return err ? err : copy_text(tls->key_file, &transfer->key_file);
}

static int copy_body(struct http_transfer *transfer, const struct http_request *request)
{
	transfer->body_read = request->body_read;
	transfer->body_await = request->body_await;
	transfer->body_arg = request->body_arg;
	transfer->body_len = request->body_len;
	if (request->body_read || !request->body_len)
		return 0;
	transfer->body = malloc(request->body_len);
	if (!transfer->body)
		return -ENOMEM;
	memcpy(transfer->body, request->body, request->body_len);
	return 0;
}

static int copy_url(struct http_transfer *transfer, const char *url)
{
	CLEANUP(http_url_release) struct http_url parts = {0};
	int err = http_url_parse(url, &parts);
	err = err ? err : copy_text(url, &transfer->url);
	if (err)
		return err;
	transfer->host_hash = hash64(0, parts.scheme, strlen(parts.scheme));
	transfer->host_hash = hash64(transfer->host_hash, parts.host, strlen(parts.host));
	transfer->host = STEAL(parts.host);
	transfer->port = http_url_port(url);
	return 0;
}

static int transfer_new(struct http *http, const struct http_request *request,
			struct http_transfer **ret)
{
	struct http_transfer *plain = calloc(1, sizeof(*plain));
	if (!plain)
		return -ENOMEM;
	pthread_mutex_init(&plain->lock, NULL);
	pthread_cond_init(&plain->read_done, NULL);
	plain->refs = 1;
	CLEANUP(transfer_unref_cleanup) struct http_transfer *transfer = plain;
	transfer->engine = request->bulk ? &http->bulk : &http->names;
	transfer->method = request->method;
	transfer->outside = request->outside;
	transfer->words_wanted = request->why != NULL;
	transfer->timeout_ms = request->timeout_ms ? request->timeout_ms : http->timeout_ms;
	transfer->deadline_ms = request->deadline_ms ? request->deadline_ms : WAIT_FOREVER;
	transfer->progress_ms = now_ms();
	transfer->content_length = -1;
	transfer->headers.max = HTTP_HEADERS_MAX;
	int err = copy_url(transfer, request->url);
	err = err ? err : copy_headers(transfer, request->headers);
	err = err ? err : copy_tls(transfer, request->tls);
	err = err ? err : copy_body(transfer, request);
	err = err ? err : copy_text(http->user_agent, &transfer->user_agent);
	if (!err)
		*ret = STEAL(transfer);
	return err;
}

/* ---- its end ---- */

void http_transfer_fail(struct http_transfer *transfer, int error, const char *why)
{
	if (transfer->state == HTTP_STATE_ENDED)
		return;
	transfer->state = HTTP_STATE_ENDED;
	transfer->error = error;
	snprintf(transfer->why, sizeof(transfer->why), "%s", why);
	wait_wake(&transfer->waiters);
}

/* Logs a failure the first time it is returned to the caller. */
static int report(struct http_transfer *transfer, int error)
{
	if (error == -EINTR || error == -EWOULDBLOCK)
		return error;
	stats_add(STAT_HTTP_ERRORS, 1);
	if (!transfer->words_wanted) {
		/* The query is left out: signed URLs carry credentials there. */
		int path = (int)strcspn(transfer->url, "?");
		log_warn("%s %.*s: %s", http_method_name(transfer->method), path, transfer->url,
			 transfer->why);
	}
	return error;
}

/* With the lock. When the caller's patience ends, if nothing happens until then. A transfer that
 * queues for its turn is not to blame for having no progress. */
static int64_t patience(const struct http_transfer *transfer, int64_t since_ms)
{
	if (transfer->state == HTTP_STATE_QUEUED)
		return transfer->deadline_ms;
	int64_t progress = MAX(transfer->progress_ms, since_ms) + transfer->timeout_ms;
	return MIN(progress, transfer->deadline_ms);
}

/* With the lock: waits for news. 0: look again. */
static int await(struct http_transfer *transfer, struct wait *wait, int64_t since_ms)
{
	int err = wait_on(wait, &transfer->waiters, &transfer->lock, patience(transfer, since_ms));
	if (err != -ETIMEDOUT)
		return err;
	if (now_ms() < patience(transfer, since_ms))
		return 0;
	char why[HTTP_WHY_MAX];
	if (now_ms() >= transfer->deadline_ms)
		snprintf(why, sizeof(why), "no complete answer in time");
	else
		snprintf(why, sizeof(why), "nothing moved for %lld ms",
			 (long long)transfer->timeout_ms);
	http_transfer_fail(transfer, -ETIMEDOUT, why);
	return 0;
}

void http_close(struct http_transfer *transfer)
{
	if (!transfer)
		return;
	pthread_mutex_lock(&transfer->lock);
	transfer->closed = true;
	/* The source is the caller's and may be gone after this. */
	while (transfer->reading)
		pthread_cond_wait(&transfer->read_done, &transfer->lock);
	pthread_mutex_unlock(&transfer->lock);
	http_engine_attend(transfer->engine, transfer);
	http_transfer_unref(transfer);
}

/* ---- start ---- */

/* With the lock, which it releases meanwhile: waits for bytes to send. */
static int feed(struct http_transfer *transfer, struct wait *wait)
{
	uint64_t off = transfer->starved_off;
	pthread_mutex_unlock(&transfer->lock);
	int err = transfer->body_await(transfer->body_arg, off, wait);
	pthread_mutex_lock(&transfer->lock);
	if (err && err != -EINTR && err != -EWOULDBLOCK) {
		http_transfer_fail(transfer, err, "what is to be sent cannot be had");
		return 0;
	}
	transfer->resume = true;
	pthread_mutex_unlock(&transfer->lock);
	http_engine_attend(transfer->engine, transfer);
	pthread_mutex_lock(&transfer->lock);
	return err;
}

static int await_headers(struct http_transfer *transfer, struct wait *wait)
{
	int err = 0;
	int64_t since = now_ms();
	pthread_mutex_lock(&transfer->lock);
	while (!err && transfer->state < HTTP_STATE_ANSWERED) {
		if (!transfer->starved || transfer->resume) {
			err = await(transfer, wait, since);
			continue;
		}
		err = feed(transfer, wait);
		since = now_ms();
	}
	/* Failed after the headers: http_read() will say so, after what has come. */
	if (!err && !transfer->status)
		err = transfer->error;
	pthread_mutex_unlock(&transfer->lock);
	return err;
}

int http_begin(struct http *http, const struct http_request *request, struct wait *wait,
	       struct http_transfer **ret)
{
	if (!wait_may_block(wait))
		return -EWOULDBLOCK;
	if (wait_cancelled(wait))
		return -EINTR;
	struct http_transfer *transfer = NULL;
	int err = transfer_new(http, request, &transfer);
	if (err) {
		if (request->why)
			snprintf(request->why, HTTP_WHY_MAX, "%s", strerror(-err));
		return err;
	}
	http_engine_attend(transfer->engine, transfer);
	*ret = transfer;
	return 0;
}

int http_answer(struct http_transfer *transfer, struct wait *wait)
{
	int err = await_headers(transfer, wait);
	return err ? report(transfer, err) : 0;
}

int http_start(struct http *http, const struct http_request *request, struct wait *wait,
	       struct http_transfer **ret)
{
	struct http_transfer *transfer = NULL;
	int err = http_begin(http, request, wait, &transfer);
	if (err)
		return err;
	err = http_answer(transfer, wait);
	if (!err) {
		*ret = transfer;
		return 0;
	}
	/* The words are settled once the transfer has ended, not while the engine has it. */
	bool settled = err != -EINTR && err != -EWOULDBLOCK;
	if (request->why)
		snprintf(request->why, HTTP_WHY_MAX, "%s", settled ? transfer->why : "interrupted");
	http_close(transfer);
	return err;
}

/* ---- headers ---- */

int http_transfer_add_header(struct http_transfer *transfer, const char *line, size_t len)
{
	const char *colon = memchr(line, ':', len);
	if (!colon || memchr(line, '\0', len))
		return 0; /* no header; servers send such lines */
	const char *value = colon + 1;
	const char *end = line + len;
	while (value < end && (*value == ' ' || *value == '\t'))
		value++;
	while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	struct buf *headers = &transfer->headers;
	int err = buf_add(headers, line, (size_t)(colon - line));
	err = err ? err : buf_add(headers, "", 1);
	err = err ? err : buf_add(headers, value, (size_t)(end - value));
	return err ? err : buf_add(headers, "", 1);
}

int http_status(const struct http_transfer *transfer)
{
	return transfer->status;
}

bool http_is_near(const struct http_transfer *transfer)
{
	return transfer->near;
}

const char *http_header_n(const struct http_transfer *transfer, const char *name, unsigned n)
{
	const char *at = transfer->headers.data;
	const char *end = at + transfer->headers.len;
	while (at < end) {
		const char *value = at + strlen(at) + 1;
		if (!strcasecmp(at, name) && !n--)
			return value;
		at = value + strlen(value) + 1;
	}
	return NULL;
}

const char *http_header(const struct http_transfer *transfer, const char *name)
{
	return http_header_n(transfer, name, 0);
}

int64_t http_content_length(const struct http_transfer *transfer)
{
	return transfer->content_length;
}

const char *http_why(const struct http_transfer *transfer)
{
	return transfer->why;
}

const char *http_url(const struct http_transfer *transfer)
{
	return transfer->url;
}

int64_t http_retry_after_ms(const struct http_transfer *transfer)
{
	const char *value = http_header(transfer, "Retry-After");
	uint64_t seconds;
	if (!value)
		return -1;
	if (parse_u64(value, &seconds))
		return (int64_t)MIN(seconds, UINT32_MAX) * 1000;
	time_t when = curl_getdate(value, NULL);
	if (when == (time_t)-1)
		return -1;
	return MAX((int64_t)when * 1000 - wall_ms(), 0);
}

static uint32_t random_word(void)
{
	uint32_t random = 0;
	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0)
		random = (uint32_t)now_ms();
	return random;
}

int64_t http_jitter_ms(void)
{
	return random_word() % 250;
}

int64_t http_backoff_ms(const struct http_transfer *transfer, unsigned attempt)
{
	int64_t asked_ms = transfer ? http_retry_after_ms(transfer) : -1;
	int64_t base_ms = 200 << MIN(attempt - 1, 8);
	if (asked_ms >= 0)
		return asked_ms + http_jitter_ms();
	return base_ms / 2 + random_word() % base_ms;
}

/* ---- body ---- */

ssize_t http_read(struct http_transfer *transfer, void *buf, size_t cap, struct wait *wait)
{
	int64_t since = now_ms();
	ssize_t got = 0;
	bool resume = false;
	int err = 0;
	pthread_mutex_lock(&transfer->lock);
	while (!err && !transfer->queue.len && transfer->state != HTTP_STATE_ENDED)
		err = await(transfer, wait, since);
	if (!err && transfer->queue.len) {
		got = (ssize_t)http_queue_get(&transfer->queue, buf, cap);
		if (transfer->paused && transfer->queue.len <= HTTP_QUEUE_MAX / 2)
			resume = transfer->resume = true;
	} else if (!err) {
		err = transfer->error;
	}
	pthread_mutex_unlock(&transfer->lock);
	if (resume)
		http_engine_attend(transfer->engine, transfer);
	return err ? report(transfer, err) : got;
}

int http_read_all(struct http_transfer *transfer, size_t max, struct buf *ret, struct wait *wait)
{
	AUTO_BUF struct buf all = BUF_INIT(max);
	if (transfer->content_length > 0 && (uint64_t)transfer->content_length > max)
		return -EFBIG;
	for (;;) {
		char piece[16 * KIB];
		ssize_t n = http_read(transfer, piece, sizeof(piece), wait);
		if (n < 0)
			return (int)n;
		if (!n)
			break;
		int err = buf_add(&all, piece, (size_t)n);
		if (err)
			return err;
	}
	buf_release(ret);
	*ret = all;
	all = (struct buf){0};
	return 0;
}
