/* SPDX-License-Identifier: Apache-2.0 */
/* util_base64: RFC 4648, section 4. */
#include <errno.h>

#include "regfs/util.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *base64_encode(const void *data, size_t len)
{
	const uint8_t *from = data;
	char *out = malloc((len + 2) / 3 * 4 + 1);
	char *to = out;

	if (!out)
		return NULL;
	for (size_t i = 0; i < len; i += 3) {
		size_t n = MIN(len - i, (size_t)3);
		uint32_t bits = 0;

		for (size_t k = 0; k < 3; k++)
			bits = bits << 8 | (k < n ? from[i + k] : 0);
		for (size_t k = 0; k < 4; k++)
			*to++ = k <= n ? digits[bits >> (18 - 6 * k) & 63] : '=';
	}
	*to = '\0';
	return out;
}

static int base64_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int base64_decode(const char *text, char **ret, size_t *ret_len)
{
	size_t len = strlen(text), n = 0;
	uint32_t bits = 0;
	char *out;

	/* the padding may be missing, but not wrong */
	if (len % 4 == 0)
		for (size_t pad = 0; pad < 2 && len > 0 && text[len - 1] == '='; pad++)
			len--;
	if (len % 4 == 1)
		return -EINVAL;
	out = malloc(len / 4 * 3 + 3);
	if (!out)
		return -ENOMEM;
	for (size_t i = 0; i < len; i++) {
		int value = base64_value(text[i]);

		if (value < 0) {
			free(out);
			return -EINVAL;
		}
		bits = bits << 6 | (uint32_t)value;
		if (i % 4 != 0)
			out[n++] = (char)(bits >> (6 - 2 * (i % 4)));
	}
	out[n] = '\0';
	*ret = out;
	*ret_len = n;
	return 0;
}
