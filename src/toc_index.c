// SPDX-License-Identifier: Apache-2.0
/*
 * toc_index: a table's entries to members of an index, and the chunks of its files.
 * Knows how the formats cut files into pieces. Must not know JSON (toc_json.c).
 *
 * A piece begins where its entry says and ends where the next one of the blob begins: that is only
 * known when all have been seen. So chunks are collected first and get their lengths at the end.
 */
#include <errno.h>
#include <sys/stat.h>

#include "toc_priv.h"

#define IN_LEN_ZEROS   0 /* while they are collected, what .in_len of a chunk says */
#define IN_LEN_UNKNOWN UINT32_MAX

/* The file whose chunks come in. */
struct file {
	bool open;
	bool hidden;  /* no member of the index */
	bool vouched; /* so far */
	uint64_t size;
	uint64_t end_off;
	uint32_t first; /* chunk */
	struct buf name;
};

struct table {
	struct index_builder *builder;
	uint64_t data_end;
	struct file file;
	struct index_chunk *chunks;
	uint64_t *offsets; /* where pieces begin, all of them; .in_off of chunks is among them */
	size_t nchunks, chunks_cap, noffsets, offsets_cap;
	const char *why;
};

static void table_release(struct table *table)
{
	free(table->chunks);
	free(table->offsets);
	buf_release(&table->file.name);
}

static int lie(struct table *table, const char *why)
{
	table->why = why;
	return -EINVAL;
}

static int grow(void *array, size_t len, size_t *cap, size_t size)
{
	void **at = array;

	if (len < *cap)
		return 0;
	size_t grown = MAX(len + len / 2, (size_t)64);
	void *mem = reallocarray(*at, grown, size);
	if (!mem)
		return -ENOMEM;
	*at = mem;
	*cap = grown;
	return 0;
}

/* --- the chunks of a file --- */

/* What vouches for the chunk's bytes: its own digest, or that of a file in one piece. */
static bool find_digest(const struct toc_entry *entry, struct index_chunk *chunk)
{
	const struct digest *digest = &entry->chunk_digest;

	if (digest->algo == DIGEST_NONE && entry->type == TOC_REG && entry->chunk_size == 0)
		digest = &entry->digest;
	if (digest->algo != DIGEST_SHA256)
		return entry->zeros;
	memcpy(chunk->digest, digest->bytes, sizeof(chunk->digest));
	return true;
}

/* .len is what the entry says until the file ends. */
static int add_chunk(struct table *table, const struct toc_entry *entry)
{
	struct file *file = &table->file;
	struct index_chunk chunk = {
		.off = entry->chunk_off,
		.in_off = entry->off,
		.len = (uint32_t)MIN(entry->chunk_size, UINT32_MAX),
		.in_len = entry->zeros ? IN_LEN_ZEROS : IN_LEN_UNKNOWN,
		.inner_off = (uint32_t)MIN(entry->inner_off, UINT32_MAX),
	};

	if (entry->off >= table->data_end || entry->end_off > table->data_end)
		return lie(table, "a file's data would lie outside of it");
	if (!find_digest(entry, &chunk) || entry->inner_off > TOC_CHUNK_MAX)
		file->vouched = false;
	int r = grow(&table->chunks, table->nchunks, &table->chunks_cap, sizeof(chunk));
	if (r == 0)
		r = grow(&table->offsets, table->noffsets, &table->offsets_cap,
			 sizeof(*table->offsets));
	if (r < 0)
		return r;
	table->chunks[table->nchunks++] = chunk;
	table->offsets[table->noffsets++] = entry->off;
	return 0;
}

