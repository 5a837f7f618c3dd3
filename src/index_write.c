// SPDX-License-Identifier: Apache-2.0
/*
 * index, building: the builder's tree to the file.
 * Knows the layout. Must not know how the tree came about (index_build.c).
 */
#include <errno.h>
#include <isa-l/crc64.h>
#include <sys/stat.h>

#include "index_priv.h"

#define ALIGN8(n) (((n) + 7) & ~(uint64_t)7)

struct plan {
	struct index_builder *builder;
	uint32_t ninodes, nnames, nextents, nlinks, nouts;
	uint32_t *order;      /* live names in the order of the file */
	uint32_t largest_dir; /* children */
	uint64_t off[NSECTIONS], len[NSECTIONS];
	uint64_t end; /* of the last section: the CRC's place */
};

static void plan_release(struct plan *plan)
{
	free(plan->order);
}

static bool is_dir(const struct plan *plan, uint32_t ino)
{
	return build_is(plan->builder, ino, S_IFDIR);
}

static uint32_t flags_of(const struct plan *plan, const struct build_inode *inode)
{
	return plan->builder->attrs[inode->attr].flags;
}

static const char *name_str(const struct plan *plan, const struct build_name *name, size_t *ret_len)
{
	const char *str = plan->builder->arena.data + name->str;

	*ret_len = (uint8_t)str[0];
	return str + 1;
}

/* --- what is live --- */

/* Parents come before their children, so one walk finds the directories still reached. Until
 * they are numbered, number is 0 for these and size is their path's length. */
static void mark_dirs(struct plan *plan)
{
	struct index_builder *builder = plan->builder;
	size_t len;

	for (uint32_t ino = 0; ino < builder->ninodes; ino++) {
		struct build_inode *inode = &builder->inodes[ino];

		inode->number = ino == INDEX_ROOT ? 0 : INDEX_NONE;
		if (ino == INDEX_ROOT || !is_dir(plan, ino))
			continue;
		const struct build_name *name = &builder->names[inode->name];
		const struct build_inode *parent = &builder->inodes[name->dir];
		if (name->ino != ino || parent->number == INDEX_NONE)
			continue;
		name_str(plan, name, &len);
		inode->number = 0;
		inode->size = parent->size + len + 1;
	}
}

static int mark_whiteouts(struct plan *plan, uint32_t dir)
{
	struct build_inode *inode = &plan->builder->inodes[dir];
	struct index_attr_rec attr = plan->builder->attrs[inode->attr];

	attr.flags |= INDEX_WHITEOUTS;
	return index_intern_attr(plan->builder, &attr, &inode->attr);
}

static int count_name(struct plan *plan, struct build_name *name)
{
	struct index_builder *builder = plan->builder;
	struct build_inode *dir = &builder->inodes[name->dir];
	struct build_inode *inode = &builder->inodes[name->ino];
	size_t len;
	const char *str = name_str(plan, name, &len);

	if (dir->size + len > INDEX_MAX_PATH)
		return -EINVAL;
	dir->count++;
	plan->nnames++;
	plan->largest_dir = MAX(plan->largest_dir, dir->count);
	if (is_dir(plan, name->ino))
		dir->extra++;
	else
		inode->count++;
	return len >= 4 && memcmp(str, ".wh.", 4) == 0 ? mark_whiteouts(plan, name->dir) : 0;
}

/* Counts the live names, and turns the others into INDEX_NONE. */
static int count_names(struct plan *plan)
{
	struct index_builder *builder = plan->builder;
	int err = 0;

	for (uint32_t i = 0; !err && i < builder->nnames; i++) {
		struct build_name *name = &builder->names[i];

		if (name->ino == INDEX_NONE)
			continue;
		if (builder->inodes[name->dir].number == INDEX_NONE)
			name->ino = INDEX_NONE;
		else
			err = count_name(plan, name);
	}
	return err;
}

/* Numbers the live inodes, and gives each its part of the names, links and outs. */
static void number_inodes(struct plan *plan)
{
	struct index_builder *builder = plan->builder;
	uint32_t next_child = 0;

	for (uint32_t ino = 0; ino < builder->ninodes; ino++) {
		struct build_inode *inode = &builder->inodes[ino];
		bool dir = is_dir(plan, ino);

		if (dir ? inode->number == INDEX_NONE : inode->count == 0)
			continue;
		inode->number = plan->ninodes++;
		if (dir) {
			inode->data = 0;
			if (ino != INDEX_ROOT)
				inode->data =
					builder->inodes[builder->names[inode->name].dir].number;
			inode->size = inode->count;
			inode->first = next_child;
			next_child += inode->count;
		} else if (inode->count > 1) {
			inode->first = plan->nlinks;
			plan->nlinks += inode->count;
		}
		if (flags_of(plan, inode) & INDEX_LINK_OUT)
			plan->nouts++;
		if (flags_of(plan, inode) & INDEX_SPARSE)
			plan->nextents += 1 + (uint32_t)builder->extents[inode->data].len;
	}
}

