// SPDX-License-Identifier: Apache-2.0
/*
 * index, building: names, attributes and xattr sets, each kept once.
 * Knows hash tables and the arena. Must not know paths or the file's layout.
 */
#include <errno.h>

#include "index_priv.h"

#define TABLE_FIRST    64
#define MAX_XATTRS     1024	  /* Linux lists 64 KiB of names at most */
#define MAX_XATTR_NAME 255	  /* XATTR_NAME_MAX */
#define MAX_XATTR_LEN  (64 * KIB) /* XATTR_SIZE_MAX */

int index_grow(void *array, uint32_t len, uint32_t *cap, size_t size)
{
	void **at = array;

	if (len < *cap)
		return 0;
	if (len >= UINT32_MAX / 2)
		return -ENOMEM;
	/* By half: at a million members doubling would leave much unused. */
	uint32_t grown = MAX(len + len / 2, 64u);
	void *mem = reallocarray(*at, grown, size);
	if (!mem)
		return -ENOMEM;
	*at = mem;
	*cap = grown;
	return 0;
}

/* --- tables --- */

typedef bool table_same_fn(const struct index_builder *builder, uint32_t value, const void *key);

/* Inlined with SAME known, which is what makes it fast. */
static inline uint32_t table_find(const struct index_builder *builder,
				  const struct index_table *table, uint32_t hash,
				  table_same_fn *same, const void *key)
{
	if (!table->slots)
		return INDEX_NONE;
	for (uint32_t at = hash & table->mask;; at = (at + 1) & table->mask) {
		uint64_t slot = table->slots[at];

		if (!slot)
			return INDEX_NONE;
		if (slot >> 32 == hash && same(builder, (uint32_t)slot - 1, key))
			return (uint32_t)slot - 1;
	}
}

static void table_place(struct index_table *table, uint64_t slot)
{
	uint32_t at = (uint32_t)(slot >> 32) & table->mask;

	while (table->slots[at])
		at = (at + 1) & table->mask;
	table->slots[at] = slot;
}

static int table_enlarge(struct index_table *table)
{
	struct index_table larger = {.used = table->used};
	size_t old = table->slots ? (size_t)table->mask + 1 : 0;
	size_t slots = old ? old * 2 : TABLE_FIRST;

	larger.slots = calloc(slots, sizeof(*larger.slots));
	if (!larger.slots)
		return -ENOMEM;
	larger.mask = (uint32_t)(slots - 1);
	for (size_t i = 0; i < old; i++) {
		if (table->slots[i])
			table_place(&larger, table->slots[i]);
	}
	free(table->slots);
	*table = larger;
	return 0;
}

/* VALUE is not in the table and less than UINT32_MAX. */
static int table_add(struct index_table *table, uint32_t hash, uint32_t value)
{
	if (!table->slots || table->used >= table->mask - table->mask / 4) {
		int err = table_enlarge(table);
		if (err)
			return err;
	}
	table_place(table, (uint64_t)hash << 32 | (value + 1));
	table->used++;
	return 0;
}

/* --- names --- */

struct name_key {
	uint32_t dir;
	const char *name;
	size_t len;
};

static uint32_t name_hash(const struct index_builder *builder, const struct name_key *key)
{
	return (uint32_t)hash64(builder->seed ^ key->dir * 0x9e3779b97f4a7c15u, key->name,
				key->len);
}

static bool name_same(const struct index_builder *builder, uint32_t value, const void *arg)
{
	const struct build_name *name = &builder->names[value];
	const struct name_key *key = arg;
	const char *str = builder->arena.data + name->str;

	return name->dir == key->dir && (uint8_t)str[0] == key->len &&
	       memcmp(str + 1, key->name, key->len) == 0;
}

uint32_t index_intern_find(const struct index_builder *builder, uint32_t dir, const char *name,
			   size_t len)
{
	struct name_key key = {.dir = dir, .name = name, .len = len};

	return table_find(builder, &builder->name_table, name_hash(builder, &key), name_same, &key);
}

int index_intern_name(struct index_builder *builder, uint32_t dir, const char *name, size_t len,
		      uint32_t *ret)
{
	struct name_key key = {.dir = dir, .name = name, .len = len};
	struct buf *arena = &builder->arena;
	uint8_t len_byte = (uint8_t)len;
	size_t str = arena->len;
	int err;

	err = index_grow(&builder->names, builder->nnames, &builder->names_cap,
			 sizeof(*builder->names));
	if (!err)
		err = buf_reserve(arena, 1 + len);
	if (!err)
		err = table_add(&builder->name_table, name_hash(builder, &key), builder->nnames);
	if (err)
		return err == -EFBIG ? -EINVAL : err;

	buf_add(arena, &len_byte, 1);
	buf_add(arena, name, len);
	builder->names[builder->nnames] = (struct build_name){
		.dir = dir, .str = (uint32_t)str, .ino = INDEX_NONE};
	*ret = builder->nnames++;
	return 0;
}

