/* SPDX-License-Identifier: Apache-2.0 */
/*
 * push, inside: the file that is written, and one flush of it.
 * Shared by push*.c alone.
 *
 *   push.c           all pushes; one of them, its verdict, what _regfs/pushes shows
 *   push_bytes.c     its file
 *   push_reason.c    why something fails, in words
 *   push_spool.c     unlinked files; unpacking a compressed archive into one
 *   push_tasks.c     work in parallel on the pool, called off together
 *   push_plan.c      which image of an archive goes where
 *   push_archive.c   the archive's bytes, for who sends them
 *   push_stream.c    an archive that is pushed while it is written: what has come, who waits
 *   push_part.c      and its blobs and layers, each sent by itself
 *   push_checked.c   a blob sent as it is, and hashed on the way
 *   push_diff.c      what a layer decodes to, found beside
 *   push_verify.c    whether that is what an image's config says
 *   push_restore.c   a layer that was sent compressed, wanted as it was
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

#define PUSH_PIECE    MIB	  /* what is read, hashed or compressed at a time */
#define PUSH_STEP     (256 * KIB) /* so many bytes are waited for before they go on */
#define PUSH_SMALL    MIB /* a blob up to this size: its requests cost more than its bytes */
#define PUSH_PARALLEL 4	  /* blobs under way at once, and small ones beside them */
#define PUSH_SIZE_MAX (1LL << 42) /* of a file that is pushed */
/* So many times its size a blob or an archive may unpack to, as deflate does at most, and so much
 * whatever its size. */
#define PUSH_RATIO_MAX	1032
#define PUSH_RATIO_FREE (4ULL << 30)
#define PUSH_STREAM_MIN (8 * MIB) /* what is larger is sent while it is written */
#define PUSH_ENDED_MAX	32	  /* ended pushes that are still shown, for so long */
#define PUSH_ENDED_MS	(10 * 60 * 1000)

/* --- push_reason.c --- */

/* Why something fails. Any thread. */
struct push_reason {
	pthread_mutex_t lock;
	char text[PUSH_REASON_MAX]; /* guarded by lock */
};
void push_reason_init(struct push_reason *why);
void push_reason_release(struct push_reason *why);
/* Gives the sentence ("" if there is none) and forgets it. */
void push_reason_take(struct push_reason *why, char ret[static PUSH_REASON_MAX]);
/* Keeps the first sentence that says why something fails. Returns ERR. */
int push_fail(struct push_reason *why, int err, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* The same for an errno of the operating system: "WHAT: No space left on device". */
int push_fail_errno(struct push_reason *why, int err, const char *what);
/* The same for the spool's disk. */
int push_fail_spool(struct push_reason *why, int err, const char *what);
/* A blob of the archive is not what its name or the manifest says: -EINVAL. */
int push_fail_digest(struct push_reason *why, const struct digest *wanted,
		     const struct digest *found);

/* --- push.c --- */

/* What the push is called now; a rename may free push->label where neither its lock nor a writer
 * or flush holds it. The caller frees; NULL when memory is short. */
char *push_label(struct push *push);

struct push_ended {
	char *label; /* NULL: free */
	struct push_status status;
	int64_t end_ms;
};

struct pushes {
	struct pushes_options options;
	char *spool_dir;
	uint64_t unpack_free; /* PUSH_RATIO_FREE; tests lower it */
	pthread_mutex_t lock;
	struct push *head;			 /* guarded by lock */
	struct push_ended ended[PUSH_ENDED_MAX]; /* guarded by lock; a ring */
	unsigned next_ended;			 /* guarded by lock */
	unsigned holds;				 /* guarded by lock: those of all pushes */
	struct wait_queue let_go;		 /* guarded by lock */
	bool stopping;				 /* guarded by lock */
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
	bool kept;		/* a temporary: nothing is published */
	struct push_reason why; /* of the flush under way */
	atomic_bool answered;	/* the store has, something of this flush or stream */

	unsigned refs;		   /* guarded by pushes->lock */
	unsigned holds;		   /* guarded by pushes->lock: of streams, which outlive refs */
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
	bool in_order;		    /* each write began where the one before it had ended */
	bool tried;		    /* to stream it */
	bool spent;		    /* confirmed, and its bytes are gone */
	/* Once there is one it stays, but for a truncation to nothing. */
	struct push_stream *stream;
};

/* Keeps the memory of PUSH, not its place in the lists. */
void push_hold(struct push *push);
void push_let_go(struct push *push);
/* The lock is held. Waits until nobody else writes or flushes. */
int push_await_turn(struct push *push, struct wait *wait);
/* The lock is held, and it is this thread's turn: push_judge() is due. */
void push_claim(struct push *push);
/* It was confirmed, and flushing keeps writers out: its bytes leave the spool. */
void push_spend(struct push *push);
/* The verdict, which is logged. What failed to get its name is a temporary again, if it was one. */
void push_judge(struct push *push, int err, bool was_kept);
void push_progress(struct push *push, int64_t bytes);
void push_sending(struct push *push, uint64_t total_bytes);

/* --- push_bytes.c --- */

/* Its stream, with a reference, or NULL. */
struct push_stream *push_hold_stream(struct push *push);
/* The push's own reference to its stream, which it then has no more; or NULL. */
struct push_stream *push_take_stream(struct push *push);
/* The lock is held. What a stream has sent stays sent. */
uint64_t push_done_before(const struct push *push);

/* --- push_spool.c --- */

/* An unlinked file in DIR, which is made if it is missing. A descriptor or a negative errno. */
int push_spool_open(const char *dir);
/* Gives the disk back what these bytes take, where it can. They read as zeros then. */
void push_spool_drop(int fd, uint64_t off, uint64_t len);
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
	bool streamed;	  /* it went while the archive was written */
};