/* The chunk's length, now that the place of what follows it is known. */
static int settle_chunk(struct table *table, struct index_chunk *chunk, uint64_t end)
{
	if (chunk->off >= end)
		return lie(table, "a file's chunks lie over each other");
	if (chunk->len && chunk->len != MIN(end - chunk->off, UINT32_MAX))
		return lie(table, "a file's chunks do not make up the file");
	if (end - chunk->off > TOC_CHUNK_MAX && chunk->in_len != IN_LEN_ZEROS)
		table->file.vouched = false;
	if (end - chunk->off > UINT32_MAX)
		table->file.vouched = false;
	chunk->len = (uint32_t)MIN(end - chunk->off, UINT32_MAX);
	return 0;
}

static int settle_end(struct table *table, struct index_chunk *last)
{
	const struct file *file = &table->file;

	if (file->end_off == 0 || last->in_len == IN_LEN_ZEROS)
		return 0;
	if (file->end_off <= last->in_off)
		return lie(table, "a file's data end before they begin");
	last->in_len = (uint32_t)MIN(file->end_off - last->in_off, UINT32_MAX);
	return 0;
}

/* No more of the file comes. */
static int end_file(struct table *table)
{
	struct file *file = &table->file;
	size_t first = file->first;
	int r = 0;

	if (!file->open)
		return 0;
	file->open = false;
	if (table->nchunks == first)
		return 0;
	if (table->chunks[first].off != 0)
		return lie(table, "a file's chunks do not make up the file");
	for (size_t i = first; r == 0 && i < table->nchunks; i++) {
		bool last = i + 1 == table->nchunks;
		r = settle_chunk(table, &table->chunks[i],
				 last ? file->size : table->chunks[i + 1].off);
	}
	if (r == 0)
		r = settle_end(table, &table->chunks[table->nchunks - 1]);
	if (r < 0)
		return r;
	if (!file->vouched)
		table->nchunks = first;
	if (!file->hidden)
		index_builder_file_chunks(table->builder, file->first,
					  (uint32_t)(table->nchunks - first));
	return 0;
}

static int begin_file(struct table *table, const struct toc_entry *entry)
{
	struct file *file = &table->file;

	file->open = true;
	file->hidden = toc_is_hidden(entry->name);
	file->vouched = !file->hidden;
	file->size = entry->size;
	file->end_off = entry->end_off;
	file->first = (uint32_t)table->nchunks;
	buf_clear(&file->name);
	int r = buf_puts(&file->name, entry->name);
	if (r < 0)
		return r == -EFBIG ? lie(table, "a name in it is too long") : r;
	return entry->size ? add_chunk(table, entry) : 0;
}

static int go_on(struct table *table, const struct toc_entry *entry)
{
	const struct file *file = &table->file;

	if (!file->open || file->size == 0 || strcmp(file->name.data, entry->name) != 0)
		return lie(table, "a chunk in it belongs to no file");
	return add_chunk(table, entry);
}

/* --- members --- */

static uint32_t format_of(enum toc_type type)
{
	switch (type) {
	case TOC_DIR:
		return S_IFDIR;
	case TOC_SYMLINK:
		return S_IFLNK;
	case TOC_CHAR:
		return S_IFCHR;
	case TOC_BLOCK:
		return S_IFBLK;
	case TOC_FIFO:
		return S_IFIFO;
	default:
		return S_IFREG;
	}
}

static int add_member(struct table *table, const struct toc_entry *entry)
{
	const struct tar_member member = {
		.path = entry->name,
		.hard_link = entry->type == TOC_HARDLINK ? entry->link : NULL,
		.symlink = entry->type == TOC_SYMLINK ? entry->link : NULL,
		.mode = format_of(entry->type) | (entry->mode & 07777),
		.uid = entry->uid,
		.gid = entry->gid,
		.size = entry->type == TOC_REG ? entry->size : 0,
		.mtime_sec = entry->mtime_sec,
		.mtime_nsec = entry->mtime_nsec,
		.rdev_major = entry->major,
		.rdev_minor = entry->minor,
		.xattrs = entry->xattrs,
		.nxattrs = entry->nxattrs,
	};

	int r = index_builder_member(table->builder, &member);
	if (r == -EFBIG)
		return lie(table, "it names too many files and directories");
	return r == -EINVAL ? lie(table, "a member has an impossible name") : r;
}

