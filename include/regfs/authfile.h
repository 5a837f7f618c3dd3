/* SPDX-License-Identifier: Apache-2.0 */
/*
 * authfile: the files in which docker and podman keep credentials (docker's config.json,
 * containers-auth.json(5)), and what their credential helpers say (docker-credential-helpers,
 * "Development"), as values and back.
 * Pure: text in, values out. Must not know where the files lie, nor run anything.
 *
 * Keys are hosts ("quay.io"), hosts with a namespace ("quay.io/team"), or URLs as docker once
 * wrote them ("https://index.docker.io/v1/"); Docker Hub has several names and is one host here.
 */
#ifndef REGFS_AUTHFILE_H
#define REGFS_AUTHFILE_H

#include "regfs/buf.h"
#include "regfs/ref.h"

#define AUTHFILE_MAX (1 * MIB)

enum authfile_form {
	AUTHFILE_CONFIG, /* {"auths": {…}, "credsStore": …, "credHelpers": {…}} */
	AUTHFILE_LEGACY, /* ~/.dockercfg: what is in "auths" alone */
};

/* Strings are owned, and wiped when they are released; NULL where absent or empty (a password may
 * be
 * ""). */
struct authfile_entry {
	char *key; /* as it is written */
	char *user, *password;
	char *identity_token, *registry_token;
	const char *why; /* a constant sentence: it cannot be understood; NULL: it can */
};
struct authfile_helper {
	char *key;
	char *name; /* "": none for this host */
};
struct authfile {
	struct authfile_entry *entries;
	size_t nentries;
	struct authfile_helper *helpers;
	size_t nhelpers;
	char *store; /* "credsStore"; NULL: none */
};

/* 0, -EINVAL with a constant sentence, -ENOMEM. */
int authfile_parse(const char *json, size_t len, enum authfile_form form, struct authfile *ret,
		   const char **ret_why);
void authfile_release(struct authfile *file);
void authfile_entry_release(struct authfile_entry *entry);

/* Whether ENTRY lets anybody in: docker leaves empty ones for what a helper keeps. */
bool authfile_entry_is_empty(const struct authfile_entry *entry);

/* The host that KEY is for, as names of hosts are written in the tree; false if there is none. A
 * namespace is left out. */
bool authfile_key_host(const char *key, char ret[static REF_HOST_MAX]);

/* Where the credentials for a repository are; borrowed from the file, and from itself: it is not to
 * be copied. */
struct authfile_choice {
	const char *helper, *helper_key;    /* asked first, and for this; NULL: none */
	const struct authfile_entry *entry; /* if the helper has nothing; NULL: none */
	char host[REF_HOST_MAX];
};
/* HOST is a key or a host; REPO may be NULL. The most specific namespace wins; a helper of this
 * host excludes all entries, as containers-auth.json(5) says. */
void authfile_choose(const struct authfile *file, const char *host, const char *repo,
		     struct authfile_choice *ret);

/* Whether the file has an entry or a helper for HOST as a whole. */
bool authfile_names(const struct authfile *file, const char *host);

/* The text PREVIOUS (NULL: a new file) with HOST's entry set to ENTRY's user and password, or to
 * an empty one where it has no user. All other entries and members stay as they are. RET is to be
 * wiped before it is released. 0, -EINVAL, -ENOMEM. */
int authfile_set(const char *previous, size_t len, const char *host,
		 const struct authfile_entry *entry, struct buf *ret);
/* Without HOST's entries; those of namespaces stay. -ENOENT if there is none. */
int authfile_unset(const char *previous, size_t len, const char *host, struct buf *ret);

/* A helper's answer to "get". The user name "<token>" says that the secret is an identity token.
 * 0; -ENOENT: it has nothing; -EINVAL, -ENOMEM. */
int authfile_helper_parse(const char *json, size_t len, struct authfile_entry *ret);
/* What a helper's "store" wants to read. */
int authfile_helper_write(const char *key, const struct authfile_entry *entry, struct buf *ret);

#endif
