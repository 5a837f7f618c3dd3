/* SPDX-License-Identifier: Apache-2.0 */
/* test_http: requests, bounded bodies, deadlines and failures, against badregistry.py. */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "regfs/http.h"
#include "regfs/log.h"
#include "regfs/stats.h"
#include "server.h"

static struct server server;
static struct http *http;

static int group_setup(void **state)
{
	(void)state;
	log_set_level(LOG_LEVEL_ERROR);
	return server_start_bad(&server, NULL);
}

static int group_teardown(void **state)
{
	(void)state;
	server_stop(&server);
	return 0;
}

static int setup(void **state)
{
	(void)state;
	server_order(&server, "{\"clear\": true}");
	http = http_new(&(struct http_options){.timeout_ms = 10000, .max_per_host = 4});
	return http ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	http_free(http);
	return 0;
}

static void wait_cleanup(struct wait *wait)
{
	wait_release(wait);
}
#define WAIT(name)                                                                                 \
	CLEANUP(wait_cleanup) struct wait name;                                                    \
	wait_init(&(name), true)

static char *url_of(const char *path)
{
	return format("http://%s%s", server.host, path);
}

static int get_as(const char *path, bool bulk, struct wait *wait, struct http_transfer **ret)
{
	AUTO_FREE char *url = url_of(path);
	const struct http_request request = {.url = url, .bulk = bulk};
	return http_start(http, &request, wait, ret);
}

static int get(const char *path, struct wait *wait, struct http_transfer **ret)
{
	return get_as(path, true, wait, ret);
}

/* /raw/N carries the word number at each word. */
static void check_pattern(const uint8_t *data, size_t len, uint64_t off)
{
	for (size_t i = 0; i < len; i++) {
		uint64_t word = (off + i) / 4;
		assert_int_equal(data[i], word >> 8 * ((off + i) % 4) & 255);
	}
}

static ssize_t read_whole(struct http_transfer *transfer, struct wait *wait, size_t piece)
{
	AUTO_FREE uint8_t *data = malloc(piece);
	uint64_t off = 0;
	ssize_t n;
	while ((n = http_read(transfer, data, piece, wait)) > 0) {
		check_pattern(data, (size_t)n, off);
		off += (uint64_t)n;
	}
	return n < 0 ? n : (ssize_t)off;
}

/* ---- regular ---- */

static void gets_a_body(void **state)
{
	(void)state;
	WAIT(wait);
	struct http_transfer *transfer = NULL;
	assert_int_equal(get("/raw/100001", &wait, &transfer), 0);
	assert_int_equal(http_status(transfer), 200);
	assert_int_equal(http_content_length(transfer), 100001);
	assert_string_equal(http_header(transfer, "content-LENGTH"), "100001");
	assert_null(http_header(transfer, "X-Absent"));
	assert_int_equal(read_whole(transfer, &wait, 4096), 100001);
	assert_int_equal(http_read(transfer, &(char){0}, 1, &wait), 0);
	http_close(transfer);
	char value[64];
	server_header(&server, "GET /raw", "Accept-Encoding", value, sizeof(value));
	assert_string_equal(value, "identity");
}

/* Larger than the queue: the transfer pauses and goes on. */
static void a_slow_reader_gets_it_all(void **state)
{
	(void)state;
	WAIT(wait);
	struct http_transfer *transfer = NULL;
	int64_t before = stats_get(STAT_HTTP_BYTES_IN);
	assert_int_equal(get("/raw/20000003", &wait, &transfer), 0);
	uint8_t first[1000];
	ssize_t n = http_read(transfer, first, sizeof(first), &wait);
	assert_true(n > 0);
	check_pattern(first, (size_t)n, 0);
	/* Another transfer meanwhile: by then this one has filled its queue and waits. */
	struct http_transfer *other = NULL;
	assert_int_equal(get("/raw/5000000", &wait, &other), 0);
	assert_int_equal(read_whole(other, &wait, 65536), 5000000);
	http_close(other);
	assert_true(stats_get(STAT_HTTP_BYTES_IN) - before <= 5000000 + 2 * MIB + 1000);
	uint64_t off = (uint64_t)n;
	uint8_t piece[50000];
	while ((n = http_read(transfer, piece, sizeof(piece), &wait)) > 0) {
		check_pattern(piece, (size_t)n, off);
		off += (uint64_t)n;
	}
	assert_int_equal(n, 0);
	assert_int_equal(off, 20000003);
	http_close(transfer);
}

