/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why something fails, in words: the first sentence that is said stays.
 * Must not know what failed.
 */
#include <errno.h>

#include "push_priv.h"

void push_reason_init(struct push_reason *why)
{
	pthread_mutex_init(&why->lock, NULL);
	*why->text = 0;
}

void push_reason_release(struct push_reason *why)
{
	pthread_mutex_destroy(&why->lock);
}

void push_reason_take(struct push_reason *why, char ret[static PUSH_REASON_MAX])
{
	pthread_mutex_lock(&why->lock);
	memcpy(ret, why->text, PUSH_REASON_MAX);
	*why->text = 0;
	pthread_mutex_unlock(&why->lock);
}

int push_fail(struct push_reason *why, int err, const char *fmt, ...)
{
	char text[PUSH_REASON_MAX] = "";
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	/* Names in it come from outside; _regfs/pushes has a line for each push. */
	replace_controls(text, '?');
	pthread_mutex_lock(&why->lock);
	if (!*why->text)
		memcpy(why->text, text, sizeof(text));
	pthread_mutex_unlock(&why->lock);
	return err;
}

int push_fail_errno(struct push_reason *why, int err, const char *what)
{
	char words[128];

	errno = -err;
	snprintf(words, sizeof(words), "%m");
	return push_fail(why, err, "%s: %s", what, words);
}

int push_fail_spool(struct push_reason *why, int err, const char *what)
{
	/* EDQUOT would say that the registry's quota is full. */
	return push_fail_errno(why, err == -EDQUOT ? -ENOSPC : err, what);
}

int push_fail_digest(struct push_reason *why, const struct digest *wanted,
		     const struct digest *found)
{
	char wanted_str[DIGEST_STR_MAX], found_str[DIGEST_STR_MAX];

	return push_fail(why, -EINVAL, "the archive's blob %s has the digest %s",
			 digest_format(wanted, wanted_str), digest_format(found, found_str));
}
