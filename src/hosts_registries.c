/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hosts_registries: registries.conf and its drop-ins (containers-registries.conf(5),
 * containers-registries.conf.d(5)): which [[registry]] table fits a repository, what it leads to,
 * short-name aliases.
 * Must not know TLS, nor hosts.toml.
 *
 * All files are read whole and every table is checked, whichever is looked for: a table that is
 * not understood may be the one that blocks.
 */
#include <errno.h>
#include <unistd.h>

#include "hosts_priv.h"
#include "regfs/ref.h"

#define ETC_CONF  "/etc/containers/registries.conf"
#define ETC_DIR	  "/etc/containers/registries.conf.d"
#define FILES_MAX 600

struct file {
	char *path;
	struct toml *root;
};

struct files {
	struct file *files;
	size_t n;
};

static void files_release(struct files *files)
{
	for (size_t i = 0; i < files->n; i++) {
		free(files->files[i].path);
		toml_free(files->files[i].root);
	}
	free(files->files);
}
#define AUTO_FILES CLEANUP(files_release)

/* ---- reading the files, in their order ---- */

/* 0, -ENOENT, -EACCES, -ENOMEM. */
static int read_one(struct hosts_look *look, struct files *files, const char *path)
{
	AUTO_TOML struct toml *root = NULL;
	int err = hosts_parse(look, path, &root);
	if (err)
		return err;
	if (files->n == FILES_MAX)
		return hosts_refuse(look, "there are too many registries.conf files");
	struct file file = {.path = strdup(path)};
	if (!file.path)
		return -ENOMEM;
	file.root = STEAL(root);
	files->files[files->n++] = file;
	return 0;
}

static int read_drop_ins(struct hosts_look *look, struct files *files, const char *dir)
{
	AUTO_NAMES char **names = NULL;
	int err = dir ? hosts_names(look, dir, ".conf", &names) : 0;
	for (char **name = names; !err && name && *name; name++) {
		AUTO_FREE char *path = format("%s/%s", dir, *name);
		err = path ? read_one(look, files, path) : -ENOMEM;
		if (err == -ENOENT) /* a dangling link, or just removed */
			err = 0;
	}
	return err;
}

static int read_usual(struct hosts_look *look, struct files *files)
{
	const struct hosts *hosts = look->hosts;
	int err = hosts->home_conf ? read_one(look, files, hosts->home_conf) : -ENOENT;
	/* A user's own file is instead of the machine's. */
	if (!err)
		return read_drop_ins(look, files, hosts->home_dir);
	if (err == -ENOENT)
		err = read_one(look, files, ETC_CONF);
	if (!err || err == -ENOENT)
		err = read_drop_ins(look, files, ETC_DIR);
	return err ? err : read_drop_ins(look, files, hosts->home_dir);
}

static int read_all(struct hosts_look *look, struct files *ret)
{
	const struct hosts *hosts = look->hosts;
	ret->files = calloc(FILES_MAX, sizeof(*ret->files));
	if (!ret->files)
		return -ENOMEM;
	if (!hosts->registries_conf)
		return read_usual(look, ret);
	int err = read_one(look, ret, hosts->registries_conf);
	if (err == -ENOENT)
		return hosts_refuse(look, "%s does not exist", hosts->registries_conf);
	return err ? err : read_drop_ins(look, ret, hosts->registries_dir);
}

/* ---- a table ---- */

/* A [[registry]] or [[registry.mirror]] table of FILE. */
struct entry {
	const char *file;
	const struct toml *table;
};

static int complain(struct hosts_look *look, const struct entry *entry, const char *what)
{
	return hosts_refuse(look, "%s, line %u: %s", entry->file, toml_line(entry->table), what);
}

/* *RET stays as it is where there is no such key. */
static int get_string(struct hosts_look *look, const struct entry *entry, const char *key,
		      const char **ret)
{
	const struct toml *value = toml_get(entry->table, key);
	if (!value)
		return 0;
	*ret = toml_string(value);
	return *ret ? 0
		    : hosts_refuse(look, "%s, line %u: %s is no string", entry->file,
				   toml_line(value), key);
}

