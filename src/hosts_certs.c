/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hosts_certs: certificates and keys: the certs.d directories (containers-certs.d(5); docker,
 * "Verify repository client with certificates": *.crt are CAs, NAME.cert and NAME.key a client's
 * pair), and files that other configuration names.
 * Knows PEM by its first words. Must not know why they are wanted.
 *
 * A key that everybody can read is no secret any more: nothing is sent to that host until it is.
 */
#include <errno.h>
#include <sys/stat.h>

#include "hosts_priv.h"

#define CA_MAX (4 * MIB)

int hosts_add_ca(struct hosts_look *look, struct hosts_endpoint *endpoint, const char *file)
{
	AUTO_FREE char *text = NULL;
	size_t len;
	int err = read_file(file, CA_MAX, &text, &len);
	if (err == -ENOMEM)
		return err;
	if (err)
		return hosts_refuse(look, "the certificate %s cannot be read: %s", file,
				    strerror(-err));
	if (!strstr(text, "-----BEGIN "))
		return hosts_refuse(look, "%s is no certificate in PEM form", file);
	const char *before = endpoint->ca_pem ? endpoint->ca_pem : "";
	char *both = format("%s%s\n", before, text);
	if (!both)
		return -ENOMEM;
	free(endpoint->ca_pem);
	endpoint->ca_pem = both;
	return 0;
}

static int check_key(struct hosts_look *look, const char *file)
{
	struct stat st;
	if (stat(file, &st) || access(file, R_OK))
		return hosts_refuse(look, "the key %s cannot be read: %s", file, strerror(errno));
	if (st.st_mode & S_IROTH)
		return hosts_refuse(look, "the key %s can be read by everybody: chmod o-r %s", file,
				    file);
	return 0;
}

int hosts_set_client(struct hosts_look *look, struct hosts_endpoint *endpoint, const char *cert,
		     const char *key)
{
	if (endpoint->cert_file)
		return 0;
	if (access(cert, R_OK))
		return hosts_refuse(look, "the client certificate %s cannot be read: %s", cert,
				    strerror(errno));
	int err = check_key(look, key ? key : cert);
	if (err)
		return err;
	endpoint->cert_file = strdup(cert);
	endpoint->key_file = strdup(key ? key : cert);
	return endpoint->cert_file && endpoint->key_file ? 0 : -ENOMEM;
}

static int read_cas(struct hosts_look *look, struct hosts_endpoint *endpoint, const char *dir)
{
	AUTO_NAMES char **names = NULL;
	int err = hosts_names(look, dir, ".crt", &names);
	for (char **name = names; !err && name && *name; name++) {
		AUTO_FREE char *file = format("%s/%s", dir, *name);
		err = file ? hosts_add_ca(look, endpoint, file) : -ENOMEM;
	}
	return err;
}

static int read_pairs(struct hosts_look *look, struct hosts_endpoint *endpoint, const char *dir)
{
	AUTO_NAMES char **names = NULL;
	int err = hosts_names(look, dir, ".cert", &names);
	for (char **name = names; !err && name && *name; name++) {
		int stem = (int)(strlen(*name) - strlen(".cert"));
		AUTO_FREE char *cert = format("%s/%s", dir, *name);
		AUTO_FREE char *key = format("%s/%.*s.key", dir, stem, *name);
		if (!cert || !key)
			return -ENOMEM;
		err = hosts_set_client(look, endpoint, cert, key);
	}
	return err;
}

/* 1: DIR is there, and was read. Where containerd has a hosts.toml, that says which certificates
 * are whose (hosts_toml.c). */
static int read_dir(struct hosts_look *look, struct hosts_endpoint *endpoint, const char *dir)
{
	struct stat st;
	AUTO_FREE char *toml = format("%s/hosts.toml", dir);
	if (!toml)
		return -ENOMEM;
	if (stat(dir, &st) || !S_ISDIR(st.st_mode) || !access(toml, F_OK))
		return 0;
	int err = read_cas(look, endpoint, dir);
	err = err ? err : read_pairs(look, endpoint, dir);
	return err ? err : 1;
}

int hosts_read_certs(struct hosts_look *look, struct hosts_endpoint *endpoint)
{
	/* Docker Hub is known by two names. */
	const char *names[] = {endpoint->host, endpoint->key};
	for (char *const *root = look->hosts->cert_roots; *root; root++) {
		for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
			AUTO_FREE char *dir = format("%s/%s", *root, names[i]);
			int found = dir ? read_dir(look, endpoint, dir) : -ENOMEM;
			if (found)
				return MIN(found, 0);
		}
	}
	return 0;
}
