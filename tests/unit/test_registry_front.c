/* SPDX-License-Identifier: Apache-2.0 */
/* test_registry_front: mirrors and the origin: who is asked for what, and in whose place. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "regfs/log.h"
#include "regfs/oci.h"
#include "registry_help.h"

#define MANIFEST "{\"schemaVersion\": 2}"
#define NEWER	 "{\"schemaVersion\": 2, \"x\": 1}"

/* help.server is the origin. */
static struct server mirror;
static struct hosts *hosts;
static struct store *store;
static char dir[64];
static const char *const hub[] = {"hub.example", NULL};

static int group_setup(void **state)
{
	int err = help_group_setup(state);
	return err ? err : server_start_bad(&mirror, NULL);
}

static int group_teardown(void **state)
{
	server_stop(&mirror);
	return help_group_teardown(state);
}

static int setup(void **state)
{
	int err = help_setup(state);
	server_order(&mirror, "{\"clear\": true, \"set\": {\"auth\": null, \"repos\": {}}}");
	return err ? err : server_make_dir(dir);
}

static int teardown(void **state)
{
	store_free(STEAL(store));
	hosts_free(STEAL(hosts));
	server_remove_dir(dir);
	return help_teardown(state);
}

static void write_file(const char *name, const char *text)
{
	AUTO_FREE char *path = format("%s/%s", dir, name);
	AUTO_FREE char *parent = strndup(path, (size_t)(strrchr(path, '/') - path));
	assert_int_equal(make_dirs(parent, 0755), 0);
	AUTO_FCLOSE FILE *file = fopen(path, "w");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
}

/* The origin's store, with what was written. */
static void open_store(const char *host)
{
	AUTO_FREE char *conf = format("%s/registries.conf", dir);
	AUTO_FREE char *certs = format("%s/certs.d", dir);
	if (access(conf, F_OK))
		write_file("registries.conf", "");
	hosts = hosts_new(&(struct hosts_options){
		.registries_conf = conf, .certs_dir = certs, .insecure = hub});
	store = help_store(host, (struct registry_options){.hosts = hosts});
}

/* registries.conf: the origin has the mirror; MORE lines for the mirror. */
static void with_mirror(const char *more)
{
	AUTO_FREE char *text = format("[[registry]]\nlocation = \"%s\"\n"
				      "[[registry.mirror]]\nlocation = \"%s/m\"\n%s",
				      help.server.host, mirror.host, more);
	write_file("registries.conf", text);
	open_store(help.server.host);
}

/* The same content on both: at the mirror below m/. */
static struct digest manifest_on(const struct server *server, const char *repo, const char *bytes)
{
	struct digest digest;
	AUTO_BUF struct buf order = BUF_INIT(1 * MIB);
	buf_printf(&order, "{\"repo\": \"%s\", \"tag\": \"1.5\", \"manifest\": ", repo);
	buf_json_string(&order, bytes);
	buf_puts(&order, "}");
	server_order(server, order.data);
	digest_of(DIGEST_SHA256, bytes, strlen(bytes), &digest);
	return digest;
}

static struct digest blob_on_both(uint64_t size)
{
	AUTO_FREE char *order = format("{\"repo\": \"m/team/app\", \"blob\": %llu}",
				       (unsigned long long)size);
	server_order(&mirror, order);
	return help_blob("team/app", size);
}

static int get(const char *ref, struct digest *ret)
{
	struct store_manifest manifest = {0};
	int err = store->ops->get_manifest(store, "team/app", ref, &manifest, &help.wait);
	if (!err)
		*ret = manifest.digest;
	store_manifest_release(&manifest);
	return err;
}

static int head(const char *ref, struct digest *ret)
{
	return store->ops->head(store, "team/app", ref, ret, &help.wait);
}

/* How many bytes of the blob came, right; or a negative errno. */
static ssize_t read_blob(const struct digest *digest)
{
	struct store_stream *stream = NULL;
	int err = store->ops->open_blob(store, "team/app", digest, 0, UINT64_MAX, &stream,
					&help.wait);
	if (err)
		return err;
	ssize_t n = help_drain(stream, 0);
	store_stream_close(stream);
	return n;
}

static int at_origin(const char *regex)
{
	return server_count(&help.server, regex);
}

static int at_mirror(const char *regex)
{
	return server_count(&mirror, regex);
}

/* ---- reading ---- */

