/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stage: names, links, moves, attributes, bytes with holes, and what a frozen tree refuses.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/xattr.h>

#include <cmocka.h>

#include "regfs/buf.h"
#include "../../src/stage_priv.h"

#define CHUNK (128 * KIB) /* the spool's, so that tests stand on its borders */

struct fixture {
	char dir[128];
	struct stage *stage;
	struct stage_inode *root;
	struct wait wait;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const char *tmp = getenv("TMPDIR");
	struct stage_options options = {.spool_dir = f->dir, .mode = 0755, .uid = 7, .gid = 8};

	snprintf(f->dir, sizeof(f->dir), "%s/regfs-stage-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(f->dir));
	assert_int_equal(stage_new(&options, &f->stage), 0);
	f->root = stage_root(f->stage);
	wait_init(&f->wait, true);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	stage_inode_unref(f->root);
	stage_free(f->stage);
	wait_release(&f->wait);
	/* Nothing with a name was left in it. */
	assert_int_equal(rmdir(f->dir), 0);
	free(f);
	return 0;
}

static struct stage_inode *make(struct stage_inode *dir, const char *name, mode_t mode)
{
	const struct stage_made made = {.mode = mode, .uid = 1, .gid = 2};
	struct stage_inode *inode = NULL;

	assert_int_equal(stage_make(dir, name, &made, &inode), 0);
	return inode;
}

static struct stat stat_of(struct stage_inode *inode)
{
	struct stat st;

