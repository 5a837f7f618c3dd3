// SPDX-License-Identifier: Apache-2.0
/*
 * oci_platform: platforms as values. Knows the names Go gives to systems and
 * processors (image-spec, "Platform Variants"). Must not know JSON.
 */
#include <ctype.h>
#include <errno.h>
#include <sys/utsname.h>

#include "regfs/oci.h"

#define PLATFORM_NAME_MAX 200

void oci_platform_release(struct oci_platform *platform)
{
	free(platform->os);
	free(platform->architecture);
	free(platform->variant);
	free(platform->os_version);
	*platform = (struct oci_platform){0};
}

static bool is_name_byte(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '.' || c == '_' || c == '-';
}

char *oci_platform_name(const struct oci_platform *platform)
{
	const char *const parts[] = {platform->os, platform->architecture, platform->variant,
				     platform->os_version};
	AUTO_BUF struct buf name = BUF_INIT(PLATFORM_NAME_MAX);

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		size_t room = name.max - name.len;

		if (!parts[i] || !*parts[i])
			continue;
		if (name.len > 0 && room > 0 && buf_add(&name, "-", 1) == -ENOMEM)
			return NULL;
		room = name.max - name.len;
		if (buf_add(&name, parts[i], MIN(strlen(parts[i]), room)))
			return NULL;
	}
	if (name.len == 0 && buf_puts(&name, "unknown"))
		return NULL;
	for (size_t i = 0; i < name.len; i++)
		if (!is_name_byte(name.data[i]) || (i == 0 && name.data[i] == '.'))
			name.data[i] = '_';
	return buf_steal(&name, NULL);
}

/* A part of "linux/arm64/v8": from *STR to the next slash, which is passed. */
static int take_part(const char **str, char **ret)
{
	size_t len = strcspn(*str, "/");

	for (size_t i = 0; i < len; i++)
		if (!is_name_byte((*str)[i]))
			return -EINVAL;
	if (len == 0)
		return -EINVAL;
	*ret = strndup(*str, len);
	if (!*ret)
		return -ENOMEM;
	*str += len;
	return 0;
}

int oci_platform_parse(const char *str, struct oci_platform *ret)
{
	CLEANUP(oci_platform_release) struct oci_platform platform = {0};
	char **const parts[] = {&platform.os, &platform.architecture, &platform.variant};
	size_t n = 0;

	for (;;) {
		int err = take_part(&str, parts[n++]);

		if (err)
			return err;
		if (*str == '\0')
			break;
		if (n == ARRAY_SIZE(parts))
			return -EINVAL;
		str++;
	}
	if (n < 2)
		return -EINVAL;
	*ret = platform;
	platform = (struct oci_platform){0};
	return 0;
}

/* --- what is the same under several names --- */

static const struct processor {
	const char *name, *architecture, *variant;
} processors[] = {
	{"x86_64", "amd64", "v1"},
	{"x86-64", "amd64", "v1"},
	{"amd64", "amd64", "v1"},
	{"aarch64", "arm64", "v8"},
	{"arm64", "arm64", "v8"},
	{"arm", "arm", "v7"},
	{"armhf", "arm", "v7"},
	{"armv8l", "arm", "v7"},
	{"armv7l", "arm", "v7"},
	{"armv6l", "arm", "v6"},
	{"armel", "arm", "v6"},
	{"armv5tel", "arm", "v5"},
	{"i386", "386", NULL},
	{"i486", "386", NULL},
	{"i586", "386", NULL},
	{"i686", "386", NULL},
	{"loongarch64", "loong64", NULL},
};

static const struct processor *find_processor(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(processors); i++)
		if (strcmp(processors[i].name, name) == 0)
			return &processors[i];
	return NULL;
}

int oci_platform_host(struct oci_platform *ret)
{
	CLEANUP(oci_platform_release) struct oci_platform platform = {0};
	const struct processor *processor;
	const char *variant = NULL;
	struct utsname name;

	if (uname(&name))
		return -ENOMEM;
	processor = find_processor(name.machine);
	/* Only arm's variant is part of what the kernel calls the processor. */
	if (processor && strcmp(processor->architecture, "arm") == 0)
		variant = processor->variant;
	platform.os = strdup("linux");
	platform.architecture = strdup(processor ? processor->architecture : name.machine);
	platform.variant = variant ? strdup(variant) : NULL;
	if (!platform.os || !platform.architecture || (variant && !platform.variant))
		return -ENOMEM;
	*ret = platform;
	platform = (struct oci_platform){0};
	return 0;
}

static const char *architecture_of(const struct oci_platform *platform)
{
	const char *name = platform->architecture ? platform->architecture : "";
	const struct processor *processor = find_processor(name);

	return processor ? processor->architecture : name;
}

static const char *variant_of(const struct oci_platform *platform)
{
	const struct processor *processor;

	if (platform->variant && *platform->variant)
		return platform->variant;
	processor = platform->architecture ? find_processor(platform->architecture) : NULL;
	return processor && processor->variant ? processor->variant : "";
}

/* "v8" and "8": 800, "v8.1": 801; -1 for what is no level. */
static int level_of(const char *variant)
{
	unsigned major = 0, minor = 0;
	int end = 0;

	if (*variant == 'v')
		variant++;
	if (!isdigit((unsigned char)*variant) || strlen(variant) > 5)
		return -1;
	if (sscanf(variant, "%2u%n.%2u%n", &major, &end, &minor, &end) < 1 || variant[end])
		return -1;
	return (int)(major * 100 + minor);
}

static bool has_levels(const char *architecture)
{
	return strcmp(architecture, "arm") == 0 || strcmp(architecture, "arm64") == 0 ||
	       strcmp(architecture, "amd64") == 0;
}

/* How well CHILD suits WANT: the higher the better, 0 for not at all. */
static int suitability(const struct oci_platform *child, const struct oci_platform *want)
{
	const char *child_variant = variant_of(child), *want_variant = variant_of(want);
	const char *architecture = architecture_of(want);
	int child_level = level_of(child_variant), want_level = level_of(want_variant);

	if (strcmp(child->os ? child->os : "linux", want->os ? want->os : "linux") != 0 ||
	    strcmp(architecture_of(child), architecture) != 0)
		return 0;
	if (!has_levels(architecture) || child_level < 0 || want_level < 0)
		return strcmp(child_variant, want_variant) == 0 ? INT32_MAX : 0;
	return child_level <= want_level ? 1 + child_level : 0;
}

/* A child that says nothing of its platform: better than none. */
static bool is_unspecific(const struct oci_descriptor *child)
{
	return !child->platform.os && !child->platform.architecture && !child->artifact_type &&
	       oci_is_manifest_type(child->media_type);
}

ssize_t oci_platform_choose(const struct oci_manifest *index, const struct oci_platform *want)
{
	ssize_t best = -1, unspecific = -1;
	int best_suits = 0;

	for (size_t i = 0; i < index->nchildren; i++) {
		const struct oci_descriptor *child = &index->children[i];
		int suits;

		if (oci_is_attestation(child))
			continue;
		if (is_unspecific(child)) {
			if (unspecific < 0)
				unspecific = (ssize_t)i;
			continue;
		}
		suits = suitability(&child->platform, want);
		if (suits > best_suits) {
			best_suits = suits;
			best = (ssize_t)i;
		}
	}
	return best >= 0 ? best : unspecific;
}
