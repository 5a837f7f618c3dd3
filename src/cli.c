/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli: a mount's command line to options.
 * Must not know what a mount is made of.
 */
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <sys/stat.h>

#include "cli_priv.h"

#define DEFAULT_CACHE_SIZE (UINT64_C(10) << 30)
#define MIN_CACHE_SIZE	   (1u * MIB)
#define MIN_PREFETCH_RATE  (64u * KIB)
#define MAX_SECONDS	   (365u * 24 * 3600)
#define OPTIONS_MAX	   65536

static const char help_text[] =
	"usage: regfs [options] [SOURCE] MOUNTPOINT     mount a container registry\n"
	"       regfs login [-u USER] [--password-stdin] [-o OPTION,...] HOST\n"
	"       regfs logout [-o OPTION,...] HOST\n"
	"       regfs status [MOUNTPOINT]               what is mounted, cache, traffic, pushes\n"
	"       regfs cache {info|verify|prune} [--max SIZE] [--cache-dir DIR]\n"
	"       regfs index push [-o OPTION,...] [--min-layer-size SIZE] REF\n"
	"       regfs --help | --version\n"
	"\n"
	"SOURCE is a registry (localhost:5000, https://reg:5000), an image (alpine:3.20,\n"
	"ghcr.io/acme/web@sha256:...), \"local\" (the embedded store), or nothing (or \"none\"):\n"
	"the root then lists registries.\n"
	"\n"
	"  -f                     stay in the foreground, log to stderr\n"
	"  -d                     debug: -f and libfuse's debug output\n"
	"  -s                     single thread\n"
	"  -o OPTION[,OPTION...]  mount options:\n"
	"     ro, allow_other, default_permissions, uid=N, gid=N, umask=OCTAL, and what\n"
	"     mount(8) knows; nosuid,nodev are on unless suid or dev is given\n"
	"     cache_dir=DIR       where what was fetched is kept ($XDG_CACHE_HOME/regfs)\n"
	"     cache_size=SIZE     hard limit of that directory (10G)\n"
	"     store=DIR           the embedded store ($XDG_DATA_HOME/regfs)\n"
	"     registry=HOST       list this registry at the root (repeatable)\n"
	"     platform=OS/ARCH[/VARIANT]  of multi-platform images (this machine's)\n"
	"     tag_ttl=SECONDS     how long a tag or a list is believed (30)\n"
	"     timeout=SECONDS     longest time without progress (60)\n"
	"     name_timeout=SECONDS  longest time for a request about a name (10)\n"
	"     offline             serve what is cached, never use the network\n"
	"     verify=strict|stream\n"
	"     prefetch=run|none|image  bring in what the image's last run read, nothing, all "
	"(run)\n"
	"     prefetch_rate=SIZE  of prefetch=image, at most so much a second (no limit)\n"
	"     trust_index=HOST[/PATH]  use SOCI v1 indexes published in this place (repeatable)\n"
	"     soci=v1|v2          v1 asks for that; without trust_index= none is used (v2)\n"
	"     whiteouts=merge|overlay  deletions in layers/NN as stored, or as overlayfs's "
	"(merge)\n"
	"     transform_symlinks  make symlinks of images relative, so that they stay in them\n"
	"     passthrough         the kernel reads files whose bytes are whole in the cache\n"
	"     io_uring            requests come over io_uring\n"
	"     insecure=HOST       any certificate, or plain HTTP, for this host (repeatable)\n"
	"     cacert=FILE         trust the certificates in this PEM file\n"
	"     authfile=FILE       take credentials from this file (as podman and docker do)\n"
	"     certs_dir=DIR       certs.d directory, in place of the usual ones\n"
	"     registries_conf=FILE  mirrors, in place of the usual registries.conf\n"
	"     allow_delete        let rm, rmdir and mv delete tags and images\n"
	"     compress=gzip|zstd|none  for layers pushed uncompressed (gzip)\n"
	"     compress_level=N    gzip: 1 to 9 (2); zstd: 1 to 19 (1)\n"
	"     log=error|warn|info|debug  (info)\n"
	"\n"
	"A push that must be checked: producer | cp /dev/stdin MNT/repo/_push/TAG.tar\n";

