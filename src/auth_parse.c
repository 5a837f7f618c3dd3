/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth_parse: WWW-Authenticate to challenges; credentials to a header.
 * Pure: text in, values out. Must not know requests.
 */
#include <errno.h>
#include <strings.h>

#include "auth_priv.h"

void auth_credential_release(struct auth_credential *credential)
{
	secret_free(&credential->user);
	secret_free(&credential->password);
	secret_free(&credential->identity_token);
	secret_free(&credential->registry_token);
}

void auth_challenges_release(struct auth_challenges *challenges)
{
	free(challenges->realm);
	free(challenges->service);
	free(challenges->scope);
	free(challenges->error);
	*challenges = (struct auth_challenges){0};
}

/* A run of token characters (RFC 7230, section 3.2.6). */
static size_t token_len(const char *at)
{
	return strspn(at, "!#$%&'*+-.^_`|~0123456789"
			  "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz");
}

static const char *skip_space(const char *at)
{
	return at + strspn(at, " \t");
}

/* A token or a quoted string at *AT, which moves behind it. 0, -EINVAL or -ENOMEM. */
static int read_value(const char **at, char **ret)
{
	const char *from = *at;
	if (*from != '"') {
		size_t len = token_len(from);
		*at = from + len;
		*ret = strndup(from, len);
		return *ret ? 0 : -ENOMEM;
	}
	char *value = malloc(strlen(from));
	if (!value)
		return -ENOMEM;
	char *to = value;
	for (from++; *from && *from != '"'; from++) {
		if (*from == '\\' && from[1])
			from++;
		*to++ = *from;
	}
	*to = '\0';
	if (!*from) {
		free(value);
		return -EINVAL;
	}
	*at = from + 1;
	*ret = value;
	return 0;
}

static void keep(char **field, char **value)
{
	/* The first one counts; nobody sends two honestly. */
	if (!*field)
		*field = STEAL(*value);
}

/* One parameter of a Bearer challenge; those of other schemes are not of interest. */
static void keep_param(struct auth_challenges *challenges, const char *name, size_t len,
		       char **value)
{
	if (len == 5 && !strncasecmp(name, "realm", len))
		keep(&challenges->realm, value);
	else if (len == 7 && !strncasecmp(name, "service", len))
		keep(&challenges->service, value);
	else if (len == 5 && !strncasecmp(name, "scope", len))
		keep(&challenges->scope, value);
	else if (len == 5 && !strncasecmp(name, "error", len))
		keep(&challenges->error, value);
}

int auth_parse(const char *header, struct auth_challenges *challenges)
{
	bool in_bearer = false;
	const char *at = header;
	for (;;) {
		at += strspn(at, " \t,");
		const char *word = at;
		size_t len = token_len(at);
		if (!len)
			return 0;
		at = skip_space(at + len);
		if (*at != '=') { /* a scheme */
			bool bearer = len == 6 && !strncasecmp(word, "Bearer", len);
			/* of several the first, whole: parts of two make no challenge */
			in_bearer = bearer && !challenges->bearer;
			challenges->bearer |= bearer;
			challenges->basic |= len == 5 && !strncasecmp(word, "Basic", len);
			continue;
		}
		AUTO_FREE char *value = NULL;
		at = skip_space(at + 1);
		int err = read_value(&at, &value);
		if (err)
			return err == -ENOMEM ? err : 0;
		if (in_bearer)
			keep_param(challenges, word, len, &value);
		at += strspn(at, "="); /* the padding of a token68 */
	}
}

char *auth_basic_header(const struct auth_credential *credential)
{
	char *pair = format("%s:%s", credential->user, credential->password);
	char *encoded = pair ? base64_encode(pair, strlen(pair)) : NULL;
	char *header = encoded ? format("Authorization: Basic %s", encoded) : NULL;
	secret_free(&pair);
	secret_free(&encoded);
	return header;
}
