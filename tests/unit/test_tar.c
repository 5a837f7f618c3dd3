/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tar: what tar_header writes, tar_scan reads; and archives made by hand for what no tool at hand
 * writes. Damage is in test_tar_faults.c, real tools are in test_tar_tools.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <locale.h>
#include <pthread.h>
#include <sys/stat.h>

#include "tar_help.h"

#define GIB (1024ULL * MIB)

/* --- written, then read --- */

static void check_round_trip(const struct tar_member *member)
{
	AUTO_BUF struct buf archive = BUF_INIT(ARCHIVE_MAX);
	struct scan_options options = {.skip = true};
	CLEANUP(seen_release) struct seen seen;
	uint64_t size = S_ISREG(member->mode) && !member->hard_link ? member->size : 0;
	size_t headers;

	add_member(&archive, member, NULL);
	headers = archive.len;
	options.head = headers;
	options.zeros = size + tar_padding(size);
	add_member(&archive, &plain_member, "after");
	add_end(&archive);
	scan_bytes(archive.data, archive.len, &options, &seen);
	assert_string_equal(seen.why, "");
	assert_int_equal(seen.rc, 0);
	assert_true(seen.marker);
	assert_int_equal(seen.count, 2);
	assert_same_member(&seen.members[0], member);
	assert_int_equal(seen.members[0].header_off, 0);
	assert_int_equal(seen.members[0].data_off, headers);
	assert_false(seen.members[0].sparse);
	assert_same_member(&seen.members[1], &plain_member);
	assert_int_equal(seen.members[1].header_off, headers + options.zeros);
}

static void kinds(void **state)
{
	static const struct tar_member members[] = {
		{.path = "f", .mode = S_IFREG | 06755, .size = 1, .uid = 1, .gid = 2},
		{.path = "d/", .mode = S_IFDIR | 01777, .mtime_sec = 1},
		{.path = "d", .mode = S_IFDIR},
		{.path = "l", .mode = S_IFLNK | 0777, .symlink = "../target"},
		{.path = "h", .mode = S_IFREG | 0600, .hard_link = "./f"},
		{.path = "c", .mode = S_IFCHR | 0620, .rdev_major = 5, .rdev_minor = 300},
		{.path = "b", .mode = S_IFBLK, .rdev_major = 07777777, .rdev_minor = 07777777},
		{.path = "p", .mode = S_IFIFO | 0600},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(members); i++)
		check_round_trip(&members[i]);
}

/* All lengths over the limits of NAME and PREFIX, with slashes where they can and cannot help. */
static void names_of_all_lengths(void **state)
{
	static const char *const patterns[] = {"x",	"abcdefg/",  "a//b",  "dir.name.long/",
					       "\xff/", "e\xcc\x81", "a/\xc3"};
	char name[600];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(patterns); i++)
		for (size_t len = 90; len < 300; len += len == 110 ? 30 : 1) {
			struct tar_member file = plain_member, link = plain_member,
					  hard = plain_member;

			fill_name(name, len, patterns[i]);
			/* A file's name that ends in a slash is a directory's. */
			if (name[len - 1] == '/')
				name[len - 1] = 'z';
			file.path = name;
			check_round_trip(&file);
			link.mode = S_IFLNK | 0777;
			link.symlink = name;
			link.size = 0;
			check_round_trip(&link);
			hard.hard_link = name;
			hard.size = 0;
			check_round_trip(&hard);
		}
}

static void odd_names(void **state)
{
	static const char *const names[] = {"\n", "a\tb\"\\",	  "\xff\xfe", "e\xcc\x81",
					    "./", "/abs",	  "a/../b",   ".wh.x",
					    " ",  "\xed\xa0\x80", "._mac"};
	char name[200];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct tar_member member = plain_member;

		member.path = names[i];
		if (ends_with(member.path, "/")) {
			member.mode = S_IFDIR;
			member.size = 0;
		}
		check_round_trip(&member);
		/* And in a PAX record. */
		fill_name(name, 199, names[i]);
		member.path = name;
		if (name[198] != '/')
			check_round_trip(&member);
	}
}

