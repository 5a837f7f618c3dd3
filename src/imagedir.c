/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imagedir: one node object for an image's directory and the files in it; which file is meant
 * is in the sub (imagedir_priv.h). rootfs/, layers/NN/ and platforms/X/ are nodes of their own.
 * Must not know how references are resolved, nor how layers are merged.
 */
#include <errno.h>
#include <inttypes.h>

#include "regfs/treedir.h"

#include "imagedir_priv.h"

static const struct {
	const char *name;
	enum imagedir_sub sub;
	mode_t type;
} top_names[] = {
	{"digest", SUB_DIGEST, S_IFREG},       {"manifest.json", SUB_MANIFEST, S_IFREG},
	{"config.json", SUB_CONFIG, S_IFREG},  {"history", SUB_HISTORY, S_IFREG},
	{"rootfs", SUB_ROOTFS, S_IFDIR},       {"layers", SUB_LAYERS, S_IFDIR},
	{"image.tar", SUB_TAR, S_IFREG},       {"oci", SUB_OCI, S_IFDIR},
	{"platforms", SUB_PLATFORMS, S_IFDIR}, {"referrers", SUB_REFERRERS, S_IFDIR},
	{"files", SUB_FILES, S_IFDIR},
};

struct imagedir *imagedir_of(const struct node_ref *ref)
{
	return CONTAINER_OF(ref->node, struct imagedir, node);
}

const struct oci_manifest *imagedir_main(const struct imagedir *dir)
{
	return dir->main ? image_manifest(dir->main) : NULL;
}

/* What an image of no file system, or an index without our platform, does not have. */
static bool has_sub(const struct imagedir *dir, enum imagedir_sub sub)
{
	const struct oci_manifest *manifest = imagedir_main(dir);

	switch (sub) {
	case SUB_CONFIG:
		return manifest && manifest->config.digest.algo != DIGEST_NONE;
	case SUB_FILES:
		return manifest && manifest->kind == OCI_KIND_MANIFEST && !oci_is_image(manifest);
	case SUB_HISTORY:
	case SUB_ROOTFS:
	case SUB_LAYERS:
		return manifest && oci_is_image(manifest);
	case SUB_PLATFORMS:
		return image_manifest(dir->image)->kind == OCI_KIND_INDEX;
	default:
		return true;
	}
}

/* --- layers/ --- */

/* ".tar", ".tar.gz" or ".tar.zst", by the media type. */
static const char *imagedir_layer_suffix(const char *media_type)
{
	if (ends_with(media_type, "zstd"))
		return ".tar.zst";
	if (ends_with(media_type, "gzip"))
		return ".tar.gz";
	return ".tar";
}

static int layer_width(const struct oci_manifest *manifest)
{
	return manifest->nlayers > 99 ? 3 : 2;
}

static void layer_name(const struct oci_manifest *manifest, size_t n, bool blob,
		       char out[static LAYER_NAME_MAX])
{
	const char *suffix = blob ? imagedir_layer_suffix(manifest->layers[n].media_type) : "";

	snprintf(out, LAYER_NAME_MAX, "%0*zu%s", layer_width(manifest), n + 1, suffix);
}

static int lookup_layer(struct imagedir *dir, const char *name, struct call *call,
			struct node_entry *ret)
{
	const struct oci_manifest *manifest = imagedir_main(dir);
	struct treedir_options options = {
		.context = dir->context,
		.parent = &dir->node,
		.image = dir->main,
		.form = dir->context->overlay_whiteouts ? IMAGE_STACKED : IMAGE_STORED,
	};
	char expected[LAYER_NAME_MAX];
	AUTO_FREE char *path = NULL;
	struct node *tree;
	unsigned long n = strtoul(name, NULL, 10);
	int r;

	if (n < 1 || n > manifest->nlayers)
		return -ENOENT;
	layer_name(manifest, n - 1, true, expected);
	if (!strcmp(name, expected))
		return imagedir_entry(dir, SUB(CLASS_LAYER, n - 1), call, ret);
	layer_name(manifest, n - 1, false, expected);
	if (strcmp(name, expected) != 0)
		return -ENOENT;
	path = format("layers/%s", name);
	if (!path)
		return -ENOMEM;
	options.name = path;
	options.layer = n - 1;
	r = treedir_new(&options, call->wait, &tree);
	return r < 0 ? r : imagedir_node_entry(tree, call, ret);
}

static int list_layers(struct imagedir *dir, uint64_t pos, node_list_fn *fn, void *arg)
{
	const struct oci_manifest *manifest = imagedir_main(dir);

	for (; pos < manifest->nlayers * 2; pos++) {
		bool blob = pos & 1;
		char name[LAYER_NAME_MAX];

		layer_name(manifest, pos / 2, blob, name);
		if (imagedir_list_name(dir, pos + 1, name, blob ? S_IFREG : S_IFDIR, fn, arg))
			break;
	}
	return 0;
}

/* --- platforms/ --- */

static bool has_platform(const struct oci_descriptor *child)
{
	return child->platform.os || child->platform.architecture;
}

