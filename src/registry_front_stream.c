/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_front_stream: a blob's bytes from one endpoint after the other, where they break off or
 * turn out to be wrong.
 * Must not know digests: who reads finds out what is wrong, and says so (store.h, distrust).
 */
#include <errno.h>

#include "registry_front_priv.h"
#include "regfs/log.h"

static uint64_t blob_hash(const struct digest *digest)
{
	char text[DIGEST_STR_MAX];
	digest_format(digest, text);
	return hash64(0, text, strlen(text));
}

/* ---- reading ---- */

/* A blob's bytes, from one endpoint after the other where they break off. */
struct front_stream {
	struct store_stream base;
	struct front *front;
	char *repo;
	struct digest digest;
	uint64_t pos, end; /* UINT64_MAX: unknown */
	struct store_stream *stream;
	struct way *way; /* .stream's; NULL: none */
	bool mirror;	 /* .way is one */
	struct way *failed[32];
	size_t nfailed;
};

static bool has_failed(const struct front_stream *stream, const struct way *way)
{
	for (size_t i = 0; i < stream->nfailed; i++) {
		if (stream->failed[i] == way)
			return true;
	}
	return false;
}

static void add_failed(struct front_stream *stream, struct way *way)
{
	if (stream->nfailed < ARRAY_SIZE(stream->failed))
		stream->failed[stream->nfailed++] = way;
}

static void note_served(struct front *front, uint64_t blob, struct way *way)
{
	pthread_mutex_lock(&front->lock);
	front->served[front->nserved++ % SERVED_MAX] = (struct served){.blob = blob, .way = way};
	pthread_mutex_unlock(&front->lock);
}

static bool is_wrong(struct front *front, uint64_t blob)
{
	bool found = false;
	pthread_mutex_lock(&front->lock);
	for (size_t i = 0; i < MIN(front->nwrong, SERVED_MAX) && !found; i++)
		found = front->wrong[i] == blob;
	pthread_mutex_unlock(&front->lock);
	return found;
}

static int open_at(void *arg, struct store *store, const char *repo, struct wait *wait)
{
	struct front_stream *stream = arg;
	uint64_t len = stream->end == UINT64_MAX ? UINT64_MAX : stream->end - stream->pos;
	return store->ops->open_blob(store, repo, &stream->digest, stream->pos, len,
				     &stream->stream, wait);
}

/* Drops those legs that this stream has tried. */
static void leave_out_failed(const struct front_stream *stream, struct route *route)
{
	size_t n = 0;
	for (size_t i = 0; i < route->n; i++) {
		if (!has_failed(stream, route->legs[i].way))
			route->legs[n++] = route->legs[i];
	}
	route->n = n;
}

/* Opens the rest of the blob at the next endpoint that has it. ERR: the result where none is left.
 */
static int open_rest(struct front_stream *stream, int err, struct wait *wait)
{
	struct front *front = stream->front;
	uint64_t blob = blob_hash(&stream->digest);
	const struct errand errand = {.can = HOSTS_PULL, .no_mirrors = is_wrong(front, blob)};
	AUTO_ROUTE struct route route = {0};
	int found = front_route(front, stream->repo, &errand, wait, &route);
	if (found)
		return found;
	leave_out_failed(stream, &route);
	for (size_t i = 0; i < route.n; i++) {
		/* Each by itself, to know which one it was. */
		struct route one = {.legs = {route.legs[i]}, .n = 1};
		int opened = front_try(front, &one, open_at, stream, wait);
		if (!opened) {
			stream->base.unranged = stream->stream->unranged;
			stream->way = route.legs[i].way;
			stream->mirror = !front_is_origin(route.legs[i].endpoint);
			if (stream->mirror)
				note_served(front, blob, stream->way);
			return 0;
		}
		if (front_is_ours(opened))
			return opened;
		add_failed(stream, route.legs[i].way);
		if (!err || front_is_origin(route.legs[i].endpoint))
			err = opened;
		if (front_is_origin(route.legs[i].endpoint) && !front_is_gone(opened))
			return opened;
	}
	return err ? err : -EHOSTUNREACH;
}

static ssize_t front_read(struct store_stream *base, void *buf, size_t cap, struct wait *wait)
{
	struct front_stream *stream = CONTAINER_OF(base, struct front_stream, base);
	for (;;) {
		ssize_t n = stream->stream->read(stream->stream, buf, cap, wait);
		if (n >= 0) {
			stream->pos += (uint64_t)n;
			return n;
		}
		if (front_is_ours((int)n))
			return n;
		if (stream->mirror)
			front_leave_aside(stream->front, stream->way);
		add_failed(stream, stream->way);
		struct store_stream *broken = stream->stream;
		int err = open_rest(stream, (int)n, wait);
		if (err)
			return err;
		store_stream_close(broken);
	}
}

static void front_close(struct store_stream *base)
{
	struct front_stream *stream = CONTAINER_OF(base, struct front_stream, base);
	store_stream_close(stream->stream);
	free(stream->repo);
	free(stream);
}

int front_open_blob(struct store *store, const char *repo, const struct digest *digest,
		    uint64_t off, uint64_t len, struct store_stream **ret, struct wait *wait)
{
	struct front_stream *stream = calloc(1, sizeof(*stream));
	if (!stream)
		return -ENOMEM;
	*stream = (struct front_stream){
		.base = {.read = front_read, .close = front_close},
		.front = front_of(store),
		.repo = strdup(repo),
		.digest = *digest,
		.pos = off,
		.end = len > UINT64_MAX - off ? UINT64_MAX : off + len,
	};
	int err = stream->repo ? open_rest(stream, 0, wait) : -ENOMEM;
	if (err) {
		front_close(&stream->base);
		return err;
	}
	*ret = &stream->base;
	return 0;
}

/* The mirrors that served it are left aside, and none is asked for it again. */
void front_distrust(struct store *store, const char *repo, const struct digest *digest)
{
	struct front *front = front_of(store);
	uint64_t blob = blob_hash(digest);
	struct way *ways[SERVED_MAX];
	size_t n = 0;
	char text[DIGEST_STR_MAX];
	if (is_wrong(front, blob))
		return;
	pthread_mutex_lock(&front->lock);
	for (size_t i = 0; i < MIN(front->nserved, SERVED_MAX); i++) {
		if (front->served[i].blob == blob)
			ways[n++] = front->served[i].way;
	}
	if (n)
		front->wrong[front->nwrong++ % SERVED_MAX] = blob;
	pthread_mutex_unlock(&front->lock);
	if (!n)
		return;
	atomic_fetch_add(&store->route, 1);
	log_warn("%s/%s: blob %s came wrong from the mirror %s: it is fetched from the origin",
		 store->name, repo, digest_format(digest, text), ways[n - 1]->store->name);
	for (size_t i = 0; i < n; i++)
		front_leave_aside(front, ways[i]);
}
