// SPDX-License-Identifier: Apache-2.0
/*
 * rootfs, listings: the names of a merged directory in order.
 * Knows how sorted directories are merged. Must not know paths.
 */
#include <errno.h>

#include "rootfs_priv.h"

/* --- merging --- */

/* One part on the way through its names. */
struct cursor {
	const struct index *index;
	struct rootfs_node dir;
	struct index_name name; /* the next; .len 0: none */
	uint32_t pos;
	bool whiteouts;
};

struct merge {
	struct wait *wait;
	struct cursor *cursors; /* topmost first */
	unsigned n;
	uint32_t steps;
};

static void merge_release(struct merge *merge)
{
	free(merge->cursors);
}

static int advance(struct cursor *cursor)
{
	int err;

	do {
		err = index_child(cursor->index, cursor->dir.ino, cursor->pos++, &cursor->name);
	} while (!err && rootfs_hidden_name(cursor->name.name, cursor->name.len));
	if (err == -ENOENT)
		cursor->name.len = 0;
	return err == -ENOENT ? 0 : err;
}

static int merge_init(struct merge *merge, const struct dirset *set, struct wait *wait)
{
	struct index_inode inode;
	int err = 0;

	merge->wait = wait;
	merge->n = set->n;
	merge->cursors = calloc(set->n + 1, sizeof(*merge->cursors));
	if (!merge->cursors)
		return -ENOMEM;
	for (unsigned i = 0; !err && i < set->n; i++) {
		struct cursor *cursor = &merge->cursors[i];

		cursor->dir = set->parts[i];
		err = rootfs_index(set->rootfs, cursor->dir.layer, NULL, &cursor->index);
		if (!err)
			err = index_inode(cursor->index, cursor->dir.ino, &inode);
		cursor->whiteouts = !err && inode.flags & INDEX_WHITEOUTS;
		if (!err)
			err = advance(cursor);
	}
	return err;
}

static int compare_names(const struct index_name *a, const struct index_name *b)
{
	int diff = memcmp(a->name, b->name, MIN(a->len, b->len));

	return diff ? diff : (a->len > b->len) - (a->len < b->len);
}

/* 1 if a part above that of cursor AT hides NAME. */
static int is_hidden(const struct merge *merge, unsigned at, const struct index_name *name)
{
	struct layer_answer answer;

	for (unsigned i = 0; i < at; i++) {
		const struct cursor *cursor = &merge->cursors[i];
		int err;

		if (!cursor->whiteouts)
			continue;
		err = rootfs_ask_name(cursor->index, cursor->dir, name->name, name->len, &answer);
		if (err || answer.cut)
			return err ? err : 1;
	}
	return 0;
}

/* The next name, and whose it is: 1; 0 at the end. */
static int merge_next(struct merge *merge, struct index_name *ret, struct cursor **ret_cursor)
{
	struct index_name name;
	unsigned at;
	int r;

	do {
		/* all of them may be hidden */
		r = ++merge->steps % 1024 ? 0 : wait_go_on(merge->wait);
		if (r)
			return r;
		at = merge->n;
		for (unsigned i = 0; i < merge->n; i++) {
			const struct index_name *other = &merge->cursors[i].name;
			if (other->len && (at == merge->n || compare_names(other, &name) < 0)) {
				name = *other;
				at = i;
			}
		}
		if (at == merge->n)
			return 0;
		for (unsigned i = at; i < merge->n; i++) {
			struct cursor *cursor = &merge->cursors[i];
			if (!cursor->name.len || compare_names(&cursor->name, &name) != 0)
				continue;
			r = advance(cursor);
			if (r)
				return r;
		}
		r = is_hidden(merge, at, &name);
	} while (r > 0);
	if (r < 0)
		return r;
	*ret = name;
	*ret_cursor = &merge->cursors[at];
	return 1;
}

/* --- subdirectories --- */

/* What the parts count by themselves: *RET, and whether no merging is needed to know more. */
static int sum_subdirs(const struct dirset *set, uint32_t *ret, bool *ret_all)
{
	const struct index *index;
	struct index_inode inode;
	uint32_t sum = 0;
	bool plain = true;

	for (unsigned i = 0; i < set->n; i++) {
		int err = rootfs_index(set->rootfs, set->parts[i].layer, NULL, &index);

		if (!err)
			err = index_inode(index, set->parts[i].ino, &inode);
		if (err)
			return err;
		sum += inode.nlink >= 2 ? inode.nlink - 2 : 0;
		plain = plain && (set->rootfs->options.raw || !(inode.flags & INDEX_WHITEOUTS));
	}
	*ret = sum;
	*ret_all = sum == 0 || (plain && set->n == 1);
	return 0;
}

int rootfs_count_subdirs(const struct dirset *set, struct wait *wait, uint32_t *ret)
{
	CLEANUP(merge_release) struct merge merge = {};
	struct index_inode inode;
	struct index_name name;
	struct cursor *cursor;
	uint32_t subdirs;
	bool all;
	int r = sum_subdirs(set, &subdirs, &all);

	if (r)
		return r;
	if (!all) {
		subdirs = 0;
		r = merge_init(&merge, set, wait);
		while (!r && (r = merge_next(&merge, &name, &cursor)) > 0) {
			r = index_inode(cursor->index, name.ino, &inode);
			subdirs += !r && S_ISDIR(inode.mode);
		}
	}
	if (!r)
		*ret = subdirs;
	return r;
}

/* --- listings --- */

