/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stage_names: directories: names found, made, moved and listed.
 * Must not know bytes.
 */
#include <errno.h>
#include <linux/limits.h>

#include "stage_priv.h"

/* --- the table of one directory; lock held --- */

/* Where NAME is, or would be put. */
static bool find(const struct stage_dir *dir, const char *name, size_t *ret_at)
{
	size_t low = 0, high = dir->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = strcmp(dir->sorted[middle]->name, name);

		if (order == 0) {
			*ret_at = middle;
			return true;
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*ret_at = low;
	return false;
}

static struct stage_inode *child(const struct stage_inode *dir, const char *name)
{
	size_t at;

	return find(&dir->dir, name, &at) ? dir->dir.sorted[at]->inode : NULL;
}

static int reserve(struct stage_dir *dir)
{
	size_t cap = dir->cap ? 2 * dir->cap : 8;
	struct stage_name **grown;

	if (dir->n < dir->cap)
		return 0;
	grown = reallocarray(dir->sorted, cap, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	dir->sorted = grown;
	dir->cap = cap;
	return 0;
}

static struct stage_name *name_new(const char *name, struct stage_inode *inode)
{
	struct stage_name *made = calloc(1, sizeof(*made));

	if (!made)
		return NULL;
	made->name = strdup(name);
	if (!made->name) {
		free(made);
		return NULL;
	}
	made->inode = inode;
	return made;
}

/* Room was reserved, and the name is not there. */
static void insert(struct stage_inode *parent, struct stage_name *name)
{
	struct stage_dir *dir = &parent->dir;
	size_t at;

	(void)find(dir, name->name, &at);
	memmove(dir->sorted + at + 1, dir->sorted + at, (dir->n - at) * sizeof(*dir->sorted));
	dir->sorted[at] = name;
	dir->n++;
	name->pos = ++dir->last_pos;
	name->previous = dir->last;
	name->next = NULL;
	*(dir->last ? &dir->last->next : &dir->first) = name;
	dir->last = name;
	name->inode->names++;
	if (stage_is_dir(name->inode)) {
		dir->subdirs++;
		name->inode->dir.parent = parent;
	}
	stage_touch(name->inode, false);
	stage_touch(parent, true);
}

static struct stage_inode *take_out(struct stage_inode *parent, const char *name)
{
	struct stage_dir *dir = &parent->dir;
	struct stage_inode *inode;
	struct stage_name *found;
	size_t at;

	(void)find(dir, name, &at);
	found = dir->sorted[at];
	memmove(dir->sorted + at, dir->sorted + at + 1, (dir->n - at - 1) * sizeof(*dir->sorted));
	dir->n--;
	*(found->previous ? &found->previous->next : &dir->first) = found->next;
	*(found->next ? &found->next->previous : &dir->last) = found->previous;
	inode = found->inode;
	free(found->name);
	free(found);
	inode->names--;
	if (stage_is_dir(inode)) {
		dir->subdirs--;
		inode->dir.parent = NULL;
	}
	stage_touch(inode, false);
	stage_touch(parent, true);
	return inode;
}

/* --- looking up --- */

int stage_lookup(struct stage_inode *dir, const char *name, struct stage_inode **ret)
{
	struct stage_inode *found;

	if (!stage_is_dir(dir))
		return -ENOTDIR;
	pthread_mutex_lock(&dir->stage->lock);
	found = child(dir, name);
	if (found)
		found->holders++;
	pthread_mutex_unlock(&dir->stage->lock);
	if (!found)
		return -ENOENT;
	*ret = found;
	return 0;
}

int stage_find(struct stage *stage, const char *path, struct stage_inode **ret)
{
	AUTO_INODE struct stage_inode *at = stage_root(stage);
	AUTO_FREE char *copy = strdup(path);
	char *rest = copy;

	if (!copy)
		return -ENOMEM;
	while (rest) {
		struct stage_inode *next;
		int r = stage_lookup(at, strsep(&rest, "/"), &next);

		if (r < 0)
			return r;
		stage_inode_unref(at);
		at = next;
	}
	*ret = STEAL(at);
	return 0;
}

bool stage_is_empty(struct stage_inode *dir)
{
	bool empty;

	pthread_mutex_lock(&dir->stage->lock);
	empty = stage_is_dir(dir) && dir->dir.n == 0;
	pthread_mutex_unlock(&dir->stage->lock);
	return empty;
}

/* --- changing; each with the lock held --- */

static int check_new_name(const struct stage_inode *dir, const char *name)
{
	if (!stage_is_dir(dir))
		return -ENOTDIR;
	if (!dir->names)
		return -ENOENT; /* it was removed while somebody stood in it */
	if (!*name || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
		return -EINVAL;
	return strlen(name) > NAME_MAX ? -ENAMETOOLONG : 0;
}

static int make_locked(struct stage_inode *dir, const char *name, const struct stage_made *made,
		       struct stage_inode **ret)
{
	struct stage_made inherited = *made;
	struct stage_name *fresh;
	int r = check_new_name(dir, name);

	if (r < 0)
		return r;
	if (child(dir, name))
		return -EEXIST;
	if (dir->mode & S_ISGID) {
		inherited.gid = dir->gid;
		if (S_ISDIR(made->mode))
			inherited.mode |= S_ISGID;
	}
	fresh = name_new(name, NULL);
	if (!fresh)
		return -ENOMEM;
	r = reserve(&dir->dir);
	if (r == 0)
		r = stage_inode_new(dir->stage, &inherited, &fresh->inode);
	if (r < 0) {
		free(fresh->name);
		free(fresh);
		return r;
	}
	insert(dir, fresh);
	*ret = fresh->inode;
	return 0;
}

int stage_make(struct stage_inode *dir, const char *name, const struct stage_made *made,
	       struct stage_inode **ret)
{
	int r = stage_begin(dir->stage);

	if (r < 0)
		return r;
	r = make_locked(dir, name, made, ret);
	stage_end(dir->stage, r == 0);
	return r;
}

static int link_locked(struct stage_inode *dir, const char *name, struct stage_inode *inode)
{
	struct stage_name *fresh;
	int r = check_new_name(dir, name);

	if (r < 0)
		return r;
	if (stage_is_dir(inode))
		return -EPERM;
	if (inode->stage != dir->stage)
		return -EXDEV;
	if (child(dir, name))
		return -EEXIST;
	if (!inode->names)
		return -ENOENT;
	if (inode->names == UINT32_MAX)
		return -EMLINK;
	fresh = name_new(name, inode);
	if (!fresh)
		return -ENOMEM;
	r = reserve(&dir->dir);
	if (r < 0) {
		free(fresh->name);
		free(fresh);
		return r;
	}
	insert(dir, fresh);
	return 0;
}

int stage_link(struct stage_inode *dir, const char *name, struct stage_inode *inode)
{
	int r = stage_begin(dir->stage);

	if (r < 0)
		return r;
	r = link_locked(dir, name, inode);
	stage_end(dir->stage, r == 0);
	return r;
}

/* Takes NAME away if it is of the kind wanted. *RET_GONE: an inode to be freed, or NULL. */
static int remove_locked(struct stage_inode *dir, const char *name, bool want_dir,
			 struct stage_inode **ret_gone)
{
	struct stage_inode *found = stage_is_dir(dir) ? child(dir, name) : NULL;

	*ret_gone = NULL;
	if (!stage_is_dir(dir))
		return -ENOTDIR;
	if (!found)
		return -ENOENT;
	if (want_dir && !stage_is_dir(found))
		return -ENOTDIR;
	if (!want_dir && stage_is_dir(found))
		return -EISDIR;
	if (want_dir && found->dir.n)
		return -ENOTEMPTY;
	take_out(dir, name);
	if (stage_inode_drop(found))
		*ret_gone = found;
	return 0;
}

static int remove_name(struct stage_inode *dir, const char *name, bool want_dir)
{
	struct stage_inode *gone;
	int r = stage_begin(dir->stage);

	if (r < 0)
		return r;
	r = remove_locked(dir, name, want_dir, &gone);
	stage_end(dir->stage, r == 0);
	if (gone)
		stage_inode_free(gone);
	return r;
}

int stage_unlink(struct stage_inode *dir, const char *name)
{
	return remove_name(dir, name, false);
}

int stage_rmdir(struct stage_inode *dir, const char *name)
{
	return remove_name(dir, name, true);
}

/* --- moving --- */

static bool is_below(const struct stage_inode *inode, const struct stage_inode *above)
{
	while (inode && inode != above)
		inode = inode->dir.parent;
	return inode != NULL;
}

/* Whether MOVED may take the place of THERE (NULL: of nothing) in DIR. */
static int check_move(const struct stage_inode *moved, const struct stage_inode *dir,
		      const struct stage_inode *there, unsigned flags)
{
	if (there && (flags & RENAME_NOREPLACE))
		return -EEXIST;
	if (stage_is_dir(moved) && is_below(dir, moved))
		return -EINVAL;
	if (!there)
		return 0;
	if (stage_is_dir(moved) && !stage_is_dir(there))
		return -ENOTDIR;
	if (!stage_is_dir(moved) && stage_is_dir(there))
		return -EISDIR;
	return stage_is_dir(there) && there->dir.n ? -ENOTEMPTY : 0;
}

static int rename_locked(const struct stage_place *from, const struct stage_place *to,
			 unsigned flags, struct stage_inode **ret_gone)
{
	struct stage_inode *moved, *there;
	struct stage_name *fresh;
	int r = check_new_name(to->dir, to->name);

	*ret_gone = NULL;
	if (r < 0 || !stage_is_dir(from->dir))
		return r < 0 ? r : -ENOTDIR;
	moved = child(from->dir, from->name);
	there = child(to->dir, to->name);
	if (!moved)
		return -ENOENT;
	if (moved == there && !(flags & RENAME_NOREPLACE))
		return 0; /* two names of one file: nothing is done (rename(2)) */
	r = check_move(moved, to->dir, there, flags);
	if (r < 0)
		return r;
	fresh = name_new(to->name, moved);
	if (!fresh)
		return -ENOMEM;
	r = reserve(&to->dir->dir);
	if (r < 0) {
		free(fresh->name);
		free(fresh);
		return r;
	}
	if (there && take_out(to->dir, to->name) && stage_inode_drop(there))
		*ret_gone = there;
	take_out(from->dir, from->name);
	insert(to->dir, fresh);
	return 0;
}

int stage_rename(const struct stage_place *from, const struct stage_place *to, unsigned flags)
{
	struct stage_inode *gone;
	int r;

	if (flags & ~(unsigned)RENAME_NOREPLACE)
		return -EINVAL;
	if (from->dir->stage != to->dir->stage)
		return -EXDEV;
	r = stage_begin(from->dir->stage);
	if (r < 0)
		return r;
	r = rename_locked(from, to, flags, &gone);
	stage_end(from->dir->stage, r == 0);
	if (gone)
		stage_inode_free(gone);
	return r;
}

/* --- listing --- */

void stage_children_release(struct stage_children *children)
{
	for (size_t i = 0; i < children->n; i++) {
		free(children->children[i].name);
		stage_inode_unref(children->children[i].inode);
	}
	free(children->children);
	*children = (struct stage_children){0};
}

/* Lock held; there is room. */
static int add_child(struct stage_children *list, const struct stage_name *name)
{
	char *copy = strdup(name->name);

	if (!copy)
		return -ENOMEM;
	name->inode->holders++;
	list->children[list->n++] = (struct stage_child){
		.name = copy, .inode = name->inode, .pos = name->pos};
	return 0;
}

int stage_list(struct stage_inode *dir, uint64_t pos, size_t max, struct stage_children *ret)
{
	struct stage_children list = {.children = calloc(max, sizeof(*list.children))};
	const struct stage_name *name;
	int r = 0;

	if (!list.children || !stage_is_dir(dir)) {
		free(list.children);
		return stage_is_dir(dir) ? -ENOMEM : -ENOTDIR;
	}
	pthread_mutex_lock(&dir->stage->lock);
	name = dir->dir.first;
	while (name && name->pos <= pos)
		name = name->next;
	for (; name && list.n < max && r == 0; name = name->next)
		r = add_child(&list, name);
	pthread_mutex_unlock(&dir->stage->lock);
	if (r < 0)
		stage_children_release(&list);
	else
		*ret = list;
	return r;
}

int stage_sorted(struct stage_inode *dir, struct stage_children *ret)
{
	struct stage_children list = {0};
	int r = 0;

	if (!stage_is_dir(dir))
		return -ENOTDIR;
	pthread_mutex_lock(&dir->stage->lock);
	list.children = calloc(dir->dir.n + 1, sizeof(*list.children));
	if (!list.children)
		r = -ENOMEM;
	for (size_t i = 0; i < dir->dir.n && r == 0; i++)
		r = add_child(&list, dir->dir.sorted[i]);
	pthread_mutex_unlock(&dir->stage->lock);
	if (r < 0)
		stage_children_release(&list);
	else
		*ret = list;
	return r;
}
