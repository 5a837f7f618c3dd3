/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hosts: where the files lie, in which order they decide, and answers kept for a moment.
 * Must not know what is written in them (hosts_registries.c, hosts_toml.c, hosts_certs.c).
 *
 * An answer never changes once it is made; it goes with its last reference.
 */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>

#include "hosts_priv.h"
#include "regfs/log.h"

/* Long enough to cost nothing, short enough that a change seems to work at once. */
#define FRESH_MS    1000
#define ENTRIES_MAX 64

struct hosts_entry {
	struct hosts_answer answer; /* handed out */
	atomic_uint refs;
	struct hosts_entry *next; /* guarded by hosts->lock */
	char *host, *repo;
	int64_t until_ms;
};

/* ---- where the files lie ---- */

struct place {
	const char *base, *name;
};

/* Fills LIST with those of PLACES that have a base. */
static int fill_places(char **list, const struct place *places, size_t n)
{
	size_t at = 0;
	for (size_t i = 0; i < n; i++) {
		if (!places[i].base)
			continue;
		list[at] = format("%s%s", places[i].base, places[i].name);
		if (!list[at++])
			return -ENOMEM;
	}
	return 0;
}

static const char *absolute_env(const char *name)
{
	const char *value = getenv(name);
	return value && *value == '/' ? value : NULL;
}

/* Where the option names no file. */
static int fill_registries(struct hosts *hosts, const char *config)
{
	const char *file = absolute_env("CONTAINERS_REGISTRIES_CONF");
	if (hosts->registries_conf)
		return 0;
	if (file) {
		hosts->registries_conf = strdup(file);
		hosts->registries_dir = format("%s.d", file);
		return hosts->registries_conf && hosts->registries_dir ? 0 : -ENOMEM;
	}
	if (!config)
		return 0;
	hosts->home_conf = format("%s/containers/registries.conf", config);
	hosts->home_dir = format("%s/containers/registries.conf.d", config);
	return hosts->home_conf && hosts->home_dir ? 0 : -ENOMEM;
}

static int fill_certs(struct hosts *hosts, const char *config, const char *certs_dir)
{
	const char *home = absolute_env("HOME");
	if (certs_dir) {
		hosts->cert_roots[0] = strdup(certs_dir);
		hosts->toml_roots[0] = strdup(certs_dir);
		return hosts->cert_roots[0] && hosts->toml_roots[0] ? 0 : -ENOMEM;
	}
	const struct place certs[] = {
		{config, "/containers/certs.d"}, {config, "/docker/certs.d"},
		{home, "/.docker/certs.d"},	 {"/etc", "/containers/certs.d"},
		{"/etc", "/docker/certs.d"},	 {"/etc", "/containerd/certs.d"},
	};
	const struct place tomls[] = {{config, "/containerd/certs.d"},
				      {"/etc", "/containerd/certs.d"}};
	int err = fill_places(hosts->cert_roots, certs, ARRAY_SIZE(certs));
	return err ? err : fill_places(hosts->toml_roots, tomls, ARRAY_SIZE(tomls));
}

static int fill_options(struct hosts *hosts, const struct hosts_options *options)
{
	size_t n = 0;
	while (options->insecure && options->insecure[n])
		n++;
	hosts->insecure = calloc(n + 1, sizeof(char *));
	if (!hosts->insecure)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		hosts->insecure[i] = strdup(options->insecure[i]);
		if (!hosts->insecure[i])
			return -ENOMEM;
	}
	if (options->cacert && !(hosts->cacert = strdup(options->cacert)))
		return -ENOMEM;
	if (!options->registries_conf)
		return 0;
	hosts->registries_conf = strdup(options->registries_conf);
	hosts->registries_dir = format("%s.d", options->registries_conf);
	return hosts->registries_conf && hosts->registries_dir ? 0 : -ENOMEM;
}

