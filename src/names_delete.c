/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names_delete: what rm, rmdir and mv take away: tags alone, images by their digest, repositories
 * that nothing was pushed to.
 * Knows what may be deleted. Must not know how a store does it.
 */
#include <errno.h>
#include <inttypes.h>
#include <sys/random.h>

#include "regfs/log.h"

#include "names_priv.h"

/* EROFS: without the option this part of the mount is as read-only as the rest. */
static int may_delete(const struct names *names, const struct host *host, const char *repo,
		      const char *what)
{
	if (names->context->allow_delete)
		return 0;
	log_warn("%s/%s: %s is not deleted: that takes a mount with -o allow_delete", host->name,
		 repo, what);
	return -EROFS;
}

/* The image was deleted: nobody finds it here any more, nor in the cache. */
static void image_gone(struct names *names, struct host *host, const char *repo,
		       const struct digest *digest)
{
	answers_forget_image(names->answers, host, repo, digest);
	glimpses_forget(names->glimpses);
	names_image_gone(names, host, repo, digest);
}

/* The embedded store collects an image with its last tag. */
static int untag_local(struct names *names, struct host *host, const char *repo, const char *tag,
		       struct wait *wait)
{
	const struct store_ops *ops = host->store->ops;
	struct digest digest, found;
	char text[DIGEST_STR_MAX];
	int known = ops->head(host->store, repo, tag, &digest, wait);
	int r = ops->untag(host->store, repo, tag, wait);

	if (r == 0 && known == 0 &&
	    ops->head(host->store, repo, digest_format(&digest, text), &found, wait) == -ENOENT)
		image_gone(names, host, repo, &digest);
	return r;
}

int names_untag(struct names *names, struct host *host, const char *repo, const char *tag,
		struct wait *wait)
{
	int r = ref_tag_valid(tag) ? may_delete(names, host, repo, tag) : -ENOENT;

	if (r == 0 && !wait_may_block(wait))
		r = -EWOULDBLOCK;
	if (r == 0)
		r = host_is_local(host) ? untag_local(names, host, repo, tag, wait)
					: host->store->ops->untag(host->store, repo, tag, wait);
	if (r != 0 && r != -ENOENT)
		return r;
	answers_forget_tags(names->answers, host, repo);
	glimpses_forget(names->glimpses);
	names_tag_gone(names, host, repo, tag);
	names_settle_images(names, wait);
	if (r == 0)
		log_info("%s/%s:%s is deleted", host->name, repo, tag);
	return r;
}

/* A tag that is not there is asked to be deleted: who cannot delete tags says so, too. */
int names_can_untag(struct names *names, struct host *host, const char *repo, const char *tag,
		    struct wait *wait)
{
	char probe[sizeof("regfs-probe-") + 16];
	uint64_t random;
	int r = may_delete(names, host, repo, tag);

	if (r < 0)
		return r;
	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return -EIO;
	snprintf(probe, sizeof(probe), "regfs-probe-%016" PRIx64, random);
	r = host->store->ops->untag(host->store, repo, probe, wait);
	return r == -ENOENT ? 0 : r;
}

static int changed_tag(void *arg, struct host *host, const char *repo, const char *tag)
{
	names_tag_gone(arg, host, repo, tag);
	return 0;
}

int names_delete_image(struct names *names, struct host *host, const char *repo,
		       const struct digest *digest, struct wait *wait)
{
	char text[DIGEST_STR_MAX];
	int r = may_delete(names, host, repo, digest_format(digest, text));

	if (r == 0 && !wait_may_block(wait))
		r = -EWOULDBLOCK;
	if (r == 0)
		r = host->store->ops->delete_manifest(host->store, repo, digest, wait);
	if (r == -EOPNOTSUPP)
		log_warn("%s/%s: %s is not deleted: the registry cannot", host->name, repo, text);
	if (r != 0 && r != -ENOENT)
		return r;
	answers_forget_tags(names->answers, host, repo);
	answers_tags_of_image(names->answers, host, repo, digest, changed_tag, names);
	image_gone(names, host, repo, digest);
	if (r == 0)
		log_info("%s/%s@%s is deleted", host->name, repo, text);
	return r;
}

int names_remove_repo(struct names *names, struct host *host, const char *repo, struct wait *wait)
{
	struct store *store = host->store;
	struct nameset *known, *below;
	bool fresh, has_below;
	int r;

	if (!wait_may_block(wait))
		return -EWOULDBLOCK;
	known = answers_repos_known(names->answers, host, &fresh);
	below = known ? nameset_children(known, repo) : NULL;
	has_below = nameset_len(below) > 0;
	nameset_unref(below);
	nameset_unref(known);
	if (has_below)
		return -ENOTEMPTY;
	r = store->ops->remove_repo ? store->ops->remove_repo(store, repo, wait) : -EOPNOTSUPP;
	if (r == 0)
		answers_drop_repo(names->answers, host, repo);
	return r;
}
