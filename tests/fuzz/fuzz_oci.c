// SPDX-License-Identifier: Apache-2.0
/* oci: the first byte chooses the kind of document, the rest is its text. */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#include "regfs/oci.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(bool holds)
{
	if (!holds)
		__builtin_trap();
}

/* What was taken can be written, and the result is taken again and says the same. */
static void rewrite(const struct oci_manifest *manifest)
{
	AUTO_BUF struct buf text = BUF_INIT(OCI_MANIFEST_MAX);
	struct oci_manifest again;
	const char *why = NULL;

	if (oci_manifest_write(OCI_TYPE_MANIFEST, &manifest->config, manifest->layers,
			       manifest->nlayers, &text))
		return;
	check(oci_manifest_parse(text.data, text.len, NULL, &again, &why) == 0);
	check(again.nlayers == manifest->nlayers);
	check(digest_equal(&again.config.digest, &manifest->config.digest));
	check(again.config.size == manifest->config.size);
	oci_manifest_release(&again);
}

static void try_manifest(const char *json, size_t len)
{
	struct oci_platform host = {.os = "linux", .architecture = "arm", .variant = "v7"};
	struct oci_manifest manifest;
	const char *why = NULL;

	if (oci_manifest_parse(json, len, OCI_TYPE_INDEX, &manifest, &why)) {
		check(why != NULL);
		return;
	}
	/* an unknown type is an artifact's, and kept as it is */
	check(manifest.media_type && *manifest.media_type);
	oci_is_image(&manifest);
	check(oci_platform_choose(&manifest, &host) < (ssize_t)manifest.nchildren);
	for (size_t i = 0; i < manifest.nchildren; i++) {
		AUTO_FREE char *name = oci_platform_name(&manifest.children[i].platform);

		check(name && *name && *name != '.' && !strchr(name, '/') && strlen(name) < 256);
	}
	if (manifest.kind == OCI_KIND_MANIFEST && oci_is_manifest_type(manifest.media_type))
		rewrite(&manifest);
	oci_manifest_release(&manifest);
}

static void try_config(const char *json, size_t len)
{
	struct oci_config config;
	const char *why = NULL;
	uint32_t nsec;
	int64_t sec;

	if (oci_config_parse(json, len, &config, &why)) {
		check(why != NULL);
		return;
	}
	if (config.created && oci_time_parse(config.created, &sec, &nsec) == 0)
		check(nsec < 1000000000);
	oci_config_release(&config);
}

static void try_docker_archive(const char *json, size_t len)
{
	AUTO_BUF struct buf text = BUF_INIT(OCI_MANIFEST_MAX);
	struct docker_archive archive, again;
	const char *why = NULL;

	if (docker_archive_parse(json, len, &archive, &why)) {
		check(why != NULL);
		return;
	}
	if (docker_archive_write(&archive, &text) == 0) {
		check(docker_archive_parse(text.data, text.len, &again, &why) == 0);
		check(again.nentries == archive.nentries);
		docker_archive_release(&again);
	}
	docker_archive_release(&archive);
}

static void try_index(const char *json, size_t len)
{
	struct oci_descriptor entry = {.media_type = OCI_TYPE_MANIFEST, .size = 1};
	AUTO_BUF struct buf with = BUF_INIT(2 * OCI_MANIFEST_MAX);
	AUTO_BUF struct buf without = BUF_INIT(2 * OCI_MANIFEST_MAX);

	digest_of(DIGEST_SHA256, "x", 1, &entry.digest);
	if (oci_index_update(json, len, &entry, "1.5", &with))
		return;
	check(oci_index_update(with.data, with.len, NULL, "1.5", &without) == 0);
	buf_clear(&with);
	check(oci_index_update(without.data, without.len, NULL, "1.5", &with) == -ENOENT);
}

static int count_name(void *arg, const char *name)
{
	check(name != NULL);
	return ++*(int *)arg == 100;
}

static void try_small(const char *json, size_t len)
{
	AUTO_FREE char *token = oci_json_string(json, len, "token");
	int64_t number = oci_json_number(json, len, "expires_in", 60);
	const char *why = NULL;
	char code[64];
	AUTO_FREE char *message = oci_error_message(json, len, code);
	int n = 0;

	check(number >= -(INT64_C(1) << 53) && number <= INT64_C(1) << 53);
	check(strlen(code) < sizeof(code) && (!token || strlen(token) < len));
	check(!message || (strlen(message) <= 1000 && !strchr(message, '\n')));
	oci_names_parse(json, len, "tags", count_name, &n, &why);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static void (*const kinds[])(const char *, size_t) = {
		try_manifest, try_config, try_docker_archive, try_index, try_small};
	const char *json = (const char *)data + 1;

	if (len == 0)
		return 0;
	kinds[data[0] % ARRAY_SIZE(kinds)](json, len - 1);
	return 0;
}
