/* SPDX-License-Identifier: Apache-2.0 */
/*
 * toml: the tree, and documents: headers, members, and which tables may still grow (TOML v1.0.0,
 * "Table", "Array of Tables", "Keys").
 * Pure. Must not know what a value looks like (toml_value.c).
 */
#include <errno.h>

#include "toml_priv.h"

/* ---- the tree ---- */

void toml_free(struct toml *root)
{
	if (!root)
		return;
	while (root->first) {
		struct toml *child = root->first;
		root->first = child->next;
		toml_free(child);
	}
	free(root->key);
	free(root->string);
	free(root);
}

void toml_cleanup(struct toml **value)
{
	toml_free(*value);
}

struct toml *toml_new(struct toml_parser *parser, enum toml_kind kind)
{
	if (parser->nvalues == TOML_VALUES_MAX) {
		parser->why = "there are too many values";
		return NULL;
	}
	struct toml *value = calloc(1, sizeof(*value));
	if (!value)
		return NULL;
	parser->nvalues++;
	value->kind = kind;
	value->line = parser->line;
	return value;
}

void toml_append(struct toml *parent, struct toml *child)
{
	if (parent->last)
		parent->last->next = child;
	else
		parent->first = child;
	parent->last = child;
}

enum toml_kind toml_kind(const struct toml *value)
{
	return value->kind;
}

unsigned toml_line(const struct toml *value)
{
	return value->line;
}

const char *toml_key(const struct toml *value)
{
	return value->key;
}

static struct toml *find(const struct toml *table, const char *key)
{
	for (struct toml *child = table->first; child; child = child->next) {
		if (!strcmp(child->key, key))
			return child;
	}
	return NULL;
}

const struct toml *toml_get(const struct toml *table, const char *key)
{
	return table && table->kind == TOML_TABLE ? find(table, key) : NULL;
}

const struct toml *toml_first(const struct toml *value)
{
	return value ? value->first : NULL;
}

const struct toml *toml_next(const struct toml *value)
{
	return value ? value->next : NULL;
}

const char *toml_string(const struct toml *value)
{
	return value && value->kind == TOML_STRING ? value->string : NULL;
}

bool toml_boolean(const struct toml *value, bool *ret)
{
	if (!value || value->kind != TOML_BOOLEAN)
		return false;
	*ret = value->boolean;
	return true;
}

bool toml_integer(const struct toml *value, int64_t *ret)
{
	if (!value || value->kind != TOML_INTEGER)
		return false;
	*ret = value->integer;
	return true;
}

/* ---- tables ---- */

static int no_room(const struct toml_parser *parser)
{
	return parser->why ? -EINVAL : -ENOMEM;
}

/* A new member of TABLE, which takes over *KEY. */
static int add_member(struct toml_parser *parser, struct toml *table, char **key,
		      enum toml_kind kind, struct toml **ret)
{
	struct toml *member = toml_new(parser, kind);
	if (!member)
		return no_room(parser);
	member->key = STEAL(*key);
	toml_append(table, member);
	*ret = member;
	return 0;
}

/* The table that the last but one part of a header's path leads to. */
static int descend(struct toml_parser *parser, struct toml *root, struct toml_path *path,
		   struct toml **ret)
{
	struct toml *table = root;
	for (size_t i = 0; i + 1 < path->n; i++) {
		struct toml *child = find(table, path->parts[i]);
		if (!child) {
			int err = add_member(parser, table, &path->parts[i], TOML_TABLE, &child);
			if (err)
				return err;
		}
		if (child->of_tables)
			child = child->last;
		if (child->kind != TOML_TABLE || child->closed)
			return toml_refuse(parser, "a part of this table's name is no table that "
						   "could grow");
		table = child;
	}
	*ret = table;
	return 0;
}

/* [path] */
static int open_table(struct toml_parser *parser, struct toml *parent, char **name,
		      struct toml **ret)
{
	struct toml *table = find(parent, *name);
	if (!table) {
		int err = add_member(parser, parent, name, TOML_TABLE, &table);
		if (err)
			return err;
	} else if (table->kind != TOML_TABLE || table->headed || table->dotted || table->closed) {
		return toml_refuse(parser, "this table is defined already");
	}
	table->headed = true;
	*ret = table;
	return 0;
}

