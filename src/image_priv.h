/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_priv: what the files of the image room share.
 *
 * An image is made whole from its manifest and never changes; config, merged tree and layer trees
 * are added when first asked for, each once. Nobody's reference gone, it stays among the idle
 * ones for a while.
 */
#ifndef REGFS_IMAGE_PRIV_H
#define REGFS_IMAGE_PRIV_H

#include "regfs/image.h"
#include "regfs/trace.h"

struct image_tree {
	struct image *image; /* the one it is part of */
	unsigned layer;
	struct rootfs *forms[IMAGE_FORMS]; /* NULL until asked for; by image->lock, set once */
};

enum trace_state { TRACE_NONE, TRACE_ON, TRACE_OVER };

struct image {
	struct images *images;
	struct store *store;
	char *repo;
	struct digest digest;
	struct oci_manifest manifest;
	struct buf bytes;
	/* guarded by images->lock */
	unsigned refs;
	bool deleted;	    /* the repository does not hold it any more: not found again */
	struct image *next; /* most recently used first */
	atomic_int tracing; /* enum trace_state */
	/* guarded by .lock, set once */
	pthread_mutex_t lock;
	bool has_config;
	int config_error; /* the config is not what it should be: known for good, logged once */
	struct oci_config config;
	struct buf config_bytes;
	struct rootfs *rootfs;
	struct image_tree *trees;    /* manifest.nlayers of them */
	bool prefetched;	     /* image_entered() took note of it */
	struct trace *trace;	     /* image_trace.c's: grows while .tracing is TRACE_ON */
	int64_t trace_ms;	     /* when it grew last */
	struct referrers *referrers; /* the last list; each list's refs are guarded by .lock too */
	struct image_soci *soci;     /* NULL: there is none */
	bool soci_known;
	char *tag;		 /* that led here; NULL: none did */
	struct toc_apart *apart; /* of each layer; NULL: not looked for */
};

/* It is not found any more, whoever holds it. */
void image_drop(struct images *images, const struct store *store, const char *repo,
		const struct digest *digest);

/* A question under way, and then its answer, for those who ask the same. Guarded by images->lock.
 */
struct flight {
	char *key;
	unsigned refs; /* the leader's and each follower's */
	bool done;
	int64_t begun_ms;
	int64_t until_ms; /* once done: it stays among the flights till then */
	int result;
	struct digest digest; /* with result 0: what was asked for */
	struct wait_queue waiters;
	struct flight *next;
};

/* image_prefetch.c's. */
struct prefetcher {
	struct pool_work work;
	struct wait wait;
	int64_t pause_ms; /* before the first new try; tests shorten it */
	/* guarded by images->lock */
	struct prefetch *queue;
	unsigned length;
	bool running, closing;
	pthread_cond_t ended;
};

/* image_trace.c's. */
struct tracing;
struct tracers {
	int64_t settle_ms; /* TRACE_SETTLE_MS; tests shorten it */
	/* guarded by images->lock */
	struct tracing *first;
	unsigned count;
	bool closing;
	pthread_cond_t ended; /* one of them */
};

/* Stores that did not answer are few. */
#define SILENT_STORES 8

struct images {
	struct images_options options;
	struct prefetcher prefetcher;
	struct tracers tracers;
	bool stopped; /* images_stop() was called */
	pthread_mutex_t lock;
	struct image *images;	/* guarded by lock */
	struct flight *flights; /* guarded by lock */
	struct {
		const struct store *store; /* only compared */
		int64_t until_ms;
	} silent[SILENT_STORES]; /* guarded by lock */
};

void prefetcher_init(struct prefetcher *prefetcher);
/* Ends what is going on, and waits for that. */
void prefetcher_stop(struct images *images);

/* Joins the question KEY. 1: the caller is to ask, and then to call flight_end() with *RET_LEAD. 0:
 * somebody else has asked, the answer is in *RET. Their error, unless they were called off, or the
 * caller's own. */
int flight_begin(struct images *images, const char *key, struct wait *wait,
		 struct flight **ret_lead, struct digest *ret);
/* Ends LEAD with RESULT, and DIGEST if that is 0. -ETIMEDOUT, waited for, stays the answer for a
 * moment. */
void flight_end(struct images *images, struct flight *lead, int result,
		const struct digest *digest);
/* Those that stayed. Nobody is under way any more. */
void flights_release(struct images *images);

/* Keeps a manifest as given by STORE for REPO. */
void record_manifest(struct images *images, struct store *store, const char *repo,
		     const struct store_manifest *manifest);
/* What is kept of DIGEST, hashed again, if this repository is known to hold it. 0 or -ENOENT. The
 * caller releases. */
int recall_manifest(struct images *images, struct store *store, const char *repo,
		    const struct digest *digest, struct store_manifest *ret);
/* The same without asking for the repository, for what a document of that repository vouches for;
 * MEDIA_TYPE is what that says. */
int recall_vouched(struct images *images, const struct digest *digest, const char *media_type,
		   struct store_manifest *ret);

/* Whether ERROR means that the store cannot be reached or does not work just now. */
bool image_store_gone(int error);

/* A name for the cache: what it remembers of REFERENCE in REPO. 0 or -ENOMEM. */
int image_name_id(const char *kind, const struct store *store, const char *repo,
		  const char *reference, struct cache_id *ret);

/* The digest that is remembered under such a name. 0 or -ENOENT. */
int recall_digest(struct images *images, const struct cache_id *id, struct digest *ret);
/* One that has not changed costs no write. */
void record_digest(struct images *images, const struct cache_id *id, const struct digest *digest);

/* --- image_soci.c --- */

/* Finds out which ztocs there are for the image's layers; that there are none is no failure. 0;
 * -EWOULDBLOCK, -EINTR, -ENOMEM. */
int image_soci_load(struct image *image, struct wait *wait);
/* The ztoc of layer N, as far as is known; false: none. */
bool image_soci_table(struct image *image, unsigned n, struct toc_ref *ret);
void image_soci_release(struct image *image);

/* --- image_apart.c --- */

/* Where the table of contents of layer N is, if that is not in the layer itself: DIGEST_NONE where
 * it is not found. 0 or an error. */
int image_apart(struct image *image, unsigned n, struct wait *wait, struct toc_apart *ret);
/* Found by the tag of the index that IMAGE is a child of. */
void image_inherit_tag(struct image *image, struct image *index);
void image_apart_release(struct image *image);

/* Starts the opening of layer N in the background. */
void image_layer_prepare(struct image *image, unsigned n);

#define TRACE_SETTLE_MS 5000 /* a run is recorded once nothing new was read for so long */
void tracers_init(struct tracers *tracers);
/* Ends all recording and replaying, and waits for that; what was recorded is kept. */
void tracers_stop(struct images *images);

/* Drops what image_content.c made. */
void image_content_release(struct image *image);

#endif
