// SPDX-License-Identifier: Apache-2.0
/*
 * index: what members become (tables of cases, and random layers against a plain model), what is
 * read back, and that damage is never more than -EIO.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <cmocka.h>
#include <isa-l/crc64.h>

#include "../../src/index_priv.h"
#include "../fuzz/index_exercise.h"
#include "script.h"

/* --- building --- */

struct built {
	struct index_builder *builder;
	struct buf file;
	struct index index;
	struct index_info info;
};

static void built_release(struct built *built)
{
	index_builder_free(built->builder);
	buf_release(&built->file);
}
#define AUTO_BUILT CLEANUP(built_release)

static void built_init(struct built *built)
{
	*built = (struct built){.builder = index_builder_new(), .file = BUF_INIT(64 * MIB)};
	assert_non_null(built->builder);
}

static int built_finish(struct built *built)
{
	int err = index_builder_finish(built->builder, &built->info, &built->file);

	if (!err)
		err = index_open(built->file.data, built->file.len, &built->index);
	return err;
}

static void dump_name(const struct index *index, const struct index_name *name, const char *path,
		      struct buf *out)
{
	struct index_inode inode;
	const char *target;
	size_t len;

	assert_int_equal(index_inode(index, name->ino, &inode), 0);
	buf_printf(out, "%s%s", out->len ? " " : "", path);
	if (inode.flags & INDEX_LINK_OUT || S_ISLNK(inode.mode)) {
		assert_int_equal(index_target(index, name->ino, &target, &len), 0);
		buf_printf(out, "%c%.*s", S_ISLNK(inode.mode) ? '@' : '^', (int)len, target);
	} else if (S_ISREG(inode.mode)) {
		buf_printf(out, "=%llu", (unsigned long long)inode.data_off);
	} else if (S_ISCHR(inode.mode)) {
		buf_printf(out, "%%");
	} else if (S_ISFIFO(inode.mode)) {
		buf_printf(out, "|");
	}
	if (!S_ISDIR(inode.mode) && inode.nlink > 1)
		buf_printf(out, "*%u", inode.nlink);
	if (S_ISDIR(inode.mode))
		buf_printf(out, "/%s%s", inode.flags & INDEX_IMPLICIT ? "!" : "",
			   inode.flags & INDEX_WHITEOUTS ? "w" : "");
}

/* Each name is found by itself, and leads back to itself. */
static void check_name(const struct index *index, uint32_t dir, const struct index_name *name)
{
	struct index_name other;
	bool back = false;

	assert_int_equal(index_lookup(index, dir, name->name, name->len, &other), 0);
	assert_int_equal(other.ino, name->ino);
	assert_ptr_equal(other.name, name->name);
	assert_int_equal(name->dir, dir);
	for (uint32_t n = 0; index_name_of(index, name->ino, n, &other) == 0; n++)
		back = back || other.name == name->name;
	assert_true(back);
}

static void dump_dir(const struct index *index, uint32_t dir, struct buf *out)
{
	struct index_inode inode, child;
	struct index_name name;
	char path[8192];
	ssize_t len = index_path(index, dir, path, 4096);
	uint32_t subdirs = 0;

	assert_true(len >= 0);
	assert_int_equal(index_inode(index, dir, &inode), 0);
	for (uint32_t n = 0; n < inode.nchildren; n++) {
		assert_int_equal(index_child(index, dir, n, &name), 0);
		check_name(index, dir, &name);
		snprintf(path + len, sizeof(path) - (size_t)len, "%s%.*s", len ? "/" : "",
			 (int)name.len, name.name);
		dump_name(index, &name, path, out);
		assert_int_equal(index_inode(index, name.ino, &child), 0);
		if (!S_ISDIR(child.mode))
			continue;
		subdirs++;
		assert_int_equal(child.parent, dir);
		dump_dir(index, name.ino, out);
	}
	assert_int_equal(inode.nlink, 2 + subdirs);
	assert_int_equal(index_child(index, dir, inode.nchildren, &name), -ENOENT);
}

static void assert_layer(const char *script, const char *expected)
{
	AUTO_BUF struct buf text = BUF_INIT(1 * MIB);
	AUTO_BUILT struct built built;

	built_init(&built);
	assert_int_equal(script_add(built.builder, script), 0);
	assert_int_equal(built_finish(&built), 0);
	buf_puts(&text, "");
	dump_dir(&built.index, INDEX_ROOT, &text);
	if (strcmp(text.data ? text.data : "", expected) != 0)
		print_error("layer: %s\n", script);
	assert_string_equal(text.data ? text.data : "", expected);
}

