/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warm: what a read of bytes that are at hand costs: nothing is allocated, and no lock taken that
 * all readers share. malloc() and the locks are counted where the sanitizers have no versions of
 * their own.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <cmocka.h>
#include <zlib.h>

#include "../../src/rootfs_priv.h"
#include "fakestore.h"
#include "regfs/log.h"
#include "regfs/tar.h"

#define SIZE  (1 * MIB + 345)
#define READS 500

/* --- counting --- */

static _Thread_local bool counting;
static _Thread_local unsigned allocations, mutexes, file_locks;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTED false
#else
#define COUNTED true

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *at, size_t size);

void *malloc(size_t size)
{
	allocations += counting;
	return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	allocations += counting;
	return __libc_calloc(n, size);
}

void *realloc(void *at, size_t size)
{
	allocations += counting;
	return __libc_realloc(at, size);
}

int pthread_mutex_lock(pthread_mutex_t *mutex)
{
	static int (*real)(pthread_mutex_t * mutex);

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "pthread_mutex_lock");
	mutexes += counting;
	return real(mutex);
}

int fcntl64(int fd, int command, ...)
{
	static int (*real)(int fd, int command, ...);
	va_list args;
	void *arg;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "fcntl64");
	va_start(args, command);
	arg = va_arg(args, void *);
	va_end(args);
	file_locks += counting;
	return real(fd, command, arg);
}
#endif

/* --- a rootfs of one layer with one file --- */

struct fixture {
	char dir[64];
	struct cache *cache;
	struct pool *jobs;
	struct blobs *blobs;
	struct layers *layers;
	struct store *store;
	struct rootfs *rootfs;
	struct wait wait;
	struct digest digest;
	struct blob_id id;
	uint8_t *content, *got;
};

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

static void compress_gzip(struct buf *tar)
{
	struct buf out = BUF_INIT(4 * MIB);
	z_stream z = {.next_in = (void *)tar->data, .avail_in = tar->len};

	assert_int_equal(deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
	assert_int_equal(buf_reserve(&out, deflateBound(&z, tar->len)), 0);
	z.next_out = (void *)out.data;
	z.avail_out = out.cap;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	out.len = z.total_out;
	deflateEnd(&z);
	buf_release(tar);
	*tar = out;
}

static void add_layer(struct fixture *f, bool gzip)
{
	const struct tar_member member = {.path = "file", .mode = S_IFREG | 0644, .size = SIZE};
	static const char zeros[TAR_TRAILER];
	struct buf tar = BUF_INIT(4 * MIB);

	assert_int_equal(tar_header(&member, &tar), 0);
	assert_int_equal(buf_add(&tar, f->content, SIZE), 0);
	assert_int_equal(buf_add(&tar, zeros, tar_padding(SIZE)), 0);
	assert_int_equal(buf_add(&tar, zeros, TAR_TRAILER), 0);
	if (gzip)
		compress_gzip(&tar);
	fakestore_add_blob(f->store, "team/app", tar.data, tar.len, &f->digest);
	f->id = (struct blob_id){
		.digest = &f->digest, .size = tar.len, .store = f->store, .repo = "team/app"};
	buf_release(&tar);
}

static int give_layer(void *arg, unsigned n, struct wait *wait, struct layer **ret)
{
	struct fixture *f = arg;

	(void)n;
	return layer_open(f->layers, &f->id, NULL, wait, ret);
}

static struct rootfs_node open_file(struct fixture *f, bool gzip)
{
	static const uint8_t identity[DIGEST_KEY_LEN] = {1};
	const struct rootfs_options options = {
		.nlayers = 1, .identity = identity, .layer = give_layer, .arg = f};
	struct rootfs_node node;

	add_layer(f, gzip);
	assert_int_equal(rootfs_new(&options, &f->rootfs), 0);
	assert_int_equal(rootfs_lookup(f->rootfs, ROOTFS_ROOT, "file", 4, &f->wait, &node), 0);
	return node;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const char *tmp = getenv("TMPDIR");

	snprintf(f->dir, sizeof(f->dir), "%s/regfs-warm-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(f->dir));
	log_set_level(LOG_LEVEL_ERROR);
	assert_int_equal(cache_open(f->dir, 64 * MIB, &f->cache), 0);
	f->jobs = pool_new("jobs", 0);
	f->blobs = blobs_new(f->cache, f->jobs, 60000);
	f->layers = layers_new(f->blobs, f->cache, f->jobs);
	f->store = fakestore_new("fake.test");
	f->content = malloc(SIZE);
	f->got = malloc(SIZE);
	for (uint32_t i = 0, x = 1; i < SIZE; i++) {
		x = x * 1664525 + 1013904223;
		f->content[i] = i % 64 < 32 ? 'a' + (i / 64) % 26 : x >> 24;
	}
	wait_init(&f->wait, true);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	rootfs_free(f->rootfs);
	layers_free(f->layers);
	blobs_free(f->blobs);
	pool_free(f->jobs);
	cache_close(f->cache);
	store_free(f->store);
	wait_release(&f->wait);
	free(f->content);
	free(f->got);
	nftw(f->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

/* READS reads of LEN bytes, here and there, by a thread that may not block; counted. */
static void read_warm(struct fixture *f, struct rootfs_node node, size_t len)
{
	struct wait wait;
	uint64_t off = 0;

	assert_int_equal(rootfs_read(f->rootfs, node, 0, f->got, SIZE, &f->wait), SIZE);
	assert_memory_equal(f->got, f->content, SIZE);
	wait_init(&wait, false);
	allocations = mutexes = file_locks = 0;
	for (unsigned i = 0; i < READS; i++) {
		off = (off + 7919 * 41) % (SIZE - len);
		counting = true;
		ssize_t n = rootfs_read(f->rootfs, node, off, f->got, len, &wait);
		counting = false;
		assert_int_equal(n, len);
		assert_memory_equal(f->got, f->content + off, len);
	}
	wait_release(&wait);
}

/* Out of the cache's blocks. */
static void test_stored_as_they_are(void **state)
{
	struct fixture *f = *state;
	struct rootfs_node node = open_file(f, false);
	static const size_t lens[] = {4096, 100000, 400000};

	for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
		read_warm(f, node, lens[i]);
		assert_int_equal(allocations, 0);
		assert_int_equal(mutexes, 0);
		assert_int_equal(file_locks, 0);
	}
}

/* Out of decoded pieces in memory: a lock for a few of them each. */
static void test_decoded(void **state)
{
	struct fixture *f = *state;
	struct rootfs_node node = open_file(f, true);

	read_warm(f, node, 4096);
	assert_int_equal(allocations, 0);
	assert_int_equal(file_locks, 0);
	assert_true(mutexes <= 2 * READS);
}

/* That counting counts. */
static void test_counted(void **state)
{
	struct fixture *f = *state;
	struct rootfs_node node = open_file(f, false);

	read_warm(f, node, 4096);
	assert_int_equal(cache_prune(f->cache, 0), 0);
	counting = true;
	assert_true(rootfs_read(f->rootfs, node, 0, f->got, 4096, &f->wait) == 4096);
	counting = false;
	assert_true(!COUNTED || (allocations && mutexes && file_locks));
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_stored_as_they_are),
		TEST(test_decoded),
		TEST(test_counted),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
