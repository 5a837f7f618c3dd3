/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http_easy: one transfer as curl sees it: what it is told, what it tells us.
 * Knows curl's easy handles. Must not know who waits and for how long.
 *
 * Everything here runs on the engine's thread. The callbacks take the transfer's lock for the
 * few fields they change, never around the caller's body_read().
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <strings.h>
#include <sys/socket.h>

#include "http_priv.h"
#include "regfs/stats.h"

/* Bytes that were sent and not acknowledged for so long: the peer is gone. Else a connection that
 * died silently would be chosen again and again for new requests over HTTP/2. */
#define USER_TIMEOUT_MS	   10000
#define CONNECT_TIMEOUT_MS 30000
#define BULK_BUFFER	   (512L * KIB)

static bool has_body(const struct http_transfer *transfer)
{
	return transfer->method == HTTP_PUT || transfer->method == HTTP_POST ||
	       transfer->method == HTTP_PATCH;
}

/* ---- callbacks ---- */

/* ADDRESS is as the system spells it: IPv6 without brackets, and with its zone. */
static bool is_near(const char *address)
{
	char host[64];
	int len = (int)strcspn(address, "%");
	bool v6 = strchr(address, ':') != NULL;
	snprintf(host, sizeof(host), "%s%.*s%s", v6 ? "[" : "", len, address, v6 ? "]" : "");
	return http_host_is_local(host);
}

static bool peer_is_near(CURL *easy)
{
	const char *address = NULL;
	return curl_easy_getinfo(easy, CURLINFO_PRIMARY_IP, &address) == CURLE_OK && address &&
	       is_near(address);
}

/* The blank line: the answer is final unless its status is 1xx. */
static void headers_end(struct http_transfer *transfer)
{
	long status = 0;
	curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status < 200)
		return;
	transfer->status = (int)status;
	transfer->near = peer_is_near(transfer->easy);
	transfer->state = HTTP_STATE_ANSWERED;
	http_engine_note_answer(transfer->engine, transfer);
	uint64_t length;
	const char *value = http_header(transfer, "Content-Length");
	bool known = value && parse_u64(value, &length) && length <= INT64_MAX &&
		     !http_header(transfer, "Transfer-Encoding");
	transfer->content_length = known ? (int64_t)length : -1;
	wait_wake(&transfer->waiters);
}

static size_t on_header(char *line, size_t size, size_t n, void *arg)
{
	struct http_transfer *transfer = arg;
	size_t len = size * n;
	size_t text = len;
	while (text && (line[text - 1] == '\r' || line[text - 1] == '\n'))
		text--;
	int err = 0;
	pthread_mutex_lock(&transfer->lock);
	transfer->progress_ms = now_ms();
	transfer->header_bytes += len;
	/* The library keeps trailers, however many come. */
	if (transfer->header_bytes > 2 * HTTP_HEADERS_MAX)
		err = -EFBIG;
	else if (transfer->state != HTTP_STATE_SENT)
		; /* a trailer */
	else if (!text)
		headers_end(transfer);
	else if (text > 5 && !strncasecmp(line, "HTTP/", 5))
		buf_clear(&transfer->headers);
	else
		err = http_transfer_add_header(transfer, line, text);
	pthread_mutex_unlock(&transfer->lock);
	if (err)
		transfer->cause = err == -EFBIG ? -EPROTO : err;
	return err ? 0 : len;
}

