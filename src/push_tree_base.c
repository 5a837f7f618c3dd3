/* SPDX-License-Identifier: Apache-2.0 */
/*
 * push_tree_base: the image that a tree is built on: found, chosen for the platform, and its blobs
 * brought to where the push goes: within one store by mounting, else through this machine.
 * Must not know how an image is put together.
 */
#include <errno.h>

#include "push_tree_priv.h"
#include "regfs/log.h"

void push_tree_base_release(struct tree_base *base)
{
	image_unref(base->image);
	base->image = NULL;
}

/* --- finding it --- */

static int fail_base(struct push_tree *tree, const char *target, int err, const char *why)
{
	if (err == -ENOMEM || err == -EINTR || err == -EWOULDBLOCK)
		return err;
	if (*why)
		return push_fail(&tree->push->why, -EINVAL, TREE_BASE " -> %s: %s", target, why);
	AUTO_FREE char *what = format(TREE_BASE " -> %s", target);
	return what ? push_fail_errno(&tree->push->why, err, what) : -ENOMEM;
}

/* Of the platform wanted; its manifest is an image's, and its config at hand. */
static int choose(struct image *found, struct wait *wait, struct tree_base *ret,
		  const char **ret_why)
{
	const struct oci_config *config;

	int err = image_platform(found, wait, &ret->image);
	if (err == -ENOENT) {
		*ret_why = "it has no image for the platform (platform=)";
		return -EINVAL;
	}
	if (err)
		return err;
	ret->manifest = image_manifest(ret->image);
	if (!oci_is_image(ret->manifest)) {
		*ret_why = "it is an artifact, not an image";
		return -EINVAL;
	}
	err = image_config(ret->image, wait, &config);
	if (!err)
		err = image_config_bytes(ret->image, wait, &ret->config, &ret->config_len);
	if (!err && config->ndiff_ids != ret->manifest->nlayers) {
		*ret_why = "its config names another number of layers than its manifest";
		err = -EINVAL;
	}
	return err;
}

int push_tree_base_open(struct push_tree *tree, const struct push_base *base, struct wait *wait,
			struct tree_base *ret)
{
	AUTO_INODE struct stage_inode *link = NULL;
	struct image *found = NULL;
	struct tree_base made = {0};
	const char *why = "";

	int err = stage_find(tree->stage, TREE_BASE, &link);
	if (err == -ENOENT)
		return 0;
	if (err)
		return err;
	const char *target = stage_target(link);
	err = base->find(base->arg, target, wait, &found, &why);
	if (!err)
		err = choose(found, wait, &made, &why);
	image_unref(found);
	if (err) {
		push_tree_base_release(&made);
		return fail_base(tree, target, err, why);
	}
	*ret = made;
	return 0;
}

/* --- its blobs --- */

struct below {
	struct push_task task;
	struct push_tree *tree;
	struct push_run *run;
	const struct tree_base *base;
	const struct oci_descriptor *part;
};

/* Into a spool file, verified. */
static int fetch(const struct below *below, struct wait *wait, int *ret_fd)
{
	struct push_tree *tree = below->tree;
	AUTO_CLOSE int fd = push_spool_open(tree->push->pushes->spool_dir);
	struct blob_stream *stream;
	struct blob_id id;
	const void *data;
	off_t off = 0;
	ssize_t got;

	if (fd < 0)
		return push_fail_spool(&tree->push->why, fd, "the spool");
	image_blob_id(below->base->image, below->part, &id);
	int err = blob_stream_open(tree->blobs, &id, wait, &stream);
	if (err)
		return push_fail_errno(&tree->push->why, err, "a layer of " TREE_BASE);
	while ((got = blob_stream_read(stream, &data, wait)) > 0) {
		ssize_t put = pwrite_full(fd, data, (size_t)got, off);
		if (put < 0) {
			blob_stream_close(stream);
			return push_fail_spool(&tree->push->why, (int)put, "a layer of " TREE_BASE);
		}
		off += got;
	}
	blob_stream_close(stream);
	if (got < 0)
		return got == -EINTR ? -EINTR
				     : push_fail_errno(&tree->push->why, (int)got,
						       "a layer of " TREE_BASE);
	*ret_fd = steal_fd(&fd);
	return 0;
}

static int carry(const struct below *below, struct wait *wait)
{
	AUTO_CLOSE int fd = -1;

	int err = fetch(below, wait, &fd);
	if (err)
		return err;
	struct store_file file = {.fd = fd, .len = (uint64_t)below->part->size};
	const struct store_source source = {
		.read = store_file_read, .arg = &file, .size = file.len};
	const struct push_blob blob = {
		.repo = below->run->push->repo,
		.digest = &below->part->digest,
		.source = &source,
		.share = file.len,
	};
	return push_send(below->run, &blob, wait);
}

static int below_run(struct push_task *task, struct wait *wait)
{
	struct below *below = CONTAINER_OF(task, struct below, task);
	struct push *push = below->run->push;
	struct store *store = push->store;
	const char *from = image_repo(below->base->image);
	bool mounts = image_store(below->base->image) == store && strcmp(from, push->repo) != 0;
	const struct store_put put = {
		.digest = &below->part->digest,
		.mount_from = mounts ? from : NULL,
		.answered = &push->answered,
	};

	int err = store_offer(store, push->repo, &put, (uint64_t)below->part->size, wait);
	if (err == -ENOENT)
		return carry(below, wait);
	if (err && err != -EINTR)
		return push_fail_errno(&push->why, err, "a layer of " TREE_BASE);
	if (!err)
		push_progress(push, below->part->size);
	return err;
}

static bool comes_again(const struct oci_manifest *manifest, size_t i)
{
	for (size_t j = 0; j < i; j++) {
		if (digest_equal(&manifest->layers[j].digest, &manifest->layers[i].digest))
			return true;
	}
	return false;
}

int push_tree_base_send(struct push_run *run, struct push_tree *tree, const struct tree_base *base,
			struct wait *wait)
{
	size_t nlayers = base->image ? base->manifest->nlayers : 0, ntasks = 0;
	AUTO_FREE struct below *below = calloc(nlayers + 1, sizeof(*below));
	AUTO_FREE struct push_task **tasks = calloc(nlayers + 1, sizeof(struct push_task *));

	if (!below || !tasks)
		return -ENOMEM;
	for (size_t i = 0; i < nlayers; i++) {
		const struct oci_descriptor *part = &base->manifest->layers[i];
		/* A foreign layer is elsewhere, and stays there. */
		if (part->nurls || comes_again(base->manifest, i))
			continue;
		below[ntasks] = (struct below){{below_run}, tree, run, base, part};
		tasks[ntasks] = &below[ntasks].task;
		ntasks++;
	}
	return push_tasks_run(tree->push->pushes->options.jobs, tasks, ntasks, PUSH_PARALLEL, wait);
}
