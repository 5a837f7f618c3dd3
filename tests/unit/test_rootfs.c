// SPDX-License-Identifier: Apache-2.0
/* rootfs: the rules of the merge by hand, what is opened for what, and what nodes tell. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <cmocka.h>

#include "fakelayers.h"

/* --- a merged tree as text --- */

struct dump {
	struct stack *stack;
	struct buf text;
	char path[8192];
	struct rootfs_node dir;
	size_t len;
	uint64_t pos;
};

static void dump_dir(struct dump *dump, struct rootfs_node dir);

static void dump_node(struct dump *dump, struct rootfs_node node)
{
	struct stack *stack = dump->stack;
	AUTO_FREE char *target = NULL;
	uint64_t id = 0;
	struct stat st;
	bool exact;

	assert_int_equal(rootfs_stat(stack->rootfs, node, &stack->wait, &st, &exact), 0);
	assert_true(exact);
	assert_true(st.st_ino > 1);
	buf_printf(&dump->text, "%s%s", dump->text.len ? " " : "", dump->path);
	if (S_ISDIR(st.st_mode)) {
		buf_printf(&dump->text, "/");
		if (st.st_mtim.tv_sec)
			buf_printf(&dump->text, "%lld", (long long)st.st_mtim.tv_sec);
	} else if (S_ISREG(st.st_mode)) {
		ssize_t len = rootfs_read(stack->rootfs, node, 0, &id, sizeof(id), &stack->wait);
		assert_int_equal(len, st.st_size);
		buf_printf(&dump->text, "=%llu", (unsigned long long)id);
	} else if (S_ISLNK(st.st_mode)) {
		assert_int_equal(rootfs_readlink(stack->rootfs, node, &stack->wait, &target), 0);
		assert_int_equal(strlen(target), st.st_size);
		buf_printf(&dump->text, "@%s", target);
	} else {
		buf_printf(&dump->text, "%s", S_ISCHR(st.st_mode) ? "%" : "|");
	}
	if (S_ISDIR(st.st_mode) ? st.st_nlink > 2 : st.st_nlink > 1)
		buf_printf(&dump->text, "*%u", (unsigned)st.st_nlink);
}

static int dump_name(void *arg, uint64_t pos, const char *name, size_t len, struct rootfs_node node)
{
	struct dump *dump = arg;
	struct stack *stack = dump->stack;
	struct rootfs_node dir = dump->dir, found;
	size_t dir_len = dump->len;
	uint64_t dir_pos = dump->pos;
	struct stat st;
	bool exact;

	assert_int_equal(pos, dump->pos);
	assert_int_equal(rootfs_lookup(stack->rootfs, dir, name, len, &stack->wait, &found), 0);
	assert_true(found.layer == node.layer && found.ino == node.ino);
	snprintf(dump->path + dir_len, sizeof(dump->path) - dir_len, "%s%.*s", dir_len ? "/" : "",
		 (int)len, name);
	dump_node(dump, node);
	assert_int_equal(rootfs_stat(stack->rootfs, node, &stack->wait, &st, &exact), 0);
	if (S_ISDIR(st.st_mode)) {
		dump->len = strlen(dump->path);
		dump_dir(dump, node);
	}
	dump->dir = dir;
	dump->len = dir_len;
	dump->pos = dir_pos + 1;
	return 0;
}

static void dump_dir(struct dump *dump, struct rootfs_node dir)
{
	dump->dir = dir;
	dump->pos = 0;
	assert_int_equal(
		rootfs_list(dump->stack->rootfs, dir, 0, dump_name, dump, &dump->stack->wait), 0);
}

static void assert_tree(struct stack *stack, const char *expected)
{
	struct dump dump = {.stack = stack, .text.max = MIB};

	dump_dir(&dump, ROOTFS_ROOT);
	buf_puts(&dump.text, "");
	assert_string_equal(dump.text.data ? dump.text.data : "", expected);
	buf_release(&dump.text);
}

static void assert_merge(const char *script, const char *expected)
{
	AUTO_STACK struct stack stack;

	stack_init(&stack, script, false);
	assert_tree(&stack, expected);
}

static void assert_raw(const char *script, const char *expected)
{
	AUTO_STACK struct stack stack;

	stack_init(&stack, script, true);
	assert_tree(&stack, expected);
}

static int walk_to(struct stack *stack, const char *path, struct wait *wait,
		   struct rootfs_node *ret)
{
	struct rootfs_node node = ROOTFS_ROOT;
	int err = 0;

	while (*path && !err) {
		size_t len = strcspn(path, "/");
		err = rootfs_lookup(stack->rootfs, node, path, len, wait, &node);
		path += len + (path[len] == '/');
	}
	*ret = node;
	return err;
}

static struct rootfs_node find(struct stack *stack, const char *path)
{
	struct rootfs_node node;

