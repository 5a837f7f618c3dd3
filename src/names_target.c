/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names_target: what the text of a link under _tags names: an image, as a path of this mount.
 * Pure. Must not know whether there is such an image.
 *
 * The text is followed as letters: the paths of the tree are references, and ".." of an image is
 * where its repository lies.
 */
#include <errno.h>
#include <limits.h>

#include "names_priv.h"

struct path {
	char text[PATH_MAX]; /* "" is the root, else "/a/b" */
	size_t len;
};

static int path_push(struct path *path, const char *component, size_t len)
{
	if (len == 0 || (len == 1 && component[0] == '.'))
		return 0;
	if (len == 2 && component[0] == '.' && component[1] == '.') {
		if (path->len == 0)
			return -EINVAL;
		path->len = (size_t)(strrchr(path->text, '/') - path->text);
		path->text[path->len] = '\0';
		return 0;
	}
	if (len + 1 >= sizeof(path->text) - path->len)
		return -EINVAL;
	path->text[path->len] = '/';
	memcpy(path->text + path->len + 1, component, len);
	path->len += len + 1;
	path->text[path->len] = '\0';
	return 0;
}

static int path_add(struct path *path, const char *text)
{
	int r = 0;

	while (r == 0 && *text) {
		size_t len = strcspn(text, "/");

		r = path_push(path, text, len);
		text += len + (text[len] == '/');
	}
	return r;
}

/* The part of an absolute TEXT below the mount point, or NULL. */
static const char *below_mount(const char *mountpoint, const char *text)
{
	size_t len = mountpoint ? strlen(mountpoint) : 0;

	while (len && mountpoint[len - 1] == '/')
		len--;
	if (!mountpoint || strncmp(text, mountpoint, len) != 0 || text[len] != '/')
		return NULL;
	return text + len;
}

/* "app:1.5" under _tags can only mean what lies beside the repository. */
static bool is_image_name(const char *text)
{
	return !strchr(text, '/') && strpbrk(text, ":@");
}

static int follow(const struct target_base *base, const char *text, struct path *path)
{
	int r;

	if (*text == '/') {
		const char *rest = below_mount(base->mountpoint, text);

		return rest ? path_add(path, rest) : -EINVAL;
	}
	r = base->has_hosts ? path_add(path, base->host) : 0;
	if (r == 0)
		r = path_add(path, base->repo);
	if (r == 0 && is_image_name(text))
		r = path_push(path, "..", 2);
	else if (r == 0)
		r = path_add(path, "_tags");
	return r == 0 ? path_add(path, text) : r;
}

/* Takes the host off the front of *AT. */
static int take_host(const struct target_base *base, char **at, struct ref *ret)
{
	const char *host = base->host;
	char *plus;

	if (base->has_hosts) {
		host = strsep(at, "/");
		plus = strrchr(host, '+');
		if (plus)
			*plus = ':';
		if (!*at || !ref_host_valid(host))
			return -EINVAL;
	}
	snprintf(ret->host, sizeof(ret->host), "%s", host);
	return 0;
}

/* DIR ends in "/NAME": it is cut off. */
static bool cut_end(char *dir, const char *name)
{
	char *slash = strrchr(dir, '/');

	if (!slash || strcmp(slash + 1, name) != 0)
		return false;
	*slash = '\0';
	return true;
}

static int set_repo(struct ref *ref, const char *dir, const char *component)
{
	bool one = !*dir || !*component;
	/* as docker.io/alpine:3.20 leads to library/alpine */
	bool official = one && !strcmp(ref->host, "docker.io") && !strchr(dir, '/');
	int n = snprintf(ref->repo, sizeof(ref->repo), "%s%s%s%s", official ? "library/" : "", dir,
			 one ? "" : "/", component);

	return n > 0 && (size_t)n < sizeof(ref->repo) && ref_repo_valid(ref->repo) ? 0 : -EINVAL;
}

/* DIR/LAST is a link under _tags or _digests, or an image beside its repository. */
static int take_image(char *dir, const char *last, struct ref *ret)
{
	char component[REF_REPO_MAX];

	if (cut_end(dir, "_tags")) {
		if (!ref_tag_valid(last))
			return -EINVAL;
		memcpy(ret->tag, last, strlen(last) + 1);
		return set_repo(ret, dir, "");
	}
	if (cut_end(dir, "_digests")) {
		if (digest_parse_sep(last, '-', &ret->digest) < 0)
			return -EINVAL;
		return set_repo(ret, dir, "");
	}
	if (ref_split_image_name(last, component, ret->tag, &ret->digest) < 0)
		return -EINVAL;
	return set_repo(ret, dir, component);
}

int target_resolve(const struct target_base *base, const char *text, struct ref *ret)
{
	struct path path = {.len = 0};
	struct ref ref = {.host = ""};
	char *rest, *slash, *last;
	int r = follow(base, text, &path);

	if (r < 0 || path.len == 0)
		return -EINVAL;
	rest = path.text + 1;
	r = take_host(base, &rest, &ref);
	if (r < 0)
		return r;
	slash = strrchr(rest, '/');
	last = slash ? slash + 1 : rest;
	if (slash)
		*slash = '\0';
	r = take_image(slash ? rest : (char[]){""}, last, &ref);
	if (r == 0)
		*ret = ref;
	return r;
}
