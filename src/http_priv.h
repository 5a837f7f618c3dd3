/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the http room share; nobody else includes it.
 *
 * http.c           the http: two engines
 * http_engine.c    an engine: a thread that drives curl's multi interface
 * http_easy.c      one transfer as curl sees it: options, callbacks, errors
 * http_transfer.c  one transfer as its caller sees it: start, headers, read, close
 * http_queue.c     the bytes between the two
 * http_url.c       URLs and hosts
 *
 * Only an engine's thread calls curl for its transfers. A transfer has two owners, its caller
 * and its engine, and goes with the last reference.
 */
#ifndef REGFS_HTTP_PRIV_H
#define REGFS_HTTP_PRIV_H

#include <curl/curl.h>

#include "regfs/http.h"

#define HTTP_QUEUE_MAX	 (2 * MIB)
#define HTTP_HEADERS_MAX (128 * KIB)
#define HTTP_SILENT_MAX	 8
/* The caller is woken in the middle of a round once so much is there. */
#define HTTP_WAKE_BYTES (256 * KIB)

/* A ring that grows up to its maximum. */
struct http_queue {
	uint8_t *data;
	size_t cap, start, len;
};
void http_queue_release(struct http_queue *queue);
/* All of it, or nothing: -ENOBUFS when it is too full, -ENOMEM. */
int http_queue_put(struct http_queue *queue, const void *data, size_t len);
size_t http_queue_get(struct http_queue *queue, void *buf, size_t cap);

struct http_engine {
	CURLM *multi;
	pthread_t thread;
	bool running;
	bool multiplex;	   /* HTTP/2 where TLS offers it */
	unsigned per_host; /* moving transfers to one host; 0: no limit */

	pthread_mutex_t lock;
	struct http_transfer *inbox; /* guarded by lock; in order of arrival */
	struct http_transfer **inbox_tail;
	bool stop; /* guarded by lock */

	/* the thread's own */
	struct http_transfer *transfers; /* those it owns, in order of arrival */
	struct http_transfer **transfers_tail;
	unsigned nqueued; /* of these, not admitted yet */
	bool recheck;	  /* somebody of them may be admitted now */
	/* Hosts that kept silent, and have not answered since; the oldest is overwritten. */
	uint64_t silent[HTTP_SILENT_MAX];
	unsigned nsilent;
};

struct http {
	struct http_engine names, bulk;
	int64_t timeout_ms;
	char *user_agent;
};

/* 0 or a negative errno; what started is undone by http_engine_stop(). */
int http_engine_start(struct http_engine *engine);
void http_engine_stop(struct http_engine *engine);
/* Has the engine look at TRANSFER: begin, go on, or let go, as its fields say. Any thread,
 * without the transfer's lock. */
void http_engine_attend(struct http_engine *engine, struct http_transfer *transfer);
/* The engine's thread: there is a final status. */
void http_engine_note_answer(struct http_engine *engine, const struct http_transfer *transfer);

enum http_state {
	HTTP_STATE_QUEUED,   /* the engine has not begun */
	HTTP_STATE_SENT,     /* no final headers yet */
	HTTP_STATE_ANSWERED, /* headers are complete and no longer change */
	HTTP_STATE_ENDED,    /* all of the body is in the queue, or .error says why not */
};

struct http_transfer {
	struct http_engine *engine;

	/* the request, copied; never changes */
	enum http_method method;
	char *url, *host;
	uint64_t host_hash; /* of scheme, host and port */
	struct curl_slist *request_headers;
	void *body; /* owned; NULL with .body_read */
	http_read_fn *body_read;
	http_await_fn *body_await;
	void *body_arg;
	uint64_t body_len;
	char *ca_file, *ca_pem, *ca_dir, *cert_file, *key_file, *user_agent;
	bool skip_verify;
	bool outside;	   /* as in the request */
	uint16_t port;	   /* the URL's */
	bool words_wanted; /* request.why was given: nothing is logged */
	int64_t timeout_ms, deadline_ms;

	pthread_mutex_t lock;
	pthread_cond_t read_done; /* .reading became false */
	struct wait_queue waiters;
	/* guarded by lock from here on */
	enum http_state state;
	int error; /* of ENDED; negative errno */
	char why[HTTP_WHY_MAX];
	bool closed;  /* the caller has let go */
	bool resume;  /* the caller has made room in the queue, or has bytes to send */
	bool starved; /* curl waits for bytes to send, from .starved_off on; written by the engine
		       */
	uint64_t starved_off;
	bool reading; /* body_read() is running */
	bool paused;  /* curl keeps bytes back; written by the engine */
	int64_t progress_ms;
	int status;
	bool near; /* the answer's peer is */
	int64_t content_length;
	uint64_t received;   /* body bytes put into the queue */
	struct buf headers;  /* "name\0value\0", in order */
	size_t header_bytes; /* of all header lines, those of 1xx and trailers too */
	struct http_queue queue;
	unsigned refs;

	/* guarded by the engine's lock */
	bool in_inbox;
	struct http_transfer *inbox_next;

	/* the engine's thread only */
	CURL *easy;  /* NULL before it begins and after it ended */
	bool owned;  /* stands in the engine's list */
	bool news;   /* bytes came in this round */
	bool fresh;  /* on a connection of its own */
	bool silent; /* given up without an answer: nobody else is to use its connection */
	int64_t arrived_ms;
	uint64_t sent;	     /* body bytes given to curl */
	curl_off_t uploaded; /* of these, bytes that left */
	bool refused;	     /* an address that it may not connect to */
	int cause;	     /* the errno behind a callback's refusal */
	struct http_transfer *next, **link;
	char curl_words[CURL_ERROR_SIZE];
};

/* The port that URL means; 0 where that cannot be told. */
uint16_t http_url_port(const char *url);

void http_transfer_ref(struct http_transfer *transfer);
void http_transfer_unref(struct http_transfer *transfer);

/* The engine's thread. Makes the handle and gives it to the engine's multi; 0 or a negative errno.
 */
int http_easy_begin(struct http_transfer *transfer);
/* Takes the handle away from curl; its connection is dropped if the transfer was not over. */
void http_easy_drop(struct http_transfer *transfer);
/* Whether it failed on what an earlier answer left behind on the connection, and may be begun
 * again. */
bool http_easy_spoilt(struct http_transfer *transfer, CURLcode code);
/* Turns CODE into the transfer's end and wakes its caller. */
void http_easy_end(struct http_transfer *transfer, CURLcode code);
/* With the transfer's lock: it ended with ERROR, for WHY. */
void http_transfer_fail(struct http_transfer *transfer, int error, const char *why);
/* With the transfer's lock: appends a header line. 0 or a negative errno. */
int http_transfer_add_header(struct http_transfer *transfer, const char *line, size_t len);

#endif
