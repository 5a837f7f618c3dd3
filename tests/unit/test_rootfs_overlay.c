// SPDX-License-Identifier: Apache-2.0
/*
 * rootfs: one layer in the form that overlayfs stacks. Each case lists the topmost layer of a
 * script; "%" is a whiteout, "!" an opaque directory.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "fakelayers.h"

struct dump {
	struct stack *stack;
	struct rootfs_node dir;
	const char *path;
	struct buf *text;
};

static void dump_dir(struct stack *stack, struct rootfs_node dir, const char *path,
		     struct buf *text);

static bool is_opaque(struct stack *stack, struct rootfs_node node)
{
	char value;
	ssize_t trusted = rootfs_getxattr(stack->rootfs, node, "trusted.overlay.opaque", &value, 1,
					  &stack->wait);
	ssize_t user = rootfs_getxattr(stack->rootfs, node, "user.overlay.opaque", &value, 1,
				       &stack->wait);

	assert_int_equal(trusted, user);
	assert_true(trusted == -ENODATA || (trusted == 1 && value == 'y'));
	return trusted == 1;
}

static int dump_name(void *arg, uint64_t pos, const char *name, size_t len, struct rootfs_node node)
{
	struct dump *dump = arg;
	struct stack *stack = dump->stack;
	AUTO_FREE char *path = format("%s%s%.*s", dump->path, *dump->path ? "/" : "", (int)len,
				      name);
	struct rootfs_node found;
	uint64_t id = 0;
	struct stat st;
	bool exact;

	(void)pos;
	assert_int_equal(rootfs_lookup(stack->rootfs, dump->dir, name, len, &stack->wait, &found),
			 0);
	assert_true(found.layer == node.layer && found.ino == node.ino);
	assert_int_equal(rootfs_stat(stack->rootfs, node, &stack->wait, &st, &exact), 0);
	assert_true(exact);
	buf_printf(dump->text, "%s%s", dump->text->len ? " " : "", path);
	if (S_ISDIR(st.st_mode)) {
		buf_printf(dump->text, "%s/%lld", is_opaque(stack, node) ? "!" : "",
			   (long long)st.st_mtim.tv_sec);
		dump_dir(stack, node, path, dump->text);
	} else if (S_ISREG(st.st_mode)) {
		assert_int_equal(rootfs_read(stack->rootfs, node, 0, &id, sizeof(id), &stack->wait),
				 8);
		buf_printf(dump->text, "=%llu", (unsigned long long)id);
	} else {
		assert_true(S_ISCHR(st.st_mode));
		assert_false(is_opaque(stack, node));
		assert_int_equal(st.st_nlink, 1);
		buf_printf(dump->text, "%s", st.st_rdev == 0 ? "%" : "#");
	}
	return 0;
}

static void dump_dir(struct stack *stack, struct rootfs_node dir, const char *path,
		     struct buf *text)
{
	struct dump dump = {.stack = stack, .dir = dir, .path = path, .text = text};

	assert_int_equal(rootfs_list(stack->rootfs, dir, 0, dump_name, &dump, &stack->wait), 0);
}

static void mount_overlay(struct stack *stack, const char *script)
{
	static const uint8_t identity[DIGEST_KEY_LEN] = {1};
	struct rootfs_options options = {
		.overlay = true,
		.created_sec = 777,
		.identity = identity,
		.layer = stack_open,
		.arg = stack,
	};

	stack_begin(stack);
	stack_script(stack, script);
	options.nlayers = stack->nlayers;
	assert_int_equal(rootfs_new(&options, &stack->rootfs), 0);
}

static void assert_overlay(const char *script, const char *expected)
{
	AUTO_STACK struct stack stack;
	AUTO_BUF struct buf text = BUF_INIT(MIB);

	mount_overlay(&stack, script);
	dump_dir(&stack, ROOTFS_ROOT, "", &text);
	buf_puts(&text, "");
	assert_string_equal(text.data, expected);
}

static void test_whiteouts(void **state)
{
	(void)state;
	assert_overlay("f a 1; f b 2 | f .wh.a 0; f c 3", "a% c=3");
	assert_overlay("f d/a 1 | f d/.wh.a 0; d d 5", "d/5 d/a%");
	/* what the layer puts in the place says it already */
	assert_overlay("f a 1 | f .wh.a 0; f a 2", "a=2");
	assert_overlay("d a 1; f a/x 1 | f .wh.a 0; d a 2", "a!/2");
	assert_overlay("d a 1 | f .wh.a 0; f a/b 3", "a!/777 a/b=3");
	/* no names of their own */
	assert_overlay("f a 1 | f .wh..wh.plnk 1; f .wh. 2; d .wh.a 3; f .whx 4", "a% .whx=4");
	/* a device of the image itself is none */
	assert_overlay("f a 1 | c a 0", "a#");
}

static void test_opaque(void **state)
{
	(void)state;
	assert_overlay("d d 5; f d/a 1 | d d 6; f d/.wh..wh..opq 0; f d/b 2", "d!/6 d/b=2");
	/* whiteouts in it have nothing left to delete */
	assert_overlay("d d 5; f d/a 1 | d d 6; f d/.wh..wh..opq 0; f d/.wh.a 2", "d!/6");
}

/* Overlayfs shows the whiteouts of a directory that it does not merge as broken names. */
static void test_nothing_below(void **state)
{
	(void)state;
	assert_overlay("f a 1; f .wh.b 0; d d 1; f d/.wh.c 0", "a=1 d/1");
	assert_overlay("f a 1 | d d 1; f d/.wh.c 0; f .wh.x 0", "x% d/1");
	assert_overlay("f d 1 | d d 1; f d/.wh.c 0", "d/1");
}

