/* SPDX-License-Identifier: Apache-2.0 */
/*
 * creds: which credential files there are, in which order, and what they say.
 * Knows the environment and containers-auth.json(5). Must not know how a helper is run.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <sys/eventfd.h>

#include "creds_priv.h"
#include "regfs/log.h"

#define HELPER_TIMEOUT_MS 8000
#define HELPERS_MAX	  8 /* that run at a time */

/* --- the files --- */

/* The process will leave its working directory. Takes PATH; NULL is an error that came before. */
static int add_file(struct creds *creds, char *path, enum authfile_form form)
{
	AUTO_FREE char *given = path;
	char cwd[PATH_MAX];
	char *absolute;

	if (!given)
		return -ENOMEM;
	if (*given == '/')
		absolute = STEAL(given);
	else if (getcwd(cwd, sizeof(cwd)))
		absolute = format("%s/%s", cwd, given);
	else
		return -errno;
	if (!absolute)
		return -ENOMEM;
	creds->files[creds->nfiles++] = (struct creds_file){.path = absolute, .form = form};
	return 0;
}

static const char *environment(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? value : NULL;
}

/* The environment's is missing at boot. */
static const char *home_dir(void)
{
	const char *home = environment("HOME");
	const struct passwd *user = home ? NULL : getpwuid(getuid());

	return home ? home : user ? user->pw_dir : "/";
}

static char *below(const char *dir, const char *name)
{
	return format("%s/%s", dir, name);
}

/* Those of containers-auth.json(5), with docker's own variable for its own file. */
static int add_usual_files(struct creds *creds)
{
	const char *runtime = environment("XDG_RUNTIME_DIR");
	const char *config = environment("XDG_CONFIG_HOME");
	const char *docker = environment("DOCKER_CONFIG");
	const char *home = home_dir();
	int err = add_file(creds,
			   runtime ? below(runtime, "containers/auth.json")
				   : format("/run/containers/%u/auth.json", getuid()),
			   AUTHFILE_CONFIG);

	if (!err)
		err = add_file(creds,
			       config ? below(config, "containers/auth.json")
				      : below(home, ".config/containers/auth.json"),
			       AUTHFILE_CONFIG);
	creds->shared = creds->nfiles;
	if (!err)
		err = add_file(creds,
			       docker ? below(docker, "config.json")
				      : below(home, ".docker/config.json"),
			       AUTHFILE_CONFIG);
	return err ? err : add_file(creds, below(home, ".dockercfg"), AUTHFILE_LEGACY);
}

struct creds *creds_new(const struct creds_options *options)
{
	struct creds *creds = calloc(1, sizeof(*creds));
	const char *authfile = options->authfile ? options->authfile
						 : environment("REGISTRY_AUTH_FILE");
	int err;

	if (!creds)
		return NULL;
	pthread_mutex_init(&creds->lock, NULL);
	creds->helper_timeout_ms = options->helper_timeout_ms ? options->helper_timeout_ms
							      : HELPER_TIMEOUT_MS;
	creds->named = authfile != NULL;
	creds->hosts = options->hosts;
	creds->stop_fd = eventfd(0, EFD_CLOEXEC);
	creds->pool = pool_new("helper", HELPERS_MAX);
	err = authfile ? add_file(creds, strdup(authfile), AUTHFILE_CONFIG)
		       : add_usual_files(creds);
	if (err || creds->stop_fd < 0 || !creds->pool) {
		creds_free(creds);
		return NULL;
	}
	return creds;
}

void creds_free(struct creds *creds)
{
	if (!creds)
		return;
	if (creds->stop_fd >= 0)
		(void)eventfd_write(creds->stop_fd, 1);
	pool_free(creds->pool);
	while (creds->answers) {
		struct creds_answer *answer = creds->answers;

		creds->answers = answer->next;
		creds_answer_free(answer);
	}
	for (size_t i = 0; i < creds->nfiles; i++)
		free(creds->files[i].path);
	if (creds->stop_fd >= 0)
		close(creds->stop_fd);
	pthread_mutex_destroy(&creds->lock);
	free(creds);
}

/* --- reading --- */

void creds_text_release(struct creds_text *text)
{
	if (text->data)
		explicit_bzero(text->data, text->len);
	free(text->data);
	*text = (struct creds_text){0};
}

