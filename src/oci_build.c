// SPDX-License-Identifier: Apache-2.0
/*
 * oci_build: the config of an image that is built: what is below it, what somebody wishes, and one
 * layer more (image-spec, config.md). Knows what merging means for each field. Must not know
 * where the documents come from.
 */
#include <errno.h>

#include "oci_priv.h"

#define WISHES_MAX 1024 /* fields, variables, labels, … */

/* --- what is wished --- */

static bool is_strings(const cJSON *value)
{
	const cJSON *item;

	if (!cJSON_IsArray(value))
		return false;
	cJSON_ArrayForEach(item, value)
	{
		if (!cJSON_IsString(item))
			return false;
	}
	return true;
}

static bool is_env(const cJSON *value)
{
	const cJSON *item;

	if (!is_strings(value))
		return false;
	cJSON_ArrayForEach(item, value)
	{
		const char *equals = strchr(item->valuestring, '=');
		if (!equals || equals == item->valuestring)
			return false;
	}
	return true;
}

static bool is_labels(const cJSON *value)
{
	const cJSON *item;

	if (!cJSON_IsObject(value))
		return false;
	cJSON_ArrayForEach(item, value)
	{
		if (!cJSON_IsString(item))
			return false;
	}
	return true;
}

static bool is_string(const cJSON *value)
{
	return cJSON_IsString(value);
}

static bool is_object(const cJSON *value)
{
	return cJSON_IsObject(value);
}

/* A runtime that finds another type there does not start the image. */
static const struct field {
	const char *name;
	bool (*is_valid)(const cJSON *value);
	const char *why;
} fields[] = {
	{"Cmd", is_strings, "\"Cmd\" is not a list of strings"},
	{"Entrypoint", is_strings, "\"Entrypoint\" is not a list of strings"},
	{"Env", is_env, "\"Env\" is not a list of NAME=VALUE strings"},
	{"ExposedPorts", is_object, "\"ExposedPorts\" is not an object"},
	{"Labels", is_labels, "\"Labels\" is not an object of strings"},
	{"StopSignal", is_string, "\"StopSignal\" is not a string"},
	{"User", is_string, "\"User\" is not a string"},
	{"Volumes", is_object, "\"Volumes\" is not an object"},
	{"WorkingDir", is_string, "\"WorkingDir\" is not a string"},
};

/* Merging looks for each among the others. */
static bool is_too_long(const cJSON *value)
{
	return (cJSON_IsObject(value) || cJSON_IsArray(value)) &&
	       cJSON_GetArraySize(value) > WISHES_MAX;
}

static int check_fields(const cJSON *config, const char **ret_why)
{
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
		const cJSON *value = cJSON_GetObjectItemCaseSensitive(config, fields[i].name);

		if (value && !cJSON_IsNull(value) && !fields[i].is_valid(value)) {
			*ret_why = fields[i].why;
			return -EINVAL;
		}
		if (is_too_long(value)) {
			*ret_why = "a list in it is too long";
			return -EINVAL;
		}
	}
	if (is_too_long(config)) {
		*ret_why = "it has too many fields";
		return -EINVAL;
	}
	return 0;
}

/* A whole image config, or only the object that would be its "config". */
static bool is_whole(const cJSON *given)
{
	static const char *const names[] = {"config", "architecture", "os", "rootfs", "history"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (cJSON_GetObjectItemCaseSensitive(given, names[i]))
			return true;
	}
	return false;
}

/* --- merging --- */

/* Puts a copy of VALUE under NAME; null takes the field away. */
static int put_field(cJSON *object, const char *name, const cJSON *value)
{
	cJSON_DeleteItemFromObjectCaseSensitive(object, name);
	if (cJSON_IsNull(value))
		return 0;
	cJSON *copy = cJSON_Duplicate(value, true);
	if (copy && cJSON_AddItemToObject(object, name, copy))
		return 0;
	cJSON_Delete(copy);
	return -ENOMEM;
}

