/* SPDX-License-Identifier: Apache-2.0 */
/*
 * push_copy: an image that a store has gets another name in it. Within a repository that is its
 * manifest under another tag; between two of them its blobs are mounted first, and its children
 * put. Knows manifests. Must not know what the names are shown as.
 *
 * Manifests go byte for byte, so the digest is the same under both names.
 */
#include <errno.h>

#include "push_priv.h"
#include "regfs/log.h"

#define DEPTH_MAX     4	   /* indexes in indexes */
#define DOCUMENTS_MAX 4096 /* manifests of one image */

struct copy {
	struct pushes *pushes;
	const struct push_copy *what;
	struct wait *wait;
	unsigned documents;
	atomic_bool answered; /* the store has */
	struct digest made;   /* of the document that was put last */
};

static bool is_move(const struct copy *copy)
{
	return !strcmp(copy->what->from_repo, copy->what->repo);
}

/* --- blobs --- */

struct blob_copy {
	struct push_task task;
	struct copy *copy;
	const struct oci_descriptor *descriptor;
};

static int spool_stream(struct store_stream *stream, int fd, struct hasher *hasher, uint64_t size,
			struct wait *wait)
{
	AUTO_FREE char *piece = malloc(PUSH_PIECE);
	uint64_t len = 0;
	ssize_t got;

	if (!piece)
		return -ENOMEM;
	while ((got = stream->read(stream, piece, PUSH_PIECE, wait)) > 0) {
		/* more than SIZE has another digest, too */
		if ((uint64_t)got > size - len)
			break;
		ssize_t put = pwrite_full(fd, piece, (size_t)got, (off_t)len);
		if (put < 0)
			return put == -EDQUOT ? -ENOSPC : (int)put;
		hasher_add(hasher, piece, (size_t)got);
		len += (size_t)got;
	}
	return got < 0 ? (int)got : 0;
}

/* The blob into an unlinked file, verified. A descriptor or a negative errno. */
static int fetch_blob(const struct copy *copy, const struct oci_descriptor *blob, struct wait *wait)
{
	const struct digest *digest = &blob->digest;
	struct store *store = copy->what->store;
	AUTO_CLOSE int fd = push_spool_open(copy->pushes->spool_dir);
	AUTO_HASHER struct hasher *hasher = hasher_new(digest->algo);
	struct store_stream *stream;
	char text[DIGEST_STR_MAX];
	struct digest found;

	if (fd < 0)
		return fd;
	if (!hasher)
		return -ENOMEM;
	int err = store->ops->open_blob(store, copy->what->from_repo, digest, 0, UINT64_MAX,
					&stream, wait);
	if (err)
		return err;
	err = spool_stream(stream, fd, hasher, blob->size, wait);
	store_stream_close(stream);
	if (err)
		return err;
	hasher_final(hasher, &found);
	if (digest_equal(&found, digest))
		return steal_fd(&fd);
	log_error("%s/%s: the blob %s came with another digest", store->name, copy->what->from_repo,
		  digest_format(digest, text));
	return -EIO;
}

/* Where the store does not mount: through this machine. */
static int carry_blob(struct copy *copy, const struct oci_descriptor *blob, struct wait *wait)
{
	const struct digest *digest = &blob->digest;
	const struct push_copy *what = copy->what;
	struct store *store = what->store;
	struct store_file file = {.off = 0};
	struct store_source source = {.read = store_file_read, .arg = &file};
	const struct store_put put = {
		.digest = digest, .source = &source, .answered = &copy->answered};
	char text[DIGEST_STR_MAX];

	int err = store_holds(store, what->repo, digest, (uint64_t)blob->size, wait);
	if (err != -ENOENT)
		return err;
	AUTO_CLOSE int fd = fetch_blob(copy, blob, wait);
	if (fd < 0)
		return fd;
	log_info("%s/%s: %s could not be mounted from %s: its %ju bytes are sent", store->name,
		 what->repo, digest_format(digest, text), what->from_repo, (uintmax_t)blob->size);
	file = (struct store_file){.fd = fd, .len = blob->size};
	source.size = blob->size;
	return store->ops->put_blob(store, what->repo, &put, wait);
}

