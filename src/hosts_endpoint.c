/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hosts_endpoint: one endpoint from its host's name to its last detail.
 * Knows what follows from the name alone: Docker Hub, this machine, insecure=. Must not know which
 * file named it.
 */
#include <errno.h>

#include "hosts_priv.h"

static void endpoint_release(struct hosts_endpoint *endpoint)
{
	for (char **header = endpoint->headers; header && *header; header++)
		free(*header);
	free(endpoint->headers);
	free(endpoint->host);
	free(endpoint->key);
	free(endpoint->path);
	free(endpoint->repo);
	free(endpoint->ns);
	free(endpoint->ca_pem);
	free(endpoint->cert_file);
	free(endpoint->key_file);
}

void hosts_answer_free(struct hosts_answer *answer)
{
	for (size_t i = 0; i < answer->n; i++)
		endpoint_release(&answer->endpoints[i]);
	free(answer->endpoints);
	*answer = (struct hosts_answer){0};
}

static bool is_hub(const char *host)
{
	return !strcmp(host, HOSTS_HUB) || !strcmp(host, HOSTS_HUB_ENDPOINT) ||
	       !strcmp(host, "index.docker.io");
}

int hosts_add(struct hosts_look *look, const char *host, unsigned can, struct hosts_endpoint **ret)
{
	struct hosts_answer *answer = look->answer;
	if (answer->n == HOSTS_ENDPOINTS_MAX)
		return hosts_refuse(look, "more than %d mirrors are configured",
				    HOSTS_ENDPOINTS_MAX);
	if (!answer->endpoints)
		answer->endpoints = calloc(HOSTS_ENDPOINTS_MAX, sizeof(*answer->endpoints));
	if (!answer->endpoints)
		return -ENOMEM;
	struct hosts_endpoint *endpoint = &answer->endpoints[answer->n++];
	*endpoint = (struct hosts_endpoint){
		.can = can,
		.host = strdup(is_hub(host) ? HOSTS_HUB_ENDPOINT : host),
		.key = strdup(is_hub(host) ? HOSTS_HUB : host),
		.path = strdup(""),
		.repo = look->repo ? strdup(look->repo) : NULL,
	};
	if (hosts_is_insecure(look->hosts, host))
		endpoint->scheme = HOSTS_INSECURE;
	else if (http_host_is_loopback(host))
		endpoint->scheme = HOSTS_LOCAL;
	bool whole = endpoint->host && endpoint->key && endpoint->path &&
		     !endpoint->repo == !look->repo;
	*ret = endpoint;
	return whole ? 0 : -ENOMEM;
}

static uint64_t add_text(uint64_t hash, const char *text)
{
	/* With its NUL, so that neighbours do not run together. */
	return text ? hash64(hash, text, strlen(text) + 1) : hash64(hash, "\1", 1);
}

static uint64_t identify(const struct hosts_endpoint *endpoint)
{
	const uint8_t bits[] = {(uint8_t)endpoint->scheme, endpoint->bare_path,
				endpoint->skip_verify};
	uint64_t hash = hash64(0, bits, sizeof(bits));
	hash = add_text(hash, endpoint->host);
	hash = add_text(hash, endpoint->path);
	hash = add_text(hash, endpoint->ns);
	hash = add_text(hash, endpoint->ca_pem);
	hash = add_text(hash, endpoint->cert_file);
	hash = add_text(hash, endpoint->key_file);
	for (char **header = endpoint->headers; header && *header; header++)
		hash = add_text(hash, *header);
	return hash;
}

int hosts_finish(struct hosts_look *look, struct hosts_endpoint *endpoint)
{
	int err = hosts_read_certs(look, endpoint);
	if (!err && look->hosts->cacert)
		err = hosts_add_ca(look, endpoint, look->hosts->cacert);
	if (!err)
		endpoint->identity = identify(endpoint);
	return err;
}
