// SPDX-License-Identifier: Apache-2.0
/*
 * rootfs: nodes of the merge, looked up, described and read.
 * Knows layers as they are opened. How names are merged is known to its other files; must not know
 * FUSE, or where layers come from.
 */
#include <errno.h>
#include <limits.h>
#include <sys/sysmacros.h>

#include "regfs/log.h"
#include "rootfs_priv.h"

#define BLOCK_SIZE 4096

/* --- the object --- */

static struct rootfs *rootfs_alloc(const struct rootfs_options *options)
{
	struct rootfs *rootfs = calloc(1, sizeof(*rootfs) +
						  options->nlayers * sizeof(rootfs->layers[0]));

	if (!rootfs)
		return NULL;
	rootfs->options = *options;
	rootfs->cache = rootfs_cache_new(options->nlayers);
	if (!rootfs->cache) {
		free(rootfs);
		return NULL;
	}
	return rootfs;
}

int rootfs_new(const struct rootfs_options *options, struct rootfs **ret)
{
	struct rootfs *rootfs;

	if (options->nlayers > ROOTFS_MAX_LAYERS || (options->raw && options->nlayers != 1) ||
	    (options->overlay && (options->raw || !options->nlayers)))
		return -EINVAL;
	rootfs = rootfs_alloc(options);
	if (!rootfs)
		return -ENOMEM;
	rootfs->options.identity = NULL; /* the caller's, and only needed here */
	rootfs->ino_seed = hash64(0, options->identity, DIGEST_KEY_LEN);
	*ret = rootfs;
	return 0;
}

void rootfs_free(struct rootfs *rootfs)
{
	while (rootfs) {
		struct rootfs *successor = atomic_load(&rootfs->successor);

		rootfs_cache_free(rootfs->cache);
		for (unsigned i = 0; i < rootfs->options.nlayers; i++)
			layer_unref(atomic_load(&rootfs->layers[i].layer));
		free(rootfs);
		rootfs = successor;
	}
}

/* --- layers --- */

/* Opens layer N and sets it in its place, unless somebody was first. */
static int open_layer(struct rootfs *rootfs, unsigned n, struct wait *wait)
{
	struct rootfs_layer *place = &rootfs->layers[n];
	struct layer *layer, *none = NULL;
	int err = rootfs->options.layer(rootfs->options.arg, n, wait, &layer);

	if (err)
		return err;
	/* the nodes that the kernel has are the old index's */
	if (place->numbering && place->numbering != layer_numbering(layer)) {
		if (!atomic_exchange(&rootfs->renumbered, true))
			log_error("the index of layer %u of an image was damaged and could not be "
				  "made again as it was: the image can be read by the next mount",
				  n + 1);
		err = -EIO;
	}
	if (err || !atomic_compare_exchange_strong(&place->layer, &none, layer))
		layer_unref(layer);
	return err;
}

/* Layer N's, opened if need be; without WAIT only if it is open already (else -EWOULDBLOCK). */
static int rootfs_layer(struct rootfs *rootfs, unsigned n, struct wait *wait, struct layer **ret)
{
	int err = 0;

	if (n >= rootfs->options.nlayers)
		return -EIO;
	if (!atomic_load(&rootfs->layers[n].layer))
		err = wait ? open_layer(rootfs, n, wait) : -EWOULDBLOCK;
	if (!err)
		*ret = atomic_load(&rootfs->layers[n].layer);
	return err;
}

int rootfs_index(struct rootfs *rootfs, unsigned n, struct wait *wait, const struct index **ret)
{
	struct layer *layer;
	int err = rootfs_layer(rootfs, n, wait, &layer);

	if (!err)
		*ret = layer_index(layer);
	return err;
}

/* --- damage --- */

/* ROOTFS, or what took its place. */
static struct rootfs *current(struct rootfs *rootfs)
{
	struct rootfs *successor;

	while ((successor = atomic_load(&rootfs->successor)))
		rootfs = successor;
	return rootfs;
}

