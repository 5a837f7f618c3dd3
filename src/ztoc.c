// SPDX-License-Identifier: Apache-2.0
/*
 * ztoc: the document, its spans and its members, out of its bytes.
 * Knows the schema. Must not know how a FlatBuffer is laid out (ztoc_flat.h), nor what members make
 * together (ztoc_index.c).
 */
#include <endian.h>
#include <errno.h>
#include <sys/stat.h>

#include "regfs/oci.h"
#include "regfs/ztoc.h"
#include "ztoc_flat.h"

/* The schema's fields, in their order. */
enum { ZTOC_VERSION, ZTOC_TOOL, ZTOC_IN_SIZE, ZTOC_OUT_SIZE, ZTOC_TOC, ZTOC_COMPRESSION };
enum { TOC_METADATA };
enum { INFO_ALGORITHM, INFO_LAST_SPAN, INFO_DIGESTS, INFO_CHECKPOINTS };
enum { TAR_VERSION, TAR_SPAN_SIZE, TAR_SIZE };
enum { XATTR_KEY, XATTR_VALUE };
enum {
	FILE_NAME,
	FILE_TYPE,
	FILE_OFF,
	FILE_SIZE,
	FILE_LINK,
	FILE_MODE,
	FILE_UID,
	FILE_GID,
	FILE_USER,
	FILE_GROUP,
	FILE_TIME,
	FILE_MAJOR,
	FILE_MINOR,
	FILE_XATTRS,
};

enum { ALGORITHM_GZIP = 1, ALGORITHM_NONE = 2 };

/* Checkpoints of gzip: a head, then points; all little-endian. */
#define HEAD_LEN  12 /* i32 how many, i64 span size */
#define POINT_LEN (8 + 8 + 1 + CODEC_WINDOW)

static int lie(const char **ret_why, const char *why)
{
	*ret_why = why;
	return -EINVAL;
}

static struct flat flat_of(const struct ztoc *ztoc)
{
	return (struct flat){.data = ztoc->priv.data, .len = ztoc->priv.len};
}

/* --- spans --- */

static uint64_t load64(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return le64toh(value);
}

/* The place of gzip's point N, below nspans. */
static struct codec_point gzip_point(const struct ztoc *ztoc, uint32_t n)
{
	/* what older writers left out: behind a gzip header without any extra */
	if (n == 0 && ztoc->priv.headless)
		return (struct codec_point){.in_off = 10};
	const uint8_t *at = ztoc->priv.points + HEAD_LEN +
			    (size_t)(n - ztoc->priv.headless) * POINT_LEN;
	struct codec_point point = {
		.in_off = load64(at), .out_off = load64(at + 8), .bits = at[16]};

	point.window_len = MIN(point.out_off, CODEC_WINDOW);
	point.window = at + POINT_LEN - point.window_len;
	return point;
}

static struct codec_point point_of(const struct ztoc *ztoc, uint32_t n)
{
	const uint64_t off = n * ztoc->span_size;

	if (ztoc->codec == CODEC_PLAIN)
		return (struct codec_point){.in_off = off, .out_off = off};
	return gzip_point(ztoc, n);
}

static int check_span(const struct ztoc_span *span, const char **ret_why)
{
	const struct codec_point *point = &span->point;

	if (point->bits > 7 || (point->bits && point->in_off == 0))
		return lie(ret_why, "a span begins at no bit");
	if (point->in_off >= span->in_end || point->out_off >= span->out_end)
		return lie(ret_why, "its spans do not follow each other");
	if (span->in_end - span->in_begin > ZTOC_SPAN_MAX ||
	    span->out_end - point->out_off > ZTOC_SPAN_MAX)
		return lie(ret_why, "a span is too large");
	return 0;
}

