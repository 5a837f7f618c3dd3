/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Archives that are sent while they are written: what goes when, who waits, and how it ends.
 */
#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fakestore.h"
#include "regfs/oci.h"
#include "regfs/push.h"
#include "regfs/tar.h"

#define PIECE	    (256 * KIB)
#define ARCHIVE_MAX (128 * MIB)
#define STREAM_MIN  (8 * MIB) /* push.h */
#define KEPT_BACK   (32 * MIB)

struct fixture {
	char dir[128];
	struct pool *jobs;
	struct pushes *pushes;
	struct store *store;
	struct wait wait;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const char *tmp = getenv("TMPDIR");

	snprintf(f->dir, sizeof(f->dir), "%s/regfs-stream-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(f->dir));
	f->jobs = pool_new("jobs", 0);
	const struct pushes_options options = {
		.spool_dir = f->dir, .jobs = f->jobs, .compress = CODEC_GZIP};
	f->pushes = pushes_new(&options);
	f->store = fakestore_new("reg.example:5000");
	wait_init(&f->wait, true);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	pushes_free(f->pushes);
	store_free(f->store);
	pool_free(f->jobs);
	wait_release(&f->wait);
	/* Nothing in it has a name. */
	assert_int_equal(rmdir(f->dir), 0);
	free(f);
	return 0;
}

/* --- archives --- */

static void add_file(struct buf *tar, const char *path, const void *data, size_t len)
{
	static const char zeros[512];
	const struct tar_member member = {.path = path, .mode = S_IFREG | 0644, .size = len};

	assert_int_equal(tar_header(&member, tar), 0);
	assert_int_equal(buf_add(tar, data, len), 0);
	assert_int_equal(buf_add(tar, zeros, tar_padding(len)), 0);
}

static void finish(struct buf *tar)
{
	static const char zeros[TAR_TRAILER];

	assert_int_equal(buf_add(tar, zeros, sizeof(zeros)), 0);
}

/* The tar of a file of LEN bytes that compress well, and depend on SEED. */
static struct buf make_layer(unsigned seed, size_t len)
{
	struct buf layer = BUF_INIT(ARCHIVE_MAX);
	AUTO_FREE char *data = malloc(len);

	memset(data, (int)seed, len);
	for (size_t i = 0; i < len; i += 4096)
		data[i] = (char)(i >> 12);
	add_file(&layer, "file", data, len);
	finish(&layer);
	return layer;
}

/* docker save: layers first. */
static struct buf docker_archive(const struct buf *layers, size_t n)
{
	struct buf tar = BUF_INIT(ARCHIVE_MAX);
	AUTO_BUF struct buf config = BUF_INIT(MIB);
	AUTO_BUF struct buf manifest = BUF_INIT(MIB);
	char path[64], digest_str[DIGEST_STR_MAX];
	struct digest digest;

	buf_puts(&config, "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{},"
			  "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[");
	buf_puts(&manifest, "[{\"Config\":\"c.json\",\"RepoTags\":null,\"Layers\":[");
	for (size_t i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%zu.tar", i);
		add_file(&tar, path, layers[i].data, layers[i].len);
		digest_of(DIGEST_SHA256, layers[i].data, layers[i].len, &digest);
		buf_printf(&config, "%s\"%s\"", i ? "," : "", digest_format(&digest, digest_str));
		buf_printf(&manifest, "%s\"%s\"", i ? "," : "", path);
	}
	buf_puts(&config, "]}}");
	buf_puts(&manifest, "]}]");
	add_file(&tar, "c.json", config.data, config.len);
	add_file(&tar, "manifest.json", manifest.data, manifest.len);
	finish(&tar);
	return tar;
}

static struct buf simple_archive(size_t len)
{
	struct buf layers[] = {make_layer('a', len), make_layer('b', MIB)};
	struct buf tar = docker_archive(layers, 2);

	buf_release(&layers[0]);
	buf_release(&layers[1]);
	return tar;
}

/* --- writing --- */

static struct push *begin(struct fixture *f, const char *tag)
{
	struct push *push = NULL;