struct hosts *hosts_new(const struct hosts_options *options)
{
	struct hosts *hosts = calloc(1, sizeof(*hosts));
	if (!hosts)
		return NULL;
	pthread_mutex_init(&hosts->lock, NULL);
	const char *home = absolute_env("HOME"), *xdg = absolute_env("XDG_CONFIG_HOME");
	AUTO_FREE char *config = xdg ? strdup(xdg) : home ? format("%s/.config", home) : NULL;
	int err = (xdg || home) && !config ? -ENOMEM : 0;
	err = err ? err : fill_options(hosts, options);
	err = err ? err : fill_registries(hosts, config);
	err = err ? err : fill_certs(hosts, config, options->certs_dir);
	if (err) {
		hosts_free(hosts);
		return NULL;
	}
	return hosts;
}

static void entry_unref(struct hosts_entry *entry)
{
	if (!entry || atomic_fetch_sub(&entry->refs, 1) != 1)
		return;
	hosts_answer_free(&entry->answer);
	free(entry->host);
	free(entry->repo);
	free(entry);
}

static void entry_cleanup(struct hosts_entry **entry)
{
	entry_unref(*entry);
}

static void free_list(char **list)
{
	for (; *list; list++)
		free(*list);
}

void hosts_free(struct hosts *hosts)
{
	if (!hosts)
		return;
	while (hosts->entries) {
		struct hosts_entry *entry = hosts->entries;
		hosts->entries = entry->next;
		entry_unref(entry);
	}
	free(hosts->registries_conf);
	free(hosts->registries_dir);
	free(hosts->home_conf);
	free(hosts->home_dir);
	free_list(hosts->cert_roots);
	free_list(hosts->toml_roots);
	if (hosts->insecure)
		free_list(hosts->insecure);
	free(hosts->insecure);
	free(hosts->cacert);
	pthread_mutex_destroy(&hosts->lock);
	free(hosts);
}

bool hosts_is_insecure(const struct hosts *hosts, const char *host)
{
	for (char **at = hosts->insecure; *at; at++) {
		if (!strcmp(*at, host))
			return true;
	}
	return false;
}

/* ---- files ---- */

int hosts_refuse(struct hosts_look *look, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	vsnprintf(look->why, sizeof(look->why), fmt, args);
	va_end(args);
	return -EACCES;
}

