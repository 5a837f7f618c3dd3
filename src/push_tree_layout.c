/* SPDX-License-Identifier: Apache-2.0 */
/*
 * push_tree_layout: an OCI layout that is written into a tree, by cp, rsync or skopeo: published
 * when the last file that makes it whole is closed or gets its name.
 * Must not know how a layout is read.
 *
 * The verdict is about the image that index.json names: what else comes into the tree afterwards
 * does not change it.
 */
#include <errno.h>

#include "push_tree_priv.h"
#include "regfs/log.h"

/* --- a file that came --- */

/* Whether FILE is in blobs/ALGO under the name of a digest of that kind. */
static bool is_in(struct push_tree *tree, const char *dir, enum digest_algo algo,
		  const struct stage_inode *file, struct digest *ret)
{
	CLEANUP(stage_children_release) struct stage_children children = {0};
	AUTO_INODE struct stage_inode *blobs = NULL;
	const char *name = NULL;

	if (stage_find(tree->stage, dir, &blobs) < 0 || stage_sorted(blobs, &children) < 0)
		return false;
	for (size_t i = 0; i < children.n && !name; i++) {
		if (children.children[i].inode == file)
			name = children.children[i].name;
	}
	AUTO_FREE char *text = name ? format("%s:%s", digest_algo_name(algo), name) : NULL;
	return text && digest_parse(text, ret) == 0;
}

static void offer(struct push_tree *tree, struct stage_inode *file)
{
	struct digest digest;

	if (is_in(tree, "blobs/sha256", DIGEST_SHA256, file, &digest) ||
	    is_in(tree, "blobs/sha512", DIGEST_SHA512, file, &digest))
		travels_offer(tree->travels, file, &digest);
}

/* Whether FILE is NAME/oci-layout, for a NAME that means nothing: the caller frees it, or NULL. */
static char *nested_in(struct push_tree *tree, const struct stage_inode *file)
{
	CLEANUP(stage_children_release) struct stage_children top = {0};
	AUTO_INODE struct stage_inode *root = stage_root(tree->stage);

	if (stage_sorted(root, &top) < 0)
		return NULL;
	for (size_t i = 0; i < top.n; i++) {
		AUTO_INODE struct stage_inode *marker = NULL;
		if (!push_tree_is_part(top.children[i].name) &&
		    stage_lookup(top.children[i].inode, "oci-layout", &marker) == 0 &&
		    marker == file)
			return strdup(top.children[i].name);
	}
	return NULL;
}

/* `cp -r layout _push/TAG` copies into TAG where there is one, of a push just before: nothing would
 * be pushed, and cp succeed. */
static int check_nested(struct push_tree *tree, const struct stage_inode *file)
{
	AUTO_FREE char *name = nested_in(tree, file);

	if (!name)
		return 0;
	AUTO_FREE char *label = push_label(tree->push);
	log_error("push %s: %s/ is an OCI layout inside of the directory, which was there already: "
		  "remove that first, or cp -rT",
		  label ? label : "", name);
	return -EINVAL;
}

/* --- publishing --- */

struct part_task {
	struct push_task task;
	struct push_tree *tree;
	struct push_run *run;
	const struct layout_part *part;
	struct push_inside *inside;
};

static int check_digest(const struct part_task *part, struct wait *wait)
{
	char wanted[DIGEST_STR_MAX], found_text[DIGEST_STR_MAX];
	struct digest found;

	int err = push_tree_digest(part->part->inode, part->part->digest.algo, wait, &found);
	if (err || digest_equal(&found, &part->part->digest))
		return err;
	return push_fail(&part->tree->push->why, -EINVAL, "the layout's blob %s has the digest %s",
			 digest_format(&part->part->digest, wanted),
			 digest_format(&found, found_text));
}

/* The part is the caller's to send. */
static int part_send(struct part_task *part, struct wait *wait)
{
	const struct store_source source = {
		.read = push_tree_source, .arg = part->part->inode, .size = part->part->size};
	const struct push_blob blob = {
		.repo = part->tree->push->repo,
		.digest = &part->part->digest,
		.source = &source,
		.share = part->part->size,
	};
	AUTO_DIFF struct push_diff *diff = NULL;

	int err = part->part->layer
			  ? push_diff_start(part->tree->push, &source, blob.digest, false, &diff)
			  : 0;
	if (!err)
		err = check_digest(part, wait);
	if (!err)
		err = push_send(part->run, &blob, wait);
	if (!err && diff)
		err = push_diff_finish(diff, wait, part->inside);
	if (!err && diff)
		push_diff_keep(diff);
	return err;
}

static int part_run(struct push_task *task, struct wait *wait)
{
	struct part_task *part = CONTAINER_OF(task, struct part_task, task);

	int err = travels_await(part->tree->travels, part->part->inode, &part->part->digest, wait,
				part->inside);
	if (err > 0) {
		push_progress(part->tree->push, (int64_t)part->part->size);
		return 0;
	}
	return err ? err : part_send(part, wait);
}

/* INSIDES has a place for each. */
static int send_parts(struct push_tree *tree, const struct layout_plan *plan,
		      struct push_insides *insides, struct wait *wait)
{
	AUTO_FREE struct part_task *parts = calloc(plan->nparts + 1, sizeof(*parts));
	AUTO_FREE struct push_task **tasks = calloc(plan->nparts + 1, sizeof(struct push_task *));
	struct push_run run = {.push = tree->push, .why = &tree->push->why, .wait = wait, .fd = -1};
	uint64_t total = 0;

