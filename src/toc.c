// SPDX-License-Identifier: Apache-2.0
/*
 * toc: what annotations and footers say of a table, and its bytes to JSON.
 * Knows where the formats keep it. Must not know what it says (toc_json.c, toc_index.c).
 */
#include <endian.h>
#include <errno.h>
#include <sys/stat.h>

#include "toc_priv.h"

#define ESTARGZ_DIGEST "containerd.io/snapshot/stargz/toc.digest"
#define ESTARGZ_TABLE  "stargz.index.json"
#define ESTARGZ_LAYER  "containerd.io/snapshot/stargz/layer.digest"

static int fail(const char **ret_why, const char *why)
{
	*ret_why = why;
	return -EINVAL;
}

/* --- annotations --- */

/* "offset:compressed:uncompressed:type", where type 1 is this kind of table. */
static int parse_position(const char *text, struct toc_ref *ret)
{
	AUTO_FREE char *copy = strdup(text);
	uint64_t numbers[4];
	char *rest = copy;

	if (!copy)
		return -ENOMEM;
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		const char *part = strsep(&rest, ":");
		if (!part || !parse_u64(part, &numbers[i]))
			return -EINVAL;
	}
	if (rest || numbers[1] == 0 || numbers[1] > TOC_PACKED_MAX || numbers[2] == 0 ||
	    numbers[2] > TOC_JSON_MAX || numbers[3] != 1)
		return -EINVAL;
	ret->off = numbers[0];
	ret->len = numbers[1];
	ret->json_len = numbers[2];
	return 0;
}

/* zstd:chunked as the dialect whose annotations begin with PREFIX has it. */
static int find_dialect(const struct oci_annotation *annotations, size_t n, const char *prefix,
			struct toc_ref *ret)
{
	char key[128];

	snprintf(key, sizeof(key), "%s.manifest-checksum", prefix);
	const char *checksum = oci_annotation(annotations, n, key);
	snprintf(key, sizeof(key), "%s.manifest-position", prefix);
	const char *position = oci_annotation(annotations, n, key);
	if (!checksum || !position)
		return -ENOENT;
	if (digest_parse(checksum, &ret->packed) < 0)
		return -EINVAL;
	return parse_position(position, ret);
}

int toc_ref_find(const struct oci_annotation *annotations, size_t n, struct toc_ref *ret)
{
	const char *digest = oci_annotation(annotations, n, ESTARGZ_DIGEST);
	struct toc_ref ref = {0};

	int r = find_dialect(annotations, n, "io.github.containers.zstd-chunked", &ref);
	if (r == -ENOENT)
		r = find_dialect(annotations, n, "io.containers.zstd-chunked", &ref);
	if (r < 0 && r != -ENOENT)
		return r;
	if (digest && digest_parse(digest, &ref.json) < 0)
		return -EINVAL;
	if (r == -ENOENT && !digest)
		return -ENOENT;
	*ret = ref;
	return 0;
}

bool toc_ref_equal(const struct toc_ref *a, const struct toc_ref *b)
{
	return a->kind == b->kind && digest_equal(&a->json, &b->json) &&
	       digest_equal(&a->packed, &b->packed) && a->off == b->off && a->len == b->len &&
	       a->json_len == b->json_len;
}

int toc_apart_find(const struct oci_manifest *tables, const struct digest *layer,
		   struct toc_apart *ret)
{
	for (size_t i = 0; i < tables->nlayers; i++) {
		const struct oci_descriptor *table = &tables->layers[i];
		const char *text = oci_annotation(table->annotations, table->nannotations,
						  ESTARGZ_LAYER);
		struct digest digest;

		if (text && digest_parse(text, &digest) == 0 && digest_equal(&digest, layer)) {
			*ret = (struct toc_apart){table->digest, (uint64_t)table->size};
			return 0;
		}
	}
	return -ENOENT;
}

/* --- footers --- */

