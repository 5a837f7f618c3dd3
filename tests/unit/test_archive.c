// SPDX-License-Identifier: Apache-2.0
/* archive, in: archives as docker, podman and skopeo write them, and broken ones. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "regfs/archive.h"
#include "regfs/tar.h"

#define CONFIG_OF(diff_ids) "{\"os\":\"linux\",\"rootfs\":{\"diff_ids\":[" diff_ids "]}}"
#define DIFF_ID		    "\"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\""
#define CONFIG_2	    CONFIG_OF(DIFF_ID "," DIFF_ID)

/* --- tar files in memory --- */

struct tape {
	struct buf bytes;
	uint64_t size; /* what the input says it has: less than bytes.len when cut off */
	int fail_at;   /* the pread (from 1) that fails with -EIO */
	int preads;
};

static void tape_init(struct tape *tape)
{
	*tape = (struct tape){.bytes = BUF_INIT(64 * MIB)};
}

static void add(struct tape *tape, const struct tar_member *member, const void *data)
{
	static const char zeros[512];

	assert_int_equal(tar_header(member, &tape->bytes), 0);
	assert_int_equal(buf_add(&tape->bytes, data, member->size), 0);
	assert_int_equal(buf_add(&tape->bytes, zeros, tar_padding(member->size)), 0);
}

static void add_bytes(struct tape *tape, const char *path, const void *data, size_t len)
{
	add(tape, &(struct tar_member){.path = path, .mode = S_IFREG | 0644, .size = len}, data);
}

static void add_text(struct tape *tape, const char *path, const char *text)
{
	add_bytes(tape, path, text, strlen(text));
}

static void add_symlink(struct tape *tape, const char *path, const char *target)
{
	add(tape, &(struct tar_member){.path = path, .mode = S_IFLNK | 0777, .symlink = target},
	    "");
}

static void add_hard_link(struct tape *tape, const char *path, const char *target)
{
	add(tape, &(struct tar_member){.path = path, .mode = S_IFREG | 0644, .hard_link = target},
	    "");
}

static void end(struct tape *tape)
{
	static const char zeros[TAR_TRAILER];

	assert_int_equal(buf_add(&tape->bytes, zeros, sizeof(zeros)), 0);
}

static ssize_t tape_pread(void *arg, uint64_t off, void *buf, size_t len)
{
	struct tape *tape = arg;

	if (++tape->preads == tape->fail_at)
		return -EIO;
	if (off >= tape->size)
		return 0;
	/* never more than some: a short count is no end */
	len = MIN(MIN(len, tape->size - off), (size_t)3000);
	memcpy(buf, tape->bytes.data + off, len);
	return (ssize_t)len;
}

static char why[300];

static int parse(struct tape *tape, struct archive **ret)
{
	const struct archive_input input = {tape_pread, tape, tape->size};

	snprintf(why, sizeof(why), "no sentence");
	return archive_parse(&input, ret, why, sizeof(why));
}

static struct archive *must_parse(struct tape *tape)
{
	struct archive *archive = NULL;
	int err;

	end(tape);
	tape->size = tape->bytes.len;
	err = parse(tape, &archive);
	if (err)
		fail_msg("%d: %s", err, why);
	buf_clear(&tape->bytes);
	return archive;
}

/* The archive is refused with -EINVAL and a sentence that holds WORDS. */
static void must_refuse(struct tape *tape, const char *words)
{
	struct archive *archive = (struct archive *)tape;
	int err;

	end(tape);
	tape->size = tape->bytes.len;
	err = parse(tape, &archive);
	if (err != -EINVAL || !strstr(why, words))
		fail_msg("%d: \"%s\", expected \"%s\"", err, why, words);
	assert_ptr_equal(archive, tape);
	buf_clear(&tape->bytes);
}

static void check_part(const struct tape *tape, const struct archive_part *part, const char *text)
{
	assert_int_equal(part->at.len, strlen(text));
	assert_memory_equal(tape->bytes.data + part->at.off, text, strlen(text));
}

