/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An image of docker save: no manifest, a config that names the layers by their diff IDs, and
 * layers that are not compressed. The config is sent as it is: its digest, the image's ID, stays.
 * Knows configs and manifests. Must not know how a layer is compressed.
 */
#include <errno.h>

#include "push_priv.h"

/* The layer of DIFF_ID among those that are known, or a new one. NULL when memory is short. */
static struct push_layer *find_layer(struct push_run *run, const struct digest *diff_id)
{
	for (size_t i = 0; i < run->nlayers; i++) {
		if (digest_equal(&run->layers[i]->diff_id, diff_id))
			return run->layers[i];
	}
	struct push_layer **layers = reallocarray(run->layers, run->nlayers + 1,
						  sizeof(struct push_layer *));
	if (!layers)
		return NULL;
	run->layers = layers;
	struct push_layer *layer = calloc(1, sizeof(*layer));
	if (layer) {
		layer->diff_id = *diff_id;
		run->layers[run->nlayers++] = layer;
	}
	return layer;
}

struct layer_task {
	struct push_task task;
	struct push_run *run;
	struct push_layer *layer;
	const char *repo;
};

static int layer_run(struct push_task *task, struct wait *wait)
{
	struct layer_task *layer = CONTAINER_OF(task, struct layer_task, task);

	return push_layer_send(layer->run, layer->layer, layer->repo, wait);
}

/* If the layer went while the archive was written, it is where it has to be, and known. */
static int claim_layer(struct push_run *run, const struct push_delivery *delivery,
		       struct push_layer *layer)
{
	struct push_part *sent;

	int err = push_part_find(run, &layer->at, &sent);
	if (err)
		return err == -ENOENT ? 0 : err;
	if (sent->inside.flaw)
		return push_fail(run->why, -EINVAL, "layer %u cannot be unpacked: %s",
				 layer->number, sent->inside.flaw);
	bool known = sent->layer.diff_id.algo != DIGEST_NONE; /* else it is to be believed */
	err = known ? push_layer_check(run, layer, &sent->layer.diff_id) : 0;
	if (err)
		return err;
	layer->digest = sent->layer.digest;
	layer->size = sent->layer.size;
	layer->codec = sent->layer.codec;
	layer->repo = delivery->repo;
	layer->streamed = true;
	return 0;
}

/* The image's layers, bottom first, each found among the run's. */
static int collect_layers(struct push_run *run, const struct push_delivery *delivery,
			  const struct oci_config *config, struct push_layer **layers)
{
	const struct archive_image *image = delivery->image;
	size_t nlayers = image->nblobs - 1;

	if (config->ndiff_ids != nlayers)
		return push_fail(run->why, -EINVAL,
				 "the archive has %zu layers, the image's config names %zu",
				 nlayers, config->ndiff_ids);
	int err = 0;
	for (size_t i = 0; i < nlayers && !err; i++) {
		layers[i] = find_layer(run, &config->diff_ids[i]);
		if (!layers[i])
			return -ENOMEM;
		if (layers[i]->number)
			continue;
		layers[i]->number = (unsigned)i + 1;
		layers[i]->at = image->blobs[1 + i].at;
		err = claim_layer(run, delivery, layers[i]);
	}
	return err;
}

/* A layer that comes again, in this image or an earlier one, is where it has to be. */
static bool comes_again(struct push_layer *const *layers, size_t i, const char *repo)
{
	for (size_t j = 0; j < i; j++) {
		if (layers[j] == layers[i])
			return true;
	}
	return layers[i]->repo && !strcmp(layers[i]->repo, repo);
}

static int send_layers(struct push_run *run, const struct push_delivery *delivery,
		       struct push_layer *const *layers, size_t nlayers)
{
	AUTO_FREE struct layer_task *sends = calloc(nlayers + 1, sizeof(*sends));
	AUTO_FREE struct push_task **tasks = calloc(nlayers + 1, sizeof(struct push_task *));
	size_t ntasks = 0;

