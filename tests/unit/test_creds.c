/* SPDX-License-Identifier: Apache-2.0 */
/* test_creds: credential files in their places and order, helpers that behave and that do not,
 * logins and logouts. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "regfs/creds.h"
#include "regfs/log.h"

#define ANN "{\"auths\": {\"q.io\": {\"auth\": \"YW5uOnNlY3JldA==\"}}}" /* ann:secret */
#define BOB "{\"auths\": {\"q.io\": {\"auth\": \"Ym9iOnNlY3JldA==\"}}}" /* bob:secret */

struct place {
	char dir[128];
	struct creds *creds;
	struct wait wait;
};

/* --- the place --- */

static char *path_of(const struct place *place, const char *name)
{
	char *path = format("%s/%s", place->dir, name);

	assert_non_null(path);
	return path;
}

static void put(const struct place *place, const char *name, const char *text, mode_t mode)
{
	AUTO_FREE char *path = path_of(place, name);
	char *slash = strrchr(path, '/');
	AUTO_CLOSE int fd = -1;

	*slash = '\0';
	assert_int_equal(make_dirs(path, 0755), 0);
	*slash = '/';
	(void)unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	assert_true(fd >= 0);
	assert_int_equal(pwrite_full(fd, text, strlen(text), 0), strlen(text));
}

static char *get(const struct place *place, const char *name)
{
	AUTO_FREE char *path = path_of(place, name);
	char *text;
	size_t len;

	assert_int_equal(read_file(path, MIB, &text, &len), 0);
	return text;
}

/* A credential helper: a script for /bin/sh. */
static void put_helper(const struct place *place, const char *name, const char *script)
{
	AUTO_FREE char *path = format("bin/docker-credential-%s", name);
	AUTO_FREE char *text = format("#!/bin/sh\ncd \"$PLACE\"\n%s\n", script);

	put(place, path, text, 0755);
}

static void set_place(const struct place *place, const char *variable, const char *name)
{
	AUTO_FREE char *path = path_of(place, name);

	assert_int_equal(setenv(variable, path, 1), 0);
}

