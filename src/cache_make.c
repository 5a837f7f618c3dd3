// SPDX-License-Identifier: Apache-2.0
/*
 * cache_make: makes, resizes and mends the cache's directory at open.
 * Knows the files of the directory, their sizes, and the limit. Must not know what is
 * asked of the cache later. Runs under the directory's opening lock.
 *
 * Space: table, reserve and content together are the limit. The table is preallocated, so that
 * a full disk cannot turn a store to the map into SIGBUS. The reserve stands for what file
 * systems take beside the content: directories, and the map of a fragmented arena.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/random.h>

#include "regfs/log.h"

#include "cache_priv.h"

#define RESERVE_MIN   (64 * KIB)
#define RESERVE_SHARE 100 /* of the limit */
/* Small objects have entries of their own, beside those for whole blocks: an image that is read by
 * chunks has one for each file. One for each so many bytes of the limit, up to so many; */
#define TINY_SHARE 8192
#define TINY_MAX   2048
/* in larger caches that is one for each so many bytes, up to so many, which is half a percent. */
#define SMALL_SHARE   (32 * KIB)
#define SMALL_MAX     (256 * KIB)
#define SHRINK_FACTOR 4 /* a table larger than needed by more is made anew */
#define COPY_BYTES    65536

static int failed(const struct cache_view *view, const char *what, int err)
{
	log_error("cache %s: cannot %s: %s", view->dir, what, strerror(-err));
	return err;
}

/* --- sizes --- */

/* An eighth more than blocks fit, as the last block of an object is short. */
static uint32_t entries_for(uint64_t limit_bytes)
{
	uint64_t blocks = limit_bytes / CACHE_BLOCK;
	uint64_t tiny = MIN(limit_bytes / TINY_SHARE, TINY_MAX);
	uint64_t small = MIN(limit_bytes / SMALL_SHARE, SMALL_MAX);
	return (uint32_t)(blocks + blocks / 8 + MAX(tiny, small));
}

static uint64_t capacity_for(uint64_t limit_bytes, uint32_t n)
{
	uint64_t spent = cache_table_bytes(n) + RESERVE_MIN + limit_bytes / RESERVE_SHARE;
	return limit_bytes > spent ? (limit_bytes - spent) / CACHE_PAGE : 0;
}

static uint64_t arena_bytes(uint32_t n)
{
	return (uint64_t)n * CACHE_BLOCK;
}

uint64_t cache_boot(void)
{
	AUTO_FREE char *text = NULL;
	size_t len;
	if (read_file("/proc/sys/kernel/random/boot_id", 256, &text, &len))
		return 0;
	return hash64(0, text, len);
}

/* --- removing --- */

static void empty_dir(int parent_fd, const char *name, int depth)
{
	int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	if (!dir) {
		fd_cleanup(&fd);
		return;
	}
	for (struct dirent *item; (item = readdir(dir));) {
		if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
			continue;
		if (unlinkat(fd, item->d_name, 0) == 0 || depth == 0)
			continue;
		empty_dir(fd, item->d_name, depth - 1);
		unlinkat(fd, item->d_name, AT_REMOVEDIR);
	}
	closedir(dir);
}

/* The directory itself goes too: a process that still has the old one cannot put files there. */
static void remove_all(const struct cache_view *view)
{
	unlinkat(view->dir_fd, "table", 0);
	unlinkat(view->dir_fd, "table.new", 0);
	unlinkat(view->dir_fd, "arena", 0);
	empty_dir(view->dir_fd, "files", 1);
	unlinkat(view->dir_fd, "files", AT_REMOVEDIR);
}

/* --- making --- */

static int make_table(const struct cache_view *view, const char *name,
		      const struct cache_head *head)
{
	const int flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
	unlinkat(view->dir_fd, name, 0);
	AUTO_CLOSE int fd = openat(view->dir_fd, name, flags, 0600);
	if (fd < 0)
		return -errno;
	int err = posix_fallocate(fd, 0, (off_t)cache_table_bytes(head->n));
	if (err)
		return -err;
	ssize_t n = pwrite_full(fd, head, sizeof(*head), 0);
	return n < 0 ? (int)n : steal_fd(&fd);
}

/* A file system where what was evicted cannot be given back would outgrow any limit. */
static int make_arena(const struct cache_view *view, uint32_t n)
{
	const int flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
	AUTO_CLOSE int fd = openat(view->dir_fd, "arena", flags, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)arena_bytes(n)) < 0)
		return -errno;
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, CACHE_PAGE) < 0 &&
	    (errno == EOPNOTSUPP || errno == ENOSYS)) {
		log_error("cache %s: its file system cannot free parts of a file; "
			  "another cache_dir= is needed",
			  view->dir);
		return -EOPNOTSUPP;
	}
	return steal_fd(&fd);
}