static void a_mirror_is_asked_first(void **state)
{
	(void)state;
	with_mirror("");
	struct digest digest = manifest_on(&mirror, "m/team/app", MANIFEST), got;
	struct digest blob = blob_on_both(100000);
	assert_int_equal(get("1.5", &got), 0);
	assert_true(digest_equal(&got, &digest));
	assert_int_equal(head("1.5", &got), 0);
	assert_int_equal(read_blob(&blob), 100000);
	assert_int_equal(at_mirror("m/team/app/(manifests|blobs)"), 3);
	assert_int_equal(at_origin("manifests|blobs"), 0);
}

static void what_a_mirror_lacks_comes_from_the_origin(void **state)
{
	(void)state;
	with_mirror("");
	struct digest digest = manifest_on(&help.server, "team/app", MANIFEST), got;
	struct digest blob = help_blob("team/app", 1000);
	assert_int_equal(get("1.5", &got), 0);
	assert_true(digest_equal(&got, &digest));
	assert_int_equal(read_blob(&blob), 1000);
	assert_int_equal(get("none", &got), -ENOENT);
	assert_int_equal(at_mirror("m/team/app/"), 3);
}

static void a_broken_mirror_is_left_aside_for_a_while(void **state)
{
	(void)state;
	with_mirror("");
	struct digest got;
	manifest_on(&help.server, "team/app", MANIFEST);
	manifest_on(&mirror, "m/team/app", MANIFEST);
	server_rule(&mirror, ".*", "/v2/m", "\"status\": 418");
	assert_int_equal(get("1.5", &got), 0);
	assert_int_equal(at_mirror("m/team/app"), 1);
	assert_true(help_logged("is left aside for 2 s"));
	server_rule(&mirror, ".*", "/v2/m", "\"close\": true");
	assert_int_equal(get("1.5", &got), 0);
	/* Back within seconds, by itself. */
	server_order(&mirror, "{\"clear\": true}");
	int before = at_origin("manifests");
	while (!at_mirror("m/team/app"))
		assert_int_equal(get("1.5", &got), 0);
	assert_true(at_origin("manifests") >= before);
}

/* It is asked after the origin for a while; for others that it lets us read it is not. */
static void a_mirror_that_refuses_is_not_asked_each_time(void **state)
{
	(void)state;
	with_mirror("");
	struct digest got;
	struct digest web = manifest_on(&mirror, "m/web", NEWER);
	manifest_on(&help.server, "team/app", MANIFEST);
	server_rule(&mirror, ".*", "/v2/m/team/", "\"status\": 401");
	for (int i = 0; i < 3; i++)
		assert_int_equal(get("1.5", &got), 0);
	assert_int_equal(at_mirror("m/team/app"), 1);
	assert_int_equal(store->ops->head(store, "web", "1.5", &got, &help.wait), 0);
	assert_true(digest_equal(&got, &web));
}

/* A mirror has a share of a lookup's time, an origin all of it: one host may be both. */
static void a_mirror_may_be_an_origin_elsewhere(void **state)
{
	(void)state;
	AUTO_FREE char *text = format(
		"[[registry]]\nprefix = \"%s/team\"\nlocation = \"%s/team\"\n"
		"[[registry.mirror]]\nlocation = \"%s\"\n"
		"[[registry]]\nprefix = \"%s/prod\"\nlocation = \"%s/prod\"\n",
		help.server.host, help.server.host, mirror.host, help.server.host, mirror.host);
	write_file("registries.conf", text);
	open_store(help.server.host);
	struct digest got;
	manifest_on(&mirror, "app", MANIFEST);
	manifest_on(&mirror, "prod/app", NEWER);
	assert_int_equal(get("1.5", &got), 0);
	assert_int_equal(at_mirror("/v2/app"), 1);
	/* More than the quarter that a mirror gets. */
	server_rule(&mirror, ".*", "/v2/prod", "\"stall\": 1.2");
	assert_int_equal(store->ops->head(store, "prod/app", "1.5", &got, &help.wait), 0);
}