/* LAYER's index broke. What was read of it so far may be wrong, and is remembered in many places:
 * all that is known is left to those that still use it, and begun anew. */
static void succeed(struct rootfs *rootfs, unsigned layer)
{
	struct rootfs *none = NULL, *fresh;

	if (atomic_load(&rootfs->successor))
		return;
	fresh = rootfs_alloc(&rootfs->options);
	if (!fresh)
		return;
	fresh->ino_seed = rootfs->ino_seed;
	for (unsigned i = 0; i < rootfs->options.nlayers; i++) {
		const struct layer *open = atomic_load(&rootfs->layers[i].layer);

		fresh->layers[i].numbering = open ? layer_numbering(open)
						  : rootfs->layers[i].numbering;
	}
	if (!atomic_compare_exchange_strong(&rootfs->successor, &none, fresh)) {
		rootfs_free(fresh);
		return;
	}
	log_warn("the index of layer %u of an image was damaged in the cache while it was in use: "
		 "it is dropped and made again",
		 layer + 1);
}

/* RESULT, unless an index that it may come from was damaged meanwhile: then it is asked for again
 * by somebody who may wait for another, or -EIO to one who waited already. */
static int64_t settle(struct rootfs *rootfs, const struct wait *wait, int64_t result)
{
	for (unsigned i = 0; i < rootfs->options.nlayers; i++) {
		struct layer *layer = atomic_load(&rootfs->layers[i].layer);

		/* what makes no sense may be damage that no signal told of */
		if (!layer || !(result == -EIO ? layer_recheck(layer) : layer_broken(layer)))
			continue;
		succeed(rootfs, i);
		return wait_may_block(wait) ? -EIO : -EWOULDBLOCK;
	}
	return result;
}

static int node_inode(struct rootfs *rootfs, struct rootfs_node node, struct wait *wait,
		      struct index_inode *ret)
{
	const struct index *index;
	int err = rootfs_index(rootfs, node.layer, wait, &index);

	return err ? err : index_inode(index, node.ino, ret);
}

/* --- look-up --- */

/* The topmost answer to NAME that is not silence; -ENOENT. */
static int ask_parts(struct dirset *set, const char *name, size_t len, struct wait *wait,
		     struct layer_answer *ret)
{
	const struct index *index;
	int err;

	for (unsigned i = 0;; i++) {
		if (i == set->n) {
			err = rootfs_dirset_grow(set, wait);
			if (err || i == set->n)
				return err ? err : -ENOENT;
		}
		err = rootfs_index(set->rootfs, set->parts[i].layer, wait, &index);
		if (!err)
			err = rootfs_ask_name(index, set->parts[i], name, len, ret);
		if (err || ret->says != SAYS_NOTHING)
			return err;
		if (ret->cut)
			return -ENOENT;
	}
}

static int look_up(struct dirset *set, const char *name, size_t len, struct wait *wait,
		   struct rootfs_node *ret)
{
	struct rootfs *rootfs = set->rootfs;
	struct layer_answer answer;
	int next = set->next;
	int err;

	if (len > NAME_MAX)
		return -ENAMETOOLONG;
	if (!rootfs->options.raw && rootfs_hidden_name(name, len))
		return -ENOENT;
	err = ask_parts(set, name, len, wait, &answer);
	if (set->next != next)
		rootfs_cache_put_dir(rootfs->cache, set);
	if (err)
		return err;
	if (answer.link_out && !rootfs->options.raw)
		return rootfs_follow_link(rootfs, answer.node, wait, ret);
	*ret = answer.node;
	return 0;
}

int rootfs_lookup(struct rootfs *rootfs, struct rootfs_node dir, const char *name, size_t len,
		  struct wait *wait, struct rootfs_node *ret)
{
	rootfs = current(rootfs);
	struct rootfs_node node;
	struct dirset set;
	int err = rootfs_dirset(rootfs, dir, wait, &set);

