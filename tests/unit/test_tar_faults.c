/* SPDX-License-Identifier: Apache-2.0 */
/* tar: lies, damage and ends; errors of the source and of the callback. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <inttypes.h>

#include "tar_help.h"

/* Were it believed, the file would show the bytes of the members behind it. */
static void lying_sparse_sizes(void **state)
{
	static const char *const lies[][3] = {
		{"GNU.sparse.realsize=100000"},
		{"SCHILY.realsize=100000"},
		{"GNU.sparse.size=5000", "GNU.sparse.map=0,10,4000,600"},
		{"GNU.sparse.size=5000", "GNU.sparse.map=4000,600,0,10"},
		{"GNU.sparse.realsize=-5"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		AUTO_BUF struct buf archive = BUF_INIT(ARCHIVE_MAX);
		CLEANUP(seen_release) struct seen seen;

		add_pax(&archive, lies[i], lies[i][1] ? 2 : 1);
		add_raw(&archive,
			&(struct raw_header){.name = "a", .type = '0', .size = "00000000012"});
		add_bytes(&archive, (char[512]){0}, 512);
		add_member(&archive, &plain_member, "hello");
		add_end(&archive);
		scan_bytes(archive.data, archive.len, NULL, &seen);
		if (seen.rc == 0)
			print_error("%s was believed\n", lies[i][0]);
		assert_int_equal(seen.rc, -EINVAL);
		assert_true(seen.count <= 1);
	}
}

static void make_three(struct buf *archive, size_t offsets[static 4])
{
	struct tar_member member = plain_member;
	char name[300], data[1000] = {0};

	for (size_t i = 0; i < 3; i++) {
		fill_name(name, 120 * i + 10, "n");
		member.path = name;
		member.size = 500 * i;
		offsets[i] = archive->len;
		add_member(archive, &member, data);
	}
	offsets[3] = archive->len;
	add_end(archive);
}

/* Every prefix: a clean end between members or in what fills up the last one's last block, or a
 * sentence with the member's place. */
static void cut_off_archives(void **state)
{
	AUTO_BUF struct buf archive = BUF_INIT(ARCHIVE_MAX);
	size_t offsets[4], at = 0;

	(void)state;
	make_three(&archive, offsets);
	for (size_t len = 0; len <= archive.len; len += len % 512 == 511 ? 1 : 73) {
		CLEANUP(seen_release) struct seen seen;
		char place[40];

		if (len % 512 > 438)
			len -= len % 512 - 511;
		while (at < 3 && len >= offsets[at + 1])
			at++;
		scan_bytes(archive.data, len, &(struct scan_options){.piece = 700}, &seen);
		snprintf(place, sizeof(place), "at byte %zu: ", offsets[at]);
		if (len == offsets[at] || len >= offsets[3] + 512) {
			assert_int_equal(seen.rc, 0);
			assert_int_equal(seen.count, at);
			assert_int_equal(seen.marker, len == archive.len);
			assert_int_equal(seen.source_read, len);
		} else if (at < 3 && len >= offsets[at + 1] - tar_padding(500 * at)) {
			assert_int_equal(seen.rc, 0);
			assert_int_equal(seen.count, at + 1);
			assert_false(seen.marker);
			assert_int_equal(seen.source_read, len);
		} else {
			assert_int_equal(seen.rc, -EINVAL);
			assert_non_null(strstr(seen.why, place));
		}
	}
}

static void damaged_headers(void **state)
{
	AUTO_BUF struct buf archive = BUF_INIT(ARCHIVE_MAX);
	size_t offsets[4];

	(void)state;
	make_three(&archive, offsets);
	for (size_t i = 0; i < 512; i += 7) {
		CLEANUP(seen_release) struct seen seen;

		archive.data[offsets[1] + i] ^= 4;
		scan_bytes(archive.data, archive.len, NULL, &seen);
		archive.data[offsets[1] + i] ^= 4;
		/* Spaces around the checksum may be NULs. */
		if (seen.rc == 0 && i >= 148 && i < 156)
			continue;
		assert_int_equal(seen.rc, -EINVAL);
		assert_int_equal(seen.count, 1);
	}
}

/* A name or a size may be lost: what is left is not what was meant. */
static void damaged_pax_records(void **state)
{
	static const char *const damage[] = {"99", "0x", "1 ", "  "};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(damage); i++) {
		static const char *const records[] = {"path=some/other/name"};
		AUTO_BUF struct buf archive = BUF_INIT(ARCHIVE_MAX);
		CLEANUP(seen_release) struct seen seen;

		add_pax(&archive, records, 1);
		add_member(&archive, &plain_member, "hello");
		add_end(&archive);
		memcpy(archive.data + 512, damage[i], 2);
		scan_bytes(archive.data, archive.len, NULL, &seen);
		assert_int_equal(seen.rc, -EINVAL);
		assert_int_equal(seen.count, 0);
	}
}