/* Whether a child before N stands under NAME. */
static bool is_taken(const struct oci_descriptor *children, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++) {
		AUTO_FREE char *other = NULL;

		if (oci_is_attestation(&children[i]) || !has_platform(&children[i]))
			continue;
		other = oci_platform_name(&children[i].platform);
		if (other && !strcmp(other, name))
			return true;
	}
	return false;
}

/* The name of child N in platforms/, or NULL if it is not to stand there: its platform, or its
 * digest if it has none (an index in an index, say), or one that another has. The caller frees. */
static char *platform_name(const struct imagedir *dir, size_t n)
{
	const struct oci_descriptor *children = image_manifest(dir->image)->children;
	char digest[DIGEST_STR_MAX];
	AUTO_FREE char *name = NULL;

	if (oci_is_attestation(&children[n]))
		return NULL;
	if (has_platform(&children[n]))
		name = oci_platform_name(&children[n].platform);
	if (name && !is_taken(children, n, name))
		return STEAL(name);
	digest_format(&children[n].digest, digest);
	*strchr(digest, ':') = '-';
	return strdup(digest);
}

static int lookup_platform(struct imagedir *dir, const char *name, struct call *call,
			   struct node_entry *ret)
{
	const struct oci_manifest *index = image_manifest(dir->image);
	AUTO_FREE char *path = format("platforms/%s", name);
	struct imagedir_options options = {
		.context = dir->context,
		.parent = &dir->node,
		.name = path,
		.index = dir->image,
		.ref_name = dir->ref_name,
		.repo_tag = dir->repo_tag,
	};
	struct node *node;
	size_t n = 0;
	int r;

	if (!path)
		return -ENOMEM;
	for (; n < index->nchildren; n++) {
		AUTO_FREE char *found = platform_name(dir, n);

		if (found && !strcmp(found, name))
			break;
	}
	if (n == index->nchildren)
		return -ENOENT;
	r = image_child(dir->image, n, call->wait, &options.image);
	if (r < 0)
		return r;
	r = imagedir_new(&options, call->wait, &node);
	image_unref(options.image);
	return r < 0 ? r : imagedir_node_entry(node, call, ret);
}

static int list_platforms(struct imagedir *dir, uint64_t pos, node_list_fn *fn, void *arg)
{
	const struct oci_manifest *index = image_manifest(dir->image);

	for (; pos < index->nchildren; pos++) {
		AUTO_FREE char *name = platform_name(dir, pos);

		if (name && imagedir_list_name(dir, pos + 1, name, S_IFDIR, fn, arg))
			break;
	}
	return 0;
}

/* --- the directory itself --- */

static int lookup_top(struct imagedir *dir, const char *name, struct call *call,
		      struct node_entry *ret)
{
	const struct treedir_options options = {
		.context = dir->context,
		.parent = &dir->node,
		.name = name,
		.image = dir->main,
		.layer = TREEDIR_ROOTFS,
		.serves = true,
	};
	struct node *tree;
	size_t i = 0;
	int r;

	while (i < ARRAY_SIZE(top_names) && strcmp(top_names[i].name, name) != 0)
		i++;
	if (i == ARRAY_SIZE(top_names) || !has_sub(dir, top_names[i].sub))
		return -ENOENT;
	if (top_names[i].sub != SUB_ROOTFS)
		return imagedir_entry(dir, top_names[i].sub, call, ret);
	r = treedir_new(&options, call->wait, &tree);
	return r < 0 ? r : imagedir_node_entry(tree, call, ret);
}

static int list_top(struct imagedir *dir, uint64_t pos, node_list_fn *fn, void *arg)
{
	for (; pos < ARRAY_SIZE(top_names); pos++) {
		if (!has_sub(dir, top_names[pos].sub))
			continue;
		if (imagedir_list_name(dir, pos + 1, top_names[pos].name, top_names[pos].type, fn,
				       arg))
			break;
	}
	return 0;
}

static int dir_lookup(const struct node_ref *ref, const char *name, struct call *call,
		      struct node_entry *ret)
{
	struct imagedir *dir = imagedir_of(ref);

	if (sub_class(ref->sub) == CLASS_OCI_DIR || ref->sub == SUB_OCI)
		return imagedir_oci_lookup(dir, ref->sub, name, call, ret);
	if (sub_class(ref->sub) == CLASS_FILE_DIR || ref->sub == SUB_FILES)
		return imagedir_artifact_lookup(dir, ref->sub, name, call, ret);
	switch (ref->sub) {
	case SUB_DIR:
		return lookup_top(dir, name, call, ret);
	case SUB_LAYERS:
		return lookup_layer(dir, name, call, ret);
	case SUB_PLATFORMS:
		return lookup_platform(dir, name, call, ret);
	case SUB_REFERRERS:
		return imagedir_referrers_lookup(dir, name, call, ret);
	default:
		return -ENOTDIR;
	}
}

static int dir_list(const struct node_ref *ref, uint64_t pos, node_list_fn *fn, void *arg,
		    struct call *call)
{
	struct imagedir *dir = imagedir_of(ref);

