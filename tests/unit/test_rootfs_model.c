// SPDX-License-Identifier: Apache-2.0
/*
 * rootfs against a model: thousands of small random stacks of layers, applied one after the other
 * to a list of paths in the plainest way, and every look-up, listing and attribute compared.
 */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "fakelayers.h"
#include "regfs/log.h"

#define PATH_CAP   64
#define MAX_NAMES  200
#define MAX_FILES  400
#define MAX_LAYERS 6
#ifndef ROUNDS
#define ROUNDS 4000
#endif

/* --- a tree as a list --- */

struct file {
	char type; /* d f l; ? a link that leads nowhere */
	unsigned id;
	unsigned origin; /* the layer that named it; a directory nobody named has id 0 */
	char target[PATH_CAP];
};

struct name {
	char path[PATH_CAP];
	struct file *file;
};

struct tree {
	struct name names[MAX_NAMES];
	int n;
};

struct model {
	struct file files[MAX_FILES];
	int nfiles;
	struct tree tree;  /* all layers so far */
	struct tree below; /* as it was under this layer */
	struct tree layer; /* this layer's own names; whiteouts among them */
	struct buf script;
};

static struct file *new_file(struct model *model, char type, unsigned id, unsigned origin)
{
	struct file *file = &model->files[model->nfiles++];

	assert_true(model->nfiles <= MAX_FILES);
	*file = (struct file){.type = type, .id = id, .origin = origin};
	return file;
}

static struct name *find(struct tree *tree, const char *path)
{
	for (int i = 0; i < tree->n; i++) {
		if (strcmp(tree->names[i].path, path) == 0)
			return &tree->names[i];
	}
	return NULL;
}

static bool is_dir(const struct name *name)
{
	return name && name->file->type == 'd';
}

static bool is_inside(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	return len == 0 || (strncmp(path, dir, len) == 0 && path[len] == '/');
}

/* All that is in DIR; with itself, if SELF. */
static void take_out(struct tree *tree, const char *dir, bool self)
{
	int kept = 0;

	for (int i = 0; i < tree->n; i++) {
		struct name *name = &tree->names[i];
		if (is_inside(name->path, dir) || (self && strcmp(name->path, dir) == 0))
			continue;
		tree->names[kept++] = *name;
	}
	tree->n = kept;
}

static void set_path(char out[PATH_CAP], const char *path)
{
	size_t len = strlen(path);

	assert_true(len < PATH_CAP);
	memcpy(out, path, len + 1);
}

static struct name *put(struct tree *tree, const char *path, struct file *file)
{
	struct name *name;

	take_out(tree, path, true);
	assert_true(tree->n < MAX_NAMES);
	name = &tree->names[tree->n++];
	set_path(name->path, path);
	name->file = file;
	return name;
}

/* DIR and NAME joined; *RET is the last component of PATH. */
static void split(const char *path, char dir[PATH_CAP], const char **ret)
{
	const char *slash = strrchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) : 0;

	memcpy(dir, path, len);
	dir[len] = '\0';
	*ret = slash ? slash + 1 : path;
}

static void join(char out[PATH_CAP], const char *dir, const char *name)
{
	char joined[2 * PATH_CAP];

	snprintf(joined, sizeof(joined), "%s%s%s", dir, dir[0] ? "/" : "", name);
	set_path(out, joined);
}

/* --- a layer applied --- */

static bool is_hidden(const char *path)
{
	return starts_with(path, ".wh.") || strstr(path, "/.wh.");
}

static void apply_whiteouts(struct model *model)
{
	for (int i = 0; i < model->layer.n; i++) {
		char dir[PATH_CAP], victim[PATH_CAP];
		const char *base;

		split(model->layer.names[i].path, dir, &base);
		if (is_hidden(dir) || !starts_with(base, ".wh."))
			continue;
		if (strcmp(base, ".wh..wh..opq") == 0) {
			take_out(&model->tree, dir, false);
		} else {
			join(victim, dir, base + 4);
			take_out(&model->tree, victim, true);
		}
	}
}

