/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading in one layout: index.json, blobs, manifests.
 * Knows files. Must not know which repositories there are, and changes nothing on disk but a blob's
 * time.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "layout_priv.h"
#include "regfs/log.h"
#include "regfs/ref.h"

/* Others write index.json and manifests in place (skopeo): what is not as it should be may only be
 * half there. */
#define TRIES	     11 /* half a second: a busy machine takes its time between two calls */
#define RETRY_MS     50
#define FRESH_S	     5
#define KEEP_AGAIN_S 60

/* --- index.json --- */

void layout_index_release(struct layout_index *index)
{
	buf_release(&index->bytes);
	oci_manifest_release(&index->parsed);
}

static int read_bytes(int fd, uint64_t size, struct buf *ret)
{
	int err = buf_reserve(ret, size + 1);
	if (err)
		return err;
	ssize_t got = pread_full(fd, ret->data, size, 0);
	if (got < 0)
		return (int)got;
	ret->len = (size_t)got;
	ret->data[ret->len] = '\0';
	return 0;
}

/* -EINVAL with *RET_WHY: not understood. *RET_FRESH: written a moment ago. */
static int index_read_once(const struct layout_repo *repo, struct layout_index *ret,
			   const char **ret_why, bool *ret_fresh)
{
	struct stat st;
	AUTO_CLOSE int fd = layout_open_in(repo->fd, "index.json", O_RDONLY | O_NONBLOCK);

	if (fd < 0)
		return fd == -ENOENT ? -ENOENT : layout_fail(repo, -fd, "index.json");
	if (fstat(fd, &st) < 0)
		return layout_fail(repo, errno, "index.json");
	*ret_fresh = wall_ms() / 1000 - st.st_mtim.tv_sec < FRESH_S;
	*ret_why = "it is not a file of at most 4 MiB";
	if (!S_ISREG(st.st_mode) || st.st_size > OCI_MANIFEST_MAX)
		return -EINVAL;
	int err = read_bytes(fd, (uint64_t)st.st_size, &ret->bytes);
	if (err)
		return err == -ENOMEM ? err : layout_fail(repo, -err, "index.json");
	err = oci_manifest_parse(ret->bytes.data, ret->bytes.len, OCI_TYPE_INDEX, &ret->parsed,
				 ret_why);
	if (!err && ret->parsed.kind != OCI_KIND_INDEX) {
		*ret_why = "it is not an index";
		return -EINVAL;
	}
	return err;
}

int layout_index_read(const struct layout_repo *repo, struct wait *wait, struct layout_index *ret)
{
	const char *why = "";
	bool fresh = false;

	if (!layout_is_one(repo->fd))
		return -ENOENT;
	for (unsigned tries = 1;; tries++) {
		AUTO_LAYOUT_INDEX struct layout_index index = {
			.bytes = BUF_INIT(OCI_MANIFEST_MAX + 1)};
		int err = index_read_once(repo, &index, &why, &fresh);
		if (!err) {
			*ret = index;
			index = (struct layout_index){0};
			return 0;
		}
		if (err != -EINVAL && err != -EOPNOTSUPP)
			return err;
		if (!fresh || tries == TRIES)
			break;
		err = wait_until(wait, now_ms() + RETRY_MS);
		if (err)
			return err;
	}
	log_error("%s/%s: index.json cannot be used: %s", repo->layout->store.name, repo->name,
		  why);
	return -EIO;
}

const char *layout_entry_tag(const struct oci_descriptor *entry)
{
	const char *tag = oci_annotation(entry->annotations, entry->nannotations, LAYOUT_REF_NAME);
	return tag && ref_tag_valid(tag) ? tag : NULL;
}

const struct oci_descriptor *layout_index_find(const struct layout_index *index, const char *tag)
{
	for (size_t i = 0; i < index->parsed.nchildren; i++) {
		const char *name = layout_entry_tag(&index->parsed.children[i]);
		if (name && !strcmp(name, tag))
			return &index->parsed.children[i];
	}
	return NULL;
}

/* --- blobs --- */

const char *layout_blob_path(const struct digest *digest, char out[static LAYOUT_BLOB_MAX])
{
	char hex[DIGEST_STR_MAX];

	snprintf(out, LAYOUT_BLOB_MAX, "blobs/%s/%s", digest_algo_name(digest->algo),
		 digest_hex(digest, hex));
	return out;
}

int layout_blob_open(const struct layout_repo *repo, const struct digest *digest, int *ret_fd,
		     uint64_t *ret_size)
{
	char path[LAYOUT_BLOB_MAX];
	struct stat st;
	/* O_NONBLOCK: a fifo in a blob's place must not hold us. */
	AUTO_CLOSE int fd = layout_open_in(repo->fd, layout_blob_path(digest, path),
					   O_RDONLY | O_NONBLOCK | O_NOFOLLOW);

	if (fd < 0)
		return layout_absent(-fd) ? -ENOENT : layout_fail(repo, -fd, path);
	if (fstat(fd, &st) < 0)
		return layout_fail(repo, errno, path);
	if (!S_ISREG(st.st_mode))
		return -ENOENT;
	*ret_size = (uint64_t)st.st_size;
	*ret_fd = steal_fd(&fd);
	return 0;
}