struct push_part;
struct push_stream;

/* One flush. */
struct push_run {
	struct push *push;
	struct push_reason *why; /* where words go */
	struct wait *wait;	 /* the flush's own */
	int fd;			 /* the archive, not compressed */
	uint64_t size;
	const struct store_source *source; /* a layer that is made here, instead of .fd; or NULL */
	struct push_stream *stream;	   /* NULL: all is in the spool */
	struct push_part *part;	    /* whose run it is, while the archive is written; else NULL */
	struct push_layer **layers; /* those of docker save that are sent */
	size_t nlayers;
};

/* The whole of it: 0 when every manifest is confirmed, or, for a temporary, every blob. */
int push_images(struct push *push, struct wait *wait);
struct push_blob {
	const char *repo;
	const char *mount_from; /* or NULL */
	const struct digest *digest;
	const struct store_source *source;
	uint64_t share; /* of the push's total bytes */
};
/* Puts a blob that the store does not have yet, whole; .answered is filled in. */
int push_put(struct push *push, const char *repo, struct store_put *put, struct wait *wait);
/* Sends the blob unless the store has it. */
int push_send(struct push_run *run, const struct push_blob *blob, struct wait *wait);
/* The same in two steps: without a reason, for who may find a better one; and that. */
int push_offer(struct push_run *run, const struct push_blob *blob, struct wait *wait);
int push_fail_sending(struct push_run *run, const struct push_blob *blob, int err);

/* --- push_diff.c --- */

/* What a blob decodes to. */
struct push_inside {
	struct digest blob;
	struct digest diff_id;
	const char *flaw; /* why it cannot be decoded, a constant; NULL: it can */
};
struct push_insides {
	struct push_inside *list;
	size_t n;
};
struct push_diff;
/* Of the blob DIGEST, which SOURCE (borrowed, and not read by others) gives; FIXED: nobody can
 * change it meanwhile. Not decoded is one that the cache knows from before, one that is not
 * compressed, and, where PUSH believes layers, any. */
int push_diff_start(const struct push *push, const struct store_source *source,
		    const struct digest *digest, bool fixed, struct push_diff **ret);
/* Sees to it that it is done. A blob that cannot be decoded is no error. */
int push_diff_finish(struct push_diff *diff, struct wait *wait, struct push_inside *ret);
/* After that, where SOURCE was found to have the blob's digest: the cache keeps what was found. */
void push_diff_keep(struct push_diff *diff);
void push_diff_free(struct push_diff *diff);
void push_diff_cleanup(struct push_diff **diff);
#define AUTO_DIFF CLEANUP(push_diff_cleanup)
/* What SIZE bytes may unpack to, and the words for more. */
uint64_t push_unpacked_max(const struct pushes *pushes, uint64_t size);
#define PUSH_TOO_LARGE "it unpacks to more than any layer does"

