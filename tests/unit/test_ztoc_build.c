/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ztoc, writing: what is put in comes out again, and what a ztoc cannot say is refused. That others
 * can read it, too, is for tests/fs/test_index_push.py.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "regfs/ztoc.h"

#define NSPANS 3

#define AUTO_BUILDER CLEANUP(ztoc_builder_cleanup)

static const struct tar_xattr xattrs[] = {
	{"user.empty", "", 0},
	{"security.capability", "\1\0\0\2\0\x20\0", 7},
};

static const struct tar_member members[] = {
	{.path = "./", .mode = S_IFDIR | 01777, .data_off = 512, .mtime_sec = 1700000000},
	{.path = "file",
	 .mode = S_IFREG | 04755,
	 .uid = 70000,
	 .gid = UINT32_MAX,
	 .size = 3000,
	 .data_off = 1024,
	 .mtime_sec = 1700000000,
	 .mtime_nsec = 120000000,
	 .xattrs = xattrs,
	 .nxattrs = ARRAY_SIZE(xattrs)},
	{.path = "old", .mode = S_IFREG, .data_off = 5000, .mtime_sec = -62167219200},
	{.path = "young",
	 .mode = S_IFREG,
	 .data_off = 5512,
	 .mtime_sec = 253402300799,
	 .mtime_nsec = 999999999},
	{.path = "link", .mode = S_IFLNK | 0777, .symlink = "to/\xff", .data_off = 6144},
	{.path = "hard", .mode = S_IFREG | 0644, .hard_link = "./file", .data_off = 6656},
	{.path = "null",
	 .mode = S_IFCHR | 0666,
	 .rdev_major = 1,
	 .rdev_minor = 3,
	 .data_off = 7168},
	{.path = "disk", .mode = S_IFBLK | 0660, .rdev_major = 1 << 20, .data_off = 7680},
	{.path = "fifo", .mode = S_IFIFO | 0600, .data_off = 8192},
};

static void assert_same(const struct tar_member *got, const struct tar_member *wanted)
{
	assert_string_equal(got->path, wanted->path);
	assert_int_equal(got->mode, wanted->mode);
	assert_int_equal(got->uid, wanted->uid);
	assert_int_equal(got->gid, wanted->gid);
	assert_int_equal(got->size, wanted->size);
	if (S_ISREG(wanted->mode) && !wanted->hard_link)
		assert_int_equal(got->data_off, wanted->data_off);
	assert_int_equal(got->mtime_sec, wanted->mtime_sec);
	assert_int_equal(got->mtime_nsec, wanted->mtime_nsec);
	assert_int_equal(got->rdev_major, wanted->rdev_major);
	assert_int_equal(got->rdev_minor, wanted->rdev_minor);
	assert_int_equal(!got->symlink, !wanted->symlink);
	assert_int_equal(!got->hard_link, !wanted->hard_link);
	if (wanted->symlink)
		assert_string_equal(got->symlink, wanted->symlink);
	if (wanted->hard_link)
		assert_string_equal(got->hard_link, wanted->hard_link);
	assert_int_equal(got->nxattrs, wanted->nxattrs);
	for (size_t i = 0; i < wanted->nxattrs; i++) {
		assert_string_equal(got->xattrs[i].name, wanted->xattrs[i].name);
		assert_int_equal(got->xattrs[i].len, wanted->xattrs[i].len);
		assert_memory_equal(got->xattrs[i].value, wanted->xattrs[i].value,
				    wanted->xattrs[i].len);
	}
}

/* Spans of a layer of 9,000 bytes that decodes to 3 * 4 MiB. */
static void make_spans(struct ztoc_span spans[static NSPANS], uint8_t *window)
{
	for (size_t i = 0; i < CODEC_WINDOW; i++)
		window[i] = (uint8_t)(i * 7);
	for (unsigned i = 0; i < NSPANS; i++) {
		struct ztoc_span *span = &spans[i];

		*span = (struct ztoc_span){
			.point = {.in_off = 20 + i * 3000,
				  .out_off = i * ZTOC_SPAN_SIZE,
				  .bits = i},
			.in_begin = 20 + i * 3000 - (i ? 1 : 0),
			.in_end = 20 + (i + 1) * 3000,
			.out_end = (i + 1) * ZTOC_SPAN_SIZE,
		};
		digest_of(DIGEST_SHA256, &i, sizeof(i), &span->digest);
		if (i) {
			span->point.window = window;
			span->point.window_len = i == 1 ? CODEC_WINDOW : 100;
		}
	}
}

static struct ztoc_builder *whole_builder(const struct ztoc_span spans[static NSPANS])
{
	struct ztoc_builder *builder = ztoc_builder_new(CODEC_GZIP, ZTOC_SPAN_SIZE);

