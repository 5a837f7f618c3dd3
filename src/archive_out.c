// SPDX-License-Identifier: Apache-2.0
/*
 * archive_out: an image laid out as one tar that is never built. Knows the OCI image layout and
 * what docker load wants beside it. Must not know where the blobs come from.
 *
 * Headers are made when they are read: for each file only their place is kept.
 */
#include <errno.h>
#include <sys/stat.h>

#include "archive_priv.h"
#include "regfs/tar.h"

#define FILES_MAX	 (256 * KIB)
#define FILE_MODE	 (S_IFREG | 0644)
#define HEADER_MAX	 (64 * KIB)
#define LAYOUT_FILE_TEXT "{\"imageLayoutVersion\":\"1.0.0\"}"

/* --- making the map --- */

struct map_builder {
	struct archive_map *map;
	size_t cap;
};

static int add_file(struct map_builder *builder, const char *path, const void *bytes, uint64_t size)
{
	struct archive_map *map = builder->map;
	struct archive_file *file;

	if (map->nfiles == builder->cap) {
		size_t cap = builder->cap ? 2 * builder->cap : 16;
		struct archive_file *grown;

		if (cap > FILES_MAX)
			return -EINVAL;
		grown = reallocarray(map->files, cap, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		map->files = grown;
		builder->cap = cap;
	}
	file = &map->files[map->nfiles++];
	*file = (struct archive_file){.path = strdup(path), .size = size};
	if (bytes) {
		file->bytes = malloc(size + 1);
		if (file->bytes) {
			memcpy(file->bytes, bytes, size);
			file->bytes[size] = '\0';
		}
	}
	return file->path && (!bytes || file->bytes) ? 0 : -ENOMEM;
}

static int add_blob(struct map_builder *builder, const struct digest *digest, const void *bytes,
		    uint64_t size)
{
	char path[BLOB_PATH_MAX];
	int err = add_file(builder, archive_blob_path(digest, path), bytes, size);

	if (!err)
		builder->map->files[builder->map->nfiles - 1].digest = *digest;
	return err;
}

/* Foreign layers lie elsewhere, and what holds them names where. An artifact may have no config. */
static int add_descriptor(struct map_builder *builder, const struct oci_descriptor *descriptor)
{
	if (descriptor->nurls > 0 || descriptor->digest.algo == DIGEST_NONE)
		return 0;
	return add_blob(builder, &descriptor->digest, descriptor->data, (uint64_t)descriptor->size);
}

static int add_manifest(struct map_builder *builder, const struct archive_manifest *given)
{
	const struct oci_manifest *manifest = given->manifest;
	int err = add_blob(builder, given->digest, given->bytes, given->len);

	if (err || manifest->kind != OCI_KIND_MANIFEST)
		return err;
	err = add_descriptor(builder, &manifest->config);
	for (size_t i = 0; !err && i < manifest->nlayers; i++)
		err = add_descriptor(builder, &manifest->layers[i]);
	return err;
}

/* By path; of the same path those with their bytes at hand first. */
static int compare_files(const void *a, const void *b)
{
	const struct archive_file *left = a, *right = b;
	int order = strcmp(left->path, right->path);

	return order ? order : (left->bytes == NULL) - (right->bytes == NULL);
}

static void file_release(struct archive_file *file)
{
	free(file->path);
	free(file->bytes);
}

/* Sorts the files from FIRST on and drops repetitions. Manifests that disagree about the size of a
 * blob cannot both be served. */
static int unify(struct archive_map *map, size_t first)
{
	size_t kept = first;

	if (map->nfiles == first)
		return 0;
	qsort(map->files + first, map->nfiles - first, sizeof(*map->files), compare_files);
	for (size_t i = first + 1; i < map->nfiles; i++) {
		struct archive_file *last = &map->files[kept], *file = &map->files[i];

		if (strcmp(last->path, file->path) != 0) {
			kept++;
			if (kept != i) {
				map->files[kept] = *file;
				*file = (struct archive_file){0};
			}
			continue;
		}
		if (last->size != file->size)
			return -EINVAL;
		file_release(file);
		*file = (struct archive_file){0};
	}
	map->nfiles = kept + 1;
	return 0;
}

/* --- its documents --- */

static int add_index(struct map_builder *builder, const struct archive_manifest *root,
		     const char *ref_name, const char *repo_tag)
{
	struct oci_annotation name = {.key = ARCHIVE_CONTAINERD_NAME, .value = (char *)repo_tag};
	const struct oci_descriptor descriptor = {
		.media_type = root->manifest->media_type,
		.digest = *root->digest,
		.size = (int64_t)root->len,
		.annotations = &name,
		.nannotations = repo_tag ? 1 : 0,
	};
	AUTO_BUF struct buf text = BUF_INIT(MIB);
	int err = oci_index_update(NULL, 0, &descriptor, ref_name, &text);

	return err ? err : add_file(builder, "index.json", text.data, text.len);
}

static char *blob_path_copy(const struct digest *digest)
{
	char path[BLOB_PATH_MAX];

	return strdup(archive_blob_path(digest, path));
}

/* docker load's table of contents. */
static int add_docker_manifest(struct map_builder *builder, const struct oci_manifest *manifest,
			       const char *repo_tag)
{
	char *repo_tags[] = {(char *)repo_tag};
	struct docker_archive_entry entry = {
		.config = blob_path_copy(&manifest->config.digest),
		.repo_tags = repo_tags,
		.nrepo_tags = repo_tag ? 1 : 0,
		.layers = calloc(manifest->nlayers + 1, sizeof(char *)),
	};
	const struct docker_archive archive = {.entries = &entry, .nentries = 1};
	AUTO_BUF struct buf text = BUF_INIT(OCI_MANIFEST_MAX);
	int err = entry.config && entry.layers ? 0 : -ENOMEM;

	while (!err && entry.nlayers < manifest->nlayers) {
		char *path = blob_path_copy(&manifest->layers[entry.nlayers].digest);

		entry.layers[entry.nlayers] = path;
		entry.nlayers += path ? 1 : 0;
		err = path ? 0 : -ENOMEM;
	}
	if (!err)
		err = docker_archive_write(&archive, &text);
	if (!err)
		err = add_file(builder, "manifest.json", text.data, text.len);
	for (size_t i = 0; i < entry.nlayers; i++)
		free(entry.layers[i]);
	free(entry.layers);
	free(entry.config);
	return err;
}

/* --- its places --- */

static int make_header(const struct archive_file *file, struct buf *ret)
{
	const struct tar_member member = {
		.path = file->path, .mode = FILE_MODE, .size = file->size};

	return tar_header(&member, ret);
}

static int place_files(struct archive_map *map)
{
	AUTO_BUF struct buf header = BUF_INIT(HEADER_MAX);
	uint64_t off = 0;

	for (size_t i = 0; i < map->nfiles; i++) {
		struct archive_file *file = &map->files[i];
		int err;

		buf_clear(&header);
		err = make_header(file, &header);
		if (err)
			return err;
		file->header_off = off;
		file->data_off = off + header.len;
		if (file->size > (uint64_t)INT64_MAX - MIB - file->data_off)
			return -EINVAL;
		off = file->data_off + file->size + tar_padding(file->size);
	}
	map->size = off + TAR_TRAILER;
	return 0;
}

static int build(struct map_builder *builder, const struct archive_manifest *manifests,
		 size_t nmanifests)
{
	size_t first = builder->map->nfiles;
	int err = 0;

	for (size_t i = 0; !err && i < nmanifests; i++)
		err = add_manifest(builder, &manifests[i]);
	if (!err)
		err = unify(builder->map, first);
	return err ? err : place_files(builder->map);
}

/* What manifest.json names must be among the blobs. */
static bool holds_config(const struct archive_map *map, const struct oci_manifest *manifest)
{
	char path[BLOB_PATH_MAX];

	return archive_map_find(map, archive_blob_path(&manifest->config.digest, path)) >= 0;
}

static void map_cleanup(struct archive_map **map)
{
	archive_map_free(*map);
}

int archive_map_new(const struct archive_manifest *manifests, size_t nmanifests,
		    const struct oci_manifest *docker, const char *ref_name, const char *repo_tag,
		    struct archive_map **ret)
{
	CLEANUP(map_cleanup) struct archive_map *map = calloc(1, sizeof(*map));
	struct map_builder builder = {.map = map};
	int err;

	if (!map)
		return -ENOMEM;
	if (nmanifests == 0)
		return -EINVAL;
	err = add_file(&builder, "oci-layout", LAYOUT_FILE_TEXT, strlen(LAYOUT_FILE_TEXT));
	if (!err)
		err = add_index(&builder, &manifests[0], ref_name, repo_tag);
	if (!err && docker)
		err = add_docker_manifest(&builder, docker, repo_tag);
	if (!err)
		err = build(&builder, manifests, nmanifests);
	if (!err && docker && !holds_config(map, docker))
		err = -EINVAL;
	if (!err)
		*ret = STEAL(map);
	return err;
}

void archive_map_free(struct archive_map *map)
{
	if (!map)
		return;
	for (size_t i = 0; i < map->nfiles; i++)
		file_release(&map->files[i]);
	free(map->files);
	free(map);
}

/* --- reading --- */

struct blob_reader {
	archive_blob_fn *fn;
	void *arg;
};

ssize_t archive_map_find(const struct archive_map *map, const char *path)
{
	size_t low = 0, high = map->nfiles;

	/* The first two or three are in the archive's order, the blobs behind them sorted. */
	while (low < high && !map->files[low].digest.algo) {
		if (strcmp(map->files[low].path, path) == 0)
			return (ssize_t)low;
		low++;
	}
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = strcmp(map->files[middle].path, path);

		if (order == 0)
			return (ssize_t)middle;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return -1;
}

/* The last file whose header begins at or before OFF. */
static const struct archive_file *file_at(const struct archive_map *map, uint64_t off)
{
	size_t low = 0, high = map->nfiles;

	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (map->files[middle].header_off <= off)
			low = middle;
		else
			high = middle;
	}
	return &map->files[low];
}

