// SPDX-License-Identifier: Apache-2.0
/*
 * share: an image's index: which of its layers it is about, its manifest, and how both come into
 * the repository.
 * Knows manifests and stores. Must not know a layer's bytes (share_layer.c).
 */
#include <errno.h>
#include <inttypes.h>

#include "share_priv.h"

#define SOCI_TYPE_INDEX "application/vnd.amazon.soci.index.v1+json"
#define SOCI_TYPE_ZTOC	"application/octet-stream"
#define SOCI_TOOL	"regfs"

/* In the order in which upstream's JSON has them. */
enum { NOTE_DIGEST, NOTE_TYPE, NOTE_SPAN_SIZE, NOTES };
static const char *const note_keys[NOTES] = {
	[NOTE_DIGEST] = "com.amazon.soci.image-layer-digest",
	[NOTE_TYPE] = "com.amazon.soci.image-layer-mediaType",
	[NOTE_SPAN_SIZE] = "com.amazon.soci.span-size",
};

/* A ztoc that is in the repository. */
struct entry {
	struct oci_descriptor ztoc;
	struct oci_annotation notes[NOTES];
	char layer[DIGEST_STR_MAX], span_size[24];
};

struct sharing {
	const struct share_options *options;
	struct image *image;
	const struct oci_manifest *manifest;
	struct store *store;
	const char *repo;
	struct wait *wait;
	atomic_bool answered; /* the store has: it just said what the image is */
	struct entry *entries;
	size_t nentries;
};

/* --- into the repository --- */

static int put_blob(struct sharing *sharing, const struct digest *digest, const void *data,
		    size_t len)
{
	struct store_bytes bytes = {.data = data, .len = len};
	const struct store_source source = {.read = store_bytes_read, .arg = &bytes, .size = len};
	const struct store_put put = {
		.digest = digest, .source = &source, .answered = &sharing->answered};

	return store_offer(sharing->store, sharing->repo, &put, len, sharing->wait);
}

/* --- layers --- */

/* Why LAYER is not even looked at; NULL: it is. */
static const char *left_out(const struct sharing *sharing, const struct oci_descriptor *layer)
{
	struct toc_ref ref;

	for (const struct oci_descriptor *other = sharing->manifest->layers; other < layer; other++)
		if (digest_equal(&other->digest, &layer->digest))
			return "it is the same as one below";
	if (toc_ref_find(layer->annotations, layer->nannotations, &ref) == 0)
		return "it has a table of contents of its own";
	if ((uint64_t)layer->size < sharing->options->layer_min)
		return "it is small";
	return ends_with(layer->media_type, "zstd") ? "it is zstd" : NULL;
}

/* The document LEN bytes long of LAYER is part of the index. */
static void add_entry(struct sharing *sharing, const struct oci_descriptor *layer,
		      const struct digest *digest, size_t len)
{
	struct entry *entry = &sharing->entries[sharing->nentries++];

	digest_format(&layer->digest, entry->layer);
	snprintf(entry->span_size, sizeof(entry->span_size), "%" PRIu64,
		 sharing->options->span_size);
	for (size_t i = 0; i < NOTES; i++)
		entry->notes[i].key = (char *)note_keys[i];
	entry->notes[NOTE_DIGEST].value = entry->layer;
	entry->notes[NOTE_TYPE].value = layer->media_type;
	entry->notes[NOTE_SPAN_SIZE].value = entry->span_size;
	entry->ztoc = (struct oci_descriptor){
		.media_type = (char *)SOCI_TYPE_ZTOC,
		.digest = *digest,
		.size = (int64_t)len,
		.annotations = entry->notes,
		.nannotations = NOTES,
	};
}

