// SPDX-License-Identifier: Apache-2.0
/*
 * rootfs, memory: what is remembered of directories and links in use, within bounds.
 * Knows one lock. Must not know how any of it is found out: all of it can be found out again.
 */
#include "rootfs_priv.h"

#define DIR_SETS      128
#define DIR_WAYS      8
#define LISTINGS      32
#define LISTING_BYTES (8 * MIB) /* in all; the newest is kept whatever its size */
#define NLINKS	      1024

/* A dirset at rest. */
struct dir_slot {
	uint64_t used; /* tick of the last use; 0: free */
	struct rootfs_node node;
	struct rootfs_node *parts; /* owned */
	uint32_t subdirs;
	uint16_t n;
	int16_t next, below;
};

struct listing_slot {
	uint64_t used;
	struct rootfs_node node;
	struct listing *listing; /* held */
};

struct nlink_slot {
	struct rootfs_node node;
	uint32_t nlink; /* 0: free */
};

/* The tables are made when they are first needed: most images mounted are only looked at. */
struct rootfs_cache {
	pthread_mutex_t lock;
	/* all below is guarded by lock */
	uint64_t tick;
	struct dir_slot *dirs; /* DIR_SETS times DIR_WAYS */
	struct nlink_slot *nlinks;
	struct listing_slot listings[LISTINGS];
	size_t listing_bytes;
	unsigned nlayers;
	struct link_map *links[]; /* by layer; held */
};

static uint32_t node_hash(struct rootfs_node node)
{
	uint64_t h = ((uint64_t)node.layer << 32 | node.ino) * 0x9e3779b97f4a7c15u;

	return (uint32_t)(h >> 40);
}

struct rootfs_cache *rootfs_cache_new(unsigned nlayers)
{
	struct rootfs_cache *cache = calloc(1, sizeof(*cache) + nlayers * sizeof(cache->links[0]));

	if (!cache)
		return NULL;
	cache->nlayers = nlayers;
	pthread_mutex_init(&cache->lock, NULL);
	return cache;
}

static void listing_unref(struct listing *listing)
{
	if (!listing || --listing->refs)
		return;
	free(listing->entries);
	free(listing);
}

static void links_unref(struct link_map *map)
{
	if (map && !--map->refs)
		free(map);
}

void rootfs_cache_free(struct rootfs_cache *cache)
{
	if (!cache)
		return;
	for (size_t i = 0; cache->dirs && i < DIR_SETS * DIR_WAYS; i++)
		free(cache->dirs[i].parts);
	for (size_t i = 0; i < LISTINGS; i++)
		listing_unref(cache->listings[i].listing);
	for (unsigned i = 0; i < cache->nlayers; i++)
		links_unref(cache->links[i]);
	free(cache->dirs);
	free(cache->nlinks);
	pthread_mutex_destroy(&cache->lock);
	free(cache);
}

/* --- directories --- */

/* NODE's slot, or (MAKE) the least recently used one of its set. */
static struct dir_slot *dir_slot(struct rootfs_cache *cache, struct rootfs_node node, bool make)
{
	struct dir_slot *set, *oldest;

	if (!cache->dirs && make)
		cache->dirs = calloc(DIR_SETS * DIR_WAYS, sizeof(*cache->dirs));
	if (!cache->dirs)
		return NULL;
	set = oldest = cache->dirs + (size_t)(node_hash(node) % DIR_SETS) * DIR_WAYS;
	for (struct dir_slot *slot = set; slot < set + DIR_WAYS; slot++) {
		if (slot->used && rootfs_same(slot->node, node))
			return slot;
		if (slot->used < oldest->used)
			oldest = slot;
	}
	return make ? oldest : NULL;
}

bool rootfs_cache_dir(struct rootfs_cache *cache, struct dirset *set)
{
	struct dir_slot *slot;

	pthread_mutex_lock(&cache->lock);
	slot = dir_slot(cache, set->dir, false);
	if (slot) {
		slot->used = ++cache->tick;
		set->n = slot->n;
		set->next = slot->next;
		set->below = slot->below;
		set->subdirs = slot->subdirs;
		memcpy(set->parts, slot->parts, slot->n * sizeof(*slot->parts));
	}
	pthread_mutex_unlock(&cache->lock);
	return slot;
}

/* True if SET says no more than SLOT does. */
static bool is_older(const struct dirset *set, const struct dir_slot *slot)
{
	return set->next > slot->next || (set->next == slot->next && set->subdirs == INDEX_NONE);
}

void rootfs_cache_put_dir(struct rootfs_cache *cache, const struct dirset *set)
{
	AUTO_FREE struct rootfs_node *parts = calloc(set->n + 1, sizeof(*parts));
	struct rootfs_node *old;
	struct dir_slot *slot;

	if (!parts)
		return;
	memcpy(parts, set->parts, set->n * sizeof(*parts));
	pthread_mutex_lock(&cache->lock);
	slot = dir_slot(cache, set->dir, true);
	if (slot && !(slot->used && rootfs_same(slot->node, set->dir) && is_older(set, slot))) {
		old = slot->parts;
		*slot = (struct dir_slot){
			.used = ++cache->tick,
			.node = set->dir,
			.parts = parts,
			.subdirs = set->subdirs,
			.n = (uint16_t)set->n,
			.next = (int16_t)set->next,
			.below = (int16_t)set->below,
		};
		parts = old;
	}
	pthread_mutex_unlock(&cache->lock);
}

