/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pushdir: _push/. An entry is a push with a name and the attributes that cp -a and the like set;
 * it outlives its node. A confirmed one stays for a minute, a failed or unfinished one leaves with
 * its last close, a temporary (a leading dot) when it was not touched for an hour. Must not know
 * archives or uploads.
 */
#include <errno.h>
#include <stdio.h>

#include "regfs/log.h"
#include "regfs/pushdir.h"
#include "regfs/ref.h"
#include "regfs/stagedir.h"

#define STAYS_MS (60 * 1000)
#define KEPT_MS	 (60 * 60 * 1000)

/* One file under some _push. */
struct entry {
	struct entry *next; /* guarded by pushdirs->lock */
	unsigned refs;	    /* guarded by pushdirs->lock: the table's and the nodes' */
	bool listed;	    /* in the table; guarded by pushdirs->lock */
	struct store *store;
	char *repo;	   /* "" for a registry's _push */
	char *node_name;   /* the first: a rename leaves the node as it is */
	struct push *push; /* held */
	uint64_t number;   /* in the order of creation, from 1 */
	uint64_t ino;
	/* guarded by pushdirs->lock */
	char *name;
	bool kept;	      /* a temporary: to be renamed */
	int64_t touched_ms;   /* written, closed or renamed */
	int64_t confirmed_ms; /* 0: not */
	int64_t failed_ms;    /* of the last flush, if nothing was written since; 0: none */
	mode_t mode;
	uid_t uid;
	gid_t gid;
	struct timespec mtime;
};

struct pushdirs {
	const struct context *context;
	struct pushdirs_hooks hooks;
	pthread_mutex_t lock;
	struct entry *entries;	  /* guarded by lock */
	uint64_t made;		  /* numbers entries; guarded by lock */
	struct stagedirs *staged; /* those entries that are directories */
};

struct pushdirs *pushdirs_new(const struct context *context, const struct pushdirs_hooks *hooks)
{
	struct pushdirs *dirs = calloc(1, sizeof(*dirs));

	if (!dirs)
		return NULL;
	dirs->staged = stagedirs_new(context, hooks);
	if (!dirs->staged) {
		free(dirs);
		return NULL;
	}
	dirs->context = context;
	dirs->hooks = *hooks;
	pthread_mutex_init(&dirs->lock, NULL);
	return dirs;
}

static void entry_free(struct entry *entry)
{
	push_unref(entry->push);
	free(entry->repo);
	free(entry->node_name);
	free(entry->name);
	free(entry);
}

void pushdirs_free(struct pushdirs *dirs)
{
	if (!dirs)
		return;
	while (dirs->entries) {
		struct entry *entry = dirs->entries;

		dirs->entries = entry->next;
		entry_free(entry);
	}
	stagedirs_free(dirs->staged);
	pthread_mutex_destroy(&dirs->lock);
	free(dirs);
}

static void entry_unref(struct pushdirs *dirs, struct entry *entry)
{
	bool last;

	pthread_mutex_lock(&dirs->lock);
	last = --entry->refs == 0;
	pthread_mutex_unlock(&dirs->lock);
	if (last)
		entry_free(entry);
}

/* Takes ENTRY out of the table; what is open goes on until it is closed. */
static void entry_unlist(struct pushdirs *dirs, struct entry *entry)
{
	bool was_listed;

	pthread_mutex_lock(&dirs->lock);
	was_listed = entry->listed;
	for (struct entry **at = &dirs->entries; was_listed && *at; at = &(*at)->next) {
		if (*at == entry) {
			*at = entry->next;
			break;
		}
	}
	entry->listed = false;
	pthread_mutex_unlock(&dirs->lock);
	if (was_listed)
		entry_unref(dirs, entry);
}

/* Lock held. */
static bool is_over(const struct entry *entry, int64_t now)
{
	int64_t before = now - STAYS_MS;

	if (entry->kept)
		return entry->touched_ms < now - KEPT_MS;
	return (entry->confirmed_ms && entry->confirmed_ms < before) ||
	       (entry->failed_ms && entry->failed_ms < before);
}

