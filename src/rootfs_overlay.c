// SPDX-License-Identifier: Apache-2.0
/*
 * rootfs, overlay: the topmost layer by itself, in the form that the kernel's overlayfs stacks
 * (kernel documentation, filesystems/overlayfs, "whiteouts and opaque directories"): a deleted name
 * is a character device 0/0, a directory that hides what is below it has an attribute.
 * Knows whiteouts of both kinds. Must not know where layers come from.
 *
 * Overlayfs has no directories that nobody named and no links out of a layer: such a directory
 * shows the attributes it has in the merge with the layers below, such a link is the file it leads
 * to. And it lists the whiteouts of a directory that it has nothing to merge with as broken names,
 * so those are left out.
 */
#include <errno.h>
#include <limits.h>

#include "rootfs_priv.h"

static unsigned top_of(const struct rootfs *rootfs)
{
	return rootfs->options.nlayers - 1;
}

static int top_index(struct rootfs *rootfs, struct wait *wait, const struct index **ret)
{
	return rootfs_index(rootfs, top_of(rootfs), wait, ret);
}

/* ---- directories ---- */

/* 1 if directory DIR of the layer hides what lower layers have in it. */
static int hides_below(const struct index *index, uint32_t dir)
{
	struct rootfs_node parent = {0};
	struct layer_answer answer;
	struct index_name name;
	int err = index_lookup(index, dir, WHITEOUT_OPAQUE, strlen(WHITEOUT_OPAQUE), &name);

	if (err != -ENOENT)
		return err ? err : 1;
	if (dir == INDEX_ROOT)
		return 0;
	err = index_name_of(index, dir, 0, &name);
	if (err)
		return err;
	parent.ino = name.dir;
	err = rootfs_ask_name(index, parent, name.name, name.len, &answer);
	return err ? err : answer.cut;
}

/* 1 if NODE is a directory that hides what is below it, else 0. */
static int rootfs_overlay_opaque(struct rootfs *rootfs, struct rootfs_node node, struct wait *wait)
{
	const struct index *index;
	struct index_inode inode;
	int err = top_index(rootfs, wait, &index);

	if (err || rootfs_is_whiteout(rootfs, node))
		return err;
	if (node.layer == ROOTFS_ROOT_LAYER)
		node = (struct rootfs_node){.layer = (uint16_t)top_of(rootfs), .ino = INDEX_ROOT};
	if (node.layer != top_of(rootfs))
		return 0;
	err = index_inode(index, node.ino, &inode);
	if (err || !S_ISDIR(inode.mode))
		return err;
	return hides_below(index, node.ino);
}

/* 1 if the merge goes on below the directory of SET: only then its whiteouts mean something. */
static int has_below(struct dirset *set, struct wait *wait)
{
	const struct index *index;
	int next = set->next;
	int r = top_index(set->rootfs, wait, &index);

	if (!r)
		r = hides_below(index, set->parts[0].ino);
	if (r)
		return r < 0 ? r : 0;
	if (set->n < 2)
		r = rootfs_dirset_grow(set, wait);
	if (set->next != next)
		rootfs_cache_put_dir(set->rootfs->cache, set);
	return r ? r : set->n > 1;
}

/* ---- names ---- */

static struct rootfs_node whiteout_node(const struct rootfs *rootfs, uint32_t ino)
{
	return (struct rootfs_node){
		.layer = (uint16_t)top_of(rootfs),
		.ino = ino | ROOTFS_WHITEOUT_BIT,
	};
}

/* A whiteout by inode INO: 1, or 0 where there is nothing to hide. */
static int show_whiteout(struct dirset *set, uint32_t ino, struct wait *wait,
			 struct rootfs_node *ret)
{
	int r = has_below(set, wait);

	if (r > 0)
		*ret = whiteout_node(set->rootfs, ino);
	return r;
}

/* The node of a NAME that the layer has, and that is no whiteout: 1; 0: not to be shown. */
static int show_name(struct dirset *set, const struct index *index, const struct index_name *name,
		     struct wait *wait, struct rootfs_node *ret)
{
	struct rootfs_node node = {.layer = (uint16_t)top_of(set->rootfs), .ino = name->ino};
	struct index_inode inode;
	int err = index_inode(index, name->ino, &inode);

	if (err)
		return err;
	if (!(inode.flags & INDEX_LINK_OUT)) {
		*ret = node;
		return 1;
	}
	err = rootfs_follow_link(set->rootfs, node, wait, ret);
	/* one that leads nowhere hides what it stands over */
	if (err == -ENOENT)
		return show_whiteout(set, name->ino, wait, ret);
	return err ? err : 1;
}

