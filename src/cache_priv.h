/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache_priv: what the files of the cache room share.
 *
 *   cache_guard.c  the SIGBUS guard of mapped files
 *   cache_table.c  bookkeeping in the mapped table; no I/O, the caller holds the table's lock
 *   cache_check.c  building the lists anew from the entries, and checking the invariants
 *   cache_disk.c   the bytes of one entry: a slot of the arena, or a file
 *   cache_make.c   making, resizing and mending the directory at open
 *   cache_view.c   one opening of the directory: its descriptors, its map, the table's lock
 *   cache_peek.c   looking at an entry, and at its block, without the lock
 *   cache_evict.c  making room: eviction, and what dead processes left behind
 *   cache.c        the cache as a whole: open, the current view, any entry's read and store
 *   cache_blocks.c, cache_files.c, cache_admin.c   the public calls on blocks, on files, for people
 *   cache_copy.c  and those on files that are made in pieces and read by the kernel
 *
 * An entry stands for one block or one file. Entry I owns slot I of the arena for ever, so
 * there is no second allocator: a block lies in its entry's slot, an entry of a file leaves its
 * slot a hole. A file's name holds the entry's generation: two versions never share a name, the
 * table alone says which one counts, and nothing needs to be renamed.
 *
 * States of an entry
 *
 *   state    hash  list  on disk                     pages         who may change it
 *   FREE     no    free  nothing                     0             whoever holds the lock
 *   WRITING  no    busy  part of its bytes           as reserved   its owner
 *   LIVE     yes   lru   LEN bytes with CRC          as on disk    whoever holds the lock
 *   DOOMED   no    busy  perhaps still its bytes     as before     its owner
 *
 * An owner is a view of a process: a random number N, and a lock of the kernel's on byte N of the
 * table file for as long as it lives. (A pid would mean nothing in another container.) What a dead
 * owner left busy, any process may take over (cache_sweep).
 *
 * Transitions, all under the lock; the bytes are written and removed between them, without it
 *
 *   FREE    -> WRITING  cache_table_reserve: a new generation, its pages charged
 *   LIVE    -> WRITING  cache_table_reserve: the least recently used gives its slot to a block
 *                       of as many pages
 *   WRITING -> LIVE     cache_table_publish: all fields, then the seal
 *   WRITING -> DOOMED   the write failed, or its owner died
 *   LIVE    -> DOOMED   evicted, dropped, damaged, or displaced by a newer version
 *   DOOMED  -> FREE     cache_table_release: only after the slot was punched or the file unlinked
 *
 * Invariants (cache_table_check)
 *
 *   I1  an entry at or below head.fresh is in exactly the list of its state; those above were
 *       never used
 *   I2  exactly the LIVE entries are in the hash, each once, in the bucket of its key
 *   I3  no two LIVE entries have the same kind, key, block and pass
 *   I4  a LIVE entry's seal is the CRC of its sealed fields: one that was torn by a crash of the
 *       machine is told from a whole one
 *   I5  head.used_pages is the sum of pages over all entries, and what lies on the disk never
 *       exceeds it
 *   I6  head.live, blocks, files and busy count what they say
 *
 * The lock is one of the kernel's (fcntl, open file description), not a mutex in the map: it
 * falls with its owner whatever happens, a waiter is woken even if somebody truncates the table
 * under it (a futex there would sleep for ever), and nothing of it is left on disk after a
 * crash. What it cannot tell is that its last owner died half way: head.inside does.
 */
#ifndef REGFS_CACHE_PRIV_H
#define REGFS_CACHE_PRIV_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "regfs/cache.h"

#define CACHE_PAGE	  4096 /* what disk space is counted in */
#define CACHE_BLOCK_PAGES (CACHE_BLOCK / CACHE_PAGE)
#define CACHE_FILE_MAX	  (1024u * MIB)
#define CACHE_LIMIT_MIN	  (256ull * KIB)	 /* below it nothing is kept, and nothing made */
#define CACHE_LIMIT_MAX	  (8192ull * 1024 * MIB) /* ext4 ends a file at 16 TiB */
#define CACHE_LIMIT	  (10ull * 1024 * MIB)	 /* where nobody named one */

