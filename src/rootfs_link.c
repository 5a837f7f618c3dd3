// SPDX-License-Identifier: Apache-2.0
/*
 * rootfs, links: hard links whose target lies in a lower layer, and how many names a file has.
 * Knows symlinks on the way to a target. Must not know listings or contents.
 */
#include <errno.h>
#include <limits.h>

#include "regfs/log.h"
#include "rootfs_priv.h"

#define MAX_HOPS  40  /* symlinks on the way to a target */
#define MAX_STEPS 300 /* looks at the merge for one target, whatever is in its way */
#define MAX_DEPTH 8   /* links to symlinks on the way, each of which is a target of its own */
#define PATH_ROOM (2 * ROOTFS_PATH + 2)

/* --- the path of a target --- */

struct target_path {
	size_t len;
	char text[PATH_ROOM];
};

/* Bytes of the first component of PATH from AT on. */
static size_t component(const char *path, size_t at, size_t len)
{
	const char *slash = memchr(path + at, '/', len - at);

	return slash ? (size_t)(slash - path) - at : len - at;
}

static bool is_up(const char *name, size_t len)
{
	return len == 2 && name[0] == '.' && name[1] == '.';
}

/* Takes out empty and "." components, and ".." that would leave the root. */
static void tidy(struct target_path *path)
{
	size_t out = 0;

	for (size_t at = 0; at < path->len;) {
		size_t len = component(path->text, at, path->len);
		const char *name = path->text + at;

		at += len + 1;
		if (len == 0 || (len == 1 && name[0] == '.') || (is_up(name, len) && out == 0))
			continue;
		if (out)
			path->text[out++] = '/';
		memmove(path->text + out, name, len);
		out += len;
	}
	path->len = out;
}

/* Bytes before the first "..": what must be a directory before that can be taken away. */
static size_t before_up(const struct target_path *path)
{
	for (size_t at = 0; at < path->len;) {
		size_t len = component(path->text, at, path->len);

		if (is_up(path->text + at, len))
			return at ? at - 1 : 0;
		at += len + 1;
	}
	return path->len;
}

static size_t parent_len(const char *path, size_t len)
{
	const char *slash = memrchr(path, '/', len);

	return slash ? (size_t)(slash - path) : 0;
}

/* Puts TEXT and "/" where bytes FROM to TO were. False when it becomes too long. */
static bool replace(struct target_path *path, size_t from, size_t to, const char *text, size_t len)
{
	size_t rest = path->len - to;

	if (from + len + 1 + rest > ROOTFS_PATH)
		return false;
	memmove(path->text + from + len + 1, path->text + to, rest);
	memcpy(path->text + from, text, len);
	path->text[from + len] = '/';
	path->len = from + len + 1 + rest;
	tidy(path);
	return true;
}

/* Takes away the directory that ends at END and the ".." behind it. */
static void go_up(struct target_path *path, size_t end)
{
	(void)replace(path, parent_len(path->text, end), end + sizeof("/..") - 1, "", 0);
}

/* --- following --- */

struct follow {
	struct rootfs_state state;
	unsigned depth, hops, steps;
	struct target_path path;
};

static int follow_link(struct follow *follow, struct rootfs_node link, struct rootfs_node *ret);

static int read_target(struct follow *follow, struct rootfs_node node, const char **ret,
		       size_t *ret_len)
{
	const struct index *index;
	int err = rootfs_index(follow->state.rootfs, node.layer, follow->state.wait, &index);

	return err ? err : index_target(index, node.ino, ret, ret_len);
}

/* From link NODE on, in the layers below it. */
static int start_at(struct follow *follow, struct rootfs_node node)
{
	const char *target;
	size_t len;
	int err = read_target(follow, node, &target, &len);

	if (err)
		return err;
	if (len > ROOTFS_PATH)
		return -EIO;
	memcpy(follow->path.text, target, len);
	follow->path.len = len;
	tidy(&follow->path);
	follow->state.top = node.layer;
	return 0;
}

