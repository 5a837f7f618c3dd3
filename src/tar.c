/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tar: the bytes of an archive to members, by libarchive.
 * The only user of libarchive, and of it the tar format alone. Must not know compression, nor what
 * a name means.
 *
 * libarchive converts PAX names (UTF-8) to the thread's locale, and in a UTF-8 locale it also
 * normalises them, which changes them. In the C locale the conversion of what is not ASCII fails,
 * and then it keeps the bytes as they are: so a scan runs in the C locale, and that failure is
 * none.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <sys/stat.h>

#include "regfs/tar.h"

#define NANOS_PER_SEC 1000000000
#define BLOCK	      512
#define PIECE_MAX     (1 * MIB)	 /* what libarchive gets at a time */
#define HEADERS_MAX   (16 * MIB) /* of one member, a sparse map in its data included */
#define XATTRS_MAX    4096	 /* names of one member */

struct scan {
	const struct tar_source *source;
	struct archive *archive;
	const uint8_t *rest; /* of the source's last block */
	size_t rest_len;
	int failed; /* the source's error */
	bool in_headers;
	uint64_t header_bytes; /* read since the member's headers began */
	uint64_t header_off;
	uint64_t next_off; /* where the next header must be; 0: unknown */
	uint64_t data_end; /* of the last member, where next_off is known */
	uint64_t given;	   /* bytes of the source that libarchive had, or passed over */
	bool ended;	   /* the source has no more */
	struct tar_xattr *xattrs;
	size_t xattrs_cap;
	struct tar_extent *extents;
	size_t extents_cap;
	char *why;
	size_t why_len;
};

static int damaged(struct scan *scan, const char *reason)
{
	if (scan->why_len)
		snprintf(scan->why, scan->why_len,
			 "not a whole tar archive: at byte %" PRIu64 ": %s", scan->header_off,
			 reason);
	return -EINVAL;
}

/* --- libarchive's callbacks --- */

/* 1: rest is there; 0: the end; negative: the source's error. */
static int refill(struct scan *scan)
{
	const void *block = NULL;
	ssize_t len;

	if (scan->failed || scan->rest_len)
		return scan->failed ? scan->failed : 1;
	len = scan->source->read(scan->source->arg, &block);
	if (len < 0) {
		scan->failed = (int)len;
		return scan->failed;
	}
	scan->rest = block;
	scan->rest_len = (size_t)len;
	scan->ended = len == 0;
	return len > 0;
}

static la_ssize_t on_read(struct archive *archive, void *arg, const void **ret)
{
	struct scan *scan = arg;
	size_t len;
	int rc = refill(scan);

	if (rc <= 0) {
		if (rc < 0)
			archive_set_error(archive, -rc, "the source failed");
		return rc;
	}
	/* A sparse map becomes a list of much larger things: it needs a cap. */
	if (scan->in_headers && scan->header_bytes > HEADERS_MAX) {
		archive_set_error(archive, EINVAL, "Headers too large");
		return -1;
	}
	len = MIN(scan->rest_len, PIECE_MAX);
	*ret = scan->rest;
	scan->rest += len;
	scan->rest_len -= len;
	scan->given += len;
	scan->header_bytes += len;
	return (la_ssize_t)len;
}

static la_int64_t on_skip(struct archive *archive, void *arg, la_int64_t request)
{
	struct scan *scan = arg;
	int64_t buffered = MIN(request, (int64_t)scan->rest_len);
	int64_t skipped;

	(void)archive;
	scan->rest += buffered;
	scan->rest_len -= (size_t)buffered;
	scan->given += (uint64_t)buffered;
	if (buffered == request || !scan->source->skip || scan->failed)
		return buffered;
	skipped = scan->source->skip(scan->source->arg, request - buffered);
	if (skipped < 0) {
		/* libarchive would take it for progress; the next read will tell. */
		scan->failed = (int)skipped;
		return buffered;
	}
	scan->given += (uint64_t)skipped;
	return buffered + skipped;
}

/* --- an entry to a member --- */

