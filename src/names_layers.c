/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names_layers: the images that a layer store asks for by their references.
 * Must not know what a layer holds.
 *
 * A tag moves while containers go on using layers of the image that it named: such a layer is
 * looked for in what the tag names now, then in the image that had it when it was last asked for.
 */
#include <errno.h>

#include "names_priv.h"

/* A mount of less than all registries knows no others. */
static bool is_mounted(const struct names *names, const struct ref *ref)
{
	const struct source *source = &names->source;

	switch (source->kind) {
	case SOURCE_NONE:
		return true;
	case SOURCE_IMAGE:
		return !strcmp(source->ref.host, ref->host) && !strcmp(source->ref.repo, ref->repo);
	case SOURCE_LOCAL:
		return !strcmp("local", ref->host);
	default:
		return !strcmp(source->ref.host, ref->host);
	}
}

static int host_of(struct names *names, const struct ref *ref, struct call *call, struct host **ret)
{
	return is_mounted(names, ref) ? names_enter_host(names, ref->host, call, ret) : -ENOENT;
}

static int open_now(struct names *names, struct host *host, const struct ref *ref,
		    struct wait *wait, struct image **ret)
{
	struct digest digest = ref->digest;
	int64_t left_ms;
	int r = 0;

	if (digest.algo == DIGEST_NONE)
		r = answers_resolve(names->answers, host, ref->repo, ref->tag, wait, &digest,
				    &left_ms);
	if (r == 0)
		r = image_open(names->context->images, host->store, ref->repo, &digest, wait, ret);
	if (r == 0)
		answers_saw(names->answers, host, ref->repo, &digest);
	return r;
}

int names_ref_image(void *arg, const struct ref *ref, struct call *call, struct image **ret)
{
	struct names *names = arg;
	struct host *host;
	int r = host_of(names, ref, call, &host);

	return r < 0 ? r : open_now(names, host, ref, call->wait, ret);
}

static int find_now(struct names *names, struct host *host, const struct ref *ref,
		    const struct digest *digest, struct wait *wait, struct image_part *ret)
{
	struct image *image;
	int r = open_now(names, host, ref, wait, &image);

	if (r < 0)
		return r;
	r = image_find_layer(image, digest, wait, ret);
	image_unref(image);
	if (r == 0 && *ref->tag)
		image_note_layer(
			&(struct image_layer_name){host->store, ref->repo, ref->tag, digest}, ret);
	return r;
}

/* In the image that is noted; its host need not answer. */
static int find_noted(struct names *names, const struct ref *ref, const struct digest *digest,
		      struct wait *wait, struct image_part *ret)
{
	struct image_layer_name name = {.repo = ref->repo, .tag = ref->tag, .digest = digest};
	struct host *host;
	int r = *ref->tag ? names_host(names, ref->host, &host) : -ENOENT;

	if (r < 0)
		return r;
	name.store = host->store;
	return image_noted_layer(names->context->images, &name, wait, ret);
}

static bool is_final(int error)
{
	return error == 0 || error == -EWOULDBLOCK || error == -EINTR;
}

int names_ref_layer(void *arg, const struct ref *ref, const struct digest *digest,
		    struct call *call, struct image_part *ret)
{
	struct names *names = arg;
	struct host *host;
	int r = host_of(names, ref, call, &host);
	int noted;

	if (r == 0)
		r = find_now(names, host, ref, digest, call->wait, ret);
	if (is_final(r) || r == -EACCES || !is_mounted(names, ref))
		return r;
	noted = find_noted(names, ref, digest, call->wait, ret);
	/* what is wrong now says more than that nothing is noted */
	return is_final(noted) ? noted : r;
}
