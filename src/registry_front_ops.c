/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_front_ops: each operation of store.h: what it wants of an endpoint, and at which it is
 * carried out.
 * Must not know how endpoints are chosen.
 */
#include <errno.h>

#include "registry_front_priv.h"

/* ---- how ---- */

static int run(struct store *store, const char *repo, const struct errand *errand, leg_fn *fn,
	       void *arg, struct wait *wait)
{
	struct front *front = front_of(store);
	AUTO_ROUTE struct route route = {0};
	int err = front_route(front, repo, errand, wait, &route);
	return err ? err : front_try(front, &route, fn, arg, wait);
}

struct visit {
	leg_fn *fn;
	void *arg;
	const char *tag; /* that it moves, or NULL */
};

/* One place, which alone counts. */
static int visit_push(struct store *store, const char *repo, const struct visit *visit,
		      struct wait *wait)
{
	const struct errand errand = {.can = HOSTS_PUSH};
	struct front *front = front_of(store);
	AUTO_ROUTE struct route route = {0};
	int err = front_route(front, repo, &errand, wait, &route);
	if (err)
		return err;
	const struct leg *leg = &route.legs[0];
	if (visit->tag && front_is_origin(leg->endpoint))
		front_move(front, repo, visit->tag);
	return visit->fn(visit->arg, leg->way->store, leg->endpoint->repo, wait);
}

static int run_at_push(struct store *store, const char *repo, leg_fn *fn, void *arg,
		       struct wait *wait)
{
	const struct visit visit = {.fn = fn, .arg = arg};
	return visit_push(store, repo, &visit, wait);
}

/* ---- names ---- */

struct lister {
	store_name_fn *fn;
	void *arg;
	const char *below; /* a catalogue's names lie below this; NULL: they are what they are */
	bool began;
};

static int on_name(void *arg, const char *name)
{
	struct lister *lister = arg;
	lister->began = true;
	if (lister->below) {
		size_t len = strlen(lister->below);
		if (!starts_with(name, lister->below) || name[len] != '/')
			return 0;
		name += len + 1;
	}
	return lister->fn(lister->arg, name);
}

static const struct errand list_errand = {.can = HOSTS_RESOLVE, .origin_first = true};

/* What was listed cannot be taken back: it is the answer then, with its error. */
static int list_repos_at(void *arg, struct store *store, const char *repo, struct wait *wait)
{
	struct lister *lister = arg;
	if (lister->began)
		return -EIO;
	lister->below = repo;
	return store->ops->list_repos(store, on_name, lister, wait);
}

static int front_list_repos(struct store *store, store_name_fn *fn, void *arg, struct wait *wait)
{
	struct lister lister = {.fn = fn, .arg = arg};
	return run(store, NULL, &list_errand, list_repos_at, &lister, wait);
}

static int list_tags_at(void *arg, struct store *store, const char *repo, struct wait *wait)
{
	struct lister *lister = arg;
	return lister->began ? -EIO : store->ops->list_tags(store, repo, on_name, lister, wait);
}

static int front_list_tags(struct store *store, const char *repo, store_name_fn *fn, void *arg,
			   struct wait *wait)
{
	struct lister lister = {.fn = fn, .arg = arg};
	return run(store, repo, &list_errand, list_tags_at, &lister, wait);
}

static int ping_at(void *arg, struct store *store, const char *repo, struct wait *wait)
{
	(void)arg, (void)repo;
	return store->ops->ping(store, wait);
}

static int front_ping(struct store *store, struct wait *wait)
{
	return run(store, NULL, &list_errand, ping_at, NULL, wait);
}

static int login_at(void *arg, struct store *store, const char *repo, struct wait *wait)
{
	(void)repo;
	return registry_login(store, wait, arg);
}

/* Mirrors have credentials of their own. */
int registry_front_login(struct store *store, struct wait *wait, bool *ret_asked)
{
	return run_at_push(store, NULL, login_at, ret_asked, wait);
}

/* ---- manifests ---- */

struct manifest_errand {
	const char *ref;
	struct digest *digest;		 /* HEAD */
	struct store_manifest *manifest; /* GET */
};

static bool names_digest(const char *ref)
{
	return strchr(ref, ':') != NULL;
}

