// SPDX-License-Identifier: Apache-2.0
/*
 * layer_whole: a file of a layer whose table of contents was no use for it, out of the whole blob.
 * Knows paths: the two indexes number their inodes by themselves. Must not know chunks.
 */
#include <errno.h>
#include <sys/stat.h>

#include "layer_priv.h"
#include "regfs/log.h"

#define PATH_CAP 4096 /* no path in an index is longer */

/* Keeps BEFORE, which FRESH replaces, as long as LAYER. -EAGAIN: something else was there already.
 */
static int whole_replace(struct layer *layer, struct layer *before, struct layer *fresh)
{
	struct whole_before *keep = before ? malloc(sizeof(*keep)) : NULL;

	if (before && !keep)
		return -ENOMEM;
	if (!atomic_compare_exchange_strong(&layer->whole, &before, fresh)) {
		free(keep);
		return -EAGAIN;
	}
	if (!keep)
		return 0;
	pthread_mutex_lock(&layer->layers->lock);
	*keep = (struct whole_before){.layer = before, .next = layer->befores};
	layer->befores = keep;
	pthread_mutex_unlock(&layer->layers->lock);
	return 0;
}

void whole_release(struct layer *layer)
{
	layer_unref(atomic_load(&layer->whole));
	while (layer->befores) {
		struct whole_before *before = layer->befores;

		layer->befores = before->next;
		layer_unref(before->layer);
		free(before);
	}
}

/* The layer without its table: opened once, or again where its index broke, and kept as long as
 * LAYER. WHY (logged) the table does not do; NULL: it does. */
static int whole_open(struct layer *layer, const char *why, struct wait *wait, struct layer **ret)
{
	const struct layer_source *source = &layer->sources[atomic_load(&layer->preferred)];
	const struct blob_id id = {.digest = &layer->digest,
				   .size = layer->size,
				   .store = source->store,
				   .repo = source->repo};
	const struct layer_name name = {.id = &id, .hides = layer->hides};
	struct layer *before = atomic_load(&layer->whole), *whole;
	char text[DIGEST_STR_MAX];

	if (before && !layer_broken(before)) {
		*ret = before;
		return 0;
	}
	int r = layer_open_name(layer->layers, &name, wait, &whole);
	if (r < 0)
		return r;
	r = whole_replace(layer, before, whole);
	if (r < 0) {
		layer_unref(whole);
		*ret = atomic_load(&layer->whole);
		return r == -EAGAIN ? 0 : r;
	}
	layer_log_name(layer, text);
	if (why && !before)
		log_warn("%s/%s: layer %s: its table of contents is used no more, the whole layer "
			 "was fetched: %s",
			 source->store->name, source->repo, text, why);
	if (!before)
		layer_compare(layer, whole);
	*ret = whole;
	return 0;
}

int layer_bring_in(struct layer *layer, struct wait *wait)
{
	struct layer *whole;

	return layer->index.info.by_toc ? whole_open(layer, NULL, wait, &whole) : 0;
}

/* The path of file INO, as one of its names has it. */
static ssize_t path_of(const struct index *index, uint32_t ino, char out[static 2 * PATH_CAP])
{
	struct index_name name;

	int r = index_name_of(index, ino, 0, &name);
	if (r < 0)
		return r;
	ssize_t len = index_path(index, name.dir, out, PATH_CAP);
	if (len < 0)
		return len;
	if (len > 0)
		out[len++] = '/';
	memcpy(out + len, name.name, name.len);
	return len + (ssize_t)name.len;
}

/* The same file in WHOLE: of the same size, or it is not the same. */
static int find_same(const struct layer *layer, uint32_t ino, const struct layer *whole,
		     uint32_t *ret)
{
	char path[2 * PATH_CAP], name[DIGEST_STR_MAX];
	struct index_inode inode, same = {0};
	uint32_t found = 0;

	int r = index_inode(&layer->index, ino, &inode);
	ssize_t len = r < 0 ? r : path_of(&layer->index, ino, path);
	if (len < 0)
		return (int)len;
	r = index_resolve(&whole->index, path, (size_t)len, &found);
	if (r == 0)
		r = index_inode(&whole->index, found, &same);
	if (r == 0 && S_ISREG(same.mode) && same.size == inode.size) {
		*ret = found;
		return 0;
	}
	layer_log_name(layer, name);
	log_error("layer %s: %.*s is not the file that its table of contents says", name,
		  (int)MIN(len, 1024), path);
	return -EIO;
}

int whole_read(struct layer *layer, uint32_t ino, const struct file_read *read, const char *why,
	       struct wait *wait)
{
	struct layer *whole;
	uint32_t same;

	int r = whole_open(layer, why, wait, &whole);
	if (r == 0)
		r = find_same(layer, ino, whole, &same);
	if (r < 0)
		return r;
	ssize_t n = layer_read(whole, same, read->off, read->buf, read->len, wait);
	if (n < 0)
		return (int)n;
	return n == (ssize_t)read->len ? 0 : -EIO;
}