static void chunked_has_no_length(void **state)
{
	(void)state;
	WAIT(wait);
	server_rule(&server, "GET", "/raw", "\"chunked\": true");
	struct http_transfer *transfer = NULL;
	assert_int_equal(get("/raw/300000", &wait, &transfer), 0);
	assert_int_equal(http_content_length(transfer), -1);
	assert_int_equal(read_whole(transfer, &wait, 4096), 300000);
	http_close(transfer);
}

/* The library would keep them all. */
static void trailers_are_bounded(void **state)
{
	(void)state;
	WAIT(wait);
	struct http_transfer *transfer = NULL;
	server_rule(&server, "GET", "/raw", "\"chunked\": true, \"trailers\": 3, \"times\": 1");
	assert_int_equal(get("/raw/3000", &wait, &transfer), 0);
	assert_int_equal(read_whole(transfer, &wait, 4096), 3000);
	http_close(transfer);
	server_rule(&server, "GET", "/raw", "\"chunked\": true, \"trailers\": 20000");
	struct buf body = {0};
	assert_int_equal(get("/raw/3000", &wait, &transfer), 0);
	assert_int_equal(http_read_all(transfer, 4096, &body, &wait), -EPROTO);
	buf_release(&body);
	http_close(transfer);
}

static void head_has_no_body(void **state)
{
	(void)state;
	WAIT(wait);
	AUTO_FREE char *url = url_of("/raw/1234");
	const struct http_request request = {.method = HTTP_HEAD, .url = url};
	struct http_transfer *transfer = NULL;
	assert_int_equal(http_start(http, &request, &wait, &transfer), 0);
	assert_int_equal(http_content_length(transfer), 1234);
	assert_int_equal(http_read(transfer, &(char){0}, 1, &wait), 0);
	http_close(transfer);
}

static void read_all_is_capped(void **state)
{
	(void)state;
	WAIT(wait);
	struct http_transfer *transfer = NULL;
	struct buf body = {0};
	assert_int_equal(get("/raw/5000", &wait, &transfer), 0);
	assert_int_equal(http_read_all(transfer, 4999, &body, &wait), -EFBIG);
	http_close(transfer);
	server_rule(&server, "GET", "/raw", "\"chunked\": true, \"times\": 1");
	assert_int_equal(get("/raw/5000", &wait, &transfer), 0);
	assert_int_equal(http_read_all(transfer, 4999, &body, &wait), -EFBIG);
	http_close(transfer);
	assert_int_equal(get("/raw/5000", &wait, &transfer), 0);
	assert_int_equal(http_read_all(transfer, 5000, &body, &wait), 0);
	assert_int_equal(body.len, 5000);
	check_pattern((uint8_t *)body.data, body.len, 0);
	buf_release(&body);
	http_close(transfer);
}

static void repeated_headers_are_kept(void **state)
{
	(void)state;
	WAIT(wait);
	server_rule(&server, "GET", "/raw",
		    "\"set\": {\"X-Two\": [\"  one \", \"two\"], \"Retry-After\": \"7\"}");
	struct http_transfer *transfer = NULL;
	assert_int_equal(get("/raw/1", &wait, &transfer), 0);
	assert_string_equal(http_header_n(transfer, "x-two", 0), "one");
	assert_string_equal(http_header_n(transfer, "x-two", 1), "two");
	assert_null(http_header_n(transfer, "x-two", 2));
	assert_int_equal(http_retry_after_ms(transfer), 7000);
	http_close(transfer);
}

static void retry_after_may_be_a_date(void **state)
{
	(void)state;
	WAIT(wait);
	server_rule(&server, "GET", "/raw",
		    "\"set\": {\"Retry-After\": \"Wed, 01 Jan 2098 00:00:00 GMT\"}, \"times\": 1");
	server_rule(&server, "GET", "/raw", "\"set\": {\"Retry-After\": \"soon\"}");
	struct http_transfer *transfer = NULL;
	assert_int_equal(get("/raw/1", &wait, &transfer), 0);
	assert_true(http_retry_after_ms(transfer) > 1000LL * 3600 * 24 * 365);
	http_close(transfer);
	assert_int_equal(get("/raw/1", &wait, &transfer), 0);
	assert_int_equal(http_retry_after_ms(transfer), -1);
	http_close(transfer);
}

/* ---- sending ---- */

struct source {
	uint64_t size, fail_at;
	uint64_t end; /* of the bytes read so far */
	bool again;   /* some were read twice */
};

