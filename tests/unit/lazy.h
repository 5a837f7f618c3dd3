/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lazy: layers with a table of contents, written member by member as the formats' own writers do
 * it: eStargz (stargz-snapshotter, docs/estargz.md; estargz/estargz.go) and zstd:chunked in the
 * dialects of stargz-snapshotter (estargz/zstdchunked) and of containers/storage (pkg/chunked).
 *
 * Want of memory aborts: this is for tests.
 */
#ifndef REGFS_TESTS_LAZY_H
#define REGFS_TESTS_LAZY_H

#include "regfs/oci.h"
#include "regfs/tar.h"

enum lazy_form {
	LAZY_ESTARGZ,
	LAZY_LEGACY,	 /* eStargz with the older footer */
	LAZY_ZSTD,	 /* stargz-snapshotter's dialect */
	LAZY_CONTAINERS, /* containers/storage's */
	LAZY_FORMS
};

struct lazy {
	enum lazy_form form;
	size_t chunk_size;
	bool no_digests; /* of what follows */
	struct buf blob, tar, json;
	struct buf piece; /* of the tar, not compressed yet */
	char *table;	  /* stands for the entries, if set: a lie */
	struct oci_annotation annotations[3];
	size_t nannotations;
};

void lazy_begin(struct lazy *lazy, enum lazy_form form, size_t chunk_size);
/* DATA are MEMBER's size bytes. */
void lazy_add(struct lazy *lazy, const struct tar_member *member, const void *data);
/* Writes the table and the footer; .blob and .annotations are then what a registry has. */
void lazy_end(struct lazy *lazy);
void lazy_release(struct lazy *lazy);

#endif
