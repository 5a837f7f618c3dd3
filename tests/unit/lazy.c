// SPDX-License-Identifier: Apache-2.0
/*
 * lazy: layers with a table of contents.
 * Knows the formats from their writers. Must not know the room toc.
 */
#include <assert.h>
#include <endian.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <time.h>
#include <zlib.h>
#include <zstd.h>

#include "lazy.h"
#include "regfs/digest.h"

#define LIMIT (64 * MIB)

static bool is_gzip(const struct lazy *lazy)
{
	return lazy->form == LAZY_ESTARGZ || lazy->form == LAZY_LEGACY;
}

static void add(struct buf *to, const void *data, size_t len)
{
	int r = buf_add(to, data, len);

	assert(r == 0);
}

static void put_gzip(const struct buf *in, struct buf *out)
{
	z_stream z = {.next_in = (void *)in->data, .avail_in = (unsigned)in->len};
	int r = deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);

	assert(r == Z_OK);
	size_t bound = deflateBound(&z, in->len);
	r = buf_reserve(out, bound);
	assert(r == 0);
	z.next_out = (void *)(out->data + out->len);
	z.avail_out = (unsigned)bound;
	r = deflate(&z, Z_FINISH);
	assert(r == Z_STREAM_END);
	out->len += z.total_out;
	deflateEnd(&z);
}

static void put_zstd(const struct buf *in, struct buf *out)
{
	size_t bound = ZSTD_compressBound(in->len);
	int r = buf_reserve(out, bound);

	assert(r == 0);
	size_t n = ZSTD_compress(out->data + out->len, bound, in->data, in->len, 3);
	assert(!ZSTD_isError(n));
	out->len += n;
}

/* Ends the gzip member or zstd frame. */
static void cut(struct lazy *lazy)
{
	if (lazy->piece.len == 0)
		return;
	add(&lazy->tar, lazy->piece.data, lazy->piece.len);
	if (is_gzip(lazy))
		put_gzip(&lazy->piece, &lazy->blob);
	else
		put_zstd(&lazy->piece, &lazy->blob);
	buf_clear(&lazy->piece);
}

void lazy_begin(struct lazy *lazy, enum lazy_form form, size_t chunk_size)
{
	*lazy = (struct lazy){.form = form, .chunk_size = chunk_size};
	lazy->blob.max = lazy->tar.max = lazy->json.max = lazy->piece.max = LIMIT;
}

/* --- entries --- */

static const char *type_of(const struct tar_member *member)
{
	if (member->hard_link)
		return "hardlink";
	switch (member->mode & S_IFMT) {
	case S_IFDIR:
		return "dir";
	case S_IFLNK:
		return "symlink";
	case S_IFCHR:
		return "char";
	case S_IFBLK:
		return "block";
	case S_IFIFO:
		return "fifo";
	default:
		return "reg";
	}
}

