// SPDX-License-Identifier: Apache-2.0
/*
 * oci: manifests, indexes and configs out of JSON, and what kind of thing they are. Knows the
 * OCI image-spec and Docker's schema 2. Must not know how the bytes came.
 */
#include <errno.h>

#include "oci_priv.h"

/* --- releasing --- */

static void annotations_free(struct oci_annotation *annotations, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(annotations[i].key);
		free(annotations[i].value);
	}
	free(annotations);
}

void oci_descriptor_release(struct oci_descriptor *descriptor)
{
	free(descriptor->media_type);
	free(descriptor->artifact_type);
	oci_platform_release(&descriptor->platform);
	annotations_free(descriptor->annotations, descriptor->nannotations);
	json_strings_free(descriptor->urls, descriptor->nurls);
	free(descriptor->data);
	*descriptor = (struct oci_descriptor){0};
}

static void descriptors_free(struct oci_descriptor *descriptors, size_t n)
{
	for (size_t i = 0; i < n; i++)
		oci_descriptor_release(&descriptors[i]);
	free(descriptors);
}

void oci_manifest_release(struct oci_manifest *manifest)
{
	free(manifest->media_type);
	free(manifest->artifact_type);
	oci_descriptor_release(&manifest->config);
	descriptors_free(manifest->layers, manifest->nlayers);
	descriptors_free(manifest->children, manifest->nchildren);
	if (manifest->subject)
		descriptors_free(manifest->subject, 1);
	annotations_free(manifest->annotations, manifest->nannotations);
	*manifest = (struct oci_manifest){0};
}

void oci_config_release(struct oci_config *config)
{
	oci_platform_release(&config->platform);
	free(config->created);
	free(config->diff_ids);
	for (size_t i = 0; i < config->nhistory; i++) {
		free(config->history[i].created);
		free(config->history[i].created_by);
		free(config->history[i].author);
		free(config->history[i].comment);
	}
	free(config->history);
	*config = (struct oci_config){0};
}

/* --- descriptors --- */

static int base64_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* RFC 4648 section 4, with its padding. OUT has room for 3 bytes for each 4 of STR. False if it is
 * not that. */
static bool base64_decode(const char *str, uint8_t *out, size_t *ret_len)
{
	size_t len = strlen(str), pad = 0, n = 0;

	while (pad < 2 && pad < len && str[len - 1 - pad] == '=')
		pad++;
	if (len % 4)
		return false;
	for (size_t i = 0; i < len; i += 4) {
		uint32_t bits = 0;

		for (size_t j = i; j < i + 4; j++) {
			int value = j >= len - pad ? 0 : base64_value(str[j]);

			if (value < 0)
				return false;
			bits = bits << 6 | (uint32_t)value;
		}
		out[n++] = bits >> 16;
		out[n++] = bits >> 8;
		out[n++] = bits;
	}
	*ret_len = n - pad;
	return true;
}

/* Inline content that is not what the descriptor names is left out: the blob itself will do. */
static void parse_data(struct json_reader *reader, const cJSON *json, struct oci_descriptor *ret)
{
	AUTO_FREE char *encoded = JSON_STRING(reader, json, "data");
	AUTO_FREE uint8_t *data = NULL;
	struct digest digest;
	size_t len;

	if (!encoded)
		return;
	data = malloc(strlen(encoded) / 4 * 3 + 1);
	if (!data) {
		json_fail(reader, -ENOMEM, "out of memory");
		return;
	}
	if (!base64_decode(encoded, data, &len)) {
		json_fail(reader, -EINVAL, "\"data\" is not base64");
		return;
	}
	if (len != (uint64_t)ret->size || ret->digest.algo == DIGEST_NONE)
		return;
	digest_of(ret->digest.algo, data, len, &digest);
	if (!digest_equal(&digest, &ret->digest))
		return;
	ret->data = STEAL(data);
	ret->data_len = len;
}

