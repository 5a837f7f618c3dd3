/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_priv: what the files of the fs room share: the session and the life of a request.
 *
 * A request lives on the session thread's stack while it is tried. If it has to wait, it is
 * copied to the heap with all it names (names, data, nodes held) and parked. It is answered exactly
 * once, by the thread that runs it: reply_*() or a negative errno returned by run().
 */
#ifndef REGFS_FS_PRIV_H
#define REGFS_FS_PRIV_H

#include <fuse_lowlevel.h>

#include "regfs/fs.h"
#include "regfs/inode.h"
#include "regfs/pool.h"
#include "regfs/stats.h"

struct request;
struct opens;
struct open_file;

struct fs {
	struct fs_options options;
	struct fuse_session *session;
	struct inodes *inodes;
	struct pool *pool; /* runs parked requests */
	bool no_opendir, can_no_open;
	atomic_bool no_open;
	bool can_passthrough;	      /* the kernel offers it */
	atomic_bool passthrough;      /* and we have it: open and release are seen */
	struct opens *opens;	      /* NULL without it */
	_Atomic uint64_t init_unique; /* of INIT until it is answered; the first thread's */
	bool mounted;
	atomic_bool begun;    /* a request after INIT was seen */
	pthread_key_t buffer; /* a read buffer for each session thread */
	pthread_mutex_t lock;
	struct request *parked; /* guarded by lock: to be cancelled at the end */
	bool ending;		/* guarded by lock */
	bool watching;		/* guarded by lock: watch is under way */
	struct pool_work watch;
};

struct request {
	struct pool_work work;
	struct fs *fs;
	fuse_req_t req;
	/* 0: answered. -EWOULDBLOCK: has to wait. Else the errno to answer with. */
	int (*run)(struct request *request);
	struct wait wait;
	struct call call;
	bool parked;
	bool watched; /* guarded by fs->lock: its INTERRUPT was passed over */
	bool closes;  /* run even if it was called off: what the close means has to be known */
	struct request *next, **link; /* in fs->parked */
	/* arguments, as the operation uses them */
	fuse_ino_t ino;
	struct open_file *file;
	struct node_ref ref, to_ref;
	const char *name, *to_name;
	const void *data;
	size_t data_len;
	size_t size;
	uint64_t off;
	int flags;
	mode_t mode;
	struct stat attr;
};

#define FS_BUFFER	      (1 * MIB) /* the largest read */
#define FS_MAX_PARKED_THREADS 2048

/* Fills in REQUEST, tries it, and parks it if it has to wait. */
void request_start(struct request *request, fuse_req_t req, fuse_ino_t ino,
		   int (*run)(struct request *request));
/* At the end of the session: calls off every parked request. */
void requests_cancel(struct fs *fs);
/* A buffer of FS_BUFFER bytes for a read: the thread's own, or fresh for a parked request
 * (*RET_OWNED, to be freed). NULL when memory is short. */
void *request_buffer(struct request *request, void **ret_owned);

/* Before any answer: no INTERRUPT comes in any more. */
void request_settle(struct request *request);
/* Answers; each returns 0. */
int reply_ok(struct request *request);
int reply_data(struct request *request, const void *data, size_t len);
int reply_size(struct request *request, size_t size);
int reply_attr(struct request *request, const struct node_attr *attr);
int reply_readlink(struct request *request, const char *target);
int reply_offset(struct request *request, int64_t off);
int reply_written(struct request *request, size_t len);
/* These take ENTRY's node reference, whatever happens. */
int reply_entry(struct request *request, struct node_entry *entry);
int reply_create(struct request *request, struct node_entry *entry);

/* ENTRY as libfuse wants it, its look-up counted (undo with inodes_forget). */
int entry_param(struct fs *fs, const struct node_entry *entry, struct fuse_entry_param *ret);

/* --- fs_interrupt.c --- */

/* The kernel's INTERRUPT of a parked request: calls it off, unless its caller goes on. Its lock in
 * libfuse is held. */
void request_interrupted(struct request *request);

/* --- fs_init.c --- */

/* Whether requests shall come over io_uring: asked for, and had by libfuse and kernel. */
bool fs_wants_uring(const struct fs *fs);
/* As the kernel has agreed. */
bool fs_has_uring(const struct fs *fs, const struct fuse_conn_info *conn);
#define FS_URING_OPTIONS ",io_uring,io_uring_q_depth=64"
/* Before the session is served: sees to what libfuse does not agree on with the kernel. */
int fs_watch_init(struct fs *fs);
/* While INIT is answered: true if passthrough is agreed on. */
bool fs_agree_passthrough(struct fs *fs, struct fuse_conn_info *conn);
/* Once INIT is answered. */
void fs_set_read_ahead(const struct fs *fs);

/* --- fs_open.c --- */

struct opens *opens_new(struct fs *fs);
/* Nothing more is started on the pool. NULL is fine, for both. */
void opens_end(struct opens *opens);
void opens_free(struct opens *opens);
/* LEN bytes of a file that was opened as FILE (NULL: not here) were read. */
void open_file_read(struct open_file *file, size_t len);
void fs_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);

extern const struct fuse_lowlevel_ops fs_ops; /* fs_ops.c */
void fs_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		   struct fuse_file_info *fi); /* fs_readdir.c */
void fs_op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		       struct fuse_file_info *fi);

#endif
