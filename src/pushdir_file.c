/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file under _push: its attributes, its bytes, and what its close says.
 * Must not know archives or uploads.
 */
#include <errno.h>

#include "pushdir_priv.h"

static struct pushfile *pushfile_of(const struct node_ref *ref)
{
	return CONTAINER_OF(ref->node, struct pushfile, node);
}

static int file_getattr(const struct node_ref *ref, struct call *call, struct node_attr *ret)
{
	struct pushfile *file = pushfile_of(ref);
	struct pushentry *entry = file->entry;
	uint64_t size = push_size(entry->push);

	(void)call;
	context_stat(file->dirs->context, entry->ino, 0, size, &ret->st);
	/* cp writes so much at a time, which spares five of six changes of thread. */
	ret->st.st_blksize = MIB;
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
	struct pushentry *entry = file->entry;
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
	struct pushentry *entry = file->entry;
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
		pushentry_unlist(file->dirs, file->entry);
	pushentry_unref(file->dirs, file->entry);
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

int pushfile_new(struct pushdir *dir, struct pushentry *entry, struct node **ret)
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