static void test_paths(void **state)
{
	(void)state;
	assert_layer("", "");
	assert_layer("d ./", "");
	assert_layer("f ./a 1; f /b 2; f ///c//d 3; f e/./f 4", "a=1 b=2 c/! c/d=3 e/! e/f=4");
	assert_layer("f ../a 1; f x/../../b 2; f x/../c/.. 3; f /.. 4; f . 5", "a=1 b=2");
	assert_layer("d a/; f a/b 1; d c/d", "a/ a/b=1 c/! c/d/");
	assert_layer("f b 1; f a 2; f ab 3; f a.b 4; f a/ 5", "a=5 a.b=4 ab=3 b=1");
	assert_layer("f longername1 1; f longername 2; f longername11 3; f longername0 4",
		     "longername=2 longername0=4 longername1=1 longername11=3");
	assert_layer("f .wh.x 1; f d/.wh..wh..opq 2; f d/e/.whx 3",
		     ".wh.x=1 d/!w d/.wh..wh..opq=2 d/e/! d/e/.whx=3");
}

static void test_replacement(void **state)
{
	(void)state;
	assert_layer("f a 1; f a 2", "a=2");
	assert_layer("f a 1; d a", "a/");
	assert_layer("d a; f a/b 1; d a; f a/c 2", "a/ a/b=1 a/c=2");
	assert_layer("f a/b 1; d a; f a/c 2", "a/ a/b=1 a/c=2");
	assert_layer("f a/b/c 1; f a 2", "a=2");
	assert_layer("f a/b/c 1; f a 2; f a/b/d 3", "a/! a/b/! a/b/d=3");
	assert_layer("f a/b/c 1; f a/b 2; f a/d 3", "a/! a/b=2 a/d=3");
	assert_layer("f a/b 1; l a x; f a/c 2", "a@x x/! x/c=2");
	assert_layer("c a; p b; f a 1", "a=1 b|");
	/* what hides a child of a directory that became a file, as umoci writes it */
	assert_layer("f a 1; f a/.wh.x 2", "a=1");
	assert_layer("f a/.wh.x 2; f a 1", "a=1");
	assert_layer("f a 1; f a/b/.wh..wh..opq 2", "a=1");
	assert_layer("f a 1; f a/.whx 2", "a/! a/.whx=2");
	/* the parent remembered from the member before is not the old one */
	assert_layer("f a/b 1; f a 2; f a/c 3", "a/! a/c=3");
	assert_layer("f a/b/c 1; l a x; f a/b/d 2", "a@x x/! x/b/! x/b/d=2");
}

static void test_symlink_parents(void **state)
{
	(void)state;
	assert_layer("l lib usr/lib; f lib/x 1", "lib@usr/lib usr/! usr/lib/! usr/lib/x=1");
	assert_layer("d usr/lib; l lib /usr/lib; f lib/x 1; f lib/y 2",
		     "lib@/usr/lib usr/! usr/lib/ usr/lib/x=1 usr/lib/y=2");
	assert_layer("l a/b/up ../..; f a/b/up/x 1", "a/! a/b/! a/b/up@../.. x=1");
	assert_layer("l out ../../../etc; f out/passwd 1", "etc/! etc/passwd=1 out@../../../etc");
	assert_layer("l a b; l b c; f a/x 1", "a@b b@c c/! c/x=1");
	/* a loop leads nowhere: the link is replaced */
	assert_layer("l a a; f a/x 1", "a/! a/x=1");
	assert_layer("l a b; l b a; f a/x 1", "a/! a/x=1 b@a");
	/* the last component is not followed */
	assert_layer("l a b; f a 1", "a=1");
	assert_layer("l a b; d a; f a/x 1", "a/ a/x=1");
	assert_layer("l a f; f f 1; f a/x 2", "a@f f/! f/x=2");
	assert_layer("l a .; f a/a/a/x 1", "a@. x=1");
}

