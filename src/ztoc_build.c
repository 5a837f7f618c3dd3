// SPDX-License-Identifier: Apache-2.0
/*
 * ztoc_build: members and spans to SOCI's document.
 * Knows the schema. Must not know how a FlatBuffer is laid out (ztoc_out.c), nor where members and
 * spans come from.
 *
 * Members are put into a part of their own as they come. It refers to nothing outside of itself, so
 * that it can be moved into the document as it is.
 */
#include <endian.h>
#include <errno.h>
#include <sys/stat.h>
#include <time.h>

#include "regfs/ztoc.h"
#include "ztoc_out.h"

#define TOOL	 "regfs" /* no version: of one layer there is to be one document */
#define TIME_MAX 64

/* Where in a table its fields lie, by the schema's numbers; 0: not written. The first two numbers
 * are the lengths of the vtable and of the table. What has eight bytes lies at multiples of that.
 */
enum { TOP_VERSION = 4, TOP_IN_SIZE = 8, TOP_OUT_SIZE = 16, TOP_TOOL = 24, TOP_TOC = 28 };
enum { TOP_COMPRESSION = 32, TOP_LEN = 40 };
static const uint16_t top_vtable[] = {
	16, TOP_LEN, TOP_VERSION, TOP_TOOL, TOP_IN_SIZE, TOP_OUT_SIZE, TOP_TOC, TOP_COMPRESSION,
};

enum { TOC_METADATA = 4, TOC_LEN = 8 };
static const uint16_t toc_vtable[] = {6, TOC_LEN, TOC_METADATA};

enum { INFO_LAST = 4, INFO_DIGESTS = 8, INFO_POINTS = 12, INFO_ALGORITHM = 16, INFO_LEN = 20 };
static const uint16_t info_vtable[] = {
	12, INFO_LEN, INFO_ALGORITHM, INFO_LAST, INFO_DIGESTS, INFO_POINTS,
};
enum { ALGORITHM_GZIP = 1, ALGORITHM_NONE = 2 };

enum { PLAIN_VERSION = 4, PLAIN_SPAN_SIZE = 8, PLAIN_SIZE = 16, PLAIN_LEN = 24 };
static const uint16_t plain_vtable[] = {
	10, PLAIN_LEN, PLAIN_VERSION, PLAIN_SPAN_SIZE, PLAIN_SIZE,
};

enum { FILE_NAME = 4, FILE_OFF = 8, FILE_SIZE = 16, FILE_MODE = 24, FILE_MAJOR = 32 };
enum { FILE_MINOR = 40, FILE_UID = 48, FILE_GID = 52, FILE_TYPE = 56, FILE_TIME = 60 };
enum { FILE_LINK = 64, FILE_XATTRS = 68, FILE_LEN = 72 };
static const uint16_t file_vtable[] = {
	32,	   FILE_LEN,  FILE_NAME,  FILE_TYPE,  FILE_OFF,	   FILE_SIZE,
	FILE_LINK, FILE_MODE, FILE_UID,	  FILE_GID,   0, /* uname and gname: the numbers decide */
	0,	   FILE_TIME, FILE_MAJOR, FILE_MINOR, FILE_XATTRS,
};

enum { XATTR_KEY = 4, XATTR_VALUE = 8, XATTR_LEN = 12 };
static const uint16_t xattr_vtable[] = {8, XATTR_LEN, XATTR_KEY, XATTR_VALUE};

/* Both vtables stand at the beginning of the members' part. */
#define FILE_VTABLE_AT	0
#define XATTR_VTABLE_AT sizeof(file_vtable)

struct ztoc_builder {
	enum codec codec;
	uint64_t span_size;
	struct buf files;   /* tables of members, and all below them */
	struct buf places;  /* uint32_t: where in files a member's table is */
	struct buf points;  /* packed, as gzip's "checkpoints" have them */
	struct buf digests; /* struct digest of each span */
	uint32_t nfiles, nspans;
	uint64_t in_end, out_end; /* of the last span */
};

/* --- the builder --- */

struct ztoc_builder *ztoc_builder_new(enum codec codec, uint64_t span_size)
{
	struct ztoc_builder *builder = calloc(1, sizeof(*builder));

	if (!builder)
		return NULL;
	*builder = (struct ztoc_builder){
		.codec = codec,
		.span_size = span_size,
		.files = BUF_INIT(ZTOC_MAX),
		.places = BUF_INIT(ZTOC_FILES_MAX * sizeof(uint32_t)),
		.points = BUF_INIT(ZTOC_MAX),
		.digests = BUF_INIT(ZTOC_MAX),
	};
	struct flat_out out = {.buf = &builder->files};
	out_vtable(&out, file_vtable);
	out_vtable(&out, xattr_vtable);
	if (!out.err)
		return builder;
	ztoc_builder_free(builder);
	return NULL;
}

void ztoc_builder_free(struct ztoc_builder *builder)
{
	if (!builder)
		return;
	buf_release(&builder->files);
	buf_release(&builder->places);
	buf_release(&builder->points);
	buf_release(&builder->digests);
	free(builder);
}

