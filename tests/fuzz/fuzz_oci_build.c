// SPDX-License-Identifier: Apache-2.0
/* oci_build: the config below, a NUL, and what is wished; either may be missing. */
#include <stddef.h>
#include <stdint.h>

#include "regfs/oci.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(bool holds)
{
	if (!holds)
		__builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct oci_platform platform = {.os = "linux", .architecture = "amd64"};
	CLEANUP(oci_config_release) struct oci_config below = {0};
	CLEANUP(oci_config_release) struct oci_config built = {0};
	AUTO_BUF struct buf text = BUF_INIT(OCI_CONFIG_MAX);
	const uint8_t *nul = memchr(data, 0, len);
	size_t base_len = nul ? (size_t)(nul - data) : len;
	const char *why = NULL;
	struct digest diff_id;

	digest_of(DIGEST_SHA256, "x", 1, &diff_id);
	const struct oci_build build = {
		.base = base_len ? (const char *)data : NULL,
		.base_len = base_len,
		.given = nul ? (const char *)nul + 1 : NULL,
		.given_len = nul ? len - base_len - 1 : 0,
		.platform = &platform,
		.diff_id = &diff_id,
		.created = "2026-01-02T03:04:05Z",
		.created_by = "fuzz",
	};
	if (oci_config_build(&build, &text, &why) != 0) {
		check(text.len == 0);
		return 0;
	}
	check(oci_config_parse(text.data, text.len, &built, &why) == 0);
	check(built.ndiff_ids > 0 && built.nhistory > 0);
	check(digest_equal(&built.diff_ids[built.ndiff_ids - 1], &diff_id));
	/* What was good below is all there. */
	if (base_len && oci_config_parse(build.base, base_len, &below, &why) == 0)
		check(built.ndiff_ids == below.ndiff_ids + 1 &&
		      built.nhistory == below.nhistory + 1);
	return 0;
}
