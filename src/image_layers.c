/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_layers: which image has a layer.
 * Must not know what a layer holds.
 */
#include <errno.h>

#include "image_priv.h"

#define MAX_CHILDREN 64 /* whose manifests are looked through for a layer */

static bool is_named(const struct oci_descriptor *layer, const struct digest *digest)
{
	struct toc_ref toc;

	if (digest_equal(&layer->digest, digest))
		return true;
	if (toc_ref_find(layer->annotations, layer->nannotations, &toc) < 0)
		return false;
	return digest_equal(&toc.json, digest) || digest_equal(&toc.packed, digest);
}

/* In IMAGE itself, which has layers. Holds it for *RET. */
static int find_in(struct image *image, const struct digest *digest, struct image_part *ret)
{
	if (!oci_is_image(&image->manifest))
		return -ENOENT;
	for (size_t n = image->manifest.nlayers; n-- > 0;) {
		if (!is_named(&image->manifest.layers[n], digest))
			continue;
		*ret = (struct image_part){.image = image_ref(image), .layer = (unsigned)n};
		return 0;
	}
	return -ENOENT;
}

/* Takes the reference of IMAGE. */
static int find_in_child(struct image *image, const struct digest *digest, struct image_part *ret)
{
	int r = find_in(image, digest, ret);

	image_unref(image);
	return r;
}

/* A runtime may ask for another platform than the mount's. */
static int find_in_others(struct image *index, const struct digest *digest, struct wait *wait,
			  struct image_part *ret)
{
	int r = -ENOENT;

	for (size_t n = 0; n < MIN(index->manifest.nchildren, (size_t)MAX_CHILDREN); n++) {
		struct image *child;

		if (oci_is_attestation(&index->manifest.children[n]))
			continue;
		r = image_child(index, n, wait, &child);
		if (r == 0)
			r = find_in_child(child, digest, ret);
		if (r != -ENOENT)
			return r;
	}
	return r;
}

int image_find_layer(struct image *image, const struct digest *digest, struct wait *wait,
		     struct image_part *ret)
{
	struct image *chosen;
	int r = image_platform(image, wait, &chosen);

	if (r == 0)
		r = find_in_child(chosen, digest, ret);
	if (r == -ENOENT && image->manifest.kind == OCI_KIND_INDEX)
		r = find_in_others(image, digest, wait, ret);
	return r;
}

/* --- notes --- */

static int note_id(const struct image_layer_name *name, struct cache_id *ret)
{
	char digest[DIGEST_STR_MAX];
	AUTO_FREE char *reference = format("%s %s", name->tag, digest_format(name->digest, digest));

	return reference ? image_name_id("layer", name->store, name->repo, reference, ret)
			 : -ENOMEM;
}

void image_note_layer(const struct image_layer_name *name, const struct image_part *part)
{
	struct cache_id id;

	if (note_id(name, &id) == 0)
		record_digest(part->image->images, &id, &part->image->digest);
}

int image_noted_layer(struct images *images, const struct image_layer_name *name, struct wait *wait,
		      struct image_part *ret)
{
	struct digest noted;
	struct cache_id id;
	struct image *image;
	int r = note_id(name, &id);

	if (r == 0)
		r = recall_digest(images, &id, &noted);
	if (r == 0)
		r = image_open(images, name->store, name->repo, &noted, wait, &image);
	return r < 0 ? r : find_in_child(image, name->digest, ret);
}
