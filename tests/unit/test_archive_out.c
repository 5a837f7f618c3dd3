// SPDX-License-Identifier: Apache-2.0
/* archive, out: the map of image.tar, and its bytes at every offset. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "regfs/archive.h"
#include "regfs/tar.h"

/* Blobs have the bytes that their size and place make. */
static char blob_byte(const struct archive_file *file, uint64_t off)
{
	return (char)(file->digest.bytes[0] + off * 7 + file->size);
}

static ssize_t read_blob(void *arg, const struct archive_file *file, uint64_t off, void *buf,
			 size_t len)
{
	char *out = buf;

	(void)arg;
	assert_true(off < file->size && len > 0 && len <= file->size - off);
	len = MIN(len, (size_t)777); /* a short count is no end */
	for (size_t i = 0; i < len; i++)
		out[i] = blob_byte(file, off + i);
	return (ssize_t)len;
}

static struct oci_descriptor blob_of(const char *type, const char *seed, int64_t size)
{
	struct oci_descriptor descriptor = {.media_type = (char *)type, .size = size};

	digest_of(DIGEST_SHA256, seed, strlen(seed), &descriptor.digest);
	return descriptor;
}

/* An image of two layers, one of them twice, of SIZE bytes. */
struct sample {
	struct oci_descriptor layers[3];
	struct oci_manifest manifest;
	struct digest digest;
	struct archive_manifest given;
};

static void sample_init(struct sample *sample, int64_t size)
{
	static const char bytes[] = "the manifest's bytes";

	*sample = (struct sample){
		.layers = {blob_of(OCI_TYPE_LAYER, "one", size),
			   blob_of(OCI_TYPE_LAYER, "two", 512),
			   blob_of(OCI_TYPE_LAYER, "one", size)},
		.manifest = {.kind = OCI_KIND_MANIFEST,
			     .media_type = OCI_TYPE_MANIFEST,
			     .config = blob_of(OCI_TYPE_CONFIG, "config", 0),
			     .nlayers = 3},
	};
	sample->manifest.layers = sample->layers;
	digest_of(DIGEST_SHA256, bytes, strlen(bytes), &sample->digest);
	sample->given = (struct archive_manifest){&sample->manifest, &sample->digest, bytes,
						  strlen(bytes)};
}

static struct archive_map *map_of(const struct sample *sample)
{
	struct archive_map *map = NULL;

	assert_int_equal(archive_map_new(&sample->given, 1, &sample->manifest, "1.5",
					 "ghcr.io/acme/web:1.5", &map),
			 0);
	return map;
}

static char *blob_path(const struct digest *digest, char out[static 200])
{
	char hex[DIGEST_STR_MAX];

	snprintf(out, 200, "blobs/sha256/%s", digest_hex(digest, hex));
	return out;
}

static void test_files(void **state)
{
	struct archive_map *map;
	struct sample sample;
	char path[200];
	ssize_t at;

	(void)state;
	sample_init(&sample, 3000);
	map = map_of(&sample);
	assert_int_equal(map->nfiles, 7); /* the layer that is there twice is one file */
	assert_string_equal(map->files[0].path, "oci-layout");
	assert_string_equal(map->files[0].bytes, "{\"imageLayoutVersion\":\"1.0.0\"}");
	assert_string_equal(map->files[1].path, "index.json");
	assert_string_equal(map->files[2].path, "manifest.json");
	for (size_t i = 0; i < map->nfiles; i++)
		assert_int_equal(archive_map_find(map, map->files[i].path), i);
	assert_int_equal(archive_map_find(map, ""), -1);
	assert_int_equal(archive_map_find(map, "blobs"), -1);
	assert_int_equal(archive_map_find(map, "zzz"), -1);
	at = archive_map_find(map, blob_path(&sample.digest, path));
	assert_string_equal(map->files[at].bytes, "the manifest's bytes");
	at = archive_map_find(map, blob_path(&sample.layers[0].digest, path));
	assert_null(map->files[at].bytes);
	assert_int_equal(map->files[at].size, 3000);
	assert_true(digest_equal(&map->files[at].digest, &sample.layers[0].digest));
	archive_map_free(map);
	archive_map_free(NULL);
}

static void test_documents(void **state)
{
	CLEANUP(oci_manifest_release) struct oci_manifest index = {0};
	CLEANUP(docker_archive_release) struct docker_archive docker = {0};
	struct archive_map *map;
	struct sample sample;
	char path[200];
	const char *why;

	(void)state;
	sample_init(&sample, 3000);
	map = map_of(&sample);
	assert_int_equal(
		oci_manifest_parse(map->files[1].bytes, map->files[1].size, NULL, &index, &why), 0);
	assert_int_equal(index.nchildren, 1);
	assert_true(digest_equal(&index.children[0].digest, &sample.digest));
	assert_string_equal(index.children[0].media_type, OCI_TYPE_MANIFEST);
	assert_string_equal(oci_annotation(index.children[0].annotations, 2,
					   "org.opencontainers.image.ref.name"),
			    "1.5");
	assert_string_equal(
		oci_annotation(index.children[0].annotations, 2, "io.containerd.image.name"),
		"ghcr.io/acme/web:1.5");
	assert_int_equal(
		docker_archive_parse(map->files[2].bytes, map->files[2].size, &docker, &why), 0);
	assert_string_equal(docker.entries[0].config,
			    blob_path(&sample.manifest.config.digest, path));
	assert_string_equal(docker.entries[0].repo_tags[0], "ghcr.io/acme/web:1.5");
	assert_int_equal(docker.entries[0].nlayers, 3); /* as often as in the manifest */
	assert_string_equal(docker.entries[0].layers[2], blob_path(&sample.layers[0].digest, path));
	archive_map_free(map);
}

