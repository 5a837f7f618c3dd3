// SPDX-License-Identifier: Apache-2.0
/*
 * blob: the table of blobs in use, and the ways to read one.
 * Knows which of cache, range and pass answers. Must not know what a blob holds, nor how a pass or
 * a range goes (blob_pass.c, blob_fetch.c).
 */
#include <errno.h>

#include "blob_priv.h"
#include "regfs/log.h"
#include "regfs/stats.h"

/* --- the rooms as a whole --- */

struct blobs *blobs_new(struct cache *cache, struct pool *jobs, int64_t timeout_ms)
{
	struct blobs *blobs = calloc(1, sizeof(*blobs));

	if (!blobs)
		return NULL;
	blobs->cache = cache;
	blobs->jobs = jobs;
	blobs->timeout_ms = timeout_ms;
	blobs->idle_ms = PASS_IDLE_MS;
	blobs->retry_ms = RETRY_MS;
	blobs->yield_ms = YIELD_MS;
	blobs->slow_ms = SLOW_MS;
	blobs->lane_part = LANE_PART;
	pthread_mutex_init(&blobs->lock, NULL);
	pthread_cond_init(&blobs->drained, NULL);
	return blobs;
}

static void blob_unlink(struct blob *blob)
{
	struct blobs *blobs = blob->blobs;

	*(blob->prev ? &blob->prev->next : &blobs->first) = blob->next;
	*(blob->next ? &blob->next->prev : &blobs->last) = blob->prev;
}

static void blob_link_first(struct blob *blob)
{
	struct blobs *blobs = blob->blobs;

	blob->prev = NULL;
	blob->next = blobs->first;
	*(blobs->first ? &blobs->first->prev : &blobs->last) = blob;
	blobs->first = blob;
}

static void blob_free(struct blob *blob)
{
	if (!blob)
		return;
	pass_free(blob->pass);
	sums_free(blob->sums);
	ahead_forget(blob);
	free(blob);
}

void blobs_stop(struct blobs *blobs)
{
	if (!blobs)
		return;
	pthread_mutex_lock(&blobs->lock);
	blobs->closing = true;
	for (struct blob *blob = blobs->first; blob; blob = blob->next) {
		if (blob->pass)
			pass_cancel(blob->pass);
		fetch_cancel_all(blob);
	}
	while (blobs->running > 0)
		pthread_cond_wait(&blobs->drained, &blobs->lock);
	pthread_mutex_unlock(&blobs->lock);
}

void blobs_free(struct blobs *blobs)
{
	if (!blobs)
		return;
	blobs_stop(blobs);
	pthread_mutex_lock(&blobs->lock);
	fetch_forget(blobs, NULL);
	pthread_mutex_unlock(&blobs->lock);

	while (blobs->first) {
		struct blob *blob = blobs->first;

		blob_unlink(blob);
		blob_free(blob);
	}
	ways_release(blobs);
	pthread_cond_destroy(&blobs->drained);
	pthread_mutex_destroy(&blobs->lock);
	free(blobs);
}

/* --- the table --- */

static struct blob *blob_new(struct blobs *blobs, const struct blob_id *id)
{
	struct blob *blob = calloc(1, sizeof(*blob));

	if (!blob)
		return NULL;
	blob->blobs = blobs;
	blob->digest = *id->digest;
	blob->id.kind = CACHE_BLOB;
	digest_key(id->digest, blob->id.key);
	blob->size = id->size;
	blob->nblocks = (id->size + CACHE_BLOCK - 1) / CACHE_BLOCK;
	return blob;
}

/* A manifest that lies about a size gets a blob of its own, which then fails by itself. */
static struct blob *blob_find(struct blobs *blobs, const struct blob_id *id)
{
	for (struct blob *blob = blobs->first; blob; blob = blob->next)
		if (blob->size == id->size && digest_equal(&blob->digest, id->digest))
			return blob;
	return NULL;
}

static void blob_hold_locked(struct blob *blob)
{
	if (blob->refs++ == 0)
		blob->blobs->idle--;
	blob_unlink(blob);
	blob_link_first(blob);
}

