// SPDX-License-Identifier: Apache-2.0
/*
 * archive_in: what somebody copied into _push, as images. Knows which kinds of archives there are,
 * and docker save's and podman save's own kind; OCI layouts are archive_oci's. Must not know
 * stores.
 */
#include <errno.h>

#include "archive_priv.h"

/* --- what is found --- */

void archive_document_release(struct archive_document *document)
{
	free(document->media_type);
	free(document->bytes);
	oci_manifest_release(&document->manifest);
}

void archive_drop_names(struct archive_image *image)
{
	for (size_t i = 0; i < image->nnames; i++)
		free(image->names[i]);
	free(image->names);
	image->names = NULL;
	image->nnames = 0;
}

static void image_release(struct archive_image *image)
{
	archive_drop_names(image);
	for (size_t i = 0; i < image->nmanifests; i++)
		archive_document_release(&image->manifests[i]);
	free(image->manifests);
	free(image->blobs);
}

void archive_parsed_free(struct archive *archive)
{
	if (!archive)
		return;
	for (size_t i = 0; i < archive->nimages; i++)
		image_release(&archive->images[i]);
	free(archive->images);
	free(archive);
}

/* Whether an array of N elements is full, when it grows by doubling from one. */
static bool is_full(size_t n)
{
	return (n & (n - 1)) == 0;
}

