// SPDX-License-Identifier: Apache-2.0
/* script: layers in a line. */
#include <errno.h>
#include <sys/stat.h>

#include "script.h"

#define WORD 600

static uint32_t type_mode(char type)
{
	switch (type) {
	case 'd':
		return S_IFDIR | 0750;
	case 'l':
		return S_IFLNK | 0777;
	case 'c':
		return S_IFCHR | 0600;
	case 'p':
		return S_IFIFO | 0600;
	default:
		return S_IFREG | 0644;
	}
}

static int add_line(struct index_builder *builder, const char *line)
{
	char type, path[WORD] = "", arg[WORD] = "";
	struct tar_member member = {.path = path};

	if (sscanf(line, " %c %599s %599s", &type, path, arg) < 2)
		return -EINVAL;
	member.mode = type_mode(type);
	if (type == 'l')
		member.symlink = arg;
	if (type == 'h')
		member.hard_link = arg;
	if (type == 'f') {
		member.size = 8;
		member.data_off = strtoull(arg, NULL, 10);
	}
	if (type == 'd')
		member.mtime_sec = strtoll(arg, NULL, 10);
	if (type == 'c')
		member.rdev_major = 5;
	return index_builder_member(builder, &member);
}

int script_add(struct index_builder *builder, const char *script)
{
	AUTO_FREE char *copy = strdup(script);
	char *save, *line;
	int err = copy ? 0 : -ENOMEM;

	for (line = err ? NULL : strtok_r(copy, ";", &save); line && !err;
	     line = strtok_r(NULL, ";", &save)) {
		if (line[strspn(line, " ")])
			err = add_line(builder, line);
	}
	return err;
}
