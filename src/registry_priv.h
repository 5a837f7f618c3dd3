/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the registry room share; nobody else includes it.
 *
 * registry_front.c    the store that a host is: which endpoint is asked, mirrors
 * registry.c          the store of one endpoint: options, ping, which scheme it speaks
 * registry_request.c  one call: credentials, redirects, repetitions
 * registry_redirect.c where blobs were found
 * registry_etag.c     entity tags of manifests whose digest is not told
 * registry_error.c    a refusal to an errno and a line in the log
 * registry_list*.c    catalogues and tag lists, page by page (registry_list_priv.h)
 * registry_limit.c    who has to wait when it is asked too often
 * registry_link.c     the next page of a list
 * registry_read.c     heads, manifests, whether a blob is there
 * registry_referrers.c  what refers to a manifest
 * registry_foreign.c  where else a blob may be had
 * registry_stream.c   a blob's bytes, resumed where they broke off
 * registry_write.c    manifests: put, tag, delete
 * registry_subject.c  what a manifest with a subject needs where there is no referrers API
 * registry_upload.c   blobs: put
 */
#ifndef REGFS_REGISTRY_PRIV_H
#define REGFS_REGISTRY_PRIV_H

#include <stdatomic.h>

#include "regfs/auth.h"
#include "regfs/registry.h"

/* Kinds of questions that registries limit apart from each other. */
enum registry_question {
	QUESTION_OTHER,
	QUESTION_HEAD,
	QUESTION_MANIFEST,
	QUESTION_BLOB,
	QUESTIONS,
};

enum registry_scheme { SCHEME_UNKNOWN, SCHEME_HTTP, SCHEME_HTTPS };

/* One endpoint. */
struct registry {
	struct store store; /* .name is the host as the user knows it */
	struct http *http;
	struct auth *auth;
	char *endpoint;	      /* the host that is asked */
	char *root;	      /* "/v2" in its URLs, or what stands in its place */
	char *ns;	      /* the registry that a mirror is asked for, in a query; or NULL */
	char **headers;	      /* to send along; NULL-terminated, or NULL */
	struct http_tls tls;  /* its strings are owned */
	struct http_tls away; /* elsewhere: no client certificate, nothing unverified; borrows */
	int64_t timeout_ms, name_timeout_ms;
	bool offline;
	bool may_probe;	  /* the scheme is found out, and again after a failure */
	bool tls_first;	  /* which is tried first */
	bool mirror;	  /* it need not have everything */
	atomic_bool near; /* it was seen at an address that only means something nearby */

	struct redirects *redirects;
	struct etags *etags; /* registry_etag.c */

	struct foreign *foreign; /* registry_foreign.c's; guarded by lock */
	pthread_mutex_t lock;
	enum registry_scheme scheme; /* guarded by lock */
	int64_t asked_ms; /* when anything was asked that does not lead, or 0; guarded by lock */
	bool leading;	  /* a call that leads is under way; guarded by lock */
	int64_t hold_ms[2][QUESTIONS]; /* registry_limit.c; of changes: [1]; guarded by lock */
	int gone;		       /* why it does not answer, as last said; guarded by lock */
	int64_t gone_ms;	       /* when that was; guarded by lock */
};

static inline struct registry *registry_of(struct store *store)
{
	return CONTAINER_OF(store, struct registry, store);
}

/* One call to the registry, with all that it takes until its answer. Everything is borrowed. */
struct registry_call {
	enum http_method method;
	const char *url;   /* "/v2/…", or absolute (an upload's Location) */
	const char *repo;  /* for credentials and the log; may be NULL */
	const char *scope; /* auth.h; may be NULL */
	const char *const *headers;
	const void *body;
	uint64_t body_len;
	http_read_fn *body_read;
	http_await_fn *body_await; /* NULL: it need not be waited for */
	void *body_arg;
	bool bulk;
	/* Bytes are likely to follow: where there is no connection yet, it opens one that they
	 * can use (http.h: it goes with the bulk). */
	bool leads;
	bool anonymous;	  /* no credentials; a 401 is an answer */
	bool no_redirect; /* a redirect is an answer */
	bool is_blob;	  /* GET of a blob: where it was found before is asked first */
	/* Not repeated where it may have been carried out already. */
	bool once;
	bool *lost; /* set where it may have been, and the answer was lost; may be NULL */
	/* -ENOENT and -EOPNOTSUPP and -EACCES go to the log as information: a question that
	 * may well be answered with no. */
	bool may_refuse;
	/* What it means where the registry cannot do that (-EOPNOTSUPP), or answers 400; may be
	 * NULL. */
	const char *cannot;
	int64_t deadline_ms; /* 0: only progress counts */
	int64_t timeout_ms;  /* without progress; 0: the registry's */
};

