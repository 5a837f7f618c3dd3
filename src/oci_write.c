// SPDX-License-Identifier: Apache-2.0
/*
 * oci_write: new manifests, and the index.json of layouts. Knows what the specifications ask a
 * writer for. Must not know where the documents go.
 */
#include <errno.h>
#include <inttypes.h>

#include "oci_priv.h"

/* --- manifests: text, in a fixed order of fields --- */

/* As the last field of an object, which stays open; nothing where there is none. */
static int put_annotations(struct buf *text, const struct oci_annotation *annotations, size_t n)
{
	int err = 0;

	for (size_t i = 0; !err && i < n; i++) {
		err = buf_puts(text, i == 0 ? ",\"annotations\":{" : ",");
		if (!err)
			err = buf_json_string(text, annotations[i].key);
		if (!err)
			err = buf_puts(text, ":");
		if (!err)
			err = buf_json_string(text, annotations[i].value);
	}
	return err || n == 0 ? err : buf_puts(text, "}");
}

static int add_descriptor(struct buf *text, const struct oci_descriptor *descriptor)
{
	char digest[DIGEST_STR_MAX];
	int err = buf_puts(text, "{\"mediaType\":");

	if (!err)
		err = buf_json_string(text, descriptor->media_type);
	if (!err)
		err = buf_printf(text, ",\"digest\":\"%s\",\"size\":%" PRId64,
				 digest_format(&descriptor->digest, digest), descriptor->size);
	if (!err && descriptor->artifact_type) {
		err = buf_puts(text, ",\"artifactType\":");
		if (!err)
			err = buf_json_string(text, descriptor->artifact_type);
	}
	if (!err)
		err = put_annotations(text, descriptor->annotations, descriptor->nannotations);
	return err ? err : buf_puts(text, "}");
}

/* Appends TEXT as a whole or not at all. */
static int hand_over(const struct buf *text, struct buf *ret)
{
	return buf_add(ret, text->data, text->len);
}

static int add_parts(struct buf *text, const struct oci_descriptor *config,
		     const struct oci_descriptor *layers, size_t nlayers)
{
	int err = buf_puts(text, ",\"config\":");

	if (!err)
		err = add_descriptor(text, config);
	if (!err)
		err = buf_puts(text, ",\"layers\":[");
	for (size_t i = 0; !err && i < nlayers; i++) {
		if (i > 0)
			err = buf_puts(text, ",");
		if (!err)
			err = add_descriptor(text, &layers[i]);
	}
	return err ? err : buf_puts(text, "]");
}

int oci_manifest_write(const char *media_type, const struct oci_descriptor *config,
		       const struct oci_descriptor *layers, size_t nlayers, struct buf *ret)
{
	AUTO_BUF struct buf text = BUF_INIT(OCI_MANIFEST_MAX);
	int err = buf_puts(&text, "{\"schemaVersion\":2,\"mediaType\":");

	if (!err)
		err = buf_json_string(&text, media_type);
	if (!err)
		err = add_parts(&text, config, layers, nlayers);
	if (!err)
		err = buf_puts(&text, "}");
	return err ? err : hand_over(&text, ret);
}

/* Of an artifact: it says nothing. */
static struct oci_descriptor empty_config(const char *media_type)
{
	struct oci_descriptor config = {
		.media_type = (char *)media_type,
		.size = strlen(OCI_EMPTY_JSON),
	};

	digest_of(DIGEST_SHA256, OCI_EMPTY_JSON, strlen(OCI_EMPTY_JSON), &config.digest);
	return config;
}

int oci_artifact_write(const char *artifact_type, const struct oci_descriptor *layers,
		       size_t nlayers, struct buf *ret)
{
	AUTO_BUF struct buf text = BUF_INIT(OCI_MANIFEST_MAX);
	const struct oci_descriptor config = empty_config(OCI_TYPE_EMPTY);
	int err = buf_puts(&text, "{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_MANIFEST
				  "\",\"artifactType\":");

	if (!err)
		err = buf_json_string(&text, artifact_type);
	if (!err)
		err = add_parts(&text, &config, layers, nlayers);
	if (!err)
		err = buf_puts(&text, "}");
	return err ? err : hand_over(&text, ret);
}

int oci_about_write(const struct oci_about *about, struct buf *ret)
{
	AUTO_BUF struct buf text = BUF_INIT(OCI_MANIFEST_MAX);
	const struct oci_descriptor config = empty_config(about->config_type);
	int err = buf_puts(&text, "{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_MANIFEST "\"");

	if (!err)
		err = add_parts(&text, &config, about->layers, about->nlayers);
	if (!err)
		err = buf_puts(&text, ",\"subject\":");
	if (!err)
		err = add_descriptor(&text, about->subject);
	if (!err)
		err = put_annotations(&text, about->annotations, about->nannotations);
	if (!err)
		err = buf_puts(&text, "}");
	return err ? err : hand_over(&text, ret);
}

