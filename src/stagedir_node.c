/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stagedir_node: the files and directories of a tree under _push, one node an inode: a node moves
 * with its file, and holds it for those who have it open after it lost its name.
 * Must not know what becomes of the tree.
 */
#include <errno.h>

#include "stagedir_priv.h"
#include "regfs/log.h"
#include "regfs/push_tree.h"

/* Only this mount changes the tree, and the kernel knows what it asked for. */
#define TIMEOUT_S	  1.0
#define LIST_BATCH	  64
#define NUMBER_BITS	  40 /* of an inode's number within its tree */
#define ROOT_NUMBER	  1
#define SMALLEST_FREE_INO 2 /* 1 is the mount's root, 0 none */

struct stagenode {
	struct node node;
	struct staged *staged;	   /* held */
	struct stage_inode *inode; /* held */
};

static const struct node_ops stagenode_ops;

static struct stagenode *node_of(const struct node_ref *ref)
{
	return CONTAINER_OF(ref->node, struct stagenode, node);
}

static struct stage_inode *inode_of(const struct node_ref *ref)
{
	return node_of(ref)->inode;
}

static bool is_root(const struct stagenode *node)
{
	return stage_inode_number(node->inode) == ROOT_NUMBER;
}

static uint64_t ino_of_number(const struct staged *staged, uint64_t number)
{
	uint64_t ino = hash64(staged->number, &number, sizeof(number));

	return ino < SMALLEST_FREE_INO ? ino + SMALLEST_FREE_INO : ino;
}

static uint64_t ino_of(const struct staged *staged, const struct stage_inode *inode)
{
	return ino_of_number(staged, stage_inode_number(inode));
}

uint64_t stagenode_root_ino(const struct staged *staged)
{
	return ino_of_number(staged, ROOT_NUMBER);
}

static void node_free(struct node *base)
{
	struct stagenode *node = CONTAINER_OF(base, struct stagenode, node);

	stage_inode_unref(node->inode);
	staged_unref(node->staged);
	free(node);
}

/* INODE is taken over. */
static int node_get(struct staged *staged, struct node *parent, struct stage_inode *inode,
		    struct node **ret)
{
	struct nodes *nodes = staged->dirs->context->nodes;
	uint64_t which = staged->number << NUMBER_BITS | stage_inode_number(inode);
	struct node *found = node_find(nodes, parent, "stage", which);
	struct stagenode *node;

	if (found) {
		stage_inode_unref(inode);
		*ret = found;
		return 0;
	}
	node = node_new(sizeof(*node), nodes, &stagenode_ops, parent, "stage");
	if (!node) {
		stage_inode_unref(inode);
		return -ENOMEM;
	}
	node->staged = staged_ref(staged);
	node->inode = inode;
	node->node.ino = ino_of(staged, inode);
	*ret = node_intern(&node->node, which);
	return 0;
}

int stagenode_entry(struct staged *staged, struct node *parent, struct stage_inode *inode,
		    struct call *call, struct node_entry *ret)
{
	struct node_entry entry = {.timeout = TIMEOUT_S, .cached = true};
	int r;

	/* The tree goes away as a whole, and under other names. */
	if (stage_inode_number(inode) == ROOT_NUMBER)
		entry.timeout = 0;
	r = node_get(staged, parent, inode, &entry.ref.node);
	if (r < 0)
		return r;
	r = node_getattr(&entry.ref, call, &entry.attr);
	if (r < 0) {
		node_unref(entry.ref.node);
		return r;
	}
	*ret = entry;
	return 0;
}

/* The entry of a child of REF; INODE is taken over. */
static int child_entry(const struct node_ref *ref, struct stage_inode *inode, struct call *call,
		       struct node_entry *ret)
{
	return stagenode_entry(node_of(ref)->staged, ref->node->parent, inode, call, ret);
}

/* --- looking --- */

static int stage_getattr(const struct node_ref *ref, struct call *call, struct node_attr *ret)
{
	const struct stagenode *node = node_of(ref);

	(void)call;
	stage_stat(node->inode, &ret->st);
	ret->st.st_ino = ref->node->ino;
	ret->timeout = TIMEOUT_S;
	ret->exact = true;
	return 0;
}

static int node_lookup_child(const struct node_ref *ref, const char *name, struct call *call,
			     struct node_entry *ret)
{
	struct stage_inode *inode;
	int r = stage_lookup(inode_of(ref), name, &inode);

	return r < 0 ? r : child_entry(ref, inode, call, ret);
}