/* Symlink NODE, which ends at END, stands in the way. */
static int follow_symlink(struct follow *follow, struct rootfs_node node, size_t end)
{
	size_t from = parent_len(follow->path.text, end);
	const char *target;
	size_t len;
	int err = read_target(follow, node, &target, &len);

	if (err)
		return err == -EINVAL ? -ENOENT : err;
	if (follow->hops++ >= MAX_HOPS)
		return -ENOENT;
	if (len && target[0] == '/')
		from = 0;
	else if (from)
		from++; /* behind the slash */
	return replace(&follow->path, from, end, target, len) ? 0 : -ENOENT;
}

/* Link NODE stands in the way: what it leads to, which should be a symlink. */
static int follow_nested(struct follow *follow, struct rootfs_node *node)
{
	AUTO_FREE struct follow *nested = NULL;
	int err;

	if (follow->depth >= MAX_DEPTH)
		return -ENOENT;
	nested = calloc(1, sizeof(*nested));
	if (!nested)
		return -ENOMEM;
	nested->state = follow->state;
	nested->depth = follow->depth + 1;
	nested->hops = follow->hops;
	nested->steps = follow->steps;
	err = follow_link(nested, *node, node);
	follow->hops = nested->hops;
	follow->steps = nested->steps;
	return err;
}

/* One look. 1: *RET is the file, or LINK_BELOW; 0: look again; -ENOENT. */
static int follow_step(struct follow *follow, struct rootfs_node *ret)
{
	struct target_path *path = &follow->path;
	size_t len = before_up(path);
	struct layer_answer answer;
	bool last;
	int err = wait_go_on(follow->state.wait);

	if (err)
		return err;
	err = rootfs_find(&follow->state, path->text, len, &answer);
	if (err)
		return err;
	last = answer.end == path->len;
	if (answer.link_out && !last)
		err = follow_nested(follow, &answer.node);
	if (err)
		return err;
	if (answer.node.layer == LINK_BELOW ||
	    (answer.says == SAYS_OTHER && last && !answer.link_out)) {
		*ret = answer.node;
		return 1;
	}
	if (answer.says == SAYS_OTHER)
		return last ? start_at(follow, answer.node)
			    : follow_symlink(follow, answer.node, answer.end);
	if (len == path->len)
		return -ENOENT; /* a directory */
	go_up(path, len);
	return 0;
}

static int follow_link(struct follow *follow, struct rootfs_node link, struct rootfs_node *ret)
{
	int r = start_at(follow, link);

	while (!r)
		r = follow->steps++ < MAX_STEPS ? follow_step(follow, ret) : -ENOENT;
	return r < 0 ? r : 0;
}

/* What LINK leads to as far as layers from BOTTOM up tell; LINK_BELOW with a hash of the name
 * that the file would have. */
static int resolve_link(struct rootfs *rootfs, struct rootfs_node link, unsigned bottom,
			struct wait *wait, struct rootfs_node *ret)
{
	struct follow follow = {
		.state = {.rootfs = rootfs, .wait = wait, .bottom = bottom},
	};
	const struct target_path *path = &follow.path;
	struct rootfs_node found;
	int err = follow_link(&follow, link, &found);

	if (err)
		return err;
	if (found.layer == LINK_BELOW) {
		size_t dir = parent_len(path->text, path->len);
		size_t at = dir ? dir + 1 : 0;
		found.ino = (uint32_t)hash64(0, path->text + at, path->len - at);
	}
	*ret = found;
	return 0;
}

int rootfs_follow_link(struct rootfs *rootfs, struct rootfs_node link, struct wait *wait,
		       struct rootfs_node *ret)
{
	const struct index *index;
	const char *target;
	size_t len;
	int err = resolve_link(rootfs, link, 0, wait, ret);

	if (err == -ENOENT && !atomic_exchange(&rootfs->warned, true) &&
	    !rootfs_index(rootfs, link.layer, NULL, &index) &&
	    !index_target(index, link.ino, &target, &len))
		log_warn(
			"layer %u has a hard link to \"%.*s\", which no layer below has: not shown",
			link.layer + 1u, (int)len, target);
	return err;
}

/* --- all links out of a layer --- */

