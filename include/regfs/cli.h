/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli: the command line: options, and the commands that do not mount.
 * Must not know what a mount is made of.
 */
#ifndef REGFS_CLI_H
#define REGFS_CLI_H

#include "regfs/buf.h"
#include "regfs/codec.h"
#include "regfs/log.h"
#include "regfs/oci.h"
#include "regfs/ref.h"

/* Exit statuses. */
enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

/* A list of words; owned. */
struct cli_words {
	char **words; /* NULL-terminated; NULL if none */
	size_t n;
};

/* What is fetched before it is asked for: what the last run read, nothing, or all layers too. */
enum cli_prefetch { CLI_PREFETCH_RUN, CLI_PREFETCH_NONE, CLI_PREFETCH_IMAGE };

/* What a mount is asked to be. Strings are owned; paths are absolute. */
struct cli_options {
	struct source source;
	char *source_text; /* as given, "regfs" if none: what /proc/mounts shows */
	char *mountpoint;
	char *cache_dir, *store_dir, *cacert, *authfile, *registries_conf, *certs_dir;
	uint64_t cache_size_bytes;
	struct cli_words registries, insecure, trust_index;
	struct oci_platform platform;
	uint64_t tag_ttl_s, timeout_s, name_timeout_s;
	bool offline, overlay_whiteouts, transform_symlinks, passthrough, io_uring, soci_v1;
	enum cli_prefetch prefetch;
	uint64_t prefetch_rate; /* bytes a second; 0: no limit */
	enum codec compress;
	bool verify_stream;
	int compress_level; /* 0: the codec's default */
	enum log_level log;
	bool foreground, debug, single_thread, allow_other, allow_delete, read_only;
	bool set_uid, set_gid, set_umask;
	uid_t uid;
	gid_t gid;
	mode_t umask;
	struct buf fuse_options; /* for libfuse, comma-separated */
};

/*
 * Parses a mount's command line. 0: mount it. Else *RET_STATUS is what to exit with, all
 * said: usage errors on stderr, each naming what is wrong; --help and --version on stdout.
 */
int cli_parse(int argc, char **argv, struct cli_options *ret, int *ret_status);
void cli_options_release(struct cli_options *options);

/* "status", "cache", "login", "logout", "index": runs it. -ENOENT: ARGV[1] is no command. Else the
 * exit status. */
int cli_command(int argc, char **argv);

/* $XDG_CACHE_HOME/regfs and the like; the caller frees. NULL when memory is short. */
char *cli_default_cache_dir(void);

#endif