int ztoc_span(const struct ztoc *ztoc, uint32_t n, struct ztoc_span *ret, const char **ret_why)
{
	const struct flat flat = flat_of(ztoc);
	struct ztoc_span span = {.in_end = ztoc->blob_size, .out_end = ztoc->decoded_size};
	struct flat_text text;

	if (n >= ztoc->nspans)
		return lie(ret_why, "it has no such span");
	span.point = point_of(ztoc, n);
	span.in_begin = span.point.in_off - (span.point.bits ? 1 : 0);
	if (n + 1 < ztoc->nspans) {
		const struct codec_point next = point_of(ztoc, n + 1);
		span.in_end = next.in_off;
		span.out_end = next.out_off;
	}
	if (!flat_text_of(&flat, &(struct flat_vector){ztoc->priv.digests, ztoc->nspans}, n,
			  &text) ||
	    digest_parse(text.at, &span.digest) < 0 || span.digest.algo != DIGEST_SHA256)
		return lie(ret_why, "a span has no digest");
	int r = check_span(&span, ret_why);
	if (r == 0)
		*ret = span;
	return r;
}

static int open_gzip(const struct flat_vector *bytes, struct ztoc *ztoc, const char **ret_why)
{
	const uint8_t *at = ztoc->priv.data + bytes->pos;
	uint32_t count;

	if (bytes->len < HEAD_LEN)
		return lie(ret_why, "its checkpoints are cut off");
	memcpy(&count, at, sizeof(count));
	count = le32toh(count);
	uint64_t len = HEAD_LEN + (uint64_t)count * POINT_LEN;
	if (!count || (len != bytes->len && len - POINT_LEN != bytes->len))
		return lie(ret_why, "its checkpoints are not as many as it says");
	ztoc->priv.points = at;
	ztoc->priv.headless = len != bytes->len;
	ztoc->nspans = count;
	ztoc->span_size = load64(at + sizeof(count));
	return 0;
}

/* The "checkpoints" are a document in the document. */
static int open_plain(const struct flat_vector *bytes, struct ztoc *ztoc, const char **ret_why)
{
	const struct flat flat = {.data = ztoc->priv.data + bytes->pos, .len = bytes->len};
	struct flat_table table;

	if (!flat_root(&flat, &table))
		return lie(ret_why, "its checkpoints are cut off");
	uint64_t span_size = flat_u64(&flat, &table, TAR_SPAN_SIZE);
	uint64_t size = flat_u64(&flat, &table, TAR_SIZE);
	if (span_size == 0 || span_size > ZTOC_SPAN_MAX || size == 0 || size != ztoc->blob_size ||
	    ztoc->decoded_size > size || (size - 1) / span_size >= UINT32_MAX)
		return lie(ret_why, "its sizes cannot be");
	ztoc->span_size = span_size;
	ztoc->nspans = (uint32_t)((size - 1) / span_size) + 1;
	ztoc->decoded_size = size; /* what follows the archive's end marker too */
	return 0;
}

static int open_spans(const struct flat *flat, const struct flat_table *info, struct ztoc *ztoc,
		      const char **ret_why)
{
	uint8_t algorithm = flat_u8(flat, info, INFO_ALGORITHM, ALGORITHM_GZIP);
	struct flat_vector digests, points;

	if (!flat_vector(flat, info, INFO_DIGESTS, sizeof(uint32_t), &digests) ||
	    !flat_vector(flat, info, INFO_CHECKPOINTS, 1, &points))
		return lie(ret_why, "it has no spans");
	if (algorithm != ALGORITHM_GZIP && algorithm != ALGORITHM_NONE)
		return lie(ret_why, "it is of an unknown compression");
	ztoc->codec = algorithm == ALGORITHM_GZIP ? CODEC_GZIP : CODEC_PLAIN;
	int r = ztoc->codec == CODEC_GZIP ? open_gzip(&points, ztoc, ret_why)
					  : open_plain(&points, ztoc, ret_why);
	if (r < 0)
		return r;
	if (ztoc->nspans > ZTOC_SPANS_MAX)
		return lie(ret_why, "it has too many spans");
	if (digests.len != ztoc->nspans || flat_u32(flat, info, INFO_LAST_SPAN) != ztoc->nspans - 1)
		return lie(ret_why, "its spans and their digests are not as many");
	ztoc->priv.digests = digests.pos;
	return 0;
}

