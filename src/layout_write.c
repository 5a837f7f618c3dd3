/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing in one layout: blobs, manifests, index.json, new repositories.
 * Knows files that appear at once and whole. Must not know when something may go.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "layout_priv.h"
#include "regfs/log.h"

#define ROOT_MODE	0700
#define LOCK_POLL_MS	10
#define LOCK_TIMEOUT_MS 30000

static const char layout_version[] = "{\"imageLayoutVersion\":\"1.0.0\"}";
static const char empty_index[] = "{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_INDEX
				  "\",\"manifests\":[]}";

/* --- a file that is not there before it is whole --- */

/* Without a name as long as it is written, where that can be: who is killed leaves nothing behind.
 */
struct temporary {
	int dir_fd; /* borrowed */
	int fd;
	char name[LAYOUT_TMP_MAX]; /* "": it has none */
};

static void temporary_cleanup(struct temporary *tmp)
{
	fd_cleanup(&tmp->fd);
	if (*tmp->name)
		unlinkat(tmp->dir_fd, tmp->name, 0);
}
#define TEMPORARY_INIT                                                                             \
	{                                                                                          \
		.fd = -1                                                                           \
	}
#define AUTO_TEMPORARY CLEANUP(temporary_cleanup)

static int temporary_name(char out[static LAYOUT_TMP_MAX])
{
	uint64_t random;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return -EIO;
	snprintf(out, LAYOUT_TMP_MAX, LAYOUT_TMP_PREFIX "%016" PRIx64 LAYOUT_TMP_SUFFIX, random);
	return 0;
}

static int temporary_open(int dir_fd, struct temporary *ret)
{
	/* It gets its name by way of /proc. */
	bool has_proc = access("/proc/self/fd", X_OK) == 0;
	int fd = has_proc ? layout_open_in(dir_fd, ".", O_RDWR | O_TMPFILE) : -EOPNOTSUPP;
	char name[LAYOUT_TMP_MAX] = "";

	if (fd == -EOPNOTSUPP || fd == -EISDIR) {
		int err = temporary_name(name);
		if (err)
			return err;
		fd = layout_open_in(dir_fd, name, O_RDWR | O_CREAT | O_EXCL);
	}
	if (fd < 0)
		return fd;
	*ret = (struct temporary){.dir_fd = dir_fd, .fd = fd};
	memcpy(ret->name, name, sizeof(name));
	return 0;
}

/* Gives the file a name of its own, which is to be exchanged for the one that it is meant for. */
static int temporary_show(struct temporary *tmp)
{
	char path[64], name[LAYOUT_TMP_MAX];

	if (*tmp->name)
		return 0;
	int err = temporary_name(name);
	if (err)
		return err;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", tmp->fd);
	if (linkat(AT_FDCWD, path, tmp->dir_fd, name, AT_SYMLINK_FOLLOW) < 0)
		return -errno;
	memcpy(tmp->name, name, sizeof(name));
	return 0;
}

/* Gives the file its name in DIR_FD, synced with the directory. 0 or a negative errno. */
static int temporary_publish(struct temporary *tmp, int dir_fd, const char *name)
{
	if (fsync(tmp->fd) < 0)
		return -errno;
	int err = temporary_show(tmp);
	if (err)
		return err;
	if (renameat(tmp->dir_fd, tmp->name, dir_fd, name) < 0)
		return -errno;
	*tmp->name = '\0';
	return fsync(dir_fd) < 0 ? -errno : 0;
}

/* The two change places, so that what somebody wrote in the last moment is there to be seen, and
 * has its place back then. */
static int exchange_index(const struct layout_repo *repo, struct temporary *tmp,
			  const struct buf *before)
{
	static const char name[] = "index.json";

	int err = temporary_show(tmp);
	if (err)
		return err;
	if (renameat2(repo->fd, tmp->name, repo->fd, name, RENAME_EXCHANGE) < 0)
		return errno == EINVAL || errno == ENOSYS ? temporary_publish(tmp, repo->fd, name)
							  : -errno;
	if (layout_file_is(repo, tmp->name, before))
		return fsync(repo->fd) < 0 ? -errno : 0;
	if (renameat2(repo->fd, tmp->name, repo->fd, name, RENAME_EXCHANGE) < 0)
		return -errno;
	return -ESTALE;
}