	assert_int_equal(walk_to(stack, path, &stack->wait, &node), 0);
	return node;
}

/* --- the merge --- */

static void test_whiteouts(void **state)
{
	(void)state;
	assert_merge("f a 1; f b 2 | f .wh.a 0", "b=2");
	assert_merge("f a 1; f b 2 | f .wh.a 0 | f a 3", "a=3 b=2");
	assert_merge("d d 5; f d/a 1 | f .wh.d 0", "");
	assert_merge("d d 5; f d/a 1 | f .wh.d 0 | f d/b 2", "d/777 d/b=2");
	/* in whatever order, and on lower layers only */
	assert_merge("f a 1 | f .wh.a 0; f a 2", "a=2");
	assert_merge("f a 1 | f a 2; f .wh.a 0", "a=2");
	assert_merge("d d 5; f d/a 1 | d d 6; f .wh.d 0; f d/b 2", "d/6 d/b=2");
	assert_merge("d d 5; f d/a 1 | f d/b 2; f d/.wh..wh..opq 0", "d/5 d/b=2");
	assert_merge("d d 5; f d/a 1 | d d 6; f d/.wh..wh..opq 0", "d/6");
	assert_merge("d d 5; f d/e/a 1 | f d/e/b 2; f d/.wh..wh..opq 0", "d/5*3 d/e/777 d/e/b=2");
	assert_merge("f a 1; d d 1 | f .wh..wh..opq 0; f b 2", "b=2");
	/* names that begin with .wh. are nobody's */
	assert_merge("f .wh..wh.plnk 1; f .wh.x/y 2; f .wh. 3; f .whx 4", ".whx=4");
	assert_merge("f .wh.a 1; f a 2", "a=2");
	assert_merge("f a 1 | d .wh.a 0", "");
	assert_merge("f a/b 1 | f a 2; f .wh.b 3 | d b 4", "a=2 b/4");
}

static void test_kinds_meet(void **state)
{
	(void)state;
	assert_merge("d d 5; f d/a 1 | f d 2", "d=2");
	assert_merge("d d 5; f d/a 1 | f d 2 | d d 6; f d/b 3", "d/6 d/b=3");
	assert_merge("f d 1 | f d/a 2", "d/777 d/a=2");
	assert_merge("d d 5; f d/a 1 | l d x | f d/b 2", "d/777 d/b=2");
	assert_merge("l d e; d e 5 | f d/a 1", "d/777 d/a=1 e/5");
	/* a directory is what the topmost entry that names it says */
	assert_merge("d d 5; f d/a 1 | d d 6 | f d/b 2", "d/6 d/a=1 d/b=2");
	assert_merge("d d 5; d d/e 6; f d/e/a 1 | f d/e/b 2 | d d 7; f d/f/c 3",
		     "d/7*4 d/e/6 d/e/a=1 d/e/b=2 d/f/777 d/f/c=3");
	assert_merge("c a; p b | f a 1 | p a", "a| b|");
}

static void test_hard_links(void **state)
{
	(void)state;
	assert_merge("f a 1; h b a; h c a", "a=1*3 b=1*3 c=1*3");
	assert_merge("f a 1; h b a; h c a | f .wh.b 0", "a=1*2 c=1*2");
	assert_merge("f a 1; h b a; h d/c a | f .wh.b 0; f d 2", "a=1 d=2");
	assert_merge("f a 1; h b a | f a 2", "a=2 b=1");
	assert_merge("f a 1 | h b a", "a=1*2 b=1*2");
	assert_merge("f a 1; h b a | h c b; h d c | f .wh.a 0", "b=1*3 c=1*3 d=1*3");
	assert_merge("f a 1 | h b a; f .wh.a 0", "b=1");
	assert_merge("f a 1 | h b a; f a 2", "a=2 b=1");
	assert_merge("f a 1 | f a 2 | h b a", "a=2*2 b=2*2");
	assert_merge("f a 1 | h b a | f a 2 | h c b; h d a", "a=2*2 b=1*2 c=1*2 d=2*2");
	assert_merge("f a 1 | h a a", "a=1");
	assert_merge("d d 5; f d/a 1 | h d/b d/a; h d/a d/a", "d/5 d/a=1*2 d/b=1*2");
	/* nowhere: not shown, but what was there is gone */
	assert_merge("f b 1 | h b a", "");
	assert_merge("d a 1; f b 1 | h b a", "a/1");
	assert_merge("f a 1 | f .wh.a 0 | h b a", "");
	assert_merge("f .wh.a 1 | h b .wh.a", "");
	assert_merge("f b/c 1 | h b /", "");
	/* a symlink is linked itself */
	assert_merge("l a x | h b a", "a@x*2 b@x*2");
}