	assert_int_equal(push_new(f->pushes, f->store, "app", tag, "label", &push), 0);
	return push;
}

/* Bytes OFF to END, in order; the first error. */
static int write_range(struct push *push, const struct buf *tar, uint64_t off, uint64_t end,
		       struct wait *wait)
{
	while (off < end) {
		size_t len = (size_t)MIN((uint64_t)PIECE, end - off);
		ssize_t put = push_write(push, off, tar->data + off, len, wait);
		if (put < 0)
			return (int)put;
		off += (uint64_t)put;
	}
	return 0;
}

struct writer {
	pthread_t thread;
	struct push *push;
	const struct buf *tar;
	struct wait wait;
	int result;
};

static void *writer_main(void *arg)
{
	struct writer *writer = arg;

	writer->result = write_range(writer->push, writer->tar, 0, writer->tar->len, &writer->wait);
	return NULL;
}

static void tag_is(struct fixture *f, const char *tag, bool there)
{
	struct digest digest;

	assert_int_equal(f->store->ops->head(f->store, "app", tag, &digest, &f->wait),
			 there ? 0 : -ENOENT);
}

/* --- tests --- */

static void same_as_from_the_spool(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf tar = simple_archive(10 * MIB);
	struct push *streamed = begin(f, "1"), *whole = begin(f, "2");
	struct digest first, second;

	assert_int_equal(write_range(streamed, &tar, 0, tar.len, &f->wait), 0);
	assert_int_equal(push_flush(streamed, &f->wait), 0);
	assert_int_equal(push_write(whole, 1, tar.data + 1, tar.len - 1, &f->wait), tar.len - 1);
	assert_int_equal(push_write(whole, 0, tar.data, 1, &f->wait), 1);
	assert_int_equal(push_flush(whole, &f->wait), 0);
	assert_int_equal(f->store->ops->head(f->store, "app", "1", &first, &f->wait), 0);
	assert_int_equal(f->store->ops->head(f->store, "app", "2", &second, &f->wait), 0);
	assert_true(digest_equal(&first, &second));
	push_unref(streamed);
	push_unref(whole);
}

static void blobs_go_before_the_flush(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf tar = simple_archive(10 * MIB);
	struct push *push = begin(f, "1");
	struct push_status status;

	fakestore_stall(f->store, FAKE_PUT_BLOB);
	assert_int_equal(write_range(push, &tar, 0, tar.len, &f->wait), 0);
	/* Both layers, though nobody has closed the file. */
	fakestore_await_stalled(f->store, 2);
	tag_is(f, "1", false);
	fakestore_release(f->store);
	assert_int_equal(push_flush(push, &f->wait), 0);
	tag_is(f, "1", true);
	push_status(push, &status);
	assert_int_equal(status.done_bytes, status.total_bytes);
	push_unref(push);
}

/* An OCI archive up to the middle of its one blob. */
static struct buf half_a_blob(const struct digest *named, uint8_t *blob, size_t len)
{
	struct buf tar = BUF_INIT(ARCHIVE_MAX);
	char path[DIGEST_STR_MAX + 16], hex[DIGEST_STR_MAX];

