/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_upload: a blob is put (distribution-spec, "Pushing blobs" and "Mounting a blob from
 * another repository").
 * Knows upload sessions, and how one goes on after it broke off. Must not know what the blob is.
 *
 * A session is opened by POST, and takes the whole blob in one PUT; or, where it turns out only at
 * the end whether the bytes are right, in a PATCH, which an empty PUT confirms. When that breaks
 * off, the registry is asked how much it has: the rest goes by PATCH, and an empty PUT ends it.
 * Where that makes no sense the session is dropped and another one begun. The registry checks the
 * digest at the end, so a wrong answer in between costs a repetition and never a wrong blob.
 */
#include <errno.h>

#include "registry_priv.h"
#include "regfs/log.h"
#include "regfs/stats.h"

/* So many failures in a row may bring less than PROGRESS bytes more than any session has held. */
#define FRUITLESS_MAX 4
#define PROGRESS      (1 * MIB)
/* The registry hashes and stores what it got before it answers. */
#define STORE_BYTES_PER_MS (50 * 1000)
#define CANCEL_MS	   2000
/* Between two looks whether a registry that went away is back. */
#define PAUSE_MAX_MS 2000

struct upload {
	struct registry *registry;
	const char *repo;
	const struct store_put *put;
	struct wait *wait;
	char digest[DIGEST_STR_MAX];
	char *scope;
	char *location; /* of the session, absolute; NULL: none */
	uint64_t held;	/* bytes that the session holds */
	uint64_t most;	/* that one was seen to hold */
	unsigned fruitless;
};

static void upload_release(struct upload *upload)
{
	free(upload->scope);
	free(upload->location);
}

static void report_progress(const struct upload *upload, uint64_t bytes)
{
	if (upload->put->progress)
		upload->put->progress(upload->put->progress_arg, bytes);
}

/* On the http thread. OFF counts from what the session holds. */
static ssize_t read_rest(void *arg, uint64_t off, void *buf, size_t cap)
{
	const struct upload *upload = arg;
	const struct store_source *source = upload->put->source;
	report_progress(upload, upload->held + off);
	return source->read(source->arg, upload->held + off, buf, cap);
}

static int await_rest(void *arg, uint64_t off, struct wait *wait)
{
	const struct upload *upload = arg;
	const struct store_source *source = upload->put->source;
	return source->await(source->arg, upload->held + off, wait);
}

static struct registry_call call_of(const struct upload *upload, enum http_method method,
				    const char *url)
{
	return (struct registry_call){
		.method = method,
		.url = url,
		.repo = upload->repo,
		.scope = upload->scope,
	};
}

/* Where the session goes on, from an answer's Location. 0 or a negative errno, logged. */
static int take_location(struct upload *upload, const struct registry_call *call,
			 const struct http_transfer *answer)
{
	const char *location = http_header(answer, "Location");
	AUTO_FREE char *url = NULL;
	if (!location)
		return registry_failed(upload->registry, call, -EIO, "no Location for the upload");
	int err = http_url_resolve(http_url(answer), location, &url);
	if (err == -ENOMEM)
		return err;
	if (err)
		return registry_failed(upload->registry, call, -EIO, "the Location is no URL");
	const char *why = registry_detour_refusal(http_url(answer), url);
	if (why)
		return registry_failed(upload->registry, call, -EIO, why);
	free(upload->location);
	upload->location = STEAL(url);
	return 0;
}

/* ---- a session ---- */

static char *session_url(const struct upload *upload, bool mount)
{
	if (!mount)
		return format("/v2/%s/blobs/uploads/", upload->repo);
	AUTO_FREE char *digest = http_url_escape(upload->digest);
	AUTO_FREE char *from = http_url_escape(upload->put->mount_from);
	if (!digest || !from)
		return NULL;
	return format("/v2/%s/blobs/uploads/?mount=%s&from=%s", upload->repo, digest, from);
}

/* 1: the blob is mounted; 0: a session is open; else a negative errno. With MOUNT a refusal is
 * -ERESTART: some registries refuse the mount and would take the blob. */
static int open_session(struct upload *upload, bool mount)
{
	AUTO_FREE char *url = session_url(upload, mount);
	if (!url)
		return -ENOMEM;
	const struct registry_call call = call_of(upload, HTTP_POST, url);
	AUTO_TRANSFER struct http_transfer *answer = NULL;
	int err = registry_send(upload->registry, &call, upload->wait, &answer);
	if (err)
		return err;
	int status = http_status(answer);
	if (status == 201 && mount)
		return 1;
	if (status == 202 || status == 201) {
		upload->held = 0;
		return take_location(upload, &call, answer);
	}
	if (mount && status >= 400 && status < 500 && status != 429)
		return -ERESTART;
	return registry_refused(upload->registry, &call, answer, upload->wait);
}

/* An upload that is given up is called off, so that the registry need not keep it. The caller's
 * wait may be cancelled: a short one of our own. */
static void drop_session(struct upload *upload)
{
	if (!upload->location)
		return;
	struct wait alone;
	wait_init(&alone, true);
	struct registry_call call = call_of(upload, HTTP_DELETE, upload->location);
	call.deadline_ms = now_ms() + CANCEL_MS;
	call.once = true;
	AUTO_TRANSFER struct http_transfer *answer = NULL;
	(void)registry_send(upload->registry, &call, &alone, &answer);
	wait_release(&alone);
	free(STEAL(upload->location));
}

/* ---- the bytes ---- */

static bool stored(int status)
{
	return status == 200 || status == 201 || status == 204;
}

/* Whether an answer is worth going on after: the session or the way to it broke. */
static bool broken(int status)
{
	return (status >= 500 && status != 501 && status != 507) || status == 408;
}

/* Whether nobody was there: in the midst of an upload, a registry that is started anew. */
static bool is_gone(int err)
{
	return err == -ECONNREFUSED || err == -EHOSTUNREACH || err == -ETIMEDOUT;
}

/* Sends a request of the session with a body: all of it, the rest, or none. *RET is the answer, of
 * 2xx. -ERESTART: it broke off. */
static int send_bytes(struct upload *upload, struct registry_call *call, uint64_t len,
		      struct http_transfer **ret)
{
	AUTO_TRANSFER struct http_transfer *answer = NULL;
	bool lost = false;
	call->once = true;
	call->lost = &lost;
	call->bulk = len > HTTP_SMALL;
	call->body_read = len ? read_rest : NULL;
	call->body_await = upload->put->source->await ? await_rest : NULL;
	call->body_arg = upload;
	call->body_len = len;
	call->timeout_ms = upload->registry->timeout_ms +
			   (int64_t)(upload->put->source->size / STORE_BYTES_PER_MS);
	int err = registry_send(upload->registry, call, upload->wait, &answer);
	if (err)
		return lost || is_gone(err) ? -ERESTART : err;
	int status = http_status(answer);
	if (status >= 200 && status < 300) {
		*ret = STEAL(answer);
		return 0;
	}
	err = registry_refused(upload->registry, call, answer, upload->wait);
	/* What the registry holds is not what we think, or it has forgotten the session. */
	bool confused = upload->held > 0 && (status == 416 || status == 400);
	return broken(status) || confused || status == 404 ? -ERESTART : err;
}

/* The PUT that ends the session, with LEN bytes. */
static int finish(struct upload *upload, uint64_t len)
{
	const char *joint = strchr(upload->location, '?') ? "&" : "?";
	AUTO_FREE char *digest = http_url_escape(upload->digest);
	AUTO_FREE char *url = digest ? format("%s%sdigest=%s", upload->location, joint, digest)
				     : NULL;
	if (!url)
		return -ENOMEM;
	struct registry_call call = call_of(upload, HTTP_PUT, url);
	call.headers = (const char *const[]){"Content-Type: application/octet-stream", NULL};
	AUTO_TRANSFER struct http_transfer *answer = NULL;
	int err = send_bytes(upload, &call, len, &answer);
	if (err)
		return err;
	if (!stored(http_status(answer)))
		return registry_failed(upload->registry, &call, -EIO,
				       "the upload was not confirmed");
	free(STEAL(upload->location));
	return 0;
}

/* All that the session lacks, without an end. */
static int patch_rest(struct upload *upload)
{
	uint64_t size = upload->put->source->size;
	AUTO_FREE char *range = format("Content-Range: %llu-%llu", (unsigned long long)upload->held,
				       (unsigned long long)(size - 1));
	AUTO_FREE char *url = strdup(upload->location);
	if (!range || !url)
		return -ENOMEM;
	struct registry_call call = call_of(upload, HTTP_PATCH, url);
	const char *type = "Content-Type: application/octet-stream";
	/* From the start it is what docker sends to every registry. */
	call.headers = (const char *const[]){type, upload->held ? range : NULL, NULL};
	AUTO_TRANSFER struct http_transfer *answer = NULL;
	int err = send_bytes(upload, &call, size - upload->held, &answer);
	err = err ? err : take_location(upload, &call, answer);
	if (!err)
		upload->held = size;
	return err;
}

static int send_rest(struct upload *upload)
{
	const struct store_source *source = upload->put->source;
	bool at_once = !upload->held && !source->judge;
	if (upload->held < source->size && !at_once) {
		int err = patch_rest(upload);
		err = err || !source->judge ? err : source->judge(source->arg);
		if (err)
			return err;
	}
	return finish(upload, source->size - upload->held);
}

/* ---- after it broke off ---- */

/* "0-1023", "bytes=0-1023". An empty session is told as "0-0" like one of a single byte. */
static uint64_t held_bytes(const char *range)
{
	const char *dash = range ? strchr(range, '-') : NULL;
	uint64_t last;
	return dash && parse_u64(dash + 1, &last) && last < UINT64_MAX && last > 0 ? last + 1 : 0;
}

/* Gives how much the session holds; 0 if it is no use any more. An error if nobody is there. */
static int ask_session(struct upload *upload, uint64_t *ret_held)
{
	AUTO_FREE char *url = strdup(upload->location);
	*ret_held = 0;
	if (!url)
		return -ENOMEM;
	struct registry_call call = call_of(upload, HTTP_GET, url);
	call.deadline_ms = registry_name_deadline(upload->registry);
	AUTO_TRANSFER struct http_transfer *answer = NULL;
	int err = registry_send(upload->registry, &call, upload->wait, &answer);
	if (err)
		return is_gone(err) ? err : 0;
	int status = http_status(answer);
	if (status != 204 && status != 200 && status != 202)
		return 0;
	uint64_t held = held_bytes(http_header(answer, "Range"));
	if (held > upload->put->source->size)
		return 0;
	if (http_header(answer, "Location") && take_location(upload, &call, answer))
		return 0;
	*ret_held = held;
	return 0;
}

/* The same, while a registry that went away may come back: for as long as anything may take that
 * makes no progress. */
static int ask_patiently(struct upload *upload, uint64_t *ret_held)
{
	int64_t deadline_ms = now_ms() + upload->registry->timeout_ms;
	for (unsigned attempt = 1;; attempt++) {
		int err = ask_session(upload, ret_held);
		int64_t next_ms = now_ms() + MIN(http_backoff_ms(NULL, attempt), PAUSE_MAX_MS);
		if (!err || next_ms > deadline_ms)
			return err;
		err = wait_until(upload->wait, next_ms);
		if (err)
			return err;
	}
}

/* 0: to be tried again, from .held on or in another session. */
static int recover(struct upload *upload)
{
	const struct store_source *source = upload->put->source;
	uint64_t before = upload->held;
	uint64_t held = 0;
	int err = upload->location ? ask_patiently(upload, &held) : 0;
	/* A registry or proxy that would not wait for bytes that come slowly would not the next
	 * time. */
	if (!err && source->await && source->size)
		err = source->await(source->arg, source->size - 1, upload->wait);
	if (err)
		return err;
	bool gained = held >= upload->most + PROGRESS;
	upload->most = MAX(upload->most, held);
	upload->fruitless = gained ? 0 : upload->fruitless + 1;
	if (upload->fruitless == FRUITLESS_MAX) {
		log_warn("%s/%s: upload of %s: given up after it broke off %u times",
			 upload->registry->store.name, upload->repo, upload->digest, FRUITLESS_MAX);
		return -EIO;
	}
	/* Stood still where it was: its count may be wrong (ECR, Zot; regclient#961). */
	if (held == before)
		held = 0;
	upload->held = held;
	if (!held)
		drop_session(upload);
	stats_add(STAT_HTTP_RETRIES, 1);
	return wait_until(upload->wait, now_ms() + http_backoff_ms(NULL, upload->fruitless + 1));
}

/* 1: the registry holds the blob, and all of it. 0; or a negative errno. */
static int is_held(struct upload *upload)
{
	const struct store_source *source = upload->put->source;
	uint64_t size;
	int err = registry_has_blob(&upload->registry->store, upload->repo, upload->put->digest,
				    &size, upload->wait);
	if (err)
		return err == -ENOENT ? 0 : err;
	return source && size == source->size;
}

/* The same as open_session(), of a registry that may be on its way back. Asked whether it holds the
 * blob it may just have gone away; then it is asked when it is back. */
static int open_patiently(struct upload *upload, bool mount)
{
	int64_t deadline_ms = now_ms() + upload->registry->timeout_ms;
	int err = open_session(upload, mount);
	for (unsigned attempt = 1; store_put_waits(upload->put) && is_gone(err); attempt++) {
		int64_t next_ms = now_ms() + MIN(http_backoff_ms(NULL, attempt), PAUSE_MAX_MS);
		if (next_ms > deadline_ms)
			return err;
		err = wait_until(upload->wait, next_ms);
		err = err ? err : is_held(upload);
		err = err ? err : open_session(upload, mount);
	}
	return err;
}

static int run(struct upload *upload)
{
	int mounted = -ERESTART;
	if (upload->put->mount_from)
		mounted = open_patiently(upload, true);
	if (mounted == 1)
		return 0;
	if (!upload->put->source)
		return mounted == 0 || mounted == -ERESTART ? -ENOENT : mounted;
	int err = mounted == -ERESTART ? 0 : mounted;
	for (;;) {
		if (!err && !upload->location)
			err = open_patiently(upload, false);
		if (err == 1) /* by now it is there */
			return 0;
		err = err ? err : send_rest(upload);
		if (err != -ERESTART)
			return err;
		err = recover(upload);
		if (err)
			return err;
	}
}

int registry_put_blob(struct store *store, const char *repo, const struct store_put *put,
		      struct wait *wait)
{
	if (!wait_may_block(wait))
		return -EWOULDBLOCK;
	CLEANUP(upload_release)
	struct upload upload = {
		.registry = registry_of(store), .repo = repo, .put = put, .wait = wait};
	digest_format(put->digest, upload.digest);
	AUTO_FREE char *own = registry_scope(repo, "pull,push");
	AUTO_FREE char *other = put->mount_from ? registry_scope(put->mount_from, "pull") : NULL;
	if (!own || (put->mount_from && !other))
		return -ENOMEM;
	upload.scope = other ? format("%s %s", own, other) : STEAL(own);
	if (!upload.scope)
		return -ENOMEM;
	int err = run(&upload);
	if (err)
		drop_session(&upload);
	else if (put->source)
		report_progress(&upload, put->source->size);
	return err;
}