static void test_link_paths(void **state)
{
	(void)state;
	assert_merge("d e 5; f e/x 1; l d e | h b d/x", "b=1*2 d@e e/5 e/x=1*2");
	assert_merge("f e/x 1; l d/l ../e; | h b d/l/x", "b=1*2 d/777 d/l@../e e/777 e/x=1*2");
	assert_merge("f e/x 1; l l /e | h b l/x | h c l/x", "b=1*3 c=1*3 e/777 e/x=1*3 l@/e");
	assert_merge("l l l | h b l/x", "l@l");
	/* a symlink that a directory above hides is none */
	assert_merge("l d e; f e/x 1 | d d 2 | h b d/x", "d/2 e/777 e/x=1");
	assert_merge("l d/e ../f; f f/x 1 | d d 3 | d d/e 2 | h b d/e/x",
		     "d/3*3 d/e/2 f/777 f/x=1");
	assert_merge("l k l; l l k | h b l/x", "k@l l@k");
	assert_merge("f e/x 1; l l e/f/..; d e/f 2 | h b l/x",
		     "b=1*2 e/777*3 e/f/2 e/x=1*2 l@e/f/..");
	/* ".." of what a symlink led to, not of the symlink */
	assert_merge("f u/x 1; d u/v 2; l s u/v; l l s/.. | h b l/x",
		     "b=1*2 l@s/.. s@u/v u/777*3 u/v/2 u/x=1*2");
	/* the way leads over a layer below the file's */
	assert_merge("l l e | f e/x 1 | h b l/x", "b=1*2 e/777 e/x=1*2 l@e");
	assert_merge("l l e | f e/x 1 | h m l | h b m/x", "b=1*2 e/777 e/x=1*2 l@e*2 m@e*2");
	assert_merge("l l e | f e/x 1 | h e/y l/x | h b l/y", "b=1*3 e/777 e/x=1*3 e/y=1*3 l@e");
}

static void test_raw(void **state)
{
	(void)state;
	assert_raw("f a 1; f .wh.b 2; d d 5; f d/.wh..wh..opq 3; h e q; f f/g 4",
		   ".wh.b=2 a=1 d/5 d/.wh..wh..opq=3 e=0 f/777 f/g=4");
	assert_raw("f a 1; h b a; h c q; h d c; d .wh.d 5", ".wh.d/5 a=1*2 b=1*2 c=0*2 d=0*2");
}

static void test_empty(void **state)
{
	AUTO_STACK struct stack stack;
	struct stat st;
	unsigned layer = 99;
	bool exact;

	(void)state;
	stack_begin(&stack);
	stack_mount(&stack, false);
	assert_tree(&stack, "");
	assert_int_equal(rootfs_stat(stack.rootfs, ROOTFS_ROOT, &stack.wait, &st, &exact), 0);
	assert_int_equal(st.st_mode, S_IFDIR | 0755);
	assert_int_equal(st.st_mtim.tv_sec, 777);
	assert_int_equal(st.st_mtim.tv_nsec, 7);
	assert_int_equal(st.st_nlink, 2);
	assert_int_equal(rootfs_origin(stack.rootfs, ROOTFS_ROOT, &stack.wait, &layer), 0);
	assert_int_equal(layer, 0);
}

/* --- what is opened --- */

static void test_lazy(void **state)
{
	AUTO_STACK struct stack stack;
	struct rootfs_node node;
	struct stat st;
	bool exact;

	(void)state;
	stack_init(&stack,
		   "d ./ 3; d u 4; f u/low 1 | f u/mid 2; f x/.wh..wh..opq 0 | d u 5; f u/top 3",
		   false);
	node = find(&stack, "u");
	assert_int_equal(stack.opened, 4);
	assert_int_equal(rootfs_stat(stack.rootfs, node, &stack.wait, &st, &exact), 0);
	assert_int_equal(stack.opened, 4);
	assert_int_equal(st.st_nlink, 1);
	assert_false(exact);
	find(&stack, "u/top");
	assert_int_equal(stack.opened, 4);
	find(&stack, "u/mid");
	assert_int_equal(stack.opened, 6);
	/* an opaque directory's content costs no layer below */
	assert_int_equal(walk_to(&stack, "x/no", &stack.wait, &node), -ENOENT);
	assert_int_equal(stack.opened, 6);
	assert_int_equal(stack.prepared, 0);
	find(&stack, "u/low");
	assert_int_equal(stack.opened, 7);
	node = find(&stack, "u");
	assert_int_equal(rootfs_stat(stack.rootfs, node, &stack.wait, &st, &exact), 0);
	assert_int_equal(st.st_nlink, 2);
	assert_true(exact);
}

static int count_name(void *arg, uint64_t pos, const char *name, size_t len,
		      struct rootfs_node node)
{
	(void)pos;
	(void)name;
	(void)len;
	(void)node;
	++*(unsigned *)arg;
	return 0;
}