	stage_stat(inode, &st);
	return st;
}

static int rename_in(struct stage_inode *from, const char *name, struct stage_inode *to,
		     const char *to_name, unsigned flags)
{
	const struct stage_place a = {from, name}, b = {to, to_name};

	return stage_rename(&a, &b, flags);
}

static void assert_names(struct stage_inode *dir, const char *wanted)
{
	struct stage_children sorted;
	AUTO_BUF struct buf text = BUF_INIT(64 * KIB);

	assert_int_equal(stage_sorted(dir, &sorted), 0);
	for (size_t i = 0; i < sorted.n; i++)
		assert_int_equal(buf_printf(&text, "%s%s", i ? " " : "", sorted.children[i].name),
				 0);
	assert_string_equal(text.data ? text.data : "", wanted);
	stage_children_release(&sorted);
}

/* --- names --- */

static void test_names_are_found_and_sorted_by_bytes(void **state)
{
	struct fixture *f = *state;
	AUTO_INODE struct stage_inode *found = NULL;

	stage_inode_unref(make(f->root, "b", S_IFREG | 0644));
	stage_inode_unref(make(f->root, "\xc3\xa9", S_IFREG | 0644));
	stage_inode_unref(make(f->root, "B", S_IFREG | 0644));
	stage_inode_unref(make(f->root, "a", S_IFDIR | 0755));
	assert_names(f->root, "B a b \xc3\xa9");
	assert_int_equal(stage_lookup(f->root, "b", &found), 0);
	assert_true(S_ISREG(stat_of(found).st_mode));
	stage_inode_unref(STEAL(found));
	assert_int_equal(stage_lookup(f->root, "c", &found), -ENOENT);
}

static void test_bad_names_are_refused(void **state)
{
	struct fixture *f = *state;
	const struct stage_made made = {.mode = S_IFREG | 0644};
	AUTO_INODE struct stage_inode *file = make(f->root, "f", S_IFREG | 0644);
	struct stage_inode *inode;
	char name[300] = "";

	memset(name, 'x', 256);
	assert_int_equal(stage_make(f->root, "f", &made, &inode), -EEXIST);
	assert_int_equal(stage_make(f->root, "..", &made, &inode), -EINVAL);
	assert_int_equal(stage_make(f->root, "", &made, &inode), -EINVAL);
	assert_int_equal(stage_make(f->root, name, &made, &inode), -ENAMETOOLONG);
	assert_int_equal(stage_make(file, "g", &made, &inode), -ENOTDIR);
	assert_int_equal(stage_lookup(file, "g", &inode), -ENOTDIR);
}

static void test_removing_needs_the_right_kind_and_an_empty_directory(void **state)
{
	struct fixture *f = *state;
	AUTO_INODE struct stage_inode *dir = make(f->root, "d", S_IFDIR | 0755);
	AUTO_INODE struct stage_inode *file = make(dir, "f", S_IFREG | 0644);

	assert_int_equal(stage_unlink(f->root, "d"), -EISDIR);
	assert_int_equal(stage_rmdir(dir, "f"), -ENOTDIR);
	assert_int_equal(stage_rmdir(f->root, "d"), -ENOTEMPTY);
	assert_int_equal(stage_unlink(dir, "f"), 0);
	assert_int_equal(stage_unlink(dir, "f"), -ENOENT);
	assert_int_equal(stage_rmdir(f->root, "d"), 0);
	assert_names(f->root, "");
	/* Who stands in it makes nothing more there. */
	assert_int_equal(stage_make(dir, "g", &(struct stage_made){.mode = S_IFREG}, &file),
			 -ENOENT);
	assert_int_equal(stat_of(dir).st_nlink, 0);
}

static void test_link_counts(void **state)
{
	struct fixture *f = *state;
	AUTO_INODE struct stage_inode *dir = make(f->root, "d", S_IFDIR | 0755);
	AUTO_INODE struct stage_inode *file = make(dir, "f", S_IFREG | 0644);

	stage_inode_unref(make(dir, "sub", S_IFDIR | 0755));
	assert_int_equal(stat_of(f->root).st_nlink, 3);
	assert_int_equal(stat_of(dir).st_nlink, 3);
	assert_int_equal(stage_link(f->root, "g", file), 0);
	assert_int_equal(stat_of(file).st_nlink, 2);
	assert_int_equal(stage_link(f->root, "g", file), -EEXIST);
	assert_int_equal(stage_link(f->root, "e", dir), -EPERM);
	assert_int_equal(stage_unlink(dir, "f"), 0);
	assert_int_equal(stat_of(file).st_nlink, 1);
	assert_int_equal(rename_in(dir, "sub", f->root, "sub", 0), 0);
	assert_int_equal(stat_of(dir).st_nlink, 2);
	assert_int_equal(stat_of(f->root).st_nlink, 4);
}

static void test_rename_replaces_what_it_may(void **state)
{
	struct fixture *f = *state;
	AUTO_INODE struct stage_inode *a = make(f->root, "a", S_IFREG | 0644);
	AUTO_INODE struct stage_inode *b = make(f->root, "b", S_IFREG | 0644);
	AUTO_INODE struct stage_inode *dir = make(f->root, "d", S_IFDIR | 0755);
	AUTO_INODE struct stage_inode *full = make(f->root, "full", S_IFDIR | 0755);

	stage_inode_unref(make(full, "x", S_IFREG | 0644));
	assert_int_equal(rename_in(f->root, "a", f->root, "b", RENAME_NOREPLACE), -EEXIST);
	assert_int_equal(rename_in(f->root, "a", f->root, "d", 0), -EISDIR);
	assert_int_equal(rename_in(f->root, "d", f->root, "a", 0), -ENOTDIR);
	assert_int_equal(rename_in(f->root, "d", f->root, "full", 0), -ENOTEMPTY);
	assert_int_equal(rename_in(f->root, "no", f->root, "a", 0), -ENOENT);
	assert_int_equal(rename_in(f->root, "a", f->root, "z", RENAME_EXCHANGE), -EINVAL);
	assert_int_equal(rename_in(f->root, "a", f->root, "b", 0), 0);
	assert_int_equal(stat_of(b).st_nlink, 0);
	assert_int_equal(stat_of(a).st_nlink, 1);
	assert_int_equal(rename_in(f->root, "full", f->root, "d", 0), 0);
	assert_names(f->root, "b d");
	assert_int_equal(stat_of(dir).st_nlink, 0);
}

static void test_a_directory_does_not_move_into_itself(void **state)
{
	struct fixture *f = *state;
	AUTO_INODE struct stage_inode *a = make(f->root, "a", S_IFDIR | 0755);
	AUTO_INODE struct stage_inode *b = make(a, "b", S_IFDIR | 0755);

	assert_int_equal(rename_in(f->root, "a", b, "a", 0), -EINVAL);
	assert_int_equal(rename_in(f->root, "a", a, "a", 0), -EINVAL);
	assert_int_equal(rename_in(a, "b", f->root, "b", 0), 0);
	assert_int_equal(rename_in(f->root, "a", b, "a", 0), 0);
	assert_names(f->root, "b");
}

static void test_renaming_to_another_name_of_itself_does_nothing(void **state)
{
	struct fixture *f = *state;
	AUTO_INODE struct stage_inode *a = make(f->root, "a", S_IFREG | 0644);

	assert_int_equal(stage_link(f->root, "b", a), 0);
	assert_int_equal(rename_in(f->root, "a", f->root, "b", 0), 0);
	assert_names(f->root, "a b");
}

static void test_a_listing_goes_on_while_names_come_and_go(void **state)
{
	struct fixture *f = *state;
	struct stage_children first, rest;

	for (char c = 'e'; c >= 'a'; c--)
		stage_inode_unref(make(f->root, (char[]){c, 0}, S_IFREG | 0644));
	assert_int_equal(stage_list(f->root, 0, 2, &first), 0);
	assert_int_equal(first.n, 2);
	assert_string_equal(first.children[1].name, "d");
	assert_int_equal(stage_unlink(f->root, "d"), 0);
	assert_int_equal(stage_unlink(f->root, "c"), 0);
	stage_inode_unref(make(f->root, "0", S_IFREG | 0644));
	assert_int_equal(stage_list(f->root, first.children[1].pos, 9, &rest), 0);
	assert_int_equal(rest.n, 3);
	assert_string_equal(rest.children[0].name, "b");
	assert_string_equal(rest.children[2].name, "0");
	uint64_t behind_b = rest.children[0].pos;
	stage_children_release(&rest);
	assert_int_equal(stage_list(f->root, behind_b, 1, &rest), 0);
	assert_string_equal(rest.children[0].name, "a");
	stage_children_release(&first);
	stage_children_release(&rest);
}

static void test_a_set_group_id_directory_hands_its_group_down(void **state)
{
	struct fixture *f = *state;
	AUTO_INODE struct stage_inode *dir = make(f->root, "d", S_IFDIR | 02775);
	AUTO_INODE struct stage_inode *sub = make(dir, "s", S_IFDIR | 0755);
	gid_t gid = 99;

	assert_int_equal(stage_change(sub, &(struct stage_change){.gid = &gid}), 0);
	AUTO_INODE struct stage_inode *file = make(sub, "f", S_IFREG | 0644);
	assert_int_equal(stat_of(sub).st_mode, S_IFDIR | 02755);
	assert_int_equal(stat_of(file).st_gid, 99);
	assert_int_equal(stat_of(file).st_mode, S_IFREG | 0644);
}

/* --- bytes --- */

static void put(struct fixture *f, struct stage_inode *file, uint64_t off, const char *text)
{
	assert_int_equal(stage_write(file, off, text, strlen(text), &f->wait), strlen(text));
}

static void assert_bytes(struct stage_inode *file, uint64_t off, const void *wanted, size_t len)
{
	AUTO_FREE char *got = malloc(len + 1);

	memset(got, '#', len + 1);
	assert_int_equal(stage_read(file, off, got, len), len);
	assert_memory_equal(got, wanted, len);
}

static void test_holes_read_as_zeros(void **state)
{
	struct fixture *f = *state;
	AUTO_INODE struct stage_inode *file = make(f->root, "f", S_IFREG | 0644);
	static const char zeros[2 * CHUNK];
	char tail[8];

	put(f, file, 5 * CHUNK + 3, "end");
	assert_int_equal(stat_of(file).st_size, 5 * CHUNK + 6);
	assert_true(stat_of(file).st_blocks * 512 <= CHUNK);
	assert_bytes(file, 0, zeros, sizeof(zeros));
	assert_bytes(file, 4 * CHUNK + 3, zeros, CHUNK);
	assert_bytes(file, 5 * CHUNK + 3, "end", 3);
	assert_int_equal(stage_read(file, 5 * CHUNK + 4, tail, sizeof(tail)), 2);
	assert_int_equal(stage_read(file, 9 * CHUNK, tail, sizeof(tail)), 0);
	assert_int_equal(stage_seek(file, 0, SEEK_DATA), 5 * CHUNK);
	assert_int_equal(stage_seek(file, 1, SEEK_HOLE), 1);
	assert_int_equal(stage_seek(file, 5 * CHUNK, SEEK_HOLE), 5 * CHUNK + 6);
	assert_int_equal(stage_seek(file, 6 * CHUNK, SEEK_DATA), -ENXIO);
}

static void test_what_was_cut_off_comes_back_as_zeros(void **state)
{
	struct fixture *f = *state;
	AUTO_INODE struct stage_inode *file = make(f->root, "f", S_IFREG | 0644);
	AUTO_FREE char *full = malloc(3 * CHUNK);
	static const char zeros[3 * CHUNK];

	memset(full, 'x', 3 * CHUNK);
	assert_int_equal(stage_write(file, 0, full, 3 * CHUNK, &f->wait), 3 * CHUNK);
	assert_int_equal(stage_truncate(file, 10, &f->wait), 0);
	assert_int_equal(stage_truncate(file, 3 * CHUNK, &f->wait), 0);
	assert_bytes(file, 0, full, 10);
	assert_bytes(file, 10, zeros, 3 * CHUNK - 10);
	/* What one file gave back another gets, empty. */
	AUTO_INODE struct stage_inode *other = make(f->root, "g", S_IFREG | 0644);
	put(f, other, 2 * CHUNK - 1, "yz");
	assert_bytes(other, CHUNK, zeros, CHUNK - 1);
	assert_bytes(other, 2 * CHUNK - 1, "yz", 2);
	assert_bytes(file, 10, zeros, 3 * CHUNK - 10);
}

/* Against a plain array: writes and truncations anywhere, two files side by side. */
static void test_bytes_against_a_model(void **state)
{
	enum { SIZE = 6 * CHUNK, ROUNDS = 400 };
	struct fixture *f = *state;
	struct stage_inode *files[2];
	AUTO_FREE char *model = calloc(2, SIZE);
	AUTO_FREE char *data = malloc(SIZE);
	size_t sizes[2] = {0, 0};

	for (int i = 0; i < 2; i++)
		files[i] = make(f->root, (char[]){(char)('a' + i), 0}, S_IFREG | 0644);
	for (uint64_t round = 0; round < ROUNDS; round++) {
		uint64_t dice = hash64(1, &round, sizeof(round));
		int which = dice & 1;
		char *mine = model + which * SIZE;
		size_t off = (dice >> 1) % SIZE, len = (dice >> 32) % (SIZE - off + 1) / 4 + 1;

		if (dice >> 62 == 0) {
			assert_int_equal(stage_truncate(files[which], off, &f->wait), 0);
			if (off < sizes[which])
				memset(mine + off, 0, sizes[which] - off);
			sizes[which] = off;
			continue;
		}
		len = MIN(len, SIZE - off);
		memset(data, (int)(round % 255) + 1, len);
		assert_int_equal(stage_write(files[which], off, data, len, &f->wait), len);
		memcpy(mine + off, data, len);
		sizes[which] = MAX(sizes[which], off + len);
	}
	for (int i = 0; i < 2; i++) {
		assert_int_equal(stat_of(files[i]).st_size, sizes[i]);
		assert_bytes(files[i], 0, model + i * SIZE, sizes[i]);
		stage_inode_unref(files[i]);
	}
}

static void test_a_file_without_a_name_lives_while_it_is_held(void **state)
{
	struct fixture *f = *state;
	AUTO_INODE struct stage_inode *file = make(f->root, "f", S_IFREG | 0644);

	put(f, file, 0, "still");
	assert_int_equal(stage_unlink(f->root, "f"), 0);
	assert_bytes(file, 0, "still", 5);
	put(f, file, 5, " here");
	assert_bytes(file, 0, "still here", 10);
	assert_int_equal(stage_link(f->root, "g", file), -ENOENT);
}

/* --- attributes --- */

static void test_owners_and_modes_are_kept(void **state)
{
	struct fixture *f = *state;
	AUTO_INODE struct stage_inode *file = make(f->root, "f", S_IFREG | 0644);
	mode_t mode = 04755;
	uid_t uid = 1234;
	struct timespec mtime = {.tv_sec = 1, .tv_nsec = 5};

	assert_int_equal(stat_of(f->root).st_uid, 7);
	assert_int_equal(
		stage_change(file,
			     &(struct stage_change){.mode = &mode, .uid = &uid, .mtime = &mtime}),
		0);
	assert_int_equal(stat_of(file).st_mode, S_IFREG | 04755);
	assert_int_equal(stat_of(file).st_uid, 1234);
	assert_int_equal(stat_of(file).st_gid, 2);
	assert_int_equal(stat_of(file).st_mtim.tv_nsec, 5);
}

static void test_xattrs(void **state)
{
	struct fixture *f = *state;
	AUTO_INODE struct stage_inode *file = make(f->root, "f", S_IFREG | 0644);
	AUTO_FREE char *large = calloc(1, 300 * KIB);
	char buf[64];

	assert_int_equal(stage_setxattr(file, "user.b", "two", 3, 0), 0);
	assert_int_equal(stage_setxattr(file, "security.a", "", 0, XATTR_CREATE), 0);
	assert_int_equal(stage_setxattr(file, "user.b", "x", 1, XATTR_CREATE), -EEXIST);
	assert_int_equal(stage_setxattr(file, "user.c", "x", 1, XATTR_REPLACE), -ENODATA);
	assert_int_equal(stage_setxattr(file, "system.posix_acl_access", "x", 1, 0), -EOPNOTSUPP);
	assert_int_equal(stage_setxattr(file, "user.d", large, 300 * KIB, 0), -ENOSPC);
	assert_int_equal(stage_getxattr(file, "user.b", buf, 0), 3);
	assert_int_equal(stage_getxattr(file, "user.b", buf, 2), -ERANGE);
	assert_int_equal(stage_getxattr(file, "user.b", buf, sizeof(buf)), 3);
	assert_memory_equal(buf, "two", 3);
	assert_int_equal(stage_getxattr(file, "user.c", buf, sizeof(buf)), -ENODATA);
	assert_int_equal(stage_listxattr(file, buf, 0), 18);
	assert_int_equal(stage_listxattr(file, buf, 17), -ERANGE);
	assert_int_equal(stage_listxattr(file, buf, sizeof(buf)), 18);
	assert_memory_equal(buf, "security.a\0user.b", 18);
	assert_int_equal(stage_removexattr(file, "user.b"), 0);
	assert_int_equal(stage_removexattr(file, "user.b"), -ENODATA);
}

/* --- freezing --- */

static void test_a_frozen_tree_does_not_change(void **state)
{
	struct fixture *f = *state;
	AUTO_INODE struct stage_inode *file = make(f->root, "f", S_IFREG | 0644);
	struct stage_inode *inode;
	mode_t mode = 0;

	put(f, file, 0, "x");
	assert_int_equal(stage_freeze(f->stage, &f->wait), 0);
	uint64_t version = stage_version(f->stage);
	assert_int_equal(stage_write(file, 0, "y", 1, &f->wait), -EBUSY);
	assert_int_equal(stage_truncate(file, 0, &f->wait), -EBUSY);
	assert_int_equal(stage_make(f->root, "g", &(struct stage_made){.mode = S_IFREG}, &inode),
			 -EBUSY);
	assert_int_equal(stage_unlink(f->root, "f"), -EBUSY);
	assert_int_equal(stage_link(f->root, "g", file), -EBUSY);
	assert_int_equal(rename_in(f->root, "f", f->root, "g", 0), -EBUSY);
	assert_int_equal(stage_change(file, &(struct stage_change){.mode = &mode}), -EBUSY);
	assert_int_equal(stage_setxattr(file, "user.a", "", 0, 0), -EBUSY);
	assert_int_equal(stage_removexattr(file, "user.a"), -EBUSY);
	assert_bytes(file, 0, "x", 1);
	assert_int_equal(stage_version(f->stage), version);
	stage_thaw(f->stage);
	put(f, file, 0, "y");
	assert_true(stage_version(f->stage) > version);
}

static void test_a_spent_tree_gives_its_room_back(void **state)
{
	struct fixture *f = *state;
	AUTO_INODE struct stage_inode *file = make(f->root, "f", S_IFREG | 0644);
	AUTO_INODE struct stage_inode *empty = make(f->root, "empty", S_IFREG | 0644);
	char byte;

	put(f, file, 0, "x");
	assert_int_equal(stage_freeze(f->stage, &f->wait), 0);
	stage_spend(f->stage);
	assert_bytes(file, 0, "x", 1);
	stage_thaw(f->stage);
	put(f, file, 0, "y");
	stage_spend(f->stage);
	assert_int_equal(lseek(f->stage->spool, 0, SEEK_END), 0);
	assert_int_equal(stage_read(file, 0, &byte, 1), -ESTALE);
	assert_int_equal(stage_read(empty, 0, &byte, 1), -ESTALE);
	assert_int_equal(stage_write(file, 0, "z", 1, &f->wait), -ESTALE);
	assert_int_equal(stage_truncate(file, 0, &f->wait), -ESTALE);
	assert_int_equal(stage_unlink(f->root, "f"), -ESTALE);
	assert_int_equal(lseek(f->stage->spool, 0, SEEK_END), 0);
	/* Nobody has written. */
	struct stage *unused = NULL;
	assert_int_equal(
		stage_new(&(struct stage_options){.spool_dir = f->dir, .mode = 0755}, &unused), 0);
	stage_spend(unused);
	stage_free(unused);
}

static void test_versions_tell_content_from_attributes(void **state)
{
	struct fixture *f = *state;
	AUTO_INODE struct stage_inode *file = make(f->root, "f", S_IFREG | 0644);
	uint64_t content = stage_content_version(f->stage), all = stage_version(f->stage);
	uid_t uid = 5;

	assert_int_equal(stage_change(file, &(struct stage_change){.uid = &uid}), 0);
	assert_int_equal(stage_content_version(f->stage), content);
	assert_true(stage_version(f->stage) > all);
	put(f, file, 0, "x");
	assert_true(stage_content_version(f->stage) > content);
}

/* --- threads --- */

enum { THREADS = 4, TURNS = 300 };

/* Files made, filled, cut and removed; whatever is read is the thread's own. */
static void *churn(void *arg)
{
	struct stage_inode *root = arg;
	char name[32], data[9000], got[9000];
	struct wait wait;

	wait_init(&wait, true);
	for (unsigned turn = 0; turn < TURNS; turn++) {
		struct stage_inode *file;

		snprintf(name, sizeof(name), "%p-%u", (void *)&wait, turn % 3);
		memset(data, 'a' + (int)((uintptr_t)&name / 4096 % 26), sizeof(data));
		(void)stage_unlink(root, name);
		file = make(root, name, S_IFREG | 0600);
		assert_int_equal(stage_write(file, CHUNK - 100, data, sizeof(data), &wait), 9000);
		assert_int_equal(stage_read(file, CHUNK - 100, got, sizeof(got)), 9000);
		assert_memory_equal(got, data, sizeof(data));
		assert_int_equal(stage_truncate(file, turn * 700 % (2 * CHUNK), &wait), 0);
		stage_inode_unref(file);
	}
	wait_release(&wait);
	return NULL;
}

static void test_threads(void **state)
{
	struct fixture *f = *state;
	pthread_t threads[THREADS];

	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, churn, f->root), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

enum { LARGE = 2 * MIB, FREEZES = 100 };

struct writer {
	struct stage_inode *file;
	_Atomic bool over;
};

/* Fills the file with one byte after another; a frozen tree refuses, and that is all. */
static void *fill_again_and_again(void *arg)
{
	struct writer *writer = arg;
	AUTO_FREE char *data = malloc(LARGE);
	struct wait wait;

	wait_init(&wait, true);
	for (int byte = 1; !writer->over; byte = byte % 100 + 1) {
		memset(data, byte, LARGE);
		ssize_t put = stage_write(writer->file, 0, data, LARGE, &wait);
		assert_true(put == LARGE || put == -EBUSY);
	}
	wait_release(&wait);
	return NULL;
}

static void test_a_freeze_waits_for_writes_under_way(void **state)
{
	struct fixture *f = *state;
	AUTO_INODE struct stage_inode *file = make(f->root, "f", S_IFREG | 0644);
	struct writer writer = {.file = file};
	AUTO_FREE char *once = malloc(LARGE);
	pthread_t thread;

	put(f, file, 0, "x");
	assert_int_equal(pthread_create(&thread, NULL, fill_again_and_again, &writer), 0);
	for (int i = 0; i < FREEZES; i++) {
		assert_int_equal(stage_freeze(f->stage, &f->wait), 0);
		ssize_t got = stage_read(file, 0, once, LARGE);
		assert_true(got == 1 || got == LARGE);
		for (ssize_t at = 1; at < got; at++)
			assert_int_equal(once[at], once[0]);
		stage_thaw(f->stage);
		sched_yield();
	}
	writer.over = true;
	pthread_join(thread, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(names_are_found_and_sorted_by_bytes),
		TEST(bad_names_are_refused),
		TEST(removing_needs_the_right_kind_and_an_empty_directory),
		TEST(link_counts),
		TEST(rename_replaces_what_it_may),
		TEST(a_directory_does_not_move_into_itself),
		TEST(renaming_to_another_name_of_itself_does_nothing),
		TEST(a_listing_goes_on_while_names_come_and_go),
		TEST(a_set_group_id_directory_hands_its_group_down),
		TEST(holes_read_as_zeros),
		TEST(what_was_cut_off_comes_back_as_zeros),
		TEST(bytes_against_a_model),
		TEST(a_file_without_a_name_lives_while_it_is_held),
		TEST(owners_and_modes_are_kept),
		TEST(xattrs),
		TEST(a_frozen_tree_does_not_change),
		TEST(a_spent_tree_gives_its_room_back),
		TEST(versions_tell_content_from_attributes),
		TEST(threads),
		TEST(a_freeze_waits_for_writes_under_way),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
