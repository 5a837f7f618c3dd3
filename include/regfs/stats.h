/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats: counters of this process, for stats.json, metrics and the tests.
 * Knows numbers. Must not know what is counted. Any thread, no lock.
 */
#ifndef REGFS_STATS_H
#define REGFS_STATS_H

#include "regfs/buf.h"

/* Counters only grow; gauges (their names end in _now) go both ways. */
#define STATS_LIST(X)                                                                              \
	X(HTTP_REQUESTS, "http_requests", "HTTP requests sent")                                    \
	X(HTTP_ERRORS, "http_errors", "HTTP requests that failed")                                 \
	X(HTTP_RETRIES, "http_retries", "HTTP requests sent again after a passing failure")        \
	X(HTTP_BYTES_IN, "http_bytes_in", "Body bytes received")                                   \
	X(HTTP_BYTES_OUT, "http_bytes_out", "Body bytes sent")                                     \
	X(HTTP_NOW, "http_now", "HTTP requests under way")                                         \
	X(CACHE_HITS, "cache_hits", "Blocks read from the cache")                                  \
	X(CACHE_MISSES, "cache_misses", "Blocks not found in the cache")                           \
	X(CACHE_WRITES, "cache_writes", "Blocks written to the cache")                             \
	X(CACHE_EVICTIONS, "cache_evictions", "Blocks and files evicted from the cache")           \
	X(CACHE_CORRUPT, "cache_corrupt", "Blocks and files found damaged on disk and dropped")    \
	X(PASSES, "passes", "Blobs streamed whole and verified")                                   \
	X(PASS_BYTES, "pass_bytes", "Bytes of blobs streamed whole")                               \
	X(RANGE_BYTES, "range_bytes", "Bytes of blobs fetched by verified range")                  \
	X(AHEAD_BYTES, "ahead_bytes", "Bytes of blobs fetched before a reader came to them")       \
	X(AHEAD_UNUSED_BYTES, "ahead_unused_bytes", "Bytes fetched ahead that nobody came to")     \
	X(REPLAYS, "replays", "Images whose recorded run was replayed")                            \
	X(REPLAY_BYTES, "replay_bytes", "Bytes of blobs fetched by replaying recorded runs")       \
	X(REPLAY_UNUSED_BYTES, "replay_unused_bytes", "Bytes of files replayed and not read")      \
	X(DIGEST_MISMATCHES, "digest_mismatches",                                                  \
	  "Blobs, ranges or manifests with a wrong digest")                                        \
	X(LAYERS_INDEXED, "layers_indexed", "Layers decompressed and indexed")                     \
	X(TOCS, "tocs", "Layers opened by their table of contents")                                \
	X(TOC_BYTES, "toc_bytes", "Bytes of tables of contents and chunks fetched")                \
	X(CHUNKS_DECODED, "chunks_decoded", "Chunks of files decoded and verified")                \
	X(SPANS_DECODED, "spans_decoded", "Spans decoded from a resume point")                     \
	X(FUSE_REQUESTS, "fuse_requests", "Requests of the kernel")                                \
	X(FUSE_PARKED, "fuse_parked", "Requests that had to wait")                                 \
	X(FUSE_INTERRUPTED, "fuse_interrupted", "Requests interrupted while they waited")          \
	X(FUSE_WAITING_NOW, "fuse_waiting_now", "Requests waiting now")                            \
	X(PASSTHROUGH_OPENS, "passthrough_opens", "Opens after which the kernel reads by itself")  \
	X(PASSTHROUGH_MADE, "passthrough_made", "Files made in the cache for the kernel to read")  \
	X(PASSTHROUGH_NOW, "passthrough_now", "Open files that the kernel reads by itself")        \
	X(PUSHES, "pushes", "Images pushed and confirmed")                                         \
	X(PUSHES_FAILED, "pushes_failed", "Pushes that ended in an error")                         \
	X(PUSH_LAYERS_UNPACKED, "push_layers_unpacked",                                            \
	  "Layers pushed as they are that were unpacked to see what they hold")

enum stat_id {
#define STATS_ENUM(id, name, help) STAT_##id,
	STATS_LIST(STATS_ENUM)
#undef STATS_ENUM
		STAT_COUNT
};

void stats_add(enum stat_id id, int64_t n);
int64_t stats_get(enum stat_id id);
const char *stats_name(enum stat_id id);
const char *stats_help(enum stat_id id);

#endif
