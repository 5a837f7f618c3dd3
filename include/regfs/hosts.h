/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hosts: by which ways a registry is reached: mirrors, rewritten locations, what is blocked, and
 * each way's TLS; out of the files that podman, docker and containerd read
 * (containers-registries.conf(5), containers-certs.d(5), docker's certs.d, containerd's
 * docs/hosts.md).
 * Knows these files and where they lie. Must not know requests, credentials, or who is asked.
 *
 * A [[registry]] table that fits decides; else a hosts.toml; else the host is asked by its name.
 * The files are read again when an answer is older than a second, so that changes are noticed. A
 * file that is there and cannot be understood might block or redirect any host it speaks of: these
 * are refused with -EACCES and a line in the log that names file and line. Any thread.
 */
#ifndef REGFS_HOSTS_H
#define REGFS_HOSTS_H

#include "regfs/http.h"

struct hosts;

struct hosts_options {		     /* all may be NULL; copied */
	const char *registries_conf; /* instead of the usual files; FILE.d/ is read after it */
	const char *certs_dir;	     /* instead of the usual directories */
	const char *cacert;	     /* PEM file, trusted for every host */
	const char *const *insecure; /* hosts; NULL-terminated */
};
/* Reads no file. NULL when memory is short. */
struct hosts *hosts_new(const struct hosts_options *options);
void hosts_free(struct hosts *hosts);

enum hosts_scheme {
	HOSTS_HTTPS,
	HOSTS_HTTP,
	HOSTS_LOCAL,	/* this machine: plain HTTP or TLS, as it turns out */
	HOSTS_INSECURE, /* TLS without verification, else plain HTTP */
};

/* What an endpoint may be asked for. */
enum {
	HOSTS_PULL = 1,	   /* what has a digest */
	HOSTS_RESOLVE = 2, /* what a tag names, and lists */
	HOSTS_PUSH = 4,
	HOSTS_ORIGIN = 8, /* no mirror: what it says counts */
	HOSTS_LATE = 16,  /* for pulls, only after the origin */
};

struct hosts_endpoint {
	enum hosts_scheme scheme;
	unsigned can;
	char *host;	/* to connect to: "registry-1.docker.io", "localhost:5000" */
	char *key;	/* whose credentials are used: "docker.io" */
	char *path;	/* before "/v2" in its URLs; "" as a rule */
	bool bare_path; /* .path stands in place of "/v2" */
	char *repo;	/* the repository's name there; NULL if none was asked for */
	char *ns;	/* ?ns= of each request; NULL: none */
	char **headers; /* "Name: value", NULL-terminated; NULL: none */
	char *ca_pem;	/* certificates to trust beside the system's; NULL: none */
	char *cert_file, *key_file;
	bool skip_verify;
	uint64_t identity; /* the same for endpoints that differ in .repo and .can alone */
};

/* Mirrors in their order, then the origin, then who may be pushed to where that is another. */
struct hosts_answer {
	struct hosts_endpoint *endpoints;
	size_t n; /* at least 1 */
};

/* How REPO (NULL: the host as a whole) of HOST is reached. *RET is let go with
 * hosts_answer_unref(). 0, -ENOMEM, or -EACCES: blocked, or a file is not understood; logged. */
int hosts_find(struct hosts *hosts, const char *host, const char *repo,
	       const struct hosts_answer **ret);
void hosts_answer_unref(const struct hosts_answer *answer);

/* What the short name NAME ("alpine", no tag) stands for: "HOST/REPO", the caller's. 0, -ENOENT if
 * there is no alias, -EACCES, -ENOMEM. */
int hosts_alias(struct hosts *hosts, const char *name, char **ret);

/* Where HOST's credentials are to be looked for, in this order: names of credential helpers, and
 * HOSTS_AUTH_FILES for the files; NULL-terminated, for hosts_helpers_free(). *RET stays where
 * registries.conf says nothing of it. 0, -EACCES (logged), -ENOMEM. */
#define HOSTS_AUTH_FILES "containers-auth.json"
int hosts_helpers(struct hosts *hosts, const char *host, char ***ret);
void hosts_helpers_free(char **helpers);

#endif
