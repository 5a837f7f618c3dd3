/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_error: what a registry says no with, as an errno and a line in the log.
 * Knows status codes and error codes (distribution-spec, "Error Codes"), and the ways of some
 * registries. Must not know what is to be done about it.
 */
#include <errno.h>
#include <strings.h>

#include "registry_priv.h"
#include "regfs/log.h"
#include "regfs/oci.h"

#define ERROR_BODY_MAX (64 * KIB)
#define GONE_AGAIN_MS  30000

int registry_errno(int err)
{
	return err == -EPROTO || err == -ECONNRESET || err == -EFBIG ? -EIO : err;
}

/* The call's URL as a line shows it: without what the line says anyway, and without its query,
 * which carries secrets where a URL is signed. The caller frees. */
static char *short_url(const struct registry_call *call)
{
	const char *url = call->url;
	AUTO_FREE char *prefix = format("/v2/%s/", call->repo ? call->repo : "");
	const char *at = prefix && call->repo ? strstr(url, prefix) : NULL;
	if (at)
		url = at + strlen(prefix);
	return strndup(url, strcspn(url, "?"));
}

/* One line: "HOST/REPO: GET manifests/1.5: words". */
static void log_call(const struct registry *registry, const struct registry_call *call, int err,
		     const char *words)
{
	AUTO_FREE char *url = short_url(call);
	AUTO_FREE char *line = format("%s%s%s: %s %s: %s", registry->store.name,
				      call->repo ? "/" : "", call->repo ? call->repo : "",
				      http_method_name(call->method), url ? url : "", words);
	bool expected = err == -ENOENT ||
			(call->may_refuse && (err == -EOPNOTSUPP || err == -EACCES));
	if (expected)
		log_debug("%s", line ? line : words);
	else
		log_warn("%s", line ? line : words);
}

bool registry_gone(struct registry *registry, int err)
{
	if (err != -ECONNREFUSED && err != -EHOSTUNREACH && err != -ETIMEDOUT)
		return true;
	int64_t now = now_ms();
	pthread_mutex_lock(&registry->lock);
	bool news = registry->gone != err || now - registry->gone_ms >= GONE_AGAIN_MS;
	if (news) {
		registry->gone = err;
		registry->gone_ms = now;
	}
	pthread_mutex_unlock(&registry->lock);
	return news;
}

void registry_back(struct registry *registry)
{
	pthread_mutex_lock(&registry->lock);
	bool news = registry->gone != 0;
	registry->gone = 0;
	pthread_mutex_unlock(&registry->lock);
	if (news)
		log_info("%s: the registry answers again", registry->store.name);
}

int registry_failed(const struct registry *registry, const struct registry_call *call, int err,
		    const char *why)
{
	if (err != -EINTR && err != -EWOULDBLOCK)
		log_call(registry, call, err, why);
	return registry_errno(err);
}

struct code_errno {
	const char *code;
	int err;
};

static const struct code_errno codes[] = {
	{"NAME_UNKNOWN", -ENOENT},
	{"MANIFEST_UNKNOWN", -ENOENT},
	{"BLOB_UNKNOWN", -ENOENT},
	{"BLOB_UPLOAD_UNKNOWN", -ENOENT},
	{"UNAUTHORIZED", -EACCES},
	{"DENIED", -EACCES},
	{"UNSUPPORTED", -EOPNOTSUPP},
	{"TOOMANYREQUESTS", -EBUSY},
	{"NAME_INVALID", -EINVAL},
	{"TAG_INVALID", -EINVAL},
	{"MANIFEST_INVALID", -EINVAL},
	{"DIGEST_INVALID", -EINVAL},
	{"SIZE_INVALID", -EINVAL},
	/* A manifest was put before its blobs: our fault or the registry's. */
	{"MANIFEST_BLOB_UNKNOWN", -EIO},
};

static bool mentions(const char *words, const char *what)
{
	return words && strcasestr(words, what);
}

/* What the words say better than the code. 0: nothing. */
static int words_errno(const char *words, int status)
{
	/* ECR: TAG_INVALID, "… the repository is immutable"; Harbor: 412, "configured as
	 * immutable"; Artifact Registry: "… immutable tag …". */
	if (mentions(words, "immutable") || mentions(words, "cannot be overwritten"))
		return -EEXIST;
	/* Harbor: DENIED, "… will exceed the configured upper limit of …". */
	if (mentions(words, "quota") || mentions(words, "upper limit") ||
	    mentions(words, "storage limit"))
		return -EDQUOT;
	/* Red Hat, Harbor 2.10: UNKNOWN, "… not found". */
	if (mentions(words, "UNKNOWN: ") && mentions(words, "not found") && status < 500)
		return -ENOENT;
	return 0;
}

static int status_errno(const struct http_transfer *transfer)
{
	int status = http_status(transfer);
	switch (status) {
	case 401:
	case 403:
		return -EACCES;
	case 404:
		return -ENOENT;
	case 405:
	case 501:
		return -EOPNOTSUPP;
	case 413:
	case 507:
		return -EDQUOT;
	case 429:
		return -EBUSY;
	case 503:
		return http_header(transfer, "Retry-After") ? -EBUSY : -EIO;
	default:
		return -EIO;
	}
}

static int judge(const struct http_transfer *transfer, const char *code, const char *words)
{
	int status = http_status(transfer);
	int err = words_errno(words, status);
	if (err)
		return err;
	/* A server's failure is one whatever code it borrows; and 413 and 507 say it all. */
	if (status >= 400 && status < 500 && status != 413 && status != 429) {
		for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
			if (!strcmp(codes[i].code, code))
				return codes[i].err;
		}
	}
	return status_errno(transfer);
}

/* How long a pause TRANSFER asks for, for the log; "" where it does not. The caller frees. */
static char *pause_words(const struct http_transfer *transfer)
{
	int status = http_status(transfer);
	int64_t pause_ms = http_retry_after_ms(transfer);
	if ((status != 429 && status != 503) || pause_ms < 0)
		return strdup("");
	return format(" (it asks for a pause of %lld s)", (long long)((pause_ms + 999) / 1000));
}

int registry_refused(const struct registry *registry, const struct registry_call *call,
		     struct http_transfer *transfer, struct wait *wait)
{
	AUTO_BUF struct buf body = {0};
	int err = http_read_all(transfer, ERROR_BODY_MAX, &body, wait);
	if (err == -EINTR || err == -EWOULDBLOCK)
		return err;
	char code[64] = "";
	AUTO_FREE char *said = body.len ? oci_error_message(body.data, body.len, code) : NULL;
	err = judge(transfer, code, said);
	int status = http_status(transfer);
	if (call->cannot && status == 400 && (err == -EINVAL || err == -EIO))
		err = -EOPNOTSUPP;
	bool cannot = call->cannot && err == -EOPNOTSUPP;
	AUTO_FREE char *pause = pause_words(transfer);
	AUTO_FREE char *words = format("status %d%s%s%s%s%s", status, said ? ": " : "",
				       said ? said : "", cannot ? ": " : "",
				       cannot ? call->cannot : "", pause ? pause : "");
	log_call(registry, call, err, words ? words : "refused");
	return err;
}