static cJSON *variable_of(const cJSON *env, const char *wanted)
{
	size_t len = (size_t)(strchr(wanted, '=') - wanted) + 1;
	cJSON *item;

	cJSON_ArrayForEach(item, env)
	{
		if (cJSON_IsString(item) && !strncmp(item->valuestring, wanted, len))
			return item;
	}
	return NULL;
}

/* Variable by variable, as ENV does. */
static int merge_env(cJSON *env, const cJSON *wished)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, wished)
	{
		cJSON *copy = cJSON_Duplicate(item, true);
		cJSON *old = variable_of(env, item->valuestring);
		if (!copy)
			return -ENOMEM;
		if (old)
			cJSON_ReplaceItemViaPointer(env, old, copy);
		else
			cJSON_AddItemToArray(env, copy);
	}
	return 0;
}

static int merge_object(cJSON *object, const cJSON *wished)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, wished)
	{
		int err = put_field(object, item->string, item);
		if (err)
			return err;
	}
	return 0;
}

static bool merges_by_key(const char *name)
{
	return !strcmp(name, "Labels") || !strcmp(name, "ExposedPorts") || !strcmp(name, "Volumes");
}

static int merge_field(cJSON *config, const cJSON *wished)
{
	cJSON *there = cJSON_GetObjectItemCaseSensitive(config, wished->string);

	if (!strcmp(wished->string, "Env") && is_env(there) && cJSON_IsArray(wished))
		return merge_env(there, wished);
	if (merges_by_key(wished->string) && cJSON_IsObject(there) && cJSON_IsObject(wished))
		return merge_object(there, wished);
	return put_field(config, wished->string, wished);
}

/* What the command below was meant for is another program now, as docker build sees it. */
static void drop_stale_command(cJSON *config, const cJSON *wished)
{
	if (cJSON_GetObjectItemCaseSensitive(wished, "Entrypoint") &&
	    !cJSON_GetObjectItemCaseSensitive(wished, "Cmd"))
		cJSON_DeleteItemFromObjectCaseSensitive(config, "Cmd");
}

static cJSON *need_object(cJSON *object, const char *name)
{
	cJSON *there = cJSON_GetObjectItemCaseSensitive(object, name);

	if (cJSON_IsObject(there))
		return there;
	cJSON_DeleteItemFromObjectCaseSensitive(object, name);
	return cJSON_AddObjectToObject(object, name);
}

static int merge_config(cJSON *image, const cJSON *wished, const char **ret_why)
{
	cJSON *config = need_object(image, "config");
	const cJSON *item;
	int err = check_fields(wished, ret_why);

	if (err || !config)
		return err ? err : -ENOMEM;
	drop_stale_command(config, wished);
	cJSON_ArrayForEach(item, wished)
	{
		err = merge_field(config, item);
		if (err)
			return err;
	}
	return 0;
}

/* Layers and their history are what they are, whatever is wished. */
static int merge_whole(cJSON *image, const cJSON *given, const char **ret_why)
{
	const cJSON *item;

	if (is_too_long(given)) {
		*ret_why = "it has too many fields";
		return -EINVAL;
	}
	cJSON_ArrayForEach(item, given)
	{
		int err = 0;
		if (!strcmp(item->string, "rootfs") || !strcmp(item->string, "history"))
			continue;
		if (strcmp(item->string, "config") != 0)
			err = put_field(image, item->string, item);
		else if (cJSON_IsObject(item))
			err = merge_config(image, item, ret_why);
		else if (!cJSON_IsNull(item))
			err = -EINVAL;
		if (err == -EINVAL && !cJSON_IsObject(item))
			*ret_why = "\"config\" is not an object";
		if (err)
			return err;
	}
	return 0;
}

/* --- the image below, and above it --- */

