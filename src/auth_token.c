/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth_token: a conversation with a token service (distribution "Token Authentication
 * Specification"; with an identity token its "OAuth2" form, RFC 6749, section 6).
 * Knows the requests and the answer. Must not know who needs the token and how long it is kept.
 */
#include <errno.h>

#include "auth_priv.h"
#include "regfs/log.h"
#include "regfs/oci.h"
#include "regfs/stats.h"

#define ANSWER_MAX (1 * MIB)
#define ATTEMPTS   3
/* Servers say less by mistake; docker's and other clients hold it the same way. */
#define LIFETIME_MIN_S 60
#define LIFETIME_MAX_S (24 * 3600)

static void close_cleanup(struct http_transfer **transfer)
{
	http_close(*transfer);
}

static int add_param(struct buf *to, const char *name, const char *value)
{
	AUTO_FREE char *escaped = http_url_escape(value);
	return escaped ? buf_printf(to, "&%s=%s", name, escaped) : -ENOMEM;
}

/* Each of the scopes in LIST, which are separated by spaces, but those that EXCEPT has. */
static int add_scopes(struct buf *to, const char *list, const char *except)
{
	while (list && *(list += strspn(list, " "))) {
		size_t len = strcspn(list, " ");
		AUTO_FREE char *scope = strndup(list, len);
		if (!scope)
			return -ENOMEM;
		list += len;
		if (except && !strcmp(except, scope))
			continue;
		int err = add_param(to, "scope", scope);
		if (err)
			return err;
	}
	return 0;
}

/* A GET names each scope by itself. Some services look at the first alone, so what the registry
 * asked for goes first. */
static int get_url(const struct auth_token_request *request, char **ret)
{
	AUTO_BUF struct buf query = BUF_INIT(64 * KIB);
	int err = buf_puts(&query, "");
	if (request->service)
		err = err ? err : add_param(&query, "service", request->service);
	err = err ? err : add_scopes(&query, request->challenged, NULL);
	err = err ? err : add_scopes(&query, request->scope, request->challenged);
	if (err)
		return err;
	const char *params = query.len ? query.data + 1 : ""; /* past the '&' */
	const char *joint = strchr(request->realm, '?') ? "&" : "?";
	*ret = format("%s%s%s", request->realm, joint, params);
	return *ret ? 0 : -ENOMEM;
}

static int get_token(struct http *http, const struct auth_token_request *request, struct wait *wait,
		     struct http_transfer **ret)
{
	const struct auth_credential *credential = request->credential;
	AUTO_FREE char *url = NULL;
	CLEANUP(auth_forget) char *basic = NULL;
	int err = get_url(request, &url);
	if (!err && credential && credential->user && credential->password) {
		basic = auth_basic_header(credential);
		err = basic ? 0 : -ENOMEM;
	}
	if (err)
		return err;
	const struct http_request get = {
		.method = HTTP_GET,
		.url = url,
		.headers = (const char *const[]){basic, NULL},
		.tls = request->tls,
		.deadline_ms = request->deadline_ms,
	};
	return http_start(http, &get, wait, ret);
}

static int post_form(const struct auth_token_request *request, struct buf *ret)
{
	AUTO_BUF struct buf scopes = BUF_INIT(32 * KIB);
	int err = buf_puts(&scopes, request->challenged ? request->challenged : "");
	if (!request->challenged || strcmp(request->challenged, request->scope)) {
		err = err ? err : buf_puts(&scopes, scopes.len ? " " : "");
		err = err ? err : buf_puts(&scopes, request->scope);
	}
	err = err ? err : buf_puts(ret, "grant_type=refresh_token");
	err = err ? err : add_param(ret, "client_id", "regfs");
	if (request->service)
		err = err ? err : add_param(ret, "service", request->service);
	if (scopes.len)
		err = err ? err : add_param(ret, "scope", scopes.data);
	return err ? err : add_param(ret, "refresh_token", request->credential->identity_token);
}

static int post_token(struct http *http, const struct auth_token_request *request,
		      struct wait *wait, struct http_transfer **ret)
{
	AUTO_BUF struct buf form = BUF_INIT(128 * KIB);
	int err = post_form(request, &form);
	if (!err) {
		const struct http_request post = {
			.method = HTTP_POST,
			.url = request->realm,
			.headers = (const char *const[]){"Content-Type: "
							 "application/x-www-form-urlencoded",
							 NULL},
			.body = form.data,
			.body_len = form.len,
			.tls = request->tls,
			.deadline_ms = request->deadline_ms,
		};
		err = http_start(http, &post, wait, ret);
	}
	if (form.data)
		explicit_bzero(form.data, form.len);
	return err;
}

/* The token service's answer to one request, of whatever status. */
static int ask(struct http *http, const struct auth_token_request *request, struct wait *wait,
	       struct http_transfer **ret)
{
	if (!request->credential || !request->credential->identity_token)
		return get_token(http, request, wait, ret);
	struct http_transfer *transfer = NULL;
	int err = post_token(http, request, wait, &transfer);
	if (err)
		return err;
	int status = http_status(transfer);
	if (status != 404 && status != 405) {
		*ret = transfer;
		return 0;
	}
	/* A service that knows only the older form. */
	http_close(transfer);
	return get_token(http, request, wait, ret);
}

static bool passing(int status)
{
	return status == 429 || status >= 500;
}

/* Asks again where the service is busy, as long as the deadline lets. */
static int ask_patiently(struct http *http, const struct auth_token_request *request,
			 struct wait *wait, struct http_transfer **ret)
{
	for (unsigned attempt = 1;; attempt++) {
		struct http_transfer *transfer = NULL;
		int err = ask(http, request, wait, &transfer);
		if (err)
			return err;
		int64_t again_ms = now_ms() + http_backoff_ms(transfer, attempt);
		if (!passing(http_status(transfer)) || attempt == ATTEMPTS ||
		    again_ms >= request->deadline_ms) {
			*ret = transfer;
			return 0;
		}
		http_close(transfer);
		err = wait_until(wait, again_ms);
		if (err)
			return err;
		stats_add(STAT_HTTP_RETRIES, 1);
	}
}

static int refused(const struct auth_token_request *request, int status, const struct buf *body)
{
	char code[64];
	AUTO_FREE char *words = oci_error_message(body->data ? body->data : "", body->len, code);
	if (!words)
		words = oci_json_string(body->data ? body->data : "", body->len, "details");
	log_warn("token service %s: status %d%s%s%s", request->realm, status, words ? ": " : "",
		 words ? words : "",
		 status == 401 && !request->credential ? " (not logged in)" : "");
	if (status == 429)
		return -EBUSY;
	return status == 400 || status == 401 || status == 403 ? -EACCES : -EIO;
}

/* A token goes into a header: nothing that could end one. */
static bool token_valid(const char *token)
{
	for (const char *c = token; *c; c++) {
		if (*c <= ' ' || *c > '~')
			return false;
	}
	return *token != '\0';
}

static int parse_answer(const struct auth_token_request *request, const struct buf *body,
			struct auth_token *ret)
{
	const char *json = body->data ? body->data : "";
	CLEANUP(auth_forget) char *token = oci_json_string(json, body->len, "token");
	if (!token || !*token) {
		auth_forget(&token);
		token = oci_json_string(json, body->len, "access_token");
	}
	if (!token || !token_valid(token)) {
		log_warn("token service %s: the answer has no token", request->realm);
		return -EIO;
	}
	int64_t seconds = oci_json_number(json, body->len, "expires_in", LIFETIME_MIN_S);
	ret->lifetime_ms = MIN(MAX(seconds, LIFETIME_MIN_S), LIFETIME_MAX_S) * INT64_C(1000);
	ret->value = STEAL(token);
	return 0;
}

int auth_token_fetch(struct http *http, const struct auth_token_request *request, struct wait *wait,
		     struct auth_token *ret)
{
	CLEANUP(close_cleanup) struct http_transfer *transfer = NULL;
	int err = ask_patiently(http, request, wait, &transfer);
	if (err)
		return err;
	AUTO_BUF struct buf body = {0};
	err = http_read_all(transfer, ANSWER_MAX, &body, wait);
	if (err == -EFBIG) {
		log_warn("token service %s: the answer is larger than 1 MiB", request->realm);
		return -EIO;
	}
	if (err)
		return err;
	int status = http_status(transfer);
	err = status == 200 ? parse_answer(request, &body, ret) : refused(request, status, &body);
	if (body.data)
		explicit_bzero(body.data, body.len);
	return err;
}