int layout_replace_index(const struct layout_repo *repo, const struct buf *bytes,
			 const struct buf *before)
{
	AUTO_TEMPORARY struct temporary tmp = TEMPORARY_INIT;

	int err = temporary_open(repo->fd, &tmp);
	if (err)
		return layout_fail(repo, -err, "index.json");
	ssize_t put = pwrite_full(tmp.fd, bytes->data, bytes->len, 0);
	if (put < 0 || fsync(tmp.fd) < 0)
		return layout_fail(repo, put < 0 ? (int)-put : errno, "index.json");
	/* Syncing took a while, and others do not know our lock. */
	err = layout_index_is(repo, before) ? exchange_index(repo, &tmp, before) : -ESTALE;
	return err && err != -ESTALE ? layout_fail(repo, -err, "index.json") : err;
}

/* Makes the file NAME unless there is one by now: somebody else may be making a layout here. */
static int create_new(const struct layout_repo *repo, const char *name, const char *text)
{
	AUTO_TEMPORARY struct temporary tmp = TEMPORARY_INIT;
	size_t len = strlen(text);

	if (faccessat(repo->fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	int err = temporary_open(repo->fd, &tmp);
	if (err)
		return layout_fail(repo, -err, name);
	ssize_t put = pwrite_full(tmp.fd, text, len, 0);
	if (put < 0)
		return layout_fail(repo, (int)-put, name);
	if (fsync(tmp.fd) < 0)
		return layout_fail(repo, errno, name);
	err = temporary_show(&tmp);
	if (err)
		return layout_fail(repo, -err, name);
	if (linkat(repo->fd, tmp.name, repo->fd, name, 0) < 0 && errno != EEXIST)
		return layout_fail(repo, errno, name);
	return 0;
}

/* --- repositories --- */

/* For good: what comes into it is confirmed one day. */
static int make_dir(int dir_fd, const char *name)
{
	if (mkdirat(dir_fd, name, LAYOUT_DIR_MODE) < 0)
		return errno == EEXIST ? 0 : -errno;
	return fsync(dir_fd) < 0 ? -errno : 0;
}

/* Each component is made in the directory that was opened, not by its path: a link that is swapped
 * in between cannot lead the next one out of the root. */
static int make_path(int root_fd, const char *path)
{
	AUTO_FREE char *prefix = strdup(path);
	AUTO_CLOSE int parent = -1;

	if (!prefix)
		return -ENOMEM;
	for (char *at = prefix; at;) {
		char *slash = strchr(at, '/');
		if (slash)
			*slash = '\0';
		int err = make_dir(parent < 0 ? root_fd : parent, at);
		if (err)
			return err;
		fd_cleanup(&parent);
		parent = layout_open_below(root_fd, prefix, O_RDONLY | O_DIRECTORY);
		if (parent < 0)
			return parent;
		if (slash)
			*slash = '/';
		at = slash ? slash + 1 : NULL;
	}
	return 0;
}

/* Opens the repository's directory, and makes it first where there is none. */
static int open_or_make(struct store *store, const char *name, struct layout_repo *ret)
{
	const struct layout *layout = layout_of(store);
	struct layout_repo repo = {.layout = layout, .name = name, .fd = -1};
	AUTO_CLOSE int root = -1;

	int err = layout_repo_open(store, name, ret);
	if (err != -ENOENT)
		return err;
	err = make_dirs(layout->root, ROOT_MODE);
	if (err)
		return layout_fail(&repo, -err, layout->root);
	root = open(layout->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return layout_fail(&repo, errno, layout->root);
	err = make_path(root, name);
	/* To a reader what leads out of the root is absent, but not to a writer. */
	if (err == -EXDEV || err == -ELOOP)
		return layout_fail(&repo, EACCES, "a link in its path leaves the store");
	if (err)
		return layout_fail(&repo, -err, "making its directory");
	return layout_repo_open(store, name, ret);
}

int layout_lock(const struct layout_repo *repo, struct wait *wait)
{
	int64_t deadline = now_ms() + LOCK_TIMEOUT_MS;
	AUTO_CLOSE int fd = layout_open_in(repo->fd, LAYOUT_LOCK, O_RDWR | O_CREAT);

	if (fd < 0)
		return layout_fail(repo, -fd, LAYOUT_LOCK);
	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return layout_fail(repo, errno, LAYOUT_LOCK);
		if (now_ms() > deadline) {
			log_error("%s/%s: another process has held " LAYOUT_LOCK " for %d s",
				  repo->layout->store.name, repo->name, LOCK_TIMEOUT_MS / 1000);
			return -EBUSY;
		}
		int err = wait_until(wait, now_ms() + LOCK_POLL_MS);
		if (err)
			return err;
	}
	return steal_fd(&fd);
}

/* The two files that make the directory a layout. */
static int make_layout(const struct layout_repo *repo)
{
	int err = create_new(repo, "oci-layout", layout_version);
	if (!err)
		err = create_new(repo, "index.json", empty_index);
	if (!err && fsync(repo->fd) < 0)
		err = layout_fail(repo, errno, "its directory");
	return err;
}

int layout_make_repo(struct store *store, const char *name, struct wait *wait)
{
	AUTO_LAYOUT_REPO struct layout_repo repo = LAYOUT_REPO_INIT;

	if (!wait_may_block(wait))
		return -EWOULDBLOCK;
	int err = open_or_make(store, name, &repo);
	return err ? err : make_layout(&repo);
}

/* --- blobs --- */

/* blobs/ALGO, made where it is missing. A descriptor or a negative errno, logged. */
static int open_blob_dir(const struct layout_repo *repo, enum digest_algo algo)
{
	AUTO_CLOSE int blobs = -1;
	const char *name = digest_algo_name(algo);

	int err = make_dir(repo->fd, "blobs");
	if (err)
		return layout_fail(repo, -err, "blobs");
	blobs = layout_open_in(repo->fd, "blobs", O_RDONLY | O_DIRECTORY);
	if (blobs < 0)
		return layout_fail(repo, -blobs, "blobs");
	err = make_dir(blobs, name);
	if (err)
		return layout_fail(repo, -err, "blobs");
	int fd = layout_open_in(blobs, name, O_RDONLY | O_DIRECTORY);
	return fd < 0 ? layout_fail(repo, -fd, "blobs") : fd;
}

/* Copies the source into FD. -EIO, logged, where its digest is another. */
static int copy_hashed(const struct layout_repo *repo, const struct store_put *put, int fd,
		       struct wait *wait)
{
	AUTO_FREE char *chunk = malloc(LAYOUT_COPY_CHUNK);
	AUTO_HASHER struct hasher *hasher = hasher_new(put->digest->algo);
	char wanted[DIGEST_STR_MAX], found[DIGEST_STR_MAX];
	struct digest digest;
	uint64_t off = 0;

	if (!chunk || !hasher)
		return -ENOMEM;
	while (off < put->source->size) {
		size_t want = (size_t)MIN(put->source->size - off, LAYOUT_COPY_CHUNK);
		if (wait_cancelled(wait))
			return -EINTR;
		ssize_t got = store_source_read(put->source, off, chunk, want, wait);
		if (got < 0)
			return (int)got;
		if (got == 0)
			break;
		hasher_add(hasher, chunk, (size_t)got);
		ssize_t written = pwrite_full(fd, chunk, (size_t)got, (off_t)off);
		if (written < 0)
			return layout_fail(repo, (int)-written, "writing a blob");
		off += (uint64_t)got;
		if (put->progress)
			put->progress(put->progress_arg, off);
	}
	hasher_final(hasher, &digest);
	if (digest_equal(&digest, put->digest))
		return 0;
	log_error("%s/%s: a blob sent as %s has the digest %s", repo->layout->store.name,
		  repo->name, digest_format(put->digest, wanted), digest_format(&digest, found));
	return -EIO;
}

static int write_blob(const struct layout_repo *repo, const struct store_put *put,
		      struct wait *wait)
{
	AUTO_TEMPORARY struct temporary tmp = TEMPORARY_INIT;
	AUTO_CLOSE int dir = open_blob_dir(repo, put->digest->algo);
	char hex[DIGEST_STR_MAX];

	if (dir < 0)
		return dir;
	int err = temporary_open(repo->fd, &tmp);
	if (err)
		return layout_fail(repo, -err, "a new blob");
	err = copy_hashed(repo, put, tmp.fd, wait);
	if (err)
		return err;
	err = temporary_publish(&tmp, dir, digest_hex(put->digest, hex));
	return err ? layout_fail(repo, -err, "a new blob") : 0;
}

/* A second name for PATH below FROM_FD, in the place of a file that is not the blob. */
static int replace_by_link(const struct layout_repo *repo, int from_fd, const char *path,
			   int dir_fd, const char *hex)
{
	AUTO_TEMPORARY struct temporary tmp = {.dir_fd = repo->fd, .fd = -1};
	char name[LAYOUT_TMP_MAX];

	int err = temporary_name(name);
	if (err)
		return err;
	if (linkat(from_fd, path, repo->fd, name, 0) < 0)
		return -errno;
	memcpy(tmp.name, name, sizeof(name));
	if (renameat(repo->fd, name, dir_fd, hex) < 0)
		return -errno;
	*tmp.name = '\0';
	return 0;
}

/* The blob of SIZE bytes that FROM_FD has, under its name in DIR_FD. */
static int link_name(const struct layout_repo *repo, int from_fd, const struct digest *digest,
		     uint64_t size, int dir_fd)
{
	AUTO_CLOSE int there = -1;
	char path[LAYOUT_BLOB_MAX], hex[DIGEST_STR_MAX];
	uint64_t found;

	layout_blob_path(digest, path);
	if (linkat(from_fd, path, dir_fd, digest_hex(digest, hex), 0) == 0)
		return 0;
	if (errno != EEXIST)
		return -errno;
	if (layout_blob_open(repo, digest, &there, &found) == 0 && found == size)
		return 0;
	return replace_by_link(repo, from_fd, path, dir_fd, hex);
}

/* Gives REPO the blob that another repository has, without a copy. Quiet: where it cannot be, the
 * bytes are sent. */
static int link_blob(struct store *store, const struct layout_repo *repo,
		     const struct store_put *put)
{
	AUTO_LAYOUT_REPO struct layout_repo from = LAYOUT_REPO_INIT;
	AUTO_CLOSE int dir = -1;
	AUTO_CLOSE int blob = -1;
	uint64_t size;

	int err = layout_repo_open(store, put->mount_from, &from);
	if (!err)
		err = layout_blob_open(&from, put->digest, &blob, &size);
	if (err)
		return err;
	if (put->source && put->source->size != size)
		return -ENOENT;
	dir = open_blob_dir(repo, put->digest->algo);
	if (dir < 0)
		return dir;
	/* The age is the file's, in both repositories. */
	(void)!futimens(blob, NULL);
	err = link_name(repo, from.fd, put->digest, size, dir);
	if (err)
		return err;
	if (fsync(dir) < 0)
		return -errno;
	if (put->progress)
		put->progress(put->progress_arg, size);
	return 0;
}

int layout_put_blob(struct store *store, const char *name, const struct store_put *put,
		    struct wait *wait)
{
	AUTO_LAYOUT_REPO struct layout_repo repo = LAYOUT_REPO_INIT;

	if (!wait_may_block(wait))
		return -EWOULDBLOCK;
	int err = open_or_make(store, name, &repo);
	if (err)
		return err;
	if (put->mount_from && link_blob(store, &repo, put) == 0)
		return 0;
	return put->source ? write_blob(&repo, put, wait) : -ENOENT;
}

/* --- manifests --- */

static int check_blob(const struct layout_repo *repo, const struct oci_descriptor *descriptor)
{
	AUTO_CLOSE int fd = -1;
	char digest[DIGEST_STR_MAX];
	uint64_t size = 0;

	if (descriptor->nurls)
		return 0; /* a foreign layer is elsewhere */
	int err = layout_blob_open(repo, &descriptor->digest, &fd, &size);
	if (err && err != -ENOENT)
		return err;
	if (!err && size == (uint64_t)descriptor->size)
		return 0;
	log_error("%s/%s: the manifest names the blob %s of %" PRId64 " bytes, which is %s",
		  repo->layout->store.name, repo->name, digest_format(&descriptor->digest, digest),
		  descriptor->size, err ? "not there" : "there with another size");
	return -EINVAL;
}

static int check_all(const struct layout_repo *repo, const struct oci_descriptor *descriptors,
		     size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int err = check_blob(repo, &descriptors[i]);
		if (err)
			return err;
	}
	return 0;
}

/* Whether index.json names the very manifest already: then another name for it makes nothing worse,
 * where parts are absent (skopeo copies one platform of an index alone). */
static bool is_named(const struct layout_repo *repo, const struct digest *digest, struct wait *wait)
{
	AUTO_LAYOUT_INDEX struct layout_index index = {0};

	if (layout_index_read(repo, wait, &index) < 0)
		return false;
	for (size_t i = 0; i < index.parsed.nchildren; i++) {
		if (digest_equal(&index.parsed.children[i].digest, digest))
			return true;
	}
	return false;
}

/* What the manifest names has to be there before its own name is. */
static int check_parts(const struct layout_repo *repo, const struct oci_manifest *manifest)
{
	if (manifest->kind == OCI_KIND_INDEX)
		return check_all(repo, manifest->children, manifest->nchildren);
	int err = check_blob(repo, &manifest->config);
	return err ? err : check_all(repo, manifest->layers, manifest->nlayers);
}

struct entering {
	const struct oci_descriptor *entry;
	const char *tag;
};

static int edit_enter(const void *arg, const struct layout_index *index, struct buf *ret)
{
	const struct entering *entering = arg;

	return oci_index_update(index->bytes.data, index->bytes.len, entering->entry, entering->tag,
				ret);
}

/* Enters the manifest into index.json. The lock is held. */
static int enter_index(const struct layout_repo *repo, const struct oci_descriptor *entry,
		       const char *tag, struct wait *wait)
{
	const struct entering entering = {.entry = entry, .tag = tag};
	const struct layout_edit edit = {.edit = edit_enter, .arg = &entering};
	CLEANUP(layout_change_release) struct layout_change change = {0};

	return layout_index_change(repo, &edit, wait, &change);
}

struct document {
	const char *tag;
	const void *bytes;
	size_t len;
	struct digest digest;
	struct oci_manifest manifest;
};

static void document_cleanup(struct document *document)
{
	oci_manifest_release(&document->manifest);
}

/* The lock is held: so the blobs that are checked stay until index.json leads to them. */
static int put_locked(const struct layout_repo *repo, const struct document *document,
		      struct wait *wait)
{
	struct store_bytes bytes = {.data = document->bytes, .len = document->len};
	struct store_source source = {
		.read = store_bytes_read, .arg = &bytes, .size = document->len};
	struct store_put put = {.digest = &document->digest, .source = &source};
	const struct oci_descriptor entry = {
		.media_type = document->manifest.media_type,
		.digest = document->digest,
		.size = (int64_t)document->len,
	};

	int err = make_layout(repo);
	bool again = document->manifest.kind == OCI_KIND_INDEX &&
		     is_named(repo, &document->digest, wait);
	if (!err && !again)
		err = check_parts(repo, &document->manifest);
	if (!err)
		err = write_blob(repo, &put, wait);
	/* By digest alone: it is there, and stays once an index that is tagged leads to it. Only
	 * what is about another manifest will never be led to. */
	if (err || (!document->tag && !document->manifest.subject))
		return err;
	return enter_index(repo, &entry, document->tag, wait);
}

int layout_put_manifest(struct store *store, const char *name, const char *tag,
			const char *media_type, const void *bytes, size_t len, struct wait *wait)
{
	AUTO_LAYOUT_REPO struct layout_repo repo = LAYOUT_REPO_INIT;
	CLEANUP(document_cleanup)
	struct document document = {.tag = tag, .bytes = bytes, .len = len};
	struct digest wanted = {.algo = DIGEST_SHA256};
	AUTO_CLOSE int lock = -1;
	const char *why = "";

	if (!wait_may_block(wait))
		return -EWOULDBLOCK;
	int err = oci_manifest_parse(bytes, len, media_type, &document.manifest, &why);
	if (err == -EINVAL || err == -EOPNOTSUPP)
		log_error("%s/%s: the manifest cannot be used: %s", store->name, name, why);
	if (err)
		return err;
	if (tag && digest_parse(tag, &wanted) == 0)
		document.tag = NULL;
	digest_of(wanted.algo, bytes, len, &document.digest);
	err = open_or_make(store, name, &repo);
	if (err)
		return err;
	lock = layout_lock(&repo, wait);
	return lock < 0 ? lock : put_locked(&repo, &document, wait);
}