/* --- guard --- */

/* Accesses to [ADDR, ADDR + LEN), a shared map of a file, no longer end the process when the
 * file is cut short: they read zeros, and the flag that is returned is set. PROT is the map's.
 * NULL when memory is short. The map must stay until cache_guard_remove. */
bool *cache_guard_add(const void *addr, size_t len, int prot);
/* Call it before munmap. NULL is fine. */
void cache_guard_remove(bool *broken);
static inline bool cache_guard_broken(const bool *broken)
{
	return __atomic_load_n(broken, __ATOMIC_RELAXED);
}

/* --- table --- */

enum cache_state { CACHE_FREE, CACHE_WRITING, CACHE_LIVE, CACHE_DOOMED };

struct cache_entry {
	/* sealed */
	uint8_t key[DIGEST_KEY_LEN];
	uint64_t gen;	/* never used twice; part of a file's name */
	uint64_t pass;	/* 0: ordinary */
	uint64_t crc;	/* of the content */
	uint32_t block; /* 0 for a file */
	uint32_t len;
	uint32_t pages;
	uint16_t kind;
	uint16_t state;
	/* not sealed */
	uint64_t seal;			/* 0 unless LIVE */
	uint64_t owner;			/* of a busy one; 0: given up */
	uint32_t hash_next, prev, next; /* entries count from 1; 0 ends a list */
	/* Seconds of the last use, for the LRU order after a rebuild; the lowest bit says instead
	 * that it was used without the lock since it was put where it stands in the list. */
	uint32_t stamp;
};

struct cache_list {
	uint32_t first, last;
};

#define CACHE_MAGIC   0x6568636163736672ull /* "rfscache" */
#define CACHE_VERSION 1

/* The first page of the table; entries and then buckets follow it. */
struct cache_head {
	/* fixed when the table is made */
	uint64_t magic;
	uint32_t version, entry_size;
	uint32_t n; /* entries, and as many buckets */
	uint32_t pad;
	uint64_t hash_seed;
	/* changes only while one process has the directory open */
	uint64_t boot; /* which boot of the machine it was last used in */
	uint64_t limit_bytes;
	uint64_t capacity_pages; /* for content: the limit without table and reserve */
	/* under the lock */
	uint32_t inside;  /* set while the lock is held */
	uint32_t suspect; /* a list made no sense: rebuild at the next lock */
	uint64_t gen;
	uint64_t used_pages;
	uint32_t fresh; /* the highest entry ever used */
	uint32_t live, blocks, files, busy;
	uint32_t free_first;	    /* singly linked by next */
	struct cache_list lru_list; /* first: the most recently used */
	struct cache_list busy_list;
};

struct cache_table {
	struct cache_head *head;
	struct cache_entry *entry;
	uint32_t *bucket;
	/* this process's copies: a damaged head must not lead out of the map */
	uint32_t n;
	uint64_t hash_seed;
};

#define CACHE_STAMP_USED 1u

/* A copy of an entry, and where it stood. */
struct cache_hit {
	uint32_t index;
	struct cache_entry entry;
};

/* DOOMED entries whose bytes are to be removed by the holder of the batch. */
#define CACHE_BATCH 16
struct cache_batch {
	unsigned len;
	struct cache_hit hit[CACHE_BATCH];
};

size_t cache_table_bytes(uint32_t n);
/* The table at MAP, of cache_table_bytes(N). */
void cache_table_init(struct cache_table *table, void *map, uint32_t n);
/* NULL for 0 and for what is out of range. */
struct cache_entry *cache_table_at(const struct cache_table *table, uint32_t index);
/* 0: none. The first wants exactly PASS, the second any. */
uint32_t cache_table_find(struct cache_table *table, const struct cache_id *id, uint32_t block,
			  uint64_t pass);
