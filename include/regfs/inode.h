/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inode: the numbers the kernel knows nodes by, and how often it looked each up.
 * Must not know what a node is.
 *
 * A number is a slot and a sub: (slot << NODE_SUB_BITS) | sub; 1 is the root. A node
 * takes one slot whatever number of files it stands for, so an image's files cost no
 * memory here. A slot's count is the sum over its files; at 0 the node is let go and the
 * slot used again (with another generation).
 *
 * One lock owns both the counts and the table. inodes_get() takes none: the kernel names only
 * numbers that it holds, so the slot cannot go away under a request that was not answered yet.
 */
#ifndef REGFS_INODE_H
#define REGFS_INODE_H

#include "regfs/node.h"

struct inodes;

/* ROOT is held until inodes_close(). NULL when memory is short. */
struct inodes *inodes_new(struct node *root);
/* Lets go of every node: the kernel is gone. Other threads may still ask inodes_id(). NULL is fine,
 * for both. */
void inodes_close(struct inodes *inodes);
/* Closes; nobody asks any more. */
void inodes_free(struct inodes *inodes);

/* Counts one more look-up of REF by the kernel and says its number. 0, -ENOMEM, -ENFILE. */
int inodes_add(struct inodes *inodes, const struct node_ref *ref, uint64_t *ret_id,
	       uint64_t *ret_generation);
/* The kernel forgets COUNT look-ups. */
void inodes_forget(struct inodes *inodes, uint64_t id, uint64_t count);
/* The node behind a number; borrowed as said above. 0, or -ESTALE for a number never given. */
int inodes_get(const struct inodes *inodes, uint64_t id, struct node_ref *ret);
/* The number of REF if the kernel knows its node now, else 0. */
uint64_t inodes_id(struct inodes *inodes, const struct node_ref *ref);
/* Slots in use. */
uint64_t inodes_count(struct inodes *inodes);

#endif