static int check_spans(const struct ztoc *ztoc, const char **ret_why)
{
	struct ztoc_span span;

	for (uint32_t n = 0; n < ztoc->nspans; n++) {
		int r = ztoc_span(ztoc, n, &span, ret_why);
		if (r < 0)
			return r;
		if (n == 0 && (span.point.out_off || span.point.bits))
			return lie(ret_why, "its spans do not begin where the archive does");
	}
	return 0;
}

/* --- the document --- */

static int open_top(const struct flat *flat, struct ztoc *ztoc, struct flat_table *ret_info,
		    const char **ret_why)
{
	struct flat_table top, toc;
	struct flat_vector files;
	struct flat_text version;

	if (!flat_root(flat, &top) || !flat_text(flat, &top, ZTOC_VERSION, &version) ||
	    !flat_table(flat, &top, ZTOC_TOC, &toc) ||
	    !flat_table(flat, &top, ZTOC_COMPRESSION, ret_info))
		return lie(ret_why, "it is no ztoc, or cut off");
	if (strcmp(version.at, "0.9") != 0)
		return lie(ret_why, "it is not of version 0.9");
	if (!flat_vector(flat, &toc, TOC_METADATA, sizeof(uint32_t), &files) ||
	    files.len > ZTOC_FILES_MAX)
		return lie(ret_why, "it has no members, or too many");
	ztoc->priv.files = files.pos;
	ztoc->nfiles = files.len;
	ztoc->blob_size = flat_u64(flat, &top, ZTOC_IN_SIZE);
	ztoc->decoded_size = flat_u64(flat, &top, ZTOC_OUT_SIZE);
	if (ztoc->blob_size > INT64_MAX || ztoc->decoded_size > INT64_MAX)
		return lie(ret_why, "its sizes cannot be");
	return 0;
}

int ztoc_open(const void *data, size_t len, struct ztoc *ret, const char **ret_why)
{
	const struct flat flat = {.data = data, .len = (uint32_t)len};
	struct ztoc ztoc = {.priv = {.data = data, .len = (uint32_t)len}};
	struct flat_table info;

	if (len > ZTOC_MAX)
		return lie(ret_why, "it is too large");
	int r = open_top(&flat, &ztoc, &info, ret_why);
	if (r == 0)
		r = open_spans(&flat, &info, &ztoc, ret_why);
	if (r == 0)
		r = check_spans(&ztoc, ret_why);
	if (r == 0)
		*ret = ztoc;
	return r;
}

/* --- members --- */

static const struct {
	const char *name;
	uint32_t format;
} types[] = {
	{"reg", S_IFREG},  {"dir", S_IFDIR},   {"symlink", S_IFLNK}, {"hardlink", 0},
	{"char", S_IFCHR}, {"block", S_IFBLK}, {"fifo", S_IFIFO},
};

/* What a member's type means for it. */
static int set_type(const char *type, const char *link, struct tar_member *member)
{
	size_t i = 0;

	while (i < ARRAY_SIZE(types) && strcmp(types[i].name, type) != 0)
		i++;
	if (i == ARRAY_SIZE(types))
		return -EINVAL;
	if (types[i].format == 0)
		member->hard_link = link;
	if (types[i].format == S_IFLNK)
		member->symlink = link;
	member->mode |= types[i].format ? types[i].format : S_IFREG;
	return 0;
}

#define TOO_LARGE "its members are too large together"

/* Counts TEXT in; false: it is too much, of all members together. A FlatBuffer may refer to the
 * same string any number of times: its own length is no bound for the work. */
static bool count_in(struct ztoc_scratch *scratch, const struct flat_text *text)
{
	scratch->strings += text->len + 1;
	return scratch->strings <= ZTOC_MAX;
}

static bool read_text(const struct flat *flat, const struct flat_table *table, unsigned field,
		      struct ztoc_scratch *scratch, struct flat_text *ret)
{
	return flat_text(flat, table, field, ret) && count_in(scratch, ret);
}

/* The schema's xattrs are all PAX records of the member: most are in its other fields already. */
static int read_xattrs(const struct flat *flat, const struct flat_table *file,
		       struct ztoc_scratch *scratch, struct tar_member *member)
{
	static const char xattr[] = "SCHILY.xattr.", sparse[] = "GNU.sparse.";
	struct flat_vector records;
	struct flat_table record;
	struct flat_text key, value;

