/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http_queue: a ring of bytes that grows as it must, up to HTTP_QUEUE_MAX.
 * Knows memory. Must not know who fills and who drains it.
 */
#include <errno.h>

#include "http_priv.h"

void http_queue_release(struct http_queue *queue)
{
	free(queue->data);
	*queue = (struct http_queue){0};
}

static int grow(struct http_queue *queue, size_t need)
{
	size_t cap = queue->cap ? queue->cap : 16 * KIB;
	while (cap < need)
		cap *= 2;
	uint8_t *data = malloc(cap);
	if (!data)
		return -ENOMEM;
	size_t len = queue->len;
	http_queue_get(queue, data, len);
	free(queue->data);
	*queue = (struct http_queue){.data = data, .cap = cap, .len = len};
	return 0;
}

int http_queue_put(struct http_queue *queue, const void *data, size_t len)
{
	if (len > HTTP_QUEUE_MAX - queue->len)
		return -ENOBUFS;
	if (len > queue->cap - queue->len) {
		int err = grow(queue, queue->len + len);
		if (err)
			return err;
	}
	size_t end = (queue->start + queue->len) % MAX(queue->cap, 1);
	size_t first = MIN(len, queue->cap - end);
	if (first)
		memcpy(queue->data + end, data, first);
	if (len > first)
		memcpy(queue->data, (const uint8_t *)data + first, len - first);
	queue->len += len;
	return 0;
}

size_t http_queue_get(struct http_queue *queue, void *buf, size_t cap)
{
	size_t len = MIN(cap, queue->len);
	size_t first = MIN(len, queue->cap - queue->start);
	if (first)
		memcpy(buf, queue->data + queue->start, first);
	if (len > first)
		memcpy((uint8_t *)buf + first, queue->data, len - first);
	queue->len -= len;
	/* Starting over keeps small bodies in the cache lines they had. */
	queue->start = queue->len ? (queue->start + len) % queue->cap : 0;
	return len;
}
