// SPDX-License-Identifier: Apache-2.0
/*
 * ztoc_index: a ztoc's members and spans to an index.
 * Knows what they make together. Must not know the schema (ztoc.c).
 */
#include <errno.h>
#include <sys/stat.h>

#include "regfs/ztoc.h"

struct walk {
	const struct ztoc *ztoc;
	struct index_builder *builder;
	struct ztoc_scratch scratch;
	uint64_t end; /* of the last file's data */
	const char *why;
};

static int lie(struct walk *walk, const char *why)
{
	walk->why = why;
	return -EINVAL;
}

/* --- members --- */

/* A file's data come after those of the file before it: an archive has no other way. */
static int place_data(struct walk *walk, struct tar_member *member)
{
	if (!S_ISREG(member->mode) || member->size == 0)
		return 0;
	if (member->data_off < walk->end)
		return lie(walk, "files lie over each other");
	walk->end = member->data_off + (member->sparse ? 0 : member->size);
	/* how its data are cut up is in the archive alone */
	if (member->sparse)
		member->data_off = ZTOC_NOWHERE;
	member->sparse = false;
	return 0;
}

static int add_member(struct walk *walk, uint32_t n)
{
	struct tar_member member;

	int r = ztoc_member(walk->ztoc, n, &walk->scratch, &member, &walk->why);
	if (r == 0)
		r = place_data(walk, &member);
	if (r < 0)
		return r;
	r = index_builder_member(walk->builder, &member);
	if (r == -EFBIG)
		return lie(walk, "it names too many files and directories");
	return r == -EINVAL ? lie(walk, "a member has an impossible name") : r;
}

/* --- spans --- */

static int add_span(struct walk *walk, uint32_t n, struct index_chunk *ret)
{
	struct ztoc_span span;

	int r = ztoc_span(walk->ztoc, n, &span, &walk->why);
	if (r == 0)
		r = index_builder_point(walk->builder, &span.point);
	if (r < 0)
		return r;
	*ret = (struct index_chunk){
		.off = span.point.out_off,
		.in_off = span.in_begin,
		.len = (uint32_t)(span.out_end - span.point.out_off),
		.in_len = (uint32_t)(span.in_end - span.in_begin),
	};
	memcpy(ret->digest, span.digest.bytes, sizeof(ret->digest));
	return 0;
}

static int add_spans(struct walk *walk)
{
	uint32_t nspans = walk->ztoc->nspans;
	AUTO_FREE struct index_chunk *chunks = calloc(nspans, sizeof(*chunks));
	int r = chunks ? 0 : -ENOMEM;

	for (uint32_t n = 0; r == 0 && n < nspans; n++)
		r = add_span(walk, n, &chunks[n]);
	return r < 0 ? r : index_builder_chunks(walk->builder, chunks, nspans);
}

int ztoc_index(const struct ztoc *ztoc, struct index_builder *builder, const char **ret_why)
{
	AUTO_FREE struct walk *walk = calloc(1, sizeof(*walk));
	int r = 0;

	if (!walk) {
		*ret_why = "memory is short";
		return -ENOMEM;
	}
	walk->ztoc = ztoc;
	walk->builder = builder;
	for (uint32_t n = 0; r == 0 && n < ztoc->nfiles; n++)
		r = add_member(walk, n);
	if (r == 0)
		r = add_spans(walk);
	if (r < 0)
		*ret_why = walk->why ? walk->why : "memory is short";
	return r;
}
