/* SPDX-License-Identifier: Apache-2.0 */
/*
 * oci: JSON to manifests, indexes and configs, and back.
 * Pure: bytes in, values out. Must not know how the bytes came.
 *
 * OCI image-spec v1.1 (manifest.md, image-index.md, config.md, descriptor.md) and Docker's
 * manifest v2 schema 2 and manifest list. Everything parsed is bounded: 4 MiB of JSON
 * (8 of a config, 32 of names), a nesting of 64, a million values, 4,096 layers, 4,096 children;
 * beyond that -EINVAL. So are strings that are not UTF-8 or hold a NUL, and fields that are there
 * twice.
 *
 * All functions: 0, -EINVAL (not what it should be; *RET_WHY is a constant sentence),
 * -EOPNOTSUPP (schema 1), -ENOMEM. Any thread. Structures own their strings; release takes
 * half-built ones and may be called twice.
 */
#ifndef REGFS_OCI_H
#define REGFS_OCI_H

#include "regfs/buf.h"
#include "regfs/digest.h"

#define OCI_MANIFEST_MAX (4 * MIB)
#define OCI_CONFIG_MAX	 (8 * MIB)
#define OCI_NAMES_MAX	 (32 * MIB) /* a page of names; some servers have one page */

#define OCI_TYPE_MANIFEST	   "application/vnd.oci.image.manifest.v1+json"
#define OCI_TYPE_INDEX		   "application/vnd.oci.image.index.v1+json"
#define OCI_TYPE_CONFIG		   "application/vnd.oci.image.config.v1+json"
#define OCI_TYPE_LAYER		   "application/vnd.oci.image.layer.v1.tar"
#define OCI_TYPE_LAYER_GZIP	   "application/vnd.oci.image.layer.v1.tar+gzip"
#define OCI_TYPE_LAYER_ZSTD	   "application/vnd.oci.image.layer.v1.tar+zstd"
#define OCI_TYPE_EMPTY		   "application/vnd.oci.empty.v1+json"
#define DOCKER_TYPE_MANIFEST	   "application/vnd.docker.distribution.manifest.v2+json"
#define DOCKER_TYPE_LIST	   "application/vnd.docker.distribution.manifest.list.v2+json"
#define DOCKER_TYPE_CONFIG	   "application/vnd.docker.container.image.v1+json"
#define DOCKER_TYPE_LAYER_GZIP	   "application/vnd.docker.image.rootfs.diff.tar.gzip"
#define DOCKER_TYPE_LAYER	   "application/vnd.docker.image.rootfs.diff.tar"
#define DOCKER_TYPE_SCHEMA1	   "application/vnd.docker.distribution.manifest.v1+json"
#define DOCKER_TYPE_SCHEMA1_SIGNED "application/vnd.docker.distribution.manifest.v1+prettyjws"

struct oci_platform {
	char *os, *architecture, *variant, *os_version; /* NULL where absent */
};

struct oci_annotation {
	char *key, *value;
};

struct oci_descriptor {
	char *media_type; /* never NULL; "" where absent */
	char *artifact_type;
	struct digest digest;
	int64_t size; /* 0 to 2^53 - 1 */
	struct oci_platform platform;
	struct oci_annotation *annotations;
	size_t nannotations;
	char **urls; /* foreign layers */
	size_t nurls;
	uint8_t *data; /* inline content, decoded; has .digest and .size, else it is NULL */
	size_t data_len;
};

enum oci_kind { OCI_KIND_MANIFEST, OCI_KIND_INDEX };

/* A manifest or an index: what a reference names. */
struct oci_manifest {
	enum oci_kind kind;
	char *media_type; /* the body's mediaType, else the one it was served with */
	char *artifact_type;
	/* kind MANIFEST */
	struct oci_descriptor config; /* an artifact need not have one: .digest is NONE then */
	struct oci_descriptor *layers;
	size_t nlayers;
	/* kind INDEX */
	struct oci_descriptor *children;
	size_t nchildren;
	struct oci_descriptor *subject; /* NULL where absent */
	struct oci_annotation *annotations;
	size_t nannotations;
};

