// SPDX-License-Identifier: Apache-2.0
/* names_target: any text of a link; what is taken is a valid reference. The first byte chooses the
 * root. */
#include <stddef.h>
#include <stdint.h>

#include "../../src/names_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(bool holds)
{
	if (!holds)
		__builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	const struct target_base base = {
		.mountpoint = "/mnt/reg",
		.has_hosts = len && data[0] & 1,
		.host = len && data[0] & 2 ? "docker.io" : "localhost:5000",
		.repo = "team/app",
	};
	AUTO_FREE char *text = len ? strndup((const char *)data + 1, len - 1) : NULL;
	struct ref ref;

	if (!text || target_resolve(&base, text, &ref) != 0)
		return 0;
	check(ref_host_valid(ref.host) && ref_repo_valid(ref.repo));
	check(base.has_hosts || !strcmp(ref.host, base.host));
	check(ref.digest.algo == DIGEST_NONE ? ref_tag_valid(ref.tag) : !*ref.tag);
	return 0;
}
