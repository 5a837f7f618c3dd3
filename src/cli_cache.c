/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli_cache: regfs cache info, verify, prune: beside running mounts or without any.
 */
#include <errno.h>
#include <inttypes.h>

#include "regfs/cache.h"
#include "cli_priv.h"
#include "regfs/layer.h"

#define TIMEOUT_MS 60000 /* nothing is fetched */

struct cache_args {
	const char *verb;
	const char *dir;
	uint64_t max_bytes;
	bool has_max;
};

static int usage(const char *what, const char *arg)
{
	fprintf(stderr,
		"regfs: cache: %s%s\n"
		"usage: regfs cache {info|verify|prune} [--max SIZE] [--cache-dir DIR]\n",
		what, arg);
	return -EINVAL;
}

static int parse_cache_args(int argc, char **argv, struct cache_args *ret)
{
	for (int i = 2; i < argc; i++) {
		bool has_value = i + 1 < argc;

		if (!strcmp(argv[i], "--max") && has_value) {
			if (parse_size(argv[++i], &ret->max_bytes) < 0)
				return usage("--max: not a size: ", argv[i]);
			ret->has_max = true;
		} else if (!strcmp(argv[i], "--cache-dir") && has_value) {
			ret->dir = argv[++i];
		} else if (!ret->verb && *argv[i] != '-') {
			ret->verb = argv[i];
		} else {
			return usage("not understood: ", argv[i]);
		}
	}
	if (!ret->verb)
		return usage("info, verify or prune?", "");
	if (strcmp(ret->verb, "info") && strcmp(ret->verb, "verify") && strcmp(ret->verb, "prune"))
		return usage("not understood: ", ret->verb);
	return 0;
}

static int show_info(struct cache *cache, const char *dir)
{
	struct cache_info info;

	cache_info(cache, &info);
	printf("directory %s\nlimit     %" PRIu64 "\nused      %" PRIu64 "\nblocks    %" PRIu64
	       "\nfiles     %" PRIu64 "\nwritable  %s\n",
	       dir, info.limit_bytes, info.used_bytes, info.blocks, info.files,
	       info.writable ? "yes" : "no (disk full)");
	return CLI_OK;
}

/* Counts of layers whose diff ID was looked at. */
struct layers_verified {
	struct blobs *blobs;
	struct cache *cache;
	uint64_t right, wrong, partial;
};

static int verify_layer(void *arg, const struct cache_id *id)
{
	struct layers_verified *layers = arg;
	struct wait wait;
	int r;

	wait_init(&wait, true);
	r = layer_verify(layers->blobs, layers->cache, id, &wait);
	wait_release(&wait);
	layers->right += r == 0;
	layers->partial += r == -ENOENT;
	layers->wrong += r < 0 && r != -ENOENT;
	return r == -ENOMEM ? r : 0;
}

/* The diff IDs of the layers that are whole in the cache. */
static int verify_layers(struct cache *cache, struct layers_verified *ret)
{
	struct pool *jobs = pool_new("job", 0);
	int r = -ENOMEM;

	ret->cache = cache;
	ret->blobs = jobs ? blobs_new(cache, jobs, TIMEOUT_MS) : NULL;
	if (ret->blobs)
		r = cache_each(cache, CACHE_INDEX, verify_layer, ret);
	blobs_free(ret->blobs);
	pool_free(jobs);
	return r;
}

static int run_verify(struct cache *cache)
{
	struct layers_verified layers = {0};
	uint64_t checked = 0, dropped = 0;
	int r = cache_verify(cache, &checked, &dropped);

	if (r == 0)
		r = verify_layers(cache, &layers);
	if (r < 0) {
		fprintf(stderr, "regfs: cache: verify: %s\n", strerror(-r));
		return CLI_FAILED;
	}
	printf("checked %" PRIu64 ", dropped %" PRIu64 " damaged\n", checked, dropped);
	printf("diff IDs of layers: %" PRIu64 " right, %" PRIu64 " wrong, %" PRIu64
	       " not whole in the cache\n",
	       layers.right, layers.wrong, layers.partial);
	return dropped || layers.wrong ? CLI_FAILED : CLI_OK;
}

static int run_prune(struct cache *cache, const struct cache_args *args)
{
	struct cache_info info;
	int r = cache_prune(cache, args->has_max ? args->max_bytes : 0);

	if (r < 0) {
		fprintf(stderr, "regfs: cache: prune: %s\n", strerror(-r));
		return CLI_FAILED;
	}
	cache_info(cache, &info);
	printf("used %" PRIu64 "\n", info.used_bytes);
	return CLI_OK;
}

int cli_cache(int argc, char **argv)
{
	struct cache_args args = {0};
	AUTO_FREE char *default_dir = cli_default_cache_dir();
	struct cache *cache;
	int status;
	int r;

	if (parse_cache_args(argc, argv, &args) < 0)
		return CLI_USAGE;
	if (!args.dir)
		args.dir = default_dir;
	if (!args.dir)
		return CLI_FAILED;
	if (access(args.dir, F_OK) != 0) {
		fprintf(stderr, "regfs: cache: %s: %m\n", args.dir);
		return CLI_FAILED;
	}
	r = cache_open(args.dir, 0, &cache);
	if (r < 0) {
		fprintf(stderr, "regfs: cache: %s: %s\n", args.dir, strerror(-r));
		return CLI_FAILED;
	}
	if (!strcmp(args.verb, "info"))
		status = show_info(cache, args.dir);
	else if (!strcmp(args.verb, "verify"))
		status = run_verify(cache);
	else
		status = run_prune(cache, &args);
	cache_close(cache);
	return status;
}
