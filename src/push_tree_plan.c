/* SPDX-License-Identifier: Apache-2.0 */
/*
 * push_tree_plan: what an OCI layout holds (image-spec, image-layout.md): which image is meant, and
 * whether all of it is there.
 * Must not know stores.
 */
#include <errno.h>

#include "push_tree_priv.h"

#define DOCUMENTS_MAX 4096
#define PARTS_MAX     16384
#define DEPTH_MAX     4 /* indexes in indexes */
#define LAYOUT_MAX    (4 * KIB)
#define REF_NAME      "org.opencontainers.image.ref.name"
#define VERSION	      "imageLayoutVersion"
#define PATH_MAX_LEN  (DIGEST_STR_MAX + 16)

void layout_plan_release(struct layout_plan *plan)
{
	for (size_t i = 0; i < plan->ndocuments; i++) {
		free(plan->documents[i].media_type);
		free(plan->documents[i].bytes);
	}
	free(plan->documents);
	for (size_t i = 0; i < plan->nparts; i++)
		stage_inode_unref(plan->parts[i].inode);
	free(plan->parts);
	*plan = (struct layout_plan){0};
}

/* Says what is wrong or missing, once. Returns ERR. */
static int PRINTF_LIKE(3, 4) say(struct layout_plan *plan, int err, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(plan->why, sizeof(plan->why), fmt, args);
	va_end(args);
	return err;
}

static const char *blob_path(const struct digest *digest, char out[static PATH_MAX_LEN])
{
	char hex[DIGEST_STR_MAX];

	snprintf(out, PATH_MAX_LEN, "blobs/%s/%s", digest_algo_name(digest->algo),
		 digest_hex(digest, hex));
	return out;
}

/* The blob if it is there with all its bytes: held. -ENODATA if not. */
static int find_blob(struct push_tree *tree, const struct oci_descriptor *part,
		     struct layout_plan *plan, struct stage_inode **ret)
{
	AUTO_INODE struct stage_inode *inode = NULL;
	char path[PATH_MAX_LEN];
	struct stat st;

	int err = stage_find(tree->stage, blob_path(&part->digest, path), &inode);
	if (err)
		return err == -ENOMEM ? err : say(plan, -ENODATA, "%s is missing", path);
	stage_stat(inode, &st);
	if (!S_ISREG(st.st_mode))
		return say(plan, -EINVAL, "%s is not a file", path);
	if (st.st_size < part->size)
		return say(plan, -ENODATA, "%s has %jd bytes of %jd", path, (intmax_t)st.st_size,
			   (intmax_t)part->size);
	if (st.st_size > part->size)
		return say(plan, -EINVAL, "%s has %jd bytes, its manifest says %jd", path,
			   (intmax_t)st.st_size, (intmax_t)part->size);
	*ret = STEAL(inode);
	return 0;
}

/* --- what a manifest needs --- */

struct layout_part *layout_plan_part(const struct layout_plan *plan, const struct digest *digest)
{
	for (size_t i = 0; i < plan->nparts; i++) {
		if (digest_equal(&plan->parts[i].digest, digest))
			return &plan->parts[i];
	}
	return NULL;
}

static int add_part(struct push_tree *tree, const struct oci_descriptor *part,
		    struct layout_plan *plan)
{
	struct stage_inode *inode;

	if (layout_plan_part(plan, &part->digest))
		return 0;
	if (plan->nparts >= PARTS_MAX)
		return say(plan, -EINVAL, "the image has too many blobs");
	struct layout_part *grown = reallocarray(plan->parts, plan->nparts + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	plan->parts = grown;
	int err = find_blob(tree, part, plan, &inode);
	if (err == -ENODATA && part->nurls)
		return 0; /* a foreign layer is elsewhere */
	if (err)
		return err;
	grown[plan->nparts++] = (struct layout_part){
		.digest = part->digest, .size = (uint64_t)part->size, .inode = inode};
	return 0;
}

/* The bytes are what their digest says. *RET is the caller's. */
static int read_document(struct push_tree *tree, const struct oci_descriptor *at,
			 struct layout_plan *plan, struct buf *ret)
{
	AUTO_INODE struct stage_inode *inode = NULL;
	char path[PATH_MAX_LEN];
	struct digest found;

