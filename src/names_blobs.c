/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names_blobs: _blobs/ALGO/HEX: raw blobs of a repository by digest. They cannot be listed;
 * entering one asks whether this repository holds it, whatever the cache has. Must not know what a
 * blob holds.
 */
#include <errno.h>

#include "names_priv.h"

struct blobfile {
	struct node node;
	struct names *names;
	struct host *host;
	char *repo;
	enum digest_algo algo; /* of a directory _blobs/ALGO; DIGEST_NONE for _blobs itself */
	struct digest digest;  /* of a file */
	uint64_t size;
};

static struct blobfile *blobfile_of(const struct node_ref *ref)
{
	return CONTAINER_OF(ref->node, struct blobfile, node);
}

static void blobfile_free(struct node *node)
{
	struct blobfile *file = CONTAINER_OF(node, struct blobfile, node);

	free(file->repo);
	free(file);
}

/* A directory or file like VALUES (all but its node). */
static int blobfile_new(const struct blobfile *values, const struct node_ops *ops,
			struct node *parent, const char *name, struct node **ret)
{
	struct nodes *nodes = values->names->context->nodes;
	struct node *found = node_find(nodes, parent, name, 0);
	struct blobfile *file;

	if (found) {
		*ret = found;
		return 0;
	}
	file = node_new(sizeof(*file), nodes, ops, parent, name);
	if (!file)
		return -ENOMEM;
	file->names = values->names;
	file->host = values->host;
	file->algo = values->algo;
	file->digest = values->digest;
	file->size = values->size;
	file->repo = strdup(values->repo);
	if (!file->repo) {
		node_unref(&file->node);
		return -ENOMEM;
	}
	*ret = node_intern(&file->node, 0);
	return 0;
}

static struct blob_id blob_id_of(const struct blobfile *file)
{
	return (struct blob_id){
		.digest = &file->digest,
		.size = file->size,
		.store = file->host->store,
		.repo = file->repo,
	};
}

static int file_getattr(const struct node_ref *ref, struct call *call, struct node_attr *ret)
{
	const struct blobfile *file = blobfile_of(ref);
	const struct blob_id id = blob_id_of(file);

	(void)call;
	context_stat(file->names->context, ref->node->ino, S_IFREG | 0444, file->size, &ret->st);
	ret->timeout = context_raw(file->names->context, &id, &ret->st);
	return 0;
}

static ssize_t file_read(const struct node_ref *ref, uint64_t off, void *buf, size_t len,
			 struct call *call)
{
	const struct blobfile *file = blobfile_of(ref);
	const struct blob_id id = blob_id_of(file);

	return blob_read_raw(file->names->context->blobs, &id, off, buf, len, call->wait);
}

static ssize_t file_getxattr(const struct node_ref *ref, const char *name, void *buf, size_t cap,
			     struct call *call)
{
	char text[DIGEST_STR_MAX];

	(void)call;
	if (strcmp(name, "user.regfs.digest") != 0)
		return -ENODATA;
	return context_xattr(digest_format(&blobfile_of(ref)->digest, text), buf, cap);
}

static const struct node_ops file_ops = {
	.kind = "blob",
	.free = blobfile_free,
	.getattr = file_getattr,
	.read = file_read,
	.getxattr = file_getxattr,
};

/* --- the directories --- */

static int blobs_getattr(const struct node_ref *ref, struct call *call, struct node_attr *ret)
{
	(void)call;
	context_stat(blobfile_of(ref)->names->context, ref->node->ino, S_IFDIR | 0755, 0, &ret->st);
	ret->timeout = NODE_FOREVER;
	return 0;
}

/* Whether nobody answers at all: an answer that is no good may be so for one blob alone. */
static bool is_silent(int error)
{
	return store_is_gone(error) && error != -EIO && error != -EBUSY;
}

/* The kernel lets one at a time look a name up. While the registry keeps silent they do not wait
 * for it in turn. */