static ssize_t read_source(void *arg, uint64_t off, void *buf, size_t cap)
{
	struct source *source = arg;
	source->again |= off < source->end;
	if (off >= source->fail_at)
		return -ENOSPC;
	if (off >= source->size)
		return 0;
	size_t len = (size_t)MIN((uint64_t)cap, source->size - off);
	memset(buf, 'a', len);
	source->end = off + len;
	return (ssize_t)len;
}

static int send_source(struct source *source, uint64_t promised, struct wait *wait,
		       struct http_transfer **ret)
{
	AUTO_FREE char *url = url_of("/v2/up/blobs/uploads/");
	const struct http_request request = {
		.method = HTTP_POST,
		.url = url,
		.body_read = read_source,
		.body_arg = source,
		.body_len = promised,
		.bulk = true,
	};
	return http_start(http, &request, wait, ret);
}

static void sends_a_source(void **state)
{
	(void)state;
	WAIT(wait);
	struct source source = {.size = 3000000, .fail_at = UINT64_MAX};
	struct http_transfer *transfer = NULL;
	assert_int_equal(send_source(&source, source.size, &wait, &transfer), 0);
	assert_int_equal(http_status(transfer), 202);
	http_close(transfer);
	char value[64];
	server_header(&server, "POST", "Content-Length", value, sizeof(value));
	assert_string_equal(value, "3000000");
}

static void a_failing_source_fails_the_request(void **state)
{
	(void)state;
	WAIT(wait);
	struct http_transfer *transfer = NULL;
	struct source bad = {.size = 3000000, .fail_at = 1000000};
	assert_int_equal(send_source(&bad, bad.size, &wait, &transfer), -ENOSPC);
	struct source cut = {.size = 1000000, .fail_at = UINT64_MAX};
	assert_int_equal(send_source(&cut, 3000000, &wait, &transfer), -EIO);
	assert_null(transfer);
}

/* libcurl resends a body by itself where a connection that it used again breaks without an answer;
 * then an upload session would hold the bytes twice. */
static void a_source_is_not_sent_again(void **state)
{
	(void)state;
	WAIT(wait);
	struct source first = {.size = 1000, .fail_at = UINT64_MAX};
	struct source source = {.size = 3000000, .fail_at = UINT64_MAX};
	struct http_transfer *transfer = NULL;
	assert_int_equal(send_source(&first, first.size, &wait, &transfer), 0);
	AUTO_BUF struct buf body = {0};
	assert_int_equal(http_read_all(transfer, 1000, &body, &wait), 0);
	http_close(STEAL(transfer));
	server_rule(&server, "POST", "uploads", "\"take\": 1000000, \"times\": 1");
	assert_int_equal(send_source(&source, source.size, &wait, &transfer), -ECONNRESET);
	assert_false(source.again);
}

/* The timeout of an upload is for silence too. Something is taken every 50 ms, and what the sockets
 * hold within half a second: a loaded machine has time left; and the whole takes longer than it. */
static void a_slow_upload_is_not_stalled(void **state)
{
	(void)state;
	WAIT(wait);
	struct source source = {.size = 32000000, .fail_at = UINT64_MAX};
	server_rule(&server, "POST", "uploads", "\"slow_take\": 10000000");
	AUTO_FREE char *url = url_of("/v2/up/blobs/uploads/");
	const struct http_request request = {
		.method = HTTP_POST,
		.url = url,
		.body_read = read_source,
		.body_arg = &source,
		.body_len = source.size,
		.timeout_ms = 3000,
		.bulk = true,
	};
	struct http_transfer *transfer = NULL;
	int64_t begin = now_ms();
	assert_int_equal(http_start(http, &request, &wait, &transfer), 0);
	assert_true(now_ms() - begin > request.timeout_ms);
	http_close(transfer);
}

static void header_injection_is_refused(void **state)
{
	(void)state;
	WAIT(wait);
	AUTO_FREE char *url = url_of("/raw/1");
	const struct http_request request = {
		.url = url, .headers = (const char *const[]){"X: a\r\nY: b", NULL}};
	struct http_transfer *transfer = NULL;
	assert_int_equal(http_start(http, &request, &wait, &transfer), -EINVAL);
}

/* ---- failures ---- */