static int get_bool(struct hosts_look *look, const struct entry *entry, const char *key, bool *ret)
{
	const struct toml *value = toml_get(entry->table, key);
	if (!value || toml_boolean(value, ret))
		return 0;
	return hosts_refuse(look, "%s, line %u: %s is neither true nor false", entry->file,
			    toml_line(value), key);
}

/* A host, or a host and a namespace; without its slashes at the end. NULL if absent. */
static int get_location(struct hosts_look *look, const struct entry *entry, const char *key,
			char **ret)
{
	const char *text = NULL;
	int err = get_string(look, entry, key, &text);
	if (err || !text)
		return err;
	size_t len = strlen(text);
	while (len && text[len - 1] == '/')
		len--;
	size_t host = strcspn(text, "/");
	if (strstr(text, "://"))
		return complain(look, entry, "a prefix or location has no http:// or https://");
	if (len > host && (strchr(text + host, ':') || strchr(text + host, '@')))
		return complain(look, entry,
				"prefixes and locations with a tag or digest are not supported");
	if (!host || (*text == '*' && len > host))
		return complain(look, entry,
				"a prefix or location without a host, or *. with a "
				"path");
	*ret = strndup(text, len);
	return *ret ? 0 : -ENOMEM;
}

static bool is_wildcard(const char *prefix)
{
	return starts_with(prefix, "*.");
}

/* What a [[registry]] table says of itself. */
struct registry_table {
	struct entry entry;
	char *prefix, *location; /* .location is NULL for a wildcard without one */
	bool insecure, blocked, by_digest_only;
};

static void registry_table_release(struct registry_table *table)
{
	free(table->prefix);
	free(table->location);
}
#define AUTO_TABLE CLEANUP(registry_table_release)

static int read_table(struct hosts_look *look, const struct entry *entry,
		      struct registry_table *ret)
{
	ret->entry = *entry;
	if (toml_kind(entry->table) != TOML_TABLE)
		return complain(look, entry, "registry is no array of tables");
	int err = get_location(look, entry, "prefix", &ret->prefix);
	err = err ? err : get_location(look, entry, "location", &ret->location);
	err = err ? err : get_bool(look, entry, "insecure", &ret->insecure);
	err = err ? err : get_bool(look, entry, "blocked", &ret->blocked);
	err = err ? err : get_bool(look, entry, "mirror-by-digest-only", &ret->by_digest_only);
	if (err)
		return err;
	bool wildcard = ret->prefix && is_wildcard(ret->prefix);
	if (!ret->location && !wildcard)
		return complain(look, entry, "a registry without location");
	if (ret->location && *ret->location == '*')
		return complain(look, entry, "a location cannot begin with *");
	if (!ret->prefix && !(ret->prefix = strdup(ret->location)))
		return -ENOMEM;
	return 0;
}

/* ---- which table fits ---- */

/* How many bytes of NAME ("HOST/REPO", or "HOST") PREFIX covers; 0: it does not fit. */
static size_t covers(const char *prefix, const char *name)
{
	size_t len = strlen(prefix), host = strcspn(name, ":/");
	if (is_wildcard(prefix)) {
		bool fits = host >= len && !strncmp(name + host - (len - 1), prefix + 1, len - 1);
		return fits ? host : 0;
	}
	return starts_with(name, prefix) && (!name[len] || name[len] == '/') ? len : 0;
}

/* Takes the table in ENTRY as the best if it is: the longest wins, and of the same prefix the last
 * one. */
static int consider(struct hosts_look *look, const struct entry *entry, const char *name,
		    struct registry_table *best)
{
	AUTO_TABLE struct registry_table table = {0};
	int err = read_table(look, entry, &table);
	size_t len = err ? 0 : covers(table.prefix, name);
	if (!len || (best->prefix && strcmp(best->prefix, table.prefix) &&
		     covers(best->prefix, name) >= len))
		return err;
	registry_table_release(best);
	*best = table;
	table = (struct registry_table){0};
	return 0;
}

/* Version 1 of the format: lists of hosts. Of these only what is blocked matters here. */
static int check_old_format(struct hosts_look *look, const struct file *file, const char *name)
{
	const struct toml *block = toml_get(toml_get(file->root, "registries"), "block");
	const struct toml *list = toml_get(block, "registries");
	for (const struct toml *at = toml_first(list); at; at = toml_next(at)) {
		const char *prefix = toml_string(at);
		if (prefix && covers(prefix, name))
			return hosts_refuse(look, "%s, line %u, blocks it", file->path,
					    toml_line(at));
	}
	return 0;
}

