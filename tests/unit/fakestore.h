/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fakestore: the body of `store` for unit tests: repositories in memory, with delays and faults on
 * request.
 *
 * Setters may be called at any time from any thread; a fault stays until it is taken back. Want of
 * memory aborts: this is for tests.
 */
#ifndef REGFS_TESTS_FAKESTORE_H
#define REGFS_TESTS_FAKESTORE_H

#include "regfs/store.h"

enum fakestore_op {
	FAKE_LIST_REPOS,
	FAKE_LIST_TAGS,
	FAKE_HEAD,
	FAKE_GET_MANIFEST,
	FAKE_REFERRERS,
	FAKE_HAS_BLOB,
	FAKE_OPEN_BLOB,
	FAKE_PUT_BLOB,
	FAKE_PUT_MANIFEST,
	FAKE_UNTAG,
	FAKE_DELETE_MANIFEST,
	FAKE_MAKE_REPO,
	FAKE_PING,
	FAKE_OPS
};

/* NAME is the host it plays. Free it with store_free(), when nobody stalls in it. */
struct store *fakestore_new(const char *name);

/* --- content --- */

/* Repositories come into being with what is put into them. RET_DIGEST may be NULL. */
void fakestore_add_blob(struct store *store, const char *repo, const void *data, size_t len,
			struct digest *ret_digest);
/* A blob that is not what its digest says. */
void fakestore_add_wrong_blob(struct store *store, const char *repo, const struct digest *digest,
			      const void *data, size_t len);
void fakestore_remove_blob(struct store *store, const char *repo, const struct digest *digest);
/* TAG may be NULL; an older manifest of that tag stays, by digest. */
void fakestore_add_manifest(struct store *store, const char *repo, const char *tag,
			    const char *media_type, const char *json, struct digest *ret_digest);
void fakestore_remove_tag(struct store *store, const char *repo, const char *tag);
/* What ops->generation() says; it also grows with each change made through the store. */
void fakestore_touch(struct store *store);

/* --- faults --- */

/* Every call of OP returns ERROR (a negative errno); 0 takes it back. FAKE_OPS: every operation. */
void fakestore_fail(struct store *store, enum fakestore_op op, int error);
/* Streams give what is before byte AT of the blob and then return ERROR; 0 takes it back. */
void fakestore_fail_at(struct store *store, uint64_t at, int error);
/* Streams end before byte AT; UINT64_MAX takes it back. */
void fakestore_end_at(struct store *store, uint64_t at);
/* Streams flip the byte AT, the next TIMES times that they pass it. */
void fakestore_corrupt(struct store *store, uint64_t at, unsigned times);
/* Streams give at most so many bytes at a time; 0: no limit. */
void fakestore_chunk(struct store *store, size_t len);

/* Calls of OP wait (as they would for a slow server: -EINTR when called off, -EWOULDBLOCK where
 * they may not) until fakestore_release(). */
void fakestore_stall(struct store *store, enum fakestore_op op);
/* Streams wait before they give byte AT. */
void fakestore_stall_at(struct store *store, uint64_t at);
/* Returns when N calls or streams stand still. */
void fakestore_await_stalled(struct store *store, unsigned n);
/* Everything goes on, and nothing stalls any more. */
void fakestore_release(struct store *store);

/* --- what happened --- */

unsigned fakestore_calls(struct store *store, enum fakestore_op op);
/* Blob bytes given by streams. */
uint64_t fakestore_bytes(struct store *store);
/* Streams open now. */
unsigned fakestore_streams(struct store *store);

#endif
