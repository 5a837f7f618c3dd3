/* SPDX-License-Identifier: Apache-2.0 */
/*
 * toml_value: keys and values as they are written (TOML v1.0.0, "Keys", "String", "Integer",
 * "Boolean", "Array", "Inline Table").
 * Pure. Must not know headers.
 */
#include <errno.h>

#include "regfs/buf.h"
#include "toml_priv.h"

int toml_refuse(struct toml_parser *parser, const char *why)
{
	parser->why = why;
	return -EINVAL;
}

char toml_peek(const struct toml_parser *parser, size_t off)
{
	return off < (size_t)(parser->end - parser->at) ? parser->at[off] : '\0';
}

void toml_skip_blank(struct toml_parser *parser)
{
	while (toml_peek(parser, 0) == ' ' || toml_peek(parser, 0) == '\t')
		parser->at++;
}

static bool is_control(char c)
{
	return (c >= 0 && c < ' ' && c != '\t') || c == 0x7f;
}

/* A line end at the present place: 1 or 2 bytes; 0: none. */
static size_t line_end(const struct toml_parser *parser)
{
	if (toml_peek(parser, 0) == '\n')
		return 1;
	return toml_peek(parser, 0) == '\r' && toml_peek(parser, 1) == '\n' ? 2 : 0;
}

int toml_skip_lines(struct toml_parser *parser)
{
	for (;;) {
		toml_skip_blank(parser);
		if (toml_peek(parser, 0) == '#') {
			while (toml_peek(parser, 0) && !line_end(parser)) {
				if (is_control(*parser->at))
					return toml_refuse(parser, "a control character");
				parser->at++;
			}
		}
		size_t end = line_end(parser);
		if (!end)
			return 0;
		parser->at += end;
		parser->line++;
	}
}

/* ---- strings ---- */

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static int add_utf8(struct buf *to, uint32_t c)
{
	char out[4];
	size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
	static const uint8_t marks[] = {0, 0, 0xc0, 0xe0, 0xf0};
	for (size_t i = n - 1; i > 0; i--, c >>= 6)
		out[i] = (char)(0x80 | (c & 0x3f));
	out[0] = (char)(marks[n] | c);
	return buf_add(to, out, n);
}

/* The DIGITS of \u or \U. */
static int read_code_point(struct toml_parser *parser, unsigned digits, struct buf *to)
{
	uint32_t c = 0;
	for (unsigned i = 0; i < digits; i++, parser->at++) {
		int value = hex_value(toml_peek(parser, 0));
		if (value < 0)
			return toml_refuse(parser, "\\u or \\U without its hexadecimal digits");
		c = c << 4 | (uint32_t)value;
	}
	if (!c)
		return toml_refuse(parser, "a NUL in a string is not supported");
	if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return toml_refuse(parser, "\\u or \\U is no character");
	return add_utf8(to, c);
}

/* What follows a backslash. */
static int read_escape(struct toml_parser *parser, struct buf *to)
{
	static const char names[] = "btnfr\"\\", values[] = "\b\t\n\f\r\"\\";
	char c = toml_peek(parser, 0);
	const char *name = c ? strchr(names, c) : NULL;
	if (name) {
		parser->at++;
		return buf_add(to, &values[name - names], 1);
	}
	if (c != 'u' && c != 'U')
		return toml_refuse(parser, "an unknown escape in a string");
	parser->at++;
	return read_code_point(parser, c == 'u' ? 4 : 8, to);
}

/* A backslash that ends a line of a multi-line string: the blanks and lines that follow vanish.
 * False if it is another one. */
static bool skip_folded(struct toml_parser *parser)
{
	struct toml_parser ahead = *parser;
	toml_skip_blank(&ahead);
	if (!line_end(&ahead))
		return false;
	for (;;) {
		toml_skip_blank(&ahead);
		size_t end = line_end(&ahead);
		if (!end)
			break;
		ahead.at += end;
		ahead.line++;
	}
	*parser = ahead;
	return true;
}

static int read_short_string(struct toml_parser *parser, char quote, struct buf *to)
{
	parser->at++;
	for (;;) {
		char c = toml_peek(parser, 0);
		if (!c || c == '\n' || c == '\r')
			return toml_refuse(parser, "a string does not end on its line");
		if (is_control(c))
			return toml_refuse(parser, "a control character in a string");
		parser->at++;
		if (c == quote)
			return 0;
		int err = c == '\\' && quote == '"' ? read_escape(parser, to) : buf_add(to, &c, 1);
		if (err)
			return err;
	}
}