static void test_prepare(void **state)
{
	AUTO_STACK struct stack stack;
	struct wait wait;
	unsigned names = 0;

	(void)state;
	stack_init(&stack, "f a 1 | f b 2 | f c 3 | f d 4", false);
	stack.closed = 15;
	wait_init(&wait, false);
	assert_int_equal(rootfs_list(stack.rootfs, ROOTFS_ROOT, 0, count_name, &names, &wait),
			 -EWOULDBLOCK);
	assert_int_equal(stack.prepared, 15);
	assert_int_equal(stack.opened, 0);
	assert_int_equal(names, 0);
	stack.closed = 3;
	stack.prepared = 0;
	assert_int_equal(rootfs_list(stack.rootfs, ROOTFS_ROOT, 0, count_name, &names, &wait),
			 -EWOULDBLOCK);
	stack.prepared = 0;
	assert_int_equal(rootfs_list(stack.rootfs, ROOTFS_ROOT, 0, count_name, &names, &wait),
			 -EWOULDBLOCK);
	assert_int_equal(stack.prepared, 3);
	assert_int_equal(rootfs_list(stack.rootfs, ROOTFS_ROOT, 0, count_name, &names, &stack.wait),
			 0);
	assert_int_equal(names, 4);
	wait_release(&wait);
}

static void test_would_block(void **state)
{
	AUTO_STACK struct stack stack;
	struct rootfs_node node = {};
	struct wait wait;
	struct stat st;
	bool exact;

	(void)state;
	stack_init(&stack, "d u 4; f u/low 1; f q 2 | h k q; f u/top 2", false);
	wait_init(&wait, false);
	stack.closed = 1;
	assert_int_equal(walk_to(&stack, "u/top", &wait, &node), 0);
	assert_int_equal(walk_to(&stack, "u/low", &wait, &node), -EWOULDBLOCK);
	assert_int_equal(walk_to(&stack, "u/low", &wait, &node), -EWOULDBLOCK);
	assert_int_equal(walk_to(&stack, "k", &wait, &node), -EWOULDBLOCK);
	/* who named it is not known yet */
	assert_int_equal(walk_to(&stack, "u", &wait, &node), 0);
	assert_int_equal(rootfs_stat(stack.rootfs, node, &wait, &st, &exact), -EWOULDBLOCK);
	wait_cancel(&stack.wait);
	assert_int_equal(walk_to(&stack, "u/low", &stack.wait, &node), -EINTR);
	stack.closed = 0;
	assert_int_equal(walk_to(&stack, "u/low", &wait, &node), 0);
	wait_release(&wait);
}

/* What only takes long, as of a layer made to do so, is for those who can be called off. */
static void test_long_work(void **state)
{
	AUTO_STACK struct stack stack;
	struct index_builder *builders[] = {index_builder_new(), index_builder_new()};
	struct rootfs_node node;
	struct wait wait;
	struct stat st;
	bool exact;

	(void)state;
	assert_int_equal(script_add(builders[0], "f f 1; d d; d d/d"), 0);
	for (unsigned i = 0; i < 2048; i++) {
		AUTO_FREE char *line = format("h l%u f; d d/s%u", i, i);

		assert_int_equal(script_add(builders[1], line), 0);
	}
	stack_begin(&stack);
	stack_add(&stack, builders[0]);
	stack_add(&stack, builders[1]);
	stack_mount(&stack, false);
	wait_init(&wait, false);
	assert_int_equal(walk_to(&stack, "f", &wait, &node), 0);
	wait.begun_ms = 1; /* since long */
	assert_int_equal(rootfs_stat(stack.rootfs, node, &wait, &st, &exact), -EWOULDBLOCK);
	node = find(&stack, "d");
	assert_int_equal(rootfs_stat(stack.rootfs, node, &wait, &st, &exact), -EWOULDBLOCK);
	assert_int_equal(rootfs_list(stack.rootfs, node, 0, NULL, NULL, &wait), -EWOULDBLOCK);
	assert_int_equal(rootfs_stat(stack.rootfs, node, &stack.wait, &st, &exact), 0);
	assert_int_equal(st.st_nlink, 2 + 2049);
	assert_int_equal(rootfs_stat(stack.rootfs, node, &wait, &st, &exact), 0);
	wait_release(&wait);
}

