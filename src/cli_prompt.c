/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli_prompt: a question on the terminal.
 * Knows termios. Must not know what is asked.
 *
 * A signal must not leave a terminal behind that does not echo: signals are held back while it is
 * so, looked for, and delivered when all is as it was.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <termios.h>

#include "cli_priv.h"

#define LINE_LEN_MAX 4096 /* the kernel's own limit of a line */

struct prompt {
	int tty;
	int signals; /* readable once one is held back */
	bool secret;
	struct termios before;
	sigset_t mask_before;
};

/* Those that end or stop a program from the keyboard or from outside. */
static void hold_back(sigset_t *ret)
{
	static const int held[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP};

	sigemptyset(ret);
	for (size_t i = 0; i < ARRAY_SIZE(held); i++)
		sigaddset(ret, held[i]);
}

static int begin(struct prompt *prompt)
{
	struct termios quiet;
	sigset_t held;

	if (tcgetattr(prompt->tty, &prompt->before) != 0)
		return -ENOTTY;
	hold_back(&held);
	sigprocmask(SIG_BLOCK, &held, &prompt->mask_before);
	prompt->signals = signalfd(-1, &held, SFD_CLOEXEC);
	quiet = prompt->before;
	if (prompt->secret)
		quiet.c_lflag = (quiet.c_lflag & ~(tcflag_t)ECHO) | ECHONL;
	if (prompt->signals < 0 || tcsetattr(prompt->tty, TCSAFLUSH, &quiet) != 0)
		return -EIO;
	return 0;
}

static void end(struct prompt *prompt)
{
	tcsetattr(prompt->tty, TCSAFLUSH, &prompt->before);
	if (prompt->signals >= 0)
		close(prompt->signals);
	prompt->signals = -1;
	/* and now they come */
	sigprocmask(SIG_SETMASK, &prompt->mask_before, NULL);
}

/* -EINTR: a signal is waiting. */
static ssize_t read_line(const struct prompt *prompt, char line[static LINE_LEN_MAX])
{
	struct pollfd fds[] = {
		{.fd = prompt->signals, .events = POLLIN},
		{.fd = prompt->tty, .events = POLLIN},
	};
	ssize_t n;

	while (poll(fds, ARRAY_SIZE(fds), -1) < 0)
		if (errno != EINTR)
			return -EIO;
	if (fds[0].revents)
		return -EINTR;
	n = read(prompt->tty, line, LINE_LEN_MAX);
	return n > 0 ? n : -EIO;
}

static int ask_once(struct prompt *prompt, const char *label, char **ret)
{
	char line[LINE_LEN_MAX];
	ssize_t len = begin(prompt);

	if (len == 0 && write(prompt->tty, label, strlen(label)) < 0)
		len = -EIO;
	if (len == 0)
		len = read_line(prompt, line);
	end(prompt);
	if (len < 0)
		return (int)len;
	while (len > 0 && (line[len - 1] == '\n' || line[len - 1] == '\r'))
		len--;
	*ret = strndup(line, len);
	explicit_bzero(line, sizeof(line));
	return *ret ? 0 : -ENOMEM;
}

int cli_prompt(const char *label, bool secret, char **ret)
{
	AUTO_CLOSE int tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	struct prompt prompt = {.tty = tty, .signals = -1, .secret = secret};
	int err;

	if (tty < 0)
		return -ENOTTY;
	do /* a signal that has not ended us stopped us: the question is not on the screen any more
	    */
		err = ask_once(&prompt, label, ret);
	while (err == -EINTR);
	return err;
}