static void test_hard_links(void **state)
{
	(void)state;
	assert_layer("f a 1; h b a; h c ./b", "a=1*3 b=1*3 c=1*3");
	assert_layer("f a 1; h b a; f a 2", "a=2 b=1");
	assert_layer("f d/a 1; h b d/a; f d 2", "b=1 d=2");
	assert_layer("f d/a 1; h e/b d/a; f e 2", "d/! d/a=1 e=2");
	assert_layer("l a x; h b a", "a@x*2 b@x*2");
	assert_layer("h b a; f a 1", "a=1 b^a");
	assert_layer("h b ../x/./y", "b^x/y");
	assert_layer("h b a; h c b", "b^a*2 c^a*2");
	assert_layer("f a 1; h a a", "a=1");
	assert_layer("h a a", "a^a");
	assert_layer("l d e/f; h b d/x; f e/f/y 1; h c d/y",
		     "b^e/f/x c=1*2 d@e/f e/! e/f/! e/f/y=1*2");
	assert_layer("l e/d ../x/../y; h b e/d/z", "b^y/z e/! e/d@../x/../y");
	assert_layer("f d 1; h b d/x", "b^d/x d=1");
	/* a directory cannot be linked: a name that leads nowhere */
	assert_layer("d a; h b a; h c /", "a/ b^ c^");
	assert_layer("f a 1; h a/b a", "a/! a/b=1");
	assert_layer("p a; h b a; c c; h d c", "a|*2 b|*2 c%*2 d%*2");
}

static void test_refused(void **state)
{
	char long_name[300], long_path[5000];
	struct tar_member member = {.path = long_name, .mode = S_IFREG};
	AUTO_BUILT struct built built;

	(void)state;
	built_init(&built);
	memset(long_name, 'n', sizeof(long_name));
	long_name[256] = '\0';
	assert_int_equal(index_builder_member(built.builder, &member), -EINVAL);
	long_name[255] = '\0';
	assert_int_equal(index_builder_member(built.builder, &member), 0);
	member.mode = 0;
	assert_int_equal(index_builder_member(built.builder, &member), -EINVAL);
	member.mode = S_IFLNK;
	assert_int_equal(index_builder_member(built.builder, &member), -EINVAL);

	for (size_t i = 0; i + 1 < sizeof(long_path); i += 2)
		memcpy(long_path + i, "d/", 2);
	long_path[4097] = '\0';
	member = (struct tar_member){.path = long_path, .mode = S_IFREG};
	assert_int_equal(index_builder_member(built.builder, &member), -EINVAL);
	long_path[4096] = '\0';
	assert_int_equal(index_builder_member(built.builder, &member), 0);
	assert_int_equal(built_finish(&built), 0);
}

/* Each path makes two thousand directories, in an archive that packs to next to nothing: what no
 * file could hold is not collected first. */
static void test_too_large(void **state)
{
	char path[4096];
	const struct tar_member member = {.path = path, .mode = S_IFREG};
	AUTO_BUILT struct built built;
	int err = 0;

	(void)state;
	built_init(&built);
	built.builder->max = MIB;
	for (size_t i = 0; i + 2 < sizeof(path); i += 2)
		memcpy(path + i, "/d", 3);
	for (int i = 0; !err && i < 100; i++) {
		snprintf(path, 5, "%04d", i);
		path[4] = '/';
		err = index_builder_member(built.builder, &member);
	}
	assert_int_equal(err, -EFBIG);
	assert_in_range(built.builder->ninodes, 0, 3 * MIB / 64);
}

/* A path that only became long through a symlink. */
static void test_long_by_link(void **state)
{
	char path[4000];
	struct tar_member member = {.path = path, .mode = S_IFDIR};
	struct tar_member link = {.path = "l", .mode = S_IFLNK, .symlink = path};
	AUTO_BUILT struct built built;

	(void)state;
	built_init(&built);
	for (size_t i = 0; i < sizeof(path); i += 2)
		memcpy(path + i, "d/", 2);
	path[2999] = '\0';
	assert_int_equal(index_builder_member(built.builder, &member), 0);
	assert_int_equal(index_builder_member(built.builder, &link), 0);
	path[0] = 'l';
	assert_int_equal(index_builder_member(built.builder, &member), 0);
	assert_int_equal(built_finish(&built), -EINVAL);
}

/* --- attributes --- */

static const struct tar_xattr some_xattrs[] = {
	{"user.a", "old", 3}, {"user.b", "", 0}, {"user.a", "\0new", 4}};
static const struct tar_extent some_extents[] = {{0, 10}, {4096, 1}, {8192, 0}};

