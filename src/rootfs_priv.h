/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rootfs: what its files share.
 *
 *	rootfs.c       nodes: look-up, attributes, contents
 *	rootfs_dir.c   paths in layers: which directories make up a merged one
 *	rootfs_link.c  hard links between layers
 *	rootfs_list.c  merged listings
 *	rootfs_overlay.c one layer in the form that overlayfs stacks
 *	rootfs_cache.c what is remembered of directories in use
 *
 * That a directory of one layer is part of a merged one depends on its path alone (and on what
 * hides that path), so any layer can be asked by itself, from the top down, when it is needed.
 */
#ifndef REGFS_ROOTFS_PRIV_H
#define REGFS_ROOTFS_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "regfs/rootfs.h"

#define ROOTFS_PATH 4096 /* no path in an index is longer */

#define WHITEOUT_PREFIX	    ".wh."
#define WHITEOUT_PREFIX_LEN 4
#define WHITEOUT_OPAQUE	    ".wh..wh..opq"
/* Set in the inode number of a node of an overlay tree that is a whiteout: the rest of it is the
 * inode that says so. An index has far fewer inodes. */
#define ROOTFS_WHITEOUT_BIT (UINT32_C(1) << 31)

/* The directories of layers whose names a merged directory has, topmost first. */
struct dirset {
	struct rootfs *rootfs;
	struct rootfs_node dir;
	unsigned n;
	int next;  /* the layer to ask next; -1: complete */
	int below; /* complete: the layer below an opaque directory, which ended it; else -1 */
	uint32_t subdirs; /* INDEX_NONE: not counted; known only of a complete one */
	struct rootfs_node parts[ROOTFS_MAX_LAYERS];
};

/* A merged listing; the names lie in the layers' indexes. */
struct list_entry {
	const char *name;
	uint32_t ino;
	uint16_t layer;
	uint8_t len;
};

struct listing {
	unsigned refs; /* guarded by the cache's lock */
	size_t n;
	struct list_entry *entries;
};

/* To what file each link out of one layer leads, as far as layers from .bottom up tell. */
struct link_target {
	struct rootfs_node
		file; /* or LINK_BELOW with a hash of the target's name, or LINK_NOWHERE */
	uint32_t ino; /* of the link, in its layer */
};
#define LINK_BELOW   UINT16_MAX /* a layer: some layer below .bottom decides */
#define LINK_NOWHERE (UINT16_MAX - 1)

struct link_map {
	unsigned refs; /* guarded by the cache's lock */
	unsigned bottom;
	size_t n;
	struct link_target targets[]; /* sorted by .file */
};

/* --- rootfs_cache.c: every function may forget; any thread --- */

struct rootfs_cache;
struct rootfs_cache *rootfs_cache_new(unsigned nlayers);
void rootfs_cache_free(struct rootfs_cache *cache);
/* Fills in SET->dir's parts; false if they are not there. */
bool rootfs_cache_dir(struct rootfs_cache *cache, struct dirset *set);
void rootfs_cache_put_dir(struct rootfs_cache *cache, const struct dirset *set);
/* Counted for the caller; NULL if it is not there. */
struct listing *rootfs_cache_listing(struct rootfs_cache *cache, struct rootfs_node node);
void rootfs_cache_put_listing(struct rootfs_cache *cache, struct rootfs_node node,
			      struct listing *listing);
void rootfs_cache_unref_listing(struct rootfs_cache *cache, struct listing *listing);
struct link_map *rootfs_cache_links(struct rootfs_cache *cache, unsigned layer);
void rootfs_cache_put_links(struct rootfs_cache *cache, unsigned layer, struct link_map *map);
void rootfs_cache_unref_links(struct rootfs_cache *cache, struct link_map *map);
/* 0: not there. */
uint32_t rootfs_cache_nlink(struct rootfs_cache *cache, struct rootfs_node node);
void rootfs_cache_put_nlink(struct rootfs_cache *cache, struct rootfs_node node, uint32_t nlink);

/* --- rootfs.c --- */

struct rootfs_layer {
	_Atomic(struct layer *) layer; /* NULL until it is needed; set once */
	uint64_t numbering;	       /* layer_numbering() that it has to have; 0: any */
};

struct rootfs {
	struct rootfs_options options;
	uint64_t ino_seed;
	struct rootfs_cache *cache;
	atomic_bool warned;	/* of a link that leads nowhere */
	atomic_bool renumbered; /* it was said that a layer's inodes have other numbers now */
	/* What took its place when an index broke, and is freed with it; set once. */
	_Atomic(struct rootfs *) successor;
	struct rootfs_layer layers[];
};