/* Drops what was confirmed, or failed or kept and not touched again, long enough ago. */
static void sweep(struct pushdirs *dirs)
{
	int64_t now = now_ms();
	struct entry *old = NULL;

	pthread_mutex_lock(&dirs->lock);
	for (struct entry **at = &dirs->entries; *at;) {
		struct entry *entry = *at;

		if (!is_over(entry, now)) {
			at = &entry->next;
			continue;
		}
		*at = entry->next;
		entry->listed = false;
		if (--entry->refs == 0) {
			entry->next = old;
			old = entry;
		}
	}
	pthread_mutex_unlock(&dirs->lock);
	while (old) {
		struct entry *entry = old;

		old = entry->next;
		entry_free(entry);
	}
}

/* --- the directory --- */

struct pushdir {
	struct node node;
	struct pushdirs *dirs;
	struct store *store;
	char *repo; /* "" for a registry's */
};

struct pushfile {
	struct node node;
	struct pushdirs *dirs;
	struct entry *entry; /* held */
};

static struct pushdir *pushdir_of(const struct node_ref *ref)
{
	return CONTAINER_OF(ref->node, struct pushdir, node);
}

static struct pushfile *pushfile_of(const struct node_ref *ref)
{
	return CONTAINER_OF(ref->node, struct pushfile, node);
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

/* Lock held. */
static bool entry_is_in(const struct entry *entry, const struct pushdir *dir)
{
	return entry->store == dir->store && !strcmp(entry->repo, dir->repo);
}

/* The entry NAME, held, or NULL. */
static struct entry *entry_find(struct pushdir *dir, const char *name)
{
	struct entry *entry;