static void apply_dir(struct model *model, const struct name *entry)
{
	struct name *name = find(&model->tree, entry->path);

	if (!is_dir(name))
		put(&model->tree, entry->path, entry->file);
	else if (entry->file->id)
		name->file = entry->file;
}

/* As open(2) would: symlinks on the way followed, the last component not. NULL: nothing. */
static struct name *resolve(struct tree *tree, const char *path, int *hops)
{
	char at[PATH_CAP] = "", rest[4096];

	snprintf(rest, sizeof(rest), "%s", path);
	while (rest[0]) {
		char part[PATH_CAP], next[PATH_CAP], joined[4096 + 2 * PATH_CAP];
		size_t len = strcspn(rest, "/");
		struct name *name;
		const char *unused;

		snprintf(part, sizeof(part), "%.*s", (int)len, rest);
		memmove(rest, rest + len + (rest[len] == '/'),
			strlen(rest + len + (rest[len] == '/')) + 1);
		if (!part[0] || strcmp(part, ".") == 0)
			continue;
		if (strcmp(part, "..") == 0) {
			split(at, next, &unused);
			set_path(at, next);
			continue;
		}
		if (strlen(at) + strlen(part) + 2 > PATH_CAP)
			return NULL;
		join(next, at, part);
		name = find(tree, next);
		if (!name || is_hidden(next))
			return NULL;
		if (!rest[0])
			return name;
		if (is_dir(name)) {
			set_path(at, next);
		} else if (name->file->type == 'l' && ++*hops <= 40) {
			snprintf(joined, sizeof(joined), "%s/%s", name->file->target, rest);
			if (strlen(joined) >= sizeof(rest))
				return NULL;
			memcpy(rest, joined, strlen(joined) + 1);
			if (name->file->target[0] == '/')
				at[0] = '\0';
		} else {
			return NULL;
		}
	}
	return NULL;
}

static void apply_other(struct model *model, const struct name *entry)
{
	struct file *file = entry->file;
	int hops = 0;

	if (file->type == '?') {
		struct name *target = resolve(&model->below, file->target, &hops);
		if (!target || is_dir(target)) {
			take_out(&model->tree, entry->path, true);
			return;
		}
		file = target->file;
	}
	put(&model->tree, entry->path, file);
}

static int by_path(const void *left, const void *right)
{
	return strcmp(((const struct name *)left)->path, ((const struct name *)right)->path);
}

static void apply_layer(struct model *model)
{
	struct tree *layer = &model->layer;

	/* parents first */
	qsort(layer->names, (size_t)layer->n, sizeof(layer->names[0]), by_path);
	model->below = model->tree;
	apply_whiteouts(model);
	for (int i = 0; i < layer->n; i++) {
		struct name *entry = &layer->names[i];
		if (is_hidden(entry->path))
			continue;
		if (is_dir(entry))
			apply_dir(model, entry);
		else
			apply_other(model, entry);
	}
}

/* --- random layers --- */

static unsigned pick(unsigned *seed, unsigned n)
{
	return (unsigned)rand_r(seed) % n;
}

static void random_path(unsigned *seed, bool whiteouts, char out[PATH_CAP])
{
	static const char *const words[] = {"a", "b", "c", "ab"};
	unsigned depth = 1 + pick(seed, 3);
	char path[PATH_CAP] = "", part[32];

	for (unsigned i = 0; i < depth; i++) {
		const char *word = words[pick(seed, ARRAY_SIZE(words))];
		bool last = i + 1 == depth;

		if (whiteouts && last && pick(seed, 12) == 0)
			snprintf(part, sizeof(part), ".wh..wh..opq");
		else
			snprintf(part, sizeof(part), "%s%s",
				 whiteouts && pick(seed, last ? 6 : 40) == 0 ? ".wh." : "", word);
		join(out, path, part);
		set_path(path, out);
	}
}