/* --- push_verify.c --- */

/* -EINVAL, in words, where a layer among INSIDES is not what the image's CONFIG says. */
int push_verify(struct push_reason *why, const struct oci_manifest *manifest,
		const struct buf *config, const struct push_insides *insides);

/* --- push_checked.c --- */

/* Sends the archive's bytes AT as BLOB (whose source and share need not be set), if they have its
 * digest: -EINVAL, in words, if not. RET_INSIDE (may be NULL): what they decode to. */
int push_send_checked(struct push_run *run, const struct push_blob *blob,
		      const struct archive_blob *at, struct wait *wait,
		      struct push_inside *ret_inside);

/* --- push_archive.c --- */

/* Bytes of the archive that are there. Count or a negative errno, with its reason. */
ssize_t push_archive_read(struct push_run *run, uint64_t off, void *buf, size_t len);
/* The same where it may still be written: -EAGAIN: not there yet. */
ssize_t push_archive_peek(struct push_run *run, uint64_t off, void *buf, size_t len);
/* Waits until there are END bytes. */
int push_archive_await(struct push_run *run, uint64_t end, struct wait *wait);
/* All LEN bytes, which are waited for. 0 or a negative errno. */
int push_archive_take(struct push_run *run, uint64_t off, void *buf, size_t len, struct wait *wait);
/* A store_source of part of the archive, which may still be coming. ARG structures are the
 * caller's. */
struct push_archive_part {
	struct push_run *run;
	struct archive_blob at;
};
ssize_t push_archive_part_read(void *arg, uint64_t off, void *buf, size_t cap);
int push_archive_part_await(void *arg, uint64_t off, struct wait *wait);
/* A config, of which there is at most OCI_CONFIG_MAX. */
int push_archive_config(struct push_run *run, const struct archive_blob *at, struct buf *ret);
/* These bytes of a part are needed no more. */
void push_archive_passed(struct push_run *run, uint64_t off, uint64_t len);
/* The store has the whole part: its bytes may be looked at still, but keep no writer back. */
void push_archive_confirmed(struct push_run *run);
int push_archive_hash(struct push_run *run, const struct archive_blob *at, enum digest_algo algo,
		      struct digest *ret, struct wait *wait);

/* --- push_stream.c --- */

/*
 * An archive that is written in its order. Counted: the push's own reference, and one for each job.
 * The push outlives it.
 */
struct push_stream {
	struct push *push;
	int raw;  /* the spool */
	int data; /* the archive, not compressed: .raw, or a second spool */
	enum codec codec;
	struct decoder *decoder; /* the decoder's thread's */
	bool index_seen;	 /* the scanner's: index.json has passed */
	struct push_reason why;
	struct pool_work scan_work, decode_work;
	struct wait scan_wait, decode_wait;

	pthread_mutex_t lock;
	/* guarded by lock */
	struct wait_queue changed; /* any of what follows */
	unsigned refs;
	int error; /* the first; the stream is over */
	char error_text[PUSH_REASON_MAX];
	uint64_t written; /* bytes of .raw from the start on, without a gap */
	uint64_t decoded; /* bytes of .raw that the decoder has taken */
	uint64_t avail;	  /* bytes of .data that are there */
	bool data_ended;  /* no more of them come: the compressed stream is over */
	bool decode_idle; /* the decoder waits for bytes of .raw */
	bool decode_whole;
	uint64_t scan_off; /* what the scanner looks at next */
	bool scan_idle;	   /* it waits for that */
	bool scanned;	   /* the end marker was seen, and .table is there for good */
	struct archive_table *table;
	struct push_part **parts; /* in the order of the archive */
	size_t nparts;
	size_t first_open;    /* those before it are done */
	size_t next_part;     /* those before it were started */
	unsigned nrunning[2]; /* large ones, small ones */
};