static void PRINTF_LIKE(1, 2) complain(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fputs("regfs: ", stderr);
	vfprintf(stderr, fmt, args);
	fputs("\n", stderr);
	va_end(args);
}

/* --- values --- */

static int words_add(struct cli_words *words, const char *word)
{
	char **bigger = realloc(words->words, (words->n + 2) * sizeof(char *));

	if (!bigger)
		return -ENOMEM;
	words->words = bigger;
	words->words[words->n] = strdup(word);
	words->words[words->n + 1] = NULL;
	return words->words[words->n++] ? 0 : -ENOMEM;
}

static int set_string(char **field, char *value)
{
	if (!value)
		return -ENOMEM;
	free(*field);
	*field = value;
	return 0;
}

/* The process leaves its working directory when it goes to the background. */
static int set_path(char **field, const char *value)
{
	char cwd[PATH_MAX];

	if (!*value)
		return -EINVAL;
	if (*value == '/')
		return set_string(field, strdup(value));
	if (!getcwd(cwd, sizeof(cwd)))
		return -errno;
	return set_string(field, format("%s/%s", cwd, value));
}

static int parse_seconds(const char *value, uint64_t *ret)
{
	uint64_t seconds;

	if (!parse_u64(value, &seconds) || seconds > MAX_SECONDS)
		return -EINVAL;
	*ret = seconds;
	return 0;
}

static int parse_id(const char *value, bool *set, uint32_t *ret)
{
	uint64_t id;

	if (!parse_u64(value, &id) || id >= UINT32_MAX)
		return -EINVAL;
	*set = true;
	*ret = id;
	return 0;
}

/* One of WORDS (NULL-terminated): its index, or -EINVAL. */
static int parse_word(const char *value, const char *const *words)
{
	for (int i = 0; words[i]; i++)
		if (!strcmp(value, words[i]))
			return i;
	return -EINVAL;
}

/* --- each option; VALUE is what follows '=' --- */

typedef int option_fn(struct cli_options *options, const char *value);

static int opt_cache_dir(struct cli_options *options, const char *value)
{
	return set_path(&options->cache_dir, value);
}

static int opt_cache_size(struct cli_options *options, const char *value)
{
	uint64_t size;

	if (parse_size(value, &size) < 0 || size < MIN_CACHE_SIZE)
		return -EINVAL;
	options->cache_size_bytes = size;
	return 0;
}

static int opt_store(struct cli_options *options, const char *value)
{
	return set_path(&options->store_dir, value);
}

static int opt_registry(struct cli_options *options, const char *value)
{
	return ref_host_valid(value) ? words_add(&options->registries, value) : -EINVAL;
}

static int opt_insecure(struct cli_options *options, const char *value)
{
	return ref_host_valid(value) ? words_add(&options->insecure, value) : -EINVAL;
}

static int opt_platform(struct cli_options *options, const char *value)
{
	struct oci_platform platform;
	int r = oci_platform_parse(value, &platform);

	if (r < 0)
		return r;
	oci_platform_release(&options->platform);
	options->platform = platform;
	return 0;
}

static int opt_tag_ttl(struct cli_options *options, const char *value)
{
	return parse_seconds(value, &options->tag_ttl_s);
}

static int opt_timeout(struct cli_options *options, const char *value)
{
	int r = parse_seconds(value, &options->timeout_s);

	return r == 0 && options->timeout_s == 0 ? -EINVAL : r;
}

static int opt_name_timeout(struct cli_options *options, const char *value)
{
	int r = parse_seconds(value, &options->name_timeout_s);

	return r == 0 && options->name_timeout_s == 0 ? -EINVAL : r;
}

static int opt_cacert(struct cli_options *options, const char *value)
{
	if (access(value, R_OK) != 0)
		return -errno;
	return set_path(&options->cacert, value);
}

static int opt_authfile(struct cli_options *options, const char *value)
{
	return set_path(&options->authfile, value);
}

