// SPDX-License-Identifier: Apache-2.0
/*
 * rootfs, paths: what one layer says of a path, and what the merge makes of it.
 * Knows whiteouts. Must not know links between layers, nor caches but by name.
 */
#include <errno.h>
#include <limits.h>

#include "rootfs_priv.h"

bool rootfs_hidden_name(const char *name, size_t len)
{
	return len >= WHITEOUT_PREFIX_LEN &&
	       memcmp(name, WHITEOUT_PREFIX, WHITEOUT_PREFIX_LEN) == 0;
}

/* 1 if DIR has it, 0 if not. */
static int has_name(const struct index *index, uint32_t dir, const char *name, size_t len)
{
	struct index_name unused;
	int err = index_lookup(index, dir, name, len, &unused);

	if (err == -ENOENT)
		return 0;
	return err ? err : 1;
}

/* 1 if this layer's DIR hides all that lower layers have in it. */
static int is_opaque(const struct index *index, uint32_t dir, const struct index_inode *inode)
{
	if (!(inode->flags & INDEX_WHITEOUTS))
		return 0;
	return has_name(index, dir, WHITEOUT_OPAQUE, strlen(WHITEOUT_OPAQUE));
}

/* 1 if this layer's DIR hides NAME of lower layers. */
static int is_whited_out(const struct index *index, uint32_t dir, const char *name, size_t len)
{
	char whiteout[NAME_MAX + 1];

	if (WHITEOUT_PREFIX_LEN + len > sizeof(whiteout))
		return 0;
	memcpy(whiteout, WHITEOUT_PREFIX, WHITEOUT_PREFIX_LEN);
	memcpy(whiteout + WHITEOUT_PREFIX_LEN, name, len);
	return has_name(index, dir, whiteout, WHITEOUT_PREFIX_LEN + len);
}

/* ANSWER for NODE, which stands for the name asked for. */
static int answer_node(const struct index *index, struct rootfs_node node,
		       struct layer_answer *answer)
{
	struct index_inode inode;
	int r = index_inode(index, node.ino, &inode);

	if (r)
		return r;
	answer->node = node;
	if (!S_ISDIR(inode.mode)) {
		answer->says = SAYS_OTHER;
		answer->link_out = inode.flags & INDEX_LINK_OUT;
		answer->cut = true;
		return 0;
	}
	answer->says = SAYS_DIR;
	r = is_opaque(index, node.ino, &inode);
	if (r < 0)
		return r;
	answer->opaque = r;
	return 0;
}

int rootfs_ask_name(const struct index *index, struct rootfs_node dir, const char *name, size_t len,
		    struct layer_answer *ret)
{
	struct layer_answer answer = {.says = SAYS_NOTHING};
	struct index_inode inode;
	struct index_name found;
	int r = index_inode(index, dir.ino, &inode);

	if (r)
		return r;
	if (inode.flags & INDEX_WHITEOUTS) {
		r = is_whited_out(index, dir.ino, name, len);
		if (r < 0)
			return r;
		answer.cut = r;
	}
	r = index_lookup(index, dir.ino, name, len, &found);
	if (!r) {
		dir.ino = found.ino;
		r = answer_node(index, dir, &answer);
	}
	if (r && r != -ENOENT)
		return r;
	*ret = answer;
	return 0;
}

/* What LAYER says of a whole path. What hides a part of the path cuts all that is below it. */
static int ask_path(const struct rootfs_state *state, unsigned layer, const char *path, size_t len,
		    struct layer_answer *ret)
{
	struct layer_answer answer = {};
	const char *at = path, *end = path + len;
	const struct index *index;
	bool cut = false;
	int err = rootfs_index(state->rootfs, layer, state->wait, &index);

	if (!err)
		err = answer_node(index, (struct rootfs_node){.layer = (uint16_t)layer}, &answer);
	while (!err && at < end && answer.says == SAYS_DIR) {
		const char *slash = memchr(at, '/', (size_t)(end - at));
		size_t name_len = (size_t)((slash ? slash : end) - at);
		size_t parent_end = answer.end;

		cut = cut || answer.cut || answer.opaque;
		if (rootfs_hidden_name(at, name_len))
			answer = (struct layer_answer){.says = SAYS_NOTHING, .cut = true};
		else
			err = rootfs_ask_name(index, answer.node, at, name_len, &answer);
		at += name_len;
		answer.end = answer.says == SAYS_NOTHING ? parent_end : (size_t)(at - path);
		at += at < end;
	}
	if (err)
		return err;
	answer.cut = answer.cut || cut;
	*ret = answer;
	return 0;
}

/* --- merged directories --- */