/* Who asks for a blob may be about to name it: the collector is to keep it so long. */
static void keep(int fd)
{
	int64_t until_s = wall_ms() / 1000 + LAYOUT_COLLECT_AGE_S;
	const struct timespec times[] = {{.tv_sec = until_s}, {.tv_nsec = UTIME_OMIT}};
	struct stat st;

	if (fstat(fd, &st) == 0 &&
	    (st.st_atim.tv_sec > until_s || st.st_atim.tv_sec < until_s - KEEP_AGAIN_S))
		(void)!futimens(fd, times); /* on a read-only store nothing is collected either */
}

int layout_has_blob(struct store *store, const char *name, const struct digest *digest,
		    uint64_t *ret_size, struct wait *wait)
{
	AUTO_LAYOUT_REPO struct layout_repo repo = LAYOUT_REPO_INIT;
	AUTO_CLOSE int fd = -1;

	(void)wait;
	int err = layout_repo_open(store, name, &repo);
	if (!err)
		err = layout_blob_open(&repo, digest, &fd, ret_size);
	if (!err)
		keep(fd);
	return err;
}

struct blob_stream {
	struct store_stream stream;
	int fd;
	uint64_t off, end;
	char *label; /* for the log */
};

static ssize_t blob_stream_read(struct store_stream *base, void *buf, size_t cap, struct wait *wait)
{
	struct blob_stream *stream = CONTAINER_OF(base, struct blob_stream, stream);
	uint64_t left = stream->end - stream->off;

	if (wait_cancelled(wait))
		return -EINTR;
	ssize_t got = pread_full(stream->fd, buf, MIN(left, cap), (off_t)stream->off);
	if (got < 0) {
		errno = (int)-got;
		log_error("%s: cannot be read: %m", stream->label);
		return layout_errno((int)-got);
	}
	stream->off += (uint64_t)got;
	return got;
}

static void blob_stream_close(struct store_stream *base)
{
	struct blob_stream *stream = CONTAINER_OF(base, struct blob_stream, stream);

	fd_cleanup(&stream->fd);
	free(stream->label);
	free(stream);
}

/* Who reads a blob has its digest from this store, as a rule from a manifest. */
static int missing(const struct store *store, const char *name, const struct digest *digest)
{
	char digest_str[DIGEST_STR_MAX];

	log_warn("%s/%s: the store lacks a blob that it named, %s (the image has to be pushed "
		 "again)",
		 store->name, name, digest_format(digest, digest_str));
	return -EIO;
}

int layout_open_blob(struct store *store, const char *name, const struct digest *digest,
		     uint64_t off, uint64_t len, struct store_stream **ret, struct wait *wait)
{
	AUTO_LAYOUT_REPO struct layout_repo repo = LAYOUT_REPO_INIT;
	AUTO_CLOSE int fd = -1;
	AUTO_FREE struct blob_stream *stream = NULL;
	char digest_str[DIGEST_STR_MAX];
	uint64_t size;

	(void)wait;
	int err = layout_repo_open(store, name, &repo);
	if (!err)
		err = layout_blob_open(&repo, digest, &fd, &size);
	if (err == -ENOENT)
		return missing(store, name, digest);
	if (err)
		return err;
	stream = calloc(1, sizeof(*stream));
	if (!stream)
		return -ENOMEM;
	stream->label = format("%s/%s@%s", store->name, name, digest_format(digest, digest_str));
	if (!stream->label)
		return -ENOMEM;
	stream->stream.read = blob_stream_read;
	stream->stream.close = blob_stream_close;
	stream->off = MIN(off, size);
	stream->end = stream->off + MIN(len, size - stream->off);
	stream->fd = steal_fd(&fd);
	*ret = &STEAL(stream)->stream;
	return 0;
}

/* --- manifests --- */

/* -ESTALE, quietly: it has another digest (*RET_FOUND). *RET_FRESH: it was written a moment ago. */
static int document_read_once(const struct layout_repo *repo, const struct digest *digest,
			      struct buf *ret, struct digest *ret_found, bool *ret_fresh)
{
	AUTO_CLOSE int fd = -1;
	char path[LAYOUT_BLOB_MAX];
	struct stat st;
	uint64_t size;

