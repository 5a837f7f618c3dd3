// SPDX-License-Identifier: Apache-2.0
/* toc: annotations, footers, tables; and what is no true table. */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "lazy.h"
#include "regfs/toc.h"

#define SHA_A "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define SHA_B "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define END   100000 /* of the data in the blob */

#define CHECKSUM "io.github.containers.zstd-chunked.manifest-checksum"
#define POSITION "io.github.containers.zstd-chunked.manifest-position"
#define STARGZ	 "containerd.io/snapshot/stargz/toc.digest"

/* --- annotations --- */

static int find(const char *key, const char *value, const char *key2, const char *value2,
		struct toc_ref *ret)
{
	const struct oci_annotation annotations[] = {{(char *)key, (char *)value},
						     {(char *)key2, (char *)value2}};

	return toc_ref_find(annotations, key2 ? 2 : 1, ret);
}

static void finds_annotations(void **state)
{
	struct toc_ref ref, again;

	(void)state;
	assert_int_equal(find("org.example", SHA_A, NULL, NULL, &ref), -ENOENT);
	assert_int_equal(find(STARGZ, SHA_A, NULL, NULL, &ref), 0);
	assert_int_equal(ref.json.algo, DIGEST_SHA256);
	assert_int_equal(ref.json.bytes[0], 0xaa);
	assert_int_equal(ref.packed.algo, DIGEST_NONE);
	assert_int_equal(ref.len, 0);
	assert_int_equal(find(CHECKSUM, SHA_B, POSITION, "100:20:300:1", &again), 0);
	assert_int_equal(again.packed.bytes[0], 0xbb);
	assert_int_equal(again.off, 100);
	assert_int_equal(again.len, 20);
	assert_int_equal(again.json_len, 300);
	assert_false(toc_ref_equal(&ref, &again));
	assert_true(toc_ref_equal(&again, &again));
	/* nothing vouches for it */
	assert_int_equal(find(POSITION, "100:20:300:1", NULL, NULL, &ref), -ENOENT);
}

static void refuses_annotations(void **state)
{
	static const char *const positions[] = {
		"",
		"100:20:300",
		"100:20:300:1:5",
		"100:20:300:2",
		"100:0:300:1",
		"100:20:0:1",
		"-1:20:300:1",
		"1:99999999999:300:1",
		"1:20:99999999999:1",
		"a:20:300:1",
	};
	struct toc_ref ref;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(positions); i++)
		assert_int_equal(find(CHECKSUM, SHA_B, POSITION, positions[i], &ref), -EINVAL);
	assert_int_equal(find(CHECKSUM, "sha256:x", POSITION, "100:20:300:1", &ref), -EINVAL);
	assert_int_equal(find(STARGZ, "x", NULL, NULL, &ref), -EINVAL);
}

/* --- tables in their blobs --- */

static void write_layer(struct lazy *lazy, enum lazy_form form)
{
	const struct tar_member dir = {.path = "dir/", .mode = S_IFDIR | 0755};
	const struct tar_member file = {.path = "dir/f", .mode = S_IFREG | 0644, .size = 10};

	lazy_begin(lazy, form, 4);
	lazy_add(lazy, &dir, NULL);
	lazy_add(lazy, &file, "0123456789");
	lazy_end(lazy);
}

/* From the whole blob to JSON. */
static int unpack(const struct lazy *lazy, struct toc_ref *ref, struct buf *ret)
{
	const char *why = NULL;
	const char *tail = lazy->blob.data;
	size_t len = lazy->blob.len;

	assert_int_equal(toc_ref_find(lazy->annotations, lazy->nannotations, ref), 0);
	if (!ref->len)
		assert_int_equal(toc_locate(tail, len, len, ref, &why), 0);
	int r = toc_unpack(ref, tail + ref->off, ret, &why);
	assert_true(r == 0 || why);
	return r;
}

