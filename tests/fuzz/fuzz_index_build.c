// SPDX-License-Identifier: Apache-2.0
/*
 * index, building: any bytes as members of a layer. Each is a type, a path and a target, which end
 * in a newline.
 */
#include <sys/stat.h>

#include "index_exercise.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Takes a line off *TEXT; NULL at the end. */
static char *take_line(char **text)
{
	return *text && **text ? strsep(text, "\n") : NULL;
}

static int add_member(struct index_builder *builder, char **text)
{
	char *path = take_line(text), *target = take_line(text);
	struct tar_xattr xattr = {.name = target, .value = path, .len = 1};
	struct tar_extent extent = {.off = 1, .len = 2};
	struct tar_member member = {};

	if (!path || !*path || !target)
		return -1;
	member.path = path + 1;
	switch (*path) {
	case 'd':
		member.mode = S_IFDIR | 0755;
		break;
	case 'l':
		member.mode = S_IFLNK | 0777;
		member.symlink = target;
		break;
	case 'h':
		member.mode = S_IFREG;
		member.hard_link = target;
		break;
	case 's':
		member.mode = S_IFREG;
		member.size = 4;
		member.sparse = true;
		member.extents = &extent;
		member.nextents = 1;
		break;
	default:
		member.mode = S_IFREG | 0644;
		member.size = *path;
		member.xattrs = &xattr;
		member.nxattrs = *path & 1;
		break;
	}
	return index_builder_member(builder, &member);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct index_builder *builder = index_builder_new();
	struct buf file = BUF_INIT(64 * MIB);
	AUTO_FREE char *copy = strndup((const char *)data, len);
	char *text = copy;
	struct index_info info = {};
	struct index index;

	while (builder && text && add_member(builder, &text) == 0)
		;
	if (builder && index_builder_finish(builder, &info, &file) == 0) {
		assert(index_open(file.data, file.len, &index) == 0);
		exercise_index(&index, 64);
	}
	index_builder_free(builder);
	buf_release(&file);
	return 0;
}
