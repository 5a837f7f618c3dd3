/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http: requests with deadlines over pooled connections, bodies as bounded streams.
 * Knows HTTP and TLS; the only user of libcurl. Must not know registries: it follows no
 * redirect, adds no credentials and judges no status by itself.
 *
 * Two threads drive all transfers, each with its own connections: one those with small
 * answers (names; HTTP/2 multiplexing where TLS offers it), one the bulk (HTTP/1.1). Each has few
 * connections per host. So neither many stalled readers nor a slow one can
 * keep a lookup from its answer. A body is handed over through a queue of bounded size; when
 * it is full the transfer pauses. Any thread may use an http; a transfer belongs to one
 * thread at a time.
 *
 * "No progress": the deadline is the longest time without a byte in either direction.
 *
 * Proxies come from the environment as curl reads it, but never for loopback.
 *
 * Errors: a failure below HTTP is turned into an errno here, and logged here once (unless the
 * request asks for the words):
 * -ECONNREFUSED, -EHOSTUNREACH (also DNS), -ETIMEDOUT, -ECONNRESET (broke off, ended short),
 * -EPROTO (TLS or HTTP nonsense), -EACCES (certificate not trusted, with the sentence that
 * says what to do), -EIO (request.outside), -EINTR, -EWOULDBLOCK, -ENOMEM.
 */
#ifndef REGFS_HTTP_H
#define REGFS_HTTP_H

#include "regfs/buf.h"
#include "regfs/wait.h"

struct http;

struct http_options {
	int64_t timeout_ms;	/* without progress; 0: 60,000 */
	unsigned max_per_host;	/* bulk transfers that move at a time, a third of them
				 * uploads; 0: 20 */
	const char *user_agent; /* borrowed for the call */
};

/* Starts the thread. NULL when memory or threads are short. */
struct http *http_new(const struct http_options *options);
/* All transfers must be closed. NULL is fine. */
void http_free(struct http *http);

enum http_method { HTTP_GET, HTTP_HEAD, HTTP_PUT, HTTP_POST, HTTP_PATCH, HTTP_DELETE };
/* "GET": for words. */
const char *http_method_name(enum http_method method);

/* Body to send: READ is called on the http thread and must not block for long; it returns
 * how many of at most CAP bytes at OFF it gave (0 only at the end), or a negative errno.
 * OFF never goes back: if the connection breaks after bytes were read, that is -ECONNRESET.
 * -EAGAIN: these bytes are still to come, and AWAIT waits for the one at OFF, on the thread that
 * called http_start(); 0, or a negative errno, which ends the request. */
typedef ssize_t http_read_fn(void *arg, uint64_t off, void *buf, size_t cap);
typedef int http_await_fn(void *arg, uint64_t off, struct wait *wait);

/* All may be NULL; borrowed for the call. Connections are only shared by transfers of the same
 * settings. */
struct http_tls {
	const char *ca_file; /* in place of the system's file of CAs */
	const char *ca_pem;  /* the same, as text; wins over .ca_file */
	const char *ca_dir;  /* in place of the system's directory, which counts beside the above */
	const char *cert_file, *key_file;
	bool skip_verify;
};

struct http_request {
	enum http_method method;
	const char *url;
	const char *const *headers; /* "Name: value", NULL-terminated; may be NULL */
	/* body: none, bytes, or a source */
	const void *body;
	uint64_t body_len;
	http_read_fn *body_read;   /* wins over .body when not NULL */
	http_await_fn *body_await; /* NULL: .body_read always has bytes */
	void *body_arg;
	const struct http_tls *tls; /* NULL: the system's CAs */
	int64_t timeout_ms;	    /* 0: the http's */
	int64_t deadline_ms;	    /* of the whole, with its body, in now_ms() time; 0: none */
	/* The host was named by somebody from afar: a name that leads to an address that only means
	 * something nearby is -EIO, and nothing is sent there. A proxy's own address counts only
	 * where its port is the URL's. */
	bool outside;
	/* The body, either way, may be larger than HTTP_SMALL: it goes with the bulk. */
	bool bulk;
	/* HTTP_WHY_MAX bytes for the words of a failure of http_start(), which is then not
	 * logged: for a caller that tries again. Later failures: http_why(). NULL: logged. */
	char *why;
};
#define HTTP_SMALL   (256 * KIB)
#define HTTP_WHY_MAX 384

