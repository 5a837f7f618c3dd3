/* SPDX-License-Identifier: Apache-2.0 */
/*
 * node: what stands behind a name of the tree: an object with a table of operations.
 * Dispatches only; the kinds live in names, imagedir, treedir, pushdir and info. Must not know
 * FUSE.
 *
 * A node may stand for many files: SUB says which one (0 is the node itself; an image
 * directory numbers its files, a tree packs layer and inode). A directory has one node per path;
 * nodes are interned by (parent, name, discriminator), so that the same path gives the same node as
 * long as somebody holds it. References are counted under the table's lock.
 *
 * Operations run on any thread. One that would have to wait while call->wait may not block returns
 * -EWOULDBLOCK, having changed nothing, and is called again with a wait that may.
 */
#ifndef REGFS_NODE_H
#define REGFS_NODE_H

#include <sys/stat.h>

#include "regfs/wait.h"

#define NODE_SUB_BITS 41
#define NODE_FOREVER  1e9 /* seconds: what is named by a digest never changes */

struct node;

/* One of the files of a node, held. */
struct node_ref {
	struct node *node;
	uint64_t sub;
};

/* A request of somebody. */
struct call {
	struct wait *wait;
	uid_t uid;
	gid_t gid;
	pid_t pid; /* 0: not known */
};

struct node_attr {
	struct stat st; /* all but st_dev */
	double timeout; /* seconds for which it may be believed */
	bool exact;	/* owner and mode are an image's own: uid=, gid=, umask= apart */
};

/* A found name. */
struct node_entry {
	struct node_ref ref; /* REF.node is held for the caller */
	struct node_attr attr;
	double timeout; /* of the name */
	bool cached;	/* of one that was created: the kernel may cache its bytes, and map it */
};

/* One name of a listing; all of it borrowed for the call. */
struct node_listed {
	uint64_t pos;	  /* the position after it */
	const char *name; /* not NUL-terminated */
	size_t len;
	mode_t type;
	uint64_t ino;
	const struct node_entry *entry; /* where it is at hand, else NULL: a look-up tells */
};
/* Non-zero stops the listing. */
typedef int node_list_fn(void *arg, const struct node_listed *listed);

/* What setattr changes. */
struct node_change {
	const off_t *size;
	const mode_t *mode;
	const uid_t *uid;
	const gid_t *gid;
	const struct timespec *atime, *mtime;
};

/* What mknod makes. */
struct node_device {
	mode_t mode; /* with its type */
	dev_t rdev;
};

/* An operation that is NULL answers what its comment says. */
struct node_ops {
	const char *kind;
	void (*free)(struct node *node); /* the object and what it holds, but not parent and name */
	int (*getattr)(const struct node_ref *ref, struct call *call, struct node_attr *ret);
	/* -ENOTDIR */
	int (*lookup)(const struct node_ref *dir, const char *name, struct call *call,
		      struct node_entry *ret);
	/* From position POS (0: the beginning), without "." and "..". -ENOTDIR */
	int (*list)(const struct node_ref *dir, uint64_t pos, node_list_fn *fn, void *arg,
		    struct call *call);
	/* -EINVAL; the caller frees */
	int (*readlink)(const struct node_ref *ref, struct call *call, char **ret);
	/* -EISDIR */
	ssize_t (*read)(const struct node_ref *ref, uint64_t off, void *buf, size_t len,
			struct call *call);
	/* A descriptor, for the caller to close, of a file on disk that has exactly these bytes;
	 * -ENOENT where there is none yet, and then make_backing may make it out of what is at
	 * hand. For files that never change; -EOPNOTSUPP */
	int (*backing)(const struct node_ref *ref, struct call *call);
	int (*make_backing)(const struct node_ref *ref, struct call *call);
	/* -ENXIO from the size on, else no holes */
	int64_t (*seek)(const struct node_ref *ref, uint64_t off, int whence, struct call *call);
	/* -ENODATA */
	ssize_t (*getxattr)(const struct node_ref *ref, const char *name, void *buf, size_t cap,
			    struct call *call);
	/* 0 */
	ssize_t (*listxattr)(const struct node_ref *ref, char *buf, size_t cap, struct call *call);
	/* all below: -EROFS */
	int (*create)(const struct node_ref *dir, const char *name, mode_t mode, struct call *call,
		      struct node_entry *ret);
	int (*mkdir)(const struct node_ref *dir, const char *name, mode_t mode, struct call *call,
		     struct node_entry *ret);
	int (*symlink)(const struct node_ref *dir, const char *name, const char *target,
		       struct call *call, struct node_entry *ret);
	/* A fifo, socket, device, or regular file. */
	int (*mknod)(const struct node_ref *dir, const char *name, const struct node_device *what,
		     struct call *call, struct node_entry *ret);
	/* NAME in DIR for FILE, which may be of another kind: -EXDEV then. */
	int (*link)(const struct node_ref *dir, const char *name, const struct node_ref *file,
		    struct call *call, struct node_entry *ret);
	int (*unlink)(const struct node_ref *dir, const char *name, struct call *call);
	int (*rmdir)(const struct node_ref *dir, const char *name, struct call *call);
	int (*rename)(const struct node_ref *dir, const char *name, const struct node_ref *to_dir,
		      const char *to_name, unsigned flags, struct call *call);
	ssize_t (*write)(const struct node_ref *ref, uint64_t off, const void *buf, size_t len,
			 struct call *call);
	int (*setattr)(const struct node_ref *ref, const struct node_change *change,
		       struct call *call);
	int (*setxattr)(const struct node_ref *ref, const char *name, const void *value, size_t len,
			int flags, struct call *call);
	int (*removexattr)(const struct node_ref *ref, const char *name, struct call *call);
	/* A close() of a descriptor; 0 where there is nothing to say. */
	int (*flush)(const struct node_ref *ref, struct call *call);
	/* fsync(), of a file or directory; 0. */
	int (*fsync)(const struct node_ref *ref, struct call *call);
};

