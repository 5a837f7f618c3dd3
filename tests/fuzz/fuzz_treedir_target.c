// SPDX-License-Identifier: Apache-2.0
/* a symlink's target, made to stay in its tree: relative, and never above the root by itself. The
 * first byte is the depth. */
#include <stddef.h>
#include <stdint.h>

#include "regfs/treedir.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(bool holds)
{
	if (!holds)
		__builtin_trap();
}

static void check_walk(const char *target, unsigned depth)
{
	check(*target && *target != '/');
	while (*target) {
		size_t len = strcspn(target, "/");

		if (len == 2 && !memcmp(target, "..", 2)) {
			check(depth > 0);
			depth--;
		} else if (len > 0 && !(len == 1 && *target == '.')) {
			depth++;
		}
		target += len + (target[len] == '/');
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	AUTO_FREE char *target = NULL, *got = NULL, *again = NULL;
	unsigned depth;

	if (len == 0)
		return 0;
	depth = data[0];
	target = strndup((const char *)data + 1, len - 1);
	if (!target || treedir_target(target, depth, &got))
		return 0;
	check_walk(got, depth);
	/* done once, it is done */
	check(treedir_target(got, depth, &again) == 0 && !strcmp(got, again));
	return 0;
}