/* --- docker save and podman save --- */

#define MANIFEST(config, tags, layers)                                                             \
	"[{\"Config\":\"" config "\",\"RepoTags\":" tags ",\"Layers\":[" layers "]}]"

static void test_docker_save(void **state)
{
	struct archive *archive;
	struct tape tape;

	(void)state;
	tape_init(&tape);
	add(&tape, &(struct tar_member){.path = "one/", .mode = S_IFDIR | 0755}, "");
	add_text(&tape, "one/layer.tar", "bottom");
	add_text(&tape, "two/layer.tar", "top");
	add_text(&tape, "c.json", CONFIG_2);
	add_text(&tape, "manifest.json",
		 MANIFEST("c.json", "[\"web:1\",\"x/web:2\"]",
			  "\"one/layer.tar\",\"two/layer.tar\""));
	archive = must_parse(&tape);
	assert_int_equal(archive->nimages, 1);
	assert_int_equal(archive->images[0].nnames, 2);
	assert_string_equal(archive->images[0].names[0], "web:1");
	assert_string_equal(archive->images[0].names[1], "x/web:2");
	assert_int_equal(archive->images[0].nmanifests, 0);
	assert_int_equal(archive->images[0].nblobs, 3);
	check_part(&tape, &archive->images[0].blobs[0], CONFIG_2);
	check_part(&tape, &archive->images[0].blobs[1], "bottom");
	check_part(&tape, &archive->images[0].blobs[2], "top");
	assert_int_equal(archive->images[0].blobs[1].digest.algo, DIGEST_NONE);
	archive_parsed_free(archive);
	buf_release(&tape.bytes);
}

/* Both kinds of links, forwards and backwards, "./" before names, and a member that comes twice. */
static void test_docker_links(void **state)
{
	struct archive *archive;
	struct tape tape;

	(void)state;
	tape_init(&tape);
	add_text(&tape, "./manifest.json", "[]");
	add_symlink(&tape, "./one/layer.tar", "../two/./layer.tar");
	add_hard_link(&tape, "two/layer.tar", "three/layer.tar"); /* from the top, unlike: */
	add_symlink(&tape, "three/layer.tar", "/hex.tar");
	add_text(&tape, "./hex.tar", "old");
	add_text(&tape, "hex.tar", "layer");
	add_text(&tape, "c.json", CONFIG_2);
	add_text(&tape, "./manifest.json",
		 MANIFEST("./c.json", "null", "\"one/layer.tar\",\"two/layer.tar\""));
	archive = must_parse(&tape);
	assert_int_equal(archive->nimages, 1);
	assert_int_equal(archive->images[0].nnames, 0);
	assert_int_equal(archive->images[0].nblobs, 3);
	check_part(&tape, &archive->images[0].blobs[1], "layer");
	check_part(&tape, &archive->images[0].blobs[2], "layer");
	archive_parsed_free(archive);
	buf_release(&tape.bytes);
}

static void test_docker_several(void **state)
{
	struct archive *archive;
	struct tape tape;

	(void)state;
	tape_init(&tape);
	add_text(&tape, "a.json", CONFIG_OF(DIFF_ID));
	add_text(&tape, "b.json", CONFIG_OF(""));
	add_text(&tape, "l.tar", "layer");
	add_text(&tape, "manifest.json",
		 "[{\"Config\":\"a.json\",\"RepoTags\":[\"a:1\"],\"Layers\":[\"l.tar\"]},"
		 "{\"Config\":\"b.json\",\"RepoTags\":[\"b:1\",\"b:1\"],\"Layers\":null}]");
	archive = must_parse(&tape);
	assert_int_equal(archive->nimages, 2);
	assert_int_equal(archive->images[0].nblobs, 2);
	assert_int_equal(archive->images[1].nblobs, 1);
	assert_int_equal(archive->images[1].nnames, 1);
	archive_parsed_free(archive);
	buf_release(&tape.bytes);
}