static int ask_size(const struct blobfile *dir, const struct digest *digest, uint64_t *ret,
		    struct wait *wait)
{
	pthread_mutex_t *lock = &dir->names->lock;
	struct host *host = dir->host;
	int64_t begin = now_ms();
	int r;

	pthread_mutex_lock(lock);
	r = begin < host->gone_until_ms ? host->gone : 0;
	pthread_mutex_unlock(lock);
	if (r < 0)
		return r;
	r = host->store->ops->has_blob(host->store, dir->repo, digest, ret, wait);
	if (!is_silent(r))
		return r;
	pthread_mutex_lock(lock);
	host->gone = r;
	host->gone_until_ms = now_ms() + store_gone_ms(begin);
	pthread_mutex_unlock(lock);
	return r;
}

/* What the children of DIR begin with. Its node is not read: others count in it meanwhile. */
static struct blobfile values_of(const struct blobfile *dir)
{
	return (struct blobfile){
		.names = dir->names, .host = dir->host, .repo = dir->repo, .algo = dir->algo};
}

static int hex_lookup(const struct node_ref *ref, const char *hex, struct call *call,
		      struct node_entry *ret)
{
	const struct blobfile *dir = blobfile_of(ref);
	struct blobfile values = values_of(dir);
	AUTO_FREE char *text = format("%s:%s", digest_algo_name(dir->algo), hex);
	struct node *node;
	int r;

	if (!text)
		return -ENOMEM;
	if (digest_parse(text, &values.digest) < 0)
		return -ENOENT;
	r = ask_size(dir, &values.digest, &values.size, call->wait);
	if (r == 0)
		r = blobfile_new(&values, &file_ops, ref->node, hex, &node);
	return r < 0 ? r : names_entry(node, names_ttl(dir->names, dir->host), call, ret);
}

/* Nothing is listed: a registry does not tell. */
static int hex_list(const struct node_ref *ref, uint64_t pos, node_list_fn *fn, void *arg,
		    struct call *call)
{
	(void)ref, (void)pos, (void)fn, (void)arg, (void)call;
	return 0;
}

static const struct node_ops hex_ops = {
	.kind = "blobs of an algorithm",
	.free = blobfile_free,
	.getattr = blobs_getattr,
	.lookup = hex_lookup,
	.list = hex_list,
};

static const enum digest_algo algos[] = {DIGEST_SHA256, DIGEST_SHA512};

static int algo_lookup(const struct node_ref *ref, const char *name, struct call *call,
		       struct node_entry *ret)
{
	struct blobfile values = values_of(blobfile_of(ref));
	struct node *node;
	int r;

	values.algo = DIGEST_NONE;
	for (size_t i = 0; i < ARRAY_SIZE(algos); i++)
		if (!strcmp(name, digest_algo_name(algos[i])))
			values.algo = algos[i];
	if (values.algo == DIGEST_NONE)
		return -ENOENT;
	r = blobfile_new(&values, &hex_ops, ref->node, name, &node);
	return r < 0 ? r : names_entry(node, NODE_FOREVER, call, ret);
}

static int algo_list(const struct node_ref *ref, uint64_t pos, node_list_fn *fn, void *arg,
		     struct call *call)
{
	(void)call;
	for (; pos < ARRAY_SIZE(algos); pos++) {
		const char *name = digest_algo_name(algos[pos]);
		const struct node_listed listed = {
			.pos = pos + 1,
			.name = name,
			.len = strlen(name),
			.type = S_IFDIR,
			.ino = node_ino(ref->node, name),
		};

		if (fn(arg, &listed) != 0)
			break;
	}
	return 0;
}

static const struct node_ops algo_ops = {
	.kind = "blobs",
	.free = blobfile_free,
	.getattr = blobs_getattr,
	.lookup = algo_lookup,
	.list = algo_list,
};

int blobs_dir_new(struct names *names, struct host *host, struct node *parent, const char *repo,
		  struct node **ret)
{
	const struct blobfile values = {.names = names, .host = host, .repo = (char *)repo};

	return blobfile_new(&values, &algo_ops, parent, "_blobs", ret);
}