static void a_short_body_is_a_reset(void **state)
{
	(void)state;
	WAIT(wait);
	server_rule(&server, "GET", "/raw", "\"truncate\": 70000");
	struct http_transfer *transfer = NULL;
	uint8_t data[100000];
	assert_int_equal(get("/raw/100000", &wait, &transfer), 0);
	size_t off = 0;
	ssize_t n;
	while ((n = http_read(transfer, data, sizeof(data), &wait)) > 0)
		off += (size_t)n;
	assert_int_equal(n, -ECONNRESET);
	assert_int_equal(off, 70000); /* what came is given first */
	http_close(transfer);
}

static void extra_bytes_are_not_handed_out(void **state)
{
	(void)state;
	WAIT(wait);
	server_rule(&server, "GET", "/raw", "\"extra\": 5000, \"times\": 1");
	struct http_transfer *transfer = NULL;
	assert_int_equal(get("/raw/1000", &wait, &transfer), 0);
	assert_int_equal(read_whole(transfer, &wait, 4096), 1000);
	http_close(transfer);
	/* Nor do they become the next answer on that connection. */
	assert_int_equal(get("/raw/1000", &wait, &transfer), 0);
	assert_int_equal(read_whole(transfer, &wait, 4096), 1000);
	http_close(transfer);
}

/* What an earlier answer left behind is no reason to fail; a server that always talks nonsense is.
 */
static void a_spoilt_connection_is_left(void **state)
{
	(void)state;
	WAIT(wait);
	struct http_transfer *transfer = NULL;
	assert_int_equal(get("/raw/1000", &wait, &transfer), 0);
	assert_int_equal(read_whole(transfer, &wait, 4096), 1000);
	http_close(transfer);
	server_rule(&server, "GET", "/raw", "\"garbage\": true, \"times\": 1");
	assert_int_equal(get("/raw/1000", &wait, &transfer), 0);
	assert_int_equal(read_whole(transfer, &wait, 4096), 1000);
	http_close(transfer);
	server_rule(&server, "GET", "/raw", "\"garbage\": true");
	assert_int_equal(get("/raw/1000", &wait, &transfer), -EPROTO);
}

static void a_reset_is_one(void **state)
{
	(void)state;
	WAIT(wait);
	server_rule(&server, "GET", "/raw", "\"reset\": true");
	struct http_transfer *transfer = NULL;
	assert_int_equal(get("/raw/1", &wait, &transfer), -ECONNRESET);
	assert_null(transfer);
}

static void nobody_listens(void **state)
{
	(void)state;
	WAIT(wait);
	struct http_transfer *transfer = NULL;
	struct http_request request = {.url = "http://127.0.0.1:1/"};
	assert_int_equal(http_start(http, &request, &wait, &transfer), -ECONNREFUSED);
	request.url = "http://no-such-host.invalid/";
	assert_int_equal(http_start(http, &request, &wait, &transfer), -EHOSTUNREACH);
	request.url = "ftp://127.0.0.1/";
	assert_int_equal(http_start(http, &request, &wait, &transfer), -EINVAL);
	request.url = "http://user:pass@127.0.0.1/";
	assert_int_equal(http_start(http, &request, &wait, &transfer), -EINVAL);
}

/* A name that somebody from afar gave us may lead anywhere (as in CVE-2020-15157). */
static void a_name_leads_home(void **state)
{
	(void)state;
	WAIT(wait);
	struct http_transfer *transfer = NULL;
	AUTO_FREE char *url = format("http://outside.localhost:%d/raw/10", server.port);
	char why[HTTP_WHY_MAX];
	struct http_request request = {.url = url, .outside = true, .why = why};
	assert_int_equal(http_start(http, &request, &wait, &transfer), -EIO);
	assert_non_null(strstr(why, "nearby"));
	request.outside = false;
	assert_int_equal(http_start(http, &request, &wait, &transfer), 0);
	assert_true(http_is_near(transfer));
	http_close(transfer);
}

/* In a network of its own, which has no routes. */
static void *ask_from_nowhere(void *arg)
{
	int *result = arg;
	WAIT(wait);
	struct http_transfer *transfer = NULL;
	if (unshare(CLONE_NEWNET))
		return NULL;
	/* Its threads are where this one is. */
	struct http *lost = http_new(&(struct http_options){.timeout_ms = 10000});
	const struct http_request request = {.url = "http://192.0.2.1:5000/v2/"};
	*result = http_start(lost, &request, &wait, &transfer);
	http_free(lost);
	return NULL;
}