static int head_at(void *arg, struct store *store, const char *repo, struct wait *wait)
{
	const struct manifest_errand *errand = arg;
	return store->ops->head(store, repo, errand->ref, errand->digest, wait);
}

static int front_head(struct store *store, const char *repo, const char *ref, struct digest *ret,
		      struct wait *wait)
{
	const struct errand errand = {
		.can = names_digest(ref) ? HOSTS_PULL : HOSTS_RESOLVE,
		.origin_first = front_has_moved(front_of(store), repo, ref),
	};
	struct manifest_errand what = {.ref = ref, .digest = ret};
	return run(store, repo, &errand, head_at, &what, wait);
}

static int get_manifest_at(void *arg, struct store *store, const char *repo, struct wait *wait)
{
	const struct manifest_errand *errand = arg;
	return store->ops->get_manifest(store, repo, errand->ref, errand->manifest, wait);
}

static int front_get_manifest(struct store *store, const char *repo, const char *ref,
			      struct store_manifest *ret, struct wait *wait)
{
	const struct errand errand = {
		.can = HOSTS_PULL | (names_digest(ref) ? 0 : HOSTS_RESOLVE),
		.origin_first = front_has_moved(front_of(store), repo, ref),
	};
	struct manifest_errand what = {.ref = ref, .manifest = ret};
	return run(store, repo, &errand, get_manifest_at, &what, wait);
}

struct referrers_errand {
	const struct digest *subject;
	store_descriptor_fn *fn;
	void *arg;
	bool began;
};

static int on_referrer(void *arg, struct oci_descriptor *referrer)
{
	struct referrers_errand *errand = arg;
	errand->began = true;
	return errand->fn(errand->arg, referrer);
}

static int referrers_at(void *arg, struct store *store, const char *repo, struct wait *wait)
{
	struct referrers_errand *errand = arg;
	if (errand->began)
		return -EIO;
	return store->ops->referrers(store, repo, errand->subject, on_referrer, errand, wait);
}

static int front_referrers(struct store *store, const char *repo, const struct digest *subject,
			   store_descriptor_fn *fn, void *arg, struct wait *wait)
{
	struct referrers_errand errand = {.subject = subject, .fn = fn, .arg = arg};
	return run(store, repo, &list_errand, referrers_at, &errand, wait);
}

/* ---- blobs ---- */
/* Mirrors hold what a manifest names, or pass: it is the origin that has us look elsewhere. */
static void front_learn_urls(struct store *store, const char *repo, const struct digest *digest,
			     char *const *urls, size_t n)
{
	const struct errand errand = {.can = HOSTS_PULL, .no_mirrors = true};
	AUTO_ROUTE struct route route = {0};
	struct wait wait;
	wait_init(&wait, true); /* for files, not for the network */
	if (!front_route(front_of(store), repo, &errand, &wait, &route)) {
		const struct leg *leg = &route.legs[0];
		registry_learn_urls(leg->way->store, leg->endpoint->repo, digest, urls, n);
	}
	wait_release(&wait);
}

struct has_errand {
	const struct digest *digest;
	uint64_t *ret_size;
};

static int has_blob_at(void *arg, struct store *store, const char *repo, struct wait *wait)
{
	const struct has_errand *errand = arg;
	return store->ops->has_blob(store, repo, errand->digest, errand->ret_size, wait);
}

static int front_has_blob(struct store *store, const char *repo, const struct digest *digest,
			  uint64_t *ret_size, struct wait *wait)
{
	const struct errand errand = {.can = HOSTS_PULL, .origin_first = true};
	struct has_errand what = {.digest = digest, .ret_size = ret_size};
	return run(store, repo, &errand, has_blob_at, &what, wait);
}

/* What a mirror has says nothing of the place that is pushed to, not even while that is gone. */
static int front_holds_blob(struct store *store, const char *repo, const struct digest *digest,
			    uint64_t *ret_size, struct wait *wait)
{
	struct has_errand what = {.digest = digest, .ret_size = ret_size};
	return run_at_push(store, repo, has_blob_at, &what, wait);
}

/* ---- writing ---- */

