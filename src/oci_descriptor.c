// SPDX-License-Identifier: Apache-2.0
/*
 * oci_descriptor: descriptors and their parts out of JSON (image-spec, descriptor.md). Knows their
 * fields. Must not know in which documents they stand.
 */
#include <errno.h>

#include "oci_priv.h"

void oci_annotations_free(struct oci_annotation *annotations, size_t n)
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
	oci_annotations_free(descriptor->annotations, descriptor->nannotations);
	json_strings_free(descriptor->urls, descriptor->nurls);
	free(descriptor->data);
	*descriptor = (struct oci_descriptor){0};
}

void oci_descriptors_free(struct oci_descriptor *descriptors, size_t n)
{
	for (size_t i = 0; i < n; i++)
		oci_descriptor_release(&descriptors[i]);
	free(descriptors);
}

/* Inline content that is not what the descriptor names is left out: the blob itself will do. */
static void parse_data(struct json_reader *reader, const cJSON *json, struct oci_descriptor *ret)
{
	AUTO_FREE char *encoded = JSON_STRING(reader, json, "data");
	AUTO_FREE char *data = NULL;
	struct digest digest;
	size_t len;
	int err;

	if (!encoded)
		return;
	err = base64_decode(encoded, &data, &len);
	if (err) {
		json_fail(reader, err, "\"data\" is not base64");
		return;
	}
	if (len != (uint64_t)ret->size || ret->digest.algo == DIGEST_NONE)
		return;
	digest_of(ret->digest.algo, data, len, &digest);
	if (!digest_equal(&digest, &ret->digest))
		return;
	ret->data = (uint8_t *)STEAL(data);
	ret->data_len = len;
}

struct oci_annotation *json_annotations(struct json_reader *reader, const cJSON *json,
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
void json_platform(struct json_reader *reader, const cJSON *json, struct oci_platform *ret)
{
	ret->os = JSON_STRING(reader, json, "os");
	ret->architecture = JSON_STRING(reader, json, "architecture");
	ret->variant = JSON_STRING(reader, json, "variant");
	ret->os_version = JSON_STRING(reader, json, "os.version");
}

void json_digest(struct json_reader *reader, const char *str, struct digest *ret)
{
	if (!str || digest_parse(str, ret))
		json_fail(reader, -EINVAL, "a digest is missing or not valid");
}

/* image-spec, descriptor.md. RET is zeroed; what was read stays in it on errors too. */
void json_descriptor(struct json_reader *reader, const cJSON *json, struct oci_descriptor *ret)
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
	json_digest(reader, digest, &ret->digest);
	ret->size = JSON_NUMBER(reader, json, "size", -1);
	if (ret->size < 0)
		json_fail(reader, -EINVAL, "a size is missing or negative");
	json_platform(reader, JSON_OBJECT(reader, json, "platform"), &ret->platform);
	ret->annotations = json_annotations(reader, json, &ret->nannotations);
	ret->urls = json_strings(reader, JSON_LIST(reader, json, "urls"), &ret->nurls,
				 "an element of \"urls\" is not a string");
	parse_data(reader, json, ret);
}

struct oci_descriptor *json_descriptors(struct json_reader *reader, const cJSON *list,
					size_t *ret_n)
{
	struct oci_descriptor *descriptors = json_elements(reader, list, sizeof(*descriptors),
							   OCI_ITEMS_MAX, ret_n);
	const cJSON *item = list ? list->child : NULL;

	for (size_t i = 0; i < *ret_n && !reader->err; i++, item = item->next)
		json_descriptor(reader, item, &descriptors[i]);
	return descriptors;
}
