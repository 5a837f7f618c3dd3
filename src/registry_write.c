/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_write: manifests are put, untagged and deleted (distribution-spec, "Push" and
 * "Content Management").
 * Knows what a lost answer means. Must not know blobs (registry_upload.c).
 */
#include <errno.h>

#include "registry_priv.h"
#include "regfs/log.h"

/* A manifest is small. A line that does not even carry so much, or a server that answers in drips,
 * is given up: nobody can call it off. */
#define SEND_BYTES_PER_MS 8

/* docker-registry 2.8 rewrites a blob's link in place when another push brings the same blob: for
 * that moment it says of a manifest that names the blob that it is unknown, or invalid (400). */
#define RELINK_MS 100

/* ---- put ---- */

struct manifest_put {
	struct registry *registry;
	struct registry_call call;
	const struct registry_document *document;
	bool listed; /* the registry keeps lists of referrers itself, and said so */
};

static int unsettled(const struct manifest_put *put, const char *words)
{
	log_error("%s/%s: PUT manifests/%s: %s", put->registry->store.name, put->call.repo,
		  put->document->ref, words);
	return -EIO;
}

/* Whether the registry has these very bytes under the name; asked for quietly. */
static bool names_ours(const struct manifest_put *put, struct wait *wait)
{
	struct digest now;
	int err = registry_head(&put->registry->store, put->call.repo, put->document->ref, &now,
				wait);
	if (err || !digest_equal(&now, put->document->digest))
		return false;
	log_info("%s/%s: PUT manifests/%s: the tag may not be changed, and names just this image",
		 put->registry->store.name, put->call.repo, put->document->ref);
	return true;
}

/* The registry took the request, and we do not know what became of it: ask what the tag names
 * now. WHY says how the answer was lost. */
static int settle(const struct manifest_put *put, const char *why, struct wait *wait)
{
	struct digest now;
	int err = registry_head(&put->registry->store, put->call.repo, put->document->ref, &now,
				wait);
	if (!err && digest_equal(&now, put->document->digest)) {
		log_info("%s/%s: PUT manifests/%s: %s, but the registry has it",
			 put->registry->store.name, put->call.repo, put->document->ref, why);
		return 0;
	}
	AUTO_FREE char *words = NULL;
	if (!err || err == -ENOENT)
		words = format("%s, and the registry has not taken it", why);
	else
		words = format("outcome unknown: %s, and the registry cannot be asked", why);
	return unsettled(put, words ? words : "outcome unknown");
}

/* 2xx. A registry that says it stored something else than what was sent is not believed; nor what
 * says neither that it was created (distribution-spec, "Pushing Manifests") nor its digest: that is
 * a proxy's page. */
static int confirm(const struct manifest_put *put, const struct http_transfer *answer,
		   struct wait *wait)
{
	struct digest stored;
	const char *value = http_header(answer, "Docker-Content-Digest");
	if (!value && http_status(answer) != 201)
		return settle(put, "the answer does not confirm it", wait);
	if (!value || digest_parse(value, &stored) || stored.algo != put->document->digest->algo ||
	    digest_equal(&stored, put->document->digest))
		return 0;
	return settle(put, "the answer names another digest", wait);
}

/* *RET_STATUS is the answer's, or 0. */
static int send_manifest(struct manifest_put *put, struct wait *wait, int *ret_status)
{
	AUTO_TRANSFER struct http_transfer *answer = NULL;
	bool lost = false;
	put->call.lost = &lost;
	int err = registry_send(put->registry, &put->call, wait, &answer);
	if (err)
		return lost ? settle(put, "the answer was lost", wait) : err;
	int status = *ret_status = http_status(answer);
	put->listed = http_header(answer, "OCI-Subject") != NULL;
	if (status >= 200 && status < 300)
		return confirm(put, answer, wait);
	err = registry_refused(put->registry, &put->call, answer, wait);
	/* ECR refuses what is there already even if it is the same (moby/buildkit#3776); so
	 * would it be after an answer that was lost. */
	if (err == -EEXIST && names_ours(put, wait))
		return 0;
	/* A gateway may have lost what stands behind it, with 503 too (Envoy, "upstream reset"). */
	if (status >= 500 && err == -EIO)
		return settle(put, "the registry failed on it", wait);
	return err;
}

