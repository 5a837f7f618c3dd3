/* SPDX-License-Identifier: Apache-2.0 */
/*
 * authfile_key: which host and namespace a key is for, and which entry serves a repository.
 * Must not know JSON.
 */
#include "authfile_priv.h"

/* Behind the scheme; the path of a URL means nothing. */
static const char *skip_scheme(const char *key, bool *ret_is_url)
{
	static const char *const schemes[] = {"https://", "http://"};

	*ret_is_url = false;
	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
		if (!starts_with(key, schemes[i]))
			continue;
		*ret_is_url = true;
		return key + strlen(schemes[i]);
	}
	return key;
}

/* The namespace in KEY: its length at *RET, without slashes around it; 0 if there is none. */
static size_t key_namespace(const char *key, const char **ret)
{
	bool is_url;
	const char *at = skip_scheme(key, &is_url);
	size_t len;

	at += strcspn(at, "/");
	at += strspn(at, "/");
	/* docker has also written URLs without their scheme */
	if (is_url || !strcmp(at, "v1/") || !strcmp(at, "v2/"))
		return 0;
	len = strlen(at);
	while (len > 0 && at[len - 1] == '/')
		len--;
	*ret = at;
	return len;
}

bool authfile_key_host(const char *key, char ret[static REF_HOST_MAX])
{
	static const char *const hub[] = {AUTHFILE_HUB, "index.docker.io", "registry-1.docker.io"};
	char host[REF_HOST_MAX];
	bool is_url;
	const char *from = skip_scheme(key, &is_url);
	size_t len = strcspn(from, "/");

	if (len == 0 || len >= sizeof(host))
		return false;
	for (size_t i = 0; i < len; i++)
		host[i] = from[i] >= 'A' && from[i] <= 'Z' ? from[i] - 'A' + 'a' : from[i];
	host[len] = '\0';
	if (!ref_host_valid(host) || !strcmp(host, "local"))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(hub); i++)
		if (!strcmp(host, hub[i]))
			from = AUTHFILE_HUB;
	memcpy(ret, host, len + 1);
	if (!strcmp(from, AUTHFILE_HUB))
		memcpy(ret, AUTHFILE_HUB, sizeof(AUTHFILE_HUB));
	return true;
}

/* How much of REPO the key names: -1 if it is not for this repository, 0 for the host as a
 * whole. */
static ssize_t key_depth(const char *key, const char *host, const char *repo)
{
	char own[REF_HOST_MAX];
	const char *namespace;
	size_t len;

	if (!authfile_key_host(key, own) || strcmp(own, host) != 0)
		return -1;
	len = key_namespace(key, &namespace);
	if (len == 0)
		return 0;
	if (!repo || strncmp(repo, namespace, len) != 0 || (repo[len] && repo[len] != '/'))
		return -1;
	return len;
}

bool authfile_key_is(const char *key, const char *host)
{
	return key_depth(key, host, NULL) == 0;
}

const char *authfile_default_key(const char *host)
{
	return !strcmp(host, AUTHFILE_HUB) ? AUTHFILE_HUB_KEY : host;
}

static const struct authfile_entry *best_entry(const struct authfile *file, const char *host,
					       const char *repo, ssize_t *ret_depth)
{
	const struct authfile_entry *best = NULL;

	*ret_depth = -1;
	for (size_t i = 0; i < file->nentries; i++) {
		const struct authfile_entry *entry = &file->entries[i];
		ssize_t depth = key_depth(entry->key, host, repo);

		if (depth > *ret_depth && !authfile_entry_is_empty(entry)) {
			best = entry;
			*ret_depth = depth;
		}
	}
	return best;
}

/* The key under which docker has given HOST to its helper: it leaves an empty entry. */
static const char *stored_key(const struct authfile *file, const char *host)
{
	for (size_t i = 0; i < file->nentries; i++)
		if (authfile_key_is(file->entries[i].key, host))
			return file->entries[i].key;
	return authfile_default_key(host);
}

void authfile_choose(const struct authfile *file, const char *key, const char *repo,
		     struct authfile_choice *ret)
{
	bool store = file->store != NULL;
	ssize_t depth;

	*ret = (struct authfile_choice){0};
	if (!authfile_key_host(key, ret->host))
		return;
	for (size_t i = 0; i < file->nhelpers; i++) {
		const struct authfile_helper *helper = &file->helpers[i];

		if (!authfile_key_is(helper->key, ret->host))
			continue;
		store = false;
		if (*helper->name) {
			ret->helper = helper->name;
			ret->helper_key = helper->key;
			return;
		}
	}
	ret->entry = best_entry(file, ret->host, repo, &depth);
	if (store && depth <= 0) {
		ret->helper = file->store;
		ret->helper_key = stored_key(file, ret->host);
	}
}

bool authfile_names(const struct authfile *file, const char *key)
{
	char host[REF_HOST_MAX];

	if (!authfile_key_host(key, host))
		return false;
	for (size_t i = 0; i < file->nentries; i++)
		if (authfile_key_is(file->entries[i].key, host))
			return true;
	for (size_t i = 0; i < file->nhelpers; i++)
		if (authfile_key_is(file->helpers[i].key, host))
			return true;
	return false;
}