static void test_docker_refused(void **state)
{
	static const struct {
		const char *manifest, *words;
	} table[] = {
		{"[]", "names no image"},
		{"{}", "manifest.json: it is not a list"},
		{"[{}]", "Config"},
		{"[", "cut off"},
		{MANIFEST("none.json", "null", ""), "the config none.json is not in"},
		{MANIFEST("../c.json", "null", ""), "../c.json is not in"},
		{MANIFEST("", "null", ""), "is not in"},
		{MANIFEST("dir", "null", ""), "is not in"},
		{MANIFEST("l.tar", "null", ""), "l.tar: it is no JSON"},
		{MANIFEST("c.json", "null", "\"l.tar\""), "lists 1 layers, the config c.json 2"},
		{MANIFEST("c.json", "null", "\"l.tar\",\"no\\nne.tar\""), "no?ne.tar is not in"},
		{MANIFEST("c.json", "null", "\"l.tar\",\"loop\""), "loop is not in"},
		{MANIFEST("c.json", "null", "\"l.tar\",\"dangling\""), "dangling is not in"},
		{MANIFEST("c.json", "null", "\"l.tar\",\"escape\""), "escape is not in"},
	};
	struct tape tape;

	(void)state;
	tape_init(&tape);
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		add_text(&tape, "c.json", CONFIG_2);
		add_text(&tape, "l.tar", "layer");
		add_symlink(&tape, "loop", "pool");
		add_symlink(&tape, "pool", "loop");
		add_symlink(&tape, "dangling", "nowhere");
		add_symlink(&tape, "escape", "../l.tar");
		add(&tape, &(struct tar_member){.path = "dir", .mode = S_IFDIR | 0755}, "");
		add_text(&tape, "manifest.json", table[i].manifest);
		must_refuse(&tape, table[i].words);
	}
	buf_release(&tape.bytes);
}

static void test_no_image(void **state)
{
	struct tape tape;

	(void)state;
	tape_init(&tape);
	add_text(&tape, "etc/passwd", "x");
	must_refuse(&tape, "no index.json and no manifest.json");
	add_text(&tape, "layout/index.json", "{}");
	must_refuse(&tape, "layout/index.json is not at the top");
	add_text(&tape, "repositories", "{}");
	must_refuse(&tape, "docker before 1.10");
	buf_release(&tape.bytes);
}

/* --- OCI --- */

struct blob {
	char hex[DIGEST_STR_MAX];
	size_t len;
};

/* Puts TEXT under its digest. */
static struct blob add_blob(struct tape *tape, const char *text)
{
	struct blob blob = {.len = strlen(text)};
	struct digest digest;
	char path[200];

	digest_of(DIGEST_SHA256, text, blob.len, &digest);
	digest_hex(&digest, blob.hex);
	snprintf(path, sizeof(path), "blobs/sha256/%s", blob.hex);
	add_text(tape, path, text);
	return blob;
}

static struct blob blob_of(const char *text)
{
	struct blob blob = {.len = strlen(text)};
	struct digest digest;

	digest_of(DIGEST_SHA256, text, blob.len, &digest);
	digest_hex(&digest, blob.hex);
	return blob;
}

/* A descriptor; MORE are further fields, with a comma before them. */
static const char *descriptor(const struct blob *blob, const char *type, const char *more)
{
	static char texts[8][600];
	static unsigned next;
	char *text = texts[next++ % ARRAY_SIZE(texts)];

	snprintf(text, sizeof(texts[0]),
		 "{\"mediaType\":\"%s\",\"digest\":\"sha256:%s\",\"size\":%zu%s}", type, blob->hex,
		 blob->len, more);
	return text;
}

