/* SPDX-License-Identifier: Apache-2.0 */
/*
 * push_tree_build: an image out of rootfs/, base and config.json: its layer, config and manifest.
 * Must not know how a tar or a config is written.
 */
#include <errno.h>
#include <time.h>

#include "push_tree_priv.h"

#define CREATED_MAX 32

/* What the image is made of. */
struct build {
	struct push_tree *tree;
	struct push_run run;
	struct tree_base base; /* .image NULL: none */
	struct tree_tar *tar;  /* NULL: no layer more */
	struct push_layer layer;
	struct buf config;
	struct oci_descriptor config_part;
};

static void build_release(struct build *build)
{
	push_tree_base_release(&build->base);
	buf_release(&build->config);
	push_tree_tar_free(build->tar);
}

/* --- the layer --- */

/* Without files of its own an image on a base has no layer more. */
static int make_tar(struct build *build, struct wait *wait)
{
	AUTO_INODE struct stage_inode *root = NULL;
	struct push_tree *tree = build->tree;

	int err = stage_find(tree->stage, TREE_ROOTFS, &root);
	if (err == -ENOENT && build->base.image)
		return 0;
	if (err == -ENOENT)
		return push_fail(&tree->push->why, -EINVAL, "there is neither rootfs/ nor base");
	if (!err && stage_is_empty(root) && build->base.image)
		return 0;
	if (!err)
		err = push_tree_tar_new(tree, root, wait, &build->tar);
	if (err)
		return err;
	build->run.source = push_tree_tar_source(build->tar);
	build->run.size = build->layer.at.len = build->run.source->size;
	build->layer.diff_id.algo = DIGEST_SHA256; /* its bytes are found as they are sent */
	build->layer.number = 1;
	return 0;
}

struct side {
	struct push_task task;
	struct build *build;
};

static int run_layer(struct push_task *task, struct wait *wait)
{
	struct build *build = CONTAINER_OF(task, struct side, task)->build;

	if (!build->tar)
		return 0;
	return push_layer_send(&build->run, &build->layer, build->tree->push->repo, wait);
}

static int run_base(struct push_task *task, struct wait *wait)
{
	struct build *build = CONTAINER_OF(task, struct side, task)->build;

	return push_tree_base_send(&build->run, build->tree, &build->base, wait);
}

/* The new layer, and those below, side by side. */
static int send_layers(struct build *build)
{
	struct side layer = {{run_layer}, build}, base = {{run_base}, build};
	struct push_task *const tasks[] = {&layer.task, &base.task};

	return push_tasks_run(build->tree->push->pushes->options.jobs, tasks, ARRAY_SIZE(tasks),
			      ARRAY_SIZE(tasks), build->run.wait);
}

/* --- the config --- */

static void format_time(int64_t sec, char out[static CREATED_MAX])
{
	time_t when = (time_t)sec;
	struct tm tm;

	if (!gmtime_r(&when, &tm) || !strftime(out, CREATED_MAX, "%Y-%m-%dT%H:%M:%SZ", &tm))
		snprintf(out, CREATED_MAX, "1970-01-01T00:00:00Z");
}

static int read_wishes(struct push_tree *tree, struct buf *ret)
{
	AUTO_INODE struct stage_inode *file = NULL;

	int err = stage_find(tree->stage, TREE_CONFIG, &file);
	if (!err)
		err = push_tree_read(file, OCI_CONFIG_MAX, ret);
	if (err == -EFBIG)
		return push_fail(&tree->push->why, -EINVAL, TREE_CONFIG " is larger than %d MiB",
				 OCI_CONFIG_MAX / MIB);
	return err == -ENOENT ? 0 : err;
}

