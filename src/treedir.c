/* SPDX-License-Identifier: Apache-2.0 */
/*
 * treedir: rootfs nodes as nodes of the mount.
 * Must not know FUSE, nor how layers are merged.
 */
#include <errno.h>

#include "regfs/treedir.h"

#define LAYER_SHIFT 32

struct treedir {
	struct node node;
	const struct context *context;
	struct image *image;   /* held */
	struct rootfs *rootfs; /* the image's */
	int layer;	       /* TREEDIR_ROOTFS, or which layer's */
	bool serves, transform;
	struct node
		*files; /* held: the tree that non-directories belong to; NULL if that is this */
};

static const struct treedir *tree_of(const struct node_ref *ref)
{
	return CONTAINER_OF(ref->node, const struct treedir, node);
}

static struct rootfs_node sub_to_node(uint64_t sub)
{
	if (sub == 0)
		return ROOTFS_ROOT;
	return (struct rootfs_node){.layer = sub >> LAYER_SHIFT, .ino = (uint32_t)sub};
}

/* Never 0: inode 0 is a layer's root, which only stands for itself in ROOTFS_ROOT. */
static uint64_t node_to_sub(struct rootfs_node node)
{
	if (node.layer == ROOTFS_ROOT_LAYER)
		return 0;
	return (uint64_t)node.layer << LAYER_SHIFT | node.ino;
}

static struct node_ref child_ref(const struct treedir *tree, struct rootfs_node node, mode_t type)
{
	const struct node *owner = S_ISDIR(type) || !tree->files ? &tree->node : tree->files;

	return (struct node_ref){.node = (struct node *)owner, .sub = node_to_sub(node)};
}

static int read_target(const struct treedir *tree, struct rootfs_node node, struct wait *wait,
		       char **ret)
{
	AUTO_FREE char *target = NULL;
	unsigned depth;
	int r = rootfs_readlink(tree->rootfs, node, wait, &target);

	if (r == 0 && !tree->transform) {
		*ret = STEAL(target);
		return 0;
	}
	if (r == 0)
		r = rootfs_depth(tree->rootfs, node, wait, &depth);
	return r < 0 ? r : treedir_target(target, depth, ret);
}

/* A symlink's size is the length of what reading it gives. */
static int target_size(const struct treedir *tree, struct rootfs_node node, struct wait *wait,
		       struct stat *st)
{
	AUTO_FREE char *target = NULL;
	int r = read_target(tree, node, wait, &target);

	if (r == 0)
		st->st_size = (off_t)strlen(target);
	return r;
}

static int tree_stat(const struct treedir *tree, struct rootfs_node node, struct wait *wait,
		     struct node_attr *ret)
{
	bool exact = true;
	int r = rootfs_stat(tree->rootfs, node, wait, &ret->st, &exact);

	ret->timeout = exact ? NODE_FOREVER : 1;
	if (r == 0 && S_ISLNK(ret->st.st_mode) && tree->transform)
		r = target_size(tree, node, wait, &ret->st);
	return r;
}

/* rootfs/ itself must not cost a layer under ls -l: until its layers are at hand it has the
 * attributes of a directory that no layer names. Who stands in it meanwhile (tar) sees neither its
 * size nor its time of change move. */
static int root_stat(const struct treedir *tree, struct node_attr *ret)
{
	const struct oci_config *config;
	struct wait wait;
	uint32_t nsec = 0;
	int64_t sec = 0;
	int r;

	wait_init(&wait, false);
	r = tree_stat(tree, ROOTFS_ROOT, &wait, ret);
	if (r == 0)
		ret->st.st_ino = tree->node.ino; /* the same, whether a layer is at hand or not */
	if (r == -EWOULDBLOCK) {
		context_stat(tree->context, tree->node.ino, S_IFDIR | 0755, ROOTFS_DIR_SIZE,
			     &ret->st);
		if (image_config(tree->image, &wait, &config) == 0 && config->created)
			(void)oci_time_parse(config->created, &sec, &nsec);
		ret->st.st_mtim = (struct timespec){.tv_sec = sec, .tv_nsec = nsec};
		ret->st.st_atim = ret->st.st_mtim;
		ret->st.st_uid = ret->st.st_gid = 0;
		ret->timeout = 0;
		r = 0;
	}
	ret->st.st_ctim = tree->context->started;
	wait_release(&wait);
	return r;
}

static int tree_getattr(const struct node_ref *ref, struct call *call, struct node_attr *ret)
{
	const struct treedir *tree = tree_of(ref);

	if (ref->sub == 0)
		return root_stat(tree, ret);
	return tree_stat(tree, sub_to_node(ref->sub), call->wait, ret);
}