static const char *manifest_text(const struct blob *config, const struct blob *layer)
{
	static char text[2000];

	snprintf(text, sizeof(text), "{\"schemaVersion\":2,\"config\":%s,\"layers\":[%s,%s]}",
		 descriptor(config, OCI_TYPE_CONFIG, ""),
		 descriptor(layer, OCI_TYPE_LAYER_GZIP, ""),
		 descriptor(layer, OCI_TYPE_LAYER_GZIP, ""));
	return text;
}

static void add_index(struct tape *tape, const char *entries)
{
	char text[20000];

	snprintf(text, sizeof(text), "{\"schemaVersion\":2,\"manifests\":[%s]}", entries);
	add_text(tape, "index.json", text);
}

static struct blob add_index_blob(struct tape *tape, const char *first, const char *second)
{
	char text[3000];

	snprintf(text, sizeof(text), "{\"schemaVersion\":2,\"manifests\":[%s,%s]}", first, second);
	return add_blob(tape, text);
}

static bool has_hex(const struct digest *digest, const struct blob *blob)
{
	char hex[DIGEST_STR_MAX];

	return strcmp(digest_hex(digest, hex), blob->hex) == 0;
}

#define NAMED(name) ",\"annotations\":{\"org.opencontainers.image.ref.name\":\"" name "\"}"

static void test_oci(void **state)
{
	struct blob config, layer, manifest;
	const struct archive_image *image;
	struct archive *archive;
	struct tape tape;

	(void)state;
	tape_init(&tape);
	config = add_blob(&tape, "{}");
	layer = add_blob(&tape, "layer");
	manifest = add_blob(&tape, manifest_text(&config, &layer));
	add_text(&tape, "oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}");
	add_index(&tape, descriptor(&manifest, OCI_TYPE_MANIFEST, NAMED("1.5")));
	archive = must_parse(&tape);
	assert_int_equal(archive->nimages, 1);
	image = &archive->images[0];
	assert_int_equal(image->nnames, 1);
	assert_string_equal(image->names[0], "1.5");
	assert_int_equal(image->nmanifests, 1);
	assert_true(has_hex(&image->manifests[0].digest, &manifest));
	assert_string_equal(image->manifests[0].media_type, OCI_TYPE_MANIFEST);
	assert_string_equal(image->manifests[0].bytes, manifest_text(&config, &layer));
	assert_int_equal(image->manifests[0].len, manifest.len);
	assert_int_equal(image->manifests[0].manifest.nlayers, 2);
	/* the layer that is there twice is one blob */
	assert_int_equal(image->nblobs, 2);
	assert_true(has_hex(&image->blobs[0].digest, &config));
	check_part(&tape, &image->blobs[1], "layer");
	archive_parsed_free(archive);
	buf_release(&tape.bytes);
}

static void test_oci_index(void **state)
{
	struct blob config, layer, amd, arm, index;
	const struct archive_image *image;
	struct archive *archive;
	struct tape tape;

	(void)state;
	tape_init(&tape);
	config = add_blob(&tape, "{}");
	layer = add_blob(&tape, "layer");
	amd = add_blob(&tape, manifest_text(&config, &layer));
	arm = add_blob(&tape, manifest_text(&layer, &layer));
	index = add_index_blob(&tape, descriptor(&amd, OCI_TYPE_MANIFEST, ""),
			       descriptor(&arm, OCI_TYPE_MANIFEST, ""));
	add_index(&tape, descriptor(&index, OCI_TYPE_INDEX, ""));
	archive = must_parse(&tape);
	assert_int_equal(archive->nimages, 1);
	image = &archive->images[0];
	assert_int_equal(image->nnames, 0);
	assert_int_equal(image->nmanifests, 3);
	assert_true(has_hex(&image->manifests[0].digest, &amd));
	assert_true(has_hex(&image->manifests[1].digest, &arm));
	assert_true(has_hex(&image->manifests[2].digest, &index));
	assert_string_equal(image->manifests[2].media_type, OCI_TYPE_INDEX);
	assert_int_equal(image->nblobs, 2);
	archive_parsed_free(archive);
	buf_release(&tape.bytes);
}

