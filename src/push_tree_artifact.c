/* SPDX-License-Identifier: Apache-2.0 */
/*
 * push_tree_artifact: files/ as an artifact: each file a blob that is named by its title
 * (image-spec, manifest.md, "Guidelines for Artifact Usage").
 * Must not know images.
 */
#include <errno.h>

#include "push_tree_priv.h"

#define TITLE	       "org.opencontainers.image.title"
#define TYPE_FILE      "application/octet-stream"
#define TYPE_ARTIFACT  "application/vnd.unknown.artifact.v1"
#define MEDIA_TYPE_MAX 256
#define FILES_MAX      4096 /* what readers of manifests take */
#define DEPTH_MAX      64
#define TITLE_MAX      4096

struct artifact_file {
	struct push_task task;
	struct push_run *run;
	struct stage_inode *inode; /* held */
	char media_type[MEDIA_TYPE_MAX];
	struct oci_annotation title;
	struct digest digest;
	uint64_t size;
};

struct artifact {
	struct push_tree *tree;
	struct push_run run;
	struct artifact_file *files;
	size_t nfiles;
	struct buf path;
};

static void artifact_release(struct artifact *artifact)
{
	for (size_t i = 0; i < artifact->nfiles; i++) {
		stage_inode_unref(artifact->files[i].inode);
		free(artifact->files[i].title.value);
	}
	free(artifact->files);
	buf_release(&artifact->path);
}

/* "type/subtype" without anything that would end it (RFC 6838, section 4.2). */
static bool is_media_type(const char *type)
{
	const char *slash = strchr(type, '/');

	return slash && slash > type && slash[1] && !strchr(slash + 1, '/') &&
	       strspn(type, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
			    "!#$&-^_.+/") == strlen(type);
}

/* The attribute NAME, or DEFLT. */
static int read_type(struct stage_inode *inode, const char *name, const char *deflt,
		     char out[static MEDIA_TYPE_MAX])
{
	ssize_t len = stage_getxattr(inode, name, out, MEDIA_TYPE_MAX - 1);

	if (len == -ENODATA)
		len = snprintf(out, MEDIA_TYPE_MAX, "%s", deflt);
	if (len >= 0)
		out[len] = '\0';
	return len >= 0 && strlen(out) == (size_t)len && is_media_type(out) ? 0 : -EINVAL;
}

/* --- collecting --- */

static int add_file(struct artifact *artifact, struct stage_inode *inode, const struct stat *st)
{
	struct artifact_file *grown = reallocarray(artifact->files, artifact->nfiles + 1,
						   sizeof(*grown));
	struct push *push = artifact->tree->push;

	if (!grown)
		return -ENOMEM;
	artifact->files = grown;
	if (artifact->nfiles >= FILES_MAX)
		return push_fail(&push->why, -EINVAL, TREE_FILES "/ holds more than %d files",
				 FILES_MAX);
	struct artifact_file *file = &grown[artifact->nfiles];
	*file = (struct artifact_file){.size = (uint64_t)st->st_size};
	int err = read_type(inode, TREE_MEDIA_TYPE, TYPE_FILE, file->media_type);
	if (err)
		return push_fail(&push->why, err,
				 TREE_FILES "/%s: " TREE_MEDIA_TYPE " is not a media type",
				 artifact->path.data);
	file->title = (struct oci_annotation){(char *)TITLE, strdup(artifact->path.data)};
	if (!file->title.value)
		return -ENOMEM;
	file->inode = stage_inode_ref(inode);
	artifact->nfiles++;
	return 0;
}

static int add_dir(struct artifact *artifact, struct stage_inode *dir, unsigned depth);

static int add_child(struct artifact *artifact, const struct stage_child *child, unsigned depth)
{
	size_t len = artifact->path.len;
	struct stat st;

	stage_stat(child->inode, &st);
	int err = buf_printf(&artifact->path, "%s%s", len ? "/" : "", child->name);
	if (err)
		return err;
	if (S_ISDIR(st.st_mode))
		err = add_dir(artifact, child->inode, depth + 1);
	else if (S_ISREG(st.st_mode))
		err = add_file(artifact, child->inode, &st);
	else
		err = push_fail(&artifact->tree->push->why, -EINVAL,
				TREE_FILES "/%s: an artifact has regular files only",
				artifact->path.data);
	artifact->path.len = len;
	artifact->path.data[len] = '\0';
	return err;
}

