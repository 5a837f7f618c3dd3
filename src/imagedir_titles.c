/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imagedir_titles: the names of an artifact's files: a path for each blob, out of its title
 * annotation (image-spec, annotations.md, "org.opencontainers.image.title").
 * Pure: a manifest in, a table out. Must not know where blobs are.
 *
 * A title is whatever its author wrote. One whose components are all plain names is a path; any
 * other, and one that is taken, is given up for the blob's digest, which no title clashes with for
 * long: a blob that is there twice under one name is one file.
 */
#include <errno.h>
#include <limits.h>

#include "imagedir_priv.h"

#define TITLE	   "org.opencontainers.image.title"
#define DEPTH_MAX  32
#define DIGEST_SEP '-'

static bool is_plain(const char *component, size_t len)
{
	if (len == 0 || len > NAME_MAX)
		return false;
	if (component[0] == '.' && (len == 1 || (len == 2 && component[1] == '.')))
		return false;
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)component[i] < ' ' || component[i] == 0x7f)
			return false;
	return true;
}

static bool is_safe(const char *title)
{
	unsigned depth = 0;

	if (strlen(title) > TITLES_PATH_MAX)
		return false;
	for (;; title++) {
		size_t len = strcspn(title, "/");

		if (!is_plain(title, len) || ++depth > DEPTH_MAX)
			return false;
		title += len;
		if (!*title)
			return true;
	}
}

/* Whether PATH is one of the directories above OTHER, or OTHER itself. */
static bool covers(const char *path, const char *other)
{
	size_t len = strlen(path);

	return strncmp(path, other, len) == 0 && (other[len] == '/' || !other[len]);
}

/* What stands in the way of PATH, or NULL. */
static const struct titled *find_conflict(const struct titles *titles, const char *path)
{
	for (size_t i = 0; i < titles->n; i++)
		if (covers(path, titles->files[i].path) || covers(titles->files[i].path, path))
			return &titles->files[i];
	return NULL;
}

static char *digest_name(const struct digest *digest)
{
	char text[DIGEST_STR_MAX];

	digest_format(digest, text);
	*strchr(text, ':') = DIGEST_SEP;
	return strdup(text);
}

/* Blob N under PATH (which it takes), if nothing is in the way: 1. 0: it is there already, with
 * the same bytes; -EEXIST. */
static int add(struct titles *titles, const struct oci_manifest *manifest, size_t n, char **path)
{
	const struct titled *other = find_conflict(titles, *path);

	if (other)
		return !strcmp(other->path, *path) &&
				       digest_equal(&manifest->layers[other->blob].digest,
						    &manifest->layers[n].digest)
			       ? 0
			       : -EEXIST;
	titles->files[titles->n++] = (struct titled){.path = STEAL(*path), .blob = n};
	return 1;
}

static int add_blob(struct titles *titles, const struct oci_manifest *manifest, size_t n)
{
	const struct oci_descriptor *blob = &manifest->layers[n];
	const char *title = oci_annotation(blob->annotations, blob->nannotations, TITLE);
	AUTO_FREE char *path = title && is_safe(title) ? strdup(title) : digest_name(&blob->digest);
	int r;

	if (!path)
		return -ENOMEM;
	r = add(titles, manifest, n, &path);
	if (r != -EEXIST)
		return 0;
	free(path);
	path = digest_name(&blob->digest);
	if (!path)
		return -ENOMEM;
	/* a title that looks like this digest, and is another blob's, keeps it */
	(void)add(titles, manifest, n, &path);
	return 0;
}

static int compare(const void *a, const void *b)
{
	const struct titled *x = a, *y = b;

	return strcmp(x->path, y->path);
}

int titles_new(const struct oci_manifest *manifest, struct titles **ret)
{
	struct titles *titles = calloc(1, sizeof(*titles) +
						  manifest->nlayers * sizeof(titles->files[0]));
	int r = titles ? 0 : -ENOMEM;

	for (size_t n = 0; r == 0 && n < manifest->nlayers; n++)
		r = add_blob(titles, manifest, n);
	if (r < 0) {
		titles_free(titles);
		return r;
	}
	qsort(titles->files, titles->n, sizeof(titles->files[0]), compare);
	*ret = titles;
	return 0;
}

void titles_free(struct titles *titles)
{
	if (!titles)
		return;
	for (size_t i = 0; i < titles->n; i++)
		free(titles->files[i].path);
	free(titles);
}

bool titles_child(const struct titles *titles, const char *dir, size_t n, size_t *ret_len)
{
	const char *path = titles->files[n].path;
	size_t skip = strlen(dir), len;

	if (strncmp(path, dir, skip) != 0)
		return false;
	len = strcspn(path + skip, "/");
	/* in order, so that the names of one directory stand together */
	if (n > 0 && strncmp(titles->files[n - 1].path, path, skip + len) == 0 &&
	    titles->files[n - 1].path[skip + len] == '/')
		return false;
	*ret_len = len;
	return true;
}