/* Several images; one under two names; an entry of a type that is not known. */
static void test_oci_several(void **state)
{
	struct blob config, layer, one, two;
	struct archive *archive;
	struct tape tape;
	char entries[3000];

	(void)state;
	tape_init(&tape);
	config = add_blob(&tape, "{}");
	layer = add_blob(&tape, "layer");
	one = add_blob(&tape, manifest_text(&config, &layer));
	two = add_blob(&tape, manifest_text(&layer, &config));
	snprintf(entries, sizeof(entries), "%s,%s,%s,%s",
		 descriptor(&one, OCI_TYPE_MANIFEST, NAMED("1")),
		 descriptor(&two, OCI_TYPE_MANIFEST,
			    ",\"annotations\":{\"io.containerd.image.name\":\"ghcr.io/a:2\","
			    "\"org.opencontainers.image.ref.name\":\"2\"}"),
		 descriptor(&one, OCI_TYPE_MANIFEST, NAMED("one")),
		 descriptor(&layer, "application/x", ""));
	add_index(&tape, entries);
	archive = must_parse(&tape);
	assert_int_equal(archive->nimages, 2);
	assert_int_equal(archive->images[0].nnames, 2);
	assert_string_equal(archive->images[0].names[0], "1");
	assert_string_equal(archive->images[0].names[1], "one");
	assert_int_equal(archive->images[1].nnames, 1);
	assert_string_equal(archive->images[1].names[0], "ghcr.io/a:2");
	/* a blob in two images is a blob of both */
	assert_int_equal(archive->images[0].nblobs, 2);
	assert_int_equal(archive->images[1].nblobs, 2);
	archive_parsed_free(archive);
	buf_release(&tape.bytes);
}

static void add_docker_manifest(struct tape *tape, const struct blob *config)
{
	char text[500];

	snprintf(text, sizeof(text),
		 "[{\"Config\":\"blobs/sha256/%s\",\"RepoTags\":[\"web:1\",\"web:2\"],"
		 "\"Layers\":[]}]",
		 config->hex);
	add_text(tape, "manifest.json", text);
}

/* docker save from 25 on: both tables; the names are those of manifest.json. */
static void test_docker_save_new(void **state)
{
	struct blob config, layer, manifest;
	struct archive *archive;
	struct tape tape;

	(void)state;
	tape_init(&tape);
	config = add_blob(&tape, "{}");
	layer = add_blob(&tape, "layer");
	manifest = add_blob(&tape, manifest_text(&config, &layer));
	add_docker_manifest(&tape, &config);
	add_index(&tape, descriptor(&manifest, OCI_TYPE_MANIFEST, NAMED("1")));
	archive = must_parse(&tape);
	assert_int_equal(archive->nimages, 1);
	assert_int_equal(archive->images[0].nmanifests, 1);
	assert_int_equal(archive->images[0].nnames, 2);
	assert_string_equal(archive->images[0].names[0], "web:1");
	assert_string_equal(archive->images[0].names[1], "web:2");
	archive_parsed_free(archive);

	/* something else under that name does no harm */
	add_blob(&tape, "{}");
	add_blob(&tape, "layer");
	add_blob(&tape, manifest_text(&config, &layer));
	add_text(&tape, "manifest.json", "{}");
	add_index(&tape, descriptor(&manifest, OCI_TYPE_MANIFEST, NAMED("1")));
	archive = must_parse(&tape);
	assert_string_equal(archive->images[0].names[0], "1");
	archive_parsed_free(archive);
	buf_release(&tape.bytes);
}

/* An index of two platforms of which one is there: docker's is pushed as docker push would, any
 * other is refused. */