static int list_batch(const struct stagenode *node, const struct stage_children *batch,
		      node_list_fn *fn, void *arg)
{
	for (size_t i = 0; i < batch->n; i++) {
		const struct stage_child *child = &batch->children[i];
		struct stat st;
		struct node_listed listed = {
			.pos = child->pos,
			.name = child->name,
			.len = strlen(child->name),
			.ino = ino_of(node->staged, child->inode),
		};

		stage_stat(child->inode, &st);
		listed.type = st.st_mode & S_IFMT;
		if (fn(arg, &listed) != 0)
			return 1;
	}
	return 0;
}

static int node_list_children(const struct node_ref *ref, uint64_t pos, node_list_fn *fn, void *arg,
			      struct call *call)
{
	size_t n = LIST_BATCH;
	bool full = false;

	(void)call;
	while (!full && n == LIST_BATCH) {
		struct stage_children batch;
		int r = stage_list(inode_of(ref), pos, LIST_BATCH, &batch);

		if (r < 0)
			return r;
		n = batch.n;
		pos = n ? batch.children[n - 1].pos : pos;
		full = list_batch(node_of(ref), &batch, fn, arg);
		stage_children_release(&batch);
	}
	return 0;
}

static int node_target(const struct node_ref *ref, struct call *call, char **ret)
{
	const char *target = stage_target(inode_of(ref));
	char *copy = target ? strdup(target) : NULL;

	(void)call;
	if (!copy)
		return target ? -ENOMEM : -EINVAL;
	*ret = copy;
	return 0;
}

/* --- names --- */

static int make(const struct node_ref *ref, const char *name, struct stage_made *made,
		struct call *call, struct node_entry *ret)
{
	struct stage_inode *inode;
	int r;

	made->uid = call->uid;
	made->gid = call->gid;
	r = stage_make(inode_of(ref), name, made, &inode);
	return r < 0 ? r : child_entry(ref, inode, call, ret);
}

/* `cp image.tar _push/1.6` copies into 1.6 where that is a directory, of a push just before:
 * nothing would be pushed, and cp succeed. */
static int check_archive(const struct node_ref *ref, const char *name)
{
	static const char *const suffixes[] = {".tar", ".tar.gz", ".tgz", ".tar.zst"};
	struct staged *staged = node_of(ref)->staged;
	bool archive = false;

	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++)
		archive |= ends_with(name, suffixes[i]);
	if (!archive || !is_root(node_of(ref)) || !push_tree_is_confirmed(staged->tree))
		return 0;
	log_error("%s/%s/_push: %s would be copied into the directory that was pushed there, which "
		  "pushes nothing: remove the directory first, or copy to TAG.tar",
		  staged->store->name, staged->repo, name);
	return -EBUSY;
}

static int node_make_file(const struct node_ref *ref, const char *name, mode_t mode,
			  struct call *call, struct node_entry *ret)
{
	struct stage_made made = {.mode = S_IFREG | (mode & 07777)};

	int r = check_archive(ref, name);
	return r < 0 ? r : make(ref, name, &made, call, ret);
}

static int node_make_dir(const struct node_ref *ref, const char *name, mode_t mode,
			 struct call *call, struct node_entry *ret)
{
	struct stage_made made = {.mode = S_IFDIR | (mode & 07777)};

	return make(ref, name, &made, call, ret);
}

static int node_make_symlink(const struct node_ref *ref, const char *name, const char *target,
			     struct call *call, struct node_entry *ret)
{
	struct stage_made made = {.mode = S_IFLNK | 0777, .target = target};

	return make(ref, name, &made, call, ret);
}

static int node_make_device(const struct node_ref *ref, const char *name,
			    const struct node_device *what, struct call *call,
			    struct node_entry *ret)
{
	struct stage_made made = {.mode = what->mode, .rdev = what->rdev};

	return make(ref, name, &made, call, ret);
}

static int node_make_link(const struct node_ref *ref, const char *name, const struct node_ref *file,
			  struct call *call, struct node_entry *ret)
{
	int r;

	if (file->node->ops != &stagenode_ops)
		return -EXDEV;
	if (staged_may_settle(node_of(ref)->staged) && !wait_may_block(call->wait))
		return -EWOULDBLOCK;
	r = stage_link(inode_of(ref), name, inode_of(file));
	if (r == 0)
		r = staged_settled(node_of(ref)->staged, inode_of(file), call->wait);
	if (r < 0)
		return r;
	return child_entry(ref, stage_inode_ref(inode_of(file)), call, ret);
}

static int node_remove_file(const struct node_ref *ref, const char *name, struct call *call)
{
	(void)call;
	return stage_unlink(inode_of(ref), name);
}

static int node_remove_dir(const struct node_ref *ref, const char *name, struct call *call)
{
	(void)call;
	return stage_rmdir(inode_of(ref), name);
}