/* Of layer N, opened if need be; without WAIT only if it is open already (else -EWOULDBLOCK). */
int rootfs_index(struct rootfs *rootfs, unsigned n, struct wait *wait, const struct index **ret);

/* --- rootfs_dir.c --- */

/* What one layer says of a name or a path. */
enum layer_says { SAYS_NOTHING, SAYS_DIR, SAYS_OTHER };
struct layer_answer {
	enum layer_says says;
	struct rootfs_node node;
	bool link_out; /* SAYS_OTHER: it is a link to a file of a lower layer */
	bool cut;      /* what lower layers say of it does not count */
	bool opaque;   /* SAYS_DIR: nor what they have in it */
	size_t end;    /* bytes of the path: up to the non-directory found (SAYS_OTHER), or the last
			  directory found */
};

bool rootfs_hidden_name(const char *name, size_t len); /* begins with ".wh." */
/* DIR is a directory of the layer that INDEX is of. */
int rootfs_ask_name(const struct index *index, struct rootfs_node dir, const char *name, size_t len,
		    struct layer_answer *ret);

/* Starts DIR's set, from the cache where it is there. -ENOTDIR. */
int rootfs_dirset(struct rootfs *rootfs, struct rootfs_node dir, struct wait *wait,
		  struct dirset *ret);
/* Asks lower layers until SET has one more part or is complete. Without WAIT only open ones
 * (else -EWOULDBLOCK). */
int rootfs_dirset_grow(struct dirset *set, struct wait *wait);
/* The topmost directory under a complete SET that an entry named, though none of its names
 * shows: 0; 1: none. */
int rootfs_dirset_buried(const struct dirset *set, struct wait *wait, struct rootfs_node *ret);

/* The merge of layers BOTTOM … TOP - 1, as seen by somebody who waits. */
struct rootfs_state {
	struct rootfs *rootfs;
	struct wait *wait;
	unsigned top, bottom;
};
/* What PATH leads to: a directory (its topmost part), or a non-directory, which may stand on the
 * way: RET->end tells. Symlinks are not followed. -ENOENT: nothing; LINK_BELOW in RET's node:
 * layers below decide. */
int rootfs_find(const struct rootfs_state *state, const char *path, size_t len,
		struct layer_answer *ret);

/* --- rootfs_link.c --- */

/* The file that link out INO of LAYER leads to: 0, or -ENOENT. */
int rootfs_follow_link(struct rootfs *rootfs, struct rootfs_node link, struct wait *wait,
		       struct rootfs_node *ret);
/* Names of the merged tree that NODE, no directory, has. INODE is its own. */
int rootfs_count_links(struct rootfs *rootfs, struct rootfs_node node,
		       const struct index_inode *inode, struct wait *wait, uint32_t *ret);

/* --- rootfs_list.c --- */

struct list_call {
	uint64_t pos;
	rootfs_list_fn *fn;
	void *arg;
	struct wait *wait;
};
int rootfs_list_call(struct rootfs *rootfs, struct rootfs_node dir, const struct list_call *call);

/* --- rootfs_overlay.c: all are for trees with options.overlay --- */

/* SET is the directory's. */
int rootfs_overlay_lookup(struct dirset *set, const char *name, size_t len, struct wait *wait,
			  struct rootfs_node *ret);
int rootfs_overlay_list(struct rootfs *rootfs, struct rootfs_node dir,
			const struct list_call *call);
/* Whether overlayfs would obey attribute NAME: what a layer says there is not shown. */
bool rootfs_overlay_reserved(const char *name);
/* The reserved attributes NODE has here: 0 or -ENODATA; the names, as rootfs_listxattr. */
int rootfs_overlay_getxattr(struct rootfs *rootfs, struct rootfs_node node, const char *name,
			    struct wait *wait, struct tar_xattr *ret);
ssize_t rootfs_overlay_listxattr(struct rootfs *rootfs, struct rootfs_node node, char *buf,
				 size_t cap, struct wait *wait);

static inline bool rootfs_is_whiteout(const struct rootfs *rootfs, struct rootfs_node node)
{
	return rootfs->options.overlay && node.layer != ROOTFS_ROOT_LAYER &&
	       node.ino & ROOTFS_WHITEOUT_BIT;
}

/* Subdirectories of the merged directory; SET is complete. */
int rootfs_count_subdirs(const struct dirset *set, struct wait *wait, uint32_t *ret);

static inline bool rootfs_same(struct rootfs_node a, struct rootfs_node b)
{
	return a.layer == b.layer && a.ino == b.ino;
}

#endif
