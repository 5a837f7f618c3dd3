/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imagedir_oci: image.tar and oci/, two views of one archive map that is made at first use.
 * Making it costs the manifests below an index, never a layer.
 */
#include <errno.h>

#include "imagedir_priv.h"
#include "regfs/log.h"

/* As deep as a platform's image is looked for, and an archive's indexes may be. */
#define NESTING_MAX 4
#define MEMBERS_MAX 4096

enum oci_dir { OCI_DIR_BLOBS, OCI_DIR_SHA256, OCI_DIR_SHA512, OCI_DIRS };

static const char *const oci_dir_paths[OCI_DIRS] = {"blobs/", "blobs/sha256/", "blobs/sha512/"};

/* --- the map --- */

/* The image and, of an index, all below it that the repository has, each once. */
struct members {
	struct image **images;
	struct archive_manifest *manifests;
	size_t n, cap;
};

static void members_cleanup(struct members *members)
{
	for (size_t i = 0; i < members->n; i++)
		image_unref(members->images[i]);
	free(members->images);
	free(members->manifests);
}

static bool members_have(const struct members *members, const struct digest *digest)
{
	for (size_t i = 0; i < members->n; i++)
		if (digest_equal(members->manifests[i].digest, digest))
			return true;
	return false;
}

static int members_grow(struct members *members)
{
	size_t cap = members->cap ? 2 * members->cap : 16;
	struct image **images = reallocarray(members->images, cap, sizeof(*images));

	if (!images)
		return -ENOMEM;
	members->images = images;

	struct archive_manifest *manifests = reallocarray(members->manifests, cap,
							  sizeof(*manifests));

	if (!manifests)
		return -ENOMEM;
	members->manifests = manifests;
	members->cap = cap;
	return 0;
}

/* Takes over IMAGE, also on failure. */
static int members_add(struct members *members, struct image *image)
{
	struct archive_manifest *manifest;
	int r = members->n == members->cap ? members_grow(members) : 0;

	if (r < 0) {
		image_unref(image);
		return r;
	}
	manifest = &members->manifests[members->n];
	members->images[members->n++] = image;
	manifest->manifest = image_manifest(image);
	manifest->digest = image_digest(image);
	image_manifest_bytes(image, &manifest->bytes, &manifest->len);
	return 0;
}

static int refuse(const struct imagedir *dir, const char *why)
{
	char digest[DIGEST_STR_MAX];

	log_error("%s/%s: %s: image.tar and oci/ cannot be made: %s", image_store(dir->image)->name,
		  image_repo(dir->image), digest_format(image_digest(dir->image), digest), why);
	return -EINVAL;
}

/* The children of member N, if that is an index. */
static int members_add_children(struct imagedir *dir, struct members *members, size_t n,
				struct wait *wait)
{
	struct image *index = members->images[n];
	const struct oci_manifest *manifest = image_manifest(index);
	size_t nchildren = manifest->kind == OCI_KIND_INDEX ? manifest->nchildren : 0;

