// SPDX-License-Identifier: Apache-2.0
/*
 * toc_json: a table's JSON to entries, one at a time: the tree of a whole one would take a hundred
 * bytes for each of some ten million values.
 * Knows the fields. Must not know what entries make together (toc_index.c).
 *
 * The outermost object and its list are split here, by brackets and strings; each entry is then a
 * document of its own, read as strictly as any.
 */
#include <errno.h>

#include "regfs/json.h"
#include "toc_priv.h"

#define ENTRY_MAX   (1 * MIB)
#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD: what writers put for bytes that are not UTF-8 */

/* --- splitting --- */

struct splitter {
	const char *at, *end;
};

struct slice {
	const char *at;
	size_t len;
};

static bool slice_is(const struct slice *slice, const char *text)
{
	return slice->len == strlen(text) && memcmp(slice->at, text, slice->len) == 0;
}

static void skip_space(struct splitter *in)
{
	while (in->at < in->end && memchr(" \t\r\n", *in->at, 4))
		in->at++;
}

/* The next byte that is not space must be C. */
static bool take(struct splitter *in, char c)
{
	skip_space(in);
	if (in->at == in->end || *in->at != c)
		return false;
	in->at++;
	return true;
}

/* Behind the opening quote, to behind the closing one. */
static bool skip_string(struct splitter *in)
{
	while (in->at < in->end) {
		char c = *in->at++;

		if (c == '"')
			return true;
		if (c == '\\' && in->at < in->end)
			in->at++;
	}
	return false;
}

/* From an opening bracket to behind the closing one. Whether they are of one kind is seen later. */
static bool skip_brackets(struct splitter *in)
{
	size_t depth = 0;

	while (in->at < in->end) {
		char c = *in->at++;

		if (c == '"' && !skip_string(in))
			return false;
		if (c == '{' || c == '[')
			depth++;
		if ((c == '}' || c == ']') && --depth == 0)
			return true;
	}
	return false;
}

static bool take_value(struct splitter *in, struct slice *ret)
{
	skip_space(in);
	const char *start = in->at;

	if (in->at == in->end)
		return false;
	if (*in->at == '{' || *in->at == '[') {
		if (!skip_brackets(in))
			return false;
	} else if (*in->at == '"') {
		in->at++;
		if (!skip_string(in))
			return false;
	} else {
		while (in->at < in->end && !memchr(",]} \t\r\n", *in->at, 7))
			in->at++;
	}
	*ret = (struct slice){start, (size_t)(in->at - start)};
	return ret->len > 0;
}

/* --- one entry --- */

enum field_kind {
	FIELD_TEXT,
	FIELD_NUMBER,	/* uint64_t */
	FIELD_NUMBER32, /* uint32_t */
	FIELD_DIGEST,
	FIELD_TYPE,
	FIELD_TIME,
	FIELD_CHUNK_TYPE,
	FIELD_XATTRS,
};

struct field {
	const char *name;
	enum field_kind kind;
	size_t at;
};

/* In the order in which writers have them, so that the search is short. */
static const struct field fields[] = {
	{"name", FIELD_TEXT, offsetof(struct toc_entry, name)},
	{"type", FIELD_TYPE, 0},
	{"size", FIELD_NUMBER, offsetof(struct toc_entry, size)},
	{"modtime", FIELD_TIME, 0},
	{"linkName", FIELD_TEXT, offsetof(struct toc_entry, link)},
	{"mode", FIELD_NUMBER32, offsetof(struct toc_entry, mode)},
	{"uid", FIELD_NUMBER32, offsetof(struct toc_entry, uid)},
	{"gid", FIELD_NUMBER32, offsetof(struct toc_entry, gid)},
	{"offset", FIELD_NUMBER, offsetof(struct toc_entry, off)},
	{"innerOffset", FIELD_NUMBER, offsetof(struct toc_entry, inner_off)},
	{"endOffset", FIELD_NUMBER, offsetof(struct toc_entry, end_off)},
	{"devMajor", FIELD_NUMBER32, offsetof(struct toc_entry, major)},
	{"devMinor", FIELD_NUMBER32, offsetof(struct toc_entry, minor)},
	{"xattrs", FIELD_XATTRS, 0},
	{"digest", FIELD_DIGEST, offsetof(struct toc_entry, digest)},
	{"chunkOffset", FIELD_NUMBER, offsetof(struct toc_entry, chunk_off)},
	{"chunkSize", FIELD_NUMBER, offsetof(struct toc_entry, chunk_size)},
	{"chunkDigest", FIELD_DIGEST, offsetof(struct toc_entry, chunk_digest)},
	{"chunkType", FIELD_CHUNK_TYPE, 0},
};
_Static_assert(ARRAY_SIZE(fields) <= 32, "a bit each");