/* 0, or -EMEDIUMTYPE: it is left out; TOLD is complete. */
static int index_layer(struct sharing *sharing, struct share_ztoc *ztoc, struct share_layer *told)
{
	const struct share_options *options = sharing->options;
	struct blob_id id;

	image_blob_id(sharing->image, told->layer, &id);
	int r = share_read_layer(options, &id, sharing->wait, ztoc);
	if (r < 0)
		return r;
	digest_of(DIGEST_SHA256, ztoc->bytes.data, ztoc->bytes.len, &told->ztoc);
	told->ztoc_size = ztoc->bytes.len;
	told->nfiles = ztoc->nfiles;
	told->nspans = ztoc->nspans;
	r = put_blob(sharing, &told->ztoc, ztoc->bytes.data, ztoc->bytes.len);
	if (r == 0)
		add_entry(sharing, told->layer, &told->ztoc, ztoc->bytes.len);
	return r;
}

static int share_one(struct sharing *sharing, const struct oci_descriptor *layer)
{
	struct share_layer told = {.layer = layer, .left_out = left_out(sharing, layer)};
	struct share_ztoc ztoc = {.bytes = BUF_INIT(ZTOC_MAX)};
	int r = told.left_out ? 0 : index_layer(sharing, &ztoc, &told);

	if (r == -EMEDIUMTYPE) {
		told.left_out = ztoc.why;
		r = 0;
	}
	if (r == 0)
		sharing->options->say(sharing->options->arg, &told);
	buf_release(&ztoc.bytes);
	return r;
}

/* --- the manifest --- */

static int write_index(const struct sharing *sharing, struct buf *ret)
{
	AUTO_FREE struct oci_descriptor *ztocs = calloc(sharing->nentries, sizeof(*ztocs));
	const struct oci_annotation tool = {(char *)"com.amazon.soci.build-tool-identifier",
					    (char *)SOCI_TOOL};
	const char *bytes;
	size_t len;

	image_manifest_bytes(sharing->image, &bytes, &len);
	const struct oci_descriptor subject = {
		.media_type = sharing->manifest->media_type,
		.digest = *image_digest(sharing->image),
		.size = (int64_t)len,
	};
	const struct oci_about about = {
		.config_type = SOCI_TYPE_INDEX,
		.layers = ztocs,
		.nlayers = sharing->nentries,
		.subject = &subject,
		.annotations = &tool,
		.nannotations = 1,
	};

	if (!ztocs)
		return -ENOMEM;
	for (size_t i = 0; i < sharing->nentries; i++)
		ztocs[i] = sharing->entries[i].ztoc;
	return oci_about_write(&about, ret);
}

static int put_index(struct sharing *sharing, struct digest *ret)
{
	AUTO_BUF struct buf manifest = BUF_INIT(OCI_MANIFEST_MAX);
	struct digest config;

	digest_of(DIGEST_SHA256, OCI_EMPTY_JSON, strlen(OCI_EMPTY_JSON), &config);
	int r = put_blob(sharing, &config, OCI_EMPTY_JSON, strlen(OCI_EMPTY_JSON));
	if (r == 0)
		r = write_index(sharing, &manifest);
	if (r == 0)
		r = sharing->store->ops->put_manifest(sharing->store, sharing->repo, NULL,
						      OCI_TYPE_MANIFEST, manifest.data,
						      manifest.len, sharing->wait);
	if (r == 0)
		digest_of(DIGEST_SHA256, manifest.data, manifest.len, ret);
	return r;
}

int share_image(const struct share_options *options, struct image *image, struct wait *wait,
		struct digest *ret)
{
	const struct oci_manifest *manifest = image_manifest(image);
	struct sharing sharing = {
		.options = options,
		.image = image,
		.manifest = manifest,
		.store = image_store(image),
		.repo = image_repo(image),
		.wait = wait,
		.answered = true,
	};
	int r = 0;

	if (!oci_is_image(manifest))
		return -EMEDIUMTYPE;
	AUTO_FREE struct entry *entries = calloc(manifest->nlayers + 1, sizeof(*entries));
	sharing.entries = entries;
	if (!entries)
		return -ENOMEM;
	for (size_t i = 0; r == 0 && i < manifest->nlayers; i++)
		r = share_one(&sharing, &manifest->layers[i]);
	if (r < 0)
		return r;
	return sharing.nentries > 0 ? put_index(&sharing, ret) : 1;
}
