/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pushdir: _push/. An entry is a push with a name and the attributes that cp -a and the like set;
 * it outlives its node. A confirmed one stays for a minute, a failed or unfinished one leaves with
 * its last close, a temporary (a leading dot) when it was not touched for an hour. Must not know
 * archives or uploads.
 */
#include <errno.h>
#include <stdio.h>

#include "pushdir_priv.h"
#include "regfs/log.h"
#include "regfs/ref.h"

static struct pushdir *pushdir_of(const struct node_ref *ref)
{
	return CONTAINER_OF(ref->node, struct pushdir, node);
}

static struct stageplace stageplace_of(const struct node_ref *ref)
{
	const struct pushdir *dir = pushdir_of(ref);

	return (struct stageplace){
		.dirs = dir->dirs->staged,
		.node = ref->node,
		.store = dir->store,
		.repo = dir->repo,
	};
}

static int file_entry(struct pushdir *dir, struct pushentry *entry, struct call *call,
		      struct node_entry *ret)
{
	struct node_entry found = {0};
	int r = pushfile_new(dir, entry, &found.ref.node);

	if (r == 0)
		r = node_getattr(&found.ref, call, &found.attr);
	if (r < 0) {
		node_unref(found.ref.node);
		return r;
	}
	*ret = found;
	return 0;
}

static int dir_getattr(const struct node_ref *ref, struct call *call, struct node_attr *ret)
{
	const struct context *context = pushdir_of(ref)->dirs->context;

	(void)call;
	context_stat(context, ref->node->ino, S_IFDIR | (context->allow_other ? 0700 : 0755), 0,
		     &ret->st);
	clock_gettime(CLOCK_REALTIME, &ret->st.st_mtim);
	ret->timeout = 0;
	return 0;
}

static int dir_lookup(const struct node_ref *ref, const char *name, struct call *call,
		      struct node_entry *ret)
{
	const struct stageplace place = stageplace_of(ref);
	struct pushdir *dir = pushdir_of(ref);
	struct pushentry *entry;
	int r;

	pushentries_sweep(dir->dirs);
	entry = pushentry_find(dir, name);
	if (!entry)
		return stagedir_lookup(&place, name, call, ret);
	r = file_entry(dir, entry, call, ret);
	pushentry_unref(dir->dirs, entry);
	return r;
}

/* A name to list, copied out from under the lock. POS counts entries by the number they got. */
static bool next_name(struct pushdir *dir, uint64_t *pos, char out[static 256], uint64_t *ret_ino)
{
	const struct pushentry *best = NULL;

	pthread_mutex_lock(&dir->dirs->lock);
	for (const struct pushentry *entry = dir->dirs->entries; entry; entry = entry->next)
		if (pushentry_is_in(entry, dir) && entry->number > *pos &&
		    (!best || entry->number < best->number))
			best = entry;
	if (best) {
		snprintf(out, 256, "%s", best->name);
		*pos = best->number;
		*ret_ino = best->ino;
	}
	pthread_mutex_unlock(&dir->dirs->lock);
	return best != NULL;
}

static int dir_list(const struct node_ref *ref, uint64_t pos, node_list_fn *fn, void *arg,
		    struct call *call)
{
	const struct stageplace place = stageplace_of(ref);
	struct pushdir *dir = pushdir_of(ref);
	char name[256];
	uint64_t ino;

	(void)call;
	pushentries_sweep(dir->dirs);
	while (pos < STAGEDIR_POS && next_name(dir, &pos, name, &ino)) {
		struct node_listed listed = {
			.pos = pos,
			.name = name,
			.len = strlen(name),
			.type = S_IFREG,
			.ino = ino,
		};

		if (fn(arg, &listed) != 0)
			return 0;
	}
	stagedir_list(&place, pos, fn, arg);
	return 0;
}

/* The tag that a file of this name is pushed to. -EINVAL if it is none. */
static int tag_of_name(const char *name, char out[static REF_TAG_MAX])
{
	static const char *const suffixes[] = {".tar", ".tar.gz", ".tgz", ".tar.zst"};
	size_t len = strlen(name);

	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		if (ends_with(name, suffixes[i])) {
			len -= strlen(suffixes[i]);
			break;
		}
	}
	if (len >= REF_TAG_MAX)
		return -EINVAL;
	memcpy(out, name, len);
	out[len] = 0;
	return ref_tag_valid(out) ? 0 : -EINVAL;
}

