/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_read: heads, manifests, and whether a blob is there (distribution-spec, "Pull").
 * Knows Docker-Content-Digest and media types. Must not know what is in a manifest.
 *
 * Whatever a header says, a manifest's digest is computed from its bytes.
 */
#include <errno.h>

#include "registry_priv.h"
#include "regfs/log.h"
#include "regfs/oci.h"
#include "regfs/stats.h"

/* docker-registry answers 404 where the types are not named one by one; the last is for what has
 * another type, artifacts of some kinds. */
static const char accept_all[] = "Accept: " OCI_TYPE_INDEX ", " OCI_TYPE_MANIFEST
				 ", " DOCKER_TYPE_LIST ", " DOCKER_TYPE_MANIFEST ", */*";

static const char *const manifest_headers[] = {accept_all, NULL};

/* What a call about a manifest or blob borrows. */
struct target {
	char *scope, *url;
};

static void target_release(struct target *target)
{
	free(target->scope);
	free(target->url);
}

/* KIND is "manifests" or "blobs". */
static int target_init(struct target *target, const char *repo, const char *kind, const char *ref)
{
	target->scope = registry_scope(repo, "pull");
	target->url = format("/v2/%s/%s/%s", repo, kind, ref);
	return target->scope && target->url ? 0 : -ENOMEM;
}

static struct registry_call name_call(const struct registry *registry, enum http_method method,
				      const char *repo, const struct target *target)
{
	return (struct registry_call){
		.method = method,
		.url = target->url,
		.repo = repo,
		.scope = target->scope,
		.headers = manifest_headers,
		.deadline_ms = registry_name_deadline(registry),
	};
}

/* ---- manifests ---- */

static bool header_digest(const struct http_transfer *transfer, struct digest *ret)
{
	const char *value = http_header(transfer, "Docker-Content-Digest");
	return value && !digest_parse(value, ret);
}

/* The Content-Type without its parameters. NULL when memory is short. */
static char *media_type(const struct http_transfer *transfer)
{
	const char *type = http_header(transfer, "Content-Type");
	size_t len = type ? strcspn(type, "; \t") : 0;
	return strndup(type ? type : "", len);
}

/* The bytes and type of what CALL was answered with; the digest is not computed. */
static int read_manifest(const struct registry *registry, const struct registry_call *call,
			 struct http_transfer *transfer, struct store_manifest *ret,
			 struct wait *wait)
{
	if (registry_is_html(transfer))
		return registry_failed(registry, call, -EIO, "the answer is a web page");
	CLEANUP(store_manifest_release)
	struct store_manifest manifest = {.media_type = media_type(transfer)};
	if (!manifest.media_type)
		return -ENOMEM;
	if (!strcmp(manifest.media_type, DOCKER_TYPE_SCHEMA1) ||
	    !strcmp(manifest.media_type, DOCKER_TYPE_SCHEMA1_SIGNED))
		return registry_failed(registry, call, -EOPNOTSUPP,
				       "schema 1 manifests are not supported");
	int err = http_read_all(transfer, OCI_MANIFEST_MAX, &manifest.bytes, wait);
	if (err)
		return registry_failed(registry, call, err,
				       err == -EFBIG ? "the manifest is larger than 4 MiB"
						     : http_why(transfer));
	*ret = manifest;
	manifest = (struct store_manifest){0};
	return 0;
}

static int mismatch(const struct registry *registry, const struct registry_call *call,
		    const struct digest *want, const struct digest *got)
{
	char a[DIGEST_STR_MAX], b[DIGEST_STR_MAX];
	AUTO_FREE char *words = format("the digest is wrong: %s was promised, %s came",
				       digest_format(want, a), digest_format(got, b));
	stats_add(STAT_DIGEST_MISMATCHES, 1);
	return registry_failed(registry, call, -EIO, words ? words : "the digest is wrong");
}

static void hash_as(enum digest_algo algo, const struct store_manifest *manifest,
		    struct digest *ret)
{
	digest_of(algo, manifest->bytes.data ? manifest->bytes.data : "", manifest->bytes.len, ret);
}