/* A number of 16 hexadecimal digits. */
static bool parse_hex(const char *at, uint64_t *ret)
{
	uint64_t value = 0;

	for (int i = 0; i < 16; i++) {
		char c = at[i];
		if (c >= '0' && c <= '9')
			value = value << 4 | (uint64_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			value = value << 4 | (uint64_t)(c - 'a' + 10);
		else
			return false;
	}
	*ret = value;
	return true;
}

/* An empty gzip member whose extra field names the table's place; then bare in the older form. */
struct gzip_footer {
	size_t len;
	const char *extra;
	size_t extra_len;
};

static const struct gzip_footer gzip_footers[] = {
	{51, "\x1a\0SG\x16\0", 6},
	{47, "\x16\0", 2},
};

#define GZIP_HEAD     "\x1f\x8b\x08\x04\0\0\0\0\0\xff"
#define GZIP_HEAD_LEN 10
#define GZIP_TAIL     "STARGZ\x01\0\0\xff\xff\0\0\0\0\0\0\0\0"
#define GZIP_TAIL_LEN 19

static bool read_gzip_footer(const char *end, size_t len, const struct gzip_footer *form,
			     uint64_t *ret_off)
{
	const char *at;

	if (len < form->len)
		return false;
	at = end - form->len;
	if (memcmp(at, GZIP_HEAD, GZIP_HEAD_LEN) != 0)
		return false;
	at += GZIP_HEAD_LEN;
	if (memcmp(at, form->extra, form->extra_len) != 0)
		return false;
	at += form->extra_len;
	return memcmp(at + 16, GZIP_TAIL, GZIP_TAIL_LEN) == 0 && parse_hex(at, ret_off);
}

/* Another one without a place: the table is elsewhere. */
static bool is_apart_footer(const char *end, size_t len)
{
	static const char footer[TOC_APART_FOOTER + 1] = GZIP_HEAD
		"\x15\0SG\x11\0STARGZEXTERNALTOC\x01\0\0\xff\xff\0\0\0\0\0\0\0";

	return len >= TOC_APART_FOOTER &&
	       memcmp(end - TOC_APART_FOOTER, footer, TOC_APART_FOOTER) == 0;
}

static uint64_t le64_at(const char *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return le64toh(value);
}

/* Without the annotations of zstd:chunked its footer still serves: the JSON's digest decides. */
static bool read_zstd_footer(const char *end, size_t len, struct toc_ref *ret)
{
	static const struct {
		size_t len;
		const char *magic;
	} forms[] = {{64, "GNUlInUx"}, {40, "GnUlInUx"}};

	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		if (len < forms[i].len || memcmp(end - 8, forms[i].magic, 8) != 0)
			continue;
		const char *at = end - forms[i].len;
		ret->off = le64_at(at);
		ret->len = le64_at(at + 8);
		ret->json_len = le64_at(at + 16);
		return le64_at(at + 24) == 1;
	}
	return false;
}

int toc_locate(const void *tail, size_t len, uint64_t blob_size, struct toc_ref *ref,
	       const char **ret_why)
{
	const char *end = (const char *)tail + len;
	struct toc_ref found = *ref;
	bool has = false;

	if (is_apart_footer(end, len)) {
		*ret_why = "it is in another image";
		return -EREMOTE;
	}
	for (size_t i = 0; i < ARRAY_SIZE(gzip_footers) && !has; i++) {
		has = read_gzip_footer(end, len, &gzip_footers[i], &found.off);
		if (has && found.off < blob_size - gzip_footers[i].len)
			found.len = blob_size - gzip_footers[i].len - found.off;
	}
	if (!has)
		has = read_zstd_footer(end, len, &found);
	if (!has)
		return fail(ret_why, "there is no footer that leads to it");
	if (found.len == 0 || found.off > blob_size || found.len > blob_size - found.off)
		return fail(ret_why, "it would lie outside of the blob");
	if (found.len > TOC_PACKED_MAX || found.json_len > TOC_JSON_MAX)
		return fail(ret_why, "it is too large");
	*ref = found;
	return 0;
}