static void unpacks_each_form(void **state)
{
	(void)state;
	for (int form = 0; form < LAZY_FORMS; form++) {
		AUTO_BUF struct buf json = BUF_INIT(TOC_JSON_MAX);
		CLEANUP(lazy_release) struct lazy lazy;
		struct toc_ref ref;

		write_layer(&lazy, form);
		assert_int_equal(unpack(&lazy, &ref, &json), 0);
		assert_non_null(strstr(json.data, "\"dir/f\""));
		assert_int_equal(json.data[json.len - 1], '}');
	}
}

/* Without annotations of its own, zstd:chunked is found by its footer. */
static void locates_zstd_by_footer(void **state)
{
	(void)state;
	for (int form = LAZY_ZSTD; form < LAZY_FORMS; form++) {
		CLEANUP(lazy_release) struct lazy lazy;
		struct toc_ref said, found = {0};
		const char *why = NULL;

		write_layer(&lazy, form);
		size_t len = lazy.blob.len;
		assert_int_equal(toc_ref_find(lazy.annotations, lazy.nannotations, &said), 0);
		assert_int_equal(toc_locate(lazy.blob.data + len - 64, 64, len, &found, &why), 0);
		assert_int_equal(found.off, said.off);
		assert_int_equal(found.len, said.len);
		assert_int_equal(found.json_len, said.json_len);
	}
}

static void refuses_what_is_packed_wrongly(void **state)
{
	(void)state;
	for (int form = 0; form < LAZY_FORMS; form++) {
		AUTO_BUF struct buf json = BUF_INIT(TOC_JSON_MAX);
		CLEANUP(lazy_release) struct lazy lazy;
		struct toc_ref ref;
		const char *why = NULL;

		write_layer(&lazy, form);
		assert_int_equal(unpack(&lazy, &ref, &json), 0);
		buf_release(&json);
		ref.json_len++;
		assert_int_equal(toc_unpack(&ref, lazy.blob.data + ref.off, &json, &why), -EINVAL);
		ref.json_len = 0;
		ref.json.algo = DIGEST_SHA256;
		ref.json.bytes[0] ^= 1;
		assert_int_equal(toc_unpack(&ref, lazy.blob.data + ref.off, &json, &why), -EINVAL);
		assert_non_null(strstr(why, "digest"));
		/* cut off, and neither gzip nor zstd */
		ref.json.algo = ref.packed.algo = DIGEST_NONE;
		ref.len /= 2;
		assert_int_equal(toc_unpack(&ref, lazy.blob.data + ref.off, &json, &why), -EINVAL);
		ref.off++;
		assert_int_equal(toc_unpack(&ref, lazy.blob.data + ref.off, &json, &why), -EINVAL);
		assert_int_equal(json.len, 0);
	}
}

/* Each byte of a footer counts; a table that would lie outside is none. */
static void refuses_footers(void **state)
{
	(void)state;
	for (int form = 0; form < LAZY_ZSTD; form++) {
		CLEANUP(lazy_release) struct lazy lazy;
		size_t footer = form == LAZY_ESTARGZ ? 51 : 47;
		struct toc_ref ref = {0};
		const char *why = NULL;

		write_layer(&lazy, form);
		size_t len = lazy.blob.len;
		char *at = lazy.blob.data + len - footer;
		assert_int_equal(toc_locate(at, footer, len, &ref, &why), 0);
		assert_int_equal(toc_locate(at + 1, footer - 1, len, &ref, &why), -EINVAL);
		for (size_t i = 0; i < footer; i++) {
			struct toc_ref other = {0};

			at[i] ^= 1;
			int r = toc_locate(at, footer, len, &other, &why);
			assert_true(r == -EINVAL || other.off != ref.off);
			at[i] ^= 1;
		}
		/* a blob that is shorter than it would have to be */
		assert_int_equal(toc_locate(at, footer, ref.off + footer, &ref, &why), -EINVAL);
	}
}