uint32_t cache_table_find_any(struct cache_table *table, const struct cache_id *id, uint32_t block);
void cache_table_touch(struct cache_table *table, uint32_t index);
/* Takes an entry and PAGES pages for OWNER. The new entry's identity is WANT's. 0; -ENOSPC: nothing
 * can give way; -EAGAIN: BATCH (empty before) was doomed to make room: discard it, come again. */
int cache_table_reserve(struct cache_table *table, const struct cache_entry *want, uint64_t owner,
			struct cache_batch *batch, struct cache_hit *ret);
/* HIT, as reserve returned it, becomes LIVE; what it displaces is added to BATCH. -ESTALE if it
 * was taken away. -EEXIST (the block is there already): HIT itself is added to BATCH. */
int cache_table_publish(struct cache_table *table, const struct cache_hit *hit, uint64_t owner,
			struct cache_batch *batch);
/* LIVE or WRITING to DOOMED (or DOOMED, to another owner), added to BATCH, which must have room. */
void cache_table_doom(struct cache_table *table, uint32_t index, uint64_t owner,
		      struct cache_batch *batch);
/* Dooms the least recently used until at most PAGES are used or BATCH is full. */
void cache_table_shrink(struct cache_table *table, uint64_t pages, uint64_t owner,
			struct cache_batch *batch);
/* The tentative entry becomes ordinary, or is doomed if there is an ordinary one. */
void cache_table_commit(struct cache_table *table, uint32_t index, uint64_t owner,
			struct cache_batch *batch);
/* DOOMED to FREE. */
void cache_table_release(struct cache_table *table, uint32_t index);

static inline bool cache_kind_is_block(unsigned kind)
{
	return kind == CACHE_BLOB || kind == CACHE_DECODED || kind == CACHE_CHUNK;
}

static inline bool cache_kind_is_file(unsigned kind)
{
	return (kind >= CACHE_MANIFEST && kind <= CACHE_TOC) || kind == CACHE_COPY ||
	       kind == CACHE_TRACE || kind == CACHE_DIFF_ID;
}

static inline uint32_t cache_pages(size_t len)
{
	return (uint32_t)((len + CACHE_PAGE - 1) / CACHE_PAGE);
}

void cache_entry_id(const struct cache_entry *entry, struct cache_id *ret);
uint64_t cache_entry_seal(const struct cache_entry *entry);
/* The table lies on the same disk as the content, and is trusted no more. */
static inline bool cache_entry_is_sealed(const struct cache_entry *entry)
{
	return entry->seal == cache_entry_seal(entry);
}
/* Steps that rebuilding shares with the transitions above. */
void cache_table_push_lru(struct cache_table *table, uint32_t index);
void cache_table_push_busy(struct cache_table *table, uint32_t index);
void cache_table_push_free(struct cache_table *table, uint32_t index);
void cache_table_hash(struct cache_table *table, uint32_t index);
uint32_t cache_table_bucket(const struct cache_table *table, const struct cache_id *id,
			    uint32_t block);

/* Lists, hash and sums anew from the entries. ALONE: no other process has the table, so what
 * is WRITING or tentative is dead; every entry is looked at, not only those up to fresh. */
void cache_table_rebuild(struct cache_table *table, bool alone);
/* 0, -EIO (logged by the caller with *RET_WHY, a constant), -ENOMEM. */
int cache_table_check(const struct cache_table *table, const char **ret_why);

/* --- view: one opening of the directory --- */

struct cache_view {
	atomic_uint refs;
	const char *dir; /* the cache's */
	int dir_fd, table_fd, arena_fd, files_fd;
	void *map;
	size_t map_len;
	bool *broken;	      /* the guard's: the table was cut short */
	const uint8_t *arena; /* mapped for reading; NULL: it is not */
	size_t arena_len;
	bool *arena_broken;
	pthread_mutex_t mutex;	  /* the process's threads, before the kernel's lock */
	struct cache_table table; /* what it points to: under mutex and the lock */
	/* under mutex */
	int lock_fd;
	pid_t pid;	/* whose lock_fd and owner these are: fork() makes another */
	uint64_t owner; /* see the states above */
	bool rebuilt;
	bool stuck, freed; /* the lock was not to be had in time; it is now, again */
	int64_t lock_ms;   /* CACHE_LOCK_MS; tests shorten it */
};
#define CACHE_LOCK_MS 3000 /* its holder needs microseconds, and may have to wait for a processor  \
			    */