int blob_hold(struct blobs *blobs, const struct blob_id *id, bool create, struct blob **ret)
{
	struct blob *fresh = create ? blob_new(blobs, id) : NULL;
	struct blob *blob;

	pthread_mutex_lock(&blobs->lock);
	blob = blob_find(blobs, id);
	if (blob) {
		blob_hold_locked(blob);
	} else if (fresh) {
		blob = STEAL(fresh);
		blob->refs = 1;
		blob_link_first(blob);
	}
	pthread_mutex_unlock(&blobs->lock);
	blob_free(fresh);
	if (!blob)
		return create ? -ENOMEM : -EWOULDBLOCK;
	*ret = blob;
	return 0;
}

/* The idle blob used longest ago, out of the list; NULL while there are few. Lock held. */
static struct blob *blob_evict(struct blobs *blobs)
{
	struct blob *blob = blobs->last;

	if (blobs->idle <= BLOBS_IDLE_MAX)
		return NULL;
	while (blob->refs > 0)
		blob = blob->prev;
	blobs->idle--;
	blob_unlink(blob);
	fetch_forget(blobs, blob);
	return blob;
}

static struct blob *blob_put_locked(struct blob *blob)
{
	if (--blob->refs > 0)
		return NULL;
	blob->blobs->idle++;
	return blob_evict(blob->blobs);
}

void blob_put(struct blob *blob)
{
	struct blobs *blobs = blob->blobs;

	pthread_mutex_lock(&blobs->lock);
	struct blob *evicted = blob_put_locked(blob);
	pthread_mutex_unlock(&blobs->lock);
	blob_free(evicted);
}

void job_begin(struct blob *blob)
{
	blob_hold_locked(blob);
	blob->blobs->running++;
}

/* Counting out is the job's last touch of anything here: blobs_free() waits for it. So what
 * is evicted is freed before. */
void job_end(struct blob *blob)
{
	struct blobs *blobs = blob->blobs;

	blob_put(blob);
	pthread_mutex_lock(&blobs->lock);
	if (--blobs->running == 0)
		pthread_cond_broadcast(&blobs->drained);
	pthread_mutex_unlock(&blobs->lock);
}

/* --- reading --- */

int blob_know_sums(struct blob *blob, struct wait *wait)
{
	struct blobs *blobs = blob->blobs;
	struct sums *loaded = NULL;
	char want[DIGEST_STR_MAX];

	pthread_mutex_lock(&blobs->lock);
	bool known = blob->sums, passing = blob->pass;
	pthread_mutex_unlock(&blobs->lock);
	/* Where a pass was begun there was no file. */
	if (known || passing || blob->size <= BLOB_SMALL || !wait_may_block(wait))
		return known;

	int r = sums_load(blobs->cache, &blob->digest, blob->size, &loaded);
	if (r == -ENOENT)
		return 0;
	if (r == -EIO)
		log_error("blob %s: a manifest gives its size as %llu, which is wrong",
			  digest_format(&blob->digest, want), (unsigned long long)blob->size);
	if (r < 0)
		return r;
	pthread_mutex_lock(&blobs->lock);
	if (!blob->sums)
		blob->sums = STEAL(loaded);
	pthread_mutex_unlock(&blobs->lock);
	sums_free(loaded);
	return 1;
}

static ssize_t read_cached(struct blobs *blobs, const struct cache_id *id, const struct want *want)
{
	ssize_t n = cache_read(blobs->cache, id, want->block, want->off, want->buf, want->len, 0);

	/* A verified block that is too short belongs to a blob of another size: let the slow path
	 * find out and say so. */
	return n == (ssize_t)want->len ? n : -ENOENT;
}

bool blob_failed_elsewhere(struct blob *blob, const struct blob_id *id, bool raw)
{
	struct blobs *blobs = blob->blobs;

	pthread_mutex_lock(&blobs->lock);
	bool elsewhere = blob->error && blob->error_source != blob_source(id) &&
			 !(raw && blob->wrong) && !blobs->closing;
	pthread_mutex_unlock(&blobs->lock);
	return elsewhere;
}

/* From the pass, which may be another source's: what that fails with is not the last word. */
static ssize_t read_pass(struct blob *blob, const struct blob_id *id, const struct want *want,
			 bool raw, struct wait *wait)
{
	ssize_t n;

	do {
		n = pass_read(blob, id, want, raw, wait);
	} while (n < 0 && n != -EINTR && n != -EWOULDBLOCK && blob_failed_elsewhere(blob, id, raw));
	return n;
}

