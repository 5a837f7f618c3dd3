// SPDX-License-Identifier: Apache-2.0
/* ztoc: a document as it comes; its spans, its members, and the index of it. */
#include <sys/stat.h>

#include "index_exercise.h"
#include "regfs/toc.h"
#include "regfs/ztoc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(bool holds)
{
	if (!holds)
		__builtin_trap();
}

/* Spans cover the tar, in order, and lie in the blob. */
static void check_spans(const struct ztoc *ztoc)
{
	struct ztoc_span span = {0};
	const char *why = NULL;
	uint64_t in = 0, out = 0;

	for (uint32_t n = 0; n < ztoc->nspans; n++) {
		check(ztoc_span(ztoc, n, &span, &why) == 0);
		check(span.point.out_off == out && span.out_end > out);
		check(span.in_begin < span.in_end && span.in_end <= ztoc->blob_size);
		check(n == 0 || span.in_begin + 1 == in || span.in_begin == in);
		check(span.point.window_len <= CODEC_WINDOW);
		for (size_t i = 0; i < span.point.window_len; i += 4096)
			check(span.point.window[i] <= UINT8_MAX);
		in = span.in_end;
		out = span.out_end;
	}
	check(in == ztoc->blob_size && out == ztoc->decoded_size);
	check(ztoc_span(ztoc, ztoc->nspans, &span, &why) < 0 && why);
}

static void check_members(const struct ztoc *ztoc)
{
	static struct ztoc_scratch scratch;
	struct tar_member member;
	const char *why = NULL;

	scratch.strings = 0;
	for (uint32_t n = 0; n < MIN(ztoc->nfiles, 1000u); n++) {
		if (ztoc_member(ztoc, n, &scratch, &member, &why) < 0) {
			check(why != NULL);
			continue;
		}
		check(member.path && strlen(member.path) < ZTOC_MAX);
		check(S_ISLNK(member.mode) == (member.symlink != NULL));
		check(member.nxattrs <= ZTOC_XATTRS_MAX);
		check(member.sparse || member.size <= ztoc->decoded_size);
	}
}

/* As layer_ztoc.c makes it, and what layer_read.c relies on. */
static void try_index(const struct ztoc *ztoc)
{
	CLEANUP(index_builder_cleanup) struct index_builder *builder = index_builder_new();
	AUTO_BUF struct buf file = BUF_INIT(64 * MIB);
	struct index_info info = {.by_toc = true,
				  .by_spans = true,
				  .blob_size = ztoc->blob_size,
				  .codec = ztoc->codec};
	const struct index_inode stream = {.nchunks = ztoc->nspans};
	const char *why = NULL;
	struct index_chunk chunk;
	struct codec_point point;
	struct index index;

	if (!builder)
		return;
	if (ztoc_index(ztoc, builder, &why)) {
		check(why != NULL);
		return;
	}
	if (index_builder_finish(builder, &info, &file))
		return;
	check(index_open(file.data, file.len, &index) == 0);
	check(index.info.by_spans && index.info.nchunks == ztoc->nspans);
	check(index.info.npoints == ztoc->nspans);
	for (uint32_t n = 0; n < ztoc->nspans; n++) {
		check(index_chunk(&index, &stream, n, &chunk) == 0 && chunk.len > 0);
		check(index_point(&index, n, NULL, &point) == 0 && point.out_off == chunk.off);
		check(index_chunk_at(&index, &stream, chunk.off) == n);
	}
	exercise_index(&index, 64);
	check(toc_check(&index, &why) == 0 || why);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	const char *why = NULL;
	struct ztoc ztoc;

	if (ztoc_open(data, len, &ztoc, &why) < 0) {
		check(why != NULL);
		return 0;
	}
	check_spans(&ztoc);
	check_members(&ztoc);
	try_index(&ztoc);
	return 0;
}
