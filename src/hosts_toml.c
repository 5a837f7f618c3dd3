/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hosts_toml: containerd's certs.d/HOST/hosts.toml (containerd, docs/hosts.md).
 * Must not know registries.conf.
 *
 * Hosts are mirrors in the order of the file; "server", with the fields at the file's top, comes
 * last. Unlike there, a mirror is only pushed to where its capabilities say so by name, and a file
 * that is not understood is no reason to ask others.
 */
#include <errno.h>
#include <strings.h>
#include <sys/stat.h>

#include "hosts_priv.h"

/* One host's table, or the top of the file. */
struct section {
	const char *dir, *file; /* .file lies in .dir */
	const struct toml *table;
};

static int complain(struct hosts_look *look, const struct section *section,
		    const struct toml *where, const char *what)
{
	return hosts_refuse(look, "%s, line %u: %s", section->file, toml_line(where), what);
}

/* ---- fields ---- */

static int get_bool(struct hosts_look *look, const struct section *section, const char *key,
		    bool *ret)
{
	const struct toml *value = toml_get(section->table, key);
	if (!value || toml_boolean(value, ret))
		return 0;
	return complain(look, section, value, "true or false is expected here");
}

/* *RET stays as it is without the field. */
static int get_capabilities(struct hosts_look *look, const struct section *section, unsigned *ret)
{
	const struct toml *list = toml_get(section->table, "capabilities");
	unsigned can = 0;
	if (!list)
		return 0;
	for (const struct toml *at = toml_first(list); at; at = toml_next(at)) {
		const char *word = toml_string(at);
		if (word && !strcasecmp(word, "pull"))
			can |= HOSTS_PULL;
		else if (word && !strcasecmp(word, "resolve"))
			can |= HOSTS_RESOLVE;
		else if (word && !strcasecmp(word, "push"))
			can |= HOSTS_PUSH;
		else
			return complain(look, section, at,
					"a capability is none of pull, resolve and push");
	}
	/* As there, an empty list is like none. */
	if (can)
		*ret = (*ret & HOSTS_ORIGIN) | can;
	return 0;
}

/* A path, relative to the file's directory. The caller frees. */
static char *full_path(const struct section *section, const char *path)
{
	return *path == '/' ? strdup(path) : format("%s/%s", section->dir, path);
}

static int add_ca(struct hosts_look *look, const struct section *section,
		  struct hosts_endpoint *endpoint, const struct toml *value)
{
	const char *text = toml_string(value);
	if (!text)
		return complain(look, section, value, "ca is no path and no list of paths");
	AUTO_FREE char *file = full_path(section, text);
	return file ? hosts_add_ca(look, endpoint, file) : -ENOMEM;
}

static int set_cas(struct hosts_look *look, const struct section *section,
		   struct hosts_endpoint *endpoint)
{
	const struct toml *value = toml_get(section->table, "ca");
	if (!value || toml_kind(value) != TOML_ARRAY)
		return value ? add_ca(look, section, endpoint, value) : 0;
	int err = 0;
	for (const struct toml *at = toml_first(value); at && !err; at = toml_next(at))
		err = add_ca(look, section, endpoint, at);
	return err;
}

/* A path to a file with both, or a pair of paths. */
static int set_client(struct hosts_look *look, const struct section *section,
		      struct hosts_endpoint *endpoint, const struct toml *value)
{
	bool pair = toml_kind(value) == TOML_ARRAY;
	const struct toml *first = pair ? toml_first(value) : value;
	const char *cert = toml_string(first);
	const char *key = pair ? toml_string(toml_next(first)) : NULL;
	if (!cert || (pair && (!key || toml_next(toml_next(first)))))
		return complain(look, section, value, "client is no path and no pair of paths");
	AUTO_FREE char *cert_file = full_path(section, cert);
	AUTO_FREE char *key_file = key && *key ? full_path(section, key) : NULL;
	if (!cert_file || (key && *key && !key_file))
		return -ENOMEM;
	return hosts_set_client(look, endpoint, cert_file, key_file);
}

static int set_clients(struct hosts_look *look, const struct section *section,
		       struct hosts_endpoint *endpoint)
{
	const struct toml *value = toml_get(section->table, "client");
	if (!value || toml_kind(value) != TOML_ARRAY)
		return value ? set_client(look, section, endpoint, value) : 0;
	int err = 0;
	for (const struct toml *at = toml_first(value); at && !err; at = toml_next(at))
		err = set_client(look, section, endpoint, at);
	return err;
}

#define HEADERS_MAX 4 /* what registry_request leaves room for */

static int set_headers(struct hosts_look *look, const struct section *section,
		       struct hosts_endpoint *endpoint)
{
	const struct toml *table = toml_get(section->table, "header");
	size_t n = 0;
	if (!table)
		return 0;
	endpoint->headers = calloc(HEADERS_MAX + 1, sizeof(char *));
	if (!endpoint->headers)
		return -ENOMEM;
	for (const struct toml *at = toml_first(table); at; at = toml_next(at)) {
		bool list = toml_kind(at) == TOML_ARRAY;
		const struct toml *one = list ? toml_first(at) : at;
		for (; one; one = list ? toml_next(one) : NULL) {
			const char *value = toml_string(one);
			if (!value || strpbrk(value, "\r\n") || strpbrk(toml_key(at), ":\r\n "))
				return complain(look, section, at, "this is no header");
			if (n == HEADERS_MAX)
				return complain(look, section, at, "there are too many headers");
			endpoint->headers[n] = format("%s: %s", toml_key(at), value);
			if (!endpoint->headers[n++])
				return -ENOMEM;
		}
	}
	return 0;
}

