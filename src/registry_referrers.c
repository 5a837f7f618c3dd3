/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_referrers: what refers to a manifest (distribution-spec, "Listing Referrers" and
 * "Unavailable Referrers API").
 * Knows the API, page by page, and the tag that stands in for it. Must not know what refers to what
 * for which reason.
 *
 * Registries without the API answer in many ways: 404, 400, 405, 406; a redirect to something else
 * (GHCR 303, Artifact Registry to a web page); a document of another type; the subject itself
 * (GitLab, oras-go#1396). All of that means: look under the tag. Who is told so asks twice, and
 * never more often.
 */
#include <errno.h>

#include "registry_priv.h"
#include "regfs/log.h"
#include "regfs/oci.h"

#define PAGES_MAX     100
#define BYTES_MAX     (2 * OCI_MANIFEST_MAX) /* of all pages: their entries are kept */
#define REFERRERS_MAX 10000
#define REFUSAL_MAX   (4 * KIB)

struct search {
	struct registry *registry;
	const char *repo;
	const struct digest *subject;
	store_descriptor_fn *fn;
	void *arg;
	struct wait *wait;
	unsigned npages;
	size_t found, bytes;
};

/* Hands over the children of an index. */
static int give(struct search *search, struct oci_manifest *index)
{
	for (size_t i = 0; i < index->nchildren && search->found < REFERRERS_MAX; i++) {
		int err = search->fn(search->arg, &index->children[i]);
		if (err)
			return err;
		search->found++;
	}
	return 0;
}

static bool is_index_type(const struct http_transfer *answer)
{
	const char *type = http_header(answer, "Content-Type");
	size_t len = type ? strcspn(type, "; \t") : 0;
	return len == strlen(OCI_TYPE_INDEX) && !strncmp(type, OCI_TYPE_INDEX, len);
}

/* 1: this is no answer of the API. */
static int not_here(const struct search *search, const char *why)
{
	log_debug("%s/%s: no referrers API (%s): the tag is looked for",
		  search->registry->store.name, search->repo, why);
	return 1;
}

/* The page in ANSWER: 0; 1: it is none. */
static int read_page(struct search *search, const struct registry_call *call,
		     struct http_transfer *answer)
{
	CLEANUP(oci_manifest_release) struct oci_manifest index = {0};
	AUTO_BUF struct buf body = BUF_INIT(OCI_MANIFEST_MAX);
	struct digest digest;
	const char *why = "";
	if (!is_index_type(answer))
		return not_here(search, "it answers with another type");
	int err = http_read_all(answer, OCI_MANIFEST_MAX, &body, search->wait);
	if (err)
		return registry_failed(search->registry, call, err,
				       err == -EFBIG ? "the list is larger than 4 MiB"
						     : http_why(answer));
	search->bytes += body.len;
	const char *text = body.data ? body.data : "";
	digest_of(search->subject->algo, text, body.len, &digest);
	if (digest_equal(&digest, search->subject))
		return not_here(search, "it answers with the subject");
	err = oci_manifest_parse(text, body.len, OCI_TYPE_INDEX, &index, &why);
	if (err == -ENOMEM)
		return err;
	if (err || index.kind != OCI_KIND_INDEX)
		return not_here(search, err ? why : "it answers with a manifest");
	return give(search, &index);
}

/* A status that may be a registry's way to say that it has no such API. A limit or a failure is
 * none: it passes. */
static bool denies(int status)
{
	return (status >= 300 && status < 500 && status != 429) || status == 501;
}

/* A refusal, read to its end: the connection is wanted again at once, for the tag. */
static int refused(const struct search *search, struct http_transfer *answer)
{
	AUTO_BUF struct buf body = BUF_INIT(REFUSAL_MAX);
	if (http_content_length(answer) >= 0)
		(void)http_read_all(answer, REFUSAL_MAX, &body, search->wait);
	return not_here(search, "it refuses");
}

/* One page. 0 and the next one's URL (NULL at the end); 1: there is no API. */
static int walk_page(struct search *search, const struct registry_call *call, char **ret_next)
{
	AUTO_TRANSFER struct http_transfer *answer = NULL;
	AUTO_FREE char *next = NULL;
	int err = registry_send(search->registry, call, search->wait, &answer);
	if (err)
		return err;
	int status = http_status(answer);
	if (denies(status) && search->npages == 1)
		return refused(search, answer);
	if (status < 200 || status > 299)
		return registry_refused(search->registry, call, answer, search->wait);
	err = read_page(search, call, answer);
	if (err)
		return err;
	err = registry_next_page(answer, &next);
	if (err == -ENOMEM)
		return err;
	if (err)
		log_warn("%s/%s: the list of referrers ends after %zu: the next page is %s",
			 search->registry->store.name, search->repo, search->found,
			 err == -EXDEV ? "on another host" : "no URL");
	else
		*ret_next = STEAL(next);
	return 0;
}

/* 0, or 1 where there is no API. */
static int ask_api(struct search *search)
{
	static const char *const headers[] = {"Accept: " OCI_TYPE_INDEX, NULL};
	char text[DIGEST_STR_MAX];
	AUTO_FREE char *scope = registry_scope(search->repo, "pull");
	AUTO_FREE char *url = format("/v2/%s/referrers/%s", search->repo,
				     digest_format(search->subject, text));
	if (!scope || !url)
		return -ENOMEM;
	while (url && search->npages < PAGES_MAX && search->found < REFERRERS_MAX &&
	       search->bytes < BYTES_MAX) {
		AUTO_FREE char *next = NULL;
		const struct registry_call call = {
			.method = HTTP_GET,
			.url = url,
			.repo = search->repo,
			.scope = scope,
			.headers = headers,
			.no_redirect = true,
			.may_refuse = true,
			.deadline_ms = registry_name_deadline(search->registry),
		};
		search->npages++;
		int err = walk_page(search, &call, &next);
		if (err)
			return err;
		free(url);
		url = STEAL(next);
	}
	return 0;
}

static int ask_tag(struct search *search)
{
	CLEANUP(store_manifest_release) struct store_manifest manifest = {0};
	CLEANUP(oci_manifest_release) struct oci_manifest index = {0};
	char tag[OCI_REFERRERS_TAG_MAX];
	const char *why = "";
	int err = registry_get_manifest(&search->registry->store, search->repo,
					oci_referrers_tag(search->subject, tag), &manifest,
					search->wait);
	if (err)
		return err == -ENOENT ? 0 : err;
	err = oci_manifest_parse(manifest.bytes.data, manifest.bytes.len, manifest.media_type,
				 &index, &why);
	if (err == -ENOMEM)
		return err;
	if (err || index.kind != OCI_KIND_INDEX) {
		log_warn("%s/%s: the tag %s should be an index of referrers, and is none: %s",
			 search->registry->store.name, search->repo, tag,
			 err ? why : "it is a manifest");
		return 0;
	}
	return give(search, &index);
}

int registry_referrers(struct store *store, const char *repo, const struct digest *digest,
		       store_descriptor_fn *fn, void *arg, struct wait *wait)
{
	struct search search = {
		.registry = registry_of(store),
		.repo = repo,
		.subject = digest,
		.fn = fn,
		.arg = arg,
		.wait = wait,
	};
	int r = ask_api(&search);
	return r == 1 ? ask_tag(&search) : r;
}