static const struct tar_member rich_members[] = {
	{.path = "./", .mode = S_IFDIR | 01777, .uid = 7, .mtime_sec = 5},
	{.path = "f",
	 .mode = S_IFREG | 06755,
	 .uid = 1000,
	 .gid = 4294967294u,
	 .size = 1ull << 40,
	 .mtime_sec = -5,
	 .mtime_nsec = 999999999,
	 .data_off = 1ull << 50,
	 .xattrs = some_xattrs,
	 .nxattrs = 3},
	{.path = "g", .mode = S_IFREG | 0600, .xattrs = some_xattrs, .nxattrs = 3},
	{.path = "s",
	 .mode = S_IFREG | 0600,
	 .size = 8192,
	 .data_off = 512,
	 .sparse = true,
	 .extents = some_extents,
	 .nextents = 3},
	{.path = "hole", .mode = S_IFREG | 0600, .size = 8192, .data_off = 512, .sparse = true},
	{.path = "dev", .mode = S_IFBLK | 0600, .rdev_major = 259, .rdev_minor = 1048575},
	{.path = "l", .mode = S_IFLNK | 0777, .symlink = "a/b"},
	{.path = "e", .mode = S_IFLNK | 0777, .symlink = ""},
	{.path = "d/x", .mode = S_IFREG, .hard_link = "not/here"},
	{.path = "d/y", .mode = S_IFREG, .hard_link = "g"},
	{.path = "d/.wh.z", .mode = S_IFREG},
};

static void add_points(struct index_builder *builder)
{
	uint8_t window[CODEC_WINDOW];

	for (size_t i = 0; i < sizeof(window); i++)
		window[i] = (uint8_t)(i / 100);
	struct codec_point points[] = {
		{.in_off = 10, .out_off = 0, .member = true},
		{.in_off = 100, .out_off = 1000, .bits = 3, .window = window, .window_len = 1000},
		{.in_off = 200, .out_off = 90000, .window = window, .window_len = sizeof(window)},
		{.in_off = 300, .out_off = 190000, .member = true},
	};
	for (size_t i = 0; i < ARRAY_SIZE(points); i++)
		assert_int_equal(index_builder_point(builder, &points[i]), 0);
	assert_int_equal(index_builder_point(builder, &points[1]), -EINVAL);
}

static void build_rich(struct built *built)
{
	built_init(built);
	for (size_t i = 0; i < ARRAY_SIZE(rich_members); i++)
		assert_int_equal(index_builder_member(built->builder, &rich_members[i]), 0);
	add_points(built->builder);
	built->info = (struct index_info){
		.blob = {.algo = DIGEST_SHA512, .bytes = {1, 2, 3}},
		.blob_size = 77,
		.decoded_size = 200000,
		.codec = CODEC_GZIP,
		.keep_decoded = true,
		.diff_id = {.algo = DIGEST_SHA256, .bytes = {9}},
	};
	assert_int_equal(built_finish(built), 0);
}

static void find(const struct index *index, const char *name, struct index_name *ret,
		 struct index_inode *ret_inode)
{
	assert_int_equal(index_lookup(index, INDEX_ROOT, name, strlen(name), ret), 0);
	assert_int_equal(index_inode(index, ret->ino, ret_inode), 0);
}

static void test_attributes(void **state)
{
	struct index_inode inode;
	struct index_name name;
	AUTO_BUILT struct built built;

	(void)state;
	build_rich(&built);
	assert_int_equal(index_inode(&built.index, INDEX_ROOT, &inode), 0);
	assert_int_equal(inode.mode, S_IFDIR | 01777);
	assert_int_equal(inode.uid, 7);
	assert_int_equal(inode.mtime_sec, 5);
	assert_int_equal(inode.flags, 0);
	assert_int_equal(inode.nlink, 3);
	find(&built.index, "f", &name, &inode);
	assert_int_equal(inode.mode, S_IFREG | 06755);
	assert_int_equal(inode.uid, 1000);
	assert_int_equal(inode.gid, 4294967294u);
	assert_int_equal(inode.size, 1ull << 40);
	assert_int_equal(inode.mtime_sec, -5);
	assert_int_equal(inode.mtime_nsec, 999999999);
	assert_int_equal(inode.data_off, 1ull << 50);
	assert_int_equal(inode.nlink, 1);
	find(&built.index, "g", &name, &inode);
	assert_int_equal(inode.nlink, 2);
	find(&built.index, "dev", &name, &inode);
	assert_int_equal(inode.mode, S_IFBLK | 0600);
	assert_int_equal(inode.rdev_major, 259);
	assert_int_equal(inode.rdev_minor, 1048575);
	find(&built.index, "l", &name, &inode);
	assert_int_equal(inode.size, 3);
	find(&built.index, "e", &name, &inode);
	assert_int_equal(inode.size, 0);
	find(&built.index, "d", &name, &inode);
	assert_int_equal(inode.flags, INDEX_IMPLICIT | INDEX_WHITEOUTS);
	assert_int_equal(index_lookup(&built.index, name.ino, "q", 1, &name), -ENOENT);
	find(&built.index, "f", &name, &inode);
	assert_int_equal(index_lookup(&built.index, name.ino, "q", 1, &name), -ENOTDIR);
}

