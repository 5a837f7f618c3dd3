/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache: blocks and small files by digest on disk, least recently used first out, within a
 * hard byte limit, shared by any number of processes.
 * Knows one directory. Must not know the network, nor what the bytes are.
 *
 * Layout (mode 0700):
 *   lock     empty; held while the directory is being opened
 *   table    a fixed-size, preallocated, mapped file: header, hash table, entries, one LRU list,
 *            guarded by a lock of the kernel's that falls with its holder; put in order when
 *            a process died holding it, made anew when it makes no sense
 *   arena    a sparse file of slots of CACHE_BLOCK bytes; evicted slots are punched out
 *   files/   KIND/<64 hex>-<generation>: small objects as files that can be mapped
 *
 * The limit covers all of it, directories too (du -s never says more).
 *
 * Every block and file carries a CRC-64 that is checked on each read: what does not
 * match is dropped, counted, logged, and is a miss. So a crash at any point needs no repair. A
 * full disk (ENOSPC, EDQUOT, EROFS, EIO on write) turns writes off for a while, never reads. A
 * directory that was deleted or replaced under a running mount is noticed and made again.
 *
 * TENTATIVE blocks were written before their blob's digest was known to be right. Only the
 * process that wrote them may ask for them (with the same PASS number); they
 * become ordinary by cache_commit(), and are dropped by cache_drop() or eviction.
 *
 * All functions: any thread. None waits for anything but the disk, and, once, some seconds for a
 * process that was stopped at the wrong moment (then it is all but off until that goes on); no lock
 * is held across I/O (a reader copies, then checks CRC and key again). After a fork() that no other
 * thread's call ran beside, parent and child may both go on using the cache: it can be opened
 * before going to the background.
 */
#ifndef REGFS_CACHE_H
#define REGFS_CACHE_H

#include "regfs/buf.h"
#include "regfs/digest.h"

#define CACHE_BLOCK    (128 * KIB)
#define CACHE_COPY_MAX (256 * MIB) /* it is checked as a whole when it is opened */

enum cache_kind {
	CACHE_BLOB = 1,	    /* blocks of a blob as stored in the registry */
	CACHE_DECODED = 2,  /* blocks of a layer's decoded output, where no points serve */
	CACHE_MANIFEST = 3, /* file: a manifest's or small blob's bytes */
	CACHE_INDEX = 4,    /* file: a layer's index */
	CACHE_SUMS = 5,	    /* file: a blob's block sums */
	CACHE_NAME = 6, /* file: the last known answer about a name; the id is a hash of the name */
	CACHE_TOC = 7,	/* file: an index made from a table of contents */
	CACHE_CHUNK = 8,  /* blocks of a decoded chunk of a file; the id is a hash of its digest and
			     length */
	CACHE_COPY = 9,	  /* file: all bytes of a file of a layer, for the kernel to read; the id is
			      a hash of which */
	CACHE_TRACE = 10, /* file: what was read of an image; the id is of its digest */
	CACHE_DIFF_ID = 11, /* file: what a layer's blob decodes to */
};

struct cache_id {
	enum cache_kind kind;
	uint8_t key[DIGEST_KEY_LEN];
};

struct cache;

/* DIR is created (0700) if missing. LIMIT_BYTES 0: what the directory has, else 10 GiB; below
 * 256 KiB nothing is kept or made. While others have it open, their limit stays (logged); else it
 * grows or shrinks to LIMIT_BYTES and keeps what fits. 0; -EACCES, -ENOTDIR, -EROFS, -EOPNOTSUPP (a
 * file system that cannot punch holes) …: unusable, with the sentence logged. A full disk is no
 * error: nothing is kept until there is room. */
int cache_open(const char *dir, uint64_t limit_bytes, struct cache **ret);
/* NULL is fine. */
void cache_close(struct cache *cache);

/* --- blocks: BLOCK counts CACHE_BLOCK-sized pieces of the object from 0 --- */