/* How many quotes stand here, 5 at most: the closing three, and two before them. */
static size_t count_quotes(const struct toml_parser *parser, char quote)
{
	size_t n = 0;
	while (n < 5 && toml_peek(parser, n) == quote)
		n++;
	return n;
}

static int read_long_piece(struct toml_parser *parser, char quote, struct buf *to)
{
	char c = *parser->at;
	size_t end = line_end(parser);
	if (end) {
		parser->at += end;
		parser->line++;
		return buf_puts(to, "\n");
	}
	if (is_control(c))
		return toml_refuse(parser, "a control character in a string");
	parser->at++;
	if (c != '\\' || quote != '"')
		return buf_add(to, &c, 1);
	return skip_folded(parser) ? 0 : read_escape(parser, to);
}

static int read_long_string(struct toml_parser *parser, char quote, struct buf *to)
{
	parser->at += 3;
	size_t end = line_end(parser);
	parser->at += end;
	parser->line += end > 0;
	for (;;) {
		if (parser->at == parser->end)
			return toml_refuse(parser, "a string does not end");
		size_t quotes = count_quotes(parser, quote);
		if (quotes >= 3) {
			int err = buf_add(to, parser->at, quotes - 3);
			parser->at += quotes;
			return err;
		}
		int err = read_long_piece(parser, quote, to);
		if (err)
			return err;
	}
}

/* LONG_TOO: where strings of several lines may stand. */
static int read_string(struct toml_parser *parser, bool long_too, char **ret)
{
	AUTO_BUF struct buf text = BUF_INIT(TOML_TEXT_MAX);
	char quote = *parser->at;
	bool is_long = toml_peek(parser, 1) == quote && toml_peek(parser, 2) == quote;
	if (is_long && !long_too)
		return toml_refuse(parser, "a key cannot have several lines");
	int err = buf_puts(&text, "");
	if (!err)
		err = is_long ? read_long_string(parser, quote, &text)
			      : read_short_string(parser, quote, &text);
	if (err)
		return err;
	*ret = strdup(text.len ? text.data : "");
	return *ret ? 0 : -ENOMEM;
}

/* ---- keys ---- */

void toml_path_release(struct toml_path *path)
{
	for (size_t i = 0; i < path->n; i++)
		free(path->parts[i]);
}

static bool is_bare(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '_' || c == '-';
}

static int read_part(struct toml_parser *parser, char **ret)
{
	char c = toml_peek(parser, 0);
	if (c == '"' || c == '\'')
		return read_string(parser, false, ret);
	size_t len = 0;
	while (is_bare(toml_peek(parser, len)))
		len++;
	if (!len)
		return toml_refuse(parser, "a key is missing, or has to be quoted");
	*ret = strndup(parser->at, len);
	parser->at += len;
	return *ret ? 0 : -ENOMEM;
}

int toml_read_path(struct toml_parser *parser, struct toml_path *ret)
{
	for (;;) {
		if (ret->n == TOML_DEPTH_MAX)
			return toml_refuse(parser, "a key has too many parts");
		toml_skip_blank(parser);
		int err = read_part(parser, &ret->parts[ret->n]);
		if (err)
			return err;
		ret->n++;
		toml_skip_blank(parser);
		if (toml_peek(parser, 0) != '.')
			return 0;
		parser->at++;
	}
}

/* ---- numbers and booleans ---- */

/* The digits at WORD, with single underscores between them. */
static bool parse_digits(const char *word, unsigned base, bool negative, int64_t *ret)
{
	uint64_t value = 0, max = negative ? (uint64_t)INT64_MAX + 1 : INT64_MAX;
	bool digit_before = false;
	for (; *word; word++) {
		int digit = hex_value(*word);
		if (*word == '_' && digit_before && word[1]) {
			digit_before = false;
			continue;
		}
		if (digit < 0 || (unsigned)digit >= base || value > (max - (unsigned)digit) / base)
			return false;
		value = value * base + (unsigned)digit;
		digit_before = true;
	}
	/* Through unsigned, as the least number has no positive twin. */
	*ret = (int64_t)(negative ? 0 - value : value);
	return digit_before;
}