static int tree_lookup(const struct node_ref *dir, const char *name, struct call *call,
		       struct node_entry *ret)
{
	const struct treedir *tree = tree_of(dir);
	struct rootfs_node child;
	int r = rootfs_lookup(tree->rootfs, sub_to_node(dir->sub), name, strlen(name), call->wait,
			      &child);

	if (r < 0)
		return r;
	if (tree->serves)
		image_entered(tree->image);
	ret->timeout = NODE_FOREVER;
	r = tree_stat(tree, child, call->wait, &ret->attr);
	if (r < 0)
		return r;
	ret->ref = child_ref(tree, child, ret->attr.st.st_mode);
	node_ref(ret->ref.node);
	return 0;
}

struct list_call {
	const struct treedir *tree;
	node_list_fn *fn;
	void *arg;
	struct call *call;
};

static int list_one(void *arg, uint64_t pos, const char *name, size_t len, struct rootfs_node node)
{
	struct list_call *list = arg;
	struct node_entry entry = {.timeout = NODE_FOREVER};
	struct node_listed listed = {.pos = pos + 1, .name = name, .len = len, .ino = 2};

	/* A name whose attributes cannot be told is listed all the same: looking it up says why. */
	if (tree_stat(list->tree, node, list->call->wait, &entry.attr) == 0) {
		entry.ref = child_ref(list->tree, node, entry.attr.st.st_mode);
		listed.type = entry.attr.st.st_mode;
		listed.ino = entry.attr.st.st_ino;
		listed.entry = &entry;
	}
	return list->fn(list->arg, &listed);
}

static int tree_list(const struct node_ref *dir, uint64_t pos, node_list_fn *fn, void *arg,
		     struct call *call)
{
	struct list_call list = {.tree = tree_of(dir), .fn = fn, .arg = arg, .call = call};

	if (list.tree->serves)
		image_entered(list.tree->image);
	return rootfs_list(list.tree->rootfs, sub_to_node(dir->sub), pos, list_one, &list,
			   call->wait);
}

static int tree_readlink(const struct node_ref *ref, struct call *call, char **ret)
{
	return read_target(tree_of(ref), sub_to_node(ref->sub), call->wait, ret);
}

static ssize_t tree_read(const struct node_ref *ref, uint64_t off, void *buf, size_t len,
			 struct call *call)
{
	const struct treedir *tree = tree_of(ref);
	struct rootfs_node node = sub_to_node(ref->sub);
	unsigned layer = tree->layer == TREEDIR_ROOTFS ? node.layer : (unsigned)tree->layer;

	image_reads(tree->image, layer, node.ino, off, len);
	return rootfs_read(tree->rootfs, node, off, buf, len, call->wait);
}

static int tree_backing(const struct node_ref *ref, struct call *call)
{
	return rootfs_backing(tree_of(ref)->rootfs, sub_to_node(ref->sub), call->wait);
}

static int tree_make_backing(const struct node_ref *ref, struct call *call)
{
	return rootfs_make_backing(tree_of(ref)->rootfs, sub_to_node(ref->sub), call->wait);
}

static int64_t tree_seek(const struct node_ref *ref, uint64_t off, int whence, struct call *call)
{
	return rootfs_seek(tree_of(ref)->rootfs, sub_to_node(ref->sub), off, whence, call->wait);
}

/* Which layer, and which step of the build, a file comes from. */
static ssize_t origin_xattr(const struct treedir *tree, const char *name, uint64_t sub, void *buf,
			    size_t cap, struct wait *wait)
{
	const struct oci_manifest *manifest = image_manifest(tree->image);
	char text[DIGEST_STR_MAX];
	const char *created_by;
	unsigned layer = tree->layer;
	int r = 0;

	if (tree->layer == TREEDIR_ROOTFS)
		r = rootfs_origin(tree->rootfs, sub_to_node(sub), wait, &layer);
	if (r < 0)
		return r;
	if (layer >= manifest->nlayers)
		return -ENODATA;
	if (!strcmp(name, "user.regfs.layer")) {
		snprintf(text, sizeof(text), "%u", layer + 1);
		return context_xattr(text, buf, cap);
	}
	if (!strcmp(name, "user.regfs.layer_digest"))
		return context_xattr(digest_format(&manifest->layers[layer].digest, text), buf,
				     cap);
	r = image_created_by(tree->image, layer, wait, &created_by);
	return r < 0 ? r : context_xattr(created_by, buf, cap);
}

/* ls -l asks the root of a tree for ACLs and must not fetch a layer for that: until one is at hand
 * the root has none, like a directory that nobody named. */
