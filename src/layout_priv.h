/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layout, inside: one repository's directory, and reading in it.
 * Shared by layout*.c alone.
 *
 * Every path below the root is resolved by the kernel with openat2(2), so that no symbolic link
 * leads out of the root, and none at all is followed inside a repository.
 */
#ifndef REGFS_LAYOUT_PRIV_H
#define REGFS_LAYOUT_PRIV_H

#include <dirent.h>

#include "regfs/layout.h"
#include "regfs/oci.h"

struct layout {
	struct store store; /* first: a store is one of these */
	char *root;
};

static inline struct layout *layout_of(struct store *store)
{
	return CONTAINER_OF(store, struct layout, store);
}

/* A repository that is open. */
struct layout_repo {
	const struct layout *layout;
	const char *name; /* borrowed */
	int fd;		  /* its directory */
};
#define LAYOUT_REPO_INIT                                                                           \
	{                                                                                          \
		.fd = -1                                                                           \
	}
static inline void layout_repo_cleanup(struct layout_repo *repo)
{
	fd_cleanup(&repo->fd);
}
#define AUTO_LAYOUT_REPO CLEANUP(layout_repo_cleanup)

/* index.json as read, and as understood. */
struct layout_index {
	struct buf bytes;
	struct oci_manifest parsed;
};
void layout_index_release(struct layout_index *index);
#define AUTO_LAYOUT_INDEX CLEANUP(layout_index_release)

#define LAYOUT_LOCK	  ".regfs.lock"
#define LAYOUT_TMP_PREFIX ".regfs-"
#define LAYOUT_TMP_SUFFIX ".tmp"
#define LAYOUT_TMP_MAX	  (sizeof(LAYOUT_TMP_PREFIX) + 16 + sizeof(LAYOUT_TMP_SUFFIX))
#define LAYOUT_BLOB_MAX	  (sizeof("blobs//") + DIGEST_STR_MAX)
#define LAYOUT_REF_NAME	  "org.opencontainers.image.ref.name"
#define LAYOUT_FILE_MODE  0644
#define LAYOUT_DIR_MODE	  0755
#define LAYOUT_COPY_CHUNK (256 * KIB)
/* A blob that nothing names may belong to a writer who has not named it yet: younger than this, it
 * stays. Looking for a blob keeps it for so long: its time of access is then set to the end of
 * that. */
#define LAYOUT_COLLECT_AGE_S (10 * 60)

/* The errno that a store may return for ERR (positive), negative. */
int layout_errno(int err);
/* Whether opening a path failed because there is nothing that is ours. */
bool layout_absent(int err);
/* Logs "store/repo: WHAT: the error's words" and returns layout_errno(ERR). */
int layout_fail(const struct layout_repo *repo, int err, const char *what);

/* -ENOENT, quietly, where there is no such directory. It may be no layout yet. */
int layout_repo_open(struct store *store, const char *name, struct layout_repo *ret);
/* Opens PATH in DIR_FD, no link followed. A descriptor or a negative errno, not logged. */
int layout_open_in(int dir_fd, const char *path, int flags);
/* The same below a root: links are followed as long as they stay below it. */
int layout_open_below(int root_fd, const char *path, int flags);
/* Whether DIR_FD has both files that make a directory a layout. */
bool layout_is_one(int dir_fd);

/* A directory of the repository, to be listed. NULL: it cannot be. */
DIR *layout_dir(const struct layout_repo *repo, const char *path);
static inline void layout_dir_cleanup(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}
#define AUTO_LAYOUT_DIR CLEANUP(layout_dir_cleanup)

/* layout_read.c */
/* index.json. -ENOENT, quietly, where the directory is no layout; -EIO, logged, where it cannot be
 * understood; -EWOULDBLOCK where it is being written by somebody just now. */
