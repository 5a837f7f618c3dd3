/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stagedir_base: where a link `base` leads to: its text is followed through the tree of the mount
 * as the kernel would, name by name, over links; at the end there must be an image's directory.
 * Must not know what an image is good for.
 */
#include <errno.h>
#include <linux/limits.h>

#include "regfs/imagedir.h"

#include "stagedir_priv.h"

#define LINKS_MAX 40 /* as the kernel */

/* IN_STAGE: still at the link's own directory, which is below push_dir. */
struct walk {
	const struct stage_base_finder *finder;
	struct call *call;
	struct node_ref at; /* held */
	bool in_stage;
	char *rest; /* owned; what is still to be followed */
	unsigned links;
	const char *why;
};

static void walk_release(struct walk *walk)
{
	node_unref(walk->at.node);
	free(walk->rest);
}

static int walk_fail(struct walk *walk, const char *why)
{
	walk->why = why;
	return -EINVAL;
}

/* Takes NEXT over. */
static void walk_to(struct walk *walk, struct node_ref next)
{
	node_unref(walk->at.node);
	walk->at = next;
}

static int walk_up(struct walk *walk)
{
	if (walk->in_stage) {
		walk->in_stage = false;
		return 0;
	}
	if (walk->at.sub != 0 || !walk->at.node->parent)
		return walk_fail(walk, "it leads out of the mount");
	walk_to(walk, (struct node_ref){.node = node_ref(walk->at.node->parent)});
	return 0;
}

/* An absolute text goes on at the mount's root. */
static int walk_from_root(struct walk *walk)
{
	const char *mountpoint = walk->finder->dirs->context->mountpoint;
	size_t len = mountpoint ? strlen(mountpoint) : 0;
	struct node *root = walk->at.node;
	char *rest;

	if (!len || !starts_with(walk->rest, mountpoint) ||
	    (walk->rest[len] != '/' && walk->rest[len] != '\0'))
		return walk_fail(walk, "it leads out of the mount");
	while (root->parent)
		root = root->parent;
	rest = strdup(walk->rest + len);
	if (!rest)
		return -ENOMEM;
	walk_to(walk, (struct node_ref){.node = node_ref(root)});
	walk->in_stage = false;
	free(walk->rest);
	walk->rest = rest;
	return 0;
}

/* Goes on with the text of the link at REF, and then what was left. */
static int walk_link(struct walk *walk, const struct node_ref *ref)
{
	AUTO_FREE char *target = NULL;
	char *rest;
	int r = node_readlink(ref, walk->call, &target);

	if (r < 0)
		return r;
	if (++walk->links > LINKS_MAX)
		return walk_fail(walk, "too many links");
	rest = format("%s/%s", target, walk->rest);
	if (!rest)
		return -ENOMEM;
	free(walk->rest);
	walk->rest = rest;
	return *rest == '/' ? walk_from_root(walk) : 0;
}

static int walk_down(struct walk *walk, const char *name)
{
	struct node_entry entry = {0};
	int r;

	if (walk->in_stage)
		return walk_fail(walk, "it leads into the directory itself, not to an image");
	r = node_lookup(&walk->at, name, walk->call, &entry);
	if (r == -ENOENT || r == -ENOTDIR)
		return walk_fail(walk, "there is no such image");
	if (r < 0)
		return r;
	if (!S_ISLNK(entry.attr.st.st_mode)) {
		walk_to(walk, entry.ref);
		return 0;
	}
	r = walk_link(walk, &entry.ref);
	node_unref(entry.ref.node);
	return r;
}

/* The first component of what is left. 1: nothing was. */
static int walk_step(struct walk *walk)
{
	const char *start = walk->rest + strspn(walk->rest, "/");
	size_t len = strcspn(start, "/");
	char name[NAME_MAX + 1];
	char *rest;

	if (!len)
		return 1;
	if (len > NAME_MAX)
		return walk_fail(walk, "there is no such image");
	memcpy(name, start, len);
	name[len] = '\0';
	rest = strdup(start + len);
	if (!rest)
		return -ENOMEM;
	free(walk->rest);
	walk->rest = rest;
	if (!strcmp(name, "."))
		return 0;
	return strcmp(name, "..") ? walk_down(walk, name) : walk_up(walk);
}

int stagedir_find_base(void *arg, const char *target, struct wait *wait, struct image **ret,
		       const char **ret_why)
{
	const struct stage_base_finder *finder = arg;
	struct call call = *finder->call;
	CLEANUP(walk_release)
	struct walk walk = {
		.finder = finder,
		.call = &call,
		.at = {.node = node_ref(finder->push_dir)},
		.in_stage = true,
		.rest = strdup(target),
		.why = "",
	};
	int r = walk.rest ? 0 : -ENOMEM;

	call.wait = wait;
	if (r == 0 && *target == '/')
		r = walk_from_root(&walk);
	while (r == 0)
		r = walk_step(&walk);
	if (r == 1)
		r = imagedir_image(&walk.at, ret);
	if (r == -ENOENT)
		r = walk_fail(&walk, "that is no image's directory");
	*ret_why = walk.why;
	return r;
}