/* Whether the registry serves just these bytes under the digest they have: then it was the header
 * of a tag that lied, and not the bytes that were damaged. */
static bool vouched_for(struct registry *registry, const char *repo, const struct digest *digest,
			struct wait *wait)
{
	char text[DIGEST_STR_MAX];
	CLEANUP(target_release) struct target target = {0};
	CLEANUP(store_manifest_release) struct store_manifest manifest = {0};
	AUTO_TRANSFER struct http_transfer *transfer = NULL;
	if (target_init(&target, repo, "manifests", digest_format(digest, text)))
		return false;
	struct registry_call call = name_call(registry, HTTP_GET, repo, &target);
	call.may_refuse = true;
	if (registry_ask(registry, &call, wait, &transfer) ||
	    read_manifest(registry, &call, transfer, &manifest, wait))
		return false;
	struct digest again;
	hash_as(digest->algo, &manifest, &again);
	return digest_equal(&again, digest);
}

/* The digest of a manifest that a tag named. */
static int settle_digest(struct registry *registry, const struct registry_call *call,
			 const struct http_transfer *transfer, struct store_manifest *manifest,
			 struct wait *wait)
{
	struct digest promised;
	bool has = header_digest(transfer, &promised);
	hash_as(has ? promised.algo : DIGEST_SHA256, manifest, &manifest->digest);
	if (!has || digest_equal(&promised, &manifest->digest))
		return 0;
	if (!vouched_for(registry, call->repo, &manifest->digest, wait))
		return mismatch(registry, call, &promised, &manifest->digest);
	log_warn("%s/%s: %s: Docker-Content-Digest is wrong; the manifest's bytes are right",
		 registry->store.name, call->repo, call->url);
	return 0;
}

/* A manifest that is asked for. */
struct manifest_call {
	struct registry *registry;
	struct registry_call call;
	const char *ref; /* tag or digest */
};

/* What it was answered with, read, and its digest computed and compared. */
static int take_manifest(const struct manifest_call *asked, struct http_transfer *transfer,
			 struct store_manifest *ret, struct wait *wait)
{
	struct registry *registry = asked->registry;
	CLEANUP(store_manifest_release) struct store_manifest manifest = {0};
	struct digest want;
	int err = read_manifest(registry, &asked->call, transfer, &manifest, wait);
	if (err)
		return err;
	if (!digest_parse(asked->ref, &want)) {
		hash_as(want.algo, &manifest, &manifest.digest);
		if (!digest_equal(&want, &manifest.digest))
			return mismatch(registry, &asked->call, &want, &manifest.digest);
	} else {
		err = settle_digest(registry, &asked->call, transfer, &manifest, wait);
		if (err)
			return err;
	}
	*ret = manifest;
	manifest = (struct store_manifest){0};
	return 0;
}

int registry_get_manifest(struct store *store, const char *repo, const char *tag_or_digest,
			  struct store_manifest *ret, struct wait *wait)
{
	struct registry *registry = registry_of(store);
	CLEANUP(target_release) struct target target = {0};
	int err = target_init(&target, repo, "manifests", tag_or_digest);
	if (err)
		return err;
	struct manifest_call asked = {
		.registry = registry,
		.call = name_call(registry, HTTP_GET, repo, &target),
		.ref = tag_or_digest,
	};
	asked.call.leads = true;
	AUTO_TRANSFER struct http_transfer *transfer = NULL;
	err = registry_ask(registry, &asked.call, wait, &transfer);
	return err ? err : take_manifest(&asked, transfer, ret, wait);
}

/* ---- heads ---- */

/* Some servers know no HEAD, or leave the digest out (Red Hat, ECR): then the manifest itself is
 * asked for and hashed; and later only if its entity tag is another. */
