// SPDX-License-Identifier: Apache-2.0
/*
 * cache_view: one opening of the cache's directory: descriptors, the mapped table, its lock.
 * Knows the directory at a path and who may use it. Must not know blocks or files.
 *
 * A view never changes its files: where the directory was deleted or replaced, another view is
 * opened, and this one goes with its last reference.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "regfs/log.h"

#include "cache_priv.h"

#define OPENING_MS 10000 /* putting a large table in order takes seconds */

/* --- locks --- */

/* The kernel's own wait has no end, and a holder that was stopped would be waited for by all. */
int cache_lock_byte(int fd, short type, off_t at, int64_t wait_ms)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
	const int64_t until = wait_ms ? now_ms() + wait_ms : 0;
	struct timespec pause = {.tv_nsec = 20000};
	while (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
		if (errno != EAGAIN && errno != EACCES)
			return -errno;
		if (now_ms() >= until)
			return -EAGAIN;
		nanosleep(&pause, NULL);
		pause.tv_nsec = MIN(pause.tv_nsec * 2, 2000000);
	}
	return 0;
}

bool cache_lock_is_held(int fd, off_t at)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
	/* If it cannot be told, it is. */
	return fcntl(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type != F_UNLCK;
}

/* The table's file, opened once more. It may have no name any more, or another file has it. */
static int open_table_again(const struct cache_view *view)
{
	char path[32];
	struct stat ours, named;
	AUTO_CLOSE int fd = openat(view->dir_fd, "table", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0 && fstat(view->table_fd, &ours) == 0 && fstat(fd, &named) == 0 &&
	    ours.st_ino == named.st_ino && ours.st_dev == named.st_dev)
		return steal_fd(&fd);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", view->table_fd);
	int again = open(path, O_RDWR | O_CLOEXEC);
	return again >= 0 ? again : -errno;
}

/* A number that is locked as long as FD is open. */
static int become_owner(int fd, uint64_t *ret)
{
	uint64_t random;
	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return -EIO;
	uint64_t owner = CACHE_LOCK_OWNER + (random >> 2);
	int err = cache_lock_byte(fd, F_WRLCK, (off_t)owner, 0);
	if (!err)
		*ret = owner;
	return err;
}

/* These locks belong to an open file description, which fork() shares: a child needs its own. */
static int become_this_process(struct cache_view *view)
{
	pid_t pid = getpid();
	if (view->pid == pid)
		return 0;
	AUTO_CLOSE int fd = open_table_again(view);
	int err = fd < 0 ? fd : become_owner(fd, &view->owner);
	if (err)
		return err;
	fd_cleanup(&view->lock_fd);
	view->lock_fd = steal_fd(&fd);
	view->pid = pid;
	return 0;
}

/* Nobody waits a second time for a holder that does not go on: until it does, the lock is only
 * tried, and there is no cache but for what can be told without the lock (cache_peek.c). */
static int lock_table(struct cache_view *view, bool *ret_news)
{
	if (cache_guard_broken(view->broken) || become_this_process(view))
		return -ESTALE;
	int err = cache_lock_byte(view->lock_fd, F_WRLCK, CACHE_LOCK_TABLE,
				  view->stuck ? 0 : view->lock_ms);
	*ret_news = view->stuck != (err == -EAGAIN);
	view->stuck = err == -EAGAIN;
	return err ? -ESTALE : 0;
}

static void tell_stuck(const struct cache_view *view, bool stuck)
{
	if (stuck)
		log_warn("cache %s: another process has its table locked for %d s already, and may "
			 "be "
			 "stopped: there is little cache until it goes on, or is ended",
			 view->dir, (int)(view->lock_ms / 1000));
	else
		log_info("cache %s: its table is free again", view->dir);
}

int cache_view_lock(struct cache_view *view)
{
	struct cache_head *head = view->table.head;
	bool news = false;
	pthread_mutex_lock(&view->mutex);
	int err = lock_table(view, &news);
	if (err) {
		bool stuck = view->stuck;
		pthread_mutex_unlock(&view->mutex);
		if (news && stuck)
			tell_stuck(view, true);
		return err;
	}
	view->freed = news;
	if (head->inside || head->suspect) {
		view->rebuilt = true;
		cache_table_rebuild(&view->table, false);
	}
	head->inside = 1;
	/* If we are killed, whoever sees a change of ours must see that we were inside. */
	atomic_thread_fence(memory_order_seq_cst);
	return 0;
}

void cache_view_unlock(struct cache_view *view)
{
	bool rebuilt = view->rebuilt, freed = view->freed;
	view->rebuilt = view->freed = false;
	atomic_thread_fence(memory_order_seq_cst);
	view->table.head->inside = 0;
	cache_lock_byte(view->lock_fd, F_UNLCK, CACHE_LOCK_TABLE, 0);
	pthread_mutex_unlock(&view->mutex);
	if (freed)
		tell_stuck(view, false);
	if (rebuilt)
		log_warn("cache %s: its table was left half changed, and was put in order",
			 view->dir);
}

/* --- life --- */

static struct cache_view *view_new(const char *dir)
{
	struct cache_view *view = calloc(1, sizeof(*view));
	if (!view)
		return NULL;
	atomic_init(&view->refs, 1);
	view->dir = dir;
	view->dir_fd = view->table_fd = view->arena_fd = view->files_fd = view->lock_fd = -1;
	view->map = MAP_FAILED;
	view->lock_ms = CACHE_LOCK_MS;
	pthread_mutex_init(&view->mutex, NULL);
	return view;
}

