// SPDX-License-Identifier: Apache-2.0
/*
 * The store in memory that unit tests use. Knows its own maps and the faults asked for. Must not
 * know who is tested.
 *
 * One lock guards all. Content is only added to or unlinked, never freed before the store is, so
 * that a stream may go on with a blob that was removed.
 */
#include <errno.h>

#include "fakestore.h"
#include "regfs/oci.h"

struct object {
	struct object *next;
	char *repo;
	struct digest digest;
	char *media_type; /* NULL: a blob */
	uint8_t *data;
	size_t len;
	bool removed;
};

struct tag {
	struct tag *next;
	char *repo, *name;
	struct digest digest;
	bool removed;
};

struct fakestore {
	struct store store;
	pthread_mutex_t lock;
	pthread_cond_t changed; /* nstalled */
	struct wait_queue stalled;
	unsigned nstalled;
	struct object *objects;
	struct tag *tags;
	unsigned calls[FAKE_OPS];
	uint64_t bytes, generation;
	unsigned streams;

	int errors[FAKE_OPS];
	bool stall[FAKE_OPS];
	uint64_t stall_at, fail_at, end_at, corrupt_at;
	int fail_at_error;
	unsigned corrupt_times;
	size_t chunk;
};

struct fake_stream {
	struct store_stream stream;
	struct fakestore *fake;
	const struct object *object;
	uint64_t off, end;
};

static struct fakestore *fake_of(struct store *store)
{
	return CONTAINER_OF(store, struct fakestore, store);
}

static void *must(void *ptr)
{
	if (!ptr)
		abort();
	return ptr;
}

static char *must_dup(const char *str)
{
	return must(strdup(str));
}

static void fake_lock(struct fakestore *fake)
{
	pthread_mutex_lock(&fake->lock);
}

static void fake_unlock(struct fakestore *fake)
{
	pthread_mutex_unlock(&fake->lock);
}

/* --- content; lock held in the _locked ones --- */

static struct object *find_object(struct fakestore *fake, const char *repo,
				  const struct digest *digest, bool blob)
{
	for (struct object *o = fake->objects; o; o = o->next)
		if (!o->removed && blob == !o->media_type && digest_equal(&o->digest, digest) &&
		    strcmp(o->repo, repo) == 0)
			return o;
	return NULL;
}

static struct tag *find_tag(struct fakestore *fake, const char *repo, const char *name)
{
	for (struct tag *t = fake->tags; t; t = t->next)
		if (!t->removed && strcmp(t->repo, repo) == 0 && strcmp(t->name, name) == 0)
			return t;
	return NULL;
}

static void add_object_locked(struct fakestore *fake, const char *repo, const char *media_type,
			      const struct digest *digest, const void *data, size_t len)
{
	if (find_object(fake, repo, digest, !media_type))
		return;
	struct object *o = must(calloc(1, sizeof(*o)));
	o->repo = must_dup(repo);
	o->media_type = media_type ? must_dup(media_type) : NULL;
	o->digest = *digest;
	o->data = must(malloc(len + 1));
	if (len > 0)
		memcpy(o->data, data, len);
	o->len = len;
	o->next = fake->objects;
	fake->objects = o;
	fake->generation++;
}

static void set_tag_locked(struct fakestore *fake, const char *repo, const char *name,
			   const struct digest *digest)
{
	struct tag *t = find_tag(fake, repo, name);

	if (!t) {
		t = must(calloc(1, sizeof(*t)));
		t->repo = must_dup(repo);
		t->name = must_dup(name);
		t->next = fake->tags;
		fake->tags = t;
	}
	t->digest = *digest;
	fake->generation++;
}

void fakestore_add_blob(struct store *store, const char *repo, const void *data, size_t len,
			struct digest *ret_digest)
{
	struct digest digest;

	digest_of(DIGEST_SHA256, data, len, &digest);
	fakestore_add_wrong_blob(store, repo, &digest, data, len);
	if (ret_digest)
		*ret_digest = digest;
}

