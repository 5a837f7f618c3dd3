/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_subject: what is left to do after a manifest with a subject was put into a registry
 * without the referrers API, or deleted there: the index under the subject's tag is to name it, or
 * no longer (distribution-spec, "Pushing Manifests with Subject", "Deleting Manifests").
 * Knows that tag. Must not know how manifests are put.
 *
 * Others may change the index at the same time, and the specification knows no way to exclude them.
 * So it is read again after it was written, until what it says includes us.
 */
#include <errno.h>

#include "registry_priv.h"
#include "regfs/log.h"
#include "regfs/oci.h"

#define ROUNDS_MAX 4

struct subject_put {
	struct registry *registry;
	const char *repo;
	char tag[OCI_REFERRERS_TAG_MAX];
	struct oci_descriptor descriptor; /* what the index is to name, or not; borrowed */
	bool deleted;
};

/* The index that the tag names now. 0, with *RET empty where there is none, or it is none. */
static int get_index(const struct subject_put *put, struct buf *ret, bool *ret_named,
		     struct wait *wait)
{
	CLEANUP(store_manifest_release) struct store_manifest manifest = {0};
	CLEANUP(oci_manifest_release) struct oci_manifest index = {0};
	const char *why = "";
	*ret_named = false;
	int err = registry_get_manifest(&put->registry->store, put->repo, put->tag, &manifest,
					wait);
	if (err)
		return err == -ENOENT ? 0 : err;
	err = oci_manifest_parse(manifest.bytes.data, manifest.bytes.len, manifest.media_type,
				 &index, &why);
	if (err == -ENOMEM)
		return err;
	if (err || index.kind != OCI_KIND_INDEX) {
		log_warn("%s/%s: the tag %s is no index of referrers, and becomes one",
			 put->registry->store.name, put->repo, put->tag);
		return 0;
	}
	for (size_t i = 0; i < index.nchildren && !*ret_named; i++)
		*ret_named = digest_equal(&index.children[i].digest, &put->descriptor.digest);
	*ret = manifest.bytes;
	manifest.bytes = (struct buf){0};
	return 0;
}

/* An index that names a subject itself is not entered anywhere: there would be no end of it. */
static int put_index(const struct subject_put *put, const struct buf *bytes)
{
	struct digest digest;
	bool listed;
	digest_of(DIGEST_SHA256, bytes->data, bytes->len, &digest);
	const struct registry_document document = {
		.ref = put->tag,
		.digest = &digest,
		.media_type = OCI_TYPE_INDEX,
		.bytes = bytes->data,
		.len = bytes->len,
	};
	return registry_put_document(put->registry, put->repo, &document, &listed);
}

/* 1: the index is as it should be; 0: it was written, and is to be looked at again. */
static int update_once(const struct subject_put *put, struct wait *wait)
{
	AUTO_BUF struct buf now = BUF_INIT(OCI_MANIFEST_MAX);
	AUTO_BUF struct buf next = BUF_INIT(OCI_MANIFEST_MAX);
	bool named;
	int err = get_index(put, &now, &named, wait);
	if (err || named != put->deleted)
		return err ? err : 1;
	err = put->deleted ? oci_index_remove(now.data, now.len, &put->descriptor.digest, &next)
			   : oci_index_update(now.data, now.len, &put->descriptor, NULL, &next);
	if (err)
		return err == -ENOMEM ? err : -EIO;
	return put_index(put, &next);
}

static int update(const struct subject_put *put, struct wait *wait)
{
	int r = 0;
	for (unsigned round = 0; r == 0 && round < ROUNDS_MAX; round++)
		r = update_once(put, wait);
	if (put->deleted)
		return MIN(r, 0);
	if (r == 0)
		log_warn("%s/%s: the index of referrers under the tag %s was written, but does not "
			 "show it: others change it too, or the registry is slow",
			 put->registry->store.name, put->repo, put->tag);
	if (r < 0)
		log_error(
			"%s/%s: the manifest was put, but the index of referrers under the tag %s "
			"could not be changed: nobody will find it by its subject",
			put->registry->store.name, put->repo, put->tag);
	return MIN(r, 0);
}

int registry_name_subject(struct registry *registry, const char *repo,
			  const struct registry_document *what, struct wait *wait)
{
	CLEANUP(oci_manifest_release) struct oci_manifest manifest = {0};
	struct subject_put put = {.registry = registry, .repo = repo};
	const char *why;
	if (oci_manifest_parse(what->bytes, what->len, what->media_type, &manifest, &why) ||
	    !manifest.subject)
		return 0;
	oci_referrers_tag(&manifest.subject->digest, put.tag);
	put.descriptor = (struct oci_descriptor){
		.media_type = (char *)what->media_type,
		.artifact_type = (char *)oci_artifact_type(&manifest),
		.digest = *what->digest,
		.size = (int64_t)what->len,
		.annotations = manifest.annotations,
		.nannotations = manifest.nannotations,
	};
	return update(&put, wait);
}

int registry_subject_of(struct registry *registry, const char *repo, const struct digest *digest,
			struct wait *wait, struct digest *ret)
{
	CLEANUP(store_manifest_release) struct store_manifest manifest = {0};
	CLEANUP(oci_manifest_release) struct oci_manifest parsed = {0};
	char text[DIGEST_STR_MAX];
	const char *why;
	int err = registry_get_manifest(&registry->store, repo, digest_format(digest, text),
					&manifest, wait);
	if (err)
		return err;
	if (oci_manifest_parse(manifest.bytes.data, manifest.bytes.len, manifest.media_type,
			       &parsed, &why) ||
	    !parsed.subject)
		return -ENOENT;
	*ret = parsed.subject->digest;
	return 0;
}

void registry_forget_subject(struct registry *registry, const char *repo,
			     const struct digest *subject, const struct digest *digest,
			     struct wait *wait)
{
	struct subject_put put = {
		.registry = registry,
		.repo = repo,
		.descriptor = {.digest = *digest},
		.deleted = true,
	};
	oci_referrers_tag(subject, put.tag);
	if (update(&put, wait) < 0)
		log_warn("%s/%s: a manifest was deleted, but the index of referrers under the tag "
			 "%s "
			 "still names it",
			 registry->store.name, repo, put.tag);
}
