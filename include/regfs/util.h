/* SPDX-License-Identifier: Apache-2.0 */
/*
 * util: ownership helpers, clocks and whole reads and writes.
 * Knows the C library. Must not know anything else of regfs.
 *
 * Include it last: it poisons the banned functions (banned.h).
 */
#ifndef REGFS_UTIL_H
#define REGFS_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define ARRAY_SIZE(a)			(sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)			((a) < (b) ? (a) : (b))
#define MAX(a, b)			((a) > (b) ? (a) : (b))
#define CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#define KIB 1024
#define MIB (1024 * 1024)

#define CLEANUP(fn)	       __attribute__((cleanup(fn)))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

static inline void free_cleanup(void *ptr)
{
	free(*(void **)ptr);
}

static inline void fd_cleanup(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void file_cleanup(FILE **file)
{
	if (*file)
		fclose(*file);
}

/* Freed, closed when the variable leaves its scope. */
#define AUTO_FREE   CLEANUP(free_cleanup)
#define AUTO_CLOSE  CLEANUP(fd_cleanup)
#define AUTO_FCLOSE CLEANUP(file_cleanup)

/* Hands the pointer in *VAR on and leaves NULL behind. */
#define STEAL(var)                                                                                 \
	({                                                                                         \
		__typeof__(var) stolen_ = (var);                                                   \
		(var) = NULL;                                                                      \
		stolen_;                                                                           \
	})

static inline int steal_fd(int *fd)
{
	int stolen = *fd;
	*fd = -1;
	return stolen;
}

/* Milliseconds of CLOCK_MONOTONIC; of CLOCK_REALTIME since the epoch. Any thread. */
int64_t now_ms(void);
int64_t wall_ms(void);

/*
 * All LEN bytes at OFF, EINTR and short counts retried. Return the count (short
 * only at the end of the file, for the read) or a negative errno.
 */
ssize_t pread_full(int fd, void *buf, size_t len, off_t off);
ssize_t pwrite_full(int fd, const void *buf, size_t len, off_t off);

/* mkdir -p: creates each missing component of PATH with MODE. 0 or a negative errno. */
int make_dirs(const char *path, mode_t mode);

/* A file without a name in DIR, which is made with DIR_MODE if it is missing: nothing is left of it
 * after a crash. A descriptor or a negative errno. */
int open_unnamed(const char *dir, mode_t dir_mode);

/* Reads the whole file into a fresh NUL-terminated string of at most MAX bytes
 * (-EFBIG beyond). The caller frees *RET. 0 or a negative errno. */
int read_file(const char *path, size_t max, char **ret, size_t *ret_len);
/* What proc(5) has in FILE of the process or thread ID: at most CAP - 1 bytes, and a NUL. Their
 * number, or -ENOENT. */
ssize_t read_proc(pid_t id, const char *file, char *buf, size_t cap);

/* A decimal number without sign that fills the whole string; false otherwise. */
bool parse_u64(const char *str, uint64_t *ret);

/* "10G", "512M", "64K", "123": binary multiples, as in mount options and -o size=.
 * 0 or -EINVAL. */
int parse_size(const char *str, uint64_t *ret_bytes);

bool starts_with(const char *str, const char *prefix);
bool ends_with(const char *str, const char *suffix);
/* Puts WITH in the place of each byte of a control character, those of C1 in UTF-8 too: so what
 * came from outside is one line, and drives no terminal. */
void replace_controls(char *text, char with);

/* A 64-bit hash with good low bits (inode numbers, hash tables); SEED chains calls.
 * Stable over versions: st_ino depends on it. */
uint64_t hash64(uint64_t seed, const void *data, size_t len);
/* A hash as an inode number: not 0 or 1, which mean something to others, and of 60 bits, so that
 * overlayfs has some left to tell its layers apart by (its option xino). */
uint64_t hash_to_ino(uint64_t hash);

/* vasprintf that returns NULL when memory is short. The caller frees. */
char *format(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* RFC 4648, section 4. The caller frees. NULL when memory is short. */
char *base64_encode(const void *data, size_t len);
/* The caller frees *RET, which has a NUL behind its *RET_LEN bytes. 0, -EINVAL, -ENOMEM. */
int base64_decode(const char *text, char **ret, size_t *ret_len);

/* Wipes a string that is a secret, frees it, and leaves NULL behind. */
void secret_free(char **secret);
#define AUTO_SECRET CLEANUP(secret_free)

#include "regfs/banned.h"

#endif
