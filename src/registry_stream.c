/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_stream: a blob's bytes from an offset on (distribution-spec, "Pulling blobs"; ranges
 * after RFC 9110, section 14).
 * Knows ranges and where a body broke off. Must not know digests: nothing here is verified.
 *
 * .pos is the next byte the reader gets, .end the first it does not want (UINT64_MAX: unknown
 * yet). A server that gives more than was asked for (all of it, status 200) is skipped through; one
 * that gives less is asked again from .pos on, as long as that brings something. One that answers
 * with another range, or with several parts, is asked for all.
 *
 * Bytes are taken as they come, even where a Content-Encoding is said to be on them: we asked for
 * none, and some servers only say so because the blob is a .gz. Digests tell in the end.
 */
#include <errno.h>

#include "registry_priv.h"
#include "regfs/stats.h"

/* So many answers in a row may bring less than PROGRESS bytes. */
#define FRUITLESS_MAX 4
#define PROGRESS      (64 * KIB)
/* A configuration, as a rule: it need not wait behind layers. */
#define SMALL_BLOB (64 * KIB)

struct blob_stream {
	struct store_stream base;
	struct registry *registry;
	char *repo, *scope, *url;
	struct registry_call call;
	struct http_transfer *transfer; /* NULL between two answers */
	uint64_t pos, end;
	uint64_t skip;	 /* bytes of the body before .pos */
	uint64_t body;	 /* bytes of the body that may still come; UINT64_MAX: unknown */
	uint64_t gained; /* by the reader, out of this answer; what is skipped is no progress */
	unsigned fruitless;
	bool whole;	/* this server takes no ranges */
	bool elsewhere; /* the registry lacks it: what is asked is not the registry */
};

static void stream_close(struct store_stream *base)
{
	struct blob_stream *stream = CONTAINER_OF(base, struct blob_stream, base);
	http_close(stream->transfer);
	free(stream->repo);
	free(stream->scope);
	free(stream->url);
	free(stream);
}

static void stream_cleanup(struct blob_stream **stream)
{
	if (*stream)
		stream_close(&(*stream)->base);
}

static int failed(const struct blob_stream *stream, int err, const char *why)
{
	return registry_failed(stream->registry, &stream->call, err, why);
}

struct content_range {
	bool has_span, has_total;
	uint64_t first, last, total;
};

/* "bytes 5-9/100", or an asterisk for the span or the total; Nexus left "bytes " out once. False
 * if it is none of these. */
static bool content_range_parse(const char *value, struct content_range *ret)
{
	if (!value)
		return false;
	if (starts_with(value, "bytes"))
		value += strlen("bytes");
	value += strspn(value, " =");
	AUTO_FREE char *text = strdup(value);
	char *slash = text ? strchr(text, '/') : NULL;
	char *dash = text ? strchr(text, '-') : NULL;
	if (!slash)
		return false;
	*slash = '\0';
	*ret = (struct content_range){0};
	ret->has_total = parse_u64(slash + 1, &ret->total);
	if (!strcmp(text, "*"))
		return true;
	if (!dash || dash > slash)
		return false;
	*dash = '\0';
	ret->has_span = parse_u64(text, &ret->first) && parse_u64(dash + 1, &ret->last) &&
			ret->first <= ret->last && ret->last < UINT64_MAX;
	return ret->has_span;
}

/* The server does not serve our range in a way that can be used: it is asked for all. */
static int go_whole(struct blob_stream *stream, const char *why)
{
	if (stream->whole)
		return failed(stream, -EIO, why);
	stream->whole = true;
	return -ERESTART;
}

/* 206: the span has to have the place where we are; it may begin before, and end before .end.
 * Several parts for one range are forbidden (RFC 9110, section 15.3.7.2). */
static int accept_part(struct blob_stream *stream)
{
	struct content_range range;
	const char *type = http_header(stream->transfer, "Content-Type");
	if (type && starts_with(type, "multipart/"))
		return go_whole(stream, "several parts came for one range");
	if (!content_range_parse(http_header(stream->transfer, "Content-Range"), &range) ||
	    !range.has_span || range.first > stream->pos || range.last < stream->pos)
		return go_whole(stream, "another range came than was asked for");
	stream->skip = stream->pos - range.first;
	stream->body = range.last - range.first + 1;
	if (range.has_total)
		stream->end = MIN(stream->end, range.total);
	return 0;
}

