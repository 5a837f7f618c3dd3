/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_interrupt: whether the kernel's INTERRUPT of a request means that its caller is to stop.
 * Must not know what requests do.
 *
 * The kernel sends it for whatever signal the caller has, and once. On a disk's file system no such
 * signal interrupts anything, and programs count on that: Go's runtime moves its threads on by
 * SIGURG, and nobody calls close() a second time. So an INTERRUPT that only such signals stand
 * behind is passed over. As there will be no other, its caller is looked at from then on until the
 * request is answered.
 */
#include <errno.h>
#include <signal.h>

#include "fs_priv.h"

#define LOOK_MS	    100
#define WATCHED_MAX 64 /* more at a time are taken at their word */
#define PROC_MAX    4096
#define EXITING	    0x4 /* PF_EXITING, in the flags of proc(5)'s stat */

enum meaning {
	NOTHING,  /* no signal is there */
	HARMLESS, /* it has some, which ask for nothing */
	STOP,
};

static uint64_t bit(int signal)
{
	return UINT64_C(1) << (signal - 1);
}

/* The set of signals called NAME in STATUS; none where it says nothing of that. */
static uint64_t signal_set(const char *status, const char *name)
{
	const char *at = strstr(status, name);

	return at ? strtoull(at + strlen(name), NULL, 16) : 0;
}

/* proc(5): the flags are the seventh field behind the name, which may hold anything. */
static bool is_exiting(const char *stat)
{
	const char *at = strrchr(stat, ')');
	unsigned flags;

	return !at || sscanf(at, ") %*c %*d %*d %*d %*d %*d %u", &flags) != 1 || (flags & EXITING);
}

static enum meaning meaning_of(pid_t caller)
{
	const uint64_t harmless = bit(SIGURG) | bit(SIGCHLD) | bit(SIGWINCH) | bit(SIGCONT) |
				  bit(SIGIO) | bit(SIGPROF) | bit(SIGVTALRM);
	char text[PROC_MAX];
	uint64_t pending;

	if (caller <= 0 || read_proc(caller, "stat", text, sizeof(text)) < 0 || is_exiting(text) ||
	    read_proc(caller, "status", text, sizeof(text)) < 0)
		return STOP;
	pending = signal_set(text, "\nSigPnd:") | signal_set(text, "\nShdPnd:");
	pending &= ~signal_set(text, "\nSigBlk:");
	if (!pending)
		return NOTHING;
	return pending & ~harmless ? STOP : HARMLESS;
}

/* --- looking again --- */

/* Whose requests are watched. Their number; 0: nobody looks any more. */
static size_t watched(struct fs *fs, pid_t ret[static WATCHED_MAX])
{
	size_t n = 0;

	pthread_mutex_lock(&fs->lock);
	for (struct request *request = fs->parked; request && !fs->ending; request = request->next)
		if (request->watched && n < WATCHED_MAX)
			ret[n++] = request->call.pid;
	fs->watching = n > 0;
	pthread_mutex_unlock(&fs->lock);
	return n;
}

static void cancel(struct fs *fs, pid_t caller)
{
	pthread_mutex_lock(&fs->lock);
	for (struct request *request = fs->parked; request; request = request->next) {
		if (request->watched && request->call.pid == caller) {
			request->watched = false;
			wait_cancel(&request->wait);
		}
	}
	pthread_mutex_unlock(&fs->lock);
}

static void watch(struct pool_work *work)
{
	struct fs *fs = CONTAINER_OF(work, struct fs, watch);
	pid_t callers[WATCHED_MAX];
	struct wait wait;
	size_t n;

	wait_init(&wait, true);
	while ((n = watched(fs, callers)) > 0) {
		wait_until(&wait, now_ms() + LOOK_MS);
		for (size_t i = 0; i < n; i++)
			if (meaning_of(callers[i]) == STOP)
				cancel(fs, callers[i]);
	}
	wait_release(&wait);
}

/* False: there is nobody to look. */
static bool watch_request(struct request *request)
{
	struct fs *fs = request->fs;
	unsigned n = 0;
	bool start;

	pthread_mutex_lock(&fs->lock);
	for (struct request *other = fs->parked; other; other = other->next)
		n += other->watched;
	request->watched = n < WATCHED_MAX && !fs->ending;
	start = request->watched && !fs->watching;
	fs->watching |= start;
	pthread_mutex_unlock(&fs->lock);
	if (!start)
		return request->watched;
	fs->watch.run = watch;
	if (pool_submit(fs->pool, &fs->watch) == 0)
		return true;
	pthread_mutex_lock(&fs->lock);
	fs->watching = request->watched = false;
	pthread_mutex_unlock(&fs->lock);
	return false;
}

void request_interrupted(struct request *request)
{
	if (meaning_of(request->call.pid) != HARMLESS || !watch_request(request))
		wait_cancel(&request->wait);
}