int oci_index_write(const struct oci_descriptor *children, size_t nchildren, struct buf *ret)
{
	AUTO_BUF struct buf text = BUF_INIT(OCI_MANIFEST_MAX);
	int err = buf_puts(&text, "{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_INDEX
				  "\",\"manifests\":[");

	for (size_t i = 0; !err && i < nchildren; i++) {
		if (i > 0)
			err = buf_puts(&text, ",");
		if (!err)
			err = add_descriptor(&text, &children[i]);
	}
	if (!err)
		err = buf_puts(&text, "]}");
	return err ? err : hand_over(&text, ret);
}

static int add_strings(struct buf *text, char *const *strings, size_t n)
{
	int err = buf_puts(text, "[");

	for (size_t i = 0; !err && i < n; i++) {
		if (i > 0)
			err = buf_puts(text, ",");
		if (!err)
			err = buf_json_string(text, strings[i]);
	}
	return err ? err : buf_puts(text, "]");
}

static int add_archive_entry(struct buf *text, const struct docker_archive_entry *entry)
{
	int err = buf_puts(text, "{\"Config\":");

	if (!err)
		err = buf_json_string(text, entry->config);
	if (!err)
		err = buf_puts(text, ",\"RepoTags\":");
	if (!err)
		err = entry->nrepo_tags > 0 ? add_strings(text, entry->repo_tags, entry->nrepo_tags)
					    : buf_puts(text, "null");
	if (!err)
		err = buf_puts(text, ",\"Layers\":");
	if (!err)
		err = add_strings(text, entry->layers, entry->nlayers);
	return err ? err : buf_puts(text, "}");
}

int docker_archive_write(const struct docker_archive *archive, struct buf *ret)
{
	AUTO_BUF struct buf text = BUF_INIT(OCI_MANIFEST_MAX);
	int err = buf_puts(&text, "[");

	for (size_t i = 0; !err && i < archive->nentries; i++) {
		if (i > 0)
			err = buf_puts(&text, ",");
		if (!err)
			err = add_archive_entry(&text, &archive->entries[i]);
	}
	if (!err)
		err = buf_puts(&text, "]");
	return err ? err : hand_over(&text, ret);
}

/* --- index.json: the tree that was there, so that what is not ours stays --- */

static const char *string_of(const cJSON *object, const char *name)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

static const char *entry_name(const cJSON *entry)
{
	return string_of(cJSON_GetObjectItemCaseSensitive(entry, "annotations"), OCI_REF_NAME);
}

static bool entry_has_digest(const cJSON *entry, const struct digest *digest)
{
	const char *str = string_of(entry, "digest");
	struct digest parsed;

	return str && digest_parse(str, &parsed) == 0 && digest_equal(&parsed, digest);
}

static int add_platform(cJSON *entry, const struct oci_platform *platform)
{
	const struct {
		const char *name, *value;
	} fields[] = {
		{"architecture", platform->architecture},
		{"os", platform->os},
		{"os.version", platform->os_version},
		{"variant", platform->variant},
	};
	cJSON *object;

	if (!platform->os && !platform->architecture)
		return 0;
	object = cJSON_AddObjectToObject(entry, "platform");
	for (size_t i = 0; object && i < ARRAY_SIZE(fields); i++)
		if (fields[i].value &&
		    !cJSON_AddStringToObject(object, fields[i].name, fields[i].value))
			return -ENOMEM;
	return object ? 0 : -ENOMEM;
}

static int add_annotations(cJSON *entry, const struct oci_descriptor *descriptor,
			   const char *ref_name)
{
	cJSON *object;

	if (!ref_name && descriptor->nannotations == 0)
		return 0;
	object = cJSON_AddObjectToObject(entry, "annotations");
	for (size_t i = 0; object && i < descriptor->nannotations; i++) {
		const struct oci_annotation *annotation = &descriptor->annotations[i];

		if (ref_name && strcmp(annotation->key, OCI_REF_NAME) == 0)
			continue;
		if (!cJSON_AddStringToObject(object, annotation->key, annotation->value))
			return -ENOMEM;
	}
	if (object && ref_name && !cJSON_AddStringToObject(object, OCI_REF_NAME, ref_name))
		return -ENOMEM;
	return object ? 0 : -ENOMEM;
}

/* The caller deletes it. NULL when memory is short. */
static cJSON *entry_new(const struct oci_descriptor *descriptor, const char *ref_name)
{
	AUTO_JSON cJSON *entry = cJSON_CreateObject();
	char digest[DIGEST_STR_MAX];

	if (!cJSON_AddStringToObject(entry, "mediaType", descriptor->media_type) ||
	    !cJSON_AddStringToObject(entry, "digest", digest_format(&descriptor->digest, digest)) ||
	    !cJSON_AddNumberToObject(entry, "size", (double)descriptor->size))
		return NULL;
	if (descriptor->artifact_type &&
	    !cJSON_AddStringToObject(entry, "artifactType", descriptor->artifact_type))
		return NULL;
	if (add_platform(entry, &descriptor->platform) ||
	    add_annotations(entry, descriptor, ref_name))
		return NULL;
	return STEAL(entry);
}

