/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pushes: archives made here, or by skopeo, into a store in memory, or a layout on disk.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "../../src/push_priv.h"
#include "fakestore.h"
#include "regfs/layer.h"
#include "regfs/layout.h"
#include "regfs/oci.h"
#include "regfs/stats.h"
#include "regfs/tar.h"

#define ARCHIVE_MAX (64 * MIB)

struct fixture {
	char dir[128];
	char spool[160];
	struct pool *jobs;
	struct cache *cache; /* NULL: none */
	struct events *events;
	struct pushes *pushes;
	struct store *store;
	struct wait wait;
	char confirmed[256]; /* by on_tag */
	unsigned nevents;    /* EVENT_TAG; complete after events_free() */
};

static void on_tag(void *arg, struct store *store, const char *repo, const char *tag,
		   const struct digest *made)
{
	struct fixture *f = arg;
	struct digest digest;
	size_t len = strlen(f->confirmed);

	/* It is called when the store says so too. */
	assert_int_equal(store->ops->head(store, repo, tag, &digest, &f->wait), 0);
	assert_true(digest_equal(&digest, made));
	snprintf(f->confirmed + len, sizeof(f->confirmed) - len, "%s:%s ", repo, tag);
}

static void on_event(void *arg, const struct event *event)
{
	struct fixture *f = arg;

	f->nevents += event->kind == EVENT_TAG;
}

static struct pushes *make_pushes(struct fixture *f, enum codec compress)
{
	const struct pushes_options options = {
		.spool_dir = f->spool,
		.jobs = f->jobs,
		.cache = f->cache,
		.events = f->events,
		.compress = compress,
		.on_tag = on_tag,
		.arg = f,
	};
	struct pushes *pushes = pushes_new(&options);

	assert_non_null(pushes);
	return pushes;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const char *tmp = getenv("TMPDIR");

