/* SPDX-License-Identifier: Apache-2.0 */
/* registry_help: a store over badregistry.py, for the tests of registry and auth. */
#ifndef REGFS_TESTS_REGISTRY_HELP_H
#define REGFS_TESTS_REGISTRY_HELP_H

#include "regfs/registry.h"
#include "server.h"

/* Short, so that tests of silence are; long enough for a machine under load. */
#define HELP_NAME_TIMEOUT_MS 3000
#define HELP_TIMEOUT_MS	     3000

struct help {
	struct server server;
	struct http *http;
	struct store *store;
	struct wait wait;
};
extern struct help help;

/* cmocka fixtures: one server for the group; rules and requests are cleared and the client is new
 * for each test. */
int help_group_setup(void **state);
int help_group_teardown(void **state);
int help_setup(void **state);
int help_teardown(void **state);

/* Another store on HOST, made with OPTIONS' other fields. */
struct store *help_store(const char *host, struct registry_options options);
/* badregistry.py's blob of SIZE bytes, in REPO: its digest. Byte i is help_byte(i). */
struct digest help_blob(const char *repo, uint64_t size);
uint8_t help_byte(uint64_t off);
/* A manifest of BYTES under TAG (may be NULL). */
struct digest help_manifest(const char *repo, const char *tag, const char *bytes);
/* Whether _regfs/log would show WORDS. */
bool help_logged(const char *words);
/* Reads STREAM to its end in pieces, checks each byte; the count or a negative errno. */
ssize_t help_drain(struct store_stream *stream, uint64_t off);

#endif
