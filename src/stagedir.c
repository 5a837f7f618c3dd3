/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stagedir: the directories of all _push: made, found, renamed, and left after a while.
 * Must not know what is in one, nor how it becomes an image.
 */
#include <errno.h>

#include "regfs/log.h"
#include "regfs/push_tree.h"
#include "regfs/ref.h"

#include "stagedir_priv.h"

#define STAYS_MS 60000

struct stagedirs *stagedirs_new(const struct context *context, const struct pushdirs_hooks *hooks)
{
	struct stagedirs *dirs = calloc(1, sizeof(*dirs));

	if (!dirs)
		return NULL;
	dirs->context = context;
	dirs->hooks = *hooks;
	pthread_mutex_init(&dirs->lock, NULL);
	return dirs;
}

static void staged_free(struct staged *staged)
{
	push_tree_free(staged->tree);
	stage_free(staged->stage);
	free(staged->repo);
	free(staged->name);
	free(staged);
}

void stagedirs_free(struct stagedirs *dirs)
{
	if (!dirs)
		return;
	while (dirs->head) {
		struct staged *staged = dirs->head;

		dirs->head = staged->next;
		if (!staged->confirmed_ms)
			log_warn("%s/%s/_push/%s: it was never pushed, and is gone",
				 staged->store->name, staged->repo, staged->name);
		staged_free(staged);
	}
	pthread_mutex_destroy(&dirs->lock);
	free(dirs);
}

struct staged *staged_ref(struct staged *staged)
{
	pthread_mutex_lock(&staged->dirs->lock);
	staged->refs++;
	pthread_mutex_unlock(&staged->dirs->lock);
	return staged;
}

void staged_unref(struct staged *staged)
{
	bool last;

	if (!staged)
		return;
	pthread_mutex_lock(&staged->dirs->lock);
	last = --staged->refs == 0;
	pthread_mutex_unlock(&staged->dirs->lock);
	if (last)
		staged_free(staged);
}

static void staged_cleanup(struct staged **staged)
{
	staged_unref(*staged);
}
#define AUTO_STAGED CLEANUP(staged_cleanup)

/* --- the table --- */

/* Lock held: takes *AT out of the table. True: that was the last that held it. */
static bool unlist_locked(struct staged **at)
{
	struct staged *staged = *at;

	*at = staged->next;
	staged->listed = false;
	return --staged->refs == 0;
}

static void unlist(struct staged *staged)
{
	struct stagedirs *dirs = staged->dirs;
	bool last = false;

	pthread_mutex_lock(&dirs->lock);
	for (struct staged **at = &dirs->head; staged->listed && *at; at = &(*at)->next) {
		if (*at == staged) {
			last = unlist_locked(at);
			break;
		}
	}
	pthread_mutex_unlock(&dirs->lock);
	if (last)
		staged_free(staged);
}

/* One that was confirmed long enough ago, held, or NULL. */
static struct staged *find_old(struct stagedirs *dirs, int64_t before)
{
	struct staged *staged;

	pthread_mutex_lock(&dirs->lock);
	staged = dirs->head;
	while (staged && !(staged->confirmed_ms && staged->confirmed_ms < before))
		staged = staged->next;
	if (staged)
		staged->refs++;
	pthread_mutex_unlock(&dirs->lock);
	return staged;
}

/* Drops what was confirmed, and is as it was then. */
static void sweep(struct stagedirs *dirs)
{
	int64_t before = now_ms() - STAYS_MS;

	for (;;) {
		AUTO_STAGED struct staged *staged = find_old(dirs, before);

		if (!staged)
			return;
		if (push_tree_is_confirmed(staged->tree)) {
			unlist(staged);
			/* The kernel may know names in it for long. */
			stage_spend(staged->stage);
			continue;
		}
		pthread_mutex_lock(&dirs->lock);
		staged->confirmed_ms = 0;
		pthread_mutex_unlock(&dirs->lock);
	}
}

/* Lock held. */
static bool is_in(const struct staged *staged, const struct stageplace *place)
{
	return staged->store == place->store && !strcmp(staged->repo, place->repo);
}

/* Held, or NULL. */
static struct staged *find(const struct stageplace *place, const char *name)
{
	struct stagedirs *dirs = place->dirs;
	struct staged *staged;