static int setup(void **state)
{
	struct place *place = calloc(1, sizeof(*place));
	const char *tmp = getenv("TMPDIR");
	AUTO_FREE char *search = NULL;

	if (!place)
		return -1;
	snprintf(place->dir, sizeof(place->dir), "%.90s/regfs-creds-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(place->dir));
	search = format("%s/bin:/usr/bin:/bin", place->dir);
	setenv("PATH", search, 1);
	set_place(place, "PLACE", ".");
	set_place(place, "HOME", "home");
	set_place(place, "XDG_RUNTIME_DIR", "run");
	unsetenv("XDG_CONFIG_HOME");
	unsetenv("DOCKER_CONFIG");
	unsetenv("REGISTRY_AUTH_FILE");
	wait_init(&place->wait, true);
	*state = place;
	return 0;
}

static int teardown(void **state)
{
	struct place *place = *state;
	AUTO_FREE char *command = format("rm -rf '%s'", place->dir);
	int r;

	creds_free(place->creds);
	wait_release(&place->wait);
	r = system(command);
	free(place);
	return r;
}

static void open_creds(struct place *place, const char *authfile, int64_t helper_timeout_ms)
{
	const struct creds_options options = {
		.authfile = authfile,
		.helper_timeout_ms = helper_timeout_ms,
	};

	creds_free(place->creds);
	place->creds = creds_new(&options);
	assert_non_null(place->creds);
}

static bool logged(const char *words)
{
	AUTO_BUF struct buf text = BUF_INIT(8 * MIB);

	assert_int_equal(log_recent(&text), 0);
	return text.data && strstr(text.data, words);
}

/* The user that is found for HOST, "token:…" for a token; or the errno. */
static int look_up(struct place *place, const char *host, char found[static 64])
{
	CLEANUP(auth_credential_release) struct auth_credential credential = {0};
	const struct auth_query query = {.host = host, .repo = "team/app"};
	int err = creds_lookup(place->creds, &query, &place->wait, &credential);

	*found = '\0';
	if (err)
		return err;
	if (credential.identity_token)
		snprintf(found, 64, "token:%s", credential.identity_token);
	else
		snprintf(found, 64, "%s:%s", credential.user, credential.password);
	return 0;
}

static void assert_found(struct place *place, const char *host, const char *want)
{
	char found[64];

	assert_int_equal(look_up(place, host, found), 0);
	assert_string_equal(found, want);
}

static void assert_fails(struct place *place, const char *host, int err)
{
	char found[64];

	assert_int_equal(look_up(place, host, found), err);
}

/* --- files --- */

static void files_are_read_in_their_order(void **state)
{
	struct place *place = *state;

	open_creds(place, NULL, 0);
	assert_fails(place, "q.io", -ENOENT);
	put(place, "home/.dockercfg", "{\"q.io\": {\"auth\": \"YTox\"}}", 0600);
	assert_found(place, "q.io", "a:1");
	put(place, "home/.docker/config.json", "{\"auths\": {\"q.io\": {\"auth\": \"YToy\"}}}",
	    0600);
	assert_found(place, "q.io", "a:2");
	put(place, "home/.config/containers/auth.json", ANN, 0600);
	assert_found(place, "q.io", "ann:secret");
	/* an empty entry is none */
	put(place, "run/containers/auth.json", "{\"auths\": {\"q.io\": {}}}", 0600);
	assert_found(place, "q.io", "ann:secret");
	put(place, "run/containers/auth.json", BOB, 0600);
	assert_found(place, "q.io", "bob:secret");
}

static void variables_move_the_files(void **state)
{
	struct place *place = *state;

	put(place, "docker/config.json", ANN, 0600);
	put(place, "config/containers/auth.json", BOB, 0600);
	set_place(place, "DOCKER_CONFIG", "docker");
	open_creds(place, NULL, 0);
	assert_found(place, "q.io", "ann:secret");
	set_place(place, "XDG_CONFIG_HOME", "config");
	open_creds(place, NULL, 0);
	assert_found(place, "q.io", "bob:secret");
}

static void a_named_file_is_the_only_one(void **state)
{
	struct place *place = *state;
	AUTO_FREE char *other = path_of(place, "other");

	put(place, "home/.docker/config.json", ANN, 0600);
	put(place, "named", BOB, 0600);
	put(place, "other", "{}", 0600);
	set_place(place, "REGISTRY_AUTH_FILE", "named");
	open_creds(place, NULL, 0);
	assert_found(place, "q.io", "bob:secret");
	open_creds(place, other, 0);
	assert_fails(place, "q.io", -ENOENT);
	open_creds(place, "/dev/null", 0);
	assert_fails(place, "q.io", -ENOENT);
}

/* As podman takes it when it reads: as nobody; but not without a word. */
static void a_named_file_that_is_missing_is_told_of(void **state)
{
	struct place *place = *state;
	AUTO_FREE char *path = path_of(place, "gone");
	uint64_t before;

	open_creds(place, NULL, 0);
	before = log_generation();
	assert_fails(place, "q.io", -ENOENT); /* the usual ones need not be there */
	assert_int_equal(log_generation(), before);
	set_place(place, "REGISTRY_AUTH_FILE", "gone");
	open_creds(place, NULL, 0);
	for (unsigned i = 1; i <= 2; i++) {
		assert_fails(place, "q.io", -ENOENT);
		assert_fails(place, "a.io", -ENOENT);
		assert_int_equal(log_generation(), before + i);
		assert_true(logged("gone: it is not there"));
		put(place, "gone", ANN, 0600);
		assert_found(place, "q.io", "ann:secret");
		assert_int_equal(unlink(path), 0);
	}
}

static void a_changed_file_is_noticed(void **state)
{
	struct place *place = *state;
	AUTO_FREE char *path = path_of(place, "home/.docker/config.json");

	open_creds(place, NULL, 0);
	put(place, "home/.docker/config.json", ANN, 0600);
	assert_found(place, "q.io", "ann:secret");
	put(place, "home/.docker/config.json", BOB, 0600);
	assert_found(place, "q.io", "bob:secret");
	assert_int_equal(unlink(path), 0);
	assert_fails(place, "q.io", -ENOENT);
}

static void bad_files_are_refused_in_words(void **state)
{
	struct place *place = *state;
	AUTO_FREE char *path = path_of(place, "auth");
	AUTO_FREE char *large = malloc(2 * MIB + 1);

	open_creds(place, path, 0);
	put(place, "auth", "no json", 0600);
	assert_fails(place, "q.io", -EACCES);
	assert_true(logged("it is not JSON") || logged("it is no JSON"));
	put(place, "auth", "{\"auths\": {\"q.io\": {\"auth\": \"%\"}}}", 0600);
	assert_fails(place, "q.io", -EACCES);
	assert_true(logged("entry \"q.io\": its \"auth\" is not base64"));
	assert_fails(place, "other.io", -ENOENT);
	memset(large, ' ', 2 * MIB);
	large[2 * MIB] = '\0';
	put(place, "auth", large, 0600);
	assert_fails(place, "q.io", -EACCES);
	assert_true(logged("larger than 1 MiB"));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_fails(place, "q.io", -EACCES);
	assert_true(logged("it is not a file"));
}

static void without_permission_it_does_not_read(void **state)
{
	struct place *place = *state;
	const struct auth_query query = {.host = "q.io"};
	struct auth_credential credential;
	struct wait wait;

	open_creds(place, NULL, 0);
	wait_init(&wait, false);
	assert_int_equal(creds_lookup(place->creds, &query, &wait, &credential), -EWOULDBLOCK);
	assert_int_equal(creds_hosts(place->creds, NULL, NULL, &wait), -EWOULDBLOCK);
	wait_release(&wait);
}

static int append_host(void *arg, const char *host)
{
	return buf_printf(arg, "%s ", host);
}

static void hosts_are_listed(void **state)
{
	struct place *place = *state;
	AUTO_BUF struct buf hosts = BUF_INIT(MIB);

	open_creds(place, NULL, 0);
	put(place, "run/containers/auth.json", "broken", 0600);
	put(place, "home/.docker/config.json",
	    "{\"auths\": {\"https://index.docker.io/v1/\": {}, \"q.io/team\": {}, \"nohost\": {}},"
	    "\"credHelpers\": {\"ecr.aws\": \"ecr-login\"}}",
	    0600);
	assert_int_equal(creds_hosts(place->creds, append_host, &hosts, &place->wait), 0);
	assert_string_equal(hosts.data, "docker.io q.io ecr.aws ");
}

/* --- helpers --- */

/* A creds whose only file names this helper for all hosts. */
static void use_helper(struct place *place, const char *script, int64_t timeout_ms)
{
	AUTO_FREE char *path = path_of(place, "auth");

	put_helper(place, "x", script);
	put(place, "auth", "{\"credsStore\": \"x\"}", 0600);
	open_creds(place, path, timeout_ms);
}

static void a_helper_is_asked(void **state)
{
	struct place *place = *state;

	use_helper(place,
		   "read key; echo \"$1 $key\" >>asked\n"
		   "echo '{\"ServerURL\": \"x\", \"Username\": \"u\", \"Secret\": \"s\"}'",
		   0);
	assert_found(place, "q.io", "u:s");
	assert_found(place, "q.io", "u:s");
	assert_found(place, "docker.io", "u:s");
	AUTO_FREE char *asked = get(place, "asked");
	/* once for each key: an answer is kept */
	assert_string_equal(asked, "get q.io\nget https://index.docker.io/v1/\n");
}

static void a_token_is_known_by_its_user(void **state)
{
	struct place *place = *state;

	use_helper(place, "echo '{\"Username\": \"<token>\", \"Secret\": \"id\"}'", 0);
	assert_found(place, "q.io", "token:id");
}

static void a_helper_that_has_nothing(void **state)
{
	struct place *place = *state;
	AUTO_FREE char *path = path_of(place, "auth");

	use_helper(place, "echo credentials not found in native keychain; exit 1", 0);
	assert_fails(place, "q.io", -ENOENT);
	put(place, "auth", "{\"credsStore\": \"x\", \"auths\": {\"r.io\": {\"auth\": \"YTox\"}}}",
	    0600);
	assert_found(place, "r.io", "a:1");
}

/* containers-registries.conf(5), "credential-helpers": in that order, the files among them. */
static void registries_conf_names_helpers(void **state)
{
	struct place *place = *state;
	AUTO_FREE char *conf = path_of(place, "registries.conf");
	struct hosts *hosts = hosts_new(&(struct hosts_options){.registries_conf = conf});
	const struct creds_options options = {.hosts = hosts};

	assert_non_null(hosts);
	creds_free(place->creds);
	place->creds = creds_new(&options);
	put_helper(place, "x",
		   "read key; echo \"{\\\"Username\\\": \\\"x\\\", "
		   "\\\"Secret\\\": \\\"$key\\\"}\"");
	put_helper(place, "none", "echo credentials not found in native keychain; exit 1");
	put(place, "home/.docker/config.json", "{\"auths\": {\"q.io\": {\"auth\": \"YTox\"}}}",
	    0600);
	put(place, "registries.conf", "", 0600);
	assert_found(place, "q.io", "a:1");
	assert_fails(place, "r.io", -ENOENT);
	put(place, "registries.conf", "credential-helpers = [\"none\", \"x\"]\n", 0600);
	assert_found(place, "q.io", "x:q.io");
	put(place, "registries.conf",
	    "credential-helpers = [\"none\", \"containers-auth.json\", \"x\"]\n", 0600);
	assert_found(place, "q.io", "a:1");
	assert_found(place, "r.io", "x:r.io");
	put(place, "registries.conf", "credential-helpers = [\"absent\"]\n", 0600);
	assert_found(place, "q.io", "a:1");
	assert_fails(place, "r.io", -EACCES);
	put(place, "registries.conf", "credential-helpers = [\"../x\"]\n", 0600);
	assert_fails(place, "q.io", -EACCES);
	assert_true(logged("no name of a credential helper"));
	creds_free(STEAL(place->creds));
	hosts_free(hosts);
}

static void bad_helpers_are_refused_in_words(void **state)
{
	static const char *const cases[][2] = {
		{"echo garbage", "no answer of a credential helper"},
		{"exit 0", "no answer of a credential helper"},
		{"echo cannot reach the vault; exit 3", "(exit status 3): cannot reach the vault"},
		{"echo '{\"Secret\": \"hidden\"}'; exit 4", "(exit status 4)\n"},
		{"kill -9 $$", "ended by a signal"},
		{"yes", "prints more than 64 KiB"},
	};
	struct place *place = *state;
	AUTO_FREE char *path = path_of(place, "bin/docker-credential-x");

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		use_helper(place, cases[i][0], 0);
		assert_fails(place, "q.io", -EACCES);
		if (!logged(cases[i][1]))
			fail_msg("%s", cases[i][0]);
	}
	assert_false(logged("hidden"));
	assert_false(logged("garbage"));
	use_helper(place, "", 0);
	assert_int_equal(unlink(path), 0);
	assert_fails(place, "q.io", -EACCES);
	assert_true(logged("docker-credential-x: it is not in PATH"));
}