int archive_add_image(struct reading *reading, struct archive_image **ret)
{
	struct archive *archive = reading->archive;
	size_t n = archive->nimages;

	if (n == ARCHIVE_IMAGES_MAX)
		return archive_invalid(reading, "it has more than %d images", ARCHIVE_IMAGES_MAX);
	if (is_full(n)) {
		struct archive_image *grown = reallocarray(archive->images, n ? 2 * n : 1,
							   sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		archive->images = grown;
	}
	archive->images[n] = (struct archive_image){0};
	archive->nimages++;
	*ret = &archive->images[n];
	return 0;
}

void archive_drop_image(struct reading *reading)
{
	image_release(&reading->archive->images[--reading->archive->nimages]);
}

int archive_add_part(struct reading *reading, struct archive_image *image,
		     const struct digest *digest, const struct member *member)
{
	size_t n = image->nblobs;

	if (n == ARCHIVE_BLOBS_MAX)
		return archive_invalid(reading, "an image has more than %d blobs",
				       ARCHIVE_BLOBS_MAX);
	if (is_full(n)) {
		struct archive_part *grown = reallocarray(image->blobs, n ? 2 * n : 1,
							  sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		image->blobs = grown;
	}
	image->blobs[image->nblobs++] = (struct archive_part){
		.digest = digest ? *digest : (struct digest){.algo = DIGEST_NONE},
		.at = member->at,
	};
	return 0;
}

int archive_add_name(struct reading *reading, struct archive_image *image, const char *name)
{
	size_t n = image->nnames;

	if (n == ARCHIVE_NAMES_MAX)
		return archive_invalid(reading, "an image has more than %d names",
				       ARCHIVE_NAMES_MAX);

	for (size_t i = 0; i < n; i++)
		if (strcmp(image->names[i], name) == 0)
			return 0;
	if (is_full(n)) {
		char **grown = reallocarray(image->names, n ? 2 * n : 1, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		image->names = grown;
	}
	image->names[n] = strdup(name);
	if (!image->names[n])
		return -ENOMEM;
	image->nnames++;
	return 0;
}

/* --- docker save, podman save --- */

/* The config tells how many layers there must be: one that is missing in the list would make
 * another image of it. */
static int check_config(struct reading *reading, const struct docker_archive_entry *entry,
			const struct member *member)
{
	CLEANUP(oci_config_release) struct oci_config config = {0};
	AUTO_FREE char *bytes = NULL;
	const char *why = "";
	int err = archive_read_member(reading, member, OCI_CONFIG_MAX, &bytes);

	if (err)
		return err;
	err = oci_config_parse(bytes, member->at.len, &config, &why);
	if (err == -EINVAL)
		return archive_invalid(reading, "the config %s: %s", entry->config, why);
	if (!err && config.ndiff_ids != entry->nlayers)
		return archive_invalid(reading, "manifest.json lists %zu layers, the config %s %zu",
				       entry->nlayers, entry->config, config.ndiff_ids);
	return err;
}

static int read_entry(struct reading *reading, const struct docker_archive_entry *entry)
{
	struct archive_image *image = NULL;
	struct member *member;
	int err = archive_add_image(reading, &image);

	for (size_t i = 0; !err && i < entry->nrepo_tags; i++)
		err = archive_add_name(reading, image, entry->repo_tags[i]);
	if (!err)
		err = archive_need(reading, "the config", entry->config, &member);
	if (!err)
		err = check_config(reading, entry, member);
	if (!err)
		err = archive_add_part(reading, image, NULL, member);
	for (size_t i = 0; !err && i < entry->nlayers; i++) {
		err = archive_need(reading, "the layer", entry->layers[i], &member);
		if (!err)
			err = archive_add_part(reading, image, NULL, member);
	}
	return err;
}

static int read_docker(struct reading *reading, const struct docker_archive *docker)
{
	int err = 0;

	if (docker->nentries == 0)
		return archive_invalid(reading, "manifest.json names no image");
	for (size_t i = 0; !err && i < docker->nentries; i++)
		err = read_entry(reading, &docker->entries[i]);
	return err;
}

static int read_docker_manifest(struct reading *reading, struct docker_archive *ret)
{
	AUTO_FREE char *bytes = NULL;
	struct member *member;
	const char *why = "";
	int err = archive_need(reading, "the file", "manifest.json", &member);

	if (!err)
		err = archive_read_member(reading, member, OCI_MANIFEST_MAX, &bytes);
	if (err)
		return err;
	err = docker_archive_parse(bytes, member->at.len, ret, &why);
	return err == -EINVAL ? archive_invalid(reading, "manifest.json: %s", why) : err;
}

/* --- any --- */

/* Neither kind: say what is nearest. */
static int not_an_image(struct reading *reading)
{
	if (archive_find(reading, "repositories"))
		return archive_invalid(reading, "it has no manifest.json: docker before 1.10 "
						"wrote it, load and save it again");
	for (size_t i = 0; i < reading->table->nmembers; i++) {
		const char *path = reading->table->members[i].path, *slash = strchr(path, '/');

		if (slash &&
		    (strcmp(slash, "/index.json") == 0 || strcmp(slash, "/manifest.json") == 0))
			return archive_invalid(reading,
					       "%s is not at the top of the archive: write it with "
					       "tar -C DIRECTORY",
					       path);
	}
	return archive_invalid(reading, "it has no index.json and no manifest.json: no image");
}

static bool is_packed(const struct archive_image *image)
{
	for (size_t i = 0; i < image->nmanifests; i++) {
		const struct oci_manifest *manifest = &image->manifests[i].manifest;

		for (size_t j = 0; j < manifest->nlayers; j++) {
			const char *type = manifest->layers[j].media_type;

			if (strcmp(type, OCI_TYPE_LAYER) && strcmp(type, DOCKER_TYPE_LAYER))
				return true;
		}
	}
	return false;
}

/* From 25 on docker save writes the layers it has unpacked into an OCI layout, under a manifest
 * that was never anywhere else. Its "repositories" tells it from others who keep layers so. */
static bool is_docker_save(const struct reading *reading)
{
	const struct archive *archive = reading->archive;

	for (size_t i = 0; i < archive->nimages; i++) {
		if (is_packed(&archive->images[i]))
			return false;
	}
	return archive_find(reading, "repositories");
}

/* Docker's file is only asked for names here, and other tools may have put something else there. */
static int read_layout(struct reading *reading, bool has_docker)
{
	CLEANUP(docker_archive_release) struct docker_archive docker = {0};
	int docker_err = has_docker ? read_docker_manifest(reading, &docker) : -EINVAL;

	if (docker_err && docker_err != -EINVAL)
		return docker_err;
	int err = archive_read_oci(reading, &docker);
	if (err || docker_err || !is_docker_save(reading))
		return err;
	while (reading->archive->nimages)
		archive_drop_image(reading);
	return read_docker(reading, &docker);
}

static int read_images(struct reading *reading)
{
	CLEANUP(docker_archive_release) struct docker_archive docker = {0};
	bool has_docker = archive_find(reading, "manifest.json");

	if (archive_find(reading, "index.json"))
		return read_layout(reading, has_docker);
	if (!has_docker)
		return not_an_image(reading);
	int err = read_docker_manifest(reading, &docker);
	return err ? err : read_docker(reading, &docker);
}

static void archive_cleanup(struct archive **archive)
{
	archive_parsed_free(*archive);
}

static void table_cleanup(struct archive_table **table)
{
	archive_table_free(*table);
}

static int table_read(struct reading *reading, struct archive_table **ret)
{
	CLEANUP(table_cleanup) struct archive_table *table = calloc(1, sizeof(*table));

	if (!table)
		return -ENOMEM;
	reading->table = table;
	int err = archive_scan(reading);
	if (!err)
		*ret = STEAL(table);
	return err;
}

int archive_table_read(const struct archive_input *input, archive_seen_fn *seen, void *arg,
		       struct archive_table **ret, char *ret_why, size_t why_len)
{
	struct reading reading = {
		.input = input,
		.seen = seen,
		.seen_arg = arg,
		.why = ret_why,
		.why_len = why_len,
	};

	return table_read(&reading, ret);
}

int archive_table_images(struct archive_table *table, const struct archive_input *input,
			 struct archive **ret, char *ret_why, size_t why_len)
{
	CLEANUP(archive_cleanup) struct archive *archive = calloc(1, sizeof(*archive));
	struct reading reading = {
		.input = input,
		.table = table,
		.docs_left = ARCHIVE_DOCS_MAX,
		.archive = archive,
		.why = ret_why,
		.why_len = why_len,
	};

	for (size_t i = 0; i < table->nmembers; i++)
		table->members[i].taken_by = 0;
	int err = archive ? read_images(&reading) : -ENOMEM;
	if (!err)
		*ret = STEAL(archive);
	return err;
}

int archive_parse(const struct archive_input *input, struct archive **ret, char *ret_why,
		  size_t why_len)
{
	CLEANUP(table_cleanup) struct archive_table *table = NULL;
	struct reading reading = {.input = input, .why = ret_why, .why_len = why_len};
	int err = table_read(&reading, &table);

	return err ? err : archive_table_images(table, input, ret, ret_why, why_len);
}