static int compare_nodes(struct rootfs_node a, struct rootfs_node b)
{
	if (a.layer != b.layer)
		return a.layer < b.layer ? -1 : 1;
	return (a.ino > b.ino) - (a.ino < b.ino);
}

static int compare_targets(const void *left, const void *right)
{
	const struct link_target *a = left, *b = right;

	return compare_nodes(a->file, b->file);
}

static int fill_links(struct rootfs *rootfs, unsigned layer, const struct index *index,
		      struct link_map *map, struct wait *wait)
{
	for (size_t i = 0; i < map->n; i++) {
		struct link_target *target = &map->targets[i];
		int err = index_link_out(index, (uint32_t)i, &target->ino);

		if (err)
			return -EIO;
		struct rootfs_node link = {.layer = (uint16_t)layer, .ino = target->ino};
		err = resolve_link(rootfs, link, map->bottom, wait, &target->file);
		if (err == -ENOENT)
			target->file = (struct rootfs_node){.layer = LINK_NOWHERE};
		else if (err)
			return err;
	}
	qsort(map->targets, map->n, sizeof(map->targets[0]), compare_targets);
	return 0;
}

/* The links out of LAYER, known from BOTTOM up at least. The caller unrefs *RET. */
static int links_of(struct rootfs *rootfs, unsigned layer, unsigned bottom, struct wait *wait,
		    struct link_map **ret)
{
	struct link_map *map = rootfs_cache_links(rootfs->cache, layer);
	const struct index *index;
	uint32_t n = 0, unused;
	int err;

	if (map && map->bottom <= bottom) {
		*ret = map;
		return 0;
	}
	rootfs_cache_unref_links(rootfs->cache, map);
	err = rootfs_index(rootfs, layer, wait, &index);
	if (err)
		return err;
	while (index_link_out(index, n, &unused) == 0)
		n++;
	map = calloc(1, sizeof(*map) + n * sizeof(map->targets[0]));
	if (!map)
		return -ENOMEM;
	map->refs = 1;
	map->bottom = bottom;
	map->n = n;
	err = fill_links(rootfs, layer, index, map, wait);
	if (err) {
		free(map);
		return err;
	}
	rootfs_cache_put_links(rootfs->cache, layer, map);
	*ret = map;
	return 0;
}