void fakestore_add_wrong_blob(struct store *store, const char *repo, const struct digest *digest,
			      const void *data, size_t len)
{
	struct fakestore *fake = fake_of(store);

	fake_lock(fake);
	add_object_locked(fake, repo, NULL, digest, data, len);
	fake_unlock(fake);
}

void fakestore_remove_blob(struct store *store, const char *repo, const struct digest *digest)
{
	struct fakestore *fake = fake_of(store);

	fake_lock(fake);
	struct object *o = find_object(fake, repo, digest, true);
	if (o)
		o->removed = true;
	fake->generation++;
	fake_unlock(fake);
}

void fakestore_add_manifest(struct store *store, const char *repo, const char *tag,
			    const char *media_type, const char *json, struct digest *ret_digest)
{
	struct fakestore *fake = fake_of(store);
	struct digest digest;

	digest_of(DIGEST_SHA256, json, strlen(json), &digest);
	fake_lock(fake);
	add_object_locked(fake, repo, media_type, &digest, json, strlen(json));
	if (tag)
		set_tag_locked(fake, repo, tag, &digest);
	fake_unlock(fake);
	if (ret_digest)
		*ret_digest = digest;
}

void fakestore_remove_tag(struct store *store, const char *repo, const char *tag)
{
	struct fakestore *fake = fake_of(store);

	fake_lock(fake);
	struct tag *t = find_tag(fake, repo, tag);
	if (t)
		t->removed = true;
	fake->generation++;
	fake_unlock(fake);
}

void fakestore_touch(struct store *store)
{
	struct fakestore *fake = fake_of(store);

	fake_lock(fake);
	fake->generation++;
	fake_unlock(fake);
}

/* --- faults --- */

void fakestore_fail(struct store *store, enum fakestore_op op, int error)
{
	struct fakestore *fake = fake_of(store);

	fake_lock(fake);
	for (unsigned i = 0; i < FAKE_OPS; i++)
		if (op == FAKE_OPS || op == i)
			fake->errors[i] = error;
	fake_unlock(fake);
}

void fakestore_fail_at(struct store *store, uint64_t at, int error)
{
	struct fakestore *fake = fake_of(store);

	fake_lock(fake);
	fake->fail_at = error ? at : UINT64_MAX;
	fake->fail_at_error = error;
	fake_unlock(fake);
}

void fakestore_end_at(struct store *store, uint64_t at)
{
	struct fakestore *fake = fake_of(store);

	fake_lock(fake);
	fake->end_at = at;
	fake_unlock(fake);
}

void fakestore_corrupt(struct store *store, uint64_t at, unsigned times)
{
	struct fakestore *fake = fake_of(store);

	fake_lock(fake);
	fake->corrupt_at = at;
	fake->corrupt_times = times;
	fake_unlock(fake);
}

void fakestore_chunk(struct store *store, size_t len)
{
	struct fakestore *fake = fake_of(store);

	fake_lock(fake);
	fake->chunk = len;
	fake_unlock(fake);
}

void fakestore_stall(struct store *store, enum fakestore_op op)
{
	struct fakestore *fake = fake_of(store);

	fake_lock(fake);
	fake->stall[op] = true;
	fake_unlock(fake);
}

void fakestore_stall_at(struct store *store, uint64_t at)
{
	struct fakestore *fake = fake_of(store);

	fake_lock(fake);
	fake->stall_at = at;
	fake_unlock(fake);
}

void fakestore_await_stalled(struct store *store, unsigned n)
{
	struct fakestore *fake = fake_of(store);

	fake_lock(fake);
	while (fake->nstalled < n)
		pthread_cond_wait(&fake->changed, &fake->lock);
	fake_unlock(fake);
}

void fakestore_release(struct store *store)
{
	struct fakestore *fake = fake_of(store);

	fake_lock(fake);
	memset(fake->stall, 0, sizeof(fake->stall));
	fake->stall_at = UINT64_MAX;
	wait_wake(&fake->stalled);
	fake_unlock(fake);
}

