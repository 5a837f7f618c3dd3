/* SPDX-License-Identifier: Apache-2.0 */
/*
 * node: the table of interned nodes, and dispatch.
 * Must not know the kinds, nor FUSE.
 */
#include <errno.h>

#include "regfs/node.h"

#define BUCKETS_START 256

struct nodes {
	pthread_mutex_t lock;
	struct node **buckets; /* guarded by lock */
	size_t nbuckets;       /* a power of two */
	size_t count;
};

struct nodes *nodes_new(void)
{
	struct nodes *nodes = calloc(1, sizeof(*nodes));

	if (!nodes)
		return NULL;
	nodes->buckets = calloc(BUCKETS_START, sizeof(struct node *));
	if (!nodes->buckets) {
		free(nodes);
		return NULL;
	}
	nodes->nbuckets = BUCKETS_START;
	pthread_mutex_init(&nodes->lock, NULL);
	return nodes;
}

void nodes_free(struct nodes *nodes)
{
	if (!nodes)
		return;
	pthread_mutex_destroy(&nodes->lock);
	free(nodes->buckets);
	free(nodes);
}

uint64_t node_ino(const struct node *parent, const char *name)
{
	return hash_to_ino(hash64(parent ? parent->ino : 0, name, strlen(name)));
}

void *node_new(size_t size, struct nodes *table, const struct node_ops *ops, struct node *parent,
	       const char *name)
{
	struct node *node = calloc(1, size);
	char *copy = strdup(name);

	if (!node || !copy) {
		free(node);
		free(copy);
		return NULL;
	}
	*node = (struct node){
		.ops = ops,
		.table = table,
		.parent = parent ? node_ref(parent) : NULL,
		.name = copy,
		.ino = node_ino(parent, name),
		.refs = 1,
	};
	return node;
}

static size_t bucket_of(const struct nodes *nodes, const struct node *parent, const char *name,
			uint64_t disc)
{
	uint64_t seed = (uint64_t)(uintptr_t)parent ^ (disc * 0x9e3779b97f4a7c15u);

	return hash64(seed, name, strlen(name)) & (nodes->nbuckets - 1);
}

/* Lock held. */
static struct node *find_locked(struct nodes *nodes, const struct node *parent, const char *name,
				uint64_t disc)
{
	struct node *node = nodes->buckets[bucket_of(nodes, parent, name, disc)];

	while (node && !(node->parent == parent && node->disc == disc && !strcmp(node->name, name)))
		node = node->hash_next;
	if (node)
		node->refs++;
	return node;
}

struct node *node_find(struct nodes *nodes, const struct node *parent, const char *name,
		       uint64_t disc)
{
	struct node *node;

	pthread_mutex_lock(&nodes->lock);
	node = find_locked(nodes, parent, name, disc);
	pthread_mutex_unlock(&nodes->lock);
	return node;
}

/* Lock held. A table that cannot grow only gets slower. */
static void grow_locked(struct nodes *nodes)
{
	size_t old_n = nodes->nbuckets;
	struct node **old = nodes->buckets;
	struct node **bigger;

	if (nodes->count < old_n)
		return;
	bigger = calloc(old_n * 2, sizeof(struct node *));
	if (!bigger)
		return;
	nodes->buckets = bigger;
	nodes->nbuckets = old_n * 2;
	for (size_t i = 0; i < old_n; i++) {
		for (struct node *node = old[i], *next; node; node = next) {
			size_t at = bucket_of(nodes, node->parent, node->name, node->disc);

			next = node->hash_next;
			node->hash_next = bigger[at];
			bigger[at] = node;
		}
	}
	free(old);
}

struct node *node_intern(struct node *fresh, uint64_t disc)
{
	struct nodes *nodes = fresh->table;
	struct node *first;

	fresh->disc = disc;
	pthread_mutex_lock(&nodes->lock);
	first = find_locked(nodes, fresh->parent, fresh->name, disc);
	if (!first) {
		size_t at;

		grow_locked(nodes);
		at = bucket_of(nodes, fresh->parent, fresh->name, disc);
		fresh->hash_next = nodes->buckets[at];
		nodes->buckets[at] = fresh;
		fresh->interned = true;
		nodes->count++;
	}
	pthread_mutex_unlock(&nodes->lock);
	if (!first)
		return fresh;
	node_unref(fresh);
	return first;
}

struct node *node_ref(struct node *node)
{
	pthread_mutex_lock(&node->table->lock);
	node->refs++;
	pthread_mutex_unlock(&node->table->lock);
	return node;
}

/* Lock held. */
static void unhash_locked(struct node *node)
{
	struct nodes *nodes = node->table;
	struct node **link =
		&nodes->buckets[bucket_of(nodes, node->parent, node->name, node->disc)];

	while (*link != node)
		link = &(*link)->hash_next;
	*link = node->hash_next;
	nodes->count--;
}

void node_unref(struct node *node)
{
	while (node) {
		struct node *parent = node->parent;
		bool last;

		pthread_mutex_lock(&node->table->lock);
		last = --node->refs == 0;
		if (last && node->interned)
			unhash_locked(node);
		pthread_mutex_unlock(&node->table->lock);
		if (!last)
			return;
		free(node->name);
		node->ops->free(node);
		node = parent;
	}
}

void node_cleanup(struct node **node)
{
	node_unref(*node);
}

int node_getattr(const struct node_ref *ref, struct call *call, struct node_attr *ret)
{
	return ref->node->ops->getattr(ref, call, ret);
}

