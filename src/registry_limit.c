/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_limit: a registry that says it is asked too often (RFC 6585, section 4, and Retry-After,
 * RFC 9110, section 10.2.3) is left alone for that time by all who would ask the like.
 * Knows who has to wait. Must not know repetitions (registry_request.c).
 *
 * The like: registries limit some questions and not others. Docker Hub counts GET of manifests, and
 * neither HEAD nor blobs. So each kind of question has a time of its own.
 */
#include <errno.h>

#include "registry_priv.h"
#include "regfs/log.h"

/* Who names an hour may mean it or not: we look again once in a while. */
#define HOLD_MAX_MS 5000

static int64_t *hold_of(struct registry *registry, const struct registry_call *call)
{
	enum registry_question question = QUESTION_OTHER;
	if (strstr(call->url, "/manifests/"))
		question = call->method == HTTP_HEAD ? QUESTION_HEAD : QUESTION_MANIFEST;
	else if (strstr(call->url, "/blobs/"))
		question = QUESTION_BLOB;
	bool changes = call->method != HTTP_GET && call->method != HTTP_HEAD;
	return &registry->hold_ms[changes][question];
}

void registry_limited(struct registry *registry, const struct registry_call *call,
		      const struct http_transfer *transfer)
{
	int64_t asked_ms = http_retry_after_ms(transfer);
	if (asked_ms < 0)
		return;
	int64_t until_ms = now_ms() + MIN(asked_ms, HOLD_MAX_MS);
	pthread_mutex_lock(&registry->lock);
	int64_t *hold = hold_of(registry, call);
	*hold = MAX(*hold, until_ms);
	pthread_mutex_unlock(&registry->lock);
}

int registry_await_turn(struct registry *registry, const struct registry_call *call,
			int64_t patience_ms, struct wait *wait)
{
	pthread_mutex_lock(&registry->lock);
	int64_t until_ms = *hold_of(registry, call);
	pthread_mutex_unlock(&registry->lock);
	int64_t now = now_ms();
	if (until_ms <= now)
		return 0;
	if (until_ms < patience_ms)
		return wait_until(wait, until_ms + http_jitter_ms());
	/* That was logged, in the registry's words, when it said so. */
	log_debug("%s: not asked for %s: it was asked too often just now", registry->store.name,
		  call->url);
	return -EBUSY;
}
