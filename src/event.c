/* SPDX-License-Identifier: Apache-2.0 */
/*
 * event: publish and subscribe, for "a name has changed".
 * Must not know who listens.
 *
 * A pool of at most one thread gives the order, and appears with the first event.
 */
#include <errno.h>

#include "regfs/event.h"
#include "regfs/log.h"
#include "regfs/pool.h"

struct subscriber {
	event_fn *fn;
	void *arg;
};

struct events {
	struct pool *pool;
	/* Constant once something was published: so the event thread needs no lock. */
	struct subscriber *subscribers;
	size_t n_subscribers;
};

/* One publication, with its own copies of the strings in TEXT. */
struct delivery {
	struct pool_work work;
	struct events *events;
	struct event event;
	char text[];
};

struct events *events_new(void)
{
	struct events *events = calloc(1, sizeof(*events));

	if (!events)
		return NULL;
	events->pool = pool_new("regfs-event", 1);
	if (!events->pool) {
		free(events);
		return NULL;
	}
	return events;
}

void events_free(struct events *events)
{
	if (!events)
		return;
	pool_free(events->pool);
	free(events->subscribers);
	free(events);
}

int events_subscribe(struct events *events, event_fn *fn, void *arg)
{
	size_t n = events->n_subscribers;
	struct subscriber *grown = reallocarray(events->subscribers, n + 1, sizeof(*grown));

	if (!grown)
		return -ENOMEM;
	grown[n] = (struct subscriber){.fn = fn, .arg = arg};
	events->subscribers = grown;
	events->n_subscribers = n + 1;
	return 0;
}

static void deliver(struct pool_work *work)
{
	AUTO_FREE struct delivery *delivery = CONTAINER_OF(work, struct delivery, work);
	struct events *events = delivery->events;

	for (size_t i = 0; i < events->n_subscribers; i++)
		events->subscribers[i].fn(events->subscribers[i].arg, &delivery->event);
}

static size_t text_size(const char *str)
{
	return str ? strlen(str) + 1 : 0;
}

/* Copies STR to *AT and moves *AT past it. */
static const char *put_text(char **at, const char *str)
{
	const char *copy = *at;
	size_t size = text_size(str);

	if (!str)
		return NULL;
	memcpy(*at, str, size);
	*at += size;
	return copy;
}

void events_publish(struct events *events, const struct event *event)
{
	size_t size = text_size(event->host) + text_size(event->repo) + text_size(event->name);
	AUTO_FREE struct delivery *delivery = malloc(sizeof(*delivery) + size);
	char *at;

	if (delivery) {
		at = delivery->text;
		delivery->events = events;
		delivery->work.run = deliver;
		delivery->event = (struct event){.kind = event->kind};
		delivery->event.host = put_text(&at, event->host);
		delivery->event.repo = put_text(&at, event->repo);
		delivery->event.name = put_text(&at, event->name);
		if (pool_submit(events->pool, &delivery->work) == 0) {
			STEAL(delivery);
			return;
		}
	}
	log_warn("%s: a change was not announced for want of memory or threads; "
		 "the kernel may show the old state until it expires",
		 event->host ? event->host : "-");
}