/* A UTF-8 locale makes libarchive normalise PAX names. */
static void names_in_a_utf8_locale(void **state)
{
	(void)state;
	if (!setlocale(LC_ALL, "C.UTF-8"))
		skip();
	odd_names(state);
	setlocale(LC_ALL, "C");
}

static void numbers(void **state)
{
	static const uint32_t ids[] = {0, 1000, 07777777, 010000000, UINT32_MAX - 1, UINT32_MAX};
	static const uint64_t sizes[] = {0,	      1,       511,	    512,
					 8 * GIB - 1, 8 * GIB, 8 * GIB + 1, 4000 * GIB + 77};
	static const int64_t secs[] = {0,	   1,  077777777777, 0100000000000, INT64_MAX / 4,
				       -INT32_MAX, -1, -2,	     -62135596800};
	static const uint32_t nsecs[] = {0, 1, 500000000, 999999999, 120000000};
	struct tar_member member;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		member = plain_member;
		member.uid = ids[i];
		member.gid = ids[ARRAY_SIZE(ids) - 1 - i];
		check_round_trip(&member);
	}
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		member = plain_member;
		member.size = sizes[i];
		check_round_trip(&member);
	}
	for (size_t i = 0; i < ARRAY_SIZE(secs) * ARRAY_SIZE(nsecs); i++) {
		member = plain_member;
		member.mtime_sec = secs[i / ARRAY_SIZE(nsecs)];
		member.mtime_nsec = nsecs[i % ARRAY_SIZE(nsecs)];
		/* "-0.5": libarchive loses the sign of a zero. */
		if (member.mtime_sec != -1 || member.mtime_nsec == 0)
			check_round_trip(&member);
	}
}

