/* SPDX-License-Identifier: Apache-2.0 */
/* tar_help: see its header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <sys/stat.h>

#include "tar_help.h"

const struct tar_member plain_member = {
	.path = "dir/file", .mode = S_IFREG | 0644, .size = 5, .mtime_sec = 1700000000};

/* --- scanning --- */

struct memory {
	const uint8_t *data;
	size_t len, off;
	uint64_t zeros_left, read;
	const struct scan_options *options;
};

static const uint8_t zeros[64 * KIB];

static ssize_t memory_read(void *arg, const void **ret)
{
	struct memory *memory = arg;
	const struct scan_options *options = memory->options;
	size_t end = memory->off < options->head ? options->head : memory->len;
	size_t len = end - memory->off;

	if (memory->off == options->head && memory->zeros_left) {
		len = MIN(memory->zeros_left, sizeof(zeros));
		memory->zeros_left -= len;
		*ret = zeros;
	} else {
		if (options->piece)
			len = MIN(len, options->piece);
		if (len == 0 && options->fail_with)
			return options->fail_with;
		*ret = memory->data + memory->off;
		memory->off += len;
	}
	memory->read += len;
	return (ssize_t)len;
}

static int64_t memory_skip(void *arg, int64_t len)
{
	struct memory *memory = arg;
	uint64_t step = 0;

	if (memory->options->fail_with)
		return memory->options->fail_with;
	if (memory->options->skip_fails_with)
		return memory->options->skip_fails_with;
	if (memory->off == memory->options->head && memory->zeros_left) {
		step = MIN((uint64_t)len, memory->zeros_left);
		memory->zeros_left -= step;
	} else if (memory->off != memory->options->head) {
		size_t end = memory->off < memory->options->head ? memory->options->head
								 : memory->len;

		step = MIN((uint64_t)len, end - memory->off);
		memory->off += step;
	}
	memory->read += step;
	return (int64_t)step;
}

static char *copy(const char *str)
{
	return str ? strdup(str) : NULL;
}

static void *copy_bytes(const void *bytes, size_t len)
{
	void *copied = malloc(len + 1);

	if (len)
		memcpy(copied, bytes, len);
	return copied;
}

static int keep_member(void *arg, const struct tar_member *member)
{
	struct seen *seen = arg;
	struct tar_xattr *xattrs = calloc(member->nxattrs + 1, sizeof(*xattrs));
	struct tar_member *kept;

	seen->members = reallocarray(seen->members, seen->count + 1, sizeof(*member));
	kept = &seen->members[seen->count++];
	*kept = *member;
	kept->path = copy(member->path);
	kept->hard_link = copy(member->hard_link);
	kept->symlink = copy(member->symlink);
	kept->extents = copy_bytes(member->extents, member->nextents * sizeof(*member->extents));
	for (size_t i = 0; i < member->nxattrs; i++) {
		xattrs[i].name = copy(member->xattrs[i].name);
		xattrs[i].value = copy_bytes(member->xattrs[i].value, member->xattrs[i].len);
		xattrs[i].len = member->xattrs[i].len;
	}
	kept->xattrs = xattrs;
	return 0;
}

void scan_bytes(const void *data, size_t len, const struct scan_options *options, struct seen *ret)
{
	static const struct scan_options all;
	struct memory memory = {.data = data, .len = len, .options = options ? options : &all};
	const struct tar_source source = {
		.read = memory_read,
		.skip = memory.options->skip ? memory_skip : NULL,
		.arg = &memory,
	};

	*ret = (struct seen){0};
	memory.zeros_left = memory.options->zeros;
	ret->rc = tar_scan(&source, keep_member, ret, &ret->marker, ret->why, sizeof(ret->why));
	ret->source_read = memory.read;
}

void seen_release(struct seen *seen)
{
	for (size_t i = 0; i < seen->count; i++) {
		struct tar_member *member = &seen->members[i];

		for (size_t x = 0; x < member->nxattrs; x++) {
			free((char *)member->xattrs[x].name);
			free((void *)member->xattrs[x].value);
		}
		free((char *)member->path);
		free((char *)member->hard_link);
		free((char *)member->symlink);
		free((void *)member->extents);
		free((void *)member->xattrs);
	}
	free(seen->members);
}