/* stargz-snapshotter, docs/estargz.md, "eStargz image with an external TOC" */
static void finds_tables_apart(void **state)
{
	static const char footer[] = "\x1f\x8b\x08\x04\0\0\0\0\0\xff\x15\0SG\x11\0STARGZEXTERNALTOC"
				     "\x01\0\0\xff\xff\0\0\0\0\0\0\0";
	char tail[TOC_APART_FOOTER + 10] = {0};
	struct oci_annotation of_a = {(char *)"containerd.io/snapshot/stargz/layer.digest",
				      (char *)SHA_A};
	struct oci_descriptor layers[] = {{.size = 1},
					  {.size = 2, .annotations = &of_a, .nannotations = 1}};
	const struct oci_manifest tables = {.layers = layers, .nlayers = ARRAY_SIZE(layers)};
	struct toc_ref ref = {0};
	struct toc_apart apart;
	struct digest digest;
	const char *why = NULL;

	(void)state;
	assert_int_equal(sizeof(footer), TOC_APART_FOOTER);
	memcpy(tail + 10, footer, sizeof(footer));
	assert_int_equal(toc_locate(tail, sizeof(tail), 1000, &ref, &why), -EREMOTE);
	tail[sizeof(tail) - 9] ^= 1;
	assert_int_equal(toc_locate(tail, sizeof(tail), 1000, &ref, &why), -EINVAL);
	assert_int_equal(digest_parse(SHA_A, &digest), 0);
	assert_int_equal(toc_apart_find(&tables, &digest, &apart), 0);
	assert_int_equal(apart.size, 2);
	assert_int_equal(digest_parse(SHA_B, &digest), 0);
	assert_int_equal(toc_apart_find(&tables, &digest, &apart), -ENOENT);
}

/* --- entries --- */

/* TEXT to JSON: ' stands for its quotes, @a and @b for digests, @5 for a SHA-512. */
static void add_json(struct buf *json, const char *text)
{
	for (const char *at = text; *at; at++) {
		int digits = at[1] == '5' ? 128 : 64;

		if (*at == '\'') {
			buf_puts(json, "\"");
		} else if (*at == '@') {
			buf_printf(json, "\"sha%d:", digits * 4);
			at++;
			for (int i = 0; i < digits; i++)
				buf_add(json, at, 1);
			buf_puts(json, "\"");
		} else {
			buf_add(json, at, 1);
		}
	}
}

/* An index of ENTRIES in FILE, or an error: *RET_WHY says what is untrue of them. */
static int build(const char *entries, struct buf *file, struct index *ret, const char **ret_why)
{
	CLEANUP(index_builder_cleanup) struct index_builder *builder = index_builder_new();
	AUTO_BUF struct buf json = BUF_INIT(TOC_JSON_MAX);
	struct index_info info = {.by_toc = true, .codec = CODEC_ZSTD, .blob_size = END};

	add_json(&json, "{'version':1,'entries':[");
	add_json(&json, entries);
	add_json(&json, "]}");
	int r = toc_index(&json, END, builder, ret_why);
	if (r < 0)
		return r;
	assert_int_equal(index_builder_finish(builder, &info, file), 0);
	assert_int_equal(index_open(file->data, file->len, ret), 0);
	return toc_check(ret, ret_why);
}

static uint32_t look(const struct index *index, const char *name, struct index_inode *ret)
{
	struct index_name found;

	assert_int_equal(index_lookup(index, INDEX_ROOT, name, strlen(name), &found), 0);
	assert_int_equal(index_inode(index, found.ino, ret), 0);
	return found.ino;
}