struct put_errand {
	const struct store_put *put;
	const struct leg *from; /* where put->mount_from is, or NULL */
	const char *ref, *media_type;
	const void *bytes;
	size_t len;
	const struct digest *digest;
};

static int put_blob_at(void *arg, struct store *store, const char *repo, struct wait *wait)
{
	const struct put_errand *errand = arg;
	struct store_put put = *errand->put;
	/* A repository's name there may be another than ours. */
	put.mount_from = NULL;
	if (errand->from && errand->from->way->store == store)
		put.mount_from = errand->from->endpoint->repo;
	return store->ops->put_blob(store, repo, &put, wait);
}

static int front_put_blob(struct store *store, const char *repo, const struct store_put *put,
			  struct wait *wait)
{
	const struct errand place = {.can = HOSTS_PUSH};
	struct put_errand errand = {.put = put};
	AUTO_ROUTE struct route from = {0};
	int err = 0;
	if (put->mount_from)
		err = front_route(front_of(store), put->mount_from, &place, wait, &from);
	if (err)
		return err;
	errand.from = from.n ? &from.legs[0] : NULL;
	return run_at_push(store, repo, put_blob_at, &errand, wait);
}

static int put_manifest_at(void *arg, struct store *store, const char *repo, struct wait *wait)
{
	const struct put_errand *errand = arg;
	return store->ops->put_manifest(store, repo, errand->ref, errand->media_type, errand->bytes,
					errand->len, wait);
}

static int front_put_manifest(struct store *store, const char *repo, const char *tag,
			      const char *media_type, const void *bytes, size_t len,
			      struct wait *wait)
{
	struct put_errand errand = {
		.ref = tag, .media_type = media_type, .bytes = bytes, .len = len};
	const bool moves = tag && !strchr(tag, ':'); /* else it is a digest */
	const struct visit visit = {
		.fn = put_manifest_at, .arg = &errand, .tag = moves ? tag : NULL};
	return visit_push(store, repo, &visit, wait);
}

static int untag_at(void *arg, struct store *store, const char *repo, struct wait *wait)
{
	const struct put_errand *errand = arg;
	return store->ops->untag(store, repo, errand->ref, wait);
}

static int front_untag(struct store *store, const char *repo, const char *tag, struct wait *wait)
{
	struct put_errand errand = {.ref = tag};
	const struct visit visit = {.fn = untag_at, .arg = &errand, .tag = tag};
	return visit_push(store, repo, &visit, wait);
}

static int delete_at(void *arg, struct store *store, const char *repo, struct wait *wait)
{
	const struct put_errand *errand = arg;
	return store->ops->delete_manifest(store, repo, errand->digest, wait);
}

static int front_delete_manifest(struct store *store, const char *repo, const struct digest *digest,
				 struct wait *wait)
{
	struct put_errand errand = {.digest = digest};
	return run_at_push(store, repo, delete_at, &errand, wait);
}

static int front_make_repo(struct store *store, const char *repo, struct wait *wait)
{
	(void)store, (void)repo, (void)wait;
	return 0; /* it comes into being with its first push */
}

static int remove_repo_at(void *arg, struct store *store, const char *repo, struct wait *wait)
{
	(void)arg;
	return store->ops->remove_repo(store, repo, wait);
}

static int front_remove_repo(struct store *store, const char *repo, struct wait *wait)
{
	return run_at_push(store, repo, remove_repo_at, NULL, wait);
}

static uint64_t front_generation(struct store *store, const char *repo)
{
	(void)store, (void)repo;
	return 0;
}

const struct store_ops front_ops = {
	.kind = "registry",
	.list_repos = front_list_repos,
	.list_tags = front_list_tags,
	.head = front_head,
	.get_manifest = front_get_manifest,
	.referrers = front_referrers,
	.has_blob = front_has_blob,
	.holds_blob = front_holds_blob,
	.open_blob = front_open_blob,
	.learn_urls = front_learn_urls,
	.put_blob = front_put_blob,
	.put_manifest = front_put_manifest,
	.untag = front_untag,
	.delete_manifest = front_delete_manifest,
	.make_repo = front_make_repo,
	.remove_repo = front_remove_repo,
	.ping = front_ping,
	.distrust = front_distrust,
	.generation = front_generation,
	.free = front_free,
};