int node_lookup(const struct node_ref *dir, const char *name, struct call *call,
		struct node_entry *ret)
{
	return dir->node->ops->lookup ? dir->node->ops->lookup(dir, name, call, ret) : -ENOTDIR;
}

int node_list(const struct node_ref *dir, uint64_t pos, node_list_fn *fn, void *arg,
	      struct call *call)
{
	return dir->node->ops->list ? dir->node->ops->list(dir, pos, fn, arg, call) : -ENOTDIR;
}

int node_readlink(const struct node_ref *ref, struct call *call, char **ret)
{
	return ref->node->ops->readlink ? ref->node->ops->readlink(ref, call, ret) : -EINVAL;
}

ssize_t node_read(const struct node_ref *ref, uint64_t off, void *buf, size_t len,
		  struct call *call)
{
	return ref->node->ops->read ? ref->node->ops->read(ref, off, buf, len, call) : -EISDIR;
}

int node_backing(const struct node_ref *ref, struct call *call)
{
	return ref->node->ops->backing ? ref->node->ops->backing(ref, call) : -EOPNOTSUPP;
}

int node_make_backing(const struct node_ref *ref, struct call *call)
{
	return ref->node->ops->make_backing ? ref->node->ops->make_backing(ref, call) : -EOPNOTSUPP;
}

int64_t node_seek(const struct node_ref *ref, uint64_t off, int whence, struct call *call)
{
	struct node_attr attr;
	int r;

	if (ref->node->ops->seek)
		return ref->node->ops->seek(ref, off, whence, call);
	r = node_getattr(ref, call, &attr);
	if (r < 0)
		return r;
	if (off >= (uint64_t)attr.st.st_size)
		return -ENXIO;
	return whence == SEEK_DATA ? (int64_t)off : attr.st.st_size;
}

ssize_t node_getxattr(const struct node_ref *ref, const char *name, void *buf, size_t cap,
		      struct call *call)
{
	if (!ref->node->ops->getxattr)
		return -ENODATA;
	return ref->node->ops->getxattr(ref, name, buf, cap, call);
}

ssize_t node_listxattr(const struct node_ref *ref, char *buf, size_t cap, struct call *call)
{
	return ref->node->ops->listxattr ? ref->node->ops->listxattr(ref, buf, cap, call) : 0;
}

int node_create(const struct node_ref *dir, const char *name, mode_t mode, struct call *call,
		struct node_entry *ret)
{
	return dir->node->ops->create ? dir->node->ops->create(dir, name, mode, call, ret) : -EROFS;
}

int node_mkdir(const struct node_ref *dir, const char *name, mode_t mode, struct call *call,
	       struct node_entry *ret)
{
	return dir->node->ops->mkdir ? dir->node->ops->mkdir(dir, name, mode, call, ret) : -EROFS;
}

int node_symlink(const struct node_ref *dir, const char *name, const char *target,
		 struct call *call, struct node_entry *ret)
{
	if (!dir->node->ops->symlink)
		return -EROFS;
	return dir->node->ops->symlink(dir, name, target, call, ret);
}

int node_mknod(const struct node_ref *dir, const char *name, const struct node_device *what,
	       struct call *call, struct node_entry *ret)
{
	return dir->node->ops->mknod ? dir->node->ops->mknod(dir, name, what, call, ret) : -EROFS;
}

int node_link(const struct node_ref *dir, const char *name, const struct node_ref *file,
	      struct call *call, struct node_entry *ret)
{
	return dir->node->ops->link ? dir->node->ops->link(dir, name, file, call, ret) : -EROFS;
}

int node_unlink(const struct node_ref *dir, const char *name, struct call *call)
{
	return dir->node->ops->unlink ? dir->node->ops->unlink(dir, name, call) : -EROFS;
}

int node_rmdir(const struct node_ref *dir, const char *name, struct call *call)
{
	return dir->node->ops->rmdir ? dir->node->ops->rmdir(dir, name, call) : -EROFS;
}

int node_rename(const struct node_ref *dir, const char *name, const struct node_ref *to_dir,
		const char *to_name, unsigned flags, struct call *call)
{
	if (!dir->node->ops->rename)
		return -EROFS;
	return dir->node->ops->rename(dir, name, to_dir, to_name, flags, call);
}

ssize_t node_write(const struct node_ref *ref, uint64_t off, const void *buf, size_t len,
		   struct call *call)
{
	return ref->node->ops->write ? ref->node->ops->write(ref, off, buf, len, call) : -EROFS;
}

int node_setattr(const struct node_ref *ref, const struct node_change *change, struct call *call)
{
	return ref->node->ops->setattr ? ref->node->ops->setattr(ref, change, call) : -EROFS;
}

int node_setxattr(const struct node_ref *ref, const char *name, const void *value, size_t len,
		  int flags, struct call *call)
{
	if (!ref->node->ops->setxattr)
		return -EROFS;
	return ref->node->ops->setxattr(ref, name, value, len, flags, call);
}

int node_removexattr(const struct node_ref *ref, const char *name, struct call *call)
{
	return ref->node->ops->removexattr ? ref->node->ops->removexattr(ref, name, call) : -EROFS;
}

int node_flush(const struct node_ref *ref, struct call *call)
{
	return ref->node->ops->flush ? ref->node->ops->flush(ref, call) : 0;
}

int node_fsync(const struct node_ref *ref, struct call *call)
{
	return ref->node->ops->fsync ? ref->node->ops->fsync(ref, call) : 0;
}
