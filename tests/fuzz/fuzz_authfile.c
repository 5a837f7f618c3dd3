/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_authfile: credential files as others may have written them, read, chosen from and
 * rewritten. */
#include <assert.h>

#include "regfs/authfile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What was written can be read, and says what was meant. */
static void rewrite(const char *json, size_t size)
{
	const struct authfile_entry entry = {.user = (char *)"user", .password = (char *)"pass"};
	AUTO_BUF struct buf text = BUF_INIT(8 * AUTHFILE_MAX);
	CLEANUP(authfile_release) struct authfile file = {0};
	struct authfile_choice choice;
	const char *why;

	if (authfile_set(json, size, "quay.io", &entry, &text))
		return;
	if (authfile_parse(text.data, text.len, AUTHFILE_CONFIG, &file, &why))
		return; /* another member is not as it should be */
	authfile_choose(&file, "quay.io", NULL, &choice);
	assert(choice.helper ||
	       (choice.entry && !strcmp(choice.entry->user, "user") &&
		!strcmp(choice.entry->password, "pass")) ||
	       file.nhelpers);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *json = (const char *)data;
	CLEANUP(authfile_entry_release) struct authfile_entry answer = {0};
	const char *why;

	for (int form = AUTHFILE_CONFIG; form <= AUTHFILE_LEGACY; form++) {
		CLEANUP(authfile_release) struct authfile file = {0};
		struct authfile_choice choice;

		if (authfile_parse(json, size, form, &file, &why))
			continue;
		authfile_choose(&file, "quay.io", "team/app", &choice);
		authfile_choose(&file, "docker.io", NULL, &choice);
	}
	(void)authfile_helper_parse(json, size, &answer);
	rewrite(json, size);
	return 0;
}
