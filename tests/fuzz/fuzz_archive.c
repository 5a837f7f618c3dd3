// SPDX-License-Identifier: Apache-2.0
/*
 * archive: any bytes as what somebody copied into _push. An input that begins with 'M' is not a
 * tar, whose checksums a fuzzer does not find, but tells of one: members of NAME, TYPE and LENGTH
 * bytes and the text, where the name is one of a table.
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "regfs/archive.h"
#include "regfs/tar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(bool holds)
{
	if (!holds)
		__builtin_trap();
}

struct memory {
	const uint8_t *data;
	size_t len;
};

static ssize_t memory_pread(void *arg, uint64_t off, void *buf, size_t len)
{
	const struct memory *memory = arg;

	if (off >= memory->len)
		return 0;
	len = MIN(len, memory->len - off);
	memcpy(buf, memory->data + off, len);
	return (ssize_t)len;
}

static void check_image(const struct archive_image *image, size_t len)
{
	for (size_t i = 0; i < image->nnames; i++)
		check(image->names[i] != NULL);
	for (size_t i = 0; i < image->nmanifests; i++) {
		const struct archive_document *document = &image->manifests[i];
		struct digest digest;

		digest_of(document->digest.algo, document->bytes, document->len, &digest);
		check(digest_equal(&digest, &document->digest));
		check(oci_is_manifest_type(document->media_type));
	}
	check(image->nmanifests > 0 || image->nblobs > 0);
	for (size_t i = 0; i < image->nblobs; i++) {
		const struct archive_blob *at = &image->blobs[i].at;

		check((image->blobs[i].digest.algo == DIGEST_NONE) == (image->nmanifests == 0));
		check(at->off <= len && at->len <= len - at->off);
	}
}

static void try_archive(const void *data, size_t len)
{
	struct memory memory = {data, len};
	const struct archive_input input = {memory_pread, &memory, len};
	struct archive *archive = NULL;
	char why[200] = "";
	int err = archive_parse(&input, &archive, why, sizeof(why));

	if (err) {
		check(err == -EINVAL || err == -ENODATA || err == -ENOMEM);
		check(!archive && (err == -ENOMEM || why[0]));
		return;
	}
	check(archive->nimages > 0);
	for (size_t i = 0; i < archive->nimages; i++)
		check_image(&archive->images[i], len);
	archive_parsed_free(archive);
}

/* A member under a name of the table; the last entry stands for the path of its own digest. */
static void add_member(struct buf *tar, const uint8_t head[static 3], const void *text, size_t len)
{
	static const char *const names[] = {"index.json", "manifest.json", "c.json",	   "l.tar",
					    "a/l.tar",	  "./b/../l.tar",  "repositories", NULL};
	static const uint8_t zeros[512];
	AUTO_FREE char *target = strndup(text, len);
	char path[200], hex[DIGEST_STR_MAX];
	struct tar_member member = {.path = names[head[0] % ARRAY_SIZE(names)],
				    .mode = S_IFREG | 0644};
	struct digest digest;

	if (!member.path) {
		digest_of(DIGEST_SHA256, text, len, &digest);
		snprintf(path, sizeof(path), "blobs/sha256/%s", digest_hex(&digest, hex));
		member.path = path;
	}
	if (head[1] == 'h')
		member.hard_link = target;
	else if (head[1] == 's')
		member.symlink = target;
	else
		member.size = len;
	if (member.symlink)
		member.mode = S_IFLNK | 0777;
	if (target && tar_header(&member, tar) == 0 && member.size > 0) {
		buf_add(tar, text, len);
		buf_add(tar, zeros, tar_padding(len));
	}
}

static void try_members(const uint8_t *data, size_t len)
{
	static const uint8_t zeros[TAR_TRAILER];
	AUTO_BUF struct buf tar = BUF_INIT(16 * MIB);

	while (len > 4) {
		size_t text_len = MIN((size_t)(data[2] << 8 | data[3]), len - 4);

		add_member(&tar, data, data + 4, text_len);
		data += 4 + text_len;
		len -= 4 + text_len;
	}
	if (buf_add(&tar, zeros, sizeof(zeros)) == 0)
		try_archive(tar.data, tar.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (len > 0 && data[0] == 'M')
		try_members(data + 1, len - 1);
	else
		try_archive(data, len);
	return 0;
}