static int add_dir(struct artifact *artifact, struct stage_inode *dir, unsigned depth)
{
	CLEANUP(stage_children_release) struct stage_children children = {0};

	if (depth > DEPTH_MAX)
		return push_fail(&artifact->tree->push->why, -EINVAL,
				 TREE_FILES "/ is deeper than %d directories", DEPTH_MAX);
	int err = stage_sorted(dir, &children);
	for (size_t i = 0; i < children.n && !err; i++)
		err = add_child(artifact, &children.children[i], depth);
	return err;
}

/* --- sending --- */

static int file_run(struct push_task *task, struct wait *wait)
{
	struct artifact_file *file = CONTAINER_OF(task, struct artifact_file, task);
	const struct store_source source = {
		.read = push_tree_source, .arg = file->inode, .size = file->size};
	const struct push_blob blob = {
		.repo = file->run->push->repo,
		.digest = &file->digest,
		.source = &source,
		.share = file->size,
	};

	int err = push_tree_digest(file->inode, DIGEST_SHA256, wait, &file->digest);
	return err ? err : push_send(file->run, &blob, wait);
}

static int send_files(struct artifact *artifact)
{
	AUTO_FREE struct push_task **tasks = calloc(artifact->nfiles + 1,
						    sizeof(struct push_task *));
	uint64_t total = strlen(OCI_EMPTY_JSON);

	if (!tasks)
		return -ENOMEM;
	for (size_t i = 0; i < artifact->nfiles; i++) {
		artifact->files[i].task.run = file_run;
		artifact->files[i].run = &artifact->run;
		tasks[i] = &artifact->files[i].task;
		total += artifact->files[i].size;
	}
	push_sending(artifact->tree->push, total);
	return push_tasks_run(artifact->tree->push->pushes->options.jobs, tasks, artifact->nfiles,
			      PUSH_PARALLEL, artifact->run.wait);
}

static int put_manifest(struct artifact *artifact, const char *type)
{
	AUTO_BUF struct buf text = BUF_INIT(OCI_MANIFEST_MAX);
	AUTO_FREE struct oci_descriptor *layers = calloc(artifact->nfiles, sizeof(*layers));
	struct archive_document document = {.media_type = (char *)OCI_TYPE_MANIFEST};
	struct push *push = artifact->tree->push;

	if (!layers)
		return -ENOMEM;
	for (size_t i = 0; i < artifact->nfiles; i++) {
		struct artifact_file *file = &artifact->files[i];
		layers[i] = (struct oci_descriptor){
			.media_type = file->media_type,
			.digest = file->digest,
			.size = (int64_t)file->size,
			.annotations = &file->title,
			.nannotations = 1,
		};
	}
	int err = oci_artifact_write(type, layers, artifact->nfiles, &text);
	if (err == -EFBIG)
		return push_fail(&push->why, -EINVAL, "the artifact's manifest would be too large");
	if (err)
		return err;
	document.bytes = text.data;
	document.len = text.len;
	return push_manifest(push, push->tag, &document, artifact->run.wait);
}

int push_tree_artifact(struct push_tree *tree, struct wait *wait)
{
	CLEANUP(artifact_release)
	struct artifact artifact = {
		.tree = tree,
		.run = {.push = tree->push, .why = &tree->push->why, .wait = wait, .fd = -1},
		.path = BUF_INIT(TITLE_MAX),
	};
	AUTO_INODE struct stage_inode *files = NULL;
	char type[MEDIA_TYPE_MAX];
	struct digest empty;

	int err = stage_find(tree->stage, TREE_FILES, &files);
	if (!err && read_type(files, TREE_ARTIFACT_TYPE, TYPE_ARTIFACT, type) < 0)
		return push_fail(&tree->push->why, -EINVAL,
				 TREE_FILES ": " TREE_ARTIFACT_TYPE " is not a media type");
	if (!err)
		err = buf_reserve(&artifact.path, 1);
	if (!err)
		err = add_dir(&artifact, files, 0);
	if (err)
		return err;
	if (!artifact.nfiles)
		return push_fail(&tree->push->why, -EINVAL, TREE_FILES "/ is empty");
	err = send_files(&artifact);
	digest_of(DIGEST_SHA256, OCI_EMPTY_JSON, strlen(OCI_EMPTY_JSON), &empty);
	if (!err)
		err = push_tree_send_bytes(&artifact.run, OCI_EMPTY_JSON, strlen(OCI_EMPTY_JSON),
					   &empty);
	return err ? err : put_manifest(&artifact, type);
}
