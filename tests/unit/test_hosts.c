/* SPDX-License-Identifier: Apache-2.0 */
/* test_hosts: what the files of podman, docker and containerd lead to. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <sys/stat.h>

#include "regfs/hosts.h"
#include "regfs/log.h"
#include "server.h"

/* A directory with "registries.conf" and "certs.d", and the answer looked at. */
static char dir[64];
static const struct hosts_answer *answer;

static int setup(void **state)
{
	(void)state;
	unsetenv("XDG_CONFIG_HOME");
	unsetenv("CONTAINERS_REGISTRIES_CONF");
	unsetenv("CONTAINERS_REGISTRIES_CONF_DIR");
	int err = server_make_dir(dir);
	setenv("HOME", dir, 1);
	return err;
}

static int teardown(void **state)
{
	(void)state;
	hosts_answer_unref(STEAL(answer));
	server_remove_dir(dir);
	return 0;
}

/* A file below the directory. */
static void write_file(const char *name, const char *text)
{
	AUTO_FREE char *path = format("%s/%s", dir, name);
	AUTO_FREE char *parent = strndup(path, (size_t)(strrchr(path, '/') - path));
	assert_int_equal(make_dirs(parent, 0755), 0);
	AUTO_FCLOSE FILE *file = fopen(path, "w");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
}

static void registries(const char *text)
{
	write_file("registries.conf", text);
}

static struct hosts *make(const char *const *insecure)
{
	AUTO_FREE char *conf = format("%s/registries.conf", dir);
	AUTO_FREE char *certs = format("%s/certs.d", dir);
	if (access(conf, F_OK))
		registries("");
	return hosts_new(&(struct hosts_options){
		.registries_conf = conf, .certs_dir = certs, .insecure = insecure});
}

/* Looks with fresh eyes. */
static int look(const char *host, const char *repo)
{
	const char *const insecure[] = {"insecure.example", "m.insecure:5000", NULL};
	struct hosts *hosts = make(insecure);
	assert_non_null(hosts);
	hosts_answer_unref(STEAL(answer));
	int err = hosts_find(hosts, host, repo, &answer);
	hosts_free(hosts);
	return err;
}

static const struct hosts_endpoint *nth(size_t n)
{
	assert_true(n < answer->n);
	return &answer->endpoints[n];
}

static void is(size_t n, const char *host, const char *repo, unsigned can)
{
	assert_string_equal(nth(n)->host, host);
	if (repo)
		assert_string_equal(nth(n)->repo, repo);
	else
		assert_null(nth(n)->repo);
	assert_int_equal(nth(n)->can, can);
}

#define ORIGIN (HOSTS_PULL | HOSTS_RESOLVE | HOSTS_PUSH | HOSTS_ORIGIN)
#define MIRROR (HOSTS_PULL | HOSTS_RESOLVE)

static size_t log_seen;

/* Whether WORDS are in the log behind what was seen of it. */
static bool logged(const char *words)
{
	AUTO_BUF struct buf log = BUF_INIT(16 * MIB);
	assert_int_equal(log_recent(&log), 0);
	return log.len > log_seen && strstr(log.data + log_seen, words);
}

static void see_log(void)
{
	AUTO_BUF struct buf log = BUF_INIT(16 * MIB);
	assert_int_equal(log_recent(&log), 0);
	log_seen = log.len;
}

static void refused(const char *host, const char *repo, const char *words)
{
	see_log();
	assert_int_equal(look(host, repo), -EACCES);
	if (!logged(words))
		fail_msg("not in the log: %s", words);
}

/* ---- without configuration ---- */

static void a_host_is_itself(void **state)
{
	(void)state;
	assert_int_equal(look("reg.example", "team/app"), 0);
	assert_int_equal(answer->n, 1);
	is(0, "reg.example", "team/app", ORIGIN);
	assert_int_equal(nth(0)->scheme, HOSTS_HTTPS);
	assert_string_equal(nth(0)->key, "reg.example");
	assert_string_equal(nth(0)->path, "");
	assert_null(nth(0)->ns);
	assert_null(nth(0)->ca_pem);
	assert_int_equal(look("localhost:5000", NULL), 0);
	is(0, "localhost:5000", NULL, ORIGIN);
	assert_int_equal(nth(0)->scheme, HOSTS_LOCAL);
	assert_int_equal(look("insecure.example", NULL), 0);
	assert_int_equal(nth(0)->scheme, HOSTS_INSECURE);
}