static const char *size_refusal(const struct stat *st)
{
	/* of a pipe or a terminal there may be no end */
	if (!S_ISREG(st->st_mode) && !S_ISCHR(st->st_mode))
		return "it is not a file";
	return st->st_size > AUTHFILE_MAX ? "it is larger than 1 MiB" : NULL;
}

/* Whether PATH lies in a directory that we may not look into, as another user's is whose
 * environment was handed on: it is not meant for us, and need not be there. */
static bool is_out_of_sight(const char *path)
{
	int saved = errno;
	struct stat st;
	bool hidden = errno == EACCES && stat(path, &st) != 0 && errno == EACCES;

	errno = saved;
	return hidden;
}

int creds_text_read(const char *path, struct creds_text *ret, const char **ret_why)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	CLEANUP(creds_text_release) struct creds_text text = {0};
	ssize_t len;

	*ret_why = NULL;
	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || is_out_of_sight(path)))
		return -ENOENT;
	if (fd >= 0 && fstat(fd, &text.st) == 0) {
		*ret_why = size_refusal(&text.st);
		if (*ret_why)
			return -EACCES;
		text.data = malloc(text.st.st_size + 1);
		if (!text.data)
			return -ENOMEM;
		/* /dev/null is a way to say that there are none */
		len = S_ISREG(text.st.st_mode) ? pread_full(fd, text.data, text.st.st_size, 0) : 0;
		if (len >= 0) {
			text.len = len;
			text.data[len] = '\0';
			*ret = text;
			text = (struct creds_text){0};
			return 0;
		}
	}
	*ret_why = strerrordesc_np(errno);
	return -EACCES;
}

/* Whether the complaint about FILE as it is now was made before. */
static bool told_before(struct creds *creds, struct creds_file *file, const struct stat *st)
{
	bool before;

	pthread_mutex_lock(&creds->lock);
	before = file->bad_ino == st->st_ino && file->bad_size == st->st_size &&
		 file->bad_mtime.tv_sec == st->st_mtim.tv_sec &&
		 file->bad_mtime.tv_nsec == st->st_mtim.tv_nsec;
	file->bad_ino = st->st_ino;
	file->bad_size = st->st_size;
	file->bad_mtime = st->st_mtim;
	pthread_mutex_unlock(&creds->lock);
	return before;
}

/* QUIETLY: says it once for each state of the file. */
static int load(struct creds *creds, struct creds_file *file, bool quietly, struct authfile *ret)
{
	CLEANUP(creds_text_release) struct creds_text text = {0};
	const char *why = NULL;
	int err = creds_text_read(file->path, &text, &why);

	if (!err && text.len == 0)
		return -ENOENT;
	if (!err)
		err = authfile_parse(text.data, text.len, file->form, ret, &why);
	if (!err || err == -ENOENT || err == -ENOMEM)
		return err;
	if (!told_before(creds, file, &text.st) || !quietly)
		log_warn("credentials file %s: %s: mend it, or move it away; until then registries "
			 "that ask for credentials are refused",
			 file->path, why ? why : "it cannot be read");
	return -EACCES;
}

/* The usual files need not be there, but one that the user has named should: said once each time
 * that it is gone. */
static void tell_missing(struct creds *creds, struct creds_file *file)
{
	struct stat st;
	bool missing = stat(file->path, &st) < 0, news;

	pthread_mutex_lock(&creds->lock);
	news = missing && !file->missed;
	file->missed = missing;
	pthread_mutex_unlock(&creds->lock);
	if (news)
		log_warn(
			"credentials file %s: it is not there, though it is the one that was named "
			"(authfile=, REGISTRY_AUTH_FILE): registries are asked as nobody",
			file->path);
}

int creds_load(struct creds *creds, struct creds_file *file, struct authfile *ret)
{
	return load(creds, file, false, ret);
}

/* --- what they say --- */

static void take(struct authfile_entry *entry, struct auth_credential *ret)
{
	*ret = (struct auth_credential){
		.user = STEAL(entry->user),
		.password = STEAL(entry->password),
		.identity_token = STEAL(entry->identity_token),
		.registry_token = STEAL(entry->registry_token),
	};
}

