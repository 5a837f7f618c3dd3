/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imagedir_artifact: files/ of an artifact as a directory.
 * Must not know where the names come from (imagedir_titles.c).
 */
#include <errno.h>

#include "imagedir_priv.h"

/* A directory is what the first LEN bytes of a file's path say. */
#define LEN_BITS 11
_Static_assert(TITLES_PATH_MAX < 1 << LEN_BITS, "a path's length fits");

static int get_titles(struct imagedir *dir, const struct titles **ret)
{
	struct titles *titles;
	int r;

	pthread_mutex_lock(&dir->lock);
	titles = dir->titles;
	pthread_mutex_unlock(&dir->lock);
	if (titles) {
		*ret = titles;
		return 0;
	}
	r = titles_new(imagedir_main(dir), &titles);
	if (r < 0)
		return r;
	pthread_mutex_lock(&dir->lock);
	if (!dir->titles)
		dir->titles = STEAL(titles);
	*ret = dir->titles;
	pthread_mutex_unlock(&dir->lock);
	titles_free(titles);
	return 0;
}

const struct oci_descriptor *imagedir_artifact_blob(struct imagedir *dir, uint64_t sub)
{
	const struct titles *titles;

	if (get_titles(dir, &titles) < 0 || sub_number(sub) >= titles->n)
		return NULL;
	return &imagedir_main(dir)->layers[titles->files[sub_number(sub)].blob];
}

/* "" for files/ itself, "a/b/" below it. The caller frees; NULL when memory is short. */
static char *prefix_of(const struct titles *titles, uint64_t sub)
{
	if (sub == SUB_FILES)
		return strdup("");
	return format("%.*s/", (int)(sub_number(sub) & ((1u << LEN_BITS) - 1)),
		      titles->files[sub_number(sub) >> LEN_BITS].path);
}

int imagedir_artifact_lookup(struct imagedir *dir, uint64_t sub, const char *name,
			     struct call *call, struct node_entry *ret)
{
	AUTO_FREE char *prefix = NULL, *path = NULL;
	const struct titles *titles;
	size_t len;
	int r = get_titles(dir, &titles);

	if (r < 0)
		return r;
	prefix = prefix_of(titles, sub);
	path = prefix ? format("%s%s", prefix, name) : NULL;
	if (!path)
		return -ENOMEM;
	len = strlen(path);
	for (size_t i = 0; i < titles->n; i++) {
		const char *found = titles->files[i].path;

		if (strncmp(found, path, len) != 0)
			continue;
		if (!found[len])
			return imagedir_entry(dir, SUB(CLASS_FILE, i), call, ret);
		if (found[len] == '/')
			return imagedir_entry(dir, SUB(CLASS_FILE_DIR, i << LEN_BITS | len), call,
					      ret);
	}
	return -ENOENT;
}

int imagedir_artifact_list(struct imagedir *dir, uint64_t sub, uint64_t pos, node_list_fn *fn,
			   void *arg)
{
	AUTO_FREE char *prefix = NULL;
	const struct titles *titles;
	int r = get_titles(dir, &titles);

	if (r < 0)
		return r;
	prefix = prefix_of(titles, sub);
	if (!prefix)
		return -ENOMEM;
	for (; pos < titles->n; pos++) {
		const char *rest = titles->files[pos].path + strlen(prefix);
		AUTO_FREE char *name = NULL;
		size_t len;

		if (!titles_child(titles, prefix, pos, &len))
			continue;
		name = strndup(rest, len);
		if (!name)
			return -ENOMEM;
		if (imagedir_list_name(dir, pos + 1, name, rest[len] ? S_IFDIR : S_IFREG, fn, arg))
			break;
	}
	return 0;
}
