// SPDX-License-Identifier: Apache-2.0
/*
 * tar: any bytes as an archive (the first byte chooses; checksums are mended so that mutations get
 * past them): what is said of members holds, and is the same for all sizes of pieces. And a
 * member made of any bytes: its header, scanned, is the member.
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "regfs/tar.h"

#define BLOCK	   512
#define MAGIC_OFF  257
#define SUM_OFF	   148
#define XATTRS_MAX 4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(bool holds)
{
	if (!holds)
		__builtin_trap();
}

struct input {
	const uint8_t *data;
	size_t len, off, piece;
};

static ssize_t give(void *arg, const void **ret)
{
	struct input *input = arg;
	size_t len = MIN(input->piece, input->len - input->off);

	*ret = input->data + input->off;
	input->off += len;
	return (ssize_t)len;
}

static int64_t skip(void *arg, int64_t len)
{
	struct input *input = arg;
	size_t step = MIN((uint64_t)len, input->len - input->off);

	input->off += step;
	return (int64_t)step;
}

struct summary {
	uint64_t count, hash, last_header, end;
};

static uint64_t hash_string(uint64_t hash, const char *str)
{
	return str ? hash64(hash, str, strlen(str)) : hash + 1;
}

static void check_extents(struct summary *summary, const struct tar_member *member)
{
	uint64_t end = 0, stored = 0;

	for (size_t i = 0; i < member->nextents; i++) {
		const struct tar_extent *extent = &member->extents[i];

		check(extent->len > 0 && extent->off >= end);
		check(extent->len <= member->size && extent->off <= member->size - extent->len);
		end = extent->off + extent->len;
		stored += extent->len;
	}
	summary->end = member->data_off + (member->sparse ? stored : member->size);
	summary->hash = hash64(summary->hash, member->extents,
			       member->nextents * sizeof(*member->extents));
}

static int on_member(void *arg, const struct tar_member *member)
{
	struct summary *summary = arg;
	const uint64_t numbers[] = {
		member->mode,
		member->uid,
		member->gid,
		member->size,
		member->mtime_nsec,
		member->header_off,
		member->data_off,
		member->nextents,
		member->rdev_major,
		member->rdev_minor,
		(uint64_t)member->mtime_sec,
		member->sparse,
	};

	check(member->path != NULL);
	check(member->mtime_nsec < 1000000000);
	check(summary->count == 0 || member->header_off > summary->last_header);
	check(member->data_off >= member->header_off + BLOCK);
	check(S_ISREG(member->mode) ? !member->symlink : member->size == 0 && !member->sparse);
	check(!S_ISLNK(member->mode) || member->symlink);
	check(member->sparse || member->nextents == 0);
	check_extents(summary, member);
	summary->count++;
	summary->last_header = member->header_off;
	summary->hash = hash64(summary->hash, numbers, sizeof(numbers));
	summary->hash = hash_string(summary->hash, member->path);
	summary->hash = hash_string(summary->hash, member->hard_link);
	summary->hash = hash_string(summary->hash, member->symlink);
	for (size_t i = 0; i < member->nxattrs; i++) {
		summary->hash = hash_string(summary->hash, member->xattrs[i].name);
		summary->hash = hash64(summary->hash, member->xattrs[i].value,
				       member->xattrs[i].len);
	}
	return 0;
}

static int scan(const uint8_t *data, size_t len, size_t piece, bool skips, struct summary *ret)
{
	struct input input = {.data = data, .len = len, .piece = piece};
	const struct tar_source source = {give, skips ? skip : NULL, &input};
	char why[200] = "";
	bool marker = false;
	int rc;

	*ret = (struct summary){0};
	rc = tar_scan(&source, on_member, ret, &marker, why, sizeof(why));
	check(rc == 0 || (rc == -EINVAL && *why));
	check(rc < 0 || (input.off == len && ret->end <= len));
	check(!marker || len >= TAR_TRAILER);
	return rc;
}

static void mend_checksums(uint8_t *data, size_t len)
{
	for (size_t off = 0; off + BLOCK <= len; off += BLOCK) {
		uint8_t *block = data + off;
		unsigned int sum = 8 * ' ';
		char text[8];

		if (memcmp(block + MAGIC_OFF, "ustar", 5) != 0)
			continue;
		for (size_t i = 0; i < BLOCK; i++)
			if (i < SUM_OFF || i >= SUM_OFF + 8)
				sum += block[i];
		snprintf(text, sizeof(text), "%06o", sum & 0777777);
		memcpy(block + SUM_OFF, text, 7);
		block[SUM_OFF + 7] = ' ';
	}
}

static void fuzz_scan(uint8_t *data, size_t len, uint8_t choice)
{
	struct summary one, other;
	int rc;

	mend_checksums(data, len);
	rc = scan(data, len, len + 1, false, &one);
	check(scan(data, len, 1 + (size_t)choice * choice, choice & 1, &other) == rc);
	check(rc < 0 || one.hash == other.hash);
}

/* --- headers --- */

struct bytes {
	const uint8_t *data;
	size_t len;
};

