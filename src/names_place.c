/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names_place: a registry, or a path component of repositories: repositories below it, images
 * beside them, and the directories of a repository.
 * Must not know what those hold.
 */
#include <errno.h>

#include "regfs/log.h"

#include "names_priv.h"

struct place {
	struct node node;
	struct names *names;
	struct host *host;
	char *repo; /* "" for the registry itself */
	struct snapshot snapshot;
};

static struct place *place_of(const struct node_ref *ref)
{
	return CONTAINER_OF(ref->node, struct place, node);
}

/* REPO/NAME. NULL when memory is short or it is too long for a repository. */
static char *below(const struct place *place, const char *name)
{
	char *repo = format("%s%s%s", place->repo, *place->repo ? "/" : "", name);

	if (repo && strlen(repo) >= REF_REPO_MAX) {
		free(repo);
		return NULL;
	}
	return repo;
}

static int place_getattr(const struct node_ref *ref, struct call *call, struct node_attr *ret)
{
	struct place *place = place_of(ref);
	struct nameset *known;
	bool fresh = false;

	(void)call;
	known = answers_repos_known(place->names->answers, place->host, &fresh);
	nameset_unref(known);
	names_dir_attr(place->names, ref->node, 0755, &place->snapshot, fresh, ret);
	return 0;
}

/* Whether the catalogue has REPO or something below it: 1 or 0, 1 also where it cannot say. */
static int in_catalogue(struct names *names, struct host *host, const char *repo, struct wait *wait)
{
	struct nameset *repos = NULL;
	bool complete = true;
	int r = answers_repos(names->answers, host, wait, &repos, &complete);

	/* who is not let in is told so by what he enters */
	if (store_is_gone(r) || r == -EACCES)
		return 1;
	if (r < 0)
		return r;
	r = !complete || nameset_has_under(repos, repo);
	nameset_unref(repos);
	return r;
}

/*
 * Whether REPO is a repository or a path that leads to one. What the last known catalogue names
 * costs nothing; a no is asked for. Where there is no catalogue, or it cannot be had just now, any
 * valid name can be entered. One that the catalogue lacks may be newer;
 * the repository itself is asked first, which costs one request and not all pages of a list. That
 * nobody may read it does not say that there is none, nor that it cannot be pushed to: Quay says so
 * of each that is to come with its first push.
 */
static int place_exists(struct names *names, struct host *host, const char *repo, struct wait *wait)
{
	struct nameset *tags = NULL;
	int found = answers_has_repo(names->answers, host, repo, wait);
	int r;

	if (found == 0)
		found = in_catalogue(names, host, repo, wait);
	if (found != 0)
		return MIN(found, 0);
	r = answers_tags(names->answers, host, repo, wait, &tags);
	if (r == 0)
		nameset_unref(tags);
	if (r == 0 || r == -EWOULDBLOCK || r == -EINTR)
		return r;
	answers_miss_repo(names->answers, host);
	found = in_catalogue(names, host, repo, wait);
	if (found == 0 && r == -EACCES)
		return 0;
	return found > 0 ? 0 : found < 0 ? found : r;
}

/* A single component on Docker Hub means an official image. */
static int lookup_official(struct place *place, const char *name, struct call *call,
			   struct node_entry *ret)
{
	AUTO_FREE char *target = format("library/%s", name);
	struct node *link;
	int r;

	if (!target)
		return -ENOMEM;
	r = link_new(place->names, &place->node, name, target, &link);
	return r < 0 ? r : names_entry(link, NODE_FOREVER, call, ret);
}

static int lookup_image(struct place *place, const char *name, struct call *call,
			struct node_entry *ret)
{
	struct names *names = place->names;
	double timeout = NODE_FOREVER;
	char component[REF_REPO_MAX];
	char tag[REF_TAG_MAX];
	struct digest digest;
	AUTO_FREE char *repo = NULL;
	struct image_name what = {.host = place->host, .digest = &digest};
	struct node *node;
	int64_t left_ms;
	int r = ref_split_image_name(name, component, tag, &digest);