/* Who reads while an index breaks gets no answer from it; then its layer is opened again. */
static void test_broken(void **state)
{
	AUTO_STACK struct stack stack;
	struct rootfs_node node, other;
	struct wait wait;
	struct stat st;
	uint64_t id;
	unsigned names = 0, layer;
	char *target;
	bool exact;

	(void)state;
	stack_init(&stack, "f a 1 | f b 2", false);
	wait_init(&wait, false);
	node = find(&stack, "a");
	stack.layers[0].broken = true;
	assert_int_equal(rootfs_stat(stack.rootfs, node, &wait, &st, &exact), -EWOULDBLOCK);
	/* the layer that is opened now is broken, too */
	assert_int_equal(rootfs_stat(stack.rootfs, node, &stack.wait, &st, &exact), -EIO);
	assert_int_equal(rootfs_read(stack.rootfs, node, 0, &id, 8, &stack.wait), -EIO);
	assert_int_equal(rootfs_readlink(stack.rootfs, node, &stack.wait, &target), -EIO);
	assert_int_equal(rootfs_origin(stack.rootfs, node, &stack.wait, &layer), -EIO);
	assert_int_equal(rootfs_listxattr(stack.rootfs, node, NULL, 0, &stack.wait), -EIO);
	assert_int_equal(rootfs_list(stack.rootfs, ROOTFS_ROOT, 0, count_name, &names, &stack.wait),
			 -EIO);
	stack.layers[0].broken = false;
	assert_tree(&stack, "a=1 b=2");
	assert_int_equal(walk_to(&stack, "a", &stack.wait, &other), 0);
	assert_true(node.layer == other.layer && node.ino == other.ino);
	wait_release(&wait);
}

/* An index made in another way has other numbers, and the kernel has those of the one that broke.
 */
static void test_broken_for_good(void **state)
{
	AUTO_STACK struct stack stack;
	struct rootfs_node node;
	struct stat st;
	bool exact;

	(void)state;
	stack_init(&stack, "f a 1 | f b 2", false);
	node = find(&stack, "a");
	stack.layers[0].broken = true;
	assert_int_equal(rootfs_stat(stack.rootfs, node, &stack.wait, &st, &exact), -EIO);
	stack.layers[0].broken = false;
	stack.layers[0].numbering++;
	assert_int_equal(rootfs_stat(stack.rootfs, node, &stack.wait, &st, &exact), -EIO);
	stack.layers[0].numbering--;
	assert_int_equal(rootfs_stat(stack.rootfs, node, &stack.wait, &st, &exact), 0);
}

/* --- what nodes tell --- */

static void test_errors(void **state)
{
	AUTO_STACK struct stack stack;
	struct rootfs_node file, link, dir, node;
	char name[256], *target;
	unsigned names = 0;
	uint64_t id;

	(void)state;
	stack_init(&stack, "f a 1; l l x; d d 2 | f b 2", false);
	file = find(&stack, "a");
	link = find(&stack, "l");
	dir = find(&stack, "d");
	memset(name, 'n', sizeof(name));
	assert_int_equal(rootfs_lookup(stack.rootfs, file, "x", 1, &stack.wait, &node), -ENOTDIR);
	assert_int_equal(rootfs_lookup(stack.rootfs, dir, name, 255, &stack.wait, &node), -ENOENT);
	assert_int_equal(rootfs_lookup(stack.rootfs, dir, name, 256, &stack.wait, &node),
			 -ENAMETOOLONG);
	assert_int_equal(rootfs_list(stack.rootfs, link, 0, count_name, &names, &stack.wait),
			 -ENOTDIR);
	assert_int_equal(rootfs_readlink(stack.rootfs, file, &stack.wait, &target), -EINVAL);
	assert_int_equal(rootfs_readlink(stack.rootfs, ROOTFS_ROOT, &stack.wait, &target), -EINVAL);
	assert_int_equal(rootfs_read(stack.rootfs, dir, 0, &id, 8, &stack.wait), -EISDIR);
	assert_int_equal(rootfs_read(stack.rootfs, ROOTFS_ROOT, 0, &id, 8, &stack.wait), -EISDIR);
	assert_int_equal(rootfs_read(stack.rootfs, link, 0, &id, 8, &stack.wait), -EINVAL);
	assert_int_equal(rootfs_read(stack.rootfs, file, 3, &id, 8, &stack.wait), 5);
	assert_int_equal(rootfs_read(stack.rootfs, file, 8, &id, 8, &stack.wait), 0);
	assert_int_equal(rootfs_seek(stack.rootfs, file, 3, SEEK_HOLE, &stack.wait), 8);
	assert_int_equal(rootfs_seek(stack.rootfs, file, 8, SEEK_DATA, &stack.wait), -ENXIO);
	/* nodes that cannot be */
	node = (struct rootfs_node){.layer = 2, .ino = 0};
	assert_int_equal(rootfs_read(stack.rootfs, node, 0, &id, 8, &stack.wait), -EIO);
	node = (struct rootfs_node){.layer = 1, .ino = 99};
	assert_int_equal(rootfs_lookup(stack.rootfs, node, "x", 1, &stack.wait, &node), -EIO);
}