/* Whether all parents of PATH can be directories of this layer. */
static bool parents_free(struct tree *layer, const char *path)
{
	for (int i = 0; i < layer->n; i++) {
		if (!is_dir(&layer->names[i]) && is_inside(path, layer->names[i].path))
			return false;
	}
	return true;
}

static void add_parents(struct model *model, const char *path)
{
	char dir[PATH_CAP];
	const char *unused;

	split(path, dir, &unused);
	if (!dir[0] || find(&model->layer, dir))
		return;
	add_parents(model, dir);
	put(&model->layer, dir, new_file(model, 'd', 0, 0));
}

/* A hard link at PATH: to a file of this layer, or out of it. */
static bool random_link(struct model *model, unsigned *seed, const char *path)
{
	char target[PATH_CAP];
	struct name *inside;

	random_path(seed, false, target);
	inside = find(&model->layer, target);
	if (is_dir(inside) || !parents_free(&model->layer, target))
		return false;
	add_parents(model, path);
	if (inside) {
		put(&model->layer, path, inside->file);
	} else {
		struct file *file = new_file(model, '?', 0, 0);
		set_path(file->target, target);
		put(&model->layer, path, file);
	}
	buf_printf(&model->script, "h %s %s; ", path, target);
	return true;
}

static void random_symlink(struct model *model, unsigned *seed, const char *path, unsigned layer,
			   unsigned id)
{
	static const char *const before[] = {"", "", "/", "../", "a/../", "./"};
	struct file *file = new_file(model, 'l', id, layer);
	char target[PATH_CAP], text[2 * PATH_CAP];

	random_path(seed, false, target);
	snprintf(text, sizeof(text), "%s%s", before[pick(seed, ARRAY_SIZE(before))], target);
	set_path(file->target, text);
	add_parents(model, path);
	put(&model->layer, path, file);
	buf_printf(&model->script, "l %s %s; ", path, text);
}

static void random_member(struct model *model, unsigned *seed, unsigned layer, unsigned id)
{
	char path[PATH_CAP];
	unsigned kind = pick(seed, 10);

	random_path(seed, true, path);
	/* What one layer makes of its own members is index's test. */
	if (find(&model->layer, path) || !parents_free(&model->layer, path))
		return;
	if (kind < 3 && !is_hidden(path)) {
		random_link(model, seed, path);
	} else if (kind < 5 && !is_hidden(path)) {
		random_symlink(model, seed, path, layer, id);
	} else if (kind < 7) {
		add_parents(model, path);
		put(&model->layer, path, new_file(model, 'd', id, layer));
		buf_printf(&model->script, "d %s %u; ", path, id);
	} else {
		add_parents(model, path);
		put(&model->layer, path, new_file(model, 'f', id, layer));
		buf_printf(&model->script, "f %s %u; ", path, id);
	}
}

static void random_layers(struct model *model, unsigned seed)
{
	unsigned nlayers = 1 + pick(&seed, MAX_LAYERS), id = 1;

	for (unsigned layer = 0; layer < nlayers; layer++) {
		unsigned members = pick(&seed, 9);

		if (layer)
			buf_puts(&model->script, "| ");
		model->layer.n = 0;
		for (unsigned i = 0; i < members; i++)
			random_member(model, &seed, layer, id++);
		apply_layer(model);
	}
}

/* --- comparing --- */

/* CALL again as long as it would have to wait. */
#define AGAIN(call)                                                                                \
	({                                                                                         \
		int64_t again_;                                                                    \
		do {                                                                               \
			again_ = (call);                                                           \
		} while (again_ == -EWOULDBLOCK);                                                  \
		again_;                                                                            \
	})

struct compare {
	struct model *model;
	struct stack *stack;
	/* of the model's names */
	struct rootfs_node nodes[MAX_NAMES];
	uint64_t inos[MAX_NAMES];
	char dir[PATH_CAP];
	struct rootfs_node dir_node;
	uint64_t pos;
	bool listed[MAX_NAMES];
};