	for (size_t i = 0; i < nchildren; i++) {
		struct image *child;
		int r;

		if (members_have(members, &manifest->children[i].digest))
			continue;
		if (members->n == MEMBERS_MAX)
			return refuse(dir, "its indexes name too many manifests");
		r = image_child(index, i, wait, &child);
		/* copies of an index often leave platforms out */
		if (r == -ENOENT)
			continue;
		if (r == 0)
			r = members_add(members, child);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Generation by generation. No index is below itself, as it would hold its own digest; but deep
 * it may be. */
static int members_collect(struct imagedir *dir, struct wait *wait, struct members *members)
{
	size_t next = 0;
	int r = members_add(members, image_ref(dir->image));

	for (unsigned depth = 0; r == 0 && next < members->n; depth++) {
		size_t end = members->n;

		for (; r == 0 && next < end; next++) {
			if (depth == NESTING_MAX &&
			    members->manifests[next].manifest->kind == OCI_KIND_INDEX)
				return refuse(dir, "its indexes are nested too deep");
			r = members_add_children(dir, members, next, wait);
		}
	}
	return r;
}

int imagedir_map(struct imagedir *dir, struct wait *wait, const struct archive_map **ret)
{
	CLEANUP(members_cleanup) struct members members = {0};
	const struct oci_manifest *shown = imagedir_main(dir);
	struct archive_map *map;
	int r;

	pthread_mutex_lock(&dir->lock);
	map = dir->map;
	pthread_mutex_unlock(&dir->lock);
	if (map) {
		*ret = map;
		return 0;
	}
	r = members_collect(dir, wait, &members);
	if (r < 0)
		return r;
	r = archive_map_new(members.manifests, members.n,
			    shown && oci_is_image(shown) ? shown : NULL, dir->ref_name,
			    dir->repo_tag, &map);
	if (r == -EINVAL)
		return refuse(dir, "its manifests contradict each other");
	if (r < 0)
		return r;
	pthread_mutex_lock(&dir->lock);
	if (!dir->map)
		dir->map = STEAL(map);
	*ret = dir->map;
	pthread_mutex_unlock(&dir->lock);
	archive_map_free(map);
	return 0;
}

/* --- bytes --- */

struct tar_read {
	struct imagedir *dir;
	struct wait *wait;
};

struct blob_id imagedir_oci_blob(const struct imagedir *dir, const struct archive_file *file)
{
	return (struct blob_id){
		.digest = &file->digest,
		.size = file->size,
		.store = image_store(dir->image),
		.repo = image_repo(dir->image),
	};
}

static ssize_t read_blob(void *arg, const struct archive_file *file, uint64_t off, void *buf,
			 size_t len)
{
	const struct tar_read *read = arg;
	const struct blob_id id = imagedir_oci_blob(read->dir, file);

	return blob_read_raw(read->dir->context->blobs, &id, off, buf, len, read->wait);
}

ssize_t imagedir_oci_read(struct imagedir *dir, const struct archive_file *file, uint64_t off,
			  void *buf, size_t len, struct wait *wait)
{
	struct tar_read read = {.dir = dir, .wait = wait};

	if (file->bytes)
		return context_copy(file->bytes, file->size, off, buf, len);
	return read_blob(&read, file, off, buf, len);
}

ssize_t imagedir_tar_read(struct imagedir *dir, uint64_t off, void *buf, size_t len,
			  struct wait *wait)
{
	struct tar_read read = {.dir = dir, .wait = wait};
	const struct archive_map *map;
	int r = imagedir_map(dir, wait, &map);

	return r < 0 ? r : archive_read(map, off, buf, len, read_blob, &read);
}

/* --- oci/ as a directory --- */

static const char *dir_path(uint64_t sub)
{
	return sub == SUB_OCI ? "" : oci_dir_paths[sub_number(sub)];
}

static uint64_t find_dir(const struct archive_map *map, const char *path)
{
	for (unsigned i = 0; i < OCI_DIRS; i++) {
		size_t len = strlen(oci_dir_paths[i]) - 1;

		if (strncmp(path, oci_dir_paths[i], len) != 0 || path[len])
			continue;
		for (size_t f = 0; f < map->nfiles; f++)
			if (starts_with(map->files[f].path, oci_dir_paths[i]))
				return SUB(CLASS_OCI_DIR, i);
	}
	return 0;
}

/* docker's manifest.json is for image.tar: a layout has none. */
static bool is_shown(const struct archive_file *file)
{
	return strcmp(file->path, "manifest.json") != 0;
}

int imagedir_oci_lookup(struct imagedir *dir, uint64_t sub, const char *name, struct call *call,
			struct node_entry *ret)
{
	AUTO_FREE char *path = format("%s%s", dir_path(sub), name);
	const struct archive_map *map;
	uint64_t found;
	ssize_t file;
	int r;

	if (!path)
		return -ENOMEM;
	r = imagedir_map(dir, call->wait, &map);
	if (r < 0)
		return r;
	file = archive_map_find(map, path);
	if (file >= 0 && is_shown(&map->files[file]))
		return imagedir_entry(dir, SUB(CLASS_OCI_FILE, file), call, ret);
	found = find_dir(map, path);
	return found ? imagedir_entry(dir, found, call, ret) : -ENOENT;
}

int imagedir_oci_list(struct imagedir *dir, uint64_t sub, uint64_t pos, node_list_fn *fn, void *arg,
		      struct call *call)
{
	const char *prefix = dir_path(sub);
	size_t prefix_len = strlen(prefix);
	const struct archive_map *map;
	int r = imagedir_map(dir, call->wait, &map);

	if (r < 0)
		return r;
	/* positions: the directories first, then the files by their number */
	for (; pos < OCI_DIRS; pos++) {
		AUTO_FREE char *path = strndup(oci_dir_paths[pos], strlen(oci_dir_paths[pos]) - 1);

		if (!path)
			return -ENOMEM;
		if (!starts_with(path, prefix) || strchr(path + prefix_len, '/') ||
		    !path[prefix_len] || !find_dir(map, path))
			continue;
		if (imagedir_list_name(dir, pos + 1, path + prefix_len, S_IFDIR, fn, arg))
			return 0;
	}
	for (size_t i = pos - OCI_DIRS; i < map->nfiles; i++) {
		const struct archive_file *file = &map->files[i];
		const char *name = file->path + prefix_len;

		if (!starts_with(file->path, prefix) || strchr(name, '/') || !is_shown(file))
			continue;
		if (imagedir_list_name(dir, OCI_DIRS + i + 1, name, S_IFREG, fn, arg))
			return 0;
	}
	return 0;
}
