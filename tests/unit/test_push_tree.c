/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pushes out of directories: trees made here, into a store in memory.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fakestore.h"
#include "regfs/oci.h"
#include "regfs/push_tree.h"
#include "regfs/tar.h"

#define LAYER_MAX (16 * MIB)

struct fixture {
	char dir[128];
	struct pool *jobs;
	struct pushes *pushes;
	struct store *store;
	struct stage *stage;
	struct stage_inode *root;
	struct push_tree *tree;
	struct wait wait;
};

static struct pushes *make_pushes(struct fixture *f, const int64_t *source_date, enum codec codec)
{
	const struct pushes_options options = {
		.spool_dir = f->dir,
		.jobs = f->jobs,
		.compress = codec,
		.source_date = source_date,
	};

	return pushes_new(&options);
}

static void make_tree(struct fixture *f)
{
	static const struct oci_platform platform = {.os = "linux", .architecture = "amd64"};
	const struct stage_options stage = {.spool_dir = f->dir, .mode = 0755};

	assert_int_equal(stage_new(&stage, &f->stage), 0);
	f->root = stage_root(f->stage);
	const struct push_tree_options options = {
		.stage = f->stage,
		.store = f->store,
		.repo = "team/app",
		.tag = "1",
		.label = "label",
		.platform = &platform,
	};
	assert_int_equal(push_tree_new(f->pushes, &options, &f->tree), 0);
}

