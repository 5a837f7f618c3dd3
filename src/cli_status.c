/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli_status: regfs status: what _regfs/ of each mount says, for people.
 * Must not know what a mount is made of.
 */
#include <errno.h>
#include <inttypes.h>

#include "cli_priv.h"

#define STATS_MAX (1 * MIB)

static void print_bytes(const char *label, int64_t bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	double value = bytes;
	size_t unit = 0;

	while (value >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
		value /= 1024;
		unit++;
	}
	printf("  %-12s %.*f %s\n", label, unit ? 1 : 0, value, units[unit]);
}

static void print_pushes(const char *mountpoint)
{
	AUTO_FREE char *path = format("%s/_regfs/pushes", mountpoint);
	AUTO_FREE char *text = NULL;
	char *rest, *line;
	size_t len;

	if (!path || read_file(path, STATS_MAX, &text, &len) < 0 || !len)
		return;
	puts("  pushes");
	for (rest = text; (line = strsep(&rest, "\n"));)
		if (*line)
			printf("    %s\n", line);
}

/* ASKED: by name. Else one that was unmounted a moment ago is passed over. */
static int print_mount(const char *source, const char *mountpoint, bool asked)
{
	AUTO_FREE char *path = format("%s/_regfs/stats.json", mountpoint);
	AUTO_FREE char *json = NULL;
	size_t len;
	int r;

	if (!path)
		return CLI_FAILED;
	r = read_file(path, STATS_MAX, &json, &len);
	if (r == -ENOENT && !asked)
		return CLI_OK;
	printf("%s on %s\n", source, mountpoint);
	if (r < 0) {
		printf("  no answer: %s\n", strerror(-r));
		return CLI_FAILED;
	}
	printf("  %-12s %" PRId64 " s\n", "up", oci_json_number(json, len, "uptime_seconds", 0));
	print_bytes("cache used", oci_json_number(json, len, "cache_used_bytes", 0));
	print_bytes("cache limit", oci_json_number(json, len, "cache_limit_bytes", 0));
	print_bytes("received", oci_json_number(json, len, "http_bytes_in", 0));
	print_bytes("sent", oci_json_number(json, len, "http_bytes_out", 0));
	printf("  %-12s %" PRId64 " (%" PRId64 " failed)\n", "requests",
	       oci_json_number(json, len, "http_requests", 0),
	       oci_json_number(json, len, "http_errors", 0));
	printf("  %-12s %" PRId64 "\n", "waiting",
	       oci_json_number(json, len, "fuse_waiting_now", 0));
	print_pushes(mountpoint);
	return CLI_OK;
}

/* mountinfo writes blanks and the like as \040. */
static void unescape(char *text)
{
	char *out = text;

	for (const char *in = text; *in; in++) {
		unsigned code;

		if (*in == '\\' && sscanf(in + 1, "%3o", &code) == 1) {
			*out++ = code;
			in += 3;
		} else {
			*out++ = *in;
		}
	}
	*out = 0;
}

/* A line of proc_pid_mountinfo(5): the mountpoint is its fifth field; type and source
 * follow " - ". False if it is no mount of regfs. */
static bool parse_mountinfo(char *line, char **ret_mountpoint, char **ret_source)
{
	char *tail = strstr(line, " - fuse.regfs ");
	char *rest = line, *mountpoint = NULL;

	if (!tail)
		return false;
	*tail = 0;
	for (int field = 0; field < 5; field++)
		mountpoint = strsep(&rest, " ");
	tail += strlen(" - fuse.regfs ");
	*ret_source = strsep(&tail, " ");
	*ret_mountpoint = mountpoint;
	unescape(*ret_source);
	if (mountpoint)
		unescape(mountpoint);
	return mountpoint != NULL;
}

int cli_status(int argc, char **argv)
{
	AUTO_FCLOSE FILE *mounts = fopen("/proc/self/mountinfo", "re");
	AUTO_FREE char *line = NULL;
	AUTO_FREE char *wanted = NULL;
	char *mountpoint, *source;
	int status = CLI_OK;
	bool found = false;
	size_t cap = 0;

	if (argc > 3) {
		fprintf(stderr, "regfs: status: too many arguments: %s\n", argv[3]);
		return CLI_USAGE;
	}
	if (argc == 3 && !(wanted = realpath(argv[2], NULL))) {
		fprintf(stderr, "regfs: status: %s: %m\n", argv[2]);
		return CLI_FAILED;
	}
	while (mounts && getline(&line, &cap, mounts) > 0) {
		if (!parse_mountinfo(line, &mountpoint, &source))
			continue;
		if (wanted && strcmp(wanted, mountpoint) != 0)
			continue;
		found = true;
		if (print_mount(source, mountpoint, wanted) != CLI_OK)
			status = CLI_FAILED;
	}
	if (found)
		return status;
	if (wanted)
		fprintf(stderr, "regfs: status: %s: not a mount of regfs\n", argv[2]);
	else
		puts("nothing is mounted");
	return wanted ? CLI_FAILED : CLI_OK;
}