static void what_is_no_archive(void **state)
{
	char noise[5000];

	(void)state;
	for (size_t i = 0; i < sizeof(noise); i++)
		noise[i] = (char)(i * i * 31 >> 3 | 1);
	for (size_t len = 1; len <= sizeof(noise); len += 833) {
		CLEANUP(seen_release) struct seen seen;

		scan_bytes(noise, len, NULL, &seen);
		assert_int_equal(seen.rc, -EINVAL);
		assert_non_null(strstr(seen.why, "at byte 0: "));
	}
}

static void bytes_behind_the_end(void **state)
{
	AUTO_BUF struct buf archive = BUF_INIT(ARCHIVE_MAX);
	size_t offsets[4];

	(void)state;
	make_three(&archive, offsets);
	for (int i = 0; i < 100; i++)
		add_bytes(&archive, "garbage that is hashed all the same", 35);
	for (size_t piece = 1; piece < 100000; piece = piece * 9 + 1) {
		CLEANUP(seen_release) struct seen seen;

		scan_bytes(archive.data, archive.len, &(struct scan_options){.piece = piece},
			   &seen);
		assert_int_equal(seen.rc, 0);
		assert_true(seen.marker);
		assert_int_equal(seen.count, 3);
		assert_int_equal(seen.source_read, archive.len);
	}
}

static void errors_of_the_source(void **state)
{
	AUTO_BUF struct buf archive = BUF_INIT(ARCHIVE_MAX);
	struct tar_member large = plain_member;

	(void)state;
	large.size = 100000;
	add_member(&archive, &large, NULL);
	for (int skips = 0; skips < 2; skips++) {
		const struct scan_options options = {.fail_with = -ETIMEDOUT, .skip = skips};
		CLEANUP(seen_release) struct seen seen;

		CLEANUP(seen_release) struct seen empty;

		scan_bytes(archive.data, archive.len, &options, &seen);
		assert_int_equal(seen.rc, -ETIMEDOUT);
		assert_string_equal(seen.why, "");
		scan_bytes(archive.data, 0, &options, &empty);
		assert_int_equal(empty.rc, -ETIMEDOUT);
	}
}

/* A skip that fails is no skip of nothing. */
static void errors_of_skipping(void **state)
{
	AUTO_BUF struct buf archive = BUF_INIT(ARCHIVE_MAX);
	AUTO_FREE char *data = calloc(1, 2 * MIB);
	CLEANUP(seen_release) struct seen seen;
	struct tar_member large = plain_member;

	(void)state;
	large.size = 2 * MIB;
	add_member(&archive, &large, data);
	add_end(&archive);
	scan_bytes(archive.data, archive.len, &(struct scan_options){.skip = true, .piece = 10240},
		   &seen);
	assert_int_equal(seen.rc, 0);
	seen_release(&seen);
	scan_bytes(archive.data, archive.len,
		   &(struct scan_options){.skip = true, .piece = 10240, .skip_fails_with = -EIO},
		   &seen);
	assert_int_equal(seen.rc, -EIO);
	assert_int_equal(seen.count, 1);
}