struct nodes; /* the table */

struct node {
	const struct node_ops *ops;
	struct nodes *table;
	struct node *parent; /* held; NULL for roots */
	char *name;	     /* owned */
	uint64_t disc;	     /* tells apart nodes of the same parent and name */
	uint64_t ino;	     /* st_ino of sub 0 */
	/* guarded by the table's lock */
	uint64_t refs;
	struct node *hash_next;
	bool interned;
	/* the inode room's, guarded by its lock */
	uint32_t slot; /* 0: none */
};

struct nodes *nodes_new(void);
void nodes_free(struct nodes *nodes);

/* A zeroed object of SIZE bytes that begins with a node, whose head is filled in, with one
 * reference: holds PARENT, copies NAME. Its free() must take what is still zero. NULL when memory
 * is short. */
void *node_new(size_t size, struct nodes *table, const struct node_ops *ops, struct node *parent,
	       const char *name);
/* The interned node, held, or NULL. */
struct node *node_find(struct nodes *nodes, const struct node *parent, const char *name,
		       uint64_t disc);
/* Interns FRESH (its reference goes to the caller), or drops it for one that came first. */
struct node *node_intern(struct node *fresh, uint64_t disc);
struct node *node_ref(struct node *node);
void node_unref(struct node *node);
void node_cleanup(struct node **node);
#define AUTO_NODE CLEANUP(node_cleanup)

/* st_ino for a name below a node: stable over remounts. */
uint64_t node_ino(const struct node *parent, const char *name);

/* Dispatch: the operation, or the answer that stands for a NULL one. */
int node_getattr(const struct node_ref *ref, struct call *call, struct node_attr *ret);
int node_lookup(const struct node_ref *dir, const char *name, struct call *call,
		struct node_entry *ret);
int node_list(const struct node_ref *dir, uint64_t pos, node_list_fn *fn, void *arg,
	      struct call *call);
int node_readlink(const struct node_ref *ref, struct call *call, char **ret);
ssize_t node_read(const struct node_ref *ref, uint64_t off, void *buf, size_t len,
		  struct call *call);
static inline bool node_may_have_backing(const struct node_ref *ref)
{
	return ref->node->ops->backing;
}
int node_backing(const struct node_ref *ref, struct call *call);
int node_make_backing(const struct node_ref *ref, struct call *call);
int64_t node_seek(const struct node_ref *ref, uint64_t off, int whence, struct call *call);
ssize_t node_getxattr(const struct node_ref *ref, const char *name, void *buf, size_t cap,
		      struct call *call);
ssize_t node_listxattr(const struct node_ref *ref, char *buf, size_t cap, struct call *call);
int node_create(const struct node_ref *dir, const char *name, mode_t mode, struct call *call,
		struct node_entry *ret);
int node_mkdir(const struct node_ref *dir, const char *name, mode_t mode, struct call *call,
	       struct node_entry *ret);
int node_symlink(const struct node_ref *dir, const char *name, const char *target,
		 struct call *call, struct node_entry *ret);
int node_mknod(const struct node_ref *dir, const char *name, const struct node_device *what,
	       struct call *call, struct node_entry *ret);
int node_link(const struct node_ref *dir, const char *name, const struct node_ref *file,
	      struct call *call, struct node_entry *ret);
int node_unlink(const struct node_ref *dir, const char *name, struct call *call);
int node_rmdir(const struct node_ref *dir, const char *name, struct call *call);
int node_rename(const struct node_ref *dir, const char *name, const struct node_ref *to_dir,
		const char *to_name, unsigned flags, struct call *call);
ssize_t node_write(const struct node_ref *ref, uint64_t off, const void *buf, size_t len,
		   struct call *call);
int node_setattr(const struct node_ref *ref, const struct node_change *change, struct call *call);
int node_setxattr(const struct node_ref *ref, const char *name, const void *value, size_t len,
		  int flags, struct call *call);
int node_removexattr(const struct node_ref *ref, const char *name, struct call *call);
int node_flush(const struct node_ref *ref, struct call *call);
int node_fsync(const struct node_ref *ref, struct call *call);

#endif
