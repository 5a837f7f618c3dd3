// SPDX-License-Identifier: Apache-2.0
/* titles of an artifact's files: whatever they say, each is a path below the directory, none is in
 * another's way, and every blob has a name. */
#include <stddef.h>
#include <stdint.h>

#include "../../src/imagedir_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(bool holds)
{
	if (!holds)
		__builtin_trap();
}

static void check_path(const char *path)
{
	check(*path && strlen(path) <= TITLES_PATH_MAX);
	for (;;) {
		size_t len = strcspn(path, "/");

		check(len > 0 && len <= 255);
		check(!(len == 1 && path[0] == '.') && !(len == 2 && !memcmp(path, "..", 2)));
		path += len;
		if (!*path)
			return;
		path++;
	}
}

static bool is_above(const char *path, const char *other)
{
	size_t len = strlen(path);

	return !strncmp(path, other, len) && (other[len] == '/' || !other[len]);
}

/* The names at the top, counted in two ways. */
static void check_children(const struct titles *titles)
{
	size_t children = 0, starts = 0, len;

	for (size_t n = 0; n < titles->n; n++) {
		const char *path = titles->files[n].path;
		bool first = true;

		children += titles_child(titles, "", n, &len);
		for (size_t i = 0; i < n && first; i++)
			first = strcspn(titles->files[i].path, "/") != strcspn(path, "/") ||
				strncmp(titles->files[i].path, path, strcspn(path, "/")) != 0;
		starts += first;
	}
	check(children == starts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	CLEANUP(oci_manifest_release) struct oci_manifest manifest = {0};
	struct titles *titles;
	const char *why;

	if (oci_manifest_parse((const char *)data, len, OCI_TYPE_MANIFEST, &manifest, &why) ||
	    manifest.nlayers > 256)
		return 0;
	check(titles_new(&manifest, &titles) == 0);
	check(titles->n <= manifest.nlayers && !titles->n == !manifest.nlayers);
	for (size_t i = 0; i < titles->n; i++) {
		check_path(titles->files[i].path);
		for (size_t j = 0; j < titles->n; j++)
			check(i == j || !is_above(titles->files[i].path, titles->files[j].path));
	}
	check_children(titles);
	titles_free(titles);
	return 0;
}