struct oci_history {
	char *created, *created_by, *author, *comment; /* NULL where absent */
	bool empty_layer;
};

struct oci_config {
	struct oci_platform platform;
	char *created; /* RFC 3339, or NULL */
	struct digest *diff_ids;
	size_t ndiff_ids;
	struct oci_history *history;
	size_t nhistory;
};

void oci_descriptor_release(struct oci_descriptor *descriptor);
void oci_manifest_release(struct oci_manifest *manifest);
void oci_config_release(struct oci_config *config);

/* SERVED_TYPE: the Content-Type it came with, or NULL; parameters after ';' are ignored.
 * The body decides where it has a mediaType, else fields (layers, manifests). */
int oci_manifest_parse(const char *json, size_t len, const char *served_type,
		       struct oci_manifest *ret, const char **ret_why);
int oci_config_parse(const char *json, size_t len, struct oci_config *ret, const char **ret_why);

const char *oci_annotation(const struct oci_annotation *annotations, size_t n, const char *key);
/* A child of an index that is no platform's image: Docker's attestation manifests
 * (annotation vnd.docker.reference.type, or platform unknown/unknown) and SOCI indexes. */
bool oci_is_attestation(const struct oci_descriptor *child);
/* Whether such a child says of itself that it is about the image DIGEST. */
bool oci_attests(const struct oci_descriptor *child, const struct digest *digest);
/* The tag under which a registry without referrers keeps the index of those of DIGEST
 * (distribution-spec, "Referrers Tag Schema"); returns OUT. */
#define OCI_REFERRERS_TAG_MAX (32 + 1 + 64 + 1)
const char *oci_referrers_tag(const struct digest *digest, char out[static OCI_REFERRERS_TAG_MAX]);
/* What kind of artifact MANIFEST is: its artifactType, else its config's media type. */
const char *oci_artifact_type(const struct oci_manifest *manifest);
/* An image whose layers are file systems; false for artifacts. */
bool oci_is_image(const struct oci_manifest *manifest);
bool oci_is_layer_type(const char *media_type);
bool oci_is_manifest_type(const char *media_type); /* any of the four */
bool oci_is_index_type(const char *media_type);

/* The platform as a name: "linux-arm64-v8"; parts that are absent are left out, bytes that
 * do not suit a file name become '_'. The caller frees. NULL when memory is short. */
char *oci_platform_name(const struct oci_platform *platform);
/* "linux/arm64/v8". 0, or -EINVAL. The strings are owned by *RET. */
int oci_platform_parse(const char *str, struct oci_platform *ret);
void oci_platform_release(struct oci_platform *platform);
/* This machine's. 0 or -ENOMEM. */
int oci_platform_host(struct oci_platform *ret);
/* The child to use for WANT, as containerd's platforms.Only decides: same os and
 * architecture; arm variants fall back to lower ones, amd64 v2 to v1; an absent arm64
 * variant is v8. A child that is a manifest without any platform serves if no other does. -1 if
 * none. Attestations never match. */
ssize_t oci_platform_choose(const struct oci_manifest *index, const struct oci_platform *want);

/* RFC 3339 to seconds and nanoseconds since the epoch. 0 or -EINVAL. */
int oci_time_parse(const char *str, int64_t *ret_sec, uint32_t *ret_nsec);

/*
 * Writers, for pushes. Byte-exact documents are never rewritten: these make new ones.
 */
/* A manifest of MEDIA_TYPE with the config and layers given (Docker or OCI types as the
 * caller put them into the descriptors). */
int oci_manifest_write(const char *media_type, const struct oci_descriptor *config,
		       const struct oci_descriptor *layers, size_t nlayers, struct buf *ret);
/* An index of these children, each with its type, size, artifact type and annotations. */
int oci_index_write(const struct oci_descriptor *children, size_t nchildren, struct buf *ret);
/* A manifest of an artifact: files as layers, and the empty config (image-spec, manifest.md,
 * "Guidelines for Artifact Usage"), whose bytes are OCI_EMPTY_JSON. */
