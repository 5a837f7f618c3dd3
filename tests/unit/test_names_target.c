/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the text of a link under _tags names.
 */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../src/names_priv.h"

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

/* In HOSTS the root lists registries; else it is reg:5000. The link lies in team/app/_tags. */
struct text_case {
	const char *text, *hosts, *one; /* as ref_format() shows it; NULL: -EINVAL */
};

static const struct text_case cases[] = {
	{"1.5", "reg:5000/team/app:1.5", "reg:5000/team/app:1.5"},
	{"./1.5/", "reg:5000/team/app:1.5", "reg:5000/team/app:1.5"},
	{"app:1.5", "reg:5000/team/app:1.5", "reg:5000/team/app:1.5"},
	{"web:1.5", "reg:5000/team/web:1.5", "reg:5000/team/web:1.5"},
	{"app@sha256:" HEX, "reg:5000/team/app@sha256:" HEX, "reg:5000/team/app@sha256:" HEX},
	{"../../app:1.5", "reg:5000/team/app:1.5", "reg:5000/team/app:1.5"},
	{"../app:1.5", "reg:5000/team/app/app:1.5", "reg:5000/team/app/app:1.5"},
	{"../_digests/sha256-" HEX, "reg:5000/team/app@sha256:" HEX,
	 "reg:5000/team/app@sha256:" HEX},
	{"../../../other/_tags/1", "reg:5000/other:1", "reg:5000/other:1"},
	{"../../../x:1", "reg:5000/x:1", "reg:5000/x:1"},
	{"../../../../ghcr.io/acme/web:1", "ghcr.io/acme/web:1", NULL},
	{"../../../../host+80/web:1", "host:80/web:1", NULL},
	{"../../../../docker.io/alpine:3", "docker.io/library/alpine:3", NULL},
	{"../../../../docker.io/alpine/_tags/3", "docker.io/library/alpine:3", NULL},
	{"../../../../docker.io/acme/web:3", "docker.io/acme/web:3", NULL},
	{"/mnt/reg/reg:5000/team/app:1.5", "reg:5000/team/app:1.5", NULL},
	{"/mnt/reg//team/./app:1.5", NULL, "reg:5000/team/app:1.5"},
	{"/mnt/reg/team/app/_tags/1.5", NULL, "reg:5000/team/app:1.5"},
	{"/mnt/register/team/app:1.5", NULL, NULL},
	{"/mnt/reg", NULL, NULL},
	{"/mnt/reg/", NULL, NULL},
	{"/etc/passwd", NULL, NULL},
	{"", NULL, NULL},
	{".", NULL, NULL},
	{"..", NULL, NULL},
	{"../..", NULL, NULL},
	{"../../../../../..", NULL, NULL},
	{"../../../../../../team/app:1", NULL, NULL},
	{"../../app", NULL, NULL},
	{"-x", NULL, NULL},
	{"app:", NULL, NULL},
	{":1.5", NULL, NULL},
	{"App:1.5", NULL, NULL},
	{"app@sha256:12", NULL, NULL},
	{"../_digests/1.5", NULL, NULL},
	{"../_digests/sha256:" HEX, NULL, NULL},
	{"../_blobs/sha256/" HEX, NULL, NULL},
	{"../_push/1.5", NULL, NULL},
	{"1.5/rootfs", NULL, NULL},
	{"../../app:1.5/platforms/linux-arm64", NULL, NULL},
	{"../../_tags/1.5", "reg:5000/team:1.5", "reg:5000/team:1.5"},
	{"../../../_tags/1.5", NULL, NULL},
};

static void check(const char *text, bool has_hosts, const char *expected)
{
	const struct target_base base = {
		.mountpoint = "/mnt/reg",
		.has_hosts = has_hosts,
		.host = "reg:5000",
		.repo = "team/app",
	};
	char found[REF_STR_MAX] = "-EINVAL";
	struct ref ref;

	if (target_resolve(&base, text, &ref) == 0)
		ref_format(&ref, found);
	if (strcmp(found, expected ? expected : "-EINVAL") != 0)
		fail_msg("'%s' is %s, expected %s", text, found, expected);
}

static void texts_are_paths(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		check(cases[i].text, true, cases[i].hosts);
		check(cases[i].text, false, cases[i].one);
	}
}

static void long_texts_are_refused(void **state)
{
	char text[2 * PATH_MAX];

	(void)state;
	for (size_t i = 0; i + 1 < sizeof(text); i++)
		text[i] = i % 2 ? '/' : 'a';
	text[sizeof(text) - 1] = '\0';
	check(text, true, NULL);
	memset(text, 'a', sizeof(text) - 1);
	check(text, true, NULL);
	memcpy(text + sizeof(text) - 3, ":1", 3);
	check(text, true, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(texts_are_paths),
		cmocka_unit_test(long_texts_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