/* [[path]] */
static int open_element(struct toml_parser *parser, struct toml *parent, char **name,
			struct toml **ret)
{
	struct toml *array = find(parent, *name);
	if (!array) {
		int err = add_member(parser, parent, name, TOML_ARRAY, &array);
		if (err)
			return err;
		array->of_tables = true;
	} else if (!array->of_tables) {
		return toml_refuse(parser, "this name is taken by something that is no array of "
					   "tables");
	}
	struct toml *table = toml_new(parser, TOML_TABLE);
	if (!table)
		return no_room(parser);
	table->headed = true;
	toml_append(array, table);
	*ret = table;
	return 0;
}

static int read_header(struct toml_parser *parser, struct toml *root, struct toml **ret)
{
	CLEANUP(toml_path_release) struct toml_path path = {0};
	bool element = toml_peek(parser, 1) == '[';
	parser->at += element ? 2 : 1;
	int err = toml_read_path(parser, &path);
	if (err)
		return err;
	if (toml_peek(parser, 0) != ']' || (element && toml_peek(parser, 1) != ']'))
		return toml_refuse(parser, "a table's name does not end with ]");
	parser->at += element ? 2 : 1;
	struct toml *parent = NULL;
	err = descend(parser, root, &path, &parent);
	if (err)
		return err;
	char **name = &path.parts[path.n - 1];
	return element ? open_element(parser, parent, name, ret)
		       : open_table(parser, parent, name, ret);
}

/* The table for the last part of a member's path; those before it come into being here. */
static int descend_dotted(struct toml_parser *parser, struct toml *table, struct toml_path *path,
			  struct toml **ret)
{
	for (size_t i = 0; i + 1 < path->n; i++) {
		struct toml *child = find(table, path->parts[i]);
		if (!child) {
			int err = add_member(parser, table, &path->parts[i], TOML_TABLE, &child);
			if (err)
				return err;
			child->dotted = true;
		}
		if (!child->dotted)
			return toml_refuse(parser, "a dotted key leads into something that is "
						   "defined already");
		table = child;
	}
	*ret = table;
	return 0;
}

int toml_read_member(struct toml_parser *parser, struct toml *table)
{
	CLEANUP(toml_path_release) struct toml_path path = {0};
	AUTO_TOML struct toml *value = NULL;
	int err = toml_read_path(parser, &path);
	err = err ? err : descend_dotted(parser, table, &path, &table);
	if (err)
		return err;
	if (find(table, path.parts[path.n - 1]))
		return toml_refuse(parser, "this key is defined already");
	if (toml_peek(parser, 0) != '=')
		return toml_refuse(parser, "a key without =");
	parser->at++;
	toml_skip_blank(parser);
	err = toml_read_value(parser, &value);
	if (err)
		return err;
	value->key = STEAL(path.parts[path.n - 1]);
	toml_append(table, STEAL(value));
	return 0;
}

/* ---- the document ---- */

static int read_line_end(struct toml_parser *parser)
{
	toml_skip_blank(parser);
	char next = toml_peek(parser, 0);
	if (next && next != '\n' && next != '\r' && next != '#')
		return toml_refuse(parser, "something follows that should have a line of its own");
	return 0;
}

static int read_document(struct toml_parser *parser, struct toml *root)
{
	struct toml *table = root;
	for (;;) {
		int err = toml_skip_lines(parser);
		if (err)
			return err;
		if (parser->at == parser->end)
			return 0;
		if (*parser->at == '[')
			err = read_header(parser, root, &table);
		else
			err = toml_read_member(parser, table);
		err = err ? err : read_line_end(parser);
		if (err)
			return err;
	}
}

int toml_parse(const char *text, size_t len, struct toml **ret, struct toml_error *ret_error)
{
	struct toml_parser parser = {.at = text, .end = text + len, .line = 1};
	AUTO_TOML struct toml *root = toml_new(&parser, TOML_TABLE);
	if (!root)
		return -ENOMEM;
	int err;
	if (len > TOML_TEXT_MAX)
		err = toml_refuse(&parser, "the file is larger than 1 MiB");
	else if (memchr(text, '\0', len))
		err = toml_refuse(&parser, "the file has NUL bytes: it is no text");
	else
		err = read_document(&parser, root);
	if (err == -EINVAL)
		*ret_error = (struct toml_error){.line = parser.line, .why = parser.why};
	if (!err)
		*ret = STEAL(root);
	return err;
}
