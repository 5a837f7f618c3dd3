/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log: levels, redaction, and the ring of recent events behind _regfs/log.
 * Knows stderr, syslog and the clock. Must not know its callers.
 *
 * Any thread. A line is one event: a sentence that names the host, the repository
 * and the reason. Secrets are taken out before a line is kept or written: values of
 * Authorization headers, user:password@ in URLs, and values of query parameters
 * (signed URLs carry credentials there).
 */
#ifndef REGFS_LOG_H
#define REGFS_LOG_H

#include "regfs/buf.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* "error", "warn", "info", "debug". 0 or -EINVAL. */
int log_level_parse(const char *name, enum log_level *ret);
/* Lines at LEVEL or more severe are kept; the default is LOG_LEVEL_INFO. */
void log_set_level(enum log_level level);
/* Where lines go beside the ring: stderr (the start, and with -f), or syslog. */
void log_to_syslog(void);

void log_error(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_warn(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_info(const char *fmt, ...) PRINTF_LIKE(1, 2);
void log_debug(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* The recent events, oldest first, a line each ("2026-01-31T12:00:00Z error …\n").
 * The ring holds the last 1,000 lines. 0 or -ENOMEM/-EFBIG. */
int log_recent(struct buf *ret);
/* Grows by one with each kept line: a cheap "has it changed". */
uint64_t log_generation(void);

/* Takes the secrets out of LINE in place (it never grows). Exposed for its test. */
void log_redact(char *line);

#endif
