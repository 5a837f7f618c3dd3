/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the hosts room share; nobody else includes it.
 *
 * hosts.c             where the files lie; answers, kept for a moment
 * hosts_endpoint.c    one endpoint, and a list of them
 * hosts_registries.c  registries.conf: tables, which of them fits, what it leads to
 * hosts_toml.c        containerd's hosts.toml
 * hosts_certs.c       certificates and keys: certs.d directories, and files named elsewhere
 */
#ifndef REGFS_HOSTS_PRIV_H
#define REGFS_HOSTS_PRIV_H

#include "regfs/buf.h"
#include "regfs/hosts.h"
#include "regfs/toml.h"

#define HOSTS_HUB	   "docker.io"
#define HOSTS_HUB_ENDPOINT "registry-1.docker.io"
#define HOSTS_WHY_MAX	   640
#define HOSTS_ROOTS_MAX	   8
/* More in one answer make no sense. */
#define HOSTS_ENDPOINTS_MAX 32

struct hosts {
	/* constant */
	char *registries_conf, *registries_dir; /* with its drop-ins; NULL: the usual places */
	char *home_conf, *home_dir;		/* of the user's own; NULL without a home */
	char *cert_roots[HOSTS_ROOTS_MAX];	/* the first that has the host; NULL-terminated */
	char *toml_roots[HOSTS_ROOTS_MAX];
	char *cacert;
	char **insecure;

	pthread_mutex_t lock;
	struct hosts_entry *entries; /* guarded by lock; most recent first */
};

/* One look at the files, for HOST and REPO. */
struct hosts_look {
	const struct hosts *hosts;
	const char *host, *repo;
	struct hosts_answer *answer; /* being made */
	char why[HOSTS_WHY_MAX];
};
/* -EACCES, with a sentence. */
int hosts_refuse(struct hosts_look *look, const char *fmt, ...) PRINTF_LIKE(2, 3);
bool hosts_is_insecure(const struct hosts *hosts, const char *host);
/* Reads and parses FILE. 0; -ENOENT if it is not there; -EACCES; -ENOMEM. */
int hosts_parse(struct hosts_look *look, const char *file, struct toml **ret);
static inline void hosts_toml_cleanup(struct toml **root)
{
	toml_free(*root);
}
#define AUTO_TOML CLEANUP(hosts_toml_cleanup)

/* A new endpoint at the end of the answer, for HOST, with its own credentials, the scheme that
 * fits, and the look's repository. 0, -ENOMEM, -EACCES (too many). */
int hosts_add(struct hosts_look *look, const char *host, unsigned can, struct hosts_endpoint **ret);
/* Its certs.d directory, the trusted file of all hosts, and its identity: the last step. */
int hosts_finish(struct hosts_look *look, struct hosts_endpoint *endpoint);
void hosts_answer_free(struct hosts_answer *answer);

/* Adds the certificates in FILE to the endpoint's. */
int hosts_add_ca(struct hosts_look *look, struct hosts_endpoint *endpoint, const char *file);
/* KEY may be NULL: it is in CERT, too. Only the first pair is used. */
int hosts_set_client(struct hosts_look *look, struct hosts_endpoint *endpoint, const char *cert,
		     const char *key);
/* What the certs.d directories say about the endpoint's host. */
int hosts_read_certs(struct hosts_look *look, struct hosts_endpoint *endpoint);

/* 1: there was something that decides, and the answer is filled; 0: there was not; or -EACCES,
 * -ENOMEM. */
int hosts_from_registries(struct hosts_look *look);
int hosts_from_toml(struct hosts_look *look);
/* 0, -ENOENT, -EACCES, -ENOMEM. */
int hosts_find_alias(struct hosts_look *look, const char *name, char **ret);
/* 0 (*RET as it was: nothing is said), -EACCES, -ENOMEM. */
int hosts_find_helpers(struct hosts_look *look, char ***ret);

/* The names of DIR that end with SUFFIX, sorted; NULL-terminated; NULL where there is no such
 * directory. Freed by hosts_names_free(). 0, -EACCES, -ENOMEM. */
int hosts_names(struct hosts_look *look, const char *dir, const char *suffix, char ***ret);
void hosts_names_free(char **names);
static inline void hosts_names_cleanup(char ***names)
{
	hosts_names_free(*names);
}
#define AUTO_NAMES CLEANUP(hosts_names_cleanup)

#endif