const struct tar_member *seen_find(const struct seen *seen, const char *path)
{
	for (size_t i = 0; i < seen->count; i++)
		if (strcmp(seen->members[i].path, path) == 0)
			return &seen->members[i];
	fail_msg("no member %s: %s", path, seen->why);
	return NULL;
}

/* --- making --- */

void fill_name(char *name, size_t len, const char *pattern)
{
	for (size_t i = 0; i < len; i++)
		name[i] = pattern[i % strlen(pattern)];
	name[len] = '\0';
}

void add_bytes(struct buf *archive, const void *data, size_t len)
{
	assert_int_equal(buf_add(archive, data, len), 0);
}

void add_member(struct buf *archive, const struct tar_member *member, const void *data)
{
	assert_int_equal(tar_header(member, archive), 0);
	if (data) {
		add_bytes(archive, data, member->size);
		add_bytes(archive, zeros, tar_padding(member->size));
	}
}

void add_end(struct buf *archive)
{
	add_bytes(archive, zeros, TAR_TRAILER);
}

void fix_checksum(char *block)
{
	char text[8];
	unsigned int sum = 0;

	memset(block + 148, ' ', 8);
	for (size_t i = 0; i < 512; i++)
		sum += (uint8_t)block[i];
	snprintf(text, sizeof(text), "%06o", sum & 0777777);
	memcpy(block + 148, text, 7);
}

static void put(char *block, size_t off, const char *text)
{
	if (text)
		memcpy(block + off, text, strlen(text));
}

void add_raw(struct buf *archive, const struct raw_header *header)
{
	char block[512] = {0};

	put(block, 0, header->name);
	put(block, 100, "0000644");
	put(block, 108, header->uid ? header->uid : "0000000");
	put(block, 116, "0000000");
	put(block, 124, header->size ? header->size : "00000000000");
	put(block, 136, header->mtime ? header->mtime : "00000000000");
	block[156] = header->type;
	put(block, 157, header->linkname);
	if (header->magic) {
		put(block, 257, header->magic);
	} else {
		put(block, 257, "ustar");
		put(block, 263, "00");
	}
	fix_checksum(block);
	add_bytes(archive, block, sizeof(block));
}

void add_pax(struct buf *archive, const char *const *records, size_t count)
{
	AUTO_BUF struct buf body = BUF_INIT(MIB);
	char size[12];

	for (size_t i = 0; i < count; i++) {
		size_t len = strlen(records[i]) + 2;

		/* Two digits are enough for a test's records, and so they stay. */
		len += len + 1 < 10 ? 1 : len + 2 < 100 ? 2 : 3;
		assert_int_equal(buf_printf(&body, "%zu %s\n", len, records[i]), 0);
	}
	snprintf(size, sizeof(size), "%011zo", body.len);
	add_raw(archive, &(struct raw_header){.name = "pax", .type = 'x', .size = size});
	add_bytes(archive, body.data, body.len);
	add_bytes(archive, zeros, tar_padding(body.len));
}

/* --- comparing --- */

static void assert_same_string(const char *a, const char *b)
{
	assert_int_equal(a == NULL, b == NULL);
	if (a)
		assert_string_equal(a, b);
}

void assert_same_member(const struct tar_member *a, const struct tar_member *b)
{
	assert_same_string(a->path, b->path);
	assert_same_string(a->hard_link, b->hard_link);
	assert_same_string(a->symlink, b->symlink);
	assert_int_equal(a->mode, b->mode);
	assert_int_equal(a->uid, b->uid);
	assert_int_equal(a->gid, b->gid);
	assert_int_equal(a->size, b->size);
	assert_true(a->mtime_sec == b->mtime_sec);
	assert_int_equal(a->mtime_nsec, b->mtime_nsec);
	assert_int_equal(a->rdev_major, b->rdev_major);
	assert_int_equal(a->rdev_minor, b->rdev_minor);
	assert_int_equal(a->nxattrs, b->nxattrs);
	for (size_t i = 0; i < a->nxattrs; i++) {
		assert_string_equal(a->xattrs[i].name, b->xattrs[i].name);
		assert_int_equal(a->xattrs[i].len, b->xattrs[i].len);
		assert_memory_equal(a->xattrs[i].value, b->xattrs[i].value, a->xattrs[i].len);
	}
}
