/* SPDX-License-Identifier: Apache-2.0 */
/*
 * authfile: credential files and helpers' answers, text to values.
 * Knows their members. Must not know which of them serves a repository (authfile_key.c).
 */
#include <errno.h>

#include "authfile_priv.h"

void authfile_entry_release(struct authfile_entry *entry)
{
	free(entry->key);
	secret_free(&entry->user);
	secret_free(&entry->password);
	secret_free(&entry->identity_token);
	secret_free(&entry->registry_token);
	*entry = (struct authfile_entry){0};
}

void authfile_release(struct authfile *file)
{
	for (size_t i = 0; i < file->nentries; i++)
		authfile_entry_release(&file->entries[i]);
	for (size_t i = 0; i < file->nhelpers; i++) {
		free(file->helpers[i].key);
		free(file->helpers[i].name);
	}
	free(file->entries);
	free(file->helpers);
	free(file->store);
	*file = (struct authfile){0};
}

bool authfile_entry_is_empty(const struct authfile_entry *entry)
{
	return !entry->why && !entry->user && !entry->identity_token && !entry->registry_token;
}

/* --- entries --- */

/* A member that is a secret: NULL where absent or empty. */
static char *secret_member(struct json_reader *reader, const cJSON *json, const char *name)
{
	char *value = json_string(reader, json, name, "a member of an entry is not one string");

	if (value && !*value)
		secret_free(&value);
	return value;
}

/* "USER:PASSWORD" in base64. What is wrong with it goes to the entry alone: the others serve. */
static void read_pair(struct json_reader *reader, const char *encoded, struct authfile_entry *entry)
{
	AUTO_SECRET char *pair = NULL;
	size_t len;
	int err = base64_decode(encoded, &pair, &len);
	char *colon = err ? NULL : memchr(pair, ':', len);

	if (err == -ENOMEM) {
		json_fail(reader, err, "out of memory");
		return;
	}
	/* some writers have padded it with NULs, at the end */
	if (err || !colon || colon == pair || (size_t)(colon - pair) > strlen(pair)) {
		entry->why = err ? "its \"auth\" is not base64"
				 : "its \"auth\" does not hold USER:PASSWORD";
		return;
	}
	*colon = '\0';
	secret_free(&entry->user);
	secret_free(&entry->password);
	entry->user = strdup(pair);
	entry->password = strdup(colon + 1);
	*colon = ':';
	if (!entry->user || !entry->password)
		json_fail(reader, -ENOMEM, "out of memory");
}

/* Helpers, and those who copy from them, mark an identity token by its user name. */
static void settle_token(struct authfile_entry *entry)
{
	if (!entry->user || strcmp(entry->user, "<token>") != 0)
		return;
	if (!entry->identity_token)
		entry->identity_token = STEAL(entry->password);
	secret_free(&entry->user);
	secret_free(&entry->password);
}

static void read_entry(struct json_reader *reader, const cJSON *json, struct authfile_entry *entry)
{
	AUTO_SECRET char *pair = NULL;

	entry->key = strdup(json->string);
	if (!entry->key) {
		json_fail(reader, -ENOMEM, "out of memory");
		return;
	}
	if (!cJSON_IsObject(json)) {
		entry->why = "it is not an object";
		return;
	}
	pair = secret_member(reader, json, "auth");
	entry->user = secret_member(reader, json, "username");
	if (entry->user)
		entry->password = json_string(reader, json, "password", "a password is no string");
	entry->identity_token = secret_member(reader, json, "identitytoken");
	entry->registry_token = secret_member(reader, json, "registrytoken");
	if (pair)
		read_pair(reader, pair, entry);
	settle_token(entry);
}

static void read_entries(struct json_reader *reader, const cJSON *json, struct authfile *file)
{
	const cJSON *item = json ? json->child : NULL;

	file->entries = json_elements(reader, json, sizeof(*file->entries), JSON_ITEMS_MAX,
				      &file->nentries);
	for (size_t i = 0; i < file->nentries && !reader->err; i++, item = item->next)
		read_entry(reader, item, &file->entries[i]);
}

/* --- helpers --- */

/* It becomes part of the name of a program, which is looked for in PATH: no slash. */
static bool helper_name_valid(const char *name)
{
	return strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
	       strlen(name);
}

static char *helper_name(struct json_reader *reader, const cJSON *json)
{
	char *name;

	if (!cJSON_IsString(json) || !helper_name_valid(json->valuestring)) {
		json_fail(reader, -EINVAL, "the name of a credential helper is not valid");
		return NULL;
	}
	name = strdup(json->valuestring);
	if (!name)
		json_fail(reader, -ENOMEM, "out of memory");
	return name;
}

static void read_helpers(struct json_reader *reader, const cJSON *root, struct authfile *file)
{
	const cJSON *json = JSON_OBJECT(reader, root, "credHelpers");
	const cJSON *store = json_field(reader, root, "credsStore", cJSON_IsString,
					"\"credsStore\" is not one string");
	const cJSON *item = json ? json->child : NULL;

	if (store && *store->valuestring)
		file->store = helper_name(reader, store);
	file->helpers = json_elements(reader, json, sizeof(*file->helpers), JSON_ITEMS_MAX,
				      &file->nhelpers);
	for (size_t i = 0; i < file->nhelpers && !reader->err; i++, item = item->next) {
		file->helpers[i].name = helper_name(reader, item);
		file->helpers[i].key = strdup(item->string);
		if (!file->helpers[i].key)
			json_fail(reader, -ENOMEM, "out of memory");
	}
}

int authfile_parse(const char *json, size_t len, enum authfile_form form, struct authfile *ret,
		   const char **ret_why)
{
	CLEANUP(authfile_release) struct authfile file = {0};
	struct json_reader reader = {0};
	AUTO_SECRET_JSON cJSON *root = NULL;
	int err = json_parse(json, len, AUTHFILE_MAX, &root, ret_why);

	if (err)
		return err;
	if (!cJSON_IsObject(root))
		json_fail(&reader, -EINVAL, "it is not a JSON object");
	else if (form == AUTHFILE_LEGACY)
		read_entries(&reader, root, &file);
	else
		read_entries(&reader, JSON_OBJECT(&reader, root, "auths"), &file);
	if (!reader.err && form == AUTHFILE_CONFIG)
		read_helpers(&reader, root, &file);
	if (reader.err) {
		*ret_why = reader.why;
		return reader.err;
	}
	*ret = file;
	file = (struct authfile){0};
	return 0;
}

int authfile_helper_parse(const char *json, size_t len, struct authfile_entry *ret)
{
	CLEANUP(authfile_entry_release) struct authfile_entry entry = {0};
	struct json_reader reader = {0};
	AUTO_SECRET_JSON cJSON *root = NULL;
	const char *why;
	int err = json_parse(json, len, AUTHFILE_MAX, &root, &why);

	if (err)
		return err;
	entry.user = JSON_STRING(&reader, root, "Username");
	entry.password = JSON_STRING(&reader, root, "Secret");
	if (reader.err)
		return reader.err;
	if (!entry.user || !entry.password)
		return -EINVAL;
	if (!*entry.user && !*entry.password)
		return -ENOENT;
	settle_token(&entry);
	*ret = entry;
	entry = (struct authfile_entry){0};
	return 0;
}