static void no_route_is_ehostunreach(void **state)
{
	(void)state;
	pthread_t thread;
	int result = 0;
	assert_int_equal(pthread_create(&thread, NULL, ask_from_nowhere, &result), 0);
	pthread_join(thread, NULL);
	if (!result)
		skip(); /* not ours to make one */
	assert_int_equal(result, -EHOSTUNREACH);
}

static void tls_to_a_plain_port_is_nonsense(void **state)
{
	(void)state;
	WAIT(wait);
	char why[HTTP_WHY_MAX] = "";
	AUTO_FREE char *url = format("https://%s/", server.host);
	const struct http_request request = {.url = url, .why = why, .timeout_ms = 2000};
	struct http_transfer *transfer = NULL;
	int err = http_start(http, &request, &wait, &transfer);
	/* Python may wait for the end of a line that is none. */
	assert_true(err == -EPROTO || err == -ETIMEDOUT || err == -ECONNRESET);
	assert_true(strlen(why) > 0);
}

static void huge_headers_are_refused(void **state)
{
	(void)state;
	WAIT(wait);
	AUTO_FREE char *value = malloc(60001);
	memset(value, 'v', 60000);
	value[60000] = '\0';
	AUTO_FREE char *actions = format(
		"\"set\": {\"X-A\": \"%s\", \"X-B\": \"%s\", \"X-C\": \"%s\"}", value, value,
		value);
	server_rule(&server, "GET", "/raw", actions);
	struct http_transfer *transfer = NULL;
	assert_int_equal(get("/raw/1", &wait, &transfer), -EPROTO);
}

/* ---- time ---- */

static void silence_times_out(void **state)
{
	(void)state;
	WAIT(wait);
	server_rule(&server, "GET", "/raw", "\"stall\": 60");
	AUTO_FREE char *url = url_of("/raw/1");
	struct http_request request = {.url = url, .timeout_ms = 300};
	struct http_transfer *transfer = NULL;
	int64_t begin = now_ms();
	assert_int_equal(http_start(http, &request, &wait, &transfer), -ETIMEDOUT);
	request.timeout_ms = 60000;
	request.deadline_ms = now_ms() + 300;
	assert_int_equal(http_start(http, &request, &wait, &transfer), -ETIMEDOUT);
	assert_true(now_ms() - begin < 10000);
}

static void a_stalled_body_times_out(void **state)
{
	(void)state;
	WAIT(wait);
	server_rule(&server, "GET", "/raw", "\"stall_after\": 1000");
	AUTO_FREE char *url = url_of("/raw/5000");
	const struct http_request request = {.url = url, .timeout_ms = 2000};
	struct http_transfer *transfer = NULL;
	assert_int_equal(http_start(http, &request, &wait, &transfer), 0);
	assert_int_equal(read_whole(transfer, &wait, 4096), -ETIMEDOUT);
	http_close(transfer);
}

/* The timeout is for silence, not for the whole. */
static void slow_is_not_stalled(void **state)
{
	(void)state;
	WAIT(wait);
	/* Something comes every 50 ms, far oftener than the timeout, also on a loaded machine; and
	 * the whole takes longer than it on any. */
	server_rule(&server, "GET", "/raw", "\"slow\": 20000");
	AUTO_FREE char *url = url_of("/raw/60000");
	const struct http_request request = {.url = url, .timeout_ms = 2000};
	struct http_transfer *transfer = NULL;
	int64_t begin = now_ms();
	assert_int_equal(http_start(http, &request, &wait, &transfer), 0);
	assert_int_equal(read_whole(transfer, &wait, 4096), 60000);
	assert_true(now_ms() - begin > request.timeout_ms);
	http_close(transfer);
}

static void without_permission_nothing_is_sent(void **state)
{
	(void)state;
	CLEANUP(wait_cleanup) struct wait wait;
	wait_init(&wait, false);
	struct http_transfer *transfer = NULL;
	assert_int_equal(get("/raw/1", &wait, &transfer), -EWOULDBLOCK);
	WAIT(cancelled);
	wait_cancel(&cancelled);
	assert_int_equal(get("/raw/1", &cancelled, &transfer), -EINTR);
	assert_int_equal(server_count(&server, "GET /raw"), 0);
}

static void *cancel_soon(void *arg)
{
	while (server_count(&server, "GET /raw") == 0)
		;
	wait_cancel(arg);
	return NULL;
}