/*
 * Gives the final answer, of any status that is not worth a repetition. 0, or a negative errno
 * of store.h, logged.
 */
int registry_send(struct registry *registry, const struct registry_call *call, struct wait *wait,
		  struct http_transfer **ret);
/* The same for an answer of 2xx; any other is refused as below. */
int registry_ask(struct registry *registry, const struct registry_call *call, struct wait *wait,
		 struct http_transfer **ret);
/* TRANSFER's status and words as an errno, logged. Never 0. */
int registry_refused(const struct registry *registry, const struct registry_call *call,
		     struct http_transfer *transfer, struct wait *wait);
/* Logs that CALL failed for WHY and returns ERR as store.h knows it. */
int registry_failed(const struct registry *registry, const struct registry_call *call, int err,
		    const char *why);
/* The registry does not answer: whether that (ERR, of http.h) is still to be said. One that is gone
 * is gone for all who ask, and said once in a while. */
bool registry_gone(struct registry *registry, int err);
/* It answers. */
void registry_back(struct registry *registry);
/* Why we do not go from the URL FROM to TO, on the word of a server; NULL: we do. */
const char *registry_detour_refusal(const char *from, const char *to);
/* An errno of http.h in those of store.h. */
int registry_errno(int err);

/* "http://HOST" or "https://HOST"; asks the host if it is not known. The caller frees. Where CALL
 * itself was what it was asked, *RET_ANSWER is its answer, else NULL. */
int registry_base(struct registry *registry, const struct registry_call *call, struct wait *wait,
		  char **ret, struct http_transfer **ret_answer);
/* The URL of PATH ("/v2/…") below BASE. The caller frees. NULL when memory is short. */
char *registry_url(const struct registry *registry, const char *base, const char *path);
/* A call below HTTP failed: a scheme that was found out may have changed. */
void registry_doubt_scheme(struct registry *registry);

/* The page that TRANSFER's Link leads to, on the same host; the caller frees. *RET is NULL behind
 * the last page. 0, -EXDEV (another host), -EINVAL (no URL), -ENOMEM. */
int registry_next_page(const struct http_transfer *transfer, char **ret);

/* A manifest that is put, borrowed. */
struct registry_document {
	const char *ref; /* its tag, or its digest as text */
	const struct digest *digest;
	const char *media_type;
	const void *bytes;
	size_t len;
};
/* registry_write.c: puts it, and nothing else: what it says of a subject is not followed. Nobody
 * can call it off: who asks has to learn how it ended. It ends by the timeouts. *RET_LISTED: the
 * registry lists it under its subject by itself. */
int registry_put_document(struct registry *registry, const char *repo,
			  const struct registry_document *document, bool *ret_listed);

/* registry_subject.c: where the manifest has a subject: sees to it that the tag for referrers of
 * that names it. 0, or a negative errno, logged. */
int registry_name_subject(struct registry *registry, const char *repo,
			  const struct registry_document *document, struct wait *wait);

/* The subject of manifest DIGEST: 0; -ENOENT: it has none; it cannot be told. */
int registry_subject_of(struct registry *registry, const char *repo, const struct digest *digest,
			struct wait *wait, struct digest *ret);
/* DIGEST was deleted: the tag for referrers of SUBJECT, if there is one, names it no longer. */
void registry_forget_subject(struct registry *registry, const char *repo,
			     const struct digest *subject, const struct digest *digest,
			     struct wait *wait);

/* registry_foreign.c */
#define REGISTRY_URLS_MAX 9 /* with the NULL behind them */
void registry_learn_urls(struct store *store, const char *repo, const struct digest *digest,
			 char *const *urls, size_t n);
/* Copies of what was learned of a blob; the caller frees them as below. -ENOENT. */
int registry_foreign_urls(struct registry *registry, const char *repo, const struct digest *digest,
			  char *ret[static REGISTRY_URLS_MAX]);
void registry_urls_free(char **urls);
void registry_foreign_release(struct registry *registry);
/* Why the registry at HOST may not send us to URL; NULL: it may. */
const char *registry_foreign_refusal(const char *host, const char *url);