/* --- the order of names --- */

struct sort_key {
	uint64_t prefix; /* the first 8 bytes, so that most comparisons touch nothing else */
	uint32_t name;
};

static int compare_keys(const void *left, const void *right, void *arg)
{
	const struct sort_key *a = left, *b = right;
	const struct plan *plan = arg;
	const char *a_str, *b_str;
	size_t a_len, b_len;
	int diff;

	if (a->prefix != b->prefix)
		return a->prefix < b->prefix ? -1 : 1;
	a_str = name_str(plan, &plan->builder->names[a->name], &a_len);
	b_str = name_str(plan, &plan->builder->names[b->name], &b_len);
	diff = memcmp(a_str, b_str, MIN(a_len, b_len));
	return diff ? diff : (a_len > b_len) - (a_len < b_len);
}

static struct sort_key sort_key(const struct plan *plan, uint32_t name)
{
	struct sort_key key = {.name = name};
	size_t len;
	const char *str = name_str(plan, &plan->builder->names[name], &len);

	memcpy(&key.prefix, str, MIN(len, sizeof(key.prefix)));
	key.prefix = be64toh(key.prefix);
	return key;
}

static void sort_dir(struct plan *plan, const struct build_inode *dir, struct sort_key *keys)
{
	uint32_t *names = plan->order + dir->first;
	bool sorted = true;

	for (uint32_t i = 0; i < dir->count; i++) {
		keys[i] = sort_key(plan, names[i]);
		sorted = sorted && (i == 0 || compare_keys(&keys[i - 1], &keys[i], plan) < 0);
	}
	if (sorted)
		return;
	qsort_r(keys, dir->count, sizeof(*keys), compare_keys, plan);
	for (uint32_t i = 0; i < dir->count; i++)
		names[i] = keys[i].name;
}

static int order_names(struct plan *plan)
{
	struct index_builder *builder = plan->builder;
	AUTO_FREE struct sort_key *keys = calloc((size_t)plan->largest_dir + 1, sizeof(*keys));

	plan->order = calloc((size_t)plan->nnames + 1, sizeof(*plan->order));
	if (!plan->order || !keys)
		return -ENOMEM;
	/* .first runs over a directory's part of the order while that is filled */
	for (uint32_t i = 0; i < builder->nnames; i++) {
		const struct build_name *name = &builder->names[i];
		if (name->ino != INDEX_NONE)
			plan->order[builder->inodes[name->dir].first++] = i;
	}
	for (uint32_t ino = 0; ino < builder->ninodes; ino++) {
		struct build_inode *inode = &builder->inodes[ino];
		if (inode->number == INDEX_NONE || !is_dir(plan, ino))
			continue;
		inode->first -= inode->count;
		sort_dir(plan, inode, keys);
	}
	return 0;
}

/* --- writing --- */

static void lay_out(struct plan *plan)
{
	const struct index_builder *builder = plan->builder;
	uint64_t at = sizeof(struct index_header);

	plan->len[SECTION_INODES] = (uint64_t)plan->ninodes * sizeof(struct index_inode_rec);
	plan->len[SECTION_NAMES] = (uint64_t)plan->nnames * sizeof(struct index_name_rec);
	plan->len[SECTION_ATTRS] = (uint64_t)builder->nattrs * sizeof(struct index_attr_rec);
	plan->len[SECTION_EXTENTS] = (uint64_t)plan->nextents * sizeof(struct index_extent_rec);
	plan->len[SECTION_POINTS] = (uint64_t)builder->npoints * sizeof(struct index_point_rec);
	plan->len[SECTION_LINKS] = (uint64_t)plan->nlinks * sizeof(uint32_t);
	plan->len[SECTION_OUTS] = (uint64_t)plan->nouts * sizeof(uint32_t);
	plan->len[SECTION_CHUNKS] = (uint64_t)builder->nchunks * sizeof(struct index_chunk_rec);
	plan->len[SECTION_POOL] = builder->arena.len + builder->windows.len;
	for (int i = 0; i < NSECTIONS; i++) {
		plan->off[i] = at;
		at = ALIGN8(at + plan->len[i]);
	}
	plan->end = at;
}

