/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inode: slots of nodes and look-up counts.
 * Must not know what a node is.
 */
#include <errno.h>
#include <stdatomic.h>

#include "regfs/inode.h"

#define ROOT_ID	   1 /* FUSE_ROOT_ID */
#define SUB_MASK   ((UINT64_C(1) << NODE_SUB_BITS) - 1)
#define CHUNK_BITS 10
#define CHUNK_LEN  (1u << CHUNK_BITS)
#define MAX_CHUNKS 4096 /* slots fit in 64 - NODE_SUB_BITS bits */

struct slot {
	/* Read without the lock: it only changes while nobody can name the slot. */
	struct node *_Atomic node;
	/* guarded by lock */
	uint64_t count;
	uint32_t generation;
	uint32_t next_free;
};

struct inodes {
	pthread_mutex_t lock;
	struct slot *_Atomic chunks[MAX_CHUNKS]; /* never move or go */
	uint32_t nslots;			 /* handed out so far; slot 0 is not used */
	uint32_t free;				 /* head of the free list, 0: none */
	uint64_t used;
	struct node *root;
};

struct inodes *inodes_new(struct node *root)
{
	struct inodes *inodes = calloc(1, sizeof(*inodes));

	if (!inodes)
		return NULL;
	pthread_mutex_init(&inodes->lock, NULL);
	inodes->nslots = 1;
	inodes->root = node_ref(root);
	return inodes;
}

static struct slot *slot_at(const struct inodes *inodes, uint32_t n)
{
	struct slot *chunk;

	if (n / CHUNK_LEN >= MAX_CHUNKS)
		return NULL;
	chunk = atomic_load(&inodes->chunks[n / CHUNK_LEN]);
	return chunk ? &chunk[n % CHUNK_LEN] : NULL;
}

/* Slot N's node, which has no number from now on, or NULL. */
static struct node *take_node(struct inodes *inodes, uint32_t n)
{
	struct node *node;

	pthread_mutex_lock(&inodes->lock);
	node = atomic_exchange(&slot_at(inodes, n)->node, NULL);
	if (node) {
		node->slot = 0;
		inodes->used--;
	}
	pthread_mutex_unlock(&inodes->lock);
	return node;
}

void inodes_close(struct inodes *inodes)
{
	struct node *root;

	if (!inodes)
		return;
	for (uint32_t n = 1; n < inodes->nslots; n++)
		node_unref(take_node(inodes, n));
	pthread_mutex_lock(&inodes->lock);
	root = STEAL(inodes->root);
	pthread_mutex_unlock(&inodes->lock);
	node_unref(root);
}

void inodes_free(struct inodes *inodes)
{
	if (!inodes)
		return;
	inodes_close(inodes);
	for (size_t i = 0; i < MAX_CHUNKS; i++)
		free(atomic_load(&inodes->chunks[i]));
	pthread_mutex_destroy(&inodes->lock);
	free(inodes);
}

/* Lock held. A free slot's number, or 0. */
static uint32_t take_slot(struct inodes *inodes)
{
	uint32_t n = inodes->free;

	if (n) {
		inodes->free = slot_at(inodes, n)->next_free;
		return n;
	}
	n = inodes->nslots;
	if (n / CHUNK_LEN >= MAX_CHUNKS)
		return 0;
	if (!slot_at(inodes, n)) {
		struct slot *chunk = calloc(CHUNK_LEN, sizeof(*chunk));

		if (!chunk)
			return 0;
		atomic_store(&inodes->chunks[n / CHUNK_LEN], chunk);
	}
	inodes->nslots++;
	return n;
}

int inodes_add(struct inodes *inodes, const struct node_ref *ref, uint64_t *ret_id,
	       uint64_t *ret_generation)
{
	struct node *node = ref->node;
	struct slot *slot;
	bool fresh = false;
	uint32_t n;

	if (node == inodes->root && ref->sub == 0) {
		*ret_id = ROOT_ID;
		*ret_generation = 0;
		return 0;
	}
	pthread_mutex_lock(&inodes->lock);
	n = node->slot;
	if (!n) {
		n = take_slot(inodes);
		if (!n) {
			pthread_mutex_unlock(&inodes->lock);
			return -ENFILE;
		}
		node->slot = n;
		slot = slot_at(inodes, n);
		slot->count = 0;
		slot->generation++;
		atomic_store(&slot->node, node);
		inodes->used++;
		fresh = true;
	}
	slot = slot_at(inodes, n);
	slot->count++;
	*ret_id = (uint64_t)n << NODE_SUB_BITS | (ref->sub & SUB_MASK);
	*ret_generation = slot->generation;
	pthread_mutex_unlock(&inodes->lock);
	/* The caller holds the node, so its count cannot reach 0 in between. */
	if (fresh)
		node_ref(node);
	return 0;
}

void inodes_forget(struct inodes *inodes, uint64_t id, uint64_t count)
{
	uint32_t n = id >> NODE_SUB_BITS;
	struct node *gone = NULL;
	struct slot *slot;

	if (id == ROOT_ID || !n)
		return;
	pthread_mutex_lock(&inodes->lock);
	slot = slot_at(inodes, n);
	if (slot && atomic_load(&slot->node)) {
		slot->count -= MIN(count, slot->count);
		if (slot->count == 0) {
			gone = atomic_exchange(&slot->node, NULL);
			gone->slot = 0;
			slot->next_free = inodes->free;
			inodes->free = n;
			inodes->used--;
		}
	}
	pthread_mutex_unlock(&inodes->lock);
	node_unref(gone);
}

int inodes_get(const struct inodes *inodes, uint64_t id, struct node_ref *ret)
{
	struct slot *slot;
	struct node *node;

	if (id == ROOT_ID) {
		*ret = (struct node_ref){.node = inodes->root};
		return 0;
	}
	slot = slot_at(inodes, id >> NODE_SUB_BITS);
	node = slot ? atomic_load(&slot->node) : NULL;
	if (!node)
		return -ESTALE;
	*ret = (struct node_ref){.node = node, .sub = id & SUB_MASK};
	return 0;
}

uint64_t inodes_id(struct inodes *inodes, const struct node_ref *ref)
{
	uint64_t id = 0;

	pthread_mutex_lock(&inodes->lock);
	if (ref->node == inodes->root && ref->sub == 0)
		id = ROOT_ID;
	else if (ref->node->slot)
		id = (uint64_t)ref->node->slot << NODE_SUB_BITS | (ref->sub & SUB_MASK);
	pthread_mutex_unlock(&inodes->lock);
	return id;
}

uint64_t inodes_count(struct inodes *inodes)
{
	uint64_t used;

	pthread_mutex_lock(&inodes->lock);
	used = inodes->used;
	pthread_mutex_unlock(&inodes->lock);
	return used;
}
