/* SPDX-License-Identifier: Apache-2.0 */
/*
 * server: child processes on loopback and their remote control, by a client of its own: what is
 * tested is not trusted to tell how it went.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "server.h"

#define READY_MS 20000

static int connect_to(int port)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = htons((uint16_t)port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to))) {
		close(fd);
		return -1;
	}
	return fd;
}

static pid_t spawn(const char *const *argv, int in, int out)
{
	pid_t pid = fork();
	if (pid)
		return pid;
	int null = open("/dev/null", O_RDWR);
	dup2(in >= 0 ? in : null, 0);
	dup2(out >= 0 ? out : null, 1);
	if (!getenv("REGFS_TEST_NOISE"))
		dup2(null, 2);
	execvp(argv[0], (char *const *)argv);
	_exit(127);
}

int server_start_bad(struct server *server, const char *const *args)
{
	const char *argv[16] = {"python3", "tests/fs/badregistry.py", "--port", "0"};
	for (size_t n = 4; args && *args && n < ARRAY_SIZE(argv) - 1; n++)
		argv[n] = *args++;
	int to[2], from[2];
	if (pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC))
		return -errno;
	*server = (struct server){.in = to[1], .pid = spawn(argv, to[0], from[1])};
	close(to[0]);
	close(from[1]);
	AUTO_FCLOSE FILE *said = fdopen(from[0], "r");
	char line[64] = "";
	if (!said || !fgets(line, sizeof(line), said) ||
	    sscanf(line, "%d %d", &server->port, &server->other_port) != 2) {
		server_stop(server);
		return -EIO;
	}
	snprintf(server->host, sizeof(server->host), "127.0.0.1:%d", server->port);
	snprintf(server->other, sizeof(server->other), "127.0.0.1:%d", server->other_port);
	return 0;
}

static int free_port(void)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(at);
	AUTO_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&at, len) ||
	    getsockname(fd, (struct sockaddr *)&at, &len))
		return -1;
	return ntohs(at.sin_port);
}

static int write_config(const struct server *server, const struct server_docker *options,
			const char *path)
{
	AUTO_FCLOSE FILE *file = fopen(path, "we");
	if (!file)
		return -errno;
	fprintf(file,
		"version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n"
		"    rootdirectory: %s/data\n  delete:\n    enabled: %s\n"
		"http:\n  addr: %s\n",
		server->dir, options->with_delete ? "true" : "false", server->host);
	if (options->tls_dir)
		fprintf(file, "  tls:\n    certificate: %s/cert.pem\n    key: %s/key.pem\n",
			options->tls_dir, options->tls_dir);
	return 0;
}

static int run(const char *const *argv)
{
	int status = -1;
	pid_t pid = spawn(argv, -1, -1);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -EIO;
	return status ? -EIO : 0;
}

int server_make_cert(const char *dir)
{
	AUTO_FREE char *cert = format("%s/cert.pem", dir);
	AUTO_FREE char *key = format("%s/key.pem", dir);
	const char *argv[] = {"openssl",  "req",
			      "-x509",	  "-newkey",
			      "rsa:2048", "-nodes",
			      "-days",	  "2",
			      "-subj",	  "/CN=regfs test",
			      "-addext",  "subjectAltName=IP:127.0.0.1",
			      "-keyout",  key,
			      "-out",	  cert,
			      NULL};
	return run(argv);
}

int server_make_dir(char ret[static 64])
{
	const char *tmp = getenv("TMPDIR");
	snprintf(ret, 64, "%.40s/regfs-reg-XXXXXX", tmp ? tmp : "/tmp");
	return mkdtemp(ret) ? 0 : -errno;
}

void server_remove_dir(const char *dir)
{
	run((const char *const[]){"rm", "-rf", dir, NULL});
}

/* Until it takes connections, or has died. */
static int await_port(const struct server *server)
{
	for (int64_t end = now_ms() + READY_MS; now_ms() < end;) {
		AUTO_CLOSE int fd = connect_to(server->port);
		if (fd >= 0)
			return 0;
		if (waitpid(server->pid, NULL, WNOHANG) == server->pid)
			return -ENOENT;
		nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
	}
	return -ETIMEDOUT;
}