/* Some mirrors that all keep silent take no more of a lookup's time than one would, twice. */
static void silent_mirrors_share_their_time(void **state)
{
	(void)state;
	AUTO_BUF struct buf text = BUF_INIT(4 * KIB);
	struct digest got;
	buf_printf(&text, "[[registry]]\nlocation = \"%s\"\n", help.server.host);
	for (int i = 0; i < 8; i++)
		buf_printf(&text, "[[registry.mirror]]\nlocation = \"%s/m%d\"\n", mirror.host, i);
	write_file("registries.conf", text.data);
	open_store(help.server.host);
	manifest_on(&help.server, "team/app", MANIFEST);
	server_rule(&mirror, "GET", "/v2/m", "\"stall\": 60");
	int64_t begin = now_ms();
	assert_int_equal(get("1.5", &got), 0);
	assert_int_equal(at_mirror("/v2/m./team/app"), 8);
	/* With a quarter for each it would be twice the name timeout. */
	assert_true(now_ms() - begin < HELP_NAME_TIMEOUT_MS * 2 * 9 / 10);
}

static void with_the_origin_gone_even_a_mirror_left_aside_is_tried(void **state)
{
	(void)state;
	with_mirror("");
	struct digest got;
	manifest_on(&mirror, "m/team/app", MANIFEST);
	server_rule(&mirror, "GET", "manifests", "\"status\": 418, \"times\": 1");
	server_rule(&help.server, "GET", "manifests", "\"status\": 418");
	assert_int_equal(get("1.5", &got), -EIO);
	assert_int_equal(get("1.5", &got), 0);
	assert_int_equal(at_origin("manifests"), 2);
	assert_int_equal(at_mirror("m/team/app"), 2);
}

static void a_manifest_that_a_mirror_damaged_is_refused(void **state)
{
	(void)state;
	with_mirror("");
	struct digest digest = manifest_on(&help.server, "team/app", MANIFEST), got;
	manifest_on(&mirror, "m/team/app", MANIFEST);
	server_rule(&mirror, "GET", "manifests", "\"flip\": 5");
	char text[DIGEST_STR_MAX];
	assert_int_equal(get(digest_format(&digest, text), &got), 0);
	assert_true(digest_equal(&got, &digest));
	assert_int_equal(at_origin("GET .*manifests"), 1);
}

static void a_blob_goes_on_elsewhere_where_a_mirror_breaks_off(void **state)
{
	(void)state;
	with_mirror("");
	struct digest blob = blob_on_both(1000000);
	server_rule(&mirror, "GET", "blobs", "\"truncate\": 300000, \"times\": 1");
	server_rule(&mirror, "GET", "blobs", "\"status\": 418");
	assert_int_equal(read_blob(&blob), 1000000);
	char range[64];
	server_header(&help.server, "blobs", "Range", range, sizeof(range));
	assert_string_equal(range, "bytes=300000-");
}

static void a_distrusted_blob_comes_from_the_origin(void **state)
{
	(void)state;
	with_mirror("");
	struct digest blob = blob_on_both(1000);
	unsigned route = atomic_load(&store->route);
	assert_int_equal(read_blob(&blob), 1000);
	assert_int_equal(at_origin("blobs"), 0);
	store_distrust(store, "team/app", &blob);
	assert_int_not_equal(atomic_load(&store->route), route);
	route = atomic_load(&store->route);
	assert_int_equal(read_blob(&blob), 1000);
	assert_int_equal(at_origin("blobs"), 1);
	assert_true(help_logged("came wrong from the mirror"));
	/* The origin's own fault has no way around it. */
	store_distrust(store, "team/app", &blob);
	assert_int_equal(atomic_load(&store->route), route);
}

static void tags_come_from_where_the_configuration_says(void **state)
{
	(void)state;
	with_mirror("pull-from-mirror = \"digest-only\"\n");
	struct digest newer = manifest_on(&help.server, "team/app", NEWER), got;
	struct digest older = manifest_on(&mirror, "m/team/app", MANIFEST);
	assert_int_equal(get("1.5", &got), 0);
	assert_true(digest_equal(&got, &newer));
	assert_int_equal(head("1.5", &got), 0);
	assert_true(digest_equal(&got, &newer));
	assert_int_equal(at_mirror("m/team"), 0);
	char text[DIGEST_STR_MAX];
	assert_int_equal(get(digest_format(&older, text), &got), 0);
	assert_int_equal(at_mirror("m/team"), 1);
}

static void tag_only_mirrors_come_last_for_digests(void **state)
{
	(void)state;
	with_mirror("pull-from-mirror = \"tag-only\"\n");
	struct digest digest = manifest_on(&mirror, "m/team/app", MANIFEST), got;
	manifest_on(&help.server, "team/app", MANIFEST);
	assert_int_equal(get("1.5", &got), 0);
	assert_int_equal(at_mirror("m/team"), 1);
	char text[DIGEST_STR_MAX];
	assert_int_equal(get(digest_format(&digest, text), &got), 0);
	assert_int_equal(at_mirror("m/team"), 1);
	assert_int_equal(at_origin("team"), 1);
}

