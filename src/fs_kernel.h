/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_kernel: what the kernel's FUSE interface has and Debian 12's <linux/fuse.h> (7.38) lacks.
 * Source: Linux 6.9, include/uapi/linux/fuse.h (7.40).
 */
#ifndef REGFS_FS_KERNEL_H
#define REGFS_FS_KERNEL_H

#include <linux/fuse.h>

/* FUSE_PASSTHROUGH, as flags2 of INIT has it. */
#define FS_INIT2_PASSTHROUGH (1u << (37 - 32))
/* FOPEN_PASSTHROUGH; of the other FOPEN_ flags only NOFLUSH may stand beside it here. */
#define FS_FOPEN_PASSTHROUGH (1u << 7)

/* struct fuse_init_out, with a name for the first of its unused fields. */
struct fs_init_out {
	uint32_t major, minor, max_readahead, flags;
	uint16_t max_background, congestion_threshold;
	uint32_t max_write, time_gran;
	uint16_t max_pages, map_alignment;
	uint32_t flags2, max_stack_depth, unused[6];
};

/* struct fuse_open_out. */
struct fs_open_out {
	uint64_t fh;
	uint32_t open_flags;
	int32_t backing_id;
};

/* struct fuse_backing_map, and what is done with it; the first gives a backing's number. */
struct fs_backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};
#define FS_IOC_BACKING_OPEN  _IOW(229, 1, struct fs_backing_map)
#define FS_IOC_BACKING_CLOSE _IOW(229, 2, uint32_t)

#endif
