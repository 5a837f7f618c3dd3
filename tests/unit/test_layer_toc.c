// SPDX-License-Identifier: Apache-2.0
/*
 * layer, with a table of contents: opened without the blob, read chunk by chunk, and by the whole
 * blob where the table is no use; over the fake store and a real cache.
 */
#include <errno.h>
#include <ftw.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "../../src/layer_priv.h"
#include "fakestore.h"
#include "lazy.h"
#include "regfs/log.h"
#include "regfs/stats.h"

#define CHUNK (256 * KIB)
#define BIG   (5 * CHUNK + 345) /* of the file "big", whose third chunk is zeros */
#define TAIL  (64 * KIB)	/* what is asked for to find a table */

struct fixture {
	char dir[64];
	struct cache *cache;
	struct pool *jobs;
	struct blobs *blobs;
	struct layers *layers;
	struct store *store;
	struct wait wait;
	uint8_t *big, *out;
	struct lazy lazy;
	struct digest digest;
	struct blob_id id;
	struct toc_ref toc;
	struct layer_claims claims;
	int64_t passes, tocs; /* at the start */
};

/* --- rooms --- */

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

static void open_rooms(struct fixture *f, uint64_t cache_size)
{
	assert_int_equal(cache_open(f->dir, cache_size, &f->cache), 0);
	f->jobs = pool_new("jobs", 0);
	f->blobs = blobs_new(f->cache, f->jobs, 60000);
	f->layers = layers_new(f->blobs, f->cache, f->jobs);
	assert_non_null(f->layers);
	f->layers->toc_min = 0;
}

static void close_rooms(struct fixture *f)
{
	layers_free(f->layers);
	blobs_free(f->blobs);
	pool_free(f->jobs);
	cache_close(f->cache);
}

static void reopen(struct fixture *f)
{
	close_rooms(f);
	open_rooms(f, 256 * MIB);
}

static struct fixture *setup_sized(uint64_t cache_size)
{
	struct fixture *f = calloc(1, sizeof(*f));
	uint32_t x = 1;

