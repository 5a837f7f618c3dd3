// SPDX-License-Identifier: Apache-2.0
/* ztoc, reading: documents that tests/fs/soci.py wrote (the fuzzer's corpus), whole, cut off, and
 * damaged. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "regfs/toc.h"
#include "regfs/ztoc.h"

#define CORPUS "tests/fuzz/corpus/ztoc/"

struct document {
	char *bytes;
	size_t len;
	struct ztoc ztoc;
	struct ztoc_scratch scratch;
};

static struct document *load(const char *path)
{
	struct document *document = calloc(1, sizeof(*document));
	FILE *file = fopen(path, "rb");
	struct stat st;

	assert_non_null(document);
	assert_non_null(file);
	assert_int_equal(fstat(fileno(file), &st), 0);
	document->len = (size_t)st.st_size;
	/* as large as it is: sanitizers see what is read behind it */
	document->bytes = malloc(document->len);
	assert_non_null(document->bytes);
	assert_int_equal(fread(document->bytes, 1, document->len, file), document->len);
	fclose(file);
	return document;
}

static struct document *open_document(const char *path)
{
	struct document *document = load(path);
	const char *why = "";

	if (ztoc_open(document->bytes, document->len, &document->ztoc, &why) < 0)
		fail_msg("%s: %s", path, why);
	return document;
}

static void document_free(struct document *document)
{
	free(document->bytes);
	free(document);
}

static struct tar_member member_of(struct document *document, uint32_t n)
{
	struct tar_member member;
	const char *why = "";

	if (ztoc_member(&document->ztoc, n, &document->scratch, &member, &why) < 0)
		fail_msg("member %u: %s", n, why);
	return member;
}

/* --- whole ones --- */

static void reads_members(void **state)
{
	struct document *document = open_document(CORPUS "gzip");
	struct tar_member member;

	(void)state;
	assert_int_equal(document->ztoc.nfiles, 12);
	member = member_of(document, 2);
	assert_string_equal(member.path, "etc/os-release");
	assert_int_equal(member.mode, S_IFREG | 0640);
	assert_int_equal(member.uid, 1000);
	assert_int_equal(member.gid, 100);
	assert_int_equal(member.size, 140);
	assert_int_equal(member.data_off, 3 * 512);
	assert_int_equal(member.mtime_sec, 1700000000);
	assert_int_equal(member.mtime_nsec, 0);
	member = member_of(document, 1);
	assert_string_equal(member.path, "etc/");
	assert_int_equal(member.mode, S_IFDIR | 0755);
	member = member_of(document, 4);
	assert_int_equal(member.mode, S_IFLNK | 0777);
	assert_string_equal(member.symlink, "etc/os-release");
	assert_null(member.hard_link);
	member = member_of(document, 5);
	assert_int_equal(member.mode & S_IFMT, S_IFREG);
	assert_string_equal(member.hard_link, "etc/os-release");
	assert_int_equal(member.size, 0);
	member = member_of(document, 7);
	assert_int_equal(member.mode & S_IFMT, S_IFBLK);
	assert_int_equal(member.rdev_major, 8);
	assert_int_equal(member.rdev_minor, 1);
	document_free(document);
}

/* They are PAX records; only some are extended attributes. */
static void reads_xattrs(void **state)
{
	struct document *document = open_document(CORPUS "gzip");
	struct tar_member member = member_of(document, 9);

	(void)state;
	assert_int_equal(member.mode, S_IFREG | 04755);
	assert_int_equal(member.mtime_nsec, 250000000);
	assert_int_equal(member.nxattrs, 2);
	assert_string_equal(member.xattrs[0].name, "user.a");
	assert_int_equal(member.xattrs[0].len, 2);
	assert_memory_equal(member.xattrs[0].value, "v1", 2);
	assert_string_equal(member.xattrs[1].name, "user.b");
	assert_false(member.sparse);
	document_free(document);
	document = open_document(CORPUS "sparse");
	assert_true(member_of(document, 11).sparse);
	document_free(document);
}

static void reads_spans_of_gzip(void **state)
{
	struct document *document = open_document(CORPUS "gzip-points");
	const char *why = NULL;
	struct ztoc_span span;

	(void)state;
	assert_int_equal(document->ztoc.codec, CODEC_GZIP);
	assert_int_equal(document->ztoc.nspans, 2);
	/* the first point is not in this document: it is behind a gzip header */
	assert_int_equal(ztoc_span(&document->ztoc, 0, &span, &why), 0);
	assert_int_equal(span.in_begin, 10);
	assert_int_equal(span.point.out_off, 0);
	assert_int_equal(span.point.window_len, 0);
	uint64_t out_end = span.out_end, in_end = span.in_end;
	assert_int_equal(ztoc_span(&document->ztoc, 1, &span, &why), 0);
	assert_int_equal(span.point.out_off, out_end);
	assert_int_equal(span.point.in_off, in_end);
	assert_int_equal(span.in_begin, in_end - (span.point.bits ? 1 : 0));
	assert_int_equal(span.point.window_len, CODEC_WINDOW);
	assert_int_equal(span.in_end, document->ztoc.blob_size);
	assert_int_equal(span.out_end, document->ztoc.decoded_size);
	assert_int_equal(ztoc_span(&document->ztoc, 2, &span, &why), -EINVAL);
	document_free(document);
}