static void test_xattrs_extents(void **state)
{
	struct index_inode inode;
	struct index_name name;
	struct tar_xattr xattr;
	struct tar_extent extent;
	uint32_t ino;
	AUTO_BUILT struct built built;

	(void)state;
	build_rich(&built);
	find(&built.index, "f", &name, &inode);
	assert_int_equal(index_xattr(&built.index, name.ino, 0, &xattr), 0);
	assert_string_equal(xattr.name, "user.b");
	assert_int_equal(xattr.len, 0);
	assert_int_equal(index_xattr(&built.index, name.ino, 1, &xattr), 0);
	assert_string_equal(xattr.name, "user.a");
	assert_int_equal(xattr.len, 4);
	assert_memory_equal(xattr.value, "\0new", 4);
	assert_int_equal(index_xattr(&built.index, name.ino, 2, &xattr), -ENODATA);
	find(&built.index, "s", &name, &inode);
	assert_int_equal(index_xattr(&built.index, name.ino, 0, &xattr), -ENODATA);
	assert_int_equal(inode.flags, INDEX_SPARSE);
	assert_int_equal(inode.nextents, 3);
	assert_int_equal(inode.data_off, 512);
	assert_int_equal(index_extent(&built.index, &inode, 1, &extent), 0);
	assert_int_equal(extent.off, 4096);
	assert_int_equal(extent.len, 1);
	assert_int_equal(index_extent(&built.index, &inode, 3, &extent), -ENODATA);
	find(&built.index, "hole", &name, &inode);
	assert_int_equal(inode.nextents, 0);
	assert_int_equal(index_link_out(&built.index, 0, &ino), 0);
	assert_int_equal(index_inode(&built.index, ino, &inode), 0);
	assert_int_equal(inode.flags, INDEX_LINK_OUT);
	assert_int_equal(index_link_out(&built.index, 1, &ino), -ENOENT);
}

static void test_bad_extents(void **state)
{
	static const struct tar_extent bad[][2] = {{{0, 10}, {9, 1}},
						   {{90, 11}, {0, 0}},
						   {{101, 0}, {0, 0}},
						   {{1, UINT64_MAX}, {0, 0}}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct tar_member member = {.path = "s",
					    .mode = S_IFREG,
					    .size = 100,
					    .sparse = true,
					    .extents = bad[i],
					    .nextents = i == 0 ? 2 : 1};
		AUTO_BUILT struct built built;

		built_init(&built);
		assert_int_equal(index_builder_member(built.builder, &member), -EINVAL);
	}
}

static void test_points(void **state)
{
	uint8_t window[CODEC_WINDOW];
	struct codec_point point;
	AUTO_BUILT struct built built;

	(void)state;
	build_rich(&built);
	assert_int_equal(built.index.info.npoints, 4);
	assert_int_equal(built.index.info.codec, CODEC_GZIP);
	assert_int_equal(built.index.info.blob_size, 77);
	assert_int_equal(built.index.info.decoded_size, 200000);
	assert_true(built.index.info.keep_decoded);
	assert_int_equal(built.index.info.blob.algo, DIGEST_SHA512);
	assert_int_equal(built.index.info.blob.bytes[2], 3);
	assert_int_equal(built.index.info.diff_id.bytes[0], 9);
	assert_int_equal(index_point(&built.index, 0, window, &point), 0);
	assert_true(point.member && point.in_off == 0 && point.out_off == 0 && !point.window_len);
	assert_int_equal(index_point(&built.index, 1, window, &point), 0);
	assert_true(point.in_off == 100 && point.out_off == 1000 && point.bits == 3);
	assert_int_equal(point.window_len, 1000);
	assert_int_equal(point.window[999], 9);
	assert_int_equal(index_point(&built.index, 2, window, &point), 0);
	assert_int_equal(point.window_len, CODEC_WINDOW);
	assert_int_equal(point.window[CODEC_WINDOW - 1], (CODEC_WINDOW - 1) / 100 % 256);
	assert_int_equal(index_point(&built.index, 3, NULL, &point), 0);
	assert_true(point.member);
	assert_int_equal(index_point(&built.index, 4, NULL, &point), -EIO);

	assert_int_equal(index_point_before(&built.index, 0), 0);
	assert_int_equal(index_point_before(&built.index, 999), 0);
	assert_int_equal(index_point_before(&built.index, 1000), 1);
	assert_int_equal(index_point_before(&built.index, 89999), 1);
	assert_int_equal(index_point_before(&built.index, 90000), 2);
	assert_int_equal(index_point_before(&built.index, UINT64_MAX), 3);
}

