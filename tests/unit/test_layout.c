/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store of OCI layouts, on a directory of its own for each test, and beside skopeo.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#include "regfs/layout.h"
#include "regfs/oci.h"

struct fixture {
	char root[128];
	struct store *store;
	struct wait wait;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const char *tmp = getenv("TMPDIR");

	snprintf(f->root, sizeof(f->root), "%s/regfs-layout-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(f->root));
	assert_int_equal(layout_new(f->root, "local", &f->store), 0);
	wait_init(&f->wait, true);
	*state = f;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	store_free(f->store);
	wait_release(&f->wait);
	nftw(f->root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static char *path_of(const struct fixture *f, const char *rel)
{
	static char path[512];

	snprintf(path, sizeof(path), "%s/%s", f->root, rel);
	return path;
}

static void write_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fputs(text, file) >= 0, 1);
	assert_int_equal(fclose(file), 0);
}

static int put_blob(struct fixture *f, const char *repo, const char *data,
		    const struct digest *digest, const char *mount_from)
{
	struct store_bytes bytes = {.data = data, .len = strlen(data)};
	struct store_source source = {.read = store_bytes_read, .arg = &bytes, .size = bytes.len};
	struct store_put put = {.digest = digest, .source = &source, .mount_from = mount_from};

	return f->store->ops->put_blob(f->store, repo, &put, &f->wait);
}

static void put_ok(struct fixture *f, const char *repo, const char *data)
{
	struct digest digest;

	digest_of(DIGEST_SHA256, data, strlen(data), &digest);
	assert_int_equal(put_blob(f, repo, data, &digest, NULL), 0);
}

/* A manifest with one config and one layer. The caller frees. */
static char *make_manifest(const char *config, const char *layer, struct digest *ret)
{
	struct digest c, l;
	char cs[DIGEST_STR_MAX], ls[DIGEST_STR_MAX];

	digest_of(DIGEST_SHA256, config, strlen(config), &c);
	digest_of(DIGEST_SHA256, layer, strlen(layer), &l);
	char *json = format(
		"{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_MANIFEST "\","
		"\"config\":{\"mediaType\":\"" OCI_TYPE_CONFIG "\",\"digest\":\"%s\",\"size\":%zu},"
		"\"layers\":[{\"mediaType\":\"" OCI_TYPE_LAYER
		"\",\"digest\":\"%s\",\"size\":%zu}]}",
		digest_format(&c, cs), strlen(config), digest_format(&l, ls), strlen(layer));
	assert_non_null(json);
	digest_of(DIGEST_SHA256, json, strlen(json), ret);
	return json;
}

static int put_manifest(struct fixture *f, const char *repo, const char *tag, const char *json)
{
	return f->store->ops->put_manifest(f->store, repo, tag, NULL, json, strlen(json), &f->wait);
}

/* A whole image; its digest. */
static struct digest push(struct fixture *f, const char *repo, const char *tag, const char *layer)
{
	struct digest digest;