/* Larger than what libarchive gets at a time, so that a skip begins in what is at hand. */
static void large_blocks(void **state)
{
	AUTO_BUF struct buf archive = BUF_INIT(2 * ARCHIVE_MAX);
	AUTO_FREE char *data = calloc(1, 3 * MIB);
	struct tar_member large = plain_member;

	(void)state;
	large.size = 3 * MIB - 100;
	add_member(&archive, &large, data);
	add_member(&archive, &plain_member, "hello");
	add_member(&archive, &large, data);
	add_end(&archive);
	for (int skips = 0; skips < 2; skips++)
		for (size_t piece = 0; piece <= 2 * MIB; piece += MIB) {
			const struct scan_options options = {.skip = skips, .piece = piece};
			CLEANUP(seen_release) struct seen seen;

			scan_bytes(archive.data, archive.len, &options, &seen);
			assert_int_equal(seen.rc, 0);
			assert_int_equal(seen.count, 3);
			assert_int_equal(seen.source_read, archive.len);
		}
}

static ssize_t read_all(void *arg, const void **ret)
{
	struct buf *archive = arg;
	size_t len = archive->len;

	*ret = archive->data;
	archive->len = 0;
	return (ssize_t)len;
}

static int stop_at_second(void *arg, const struct tar_member *member)
{
	int *count = arg;

	(void)member;
	return ++*count == 2 ? -ECANCELED : 0;
}

static void callback_ends_the_scan(void **state)
{
	AUTO_BUF struct buf archive = BUF_INIT(ARCHIVE_MAX);
	struct buf rest;
	struct tar_source source = {.read = read_all, .arg = &rest};
	bool marker = true;
	size_t offsets[4];
	int count = 0;

	(void)state;
	make_three(&archive, offsets);
	rest = archive;
	assert_int_equal(tar_scan(&source, stop_at_second, &count, &marker, NULL, 0), -ECANCELED);
	assert_int_equal(count, 2);
	assert_true(marker); /* untouched */
	rest = (struct buf){.data = (char *)"x", .len = 1};
	assert_int_equal(tar_scan(&source, stop_at_second, &count, NULL, NULL, 0), -EINVAL);
}

/* A sparse map as long as the archive is not taken into memory. */
static void endless_headers(void **state)
{
	static const char *const records[] = {"GNU.sparse.major=1", "GNU.sparse.minor=0",
					      "GNU.sparse.realsize=4000000000000"};
	AUTO_BUF struct buf archive = BUF_INIT(64 * MIB);
	CLEANUP(seen_release) struct seen seen;

	(void)state;
	add_pax(&archive, records, ARRAY_SIZE(records));
	add_raw(&archive, &(struct raw_header){.name = "a", .type = '0', .size = "77777777777"});
	add_bytes(&archive, "99999999\n", 9);
	for (uint64_t off = 0; archive.len < 40 * MIB; off += 2)
		buf_printf(&archive, "%" PRIu64 "\n1\n", off);
	scan_bytes(archive.data, archive.len, NULL, &seen);
	assert_int_equal(seen.rc, -EINVAL);
	assert_non_null(strstr(seen.why, "Headers too large"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lying_sparse_sizes),	cmocka_unit_test(cut_off_archives),
		cmocka_unit_test(damaged_headers),	cmocka_unit_test(damaged_pax_records),
		cmocka_unit_test(what_is_no_archive),	cmocka_unit_test(bytes_behind_the_end),
		cmocka_unit_test(errors_of_the_source), cmocka_unit_test(errors_of_skipping),
		cmocka_unit_test(large_blocks),		cmocka_unit_test(callback_ends_the_scan),
		cmocka_unit_test(endless_headers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