#define OCI_EMPTY_JSON "{}"
int oci_artifact_write(const char *artifact_type, const struct oci_descriptor *layers,
		       size_t nlayers, struct buf *ret);
/* A manifest about another one, whose kind is its config's media type (image-spec, manifest.md,
 * "Guidelines for Artifact Usage"); the config's bytes are OCI_EMPTY_JSON. */
struct oci_about {
	const char *config_type;
	const struct oci_descriptor *layers;
	size_t nlayers;
	const struct oci_descriptor *subject;
	const struct oci_annotation *annotations;
	size_t nannotations;
};
int oci_about_write(const struct oci_about *about, struct buf *ret);
/* The config of an image that is built. */
struct oci_build {
	const char *base; /* the config of the image below, or NULL */
	size_t base_len;
	const char *given; /* what is wished: an image's config, or only its "config"; or NULL */
	size_t given_len;
	const struct oci_platform *platform; /* where there is no base */
	const struct digest *diff_id;	     /* of the layer on top, or NULL: there is none */
	const char *created;		     /* RFC 3339 */
	const char *created_by;		     /* for the history */
};
/*
 * What is wished is put over the base's: Env by variable, Labels, ExposedPorts and Volumes by key,
 * any other field as a whole; null takes it away; an Entrypoint without a Cmd takes the base's Cmd
 * away. A document that has one of config, architecture, os, rootfs and history is a whole config,
 * of which rootfs and history do not count; any other is the inner object.
 * -EINVAL: it is not JSON, or a field has a type that no runtime takes.
 */
int oci_config_build(const struct oci_build *build, struct buf *ret, const char **ret_why);
/* The index.json of an OCI layout that names one image; REF_NAME (may be NULL) becomes
 * org.opencontainers.image.ref.name. PREVIOUS (may be NULL) is the index.json it is to be
 * added to: its entry of the same ref name is replaced, all others and unknown fields stay.
 * A NULL DESCRIPTOR removes the entry (-ENOENT if there is none). */
int oci_index_update(const char *previous, size_t previous_len,
		     const struct oci_descriptor *descriptor, const char *ref_name,
		     struct buf *ret);
/* The index.json PREVIOUS without its entries of DIGEST, whatever they are called; -ENOENT if there
 * is none. */
int oci_index_remove(const char *previous, size_t previous_len, const struct digest *digest,
		     struct buf *ret);

/* docker save's manifest.json: [{Config, RepoTags, Layers}]. */
struct docker_archive_entry {
	char *config; /* path in the archive */
	char **repo_tags;
	size_t nrepo_tags;
	char **layers; /* paths in the archive */
	size_t nlayers;
};
struct docker_archive {
	struct docker_archive_entry *entries;
	size_t nentries;
};
int docker_archive_parse(const char *json, size_t len, struct docker_archive *ret,
			 const char **ret_why);
void docker_archive_release(struct docker_archive *archive);
int docker_archive_write(const struct docker_archive *archive, struct buf *ret);

/* Lists: {"repositories": […]}, {"tags": […] or null}. FN gets each string in order and
 * stops the walk by returning non-zero, which is then returned. */
typedef int oci_name_fn(void *arg, const char *name);
int oci_names_parse(const char *json, size_t len, const char *field, oci_name_fn *fn, void *arg,
		    const char **ret_why);
/* One string field of a flat object (a token service's answer): a copy, or NULL. */
char *oci_json_string(const char *json, size_t len, const char *field);
/* A whole number field; DEFLT where absent. */
int64_t oci_json_number(const char *json, size_t len, const char *field, int64_t deflt);
/* The registry's own words in an error body: "CODE: message (detail)". The caller frees; NULL if
 * the body is not such a document (distribution-spec, "Error Codes"). CODE alone goes
 * into RET_CODE (at most 63 bytes), "" if none. */
char *oci_error_message(const char *json, size_t len, char ret_code[static 64]);

#endif