static int start_image(const struct oci_build *build, cJSON **ret, const char **ret_why)
{
	if (build->base)
		return json_parse(build->base, build->base_len, OCI_CONFIG_MAX, ret, ret_why);
	AUTO_JSON cJSON *image = cJSON_CreateObject();
	if (!image ||
	    !cJSON_AddStringToObject(image, "architecture", build->platform->architecture) ||
	    !cJSON_AddStringToObject(image, "os", build->platform->os) ||
	    (build->platform->variant &&
	     !cJSON_AddStringToObject(image, "variant", build->platform->variant)))
		return -ENOMEM;
	*ret = STEAL(image);
	return 0;
}

static int set_string(cJSON *object, const char *name, const char *value)
{
	cJSON_DeleteItemFromObjectCaseSensitive(object, name);
	return cJSON_AddStringToObject(object, name, value) ? 0 : -ENOMEM;
}

static int add_layer(cJSON *image, const struct digest *diff_id)
{
	cJSON *rootfs = need_object(image, "rootfs");
	cJSON *list = cJSON_GetObjectItemCaseSensitive(rootfs, "diff_ids");
	char text[DIGEST_STR_MAX];

	if (!rootfs || set_string(rootfs, "type", "layers"))
		return -ENOMEM;
	if (!cJSON_IsArray(list)) {
		cJSON_DeleteItemFromObjectCaseSensitive(rootfs, "diff_ids");
		list = cJSON_AddArrayToObject(rootfs, "diff_ids");
	}
	cJSON *item = list && diff_id ? cJSON_CreateString(digest_format(diff_id, text)) : NULL;
	if (item && cJSON_AddItemToArray(list, item))
		return 0;
	cJSON_Delete(item);
	return list && !diff_id ? 0 : -ENOMEM;
}

static int add_history(cJSON *image, const struct oci_build *build)
{
	cJSON *list = cJSON_GetObjectItemCaseSensitive(image, "history");
	AUTO_JSON cJSON *step = cJSON_CreateObject();

	if (!cJSON_IsArray(list)) {
		cJSON_DeleteItemFromObjectCaseSensitive(image, "history");
		list = cJSON_AddArrayToObject(image, "history");
	}
	if (!list || !step || set_string(step, "created", build->created) ||
	    set_string(step, "created_by", build->created_by) ||
	    (!build->diff_id && !cJSON_AddTrueToObject(step, "empty_layer")) ||
	    !cJSON_AddItemToArray(list, step))
		return -ENOMEM;
	step = NULL;
	return 0;
}

static int merge_given(cJSON *image, const struct oci_build *build, const char **ret_why)
{
	AUTO_JSON cJSON *given = NULL;

	if (!build->given)
		return 0;
	int err = json_parse(build->given, build->given_len, OCI_CONFIG_MAX, &given, ret_why);
	if (err)
		return err;
	if (!cJSON_IsObject(given)) {
		*ret_why = "it is not an object";
		return -EINVAL;
	}
	return is_whole(given) ? merge_whole(image, given, ret_why)
			       : merge_config(image, given, ret_why);
}

static int check_result(const struct buf *text, const char **ret_why)
{
	CLEANUP(oci_config_release) struct oci_config config = {0};

	return oci_config_parse(text->data, text->len, &config, ret_why);
}

int oci_config_build(const struct oci_build *build, struct buf *ret, const char **ret_why)
{
	AUTO_BUF struct buf text = BUF_INIT(OCI_CONFIG_MAX);
	AUTO_JSON cJSON *image = NULL;
	AUTO_FREE char *printed = NULL;
	int err = start_image(build, &image, ret_why);

	if (!err && !cJSON_IsObject(image)) {
		*ret_why = "the config below is not an object";
		err = -EINVAL;
	}
	if (!err)
		err = merge_given(image, build, ret_why);
	if (!err)
		err = set_string(image, "created", build->created);
	if (!err)
		err = add_layer(image, build->diff_id);
	if (!err)
		err = add_history(image, build);
	if (err)
		return err;
	printed = cJSON_PrintUnformatted(image);
	if (!printed)
		return -ENOMEM;
	err = buf_puts(&text, printed);
	if (!err)
		err = check_result(&text, ret_why);
	return err ? err : buf_add(ret, text.data, text.len);
}