static bool parse_integer(const char *word, int64_t *ret)
{
	static const struct {
		const char *prefix;
		unsigned base;
	} bases[] = {{"0x", 16}, {"0o", 8}, {"0b", 2}};
	for (size_t i = 0; i < ARRAY_SIZE(bases); i++) {
		if (starts_with(word, bases[i].prefix))
			return parse_digits(word + 2, bases[i].base, false, ret);
	}
	bool negative = *word == '-';
	if (negative || *word == '+')
		word++;
	if (*word == '0' && word[1]) /* no leading zeros */
		return false;
	return parse_digits(word, 10, negative, ret);
}

/* A word without quotes. */
static int read_word(struct toml_parser *parser, struct toml **ret)
{
	char word[80];
	size_t len = 0;
	while (is_bare(toml_peek(parser, len)) || toml_peek(parser, len) == '+')
		len++;
	if (!len)
		return toml_refuse(parser, "a value is missing");
	char next = toml_peek(parser, len);
	if (len >= sizeof(word) || next == '.' || next == ':')
		return toml_refuse(parser, "this value is not understood: floats, dates and words "
					   "without quotes are not supported");
	memcpy(word, parser->at, len);
	word[len] = '\0';
	bool yes = !strcmp(word, "true");
	bool boolean = yes || !strcmp(word, "false");
	int64_t integer = 0;
	if (!boolean && !parse_integer(word, &integer))
		return toml_refuse(parser, "this value is not understood: floats, dates and words "
					   "without quotes are not supported");
	struct toml *value = toml_new(parser, boolean ? TOML_BOOLEAN : TOML_INTEGER);
	if (!value)
		return parser->why ? -EINVAL : -ENOMEM;
	value->boolean = yes;
	value->integer = integer;
	parser->at += len;
	*ret = value;
	return 0;
}

/* ---- what holds others ---- */

static int read_elements(struct toml_parser *parser, struct toml *array)
{
	for (;;) {
		int err = toml_skip_lines(parser);
		if (err)
			return err;
		if (toml_peek(parser, 0) == ']')
			break;
		struct toml *element;
		err = toml_read_value(parser, &element);
		if (err)
			return err;
		toml_append(array, element);
		err = toml_skip_lines(parser);
		if (err)
			return err;
		if (toml_peek(parser, 0) == ']')
			break;
		if (toml_peek(parser, 0) != ',')
			return toml_refuse(parser, "an array does not go on with , or end with ]");
		parser->at++;
	}
	parser->at++;
	return 0;
}

/* On one line, and without a comma at its end. */
static int read_members(struct toml_parser *parser, struct toml *table)
{
	toml_skip_blank(parser);
	if (toml_peek(parser, 0) == '}') {
		parser->at++;
		return 0;
	}
	for (;;) {
		int err = toml_read_member(parser, table);
		if (err)
			return err;
		toml_skip_blank(parser);
		char c = toml_peek(parser, 0);
		if (c != ',' && c != '}')
			return toml_refuse(parser, "an inline table does not go on with , or end "
						   "with } on its line");
		parser->at++;
		if (c == '}')
			return 0;
	}
}

static int read_holder(struct toml_parser *parser, struct toml **ret)
{
	bool table = *parser->at == '{';
	if (parser->depth == TOML_DEPTH_MAX)
		return toml_refuse(parser, "arrays or inline tables are nested too deep");
	AUTO_TOML struct toml *holder = toml_new(parser, table ? TOML_TABLE : TOML_ARRAY);
	if (!holder)
		return parser->why ? -EINVAL : -ENOMEM;
	parser->at++;
	parser->depth++;
	int err = table ? read_members(parser, holder) : read_elements(parser, holder);
	parser->depth--;
	if (err)
		return err;
	holder->closed = true;
	*ret = STEAL(holder);
	return 0;
}

int toml_read_value(struct toml_parser *parser, struct toml **ret)
{
	char c = toml_peek(parser, 0);
	if (c == '[' || c == '{')
		return read_holder(parser, ret);
	if (c != '"' && c != '\'')
		return read_word(parser, ret);
	AUTO_TOML struct toml *value = toml_new(parser, TOML_STRING);
	if (!value)
		return parser->why ? -EINVAL : -ENOMEM;
	int err = read_string(parser, true, &value->string);
	if (!err)
		*ret = STEAL(value);
	return err;
}
