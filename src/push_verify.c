/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether an image that comes with its manifest can be run: each layer is what the config says.
 * Knows manifests and configs. Must not know how a layer was decoded, nor where bytes are.
 */
#include <errno.h>

#include "push_priv.h"

static const struct push_inside *find(const struct push_insides *insides, const struct digest *blob)
{
	for (size_t i = 0; i < insides->n; i++) {
		if (digest_equal(&insides->list[i].blob, blob))
			return &insides->list[i];
	}
	return NULL;
}

static int check_layer(struct push_reason *why, unsigned number, const struct push_inside *inside,
		       const struct digest *wanted)
{
	char found[DIGEST_STR_MAX], wanted_str[DIGEST_STR_MAX];

	if (inside->flaw)
		return push_fail(why, -EINVAL, "layer %u, %s, cannot be unpacked: %s", number,
				 digest_format(&inside->blob, found), inside->flaw);
	/* One that is not known, or is hashed in another way, is left to who reads it. */
	if (inside->diff_id.algo != wanted->algo || digest_equal(&inside->diff_id, wanted))
		return 0;
	return push_fail(why, -EINVAL, "layer %u unpacks to %s, the image's config says %s", number,
			 digest_format(&inside->diff_id, found), digest_format(wanted, wanted_str));
}

int push_verify(struct push_reason *why, const struct oci_manifest *manifest,
		const struct buf *config, const struct push_insides *insides)
{
	CLEANUP(oci_config_release) struct oci_config parsed = {0};
	const char *words = "";

	int err = oci_config_parse(config->data, config->len, &parsed, &words);
	if (err)
		return err == -ENOMEM ? err
				      : push_fail(why, -EINVAL,
						  "the image's config cannot be used: %s", words);
	/* An artifact may have an image's types, and a config that claims nothing. */
	if (parsed.ndiff_ids == 0)
		return 0;
	if (parsed.ndiff_ids != manifest->nlayers)
		return push_fail(why, -EINVAL,
				 "the manifest has %zu layers, the image's config names %zu",
				 manifest->nlayers, parsed.ndiff_ids);
	for (size_t i = 0; i < manifest->nlayers && !err; i++) {
		const struct push_inside *inside = find(insides, &manifest->layers[i].digest);
		if (inside)
			err = check_layer(why, (unsigned)i + 1, inside, &parsed.diff_ids[i]);
	}
	return err;
}