/* --- what happened --- */

unsigned fakestore_calls(struct store *store, enum fakestore_op op)
{
	struct fakestore *fake = fake_of(store);

	fake_lock(fake);
	unsigned calls = fake->calls[op];
	fake_unlock(fake);
	return calls;
}

uint64_t fakestore_bytes(struct store *store)
{
	struct fakestore *fake = fake_of(store);

	fake_lock(fake);
	uint64_t bytes = fake->bytes;
	fake_unlock(fake);
	return bytes;
}

unsigned fakestore_streams(struct store *store)
{
	struct fakestore *fake = fake_of(store);

	fake_lock(fake);
	unsigned streams = fake->streams;
	fake_unlock(fake);
	return streams;
}

/* --- the operations --- */

/* Stands still once. Lock held. */
static int stand_still(struct fakestore *fake, struct wait *wait)
{
	fake->nstalled++;
	pthread_cond_broadcast(&fake->changed);
	int r = wait_on(wait, &fake->stalled, &fake->lock, WAIT_FOREVER);
	fake->nstalled--;
	return r;
}

/* Counts the call, stalls and fails as asked for. With 0 the lock is held. */
static int enter(struct fakestore *fake, enum fakestore_op op, struct wait *wait)
{
	int r = 0;

	/* it plays a network */
	if (!wait_may_block(wait))
		return -EWOULDBLOCK;
	fake_lock(fake);
	fake->calls[op]++;
	while (r == 0 && fake->stall[op])
		r = stand_still(fake, wait);
	if (r == 0 && wait_cancelled(wait))
		r = -EINTR;
	if (r == 0)
		r = fake->errors[op];
	if (r < 0)
		fake_unlock(fake);
	return r;
}

static int leave(struct fakestore *fake, int r)
{
	fake_unlock(fake);
	return r;
}

/* Calls FN with copies of NAMES, without the lock. Frees them. */
static int give_names(char **names, size_t n, store_name_fn *fn, void *arg)
{
	int r = 0;

	for (size_t i = 0; i < n; i++) {
		if (r == 0)
			r = fn(arg, names[i]);
		free(names[i]);
	}
	free(names);
	return r;
}

static bool has_name(char **names, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(names[i], name) == 0)
			return true;
	return false;
}

static int fake_list_repos(struct store *store, store_name_fn *fn, void *arg, struct wait *wait)
{
	struct fakestore *fake = fake_of(store);
	char **names = NULL;
	size_t n = 0;

	int r = enter(fake, FAKE_LIST_REPOS, wait);
	if (r < 0)
		return r;
	for (struct object *o = fake->objects; o; o = o->next) {
		if (o->removed || has_name(names, n, o->repo))
			continue;
		names = must(realloc(names, (n + 1) * sizeof(*names)));
		names[n++] = must_dup(o->repo);
	}
	fake_unlock(fake);
	return give_names(names, n, fn, arg);
}

static bool repo_exists(struct fakestore *fake, const char *repo)
{
	for (struct object *o = fake->objects; o; o = o->next)
		if (!o->removed && strcmp(o->repo, repo) == 0)
			return true;
	return false;
}

static int fake_list_tags(struct store *store, const char *repo, store_name_fn *fn, void *arg,
			  struct wait *wait)
{
	struct fakestore *fake = fake_of(store);
	char **names = NULL;
	size_t n = 0;

	int r = enter(fake, FAKE_LIST_TAGS, wait);
	if (r < 0)
		return r;
	if (!repo_exists(fake, repo))
		return leave(fake, -ENOENT);
	for (struct tag *t = fake->tags; t; t = t->next) {
		if (t->removed || strcmp(t->repo, repo) != 0)
			continue;
		names = must(realloc(names, (n + 1) * sizeof(*names)));
		names[n++] = must_dup(t->name);
	}
	fake_unlock(fake);
	return give_names(names, n, fn, arg);
}