	pthread_mutex_lock(&dir->dirs->lock);
	entry = dir->dirs->entries;
	while (entry && !(entry_is_in(entry, dir) && !strcmp(entry->name, name)))
		entry = entry->next;
	if (entry)
		entry->refs++;
	pthread_mutex_unlock(&dir->dirs->lock);
	return entry;
}

static int pushfile_new(struct pushdir *dir, struct entry *entry, struct node **ret);

static int file_entry(struct pushdir *dir, struct entry *entry, struct call *call,
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
	struct entry *entry;
	int r;

	sweep(dir->dirs);
	entry = entry_find(dir, name);
	if (!entry)
		return stagedir_lookup(&place, name, call, ret);
	r = file_entry(dir, entry, call, ret);
	entry_unref(dir->dirs, entry);
	return r;
}

/* A name to list, copied out from under the lock. POS counts entries by the number they got. */
static bool next_name(struct pushdir *dir, uint64_t *pos, char out[static 256], uint64_t *ret_ino)
{
	const struct entry *best = NULL;

	pthread_mutex_lock(&dir->dirs->lock);
	for (const struct entry *entry = dir->dirs->entries; entry; entry = entry->next)
		if (entry_is_in(entry, dir) && entry->number > *pos &&
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
	sweep(dir->dirs);
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

static int entry_make(struct pushdir *dir, const char *name, struct call *call, struct entry **ret)
{
	AUTO_FREE char *label = NULL;
	char tag[REF_TAG_MAX];
	struct entry *entry;
	int r = entry_target(dir, name, tag, &label);

	if (r < 0)
		return r;
	entry = calloc(1, sizeof(*entry));
	if (!entry)
		return -ENOMEM;
	*entry = (struct entry){
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
		entry_free(entry);
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
	struct entry *entry;
	int r;

	sweep(dirs);
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
		entry_unlist(dirs, entry);
	entry_unref(dirs, entry);
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
	struct entry *entry = entry_find(dir, name);

	(void)call;
	if (!entry)
		return -ENOENT;
	entry_unlist(dir->dirs, entry);
	entry_unref(dir->dirs, entry);
	return 0;
}

/* ENTRY gets NAME, which it takes over; who had it leaves. PUBLISHED: it is no temporary any more.
 */
static void entry_rename(struct pushdir *dir, struct entry *entry, char *name, bool published)
{
	struct entry *other = entry_find(dir, name);

	if (other && other != entry)
		entry_unlist(dir->dirs, other);
	if (other)
		entry_unref(dir->dirs, other);
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
static int entry_publish(struct pushdir *dir, struct entry *entry, const char *name,
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

static int entry_move(struct pushdir *dir, struct entry *entry, const char *name, struct call *call)
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
	struct entry *entry, *other;
	int r = -EEXIST;

	if (flags & ~(unsigned)RENAME_NOREPLACE)
		return -EINVAL;
	if (to_ref->node != ref->node)
		return -EXDEV;
	entry = entry_find(dir, name);
	if (!entry)
		return stagedir_rename(&place, name, to_name, flags, call);
	other = flags ? entry_find(dir, to_name) : NULL;
	if (!other)
		r = entry_move(dir, entry, to_name, call);
	else
		entry_unref(dir->dirs, other);
	entry_unref(dir->dirs, entry);
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

/* --- a file --- */

static int file_getattr(const struct node_ref *ref, struct call *call, struct node_attr *ret)
{
	struct pushfile *file = pushfile_of(ref);
	struct entry *entry = file->entry;
	uint64_t size = push_size(entry->push);

	(void)call;
	context_stat(file->dirs->context, entry->ino, 0, size, &ret->st);
	pthread_mutex_lock(&file->dirs->lock);
	ret->st.st_mode = entry->mode;
	ret->st.st_uid = entry->uid;
	ret->st.st_gid = entry->gid;
	ret->st.st_mtim = ret->st.st_ctim = entry->mtime;
	pthread_mutex_unlock(&file->dirs->lock);
	ret->timeout = 0;
	return 0;
}

static ssize_t file_read(const struct node_ref *ref, uint64_t off, void *buf, size_t len,
			 struct call *call)
{
	(void)call;
	return push_read(pushfile_of(ref)->entry->push, off, buf, len);
}

static ssize_t file_write(const struct node_ref *ref, uint64_t off, const void *buf, size_t len,
			  struct call *call)
{
	struct pushfile *file = pushfile_of(ref);
	ssize_t n = push_write(file->entry->push, off, buf, len, call->wait);

	if (n >= 0) {
		pthread_mutex_lock(&file->dirs->lock);
		file->entry->confirmed_ms = file->entry->failed_ms = 0;
		file->entry->touched_ms = now_ms();
		clock_gettime(CLOCK_REALTIME, &file->entry->mtime);
		pthread_mutex_unlock(&file->dirs->lock);
	}
	return n;
}

static int file_setattr(const struct node_ref *ref, const struct node_change *change,
			struct call *call)
{
	struct pushfile *file = pushfile_of(ref);
	struct entry *entry = file->entry;
	int r;

	(void)call;
	if (change->size) {
		r = push_truncate(entry->push, *change->size);
		if (r < 0)
			return r;
	}
	pthread_mutex_lock(&file->dirs->lock);
	if (change->size)
		entry->confirmed_ms = entry->failed_ms = 0;
	if (change->mode)
		entry->mode = S_IFREG | (*change->mode & 07777);
	if (change->uid)
		entry->uid = *change->uid;
	if (change->gid)
		entry->gid = *change->gid;
	if (change->mtime)
		entry->mtime = *change->mtime;
	pthread_mutex_unlock(&file->dirs->lock);
	return 0;
}

/* cp -a and install set attributes of their own; an image does not carry them. */
static int file_setxattr(const struct node_ref *ref, const char *name, const void *value,
			 size_t len, int flags, struct call *call)
{
	(void)ref, (void)name, (void)value, (void)len, (void)flags, (void)call;
	return 0;
}

/* A temporary is only kept: its rename will say what is wrong with it. */
static int keep(struct pushfile *file, int r)
{
	pthread_mutex_lock(&file->dirs->lock);
	file->entry->touched_ms = now_ms();
	pthread_mutex_unlock(&file->dirs->lock);
	return r == -EINTR ? r : 0;
}

/* Tells the kernel that what failed is no longer there. */
static void forget(struct pushfile *file, const struct node_ref *dir)
{
	struct pushdirs *dirs = file->dirs;
	AUTO_FREE char *name = NULL;

	pthread_mutex_lock(&dirs->lock);
	name = strdup(file->entry->name);
	pthread_mutex_unlock(&dirs->lock);
	if (name)
		dirs->hooks.forget(dirs->hooks.arg, dir, name);
}

static bool is_kept(struct pushfile *file)
{
	pthread_mutex_lock(&file->dirs->lock);
	bool kept = file->entry->kept;
	pthread_mutex_unlock(&file->dirs->lock);
	return kept;
}

/* The verdict. What was confirmed stays for a while; what failed leaves with its last close,
 * which the kernel's forgetting tells. */
static int file_flush(const struct node_ref *ref, struct call *call)
{
	struct pushfile *file = pushfile_of(ref);
	struct pushdirs *dirs = file->dirs;
	struct entry *entry = file->entry;
	const struct node_ref dir = {.node = ref->node->parent};
	bool confirmed;
	int r;

	if (push_size(entry->push) && !wait_may_block(call->wait))
		return -EWOULDBLOCK;
	r = push_flush(entry->push, call->wait);
	if (r == -EWOULDBLOCK)
		return r;
	if (is_kept(file))
		return keep(file, r);
	confirmed = r == 0 && push_size(entry->push);
	pthread_mutex_lock(&dirs->lock);
	if (confirmed && !entry->confirmed_ms)
		entry->confirmed_ms = now_ms();
	entry->failed_ms = r < 0 ? now_ms() : 0;
	pthread_mutex_unlock(&dirs->lock);
	if (confirmed)
		dirs->hooks.changed(dirs->hooks.arg, call->wait);
	if (r < 0)
		forget(file, &dir);
	return r;
}

static void file_free(struct node *node)
{
	struct pushfile *file = CONTAINER_OF(node, struct pushfile, node);
	bool leaves;

	pthread_mutex_lock(&file->dirs->lock);
	leaves = node->interned && !file->entry->confirmed_ms && !file->entry->kept;
	pthread_mutex_unlock(&file->dirs->lock);
	/* The kernel forgot it: nobody has it open, and it is no push. (One that lost the race to
	 * be interned was never told to the kernel.) */
	if (leaves)
		entry_unlist(file->dirs, file->entry);
	entry_unref(file->dirs, file->entry);
	free(file);
}

static const struct node_ops pushfile_ops = {
	.kind = "push",
	.free = file_free,
	.getattr = file_getattr,
	.read = file_read,
	.write = file_write,
	.setattr = file_setattr,
	.setxattr = file_setxattr,
	.flush = file_flush,
	.fsync = file_flush,
};

static int pushfile_new(struct pushdir *dir, struct entry *entry, struct node **ret)
{
	struct nodes *nodes = dir->dirs->context->nodes;
	struct node *found = node_find(nodes, &dir->node, entry->node_name, entry->number);
	struct pushfile *file;

	if (found) {
		*ret = found;
		return 0;
	}
	file = node_new(sizeof(*file), nodes, &pushfile_ops, &dir->node, entry->node_name);
	if (!file)
		return -ENOMEM;
	file->dirs = dir->dirs;
	file->entry = entry;
	pthread_mutex_lock(&dir->dirs->lock);
	entry->refs++;
	pthread_mutex_unlock(&dir->dirs->lock);
	*ret = node_intern(&file->node, entry->number);
	return 0;
}