	assert_non_null(f);
	snprintf(f->dir, sizeof(f->dir), "/tmp/regfs-layer-toc-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	f->big = malloc(BIG);
	f->out = malloc(BIG + 1);
	assert_true(f->big && f->out);
	for (size_t i = 0; i < BIG; i++) {
		x = x * 1664525 + 1013904223;
		f->big[i] = i / CHUNK == 2 ? 0 : x >> 24;
	}
	f->store = fakestore_new("fake.example");
	wait_init(&f->wait, true);
	open_rooms(f, cache_size);
	return f;
}

static int setup(void **state)
{
	*state = setup_sized(256 * MIB);
	return 0;
}

static int setup_no_cache(void **state)
{
	*state = setup_sized(1);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	close_rooms(f);
	lazy_release(&f->lazy);
	store_free(f->store);
	wait_release(&f->wait);
	nftw(f->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	free(f->big);
	free(f->out);
	free(f);
	return 0;
}

/* --- layers --- */

static void add(struct lazy *lazy, const struct tar_member *member, const char *data)
{
	struct tar_member full = *member;

	full.size = data ? strlen(data) : 0;
	full.mtime_sec = 1700000000;
	lazy_add(lazy, &full, data);
}

static void add_small(struct lazy *lazy)
{
	static const struct tar_xattr xattrs[] = {{"user.a", "v1", 2}, {"user.b", "", 1}};
	const struct tar_member members[] = {
		{.path = "./", .mode = S_IFDIR | 0711},
		{.path = "dir/", .mode = S_IFDIR | 01777, .uid = 5},
		{.path = "dir/<&>\xc3\xa9", .mode = S_IFREG | 04755, .uid = 70000, .gid = 1},
		{.path = "x", .mode = S_IFREG, .xattrs = xattrs, .nxattrs = 2},
		{.path = "sym", .mode = S_IFLNK | 0777, .symlink = "dir/../x"},
		{.path = "hard", .mode = S_IFREG, .hard_link = "./x"},
		{.path = "lower", .mode = S_IFREG | 0600, .hard_link = "in/another/layer"},
		{.path = "chr", .mode = S_IFCHR | 0600, .rdev_major = 10, .rdev_minor = 200},
		{.path = "blk", .mode = S_IFBLK | 0600, .rdev_major = 8, .rdev_minor = 1},
		{.path = "fifo", .mode = S_IFIFO | 0600},
		{.path = "dir/.wh.gone", .mode = S_IFREG},
		{.path = "dir/.wh..wh..opq", .mode = S_IFREG},
		{.path = "a/b/c/deep", .mode = S_IFREG | 0644},
		{.path = "twice", .mode = S_IFREG | 0644},
		{.path = "twice", .mode = S_IFREG | 0600},
	};
	const char *const data[] = {[2] = "two", [3] = "xattrs", [12] = "deep", [13] = "first"};

	for (size_t i = 0; i < ARRAY_SIZE(members); i++)
		add(lazy, &members[i], i < ARRAY_SIZE(data) ? data[i] : NULL);
}

/* Up to the table; the caller may add more. */
static void begin(struct fixture *f, enum lazy_form form)
{
	const struct tar_member landmark = {.path = ".no.prefetch.landmark",
					    .mode = S_IFREG | 0644};
	const struct tar_member big = {.path = "big", .mode = S_IFREG | 0644, .size = BIG};

	lazy_begin(&f->lazy, form, CHUNK);
	if (form != LAZY_CONTAINERS)
		add(&f->lazy, &landmark, "\xf");
	add_small(&f->lazy);
	lazy_add(&f->lazy, &big, f->big);
}

static void publish(struct fixture *f)
{
	lazy_end(&f->lazy);
	fakestore_add_blob(f->store, "repo", f->lazy.blob.data, f->lazy.blob.len, &f->digest);
	f->id = (struct blob_id){
		.digest = &f->digest, .size = f->lazy.blob.len, .store = f->store, .repo = "repo"};
	assert_int_equal(toc_ref_find(f->lazy.annotations, f->lazy.nannotations, &f->toc), 0);
	f->claims.toc = &f->toc;
	f->passes = stats_get(STAT_PASSES);
	f->tocs = stats_get(STAT_TOCS);
}

static void use(struct fixture *f, enum lazy_form form)
{
	begin(f, form);
	publish(f);
}

/* --- looking --- */

static struct layer *open_layer(struct fixture *f)
{
	struct layer *layer = NULL;

	assert_int_equal(layer_open(f->layers, &f->id, &f->claims, &f->wait, &layer), 0);
	return layer;
}

static uint32_t find(struct layer *layer, const char *name)
{
	struct index_name found;

	assert_int_equal(index_lookup(layer_index(layer), INDEX_ROOT, name, strlen(name), &found),
			 0);
	return found.ino;
}

static bool has(struct layer *layer, const char *name)
{
	struct index_name found;

	return index_lookup(layer_index(layer), INDEX_ROOT, name, strlen(name), &found) == 0;
}

static void check_big(struct fixture *f, struct layer *layer, uint64_t off, size_t len)
{
	size_t want = MIN(len, BIG - off);

	memset(f->out, 0xee, len);
	assert_int_equal(layer_read(layer, find(layer, "big"), off, f->out, len, &f->wait), want);
	assert_memory_equal(f->out, f->big + off, want);
}

static void check_text(struct fixture *f, struct layer *layer, const char *name, const char *text)
{
	char out[64] = "";

	assert_int_equal(layer_read(layer, find(layer, name), 0, out, sizeof(out), &f->wait),
			 strlen(text));
	assert_string_equal(out, text);
}

static bool logged(const char *words)
{
	AUTO_BUF struct buf text = BUF_INIT(16 * MIB);

	return log_recent(&text) == 0 && text.data && strstr(text.data, words);
}

static int64_t passes(const struct fixture *f)
{
	return stats_get(STAT_PASSES) - f->passes;
}

static int64_t tocs(const struct fixture *f)
{
	return stats_get(STAT_TOCS) - f->tocs;
}

/* --- what a table says is what the tar says --- */

static void same_xattrs(const struct index *a, uint32_t a_ino, const struct index *b,
			uint32_t b_ino)
{
	struct tar_xattr left, right;
	uint32_t n = 0;

	/* writers sort them; so does the test's */
	for (; index_xattr(a, a_ino, n, &left) == 0; n++) {
		assert_int_equal(index_xattr(b, b_ino, n, &right), 0);
		assert_string_equal(left.name, right.name);
		assert_int_equal(left.len, right.len);
		assert_memory_equal(left.value, right.value, left.len);
	}
	assert_int_equal(index_xattr(b, b_ino, n, &right), -ENODATA);
}

static void same_target(const struct index *a, uint32_t a_ino, const struct index *b,
			uint32_t b_ino)
{
	const char *left, *right;
	size_t left_len, right_len;

	int r = index_target(a, a_ino, &left, &left_len);
	assert_int_equal(index_target(b, b_ino, &right, &right_len), r);
	if (r < 0)
		return;
	assert_int_equal(left_len, right_len);
	assert_memory_equal(left, right, left_len);
}

static void same_tree(const struct index *a, uint32_t a_ino, const struct index *b, uint32_t b_ino)
{
	struct index_inode left, right;
	struct index_name left_name, right_name;

	assert_int_equal(index_inode(a, a_ino, &left), 0);
	assert_int_equal(index_inode(b, b_ino, &right), 0);
	assert_int_equal(left.mode, right.mode);
	assert_int_equal(left.uid, right.uid);
	assert_int_equal(left.gid, right.gid);
	assert_int_equal(left.flags, right.flags);
	assert_int_equal(left.nlink, right.nlink);
	assert_int_equal(left.size, right.size);
	assert_int_equal(left.mtime_sec, right.mtime_sec);
	assert_int_equal(left.mtime_nsec, right.mtime_nsec);
	assert_int_equal(left.rdev_major, right.rdev_major);
	assert_int_equal(left.rdev_minor, right.rdev_minor);
	assert_int_equal(left.nchildren, right.nchildren);
	same_xattrs(a, a_ino, b, b_ino);
	same_target(a, a_ino, b, b_ino);
	for (uint32_t n = 0; n < left.nchildren; n++) {
		assert_int_equal(index_child(a, a_ino, n, &left_name), 0);
		assert_int_equal(index_child(b, b_ino, n, &right_name), 0);
		assert_int_equal(left_name.len, right_name.len);
		assert_memory_equal(left_name.name, right_name.name, left_name.len);
		same_tree(a, left_name.ino, b, right_name.ino);
	}
}

/* The numbers of inodes agree too: they last when another index comes to be used. */
static void same_numbers(const struct index *a, const struct index *b)
{
	struct index_name left, right;

	assert_int_equal(a->info.ninodes, b->info.ninodes);
	for (uint32_t ino = 1; ino < a->info.ninodes; ino++) {
		assert_int_equal(index_name_of(a, ino, 0, &left), 0);
		assert_int_equal(index_name_of(b, ino, 0, &right), 0);
		assert_int_equal(left.len, right.len);
		assert_memory_equal(left.name, right.name, left.len);
	}
}

static void check_form(struct fixture *f, enum lazy_form form)
{
	use(f, form);
	struct layer *layer = open_layer(f);
	assert_true(layer_index(layer)->info.by_toc);
	assert_int_equal(tocs(f), 1);
	assert_int_equal(passes(f), 0);
	assert_true(fakestore_bytes(f->store) <= MAX(TAIL, f->toc.len));
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 1);

	const struct layer_name name = {.id = &f->id, .hides = true};
	struct layer *whole = NULL;
	assert_int_equal(layer_open_name(f->layers, &name, &f->wait, &whole), 0);
	assert_false(layer_index(whole)->info.by_toc);
	same_tree(layer_index(layer), INDEX_ROOT, layer_index(whole), INDEX_ROOT);
	same_numbers(layer_index(layer), layer_index(whole));
	assert_false(has(layer, ".no.prefetch.landmark"));
	assert_false(has(layer, "stargz.index.json"));
	check_big(f, layer, 0, BIG + 1);
	check_text(f, layer, "hard", "xattrs");
	check_text(f, layer, "twice", "");
	layer_unref(whole);
	layer_unref(layer);
}

static void test_estargz(void **state)
{
	check_form(*state, LAZY_ESTARGZ);
}

static void test_legacy(void **state)
{
	check_form(*state, LAZY_LEGACY);
}

static void test_zstd(void **state)
{
	check_form(*state, LAZY_ZSTD);
}

static void test_containers(void **state)
{
	check_form(*state, LAZY_CONTAINERS);
}

/* --- what is fetched --- */

/* Of a read in the middle: the chunk's own bytes. And not again; nor after a restart, without the
 * store. */
static void check_one_chunk(struct fixture *f, enum lazy_form form)
{
	use(f, form);
	struct layer *layer = open_layer(f);
	uint64_t bytes = fakestore_bytes(f->store);

	check_big(f, layer, CHUNK + 1000, 10);
	bytes = fakestore_bytes(f->store) - bytes;
	assert_in_range(bytes, CHUNK, CHUNK + CHUNK / 100);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 2);
	check_big(f, layer, CHUNK, CHUNK);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 2);
	layer_unref(layer);

	fakestore_fail(f->store, FAKE_OPS, -EHOSTUNREACH);
	reopen(f);
	layer = open_layer(f);
	check_big(f, layer, CHUNK, CHUNK);
	assert_int_equal(layer_read(layer, find(layer, "big"), 0, f->out, 1, &f->wait),
			 -EHOSTUNREACH);
	assert_int_equal(passes(f), 0);
	/* a failure of the way is not the table's */
	fakestore_fail(f->store, FAKE_OPS, 0);
	check_big(f, layer, 0, 1);
	assert_int_equal(passes(f), 0);
	layer_unref(layer);
}

