/* SPDX-License-Identifier: Apache-2.0 */
/* node and inode: interning, counts, slots. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "regfs/inode.h"

static unsigned freed;

static void fake_free(struct node *node)
{
	freed++;
	free(node);
}

static const struct node_ops fake_ops = {.kind = "fake", .free = fake_free};

static struct node *fake_new(struct nodes *nodes, struct node *parent, const char *name)
{
	struct node *node = node_new(sizeof(*node), nodes, &fake_ops, parent, name);

	assert_non_null(node);
	return node;
}

static void test_one_node_per_path(void **state)
{
	struct nodes *nodes = nodes_new();
	struct node *root = fake_new(nodes, NULL, "");
	struct node *first = node_intern(fake_new(nodes, root, "a"), 0);
	struct node *second = node_intern(fake_new(nodes, root, "a"), 0);
	struct node *other = node_intern(fake_new(nodes, root, "a"), 7);

	(void)state;
	freed = 0;
	assert_ptr_equal(first, second);
	assert_ptr_not_equal(first, other);
	assert_int_not_equal(first->ino, root->ino);
	assert_int_equal(first->ino, node_ino(root, "a"));
	node_unref(other);
	assert_int_equal(freed, 1);
	node_unref(second);
	assert_int_equal(freed, 1);
	node_unref(first);
	assert_int_equal(freed, 2);
	assert_null(node_find(nodes, root, "a", 0));
	node_unref(root);
	nodes_free(nodes);
}

/* A child keeps its parent; many nodes make the table grow. */
static void test_many_children(void **state)
{
	enum { N = 5000 };
	static struct node *children[N];
	struct nodes *nodes = nodes_new();
	struct node *root = fake_new(nodes, NULL, "");
	char name[16];

	(void)state;
	freed = 0;
	for (unsigned i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "%u", i);
		children[i] = node_intern(fake_new(nodes, root, name), 0);
	}
	node_unref(root);
	assert_int_equal(freed, 0);
	for (unsigned i = 0; i < N; i++) {
		struct node *found;

		snprintf(name, sizeof(name), "%u", i);
		found = node_find(nodes, root, name, 0);
		assert_ptr_equal(found, children[i]);
		node_unref(found);
		node_unref(children[i]);
	}
	assert_int_equal(freed, N + 1);
	nodes_free(nodes);
}

static void test_lookups_are_counted(void **state)
{
	struct nodes *nodes = nodes_new();
	struct node *root = fake_new(nodes, NULL, "");
	struct node *node = node_intern(fake_new(nodes, root, "tree"), 0);
	struct inodes *inodes = inodes_new(root);
	const struct node_ref one = {.node = node, .sub = 1}, two = {.node = node, .sub = 2};
	const struct node_ref top = {.node = root};
	uint64_t id_one, id_two, id_root, generation, again;
	struct node_ref found;

	(void)state;
	freed = 0;
	assert_int_equal(inodes_add(inodes, &top, &id_root, &generation), 0);
	assert_int_equal(id_root, 1);
	assert_int_equal(inodes_id(inodes, &one), 0);
	assert_int_equal(inodes_add(inodes, &one, &id_one, &generation), 0);
	assert_int_equal(inodes_add(inodes, &one, &id_one, &generation), 0);
	assert_int_equal(inodes_add(inodes, &two, &id_two, &generation), 0);
	assert_int_not_equal(id_one, id_two);
	assert_int_equal(inodes_count(inodes), 1);
	assert_int_equal(inodes_get(inodes, id_two, &found), 0);
	assert_ptr_equal(found.node, node);
	assert_int_equal(found.sub, 2);
	node_unref(node);
	inodes_forget(inodes, id_one, 2);
	assert_int_equal(freed, 0);
	inodes_forget(inodes, id_two, 1);
	assert_int_equal(freed, 1);
	assert_int_equal(inodes_get(inodes, id_two, &found), -ESTALE);

	/* the slot is used again, with another generation */
	node = node_intern(fake_new(nodes, root, "other"), 0);
	const struct node_ref other = {.node = node, .sub = 2};
	uint64_t later;
	assert_int_equal(inodes_add(inodes, &other, &again, &later), 0);
	assert_int_equal(again, id_two);
	assert_int_not_equal(later, generation);
	node_unref(node);
	/* who still has the node may ask for it when the kernel is gone */
	node = node_intern(fake_new(nodes, root, "last"), 0);
	const struct node_ref last = {.node = node};
	assert_int_equal(inodes_add(inodes, &last, &again, &later), 0);
	assert_int_equal(inodes_id(inodes, &last), again);
	inodes_close(inodes);
	assert_int_equal(inodes_id(inodes, &last), 0);
	assert_int_equal(inodes_id(inodes, &top), 0);
	assert_int_equal(inodes_count(inodes), 0);
	node_unref(node);
	inodes_free(inodes);
	node_unref(root);
	assert_int_equal(freed, 4);
	nodes_free(nodes);
}

static void test_nonsense_numbers(void **state)
{
	struct nodes *nodes = nodes_new();
	struct node *root = fake_new(nodes, NULL, "");
	struct inodes *inodes = inodes_new(root);
	struct node_ref found;

	(void)state;
	assert_int_equal(inodes_get(inodes, 2, &found), -ESTALE);
	assert_int_equal(inodes_get(inodes, UINT64_MAX, &found), -ESTALE);
	inodes_forget(inodes, UINT64_MAX, 3);
	inodes_forget(inodes, 0, 1);
	inodes_free(inodes);
	node_unref(root);
	nodes_free(nodes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_node_per_path),
		cmocka_unit_test(test_many_children),
		cmocka_unit_test(test_lookups_are_counted),
		cmocka_unit_test(test_nonsense_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