/* The path that all parts of SET have. */
static ssize_t dir_path(const struct dirset *set, struct wait *wait, char path[static ROOTFS_PATH])
{
	const struct index *index;
	ssize_t len;
	int err;

	if (set->dir.layer == ROOTFS_ROOT_LAYER)
		return 0;
	err = rootfs_index(set->rootfs, set->dir.layer, wait, &index);
	if (err)
		return err;
	len = index_path(index, set->dir.ino, path, ROOTFS_PATH);
	return len == -ENAMETOOLONG ? -EIO : len;
}

int rootfs_dirset_grow(struct dirset *set, struct wait *wait)
{
	const struct rootfs_state state = {.rootfs = set->rootfs, .wait = wait};
	char path[ROOTFS_PATH];
	struct layer_answer answer;
	ssize_t len;
	int err;

	if (set->next < 0)
		return 0;
	len = dir_path(set, wait, path);
	if (len < 0)
		return (int)len;
	while (set->next >= 0) {
		err = ask_path(&state, (unsigned)set->next, path, (size_t)len, &answer);
		if (err)
			return err;
		set->next--;
		if (answer.opaque && !answer.cut)
			set->below = set->next;
		if (answer.cut || answer.opaque)
			set->next = -1;
		if (answer.says != SAYS_DIR)
			continue;
		set->parts[set->n++] = answer.node;
		return 0;
	}
	return 0;
}

int rootfs_dirset_buried(const struct dirset *set, struct wait *wait, struct rootfs_node *ret)
{
	const struct rootfs_state state = {.rootfs = set->rootfs, .wait = wait};
	char path[ROOTFS_PATH];
	const struct index *index;
	struct layer_answer answer = {};
	struct index_inode inode;
	ssize_t len = dir_path(set, wait, path);
	int err;

	if (len < 0)
		return (int)len;
	for (int layer = set->below; layer >= 0 && !answer.cut; layer--) {
		err = ask_path(&state, (unsigned)layer, path, (size_t)len, &answer);
		if (!err && answer.says != SAYS_DIR)
			continue;
		if (!err)
			err = rootfs_index(set->rootfs, (unsigned)layer, wait, &index);
		if (!err)
			err = index_inode(index, answer.node.ino, &inode);
		if (err)
			return err;
		if (!(inode.flags & INDEX_IMPLICIT)) {
			*ret = answer.node;
			return 0;
		}
	}
	return 1;
}

int rootfs_dirset(struct rootfs *rootfs, struct rootfs_node dir, struct wait *wait,
		  struct dirset *ret)
{
	const struct index *index;
	struct index_inode inode;
	int err;

	if (dir.layer == ROOTFS_ROOT_LAYER && (rootfs->options.raw || rootfs->options.overlay))
		dir = (struct rootfs_node){
			.layer = (uint16_t)(rootfs->options.nlayers - 1),
			.ino = INDEX_ROOT,
		};
	ret->rootfs = rootfs;
	ret->dir = dir;
	ret->n = 0;
	ret->subdirs = INDEX_NONE;
	ret->below = -1;
	ret->next = (int)rootfs->options.nlayers - 1;
	if (dir.layer == ROOTFS_ROOT_LAYER) {
		(void)rootfs_cache_dir(rootfs->cache, ret);
		return 0;
	}

	/* The node may be anything, so look before asking the cache. */
	err = rootfs_index(rootfs, dir.layer, wait, &index);
	if (!err)
		err = index_inode(index, dir.ino, &inode);
	if (err)
		return err;
	if (!S_ISDIR(inode.mode))
		return -ENOTDIR;
	if (dir.layer == 0) {
		ret->parts[ret->n++] = dir;
		ret->next = -1;
		return 0;
	}
	if (rootfs_cache_dir(rootfs->cache, ret))
		return 0;
	ret->next = dir.layer;
	err = rootfs_dirset_grow(ret, wait);
	if (!err)
		rootfs_cache_put_dir(rootfs->cache, ret);
	return err;
}

/* --- paths in the merge --- */

int rootfs_find(const struct rootfs_state *state, const char *path, size_t len,
		struct layer_answer *ret)
{
	struct layer_answer answer;
	size_t known = 0; /* bytes of the path that are directories of upper layers */
	int err;

	for (unsigned layer = state->top; layer-- > state->bottom;) {
		err = ask_path(state, layer, path, len, &answer);
		if (err)
			return err;
		if (answer.says == SAYS_DIR || (answer.says == SAYS_OTHER && answer.end > known)) {
			*ret = answer;
			return 0;
		}
		if (answer.cut)
			return -ENOENT;
		known = MAX(known, answer.end);
	}
	if (state->bottom == 0)
		return -ENOENT;
	*ret = (struct layer_answer){.node.layer = LINK_BELOW};
	return 0;
}
