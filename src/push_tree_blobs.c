/* SPDX-License-Identifier: Apache-2.0 */
/*
 * push_tree_blobs: blobs of an OCI layout travel as they come: who was closed or renamed to the
 * name of its digest is hashed and sent in the background, a few at a time. Must not know what a
 * manifest needs.
 *
 * An offer is no promise: what fails here is done again, and told, by who needs the blob.
 */
#include <errno.h>

#include "push_tree_priv.h"

enum travel { TRAVEL_WAITING, TRAVEL_UNDER_WAY, TRAVEL_ARRIVED, TRAVEL_FAILED };

/* A state of a file: its number and the version of its bytes. */
struct traveller {
	struct traveller *next;
	uint64_t number, version;
	struct digest digest;
	enum travel state;
	struct push_inside inside; /* once it arrived */
	struct stage_inode *inode; /* held while it waits or is under way */
};

struct carrier {
	struct pool_work work;
	struct travels *travels;
	struct wait wait;
	bool busy;
};

struct travels {
	struct push_tree *tree;
	pthread_mutex_t lock;
	/* guarded by lock */
	struct wait_queue changed;
	struct traveller *head;
	struct carrier carriers[PUSH_PARALLEL];
	bool ending;
};

struct travels *travels_new(struct push_tree *tree)
{
	struct travels *travels = calloc(1, sizeof(*travels));

	if (!travels)
		return NULL;
	travels->tree = tree;
	pthread_mutex_init(&travels->lock, NULL);
	for (size_t i = 0; i < PUSH_PARALLEL; i++) {
		travels->carriers[i].travels = travels;
		wait_init(&travels->carriers[i].wait, true);
	}
	return travels;
}

/* Lock held. */
static bool any_busy(const struct travels *travels)
{
	for (size_t i = 0; i < PUSH_PARALLEL; i++) {
		if (travels->carriers[i].busy)
			return true;
	}
	return false;
}

void travels_free(struct travels *travels)
{
	struct wait patient;

	if (!travels)
		return;
	pthread_mutex_lock(&travels->lock);
	travels->ending = true;
	pthread_mutex_unlock(&travels->lock);
	for (size_t i = 0; i < PUSH_PARALLEL; i++)
		wait_cancel(&travels->carriers[i].wait);
	wait_init(&patient, true);
	pthread_mutex_lock(&travels->lock);
	while (any_busy(travels))
		(void)wait_on(&patient, &travels->changed, &travels->lock, WAIT_FOREVER);
	pthread_mutex_unlock(&travels->lock);
	wait_release(&patient);
	for (size_t i = 0; i < PUSH_PARALLEL; i++)
		wait_release(&travels->carriers[i].wait);
	for (struct traveller *at = travels->head, *next; at; at = next) {
		next = at->next;
		stage_inode_unref(at->inode);
		free(at);
	}
	pthread_mutex_destroy(&travels->lock);
	free(travels);
}

/* --- one blob --- */

/* A manifest is no blob for the registry: it is put under its own kind, at the end. */
static bool is_manifest(struct stage_inode *inode)
{
	CLEANUP(oci_manifest_release) struct oci_manifest manifest = {0};
	AUTO_BUF struct buf bytes = BUF_INIT(OCI_MANIFEST_MAX + 1);
	const char *why;

	return push_tree_read(inode, OCI_MANIFEST_MAX, &bytes) == 0 &&
	       oci_manifest_parse(bytes.data, bytes.len, NULL, &manifest, &why) == 0;
}

static int put(struct push_tree *tree, const struct store_source *source,
	       const struct digest *digest, struct wait *wait)
{
	struct store_put put = {.digest = digest, .source = source};
	struct digest found;

	int err = push_tree_digest(source->arg, digest->algo, wait, &found);
	if (!err && (!digest_equal(&found, digest) || is_manifest(source->arg)))
		err = -EINVAL;
	return err ? err : push_put(tree->push, tree->push->repo, &put, wait);
}

static int send(struct push_tree *tree, struct stage_inode *inode, const struct digest *digest,
		struct wait *wait, struct push_inside *ret_inside)
{
	struct store_source source = {.read = push_tree_source, .arg = inode};
	AUTO_DIFF struct push_diff *diff = NULL;
	struct stat st;

	stage_stat(inode, &st);
	source.size = (uint64_t)st.st_size;
	int err = push_diff_start(tree->push, &source, digest, false, &diff);
	if (!err)
		err = put(tree, &source, digest, wait);
	if (!err)
		err = push_diff_finish(diff, wait, ret_inside);
	if (!err)
		push_diff_keep(diff);
	return err;
}

