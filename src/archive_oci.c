// SPDX-License-Identifier: Apache-2.0
/*
 * archive_oci: the images of an OCI layout in an archive. Knows how index.json, indexes, manifests
 * and blobs refer to each other (image-spec, image-layout.md). Must not know stores.
 */
#include <errno.h>
#include <inttypes.h>

#include "archive_priv.h"

#define INDEX_DEPTH_MAX 4 /* indexes in indexes */
#define REF_NAME	"org.opencontainers.image.ref.name"

const char *archive_blob_path(const struct digest *digest, char out[static BLOB_PATH_MAX])
{
	char hex[DIGEST_STR_MAX];

	snprintf(out, BLOB_PATH_MAX, "blobs/%s/%s", digest_algo_name(digest->algo),
		 digest_hex(digest, hex));
	return out;
}

/* What is being collected: one image. */
struct collector {
	struct reading *reading;
	const struct docker_archive *docker;
	struct archive_image *image;
	size_t number; /* of the collection; see member.taken_by */
	bool partial;  /* the index that was asked for is left out: one platform of it is there */
};

/* --- documents and blobs --- */

/* The member that DESCRIPTOR names; its size must be right, its digest is not yet looked at. */
static int find_blob(struct reading *reading, const char *what,
		     const struct oci_descriptor *descriptor, struct member **ret)
{
	char path[BLOB_PATH_MAX];
	struct member *member;
	int err = archive_need(reading, what, archive_blob_path(&descriptor->digest, path),
			       &member);

	if (err)
		return err;
	if (member->at.len != (uint64_t)descriptor->size)
		return archive_invalid(reading,
				       "%s %s has %" PRIu64 " bytes, and should have %" PRId64,
				       what, path, member->at.len, descriptor->size);
	*ret = member;
	return 0;
}

static int add_blob(struct collector *collector, const char *what,
		    const struct oci_descriptor *descriptor)
{
	struct reading *reading = collector->reading;
	char path[BLOB_PATH_MAX];
	struct member *member;
	int err;

	/* Foreign layers may be left out: their manifest says where they are. */
	if (descriptor->nurls > 0 &&
	    !archive_find(reading, archive_blob_path(&descriptor->digest, path)))
		return 0;
	err = find_blob(reading, what, descriptor, &member);
	if (err || member->taken_by == collector->number)
		return err;
	member->taken_by = collector->number;
	return archive_add_part(reading, collector->image, &descriptor->digest, member);
}

/* Reads and checks a manifest or index. RET is zeroed; the caller releases it, also on errors. */
static int read_document(struct reading *reading, const struct oci_descriptor *descriptor,
			 const struct member *member, struct archive_document *ret)
{
	const char *why = "";
	int err = archive_read_member(reading, member, OCI_MANIFEST_MAX, &ret->bytes);

	if (err)
		return err;
	ret->len = member->at.len;
	digest_of(descriptor->digest.algo, ret->bytes, ret->len, &ret->digest);
	if (!digest_equal(&ret->digest, &descriptor->digest))
		return archive_invalid(reading, "the manifest %s is damaged: it has another digest",
				       member->path);
	err = oci_manifest_parse(ret->bytes, ret->len, descriptor->media_type, &ret->manifest,
				 &why);
	if (err == -EINVAL || err == -EOPNOTSUPP)
		return archive_invalid(reading, "the manifest %s: %s", member->path, why);
	if (err)
		return err;
	ret->media_type = strdup(ret->manifest.media_type);
	return ret->media_type ? 0 : -ENOMEM;
}