/* DIR is absolute and outlives the view. LIMIT_BYTES 0: as the directory has it. 0 or a negative
 * errno, logged. */
int cache_view_open(const char *dir, uint64_t limit_bytes, struct cache_view **ret);
void cache_view_ref(struct cache_view *view);
void cache_view_unref(struct cache_view *view);
void cache_view_cleanup(struct cache_view **view);
#define AUTO_VIEW CLEANUP(cache_view_cleanup)
/* Is the directory at its path still this one, and whole? */
bool cache_view_current(const struct cache_view *view);
/* 0, or -ESTALE: the view is broken, or another process keeps the lock (logged); it is not held. */
int cache_view_lock(struct cache_view *view);
void cache_view_unlock(struct cache_view *view);

/* One lock of the byte AT of FD: TYPE is F_RDLCK, F_WRLCK or F_UNLCK. 0; -EAGAIN: another has had
 * it for WAIT_MS; or a negative errno. */
int cache_lock_byte(int fd, short type, off_t at, int64_t wait_ms);
bool cache_lock_is_held(int fd, off_t at);
/* Bytes of the table file that stand for something. */
#define CACHE_LOCK_TABLE 0	     /* the critical section */
#define CACHE_LOCK_USE	 1	     /* shared by all who have it open */
#define CACHE_LOCK_OWNER (1ll << 32) /* and above: an owner that lives */

/* --- peek: without the lock --- */

/* The ordinary entry of BLOCK, if it can be told without the lock; it counts as used. False says
 * nothing. */
bool cache_peek(struct cache_view *view, const struct cache_id *id, uint32_t block,
		struct cache_hit *ret);
/* SPAN of HIT's block, out of the map of the arena; the whole block is checked. The count; -EAGAIN:
 * the entry has changed meanwhile, look it up again; -EBADMSG; -ENOSYS: there is no map. */
struct cache_span {
	void *buf;
	size_t off, len;
};
ssize_t cache_peek_read(struct cache_view *view, const struct cache_hit *hit,
			const struct cache_span *span);

/* --- make: what opening does to the directory; under its opening lock --- */

/* Opens table, arena and files of VIEW in the directory at dir_fd; makes them if they are
 * missing or make no sense, and resizes them if nobody else has them open. STALE: the entries
 * need cache_mend. 0 or a negative errno, logged. */
struct cache_made {
	uint32_t n;
	bool stale;
};
int cache_make(struct cache_view *view, uint64_t limit_bytes, struct cache_made *ret);
/* After a reboot or a resize, with VIEW usable and alone: builds the lists anew, and removes the
 * bytes that no entry stands for. */
void cache_mend(struct cache_view *view);
/* Which boot of the machine this is. */
uint64_t cache_boot(void);

/* --- disk: the bytes of one entry --- */

/* 0 or a negative errno. LEN is entry.len. */
int cache_disk_write(struct cache_view *view, const struct cache_hit *hit, const void *data);
/* All entry.len bytes into BUF, CRC checked. 0; -EBADMSG: other bytes; -ENOENT … */
int cache_disk_read(struct cache_view *view, const struct cache_hit *hit, void *buf);
/* Makes the file of HIT, empty. A descriptor, or a negative errno. */
int cache_disk_create(struct cache_view *view, const struct cache_hit *hit);
/* Opens the file of HIT. A descriptor, or a negative errno. */
int cache_disk_open(struct cache_view *view, const struct cache_hit *hit);
/* Punches or unlinks. 0 also if there was nothing. */
int cache_disk_discard(struct cache_view *view, const struct cache_hit *hit);
uint64_t cache_crc(const void *data, size_t len);
/* CRC is that of what came before DATA. */
uint64_t cache_crc_more(uint64_t crc, const void *data, size_t len);
/* The directory of KIND under files/; NULL if it has none. */
const char *cache_kind_dir(unsigned kind);
/* KEY and generation as a file is named, and back. */
#define CACHE_NAME_LEN (2 * DIGEST_KEY_LEN + 1 + 16)
void cache_name_format(const struct cache_entry *entry, char out[static CACHE_NAME_LEN + 1]);
bool cache_name_parse(const char *name, uint8_t ret_key[static DIGEST_KEY_LEN], uint64_t *ret_gen);