/* 200: the whole blob. */
static void accept_whole(struct blob_stream *stream)
{
	int64_t length = http_content_length(stream->transfer);
	stream->base.unranged = stream->pos > 0 || stream->end != UINT64_MAX;
	stream->skip = stream->pos;
	stream->body = length < 0 ? UINT64_MAX : (uint64_t)length;
	if (length >= 0)
		stream->end = MIN(stream->end, (uint64_t)length);
}

static char *range_header(const struct blob_stream *stream)
{
	unsigned long long first = stream->pos, last = stream->end - 1;
	if (stream->end == UINT64_MAX)
		return format("Range: bytes=%llu-", first);
	return format("Range: bytes=%llu-%llu", first, last);
}

/* 416: past the end, which is no error of the reader's; or the server dislikes our range, and is
 * asked for all. */
static int out_of_range(struct blob_stream *stream)
{
	struct content_range range;
	bool told = content_range_parse(http_header(stream->transfer, "Content-Range"), &range) &&
		    range.has_total;
	if (told && range.total <= stream->pos) {
		stream->end = stream->pos;
		return 0;
	}
	return go_whole(stream, "refuses a range, and all of it as well");
}

/* What was to be small comes whole and large: it has to go with the bulk (http.h). */
static bool belongs_elsewhere(struct blob_stream *stream)
{
	if (stream->call.bulk || http_content_length(stream->transfer) <= HTTP_SMALL)
		return false;
	stream->call.bulk = true;
	return true;
}

/* 0; -ERESTART: to be asked once more, in another way; or the error. */
static int accept_answer(struct blob_stream *stream, struct wait *wait)
{
	int status = http_status(stream->transfer);
	stream->gained = 0;
	if ((status == 200 || status == 206) && belongs_elsewhere(stream))
		return -ERESTART;
	if (status == 200) {
		accept_whole(stream);
		return 0;
	}
	if (status == 206)
		return accept_part(stream);
	if (status == 416 && !stream->whole)
		return out_of_range(stream);
	return registry_refused(stream->registry, &stream->call, stream->transfer, wait);
}

/* Asks for what is left, from .pos on. */
static int ask_rest(struct blob_stream *stream, struct wait *wait)
{
	bool ranged = !stream->whole && (stream->pos > 0 || stream->end != UINT64_MAX);
	AUTO_FREE char *range = ranged ? range_header(stream) : NULL;
	if (ranged && !range)
		return -ENOMEM;
	/* It is borrowed for the call alone. */
	stream->call.headers = (const char *const[]){range, NULL};
	int err = registry_send(stream->registry, &stream->call, wait, &stream->transfer);
	stream->call.headers = NULL;
	if (err)
		return err;
	err = accept_answer(stream, wait);
	if (err)
		http_close(STEAL(stream->transfer));
	return err;
}

static int open_rest(struct blob_stream *stream, struct wait *wait)
{
	/* Twice at most it says so: each time it gives up one of two ways for good. */
	int err;
	do {
		err = ask_rest(stream, wait);
	} while (err == -ERESTART);
	return err;
}

/* The body ended, or broke off with ERR, before .end. 0: to be asked again. */
static int broke_off(struct blob_stream *stream, int err, struct wait *wait)
{
	const char *why = err ? http_why(stream->transfer) : "the body ends too soon";
	if (err && err != -ECONNRESET)
		return failed(stream, err, why);
	stream->fruitless = stream->gained >= PROGRESS ? 0 : stream->fruitless + 1;
	if (stream->fruitless == FRUITLESS_MAX)
		return failed(stream, -EIO, why);
	http_close(STEAL(stream->transfer));
	stats_add(STAT_HTTP_RETRIES, 1);
	if (!stream->fruitless)
		return 0;
	return wait_until(wait, now_ms() + http_backoff_ms(NULL, stream->fruitless));
}