static void reads_attributes(void **state)
{
	static const char entries[] =
		"{'name':'./','type':'dir','mode':448,'modtime':'2023-11-14T22:13:20Z'},"
		"{'name':'f','type':'reg','mode':35309,'uid':7,'gid':4294967295,"
		"'modtime':'2023-11-14T22:13:20.75Z','userName':'x','future':[{'a':']'}],"
		"'xattrs':{'user.a':'djE=','user.b':''}},"
		"{'name':'s','type':'symlink','linkName':'f','modtime':''},"
		"{'name':'h','type':'hardlink','linkName':'f'},"
		"{'name':'b','type':'block','devMajor':8,'devMinor':1,'mode':null}";
	AUTO_BUF struct buf file = BUF_INIT(MIB);
	struct index_inode inode, other;
	struct tar_xattr xattr;
	const char *why = NULL;
	struct index index;

	(void)state;
	assert_int_equal(build(entries, &file, &index, &why), 0);
	assert_int_equal(index_inode(&index, INDEX_ROOT, &inode), 0);
	assert_int_equal(inode.mode, S_IFDIR | 0700);
	assert_int_equal(inode.nchildren, 4);
	uint32_t ino = look(&index, "f", &inode);
	assert_int_equal(inode.mode, S_IFREG | 04755); /* type bits are masked */
	assert_int_equal(inode.uid, 7);
	assert_int_equal(inode.gid, UINT32_MAX);
	assert_int_equal(inode.mtime_sec, 1700000000);
	assert_int_equal(inode.mtime_nsec, 750000000);
	assert_int_equal(inode.nlink, 2);
	assert_int_equal(index_xattr(&index, ino, 0, &xattr), 0);
	assert_string_equal(xattr.name, "user.a");
	assert_int_equal(xattr.len, 2);
	assert_int_equal(index_xattr(&index, ino, 1, &xattr), 0);
	assert_int_equal(xattr.len, 0);
	assert_int_equal(look(&index, "h", &other), ino);
	look(&index, "s", &inode);
	assert_int_equal(inode.mode & S_IFMT, S_IFLNK);
	assert_int_equal(inode.mtime_sec, 0);
	look(&index, "b", &inode);
	assert_int_equal(inode.rdev_major, 8);
}

static void expect_chunk(const struct index *index, const struct index_inode *inode, uint32_t n,
			 const struct index_chunk *want)
{
	struct index_chunk chunk;

	assert_int_equal(index_chunk(index, inode, n, &chunk), 0);
	assert_int_equal(chunk.off, want->off);
	assert_int_equal(chunk.len, want->len);
	assert_int_equal(chunk.in_off, want->in_off);
	assert_int_equal(chunk.in_len, want->in_len);
	assert_int_equal(chunk.inner_off, want->inner_off);
	if (want->in_len)
		assert_int_equal(chunk.digest[0], want->digest[0]);
}

/* A piece ends where the next one begins, whosever that is; the last one at the table. */
static void cuts_chunks_as_estargz(void **state)
{
	static const char entries[] =
		"{'name':'.prefetch.landmark','type':'reg','size':1,'offset':10,"
		"'chunkDigest':@a},"
		"{'name':'f','type':'reg','size':300,'offset':20,'chunkSize':100,"
		"'chunkDigest':@a},"
		"{'name':'f','type':'chunk','offset':50,'chunkOffset':100,'chunkSize':100,"
		"'chunkDigest':@b},"
		"{'name':'f','type':'chunk','offset':50,'innerOffset':100,'chunkOffset':200,"
		"'chunkDigest':@a},"
		"{'name':'empty','type':'reg','size':0},"
		"{'name':'last','type':'reg','size':9,'offset':99990,'digest':@b},"
		"{'name':'./.no.prefetch.landmark','type':'reg','size':1,'offset':70,"
		"'chunkDigest':@a}";
	AUTO_BUF struct buf file = BUF_INIT(MIB);
	struct index_inode inode;
	const char *why = NULL;
	struct index index;

	(void)state;
	assert_int_equal(build(entries, &file, &index, &why), 0);
	assert_int_equal(index_inode(&index, INDEX_ROOT, &inode), 0);
	assert_int_equal(inode.nchildren, 3);
	look(&index, "f", &inode);
	assert_int_equal(inode.size, 300);
	assert_int_equal(inode.nchunks, 3);
	expect_chunk(&index, &inode, 0, &(struct index_chunk){0, 20, 100, 30, 0, {0xaa}});
	expect_chunk(&index, &inode, 1, &(struct index_chunk){100, 50, 100, 20, 0, {0xbb}});
	expect_chunk(&index, &inode, 2, &(struct index_chunk){200, 50, 100, 20, 100, {0xaa}});
	assert_int_equal(index_chunk_at(&index, &inode, 0), 0);
	assert_int_equal(index_chunk_at(&index, &inode, 99), 0);
	assert_int_equal(index_chunk_at(&index, &inode, 100), 1);
	assert_int_equal(index_chunk_at(&index, &inode, 299), 2);
	look(&index, "empty", &inode);
	assert_int_equal(inode.nchunks, 0);
	look(&index, "last", &inode);
	expect_chunk(&index, &inode, 0, &(struct index_chunk){0, 99990, 9, 10, 0, {0xbb}});
	struct index_chunk chunk;
	assert_int_equal(index_chunk(&index, &inode, 1, &chunk), -ENODATA);
}