static int on_name(void *arg, const char *name)
{
	struct buf *names = arg;
	return buf_printf(names, "%s ", name);
}

static void lists_are_the_origins(void **state)
{
	(void)state;
	with_mirror("");
	AUTO_BUF struct buf names = BUF_INIT(1 * MIB);
	manifest_on(&help.server, "team/app", MANIFEST);
	manifest_on(&mirror, "m/team/app", MANIFEST);
	assert_int_equal(store->ops->list_tags(store, "team/app", on_name, &names, &help.wait), 0);
	assert_string_equal(names.data, "1.5 ");
	assert_int_equal(store->ops->list_repos(store, on_name, &names, &help.wait), 0);
	assert_string_equal(names.data, "1.5 team/app ");
	assert_int_equal(at_mirror("tags|catalog"), 0);
	/* In its place when it is gone. A catalogue is only what lies below the mirror's path. */
	server_rule(&help.server, ".*", "/v2/", "\"close\": true");
	buf_clear(&names);
	assert_int_equal(store->ops->list_tags(store, "team/app", on_name, &names, &help.wait), 0);
	assert_int_equal(store->ops->list_repos(store, on_name, &names, &help.wait), 0);
	assert_string_equal(names.data, "1.5 team/app ");
}

/* ---- hosts.toml ---- */

static void a_mirror_is_told_whose_content_is_wanted(void **state)
{
	(void)state;
	/* containerd, docs/hosts.md: "ns" is appended for hosts other than the registry's. */
	AUTO_FREE char *toml = format("server = \"http://%s\"\n[host.\"http://%s/m/v2\"]\n"
				      "[host.\"http://%s/m/v2\".header]\nX-Mine = \"yes\"\n",
				      help.server.host, mirror.host, mirror.host);
	write_file("certs.d/hub.example/hosts.toml", toml);
	open_store("hub.example");
	struct digest got;
	manifest_on(&help.server, "team/app", MANIFEST);
	assert_int_equal(get("1.5", &got), 0);
	assert_int_equal(at_mirror("GET /m/v2/team/app/manifests/1.5\\?ns=hub.example"), 1);
	assert_int_equal(at_origin("GET /v2/team/app/manifests/1.5\\?ns=hub.example"), 1);
	char value[16];
	server_header(&mirror, "manifests", "X-Mine", value, sizeof(value));
	assert_string_equal(value, "yes");
	server_header(&help.server, "manifests", "X-Mine", value, sizeof(value));
	assert_string_equal(value, "-");
}

static void override_path_replaces_v2(void **state)
{
	(void)state;
	AUTO_FREE char *toml = format("server = \"http://%s/v2\"\noverride_path = true\n",
				      help.server.host);
	write_file("certs.d/hub.example/hosts.toml", toml);
	open_store("hub.example");
	struct digest got;
	manifest_on(&help.server, "team/app", MANIFEST);
	assert_int_equal(get("1.5", &got), 0);
	assert_int_equal(at_origin("GET /v2/team/app/manifests/1.5"), 1);
}

/* ---- writing ---- */

static int put(const char *repo)
{
	return store->ops->put_manifest(store, repo, "2.0", OCI_TYPE_MANIFEST, MANIFEST,
					strlen(MANIFEST), &help.wait);
}

static void what_is_written_goes_to_the_origin(void **state)
{
	(void)state;
	with_mirror("");
	struct digest blob = blob_on_both(1000);
	uint64_t size;
	assert_int_equal(put("team/app"), 0);
	assert_int_equal(store->ops->has_blob(store, "team/app", &blob, &size, &help.wait), 0);
	assert_int_equal(store->ops->untag(store, "team/app", "2.0", &help.wait), 0);
	assert_int_equal(at_mirror("."), 0);
	/* Not even when that is gone. */
	server_rule(&help.server, ".*", "/v2/", "\"close\": true");
	assert_int_equal(put("team/app"), -EIO);
	assert_int_equal(at_mirror("."), 0);
}