static void view_free(struct cache_view *view)
{
	cache_guard_remove(view->broken);
	if (view->map != MAP_FAILED)
		munmap(view->map, view->map_len);
	cache_guard_remove(view->arena_broken);
	if (view->arena)
		munmap((void *)view->arena, view->arena_len);
	int fds[] = {view->lock_fd, view->files_fd, view->arena_fd, view->table_fd, view->dir_fd};
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fd_cleanup(&fds[i]);
	pthread_mutex_destroy(&view->mutex);
	free(view);
}

void cache_view_ref(struct cache_view *view)
{
	atomic_fetch_add(&view->refs, 1);
}

void cache_view_unref(struct cache_view *view)
{
	if (view && atomic_fetch_sub(&view->refs, 1) == 1)
		view_free(view);
}

void cache_view_cleanup(struct cache_view **view)
{
	cache_view_unref(*view);
}

/* --- open --- */

/* What lies there is believed later, so that nobody else may write it. */
static int check_owner(const struct cache_view *view)
{
	struct stat st;
	if (fstat(view->dir_fd, &st) < 0)
		return -errno;
	if (st.st_uid != geteuid() && geteuid() != 0) {
		log_error("cache %s: the directory belongs to another user", view->dir);
		return -EACCES;
	}
	if ((st.st_mode & 077) && fchmod(view->dir_fd, 0700) < 0)
		return -errno;
	return 0;
}

static int open_dir(struct cache_view *view)
{
	int err = make_dirs(view->dir, 0700);
	if (!err) {
		view->dir_fd = open(view->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		err = view->dir_fd < 0 ? -errno : 0;
	}
	if (err)
		log_error("cache %s: cannot be used: %s", view->dir, strerror(-err));
	return err ? err : check_owner(view);
}

/* Whoever opens the directory does it alone. A descriptor that holds the lock, or an errno. */
static int opening_lock(struct cache_view *view)
{
	AUTO_CLOSE int fd = openat(view->dir_fd, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC,
				   0600);
	int err = fd < 0 ? -errno : cache_lock_byte(fd, F_WRLCK, 0, OPENING_MS);
	if (err == -EAGAIN) {
		log_warn("cache %s: another process has been opening it for %d s, and may be "
			 "stopped",
			 view->dir, OPENING_MS / 1000);
		return -EBUSY;
	}
	if (err) {
		log_error("cache %s: cannot lock it: %s", view->dir, strerror(-err));
		return err;
	}
	return steal_fd(&fd);
}

static int map_table(struct cache_view *view, uint32_t n)
{
	int prot = PROT_READ | PROT_WRITE;
	view->map_len = cache_table_bytes(n);
	view->map = mmap(NULL, view->map_len, prot, MAP_SHARED, view->table_fd, 0);
	if (view->map == MAP_FAILED)
		return -errno;
	view->broken = cache_guard_add(view->map, view->map_len, prot);
	if (!view->broken)
		return -ENOMEM;
	cache_table_init(&view->table, view->map, n);
	return 0;
}

/* Without it blocks are read by pread(2): there may be too little address space. */
static void map_arena(struct cache_view *view, uint32_t n)
{
	size_t len = (size_t)n * CACHE_BLOCK;
	void *arena = mmap(NULL, len, PROT_READ, MAP_SHARED | MAP_NORESERVE, view->arena_fd, 0);
	if (arena == MAP_FAILED)
		return;
	view->arena_broken = cache_guard_add(arena, len, PROT_READ);
	if (!view->arena_broken) {
		munmap(arena, len);
		return;
	}
	view->arena = arena;
	view->arena_len = len;
}

static int open_locked(struct cache_view *view, uint64_t limit_bytes)
{
	struct cache_made made;
	int err = cache_make(view, limit_bytes, &made);
	if (!err)
		err = map_table(view, made.n);
	if (err)
		return err;
	map_arena(view, made.n);
	err = become_this_process(view);
	if (err) {
		log_error("cache %s: cannot lock it: %s", view->dir, strerror(-err));
		return err;
	}
	if (made.stale) {
		cache_mend(view);
		view->table.head->boot = cache_boot();
	}
	cache_sweep(view);
	cache_shrink(view, view->table.head->capacity_pages);
	return 0;
}

int cache_view_open(const char *dir, uint64_t limit_bytes, struct cache_view **ret)
{
	AUTO_VIEW struct cache_view *view = view_new(dir);
	if (!view)
		return -ENOMEM;
	int err = open_dir(view);
	if (err)
		return err;
	AUTO_CLOSE int lock_fd = opening_lock(view);
	if (lock_fd < 0)
		return lock_fd;
	err = open_locked(view, limit_bytes);
	if (!err)
		*ret = STEAL(view);
	return err;
}

/* --- is it still there? --- */

static bool is_whole(int fd, uint64_t size_min)
{
	struct stat st;
	return fstat(fd, &st) == 0 && st.st_nlink > 0 && (uint64_t)st.st_size >= size_min;
}

bool cache_view_current(const struct cache_view *view)
{
	struct stat ours, named;
	AUTO_FREE char *path = format("%s/table", view->dir);
	if (!path)
		return true;
	if (cache_guard_broken(view->broken) || !is_whole(view->table_fd, view->map_len) ||
	    !is_whole(view->arena_fd, (uint64_t)view->table.n * CACHE_BLOCK) ||
	    !is_whole(view->files_fd, 0))
		return false;
	return fstat(view->table_fd, &ours) == 0 && lstat(path, &named) == 0 &&
	       ours.st_ino == named.st_ino && ours.st_dev == named.st_dev;
}