	int err = find_blob(tree, at, plan, &inode);
	if (!err)
		err = push_tree_read(inode, OCI_MANIFEST_MAX, ret);
	if (err == -EFBIG)
		return say(plan, -EINVAL, "%s is larger than a manifest may be",
			   blob_path(&at->digest, path));
	if (err)
		return err;
	digest_of(at->digest.algo, ret->data, ret->len, &found);
	if (!digest_equal(&found, &at->digest))
		return say(plan, -EINVAL, "%s has another digest", blob_path(&at->digest, path));
	return 0;
}

static int add_document(struct layout_plan *plan, const char *media_type,
			const struct digest *digest, struct buf *bytes)
{
	if (plan->ndocuments >= DOCUMENTS_MAX)
		return say(plan, -EINVAL, "the image has too many manifests");
	struct archive_document *grown = reallocarray(plan->documents, plan->ndocuments + 1,
						      sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	plan->documents = grown;
	struct archive_document *document = &grown[plan->ndocuments];
	*document = (struct archive_document){.digest = *digest, .media_type = strdup(media_type)};
	if (!document->media_type)
		return -ENOMEM;
	document->bytes = buf_steal(bytes, &document->len);
	plan->ndocuments++;
	return 0;
}

static bool has_document(const struct layout_plan *plan, const struct digest *digest)
{
	for (size_t i = 0; i < plan->ndocuments; i++) {
		if (digest_equal(&plan->documents[i].digest, digest))
			return true;
	}
	return false;
}

static int add_image(struct push_tree *tree, const struct oci_descriptor *at, unsigned depth,
		     struct layout_plan *plan);

static int add_below(struct push_tree *tree, const struct oci_manifest *manifest, unsigned depth,
		     struct layout_plan *plan)
{
	int err = 0;

	if (manifest->kind == OCI_KIND_MANIFEST)
		err = add_part(tree, &manifest->config, plan);
	for (size_t i = 0; i < manifest->nlayers && !err; i++) {
		err = add_part(tree, &manifest->layers[i], plan);
		struct layout_part *part = layout_plan_part(plan, &manifest->layers[i].digest);
		if (part)
			part->layer |= oci_is_image(manifest);
	}
	for (size_t i = 0; i < manifest->nchildren && !err; i++) {
		const struct oci_descriptor *child = &manifest->children[i];
		if (*child->media_type && !oci_is_manifest_type(child->media_type))
			err = add_part(tree, child, plan);
		else
			err = add_image(tree, child, depth + 1, plan);
	}
	return err;
}

/* A manifest or index and all it names, the lowest first. */
static int add_image(struct push_tree *tree, const struct oci_descriptor *at, unsigned depth,
		     struct layout_plan *plan)
{
	CLEANUP(oci_manifest_release) struct oci_manifest manifest = {0};
	AUTO_BUF struct buf bytes = BUF_INIT(OCI_MANIFEST_MAX + 1);
	char path[PATH_MAX_LEN];
	const char *why = "";

	if (depth > DEPTH_MAX)
		return say(plan, -EINVAL, "its indexes are nested too deep");
	if (has_document(plan, &at->digest))
		return 0;
	int err = read_document(tree, at, plan, &bytes);
	if (err)
		return err;
	err = oci_manifest_parse(bytes.data, bytes.len, at->media_type, &manifest, &why);
	if (err && err != -ENOMEM)
		return say(plan, -EINVAL, "%s: %s", blob_path(&at->digest, path), why);
	if (!err)
		err = add_below(tree, &manifest, depth, plan);
	return err ? err : add_document(plan, manifest.media_type, &at->digest, &bytes);
}

/* --- which image --- */

static bool is_called(const struct oci_descriptor *child, const char *tag)
{
	const char *name = oci_annotation(child->annotations, child->nannotations, REF_NAME);
	const char *colon = name ? strrchr(name, ':') : NULL;

	return name && (!strcmp(name, tag) || (colon && !strcmp(colon + 1, tag)));
}

/* Of those that fit the one, or NULL: *RET_MANY tells none from several. One that is there under
 * several names is one. */
static const struct oci_descriptor *only_one(const struct oci_manifest *index, const char *tag,
					     bool *ret_many)
{
	const struct oci_descriptor *found = NULL;

	*ret_many = false;
	for (size_t i = 0; i < index->nchildren; i++) {
		const struct oci_descriptor *child = &index->children[i];
		if (tag && !is_called(child, tag))
			continue;
		if (found && !digest_equal(&found->digest, &child->digest))
			*ret_many = true;
		found = child;
	}
	return *ret_many ? NULL : found;
}

static void name_all(const struct oci_manifest *index, struct buf *ret)
{
	for (size_t i = 0; i < index->nchildren; i++) {
		const struct oci_descriptor *child = &index->children[i];
		const char *name = oci_annotation(child->annotations, child->nannotations,
						  REF_NAME);
		char digest[DIGEST_STR_MAX];

		/* What does not fit is left out: it is a sentence. */
		(void)!buf_printf(ret, "%s%s", i ? ", " : "",
				  name ? name : digest_format(&child->digest, digest));
	}
}

static int choose(struct push_tree *tree, const struct oci_manifest *index,
		  struct layout_plan *plan, const struct oci_descriptor **ret)
{
	AUTO_BUF struct buf names = BUF_INIT(120);
	bool many, many_called;
	char tag[REF_TAG_MAX];

	push_tree_tag(tree, tag);
	const struct oci_descriptor *only = only_one(index, NULL, &many);
	const struct oci_descriptor *called = only_one(index, tag, &many_called);
	*ret = only ? only : called;
	if (*ret)
		return 0;
	if (!many)
		return say(plan, -ENODATA, "index.json names no image yet");
	name_all(index, &names);
	return say(plan, -EINVAL, "index.json holds several images, and not one called %s: %s", tag,
		   names.data ? names.data : "");
}

/* A file at the top; what is empty is only begun. */
static int read_top(struct push_tree *tree, const char *name, size_t max, struct layout_plan *plan,
		    struct buf *ret)
{
	AUTO_INODE struct stage_inode *file = NULL;

	int err = stage_find(tree->stage, name, &file);
	if (err == -ENOENT)
		return say(plan, -ENODATA, "%s is missing", name);
	if (!err)
		err = push_tree_read(file, max, ret);
	if (err == -EFBIG || err == -EISDIR)
		return say(plan, -EINVAL, "%s is not what it should be", name);
	return !err && !ret->len ? say(plan, -ENODATA, "%s is empty", name) : err;
}

static int check_version(struct push_tree *tree, struct layout_plan *plan)
{
	AUTO_BUF struct buf text = BUF_INIT(LAYOUT_MAX + 1);

	int err = read_top(tree, "oci-layout", LAYOUT_MAX, plan, &text);
	if (err)
		return err;
	AUTO_FREE char *version = oci_json_string(text.data, text.len, VERSION);
	return version ? 0 : say(plan, -ENODATA, "oci-layout has no " VERSION);
}

/* Nobody could tell which of the two is meant. */
static int check_alone(struct push_tree *tree, struct layout_plan *plan)
{
	static const char *const others[] = {TREE_ROOTFS, TREE_BASE, TREE_CONFIG, TREE_FILES};

	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		AUTO_INODE struct stage_inode *other = NULL;
		if (stage_find(tree->stage, others[i], &other) == 0)
			return say(plan, -EINVAL, "%s does not go with an OCI layout", others[i]);
	}
	return 0;
}

int layout_plan_make(struct push_tree *tree, bool only_top, struct layout_plan *ret)
{
	CLEANUP(oci_manifest_release) struct oci_manifest index = {0};
	AUTO_BUF struct buf text = BUF_INIT(OCI_MANIFEST_MAX + 1);
	const struct oci_descriptor *chosen = NULL;
	const char *why = "";

	int err = check_alone(tree, ret);
	if (!err)
		err = check_version(tree, ret);
	if (!err)
		err = read_top(tree, "index.json", OCI_MANIFEST_MAX, ret, &text);
	if (err)
		return err;
	err = oci_manifest_parse(text.data, text.len, OCI_TYPE_INDEX, &index, &why);
	/* Closed early, it may be cut off. */
	if (err && err != -ENOMEM)
		return say(ret, -ENODATA, "index.json: %s", why);
	if (!err)
		err = choose(tree, &index, ret, &chosen);
	if (err)
		return err;
	ret->top = chosen->digest;
	return only_top ? 0 : add_image(tree, chosen, 0, ret);
}
