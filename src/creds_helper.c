/* SPDX-License-Identifier: Apache-2.0 */
/*
 * creds_helper: one run of a credential helper (docker-credential-helpers, "Development"): a
 * process without a shell, with a limit of its time and of what it prints.
 * Must not know what is asked and answered.
 *
 * What it reads comes from a file in memory: nothing of it stands in its arguments or its
 * environment, and no pipe can be full.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "creds_priv.h"
#include "regfs/log.h"

extern char **environ;

#define WORDS_MAX 160 /* of a helper's complaint */

struct child {
	pid_t pid;
	int pidfd;
	int output; /* our end of its pipe, which does not block */
};

/* --- starting --- */

static int make_input(const char *text, int *ret)
{
	size_t len = strlen(text);
	AUTO_CLOSE int fd = memfd_create("credentials", MFD_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (pwrite_full(fd, text, len, 0) != (ssize_t)len)
		return -EIO;
	*ret = steal_fd(&fd);
	return 0;
}

static void actions_release(posix_spawn_file_actions_t *actions)
{
	posix_spawn_file_actions_destroy(actions);
}

static void attr_release(posix_spawnattr_t *attr)
{
	posix_spawnattr_destroy(attr);
}

/* A group of its own, so that what it has started ends with it; signals as a program expects them.
 */
static int set_attr(posix_spawnattr_t *attr)
{
	sigset_t none, usual;
	int err;

	sigemptyset(&none);
	sigfillset(&usual);
	err = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
						     POSIX_SPAWN_SETSIGDEF);
	err = err ? err : posix_spawnattr_setpgroup(attr, 0);
	err = err ? err : posix_spawnattr_setsigmask(attr, &none);
	return err ? err : posix_spawnattr_setsigdefault(attr, &usual);
}

/* A positive errno, as posix_spawn(3) has it. */
static int spawn(const struct creds_call *call, int input, int output, pid_t *ret)
{
	AUTO_FREE char *program = format("docker-credential-%s", call->helper);
	char *argv[] = {program, (char *)call->verb, NULL};
	CLEANUP(actions_release) posix_spawn_file_actions_t actions;
	CLEANUP(attr_release) posix_spawnattr_t attr;
	int err = posix_spawn_file_actions_init(&actions);

	err = err ? err : posix_spawnattr_init(&attr);
	err = err ? err : set_attr(&attr);
	err = err ? err : posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
	err = err ? err : posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
	err = err ? err : posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
	if (!program)
		return ENOMEM;
	return err ? err : posix_spawnp(ret, program, &actions, &attr, argv, environ);
}

static int start(const struct creds_call *call, struct child *ret)
{
	AUTO_CLOSE int input = -1;
	AUTO_CLOSE int from = -1;
	AUTO_CLOSE int to = -1;
	int ends[2];
	int err = make_input(call->input, &input);

	if (err)
		return err;
	if (pipe2(ends, O_CLOEXEC) != 0)
		return -errno;
	from = ends[0];
	to = ends[1];
	if (fcntl(from, F_SETFL, O_NONBLOCK) != 0)
		return -errno;
	err = spawn(call, input, to, &ret->pid);
	if (err)
		return -err;
	ret->pidfd = (int)syscall(SYS_pidfd_open, ret->pid, 0);
	ret->output = steal_fd(&from);
	return 0;
}

/* --- following --- */

/* All that is there. 0: more may come; 1: the end. */
static int drain(int fd, struct buf *ret)
{
	for (;;) {
		size_t room = ret->max - ret->len;
		/* One byte too many is an error, not a cut. */
		char extra, *to = room ? ret->data + ret->len : &extra;
		ssize_t n = read(fd, to, room ? room : 1);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		if (n == 0)
			return 1;
		if (!room)
			return -EFBIG;
		ret->len += n;
	}
}

/* Until it has ended, whether or not its output has: something in the background may hold that. */
static int follow(const struct creds_call *call, struct child *child, struct buf *ret)
{
	int64_t deadline_ms = now_ms() + call->timeout_ms;
	struct pollfd fds[] = {
		{.fd = child->pidfd, .events = POLLIN},
		{.fd = call->stop_fd, .events = POLLIN},
		{.fd = child->output, .events = POLLIN},
	};

	if (child->pidfd < 0)
		return -EIO;
	for (;;) {
		int64_t left_ms = deadline_ms - now_ms();
		int r;

		if (left_ms <= 0)
			return -ETIMEDOUT;
		if (poll(fds, ARRAY_SIZE(fds), (int)MIN(left_ms, (int64_t)INT32_MAX)) < 0 &&
		    errno != EINTR)
			return -errno;
		if (fds[1].revents)
			return -EINTR;
		r = fds[2].fd >= 0 ? drain(child->output, ret) : 1;
		if (r < 0)
			return r;
		if (fds[0].revents)
			return 0;
		if (r > 0)
			fds[2].fd = -1;
	}
}

/* Its exit status; -1 where it was ended by a signal. */
static int reap(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* --- verdicts --- */

static int complain(const struct creds_call *call, const char *what, const char *words)
{
	log_warn("credential helper docker-credential-%s: %s%s%s", call->helper, what,
		 *words ? ": " : "", words);
	return -EACCES;
}

static int failed(const struct creds_call *call, int err)
{
	char what[64];

	switch (err) {
	case -EINTR:
	case -ENOMEM:
		return err;
	case -ENOENT:
		return complain(call, "it is not in PATH; install it, or take it out of the file",
				"");
	case -ETIMEDOUT:
		snprintf(what, sizeof(what), "no answer within %.1f s",
			 (double)call->timeout_ms / 1000);
		return complain(call, what, "");
	case -EFBIG:
		return complain(call, "it prints more than 64 KiB", "");
	default:
		return complain(call, "it cannot be run", strerrordesc_np(-err));
	}
}

/* It failed, and says why on its standard output. What might be a document might hold secrets. */
static int refused(const struct creds_call *call, int status, const struct buf *output)
{
	char what[64], words[WORDS_MAX + 1];
	size_t len = strcspn(output->data, "\r\n");

	/* the one sentence that the protocol knows */
	if (strstr(output->data, "credentials not found"))
		return -ENOENT;
	snprintf(words, sizeof(words), "%.*s", (int)MIN(len, (size_t)WORDS_MAX), output->data);
	if (status < 0)
		return complain(call, "it was ended by a signal", "");
	snprintf(what, sizeof(what), "it failed (exit status %d)", status);
	return complain(call, what, strchr(words, '{') ? "" : words);
}

int creds_helper_run(const struct creds_call *call, struct buf *ret)
{
	struct child child = {.pidfd = -1, .output = -1};
	int status, err;

	/* All at once: growing would leave copies of secrets behind. */
	err = buf_reserve(ret, ret->max);
	err = err ? err : start(call, &child);
	if (err)
		return failed(call, err);
	ret->data[ret->len] = '\0';
	err = follow(call, &child, ret);
	ret->data[ret->len] = '\0';
	if (err)
		kill(-child.pid, SIGKILL);
	status = reap(child.pid);
	close(child.output);
	if (child.pidfd >= 0)
		close(child.pidfd);
	if (err)
		return failed(call, err);
	return status == 0 ? 0 : refused(call, status, ret);
}
