/* SPDX-License-Identifier: Apache-2.0 */
/*
 * server: registries as child processes, for the tests of the rooms that talk to them. They speak
 * on loopback only, and end with the test: by server_stop(), or when its pipe closes.
 */
#ifndef REGFS_TESTS_SERVER_H
#define REGFS_TESTS_SERVER_H

#include "regfs/util.h"

struct server {
	pid_t pid;
	int in; /* closing it ends badregistry.py */
	int port, other_port;
	char host[32];	/* "127.0.0.1:PORT" */
	char other[32]; /* its second port */
	char dir[64];	/* of docker-registry: its files; "" else */
};

/* tests/fs/badregistry.py. ARGS: further arguments, NULL-terminated, or NULL. 0 or a negative
 * errno. */
int server_start_bad(struct server *server, const char *const *args);
struct server_docker {
	bool with_delete;
	const char *tls_dir; /* of server_make_cert(); NULL: plain HTTP */
};
/* docker-registry with an empty store; -ENOENT where it is not installed. */
int server_start_docker(struct server *server, const struct server_docker *options);
/* A certificate for 127.0.0.1 that signs itself: DIR/cert.pem and DIR/key.pem. 0 or -EIO. */
int server_make_cert(const char *dir);
/* A fresh directory under $TMPDIR; removed with all that is in it. */
int server_make_dir(char ret[static 64]);
void server_remove_dir(const char *dir);
void server_stop(struct server *server);

/* The remote control of badregistry.py. */
void server_order(const struct server *server, const char *json);
void server_rule(const struct server *server, const char *method, const char *path,
		 const char *actions);
/* Requests so far whose "main GET /path" REGEX finds. */
int server_count(const struct server *server, const char *regex);
/* A header of the last such request: "-" if it had none, "?" if there is no such request. */
void server_header(const struct server *server, const char *regex, const char *name, char *ret,
		   size_t cap);
/* The body of an answer to GET PATH, for "/_control?…" and for looking behind the client. */
char *server_get(const struct server *server, const char *path);

#endif