static void test_one_chunk_of_gzip(void **state)
{
	check_one_chunk(*state, LAZY_ESTARGZ);
}

static void test_one_chunk_of_zstd(void **state)
{
	check_one_chunk(*state, LAZY_CONTAINERS);
}

/* Of a table that is larger than what was asked for to find it, the rest is fetched: no more. */
static void test_large_table(void **state)
{
	struct fixture *f = *state;
	char name[121] = "";
	struct toc_ref found;
	const char *why;

	begin(f, LAZY_ESTARGZ);
	for (unsigned i = 0; i < 2000; i++) {
		struct tar_member member = {.path = name, .mode = S_IFREG};
		for (int at = 0; at < 120; at += 2)
			snprintf(name + at, 3, "%02x", f->big[i * 60 + (unsigned)at / 2]);
		lazy_add(&f->lazy, &member, NULL);
	}
	publish(f);
	found = f->toc;
	assert_int_equal(toc_locate(f->lazy.blob.data, f->id.size, f->id.size, &found, &why), 0);
	assert_true(found.len > TAIL);
	struct layer *layer = open_layer(f);
	assert_int_equal(tocs(f), 1);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 2);
	assert_int_equal(fakestore_bytes(f->store), f->id.size - found.off);
	assert_true(has(layer, name));
	layer_unref(layer);
}

