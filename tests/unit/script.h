/* SPDX-License-Identifier: Apache-2.0 */
/*
 * script: layers in a line, for the tests of index and rootfs.
 *
 * Members are separated by ";": TYPE PATH [ARG], where TYPE is d directory, f file, l symlink to
 * ARG, h hard link to ARG, c device, p fifo. ARG of a file is its data_off; ARG of a directory its
 * mtime.
 */
#ifndef REGFS_TEST_SCRIPT_H
#define REGFS_TEST_SCRIPT_H

#include "regfs/index.h"

/* 0, or what index_builder_member said; -EINVAL for what is no script. */
int script_add(struct index_builder *builder, const char *script);

#endif