static const struct tar_xattr capability = {"security.capability", "\1\0\2", 3};
static const struct tar_xattr two_xattrs[] = {{"user.b", "bee", 3}, {"user.a", "", 0}};
static const struct tar_extent extents[] = {{1000, 100}, {4096, 1000}};
static const struct tar_member members[] = {
	{.path = "./", .mode = S_IFDIR | 01777, .uid = 3, .gid = 4, .mtime_sec = 5},
	{.path = "d", .mode = S_IFDIR | 02750, .xattrs = two_xattrs, .nxattrs = 2},
	{.path = "ping",
	 .mode = S_IFREG | 04755,
	 .uid = 1000,
	 .gid = 65534,
	 .size = 1025,
	 .mtime_sec = -1,
	 .mtime_nsec = 999999999,
	 .xattrs = &capability,
	 .nxattrs = 1},
	{.path = "sparse",
	 .mode = S_IFREG | 0600,
	 .size = 1ull << 33,
	 .sparse = true,
	 .extents = extents,
	 .nextents = 2},
	{.path = "dev", .mode = S_IFBLK | 0660, .rdev_major = 259, .rdev_minor = 70000},
	{.path = "fifo", .mode = S_IFIFO | 0620},
};

static void stack_of_members(struct stack *stack)
{
	struct index_builder *builder = index_builder_new();

	assert_non_null(builder);
	stack_begin(stack);
	for (size_t i = 0; i < ARRAY_SIZE(members); i++)
		assert_int_equal(index_builder_member(builder, &members[i]), 0);
	stack_add(stack, builder);
	stack_script(stack, "f d/x 1; f top 2");
	stack_mount(stack, false);
}

static struct stat stat_of(struct stack *stack, const char *path)
{
	struct stat st;
	bool exact;

	assert_int_equal(rootfs_stat(stack->rootfs, find(stack, path), &stack->wait, &st, &exact),
			 0);
	return st;
}

static void test_stat(void **state)
{
	AUTO_STACK struct stack stack;
	struct stat st;

	(void)state;
	stack_of_members(&stack);
	st = stat_of(&stack, "");
	assert_int_equal(st.st_mode, S_IFDIR | 01777);
	assert_int_equal(st.st_uid, 3);
	assert_int_equal(st.st_gid, 4);
	assert_int_equal(st.st_mtim.tv_sec, 5);
	assert_int_equal(st.st_nlink, 3);
	st = stat_of(&stack, "ping");
	assert_int_equal(st.st_mode, S_IFREG | 04755);
	assert_int_equal(st.st_uid, 1000);
	assert_int_equal(st.st_gid, 65534);
	assert_int_equal(st.st_size, 1025);
	assert_int_equal(st.st_blocks, 3);
	assert_int_equal(st.st_mtim.tv_sec, -1);
	assert_int_equal(st.st_ctim.tv_nsec, 999999999);
	assert_int_equal(st.st_nlink, 1);
	st = stat_of(&stack, "sparse");
	assert_int_equal(st.st_size, 1ull << 33);
	assert_int_equal(st.st_blocks, 3);
	st = stat_of(&stack, "dev");
	assert_int_equal(st.st_mode, S_IFBLK | 0660);
	assert_int_equal(st.st_rdev, makedev(259, 70000));
	st = stat_of(&stack, "fifo");
	assert_int_equal(st.st_mode, S_IFIFO | 0620);
	assert_int_equal(stat_of(&stack, "d").st_mode, S_IFDIR | 02750);
}

static void test_xattrs(void **state)
{
	AUTO_STACK struct stack stack;
	struct rootfs_node ping, dir, top;
	char buf[64];

	(void)state;
	stack_of_members(&stack);
	ping = find(&stack, "ping");
	dir = find(&stack, "d");
	top = find(&stack, "top");
	assert_int_equal(
		rootfs_getxattr(stack.rootfs, ping, "security.capability", NULL, 0, &stack.wait),
		3);
	assert_int_equal(
		rootfs_getxattr(stack.rootfs, ping, "security.capability", buf, 2, &stack.wait),
		-ERANGE);
	assert_int_equal(
		rootfs_getxattr(stack.rootfs, ping, "security.capability", buf, 3, &stack.wait), 3);
	assert_memory_equal(buf, "\1\0\2", 3);
	assert_int_equal(rootfs_getxattr(stack.rootfs, ping, "user.a", buf, 3, &stack.wait),
			 -ENODATA);
	/* of a directory: of the layer that names it */
	assert_int_equal(rootfs_getxattr(stack.rootfs, dir, "user.a", buf, 9, &stack.wait), 0);
	assert_int_equal(rootfs_getxattr(stack.rootfs, dir, "user.b", buf, 9, &stack.wait), 3);
	assert_int_equal(rootfs_listxattr(stack.rootfs, dir, NULL, 0, &stack.wait), 14);
	assert_int_equal(rootfs_listxattr(stack.rootfs, dir, buf, 13, &stack.wait), -ERANGE);
	assert_int_equal(rootfs_listxattr(stack.rootfs, dir, buf, 14, &stack.wait), 14);
	assert_memory_equal(buf, "user.b\0user.a", 14);
	assert_int_equal(rootfs_listxattr(stack.rootfs, top, buf, 14, &stack.wait), 0);
}