static void test_partial_index(void **state)
{
	struct blob config, layer, here, absent = blob_of("absent"), index;
	const struct archive_image *image;
	struct archive *archive;
	struct tape tape;

	(void)state;
	tape_init(&tape);
	for (int docker = 0; docker < 2; docker++) {
		config = add_blob(&tape, "{}");
		layer = add_blob(&tape, "layer");
		here = add_blob(&tape, manifest_text(&config, &layer));
		index = add_index_blob(
			&tape,
			descriptor(&absent, OCI_TYPE_MANIFEST,
				   ",\"platform\":{\"os\":\"linux\",\"architecture\":\"arm64\"}"),
			descriptor(&here, OCI_TYPE_MANIFEST, ""));
		add_index(&tape, descriptor(&index, OCI_TYPE_INDEX, NAMED("1")));
		if (!docker) {
			must_refuse(&tape, "(linux-arm64) is not in the archive, which holds only "
					   "some");
			continue;
		}
		add_docker_manifest(&tape, &config);
		archive = must_parse(&tape);
		image = &archive->images[0];
		assert_int_equal(image->nmanifests, 1);
		assert_true(has_hex(&image->manifests[0].digest, &here));
		assert_string_equal(image->names[0], "web:1");
		archive_parsed_free(archive);
	}
	buf_release(&tape.bytes);
}

/* docker's index of one platform that is there is pushed as it is, with what else it lists. */
static void test_whole_index(void **state)
{
	static const char mark[] =
		",\"annotations\":{\"vnd.docker.reference.type\":\"attestation-manifest\"}";
	struct archive *archive;
	struct tape tape;

	(void)state;
	tape_init(&tape);
	for (int attested = 0; attested < 2; attested++) {
		struct blob config = add_blob(&tape, "{}"), layer = add_blob(&tape, "layer");
		struct blob other = add_blob(&tape, manifest_text(&layer, &layer)), index;
		struct blob manifest = add_blob(&tape, manifest_text(&config, &layer));

		index = add_index_blob(&tape, descriptor(&manifest, OCI_TYPE_MANIFEST, ""),
				       attested ? descriptor(&other, OCI_TYPE_MANIFEST, mark)
						: descriptor(&other, "application/x", ""));
		add_docker_manifest(&tape, &config);
		add_index(&tape, descriptor(&index, OCI_TYPE_INDEX, NAMED("1")));
		archive = must_parse(&tape);
		assert_int_equal(archive->images[0].nmanifests, attested ? 3 : 2);
		assert_true(
			has_hex(&archive->images[0].manifests[attested ? 2 : 1].digest, &index));
		assert_int_equal(archive->images[0].nblobs, attested ? 2 : 3);
		archive_parsed_free(archive);
	}
	buf_release(&tape.bytes);
}

/* A manifest of nearly 4 MiB; NUMBER makes it differ. */
static struct blob add_large_manifest(struct tape *tape, const struct blob *config, int number)
{
	const size_t len = OCI_MANIFEST_MAX - 100;
	char *text = malloc(len + 1);
	struct blob blob;
	int used;

	assert_non_null(text);
	memset(text, ' ', len);
	text[len] = '\0';
	used = snprintf(text, 1000, "{\"annotations\":{\"n\":\"%d\"},\"config\":%s}", number,
			descriptor(config, OCI_TYPE_CONFIG, ""));
	text[used] = ' ';
	blob = add_blob(tape, text);
	free(text);
	return blob;
}

