/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names_links: _tags and _digests: directories of links to images.
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
};

int link_new(struct names *names, struct node *parent, const char *name, const char *target,
	     struct node **ret)
{
	struct node *found = node_find(names->context->nodes, parent, name, 0);
	struct link *link;

	if (found) {
		*ret = found;
		return 0;
	}
	link = node_new(sizeof(*link), names->context->nodes, &link_ops, parent, name);
	if (!link)
		return -ENOMEM;
	link->names = names;
	link->target = strdup(target);
	if (!link->target) {
		node_unref(&link->node);
		return -ENOMEM;
	}
	*ret = node_intern(&link->node, 0);
	return 0;
}

/* --- a directory of links --- */

struct linkdir {
	struct node node;
	struct names *names;
	struct host *host;
	char *repo;
	struct snapshot snapshot;
};

static struct linkdir *linkdir_of(const struct node_ref *ref)
{
	return CONTAINER_OF(ref->node, struct linkdir, node);
}

/* The link from _tags/TAG or _digests/ALGO-HEX to its image, which lies beside the repository. */
static int link_entry(struct linkdir *dir, const char *name, char separator, const char *reference,
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
	return r < 0 ? r : names_entry(link, names_ttl(dir->names, dir->host), call, ret);
}

static void linkdir_free(struct node *node)
{
	struct linkdir *dir = CONTAINER_OF(node, struct linkdir, node);

	snapshot_release(&dir->snapshot);
	free(dir->repo);
	free(dir);
}

static int linkdir_new(struct names *names, struct host *host, struct node *parent,
		       const char *name, const char *repo, const struct node_ops *ops,
		       struct node **ret)
{
	struct node *found = node_find(names->context->nodes, parent, name, 0);
	struct linkdir *dir;

	if (found) {
		*ret = found;
		return 0;
	}
	dir = node_new(sizeof(*dir), names->context->nodes, ops, parent, name);
	if (!dir)
		return -ENOMEM;
	snapshot_init(&dir->snapshot, &names->context->started);
	dir->names = names;
	dir->host = host;
	dir->repo = strdup(repo);
	if (!dir->repo) {
		node_unref(&dir->node);
		return -ENOMEM;
	}
	*ret = node_intern(&dir->node, 0);
	return 0;
}

/* --- _tags --- */

/* A repository that was made here, and has not been pushed to, has no tags yet. */
int tags_of(struct names *names, struct host *host, const char *repo, struct wait *wait,
	    struct nameset **ret)
{
	struct nameset *repos;
	bool made, fresh;
	int r = answers_tags(names->answers, host, repo, wait, ret);

	if (r != -ENOENT)
		return r;
	repos = answers_repos_known(names->answers, host, &fresh);
	made = nameset_has(repos, repo);
	nameset_unref(repos);
	if (!made)
		return -ENOENT;
	*ret = NULL;
	return 0;
}

static int tags_getattr(const struct node_ref *ref, struct call *call, struct node_attr *ret)
{
	struct linkdir *dir = linkdir_of(ref);
	bool fresh = false;

	(void)call;
	nameset_unref(answers_tags_known(dir->names->answers, dir->host, dir->repo, &fresh));
	names_dir_attr(dir->names, ref->node, dir->names->context->allow_other ? 0700 : 0755,
		       &dir->snapshot, fresh, ret);
	return 0;
}

static int tags_lookup(const struct node_ref *ref, const char *name, struct call *call,
		       struct node_entry *ret)
{
	struct linkdir *dir = linkdir_of(ref);
	struct nameset *tags = NULL;
	struct digest digest;
	int64_t left_ms;
	bool listed;
	int r;

	if (!ref_tag_valid(name))
		return -ENOENT;
	r = answers_tags(dir->names->answers, dir->host, dir->repo, call->wait, &tags);
	if (r == -EWOULDBLOCK || r == -EINTR)
		return r;
	listed = r == 0 && nameset_has(tags, name);
	nameset_unref(tags);
	/* what is not listed may be newer than the list */
	if (!listed) {
		r = answers_resolve(dir->names->answers, dir->host, dir->repo, name, call->wait,
				    &digest, &left_ms);
		if (r < 0)
			return r;
	}
	return link_entry(dir, name, ':', name, call, ret);
}

static int tags_list(const struct node_ref *ref, uint64_t pos, node_list_fn *fn, void *arg,
		     struct call *call)
{
	struct linkdir *dir = linkdir_of(ref);
	struct nameset *tags;
	int r;

	if (pos == 0) {
		r = tags_of(dir->names, dir->host, dir->repo, call->wait, &tags);
		if (r < 0)
			return r;
		snapshot_update(&dir->snapshot, tags);
	}
	return snapshot_list(&dir->snapshot, ref->node, pos, S_IFLNK, fn, arg);
}

static const struct node_ops tags_ops = {
	.kind = "tags",
	.free = linkdir_free,
	.getattr = tags_getattr,
	.lookup = tags_lookup,
	.list = tags_list,
};

int tags_new(struct names *names, struct host *host, struct node *parent, const char *repo,
	     struct node **ret)
{
	return linkdir_new(names, host, parent, "_tags", repo, &tags_ops, ret);
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
	return link_entry(dir, name, '@', digest_format(&digest, text), call, ret);
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

static const struct node_ops digests_ops = {
	.kind = "digests",
	.free = linkdir_free,
	.getattr = digests_getattr,
	.lookup = digests_lookup,
	.list = digests_list,
};

int digests_new(struct names *names, struct host *host, struct node *parent, const char *repo,
		struct node **ret)
{
	return linkdir_new(names, host, parent, "_digests", repo, &digests_ops, ret);
}