	put_ok(f, repo, "{}");
	put_ok(f, repo, layer);
	AUTO_FREE char *json = make_manifest("{}", layer, &digest);
	assert_int_equal(put_manifest(f, repo, tag, json), 0);
	return digest;
}

static int join_name(void *arg, const char *name)
{
	struct buf *names = arg;

	return buf_printf(names, "%s ", name);
}

static void assert_tags(struct fixture *f, const char *repo, const char *expected)
{
	AUTO_BUF struct buf names = BUF_INIT(64 * KIB);

	assert_int_equal(f->store->ops->list_tags(f->store, repo, join_name, &names, &f->wait), 0);
	assert_string_equal(names.data ? names.data : "", expected);
}

static bool has(struct fixture *f, const char *repo, const char *data)
{
	struct digest digest;
	uint64_t size = 0;

	digest_of(DIGEST_SHA256, data, strlen(data), &digest);
	int err = f->store->ops->has_blob(f->store, repo, &digest, &size, &f->wait);
	if (!err)
		assert_int_equal(size, strlen(data));
	return err == 0;
}

static unsigned count_files(const char *dir_path, const char *part)
{
	DIR *dir = opendir(dir_path);
	struct dirent *entry;
	unsigned n = 0;

	assert_non_null(dir);
	while ((entry = readdir(dir)))
		n += strstr(entry->d_name, part) != NULL;
	closedir(dir);
	return n;
}

/* Makes every blob of the repository old enough to be collected. */
static void age_blobs(struct fixture *f, const char *repo)
{
	char dir_path[300];
	struct timespec times[2] = {{.tv_sec = time(NULL) - 86400}, {.tv_sec = time(NULL) - 86400}};
	struct dirent *entry;

	snprintf(dir_path, sizeof(dir_path), "%s/%s/blobs/sha256", f->root, repo);
	DIR *dir = opendir(dir_path);
	assert_non_null(dir);
	while ((entry = readdir(dir)))
		utimensat(dirfd(dir), entry->d_name, times, 0);
	closedir(dir);
}

static void missing_root_is_empty(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf names = BUF_INIT(KIB);
	struct digest digest;
	const struct store_ops *ops = f->store->ops;

	assert_int_equal(rmdir(f->root), 0);
	assert_int_equal(ops->list_repos(f->store, join_name, &names, &f->wait), 0);
	assert_null(names.data);
	assert_int_equal(ops->list_tags(f->store, "app", join_name, &names, &f->wait), -ENOENT);
	assert_int_equal(ops->head(f->store, "app", "1", &digest, &f->wait), -ENOENT);
	push(f, "app", "1", "made on demand");
	assert_tags(f, "app", "1 ");
}

static void image_is_read_back(void **state)
{
	struct fixture *f = *state;
	struct digest pushed, digest, found;
	char digest_str[DIGEST_STR_MAX];
	struct store_manifest manifest = {0};
	const struct store_ops *ops = f->store->ops;

	pushed = push(f, "team/app", "1.5", "layer");
	AUTO_FREE char *json = make_manifest("{}", "layer", &digest);
	assert_true(digest_equal(&pushed, &digest));
	assert_tags(f, "team/app", "1.5 ");
	assert_int_equal(ops->head(f->store, "team/app", "1.5", &found, &f->wait), 0);
	assert_true(digest_equal(&found, &pushed));
	assert_int_equal(ops->get_manifest(f->store, "team/app", "1.5", &manifest, &f->wait), 0);
	assert_string_equal(manifest.bytes.data, json);
	assert_string_equal(manifest.media_type, OCI_TYPE_MANIFEST);
	store_manifest_release(&manifest);
	digest_format(&pushed, digest_str);
	assert_int_equal(ops->get_manifest(f->store, "team/app", digest_str, &manifest, &f->wait),
			 0);
	assert_true(digest_equal(&manifest.digest, &pushed));
	store_manifest_release(&manifest);
	assert_int_equal(ops->get_manifest(f->store, "team/app", "1.6", &manifest, &f->wait),
			 -ENOENT);
}

static void blob_is_read_from_any_offset(void **state)
{
	struct fixture *f = *state;
	struct store_stream *stream = NULL;
	struct digest digest;
	char out[16] = "";

	put_ok(f, "app", "0123456789");
	digest_of(DIGEST_SHA256, "0123456789", 10, &digest);
	assert_int_equal(
		f->store->ops->open_blob(f->store, "app", &digest, 4, 3, &stream, &f->wait), 0);
	assert_int_equal(stream->read(stream, out, sizeof(out), &f->wait), 3);
	assert_memory_equal(out, "456", 3);
	assert_int_equal(stream->read(stream, out, sizeof(out), &f->wait), 0);
	store_stream_close(stream);
	assert_int_equal(f->store->ops->open_blob(f->store, "app", &digest, 8, UINT64_MAX, &stream,
						  &f->wait),
			 0);
	assert_int_equal(stream->read(stream, out, sizeof(out), &f->wait), 2);
	store_stream_close(stream);
	assert_int_equal(f->store->ops->open_blob(f->store, "app", &digest, 99, UINT64_MAX, &stream,
						  &f->wait),
			 0);
	assert_int_equal(stream->read(stream, out, sizeof(out), &f->wait), 0);
	store_stream_close(stream);
}

/* Who reads a blob has its digest from a manifest here: as with a registry, that is damage. */
static void a_blob_that_is_not_there_is_damage(void **state)
{
	struct fixture *f = *state;
	struct store_stream *stream = NULL;
	struct digest digest;
	uint64_t size;

	put_ok(f, "app", "0123456789");
	digest_of(DIGEST_SHA256, "another", 7, &digest);
	assert_int_equal(f->store->ops->has_blob(f->store, "app", &digest, &size, &f->wait),
			 -ENOENT);
	assert_int_equal(f->store->ops->open_blob(f->store, "app", &digest, 0, UINT64_MAX, &stream,
						  &f->wait),
			 -EIO);
	assert_null(stream);
}

static void repositories_nest(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf names = BUF_INIT(KIB);

	push(f, "team/app/web", "1", "a");
	push(f, "team/app", "1", "a");
	push(f, "solo", "1", "a");
	assert_int_equal(mkdir(path_of(f, "plain"), 0755), 0);
	assert_int_equal(mkdir(path_of(f, ".hidden"), 0755), 0);
	assert_int_equal(symlink("../../etc", path_of(f, "out")), 0);
	assert_int_equal(symlink("solo", path_of(f, "in")), 0);
	assert_int_equal(symlink(".", path_of(f, "loop")), 0);
	assert_int_equal(f->store->ops->list_repos(f->store, join_name, &names, &f->wait), 0);
	assert_non_null(strstr(names.data, "team/app "));
	assert_non_null(strstr(names.data, "team/app/web "));
	assert_non_null(strstr(names.data, "solo "));
	assert_non_null(strstr(names.data, "in "));
	assert_null(strstr(names.data, "out"));
	assert_null(strstr(names.data, "loop"));
	assert_null(strstr(names.data, "plain"));
	assert_tags(f, "in", "1 ");
}

static void link_out_of_the_root_is_no_repository(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf names = BUF_INIT(KIB);
	struct fixture *outside;

	setup((void **)&outside);
	push(outside, "app", "1", "a");
	AUTO_FREE char *target = strdup(path_of(outside, "app"));
	assert_int_equal(symlink(target, path_of(f, "out")), 0);
	assert_int_equal(f->store->ops->list_tags(f->store, "out", join_name, &names, &f->wait),
			 -ENOENT);
	AUTO_FREE char *json = make_manifest("{}", "a", &(struct digest){0});
	assert_int_equal(put_manifest(f, "out", "2", json), -EACCES);
	assert_tags(outside, "app", "1 ");
	teardown((void **)&outside);
}

static void reserved_components_are_refused(void **state)
{
	struct fixture *f = *state;
	static const char *const names[] = {"blobs", "app/blobs", "index.json/x", "a/oci-layout"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		assert_int_equal(f->store->ops->make_repo(f->store, names[i], &f->wait), -EINVAL);
	assert_int_equal(f->store->ops->make_repo(f->store, "app/blobs2", &f->wait), 0);
	assert_tags(f, "app/blobs2", "");
}

static void wrong_digest_is_refused(void **state)
{
	struct fixture *f = *state;
	struct digest digest;

	digest_of(DIGEST_SHA256, "right", 5, &digest);
	assert_int_equal(put_blob(f, "app", "wrong", &digest, NULL), -EIO);
	assert_false(has(f, "app", "right"));
	assert_int_equal(count_files(path_of(f, "app"), ".regfs-"), 0);
	assert_int_equal(count_files(path_of(f, "app/blobs/sha256"), "0"), 0);
}

static void cancelled_put_leaves_nothing(void **state)
{
	struct fixture *f = *state;
	struct digest digest;

	digest_of(DIGEST_SHA256, "data", 4, &digest);
	wait_cancel(&f->wait);
	assert_int_equal(put_blob(f, "app", "data", &digest, NULL), -EINTR);
	assert_int_equal(count_files(path_of(f, "app"), ".regfs-"), 0);
}

static void manifest_needs_its_blobs(void **state)
{
	struct fixture *f = *state;
	struct digest digest;

	push(f, "app", "1", "old");
	AUTO_FREE char *json = make_manifest("{}", "not there", &digest);
	assert_int_equal(put_manifest(f, "app", "1", json), -EINVAL);
	assert_int_equal(put_manifest(f, "app", "2", json), -EINVAL);
	assert_int_equal(put_manifest(f, "app", "2", "no JSON"), -EINVAL);
	assert_tags(f, "app", "1 ");
	AUTO_FREE char *old = make_manifest("{}", "old", &digest);
	struct digest found;
	assert_int_equal(f->store->ops->head(f->store, "app", "1", &found, &f->wait), 0);
	assert_true(digest_equal(&found, &digest));
}

static void foreign_fields_stay(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *text = NULL;
	struct digest digest = push(f, "app", "1", "a");
	char digest_str[DIGEST_STR_MAX];
	size_t len;

	AUTO_FREE char *index = format(
		"{\"schemaVersion\":2,\"x-tool\":{\"n\":7},\"manifests\":["
		"{\"mediaType\":\"" OCI_TYPE_MANIFEST "\",\"digest\":\"%s\",\"size\":1,\"x\":true},"
		"{\"mediaType\":\"" OCI_TYPE_MANIFEST "\",\"digest\":\"%s\",\"size\":1,"
		"\"annotations\":{\"org.opencontainers.image.ref.name\":\"keep\",\"a\":\"b\"}}]}",
		digest_format(&digest, digest_str), digest_str);
	write_file(path_of(f, "app/index.json"), index);
	push(f, "app", "new", "b");
	assert_int_equal(read_file(path_of(f, "app/index.json"), MIB, &text, &len), 0);
	assert_non_null(strstr(text, "x-tool"));
	assert_non_null(strstr(text, "\"x\":true"));
	assert_non_null(strstr(text, "\"a\":\"b\""));
	assert_tags(f, "app", "keep new ");
}

static void untag_collects_what_nothing_names(void **state)
{
	struct fixture *f = *state;

	push(f, "app", "1", "only of 1");
	push(f, "app", "2", "only of 2");
	age_blobs(f, "app");
	put_ok(f, "app", "being pushed");
	assert_int_equal(f->store->ops->untag(f->store, "app", "1", &f->wait), 0);
	assert_tags(f, "app", "2 ");
	assert_false(has(f, "app", "only of 1"));
	assert_true(has(f, "app", "only of 2"));
	assert_true(has(f, "app", "{}"));
	assert_true(has(f, "app", "being pushed"));
	assert_int_equal(f->store->ops->untag(f->store, "app", "1", &f->wait), -ENOENT);
}

static void asking_for_a_blob_keeps_it(void **state)
{
	struct fixture *f = *state;

	push(f, "app", "1", "asked for");
	age_blobs(f, "app");
	assert_true(has(f, "app", "asked for"));
	assert_int_equal(f->store->ops->untag(f->store, "app", "1", &f->wait), 0);
	assert_true(has(f, "app", "asked for"));
}

/* What only the deleted tag led to goes however young it is; what a push that is under way has
 * sent, or has asked for, stays. */
static void untag_collects_young_blobs(void **state)
{
	struct fixture *f = *state;

	push(f, "app", "1", "only of 1");
	push(f, "app", "2", "only of 2");
	push(f, "app", "3", "asked for");
	put_ok(f, "app", "being pushed");
	assert_true(has(f, "app", "asked for"));
	assert_int_equal(f->store->ops->untag(f->store, "app", "3", &f->wait), 0);
	assert_true(has(f, "app", "asked for"));
	assert_int_equal(f->store->ops->untag(f->store, "app", "1", &f->wait), 0);
	assert_false(has(f, "app", "only of 1"));
	assert_true(has(f, "app", "only of 2"));
	assert_true(has(f, "app", "{}"));
	assert_true(has(f, "app", "being pushed"));
}

/* skopeo knows no lock: while it writes blobs, nothing is taken away that it may count on. */
static void nothing_is_collected_while_skopeo_writes(void **state)
{
	struct fixture *f = *state;

	push(f, "app", "1", "one");
	push(f, "app", "2", "two");
	write_file(path_of(f, "app/oci-put-blob123"), "half");
	assert_int_equal(f->store->ops->untag(f->store, "app", "1", &f->wait), 0);
	assert_true(has(f, "app", "one"));
	assert_int_equal(remove(path_of(f, "app/oci-put-blob123")), 0);
	assert_int_equal(f->store->ops->untag(f->store, "app", "2", &f->wait), 0);
	assert_false(has(f, "app", "two"));
}

static void empty_repository_is_removed(void **state)
{
	struct fixture *f = *state;
	const struct store_ops *ops = f->store->ops;
	struct stat st;

	assert_int_equal(ops->make_repo(f->store, "team/app", &f->wait), 0);
	assert_int_equal(ops->remove_repo(f->store, "team", &f->wait), -ENOTEMPTY);
	assert_int_equal(ops->remove_repo(f->store, "team/app", &f->wait), 0);
	assert_int_equal(stat(path_of(f, "team/app"), &st), -1);
	assert_int_equal(ops->remove_repo(f->store, "team", &f->wait), 0);
	assert_int_equal(stat(path_of(f, "team"), &st), -1);
	/* tags, blobs, and what is somebody's keep it whole */
	push(f, "app", "1", "one");
	assert_int_equal(ops->remove_repo(f->store, "app", &f->wait), -ENOTEMPTY);
	assert_tags(f, "app", "1 ");
	assert_int_equal(ops->make_repo(f->store, "notes", &f->wait), 0);
	write_file(path_of(f, "notes/README"), "mine");
	assert_int_equal(ops->remove_repo(f->store, "notes", &f->wait), -ENOTEMPTY);
	assert_tags(f, "notes", "");
	put_ok(f, "blobs-only", "being pushed");
	assert_int_equal(ops->make_repo(f->store, "blobs-only", &f->wait), 0);
	assert_int_equal(ops->remove_repo(f->store, "blobs-only", &f->wait), -ENOTEMPTY);
	assert_true(has(f, "blobs-only", "being pushed"));
}

static void nothing_is_collected_where_a_manifest_is_damaged(void **state)
{
	struct fixture *f = *state;
	struct digest digest;
	char rel[128], hex[DIGEST_STR_MAX];

	push(f, "app", "1", "one");
	digest = push(f, "app", "2", "two");
	snprintf(rel, sizeof(rel), "app/blobs/sha256/%s", digest_hex(&digest, hex));
	write_file(path_of(f, rel), "{}");
	age_blobs(f, "app");
	assert_int_equal(f->store->ops->untag(f->store, "app", "1", &f->wait), 0);
	assert_true(has(f, "app", "one"));
	assert_true(has(f, "app", "two"));
}

static void damaged_manifest_is_an_error(void **state)
{
	struct fixture *f = *state;
	struct store_manifest manifest = {0};
	struct digest digest, other;
	char rel[128], str[DIGEST_STR_MAX];
	const struct store_ops *ops = f->store->ops;

	digest = push(f, "app", "1", "one");
	AUTO_FREE char *json = make_manifest("{}", "two", &other);
	snprintf(rel, sizeof(rel), "app/blobs/sha256/%s", digest_hex(&digest, str));
	write_file(path_of(f, rel), json);
	assert_int_equal(ops->get_manifest(f->store, "app", "1", &manifest, &f->wait), -EIO);
	assert_int_equal(ops->get_manifest(f->store, "app", digest_format(&digest, str), &manifest,
					   &f->wait),
			 -EIO);
	assert_int_equal(remove(path_of(f, rel)), 0);
	assert_int_equal(ops->get_manifest(f->store, "app", "1", &manifest, &f->wait), -EIO);
	assert_int_equal(ops->get_manifest(f->store, "app", str, &manifest, &f->wait), -ENOENT);
}

/* Nothing leads to a referrer: it has to be in index.json by itself. */
static void referrer_stays(void **state)
{
	struct fixture *f = *state;
	struct digest subject, digest, found;
	char subject_str[DIGEST_STR_MAX], str[DIGEST_STR_MAX];

	subject = push(f, "app", "1", "one");
	AUTO_FREE char *json = make_manifest("{}", "one", &digest);
	size_t len = strlen(json);
	json[len - 1] = '\0';
	AUTO_FREE char *referrer = format("%s,\"subject\":{\"mediaType\":\"" OCI_TYPE_MANIFEST
					  "\",\"digest\":\"%s\",\"size\":%zu}}",
					  json, digest_format(&subject, subject_str), len);
	digest_of(DIGEST_SHA256, referrer, strlen(referrer), &digest);
	assert_int_equal(put_manifest(f, "app", NULL, referrer), 0);
	assert_tags(f, "app", "1 ");
	age_blobs(f, "app");
	assert_int_equal(f->store->ops->untag(f->store, "app", "1", &f->wait), 0);
	assert_int_equal(
		f->store->ops->head(f->store, "app", digest_format(&digest, str), &found, &f->wait),
		0);
}

static void delete_takes_every_tag_of_the_digest(void **state)
{
	struct fixture *f = *state;
	struct digest one, found;
	char digest_str[DIGEST_STR_MAX];

	one = push(f, "app", "1", "one");
	push(f, "app", "1-again", "one");
	push(f, "app", "2", "two");
	assert_int_equal(f->store->ops->delete_manifest(f->store, "app", &one, &f->wait), 0);
	assert_tags(f, "app", "2 ");
	assert_false(has(f, "app", "one"));
	assert_true(has(f, "app", "two"));
	digest_format(&one, digest_str);
	assert_int_equal(f->store->ops->head(f->store, "app", digest_str, &found, &f->wait),
			 -ENOENT);
	assert_int_equal(f->store->ops->delete_manifest(f->store, "app", &one, &f->wait), -ENOENT);
}

static void child_of_an_index_is_found_and_kept(void **state)
{
	struct fixture *f = *state;
	struct store_manifest manifest = {0};
	struct digest child, digest;
	char child_str[DIGEST_STR_MAX];
	const struct store_ops *ops = f->store->ops;

	put_ok(f, "app", "{}");
	put_ok(f, "app", "arm");
	AUTO_FREE char *json = make_manifest("{}", "arm", &child);
	digest_format(&child, child_str);
	AUTO_FREE char *index = format("{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_INDEX
				       "\",\"manifests\":[{\"mediaType\":\"" OCI_TYPE_MANIFEST
				       "\",\"digest\":\"%s\",\"size\":%zu}]}",
				       child_str, strlen(json));
	assert_int_equal(put_manifest(f, "app", "multi", index), -EINVAL);
	assert_int_equal(put_manifest(f, "app", NULL, json), 0);
	assert_int_equal(put_manifest(f, "app", "multi", index), 0);
	assert_tags(f, "app", "multi ");
	AUTO_FREE char *text = NULL;
	size_t len;
	assert_int_equal(read_file(path_of(f, "app/index.json"), MIB, &text, &len), 0);
	assert_null(strstr(text, child_str));
	push(f, "app", "other", "x");
	age_blobs(f, "app");
	assert_int_equal(ops->untag(f->store, "app", "other", &f->wait), 0);
	assert_int_equal(ops->get_manifest(f->store, "app", child_str, &manifest, &f->wait), 0);
	assert_string_equal(manifest.bytes.data, json);
	store_manifest_release(&manifest);
	assert_int_equal(ops->get_manifest(f->store, "app", "multi", &manifest, &f->wait), 0);
	assert_string_equal(manifest.media_type, OCI_TYPE_INDEX);
	store_manifest_release(&manifest);
	assert_int_equal(ops->delete_manifest(f->store, "app", &child, &f->wait), -EOPNOTSUPP);
	assert_int_equal(ops->get_manifest(f->store, "app", child_str, &manifest, &f->wait), 0);
	store_manifest_release(&manifest);
	age_blobs(f, "app");
	assert_int_equal(ops->untag(f->store, "app", "multi", &f->wait), 0);
	assert_int_equal(ops->head(f->store, "app", child_str, &digest, &f->wait), -ENOENT);
	/* a layer is no manifest */
	put_ok(f, "app", "arm");
	digest_of(DIGEST_SHA256, "arm", 3, &digest);
	assert_int_equal(ops->get_manifest(f->store, "app", digest_format(&digest, child_str),
					   &manifest, &f->wait),
			 -ENOENT);
}

static void blob_is_mounted_from_another_repository(void **state)
{
	struct fixture *f = *state;
	char rel[128], hex[DIGEST_STR_MAX];
	struct digest digest;
	struct stat st;

	put_ok(f, "from", "shared");
	digest_of(DIGEST_SHA256, "shared", 6, &digest);
	struct store_put put = {.digest = &digest, .mount_from = "from"};
	assert_int_equal(f->store->ops->put_blob(f->store, "to", &put, &f->wait), 0);
	snprintf(rel, sizeof(rel), "to/blobs/sha256/%s", digest_hex(&digest, hex));
	assert_int_equal(stat(path_of(f, rel), &st), 0);
	assert_int_equal(st.st_nlink, 2);
	put.mount_from = "nowhere";
	assert_int_equal(f->store->ops->put_blob(f->store, "third", &put, &f->wait), -ENOENT);
	assert_int_equal(put_blob(f, "third", "shared", &digest, "nowhere"), 0);
	assert_true(has(f, "third", "shared"));
}

/* In its place, though it is there by its name. */
static void blob_of_another_size_is_replaced(void **state)
{
	struct fixture *f = *state;
	char rel[128], hex[DIGEST_STR_MAX];
	struct digest digest;

	put_ok(f, "from", "shared");
	put_ok(f, "to", "other");
	digest_of(DIGEST_SHA256, "shared", 6, &digest);
	snprintf(rel, sizeof(rel), "to/blobs/sha256/%s", digest_hex(&digest, hex));
	write_file(path_of(f, rel), "sha");
	struct store_put put = {.digest = &digest, .mount_from = "from"};
	assert_int_equal(f->store->ops->put_blob(f->store, "to", &put, &f->wait), 0);
	assert_true(has(f, "to", "shared"));
	assert_true(has(f, "from", "shared"));
	assert_int_equal(count_files(path_of(f, "to"), ".regfs-"), 0);
	assert_int_equal(unlink(path_of(f, rel)), 0);
	write_file(path_of(f, rel), "sha");
	assert_int_equal(put_blob(f, "to", "shared", &digest, NULL), 0);
	assert_true(has(f, "to", "shared"));
}

/* As skopeo leaves one: one platform of it alone is there. */
static void index_with_absent_children_gets_another_tag(void **state)
{
	struct fixture *f = *state;
	char text[DIGEST_STR_MAX];
	struct digest digest;
	const char *index = "{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_INDEX
			    "\",\"manifests\":[{\"mediaType\":\"" OCI_TYPE_MANIFEST
			    "\",\"digest\":\"sha256:"
			    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\","
			    "\"size\":7}]}";

	put_ok(f, "app", index);
	assert_int_equal(put_manifest(f, "app", "2", index), -EINVAL);
	digest_of(DIGEST_SHA256, index, strlen(index), &digest);
	AUTO_FREE char *entry = format(
		"{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"" OCI_TYPE_INDEX
		"\",\"digest\":\"%s\",\"size\":%zu,\"annotations\":"
		"{\"org.opencontainers.image.ref.name\":\"1\"}}]}",
		digest_format(&digest, text), strlen(index));
	push(f, "app", "0", "x");
	write_file(path_of(f, "app/index.json"), entry);
	assert_int_equal(put_manifest(f, "app", "2", index), 0);
	assert_tags(f, "app", "1 2 ");
}

static void damaged_index_is_an_error(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf names = BUF_INIT(KIB);
	struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
	struct wait hasty;

	push(f, "app", "1", "a");
	push(f, "fine", "1", "a");
	write_file(path_of(f, "app/index.json"), "{\"manifests\":[");
	/* It may be half written: who can wait looks again. */
	wait_init(&hasty, false);
	assert_int_equal(f->store->ops->list_tags(f->store, "app", join_name, &names, &hasty),
			 -EWOULDBLOCK);
	wait_release(&hasty);
	utimensat(AT_FDCWD, path_of(f, "app/index.json"), old, 0);
	assert_int_equal(f->store->ops->list_tags(f->store, "app", join_name, &names, &f->wait),
			 -EIO);
	AUTO_FREE char *json = make_manifest("{}", "a", &(struct digest){0});
	assert_int_equal(put_manifest(f, "app", "2", json), -EIO);
	assert_tags(f, "fine", "1 ");
}

static void generation_follows_index_json(void **state)
{
	struct fixture *f = *state;
	const struct store_ops *ops = f->store->ops;

	uint64_t none = ops->generation(f->store, "app");
	push(f, "app", "1", "a");
	uint64_t one = ops->generation(f->store, "app");
	assert_true(none != one);
	assert_true(one == ops->generation(f->store, "app"));
	push(f, "app", "2", "b");
	assert_true(one != ops->generation(f->store, "app"));
}

#define WRITERS	    6
#define TAGS_OF_ONE 5

struct writer {
	struct fixture *f;
	unsigned number;
	unsigned failed;
};

static void *writer_run(void *arg)
{
	struct writer *writer = arg;
	struct wait wait;
	struct digest digest;

	wait_init(&wait, true);
	AUTO_FREE char *json = make_manifest("{}", "shared", &digest);
	for (unsigned i = 0; i < TAGS_OF_ONE; i++) {
		char tag[32];
		snprintf(tag, sizeof(tag), "t%u-%u", writer->number, i);
		struct store *store = writer->f->store;
		if (store->ops->put_manifest(store, "app", tag, OCI_TYPE_MANIFEST, json,
					     strlen(json), &wait))
			writer->failed++;
	}
	wait_release(&wait);
	return NULL;
}

static int count_name(void *arg, const char *name)
{
	(void)name;
	++*(unsigned *)arg;
	return 0;
}

static void writers_at_once_lose_nothing(void **state)
{
	struct fixture *f = *state;
	struct writer writers[WRITERS];
	pthread_t threads[WRITERS];
	unsigned tags = 0;

	put_ok(f, "app", "{}");
	put_ok(f, "app", "shared");
	for (unsigned i = 0; i < WRITERS; i++) {
		writers[i] = (struct writer){.f = f, .number = i};
		assert_int_equal(pthread_create(&threads[i], NULL, writer_run, &writers[i]), 0);
	}
	for (unsigned i = 0; i < WRITERS; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(writers[i].failed, 0);
	}
	assert_int_equal(f->store->ops->list_tags(f->store, "app", count_name, &tags, &f->wait), 0);
	assert_int_equal(tags, WRITERS * TAGS_OF_ONE);
}

static void skopeo_reads_and_writes_beside_us(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *command = NULL;
	struct store_manifest manifest = {0};
	struct digest digest;

	if (system("skopeo --version >/dev/null 2>&1"))
		skip();
	/* ours, read by skopeo, and written by it under another name */
	static const char layer[] = "\0"; /* skopeo copies what it need not understand */
	static const char config[] = "{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":"
				     "{\"type\":\"layers\",\"diff_ids\":[]}}";
	put_ok(f, "team/app", config);
	put_ok(f, "team/app", layer);
	AUTO_FREE char *json = make_manifest(config, layer, &digest);
	assert_int_equal(put_manifest(f, "team/app", "1.0", json), 0);
	command = format("cd '%s' && skopeo inspect --raw oci:team/app:1.0 > raw.json &&"
			 " skopeo copy -q --preserve-digests --insecure-policy oci:team/app:1.0 "
			 "oci:team/app:2.0 &&"
			 " skopeo copy -q --preserve-digests --insecure-policy oci:team/app:1.0 "
			 "oci:other:latest",
			 f->root);
	assert_int_equal(system(command), 0);
	AUTO_FREE char *raw = NULL;
	size_t len;
	assert_int_equal(read_file(path_of(f, "raw.json"), MIB, &raw, &len), 0);
	assert_string_equal(raw, json);
	/* its work, read by us */
	assert_tags(f, "team/app", "1.0 2.0 ");
	assert_tags(f, "other", "latest ");
	assert_int_equal(
		f->store->ops->get_manifest(f->store, "other", "latest", &manifest, &f->wait), 0);
	assert_string_equal(manifest.bytes.data, json);
	store_manifest_release(&manifest);
	push(f, "other", "ours", "b");
	assert_tags(f, "other", "latest ours ");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(missing_root_is_empty),
		TEST(image_is_read_back),
		TEST(blob_is_read_from_any_offset),
		TEST(a_blob_that_is_not_there_is_damage),
		TEST(repositories_nest),
		TEST(link_out_of_the_root_is_no_repository),
		TEST(reserved_components_are_refused),
		TEST(wrong_digest_is_refused),
		TEST(cancelled_put_leaves_nothing),
		TEST(manifest_needs_its_blobs),
		TEST(foreign_fields_stay),
		TEST(untag_collects_what_nothing_names),
		TEST(asking_for_a_blob_keeps_it),
		TEST(untag_collects_young_blobs),
		TEST(nothing_is_collected_while_skopeo_writes),
		TEST(empty_repository_is_removed),
		TEST(nothing_is_collected_where_a_manifest_is_damaged),
		TEST(damaged_manifest_is_an_error),
		TEST(referrer_stays),
		TEST(delete_takes_every_tag_of_the_digest),
		TEST(child_of_an_index_is_found_and_kept),
		TEST(blob_is_mounted_from_another_repository),
		TEST(blob_of_another_size_is_replaced),
		TEST(index_with_absent_children_gets_another_tag),
		TEST(damaged_index_is_an_error),
		TEST(generation_follows_index_json),
		TEST(writers_at_once_lose_nothing),
		TEST(skopeo_reads_and_writes_beside_us),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
