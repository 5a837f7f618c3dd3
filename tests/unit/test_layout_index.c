/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changing index.json beside others who know no lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "../../src/layout_priv.h"

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define THEIRS                                                                                     \
	"{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"" OCI_TYPE_MANIFEST                  \
	"\",\"digest\":\"sha256:" HEX                                                              \
	"\",\"size\":7,\"annotations\":{\"org.opencontainers.image.ref.name\":\"theirs\"}}]}"

struct fixture {
	char root[128];
	struct store *store;
	struct layout_repo repo;
	struct wait wait;
	unsigned edits;	     /* so far */
	unsigned interrupts; /* so many of them are interrupted */
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const char *tmp = getenv("TMPDIR");

	snprintf(f->root, sizeof(f->root), "%s/regfs-index-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(f->root));
	assert_int_equal(layout_new(f->root, "local", &f->store), 0);
	wait_init(&f->wait, true);
	assert_int_equal(f->store->ops->make_repo(f->store, "app", &f->wait), 0);
	assert_int_equal(layout_repo_open(f->store, "app", &f->repo), 0);
	*state = f;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	layout_repo_cleanup(&f->repo);
	store_free(f->store);
	wait_release(&f->wait);
	nftw(f->root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

/* As skopeo writes: in place, all of it. Twice the same is still another file's worth. */
static void write_theirs(const struct fixture *f)
{
	int fd = openat(f->repo.fd, "index.json", O_WRONLY | O_TRUNC);
	char text[1024];

	snprintf(text, sizeof(text), "%s%*s", THEIRS, (int)f->edits, "");
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static int edit_ours(const void *arg, const struct layout_index *index, struct buf *ret)
{
	struct fixture *f = (struct fixture *)arg;
	struct oci_descriptor entry = {.media_type = (char *)OCI_TYPE_MANIFEST, .size = 1};

	digest_of(DIGEST_SHA256, "x", 1, &entry.digest);
	if (f->edits++ < f->interrupts)
		write_theirs(f);
	return oci_index_update(index->bytes.data, index->bytes.len, &entry, "ours", ret);
}

static int change(struct fixture *f, struct layout_change *ret)
{
	const struct layout_edit edit = {.edit = edit_ours, .arg = f};

	return layout_index_change(&f->repo, &edit, &f->wait, ret);
}

static int join_name(void *arg, const char *name)
{
	return buf_printf(arg, "%s ", name);
}

static void assert_tags(struct fixture *f, const char *expected)
{
	AUTO_BUF struct buf names = BUF_INIT(KIB);

	assert_int_equal(f->store->ops->list_tags(f->store, "app", join_name, &names, &f->wait), 0);
	assert_string_equal(names.data ? names.data : "", expected);
}

static void what_others_wrote_meanwhile_stays(void **state)
{
	struct fixture *f = *state;
	CLEANUP(layout_change_release) struct layout_change done = {0};

	f->interrupts = 3;
	assert_int_equal(change(f, &done), 0);
	assert_int_equal(f->edits, 4);
	assert_tags(f, "theirs ours ");
	assert_true(layout_index_is(&f->repo, &done.after.bytes));
	assert_non_null(layout_index_find(&done.before, "theirs"));
}

static void it_gives_up_in_the_end(void **state)
{
	struct fixture *f = *state;
	struct layout_change done = {0};

	f->interrupts = UINT_MAX;
	assert_int_equal(change(f, &done), -EBUSY);
	assert_null(done.after.bytes.data);
	assert_tags(f, "theirs ");
}

static void index_is_compared_as_a_whole(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf bytes = BUF_INIT(KIB);

	write_theirs(f);
	assert_int_equal(buf_puts(&bytes, THEIRS), 0);
	assert_true(layout_index_is(&f->repo, &bytes));
	assert_int_equal(buf_puts(&bytes, " "), 0);
	assert_false(layout_index_is(&f->repo, &bytes));
	bytes.len -= 2;
	assert_false(layout_index_is(&f->repo, &bytes));
	bytes.len++;
	bytes.data[5] ^= 1;
	assert_false(layout_index_is(&f->repo, &bytes));
	assert_int_equal(unlinkat(f->repo.fd, "index.json", 0), 0);
	assert_false(layout_index_is(&f->repo, &bytes));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(what_others_wrote_meanwhile_stays),
		TEST(it_gives_up_in_the_end),
		TEST(index_is_compared_as_a_whole),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
