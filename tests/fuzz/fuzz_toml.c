// SPDX-License-Identifier: Apache-2.0
/* toml: any bytes; a tree is whole, and a refusal has a line and words. */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#include "regfs/toml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(bool holds)
{
	if (!holds)
		__builtin_trap();
}

static void walk(const struct toml *value)
{
	bool table = toml_kind(value) == TOML_TABLE;

	check(toml_line(value) > 0);
	check((toml_kind(value) == TOML_STRING) == (toml_string(value) != NULL));
	for (const struct toml *child = toml_first(value); child; child = toml_next(child)) {
		check(table == (toml_key(child) != NULL));
		check(!table || toml_get(value, toml_key(child)) == child);
		walk(child);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct toml_error error = {0};
	struct toml *root = NULL;
	int err = toml_parse((const char *)data, len, &root, &error);

	check(err == 0 || err == -EINVAL);
	check(err ? error.line > 0 && error.why && !root : root != NULL);
	if (root)
		walk(root);
	toml_free(root);
	return 0;
}
