/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls every reader of an index with every argument that could be in it, and some that cannot:
 * for the fuzzer and for the unit test that damages a file byte by byte. Only the sanitizers judge.
 */
#ifndef REGFS_INDEX_EXERCISE_H
#define REGFS_INDEX_EXERCISE_H

#include <assert.h>

#include "regfs/index.h"

/* Reads each byte, so that a wild pointer is noticed. */
static inline unsigned touch(const void *data, size_t len)
{
	const volatile uint8_t *at = data;
	unsigned sum = 0;

	for (size_t i = 0; i < len; i++)
		sum += at[i];
	return sum;
}

static inline void exercise_name(const struct index *index, const struct index_name *name)
{
	assert(name->len > 0 && name->len <= 255);
	assert(name->ino < index->info.ninodes && name->dir < index->info.ninodes);
	touch(name->name, name->len);
}

static inline void exercise_dir(const struct index *index, uint32_t ino, uint32_t most)
{
	struct index_inode inode;
	struct index_name name, found;
	char path[4096];
	ssize_t len;

	if (index_inode(index, ino, &inode))
		return;
	for (uint32_t n = 0; n < MIN(inode.nchildren, most); n++) {
		if (index_child(index, ino, n, &name))
			continue;
		exercise_name(index, &name);
		if (!index_lookup(index, ino, name.name, name.len, &found))
			exercise_name(index, &found);
	}
	index_child(index, ino, inode.nchildren, &name);
	index_lookup(index, ino, ".wh.x", 5, &found);
	len = index_path(index, ino, path, sizeof(path));
	assert(len <= (ssize_t)sizeof(path));
	if (len > 0)
		touch(path, (size_t)len);
	index_path(index, ino, path, 3);
}

static inline void exercise_inode(const struct index *index, uint32_t ino, uint32_t most)
{
	struct index_inode inode;
	struct index_name name;
	struct tar_xattr xattr;
	struct tar_extent extent;
	struct index_chunk chunk;
	const char *target;
	size_t len;

	if (index_inode(index, ino, &inode))
		inode = (struct index_inode){};
	for (uint32_t n = 0; n < MIN(inode.nlink, most) + 1; n++) {
		if (!index_name_of(index, ino, n, &name))
			exercise_name(index, &name);
	}
	if (!index_target(index, ino, &target, &len))
		touch(target, len);
	for (uint32_t n = 0; n < most && !index_xattr(index, ino, n, &xattr); n++) {
		touch(xattr.name, strlen(xattr.name));
		touch(xattr.value, xattr.len);
	}
	for (uint32_t n = 0; n < MIN(inode.nextents, most) + 1; n++)
		index_extent(index, &inode, n, &extent);
	for (uint32_t n = 0; n < MIN(inode.nchunks, most) + 1; n++)
		index_chunk(index, &inode, n, &chunk);
	if (inode.nchunks)
		assert(index_chunk_at(index, &inode, inode.size / 2) < inode.nchunks);
	exercise_dir(index, ino, most);
}

/* Of each kind of thing at most MOST are looked at. */
static inline void exercise_index(const struct index *index, uint32_t most)
{
	uint8_t window[CODEC_WINDOW];
	struct codec_point point;
	uint32_t ino;

	for (uint32_t i = 0; i < MIN(index->info.ninodes, most); i++)
		exercise_inode(index, i, most);
	exercise_inode(index, index->info.ninodes, most);
	exercise_inode(index, INDEX_NONE, most);
	for (uint32_t i = 0; i < MIN(index->info.npoints, most) + 1; i++) {
		if (!index_point(index, i, window, &point) && point.window)
			touch(point.window, point.window_len);
		index_point(index, i, NULL, &point);
	}
	for (uint64_t off = 1; off; off <<= 1)
		assert(index_point_before(index, off) < index->info.npoints);
	for (uint32_t i = 0; i < most && !index_link_out(index, i, &ino); i++)
		exercise_inode(index, ino, most);
}

#endif