/* endOffset ends the file's last piece; what is zeros needs no bytes. */
static void cuts_chunks_as_containers(void **state)
{
	static const char entries[] =
		"{'name':'f','type':'reg','size':300,'offset':20,'endOffset':80,"
		"'chunkSize':100,'chunkDigest':@a},"
		"{'name':'f','type':'chunk','offset':50,'chunkOffset':100,'chunkSize':100,"
		"'chunkType':'zeros'},"
		"{'name':'f','type':'chunk','offset':60,'chunkOffset':200,'chunkSize':100,"
		"'chunkDigest':@b},"
		"{'name':'g','type':'reg','size':5,'offset':200,'endOffset':210,'digest':@b}";
	AUTO_BUF struct buf file = BUF_INIT(MIB);
	struct index_inode inode;
	const char *why = NULL;
	struct index index;

	(void)state;
	assert_int_equal(build(entries, &file, &index, &why), 0);
	look(&index, "f", &inode);
	expect_chunk(&index, &inode, 0, &(struct index_chunk){0, 20, 100, 30, 0, {0xaa}});
	expect_chunk(&index, &inode, 1, &(struct index_chunk){100, 50, 100, 0, 0, {0}});
	expect_chunk(&index, &inode, 2, &(struct index_chunk){200, 60, 100, 20, 0, {0xbb}});
	look(&index, "g", &inode);
	expect_chunk(&index, &inode, 0, &(struct index_chunk){0, 200, 5, 10, 0, {0xbb}});
}

/* A digest that a piece of zeros has is that of as many zeros. */
static void checks_zeros(void **state)
{
	static const char entries[] = "{'name':'f','type':'reg','size':70000,'offset':20,'"
				      "endOffset':21,'chunkType':'zeros',"
				      "'chunkDigest':'sha256:%s'},"
				      "{'name':'g','type':'reg','size':100,'offset':30,'endOffset':"
				      "31,'chunkType':'zeros',"
				      "'chunkDigest':'sha256:%s'}";
	static const char of_70000[] =
		"f51b279903037b37ea1828a1021499995718d38016cad6c0da30962a41be052f";
	static const char of_100[] =
		"cd00e292c5970d3c5e2f0ffa5171e555bc46bfc4faddfb4a418b6840b86e79a3";
	AUTO_BUF struct buf file = BUF_INIT(MIB);
	char text[1024];
	const char *why = NULL;
	struct index index;

	(void)state;
	snprintf(text, sizeof(text), entries, of_70000, of_100);
	assert_int_equal(build(text, &file, &index, &why), 0);
	buf_clear(&file);
	snprintf(text, sizeof(text), entries, of_70000, of_70000);
	assert_int_equal(build(text, &file, &index, &why), -EINVAL);
	assert_non_null(strstr(why, "zeros"));
}

