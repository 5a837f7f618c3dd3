/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deleting in one layout: names, manifests, and repositories that hold nothing.
 * Knows index.json. Must not know what leads to what (layout_collect.c).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "layout_priv.h"
#include "regfs/log.h"

/* --- names --- */

/* A repository under its lock. */
struct editor {
	struct layout_repo repo;
	struct layout_change change;
	int lock;
};

static void editor_cleanup(struct editor *editor)
{
	fd_cleanup(&editor->lock);
	layout_change_release(&editor->change);
	layout_repo_cleanup(&editor->repo);
}
#define EDITOR_INIT                                                                                \
	{                                                                                          \
		.repo = LAYOUT_REPO_INIT, .lock = -1                                               \
	}
#define AUTO_EDITOR CLEANUP(editor_cleanup)

static int editor_open(struct store *store, const char *name, struct wait *wait,
		       struct editor *editor)
{
	if (!wait_may_block(wait))
		return -EWOULDBLOCK;
	int err = layout_repo_open(store, name, &editor->repo);
	if (err)
		return err;
	if (!layout_is_one(editor->repo.fd))
		return -ENOENT;
	editor->lock = layout_lock(&editor->repo, wait);
	return editor->lock < 0 ? editor->lock : 0;
}

static int edit_untag(const void *arg, const struct layout_index *index, struct buf *ret)
{
	return oci_index_update(index->bytes.data, index->bytes.len, NULL, arg, ret);
}

int layout_untag(struct store *store, const char *name, const char *tag, struct wait *wait)
{
	AUTO_EDITOR struct editor editor = EDITOR_INIT;
	const struct layout_edit edit = {.edit = edit_untag, .arg = tag};

	int err = editor_open(store, name, wait, &editor);
	if (!err)
		err = layout_index_change(&editor.repo, &edit, wait, &editor.change);
	if (!err)
		layout_collect(&editor.repo, &editor.change, NULL, wait);
	return err;
}

static int edit_delete(const void *arg, const struct layout_index *index, struct buf *ret)
{
	return oci_index_remove(index->bytes.data, index->bytes.len, arg, ret);
}

static bool has_document(const struct layout_repo *repo, const struct digest *digest)
{
	AUTO_CLOSE int fd = -1;
	uint64_t size;

	return layout_blob_open(repo, digest, &fd, &size) == 0;
}

int layout_delete_manifest(struct store *store, const char *name, const struct digest *digest,
			   struct wait *wait)
{
	AUTO_EDITOR struct editor editor = EDITOR_INIT;
	const struct layout_edit edit = {.edit = edit_delete, .arg = digest};
	char digest_str[DIGEST_STR_MAX];

	int err = editor_open(store, name, wait, &editor);
	if (err)
		return err;
	err = layout_index_change(&editor.repo, &edit, wait, &editor.change);
	if (err == -ENOENT && has_document(&editor.repo, digest)) {
		/* it was put by its digest alone, or is part of an index */
		layout_change_release(&editor.change);
		err = layout_index_read(&editor.repo, wait, &editor.change.after);
	}
	if (err || layout_collect(&editor.repo, &editor.change, digest, wait))
		return err;
	log_error("%s/%s: %s is part of an image index that stays", store->name, name,
		  digest_format(digest, digest_str));
	return -EOPNOTSUPP;
}

/* --- repositories --- */

/* Only what is empty goes: a name that was taken, or a blob that somebody just wrote, stays. */
static int remove_files(const struct layout_repo *repo)
{
	static const struct {
		const char *name;
		int flags;
	} parts[] = {
		{"blobs/sha512", AT_REMOVEDIR},
		{"blobs/sha256", AT_REMOVEDIR},
		{"blobs", AT_REMOVEDIR},
		{"index.json", 0},
		{"oci-layout", 0},
		{LAYOUT_LOCK, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		if (unlinkat(repo->fd, parts[i].name, parts[i].flags) == 0 || errno == ENOENT)
			continue;
		return errno == ENOTEMPTY || errno == EEXIST
			       ? -ENOTEMPTY
			       : layout_fail(repo, errno, parts[i].name);
	}
	return 0;
}

/* Its own name is taken off in the directory that was opened, as all names below the root. */
static int remove_dir(const struct layout_repo *repo)
{
	AUTO_CLOSE int root = open(repo->layout->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	AUTO_CLOSE int parent = -1;
	AUTO_FREE char *path = strdup(repo->name);
	char *slash = path ? strrchr(path, '/') : NULL;

	if (!path)
		return -ENOMEM;
	if (slash)
		*slash = '\0';
	parent = root < 0 ? -errno
			  : layout_open_below(root, slash ? path : ".", O_RDONLY | O_DIRECTORY);
	if (parent < 0)
		return layout_fail(repo, -parent, "rmdir");
	if (unlinkat(parent, slash ? slash + 1 : path, AT_REMOVEDIR) == 0)
		return 0;
	return errno == ENOTEMPTY || errno == EEXIST ? -ENOTEMPTY
						     : layout_fail(repo, errno, "rmdir");
}

/* Whether there is nothing but what a new layout has: another repository in it, a file of
 * somebody's, or one being written keep it. */
static bool is_pristine(const struct layout_repo *repo)
{
	static const char *const ours[] = {".",		 "..",	       "blobs",
					   "index.json", "oci-layout", LAYOUT_LOCK};
	AUTO_LAYOUT_DIR DIR *dir = layout_dir(repo, ".");
	struct dirent *entry;
	bool found = dir != NULL;

	while (found && (entry = readdir(dir))) {
		found = false;
		for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
			found |= !strcmp(entry->d_name, ours[i]);
	}
	return found;
}

int layout_remove_repo(struct store *store, const char *name, struct wait *wait)
{
	AUTO_EDITOR struct editor editor = EDITOR_INIT;

	int err = editor_open(store, name, wait, &editor);
	/* a directory that only leads to repositories */
	if (err == -ENOENT)
		return editor.repo.fd < 0 ? 0 : remove_dir(&editor.repo);
	if (!err)
		err = layout_index_read(&editor.repo, wait, &editor.change.after);
	if (err)
		return err;
	if (editor.change.after.parsed.nchildren || !is_pristine(&editor.repo))
		return -ENOTEMPTY;
	err = remove_files(&editor.repo);
	return err ? err : remove_dir(&editor.repo);
}