/* The mirror still has the old one, or has it again; the other tag is its own to tell. */
static void a_tag_that_was_moved_comes_from_the_origin(void **state)
{
	(void)state;
	with_mirror("");
	struct digest old = manifest_on(&mirror, "m/team/app", MANIFEST), newer, got;
	digest_of(DIGEST_SHA256, NEWER, strlen(NEWER), &newer);
	assert_int_equal(get("1.5", &got), 0);
	assert_true(digest_equal(&got, &old));
	assert_int_equal(store->ops->put_manifest(store, "team/app", "1.5", OCI_TYPE_MANIFEST,
						  NEWER, strlen(NEWER), &help.wait),
			 0);
	assert_int_equal(get("1.5", &got), 0);
	assert_true(digest_equal(&got, &newer));
	assert_int_equal(head("1.5", &got), 0);
	assert_true(digest_equal(&got, &newer));
	assert_int_equal(store->ops->untag(store, "team/app", "1.5", &help.wait), 0);
	assert_int_equal(get("1.5", &got), -ENOENT);
	/* with the origin gone the mirror serves all the same */
	server_rule(&help.server, ".*", "/v2/team", "\"status\": 418");
	assert_int_equal(get("1.5", &got), 0);
	assert_true(digest_equal(&got, &old));
}

static void whether_a_blob_is_there_is_asked_where_it_would_go(void **state)
{
	(void)state;
	AUTO_FREE char *conf = format("[[registry]]\nprefix = \"%s\"\nlocation = \"%s/m\"\n",
				      help.server.host, mirror.host);
	write_file("registries.conf", conf);
	open_store(help.server.host);
	struct digest blob = blob_on_both(1000);
	assert_int_equal(store_holds(store, "team/app", &blob, 1000, &help.wait), 0);
	assert_int_equal(at_mirror("blobs"), 0);
	assert_int_equal(read_blob(&blob), 1000);
	assert_int_equal(at_mirror("blobs"), 1);
	/* One that was cut short is to be put again. */
	assert_int_equal(store_holds(store, "team/app", &blob, 999, &help.wait), -ENOENT);
}

/* A registry that takes a manifest without looking would confirm an image that lacks it. */
static void a_mirror_does_not_say_what_the_origin_holds(void **state)
{
	(void)state;
	with_mirror("");
	struct digest blob = blob_on_both(1000);
	uint64_t size;
	server_rule(&help.server, "HEAD", "blobs", "\"status\": 500");
	assert_int_equal(store_holds(store, "team/app", &blob, 1000, &help.wait), -EIO);
	assert_int_equal(at_mirror("."), 0);
	/* For who reads it does. */
	assert_int_equal(store->ops->has_blob(store, "team/app", &blob, &size, &help.wait), 0);
	assert_int_equal(at_mirror("HEAD .*blobs"), 1);
}

static void a_mirror_may_be_pushed_to_if_it_says_so(void **state)
{
	(void)state;
	AUTO_FREE char *toml = format("server = \"http://%s\"\ncapabilities = [\"pull\"]\n"
				      "[host.\"http://%s\"]\ncapabilities = [\"push\"]\n",
				      help.server.host, mirror.host);
	write_file("certs.d/hub.example/hosts.toml", toml);
	open_store("hub.example");
	assert_int_equal(put("team/app"), 0);
	assert_int_equal(at_mirror("PUT "), 1);
	write_file("certs.d/hub.example/hosts.toml",
		   "server = \"http://127.0.0.1:1\"\ncapabilities = [\"pull\"]\n");
	store_free(STEAL(store));
	hosts_free(STEAL(hosts));
	open_store("hub.example");
	assert_int_equal(put("team/app"), -EACCES);
	assert_true(help_logged("no endpoint is configured that may be pushed to"));
}

/* ---- credentials ---- */

/* Something is stored for every host; which, is noted. */
static int look_up(void *arg, const struct auth_query *query, struct wait *wait,
		   struct auth_credential *ret)
{
	struct buf *asked = arg;
	(void)wait;
	buf_printf(asked, "%s/%s ", query->host, query->repo ? query->repo : "");
	ret->user = strdup("joe");
	ret->password = strdup(query->host);
	return ret->user && ret->password ? 0 : -ENOMEM;
}

