// SPDX-License-Identifier: Apache-2.0
/*
 * ref: the reference grammar. Knows which bytes may stand where. Must not know URLs,
 * the network, or which registries exist.
 *
 * Character classes are spelt out: ctype.h would follow the locale.
 */
#include <arpa/inet.h>
#include <errno.h>

#include "regfs/ref.h"

#define HOST_NAME_MAX_LEN 255
#define PORT_DIGITS_MAX	  5
#define DOCKER_HUB	  "docker.io"

/* Said of a HOST[:PORT] alone and of one in a reference. */
#define BAD_HOST "the registry is not a valid HOST or HOST:PORT (lower case, port 1 to 65535)"

static bool is_lower_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_word(char c)
{
	return is_lower_alnum(c) || (c >= 'A' && c <= 'Z') || c == '_';
}

/* --- hosts --- */

/* Labels joined by dots, as in RFC 1123: no empty one, no hyphen at an end. */
static bool name_valid(const char *name, size_t len)
{
	char before = '.';

	for (size_t i = 0; i < len; i++) {
		char c = name[i];
		bool ends_label = before == '.' || i + 1 == len || name[i + 1] == '.';

		if (!is_lower_alnum(c) && (ends_label || (c != '-' && c != '.')))
			return false;
		before = c;
	}
	return len > 0 && len <= HOST_NAME_MAX_LEN;
}

/* "[…]" with an IPv6 address in lower case, so that one host has one spelling less. */
static bool ipv6_valid(const char *str, size_t len)
{
	char address[INET6_ADDRSTRLEN];
	struct in6_addr parsed;

	if (len < 4 || len - 2 >= sizeof(address) || str[0] != '[' || str[len - 1] != ']')
		return false;
	for (size_t i = 1; i < len - 1; i++)
		if (str[i] >= 'A' && str[i] <= 'F')
			return false;
	memcpy(address, str + 1, len - 2);
	address[len - 2] = '\0';
	return inet_pton(AF_INET6, address, &parsed) == 1;
}

/* 1 to 65535 without leading zeros: another spelling would be another directory. */
static bool port_valid(const char *port)
{
	uint64_t value;

	return port[0] != '0' && strlen(port) <= PORT_DIGITS_MAX && parse_u64(port, &value) &&
	       value <= UINT16_MAX;
}

/* The colon before the port, or the end of HOST. */
static const char *host_end(const char *host)
{
	const char *from = host[0] == '[' ? strchr(host, ']') : host;

	return strchrnul(from ? from : host, ':');
}

/* Any host, a name of one label included. */
static bool authority_valid(const char *host)
{
	const char *end = host_end(host);
	size_t len = end - host;

	if (host[0] == '[' ? !ipv6_valid(host, len) : !name_valid(host, len))
		return false;
	return *end == '\0' || port_valid(end + 1);
}

bool ref_host_valid(const char *host)
{
	if (strcmp(host, "localhost") == 0 || strcmp(host, "local") == 0)
		return true;
	return strpbrk(host, ".:") && authority_valid(host);
}

/* --- repositories, tags --- */

/* The length of the separator at STR: one '.', one or two '_', any number of '-'. */
static size_t separator_len(const char *str)
{
	if (str[0] == '.')
		return 1;
	if (str[0] == '_')
		return str[1] == '_' ? 2 : 1;
	return strspn(str, "-");
}

/* The length of the longest component at STR; it ends at the first byte that cannot go on. 0 if
 * there is none. */
static size_t component_len(const char *str)
{
	size_t len = 0, separator = 0;

	for (;;) {
		size_t run = len + separator;

		while (is_lower_alnum(str[run]))
			run++;
		if (run == len + separator)
			return len;
		len = run;
		separator = separator_len(str + len);
		if (separator == 0)
			return len;
	}
}

bool ref_component_valid(const char *component)
{
	size_t len = component_len(component);

	return len > 0 && len < REF_REPO_MAX && component[len] == '\0';
}

bool ref_repo_valid(const char *repo)
{
	const char *at = repo;

	for (;;) {
		size_t len = component_len(at);

		at += len;
		if (len == 0 || at - repo >= REF_REPO_MAX)
			return false;
		if (*at == '\0')
			return true;
		if (*at++ != '/')
			return false;
	}
}

bool ref_tag_valid(const char *tag)
{
	size_t len = 0;

	if (!is_word(tag[0]))
		return false;
	while (is_word(tag[len]) || tag[len] == '.' || tag[len] == '-')
		if (++len >= REF_TAG_MAX)
			return false;
	return tag[len] == '\0';
}

/* --- references --- */

static int invalid(const char **ret_why, const char *why)
{
	*ret_why = why;
	return -EINVAL;
}

/* Copies LEN bytes as a string, if they fit. */
static bool copy_part(char *out, size_t cap, const char *str, size_t len)
{
	if (len >= cap)
		return false;
	memcpy(out, str, len);
	out[len] = '\0';
	return true;
}

static bool is_host_part(const char *str, size_t len)
{
	return memchr(str, '.', len) || memchr(str, ':', len) ||
	       (len == strlen("localhost") && memcmp(str, "localhost", len) == 0) ||
	       (len == strlen("local") && memcmp(str, "local", len) == 0);
}

/* Takes the host off *STR, or docker.io. */
static int parse_host(const char **str, struct ref *ref, const char **ret_why)
{
	const char *slash = strchr(*str, '/');
	size_t len = slash ? slash - *str : 0;

	if (!slash || !is_host_part(*str, len)) {
		copy_part(ref->host, sizeof(ref->host), DOCKER_HUB, strlen(DOCKER_HUB));
		return 0;
	}
	if (!copy_part(ref->host, sizeof(ref->host), *str, len) || !ref_host_valid(ref->host))
		return invalid(ret_why, BAD_HOST);
	/* docker's other spelling of the same registry */
	if (strcmp(ref->host, "index." DOCKER_HUB) == 0)
		copy_part(ref->host, sizeof(ref->host), DOCKER_HUB, strlen(DOCKER_HUB));
	*str = slash + 1;
	return 0;
}