static int make_config(struct build *build)
{
	AUTO_BUF struct buf wishes = BUF_INIT(OCI_CONFIG_MAX + 1);
	struct push *push = build->tree->push;
	const int64_t *date = push->pushes->options.source_date;
	AUTO_FREE char *created_by = format("regfs: _push/%s", push->tag);
	char created[CREATED_MAX];
	const char *why = "";

	format_time(date ? *date : wall_ms() / 1000, created);
	int err = read_wishes(build->tree, &wishes);
	if (err || !created_by)
		return err ? err : -ENOMEM;
	const struct oci_build parts = {
		.base = build->base.config,
		.base_len = build->base.config_len,
		.given = wishes.data,
		.given_len = wishes.len,
		.platform = build->tree->platform,
		.diff_id = build->tar ? &build->layer.diff_id : NULL,
		.created = created,
		.created_by = created_by,
	};
	buf_clear(&build->config);
	err = oci_config_build(&parts, &build->config, &why);
	if (err == -EINVAL)
		return push_fail(&push->why, err, TREE_CONFIG " cannot be used: %s", why);
	build->config_part.media_type = (char *)OCI_TYPE_CONFIG;
	build->config_part.size = (int64_t)build->config.len;
	digest_of(DIGEST_SHA256, build->config.data, build->config.len, &build->config_part.digest);
	return err;
}

/* --- the manifest --- */

/* Docker's types and OCI's do not mix; the bytes are the same. */
static const char *oci_type_of(const char *type)
{
	if (!strcmp(type, DOCKER_TYPE_LAYER_GZIP))
		return OCI_TYPE_LAYER_GZIP;
	return !strcmp(type, DOCKER_TYPE_LAYER) ? OCI_TYPE_LAYER : type;
}

static int put_manifest(struct build *build)
{
	static const char *const types[] = {
		[CODEC_PLAIN] = OCI_TYPE_LAYER,
		[CODEC_GZIP] = OCI_TYPE_LAYER_GZIP,
		[CODEC_ZSTD] = OCI_TYPE_LAYER_ZSTD,
	};
	AUTO_BUF struct buf text = BUF_INIT(OCI_MANIFEST_MAX);
	size_t nbelow = build->base.image ? build->base.manifest->nlayers : 0;
	AUTO_FREE struct oci_descriptor *layers = calloc(nbelow + 1, sizeof(*layers));
	struct archive_document document = {.media_type = (char *)OCI_TYPE_MANIFEST};

	if (!layers)
		return -ENOMEM;
	for (size_t i = 0; i < nbelow; i++) {
		layers[i] = build->base.manifest->layers[i]; /* borrowed */
		layers[i].media_type = (char *)oci_type_of(layers[i].media_type);
	}
	layers[nbelow] = (struct oci_descriptor){
		.media_type = (char *)types[build->layer.codec],
		.digest = build->layer.digest,
		.size = (int64_t)build->layer.size,
	};
	int err = oci_manifest_write(OCI_TYPE_MANIFEST, &build->config_part, layers,
				     nbelow + !!build->tar, &text);
	if (err)
		return err;
	document.bytes = text.data;
	document.len = text.len;
	return push_manifest(build->tree->push, build->tree->push->tag, &document, build->run.wait);
}

static uint64_t bytes_below(const struct tree_base *base)
{
	uint64_t bytes = 0;

	for (size_t i = 0; base->image && i < base->manifest->nlayers; i++)
		bytes += (uint64_t)base->manifest->layers[i].size;
	return bytes;
}

int push_tree_build(struct push_tree *tree, const struct push_base *base, struct wait *wait)
{
	CLEANUP(build_release)
	struct build build = {
		.tree = tree,
		.run = {.push = tree->push, .why = &tree->push->why, .wait = wait, .fd = -1},
		.config = BUF_INIT(OCI_CONFIG_MAX),
	};

	int err = push_tree_base_open(tree, base, wait, &build.base);
	if (!err)
		err = make_tar(&build, wait);
	/* What is wrong with it is said before anything travels. */
	if (!err)
		err = make_config(&build);
	if (err)
		return err;
	push_sending(tree->push, build.layer.at.len + bytes_below(&build.base) + build.config.len);
	err = send_layers(&build);
	if (!err)
		err = make_config(&build);
	if (!err)
		err = push_tree_send_bytes(&build.run, build.config.data, build.config.len,
					   &build.config_part.digest);
	return err ? err : put_manifest(&build);
}
