/* SPDX-License-Identifier: Apache-2.0 */
/* registry_help: a store over badregistry.py, for the tests of registry and auth. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "regfs/log.h"
#include "registry_help.h"

struct help help;

int help_group_setup(void **state)
{
	(void)state;
	return server_start_bad(&help.server, NULL);
}

int help_group_teardown(void **state)
{
	(void)state;
	server_stop(&help.server);
	return 0;
}

struct store *help_store(const char *host, struct registry_options options)
{
	struct store *store = NULL;
	options.http = help.http;
	options.host = host;
	options.timeout_ms = HELP_TIMEOUT_MS;
	options.name_timeout_ms = HELP_NAME_TIMEOUT_MS;
	assert_int_equal(registry_new(&options, &store), 0);
	return store;
}

int help_setup(void **state)
{
	(void)state;
	server_order(&help.server,
		     "{\"clear\": true, \"set\": {\"auth\": null, \"page_size\": null,"
		     " \"n_max\": null, \"link_style\": \"relative\", \"users\": {},"
		     " \"anonymous\": true, \"realm\": null, \"repos\": {}, \"tokens\": {},"
		     " \"token_field\": \"token\", \"identity_token\": null,"
		     " \"tag_delete\": true, \"etag\": null, \"sort\": \"bytes\","
		     " \"unknown_last\": null}}");
	help.http = http_new(&(struct http_options){.timeout_ms = HELP_TIMEOUT_MS});
	if (!help.http)
		return -1;
	help.store = help_store(help.server.host, (struct registry_options){.plain_http = true});
	wait_init(&help.wait, true);
	return 0;
}

int help_teardown(void **state)
{
	(void)state;
	store_free(help.store);
	http_free(help.http);
	wait_release(&help.wait);
	return 0;
}

uint8_t help_byte(uint64_t off)
{
	return (uint8_t)(off / 4 >> 8 * (off % 4));
}

struct digest help_blob(const char *repo, uint64_t size)
{
	struct digest digest;
	AUTO_FREE char *order = format("{\"repo\": \"%s\", \"blob\": %llu}", repo,
				       (unsigned long long)size);
	server_order(&help.server, order);
	AUTO_FREE uint8_t *data = malloc(size + 1);
	for (uint64_t i = 0; i < size; i++)
		data[i] = help_byte(i);
	digest_of(DIGEST_SHA256, data, size, &digest);
	return digest;
}

struct digest help_manifest(const char *repo, const char *tag, const char *bytes)
{
	struct digest digest;
	AUTO_BUF struct buf order = BUF_INIT(16 * MIB);
	buf_printf(&order, "{\"repo\": \"%s\", \"manifest\": ", repo);
	buf_json_string(&order, bytes);
	if (tag)
		buf_printf(&order, ", \"tag\": \"%s\"", tag);
	buf_puts(&order, "}");
	server_order(&help.server, order.data);
	digest_of(DIGEST_SHA256, bytes, strlen(bytes), &digest);
	return digest;
}

bool help_logged(const char *words)
{
	AUTO_BUF struct buf log = BUF_INIT(16 * MIB);
	assert_int_equal(log_recent(&log), 0);
	return log.data && strstr(log.data, words);
}

ssize_t help_drain(struct store_stream *stream, uint64_t off)
{
	uint8_t piece[50001];
	ssize_t n, all = 0;
	while ((n = stream->read(stream, piece, sizeof(piece), &help.wait)) > 0) {
		for (ssize_t i = 0; i < n; i++) {
			if (piece[i] != help_byte(off + (uint64_t)(all + i)))
				fail_msg("byte %zd is wrong", all + i);
		}
		all += n;
	}
	return n < 0 ? n : all;
}