	snprintf(path, sizeof(path), "blobs/sha256/%s", digest_hex(named, hex));
	add_file(&tar, path, blob, len);
	return tar;
}

static void blobs_go_before_they_are_whole(void **state)
{
	struct fixture *f = *state;
	const size_t len = 12 * MIB;
	AUTO_FREE uint8_t *blob = malloc(len);
	struct digest digest, other;

	memset(blob, 0x1f, len);
	digest_of(DIGEST_SHA256, blob, len, &digest);
	AUTO_BUF struct buf tar = half_a_blob(&digest, blob, len);
	struct push *push = begin(f, "1");
	fakestore_stall(f->store, FAKE_PUT_BLOB);
	assert_int_equal(write_range(push, &tar, 0, 9 * MIB, &f->wait), 0);
	fakestore_await_stalled(f->store, 1);
	fakestore_release(f->store);
	assert_int_equal(write_range(push, &tar, 9 * MIB, tar.len, &f->wait), 0);
	uint64_t size = 0;
	while (f->store->ops->has_blob(f->store, "app", &digest, &size, &f->wait))
		;
	assert_int_equal(size, len);
	push_unref(push);
	/* Under the name of another, it is not there in the end, nor anything of it. */
	other = digest;
	other.bytes[0] ^= 1;
	AUTO_BUF struct buf wrong = half_a_blob(&other, blob, len);
	push = begin(f, "1");
	unsigned puts = fakestore_calls(f->store, FAKE_PUT_BLOB);
	assert_int_equal(write_range(push, &wrong, 0, 9 * MIB, &f->wait), 0);
	while (fakestore_calls(f->store, FAKE_PUT_BLOB) == puts)
		;
	assert_int_equal(write_range(push, &wrong, 9 * MIB, wrong.len, &f->wait), 0);
	assert_int_equal(push_flush(push, &f->wait), -EINVAL);
	assert_int_equal(f->store->ops->has_blob(f->store, "app", &other, &size, &f->wait),
			 -ENOENT);
	push_unref(push);
}

/* A registry that syncs what it confirms holds up neither other blobs nor, for a while, the writer:
 * four small ones, a large one, and more than KEPT_BACK of the next are under way at once. */
static void blobs_do_not_hold_each_other_up(void **state)
{
	struct fixture *f = *state;
	const size_t lens[] = {PIECE, PIECE, PIECE, PIECE, 2 * MIB, KEPT_BACK + 4 * MIB};
	AUTO_BUF struct buf tar = BUF_INIT(ARCHIVE_MAX);
	AUTO_FREE uint8_t *blob = malloc(KEPT_BACK + 4 * MIB);
	struct push *push = begin(f, "1");
	struct digest digest;

	memset(blob, 0x1f, KEPT_BACK + 4 * MIB);
	for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
		blob[0] = (uint8_t)i;
		digest_of(DIGEST_SHA256, blob, lens[i], &digest);
		AUTO_BUF struct buf one = half_a_blob(&digest, blob, lens[i]);
		assert_int_equal(buf_add(&tar, one.data, one.len), 0);
	}
	fakestore_stall(f->store, FAKE_PUT_BLOB);
	assert_int_equal(write_range(push, &tar, 0, tar.len, &f->wait), 0);
	fakestore_await_stalled(f->store, ARRAY_SIZE(lens));
	fakestore_release(f->store);
	push_unref(push);
}

/* A layer of docker save that says by its name that it is compressed (as dockers that keep their
 * images in containerd write them), and cannot be unpacked. */
static void packed_layer_is_broken(void **state)
{
	struct fixture *f = *state;
	const size_t len = 9 * MIB;
	AUTO_FREE uint8_t *blob = calloc(1, len);
	AUTO_BUF struct buf config = BUF_INIT(MIB), manifest = BUF_INIT(MIB);
	char named[DIGEST_STR_MAX], hex[DIGEST_STR_MAX];
	struct push *push = begin(f, "1");
	struct push_status status;
	struct digest digest;

	memcpy(blob, "\x1f\x8b\x08\0\0\0\0\0\0\3\xff", 11);
	digest_of(DIGEST_SHA256, blob, len, &digest);
	AUTO_BUF struct buf tar = half_a_blob(&digest, blob, len);
	digest_of(DIGEST_SHA256, "", 0, &digest);
	buf_printf(&config,
		   "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{},"
		   "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"%s\"]}}",
		   digest_format(&digest, named));
	digest_of(DIGEST_SHA256, blob, len, &digest);
	buf_printf(&manifest,
		   "[{\"Config\":\"c.json\",\"RepoTags\":null,"
		   "\"Layers\":[\"blobs/sha256/%s\"]}]",
		   digest_hex(&digest, hex));
	add_file(&tar, "c.json", config.data, config.len);
	add_file(&tar, "manifest.json", manifest.data, manifest.len);
	finish(&tar);
	assert_int_equal(write_range(push, &tar, 0, tar.len, &f->wait), 0);
	assert_int_equal(push_flush(push, &f->wait), -EINVAL);
	push_status(push, &status);
	assert_non_null(strstr(status.reason, "layer 1 cannot be unpacked"));
	tag_is(f, "1", false);
	push_unref(push);
}