/* As rsync and editors name what is to be renamed. No tag begins so. */
static bool is_temporary(const char *name)
{
	return *name == '.';
}

/* What a push of that name goes to: its tag ("" in a registry's _push, whose archives name their
 * images, and for a temporary) and its label, which the caller frees. -EINVAL, logged. */
static int entry_target(const struct pushdir *dir, const char *name, char tag[static REF_TAG_MAX],
			char **ret_label)
{
	const char *host = dir->store->name, *slash = *dir->repo ? "/" : "";
	char *label;

	*tag = 0;
	if (!*dir->repo || is_temporary(name)) {
		label = format("%s%s%s/_push/%s", host, slash, dir->repo, name);
	} else if (tag_of_name(name, tag) < 0) {
		log_warn("%s/%s/_push: %s: not a tag, with or without .tar, .tar.gz or .tar.zst",
			 host, dir->repo, name);
		return -EINVAL;
	} else {
		label = format("%s/%s:%s", host, dir->repo, tag);
	}
	if (!label)
		return -ENOMEM;
	*ret_label = label;
	return 0;
}

static int entry_make(struct pushdir *dir, const char *name, struct call *call,
		      struct pushentry **ret)
{
	AUTO_FREE char *label = NULL;
	char tag[REF_TAG_MAX];
	struct pushentry *entry;
	int r = entry_target(dir, name, tag, &label);

	if (r < 0)
		return r;
	entry = calloc(1, sizeof(*entry));
	if (!entry)
		return -ENOMEM;
	*entry = (struct pushentry){
		.refs = 1,
		.store = dir->store,
		.repo = strdup(dir->repo),
		.node_name = strdup(name),
		.name = strdup(name),
		.kept = is_temporary(name),
		.touched_ms = now_ms(),
		.uid = call->uid,
		.gid = call->gid,
	};
	if (!entry->repo || !entry->node_name || !entry->name)
		r = -ENOMEM;
	else
		r = push_new(dir->dirs->context->pushes, dir->store, *dir->repo ? dir->repo : NULL,
			     *tag ? tag : NULL, label, &entry->push);
	if (r < 0) {
		pushentry_free(entry);
		return r;
	}
	if (entry->kept)
		push_keep(entry->push);
	*ret = entry;
	return 0;
}

static int dir_create(const struct node_ref *ref, const char *name, mode_t mode, struct call *call,
		      struct node_entry *ret)
{
	struct pushdir *dir = pushdir_of(ref);
	struct pushdirs *dirs = dir->dirs;
	struct pushentry *entry;
	int r;

	pushentries_sweep(dirs);
	r = entry_make(dir, name, call, &entry);
	if (r < 0)
		return r;
	entry->mode = S_IFREG | (mode & 07777);
	clock_gettime(CLOCK_REALTIME, &entry->mtime);
	pthread_mutex_lock(&dirs->lock);
	entry->number = ++dirs->made;
	entry->ino = hash64(entry->number, name, strlen(name));
	entry->listed = true;
	entry->refs++;
	entry->next = dirs->entries;
	dirs->entries = entry;
	pthread_mutex_unlock(&dirs->lock);
	r = file_entry(dir, entry, call, ret);
	if (r < 0)
		pushentry_unlist(dirs, entry);
	pushentry_unref(dirs, entry);
	return r;
}

static int dir_mkdir(const struct node_ref *ref, const char *name, mode_t mode, struct call *call,
		     struct node_entry *ret)
{
	const struct stageplace place = stageplace_of(ref);

	return stagedir_mkdir(&place, name, mode, call, ret);
}

static int dir_rmdir(const struct node_ref *ref, const char *name, struct call *call)
{
	const struct stageplace place = stageplace_of(ref);

	(void)call;
	return stagedir_rmdir(&place, name);
}

static int dir_unlink(const struct node_ref *ref, const char *name, struct call *call)
{
	struct pushdir *dir = pushdir_of(ref);
	struct pushentry *entry = pushentry_find(dir, name);

	(void)call;
	if (!entry)
		return -ENOENT;
	pushentry_unlist(dir->dirs, entry);
	pushentry_unref(dir->dirs, entry);
	return 0;
}