	snprintf(f->dir, sizeof(f->dir), "%s/regfs-push-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->spool, sizeof(f->spool), "%s/cache/spool", f->dir);
	f->jobs = pool_new("jobs", 0);
	f->events = events_new();
	assert_int_equal(events_subscribe(f->events, on_event, f), 0);
	f->pushes = make_pushes(f, CODEC_GZIP);
	f->store = fakestore_new("reg.example:5000");
	wait_init(&f->wait, true);
	*state = f;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	pushes_free(f->pushes);
	store_free(f->store);
	events_free(f->events);
	pool_free(f->jobs);
	wait_release(&f->wait);
	nftw(f->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

/* --- archives --- */

static void add_file(struct buf *tar, const char *path, const void *data, size_t len)
{
	static const char zeros[512];
	const struct tar_member member = {.path = path, .mode = S_IFREG | 0644, .size = len};

	assert_int_equal(tar_header(&member, tar), 0);
	assert_int_equal(buf_add(tar, data, len), 0);
	assert_int_equal(buf_add(tar, zeros, tar_padding(len)), 0);
}

static void add_text(struct buf *tar, const char *path, const char *text)
{
	add_file(tar, path, text, strlen(text));
}

static void finish(struct buf *tar)
{
	static const char zeros[TAR_TRAILER];

	assert_int_equal(buf_add(tar, zeros, sizeof(zeros)), 0);
}

/* The tar of one file of LEN bytes that hardly repeat. */
static struct buf make_layer(const char *name, size_t len)
{
	struct buf layer = BUF_INIT(ARCHIVE_MAX);
	AUTO_FREE char *data = malloc(len + 8);

	for (size_t i = 0; i < len; i += 8)
		snprintf(data + i, 9, "%08zx", (size_t)hash64(len, &i, sizeof(i)) & 0xffffffff);
	add_file(&layer, name, data, len);
	finish(&layer);
	return layer;
}

static void hex_of(const void *data, size_t len, char out[static DIGEST_STR_MAX])
{
	struct digest digest;

	digest_of(DIGEST_SHA256, data, len, &digest);
	digest_hex(&digest, out);
}

/* A config that names the layers. The caller frees. */
static char *make_config(const struct buf *layers, size_t nlayers)
{
	AUTO_BUF struct buf text = BUF_INIT(64 * KIB);
	char hex[DIGEST_STR_MAX];

	buf_puts(&text, "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{},"
			"\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[");
	for (size_t i = 0; i < nlayers; i++) {
		hex_of(layers[i].data, layers[i].len, hex);
		buf_printf(&text, "%s\"sha256:%s\"", i ? "," : "", hex);
	}
	buf_puts(&text, "]}}");
	return buf_steal(&text, NULL);
}

/* What docker save makes. TAGS: a JSON list, or "null". */
static struct buf docker_archive(const struct buf *layers, size_t nlayers, const char *config,
				 const char *tags)
{
	struct buf tar = BUF_INIT(ARCHIVE_MAX);
	AUTO_BUF struct buf manifest = BUF_INIT(64 * KIB);
	char path[64];

	buf_printf(&manifest, "[{\"Config\":\"config.json\",\"RepoTags\":%s,\"Layers\":[", tags);
	for (size_t i = 0; i < nlayers; i++) {
		snprintf(path, sizeof(path), "l%zu/layer.tar", i);
		add_file(&tar, path, layers[i].data, layers[i].len);
		buf_printf(&manifest, "%s\"%s\"", i ? "," : "", path);
	}
	buf_puts(&manifest, "]}]");
	add_text(&tar, "config.json", config);
	add_text(&tar, "manifest.json", manifest.data);
	finish(&tar);
	return tar;
}

static void add_blob(struct buf *tar, const void *data, size_t len)
{
	char path[160], hex[DIGEST_STR_MAX];

	hex_of(data, len, hex);
	snprintf(path, sizeof(path), "blobs/sha256/%s", hex);
	add_file(tar, path, data, len);
}

static char *oci_manifest(const struct buf *layer, const char *config)
{
	char layer_hex[DIGEST_STR_MAX], config_hex[DIGEST_STR_MAX];

	hex_of(layer->data, layer->len, layer_hex);
	hex_of(config, strlen(config), config_hex);
	return format("{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_MANIFEST "\",\"config\":"
		      "{\"mediaType\":\"" OCI_TYPE_CONFIG
		      "\",\"digest\":\"sha256:%s\",\"size\":%zu},"
		      "\"layers\":[{\"mediaType\":\"" OCI_TYPE_LAYER
		      "\",\"digest\":\"sha256:%s\",\"size\":%zu}],\"annotations\":{\"odd\":\" \"}}",
		      config_hex, strlen(config), layer_hex, layer->len);
}

/* Entries of index.json: TYPE and the document, and a ref name or NULL. */
static void add_entry(struct buf *index, const char *type, const char *json, const char *name)
{
	char hex[DIGEST_STR_MAX];

	hex_of(json, strlen(json), hex);
	buf_printf(index, "%s{\"mediaType\":\"%s\",\"digest\":\"sha256:%s\",\"size\":%zu",
		   index->len ? "," : "", type, hex, strlen(json));
	if (name)
		buf_printf(index, ",\"annotations\":{\"org.opencontainers.image.ref.name\":\"%s\"}",
			   name);
	buf_puts(index, "}");
}

static void add_layout(struct buf *tar, const struct buf *entries)
{
	AUTO_FREE char *index = format("{\"schemaVersion\":2,\"manifests\":[%s]}", entries->data);

	add_text(tar, "oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}");
	add_text(tar, "index.json", index);
	finish(tar);
}

static struct buf oci_archive(const struct buf *layer, const char *config, const char *name)
{
	struct buf tar = BUF_INIT(ARCHIVE_MAX);
	AUTO_BUF struct buf entries = BUF_INIT(64 * KIB);
	AUTO_FREE char *manifest = oci_manifest(layer, config);

	add_blob(&tar, layer->data, layer->len);
	add_blob(&tar, config, strlen(config));
	add_blob(&tar, manifest, strlen(manifest));
	add_entry(&entries, OCI_TYPE_MANIFEST, manifest, name);
	add_layout(&tar, &entries);
	return tar;
}

/* --- pushing --- */

static struct push *begin(struct fixture *f, const char *repo, const char *tag)
{
	struct push *push = NULL;

	assert_int_equal(push_new(f->pushes, f->store, repo, tag, "label", &push), 0);
	return push;
}

static void write_all(struct fixture *f, struct push *push, const struct buf *bytes)
{
	assert_int_equal(push_write(push, 0, bytes->data, bytes->len, &f->wait), bytes->len);
}

/* Pushes the archive as one file. */
static int push_once(struct fixture *f, const char *repo, const char *tag, const struct buf *bytes)
{
	struct push *push = begin(f, repo, tag);

	write_all(f, push, bytes);
	int verdict = push_flush(push, &f->wait);
	push_unref(push);
	return verdict;
}

static void assert_reason(struct push *push, int verdict, const char *part)
{
	struct push_status status;

	push_status(push, &status);
	assert_int_equal(status.state, PUSH_FAILED);
	assert_int_equal(status.verdict, verdict);
	if (!strstr(status.reason, part))
		fail_msg("'%s' does not say '%s'", status.reason, part);
}

/* It fails with VERDICT and words, and no manifest is sent. */
static void assert_refused(struct fixture *f, const char *repo, const struct buf *bytes,
			   int verdict, const char *words)
{
	struct push *push = begin(f, repo, repo ? "1" : NULL);

	write_all(f, push, bytes);
	assert_int_equal(push_flush(push, &f->wait), verdict);
	assert_reason(push, verdict, words);
	assert_int_equal(fakestore_calls(f->store, FAKE_PUT_MANIFEST), 0);
	push_unref(push);
}

static struct store_manifest manifest_of(struct fixture *f, const char *repo, const char *tag)
{
	struct store_manifest manifest = {0};

	assert_int_equal(f->store->ops->get_manifest(f->store, repo, tag, &manifest, &f->wait), 0);
	return manifest;
}

static struct buf blob_of(struct fixture *f, const char *repo, const struct digest *digest)
{
	struct buf bytes = BUF_INIT(ARCHIVE_MAX);
	struct store_stream *stream = NULL;
	char chunk[4096];
	ssize_t got;

	assert_int_equal(
		f->store->ops->open_blob(f->store, repo, digest, 0, UINT64_MAX, &stream, &f->wait),
		0);
	while ((got = stream->read(stream, chunk, sizeof(chunk), &f->wait)) > 0)
		assert_int_equal(buf_add(&bytes, chunk, (size_t)got), 0);
	assert_int_equal(got, 0);
	store_stream_close(stream);
	return bytes;
}

static struct buf decode(enum codec codec, const struct buf *in)
{
	struct buf out = BUF_INIT(ARCHIVE_MAX);
	struct decoder *decoder = decoder_new(codec, NULL);
	char chunk[4096];
	ssize_t got;

	decoder_input(decoder, in->data, in->len, true);
	while ((got = decoder_read(decoder, chunk, sizeof(chunk))) > 0)
		assert_int_equal(buf_add(&out, chunk, (size_t)got), 0);
	assert_int_equal(got, 0);
	decoder_free(decoder);
	return out;
}

static struct buf encode(enum codec codec, const struct buf *in)
{
	struct buf out = BUF_INIT(ARCHIVE_MAX);
	struct encoder *encoder = encoder_new(codec, 0);

	for (size_t off = 0; off < in->len; off += MIB) {
		size_t len = MIN(in->len - off, (size_t)MIB);
		assert_int_equal(buf_reserve(&out, encoder_bound(codec, len)), 0);
		ssize_t put = encoder_piece(encoder, in->data + off, len, out.data + out.len,
					    encoder_bound(codec, len));
		assert_true(put > 0);
		out.len += (size_t)put;
	}
	encoder_free(encoder);
	return out;
}

static void assert_same(const struct buf *a, const struct buf *b)
{
	assert_int_equal(a->len, b->len);
	assert_memory_equal(a->data, b->data, a->len);
}

static bool tag_exists(struct fixture *f, const char *repo, const char *tag)
{
	struct digest digest;

	return f->store->ops->head(f->store, repo, tag, &digest, &f->wait) == 0;
}

/* --- OCI archives --- */

static void oci_archive_keeps_every_digest(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf layer = make_layer("file", 3 * MIB + 17);
	AUTO_FREE char *config = make_config(&layer, 1);
	AUTO_BUF struct buf tar = oci_archive(&layer, config, NULL);
	AUTO_FREE char *json = oci_manifest(&layer, config);
	struct push *push = begin(f, "team/app", "1.6");
	struct push_status status;

	write_all(f, push, &tar);
	assert_int_equal(push_flush(push, &f->wait), 0);
	assert_string_equal(f->confirmed, "team/app:1.6 ");
	push_status(push, &status);
	assert_int_equal(status.state, PUSH_DONE);
	assert_int_equal(status.total_bytes, layer.len + strlen(config));
	assert_int_equal(status.done_bytes, status.total_bytes);
	push_unref(push);

	struct store_manifest manifest = manifest_of(f, "team/app", "1.6");
	assert_string_equal(manifest.bytes.data, json);
	assert_string_equal(manifest.media_type, OCI_TYPE_MANIFEST);
	store_manifest_release(&manifest);
	struct digest digest;
	digest_of(DIGEST_SHA256, layer.data, layer.len, &digest);
	AUTO_BUF struct buf sent = blob_of(f, "team/app", &digest);
	assert_same(&sent, &layer);
	events_free(f->events);
	f->events = NULL;
	assert_int_equal(f->nevents, 1);
}

static void blobs_that_are_there_are_not_sent(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf layer = make_layer("file", 1000);
	AUTO_FREE char *config = make_config(&layer, 1);
	AUTO_BUF struct buf tar = oci_archive(&layer, config, NULL);

	assert_int_equal(push_once(f, "app", "1", &tar), 0);
	assert_int_equal(fakestore_calls(f->store, FAKE_PUT_BLOB), 2);
	assert_int_equal(push_once(f, "app", "2", &tar), 0);
	assert_int_equal(fakestore_calls(f->store, FAKE_PUT_BLOB), 2);
	assert_true(tag_exists(f, "app", "2"));
}

/* Flips a byte of the layer in the archive. */
static void damage(struct buf *tar, const struct buf *layer)
{
	char *at = memmem(tar->data, tar->len, layer->data + 512, 64);

	assert_non_null(at);
	at[5] ^= 1;
}

static void wrong_digest_is_refused(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf layer = make_layer("file", 2 * MIB);
	AUTO_FREE char *config = make_config(&layer, 1);
	AUTO_BUF struct buf tar = oci_archive(&layer, config, NULL);
	char words[DIGEST_STR_MAX + 32], hex[DIGEST_STR_MAX];

	hex_of(layer.data, layer.len, hex);
	snprintf(words, sizeof(words), "blob sha256:%s has the digest", hex);
	damage(&tar, &layer);
	assert_refused(f, "app", &tar, -EINVAL, words);
	/* also where the store has it, and need not be sent it */
	fakestore_add_blob(f->store, "app", layer.data, layer.len, NULL);
	assert_refused(f, "app", &tar, -EINVAL, words);
	assert_false(tag_exists(f, "app", "1"));
}

static void wrong_diff_id_of_a_blob_is_refused(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf tar = make_layer("file", 3 * MIB);
	AUTO_BUF struct buf other = make_layer("file", 10);
	AUTO_FREE char *right = make_config(&tar, 1), *wrong = make_config(&other, 1);
	char words[2 * DIGEST_STR_MAX + 64], found[DIGEST_STR_MAX], wanted[DIGEST_STR_MAX];

	hex_of(tar.data, tar.len, found);
	hex_of(other.data, other.len, wanted);
	snprintf(words, sizeof(words),
		 "layer 1 unpacks to sha256:%s, the image's config says sha256:%s", found, wanted);
	for (enum codec codec = CODEC_PLAIN; codec <= CODEC_ZSTD; codec++) {
		AUTO_BUF struct buf layer = encode(codec, &tar);
		AUTO_BUF struct buf bad = oci_archive(&layer, wrong, NULL);
		assert_refused(f, "app", &bad, -EINVAL, words);
		assert_false(tag_exists(f, "app", "1"));
	}
	for (enum codec codec = CODEC_PLAIN; codec <= CODEC_ZSTD; codec++) {
		AUTO_BUF struct buf layer = encode(codec, &tar);
		AUTO_BUF struct buf good = oci_archive(&layer, right, NULL);
		AUTO_BUF struct buf vague = oci_archive(&layer, "{}", NULL);
		assert_int_equal(push_once(f, "good", "1", &good), 0);
		assert_int_equal(push_once(f, "vague", "1", &vague), 0);
	}
}

static void layer_that_cannot_be_unpacked_is_refused(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf tar = make_layer("file", 3 * MIB);
	AUTO_FREE char *config = make_config(&tar, 1);

	for (enum codec codec = CODEC_GZIP; codec <= CODEC_ZSTD; codec++) {
		AUTO_BUF struct buf layer = encode(codec, &tar);
		layer.len -= 5;
		AUTO_BUF struct buf cut = oci_archive(&layer, config, NULL);
		assert_refused(f, "app", &cut, -EINVAL, "cannot be unpacked");
	}
	const struct buf two[] = {tar, tar};
	AUTO_FREE char *more = make_config(two, 2);
	AUTO_BUF struct buf many = oci_archive(&tar, more, NULL);
	assert_refused(f, "app", &many, -EINVAL, "1 layers, the image's config names 2");
	AUTO_BUF struct buf odd = oci_archive(&tar, "no JSON", NULL);
	assert_refused(f, "app", &odd, -EINVAL, "config cannot be used");
}

/* A gzip or zstd bomb, in each of the places where something is unpacked. */
static void what_unpacks_to_too_much_is_refused(void **state)
{
	struct fixture *f = *state;
	struct buf tar = BUF_INIT(ARCHIVE_MAX);
	AUTO_FREE char *zeros = calloc(1, 48 * MIB);

	add_file(&tar, "zeros", zeros, 48 * MIB);
	finish(&tar);
	AUTO_FREE char *config = make_config(&tar, 1);
	AUTO_BUF struct buf layer = encode(CODEC_ZSTD, &tar);
	AUTO_BUF struct buf oci = oci_archive(&layer, config, NULL);
	AUTO_BUF struct buf docker = docker_archive(&layer, 1, config, "null");
	assert_true(layer.len * PUSH_RATIO_MAX < 40 * MIB);
	f->pushes->unpack_free = 0;
	assert_refused(f, "app", &oci, -EINVAL, "unpacks to more");
	assert_refused(f, "app", &docker, -EINVAL, "unpacks to more");
	assert_refused(f, "app", &layer, -EFBIG, "too large");
	f->pushes->unpack_free = PUSH_RATIO_FREE;
	assert_int_equal(push_once(f, "app", "1", &oci), 0);
	assert_int_equal(push_once(f, "app", "2", &docker), 0);
	buf_release(&tar);
}

/* --- layers that were seen before --- */

/* How many layers are unpacked while ARCHIVE is pushed with VERDICT. */
static int64_t unpacked_by(struct fixture *f, const char *repo, const struct buf *archive,
			   int verdict)
{
	int64_t before = stats_get(STAT_PUSH_LAYERS_UNPACKED);

	assert_int_equal(push_once(f, repo, "1", archive), verdict);
	return stats_get(STAT_PUSH_LAYERS_UNPACKED) - before;
}

static void known_layer_is_not_unpacked(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf tar = make_layer("file", 3 * MIB);
	AUTO_BUF struct buf other = make_layer("file", 10);
	AUTO_FREE char *right = make_config(&tar, 1), *wrong = make_config(&other, 1);
	AUTO_FREE char *dir = format("%s/known", f->dir);
	struct cache *cache = NULL;

	pushes_free(f->pushes);
	assert_int_equal(cache_open(dir, 64 * MIB, &cache), 0);
	f->cache = cache;
	f->pushes = make_pushes(f, CODEC_GZIP);
	for (enum codec codec = CODEC_GZIP; codec <= CODEC_ZSTD; codec++) {
		AUTO_BUF struct buf layer = encode(codec, &tar);
		AUTO_BUF struct buf good = oci_archive(&layer, right, NULL);
		AUTO_BUF struct buf bad = oci_archive(&layer, wrong, NULL);
		AUTO_BUF struct buf spoilt = oci_archive(&layer, right, NULL);
		/* What is refused was seen too. */
		assert_int_equal(unpacked_by(f, "bad", &bad, -EINVAL), 1);
		assert_int_equal(unpacked_by(f, "bad", &bad, -EINVAL), 0);
		assert_int_equal(unpacked_by(f, "good", &good, 0), 0);
		assert_int_equal(unpacked_by(f, "again", &good, 0), 0);
		damage(&spoilt, &layer);
		assert_int_equal(unpacked_by(f, "good", &spoilt, -EINVAL), 0);
	}
	/* One that was compressed here. */
	AUTO_BUF struct buf saved = docker_archive(&other, 1, wrong, "null");
	assert_int_equal(push_once(f, "saved", "1", &saved), 0);
	CLEANUP(oci_manifest_release) struct oci_manifest parsed = {0};
	struct store_manifest manifest = manifest_of(f, "saved", "1");
	const char *why;
	assert_int_equal(
		oci_manifest_parse(manifest.bytes.data, manifest.bytes.len, NULL, &parsed, &why),
		0);
	store_manifest_release(&manifest);
	AUTO_BUF struct buf made = blob_of(f, "saved", &parsed.layers[0].digest);
	AUTO_BUF struct buf same = oci_archive(&made, wrong, NULL);
	assert_int_equal(unpacked_by(f, "same", &same, 0), 0);
	pushes_free(f->pushes);
	f->cache = NULL;
	f->pushes = make_pushes(f, CODEC_GZIP);
	assert_int_equal(unpacked_by(f, "same", &same, 0), 1);
	cache_close(cache);
}

static void index_brings_its_children(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf layer = make_layer("arm", 100);
	AUTO_FREE char *config = make_config(&layer, 1);
	AUTO_FREE char *child = oci_manifest(&layer, config);
	AUTO_BUF struct buf tar = BUF_INIT(ARCHIVE_MAX);
	AUTO_BUF struct buf children = BUF_INIT(64 * KIB), entries = BUF_INIT(64 * KIB);
	struct digest digest;
	char digest_str[DIGEST_STR_MAX];

	add_entry(&children, OCI_TYPE_MANIFEST, child, NULL);
	AUTO_FREE char *index = format("{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_INDEX
				       "\",\"manifests\":[%s]}",
				       children.data);
	add_entry(&entries, OCI_TYPE_INDEX, index, NULL);
	add_blob(&tar, index, strlen(index));
	add_blob(&tar, child, strlen(child));
	add_blob(&tar, layer.data, layer.len);
	add_blob(&tar, config, strlen(config));
	add_layout(&tar, &entries);
	assert_int_equal(push_once(f, "app", "multi", &tar), 0);
	struct store_manifest manifest = manifest_of(f, "app", "multi");
	assert_string_equal(manifest.bytes.data, index);
	store_manifest_release(&manifest);
	digest_of(DIGEST_SHA256, child, strlen(child), &digest);
	manifest = manifest_of(f, "app", digest_format(&digest, digest_str));
	assert_string_equal(manifest.bytes.data, child);
	store_manifest_release(&manifest);
}

/* --- docker save --- */

static void check_docker(struct fixture *f, enum codec compress, const char *manifest_type,
			 const char *layer_type)
{
	struct buf layers[2] = {make_layer("a", 5 * MIB + 123), make_layer("b", 10)};
	AUTO_FREE char *config = make_config(layers, 2);
	AUTO_BUF struct buf tar = docker_archive(layers, 2, config, "null");
	CLEANUP(oci_manifest_release) struct oci_manifest parsed = {0};
	struct digest id;
	const char *why;

	pushes_free(f->pushes);
	f->pushes = make_pushes(f, compress);
	assert_int_equal(push_once(f, "app", "1", &tar), 0);
	struct store_manifest manifest = manifest_of(f, "app", "1");
	assert_int_equal(
		oci_manifest_parse(manifest.bytes.data, manifest.bytes.len, NULL, &parsed, &why),
		0);
	store_manifest_release(&manifest);
	assert_string_equal(parsed.media_type, manifest_type);
	digest_of(DIGEST_SHA256, config, strlen(config), &id);
	assert_true(digest_equal(&parsed.config.digest, &id));
	assert_int_equal(parsed.nlayers, 2);
	for (size_t i = 0; i < 2; i++) {
		AUTO_BUF struct buf blob = blob_of(f, "app", &parsed.layers[i].digest);
		assert_int_equal(codec_detect(blob.data, blob.len), compress);
		assert_int_equal(parsed.layers[i].size, blob.len);
		assert_string_equal(parsed.layers[i].media_type, layer_type);
		AUTO_BUF struct buf decoded = decode(compress, &blob);
		assert_same(&decoded, &layers[i]);
		buf_release(&layers[i]);
	}
}

static void docker_layers_become_gzip(void **state)
{
	check_docker(*state, CODEC_GZIP, DOCKER_TYPE_MANIFEST, DOCKER_TYPE_LAYER_GZIP);
}

static void docker_layers_become_zstd(void **state)
{
	check_docker(*state, CODEC_ZSTD, OCI_TYPE_MANIFEST, OCI_TYPE_LAYER_ZSTD);
}

static void docker_layers_stay_plain(void **state)
{
	check_docker(*state, CODEC_PLAIN, DOCKER_TYPE_MANIFEST, DOCKER_TYPE_LAYER);
}

static void layer_that_comes_again_is_sent_once(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf layer = make_layer("a", 100);
	AUTO_BUF struct buf other = make_layer("b", 100);
	const struct buf layers[] = {layer, other, layer};
	AUTO_FREE char *config = make_config(layers, 3);
	AUTO_BUF struct buf tar = docker_archive(layers, 3, config, "null");

	assert_int_equal(push_once(f, "app", "1", &tar), 0);
	assert_int_equal(fakestore_calls(f->store, FAKE_PUT_BLOB), 3);
	assert_int_equal(fakestore_calls(f->store, FAKE_HAS_BLOB), 3);
	struct store_manifest manifest = manifest_of(f, "app", "1");
	CLEANUP(oci_manifest_release) struct oci_manifest parsed = {0};
	const char *why;
	assert_int_equal(
		oci_manifest_parse(manifest.bytes.data, manifest.bytes.len, NULL, &parsed, &why),
		0);
	assert_int_equal(parsed.nlayers, 3);
	assert_true(digest_equal(&parsed.layers[0].digest, &parsed.layers[2].digest));
	store_manifest_release(&manifest);
}

static void compressed_layer_is_sent_as_it_is(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf layer = make_layer("a", 3 * MIB);
	AUTO_BUF struct buf packed = encode(CODEC_GZIP, &layer);
	AUTO_FREE char *config = make_config(&layer, 1);
	AUTO_BUF struct buf tar = docker_archive(&packed, 1, config, "null");
	struct digest digest;

	assert_int_equal(push_once(f, "app", "1", &tar), 0);
	digest_of(DIGEST_SHA256, packed.data, packed.len, &digest);
	AUTO_BUF struct buf sent = blob_of(f, "app", &digest);
	assert_same(&sent, &packed);
}

static void wrong_diff_id_is_refused(void **state)
{
	struct fixture *f = *state;
	struct buf layers[2] = {make_layer("a", 10), make_layer("b", 2 * MIB)};
	AUTO_FREE char *config = make_config(layers, 2);
	AUTO_BUF struct buf tar = docker_archive(layers, 2, config, "null");
	AUTO_FREE char *short_config = make_config(layers, 1);
	AUTO_BUF struct buf odd = docker_archive(layers, 2, short_config, "null");

	damage(&tar, &layers[1]);
	assert_refused(f, "app", &tar, -EINVAL, "layer 2 is sha256:");
	assert_refused(f, "app", &odd, -EINVAL, "2 layers");
	pushes_free(f->pushes);
	f->pushes = make_pushes(f, CODEC_PLAIN);
	assert_refused(f, "app", &tar, -EINVAL, "layer 2 is sha256:");
	buf_release(&layers[0]);
	buf_release(&layers[1]);
}

/* --- when an archive is whole --- */

static void empty_file_is_nothing(void **state)
{
	struct fixture *f = *state;
	struct push *push = begin(f, "app", "1");

	assert_int_equal(push_flush(push, &f->wait), 0);
	push_write(push, 0, "no archive", 10, &f->wait);
	assert_int_equal(push_flush(push, &f->wait), -EINVAL);
	assert_int_equal(push_truncate(push, 0), 0);
	assert_int_equal(push_flush(push, &f->wait), 0);
	assert_int_equal(fakestore_calls(f->store, FAKE_PUT_MANIFEST), 0);
	push_unref(push);
}

static void unfinished_archive_is_kept(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf layer = make_layer("file", 100 * KIB);
	AUTO_FREE char *config = make_config(&layer, 1);
	AUTO_BUF struct buf tar = docker_archive(&layer, 1, config, "null");
	struct push *push = begin(f, "app", "1");
	struct push_status status;

	/* in the middle of a member, between members, before the end marker */
	const size_t cuts[] = {5000, 512 + layer.len, tar.len - TAR_TRAILER};
	size_t written = 0;
	for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
		push_write(push, written, tar.data + written, cuts[i] - written, &f->wait);
		written = cuts[i];
		assert_int_equal(push_flush(push, &f->wait), -EINVAL);
		assert_reason(push, -EINVAL, "not finished");
	}
	push_write(push, written, tar.data + written, tar.len - written, &f->wait);
	push_status(push, &status);
	assert_int_equal(status.state, PUSH_WRITING);
	assert_int_equal(push_flush(push, &f->wait), 0);
	assert_true(tag_exists(f, "app", "1"));
	push_unref(push);
}

static void check_compressed(struct fixture *f, enum codec codec)
{
	AUTO_BUF struct buf layer = make_layer("file", 3 * MIB);
	AUTO_FREE char *config = make_config(&layer, 1);
	AUTO_BUF struct buf tar = docker_archive(&layer, 1, config, "null");
	AUTO_BUF struct buf packed = encode(codec, &tar);
	struct push *push = begin(f, "app", "1");

	push_write(push, 0, packed.data, packed.len - 3, &f->wait);
	assert_int_equal(push_flush(push, &f->wait), -EINVAL);
	assert_reason(push, -EINVAL, "not finished");
	push_write(push, packed.len - 3, packed.data + packed.len - 3, 3, &f->wait);
	assert_int_equal(push_flush(push, &f->wait), 0);
	assert_true(tag_exists(f, "app", "1"));
	push_unref(push);
}

static void gzip_archive_is_unpacked(void **state)
{
	check_compressed(*state, CODEC_GZIP);
}

static void zstd_archive_is_unpacked(void **state)
{
	check_compressed(*state, CODEC_ZSTD);
}

static void garbage_is_refused(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf noise = BUF_INIT(MIB), empty = BUF_INIT(MIB);

	for (unsigned i = 0; i < 1000; i++)
		buf_puts(&noise, "this is no archive ");
	assert_refused(f, "app", &noise, -EINVAL, "");
	finish(&empty);
	assert_refused(f, "app", &empty, -EINVAL, "");
}

static void order_of_writes_does_not_matter(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf layer = make_layer("file", 300 * KIB);
	AUTO_FREE char *config = make_config(&layer, 1);
	AUTO_BUF struct buf tar = docker_archive(&layer, 1, config, "null");
	struct push *push = begin(f, "app", "1");
	char back[100];

	assert_int_equal(push_write(push, tar.len, "trailing", 8, &f->wait), 8);
	for (size_t end = tar.len; end > 0;) {
		size_t start = end > 40000 ? end - 40000 : 0;
		push_write(push, start, tar.data + start, end - start, &f->wait);
		end = start;
	}
	assert_int_equal(push_size(push), tar.len + 8);
	assert_int_equal(push_truncate(push, tar.len), 0);
	assert_int_equal(push_size(push), tar.len);
	assert_int_equal(push_read(push, 1000, back, sizeof(back)), sizeof(back));
	assert_memory_equal(back, tar.data + 1000, sizeof(back));
	assert_int_equal(push_flush(push, &f->wait), 0);
	assert_int_equal(push_write(push, UINT64_MAX - 2, "x", 1, &f->wait), -EFBIG);
	assert_int_equal(push_truncate(push, UINT64_MAX), -EFBIG);
	push_unref(push);
}

/* --- verdicts --- */

static void verdict_is_repeated(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf layer = make_layer("file", 10);
	AUTO_FREE char *config = make_config(&layer, 1);
	AUTO_BUF struct buf tar = oci_archive(&layer, config, NULL);
	struct push *push = begin(f, "app", "1");

	write_all(f, push, &tar);
	fakestore_fail(f->store, FAKE_PUT_MANIFEST, -EACCES);
	assert_int_equal(push_flush(push, &f->wait), -EACCES);
	fakestore_fail(f->store, FAKE_PUT_MANIFEST, 0);
	assert_int_equal(push_flush(push, &f->wait), -EACCES);
	assert_int_equal(fakestore_calls(f->store, FAKE_PUT_MANIFEST), 1);
	write_all(f, push, &tar);
	assert_int_equal(push_flush(push, &f->wait), 0);
	assert_int_equal(push_flush(push, &f->wait), 0);
	assert_int_equal(fakestore_calls(f->store, FAKE_PUT_MANIFEST), 2);
	push_unref(push);
}

static void error_of_one_blob_ends_the_push(void **state)
{
	struct fixture *f = *state;
	struct buf layers[] = {make_layer("a", 2 * MIB), make_layer("b", 100), make_layer("c", 7)};
	AUTO_FREE char *config = make_config(layers, 3);
	AUTO_BUF struct buf tar = docker_archive(layers, 3, config, "null");

	fakestore_fail(f->store, FAKE_PUT_BLOB, -EDQUOT);
	/* the disk's quota and the registry's are told apart by the room that met them */
	struct push *push = begin(f, "app", "1");
	write_all(f, push, &tar);
	assert_int_equal(push_flush(push, &f->wait), -EDQUOT);
	assert_reason(push, -EDQUOT, "sending sha256:");
	push_unref(push);
	fakestore_fail(f->store, FAKE_PUT_BLOB, 0);
	fakestore_fail(f->store, FAKE_HAS_BLOB, -EHOSTUNREACH);
	assert_refused(f, "app", &tar, -EHOSTUNREACH, "sending sha256:");
	for (size_t i = 0; i < 3; i++)
		buf_release(&layers[i]);
}

struct flusher {
	struct push *push;
	struct wait wait;
	int verdict;
	pthread_t thread;
};

static void *flusher_run(void *arg)
{
	struct flusher *flusher = arg;

	flusher->verdict = push_flush(flusher->push, &flusher->wait);
	return NULL;
}

static void flusher_start(struct flusher *flusher, struct push *push)
{
	flusher->push = push;
	wait_init(&flusher->wait, true);
	assert_int_equal(pthread_create(&flusher->thread, NULL, flusher_run, flusher), 0);
}

static int flusher_join(struct flusher *flusher)
{
	pthread_join(flusher->thread, NULL);
	wait_release(&flusher->wait);
	return flusher->verdict;
}

static void push_is_called_off(void **state)
{
	struct fixture *f = *state;
	struct buf layers[] = {make_layer("a", 2 * MIB), make_layer("b", 100)};
	AUTO_FREE char *config = make_config(layers, 2);
	AUTO_BUF struct buf tar = docker_archive(layers, 2, config, "null");
	struct push *push = begin(f, "app", "1");
	struct flusher flusher;
	char byte = 0;

	write_all(f, push, &tar);
	fakestore_stall(f->store, FAKE_PUT_BLOB);
	flusher_start(&flusher, push);
	fakestore_await_stalled(f->store, 2);
	ssize_t put = push_write(push, 0, &byte, 1, &f->wait);
	int cut = push_truncate(push, 0);
	wait_cancel(&flusher.wait);
	assert_int_equal(flusher_join(&flusher), -EINTR);
	assert_int_equal(put, -EBUSY);
	assert_int_equal(cut, -EBUSY);
	assert_reason(push, -EINTR, "called off");
	assert_int_equal(fakestore_calls(f->store, FAKE_PUT_MANIFEST), 0);
	fakestore_release(f->store);
	/* Nothing was judged: the next close tries again. */
	assert_int_equal(push_flush(push, &f->wait), 0);
	push_unref(push);
	buf_release(&layers[0]);
	buf_release(&layers[1]);
}

static void killed_writer_publishes_nothing(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf layer = make_layer("file", 10);
	AUTO_FREE char *config = make_config(&layer, 1);
	AUTO_BUF struct buf tar = oci_archive(&layer, config, NULL);
	struct wait hasty;
	struct push *push = begin(f, "app", "1");

	write_all(f, push, &tar);
	wait_init(&hasty, false);
	assert_int_equal(push_flush(push, &hasty), -EWOULDBLOCK);
	wait_cancel(&hasty);
	assert_int_equal(push_flush(push, &hasty), -EINTR);
	wait_release(&hasty);
	assert_int_equal(fakestore_calls(f->store, FAKE_HAS_BLOB), 0);
	push_unref(push);
}

static void flushes_at_once_share_a_verdict(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf layer = make_layer("file", 10);
	AUTO_FREE char *config = make_config(&layer, 1);
	AUTO_BUF struct buf tar = oci_archive(&layer, config, NULL);
	struct push *push = begin(f, "app", "1");
	struct flusher flushers[4];

	write_all(f, push, &tar);
	fakestore_stall(f->store, FAKE_PUT_MANIFEST);
	for (size_t i = 0; i < ARRAY_SIZE(flushers); i++)
		flusher_start(&flushers[i], push);
	fakestore_await_stalled(f->store, 1);
	fakestore_release(f->store);
	for (size_t i = 0; i < ARRAY_SIZE(flushers); i++)
		assert_int_equal(flusher_join(&flushers[i]), 0);
	assert_int_equal(fakestore_calls(f->store, FAKE_PUT_MANIFEST), 1);
	push_unref(push);
}

/* --- names --- */

static void names_of_the_archive_lead(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf layer = make_layer("file", 10);
	AUTO_FREE char *config = make_config(&layer, 1);
	AUTO_BUF struct buf tar = docker_archive(
		&layer, 1, config,
		"[\"docker.io/library/alpine:3\",\"busybox:1\","
		"\"other.example:5000/team/app:1.6\",\"localhost/x:2\"]");

	assert_int_equal(push_once(f, NULL, NULL, &tar), 0);
	assert_true(tag_exists(f, "alpine", "3"));
	assert_true(tag_exists(f, "busybox", "1"));
	assert_true(tag_exists(f, "team/app", "1.6"));
	assert_true(tag_exists(f, "x", "2"));
}

static void docker_hub_keeps_its_library(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf layer = make_layer("file", 10);
	AUTO_FREE char *config = make_config(&layer, 1);
	AUTO_BUF struct buf tar = docker_archive(&layer, 1, config, "[\"alpine:3\"]");

	store_free(f->store);
	f->store = fakestore_new("docker.io");
	assert_int_equal(push_once(f, NULL, NULL, &tar), 0);
	assert_true(tag_exists(f, "library/alpine", "3"));
}

static void name_without_repository_is_refused(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf layer = make_layer("file", 10);
	AUTO_FREE char *config = make_config(&layer, 1);
	AUTO_BUF struct buf tag_only = oci_archive(&layer, config, "1.5");
	AUTO_BUF struct buf nameless = oci_archive(&layer, config, NULL);
	AUTO_BUF struct buf full = oci_archive(&layer, config, "ghcr.io/acme/web:1.5");
	AUTO_BUF struct buf invalid = oci_archive(&layer, config, "Bad/Name:1");

	assert_refused(f, NULL, &tag_only, -EINVAL, "'1.5' has no repository");
	assert_refused(f, NULL, &nameless, -EINVAL, "no name");
	assert_refused(f, NULL, &invalid, -EINVAL, "'Bad/Name:1'");
	assert_int_equal(push_once(f, NULL, NULL, &full), 0);
	assert_true(tag_exists(f, "acme/web", "1.5"));
}

static void one_tag_takes_one_image(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf layer = make_layer("file", 10);
	AUTO_FREE char *config = make_config(&layer, 1);
	AUTO_BUF struct buf tar = BUF_INIT(ARCHIVE_MAX);

	add_file(&tar, "l/layer.tar", layer.data, layer.len);
	add_text(&tar, "c.json", config);
	add_text(&tar, "manifest.json",
		 "[{\"Config\":\"c.json\",\"RepoTags\":[\"a:1\"],\"Layers\":[\"l/layer.tar\"]},"
		 "{\"Config\":\"c.json\",\"RepoTags\":[\"team/b:2\"],\"Layers\":[\"l/"
		 "layer.tar\"]}]");
	finish(&tar);
	assert_refused(f, "app", &tar, -EINVAL, "a:1, team/b:2");
	assert_int_equal(push_once(f, NULL, NULL, &tar), 0);
	assert_true(tag_exists(f, "a", "1"));
	assert_true(tag_exists(f, "team/b", "2"));
}

/* --- what is shown, and left --- */

static void pushes_are_listed(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf text = BUF_INIT(64 * KIB), noise = BUF_INIT(KIB);
	struct push *push = begin(f, "app", "1");

	buf_puts(&noise, "no archive");
	write_all(f, push, &noise);
	assert_int_equal(pushes_text(f->pushes, &text), 0);
	assert_string_equal(text.data, "label 0 10 writing\n");
	push_flush(push, &f->wait);
	push_unref(push);
	buf_clear(&text);
	assert_int_equal(pushes_text(f->pushes, &text), 0);
	assert_true(starts_with(text.data, "label 0 10 failed "));
	assert_null(strchr(strchr(text.data, '\n') + 1, '\n'));
	/* a file that was never flushed is not remembered */
	push_unref(begin(f, "app", "1"));
	buf_clear(&text);
	pushes_text(f->pushes, &text);
	assert_null(strstr(text.data, "writing"));
}

static void spool_leaves_no_name(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf layer = make_layer("file", 3 * MIB);
	AUTO_FREE char *config = make_config(&layer, 1);
	AUTO_BUF struct buf tar = docker_archive(&layer, 1, config, "null");
	struct push *push = begin(f, "app", "1");
	struct dirent *entry;
	struct flusher flusher;
	unsigned names = 0;

	write_all(f, push, &tar);
	fakestore_stall(f->store, FAKE_PUT_BLOB);
	flusher_start(&flusher, push);
	fakestore_await_stalled(f->store, 1);
	DIR *dir = opendir(f->spool);
	while (dir && (entry = readdir(dir)))
		names += entry->d_name[0] != '.';
	fakestore_release(f->store);
	assert_int_equal(flusher_join(&flusher), 0);
	assert_non_null(dir);
	closedir(dir);
	assert_int_equal(names, 0);
	push_unref(push);
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd >= 0) {
		(void)!write(fd, text, strlen(text));
		close(fd);
	}
}

/* A mount of our own, without being root: in a user namespace that knows us alone. */
static bool mount_small_spool(const char *path)
{
	AUTO_FREE char *uids = format("0 %u 1", getuid());
	AUTO_FREE char *gids = format("0 %u 1", getgid());

	if (unshare(CLONE_NEWUSER | CLONE_NEWNS))
		return false;
	write_file("/proc/self/setgroups", "deny");
	write_file("/proc/self/uid_map", uids);
	write_file("/proc/self/gid_map", gids);
	return mount("spool", path, "tmpfs", 0, "size=1m") == 0;
}

static int fill_spool(struct fixture *f)
{
	AUTO_BUF struct buf layer = make_layer("file", 3 * MIB);
	struct push *push = NULL;

	if (push_new(f->pushes, f->store, "app", "1", "label", &push))
		return 2;
	ssize_t begun = push_write(push, 0, layer.data, 512, &f->wait);
	ssize_t put = push_write(push, 512, layer.data + 512, layer.len - 512, &f->wait);
	int verdict = push_flush(push, &f->wait);
	push_unref(push);
	return begun > 0 && put == -ENOSPC && verdict == -ENOSPC ? 0 : 1;
}

static void full_disk_is_enospc(void **state)
{
	struct fixture *f = *state;
	int status = 0;

	pid_t pid = fork();
	if (pid == 0) {
		make_dirs(f->spool, 0700);
		if (!mount_small_spool(f->spool))
			_exit(77);
		_exit(fill_spool(f));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* --- the archives of others --- */

/* What skopeo makes of an image of ours is pushed again, and has the same ID. */
static void archives_of_skopeo_are_taken(void **state)
{
	struct fixture *f = *state;
	static const char *const kinds[] = {"docker-archive", "oci-archive"};
	struct buf layers[] = {make_layer("a", 2 * MIB), make_layer("b", 100)};
	AUTO_FREE char *config = make_config(layers, 2);
	AUTO_BUF struct buf tar = docker_archive(layers, 2, config, "null");
	struct digest id;
	const char *why;

	if (system("skopeo --version >/dev/null 2>&1"))
		skip();
	AUTO_FREE char *root = format("%s/store", f->dir);
	store_free(f->store);
	assert_int_equal(layout_new(root, "local", &f->store), 0);
	assert_int_equal(push_once(f, "team/app", "1", &tar), 0);
	digest_of(DIGEST_SHA256, config, strlen(config), &id);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		AUTO_BUF struct buf bytes = BUF_INIT(ARCHIVE_MAX);
		CLEANUP(oci_manifest_release) struct oci_manifest parsed = {0};
		AUTO_FREE char *command = format(
			"skopeo copy -q --insecure-policy oci:%s/team/app:1 %s:%s/a%zu.tar:x:9",
			root, kinds[i], f->dir, i);
		assert_int_equal(system(command), 0);
		AUTO_FREE char *path = format("%s/a%zu.tar", f->dir, i);
		bytes.data = NULL;
		assert_int_equal(read_file(path, ARCHIVE_MAX, &bytes.data, &bytes.len), 0);
		assert_int_equal(push_once(f, "again", kinds[i], &bytes), 0);
		assert_int_equal(push_once(f, NULL, NULL, &bytes), 0);
		struct store_manifest manifest = manifest_of(f, "again", kinds[i]);
		assert_int_equal(oci_manifest_parse(manifest.bytes.data, manifest.bytes.len, NULL,
						    &parsed, &why),
				 0);
		assert_true(digest_equal(&parsed.config.digest, &id));
		store_manifest_release(&manifest);
		assert_true(tag_exists(f, "x", "9"));
	}
	buf_release(&layers[0]);
	buf_release(&layers[1]);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(oci_archive_keeps_every_digest),
		TEST(blobs_that_are_there_are_not_sent),
		TEST(wrong_digest_is_refused),
		TEST(wrong_diff_id_of_a_blob_is_refused),
		TEST(layer_that_cannot_be_unpacked_is_refused),
		TEST(what_unpacks_to_too_much_is_refused),
		TEST(known_layer_is_not_unpacked),
		TEST(index_brings_its_children),
		TEST(docker_layers_become_gzip),
		TEST(docker_layers_become_zstd),
		TEST(docker_layers_stay_plain),
		TEST(layer_that_comes_again_is_sent_once),
		TEST(compressed_layer_is_sent_as_it_is),
		TEST(wrong_diff_id_is_refused),
		TEST(empty_file_is_nothing),
		TEST(unfinished_archive_is_kept),
		TEST(gzip_archive_is_unpacked),
		TEST(zstd_archive_is_unpacked),
		TEST(garbage_is_refused),
		TEST(order_of_writes_does_not_matter),
		TEST(verdict_is_repeated),
		TEST(error_of_one_blob_ends_the_push),
		TEST(push_is_called_off),
		TEST(killed_writer_publishes_nothing),
		TEST(flushes_at_once_share_a_verdict),
		TEST(names_of_the_archive_lead),
		TEST(docker_hub_keeps_its_library),
		TEST(name_without_repository_is_refused),
		TEST(one_tag_takes_one_image),
		TEST(pushes_are_listed),
		TEST(spool_leaves_no_name),
		TEST(full_disk_is_enospc),
		TEST(archives_of_skopeo_are_taken),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