/* What follows a chunk in its member is not fetched with it. */
static void bounds_what_is_fetched(void **state)
{
	AUTO_BUF struct buf file = BUF_INIT(MIB);
	struct index_inode inode;
	struct index_chunk chunk;
	const char *why = NULL;
	struct index index;

	(void)state;
	assert_int_equal(build("{'name':'f','type':'reg','size':5,'offset':20,'chunkDigest':@a}",
			       &file, &index, &why),
			 0);
	look(&index, "f", &inode);
	assert_int_equal(index_chunk(&index, &inode, 0, &chunk), 0);
	assert_in_range(chunk.in_len, 100, 8192);
}

/* Files that nothing vouches for piece by piece; those beside them are not concerned. */
static void leaves_out_what_is_not_vouched_for(void **state)
{
	static const char *const files[] = {
		"{'name':'f','type':'reg','size':5,'offset':20}",
		"{'name':'f','type':'reg','size':200,'offset':20,'chunkSize':100,"
		"'chunkDigest':@a},"
		"{'name':'f','type':'chunk','offset':50,'chunkOffset':100}",
		"{'name':'f','type':'reg','size':200,'offset':20,'chunkSize':100,'digest':@a},"
		"{'name':'f','type':'chunk','offset':50,'chunkOffset':100,'chunkDigest':@a}",
		"{'name':'f','type':'reg','size':67108865,'offset':20,'chunkDigest':@a}",
		"{'name':'f','type':'reg','size':5,'offset':20,'innerOffset':67108865,"
		"'chunkDigest':@a}",
		"{'name':'f','type':'reg','size':5,'offset':20,'chunkDigest':@5}",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		AUTO_FREE char *entries = format(
			"%s,{'name':'g','type':'reg','size':5,'offset':70,'chunkDigest':@b}",
			files[i]);
		AUTO_BUF struct buf file = BUF_INIT(MIB);
		struct index_inode inode;
		const char *why = NULL;
		struct index index;

		assert_int_equal(build(entries, &file, &index, &why), 0);
		look(&index, "f", &inode);
		assert_int_equal(inode.nchunks, 0);
		assert_true(inode.size >= 5);
		look(&index, "g", &inode);
		assert_int_equal(inode.nchunks, 1);
		expect_chunk(&index, &inode, 0, &(struct index_chunk){0, 70, 5, 4101, 0, {0xbb}});
	}
}

static void lie(const char *entries, const char *words)
{
	AUTO_BUF struct buf file = BUF_INIT(64 * MIB);
	const char *why = NULL;
	struct index index;

	int r = build(entries, &file, &index, &why);
	if (r != -EINVAL || !why || !strstr(why, words))
		print_message("%.200s: %d, %s\n", entries, r, why ? why : "");
	assert_int_equal(r, -EINVAL);
	assert_non_null(strstr(why, words));
}

