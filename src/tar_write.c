/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tar_write: a member to its header blocks: ustar (IEEE Std 1003.1-1988), with a PAX header before
 * it (POSIX.1-2001, pax, "Extended Header") for what ustar cannot hold.
 * Knows formats only. Must not know reading (tar.c) or where the bytes go.
 */
#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "regfs/tar.h"

#define BLOCK	       512
#define PAX_MAX	       (1 * MIB) /* the longest that readers accept (libarchive) */
#define PAX_NAME       "PaxHeader"
#define XATTR_PREFIX   "SCHILY.xattr."
#define NANOS_PER_SEC  1000000000
#define LENGTH_DIGITS  20 /* of a record's length */
#define TYPE_HARD_LINK '1'
#define TYPE_PAX       'x'

struct ustar {
	char name[100];
	char mode[8];
	char uid[8];
	char gid[8];
	char size[12];
	char mtime[12];
	char checksum[8];
	char type;
	char linkname[100];
	char magic[6];
	char version[2];
	char uname[32];
	char gname[32];
	char devmajor[8];
	char devminor[8];
	char prefix[155];
	char unused[12];
};
_Static_assert(sizeof(struct ustar) == BLOCK, "a header is one block");

/* Octal with a NUL behind it. False if VALUE does not fit; the field is then 0. */
static bool put_octal(char *field, size_t size, uint64_t value)
{
	bool fits = value >> (3 * (size - 1)) == 0;
	size_t i = size - 1;

	if (!fits)
		value = 0;
	field[i] = '\0';
	while (i-- > 0) {
		field[i] = (char)('0' + (value & 7));
		value >>= 3;
	}
	return fits;
}

static bool put_string(char *field, size_t size, const char *str)
{
	size_t len = strlen(str);

	if (len > size)
		return false;
	memcpy(field, str, len);
	return true;
}

/* NAME, or PREFIX '/' NAME. False if neither holds PATH. */
static bool put_path(struct ustar *header, const char *path)
{
	size_t len = strlen(path);

	if (put_string(header->name, sizeof(header->name), path))
		return true;
	if (len > sizeof(header->prefix) + 1 + sizeof(header->name))
		return false;
	/* Readers put exactly one slash between the two: a prefix that ends in one loses it. */
	for (size_t i = len - sizeof(header->name) - 1; i <= sizeof(header->prefix) && i + 1 < len;
	     i++) {
		if (path[i] != '/' || i == 0 || path[i - 1] == '/')
			continue;
		memcpy(header->prefix, path, i);
		memcpy(header->name, path + i + 1, len - i - 1);
		return true;
	}
	return false;
}

static void put_checksum(struct ustar *header)
{
	const uint8_t *bytes = (const uint8_t *)header;
	uint64_t sum = 0;

	memset(header->checksum, ' ', sizeof(header->checksum));
	for (size_t i = 0; i < sizeof(*header); i++)
		sum += bytes[i];
	put_octal(header->checksum, sizeof(header->checksum) - 1, sum);
}

/* "LEN KEY=VALUE\n", where LEN counts its own digits. */
static int add_record(struct buf *records, const char *key, const void *value, size_t len)
{
	char digits[LENGTH_DIGITS + 2];
	size_t rest = 1 + strlen(key) + 1 + len + 1;
	size_t total = rest;
	int ndigits = 0, rc;

	do {
		total = rest + (size_t)ndigits;
		ndigits = snprintf(digits, sizeof(digits), "%zu ", total) - 1;
	} while (total != rest + (size_t)ndigits);
	rc = buf_reserve(records, total);
	if (rc < 0)
		return rc;
	/* None of these can fail now. */
	buf_puts(records, digits);
	buf_puts(records, key);
	buf_add(records, "=", 1);
	buf_add(records, value, len);
	return buf_add(records, "\n", 1);
}

static int add_text(struct buf *records, const char *key, const char *value)
{
	return add_record(records, key, value, strlen(value));
}

static int add_number(struct buf *records, const char *key, uint64_t value)
{
	char text[LENGTH_DIGITS + 1];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	return add_text(records, key, text);
}

/* PAX times are decimal fractions: 1.5 s before the epoch is "-1.5", not -2 and 500 ms. */
static int add_time(struct buf *records, int64_t sec, uint32_t nsec)
{
	char text[LENGTH_DIGITS + 12];
	bool negative = sec < 0;
	uint64_t whole = negative ? -(uint64_t)sec : (uint64_t)sec;
	size_t len;

	if (negative && nsec) {
		whole--;
		nsec = NANOS_PER_SEC - nsec;
	}
	len = (size_t)snprintf(text, sizeof(text), "%s%" PRIu64 ".%09" PRIu32, negative ? "-" : "",
			       whole, nsec);
	while (text[len - 1] == '0')
		len--;
	if (text[len - 1] == '.')
		len--;
	return add_record(records, "mtime", text, len);
}

static int add_xattr(struct buf *records, const struct tar_xattr *xattr)
{
	AUTO_FREE char *key = NULL;

	/* A record's key ends at its first '='. */
	if (!*xattr->name || strchr(xattr->name, '='))
		return -EINVAL;
	key = format(XATTR_PREFIX "%s", xattr->name);
	return key ? add_record(records, key, xattr->value, xattr->len) : -ENOMEM;
}

