/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One flush: archive, plan, blobs, and then push_publish().
 * Knows archives and stores. Must not know who waits for it, nor compression.
 *
 * No tag moves before every blob of every image is confirmed, and every digest was found right.
 */
#include <errno.h>

#include "push_priv.h"

#define INTERRUPT_MS 10

/* --- sending one blob --- */

struct meter {
	struct push *push;
	uint64_t size, share; /* of the blob; of it in the push's total */
	uint64_t reported;
};

static void meter_set(struct meter *meter, uint64_t share)
{
	push_progress(meter->push, (int64_t)(share - meter->reported));
	meter->reported = share;
}

static void meter_progress(void *arg, uint64_t bytes)
{
	struct meter *meter = arg;

	if (meter->size)
		meter_set(meter, (uint64_t)((double)meter->share * (double)MIN(bytes, meter->size) /
					    (double)meter->size));
}

int push_put(struct push *push, const char *repo, struct store_put *put, struct wait *wait)
{
	put->answered = &push->answered;
	return store_offer(push->store, repo, put, put->source->size, wait);
}

int push_offer(struct push_run *run, const struct push_blob *blob, struct wait *wait)
{
	struct meter meter = {.push = run->push, .size = blob->source->size, .share = blob->share};
	struct store_put put = {
		.digest = blob->digest,
		.source = blob->source,
		.mount_from = blob->mount_from,
		.progress = meter_progress,
		.progress_arg = &meter,
	};

	int err = push_put(run->push, blob->repo, &put, wait);
	if (!err)
		meter_set(&meter, blob->share);
	return err;
}

int push_fail_sending(struct push_run *run, const struct push_blob *blob, int err)
{
	char digest[DIGEST_STR_MAX], what[DIGEST_STR_MAX + REF_REPO_MAX + 32];

	if (err == -EINTR)
		return err;
	snprintf(what, sizeof(what), "sending %s to %s", digest_format(blob->digest, digest),
		 blob->repo);
	return push_fail_errno(run->why, err, what);
}

int push_send(struct push_run *run, const struct push_blob *blob, struct wait *wait)
{
	int err = push_offer(run, blob, wait);

	return err ? push_fail_sending(run, blob, err) : 0;
}

/* --- OCI: blobs as they are --- */

struct blob_task {
	struct push_task task;
	struct push_run *run;
	const struct archive_part *part;
	const char *repo, *mount_from;
	struct push_inside *inside; /* NULL: nobody asks */
};

static int blob_run(struct push_task *task, struct wait *wait)
{
	struct blob_task *blob = CONTAINER_OF(task, struct blob_task, task);
	const struct push_blob what = {
		.repo = blob->repo,
		.mount_from = blob->mount_from,
		.digest = &blob->part->digest,
	};

	return push_send_checked(blob->run, &what, &blob->part->at, wait, blob->inside);
}

static const struct archive_part *find_blob(const struct archive_image *image,
					    const struct digest *digest)
{
	for (size_t i = 0; i < image->nblobs; i++) {
		if (digest_equal(&image->blobs[i].digest, digest))
			return &image->blobs[i];
	}
	return NULL;
}

/* Another repository that got the blob a moment ago. */
static const char *sent_before(const struct push_plan *plan, const struct push_delivery *delivery,
			       const struct digest *digest)
{
	for (const struct push_delivery *before = plan->deliveries; before < delivery; before++) {
		if (strcmp(before->repo, delivery->repo) && find_blob(before->image, digest))
			return before->repo;
	}
	return NULL;
}

/* A part that went while the archive was written: 0 if it is where it has to be. */
static int claim_part(struct push_run *run, const struct push_delivery *delivery,
		      const struct archive_part *part, struct push_inside *inside)
{
	struct push_part *sent;

	int err = push_part_find(run, &part->at, &sent);
	if (err)
		return err;
	*inside = sent->inside;
	if (digest_equal(&sent->layer.digest, &part->digest))
		return 0;
	/* It was found to be a tar. */
	*inside = (struct push_inside){.blob = part->digest, .diff_id = part->digest};
	return push_restore(run, &sent->layer, delivery->repo, &part->digest);
}

