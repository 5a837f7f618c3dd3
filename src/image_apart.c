// SPDX-License-Identifier: Apache-2.0
/*
 * image_apart: tables of contents that are not in an image's layers but in another image, which is
 * found by tag alone: TAG-esgztoc beside TAG (stargz-snapshotter, docs/estargz.md, "external TOC").
 * Knows where they are. Must not know what vouches for them: that is a digest of each table in the
 * image's own manifest, so that whoever may move that tag can at most take them away.
 */
#include <errno.h>

#include "regfs/ref.h"

#include "image_priv.h"

static char *tag_of(struct image *image)
{
	pthread_mutex_lock(&image->lock);
	char *tag = image->tag ? format("%s%s", image->tag, TOC_APART_TAG) : NULL;
	pthread_mutex_unlock(&image->lock);
	return tag;
}

/* Takes over TAG. */
static void set_tag(struct image *image, char *tag)
{
	pthread_mutex_lock(&image->lock);
	if (!image->tag)
		image->tag = STEAL(tag);
	pthread_mutex_unlock(&image->lock);
	free(tag);
}

void image_tagged(struct image *image, const char *tag)
{
	/* without memory the layers are read whole */
	set_tag(image, strdup(tag));
}

void image_inherit_tag(struct image *image, struct image *index)
{
	pthread_mutex_lock(&index->lock);
	char *tag = index->tag ? strdup(index->tag) : NULL;
	pthread_mutex_unlock(&index->lock);
	set_tag(image, tag);
}

/* Where the tables of all layers are. -ENOENT: there is no such image, or none that is of use. */
static int find_tables(struct image *image, struct wait *wait, struct toc_apart *tables)
{
	AUTO_FREE char *tag = tag_of(image);
	struct digest digest;
	struct image *other;

	if (!tag || !ref_tag_valid(tag))
		return -ENOENT;
	int r = image_resolve(image->images, image->store, image->repo, tag, wait, &digest);
	if (r == 0)
		r = image_open(image->images, image->store, image->repo, &digest, wait, &other);
	if (r < 0)
		return r;
	for (size_t n = 0; n < image->manifest.nlayers; n++)
		(void)toc_apart_find(&other->manifest, &image->manifest.layers[n].digest,
				     &tables[n]);
	image_unref(other);
	return 0;
}

static bool known(struct image *image, unsigned n, struct toc_apart *ret)
{
	pthread_mutex_lock(&image->lock);
	bool found = image->apart != NULL;
	if (found)
		*ret = image->apart[n];
	pthread_mutex_unlock(&image->lock);
	return found;
}

int image_apart(struct image *image, unsigned n, struct wait *wait, struct toc_apart *ret)
{
	if (known(image, n, ret))
		return 0;
	AUTO_FREE struct toc_apart *tables = calloc(image->manifest.nlayers, sizeof(*tables));
	if (!tables)
		return -ENOMEM;
	int r = find_tables(image, wait, tables);
	if (r == -EWOULDBLOCK || r == -EINTR || r == -ENOMEM || image_store_gone(r))
		return r;
	pthread_mutex_lock(&image->lock);
	if (!image->apart)
		image->apart = STEAL(tables);
	*ret = image->apart[n];
	pthread_mutex_unlock(&image->lock);
	return 0;
}

void image_apart_release(struct image *image)
{
	free(image->apart);
	free(image->tag);
}
