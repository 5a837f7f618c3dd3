/* SPDX-License-Identifier: Apache-2.0 */
/*
 * push_tree: what kind of tree it is, and the one verdict at a time.
 * Must not know how each kind becomes an image.
 */
#include <errno.h>

#include "push_tree_priv.h"

int push_tree_new(struct pushes *pushes, const struct push_tree_options *options,
		  struct push_tree **ret)
{
	struct push_tree *tree = calloc(1, sizeof(*tree));
	int err = -ENOMEM;

	if (tree)
		err = push_new(pushes, options->store, options->repo, options->tag, options->label,
			       &tree->push);
	if (err) {
		free(tree);
		return err;
	}
	tree->stage = options->stage;
	tree->blobs = options->blobs;
	tree->platform = options->platform;
	tree->travels = travels_new(tree);
	if (!tree->travels) {
		push_tree_free(tree);
		return -ENOMEM;
	}
	*ret = tree;
	return 0;
}

void push_tree_free(struct push_tree *tree)
{
	if (!tree)
		return;
	travels_free(tree->travels);
	push_unref(tree->push);
	free(tree);
}

bool push_tree_tag(struct push_tree *tree, char out[static REF_TAG_MAX])
{
	struct push *push = tree->push;

	pthread_mutex_lock(&push->lock);
	snprintf(out, REF_TAG_MAX, "%s", push->tag ? push->tag : "");
	pthread_mutex_unlock(&push->lock);
	return *out;
}

/* --- reading the tree --- */

int push_tree_read(struct stage_inode *file, size_t max, struct buf *ret)
{
	struct stat st;

	stage_stat(file, &st);
	if (st.st_size < 0 || (uint64_t)st.st_size > max)
		return -EFBIG;
	int err = buf_reserve(ret, (size_t)st.st_size + 1);
	if (err)
		return err;
	ssize_t got = stage_read(file, 0, ret->data, (size_t)st.st_size);
	if (got < 0)
		return (int)got;
	ret->len = (size_t)got;
	ret->data[ret->len] = '\0';
	return 0;
}

ssize_t push_tree_source(void *arg, uint64_t off, void *buf, size_t cap)
{
	return stage_read(arg, off, buf, cap);
}

int push_tree_digest(struct stage_inode *file, enum digest_algo algo, struct wait *wait,
		     struct digest *ret)
{
	AUTO_HASHER struct hasher *hasher = hasher_new(algo);
	AUTO_FREE char *piece = malloc(PUSH_PIECE);
	ssize_t got;

	if (!hasher || !piece)
		return -ENOMEM;
	for (uint64_t off = 0; (got = stage_read(file, off, piece, PUSH_PIECE)) > 0;
	     off += (uint64_t)got) {
		if (wait_cancelled(wait))
			return -EINTR;
		hasher_add(hasher, piece, (size_t)got);
	}
	if (got < 0)
		return (int)got;
	hasher_final(hasher, ret);
	return 0;
}

int push_tree_send_bytes(struct push_run *run, const void *data, size_t len,
			 const struct digest *digest)
{
	struct store_bytes bytes = {.data = data, .len = len};
	const struct store_source source = {.read = store_bytes_read, .arg = &bytes, .size = len};
	const struct push_blob blob = {
		.repo = run->push->repo, .digest = digest, .source = &source, .share = len};

	return push_send(run, &blob, run->wait);
}

/* --- what it is --- */

enum kind { KIND_EMPTY, KIND_BUILD, KIND_ARTIFACT, KIND_LAYOUT };

static const struct part {
	const char *name;
	enum kind kind;
	mode_t type;
	const char *is; /* for words */
} parts[] = {
	{TREE_ROOTFS, KIND_BUILD, S_IFDIR, "a directory"},
	{TREE_BASE, KIND_BUILD, S_IFLNK, "a link to an image's directory"},
	{TREE_CONFIG, KIND_BUILD, S_IFREG, "a file"},
	{TREE_FILES, KIND_ARTIFACT, S_IFDIR, "a directory"},
	{"oci-layout", KIND_LAYOUT, S_IFREG, "a file"},
	{"index.json", KIND_LAYOUT, S_IFREG, "a file"},
	{"blobs", KIND_LAYOUT, S_IFDIR, "a directory"},
};

static const struct part *part_of(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		if (!strcmp(parts[i].name, name))
			return &parts[i];
	}
	return NULL;
}

static int classify_child(struct push *push, const struct stage_child *child, enum kind *kind)
{
	const struct part *part = part_of(child->name);
	struct stat st;

	if (!part)
		return push_fail(&push->why, -EINVAL,
				 "%s: it has no meaning here; there may be rootfs/, base and "
				 "config.json, or files/, or an OCI layout",
				 child->name);
	stage_stat(child->inode, &st);
	if ((st.st_mode & S_IFMT) != part->type)
		return push_fail(&push->why, -EINVAL, "%s is not %s", child->name, part->is);
	if (*kind != KIND_EMPTY && *kind != part->kind)
		return push_fail(&push->why, -EINVAL,
				 "%s does not go with what else is there: an image is built of "
				 "rootfs/, base and config.json, an artifact of files/ alone",
				 child->name);
	*kind = part->kind;
	return 0;
}

static int classify(struct push_tree *tree, enum kind *ret)
{
	CLEANUP(stage_children_release) struct stage_children top = {0};
	AUTO_INODE struct stage_inode *root = stage_root(tree->stage);
	enum kind kind = KIND_EMPTY;

	int err = stage_sorted(root, &top);
	for (size_t i = 0; i < top.n && !err; i++)
		err = classify_child(tree->push, &top.children[i], &kind);
	*ret = kind;
	return err;
}