	int err = layout_blob_open(repo, digest, &fd, &size);
	if (err)
		return err;
	layout_blob_path(digest, path);
	if (size > OCI_MANIFEST_MAX)
		return layout_fail(repo, EFBIG, path);
	err = read_bytes(fd, size, ret);
	if (err)
		return err == -ENOMEM ? err : layout_fail(repo, -err, path);
	*ret_fresh = fstat(fd, &st) == 0 && wall_ms() / 1000 - st.st_mtim.tv_sec < FRESH_S;
	digest_of(digest->algo, ret->data, ret->len, ret_found);
	return digest_equal(digest, ret_found) ? 0 : -ESTALE;
}

int layout_document_read(const struct layout_repo *repo, const struct digest *digest,
			 struct wait *wait, struct buf *ret)
{
	char path[LAYOUT_BLOB_MAX], found_str[DIGEST_STR_MAX];
	struct digest found;
	bool fresh = false;

	for (unsigned tries = 1;; tries++) {
		AUTO_BUF struct buf bytes = BUF_INIT(OCI_MANIFEST_MAX + 1);
		int err = document_read_once(repo, digest, &bytes, &found, &fresh);
		if (!err) {
			*ret = bytes;
			bytes = (struct buf)BUF_INIT(0);
			return 0;
		}
		if (err != -ESTALE)
			return err;
		if (!fresh || tries == TRIES)
			break;
		err = wait_until(wait, now_ms() + RETRY_MS);
		if (err)
			return err;
	}
	log_error("%s/%s: %s has the digest %s", repo->layout->store.name, repo->name,
		  layout_blob_path(digest, path), digest_format(&found, found_str));
	return -EIO;
}

/* What TAG_OR_DIGEST names, and whether index.json says so (and not only the caller). */
static int find_digest(const struct layout_repo *repo, const char *tag_or_digest, struct wait *wait,
		       struct digest *ret, bool *ret_named)
{
	AUTO_LAYOUT_INDEX struct layout_index index = {0};

	if (digest_parse(tag_or_digest, ret) == 0) {
		*ret_named = false;
		return 0;
	}
	int err = layout_index_read(repo, wait, &index);
	if (err)
		return err;
	const struct oci_descriptor *entry = layout_index_find(&index, tag_or_digest);
	if (!entry)
		return -ENOENT;
	*ret = entry->digest;
	*ret_named = true;
	return 0;
}

/* A digest may name any blob; a manifest is what can be read as one. Its type is its own: only
 * OCI documents may leave it out. */
static int document_type(const struct layout_repo *repo, const struct buf *bytes, bool named,
			 char **ret)
{
	struct oci_manifest manifest = {0};
	const char *why = "";

	int err = oci_manifest_parse(bytes->data, bytes->len, NULL, &manifest, &why);
	if (err == -ENOMEM)
		return err;
	if (err) {
		if (!named)
			return -ENOENT;
		log_error("%s/%s: the manifest cannot be used: %s", repo->layout->store.name,
			  repo->name, why);
		return err == -EOPNOTSUPP ? err : -EIO;
	}
	const char *type = manifest.media_type;
	if (!type || !*type)
		type = manifest.kind == OCI_KIND_INDEX ? OCI_TYPE_INDEX : OCI_TYPE_MANIFEST;
	*ret = strdup(type);
	oci_manifest_release(&manifest);
	return *ret ? 0 : -ENOMEM;
}

int layout_get_manifest(struct store *store, const char *name, const char *tag_or_digest,
			struct store_manifest *ret, struct wait *wait)
{
	AUTO_LAYOUT_REPO struct layout_repo repo = LAYOUT_REPO_INIT;
	AUTO_BUF struct buf bytes = BUF_INIT(0);
	AUTO_FREE char *media_type = NULL;
	struct digest digest;
	bool named;

	int err = layout_repo_open(store, name, &repo);
	if (!err)
		err = find_digest(&repo, tag_or_digest, wait, &digest, &named);
	if (err)
		return err;
	err = layout_document_read(&repo, &digest, wait, &bytes);
	if (err == -ENOENT && named) {
		log_error("%s/%s: index.json names %s, but its blob is missing", store->name, name,
			  tag_or_digest);
		return -EIO;
	}
	if (!err)
		err = document_type(&repo, &bytes, named, &media_type);
	if (err)
		return err;
	*ret = (struct store_manifest){
		.digest = digest, .media_type = STEAL(media_type), .bytes = bytes};
	bytes = (struct buf)BUF_INIT(0);
	return 0;
}

int layout_head(struct store *store, const char *name, const char *tag_or_digest,
		struct digest *ret, struct wait *wait)
{
	AUTO_LAYOUT_REPO struct layout_repo repo = LAYOUT_REPO_INIT;
	AUTO_CLOSE int fd = -1;
	struct digest digest;
	uint64_t size;
	bool named;

	int err = layout_repo_open(store, name, &repo);
	if (!err)
		err = find_digest(&repo, tag_or_digest, wait, &digest, &named);
	if (!err && !named)
		err = layout_blob_open(&repo, &digest, &fd, &size);
	if (!err)
		*ret = digest;
	return err;
}