/* --- many --- */

static void test_many(void **state)
{
	char path[64];
	struct tar_member member = {.path = path, .mode = S_IFREG | 0644};
	struct index_inode inode;
	struct index_name name, last = {};
	AUTO_BUILT struct built built;
	const uint32_t n = 50000;

	(void)state;
	built_init(&built);
	for (uint32_t i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "dir/%08x-%u", i * 2654435761u, i);
		member.data_off = i;
		assert_int_equal(index_builder_member(built.builder, &member), 0);
	}
	assert_int_equal(built_finish(&built), 0);
	assert_int_equal(built.info.nnames, n + 1);
	assert_int_equal(index_lookup(&built.index, INDEX_ROOT, "dir", 3, &name), 0);
	for (uint32_t i = 0; i < n; i++) {
		struct index_name at;
		assert_int_equal(index_child(&built.index, name.ino, i, &at), 0);
		if (i)
			assert_true(memcmp(last.name, at.name, MIN(last.len, at.len)) < 0);
		last = at;
	}
	for (uint32_t i = 0; i < n; i++) {
		int len = snprintf(path, sizeof(path), "%08x-%u", i * 2654435761u, i);
		assert_int_equal(index_lookup(&built.index, name.ino, path, (size_t)len, &last), 0);
		assert_int_equal(index_inode(&built.index, last.ino, &inode), 0);
		assert_int_equal(inode.data_off, i);
	}
}

/* --- damage --- */

static void fix_crc(uint8_t *data, size_t len)
{
	uint64_t crc = htole64(crc64_ecma_refl(0, data, len - 8));

	memcpy(data + len - 8, &crc, sizeof(crc));
}

static void test_crc(void **state)
{
	struct index index;
	AUTO_BUILT struct built built;

	(void)state;
	build_rich(&built);
	for (size_t i = 0; i < built.file.len; i++) {
		built.file.data[i] ^= 0x10;
		int err = index_open(built.file.data, built.file.len, &index);
		assert_int_equal(err, i >= 8 && i < 12 ? -ESTALE : -EIO);
		built.file.data[i] ^= 0x10;
	}
	for (size_t len = 0; len < built.file.len; len++)
		assert_int_equal(index_open(built.file.data, len, &index), -EIO);
}

/* What the CRC does not catch: every byte wrong in turn, the CRC right. In memory of exactly that
 * size, for the sanitizer. */
static void test_damage(void **state)
{
	static const uint8_t masks[] = {0x01, 0x10, 0x80, 0xff};
	struct index index;
	AUTO_BUILT struct built built;

	(void)state;
	build_rich(&built);
	size_t len = built.file.len;
	AUTO_FREE uint8_t *copy = malloc(len);
	assert_non_null(copy);
	for (size_t i = 0; i < len - 8; i++) {
		for (size_t m = 0; m < ARRAY_SIZE(masks); m++) {
			memcpy(copy, built.file.data, len);
			copy[i] ^= masks[m];
			fix_crc(copy, len);
			if (index_open(copy, len, &index) == 0)
				exercise_index(&index, 64);
		}
	}
}

/* A file cut short under its map reads as zeros after it was opened. */
static void test_zeroed(void **state)
{
	AUTO_BUILT struct built built;

	(void)state;
	build_rich(&built);
	exercise_index(&built.index, 64);
	for (size_t keep = built.file.len; keep-- > 0;) {
		built.file.data[keep] = 0;
		if (keep % 7 == 0)
			exercise_index(&built.index, 64);
	}
}

/* --- random layers against a model of strings --- */

#define MODEL_MAX 256

struct model_name {
	char path[256];
	char type; /* d f l ^ ; i an implicit directory */
	int id;	   /* the same for links of one inode */
	char target[256];
};

struct model {
	struct model_name names[MODEL_MAX];
	int n;
};