static int index_parse(const char *previous, size_t len, cJSON **ret)
{
	static const char empty[] = "{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_INDEX
				    "\",\"manifests\":[]}";
	AUTO_JSON cJSON *root = NULL;
	const char *why;
	int err = previous ? json_parse(previous, len, OCI_MANIFEST_MAX, &root, &why)
			   : json_parse(empty, strlen(empty), OCI_MANIFEST_MAX, &root, &why);
	cJSON *entries = err ? NULL : cJSON_GetObjectItemCaseSensitive(root, "manifests");

	if (err)
		return err;
	if (!cJSON_IsObject(root))
		return -EINVAL;
	/* Go's writers of an empty list put null there. */
	if (cJSON_IsNull(entries)) {
		cJSON_DeleteItemFromObjectCaseSensitive(root, "manifests");
		entries = NULL;
	}
	if (!entries && !cJSON_AddArrayToObject(root, "manifests"))
		return -ENOMEM;
	if (entries && !cJSON_IsArray(entries))
		return -EINVAL;
	*ret = STEAL(root);
	return 0;
}

static int index_print(const cJSON *root, struct buf *ret)
{
	AUTO_FREE char *text = cJSON_PrintUnformatted(root);

	return text ? buf_puts(ret, text) : -ENOMEM;
}

/* Removes the entries of REF_NAME, or else of DIGEST. 0, or -ENOENT if there was none. */
static int remove_entries(cJSON *entries, const char *ref_name, const struct digest *digest)
{
	cJSON *entry = entries->child;
	int r = -ENOENT;

	while (entry) {
		cJSON *next = entry->next;
		const char *name = entry_name(entry);

		if (ref_name ? name && strcmp(name, ref_name) == 0
			     : entry_has_digest(entry, digest)) {
			cJSON_Delete(cJSON_DetachItemViaPointer(entries, entry));
			r = 0;
		}
		entry = next;
	}
	return r;
}

static bool has_digest(const cJSON *entries, const struct digest *digest)
{
	const cJSON *entry;

	cJSON_ArrayForEach(entry, entries)
	{
		if (entry_has_digest(entry, digest))
			return true;
	}
	return false;
}

/* The first entry of REF_NAME, or NULL. */
static cJSON *find_named(const cJSON *entries, const char *ref_name)
{
	cJSON *entry;

	cJSON_ArrayForEach(entry, entries)
	{
		const char *name = entry_name(entry);

		if (name && strcmp(name, ref_name) == 0)
			return entry;
	}
	return NULL;
}

/* Puts the entry where the one of its name stood, or at the end. Without a name it is only to be
 * found by its digest, and one entry of that is enough. */
static int put_entry(cJSON *entries, const struct oci_descriptor *descriptor, const char *ref_name)
{
	AUTO_JSON cJSON *entry = NULL;
	cJSON *old = ref_name ? find_named(entries, ref_name) : NULL;

	if (!ref_name && has_digest(entries, &descriptor->digest))
		return 0;
	entry = entry_new(descriptor, ref_name);
	if (!entry)
		return -ENOMEM;
	if (!old) {
		if (!cJSON_AddItemToArray(entries, entry))
			return -ENOMEM;
		STEAL(entry);
		return 0;
	}
	/* Others of its name that may follow go. (cJSON_InsertItemInArray() of some libraries
	 * fails before the last item.) */
	for (cJSON *at = old->next, *next; at; at = next) {
		const char *name = entry_name(at);

		next = at->next;
		if (name && strcmp(name, ref_name) == 0)
			cJSON_Delete(cJSON_DetachItemViaPointer(entries, at));
	}
	if (!cJSON_ReplaceItemViaPointer(entries, old, entry))
		return -ENOMEM;
	STEAL(entry);
	return 0;
}

int oci_index_update(const char *previous, size_t previous_len,
		     const struct oci_descriptor *descriptor, const char *ref_name, struct buf *ret)
{
	AUTO_JSON cJSON *root = NULL;
	cJSON *entries;
	int err;

	if (!descriptor && !ref_name)
		return -EINVAL;
	err = index_parse(previous, previous_len, &root);
	if (err)
		return err;
	entries = cJSON_GetObjectItemCaseSensitive(root, "manifests");
	if (descriptor)
		err = put_entry(entries, descriptor, ref_name);
	else
		err = remove_entries(entries, ref_name, NULL);
	return err ? err : index_print(root, ret);
}

int oci_index_remove(const char *previous, size_t previous_len, const struct digest *digest,
		     struct buf *ret)
{
	AUTO_JSON cJSON *root = NULL;
	int err = index_parse(previous, previous_len, &root);

	if (!err)
		err = remove_entries(cJSON_GetObjectItemCaseSensitive(root, "manifests"), NULL,
				     digest);
	return err ? err : index_print(root, ret);
}
