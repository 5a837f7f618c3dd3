/* SPDX-License-Identifier: Apache-2.0 */
/*
 * creds_store: login and logout: files rewritten whole, helpers told.
 * Knows who else writes there. Must not know how credentials are found (creds.c).
 *
 * docker and podman write a new file beside the old one and rename it, without a lock; so do we,
 * and hold a lock on the directory against other logins of regfs.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <sys/file.h>

#include "creds_priv.h"
#include "regfs/log.h"

#define LOCK_TIMEOUT_MS 10000
#define LOCK_PAUSE_MS	20

static int complain(const char *path, const char *what, int err)
{
	log_error("credentials file %s: %s: %s", path, what, strerrordesc_np(-err));
	return err;
}

/* --- one file --- */

/* A file under change. */
struct revision {
	char *path;  /* of the file itself, where the name is a symlink */
	char *fresh; /* beside it */
	int dir;     /* locked */
	struct creds_text text;
};

static void revision_release(struct revision *revision)
{
	free(revision->path);
	free(revision->fresh);
	creds_text_release(&revision->text);
	if (revision->dir >= 0)
		close(revision->dir); /* and the lock goes */
}

static int lock_dir(const char *dir, struct wait *wait, int *ret)
{
	AUTO_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int64_t deadline_ms = now_ms() + LOCK_TIMEOUT_MS;

	if (fd < 0)
		return -errno;
	while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
		int err;

		/* a file system without locks */
		if (errno != EWOULDBLOCK)
			break;
		if (now_ms() >= deadline_ms)
			return -ETIMEDOUT;
		err = wait_until(wait, now_ms() + LOCK_PAUSE_MS);
		if (err)
			return err;
	}
	*ret = steal_fd(&fd);
	return 0;
}

/* Locks PATH's directory, made where it is missing, and reads the file. */
static int revision_begin(const char *path, struct wait *wait, struct revision *ret)
{
	AUTO_FREE char *dir = NULL;
	const char *why;
	int err;

	ret->path = realpath(path, NULL);
	if (!ret->path && !(ret->path = strdup(path)))
		return -ENOMEM;
	dir = strdup(ret->path);
	ret->fresh = format("%s.%d.new", ret->path, getpid());
	if (!dir || !ret->fresh)
		return -ENOMEM;
	err = make_dirs(dirname(dir), 0700);
	err = err ? err : lock_dir(dir, wait, &ret->dir);
	if (err)
		return complain(path, "its directory", err);
	err = creds_text_read(ret->path, &ret->text, &why);
	if (err && err != -ENOENT) {
		log_error("credentials file %s: %s", path, why ? why : "out of memory");
		return err;
	}
	return 0;
}

static int write_all(int fd, const struct buf *text)
{
	ssize_t n = pwrite_full(fd, text->data, text->len, 0);

	if (n < 0)
		return (int)n;
	return fsync(fd) != 0 ? -errno : 0;
}