/* *OUT = A + SEPARATOR (if both are there) + B, which must fit. */
static void join(char *out, size_t cap, const char *a, const char *separator, const char *b)
{
	size_t a_len = strlen(a), b_len = strlen(b);
	size_t sep_len = a_len && b_len ? strlen(separator) : 0;

	assert_true(a_len + sep_len + b_len < cap);
	memmove(out + a_len + sep_len, b, b_len + 1);
	memmove(out, a, a_len);
	memcpy(out + a_len, separator, sep_len);
}

static struct model_name *model_find(struct model *model, const char *path)
{
	for (int i = 0; i < model->n; i++) {
		if (strcmp(model->names[i].path, path) == 0)
			return &model->names[i];
	}
	return NULL;
}

static bool model_is_dir(const struct model_name *name)
{
	return name && (name->type == 'd' || name->type == 'i');
}

static void model_remove(struct model *model, const char *path)
{
	size_t len = strlen(path);
	int kept = 0;

	for (int i = 0; i < model->n; i++) {
		const char *at = model->names[i].path;
		if (strncmp(at, path, len) == 0 && (at[len] == '\0' || at[len] == '/'))
			continue;
		model->names[kept++] = model->names[i];
	}
	model->n = kept;
}

static struct model_name *model_put(struct model *model, const char *path, char type)
{
	struct model_name *name = model_find(model, path);

	if (model_is_dir(name) && type == 'd') {
		name->type = 'd';
		return name;
	}
	model_remove(model, path);
	assert_true(model->n < MODEL_MAX);
	name = &model->names[model->n++];
	*name = (struct model_name){.type = type};
	join(name->path, sizeof(name->path), path, "", "");
	return name;
}

static void path_up(char *path)
{
	char *slash = strrchr(path, '/');

	*(slash ? slash : path) = '\0';
}

/* "a/../b" without looking at anything. */
static void model_clean(const char *path, char *out)
{
	char copy[2048], *save, *part;

	join(copy, sizeof(copy), path, "", "");
	out[0] = '\0';
	for (part = strtok_r(copy, "/", &save); part; part = strtok_r(NULL, "/", &save)) {
		if (strcmp(part, "..") == 0) {
			path_up(out);
		} else if (strcmp(part, ".") != 0) {
			join(out, 256, out, "/", part);
		}
	}
}

/*
 * Resolves PATH to OUT. MAKE: all of it, making what is missing. Else the last component is not
 * followed; false where the layer has no such thing, OUT then being the path it would have.
 */
static bool model_walk(struct model *model, const char *path, bool make, char *out)
{
	char rest[2048], part[64];
	int hops = 0;

	join(rest, sizeof(rest), path, "", "");
	out[0] = '\0';
	while (rest[0]) {
		size_t len = strcspn(rest, "/");
		size_t skip = len + (rest[len] == '/');
		char parent[256];

		snprintf(part, sizeof(part), "%.*s", (int)len, rest);
		memmove(rest, rest + skip, strlen(rest + skip) + 1);
		if (!part[0] || strcmp(part, ".") == 0)
			continue;
		if (strcmp(part, "..") == 0) {
			path_up(out);
			continue;
		}
		join(parent, sizeof(parent), out, "", "");
		join(out, 256, out, "/", part);
		struct model_name *name = model_find(model, out);
		if (model_is_dir(name) || (name && !rest[0] && !make))
			continue;
		if (name && name->type == 'l' && hops++ < 40) {
			join(rest, sizeof(rest), name->target, "/", rest);
			join(out, 256, name->target[0] == '/' ? "" : parent, "", "");
		} else if (make) {
			model_put(model, out, 'i');
		} else {
			join(rest, sizeof(rest), out, "/", rest);
			model_clean(rest, out);
			return false;
		}
	}
	return true;
}

static void model_add(struct model *model, char type, const char *path, const char *arg)
{
	char clean[256], dir[256], parent[256], full[600], target[256] = "";
	struct model_name linked = {}, *name;
	bool found = false;
	static int next_id;

	model_clean(path, clean);
	if (type == 'h') {
		model_clean(arg, target);
		char cleaned[256];
		join(cleaned, sizeof(cleaned), target, "", "");
		found = model_walk(model, cleaned, false, target);
		name = found ? model_find(model, target) : NULL;
		if (found && (!name || model_is_dir(name))) {
			found = false;
			target[0] = '\0';
		} else if (found) {
			linked = *name;
		}
	}
	if (!clean[0])
		return;
	join(dir, sizeof(dir), clean, "", "");
	path_up(dir);
	model_walk(model, dir, true, parent);
	const char *slash = strrchr(clean, '/');
	join(full, sizeof(full), parent, "/", slash ? slash + 1 : clean);
	if (found) {
		name = model_put(model, full, linked.type);
		name->id = linked.id;
		join(name->target, sizeof(name->target), linked.target, "", "");
		return;
	}
	name = model_put(model, full, type == 'h' ? '^' : type);
	name->id = type == 'f' ? (int)strtol(arg, NULL, 10) : 1000000 + next_id++;
	join(name->target, sizeof(name->target), type == 'h' ? target : arg, "", "");
}