static void refuses_lies(void **state)
{
	(void)state;
	lie("{'name':'f','type':'reg','size':5,'offset':100000,'chunkDigest':@a}", "outside");
	lie("{'name':'f','type':'reg','size':5,'offset':20,'endOffset':100001,"
	    "'chunkDigest':@a}",
	    "outside");
	lie("{'name':'f','type':'reg','size':5,'offset':20,'endOffset':20,'chunkDigest':@a}",
	    "before they begin");
	lie("{'name':'f','type':'reg','size':5,'offset':20,'endOffset':60,"
	    "'chunkDigest':@a},"
	    "{'name':'g','type':'reg','size':5,'offset':50,'chunkDigest':@a}",
	    "over each other");
	lie("{'name':'f','type':'reg','size':200,'offset':20,'chunkSize':101,"
	    "'chunkDigest':@a},"
	    "{'name':'f','type':'chunk','offset':50,'chunkOffset':100,'chunkDigest':@a}",
	    "do not make up");
	lie("{'name':'f','type':'reg','size':200,'offset':20,'chunkSize':99,"
	    "'chunkDigest':@a}",
	    "do not make up");
	lie("{'name':'f','type':'reg','size':200,'offset':20,'chunkOffset':1,"
	    "'chunkDigest':@a}",
	    "do not make up");
	lie("{'name':'f','type':'reg','size':200,'offset':20,'chunkDigest':@a},"
	    "{'name':'f','type':'chunk','offset':50,'chunkOffset':200,'chunkDigest':@a}",
	    "over each other");
	lie("{'name':'f','type':'reg','size':200,'offset':20,'chunkDigest':@a},"
	    "{'name':'f','type':'chunk','offset':50,'chunkOffset':0,'chunkDigest':@a}",
	    "over each other");
	lie("{'name':'f','type':'reg','size':200,'offset':20,'chunkDigest':@a},"
	    "{'name':'g','type':'chunk','offset':50,'chunkOffset':100,'chunkDigest':@a}",
	    "belongs to no file");
	lie("{'name':'f','type':'chunk','offset':50,'chunkOffset':100,'chunkDigest':@a}",
	    "belongs to no file");
	lie("{'name':'d','type':'dir'},{'name':'d','type':'chunk','offset':50}",
	    "belongs to no file");
	lie("{'name':'a','type':'hardlink','linkName':'b'},"
	    "{'name':'b','type':'hardlink','linkName':'a'}",
	    "hard link");
	lie("{'name':'a','type':'hardlink','linkName':'a'}", "hard link");
	lie("{'name':'d/a','type':'hardlink','linkName':'d/b'},"
	    "{'name':'d/b','type':'reg','size':0}",
	    "hard link");
}

static void refuses_fields(void **state)
{
	(void)state;
	lie("{'name':'f','type':'door'}", "unknown type");
	lie("{'name':'f'}", "no name or type");
	lie("{'type':'dir'}", "no name or type");
	lie("{'name':'','type':'dir'}", "no name or type");
	lie("{'name':1,'type':'dir'}", "wrong type");
	lie("{'name':'f','type':'dir','xattrs':[]}", "wrong type");
	lie("{'name':'f','type':'dir','xattrs':{'user.a':'?'}}", "base64");
	lie("{'name':'f','type':'dir','type':'reg'}", "twice");
	lie("{'name':'f','type':'dir','modtime':'now'}", "time");
	lie("{'name':'f','type':'dir','uid':-1}", "out of bounds");
	lie("{'name':'f','type':'dir','uid':4294967296}", "out of bounds");
	lie("{'name':'f','type':'dir','mode':1.5}", "out of bounds");
	lie("{'name':'f','type':'dir','size':1e300}", "out of bounds");
	lie("{'name':'f','type':'reg','digest':'md5:1'}", "digest");
	lie("{'name':'f','type':'reg','chunkType':'odd'}", "chunk");
	/* what a Go program writes for a name that is not UTF-8 */
	lie("{'name':'\\ufffd','type':'dir'}", "UTF-8");
	lie("{'name':'s','type':'symlink','linkName':'a\\ufffd'}", "UTF-8");
	lie("'f'", "JSON");
	lie("{'name':'f','type':'dir'}]}{", "JSON");
	lie("{'name':'f','type':'dir'},", "JSON");
	lie("{'name':'f','type':'dir'} {'name':'f','type':'dir'}", "JSON");
}

static int build_text(const char *text, const char **ret_why)
{
	CLEANUP(index_builder_cleanup) struct index_builder *builder = index_builder_new();
	AUTO_BUF struct buf json = BUF_INIT(TOC_JSON_MAX);

	add_json(&json, text);
	return toc_index(&json, END, builder, ret_why);
}