/* It and what it has started are ended. */
static void a_helper_that_hangs_is_ended(void **state)
{
	struct place *place = *state;
	char found[64];
	pid_t pid;

	use_helper(place, "sleep 1000 & echo $! >pid; wait", 2000);
	assert_int_equal(look_up(place, "q.io", found), -EACCES);
	assert_true(logged("no answer within 2.0 s"));
	AUTO_FREE char *text = get(place, "pid");
	pid = (pid_t)strtol(text, NULL, 10);
	assert_true(pid > 1);
	AUTO_FREE char *stat = format("/proc/%d/stat", pid);
	for (int i = 0; i < 1000; i++) {
		AUTO_FREE char *line = NULL;
		size_t len;

		/* a zombie until init has looked */
		if (read_file(stat, KIB, &line, &len) < 0 || strstr(line, ") Z"))
			return;
		(void)wait_until(&place->wait, now_ms() + 5);
	}
	fail_msg("the helper's child still runs");
}

/* What holds its output in the background is not waited for. */
static void a_helper_may_leave_something_behind(void **state)
{
	struct place *place = *state;
	pid_t pid;

	use_helper(place,
		   "sleep 1000 & echo $! >pid\n"
		   "echo '{\"Username\": \"u\", \"Secret\": \"s\"}'",
		   0);
	assert_found(place, "q.io", "u:s");
	AUTO_FREE char *text = get(place, "pid");
	pid = (pid_t)strtol(text, NULL, 10);
	assert_true(pid > 1);
	AUTO_FREE char *command = format("kill %d", pid);
	assert_int_equal(system(command), 0);
}