	sweep(dirs);
	pthread_mutex_lock(&dirs->lock);
	staged = dirs->head;
	while (staged && !(is_in(staged, place) && !strcmp(staged->name, name)))
		staged = staged->next;
	if (staged)
		staged->refs++;
	pthread_mutex_unlock(&dirs->lock);
	return staged;
}

int stagedir_lookup(const struct stageplace *place, const char *name, struct call *call,
		    struct node_entry *ret)
{
	AUTO_STAGED struct staged *staged = find(place, name);

	if (!staged)
		return -ENOENT;
	return stagenode_entry(staged, place->node, stage_root(staged->stage), call, ret);
}

/* The next name behind *POS, copied out from under the lock. */
static bool next_name(const struct stageplace *place, uint64_t *pos, char out[static 256],
		      uint64_t *ret_ino)
{
	struct stagedirs *dirs = place->dirs;
	const struct staged *best = NULL;

	pthread_mutex_lock(&dirs->lock);
	for (const struct staged *staged = dirs->head; staged; staged = staged->next)
		if (is_in(staged, place) && STAGEDIR_POS + staged->number > *pos &&
		    (!best || staged->number < best->number))
			best = staged;
	if (best) {
		snprintf(out, 256, "%s", best->name);
		*pos = STAGEDIR_POS + best->number;
		*ret_ino = stagenode_root_ino(best);
	}
	pthread_mutex_unlock(&dirs->lock);
	return best != NULL;
}

int stagedir_list(const struct stageplace *place, uint64_t pos, node_list_fn *fn, void *arg)
{
	char name[256];
	uint64_t ino;

	sweep(place->dirs);
	while (next_name(place, &pos, name, &ino)) {
		struct node_listed listed = {
			.pos = pos,
			.name = name,
			.len = strlen(name),
			.type = S_IFDIR,
			.ino = ino,
		};

		if (fn(arg, &listed) != 0)
			return 1;
	}
	return 0;
}

/* --- making and removing --- */

static bool is_temporary(const char *name)
{
	return *name == '.';
}

static int check_name(const struct stageplace *place, const char *name)
{
	if (!*place->repo) {
		log_warn("%s/_push/%s: a directory is pushed in the _push of a repository",
			 place->store->name, name);
		return -EINVAL;
	}
	if (is_temporary(name) || ref_tag_valid(name))
		return 0;
	log_warn("%s/%s/_push/%s: neither a tag nor a temporary name (with a leading dot)",
		 place->store->name, place->repo, name);
	return -EINVAL;
}

/* What _regfs/pushes and the log call it; the caller frees. */
static char *make_label(const struct staged *staged, const char *name)
{
	return format("%s/%s%s%s", staged->store->name, staged->repo,
		      is_temporary(name) ? "/_push/" : ":", name);
}

static int tree_new(const struct staged *staged, const char *name, struct push_tree **ret)
{
	const struct context *context = staged->dirs->context;
	AUTO_FREE char *label = make_label(staged, name);
	const struct push_tree_options options = {
		.stage = staged->stage,
		.store = staged->store,
		.repo = staged->repo,
		.tag = is_temporary(name) ? NULL : name,
		.label = label,
		.blobs = context->blobs,
		.platform = context->platform,
	};

	return label ? push_tree_new(context->pushes, &options, ret) : -ENOMEM;
}

static int staged_new(const struct stageplace *place, const char *name, mode_t mode,
		      const struct call *call, struct staged **ret)
{
	const struct stage_options options = {
		.spool_dir = pushes_spool_dir(place->dirs->context->pushes),
		.mode = mode & 07777,
		.uid = call->uid,
		.gid = call->gid,
	};
	struct staged *staged = calloc(1, sizeof(*staged));
	int r;

	if (!staged)
		return -ENOMEM;
	staged->refs = 1;
	staged->dirs = place->dirs;
	staged->store = place->store;
	staged->repo = strdup(place->repo);
	staged->name = strdup(name);
	r = staged->repo && staged->name ? stage_new(&options, &staged->stage) : -ENOMEM;
	if (r == 0)
		r = tree_new(staged, name, &staged->tree);
	if (r < 0) {
		staged_free(staged);
		return r;
	}
	*ret = staged;
	return 0;
}

int stagedir_mkdir(const struct stageplace *place, const char *name, mode_t mode, struct call *call,
		   struct node_entry *ret)
{
	struct stagedirs *dirs = place->dirs;
	AUTO_STAGED struct staged *staged = find(place, name);
	int r = staged ? -EEXIST : check_name(place, name);