/* With the lock. The bytes of LEN that belong to the body. */
static size_t within_length(const struct http_transfer *transfer, size_t len)
{
	if (transfer->content_length < 0)
		return len;
	uint64_t left = (uint64_t)transfer->content_length - transfer->received;
	return (size_t)MIN(left, (uint64_t)len);
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
	struct http_transfer *transfer = arg;
	size_t len = size * n;
	size_t ret = len;
	pthread_mutex_lock(&transfer->lock);
	size_t take = within_length(transfer, len);
	int err = transfer->closed ? -ECANCELED : http_queue_put(&transfer->queue, data, take);
	if (err == -ENOBUFS) {
		transfer->paused = true;
		ret = CURL_WRITEFUNC_PAUSE;
	} else if (err) {
		transfer->cause = err;
		ret = 0;
	} else {
		transfer->received += take;
		transfer->progress_ms = now_ms();
	}
	if (transfer->queue.len >= HTTP_WAKE_BYTES)
		wait_wake(&transfer->waiters);
	pthread_mutex_unlock(&transfer->lock);
	transfer->news = true;
	if (!err)
		stats_add(STAT_HTTP_BYTES_IN, (int64_t)take);
	return ret;
}

static ssize_t read_bytes(const struct http_transfer *transfer, void *buf, size_t cap)
{
	if (transfer->body_read)
		return transfer->body_read(transfer->body_arg, transfer->sent, buf, cap);
	memcpy(buf, (const char *)transfer->body + transfer->sent, cap);
	return (ssize_t)cap;
}

/* The bytes are still to come: the caller waits for them, and has curl go on. */
static size_t starve(struct http_transfer *transfer)
{
	pthread_mutex_lock(&transfer->lock);
	transfer->starved = true;
	transfer->starved_off = transfer->sent;
	wait_wake(&transfer->waiters);
	pthread_mutex_unlock(&transfer->lock);
	return CURL_READFUNC_PAUSE;
}

static size_t on_read(char *buf, size_t size, size_t n, void *arg)
{
	struct http_transfer *transfer = arg;
	size_t cap = (size_t)MIN((uint64_t)(size * n), transfer->body_len - transfer->sent);
	if (!cap)
		return 0;
	pthread_mutex_lock(&transfer->lock);
	bool closed = transfer->closed;
	transfer->reading = !closed;
	pthread_mutex_unlock(&transfer->lock);
	if (closed)
		return CURL_READFUNC_ABORT;

	ssize_t got = read_bytes(transfer, buf, cap);

	pthread_mutex_lock(&transfer->lock);
	transfer->reading = false;
	pthread_cond_broadcast(&transfer->read_done);
	pthread_mutex_unlock(&transfer->lock);
	if (got == -EAGAIN && transfer->body_await)
		return starve(transfer);
	if (got <= 0) {
		/* The end before the promised length is the source's failure. */
		transfer->cause = got < 0 ? (int)got : -EIO;
		return CURL_READFUNC_ABORT;
	}
	transfer->sent += (uint64_t)got;
	stats_add(STAT_HTTP_BYTES_OUT, got);
	return (size_t)got;
}

/* curl wants to send the body anew, because a connection that it used again broke before any
 * answer. Then part of the body may have been taken in; whether that does harm, only the caller
 * can tell. Bytes we hold ourselves are a whole message, which is taken in whole or not at all. */
static int on_seek(void *arg, curl_off_t off, int origin)
{
	struct http_transfer *transfer = arg;
	if (origin != SEEK_SET || off < 0 || (uint64_t)off > transfer->body_len)
		return CURL_SEEKFUNC_FAIL;
	if (transfer->body_read && transfer->sent)
		return CURL_SEEKFUNC_FAIL;
	transfer->sent = (uint64_t)off;
	return CURL_SEEKFUNC_OK;
}

/* Bytes that left count as progress; being asked for more bytes does not tell, since a slow
 * line takes long for one buffer. */
static int on_progress(void *arg, curl_off_t total, curl_off_t now, curl_off_t upload_total,
		       curl_off_t uploaded)
{
	struct http_transfer *transfer = arg;
	(void)total, (void)now, (void)upload_total;
	if (uploaded == transfer->uploaded)
		return 0;
	transfer->uploaded = uploaded;
	pthread_mutex_lock(&transfer->lock);
	transfer->progress_ms = now_ms();
	pthread_mutex_unlock(&transfer->lock);
	return 0;
}