/* --- attributes --- */

static bool attr_same(const struct index_builder *builder, uint32_t value, const void *key)
{
	return memcmp(&builder->attrs[value], key, sizeof(struct index_attr_rec)) == 0;
}

int index_intern_attr(struct index_builder *builder, const struct index_attr_rec *attr,
		      uint32_t *ret)
{
	uint32_t last = builder->nattrs - 1;
	uint32_t hash, found;
	int err;

	/* Most members are like the one before. */
	if (builder->nattrs && attr_same(builder, last, attr)) {
		*ret = last;
		return 0;
	}
	hash = (uint32_t)hash64(builder->seed, attr, sizeof(*attr));
	found = table_find(builder, &builder->attr_table, hash, attr_same, attr);
	if (found == INDEX_NONE) {
		err = index_grow(&builder->attrs, builder->nattrs, &builder->attrs_cap,
				 sizeof(*attr));
		if (!err)
			err = table_add(&builder->attr_table, hash, builder->nattrs);
		if (err)
			return err;
		builder->attrs[builder->nattrs] = *attr;
		found = builder->nattrs++;
	}
	*ret = found;
	return 0;
}

/* --- xattrs --- */

/* A later record of the same name replaces an earlier one, as in PAX headers. */
static bool xattr_replaced(const struct tar_xattr *xattrs, size_t at, size_t n)
{
	for (size_t i = at + 1; i < n; i++) {
		if (strcmp(xattrs[at].name, xattrs[i].name) == 0)
			return true;
	}
	return false;
}

static int xattr_add(struct buf *set, const struct tar_xattr *xattr)
{
	size_t name_len = strnlen(xattr->name, MAX_XATTR_NAME + 1);
	int err;

	if (name_len > MAX_XATTR_NAME || xattr->len > MAX_XATTR_LEN)
		return -EINVAL;
	struct index_xattr_rec rec = {.name_len = htole32((uint32_t)name_len + 1),
				      .value_len = htole32((uint32_t)xattr->len)};
	err = buf_add(set, &rec, sizeof(rec));
	if (!err)
		err = buf_add(set, xattr->name, name_len + 1);
	if (!err)
		err = buf_add(set, xattr->value, xattr->len);
	return err;
}

/* The set, as it lies in the pool, into the builder's scratch. */
static int xattr_set(struct index_builder *builder, const struct tar_xattr *xattrs, size_t n)
{
	struct buf *set = &builder->scratch;
	uint32_t count = 0;
	int err;

	if (n > MAX_XATTRS)
		return -EINVAL;
	buf_clear(set);
	err = buf_add(set, &count, sizeof(count));
	for (size_t i = 0; !err && i < n; i++) {
		if (xattr_replaced(xattrs, i, n))
			continue;
		err = xattr_add(set, &xattrs[i]);
		count++;
	}
	if (err)
		return err;
	count = htole32(count);
	memcpy(set->data, &count, sizeof(count));
	return 0;
}

/* The counts inside make a set end where it ends: equal bytes are an equal set. */
static bool xattrs_same(const struct index_builder *builder, uint32_t value, const void *key)
{
	const struct buf *set = key;

	return builder->arena.len - value >= set->len &&
	       memcmp(builder->arena.data + value, set->data, set->len) == 0;
}

int index_intern_xattrs(struct index_builder *builder, const struct tar_xattr *xattrs, size_t n,
			uint64_t *ret)
{
	struct buf *set = &builder->scratch;
	uint32_t hash, found;
	int err = xattr_set(builder, xattrs, n);

	if (err)
		return err == -EFBIG ? -EINVAL : err;
	hash = (uint32_t)hash64(builder->seed, set->data, set->len);
	found = table_find(builder, &builder->xattr_table, hash, xattrs_same, set);
	if (found == INDEX_NONE) {
		found = (uint32_t)builder->arena.len;
		err = buf_add(&builder->arena, set->data, set->len);
		if (!err)
			err = table_add(&builder->xattr_table, hash, found);
		if (err)
			return err == -EFBIG ? -EINVAL : err;
	}
	*ret = found;
	return 0;
}