static struct oci_annotation *parse_annotations(struct json_reader *reader, const cJSON *json,
						size_t *ret_n)
{
	const cJSON *map = JSON_OBJECT(reader, json, "annotations"), *child;
	struct oci_annotation *annotations = json_elements(reader, map, sizeof(*annotations),
							   OCI_ITEMS_MAX, ret_n);
	size_t i = 0;

	if (!annotations)
		return NULL;
	cJSON_ArrayForEach(child, map)
	{
		struct oci_annotation *annotation = &annotations[i++];

		if (!cJSON_IsString(child) && !cJSON_IsNull(child)) {
			json_fail(reader, -EINVAL, "an annotation is not a string");
			break;
		}
		annotation->key = strdup(child->string);
		annotation->value = strdup(cJSON_IsNull(child) ? "" : child->valuestring);
		if (!annotation->key || !annotation->value) {
			json_fail(reader, -ENOMEM, "out of memory");
			break;
		}
	}
	return annotations;
}

/* The fields of JSON that make a platform; they stand in a descriptor's platform and in a config
 * alike. */
static void parse_platform(struct json_reader *reader, const cJSON *json, struct oci_platform *ret)
{
	ret->os = JSON_STRING(reader, json, "os");
	ret->architecture = JSON_STRING(reader, json, "architecture");
	ret->variant = JSON_STRING(reader, json, "variant");
	ret->os_version = JSON_STRING(reader, json, "os.version");
}

static void parse_digest(struct json_reader *reader, const char *str, struct digest *ret)
{
	if (!str || digest_parse(str, ret))
		json_fail(reader, -EINVAL, "a digest is missing or not valid");
}

/* image-spec, descriptor.md. RET is zeroed; what was read stays in it on errors too. */
static void parse_descriptor(struct json_reader *reader, const cJSON *json,
			     struct oci_descriptor *ret)
{
	AUTO_FREE char *digest = NULL;

	if (!cJSON_IsObject(json)) {
		json_fail(reader, -EINVAL, "a descriptor is not an object");
		return;
	}
	ret->media_type = JSON_STRING(reader, json, "mediaType");
	if (!ret->media_type)
		ret->media_type = strdup("");
	if (!ret->media_type)
		json_fail(reader, -ENOMEM, "out of memory");
	ret->artifact_type = JSON_STRING(reader, json, "artifactType");
	digest = JSON_STRING(reader, json, "digest");
	parse_digest(reader, digest, &ret->digest);
	ret->size = JSON_NUMBER(reader, json, "size", -1);
	if (ret->size < 0)
		json_fail(reader, -EINVAL, "a size is missing or negative");
	parse_platform(reader, JSON_OBJECT(reader, json, "platform"), &ret->platform);
	ret->annotations = parse_annotations(reader, json, &ret->nannotations);
	ret->urls = json_strings(reader, JSON_LIST(reader, json, "urls"), &ret->nurls,
				 "an element of \"urls\" is not a string");
	parse_data(reader, json, ret);
}

static struct oci_descriptor *parse_descriptors(struct json_reader *reader, const cJSON *list,
						size_t *ret_n)
{
	struct oci_descriptor *descriptors = json_elements(reader, list, sizeof(*descriptors),
							   OCI_ITEMS_MAX, ret_n);
	const cJSON *item = list ? list->child : NULL;

	for (size_t i = 0; i < *ret_n && !reader->err; i++, item = item->next)
		parse_descriptor(reader, item, &descriptors[i]);
	return descriptors;
}

static struct oci_descriptor *parse_subject(struct json_reader *reader, const cJSON *root)
{
	const cJSON *json = JSON_OBJECT(reader, root, "subject");
	struct oci_descriptor *subject;

	if (!json)
		return NULL;
	subject = calloc(1, sizeof(*subject));
	if (subject)
		parse_descriptor(reader, json, subject);
	else
		json_fail(reader, -ENOMEM, "out of memory");
	return subject;
}

/* --- manifests and indexes --- */

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

