/* SPDX-License-Identifier: Apache-2.0 */
/*
 * context: small answers that all kinds of nodes give the same way.
 */
#include <errno.h>

#include "regfs/context.h"

void context_stat(const struct context *context, uint64_t ino, mode_t mode, uint64_t size,
		  struct stat *ret)
{
	*ret = (struct stat){
		.st_ino = ino,
		.st_mode = mode,
		.st_nlink = 1,
		.st_uid = context->uid,
		.st_gid = context->gid,
		.st_size = size,
		.st_blksize = 4096,
		.st_blocks = (size + 511) / 512,
		.st_atim = context->started,
		.st_mtim = context->started,
		.st_ctim = context->started,
	};
}

ssize_t context_xattr(const char *text, void *buf, size_t cap)
{
	size_t len = strlen(text);

	if (!cap)
		return len;
	if (len > cap)
		return -ERANGE;
	memcpy(buf, text, len);
	return len;
}

ssize_t context_copy(const void *data, size_t size, uint64_t off, void *buf, size_t len)
{
	if (off >= size)
		return 0;
	len = MIN(len, size - off);
	memcpy(buf, (const char *)data + off, len);
	return len;
}