ssize_t blob_read_block(struct blob *blob, const struct blob_id *id, const struct want *want,
			bool raw, struct wait *wait)
{
	/* Each round ends with an answer, or with sums or a cached block for the next. */
	for (;;) {
		int known = blob_know_sums(blob, wait);
		if (known < 0)
			return known;
		ssize_t n = known ? fetch_read(blob, id, want, wait)
				  : read_pass(blob, id, want, raw, wait);
		if (n != 0)
			return n;
		n = read_cached(blob->blobs, &blob->id, want);
		if (n > 0)
			return n;
	}
}

/* What a reader asks for. */
struct request {
	uint64_t off;
	uint8_t *buf;
	size_t len;
	uint64_t until; /* where the reader will come to at once; of no meaning below off + len */
	uint64_t whole_off, whole_end; /* what it is a reader of; 0, 0: not known */
	bool raw;
};

static void request_want(const struct request *request, size_t done, struct want *want)
{
	uint64_t at = request->off + done;

	want->block = at / CACHE_BLOCK;
	want->last = (MAX(request->off + request->len, request->until) - 1) / CACHE_BLOCK;
	want->off = at % CACHE_BLOCK;
	want->len = MIN(request->len - done, CACHE_BLOCK - want->off);
	want->buf = request->buf + done;
	want->whole.first = request->whole_off / CACHE_BLOCK;
	want->whole.end = (request->whole_end + CACHE_BLOCK - 1) / CACHE_BLOCK;
}

/* A sequential reader has come to what was fetched ahead for it. */
static void came_on(struct blobs *blobs, const struct blob_id *id, uint32_t nr)
{
	struct blob *blob;

	if (blob_hold(blobs, id, false, &blob) < 0)
		return;
	pthread_mutex_lock(&blobs->lock);
	ahead_came(blob, nr);
	pthread_mutex_unlock(&blobs->lock);
	fetch_ahead(blob, id, nr);
	blob_put(blob);
}

static ssize_t read_request(struct blobs *blobs, const struct blob_id *id,
			    const struct request *request, struct wait *wait)
{
	struct cache_id cache_id = {.kind = CACHE_BLOB};
	struct blob *blob = NULL;
	ssize_t r = 0;

	digest_key(id->digest, cache_id.key);
	for (size_t done = 0; done < request->len; done += r) {
		struct want want;

		request_want(request, done, &want);
		r = read_cached(blobs, &cache_id, &want);
		if (r >= 0 && ahead_marked(blobs, &cache_id, want.block))
			came_on(blobs, id, want.block);
		if (r < 0 && !blob) {
			r = blob_hold(blobs, id, wait_may_block(wait), &blob);
			if (r < 0)
				return r;
			r = -ENOENT;
		}
		if (r < 0)
			r = blob_read_block(blob, id, &want, request->raw, wait);
		if (r < 0)
			break;
	}
	if (blob)
		blob_put(blob);
	return r < 0 ? r : (ssize_t)request->len;
}

static ssize_t read_clipped(struct blobs *blobs, const struct blob_id *id, struct request request,
			    struct wait *wait)
{
	if (id->size > BLOB_MAX_SIZE)
		return -EFBIG;
	if (request.off >= id->size || request.len == 0)
		return 0;
	request.len = MIN(request.len, id->size - request.off);
	request.until = MIN(request.until, id->size);
	request.whole_end = MIN(request.whole_end, id->size);
	return read_request(blobs, id, &request, wait);
}

ssize_t blob_read(struct blobs *blobs, const struct blob_id *id, uint64_t off, void *buf,
		  size_t len, struct wait *wait)
{
	struct request request = {.off = off, .buf = buf, .len = len};

	return read_clipped(blobs, id, request, wait);
}

ssize_t blob_read_on(struct blobs *blobs, const struct blob_id *id, const struct blob_piece *piece,
		     struct wait *wait)
{
	struct request request = {
		.off = piece->off,
		.buf = piece->buf,
		.len = piece->len,
		.until = piece->until,
		.whole_off = piece->whole_off,
		.whole_end = piece->whole_end,
	};

	return read_clipped(blobs, id, request, wait);
}

ssize_t blob_read_raw(struct blobs *blobs, const struct blob_id *id, uint64_t off, void *buf,
		      size_t len, struct wait *wait)
{
	struct request request = {.off = off, .buf = buf, .len = len, .raw = true};
	struct cache_id cache_id = {.kind = CACHE_BLOB};

	digest_key(id->digest, cache_id.key);
	if (off > 0 && stale_refuses(blobs, &cache_id))
		return -EIO;
	ssize_t n = read_clipped(blobs, id, request, wait);
	if (off == 0 && n > 0)
		stale_begun(blobs, &cache_id);
	return n;
}