static int find_table(struct hosts_look *look, const struct files *files, const char *name,
		      struct registry_table *ret)
{
	int err = 0;
	for (size_t i = 0; i < files->n && !err; i++) {
		const struct file *file = &files->files[i];
		const struct toml *list = toml_get(file->root, "registry");
		if (list && toml_kind(list) != TOML_ARRAY)
			return hosts_refuse(look, "%s, line %u: registry is no array of tables",
					    file->path, toml_line(list));
		for (const struct toml *at = toml_first(list); at && !err; at = toml_next(at)) {
			const struct entry entry = {.file = file->path, .table = at};
			err = consider(look, &entry, name, ret);
		}
		err = err ? err : check_old_format(look, file, name);
	}
	return err;
}

/* ---- what it leads to ---- */

/* An endpoint at LOCATION (NULL: as asked for) for what is left of the name behind the prefix. */
static int add_location(struct hosts_look *look, const struct entry *entry, const char *location,
			const char *rest, struct hosts_endpoint **ret)
{
	AUTO_FREE char *name = format("%s%s", location, rest);
	if (!name)
		return -ENOMEM;
	char *slash = strchr(name, '/');
	if (slash)
		*slash = '\0';
	const char *repo = slash ? slash + 1 : NULL;
	if (look->repo && (!repo || !ref_repo_valid(repo)))
		return complain(look, entry, "this location makes no valid repository name of it");
	int err = hosts_add(look, name, 0, ret);
	if (err || !repo)
		return err;
	free((*ret)->repo);
	(*ret)->repo = strdup(repo);
	return (*ret)->repo ? 0 : -ENOMEM;
}

/* What pull-from-mirror allows. */
static int mirror_can(struct hosts_look *look, const struct entry *entry, bool by_digest_only,
		      unsigned *ret)
{
	const char *text = NULL;
	int err = get_string(look, entry, "pull-from-mirror", &text);
	if (err)
		return err;
	if (text && *text && by_digest_only)
		return complain(look, entry,
				"pull-from-mirror and mirror-by-digest-only exclude "
				"each other");
	if (by_digest_only || (text && !strcmp(text, "digest-only")))
		*ret = HOSTS_PULL;
	else if (!text || !*text || !strcmp(text, "all"))
		*ret = HOSTS_PULL | HOSTS_RESOLVE;
	else if (!strcmp(text, "tag-only"))
		*ret = HOSTS_PULL | HOSTS_RESOLVE | HOSTS_LATE;
	else
		return complain(look, entry,
				"pull-from-mirror is none of all, digest-only and "
				"tag-only");
	return 0;
}

static int add_mirror(struct hosts_look *look, const struct registry_table *table,
		      const struct toml *mirror, const char *rest)
{
	const struct entry entry = {.file = table->entry.file, .table = mirror};
	AUTO_FREE char *location = NULL;
	bool insecure = false;
	unsigned can = 0;
	struct hosts_endpoint *endpoint;
	if (toml_kind(mirror) != TOML_TABLE)
		return complain(look, &entry, "mirror is no array of tables");
	int err = get_location(look, &entry, "location", &location);
	err = err ? err : get_bool(look, &entry, "insecure", &insecure);
	err = err ? err : mirror_can(look, &entry, table->by_digest_only, &can);
	if (!err && !location)
		err = complain(look, &entry, "a mirror without location");
	err = err ? err : add_location(look, &entry, location, rest, &endpoint);
	if (err)
		return err;
	endpoint->can = can;
	if (insecure)
		endpoint->scheme = HOSTS_INSECURE;
	return hosts_finish(look, endpoint);
}

/* The registry's own place, and, where that is another, the one it is pushed to: locations are for
 * reading. */