static void put_u32(uint8_t *section, uint32_t at, uint32_t value)
{
	value = htole32(value);
	memcpy(section + (size_t)at * sizeof(value), &value, sizeof(value));
}

/* Writes the names, and tells each inode where its are. */
static void write_names(struct plan *plan, uint8_t *file)
{
	struct index_builder *builder = plan->builder;
	uint8_t *links = file + plan->off[SECTION_LINKS];

	for (uint32_t pos = 0; pos < plan->nnames; pos++) {
		const struct build_name *name = &builder->names[plan->order[pos]];
		struct build_inode *inode = &builder->inodes[name->ino];
		struct index_name_rec rec = {
			.str = htole32(name->str),
			.ino = htole32(inode->number),
			.dir = htole32(builder->inodes[name->dir].number),
		};

		memcpy(file + plan->off[SECTION_NAMES] + (size_t)pos * sizeof(rec), &rec,
		       sizeof(rec));
		if (is_dir(plan, name->ino))
			inode->name = pos;
		else if (inode->count == 1)
			inode->first = pos;
		else
			put_u32(links, inode->first + inode->extra++, pos);
	}
}

/* Copies INODE's extents to position AT of the file's; returns the position after them. */
static uint32_t write_extents(const struct plan *plan, uint8_t *file,
			      const struct build_inode *inode, uint32_t at)
{
	const struct index_extent_rec *from = &plan->builder->extents[inode->data];
	uint8_t *to = file + plan->off[SECTION_EXTENTS];
	uint32_t n = 1 + (uint32_t)from->len;

	for (uint32_t i = 0; i < n; i++) {
		struct index_extent_rec rec = {.off = htole64(from[i].off),
					       .len = htole64(from[i].len)};
		memcpy(to + (size_t)(at + i) * sizeof(rec), &rec, sizeof(rec));
	}
	return at + n;
}

static void write_inode(const struct plan *plan, uint8_t *file, const struct build_inode *inode,
			bool dir)
{
	struct index_inode_rec rec = {
		.mtime_sec = (int64_t)htole64((uint64_t)inode->mtime_sec),
		.size = htole64(inode->size),
		.data = htole64(inode->data),
		.mtime_nsec = htole32(inode->mtime_nsec),
		.attr = htole32(inode->attr),
		.name = htole32(dir ? inode->name : inode->first),
		.nlink = htole32(dir ? 2 + inode->extra : inode->count),
		.first_child = htole32(dir ? inode->first : 0),
		.nchunks = htole32(dir ? 0 : inode->nchunks),
	};

	memcpy(file + plan->off[SECTION_INODES] + (size_t)inode->number * sizeof(rec), &rec,
	       sizeof(rec));
}

static void write_inodes(struct plan *plan, uint8_t *file)
{
	struct index_builder *builder = plan->builder;
	uint32_t nextents = 0, nouts = 0;

	for (uint32_t ino = 0; ino < builder->ninodes; ino++) {
		struct build_inode inode = builder->inodes[ino];

		if (inode.number == INDEX_NONE)
			continue;
		if (flags_of(plan, &inode) & INDEX_LINK_OUT)
			put_u32(file + plan->off[SECTION_OUTS], nouts++, inode.number);
		if (flags_of(plan, &inode) & INDEX_SPARSE) {
			uint32_t at = nextents;
			nextents = write_extents(plan, file, &inode, at);
			inode.data = at;
		}
		write_inode(plan, file, &inode, is_dir(plan, ino));
	}
}

static void write_attrs(const struct plan *plan, uint8_t *file)
{
	const struct index_builder *builder = plan->builder;

	for (uint32_t i = 0; i < builder->nattrs; i++) {
		const struct index_attr_rec *attr = &builder->attrs[i];
		struct index_attr_rec rec = {
			.mode = htole32(attr->mode),
			.uid = htole32(attr->uid),
			.gid = htole32(attr->gid),
			.flags = htole32(attr->flags),
			.rdev_major = htole32(attr->rdev_major),
			.rdev_minor = htole32(attr->rdev_minor),
			.xattrs = htole64(attr->xattrs),
		};
		memcpy(file + plan->off[SECTION_ATTRS] + i * sizeof(rec), &rec, sizeof(rec));
	}
}