static void docker_hub_has_two_names(void **state)
{
	(void)state;
	assert_int_equal(look("docker.io", "library/alpine"), 0);
	is(0, "registry-1.docker.io", "library/alpine", ORIGIN);
	assert_string_equal(nth(0)->key, "docker.io");
	assert_int_equal(nth(0)->scheme, HOSTS_HTTPS);
}

/* ---- registries.conf ---- */

static void mirrors_come_in_order_and_then_the_origin(void **state)
{
	(void)state;
	/* The example of containers-registries.conf(5). */
	registries("[[registry]]\n"
		   "prefix = \"example.com/foo\"\n"
		   "location = \"internal.example/bar\"\n"
		   "[[registry.mirror]]\n"
		   "location = \"m0.local/mirror-for-foo\"\n"
		   "[[registry.mirror]]\n"
		   "location = \"m1.local/mirrors/foo/\"\n"
		   "insecure = true\n"
		   "[[registry]]\n"
		   "location = \"registry.com\"\n"
		   "[[registry.mirror]]\n"
		   "location = \"mirror.registry.com\"\n");
	assert_int_equal(look("example.com", "foo/image"), 0);
	assert_int_equal(answer->n, 4);
	is(0, "m0.local", "mirror-for-foo/image", MIRROR);
	is(1, "m1.local", "mirrors/foo/image", MIRROR);
	assert_int_equal(nth(0)->scheme, HOSTS_HTTPS);
	assert_int_equal(nth(1)->scheme, HOSTS_INSECURE);
	is(2, "internal.example", "bar/image", MIRROR | HOSTS_ORIGIN);
	/* Locations are for reading: a push goes where it says. */
	is(3, "example.com", "foo/image", HOSTS_PUSH);
	/* Each has credentials of its own. */
	assert_string_equal(nth(0)->key, "m0.local");
	assert_string_equal(nth(2)->key, "internal.example");
	assert_int_equal(look("registry.com", "image"), 0);
	is(0, "mirror.registry.com", "image", MIRROR);
	is(1, "registry.com", "image", ORIGIN);
	/* Not a part of a name. */
	assert_int_equal(look("example.com", "foobar"), 0);
	assert_int_equal(answer->n, 1);
}

static void the_longest_prefix_decides(void **state)
{
	(void)state;
	registries("[[registry]]\n"
		   "prefix = \"example.com/a/b\"\nlocation = \"long.example/b\"\n"
		   "[[registry]]\n"
		   "prefix = \"example.com/a\"\nlocation = \"short.example/a\"\n"
		   "[[registry]]\n"
		   "prefix = \"*.wild.example\"\n"
		   "[[registry.mirror]]\nlocation = \"m.example\"\n"
		   "[[registry]]\n"
		   "prefix = \"*.moved.example\"\nlocation = \"all.example/x\"\n");
	assert_int_equal(look("example.com", "a/b/c"), 0);
	is(0, "long.example", "b/c", MIRROR | HOSTS_ORIGIN);
	assert_int_equal(look("example.com", "a/c"), 0);
	is(0, "short.example", "a/c", MIRROR | HOSTS_ORIGIN);
	assert_int_equal(look("x.y.wild.example:5000", "app"), 0);
	is(0, "m.example:5000", "app", MIRROR);
	is(1, "x.y.wild.example:5000", "app", ORIGIN);
	assert_int_equal(look("wild.example", "app"), 0);
	assert_int_equal(answer->n, 1);
	assert_int_equal(look("a.moved.example", "app"), 0);
	is(0, "all.example", "x/app", MIRROR | HOSTS_ORIGIN);
	assert_int_equal(look("a.moved.example.org", "app"), 0);
	is(0, "a.moved.example.org", "app", ORIGIN);
}

