/* SPDX-License-Identifier: Apache-2.0 */
/*
 * event: publish and subscribe, for "a name has changed".
 * Must not know who listens.
 *
 * Handlers run on the event thread, one at a time, in the order of publication, never
 * on the publisher's: so they may call into the kernel (invalidations) whatever lock of
 * the VFS the publisher's request holds. Any thread may publish.
 */
#ifndef REGFS_EVENT_H
#define REGFS_EVENT_H

#include "regfs/util.h"

enum event_kind {
	EVENT_TAG,   /* a tag of host/repo points elsewhere, or is gone: name is the tag */
	EVENT_IMAGE, /* an image of host/repo is gone: name is its digest */
	EVENT_TAGS,  /* the tag list of host/repo has changed */
	EVENT_REPOS, /* the list of repositories of host has changed */
};

struct event {
	enum event_kind kind;
	const char *host;
	const char *repo; /* NULL where it does not apply */
	const char *name; /* NULL where it does not apply */
};

struct events;
struct events *events_new(void);
/* Delivers what was published, then stops. NULL is fine. */
void events_free(struct events *events);
typedef void event_fn(void *arg, const struct event *event);
/* Before the first publication only. 0 or -ENOMEM. */
int events_subscribe(struct events *events, event_fn *fn, void *arg);
/* Copies the strings. An event that cannot be queued for want of memory is dropped and logged. */
void events_publish(struct events *events, const struct event *event);

#endif