static ssize_t root_getxattr(const struct treedir *tree, const char *name, void *buf, size_t cap)
{
	struct wait wait;
	ssize_t r;

	wait_init(&wait, false);
	r = rootfs_getxattr(tree->rootfs, ROOTFS_ROOT, name, buf, cap, &wait);
	wait_release(&wait);
	return r == -EWOULDBLOCK ? -ENODATA : r;
}

static ssize_t root_listxattr(const struct treedir *tree, char *buf, size_t cap)
{
	struct wait wait;
	ssize_t r;

	wait_init(&wait, false);
	r = rootfs_listxattr(tree->rootfs, ROOTFS_ROOT, buf, cap, &wait);
	wait_release(&wait);
	return r == -EWOULDBLOCK ? 0 : r;
}

static ssize_t tree_getxattr(const struct node_ref *ref, const char *name, void *buf, size_t cap,
			     struct call *call)
{
	const struct treedir *tree = tree_of(ref);

	if (!strcmp(name, "user.regfs.layer") || !strcmp(name, "user.regfs.layer_digest") ||
	    !strcmp(name, "user.regfs.created_by"))
		return origin_xattr(tree, name, ref->sub, buf, cap, call->wait);
	if (ref->sub == 0)
		return root_getxattr(tree, name, buf, cap);
	return rootfs_getxattr(tree->rootfs, sub_to_node(ref->sub), name, buf, cap, call->wait);
}

static ssize_t tree_listxattr(const struct node_ref *ref, char *buf, size_t cap, struct call *call)
{
	const struct treedir *tree = tree_of(ref);

	if (ref->sub == 0)
		return root_listxattr(tree, buf, cap);
	return rootfs_listxattr(tree->rootfs, sub_to_node(ref->sub), buf, cap, call->wait);
}

static void tree_free(struct node *node)
{
	struct treedir *tree = CONTAINER_OF(node, struct treedir, node);

	node_unref(tree->files);
	image_unref(tree->image);
	free(tree);
}

static const struct node_ops tree_ops = {
	.kind = "tree",
	.free = tree_free,
	.getattr = tree_getattr,
	.lookup = tree_lookup,
	.list = tree_list,
	.readlink = tree_readlink,
	.read = tree_read,
	.backing = tree_backing,
	.make_backing = tree_make_backing,
	.seek = tree_seek,
	.getxattr = tree_getxattr,
	.listxattr = tree_listxattr,
};

/* A tree like VALUES (all but its node). */
static int tree_make(const struct treedir *values, struct node *parent, const char *name,
		     struct node **ret)
{
	struct treedir *tree = node_new(sizeof(*tree), values->context->nodes, &tree_ops, parent,
					name);

	if (!tree)
		return -ENOMEM;
	tree->context = values->context;
	tree->image = image_ref(values->image);
	tree->rootfs = values->rootfs;
	tree->layer = values->layer;
	tree->serves = values->serves;
	tree->transform = values->transform;
	tree->files = values->files ? node_ref(values->files) : NULL;
	*ret = node_intern(&tree->node, 0);
	return 0;
}

/* The tree that the files of an image (or of its layer) belong to, whatever path they are reached
 * by. */
static int files_tree(const struct treedir *values, enum image_form form, struct node **ret)
{
	bool merged = values->layer == TREEDIR_ROOTFS;
	AUTO_FREE char *name = NULL;
	const char *kind = "image";
	char text[DIGEST_STR_MAX];
	struct digest digest;

	if (merged) {
		image_tree_files(values->image, &digest);
	} else {
		image_layer_tree_files(values->image, values->layer, form, &digest);
		kind = form == IMAGE_STACKED ? "stacked" : "layer";
	}
	name = format("%s%s %s", values->transform ? "transformed " : "", kind,
		      digest_format(&digest, text));
	if (!name)
		return -ENOMEM;
	*ret = node_find(values->context->nodes, NULL, name, 0);
	return *ret ? 0 : tree_make(values, NULL, name, ret);
}

int treedir_new(const struct treedir_options *options, struct wait *wait, struct node **ret)
{
	struct treedir values = {
		.context = options->context,
		.image = options->image,
		.layer = options->layer,
		.serves = options->serves,
		.transform = options->context->transform_symlinks && !options->verbatim,
	};
	AUTO_NODE struct node *files = NULL;
	struct node *known = node_find(options->context->nodes, options->parent, options->name, 0);
	int r;

	if (known) {
		*ret = known;
		return 0;
	}
	if (options->layer == TREEDIR_ROOTFS)
		r = image_rootfs(options->image, wait, &values.rootfs);
	else
		r = image_layer_tree(options->image, options->layer, options->form, wait,
				     &values.rootfs);
	if (r < 0)
		return r;
	r = files_tree(&values, options->form, &files);
	if (r < 0)
		return r;
	values.files = files;
	return tree_make(&values, options->parent, options->name, ret);
}
