/* SPDX-License-Identifier: Apache-2.0 */
/*
 * creds: what is stored for a registry, and storing it: the files of docker and podman, and the
 * credential helpers that they name.
 * Knows where the files lie and how a helper is run. Must not know challenges, tokens or HTTP.
 *
 * Files are read anew for each answer, so that a change is noticed without anybody being told. A
 * helper runs on a thread of this room, once for all who ask, and what it said is kept for some
 * seconds. Any thread; each function that reads or runs something takes a wait that may block.
 */
#ifndef REGFS_CREDS_H
#define REGFS_CREDS_H

#include "regfs/auth.h"
#include "regfs/hosts.h"

struct creds;

struct creds_options {
	/* The only file that is used; may be relative. NULL: $REGISTRY_AUTH_FILE, or the files of
	 * containers-auth.json(5) in their order. */
	const char *authfile;
	int64_t helper_timeout_ms; /* 0: 8,000 */
	/* Whose registries.conf may name helpers to ask beside the files; or NULL. Borrowed. */
	struct hosts *hosts;
};
/* Takes in the environment and the working directory. Nothing is read, no thread is started. NULL
 * when memory is short. */
struct creds *creds_new(const struct creds_options *options);
/* Ends helpers that still run. NULL is fine. */
void creds_free(struct creds *creds);

/*
 * The auth_lookup_fn; ARG is the creds. 0; -ENOENT: nothing is stored; -EACCES: a file or a helper
 * is not as it should be, logged; -ETIMEDOUT (the query's deadline), -EINTR, -EWOULDBLOCK, -ENOMEM.
 */
int creds_lookup(void *arg, const struct auth_query *query, struct wait *wait,
		 struct auth_credential *ret);

/* Every host that something is stored for, as hosts are written in the tree; some more than once.
 * FN stops the walk by returning non-zero, which is then returned. Files that cannot be read are
 * logged once, and passed over. */
typedef int creds_host_fn(void *arg, const char *host);
int creds_hosts(struct creds *creds, creds_host_fn *fn, void *arg, struct wait *wait);

/* Stores USER and PASSWORD for HOST where they will be found first: the file that has an entry for
 * it, else the one that docker and podman share; through the helper that this file names, if it
 * does. *RET_WHERE says where, for people; the caller frees. 0; -EACCES and others, logged. */
int creds_store(struct creds *creds, const char *host, const struct auth_credential *credential,
		struct wait *wait, char **ret_where);
/* Removes HOST's credentials from all the files and helpers that would be asked; calls FN for each
 * place. -ENOENT: there were none; others are logged. */
typedef void creds_where_fn(void *arg, const char *where);
int creds_erase(struct creds *creds, const char *host, creds_where_fn *fn, void *arg,
		struct wait *wait);

#endif