/* The first of MAP's targets that is not less than FILE. */
static size_t first_target(const struct link_map *map, struct rootfs_node file)
{
	size_t low = 0, high = map->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (compare_nodes(map->targets[middle].file, file) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* --- counting --- */

struct count {
	struct rootfs *rootfs;
	struct wait *wait;
	struct rootfs_node file;
	uint32_t names;
};

/* 1 if NAME, which stands in LAYER, is to be seen in the merge; 0 if not. */
static int is_visible(const struct count *count, unsigned layer, const struct index *index,
		      const struct index_name *name)
{
	const struct rootfs_state state = {
		.rootfs = count->rootfs,
		.wait = count->wait,
		.top = count->rootfs->options.nlayers,
		.bottom = layer,
	};
	char path[ROOTFS_PATH + NAME_MAX + 1];
	struct layer_answer answer;
	ssize_t len = index_path(index, name->dir, path, ROOTFS_PATH);
	int err;

	if (len < 0 || name->len > NAME_MAX)
		return -EIO;
	if (len)
		path[len++] = '/';
	memcpy(path + len, name->name, name->len);
	err = rootfs_find(&state, path, (size_t)len + name->len, &answer);
	if (err)
		return err == -ENOENT ? 0 : err;
	return answer.node.layer == layer && answer.node.ino == name->ino;
}

/* Adds those names of INO of LAYER that are to be seen. */
static int count_visible(struct count *count, unsigned layer, uint32_t ino)
{
	const struct index *index;
	struct index_inode inode;
	struct index_name name;
	int r = rootfs_index(count->rootfs, layer, count->wait, &index);

	if (!r)
		r = index_inode(index, ino, &inode);
	for (uint32_t n = 0; !r && n < inode.nlink; n++) {
		r = index_name_of(index, ino, n, &name);
		if (r)
			return -EIO;
		r = is_visible(count, layer, index, &name);
		if (r < 0)
			return r;
		count->names += (uint32_t)r;
		r = n % 64 == 63 ? wait_go_on(count->wait) : 0;
	}
	return r;
}

/* Links of MAP that layers below its bottom decide, if they lead to a file called NAME. */
static int count_undecided(struct count *count, unsigned layer, const struct link_map *map,
			   const struct index_name *name)
{
	struct rootfs_node key = {
		.layer = LINK_BELOW,
		.ino = (uint32_t)hash64(0, name->name, name->len),
	};
	int err = 0;

	for (size_t i = first_target(map, key); !err && i < map->n; i++) {
		struct rootfs_node link = {.layer = (uint16_t)layer, .ino = map->targets[i].ino};
		struct rootfs_node found;

		if (!rootfs_same(map->targets[i].file, key))
			break;
		err = resolve_link(count->rootfs, link, 0, count->wait, &found);
		if (err == -ENOENT)
			err = 0;
		else if (!err && rootfs_same(found, count->file))
			err = count_visible(count, layer, link.ino);
	}
	return err;
}

/*
 * Adds the names that are links out of LAYER. Where the file is, and layers above it, mostly
 * decide where these links lead; those that they do not decide (LINK_BELOW) can still lead to
 * the file by way of a symlink further down, but only by the file's own name.
 */
static int count_links_of(struct count *count, unsigned layer, unsigned bottom)
{
	const struct index *index;
	struct index_name name;
	struct link_map *map;
	int err = links_of(count->rootfs, layer, bottom, count->wait, &map);

	if (err)
		return err;
	for (size_t i = first_target(map, count->file); !err && i < map->n; i++) {
		if (!rootfs_same(map->targets[i].file, count->file))
			break;
		err = count_visible(count, layer, map->targets[i].ino);
	}
	if (!err && map->bottom > 0)
		err = rootfs_index(count->rootfs, count->file.layer, count->wait, &index);
	for (uint32_t n = 0; !err && map->bottom > 0; n++) {
		if (index_name_of(index, count->file.ino, n, &name))
			break;
		err = count_undecided(count, layer, map, &name);
	}
	rootfs_cache_unref_links(count->rootfs->cache, map);
	return err;
}

/* How many layers above LAYER have links out. */
static int count_linking(struct rootfs *rootfs, unsigned layer, struct wait *wait, unsigned *ret)
{
	const struct index *index;
	unsigned linking = 0;
	uint32_t unused;

	for (unsigned upper = layer + 1; upper < rootfs->options.nlayers; upper++) {
		int err = rootfs_index(rootfs, upper, wait, &index);

		if (err)
			return err;
		linking += index_link_out(index, 0, &unused) == 0;
	}
	*ret = linking;
	return 0;
}

int rootfs_count_links(struct rootfs *rootfs, struct rootfs_node node,
		       const struct index_inode *inode, struct wait *wait, uint32_t *ret)
{
	struct count count = {.rootfs = rootfs, .wait = wait, .file = node};
	const struct index *index;
	unsigned linking, bottom;
	uint32_t unused;
	int err = count_linking(rootfs, node.layer, wait, &linking);

	if (err)
		return err;
	count.names = linking || inode->nlink > 1 ? rootfs_cache_nlink(rootfs->cache, node) : 1;
	if (count.names) {
		*ret = count.names;
		return 0;
	}
	err = count_visible(&count, node.layer, node.ino);
	/* With several such layers one link may lead to another: all is asked then. */
	bottom = linking > 1 ? 0 : node.layer;
	for (unsigned upper = node.layer + 1u; !err && upper < rootfs->options.nlayers; upper++) {
		err = rootfs_index(rootfs, upper, wait, &index);
		if (!err && index_link_out(index, 0, &unused) == 0)
			err = count_links_of(&count, upper, bottom);
	}
	if (err)
		return err;
	*ret = MAX(count.names, 1u);
	rootfs_cache_put_nlink(rootfs->cache, node, *ret);
	return 0;
}