/* The same image, for another repository. */
static bool verified_before(const struct push_plan *plan, const struct push_delivery *delivery)
{
	for (const struct push_delivery *before = plan->deliveries; before < delivery; before++) {
		if (before->image == delivery->image)
			return true;
	}
	return false;
}

static bool is_layer(const struct archive_image *image, const struct digest *digest)
{
	for (size_t i = 0; i < image->nmanifests; i++) {
		const struct oci_manifest *manifest = &image->manifests[i].manifest;
		if (!oci_is_image(manifest))
			continue;
		for (size_t j = 0; j < manifest->nlayers; j++) {
			if (digest_equal(&manifest->layers[j].digest, digest))
				return true;
		}
	}
	return false;
}

/* Brings all blobs to the delivery's repository; INSIDES has a place for each. */
static int send_blobs(struct push_run *run, const struct push_plan *plan,
		      const struct push_delivery *delivery, struct push_insides *insides)
{
	const struct archive_image *image = delivery->image;
	AUTO_FREE struct blob_task *blobs = calloc(image->nblobs + 1, sizeof(*blobs));
	AUTO_FREE struct push_task **tasks = calloc(image->nblobs + 1, sizeof(struct push_task *));
	size_t ntasks = 0;

	if (!blobs || !tasks)
		return -ENOMEM;
	for (size_t i = 0; i < image->nblobs; i++) {
		const struct archive_part *part = &image->blobs[i];
		if (push_part_exists(run, &part->at))
			continue;
		blobs[ntasks] = (struct blob_task){
			.task = {blob_run},
			.run = run,
			.part = part,
			.repo = delivery->repo,
			.mount_from = sent_before(plan, delivery, &part->digest),
		};
		if (!verified_before(plan, delivery) && is_layer(image, &part->digest))
			blobs[ntasks].inside = &insides->list[i];
		tasks[ntasks] = &blobs[ntasks].task;
		ntasks++;
	}
	/* While the parts are still on their way. */
	int err = push_tasks_run(run->push->pushes->options.jobs, tasks, ntasks, PUSH_PARALLEL,
				 run->wait);
	for (size_t i = 0; i < image->nblobs && !err; i++) {
		const struct archive_part *part = &image->blobs[i];
		if (push_part_exists(run, &part->at))
			err = claim_part(run, delivery, part, &insides->list[i]);
	}
	return err;
}

static int verify(struct push_run *run, const struct archive_image *image,
		  const struct push_insides *insides)
{
	int err = 0;

	for (size_t i = 0; i < image->nmanifests && !err; i++) {
		const struct oci_manifest *manifest = &image->manifests[i].manifest;
		AUTO_BUF struct buf config = BUF_INIT(OCI_CONFIG_MAX + 1);
		const struct archive_part *part = oci_is_image(manifest)
							  ? find_blob(image,
								      &manifest->config.digest)
							  : NULL;
		if (!part)
			continue;
		err = push_archive_config(run, &part->at, &config);
		if (!err)
			err = push_verify(run->why, manifest, &config, insides);
	}
	return err;
}

static int send_oci(struct push_run *run, const struct push_plan *plan,
		    const struct push_delivery *delivery)
{
	const struct archive_image *image = delivery->image;
	AUTO_FREE struct push_inside *list = calloc(image->nblobs + 1, sizeof(*list));
	struct push_insides insides = {.list = list, .n = image->nblobs};

	if (!list)
		return -ENOMEM;
	int err = send_blobs(run, plan, delivery, &insides);
	return err ? err : verify(run, image, &insides);
}

/* --- the flush --- */

static uint64_t total_bytes(const struct push_plan *plan)
{
	uint64_t total = 0;

	for (size_t i = 0; i < plan->ndeliveries; i++) {
		const struct archive_image *image = plan->deliveries[i].image;
		for (size_t j = 0; j < image->nblobs; j++)
			total += image->blobs[j].at.len;
	}
	return total;
}

static void staged_cleanup(struct push_staged **staged)
{
	push_staged_free(*staged);
}