/* Without names and without docker: an OCI layout alone. */
static void test_nameless(void **state)
{
	CLEANUP(oci_manifest_release) struct oci_manifest index = {0};
	struct archive_map *map = NULL;
	struct sample sample;
	const char *why;

	(void)state;
	sample_init(&sample, 3000);
	assert_int_equal(archive_map_new(&sample.given, 1, NULL, NULL, NULL, &map), 0);
	assert_int_equal(archive_map_find(map, "manifest.json"), -1);
	assert_int_equal(
		oci_manifest_parse(map->files[1].bytes, map->files[1].size, NULL, &index, &why), 0);
	assert_int_equal(index.children[0].nannotations, 0);
	archive_map_free(map);
}

static void test_refused(void **state)
{
	struct archive_map *map = NULL;
	struct sample sample, other;

	(void)state;
	sample_init(&sample, 3000);
	assert_int_equal(archive_map_new(&sample.given, 0, NULL, NULL, NULL, &map), -EINVAL);
	/* docker's manifest is not among those that go in */
	other = sample;
	other.manifest.config = blob_of(OCI_TYPE_CONFIG, "other", 1);
	assert_int_equal(archive_map_new(&sample.given, 1, &other.manifest, NULL, NULL, &map),
			 -EINVAL);
	/* two sizes of one blob; more than any file can have */
	sample.layers[2].size = 3001;
	assert_int_equal(archive_map_new(&sample.given, 1, NULL, NULL, NULL, &map), -EINVAL);
	sample_init(&sample, INT64_MAX - 4096);
	assert_int_equal(archive_map_new(&sample.given, 1, NULL, NULL, NULL, &map), -EINVAL);
	assert_null(map);
}

static void test_special_blobs(void **state)
{
	char *urls[] = {"https://a"};
	struct archive_map *map = NULL;
	struct sample sample;
	char path[200];
	ssize_t at;

	(void)state;
	sample_init(&sample, 3000);
	sample.layers[1].urls = urls; /* foreign: not in the archive */
	sample.layers[1].nurls = 1;
	sample.layers[2].data = (uint8_t *)"abc"; /* inline: at hand */
	sample.layers[2].data_len = 3;
	sample.layers[0].size = sample.layers[2].size = 3;
	assert_int_equal(archive_map_new(&sample.given, 1, NULL, NULL, NULL, &map), 0);
	assert_int_equal(archive_map_find(map, blob_path(&sample.layers[1].digest, path)), -1);
	at = archive_map_find(map, blob_path(&sample.layers[0].digest, path));
	assert_string_equal(map->files[at].bytes, "abc");
	archive_map_free(map);
}

static void test_index_and_children(void **state)
{
	struct oci_manifest index = {.kind = OCI_KIND_INDEX, .media_type = DOCKER_TYPE_LIST};
	struct archive_manifest given[2];
	struct archive_map *map = NULL;
	struct digest digest;
	struct sample sample;

	(void)state;
	sample_init(&sample, 3000);
	digest_of(DIGEST_SHA256, "index", 5, &digest);
	given[0] = (struct archive_manifest){&index, &digest, "index", 5};
	given[1] = sample.given;
	assert_int_equal(archive_map_new(given, 2, &sample.manifest, "1", NULL, &map), 0);
	assert_int_equal(map->nfiles, 8);
	assert_non_null(strstr(map->files[1].bytes, DOCKER_TYPE_LIST));
	assert_non_null(strstr(map->files[2].bytes, "\"RepoTags\":null"));
	archive_map_free(map);
}

/* --- bytes --- */

struct members {
	const struct archive_map *map;
	size_t n;
};

static int check_member(void *arg, const struct tar_member *member)
{
	struct members *members = arg;
	const struct archive_file *file = &members->map->files[members->n++];

	assert_string_equal(member->path, file->path);
	assert_int_equal(member->mode, S_IFREG | 0644);
	assert_int_equal(member->mtime_sec, 0);
	assert_true(member->size == file->size && member->header_off == file->header_off &&
		    member->data_off == file->data_off);
	return 0;
}

static ssize_t source_once(void *arg, const void **ret)
{
	struct buf *bytes = arg;
	ssize_t len = (ssize_t)bytes->cap;

	*ret = bytes->data;
	bytes->cap = 0;
	return len;
}