static void mirrors_may_be_for_tags_or_digests(void **state)
{
	(void)state;
	registries("[[registry]]\nlocation = \"r.example\"\n"
		   "[[registry.mirror]]\nlocation = \"d\"\npull-from-mirror = \"digest-only\"\n"
		   "[[registry.mirror]]\nlocation = \"t\"\npull-from-mirror = \"tag-only\"\n"
		   "[[registry.mirror]]\nlocation = \"a\"\npull-from-mirror = \"all\"\n"
		   "[[registry]]\nlocation = \"s.example\"\nmirror-by-digest-only = true\n"
		   "[[registry.mirror]]\nlocation = \"m\"\n");
	assert_int_equal(look("r.example", "app"), 0);
	is(0, "d", "app", HOSTS_PULL);
	is(1, "t", "app", MIRROR | HOSTS_LATE);
	is(2, "a", "app", MIRROR);
	assert_int_equal(look("s.example", "app"), 0);
	is(0, "m", "app", HOSTS_PULL);
	registries("[[registry]]\nlocation = \"s.example\"\nmirror-by-digest-only = true\n"
		   "[[registry.mirror]]\nlocation = \"m\"\npull-from-mirror = \"all\"\n");
	refused("s.example", "app", "exclude each other");
}

static void what_is_blocked_is_refused(void **state)
{
	(void)state;
	registries("[[registry]]\nlocation = \"bad.example\"\nblocked = true\n"
		   "[[registry]]\nprefix = \"ok.example/evil\"\nlocation=\"ok.example/evil\"\n"
		   "blocked = true\n");
	refused("bad.example", "app", "registries.conf, line 1, blocks bad.example");
	refused("bad.example", NULL, "blocks");
	refused("ok.example", "evil/app", "line 4, blocks");
	assert_int_equal(look("ok.example", "good"), 0);
	registries("[registries.block]\nregistries = ['old.example']\n");
	refused("old.example", "app", "line 2, blocks it");
}

static void drop_ins_replace_tables(void **state)
{
	(void)state;
	registries("[[registry]]\nlocation = \"a.example\"\nblocked = true\n"
		   "[[registry]]\nlocation = \"b.example\"\nblocked = true\n"
		   "[aliases]\nx = \"one.example/x\"\ny = \"one.example/y\"\n");
	write_file("registries.conf.d/20.conf", "[[registry]]\nlocation = \"a.example\"\n"
						"[[registry.mirror]]\nlocation = \"m20\"\n"
						"[aliases]\nx = \"\"\nz = \"two.example/z\"\n");
	write_file("registries.conf.d/10.conf", "[[registry]]\nlocation = \"a.example\"\n"
						"[[registry.mirror]]\nlocation = \"m10\"\n");
	write_file("registries.conf.d/30.txt", "not looked at");
	assert_int_equal(look("a.example", "app"), 0);
	is(0, "m20", "app", MIRROR);
	refused("b.example", "app", "blocks b.example");
	struct hosts *hosts = make(NULL);
	AUTO_FREE char *alias = NULL;
	assert_int_equal(hosts_alias(hosts, "x", &alias), -ENOENT);
	assert_int_equal(hosts_alias(hosts, "z", &alias), 0);
	assert_string_equal(alias, "two.example/z");
	hosts_free(hosts);
}

static void what_is_not_understood_unblocks_nothing(void **state)
{
	(void)state;
	registries("[[registry]]\nlocation = \"bad.example\"\nblocked = yes\n");
	refused("bad.example", "app", "registries.conf, line 3: ");
	refused("other.example", "app", "line 3");
	registries("[[registry]]\nlocation = \"bad.example\"\nblocked = \"true\"\n");
	refused("bad.example", "app", "line 3: blocked is neither");
	registries("[[registry]]\nprefix = \"bad.example\"\n");
	refused("x.example", "app", "without location");
	registries("[[registry]]\nlocation = \"https://bad.example\"\n");
	refused("x.example", "app", "no http:// or https://");
	registries("[[registry]]\nlocation = \"bad.example/app:1\"\n");
	refused("x.example", "app", "tag or digest");
	registries("registry = 5\n");
	refused("x.example", "app", "no array of tables");
	registries("[[registry]]\nlocation = \"x.example\"\n[[registry.mirror]]\n");
	refused("x.example", "app", "mirror without location");
	registries("[[registry]]\nprefix = \"x.example/app\"\nlocation = \"y.example\"\n");
	refused("x.example", "app", "no valid repository");
	registries("");
	write_file("registries.conf.d/1.conf", "[");
	refused("x.example", "app", "registries.conf.d/1.conf, line 1: ");
	AUTO_FREE char *conf = format("%s/none.conf", dir);
	struct hosts *hosts = hosts_new(&(struct hosts_options){.registries_conf = conf});
	assert_int_equal(hosts_find(hosts, "x.example", "app", &answer), -EACCES);
	assert_true(logged("none.conf does not exist"));
	hosts_free(hosts);
}