static void reads_spans_of_plain(void **state)
{
	struct document *document = open_document(CORPUS "plain");
	uint64_t size = document->ztoc.blob_size;
	const char *why = NULL;
	struct ztoc_span span;

	(void)state;
	assert_int_equal(document->ztoc.codec, CODEC_PLAIN);
	assert_int_equal(document->ztoc.span_size, 4096);
	assert_int_equal(document->ztoc.nspans, (size + 4095) / 4096);
	assert_int_equal(ztoc_span(&document->ztoc, 1, &span, &why), 0);
	assert_int_equal(span.in_begin, 4096);
	assert_int_equal(span.out_end, 8192);
	assert_int_equal(ztoc_span(&document->ztoc, document->ztoc.nspans - 1, &span, &why), 0);
	assert_int_equal(span.in_end, size);
	document_free(document);
}

/* --- an index of it --- */

static int index_of(const struct document *document, struct buf *file, struct index *ret,
		    const char **ret_why)
{
	CLEANUP(index_builder_cleanup) struct index_builder *builder = index_builder_new();
	struct index_info info = {.by_toc = true,
				  .by_spans = true,
				  .blob_size = document->ztoc.blob_size,
				  .decoded_size = document->ztoc.decoded_size,
				  .codec = document->ztoc.codec};

	assert_non_null(builder);
	int r = ztoc_index(&document->ztoc, builder, ret_why);
	if (r < 0)
		return r;
	assert_int_equal(index_builder_finish(builder, &info, file), 0);
	assert_int_equal(index_open(file->data, file->len, ret), 0);
	return 0;
}

static void makes_an_index(void **state)
{
	struct document *document = open_document(CORPUS "gzip-points");
	AUTO_BUF struct buf file = BUF_INIT(MIB);
	const struct index_inode stream = {.nchunks = 2};
	struct index_chunk chunk;
	struct codec_point point;
	struct index_inode inode;
	const char *why = NULL;
	struct index index;
	uint32_t ino;

	(void)state;
	assert_int_equal(index_of(document, &file, &index, &why), 0);
	assert_true(index.info.by_toc && index.info.by_spans);
	assert_int_equal(index.info.nchunks, 2);
	assert_int_equal(index_resolve(&index, "b", 1, &ino), 0);
	assert_int_equal(index_inode(&index, ino, &inode), 0);
	assert_int_equal(inode.size, 1);
	assert_int_equal(inode.nchunks, 0);
	assert_true(inode.data_off > 60000);
	assert_int_equal(index_chunk(&index, &stream, 1, &chunk), 0);
	assert_int_equal(index_point(&index, 1, NULL, &point), 0);
	assert_int_equal(chunk.off, point.out_off);
	assert_int_equal(chunk.in_off + (point.bits ? 1 : 0), point.in_off);
	document_free(document);
}

static void sparse_data_are_nowhere(void **state)
{
	struct document *document = open_document(CORPUS "sparse");
	AUTO_BUF struct buf file = BUF_INIT(MIB);
	struct index_inode inode;
	const char *why = NULL;
	struct index index;
	uint32_t ino;

	(void)state;
	assert_int_equal(index_of(document, &file, &index, &why), 0);
	assert_int_equal(index_resolve(&index, "big", 3, &ino), 0);
	assert_int_equal(index_inode(&index, ino, &inode), 0);
	assert_true(inode.data_off == ZTOC_NOWHERE);
	assert_int_equal(inode.size, 3000);
	document_free(document);
}

static void finds_circles(void **state)
{
	struct document *document = open_document(CORPUS "circle");
	AUTO_BUF struct buf file = BUF_INIT(MIB);
	const char *why = NULL;
	struct index index;

	(void)state;
	assert_int_equal(index_of(document, &file, &index, &why), 0);
	assert_int_equal(toc_check(&index, &why), -EINVAL);
	assert_non_null(why);
	document_free(document);
}

/* --- what is no document --- */

/* All of a damaged document is looked at; the sanitizers judge what is read. */
static void walk(struct document *document, const char **ret_why)
{
	struct tar_member member;
	struct ztoc_span span;

	document->scratch.strings = 0;
	for (uint32_t n = 0; n < document->ztoc.nspans; n++)
		assert_int_equal(ztoc_span(&document->ztoc, n, &span, ret_why), 0);
	for (uint32_t n = 0; n < MIN(document->ztoc.nfiles, 100u); n++) {
		*ret_why = NULL;
		if (ztoc_member(&document->ztoc, n, &document->scratch, &member, ret_why) < 0)
			assert_non_null(*ret_why);
		else
			assert_true(strlen(member.path) < document->len);
	}
}

