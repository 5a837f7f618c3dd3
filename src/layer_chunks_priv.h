/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What layer_chunks.c (who wants which chunks), layer_near.c (which others come along) and
 * layer_flight.c (how they are brought in) share.
 *
 * A decoded chunk is named by its length and the digest of its bytes: in the cache (CACHE_CHUNK, in
 * blocks), and here while it is on its way, so that all layers and readers share it. A decoded span
 * belongs to its layer and table: what its bytes decode to depends on a window that the table
 * gives. What brings chunks in is a *flight*: a job of its own with its own wait, so that a reader
 * that is called off neither stops nor delays others. It fetches one range of the blob that holds
 * some chunks of a file, one after the other, and of files beside it, and publishes each as soon as
 * its digest was found right.
 */
#ifndef REGFS_LAYER_CHUNKS_PRIV_H
#define REGFS_LAYER_CHUNKS_PRIV_H

#include "layer_priv.h"

#define CHUNKS_RUNS	8   /* sequential readers told apart */
#define CHUNKS_WALKS	8   /* likewise, who go from file to file */
#define CHUNK_ITEMS_MAX 256 /* of one flight */
#define NEAR_ITEMS_MAX	256 /* of other files, likewise */
#define CHUNKS_RECENT	2   /* flights kept where the cache does not keep what they brought */

struct chunk_item {
	struct index_chunk chunk;
	uint32_t nr;	    /* of the file's chunks; of a span: of its point */
	struct cache_id id; /* its name */
	uint8_t *data;	    /* constant once published */
};

struct chunk_flight {
	struct pool_work work;
	struct layer *layer; /* held by the job; afterwards only compared */
	struct wait wait;
	struct chunk_item *items;
	uint32_t count;
	uint32_t own;	  /* of them are asked for; others come along */
	uint32_t forward; /* of them follow each other from the first on; others lie before it */
	bool unkept;	  /* the job's: the cache refused some */
	/* guarded by chunks->lock */
	unsigned refs; /* readers', the job's, recent's */
	uint32_t ready;
	bool ended;
	int result;
	struct chunk_flight *next;
};

/* A sequential reader: the chunk it will want next, and how far to read ahead for it. */
struct chunk_run {
	uint64_t serial; /* of the layer */
	uint32_t next;	 /* among all chunks of its index */
	uint64_t ahead;	 /* bytes of the blob */
};

/* Somebody who goes through a layer as its blob does, file by file: cp -a, tar, grep -r. */
struct chunk_walk {
	uint64_t serial; /* of the layer, and 1 */
	uint64_t end;	 /* in the blob: what was brought for him ends there */
	uint32_t files;	 /* begun, one beside the other */
	uint64_t ahead;	 /* bytes of the blob that he gets at his next miss; 0: as anybody */
};

/* A miss, as walks see it. Places are in the blob. */
struct walk_step {
	uint64_t serial; /* of the layer, and 1; 0: it is none of theirs */
	uint64_t off;
	uint64_t file_off, file_end;
	bool first; /* of the file */
};

struct chunks {
	pthread_mutex_t lock;
	_Atomic uint64_t nended; /* flights; counted with the lock held */
	/* guarded by lock */
	struct chunk_flight *flights;
	struct wait_queue moved;
	struct chunk_flight *recent[CHUNKS_RECENT];
	unsigned next_recent;
	struct chunk_run runs[CHUNKS_RUNS];
	unsigned next_run;
	struct chunk_walk walks[CHUNKS_WALKS];
	unsigned next_walk;
};

/* Where CHUNK of LAYER is kept. */
struct cache_id chunk_id(const struct layer *layer, const struct index_chunk *chunk);

/* Until the cache has the COUNT chunks of ITEMS, as far as it keeps them: those that are neither
 * there nor under way come in one flight. They lie one behind the other in the blob. The bytes that
 * took, or an error. */
ssize_t chunks_bring(struct layer *layer, const struct chunk_item *items, uint32_t count,
		     struct wait *wait);

/* --- layer_near.c --- */

/* The directory whose files may come along with file INO; INDEX_NONE: none may. */
uint32_t near_dir(const struct layer *layer, const struct index_inode *inode, uint32_t ino);
/* Adds to FLIGHT, which has chunk number WANTED of the layer first, what comes along. */
void near_add(struct chunk_flight *flight, uint32_t wanted, uint32_t dir);
/* A miss at chunk number NR of a file. */
void near_step(const struct layer *layer, const struct index_inode *inode, uint32_t nr,
	       struct walk_step *ret);
/* Bytes of the blob to bring at STEP because of a walk; 0: it belongs to none. Lock held. */
uint64_t near_walk_ahead(const struct chunks *chunks, const struct walk_step *step);
/* FLIGHT is on its way, for STEP. Lock held. */
void near_walk_note(struct chunks *chunks, const struct walk_step *step,
		    const struct chunk_flight *flight);
/* Adds what follows in the blob, from chunk number NEXT on, up to AHEAD bytes in all. */
void near_walk_add(struct chunk_flight *flight, uint32_t next, uint64_t ahead);

/* --- layer_flight.c --- */

void chunk_flight_free(struct chunk_flight *flight);
/* Lock held; gives what is to be freed without it. */
struct chunk_flight *chunk_flight_unref_locked(struct chunk_flight *flight);
/* The job; ends with chunk_flight_end(). */
void chunk_flight_run(struct pool_work *work);
/* Takes FLIGHT out of the list, for good, and counts the job out. */
void chunk_flight_end(struct chunk_flight *flight, int result);

#endif
