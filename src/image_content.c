/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_content: config, layers and trees of an image.
 * Must not know where manifests come from.
 */
#include <errno.h>

#include "regfs/log.h"

#include "image_priv.h"

#define TABLES_ALONG 3u /* at least */

void image_content_release(struct image *image)
{
	rootfs_free(image->rootfs);
	for (size_t n = 0; image->trees && n < image->manifest.nlayers; n++)
		for (size_t form = 0; form < IMAGE_FORMS; form++)
			rootfs_free(image->trees[n].forms[form]);
	free(image->trees);
	oci_config_release(&image->config);
	buf_release(&image->config_bytes);
}

static void complain(const struct image *image, const char *what, const char *why)
{
	char digest[DIGEST_STR_MAX];

	log_error("%s/%s: %s of %s: %s", image->store->name, image->repo, what,
		  digest_format(&image->digest, digest), why);
}

/* --- config --- */

/* The config's bytes: inline in the descriptor where its digest is right, else the blob. */
static int config_fetch(struct image *image, struct buf *ret, struct wait *wait)
{
	const struct oci_descriptor *descriptor = &image->manifest.config;
	struct digest digest;
	struct blob_id id;

	if (descriptor->data) {
		digest_of(descriptor->digest.algo, descriptor->data, descriptor->data_len, &digest);
		if (digest_equal(&digest, &descriptor->digest))
			return buf_add(ret, descriptor->data, descriptor->data_len);
	}
	image_blob_id(image, descriptor, &id);
	return blob_get(image->images->options.blobs, &id, ret->max, ret, wait);
}

/* An image has a diff ID for each layer. */
static int config_check(const struct image *image, const struct oci_config *config)
{
	if (!oci_is_image(&image->manifest) || config->ndiff_ids == image->manifest.nlayers)
		return 0;
	complain(image, "config", "it does not have as many diff IDs as the manifest has layers");
	return -EIO;
}

/* Fetched, parsed and checked. Content that is wrong is -EBADMSG, logged. */
static int config_make(struct image *image, struct wait *wait, struct buf *bytes,
		       struct oci_config *config)
{
	const char *why = "";

	int r = config_fetch(image, bytes, wait);
	if (r == -EFBIG) {
		complain(image, "config", "larger than 8 MiB");
		return -EBADMSG;
	}
	if (r < 0)
		return r;
	r = oci_config_parse(bytes->data ? bytes->data : "", bytes->len, config, &why);
	if (r == -ENOMEM)
		return r;
	if (r < 0)
		complain(image, "config", why);
	else
		r = config_check(image, config);
	return r < 0 ? -EBADMSG : 0;
}

/* Takes over BYTES and CONFIG, unless somebody was first. */
static void config_set(struct image *image, struct buf *bytes, struct oci_config *config)
{
	pthread_mutex_lock(&image->lock);
	if (!image->has_config) {
		image->config = *config;
		image->config_bytes = *bytes;
		image->has_config = true;
		*config = (struct oci_config){0};
		*bytes = (struct buf)BUF_INIT(OCI_CONFIG_MAX);
	}
	pthread_mutex_unlock(&image->lock);
}

/* 1: it is there; an error that is known for good; 0: not known yet. */
static int config_known(struct image *image)
{
	pthread_mutex_lock(&image->lock);
	int r = image->has_config ? 1 : image->config_error;
	pthread_mutex_unlock(&image->lock);
	return r;
}

static int config_load(struct image *image, struct wait *wait)
{
	AUTO_BUF struct buf bytes = BUF_INIT(OCI_CONFIG_MAX);
	CLEANUP(oci_config_release) struct oci_config config = {0};

	if (image->manifest.kind != OCI_KIND_MANIFEST)
		return -EINVAL;
	int r = config_known(image);
	if (r != 0)
		return r < 0 ? r : 0;
	r = config_make(image, wait, &bytes, &config);
	if (r == 0)
		config_set(image, &bytes, &config);
	if (r != -EBADMSG)
		return r;
	pthread_mutex_lock(&image->lock);
	image->config_error = -EIO;
	pthread_mutex_unlock(&image->lock);
	return -EIO;
}

int image_config(struct image *image, struct wait *wait, const struct oci_config **ret)
{
	int r = config_load(image, wait);

	if (r < 0)
		return r;
	*ret = &image->config;
	return 0;
}

int image_config_bytes(struct image *image, struct wait *wait, const char **ret, size_t *ret_len)
{
	int r = config_load(image, wait);

	if (r < 0)
		return r;
	*ret = image->config_bytes.data;
	*ret_len = image->config_bytes.len;
	return 0;
}