static void unfinished_is_kept(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf tar = simple_archive(10 * MIB);
	const uint64_t cuts[] = {9 * MIB, 10 * MIB + 512, tar.len - TAR_TRAILER, tar.len - 1};
	struct push *push = begin(f, "1");
	uint64_t off = 0;

	for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
		assert_int_equal(write_range(push, &tar, off, cuts[i], &f->wait), 0);
		assert_int_equal(push_flush(push, &f->wait), -EINVAL);
		assert_int_equal(push_flush(push, &f->wait), -EINVAL);
		off = cuts[i];
	}
	tag_is(f, "1", false);
	assert_int_equal(write_range(push, &tar, off, tar.len, &f->wait), 0);
	assert_int_equal(push_flush(push, &f->wait), 0);
	assert_int_equal(push_flush(push, &f->wait), 0);
	assert_int_equal(fakestore_calls(f->store, FAKE_PUT_MANIFEST), 1);
	push_unref(push);
}

static void what_was_sent_cannot_change(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf tar = simple_archive(10 * MIB);
	struct push *push = begin(f, "1");
	char byte;

	assert_int_equal(write_range(push, &tar, 0, 9 * MIB, &f->wait), 0);
	assert_int_equal(push_write(push, 5, "x", 1, &f->wait), -ESPIPE);
	assert_int_equal(push_read(push, 5, &byte, 1), -ESPIPE);
	assert_int_equal(push_truncate(push, MIB), -ESPIPE);
	assert_int_equal(push_truncate(push, 9 * MIB), 0);
	assert_int_equal(push_truncate(push, 0), 0);
	assert_int_equal(push_read(push, 0, &byte, 1), 0);
	assert_int_equal(write_range(push, &tar, 0, tar.len, &f->wait), 0);
	assert_int_equal(push_flush(push, &f->wait), 0);
	tag_is(f, "1", true);
	push_unref(push);
}

/* With stores that stand still, writers stand still, and can be called off. */
static void writer_is_kept_back(void **state)
{
	struct fixture *f = *state;
	struct buf layers[60];
	struct push_status status = {0};

	for (size_t i = 0; i < ARRAY_SIZE(layers); i++)
		layers[i] = make_layer((unsigned)i, MIB);
	AUTO_BUF struct buf tar = docker_archive(layers, ARRAY_SIZE(layers));
	struct writer writer = {.push = begin(f, "1"), .tar = &tar};
	wait_init(&writer.wait, true);
	fakestore_stall(f->store, FAKE_PUT_BLOB);
	assert_int_equal(pthread_create(&writer.thread, NULL, writer_main, &writer), 0);
	fakestore_await_stalled(f->store, 4);
	/* Who may not block is told so, at the latest when the spool holds enough. */
	do
		push_status(writer.push, &status);
	while (status.total_bytes < KEPT_BACK);
	wait_cancel(&writer.wait);
	pthread_join(writer.thread, NULL);
	assert_int_equal(writer.result, -EINTR);
	push_status(writer.push, &status);
	assert_true(status.total_bytes < KEPT_BACK + 8 * MIB);
	struct wait hasty;
	wait_init(&hasty, false);
	assert_int_equal(push_write(writer.push, status.total_bytes, tar.data, 4 * MIB, &hasty),
			 -EWOULDBLOCK);
	/* Goes on where it was. */
	fakestore_release(f->store);
	assert_int_equal(write_range(writer.push, &tar, status.total_bytes, tar.len, &f->wait), 0);
	assert_int_equal(push_flush(writer.push, &f->wait), 0);
	tag_is(f, "1", true);
	push_unref(writer.push);
	wait_release(&hasty);
	wait_release(&writer.wait);
	for (size_t i = 0; i < ARRAY_SIZE(layers); i++)
		buf_release(&layers[i]);
}