	if (!err && rootfs->options.overlay)
		err = rootfs_overlay_lookup(&set, name, len, wait, &node);
	else if (!err)
		err = look_up(&set, name, len, wait, &node);
	err = (int)settle(rootfs, wait, err);
	if (!err)
		*ret = node;
	return err;
}

int rootfs_list(struct rootfs *rootfs, struct rootfs_node dir, uint64_t pos, rootfs_list_fn *fn,
		void *arg, struct wait *wait)
{
	rootfs = current(rootfs);
	struct list_call call = {.pos = pos, .fn = fn, .arg = arg, .wait = wait};

	return (int)settle(rootfs, wait,
			   rootfs->options.overlay ? rootfs_overlay_list(rootfs, dir, &call)
						   : rootfs_list_call(rootfs, dir, &call));
}

/* --- attributes --- */

/* The topmost directory of a layer that an entry named, which gives the merged one its
 * attributes: 0; 1 if there is none. An opaque one hides names, not what the directory is. */
static int dir_source(struct dirset *set, struct wait *wait, struct rootfs_node *ret)
{
	struct index_inode inode;
	int err;

	for (unsigned i = 0;; i++) {
		if (i == set->n) {
			err = rootfs_dirset_grow(set, wait);
			if (err)
				return err;
		}
		if (i == set->n)
			return rootfs_dirset_buried(set, wait, ret);
		err = node_inode(set->rootfs, set->parts[i], wait, &inode);
		if (err)
			return err;
		if (!(inode.flags & INDEX_IMPLICIT)) {
			*ret = set->parts[i];
			return 0;
		}
	}
}

/* The inode whose attributes NODE shows: 0; 1 if that is none (a directory nobody named, a
 * whiteout). */
static int source(struct rootfs *rootfs, struct rootfs_node node, struct wait *wait,
		  struct rootfs_node *ret)
{
	struct dirset set;
	int next, r;

	if (rootfs_is_whiteout(rootfs, node))
		return 1;
	r = rootfs_dirset(rootfs, node, wait, &set);
	if (r == -ENOTDIR) {
		*ret = node;
		return 0;
	}
	if (r)
		return r;
	next = set.next;
	r = dir_source(&set, wait, ret);
	if (set.next != next)
		rootfs_cache_put_dir(rootfs->cache, &set);
	return r;
}

static uint64_t node_ino(const struct rootfs *rootfs, struct rootfs_node node)
{
	uint8_t key[] = {
		(uint8_t)node.layer,	  (uint8_t)(node.layer >> 8), (uint8_t)node.ino,
		(uint8_t)(node.ino >> 8), (uint8_t)(node.ino >> 16),  (uint8_t)(node.ino >> 24),
	};

	return hash_to_ino(hash64(rootfs->ino_seed, key, sizeof(key)));
}

static void fill_stat(const struct rootfs *rootfs, struct rootfs_node node,
		      const struct index_inode *inode, struct stat *st)
{
	*st = (struct stat){
		.st_ino = node_ino(rootfs, node),
		.st_mode = inode->mode,
		.st_uid = inode->uid,
		.st_gid = inode->gid,
		.st_blksize = BLOCK_SIZE,
		.st_mtim = {.tv_sec = inode->mtime_sec, .tv_nsec = inode->mtime_nsec},
	};
	st->st_atim = st->st_ctim = st->st_mtim;
	if (S_ISDIR(inode->mode)) {
		st->st_size = ROOTFS_DIR_SIZE;
		st->st_blocks = ROOTFS_DIR_SIZE / 512;
	} else if (S_ISREG(inode->mode) || S_ISLNK(inode->mode)) {
		st->st_size = (off_t)inode->size;
	} else if (S_ISCHR(inode->mode) || S_ISBLK(inode->mode)) {
		st->st_rdev = makedev(inode->rdev_major, inode->rdev_minor);
	}
}

