/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which image of an archive goes to which repository, under which tags.
 * Knows names. Must not know bytes.
 */
#include <errno.h>

#include "push_priv.h"

#define DOCKER_HUB     "docker.io"
#define DOCKER_LIBRARY "library/"

void push_plan_release(struct push_plan *plan)
{
	for (size_t i = 0; i < plan->ndeliveries; i++) {
		struct push_delivery *delivery = &plan->deliveries[i];
		for (size_t j = 0; j < delivery->ntags; j++)
			free(delivery->tags[j]);
		free(delivery->tags);
		free(delivery->repo);
		buf_release(&delivery->manifest);
	}
	free(plan->deliveries);
	*plan = (struct push_plan){0};
}

static int add_tag(struct push_delivery *delivery, const char *tag)
{
	for (size_t i = 0; i < delivery->ntags; i++) {
		if (!strcmp(delivery->tags[i], tag))
			return 0;
	}
	char **tags = reallocarray(delivery->tags, delivery->ntags + 1, sizeof(*tags));
	if (!tags)
		return -ENOMEM;
	delivery->tags = tags;
	tags[delivery->ntags] = strdup(tag);
	return tags[delivery->ntags++] ? 0 : -ENOMEM;
}

static struct push_delivery *add_delivery(struct push_plan *plan, const struct archive_image *image,
					  const char *repo)
{
	for (size_t i = 0; i < plan->ndeliveries; i++) {
		struct push_delivery *delivery = &plan->deliveries[i];
		if (delivery->image == image && !strcmp(delivery->repo, repo))
			return delivery;
	}
	struct push_delivery *grown = reallocarray(plan->deliveries, plan->ndeliveries + 1,
						   sizeof(*grown));
	if (!grown)
		return NULL;
	plan->deliveries = grown;
	struct push_delivery *delivery = &grown[plan->ndeliveries];
	*delivery = (struct push_delivery){
		.image = image,
		.repo = strdup(repo),
		.manifest = BUF_INIT(OCI_MANIFEST_MAX),
	};
	if (!delivery->repo)
		return NULL;
	plan->ndeliveries++;
	return delivery;
}

static int add(struct push_plan *plan, const struct archive_image *image, const char *repo,
	       const char *tag)
{
	struct push_delivery *delivery = add_delivery(plan, image, repo);
	return delivery ? add_tag(delivery, tag) : -ENOMEM;
}

/* The images by their first names, for words. */
static void list_images(const struct archive *archive, struct buf *ret)
{
	for (size_t i = 0; i < archive->nimages; i++) {
		const struct archive_image *image = &archive->images[i];
		/* What does not fit is left out: it is a sentence. */
		(void)!buf_printf(ret, "%s%s", i ? ", " : "",
				  image->nnames ? image->names[0] : "one without a name");
	}
}

/* Into one repository, under one tag. */
static int plan_one(struct push *push, const struct archive *archive, struct push_plan *plan)
{
	AUTO_BUF struct buf names = BUF_INIT(160);

	if (archive->nimages == 1)
		return add(plan, &archive->images[0], push->repo, push->tag ? push->tag : "");
	list_images(archive, &names);
	return push_fail(&push->why, -EINVAL, "the archive holds %zu images, a tag names one: %s",
			 archive->nimages, names.data ? names.data : "");
}

/*
 * The repository on this host: the name's host is another's, or the place it was saved at; docker's
 * own "library/" is left behind with its host. -ENOENT: NAME is a tag alone ("1.5", as OCI ref
 * names often are), or names no tag.
 */
static int target_of(const char *name, const char *host, struct ref *ret, const char **ret_repo,
		     const char **ret_why)
{
	if (!strpbrk(name, "/:") || strchr(name, '@'))
		return -ENOENT;
	int err = ref_parse(name, ret, ret_why);
	if (err)
		return err;
	*ret_repo = ret->repo;
	if (!strcmp(ret->host, DOCKER_HUB) && strcmp(host, DOCKER_HUB) &&
	    starts_with(ret->repo, DOCKER_LIBRARY))
		*ret_repo += strlen(DOCKER_LIBRARY);
	return 0;
}

static int plan_image(struct push *push, const struct archive_image *image, struct push_plan *plan)
{
	const char *why = "", *repo = NULL;
	struct ref ref;
	size_t targets = 0;

	for (size_t i = 0; i < image->nnames; i++) {
		int err = target_of(image->names[i], push->store->name, &ref, &repo, &why);
		if (err == -ENOENT)
			continue;
		if (err)
			return push_fail(&push->why, err,
					 "the archive's name '%s' cannot be used: %s",
					 image->names[i], why);
		err = add(plan, image, repo, ref.tag);
		if (err)
			return err;
		targets++;
	}
	if (targets)
		return 0;
	if (!image->nnames)
		return push_fail(&push->why, -EINVAL,
				 "an image of the archive has no name; copy it into a repository's "
				 "_push under the tag it is to have");
	return push_fail(&push->why, -EINVAL,
			 "the archive's name '%s' has no repository; copy it into a repository's "
			 "_push under the tag it is to have",
			 image->names[0]);
}

int push_plan_make(struct push *push, const struct archive *archive, struct push_plan *ret)
{
	struct push_plan plan = {0};
	int err = 0;

	if (archive->nimages == 0)
		return push_fail(&push->why, -EINVAL, "the archive holds no image");
	if (push->repo)
		err = plan_one(push, archive, &plan);
	for (size_t i = 0; i < archive->nimages && !push->repo && !err; i++)
		err = plan_image(push, &archive->images[i], &plan);
	if (err) {
		push_plan_release(&plan);
		return err;
	}
	*ret = plan;
	return 0;
}