/* What is renamed may be a blob that comes under its name, and the last of a layout: then the
 * verdict is the rename's. It has moved all the same. */
static int node_move(const struct node_ref *ref, const char *name, const struct node_ref *to,
		     const char *to_name, unsigned flags, struct call *call)
{
	const struct stage_place from_place = {.dir = inode_of(ref), .name = name};
	struct stage_place to_place = {.name = to_name};
	AUTO_INODE struct stage_inode *moved = NULL;
	int r;

	if (to->node->ops != &stagenode_ops)
		return -EXDEV;
	if (staged_may_settle(node_of(to)->staged) && !wait_may_block(call->wait))
		return -EWOULDBLOCK;
	to_place.dir = inode_of(to);
	r = stage_lookup(from_place.dir, name, &moved);
	if (r == 0)
		r = stage_rename(&from_place, &to_place, flags);
	return r < 0 ? r : staged_settled(node_of(to)->staged, moved, call->wait);
}

/* --- bytes and attributes --- */

static ssize_t node_read_bytes(const struct node_ref *ref, uint64_t off, void *buf, size_t len,
			       struct call *call)
{
	(void)call;
	return stage_read(inode_of(ref), off, buf, len);
}

static ssize_t node_write_bytes(const struct node_ref *ref, uint64_t off, const void *buf,
				size_t len, struct call *call)
{
	return stage_write(inode_of(ref), off, buf, len, call->wait);
}

static int64_t node_seek_bytes(const struct node_ref *ref, uint64_t off, int whence,
			       struct call *call)
{
	(void)call;
	return stage_seek(inode_of(ref), off, whence);
}

/*
 * A mode that comes with an owner or a size is the kernel's, which takes set-user-ID away by it. It
 * knows no sticky bit then (fuse_change_attributes_common() hides it from the VFS): that one stays.
 */
static mode_t wanted_mode(struct stage_inode *inode, const struct node_change *change)
{
	struct stat st;

	if (!change->uid && !change->gid && !change->size)
		return *change->mode;
	stage_stat(inode, &st);
	return *change->mode | (st.st_mode & S_ISVTX);
}

static int node_change_attr(const struct node_ref *ref, const struct node_change *change,
			    struct call *call)
{
	mode_t mode = change->mode ? wanted_mode(inode_of(ref), change) : 0;
	const struct stage_change wanted = {
		.mode = change->mode ? &mode : NULL,
		.uid = change->uid,
		.gid = change->gid,
		.atime = change->atime,
		.mtime = change->mtime,
	};
	int r = 0;

	if (change->size)
		r = stage_truncate(inode_of(ref), (uint64_t)*change->size, call->wait);
	return r < 0 ? r : stage_change(inode_of(ref), &wanted);
}

static ssize_t node_xattr(const struct node_ref *ref, const char *name, void *buf, size_t cap,
			  struct call *call)
{
	(void)call;
	return stage_getxattr(inode_of(ref), name, buf, cap);
}

static ssize_t node_xattrs(const struct node_ref *ref, char *buf, size_t cap, struct call *call)
{
	(void)call;
	return stage_listxattr(inode_of(ref), buf, cap);
}

static int node_set_xattr(const struct node_ref *ref, const char *name, const void *value,
			  size_t len, int flags, struct call *call)
{
	(void)call;
	return stage_setxattr(inode_of(ref), name, value, len, flags);
}

static int node_remove_xattr(const struct node_ref *ref, const char *name, struct call *call)
{
	(void)call;
	return stage_removexattr(inode_of(ref), name);
}

/* --- the verdict --- */

static int node_close(const struct node_ref *ref, struct call *call)
{
	return staged_settled(node_of(ref)->staged, inode_of(ref), call->wait);
}

static int node_sync(const struct node_ref *ref, struct call *call)
{
	return is_root(node_of(ref)) ? staged_sync(node_of(ref)->staged, ref->node->parent, call)
				     : 0;
}

static const struct node_ops stagenode_ops = {
	.kind = "staged",
	.free = node_free,
	.getattr = stage_getattr,
	.lookup = node_lookup_child,
	.list = node_list_children,
	.readlink = node_target,
	.read = node_read_bytes,
	.seek = node_seek_bytes,
	.getxattr = node_xattr,
	.listxattr = node_xattrs,
	.create = node_make_file,
	.mkdir = node_make_dir,
	.symlink = node_make_symlink,
	.mknod = node_make_device,
	.link = node_make_link,
	.unlink = node_remove_file,
	.rmdir = node_remove_dir,
	.rename = node_move,
	.write = node_write_bytes,
	.setattr = node_change_attr,
	.setxattr = node_set_xattr,
	.removexattr = node_remove_xattr,
	.flush = node_close,
	.fsync = node_sync,
};