static void store_fails(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf tar = simple_archive(10 * MIB);
	struct push *push = begin(f, "1");
	struct push_status status;

	fakestore_fail(f->store, FAKE_PUT_BLOB, -EDQUOT);
	(void)!write_range(push, &tar, 0, tar.len, &f->wait);
	assert_int_equal(push_flush(push, &f->wait), -EDQUOT);
	assert_int_equal(push_write(push, tar.len, "x", 1, &f->wait), -EDQUOT);
	push_status(push, &status);
	assert_non_null(strstr(status.reason, "Disk quota exceeded"));
	fakestore_fail(f->store, FAKE_PUT_BLOB, 0);
	assert_int_equal(push_flush(push, &f->wait), -EDQUOT);
	tag_is(f, "1", false);
	/* From the beginning. */
	assert_int_equal(push_truncate(push, 0), 0);
	assert_int_equal(write_range(push, &tar, 0, tar.len, &f->wait), 0);
	assert_int_equal(push_flush(push, &f->wait), 0);
	push_unref(push);
}

static void flush_is_called_off(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf tar = simple_archive(10 * MIB);
	struct push *push = begin(f, "1");
	struct wait wait;

	fakestore_stall(f->store, FAKE_PUT_BLOB);
	assert_int_equal(write_range(push, &tar, 0, tar.len, &f->wait), 0);
	wait_init(&wait, true);
	wait_cancel(&wait);
	assert_int_equal(push_flush(push, &wait), -EINTR);
	tag_is(f, "1", false);
	fakestore_release(f->store);
	assert_int_equal(push_flush(push, &f->wait), 0);
	push_unref(push);
	wait_release(&wait);
}

/* Whoever drops the push does not wait for what is under way; who ends all pushes does. */
static void dropped_in_the_middle(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf tar = simple_archive(10 * MIB);

	for (int i = 0; i < 4; i++) {
		struct push *push = begin(f, "1");

		fakestore_stall(f->store, i % 2 ? FAKE_PUT_BLOB : FAKE_HAS_BLOB);
		assert_int_equal(write_range(push, &tar, 0, tar.len - 100, &f->wait), 0);
		if (i < 2)
			fakestore_await_stalled(f->store, 1);
		push_unref(push);
		if (i == 2)
			fakestore_release(f->store);
	}
	pushes_stop(f->pushes);
	fakestore_release(f->store);
	tag_is(f, "1", false);
	/* Nothing is streamed any more, and all the same pushed. */
	struct push *push = begin(f, "2");
	assert_int_equal(write_range(push, &tar, 0, tar.len, &f->wait), 0);
	assert_int_equal(push_flush(push, &f->wait), 0);
	push_unref(push);
}

static void temporary(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf tar = simple_archive(10 * MIB);
	struct push *push = begin(f, NULL);

	push_keep(push);
	assert_int_equal(push_rename(push, "1", "new", &f->wait), -EINVAL);
	assert_int_equal(write_range(push, &tar, 0, 9 * MIB, &f->wait), 0);
	assert_int_equal(push_rename(push, "1", "new", &f->wait), -EINVAL);
	assert_int_equal(write_range(push, &tar, 9 * MIB, tar.len, &f->wait), 0);
	assert_int_equal(push_flush(push, &f->wait), 0);
	assert_int_equal(fakestore_calls(f->store, FAKE_PUT_MANIFEST), 0);
	unsigned puts = fakestore_calls(f->store, FAKE_PUT_BLOB);
	assert_int_equal(puts, 3);
	fakestore_fail(f->store, FAKE_PUT_MANIFEST, -EACCES);
	assert_int_equal(push_rename(push, "1", "new", &f->wait), -EACCES);
	fakestore_fail(f->store, FAKE_PUT_MANIFEST, 0);
	assert_int_equal(push_flush(push, &f->wait), 0);
	tag_is(f, "1", false);
	assert_int_equal(push_rename(push, "1", "new", &f->wait), 0);
	tag_is(f, "1", true);
	assert_int_equal(fakestore_calls(f->store, FAKE_PUT_BLOB), puts);
	push_unref(push);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(same_as_from_the_spool),
		TEST(blobs_go_before_the_flush),
		TEST(blobs_go_before_they_are_whole),
		TEST(blobs_do_not_hold_each_other_up),
		TEST(packed_layer_is_broken),
		TEST(unfinished_is_kept),
		TEST(what_was_sent_cannot_change),
		TEST(writer_is_kept_back),
		TEST(store_fails),
		TEST(flush_is_called_off),
		TEST(dropped_in_the_middle),
		TEST(temporary),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
