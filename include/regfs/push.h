/* SPDX-License-Identifier: Apache-2.0 */
/*
 * push: spool, parse, upload, verdict.
 * Knows the spool directory, archives and stores. Must not know inodes.
 *
 * A push is one file under some _push/: bytes written in any order into a spool file
 * (unlinked at creation: nothing is left after a crash), which becomes an image when
 * push_flush() finds the archive whole. Blobs go in parallel, only those the store lacks; the
 * manifest last; then the tag names it. Any thread; operations on one push are serialised inside.
 *
 * An archive of one repository that is written in its order is sent while it is written, from 8 MiB
 * on: its layers are compressed and its blobs sent as they arrive, and dropped from the spool; the
 * writer is kept back where that cannot keep up. Then only the flush decides, as ever: before it no
 * manifest is sent. What was sent can be neither read nor written again (-ESPIPE); truncated to
 * nothing, the push begins anew. Images whose repositories stand in the archive (HOST/_push) are
 * sent at the flush. What is confirmed leaves the spool: it can be neither read again nor changed,
 * only written anew, from its first byte on.
 */
#ifndef REGFS_PUSH_H
#define REGFS_PUSH_H

#include "regfs/cache.h"
#include "regfs/codec.h"
#include "regfs/event.h"
#include "regfs/pool.h"
#include "regfs/store.h"

struct pushes;
struct push;

struct pushes_options {
	const char *spool_dir; /* created (0700) when first needed; copied */
	struct pool *jobs;     /* for parallel blobs and compression */
	struct events *events; /* tags that moved are published here */
	enum codec compress;   /* for layers that come uncompressed */
	int compress_level;    /* 0: the codec's default */
	/* Remembers what was seen of layers (layer_diff_id_find()); NULL: nothing does. */
	struct cache *cache;
	/* Layers that come with a manifest are not unpacked to see whether they are what the
	 * image's config says. */
	bool believe_layers;
	/* SOURCE_DATE_EPOCH: no file of a layer that is built is younger, and its image is so old;
	 * NULL: there is none. Borrowed. */
	const int64_t *source_date;
	/* Called when a tag was confirmed to name DIGEST, before push_flush() returns (may be
	 * NULL).
	 */
	void (*on_tag)(void *arg, struct store *store, const char *repo, const char *tag,
		       const struct digest *digest);
	void *arg;
};
struct pushes *pushes_new(const struct pushes_options *options);
/* Ends what is sent while it is written, and waits for that; nothing of it begins again. Before the
 * stores go. */
void pushes_stop(struct pushes *pushes);
void pushes_free(struct pushes *pushes);
const char *pushes_spool_dir(const struct pushes *pushes);

/* REPO and TAG, or both NULL: the archive names its images (HOST/_push). A temporary of a
 * repository has a REPO alone. LABEL is what _regfs/pushes shows. -ENOSPC … if the spool cannot be
 * had. */
int push_new(struct pushes *pushes, struct store *store, const char *repo, const char *tag,
	     const char *label, struct push **ret);
/* The last unref drops the spool. */
void push_unref(struct push *push);

/* Count, or -ENOSPC, -EFBIG, -EBUSY (while a flush is under way), -ESPIPE, or what sending it while
 * it is written failed with. A write after a verdict makes it unfinished again. Waits for room:
 * then also -EINTR, and -EWOULDBLOCK, having changed nothing. */
ssize_t push_write(struct push *push, uint64_t off, const void *buf, size_t len, struct wait *wait);
/* Count, or -ESPIPE. */
ssize_t push_read(struct push *push, uint64_t off, void *buf, size_t len);
int push_truncate(struct push *push, uint64_t size);
uint64_t push_size(const struct push *push);

/*
 * A close() or fsync(). An empty file: 0, nothing done. Unchanged since a verdict: the verdict
 * again. Not a whole archive: -EINVAL, kept. Else the images are pushed, and it returns the
 * store's verdict: 0 only after the store confirmed the manifest. -EINTR: called off before the
 * manifest was sent; the tag is as it was.
 */
int push_flush(struct push *push, struct wait *wait);

/*
 * Temporaries: push_keep() before the first write says that it is one. Its blobs are sent when it
 * is flushed, but no manifest; a flush fails as any does, and it stays. push_rename() publishes it,
 * under TAG (NULL: the names in the archive), and is the verdict; after an error it is a
 * temporary as before. -EINVAL: it is empty, or no whole archive. -EWOULDBLOCK, having changed
 * nothing, where WAIT may not block.
 */
void push_keep(struct push *push);
int push_rename(struct push *push, const char *tag, const char *label, struct wait *wait);

struct push_copy {
	struct store *store;
	const char *from_repo, *from; /* a tag, or "sha256:…" */
	const char *repo, *tag;
};
/*
 * Gives TAG of REPO the image that FROM names in FROM_REPO of the same store, byte for byte, all
 * its platforms included. Between two repositories blobs are mounted; where the store cannot, they
 * travel. 0 only after the store confirmed the manifest; the store's errors, logged, -ENOENT where
 * FROM names nothing. *RET: what TAG names by now.
 */
int push_copy(struct pushes *pushes, const struct push_copy *copy, struct wait *wait,
	      struct digest *ret);

#define PUSH_REASON_MAX 256
enum push_state { PUSH_WRITING, PUSH_CHECKING, PUSH_SENDING, PUSH_DONE, PUSH_FAILED };
struct push_status {
	enum push_state state;
	int verdict; /* DONE: 0; FAILED: the errno, negative */
	uint64_t done_bytes, total_bytes;
	char reason[PUSH_REASON_MAX]; /* FAILED: words; WRITING: what is missing */
};
void push_status(struct push *push, struct push_status *ret);

/* The text of _regfs/pushes: a line for each push, the ended ones of the last while included:
 * "LABEL DONE TOTAL STATE REASON\n". */
int pushes_text(struct pushes *pushes, struct buf *ret);

#endif
