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

static bool has_password(const struct auth_credential *credential)
{
	return credential && credential->user && credential->password && *credential->password;
}

/* *RET stays NULL for those who come anonymously. An identity token stands in for a password: it is
 * what a service without the newer form was given out by its own login for. */
static int basic_of(const struct auth_credential *credential, char **ret)
{
	if (!credential || (!has_password(credential) && !credential->identity_token))
		return 0;
	const struct auth_credential pair = {
		.user = credential->user ? credential->user : (char *)"<token>",
		.password = has_password(credential) ? credential->password
						     : credential->identity_token,
	};
	*ret = auth_basic_header(&pair);
	return *ret ? 0 : -ENOMEM;
}

static int get_token(struct http *http, const struct auth_token_request *request, struct wait *wait,
		     struct http_transfer **ret)
{
	AUTO_FREE char *url = NULL;
	AUTO_SECRET char *basic = NULL;
	int err = get_url(request, &url);
	err = err ? err : basic_of(request->credential, &basic);
	if (err)
		return err;
	const struct http_request get = {
		.method = HTTP_GET,
		.url = url,
		.headers = (const char *const[]){basic, NULL},
		.tls = request->tls,
		.deadline_ms = request->deadline_ms,
		.outside = request->outside,
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
			.outside = request->outside,
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
	/* A service that knows only the older form: GCR says 404, Artifactory 401 (containerd,
	 * core/remotes/docker/auth/fetch.go). */
	bool older = status == 404 || status == 405 ||
		     (status == 401 && has_password(request->credential));
	if (!older) {
		*ret = transfer;
		return 0;
	}
	http_close(transfer);
	return get_token(http, request, wait, ret);
}

static bool passing(int status)
{
	return status == 429 || status >= 500;
}

/* Asks again where the service is busy, or the connection broke, as long as the deadline lets. */
static int ask_patiently(struct http *http, const struct auth_token_request *request,
			 struct wait *wait, struct http_transfer **ret)
{
	for (unsigned attempt = 1;; attempt++) {
		struct http_transfer *transfer = NULL;
		int err = ask(http, request, wait, &transfer);
		if (err && err != -ECONNRESET)
			return err;
		int64_t again_ms = now_ms() + http_backoff_ms(transfer, attempt);
		bool over = attempt == ATTEMPTS || again_ms >= request->deadline_ms;
		if (!err && (over || !passing(http_status(transfer)))) {
			*ret = transfer;
			return 0;
		}
		if (err && over)
			return err;
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
	return status == 400 || status == 401 || status == 403 ? -EKEYREJECTED : -EIO;
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

/* How much of EXPIRES_IN is left of a token that was issued at ISSUED (RFC 3339; NULL: now). A time
 * that is not in that span says that the clocks differ, and not that the token is over. */
static int64_t seconds_left(int64_t expires_in, const char *issued, int64_t wall_now_ms)
{
	int64_t at;
	uint32_t nsec;
	if (!issued || oci_time_parse(issued, &at, &nsec))
		return expires_in;
	int64_t age = wall_now_ms / 1000 - at;
	return age > 0 && age < expires_in ? expires_in - age : expires_in;
}

int auth_token_parse(const char *json, size_t len, int64_t wall_now_ms, struct auth_token *ret)
{
	AUTO_SECRET char *token = oci_json_string(json, len, "token");
	if (!token || !*token) {
		secret_free(&token);
		token = oci_json_string(json, len, "access_token");
	}
	if (!token || !token_valid(token))
		return -EIO;
	int64_t seconds = oci_json_number(json, len, "expires_in", LIFETIME_MIN_S);
	seconds = MIN(MAX(seconds, LIFETIME_MIN_S), LIFETIME_MAX_S);
	AUTO_FREE char *issued = oci_json_string(json, len, "issued_at");
	seconds = MAX(seconds_left(seconds, issued, wall_now_ms), LIFETIME_MIN_S);
	ret->lifetime_ms = seconds * INT64_C(1000);
	ret->value = STEAL(token);
	return 0;
}

static int parse_answer(const struct auth_token_request *request, const struct buf *body,
			struct auth_token *ret)
{
	int err = auth_token_parse(body->data ? body->data : "", body->len, wall_ms(), ret);
	if (err == -EIO)
		log_warn("token service %s: the answer has no token", request->realm);
	return err;
}

int auth_token_fetch(struct http *http, const struct auth_token_request *request, struct wait *wait,
		     struct auth_token *ret)
{
	AUTO_TRANSFER struct http_transfer *transfer = NULL;
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
