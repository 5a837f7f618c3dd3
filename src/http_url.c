/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http_url: URLs by curl's parser, and what a host's spelling says.
 * Pure: no I/O, no lock.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <strings.h>

#include "http_priv.h"

static void curl_url_release(CURLU **url)
{
	curl_url_cleanup(*url);
}
#define AUTO_CURLU CLEANUP(curl_url_release)

static void curl_text_release(char **text)
{
	curl_free(*text);
}
#define AUTO_CURL_TEXT CLEANUP(curl_text_release)

static int url_errno(CURLUcode code)
{
	return code == CURLUE_OUT_OF_MEMORY ? -ENOMEM : -EINVAL;
}

void http_url_release(struct http_url *url)
{
	free(url->scheme);
	free(url->host);
	free(url->path);
	free(url->query);
	*url = (struct http_url){0};
}

/* *RET stays NULL where the part is absent. */
static int get_part(CURLU *url, CURLUPart part, char **ret)
{
	AUTO_CURL_TEXT char *text = NULL;
	CURLUcode code = curl_url_get(url, part, &text, 0);
	if (code == CURLUE_NO_QUERY || code == CURLUE_NO_PORT)
		return 0;
	if (code)
		return url_errno(code);
	*ret = strdup(text);
	return *ret ? 0 : -ENOMEM;
}

static int get_host(CURLU *url, char **ret)
{
	AUTO_FREE char *host = NULL;
	AUTO_FREE char *port = NULL;
	int err = get_part(url, CURLUPART_HOST, &host);
	err = err ? err : get_part(url, CURLUPART_PORT, &port);
	if (err)
		return err;
	*ret = port ? format("%s:%s", host, port) : STEAL(host);
	return *ret ? 0 : -ENOMEM;
}

int http_url_parse(const char *text, struct http_url *ret)
{
	AUTO_CURLU CURLU *url = curl_url();
	if (!url)
		return -ENOMEM;
	CURLUcode code = curl_url_set(url, CURLUPART_URL, text,
				      CURLU_DISALLOW_USER | CURLU_PATH_AS_IS);
	if (code)
		return url_errno(code);
	CLEANUP(http_url_release) struct http_url parts = {0};
	int err = get_part(url, CURLUPART_SCHEME, &parts.scheme);
	err = err ? err : get_host(url, &parts.host);
	err = err ? err : get_part(url, CURLUPART_PATH, &parts.path);
	err = err ? err : get_part(url, CURLUPART_QUERY, &parts.query);
	if (err)
		return err;
	if (strcmp(parts.scheme, "http") && strcmp(parts.scheme, "https"))
		return -EINVAL;
	*ret = parts;
	parts = (struct http_url){0};
	return 0;
}

uint16_t http_url_port(const char *text)
{
	AUTO_CURLU CURLU *url = curl_url();
	AUTO_CURL_TEXT char *port = NULL;
	uint64_t number = 0;
	if (url && !curl_url_set(url, CURLUPART_URL, text, 0) &&
	    !curl_url_get(url, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT))
		parse_u64(port, &number);
	return (uint16_t)number;
}

int http_url_resolve(const char *base, const char *ref, char **ret)
{
	AUTO_CURLU CURLU *url = curl_url();
	if (!url)
		return -ENOMEM;
	CURLUcode code = curl_url_set(url, CURLUPART_URL, base, CURLU_PATH_AS_IS);
	if (!code)
		code = curl_url_set(url, CURLUPART_URL, ref, CURLU_PATH_AS_IS);
	if (!code)
		code = curl_url_set(url, CURLUPART_FRAGMENT, NULL, 0);
	AUTO_CURL_TEXT char *text = NULL;
	if (!code)
		code = curl_url_get(url, CURLUPART_URL, &text, 0);
	if (code)
		return url_errno(code);
	char *copy = strdup(text);
	if (!copy)
		return -ENOMEM;
	*ret = copy;
	return 0;
}

char *http_url_escape(const char *str)
{
	static const char hex[] = "0123456789ABCDEF";
	size_t len = strlen(str);
	char *out = malloc(len * 3 + 1);
	if (!out)
		return NULL;
	char *to = out;
	for (const char *c = str; *c; c++) {
		bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
			     (*c >= '0' && *c <= '9') || strchr("-._~", *c);
		if (plain) {
			*to++ = *c;
			continue;
		}
		*to++ = '%';
		*to++ = hex[(uint8_t)*c >> 4];
		*to++ = hex[(uint8_t)*c & 15];
	}
	*to = '\0';
	return out;
}

/* The host without port and brackets, and without the dot that may end a name (RFC 1034, section
 * 3.1); false if it cannot be one. */
static bool bare_host(const char *host, char *out, size_t cap)
{
	size_t len = strcspn(host, ":");
	if (*host == '[') {
		host++;
		len = strcspn(host, "]");
	}
	if (len && host[len - 1] == '.')
		len--;
	if (len >= cap)
		return false;
	memcpy(out, host, len);
	out[len] = '\0';
	return true;
}

/* An IPv4 address out of any of its spellings (127.1, ::ffff:127.0.0.1). */
static bool ipv4_of(const char *host, uint32_t *ret)
{
	struct in_addr v4;
	struct in6_addr v6;
	if (inet_aton(host, &v4)) {
		*ret = ntohl(v4.s_addr);
		return true;
	}
	if (inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_V4MAPPED(&v6)) {
		memcpy(&v4, v6.s6_addr + 12, sizeof(v4));
		*ret = ntohl(v4.s_addr);
		return true;
	}
	return false;
}

bool http_host_is_loopback(const char *host)
{
	char bare[256];
	uint32_t v4;
	struct in6_addr v6;
	if (!bare_host(host, bare, sizeof(bare)))
		return false;
	/* RFC 6761, section 6.3: with all names below it. */
	size_t len = strlen(bare), tail = strlen(".localhost");
	if (!strcasecmp(bare, "localhost") ||
	    (len > tail && !strcasecmp(bare + len - tail, ".localhost")))
		return true;
	if (ipv4_of(bare, &v4))
		return v4 >> 24 == 127;
	return inet_pton(AF_INET6, bare, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

bool http_host_is_local(const char *host)
{
	char bare[256];
	uint32_t v4;
	struct in6_addr v6;
	if (http_host_is_loopback(host))
		return true;
	if (!bare_host(host, bare, sizeof(bare)))
		return false;
	if (ipv4_of(bare, &v4))
		return v4 >> 24 == 0 || v4 >> 16 == 0xa9fe; /* 0/8, 169.254/16 */
	return inet_pton(AF_INET6, bare, &v6) == 1 &&
	       (IN6_IS_ADDR_LINKLOCAL(&v6) || IN6_IS_ADDR_UNSPECIFIED(&v6));
}

bool http_host_is_private(const char *host)
{
	char bare[256];
	uint32_t v4;
	struct in6_addr v6;
	if (!bare_host(host, bare, sizeof(bare)))
		return false;
	if (ipv4_of(bare, &v4))
		return v4 >> 24 == 10 || v4 >> 20 == 0xac1 || v4 >> 16 == 0xc0a8 ||
		       v4 >> 22 == 0x191; /* 10/8, 172.16/12, 192.168/16, 100.64/10 */
	return inet_pton(AF_INET6, bare, &v6) == 1 && (v6.s6_addr[0] & 0xfe) == 0xfc; /* fc00::/7 */
}