/* What FILE has for the query. */
static int look_in(struct creds *creds, struct creds_file *file, const struct auth_query *query,
		   struct wait *wait, struct auth_credential *ret)
{
	CLEANUP(authfile_release) struct authfile content = {0};
	CLEANUP(authfile_entry_release) struct authfile_entry answer = {0};
	struct authfile_choice choice;
	int err = creds_load(creds, file, &content);

	if (creds->named)
		tell_missing(creds, file);
	if (err)
		return err;
	authfile_choose(&content, query->host, query->repo, &choice);
	err = choice.helper ? creds_ask(creds, &choice, query, wait, &answer) : -ENOENT;
	if (!err)
		take(&answer, ret);
	if (err != -ENOENT || !choice.entry)
		return err;
	if (choice.entry->why) {
		log_warn("credentials file %s: the entry \"%s\": %s: log in again", file->path,
			 choice.entry->key, choice.entry->why);
		return -EACCES;
	}
	take(&content.entries[choice.entry - content.entries], ret);
	return 0;
}

static int look_in_files(struct creds *creds, const struct auth_query *query, struct wait *wait,
			 struct auth_credential *ret)
{
	int err = -ENOENT;

	for (size_t i = 0; i < creds->nfiles && err == -ENOENT; i++)
		err = look_in(creds, &creds->files[i], query, wait, ret);
	return err;
}

/* In what registries.conf names: a helper, or the files. */
static int look_in_place(struct creds *creds, const char *name, const struct auth_query *query,
			 struct wait *wait, struct auth_credential *ret)
{
	CLEANUP(authfile_entry_release) struct authfile_entry answer = {0};
	const struct authfile_choice choice = {.helper = name, .helper_key = query->host};
	int err;

	if (strcmp(name, HOSTS_AUTH_FILES) == 0)
		return look_in_files(creds, query, wait, ret);
	err = creds_ask(creds, &choice, query, wait, &answer);
	if (!err)
		take(&answer, ret);
	return err;
}

/* The first that has something. A place that is out of order is passed over, as podman does, but
 * nobody is asked as nobody because of it. The files are read last where they are not named: what
 * regfs and docker store lies there. */
static int look_in_places(struct creds *creds, char **names, const struct auth_query *query,
			  struct wait *wait, struct auth_credential *ret)
{
	bool files = false, refused = false;
	int err = -ENOENT;

	for (char **name = names; *name && (err == -ENOENT || err == -EACCES); name++) {
		files |= strcmp(*name, HOSTS_AUTH_FILES) == 0;
		err = look_in_place(creds, *name, query, wait, ret);
		refused |= err == -EACCES;
	}
	if (!files && (err == -ENOENT || err == -EACCES))
		err = look_in_files(creds, query, wait, ret);
	return err == -ENOENT && refused ? -EACCES : err;
}

int creds_lookup(void *arg, const struct auth_query *query, struct wait *wait,
		 struct auth_credential *ret)
{
	struct creds *creds = arg;
	char **names = NULL;
	int err = 0;

	if (!wait_may_block(wait))
		return -EWOULDBLOCK;
	if (creds->hosts)
		err = hosts_helpers(creds->hosts, query->host, &names);
	if (err)
		return err;
	err = names ? look_in_places(creds, names, query, wait, ret)
		    : look_in_files(creds, query, wait, ret);
	hosts_helpers_free(names);
	return err;
}

static int tell_host(const char *key, creds_host_fn *fn, void *arg)
{
	char host[REF_HOST_MAX];

	return authfile_key_host(key, host) ? fn(arg, host) : 0;
}

static int tell_hosts(const struct authfile *content, creds_host_fn *fn, void *arg)
{
	int r = 0;

	for (size_t i = 0; i < content->nentries && r == 0; i++)
		r = tell_host(content->entries[i].key, fn, arg);
	for (size_t i = 0; i < content->nhelpers && r == 0; i++)
		r = tell_host(content->helpers[i].key, fn, arg);
	return r;
}

int creds_hosts(struct creds *creds, creds_host_fn *fn, void *arg, struct wait *wait)
{
	int r = 0;

	if (!wait_may_block(wait))
		return -EWOULDBLOCK;
	for (size_t i = 0; i < creds->nfiles && r == 0; i++) {
		CLEANUP(authfile_release) struct authfile content = {0};

		if (load(creds, &creds->files[i], true, &content) == 0)
			r = tell_hosts(&content, fn, arg);
	}
	return r;
}
