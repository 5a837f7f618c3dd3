/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ztoc_out: the parts of a FlatBuffer (https://flatbuffers.dev/internals/), written front to back.
 * For src/ztoc*.c only.
 *
 * References lead forwards only, so a table comes before what it refers to: it is written with
 * zeros, and its fields are set as what they mean is known. Only that from a table to its vtable
 * may lead backwards: one vtable serves all tables of a kind.
 *
 * A vtable is written as the specification has it: its own length, the table's length, and where in
 * the table each field lies (0: it is not there), 16 bits each.
 */
#ifndef REGFS_ZTOC_OUT_H
#define REGFS_ZTOC_OUT_H

#include "regfs/buf.h"

/* What is appended to BUF from BASE on; places are counted from there. Once something failed,
 * nothing more is written. */
struct flat_out {
	struct buf *buf;
	size_t base;
	int err; /* 0, -ENOMEM, -EFBIG */
};

#define FLAT_TABLE_MAX 128 /* bytes of a table */

/* How much was written. */
size_t out_pos(const struct flat_out *out);
void out_bytes(struct flat_out *out, const void *data, size_t len);
void out_align(struct flat_out *out, size_t to);
void out_u32(struct flat_out *out, uint32_t value);
/* The field at AT of what was written. */
void out_set32(struct flat_out *out, size_t at, uint32_t value);
void out_set64(struct flat_out *out, size_t at, uint64_t value);
/* The reference at AT leads to what is written next, which begins with four bytes. */
void out_refer(struct flat_out *out, size_t at);
/* Each returns where it begins. */
size_t out_vtable(struct flat_out *out, const uint16_t *vtable);
/* A table of LEN bytes, whose fields are 0, and which may have some of eight bytes. */
size_t out_table(struct flat_out *out, size_t vtable_at, size_t len);
/* A vtable and a table of it, that the reference at FROM leads to. */
size_t out_table_of(struct flat_out *out, size_t from, const uint16_t *vtable);
/* A string or a vector of bytes, that the reference at FROM leads to; with a NUL behind it. */
void out_string(struct flat_out *out, size_t from, const void *data, size_t len);
void out_text(struct flat_out *out, size_t from, const char *text);
/* A vector of N references, that are to be set; returns where the first of them is. */
size_t out_references(struct flat_out *out, size_t from, size_t n);

#endif