static const char *const type_names[] = {
	[TOC_REG] = "reg",	     [TOC_DIR] = "dir",	    [TOC_SYMLINK] = "symlink",
	[TOC_HARDLINK] = "hardlink", [TOC_CHAR] = "char",   [TOC_BLOCK] = "block",
	[TOC_FIFO] = "fifo",	     [TOC_CHUNK] = "chunk",
};

struct entry_reader {
	struct json_reader json;
	struct toc_entry entry;
	uint32_t seen; /* fields, a bit each */
	struct tar_xattr *xattrs;
	char **values; /* of these, owned */
	size_t n;
};

static void entry_release(struct entry_reader *reader)
{
	json_strings_free(reader->values, reader->n);
	free(reader->xattrs);
}

static int wrong(struct entry_reader *reader, const char *why)
{
	return json_fail(&reader->json, -EINVAL, why);
}

/* NULL: not a string, or one that stands for bytes JSON could not hold. */
static const char *text_of(struct entry_reader *reader, const cJSON *json)
{
	if (!cJSON_IsString(json)) {
		wrong(reader, "a field of an entry has the wrong type");
		return NULL;
	}
	if (strstr(json->valuestring, REPLACEMENT)) {
		wrong(reader, "a name in it is not UTF-8");
		return NULL;
	}
	return json->valuestring;
}

static uint64_t number_of(struct entry_reader *reader, const cJSON *json, uint64_t max)
{
	double value = cJSON_IsNumber(json) ? json->valuedouble : -1;

	if (!(value >= 0 && value <= (double)max) || value != (double)(uint64_t)value) {
		wrong(reader, "a number in it is out of bounds");
		return 0;
	}
	return (uint64_t)value;
}

static void read_type(struct entry_reader *reader, const char *text)
{
	for (size_t i = 0; i < ARRAY_SIZE(type_names); i++) {
		if (strcmp(text, type_names[i]) == 0) {
			reader->entry.type = (enum toc_type)i;
			return;
		}
	}
	wrong(reader, "an entry is of an unknown type");
}

static void read_chunk_type(struct entry_reader *reader, const char *text)
{
	if (strcmp(text, "zeros") == 0)
		reader->entry.zeros = true;
	else if (*text && strcmp(text, "data") != 0)
		wrong(reader, "a chunk is of an unknown type");
}

/* An empty one is 1970: eStargz's way to say so. */
static void read_time(struct entry_reader *reader, const char *text)
{
	if (*text && oci_time_parse(text, &reader->entry.mtime_sec, &reader->entry.mtime_nsec) < 0)
		wrong(reader, "a time in it makes no sense");
}

static int read_xattr(struct entry_reader *reader, const cJSON *json)
{
	struct tar_xattr *xattr = &reader->xattrs[reader->n];
	char **value = &reader->values[reader->n];

	if (strstr(json->string, REPLACEMENT))
		return wrong(reader, "a name in it is not UTF-8");
	if (!cJSON_IsString(json) && !cJSON_IsNull(json))
		return wrong(reader, "a field of an entry has the wrong type");
	int r = base64_decode(cJSON_IsNull(json) ? "" : json->valuestring, value, &xattr->len);
	if (r < 0)
		return json_fail(&reader->json, r, "an extended attribute is not base64");
	xattr->name = json->string;
	xattr->value = *value;
	reader->n++;
	return 0;
}

static void read_xattrs(struct entry_reader *reader, const cJSON *json)
{
	const cJSON *child;
	size_t n;

	if (!cJSON_IsObject(json)) {
		wrong(reader, "a field of an entry has the wrong type");
		return;
	}
	reader->xattrs = json_elements(&reader->json, json, sizeof(*reader->xattrs), TOC_XATTRS_MAX,
				       &n);
	reader->values = json_elements(&reader->json, json, sizeof(*reader->values), TOC_XATTRS_MAX,
				       &n);
	if (!reader->xattrs || !reader->values)
		return;
	cJSON_ArrayForEach(child, json)
	{
		if (read_xattr(reader, child) < 0)
			return;
	}
	reader->entry.xattrs = reader->xattrs;
	reader->entry.nxattrs = reader->n;
}

static void read_digest(struct entry_reader *reader, const char *text, struct digest *ret)
{
	if (*text && digest_parse(text, ret) < 0)
		wrong(reader, "a digest in it is not valid");
}

static void read_text(struct entry_reader *reader, const struct field *field, const char *text)
{
	void *at = (char *)&reader->entry + field->at;

	if (!text)
		return;
	switch (field->kind) {
	case FIELD_DIGEST:
		read_digest(reader, text, at);
		break;
	case FIELD_TYPE:
		read_type(reader, text);
		break;
	case FIELD_TIME:
		read_time(reader, text);
		break;
	case FIELD_CHUNK_TYPE:
		read_chunk_type(reader, text);
		break;
	default:
		*(const char **)at = text;
	}
}

