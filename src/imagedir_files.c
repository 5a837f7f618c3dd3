/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imagedir_files: sizes and bytes of an image directory's files, and the text of history.
 */
#include <errno.h>
#include <inttypes.h>

#include "imagedir_priv.h"

#define HISTORY_MAX (4 * MIB)

/* --- entries --- */

int imagedir_entry(struct imagedir *dir, uint64_t sub, struct call *call, struct node_entry *ret)
{
	struct node_entry entry = {
		.ref = {.node = &dir->node, .sub = sub},
		.timeout = NODE_FOREVER,
	};
	int r = imagedir_getattr(&entry.ref, call, &entry.attr);

	if (r < 0)
		return r;
	node_ref(&dir->node);
	*ret = entry;
	return 0;
}

int imagedir_node_entry(struct node *node, struct call *call, struct node_entry *ret)
{
	struct node_entry entry = {.ref = {.node = node}, .timeout = NODE_FOREVER};
	int r = node_getattr(&entry.ref, call, &entry.attr);

	if (r < 0) {
		node_unref(node);
		return r;
	}
	*ret = entry;
	return 0;
}

int imagedir_list_name(const struct imagedir *dir, uint64_t pos, const char *name, mode_t type,
		       node_list_fn *fn, void *arg)
{
	struct node_listed listed = {
		.pos = pos,
		.name = name,
		.len = strlen(name),
		.type = type,
		.ino = node_ino(&dir->node, name),
	};

	return fn(arg, &listed);
}

/* --- history --- */

static int add_oneline(struct buf *text, const char *command)
{
	int r = 0;

	/* commands come with tabs and line ends of their own: one step is one line here */
	for (const char *c = command; *c && r == 0; c++)
		r = buf_add(text, *c == '\n' || *c == '\t' || *c == '\r' ? " " : c, 1);
	return r < 0 ? r : buf_puts(text, "\n");
}

static int history_text(const struct oci_manifest *manifest, const struct oci_config *config,
			struct buf *ret)
{
	size_t layer = 0;
	int r = buf_printf(ret, "%-5s %14s  %-20s  %s\n", "LAYER", "SIZE", "CREATED", "CREATED BY");

	for (size_t i = 0; i < config->nhistory && r == 0; i++) {
		const struct oci_history *step = &config->history[i];
		bool has_layer = !step->empty_layer && layer < manifest->nlayers;

		if (has_layer)
			r = buf_printf(ret, "%-5zu %14" PRId64, layer + 1,
				       manifest->layers[layer].size);
		else
			r = buf_printf(ret, "%-5s %14d", "-", 0);
		layer += has_layer;
		if (r == 0)
			r = buf_printf(ret, "  %-20.19s  ", step->created ? step->created : "-");
		if (r == 0)
			r = add_oneline(ret, step->created_by ? step->created_by
					     : step->comment  ? step->comment
							      : "-");
	}
	/* layers that the history does not tell of */
	for (; layer < manifest->nlayers && r == 0; layer++)
		r = buf_printf(ret, "%-5zu %14" PRId64 "  %-20s  -\n", layer + 1,
			       manifest->layers[layer].size, "-");
	return r;
}

static int imagedir_history(struct imagedir *dir, struct wait *wait, const char **ret)
{
	AUTO_BUF struct buf text = BUF_INIT(HISTORY_MAX);
	const struct oci_config *config;
	int r;

	pthread_mutex_lock(&dir->lock);
	*ret = dir->history;
	pthread_mutex_unlock(&dir->lock);
	if (*ret)
		return 0;
	r = image_config(dir->main, wait, &config);
	if (r == 0)
		r = history_text(imagedir_main(dir), config, &text);
	if (r < 0)
		return r;
	pthread_mutex_lock(&dir->lock);
	if (!dir->history)
		dir->history = buf_steal(&text, NULL);
	*ret = dir->history;
	pthread_mutex_unlock(&dir->lock);
	return 0;
}

/* --- attributes --- */

static uint64_t digest_file(const struct imagedir *dir, char out[static DIGEST_STR_MAX + 1])
{
	return snprintf(out, DIGEST_STR_MAX + 1, "%s\n",
			digest_format(image_digest(dir->image), (char[DIGEST_STR_MAX]){0}));
}

