/* SPDX-License-Identifier: Apache-2.0 */
/*
 * evict: leaves of a cache directory what is small (indexes, sums, manifests), as a cache whose
 * blocks had to give way. No mount may use it.
 *
 *   evict CACHE_DIR
 */
#include <stdio.h>

#include "regfs/cache.h"

#define BLOCKS_MAX 100000 /* of one blob of a benchmark's image */

static int drop(void *arg, const struct cache_id *id)
{
	cache_drop(arg, id, BLOCKS_MAX, 0);
	return 0;
}

int main(int argc, char **argv)
{
	static const enum cache_kind kinds[] = {CACHE_BLOB, CACHE_DECODED, CACHE_CHUNK};
	struct cache *cache = NULL;
	if (argc != 2 || cache_open(argv[1], 0, &cache))
		return 1;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		cache_each(cache, kinds[i], drop, cache);
	struct cache_info info;
	cache_info(cache, &info);
	printf("%llu blocks, %llu files left\n", (unsigned long long)info.blocks,
	       (unsigned long long)info.files);
	cache_close(cache);
	return info.blocks != 0;
}