/* The store of ENDPOINT (borrowed for the call), by the name .host of OPTIONS. 0 or -ENOMEM. */
int registry_endpoint_new(const struct registry_options *options,
			  const struct hosts_endpoint *endpoint, struct store **ret);
/* The store of a host: .hosts of OPTIONS is not NULL. */
int registry_front_new(const struct registry_options *options, struct store **ret);
/* registry_login() for such a store: at the place that may be pushed to. */
int registry_front_login(struct store *store, struct wait *wait, bool *ret_asked);

/* When a request about a name has to be over. */
/* What the registry says to who we are: -EACCES: it refuses the credentials, or wants some
 * (logged). 0 where it lets us in, also as nobody. */
int registry_barred(struct registry *registry, struct wait *wait);
int64_t registry_name_deadline(const struct registry *registry);
/* "repository:REPO:ACTIONS"; the caller frees; NULL when memory is short. */
char *registry_scope(const char *repo, const char *actions);
/* Whether the answer is a web page and no registry's. */
bool registry_is_html(const struct http_transfer *transfer);

/* TRANSFER says that CALL and the like of it come too often. */
void registry_limited(struct registry *registry, const struct registry_call *call,
		      const struct http_transfer *transfer);
/* Waits until CALL may be sent. 0; -EBUSY: not before PATIENCE_MS; -EINTR. */
int registry_await_turn(struct registry *registry, const struct registry_call *call,
			int64_t patience_ms, struct wait *wait);

/* ---- registry_redirect.c: any thread ---- */

struct redirects *redirects_new(void);
void redirects_free(struct redirects *redirects);
/* Where KEY, a blob's URL at the registry, was found before: *RET is that URL (the caller frees),
 * or stays NULL: the registry is to be asked. Waits while another caller asks for the same. 1: the
 * caller leads, and has to settle or drop what others wait for; 0; -EINTR, -ENOMEM. */
int redirects_find(struct redirects *redirects, const char *key, struct wait *wait, char **ret);
/* KEY was served by URL, or (NULL) by the registry itself. */
void redirects_settle(struct redirects *redirects, const char *key, const char *url);
/* URL does not serve KEY any more. NULL: who leads has found nothing. */
void redirects_drop(struct redirects *redirects, const char *key, const char *url);

/* ---- registry_etag.c: any thread ---- */

struct etags *etags_new(void);
void etags_free(struct etags *etags);
/* The manifest at URL was answered with the entity tag VALUE (NULL: none) and is DIGEST. */
void etags_note(struct etags *etags, const char *url, const char *value,
		const struct digest *digest);
/* Whether one is known. */
bool etags_has(struct etags *etags, const char *url);
/* "If-None-Match: ...", which the caller frees, and what the manifest at URL is if it has not
 * changed. NULL: none is known. */
char *etags_find(struct etags *etags, const char *url, struct digest *ret);

/* The operations of store.h, each in its file. */
int registry_ping(struct store *store, struct wait *wait);
int registry_list_repos(struct store *store, store_name_fn *fn, void *arg, struct wait *wait);
int registry_list_tags(struct store *store, const char *repo, store_name_fn *fn, void *arg,
		       struct wait *wait);
int registry_head(struct store *store, const char *repo, const char *tag_or_digest,
		  struct digest *ret, struct wait *wait);
int registry_get_manifest(struct store *store, const char *repo, const char *tag_or_digest,
			  struct store_manifest *ret, struct wait *wait);
int registry_referrers(struct store *store, const char *repo, const struct digest *digest,
		       store_descriptor_fn *fn, void *arg, struct wait *wait);
int registry_has_blob(struct store *store, const char *repo, const struct digest *digest,
		      uint64_t *ret_size, struct wait *wait);
int registry_open_blob(struct store *store, const char *repo, const struct digest *digest,
		       uint64_t off, uint64_t len, struct store_stream **ret, struct wait *wait);
int registry_put_blob(struct store *store, const char *repo, const struct store_put *put,
		      struct wait *wait);
int registry_put_manifest(struct store *store, const char *repo, const char *tag,
			  const char *media_type, const void *bytes, size_t len, struct wait *wait);
int registry_untag(struct store *store, const char *repo, const char *tag, struct wait *wait);
int registry_remove_repo(struct store *store, const char *repo, struct wait *wait);
int registry_delete_manifest(struct store *store, const char *repo, const struct digest *digest,
			     struct wait *wait);

#endif