/* The next bytes of the body that are wanted: skips, and cuts off what is too much. */
static ssize_t read_body(struct blob_stream *stream, void *buf, size_t cap, struct wait *wait)
{
	while (stream->skip) {
		char away[16 * KIB];
		size_t some = (size_t)MIN(stream->skip, (uint64_t)sizeof(away));
		ssize_t n = http_read(stream->transfer, away, some, wait);
		if (n <= 0)
			return n;
		stream->skip -= (uint64_t)n;
		stream->body -= stream->body == UINT64_MAX ? 0 : (uint64_t)n;
	}
	uint64_t want = MIN(stream->end - stream->pos, stream->body);
	if (!want)
		return 0;
	ssize_t n = http_read(stream->transfer, buf, (size_t)MIN((uint64_t)cap, want), wait);
	if (n > 0) {
		stream->pos += (uint64_t)n;
		stream->body -= stream->body == UINT64_MAX ? 0 : (uint64_t)n;
		stream->gained += (uint64_t)n;
	}
	return n;
}

/* Who reads a blob has its digest from the registry, as a rule from a manifest. */
static int missing(const struct blob_stream *stream)
{
	if (stream->registry->mirror)
		return -ENOENT;
	if (stream->elsewhere)
		return failed(stream, -EIO,
			      "neither the registry nor the places that its manifest names have "
			      "this layer");
	return failed(stream, -EIO,
		      "the registry lacks a blob that it named (the image has to be pushed again)");
}

static ssize_t stream_read(struct store_stream *base, void *buf, size_t cap, struct wait *wait)
{
	struct blob_stream *stream = CONTAINER_OF(base, struct blob_stream, base);
	while (cap && stream->pos < stream->end) {
		int err = 0;
		if (!stream->transfer)
			err = open_rest(stream, wait);
		if (err)
			return err == -ENOENT ? missing(stream) : err;
		if (stream->pos >= stream->end)
			break;
		ssize_t n = read_body(stream, buf, cap, wait);
		if (n > 0)
			return n;
		if (n == -EINTR || n == -EWOULDBLOCK)
			return n;
		if (!n && stream->end == UINT64_MAX) {
			/* Nobody told a length: this is the end. */
			stream->end = stream->pos;
			break;
		}
		err = broke_off(stream, (int)n, wait);
		if (err)
			return err;
	}
	return 0;
}

/* The registry lacks DIGEST: asks the places that its descriptor names, without credentials. */
static int open_elsewhere(struct blob_stream *stream, const struct digest *digest,
			  struct wait *wait)
{
	char *urls[REGISTRY_URLS_MAX] = {NULL};
	int err = registry_foreign_urls(stream->registry, stream->repo, digest, urls);
	if (err)
		return err;
	stream->elsewhere = true;
	stream->call.scope = NULL;
	stream->call.anonymous = true;
	stream->call.is_blob = false; /* no URL of the registry's */
	for (size_t i = 0; urls[i]; i++) {
		free(stream->url);
		stream->call.url = stream->url = urls[i];
		urls[i] = NULL;
		err = open_rest(stream, wait);
		if (!err || err == -EINTR || err == -EWOULDBLOCK) {
			registry_urls_free(&urls[i + 1]);
			break;
		}
	}
	return err;
}

int registry_open_blob(struct store *store, const char *repo, const struct digest *digest,
		       uint64_t off, uint64_t len, struct store_stream **ret, struct wait *wait)
{
	struct registry *registry = registry_of(store);
	char text[DIGEST_STR_MAX];
	CLEANUP(stream_cleanup) struct blob_stream *stream = calloc(1, sizeof(*stream));
	if (!stream)
		return -ENOMEM;
	*stream = (struct blob_stream){
		.base = {.read = stream_read, .close = stream_close},
		.registry = registry,
		.repo = strdup(repo),
		.scope = registry_scope(repo, "pull"),
		.url = format("/v2/%s/blobs/%s", repo, digest_format(digest, text)),
		.pos = off,
		.end = len > UINT64_MAX - off ? UINT64_MAX : off + len,
	};
	if (!stream->repo || !stream->scope || !stream->url)
		return -ENOMEM;
	stream->call = (struct registry_call){
		.method = HTTP_GET,
		.url = stream->url,
		.repo = stream->repo,
		.scope = stream->scope,
		.is_blob = true,
		/* A part goes where the other parts go, however small: a connection that has
		 * carried much gives an answer of some tens of KB in one round trip, another one
		 * has to find its pace first. */
		.bulk = len > SMALL_BLOB || off > 0,
	};
	if (stream->pos < stream->end) {
		int err = open_rest(stream, wait);
		if (err == -ENOENT)
			err = open_elsewhere(stream, digest, wait);
		if (err)
			return err == -ENOENT ? missing(stream) : err;
	}
	*ret = &stream->base;
	stream = NULL;
	return 0;
}
