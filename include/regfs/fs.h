/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs: the FUSE session: a kernel request becomes a node operation, its result a reply.
 * The only user of libfuse. Must not know HTTP, JSON or tar.
 *
 * No thread of the session ever waits: a request is tried on it without permission to block;
 * if it would have to wait it is parked: run again on a thread of a pool, where the kernel's
 * INTERRUPT cancels its wait. So any number of waiting requests leaves the mount usable, under -s
 * too.
 *
 * open and opendir are answered ENOSYS, which turns them off for the whole mount (the largest
 * gain for small files): I/O goes by node. With passthrough open is answered, and where a file's
 * bytes lie in a file on disk the kernel reads that by itself: large files cost no request. What is
 * dynamic has zero timeouts and an mtime that changes.
 */
#ifndef REGFS_FS_H
#define REGFS_FS_H

#include "regfs/context.h"

struct fs;

struct fs_options {
	const char *mountpoint;
	const char *source;	  /* what /proc/mounts shows */
	const char *fuse_options; /* "allow_other,default_permissions,nosuid,…" for libfuse; may be
				     "" */
	bool foreground, debug, single_thread;
	bool no_push; /* no file is ever written: FLUSH, which says how a push went, is turned off
		       */
	bool passthrough;	    /* if the kernel and our rights allow it */
	bool io_uring;		    /* likewise, and libfuse */
	struct kernel_modes *modes; /* borrowed: what is in use is said there */
	bool set_uid, set_gid, set_umask;
	uid_t uid;
	gid_t gid;
	mode_t umask;
	const char *statfs_path; /* df shows the room of the file system that holds it */
};

/* Makes the session and mounts. The strings are borrowed until fs_free(). 0, or a negative
 * errno, already explained on stderr. */
int fs_mount(const struct fs_options *options, struct fs **ret);
/* Goes to the background unless .foreground; the parent exits here with 0. Before any
 * thread is started. */
int fs_daemonize(struct fs *fs);
/* Serves ROOT until the mount is gone or a signal came. 0 or a negative errno. */
int fs_serve(struct fs *fs, struct node *root);
/* Unmounts what is still mounted. NULL is fine. */
void fs_free(struct fs *fs);

/* Makes the kernel forget name NAME of directory DIR, and DIR's cached listing. Not from a
 * request's thread, whose directory the kernel may hold locked. Any other thread, until fs_free().
 */
void fs_forget_name(struct fs *fs, const struct node_ref *dir, const char *name);

#endif