static int add_entry(struct listing *listing, size_t *cap, const struct index_name *name,
		     struct rootfs_node node)
{
	if (listing->n == *cap) {
		size_t grown = MAX(*cap * 2, (size_t)64);
		void *mem = reallocarray(listing->entries, grown, sizeof(*listing->entries));

		if (!mem)
			return -ENOMEM;
		listing->entries = mem;
		*cap = grown;
	}
	listing->entries[listing->n++] = (struct list_entry){
		.name = name->name,
		.len = (uint8_t)name->len,
		.ino = node.ino,
		.layer = node.layer,
	};
	return 0;
}

/* The node that NAME of CURSOR's layer stands for: 0, or -ENOENT for a link that leads nowhere. */
static int resolve_name(struct rootfs *rootfs, const struct cursor *cursor,
			const struct index_name *name, struct wait *wait, struct rootfs_node *ret)
{
	struct rootfs_node node = {.layer = cursor->dir.layer, .ino = name->ino};
	struct index_inode inode;
	int err = index_inode(cursor->index, name->ino, &inode);

	if (err)
		return err;
	if (inode.flags & INDEX_LINK_OUT)
		return rootfs_follow_link(rootfs, node, wait, ret);
	*ret = node;
	return 0;
}

static int fill_listing(const struct dirset *set, struct wait *wait, struct listing *listing)
{
	CLEANUP(merge_release) struct merge merge = {};
	struct index_name name;
	struct cursor *cursor;
	struct rootfs_node node;
	size_t cap = 0;
	int r = merge_init(&merge, set, wait);

	while (!r && (r = merge_next(&merge, &name, &cursor)) > 0) {
		r = resolve_name(set->rootfs, cursor, &name, wait, &node);
		if (r == -ENOENT)
			r = 0;
		else if (!r)
			r = add_entry(listing, &cap, &name, node);
	}
	return r;
}

/* The merged listing; the caller unrefs it. */
static int merged_listing(const struct dirset *set, struct wait *wait, struct listing **ret)
{
	struct rootfs_cache *cache = set->rootfs->cache;
	struct listing *listing = rootfs_cache_listing(cache, set->dir);
	int err;

	if (!listing) {
		listing = calloc(1, sizeof(*listing));
		if (!listing)
			return -ENOMEM;
		listing->refs = 1;
		err = fill_listing(set, wait, listing);
		if (err) {
			rootfs_cache_unref_listing(cache, listing);
			return err;
		}
		rootfs_cache_put_listing(cache, set->dir, listing);
	}
	*ret = listing;
	return 0;
}

static int list_merged(const struct dirset *set, const struct list_call *call)
{
	struct listing *listing;
	int err = merged_listing(set, call->wait, &listing);

	if (err)
		return err;
	for (uint64_t pos = call->pos; pos < listing->n; pos++) {
		const struct list_entry *entry = &listing->entries[pos];
		struct rootfs_node node = {.layer = entry->layer, .ino = entry->ino};

		if (call->fn(call->arg, pos, entry->name, entry->len, node))
			break;
	}
	rootfs_cache_unref_listing(set->rootfs->cache, listing);
	return 0;
}

/* One layer's directory as it is. */
static int list_plain(const struct index *index, struct rootfs_node dir,
		      const struct list_call *call)
{
	struct index_name name;
	int err = 0;

	for (uint64_t pos = call->pos; pos < UINT32_MAX; pos++) {
		err = index_child(index, dir.ino, (uint32_t)pos, &name);
		if (err)
			break;
		struct rootfs_node node = {.layer = dir.layer, .ino = name.ino};
		if (call->fn(call->arg, pos, name.name, name.len, node))
			break;
	}
	return err == -ENOENT ? 0 : err;
}

/* Starts opening what SET may still need, all at once. */
static void prepare(const struct dirset *set)
{
	struct rootfs *rootfs = set->rootfs;

	if (!rootfs->options.prepare)
		return;
	for (int layer = set->next; layer >= 0; layer--) {
		if (!atomic_load(&rootfs->layers[layer].layer))
			rootfs->options.prepare(rootfs->options.arg, (unsigned)layer);
	}
}

static int complete(struct dirset *set, struct wait *wait)
{
	int before = set->next, err = 0;

	/* What is open may show that nothing else is needed. */
	while (!err && set->next >= 0)
		err = rootfs_dirset_grow(set, NULL);
	if (err == -EWOULDBLOCK) {
		prepare(set);
		err = 0;
	}
	while (!err && set->next >= 0)
		err = rootfs_dirset_grow(set, wait);
	if (set->next != before)
		rootfs_cache_put_dir(set->rootfs->cache, set);
	return err;
}

/* Whether SET is one layer's directory that is shown as it is. */
static int is_plain(const struct dirset *set, const struct index **ret)
{
	struct index_inode inode;
	uint32_t unused;
	int err;

	if (set->n != 1)
		return 0;
	err = rootfs_index(set->rootfs, set->parts[0].layer, NULL, ret);
	if (!err)
		err = index_inode(*ret, set->parts[0].ino, &inode);
	if (err)
		return err;
	return set->rootfs->options.raw ||
	       (!(inode.flags & INDEX_WHITEOUTS) && index_link_out(*ret, 0, &unused) == -ENOENT);
}

int rootfs_list_call(struct rootfs *rootfs, struct rootfs_node dir, const struct list_call *call)
{
	const struct index *index;
	struct dirset set;
	int r = rootfs_dirset(rootfs, dir, call->wait, &set);

	if (!r)
		r = complete(&set, call->wait);
	if (!r)
		r = is_plain(&set, &index);
	if (r < 0)
		return r;
	return r ? list_plain(index, set.parts[0], call) : list_merged(&set, call);
}