	if (r < 0)
		return r;
	if (!*place->repo && !strcmp(place->host->name, "docker.io"))
		return lookup_official(place, name, call, ret);
	repo = below(place, component);
	if (!repo)
		return -ENOENT;
	what.repo = repo;
	if (digest.algo == DIGEST_NONE) {
		what.tag = tag;
		r = answers_resolve(names->answers, place->host, repo, tag, call->wait, &digest,
				    &left_ms);
		if (r < 0)
			return r;
		timeout = left_ms / 1000.0;
	}
	r = names_image(names, &place->node, name, &what, call->wait, &node);
	return r < 0 ? r : names_entry(node, timeout, call, ret);
}

/* _tags, _digests and _blobs of a repository: -ENOENT or -EACCES say so if it is none. */
static int lookup_special(struct place *place, const char *name, struct call *call,
			  struct node_entry *ret)
{
	struct names *names = place->names;
	const char *repo = place->repo;
	struct nameset *tags = NULL;
	struct node *node;
	int r;

	if (!strcmp(name, "_push")) {
		r = pushdir_new(names->pushdirs, &place->node, place->host->store,
				*repo ? repo : NULL, &node);
		return r < 0 ? r : names_entry(node, NODE_FOREVER, call, ret);
	}
	if (!*repo)
		return -ENOENT;
	if (!strcmp(name, "_tags")) {
		r = tags_of(names, place->host, repo, call->wait, &tags);
		nameset_unref(tags);
		if (r == 0)
			r = tags_new(names, place->host, &place->node, repo, &node);
	} else if (!strcmp(name, "_digests")) {
		r = digests_new(names, place->host, &place->node, repo, &node);
	} else if (!strcmp(name, "_blobs")) {
		r = blobs_dir_new(names, place->host, &place->node, repo, &node);
	} else {
		return -ENOENT;
	}
	return r < 0 ? r : names_entry(node, names_ttl(names, place->host), call, ret);
}

static int place_lookup(const struct node_ref *dir, const char *name, struct call *call,
			struct node_entry *ret)
{
	struct place *place = place_of(dir);
	AUTO_FREE char *repo = NULL;
	struct node *node;
	int r;

	if (*name == '_') {
		if (!place->node.parent && !strcmp(name, "_regfs"))
			return names_info(place->names, dir->node, call, ret);
		return lookup_special(place, name, call, ret);
	}
	if (!ref_component_valid(name))
		return lookup_image(place, name, call, ret);
	repo = below(place, name);
	if (!repo)
		return -ENOENT;
	r = place_exists(place->names, place->host, repo, call->wait);
	if (r == 0)
		r = place_new(place->names, place->host, dir->node, name, repo, &node);
	if (r < 0)
		return r;
	return names_entry(node, names_ttl(place->names, place->host), call, ret);
}

static int add_specials(const struct place *place, struct nameset *set, bool is_repo)
{
	int r = 0;

	if (!place->node.parent)
		r = nameset_add(set, "_regfs");
	if (r == 0 && (is_repo || !*place->repo))
		r = nameset_add(set, "_push");
	if (r < 0 || !is_repo)
		return r;
	if (nameset_add(set, "_tags") < 0 || nameset_add(set, "_digests") < 0)
		return -ENOMEM;
	return nameset_add(set, "_blobs");
}

/* What the place lists, out of the names of all repositories. */
static int place_names(const struct place *place, const struct nameset *repos, struct nameset **ret)
{
	struct nameset *children = nameset_children(repos, place->repo);
	bool is_repo = *place->repo && nameset_has(repos, place->repo);
	struct nameset *all = nameset_new();
	int r = children && all ? add_specials(place, all, is_repo) : -ENOMEM;

	for (size_t i = 0; r == 0 && i < nameset_len(children); i++)
		r = nameset_add(all, nameset_at(children, i));
	nameset_unref(children);
	if (r < 0) {
		nameset_unref(all);
		return r;
	}
	nameset_seal(all);
	*ret = all;
	return 0;
}

static int place_list(const struct node_ref *dir, uint64_t pos, node_list_fn *fn, void *arg,
		      struct call *call)
{
	struct place *place = place_of(dir);
	struct answers *answers = place->names->answers;
	struct nameset *repos, *set, *tags = NULL;
	bool complete;
	int r;