static ssize_t bring_in(struct blob *blob, const struct blob_id *id, const struct blob_piece *piece,
			struct wait *wait)
{
	uint8_t byte;
	struct blob_piece one = {.off = piece->off, .buf = &byte, .len = 1};

	/* a small one comes whole with any byte of it */
	if (blob->size <= BLOB_SMALL) {
		ssize_t n = blob_read_on(blob->blobs, id, &one, wait);
		return MIN(n, 0);
	}
	int r = blob_know_sums(blob, wait);
	if (r <= 0)
		return r;
	return fetch_bring(blob, id, (uint32_t)(piece->off / CACHE_BLOCK),
			   (uint32_t)((piece->off + piece->len - 1) / CACHE_BLOCK), wait);
}

ssize_t blob_bring(struct blobs *blobs, const struct blob_id *id, const struct blob_piece *piece,
		   struct wait *wait)
{
	struct blob_piece clipped = *piece;
	struct blob *blob;

	if (id->size > BLOB_MAX_SIZE)
		return -EFBIG;
	if (piece->off >= id->size || piece->len == 0)
		return 0;
	clipped.len = MIN(piece->len, id->size - piece->off);
	int r = blob_hold(blobs, id, true, &blob);
	if (r < 0)
		return r;
	ssize_t n = bring_in(blob, id, &clipped, wait);
	blob_put(blob);
	return n;
}

void blob_known(struct blobs *blobs, const struct blob_id *id, const void *data)
{
	struct cache_id cache_id = {.kind = CACHE_BLOB};

	digest_key(id->digest, cache_id.key);
	for (uint64_t off = 0; off < id->size && off < BLOB_MAX_SIZE; off += CACHE_BLOCK) {
		uint32_t nr = off / CACHE_BLOCK;

		if (!cache_has(blobs->cache, &cache_id, nr))
			(void)cache_write(blobs->cache, &cache_id, nr, (const char *)data + off,
					  MIN(id->size - off, (uint64_t)CACHE_BLOCK), 0);
	}
}

/* --- small ones, whole --- */

/* The kept file is hashed again: it may be older than any pass of this process. */
static int get_kept(struct blobs *blobs, const struct blob_id *id, const struct cache_id *file,
		    struct buf *ret)
{
	AUTO_BUF struct buf bytes = BUF_INIT(id->size);
	struct digest digest;

	int r = cache_get(blobs->cache, file, &bytes);
	if (r < 0)
		return r == -ENOMEM ? r : -ENOENT;
	digest_of(id->digest->algo, bytes.data, bytes.len, &digest);
	if (bytes.len != id->size || !digest_equal(&digest, id->digest))
		return -ENOENT;
	return buf_add(ret, bytes.data, bytes.len);
}

static int get_stream(struct blobs *blobs, const struct blob_id *id, struct buf *bytes,
		      struct wait *wait)
{
	struct blob_stream *stream;
	const void *data;
	ssize_t n;

	int r = stream_open(blobs, id, id->size > BLOB_SMALL, wait, &stream);
	if (r < 0)
		return r;
	while ((n = blob_stream_read(stream, &data, wait)) > 0) {
		r = buf_add(bytes, data, n);
		if (r < 0) {
			n = r;
			break;
		}
	}
	blob_stream_close(stream);
	return n;
}

int blob_get(struct blobs *blobs, const struct blob_id *id, size_t max, struct buf *ret,
	     struct wait *wait)
{
	struct cache_id file = {.kind = CACHE_MANIFEST};
	AUTO_BUF struct buf bytes = BUF_INIT(id->size);
	bool small = id->size > 0 && id->size <= BLOB_SMALL;

	if (id->size > max)
		return -EFBIG;
	digest_key(id->digest, file.key);
	int r = small ? get_kept(blobs, id, &file, ret) : -ENOENT;
	if (r != -ENOENT)
		return r;
	uint64_t source = blob_source(id);
	r = get_stream(blobs, id, &bytes, wait);
	if (r == -EIO && blob_source(id) != source) {
		/* It was wrong there; the store has another place for it. */
		buf_clear(&bytes);
		r = get_stream(blobs, id, &bytes, wait);
	}
	if (r < 0)
		return r;
	if (small)
		cache_put(blobs->cache, &file, bytes.data, bytes.len);
	return buf_add(ret, bytes.data, bytes.len);
}