static int on_socket(void *arg, curl_socket_t fd, curlsocktype purpose)
{
	(void)arg, (void)purpose;
	unsigned ms = USER_TIMEOUT_MS;
	/* Not for the programs we start. */
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
	return CURL_SOCKOPT_OK;
}

/* The spelling of a host was judged before; this is where its name leads. What connects to another
 * port than the URL's is on its way to a proxy, which is the user's. */
static curl_socket_t on_open(void *arg, curlsocktype purpose, struct curl_sockaddr *to)
{
	struct http_transfer *transfer = arg;
	char address[64], port[8];
	uint64_t number;
	(void)purpose;
	int err = getnameinfo(&to->addr, to->addrlen, address, sizeof(address), port, sizeof(port),
			      NI_NUMERICHOST | NI_NUMERICSERV);
	if (err || !parse_u64(port, &number) || (number == transfer->port && is_near(address))) {
		transfer->refused = true;
		return CURL_SOCKET_BAD;
	}
	return socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
}

/* ---- options ---- */

#define SET(easy, option, value) (err = err ? err : curl_easy_setopt(easy, option, value))

static CURLcode set_method(CURL *easy, const struct http_transfer *transfer)
{
	CURLcode err = CURLE_OK;
	if (has_body(transfer)) {
		SET(easy, CURLOPT_UPLOAD, 1L);
		SET(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)transfer->body_len);
		SET(easy, CURLOPT_READFUNCTION, on_read);
		SET(easy, CURLOPT_READDATA, transfer);
		SET(easy, CURLOPT_SEEKFUNCTION, on_seek);
		SET(easy, CURLOPT_SEEKDATA, transfer);
		SET(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
		SET(easy, CURLOPT_XFERINFODATA, transfer);
		SET(easy, CURLOPT_NOPROGRESS, 0L);
	}
	switch (transfer->method) {
	case HTTP_GET:
	case HTTP_PUT:
		break;
	case HTTP_HEAD:
		SET(easy, CURLOPT_NOBODY, 1L);
		break;
	case HTTP_POST:
		SET(easy, CURLOPT_CUSTOMREQUEST, "POST");
		break;
	case HTTP_PATCH:
		SET(easy, CURLOPT_CUSTOMREQUEST, "PATCH");
		break;
	case HTTP_DELETE:
		SET(easy, CURLOPT_CUSTOMREQUEST, "DELETE");
		break;
	}
	return err;
}