	if (pos > 0)
		return snapshot_list(&place->snapshot, dir->node, pos, S_IFDIR, fn, arg);
	r = answers_repos(answers, place->host, call->wait, &repos, &complete);
	if (r < 0)
		return r;
	/* without a catalogue, whoever lists a place asks whether it is a repository */
	if (!complete && *place->repo && !nameset_has(repos, place->repo)) {
		r = answers_tags(answers, place->host, place->repo, call->wait, &tags);
		nameset_unref(tags);
		if (r == -EWOULDBLOCK || r == -EINTR) {
			nameset_unref(repos);
			return r;
		}
		nameset_unref(repos);
		r = answers_repos(answers, place->host, call->wait, &repos, &complete);
		if (r < 0)
			return r;
	}
	r = place_names(place, repos, &set);
	nameset_unref(repos);
	if (r < 0)
		return r;
	snapshot_update(&place->snapshot, set);
	return snapshot_list(&place->snapshot, dir->node, 0, S_IFDIR, fn, arg);
}

static int place_mkdir(const struct node_ref *dir, const char *name, mode_t mode, struct call *call,
		       struct node_entry *ret)
{
	struct place *place = place_of(dir);
	struct names *names = place->names;
	AUTO_FREE char *repo = NULL;
	struct node *node;
	int r;

	(void)mode;
	if (!ref_component_valid(name)) {
		log_warn("%s: mkdir %s: not a component of a repository's name "
			 "(lower-case letters and digits, joined by . _ __ or -)",
			 place->host->name, name);
		return -EINVAL;
	}
	repo = below(place, name);
	if (!repo)
		return -ENAMETOOLONG;
	r = place->host->store->ops->make_repo(place->host->store, repo, call->wait);
	if (r == 0)
		r = answers_add_repo(names->answers, place->host, repo);
	if (r == 0)
		r = place_new(names, place->host, dir->node, name, repo, &node);
	if (r < 0)
		return r;
	return names_entry(node, names_ttl(names, place->host), call, ret);
}

static int rmdir_image(struct place *place, const char *name, struct call *call)
{
	char component[REF_REPO_MAX];
	char tag[REF_TAG_MAX];
	struct digest digest;
	AUTO_FREE char *repo = NULL;
	int r = ref_split_image_name(name, component, tag, &digest);

	if (r < 0)
		return -EROFS;
	repo = below(place, component);
	if (!repo)
		return -ENOENT;
	if (digest.algo == DIGEST_NONE) {
		log_warn("%s/%s:%s: rmdir deletes an image by its digest; a tag is deleted by rm "
			 "%s/_tags/%s",
			 place->host->name, repo, tag, repo, tag);
		return -EROFS;
	}
	return names_delete_image(place->names, place->host, repo, &digest, call->wait);
}

static int place_rmdir(const struct node_ref *dir, const char *name, struct call *call)
{
	struct place *place = place_of(dir);
	AUTO_FREE char *repo = NULL;

	if (*name == '_')
		return -EROFS;
	if (!ref_component_valid(name))
		return rmdir_image(place, name, call);
	repo = below(place, name);
	return repo ? names_remove_repo(place->names, place->host, repo, call->wait) : -ENOENT;
}

static void place_free(struct node *node)
{
	struct place *place = CONTAINER_OF(node, struct place, node);

	snapshot_release(&place->snapshot);
	free(place->repo);
	free(place);
}

static const struct node_ops place_ops = {
	.kind = "place",
	.free = place_free,
	.getattr = place_getattr,
	.lookup = place_lookup,
	.list = place_list,
	.mkdir = place_mkdir,
	.rmdir = place_rmdir,
};

int place_new(struct names *names, struct host *host, struct node *parent, const char *name,
	      const char *repo, struct node **ret)
{
	struct node *found = parent ? node_find(names->context->nodes, parent, name, 0) : NULL;
	struct place *place;

	if (found) {
		*ret = found;
		return 0;
	}
	place = node_new(sizeof(*place), names->context->nodes, &place_ops, parent, name);
	if (!place)
		return -ENOMEM;
	snapshot_init(&place->snapshot, &names->context->started);
	place->names = names;
	place->host = host;
	place->repo = strdup(repo);
	if (!place->repo) {
		node_unref(&place->node);
		return -ENOMEM;
	}
	*ret = parent ? node_intern(&place->node, 0) : &place->node;
	return 0;
}
