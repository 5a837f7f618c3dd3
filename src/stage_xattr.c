/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stage_xattr: extended attributes, kept as they are given.
 * Must not know what they mean.
 */
#include <errno.h>
#include <sys/xattr.h>

#include "stage_priv.h"

/* --- lock held --- */

static size_t find(const struct stage_inode *inode, const char *name, bool *ret_found)
{
	size_t i = 0;

	while (i < inode->nxattrs && strcmp(inode->xattrs[i].name, name) < 0)
		i++;
	*ret_found = i < inode->nxattrs && !strcmp(inode->xattrs[i].name, name);
	return i;
}

static size_t bytes_of(const struct stage_inode *inode)
{
	size_t bytes = 0;

	for (size_t i = 0; i < inode->nxattrs; i++)
		bytes += strlen(inode->xattrs[i].name) + 1 + inode->xattrs[i].len;
	return bytes;
}

/* FRESH's name and value are the inode's afterwards. */
static int put(struct stage_inode *inode, struct stage_xattr *fresh, int flags)
{
	bool found;
	size_t at = find(inode, fresh->name, &found);
	struct stage_xattr *grown;

	if (found && (flags & XATTR_CREATE))
		return -EEXIST;
	if (!found && (flags & XATTR_REPLACE))
		return -ENODATA;
	if (bytes_of(inode) + strlen(fresh->name) + 1 + fresh->len > STAGE_XATTRS_MAX)
		return -ENOSPC;
	if (found) {
		struct stage_xattr old = inode->xattrs[at];

		inode->xattrs[at] = *fresh;
		*fresh = old;
		return 0;
	}
	grown = reallocarray(inode->xattrs, inode->nxattrs + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	inode->xattrs = grown;
	memmove(grown + at + 1, grown + at, (inode->nxattrs - at) * sizeof(*grown));
	grown[at] = *fresh;
	inode->nxattrs++;
	*fresh = (struct stage_xattr){0};
	return 0;
}

/* --- */

static bool is_kept(const char *name)
{
	return starts_with(name, "user.") || starts_with(name, "trusted.") ||
	       starts_with(name, "security.");
}

int stage_setxattr(struct stage_inode *inode, const char *name, const void *value, size_t len,
		   int flags)
{
	struct stage_xattr fresh = {.len = len};
	int r;

	if (!is_kept(name))
		return -EOPNOTSUPP;
	fresh.name = strdup(name);
	fresh.value = malloc(len + 1);
	r = fresh.name && fresh.value ? stage_begin(inode->stage) : -ENOMEM;
	if (r == 0) {
		memcpy(fresh.value, value, len);
		r = put(inode, &fresh, flags);
		stage_touch(inode, false);
		stage_end(inode->stage, false);
	}
	free(fresh.name);
	free(fresh.value);
	return r;
}

int stage_removexattr(struct stage_inode *inode, const char *name)
{
	struct stage_xattr old = {0};
	bool found;
	size_t at;
	int r = stage_begin(inode->stage);

	if (r < 0)
		return r;
	at = find(inode, name, &found);
	if (found) {
		old = inode->xattrs[at];
		inode->nxattrs--;
		memmove(inode->xattrs + at, inode->xattrs + at + 1,
			(inode->nxattrs - at) * sizeof(old));
		stage_touch(inode, false);
	}
	stage_end(inode->stage, false);
	free(old.name);
	free(old.value);
	return found ? 0 : -ENODATA;
}

ssize_t stage_getxattr(struct stage_inode *inode, const char *name, void *buf, size_t cap)
{
	ssize_t len = -ENODATA;
	bool found;
	size_t at;

	pthread_mutex_lock(&inode->stage->lock);
	at = find(inode, name, &found);
	if (found) {
		len = (ssize_t)inode->xattrs[at].len;
		if (cap && (size_t)len > cap)
			len = -ERANGE;
		else if (cap)
			memcpy(buf, inode->xattrs[at].value, (size_t)len);
	}
	pthread_mutex_unlock(&inode->stage->lock);
	return len;
}

ssize_t stage_listxattr(struct stage_inode *inode, char *buf, size_t cap)
{
	size_t len = 0;

	pthread_mutex_lock(&inode->stage->lock);
	for (size_t i = 0; i < inode->nxattrs; i++) {
		size_t size = strlen(inode->xattrs[i].name) + 1;

		if (cap && len + size <= cap)
			memcpy(buf + len, inode->xattrs[i].name, size);
		len += size;
	}
	pthread_mutex_unlock(&inode->stage->lock);
	return cap && len > cap ? -ERANGE : (ssize_t)len;
}
