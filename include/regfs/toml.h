/* SPDX-License-Identifier: Apache-2.0 */
/*
 * toml: text to a tree of values: as much of TOML v1.0.0 as configuration of registries uses.
 * Pure. Must not know what the keys mean, nor files.
 *
 * Understood: comments; bare, quoted and dotted keys; tables, arrays of tables, inline tables;
 * strings (basic and literal, of one line and of several), integers, booleans, arrays. Refused
 * with words: floats, dates and times, NUL in strings. Bytes above 0x7f are taken as they are. What
 * TOML forbids is refused too, above all a key or a table that is defined twice.
 */
#ifndef REGFS_TOML_H
#define REGFS_TOML_H

#include "regfs/util.h"

#define TOML_TEXT_MAX	(1 * MIB)
#define TOML_VALUES_MAX 10000
#define TOML_DEPTH_MAX	32 /* of arrays and inline tables, and of the parts of a key */

enum toml_kind { TOML_STRING, TOML_INTEGER, TOML_BOOLEAN, TOML_ARRAY, TOML_TABLE };

/* A value; owned by the tree it stands in. */
struct toml;

struct toml_error {
	unsigned line;	 /* from 1 */
	const char *why; /* a constant sentence */
};

/* Parses TEXT; *RET is the root table (toml_free()). 0, -ENOMEM, or -EINVAL with *RET_ERROR set. */
int toml_parse(const char *text, size_t len, struct toml **ret, struct toml_error *ret_error);
/* The root alone; NULL is fine. */
void toml_free(struct toml *root);

enum toml_kind toml_kind(const struct toml *value);
/* Where it was written. */
unsigned toml_line(const struct toml *value);
/* Its key in the table it is a member of; NULL in an array. */
const char *toml_key(const struct toml *value);
/* The member KEY of TABLE. NULL if there is none, or TABLE is NULL or no table. */
const struct toml *toml_get(const struct toml *table, const char *key);
/* The first member or element, in the order of the text, and the one after VALUE; NULL at the end,
 * or where the value holds none. NULL is fine. */
const struct toml *toml_first(const struct toml *value);
const struct toml *toml_next(const struct toml *value);
/* NULL (false, for the others: *RET is untouched) where the value is of another kind or NULL. */
const char *toml_string(const struct toml *value);
bool toml_boolean(const struct toml *value, bool *ret);
bool toml_integer(const struct toml *value, int64_t *ret);

#endif