/* Reads up to LEN bytes at OFF within the block (the whole block is checked). Returns
 * the count (short at the block's end; 0 past it), or -ENOENT, and then BUF may hold
 * anything. PASS 0: only ordinary blocks; else also tentative ones of that pass. */
ssize_t cache_read(struct cache *cache, const struct cache_id *id, uint32_t block, size_t off,
		   void *buf, size_t len, uint64_t pass);
bool cache_has(struct cache *cache, const struct cache_id *id, uint32_t block);
/* Stores a block (at most CACHE_BLOCK bytes). PASS 0: verified; else tentative under that
 * pass. 0, or a negative errno that only means it is not kept (-ENOSPC …). A verified
 * block that is there already is left alone. */
int cache_write(struct cache *cache, const struct cache_id *id, uint32_t block, const void *data,
		size_t len, uint64_t pass);
/* A number for a pass, unlike any other in any process. */
uint64_t cache_pass_new(struct cache *cache);
/* Blocks 0 … NBLOCKS - 1 of the pass become ordinary; those that were evicted stay out. */
void cache_commit(struct cache *cache, const struct cache_id *id, uint32_t nblocks, uint64_t pass);
/* Drops blocks 0 … NBLOCKS - 1: those of PASS, or (PASS 0) all. */
void cache_drop(struct cache *cache, const struct cache_id *id, uint32_t nblocks, uint64_t pass);

/* --- files --- */

/* Atomically replaces. 0 or a negative errno that only means it is not kept. */
int cache_put(struct cache *cache, const struct cache_id *id, const void *data, size_t len);
/* Appends the whole, CRC checked, to RET (its max is the cap). 0, -ENOENT, -EFBIG, -ENOMEM. */
int cache_get(struct cache *cache, const struct cache_id *id, struct buf *ret);
/* Maps it read-only, CRC checked once here. 0 or -ENOENT. Stays valid after eviction. A file cut
 * short under the map reads as zeros and sets *broken (a SIGBUS guard), it never ends the process.
 */
struct cache_map {
	const uint8_t *data;
	size_t len;
	size_t map_len; /* the cache's */
	bool *broken;	/* the cache's; look at it after using the bytes */
};
int cache_map(struct cache *cache, const struct cache_id *id, struct cache_map *ret);
void cache_unmap(struct cache_map *map);
/* Makes a file of LEN bytes (at most CACHE_COPY_MAX) out of what FILL gives, piece by piece in
 * order: all LEN bytes at OFF, or a negative errno, which ends it. 0, or a negative errno that only
 * means it is not kept. */
typedef int cache_fill_fn(void *arg, uint64_t off, void *buf, size_t len);
int cache_put_by(struct cache *cache, const struct cache_id *id, uint64_t len, cache_fill_fn *fill,
		 void *arg);
/* A descriptor of the file, for reading: its CRC is checked now, unless that was done before and
 * the file was not written since (by its ctime); what is read of it later is not checked. It stays
 * valid after eviction. -ENOENT. */
int cache_open_file(struct cache *cache, const struct cache_id *id);
/* Removes it. */
void cache_remove(struct cache *cache, const struct cache_id *id);

/* --- for people --- */

struct cache_info {
	uint64_t limit_bytes, used_bytes;
	uint64_t entries, blocks, files;
	bool writable; /* false while a full disk has it turned off */
};
void cache_info(struct cache *cache, struct cache_info *ret);
/* Evicts until at most BYTES are used. 0, or why nothing can be removed. */
int cache_prune(struct cache *cache, uint64_t bytes);
/* Reads every block and file and drops what is damaged. */
int cache_verify(struct cache *cache, uint64_t *ret_checked, uint64_t *ret_dropped);
/* Each object of KIND that has at least one entry, once. FN's non-zero stops. */
int cache_each(struct cache *cache, enum cache_kind kind,
	       int (*fn)(void *arg, const struct cache_id *id), void *arg);

/* Walks the table and checks that lists, hash and byte counts agree (debug and tests). 0 or -EIO.
 */
int cache_check(struct cache *cache);

#endif
