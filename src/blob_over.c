// SPDX-License-Identifier: Apache-2.0
/*
 * A job whose registry sends next to nothing, while somebody who waits for it has another one: the
 * job goes over to that, and all who wait come along. What it brings is checked as before.
 * Knows how long to have patience. Must not know passes or ranges.
 */
#include <errno.h>

#include "blob_priv.h"
#include "regfs/log.h"

#define PATIENCE_DOUBLED 16 /* times, at most */

static int64_t patience_ends(const struct feed *feed)
{
	return now_ms() + (feed->blob->blobs->slow_ms << MIN(feed->overs, PATIENCE_DOUBLED));
}

static void offer(struct over_await *await)
{
	struct feed *feed = await->feed;

	if (feed->over_repo || (*await->way)->store == await->id->store)
		return;
	feed->over_repo = strdup(await->id->repo);
	if (!feed->over_repo)
		return;
	feed->over_store = await->id->store;
	wait_cancel(await->job);
}

int over_await(struct over_await *await, struct wait *wait)
{
	struct feed *feed = await->feed;

	if (await->until_ms == 0 || await->seen != *await->done) {
		await->seen = *await->done;
		await->until_ms = patience_ends(feed);
	}
	int r = wait_on(wait, await->queue, &feed->blob->blobs->lock, await->until_ms);
	if (r != -ETIMEDOUT)
		return r;
	if (await->seen == *await->done)
		offer(await);
	await->until_ms = patience_ends(feed);
	return 0;
}

struct way *over_take(struct feed *feed, struct wait *job)
{
	struct blobs *blobs = feed->blob->blobs;

	if (!feed->over_repo || blobs->closing)
		return NULL;
	wait_renew(job);
	free(feed->repo);
	feed->repo = STEAL(feed->over_repo);
	feed->store = feed->over_store;
	feed->source = blob_source(&(struct blob_id){.store = feed->store, .repo = feed->repo});
	feed->overs++;
	return way_of(blobs, feed->store);
}

void over_go(struct feed *feed)
{
	char name[DIGEST_STR_MAX];

	feed_stop(feed);
	log_warn(
		"%s/%s: blob %s is fetched from here: another registry sends next to nothing of it",
		feed->store->name, feed->repo, digest_format(&feed->blob->digest, name));
}

void over_drop(struct feed *feed, struct wait *job)
{
	if (!feed->over_repo)
		return;
	free(STEAL(feed->over_repo));
	if (!feed->blob->blobs->closing)
		wait_renew(job);
}