static void read_field(struct entry_reader *reader, const struct field *field, const cJSON *json)
{
	void *at = (char *)&reader->entry + field->at;

	if (field->kind == FIELD_XATTRS)
		read_xattrs(reader, json);
	else if (field->kind == FIELD_NUMBER)
		*(uint64_t *)at = number_of(reader, json, JSON_INTEGER_MAX);
	else if (field->kind == FIELD_NUMBER32)
		*(uint32_t *)at = (uint32_t)number_of(reader, json, UINT32_MAX);
	else
		read_text(reader, field, text_of(reader, json));
}

static const struct field *find_field(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		if (strcmp(fields[i].name, name) == 0)
			return &fields[i];
	return NULL;
}

static void read_entry(struct entry_reader *reader, const cJSON *json)
{
	const cJSON *child;

	reader->entry.name = reader->entry.link = "";
	reader->entry.type = TOC_CHUNK;
	cJSON_ArrayForEach(child, json)
	{
		const struct field *field = find_field(child->string ? child->string : "");
		if (!field)
			continue;
		uint32_t bit = UINT32_C(1) << (field - fields);
		if (reader->seen & bit)
			wrong(reader, "an entry has a field twice");
		if (reader->json.err)
			return;
		reader->seen |= bit;
		if (!cJSON_IsNull(child))
			read_field(reader, field, child);
	}
	if (!*reader->entry.name || !(reader->seen & 1u << (find_field("type") - fields)))
		wrong(reader, "an entry has no name or type");
}

static int give_entry(const struct slice *slice, toc_entry_fn *fn, void *arg, const char **ret_why)
{
	CLEANUP(entry_release) struct entry_reader reader = {0};
	AUTO_JSON cJSON *json = NULL;

	int r = json_parse(slice->at, slice->len, ENTRY_MAX, &json, ret_why);
	if (r < 0)
		return r;
	if (!cJSON_IsObject(json))
		wrong(&reader, "an entry is not an object");
	else
		read_entry(&reader, json);
	if (reader.json.err) {
		*ret_why = reader.json.why;
		return reader.json.err;
	}
	return fn(arg, &reader.entry);
}

/* --- the whole --- */

static int not_json(const char **ret_why)
{
	*ret_why = "it is not JSON";
	return -EINVAL;
}

/* A list of entries, as LIST has it. */
static int each_of(const struct slice *list, toc_entry_fn *fn, void *arg, const char **ret_why)
{
	struct splitter in = {list->at, list->at + list->len};
	struct slice slice;
	size_t n = 0;
	int r = 0;

	if (!take(&in, '['))
		return not_json(ret_why);
	if (take(&in, ']'))
		return 0;
	do {
		if (++n > TOC_ENTRIES_MAX) {
			*ret_why = "it has too many entries";
			return -EINVAL;
		}
		if (!take_value(&in, &slice))
			return not_json(ret_why);
		r = give_entry(&slice, fn, arg, ret_why);
		if (r)
			return r;
	} while (take(&in, ','));
	return take(&in, ']') && in.at == in.end ? 0 : not_json(ret_why);
}

/* The outermost object's fields that count; both must be there, once. */
struct top {
	struct slice version, entries;
};

static bool take_top_field(struct splitter *in, struct top *top)
{
	struct slice key, value, *at = NULL;

	if (!take_value(in, &key) || !take(in, ':') || !take_value(in, &value))
		return false;
	if (slice_is(&key, "\"version\""))
		at = &top->version;
	else if (slice_is(&key, "\"entries\""))
		at = &top->entries;
	if (!at)
		return *key.at == '"';
	if (at->at)
		return false;
	*at = value;
	return true;
}

static bool take_top(struct splitter *in, struct top *top)
{
	if (!take(in, '{'))
		return false;
	do {
		if (!take_top_field(in, top))
			return false;
	} while (take(in, ','));
	if (!take(in, '}'))
		return false;
	skip_space(in);
	return in->at == in->end;
}

int toc_each(const struct buf *json, toc_entry_fn *fn, void *arg, const char **ret_why)
{
	struct splitter in = {json->data, json->data + json->len};
	struct top top = {0};

	if (!json->len || !take_top(&in, &top))
		return not_json(ret_why);
	if (!top.version.at || !slice_is(&top.version, "1") || !top.entries.at) {
		*ret_why = "it is not of version 1";
		return -EINVAL;
	}
	return each_of(&top.entries, fn, arg, ret_why);
}