static void cancelling_ends_the_wait(void **state)
{
	(void)state;
	WAIT(wait);
	server_rule(&server, "GET", "/raw", "\"stall\": 60");
	pthread_t thread;
	pthread_create(&thread, NULL, cancel_soon, &wait);
	struct http_transfer *transfer = NULL;
	int64_t begin = now_ms();
	assert_int_equal(get("/raw/1", &wait, &transfer), -EINTR);
	assert_true(now_ms() - begin < 60000);
	pthread_join(thread, NULL);
}

/* ---- many ---- */

struct job {
	pthread_t thread;
	const char *path;
	bool small;
	struct wait wait;
	ssize_t result;
};

static void *run_job(void *arg)
{
	struct job *job = arg;
	struct http_transfer *transfer = NULL;
	int err = get_as(job->path, !job->small, &job->wait, &transfer);
	job->result = err ? err : read_whole(transfer, &job->wait, 30000);
	http_close(transfer);
	return NULL;
}

static void start_jobs(struct job *jobs, size_t n, const char *path)
{
	for (size_t i = 0; i < n; i++) {
		jobs[i].path = path;
		wait_init(&jobs[i].wait, true);
		pthread_create(&jobs[i].thread, NULL, run_job, &jobs[i]);
	}
}

static void end_jobs(struct job *jobs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		pthread_join(jobs[i].thread, NULL);
		wait_release(&jobs[i].wait);
	}
}

static void a_burst_uses_few_connections(void **state)
{
	(void)state;
	struct job jobs[40] = {0};
	start_jobs(jobs, ARRAY_SIZE(jobs), "/raw/400000");
	end_jobs(jobs, ARRAY_SIZE(jobs));
	for (size_t i = 0; i < ARRAY_SIZE(jobs); i++)
		assert_int_equal(jobs[i].result, 400000);
	AUTO_FREE char *clients = server_get(&server, "/_control?clients=GET%20/raw");
	/* Four, and others for those that queued for 2 s, on a machine under load. */
	assert_true(strtol(clients, NULL, 10) <= 16);
}

static void await_count(const char *regex, int n)
{
	int64_t end = now_ms() + 30000;
	while (server_count(&server, regex) < n)
		assert_true(now_ms() < end);
}

/* Who queues does so for 2 s (http_engine.c). What is asked for FEW times takes as long as this
 * only if it queues each time: a machine under load does not. */
#define FEW	  5
#define QUEUED_MS (FEW * 2000)

/* 64 readers hang in the middle of their bodies; neither a lookup nor another read waits for
 * their end. */
static void stalled_readers_do_not_hinder_others(void **state)
{
	(void)state;
	WAIT(wait);
	struct job jobs[64] = {0};
	server_rule(&server, "GET", "/raw/777777", "\"stall_after\": 30000");
	start_jobs(jobs, ARRAY_SIZE(jobs), "/raw/777777");
	await_count("GET /raw/777777", 4);
	AUTO_FREE char *url = url_of("/v2/");
	const struct http_request lookup = {.url = url};
	struct http_transfer *transfer = NULL;
	int64_t begin = now_ms();
	for (int i = 0; i < FEW; i++) {
		assert_int_equal(http_start(http, &lookup, &wait, &transfer), 0);
		http_close(transfer);
	}
	assert_true(now_ms() - begin < QUEUED_MS);
	/* The first may have to wait until it is plain that the others stand still; then that is
	 * known. */
	for (int i = 0; i < 2 + FEW; i++) {
		if (i == 2)
			begin = now_ms();
		assert_int_equal(get("/raw/500000", &wait, &transfer), 0);
		assert_int_equal(read_whole(transfer, &wait, 30000), 500000);
		http_close(transfer);
	}
	assert_true(now_ms() - begin < QUEUED_MS);
	for (size_t i = 0; i < ARRAY_SIZE(jobs); i++)
		wait_cancel(&jobs[i].wait);
	end_jobs(jobs, ARRAY_SIZE(jobs));
	for (size_t i = 0; i < ARRAY_SIZE(jobs); i++)
		assert_int_equal(jobs[i].result, -EINTR);
}