	assert_non_null(builder);
	for (size_t i = 0; i < ARRAY_SIZE(members); i++)
		assert_int_equal(ztoc_builder_member(builder, &members[i]), 0);
	for (size_t i = 0; i < NSPANS; i++)
		assert_int_equal(ztoc_builder_span(builder, &spans[i]), 0);
	return builder;
}

static void test_all_comes_out_again(void **state)
{
	static uint8_t window[CODEC_WINDOW];
	static struct ztoc_scratch scratch;
	struct ztoc_span spans[NSPANS], span;
	AUTO_BUF struct buf bytes = BUF_INIT(ZTOC_MAX);
	struct tar_member member;
	const char *why = "";
	struct ztoc ztoc;

	(void)state;
	make_spans(spans, window);
	AUTO_BUILDER struct ztoc_builder *builder = whole_builder(spans);
	assert_int_equal(ztoc_builder_finish(builder, &bytes), 0);
	assert_int_equal(ztoc_open(bytes.data, bytes.len, &ztoc, &why), 0);
	assert_int_equal(ztoc.codec, CODEC_GZIP);
	assert_int_equal(ztoc.blob_size, 9020);
	assert_int_equal(ztoc.decoded_size, 3 * ZTOC_SPAN_SIZE);
	assert_int_equal(ztoc.span_size, ZTOC_SPAN_SIZE);
	assert_int_equal(ztoc.nfiles, ARRAY_SIZE(members));
	assert_int_equal(ztoc.nspans, NSPANS);
	for (uint32_t i = 0; i < ARRAY_SIZE(members); i++) {
		assert_int_equal(ztoc_member(&ztoc, i, &scratch, &member, &why), 0);
		assert_same(&member, &members[i]);
	}
	for (uint32_t i = 0; i < NSPANS; i++) {
		size_t len = spans[i].point.window_len;

		assert_int_equal(ztoc_span(&ztoc, i, &span, &why), 0);
		assert_int_equal(span.point.in_off, spans[i].point.in_off);
		assert_int_equal(span.point.out_off, spans[i].point.out_off);
		assert_int_equal(span.point.bits, spans[i].point.bits);
		assert_int_equal(span.in_begin, spans[i].in_begin);
		assert_int_equal(span.in_end, spans[i].in_end);
		assert_int_equal(span.out_end, spans[i].out_end);
		assert_true(digest_equal(&span.digest, &spans[i].digest));
		/* what is nearest to the point is at the window's end */
		assert_true(span.point.window_len >= len);
		assert_memory_equal(span.point.window + span.point.window_len - len, window, len);
	}
}

/* What was in the buffer stays, and the places in the document are its own. */
static void test_appended(void **state)
{
	static uint8_t window[CODEC_WINDOW];
	struct ztoc_span spans[NSPANS];
	AUTO_BUF struct buf alone = BUF_INIT(ZTOC_MAX);
	AUTO_BUF struct buf behind = BUF_INIT(ZTOC_MAX);

	(void)state;
	make_spans(spans, window);
	AUTO_BUILDER struct ztoc_builder *one = whole_builder(spans);
	AUTO_BUILDER struct ztoc_builder *two = whole_builder(spans);
	assert_int_equal(ztoc_builder_finish(one, &alone), 0);
	assert_int_equal(buf_puts(&behind, "odd"), 0);
	assert_int_equal(ztoc_builder_finish(two, &behind), 0);
	assert_int_equal(behind.len, alone.len + 3);
	assert_memory_equal(behind.data, "odd", 3);
	assert_memory_equal(behind.data + 3, alone.data, alone.len);
}

static void test_too_large(void **state)
{
	static uint8_t window[CODEC_WINDOW];
	struct ztoc_span spans[NSPANS];
	AUTO_BUF struct buf bytes = BUF_INIT(60000);

	(void)state;
	make_spans(spans, window);
	AUTO_BUILDER struct ztoc_builder *builder = whole_builder(spans);
	assert_int_equal(buf_puts(&bytes, "odd"), 0);
	assert_int_equal(ztoc_builder_finish(builder, &bytes), -EFBIG);
	assert_int_equal(bytes.len, 3);
}

