/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_layout_crash: a store of OCI layouts that is cut off: what it has confirmed was synced, each
 * file and each directory's entry of it; and who is killed leaves nothing behind.
 */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

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

static void make_top(void)
{
	snprintf(top, sizeof(top), "%s/regfs-sync-XXXXXX",
		 getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(top));
}

static void what_is_confirmed_is_on_the_disk(void **state)
{
	struct store *store;
	struct digest digest;
	struct wait wait;
	char text[DIGEST_STR_MAX];

	(void)state;
	make_top();
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

/* Has the middle of a blob written, says so, and gives no more. */
static ssize_t read_half(void *arg, uint64_t off, void *buf, size_t cap)
{
	const int *told = arg;

	memset(buf, 'x', cap);
	if (off == 0)
		return (ssize_t)cap;
	(void)!write(*told, "", 1);
	for (;;)
		pause();
}

static void put_half(int told)
{
	const struct store_source source = {.read = read_half, .arg = &told, .size = 8 * MIB};
	const struct digest digest = {.algo = DIGEST_SHA256};
	const struct store_put put = {.digest = &digest, .source = &source};
	struct store *store;
	struct wait wait;

	wait_init(&wait, true);
	if (layout_new(top, "local", &store) == 0)
		store->ops->put_blob(store, "app", &put, &wait);
	_exit(1);
}

static int expect_dir(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)flag, (void)ftw;
	if (!S_ISDIR(st->st_mode))
		fail_msg("%s is left", path);
	return 0;
}

static void who_is_killed_leaves_nothing(void **state)
{
	int ends[2];
	char told;

	(void)state;
	make_top();
	assert_int_equal(pipe(ends), 0);
	pid_t child = fork();
	if (child == 0)
		put_half(ends[1]);
	assert_int_equal(read(ends[0], &told, 1), 1);
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, NULL, 0), child);
	close(ends[0]);
	close(ends[1]);
	nftw(top, expect_dir, 16, FTW_PHYS);
	nftw(top, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_confirmed_is_on_the_disk),
		cmocka_unit_test(who_is_killed_leaves_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
