/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ref: the reference grammar: hosts, repositories, tags, digests.
 * Pure. Must not know URLs or the network.
 *
 * After distribution's reference grammar (distribution/reference, "Grammar") and the
 * OCI distribution-spec ("Pulling manifests": <name> and <reference>), with docker's
 * short names: "alpine" is docker.io/library/alpine:latest.
 */
#ifndef REGFS_REF_H
#define REGFS_REF_H

#include "regfs/digest.h"

#define REF_HOST_MAX 262 /* 255 + ":65535" + NUL */
#define REF_REPO_MAX 256 /* 255 + NUL */
#define REF_TAG_MAX  129 /* 128 + NUL */

struct ref {
	char host[REF_HOST_MAX]; /* "docker.io", "localhost:5000", "[::1]:5000"; "local" */
	char repo[REF_REPO_MAX]; /* "library/alpine" */
	char tag[REF_TAG_MAX];	 /* "" when there is none */
	struct digest digest;	 /* .algo DIGEST_NONE when there is none; wins over the tag */
};

/* HOST or HOST:PORT as it may stand in the tree: a dot, a colon or "localhost", or
 * "local". Lower-case letters, digits, '.', '-' (a name), or [IPv6]; a port of 1-65535. */
bool ref_host_valid(const char *host);
/* One path component of a repository: [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)* */
bool ref_component_valid(const char *component);
/* Components joined by '/', 255 bytes at most. */
bool ref_repo_valid(const char *repo);
/* [A-Za-z0-9_][A-Za-z0-9._-]{0,127} */
bool ref_tag_valid(const char *tag);

/*
 * Parses "alpine", "alpine:3.20", "ghcr.io/acme/web@sha256:…", "localhost:5000/a/b:1".
 * Without tag and digest the tag is "latest". A first component is a host if it has a
 * dot or a colon or is "localhost" or "local". docker.io with one component gets "library/". 0, or
 * -EINVAL with a sentence that names what is wrong in *RET_WHY (a constant string).
 */
int ref_parse(const char *str, struct ref *ret, const char **ret_why);

/*
 * Splits a name below a repository's parent ("app:1.5", "app@sha256:…") into the
 * component and a tag or digest. 0; -ENOENT where it is neither (a plain component, or
 * nothing valid).
 */
int ref_split_image_name(const char *name, char component[static REF_REPO_MAX],
			 char tag[static REF_TAG_MAX], struct digest *digest);

/* What SOURCE on the command line means (SPEC, "Command line"). */
enum source_kind { SOURCE_NONE, SOURCE_HOST, SOURCE_IMAGE, SOURCE_LOCAL };
struct source {
	enum source_kind kind;
	bool plain_http; /* http:// was given */
	bool https;	 /* https:// was given */
	struct ref ref;	 /* HOST: only .host; IMAGE: all of it */
};
/* STR may be NULL or "": SOURCE_NONE. 0, or -EINVAL and a constant sentence. */
int source_parse(const char *str, struct source *ret, const char **ret_why);

/* "HOST[/REPO][:TAG][@DIGEST]"; returns OUT. */
#define REF_STR_MAX (REF_HOST_MAX + REF_REPO_MAX + REF_TAG_MAX + DIGEST_STR_MAX)
const char *ref_format(const struct ref *ref, char out[static REF_STR_MAX]);

#endif