static void write_points(const struct plan *plan, uint8_t *file)
{
	const struct index_builder *builder = plan->builder;

	for (uint32_t i = 0; i < builder->npoints; i++) {
		struct index_point_rec rec = builder->points[i];

		rec.in_off = htole64(rec.in_off);
		rec.out_off = htole64(rec.out_off);
		rec.window = htole64(builder->arena.len + rec.window);
		rec.packed_len = htole32(rec.packed_len);
		rec.window_len = htole16(rec.window_len);
		memcpy(file + plan->off[SECTION_POINTS] + i * sizeof(rec), &rec, sizeof(rec));
	}
}

static void write_header(const struct plan *plan, uint8_t *file, const struct index_info *info)
{
	struct index_header header = {
		.magic = INDEX_MAGIC,
		.version = htole32(INDEX_VERSION),
		.codec = htole32((uint32_t)info->codec),
		.blob_algo = htole32((uint32_t)info->blob.algo),
		.blob_size = htole64(info->blob_size),
		.decoded_size = htole64(info->decoded_size),
		.keep_decoded = htole32(info->keep_decoded),
		.by_toc = htole32(info->by_toc),
		.by_spans = htole32(info->by_spans),
		.diff_algo = htole32((uint32_t)info->diff_id.algo),
	};

	memcpy(header.blob_bytes, info->blob.bytes, sizeof(header.blob_bytes));
	memcpy(header.diff_bytes, info->diff_id.bytes, sizeof(header.diff_bytes));
	for (int i = 0; i < NSECTIONS; i++) {
		header.sections[i].off = htole64(plan->off[i]);
		header.sections[i].len = htole64(plan->len[i]);
	}
	memcpy(file, &header, sizeof(header));
}

static void write_file(struct plan *plan, uint8_t *file, const struct index_info *info)
{
	const struct index_builder *builder = plan->builder;
	uint8_t *pool = file + plan->off[SECTION_POOL];
	uint64_t crc;

	/* the gaps between sections */
	for (int i = 0; i < NSECTIONS; i++) {
		uint64_t end = plan->off[i] + plan->len[i];
		memset(file + end, 0, ALIGN8(end) - end);
	}
	write_header(plan, file, info);
	write_names(plan, file);
	write_inodes(plan, file);
	write_attrs(plan, file);
	write_points(plan, file);
	if (builder->nchunks)
		memcpy(file + plan->off[SECTION_CHUNKS], builder->chunks,
		       plan->len[SECTION_CHUNKS]);
	memcpy(pool, builder->arena.data, builder->arena.len);
	if (builder->windows.len)
		memcpy(pool + builder->arena.len, builder->windows.data, builder->windows.len);
	crc = htole64(crc64_ecma_refl(0, file, plan->end));
	memcpy(file + plan->end, &crc, sizeof(crc));
}

/* Names are found no more: their table makes room for the file. */
static void drop_tables(struct index_builder *builder)
{
	free(builder->name_table.slots);
	builder->name_table = (struct index_table){};
}

int index_builder_finish(struct index_builder *builder, struct index_info *info, struct buf *ret)
{
	CLEANUP(plan_release) struct plan plan = {.builder = builder};
	int err;

	drop_tables(builder);
	mark_dirs(&plan);
	err = count_names(&plan);
	if (err)
		return err;
	number_inodes(&plan);
	err = order_names(&plan);
	if (err)
		return err;
	lay_out(&plan);
	err = buf_reserve(ret, plan.end + sizeof(uint64_t));
	if (err)
		return err;
	write_file(&plan, (uint8_t *)ret->data + ret->len, info);
	ret->len += plan.end + sizeof(uint64_t);
	ret->data[ret->len] = '\0';
	info->ninodes = plan.ninodes;
	info->nnames = plan.nnames;
	info->npoints = builder->npoints;
	info->nchunks = builder->nchunks;
	return 0;
}

int index_set_diff_id(struct buf *file, const struct digest *diff_id)
{
	struct index_header header;
	struct index index;
	uint64_t crc;
	size_t end;

	if (index_open(file->data, file->len, &index) < 0)
		return -EIO;
	end = file->len - sizeof(crc);
	memcpy(&header, file->data, sizeof(header));
	header.diff_algo = htole32((uint32_t)diff_id->algo);
	memcpy(header.diff_bytes, diff_id->bytes, sizeof(header.diff_bytes));
	memcpy(file->data, &header, sizeof(header));
	crc = htole64(crc64_ecma_refl(0, (const uint8_t *)file->data, end));
	memcpy(file->data + end, &crc, sizeof(crc));
	return 0;
}