static int opt_registries_conf(struct cli_options *options, const char *value)
{
	if (access(value, R_OK) != 0)
		return -errno;
	return set_path(&options->registries_conf, value);
}

static int opt_certs_dir(struct cli_options *options, const char *value)
{
	if (access(value, R_OK | X_OK) != 0)
		return -errno;
	return set_path(&options->certs_dir, value);
}

static int opt_compress(struct cli_options *options, const char *value)
{
	static const char *const words[] = {"none", "gzip", "zstd", NULL};
	static const enum codec codecs[] = {CODEC_PLAIN, CODEC_GZIP, CODEC_ZSTD};
	int word = parse_word(value, words);

	if (word < 0)
		return word;
	options->compress = codecs[word];
	return 0;
}

static int opt_compress_level(struct cli_options *options, const char *value)
{
	uint64_t level;

	if (!parse_u64(value, &level) || level < 1 || level > 19)
		return -EINVAL;
	options->compress_level = (int)level;
	return 0;
}

static int opt_log(struct cli_options *options, const char *value)
{
	return log_level_parse(value, &options->log);
}

static int opt_verify(struct cli_options *options, const char *value)
{
	static const char *const words[] = {"strict", "stream", NULL};
	int word = parse_word(value, words);

	options->verify_stream = word == 1;
	return MIN(word, 0);
}

static int opt_prefetch_rate(struct cli_options *options, const char *value)
{
	uint64_t rate;

	if (parse_size(value, &rate) < 0 || rate < MIN_PREFETCH_RATE)
		return -EINVAL;
	options->prefetch_rate = rate;
	return 0;
}

static int opt_prefetch(struct cli_options *options, const char *value)
{
	static const char *const words[] = {"run", "none", "image", NULL};
	int word = parse_word(value, words);

	if (word >= 0)
		options->prefetch = (enum cli_prefetch)word;
	return MIN(word, 0);
}

static int opt_soci(struct cli_options *options, const char *value)
{
	static const char *const words[] = {"v2", "v1", NULL};
	int word = parse_word(value, words);

	options->soci_v1 = word == 1;
	return MIN(word, 0);
}

/* A host ("local" is one), perhaps with the beginning of a repository's path. */
static int opt_trust_index(struct cli_options *options, const char *value)
{
	size_t len = strcspn(value, "/");
	AUTO_FREE char *host = strndup(value, len);

	if (!host)
		return -ENOMEM;
	if (strcmp(host, "local") != 0 && !ref_host_valid(host))
		return -EINVAL;
	if (value[len] && !ref_repo_valid(value + len + 1))
		return -EINVAL;
	return words_add(&options->trust_index, value);
}

static int opt_whiteouts(struct cli_options *options, const char *value)
{
	static const char *const words[] = {"merge", "overlay", NULL};
	int word = parse_word(value, words);

	options->overlay_whiteouts = word == 1;
	return MIN(word, 0);
}

static int opt_transform_symlinks(struct cli_options *options, const char *value)
{
	(void)value;
	options->transform_symlinks = true;
	return 0;
}

static int opt_passthrough(struct cli_options *options, const char *value)
{
	(void)value;
	options->passthrough = true;
	return 0;
}

static int opt_io_uring(struct cli_options *options, const char *value)
{
	(void)value;
	options->io_uring = true;
	return 0;
}

static int opt_uid(struct cli_options *options, const char *value)
{
	return parse_id(value, &options->set_uid, &options->uid);
}

static int opt_gid(struct cli_options *options, const char *value)
{
	return parse_id(value, &options->set_gid, &options->gid);
}

static int opt_umask(struct cli_options *options, const char *value)
{
	char *end;
	unsigned long mask = strtoul(value, &end, 8);

	if (!*value || *end || mask > 0777)
		return -EINVAL;
	options->set_umask = true;
	options->umask = mask;
	return 0;
}

static int opt_offline(struct cli_options *options, const char *value)
{
	(void)value;
	options->offline = true;
	return 0;
}