static int top_size(struct imagedir *dir, enum imagedir_sub sub, struct wait *wait, uint64_t *ret)
{
	char digest[DIGEST_STR_MAX + 1];
	const struct archive_map *map;
	const char *text;
	size_t len;
	int r = 0;

	switch (sub) {
	case SUB_DIGEST:
		*ret = digest_file(dir, digest);
		return 0;
	case SUB_MANIFEST:
		image_manifest_bytes(dir->image, &text, &len);
		*ret = len;
		return 0;
	case SUB_CONFIG:
		*ret = imagedir_main(dir)->config.size;
		return 0;
	case SUB_HISTORY:
		r = imagedir_history(dir, wait, &text);
		if (r == 0)
			*ret = strlen(text);
		return r;
	case SUB_TAR:
		r = imagedir_map(dir, wait, &map);
		if (r == 0)
			*ret = map->size;
		return r;
	default:
		return -EISDIR;
	}
}

static bool is_directory(uint64_t sub)
{
	switch (sub_class(sub)) {
	case CLASS_TOP:
		return sub == SUB_DIR || sub == SUB_LAYERS || sub == SUB_OCI ||
		       sub == SUB_PLATFORMS || sub == SUB_REFERRERS || sub == SUB_FILES;
	default:
		return sub_class(sub) == CLASS_OCI_DIR || sub_class(sub) == CLASS_FILE_DIR;
	}
}

static int file_size(struct imagedir *dir, uint64_t sub, struct wait *wait, uint64_t *ret)
{
	const struct oci_descriptor *blob;
	const struct archive_map *map;
	int r;

	switch (sub_class(sub)) {
	case CLASS_LAYER:
		*ret = imagedir_main(dir)->layers[sub_number(sub)].size;
		return 0;
	case CLASS_FILE:
		blob = imagedir_artifact_blob(dir, sub);
		if (blob)
			*ret = blob->size;
		return blob ? 0 : -ENOMEM;
	case CLASS_OCI_FILE:
		r = imagedir_map(dir, wait, &map);
		if (r == 0)
			*ret = map->files[sub_number(sub)].size;
		return r;
	default:
		return top_size(dir, sub, wait, ret);
	}
}

/* The time of an image's files is that of the image, where its config is at hand. */
static void set_times(struct imagedir *dir, struct stat *st)
{
	const struct oci_config *config;
	uint32_t nsec;
	int64_t sec;
	struct wait wait;

	if (!dir->main || !oci_is_image(imagedir_main(dir)))
		return;
	wait_init(&wait, false);
	if (image_config(dir->main, &wait, &config) == 0 && config->created &&
	    oci_time_parse(config->created, &sec, &nsec) == 0) {
		st->st_mtim = (struct timespec){.tv_sec = sec, .tv_nsec = nsec};
		st->st_ctim = st->st_mtim;
	}
	wait_release(&wait);
}

static double blob_timeout(const struct imagedir *dir, const struct oci_descriptor *blob,
			   struct stat *st)
{
	struct blob_id id;

	if (!blob || blob->data)
		return NODE_FOREVER;
	image_blob_id(dir->main, blob, &id);
	return context_raw(dir->context, &id, st);
}

static double oci_timeout(const struct imagedir *dir, const struct archive_file *file,
			  struct stat *st)
{
	const struct blob_id id = imagedir_oci_blob(dir, file);

	return file->bytes ? NODE_FOREVER : context_raw(dir->context, &id, st);
}

/* How long ST may be believed, which changes where bytes that were given are not to be any more. */
static double file_timeout(struct imagedir *dir, uint64_t sub, struct wait *wait, struct stat *st)
{
	const struct oci_manifest *manifest = imagedir_main(dir);
	const struct archive_map *map;
	double timeout = NODE_FOREVER;

	if (sub_class(sub) == CLASS_LAYER)
		return blob_timeout(dir, &manifest->layers[sub_number(sub)], st);
	if (sub_class(sub) == CLASS_FILE)
		return blob_timeout(dir, imagedir_artifact_blob(dir, sub), st);
	if (sub == SUB_CONFIG && !oci_is_image(manifest))
		return blob_timeout(dir, &manifest->config, st);
	if ((sub != SUB_TAR && sub_class(sub) != CLASS_OCI_FILE) ||
	    imagedir_map(dir, wait, &map) < 0)
		return timeout;
	if (sub != SUB_TAR)
		return oci_timeout(dir, &map->files[sub_number(sub)], st);
	for (size_t i = 0; i < map->nfiles; i++)
		timeout = MIN(timeout, oci_timeout(dir, &map->files[i], st));
	return timeout;
}