	if (!sends || !tasks)
		return -ENOMEM;
	for (size_t i = 0; i < nlayers; i++) {
		if (comes_again(layers, i, delivery->repo)) {
			if (!layers[i]->streamed)
				push_progress(run->push,
					      (int64_t)delivery->image->blobs[1 + i].at.len);
			continue;
		}
		sends[ntasks] = (struct layer_task){
			.task = {layer_run},
			.run = run,
			.layer = layers[i],
			.repo = delivery->repo,
		};
		tasks[ntasks] = &sends[ntasks].task;
		ntasks++;
	}
	return push_tasks_run(run->push->pushes->options.jobs, tasks, ntasks, PUSH_PARALLEL,
			      run->wait);
}

struct types {
	const char *manifest, *config;
	const char *layers[3]; /* by codec */
};

/* Docker's own types know no zstd. They do not mix with OCI's: the config's bytes are the same. */
static const struct types *choose_types(const struct store *store, struct push_layer *const *layers,
					size_t nlayers)
{
	static const struct types docker = {
		.manifest = DOCKER_TYPE_MANIFEST,
		.config = DOCKER_TYPE_CONFIG,
		.layers = {DOCKER_TYPE_LAYER, DOCKER_TYPE_LAYER_GZIP, NULL},
	};
	static const struct types oci = {
		.manifest = OCI_TYPE_MANIFEST,
		.config = OCI_TYPE_CONFIG,
		.layers = {OCI_TYPE_LAYER, OCI_TYPE_LAYER_GZIP, OCI_TYPE_LAYER_ZSTD},
	};

	bool needs_oci = store->ops->oci_types;
	for (size_t i = 0; i < nlayers; i++)
		needs_oci = needs_oci || layers[i]->codec == CODEC_ZSTD;
	return needs_oci ? &oci : &docker;
}

/* CONFIG has its digest and size. */
static int make_manifest(const struct store *store, struct push_delivery *delivery,
			 struct oci_descriptor *config, struct push_layer *const *layers,
			 size_t nlayers)
{
	const struct types *types = choose_types(store, layers, nlayers);
	AUTO_FREE struct oci_descriptor *parts = calloc(nlayers + 1, sizeof(*parts));

	if (!parts)
		return -ENOMEM;
	config->media_type = (char *)types->config;
	for (size_t i = 0; i < nlayers; i++) {
		parts[i].media_type = (char *)types->layers[layers[i]->codec];
		parts[i].digest = layers[i]->digest;
		parts[i].size = (int64_t)layers[i]->size;
	}
	delivery->media_type = types->manifest;
	buf_clear(&delivery->manifest);
	return oci_manifest_write(types->manifest, config, parts, nlayers, &delivery->manifest);
}

static int send_config(struct push_run *run, const char *repo, const struct buf *bytes,
		       const struct digest *digest)
{
	struct store_bytes data = {.data = bytes->data, .len = bytes->len};
	const struct store_source source = {
		.read = store_bytes_read, .arg = &data, .size = bytes->len};
	const struct push_blob blob = {
		.repo = repo, .digest = digest, .source = &source, .share = bytes->len};

	return push_send(run, &blob, run->wait);
}

int push_docker(struct push_run *run, struct push_delivery *delivery)
{
	AUTO_BUF struct buf bytes = BUF_INIT(OCI_CONFIG_MAX + 1);
	CLEANUP(oci_config_release) struct oci_config config = {0};
	AUTO_FREE struct push_layer **layers = NULL;
	struct oci_descriptor part = {0};
	const char *why = "";

	if (delivery->image->nblobs == 0)
		return push_fail(run->why, -EINVAL, "the archive's image has no config");
	size_t nlayers = delivery->image->nblobs - 1;
	int err = push_archive_config(run, &delivery->image->blobs[0].at, &bytes);
	if (err)
		return err;
	err = oci_config_parse(bytes.data, bytes.len, &config, &why);
	if (err)
		return err == -ENOMEM ? err
				      : push_fail(run->why, -EINVAL,
						  "the image's config cannot be used: %s", why);
	layers = calloc(nlayers + 1, sizeof(struct push_layer *));
	if (!layers)
		return -ENOMEM;
	err = collect_layers(run, delivery, &config, layers);
	if (!err)
		err = send_layers(run, delivery, layers, nlayers);
	part.size = (int64_t)bytes.len;
	digest_of(DIGEST_SHA256, bytes.data, bytes.len, &part.digest);
	if (!err)
		err = send_config(run, delivery->repo, &bytes, &part.digest);
	return err ? err : make_manifest(run->push->store, delivery, &part, layers, nlayers);
}