/* Takes ARCHIVE over. */
static int stage(struct push_run *run, struct archive *archive)
{
	struct push *push = run->push;
	CLEANUP(staged_cleanup) struct push_staged *staged = calloc(1, sizeof(*staged));

	if (!staged) {
		archive_parsed_free(archive);
		return -ENOMEM;
	}
	staged->archive = archive;
	struct push_plan *plan = &staged->plan;
	int err = push_plan_make(push, archive, plan);
	if (!err)
		push_sending(push, total_bytes(plan));
	for (size_t i = 0; i < plan->ndeliveries && !err; i++) {
		struct push_delivery *delivery = &plan->deliveries[i];
		err = delivery->image->nmanifests ? send_oci(run, plan, delivery)
						  : push_docker(run, delivery);
	}
	if (!err)
		push->staged = STEAL(staged);
	return err;
}

static ssize_t parse_read(void *arg, uint64_t off, void *buf, size_t len)
{
	struct push_run *run = arg;

	return wait_cancelled(run->wait) ? -EINTR : push_archive_read(run, off, buf, len);
}

/* TABLE: what is known already of an archive that was scanned as it came; or NULL. */
static int parse_and_stage(struct push_run *run, struct archive_table *table)
{
	const struct archive_input input = {.pread = parse_read, .arg = run, .size = run->size};
	struct archive *archive;
	char why[200] = "the archive is not finished";

	int err = table ? archive_table_images(table, &input, &archive, why, sizeof(why))
			: archive_parse(&input, &archive, why, sizeof(why));
	if (err == -ENODATA)
		return push_fail(run->why, -EINVAL, "%s", why);
	if (err == -EINVAL)
		return push_fail(run->why, -EINVAL, "the archive cannot be used: %s", why);
	return err ? err : stage(run, archive);
}

static int detect(struct push *push, enum codec *ret)
{
	char magic[CODEC_MAGIC_LEN];

	ssize_t got = pread_full(push->spool, magic, (size_t)MIN(push->size, sizeof(magic)), 0);
	if (got < 0)
		return push_fail_spool(&push->why, (int)got, "reading the spool");
	*ret = codec_detect(magic, (size_t)got);
	return 0;
}

static void free_layers(struct push_run *run)
{
	for (size_t i = 0; i < run->nlayers; i++)
		free(run->layers[i]);
	free(run->layers);
}

/* Brings all blobs to the store, and leaves push->staged. */
static int stage_spool(struct push *push, struct wait *wait)
{
	struct push_run run = {.push = push,
			       .why = &push->why,
			       .wait = wait,
			       .fd = push->spool,
			       .size = push->size};
	AUTO_CLOSE int unpacked = -1;
	enum codec codec = CODEC_PLAIN;

	int err = detect(push, &codec);
	if (!err && codec != CODEC_PLAIN) {
		err = push_spool_unpack(push, codec, push->size, wait, &unpacked, &run.size);
		run.fd = unpacked;
	}
	if (!err)
		err = parse_and_stage(&run, NULL);
	free_layers(&run);
	return err;
}

/* The same for an archive most of which went as it came. */
static int stage_stream(struct push *push, struct push_stream *stream, struct wait *wait)
{
	struct push_run run = {
		.push = push,
		.why = &push->why,
		.wait = wait,
		.stream = stream,
		.fd = stream->data,
	};

	int err = push_stream_settle(stream, push->size, &push->why, wait);
	if (err)
		return err;
	/* It was scanned to its end, behind which nothing is looked at. */
	run.size = UINT64_MAX;
	err = parse_and_stage(&run, stream->table);
	free_layers(&run);
	return err;
}

int push_images(struct push *push, struct wait *wait)
{
	AUTO_STREAM struct push_stream *stream = push_hold_stream(push);
	int64_t begin_ms = now_ms();
	int err = 0;

	if (!push->staged)
		err = stream ? stage_stream(push, stream, wait) : stage_spool(push, wait);
	/* The FLUSH of a killed writer comes just before the INTERRUPT that says so. */
	if (!err && stream)
		err = wait_until(wait, begin_ms + INTERRUPT_MS);
	if (err || push->kept)
		return err;
	err = push_publish(push, push->staged, wait);
	/* Also after a failure, which may be that the registry lost a blob: it is looked at anew.
	 */
	push_staged_free(STEAL(push->staged));
	return err;
}