static void test_zeros_need_no_bytes(void **state)
{
	struct fixture *f = *state;

	use(f, LAZY_CONTAINERS);
	struct layer *layer = open_layer(f);
	check_big(f, layer, 2 * CHUNK, CHUNK);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 1);
	check_big(f, layer, 2 * CHUNK - 10, CHUNK + 20);
	layer_unref(layer);
}

/* Adjacent chunks of one request come in one range; those of a sequential reader in few. */
static void test_adjacent_chunks(void **state)
{
	struct fixture *f = *state;

	use(f, LAZY_ESTARGZ);
	struct layer *layer = open_layer(f);
	check_big(f, layer, 0, BIG);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 2);
	layer_unref(layer);
}

static void test_read_ahead(void **state)
{
	struct fixture *f = *state;

	use(f, LAZY_ESTARGZ);
	struct layer *layer = open_layer(f);
	for (uint64_t off = 0; off < BIG; off += 64 * KIB)
		check_big(f, layer, off, 64 * KIB);
	/* one chunk, then three, then the rest */
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 4);
	layer_unref(layer);
}

/* Chunks of several files that lie together come together, each once, whatever order they are
 * wanted in; what is there is left out. */
static void check_plan(struct fixture *f, enum lazy_form form)
{
	struct layer_plan *plan = NULL;

	use(f, form);
	struct layer *layer = open_layer(f);
	unsigned calls = fakestore_calls(f->store, FAKE_OPEN_BLOB);
	const struct layer_part parts[] = {
		{.ino = find(layer, "big"), .off = CHUNK, .len = 1},
		{.ino = find(layer, "x"), .len = 100000},
		{.ino = find(layer, "big"), .len = 2 * CHUNK},
		{.ino = find(layer, "dir"), .len = 1},
		{.ino = 1000000, .len = 1},
		{.ino = find(layer, "x"), .off = UINT64_MAX, .len = 1},
	};
	assert_int_equal(layer_plan(layer, parts, ARRAY_SIZE(parts), &plan), 0);
	assert_int_equal(layer_plan_count(plan), 1);
	assert_int_equal(layer_plan_first(plan, 0), 0);
	assert_true(layer_plan_bring(plan, 0, &f->wait) > 0);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), calls + 1);
	assert_int_equal(layer_plan_bring(plan, 0, &f->wait), 0);
	layer_plan_free(plan);
	check_text(f, layer, "x", "xattrs");
	check_big(f, layer, 0, 2 * CHUNK);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), calls + 1);
	assert_int_equal(layer_plan(layer, parts, ARRAY_SIZE(parts), &plan), 0);
	assert_int_equal(layer_plan_count(plan), 0);
	layer_plan_free(plan);
	layer_unref(layer);
	assert_int_equal(passes(f), 0);
}

static void test_plan_of_estargz(void **state)
{
	check_plan(*state, LAZY_ESTARGZ);
}

static void test_plan_of_zstd(void **state)
{
	check_plan(*state, LAZY_CONTAINERS);
}

/* The same bytes in another blob are there already. */
static void test_chunks_are_shared(void **state)
{
	struct fixture *f = *state;
	const struct tar_member more = {.path = "more", .mode = S_IFREG};

	use(f, LAZY_ESTARGZ);
	struct layer *layer = open_layer(f);
	check_big(f, layer, 0, BIG);
	lazy_release(&f->lazy);
	begin(f, LAZY_ZSTD);
	add(&f->lazy, &more, "more");
	publish(f);
	struct layer *other = open_layer(f);
	unsigned calls = fakestore_calls(f->store, FAKE_OPEN_BLOB);
	assert_true(layer_index(other)->info.by_toc);
	check_big(f, other, 0, BIG);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), calls);
	check_text(f, other, "more", "more");
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), calls + 1);
	layer_unref(other);
	layer_unref(layer);
}

static void test_small_blobs_are_fetched_whole(void **state)
{
	struct fixture *f = *state;

	f->layers->toc_min = 8 * MIB;
	use(f, LAZY_ESTARGZ);
	struct layer *layer = open_layer(f);
	assert_false(layer_index(layer)->info.by_toc);
	assert_false(has(layer, "stargz.index.json"));
	assert_int_equal(tocs(f), 0);
	check_big(f, layer, 0, BIG);
	/* whether members are hidden is still the manifest's to say */
	f->claims.toc = NULL;
	struct layer *plain = open_layer(f);
	assert_true(has(plain, "stargz.index.json"));
	layer_unref(plain);
	layer_unref(layer);
}

static void test_no_cache(void **state)
{
	struct fixture *f = *state;

	use(f, LAZY_ESTARGZ);
	struct layer *layer = open_layer(f);
	for (uint64_t off = 0; off < CHUNK; off += 64 * KIB)
		check_big(f, layer, off, 64 * KIB);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 2);
	check_big(f, layer, 0, BIG);
	layer_unref(layer);
}

