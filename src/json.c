// SPDX-License-Identifier: Apache-2.0
/*
 * json: JSON text to a tree that is safe to read, and its fields by type. Knows cJSON and its weak
 * spots. Must not know what the fields mean.
 */
#include <errno.h>

#include "regfs/json.h"

/* --- before cJSON sees it --- */

struct scanner {
	const uint8_t *at, *end;
	unsigned depth;
	size_t values;
};

/* The length of the UTF-8 sequence at AT (RFC 3629: shortest form, no surrogates), 0 if it is
 * not one. */
static size_t utf8_len(const uint8_t *at, const uint8_t *end)
{
	uint8_t low = 0x80, high = 0xbf;
	size_t len;

	if (at[0] < 0xc2 || at[0] > 0xf4)
		return at[0] < 0x80;
	len = at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;
	if ((size_t)(end - at) < len)
		return 0;
	if (at[0] == 0xe0)
		low = 0xa0;
	else if (at[0] == 0xed)
		high = 0x9f;
	else if (at[0] == 0xf0)
		low = 0x90;
	else if (at[0] == 0xf4)
		high = 0x8f;
	if (at[1] < low || at[1] > high)
		return 0;
	for (size_t i = 2; i < len; i++)
		if ((at[i] & 0xc0) != 0x80)
			return 0;
	return len;
}

/* Behind the opening quote, to behind the closing one. */
static const char *scan_string(struct scanner *scanner)
{
	while (scanner->at < scanner->end) {
		size_t len = utf8_len(scanner->at, scanner->end);

		if (len == 0)
			return "a string is not UTF-8";
		if (*scanner->at < ' ')
			return "a string holds a control character";
		if (*scanner->at == '"') {
			scanner->at++;
			return NULL;
		}
		/* Decoded it would end the C string early, and two names would be one. */
		if (scanner->end - scanner->at > 6 && memcmp(scanner->at, "\\u0000", 6) == 0)
			return "a string holds a NUL";
		if (*scanner->at == '\\' && scanner->end - scanner->at > 1)
			len = 1 + (scanner->at[1] < 0x80);
		scanner->at += len;
	}
	return "it is cut off";
}

/* The document without its strings: brackets that balance, and nothing behind the last. */
static const char *scan_punctuation(struct scanner *scanner, uint8_t c)
{
	if (c == '{' || c == '[') {
		if (++scanner->depth > JSON_DEPTH_MAX)
			return "it is nested deeper than 64 levels";
	} else if (c == '}' || c == ']') {
		scanner->depth--;
	}
	if (c == '{' || c == '[' || c == ',')
		scanner->values++;
	return scanner->values > JSON_VALUES_MAX ? "it holds more than a million values" : NULL;
}

static const char *scan(const char *json, size_t len)
{
	struct scanner scanner = {(const uint8_t *)json, (const uint8_t *)json + len, 0, 0};
	const char *why = NULL;
	bool begun = false;

	while (!why && scanner.at < scanner.end) {
		uint8_t c = *scanner.at++;

		if (c == ' ' || c == '\t' || c == '\n' || c == '\r')
			continue;
		if (c < ' ' || c >= 0x80)
			return "it is not JSON";
		if (scanner.depth == 0 && (begun || (c != '{' && c != '[')))
			return begun ? "something follows its end" : "it is no JSON object or list";
		begun = true;
		why = c == '"' ? scan_string(&scanner) : scan_punctuation(&scanner, c);
	}
	if (!why && !begun)
		return "it is empty";
	return !why && scanner.depth > 0 ? "it is cut off" : why;
}

int json_parse(const char *json, size_t len, size_t max, cJSON **ret, const char **ret_why)
{
	const char *why = len > max ? "it is too large" : scan(json, len);
	cJSON *root;

	if (why) {
		*ret_why = why;
		return -EINVAL;
	}
	errno = 0; /* only malloc sets ENOMEM on the way */
	root = cJSON_ParseWithLength(json, len);
	if (!root) {
		bool no_memory = errno == ENOMEM;

		*ret_why = no_memory ? "out of memory" : "it is not JSON";
		return no_memory ? -ENOMEM : -EINVAL;
	}
	*ret = root;
	return 0;
}

/* --- fields --- */

int json_fail(struct json_reader *reader, int err, const char *why)
{
	if (!reader->err) {
		reader->err = err;
		reader->why = why;
	}
	return reader->err;
}

const cJSON *json_field(struct json_reader *reader, const cJSON *object, const char *name,
			cJSON_bool (*is_type)(const cJSON *), const char *why)
{
	const cJSON *found = NULL, *child;

	cJSON_ArrayForEach(child, object)
	{
		if (!child->string || strcmp(child->string, name) != 0)
			continue;
		if (found || (!cJSON_IsNull(child) && !is_type(child))) {
			json_fail(reader, -EINVAL, why);
			return NULL;
		}
		found = child;
	}
	return found && !cJSON_IsNull(found) ? found : NULL;
}

static char *copy_string(struct json_reader *reader, const char *str)
{
	char *copy = strdup(str);

	if (!copy)
		json_fail(reader, -ENOMEM, "out of memory");
	return copy;
}

char *json_string(struct json_reader *reader, const cJSON *object, const char *name,
		  const char *why)
{
	const cJSON *field = json_field(reader, object, name, cJSON_IsString, why);

	return field ? copy_string(reader, field->valuestring) : NULL;
}

int64_t json_number(struct json_reader *reader, const cJSON *object, const char *name,
		    int64_t deflt, const char *why)
{
	const cJSON *field = json_field(reader, object, name, cJSON_IsNumber, why);
	double value;

	if (!field)
		return deflt;
	value = field->valuedouble;
	if (!(value >= -(double)JSON_INTEGER_MAX && value <= (double)JSON_INTEGER_MAX) ||
	    value != (double)(int64_t)value) {
		json_fail(reader, -EINVAL, why);
		return deflt;
	}
	return (int64_t)value;
}

void *json_elements(struct json_reader *reader, const cJSON *list, size_t size, size_t max,
		    size_t *ret_n)
{
	size_t n = list ? cJSON_GetArraySize(list) : 0;
	void *elements;

	*ret_n = 0;
	if (n == 0)
		return NULL;
	if (n > max) {
		json_fail(reader, -EINVAL, "a list in it is too long");
		return NULL;
	}
	elements = calloc(n, size);
	if (!elements)
		json_fail(reader, -ENOMEM, "out of memory");
	else
		*ret_n = n;
	return elements;
}

char **json_strings(struct json_reader *reader, const cJSON *list, size_t *ret_n, const char *why)
{
	char **strings = json_elements(reader, list, sizeof(*strings), JSON_ITEMS_MAX, ret_n);
	const cJSON *item = list ? list->child : NULL;

	for (size_t i = 0; i < *ret_n; i++, item = item->next) {
		if (cJSON_IsString(item))
			strings[i] = copy_string(reader, item->valuestring);
		else
			json_fail(reader, -EINVAL, why);
	}
	return strings;
}

void json_strings_free(char **strings, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(strings[i]);
	free(strings);
}

/* --- secrets --- */

/* As deep as the document, which json_parse() bounds. */
static void wipe(cJSON *json)
{
	for (; json; json = json->next) {
		if (json->valuestring)
			explicit_bzero(json->valuestring, strlen(json->valuestring));
		wipe(json->child);
	}
}

void json_forget(cJSON **json)
{
	wipe(*json);
	cJSON_Delete(*json);
	*json = NULL;
}