static void a_users_own_file_is_found(void **state)
{
	(void)state;
	write_file(".config/containers/registries.conf",
		   "[[registry]]\nlocation = \"x.example\"\n"
		   "[[registry.mirror]]\nlocation = \"home\"\n");
	write_file("else/containers/registries.conf", "[[registry]]\nlocation = \"x.example\"\n"
						      "[[registry.mirror]]\nlocation = \"xdg\"\n");
	write_file("env.conf", "[[registry]]\nlocation = \"x.example\"\n"
			       "[[registry.mirror]]\nlocation = \"env\"\n");
	struct hosts *hosts = hosts_new(&(struct hosts_options){0});
	assert_int_equal(hosts_find(hosts, "x.example", "app", &answer), 0);
	is(0, "home", "app", MIRROR);
	hosts_answer_unref(STEAL(answer));
	hosts_free(hosts);
	AUTO_FREE char *xdg = format("%s/else", dir);
	setenv("XDG_CONFIG_HOME", xdg, 1);
	hosts = hosts_new(&(struct hosts_options){0});
	assert_int_equal(hosts_find(hosts, "x.example", "app", &answer), 0);
	is(0, "xdg", "app", MIRROR);
	hosts_answer_unref(STEAL(answer));
	hosts_free(hosts);
	AUTO_FREE char *env = format("%s/env.conf", dir);
	setenv("CONTAINERS_REGISTRIES_CONF", env, 1);
	hosts = hosts_new(&(struct hosts_options){0});
	assert_int_equal(hosts_find(hosts, "x.example", "app", &answer), 0);
	is(0, "env", "app", MIRROR);
	hosts_free(hosts);
}

/* ---- hosts.toml ---- */

static void hosts_toml_names_mirrors(void **state)
{
	(void)state;
	write_file("certs.d/ca.pem", "-----BEGIN CERTIFICATE-----\nrelative\n");
	write_file("certs.d/docker.io/hosts.toml",
		   "server = \"https://docker.io\"\n"
		   "[host.\"https://public.example\"]\n"
		   "capabilities = [\"pull\"]\n"
		   "ca = \"../ca.pem\"\n"
		   "[host.\"http://10.0.0.1:5000/proxy/v2\"]\n"
		   "skip_verify = true\n"
		   "[host.\"https://odd.example/api\"]\n"
		   "override_path = true\n"
		   "capabilities = [\"pull\", \"resolve\", \"push\"]\n"
		   "[host.\"https://odd.example/api\".header]\n"
		   "x-a = \"1\"\n"
		   "x-b = [\"2\", \"3\"]\n"
		   "[host.\"m.insecure:5000\"]\n");
	assert_int_equal(look("docker.io", "library/alpine"), 0);
	assert_int_equal(answer->n, 5);
	is(0, "public.example", "library/alpine", HOSTS_PULL);
	assert_string_equal(nth(0)->ns, "docker.io");
	assert_non_null(strstr(nth(0)->ca_pem, "relative"));
	is(1, "10.0.0.1:5000", "library/alpine", MIRROR);
	assert_int_equal(nth(1)->scheme, HOSTS_HTTP);
	assert_string_equal(nth(1)->path, "/proxy");
	assert_false(nth(1)->bare_path);
	assert_true(nth(1)->skip_verify);
	is(2, "odd.example", "library/alpine", MIRROR | HOSTS_PUSH);
	assert_string_equal(nth(2)->path, "/api");
	assert_true(nth(2)->bare_path);
	assert_string_equal(nth(2)->headers[0], "x-a: 1");
	assert_string_equal(nth(2)->headers[2], "x-b: 3");
	assert_null(nth(2)->headers[3]);
	is(3, "m.insecure:5000", "library/alpine", MIRROR);
	assert_int_equal(nth(3)->scheme, HOSTS_INSECURE);
	/* The registry itself needs not be told whose content it has. */
	is(4, "registry-1.docker.io", "library/alpine", ORIGIN);
	assert_null(nth(4)->ns);
	assert_string_equal(nth(4)->key, "docker.io");
}

