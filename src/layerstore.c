/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layerstore: the directories of a layer store above its layers: store/ and a reference.
 * Must not know how references are resolved, nor what is in a layer's directory.
 */
#include <errno.h>

#include "layerstore_priv.h"

/* --- what the directories share --- */

int layerstore_entry(struct node *node, struct call *call, struct node_entry *ret)
{
	struct node_entry entry = {.ref = {.node = node}, .timeout = NODE_FOREVER};
	int r = node_getattr(&entry.ref, call, &entry.attr);

	if (r < 0)
		node_unref(node);
	else
		*ret = entry;
	return r;
}

int layerstore_list_name(const struct node *dir, uint64_t pos, const char *name, mode_t type,
			 node_list_fn *fn, void *arg)
{
	const struct node_listed listed = {
		.pos = pos,
		.name = name,
		.len = strlen(name),
		.type = type,
		.ino = node_ino(dir, name),
	};

	return fn(arg, &listed);
}

/* --- a reference --- */

struct refdir {
	struct node node;
	const struct context *context;
	const struct layerstore_source *source;
	struct ref ref;
};

static const struct refdir *refdir_of(const struct node_ref *ref)
{
	return CONTAINER_OF(ref->node, const struct refdir, node);
}

static int refdir_getattr(const struct node_ref *ref, struct call *call, struct node_attr *ret)
{
	(void)call;
	context_stat(refdir_of(ref)->context, ref->node->ino, S_IFDIR | 0755, 0, &ret->st);
	ret->timeout = NODE_FOREVER;
	return 0;
}

static int refdir_lookup(const struct node_ref *ref, const char *name, struct call *call,
			 struct node_entry *ret)
{
	const struct refdir *dir = refdir_of(ref);
	struct node *node = node_find(dir->context->nodes, ref->node, name, 0);
	struct image_part part;
	struct digest digest;
	int r;

	if (node)
		return layerstore_entry(node, call, ret);
	if (digest_parse(name, &digest) < 0)
		return -ENOENT;
	r = dir->source->layer(dir->source->arg, &dir->ref, &digest, call, &part);
	if (r < 0)
		return r;
	r = layerdir_new(&(struct layerdir_options){dir->context, ref->node, &digest, &part},
			 call->wait, &node);
	image_unref(part.image);
	return r < 0 ? r : layerstore_entry(node, call, ret);
}

/* Whether a layer below layer N has its digest: it is listed already. */
static bool is_repeated(const struct oci_manifest *manifest, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (digest_equal(&manifest->layers[i].digest, &manifest->layers[n].digest))
			return true;
	return false;
}

static void list_layers(const struct node *node, const struct oci_manifest *manifest, uint64_t pos,
			node_list_fn *fn, void *arg)
{
	for (; oci_is_image(manifest) && pos < manifest->nlayers; pos++) {
		char name[DIGEST_STR_MAX];

		digest_format(&manifest->layers[pos].digest, name);
		if (!is_repeated(manifest, pos) &&
		    layerstore_list_name(node, pos + 1, name, S_IFDIR, fn, arg))
			break;
	}
}

static int refdir_list(const struct node_ref *ref, uint64_t pos, node_list_fn *fn, void *arg,
		       struct call *call)
{
	const struct refdir *dir = refdir_of(ref);
	struct image *image, *chosen;
	int r = dir->source->image(dir->source->arg, &dir->ref, call, &image);

	if (r < 0)
		return r;
	r = image_platform(image, call->wait, &chosen);
	image_unref(image);
	if (r < 0)
		return r;
	list_layers(ref->node, image_manifest(chosen), pos, fn, arg);
	image_unref(chosen);
	return 0;
}

/* A runtime says that it uses the layer no more: the answer is how it knows that it was heard. */
static int refdir_rmdir(const struct node_ref *ref, const char *name, struct call *call)
{
	struct digest digest;

	(void)ref, (void)call;
	return digest_parse(name, &digest) == 0 ? -ENOENT : -EROFS;
}

static void refdir_free(struct node *node)
{
	free(CONTAINER_OF(node, struct refdir, node));
}

static const struct node_ops refdir_ops = {
	.kind = "reference",
	.free = refdir_free,
	.getattr = refdir_getattr,
	.lookup = refdir_lookup,
	.list = refdir_list,
	.rmdir = refdir_rmdir,
};

/* --- store/ --- */

struct layerstore {
	struct node node;
	const struct context *context;
	const struct layerstore_source *source;
};

static const struct layerstore *layerstore_of(const struct node_ref *ref)
{
	return CONTAINER_OF(ref->node, const struct layerstore, node);
}

static int layerstore_getattr(const struct node_ref *ref, struct call *call, struct node_attr *ret)
{
	(void)call;
	context_stat(layerstore_of(ref)->context, ref->node->ino, S_IFDIR | 0755, 0, &ret->st);
	ret->timeout = NODE_FOREVER;
	return 0;
}

static int layerstore_lookup(const struct node_ref *ref, const char *name, struct call *call,
			     struct node_entry *ret)
{
	const struct layerstore *store = layerstore_of(ref);
	struct nodes *nodes = store->context->nodes;
	struct node *node = node_find(nodes, ref->node, name, 0);
	struct refdir *dir;
	struct ref reference;
	int r;

	if (node)
		return layerstore_entry(node, call, ret);
	r = layerstore_reference(name, &reference);
	if (r < 0)
		return r;
	dir = node_new(sizeof(*dir), nodes, &refdir_ops, ref->node, name);
	if (!dir)
		return -ENOMEM;
	dir->context = store->context;
	dir->source = store->source;
	dir->ref = reference;
	return layerstore_entry(node_intern(&dir->node, 0), call, ret);
}

/* References are entered by name. */
static int layerstore_list(const struct node_ref *ref, uint64_t pos, node_list_fn *fn, void *arg,
			   struct call *call)
{
	(void)ref, (void)pos, (void)fn, (void)arg, (void)call;
	return 0;
}

static void layerstore_free(struct node *node)
{
	free(CONTAINER_OF(node, struct layerstore, node));
}

static const struct node_ops layerstore_ops = {
	.kind = "layer store",
	.free = layerstore_free,
	.getattr = layerstore_getattr,
	.lookup = layerstore_lookup,
	.list = layerstore_list,
};

int layerstore_new(const struct context *context, const struct layerstore_source *source,
		   struct node *parent, struct node **ret)
{
	struct node *found = node_find(context->nodes, parent, "store", 0);
	struct layerstore *store;

	if (found) {
		*ret = found;
		return 0;
	}
	store = node_new(sizeof(*store), context->nodes, &layerstore_ops, parent, "store");
	if (!store)
		return -ENOMEM;
	store->context = context;
	store->source = source;
	*ret = node_intern(&store->node, 0);
	return 0;
}