/* --- unpacking --- */

/* Decodes all of DATA into RET. */
static int decode(enum codec codec, const void *data, size_t len, struct buf *ret,
		  const char **ret_why)
{
	AUTO_DECODER struct decoder *decoder = decoder_new(codec, NULL);
	ssize_t n;
	int r;

	if (!decoder)
		return -ENOMEM;
	decoder_input(decoder, data, len, true);
	do {
		r = buf_reserve(ret, 64 * KIB);
		if (r < 0)
			return r == -EFBIG ? fail(ret_why, "it is too large") : r;
		n = decoder_read(decoder, ret->data + ret->len, 64 * KIB);
		ret->len += n > 0 ? (size_t)n : 0;
	} while (n > 0);
	return n == -EINVAL ? fail(ret_why, "it cannot be decompressed") : (int)n;
}

struct memory {
	const struct buf *bytes;
	bool read;
};

static ssize_t memory_read(void *arg, const void **ret)
{
	struct memory *memory = arg;

	if (memory->read)
		return 0;
	memory->read = true;
	*ret = memory->bytes->data;
	return (ssize_t)memory->bytes->len;
}

struct extent {
	uint64_t off, len;
};

#define FOUND 1

static int find_table(void *arg, const struct tar_member *member)
{
	struct extent *extent = arg;

	if (!S_ISREG(member->mode) || member->hard_link || member->sparse ||
	    strcmp(member->path, ESTARGZ_TABLE) != 0)
		return -EINVAL;
	*extent = (struct extent){member->data_off, member->size};
	return FOUND;
}

/* eStargz's table is the first member of a tar of its own. */
static int unpack_gzip(const struct toc_ref *ref, const void *data, struct buf *ret,
		       const char **ret_why)
{
	struct memory memory = {.bytes = ret};
	const struct tar_source source = {.read = memory_read, .arg = &memory};
	struct extent extent;
	char why[64];

	int r = decode(CODEC_GZIP, data, ref->len, ret, ret_why);
	if (r < 0)
		return r;
	r = tar_scan(&source, find_table, &extent, NULL, why, sizeof(why));
	if (r != FOUND)
		return r == -ENOMEM ? r : fail(ret_why, "its archive does not hold it");
	if (extent.off > ret->len || extent.len > ret->len - extent.off)
		return fail(ret_why, "its archive is cut off");
	/* in place: it may be large */
	memmove(ret->data, ret->data + extent.off, extent.len);
	ret->len = extent.len;
	ret->data[ret->len] = '\0';
	return 0;
}

static bool digest_is(const struct digest *want, const void *data, size_t len)
{
	struct digest got;

	if (want->algo == DIGEST_NONE)
		return true;
	digest_of(want->algo, data, len, &got);
	return digest_equal(want, &got);
}

int toc_unpack(const struct toc_ref *ref, const void *data, struct buf *ret, const char **ret_why)
{
	AUTO_BUF struct buf json = BUF_INIT(TOC_JSON_MAX);
	int r;

	if (!digest_is(&ref->packed, data, ref->len))
		return fail(ret_why, "its digest is wrong");
	switch (codec_detect(data, ref->len)) {
	case CODEC_GZIP:
		r = unpack_gzip(ref, data, &json, ret_why);
		break;
	case CODEC_ZSTD:
		r = decode(CODEC_ZSTD, data, ref->len, &json, ret_why);
		break;
	default:
		r = fail(ret_why, "it is not compressed in a way that is known");
	}
	if (r < 0)
		return r;
	if (ref->json_len && json.len != ref->json_len)
		return fail(ret_why, "it is not as long as it should be");
	if (!digest_is(&ref->json, json.data, json.len))
		return fail(ret_why, "its digest is wrong");
	json.max = ret->max;
	*ret = json;
	json = (struct buf)BUF_INIT(0);
	return 0;
}