static int add_entry(void *arg, const struct toc_entry *entry)
{
	struct table *table = arg;

	if (entry->type == TOC_CHUNK)
		return go_on(table, entry);
	int r = end_file(table);
	if (r == 0 && !(entry->type == TOC_REG && toc_is_hidden(entry->name)))
		r = add_member(table, entry);
	if (r == 0 && entry->type == TOC_REG)
		r = begin_file(table, entry);
	return r;
}

/* --- where pieces end --- */

static int compare_offsets(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return (a > b) - (a < b);
}

/* The first place after OFF where another piece begins, or the data end. */
static uint64_t next_offset(const struct table *table, uint64_t off)
{
	size_t low = 0, high = table->noffsets;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (table->offsets[middle] <= off)
			low = middle + 1;
		else
			high = middle;
	}
	return low < table->noffsets ? table->offsets[low] : table->data_end;
}

/* No encoder makes more of so many bytes: what follows them in a member need not be fetched. */
static uint64_t encoded_bound(uint64_t len)
{
	return len + len / 8 + 4096;
}

static int settle_lengths(struct table *table)
{
	if (table->noffsets)
		qsort(table->offsets, table->noffsets, sizeof(*table->offsets), compare_offsets);
	for (size_t i = 0; i < table->nchunks; i++) {
		struct index_chunk *chunk = &table->chunks[i];
		uint64_t gap = next_offset(table, chunk->in_off) - chunk->in_off;

		if (chunk->in_len == IN_LEN_ZEROS)
			continue;
		if (chunk->in_len != IN_LEN_UNKNOWN && chunk->in_len > gap)
			return lie(table, "files lie over each other");
		gap = MIN(gap, encoded_bound((uint64_t)chunk->inner_off + chunk->len));
		chunk->in_len = (uint32_t)MIN(gap, chunk->in_len);
	}
	return 0;
}

static int check_zeros(struct table *table)
{
	int r = toc_zeros_check(table->chunks, table->nchunks);

	return r == -EINVAL ? lie(table, "what it calls zeros has another digest") : r;
}

int toc_index(const struct buf *json, uint64_t data_end, struct index_builder *builder,
	      const char **ret_why)
{
	CLEANUP(table_release)
	struct table table = {
		.builder = builder,
		.data_end = data_end,
		.file.name.max = 64 * KIB,
	};

	int r = toc_each(json, add_entry, &table, &table.why);
	if (r == 0)
		r = end_file(&table);
	if (r == 0)
		r = settle_lengths(&table);
	if (r == 0)
		r = check_zeros(&table);
	if (r == 0)
		r = index_builder_chunks(builder, table.chunks, (uint32_t)table.nchunks);
	if (r < 0)
		*ret_why = table.why ? table.why : "memory is short";
	return r;
}

/* --- the whole --- */

int toc_check(const struct index *index, const char **ret_why)
{
	uint32_t ino, found;

	for (uint32_t n = 0; index_link_out(index, n, &ino) == 0; n++) {
		const char *target;
		size_t len;

		int r = index_target(index, ino, &target, &len);
		if (r < 0)
			return r;
		if (len == 0)
			continue;
		r = index_resolve(index, target, len, &found);
		if (r < 0 && r != -ENOENT && r != -ENOTDIR)
			return r;
		if (r == 0) {
			*ret_why = "a hard link in it leads to what is not there yet";
			return -EINVAL;
		}
	}
	return 0;
}

bool toc_is_hidden(const char *path)
{
	static const char *const names[] = {"stargz.index.json", ".prefetch.landmark",
					    ".no.prefetch.landmark"};

	while (*path == '/' || (path[0] == '.' && path[1] == '/'))
		path++;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(path, names[i]) == 0)
			return true;
	return false;
}