static void drop_tree(struct fixture *f)
{
	push_tree_free(STEAL(f->tree));
	stage_inode_unref(STEAL(f->root));
	stage_free(STEAL(f->stage));
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const char *tmp = getenv("TMPDIR");

	snprintf(f->dir, sizeof(f->dir), "%s/regfs-tree-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(f->dir));
	f->jobs = pool_new("jobs", 0);
	f->pushes = make_pushes(f, NULL, CODEC_PLAIN);
	f->store = fakestore_new("reg.example:5000");
	wait_init(&f->wait, true);
	make_tree(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	drop_tree(f);
	pushes_free(f->pushes);
	pool_free(f->jobs);
	store_free(f->store);
	wait_release(&f->wait);
	assert_int_equal(rmdir(f->dir), 0); /* nothing is left in it */
	free(f);
	return 0;
}

/* --- trees --- */

static void set_time(struct stage_inode *inode)
{
	const struct timespec mtime = {.tv_sec = 1000, .tv_nsec = 5};

	assert_int_equal(stage_change(inode, &(struct stage_change){.mtime = &mtime}), 0);
}

static struct stage_inode *add(struct stage_inode *dir, const char *name, mode_t mode,
			       const char *target)
{
	const struct stage_made made = {.mode = mode, .uid = 3, .gid = 4, .target = target};
	struct stage_inode *inode = NULL;

	assert_int_equal(stage_make(dir, name, &made, &inode), 0);
	set_time(inode);
	return inode;
}

static struct stage_inode *add_dir(struct stage_inode *dir, const char *name)
{
	return add(dir, name, S_IFDIR | 0755, NULL);
}

static void fill(struct fixture *f, struct stage_inode *file, const char *text)
{
	assert_int_equal(stage_write(file, 0, text, strlen(text), &f->wait), strlen(text));
	set_time(file);
}

static struct stage_inode *add_file(struct fixture *f, struct stage_inode *dir, const char *name,
				    const char *text)
{
	struct stage_inode *file = add(dir, name, S_IFREG | 0644, NULL);

	fill(f, file, text);
	return file;
}

static void put_file(struct fixture *f, struct stage_inode *dir, const char *name, const char *text)
{
	stage_inode_unref(add_file(f, dir, name, text));
}

static int no_base(void *arg, const char *target, struct wait *wait, struct image **ret,
		   const char **ret_why)
{
	(void)arg, (void)target, (void)wait, (void)ret;
	*ret_why = "there is none in this test";
	return -EINVAL;
}

static int sync_tree(struct fixture *f)
{
	const struct push_base base = {.find = no_base};

	return push_tree_sync(f->tree, &base, &f->wait);
}

static void assert_reason(struct fixture *f, const char *part)
{
	AUTO_BUF struct buf text = BUF_INIT(64 * KIB);

	assert_int_equal(pushes_text(f->pushes, &text), 0);
	if (!strstr(text.data, part))
		fail_msg("'%s' does not say '%s'", text.data, part);
}

static void await_state(struct fixture *f, const char *state)
{
	bool seen = false;

	while (!seen) {
		AUTO_BUF struct buf text = BUF_INIT(64 * KIB);

		assert_int_equal(pushes_text(f->pushes, &text), 0);
		seen = strstr(text.data, state);
		sched_yield();
	}
}

/* --- what came to the store --- */

static struct oci_manifest manifest_of(struct fixture *f)
{
	CLEANUP(store_manifest_release) struct store_manifest served = {0};
	struct oci_manifest manifest;
	const char *why;

	assert_int_equal(f->store->ops->get_manifest(f->store, "team/app", "1", &served, &f->wait),
			 0);
	assert_int_equal(oci_manifest_parse(served.bytes.data, served.bytes.len, served.media_type,
					    &manifest, &why),
			 0);
	return manifest;
}

static struct buf blob_of(struct fixture *f, const struct digest *digest)
{
	struct buf bytes = BUF_INIT(LAYER_MAX);
	struct store_stream *stream = NULL;
	char chunk[4096];
	ssize_t got;

	assert_int_equal(f->store->ops->open_blob(f->store, "team/app", digest, 0, UINT64_MAX,
						  &stream, &f->wait),
			 0);
	while ((got = stream->read(stream, chunk, sizeof(chunk), &f->wait)) > 0)
		assert_int_equal(buf_add(&bytes, chunk, (size_t)got), 0);
	assert_int_equal(got, 0);
	store_stream_close(stream);
	return bytes;
}

/* The layer, as text: a line for each member. */
struct listing {
	struct buf text;
	const struct buf *layer;
	bool given;
};

static ssize_t give_layer(void *arg, const void **ret)
{
	struct listing *listing = arg;

	*ret = listing->layer->data;
	return listing->given ? 0 : (listing->given = true, (ssize_t)listing->layer->len);
}

static int list_member(void *arg, const struct tar_member *member)
{
	struct listing *listing = arg;

	buf_printf(&listing->text, "%s %o %u:%u %ju %jd.%u", member->path, member->mode,
		   member->uid, member->gid, (uintmax_t)member->size, (intmax_t)member->mtime_sec,
		   member->mtime_nsec);
	if (member->hard_link)
		buf_printf(&listing->text, " = %s", member->hard_link);
	if (member->symlink)
		buf_printf(&listing->text, " -> %s", member->symlink);
	for (size_t i = 0; i < member->nxattrs; i++)
		buf_printf(&listing->text, " %s=%.*s", member->xattrs[i].name,
			   (int)member->xattrs[i].len, (const char *)member->xattrs[i].value);
	return buf_puts(&listing->text, "\n");
}

static void assert_layer(struct fixture *f, const char *wanted)
{
	CLEANUP(oci_manifest_release) struct oci_manifest manifest = manifest_of(f);
	AUTO_BUF struct buf layer = blob_of(f, &manifest.layers[0].digest);
	struct listing listing = {.text = BUF_INIT(64 * KIB), .layer = &layer};
	const struct tar_source source = {.read = give_layer, .arg = &listing};
	char why[200];
	bool marker;

	assert_int_equal(tar_scan(&source, list_member, &listing, &marker, why, sizeof(why)), 0);
	assert_true(marker);
	assert_string_equal(listing.text.data ? listing.text.data : "", wanted);
	buf_release(&listing.text);
}

/* --- images --- */

static void test_the_layer_says_what_the_tree_is(void **state)
{
	struct fixture *f = *state;
	AUTO_INODE struct stage_inode *rootfs = add_dir(f->root, "rootfs");
	AUTO_INODE struct stage_inode *b = add_dir(rootfs, "b");
	AUTO_INODE struct stage_inode *file = add_file(f, b, "x", "four");
	AUTO_INODE struct stage_inode *a = add_dir(rootfs, "a");
	mode_t mode = 04711;

	assert_int_equal(stage_change(file, &(struct stage_change){.mode = &mode}), 0);
	assert_int_equal(stage_setxattr(file, "user.z", "1", 1, 0), 0);
	assert_int_equal(stage_setxattr(file, "security.capability", "2", 1, 0), 0);
	assert_int_equal(stage_setxattr(file, "user.regfs.media_type", "3", 1, 0), 0);
	assert_int_equal(stage_setxattr(file, "security.selinux", "4", 1, 0), 0);
	assert_int_equal(stage_link(a, "y", file), 0);
	stage_inode_unref(add(rootfs, "l", S_IFLNK | 0777, "b/x"));
	stage_inode_unref(add(rootfs, "p", S_IFIFO | 0600, NULL));
	stage_inode_unref(add(rootfs, "s", S_IFSOCK | 0600, NULL));
	put_file(f, b, ".wh.old", "ignored");
	set_time(a);
	set_time(b);
	assert_int_equal(sync_tree(f), 1);
	assert_layer(f, "a/ 40755 3:4 0 1000.5\n"
			"a/y 104711 3:4 4 1000.5 security.capability=2 user.z=1\n"
			"b/ 40755 3:4 0 1000.5\n"
			"b/.wh.old 100644 3:4 0 1000.5\n"
			"b/x 104711 3:4 0 1000.5 = a/y\n"
			"l 120777 3:4 0 1000.5 -> b/x\n"
			"p 10600 3:4 0 1000.5\n");
}

/* The blob is compressed as its type says, and its bytes have the digest that the config says. */
static void check_codec(struct fixture *f, enum codec codec, const char *type)
{
	AUTO_DECODER struct decoder *decoder = decoder_new(codec, NULL);
	CLEANUP(oci_config_release) struct oci_config config = {0};
	AUTO_FREE char *plain = malloc(LAYER_MAX);
	struct digest digest;
	const char *why;
	size_t len = 0;
	ssize_t got;

	drop_tree(f);
	pushes_free(f->pushes);
	f->pushes = make_pushes(f, NULL, codec);
	make_tree(f);
	AUTO_INODE struct stage_inode *rootfs = add_dir(f->root, "rootfs");
	/* No reader of magics takes the tar for gzip. */
	const struct timespec whole = {.tv_sec = 1000};
	AUTO_INODE struct stage_inode *file = add_file(f, rootfs, "\x1f\x8b\x08", "some bytes");
	assert_int_equal(stage_change(file, &(struct stage_change){.mtime = &whole}), 0);
	assert_int_equal(sync_tree(f), 1);

	CLEANUP(oci_manifest_release) struct oci_manifest manifest = manifest_of(f);
	AUTO_BUF struct buf layer = blob_of(f, &manifest.layers[0].digest);
	AUTO_BUF struct buf text = blob_of(f, &manifest.config.digest);
	assert_string_equal(manifest.layers[0].media_type, type);
	assert_int_equal(manifest.layers[0].size, layer.len);
	assert_int_equal(oci_config_parse(text.data, text.len, &config, &why), 0);
	decoder_input(decoder, layer.data, layer.len, true);
	while ((got = decoder_read(decoder, plain + len, LAYER_MAX - len)) > 0)
		len += (size_t)got;
	assert_int_equal(got, 0);
	digest_of(DIGEST_SHA256, plain, len, &digest);
	assert_true(digest_equal(&digest, &config.diff_ids[0]));
	assert_int_equal(len, 512 + 512 + TAR_TRAILER);
}

static void test_layers_are_compressed_as_wished(void **state)
{
	check_codec(*state, CODEC_PLAIN, OCI_TYPE_LAYER);
	check_codec(*state, CODEC_GZIP, OCI_TYPE_LAYER_GZIP);
	check_codec(*state, CODEC_ZSTD, OCI_TYPE_LAYER_ZSTD);
}

static void test_times_are_clamped(void **state)
{
	struct fixture *f = *state;
	int64_t date = 999;

	drop_tree(f);
	pushes_free(f->pushes);
	f->pushes = make_pushes(f, &date, CODEC_PLAIN);
	make_tree(f);
	AUTO_INODE struct stage_inode *rootfs = add_dir(f->root, "rootfs");
	AUTO_INODE struct stage_inode *file = add_file(f, rootfs, "f", "x");
	stage_inode_unref(add_dir(rootfs, "g"));
	const struct timespec early = {.tv_sec = 7, .tv_nsec = 9};
	assert_int_equal(stage_change(file, &(struct stage_change){.mtime = &early}), 0);
	assert_int_equal(sync_tree(f), 1);
	assert_layer(f, "f 100644 3:4 1 7.9\ng/ 40755 3:4 0 999.0\n");
}

static void test_large_files_and_long_names(void **state)
{
	struct fixture *f = *state;
	AUTO_INODE struct stage_inode *rootfs = add_dir(f->root, "rootfs");
	AUTO_FREE char *text = calloc(1, 3 * MIB);
	char name[256] = "";

	memset(name, 'n', 255);
	memset(text, 'x', 3 * MIB - 1);
	put_file(f, rootfs, name, text);
	assert_int_equal(sync_tree(f), 1);
	CLEANUP(oci_manifest_release) struct oci_manifest manifest = manifest_of(f);
	AUTO_BUF struct buf layer = blob_of(f, &manifest.layers[0].digest);
	assert_non_null(memmem(layer.data, layer.len, text, 3 * MIB - 1));
	assert_non_null(memmem(layer.data, layer.len, name, 255));
}

static void test_a_verdict_is_repeated(void **state)
{
	struct fixture *f = *state;
	AUTO_INODE struct stage_inode *rootfs = add_dir(f->root, "rootfs");
	AUTO_INODE struct stage_inode *file = add_file(f, rootfs, "f", "x");

	fakestore_fail(f->store, FAKE_PUT_MANIFEST, -EACCES);
	assert_int_equal(sync_tree(f), -EACCES);
	assert_false(push_tree_is_confirmed(f->tree));
	assert_reason(f, "sending the manifest of team/app:1: Permission denied");
	/* What failed is tried anew: the store may do better now. */
	assert_int_equal(sync_tree(f), -EACCES);
	assert_int_equal(fakestore_calls(f->store, FAKE_PUT_MANIFEST), 2);
	fakestore_fail(f->store, FAKE_PUT_MANIFEST, 0);
	assert_int_equal(sync_tree(f), 1);
	assert_true(push_tree_is_confirmed(f->tree));
	assert_int_equal(sync_tree(f), 0);
	assert_int_equal(fakestore_calls(f->store, FAKE_PUT_MANIFEST), 3);
	fill(f, file, "z");
	assert_false(push_tree_is_confirmed(f->tree));
}

static void test_a_temporary_is_published_by_its_name(void **state)
{
	const struct push_tree_name name = {.tag = "1", .label = "tag"};
	const struct push_tree_name temporary = {.label = "temporary"};
	const struct push_base base = {.find = no_base};
	struct fixture *f = *state;
	AUTO_INODE struct stage_inode *rootfs = add_dir(f->root, "rootfs");

	assert_int_equal(push_tree_rename(f->tree, &temporary, &base, &f->wait), 0);
	put_file(f, rootfs, "f", "x");
	assert_int_equal(sync_tree(f), 0);
	assert_false(push_tree_is_confirmed(f->tree));
	fakestore_fail(f->store, FAKE_PUT_MANIFEST, -EDQUOT);
	assert_int_equal(push_tree_rename(f->tree, &name, &base, &f->wait), -EDQUOT);
	assert_int_equal(sync_tree(f), 0); /* a temporary as before */
	fakestore_fail(f->store, FAKE_PUT_MANIFEST, 0);
	assert_int_equal(push_tree_rename(f->tree, &name, &base, &f->wait), 1);
	assert_true(push_tree_is_confirmed(f->tree));
	assert_int_equal(fakestore_calls(f->store, FAKE_PUT_MANIFEST), 2);
}

static void *sync_thread(void *arg)
{
	return (void *)(intptr_t)sync_tree(arg);
}

static void test_nothing_changes_while_it_is_sent(void **state)
{
	struct fixture *f = *state;
	AUTO_INODE struct stage_inode *rootfs = add_dir(f->root, "rootfs");
	AUTO_INODE struct stage_inode *file = add_file(f, rootfs, "f", "x");
	pthread_t thread;
	void *verdict;

	fakestore_stall(f->store, FAKE_PUT_BLOB);
	assert_int_equal(pthread_create(&thread, NULL, sync_thread, f), 0);
	fakestore_await_stalled(f->store, 1);
	assert_int_equal(stage_write(file, 0, "y", 1, &f->wait), -EBUSY);
	fakestore_release(f->store);
	pthread_join(thread, &verdict);
	assert_int_equal((intptr_t)verdict, 1);
	fill(f, file, "y");
}

static void test_a_sync_that_is_called_off_publishes_nothing(void **state)
{
	struct fixture *f = *state;
	AUTO_INODE struct stage_inode *rootfs = add_dir(f->root, "rootfs");
	pthread_t thread;
	void *verdict;

	put_file(f, rootfs, "f", "x");
	fakestore_stall(f->store, FAKE_PUT_BLOB);
	assert_int_equal(pthread_create(&thread, NULL, sync_thread, f), 0);
	fakestore_await_stalled(f->store, 1);
	wait_cancel(&f->wait);
	pthread_join(thread, &verdict);
	assert_int_equal((intptr_t)verdict, -EINTR);
	assert_int_equal(fakestore_calls(f->store, FAKE_PUT_MANIFEST), 0);
	fakestore_release(f->store);
	wait_release(&f->wait);
	wait_init(&f->wait, true);
	assert_int_equal(sync_tree(f), 1);
}

static void test_what_makes_no_image(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(sync_tree(f), -EINVAL);
	assert_reason(f, "the directory is empty");
	put_file(f, f->root, "rootfs", "");
	assert_int_equal(sync_tree(f), -EINVAL);
	assert_reason(f, "rootfs is not a directory");
	assert_int_equal(stage_unlink(f->root, "rootfs"), 0);
	stage_inode_unref(add_dir(f->root, "rootfs"));
	stage_inode_unref(add(f->root, "base", S_IFLNK | 0777, "x"));
	assert_int_equal(sync_tree(f), -EINVAL);
	assert_reason(f, "base -> x: there is none in this test");
	put_file(f, f->root, "other", "");
	assert_int_equal(sync_tree(f), -EINVAL);
	assert_reason(f, "other: it has no meaning here");
	assert_int_equal(fakestore_calls(f->store, FAKE_PUT_BLOB), 0);
}

/* --- layouts --- */

struct layout {
	char *config, *manifest, *index;
	struct digest config_digest, layer_digest, manifest_digest;
};

static void layout_release(struct layout *layout)
{
	free(layout->config);
	free(layout->manifest);
	free(layout->index);
}

static const char layer_bytes[] = "these bytes are no tar, and nobody looks";

static struct layout make_layout(void)
{
	struct layout layout = {.config = strdup("{\"os\":\"linux\"}")};
	char config[DIGEST_STR_MAX], layer[DIGEST_STR_MAX], manifest[DIGEST_STR_MAX];

	digest_of(DIGEST_SHA256, layout.config, strlen(layout.config), &layout.config_digest);
	digest_of(DIGEST_SHA256, layer_bytes, strlen(layer_bytes), &layout.layer_digest);
	layout.manifest = format(
		"{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_MANIFEST
		"\",\"config\":{\"mediaType\":\"" OCI_TYPE_CONFIG
		"\",\"digest\":\"%s\",\"size\":%zu},\"layers\":[{\"mediaType\":\"" OCI_TYPE_LAYER
		"\",\"digest\":\"%s\",\"size\":%zu}]}",
		digest_format(&layout.config_digest, config), strlen(layout.config),
		digest_format(&layout.layer_digest, layer), strlen(layer_bytes));
	digest_of(DIGEST_SHA256, layout.manifest, strlen(layout.manifest), &layout.manifest_digest);
	layout.index = format(
		"{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"" OCI_TYPE_MANIFEST
		"\",\"digest\":\"%s\",\"size\":%zu}]}",
		digest_format(&layout.manifest_digest, manifest), strlen(layout.manifest));
	return layout;
}

static int close_file(struct fixture *f, struct stage_inode *dir, const char *name,
		      const char *text)
{
	AUTO_INODE struct stage_inode *file = add_file(f, dir, name, text);

	return push_tree_settle(f->tree, file, &f->wait);
}

static int close_blob(struct fixture *f, struct stage_inode *dir, const struct digest *digest,
		      const char *text)
{
	char hex[DIGEST_STR_MAX];

	return close_file(f, dir, digest_hex(digest, hex), text);
}

static void test_a_layout_is_published_by_its_last_file(void **state)
{
	struct fixture *f = *state;
	CLEANUP(layout_release) struct layout layout = make_layout();
	AUTO_INODE struct stage_inode *blobs = add_dir(f->root, "blobs");
	AUTO_INODE struct stage_inode *sha256 = add_dir(blobs, "sha256");

	assert_int_equal(close_file(f, f->root, "index.json", layout.index), 0);
	assert_int_equal(close_blob(f, sha256, &layout.manifest_digest, layout.manifest), 0);
	assert_int_equal(close_blob(f, sha256, &layout.config_digest, layout.config), 0);
	assert_int_equal(close_file(f, f->root, "oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}"),
			 0);
	assert_int_equal(sync_tree(f), -EINVAL);
	assert_reason(f, "is missing");
	assert_int_equal(close_blob(f, sha256, &layout.layer_digest, layer_bytes), 1);
	assert_true(push_tree_is_confirmed(f->tree));
	CLEANUP(oci_manifest_release) struct oci_manifest manifest = manifest_of(f);
	assert_int_equal(manifest.nlayers, 1);
	/* Whatever comes later does not change what was pushed. */
	assert_int_equal(close_file(f, f->root, "README", "x"), 0);
	assert_int_equal(sync_tree(f), 0);
	assert_int_equal(fakestore_calls(f->store, FAKE_PUT_MANIFEST), 1);
	assert_int_equal(fakestore_calls(f->store, FAKE_PUT_BLOB), 2);
}

static void test_the_last_close_waits_for_blobs_under_way(void **state)
{
	struct fixture *f = *state;
	CLEANUP(layout_release) struct layout layout = make_layout();
	AUTO_INODE struct stage_inode *blobs = add_dir(f->root, "blobs");
	AUTO_INODE struct stage_inode *sha256 = add_dir(blobs, "sha256");
	pthread_t thread;
	void *verdict;

	fakestore_stall(f->store, FAKE_PUT_BLOB);
	assert_int_equal(close_blob(f, sha256, &layout.layer_digest, layer_bytes), 0);
	fakestore_await_stalled(f->store, 1);
	put_file(f, sha256, "x", "");
	put_file(f, f->root, "index.json", layout.index);
	put_file(f, f->root, "oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}");
	assert_int_equal(close_blob(f, sha256, &layout.config_digest, layout.config), 0);
	fakestore_await_stalled(f->store, 2);
	char hex[DIGEST_STR_MAX];
	put_file(f, sha256, digest_hex(&layout.manifest_digest, hex), layout.manifest);
	assert_int_equal(pthread_create(&thread, NULL, sync_thread, f), 0);
	await_state(f, "sending");
	fakestore_release(f->store);
	pthread_join(thread, &verdict);
	assert_int_equal((intptr_t)verdict, 1);
	/* None was offered twice. */
	assert_int_equal(fakestore_calls(f->store, FAKE_HAS_BLOB), 2);
	assert_int_equal(fakestore_calls(f->store, FAKE_PUT_BLOB), 2);
}

static void test_a_blob_that_failed_under_way_is_sent_again(void **state)
{
	struct fixture *f = *state;
	CLEANUP(layout_release) struct layout layout = make_layout();
	AUTO_INODE struct stage_inode *blobs = add_dir(f->root, "blobs");
	AUTO_INODE struct stage_inode *sha256 = add_dir(blobs, "sha256");

	fakestore_fail(f->store, FAKE_PUT_BLOB, -EIO);
	assert_int_equal(close_blob(f, sha256, &layout.config_digest, layout.config), 0);
	assert_int_equal(close_blob(f, sha256, &layout.layer_digest, layer_bytes), 0);
	assert_int_equal(close_blob(f, sha256, &layout.manifest_digest, layout.manifest), 0);
	assert_int_equal(close_file(f, f->root, "index.json", layout.index), 0);
	assert_int_equal(close_file(f, f->root, "oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}"),
			 -EIO);
	assert_reason(f, "sending sha256:");
	fakestore_fail(f->store, FAKE_PUT_BLOB, 0);
	assert_int_equal(sync_tree(f), 1);
}

static void test_the_end_calls_off_what_is_under_way(void **state)
{
	struct fixture *f = *state;
	CLEANUP(layout_release) struct layout layout = make_layout();
	AUTO_INODE struct stage_inode *blobs = add_dir(f->root, "blobs");
	AUTO_INODE struct stage_inode *sha256 = add_dir(blobs, "sha256");

	fakestore_stall(f->store, FAKE_PUT_BLOB);
	assert_int_equal(close_blob(f, sha256, &layout.layer_digest, layer_bytes), 0);
	fakestore_await_stalled(f->store, 1);
	/* teardown() would hang, or the store still see its source. */
	push_tree_free(STEAL(f->tree));
	fakestore_release(f->store);
}

static void test_wrong_layouts(void **state)
{
	static const struct {
		const char *index, *why;
	} cases[] = {
		{"{\"schemaVersion\":2,\"manifests\":[]}", "index.json names no image yet"},
		{"{\"schemaVersion\":2,", "index.json: it is cut off"},
		{"{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"" OCI_TYPE_MANIFEST
		 "\",\"digest\":\"sha256:"
		 "0000000000000000000000000000000000000000000000000000000000000000\","
		 "\"size\":1}]}",
		 "blobs/sha256/0000000000000000000000000000000000000000000000000000000000000000 "
		 "is missing"},
	};
	struct fixture *f = *state;

	stage_inode_unref(add_dir(f->root, "blobs"));
	assert_int_equal(sync_tree(f), -EINVAL);
	assert_reason(f, "oci-layout is missing");
	put_file(f, f->root, "oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}");
	AUTO_INODE struct stage_inode *index = add(f->root, "index.json", S_IFREG | 0644, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(stage_truncate(index, 0, &f->wait), 0);
		fill(f, index, cases[i].index);
		assert_int_equal(push_tree_settle(f->tree, index, &f->wait), 0);
		assert_int_equal(sync_tree(f), -EINVAL);
		assert_reason(f, cases[i].why);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_layer_says_what_the_tree_is),
		TEST(layers_are_compressed_as_wished),
		TEST(times_are_clamped),
		TEST(large_files_and_long_names),
		TEST(a_verdict_is_repeated),
		TEST(a_temporary_is_published_by_its_name),
		TEST(nothing_changes_while_it_is_sent),
		TEST(a_sync_that_is_called_off_publishes_nothing),
		TEST(what_makes_no_image),
		TEST(a_layout_is_published_by_its_last_file),
		TEST(the_last_close_waits_for_blobs_under_way),
		TEST(a_blob_that_failed_under_way_is_sent_again),
		TEST(the_end_calls_off_what_is_under_way),
		TEST(wrong_layouts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
