/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ztoc_flat: what a ztoc needs of FlatBuffers (https://flatbuffers.dev/internals/), read in place.
 * Knows the encoding. Must not know the schema.
 *
 * Offsets are followed only within the bytes, so that any input is safe. A field that is not there,
 * or not within its table, has the default: 0, or the empty string or vector.
 */
#ifndef REGFS_ZTOC_FLAT_H
#define REGFS_ZTOC_FLAT_H

#include "regfs/util.h"

struct flat {
	const uint8_t *data;
	uint32_t len; /* below 2^31 */
};

struct flat_table {
	uint32_t pos, vtable;
	uint16_t len, vtable_len;
};

struct flat_vector {
	uint32_t pos; /* of its first element */
	uint32_t len; /* elements */
};

struct flat_text {
	const char *at; /* NUL-terminated */
	uint32_t len;
};

bool flat_root(const struct flat *flat, struct flat_table *ret);
uint8_t flat_u8(const struct flat *flat, const struct flat_table *table, unsigned field,
		uint8_t absent);
uint32_t flat_u32(const struct flat *flat, const struct flat_table *table, unsigned field);
uint64_t flat_u64(const struct flat *flat, const struct flat_table *table, unsigned field);

/* True and *RET, or it leads out of the bytes. */
/* A field that is a table: it must be there. */
bool flat_table(const struct flat *flat, const struct flat_table *table, unsigned field,
		struct flat_table *ret);
bool flat_vector(const struct flat *flat, const struct flat_table *table, unsigned field,
		 size_t element, struct flat_vector *ret);
/* A string without a NUL in it, or with (flat_bytes). */
bool flat_text(const struct flat *flat, const struct flat_table *table, unsigned field,
	       struct flat_text *ret);
bool flat_bytes(const struct flat *flat, const struct flat_table *table, unsigned field,
		struct flat_text *ret);
/* Element N of VECTOR, which has that many. */
bool flat_table_of(const struct flat *flat, const struct flat_vector *vector, uint32_t n,
		   struct flat_table *ret);
bool flat_text_of(const struct flat *flat, const struct flat_vector *vector, uint32_t n,
		  struct flat_text *ret);

#endif