int hosts_parse(struct hosts_look *look, const char *file, struct toml **ret)
{
	AUTO_FREE char *text = NULL;
	struct toml_error error;
	size_t len;
	int err = read_file(file, TOML_TEXT_MAX, &text, &len);
	if (err == -ENOENT || err == -ENOTDIR)
		return -ENOENT;
	if (err && err != -ENOMEM)
		return hosts_refuse(look, "%s cannot be read: %s", file, strerror(-err));
	err = err ? err : toml_parse(text, len, ret, &error);
	if (err == -EINVAL)
		return hosts_refuse(look, "%s, line %u: %s", file, error.line, error.why);
	return err;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

void hosts_names_free(char **names)
{
	if (names)
		free_list(names);
	free(names);
}

static void dir_cleanup(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

int hosts_names(struct hosts_look *look, const char *path, const char *suffix, char ***ret)
{
	enum { NAMES_MAX = 256 };
	CLEANUP(dir_cleanup) DIR *dir = opendir(path);
	if (!dir && (errno == ENOENT || errno == ENOTDIR))
		return 0;
	if (!dir)
		return hosts_refuse(look, "%s cannot be read: %s", path, strerror(errno));
	AUTO_NAMES char **names = calloc(NAMES_MAX + 1, sizeof(*names));
	if (!names)
		return -ENOMEM;
	size_t n = 0;
	for (struct dirent *entry; (entry = readdir(dir));) {
		if (*entry->d_name == '.' || !ends_with(entry->d_name, suffix))
			continue;
		if (n == NAMES_MAX)
			return hosts_refuse(look, "%s holds more than %d files", path, NAMES_MAX);
		names[n] = strdup(entry->d_name);
		if (!names[n++])
			return -ENOMEM;
	}
	qsort(names, n, sizeof(*names), compare_names);
	*ret = STEAL(names);
	return 0;
}

/* ---- answers ---- */

static int look_around(struct hosts_look *look)
{
	struct hosts_endpoint *endpoint;
	int decided = hosts_from_registries(look);
	if (!decided)
		decided = hosts_from_toml(look);
	if (decided)
		return MIN(decided, 0);
	int err = hosts_add(look, look->host,
			    HOSTS_PULL | HOSTS_RESOLVE | HOSTS_PUSH | HOSTS_ORIGIN, &endpoint);
	return err ? err : hosts_finish(look, endpoint);
}

static int entry_make(struct hosts *hosts, const char *host, const char *repo,
		      struct hosts_entry **ret)
{
	CLEANUP(entry_cleanup) struct hosts_entry *entry = calloc(1, sizeof(*entry));
	if (!entry)
		return -ENOMEM;
	atomic_init(&entry->refs, 1);
	entry->host = strdup(host);
	entry->repo = repo ? strdup(repo) : NULL;
	if (!entry->host || !entry->repo != !repo)
		return -ENOMEM;
	struct hosts_look look = {
		.hosts = hosts, .host = host, .repo = repo, .answer = &entry->answer};
	int err = look_around(&look);
	if (err == -EACCES)
		log_warn("%s%s%s: refused: %s", host, repo ? "/" : "", repo ? repo : "", look.why);
	if (err)
		return err;
	entry->until_ms = now_ms() + FRESH_MS;
	*ret = STEAL(entry);
	return 0;
}

static bool same_text(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

/* With the lock. A fresh entry, referenced for the caller; NULL. */
static struct hosts_entry *entry_find(struct hosts *hosts, const char *host, const char *repo)
{
	for (struct hosts_entry *entry = hosts->entries; entry; entry = entry->next) {
		if (strcmp(entry->host, host) || !same_text(entry->repo, repo))
			continue;
		if (entry->until_ms <= now_ms())
			return NULL;
		atomic_fetch_add(&entry->refs, 1);
		return entry;
	}
	return NULL;
}

/* With the lock: puts ENTRY first, in the place of an older one of that name, or of the last. *RET
 * is what has to go. */
static void entry_keep(struct hosts *hosts, struct hosts_entry *entry, struct hosts_entry **ret)
{
	struct hosts_entry **at = &hosts->entries;
	size_t n = 1;
	while (*at) {
		bool same = !strcmp((*at)->host, entry->host) &&
			    same_text((*at)->repo, entry->repo);
		if (same || (n >= ENTRIES_MAX && !(*at)->next)) {
			*ret = *at;
			*at = (*at)->next;
			break;
		}
		at = &(*at)->next;
		n++;
	}
	entry->next = hosts->entries;
	hosts->entries = entry;
	atomic_fetch_add(&entry->refs, 1);
}

int hosts_find(struct hosts *hosts, const char *host, const char *repo,
	       const struct hosts_answer **ret)
{
	CLEANUP(entry_cleanup) struct hosts_entry *gone = NULL;
	pthread_mutex_lock(&hosts->lock);
	struct hosts_entry *entry = entry_find(hosts, host, repo);
	pthread_mutex_unlock(&hosts->lock);
	if (!entry) {
		int err = entry_make(hosts, host, repo, &entry);
		if (err)
			return err;
		pthread_mutex_lock(&hosts->lock);
		entry_keep(hosts, entry, &gone);
		pthread_mutex_unlock(&hosts->lock);
	}
	*ret = &entry->answer;
	return 0;
}

void hosts_answer_unref(const struct hosts_answer *answer)
{
	if (answer)
		entry_unref(CONTAINER_OF(answer, struct hosts_entry, answer));
}

int hosts_alias(struct hosts *hosts, const char *name, char **ret)
{
	struct hosts_look look = {.hosts = hosts, .host = name};
	int err = hosts_find_alias(&look, name, ret);
	if (err == -EACCES)
		log_warn("%s: refused: %s", name, look.why);
	return err;
}

int hosts_helpers(struct hosts *hosts, const char *host, char ***ret)
{
	struct hosts_look look = {.hosts = hosts, .host = host};
	int err = hosts_find_helpers(&look, ret);
	if (err == -EACCES)
		log_warn("%s: refused: %s", host, look.why);
	return err;
}

void hosts_helpers_free(char **helpers)
{
	hosts_names_free(helpers);
}
