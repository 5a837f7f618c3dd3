/* SPDX-License-Identifier: Apache-2.0 */
/*
 * buf: growing bytes with a cap from birth.
 * Knows memory. Must not know what the bytes mean.
 */
#include <errno.h>
#include <stdarg.h>

#include "regfs/buf.h"

#define BUF_FIRST 64 /* bytes of the first allocation */

void buf_release(struct buf *buf)
{
	free(buf->data);
	buf->data = NULL;
	buf->len = 0;
	buf->cap = 0;
}

void buf_clear(struct buf *buf)
{
	buf->len = 0;
	if (buf->data)
		buf->data[0] = '\0';
}

int buf_reserve(struct buf *buf, size_t extra)
{
	if (extra > buf->max - buf->len)
		return -EFBIG;
	if (buf->data && buf->len + extra <= buf->cap)
		return 0;

	/* Twice the old size, so that many small additions stay cheap. */
	size_t doubled = buf->cap > buf->max / 2 ? buf->max : buf->cap * 2;
	size_t cap = MAX(MAX(doubled, buf->len + extra), MIN((size_t)BUF_FIRST, buf->max));
	if (cap == SIZE_MAX)
		return -ENOMEM;
	char *data = realloc(buf->data, cap + 1);
	if (!data)
		return -ENOMEM;
	data[buf->len] = '\0';
	buf->data = data;
	buf->cap = cap;
	return 0;
}

int buf_add(struct buf *buf, const void *data, size_t len)
{
	int err = buf_reserve(buf, len);

	if (err)
		return err;
	if (len)
		memcpy(buf->data + buf->len, data, len);
	buf->len += len;
	buf->data[buf->len] = '\0';
	return 0;
}

int buf_puts(struct buf *buf, const char *str)
{
	return buf_add(buf, str, strlen(str));
}

int buf_printf(struct buf *buf, const char *fmt, ...)
{
	va_list args;
	int len, err;

	va_start(args, fmt);
	len = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	if (len < 0)
		return -EINVAL;
	err = buf_reserve(buf, (size_t)len);
	if (err)
		return err;
	va_start(args, fmt);
	vsnprintf(buf->data + buf->len, (size_t)len + 1, fmt, args);
	va_end(args);
	buf->len += (size_t)len;
	return 0;
}

/* Bytes of the well-formed UTF-8 sequence that AT begins with (Unicode, table 3-7); 0 if it is
 * none. */
static size_t utf8_len(const uint8_t *at)
{
	uint8_t low = 0x80, high = 0xbf; /* of the second byte */
	size_t len;

	if (at[0] < 0x80)
		return 1;
	if (at[0] >= 0xc2 && at[0] <= 0xdf)
		len = 2;
	else if (at[0] >= 0xe0 && at[0] <= 0xef)
		len = 3;
	else if (at[0] >= 0xf0 && at[0] <= 0xf4)
		len = 4;
	else
		return 0;
	if (at[0] == 0xe0)
		low = 0xa0; /* else overlong */
	else if (at[0] == 0xed)
		high = 0x9f; /* else a surrogate */
	else if (at[0] == 0xf0)
		low = 0x90; /* else overlong */
	else if (at[0] == 0xf4)
		high = 0x8f; /* else above U+10FFFF */
	if (at[1] < low || at[1] > high)
		return 0;
	for (size_t i = 2; i < len; i++) {
		if (at[i] < 0x80 || at[i] > 0xbf)
			return 0;
	}
	return len;
}

static int json_escape(struct buf *buf, uint8_t c)
{
	static const char letters[][2] = {"\bb", "\ff", "\nn", "\rr", "\tt", "\"\"", "\\\\"};

	for (size_t i = 0; i < ARRAY_SIZE(letters); i++) {
		if (c == (uint8_t)letters[i][0])
			return buf_printf(buf, "\\%c", letters[i][1]);
	}
	return buf_printf(buf, "\\u%04x", c);
}

static int json_body(struct buf *buf, const char *str)
{
	const uint8_t *at = (const uint8_t *)str;
	int err = buf_puts(buf, "\"");

	while (!err && *at) {
		size_t len = utf8_len(at);
		if (len == 0)
			err = buf_puts(buf, "\xef\xbf\xbd");
		else if (*at < 0x20 || *at == '"' || *at == '\\')
			err = json_escape(buf, *at);
		else
			err = buf_add(buf, at, len);
		at += MAX(len, (size_t)1);
	}
	return err ? err : buf_puts(buf, "\"");
}

int buf_json_string(struct buf *buf, const char *str)
{
	size_t old = buf->len;
	int err = json_body(buf, str);

	if (err) {
		buf->len = old;
		if (buf->data)
			buf->data[old] = '\0';
	}
	return err;
}

char *buf_steal(struct buf *buf, size_t *ret_len)
{
	char *data = NULL;

	if (ret_len)
		*ret_len = buf->len;
	if (buf->len)
		data = STEAL(buf->data);
	buf_release(buf);
	return data;
}
