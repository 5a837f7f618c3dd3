/* SPDX-License-Identifier: Apache-2.0 */
/*
 * context: what all kinds of nodes share: the rooms below and the settings of the mount.
 * Set up by main before the first request and constant from then on. Owns nothing.
 */
#ifndef REGFS_CONTEXT_H
#define REGFS_CONTEXT_H

#include <stdatomic.h>

#include "regfs/event.h"
#include "regfs/image.h"
#include "regfs/node.h"
#include "regfs/push.h"

/* Ways to speak with the kernel that not every kernel, user or build has. */
struct kernel_modes {
	atomic_bool passthrough, io_uring;
};

struct context {
	const struct kernel_modes *modes; /* those that are in use */
	struct nodes *nodes;
	struct images *images;
	struct blobs *blobs;
	struct cache *cache;
	struct pushes *pushes;
	struct events *events;
	struct timespec started; /* the mount's time, for entries that have none of their own */
	uid_t uid;		 /* the mounting user, who owns virtual entries */
	gid_t gid;
	bool allow_other, allow_delete, offline;
	bool transform_symlinks; /* targets in rootfs/ and layers/NN/ stay in their tree */
	bool overlay_whiteouts;	 /* layers/NN are as overlayfs stacks them */
	int64_t tag_ttl_ms;
	const struct oci_platform *platform; /* the one that is chosen where there are several */
	const char *mountpoint; /* absolute; what a link's absolute text has to begin with */
	const char *version;
};

/* The attributes of a virtual entry: MODE with its type, SIZE bytes, the mount's owner and time. */
void context_stat(const struct context *context, uint64_t ino, mode_t mode, uint64_t size,
		  struct stat *ret);
/* STAT is of a file with the raw bytes of blob ID, or with some of them: it changes when the kernel
 * is to forget those that it has. How long that may be believed, in seconds. */
double context_raw(const struct context *context, const struct blob_id *id, struct stat *stat);
/* Gives TEXT as an extended attribute's value: its length, or -ERANGE. */
ssize_t context_xattr(const char *text, void *buf, size_t cap);
/* Copies at most LEN bytes of the SIZE bytes at DATA from OFF on into BUF. */
ssize_t context_copy(const void *data, size_t size, uint64_t off, void *buf, size_t len);

#endif
