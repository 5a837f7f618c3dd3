// SPDX-License-Identifier: Apache-2.0
/*
 * treedir_target: a symlink's target so that it stays in its tree (-o transform_symlinks).
 * Pure. Must not know trees.
 */
#include <errno.h>

#include "regfs/buf.h"
#include "regfs/treedir.h"

#define TARGET_MAX 65536

static bool is_up(const char *component, size_t len)
{
	return len == 2 && component[0] == '.' && component[1] == '.';
}

/* One component of the target after what TEXT has; *DEPTH is how far below the root that leads. A
 * step up from the root leads nowhere, as in a container. */
static int add_component(struct buf *text, const char *component, size_t len, unsigned *depth)
{
	int err = 0;

	if (is_up(component, len) && *depth == 0)
		return 0;
	if (is_up(component, len))
		--*depth;
	else if (len != 1 || *component != '.')
		++*depth;
	if (text->len > 0)
		err = buf_add(text, "/", 1);
	return err ? err : buf_add(text, component, len);
}

int treedir_target(const char *target, unsigned depth, char **ret)
{
	AUTO_BUF struct buf text = BUF_INIT(TARGET_MAX);
	unsigned at = depth;
	int err = 0;

	for (; *target == '/' && at > 0 && !err; at--)
		err = buf_puts(&text, text.len > 0 ? "/.." : "..");
	while (*target && !err) {
		size_t len = strcspn(target, "/");

		if (len > 0)
			err = add_component(&text, target, len, &at);
		target += len + (target[len] == '/');
	}
	if (!err && text.len == 0)
		err = buf_puts(&text, ".");
	if (err)
		return err == -EFBIG ? -ENAMETOOLONG : err;
	*ret = buf_steal(&text, NULL);
	return 0;
}