/* --- evict --- */

/* Removes the bytes of a batch, and frees its entries where that worked; empties it. 0, or the
 * negative errno of one that stays DOOMED (logged). */
int cache_discard(struct cache_view *view, struct cache_batch *batch);
/* cache_table_reserve with eviction until it is there. -ENOSPC: WANT is larger than all that could
 * go; -EBUSY: others were quicker; or why nothing could be removed. */
int cache_reserve(struct cache_view *view, const struct cache_entry *want, struct cache_hit *ret);
/* Dooms and discards HIT, LIVE or being written by us, if it is still what it was; else false. */
bool cache_drop_hit(struct cache_view *view, const struct cache_hit *hit);
/* Evicts until at most PAGES are used. 0 or a negative errno: it could not. */
int cache_shrink(struct cache_view *view, uint64_t pages);
/* Frees what dead processes were writing or removing. */
void cache_sweep(struct cache_view *view);

/* --- cache --- */

/* A copy (cache_copy.c) whose CRC was right, and that nobody has written to since. */
#define CACHE_STAMPS	1024
#define CACHE_SETTLE_MS 2000 /* by then a write shows in the ctime, however coarse its clock */
struct cache_stamp {
	uint64_t gen, ino;
	struct timespec ctime;
};

struct cache {
	pthread_mutex_t stamps_lock;
	struct cache_stamp stamps[CACHE_STAMPS]; /* by generation; under stamps_lock */
	int64_t settle_ms;			 /* CACHE_SETTLE_MS; tests shorten it */
	char *dir; /* absolute: the process may change its directory */
	uint64_t limit_bytes;
	_Atomic int64_t next_check_ms;	   /* is the directory still there? */
	_Atomic int64_t off_until_ms;	   /* no writes before that: the disk was full */
	_Atomic(struct cache_view *) view; /* NULL: off */
	atomic_uint entering;		   /* threads between seeing a view and holding it */
};

/* A reference to the current view; NULL while the cache is off. */
struct cache_view *cache_get_view(struct cache *cache);
/* The ordinary entry, else PASS's (if not 0); it counts as used. 0, -ENOENT. */
int cache_look_up(struct cache_view *view, const struct cache_id *id, uint32_t block, uint64_t pass,
		  struct cache_hit *ret);
/* Reading HIT's bytes ended with ERR. What is damaged is dropped, counted and logged. 0; -ENOENT: a
 * miss; -EAGAIN: the entry has changed meanwhile, look it up again. */
int cache_judge(struct cache_view *view, const struct cache_hit *hit, int err);
#define CACHE_READ_TRIES 4 /* for an entry that is replaced again and again */
/* Reads all of HIT into BUF (entry.len bytes), and judges it. */
int cache_read_hit(struct cache_view *view, const struct cache_hit *hit, void *buf);
/* What cache_store wants: an ordinary entry; set its pass for a tentative one. */
struct cache_entry cache_want(const struct cache_id *id, uint32_t block, size_t len);
/* Keeps WANT's len bytes at DATA. 0 or a negative errno: it is not kept. */
int cache_store(struct cache *cache, struct cache_entry *want, const void *data);
/* The same; WRITE brings HIT's bytes onto the disk and sets its CRC. */
typedef int cache_write_fn(struct cache_view *view, struct cache_hit *hit, const void *arg);
int cache_store_by(struct cache *cache, struct cache_entry *want, cache_write_fn *write,
		   const void *arg);

#endif