static CURLcode set_tls(CURL *easy, const struct http_transfer *transfer)
{
	CURLcode err = CURLE_OK;
	SET(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	if (transfer->ca_file)
		SET(easy, CURLOPT_CAINFO, transfer->ca_file);
	if (transfer->ca_pem) {
		struct curl_blob blob = {.data = transfer->ca_pem,
					 .len = strlen(transfer->ca_pem),
					 .flags = CURL_BLOB_NOCOPY};
		SET(easy, CURLOPT_CAINFO_BLOB, &blob);
	}
	if (transfer->ca_dir)
		SET(easy, CURLOPT_CAPATH, transfer->ca_dir);
	if (transfer->cert_file)
		SET(easy, CURLOPT_SSLCERT, transfer->cert_file);
	if (transfer->key_file) {
		SET(easy, CURLOPT_SSLKEY, transfer->key_file);
		/* Else the library asks for one, on this thread, and all wait for the answer. */
		SET(easy, CURLOPT_KEYPASSWD, "");
	}
	if (transfer->skip_verify) {
		SET(easy, CURLOPT_SSL_VERIFYPEER, 0L);
		SET(easy, CURLOPT_SSL_VERIFYHOST, 0L);
	}
	return err;
}

static CURLcode set_connection(CURL *easy, const struct http_transfer *transfer)
{
	const struct http_engine *engine = transfer->engine;
	CURLcode err = CURLE_OK;
	SET(easy, CURLOPT_NOSIGNAL, 1L);
	SET(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)MIN(transfer->timeout_ms, CONNECT_TIMEOUT_MS));
	SET(easy, CURLOPT_HTTP_VERSION,
	    (long)(engine->multiplex ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1));
	SET(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	SET(easy, CURLOPT_SOCKOPTFUNCTION, on_socket);
	if (transfer->outside) {
		SET(easy, CURLOPT_OPENSOCKETFUNCTION, on_open);
		SET(easy, CURLOPT_OPENSOCKETDATA, transfer);
	}
	if (!engine->multiplex) {
		SET(easy, CURLOPT_BUFFERSIZE, BULK_BUFFER);
		SET(easy, CURLOPT_UPLOAD_BUFFERSIZE, BULK_BUFFER);
	}
	if (http_host_is_loopback(transfer->host))
		SET(easy, CURLOPT_NOPROXY, "*");
	SET(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	SET(easy, CURLOPT_FRESH_CONNECT, (long)transfer->fresh);
#if LIBCURL_VERSION_NUM >= 0x075700
	/* A resolver thread that hangs is left behind; the engine must not wait for it. */
	SET(easy, CURLOPT_QUICK_EXIT, 1L);
#endif
#if LIBCURL_VERSION_NUM >= 0x075500
	SET(easy, CURLOPT_PROTOCOLS_STR, "http,https");
#else
	SET(easy, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
	return err;
}

static CURLcode set_all(CURL *easy, struct http_transfer *transfer)
{
	CURLcode err = CURLE_OK;
	SET(easy, CURLOPT_URL, transfer->url);
	SET(easy, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
	SET(easy, CURLOPT_PATH_AS_IS, 1L); /* signed URLs cover their exact spelling */
	SET(easy, CURLOPT_USERAGENT, transfer->user_agent);
	SET(easy, CURLOPT_HTTPHEADER, transfer->request_headers);
	SET(easy, CURLOPT_HEADERFUNCTION, on_header);
	SET(easy, CURLOPT_HEADERDATA, transfer);
	SET(easy, CURLOPT_WRITEFUNCTION, on_body);
	SET(easy, CURLOPT_WRITEDATA, transfer);
	SET(easy, CURLOPT_ERRORBUFFER, transfer->curl_words);
	SET(easy, CURLOPT_PRIVATE, transfer);
	err = err ? err : set_connection(easy, transfer);
	err = err ? err : set_tls(easy, transfer);
	err = err ? err : set_method(easy, transfer);
	return err;
}

int http_easy_begin(struct http_transfer *transfer)
{
	CURL *easy = curl_easy_init();
	if (!easy)
		return -ENOMEM;
	CURLcode code = set_all(easy, transfer);
	if (code || curl_multi_add_handle(transfer->engine->multi, easy)) {
		curl_easy_cleanup(easy);
		return code == CURLE_URL_MALFORMAT ? -EINVAL : -ENOMEM;
	}
	transfer->easy = easy;
	stats_add(STAT_HTTP_REQUESTS, 1);
	stats_add(STAT_HTTP_NOW, 1);
	return 0;
}

void http_easy_drop(struct http_transfer *transfer)
{
	if (!transfer->easy)
		return;
	if (transfer->silent)
		curl_easy_setopt(transfer->easy, CURLOPT_FORBID_REUSE, 1L);
	curl_multi_remove_handle(transfer->engine->multi, transfer->easy);
	curl_easy_cleanup(transfer->easy);
	transfer->easy = NULL;
	stats_add(STAT_HTTP_NOW, -1);
}

/* ---- the end ---- */

static int connect_errno(CURL *easy)
{
	long number = 0;
	curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &number);
	if (number == ECONNREFUSED || number == ETIMEDOUT)
		return (int)-number;
	return -EHOSTUNREACH;
}

static int code_errno(const struct http_transfer *transfer, CURLcode code)
{
	if (transfer->cause)
		return transfer->cause;
	if (code == CURLE_COULDNT_CONNECT && transfer->refused)
		return -EIO;
	switch (code) {
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
		return -EHOSTUNREACH;
	case CURLE_COULDNT_CONNECT:
		return connect_errno(transfer->easy);
	case CURLE_OPERATION_TIMEDOUT:
		return -ETIMEDOUT;
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_FAIL_REWIND:
	case CURLE_GOT_NOTHING:
	case CURLE_PARTIAL_FILE:
	case CURLE_HTTP2_STREAM:
		return -ECONNRESET;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
		return -EACCES;
	case CURLE_OUT_OF_MEMORY:
		return -ENOMEM;
	case CURLE_URL_MALFORMAT:
	case CURLE_LOGIN_DENIED:
		return -EINVAL;
	default:
		return -EPROTO;
	}
}

/* A server that sent more than it announced leaves the rest on a connection that looks idle; then
 * the next answer begins with nonsense. */
bool http_easy_spoilt(struct http_transfer *transfer, CURLcode code)
{
	long connects = 1;
	bool nonsense = code == CURLE_UNSUPPORTED_PROTOCOL || code == CURLE_WEIRD_SERVER_REPLY;
	if (!nonsense || transfer->fresh || has_body(transfer) || transfer->method == HTTP_DELETE)
		return false;
	curl_easy_getinfo(transfer->easy, CURLINFO_NUM_CONNECTS, &connects);
	pthread_mutex_lock(&transfer->lock);
	bool unanswered = transfer->state == HTTP_STATE_SENT;
	pthread_mutex_unlock(&transfer->lock);
	return connects == 0 && unanswered;
}

/* A server that wants a client certificate says so only in TLS 1.3, and then after the handshake,
 * as if the connection broke. The alert has no code of curl's own. */
static bool wants_certificate(const char *words)
{
	return strstr(words, "alert certificate required") ||
	       strstr(words, "alert bad certificate");
}

static const char *advice(CURLcode code, const char *words)
{
	if (wants_certificate(words))
		return " (the registry wants a client certificate: certs.d/HOST/client.cert and "
		       "client.key)";
	if (code == CURLE_SSL_CERTPROBLEM)
		return " (a key with a passphrase cannot be used: openssl pkey -in KEY -out NEW)";
	if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_ISSUER_ERROR)
		return " (if the registry has a CA of its own: -o cacert=FILE, or the CA as "
		       "certs.d/HOST/ca.crt; without verification: -o insecure=HOST)";
	return "";
}

void http_easy_end(struct http_transfer *transfer, CURLcode code)
{
	const char *words = transfer->curl_words[0] ? transfer->curl_words
						    : curl_easy_strerror(code);
	char why[HTTP_WHY_MAX];
	pthread_mutex_lock(&transfer->lock);
	/* A status below 200 is no answer to end with. */
	if (code == CURLE_OK && transfer->state == HTTP_STATE_ANSWERED) {
		transfer->state = HTTP_STATE_ENDED;
		wait_wake(&transfer->waiters);
	} else if (code == CURLE_OK) {
		http_transfer_fail(transfer, -EPROTO, "the answer has no final status");
	} else {
		if (transfer->cause == -EPROTO)
			words = "the answer's headers are too large";
		else if (code == CURLE_ABORTED_BY_CALLBACK && transfer->cause)
			words = "what is to be sent cannot be read";
		else if (code == CURLE_COULDNT_CONNECT && transfer->refused)
			words = "the name leads to an address that only means something nearby";
		else if (code == CURLE_SEND_FAIL_REWIND)
			words = "the connection broke while the body was sent";
		snprintf(why, sizeof(why), "%s%s", words, advice(code, words));
		http_transfer_fail(transfer,
				   wants_certificate(words) ? -EACCES : code_errno(transfer, code),
				   why);
	}
	pthread_mutex_unlock(&transfer->lock);
}