static void cut_off(void **state)
{
	struct document *document = load(CORPUS "gzip");

	(void)state;
	for (size_t len = 0; len < document->len; len++) {
		char *cut = malloc(len ? len : 1);
		const char *why = NULL;
		struct ztoc ztoc;

		assert_non_null(cut);
		memcpy(cut, document->bytes, len);
		/* what is left out of it may be a member's string, which is seen later */
		if (ztoc_open(cut, len, &ztoc, &why) < 0)
			assert_non_null(why);
		else
			assert_true(len > document->len / 2);
		free(cut);
	}
	document_free(document);
}

static void damaged(void **state)
{
	static const uint8_t values[] = {0, 1, 0x7f, 0x80, 0xff};
	struct document *document = load(CORPUS "gzip");

	(void)state;
	for (size_t i = 0; i < document->len; i++) {
		char right = document->bytes[i];

		for (size_t v = 0; v < ARRAY_SIZE(values); v++) {
			const char *why = NULL;

			document->bytes[i] = (char)values[v];
			if (ztoc_open(document->bytes, document->len, &document->ztoc, &why) < 0)
				assert_non_null(why);
			else
				walk(document, &why);
		}
		document->bytes[i] = right;
	}
	document_free(document);
}

/* A layer of one span and N members, of which the first is a link with a long target. */
static struct document *link_and_files(uint32_t n, const char *target)
{
	struct document *document = calloc(1, sizeof(*document));
	struct ztoc_builder *builder = ztoc_builder_new(CODEC_PLAIN, 4 * MIB);
	struct ztoc_span span = {.in_end = 2 * MIB, .out_end = 2 * MIB};
	struct tar_member member = {.path = "a", .mode = S_IFLNK | 0777, .symlink = target};
	AUTO_BUF struct buf bytes = BUF_INIT(ZTOC_MAX);
	const char *why = "";

	assert_non_null(document);
	digest_of(DIGEST_SHA256, "", 0, &span.digest);
	for (uint32_t i = 0; i < n; i++) {
		assert_int_equal(ztoc_builder_member(builder, &member), 0);
		member = (struct tar_member){.path = "a", .mode = S_IFREG | 0644};
	}
	assert_int_equal(ztoc_builder_span(builder, &span), 0);
	assert_int_equal(ztoc_builder_finish(builder, &bytes), 0);
	ztoc_builder_free(builder);
	document->len = bytes.len;
	document->bytes = buf_steal(&bytes, NULL);
	assert_int_equal(ztoc_open(document->bytes, document->len, &document->ztoc, &why), 0);
	return document;
}

static void put32(char *at, uint32_t value)
{
	value = htole32(value);
	memcpy(at, &value, sizeof(value));
}

/* A few bytes refer to the same string again and again, which does not count for what they are. */
static void same_string_many_times(void **state)
{
	enum { MEMBERS = 600 };
	AUTO_FREE char *target = calloc(1, MIB);
	const char *why = NULL;
	struct index index;

	(void)state;
	memset(target, 'x', MIB - 1);
	struct document *document = link_and_files(MEMBERS, target);
	char *files = document->bytes + document->ztoc.priv.files;
	char *type = memmem(document->bytes, document->len, "symlink", sizeof("symlink"));
	uint32_t first;

	/* a file with a link's target */
	put32(type - sizeof(uint32_t), strlen("reg"));
	memcpy(type, "reg", sizeof("reg"));
	memcpy(&first, files, sizeof(first));
	for (uint32_t i = 1; i < MEMBERS; i++)
		put32(files + i * sizeof(first), le32toh(first) - i * (uint32_t)sizeof(first));
	AUTO_BUF struct buf file = BUF_INIT(MIB);
	assert_int_equal(index_of(document, &file, &index, &why), -EINVAL);
	assert_string_equal(why, "its members are too large together");
	document_free(document);
}

/* A plain tar's spans cost a document nothing but their digests, which may be the same one. */
static void too_many_spans(void **state)
{
	const uint64_t written = htole64(4 * MIB), lie = htole64(1);
	struct document *document = link_and_files(1, "a");
	const char *why = NULL;

	(void)state;
	char *at = memmem(document->bytes, document->len, &written, sizeof(written));
	assert_non_null(at);
	memcpy(at, &lie, sizeof(lie));
	assert_int_equal(ztoc_open(document->bytes, document->len, &document->ztoc, &why), -EINVAL);
	assert_string_equal(why, "it has too many spans");
	document_free(document);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_members),
		cmocka_unit_test(reads_xattrs),
		cmocka_unit_test(reads_spans_of_gzip),
		cmocka_unit_test(reads_spans_of_plain),
		cmocka_unit_test(makes_an_index),
		cmocka_unit_test(sparse_data_are_nowhere),
		cmocka_unit_test(finds_circles),
		cmocka_unit_test(cut_off),
		cmocka_unit_test(damaged),
		cmocka_unit_test(same_string_many_times),
		cmocka_unit_test(too_many_spans),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