	if (r == 0)
		r = staged_new(place, name, mode, call, &staged);
	if (r < 0)
		return r;
	pthread_mutex_lock(&dirs->lock);
	staged->number = ++dirs->made;
	staged->listed = true;
	staged->refs++;
	staged->next = dirs->head;
	dirs->head = staged;
	pthread_mutex_unlock(&dirs->lock);
	r = stagenode_entry(staged, place->node, stage_root(staged->stage), call, ret);
	if (r < 0)
		unlist(staged);
	return r;
}

int stagedir_rmdir(const struct stageplace *place, const char *name)
{
	AUTO_STAGED struct staged *staged = find(place, name);
	AUTO_INODE struct stage_inode *root = staged ? stage_root(staged->stage) : NULL;

	if (!staged)
		return -ENOENT;
	if (!stage_is_empty(root))
		return -ENOTEMPTY;
	unlist(staged);
	return 0;
}

/* --- the verdict --- */

/* Keeps what the verdict was; those who look at the tag are told. */
static int judged(struct staged *staged, int verdict, struct wait *wait)
{
	struct stagedirs *dirs = staged->dirs;

	pthread_mutex_lock(&dirs->lock);
	staged->confirmed_ms = verdict > 0 ? now_ms() : staged->confirmed_ms;
	pthread_mutex_unlock(&dirs->lock);
	if (verdict > 0)
		dirs->hooks.changed(dirs->hooks.arg, wait);
	return MIN(verdict, 0);
}

bool staged_may_settle(struct staged *staged)
{
	return push_tree_is_layout(staged->tree);
}

int staged_settled(struct staged *staged, struct stage_inode *inode, struct wait *wait)
{
	return judged(staged, push_tree_settle(staged->tree, inode, wait), wait);
}

int staged_sync(struct staged *staged, struct node *push_dir, struct call *call)
{
	struct stage_base_finder finder = {
		.dirs = staged->dirs, .push_dir = push_dir, .call = call};
	const struct push_base base = {.find = stagedir_find_base, .arg = &finder};

	return judged(staged, push_tree_sync(staged->tree, &base, call->wait), call->wait);
}

/* --- renaming --- */

/* What stands under the name that is wanted: -ENOTEMPTY if that is work of its own. */
static int check_target(struct staged *there, unsigned flags)
{
	AUTO_INODE struct stage_inode *root = there ? stage_root(there->stage) : NULL;

	if (!there)
		return 0;
	if (flags & RENAME_NOREPLACE)
		return -EEXIST;
	return stage_is_empty(root) || push_tree_is_confirmed(there->tree) ? 0 : -ENOTEMPTY;
}

/* To a tag it is the verdict. */
static int rename_tree(struct staged *staged, const char *to_name, const struct stageplace *place,
		       struct call *call)
{
	struct stage_base_finder finder = {
		.dirs = staged->dirs, .push_dir = place->node, .call = call};
	const struct push_base base = {.find = stagedir_find_base, .arg = &finder};
	AUTO_FREE char *label = make_label(staged, to_name);
	const struct push_tree_name name = {.tag = is_temporary(to_name) ? NULL : to_name,
					    .label = label};

	if (!label)
		return -ENOMEM;
	return judged(staged, push_tree_rename(staged->tree, &name, &base, call->wait), call->wait);
}

int stagedir_rename(const struct stageplace *place, const char *name, const char *to_name,
		    unsigned flags, struct call *call)
{
	AUTO_STAGED struct staged *staged = find(place, name);
	AUTO_STAGED struct staged *there = find(place, to_name);
	AUTO_FREE char *copy = strdup(to_name);
	int r = staged ? check_name(place, to_name) : -ENOENT;

	if (r == 0 && (flags & ~(unsigned)RENAME_NOREPLACE))
		r = -EINVAL;
	if (r == 0 && staged != there)
		r = check_target(there, flags);
	if (r < 0 || staged == there)
		return r;
	r = copy ? rename_tree(staged, to_name, place, call) : -ENOMEM;
	if (r < 0)
		return r;
	if (there)
		unlist(there);
	pthread_mutex_lock(&place->dirs->lock);
	free(staged->name);
	staged->name = STEAL(copy);
	pthread_mutex_unlock(&place->dirs->lock);
	return 0;
}
