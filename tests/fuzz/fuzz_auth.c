/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_auth: WWW-Authenticate headers, as a registry may send them. */
#include <assert.h>

#include "../../src/auth_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AUTO_FREE char *header = strndup((const char *)data, size);
	CLEANUP(auth_challenges_release) struct auth_challenges challenges = {0};
	if (!header)
		return 0;
	assert(auth_parse(header, &challenges) == 0);
	/* A value comes out of the header: it cannot be longer. */
	assert(!challenges.realm || strlen(challenges.realm) < size);
	return 0;
}
