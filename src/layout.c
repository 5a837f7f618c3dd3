/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store made of OCI layouts: which repositories and tags there are, and how a path below the
 * root is opened.
 * Knows directories. Must not know HTTP, nor what is in a manifest; changes nothing on disk.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "layout_priv.h"
#include "regfs/log.h"
#include "regfs/ref.h"

/* A repository's name has at most 255 bytes; nobody nests as deep as that would allow. */
#define WALK_DEPTH_MAX 32

int layout_errno(int err)
{
	switch (err) {
	case EACCES:
	case EPERM:
		return -EACCES;
	case ENOENT:
	case EINVAL:
	case ENOSPC:
	case EDQUOT:
	case EROFS:
	case ENOMEM:
	case EINTR:
		return -err;
	default:
		return -EIO;
	}
}

int layout_fail(const struct layout_repo *repo, int err, const char *what)
{
	errno = err;
	log_error("%s/%s: %s: %m", repo->layout->store.name, repo->name, what);
	return layout_errno(err);
}

static bool reserved(const char *component)
{
	return !strcmp(component, "blobs") || !strcmp(component, "index.json") ||
	       !strcmp(component, "oci-layout");
}

/* Whether every component may be a repository's here: 0 or -EINVAL, logged. */
static int layout_check_name(const struct layout *layout, const char *repo)
{
	char component[REF_REPO_MAX];

	for (const char *at = repo; *at;) {
		size_t len = strcspn(at, "/");
		if (len == 0 || len >= sizeof(component))
			return -EINVAL;
		memcpy(component, at, len);
		component[len] = '\0';
		if (reserved(component)) {
			log_error("%s/%s: '%s' cannot be part of a repository's name in a layout",
				  layout->store.name, repo, component);
			return -EINVAL;
		}
		at += len + (at[len] == '/');
	}
	return *repo ? 0 : -EINVAL;
}

static int resolve(int dir_fd, const char *path, int flags, uint64_t how)
{
	bool makes = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE;
	struct open_how open_how = {
		.flags = (uint64_t)(flags | O_CLOEXEC),
		.mode = makes ? LAYOUT_FILE_MODE : 0,
		.resolve = how | RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
	};
	long fd = syscall(SYS_openat2, dir_fd, path, &open_how, sizeof(open_how));
	return fd < 0 ? -errno : (int)fd;
}

int layout_open_in(int dir_fd, const char *path, int flags)
{
	return resolve(dir_fd, path, flags, RESOLVE_NO_SYMLINKS);
}

int layout_open_below(int root_fd, const char *path, int flags)
{
	return resolve(root_fd, path, flags, 0);
}

