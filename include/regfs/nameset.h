/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nameset: a sorted set of strings, compact, for catalogues and tag lists.
 * Must not know what the names are of.
 *
 * Immutable once sealed, then shared by count and read from any thread.
 */
#ifndef REGFS_NAMESET_H
#define REGFS_NAMESET_H

#include "regfs/util.h"

struct nameset;

/* An open set, with one reference. NULL when memory is short. */
struct nameset *nameset_new(void);
/* While open, by one thread. 0, -ENOMEM, -E2BIG (over 256 MiB of names). */
int nameset_add(struct nameset *set, const char *name);
/* Sorts and drops repetitions. */
void nameset_seal(struct nameset *set);
struct nameset *nameset_ref(struct nameset *set);
void nameset_unref(struct nameset *set);

/* The rest wants a sealed set; NULL is the empty one. */
size_t nameset_len(const struct nameset *set);
/* The N-th in bytewise order, n < nameset_len. */
const char *nameset_at(const struct nameset *set, size_t n);
bool nameset_has(const struct nameset *set, const char *name);
/* Position of the first name that is not less than NAME. */
size_t nameset_lower(const struct nameset *set, const char *name);
bool nameset_equal(const struct nameset *a, const struct nameset *b);
/* Whether a name is PREFIX or begins with PREFIX and '/'. */
bool nameset_has_under(const struct nameset *set, const char *prefix);
/* Another sealed set, with NAME too, or without it; of both. NULL when memory is short. */
struct nameset *nameset_with(const struct nameset *set, const char *name);
struct nameset *nameset_without(const struct nameset *set, const char *name);
struct nameset *nameset_union(struct nameset *a, struct nameset *b);
/* The next path components below PREFIX ("": the first ones) as a sealed set. NULL when memory
 * is short. */
struct nameset *nameset_children(const struct nameset *set, const char *prefix);

#endif
