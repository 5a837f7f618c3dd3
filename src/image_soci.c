// SPDX-License-Identifier: Apache-2.0
/*
 * image_soci: the ztocs (ztoc.h) that a SOCI index has for an image's layers.
 * Knows how an index is found and what vouches for it. Must not know what is in a ztoc.
 *
 * soci-snapshotter, soci/soci_index.go: an index is a manifest whose layers are ztocs. Version 2 is
 * named by digest in an annotation of the image's manifest, which so vouches for it. Version 1 only
 * refers to the image: whoever may push there can publish one, so it is looked for only where the
 * user trusts them (trust_index).
 */
#include <errno.h>

#include "regfs/log.h"

#include "image_priv.h"

#define INDEX_DIGEST "com.amazon.soci.index-digest" /* on the image's manifest */
#define LAYER_DIGEST "com.amazon.soci.image-layer-digest"
#define TYPE_V1	     "application/vnd.amazon.soci.index.v1+json"
#define TYPE_V2	     "application/vnd.amazon.soci.index.v2+json"

struct table {
	struct digest layer;
	struct toc_ref ref;
};

struct image_soci {
	size_t n;
	struct table tables[];
};

static void complain(const struct image *image, const char *why)
{
	char digest[DIGEST_STR_MAX];

	log_warn("%s/%s: the SOCI index of %s is not used: %s", image->store->name, image->repo,
		 digest_format(&image->digest, digest), why);
}

/* --- an index --- */

static bool read_table(const struct oci_descriptor *ztoc, struct table *ret)
{
	const char *layer = oci_annotation(ztoc->annotations, ztoc->nannotations, LAYER_DIGEST);

	if (!layer || digest_parse(layer, &ret->layer) < 0)
		return false;
	ret->ref = (struct toc_ref){
		.kind = TOC_ZTOC, .packed = ztoc->digest, .len = (uint64_t)ztoc->size};
	return true;
}

/* Other layers of an index say what to prefetch: they are of no layer. */
static int read_tables(const struct oci_manifest *index, struct image_soci **ret)
{
	struct image_soci *soci = calloc(1,
					 sizeof(*soci) + index->nlayers * sizeof(soci->tables[0]));

	if (!soci)
		return -ENOMEM;
	for (size_t i = 0; i < index->nlayers; i++)
		soci->n += read_table(&index->layers[i], &soci->tables[soci->n]);
	*ret = soci;
	return 0;
}

/* Whether MANIFEST is an index of TYPE, one of version 1 about this image. */
static const char *what_is_wrong(const struct image *image, const struct oci_manifest *manifest,
				 const char *type)
{
	if (manifest->kind != OCI_KIND_MANIFEST || strcmp(oci_artifact_type(manifest), type) != 0)
		return "what is there is no SOCI index of this version";
	if (strcmp(type, TYPE_V1) == 0 &&
	    (!manifest->subject || !digest_equal(&manifest->subject->digest, &image->digest)))
		return "it is of another image";
	return NULL;
}

/* 0 with *RET; 1: it is no use, logged; an error of the store. */
static int open_index(struct image *image, const struct digest *digest, const char *type,
		      struct wait *wait, struct image_soci **ret)
{
	struct image *index;
	int r = image_open(image->images, image->store, image->repo, digest, wait, &index);

	if (r == -ENOENT) {
		complain(image, "the repository does not have it");
		return 1;
	}
	if (r < 0)
		return r;
	const char *why = what_is_wrong(image, &index->manifest, type);
	if (why)
		complain(image, why);
	r = why ? 1 : read_tables(&index->manifest, ret);
	image_unref(index);
	return r;
}

/* --- where it is --- */

/* Whether PLACE, a host or the beginning of a repository's path there, covers the image's. */
static bool covers(const char *place, const struct image *image)
{
	const char *host = image->store->name;
	size_t len = strlen(host), prefix;

	if (!starts_with(place, host) || (place[len] && place[len] != '/'))
		return false;
	place += len + (place[len] == '/');
	prefix = strlen(place);
	return strncmp(image->repo, place, prefix) == 0 &&
	       (!prefix || !image->repo[prefix] || image->repo[prefix] == '/');
}

static bool is_trusted(const struct image *image)
{
	char *const *places = image->images->options.trust_index;

	for (; places && *places; places++)
		if (covers(*places, image))
			return true;
	return false;
}

/* From here on it is not the manifest alone that decides what is seen: that is to be known. */
static void tell(const struct image *image, const struct digest *index)
{
	char digest[DIGEST_STR_MAX], name[DIGEST_STR_MAX];

	log_info("%s/%s: %s is read by the SOCI index %s that was published for it (trust_index)",
		 image->store->name, image->repo, digest_format(&image->digest, name),
		 digest_format(index, digest));
}

/* Version 1: the first of those that refer to the image that is of use. */
static int find_published(struct image *image, struct wait *wait, struct image_soci **ret)
{
	struct referrers *referrers = NULL;
	int r = image_referrers(image, wait, &referrers);

	if (r < 0)
		return r;
	r = 1;
	for (size_t i = 0; r == 1 && i < referrers->n; i++) {
		const struct oci_descriptor *referrer = &referrers->list[i];

		if (referrer->artifact_type && strcmp(referrer->artifact_type, TYPE_V1) == 0)
			r = open_index(image, &referrer->digest, TYPE_V1, wait, ret);
		if (r == 0)
			tell(image, &referrer->digest);
	}
	referrers_unref(image, referrers);
	return r;
}

static int find_index(struct image *image, struct wait *wait, struct image_soci **ret)
{
	const struct oci_manifest *manifest = &image->manifest;
	const char *text = oci_annotation(manifest->annotations, manifest->nannotations,
					  INDEX_DIGEST);
	struct digest digest;

	if (text && digest_parse(text, &digest) == 0)
		return open_index(image, &digest, TYPE_V2, wait, ret);
	if (text)
		complain(image, "its annotation is no digest");
	return is_trusted(image) ? find_published(image, wait, ret) : 1;
}

/* --- once for an image --- */

static bool is_asked(struct image *image)
{
	pthread_mutex_lock(&image->lock);
	bool asked = image->soci_known;
	pthread_mutex_unlock(&image->lock);
	return asked;
}

/* For good, as trees depend on it: that the store is gone means that there is none. */
static void settle(struct image *image, struct image_soci *soci)
{
	pthread_mutex_lock(&image->lock);
	if (!image->soci_known) {
		image->soci = STEAL(soci);
		image->soci_known = true;
	}
	pthread_mutex_unlock(&image->lock);
	free(soci);
}

int image_soci_load(struct image *image, struct wait *wait)
{
	struct image_soci *soci = NULL;

	if (is_asked(image))
		return 0;
	int r = oci_is_image(&image->manifest) ? find_index(image, wait, &soci) : 1;
	if (r == -EWOULDBLOCK || r == -EINTR || r == -ENOMEM)
		return r;
	settle(image, soci);
	return 0;
}

bool image_soci_table(struct image *image, unsigned n, struct toc_ref *ret)
{
	const struct digest *layer = &image->manifest.layers[n].digest;

	pthread_mutex_lock(&image->lock);
	const struct image_soci *soci = image->soci;
	pthread_mutex_unlock(&image->lock);
	for (size_t i = 0; soci && i < soci->n; i++) {
		if (digest_equal(&soci->tables[i].layer, layer)) {
			*ret = soci->tables[i].ref;
			return true;
		}
	}
	return false;
}

void image_soci_release(struct image *image)
{
	free(image->soci);
}