DIR *layout_dir(const struct layout_repo *repo, const char *path)
{
	int fd = layout_open_in(repo->fd, path, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return NULL;
	DIR *dir = fdopendir(fd);
	if (!dir)
		close(fd);
	return dir;
}

bool layout_is_one(int dir_fd)
{
	return faccessat(dir_fd, "oci-layout", F_OK, AT_SYMLINK_NOFOLLOW) == 0 &&
	       faccessat(dir_fd, "index.json", F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

bool layout_absent(int err)
{
	/* ELOOP and EXDEV: a link that leaves the root; what it leads to is not ours. */
	return err == ENOENT || err == ENOTDIR || err == ELOOP || err == EXDEV ||
	       err == ENAMETOOLONG;
}

int layout_repo_open(struct store *store, const char *name, struct layout_repo *ret)
{
	const struct layout *layout = layout_of(store);
	struct layout_repo repo = {.layout = layout, .name = name, .fd = -1};
	AUTO_CLOSE int root = -1;

	int err = layout_check_name(layout, name);
	if (err)
		return err;
	root = open(layout->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return layout_absent(errno) ? -ENOENT : layout_fail(&repo, errno, "the store");
	repo.fd = layout_open_below(root, name, O_RDONLY | O_DIRECTORY);
	if (repo.fd < 0)
		return layout_absent(-repo.fd) ? -ENOENT
					       : layout_fail(&repo, -repo.fd, "its directory");
	*ret = repo;
	return 0;
}

/* --- names --- */

struct walk {
	store_name_fn *fn;
	void *arg;
	struct wait *wait;
	int root_fd;
	char path[REF_REPO_MAX];
};

static int walk_dir(struct walk *walk, int dir_fd, size_t path_len, unsigned depth);

static void dir_cleanup(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

/* A directory that is a link may be a repository, but is not walked: so there are no loops. */
static int walk_entry(struct walk *walk, int dir_fd, const char *name, size_t path_len,
		      unsigned depth)
{
	size_t name_len = strlen(name);
	AUTO_CLOSE int fd = -1;
	bool link;

	if (reserved(name) || !ref_component_valid(name) ||
	    path_len + 1 + name_len >= sizeof(walk->path))
		return 0;
	fd = layout_open_in(dir_fd, name, O_RDONLY | O_DIRECTORY);
	if (path_len)
		walk->path[path_len++] = '/';
	memcpy(walk->path + path_len, name, name_len + 1);
	link = fd == -ELOOP;
	if (link)
		fd = layout_open_below(walk->root_fd, walk->path, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return 0;
	if (layout_is_one(fd)) {
		int stop = walk->fn(walk->arg, walk->path);
		if (stop)
			return stop;
	}
	return link ? 0 : walk_dir(walk, fd, path_len + name_len, depth + 1);
}

static int walk_dir(struct walk *walk, int dir_fd, size_t path_len, unsigned depth)
{
	CLEANUP(dir_cleanup) DIR *dir = NULL;
	struct dirent *entry;

	if (depth > WALK_DEPTH_MAX)
		return 0;
	int fd = layout_open_in(dir_fd, ".", O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return 0;
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return -ENOMEM;
	}
	while ((entry = readdir(dir))) {
		if (wait_cancelled(walk->wait))
			return -EINTR;
		if (entry->d_type != DT_DIR && entry->d_type != DT_LNK &&
		    entry->d_type != DT_UNKNOWN)
			continue;
		int stop = walk_entry(walk, dir_fd, entry->d_name, path_len, depth);
		if (stop)
			return stop;
		walk->path[path_len] = '\0';
	}
	return 0;
}

static int list_repos(struct store *store, store_name_fn *fn, void *arg, struct wait *wait)
{
	struct walk walk = {.fn = fn, .arg = arg, .wait = wait};
	AUTO_CLOSE int root = -1;

	if (!wait_may_block(wait))
		return -EWOULDBLOCK;
	root = open(layout_of(store)->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root < 0) {
		int err = errno;
		if (err == ENOENT)
			return 0;
		log_error("%s: the store %s: %m", store->name, layout_of(store)->root);
		return layout_errno(err);
	}
	walk.root_fd = root;
	return walk_dir(&walk, root, 0, 0);
}

static int list_tags(struct store *store, const char *name, store_name_fn *fn, void *arg,
		     struct wait *wait)
{
	AUTO_LAYOUT_REPO struct layout_repo repo = LAYOUT_REPO_INIT;
	AUTO_LAYOUT_INDEX struct layout_index index = {0};

	int err = layout_repo_open(store, name, &repo);
	if (!err)
		err = layout_index_read(&repo, wait, &index);
	for (size_t i = 0; !err && i < index.parsed.nchildren; i++) {
		const struct oci_descriptor *entry = &index.parsed.children[i];
		const char *tag = layout_entry_tag(entry);
		/* Of two entries of one name the first counts; it is listed once. */
		if (tag && layout_index_find(&index, tag) == entry)
			err = fn(arg, tag);
	}
	return err;
}

/* --- the store --- */

static int ping(struct store *store, struct wait *wait)
{
	(void)store;
	(void)wait;
	return 0;
}

static uint64_t generation(struct store *store, const char *name)
{
	AUTO_LAYOUT_REPO struct layout_repo repo = LAYOUT_REPO_INIT;
	struct stat st;

	if (!name)
		return 0;
	if (layout_repo_open(store, name, &repo) ||
	    fstatat(repo.fd, "index.json", &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 1;
	const uint64_t what[] = {(uint64_t)st.st_mtim.tv_sec, (uint64_t)st.st_mtim.tv_nsec,
				 (uint64_t)st.st_ino, (uint64_t)st.st_size};
	return hash64(0, what, sizeof(what)) | 2; /* neither 0 nor 1 */
}

static void layout_free(struct store *store)
{
	struct layout *layout = layout_of(store);

	free(layout->root);
	free(store->name);
	free(layout);
}

static const struct store_ops layout_ops = {
	.kind = "layout",
	.oci_types = true,
	.list_repos = list_repos,
	.list_tags = list_tags,
	.head = layout_head,
	.get_manifest = layout_get_manifest,
	.referrers = layout_referrers,
	.has_blob = layout_has_blob,
	.open_blob = layout_open_blob,
	.put_blob = layout_put_blob,
	.put_manifest = layout_put_manifest,
	.untag = layout_untag,
	.delete_manifest = layout_delete_manifest,
	.make_repo = layout_make_repo,
	.remove_repo = layout_remove_repo,
	.ping = ping,
	.generation = generation,
	.free = layout_free,
};

int layout_new(const char *root, const char *name, struct store **ret)
{
	struct layout *layout = calloc(1, sizeof(*layout));

	if (!layout)
		return -ENOMEM;
	layout->store.ops = &layout_ops;
	layout->store.name = strdup(name);
	layout->root = strdup(root);
	if (!layout->store.name || !layout->root) {
		layout_free(&layout->store);
		return -ENOMEM;
	}
	*ret = &layout->store;
	return 0;
}