/* Takes over what DOCUMENT holds. */
static int add_document(struct collector *collector, struct archive_document *document)
{
	struct archive_image *image = collector->image;
	size_t n = image->nmanifests;

	if ((n & (n - 1)) == 0) {
		struct archive_document *grown = reallocarray(image->manifests, n ? 2 * n : 1,
							      sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		image->manifests = grown;
	}
	image->manifests[image->nmanifests++] = *document;
	*document = (struct archive_document){0};
	return 0;
}

static bool is_absent(const struct reading *reading, const struct oci_descriptor *descriptor)
{
	char path[BLOB_PATH_MAX];

	return !archive_find(reading, archive_blob_path(&descriptor->digest, path));
}

static int missing_child(struct reading *reading, const struct oci_descriptor *child)
{
	AUTO_FREE char *platform = oci_platform_name(&child->platform);
	char digest[DIGEST_STR_MAX];

	if (!platform)
		return -ENOMEM;
	return archive_invalid(reading,
			       "the manifest %s (%s) is not in the archive, which holds only some "
			       "of the image's platforms: copy all of them (skopeo copy --all) or "
			       "one alone",
			       digest_format(&child->digest, digest), platform);
}

static int collect(struct collector *collector, const struct oci_descriptor *descriptor,
		   unsigned depth);

static int collect_child(struct collector *collector, const struct oci_descriptor *child,
			 unsigned depth)
{
	if (is_absent(collector->reading, child))
		return missing_child(collector->reading, child);
	/* A type that only the registry may know: it is carried along. */
	if (*child->media_type && !oci_is_manifest_type(child->media_type))
		return add_blob(collector, "the blob", child);
	return collect(collector, child, depth + 1);
}

/*
 * docker save with the containerd store writes the whole index, but only what it has pulled of it:
 * commonly one platform. That one is then the image, as it is for docker push. -1 if it is not so.
 */
static ssize_t only_platform(const struct collector *collector, const struct oci_manifest *index)
{
	size_t present = 0, absent = 0;
	ssize_t last = -1;

	for (size_t i = 0; i < index->nchildren; i++) {
		if (is_absent(collector->reading, &index->children[i])) {
			absent++;
		} else if (!oci_is_attestation(&index->children[i])) {
			present++;
			last = (ssize_t)i;
		}
	}
	return collector->docker->nentries > 0 && present == 1 && absent > 0 ? last : -1;
}

static int collect_children(struct collector *collector, const struct oci_manifest *index,
			    unsigned depth)
{
	ssize_t only = depth == 0 ? only_platform(collector, index) : -1;
	int err = 0;

	if (only >= 0) {
		collector->partial = true;
		return collect_child(collector, &index->children[only], depth);
	}
	for (size_t i = 0; !err && i < index->nchildren; i++)
		err = collect_child(collector, &index->children[i], depth);
	return err;
}

static int collect_blobs(struct collector *collector, const struct oci_manifest *manifest)
{
	int err = add_blob(collector, "the config", &manifest->config);

	for (size_t i = 0; !err && i < manifest->nlayers; i++)
		err = add_blob(collector, "the layer", &manifest->layers[i]);
	return err;
}

/* Adds what DESCRIPTOR names and all below it, children first. */
static int collect(struct collector *collector, const struct oci_descriptor *descriptor,
		   unsigned depth)
{
	CLEANUP(archive_document_release) struct archive_document document = {0};
	struct reading *reading = collector->reading;
	struct member *member;
	int err;

	if (depth > INDEX_DEPTH_MAX)
		return archive_invalid(reading, "its indexes are nested too deeply");
	err = find_blob(reading, "the manifest", descriptor, &member);
	if (err || member->taken_by == collector->number)
		return err;
	member->taken_by = collector->number;
	if (member->at.len > reading->docs_left)
		return archive_invalid(reading, "its manifests are larger than 64 MiB together");
	reading->docs_left -= member->at.len;
	err = read_document(reading, descriptor, member, &document);
	if (!err)
		err = document.manifest.kind == OCI_KIND_INDEX
			      ? collect_children(collector, &document.manifest, depth)
			      : collect_blobs(collector, &document.manifest);
	if (err || (collector->partial && depth == 0))
		return err;
	return add_document(collector, &document);
}

/* --- names --- */

static int add_repo_tags(struct reading *reading, const struct docker_archive *docker,
			 const char *config, struct archive_image *image)
{
	int err = 0;

	for (size_t i = 0; i < docker->nentries; i++) {
		const struct docker_archive_entry *entry = &docker->entries[i];

		if (strcmp(entry->config, config) != 0)
			continue;
		for (size_t j = 0; !err && j < entry->nrepo_tags; j++)
			err = archive_add_name(reading, image, entry->repo_tags[j]);
	}
	return err;
}

/*
 * docker save writes a name three times: as the user gave it in RepoTags, in full for containerd,
 * and its tag alone as the ref name. Where there are RepoTags they are all the names.
 */
static int prefer_repo_tags(struct reading *reading, const struct docker_archive *docker,
			    struct archive_image *image)
{
	struct archive_image named = {0};
	int err = 0;

	for (size_t i = 0; !err && i < image->nmanifests; i++) {
		const struct oci_manifest *manifest = &image->manifests[i].manifest;
		char config[BLOB_PATH_MAX];

		if (manifest->kind == OCI_KIND_MANIFEST)
			err = add_repo_tags(reading, docker,
					    archive_blob_path(&manifest->config.digest, config),
					    &named);
	}
	if (!err && named.nnames > 0) {
		archive_drop_names(image);
		image->names = STEAL(named.names);
		image->nnames = named.nnames;
		named.nnames = 0;
	}
	archive_drop_names(&named);
	return err;
}

static int add_annotated_name(struct reading *reading, const struct oci_descriptor *descriptor,
			      struct archive_image *image)
{
	static const char *const keys[] = {ARCHIVE_CONTAINERD_NAME, REF_NAME};

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		const char *name = oci_annotation(descriptor->annotations, descriptor->nannotations,
						  keys[i]);

		if (name && *name)
			return archive_add_name(reading, image, name);
	}
	return 0;
}

