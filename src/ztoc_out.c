// SPDX-License-Identifier: Apache-2.0
/*
 * ztoc_out: the parts of a FlatBuffer, written front to back.
 * Must not know SOCI's schema.
 */
#include <endian.h>

#include "ztoc_out.h"

size_t out_pos(const struct flat_out *out)
{
	return out->buf->len - out->base;
}

void out_bytes(struct flat_out *out, const void *data, size_t len)
{
	if (!out->err)
		out->err = buf_add(out->buf, data, len);
}

void out_align(struct flat_out *out, size_t to)
{
	static const uint8_t zeros[8];

	out_bytes(out, zeros, -out_pos(out) & (to - 1));
}

void out_u32(struct flat_out *out, uint32_t value)
{
	value = htole32(value);
	out_bytes(out, &value, sizeof(value));
}

void out_set32(struct flat_out *out, size_t at, uint32_t value)
{
	value = htole32(value);
	if (!out->err)
		memcpy(out->buf->data + out->base + at, &value, sizeof(value));
}

void out_set64(struct flat_out *out, size_t at, uint64_t value)
{
	value = htole64(value);
	if (!out->err)
		memcpy(out->buf->data + out->base + at, &value, sizeof(value));
}

void out_refer(struct flat_out *out, size_t at)
{
	out_align(out, sizeof(uint32_t));
	out_set32(out, at, (uint32_t)(out_pos(out) - at));
}

size_t out_vtable(struct flat_out *out, const uint16_t *vtable)
{
	size_t at = out_pos(out);

	for (size_t i = 0; i < vtable[0] / sizeof(*vtable); i++) {
		uint16_t value = htole16(vtable[i]);
		out_bytes(out, &value, sizeof(value));
	}
	return at;
}

size_t out_table(struct flat_out *out, size_t vtable_at, size_t len)
{
	static const uint8_t zeros[FLAT_TABLE_MAX];

	out_align(out, sizeof(uint64_t));
	size_t at = out_pos(out);
	out_bytes(out, zeros, len);
	out_set32(out, at, (uint32_t)(at - vtable_at));
	return at;
}

size_t out_table_of(struct flat_out *out, size_t from, const uint16_t *vtable)
{
	out_align(out, sizeof(uint64_t));
	size_t vtable_at = out_vtable(out, vtable);
	size_t at = out_table(out, vtable_at, vtable[1]);

	out_set32(out, from, (uint32_t)(at - from));
	return at;
}

void out_string(struct flat_out *out, size_t from, const void *data, size_t len)
{
	out_refer(out, from);
	out_u32(out, (uint32_t)len);
	out_bytes(out, data, len);
	out_bytes(out, "", 1);
}

void out_text(struct flat_out *out, size_t from, const char *text)
{
	out_string(out, from, text, strlen(text));
}

size_t out_references(struct flat_out *out, size_t from, size_t n)
{
	out_refer(out, from);
	out_u32(out, (uint32_t)n);
	size_t at = out_pos(out);
	for (size_t i = 0; i < n && !out->err; i++)
		out_u32(out, 0);
	return at;
}