static void test_origin(void **state)
{
	AUTO_STACK struct stack stack;
	unsigned layer;

	static const struct {
		const char *path;
		unsigned layer;
	} cases[] = {{"a", 0}, {"b", 1}, {"d", 1}, {"d/x", 2}, {"e", 0}, {"k", 0}, {"", 0}};

	(void)state;
	stack_init(&stack, "f a 1; d d 5 | f b 2; d d 6 | f d/x 3; f e/y 4; h k a", false);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(rootfs_origin(stack.rootfs, find(&stack, cases[i].path),
					       &stack.wait, &layer),
				 0);
		assert_int_equal(layer, cases[i].layer);
	}
}

static void test_numbers(void **state)
{
	AUTO_STACK struct stack one, two;
	const char *script = "f a 1; h b a; d d 2; f e 3";

	(void)state;
	stack_init(&one, script, false);
	stack_init(&two, script, false);
	assert_int_equal(stat_of(&one, "a").st_ino, stat_of(&one, "b").st_ino);
	assert_int_not_equal(stat_of(&one, "a").st_ino, stat_of(&one, "e").st_ino);
	assert_int_not_equal(stat_of(&one, "").st_ino, stat_of(&one, "d").st_ino);
	/* the same over remounts */
	assert_int_equal(stat_of(&one, "a").st_ino, stat_of(&two, "a").st_ino);
	assert_int_equal(stat_of(&one, "").st_ino, stat_of(&two, "").st_ino);
}

/* --- large directories, and more of them than are remembered --- */

struct expect {
	uint64_t pos;
	unsigned left; /* names before it stops */
};

static int expect_name(void *arg, uint64_t pos, const char *name, size_t len,
		       struct rootfs_node node)
{
	struct expect *expect = arg;
	char text[32];

	(void)node;
	snprintf(text, sizeof(text), "n%06llu", (unsigned long long)pos);
	assert_int_equal(pos, expect->pos);
	assert_int_equal(len, strlen(text));
	assert_memory_equal(name, text, len);
	expect->pos++;
	return expect->left-- == 0;
}

static void test_seek_in_listing(void **state)
{
	AUTO_STACK struct stack stack;
	const uint64_t n = 20000;

	(void)state;
	stack_begin(&stack);
	for (unsigned layer = 0; layer < 3; layer++) {
		struct index_builder *builder = index_builder_new();
		for (unsigned i = layer; i < n; i += 3) {
			char line[64];
			snprintf(line, sizeof(line), "f d/n%06u %u", i, i);
			assert_int_equal(script_add(builder, line), 0);
		}
		stack_add(&stack, builder);
	}
	stack_mount(&stack, false);
	struct rootfs_node dir = find(&stack, "d");
	for (uint64_t pos = 0; pos <= n + 1; pos += 333) {
		struct expect expect = {.pos = pos, .left = 5};
		assert_int_equal(
			rootfs_list(stack.rootfs, dir, pos, expect_name, &expect, &stack.wait), 0);
		assert_int_equal(expect.pos, pos >= n ? pos : MIN(pos + 6, n));
	}
}

/* Listings of more bytes than are kept. */
static void test_large_listings(void **state)
{
	AUTO_STACK struct stack stack;
	const unsigned n = 200000;

	(void)state;
	stack_begin(&stack);
	for (unsigned layer = 0; layer < 2; layer++) {
		struct index_builder *builder = index_builder_new();
		char path[32];
		struct tar_member member = {.path = path, .mode = S_IFREG};
		for (unsigned i = layer; i < 3 * n; i += 2) {
			snprintf(path, sizeof(path), "d%u/n%06u", i / n, i % n);
			assert_int_equal(index_builder_member(builder, &member), 0);
		}
		stack_add(&stack, builder);
	}
	stack_mount(&stack, false);
	for (unsigned i = 0; i < 12; i++) {
		char path[32];
		snprintf(path, sizeof(path), "d%u", i % 3);
		struct expect expect = {.pos = i * n / 12, .left = 5};
		assert_int_equal(rootfs_list(stack.rootfs, find(&stack, path), expect.pos,
					     expect_name, &expect, &stack.wait),
				 0);
		assert_int_equal(expect.pos, i * n / 12 + 6);
	}
}