static int opt_allow_other(struct cli_options *options, const char *value)
{
	(void)value;
	options->allow_other = true;
	return buf_puts(&options->fuse_options, ",allow_other,default_permissions");
}

/* Not only the kernel has to know: where nothing is pushed, much is cheaper. */
static int opt_ro(struct cli_options *options, const char *value)
{
	(void)value;
	options->read_only = true;
	return buf_puts(&options->fuse_options, ",ro");
}

static int opt_rw(struct cli_options *options, const char *value)
{
	(void)value;
	options->read_only = false;
	return buf_puts(&options->fuse_options, ",rw");
}

static int opt_allow_delete(struct cli_options *options, const char *value)
{
	(void)value;
	options->allow_delete = true;
	return 0;
}

static const struct {
	const char *name;
	bool wants_value;
	option_fn *parse;
} own_options[] = {
	{"cache_dir", true, opt_cache_dir},
	{"cache_size", true, opt_cache_size},
	{"store", true, opt_store},
	{"registry", true, opt_registry},
	{"insecure", true, opt_insecure},
	{"platform", true, opt_platform},
	{"tag_ttl", true, opt_tag_ttl},
	{"timeout", true, opt_timeout},
	{"name_timeout", true, opt_name_timeout},
	{"cacert", true, opt_cacert},
	{"authfile", true, opt_authfile},
	{"certs_dir", true, opt_certs_dir},
	{"registries_conf", true, opt_registries_conf},
	{"compress", true, opt_compress},
	{"compress_level", true, opt_compress_level},
	{"log", true, opt_log},
	{"verify", true, opt_verify},
	{"prefetch", true, opt_prefetch},
	{"prefetch_rate", true, opt_prefetch_rate},
	{"soci", true, opt_soci},
	{"trust_index", true, opt_trust_index},
	{"whiteouts", true, opt_whiteouts},
	{"transform_symlinks", false, opt_transform_symlinks},
	{"passthrough", false, opt_passthrough},
	{"io_uring", false, opt_io_uring},
	{"uid", true, opt_uid},
	{"gid", true, opt_gid},
	{"umask", true, opt_umask},
	{"offline", false, opt_offline},
	{"allow_other", false, opt_allow_other},
	{"allow_delete", false, opt_allow_delete},
	{"ro", false, opt_ro},
	{"rw", false, opt_rw},
};

/* What the kernel or libfuse take, with and without a value. */
static const char *const passed_on[] = {"suid",		"nosuid",	 "dev",
					"nodev",	"exec",		 "noexec",
					"async",	"sync",		 "dirsync",
					"atime",	"noatime",	 "nodiratime",
					"norelatime",	"nostrictatime", "default_permissions",
					"auto_unmount", "context=",	 "fscontext=",
					"defcontext=",	"rootcontext=",	 NULL};

/* fstab's own words. */
static const char *const ignored[] = {"defaults", "auto",  "noauto", "user",	"nouser",
				      "users",	  "owner", "group",  "_netdev", "nofail",
				      "relatime", "loud",  "silent", "remount", NULL};

static int one_option(struct cli_options *options, const char *option)
{
	size_t len = strcspn(option, "=");
	const char *value = option[len] ? option + len + 1 : NULL;

	for (size_t i = 0; i < ARRAY_SIZE(own_options); i++) {
		if (strlen(own_options[i].name) != len ||
		    strncmp(own_options[i].name, option, len) != 0)
			continue;
		if (own_options[i].wants_value != (value != NULL)) {
			complain("option %.*s %s", (int)len, option,
				 value ? "takes no value" : "wants a value");
			return -EINVAL;
		}
		if (own_options[i].parse(options, value) == 0)
			return 0;
		complain("option %.*s: not a valid value: %s", (int)len, option, value);
		return -EINVAL;
	}
	for (size_t i = 0; passed_on[i]; i++) {
		bool takes_value = ends_with(passed_on[i], "=");

		if (takes_value ? starts_with(option, passed_on[i]) : !strcmp(option, passed_on[i]))
			return buf_printf(&options->fuse_options, ",%s", option);
	}
	if (parse_word(option, ignored) >= 0 || starts_with(option, "x-") ||
	    starts_with(option, "comment="))
		return 0;
	complain("unknown option: %s (see regfs --help)", option);
	return -EINVAL;
}

