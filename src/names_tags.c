/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names_tags: _tags: a link for each tag. Making one makes a tag, renaming one moves it.
 * Knows what a link's maker means by it. Must not know what an image is, nor how it is copied.
 *
 * A tag is made with what its link's text names just then; the answer is the registry's. The kernel
 * keeps the directory locked meanwhile: it has to hear of what changed in it after the answer, and
 * of the images' names before.
 */
#include <errno.h>

#include "regfs/log.h"

#include "names_priv.h"

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

/* A link under a temporary name: what its maker gave it. */
static int pending_entry(struct linkdir *dir, const char *name, struct call *call,
			 struct node_entry *ret)
{
	AUTO_FREE char *text = NULL;
	struct link_text link_text;
	struct node *link;
	int r = pendings_find(dir->names->pendings, dir->host, dir->repo, name, &text,
			      &link_text.disc);

	if (r < 0)
		return r;
	link_text.target = text;
	r = link_make(dir->names, &dir->node, name, &link_text, &link);
	return r < 0 ? r : names_entry(link, 0, call, ret);
}

/* 0: the store has the tag; -ENOENT. */
static int find_tag(const struct linkdir *dir, const char *name, struct wait *wait)
{
	struct answers *answers = dir->names->answers;
	struct nameset *tags = NULL;
	struct digest digest;
	int64_t left_ms;
	bool listed;
	int r = answers_tags(answers, dir->host, dir->repo, wait, &tags);

	if (r == -EWOULDBLOCK || r == -EINTR)
		return r;
	listed = r == 0 && nameset_has(tags, name);
	nameset_unref(tags);
	/* what is not listed may be newer than the list */
	return listed ? 0
		      : answers_resolve(answers, dir->host, dir->repo, name, wait, &digest,
					&left_ms);
}

static int tags_lookup(const struct node_ref *ref, const char *name, struct call *call,
		       struct node_entry *ret)
{
	struct linkdir *dir = linkdir_of(ref);
	struct glimpses *glimpses = dir->names->glimpses;
	const struct glimpse key = {
		.host = dir->host, .repo = dir->repo, .tag = name, .pid = call->pid};
	int r = -ENOENT;

	if (pending_is_temporary(name))
		r = pending_entry(dir, name, call, ret);
	if (r != -ENOENT || !ref_tag_valid(name))
		return r;
	r = find_tag(dir, name, call->wait);
	/* elsewhere the kernel believes names for a while */
	if (r == 0 && host_is_local(dir->host))
		glimpses_add(glimpses, &key, now_ms());
	else if (r == -ENOENT && glimpses_has(glimpses, &key, now_ms()))
		r = 0;
	return r < 0 ? r : linkdir_entry(dir, name, ':', name, call, ret);
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

/* --- making, moving, removing --- */

/* The image that TEXT names as a link NAME of DIR. */
static int target_of(const struct linkdir *dir, const char *name, const char *text, struct ref *ret)
{
	const struct names *names = dir->names;
	const struct target_base base = {
		.mountpoint = names->context->mountpoint,
		.has_hosts = names->has_hosts,
		.host = dir->host->name,
		.repo = dir->repo,
	};
	int r = target_resolve(&base, text, ret);

	if (r < 0) {
		log_warn("%s/%s/_tags/%s -> %s: a tag is a link to an image of this mount: 1.5, "
			 "../../app:1.5, ../_digests/sha256-...",
			 dir->host->name, dir->repo, name, text);
		return r;
	}
	if (strcmp(ret->host, dir->host->name) != 0) {
		log_warn("%s/%s/_tags/%s -> %s: the image is in another registry, %s; copy it: "
			 "cp .../image.tar .../%s/_push/%s.tar",
			 dir->host->name, dir->repo, name, text, ret->host, dir->repo, name);
		return -EXDEV;
	}
	return 0;
}

static int publish(const struct linkdir *dir, const char *tag, const struct ref *image,
		   struct wait *wait)
{
	struct names *names = dir->names;
	char digest[DIGEST_STR_MAX], text[REF_STR_MAX];
	const struct push_copy copy = {
		.store = dir->host->store,
		.from_repo = image->repo,
		.from = image->digest.algo == DIGEST_NONE ? image->tag
							  : digest_format(&image->digest, digest),
		.repo = dir->repo,
		.tag = tag,
	};
	struct digest made;
	int r = push_copy(names->context->pushes, &copy, wait, &made);

	if (r == -ENOENT)
		log_warn("%s/%s/_tags/%s: there is no image %s", dir->host->name, dir->repo, tag,
			 ref_format(image, text));
	if (r == 0) {
		names_tag_made(names, dir->host->store, dir->repo, tag, &made);
		names_settle_images(names, wait);
	}
	return r;
}

/* Gives TAG the image that TEXT leads to. */
static int publish_text(const struct linkdir *dir, const char *tag, const char *text,
			struct wait *wait)
{
	struct ref image;
	int r = target_of(dir, tag, text, &image);

