/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http: two engines side by side.
 * Knows which of them serves what. Must not know curl's handles (http_easy.c).
 *
 * Why two: over HTTP/2, curl stops a whole connection while one of its streams is paused by a
 * reader that does not read; and a limit of connections per host, which bulk needs, would let
 * as many stalled downloads shut out every lookup on that host. So what may ever be paused
 * or has to queue is kept away from what asks about names; and on two cores the lookups do not
 * wait for the other thread's copying and deciphering either.
 */
#include <errno.h>

#include "http_priv.h"

/* A burst of questions (all entries of a list) opens so many connections and no more: registries
 * take hundreds for an attack. */
#define NAMES_PER_HOST 16

struct http *http_new(const struct http_options *options)
{
	/* Counted inside curl, and thread-safe since 7.84. */
	if (curl_global_init(CURL_GLOBAL_DEFAULT))
		return NULL;
	struct http *http = calloc(1, sizeof(*http));
	if (!http) {
		curl_global_cleanup();
		return NULL;
	}
	http->timeout_ms = options->timeout_ms ? options->timeout_ms : 60000;
	http->names.multiplex = true;
	http->names.per_host = NAMES_PER_HOST;
	http->bulk.per_host = options->max_per_host ? options->max_per_host : 20;
	http->user_agent = strdup(options->user_agent ? options->user_agent : "regfs");
	if (!http->user_agent || http_engine_start(&http->names) ||
	    http_engine_start(&http->bulk)) {
		http_free(http);
		return NULL;
	}
	return http;
}

void http_free(struct http *http)
{
	if (!http)
		return;
	http_engine_stop(&http->names);
	http_engine_stop(&http->bulk);
	free(http->user_agent);
	free(http);
	curl_global_cleanup();
}