	if (!parts || !tasks)
		return -ENOMEM;
	for (size_t i = 0; i < plan->nparts; i++) {
		parts[i] = (struct part_task){
			{part_run}, tree, &run, &plan->parts[i], &insides->list[i]};
		tasks[i] = &parts[i].task;
		total += plan->parts[i].size;
	}
	push_sending(tree->push, total);
	return push_tasks_run(tree->push->pushes->options.jobs, tasks, plan->nparts, PUSH_PARALLEL,
			      wait);
}

/* An image's layers are what its config says. */
static int verify(struct push_tree *tree, const struct layout_plan *plan,
		  const struct archive_document *document, const struct push_insides *insides)
{
	CLEANUP(oci_manifest_release) struct oci_manifest manifest = {0};
	AUTO_BUF struct buf config = BUF_INIT(OCI_CONFIG_MAX + 1);
	const char *unused;

	int err = oci_manifest_parse(document->bytes, document->len, document->media_type,
				     &manifest, &unused);
	const struct layout_part *part = !err && oci_is_image(&manifest)
						 ? layout_plan_part(plan, &manifest.config.digest)
						 : NULL;
	if (err || !part)
		return err;
	err = push_tree_read(part->inode, OCI_CONFIG_MAX, &config);
	if (err == -EFBIG)
		err = push_fail(&tree->push->why, -EINVAL,
				"the image's config is larger than %d MiB", OCI_CONFIG_MAX / MIB);
	return err ? err : push_verify(&tree->push->why, &manifest, &config, insides);
}

static int publish(struct push_tree *tree, const struct layout_plan *plan, struct wait *wait)
{
	AUTO_FREE struct push_inside *list = calloc(plan->nparts + 1, sizeof(*list));
	struct push_insides insides = {.list = list, .n = plan->nparts};

	if (!list)
		return -ENOMEM;
	int err = send_parts(tree, plan, &insides, wait);
	for (size_t i = 0; i < plan->ndocuments && !err; i++)
		err = verify(tree, plan, &plan->documents[i], &insides);
	for (size_t i = 0; i < plan->ndocuments && !err; i++) {
		bool is_top = i + 1 == plan->ndocuments;
		err = push_manifest(tree->push, is_top ? tree->push->tag : NULL,
				    &plan->documents[i], wait);
	}
	return err;
}

/* --- the verdict --- */

/* Waits its turn. 1: it is this thread's; else *RET_VERDICT says it all. */
static int begin(struct push_tree *tree, const struct layout_plan *plan, struct wait *wait,
		 int *ret_verdict)
{
	struct push *push = tree->push;
	int mine = 0;

	pthread_mutex_lock(&push->lock);
	int err = push_await_turn(push, wait);
	bool confirmed = !plan->error && tree->verdict == 0 &&
			 digest_equal(&tree->published, &plan->top);
	if (!err && !confirmed && tree->judged == plan->version && tree->verdict < 0) {
		err = tree->verdict;
	} else if (!err && !confirmed) {
		push_claim(push);
		mine = 1;
	}
	pthread_mutex_unlock(&push->lock);
	*ret_verdict = err;
	return mine;
}

static int judge(struct push_tree *tree, const struct layout_plan *plan, struct wait *wait)
{
	int verdict;

	if (!begin(tree, plan, wait, &verdict))
		return verdict;
	verdict = plan->error ? push_fail(&tree->push->why, plan->error, "%s", plan->why)
			      : publish(tree, plan, wait);
	pthread_mutex_lock(&tree->push->lock);
	tree->judged = verdict == -EINTR ? 0 : plan->version;
	tree->verdict = verdict;
	tree->published = verdict ? (struct digest){0} : plan->top;
	pthread_mutex_unlock(&tree->push->lock);
	push_judge(tree->push, verdict, false);
	return verdict ? verdict : 1;
}

/* cp is told nothing of a layout that is not whole: _regfs/pushes says what it waits for. */
static void show_missing(struct push_tree *tree, const struct layout_plan *plan)
{
	struct push *push = tree->push;

	pthread_mutex_lock(&push->lock);
	if (push->status.state == PUSH_WRITING && !push->flushing)
		snprintf(push->status.reason, sizeof(push->status.reason), "not whole: %s",
			 plan->why);
	pthread_mutex_unlock(&push->lock);
}

int push_tree_layout_judge(struct push_tree *tree, bool must_be_whole, struct wait *wait)
{
	CLEANUP(layout_plan_release) struct layout_plan plan = {0};

	plan.version = stage_content_version(tree->stage);
	if (wait_cancelled(wait))
		return -EINTR;
	int err = layout_plan_make(tree, false, &plan);
	if (err == -ENODATA && !must_be_whole) {
		show_missing(tree, &plan);
		return 0;
	}
	plan.error = err == -ENODATA ? -EINVAL : err;
	return judge(tree, &plan, wait);
}

bool push_tree_layout_is_confirmed(struct push_tree *tree)
{
	CLEANUP(layout_plan_release) struct layout_plan plan = {0};
	char tag[REF_TAG_MAX];

	if (!push_tree_tag(tree, tag) || layout_plan_make(tree, true, &plan) != 0)
		return false;
	pthread_mutex_lock(&tree->push->lock);
	bool confirmed = tree->verdict == 0 && digest_equal(&tree->published, &plan.top);
	pthread_mutex_unlock(&tree->push->lock);
	return confirmed;
}

int push_tree_settle(struct push_tree *tree, struct stage_inode *file, struct wait *wait)
{
	char tag[REF_TAG_MAX];

	int err = check_nested(tree, file);
	if (err || !push_tree_is_layout(tree))
		return err;
	if (!wait_may_block(wait))
		return -EWOULDBLOCK;
	if (wait_cancelled(wait))
		return -EINTR;
	offer(tree, file);
	if (!push_tree_tag(tree, tag))
		return 0;
	return push_tree_layout_judge(tree, false, wait);
}