static void test_many_dirs(void **state)
{
	AUTO_STACK struct stack stack;
	const unsigned n = 3000;

	(void)state;
	stack_begin(&stack);
	for (unsigned layer = 0; layer < 3; layer++) {
		struct index_builder *builder = index_builder_new();
		for (unsigned i = 0; i < n; i++) {
			char line[64];
			snprintf(line, sizeof(line), "f d%u/s%u/f 1; d d%u/e 1", i, layer, i);
			assert_int_equal(script_add(builder, line), 0);
		}
		stack_add(&stack, builder);
	}
	stack_mount(&stack, false);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < n; i++) {
			char path[64];
			unsigned names = 0;

			snprintf(path, sizeof(path), "d%u", i);
			assert_int_equal(stat_of(&stack, path).st_nlink, 6);
			assert_int_equal(rootfs_list(stack.rootfs, find(&stack, path), 0,
						     count_name, &names, &stack.wait),
					 0);
			assert_int_equal(names, 4);
			snprintf(path, sizeof(path), "d%u/s0/f", i);
			assert_int_equal(stat_of(&stack, path).st_size, 8);
		}
	}
}

/* More linked files than counts are remembered. */
static void test_many_links(void **state)
{
	AUTO_STACK struct stack stack;
	struct index_builder *builder = index_builder_new();
	const unsigned n = 3000;

	(void)state;
	stack_begin(&stack);
	for (unsigned i = 0; i < n; i++) {
		char lines[128];
		snprintf(lines, sizeof(lines), "f a%u 1; h b%u a%u; h %s%u a%u", i, i, i,
			 i % 3 ? "b" : "c", i, i);
		assert_int_equal(script_add(builder, lines), 0);
	}
	stack_add(&stack, builder);
	stack_mount(&stack, false);
	for (unsigned i = 0; i < 2 * n; i++) {
		char path[32];
		snprintf(path, sizeof(path), "b%u", i % n);
		assert_int_equal(stat_of(&stack, path).st_nlink, i % n % 3 ? 2 : 3);
	}
}

/* --- many threads --- */

static void *walk_thread(void *arg)
{
	struct stack *stack = arg;
	struct wait wait;
	struct rootfs_node node;
	struct stat st;
	bool exact;

	wait_init(&wait, true);
	for (unsigned i = 0; i < 300; i++) {
		char path[64];
		unsigned names = 0;
		int err;

		snprintf(path, sizeof(path), "d%u/b", i % 50);
		err = walk_to(stack, path, &wait, &node);
		if (!err)
			err = rootfs_stat(stack->rootfs, node, &wait, &st, &exact);
		if (err || st.st_nlink != 2)
			return stack;
		snprintf(path, sizeof(path), "d%u", i % 50);
		err = walk_to(stack, path, &wait, &node);
		if (!err)
			err = rootfs_list(stack->rootfs, node, 0, count_name, &names, &wait);
		if (err || names != 3)
			return stack;
	}
	wait_release(&wait);
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t threads[4];

	(void)state;
	for (unsigned round = 0; round < 20; round++) {
		AUTO_STACK struct stack stack;

		stack_begin(&stack);
		for (unsigned layer = 0; layer < 3; layer++) {
			struct index_builder *builder = index_builder_new();
			for (unsigned i = 0; i < 50; i++) {
				static const char *const lines[] = {"f d%u/a 1", "h d%u/b d%u/a",
								    "f d%u/c 2"};
				char line[64];
				snprintf(line, sizeof(line), lines[layer], i, i);
				assert_int_equal(script_add(builder, line), 0);
			}
			stack_add(&stack, builder);
		}
		stack_mount(&stack, false);
		for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
			assert_int_equal(pthread_create(&threads[i], NULL, walk_thread, &stack), 0);
		for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
			void *failed;
			pthread_join(threads[i], &failed);
			assert_null(failed);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whiteouts),   cmocka_unit_test(test_kinds_meet),
		cmocka_unit_test(test_hard_links),  cmocka_unit_test(test_link_paths),
		cmocka_unit_test(test_raw),	    cmocka_unit_test(test_empty),
		cmocka_unit_test(test_lazy),	    cmocka_unit_test(test_prepare),
		cmocka_unit_test(test_would_block), cmocka_unit_test(test_long_work),
		cmocka_unit_test(test_broken),	    cmocka_unit_test(test_broken_for_good),
		cmocka_unit_test(test_errors),	    cmocka_unit_test(test_stat),
		cmocka_unit_test(test_xattrs),	    cmocka_unit_test(test_origin),
		cmocka_unit_test(test_numbers),	    cmocka_unit_test(test_seek_in_listing),
		cmocka_unit_test(test_many_dirs),   cmocka_unit_test(test_large_listings),
		cmocka_unit_test(test_many_links),  cmocka_unit_test(test_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