/* ---- a host ---- */

/* Where a URL leads, its path without the "/v2" that is added to each anyway. */
static int set_url(struct hosts_look *look, bool bare, const struct http_url *url,
		   struct hosts_endpoint *endpoint)
{
	size_t len = strlen(url->path);
	while (len && url->path[len - 1] == '/')
		len--;
	if (!bare && len >= 3 && !strncmp(url->path + len - 3, "/v2", 3))
		len -= 3;
	bool https = !strcmp(url->scheme, "https");
	bool insecure = hosts_is_insecure(look->hosts, url->host);
	free(endpoint->path);
	endpoint->path = strndup(url->path, len);
	endpoint->bare_path = bare;
	endpoint->scheme = insecure ? HOSTS_INSECURE : https ? HOSTS_HTTPS : HOSTS_HTTP;
	/* A mirror has to be told whose content is wanted, unless it is the registry itself. */
	bool hub = !strcmp(look->host, HOSTS_HUB) && !strcmp(endpoint->key, HOSTS_HUB);
	if (!hub && strcmp(look->host, url->host) != 0) {
		endpoint->ns = strdup(look->host);
		if (!endpoint->ns)
			return -ENOMEM;
	}
	return endpoint->path ? 0 : -ENOMEM;
}

/* SERVER: a URL or a host; NULL: the registry itself. */
static int add_server(struct hosts_look *look, const struct section *section, const char *server,
		      unsigned can)
{
	CLEANUP(http_url_release) struct http_url url = {0};
	AUTO_FREE char *text = NULL;
	struct hosts_endpoint *endpoint;
	bool bare = false;
	int err = get_capabilities(look, section, &can);
	err = err ? err : get_bool(look, section, "override_path", &bare);
	if (!err && server) {
		text = format("%s%s", strstr(server, "://") ? "" : "https://", server);
		err = text ? http_url_parse(text, &url) : -ENOMEM;
		if (err == -EINVAL)
			err = complain(look, section, section->table, "this host is no URL");
	}
	err = err ? err : hosts_add(look, server ? url.host : look->host, can, &endpoint);
	if (!err && server)
		err = set_url(look, bare, &url, endpoint);
	err = err ? err : set_cas(look, section, endpoint);
	err = err ? err : set_clients(look, section, endpoint);
	err = err ? err : get_bool(look, section, "skip_verify", &endpoint->skip_verify);
	err = err ? err : set_headers(look, section, endpoint);
	return err ? err : hosts_finish(look, endpoint);
}

static int add_all(struct hosts_look *look, const char *dir, const char *file,
		   const struct toml *root)
{
	struct section section = {.dir = dir, .file = file};
	const struct toml *list = toml_get(root, "host");
	if (list && toml_kind(list) != TOML_TABLE)
		return hosts_refuse(look, "%s, line %u: host is no table", file, toml_line(list));
	for (const struct toml *at = toml_first(list); at; at = toml_next(at)) {
		section.table = at;
		if (toml_kind(at) != TOML_TABLE)
			return complain(look, &section, at, "a host that is no table");
		int err = add_server(look, &section, toml_key(at), HOSTS_PULL | HOSTS_RESOLVE);
		if (err)
			return err;
	}
	const struct toml *server = toml_get(root, "server");
	section.table = root;
	if (server && !toml_string(server))
		return complain(look, &section, server, "server is no string");
	const char *text = server && *toml_string(server) ? toml_string(server) : NULL;
	return add_server(look, &section, text,
			  HOSTS_PULL | HOSTS_RESOLVE | HOSTS_PUSH | HOSTS_ORIGIN);
}

/* ---- finding the file ---- */

/* "HOST_PORT_" for "HOST:PORT". The caller frees. */
static char *portable_name(const char *host)
{
	const char *colon = strrchr(host, ':');
	if (!colon || colon == host)
		return strdup(host);
	return format("%.*s_%s_", (int)(colon - host), host, colon + 1);
}

/* 1: NAME below ROOT is there, and decides if it has a file. *RET_FILE: it had. */
static int try_dir(struct hosts_look *look, const char *root, const char *name, bool *ret_file)
{
	AUTO_FREE char *dir = format("%s/%s", root, name);
	AUTO_FREE char *file = dir ? format("%s/hosts.toml", dir) : NULL;
	AUTO_TOML struct toml *toml = NULL;
	struct stat st;
	if (!file)
		return -ENOMEM;
	if (stat(dir, &st))
		return 0;
	int err = hosts_parse(look, file, &toml);
	if (err == -ENOENT)
		return 1;
	err = err ? err : add_all(look, dir, file, toml);
	*ret_file = !err;
	return err ? err : 1;
}

int hosts_from_toml(struct hosts_look *look)
{
	AUTO_FREE char *portable = portable_name(look->host);
	bool file = false;
	if (!portable)
		return -ENOMEM;
	for (char *const *root = look->hosts->toml_roots; *root; root++) {
		const char *const names[] = {portable, look->host, "_default"};
		for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
			int found = try_dir(look, *root, names[i], &file);
			if (found)
				return found < 0 ? found : file;
		}
	}
	return 0;
}