/* --- the blob without its table --- */

/* Nothing of a table counts where the manifest does not vouch for it. */
static void test_not_annotated(void **state)
{
	struct fixture *f = *state;

	use(f, LAZY_ESTARGZ);
	struct layer *layer = open_layer(f);
	f->claims.toc = NULL;
	struct layer *plain = open_layer(f);
	assert_false(layer_index(plain)->info.by_toc);
	assert_int_equal(passes(f), 1);
	assert_true(has(plain, "stargz.index.json"));
	assert_true(has(plain, ".no.prefetch.landmark"));
	layer_unref(plain);
	layer_unref(layer);

	/* nor after a restart, the other way round either */
	reopen(f);
	plain = open_layer(f);
	assert_true(has(plain, "stargz.index.json"));
	f->claims.toc = &f->toc;
	layer = open_layer(f);
	assert_false(has(layer, "stargz.index.json"));
	assert_true(layer_index(layer)->info.by_toc);
	layer_unref(plain);
	layer_unref(layer);
}

/* Another table of the same blob, whether true or not, has an index of its own. */
static void test_another_table(void **state)
{
	struct fixture *f = *state;

	use(f, LAZY_CONTAINERS);
	struct layer *layer = open_layer(f);
	f->toc.packed.bytes[0] ^= 1;
	struct layer *other = open_layer(f);
	assert_true(other != layer);
	assert_false(layer_index(other)->info.by_toc);
	assert_true(logged("its digest is wrong"));
	layer_unref(other);
	layer_unref(layer);
}

/* --- tables that are no use --- */

/* The layer is opened by the whole blob, with WORDS in the log, and again without a look at the
 * table. */
static void check_fallback(struct fixture *f, const char *words)
{
	struct layer *layer = open_layer(f);

	assert_false(layer_index(layer)->info.by_toc);
	assert_int_equal(tocs(f), 0);
	assert_int_equal(passes(f), 1);
	assert_true(logged(words));
	assert_false(has(layer, ".no.prefetch.landmark"));
	check_big(f, layer, 0, BIG);
	check_text(f, layer, "hard", "xattrs");
	layer_unref(layer);

	fakestore_fail(f->store, FAKE_OPS, -EHOSTUNREACH);
	reopen(f);
	layer = open_layer(f);
	check_big(f, layer, 0, BIG);
	layer_unref(layer);
}

static void test_lying_table(void **state)
{
	struct fixture *f = *state;

	begin(f, LAZY_ESTARGZ);
	f->lazy.table = strdup("{\"name\":\"f\",\"type\":\"reg\",\"size\":5,\"offset\":99999999}");
	publish(f);
	check_fallback(f, "not used, the whole layer is fetched: a file's data would lie outside");
}

static void test_circle_of_links(void **state)
{
	struct fixture *f = *state;

	begin(f, LAZY_CONTAINERS);
	f->lazy.table = strdup("{\"name\":\"a\",\"type\":\"hardlink\",\"linkName\":\"b\"},"
			       "{\"name\":\"b\",\"type\":\"hardlink\",\"linkName\":\"a\"}");
	publish(f);
	check_fallback(f, "a hard link in it leads to what is not there yet");
}

static void test_wrong_digest(void **state)
{
	struct fixture *f = *state;

	use(f, LAZY_ESTARGZ);
	f->toc.json.bytes[5] ^= 1;
	check_fallback(f, "its digest is wrong");
}

static void test_no_footer(void **state)
{
	struct fixture *f = *state;

	begin(f, LAZY_ESTARGZ);
	lazy_end(&f->lazy);
	/* what follows a whole member, and is none, ends the stream */
	assert_int_equal(buf_add(&f->lazy.blob, "x", 1), 0);
	fakestore_add_blob(f->store, "repo", f->lazy.blob.data, f->lazy.blob.len, &f->digest);
	f->id = (struct blob_id){
		.digest = &f->digest, .size = f->lazy.blob.len, .store = f->store, .repo = "repo"};
	assert_int_equal(toc_ref_find(f->lazy.annotations, f->lazy.nannotations, &f->toc), 0);
	f->claims.toc = &f->toc;
	f->passes = stats_get(STAT_PASSES);
	f->tocs = stats_get(STAT_TOCS);
	check_fallback(f, "no footer");
}

static void test_place_outside(void **state)
{
	struct fixture *f = *state;

	use(f, LAZY_CONTAINERS);
	f->toc.off = f->id.size;
	check_fallback(f, "outside of the blob");
}

/* The store cannot be reached: so it is for the whole blob, and the table is not to blame. */
static void test_store_gone(void **state)
{
	struct fixture *f = *state;
	struct layer *layer = NULL;

	use(f, LAZY_ESTARGZ);
	fakestore_fail(f->store, FAKE_OPEN_BLOB, -ECONNREFUSED);
	assert_int_equal(layer_open(f->layers, &f->id, &f->claims, &f->wait, &layer),
			 -ECONNREFUSED);
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 1);
	fakestore_fail(f->store, FAKE_OPEN_BLOB, 0);
	f->layers->retry_ms = 0;
	reopen(f);
	layer = open_layer(f);
	assert_int_equal(tocs(f), 1);
	layer_unref(layer);
}