/* Readers that have stopped reading do not keep their places either. */
static void sleeping_readers_do_not_hinder_others(void **state)
{
	(void)state;
	WAIT(wait);
	struct http_transfer *asleep[8] = {NULL};
	struct http_transfer *transfer = NULL;
	/* The server makes these bytes up once. */
	assert_int_equal(get("/raw/9000000", &wait, &transfer), 0);
	assert_int_equal(read_whole(transfer, &wait, 30000), 9000000);
	http_close(transfer);
	int64_t begin = now_ms();
	for (size_t i = 0; i < ARRAY_SIZE(asleep); i++)
		assert_int_equal(get("/raw/9000000", &wait, &asleep[i]), 0);
	assert_int_equal(get("/raw/500000", &wait, &transfer), 0);
	assert_int_equal(read_whole(transfer, &wait, 30000), 500000);
	http_close(transfer);
	/* Four have room, and four and the one that reads would queue. */
	assert_true(now_ms() - begin < QUEUED_MS);
	for (size_t i = 0; i < ARRAY_SIZE(asleep); i++)
		http_close(asleep[i]);
}

static void *run_upload(void *arg)
{
	struct wait *wait = arg;
	struct source source = {.size = 4000000, .fail_at = UINT64_MAX};
	struct http_transfer *transfer = NULL;
	if (!send_source(&source, source.size, wait, &transfer))
		http_close(transfer);
	return NULL;
}

/* More uploads than places; who reads does not queue behind them. */
static void uploads_leave_room_for_readers(void **state)
{
	(void)state;
	WAIT(wait);
	pthread_t threads[8];
	struct wait waits[8];
	struct http_transfer *transfer = NULL;
	server_rule(&server, "POST", "uploads", "\"slow_take\": 200000");
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
		wait_init(&waits[i], true);
		pthread_create(&threads[i], NULL, run_upload, &waits[i]);
	}
	await_count("POST", 1);
	assert_int_equal(get("/raw/1000", &wait, &transfer), 0);
	/* Those that had no place have not begun. */
	assert_true(server_count(&server, "POST") < 8);
	http_close(transfer);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
		wait_cancel(&waits[i]);
		pthread_join(threads[i], NULL);
		wait_release(&waits[i]);
	}
}

/* Names too: a listing of hundreds of images is no attack. */
static void a_burst_of_names_uses_few_connections(void **state)
{
	(void)state;
	struct job jobs[48] = {0};
	for (size_t i = 0; i < ARRAY_SIZE(jobs); i++)
		jobs[i].small = true;
	server_rule(&server, "GET", "/raw", "\"stall\": 0.1");
	start_jobs(jobs, ARRAY_SIZE(jobs), "/raw/1000");
	end_jobs(jobs, ARRAY_SIZE(jobs));
	for (size_t i = 0; i < ARRAY_SIZE(jobs); i++)
		assert_int_equal(jobs[i].result, 1000);
	AUTO_FREE char *clients = server_get(&server, "/_control?clients=raw");
	assert_true(strtol(clients, NULL, 10) <= 16);
}

static void a_finished_connection_is_used_again(void **state)
{
	(void)state;
	WAIT(wait);
	for (int i = 0; i < 5; i++) {
		struct http_transfer *transfer = NULL;
		assert_int_equal(get("/raw/1000", &wait, &transfer), 0);
		assert_int_equal(read_whole(transfer, &wait, 4096), 1000);
		http_close(transfer);
	}
	AUTO_FREE char *clients = server_get(&server, "/_control?clients=GET%20/raw");
	assert_string_equal(clients, "1");
}

/* ---- URLs ---- */

static void urls_are_taken_apart(void **state)
{
	(void)state;
	struct http_url url = {0};
	assert_int_equal(http_url_parse("HTTP://Reg.io:5000/v2/a?x=1&y=2#f", &url), 0);
	assert_string_equal(url.scheme, "http");
	assert_string_equal(url.host, "Reg.io:5000");
	assert_string_equal(url.path, "/v2/a");
	assert_string_equal(url.query, "x=1&y=2");
	http_url_release(&url);
	assert_int_equal(http_url_parse("https://[::1]:80", &url), 0);
	assert_string_equal(url.host, "[::1]:80");
	assert_string_equal(url.path, "/");
	assert_null(url.query);
	http_url_release(&url);
	assert_int_equal(http_url_parse("/v2/", &url), -EINVAL);
	assert_int_equal(http_url_parse("file:///etc/passwd", &url), -EINVAL);
	assert_int_equal(http_url_parse("https://u:p@host/", &url), -EINVAL);
}