	if (sub_class(ref->sub) == CLASS_OCI_DIR || ref->sub == SUB_OCI)
		return imagedir_oci_list(dir, ref->sub, pos, fn, arg, call);
	if (sub_class(ref->sub) == CLASS_FILE_DIR || ref->sub == SUB_FILES)
		return imagedir_artifact_list(dir, ref->sub, pos, fn, arg);
	switch (ref->sub) {
	case SUB_DIR:
		return list_top(dir, pos, fn, arg);
	case SUB_LAYERS:
		return list_layers(dir, pos, fn, arg);
	case SUB_PLATFORMS:
		return list_platforms(dir, pos, fn, arg);
	case SUB_REFERRERS:
		return imagedir_referrers_list(dir, pos, fn, arg, call);
	default:
		return -ENOTDIR;
	}
}

static const struct oci_descriptor *xattr_descriptor(struct imagedir *dir, uint64_t sub)
{
	const struct oci_manifest *manifest = imagedir_main(dir);

	if (sub == SUB_CONFIG && manifest)
		return &manifest->config;
	if (sub_class(sub) == CLASS_LAYER && manifest)
		return &manifest->layers[sub_number(sub)];
	if (sub_class(sub) == CLASS_FILE)
		return imagedir_artifact_blob(dir, sub);
	return NULL;
}

static ssize_t dir_getxattr(const struct node_ref *ref, const char *name, void *buf, size_t cap,
			    struct call *call)
{
	struct imagedir *dir = imagedir_of(ref);
	const struct oci_descriptor *descriptor = xattr_descriptor(dir, ref->sub);
	bool whole = ref->sub == SUB_DIR || ref->sub == SUB_MANIFEST || ref->sub == SUB_DIGEST;
	char text[DIGEST_STR_MAX];

	(void)call;
	if (!descriptor && !whole)
		return -ENODATA;
	if (!strcmp(name, "user.regfs.digest"))
		return context_xattr(
			digest_format(whole ? image_digest(dir->image) : &descriptor->digest, text),
			buf, cap);
	if (!strcmp(name, "user.regfs.media_type"))
		return context_xattr(whole ? image_manifest(dir->image)->media_type
					   : descriptor->media_type,
				     buf, cap);
	if (!strcmp(name, "user.regfs.artifact_type") && whole)
		return context_xattr(oci_artifact_type(image_manifest(dir->image)), buf, cap);
	return -ENODATA;
}

static void dir_free(struct node *node)
{
	struct imagedir *dir = CONTAINER_OF(node, struct imagedir, node);

	image_unref(dir->image);
	image_unref(dir->main);
	image_unref(dir->index);
	titles_free(dir->titles);
	archive_map_free(dir->map);
	free(dir->history);
	free(dir->ref_name);
	free(dir->repo_tag);
	pthread_mutex_destroy(&dir->lock);
	free(dir);
}

static const struct node_ops imagedir_ops = {
	.kind = "image",
	.free = dir_free,
	.getattr = imagedir_getattr,
	.lookup = dir_lookup,
	.list = dir_list,
	.read = imagedir_read,
	.getxattr = dir_getxattr,
};

static int imagedir_make(const struct imagedir_options *options, struct image *main_image,
			 struct node **ret)
{
	struct imagedir *dir = node_new(sizeof(*dir), options->context->nodes, &imagedir_ops,
					options->parent, options->name);

	if (!dir)
		return -ENOMEM;
	/* a tag that moved names another directory */
	dir->node.ino = hash64(dir->node.ino, image_digest(options->image)->bytes, DIGEST_MAX);
	pthread_mutex_init(&dir->lock, NULL);
	dir->context = options->context;
	dir->image = image_ref(options->image);
	dir->main = main_image ? image_ref(main_image) : NULL;
	dir->index = options->index ? image_ref(options->index) : NULL;
	dir->ref_name = options->ref_name ? strdup(options->ref_name) : NULL;
	dir->repo_tag = options->repo_tag ? strdup(options->repo_tag) : NULL;
	if (!options->ref_name != !dir->ref_name || !options->repo_tag != !dir->repo_tag) {
		node_unref(&dir->node);
		return -ENOMEM;
	}
	*ret = &dir->node;
	return 0;
}

int imagedir_image(const struct node_ref *ref, struct image **ret)
{
	if (ref->node->ops != &imagedir_ops || ref->sub != SUB_DIR)
		return -ENOENT;
	*ret = image_ref(imagedir_of(ref)->image);
	return 0;
}

int imagedir_new(const struct imagedir_options *options, struct wait *wait, struct node **ret)
{
	const struct digest *digest = image_digest(options->image);
	uint64_t disc = hash64(1, digest->bytes, sizeof(digest->bytes));
	struct node *node = node_find(options->context->nodes, options->parent, options->name,
				      disc);
	struct image *main_image = NULL;
	int r;

	if (node) {
		*ret = node;
		return 0;
	}
	/* where the chosen platform is absent, so are rootfs/ and the like */
	r = image_platform(options->image, wait, &main_image);
	if (r < 0 && r != -ENOENT)
		return r;
	r = imagedir_make(options, main_image, &node);
	image_unref(main_image);
	if (r < 0)
		return r;
	*ret = node_intern(node, disc);
	return 0;
}
