/* SPDX-License-Identifier: Apache-2.0 */
/* test_http_tls: who is trusted, and that no connection is shared by those who trust differently.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "regfs/http.h"
#include "server.h"

static struct server server;
static struct http *http;
static char dir[64];
static char *pem;

static int setup(void **state)
{
	(void)state;
	int err = server_make_dir(dir);
	err = err ? err : server_make_cert(dir);
	AUTO_FREE char *cert = format("%s/cert.pem", dir);
	AUTO_FREE char *key = format("%s/key.pem", dir);
	const char *const args[] = {"--tls", cert, key, NULL};
	size_t len;
	err = err ? err : read_file(cert, 1 * MIB, &pem, &len);
	err = err ? err : server_start_bad(&server, args);
	http = http_new(&(struct http_options){.timeout_ms = 10000});
	return http ? err : -ENOMEM;
}

static int teardown(void **state)
{
	(void)state;
	http_free(http);
	server_stop(&server);
	server_remove_dir(dir);
	free(pem);
	return 0;
}

/* Reads an answer to its end, so that its connection may be used again. */
static int get(const struct http_tls *tls, bool bulk, char why[static HTTP_WHY_MAX])
{
	AUTO_FREE char *url = format("https://%s/v2/", server.host);
	const struct http_request request = {.url = url, .tls = tls, .bulk = bulk, .why = why};
	struct http_transfer *transfer = NULL;
	AUTO_BUF struct buf body = {0};
	struct wait wait;
	wait_init(&wait, true);
	int err = http_start(http, &request, &wait, &transfer);
	if (!err)
		err = http_read_all(transfer, 1 * MIB, &body, &wait);
	http_close(transfer);
	wait_release(&wait);
	return err;
}

static void connections_are_not_shared_by_settings(void **state)
{
	(void)state;
	const struct http_tls blind = {.skip_verify = true};
	const struct http_tls trusting = {.ca_pem = pem};
	char why[HTTP_WHY_MAX];
	for (int bulk = 0; bulk < 2; bulk++) {
		assert_int_equal(get(NULL, bulk, why), -EACCES);
		assert_int_equal(get(&blind, bulk, why), 0);
		/* There is a connection now, but not for those who look. */
		assert_int_equal(get(NULL, bulk, why), -EACCES);
		assert_int_equal(get(&trusting, bulk, why), 0);
		assert_int_equal(get(NULL, bulk, why), -EACCES);
		assert_int_equal(get(&trusting, bulk, why), 0);
	}
}

static void a_refusal_says_what_to_do(void **state)
{
	(void)state;
	char why[HTTP_WHY_MAX];
	assert_int_equal(get(NULL, false, why), -EACCES);
	assert_non_null(strstr(why, "certificate"));
	assert_non_null(strstr(why, "cacert="));
	assert_non_null(strstr(why, "certs.d/HOST/ca.crt"));
	assert_non_null(strstr(why, "insecure="));
}

static void nonsense_is_no_ca(void **state)
{
	(void)state;
	char why[HTTP_WHY_MAX];
	const struct http_tls tls = {.ca_pem = "-----BEGIN CERTIFICATE-----\nnone\n"};
	assert_true(get(&tls, false, why) < 0);
}

/* OpenSSL would ask for it on the terminal, or on standard input, and all transfers would stand. */
static void nobody_is_asked_for_a_passphrase(void **state)
{
	(void)state;
	char why[HTTP_WHY_MAX];
	AUTO_FREE char *cert = format("%s/cert.pem", dir);
	AUTO_FREE char *locked = format("%s/locked.pem", dir);
	AUTO_FREE char *command = format(
		"openssl pkey -aes256 -passout pass:x -in %s/key.pem -out %s", dir, locked);
	int ends[2], before = dup(STDIN_FILENO);
	assert_int_equal(system(command), 0);
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(dup2(ends[0], STDIN_FILENO), STDIN_FILENO);
	const struct http_tls tls = {.ca_pem = pem, .cert_file = cert, .key_file = locked};
	int err = get(&tls, false, why);
	close(ends[1]);
	assert_int_equal(dup2(before, STDIN_FILENO), STDIN_FILENO);
	close(ends[0]);
	close(before);
	assert_int_equal(err, -EACCES);
	assert_non_null(strstr(why, "passphrase"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(connections_are_not_shared_by_settings),
		cmocka_unit_test(a_refusal_says_what_to_do),
		cmocka_unit_test(nonsense_is_no_ca),
		cmocka_unit_test(nobody_is_asked_for_a_passphrase),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