int image_created_by(struct image *image, unsigned n, struct wait *wait, const char **ret)
{
	const struct oci_config *config;
	unsigned layer = 0;
	int r = image_config(image, wait, &config);

	if (r < 0)
		return r;
	for (size_t i = 0; i < config->nhistory; i++) {
		if (config->history[i].empty_layer || layer++ != n)
			continue;
		*ret = config->history[i].created_by ? config->history[i].created_by : "";
		return 0;
	}
	*ret = "";
	return 0;
}

/* --- layers and trees --- */

/* Layer N's blob. What the manifest holds of it itself need not be fetched. */
static void layer_blob(const struct image *image, unsigned n, struct blob_id *ret)
{
	const struct oci_descriptor *descriptor = &image->manifest.layers[n];

	image_blob_id(image, descriptor, ret);
	if (descriptor->data)
		blob_known(image->images->options.blobs, ret, descriptor->data);
}

/* The table of contents of layer N: the one that the manifest vouches for, else a ztoc. 0; -ENOENT:
 * none; -EINVAL: none, as the manifest's annotations make no sense. */
static int find_toc(struct image *image, unsigned n, struct toc_ref *ret)
{
	const struct oci_descriptor *layer = &image->manifest.layers[n];
	int r = toc_ref_find(layer->annotations, layer->nannotations, ret);

	return r < 0 && image_soci_table(image, n, ret) ? 0 : r;
}

/* NULL: none. */
static const struct toc_ref *claim_toc(struct image *image, unsigned n, struct toc_ref *ret)
{
	int r = find_toc(image, n, ret);

	if (r < 0 && r != -ENOENT)
		complain(image, "manifest",
			 "a layer's table of contents is annotated wrongly and not used");
	return r == 0 ? ret : NULL;
}

int image_layer(struct image *image, unsigned n, struct wait *wait, struct layer **ret)
{
	const struct oci_config *config;
	struct layer_claims claims = {0};
	struct toc_apart apart;
	struct toc_ref toc;
	struct blob_id id;
	int r = image_config(image, wait, &config);

	if (r == 0)
		r = image_soci_load(image, wait);
	if (r < 0)
		return r;
	if (n >= image->manifest.nlayers)
		return -EINVAL;
	layer_blob(image, n, &id);
	claims.toc = claim_toc(image, n, &toc);
	claims.diff_id = n < config->ndiff_ids ? &config->diff_ids[n] : NULL;
	r = layer_open(image->images->options.layers, &id, &claims, wait, ret);
	if (r != -EREMOTE)
		return r;
	r = image_apart(image, n, wait, &apart);
	if (r < 0)
		return r;
	claims.apart = &apart;
	return layer_open(image->images->options.layers, &id, &claims, wait, ret);
}

void image_layer_prepare(struct image *image, unsigned n)
{
	struct layer_claims claims = {0};
	struct toc_ref toc;
	struct blob_id id;

	if (n >= image->manifest.nlayers)
		return;
	claims.toc = claim_toc(image, n, &toc);
	layer_blob(image, n, &id);
	layer_prepare(image->images->options.layers, &id, &claims);
}

static void prepare_layer(void *arg, unsigned n)
{
	image_layer_prepare(arg, n);
}

/* All layers above N have let somebody down: over a long way, tables of some below it come along
 * with its own, in case that it does too, as many as there are above. Only those that are documents
 * of their own: the layers' bytes are left where they are. */
static void prepare_below(struct image *image, unsigned n)
{
	unsigned above = (unsigned)image->manifest.nlayers - 1 - n;
	struct toc_ref toc;

	/* the top layer may well decide */
	if (above == 0 || blobs_parallel(image->images->options.blobs, image->store) == 1)
		return;
	for (unsigned i = 1; i <= MIN(MAX(above, TABLES_ALONG), n); i++)
		if (find_toc(image, n - i, &toc) == 0 && toc.kind == TOC_ZTOC)
			image_layer_prepare(image, n - i);
}

static int open_layer(void *arg, unsigned n, struct wait *wait, struct layer **ret)
{
	struct image *image = arg;

	/* what is at hand was taken without waiting */
	if (wait_may_block(wait) && n < image->manifest.nlayers)
		prepare_below(image, n);
	return image_layer(image, n, wait, ret);
}

static int open_tree_layer(void *arg, unsigned n, struct wait *wait, struct layer **ret)
{
	const struct image_tree *tree = arg;

	(void)n;
	return image_layer(tree->image, tree->layer, wait, ret);
}

/* Makes a tree and sets it at AT, unless somebody was first. */
static int make_rootfs(struct image *image, struct rootfs_options *options, struct rootfs **at,
		       struct wait *wait)
{
	const struct oci_config *config;
	struct rootfs *rootfs;
	int r = image_config(image, wait, &config);

