/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layerstore_layer: a layer's directory in a layer store.
 * Must not know how references are resolved, nor how info is written.
 */
#include <errno.h>

#include "regfs/treedir.h"

#include "layerstore_priv.h"

/* -1 where it is not at hand. */
static int64_t decoded_size(const struct image_part *part, const struct layerstore_facts *facts)
{
	const struct index_info *info;
	struct layer *layer;
	struct wait wait;
	int64_t size = -1;
	int r;

	if (digest_equal(&facts->layer->digest, facts->diff_id))
		return (int64_t)facts->layer->size;
	wait_init(&wait, false);
	r = image_layer(part->image, part->layer, &wait, &layer);
	wait_release(&wait);
	if (r < 0)
		return -1;
	info = &layer_index(layer)->info;
	if (!info->by_toc)
		size = (int64_t)info->decoded_size;
	layer_unref(layer);
	return size;
}

/* What containers/storage keeps of the layer (the JSON of its struct Layer). It takes over what is
 * said here, so that only what is sure is said. */
static int layer_info(const struct image_part *part, const struct digest *digest, struct wait *wait,
		      struct buf *ret)
{
	const struct oci_descriptor *layer = &image_manifest(part->image)->layers[part->layer];
	struct layerstore_facts facts = {.layer = layer};
	const struct oci_config *config;
	int r = image_config(part->image, wait, &config);

	if (r < 0)
		return r;
	facts.diff_id = &config->diff_ids[part->layer];
	if (!digest_equal(digest, &layer->digest))
		facts.toc = digest;
	facts.diff_size = decoded_size(part, &facts);
	return layerstore_info(&facts, ret);
}

/* Sub 0 is the directory. */
enum layerdir_sub { SUB_DIR, SUB_INFO, SUB_BLOB };

struct layerdir {
	struct node node;
	const struct context *context;
	struct image_part part; /* its image is held */
	struct buf info;	/* constant */
};

static const struct layerdir *layerdir_of(const struct node_ref *ref)
{
	return CONTAINER_OF(ref->node, const struct layerdir, node);
}

static const struct oci_descriptor *blob_of(const struct layerdir *dir)
{
	return &image_manifest(dir->part.image)->layers[dir->part.layer];
}

static int layerdir_getattr(const struct node_ref *ref, struct call *call, struct node_attr *ret)
{
	const struct layerdir *dir = layerdir_of(ref);
	const struct context *context = dir->context;
	struct blob_id id;

	(void)call;
	ret->timeout = NODE_FOREVER;
	if (ref->sub == SUB_INFO)
		context_stat(context, node_ino(ref->node, "info"), S_IFREG | 0444, dir->info.len,
			     &ret->st);
	else if (ref->sub == SUB_BLOB)
		context_stat(context, node_ino(ref->node, "blob"), S_IFREG | 0444,
			     blob_of(dir)->size, &ret->st);
	else
		context_stat(context, ref->node->ino, S_IFDIR | 0755, 0, &ret->st);
	if (ref->sub == SUB_BLOB) {
		image_blob_id(dir->part.image, blob_of(dir), &id);
		ret->timeout = context_raw(context, &id, &ret->st);
	}
	return 0;
}

static int lookup_diff(const struct node_ref *ref, struct call *call, struct node_entry *ret)
{
	const struct layerdir *dir = layerdir_of(ref);
	const struct treedir_options options = {
		.context = dir->context,
		.parent = ref->node,
		.name = "diff",
		.image = dir->part.image,
		.layer = (int)dir->part.layer,
		.form = IMAGE_STACKED,
		.serves = true,
		.verbatim = true,
	};
	struct node *tree;
	int r = treedir_new(&options, call->wait, &tree);

	return r < 0 ? r : layerstore_entry(tree, call, ret);
}

static int layerdir_lookup(const struct node_ref *ref, const char *name, struct call *call,
			   struct node_entry *ret)
{
	struct node_entry entry = {.timeout = NODE_FOREVER, .ref = {.node = ref->node}};
	int r;

	if (ref->sub != SUB_DIR)
		return -ENOTDIR;
	if (!strcmp(name, "diff"))
		return lookup_diff(ref, call, ret);
	if (!strcmp(name, "info"))
		entry.ref.sub = SUB_INFO;
	else if (!strcmp(name, "blob"))
		entry.ref.sub = SUB_BLOB;
	else
		return -ENOENT;
	r = layerdir_getattr(&entry.ref, call, &entry.attr);
	if (r < 0)
		return r;
	node_ref(ref->node);
	*ret = entry;
	return 0;
}

static int layerdir_list(const struct node_ref *ref, uint64_t pos, node_list_fn *fn, void *arg,
			 struct call *call)
{
	static const char *const names[] = {"diff", "info", "blob"};

	(void)call;
	if (ref->sub != SUB_DIR)
		return -ENOTDIR;
	for (; pos < ARRAY_SIZE(names); pos++)
		if (layerstore_list_name(ref->node, pos + 1, names[pos],
					 pos == 0 ? S_IFDIR : S_IFREG, fn, arg))
			break;
	return 0;
}

static ssize_t layerdir_read(const struct node_ref *ref, uint64_t off, void *buf, size_t len,
			     struct call *call)
{
	const struct layerdir *dir = layerdir_of(ref);
	const struct oci_descriptor *blob = blob_of(dir);
	struct blob_id id;

	if (ref->sub == SUB_DIR)
		return -EISDIR;
	if (ref->sub == SUB_INFO)
		return context_copy(dir->info.data, dir->info.len, off, buf, len);
	if (blob->data)
		return context_copy(blob->data, blob->data_len, off, buf, len);
	image_blob_id(dir->part.image, blob, &id);
	return blob_read_raw(dir->context->blobs, &id, off, buf, len, call->wait);
}

/* A runtime says that it uses the layer: the answer is how it knows that it was heard. */
static int layerdir_create(const struct node_ref *ref, const char *name, mode_t mode,
			   struct call *call, struct node_entry *ret)
{
	(void)mode, (void)call, (void)ret;
	return ref->sub == SUB_DIR && !strcmp(name, "use") ? -ENOENT : -EROFS;
}

static void layerdir_free(struct node *node)
{
	struct layerdir *dir = CONTAINER_OF(node, struct layerdir, node);

	image_unref(dir->part.image);
	buf_release(&dir->info);
	free(dir);
}

static const struct node_ops layerdir_ops = {
	.kind = "stored layer",
	.free = layerdir_free,
	.getattr = layerdir_getattr,
	.lookup = layerdir_lookup,
	.list = layerdir_list,
	.read = layerdir_read,
	.create = layerdir_create,
};

int layerdir_new(const struct layerdir_options *options, struct wait *wait, struct node **ret)
{
	const struct image_part *part = options->part;
	AUTO_BUF struct buf info = BUF_INIT(LAYERSTORE_INFO_MAX);
	char name[DIGEST_STR_MAX];
	struct layerdir *dir;
	int r = layer_info(part, options->digest, wait, &info);

	if (r < 0)
		return r;
	dir = node_new(sizeof(*dir), options->context->nodes, &layerdir_ops, options->parent,
		       digest_format(options->digest, name));
	if (!dir)
		return -ENOMEM;
	dir->context = options->context;
	dir->part = (struct image_part){.image = image_ref(part->image), .layer = part->layer};
	dir->info = info;
	info = (struct buf)BUF_INIT(LAYERSTORE_INFO_MAX);
	*ret = node_intern(&dir->node, 0);
	return 0;
}
