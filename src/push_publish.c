/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a push: manifests are put, tags move, and who shows them is told.
 * Knows stores. Must not know archives' bytes: every blob is confirmed when this begins.
 */
#include <errno.h>

#include "push_priv.h"
#include "regfs/log.h"

static int put_manifest(struct push *push, const char *repo, const char *tag,
			const struct archive_document *document, struct wait *wait)
{
	struct store *store = push->store;
	char what[REF_REPO_MAX + REF_TAG_MAX + 32], digest[DIGEST_STR_MAX];

	if (wait_cancelled(wait))
		return -EINTR;
	/* An index leads to its children by the digests that it says. */
	const char *name = tag ? tag : digest_format(&document->digest, digest);
	int err = store->ops->put_manifest(store, repo, name, document->media_type, document->bytes,
					   document->len, wait);
	if (!err || err == -EINTR)
		return err;
	snprintf(what, sizeof(what), "sending the manifest of %s%s%s", repo, tag ? ":" : "",
		 tag ? tag : "");
	return push_fail_errno(&push->why, err, what);
}

/* Everybody who shows the tag hears of it before the writer does. */
static void announce(struct push *push, const char *repo, const char *tag,
		     const struct archive_document *document)
{
	struct digest digest;
	const struct pushes_options *options = &push->pushes->options;
	const struct event events[] = {
		{.kind = EVENT_TAG, .host = push->store->name, .repo = repo, .name = tag},
		{.kind = EVENT_TAGS, .host = push->store->name, .repo = repo},
		{.kind = EVENT_REPOS, .host = push->store->name},
	};

	digest_of(DIGEST_SHA256, document->bytes, document->len, &digest);
	if (options->on_tag)
		options->on_tag(options->arg, push->store, repo, tag, &digest);
	for (size_t i = 0; i < ARRAY_SIZE(events) && options->events; i++)
		events_publish(options->events, &events[i]);
	/* Of an archive that names its images, which; else the verdict is that line. */
	if (!push->repo)
		log_info("push %s: %s/%s:%s is confirmed", push->label, push->store->name, repo,
			 tag);
}

int push_manifest(struct push *push, const char *tag, const struct archive_document *document,
		  struct wait *wait)
{
	int err = put_manifest(push, push->repo, tag, document, wait);

	if (!err && tag)
		announce(push, push->repo, tag, document);
	return err;
}

/* Children by their digests, then the image under its tags. */
static int put_manifests(struct push *push, const struct push_delivery *delivery, struct wait *wait)
{
	const struct archive_image *image = delivery->image;
	const struct archive_document made = {
		.media_type = (char *)delivery->media_type,
		.bytes = delivery->manifest.data,
		.len = delivery->manifest.len,
	};
	const struct archive_document *top = image->nmanifests
						     ? &image->manifests[image->nmanifests - 1]
						     : &made;

	for (size_t i = 0; i + 1 < image->nmanifests; i++) {
		int err = put_manifest(push, delivery->repo, NULL, &image->manifests[i], wait);
		if (err)
			return err;
	}
	for (size_t i = 0; i < delivery->ntags; i++) {
		/* A temporary's plan was made before it had a tag. */
		const char *tag = push->repo ? push->tag : delivery->tags[i];
		int err = put_manifest(push, delivery->repo, tag, top, wait);
		if (err)
			return err;
		announce(push, delivery->repo, tag, top);
	}
	return 0;
}

int push_publish(struct push *push, const struct push_staged *staged, struct wait *wait)
{
	int err = 0;

	for (size_t i = 0; i < staged->plan.ndeliveries && !err; i++)
		err = put_manifests(push, &staged->plan.deliveries[i], wait);
	return err;
}

void push_staged_free(struct push_staged *staged)
{
	if (!staged)
		return;
	push_plan_release(&staged->plan);
	archive_parsed_free(staged->archive);
	free(staged);
}
