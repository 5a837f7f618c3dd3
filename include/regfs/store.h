/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store: the one narrow interface to a place that holds repositories, with several
 * bodies: registry (HTTP), layout (OCI layouts on disk), fake (tests).
 * Must not know caching.
 *
 * Names given are valid (ref.h); TAG_OR_DIGEST is a tag, or "sha256:…". Any thread. Errors are
 * those of SPEC section 5, already logged with their words by the body, but for the quiet
 * -ENOENT of a lookup:
 * -ENOENT, -EACCES, -EHOSTUNREACH, -ECONNREFUSED, -ETIMEDOUT, -EIO, -EBUSY, -EOPNOTSUPP, -EEXIST,
 * -EINVAL, -EDQUOT, -ENOSPC, -EROFS, -EINTR, -EWOULDBLOCK, -ENOMEM.
 */
#ifndef REGFS_STORE_H
#define REGFS_STORE_H

#include <stdatomic.h>

#include "regfs/buf.h"
#include "regfs/digest.h"
#include "regfs/wait.h"

/* A manifest or index as a store gives it. The digest was computed from the bytes (and
 * compared with the one asked for, or the server's header). */
struct store_manifest {
	struct digest digest;
	char *media_type; /* as served; never NULL */
	struct buf bytes;
};
void store_manifest_release(struct store_manifest *manifest);

/* A blob's bytes, from an offset on. Not verified. */
struct store_stream {
	/* > 0, 0 at the end, or a negative errno. What breaks off is resumed inside, as long as
	 * there is progress. */
	ssize_t (*read)(struct store_stream *stream, void *buf, size_t cap, struct wait *wait);
	void (*close)(struct store_stream *stream);
	/* A part was asked for, and the store sends all: what is before it is passed over. */
	bool unranged;
};

/* A blob to send: random access, because an upload may have to resume. READ gives up to
 * CAP bytes at OFF (0 only past the end) or a negative errno; it may be called from another thread,
 * one call at a time, until put_blob returns. */
struct store_source {
	ssize_t (*read)(void *arg, uint64_t off, void *buf, size_t cap);
	void *arg;
	uint64_t size;
	/* Of bytes that are still to come, READ gives -EAGAIN; this waits for the one at OFF, on
	 * the thread that called put_blob. NULL: all are there. */
	int (*await)(void *arg, uint64_t off, struct wait *wait);
	/* All was read and sent: 0, or the error for which it is not to be confirmed. NULL: it is
	 * known to be right. */
	int (*judge)(void *arg);
};
/* Reads, and waits where that is needed: for who is no HTTP client. */
ssize_t store_source_read(const struct store_source *source, uint64_t off, void *buf, size_t cap,
			  struct wait *wait);

/* Progress of a put, in bytes confirmed so far of this blob; may be NULL. */
typedef void store_progress_fn(void *arg, uint64_t bytes);

struct store_put {
	const struct digest *digest;
	const struct store_source *source; /* NULL: it is mounted, or -ENOENT */
	const char *mount_from; /* a repository of this store that may hold it, or NULL */
	/* Whether the store has answered the caller a moment ago, in this or in another request:
	 * then it may be about to come back where nobody is there, and is waited for as anything
	 * is. NULL: nobody waits. */
	atomic_bool *answered;
	store_progress_fn *progress;
	void *progress_arg;
};

typedef int store_name_fn(void *arg, const char *name);

struct oci_descriptor;
/* FN may take what the descriptor holds, and leave zeros in its place. */
typedef int store_descriptor_fn(void *arg, struct oci_descriptor *descriptor);

