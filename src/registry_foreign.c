/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_foreign: blobs that a registry need not hold itself, because their descriptors say where
 * else they are (image-spec, descriptor.md, "urls"; the layers of Windows images).
 * Knows which URLs may be followed. Must not know how a blob is read.
 *
 * A manifest is anybody's: what it names is asked without credentials (CVE-2020-15157), and a
 * registry on the network sends nobody to this machine or its neighbours. The bytes are judged by
 * their digest, as all others.
 */
#include <errno.h>

#include "registry_priv.h"
#include "regfs/log.h"

#define FOREIGN_MAX 256 /* blobs remembered, for one registry */
#define URLS_MAX    (REGISTRY_URLS_MAX - 1)

struct foreign {
	struct foreign *next; /* most recently learned first */
	char *repo;
	struct digest digest;
	char *urls[URLS_MAX + 1]; /* NULL behind the last */
};

static void foreign_free(struct foreign *foreign)
{
	if (!foreign)
		return;
	free(foreign->repo);
	registry_urls_free(foreign->urls);
	free(foreign);
}

static void foreign_cleanup(struct foreign **foreign)
{
	foreign_free(*foreign);
}

void registry_urls_free(char **urls)
{
	for (size_t i = 0; urls[i]; i++)
		free(STEAL(urls[i]));
}

void registry_foreign_release(struct registry *registry)
{
	while (registry->foreign) {
		struct foreign *foreign = registry->foreign;
		registry->foreign = foreign->next;
		foreign_free(foreign);
	}
}

static bool is_near(const char *host)
{
	return http_host_is_local(host) || http_host_is_loopback(host);
}

const char *registry_foreign_refusal(const char *host, const char *url)
{
	CLEANUP(http_url_release) struct http_url there = {0};
	if (http_url_parse(url, &there))
		return "it is no http or https URL";
	return is_near(there.host) && !is_near(host) ? "it leads to this machine" : NULL;
}

static int copy_urls(const struct registry *registry, char *const *urls, size_t n,
		     struct foreign *foreign)
{
	size_t kept = 0;
	for (size_t i = 0; i < n && kept < URLS_MAX; i++) {
		const char *why = registry_foreign_refusal(registry->endpoint, urls[i]);
		if (why) {
			log_warn("%s/%s: a layer's URL is not followed: %s", registry->store.name,
				 foreign->repo, why);
			continue;
		}
		foreign->urls[kept] = strdup(urls[i]);
		if (!foreign->urls[kept++])
			return -ENOMEM;
	}
	return kept ? 0 : -ENOENT;
}

/* Where REPO's entry for DIGEST is pointed to, or the place behind the last. Lock held. */
static struct foreign **find(struct registry *registry, const char *repo,
			     const struct digest *digest, size_t *ret_before)
{
	struct foreign **at = &registry->foreign;
	size_t before = 0;
	for (; *at; at = &(*at)->next, before++) {
		if (digest_equal(&(*at)->digest, digest) && !strcmp((*at)->repo, repo))
			break;
	}
	*ret_before = before;
	return at;
}

void registry_learn_urls(struct store *store, const char *repo, const struct digest *digest,
			 char *const *urls, size_t n)
{
	struct registry *registry = registry_of(store);
	CLEANUP(foreign_cleanup) struct foreign *fresh = calloc(1, sizeof(*fresh));
	struct foreign *old = NULL;
	size_t before;
	if (!fresh)
		return;
	fresh->digest = *digest;
	fresh->repo = strdup(repo);
	if (!fresh->repo || copy_urls(registry, urls, n, fresh))
		return;
	pthread_mutex_lock(&registry->lock);
	struct foreign **at = find(registry, repo, digest, &before);
	if (!*at && before == FOREIGN_MAX) {
		for (at = &registry->foreign; (*at)->next;)
			at = &(*at)->next;
	}
	old = *at;
	if (old)
		*at = old->next;
	fresh->next = registry->foreign;
	registry->foreign = STEAL(fresh);
	pthread_mutex_unlock(&registry->lock);
	foreign_free(old);
}

int registry_foreign_urls(struct registry *registry, const char *repo, const struct digest *digest,
			  char *ret[static REGISTRY_URLS_MAX])
{
	size_t before, n = 0;
	pthread_mutex_lock(&registry->lock);
	struct foreign *foreign = *find(registry, repo, digest, &before);
	for (; foreign && foreign->urls[n]; n++) {
		ret[n] = strdup(foreign->urls[n]);
		if (!ret[n])
			break;
	}
	ret[n] = NULL;
	pthread_mutex_unlock(&registry->lock);
	return n ? 0 : -ENOENT;
}
