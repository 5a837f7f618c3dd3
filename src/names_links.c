/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names_links: links to images, directories of them, and _digests.
 * Must not know what an image is.
 */
#include <errno.h>

#include "names_priv.h"

/* --- a link --- */

struct link {
	struct node node;
	struct names *names;
	char *target;
};

static int link_getattr(const struct node_ref *ref, struct call *call, struct node_attr *ret)
{
	const struct link *link = CONTAINER_OF(ref->node, struct link, node);

	(void)call;
	context_stat(link->names->context, ref->node->ino, S_IFLNK | 0777, strlen(link->target),
		     &ret->st);
	ret->timeout = NODE_FOREVER;
	return 0;
}

static int link_readlink(const struct node_ref *ref, struct call *call, char **ret)
{
	char *copy = strdup(CONTAINER_OF(ref->node, struct link, node)->target);

	(void)call;
	if (!copy)
		return -ENOMEM;
	*ret = copy;
	return 0;
}

/* Owners and times that cp -a gives to the link it made: a tag has none, and is made already. */
static int link_setattr(const struct node_ref *ref, const struct node_change *change,
			struct call *call)
{
	(void)call;
	return !ref->node->parent->ops->symlink || change->size ? -EROFS : 0;
}

static void link_free(struct node *node)
{
	struct link *link = CONTAINER_OF(node, struct link, node);

	free(link->target);
	free(link);
}

static const struct node_ops link_ops = {
	.kind = "link",
	.free = link_free,
	.getattr = link_getattr,
	.readlink = link_readlink,
	.setattr = link_setattr,
};

int link_make(struct names *names, struct node *parent, const char *name,
	      const struct link_text *text, struct node **ret)
{
	struct node *found = node_find(names->context->nodes, parent, name, text->disc);
	struct link *link;

	if (found) {
		*ret = found;
		return 0;
	}
	link = node_new(sizeof(*link), names->context->nodes, &link_ops, parent, name);
	if (!link)
		return -ENOMEM;
	link->names = names;
	link->target = strdup(text->target);
	if (!link->target) {
		node_unref(&link->node);
		return -ENOMEM;
	}
	*ret = node_intern(&link->node, text->disc);
	return 0;
}

int link_new(struct names *names, struct node *parent, const char *name, const char *target,
	     struct node **ret)
{
	const struct link_text text = {.target = target};

	return link_make(names, parent, name, &text, ret);
}

/* --- a directory of links --- */

int linkdir_entry(struct linkdir *dir, const char *name, char separator, const char *reference,
		  struct call *call, struct node_entry *ret)
{
	const char *slash = strrchr(dir->repo, '/');
	AUTO_FREE char *target = format("../../%s%c%s", slash ? slash + 1 : dir->repo, separator,
					reference);
	struct node *link;
	int r;

	if (!target)
		return -ENOMEM;
	r = link_new(dir->names, &dir->node, name, target, &link);
	/* A renamed link would keep its name for so long in the kernel, and its old text. */
	if (r == 0)
		r = names_entry(
			link,
			dir->names->context->allow_delete ? 0 : names_ttl(dir->names, dir->host),
			call, ret);
	return r;
}

void linkdir_free(struct node *node)
{
	struct linkdir *dir = CONTAINER_OF(node, struct linkdir, node);

	snapshot_release(&dir->snapshot);
	free(dir->repo);
	free(dir);
}

int linkdir_new(const struct linkdir_options *options, struct node **ret)
{
	struct names *names = options->names;
	struct node *found = node_find(names->context->nodes, options->parent, options->name, 0);
	struct linkdir *dir;

	if (found) {
		*ret = found;
		return 0;
	}
	dir = node_new(sizeof(*dir), names->context->nodes, options->ops, options->parent,
		       options->name);
	if (!dir)
		return -ENOMEM;
	snapshot_init(&dir->snapshot, &names->context->started);
	dir->names = names;
	dir->host = options->host;
	dir->repo = strdup(options->repo);
	if (!dir->repo) {
		node_unref(&dir->node);
		return -ENOMEM;
	}
	*ret = node_intern(&dir->node, 0);
	return 0;
}

/* --- _digests --- */

static int digests_getattr(const struct node_ref *ref, struct call *call, struct node_attr *ret)
{
	struct linkdir *dir = linkdir_of(ref);
	struct nameset *seen = answers_seen(dir->names->answers, dir->host, dir->repo);

	(void)call;
	if (seen)
		snapshot_update(&dir->snapshot, seen);
	names_dir_attr(dir->names, ref->node, 0755, &dir->snapshot, true, ret);
	return 0;
}

static int digests_lookup(const struct node_ref *ref, const char *name, struct call *call,
			  struct node_entry *ret)
{
	struct linkdir *dir = linkdir_of(ref);
	char text[DIGEST_STR_MAX];
	struct digest digest;
	struct image *image;
	int r;

	if (digest_parse_sep(name, '-', &digest) < 0)
		return -ENOENT;
	r = image_open(dir->names->context->images, dir->host->store, dir->repo, &digest,
		       call->wait, &image);
	if (r < 0)
		return r;
	image_unref(image);
	return linkdir_entry(dir, name, '@', digest_format(&digest, text), call, ret);
}

static int digests_list(const struct node_ref *ref, uint64_t pos, node_list_fn *fn, void *arg,
			struct call *call)
{
	struct linkdir *dir = linkdir_of(ref);
	struct nameset *seen;

	(void)call;
	if (pos == 0) {
		seen = answers_seen(dir->names->answers, dir->host, dir->repo);
		if (seen)
			snapshot_update(&dir->snapshot, seen);
	}
	return snapshot_list(&dir->snapshot, ref->node, pos, S_IFLNK, fn, arg);
}

/* As rmdir of the image beside the repository: for tools that split at colons. */
static int digests_unlink(const struct node_ref *ref, const char *name, struct call *call)
{
	struct linkdir *dir = linkdir_of(ref);
	struct digest digest;
	int r;

	if (digest_parse_sep(name, '-', &digest) < 0)
		return -ENOENT;
	r = names_delete_image(dir->names, dir->host, dir->repo, &digest, call->wait);
	if (r == 0)
		names_settle_images(dir->names, call->wait);
	return r;
}

static const struct node_ops digests_ops = {
	.kind = "digests",
	.free = linkdir_free,
	.getattr = digests_getattr,
	.lookup = digests_lookup,
	.list = digests_list,
	.unlink = digests_unlink,
};

int digests_new(struct names *names, struct host *host, struct node *parent, const char *repo,
		struct node **ret)
{
	const struct linkdir_options options = {
		.names = names,
		.host = host,
		.parent = parent,
		.name = "_digests",
		.repo = repo,
		.ops = &digests_ops,
	};

	return linkdir_new(&options, ret);
}