	return r < 0 ? r : publish(dir, tag, &image, wait);
}

void tags_publish_pending(void *arg, struct host *host, const char *repo, const char *tag,
			  const char *text, struct wait *wait)
{
	const struct linkdir dir = {.names = arg, .host = host, .repo = (char *)repo};
	int r = publish_text(&dir, tag, text, wait);

	if (r < 0)
		log_error("%s/%s/_tags/%s: not made a tag: %s", host->name, repo, tag,
			  strerror(-r));
}

static int check_tag(const struct linkdir *dir, const char *tag)
{
	if (ref_tag_valid(tag))
		return 0;
	log_warn("%s/%s/_tags/%s: not a tag (letters, digits, _ . -, at most 128, and the first is "
		 "no . or -)",
		 dir->host->name, dir->repo, tag);
	return -EINVAL;
}

static int symlink_pending(struct linkdir *dir, const char *name, const char *text,
			   struct call *call, struct node_entry *ret)
{
	const struct pending_link link = {
		.host = dir->host,
		.repo = dir->repo,
		.name = name,
		.text = text,
		.pid = call->pid,
	};
	int r = pendings_add(dir->names->pendings, &link);

	return r < 0 ? r : pending_entry(dir, name, call, ret);
}

static int tags_symlink(const struct node_ref *ref, const char *name, const char *text,
			struct call *call, struct node_entry *ret)
{
	struct linkdir *dir = linkdir_of(ref);
	int r;

	if (pending_is_temporary(name))
		return symlink_pending(dir, name, text, call, ret);
	r = check_tag(dir, name);
	if (r == 0 && !wait_may_block(call->wait))
		r = -EWOULDBLOCK;
	if (r == 0)
		r = publish_text(dir, name, text, call->wait);
	return r < 0 ? r : linkdir_entry(dir, name, ':', name, call, ret);
}

static int tags_unlink(const struct node_ref *ref, const char *name, struct call *call)
{
	struct linkdir *dir = linkdir_of(ref);
	int r = -ENOENT;

	if (pending_is_temporary(name))
		r = pendings_drop(dir->names->pendings, dir->host, dir->repo, name);
	return r == -ENOENT ? names_untag(dir->names, dir->host, dir->repo, name, call->wait) : r;
}

/* ln -sf: the link it made gets the tag's name. */
static int rename_pending(struct linkdir *to, struct pending *pending, const char *to_name,
			  struct wait *wait)
{
	int r = publish_text(to, to_name, pending_text(pending), wait);

	pendings_put(to->names->pendings, pending, r == 0);
	return r;
}

/* The new name first: at no time is the image without one. */
static int rename_tag(struct linkdir *from, const char *name, struct linkdir *to,
		      const char *to_name, struct wait *wait)
{
	struct names *names = from->names;
	struct ref image = {.digest = {.algo = DIGEST_NONE}};
	int r = names_can_untag(names, from->host, from->repo, name, wait);

	if (r < 0)
		return r;
	snprintf(image.host, sizeof(image.host), "%s", from->host->name);
	snprintf(image.repo, sizeof(image.repo), "%s", from->repo);
	snprintf(image.tag, sizeof(image.tag), "%s", name);
	r = publish(to, to_name, &image, wait);
	if (r < 0)
		return r;
	r = names_untag(names, from->host, from->repo, name, wait);
	if (r < 0)
		log_error("%s/%s: the image is %s:%s now, and is still %s too: that could not be "
			  "deleted",
			  from->host->name, from->repo, to->repo, to_name, name);
	return r;
}

static int tags_rename(const struct node_ref *ref, const char *name, const struct node_ref *to_ref,
		       const char *to_name, unsigned flags, struct call *call)
{
	struct linkdir *from = linkdir_of(ref), *to;
	struct pending *pending;
	int r;

	if (to_ref->node->ops != ref->node->ops)
		return -EROFS;
	/* The kernel has looked whether the new name is there. */
	if (flags & ~RENAME_NOREPLACE)
		return -EINVAL;
	to = linkdir_of(to_ref);
	r = check_tag(to, to_name);
	if (r < 0)
		return r;
	if (!wait_may_block(call->wait))
		return -EWOULDBLOCK;
	r = -ENOENT;
	if (pending_is_temporary(name))
		r = pendings_take(from->names->pendings, from->host, from->repo, name, &pending);
	if (r == 0)
		return rename_pending(to, pending, to_name, call->wait);
	if (r != -ENOENT)
		return r;
	if (from->host != to->host)
		return -EXDEV;
	return rename_tag(from, name, to, to_name, call->wait);
}

static const struct node_ops tags_ops = {
	.kind = "tags",
	.free = linkdir_free,
	.getattr = tags_getattr,
	.lookup = tags_lookup,
	.list = tags_list,
	.symlink = tags_symlink,
	.unlink = tags_unlink,
	.rename = tags_rename,
};

int tags_new(struct names *names, struct host *host, struct node *parent, const char *repo,
	     struct node **ret)
{
	const struct linkdir_options options = {
		.names = names,
		.host = host,
		.parent = parent,
		.name = "_tags",
		.repo = repo,
		.ops = &tags_ops,
	};

	return linkdir_new(&options, ret);
}