static unsigned count_links(struct tree *tree, const struct file *file)
{
	unsigned links = 0;

	for (int i = 0; i < tree->n; i++)
		links += tree->names[i].file == file;
	return links;
}

static unsigned count_subdirs(struct tree *tree, const char *dir)
{
	unsigned subdirs = 0;

	for (int i = 0; i < tree->n; i++) {
		char parent[PATH_CAP];
		const char *unused;
		split(tree->names[i].path, parent, &unused);
		subdirs += is_dir(&tree->names[i]) && strcmp(parent, dir) == 0;
	}
	return subdirs;
}

static void compare_dir(struct compare *compare, const struct name *name, const struct stat *st)
{
	const struct file *file = name->file;

	assert_true(S_ISDIR(st->st_mode));
	assert_int_equal(st->st_mode & 07777, file->id ? 0750 : 0755);
	assert_int_equal(st->st_mtim.tv_sec, file->id ? file->id : 777);
	assert_int_equal(st->st_nlink, 2 + count_subdirs(&compare->model->tree, name->path));
}

static void compare_other(struct compare *compare, const struct name *name, struct rootfs_node node,
			  const struct stat *st)
{
	struct stack *stack = compare->stack;
	const struct file *file = name->file;
	AUTO_FREE char *target = NULL;
	uint64_t id;

	assert_int_equal(st->st_nlink, count_links(&compare->model->tree, file));
	if (file->type == 'l') {
		assert_true(S_ISLNK(st->st_mode));
		assert_int_equal(AGAIN(rootfs_readlink(stack->rootfs, node, &stack->wait, &target)),
				 0);
		assert_string_equal(target, file->target);
	} else {
		assert_true(S_ISREG(st->st_mode));
		assert_int_equal(AGAIN(rootfs_read(stack->rootfs, node, 0, &id, 8, &stack->wait)),
				 8);
		assert_int_equal(id, file->id);
	}
}

static void compare_name(struct compare *compare, const struct name *name, struct rootfs_node node,
			 uint64_t *ret_ino)
{
	struct stack *stack = compare->stack;
	struct stat st;
	unsigned layer;
	bool exact;

	assert_int_equal(AGAIN(rootfs_stat(stack->rootfs, node, &stack->wait, &st, &exact)), 0);
	assert_int_equal(AGAIN(rootfs_origin(stack->rootfs, node, &stack->wait, &layer)), 0);
	assert_int_equal(layer, name->file->origin);
	if (is_dir(name) && !exact) {
		unsigned unused;
		char missing[] = "missing";
		struct rootfs_node no;
		/* asks every layer */
		assert_int_equal(
			AGAIN(rootfs_lookup(stack->rootfs, node, missing, 7, &stack->wait, &no)),
			-ENOENT);
		assert_int_equal(AGAIN(rootfs_stat(stack->rootfs, node, &stack->wait, &st, &exact)),
				 0);
		assert_int_equal(AGAIN(rootfs_origin(stack->rootfs, node, &stack->wait, &unused)),
				 0);
	}
	assert_true(exact);
	*ret_ino = st.st_ino;
	if (is_dir(name))
		compare_dir(compare, name, &st);
	else
		compare_other(compare, name, node, &st);
}

static int find_path(struct compare *compare, const char *path, struct rootfs_node *ret)
{
	struct rootfs_node node = ROOTFS_ROOT;
	int err = 0;

	while (*path && !err) {
		size_t len = strcspn(path, "/");
		err = (int)AGAIN(rootfs_lookup(compare->stack->rootfs, node, path, len,
					       &compare->stack->wait, &node));
		path += len + (path[len] == '/');
	}
	*ret = node;
	return err;
}