/* All manifests together are bounded; one that is listed often counts once. */
static void test_large_manifests(void **state)
{
	struct blob config, manifest;
	struct archive *archive;
	struct tape tape;
	char entries[20000];

	(void)state;
	tape_init(&tape);
	tape.bytes.max = 128 * MIB;
	for (int different = 0; different < 2; different++) {
		size_t len = 0;

		config = add_blob(&tape, "{}");
		for (int i = 0; i < 17; i++) {
			char name[100];

			snprintf(name, sizeof(name),
				 ",\"annotations\":{\"io.containerd.image.name\":\"n:%d\"}", i);
			if (i == 0 || different)
				manifest = add_large_manifest(&tape, &config, i);
			len += snprintf(entries + len, sizeof(entries) - len, "%s%s", i ? "," : "",
					descriptor(&manifest, OCI_TYPE_MANIFEST, name));
		}
		add_index(&tape, entries);
		if (different) {
			must_refuse(&tape, "larger than 64 MiB together");
			continue;
		}
		archive = must_parse(&tape);
		assert_int_equal(archive->nimages, 1);
		assert_int_equal(archive->images[0].nnames, 17);
		archive_parsed_free(archive);
	}
	buf_release(&tape.bytes);
}

static void test_foreign_layer(void **state)
{
	struct blob config, manifest, absent = blob_of("absent");
	struct archive *archive;
	struct tape tape;
	char text[1000];

	(void)state;
	tape_init(&tape);
	config = add_blob(&tape, "{}");
	snprintf(text, sizeof(text), "{\"config\":%s,\"layers\":[%s]}",
		 descriptor(&config, OCI_TYPE_CONFIG, ""),
		 descriptor(&absent, OCI_TYPE_LAYER, ",\"urls\":[\"https://a\"]"));
	manifest = add_blob(&tape, text);
	add_index(&tape, descriptor(&manifest, OCI_TYPE_MANIFEST, ""));
	archive = must_parse(&tape);
	assert_int_equal(archive->images[0].nblobs, 1);
	archive_parsed_free(archive);
	buf_release(&tape.bytes);
}

static void test_oci_refused(void **state)
{
	struct blob config, layer, manifest, absent = blob_of("absent"), wrong;
	struct tape tape;
	char path[200];

	(void)state;
	tape_init(&tape);
	add_text(&tape, "index.json", "{}");
	must_refuse(&tape, "index.json names no image"); /* {} is an index of nothing */
	add_text(&tape, "index.json", "[]");
	must_refuse(&tape, "index.json: it is not an object");
	add_index(&tape, descriptor(&absent, OCI_TYPE_MANIFEST, ""));
	must_refuse(&tape, absent.hex);

	config = add_blob(&tape, "{}");
	manifest = add_blob(&tape, manifest_text(&config, &absent));
	add_index(&tape, descriptor(&manifest, OCI_TYPE_MANIFEST, ""));
	must_refuse(&tape, "the layer blobs/sha256/");

	layer = add_blob(&tape, "layer");
	manifest = add_blob(&tape, manifest_text(&absent, &layer));
	add_index(&tape, descriptor(&manifest, OCI_TYPE_MANIFEST, ""));
	must_refuse(&tape, "the config blobs/sha256/");

	/* another size, another content, no manifest at all */
	wrong = config = add_blob(&tape, "{}");
	wrong.len = 3;
	manifest = add_blob(&tape, manifest_text(&wrong, &config));
	add_index(&tape, descriptor(&manifest, OCI_TYPE_MANIFEST, ""));
	must_refuse(&tape, "has 2 bytes, and should have 3");

	snprintf(path, sizeof(path), "blobs/sha256/%s", absent.hex);
	add_text(&tape, path, "ABSENT");
	add_index(&tape, descriptor(&absent, OCI_TYPE_MANIFEST, ""));
	must_refuse(&tape, "is damaged");

	layer = add_blob(&tape, "layer");
	add_index(&tape, descriptor(&layer, OCI_TYPE_MANIFEST, ""));
	must_refuse(&tape, "it is no JSON");
	buf_release(&tape.bytes);
}