static void secrets_are_in_no_environment(void **state)
{
	struct place *place = *state;
	const struct auth_credential credential = {
		.user = (char *)"ann",
		.password = (char *)"hush-hush",
	};
	AUTO_FREE char *where = NULL;

	use_helper(place, "env >seen; echo \"$0 $*\" >>seen; ls -l /proc/self/fd >>seen; cat >told",
		   0);
	assert_int_equal(creds_store(place->creds, "q.io", &credential, &place->wait, &where), 0);
	AUTO_FREE char *seen = get(place, "seen");
	AUTO_FREE char *told = get(place, "told");
	assert_null(strstr(seen, "hush"));
	assert_non_null(strstr(told, "hush-hush"));
	assert_non_null(strstr(where, "docker-credential-x"));
	AUTO_FREE char *file = get(place, "auth");
	assert_null(strstr(file, "hush"));
	assert_non_null(strstr(file, "q.io"));
}

struct asker {
	pthread_t thread;
	struct place *place;
	struct wait wait;
	int result;
};

static void *ask_in_thread(void *arg)
{
	struct asker *asker = arg;
	CLEANUP(auth_credential_release) struct auth_credential credential = {0};
	const struct auth_query query = {.host = "q.io", .fresh = true};

	asker->result = creds_lookup(asker->place->creds, &query, &asker->wait, &credential);
	return NULL;
}

