/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the creds room share; nobody else includes it.
 *
 * creds.c          which files there are, and what they say
 * creds_ask.c      helpers' answers: one run for all who ask, kept for a while
 * creds_helper.c   one run of a helper: a process, its time, its answer
 * creds_store.c    login and logout: files rewritten, helpers told
 */
#ifndef REGFS_CREDS_PRIV_H
#define REGFS_CREDS_PRIV_H

#include <sys/stat.h>

#include "regfs/authfile.h"
#include "regfs/creds.h"
#include "regfs/pool.h"

#define CREDS_FILES_MAX 4

struct creds_file {
	char *path; /* absolute */
	enum authfile_form form;
	/* guarded by the creds' lock: the state of the file that was complained about */
	struct timespec bad_mtime;
	off_t bad_size;
	ino_t bad_ino;
	bool missed; /* it was said that it is not there */
};

/* What a helper said about a key. */
struct creds_answer {
	struct pool_work work;
	struct creds *creds;
	char *helper, *key; /* never change */
	/* guarded by the creds' lock from here on */
	struct creds_answer *next;
	struct authfile_entry entry;
	bool running;
	unsigned runs; /* that have ended */
	int error;     /* of the last one */
	int64_t ended_ms;
	unsigned refs; /* who waits */
	struct wait_queue waiters;
};

struct creds {
	struct creds_file files[CREDS_FILES_MAX]; /* in the order of reading */
	size_t nfiles;
	bool named;    /* the user has named the only one */
	size_t shared; /* the one that a login goes to */
	int64_t helper_timeout_ms;
	struct hosts *hosts; /* or NULL */
	int stop_fd;	     /* an eventfd: readable once helpers have to end */
	struct pool *pool;

	pthread_mutex_t lock;
	struct creds_answer *answers; /* guarded by lock */
	size_t nanswers;
};

/* A file's bytes; wiped when they are released. */
struct creds_text {
	char *data; /* NUL-terminated; NULL if there is no file */
	size_t len;
	struct stat st;
};
void creds_text_release(struct creds_text *text);
/* 0, -ENOENT, -EACCES (with a sentence), -ENOMEM. */
int creds_text_read(const char *path, struct creds_text *ret, const char **ret_why);

/* What FILE says. 0; -ENOENT: it is not there, or empty; -EACCES, logged; -ENOMEM. */
int creds_load(struct creds *creds, struct creds_file *file, struct authfile *ret);

/* HELPER's answer for KEY. 0; -ENOENT: it has nothing; -EACCES, logged; errors of the wait. */
int creds_ask(struct creds *creds, const struct authfile_choice *choice,
	      const struct auth_query *query, struct wait *wait, struct authfile_entry *ret);
void creds_answer_free(struct creds_answer *answer);

/* docker-credential-HELPER VERB, with INPUT to read. */
struct creds_call {
	const char *helper, *verb;
	const char *input;
	int64_t timeout_ms;
	int stop_fd;
};
#define CREDS_OUTPUT_MAX (64 * KIB)
/* Runs it to its end. RET is to be wiped. 0; -ENOENT: it says that it has nothing; -EACCES:
 * it could not be run, did not end, or failed, logged; -EINTR; -ENOMEM. Blocks as long as it
 * takes. */
int creds_helper_run(const struct creds_call *call, struct buf *ret);

static inline void secret_buf_release(struct buf *buf)
{
	if (buf->data)
		explicit_bzero(buf->data, buf->cap);
	buf_release(buf);
}
#define AUTO_SECRET_BUF CLEANUP(secret_buf_release)

#endif