static int parse_repo(const char *str, size_t len, struct ref *ref, const char **ret_why)
{
	bool official = strcmp(ref->host, DOCKER_HUB) == 0 && !memchr(str, '/', len);
	const char *prefix = official ? "library/" : "";
	size_t prefix_len = strlen(prefix);

	if (len == 0)
		return invalid(ret_why, "the repository is missing");
	memcpy(ref->repo, prefix, prefix_len);
	if (!copy_part(ref->repo + prefix_len, sizeof(ref->repo) - prefix_len, str, len))
		return invalid(ret_why, "the repository is longer than 255 bytes");
	if (!ref_repo_valid(ref->repo))
		return invalid(ret_why, "the repository is not valid (lower-case letters and "
					"digits, joined by '.', '_', '__', '-' or '/')");
	return 0;
}

static int parse_tag(const char *str, size_t len, struct ref *ref, const char **ret_why)
{
	if (!copy_part(ref->tag, sizeof(ref->tag), str, len) || !ref_tag_valid(ref->tag))
		return invalid(ret_why, "the tag is not valid (letters, digits, '_', '.' and '-', "
					"at most 128)");
	return 0;
}

int ref_parse(const char *str, struct ref *ret, const char **ret_why)
{
	struct ref ref = {.digest.algo = DIGEST_NONE};
	const char *at, *colon;
	size_t name_len;
	int err;

	err = parse_host(&str, &ref, ret_why);
	if (err)
		return err;
	at = strchrnul(str, '@');
	colon = memchr(str, ':', at - str);
	name_len = (colon ? colon : at) - str;
	err = parse_repo(str, name_len, &ref, ret_why);
	if (!err && colon)
		err = parse_tag(colon + 1, at - colon - 1, &ref, ret_why);
	if (err)
		return err;
	if (*at && digest_parse(at + 1, &ref.digest))
		return invalid(ret_why,
			       "the digest is not valid (sha256: and 64 lower-case hex digits)");
	if (!colon && !*at)
		copy_part(ref.tag, sizeof(ref.tag), "latest", strlen("latest"));
	*ret = ref;
	return 0;
}

int ref_split_image_name(const char *name, char component[static REF_REPO_MAX],
			 char tag[static REF_TAG_MAX], struct digest *digest)
{
	size_t len = component_len(name);
	struct digest parsed = {.algo = DIGEST_NONE};
	const char *found_tag = "";

	if (len == 0 || len >= REF_REPO_MAX)
		return -ENOENT;
	if (name[len] == ':' && ref_tag_valid(name + len + 1))
		found_tag = name + len + 1;
	else if (name[len] != '@' || digest_parse(name + len + 1, &parsed))
		return -ENOENT;
	copy_part(component, REF_REPO_MAX, name, len);
	copy_part(tag, REF_TAG_MAX, found_tag, strlen(found_tag));
	*digest = parsed;
	return 0;
}

const char *ref_format(const struct ref *ref, char out[static REF_STR_MAX])
{
	char digest[DIGEST_STR_MAX] = "";

	if (ref->digest.algo != DIGEST_NONE)
		digest_format(&ref->digest, digest);
	snprintf(out, REF_STR_MAX, "%s%s%s%s%s%s%s", ref->host, ref->repo[0] ? "/" : "", ref->repo,
		 ref->tag[0] ? ":" : "", ref->tag, digest[0] ? "@" : "", digest);
	return out;
}

/* --- SOURCE --- */

/* What follows http:// or https://: a host, perhaps with a slash at its end. */
static int parse_address(const char *str, struct source *source, const char **ret_why)
{
	size_t len = strlen(str);

	if (strchr(str, '@'))
		return invalid(ret_why, "credentials do not belong into SOURCE: use regfs login");
	if (len > 0 && str[len - 1] == '/')
		len--;
	if (memchr(str, '/', len))
		return invalid(ret_why, "an address with http:// or https:// names a registry and "
					"takes no path");
	if (!copy_part(source->ref.host, sizeof(source->ref.host), str, len) ||
	    !authority_valid(source->ref.host))
		return invalid(ret_why, BAD_HOST);
	source->kind = SOURCE_HOST;
	return 0;
}

/* Without a scheme and a slash: is it a registry rather than an image? */
static bool names_host(const char *str)
{
	const char *end = host_end(str);

	if (strpbrk(str, "/@"))
		return false;
	return str[0] == '[' || memchr(str, '.', end - str) ||
	       (end - str == strlen("localhost") && starts_with(str, "localhost"));
}

int source_parse(const char *str, struct source *ret, const char **ret_why)
{
	struct source source = {.kind = SOURCE_NONE};
	int err = 0;

	if (!str || !*str) {
		*ret = source;
		return 0;
	}
	source.plain_http = starts_with(str, "http://");
	source.https = starts_with(str, "https://");
	if (source.plain_http || source.https) {
		err = parse_address(strstr(str, "://") + strlen("://"), &source, ret_why);
	} else if (strcmp(str, "local") == 0) {
		source.kind = SOURCE_LOCAL;
		copy_part(source.ref.host, sizeof(source.ref.host), str, strlen(str));
	} else if (names_host(str)) {
		err = parse_address(str, &source, ret_why);
	} else {
		source.kind = SOURCE_IMAGE;
		err = ref_parse(str, &source.ref, ret_why);
	}
	if (!err)
		*ret = source;
	return err;
}
