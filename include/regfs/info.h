/* SPDX-License-Identifier: Apache-2.0 */
/*
 * info: _regfs/: version, stats.json, metrics, log, pushes.
 * Must not know FUSE.
 *
 * A file's text is made when it is looked at, and kept for a moment so that its size and its
 * bytes agree.
 */
#ifndef REGFS_INFO_H
#define REGFS_INFO_H

#include "regfs/context.h"

/* Directory _regfs in PARENT. Held, interned. */
int info_new(const struct context *context, struct node *parent, struct node **ret);

#endif