static struct object *find_manifest(struct fakestore *fake, const char *repo,
				    const char *tag_or_digest)
{
	struct digest digest;

	if (digest_parse(tag_or_digest, &digest) < 0) {
		struct tag *t = find_tag(fake, repo, tag_or_digest);
		if (!t)
			return NULL;
		digest = t->digest;
	}
	return find_object(fake, repo, &digest, false);
}

static int fake_head(struct store *store, const char *repo, const char *tag_or_digest,
		     struct digest *ret, struct wait *wait)
{
	struct fakestore *fake = fake_of(store);

	int r = enter(fake, FAKE_HEAD, wait);
	if (r < 0)
		return r;
	struct object *o = find_manifest(fake, repo, tag_or_digest);
	if (!o)
		return leave(fake, -ENOENT);
	*ret = o->digest;
	return leave(fake, 0);
}

static int fake_get_manifest(struct store *store, const char *repo, const char *tag_or_digest,
			     struct store_manifest *ret, struct wait *wait)
{
	struct fakestore *fake = fake_of(store);

	int r = enter(fake, FAKE_GET_MANIFEST, wait);
	if (r < 0)
		return r;
	struct object *o = find_manifest(fake, repo, tag_or_digest);
	if (!o)
		return leave(fake, -ENOENT);
	struct buf bytes = BUF_INIT(o->len);
	if (buf_add(&bytes, o->data, o->len) < 0)
		abort();
	*ret = (struct store_manifest){
		.digest = o->digest, .media_type = must_dup(o->media_type), .bytes = bytes};
	return leave(fake, 0);
}

/* The descriptor of O if its subject is DIGEST: 1; else 0. */
static int refers(const struct object *o, const struct digest *digest, struct oci_descriptor *ret)
{
	CLEANUP(oci_manifest_release) struct oci_manifest manifest = {0};
	const char *why;

	if (oci_manifest_parse((const char *)o->data, o->len, o->media_type, &manifest, &why) ||
	    !manifest.subject || !digest_equal(&manifest.subject->digest, digest))
		return 0;
	*ret = (struct oci_descriptor){
		.media_type = must_dup(manifest.media_type),
		.artifact_type = must_dup(oci_artifact_type(&manifest)),
		.digest = o->digest,
		.size = (int64_t)o->len,
	};
	return 1;
}

static int fake_referrers(struct store *store, const char *repo, const struct digest *digest,
			  store_descriptor_fn *fn, void *arg, struct wait *wait)
{
	struct fakestore *fake = fake_of(store);
	struct oci_descriptor found[16];
	size_t n = 0;

	int r = enter(fake, FAKE_REFERRERS, wait);
	if (r < 0)
		return r;
	for (struct object *o = fake->objects; o && n < ARRAY_SIZE(found); o = o->next)
		if (!o->removed && o->media_type && strcmp(o->repo, repo) == 0)
			n += refers(o, digest, &found[n]);
	fake_unlock(fake);
	for (size_t i = 0; i < n; i++) {
		if (r == 0)
			r = fn(arg, &found[i]);
		oci_descriptor_release(&found[i]);
	}
	return r;
}

static int fake_has_blob(struct store *store, const char *repo, const struct digest *digest,
			 uint64_t *ret_size, struct wait *wait)
{
	struct fakestore *fake = fake_of(store);

	int r = enter(fake, FAKE_HAS_BLOB, wait);
	if (r < 0)
		return r;
	struct object *o = find_object(fake, repo, digest, true);
	if (!o)
		return leave(fake, -ENOENT);
	*ret_size = o->len;
	return leave(fake, 0);
}

/* How many bytes to give now; 0 at the end. Lock held. */
static size_t stream_len(const struct fake_stream *stream, size_t cap)
{
	const struct fakestore *fake = stream->fake;
	uint64_t end = MIN(stream->end, fake->end_at);

	/* a stall or a fault stands at the byte itself: what is before it is given */
	if (stream->off < fake->stall_at)
		end = MIN(end, fake->stall_at);
	if (stream->off < fake->fail_at)
		end = MIN(end, fake->fail_at);
	if (fake->chunk)
		cap = MIN(cap, fake->chunk);
	return stream->off < end ? MIN(cap, end - stream->off) : 0;
}

