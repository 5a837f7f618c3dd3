/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json: reading JSON strictly (RFC 8259).
 * Knows cJSON. Must not know what the documents mean. Only the rooms that turn documents into
 * values include it (tests/layering).
 *
 * A document is scanned before cJSON sees it, so that its depth, its size and the bytes of
 * its strings are known to be harmless; fields are then taken by accessors that know
 * what type they must have.
 */
#ifndef REGFS_JSON_H
#define REGFS_JSON_H

#include <cjson/cJSON.h>

#include "regfs/util.h"

#define JSON_DEPTH_MAX	 64
#define JSON_VALUES_MAX	 (1024 * 1024)		  /* cJSON takes about 100 bytes for each */
#define JSON_ITEMS_MAX	 4096			  /* of a list that is copied */
#define JSON_INTEGER_MAX ((INT64_C(1) << 53) - 1) /* larger ones a double would round */

static inline void json_cleanup(cJSON **json)
{
	cJSON_Delete(*json);
}
#define AUTO_JSON CLEANUP(json_cleanup)

/* Deletes a document that held secrets, and wipes its strings first. */
void json_forget(cJSON **json);
#define AUTO_SECRET_JSON CLEANUP(json_forget)

/* The first thing that was wrong while a document was read; what comes later is of no
 * interest, so that callers may read on and ask once. */
struct json_reader {
	int err;
	const char *why;
};

/* Keeps ERR and WHY if they are the first; returns the first error. */
int json_fail(struct json_reader *reader, int err, const char *why);

/* Parses a whole document of at most MAX bytes, an object or a list. The caller deletes *RET.
 * 0, -EINVAL, -ENOMEM. */
int json_parse(const char *json, size_t len, size_t max, cJSON **ret, const char **ret_why);

/*
 * The field NAME of OBJECT, which must be a string literal. Absent and null are one: NULL (DEFLT,
 * false). A field of the wrong type, or one that is there twice (parsers differ in which of them
 * they take), is an error that names it.
 */
#define JSON_OBJECT(reader, object, name)                                                          \
	json_field(reader, object, name, cJSON_IsObject, "\"" name "\" is not one object")
#define JSON_LIST(reader, object, name)                                                            \
	json_field(reader, object, name, cJSON_IsArray, "\"" name "\" is not one list")
#define JSON_STRING(reader, object, name)                                                          \
	json_string(reader, object, name, "\"" name "\" is not one string")
#define JSON_NUMBER(reader, object, name, deflt)                                                   \
	json_number(reader, object, name, deflt, "\"" name "\" is not one whole number")
#define JSON_BOOL(reader, object, name)                                                            \
	cJSON_IsTrue(json_field(reader, object, name, cJSON_IsBool,                                \
				"\"" name "\" is not one true or false"))

const cJSON *json_field(struct json_reader *reader, const cJSON *object, const char *name,
			cJSON_bool (*is_type)(const cJSON *), const char *why);
/* A copy that the caller frees. */
char *json_string(struct json_reader *reader, const cJSON *object, const char *name,
		  const char *why);
/* From -(2^53 - 1) to 2^53 - 1. */
int64_t json_number(struct json_reader *reader, const cJSON *object, const char *name,
		    int64_t deflt, const char *why);

/* A copy of the strings in LIST (NULL is an empty one), which the caller frees with
 * json_strings_free. An element that is no string is an error. */
char **json_strings(struct json_reader *reader, const cJSON *list, size_t *ret_n, const char *why);
void json_strings_free(char **strings, size_t n);

/* calloc(N, SIZE) for the elements of a list of at most MAX; NULL for none, and on errors. */
void *json_elements(struct json_reader *reader, const cJSON *list, size_t size, size_t max,
		    size_t *ret_n);

#endif
