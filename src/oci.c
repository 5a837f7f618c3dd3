// SPDX-License-Identifier: Apache-2.0
/*
 * oci: manifests and indexes out of JSON, and what kind of thing they are. Knows the OCI
 * image-spec and Docker's schema 2. Must not know how the bytes came.
 */
#include <errno.h>

#include "oci_priv.h"

void oci_manifest_release(struct oci_manifest *manifest)
{
	free(manifest->media_type);
	free(manifest->artifact_type);
	oci_descriptor_release(&manifest->config);
	oci_descriptors_free(manifest->layers, manifest->nlayers);
	oci_descriptors_free(manifest->children, manifest->nchildren);
	if (manifest->subject)
		oci_descriptors_free(manifest->subject, 1);
	oci_annotations_free(manifest->annotations, manifest->nannotations);
	*manifest = (struct oci_manifest){0};
}

static bool is_one_of(const char *str, const char *const *table, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(str, table[i]) == 0)
			return true;
	return false;
}

bool oci_is_index_type(const char *media_type)
{
	static const char *const types[] = {OCI_TYPE_INDEX, DOCKER_TYPE_LIST};

	return is_one_of(media_type, types, ARRAY_SIZE(types));
}

bool oci_is_manifest_type(const char *media_type)
{
	static const char *const types[] = {OCI_TYPE_MANIFEST, DOCKER_TYPE_MANIFEST};

	return oci_is_index_type(media_type) || is_one_of(media_type, types, ARRAY_SIZE(types));
}

static bool is_schema1_type(const char *media_type)
{
	static const char *const types[] = {DOCKER_TYPE_SCHEMA1, DOCKER_TYPE_SCHEMA1_SIGNED};

	return is_one_of(media_type, types, ARRAY_SIZE(types));
}

/* "TYPE; charset=utf-8" without its parameters. */
static char *bare_type(const char *served_type)
{
	const char *type = served_type ? served_type : "";

	return strndup(type, strcspn(type, "; \t\r\n"));
}

static bool kind_has_type(enum oci_kind kind, const char *media_type)
{
	return oci_is_manifest_type(media_type) &&
	       oci_is_index_type(media_type) == (kind == OCI_KIND_INDEX);
}

static void check_schema(struct json_reader *reader, const cJSON *root, const char *body_type,
			 const char *served_type)
{
	int64_t version = JSON_NUMBER(reader, root, "schemaVersion", 2);

	if (reader->err)
		return;
	if (version == 1 || is_schema1_type(body_type ? body_type : served_type))
		json_fail(reader, -EOPNOTSUPP, "it is of Docker's schema 1, which is obsolete");
	else if (version != 2)
		json_fail(reader, -EINVAL, "its schemaVersion is not 2");
}

/* OCI's own type for artifacts, in the drafts of version 1.1 only: registries still hold some. */
#define DRAFT_TYPE_ARTIFACT "application/vnd.oci.artifact.manifest.v1+json"

/*
 * Manifest or index: by the body's mediaType if it is one of the four, else by its fields: what has
 * another type and those fields is an artifact of some kind. A document that could be read as
 * either is refused (image-spec, "manifest.md", and CVE-2021-41190): two clients would see two
 * images under one digest.
 */
static enum oci_kind decide_kind(struct json_reader *reader, const cJSON *root,
				 const char *body_type, const char *served_type)
{
	bool index = JSON_LIST(reader, root, "manifests");
	bool manifest = JSON_LIST(reader, root, "layers") || JSON_OBJECT(reader, root, "config");

	if (index && manifest)
		json_fail(reader, -EINVAL, "it has the fields of a manifest and of an index");
	if (body_type && oci_is_manifest_type(body_type)) {
		bool index_type = oci_is_index_type(body_type);

		if (index_type ? manifest : index)
			json_fail(reader, -EINVAL, "its fields do not suit its mediaType");
		return index_type ? OCI_KIND_INDEX : OCI_KIND_MANIFEST;
	}
	if (body_type && strcmp(body_type, DRAFT_TYPE_ARTIFACT) == 0)
		return OCI_KIND_MANIFEST;
	if (!index && !manifest) {
		if (body_type)
			json_fail(reader, -EINVAL, "its mediaType is not that of a manifest");
		if (!oci_is_index_type(served_type))
			json_fail(reader, -EINVAL, "it is neither a manifest nor an index");
		return OCI_KIND_INDEX;
	}
	return index ? OCI_KIND_INDEX : OCI_KIND_MANIFEST;
}

