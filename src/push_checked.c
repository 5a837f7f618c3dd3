/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A blob of an archive that is sent as it is, under the digest that its name or a manifest says.
 * Knows hashes. Must not know manifests, nor when the bytes come.
 *
 * What passes by is hashed while it is sent, each byte once, however often it is read.
 */
#include <errno.h>

#include "push_priv.h"

struct checked {
	struct push_archive_part part;
	const struct digest *wanted;
	struct hasher *hasher;
	uint64_t hashed; /* bytes so far, from the start */
	bool judged;
	int wrong; /* once judged: -EINVAL, or 0 */
};

static ssize_t checked_read(void *arg, uint64_t off, void *buf, size_t cap)
{
	struct checked *checked = arg;

	ssize_t got = push_archive_part_read(&checked->part, off, buf, cap);
	if (got <= 0 || off > checked->hashed)
		return got;
	uint64_t again = checked->hashed - off;
	if (again < (uint64_t)got) {
		hasher_add(checked->hasher, (char *)buf + again, (size_t)got - (size_t)again);
		checked->hashed += (uint64_t)got - again;
	}
	return got;
}

static int checked_await(void *arg, uint64_t off, struct wait *wait)
{
	struct checked *checked = arg;

	return push_archive_part_await(&checked->part, off, wait);
}

/* All was read. */
static int checked_judge(void *arg)
{
	struct checked *checked = arg;
	struct digest found;

	if (checked->judged)
		return checked->wrong;
	checked->judged = true;
	hasher_final(checked->hasher, &found);
	if (!digest_equal(&found, checked->wanted))
		checked->wrong = push_fail_digest(checked->part.run->why, checked->wanted, &found);
	return checked->wrong;
}

/* What was not sent is hashed too. */
static int finish(struct checked *checked, const struct store_source *source, struct wait *wait)
{
	AUTO_FREE char *piece = malloc(PUSH_PIECE);

	if (!piece)
		return -ENOMEM;
	while (checked->hashed < checked->part.at.len) {
		if (wait_cancelled(wait))
			return -EINTR;
		ssize_t got = store_source_read(source, checked->hashed, piece, PUSH_PIECE, wait);
		if (got < 0)
			return (int)got;
	}
	return checked_judge(checked);
}

static int send(struct push_run *run, const struct push_blob *blob, const struct archive_blob *at,
		struct wait *wait)
{
	AUTO_HASHER struct hasher *hasher = hasher_new(blob->digest->algo);
	struct checked checked = {.part = {run, *at}, .wanted = blob->digest, .hasher = hasher};
	struct store_source source = {
		.read = checked_read,
		.arg = &checked,
		.size = at->len,
		.await = run->part ? checked_await : NULL,
		.judge = checked_judge,
	};
	struct push_blob what = *blob;

	if (!hasher)
		return -ENOMEM;
	what.source = &source;
	what.share = at->len;
	/* A small one is better read twice than confirmed by a request of its own. */
	if (at->len <= PUSH_SMALL) {
		int wrong = finish(&checked, &source, wait);
		if (wrong)
			return wrong;
		source.judge = NULL;
	}
	int err = push_offer(run, &what, wait);
	/* A store refuses a wrong digest in its own way; whose fault it was is seen here. */
	if (!err || err == -EIO || err == -EINVAL) {
		int wrong = finish(&checked, &source, wait);
		if (wrong)
			return wrong;
	}
	return err ? push_fail_sending(run, &what, err) : 0;
}

int push_send_checked(struct push_run *run, const struct push_blob *blob,
		      const struct archive_blob *at, struct wait *wait,
		      struct push_inside *ret_inside)
{
	struct push_archive_part part = {run, *at};
	const struct store_source source = {
		.read = push_archive_part_read,
		.arg = &part,
		.size = at->len,
		.await = push_archive_part_await,
	};
	AUTO_DIFF struct push_diff *diff = NULL;

	int err = ret_inside ? push_diff_start(run->push, &source, blob->digest, true, &diff) : 0;
	if (!err)
		err = send(run, blob, at, wait);
	if (!err)
		push_archive_confirmed(run);
	if (!err && diff)
		err = push_diff_finish(diff, wait, ret_inside);
	if (!err && diff)
		push_diff_keep(diff);
	return err;
}
