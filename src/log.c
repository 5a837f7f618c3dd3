/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log: levels, redaction, and the ring of recent events behind _regfs/log.
 * Knows stderr, syslog and the clock. Must not know its callers.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <strings.h>
#include <syslog.h>
#include <time.h>

#include "regfs/log.h"

#define LOG_LINES    1000
#define LOG_LINE_MAX 4096 /* bytes of a line; what is longer is cut */
#define LOG_TIME_LEN 21	  /* "2026-01-31T12:00:00Z" and a NUL */

/*
 * The one mutable global of the program: every room logs, and a handle for it in each
 * prototype would say nothing.
 */
static struct {
	_Atomic int level;
	_Atomic bool to_syslog;
	_Atomic uint64_t generation;
	pthread_mutex_t lock;
	/* guarded by lock */
	char *lines[LOG_LINES]; /* owned; NULL until first used */
	size_t next;		/* where the next line goes: the oldest, once all are set */
	size_t total_bytes;
} ring = {.level = LOG_LEVEL_INFO, .lock = PTHREAD_MUTEX_INITIALIZER};

static const char *const level_names[] = {
	[LOG_LEVEL_ERROR] = "error",
	[LOG_LEVEL_WARN] = "warn",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
};

int log_level_parse(const char *name, enum log_level *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(level_names); i++) {
		if (strcmp(name, level_names[i]) == 0) {
			*ret = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

void log_set_level(enum log_level level)
{
	atomic_store(&ring.level, (int)level);
}

void log_to_syslog(void)
{
	openlog("regfs", LOG_PID, LOG_DAEMON);
	atomic_store(&ring.to_syslog, true);
}

/* ---- redaction ---- */

static bool ends_value(char c)
{
	return c == '\0' || (unsigned char)c <= ' ' || c == '"' || c == '\'' || c == '<' ||
	       c == '>';
}

/* Replaces FROM … END by stars, at most as many as there were bytes; returns where they end. */
static char *blank(char *from, char *end)
{
	size_t stars = MIN((size_t)(end - from), (size_t)3);

	memset(from, '*', stars);
	memmove(from + stars, end, strlen(end) + 1);
	return from + stars;
}

/* AT is past "authorization". The value runs to the closing quote or the end of the line, since
 * it has blanks in it ("Basic dXNlcjpwdw=="). */
static char *redact_header(char *at)
{
	char *value = at + strspn(at, "\"' \t");

	if (*value != ':' && *value != '=')
		return at;
	value++;
	value += strspn(value, " \t");
	if (*value == '"' || *value == '\'')
		value++;
	return blank(value, value + strcspn(value, "\"'\r\n"));
}

/* AT is past "://": takes out what stands before the last @ of the authority. */
static char *redact_userinfo(char *at)
{
	char *end = at, *sign = NULL;

	for (; !ends_value(*end) && *end != '/' && *end != '?' && *end != '#'; end++) {
		if (*end == '@')
			sign = end;
	}
	return sign && sign > at ? blank(at, sign) : at;
}

/* AT is past "?": takes out the value of each NAME=VALUE. */
static char *redact_query(char *at)
{
	while (!ends_value(*at)) {
		at += strcspn(at, "=&; \t\r\n\"'<>");
		if (*at == '=') {
			char *end = at + 1;
			while (!ends_value(*end) && *end != '&' && *end != ';')
				end++;
			at = blank(at + 1, end);
		}
		if (*at == '&' || *at == ';')
			at++;
	}
	return at;
}

void log_redact(char *line)
{
	static const char header[] = "authorization";
	char *at = line;

	while (*at) {
		if (strncasecmp(at, header, sizeof(header) - 1) == 0)
			at = redact_header(at + sizeof(header) - 1);
		else if (strncmp(at, "://", 3) == 0)
			at = redact_userinfo(at + 3);
		else if (*at == '?')
			at = redact_query(at + 1);
		else
			at++;
	}
}

/* ---- writing ---- */

static void format_time(char out[static LOG_TIME_LEN])
{
	time_t now = time(NULL);
	struct tm tm;

	gmtime_r(&now, &tm);
	if (strftime(out, LOG_TIME_LEN, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		out[0] = '\0';
}

static void keep(enum log_level level, const char *line)
{
	char when[LOG_TIME_LEN];
	AUTO_FREE char *kept = NULL;
	AUTO_FREE char *oldest = NULL;

	format_time(when);
	kept = format("%s %s %s\n", when, level_names[level], line);
	if (!kept)
		return;
	pthread_mutex_lock(&ring.lock);
	oldest = ring.lines[ring.next];
	ring.total_bytes += strlen(kept) - (oldest ? strlen(oldest) : 0);
	ring.lines[ring.next] = STEAL(kept);
	ring.next = (ring.next + 1) % LOG_LINES;
	atomic_fetch_add(&ring.generation, 1);
	pthread_mutex_unlock(&ring.lock);
}

static void emit(enum log_level level, const char *line)
{
	static const int priorities[] = {
		[LOG_LEVEL_ERROR] = LOG_ERR,
		[LOG_LEVEL_WARN] = LOG_WARNING,
		[LOG_LEVEL_INFO] = LOG_INFO,
		[LOG_LEVEL_DEBUG] = LOG_DEBUG,
	};

	if (atomic_load(&ring.to_syslog))
		syslog(priorities[level], "%s", line);
	else
		fprintf(stderr, "regfs: %s: %s\n", level_names[level], line);
}

static void PRINTF_LIKE(2, 0) write_line(enum log_level level, const char *fmt, va_list args)
{
	char line[LOG_LINE_MAX];
	int saved = errno;

	if ((int)level <= atomic_load(&ring.level)) {
		vsnprintf(line, sizeof(line), fmt, args);
		/* A line is one event: what a registry sent cannot begin another. */
		replace_controls(line, ' ');
		log_redact(line);
		keep(level, line);
		emit(level, line);
	}
	errno = saved;
}

#define LOG_FUNCTION(name, level)                                                                  \
	void name(const char *fmt, ...)                                                            \
	{                                                                                          \
		va_list args;                                                                      \
		va_start(args, fmt);                                                               \
		write_line(level, fmt, args);                                                      \
		va_end(args);                                                                      \
	}

LOG_FUNCTION(log_error, LOG_LEVEL_ERROR)
LOG_FUNCTION(log_warn, LOG_LEVEL_WARN)
LOG_FUNCTION(log_info, LOG_LEVEL_INFO)
LOG_FUNCTION(log_debug, LOG_LEVEL_DEBUG)

/* ---- reading ---- */

/* All lines, oldest first, as one string; NULL when memory is short. */
static char *snapshot(size_t *ret_len)
{
	char *text, *at;

	pthread_mutex_lock(&ring.lock);
	text = at = malloc(ring.total_bytes + 1);
	for (size_t i = 0; text && i < LOG_LINES; i++) {
		const char *line = ring.lines[(ring.next + i) % LOG_LINES];
		if (line)
			at = stpcpy(at, line);
	}
	*ret_len = ring.total_bytes;
	pthread_mutex_unlock(&ring.lock);
	return text;
}

int log_recent(struct buf *ret)
{
	size_t len;
	AUTO_FREE char *text = snapshot(&len);

	return text ? buf_add(ret, text, len) : -ENOMEM;
}

uint64_t log_generation(void)
{
	return atomic_load(&ring.generation);
}
