/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_layout_sync: what a store of OCI layouts has confirmed outlives the power: each file and
 * each directory's entry of it was synced.
 */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <cmocka.h>

#include "regfs/layout.h"
#include "regfs/oci.h"

#define CONFIG	   "{}"
#define SYNCED_MAX 256

/* What was on the disk for good, by its path. */
static char *synced[SYNCED_MAX];
static size_t nsynced;
static char top[128];

static void note(const char *path, const char *name)
{
	assert_true(nsynced < SYNCED_MAX);
	synced[nsynced++] = format("%s/%s", path, name);
}

/* In the C library's place. */
int fsync(int fd)
{
	char link[64], path[512] = "";
	struct stat st;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	if (readlink(link, path, sizeof(path) - 1) > 0 && fstat(fd, &st) == 0 &&
	    S_ISDIR(st.st_mode)) {
		DIR *dir = opendir(path);
		struct dirent *entry;

		while (dir && (entry = readdir(dir)))
			note(path, entry->d_name);
		closedir(dir);
	}
	return (int)syscall(SYS_fsync, fd);
}

static int check_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag;
	/* a lock holds nothing */
	if (ftw->level == 0 || ends_with(path, ".lock"))
		return 0;
	for (size_t i = 0; i < nsynced; i++)
		if (!strcmp(synced[i], path))
			return 0;
	fail_msg("%s was not synced", path);
	return 1;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

static void put_blob(struct store *store, const char *repo, const char *data, struct wait *wait,
		     struct digest *ret)
{
	struct store_bytes bytes = {.data = data, .len = strlen(data)};
	const struct store_source source = {
		.read = store_bytes_read, .arg = &bytes, .size = bytes.len};
	const struct store_put put = {.digest = ret, .source = &source};

	digest_of(DIGEST_SHA256, data, strlen(data), ret);
	assert_int_equal(store->ops->put_blob(store, repo, &put, wait), 0);
}

static void what_is_confirmed_is_on_the_disk(void **state)
{
	struct store *store;
	struct digest digest;
	struct wait wait;
	char text[DIGEST_STR_MAX];

	(void)state;
	snprintf(top, sizeof(top), "%s/regfs-sync-XXXXXX",
		 getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(top));
	wait_init(&wait, true);
	AUTO_FREE char *root = format("%s/regfs/store", top);
	assert_int_equal(layout_new(root, "local", &store), 0);
	put_blob(store, "team/app", CONFIG, &wait, &digest);
	AUTO_FREE char *manifest = format("{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_MANIFEST
					  "\",\"config\":"
					  "{\"mediaType\":\"" OCI_TYPE_CONFIG
					  "\",\"digest\":\"%s\",\"size\":%zu},\"layers\":[]}",
					  digest_format(&digest, text), strlen(CONFIG));
	assert_int_equal(store->ops->put_manifest(store, "team/app", "1.5", NULL, manifest,
						  strlen(manifest), &wait),
			 0);
	nftw(top, check_one, 16, FTW_PHYS);
	store_free(store);
	wait_release(&wait);
	nftw(top, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	while (nsynced)
		free(synced[--nsynced]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_confirmed_is_on_the_disk),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