struct store;
struct store_ops {
	const char *kind; /* "registry", "layout", "fake" */
	/* Images that come without a manifest get OCI's types, not Docker's: who else reads an OCI
	 * layout looks for no others. */
	bool oci_types;
	/* All repositories, in any order, perhaps twice; FN's non-zero stops and is returned.
	 * -EOPNOTSUPP where there is no catalogue, or none for us; -EACCES where we are not let in
	 * at all. */
	int (*list_repos)(struct store *store, store_name_fn *fn, void *arg, struct wait *wait);
	/* The same of tags. -ENOENT: no such repository. */
	int (*list_tags)(struct store *store, const char *repo, store_name_fn *fn, void *arg,
			 struct wait *wait);
	/* The digest a tag names, without its bytes where that is possible (HEAD). */
	int (*head)(struct store *store, const char *repo, const char *tag_or_digest,
		    struct digest *ret, struct wait *wait);
	int (*get_manifest)(struct store *store, const char *repo, const char *tag_or_digest,
			    struct store_manifest *ret, struct wait *wait);
	/* The manifests whose subject is DIGEST (distribution-spec, "Listing Referrers"), in any
	 * order, perhaps twice; there need not be any. FN's non-zero stops and is returned. */
	int (*referrers)(struct store *store, const char *repo, const struct digest *digest,
			 store_descriptor_fn *fn, void *arg, struct wait *wait);
	/* Whether the repository holds the blob; its size. */
	int (*has_blob)(struct store *store, const char *repo, const struct digest *digest,
			uint64_t *ret_size, struct wait *wait);
	/* The same of the one place that put_blob() goes to. NULL: there is no other. */
	int (*holds_blob)(struct store *store, const char *repo, const struct digest *digest,
			  uint64_t *ret_size, struct wait *wait);
	/* LEN bytes from OFF on (UINT64_MAX: to the end). A blob that a registry lacks is -EIO: who
	 * reads one has its digest from there. */
	int (*open_blob)(struct store *store, const char *repo, const struct digest *digest,
			 uint64_t off, uint64_t len, struct store_stream **ret, struct wait *wait);
	/* Where else open_blob() may look for a blob that the repository lacks: a descriptor of its
	 * manifests says so (image-spec, descriptor.md, "urls"). NULL: it does not look elsewhere.
	 */
	void (*learn_urls)(struct store *store, const char *repo, const struct digest *digest,
			   char *const *urls, size_t n);
	int (*put_blob)(struct store *store, const char *repo, const struct store_put *put,
			struct wait *wait);
	/* TAG may be NULL: by its sha256 alone; or a digest as text: by that one alone. On an
	 * answer that was lost: -EIO, "outcome unknown" in the log, unless asking again settled it.
	 * Once it is sent it is not interrupted. */
	int (*put_manifest)(struct store *store, const char *repo, const char *tag,
			    const char *media_type, const void *bytes, size_t len,
			    struct wait *wait);
	/* Deletes a tag alone (-EOPNOTSUPP where the store cannot), a manifest by digest. */
	int (*untag)(struct store *store, const char *repo, const char *tag, struct wait *wait);
	int (*delete_manifest)(struct store *store, const char *repo, const struct digest *digest,
			       struct wait *wait);
	/* mkdir of a repository: 0 where it needs nothing. */
	int (*make_repo)(struct store *store, const char *repo, struct wait *wait);
	/* rmdir of one: 0 if it holds nothing (any more); -ENOTEMPTY, -EOPNOTSUPP. */
	int (*remove_repo)(struct store *store, const char *repo, struct wait *wait);
	/* Whether HOST is a registry at all: 0, or why not. */
	int (*ping)(struct store *store, struct wait *wait);
	/* The bytes that open_blob() gave for DIGEST were wrong: where the store has another place
	 * for them it asks that from now on, and .route is another number. NULL: it has none. */
	void (*distrust)(struct store *store, const char *repo, const struct digest *digest);
	/* Another number when the store's content changed behind us (a local layout); 0: unknown.
	 */
	uint64_t (*generation)(struct store *store, const char *repo);
	void (*free)(struct store *store);
};

/* The head of every body. */
struct store {
	const struct store_ops *ops;
	char *name;	   /* "localhost:5000", "local": for logs and keys; owned */
	atomic_uint route; /* grows when blobs come from elsewhere than before */
};

/* For who would put the blob of SIZE bytes: 0: the store has it, whole; -ENOENT: it is to be put.
 * That is so where it may not be read, too: a repository that comes with its first push (Quay) may
 * not be before, and whether it may be written to, the put finds out. Other errors are
 * has_blob()'s. */
int store_holds(struct store *store, const char *repo, const struct digest *digest, uint64_t size,
		struct wait *wait);

/* Puts the blob of SIZE bytes unless the store has it, whole; notes in *put->answered that it
 * answered. Errors of put_blob(), and of has_blob(). */
int store_offer(struct store *store, const char *repo, const struct store_put *put, uint64_t size,
		struct wait *wait);

static inline bool store_put_waits(const struct store_put *put)
{
	return put->answered && atomic_load(put->answered);
}

static inline void store_stream_close(struct store_stream *stream)
{
	if (stream)
		stream->close(stream);
}

static inline void store_distrust(struct store *store, const char *repo,
				  const struct digest *digest)
{
	if (store->ops->distrust)
		store->ops->distrust(store, repo, digest);
}

static inline void store_free(struct store *store)
{
	if (store)
		store->ops->free(store);
}

/* A store_source over bytes, and over part of a descriptor. ARG structures are the caller's. */
struct store_bytes {
	const void *data;
	size_t len;
};
ssize_t store_bytes_read(void *arg, uint64_t off, void *buf, size_t cap);
struct store_file {
	int fd;
	uint64_t off, len;
};
ssize_t store_file_read(void *arg, uint64_t off, void *buf, size_t cap);

#endif