/*
 * Manifest or index: by the body's mediaType, else by its fields. A document that could be read as
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
	if (body_type) {
		bool index_type = oci_is_index_type(body_type);

		if (!oci_is_manifest_type(body_type))
			json_fail(reader, -EINVAL, "its mediaType is not that of an image");
		else if (index_type ? manifest : index)
			json_fail(reader, -EINVAL, "its fields do not suit its mediaType");
		return index_type ? OCI_KIND_INDEX : OCI_KIND_MANIFEST;
	}
	if (!index && !manifest) {
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

static void parse_body(struct json_reader *reader, const cJSON *root, struct oci_manifest *ret)
{
	ret->artifact_type = JSON_STRING(reader, root, "artifactType");
	ret->annotations = parse_annotations(reader, root, &ret->nannotations);
	ret->subject = parse_subject(reader, root);
	if (ret->kind == OCI_KIND_INDEX) {
		ret->children = parse_descriptors(reader, JSON_LIST(reader, root, "manifests"),
						  &ret->nchildren);
		return;
	}
	ret->layers = parse_descriptors(reader, JSON_LIST(reader, root, "layers"), &ret->nlayers);
	if (!reader->err) {
		const cJSON *config = JSON_OBJECT(reader, root, "config");

		if (config)
			parse_descriptor(reader, config, &ret->config);
		else
			json_fail(reader, -EINVAL, "its config is missing");
	}
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
		if (!manifest.media_type)
			json_fail(&reader, -ENOMEM, "out of memory");
		parse_body(&reader, root, &manifest);
	}
	if (reader.err) {
		*ret_why = reader.why;
		return reader.err;
	}
	*ret = manifest;
	manifest = (struct oci_manifest){0};
	return 0;
}

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

	if (manifest->kind != OCI_KIND_MANIFEST || manifest->artifact_type)
		return false;
	/* Signatures and attestations have an image's config, but other layers. */
	for (size_t i = 0; i < manifest->nlayers; i++)
		if (!oci_is_layer_type(manifest->layers[i].media_type))
			return false;
	return is_one_of(config_type, config_types, ARRAY_SIZE(config_types)) ||
	       (manifest->nlayers > 0 &&
		is_one_of(config_type, vague_types, ARRAY_SIZE(vague_types)));
}

/* --- configs --- */

static void parse_diff_ids(struct json_reader *reader, const cJSON *root, struct oci_config *ret)
{
	const cJSON *rootfs = JSON_OBJECT(reader, root, "rootfs");
	const cJSON *list = JSON_LIST(reader, rootfs, "diff_ids");
	const cJSON *item = list ? list->child : NULL;

	ret->diff_ids = json_elements(reader, list, sizeof(*ret->diff_ids), OCI_ITEMS_MAX,
				      &ret->ndiff_ids);
	for (size_t i = 0; i < ret->ndiff_ids; i++, item = item->next)
		parse_digest(reader, cJSON_GetStringValue(item), &ret->diff_ids[i]);
}

static void parse_history(struct json_reader *reader, const cJSON *root, struct oci_config *ret)
{
	const cJSON *list = JSON_LIST(reader, root, "history");
	const cJSON *item = list ? list->child : NULL;

	ret->history = json_elements(reader, list, sizeof(*ret->history), OCI_HISTORY_MAX,
				     &ret->nhistory);
	for (size_t i = 0; i < ret->nhistory && !reader->err; i++, item = item->next) {
		struct oci_history *history = &ret->history[i];

		if (!cJSON_IsObject(item)) {
			json_fail(reader, -EINVAL, "a step of \"history\" is not an object");
			return;
		}
		history->created = JSON_STRING(reader, item, "created");
		history->created_by = JSON_STRING(reader, item, "created_by");
		history->author = JSON_STRING(reader, item, "author");
		history->comment = JSON_STRING(reader, item, "comment");
		history->empty_layer = JSON_BOOL(reader, item, "empty_layer");
	}
}

int oci_config_parse(const char *json, size_t len, struct oci_config *ret, const char **ret_why)
{
	CLEANUP(oci_config_release) struct oci_config config = {0};
	struct json_reader reader = {0};
	AUTO_JSON cJSON *root = NULL;
	int err = json_parse(json, len, OCI_CONFIG_MAX, &root, ret_why);

	if (err)
		return err;
	if (!cJSON_IsObject(root))
		json_fail(&reader, -EINVAL, "it is not an object");
	parse_platform(&reader, root, &config.platform);
	config.created = JSON_STRING(&reader, root, "created");
	parse_diff_ids(&reader, root, &config);
	parse_history(&reader, root, &config);
	if (reader.err) {
		*ret_why = reader.why;
		return reader.err;
	}
	*ret = config;
	config = (struct oci_config){0};
	return 0;
}
