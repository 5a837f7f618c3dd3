// SPDX-License-Identifier: Apache-2.0
/*
 * ztoc_flat: tables, vectors and strings of a FlatBuffer. See ztoc_flat.h.
 *
 * Places are kept below the length, which is below 2^31: their sums never wrap in 64 bits, and each
 * load is within the bytes.
 */
#include "ztoc_flat.h"

#include <endian.h>

static bool within(const struct flat *flat, uint64_t pos, uint64_t len)
{
	return pos <= flat->len && len <= flat->len - pos;
}

/* The caller knows that they are there. */
static uint16_t load16(const struct flat *flat, uint32_t pos)
{
	uint16_t value;

	memcpy(&value, flat->data + pos, sizeof(value));
	return le16toh(value);
}

static uint32_t load32(const struct flat *flat, uint32_t pos)
{
	uint32_t value;

	memcpy(&value, flat->data + pos, sizeof(value));
	return le32toh(value);
}

static uint64_t load64(const struct flat *flat, uint32_t pos)
{
	uint64_t value;

	memcpy(&value, flat->data + pos, sizeof(value));
	return le64toh(value);
}

/* Where the offset at POS leads: 0, which no offset can mean, if that is nowhere. */
static uint32_t follow(const struct flat *flat, uint32_t pos)
{
	uint64_t to = (uint64_t)pos + load32(flat, pos);

	return to < flat->len ? (uint32_t)to : 0;
}

static bool table_at(const struct flat *flat, uint32_t pos, struct flat_table *ret)
{
	if (pos == 0 || !within(flat, pos, sizeof(int32_t)))
		return false;
	int64_t vtable = (int64_t)pos - (int32_t)load32(flat, pos);
	if (vtable < 0 || !within(flat, (uint64_t)vtable, 2 * sizeof(uint16_t)))
		return false;
	struct flat_table table = {
		.pos = pos,
		.vtable = (uint32_t)vtable,
		.vtable_len = load16(flat, (uint32_t)vtable),
		.len = load16(flat, (uint32_t)vtable + sizeof(uint16_t)),
	};
	if (!within(flat, table.vtable, table.vtable_len) || !within(flat, table.pos, table.len))
		return false;
	*ret = table;
	return true;
}

/* Where FIELD, of LEN bytes, lies; 0: it is not there. */
static uint32_t field_at(const struct flat *flat, const struct flat_table *table, unsigned field,
			 size_t len)
{
	size_t slot = (2 + (size_t)field) * sizeof(uint16_t);

	if (slot + sizeof(uint16_t) > table->vtable_len)
		return 0;
	uint16_t off = load16(flat, table->vtable + (uint32_t)slot);
	return off && off + len <= table->len ? table->pos + off : 0;
}

bool flat_root(const struct flat *flat, struct flat_table *ret)
{
	return within(flat, 0, sizeof(uint32_t)) && table_at(flat, follow(flat, 0), ret);
}

uint8_t flat_u8(const struct flat *flat, const struct flat_table *table, unsigned field,
		uint8_t absent)
{
	uint32_t at = field_at(flat, table, field, sizeof(uint8_t));

	return at ? flat->data[at] : absent;
}

uint32_t flat_u32(const struct flat *flat, const struct flat_table *table, unsigned field)
{
	uint32_t at = field_at(flat, table, field, sizeof(uint32_t));

	return at ? load32(flat, at) : 0;
}

uint64_t flat_u64(const struct flat *flat, const struct flat_table *table, unsigned field)
{
	uint32_t at = field_at(flat, table, field, sizeof(uint64_t));

	return at ? load64(flat, at) : 0;
}

bool flat_table(const struct flat *flat, const struct flat_table *table, unsigned field,
		struct flat_table *ret)
{
	uint32_t at = field_at(flat, table, field, sizeof(uint32_t));

	return at && table_at(flat, follow(flat, at), ret);
}

/* The vector that begins at POS. */
static bool vector_at(const struct flat *flat, uint32_t pos, size_t element,
		      struct flat_vector *ret)
{
	if (pos == 0 || !within(flat, pos, sizeof(uint32_t)))
		return false;
	struct flat_vector vector = {.pos = pos + sizeof(uint32_t), .len = load32(flat, pos)};
	if (!within(flat, vector.pos, (uint64_t)vector.len * element))
		return false;
	*ret = vector;
	return true;
}

bool flat_vector(const struct flat *flat, const struct flat_table *table, unsigned field,
		 size_t element, struct flat_vector *ret)
{
	uint32_t at = field_at(flat, table, field, sizeof(uint32_t));

	if (!at) {
		*ret = (struct flat_vector){0};
		return true;
	}
	return vector_at(flat, follow(flat, at), element, ret);
}

/* --- strings --- */

static bool bytes_at(const struct flat *flat, uint32_t pos, struct flat_text *ret)
{
	struct flat_vector vector;

	if (!vector_at(flat, pos, 1, &vector) || !within(flat, vector.pos, vector.len + 1ull) ||
	    flat->data[vector.pos + vector.len] != '\0')
		return false;
	*ret = (struct flat_text){(const char *)flat->data + vector.pos, vector.len};
	return true;
}

static bool is_text(const struct flat_text *text)
{
	return strlen(text->at) == text->len;
}

bool flat_bytes(const struct flat *flat, const struct flat_table *table, unsigned field,
		struct flat_text *ret)
{
	uint32_t at = field_at(flat, table, field, sizeof(uint32_t));

	if (!at) {
		*ret = (struct flat_text){.at = ""};
		return true;
	}
	return bytes_at(flat, follow(flat, at), ret);
}

bool flat_text(const struct flat *flat, const struct flat_table *table, unsigned field,
	       struct flat_text *ret)
{
	return flat_bytes(flat, table, field, ret) && is_text(ret);
}

/* --- elements --- */

/* Where element N, an offset, leads. */
static uint32_t element_at(const struct flat *flat, const struct flat_vector *vector, uint32_t n)
{
	return follow(flat, vector->pos + n * (uint32_t)sizeof(uint32_t));
}

bool flat_table_of(const struct flat *flat, const struct flat_vector *vector, uint32_t n,
		   struct flat_table *ret)
{
	return table_at(flat, element_at(flat, vector, n), ret);
}

bool flat_text_of(const struct flat *flat, const struct flat_vector *vector, uint32_t n,
		  struct flat_text *ret)
{
	return bytes_at(flat, element_at(flat, vector, n), ret) && is_text(ret);
}