int rootfs_overlay_lookup(struct dirset *set, const char *name, size_t len, struct wait *wait,
			  struct rootfs_node *ret)
{
	char whiteout[NAME_MAX + 1] = WHITEOUT_PREFIX;
	const struct index *index;
	struct index_name found;
	int r;

	if (len > NAME_MAX)
		return -ENAMETOOLONG;
	if (rootfs_hidden_name(name, len))
		return -ENOENT;
	r = top_index(set->rootfs, wait, &index);
	if (!r)
		r = index_lookup(index, set->parts[0].ino, name, len, &found);
	if (!r) {
		r = show_name(set, index, &found, wait, ret);
	} else if (r == -ENOENT && WHITEOUT_PREFIX_LEN + len <= NAME_MAX) {
		memcpy(whiteout + WHITEOUT_PREFIX_LEN, name, len);
		r = index_lookup(index, set->parts[0].ino, whiteout, WHITEOUT_PREFIX_LEN + len,
				 &found);
		if (!r)
			r = show_whiteout(set, found.ino, wait, ret);
	}
	return r < 0 ? r : r ? 0 : -ENOENT;
}

/* What whiteout NAME is listed as: 1 and its node; 0 if the layer itself has the name it deletes,
 * which says the same, or it is no name. The prefix is cut off NAME. */
static int list_whiteout(struct dirset *set, const struct index *index, struct index_name *name,
			 struct wait *wait, struct rootfs_node *ret)
{
	struct index_name same;
	int err;

	name->name += WHITEOUT_PREFIX_LEN;
	name->len -= WHITEOUT_PREFIX_LEN;
	if (name->len == 0 || rootfs_hidden_name(name->name, name->len))
		return 0;
	err = index_lookup(index, name->dir, name->name, name->len, &same);
	if (err != -ENOENT)
		return err;
	return show_whiteout(set, name->ino, wait, ret);
}

int rootfs_overlay_list(struct rootfs *rootfs, struct rootfs_node dir, const struct list_call *call)
{
	const struct index *index;
	struct index_name name;
	struct rootfs_node node;
	struct dirset set;
	int r = rootfs_dirset(rootfs, dir, call->wait, &set);

	if (!r)
		r = top_index(rootfs, call->wait, &index);
	for (uint64_t pos = call->pos; r >= 0 && pos < UINT32_MAX; pos++) {
		r = index_child(index, set.parts[0].ino, (uint32_t)pos, &name);
		if (r)
			break;
		if (pos % 64 == 63)
			r = wait_go_on(call->wait);
		if (r < 0)
			break;
		if (rootfs_hidden_name(name.name, name.len))
			r = list_whiteout(&set, index, &name, call->wait, &node);
		else
			r = show_name(&set, index, &name, call->wait, &node);
		if (r > 0 && call->fn(call->arg, pos, name.name, name.len, node))
			return 0;
	}
	return r == -ENOENT ? 0 : MIN(r, 0);
}

/* ---- extended attributes ---- */

/* As overlayfs asks for it, and as it does when mounted with "userxattr". Only the first is listed:
 * overlayfs hides it from its users, but the second only from those that mounted it so. */
#define OPAQUE_NAME	 "trusted.overlay.opaque"
#define OPAQUE_USER_NAME "user.overlay.opaque"

bool rootfs_overlay_reserved(const char *name)
{
	return starts_with(name, "trusted.overlay.") || starts_with(name, "user.overlay.");
}

int rootfs_overlay_getxattr(struct rootfs *rootfs, struct rootfs_node node, const char *name,
			    struct wait *wait, struct tar_xattr *ret)
{
	int r = -ENODATA;

	if (!strcmp(name, OPAQUE_NAME) || !strcmp(name, OPAQUE_USER_NAME))
		r = rootfs_overlay_opaque(rootfs, node, wait);
	if (r > 0)
		*ret = (struct tar_xattr){.name = name, .value = "y", .len = 1};
	return r < 0 ? r : r ? 0 : -ENODATA;
}

ssize_t rootfs_overlay_listxattr(struct rootfs *rootfs, struct rootfs_node node, char *buf,
				 size_t cap, struct wait *wait)
{
	int r = rootfs_overlay_opaque(rootfs, node, wait);

	if (r <= 0)
		return r;
	if (cap && cap < sizeof(OPAQUE_NAME))
		return -ERANGE;
	if (cap)
		memcpy(buf, OPAQUE_NAME, sizeof(OPAQUE_NAME));
	return sizeof(OPAQUE_NAME);
}