	/* prepare_layer() cannot wait for it */
	if (r == 0)
		r = image_soci_load(image, wait);
	if (r < 0)
		return r;
	/* a time that is none is none: 1970 */
	if (config->created)
		(void)oci_time_parse(config->created, &options->created_sec,
				     &options->created_nsec);
	r = rootfs_new(options, &rootfs);
	if (r < 0)
		return r;
	pthread_mutex_lock(&image->lock);
	if (!*at)
		*at = STEAL(rootfs);
	pthread_mutex_unlock(&image->lock);
	rootfs_free(rootfs);
	return 0;
}

static int get_rootfs(struct image *image, struct rootfs_options *options, struct rootfs **at,
		      struct wait *wait, struct rootfs **ret)
{
	int r = 0;

	if (!oci_is_image(&image->manifest))
		return image->manifest.kind == OCI_KIND_INDEX ? -EINVAL : -EOPNOTSUPP;
	pthread_mutex_lock(&image->lock);
	bool made = *at != NULL;
	pthread_mutex_unlock(&image->lock);
	if (!made)
		r = make_rootfs(image, options, at, wait);
	if (r < 0)
		return r;
	pthread_mutex_lock(&image->lock);
	*ret = *at;
	pthread_mutex_unlock(&image->lock);
	return 0;
}

int image_rootfs(struct image *image, struct wait *wait, struct rootfs **ret)
{
	uint8_t identity[DIGEST_KEY_LEN];
	struct rootfs_options options = {
		.nlayers = image->manifest.nlayers,
		.identity = identity,
		.layer = open_layer,
		.prepare = prepare_layer,
		.arg = image,
	};

	if (image->manifest.nlayers > ROOTFS_MAX_LAYERS) {
		complain(image, "manifest", "too many layers");
		return -EIO;
	}
	digest_key(&image->digest, identity);
	return get_rootfs(image, &options, &image->rootfs, wait, ret);
}

/* What is in the tree of layer N, as its manifest has it. */
static void layer_tree_identity(const struct image *image, unsigned n, enum image_form form,
				struct digest *ret)
{
	const struct oci_descriptor *layers = image->manifest.layers;
	struct digest pair[2] = {layers[n].digest};

	/* as stacked: of the layers up to this one, whatever image they are in */
	for (unsigned i = 0; form == IMAGE_STACKED && i <= n; i++) {
		pair[1] = layers[i].digest;
		digest_of(DIGEST_SHA256, i == 0 ? &pair[1] : pair, (i == 0 ? 1 : 2) * sizeof(*pair),
			  &pair[0]);
	}
	*ret = pair[0];
}

int image_layer_tree(struct image *image, unsigned n, enum image_form form, struct wait *wait,
		     struct rootfs **ret)
{
	bool stacked = form == IMAGE_STACKED;
	uint8_t identity[DIGEST_KEY_LEN];
	struct rootfs_options options = {
		.nlayers = stacked ? n + 1 : 1,
		.raw = !stacked,
		.overlay = stacked,
		.identity = identity,
		.layer = stacked ? open_layer : open_tree_layer,
		.arg = image,
	};
	struct digest digest;

	if (n >= image->manifest.nlayers)
		return -EINVAL;
	if (n >= ROOTFS_MAX_LAYERS && stacked) {
		complain(image, "manifest", "too many layers");
		return -EIO;
	}
	if (!stacked)
		options.arg = &image->trees[n];
	layer_tree_identity(image, n, form, &digest);
	digest_key(&digest, identity);
	return get_rootfs(image, &options, &image->trees[n].forms[form], wait, ret);
}

/* --- numbers --- */

/* Mixes what layer N is read by into DIGEST. */
static void mix_table(struct image *image, unsigned n, struct digest *digest)
{
	char text[32 + 3 * DIGEST_STR_MAX], before[DIGEST_STR_MAX], json[DIGEST_STR_MAX];
	char packed[DIGEST_STR_MAX];
	struct toc_ref ref;

	if (find_toc(image, n, &ref) < 0)
		return;
	snprintf(text, sizeof(text), "%s by %d %s %s", digest_format(digest, before), ref.kind,
		 digest_format(&ref.json, json), digest_format(&ref.packed, packed));
	digest_of(DIGEST_SHA256, text, strlen(text), digest);
}

void image_tree_files(struct image *image, struct digest *ret)
{
	*ret = image->digest;
	for (unsigned i = 0; i < image->manifest.nlayers; i++)
		mix_table(image, i, ret);
}

void image_layer_tree_files(struct image *image, unsigned n, enum image_form form,
			    struct digest *ret)
{
	layer_tree_identity(image, n, form, ret);
	for (unsigned i = form == IMAGE_STACKED ? 0 : n; i <= n; i++)
		mix_table(image, i, ret);
}
