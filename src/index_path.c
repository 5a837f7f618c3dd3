// SPDX-License-Identifier: Apache-2.0
/*
 * index, building: the text of paths.
 * Knows components, "." and "..", and how a symlink's target goes before the rest of a path. Must
 * not know the tree.
 */
#include <errno.h>

#include "index_priv.h"

#define MAX_HOPS 40 /* symlinks in one path, as in the kernel */

bool index_path_next(const char **path, const char *end, const char **ret, size_t *ret_len)
{
	const char *at = *path;

	while (at < end) {
		const char *slash = memchr(at, '/', (size_t)(end - at));
		size_t len = (size_t)((slash ? slash : end) - at);

		if (len > 0 && !(len == 1 && at[0] == '.')) {
			*ret = at;
			*ret_len = len;
			*path = at + len;
			return true;
		}
		at += len + 1;
	}
	*path = end;
	return false;
}

bool index_path_is_up(const char *name, size_t len)
{
	return len == 2 && name[0] == '.' && name[1] == '.';
}

int index_path_clean(const char *path, char *out, size_t *ret_len)
{
	size_t path_len = strnlen(path, INDEX_MAX_PATH + 1);
	const char *end = path + path_len;
	const char *name;
	size_t len, out_len = 0;

	if (path_len > INDEX_MAX_PATH)
		return -EINVAL;
	while (index_path_next(&path, end, &name, &len)) {
		if (len > INDEX_MAX_NAME)
			return -EINVAL;
		if (index_path_is_up(name, len)) {
			const char *slash = memrchr(out, '/', out_len);
			out_len = slash ? (size_t)(slash - out) : 0;
			continue;
		}
		if (out_len)
			out[out_len++] = '/';
		memcpy(out + out_len, name, len);
		out_len += len;
	}
	*ret_len = out_len;
	return 0;
}

void index_path_split(const char *path, size_t len, size_t *ret_dir_len, const char **ret_name)
{
	const char *slash = memrchr(path, '/', len);

	*ret_dir_len = slash ? (size_t)(slash - path) : 0;
	*ret_name = slash ? slash + 1 : path;
}

const char *index_trail_end(const struct index_trail *trail)
{
	return trail->text + TRAIL_CAP;
}

void index_trail_init(struct index_trail *trail, const char *path, size_t len)
{
	trail->hops = 0;
	trail->followed = 0;
	trail->at = index_trail_end(trail) - len;
	memcpy(trail->text + TRAIL_CAP - len, path, len);
	trail->text[TRAIL_CAP] = '\0';
}

bool index_trail_next(struct index_trail *trail, const char **ret, size_t *ret_len)
{
	return index_path_next(&trail->at, index_trail_end(trail), ret, ret_len);
}

bool index_trail_follow(struct index_trail *trail, const char *target, size_t len)
{
	size_t at = (size_t)(trail->at - trail->text);

	if (trail->hops >= MAX_HOPS || trail->followed + len + 1 > INDEX_MAX_PATH)
		return false;
	trail->hops++;
	trail->followed += len + 1;
	at -= len + 1;
	memcpy(trail->text + at, target, len);
	trail->text[at + len] = '/';
	trail->at = trail->text + at;
	return true;
}