static uint64_t take(struct bytes *bytes, size_t len)
{
	uint64_t value = 0;

	len = MIN(len, bytes->len);
	if (len)
		memcpy(&value, bytes->data, len);
	bytes->data += len;
	bytes->len -= len;
	return value;
}

/* Up to a NUL, or the end. Freed by the caller. */
static char *take_string(struct bytes *bytes)
{
	size_t len = bytes->len ? strnlen((const char *)bytes->data, bytes->len) : 0;
	char *str = calloc(1, len + 1);

	check(str != NULL);
	if (len)
		memcpy(str, bytes->data, len);
	len = MIN(len + 1, bytes->len);
	bytes->data += len;
	bytes->len -= len;
	return str;
}

static int compare_member(void *arg, const struct tar_member *found)
{
	const struct tar_member *made = arg;

	check(strcmp(found->path, made->path) == 0);
	check(found->mode == made->mode);
	check(found->uid == made->uid && found->gid == made->gid);
	check(!made->hard_link == !found->hard_link);
	check(!made->hard_link || strcmp(found->hard_link, made->hard_link) == 0);
	check(!S_ISLNK(made->mode) || strcmp(found->symlink, made->symlink) == 0);
	check(found->mtime_sec == made->mtime_sec && found->mtime_nsec == made->mtime_nsec);
	check(found->rdev_major == made->rdev_major && found->rdev_minor == made->rdev_minor);
	for (size_t i = 0; i < found->nxattrs; i++) {
		const struct tar_xattr *xattr = &made->xattrs[made->nxattrs - found->nxattrs + i];

		/* Names can be double; then the last counts. */
		if (found->nxattrs == made->nxattrs)
			check(strcmp(xattr->name, found->xattrs[i].name) == 0 &&
			      xattr->len == found->xattrs[i].len &&
			      memcmp(xattr->value, found->xattrs[i].value, xattr->len) == 0);
	}
	return 0;
}

static void scan_back(const struct tar_member *member)
{
	AUTO_BUF struct buf archive = BUF_INIT(4 * MIB);
	struct input input = {.piece = SIZE_MAX};
	const struct tar_source source = {give, NULL, &input};
	char why[200] = "";

	if (tar_header(member, &archive) < 0)
		return;
	check(archive.len % BLOCK == 0);
	input.data = (uint8_t *)archive.data;
	input.len = archive.len;
	check(tar_scan(&source, compare_member, (void *)member, NULL, why, sizeof(why)) == 0);
}

static uint32_t mode_of(uint64_t value)
{
	static const uint32_t types[] = {S_IFREG, S_IFDIR, S_IFLNK, S_IFCHR, S_IFBLK, S_IFIFO};

	return types[(value >> 12) % ARRAY_SIZE(types)] | (value & 07777);
}

static void fuzz_header(struct bytes bytes)
{
	struct tar_xattr xattrs[XATTRS_MAX] = {0};
	struct tar_member member = {.xattrs = xattrs};
	uint64_t kind = take(&bytes, 2);

	member.mode = mode_of(kind);
	member.uid = (uint32_t)take(&bytes, 4);
	member.gid = (uint32_t)take(&bytes, 4);
	member.mtime_sec = (int64_t)take(&bytes, 8) >> (1 + (kind & 31));
	member.mtime_nsec = (uint32_t)(take(&bytes, 4) % 1000000000);
	if (S_ISCHR(member.mode) || S_ISBLK(member.mode)) {
		member.rdev_major = (uint32_t)take(&bytes, 3);
		member.rdev_minor = (uint32_t)take(&bytes, 3);
	}
	member.nxattrs = take(&bytes, 1) % XATTRS_MAX;
	member.path = take_string(&bytes);
	member.symlink = take_string(&bytes);
	if (S_ISREG(member.mode) && kind & 1)
		member.hard_link = take_string(&bytes);
	for (size_t i = 0; i < member.nxattrs; i++) {
		xattrs[i].name = take_string(&bytes);
		xattrs[i].len = take(&bytes, 1);
		xattrs[i].len = MIN(xattrs[i].len, bytes.len);
		xattrs[i].value = bytes.data;
	}
	/* What libarchive cannot: an empty link, "-0.5" seconds, a file with a directory's name. */
	if (*member.path && !ends_with(member.path, "/") &&
	    (!S_ISLNK(member.mode) || *member.symlink) &&
	    (!member.hard_link || *member.hard_link) &&
	    (member.mtime_sec != -1 || member.mtime_nsec == 0))
		scan_back(&member);
	free((char *)member.path);
	free((char *)member.symlink);
	free((char *)member.hard_link);
	for (size_t i = 0; i < member.nxattrs; i++)
		free((char *)xattrs[i].name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	AUTO_FREE uint8_t *copy = NULL;

	if (len == 0)
		return 0;
	if (data[0] >= 0xf0) {
		fuzz_header((struct bytes){data + 1, len - 1});
		return 0;
	}
	copy = malloc(len);
	if (!copy)
		return 0;
	memcpy(copy, data + 1, len - 1);
	fuzz_scan(copy, len - 1, data[0]);
	return 0;
}