static void hosts_toml_is_found_by_host_and_port(void **state)
{
	(void)state;
	write_file("certs.d/_default/hosts.toml", "[host.\"https://m.default\"]\n");
	write_file("certs.d/a.example:5000/hosts.toml", "[host.\"https://m.colon\"]\n");
	write_file("certs.d/b.example:5000/hosts.toml", "[host.\"https://m.colon\"]\n");
	write_file("certs.d/b.example_5000_/hosts.toml", "[host.\"https://m.line\"]\n");
	write_file("certs.d/only.example/hosts.toml", "server = \"https://m.only\"\n");
	assert_int_equal(look("x.example", "app"), 0);
	is(0, "m.default", "app", MIRROR);
	assert_string_equal(nth(0)->ns, "x.example");
	is(1, "x.example", "app", ORIGIN);
	assert_int_equal(look("a.example:5000", "app"), 0);
	is(0, "m.colon", "app", MIRROR);
	assert_int_equal(look("b.example:5000", "app"), 0);
	is(0, "m.line", "app", MIRROR);
	assert_int_equal(look("only.example", "app"), 0);
	assert_int_equal(answer->n, 1);
	is(0, "m.only", "app", ORIGIN);
	assert_string_equal(nth(0)->ns, "only.example");
	/* A [[registry]] table that fits decides before. */
	registries("[[registry]]\nlocation = \"x.example\"\n");
	assert_int_equal(look("x.example", "app"), 0);
	assert_int_equal(answer->n, 1);
}

static void a_bad_hosts_toml_refuses_its_host(void **state)
{
	(void)state;
	const char *const file = "certs.d/x.example/hosts.toml";
	write_file(file, "server = \"https://y\nx = 1\n");
	refused("x.example", "app", "certs.d/x.example/hosts.toml, line 1: ");
	assert_int_equal(look("y.example", "app"), 0);
	write_file(file, "[host.\"https://m\"]\ncapabilities = [\"fly\"]\n");
	refused("x.example", "app", "line 2: a capability is none of");
	write_file(file, "[host.\"ftp://m\"]\n");
	refused("x.example", "app", "no URL");
	write_file(file, "[host.\"https://m\"]\nca = \"none.pem\"\n");
	refused("x.example", "app", "none.pem cannot be read");
	write_file(file, "[host.\"https://m\"]\nclient = [[\"a\"]]\n");
	refused("x.example", "app", "no pair of paths");
	write_file(file, "[host.\"https://m\"]\nskip_verify = 1\n");
	refused("x.example", "app", "true or false");
	write_file(file, "[host.\"https://m\".header]\nx = \"a\\r\\nb\"\n");
	refused("x.example", "app", "no header");
	write_file(file, "host = 1\n");
	refused("x.example", "app", "host is no table");
}

/* ---- certificates ---- */

static void mode(const char *name, mode_t bits)
{
	AUTO_FREE char *path = format("%s/%s", dir, name);
	assert_int_equal(chmod(path, bits), 0);
}

static void certs_d_has_cas_and_a_pair(void **state)
{
	(void)state;
	write_file("certs.d/x.example:5000/a.crt", "-----BEGIN CERTIFICATE-----\none\n");
	write_file("certs.d/x.example:5000/b.crt", "-----BEGIN CERTIFICATE-----\ntwo\n");
	write_file("certs.d/x.example:5000/c.cert", "cert");
	write_file("certs.d/x.example:5000/c.key", "key");
	mode("certs.d/x.example:5000/c.key", 0600);
	assert_int_equal(look("x.example:5000", "app"), 0);
	assert_non_null(strstr(nth(0)->ca_pem, "one"));
	assert_non_null(strstr(nth(0)->ca_pem, "two"));
	assert_true(ends_with(nth(0)->cert_file, "x.example:5000/c.cert"));
	assert_true(ends_with(nth(0)->key_file, "x.example:5000/c.key"));
	uint64_t identity = nth(0)->identity;
	assert_int_equal(look("x.example:5000", "other"), 0);
	assert_true(nth(0)->identity == identity);
	write_file("certs.d/x.example:5000/b.crt", "-----BEGIN CERTIFICATE-----\nthree\n");
	assert_int_equal(look("x.example:5000", "app"), 0);
	assert_true(nth(0)->identity != identity);
	/* A mirror has its own. */
	registries("[[registry]]\nlocation = \"y.example\"\n"
		   "[[registry.mirror]]\nlocation = \"x.example:5000\"\n");
	assert_int_equal(look("y.example", "app"), 0);
	assert_non_null(nth(0)->ca_pem);
	assert_null(nth(1)->ca_pem);
}