static int add_origin(struct hosts_look *look, const struct registry_table *table, const char *rest)
{
	struct hosts_endpoint *endpoint;
	bool moved = table->location && strcmp(table->location, table->prefix) != 0;
	unsigned can = HOSTS_PULL | HOSTS_RESOLVE | HOSTS_ORIGIN | (moved ? 0 : HOSTS_PUSH);
	int err = moved ? add_location(look, &table->entry, table->location, rest, &endpoint)
			: hosts_add(look, look->host, can, &endpoint);
	if (err)
		return err;
	endpoint->can = can;
	if (table->insecure)
		endpoint->scheme = HOSTS_INSECURE;
	err = hosts_finish(look, endpoint);
	if (err || !moved)
		return err;
	err = hosts_add(look, look->host, HOSTS_PUSH, &endpoint);
	if (!err && table->insecure)
		endpoint->scheme = HOSTS_INSECURE;
	return err ? err : hosts_finish(look, endpoint);
}

static int follow(struct hosts_look *look, const struct registry_table *table, const char *name)
{
	const char *rest = name + covers(table->prefix, name);
	if (table->blocked)
		return hosts_refuse(look, "%s, line %u, blocks %s", table->entry.file,
				    toml_line(table->entry.table), table->prefix);
	const struct toml *mirrors = toml_get(table->entry.table, "mirror");
	for (const struct toml *at = toml_first(mirrors); at; at = toml_next(at)) {
		int err = add_mirror(look, table, at, rest);
		if (err)
			return err;
	}
	return add_origin(look, table, rest);
}

int hosts_from_registries(struct hosts_look *look)
{
	AUTO_FILES struct files files = {0};
	AUTO_TABLE struct registry_table table = {0};
	AUTO_FREE char *name = format("%s%s%s", look->host, look->repo ? "/" : "",
				      look->repo ? look->repo : "");
	if (!name)
		return -ENOMEM;
	int err = read_all(look, &files);
	err = err ? err : find_table(look, &files, name, &table);
	if (err || !table.prefix)
		return err;
	err = follow(look, &table, name);
	return err ? err : 1;
}

/* ---- aliases ---- */

int hosts_find_alias(struct hosts_look *look, const char *name, char **ret)
{
	AUTO_FILES struct files files = {0};
	const char *found = NULL;
	int err = read_all(look, &files);
	if (err)
		return err;
	for (size_t i = 0; i < files.n; i++) {
		const struct toml *value = toml_get(toml_get(files.files[i].root, "aliases"), name);
		if (value)
			found = toml_string(value);
	}
	/* An empty one takes an earlier one back. */
	if (!found || !*found)
		return -ENOENT;
	*ret = strdup(found);
	return *ret ? 0 : -ENOMEM;
}

/* ---- credential helpers ---- */

/* It becomes part of a program's name. */
static bool is_helper(const char *name)
{
	return name && *name &&
	       !name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-"
				  "ABCDEFGHIJKLMNOPQRSTUVWXYZ")];
}

static int copy_helpers(struct hosts_look *look, const struct file *file, const struct toml *list,
			char ***ret)
{
	AUTO_NAMES char **helpers = NULL;
	size_t n = 0;
	for (const struct toml *at = toml_first(list); at; at = toml_next(at))
		n++;
	helpers = calloc(n + 1, sizeof(*helpers));
	if (!helpers)
		return -ENOMEM;
	n = 0;
	for (const struct toml *at = toml_first(list); at; at = toml_next(at)) {
		if (!is_helper(toml_string(at)))
			return hosts_refuse(look,
					    "%s, line %u: this is no name of a credential "
					    "helper",
					    file->path, toml_line(at));
		helpers[n] = strdup(toml_string(at));
		if (!helpers[n++])
			return -ENOMEM;
	}
	*ret = STEAL(helpers);
	return 0;
}

/* The last list that is not empty counts. */
int hosts_find_helpers(struct hosts_look *look, char ***ret)
{
	AUTO_FILES struct files files = {0};
	int err = read_all(look, &files);
	if (err == -ENOENT)
		return 0;
	for (size_t i = files.n; !err && i-- > 0;) {
		const struct toml *list = toml_get(files.files[i].root, "credential-helpers");
		if (list && toml_kind(list) != TOML_ARRAY)
			return hosts_refuse(look, "%s, line %u: credential-helpers is no array",
					    files.files[i].path, toml_line(list));
		if (toml_first(list))
			return copy_helpers(look, &files.files[i], list, ret);
	}
	return err;
}