static int member_xattrs(struct scan *scan, struct archive_entry *entry, struct tar_member *member)
{
	size_t count = (size_t)archive_entry_xattr_reset(entry);
	const char *name;
	const void *value;
	size_t len, first = count;

	if (count == 0)
		return 0;
	if (count > XATTRS_MAX)
		return damaged(scan, "too many extended attributes");
	if (count > scan->xattrs_cap) {
		struct tar_xattr *grown = reallocarray(scan->xattrs, count, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		scan->xattrs = grown;
		scan->xattrs_cap = count;
	}
	/* They come last one first; of one name the last counts. */
	while (archive_entry_xattr_next(entry, &name, &value, &len) == ARCHIVE_OK) {
		size_t i = first;

		while (i < count && strcmp(scan->xattrs[i].name, name) != 0)
			i++;
		if (i == count && first > 0)
			scan->xattrs[--first] = (struct tar_xattr){name, value, len};
	}
	member->xattrs = scan->xattrs + first;
	member->nxattrs = count - first;
	return 0;
}

/* Returns through RET_STORED how many bytes of data the archive holds. */
static int member_extents(struct scan *scan, struct archive_entry *entry, struct tar_member *member,
			  uint64_t *ret_stored)
{
	size_t count = (size_t)archive_entry_sparse_reset(entry);
	uint64_t end = 0, stored = 0;
	la_int64_t off, len;

	member->sparse = count > 0;
	if (count > scan->extents_cap) {
		struct tar_extent *grown = reallocarray(scan->extents, count, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		scan->extents = grown;
		scan->extents_cap = count;
	}
	member->extents = scan->extents;
	while (member->nextents < count &&
	       archive_entry_sparse_next(entry, &off, &len) == ARCHIVE_OK) {
		if (off < 0 || len < 0 || (uint64_t)off < end ||
		    (uint64_t)off + (uint64_t)len > member->size)
			return damaged(scan, "a sparse map that cannot be");
		end = (uint64_t)off + (uint64_t)len;
		stored += (uint64_t)len;
		if (len)
			scan->extents[member->nextents++] = (struct tar_extent){end - len, len};
		else
			count--;
	}
	*ret_stored = member->sparse ? stored : member->size;
	return 0;
}

static uint32_t member_mode(struct archive_entry *entry, bool hard_link)
{
	uint32_t type = hard_link ? S_IFREG : archive_entry_filetype(entry);

	switch (type) {
	case S_IFLNK:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFDIR:
	case S_IFIFO:
		break;
	default:
		type = S_IFREG;
	}
	return type | (archive_entry_perm(entry) & 07777);
}

/* Ids are 32 bits; base-256 fields can hold negative ones, which some writers meant. */
static bool id_fits(int64_t id)
{
	return id >= INT32_MIN && id <= UINT32_MAX;
}

static int member_numbers(struct scan *scan, struct archive_entry *entry, struct tar_member *member)
{
	int64_t uid = archive_entry_uid(entry), gid = archive_entry_gid(entry);
	long nsec = archive_entry_mtime_nsec(entry);

	if (!id_fits(uid) || !id_fits(gid))
		return damaged(scan, "an owner of more than 32 bits");
	member->uid = (uint32_t)uid;
	member->gid = (uint32_t)gid;
	member->mtime_sec = archive_entry_mtime(entry);
	member->mtime_nsec = (uint32_t)nsec;
	/* libarchive reads the PAX time "-1.5" as -1 s and +500 ms. */
	if (member->mtime_sec < 0 && member->mtime_sec > INT64_MIN && nsec > 0) {
		member->mtime_sec--;
		member->mtime_nsec = NANOS_PER_SEC - (uint32_t)nsec;
	}
	if (S_ISCHR(member->mode) || S_ISBLK(member->mode)) {
		member->rdev_major = (uint32_t)archive_entry_rdevmajor(entry);
		member->rdev_minor = (uint32_t)archive_entry_rdevminor(entry);
	}
	return 0;
}

static int member_data(struct scan *scan, struct archive_entry *entry, struct tar_member *member)
{
	int64_t size = archive_entry_size(entry);
	uint64_t stored = 0;
	int rc;

	scan->next_off = 0;
	member->data_off = (uint64_t)archive_filter_bytes(scan->archive, 0);
	if (!S_ISREG(member->mode) || member->hard_link)
		return 0;
	if (size < 0)
		return damaged(scan, "a negative size");
	member->size = (uint64_t)size;
	rc = member_extents(scan, entry, member, &stored);
	if (rc < 0)
		return rc;
	if (stored > INT64_MAX - member->data_off)
		return damaged(scan, "a size that cannot be");
	scan->data_end = member->data_off + stored;
	scan->next_off = scan->data_end + tar_padding(stored);
	return 0;
}

static int scan_member(struct scan *scan, struct archive_entry *entry, tar_member_fn *fn, void *arg)
{
	struct tar_member member = {
		.path = archive_entry_pathname(entry),
		.hard_link = archive_entry_hardlink(entry),
		.header_off = scan->header_off,
	};
	int rc;

	if (!member.path)
		return damaged(scan, "a member without a name");
	member.mode = member_mode(entry, member.hard_link != NULL);
	if (S_ISLNK(member.mode)) {
		member.symlink = archive_entry_symlink(entry);
		if (!member.symlink)
			return damaged(scan, "a symbolic link without a target");
	}
	rc = member_numbers(scan, entry, &member);
	if (rc == 0)
		rc = member_data(scan, entry, &member);
	if (rc == 0)
		rc = member_xattrs(scan, entry, &member);
	return rc < 0 ? rc : fn(arg, &member);
}

/* --- the walk --- */

/* What a failure of libarchive is: the source's error, or a sentence. */
static int scan_failure(struct scan *scan)
{
	const char *reason = archive_error_string(scan->archive);

	if (scan->failed)
		return scan->failed;
	if (archive_errno(scan->archive) == ENOMEM)
		return -ENOMEM;
	return damaged(scan, reason ? reason : "damaged");
}

/*
 * 1: *RET is the next member's entry; 0: the end. A size that is not that of the data (a lying
 * sparse header) would give a member the bytes of the next ones.
 */
static int next_entry(struct scan *scan, struct archive_entry **ret)
{
	int rc;

	scan->header_off = (uint64_t)archive_filter_bytes(scan->archive, 0);
	if (scan->next_off && scan->next_off != scan->header_off)
		return damaged(scan, "the size of the member before is not that of its data");
	scan->in_headers = true;
	scan->header_bytes = 0;
	rc = archive_read_next_header(scan->archive, ret);
	scan->in_headers = false;
	if (rc == ARCHIVE_EOF)
		return 0;
	/* A name that was not converted; see the top. Other warnings tell of lost information. */
	if (rc == ARCHIVE_WARN && archive_errno(scan->archive) == EILSEQ)
		return 1;
	return rc == ARCHIVE_OK ? 1 : scan_failure(scan);
}

/* What the source has no more of is no loss: 0 if it only fills up the last block of the last
 * member. umoci insert leaves that and the end mark out, and who unpacks layers does not miss them.
 */
static int end_early(struct scan *scan)
{
	if (!scan->ended || scan->failed || !scan->next_off || scan->given < scan->data_end ||
	    scan->given >= scan->next_off)
		return scan_failure(scan);
	scan->header_off = (uint64_t)archive_filter_bytes(scan->archive, 0);
	return 0;
}

static int scan_members(struct scan *scan, tar_member_fn *fn, void *arg)
{
	struct archive_entry *entry;
	int rc;

	while ((rc = next_entry(scan, &entry)) > 0) {
		rc = scan_member(scan, entry, fn, arg);
		if (rc != 0)
			return rc;
		if (archive_read_data_skip(scan->archive) < ARCHIVE_WARN)
			return end_early(scan);
	}
	return rc;
}

/* Some digest goes over all of the source. */
static int drain(struct scan *scan)
{
	int rc;

	while ((rc = refill(scan)) > 0)
		scan->rest_len = 0;
	return rc;
}

static int scan_archive(struct scan *scan, tar_member_fn *fn, void *arg, bool *ret_marker)
{
	int rc;

	if (archive_read_support_format_tar(scan->archive) != ARCHIVE_OK)
		return -ENOMEM;
	archive_read_set_read_callback(scan->archive, on_read);
	archive_read_set_skip_callback(scan->archive, on_skip);
	archive_read_set_callback_data(scan->archive, scan);
	if (archive_read_open1(scan->archive) != ARCHIVE_OK)
		return scan_failure(scan);
	rc = scan_members(scan, fn, arg);
	if (rc != 0)
		return rc;
	*ret_marker = (uint64_t)archive_filter_bytes(scan->archive, 0) - scan->header_off >=
		      TAR_TRAILER;
	return scan->source->to_marker ? 0 : drain(scan);
}

static void scan_release(struct scan *scan)
{
	archive_read_free(scan->archive);
	free(scan->xattrs);
	free(scan->extents);
}

static int scan_in_c_locale(struct scan *scan, tar_member_fn *fn, void *arg, bool *ret_marker)
{
	locale_t c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
	locale_t before;
	int rc;

	if (!c_locale)
		return -ENOMEM;
	before = uselocale(c_locale);
	rc = scan_archive(scan, fn, arg, ret_marker);
	uselocale(before);
	freelocale(c_locale);
	return rc;
}

int tar_scan(const struct tar_source *source, tar_member_fn *fn, void *arg, bool *ret_marker,
	     char *ret_why, size_t why_len)
{
	CLEANUP(scan_release)
	struct scan scan = {.source = source, .why = ret_why, .why_len = why_len};
	bool marker = false;
	/* libarchive knows no empty archive. */
	int rc = refill(&scan);

	if (rc > 0) {
		scan.archive = archive_read_new();
		rc = scan.archive ? scan_in_c_locale(&scan, fn, arg, &marker) : -ENOMEM;
	}
	if (rc == 0 && ret_marker)
		*ret_marker = marker;
	return rc;
}