static int type_of(const struct tar_member *member)
{
	if (member->hard_link)
		return TYPE_HARD_LINK;
	switch (member->mode & S_IFMT) {
	case S_IFREG:
		return '0';
	case S_IFLNK:
		return member->symlink ? '2' : -EINVAL;
	case S_IFCHR:
		return '3';
	case S_IFBLK:
		return '4';
	case S_IFDIR:
		return '5';
	case S_IFIFO:
		return '6';
	default:
		return -EINVAL;
	}
}

/* Owners, size and time; what does not fit goes to RECORDS. */
static int put_numbers(struct ustar *header, const struct tar_member *member, struct buf *records)
{
	bool old = member->mtime_sec >= 0 && member->mtime_nsec == 0;
	int rc = 0;

	put_octal(header->mode, sizeof(header->mode), member->mode & 07777);
	if (!put_octal(header->uid, sizeof(header->uid), member->uid))
		rc = add_number(records, "uid", member->uid);
	if (rc == 0 && !put_octal(header->gid, sizeof(header->gid), member->gid))
		rc = add_number(records, "gid", member->gid);
	if (!put_octal(header->size, sizeof(header->size),
		       header->type == '0' ? member->size : 0) &&
	    rc == 0)
		rc = add_number(records, "size", member->size);
	if (!put_octal(header->mtime, sizeof(header->mtime), (uint64_t)MAX(member->mtime_sec, 0)))
		old = false;
	if (rc == 0 && !old)
		rc = add_time(records, member->mtime_sec, member->mtime_nsec);
	return rc;
}

static int put_device(struct ustar *header, const struct tar_member *member)
{
	bool device = header->type == '3' || header->type == '4';

	if (!put_octal(header->devmajor, sizeof(header->devmajor),
		       device ? member->rdev_major : 0) ||
	    !put_octal(header->devminor, sizeof(header->devminor), device ? member->rdev_minor : 0))
		return -EINVAL;
	return 0;
}

static int fill_header(struct ustar *header, const struct tar_member *member, struct buf *records)
{
	const char *link = member->hard_link;
	bool path_fits, link_fits;
	int rc = type_of(member);

	if (rc < 0)
		return rc;
	header->type = (char)rc;
	if (header->type == '2')
		link = member->symlink;
	memcpy(header->magic, "ustar", sizeof(header->magic));
	memcpy(header->version, "00", sizeof(header->version));
	path_fits = put_path(header, member->path);
	link_fits = !link || put_string(header->linkname, sizeof(header->linkname), link);
	/* Readers that know no PAX get the beginning; libarchive needs some link for a link. */
	if (!path_fits)
		memcpy(header->name, member->path, sizeof(header->name));
	if (!link_fits)
		memcpy(header->linkname, link, sizeof(header->linkname));
	/* Names that are not UTF-8 stay as they are, as GNU tar and Go have them: readers take the
	 * bytes, and GNU tar complains of "hdrcharset". */
	rc = path_fits ? 0 : add_text(records, "path", member->path);
	if (rc == 0 && !link_fits)
		rc = add_text(records, "linkpath", link);
	if (rc == 0)
		rc = put_device(header, member);
	if (rc == 0)
		rc = put_numbers(header, member, records);
	for (size_t i = 0; rc == 0 && i < member->nxattrs; i++)
		rc = add_xattr(records, &member->xattrs[i]);
	put_checksum(header);
	return rc;
}

static void pax_header(struct ustar *header, size_t size)
{
	*header = (struct ustar){.name = PAX_NAME, .type = TYPE_PAX};
	memcpy(header->magic, "ustar", sizeof(header->magic));
	memcpy(header->version, "00", sizeof(header->version));
	put_octal(header->mode, sizeof(header->mode), 0644);
	put_octal(header->uid, sizeof(header->uid), 0);
	put_octal(header->gid, sizeof(header->gid), 0);
	put_octal(header->size, sizeof(header->size), size);
	put_octal(header->mtime, sizeof(header->mtime), 0);
	put_octal(header->devmajor, sizeof(header->devmajor), 0);
	put_octal(header->devminor, sizeof(header->devminor), 0);
	put_checksum(header);
}

int tar_header(const struct tar_member *member, struct buf *ret)
{
	static const char zeros[BLOCK];
	AUTO_BUF struct buf records = BUF_INIT(PAX_MAX);
	struct ustar header = {0};
	size_t padding;
	int rc;

	if (!member->path || !*member->path)
		return -EINVAL;
	rc = fill_header(&header, member, &records);
	if (rc < 0)
		return rc;
	padding = tar_padding(records.len);
	rc = buf_reserve(ret, 2 * BLOCK + records.len + padding);
	if (rc < 0)
		return rc;
	if (records.len) {
		struct ustar pax;

		pax_header(&pax, records.len);
		buf_add(ret, &pax, sizeof(pax));
		buf_add(ret, records.data, records.len);
		buf_add(ret, zeros, padding);
	}
	return buf_add(ret, &header, sizeof(header));
}