/* --- files the table is no use for --- */

/* Their numbers stay, and their bytes come from the whole blob, for good. */
static void check_whole_read(struct fixture *f, struct layer *layer, const char *words)
{
	assert_int_equal(passes(f), 1);
	assert_true(logged(words));
	assert_true(layer_index(layer)->info.by_toc);
	unsigned calls = fakestore_calls(f->store, FAKE_OPEN_BLOB);
	check_big(f, layer, 0, BIG);
	check_text(f, layer, "x", "xattrs");
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), calls);
	assert_int_equal(passes(f), 1);
	layer_unref(layer);
	/* what was found out lasts */
	reopen(f);
	layer = open_layer(f);
	assert_false(layer_index(layer)->info.by_toc);
	layer_unref(layer);
}

static void test_without_chunk_digests(void **state)
{
	struct fixture *f = *state;
	const struct tar_member member = {.path = "unvouched", .mode = S_IFREG};

	begin(f, LAZY_ESTARGZ);
	f->lazy.no_digests = true;
	add(&f->lazy, &member, "nobody vouches");
	publish(f);
	struct layer *layer = open_layer(f);
	check_big(f, layer, 0, 100);
	assert_int_equal(passes(f), 0);
	check_text(f, layer, "unvouched", "nobody vouches");
	check_whole_read(f, layer, "used no more, the whole layer was fetched: it vouches for no");
}

/* Of a layer that is read by its whole blob, the index is cut while it is mapped: one read may
 * fail, and the next finds another index. */
static void test_whole_whose_index_breaks(void **state)
{
	struct fixture *f = *state;
	const struct tar_member member = {.path = "unvouched", .mode = S_IFREG};

	begin(f, LAZY_ESTARGZ);
	f->lazy.no_digests = true;
	add(&f->lazy, &member, "nobody vouches");
	publish(f);
	struct layer *layer = open_layer(f);
	check_text(f, layer, "unvouched", "nobody vouches");
	for (int i = 0; i < 2; i++) {
		struct layer *before = atomic_load(&layer->whole);

		*before->map.broken = true;
		check_big(f, layer, CHUNK, 100);
		assert_ptr_not_equal(atomic_load(&layer->whole), before);
	}
	layer_unref(layer);
}

/* The place of a chunk in the blob, by what the table says. */
static uint64_t place_of(struct layer *layer, uint32_t nr)
{
	struct index_inode inode;
	struct index_chunk chunk;

	assert_int_equal(index_inode(layer_index(layer), find(layer, "big"), &inode), 0);
	assert_int_equal(index_chunk(layer_index(layer), &inode, nr, &chunk), 0);
	return chunk.in_off + chunk.in_len / 2;
}

static void test_wrong_on_the_way(void **state)
{
	struct fixture *f = *state;

	use(f, LAZY_ZSTD);
	struct layer *layer = open_layer(f);
	fakestore_corrupt(f->store, place_of(layer, 1), 1);
	check_big(f, layer, CHUNK, 100);
	assert_int_equal(passes(f), 0);
	layer_unref(layer);
}

static void test_table_wrong_on_the_way(void **state)
{
	struct fixture *f = *state;

	for (int form = 0; form < LAZY_FORMS; form++) {
		use(f, form);
		/* in the table, and in the footer that eStargz is found by */
		fakestore_corrupt(f->store, f->id.size - (form & 1 ? 30 : 600), 1);
		struct layer *layer = open_layer(f);
		assert_int_equal(tocs(f), 1);
		assert_int_equal(passes(f), 0);
		layer_unref(layer);
		fakestore_corrupt(f->store, 0, 0);
		lazy_release(&f->lazy);
	}
	lazy_begin(&f->lazy, LAZY_ZSTD, CHUNK);
}

/* Wrong bytes that do not go away: nothing of them is shown, whoever is to blame. */
static void test_wrong_bytes(void **state)
{
	struct fixture *f = *state;

	use(f, LAZY_ZSTD);
	struct layer *layer = open_layer(f);
	fakestore_corrupt(f->store, place_of(layer, 1), UINT32_MAX);
	assert_int_equal(layer_read(layer, find(layer, "big"), CHUNK, f->out, 10, &f->wait), -EIO);
	assert_true(logged("should be sha256:"));
	/* chunks before it are right and stay readable */
	check_big(f, layer, 0, CHUNK);
	fakestore_corrupt(f->store, 0, 0);
	layer_unref(layer);
}