	if (!flat_vector(flat, file, FILE_XATTRS, sizeof(uint32_t), &records))
		return 0;
	if (records.len > ZTOC_XATTRS_MAX)
		return -EINVAL;
	member->xattrs = scratch->xattrs;
	for (uint32_t i = 0; i < records.len; i++) {
		if (!flat_table_of(flat, &records, i, &record) ||
		    !read_text(flat, &record, XATTR_KEY, scratch, &key) ||
		    !flat_bytes(flat, &record, XATTR_VALUE, &value) || !count_in(scratch, &value))
			return -EINVAL;
		if (strncmp(key.at, sparse, strlen(sparse)) == 0)
			member->sparse = true;
		if (strncmp(key.at, xattr, strlen(xattr)) == 0 && key.at[strlen(xattr)])
			scratch->xattrs[member->nxattrs++] = (struct tar_xattr){
				key.at + strlen(xattr), value.at, value.len};
	}
	return 0;
}

static int read_data(const struct ztoc *ztoc, const struct flat_table *file,
		     struct tar_member *member)
{
	const struct flat flat = flat_of(ztoc);
	uint64_t off = flat_u64(&flat, file, FILE_OFF), size = flat_u64(&flat, file, FILE_SIZE);

	if (!S_ISREG(member->mode) || member->hard_link)
		return 0;
	/* a sparse file's size is what it looks like, not what the archive holds of it */
	if (off > ztoc->decoded_size || size > INT64_MAX ||
	    (!member->sparse && size > ztoc->decoded_size - off))
		return -EINVAL;
	member->data_off = off;
	member->size = size;
	return 0;
}

static void read_numbers(const struct flat *flat, const struct flat_table *file,
			 struct tar_member *member)
{
	member->mode = (uint32_t)flat_u64(flat, file, FILE_MODE) & 07777;
	member->uid = flat_u32(flat, file, FILE_UID);
	member->gid = flat_u32(flat, file, FILE_GID);
}

static void read_device(const struct flat *flat, const struct flat_table *file,
			struct tar_member *member)
{
	if (!S_ISCHR(member->mode) && !S_ISBLK(member->mode))
		return;
	member->rdev_major = (uint32_t)flat_u64(flat, file, FILE_MAJOR);
	member->rdev_minor = (uint32_t)flat_u64(flat, file, FILE_MINOR);
}

int ztoc_member(const struct ztoc *ztoc, uint32_t n, struct ztoc_scratch *scratch,
		struct tar_member *ret, const char **ret_why)
{
	const struct flat flat = flat_of(ztoc);
	const struct flat_vector files = {ztoc->priv.files, ztoc->nfiles};
	struct flat_text name, type, link, time;
	struct tar_member member = {0};
	struct flat_table file;

	if (n >= ztoc->nfiles || !flat_table_of(&flat, &files, n, &file) ||
	    !read_text(&flat, &file, FILE_NAME, scratch, &name) ||
	    !read_text(&flat, &file, FILE_TYPE, scratch, &type) ||
	    !read_text(&flat, &file, FILE_LINK, scratch, &link) ||
	    !read_text(&flat, &file, FILE_TIME, scratch, &time))
		return lie(ret_why,
			   scratch->strings > ZTOC_MAX ? TOO_LARGE : "a member is cut off");
	member.path = name.at;
	read_numbers(&flat, &file, &member);
	if (set_type(type.at, link.at, &member) < 0)
		return lie(ret_why, "a member is of an unknown type");
	read_device(&flat, &file, &member);
	if (time.len && oci_time_parse(time.at, &member.mtime_sec, &member.mtime_nsec) < 0)
		return lie(ret_why, "a time in it makes no sense");
	if (read_xattrs(&flat, &file, scratch, &member) < 0)
		return lie(ret_why, scratch->strings > ZTOC_MAX
					    ? TOO_LARGE
					    : "a member's attributes are cut off, or too many");
	if (read_data(ztoc, &file, &member) < 0)
		return lie(ret_why, "a file's data would lie outside of the archive");
	*ret = member;
	return 0;
}