static uint64_t data_bytes(const struct index *index, const struct index_inode *inode)
{
	struct tar_extent extent;
	uint64_t bytes = 0;

	if (!(inode->flags & INDEX_SPARSE))
		return inode->size;
	for (uint32_t n = 0; index_extent(index, inode, n, &extent) == 0; n++)
		bytes += extent.len;
	return MIN(bytes, inode->size);
}

static int stat_file(struct rootfs *rootfs, struct rootfs_node node,
		     const struct index_inode *inode, struct wait *wait, struct stat *ret)
{
	const struct index *index;
	uint32_t nlink = inode->nlink;
	int err = rootfs_index(rootfs, node.layer, wait, &index);

	if (!err && !rootfs->options.raw && !rootfs->options.overlay)
		err = rootfs_count_links(rootfs, node, inode, wait, &nlink);
	if (err)
		return err;
	fill_stat(rootfs, node, inode, ret);
	ret->st_nlink = nlink;
	if (S_ISREG(inode->mode))
		ret->st_blocks = (blkcnt_t)(data_bytes(index, inode) / 512 +
					    (data_bytes(index, inode) % 512 != 0));
	return 0;
}

/* 2 + the subdirectories, as far as open layers tell: 1 if they do not. */
static int dir_nlink(struct dirset *set, struct wait *wait, uint32_t *ret)
{
	struct index_inode inode;
	int err = 0;

	if (set->rootfs->options.overlay) {
		err = node_inode(set->rootfs, set->parts[0], NULL, &inode);
		if (!err)
			*ret = inode.nlink;
		return err;
	}
	while (!err && set->next >= 0)
		err = rootfs_dirset_grow(set, NULL);
	if (err == -EWOULDBLOCK) {
		*ret = 1;
		return 0;
	}
	if (!err && set->subdirs == INDEX_NONE)
		err = rootfs_count_subdirs(set, wait, &set->subdirs);
	if (!err)
		*ret = 2 + set->subdirs;
	return err;
}

static int stat_dir(struct rootfs *rootfs, struct rootfs_node dir, struct wait *wait,
		    struct stat *ret, bool *ret_exact)
{
	struct index_inode inode = {
		.mode = S_IFDIR | 0755,
		.mtime_sec = rootfs->options.created_sec,
		.mtime_nsec = rootfs->options.created_nsec,
	};
	struct rootfs_node from;
	struct dirset set;
	uint32_t nlink = 1, subdirs;
	int next, r = rootfs_dirset(rootfs, dir, wait, &set);

	if (r)
		return r;
	next = set.next;
	subdirs = set.subdirs;
	r = dir_source(&set, wait, &from);
	if (!r)
		r = node_inode(rootfs, from, wait, &inode);
	if (r >= 0)
		r = dir_nlink(&set, wait, &nlink);
	if (set.next != next || set.subdirs != subdirs)
		rootfs_cache_put_dir(rootfs->cache, &set);
	if (r)
		return r;
	fill_stat(rootfs, dir, &inode, ret);
	ret->st_nlink = nlink;
	*ret_exact = nlink > 1;
	return 0;
}

/* As overlayfs itself makes them: a device 0/0 without permissions. */
static int stat_whiteout(struct rootfs *rootfs, struct rootfs_node node, struct wait *wait,
			 struct stat *ret)
{
	struct rootfs_node from = {.layer = node.layer, .ino = node.ino & ~ROOTFS_WHITEOUT_BIT};
	struct index_inode inode;
	int err = node_inode(rootfs, from, wait, &inode);

	if (err)
		return err;
	inode.mode = S_IFCHR;
	inode.rdev_major = inode.rdev_minor = 0;
	fill_stat(rootfs, node, &inode, ret);
	ret->st_nlink = 1;
	return 0;
}