static int blob_copy_run(struct push_task *task, struct wait *wait)
{
	const struct blob_copy *blob = CONTAINER_OF(task, struct blob_copy, task);
	const struct push_copy *what = blob->copy->what;
	const struct store_put put = {
		.digest = &blob->descriptor->digest,
		.mount_from = what->from_repo,
		.answered = &blob->copy->answered,
	};
	char text[DIGEST_STR_MAX];

	int err = what->store->ops->put_blob(what->store, what->repo, &put, wait);
	if (err == -ENOENT)
		err = carry_blob(blob->copy, blob->descriptor, wait);
	if (err != -ENOENT)
		return err;
	if (blob->descriptor->nurls)
		return 0; /* a foreign layer is elsewhere */
	log_error("%s/%s: the blob %s of the image is missing", what->store->name, what->from_repo,
		  digest_format(put.digest, text));
	return -EIO;
}

static int copy_blobs(struct copy *copy, const struct oci_manifest *manifest)
{
	size_t n = manifest->nlayers + 1;
	AUTO_FREE struct blob_copy *blobs = calloc(n, sizeof(*blobs));
	AUTO_FREE struct push_task **tasks = calloc(n, sizeof(struct push_task *));

	if (!blobs || !tasks)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		blobs[i] = (struct blob_copy){
			.task = {blob_copy_run},
			.copy = copy,
			.descriptor = i ? &manifest->layers[i - 1] : &manifest->config,
		};
		tasks[i] = &blobs[i].task;
	}
	return push_tasks_run(copy->pushes->options.jobs, tasks, n, PUSH_PARALLEL, copy->wait);
}

/* --- manifests --- */

static int copy_document(struct copy *copy, const char *from, const char *tag, unsigned depth);

/* A platform that the repository does not hold is none of the other's either. */
static int copy_child(struct copy *copy, const struct oci_descriptor *child, unsigned depth)
{
	char digest[DIGEST_STR_MAX];
	struct blob_copy blob = {.task = {blob_copy_run}, .copy = copy, .descriptor = child};
	struct push_task *const tasks[] = {&blob.task};
	int err;

	if (*child->media_type && !oci_is_manifest_type(child->media_type))
		err = push_tasks_run(copy->pushes->options.jobs, tasks, 1, 1, copy->wait);
	else
		err = copy_document(copy, digest_format(&child->digest, digest), NULL, depth + 1);
	return err == -ENOENT ? 0 : err;
}

static int copy_parts(struct copy *copy, const struct store_manifest *document, unsigned depth)
{
	const struct push_copy *what = copy->what;
	CLEANUP(oci_manifest_release) struct oci_manifest manifest = {0};
	const char *why = "";

	int err = oci_manifest_parse(document->bytes.data, document->bytes.len,
				     document->media_type, &manifest, &why);
	if (err && err != -ENOMEM)
		log_error("%s/%s: the manifest cannot be used: %s", what->store->name,
			  what->from_repo, why);
	if (err)
		return err == -EINVAL ? -EIO : err;
	if (manifest.kind == OCI_KIND_MANIFEST)
		return copy_blobs(copy, &manifest);
	for (size_t i = 0; !err && i < manifest.nchildren; i++)
		err = copy_child(copy, &manifest.children[i], depth);
	return err;
}

/* What FROM names and all below it, the lowest first; then its own name. */
static int copy_document(struct copy *copy, const char *from, const char *tag, unsigned depth)
{
	const struct push_copy *what = copy->what;
	CLEANUP(store_manifest_release) struct store_manifest document = {0};
	char text[DIGEST_STR_MAX];

	if (depth > DEPTH_MAX || ++copy->documents > DOCUMENTS_MAX) {
		log_error("%s/%s: the image has too many manifests", what->store->name,
			  what->from_repo);
		return -EIO;
	}
	int err = what->store->ops->get_manifest(what->store, what->from_repo, from, &document,
						 copy->wait);
	if (!err)
		atomic_store(&copy->answered, true);
	if (!err && !is_move(copy))
		err = copy_parts(copy, &document, depth);
	if (!err && wait_cancelled(copy->wait))
		err = -EINTR;
	if (!err)
		err = what->store->ops->put_manifest(what->store, what->repo, tag ? tag : from,
						     document.media_type, document.bytes.data,
						     document.bytes.len, copy->wait);
	if (!err)
		copy->made = document.digest; /* the last one is the top */
	if (!err && tag)
		log_info("%s/%s:%s is %s now", what->store->name, what->repo, tag,
			 digest_format(&document.digest, text));
	return err;
}

int push_copy(struct pushes *pushes, const struct push_copy *what, struct wait *wait,
	      struct digest *ret)
{
	struct copy copy = {.pushes = pushes, .what = what, .wait = wait};

	if (!wait_may_block(wait))
		return -EWOULDBLOCK;
	int err = copy_document(&copy, what->from, what->tag, 0);
	if (!err)
		*ret = copy.made;
	return err;
}
