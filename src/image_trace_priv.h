/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What image_trace.c (runs, and their records) and image_replay.c (bringing in what a record names)
 * share.
 */
#ifndef REGFS_IMAGE_TRACE_PRIV_H
#define REGFS_IMAGE_TRACE_PRIV_H

#include "image_priv.h"
#include "regfs/trace.h"

/* Ranges at once at most: there are connections left for who waits (http.h). */
#define TRACE_WORKERS 16

/* The job of one image. */
struct tracing {
	struct pool_work work;
	struct image *image;		  /* held */
	struct wait waits[TRACE_WORKERS]; /* the job's, and its helpers' */
	struct tracing *next;		  /* guarded by images->lock */
	/* guarded by .lock, the replay's */
	pthread_mutex_t lock;
	pthread_cond_t idle; /* a helper is done */
};

/* Brings in what OLD names, as far as no pass is needed for it. Waits until that is there, or the
 * job is called off. */
void trace_replay(struct tracing *tracing, const struct trace *old);

#endif