static void test_links_out(void **state)
{
	(void)state;
	assert_overlay("f a 7 | h b a", "b=7");
	assert_overlay("f a 7 | f a 8 | h b a; h c b", "b=8 c=8");
	/* nowhere: what was there is gone */
	assert_overlay("f b 1 | h b nowhere; h c nowhere", "b% c%");
}

static void test_nobody_named_it(void **state)
{
	(void)state;
	assert_overlay("d d 5; d d/e 6 | f d/e/a 1", "d/5 d/e/6 d/e/a=1");
	assert_overlay("d d 5 | f .wh.d 0 | f d/a 1", "d/777 d/a=1");
}

static void test_lazy(void **state)
{
	AUTO_STACK struct stack stack;
	struct rootfs_node node;

	(void)state;
	mount_overlay(&stack, "f a 1; d d 5 | f b 1 | f c 1; d d 6; f d/x 2");
	assert_int_equal(rootfs_lookup(stack.rootfs, ROOTFS_ROOT, "c", 1, &stack.wait, &node), 0);
	assert_int_equal(rootfs_lookup(stack.rootfs, ROOTFS_ROOT, "d", 1, &stack.wait, &node), 0);
	assert_int_equal(rootfs_lookup(stack.rootfs, node, "x", 1, &stack.wait, &node), 0);
	assert_int_equal(rootfs_lookup(stack.rootfs, ROOTFS_ROOT, "a", 1, &stack.wait, &node),
			 -ENOENT);
	assert_int_equal(rootfs_lookup(stack.rootfs, ROOTFS_ROOT, ".wh.a", 5, &stack.wait, &node),
			 -ENOENT);
	assert_int_equal(stack.opened, 1 << 2);
}

/* What a layer says about overlayfs itself is not passed on: it could redirect the merge. */
static void test_reserved(void **state)
{
	static const struct tar_xattr xattrs[] = {{"trusted.overlay.redirect", "/x", 2},
						  {"user.overlay.opaque", "y", 1},
						  {"user.a", "1", 1}};
	const struct tar_member member = {
		.path = "d", .mode = S_IFDIR | 0755, .xattrs = xattrs, .nxattrs = 3};
	AUTO_STACK struct stack stack;
	struct index_builder *builder = index_builder_new();
	static const uint8_t identity[DIGEST_KEY_LEN] = {1};
	struct rootfs_options options = {
		.nlayers = 1, .overlay = true, .identity = identity, .layer = stack_open};
	struct rootfs_node node;
	char buf[64];

	(void)state;
	stack_begin(&stack);
	assert_int_equal(index_builder_member(builder, &member), 0);
	stack_add(&stack, builder);
	options.arg = &stack;
	assert_int_equal(rootfs_new(&options, &stack.rootfs), 0);
	assert_int_equal(rootfs_lookup(stack.rootfs, ROOTFS_ROOT, "d", 1, &stack.wait, &node), 0);
	assert_int_equal(rootfs_listxattr(stack.rootfs, node, buf, sizeof(buf), &stack.wait), 7);
	assert_string_equal(buf, "user.a");
	assert_false(is_opaque(&stack, node));
	assert_int_equal(rootfs_getxattr(stack.rootfs, node, "trusted.overlay.redirect", buf, 9,
					 &stack.wait),
			 -ENODATA);
}

static void test_opaque_is_listed(void **state)
{
	static const char names[] = "trusted.overlay.opaque";
	AUTO_STACK struct stack stack;
	struct rootfs_node node;
	char buf[64];

	(void)state;
	mount_overlay(&stack, "d d 1 | d d 2; f d/.wh..wh..opq 0");
	assert_int_equal(rootfs_lookup(stack.rootfs, ROOTFS_ROOT, "d", 1, &stack.wait, &node), 0);
	assert_int_equal(rootfs_listxattr(stack.rootfs, node, NULL, 0, &stack.wait), sizeof(names));
	assert_int_equal(rootfs_listxattr(stack.rootfs, node, buf, sizeof(names) - 1, &stack.wait),
			 -ERANGE);
	assert_int_equal(rootfs_listxattr(stack.rootfs, node, buf, sizeof(buf), &stack.wait),
			 sizeof(names));
	assert_memory_equal(buf, names, sizeof(names));
}

static void test_depth(void **state)
{
	static const struct {
		const char *path;
		unsigned depth;
	} cases[] = {{"a", 0}, {"d/a", 1}, {"d/e/a", 2}};
	AUTO_STACK struct stack stack;

	(void)state;
	stack_init(&stack, "l a x; l d/a x; l d/e/a x", false);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct rootfs_node node = ROOTFS_ROOT;
		const char *path = cases[i].path;
		unsigned depth = 99;

		while (*path) {
			size_t len = strcspn(path, "/");

			assert_int_equal(
				rootfs_lookup(stack.rootfs, node, path, len, &stack.wait, &node),
				0);
			path += len + (path[len] == '/');
		}
		assert_int_equal(rootfs_depth(stack.rootfs, node, &stack.wait, &depth), 0);
		assert_int_equal(depth, cases[i].depth);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whiteouts),	cmocka_unit_test(test_opaque),
		cmocka_unit_test(test_nothing_below),	cmocka_unit_test(test_links_out),
		cmocka_unit_test(test_nobody_named_it), cmocka_unit_test(test_lazy),
		cmocka_unit_test(test_reserved),	cmocka_unit_test(test_opaque_is_listed),
		cmocka_unit_test(test_depth),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
