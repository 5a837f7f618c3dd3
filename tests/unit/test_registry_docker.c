/* SPDX-License-Identifier: Apache-2.0 */
/* test_registry_docker: the registry store against a real docker-registry, plain and over TLS.
 * Skipped where it is not installed. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "regfs/oci.h"
#include "registry_help.h"

static struct server docker;
static char certs[64];
static struct hosts *hosts;

/* The server is started for each test, so that each sees an empty registry. */
static int start(const struct server_docker *options, struct registry_options registry)
{
	int err = server_start_docker(&docker, options);
	if (err)
		return err == -ENOENT ? 0 : err;
	help.http = http_new(&(struct http_options){.timeout_ms = HELP_TIMEOUT_MS});
	help.store = help_store(docker.host, registry);
	wait_init(&help.wait, true);
	return 0;
}

static int setup_plain(void **state)
{
	(void)state;
	return start(&(struct server_docker){.with_delete = true}, (struct registry_options){0});
}

static int setup_tls(void **state)
{
	(void)state;
	int err = server_make_dir(certs);
	err = err ? err : server_make_cert(certs);
	AUTO_FREE char *cacert = format("%s/cert.pem", certs);
	if (err)
		return err;
	hosts = hosts_new(&(struct hosts_options){.cacert = cacert});
	return start(&(struct server_docker){.tls_dir = certs},
		     (struct registry_options){.hosts = hosts});
}

static int teardown(void **state)
{
	if (docker.pid > 0)
		help_teardown(state);
	hosts_free(STEAL(hosts));
	server_stop(&docker);
	if (certs[0])
		server_remove_dir(certs);
	certs[0] = '\0';
	return 0;
}

static void need_docker(void)
{
	if (docker.pid <= 0)
		skip();
}

/* ---- what the tests push ---- */

static int put_bytes(const char *repo, const char *bytes, size_t len, struct digest *ret,
		     const char *from)
{
	struct store_bytes data = {bytes, len};
	const struct store_source source = {.read = store_bytes_read, .arg = &data, .size = len};
	digest_of(DIGEST_SHA256, bytes, len, ret);
	const struct store_put put = {.digest = ret, .source = &source, .mount_from = from};
	return help.store->ops->put_blob(help.store, repo, &put, &help.wait);
}

/* An image without layers; its manifest's digest. */
static struct digest push(const char *repo, const char *tag, const char *config)
{
	struct digest digest;
	char text[DIGEST_STR_MAX];
	assert_int_equal(put_bytes(repo, config, strlen(config), &digest, NULL), 0);
	AUTO_FREE char *manifest = format(
		"{\"schemaVersion\": 2, \"mediaType\": \"" OCI_TYPE_MANIFEST "\","
		" \"config\": {\"mediaType\": \"" OCI_TYPE_CONFIG "\", \"size\": %zu,"
		" \"digest\": \"%s\"}, \"layers\": []}",
		strlen(config), digest_format(&digest, text));
	assert_int_equal(help.store->ops->put_manifest(help.store, repo, tag, OCI_TYPE_MANIFEST,
						       manifest, strlen(manifest), &help.wait),
			 0);
	digest_of(DIGEST_SHA256, manifest, strlen(manifest), &digest);
	return digest;
}

static int on_name(void *arg, const char *name)
{
	(void)name;
	++*(int *)arg;
	return 0;
}

/* ---- tests ---- */

static void round_trip(void)
{
	const struct store_ops *ops = help.store->ops;
	assert_int_equal(ops->ping(help.store, &help.wait), 0);
	struct digest digest = push("team/app", "1.5", "{}");
	struct digest got;
	assert_int_equal(ops->head(help.store, "team/app", "1.5", &got, &help.wait), 0);
	assert_true(digest_equal(&got, &digest));
	struct store_manifest manifest = {0};
	assert_int_equal(ops->get_manifest(help.store, "team/app", "1.5", &manifest, &help.wait),
			 0);
	assert_true(digest_equal(&manifest.digest, &digest));
	assert_string_equal(manifest.media_type, OCI_TYPE_MANIFEST);
	store_manifest_release(&manifest);
	assert_int_equal(ops->get_manifest(help.store, "team/app", "none", &manifest, &help.wait),
			 -ENOENT);
	int n = 0;
	assert_int_equal(ops->list_tags(help.store, "team/app", on_name, &n, &help.wait), 0);
	assert_int_equal(n, 1);
	assert_int_equal(ops->list_tags(help.store, "none", on_name, &n, &help.wait), -ENOENT);
}

static void a_real_registry_takes_and_gives(void **state)
{
	(void)state;
	need_docker();
	round_trip();
}

