/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rootfs: the merge of layers (image-spec, layer.md, "Applying Changesets", "Whiteouts"), or one
 * layer by itself as stored.
 * Knows names, whiteouts, hard links. Must not know bytes or FUSE.
 *
 * A path is decided from the top layer down and only layers that are needed are opened.
 *  - ".wh.NAME" hides NAME of lower layers, ".wh..wh..opq" all of the directory's lower
 *    content (the directory stays what lower layers say it is, unless this one names it); both act
 * on lower layers only, wherever they stand in the tar; names beginning with ".wh." are not shown.
 *  - a non-directory hides what is below it; a directory over a non-directory hides that and
 *    everything below it.
 *  - a directory's attributes are those of the topmost layer that names it; implicit
 *    directories do not count; if no layer does: 0755 0:0 with the image's created time.
 *  - a hard link whose target is in a lower layer is that file (same node, counted): the target
 *    is looked up in the merge of the layers below, through their symlinks; where there is no such
 *    file, the name is not shown, and hides what it stands over.
 *  - a file's link count is the number of its names in the merge.
 *
 * A node is (layer, inode): that of the topmost name for directories, that of the file itself for
 * others, so that hard links are one node. Layer numbers count from 0 at the bottom; the root is
 * ROOTFS_ROOT. Immutable but for the layers it opens and its caches of merged directories. Any
 * thread.
 *
 * Where a layer's index breaks under it (layer_broken()) the layers are opened anew. Who was
 * reading meanwhile gets -EWOULDBLOCK, or, with a wait that may block, -EIO.
 */
#ifndef REGFS_ROOTFS_H
#define REGFS_ROOTFS_H

#include <sys/stat.h>

#include "regfs/layer.h"

struct rootfs;

#define ROOTFS_MAX_LAYERS 511
/* What directories say, as they do on common file systems. */
#define ROOTFS_DIR_SIZE 4096

struct rootfs_node {
	uint16_t layer;
	uint32_t ino;
};
#define ROOTFS_ROOT_LAYER 511
#define ROOTFS_ROOT	  ((struct rootfs_node){ROOTFS_ROOT_LAYER, 0})

/* Gives layer N (0 is the bottom), opened; the rootfs unrefs it. */
typedef int rootfs_layer_fn(void *arg, unsigned n, struct wait *wait, struct layer **ret);
/* Starts opening layer N in the background. */
typedef void rootfs_prepare_fn(void *arg, unsigned n);

struct rootfs_options {
	unsigned nlayers;
	bool raw; /* one layer as stored: whiteouts are plain names, links out are empty files */
	/* The topmost layer alone, as overlayfs stacks it on the same of the layers below:
	 * whiteouts are character devices 0/0, directories that hide what is below them have the
	 * attributes trusted.overlay.opaque and user.overlay.opaque. Positions of listings are not
	 * dense. */
	bool overlay;
	int64_t created_sec; /* for directories that no layer names */
	uint32_t created_nsec;
	const uint8_t *identity; /* DIGEST_KEY_LEN bytes that seed st_ino: the image's or the
				    layer's digest */
	rootfs_layer_fn *layer;
	rootfs_prepare_fn *prepare; /* may be NULL */
	void *arg;		    /* must outlive the rootfs */
};

/* 0, -ENOMEM, -EINVAL (too many layers; raw with other than one, overlay with none, both). */
int rootfs_new(const struct rootfs_options *options, struct rootfs **ret);
/* NULL is fine. */
void rootfs_free(struct rootfs *rootfs);

/* All: 0 or a count, or -ENOENT, -ENOTDIR, -EIO, -EWOULDBLOCK, -EINTR, -ENOMEM, a layer's errors.
 * A name over 255 bytes is -ENAMETOOLONG. */
int rootfs_lookup(struct rootfs *rootfs, struct rootfs_node dir, const char *name, size_t len,
		  struct wait *wait, struct rootfs_node *ret);
/* All but st_dev. A directory's st_nlink is 2 + its subdirectories when all layers that could
 * tell are at hand, else 1 ("not known", *RET_EXACT false: ask again later). */
int rootfs_stat(struct rootfs *rootfs, struct rootfs_node node, struct wait *wait, struct stat *ret,
		bool *ret_exact);
/* The caller frees *RET (NUL-terminated). -EINVAL for what is no symlink. */
int rootfs_readlink(struct rootfs *rootfs, struct rootfs_node node, struct wait *wait, char **ret);
/* How many directories stand between the root and NODE, which is none itself; of a file with
 * several names, by one of them. */
int rootfs_depth(struct rootfs *rootfs, struct rootfs_node node, struct wait *wait, unsigned *ret);
/* Both: -EISDIR for directories, -EINVAL for other things without bytes. */
ssize_t rootfs_read(struct rootfs *rootfs, struct rootfs_node node, uint64_t off, void *buf,
		    size_t len, struct wait *wait);
/* layer_backing() and layer_make_backing() of the file. */
int rootfs_backing(struct rootfs *rootfs, struct rootfs_node node, struct wait *wait);
int rootfs_make_backing(struct rootfs *rootfs, struct rootfs_node node, struct wait *wait);
int64_t rootfs_seek(struct rootfs *rootfs, struct rootfs_node node, uint64_t off, int whence,
		    struct wait *wait);

/* Lists DIR from position POS (0 first; positions are dense, in bytewise order of names, and the
 * same over remounts), without "." and "..". FN gets each name's own position, with no lock held,
 * and may call the rootfs; NAME is not NUL-terminated, and lives as long as the rootfs. FN's
 * non-zero stops the walk and is not an error. All layers that can contribute are opened in
 * parallel first. */
typedef int rootfs_list_fn(void *arg, uint64_t pos, const char *name, size_t len,
			   struct rootfs_node node);
int rootfs_list(struct rootfs *rootfs, struct rootfs_node dir, uint64_t pos, rootfs_list_fn *fn,
		void *arg, struct wait *wait);

/* "user.x", "security.capability" …: value length (-ERANGE if CAP is short; CAP 0 asks), or
 * -ENODATA. */
ssize_t rootfs_getxattr(struct rootfs *rootfs, struct rootfs_node node, const char *name, void *buf,
			size_t cap, struct wait *wait);
/* Names, each with its NUL. */
ssize_t rootfs_listxattr(struct rootfs *rootfs, struct rootfs_node node, char *buf, size_t cap,
			 struct wait *wait);
/* The layer that decided NODE (for a directory: the one its attributes come from; 0 if none). */
int rootfs_origin(struct rootfs *rootfs, struct rootfs_node node, struct wait *wait,
		  unsigned *ret_layer);

#endif
