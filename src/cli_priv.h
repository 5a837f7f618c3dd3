/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the cli room share; nobody else includes it.
 *
 * cli.c         a mount's command line
 * cli_cache.c   regfs cache
 * cli_status.c  regfs status
 * cli_login.c   regfs login, regfs logout
 * cli_index.c   regfs index
 * cli_prompt.c  questions on the terminal
 */
#ifndef REGFS_CLI_PRIV_H
#define REGFS_CLI_PRIV_H

#include "regfs/cli.h"

/* The defaults. 0 or a negative errno. */
int cli_options_init(struct cli_options *options);
/* One -o LIST; what is wrong with it is said. */
int cli_option_list(struct cli_options *options, const char *list);

/* regfs COMMAND …: the exit status. */
int cli_cache(int argc, char **argv);
int cli_status(int argc, char **argv);
int cli_login(int argc, char **argv);
int cli_logout(int argc, char **argv);
int cli_index(int argc, char **argv);

/* Asks LABEL on the terminal, whatever the standard streams are; what is typed is not shown where
 * it is SECRET. A line without its end, for secret_free(). 0, -ENOTTY, -ENOMEM, -EIO. */
int cli_prompt(const char *label, bool secret, char **ret);

#endif
