/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layout: the store made of OCI image layouts on disk (image-spec, image-layout.md):
 * repository team/app is the layout STORE/team/app/, whose index.json names tags by
 * org.opencontainers.image.ref.name. skopeo and others read and write them beside us.
 * Must not know HTTP.
 *
 * Writes are atomic (temporary file, fsync, rename, fsync of the directory); index.json is
 * changed under flock of STORE/team/app/.regfs.lock. Changes from outside are seen at the next
 * call.
 */
#ifndef REGFS_LAYOUT_H
#define REGFS_LAYOUT_H

#include "regfs/store.h"

/* ROOT is created (0700) at the first write, not here. NAME is the store's ("local"). 0 or -ENOMEM.
 */
int layout_new(const char *root, const char *name, struct store **ret);

#endif
