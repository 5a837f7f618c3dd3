/* SPDX-License-Identifier: Apache-2.0 */
/*
 * authfile_write: an entry put into a credential file's text or taken out of it, and what a helper
 * is told. What is there and not meant stays, whatever it is.
 */
#include <errno.h>
#include <math.h>

#include "authfile_priv.h"

static const char *const secret_members[] = {"auth", "username", "password", "identitytoken",
					     "registrytoken"};

/* As many digits as it takes to read the same number again; what no double holds is no number of
 * JSON by its name ("inf"), but still one by its size. */
static char *number_text(double value)
{
	AUTO_FREE char *text = NULL;

	if (isinf(value))
		return strdup(value > 0 ? "1e999" : "-1e999");
	text = format("%.15g", value);
	if (text && strtod(text, NULL) != value)
		return format("%.17g", value);
	return STEAL(text);
}

/* cJSON prints a number in 15 digits where that is nearly the same; nearly is not untouched. */
static int keep_numbers(cJSON *json)
{
	int err = 0;

	for (; json && !err; json = json->next) {
		char *text;

		err = keep_numbers(json->child);
		if (!cJSON_IsNumber(json) || json->valuedouble == json->valueint)
			continue;
		text = number_text(json->valuedouble);
		if (!text)
			return -ENOMEM;
		json->type = cJSON_Raw;
		json->valuestring = text;
	}
	return err;
}

/* Into memory of our own, which is wiped where it was too small: cJSON's own buffer would be moved
 * about. */
static int print(cJSON *root, size_t hint, struct buf *ret)
{
	int kept = keep_numbers(root);

	if (kept)
		return kept;
	for (size_t size = hint + 4 * KIB; size <= 8 * AUTHFILE_MAX; size *= 2) {
		AUTO_FREE char *text = malloc(size);
		bool fits = text && cJSON_PrintPreallocated(root, text, (int)size, true);
		int err = text ? 0 : -ENOMEM;

		if (fits)
			err = buf_reserve(ret, strlen(text) + 1);
		if (fits && !err) {
			(void)buf_puts(ret, text);
			(void)buf_puts(ret, "\n");
		}
		if (text)
			explicit_bzero(text, size);
		if (fits || err)
			return err;
	}
	return -EFBIG;
}

/* The object "auths" of the text, made where it is missing. */
static int parse_auths(const char *previous, size_t len, cJSON **ret_root, cJSON **ret_auths)
{
	AUTO_SECRET_JSON cJSON *root = NULL;
	struct json_reader reader = {0};
	const char *why;
	cJSON *auths;
	int err = 0;

	/* an empty file is one that somebody has prepared */
	if (previous && len > 0)
		err = json_parse(previous, len, AUTHFILE_MAX, &root, &why);
	else if (!(root = cJSON_CreateObject()))
		err = -ENOMEM;
	if (err)
		return err;
	if (!cJSON_IsObject(root))
		return -EINVAL;
	(void)JSON_OBJECT(&reader, root, "auths");
	if (reader.err)
		return reader.err;
	auths = cJSON_GetObjectItemCaseSensitive(root, "auths");
	if (cJSON_IsNull(auths)) {
		cJSON_DeleteItemFromObjectCaseSensitive(root, "auths");
		auths = NULL;
	}
	if (!auths)
		auths = cJSON_AddObjectToObject(root, "auths");
	if (!auths)
		return -ENOMEM;
	*ret_auths = auths;
	*ret_root = STEAL(root);
	return 0;
}

/* The first entry of HOST at or behind AT. */
static cJSON *next_entry(cJSON *at, const char *host)
{
	while (at && !authfile_key_is(at->string, host))
		at = at->next;
	return at;
}

/* ENTRY and those of HOST behind it. */
static void remove_entries(cJSON *auths, cJSON *entry, const char *host)
{
	while ((entry = next_entry(entry, host))) {
		cJSON *next = entry->next;
		cJSON *gone = cJSON_DetachItemViaPointer(auths, entry);

		json_forget(&gone);
		entry = next;
	}
}

static int fill(cJSON *json, const struct authfile_entry *entry)
{
	AUTO_SECRET char *pair = NULL;
	AUTO_SECRET char *encoded = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(secret_members); i++) {
		cJSON *old = cJSON_DetachItemFromObjectCaseSensitive(json, secret_members[i]);

		json_forget(&old);
	}
	if (!entry->user)
		return 0;
	pair = format("%s:%s", entry->user, entry->password ? entry->password : "");
	encoded = pair ? base64_encode(pair, strlen(pair)) : NULL;
	return encoded && cJSON_AddStringToObject(json, "auth", encoded) ? 0 : -ENOMEM;
}

int authfile_set(const char *previous, size_t len, const char *key,
		 const struct authfile_entry *entry, struct buf *ret)
{
	AUTO_SECRET_JSON cJSON *root = NULL;
	char host[REF_HOST_MAX];
	cJSON *auths, *json;
	int err;

	if (!authfile_key_host(key, host))
		return -EINVAL;
	err = parse_auths(previous, len, &root, &auths);
	if (err)
		return err;
	json = next_entry(auths->child, host);
	if (json && !cJSON_IsObject(json)) {
		remove_entries(auths, json, host);
		json = NULL;
	}
	if (!json)
		json = cJSON_AddObjectToObject(auths, authfile_default_key(host));
	else /* Docker Hub under another of its names would win or lose by chance */
		remove_entries(auths, json->next, host);
	err = json ? fill(json, entry) : -ENOMEM;
	return err ? err : print(root, len, ret);
}

int authfile_unset(const char *previous, size_t len, const char *key, struct buf *ret)
{
	AUTO_SECRET_JSON cJSON *root = NULL;
	char host[REF_HOST_MAX];
	cJSON *auths;
	int err;

	if (!authfile_key_host(key, host))
		return -EINVAL;
	err = parse_auths(previous, len, &root, &auths);
	if (err)
		return err;
	if (!next_entry(auths->child, host))
		return -ENOENT;
	remove_entries(auths, auths->child, host);
	return print(root, len, ret);
}

int authfile_helper_write(const char *key, const struct authfile_entry *entry, struct buf *ret)
{
	AUTO_SECRET_JSON cJSON *root = cJSON_CreateObject();

	if (!cJSON_AddStringToObject(root, "ServerURL", key) ||
	    !cJSON_AddStringToObject(root, "Username", entry->user) ||
	    !cJSON_AddStringToObject(root, "Secret", entry->password))
		return -ENOMEM;
	return print(root, strlen(key), ret);
}