static void test_nested_indexes(void **state)
{
	struct blob config, manifest;
	struct archive *archive;
	struct tape tape;

	(void)state;
	tape_init(&tape);
	for (int levels = 4; levels <= 5; levels++) {
		config = add_blob(&tape, "{}");
		manifest = add_blob(&tape, manifest_text(&config, &config));
		for (int i = 0; i < levels; i++)
			manifest = add_index_blob(&tape, descriptor(&manifest, "", ""),
						  descriptor(&manifest, "", ""));
		add_index(&tape, descriptor(&manifest, OCI_TYPE_INDEX, ""));
		if (levels == 5) {
			must_refuse(&tape, "nested too deeply");
			continue;
		}
		archive = must_parse(&tape);
		assert_int_equal(archive->images[0].nmanifests, 5);
		archive_parsed_free(archive);
	}
	buf_release(&tape.bytes);
}

/* --- whole, cut off, damaged --- */

static void small_archive(struct tape *tape)
{
	char *layer = calloc(1, 100000);

	assert_non_null(layer);
	tape_init(tape);
	add_text(tape, "c.json", CONFIG_OF(DIFF_ID));
	add_bytes(tape, "l.tar", layer, 100000);
	add_text(tape, "manifest.json", MANIFEST("c.json", "null", "\"l.tar\""));
	free(layer);
}

static void test_cut_off(void **state)
{
	struct archive *archive = NULL;
	struct tape tape;
	size_t whole;

	(void)state;
	small_archive(&tape);
	whole = tape.bytes.len;
	end(&tape);
	for (size_t size = 0; size < tape.bytes.len; size += size < 4096 ? 100 : 1000) {
		tape.size = size;
		if (parse(&tape, &archive) != -ENODATA)
			fail_msg("cut to %zu of %zu bytes: %s", size, tape.bytes.len, why);
		assert_non_null(strstr(why, size < 512 ? "no archive" : "end marker"));
	}
	tape.size = whole;
	assert_int_equal(parse(&tape, &archive), -ENODATA);
	tape.size = tape.bytes.len;
	assert_int_equal(parse(&tape, &archive), 0);
	/* headers are read, and what lies between is passed over */
	assert_in_range(tape.preads, 1, 1000);
	archive_parsed_free(archive);
	buf_release(&tape.bytes);
}

static void test_damaged(void **state)
{
	struct archive *archive = NULL;
	struct tape tape;

	(void)state;
	small_archive(&tape);
	end(&tape);
	tape.size = tape.bytes.len;
	tape.bytes.data[1024] ^= 1; /* the second member's name */
	assert_int_equal(parse(&tape, &archive), -EINVAL);
	assert_non_null(strstr(why, "tar"));
	buf_release(&tape.bytes);
}

static void test_input_fails(void **state)
{
	struct archive *archive = NULL;
	struct tape tape;
	int failed = 0;

	(void)state;
	small_archive(&tape);
	end(&tape);
	tape.size = tape.bytes.len;
	for (tape.fail_at = 1;; tape.fail_at++) {
		int err;

		tape.preads = 0;
		err = parse(&tape, &archive);
		if (tape.preads < tape.fail_at) {
			assert_int_equal(err, 0);
			break;
		}
		assert_int_equal(err, -EIO);
		failed++;
	}
	assert_in_range(failed, 3, 1000);
	archive_parsed_free(archive);
	buf_release(&tape.bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_docker_save),	cmocka_unit_test(test_docker_links),
		cmocka_unit_test(test_docker_several),	cmocka_unit_test(test_docker_refused),
		cmocka_unit_test(test_no_image),	cmocka_unit_test(test_oci),
		cmocka_unit_test(test_oci_index),	cmocka_unit_test(test_oci_several),
		cmocka_unit_test(test_docker_save_new), cmocka_unit_test(test_partial_index),
		cmocka_unit_test(test_foreign_layer),	cmocka_unit_test(test_whole_index),
		cmocka_unit_test(test_large_manifests), cmocka_unit_test(test_oci_refused),
		cmocka_unit_test(test_nested_indexes),	cmocka_unit_test(test_cut_off),
		cmocka_unit_test(test_damaged),		cmocka_unit_test(test_input_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
