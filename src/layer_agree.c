// SPDX-License-Identifier: Apache-2.0
/*
 * layer_agree: whether a ztoc told the truth, now that all of the layer is here.
 * Knows indexes. Must not know where they came from.
 */
#include <sys/stat.h>

#include "layer_priv.h"
#include "regfs/log.h"

static bool same_inode(const struct index_inode *a, const struct index_inode *b)
{
	return a->mode == b->mode && a->uid == b->uid && a->gid == b->gid && a->size == b->size &&
	       a->nlink == b->nlink && a->mtime_sec == b->mtime_sec &&
	       a->rdev_major == b->rdev_major && a->rdev_minor == b->rdev_minor;
}

/* Members in the same order make the same numbers. */
static bool same_file(const struct index *a, const struct index *b, uint32_t ino)
{
	struct index_inode left, right;
	struct index_name name, other;

	if (index_inode(a, ino, &left) < 0 || index_inode(b, ino, &right) < 0 ||
	    !same_inode(&left, &right))
		return false;
	if (ino == INDEX_ROOT)
		return true;
	for (uint32_t n = 0; n < (S_ISDIR(left.mode) ? 1 : left.nlink); n++)
		if (index_name_of(a, ino, n, &name) < 0 || index_name_of(b, ino, n, &other) < 0 ||
		    name.dir != other.dir || name.len != other.len ||
		    memcmp(name.name, other.name, name.len) != 0)
			return false;
	return true;
}

static bool agree(const struct index *a, const struct index *b)
{
	bool same = a->info.ninodes == b->info.ninodes && a->info.nnames == b->info.nnames;

	for (uint32_t ino = 0; same && ino < a->info.ninodes; ino++)
		same = same_file(a, b, ino);
	return same;
}

void layer_compare(const struct layer *layer, const struct layer *whole)
{
	char name[DIGEST_STR_MAX];

	if (!layer->index.info.by_spans || agree(&layer->index, &whole->index))
		return;
	layer_log_name(layer, name);
	log_error("layer %s: its SOCI index tells of other files than the layer has: they are seen "
		  "as they are from the next mount on",
		  name);
}