static void test_plain_tar(void **state)
{
	AUTO_BUILDER struct ztoc_builder *builder = ztoc_builder_new(CODEC_PLAIN, 1000);
	AUTO_BUF struct buf bytes = BUF_INIT(ZTOC_MAX);
	struct ztoc_span span = {.in_end = 1000, .out_end = 1000};
	const char *why = "";
	struct ztoc ztoc;

	(void)state;
	digest_of(DIGEST_SHA256, "", 0, &span.digest);
	assert_int_equal(ztoc_builder_span(builder, &span), 0);
	span.point.in_off = span.point.out_off = span.in_begin = 1000;
	span.in_end = span.out_end = 1700;
	assert_int_equal(ztoc_builder_span(builder, &span), 0);
	assert_int_equal(ztoc_builder_finish(builder, &bytes), 0);
	assert_int_equal(ztoc_open(bytes.data, bytes.len, &ztoc, &why), 0);
	assert_int_equal(ztoc.codec, CODEC_PLAIN);
	assert_int_equal(ztoc.blob_size, 1700);
	assert_int_equal(ztoc.nspans, 2);
	assert_int_equal(ztoc.nfiles, 0);
	assert_int_equal(ztoc_span(&ztoc, 1, &span, &why), 0);
	assert_int_equal(span.point.out_off, 1000);
	assert_int_equal(span.in_end, 1700);
	/* its spans are all of one size */
	span.point.in_off = span.point.out_off = span.in_begin = 1700;
	span.in_end = span.out_end = 1800;
	assert_int_equal(ztoc_builder_span(builder, &span), -EINVAL);
}

static void test_members_that_cannot_be_told(void **state)
{
	static const struct tar_xattr xattr = {"user.a", "b", 1};
	static struct tar_xattr many[ZTOC_XATTRS_MAX + 1];
	AUTO_BUILDER struct ztoc_builder *builder = ztoc_builder_new(CODEC_GZIP, ZTOC_SPAN_SIZE);
	struct tar_member member = {.path = "a", .mode = S_IFREG, .sparse = true};

	(void)state;
	assert_int_equal(ztoc_builder_member(builder, &member), -EINVAL);
	member.sparse = false;
	/* years of five digits, and those before 0000 */
	member.mtime_sec = 253402300800;
	assert_int_equal(ztoc_builder_member(builder, &member), -EINVAL);
	member.mtime_sec = -62167219201;
	assert_int_equal(ztoc_builder_member(builder, &member), -EINVAL);
	member.mtime_sec = INT64_MAX;
	assert_int_equal(ztoc_builder_member(builder, &member), -EINVAL);
	member.mtime_sec = 0;
	for (size_t i = 0; i < ARRAY_SIZE(many); i++)
		many[i] = xattr;
	member.xattrs = many;
	member.nxattrs = ARRAY_SIZE(many);
	assert_int_equal(ztoc_builder_member(builder, &member), -EINVAL);
	member.nxattrs--;
	assert_int_equal(ztoc_builder_member(builder, &member), 0);
}

static void test_spans_that_do_not_follow(void **state)
{
	static uint8_t window[CODEC_WINDOW];
	struct ztoc_span spans[NSPANS], odd;
	AUTO_BUILDER struct ztoc_builder *builder = ztoc_builder_new(CODEC_GZIP, ZTOC_SPAN_SIZE);
	AUTO_BUF struct buf bytes = BUF_INIT(ZTOC_MAX);

	(void)state;
	make_spans(spans, window);
	assert_int_equal(ztoc_builder_finish(builder, &bytes), -EINVAL);
	assert_int_equal(ztoc_builder_span(builder, &spans[1]), -EINVAL);
	assert_int_equal(ztoc_builder_span(builder, &spans[0]), 0);
	assert_int_equal(ztoc_builder_span(builder, &spans[0]), -EINVAL);
	assert_int_equal(ztoc_builder_span(builder, &spans[2]), -EINVAL);

#define REFUSED(field, value)                                                                      \
	odd = spans[1];                                                                            \
	odd.field = (value);                                                                       \
	assert_int_equal(ztoc_builder_span(builder, &odd), -EINVAL)
	REFUSED(point.bits, 8);
	REFUSED(point.bits, 0); /* then the byte before does not belong to it */
	REFUSED(point.member, true);
	REFUSED(point.in_off, spans[1].point.in_off + 1);
	REFUSED(point.out_off, spans[1].point.out_off - 1);
	REFUSED(in_begin, spans[1].in_begin - 1);
	REFUSED(in_end, spans[1].point.in_off);
	REFUSED(out_end, spans[1].point.out_off);
	REFUSED(in_end, spans[1].in_begin + ZTOC_SPAN_MAX + 1);
	REFUSED(out_end, spans[1].point.out_off + ZTOC_SPAN_MAX + 1);
	REFUSED(digest.algo, DIGEST_NONE);
	assert_int_equal(ztoc_builder_span(builder, &spans[1]), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_comes_out_again),
		cmocka_unit_test(test_appended),
		cmocka_unit_test(test_too_large),
		cmocka_unit_test(test_plain_tar),
		cmocka_unit_test(test_members_that_cannot_be_told),
		cmocka_unit_test(test_spans_that_do_not_follow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