static char *read_whole(const struct archive_map *map, size_t piece)
{
	char *bytes = malloc(map->size + 1);
	uint64_t off = 0;
	ssize_t got;

	assert_non_null(bytes);
	while ((got = archive_read(map, off, bytes + off, MIN(piece, map->size - off + 1),
				   read_blob, NULL)) > 0)
		off += (uint64_t)got;
	assert_int_equal(got, 0);
	assert_true(off == map->size);
	return bytes;
}

static void test_tar(void **state)
{
	struct members members = {0};
	struct sample sample;
	struct archive_map *map;
	struct buf input;
	bool marker = false;
	char tar_why[200] = "";

	(void)state;
	sample_init(&sample, 3000);
	map = map_of(&sample);
	members.map = map;
	input = (struct buf){.data = read_whole(map, 4096), .cap = map->size};
	assert_int_equal(tar_scan(&(struct tar_source){.read = source_once, .arg = &input},
				  check_member, &members, &marker, tar_why, sizeof(tar_why)),
			 0);
	assert_int_equal(members.n, map->nfiles);
	assert_true(marker);
	for (size_t i = 0; i < map->nfiles; i++) {
		const struct archive_file *file = &map->files[i];

		for (uint64_t j = 0; j < file->size; j++)
			assert_int_equal(input.data[file->data_off + j],
					 file->bytes ? file->bytes[j] : blob_byte(file, j));
	}
	free(input.data);
	archive_map_free(map);
}

static void test_any_offset(void **state)
{
	static const size_t pieces[] = {1, 7, 511, 512, 513, 5000, 100000};
	struct sample sample;
	struct archive_map *map;
	char *whole, buf[2000];

	(void)state;
	sample_init(&sample, 3000);
	map = map_of(&sample);
	whole = read_whole(map, map->size + 100);
	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
		char *again = read_whole(map, pieces[i]);

		assert_memory_equal(again, whole, map->size);
		free(again);
	}
	for (uint64_t off = 0; off < map->size; off += 13) {
		size_t len = MIN(sizeof(buf), map->size - off);

		assert_int_equal(archive_read(map, off, buf, sizeof(buf), read_blob, NULL), len);
		assert_memory_equal(buf, whole + off, len);
	}
	assert_int_equal(archive_read(map, map->size, buf, 1, read_blob, NULL), 0);
	assert_int_equal(archive_read(map, UINT64_MAX, buf, 1, read_blob, NULL), 0);
	assert_int_equal(archive_read(map, 0, buf, 0, read_blob, NULL), 0);
	free(whole);
	archive_map_free(map);
}

static ssize_t failing_blob(void *arg, const struct archive_file *file, uint64_t off, void *buf,
			    size_t len)
{
	(void)file, (void)off, (void)buf, (void)len;
	return *(int *)arg;
}

static void test_failing_blob(void **state)
{
	int answers[] = {-EWOULDBLOCK, -EIO, 0}, errors[] = {-EWOULDBLOCK, -EIO, -EIO};
	struct sample sample;
	struct archive_map *map;
	char path[200], buf[600];
	ssize_t at;

	(void)state;
	sample_init(&sample, 3000);
	map = map_of(&sample);
	at = archive_map_find(map, blob_path(&sample.layers[0].digest, path));
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		/* from its header on: nothing of what comes before the failure is kept */
		assert_int_equal(archive_read(map, map->files[at].header_off, buf, sizeof(buf),
					      failing_blob, &answers[i]),
				 errors[i]);
		assert_int_equal(archive_read(map, map->files[at].header_off, buf, 512,
					      failing_blob, &answers[i]),
				 512);
	}
	archive_map_free(map);
}

/* Beyond ustar's 8 GiB the header takes more than one block. */
static void test_huge_layer(void **state)
{
	const int64_t size = INT64_C(1) << 40;
	struct sample sample;
	struct archive_map *map;
	char path[200], buf[1000];
	const struct archive_file *file;
	ssize_t at;

	(void)state;
	sample_init(&sample, size);
	map = map_of(&sample);
	at = archive_map_find(map, blob_path(&sample.layers[0].digest, path));
	file = &map->files[at];
	assert_true(map->size > (uint64_t)size);
	assert_int_equal(archive_read(map, file->data_off + size - 500, buf, 1000, read_blob, NULL),
			 1000);
	for (int i = 0; i < 500; i++)
		assert_int_equal(buf[i], blob_byte(file, size - 500 + i));
	assert_int_equal(archive_read(map, map->size - 10, buf, 1000, read_blob, NULL), 10);
	archive_map_free(map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_files),	      cmocka_unit_test(test_documents),
		cmocka_unit_test(test_nameless),      cmocka_unit_test(test_refused),
		cmocka_unit_test(test_special_blobs), cmocka_unit_test(test_index_and_children),
		cmocka_unit_test(test_tar),	      cmocka_unit_test(test_any_offset),
		cmocka_unit_test(test_failing_blob),  cmocka_unit_test(test_huge_layer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