int registry_put_document(struct registry *registry, const char *repo,
			  const struct registry_document *document, bool *ret_listed)
{
	struct manifest_put put = {.registry = registry, .document = document};
	AUTO_FREE char *scope = registry_scope(repo, "pull,push");
	AUTO_FREE char *url = format("/v2/%s/manifests/%s", repo, document->ref);
	AUTO_FREE char *type = format("Content-Type: %s", document->media_type);
	if (!scope || !url || !type)
		return -ENOMEM;
	put.call = (struct registry_call){
		.method = HTTP_PUT,
		.url = url,
		.repo = repo,
		.scope = scope,
		.headers = (const char *const[]){type, NULL},
		.body = document->bytes,
		.body_len = document->len,
		.once = true,
		.deadline_ms = now_ms() + registry->timeout_ms +
			       (int64_t)(document->len / SEND_BYTES_PER_MS),
	};
	struct wait alone;
	wait_init(&alone, true);
	int status = 0;
	int err = send_manifest(&put, &alone, &status);
	/* A plain refusal: nothing came of it. */
	bool plain = status == 400 && (err == -EINVAL || err == -EIO);
	if (plain && !wait_until(&alone, now_ms() + RELINK_MS))
		err = send_manifest(&put, &alone, &status);
	wait_release(&alone);
	if (!err)
		*ret_listed = put.listed;
	return err;
}

int registry_put_manifest(struct store *store, const char *repo, const char *tag,
			  const char *media_type, const void *bytes, size_t len, struct wait *wait)
{
	if (!wait_may_block(wait))
		return -EWOULDBLOCK;
	if (wait_cancelled(wait))
		return -EINTR;
	char text[DIGEST_STR_MAX];
	struct digest digest, wanted = {.algo = DIGEST_SHA256};
	(void)(tag && digest_parse(tag, &wanted));
	digest_of(wanted.algo, bytes, len, &digest);
	const struct registry_document document = {
		.ref = tag ? tag : digest_format(&digest, text),
		.digest = &digest,
		.media_type = media_type,
		.bytes = bytes,
		.len = len,
	};
	bool listed;
	int err = registry_put_document(registry_of(store), repo, &document, &listed);
	if (err || listed)
		return err;
	struct wait alone; /* the manifest is there: what it needs is not called off either */
	wait_init(&alone, true);
	err = registry_name_subject(registry_of(store), repo, &document, &alone);
	wait_release(&alone);
	return err;
}

/* ---- delete ---- */

static int send_delete(struct registry *registry, const char *repo, const char *ref, bool is_tag,
		       struct wait *wait)
{
	AUTO_FREE char *scope = registry_scope(repo, "delete");
	AUTO_FREE char *url = format("/v2/%s/manifests/%s", repo, ref);
	if (!scope || !url)
		return -ENOMEM;
	const struct registry_call call = {
		.method = HTTP_DELETE,
		.url = url,
		.repo = repo,
		.scope = scope,
		.once = true,
		/* docker-registry takes the tag for a bad digest: 400. */
		.cannot =
			is_tag ? "this registry cannot delete a tag alone; rmdir REPOSITORY@DIGEST "
				 "deletes an image under all its tags"
			       : NULL,
		.deadline_ms = registry_name_deadline(registry),
	};
	AUTO_TRANSFER struct http_transfer *answer = NULL;
	return registry_ask(registry, &call, wait, &answer);
}

int registry_untag(struct store *store, const char *repo, const char *tag, struct wait *wait)
{
	return send_delete(registry_of(store), repo, tag, true, wait);
}

int registry_delete_manifest(struct store *store, const char *repo, const struct digest *digest,
			     struct wait *wait)
{
	struct registry *registry = registry_of(store);
	char text[DIGEST_STR_MAX];
	struct digest subject;
	/* Once it is gone nobody can tell any more what it was about. */
	bool about = registry_subject_of(registry, repo, digest, wait, &subject) == 0;
	int err = send_delete(registry, repo, digest_format(digest, text), false, wait);
	if (!err && about)
		registry_forget_subject(registry, repo, &subject, digest, wait);
	return err;
}

static int first_tag(void *arg, const char *name)
{
	(void)arg, (void)name;
	return -ENOTEMPTY;
}

/* A repository that nothing was pushed to is none for the registry; one that was cannot be taken
 * away (the distribution-spec has no call for it). */
int registry_remove_repo(struct store *store, const char *repo, struct wait *wait)
{
	int err = registry_list_tags(store, repo, first_tag, NULL, wait);
	if (err == -ENOENT)
		return 0;
	if (err)
		return err;
	log_warn("%s/%s: it has no tags, but a registry cannot delete a repository", store->name,
		 repo);
	return -EOPNOTSUPP;
}
