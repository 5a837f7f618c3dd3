/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deleting in one layout: names, and then the blobs that nothing leads to.
 * Knows what leads to what. Must not delete where it is not sure: a document that cannot be read
 * ends the collection before anything is gone.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

#include "layout_priv.h"
#include "regfs/log.h"

#define NEST_MAX      16	/* indexes in indexes */
#define DOCUMENTS_MAX (1 << 16) /* manifests of one repository */

/* --- the set of digests that are led to --- */

/* Open addressing; a slot with DIGEST_NONE is free. */
struct digest_set {
	struct digest *slots;
	size_t nslots; /* 0 or a power of two, at least twice COUNT */
	size_t count;
};

static void digest_set_cleanup(struct digest_set *set)
{
	free(set->slots);
}

static struct digest *digest_set_slot(const struct digest_set *set, const struct digest *digest)
{
	size_t at = (size_t)hash64(digest->algo, digest->bytes, sizeof(digest->bytes));

	for (;; at++) {
		struct digest *slot = &set->slots[at & (set->nslots - 1)];
		if (slot->algo == DIGEST_NONE || digest_equal(slot, digest))
			return slot;
	}
}

static bool digest_set_has(const struct digest_set *set, const struct digest *digest)
{
	return set->count && digest_set_slot(set, digest)->algo != DIGEST_NONE;
}

static int digest_set_grow(struct digest_set *set)
{
	struct digest_set bigger = {.nslots = set->nslots ? set->nslots * 2 : 64};

	bigger.slots = calloc(bigger.nslots, sizeof(*bigger.slots));
	if (!bigger.slots)
		return -ENOMEM;
	for (size_t i = 0; i < set->nslots; i++) {
		if (set->slots[i].algo != DIGEST_NONE)
			*digest_set_slot(&bigger, &set->slots[i]) = set->slots[i];
	}
	bigger.count = set->count;
	free(set->slots);
	*set = bigger;
	return 0;
}

/* 1 if it is new, 0 if it was there, or -ENOMEM. */
static int digest_set_add(struct digest_set *set, const struct digest *digest)
{
	if (set->count * 2 >= set->nslots) {
		int err = digest_set_grow(set);
		if (err)
			return err;
	}
	struct digest *slot = digest_set_slot(set, digest);
	if (slot->algo != DIGEST_NONE)
		return 0;
	*slot = *digest;
	set->count++;
	return 1;
}

/* --- marking --- */

struct marks {
	const struct layout_repo *repo;
	struct wait *wait;
	struct digest_set seen;
	size_t documents;
};

static int mark_document(struct marks *marks, const struct oci_descriptor *descriptor,
			 unsigned depth);

static int mark_blobs(struct marks *marks, const struct oci_descriptor *descriptors, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int err = digest_set_add(&marks->seen, &descriptors[i].digest);
		if (err < 0)
			return err;
	}
	return 0;
}

static int mark_children(struct marks *marks, const struct oci_manifest *index, unsigned depth)
{
	for (size_t i = 0; i < index->nchildren; i++) {
		int err = mark_document(marks, &index->children[i], depth + 1);
		if (err)
			return err;
	}
	return 0;
}

static int mark_parts(struct marks *marks, const struct oci_manifest *manifest, unsigned depth)
{
	if (manifest->kind == OCI_KIND_INDEX)
		return mark_children(marks, manifest, depth);
	int err = mark_blobs(marks, &manifest->config, 1);
	return err ? err : mark_blobs(marks, manifest->layers, manifest->nlayers);
}

static int read_manifest(struct marks *marks, const struct oci_descriptor *descriptor,
			 struct oci_manifest *ret)
{
	AUTO_BUF struct buf bytes = BUF_INIT(0);
	char digest[DIGEST_STR_MAX];
	const char *why = "";

	int err = layout_document_read(marks->repo, &descriptor->digest, &bytes);
	if (err)
		return err;
	err = oci_manifest_parse(bytes.data, bytes.len, descriptor->media_type, ret, &why);
	if (err && err != -ENOMEM)
		log_warn("%s/%s: nothing is collected: the manifest %s cannot be used: %s",
			 marks->repo->layout->store.name, marks->repo->name,
			 digest_format(&descriptor->digest, digest), why);
	return err;
}

/* An index names documents; one that is not there (another platform's) leads to nothing. */
static int mark_document(struct marks *marks, const struct oci_descriptor *descriptor,
			 unsigned depth)
{
	CLEANUP(oci_manifest_release) struct oci_manifest manifest = {0};

	if (wait_cancelled(marks->wait))
		return -EINTR;
	int added = digest_set_add(&marks->seen, &descriptor->digest);
	if (added <= 0)
		return added;
	if (depth > NEST_MAX || ++marks->documents > DOCUMENTS_MAX)
		return -EIO;
	int err = read_manifest(marks, descriptor, &manifest);
	if (err)
		return err == -ENOENT ? 0 : err;
	return mark_parts(marks, &manifest, depth);
}

/* --- sweeping --- */

static void dir_cleanup(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}
#define AUTO_DIR CLEANUP(dir_cleanup)