/* The table has a digest that the bytes, which are the blob's, do not have. */
static void test_lying_chunk(void **state)
{
	struct fixture *f = *state;
	char text[DIGEST_STR_MAX];
	struct digest digest;

	begin(f, LAZY_ESTARGZ);
	digest_of(DIGEST_SHA256, f->big + CHUNK, CHUNK, &digest);
	digest_format(&digest, text);
	char *at = strstr(f->lazy.json.data, text);
	assert_non_null(at);
	at[10] = at[10] == 'a' ? 'b' : 'a';
	publish(f);
	struct layer *layer = open_layer(f);
	check_big(f, layer, 0, 100);
	assert_int_equal(passes(f), 0);
	check_big(f, layer, CHUNK, 100);
	check_whole_read(f, layer, "used no more, the whole layer was fetched: a chunk is not");
}

/* The digest is one that is known, of more bytes than the table says. */
static void test_part_of_a_known_chunk(void **state)
{
	struct fixture *f = *state;
	char text[DIGEST_STR_MAX];
	struct digest digest;

	use(f, LAZY_ESTARGZ);
	struct layer *layer = open_layer(f);
	check_big(f, layer, 0, CHUNK);
	layer_unref(layer);
	lazy_release(&f->lazy);

	begin(f, LAZY_ZSTD);
	digest_of(DIGEST_SHA256, f->big, CHUNK, &digest);
	f->lazy.table = format("{\"name\":\"big\",\"type\":\"reg\",\"size\":100,\"offset\":300,"
			       "\"chunkDigest\":\"%s\"}",
			       digest_format(&digest, text));
	publish(f);
	layer = open_layer(f);
	assert_int_equal(tocs(f), 1);
	assert_int_equal(layer_read(layer, find(layer, "big"), 0, f->out, 100, &f->wait), -EIO);
	layer_unref(layer);
}

/* The table has a file that the archive does not have. */
static void test_file_that_is_not(void **state)
{
	struct fixture *f = *state;

	begin(f, LAZY_ESTARGZ);
	f->lazy.table = strdup("{\"name\":\"f\",\"type\":\"reg\",\"size\":5,\"offset\":20},"
			       "{\"name\":\"x\",\"type\":\"reg\",\"size\":5,\"offset\":20}");
	publish(f);
	struct layer *layer = open_layer(f);
	assert_int_equal(layer_read(layer, find(layer, "f"), 0, f->out, 5, &f->wait), -EIO);
	assert_true(logged("f is not the file that its table of contents says"));
	/* of another size */
	assert_int_equal(layer_read(layer, find(layer, "x"), 0, f->out, 5, &f->wait), -EIO);
	assert_true(logged("x is not the file that its table of contents says"));
	layer_unref(layer);
}

/* --- waiting --- */

static unsigned jobs_running(struct fixture *f)
{
	pthread_mutex_lock(&f->layers->lock);
	unsigned running = f->layers->running;
	pthread_mutex_unlock(&f->layers->lock);
	return running;
}

static void test_would_block(void **state)
{
	struct fixture *f = *state;
	struct layer *layer = NULL;
	struct wait quick;

	use(f, LAZY_ESTARGZ);
	wait_init(&quick, false);
	assert_int_equal(layer_open(f->layers, &f->id, &f->claims, &quick, &layer), -EWOULDBLOCK);
	layer = open_layer(f);
	uint32_t big = find(layer, "big");
	while (jobs_running(f) > 0) /* the one that opened it counts itself out last */
		sched_yield();
	fakestore_stall(f->store, FAKE_OPEN_BLOB);
	assert_int_equal(layer_read(layer, big, 0, f->out, 10, &quick), -EWOULDBLOCK);
	assert_int_equal(jobs_running(f), 0);
	fakestore_release(f->store);
	check_big(f, layer, 0, 10);
	assert_int_equal(layer_read(layer, big, 0, f->out, 10, &quick), 10);
	layer_unref(layer);
	wait_release(&quick);
}

struct reader {
	struct fixture *f;
	struct layer *layer;
	pthread_t thread;
	struct wait wait;
	uint8_t buf[100];
	ssize_t result;
};

static void *reader_main(void *arg)
{
	struct reader *r = arg;

	r->result = layer_read(r->layer, find(r->layer, "big"), CHUNK, r->buf, sizeof(r->buf),
			       &r->wait);
	return NULL;
}

static void reader_start(struct reader *r, struct fixture *f, struct layer *layer)
{
	*r = (struct reader){.f = f, .layer = layer};
	wait_init(&r->wait, true);
	assert_int_equal(pthread_create(&r->thread, NULL, reader_main, r), 0);
}

static ssize_t reader_join(struct reader *r)
{
	pthread_join(r->thread, NULL);
	wait_release(&r->wait);
	return r->result;
}

/* Two readers of a chunk cause one request; the one that is called off leaves at once, and the
 * other does not notice. */
static void test_single_flight(void **state)
{
	struct fixture *f = *state;
	struct reader a, b;

	use(f, LAZY_ESTARGZ);
	struct layer *layer = open_layer(f);
	fakestore_stall(f->store, FAKE_OPEN_BLOB);
	reader_start(&a, f, layer);
	fakestore_await_stalled(f->store, 1);
	reader_start(&b, f, layer);
	wait_cancel(&a.wait);
	assert_int_equal(reader_join(&a), -EINTR);
	fakestore_release(f->store);
	assert_int_equal(reader_join(&b), sizeof(b.buf));
	assert_memory_equal(b.buf, f->big + CHUNK, sizeof(b.buf));
	assert_int_equal(fakestore_calls(f->store, FAKE_OPEN_BLOB), 2);
	layer_unref(layer);
}

