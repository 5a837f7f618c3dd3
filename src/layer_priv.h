/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_priv: what the files of the layer room share: the table, builds, decoded spans.
 */
#ifndef REGFS_LAYER_PRIV_H
#define REGFS_LAYER_PRIV_H

#include "regfs/layer.h"

/* Decoded bytes of [point N, point N + 1), or a piece of them where they are many. */
struct span {
	uint64_t layer; /* struct layer.number */
	uint32_t point, piece;
	uint8_t *data; /* NULL while it is being decoded */
	size_t len;
	unsigned users;
	struct wait_queue waiters;
	struct span *next; /* most recently used first */
};

struct spans {
	pthread_mutex_t lock;
	struct span *list;  /* guarded by lock */
	size_t total_bytes; /* guarded by lock */
};

struct layer {
	struct layers *layers;
	uint64_t number; /* unlike any other's in this process */
	struct digest digest;
	uint64_t blob_size;
	struct store *store;
	char *repo;
	struct index index;
	struct cache_map map; /* of the index; .data NULL where it is in .memory */
	char *memory;
	unsigned refs;	    /* guarded by layers->lock */
	bool listed;	    /* in the table; guarded by layers->lock */
	struct layer *next; /* guarded by layers->lock; most recently used first */
};

enum build_kind { BUILD_INDEX, BUILD_DECODED };

/* A layer's index being made, or its decoded output; a job of its own. */
struct build {
	struct pool_work work;
	struct layers *layers;
	enum build_kind kind;
	struct digest digest;
	uint64_t size;
	struct store *store;
	char *repo;
	struct wait wait; /* cancelled when nobody wants the build any more */
	/* all below guarded by layers->lock */
	unsigned refs;	     /* the job's and each waiter's */
	unsigned interested; /* waiters */
	bool prepared;	     /* asked for in advance: goes on without waiters */
	int64_t left_ms;     /* when the last waiter left */
	bool done;
	int result;
	struct layer *layer; /* BUILD_INDEX, done well: held by the build */
	struct wait_queue waiters;
	struct build *next;
};

struct layers {
	struct blobs *blobs;
	struct cache *cache;
	struct pool *jobs;
	struct spans spans;
	pthread_mutex_t lock;
	struct layer *table;  /* guarded by lock */
	struct build *builds; /* guarded by lock */
	uint64_t numbers;     /* guarded by lock */
	unsigned decoding;    /* builds that decode now; guarded by lock */
	bool ending;	      /* guarded by lock */
	struct wait_queue slots, ended;
};

static inline void build_blob_id(const struct build *build, struct blob_id *ret)
{
	*ret = (struct blob_id){
		.digest = &build->digest,
		.size = build->size,
		.store = build->store,
		.repo = build->repo,
	};
}

/* The layer whose index lies in the cache, in no table yet. -ENOENT; a damaged one is removed. */
int layer_load(struct layers *layers, const struct blob_id *id, struct layer **ret);
/* The layer with the index in MEMORY (taken on success). */
int layer_from_memory(struct layers *layers, const struct blob_id *id, char *memory, size_t len,
		      struct layer **ret);
void layer_free(struct layer *layer);
/* Puts FRESH (one reference, the caller's) into the table, or drops it for one that came first. */
struct layer *layer_install(struct layer *fresh);

/* layer_build.c: makes the build's index, or its decoded output, in the cache. */
int build_index(struct build *build, struct layer **ret);
int build_decoded(struct build *build);
/* True when nobody has wanted the build for a while. */
bool build_is_unwanted(struct build *build);

/* layer_jobs.c: joins or starts the build of ID and waits for it. */
int build_run(struct layers *layers, enum build_kind kind, const struct blob_id *id,
	      struct wait *wait, struct layer **ret);
void build_prepare(struct layers *layers, const struct blob_id *id);
/* Calls off all builds and waits for their end. */
void builds_end(struct layers *layers);

/* layer_spans.c */
void spans_init(struct spans *spans);
void spans_release(struct spans *spans);
/* Decoded bytes of LAYER's stream at OFF. Count, at least 1, or a negative errno. */
ssize_t span_read(struct layer *layer, uint64_t off, void *buf, size_t len, struct wait *wait);

/* layer_diff.c: hashes the decoded bytes beside the decoding, as long as it keeps up. */
struct diff;
#define DIFF_BUFFER (256 * KIB)
/* NULL when memory is short. */
struct diff *diff_new(struct pool *jobs);
/* A buffer of DIFF_BUFFER bytes to decode into; valid until the next call. */
uint8_t *diff_buffer(struct diff *diff);
/* The buffer last given holds LEN bytes. */
void diff_add(struct diff *diff, size_t len);
/* Ends it: the digest of all, or .algo DIGEST_NONE where it could not keep up. */
void diff_finish(struct diff *diff, struct digest *ret);
void diff_cleanup(struct diff **diff);

static inline void layer_blob_cache_id(const struct digest *digest, enum cache_kind kind,
				       struct cache_id *ret)
{
	ret->kind = kind;
	digest_key(digest, ret->key);
}

#endif