static void a_real_registry_over_tls(void **state)
{
	(void)state;
	need_docker();
	round_trip();
	/* Without its certificate there is a sentence, and no falling back to plain HTTP. */
	struct store *stranger = help_store(docker.host, (struct registry_options){0});
	assert_int_equal(stranger->ops->ping(stranger, &help.wait), -EACCES);
	assert_true(help_logged("cacert="));
	store_free(stranger);
	struct store *forced = help_store(docker.host,
					  (struct registry_options){.plain_http = true});
	assert_true(forced->ops->ping(forced, &help.wait) < 0);
	store_free(forced);
}

static void catalogues_are_paged(void **state)
{
	(void)state;
	need_docker();
	/* docker-registry takes n up to 1,000 and gives as many. */
	for (int i = 0; i < 12; i++) {
		char repo[32];
		snprintf(repo, sizeof(repo), "many/r%03d", i);
		push(repo, "1", "{}");
	}
	int n = 0;
	assert_int_equal(help.store->ops->list_repos(help.store, on_name, &n, &help.wait), 0);
	assert_int_equal(n, 12);
}

#define BLOB_SIZE (3 * MIB + 1)

static void blobs_are_sent_and_ranged(void **state)
{
	(void)state;
	need_docker();
	const struct store_ops *ops = help.store->ops;
	AUTO_FREE char *data = malloc(BLOB_SIZE);
	for (size_t i = 0; i < BLOB_SIZE; i++)
		data[i] = (char)help_byte(i);
	struct digest digest;
	uint64_t size = 0;
	assert_int_equal(put_bytes("a/b", data, BLOB_SIZE, &digest, NULL), 0);
	assert_int_equal(ops->has_blob(help.store, "a/b", &digest, &size, &help.wait), 0);
	assert_int_equal(size, BLOB_SIZE);
	assert_int_equal(ops->has_blob(help.store, "c/d", &digest, &size, &help.wait), -ENOENT);
	assert_int_equal(put_bytes("c/d", data, BLOB_SIZE, &digest, "a/b"), 0);
	assert_int_equal(ops->has_blob(help.store, "c/d", &digest, &size, &help.wait), 0);
	struct store_stream *stream = NULL;
	assert_int_equal(
		ops->open_blob(help.store, "a/b", &digest, 1000000, 500000, &stream, &help.wait),
		0);
	assert_int_equal(help_drain(stream, 1000000), 500000);
	store_stream_close(stream);
	assert_int_equal(
		ops->open_blob(help.store, "a/b", &digest, 0, UINT64_MAX, &stream, &help.wait), 0);
	assert_int_equal(help_drain(stream, 0), BLOB_SIZE);
	store_stream_close(stream);
}

static void a_wrong_digest_is_refused(void **state)
{
	(void)state;
	need_docker();
	struct store_bytes data = {"abc", 3};
	const struct store_source source = {.read = store_bytes_read, .arg = &data, .size = 3};
	struct digest digest;
	digest_of(DIGEST_SHA256, "abd", 3, &digest);
	const struct store_put put = {.digest = &digest, .source = &source};
	assert_int_equal(help.store->ops->put_blob(help.store, "a/b", &put, &help.wait), -EINVAL);
}

static void a_manifest_before_its_blobs_is_refused(void **state)
{
	(void)state;
	need_docker();
	static const char manifest[] =
		"{\"schemaVersion\": 2, \"mediaType\": \"" OCI_TYPE_MANIFEST "\", \"config\": "
		"{\"mediaType\": \"" OCI_TYPE_CONFIG "\", \"size\": 2, \"digest\": "
		"\"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\"}, "
		"\"layers\": []}";
	assert_int_equal(help.store->ops->put_manifest(help.store, "a/b", "1", OCI_TYPE_MANIFEST,
						       manifest, strlen(manifest), &help.wait),
			 -EIO);
	assert_true(help_logged("BLOB_UNKNOWN"));
}

static void tags_cannot_be_deleted_alone(void **state)
{
	(void)state;
	need_docker();
	const struct store_ops *ops = help.store->ops;
	struct digest digest = push("team/app", "1.5", "{}");
	struct digest got;
	assert_int_equal(ops->untag(help.store, "team/app", "1.5", &help.wait), -EOPNOTSUPP);
	assert_int_equal(ops->head(help.store, "team/app", "1.5", &got, &help.wait), 0);
	assert_int_equal(ops->delete_manifest(help.store, "team/app", &digest, &help.wait), 0);
	assert_int_equal(ops->head(help.store, "team/app", "1.5", &got, &help.wait), -ENOENT);
}

#define PLAIN(name) cmocka_unit_test_setup_teardown(name, setup_plain, teardown)
#define TLS(name)   cmocka_unit_test_setup_teardown(name, setup_tls, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(a_real_registry_takes_and_gives),
		TLS(a_real_registry_over_tls),
		PLAIN(catalogues_are_paged),
		PLAIN(blobs_are_sent_and_ranged),
		PLAIN(a_wrong_digest_is_refused),
		PLAIN(a_manifest_before_its_blobs_is_refused),
		PLAIN(tags_cannot_be_deleted_alone),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