/* Half of an image here, half there, would be none anywhere. */
static void what_is_left_aside_is_pushed_to_all_the_same(void **state)
{
	(void)state;
	AUTO_FREE char *toml = format("server = \"http://%s\"\n[host.\"http://%s\"]\n"
				      "capabilities = [\"pull\", \"resolve\", \"push\"]\n",
				      help.server.host, mirror.host);
	struct digest got;
	write_file("certs.d/hub.example/hosts.toml", toml);
	open_store("hub.example");
	manifest_on(&help.server, "team/app", MANIFEST);
	server_rule(&mirror, "GET|HEAD", "manifests", "\"status\": 500");
	assert_int_equal(head("1.5", &got), 0);
	assert_true(help_logged("is left aside"));
	assert_int_equal(put("team/app"), 0);
	assert_int_equal(at_mirror("PUT "), 1);
	assert_int_equal(at_origin("PUT "), 0);
}

static void credentials_are_each_hosts_own(void **state)
{
	(void)state;
	AUTO_BUF struct buf asked = BUF_INIT(1 * MIB);
	with_mirror("");
	store_free(store);
	store = help_store(help.server.host, (struct registry_options){
						     .hosts = hosts,
						     .lookup = look_up,
						     .lookup_arg = &asked,
					     });
	server_order(&help.server, "{\"set\": {\"auth\": \"basic\", \"users\": {}}}");
	server_order(&mirror, "{\"set\": {\"auth\": \"basic\", \"users\": {}}}");
	struct digest got;
	assert_int_equal(get("1.5", &got), -EACCES);
	AUTO_FREE char *first = format("%s/m/team/app ", mirror.host);
	AUTO_FREE char *second = format(" %s/team/app ", help.server.host);
	assert_true(starts_with(asked.data, first));
	assert_non_null(strstr(asked.data, second));
	char sent[2][200];
	server_header(&mirror, "manifests", "Authorization", sent[0], sizeof(sent[0]));
	server_header(&help.server, "manifests", "Authorization", sent[1], sizeof(sent[1]));
	assert_true(starts_with(sent[0], "Basic "));
	assert_true(starts_with(sent[1], "Basic "));
	assert_string_not_equal(sent[0], sent[1]);
}

/* ---- refusals ---- */

static void what_is_blocked_is_not_asked(void **state)
{
	(void)state;
	AUTO_FREE char *conf = format("[[registry]]\nlocation = \"%s/team\"\nblocked = true\n",
				      help.server.host);
	write_file("registries.conf", conf);
	open_store(help.server.host);
	struct digest got;
	assert_int_equal(get("1.5", &got), -EACCES);
	assert_int_equal(put("team/app"), -EACCES);
	assert_int_equal(at_origin("."), 0);
	assert_true(help_logged("blocks"));
	assert_int_equal(put("other/app"), 0);
}

static void nothing_is_asked_by_who_may_not_wait(void **state)
{
	(void)state;
	with_mirror("");
	struct wait wait;
	struct digest digest;
	wait_init(&wait, false);
	assert_int_equal(store->ops->head(store, "team/app", "1.5", &digest, &wait), -EWOULDBLOCK);
	wait_release(&wait);
	assert_int_equal(at_mirror(".") + at_origin("."), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_mirror_is_asked_first),
		TEST(what_a_mirror_lacks_comes_from_the_origin),
		TEST(a_broken_mirror_is_left_aside_for_a_while),
		TEST(a_mirror_that_refuses_is_not_asked_each_time),
		TEST(a_mirror_may_be_an_origin_elsewhere),
		TEST(silent_mirrors_share_their_time),
		TEST(with_the_origin_gone_even_a_mirror_left_aside_is_tried),
		TEST(a_manifest_that_a_mirror_damaged_is_refused),
		TEST(a_blob_goes_on_elsewhere_where_a_mirror_breaks_off),
		TEST(a_distrusted_blob_comes_from_the_origin),
		TEST(tags_come_from_where_the_configuration_says),
		TEST(tag_only_mirrors_come_last_for_digests),
		TEST(lists_are_the_origins),
		TEST(a_mirror_is_told_whose_content_is_wanted),
		TEST(override_path_replaces_v2),
		TEST(what_is_written_goes_to_the_origin),
		TEST(a_tag_that_was_moved_comes_from_the_origin),
		TEST(whether_a_blob_is_there_is_asked_where_it_would_go),
		TEST(a_mirror_does_not_say_what_the_origin_holds),
		TEST(a_mirror_may_be_pushed_to_if_it_says_so),
		TEST(what_is_left_aside_is_pushed_to_all_the_same),
		TEST(credentials_are_each_hosts_own),
		TEST(what_is_blocked_is_not_asked),
		TEST(nothing_is_asked_by_who_may_not_wait),
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