/* --- listings --- */

static size_t listing_size(const struct listing *listing)
{
	return sizeof(*listing) + listing->n * sizeof(*listing->entries);
}

struct listing *rootfs_cache_listing(struct rootfs_cache *cache, struct rootfs_node node)
{
	struct listing *found = NULL;

	pthread_mutex_lock(&cache->lock);
	for (size_t i = 0; i < LISTINGS && !found; i++) {
		struct listing_slot *slot = &cache->listings[i];

		if (!slot->listing || !rootfs_same(slot->node, node))
			continue;
		slot->used = ++cache->tick;
		found = slot->listing;
		found->refs++;
	}
	pthread_mutex_unlock(&cache->lock);
	return found;
}

static void drop_listing(struct rootfs_cache *cache, struct listing_slot *slot)
{
	if (!slot->listing)
		return;
	cache->listing_bytes -= listing_size(slot->listing);
	listing_unref(STEAL(slot->listing));
	slot->used = 0;
}

/* The slot that is free, or was not used for longest. */
static struct listing_slot *oldest_listing(struct rootfs_cache *cache)
{
	struct listing_slot *oldest = &cache->listings[0];

	for (size_t i = 1; i < LISTINGS; i++) {
		if (cache->listings[i].used < oldest->used)
			oldest = &cache->listings[i];
	}
	return oldest;
}

/* The one in use for longest; NULL when there is none. */
static struct listing_slot *stalest_listing(struct rootfs_cache *cache)
{
	struct listing_slot *stalest = NULL;

	for (size_t i = 0; i < LISTINGS; i++) {
		struct listing_slot *slot = &cache->listings[i];
		if (slot->listing && (!stalest || slot->used < stalest->used))
			stalest = slot;
	}
	return stalest;
}

void rootfs_cache_put_listing(struct rootfs_cache *cache, struct rootfs_node node,
			      struct listing *listing)
{
	struct listing_slot *slot;

	pthread_mutex_lock(&cache->lock);
	while (cache->listing_bytes + listing_size(listing) > LISTING_BYTES) {
		slot = stalest_listing(cache);
		if (!slot)
			break;
		drop_listing(cache, slot);
	}
	slot = oldest_listing(cache);
	drop_listing(cache, slot);
	listing->refs++;
	cache->listing_bytes += listing_size(listing);
	*slot = (struct listing_slot){.used = ++cache->tick, .node = node, .listing = listing};
	pthread_mutex_unlock(&cache->lock);
}

void rootfs_cache_unref_listing(struct rootfs_cache *cache, struct listing *listing)
{
	pthread_mutex_lock(&cache->lock);
	listing_unref(listing);
	pthread_mutex_unlock(&cache->lock);
}

/* --- links --- */

struct link_map *rootfs_cache_links(struct rootfs_cache *cache, unsigned layer)
{
	struct link_map *map;

	pthread_mutex_lock(&cache->lock);
	map = cache->links[layer];
	if (map)
		map->refs++;
	pthread_mutex_unlock(&cache->lock);
	return map;
}

void rootfs_cache_put_links(struct rootfs_cache *cache, unsigned layer, struct link_map *map)
{
	pthread_mutex_lock(&cache->lock);
	if (!cache->links[layer] || cache->links[layer]->bottom > map->bottom) {
		links_unref(cache->links[layer]);
		cache->links[layer] = map;
		map->refs++;
	}
	pthread_mutex_unlock(&cache->lock);
}

void rootfs_cache_unref_links(struct rootfs_cache *cache, struct link_map *map)
{
	pthread_mutex_lock(&cache->lock);
	links_unref(map);
	pthread_mutex_unlock(&cache->lock);
}

uint32_t rootfs_cache_nlink(struct rootfs_cache *cache, struct rootfs_node node)
{
	const struct nlink_slot *slot;
	uint32_t nlink = 0;

	pthread_mutex_lock(&cache->lock);
	if (cache->nlinks) {
		slot = &cache->nlinks[node_hash(node) % NLINKS];
		nlink = rootfs_same(slot->node, node) ? slot->nlink : 0;
	}
	pthread_mutex_unlock(&cache->lock);
	return nlink;
}

void rootfs_cache_put_nlink(struct rootfs_cache *cache, struct rootfs_node node, uint32_t nlink)
{
	pthread_mutex_lock(&cache->lock);
	if (!cache->nlinks)
		cache->nlinks = calloc(NLINKS, sizeof(*cache->nlinks));
	if (cache->nlinks)
		cache->nlinks[node_hash(node) % NLINKS] = (struct nlink_slot){.node = node,
									      .nlink = nlink};
	pthread_mutex_unlock(&cache->lock);
}
