// SPDX-License-Identifier: Apache-2.0
/*
 * oci_config: an image's config out of JSON (image-spec, config.md; Docker's is the same). Knows
 * the fields that regfs uses. Must not know manifests.
 */
#include <errno.h>

#include "oci_priv.h"

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

static void parse_diff_ids(struct json_reader *reader, const cJSON *root, struct oci_config *ret)
{
	const cJSON *rootfs = JSON_OBJECT(reader, root, "rootfs");
	const cJSON *list = JSON_LIST(reader, rootfs, "diff_ids");
	const cJSON *item = list ? list->child : NULL;

	ret->diff_ids = json_elements(reader, list, sizeof(*ret->diff_ids), OCI_ITEMS_MAX,
				      &ret->ndiff_ids);
	for (size_t i = 0; i < ret->ndiff_ids; i++, item = item->next)
		json_digest(reader, cJSON_GetStringValue(item), &ret->diff_ids[i]);
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
	json_platform(&reader, root, &config.platform);
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