void ztoc_builder_cleanup(struct ztoc_builder **builder)
{
	ztoc_builder_free(*builder);
}

/* --- members --- */

static const char *type_name(const struct tar_member *member)
{
	if (member->hard_link)
		return "hardlink";
	switch (member->mode & S_IFMT) {
	case S_IFDIR:
		return "dir";
	case S_IFLNK:
		return "symlink";
	case S_IFCHR:
		return "char";
	case S_IFBLK:
		return "block";
	case S_IFIFO:
		return "fifo";
	default:
		return "reg";
	}
}

/* RFC 3339, whose years have four digits. */
static int write_time(const struct tar_member *member, char ret[static TIME_MAX])
{
	time_t seconds = (time_t)member->mtime_sec;
	struct tm tm;

	if (!gmtime_r(&seconds, &tm) || tm.tm_year < -1900 || tm.tm_year > 9999 - 1900)
		return -EINVAL;
	int len = snprintf(ret, TIME_MAX, "%04d-%02d-%02dT%02d:%02d:%02d", tm.tm_year + 1900,
			   tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
	if (member->mtime_nsec)
		len += snprintf(ret + len, TIME_MAX - len, ".%09u", member->mtime_nsec);
	while (member->mtime_nsec && ret[len - 1] == '0')
		len--;
	snprintf(ret + len, TIME_MAX - len, "Z");
	return 0;
}

/* As the PAX records that they are. */
static void put_xattrs(struct flat_out *out, size_t file_at, const struct tar_member *member)
{
	size_t at = out_references(out, file_at + FILE_XATTRS, member->nxattrs);

	for (size_t i = 0; i < member->nxattrs && !out->err; i++) {
		const struct tar_xattr *xattr = &member->xattrs[i];
		AUTO_FREE char *key = format("SCHILY.xattr.%s", xattr->name);
		size_t from = at + i * sizeof(uint32_t);
		size_t table = out_table(out, XATTR_VTABLE_AT, XATTR_LEN);

		if (!key)
			out->err = -ENOMEM;
		if (out->err)
			return;
		out_set32(out, from, (uint32_t)(table - from));
		out_text(out, table + XATTR_KEY, key);
		out_string(out, table + XATTR_VALUE, xattr->value, xattr->len);
	}
}

static size_t put_member(struct flat_out *out, const struct tar_member *member, const char *time)
{
	const char *link = member->hard_link ? member->hard_link : member->symlink;
	size_t at = out_table(out, FILE_VTABLE_AT, FILE_LEN);

	out_set64(out, at + FILE_OFF, member->data_off);
	out_set64(out, at + FILE_SIZE, member->size);
	out_set64(out, at + FILE_MODE, member->mode & 07777);
	out_set64(out, at + FILE_MAJOR, member->rdev_major);
	out_set64(out, at + FILE_MINOR, member->rdev_minor);
	out_set32(out, at + FILE_UID, member->uid);
	out_set32(out, at + FILE_GID, member->gid);
	out_text(out, at + FILE_NAME, member->path);
	out_text(out, at + FILE_TYPE, type_name(member));
	out_text(out, at + FILE_LINK, link ? link : "");
	out_text(out, at + FILE_TIME, time);
	put_xattrs(out, at, member);
	return at;
}

int ztoc_builder_member(struct ztoc_builder *builder, const struct tar_member *member)
{
	struct flat_out out = {.buf = &builder->files};
	char time[TIME_MAX];

	if (member->sparse || member->nxattrs > ZTOC_XATTRS_MAX ||
	    builder->nfiles == ZTOC_FILES_MAX || write_time(member, time) < 0)
		return -EINVAL;
	uint32_t place = (uint32_t)put_member(&out, member, time);
	if (!out.err)
		out.err = buf_add(&builder->places, &place, sizeof(place));
	builder->nfiles++;
	return out.err;
}

/* --- spans --- */

static bool span_follows(const struct ztoc_builder *builder, const struct ztoc_span *span)
{
	const struct codec_point *point = &span->point;
	bool first = builder->nspans == 0;

	if (point->bits > 7 || point->member || point->window_len > CODEC_WINDOW ||
	    span->digest.algo != DIGEST_SHA256)
		return false;
	if (span->in_begin + (point->bits ? 1 : 0) != point->in_off ||
	    point->out_off != builder->out_end || (!first && point->in_off != builder->in_end))
		return false;
	return span->in_end > point->in_off && span->out_end > point->out_off &&
	       span->in_end - span->in_begin <= ZTOC_SPAN_MAX &&
	       span->out_end - point->out_off <= ZTOC_SPAN_MAX;
}

static int add_point(struct ztoc_builder *builder, const struct codec_point *point)
{
	static const uint8_t zeros[CODEC_WINDOW];
	struct flat_out out = {.buf = &builder->points};
	const uint64_t offs[] = {htole64(point->in_off), htole64(point->out_off)};

	out_bytes(&out, offs, sizeof(offs));
	out_bytes(&out, &point->bits, 1);
	/* the last byte before the point is the window's last */
	out_bytes(&out, zeros, CODEC_WINDOW - point->window_len);
	out_bytes(&out, point->window, point->window_len);
	return out.err;
}

int ztoc_builder_span(struct ztoc_builder *builder, const struct ztoc_span *span)
{
	int r = 0;

	if (!span_follows(builder, span) || builder->nspans == ZTOC_SPANS_MAX)
		return -EINVAL;
	if (builder->codec == CODEC_PLAIN &&
	    span->point.out_off != builder->nspans * builder->span_size)
		return -EINVAL;
	if (builder->codec == CODEC_GZIP)
		r = add_point(builder, &span->point);
	if (r == 0)
		r = buf_add(&builder->digests, &span->digest, sizeof(span->digest));
	builder->in_end = span->in_end;
	builder->out_end = span->out_end;
	builder->nspans++;
	return r;
}

/* --- the document --- */

static void put_files(struct flat_out *out, size_t from, const struct ztoc_builder *builder)
{
	size_t toc = out_table_of(out, from, toc_vtable);
	size_t at = out_references(out, toc + TOC_METADATA, builder->nfiles);
	const char *places = builder->places.data;

	out_align(out, sizeof(uint64_t));
	size_t files = out_pos(out);
	out_bytes(out, builder->files.data, builder->files.len);
	for (uint32_t i = 0; i < builder->nfiles; i++, at += sizeof(uint32_t)) {
		uint32_t place;

		memcpy(&place, places + i * sizeof(place), sizeof(place));
		out_set32(out, at, (uint32_t)(files + place - at));
	}
}

static void put_digests(struct flat_out *out, size_t from, const struct ztoc_builder *builder)
{
	size_t at = out_references(out, from, builder->nspans);

	for (uint32_t i = 0; i < builder->nspans; i++, at += sizeof(uint32_t)) {
		char text[DIGEST_STR_MAX];
		struct digest digest;

		memcpy(&digest, builder->digests.data + i * sizeof(digest), sizeof(digest));
		out_text(out, at, digest_format(&digest, text));
	}
}

/* Those of gzip: how many, the distance, the points themselves. */
static void put_gzip_points(struct flat_out *out, size_t from, const struct ztoc_builder *builder)
{
	uint64_t span_size = htole64(builder->span_size);

	out_refer(out, from);
	out_u32(out, (uint32_t)(sizeof(uint32_t) + sizeof(uint64_t) + builder->points.len));
	out_u32(out, builder->nspans);
	out_bytes(out, &span_size, sizeof(span_size));
	out_bytes(out, builder->points.data, builder->points.len);
}

/* Those of a plain tar are a FlatBuffer of their own (soci-snapshotter,
 * ztoc/compression/fbs/zinfo.fbs). */
static void put_plain_points(struct flat_out *out, size_t from, const struct ztoc_builder *builder)
{
	AUTO_BUF struct buf bytes = BUF_INIT(KIB);
	struct flat_out inner = {.buf = &bytes};

	out_u32(&inner, 0);
	size_t at = out_table_of(&inner, 0, plain_vtable);
	out_set32(&inner, at + PLAIN_VERSION, 2);
	out_set64(&inner, at + PLAIN_SPAN_SIZE, builder->span_size);
	out_set64(&inner, at + PLAIN_SIZE, builder->in_end);
	out->err = out->err ? out->err : inner.err;
	out_string(out, from, bytes.data, bytes.len);
}

static void put_spans(struct flat_out *out, size_t from, const struct ztoc_builder *builder)
{
	size_t at = out_table_of(out, from, info_vtable);

	out_set32(out, at + INFO_LAST, builder->nspans - 1);
	/* one byte; those behind it are padding */
	out_set32(out, at + INFO_ALGORITHM,
		  builder->codec == CODEC_GZIP ? ALGORITHM_GZIP : ALGORITHM_NONE);
	put_digests(out, at + INFO_DIGESTS, builder);
	if (builder->codec == CODEC_GZIP)
		put_gzip_points(out, at + INFO_POINTS, builder);
	else
		put_plain_points(out, at + INFO_POINTS, builder);
}

int ztoc_builder_finish(struct ztoc_builder *builder, struct buf *ret)
{
	struct flat_out out = {.buf = ret, .base = ret->len};

	if (builder->nspans == 0)
		return -EINVAL;
	out_u32(&out, 0);
	size_t at = out_table_of(&out, 0, top_vtable);
	out_set64(&out, at + TOP_IN_SIZE, builder->in_end);
	out_set64(&out, at + TOP_OUT_SIZE, builder->out_end);
	out_text(&out, at + TOP_VERSION, "0.9");
	out_text(&out, at + TOP_TOOL, TOOL);
	put_files(&out, at + TOP_TOC, builder);
	put_spans(&out, at + TOP_COMPRESSION, builder);
	if (!out.err && out_pos(&out) > ZTOC_MAX)
		out.err = -EFBIG;
	if (out.err)
		ret->len = out.base;
	return out.err;
}
