/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cli_login: regfs login and logout: credentials are taken from a person, tried at the registry,
 * and stored or removed.
 * Must not know where they are stored, nor how a registry asks for them.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>

#include "cli_priv.h"
#include "regfs/authfile.h"
#include "regfs/creds.h"
#include "regfs/registry.h"

#define PASSWORD_MAX (64 * KIB)

static const char login_usage[] =
	"usage: regfs login [-u USER] [--password-stdin] [-o OPTION[,OPTION...]] HOST\n";
static const char logout_usage[] = "usage: regfs logout [-o OPTION[,OPTION...]] HOST\n";

struct login {
	const char *command, *usage;
	struct cli_options options;
	const char *given; /* HOST as it was typed */
	char host[REF_HOST_MAX];
	bool password_stdin;
	struct auth_credential credential;
	struct wait wait;
};

static int PRINTF_LIKE(2, 3) complain(const struct login *login, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fprintf(stderr, "regfs: %s: ", login->command);
	vfprintf(stderr, fmt, args);
	fputs("\n", stderr);
	va_end(args);
	return -EINVAL;
}

/* --- the command line --- */

static int set_user(struct login *login, const char *user)
{
	if (!*user || strchr(user, ':'))
		return complain(login, "-u: a user name is not empty and has no colon");
	secret_free(&login->credential.user);
	login->credential.user = strdup(user);
	return login->credential.user ? 0 : -ENOMEM;
}

static int one_argument(struct login *login, const char *arg, const char *value, int *ret_used)
{
	static const char password[] = "a password on the command line can be seen by others: "
				       "type it when asked, or use --password-stdin";
	bool is_login = login->usage == login_usage;

	*ret_used = value ? 1 : 0;
	if (!strcmp(arg, "-o") && value)
		return cli_option_list(&login->options, value);
	if (is_login && value && (!strcmp(arg, "-u") || !strcmp(arg, "--username")))
		return set_user(login, value);
	*ret_used = 0;
	if (is_login && starts_with(arg, "--username="))
		return set_user(login, arg + strlen("--username="));
	if (is_login && (starts_with(arg, "-p") || starts_with(arg, "--password=") ||
			 !strcmp(arg, "--password")))
		return complain(login, "%s", password);
	if (is_login && !strcmp(arg, "--password-stdin"))
		login->password_stdin = true;
	else if (*arg != '-' && !login->given)
		login->given = arg;
	else
		return complain(login, "not understood: %s", arg);
	return 0;
}

/* A host, perhaps as docker writes it ("https://index.docker.io/v1/"). */
static int set_host(struct login *login)
{
	const char *at = login->given, *path;

	if (!at)
		return complain(login, "which host?");
	if (!authfile_key_host(at, login->host))
		return complain(login, "%s: not a registry's HOST or HOST:PORT", at);
	path = strstr(at, "://");
	path = strchr(path ? path + 3 : at, '/');
	if (path && path[1] && strcmp(path, "/v1/") != 0 && strcmp(path, "/v2/") != 0)
		return complain(login, "%s: a host has no path; one password serves all of it", at);
	return 0;
}

static int parse_args(struct login *login, int argc, char **argv)
{
	int err = cli_options_init(&login->options);

	for (int i = 2; i < argc && !err; i++) {
		int used = 0;

		err = one_argument(login, argv[i], i + 1 < argc ? argv[i + 1] : NULL, &used);
		i += used;
	}
	err = err ? err : set_host(login);
	if (!err && login->password_stdin && !login->credential.user)
		err = complain(login, "--password-stdin wants -u USER");
	if (err)
		fputs(login->usage, stderr);
	return err;
}

/* --- what is asked --- */

static int read_stdin(const struct login *login, char **ret)
{
	char text[PASSWORD_MAX];
	size_t len = fread(text, 1, sizeof(text), stdin);
	int err = 0;

	if (ferror(stdin) || len == sizeof(text) || memchr(text, '\0', len))
		err = complain(login, "standard input is no password");
	if (len > 0 && text[len - 1] == '\n')
		len--;
	if (len > 0 && text[len - 1] == '\r')
		len--;
	if (!err) {
		*ret = strndup(text, len);
		err = *ret ? 0 : -ENOMEM;
	}
	explicit_bzero(text, sizeof(text));
	return err;
}

static int ask(struct login *login)
{
	struct auth_credential *credential = &login->credential;
	AUTO_SECRET char *user = NULL;
	int err = 0;

	if (!credential->user) {
		err = cli_prompt("Username: ", false, &user);
		err = err ? err : set_user(login, user);
	}
	if (!err && login->password_stdin)
		err = read_stdin(login, &credential->password);
	else if (!err)
		err = cli_prompt("Password: ", true, &credential->password);
	if (err == -ENOTTY)
		complain(login, "no terminal to ask on: use -u USER and --password-stdin");
	else if (!err && !*credential->password)
		err = complain(login, "the password is empty");
	return err;
}