/* TYPE, unless it is not that of KIND: then OCI's, which alone may leave the field out. */
static char *choose_type(enum oci_kind kind, const char *body_type, const char *served_type)
{
	if (body_type)
		return strdup(body_type);
	if (kind_has_type(kind, served_type))
		return strdup(served_type);
	return strdup(kind == OCI_KIND_INDEX ? OCI_TYPE_INDEX : OCI_TYPE_MANIFEST);
}

static struct oci_descriptor *parse_subject(struct json_reader *reader, const cJSON *root)
{
	const cJSON *json = JSON_OBJECT(reader, root, "subject");
	struct oci_descriptor *subject;

	if (!json)
		return NULL;
	subject = calloc(1, sizeof(*subject));
	if (subject)
		json_descriptor(reader, json, subject);
	else
		json_fail(reader, -ENOMEM, "out of memory");
	return subject;
}

/* Only what has an image's type must have one. */
static void parse_config(struct json_reader *reader, const cJSON *config, struct oci_manifest *ret)
{
	if (config) {
		json_descriptor(reader, config, &ret->config);
		return;
	}
	if (oci_is_manifest_type(ret->media_type))
		json_fail(reader, -EINVAL, "its config is missing");
	ret->config.media_type = strdup("");
	if (!ret->config.media_type)
		json_fail(reader, -ENOMEM, "out of memory");
}

static void parse_body(struct json_reader *reader, const cJSON *root, struct oci_manifest *ret)
{
	ret->artifact_type = JSON_STRING(reader, root, "artifactType");
	ret->annotations = json_annotations(reader, root, &ret->nannotations);
	ret->subject = parse_subject(reader, root);
	if (ret->kind == OCI_KIND_INDEX) {
		ret->children = json_descriptors(reader, JSON_LIST(reader, root, "manifests"),
						 &ret->nchildren);
		return;
	}
	if (strcmp(ret->media_type, DRAFT_TYPE_ARTIFACT) == 0)
		ret->layers = json_descriptors(reader, JSON_LIST(reader, root, "blobs"),
					       &ret->nlayers);
	else
		ret->layers = json_descriptors(reader, JSON_LIST(reader, root, "layers"),
					       &ret->nlayers);
	if (!reader->err)
		parse_config(reader, JSON_OBJECT(reader, root, "config"), ret);
}

int oci_manifest_parse(const char *json, size_t len, const char *served_type,
		       struct oci_manifest *ret, const char **ret_why)
{
	CLEANUP(oci_manifest_release) struct oci_manifest manifest = {0};
	AUTO_FREE char *served = bare_type(served_type), *body_type = NULL;
	struct json_reader reader = {0};
	AUTO_JSON cJSON *root = NULL;
	int err = json_parse(json, len, OCI_MANIFEST_MAX, &root, ret_why);

	if (err)
		return err;
	if (!cJSON_IsObject(root))
		json_fail(&reader, -EINVAL, "it is not an object");
	if (!served)
		json_fail(&reader, -ENOMEM, "out of memory");
	body_type = JSON_STRING(&reader, root, "mediaType");
	if (!reader.err)
		check_schema(&reader, root, body_type, served);
	if (!reader.err)
		manifest.kind = decide_kind(&reader, root, body_type, served);
	if (!reader.err) {
		manifest.media_type = choose_type(manifest.kind, body_type, served);
		if (manifest.media_type)
			parse_body(&reader, root, &manifest);
		else
			json_fail(&reader, -ENOMEM, "out of memory");
	}
	if (reader.err) {
		*ret_why = reader.why;
		return reader.err;
	}
	*ret = manifest;
	manifest = (struct oci_manifest){0};
	return 0;
}