int rootfs_stat(struct rootfs *rootfs, struct rootfs_node node, struct wait *wait, struct stat *ret,
		bool *ret_exact)
{
	rootfs = current(rootfs);
	struct index_inode inode = {.mode = S_IFDIR};
	struct stat st;
	bool exact = true;
	int err = 0;

	if (rootfs_is_whiteout(rootfs, node))
		inode.mode = S_IFCHR;
	else if (node.layer != ROOTFS_ROOT_LAYER)
		err = node_inode(rootfs, node, wait, &inode);
	if (!err && rootfs_is_whiteout(rootfs, node))
		err = stat_whiteout(rootfs, node, wait, &st);
	else if (!err && S_ISDIR(inode.mode))
		err = stat_dir(rootfs, node, wait, &st, &exact);
	else if (!err)
		err = stat_file(rootfs, node, &inode, wait, &st);
	err = (int)settle(rootfs, wait, err);
	if (err)
		return err;
	*ret = st;
	*ret_exact = exact;
	return 0;
}

int rootfs_origin(struct rootfs *rootfs, struct rootfs_node node, struct wait *wait,
		  unsigned *ret_layer)
{
	rootfs = current(rootfs);
	struct rootfs_node from = {};
	int r = source(rootfs, node, wait, &from);

	r = (int)settle(rootfs, wait, r < 0 ? r : 0);
	if (!r)
		*ret_layer = from.layer;
	return r;
}

/* --- contents --- */

int rootfs_readlink(struct rootfs *rootfs, struct rootfs_node node, struct wait *wait, char **ret)
{
	rootfs = current(rootfs);
	AUTO_FREE char *copy = NULL;
	const struct index *index;
	struct index_inode inode;
	const char *target;
	size_t len;
	int err;

	if (node.layer == ROOTFS_ROOT_LAYER)
		return -EINVAL;
	err = rootfs_index(rootfs, node.layer, wait, &index);
	if (!err)
		err = index_inode(index, node.ino, &inode);
	if (!err && !S_ISLNK(inode.mode))
		err = -EINVAL;
	if (!err)
		err = index_target(index, node.ino, &target, &len);
	if (!err) {
		copy = malloc(len + 1);
		if (!copy)
			return -ENOMEM;
		memcpy(copy, target, len);
		copy[len] = '\0';
	}
	err = (int)settle(rootfs, wait, err);
	if (!err)
		*ret = STEAL(copy);
	return err;
}

int rootfs_depth(struct rootfs *rootfs, struct rootfs_node node, struct wait *wait, unsigned *ret)
{
	rootfs = current(rootfs);
	char path[ROOTFS_PATH];
	const struct index *index;
	struct index_name name;
	unsigned depth = 0;
	ssize_t len = 0;
	int err = rootfs_index(rootfs, node.layer, wait, &index);

	if (!err)
		err = index_name_of(index, node.ino, 0, &name);
	if (!err)
		len = index_path(index, name.dir, path, sizeof(path));
	if (err || len < 0)
		return (int)settle(rootfs, wait, err ? err : -EIO);
	for (ssize_t i = 0; i < len; i++)
		depth += path[i] == '/';
	*ret = depth + (len > 0);
	return 0;
}

/* NODE's layer, if NODE is a regular file with bytes: 1; 0 if it is an empty one. */
static int file_layer(struct rootfs *rootfs, struct rootfs_node node, struct wait *wait,
		      struct layer **ret)
{
	struct index_inode inode;
	int err;

	if (node.layer == ROOTFS_ROOT_LAYER)
		return -EISDIR;
	err = rootfs_layer(rootfs, node.layer, wait, ret);
	if (!err)
		err = index_inode(layer_index(*ret), node.ino, &inode);
	if (err)
		return err;
	if (!S_ISREG(inode.mode))
		return S_ISDIR(inode.mode) ? -EISDIR : -EINVAL;
	return inode.size > 0;
}

ssize_t rootfs_read(struct rootfs *rootfs, struct rootfs_node node, uint64_t off, void *buf,
		    size_t len, struct wait *wait)
{
	rootfs = current(rootfs);
	struct layer *layer;
	ssize_t r = file_layer(rootfs, node, wait, &layer);

	if (r > 0)
		r = layer_read(layer, node.ino, off, buf, len, wait);
	return settle(rootfs, wait, r);
}