int cli_option_list(struct cli_options *options, const char *list)
{
	AUTO_FREE char *copy = strdup(list);
	char *rest = copy, *option;

	if (!copy)
		return -ENOMEM;
	while ((option = strsep(&rest, ",")))
		if (*option && one_option(options, option) < 0)
			return -EINVAL;
	return 0;
}

/* --- the whole --- */

char *cli_default_cache_dir(void)
{
	const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");

	if (xdg && *xdg == '/')
		return format("%s/regfs", xdg);
	/* mount(8) at boot has no home */
	return home && *home == '/' ? format("%s/.cache/regfs", home) : strdup("/var/cache/regfs");
}

static char *cli_default_store_dir(void)
{
	const char *xdg = getenv("XDG_DATA_HOME"), *home = getenv("HOME");

	if (xdg && *xdg == '/')
		return format("%s/regfs", xdg);
	return home && *home == '/' ? format("%s/.local/share/regfs", home)
				    : strdup("/var/lib/regfs");
}

int cli_options_init(struct cli_options *options)
{
	*options = (struct cli_options){
		.cache_size_bytes = DEFAULT_CACHE_SIZE,
		.tag_ttl_s = 30,
		.timeout_s = 60,
		.name_timeout_s = 10,
		.compress = CODEC_GZIP,
		.log = LOG_LEVEL_INFO,
		.cache_dir = cli_default_cache_dir(),
		.store_dir = cli_default_store_dir(),
		.fuse_options = BUF_INIT(OPTIONS_MAX),
	};
	if (!options->cache_dir || !options->store_dir)
		return -ENOMEM;
	if (buf_puts(&options->fuse_options, "nosuid,nodev") < 0)
		return -ENOMEM;
	return oci_platform_host(&options->platform);
}

static int set_source(struct cli_options *options, const char *text)
{
	const char *why;

	if (text && !strcmp(text, "none"))
		text = NULL;
	if (source_parse(text, &options->source, &why) < 0) {
		complain("%s: %s", text, why);
		return -EINVAL;
	}
	return set_string(&options->source_text, strdup(text ? text : "regfs"));
}

static int set_mountpoint(struct cli_options *options, const char *path)
{
	char real[PATH_MAX];
	struct stat st;

	if (!realpath(path, real) || stat(real, &st) != 0) {
		complain("mountpoint %s: %s", path, strerror(errno));
		return -EINVAL;
	}
	if (!S_ISDIR(st.st_mode)) {
		complain("mountpoint %s: not a directory", path);
		return -EINVAL;
	}
	return set_string(&options->mountpoint, strdup(real));
}

static int positional(struct cli_options *options, char **words, size_t n)
{
	int r;

	if (n == 0 || n > 2) {
		complain(n ? "too many arguments: %s" : "no mountpoint given (see regfs --help)%s",
			 n ? words[2] : "");
		return -EINVAL;
	}
	/* a login may make the file; a mount that is told of one means it */
	if (options->authfile && access(options->authfile, R_OK) != 0) {
		complain("option authfile: %s: %s", options->authfile, strerror(errno));
		return -EINVAL;
	}
	if (options->soci_v1 && !options->trust_index.n)
		complain(
			"soci=v1: published indexes are not used, as nothing vouches for them: say "
			"where to trust them with trust_index=");
	r = set_source(options, n == 2 ? words[0] : NULL);
	return r < 0 ? r : set_mountpoint(options, words[n - 1]);
}