static struct traveller *next_waiting(struct travels *travels)
{
	struct traveller *at = travels->ending ? NULL : travels->head;

	while (at && at->state != TRAVEL_WAITING)
		at = at->next;
	if (at)
		at->state = TRAVEL_UNDER_WAY;
	return at;
}

static void carry(struct pool_work *work)
{
	struct carrier *carrier = CONTAINER_OF(work, struct carrier, work);
	struct travels *travels = carrier->travels;
	struct traveller *at;

	pthread_mutex_lock(&travels->lock);
	while ((at = next_waiting(travels))) {
		struct push_inside inside = {0};
		pthread_mutex_unlock(&travels->lock);
		int err = send(travels->tree, at->inode, &at->digest, &carrier->wait, &inside);
		pthread_mutex_lock(&travels->lock);
		struct stage_inode *inode = STEAL(at->inode);
		at->state = err ? TRAVEL_FAILED : TRAVEL_ARRIVED;
		at->inside = inside;
		wait_wake(&travels->changed);
		pthread_mutex_unlock(&travels->lock);
		stage_inode_unref(inode);
		pthread_mutex_lock(&travels->lock);
	}
	carrier->busy = false;
	wait_wake(&travels->changed);
	pthread_mutex_unlock(&travels->lock);
}

/* --- offering and waiting --- */

/* Lock held. The same bytes under the same digest. */
static struct traveller *find(struct travels *travels, uint64_t number, uint64_t version,
			      const struct digest *digest)
{
	struct traveller *at = travels->head;

	while (at && !(at->number == number && at->version == version &&
		       digest_equal(&at->digest, digest)))
		at = at->next;
	return at;
}

/* One that has nothing to do, claimed, or NULL. */
static struct carrier *claim_carrier(struct travels *travels)
{
	for (size_t i = 0; i < PUSH_PARALLEL; i++) {
		if (!travels->carriers[i].busy) {
			travels->carriers[i].busy = true;
			return &travels->carriers[i];
		}
	}
	return NULL;
}

static void start_carrier(struct travels *travels, struct carrier *carrier)
{
	carrier->work.run = carry;
	if (pool_submit(travels->tree->push->pushes->options.jobs, &carrier->work) == 0)
		return;
	pthread_mutex_lock(&travels->lock);
	carrier->busy = false;
	pthread_mutex_unlock(&travels->lock);
}

void travels_offer(struct travels *travels, struct stage_inode *inode, const struct digest *digest)
{
	struct traveller *fresh = calloc(1, sizeof(*fresh));
	struct carrier *carrier = NULL;

	if (!fresh)
		return;
	*fresh = (struct traveller){
		.number = stage_inode_number(inode),
		.version = stage_bytes_version(inode),
		.digest = *digest,
		.inode = stage_inode_ref(inode),
	};
	pthread_mutex_lock(&travels->lock);
	if (!find(travels, fresh->number, fresh->version, digest)) {
		fresh->next = travels->head;
		travels->head = STEAL(fresh);
		carrier = claim_carrier(travels);
	}
	pthread_mutex_unlock(&travels->lock);
	if (carrier)
		start_carrier(travels, carrier);
	if (fresh)
		stage_inode_unref(fresh->inode);
	free(fresh);
}

int travels_await(struct travels *travels, struct stage_inode *inode, const struct digest *digest,
		  struct wait *wait, struct push_inside *ret_inside)
{
	uint64_t number = stage_inode_number(inode), version = stage_bytes_version(inode);
	int err = 0;

	pthread_mutex_lock(&travels->lock);
	struct traveller *at = find(travels, number, version, digest);
	/* Nobody began with it: who needs it does it. */
	struct stage_inode *unneeded = NULL;
	if (at && at->state == TRAVEL_WAITING) {
		at->state = TRAVEL_FAILED;
		unneeded = STEAL(at->inode);
	}
	while (!err && at && at->state == TRAVEL_UNDER_WAY)
		err = wait_on(wait, &travels->changed, &travels->lock, WAIT_FOREVER);
	bool arrived = !err && at && at->state == TRAVEL_ARRIVED;
	if (arrived)
		*ret_inside = at->inside;
	pthread_mutex_unlock(&travels->lock);
	stage_inode_unref(unneeded);
	return err ? err : arrived;
}