/* --- what it is --- */

const char *oci_annotation(const struct oci_annotation *annotations, size_t n, const char *key)
{
	/* Of two with one key the last counts, as for other JSON readers. */
	while (n-- > 0)
		if (strcmp(annotations[n].key, key) == 0)
			return annotations[n].value;
	return NULL;
}

static bool has_annotation(const struct oci_descriptor *descriptor, const char *key)
{
	return oci_annotation(descriptor->annotations, descriptor->nannotations, key);
}

bool oci_is_attestation(const struct oci_descriptor *child)
{
	const struct oci_platform *platform = &child->platform;

	if (has_annotation(child, "vnd.docker.reference.type") ||
	    has_annotation(child, "com.amazon.soci.image-manifest-digest"))
		return true;
	if (child->artifact_type &&
	    starts_with(child->artifact_type, "application/vnd.amazon.soci.index."))
		return true;
	return platform->os && strcmp(platform->os, "unknown") == 0 && platform->architecture &&
	       strcmp(platform->architecture, "unknown") == 0;
}

bool oci_attests(const struct oci_descriptor *child, const struct digest *digest)
{
	static const char *const keys[] = {"vnd.docker.reference.digest",
					   "com.amazon.soci.image-manifest-digest"};
	char text[DIGEST_STR_MAX];

	digest_format(digest, text);
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		const char *value = oci_annotation(child->annotations, child->nannotations,
						   keys[i]);

		if (value && strcmp(value, text) == 0)
			return true;
	}
	return false;
}

const char *oci_referrers_tag(const struct digest *digest, char out[static OCI_REFERRERS_TAG_MAX])
{
	char hex[DIGEST_STR_MAX];

	snprintf(out, OCI_REFERRERS_TAG_MAX, "%.32s-%.64s", digest_algo_name(digest->algo),
		 digest_hex(digest, hex));
	return out;
}

const char *oci_artifact_type(const struct oci_manifest *manifest)
{
	if (manifest->artifact_type && *manifest->artifact_type)
		return manifest->artifact_type;
	return manifest->config.media_type ? manifest->config.media_type : "";
}

bool oci_is_layer_type(const char *media_type)
{
	static const char *const types[] = {
		OCI_TYPE_LAYER,
		OCI_TYPE_LAYER_GZIP,
		OCI_TYPE_LAYER_ZSTD,
		"application/vnd.oci.image.layer.nondistributable.v1.tar",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
		DOCKER_TYPE_LAYER,
		DOCKER_TYPE_LAYER_GZIP,
		"application/vnd.docker.image.rootfs.diff.tar.zstd",
		"application/vnd.docker.image.rootfs.foreign.diff.tar",
		"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
	};

	return is_one_of(media_type, types, ARRAY_SIZE(types));
}

bool oci_is_image(const struct oci_manifest *manifest)
{
	static const char *const config_types[] = {OCI_TYPE_CONFIG, DOCKER_TYPE_CONFIG};
	/* Old pushers of Docker images wrote these (moby#22378). */
	static const char *const vague_types[] = {"", "application/octet-stream",
						  "application/json"};
	const char *config_type = manifest->config.media_type;

	if (manifest->kind != OCI_KIND_MANIFEST)
		return false;
	/* Signatures and attestations have an image's config, but other layers. */
	for (size_t i = 0; i < manifest->nlayers; i++)
		if (!oci_is_layer_type(manifest->layers[i].media_type))
			return false;
	/* What has both an artifact's type and an image's parts can be run as an image. */
	if (is_one_of(config_type, config_types, ARRAY_SIZE(config_types)))
		return manifest->nlayers > 0 || !manifest->artifact_type;
	if (!*config_type && manifest->config.digest.algo == DIGEST_NONE)
		return false;
	return manifest->nlayers > 0 && !manifest->artifact_type &&
	       is_one_of(config_type, vague_types, ARRAY_SIZE(vague_types));
}