int layout_index_read(const struct layout_repo *repo, struct wait *wait, struct layout_index *ret);
/* The tag that an entry of index.json gives, or NULL. */
const char *layout_entry_tag(const struct oci_descriptor *entry);
/* The entry that TAG names (of several, the first), or NULL. */
const struct oci_descriptor *layout_index_find(const struct layout_index *index, const char *tag);

/* "blobs/sha256/<hex>"; returns OUT. */
const char *layout_blob_path(const struct digest *digest, char out[static LAYOUT_BLOB_MAX]);
/* A descriptor of the blob, a regular file, and its size. -ENOENT quietly. */
int layout_blob_open(const struct layout_repo *repo, const struct digest *digest, int *ret_fd,
		     uint64_t *ret_size);
/* A manifest's bytes, compared with the digest. -ENOENT quietly, else logged; -EWOULDBLOCK where it
 * is being written by somebody just now. */
int layout_document_read(const struct layout_repo *repo, const struct digest *digest,
			 struct wait *wait, struct buf *ret);

int layout_has_blob(struct store *store, const char *repo, const struct digest *digest,
		    uint64_t *ret_size, struct wait *wait);
int layout_open_blob(struct store *store, const char *repo, const struct digest *digest,
		     uint64_t off, uint64_t len, struct store_stream **ret, struct wait *wait);
int layout_get_manifest(struct store *store, const char *repo, const char *tag_or_digest,
			struct store_manifest *ret, struct wait *wait);
int layout_head(struct store *store, const char *repo, const char *tag_or_digest,
		struct digest *ret, struct wait *wait);

/* layout_referrers.c */
int layout_referrers(struct store *store, const char *repo, const struct digest *digest,
		     store_descriptor_fn *fn, void *arg, struct wait *wait);

/* layout_write.c */
int layout_put_blob(struct store *store, const char *repo, const struct store_put *put,
		    struct wait *wait);
int layout_put_manifest(struct store *store, const char *repo, const char *tag,
			const char *media_type, const void *bytes, size_t len, struct wait *wait);
int layout_make_repo(struct store *store, const char *repo, struct wait *wait);
/* Takes the repository's lock: a descriptor that holds it until it is closed. -EINTR, -EBUSY. */
int layout_lock(const struct layout_repo *repo, struct wait *wait);
/* Puts BYTES in the place of index.json, at once and for good; -ESTALE, quietly, if it is not as it
 * was BEFORE. */
int layout_replace_index(const struct layout_repo *repo, const struct buf *bytes,
			 const struct buf *before);

/* layout_index.c */
struct layout_change {
	struct layout_index before, after;
};
void layout_change_release(struct layout_change *change);
/* How index.json is to be changed: its new bytes into *RET, or a negative errno. */
struct layout_edit {
	int (*edit)(const void *arg, const struct layout_index *index, struct buf *ret);
	const void *arg;
};
/* Changes index.json. The lock is held. EDIT may be called several times. */
int layout_index_change(const struct layout_repo *repo, const struct layout_edit *edit,
			struct wait *wait, struct layout_change *ret);
/* Whether the file, or index.json, has these bytes now. */
bool layout_file_is(const struct layout_repo *repo, const char *name, const struct buf *bytes);
static inline bool layout_index_is(const struct layout_repo *repo, const struct buf *bytes)
{
	return layout_file_is(repo, "index.json", bytes);
}

/* layout_collect.c */
/*
 * Deletes the blobs that index.json does not lead to after CHANGE; GONE (or NULL) was deleted by
 * its digest. The lock is held. What fails here is no failure of the deletion that was asked for:
 * the next one collects it. False: index.json still leads to GONE.
 */
bool layout_collect(const struct layout_repo *repo, const struct layout_change *change,
		    const struct digest *gone, struct wait *wait);

/* layout_delete.c */
int layout_remove_repo(struct store *store, const char *repo, struct wait *wait);
int layout_untag(struct store *store, const char *repo, const char *tag, struct wait *wait);
int layout_delete_manifest(struct store *store, const char *repo, const struct digest *digest,
			   struct wait *wait);

#endif
