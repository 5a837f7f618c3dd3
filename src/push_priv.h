/* SPDX-License-Identifier: Apache-2.0 */
/*
 * push, inside: the file that is written, and one flush of it.
 * Shared by push*.c alone.
 *
 *   push.c           the file: writes, the verdict, what _regfs/pushes shows
 *   push_spool.c     unlinked files; unpacking a compressed archive into one
 *   push_tasks.c     work in parallel on the pool, called off together
 *   push_plan.c      which image of an archive goes where
 *   push_images.c    one flush: archive, plan, blobs
 *   push_publish.c   and at its end the manifests
 *   push_docker.c    an image of docker save: its config, its layers, a manifest for it
 *   push_copy.c      an image that the store has, under another name
 *   push_compress.c  one such layer: checked, compressed, sent
 */
#ifndef REGFS_PUSH_PRIV_H
#define REGFS_PUSH_PRIV_H

#include "regfs/archive.h"
#include "regfs/push.h"
#include "regfs/ref.h"

#define PUSH_PIECE     MIB	   /* what is read, hashed or compressed at a time */
#define PUSH_PARALLEL  4	   /* blobs under way at once */
#define PUSH_SIZE_MAX  (1LL << 42) /* of a file that is pushed */
#define PUSH_ENDED_MAX 32	   /* ended pushes that are still shown, for so long */
#define PUSH_ENDED_MS  (10 * 60 * 1000)

struct push_ended {
	char *label; /* NULL: free */
	struct push_status status;
	int64_t end_ms;
};

struct pushes {
	struct pushes_options options;
	char *spool_dir;
	pthread_mutex_t lock;
	struct push *head;			 /* guarded by lock */
	struct push_ended ended[PUSH_ENDED_MAX]; /* guarded by lock; a ring */
	unsigned next_ended;			 /* guarded by lock */
};

/*
 * flushing  excludes writers; only the thread that set it touches status.state.
 * writers   counts writes under way; a flush starts when there are none.
 */
struct push {
	struct pushes *pushes;
	struct store *store;
	char *repo; /* NULL: the archive names its images */
	int spool;
	/* changed under lock by who set flushing, for whom they stand still */
	char *tag; /* NULL without a repo, and of a temporary */
	char *label;
	bool kept; /* a temporary: nothing is published */

	unsigned refs;		   /* guarded by pushes->lock */
	struct push *next, **link; /* guarded by pushes->lock */

	pthread_mutex_t lock;
	/* guarded by lock */
	struct wait_queue changed;
	uint64_t size;
	uint64_t version; /* of the bytes: grows with each change */
	uint64_t judged;  /* the version that the verdict is about; 0: none */
	unsigned writers;
	bool flushing;
	struct push_status status;
	struct push_staged *staged; /* of this version, for who set flushing; or NULL */
};

/* Keeps the first sentence that says why the flush fails. Returns ERR. */
int push_fail(struct push *push, int err, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* The same for an errno of the operating system: "WHAT: No space left on device". */
int push_fail_errno(struct push *push, int err, const char *what);
/* The same for the spool's disk. */
int push_fail_spool(struct push *push, int err, const char *what);
/* The lock is held. Waits until nobody else writes or flushes. */
int push_await_turn(struct push *push, struct wait *wait);
/* The lock is held, and it is this thread's turn: push_judge() is due. */
void push_claim(struct push *push);
/* The verdict, which is logged. What failed to get its name is a temporary again, if it was one. */
void push_judge(struct push *push, int err, bool was_kept);
void push_progress(struct push *push, int64_t bytes);
void push_sending(struct push *push, uint64_t total_bytes);

/* --- push_spool.c --- */

/* An unlinked file in DIR, which is made if it is missing. A descriptor or a negative errno. */
int push_spool_open(const char *dir);
/* Decodes the first SIZE bytes of FD into a new spool file, on the pool. */
int push_spool_unpack(struct push *push, enum codec codec, uint64_t size, struct wait *wait,
		      int *ret_fd, uint64_t *ret_size);

/* --- push_tasks.c --- */

/* Embed it. run() may block in WAIT, which ends when another task fails, or the caller's wait. */
struct push_task {
	int (*run)(struct push_task *task, struct wait *wait);
};
#define PUSH_TASKS_MAX 16 /* at once */
/* Runs all N, AT_ONCE at a time, and returns when none runs any more: 0, or the first error (-EINTR
 * when WAIT was cancelled), after which no other is started. */
int push_tasks_run(struct pool *pool, struct push_task *const *tasks, size_t n, unsigned at_once,
		   struct wait *wait);

/* --- push_plan.c --- */

/* One image for one repository, under one or several tags. */
struct push_delivery {
	const struct archive_image *image; /* borrowed */
	char *repo;
	char **tags;
	size_t ntags;
	/* What the tags will name; for docker save made when its layers are sent. */
	const char *media_type; /* borrowed */
	struct buf manifest;
};
struct push_plan {
	struct push_delivery *deliveries;
	size_t ndeliveries;
};
/* Where the archive's images go: to PUSH's repository and tag, or to those they name. -EINVAL with
 * its reason. */
int push_plan_make(struct push *push, const struct archive *archive, struct push_plan *ret);
void push_plan_release(struct push_plan *plan);

/* --- push_publish.c --- */

/* An archive all of whose blobs are confirmed. */
struct push_staged {
	struct archive *archive;
	struct push_plan plan; /* borrows from it */
};
void push_staged_free(struct push_staged *staged);
/* One manifest into the push's own repository, under TAG (NULL: by its digest alone). */
int push_manifest(struct push *push, const char *tag, const struct archive_document *document,
		  struct wait *wait);
/* Sends the manifests, and says so: 0 when every one is confirmed. */
int push_publish(struct push *push, const struct push_staged *staged, struct wait *wait);

/* --- push_images.c --- */

/* A layer of docker save, known by its diff ID. */
struct push_layer {
	struct archive_blob at;
	struct digest diff_id;
	unsigned number; /* from 1, for words */
	/* Set once it is confirmed: */
	struct digest digest;
	uint64_t size;
	enum codec codec;
	const char *repo; /* where it is; borrowed from the plan; NULL: nowhere yet */
};

/* One flush. */
struct push_run {
	struct push *push;
	struct wait *wait; /* the flush's own */
	int fd;		   /* the archive, not compressed */
	uint64_t size;
	struct push_layer **layers; /* those of docker save that are sent */
	size_t nlayers;
};

/* The whole of it: 0 when every manifest is confirmed, or, for a temporary, every blob. */
int push_images(struct push *push, struct wait *wait);
/* Bytes of the archive. Count or a negative errno, with its reason. */
ssize_t push_archive_read(struct push_run *run, uint64_t off, void *buf, size_t len);

struct push_blob {
	const char *repo;
	const char *mount_from; /* or NULL */
	const struct digest *digest;
	const struct store_source *source;
	uint64_t share; /* of the push's total bytes */
};
/* Sends the blob unless the store has it. */
int push_send(struct push_run *run, const struct push_blob *blob, struct wait *wait);

/* --- push_docker.c --- */

/* Sends config and layers of the delivery's image, and makes its manifest. */
int push_docker(struct push_run *run, struct push_delivery *delivery);

/* --- push_compress.c --- */

/* Brings one layer into REPO. Runs as a task. */
int push_layer_send(struct push_run *run, struct push_layer *layer, const char *repo,
		    struct wait *wait);

#endif