static int open_files(struct cache_view *view)
{
	if (mkdirat(view->dir_fd, "files", 0700) < 0 && errno != EEXIST)
		return -errno;
	view->files_fd = openat(view->dir_fd, "files",
				O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return view->files_fd < 0 ? -errno : 0;
}

static int make_fresh(struct cache_view *view, uint64_t limit_bytes, uint32_t *ret_n)
{
	struct cache_head head = {
		.magic = CACHE_MAGIC,
		.version = CACHE_VERSION,
		.entry_size = sizeof(struct cache_entry),
		.n = entries_for(limit_bytes),
		.boot = cache_boot(),
		.limit_bytes = limit_bytes,
		/* Not from 0: files of an older table may have been left by a crash. */
		.gen = (uint64_t)wall_ms() * 1000,
	};
	head.capacity_pages = capacity_for(limit_bytes, head.n);
	if (getrandom(&head.hash_seed, sizeof(head.hash_seed), 0) < 0)
		head.hash_seed = head.gen;
	fd_cleanup(&view->table_fd);
	fd_cleanup(&view->arena_fd);
	view->table_fd = view->arena_fd = -1;
	remove_all(view);
	int fd = make_arena(view, head.n);
	view->arena_fd = fd;
	if (fd >= 0)
		fd = view->table_fd = make_table(view, "table", &head);
	if (fd < 0) {
		remove_all(view);
		return failed(view, "make it", fd);
	}
	*ret_n = head.n;
	return 0;
}

/* --- resizing --- */

static int copy_entries(int from, int to, uint32_t n)
{
	AUTO_FREE char *buf = malloc(COPY_BYTES);
	size_t end = CACHE_PAGE + (size_t)n * sizeof(struct cache_entry);
	if (!buf)
		return -ENOMEM;
	for (size_t at = CACHE_PAGE; at < end;) {
		ssize_t got = pread_full(from, buf, MIN(COPY_BYTES, end - at), (off_t)at);
		if (got > 0)
			got = pwrite_full(to, buf, (size_t)got, (off_t)at);
		if (got <= 0)
			return got < 0 ? (int)got : -EIO;
		at += (size_t)got;
	}
	return 0;
}

/*
 * A table of another size, with the entries that fit into it. The arena is never shorter than
 * the table that is in place says. Lists and hash are built by cache_mend.
 */
static int resize(struct cache_view *view, struct cache_head *head, uint64_t limit_bytes)
{
	uint32_t old_n = head->n;
	struct cache_head larger = *head;
	larger.n = entries_for(limit_bytes);
	larger.fresh = MIN(larger.fresh, larger.n);
	/* If we are killed before cache_mend, the next one does it. */
	larger.boot = 0;
	larger.suspect = 1;
	AUTO_CLOSE int fd = make_table(view, "table.new", &larger);
	int err = fd < 0 ? fd : copy_entries(view->table_fd, fd, MIN(old_n, larger.n));
	if (!err && larger.n > old_n && ftruncate(view->arena_fd, (off_t)arena_bytes(larger.n)) < 0)
		err = -errno;
	if (!err && renameat(view->dir_fd, "table.new", view->dir_fd, "table") < 0)
		err = -errno;
	if (err) {
		unlinkat(view->dir_fd, "table.new", 0);
		return err;
	}
	if (larger.n < old_n && ftruncate(view->arena_fd, (off_t)arena_bytes(larger.n)) < 0)
		log_warn("cache %s: cannot shorten the arena: %s", view->dir, strerror(errno));
	close(view->table_fd);
	view->table_fd = steal_fd(&fd);
	*head = larger;
	return 0;
}

/* --- opening --- */

static uint64_t size_of(int fd)
{
	struct stat st;
	return fd >= 0 && fstat(fd, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* 0; -ENOENT: there is no sound table with its arena; -EBUSY: another version's. */
static int read_head(const struct cache_view *view, struct cache_head *ret)
{
	struct cache_head head;
	if (view->table_fd < 0 ||
	    pread_full(view->table_fd, &head, sizeof(head), 0) != sizeof(head) ||
	    head.magic != CACHE_MAGIC)
		return -ENOENT;
	if (head.version != CACHE_VERSION || head.entry_size != sizeof(struct cache_entry))
		return -EBUSY;
	if (head.n == 0 || head.n > entries_for(CACHE_LIMIT_MAX) ||
	    size_of(view->table_fd) != cache_table_bytes(head.n) ||
	    size_of(view->arena_fd) < arena_bytes(head.n))
		return -ENOENT;
	*ret = head;
	return 0;
}

/* A descriptor, -1 if there is no such file, or an errno: then it may well be there. */
static int open_existing(const struct cache_view *view, const char *name)
{
	int fd = openat(view->dir_fd, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	return errno == ENOENT || errno == ELOOP || errno == EISDIR ? -1 : -errno;
}

/* Alone with a sound table: the limit may be changed. HEAD is written back. */
static int settle_limit(struct cache_view *view, struct cache_head *head, uint64_t limit_bytes,
			bool *ret_resized)
{
	uint32_t need = entries_for(limit_bytes);
	bool resized = false;
	if (need > head->n || head->n / SHRINK_FACTOR > need) {
		int err = resize(view, head, limit_bytes);
		resized = err == 0;
		if (err)
			log_warn("cache %s: cannot resize its table, going on with the old one: %s",
				 view->dir, strerror(-err));
	}
	head->limit_bytes = limit_bytes;
	head->capacity_pages = capacity_for(limit_bytes, head->n);
	ssize_t n = pwrite_full(view->table_fd, head, sizeof(*head), 0);
	if (n < 0)
		return failed(view, "write to it", (int)n);
	*ret_resized = resized;
	return 0;
}

static bool only_user(const struct cache_view *view)
{
	return view->table_fd >= 0 &&
	       cache_lock_byte(view->table_fd, F_WRLCK, CACHE_LOCK_USE, 0) == 0;
}

static int join(struct cache_view *view, uint64_t limit_bytes, struct cache_made *ret)
{
	struct cache_head head;
	bool alone = only_user(view), resized = false;
	int err = read_head(view, &head);
	*ret = (struct cache_made){0};
	if (err == -EBUSY && !alone)
		return failed(view, "use it beside another version of regfs", err);
	if (err)
		return make_fresh(view, limit_bytes ? limit_bytes : CACHE_LIMIT, &ret->n);
	if (limit_bytes == 0)
		limit_bytes = head.limit_bytes;
	if (limit_bytes != head.limit_bytes && alone)
		err = settle_limit(view, &head, limit_bytes, &resized);
	else if (limit_bytes != head.limit_bytes)
		log_info("cache %s: in use with a limit of %llu bytes, which stays", view->dir,
			 (unsigned long long)head.limit_bytes);
	ret->n = head.n;
	ret->stale = alone && (resized || head.boot != cache_boot());
	return err;
}

int cache_make(struct cache_view *view, uint64_t limit_bytes, struct cache_made *ret)
{
	struct cache_made made;
	unlinkat(view->dir_fd, "table.new", 0); /* of a process killed while it resized */
	view->table_fd = open_existing(view, "table");
	view->arena_fd = open_existing(view, "arena");
	int err = MIN(view->table_fd, view->arena_fd);
	if (err < -1)
		return failed(view, "open it", err);
	err = join(view, MIN(limit_bytes, CACHE_LIMIT_MAX), &made);
	if (err)
		return err;
	err = open_files(view);
	if (!err)
		err = cache_lock_byte(view->table_fd, F_RDLCK, CACHE_LOCK_USE, 0);
	if (err)
		return failed(view, "open it", err);
	*ret = made;
	return 0;
}

/* --- mending --- */

/* How many bytes of the slot its entry stands for. */
static off_t kept_bytes(struct cache_view *view, uint32_t index)
{
	if (cache_view_lock(view))
		return CACHE_BLOCK;
	const struct cache_entry *entry = cache_table_at(&view->table, index);
	off_t kept = 0;
	if (entry && entry->state == CACHE_LIVE && cache_kind_is_block(entry->kind))
		kept = (off_t)entry->pages * CACHE_PAGE;
	cache_view_unlock(view);
	return kept;
}

static void punch_unowned(struct cache_view *view, off_t from, off_t to)
{
	for (off_t slot = from / CACHE_BLOCK * CACHE_BLOCK; slot < to; slot += CACHE_BLOCK) {
		off_t kept = kept_bytes(view, (uint32_t)(slot / CACHE_BLOCK) + 1);
		off_t start = MAX(from, slot + kept), end = MIN(to, slot + CACHE_BLOCK);
		if (start < end &&
		    fallocate(view->arena_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start,
			      end - start) < 0)
			log_warn("cache %s: cannot free a slot: %s", view->dir, strerror(errno));
	}
}

static void mend_arena(struct cache_view *view)
{
	off_t to = 0, from;
	while ((from = lseek(view->arena_fd, to, SEEK_DATA)) >= 0) {
		to = lseek(view->arena_fd, from, SEEK_HOLE);
		if (to <= from)
			break;
		punch_unowned(view, from, to);
	}
}

static bool is_known(struct cache_view *view, unsigned kind, const char *name)
{
	struct cache_id id = {.kind = (enum cache_kind)kind};
	uint64_t gen;
	if (!cache_name_parse(name, id.key, &gen))
		return false;
	if (cache_view_lock(view))
		return true;
	const struct cache_entry *entry = cache_table_at(&view->table,
							 cache_table_find(&view->table, &id, 0, 0));
	bool known = entry && entry->gen == gen;
	cache_view_unlock(view);
	return known;
}

static void mend_files(struct cache_view *view, unsigned kind)
{
	int fd = openat(view->files_fd, cache_kind_dir(kind),
			O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	if (!dir) {
		fd_cleanup(&fd);
		return;
	}
	for (struct dirent *item; (item = readdir(dir));)
		if (item->d_name[0] != '.' && !is_known(view, kind, item->d_name))
			unlinkat(fd, item->d_name, 0);
	closedir(dir);
}

void cache_mend(struct cache_view *view)
{
	if (cache_view_lock(view))
		return;
	cache_table_rebuild(&view->table, true);
	cache_view_unlock(view);
	mend_arena(view);
	for (unsigned kind = CACHE_MANIFEST; kind <= CACHE_DIFF_ID; kind++)
		if (cache_kind_is_file(kind))
			mend_files(view, kind);
}