/* --- trying it --- */

/* The auth_lookup_fn: what was typed. */
static int look_up(void *arg, const struct auth_query *query, struct wait *wait,
		   struct auth_credential *ret)
{
	const struct login *login = arg;
	char host[REF_HOST_MAX];

	(void)wait;
	/* a configuration may lead elsewhere: what was typed is for this host alone */
	if (!authfile_key_host(query->host, host) || strcmp(host, login->host) != 0)
		return -ENOENT;
	ret->user = strdup(login->credential.user);
	ret->password = strdup(login->credential.password);
	return ret->user && ret->password ? 0 : -ENOMEM;
}

static int try_registry(struct login *login, struct http *http, bool *ret_asked)
{
	const struct cli_options *options = &login->options;
	const struct hosts_options ways = {
		.registries_conf = options->registries_conf,
		.certs_dir = options->certs_dir,
		.cacert = options->cacert,
		.insecure = (const char *const *)options->insecure.words,
	};
	struct hosts *hosts = hosts_new(&ways);
	const struct registry_options registry = {
		.http = http,
		.host = login->host,
		.hosts = hosts,
		.plain_http = starts_with(login->given, "http://"),
		.https_only = starts_with(login->given, "https://"),
		.timeout_ms = options->timeout_s * 1000,
		.name_timeout_ms = options->name_timeout_s * 1000,
		.lookup = look_up,
		.lookup_arg = login,
	};
	struct store *store = NULL;
	int err = hosts ? registry_new(&registry, &store) : -ENOMEM;

	err = err ? err : registry_login(store, &login->wait, ret_asked);
	store_free(store);
	hosts_free(hosts);
	return err;
}

static int verify(struct login *login)
{
	const struct http_options options = {
		.timeout_ms = login->options.timeout_s * 1000,
		.user_agent = "regfs/" REGFS_VERSION,
	};
	struct http *http = http_new(&options);
	bool asked = true;
	int err = http ? try_registry(login, http, &asked) : -ENOMEM;

	http_free(http);
	if (err == -EKEYREJECTED)
		complain(login, "%s does not accept them; nothing was stored", login->host);
	else if (err == -EACCES)
		complain(login,
			 "%s: they could not be tried, for the reason above; nothing was stored",
			 login->host);
	else if (err)
		complain(login, "%s: %s; nothing was stored", login->host,
			 err == -ENOENT ? "it is no registry" : strerrordesc_np(-err));
	else if (!asked)
		complain(login, "%s asks nobody who he is: the password was not checked",
			 login->host);
	return err;
}

/* --- the commands --- */

static struct creds *open_creds(const struct login *login)
{
	const struct creds_options options = {.authfile = login->options.authfile};

	return creds_new(&options);
}

static int store(struct login *login)
{
	struct creds *creds = open_creds(login);
	AUTO_FREE char *where = NULL;
	int err = creds ? creds_store(creds, login->host, &login->credential, &login->wait, &where)
			: -ENOMEM;

	creds_free(creds);
	if (err)
		complain(login, "%s: nothing was stored", login->host);
	else
		printf("logged in to %s as %s (%s)\n", login->host, login->credential.user, where);
	return err;
}

static void tell_erased(void *arg, const char *where)
{
	const struct login *login = arg;

	printf("logged out of %s (%s)\n", login->host, where);
}

static int erase(struct login *login)
{
	struct creds *creds = open_creds(login);
	int err = creds ? creds_erase(creds, login->host, tell_erased, login, &login->wait)
			: -ENOMEM;

	creds_free(creds);
	if (err == -ENOENT)
		complain(login, "%s: no credentials are stored", login->host);
	else if (err)
		complain(login, "%s: not everything could be removed", login->host);
	return err;
}

static int run(struct login *login, int argc, char **argv)
{
	int err;

	/* no core file, and no other process of this user, is to have the password */
	(void)prctl(PR_SET_DUMPABLE, 0);
	/* a parent may have ignored it, and helpers are waited for */
	signal(SIGCHLD, SIG_DFL);
	wait_init(&login->wait, true);
	if (parse_args(login, argc, argv) < 0) {
		err = CLI_USAGE;
	} else if (login->usage == logout_usage) {
		err = erase(login) ? CLI_FAILED : CLI_OK;
	} else {
		err = ask(login);
		err = err ? err : verify(login);
		err = err ? err : store(login);
		err = err ? CLI_FAILED : CLI_OK;
	}
	wait_release(&login->wait);
	auth_credential_release(&login->credential);
	cli_options_release(&login->options);
	return err;
}

int cli_login(int argc, char **argv)
{
	struct login login = {.command = "login", .usage = login_usage};

	return run(&login, argc, argv);
}

int cli_logout(int argc, char **argv)
{
	struct login login = {.command = "logout", .usage = logout_usage};

	return run(&login, argc, argv);
}