static ssize_t fake_stream_read(struct store_stream *base, void *buf, size_t cap, struct wait *wait)
{
	struct fake_stream *stream = CONTAINER_OF(base, struct fake_stream, stream);
	struct fakestore *fake = stream->fake;
	int r = 0;

	fake_lock(fake);
	while (r == 0 && stream->off >= fake->stall_at && stream->off < stream->end)
		r = stand_still(fake, wait);
	if (r == 0 && wait_cancelled(wait))
		r = -EINTR;
	if (r == 0 && fake->fail_at_error && stream->off >= fake->fail_at)
		r = fake->fail_at_error;
	if (r < 0)
		return leave(fake, r);
	size_t len = stream_len(stream, cap);
	memcpy(buf, stream->object->data + stream->off, len);
	if (fake->corrupt_times > 0 && fake->corrupt_at >= stream->off &&
	    fake->corrupt_at < stream->off + len) {
		((uint8_t *)buf)[fake->corrupt_at - stream->off] ^= 0x5a;
		fake->corrupt_times--;
	}
	stream->off += len;
	fake->bytes += len;
	fake_unlock(fake);
	return len;
}

static void fake_stream_close(struct store_stream *base)
{
	struct fake_stream *stream = CONTAINER_OF(base, struct fake_stream, stream);

	fake_lock(stream->fake);
	stream->fake->streams--;
	fake_unlock(stream->fake);
	free(stream);
}

static int fake_open_blob(struct store *store, const char *repo, const struct digest *digest,
			  uint64_t off, uint64_t len, struct store_stream **ret, struct wait *wait)
{
	struct fakestore *fake = fake_of(store);

	int r = enter(fake, FAKE_OPEN_BLOB, wait);
	if (r < 0)
		return r;
	struct object *o = find_object(fake, repo, digest, true);
	if (!o)
		return leave(fake, -ENOENT);
	struct fake_stream *stream = must(calloc(1, sizeof(*stream)));
	stream->stream.read = fake_stream_read;
	stream->stream.close = fake_stream_close;
	stream->fake = fake;
	stream->object = o;
	stream->off = MIN(off, o->len);
	stream->end = stream->off + MIN(len, o->len - stream->off);
	fake->streams++;
	*ret = &stream->stream;
	return leave(fake, 0);
}

static int read_source(const struct store_source *source, uint8_t *data, struct wait *wait)
{
	for (uint64_t done = 0; done < source->size;) {
		ssize_t n = store_source_read(source, done, data + done, source->size - done, wait);
		if (n < 0)
			return n;
		if (n == 0)
			return -EIO;
		done += n;
	}
	return 0;
}

static int fake_put_blob(struct store *store, const char *repo, const struct store_put *put,
			 struct wait *wait)
{
	struct fakestore *fake = fake_of(store);
	AUTO_FREE uint8_t *data = NULL;
	struct digest digest;

	int r = enter(fake, FAKE_PUT_BLOB, wait);
	if (r < 0)
		return r;
	fake_unlock(fake);
	if (!put->source)
		return -ENOENT; /* it mounts nothing */
	data = must(malloc(put->source->size + 1));
	r = read_source(put->source, data, wait);
	if (r < 0)
		return r;
	digest_of(put->digest->algo, data, put->source->size, &digest);
	if (!digest_equal(&digest, put->digest))
		return -EINVAL;
	fake_lock(fake);
	add_object_locked(fake, repo, NULL, &digest, data, put->source->size);
	fake_unlock(fake);
	if (put->progress)
		put->progress(put->progress_arg, put->source->size);
	return 0;
}

static int fake_put_manifest(struct store *store, const char *repo, const char *tag,
			     const char *media_type, const void *bytes, size_t len,
			     struct wait *wait)
{
	struct fakestore *fake = fake_of(store);
	struct digest digest;