int64_t rootfs_seek(struct rootfs *rootfs, struct rootfs_node node, uint64_t off, int whence,
		    struct wait *wait)
{
	rootfs = current(rootfs);
	struct layer *layer;
	int64_t r = file_layer(rootfs, node, wait, &layer);

	if (r >= 0)
		r = r ? layer_seek(layer, node.ino, off, whence) : -ENXIO;
	return settle(rootfs, wait, r);
}

int rootfs_backing(struct rootfs *rootfs, struct rootfs_node node, struct wait *wait)
{
	rootfs = current(rootfs);
	struct layer *layer;
	int r = file_layer(rootfs, node, wait, &layer);

	return r > 0 ? layer_backing(layer, node.ino, wait) : r < 0 ? r : -ENOENT;
}

int rootfs_make_backing(struct rootfs *rootfs, struct rootfs_node node, struct wait *wait)
{
	rootfs = current(rootfs);
	struct layer *layer;
	int r = file_layer(rootfs, node, wait, &layer);

	return r > 0 ? layer_make_backing(layer, node.ino, wait) : r;
}

/* --- extended attributes --- */

static int find_xattr(struct rootfs *rootfs, struct rootfs_node node, const char *name,
		      struct wait *wait, struct tar_xattr *ret)
{
	const struct index *index;
	struct rootfs_node from;
	int r;

	if (rootfs->options.overlay && rootfs_overlay_reserved(name))
		return rootfs_overlay_getxattr(rootfs, node, name, wait, ret);
	r = source(rootfs, node, wait, &from);
	if (r)
		return r < 0 ? r : -ENODATA;
	r = rootfs_index(rootfs, from.layer, wait, &index);
	for (uint32_t n = 0; !r; n++) {
		r = index_xattr(index, from.ino, n, ret);
		if (!r && strcmp(ret->name, name) == 0)
			return 0;
	}
	return r;
}

ssize_t rootfs_getxattr(struct rootfs *rootfs, struct rootfs_node node, const char *name, void *buf,
			size_t cap, struct wait *wait)
{
	rootfs = current(rootfs);
	struct tar_xattr xattr;
	ssize_t r = find_xattr(rootfs, node, name, wait, &xattr);

	if (!r && cap && xattr.len > cap)
		r = -ERANGE;
	if (!r && cap)
		memcpy(buf, xattr.value, xattr.len);
	return settle(rootfs, wait, r ? r : (ssize_t)xattr.len);
}

static ssize_t list_xattrs(struct rootfs *rootfs, struct rootfs_node node, char *buf, size_t cap,
			   struct wait *wait)
{
	const struct index *index;
	struct rootfs_node from;
	struct tar_xattr xattr;
	ssize_t used = 0;
	int r = 0;

	if (rootfs->options.overlay)
		used = rootfs_overlay_listxattr(rootfs, node, buf, cap, wait);
	if (used >= 0)
		r = source(rootfs, node, wait, &from);
	if (used < 0 || r)
		return used < 0 ? used : r < 0 ? r : used;
	r = rootfs_index(rootfs, from.layer, wait, &index);
	for (uint32_t n = 0; !r; n++) {
		size_t len;

		r = index_xattr(index, from.ino, n, &xattr);
		if (r)
			break;
		if (rootfs->options.overlay && rootfs_overlay_reserved(xattr.name))
			continue;
		len = strlen(xattr.name) + 1;
		if (cap && len > cap - (size_t)used)
			return -ERANGE;
		if (cap)
			memcpy(buf + used, xattr.name, len);
		used += (ssize_t)len;
	}
	return r == -ENODATA ? used : r;
}

ssize_t rootfs_listxattr(struct rootfs *rootfs, struct rootfs_node node, char *buf, size_t cap,
			 struct wait *wait)
{
	rootfs = current(rootfs);
	return settle(rootfs, wait, list_xattrs(rootfs, node, buf, cap, wait));
}
