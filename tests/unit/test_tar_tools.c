/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tar: what GNU tar writes, tar_scan reads, in every format and sparse form; what tar_header
 * writes, GNU tar and Python's tarfile read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "tar_help.h"

#define LONG_NAME 200

struct work {
	char dir[64];  /* holds all */
	char tree[80]; /* a directory to archive, or to extract to */
	char file[80]; /* an archive */
};

static int setup(void **state)
{
	const char *base = getenv("TMPDIR");
	struct work *work = calloc(1, sizeof(*work));

	assert_non_null(work);
	snprintf(work->dir, sizeof(work->dir), "%.40s/tar_tools.XXXXXX", base ? base : "/tmp");
	assert_non_null(mkdtemp(work->dir));
	snprintf(work->tree, sizeof(work->tree), "%s/tree", work->dir);
	snprintf(work->file, sizeof(work->file), "%s/archive.tar", work->dir);
	assert_int_equal(mkdir(work->tree, 0755), 0);
	*state = work;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int teardown(void **state)
{
	struct work *work = *state;

	nftw(work->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(work);
	return 0;
}

/* Runs a shell command; its output is RET (may be NULL). */
static void run(const char *command, struct buf *ret)
{
	FILE *pipe = popen(command, "r");
	char chunk[4096];
	size_t len;

	assert_non_null(pipe);
	while ((len = fread(chunk, 1, sizeof(chunk), pipe)) > 0)
		if (ret)
			assert_int_equal(buf_add(ret, chunk, len), 0);
	if (pclose(pipe) != 0)
		fail_msg("failed: %s", command);
}

static bool have(const char *program)
{
	AUTO_FREE char *command = format("command -v %s >/dev/null 2>&1", program);

	return system(command) == 0;
}

/* --- GNU tar's archives --- */

static void put_file(int dir, const char *name, const char *data, size_t len, off_t off, off_t size)
{
	AUTO_CLOSE int fd = openat(dir, name, O_WRONLY | O_CREAT, 0640);

	assert_true(fd >= 0);
	assert_int_equal(pwrite_full(fd, data, len, off), (ssize_t)len);
	assert_int_equal(ftruncate(fd, size), 0);
}

static void set_time(int dir, const char *name, time_t sec, long nsec)
{
	const struct timespec times[2] = {{sec, nsec}, {sec, nsec}};

	assert_int_equal(utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW), 0);
}

static void make_tree(const struct work *work, bool long_names)
{
	AUTO_CLOSE int dir = open(work->tree, O_RDONLY | O_DIRECTORY);
	char name[LONG_NAME + 1];

	put_file(dir, "file", "hello", 5, 0, 5);
	put_file(dir, "empty", "", 0, 0, 0);
	put_file(dir, "\xff\xfe not utf-8", "x", 1, 0, 1);
	put_file(dir, "e\xcc\x81 not nfc", "y", 1, 0, 1);
	put_file(dir, "hole", "", 0, 0, 300000);
	put_file(dir, "sparse", "begin", 5, 0, 700000);
	for (int i = 1; i < 30; i++)
		put_file(dir, "sparse", "middle", 6, i * 20000, 700000);
	put_file(dir, "sparse at its end", "end", 3, 99997, 100000);
	assert_int_equal(mkdirat(dir, "dir", 0750), 0);
	put_file(dir, "dir/inner", "inner", 5, 0, 5);
	assert_int_equal(symlinkat("dir/inner", dir, "link"), 0);
	assert_int_equal(linkat(dir, "file", dir, "hard", 0), 0);
	assert_int_equal(fchmodat(dir, "empty", 06751, 0), 0);
	set_time(dir, "empty", -100, 500000000);
	set_time(dir, "link", 1500000000, 123456789);
	if (!long_names)
		return;
	assert_int_equal(mkfifoat(dir, "fifo", 0600), 0);
	fill_name(name, LONG_NAME, "name ");
	put_file(dir, name, "long", 4, 0, 4);
	assert_int_equal(symlinkat(name, dir, "long link"), 0);
	fill_name(name, LONG_NAME, "\xfe\xe9");
	put_file(dir, name, "bad", 3, 0, 3);
	fill_name(name, LONG_NAME, "e\xcc\x81-");
	put_file(dir, name, "nfd", 3, 0, 3);
}

/* The bytes that the extents name are the file's, and there are none between them. */
static void check_content(int dir, const struct tar_member *member, const char *archive)
{
	AUTO_CLOSE int fd = openat(dir, member->path, O_RDONLY);
	AUTO_FREE char *data = calloc(1, member->size + 1), *expected = malloc(member->size + 1);
	const struct tar_extent whole = {0, member->size};
	const struct tar_extent *extents = member->sparse ? member->extents : &whole;
	uint64_t off = member->data_off;

	for (size_t i = 0; i < (member->sparse ? member->nextents : 1); i++) {
		memcpy(data + extents[i].off, archive + off, extents[i].len);
		off += extents[i].len;
	}
	assert_int_equal(pread_full(fd, expected, member->size + 1, 0), (ssize_t)member->size);
	assert_memory_equal(data, expected, member->size);
}

static void check_member(int dir, const struct tar_member *member, const char *archive, bool pax)
{
	struct stat st, target;

	assert_int_equal(fstatat(dir, member->path, &st, AT_SYMLINK_NOFOLLOW), 0);
	assert_int_equal(member->mode, st.st_mode);
	assert_int_equal(member->uid, st.st_uid);
	assert_int_equal(member->gid, st.st_gid);
	/* Without fractions GNU tar rounds down. */
	assert_true(member->mtime_sec == st.st_mtim.tv_sec);
	assert_int_equal(member->mtime_nsec, pax ? st.st_mtim.tv_nsec : 0);
	if (member->hard_link) {
		assert_int_equal(fstatat(dir, member->hard_link, &target, 0), 0);
		assert_int_equal(target.st_ino, st.st_ino);
		return;
	}
	if (S_ISLNK(st.st_mode)) {
		char text[300] = {0};

		assert_true(readlinkat(dir, member->path, text, sizeof(text) - 1) > 0);
		assert_string_equal(member->symlink, text);
	}
	assert_int_equal(member->size, S_ISREG(st.st_mode) ? st.st_size : 0);
	if (S_ISREG(st.st_mode))
		check_content(dir, member, archive);
}

static void check_gnu_archive(struct work *work, const char *options, bool pax)
{
	AUTO_FREE char *command = format("tar %s --numeric-owner -C %s -cf %s . 2>/dev/null",
					 options, work->tree, work->file);
	AUTO_FREE char *archive = NULL;
	AUTO_CLOSE int dir = open(work->tree, O_RDONLY | O_DIRECTORY);
	CLEANUP(seen_release) struct seen seen;
	bool sparse = strstr(options, "--sparse");
	size_t len;

	run(command, NULL);
	assert_int_equal(read_file(work->file, 64 * MIB, &archive, &len), 0);
	scan_bytes(archive, len, &(struct scan_options){.piece = 10240, .skip = true}, &seen);
	assert_string_equal(seen.why, "");
	assert_int_equal(seen.rc, 0);
	assert_true(seen.marker);
	/* Twelve and ".", or sixteen with long names. */
	assert_int_equal(seen.count, faccessat(dir, "long link", F_OK, 0) == 0 ? 17 : 12);
	for (size_t i = 0; i < seen.count; i++)
		check_member(dir, &seen.members[i], archive, pax);
	assert_int_equal(seen_find(&seen, "./sparse")->sparse, sparse);
	assert_int_equal(seen_find(&seen, "./hole")->sparse, sparse);
	assert_int_equal(seen_find(&seen, "./hole")->nextents, 0);
	assert_false(seen_find(&seen, "./file")->sparse);
}

static void gnu_tar_formats(void **state)
{
	make_tree(*state, true);
	check_gnu_archive(*state, "--format=gnu", false);
	check_gnu_archive(*state, "--format=oldgnu", false);
	check_gnu_archive(*state, "--format=pax", true);
	check_gnu_archive(*state, "--format=gnu --sparse", false);
	check_gnu_archive(*state, "--format=oldgnu --sparse", false);
	check_gnu_archive(*state, "--format=pax --sparse --sparse-version=0.0", true);
	check_gnu_archive(*state, "--format=pax --sparse --sparse-version=0.1", true);
	check_gnu_archive(*state, "--format=pax --sparse --sparse-version=1.0", true);
}

static void gnu_tar_old_formats(void **state)
{
	const struct work *work = *state;
	AUTO_CLOSE int dir = open(work->tree, O_RDONLY | O_DIRECTORY);

	make_tree(work, false);
	/* They have no times before 1970. */
	set_time(dir, "empty", 100, 0);
	check_gnu_archive(*state, "--format=v7", false);
	check_gnu_archive(*state, "--format=ustar", false);
}

/* --- our archives --- */

static void write_archive(const struct work *work, const struct buf *archive)
{
	AUTO_CLOSE int fd = open(work->file, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_int_equal(pwrite_full(fd, archive->data, archive->len, 0), (ssize_t)archive->len);
}

/* The same header as GNU tar's, to the byte. */
static void same_as_gnu_tar(void **state)
{
	const struct work *work = *state;
	AUTO_CLOSE int dir = open(work->tree, O_RDONLY | O_DIRECTORY);
	AUTO_FREE char *command = format(
		"tar --format=ustar --numeric-owner --owner=7 --group=8 -C %s -cf %s file",
		work->tree, work->file);
	struct tar_member member = plain_member;
	AUTO_BUF struct buf archive = BUF_INIT(ARCHIVE_MAX);
	AUTO_FREE char *theirs = NULL;
	size_t len;

	put_file(dir, "file", "hello", 5, 0, 5);
	assert_int_equal(fchmodat(dir, "file", 0644, 0), 0);
	set_time(dir, "file", 1700000000, 0);
	run(command, NULL);
	assert_int_equal(read_file(work->file, MIB, &theirs, &len), 0);
	member.path = "file";
	member.uid = 7;
	member.gid = 8;
	add_member(&archive, &member, "hello");
	add_end(&archive);
	assert_true(len >= archive.len);
	assert_memory_equal(archive.data, theirs, archive.len);
}

static void add_all_kinds(struct buf *archive, char name[static 3 * LONG_NAME + 3])
{
	struct tar_member member = plain_member;
	char *bad = name + LONG_NAME + 1, *deep = bad + LONG_NAME + 1;

	fill_name(name, LONG_NAME, "n\xc3\xa4");
	fill_name(bad, LONG_NAME, "\xfe");
	fill_name(deep, LONG_NAME, "directory/");
	memcpy(deep + LONG_NAME - 1, "d", 1);
	member.uid = getuid();
	member.gid = getgid();
	member.path = "file";
	add_member(archive, &member, "hello");
	member.path = name;
	member.mtime_sec = -2;
	member.mtime_nsec = 500000000;
	add_member(archive, &member, "hello");
	member.path = bad;
	member.mtime_sec = 1700000000;
	add_member(archive, &member, "hello");
	member.path = deep;
	add_member(archive, &member, "hello");
	member.size = 0;
	member.path = "hard";
	member.hard_link = bad;
	add_member(archive, &member, NULL);
	member.hard_link = NULL;
	member.path = "link";
	member.mode = S_IFLNK | 0777;
	member.symlink = bad;
	add_member(archive, &member, NULL);
	member.path = "dir/";
	member.mode = S_IFDIR | 01750;
	add_member(archive, &member, NULL);
	member.path = "fifo";
	member.mode = S_IFIFO | 0600;
	add_member(archive, &member, NULL);
	add_end(archive);
}

static void gnu_tar_extracts(void **state)
{
	const struct work *work = *state;
	AUTO_CLOSE int dir = open(work->tree, O_RDONLY | O_DIRECTORY);
	AUTO_FREE char *command = format("tar --numeric-owner -xpf %s -C %s 2>&1", work->file,
					 work->tree);
	AUTO_BUF struct buf archive = BUF_INIT(ARCHIVE_MAX);
	AUTO_BUF struct buf output = BUF_INIT(ARCHIVE_MAX);
	CLEANUP(seen_release) struct seen seen;
	char names[3 * LONG_NAME + 3];

	add_all_kinds(&archive, names);
	write_archive(work, &archive);
	run(command, &output);
	/* It remarks on times before 1970. */
	if (output.data && !strstr(output.data, "implausibly old"))
		fail_msg("%s", output.data);
	scan_bytes(archive.data, archive.len, NULL, &seen);
	assert_int_equal(seen.count, 8);
	for (size_t i = 0; i < seen.count; i++)
		check_member(dir, &seen.members[i], archive.data, true);
}

static void hex(struct buf *out, const char *str)
{
	for (; str && *str; str++)
		buf_printf(out, "%02x", (uint8_t)*str);
}

static void python_reads(void **state)
{
	static const char script[] =
		"import os, sys, tarfile\n"
		"h = lambda s: os.fsencode(s).hex()\n"
		"for m in tarfile.open(sys.argv[1], 'r:', encoding='utf-8', "
		"errors='surrogateescape'):\n"
		"    print('%s %o %d %d %d %.1f %s %s' % (m.type.decode(), m.mode, m.uid, m.gid,\n"
		"          m.size, m.mtime, h(m.name), h(m.linkname)))\n";
	const struct work *work = *state;
	AUTO_FREE char *command = format("python3 - %s <<'EOS'\n%s\nEOS\n", work->file, script);
	AUTO_BUF struct buf archive = BUF_INIT(ARCHIVE_MAX);
	AUTO_BUF struct buf output = BUF_INIT(ARCHIVE_MAX);
	AUTO_BUF struct buf expected = BUF_INIT(ARCHIVE_MAX);
	CLEANUP(seen_release) struct seen seen;
	char names[3 * LONG_NAME + 3];

	if (!have("python3"))
		skip();
	add_all_kinds(&archive, names);
	archive.len -= TAR_TRAILER;
	add_member(&archive,
		   &(struct tar_member){.path = "owned",
					.mode = S_IFREG,
					.uid = 3000000000,
					.gid = 07777777,
					.mtime_sec = 1LL << 40},
		   NULL);
	add_end(&archive);
	write_archive(work, &archive);
	scan_bytes(archive.data, archive.len, NULL, &seen);
	for (size_t i = 0; i < seen.count; i++) {
		const struct tar_member *member = &seen.members[i];
		AUTO_FREE char *path = strdup(member->path);
		const char *type = member->hard_link	    ? "1"
				   : S_ISLNK(member->mode)  ? "2"
				   : S_ISDIR(member->mode)  ? "5"
				   : S_ISFIFO(member->mode) ? "6"
							    : "0";

		/* Python drops a directory's slash. */
		if (ends_with(path, "/"))
			path[strlen(path) - 1] = '\0';
		buf_printf(&expected, "%s %o %u %u %" PRIu64 " %.1f ", type, member->mode & 07777,
			   member->uid, member->gid, member->size,
			   (double)member->mtime_sec + member->mtime_nsec / 1e9);
		hex(&expected, path);
		buf_puts(&expected, " ");
		hex(&expected, member->hard_link ? member->hard_link : member->symlink);
		buf_puts(&expected, "\n");
	}
	run(command, &output);
	assert_string_equal(output.data, expected.data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(gnu_tar_formats, setup, teardown),
		cmocka_unit_test_setup_teardown(gnu_tar_old_formats, setup, teardown),
		cmocka_unit_test_setup_teardown(same_as_gnu_tar, setup, teardown),
		cmocka_unit_test_setup_teardown(gnu_tar_extracts, setup, teardown),
		cmocka_unit_test_setup_teardown(python_reads, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