struct http_transfer;

/*
 * Sends the request and waits for the final response's headers (1xx are skipped). The request's
 * strings are copied. The transfer is closed by http_close() whatever happened to it.
 */
int http_start(struct http *http, const struct http_request *request, struct wait *wait,
	       struct http_transfer **ret);
/* The same in two steps, for who asks in two ways at once: sends it; and waits for the headers.
 * What the second fails with is logged as above, its words are http_why()'s; the transfer stays the
 * caller's to close. */
int http_begin(struct http *http, const struct http_request *request, struct wait *wait,
	       struct http_transfer **ret);
int http_answer(struct http_transfer *transfer, struct wait *wait);
int http_status(const struct http_transfer *transfer);
/* Whether that came from an address that only means something nearby: http_host_is_local(). */
bool http_is_near(const struct http_transfer *transfer);
/* First header of NAME (any case), trimmed, or NULL; borrowed. N-th one, for repeated headers. */
const char *http_header(const struct http_transfer *transfer, const char *name);
const char *http_header_n(const struct http_transfer *transfer, const char *name, unsigned n);
/* Content-Length, or -1. */
int64_t http_content_length(const struct http_transfer *transfer);
/* The next bytes of the body: > 0; 0 at its end; errors above. A body shorter than its
 * Content-Length is -ECONNRESET; bytes beyond it are never handed out. */
ssize_t http_read(struct http_transfer *transfer, void *buf, size_t cap, struct wait *wait);
/* Reads up to MAX bytes of body into RET; more is -EFBIG. */
int http_read_all(struct http_transfer *transfer, size_t max, struct buf *ret, struct wait *wait);
/* Why http_read() or http_answer() failed; "" before. Borrowed. */
const char *http_why(const struct http_transfer *transfer);
/* The URL that was asked; borrowed. */
const char *http_url(const struct http_transfer *transfer);
/* Retry-After (RFC 9110, section 10.2.3: seconds or a date) in milliseconds from now, or -1. */
int64_t http_retry_after_ms(const struct http_transfer *transfer);
/* How long to wait before the ATTEMPT-th (from 1) repetition: Retry-After where TRANSFER (may
 * be NULL) has one, else exponential, from 0.2 s on; with jitter. */
int64_t http_backoff_ms(const struct http_transfer *transfer, unsigned attempt);
/* What to add to a common time: clients that were refused together should not come back together.
 */
int64_t http_jitter_ms(void);
/* Ends the transfer wherever it is. NULL is fine. The connection is reused if the body was
 * read to its end. */
void http_close(struct http_transfer *transfer);
static inline void http_close_cleanup(struct http_transfer **transfer)
{
	http_close(*transfer);
}
#define AUTO_TRANSFER CLEANUP(http_close_cleanup)

/* URL parts by the library's parser. Each result is the caller's (free). 0, -EINVAL, -ENOMEM. */
struct http_url {
	char *scheme, *host, *path,
		*query; /* host with its port where one is given; query NULL if none */
};
/* Only http and https, without user and password. */
int http_url_parse(const char *url, struct http_url *ret);
void http_url_release(struct http_url *url);
/* REF (absolute or relative, RFC 3986 section 5) against BASE. The caller frees *RET. */
int http_url_resolve(const char *base, const char *ref, char **ret);
/* Percent-encodes all but unreserved characters. The caller frees. */
char *http_url_escape(const char *str);
/* Whether HOST ("127.0.0.1:5000", "localhost", "[::1]:80") is this machine by its spelling. */
bool http_host_is_loopback(const char *host);
/* Whether HOST is an IP address that only means something nearby: loopback, link-local (cloud
 * metadata services), unspecified. Names are not looked up. */
bool http_host_is_local(const char *host);
/* Whether HOST is an IP address of a private network (RFC 1918, RFC 6598, RFC 4193). */
bool http_host_is_private(const char *host);

#endif