static void a_key_that_all_can_read_is_refused(void **state)
{
	(void)state;
	write_file("certs.d/x.example/c.cert", "cert");
	refused("x.example", "app", "c.key cannot be read");
	write_file("certs.d/x.example/c.key", "key");
	mode("certs.d/x.example/c.key", 0644);
	refused("x.example", "app", "can be read by everybody: chmod o-r ");
	mode("certs.d/x.example/c.key", 0640);
	assert_int_equal(look("x.example", "app"), 0);
	write_file("certs.d/x.example/c.crt", "nothing");
	refused("x.example", "app", "no certificate in PEM form");
	write_file("both.pem", "both");
	mode("both.pem", 0600);
	write_file("certs.d/y.example/hosts.toml", "client = \"../../both.pem\"\n");
	assert_int_equal(look("y.example", "app"), 0);
	assert_string_equal(nth(0)->cert_file, nth(0)->key_file);
	mode("both.pem", 0604);
	refused("y.example", "app", "both.pem can be read by everybody");
}

static void cacert_is_for_all(void **state)
{
	(void)state;
	write_file("ca.pem", "-----BEGIN CERTIFICATE-----\nall\n");
	AUTO_FREE char *ca = format("%s/ca.pem", dir);
	struct hosts *hosts = hosts_new(&(struct hosts_options){.cacert = ca});
	assert_int_equal(hosts_find(hosts, "x.example", "app", &answer), 0);
	assert_non_null(strstr(nth(0)->ca_pem, "all"));
	hosts_free(hosts);
}

/* ---- answers over time ---- */

static void changes_are_noticed(void **state)
{
	(void)state;
	struct hosts *hosts = make(NULL);
	assert_int_equal(hosts_find(hosts, "x.example", "app", &answer), 0);
	registries("[[registry]]\nlocation = \"x.example\"\nblocked = true\n");
	const struct hosts_answer *again = NULL;
	int err;
	while (!(err = hosts_find(hosts, "x.example", "app", &again)))
		hosts_answer_unref(again);
	assert_int_equal(err, -EACCES);
	registries("");
	assert_int_equal(hosts_find(hosts, "x.example", "app", &again), 0);
	hosts_answer_unref(again);
	hosts_free(hosts);
	/* An answer lives as long as it is held. */
	is(0, "x.example", "app", ORIGIN);
}

static void many_answers_are_bounded(void **state)
{
	(void)state;
	struct hosts *hosts = make(NULL);
	for (int i = 0; i < 200; i++) {
		AUTO_FREE char *repo = format("app%d", i % 150);
		const struct hosts_answer *one = NULL;
		assert_int_equal(hosts_find(hosts, "x.example", repo, &one), 0);
		assert_string_equal(one->endpoints[0].repo, repo);
		hosts_answer_unref(one);
	}
	hosts_free(hosts);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_host_is_itself),
		TEST(docker_hub_has_two_names),
		TEST(mirrors_come_in_order_and_then_the_origin),
		TEST(the_longest_prefix_decides),
		TEST(mirrors_may_be_for_tags_or_digests),
		TEST(what_is_blocked_is_refused),
		TEST(drop_ins_replace_tables),
		TEST(what_is_not_understood_unblocks_nothing),
		TEST(a_users_own_file_is_found),
		TEST(hosts_toml_names_mirrors),
		TEST(hosts_toml_is_found_by_host_and_port),
		TEST(a_bad_hosts_toml_refuses_its_host),
		TEST(certs_d_has_cas_and_a_pair),
		TEST(a_key_that_all_can_read_is_refused),
		TEST(cacert_is_for_all),
		TEST(changes_are_noticed),
		TEST(many_answers_are_bounded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