/* --- images --- */

static const struct digest *root_digest(const struct archive_image *image)
{
	return &image->manifests[image->nmanifests - 1].digest;
}

/* index.json lists an image once for each of its names: the last image of ARCHIVE may be there
 * before, and is then dropped. Returns the one that stays. */
static struct archive_image *merge_last(struct reading *reading, uint64_t docs_left)
{
	struct archive *archive = reading->archive;
	struct archive_image *last = &archive->images[archive->nimages - 1];

	for (size_t i = 0; i + 1 < archive->nimages; i++) {
		if (!digest_equal(root_digest(&archive->images[i]), root_digest(last)))
			continue;
		archive_drop_image(reading);
		reading->docs_left = docs_left;
		return &archive->images[i];
	}
	return last;
}

static int add_image(struct reading *reading, const struct oci_descriptor *descriptor,
		     const struct docker_archive *docker)
{
	uint64_t docs_left = reading->docs_left;
	struct collector collector = {
		.reading = reading, .docker = docker, .number = ++reading->collections};
	int err = archive_add_image(reading, &collector.image);

	if (!err)
		err = collect(&collector, descriptor, 0);
	return err ? err : add_annotated_name(reading, descriptor, merge_last(reading, docs_left));
}

static int read_index(struct reading *reading, struct oci_manifest *ret)
{
	AUTO_FREE char *bytes = NULL;
	struct member *member;
	const char *why = "";
	int err = archive_need(reading, "the file", "index.json", &member);

	if (!err)
		err = archive_read_member(reading, member, OCI_MANIFEST_MAX, &bytes);
	if (err)
		return err;
	err = oci_manifest_parse(bytes, member->at.len, OCI_TYPE_INDEX, ret, &why);
	if (err == -EINVAL || err == -EOPNOTSUPP)
		return archive_invalid(reading, "index.json: %s", why);
	if (!err && ret->kind != OCI_KIND_INDEX)
		return archive_invalid(reading, "index.json is not an index");
	return err;
}

int archive_read_oci(struct reading *reading, const struct docker_archive *docker)
{
	CLEANUP(oci_manifest_release) struct oci_manifest index = {0};
	int err = read_index(reading, &index);

	for (size_t i = 0; !err && i < index.nchildren; i++) {
		const struct oci_descriptor *entry = &index.children[i];

		/* Types that are not known are to be passed over (image-spec, image-index.md). */
		if (!*entry->media_type || oci_is_manifest_type(entry->media_type))
			err = add_image(reading, entry, docker);
	}
	if (!err && reading->archive->nimages == 0)
		return archive_invalid(reading, "index.json names no image");
	for (size_t i = 0; !err && i < reading->archive->nimages; i++)
		err = prefer_repo_tags(reading, docker, &reading->archive->images[i]);
	return err;
}
