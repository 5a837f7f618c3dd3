/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layout, referrers: which manifests of a layout have a certain subject.
 * Knows index.json and the documents it names. Must not know why something refers to something.
 *
 * Layouts have no list of their own for this. Tools write a manifest with a subject into index.json
 * like any other, or into an index under the tag that registries without the API use
 * (distribution-spec, "Referrers Tag Schema"): both are looked at.
 */
#include <errno.h>

#include "layout_priv.h"
#include "regfs/log.h"

struct search {
	const struct layout_repo *repo;
	struct wait *wait;
	const struct digest *subject;
	char tag[OCI_REFERRERS_TAG_MAX];
	store_descriptor_fn *fn;
	void *arg;
};

/* ENTRY's document. 1 if it cannot be had or is none: others will say so when it is used. */
static int read_document(const struct search *search, const struct oci_descriptor *entry,
			 struct oci_manifest *ret)
{
	AUTO_BUF struct buf bytes = BUF_INIT(0);
	const char *why = "";

	int err = layout_document_read(search->repo, &entry->digest, search->wait, &bytes);
	if (!err)
		err = oci_manifest_parse(bytes.data, bytes.len, entry->media_type, ret, &why);
	if (err == -ENOMEM || err == -EINTR || err == -EWOULDBLOCK)
		return err;
	return err != 0;
}

/* A descriptor of MANIFEST as an API would give it. Takes the manifest's annotations. */
static int give_manifest(const struct search *search, const struct oci_descriptor *entry,
			 struct oci_manifest *manifest)
{
	CLEANUP(oci_descriptor_release)
	struct oci_descriptor found = {
		.media_type = strdup(manifest->media_type),
		.artifact_type = strdup(oci_artifact_type(manifest)),
		.digest = entry->digest,
		.size = entry->size,
	};

	if (!found.media_type || !found.artifact_type)
		return -ENOMEM;
	found.annotations = STEAL(manifest->annotations);
	found.nannotations = manifest->nannotations;
	manifest->nannotations = 0;
	return search->fn(search->arg, &found);
}

static int look_at(const struct search *search, const struct oci_descriptor *entry)
{
	CLEANUP(oci_manifest_release) struct oci_manifest manifest = {0};
	const char *tag = layout_entry_tag(entry);

	int r = read_document(search, entry, &manifest);
	if (r)
		return r < 0 ? r : 0;
	if (manifest.subject && digest_equal(&manifest.subject->digest, search->subject))
		r = give_manifest(search, entry, &manifest);
	if (manifest.kind != OCI_KIND_INDEX || !tag || strcmp(tag, search->tag) != 0)
		return r;
	for (size_t i = 0; !r && i < manifest.nchildren; i++)
		r = search->fn(search->arg, &manifest.children[i]);
	return r;
}

int layout_referrers(struct store *store, const char *name, const struct digest *digest,
		     store_descriptor_fn *fn, void *arg, struct wait *wait)
{
	AUTO_LAYOUT_REPO struct layout_repo repo = LAYOUT_REPO_INIT;
	AUTO_LAYOUT_INDEX struct layout_index index = {0};
	struct search search = {
		.repo = &repo, .wait = wait, .subject = digest, .fn = fn, .arg = arg};

	/* it reads every manifest */
	if (!wait_may_block(wait))
		return -EWOULDBLOCK;
	oci_referrers_tag(digest, search.tag);
	int err = layout_repo_open(store, name, &repo);
	if (!err)
		err = layout_index_read(&repo, wait, &index);
	for (size_t i = 0; !err && i < index.parsed.nchildren; i++)
		err = wait_cancelled(wait) ? -EINTR : look_at(&search, &index.parsed.children[i]);
	return err;
}