int imagedir_getattr(const struct node_ref *ref, struct call *call, struct node_attr *ret)
{
	struct imagedir *dir = imagedir_of(ref);
	uint64_t ino = ref->sub == SUB_DIR ? ref->node->ino
					   : hash64(ref->node->ino, &ref->sub, sizeof(ref->sub));
	mode_t mode = S_IFREG | 0444;
	uint64_t size = 0;
	int r = 0;

	if (is_directory(ref->sub))
		mode = S_IFDIR | 0755;
	else
		r = file_size(dir, ref->sub, call->wait, &size);
	if (r < 0)
		return r;
	context_stat(dir->context, ino, mode, size, &ret->st);
	set_times(dir, &ret->st);
	ret->timeout = file_timeout(dir, ref->sub, call->wait, &ret->st);
	if (ref->sub == SUB_REFERRERS)
		imagedir_referrers_attr(dir, ret);
	return 0;
}

/* --- bytes --- */

static ssize_t read_blob(struct imagedir *dir, const struct oci_descriptor *descriptor,
			 uint64_t off, void *buf, size_t len, struct wait *wait)
{
	struct blob_id id;

	if (!descriptor)
		return -ENOMEM;
	if (descriptor->data)
		return context_copy(descriptor->data, descriptor->data_len, off, buf, len);
	image_blob_id(dir->main, descriptor, &id);
	return blob_read_raw(dir->context->blobs, &id, off, buf, len, wait);
}

static ssize_t read_config(struct imagedir *dir, uint64_t off, void *buf, size_t len,
			   struct wait *wait)
{
	const struct oci_manifest *manifest = imagedir_main(dir);
	const char *bytes;
	size_t size;
	int r;

	/* an artifact's config may be anything, and large */
	if (!oci_is_image(manifest))
		return read_blob(dir, &manifest->config, off, buf, len, wait);
	r = image_config_bytes(dir->main, wait, &bytes, &size);
	return r < 0 ? r : context_copy(bytes, size, off, buf, len);
}

ssize_t imagedir_read(const struct node_ref *ref, uint64_t off, void *buf, size_t len,
		      struct call *call)
{
	struct imagedir *dir = imagedir_of(ref);
	char digest[DIGEST_STR_MAX + 1];
	const struct archive_map *map;
	const char *text;
	size_t size;
	int r;

	switch (sub_class(ref->sub)) {
	case CLASS_LAYER:
		return read_blob(dir, &imagedir_main(dir)->layers[sub_number(ref->sub)], off, buf,
				 len, call->wait);
	case CLASS_OCI_FILE:
		r = imagedir_map(dir, call->wait, &map);
		if (r < 0)
			return r;
		return imagedir_oci_read(dir, &map->files[sub_number(ref->sub)], off, buf, len,
					 call->wait);
	case CLASS_FILE:
		return read_blob(dir, imagedir_artifact_blob(dir, ref->sub), off, buf, len,
				 call->wait);
	case CLASS_OCI_DIR:
	case CLASS_FILE_DIR:
		return -EISDIR;
	default:
		break;
	}
	switch (ref->sub) {
	case SUB_DIGEST:
		size = digest_file(dir, digest);
		return context_copy(digest, size, off, buf, len);
	case SUB_MANIFEST:
		image_manifest_bytes(dir->image, &text, &size);
		return context_copy(text, size, off, buf, len);
	case SUB_CONFIG:
		return read_config(dir, off, buf, len, call->wait);
	case SUB_HISTORY:
		r = imagedir_history(dir, call->wait, &text);
		return r < 0 ? r : context_copy(text, strlen(text), off, buf, len);
	case SUB_TAR:
		return imagedir_tar_read(dir, off, buf, len, call->wait);
	default:
		return -EISDIR;
	}
}