int server_start_docker(struct server *server, const struct server_docker *options)
{
	*server = (struct server){.in = -1, .port = free_port()};
	snprintf(server->host, sizeof(server->host), "127.0.0.1:%d", server->port);
	int err = server_make_dir(server->dir);
	if (err)
		return err;
	AUTO_FREE char *config = format("%s/config.yml", server->dir);
	err = config ? write_config(server, options, config) : -ENOMEM;
	if (!err) {
		const char *argv[] = {"docker-registry", "serve", config, NULL};
		server->pid = spawn(argv, -1, -1);
		err = await_port(server);
	}
	if (err == -ENOENT)
		server->pid = 0; /* waited for */
	if (err)
		server_stop(server);
	return err;
}

void server_stop(struct server *server)
{
	if (server->in >= 0)
		close(server->in);
	if (server->pid > 0) {
		kill(server->pid, SIGCONT);
		kill(server->pid, SIGTERM);
		waitpid(server->pid, NULL, 0);
	}
	if (server->dir[0])
		server_remove_dir(server->dir);
	*server = (struct server){.in = -1};
}

/* ---- remote control ---- */

static char *exchange(const struct server *server, const char *request)
{
	AUTO_CLOSE int fd = connect_to(server->port);
	size_t len = strlen(request), got = 0, cap = 1 << 20;
	char *answer = malloc(cap + 1);
	if (fd < 0 || !answer || write(fd, request, len) != (ssize_t)len)
		abort();
	ssize_t n;
	while (got < cap && (n = read(fd, answer + got, cap - got)) > 0)
		got += (size_t)n;
	answer[got] = '\0';
	char *body = strstr(answer, "\r\n\r\n");
	if (!body)
		abort();
	memmove(answer, body + 4, strlen(body + 4) + 1);
	return answer;
}

char *server_get(const struct server *server, const char *path)
{
	AUTO_FREE char *request = format("GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
					 path);
	return exchange(server, request);
}

void server_order(const struct server *server, const char *json)
{
	AUTO_FREE char *request = format(
		"POST /_control HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
		"Content-Length: %zu\r\n\r\n%s",
		strlen(json), json);
	free(exchange(server, request));
}

void server_rule(const struct server *server, const char *method, const char *path,
		 const char *actions)
{
	AUTO_FREE char *json = format("{\"rule\": {\"method\": \"%s\", \"path\": \"%s\", %s}}",
				      method, path, actions);
	server_order(server, json);
}

/* Spaces are the only characters in our patterns that a URL cannot carry, and '?', '+', '&'. */
static void escape(const char *text, char *to, size_t cap)
{
	size_t at = 0;
	for (; *text && at + 4 < cap; text++) {
		if (strchr(" ?+&%#", *text))
			at += (size_t)snprintf(to + at, cap - at, "%%%02X", *text);
		else
			to[at++] = *text;
	}
	to[at] = '\0';
}

int server_count(const struct server *server, const char *regex)
{
	char escaped[512];
	escape(regex, escaped, sizeof(escaped));
	AUTO_FREE char *path = format("/_control?count=%s", escaped);
	AUTO_FREE char *answer = server_get(server, path);
	return (int)strtol(answer, NULL, 10);
}

void server_header(const struct server *server, const char *regex, const char *name, char *ret,
		   size_t cap)
{
	char escaped[512];
	escape(regex, escaped, sizeof(escaped));
	AUTO_FREE char *path = format("/_control?header=%s&of=%s", name, escaped);
	AUTO_FREE char *answer = server_get(server, path);
	snprintf(ret, cap, "%s", answer);
}