/* Puts TEXT in the file's place, for its owner only. */
static int revision_commit(const struct revision *revision, const struct buf *text)
{
	AUTO_CLOSE int fd = -1;
	int err;

	(void)unlink(revision->fresh); /* of a process that had our number */
	fd = open(revision->fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return complain(revision->path, "beside it", -errno);
	/* root may have come by sudo: the file stays its owner's */
	if (revision->text.data && geteuid() == 0 &&
	    fchown(fd, revision->text.st.st_uid, revision->text.st.st_gid) != 0)
		err = -errno;
	else
		err = write_all(fd, text);
	if (!err && rename(revision->fresh, revision->path) != 0)
		err = -errno;
	if (err) {
		(void)unlink(revision->fresh);
		return complain(revision->path, "it cannot be written", err);
	}
	(void)fsync(revision->dir);
	return 0;
}

/* Sets HOST's entry in the file PATH to ENTRY, or removes it where that is NULL. -ENOENT: there was
 * none to remove. */
static int rewrite(const char *path, const char *host, const struct authfile_entry *entry,
		   struct wait *wait)
{
	CLEANUP(revision_release) struct revision revision = {.dir = -1};
	AUTO_SECRET_BUF struct buf text = BUF_INIT(8 * AUTHFILE_MAX);
	int err = revision_begin(path, wait, &revision);
	const char *old = revision.text.data;

	if (err)
		return err;
	if (!entry && !old)
		return -ENOENT;
	err = entry ? authfile_set(old, revision.text.len, host, entry, &text)
		    : authfile_unset(old, revision.text.len, host, &text);
	if (err == -EINVAL)
		log_error("credentials file %s: it is not what docker or podman write; it is left "
			  "as it is",
			  path);
	return err ? err : revision_commit(&revision, &text);
}

/* --- helpers --- */

static int tell_helper(const struct creds *creds, const char *helper, const char *verb,
		       const char *input)
{
	const struct creds_call call = {
		.helper = helper,
		.verb = verb,
		.input = input,
		.timeout_ms = creds->helper_timeout_ms,
		.stop_fd = creds->stop_fd,
	};
	AUTO_SECRET_BUF struct buf output = BUF_INIT(CREDS_OUTPUT_MAX);

	return creds_helper_run(&call, &output);
}

static int store_by_helper(const struct creds *creds, const struct authfile_choice *choice,
			   const struct authfile_entry *entry)
{
	AUTO_SECRET_BUF struct buf input = BUF_INIT(CREDS_OUTPUT_MAX);
	int err = authfile_helper_write(choice->helper_key, entry, &input);

	return err ? err : tell_helper(creds, choice->helper, "store", input.data);
}

/* --- login --- */

/* The file whose entry for HOST would be found first; else the shared one. */
static int find_target(struct creds *creds, const char *host, struct creds_file **ret,
		       struct authfile *ret_content)
{
	struct creds_file *shared = &creds->files[creds->shared];
	int err;

	for (size_t i = 0; i < creds->nfiles; i++) {
		struct creds_file *file = &creds->files[i];
		CLEANUP(authfile_release) struct authfile content = {0};

		err = creds_load(creds, file, &content);
		if (err && err != -ENOENT)
			return err;
		if (file->form == AUTHFILE_LEGACY || !authfile_names(&content, host))
			continue;
		*ret = file;
		*ret_content = content;
		content = (struct authfile){0};
		return 0;
	}
	*ret = shared;
	err = creds_load(creds, shared, ret_content);
	return err == -ENOENT ? 0 : err;
}

int creds_store(struct creds *creds, const char *host, const struct auth_credential *credential,
		struct wait *wait, char **ret_where)
{
	CLEANUP(authfile_release) struct authfile content = {0};
	const struct authfile_entry full = {
		.user = credential->user,
		.password = credential->password,
	};
	const struct authfile_entry empty = {0};
	struct authfile_choice choice;
	struct creds_file *file;
	char *where;
	int err = find_target(creds, host, &file, &content);

	if (err)
		return err;
	authfile_choose(&content, host, NULL, &choice);
	if (choice.helper) {
		where = format("docker-credential-%s, as %s says", choice.helper, file->path);
		err = store_by_helper(creds, &choice, &full);
		/* docker's way to remember what a helper keeps */
		err = err ? err : rewrite(file->path, host, &empty, wait);
	} else {
		where = strdup(file->path);
		err = rewrite(file->path, host, &full, wait);
	}
	if (err || !where) {
		free(where);
		return err ? err : -ENOMEM;
	}
	*ret_where = where;
	return 0;
}

/* --- logout --- */

static int erase_from(struct creds *creds, struct creds_file *file, const char *host,
		      creds_where_fn *fn, void *arg, struct wait *wait)
{
	CLEANUP(authfile_release) struct authfile content = {0};
	struct authfile_choice choice;
	int helped = -ENOENT, err = creds_load(creds, file, &content);

	if (err)
		return err;
	authfile_choose(&content, host, NULL, &choice);
	if (choice.helper && authfile_names(&content, host))
		helped = tell_helper(creds, choice.helper, "erase", choice.helper_key);
	if (helped && helped != -ENOENT)
		return helped;
	if (file->form == AUTHFILE_LEGACY && authfile_names(&content, host)) {
		log_error("credentials file %s: its form is old: remove the entry by hand",
			  file->path);
		return -EACCES;
	}
	err = rewrite(file->path, host, NULL, wait);
	if (err && err != -ENOENT)
		return err;
	if (err && helped)
		return -ENOENT;
	fn(arg, file->path);
	return 0;
}

int creds_erase(struct creds *creds, const char *host, creds_where_fn *fn, void *arg,
		struct wait *wait)
{
	bool found = false;
	int failure = 0;

	for (size_t i = 0; i < creds->nfiles; i++) {
		int err = erase_from(creds, &creds->files[i], host, fn, arg, wait);

		found |= err == 0;
		if (err && err != -ENOENT)
			failure = err;
	}
	if (failure)
		return failure;
	return found ? 0 : -ENOENT;
}
