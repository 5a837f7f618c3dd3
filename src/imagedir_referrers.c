/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imagedir_referrers: referrers/ of an image: what its store says refers to it, and the
 * attestations that the index it belongs to has for it. Each is an image directory of its own,
 * named by digest. Must not know how a store finds referrers.
 *
 * A name's position in a listing is its digest, so that positions stay good while the list changes.
 */
#include <errno.h>

#include "imagedir_priv.h"

/* The digests to be shown, in order, each once. */
struct shown {
	struct referrers *referrers; /* held */
	struct image *image;
	const struct digest **digests;
	size_t n;
};

static void shown_release(struct shown *shown)
{
	referrers_unref(shown->image, shown->referrers);
	free(shown->digests);
}

/* Whether child N of INDEX is an attestation for DIR. */
static bool is_about(const struct imagedir *dir, struct image *index, size_t n)
{
	const struct oci_descriptor *child = &image_manifest(index)->children[n];

	if (!oci_is_attestation(child))
		return false;
	return index == dir->image || oci_attests(child, image_digest(dir->image));
}

static int compare(const void *a, const void *b)
{
	const struct digest *const *x = a, *const *y = b;

	return memcmp((*x)->bytes, (*y)->bytes, DIGEST_MAX);
}

static void add_attestations(const struct imagedir *dir, struct image *index, struct shown *shown)
{
	for (size_t n = 0; index && n < image_manifest(index)->nchildren; n++)
		if (is_about(dir, index, n))
			shown->digests[shown->n++] = &image_manifest(index)->children[n].digest;
}

static int collect(const struct imagedir *dir, struct wait *wait, struct shown *shown)
{
	size_t most = image_manifest(dir->image)->nchildren, kept = 0;
	int r = image_referrers(dir->image, wait, &shown->referrers);

	if (r < 0)
		return r;
	shown->image = dir->image;
	most += shown->referrers->n + (dir->index ? image_manifest(dir->index)->nchildren : 0);
	shown->digests = calloc(most + 1, sizeof(*shown->digests));
	if (!shown->digests)
		return -ENOMEM;
	add_attestations(dir, dir->image, shown);
	add_attestations(dir, dir->index, shown);
	for (size_t i = 0; i < shown->referrers->n; i++)
		shown->digests[shown->n++] = &shown->referrers->list[i].digest;
	qsort(shown->digests, shown->n, sizeof(*shown->digests), compare);
	for (size_t i = 0; i < shown->n; i++)
		if (i == 0 || compare(&shown->digests[i], &shown->digests[kept - 1]) != 0)
			shown->digests[kept++] = shown->digests[i];
	shown->n = kept;
	return 0;
}

/* Never 0, which is the beginning, and small enough to be an offset. */
static uint64_t position(const struct digest *digest)
{
	uint64_t pos = 0;

	for (size_t i = 0; i < sizeof(pos); i++)
		pos = pos << 8 | digest->bytes[i];
	return pos >> 2 | 1;
}

int imagedir_referrers_list(struct imagedir *dir, uint64_t pos, node_list_fn *fn, void *arg,
			    struct call *call)
{
	CLEANUP(shown_release) struct shown shown = {0};
	int r = collect(dir, call->wait, &shown);

	for (size_t i = 0; r == 0 && i < shown.n; i++) {
		char name[DIGEST_STR_MAX];
		uint64_t at = position(shown.digests[i]);

		if (at <= pos)
			continue;
		digest_format(shown.digests[i], name);
		*strchr(name, ':') = '-';
		if (imagedir_list_name(dir, at, name, S_IFDIR, fn, arg))
			break;
	}
	return r;
}

/* The attestation DIGEST of INDEX, opened: what the index vouches for needs no list. -ENOENT. */
static int open_attestation(const struct imagedir *dir, struct image *index,
			    const struct digest *digest, struct wait *wait, struct image **ret)
{
	for (size_t n = 0; index && n < image_manifest(index)->nchildren; n++)
		if (digest_equal(&image_manifest(index)->children[n].digest, digest) &&
		    is_about(dir, index, n))
			return image_child(index, n, wait, ret);
	return -ENOENT;
}

static int open_referrer(const struct imagedir *dir, const struct digest *digest, struct wait *wait,
			 struct image **ret)
{
	struct referrers *referrers;
	bool found = false;
	int r = open_attestation(dir, dir->image, digest, wait, ret);

	if (r == -ENOENT)
		r = open_attestation(dir, dir->index, digest, wait, ret);
	if (r != -ENOENT)
		return r;
	r = image_referrers(dir->image, wait, &referrers);
	if (r < 0)
		return r;
	for (size_t i = 0; i < referrers->n && !found; i++)
		found = digest_equal(&referrers->list[i].digest, digest);
	referrers_unref(dir->image, referrers);
	if (!found)
		return -ENOENT;
	return image_open(dir->context->images, image_store(dir->image), image_repo(dir->image),
			  digest, wait, ret);
}

int imagedir_referrers_lookup(struct imagedir *dir, const char *name, struct call *call,
			      struct node_entry *ret)
{
	AUTO_FREE char *path = format("referrers/%s", name);
	struct imagedir_options options = {
		.context = dir->context,
		.parent = &dir->node,
		.name = path,
	};
	struct digest digest;
	struct node *node;
	int r;

	if (!path)
		return -ENOMEM;
	if (digest_parse_sep(name, '-', &digest) < 0 && digest_parse(name, &digest) < 0)
		return -ENOENT;
	r = open_referrer(dir, &digest, call->wait, &options.image);
	if (r < 0)
		return r;
	r = imagedir_new(&options, call->wait, &node);
	image_unref(options.image);
	if (r < 0)
		return r;
	r = imagedir_node_entry(node, call, ret);
	if (r == 0)
		ret->timeout = dir->context->tag_ttl_ms / 1000.0;
	return r;
}

void imagedir_referrers_attr(struct imagedir *dir, struct node_attr *attr)
{
	bool fresh;
	struct referrers *known = image_referrers_known(dir->image, &fresh);

	/* The kernel keeps the listing for as long as the time stays the same. */
	if (fresh)
		attr->st.st_mtim = known->read_at;
	else
		clock_gettime(CLOCK_REALTIME, &attr->st.st_mtim);
	attr->st.st_ctim = attr->st.st_mtim;
	attr->timeout = 0;
	referrers_unref(dir->image, known);
}
