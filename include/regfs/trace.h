/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trace: which parts of an image's files were read, in the order of their first reads; as it grows,
 * and as bytes at rest.
 * Pure: no descriptor, no lock. Must not know why it is kept, nor what a layer is beyond its
 * number.
 *
 * Files are named by layer and inode, as a layer's index numbers them; a *tag* for each layer says
 * which numbering that is. Reads are rounded to units of TRACE_UNIT bytes. What the bytes at rest
 * say is not trusted: parsing checks every bound, and the worst that a wrong trace does is to name
 * parts that nobody wants.
 */
#ifndef REGFS_TRACE_H
#define REGFS_TRACE_H

#include "regfs/buf.h"

#define TRACE_UNIT	 (128 * KIB)
#define TRACE_PARTS_MAX	 4096
#define TRACE_UNITS_MAX	 8192 /* 1 GiB of files */
#define TRACE_LAYERS_MAX 512
#define TRACE_AGE_MAX	 3
#define TRACE_BYTES_MAX	 (96 * KIB) /* at rest */

/* Units UNIT … UNIT + COUNT - 1 of one file. */
struct trace_part {
	uint32_t ino;
	uint32_t unit, count;
	uint16_t layer;
	uint8_t age; /* runs since it was read */
};

struct trace {
	struct trace_part *parts;
	uint32_t nparts;
	uint32_t nunits;
	uint64_t tags[TRACE_LAYERS_MAX]; /* 0: not known */
	uint64_t *seen;			 /* trace.c's: the units that are in it */
};

/* NULL when memory is short. */
struct trace *trace_new(void);
void trace_free(struct trace *trace);
void trace_cleanup(struct trace **trace);
#define AUTO_TRACE CLEANUP(trace_cleanup)

/* Notes that LEN bytes at OFF of file INO of LAYER were read. True if some of that is new; what no
 * longer fits is left out. */
bool trace_add(struct trace *trace, uint16_t layer, uint32_t ino, uint64_t off, uint64_t len);
/* Whether any unit of PART is in it. */
bool trace_has(const struct trace *trace, const struct trace_part *part);
/* Adds behind its own what OLD has and this one has not, one run older; what grows older than
 * TRACE_AGE_MAX, or is of a layer whose tag is another by now, is forgotten. */
void trace_merge(struct trace *trace, const struct trace *old);

/* Appends it to RET. 0, -ENOMEM, -EFBIG (RET's max). */
int trace_write(const struct trace *trace, struct buf *ret);
/* 0, -EINVAL (no trace, or of another version), -ENOMEM. The caller frees *RET. */
int trace_parse(const void *data, size_t len, struct trace **ret);

#endif
