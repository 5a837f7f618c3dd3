// SPDX-License-Identifier: Apache-2.0
/* ref: any bytes; what is taken must come out of ref_format and be taken again. */
#include <stddef.h>
#include <stdint.h>

#include "regfs/ref.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(bool holds)
{
	if (!holds)
		__builtin_trap();
}

static void round_trip(const struct ref *ref)
{
	char first[REF_STR_MAX], second[REF_STR_MAX];
	const char *why = NULL;
	struct ref again;

	check(ref_host_valid(ref->host) && ref_repo_valid(ref->repo));
	check(!ref->tag[0] || ref_tag_valid(ref->tag));
	check(ref_parse(ref_format(ref, first), &again, &why) == 0);
	check(strcmp(first, ref_format(&again, second)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	char component[REF_REPO_MAX], tag[REF_TAG_MAX];
	const char *why = NULL;
	struct source source;
	struct digest digest;
	struct ref ref;
	AUTO_FREE char *str = strndup((const char *)data, len);

	if (!str)
		return 0;
	if (ref_parse(str, &ref, &why) == 0)
		round_trip(&ref);
	else
		check(why != NULL);
	why = NULL;
	if (source_parse(str, &source, &why))
		check(why != NULL);
	else if (source.kind == SOURCE_IMAGE)
		round_trip(&source.ref);
	if (ref_split_image_name(str, component, tag, &digest) == 0)
		check(ref_component_valid(component) && !tag[0] == (digest.algo != DIGEST_NONE));
	return 0;
}