	int r = enter(fake, FAKE_PUT_MANIFEST, wait);
	if (r < 0)
		return r;
	digest_of(DIGEST_SHA256, bytes, len, &digest);
	add_object_locked(fake, repo, media_type, &digest, bytes, len);
	if (tag && !strchr(tag, ':'))
		set_tag_locked(fake, repo, tag, &digest);
	return leave(fake, 0);
}

static int fake_untag(struct store *store, const char *repo, const char *tag, struct wait *wait)
{
	struct fakestore *fake = fake_of(store);

	int r = enter(fake, FAKE_UNTAG, wait);
	if (r < 0)
		return r;
	struct tag *t = find_tag(fake, repo, tag);
	if (!t)
		return leave(fake, -ENOENT);
	t->removed = true;
	fake->generation++;
	return leave(fake, 0);
}

static int fake_delete_manifest(struct store *store, const char *repo, const struct digest *digest,
				struct wait *wait)
{
	struct fakestore *fake = fake_of(store);

	int r = enter(fake, FAKE_DELETE_MANIFEST, wait);
	if (r < 0)
		return r;
	struct object *o = find_object(fake, repo, digest, false);
	if (!o)
		return leave(fake, -ENOENT);
	o->removed = true;
	for (struct tag *t = fake->tags; t; t = t->next)
		if (strcmp(t->repo, repo) == 0 && digest_equal(&t->digest, digest))
			t->removed = true;
	fake->generation++;
	return leave(fake, 0);
}

static int fake_make_repo(struct store *store, const char *repo, struct wait *wait)
{
	struct fakestore *fake = fake_of(store);

	(void)repo;
	int r = enter(fake, FAKE_MAKE_REPO, wait);
	return r < 0 ? r : leave(fake, 0);
}

static int fake_ping(struct store *store, struct wait *wait)
{
	struct fakestore *fake = fake_of(store);

	int r = enter(fake, FAKE_PING, wait);
	return r < 0 ? r : leave(fake, 0);
}

static uint64_t fake_generation(struct store *store, const char *repo)
{
	struct fakestore *fake = fake_of(store);

	(void)repo;
	fake_lock(fake);
	uint64_t generation = fake->generation;
	fake_unlock(fake);
	return generation;
}

static void fake_free(struct store *store)
{
	struct fakestore *fake = fake_of(store);

	while (fake->objects) {
		struct object *o = fake->objects;

		fake->objects = o->next;
		free(o->repo);
		free(o->media_type);
		free(o->data);
		free(o);
	}
	while (fake->tags) {
		struct tag *t = fake->tags;

		fake->tags = t->next;
		free(t->repo);
		free(t->name);
		free(t);
	}
	pthread_cond_destroy(&fake->changed);
	pthread_mutex_destroy(&fake->lock);
	free(fake->store.name);
	free(fake);
}

static const struct store_ops fake_ops = {
	.kind = "fake",
	.list_repos = fake_list_repos,
	.list_tags = fake_list_tags,
	.head = fake_head,
	.get_manifest = fake_get_manifest,
	.referrers = fake_referrers,
	.has_blob = fake_has_blob,
	.open_blob = fake_open_blob,
	.put_blob = fake_put_blob,
	.put_manifest = fake_put_manifest,
	.untag = fake_untag,
	.delete_manifest = fake_delete_manifest,
	.make_repo = fake_make_repo,
	.ping = fake_ping,
	.generation = fake_generation,
	.free = fake_free,
};

struct store *fakestore_new(const char *name)
{
	struct fakestore *fake = must(calloc(1, sizeof(*fake)));

	fake->store.ops = &fake_ops;
	fake->store.name = must_dup(name);
	fake->generation = 1;
	fake->stall_at = fake->fail_at = fake->end_at = UINT64_MAX;
	pthread_mutex_init(&fake->lock, NULL);
	pthread_cond_init(&fake->changed, NULL);
	return &fake->store;
}