/* Of the first SIZE bytes of PUSH's spool. Takes a hold on PUSH. */
int push_stream_new(struct push *push, uint64_t size, struct push_stream **ret);
struct push_stream *push_stream_ref(struct push_stream *stream);
void push_stream_unref(struct push_stream *stream);
void push_stream_cleanup(struct push_stream **stream);
#define AUTO_STREAM CLEANUP(push_stream_cleanup)
/* Calls everything off, and gives up the push's reference. Does not wait. */
void push_stream_abandon(struct push_stream *stream);
/* Ends it with ERR, and the words in WHY; the first counts. Returns ERR. */
int push_stream_fail(struct push_stream *stream, int err, struct push_reason *why);
/* Before a write: waits until there is room. -ESPIPE: what it would change was sent. */
int push_stream_room(struct push_stream *stream, uint64_t off, uint64_t len, struct wait *wait);
/* After it. */
void push_stream_wrote(struct push_stream *stream, uint64_t off, uint64_t len);
/* -ESPIPE, logged, if the byte at OFF was taken in: before a truncation, or a read. */
int push_stream_past(struct push_stream *stream, uint64_t off);
/* For a flush of SIZE bytes: waits until all that was written is looked at. 0: the archive is
 * whole, and its table there; parts may still be under way. -EINVAL: it is not finished. */
int push_stream_settle(struct push_stream *stream, uint64_t size, struct push_reason *why,
		       struct wait *wait);
/* Waits until there are END bytes of the archive. -EINVAL: it ends before. */
int push_stream_await(struct push_stream *stream, uint64_t end, struct wait *wait);
/* How many there are. */
uint64_t push_stream_avail(struct push_stream *stream);
void push_stream_drop(struct push_stream *stream, uint64_t off, uint64_t len);

/* --- push_part.c --- */

#define PUSH_PART_HEAD 512  /* bytes that tell what a member is */
#define PUSH_PARTS_MAX 4096 /* others are sent at the flush */

enum part_state { PART_QUEUED, PART_RUNNING, PART_DONE };
struct push_part {
	struct pool_work work;
	struct push_stream *stream;
	struct wait wait;
	struct push_run run;
	struct push_reason why; /* .err's */
	struct archive_blob at;
	bool is_blob;		   /* to be sent as it is; else a layer of docker save */
	struct digest named;	   /* of a blob */
	struct push_layer layer;   /* what was found, and sent */
	struct push_inside inside; /* of a blob */
	/* guarded by the stream's lock */
	enum part_state state;
	int err;
	uint64_t needed; /* its first byte that is not taken yet; UINT64_MAX: none */
};
/* The scanner has seen a file that begins with the LEN bytes of HEAD: a part, if it looks like one.
 */
int push_part_add(struct push_stream *stream, const struct archive_seen *seen, const char *head,
		  size_t len);
void push_part_free(struct push_part *part);
/* As many as may run. */
void push_parts_start(struct push_stream *stream);
void push_part_passed(struct push_part *part, uint64_t off, uint64_t len);
void push_part_confirmed(struct push_part *part);
/* For the flush: whether what is at AT is one. */
bool push_part_exists(const struct push_run *run, const struct archive_blob *at);
/* Waits until the part at AT is done. Borrowed from the stream. Its error, with the
 * reason; -ENOENT: there is none. */
int push_part_find(struct push_run *run, const struct archive_blob *at, struct push_part **ret);

/* --- push_restore.c --- */

/* Puts the blob WANTED, which LAYER was made from, into REPO, where LAYER is. */
int push_restore(struct push_run *run, const struct push_layer *layer, const char *repo,
		 const struct digest *wanted);

/* --- push_docker.c --- */

/* Sends config and layers of the delivery's image, and makes its manifest. */
int push_docker(struct push_run *run, struct push_delivery *delivery);

/* --- push_compress.c --- */

/* Brings one layer into REPO. Runs as a task. */
int push_layer_send(struct push_run *run, struct push_layer *layer, const char *repo,
		    struct wait *wait);
/* -EINVAL, in words, where FOUND is not the layer's diff ID. */
int push_layer_check(struct push_run *run, const struct push_layer *layer,
		     const struct digest *found);

#endif
