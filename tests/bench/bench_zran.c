/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_zran STORE REPO DIGEST SIZE CACHE: random reads of 4 KiB in files of a gzip layer that is
 * cached and indexed, by the layer room; and by zlib from the same resume points, with their
 * windows at hand, out of the blob's file. No two reads are behind the same point, so neither side
 * finds anything that is decoded. In turns; one line: the medians of both in seconds, and of how
 * many reads.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "regfs/layer.h"
#include "regfs/layout.h"

#define SAMPLES	  300
#define TRIES_MAX 20000
#define LEN	  4096
#define IN_LEN	  (128 * KIB)

struct point {
	struct codec_point at;
	bool used; /* something behind it was read */
	uint8_t window[CODEC_WINDOW];
};

struct bench {
	struct cache *cache;
	struct pool *jobs;
	struct blobs *blobs;
	struct layers *layers;
	struct store *store;
	struct layer *layer;
	struct wait wait;
	struct point *points;
	uint32_t npoints;
	int blob;
	uint8_t ours[LEN], theirs[LEN];
	uint8_t in[IN_LEN], skipped[IN_LEN];
};

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void must(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "bench_zran: %s\n", what);
	exit(1);
}

static void open_layer(struct bench *bench, char **argv)
{
	struct digest digest;
	struct blob_id id = {.digest = &digest, .repo = argv[2]};

	must(digest_parse(argv[3], &digest) == 0 && parse_u64(argv[4], &id.size), "bad arguments");
	must(cache_open(argv[5], 0, &bench->cache) == 0, "no cache");
	must(layout_new(argv[1], "local", &bench->store) == 0, "no store");
	bench->jobs = pool_new("jobs", 0);
	bench->blobs = blobs_new(bench->cache, bench->jobs, 60000);
	bench->layers = layers_new(bench->blobs, bench->cache, bench->jobs);
	wait_init(&bench->wait, true);
	id.store = bench->store;
	must(layer_open(bench->layers, &id, NULL, &bench->wait, &bench->layer) == 0,
	     "the layer cannot be opened");
	AUTO_FREE char *path = format("%s/%s/blobs/sha256/%s", argv[1], argv[2],
				      strchr(argv[3], ':') + 1);
	bench->blob = open(path, O_RDONLY | O_CLOEXEC);
	must(bench->blob >= 0, "no file of the blob");
}

static void close_layer(struct bench *bench)
{
	close(bench->blob);
	layer_unref(bench->layer);
	layers_free(bench->layers);
	blobs_free(bench->blobs);
	pool_free(bench->jobs);
	store_free(bench->store);
	cache_close(bench->cache);
	wait_release(&bench->wait);
	free(bench->points);
}

static void load_points(struct bench *bench)
{
	const struct index *index = layer_index(bench->layer);

	must(index->info.codec == CODEC_GZIP, "the layer is no gzip");
	bench->npoints = index->info.npoints;
	bench->points = calloc(bench->npoints, sizeof(*bench->points));
	for (uint32_t i = 0; i < bench->npoints; i++)
		must(index_point(index, i, bench->points[i].window, &bench->points[i].at) == 0,
		     "a bad point");
}

/* A place to read, in a file that has LEN bytes from there on. */
struct sample {
	uint32_t ino;
	uint64_t off, stream; /* in the file; in the layer */
};

/* By RANDOM; false: there is none, or not all of it is behind one point that nothing was read
 * behind. */
static bool sample_get(struct bench *bench, uint64_t random, struct sample *ret)
{
	const struct index *index = layer_index(bench->layer);
	struct sample sample = {.ino = (uint32_t)(random % index->info.ninodes)};
	struct index_inode inode;

	must(index_inode(index, sample.ino, &inode) == 0, "a bad inode");
	if (!S_ISREG(inode.mode) || inode.flags & (INDEX_SPARSE | INDEX_LINK_OUT) ||
	    inode.size < LEN)
		return false;
	sample.off = (random >> 32) % (inode.size - LEN + 1);
	sample.stream = inode.data_off + sample.off;
	uint32_t n = index_point_before(index, sample.stream);
	if (bench->points[n].used || index_point_before(index, sample.stream + LEN - 1) != n)
		return false;
	bench->points[n].used = true;
	*ret = sample;
	return true;
}

static bool choose(struct bench *bench, uint64_t *seed, struct sample *ret)
{
	for (unsigned tries = 0; tries < TRIES_MAX; tries++) {
		uint64_t random = hash64(0, seed, sizeof(*seed));

		++*seed;
		if (sample_get(bench, random, ret))
			return true;
	}
	return false;
}

/* Decodes LEN bytes into OUT; zlib's state is where the last call left it. */
static void inflate_len(struct bench *bench, z_stream *z, off_t *in_off, uint8_t *out, size_t len)
{
	z->next_out = out;
	z->avail_out = (uInt)len;
	while (z->avail_out > 0) {
		if (z->avail_in == 0) {
			ssize_t n = pread_full(bench->blob, bench->in, IN_LEN, *in_off);

			must(n > 0, "the blob ends early");
			z->next_in = bench->in;
			z->avail_in = (uInt)n;
			*in_off += n;
		}
		must(inflate(z, Z_NO_FLUSH) == Z_OK || z->avail_out == 0, "zlib cannot decode it");
	}
}

/* One member, as layers have it: points inside are raw deflate, the start has gzip's header. */
static void read_zlib(struct bench *bench, uint64_t off)
{
	uint32_t n = index_point_before(layer_index(bench->layer), off);
	const struct codec_point *point = &bench->points[n].at;
	off_t in_off = (off_t)point->in_off;
	uint64_t skip = off - point->out_off;
	z_stream z = {0};
	uint8_t first;

	must(inflateInit2(&z, point->member || n == 0 ? 31 : -15) == Z_OK, "zlib");
	if (point->bits) {
		must(pread_full(bench->blob, &first, 1, in_off - 1) == 1, "the blob");
		inflatePrime(&z, point->bits, first >> (8 - point->bits));
	}
	if (point->window_len)
		inflateSetDictionary(&z, bench->points[n].window, (uInt)point->window_len);
	for (; skip > 0; skip -= MIN(skip, IN_LEN))
		inflate_len(bench, &z, &in_off, bench->skipped, MIN(skip, IN_LEN));
	inflate_len(bench, &z, &in_off, bench->theirs, LEN);
	inflateEnd(&z);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void measure(struct bench *bench)
{
	double ours[SAMPLES], theirs[SAMPLES];
	struct sample sample;
	uint64_t seed = 1;
	int n = 0;

	for (; n < SAMPLES && choose(bench, &seed, &sample); n++) {
		double start = now_s();
		must(layer_read(bench->layer, sample.ino, sample.off, bench->ours, LEN,
				&bench->wait) == LEN,
		     "a read failed");
		ours[n] = now_s() - start;
		start = now_s();
		read_zlib(bench, sample.stream);
		theirs[n] = now_s() - start;
		must(memcmp(bench->ours, bench->theirs, LEN) == 0, "the bytes differ");
	}
	must(n > 0, "no file can be read");
	qsort(ours, n, sizeof(*ours), compare);
	qsort(theirs, n, sizeof(*theirs), compare);
	printf("%.6f %.6f %d\n", ours[n / 2], theirs[n / 2], n);
}

int main(int argc, char **argv)
{
	AUTO_FREE struct bench *bench = calloc(1, sizeof(*bench));

	must(bench && argc == 6, "usage: bench_zran STORE REPO DIGEST SIZE CACHE");
	open_layer(bench, argv);
	load_points(bench);
	measure(bench);
	close_layer(bench);
	return 0;
}