/* ENTRY gets NAME, which it takes over; who had it leaves. PUBLISHED: it is no temporary any more.
 */
static void entry_rename(struct pushdir *dir, struct pushentry *entry, char *name, bool published)
{
	struct pushentry *other = pushentry_find(dir, name);

	if (other && other != entry)
		pushentry_unlist(dir->dirs, other);
	if (other)
		pushentry_unref(dir->dirs, other);
	pthread_mutex_lock(&dir->dirs->lock);
	free(entry->name);
	entry->name = name;
	entry->touched_ms = now_ms();
	if (published) {
		entry->kept = false;
		entry->confirmed_ms = now_ms();
	}
	pthread_mutex_unlock(&dir->dirs->lock);
}

/* Its new name is a tag, or says that the archive names its images: the verdict. */
static int entry_publish(struct pushdir *dir, struct pushentry *entry, const char *name,
			 struct call *call)
{
	AUTO_FREE char *label = NULL;
	AUTO_FREE char *copy = strdup(name);
	char tag[REF_TAG_MAX];
	int r = copy ? entry_target(dir, name, tag, &label) : -ENOMEM;

	if (r == 0)
		r = push_rename(entry->push, *tag ? tag : NULL, label, call->wait);
	if (r < 0)
		return r;
	entry_rename(dir, entry, STEAL(copy), true);
	dir->dirs->hooks.changed(dir->dirs->hooks.arg, call->wait);
	return 0;
}

static int entry_move(struct pushdir *dir, struct pushentry *entry, const char *name,
		      struct call *call)
{
	char *copy;
	bool kept;

	pthread_mutex_lock(&dir->dirs->lock);
	kept = entry->kept;
	pthread_mutex_unlock(&dir->dirs->lock);
	/* What was pushed is pushed: mv copies it then, which pushes it under the other name too.
	 */
	if (!kept)
		return -EXDEV;
	if (!is_temporary(name))
		return entry_publish(dir, entry, name, call);
	copy = strdup(name);
	if (!copy)
		return -ENOMEM;
	entry_rename(dir, entry, copy, false);
	return 0;
}

static int dir_rename(const struct node_ref *ref, const char *name, const struct node_ref *to_ref,
		      const char *to_name, unsigned flags, struct call *call)
{
	const struct stageplace place = stageplace_of(ref);
	struct pushdir *dir = pushdir_of(ref);
	struct pushentry *entry, *other;
	int r = -EEXIST;

	if (flags & ~(unsigned)RENAME_NOREPLACE)
		return -EINVAL;
	if (to_ref->node != ref->node)
		return -EXDEV;
	entry = pushentry_find(dir, name);
	if (!entry)
		return stagedir_rename(&place, name, to_name, flags, call);
	other = flags ? pushentry_find(dir, to_name) : NULL;
	if (!other)
		r = entry_move(dir, entry, to_name, call);
	else
		pushentry_unref(dir->dirs, other);
	pushentry_unref(dir->dirs, entry);
	return r;
}

static void dir_free(struct node *node)
{
	struct pushdir *dir = CONTAINER_OF(node, struct pushdir, node);

	free(dir->repo);
	free(dir);
}

static const struct node_ops pushdir_ops = {
	.kind = "push directory",
	.free = dir_free,
	.getattr = dir_getattr,
	.lookup = dir_lookup,
	.list = dir_list,
	.create = dir_create,
	.mkdir = dir_mkdir,
	.rmdir = dir_rmdir,
	.unlink = dir_unlink,
	.rename = dir_rename,
};

int pushdir_new(struct pushdirs *dirs, struct node *parent, struct store *store, const char *repo,
		struct node **ret)
{
	struct node *found = node_find(dirs->context->nodes, parent, "_push", 0);
	struct pushdir *dir;

	if (found) {
		*ret = found;
		return 0;
	}
	dir = node_new(sizeof(*dir), dirs->context->nodes, &pushdir_ops, parent, "_push");
	if (!dir)
		return -ENOMEM;
	dir->dirs = dirs;
	dir->store = store;
	dir->repo = strdup(repo ? repo : "");
	if (!dir->repo) {
		node_unref(&dir->node);
		return -ENOMEM;
	}
	*ret = node_intern(&dir->node, 0);
	return 0;
}
