/* SPDX-License-Identifier: Apache-2.0 */
/*
 * creds_ask: helpers' answers: one run for all who ask, on a thread of the pool, kept for a while.
 * Must not know what a run is made of.
 */
#include <errno.h>

#include "creds_priv.h"
#include "regfs/log.h"

#define ANSWERS_MAX 256
/* So long it is not asked again: many repositories want a token each. */
#define KEPT_MS 10000
/* So long after a failure, or when what it said was refused by the registry. */
#define KEPT_FAILED_MS 1000

void creds_answer_free(struct creds_answer *answer)
{
	authfile_entry_release(&answer->entry);
	free(answer->helper);
	free(answer->key);
	free(answer);
}

static int parse(const struct creds_answer *answer, const struct buf *output,
		 struct authfile_entry *ret)
{
	int err = authfile_helper_parse(output->data ? output->data : "", output->len, ret);

	if (err != -EINVAL)
		return err;
	log_warn("credential helper docker-credential-%s: what it prints for %s is no answer of a "
		 "credential helper",
		 answer->helper, answer->key);
	return -EACCES;
}

/* On a thread of the pool. */
static void run(struct pool_work *work)
{
	struct creds_answer *answer = CONTAINER_OF(work, struct creds_answer, work);
	struct creds *creds = answer->creds;
	struct authfile_entry fresh = {0};
	AUTO_SECRET_BUF struct buf output = BUF_INIT(CREDS_OUTPUT_MAX);
	const struct creds_call call = {
		.helper = answer->helper,
		.verb = "get",
		.input = answer->key,
		.timeout_ms = creds->helper_timeout_ms,
		.stop_fd = creds->stop_fd,
	};
	int err = creds_helper_run(&call, &output);

	if (!err)
		err = parse(answer, &output, &fresh);
	pthread_mutex_lock(&creds->lock);
	authfile_entry_release(&answer->entry);
	answer->entry = fresh;
	answer->error = err;
	answer->running = false;
	answer->runs++;
	answer->ended_ms = now_ms();
	wait_wake(&answer->waiters);
	pthread_mutex_unlock(&creds->lock);
}

/* --- with the lock --- */

static void evict(struct creds *creds)
{
	struct creds_answer **oldest = NULL, *gone;

	for (struct creds_answer **at = &creds->answers; *at; at = &(*at)->next) {
		bool idle = !(*at)->running && !(*at)->refs;

		if (idle && (!oldest || (*at)->ended_ms < (*oldest)->ended_ms))
			oldest = at;
	}
	if (!oldest)
		return;
	gone = *oldest;
	*oldest = gone->next;
	creds_answer_free(gone);
	creds->nanswers--;
}

static struct creds_answer *answer_of(struct creds *creds, const struct authfile_choice *choice)
{
	struct creds_answer *answer = creds->answers;

	while (answer && (strcmp(answer->helper, choice->helper) != 0 ||
			  strcmp(answer->key, choice->helper_key) != 0))
		answer = answer->next;
	if (answer)
		return answer;
	if (creds->nanswers >= ANSWERS_MAX)
		evict(creds);
	answer = calloc(1, sizeof(*answer));
	if (!answer)
		return NULL;
	answer->work.run = run;
	answer->creds = creds;
	answer->helper = strdup(choice->helper);
	answer->key = strdup(choice->helper_key);
	if (!answer->helper || !answer->key) {
		creds_answer_free(answer);
		return NULL;
	}
	answer->next = creds->answers;
	creds->answers = answer;
	creds->nanswers++;
	return answer;
}

static bool is_usable(const struct creds_answer *answer, bool fresh)
{
	int64_t kept_ms = answer->error || fresh ? KEPT_FAILED_MS : KEPT_MS;

	return answer->runs > 0 && !answer->running && now_ms() - answer->ended_ms < kept_ms;
}

/* With the lock, which is let go meanwhile. */
static int start(struct creds *creds, struct creds_answer *answer)
{
	int err;

	answer->running = true;
	pthread_mutex_unlock(&creds->lock);
	err = pool_submit(creds->pool, &answer->work);
	pthread_mutex_lock(&creds->lock);
	if (!err)
		return 0;
	log_warn("credential helper docker-credential-%s: no thread for it", answer->helper);
	answer->running = false;
	wait_wake(&answer->waiters);
	return -EACCES;
}

/* Until there is an answer. */
static int await(struct creds *creds, struct creds_answer *answer, const struct auth_query *query,
		 struct wait *wait)
{
	unsigned before = answer->runs;
	int err = 0;

	/* one that ended while we waited is good enough for all who did */
	while (!err && !is_usable(answer, query->fresh) &&
	       (answer->runs == before || answer->running)) {
		if (!answer->running)
			err = start(creds, answer);
		if (!err && answer->running)
			err = wait_on(wait, &answer->waiters, &creds->lock,
				      query->deadline_ms ? query->deadline_ms : WAIT_FOREVER);
	}
	return err;
}

static int copy_string(const char *from, char **ret)
{
	*ret = from ? strdup(from) : NULL;
	return from && !*ret ? -ENOMEM : 0;
}

static int copy_entry(const struct authfile_entry *from, struct authfile_entry *ret)
{
	CLEANUP(authfile_entry_release) struct authfile_entry entry = {0};
	int err = copy_string(from->user, &entry.user);

	err = err ? err : copy_string(from->password, &entry.password);
	err = err ? err : copy_string(from->identity_token, &entry.identity_token);
	if (err)
		return err;
	*ret = entry;
	entry = (struct authfile_entry){0};
	return 0;
}

int creds_ask(struct creds *creds, const struct authfile_choice *choice,
	      const struct auth_query *query, struct wait *wait, struct authfile_entry *ret)
{
	struct creds_answer *answer;
	int err = -ENOMEM;

	pthread_mutex_lock(&creds->lock);
	answer = answer_of(creds, choice);
	if (answer) {
		answer->refs++;
		err = await(creds, answer, query, wait);
		err = err ? err : answer->error;
		err = err ? err : copy_entry(&answer->entry, ret);
		answer->refs--;
	}
	pthread_mutex_unlock(&creds->lock);
	return err;
}
