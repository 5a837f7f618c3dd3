/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth_tls: with which TLS settings a token service is asked. The registry names it, so it may be
 * anybody's: what is set for the registry alone (its client certificate, that nobody verifies it)
 * is not for others. Knows hosts. Must not know tokens.
 */
#include <errno.h>
#include <strings.h>

#include "auth_priv.h"

/* HOST without its port. */
static size_t name_len(const char *host)
{
	const char *bracket = *host == '[' ? strchr(host, ']') : NULL;
	return bracket ? (size_t)(bracket - host) : strcspn(host, ":");
}

static bool is_same_name(const char *a, const char *b)
{
	return name_len(a) == name_len(b) && !strncasecmp(a, b, name_len(a));
}

static const struct hosts_endpoint *find_endpoint(const struct hosts_answer *answer,
						  const char *host)
{
	for (size_t i = 0; i < answer->n; i++) {
		if (!strcasecmp(answer->endpoints[i].host, host))
			return &answer->endpoints[i];
	}
	return NULL;
}

int auth_realm_tls(const struct auth *auth, const char *realm, struct http_tls *ret,
		   const struct hosts_answer **ret_hold)
{
	CLEANUP(http_url_release) struct http_url url = {0};
	const struct hosts_answer *answer = NULL;
	int err = http_url_parse(realm, &url);
	if (err)
		return err;
	if (!auth->tls || !auth->endpoint || is_same_name(url.host, auth->endpoint)) {
		*ret = auth->tls ? *auth->tls : (struct http_tls){0};
		return 0;
	}
	struct http_tls tls = {.ca_pem = auth->tls->ca_pem};
	err = auth->hosts ? hosts_find(auth->hosts, url.host, NULL, &answer) : 0;
	if (err)
		return err;
	const struct hosts_endpoint *own = answer ? find_endpoint(answer, url.host) : NULL;
	if (own) {
		tls.ca_pem = own->ca_pem ? own->ca_pem : tls.ca_pem;
		tls.cert_file = own->cert_file;
		tls.key_file = own->key_file;
		tls.skip_verify = own->skip_verify || own->scheme == HOSTS_INSECURE;
	}
	*ret = tls;
	*ret_hold = answer;
	return 0;
}
