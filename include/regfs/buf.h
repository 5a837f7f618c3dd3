/* SPDX-License-Identifier: Apache-2.0 */
/*
 * buf: growing bytes with a cap from birth.
 * Knows memory. Must not know what the bytes mean.
 *
 * data[len] is always NUL once anything was added, so that text can be used as a
 * string; a fresh buf has data == NULL. Not thread-safe.
 */
#ifndef REGFS_BUF_H
#define REGFS_BUF_H

#include <stdarg.h>
#include <stddef.h>

#include "regfs/util.h"

struct buf {
	char *data;
	size_t len;
	size_t cap; /* allocated, not counting the NUL */
	size_t max; /* len never exceeds it */
};

#define BUF_INIT(max_bytes)                                                                        \
	{                                                                                          \
		.max = (max_bytes)                                                                 \
	}
#define AUTO_BUF CLEANUP(buf_release)

/* Frees the bytes; the buf can be used again. */
void buf_release(struct buf *buf);
/* Forgets the bytes and keeps the memory. */
void buf_clear(struct buf *buf);
/* Room for EXTRA more bytes. 0, -ENOMEM or -EFBIG (over max). */
int buf_reserve(struct buf *buf, size_t extra);
/* Append; on failure (-ENOMEM, -EFBIG) the buf is unchanged. */
int buf_add(struct buf *buf, const void *data, size_t len);
int buf_puts(struct buf *buf, const char *str);
int buf_printf(struct buf *buf, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Appends STR as a JSON string, with its quotes; bytes that are not UTF-8 become U+FFFD. */
int buf_json_string(struct buf *buf, const char *str);
/* Hands the memory to the caller (free it) and leaves an empty buf. NULL if empty. */
char *buf_steal(struct buf *buf, size_t *ret_len);

#endif
