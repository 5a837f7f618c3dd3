/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names_imageroot: the root of a mount of one image: the image that the reference named at
 * first use, until the end. Its attributes never cost a request.
 * Must not know what an image directory holds.
 */
#include <errno.h>

#include "regfs/imagedir.h"
#include "regfs/log.h"

#include "names_priv.h"

struct imageroot {
	struct node node;
	struct names *names;
	struct host *host;
	struct ref ref;
	pthread_mutex_t lock;
	struct node *dir; /* the image's directory once it was resolved; guarded by lock */
};

static struct imageroot *imageroot_of(const struct node_ref *ref)
{
	return CONTAINER_OF(ref->node, struct imageroot, node);
}

/* The image's directory: set once, so that what is returned stays. */
static int imageroot_dir(struct imageroot *root, struct wait *wait, struct node_ref *ret)
{
	struct image_name what = {
		.host = root->host,
		.repo = root->ref.repo,
		.tag = *root->ref.tag ? root->ref.tag : NULL,
	};
	struct digest digest = root->ref.digest;
	struct node *dir;
	int64_t left_ms;
	int r = 0;

	pthread_mutex_lock(&root->lock);
	dir = root->dir;
	pthread_mutex_unlock(&root->lock);
	if (dir) {
		*ret = (struct node_ref){.node = dir};
		return 0;
	}
	if (digest.algo == DIGEST_NONE)
		r = answers_resolve(root->names->answers, root->host, what.repo, what.tag, wait,
				    &digest, &left_ms);
	what.digest = &digest;
	if (r == 0)
		r = names_image(root->names, NULL, "image", &what, wait, &dir);
	if (r < 0)
		return r;
	pthread_mutex_lock(&root->lock);
	if (!root->dir)
		root->dir = STEAL(dir);
	*ret = (struct node_ref){.node = root->dir};
	pthread_mutex_unlock(&root->lock);
	node_unref(dir);
	return 0;
}

static int imageroot_getattr(const struct node_ref *ref, struct call *call, struct node_attr *ret)
{
	(void)call;
	context_stat(imageroot_of(ref)->names->context, ref->node->ino, S_IFDIR | 0755, 0,
		     &ret->st);
	ret->timeout = NODE_FOREVER;
	return 0;
}

/* _regfs is found but not listed, so that a copy of the mount is a copy of the image. */
static int imageroot_lookup(const struct node_ref *ref, const char *name, struct call *call,
			    struct node_entry *ret)
{
	struct imageroot *root = imageroot_of(ref);
	struct node_ref dir;
	int r;

	if (!strcmp(name, "_regfs"))
		return names_info(root->names, ref->node, call, ret);
	r = imageroot_dir(root, call->wait, &dir);
	return r < 0 ? r : node_lookup(&dir, name, call, ret);
}

static int imageroot_list(const struct node_ref *ref, uint64_t pos, node_list_fn *fn, void *arg,
			  struct call *call)
{
	const struct imageroot *root = imageroot_of(ref);
	char reference[REF_STR_MAX];
	struct node_ref dir;
	int r = imageroot_dir(imageroot_of(ref), call->wait, &dir);

	/* readdir(3) takes ENOENT for the end of the directory, which would show an empty image */
	if (r == -ENOENT) {
		log_error("%s: no such image", ref_format(&root->ref, reference));
		return -ENXIO;
	}
	return r < 0 ? r : node_list(&dir, pos, fn, arg, call);
}

static ssize_t imageroot_getxattr(const struct node_ref *ref, const char *name, void *buf,
				  size_t cap, struct call *call)
{
	struct node_ref dir;
	int r;

	if (!starts_with(name, "user.regfs."))
		return -ENODATA;
	r = imageroot_dir(imageroot_of(ref), call->wait, &dir);
	return r < 0 ? r : node_getxattr(&dir, name, buf, cap, call);
}

static void imageroot_free(struct node *node)
{
	struct imageroot *root = CONTAINER_OF(node, struct imageroot, node);

	node_unref(root->dir);
	pthread_mutex_destroy(&root->lock);
	free(root);
}

static const struct node_ops imageroot_ops = {
	.kind = "image root",
	.free = imageroot_free,
	.getattr = imageroot_getattr,
	.lookup = imageroot_lookup,
	.list = imageroot_list,
	.getxattr = imageroot_getxattr,
};

int imageroot_new(struct names *names, struct host *host, const struct ref *ref, struct node **ret)
{
	struct imageroot *root = node_new(sizeof(*root), names->context->nodes, &imageroot_ops,
					  NULL, "");

	if (!root)
		return -ENOMEM;
	root->names = names;
	root->host = host;
	root->ref = *ref;
	pthread_mutex_init(&root->lock, NULL);
	*ret = &root->node;
	return 0;
}
