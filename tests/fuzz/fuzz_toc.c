// SPDX-License-Identifier: Apache-2.0
/* toc: the first byte chooses between the end of a blob and the JSON of a table. */
#include "index_exercise.h"
#include "regfs/toc.h"

#define DATA_END 100000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(bool holds)
{
	if (!holds)
		__builtin_trap();
}

/* The chunks of a file make it up, and lie where data are. */
static void check_chunks(const struct index *index, const struct index_inode *inode)
{
	struct index_chunk chunk;
	uint64_t at = 0;

	for (uint32_t n = 0; n < inode->nchunks; n++) {
		check(index_chunk(index, inode, n, &chunk) == 0);
		check(chunk.off == at && chunk.len > 0);
		check(chunk.in_off < DATA_END && chunk.in_len <= DATA_END - chunk.in_off);
		check(chunk.in_len == 0 || chunk.len <= TOC_CHUNK_MAX);
		check(index_chunk_at(index, inode, at) == n);
		at += chunk.len;
	}
	check(inode->nchunks == 0 || at == inode->size);
}

static void try_index(struct index_builder *builder)
{
	AUTO_BUF struct buf file = BUF_INIT(64 * MIB);
	struct index_info info = {.by_toc = true, .blob_size = DATA_END};
	struct index_inode inode;
	const char *why = NULL;
	struct index index;

	if (index_builder_finish(builder, &info, &file))
		return;
	check(index_open(file.data, file.len, &index) == 0);
	check(index.info.by_toc && index.info.nchunks == info.nchunks);
	for (uint32_t ino = 0; ino < index.info.ninodes; ino++) {
		check(index_inode(&index, ino, &inode) == 0);
		check_chunks(&index, &inode);
	}
	exercise_index(&index, 64);
	check(toc_check(&index, &why) == 0 || why);
}

static void try_json(const char *text, size_t len)
{
	AUTO_BUF struct buf json = BUF_INIT(TOC_JSON_MAX);
	CLEANUP(index_builder_cleanup) struct index_builder *builder = index_builder_new();
	const char *why = NULL;

	if (!builder || buf_add(&json, text, len))
		return;
	if (toc_index(&json, DATA_END, builder, &why) == 0)
		try_index(builder);
	else
		check(why != NULL);
}

static void try_blob(const char *blob, size_t len)
{
	AUTO_BUF struct buf json = BUF_INIT(TOC_JSON_MAX);
	struct toc_ref ref = {0};
	const char *why = NULL;

	if (toc_locate(blob, len, len, &ref, &why)) {
		check(why != NULL);
		return;
	}
	check(ref.len > 0 && ref.off <= len && ref.len <= len - ref.off);
	if (toc_unpack(&ref, blob + ref.off, &json, &why) == 0)
		try_json(json.data, json.len);
	else
		check(why != NULL && !json.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (len == 0)
		return 0;
	if (data[0] & 1)
		try_blob((const char *)data + 1, len - 1);
	else
		try_json((const char *)data + 1, len - 1);
	return 0;
}
