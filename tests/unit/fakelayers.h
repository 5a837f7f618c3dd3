/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fakelayers: a stack of layers made of scripts, and a rootfs over it.
 *
 * Defines what rootfs uses of the layer room, so that room's object is not linked; for
 * one file of a test only. A file's eight bytes are its data_off.
 */
#ifndef REGFS_TEST_FAKELAYERS_H
#define REGFS_TEST_FAKELAYERS_H

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>

#include "regfs/rootfs.h"
#include "script.h"

#define STACK_MAX 16

struct layer {
	struct index index;
	struct buf file;
	atomic_int refs;
	atomic_bool broken;
	uint64_t numbering;
};

static inline struct layer *stack_ref(struct layer *layer)
{
	atomic_fetch_add(&layer->refs, 1);
	return layer;
}

void layer_unref(struct layer *layer)
{
	if (layer)
		atomic_fetch_sub(&layer->refs, 1);
}

const struct index *layer_index(const struct layer *layer)
{
	return &layer->index;
}

bool layer_broken(const struct layer *layer)
{
	return atomic_load(&layer->broken);
}

bool layer_recheck(const struct layer *layer)
{
	return layer_broken(layer);
}

uint64_t layer_numbering(const struct layer *layer)
{
	return layer->numbering;
}

ssize_t layer_read(struct layer *layer, uint32_t ino, uint64_t off, void *buf, size_t len,
		   struct wait *wait)
{
	struct index_inode inode;
	int err = index_inode(&layer->index, ino, &inode);

	(void)wait;
	if (err)
		return err;
	if (off >= inode.size)
		return 0;
	len = MIN(len, inode.size - off);
	memcpy(buf, (const char *)&inode.data_off + off, len);
	return (ssize_t)len;
}

int64_t layer_seek(struct layer *layer, uint32_t ino, uint64_t off, int whence)
{
	struct index_inode inode;
	int err = index_inode(&layer->index, ino, &inode);

	if (err)
		return err;
	if (off >= inode.size)
		return -ENXIO;
	return whence == SEEK_HOLE ? (int64_t)inode.size : (int64_t)off;
}

/* No file of these lies on a disk. */
int layer_backing(struct layer *layer, uint32_t ino, struct wait *wait)
{
	(void)layer, (void)ino, (void)wait;
	return -ENOENT;
}

int layer_make_backing(struct layer *layer, uint32_t ino, struct wait *wait)
{
	(void)layer, (void)ino, (void)wait;
	return -ENOENT;
}

struct stack {
	struct layer layers[STACK_MAX];
	unsigned nlayers;
	struct rootfs *rootfs;
	struct wait wait;
	/* bits by layer; closed: not to be had without waiting */
	atomic_uint opened, prepared, closed;
	bool coming; /* who asked for a closed one in vain gets it the next time */
};

static inline int stack_open(void *arg, unsigned n, struct wait *wait, struct layer **ret)
{
	struct stack *stack = arg;

	if (atomic_load(&stack->closed) & 1u << n && !wait_may_block(wait)) {
		if (stack->coming)
			atomic_fetch_and(&stack->closed, ~(1u << n));
		return -EWOULDBLOCK;
	}
	if (wait_cancelled(wait))
		return -EINTR;
	atomic_fetch_or(&stack->opened, 1u << n);
	*ret = stack_ref(&stack->layers[n]);
	return 0;
}

static inline void stack_prepare(void *arg, unsigned n)
{
	struct stack *stack = arg;

	atomic_fetch_or(&stack->prepared, 1u << n);
}

static inline void stack_release(struct stack *stack)
{
	rootfs_free(stack->rootfs);
	for (unsigned i = 0; i < stack->nlayers; i++) {
		assert(atomic_load(&stack->layers[i].refs) == 0);
		buf_release(&stack->layers[i].file);
	}
	wait_release(&stack->wait);
}
#define AUTO_STACK CLEANUP(stack_release)

/* Takes BUILDER. */
static inline void stack_add(struct stack *stack, struct index_builder *builder)
{
	struct layer *layer = &stack->layers[stack->nlayers++];
	struct index_info info = {};
	int err;

	assert(stack->nlayers <= STACK_MAX);
	layer->file.max = 64 * MIB;
	layer->numbering = 1;
	err = index_builder_finish(builder, &info, &layer->file);
	if (!err)
		err = index_open(layer->file.data, layer->file.len, &layer->index);
	assert(!err);
	index_builder_free(builder);
}

static inline void stack_begin(struct stack *stack)
{
	memset(stack, 0, sizeof(*stack));
	wait_init(&stack->wait, true);
}

static inline void stack_mount(struct stack *stack, bool raw)
{
	static const uint8_t identity[DIGEST_KEY_LEN] = {1};
	struct rootfs_options options = {
		.nlayers = stack->nlayers,
		.raw = raw,
		.created_sec = 777,
		.created_nsec = 7,
		.identity = identity,
		.layer = stack_open,
		.prepare = stack_prepare,
		.arg = stack,
	};
	int err = rootfs_new(&options, &stack->rootfs);

	assert(!err);
}

/* Layers are separated by "|", the bottom first. */
static inline void stack_script(struct stack *stack, const char *script)
{
	AUTO_FREE char *copy = strdup(script);
	char *rest = copy, *layer;

	while ((layer = strsep(&rest, "|"))) {
		struct index_builder *builder = index_builder_new();
		int err = builder ? script_add(builder, layer) : -ENOMEM;
		assert(!err);
		stack_add(stack, builder);
	}
}

static inline void stack_init(struct stack *stack, const char *script, bool raw)
{
	stack_begin(stack);
	stack_script(stack, script);
	stack_mount(stack, raw);
}

#endif