bool push_tree_is_layout(struct push_tree *tree)
{
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		AUTO_INODE struct stage_inode *part = NULL;
		if (parts[i].kind == KIND_LAYOUT &&
		    stage_find(tree->stage, parts[i].name, &part) == 0)
			return true;
	}
	return false;
}

/* --- the verdict --- */

bool push_tree_is_confirmed(struct push_tree *tree)
{
	uint64_t version = stage_version(tree->stage);

	if (push_tree_is_layout(tree))
		return push_tree_layout_is_confirmed(tree);
	pthread_mutex_lock(&tree->push->lock);
	bool confirmed = tree->judged == version && tree->verdict == 0;
	pthread_mutex_unlock(&tree->push->lock);
	return confirmed;
}

/* Waits its turn. 1: it is this thread's, and tree_end() is due; else *RET_VERDICT says it all. */
static int tree_begin(struct push_tree *tree, struct wait *wait, int *ret_verdict)
{
	struct push *push = tree->push;
	int mine = 0;

	pthread_mutex_lock(&push->lock);
	int err = push_await_turn(push, wait);
	pthread_mutex_unlock(&push->lock);
	uint64_t version = stage_version(tree->stage);
	pthread_mutex_lock(&push->lock);
	if (!err)
		err = push_await_turn(push, wait);
	if (!err && tree->judged == version) {
		err = tree->verdict;
	} else if (!err) {
		push_claim(push);
		mine = 1;
	}
	pthread_mutex_unlock(&push->lock);
	*ret_verdict = err;
	return mine;
}

/* What was called off may be tried again as it is. */
static void tree_end(struct push_tree *tree, uint64_t version, int verdict)
{
	pthread_mutex_lock(&tree->push->lock);
	tree->judged = verdict == -EINTR ? 0 : version;
	tree->verdict = verdict;
	pthread_mutex_unlock(&tree->push->lock);
	push_judge(tree->push, verdict, false);
}

static int publish(struct push_tree *tree, const struct push_base *base, struct wait *wait)
{
	enum kind kind = KIND_EMPTY;
	int err = classify(tree, &kind);

	if (err)
		return err;
	switch (kind) {
	case KIND_BUILD:
		return push_tree_build(tree, base, wait);
	case KIND_ARTIFACT:
		return push_tree_artifact(tree, wait);
	default:
		return push_fail(&tree->push->why, -EINVAL, "the directory is empty");
	}
}

/* Who asks for a verdict once more may have mended what is not in the tree: the base, or the
 * registry. */
static void forget_failure(struct push_tree *tree)
{
	pthread_mutex_lock(&tree->push->lock);
	if (tree->verdict < 0)
		tree->judged = 0;
	pthread_mutex_unlock(&tree->push->lock);
}

int push_tree_sync(struct push_tree *tree, const struct push_base *base, struct wait *wait)
{
	char tag[REF_TAG_MAX];
	int verdict;

	if (!wait_may_block(wait))
		return -EWOULDBLOCK;
	if (!push_tree_tag(tree, tag))
		return 0;
	forget_failure(tree);
	if (push_tree_is_layout(tree))
		return push_tree_layout_judge(tree, true, wait);
	if (!tree_begin(tree, wait, &verdict))
		return verdict;
	verdict = stage_freeze(tree->stage, wait);
	uint64_t version = stage_version(tree->stage);
	if (!verdict) {
		verdict = publish(tree, base, wait);
		stage_thaw(tree->stage);
	}
	tree_end(tree, version, verdict);
	return verdict ? verdict : 1;
}

/* --- names --- */

/* What goes with a name. */
struct named {
	char *tag, *label;
	uint64_t judged;
	int verdict;
	struct digest published;
};

static void named_release(struct named *named)
{
	free(named->tag);
	free(named->label);
}

/* Gives the tree what is in NAMED, and gets what it had. */
static int exchange(struct push_tree *tree, struct named *named, struct wait *wait)
{
	struct push *push = tree->push;

	pthread_mutex_lock(&push->lock);
	int err = push_await_turn(push, wait);
	if (!err) {
		const struct named had = {push->tag, push->label, tree->judged, tree->verdict,
					  tree->published};
		push->tag = named->tag;
		push->label = named->label;
		tree->judged = named->judged;
		tree->verdict = named->verdict;
		tree->published = named->published;
		*named = had;
	}
	pthread_mutex_unlock(&push->lock);
	return err;
}

static void exchange_back(struct push_tree *tree, struct named *named)
{
	struct wait patient;

	wait_init(&patient, true);
	(void)exchange(tree, named, &patient);
	wait_release(&patient);
}

int push_tree_rename(struct push_tree *tree, const struct push_tree_name *name,
		     const struct push_base *base, struct wait *wait)
{
	AUTO_INODE struct stage_inode *root = stage_root(tree->stage);
	CLEANUP(named_release)
	struct named named = {.tag = name->tag ? strdup(name->tag) : NULL,
			      .label = strdup(name->label)};

	if (!wait_may_block(wait))
		return -EWOULDBLOCK;
	if ((name->tag && !named.tag) || !named.label)
		return -ENOMEM;
	int verdict = exchange(tree, &named, wait);
	if (verdict || !name->tag || stage_is_empty(root))
		return verdict;
	verdict = push_tree_sync(tree, base, wait);
	if (verdict < 0)
		exchange_back(tree, &named);
	return verdict;
}
