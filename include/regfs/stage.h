/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stage: a writable tree, as under _push: a small file system of its own.
 * Knows names, inodes, attributes and bytes. Must not know stores, images or nodes.
 *
 * Names, owners, modes, times, xattrs and link targets are in memory; owners and modes are only
 * kept, never acted on. The bytes of all files are in one spool file, unlinked from the start, that
 * is made with the first byte; holes and what was cut off take no room there. So a tree costs one
 * descriptor, and memory by its names alone.
 *
 * One lock a tree, never held across I/O. Any thread. A frozen tree answers every change with
 * -EBUSY. Errors are those of the system calls: -ENOENT, -EEXIST, -ENOTDIR, -EISDIR, -ENOTEMPTY,
 * -EINVAL, -EPERM, -EMLINK, -EFBIG, -ENOSPC (the spool's disk, or over STAGE_INODES_MAX files).
 */
#ifndef REGFS_STAGE_H
#define REGFS_STAGE_H

#include <sys/stat.h>

#include "regfs/wait.h"

#define STAGE_INODES_MAX (1 << 20)
#define STAGE_FILE_MAX	 (INT64_C(1) << 42)

struct stage;
/* Borrowed while the tree names it; else held. */
struct stage_inode;

struct stage_options {
	const char *spool_dir; /* created (0700) when needed; copied */
	mode_t mode;	       /* the root's permission bits and owner */
	uid_t uid;
	gid_t gid;
};
/* An empty tree. 0 or -ENOMEM. */
int stage_new(const struct stage_options *options, struct stage **ret);
/* After every held inode was let go. NULL is fine. */
void stage_free(struct stage *stage);
/* Grows with each change of names or bytes, and with those and each change of attributes. */
uint64_t stage_content_version(struct stage *stage);
uint64_t stage_version(struct stage *stage);
/* Waits for writes under way; then nothing changes until the thaw. One freeze at a time. 0,
 * -EINTR, -EWOULDBLOCK. */
int stage_freeze(struct stage *stage, struct wait *wait);
void stage_thaw(struct stage *stage);
/* Nobody needs it any more, though somebody may hold inodes of it: the bytes leave the spool,
 * unless the tree is frozen or being written to. From then on nothing is read or changed: -ESTALE.
 */
void stage_spend(struct stage *stage);

/* --- inodes --- */

/* The root, held. */
struct stage_inode *stage_root(struct stage *stage);
struct stage_inode *stage_inode_ref(struct stage_inode *inode);
/* One that has no name and is held by nobody goes, with its bytes. NULL is fine. */
void stage_inode_unref(struct stage_inode *inode);
void stage_inode_cleanup(struct stage_inode **inode);
#define AUTO_INODE CLEANUP(stage_inode_cleanup)
/* Unique within the tree for as long as the tree lives; the root's is 1. */
uint64_t stage_inode_number(const struct stage_inode *inode);
/* All but st_dev; st_ino is the number. */
void stage_stat(struct stage_inode *inode, struct stat *ret);

struct stage_change {
	const mode_t *mode; /* permission bits count */
	const uid_t *uid;
	const gid_t *gid;
	const struct timespec *atime, *mtime;
};
int stage_change(struct stage_inode *inode, const struct stage_change *change);
/* Of a symlink: lives as long as the inode is held. NULL if it is none. */
const char *stage_target(const struct stage_inode *inode);

/* --- names --- */

/* Held. */
int stage_lookup(struct stage_inode *dir, const char *name, struct stage_inode **ret);
/* By a path of several components from the root: "blobs/sha256"; symlinks are not followed. */
int stage_find(struct stage *stage, const char *path, struct stage_inode **ret);

struct stage_made {
	mode_t mode; /* type and permission bits */
	uid_t uid;
	gid_t gid; /* that of a set-group-ID directory wins */
	dev_t rdev;
	const char *target; /* of a symlink */
};
/* A new file of any kind, held. */
int stage_make(struct stage_inode *dir, const char *name, const struct stage_made *made,
	       struct stage_inode **ret);
/* Another name; -EPERM for directories. */
int stage_link(struct stage_inode *dir, const char *name, struct stage_inode *inode);
int stage_unlink(struct stage_inode *dir, const char *name);
int stage_rmdir(struct stage_inode *dir, const char *name);
struct stage_place {
	struct stage_inode *dir;
	const char *name;
};
/* As rename(2), with FLAGS 0 or RENAME_NOREPLACE (else -EINVAL); both in one tree. */
int stage_rename(const struct stage_place *from, const struct stage_place *to, unsigned flags);
bool stage_is_empty(struct stage_inode *dir);

struct stage_child {
	char *name;
	struct stage_inode *inode;
	uint64_t pos; /* behind it */
};
struct stage_children {
	struct stage_child *children; /* each holds its inode */
	size_t n;
};
/* Up to MAX names behind position POS (0: the beginning) in the order they came; a position
 * stays good whatever comes and goes. */
int stage_list(struct stage_inode *dir, uint64_t pos, size_t max, struct stage_children *ret);
/* All, by the bytes of their names. */
int stage_sorted(struct stage_inode *dir, struct stage_children *ret);
void stage_children_release(struct stage_children *children);

/* --- bytes --- */

/* Count; short only at the end. */
ssize_t stage_read(struct stage_inode *file, uint64_t off, void *buf, size_t len);
/* Count, or an error; -EWOULDBLOCK, -EINTR while a truncation is under way. */
ssize_t stage_write(struct stage_inode *file, uint64_t off, const void *buf, size_t len,
		    struct wait *wait);
int stage_truncate(struct stage_inode *file, uint64_t size, struct wait *wait);
/* lseek(2) with SEEK_DATA and SEEK_HOLE, in units of the spool's. -ENXIO. */
int64_t stage_seek(struct stage_inode *file, uint64_t off, int whence);
/* A number that is another one after each change of the file's bytes. */
uint64_t stage_bytes_version(struct stage_inode *file);

/* --- xattrs: as the system calls of these names; CAP 0 asks for the length --- */

ssize_t stage_getxattr(struct stage_inode *inode, const char *name, void *buf, size_t cap);
ssize_t stage_listxattr(struct stage_inode *inode, char *buf, size_t cap);
/* Of the namespaces user., trusted. and security.; -EOPNOTSUPP for others. */
int stage_setxattr(struct stage_inode *inode, const char *name, const void *value, size_t len,
		   int flags);
int stage_removexattr(struct stage_inode *inode, const char *name);

#endif