static void many_askers_cost_one_run(void **state)
{
	struct place *place = *state;
	struct asker askers[20];

	/* it answers when it may */
	use_helper(place,
		   "echo x >>runs; while ! test -e go; do sleep 0.01; done\n"
		   "echo '{\"Username\": \"u\", \"Secret\": \"s\"}'",
		   0);
	for (size_t i = 0; i < ARRAY_SIZE(askers); i++) {
		askers[i].place = place;
		wait_init(&askers[i].wait, true);
		pthread_create(&askers[i].thread, NULL, ask_in_thread, &askers[i]);
	}
	/* one goes without an answer, at once */
	wait_cancel(&askers[0].wait);
	pthread_join(askers[0].thread, NULL);
	assert_int_equal(askers[0].result, -EINTR);
	put(place, "go", "", 0600);
	for (size_t i = 1; i < ARRAY_SIZE(askers); i++) {
		pthread_join(askers[i].thread, NULL);
		assert_int_equal(askers[i].result, 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(askers); i++)
		wait_release(&askers[i].wait);
	AUTO_FREE char *runs = get(place, "runs");
	assert_string_equal(runs, "x\n");
}

/* An unmount does not wait for a helper. */
static void the_end_ends_helpers(void **state)
{
	struct place *place = *state;
	AUTO_FREE char *started = path_of(place, "started");
	struct asker asker = {.place = place};
	int64_t begun_ms = now_ms();

	use_helper(place, ": >started; sleep 1000", 600000);
	wait_init(&asker.wait, true);
	pthread_create(&asker.thread, NULL, ask_in_thread, &asker);
	while (access(started, F_OK) != 0)
		(void)wait_until(&place->wait, now_ms() + 5);
	wait_cancel(&asker.wait);
	pthread_join(asker.thread, NULL);
	wait_release(&asker.wait);
	creds_free(STEAL(place->creds));
	assert_true(now_ms() - begun_ms < 600000);
}

/* --- storing --- */

static int store(struct place *place, const char *host, char **ret_where)
{
	const struct auth_credential credential = {
		.user = (char *)"ann",
		.password = (char *)"secret",
	};

	return creds_store(place->creds, host, &credential, &place->wait, ret_where);
}

static mode_t mode_of(const struct place *place, const char *name)
{
	AUTO_FREE char *path = path_of(place, name);
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_mode & 07777;
}

static void a_login_makes_the_shared_file(void **state)
{
	struct place *place = *state;
	AUTO_FREE char *path = path_of(place, "home/.docker/config.json");
	AUTO_FREE char *where = NULL;

	open_creds(place, NULL, 0);
	assert_int_equal(store(place, "q.io", &where), 0);
	assert_string_equal(where, path);
	assert_int_equal(mode_of(place, "home/.docker"), 0700);
	assert_int_equal(mode_of(place, "home/.docker/config.json"), 0600);
	assert_found(place, "q.io", "ann:secret");
}

static void a_login_goes_where_it_is_found_first(void **state)
{
	struct place *place = *state;
	AUTO_FREE char *where = NULL;

	open_creds(place, NULL, 0);
	put(place, "run/containers/auth.json",
	    "{\"auths\": {\"q.io\": {\"auth\": \"YTox\"}}, \"x\": 1}", 0644);
	assert_int_equal(store(place, "q.io", &where), 0);
	assert_found(place, "q.io", "ann:secret");
	assert_non_null(strstr(where, "run/containers"));
	assert_int_equal(mode_of(place, "run/containers/auth.json"), 0600);
	AUTO_FREE char *text = get(place, "run/containers/auth.json");
	assert_non_null(strstr(text, "\"x\":\t1"));
}

static void a_link_stays_a_link(void **state)
{
	struct place *place = *state;
	AUTO_FREE char *path = path_of(place, "home/.docker/config.json");
	AUTO_FREE char *where = NULL;
	struct stat st;

	put(place, "dotfiles/docker.json", "{}", 0600);
	put(place, "home/.docker/config.json", "", 0600);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(symlink("../../dotfiles/docker.json", path), 0);
	open_creds(place, NULL, 0);
	assert_int_equal(store(place, "q.io", &where), 0);
	assert_int_equal(lstat(path, &st), 0);
	assert_true(S_ISLNK(st.st_mode));
	AUTO_FREE char *text = get(place, "dotfiles/docker.json");
	assert_non_null(strstr(text, "q.io"));
}

static void a_broken_file_is_not_overwritten(void **state)
{
	struct place *place = *state;
	char *where = NULL;

	put(place, "home/.docker/config.json", "{broken", 0600);
	open_creds(place, NULL, 0);
	assert_int_equal(store(place, "q.io", &where), -EACCES);
	AUTO_FREE char *text = get(place, "home/.docker/config.json");
	assert_string_equal(text, "{broken");
}

struct storer {
	pthread_t thread;
	struct place *place;
	char host[16];
	int result;
};

static void *store_in_thread(void *arg)
{
	struct storer *storer = arg;
	const struct creds_options options = {0};
	struct creds *creds = creds_new(&options); /* as another process has it */
	const struct auth_credential credential = {.user = (char *)"a", .password = (char *)"1"};
	AUTO_FREE char *where = NULL;
	struct wait wait;

	wait_init(&wait, true);
	storer->result = creds_store(creds, storer->host, &credential, &wait, &where);
	wait_release(&wait);
	creds_free(creds);
	return NULL;
}

static void logins_at_the_same_time_all_count(void **state)
{
	struct place *place = *state;
	struct storer storers[8];

	for (size_t i = 0; i < ARRAY_SIZE(storers); i++) {
		storers[i].place = place;
		snprintf(storers[i].host, sizeof(storers[i].host), "r%zu.io", i);
		pthread_create(&storers[i].thread, NULL, store_in_thread, &storers[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(storers); i++) {
		pthread_join(storers[i].thread, NULL);
		assert_int_equal(storers[i].result, 0);
	}
	open_creds(place, NULL, 0);
	for (size_t i = 0; i < ARRAY_SIZE(storers); i++)
		assert_found(place, storers[i].host, "a:1");
}

static void count_place(void *arg, const char *where)
{
	(void)where;
	++*(int *)arg;
}

static void a_logout_leaves_nothing_to_be_found(void **state)
{
	struct place *place = *state;
	int places = 0;

	put(place, "run/containers/auth.json", ANN, 0600);
	put(place, "home/.docker/config.json",
	    "{\"auths\": {\"http://q.io/v1/\": {}, \"q.io/team\": {}, \"r.io\": {}}, "
	    "\"credHelpers\": "
	    "{\"h.io\": \"x\"}}",
	    0600);
	put_helper(place, "x", "echo \"$1 $(cat)\" >told");
	open_creds(place, NULL, 0);
	assert_int_equal(creds_erase(place->creds, "q.io", count_place, &places, &place->wait), 0);
	assert_int_equal(places, 2);
	assert_fails(place, "q.io", -ENOENT);
	AUTO_FREE char *text = get(place, "home/.docker/config.json");
	assert_non_null(strstr(text, "q.io/team"));
	assert_non_null(strstr(text, "r.io"));
	assert_int_equal(creds_erase(place->creds, "q.io", count_place, &places, &place->wait),
			 -ENOENT);
	assert_int_equal(creds_erase(place->creds, "h.io", count_place, &places, &place->wait), 0);
	AUTO_FREE char *told = get(place, "told");
	assert_string_equal(told, "erase h.io\n");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(files_are_read_in_their_order),
		TEST(variables_move_the_files),
		TEST(a_named_file_is_the_only_one),
		TEST(a_named_file_that_is_missing_is_told_of),
		TEST(a_changed_file_is_noticed),
		TEST(bad_files_are_refused_in_words),
		TEST(without_permission_it_does_not_read),
		TEST(hosts_are_listed),
		TEST(a_helper_is_asked),
		TEST(a_token_is_known_by_its_user),
		TEST(a_helper_that_has_nothing),
		TEST(registries_conf_names_helpers),
		TEST(bad_helpers_are_refused_in_words),
		TEST(a_helper_that_hangs_is_ended),
		TEST(a_helper_may_leave_something_behind),
		TEST(secrets_are_in_no_environment),
		TEST(many_askers_cost_one_run),
		TEST(the_end_ends_helpers),
		TEST(a_login_makes_the_shared_file),
		TEST(a_login_goes_where_it_is_found_first),
		TEST(a_link_stays_a_link),
		TEST(a_broken_file_is_not_overwritten),
		TEST(logins_at_the_same_time_all_count),
		TEST(a_logout_leaves_nothing_to_be_found),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