static void xattrs(void **state)
{
	static const struct tar_xattr many[] = {
		{"user.text", "value", 5},
		{"security.capability", "\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20},
		{"user.newline", "\n=\n", 3},
		{"user.empty", "", 0},
		{"user.caf\xc3\xa9", "\xff", 1},
	};
	struct tar_member member = plain_member;
	AUTO_FREE char *large = calloc(1, 70000);

	(void)state;
	member.xattrs = many;
	member.nxattrs = ARRAY_SIZE(many);
	check_round_trip(&member);
	/* Lengths at which the length of the record's length changes. */
	for (size_t len = 60; len < 110; len++) {
		member.xattrs = &(struct tar_xattr){"user.l", large, len};
		member.nxattrs = 1;
		check_round_trip(&member);
	}
	member.xattrs = &(struct tar_xattr){"user.large", large, 65536};
	check_round_trip(&member);
	member.mode = S_IFDIR | 0755;
	member.size = 0;
	check_round_trip(&member);
}

static void refused_headers(void **state)
{
	struct tar_member member = plain_member;
	AUTO_BUF struct buf out = BUF_INIT(ARCHIVE_MAX);
	AUTO_BUF struct buf small = BUF_INIT(511);

	(void)state;
	member.path = "";
	assert_int_equal(tar_header(&member, &out), -EINVAL);
	member = plain_member;
	member.mode = S_IFSOCK;
	assert_int_equal(tar_header(&member, &out), -EINVAL);
	member.mode = S_IFLNK;
	assert_int_equal(tar_header(&member, &out), -EINVAL);
	member = plain_member;
	member.xattrs = &(struct tar_xattr){"user.a=b", "", 0};
	member.nxattrs = 1;
	assert_int_equal(tar_header(&member, &out), -EINVAL);
	member = plain_member;
	member.mode = S_IFBLK;
	member.rdev_minor = 010000000;
	assert_int_equal(tar_header(&member, &out), -EINVAL);
	assert_int_equal(out.len, 0);
	assert_int_equal(tar_header(&plain_member, &small), -EFBIG);
	assert_int_equal(small.len, 0);
}

/* --- by hand --- */

static void scan_one(const struct buf *archive, struct seen *ret)
{
	scan_bytes(archive->data, archive->len, NULL, ret);
	assert_string_equal(ret->why, "");
	assert_int_equal(ret->rc, 0);
	assert_true(ret->count >= 1);
}

static void base_256_numbers(void **state)
{
	AUTO_BUF struct buf archive = BUF_INIT(ARCHIVE_MAX);
	CLEANUP(seen_release) struct seen seen;
	char *block;

	(void)state;
	add_raw(&archive, &(struct raw_header){.name = "a", .type = '0'});
	block = archive.data;
	memcpy(block + 108, "\x80\0\0\0\x7f\xff\xff\xff", 8);	    /* uid 2^31 - 1 */
	memcpy(block + 116, "\xff\xff\xff\xff\xff\xff\xff\xfe", 8); /* gid -2 */
	memcpy(block + 124, "\x80\0\0\0\0\0\0\0\0\0\0\3", 12);	    /* size 3 */
	memcpy(block + 136, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfb", 12); /* -5 */
	fix_checksum(block);
	add_bytes(&archive, "abc", 3);
	add_bytes(&archive, (char[509]){0}, 509);
	add_end(&archive);
	scan_one(&archive, &seen);
	assert_int_equal(seen.members[0].uid, INT32_MAX);
	assert_int_equal(seen.members[0].gid, UINT32_MAX - 1);
	assert_int_equal(seen.members[0].size, 3);
	assert_true(seen.members[0].mtime_sec == -5);
}

static void owners_beyond_32_bits(void **state)
{
	static const char *const record[] = {"uid=4294967296"};
	AUTO_BUF struct buf archive = BUF_INIT(ARCHIVE_MAX);
	CLEANUP(seen_release) struct seen seen;

	(void)state;
	add_pax(&archive, record, 1);
	add_raw(&archive, &(struct raw_header){.name = "a", .type = '0'});
	scan_bytes(archive.data, archive.len, NULL, &seen);
	assert_int_equal(seen.rc, -EINVAL);
	assert_non_null(strstr(seen.why, "32 bits"));
}

/* Sizes that some writers give to members without data. */
static void sizes_without_data(void **state)
{
	static const char types[] = "12345";

	(void)state;
	for (size_t i = 0; types[i]; i++) {
		AUTO_BUF struct buf archive = BUF_INIT(ARCHIVE_MAX);
		CLEANUP(seen_release) struct seen seen;

		add_raw(&archive, &(struct raw_header){.name = "a",
						       .type = types[i],
						       .size = "00000001000",
						       .linkname = "b"});
		add_member(&archive, &plain_member, "hello");
		add_end(&archive);
		scan_one(&archive, &seen);
		assert_int_equal(seen.count, 2);
		assert_int_equal(seen.members[0].size, 0);
		assert_same_member(&seen.members[1], &plain_member);
	}
}

/* In PAX a hard link may have data, in GNU's incremental archives a directory: it is passed over.
 */
static void data_without_size(void **state)
{
	static const char *const records[] = {"size=5"};
	static const struct raw_header headers[] = {
		{.name = "a", .type = '1', .linkname = "b"},
		{.name = "a", .type = '5'},
		{.name = "a", .type = 'D', .magic = "ustar  "},
		{.name = "a", .type = '6'},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(headers); i++) {
		AUTO_BUF struct buf archive = BUF_INIT(ARCHIVE_MAX);
		CLEANUP(seen_release) struct seen seen;

		add_pax(&archive, records, 1);
		add_raw(&archive, &headers[i]);
		add_bytes(&archive, "12345", 5);
		add_bytes(&archive, (char[507]){0}, 507);
		add_member(&archive, &plain_member, "hello");
		add_end(&archive);
		scan_one(&archive, &seen);
		assert_int_equal(seen.count, 2);
		assert_int_equal(seen.members[0].size, 0);
		assert_same_member(&seen.members[1], &plain_member);
	}
}

/* Only a regular file's size goes into its header. */
static void sizes_not_written(void **state)
{
	static const struct tar_member members[] = {
		{.path = "d", .mode = S_IFDIR, .size = 77},
		{.path = "h", .mode = S_IFREG, .hard_link = "x", .size = 77},
		{.path = "l", .mode = S_IFLNK, .symlink = "x", .size = 9 * GIB},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
		AUTO_BUF struct buf archive = BUF_INIT(ARCHIVE_MAX);

		add_member(&archive, &members[i], NULL);
		assert_int_equal(archive.len, 512);
		assert_memory_equal(archive.data + 124, "00000000000", 12);
	}
}

static void old_directories(void **state)
{
	AUTO_BUF struct buf archive = BUF_INIT(ARCHIVE_MAX);
	CLEANUP(seen_release) struct seen seen;

	(void)state;
	add_raw(&archive, &(struct raw_header){.name = "d/", .type = '\0', .magic = ""});
	add_raw(&archive, &(struct raw_header){.name = "f", .type = '\0', .magic = ""});
	add_end(&archive);
	scan_one(&archive, &seen);
	assert_int_equal(seen.members[0].mode, S_IFDIR | 0644);
	assert_int_equal(seen.members[1].mode, S_IFREG | 0644);
}

static void pax_xattrs(void **state)
{
	static const char *const records[] = {
		"SCHILY.xattr.user.a=first",
		"LIBARCHIVE.xattr.user.b%20c=aGVsbG8=", "SCHILY.xattr.user.a=last",
		"RHT.security.selinux=label", "comment=ignored"};
	AUTO_BUF struct buf archive = BUF_INIT(ARCHIVE_MAX);
	CLEANUP(seen_release) struct seen seen;
	const struct tar_xattr *found;

	(void)state;
	add_pax(&archive, records, ARRAY_SIZE(records));
	add_raw(&archive, &(struct raw_header){.name = "a", .type = '0'});
	add_end(&archive);
	scan_one(&archive, &seen);
	assert_int_equal(seen.members[0].nxattrs, 3);
	found = seen.members[0].xattrs;
	assert_string_equal(found[0].name, "user.b c");
	assert_memory_equal(found[0].value, "hello", found[0].len);
	assert_string_equal(found[1].name, "user.a");
	assert_int_equal(found[1].len, 4);
	assert_memory_equal(found[1].value, "last", 4);
	assert_string_equal(found[2].name, "security.selinux");
}

static void global_headers(void **state)
{
	static const char *const records[] = {"comment=0123456789abcdef"};
	AUTO_BUF struct buf archive = BUF_INIT(ARCHIVE_MAX);
	CLEANUP(seen_release) struct seen seen;

	(void)state;
	add_pax(&archive, records, 1);
	archive.data[156] = 'g';
	fix_checksum(archive.data);
	add_member(&archive, &plain_member, "hello");
	add_end(&archive);
	scan_one(&archive, &seen);
	assert_int_equal(seen.count, 1);
	assert_int_equal(seen.members[0].header_off, 0);
	assert_int_equal(seen.members[0].data_off, 1536);
	assert_same_member(&seen.members[0], &plain_member);
}

static void *scan_in_thread(void *arg)
{
	(void)arg;
	kinds(NULL);
	return NULL;
}

static void small_stacks(void **state)
{
	pthread_attr_t attr;
	pthread_t thread;

	(void)state;
	pthread_attr_init(&attr);
	assert_int_equal(pthread_attr_setstacksize(&attr, 256 * KIB), 0);
	assert_int_equal(pthread_create(&thread, &attr, scan_in_thread, NULL), 0);
	pthread_join(thread, NULL);
	pthread_attr_destroy(&attr);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kinds),
		cmocka_unit_test(names_of_all_lengths),
		cmocka_unit_test(odd_names),
		cmocka_unit_test(names_in_a_utf8_locale),
		cmocka_unit_test(numbers),
		cmocka_unit_test(xattrs),
		cmocka_unit_test(refused_headers),
		cmocka_unit_test(base_256_numbers),
		cmocka_unit_test(owners_beyond_32_bits),
		cmocka_unit_test(sizes_without_data),
		cmocka_unit_test(data_without_size),
		cmocka_unit_test(sizes_not_written),
		cmocka_unit_test(old_directories),
		cmocka_unit_test(pax_xattrs),
		cmocka_unit_test(global_headers),
		cmocka_unit_test(small_stacks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