/* Looks every name up, and many that are not there. */
static void compare_lookups(struct compare *compare, unsigned seed)
{
	struct tree *tree = &compare->model->tree;

	for (int i = 0; i < tree->n; i++) {
		assert_int_equal(find_path(compare, tree->names[i].path, &compare->nodes[i]), 0);
		compare_name(compare, &tree->names[i], compare->nodes[i], &compare->inos[i]);
	}
	/* the same node for the same file, and for no other */
	for (int i = 0; i < tree->n; i++) {
		for (int j = 0; j < i; j++) {
			bool same = compare->nodes[i].layer == compare->nodes[j].layer &&
				    compare->nodes[i].ino == compare->nodes[j].ino;
			assert_int_equal(same, !is_dir(&tree->names[i]) &&
						       tree->names[i].file == tree->names[j].file);
			assert_int_equal(same, compare->inos[i] == compare->inos[j]);
		}
	}
	for (int i = 0; i < 20; i++) {
		char path[PATH_CAP];
		struct rootfs_node node;
		random_path(&seed, true, path);
		int err = find_path(compare, path, &node);
		if (find(tree, path))
			assert_int_equal(err, 0);
		else
			assert_true(err == -ENOENT || err == -ENOTDIR);
	}
}

static int listed_name(void *arg, uint64_t pos, const char *base, size_t len,
		       struct rootfs_node node)
{
	struct compare *compare = arg;
	struct tree *tree = &compare->model->tree;
	char path[PATH_CAP], text[PATH_CAP];
	struct name *name;

	assert_int_equal(pos, compare->pos++);
	snprintf(text, sizeof(text), "%.*s", (int)len, base);
	join(path, compare->dir, text);
	name = find(tree, path);
	assert_non_null(name);
	size_t i = (size_t)(name - tree->names);
	assert_false(compare->listed[i]);
	compare->listed[i] = true;
	assert_true(node.layer == compare->nodes[i].layer && node.ino == compare->nodes[i].ino);
	return 0;
}

static void compare_listing(struct compare *compare, const char *dir, struct rootfs_node node)
{
	set_path(compare->dir, dir);
	compare->pos = 0;
	assert_int_equal(AGAIN(rootfs_list(compare->stack->rootfs, node, 0, listed_name, compare,
					   &compare->stack->wait)),
			 0);
}

static void compare_listings(struct compare *compare)
{
	struct tree *tree = &compare->model->tree;

	compare_listing(compare, "", ROOTFS_ROOT);
	for (int i = 0; i < tree->n; i++) {
		if (is_dir(&tree->names[i]))
			compare_listing(compare, tree->names[i].path, compare->nodes[i]);
	}
	for (int i = 0; i < tree->n; i++)
		assert_true(compare->listed[i]);
}

static void one_round(struct model *model, unsigned round)
{
	AUTO_STACK struct stack stack;
	struct compare compare = {.model = model, .stack = &stack};

	random_layers(model, round);
	buf_puts(&model->script, "");
	stack_init(&stack, model->script.data ? model->script.data : "", false);
	/* a third with layers that come only when asked for twice */
	if (round % 3 == 0) {
		stack.wait.may_block = false;
		stack.closed = UINT_MAX;
		stack.coming = true;
	}
	/* half of them listed first, with nothing known */
	if (round % 2) {
		uint64_t names = 0;
		assert_int_equal(AGAIN(rootfs_list(stack.rootfs, ROOTFS_ROOT, UINT64_MAX, NULL,
						   &names, &stack.wait)),
				 0);
	}
	compare_lookups(&compare, round);
	compare_listings(&compare);
}

static void test_random(void **state)
{
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct model *model = calloc(1, sizeof(*model));

		assert_non_null(model);
		model->script.max = MIB;
		*state = model;
		one_round(model, round);
		*state = NULL;
		buf_release(&model->script);
		free(model);
	}
}

/* A round that failed left its model: says which layers it was. */
static int tell(void **state)
{
	struct model *model = *state;

	if (model) {
		print_error("layers: %s\n", model->script.data);
		buf_release(&model->script);
	}
	free(model);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_random, tell),
	};

	/* links that lead nowhere are what it is full of */
	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