static int head_by_get(struct manifest_call *asked, struct digest *ret, struct wait *wait)
{
	CLEANUP(store_manifest_release) struct store_manifest manifest = {0};
	AUTO_TRANSFER struct http_transfer *transfer = NULL;
	struct etags *etags = asked->registry->etags;
	struct digest known;
	AUTO_FREE char *condition = etags_find(etags, asked->call.url, &known);
	const char *const headers[] = {accept_all, condition, NULL};
	asked->call.method = HTTP_GET;
	asked->call.headers = headers;
	asked->call.deadline_ms = registry_name_deadline(asked->registry);
	int err = registry_send(asked->registry, &asked->call, wait, &transfer);
	if (err)
		return err;
	int status = http_status(transfer);
	if (status == 304 && condition) {
		*ret = known;
		return 0;
	}
	if (status < 200 || status > 299)
		return registry_refused(asked->registry, &asked->call, transfer, wait);
	err = take_manifest(asked, transfer, &manifest, wait);
	if (err)
		return err;
	etags_note(etags, asked->call.url, http_header(transfer, "ETag"), &manifest.digest);
	*ret = manifest.digest;
	return 0;
}

int registry_head(struct store *store, const char *repo, const char *tag_or_digest,
		  struct digest *ret, struct wait *wait)
{
	struct registry *registry = registry_of(store);
	CLEANUP(target_release) struct target target = {0};
	int err = target_init(&target, repo, "manifests", tag_or_digest);
	if (err)
		return err;
	struct manifest_call asked = {
		.registry = registry,
		.call = name_call(registry, HTTP_HEAD, repo, &target),
		.ref = tag_or_digest,
	};
	asked.call.leads = true;
	if (etags_has(registry->etags, target.url))
		return head_by_get(&asked, ret, wait);
	AUTO_TRANSFER struct http_transfer *transfer = NULL;
	err = registry_send(registry, &asked.call, wait, &transfer);
	if (err)
		return err;
	int status = http_status(transfer);
	if (status == 200 && header_digest(transfer, ret))
		return 0;
	if (status == 200 || status == 400 || status == 405 || status == 501)
		return head_by_get(&asked, ret, wait);
	return registry_refused(registry, &asked.call, transfer, wait);
}

/* ---- has_blob ---- */

/* The whole length behind an answer to a range: "bytes 0-1/1234". */
static bool total_length(const struct http_transfer *transfer, uint64_t *ret)
{
	const char *range = http_header(transfer, "Content-Range");
	const char *slash = range ? strchr(range, '/') : NULL;
	int64_t length = http_content_length(transfer);
	if (http_status(transfer) == 206)
		return slash && parse_u64(slash + 1, ret);
	if (length < 0)
		return false;
	*ret = (uint64_t)length;
	return true;
}

/* Its size by a GET of its first bytes: where HEAD says too little. Signed URLs, which redirects
 * lead to, are signed for GET alone. */
static int probe_blob(struct registry *registry, const struct registry_call *head,
		      uint64_t *ret_size, struct wait *wait)
{
	struct registry_call call = *head;
	call.method = HTTP_GET;
	call.no_redirect = false;
	call.headers = (const char *const[]){"Range: bytes=0-1", NULL};
	call.bulk = true; /* it may come whole */
	call.deadline_ms = registry_name_deadline(registry);
	AUTO_TRANSFER struct http_transfer *transfer = NULL;
	int err = registry_ask(registry, &call, wait, &transfer);
	if (err)
		return err;
	if (!total_length(transfer, ret_size))
		return registry_failed(registry, &call, -EIO, "the blob's size is not told");
	return 0;
}

int registry_has_blob(struct store *store, const char *repo, const struct digest *digest,
		      uint64_t *ret_size, struct wait *wait)
{
	struct registry *registry = registry_of(store);
	char text[DIGEST_STR_MAX];
	CLEANUP(target_release) struct target target = {0};
	int err = target_init(&target, repo, "blobs", digest_format(digest, text));
	if (err)
		return err;
	struct registry_call call = name_call(registry, HTTP_HEAD, repo, &target);
	call.headers = NULL;
	call.no_redirect = true;
	AUTO_TRANSFER struct http_transfer *transfer = NULL;
	err = registry_send(registry, &call, wait, &transfer);
	if (err)
		return err;
	int status = http_status(transfer);
	if (status == 200 && total_length(transfer, ret_size))
		return 0;
	if (status == 200 || status == 405 || (status >= 300 && status < 400))
		return probe_blob(registry, &call, ret_size, wait);
	return registry_refused(registry, &call, transfer, wait);
}