static void urls_are_resolved(void **state)
{
	(void)state;
	static const char *const cases[][3] = {
		{"http://h:1/v2/a?n=1", "/v2/b?n=2&last=c%2Fd", "http://h:1/v2/b?n=2&last=c%2Fd"},
		{"http://h:1/v2/a/x?n=1", "y?z=1", "http://h:1/v2/a/y?z=1"},
		{"http://h:1/v2/a?n=1", "?n=2", "http://h:1/v2/a?n=2"},
		{"http://h/v2/", "https://o/x#f", "https://o/x"},
		{"https://h/v2/", "//o/x", "https://o/x"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		AUTO_FREE char *got = NULL;
		assert_int_equal(http_url_resolve(cases[i][0], cases[i][1], &got), 0);
		assert_string_equal(got, cases[i][2]);
	}
	AUTO_FREE char *escaped = http_url_escape("sha256:a/b c~\xff");
	assert_string_equal(escaped, "sha256%3Aa%2Fb%20c~%FF");
}

static void hosts_tell_where_they_are(void **state)
{
	(void)state;
	static const char *const loopback[] = {
		"localhost",	"x.localhost:80",  "LOCALHOST:5000", "127.0.0.1",
		"127.9.9.9:80", "[::1]",	   "[::1]:443",	     "[::ffff:127.0.0.1]:1",
		"localhost.",	"x.localhost.:80", "127.0.0.1.:80"};
	static const char *const elsewhere[] = {"localhost.evil.com", "127.0.0.1.nip.io",
						"registry.io:5000", "10.0.0.1", "[::2]:80"};
	for (size_t i = 0; i < ARRAY_SIZE(loopback); i++)
		assert_true(http_host_is_loopback(loopback[i]));
	for (size_t i = 0; i < ARRAY_SIZE(elsewhere); i++) {
		assert_false(http_host_is_loopback(elsewhere[i]));
		assert_false(http_host_is_local(elsewhere[i]));
	}
	assert_true(http_host_is_local("169.254.169.254"));
	assert_true(http_host_is_local("169.254.169.254."));
	assert_true(http_host_is_local("0.0.0.0:80"));
	assert_true(http_host_is_local("[fe80::1]:80"));
	assert_false(http_host_is_loopback("169.254.169.254"));
	static const char *const private[] = {
		"10.0.0.1:5000", "172.16.0.1",	      "172.31.255.255",
		"192.168.1.1",	 "100.64.0.1",	      "100.127.255.255",
		"[fd00::1]:443", "[::ffff:10.1.2.3]", "10.1"};
	static const char *const public[] = {"11.0.0.1",    "172.32.0.1",  "192.169.0.1",
					     "100.128.0.1", "10.0.0.1.io", "[2001:db8::1]",
					     "127.0.0.1"};
	for (size_t i = 0; i < ARRAY_SIZE(private); i++)
		if (!http_host_is_private(private[i]))
			fail_msg("%s", private[i]);
	for (size_t i = 0; i < ARRAY_SIZE(public); i++)
		if (http_host_is_private(public[i]))
			fail_msg("%s", public[i]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(gets_a_body),
		TEST(a_slow_reader_gets_it_all),
		TEST(chunked_has_no_length),
		TEST(trailers_are_bounded),
		TEST(head_has_no_body),
		TEST(read_all_is_capped),
		TEST(repeated_headers_are_kept),
		TEST(retry_after_may_be_a_date),
		TEST(sends_a_source),
		TEST(a_failing_source_fails_the_request),
		TEST(a_source_is_not_sent_again),
		TEST(a_slow_upload_is_not_stalled),
		TEST(header_injection_is_refused),
		TEST(a_short_body_is_a_reset),
		TEST(extra_bytes_are_not_handed_out),
		TEST(a_spoilt_connection_is_left),
		TEST(a_reset_is_one),
		TEST(nobody_listens),
		TEST(a_name_leads_home),
		TEST(no_route_is_ehostunreach),
		TEST(tls_to_a_plain_port_is_nonsense),
		TEST(huge_headers_are_refused),
		TEST(silence_times_out),
		TEST(a_stalled_body_times_out),
		TEST(slow_is_not_stalled),
		TEST(without_permission_nothing_is_sent),
		TEST(cancelling_ends_the_wait),
		TEST(a_burst_uses_few_connections),
		TEST(stalled_readers_do_not_hinder_others),
		TEST(sleeping_readers_do_not_hinder_others),
		TEST(uploads_leave_room_for_readers),
		TEST(a_burst_of_names_uses_few_connections),
		TEST(a_finished_connection_is_used_again),
		cmocka_unit_test(urls_are_taken_apart),
		cmocka_unit_test(urls_are_resolved),
		cmocka_unit_test(hosts_tell_where_they_are),
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