static void put_time(struct buf *json, const struct tar_member *member)
{
	char text[64];
	struct tm tm;

	gmtime_r(&(time_t){member->mtime_sec}, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	buf_printf(json, ",\"modtime\":\"%s", text);
	if (member->mtime_nsec)
		buf_printf(json, ".%09u", member->mtime_nsec);
	buf_puts(json, "Z\"");
}

static void put_xattrs(struct buf *json, const struct tar_member *member)
{
	for (size_t i = 0; i < member->nxattrs; i++) {
		AUTO_FREE char *value = base64_encode(member->xattrs[i].value,
						      member->xattrs[i].len);

		buf_puts(json, i ? "," : ",\"xattrs\":{");
		buf_json_string(json, member->xattrs[i].name);
		buf_printf(json, ":\"%s\"", value);
	}
	if (member->nxattrs)
		buf_puts(json, "}");
}

static void put_entry(struct buf *json, const struct tar_member *member, const char *type)
{
	const char *link = member->hard_link ? member->hard_link : member->symlink;

	buf_puts(json, json->len ? ",\n{\"name\":" : "{\"name\":");
	buf_json_string(json, member->path);
	buf_printf(json, ",\"type\":\"%s\"", type);
	if (strcmp(type, "chunk") == 0)
		return;
	if (link) {
		buf_puts(json, ",\"linkName\":");
		buf_json_string(json, link);
	}
	buf_printf(json, ",\"mode\":%u,\"uid\":%u,\"gid\":%u,\"devMajor\":%u,\"devMinor\":%u",
		   member->mode & 07777, member->uid, member->gid, member->rdev_major,
		   member->rdev_minor);
	if (member->size)
		buf_printf(json, ",\"size\":%" PRIu64, member->size);
	put_time(json, member);
	put_xattrs(json, member);
}

static void put_digest(struct lazy *lazy, const char *field, const void *data, size_t len)
{
	char text[DIGEST_STR_MAX];
	struct digest digest;

	if (lazy->no_digests)
		return;
	digest_of(DIGEST_SHA256, data, len, &digest);
	buf_printf(&lazy->json, ",\"%s\":\"%s\"", field, digest_format(&digest, text));
}

/* --- data --- */

static bool all_zeros(const uint8_t *data, size_t len)
{
	return len && data[0] == 0 && memcmp(data, data + 1, len - 1) == 0;
}

/* One chunk of the file, with what the writer at hand says of it. */
static void put_chunk(struct lazy *lazy, const uint8_t *data, uint64_t off, size_t len, bool more)
{
	cut(lazy);
	buf_printf(&lazy->json, ",\"offset\":%zu", lazy->blob.len);
	if (off)
		buf_printf(&lazy->json, ",\"chunkOffset\":%" PRIu64, off);
	/* stargz-snapshotter leaves it out of a file's last chunk */
	if (more || (off && lazy->form == LAZY_CONTAINERS))
		buf_printf(&lazy->json, ",\"chunkSize\":%zu", len);
	/* containers/storage leaves it out of a file in one piece, and knows holes */
	if (lazy->form != LAZY_CONTAINERS || more || off)
		put_digest(lazy, "chunkDigest", data + off, len);
	if (lazy->form == LAZY_CONTAINERS && (more || off) && all_zeros(data + off, len))
		buf_puts(&lazy->json, ",\"chunkType\":\"zeros\"");
	add(&lazy->piece, data + off, len);
}

static void put_data(struct lazy *lazy, const struct tar_member *member, const uint8_t *data)
{
	size_t size = member->size;
	/* where endOffset goes in, when it is known */
	size_t end_at = 0;

	put_digest(lazy, "digest", data, size);
	for (size_t off = 0; off < size; off += lazy->chunk_size) {
		size_t len = MIN(lazy->chunk_size, size - off);

		if (off)
			put_entry(&lazy->json, member, "chunk");
		put_chunk(lazy, data, off, len, off + len < size);
		if (!off)
			end_at = lazy->json.len;
		buf_puts(&lazy->json, "}");
	}
	if (lazy->form != LAZY_CONTAINERS)
		return;
	cut(lazy);
	AUTO_FREE char *rest = strdup(lazy->json.data + end_at);
	lazy->json.len = end_at;
	buf_printf(&lazy->json, ",\"endOffset\":%zu%s", lazy->blob.len, rest);
}

void lazy_add(struct lazy *lazy, const struct tar_member *member, const void *data)
{
	static const char zeros[512];
	int r = tar_header(member, &lazy->piece);

	assert(r == 0);
	put_entry(&lazy->json, member, type_of(member));
	if (member->size == 0) {
		buf_puts(&lazy->json, "}");
		return;
	}
	put_data(lazy, member, data);
	add(&lazy->piece, zeros, tar_padding(member->size));
}

/* --- the end --- */

static void annotate(struct lazy *lazy, const char *key, const char *value)
{
	lazy->annotations[lazy->nannotations++] = (struct oci_annotation){strdup(key),
									  strdup(value)};
}

static void annotate_digest(struct lazy *lazy, const char *key, const void *data, size_t len)
{
	char text[DIGEST_STR_MAX];
	struct digest digest;

	digest_of(DIGEST_SHA256, data, len, &digest);
	annotate(lazy, key, digest_format(&digest, text));
}

static void end_gzip(struct lazy *lazy, const struct buf *json)
{
	static const char trailer[TAR_TRAILER];
	const struct tar_member member = {
		.path = "stargz.index.json", .mode = S_IFREG, .size = json->len};
	size_t off = lazy->blob.len;
	int r = tar_header(&member, &lazy->piece);

	assert(r == 0);
	add(&lazy->piece, json->data, json->len);
	add(&lazy->piece, trailer, tar_padding(json->len));
	add(&lazy->piece, trailer, TAR_TRAILER);
	cut(lazy);
	add(&lazy->blob, "\x1f\x8b\x08\x04\0\0\0\0\0\xff", 10);
	if (lazy->form == LAZY_ESTARGZ)
		add(&lazy->blob, "\x1a\0SG\x16\0", 6);
	else
		add(&lazy->blob, "\x16\0", 2);
	buf_printf(&lazy->blob, "%016zxSTARGZ", off);
	add(&lazy->blob, "\x01\0\0\xff\xff\0\0\0\0\0\0\0\0", 13);
}

static void put_le64(struct buf *to, uint64_t value)
{
	value = htole64(value);
	add(to, &value, sizeof(value));
}

/* A skippable frame of LEN bytes, which follow. */
static void put_skippable(struct buf *to, size_t len)
{
	uint32_t le = htole32((uint32_t)len);

	add(to, "\x50\x2a\x4d\x18", 4);
	add(to, &le, sizeof(le));
}

static void end_zstd(struct lazy *lazy, const struct buf *json)
{
	bool containers = lazy->form == LAZY_CONTAINERS;
	const char *prefix = containers ? "io.github.containers.zstd-chunked"
					: "io.containers.zstd-chunked";
	static const char trailer[TAR_TRAILER];
	struct buf packed = BUF_INIT(LIMIT);
	AUTO_FREE char *checksum_key = format("%s.manifest-checksum", prefix);
	AUTO_FREE char *position_key = format("%s.manifest-position", prefix);

	add(&lazy->piece, trailer, TAR_TRAILER);
	cut(lazy);
	put_zstd(json, &packed);
	put_skippable(&lazy->blob, packed.len);
	size_t off = lazy->blob.len;
	add(&lazy->blob, packed.data, packed.len);
	put_skippable(&lazy->blob, containers ? 64 : 40);
	put_le64(&lazy->blob, off);
	put_le64(&lazy->blob, packed.len);
	put_le64(&lazy->blob, json->len);
	put_le64(&lazy->blob, 1);
	for (int i = 0; containers && i < 3; i++)
		put_le64(&lazy->blob, 0);
	add(&lazy->blob, containers ? "GNUlInUx" : "GnUlInUx", 8);

	AUTO_FREE char *position = format("%zu:%zu:%zu:1", off, packed.len, json->len);
	annotate(lazy, position_key, position);
	annotate_digest(lazy, checksum_key, packed.data, packed.len);
	buf_release(&packed);
}

void lazy_end(struct lazy *lazy)
{
	struct buf json = BUF_INIT(LIMIT);

	cut(lazy);
	buf_printf(&json, "{\n\t\"version\": 1,\n\t\"entries\": [%s]\n}",
		   lazy->table ? lazy->table : lazy->json.data);
	if (is_gzip(lazy))
		end_gzip(lazy, &json);
	else
		end_zstd(lazy, &json);
	if (lazy->form != LAZY_CONTAINERS)
		annotate_digest(lazy, "containerd.io/snapshot/stargz/toc.digest", json.data,
				json.len);
	buf_release(&json);
}

void lazy_release(struct lazy *lazy)
{
	for (size_t i = 0; i < lazy->nannotations; i++) {
		free(lazy->annotations[i].key);
		free(lazy->annotations[i].value);
	}
	buf_release(&lazy->blob);
	buf_release(&lazy->tar);
	buf_release(&lazy->json);
	buf_release(&lazy->piece);
	free(lazy->table);
}
