/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the toml room share; nobody else includes it.
 *
 * toml.c        the tree; documents: tables and which of them may still grow
 * toml_value.c  keys and values: strings, numbers, arrays
 */
#ifndef REGFS_TOML_PRIV_H
#define REGFS_TOML_PRIV_H

#include "regfs/toml.h"

struct toml {
	enum toml_kind kind;
	unsigned line;
	char *key;
	char *string;
	int64_t integer;
	bool boolean;
	struct toml *first, *last, *next; /* members, elements; the next of its parent */
	/* How it came to be says what may be added to it. */
	bool headed;	/* by a header of its own: not twice */
	bool dotted;	/* by a dotted key: only by more of them, or tables below it */
	bool closed;	/* written inline: complete */
	bool of_tables; /* an array that grows by [[headers]] */
};

struct toml_parser {
	const char *at, *end;
	unsigned line;
	unsigned depth;
	size_t nvalues;
	const char *why;
};

/* -EINVAL, WHY being the reason. */
int toml_refuse(struct toml_parser *parser, const char *why);
/* The byte OFF after the present one; '\0' past the end (NUL does not occur in a document). */
char toml_peek(const struct toml_parser *parser, size_t off);
void toml_skip_blank(struct toml_parser *parser);
/* Blanks, comments and line ends. */
int toml_skip_lines(struct toml_parser *parser);

/* A new value at the parser's line; NULL when memory is short or there are too many (.why). */
struct toml *toml_new(struct toml_parser *parser, enum toml_kind kind);
void toml_append(struct toml *parent, struct toml *child);
void toml_cleanup(struct toml **value);
#define AUTO_TOML CLEANUP(toml_cleanup)

/* A key of one part or several. */
struct toml_path {
	char *parts[TOML_DEPTH_MAX];
	size_t n;
};
void toml_path_release(struct toml_path *path);
int toml_read_path(struct toml_parser *parser, struct toml_path *ret);
int toml_read_value(struct toml_parser *parser, struct toml **ret);
/* "key = value" into TABLE. */
int toml_read_member(struct toml_parser *parser, struct toml *table);

#endif