/* One flag that is not -o. 1: it was --help or --version, all is said. */
static int flag(struct cli_options *options, const char *arg)
{
	if (!strcmp(arg, "-h") || !strcmp(arg, "--help")) {
		fputs(help_text, stdout);
		return 1;
	}
	if (!strcmp(arg, "-V") || !strcmp(arg, "--version")) {
		puts("regfs " REGFS_VERSION);
		return 1;
	}
	if (!strcmp(arg, "-f")) {
		options->foreground = true;
	} else if (!strcmp(arg, "-d")) {
		options->foreground = options->debug = true;
	} else if (!strcmp(arg, "-s")) {
		options->single_thread = true;
	} else {
		complain("unknown option: %s (see regfs --help)", arg);
		return -EINVAL;
	}
	return 0;
}

/* Called as mount(8) and mount.fuse3(8) do: SOURCE MOUNTPOINT -o rw,... */
static bool called_by_mount(int argc, char **argv)
{
	return argc == 5 && !strcmp(argv[3], "-o") &&
	       (!strncmp(argv[4], "rw,", 3) || !strncmp(argv[4], "ro,", 3));
}

/* mount.fuse3 ends root's list with dev, suid or both where there is no word against them: nobody
 * asked for that. Files of images that are set-user-id are not to be a gift of fstab. */
static int list_of_mount(struct cli_options *options, const char *list)
{
	static const char *const added[] = {",suid", ",dev"};
	size_t len = strlen(list);

	for (size_t i = 0; i < ARRAY_SIZE(added); i++) {
		size_t n = strlen(added[i]);

		if (len >= n && !strncmp(list + len - n, added[i], n))
			len -= n;
	}
	AUTO_FREE char *asked = strndup(list, len);
	return asked ? cli_option_list(options, asked) : -ENOMEM;
}

static int parse_args(int argc, char **argv, struct cli_options *options)
{
	char *words[3];
	size_t nwords = 0;
	bool flags = true;
	int r = 0;

	for (int i = 1; i < argc && r == 0; i++) {
		const char *arg = argv[i];

		if (flags && !strcmp(arg, "--")) {
			flags = false;
		} else if (flags && !strcmp(arg, "-o")) {
			if (++i == argc) {
				complain("-o wants a list of options");
				return -EINVAL;
			}
			r = called_by_mount(argc, argv) ? list_of_mount(options, argv[i])
							: cli_option_list(options, argv[i]);
		} else if (flags && starts_with(arg, "-o")) {
			r = cli_option_list(options, arg + 2);
		} else if (flags && *arg == '-' && arg[1]) {
			r = flag(options, arg);
		} else if (nwords < ARRAY_SIZE(words)) {
			words[nwords++] = argv[i];
		}
	}
	return r ? r : positional(options, words, nwords);
}

int cli_parse(int argc, char **argv, struct cli_options *ret, int *ret_status)
{
	int r = cli_options_init(ret);

	if (r == 0)
		r = parse_args(argc, argv, ret);
	if (r == 0)
		return 0;
	*ret_status = r > 0 ? CLI_OK : CLI_USAGE;
	if (r == -ENOMEM)
		complain("out of memory");
	cli_options_release(ret);
	return -EINVAL;
}

static void words_release(struct cli_words *words)
{
	for (size_t i = 0; i < words->n; i++)
		free(words->words[i]);
	free(words->words);
	*words = (struct cli_words){0};
}

void cli_options_release(struct cli_options *options)
{
	words_release(&options->registries);
	words_release(&options->insecure);
	words_release(&options->trust_index);
	oci_platform_release(&options->platform);
	buf_release(&options->fuse_options);
	free(options->source_text);
	free(options->mountpoint);
	free(options->cache_dir);
	free(options->store_dir);
	free(options->cacert);
	free(options->authfile);
	free(options->registries_conf);
	free(options->certs_dir);
}

int cli_command(int argc, char **argv)
{
	static const char *const commands[] = {"status", "cache", "login", "logout", "index", NULL};

	switch (argc > 1 ? parse_word(argv[1], commands) : -EINVAL) {
	case 0:
		return cli_status(argc, argv);
	case 1:
		return cli_cache(argc, argv);
	case 2:
		return cli_login(argc, argv);
	case 3:
		return cli_logout(argc, argv);
	case 4:
		return cli_index(argc, argv);
	default:
		return -ENOENT;
	}
}