static void test_free_ends_flights(void **state)
{
	struct fixture *f = *state;
	struct reader a;

	use(f, LAZY_ESTARGZ);
	struct layer *layer = open_layer(f);
	fakestore_stall(f->store, FAKE_OPEN_BLOB);
	reader_start(&a, f, layer);
	fakestore_await_stalled(f->store, 1);
	wait_cancel(&a.wait);
	assert_int_equal(reader_join(&a), -EINTR);
	layer_unref(layer);
	/* the flight still stands in the store: closing calls it off */
	reopen(f);
	fakestore_release(f->store);
}

static void test_other_source(void **state)
{
	struct fixture *f = *state;
	struct layer *layer, *same;

	use(f, LAZY_ESTARGZ);
	layer = open_layer(f);
	fakestore_add_blob(f->store, "other", f->lazy.blob.data, f->lazy.blob.len, NULL);
	f->id.repo = "other";
	same = open_layer(f);
	assert_ptr_equal(same, layer);
	fakestore_remove_blob(f->store, "repo", &f->digest);
	check_big(f, layer, 0, BIG);
	assert_int_equal(passes(f), 0);
	layer_unref(same);
	layer_unref(layer);
}

/* --- the whole blob, later --- */

/* A blob that is in the cache is not asked for, whatever it is read by. */
static void test_out_of_the_cache(void **state)
{
	struct fixture *f = *state;

	use(f, LAZY_ESTARGZ);
	f->claims.toc = NULL;
	layer_unref(open_layer(f));
	fakestore_fail(f->store, FAKE_OPS, -EHOSTUNREACH);
	f->claims.toc = &f->toc;
	struct layer *layer = open_layer(f);
	assert_true(layer_index(layer)->info.by_toc);
	check_big(f, layer, 0, BIG);
	layer_unref(layer);
}

/* Prefetched, all is there, and nothing is wrong with the table. */
static void test_bring_in(void **state)
{
	struct fixture *f = *state;

	use(f, LAZY_ZSTD);
	struct layer *layer = open_layer(f);
	assert_int_equal(layer_bring_in(layer, &f->wait), 0);
	assert_int_equal(passes(f), 1);
	fakestore_fail(f->store, FAKE_OPS, -EHOSTUNREACH);
	check_big(f, layer, 0, BIG);
	assert_int_equal(layer_bring_in(layer, &f->wait), 0);
	layer_unref(layer);
}

static int verify_one(void *arg, const struct cache_id *id)
{
	struct fixture *f = arg;

	return layer_verify(f->blobs, f->cache, id, &f->wait);
}

/* The index that is left is that of a whole pass, under a name of its own; it can be verified. */
static void test_verify(void **state)
{
	struct fixture *f = *state;

	use(f, LAZY_ESTARGZ);
	f->toc.json.bytes[5] ^= 1;
	layer_unref(open_layer(f));
	assert_int_equal(cache_each(f->cache, CACHE_INDEX, verify_one, f), 0);
	assert_int_equal(cache_each(f->cache, CACHE_TOC, verify_one, f), 0);
}

#define TEST(name)	    cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_NO_CACHE(name) cmocka_unit_test_setup_teardown(name, setup_no_cache, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_estargz),
		TEST(test_legacy),
		TEST(test_zstd),
		TEST(test_containers),
		TEST(test_one_chunk_of_gzip),
		TEST(test_one_chunk_of_zstd),
		TEST(test_large_table),
		TEST(test_zeros_need_no_bytes),
		TEST(test_adjacent_chunks),
		TEST(test_read_ahead),
		TEST(test_plan_of_estargz),
		TEST(test_plan_of_zstd),
		TEST(test_chunks_are_shared),
		TEST(test_small_blobs_are_fetched_whole),
		TEST_NO_CACHE(test_no_cache),
		TEST(test_not_annotated),
		TEST(test_another_table),
		TEST(test_lying_table),
		TEST(test_circle_of_links),
		TEST(test_wrong_digest),
		TEST(test_no_footer),
		TEST(test_place_outside),
		TEST(test_store_gone),
		TEST(test_without_chunk_digests),
		TEST(test_whole_whose_index_breaks),
		TEST(test_wrong_on_the_way),
		TEST(test_table_wrong_on_the_way),
		TEST(test_wrong_bytes),
		TEST(test_lying_chunk),
		TEST(test_part_of_a_known_chunk),
		TEST(test_file_that_is_not),
		TEST(test_would_block),
		TEST(test_single_flight),
		TEST(test_free_ends_flights),
		TEST(test_other_source),
		TEST(test_out_of_the_cache),
		TEST(test_bring_in),
		TEST(test_verify),
	};

	log_set_level(LOG_LEVEL_WARN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