static ssize_t read_header(const struct archive_file *file, uint64_t off, void *buf, size_t len)
{
	AUTO_BUF struct buf header = BUF_INIT(HEADER_MAX);
	int err = make_header(file, &header);

	if (err)
		return err;
	len = MIN(len, header.len - off);
	memcpy(buf, header.data + off, len);
	return (ssize_t)len;
}

static ssize_t read_data(const struct archive_file *file, uint64_t off, void *buf, size_t len,
			 const struct blob_reader *reader)
{
	ssize_t got;

	len = MIN(len, file->size - off);
	if (file->bytes) {
		memcpy(buf, file->bytes + off, len);
		return (ssize_t)len;
	}
	got = reader->fn(reader->arg, file, off, buf, len);
	/* A blob that ends early is not the blob of that size. */
	return got == 0 ? -EIO : got;
}

/* Some bytes at OFF, one at least: from one header, one file, or the zeros between them. */
static ssize_t read_piece(const struct archive_map *map, uint64_t off, void *buf, size_t len,
			  const struct blob_reader *reader)
{
	const struct archive_file *file = file_at(map, off);
	uint64_t data_end = file->data_off + file->size, end;

	if (off < file->data_off)
		return read_header(file, off - file->header_off, buf, len);
	if (off < data_end)
		return read_data(file, off - file->data_off, buf, len, reader);
	end = file == &map->files[map->nfiles - 1] ? map->size : file[1].header_off;
	len = MIN(len, end - off);
	memset(buf, 0, len);
	return (ssize_t)len;
}

ssize_t archive_read(const struct archive_map *map, uint64_t off, void *buf, size_t len,
		     archive_blob_fn *fn, void *arg)
{
	const struct blob_reader reader = {.fn = fn, .arg = arg};
	size_t done = 0;

	if (off >= map->size)
		return 0;
	len = MIN(len, map->size - off);
	while (done < len) {
		ssize_t got = read_piece(map, off + done, (char *)buf + done, len - done, &reader);

		if (got < 0)
			return got;
		done += (size_t)got;
	}
	return (ssize_t)done;
}