/* Bytewise by component, as a walk of the sorted tree gives them. */
static int model_compare(const void *left, const void *right)
{
	const char *a = ((const struct model_name *)left)->path;
	const char *b = ((const struct model_name *)right)->path;

	while (*a && *a == *b) {
		a++;
		b++;
	}
	int x = *a == '/' ? 1 : (uint8_t)*a + (*a != 0),
	    y = *b == '/' ? 1 : (uint8_t)*b + (*b != 0);
	return x - y;
}

static void model_dump(struct model *model, struct buf *out)
{
	qsort(model->names, (size_t)model->n, sizeof(model->names[0]), model_compare);
	for (int i = 0; i < model->n; i++) {
		const struct model_name *name = &model->names[i];
		int links = 0;

		buf_printf(out, "%s%s", out->len ? " " : "", name->path);
		if (model_is_dir(name)) {
			buf_printf(out, "/%s", name->type == 'i' ? "!" : "");
			continue;
		}
		if (name->type == 'f')
			buf_printf(out, "=%d", name->id);
		else
			buf_printf(out, "%c%s", name->type == 'l' ? '@' : '^', name->target);
		for (int j = 0; j < model->n; j++)
			links += !model_is_dir(&model->names[j]) && model->names[j].id == name->id;
		if (links > 1)
			buf_printf(out, "*%d", links);
	}
}

/* A few components of few letters, so that members meet. */
static void random_path(unsigned *seed, bool odd, char *out)
{
	int parts = 1 + rand_r(seed) % 3;
	size_t len = 0;

	if (odd && rand_r(seed) % 6 == 0)
		out[len++] = '/';
	out[len] = '\0';
	for (int i = 0; i < parts; i++) {
		static const char *const words[] = {"a", "b", "c", "..", ".", "", "ab"};
		int pick = rand_r(seed) % (odd ? 9 : 3);
		len += (size_t)snprintf(out + len, 32 - len, "%s%s", i ? "/" : "",
					words[pick < 7 ? pick : pick - 6]);
	}
	if (!out[0])
		memcpy(out, "a", 2);
}

static void test_random(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 5000; round++) {
		AUTO_BUF struct buf script = BUF_INIT(1 * MIB), text = BUF_INIT(1 * MIB),
				    expected = BUF_INIT(1 * MIB);
		struct model model = {};
		unsigned seed = round;
		AUTO_BUILT struct built built;
		int members = 1 + rand_r(&seed) % 14;

		built_init(&built);
		for (int i = 0; i < members; i++) {
			static const char types[] = "ddffffllhhh";
			char path[64], arg[64], line[256];
			char type = types[(size_t)rand_r(&seed) % (sizeof(types) - 1)];

			random_path(&seed, true, path);
			random_path(&seed, type != 'f', arg);
			if (type == 'f')
				snprintf(arg, sizeof(arg), "%d", i + 1);
			if (type == 'd')
				arg[0] = '\0';
			snprintf(line, sizeof(line), "%c %s %s", type, path, arg);
			buf_printf(&script, "%s; ", line);
			assert_int_equal(script_add(built.builder, line), 0);
			model_add(&model, type, path, arg);
		}
		assert_int_equal(built_finish(&built), 0);
		buf_puts(&text, "");
		buf_puts(&expected, "");
		dump_dir(&built.index, INDEX_ROOT, &text);
		model_dump(&model, &expected);
		if (strcmp(text.data, expected.data) != 0)
			print_error("round %u: %s\n", round, script.data);
		assert_string_equal(text.data, expected.data);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_replacement),
		cmocka_unit_test(test_symlink_parents),
		cmocka_unit_test(test_hard_links),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_too_large),
		cmocka_unit_test(test_long_by_link),
		cmocka_unit_test(test_attributes),
		cmocka_unit_test(test_xattrs_extents),
		cmocka_unit_test(test_bad_extents),
		cmocka_unit_test(test_points),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_crc),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_zeroed),
		cmocka_unit_test(test_random),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