static DIR *open_dir(const struct layout_repo *repo, const char *path)
{
	int fd = layout_open_in(repo->fd, path, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return NULL;
	DIR *dir = fdopendir(fd);
	if (!dir)
		close(fd);
	return dir;
}

static bool is_old_file(DIR *dir, const char *name)
{
	struct stat st;

	return fstatat(dirfd(dir), name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
	       wall_ms() / 1000 - st.st_mtim.tv_sec > LAYOUT_COLLECT_AGE_S;
}

/* GONE (or NULL) was deleted by name: it goes whatever its age. */
static void sweep_blobs(struct marks *marks, enum digest_algo algo, const struct digest *gone)
{
	char path[sizeof("blobs/") + DIGEST_STR_MAX], name[sizeof("sha512:") + NAME_MAX];
	AUTO_DIR DIR *dir = NULL;
	struct dirent *entry;
	struct digest digest;
	size_t swept = 0;

	snprintf(path, sizeof(path), "blobs/%s", digest_algo_name(algo));
	dir = open_dir(marks->repo, path);
	while (dir && (entry = readdir(dir))) {
		snprintf(name, sizeof(name), "%s:%s", digest_algo_name(algo), entry->d_name);
		if (digest_parse(name, &digest) || digest_set_has(&marks->seen, &digest))
			continue;
		if (!(gone && digest_equal(gone, &digest)) && !is_old_file(dir, entry->d_name))
			continue;
		if (unlinkat(dirfd(dir), entry->d_name, 0) == 0)
			swept++;
	}
	if (swept)
		log_info("%s/%s: %zu blobs that nothing named are deleted",
			 marks->repo->layout->store.name, marks->repo->name, swept);
}

/* What a writer left behind that was killed. */
static void sweep_temporaries(const struct layout_repo *repo)
{
	AUTO_DIR DIR *dir = open_dir(repo, ".");
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		if (starts_with(entry->d_name, LAYOUT_TMP_PREFIX) &&
		    ends_with(entry->d_name, LAYOUT_TMP_SUFFIX) && is_old_file(dir, entry->d_name))
			unlinkat(dirfd(dir), entry->d_name, 0);
	}
}

/*
 * Deletes what INDEX does not lead to. The lock is held. What fails here is no failure of the
 * deletion that was asked for: the next one collects it. False: INDEX still leads to GONE.
 */
static bool collect(const struct layout_repo *repo, const struct layout_index *index,
		    const struct digest *gone, struct wait *wait)
{
	struct marks marks = {.repo = repo, .wait = wait};
	bool really_gone = true;

	if (mark_children(&marks, &index->parsed, 0) == 0) {
		sweep_blobs(&marks, DIGEST_SHA256, gone);
		sweep_blobs(&marks, DIGEST_SHA512, gone);
		sweep_temporaries(repo);
		really_gone = !gone || !digest_set_has(&marks.seen, gone);
	}
	digest_set_cleanup(&marks.seen);
	return really_gone;
}

/* --- names --- */

/* A repository under its lock. */
struct editor {
	struct layout_repo repo;
	struct layout_index index;
	int lock;
};

static void editor_cleanup(struct editor *editor)
{
	fd_cleanup(&editor->lock);
	layout_index_release(&editor->index);
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
	if (editor->lock < 0)
		return editor->lock;
	return layout_index_read(&editor->repo, wait, &editor->index);
}

static int editor_write(struct editor *editor, struct buf *updated)
{
	struct oci_manifest parsed = {0};
	const char *why = "";

	int err = oci_manifest_parse(updated->data, updated->len, OCI_TYPE_INDEX, &parsed, &why);
	if (err)
		return err;
	layout_index_release(&editor->index);
	editor->index = (struct layout_index){.bytes = *updated, .parsed = parsed};
	*updated = (struct buf)BUF_INIT(0);
	return layout_replace(&editor->repo, "index.json", editor->index.bytes.data,
			      editor->index.bytes.len);
}

int layout_untag(struct store *store, const char *name, const char *tag, struct wait *wait)
{
	AUTO_EDITOR struct editor editor = EDITOR_INIT;
	AUTO_BUF struct buf updated = BUF_INIT(2 * OCI_MANIFEST_MAX);

	int err = editor_open(store, name, wait, &editor);
	if (!err)
		err = oci_index_update(editor.index.bytes.data, editor.index.bytes.len, NULL, tag,
				       &updated);
	if (!err)
		err = editor_write(&editor, &updated);
	if (!err)
		collect(&editor.repo, &editor.index, NULL, wait);
	return err;
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
	AUTO_BUF struct buf updated = BUF_INIT(2 * OCI_MANIFEST_MAX);
	char digest_str[DIGEST_STR_MAX];

	int err = editor_open(store, name, wait, &editor);
	if (err)
		return err;
	err = oci_index_remove(editor.index.bytes.data, editor.index.bytes.len, digest, &updated);
	if (!err)
		err = editor_write(&editor, &updated);
	else if (err == -ENOENT && has_document(&editor.repo, digest))
		err = 0; /* it was put by its digest alone, or is part of an index */
	if (err || collect(&editor.repo, &editor.index, digest, wait))
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
	AUTO_DIR DIR *dir = open_dir(repo, ".");
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
	if (err == -ENOENT)
		return layout_repo_open(store, name, &editor.repo) ? 0 : remove_dir(&editor.repo);
	if (err)
		return err;
	if (editor.index.parsed.nchildren || !is_pristine(&editor.repo))
		return -ENOTEMPTY;
	err = remove_files(&editor.repo);
	return err ? err : remove_dir(&editor.repo);
}