static void reads_the_outermost_object(void **state)
{
	static const char *const good[] = {
		"{'version':1,'entries':[]}",
		" {'x':{'entries':[{}]},'entries' : [ ] , 'version' : 1 }\n",
	};
	static const char *const bad[] = {
		"",
		"x",
		"{}",
		"[]",
		"{'version':1}",
		"{'entries':[]}",
		"{'version':2,'entries':[]}",
		"{'version':1,'entries':{}}",
		"{'version':1,'entries':[]",
		"{'version':1,'entries':[]} x",
		"{'version':1,'entries':[],'entries':[]}",
		"{'version':1,'version':1,'entries':[]}",
		"{'version':1 'entries':[]}",
		"{'version':1,'entries':[,]}",
		"{'version':1,'entries':[}",
		"{'version':1,'entries':'[]'}",
		"{'version':1,'entries':[{'name':'a\\'}]}",
	};
	const char *why;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_int_equal(build_text(good[i], &why), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		why = NULL;
		assert_int_equal(build_text(bad[i], &why), -EINVAL);
		assert_non_null(why);
	}
}

/* Ten million entries are read no further than to the bound. */
static void is_bounded(void **state)
{
	static const char entry[] = "{\"name\":\"a\",\"type\":\"dir\"},";
	AUTO_BUF struct buf text = BUF_INIT(TOC_JSON_MAX);
	CLEANUP(index_builder_cleanup) struct index_builder *builder = index_builder_new();
	const char *why = NULL;
	size_t len = strlen(entry);

	(void)state;
	assert_int_equal(buf_puts(&text, "{\"version\":1,\"entries\":["), 0);
	size_t start = text.len;
	assert_int_equal(buf_reserve(&text, (TOC_ENTRIES_MAX + 1) * len), 0);
	for (size_t i = 0; i <= TOC_ENTRIES_MAX; i++)
		memcpy(text.data + start + i * len, entry, len);
	text.len += (TOC_ENTRIES_MAX + 1) * len - 1;
	assert_int_equal(buf_puts(&text, "]}"), 0);
	assert_int_equal(toc_index(&text, END, builder, &why), -EINVAL);
	assert_non_null(strstr(why, "too many"));
	/* long names and deep nesting end sooner */
	AUTO_FREE char *name = calloc(1, 70 * KIB);
	memset(name, 'n', 70 * KIB - 1);
	AUTO_FREE char *longer = format("{'name':'%s','type':'reg','size':1}", name);
	lie(longer, "impossible name");
	memset(name, '[', 70 * KIB - 1);
	lie(name, "JSON");
}

static void hides_what_serves_the_format(void **state)
{
	(void)state;
	assert_true(toc_is_hidden("stargz.index.json"));
	assert_true(toc_is_hidden("./.prefetch.landmark"));
	assert_true(toc_is_hidden("/.no.prefetch.landmark"));
	assert_false(toc_is_hidden("a/.prefetch.landmark"));
	assert_false(toc_is_hidden(".prefetch.landmark2"));
	assert_false(toc_is_hidden(""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_tables_apart),
		cmocka_unit_test(finds_annotations),
		cmocka_unit_test(refuses_annotations),
		cmocka_unit_test(unpacks_each_form),
		cmocka_unit_test(locates_zstd_by_footer),
		cmocka_unit_test(refuses_what_is_packed_wrongly),
		cmocka_unit_test(refuses_footers),
		cmocka_unit_test(reads_attributes),
		cmocka_unit_test(cuts_chunks_as_estargz),
		cmocka_unit_test(cuts_chunks_as_containers),
		cmocka_unit_test(checks_zeros),
		cmocka_unit_test(bounds_what_is_fetched),
		cmocka_unit_test(leaves_out_what_is_not_vouched_for),
		cmocka_unit_test(refuses_lies),
		cmocka_unit_test(refuses_fields),
		cmocka_unit_test(reads_the_outermost_object),
		cmocka_unit_test(is_bounded),
		cmocka_unit_test(hides_what_serves_the_format),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
