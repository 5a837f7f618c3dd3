/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names_snapshot: positions in a listing that may change between two calls. A position carries
 * the version of the listing it belongs to; the version before the current one is kept, so
 * that a reader who began with it goes on with it.
 * Must not know what is listed.
 */
#include "names_priv.h"

#define VERSION_MASK  0x3fffffffu
#define VERSION_SHIFT 32

void snapshot_init(struct snapshot *snapshot, const struct timespec *time)
{
	*snapshot = (struct snapshot){.version = 1, .changed = *time};
	pthread_mutex_init(&snapshot->lock, NULL);
}

void snapshot_release(struct snapshot *snapshot)
{
	nameset_unref(snapshot->set);
	nameset_unref(snapshot->previous);
	pthread_mutex_destroy(&snapshot->lock);
}

void snapshot_update(struct snapshot *snapshot, struct nameset *fresh)
{
	struct nameset *old = fresh;

	pthread_mutex_lock(&snapshot->lock);
	if (!snapshot->set || !nameset_equal(snapshot->set, fresh)) {
		old = snapshot->previous;
		snapshot->previous = snapshot->set;
		snapshot->set = fresh;
		if (snapshot->previous) {
			snapshot->version = (snapshot->version + 1) & VERSION_MASK;
			clock_gettime(CLOCK_REALTIME, &snapshot->changed);
		}
	}
	pthread_mutex_unlock(&snapshot->lock);
	nameset_unref(old);
}

static struct nameset *snapshot_at(struct snapshot *snapshot, uint64_t pos, size_t *ret_index,
				   uint32_t *ret_version)
{
	uint32_t version = pos >> VERSION_SHIFT;
	struct nameset *set;

	pthread_mutex_lock(&snapshot->lock);
	if (pos && version + 1 == snapshot->version && snapshot->previous) {
		set = nameset_ref(snapshot->previous);
	} else {
		set = nameset_ref(snapshot->set);
		version = snapshot->version;
	}
	pthread_mutex_unlock(&snapshot->lock);
	*ret_index = (uint32_t)pos;
	*ret_version = version;
	return set;
}

int snapshot_list(struct snapshot *snapshot, const struct node *node, uint64_t pos, mode_t type,
		  node_list_fn *fn, void *arg)
{
	uint32_t version;
	size_t index;
	struct nameset *set = snapshot_at(snapshot, pos, &index, &version);

	for (; index < nameset_len(set); index++) {
		const char *name = nameset_at(set, index);
		struct node_listed listed = {
			.pos = (uint64_t)version << VERSION_SHIFT | (index + 1),
			.name = name,
			.len = strlen(name),
			.type = type,
			.ino = node_ino(node, name),
		};

		if (fn(arg, &listed) != 0)
			break;
	}
	nameset_unref(set);
	return 0;
}

struct timespec snapshot_time(struct snapshot *snapshot)
{
	struct timespec time;

	pthread_mutex_lock(&snapshot->lock);
	time = snapshot->changed;
	pthread_mutex_unlock(&snapshot->lock);
	return time;
}
