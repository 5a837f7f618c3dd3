// SPDX-License-Identifier: Apache-2.0
/*
 * oci_list: the smaller documents: docker save's manifest.json, lists of names, token answers and
 * error bodies. Knows their fields. Must not know who sent them.
 */
#include <errno.h>

#include "oci_priv.h"

#define ARCHIVE_ENTRIES_MAX 1024
#define ERRORS_MAX	    4 /* of one body that are told */
#define ERROR_TEXT_MAX	    1000
#define ERROR_DETAIL_MAX    200

/* --- docker save's manifest.json --- */

void docker_archive_release(struct docker_archive *archive)
{
	for (size_t i = 0; i < archive->nentries; i++) {
		struct docker_archive_entry *entry = &archive->entries[i];

		free(entry->config);
		json_strings_free(entry->repo_tags, entry->nrepo_tags);
		json_strings_free(entry->layers, entry->nlayers);
	}
	free(archive->entries);
	*archive = (struct docker_archive){0};
}

static void parse_entry(struct json_reader *reader, const cJSON *json,
			struct docker_archive_entry *ret)
{
	if (!cJSON_IsObject(json)) {
		json_fail(reader, -EINVAL, "an image in it is not an object");
		return;
	}
	ret->config = JSON_STRING(reader, json, "Config");
	if (!ret->config)
		json_fail(reader, -EINVAL, "the \"Config\" of an image is missing");
	ret->repo_tags = json_strings(reader, JSON_LIST(reader, json, "RepoTags"), &ret->nrepo_tags,
				      "an element of \"RepoTags\" is not a string");
	ret->layers = json_strings(reader, JSON_LIST(reader, json, "Layers"), &ret->nlayers,
				   "an element of \"Layers\" is not a string");
}

int docker_archive_parse(const char *json, size_t len, struct docker_archive *ret,
			 const char **ret_why)
{
	CLEANUP(docker_archive_release) struct docker_archive archive = {0};
	struct json_reader reader = {0};
	AUTO_JSON cJSON *root = NULL;
	const cJSON *item;
	int err = json_parse(json, len, OCI_MANIFEST_MAX, &root, ret_why);

	if (err)
		return err;
	if (!cJSON_IsArray(root)) {
		*ret_why = "it is not a list of images";
		return -EINVAL;
	}
	archive.entries = json_elements(&reader, root, sizeof(*archive.entries),
					ARCHIVE_ENTRIES_MAX, &archive.nentries);
	item = root->child;
	for (size_t i = 0; i < archive.nentries && !reader.err; i++, item = item->next)
		parse_entry(&reader, item, &archive.entries[i]);
	if (reader.err) {
		*ret_why = reader.why;
		return reader.err;
	}
	*ret = archive;
	archive = (struct docker_archive){0};
	return 0;
}

/* --- names --- */

int oci_names_parse(const char *json, size_t len, const char *field, oci_name_fn *fn, void *arg,
		    const char **ret_why)
{
	struct json_reader reader = {0};
	AUTO_JSON cJSON *root = NULL;
	const cJSON *value, *item;
	int err = json_parse(json, len, OCI_NAMES_MAX, &root, ret_why);

	if (err)
		return err;
	value = cJSON_IsObject(root) ? cJSON_GetObjectItemCaseSensitive(root, field) : NULL;
	if (!value) {
		*ret_why = "the list is missing";
		return -EINVAL;
	}
	value = json_field(&reader, root, field, cJSON_IsArray, "the list is not one list");
	if (reader.err) {
		*ret_why = reader.why;
		return reader.err;
	}
	/* Checked before the first call, so that a wrong document has no effect. */
	cJSON_ArrayForEach(item, value)
	{
		if (!cJSON_IsString(item) && !cJSON_IsNull(item)) {
			*ret_why = "a name is not a string";
			return -EINVAL;
		}
	}
	cJSON_ArrayForEach(item, value)
	{
		err = cJSON_IsString(item) ? fn(arg, item->valuestring) : 0;
		if (err)
			return err;
	}
	return 0;
}

/* --- single fields --- */

char *oci_json_string(const char *json, size_t len, const char *field)
{
	struct json_reader reader = {0};
	AUTO_SECRET_JSON cJSON *root = NULL;
	const char *why;

	if (json_parse(json, len, OCI_MANIFEST_MAX, &root, &why) || !cJSON_IsObject(root))
		return NULL;
	return json_string(&reader, root, field, "");
}

int64_t oci_json_number(const char *json, size_t len, const char *field, int64_t deflt)
{
	struct json_reader reader = {0};
	AUTO_JSON cJSON *root = NULL;
	const char *why;

	if (json_parse(json, len, OCI_MANIFEST_MAX, &root, &why) || !cJSON_IsObject(root))
		return deflt;
	return json_number(&reader, root, field, deflt, "");
}

/* --- errors --- */

/* The string field NAME of ITEM; "" where it has none. */
static const char *text_of(const cJSON *item, const char *name)
{
	const cJSON *field = cJSON_GetObjectItemCaseSensitive(item, name);

	return cJSON_IsString(field) ? field->valuestring : "";
}

/* Details are free-form: words are told, and small structures as they stand. */
static int add_detail(const cJSON *item, struct buf *text)
{
	const cJSON *detail = cJSON_GetObjectItemCaseSensitive(item, "detail");
	AUTO_FREE char *printed = NULL;
	const char *words;

	if (!detail || cJSON_IsNull(detail))
		return 0;
	if (!cJSON_IsString(detail)) {
		printed = cJSON_PrintUnformatted(detail);
		if (!printed)
			return -ENOMEM;
	}
	words = printed ? printed : detail->valuestring;
	if (!*words || strlen(words) > ERROR_DETAIL_MAX)
		return 0;
	return buf_printf(text, " (%s)", words);
}

/* Adds an error as a whole, or not at all if there is no room. 0 or -ENOMEM. */
static int add_error(const cJSON *item, struct buf *text)
{
	const char *code = text_of(item, "code"), *message = text_of(item, "message");
	size_t len = text->len;
	int err = len > 0 ? buf_puts(text, "; ") : 0;

	if (!err)
		err = buf_printf(text, "%s%s%s", code, *code && *message ? ": " : "", message);
	if (!err)
		err = add_detail(item, text);
	if (err == -EFBIG) {
		text->len = len;
		if (text->data)
			text->data[len] = '\0';
		return 0;
	}
	return err;
}

char *oci_error_message(const char *json, size_t len, char ret_code[static 64])
{
	AUTO_BUF struct buf text = BUF_INIT(ERROR_TEXT_MAX);
	AUTO_JSON cJSON *root = NULL;
	const cJSON *errors, *item;
	const char *why;
	int told = 0;

	ret_code[0] = '\0';
	if (json_parse(json, len, OCI_MANIFEST_MAX, &root, &why) || !cJSON_IsObject(root))
		return NULL;
	errors = cJSON_GetObjectItemCaseSensitive(root, "errors");
	if (!cJSON_IsArray(errors))
		return NULL;
	cJSON_ArrayForEach(item, errors)
	{
		if (!cJSON_IsObject(item) || told == ERRORS_MAX)
			break;
		if (told++ == 0)
			snprintf(ret_code, 64, "%s", text_of(item, "code"));
		if (add_error(item, &text))
			return NULL;
	}
	/* One line of a log, whatever the server put into it. */
	if (text.data)
		replace_controls(text.data, ' ');
	return buf_steal(&text, NULL);
}
