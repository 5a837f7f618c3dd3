/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the authfile room share; nobody else includes it.
 *
 * authfile.c        text to values
 * authfile_key.c    which host and namespace a key is for, and which entry serves a repository
 * authfile_write.c  values into text
 */
#ifndef REGFS_AUTHFILE_PRIV_H
#define REGFS_AUTHFILE_PRIV_H

#include "regfs/authfile.h"
#include "regfs/json.h"

#define AUTHFILE_HUB	 "docker.io"
#define AUTHFILE_HUB_KEY "https://index.docker.io/v1/"

/* Whether KEY is for HOST (as authfile_key_host() gives it) as a whole. */
bool authfile_key_is(const char *key, const char *host);
/* What to call HOST where nobody has given it a key yet. */
const char *authfile_default_key(const char *host);

#endif
