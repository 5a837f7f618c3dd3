// SPDX-License-Identifier: Apache-2.0
/*
 * trace: the parts of files that were read, and their form at rest.
 * Knows numbers. Must not know where a trace is kept, nor who reads.
 *
 * At rest, little-endian: the magic, the number of layers and of parts, a tag for each layer, then
 * the parts.
 */
#include <endian.h>
#include <errno.h>

#include "regfs/trace.h"

#define MAGIC	   "RGTRACE1"
#define SEEN_SLOTS ((size_t)2 * TRACE_UNITS_MAX) /* a power of two */

struct trace_head {
	char magic[8];
	uint32_t nlayers, nparts;
};

struct trace_rec {
	uint32_t ino, unit, count;
	uint16_t layer;
	uint8_t age, zero;
};

struct trace *trace_new(void)
{
	struct trace *trace = calloc(1, sizeof(*trace));

	if (!trace)
		return NULL;
	trace->parts = calloc(TRACE_PARTS_MAX, sizeof(*trace->parts));
	trace->seen = calloc(SEEN_SLOTS, sizeof(*trace->seen));
	if (!trace->parts || !trace->seen) {
		trace_free(trace);
		return NULL;
	}
	return trace;
}

void trace_free(struct trace *trace)
{
	if (!trace)
		return;
	free(trace->parts);
	free(trace->seen);
	free(trace);
}

void trace_cleanup(struct trace **trace)
{
	trace_free(*trace);
}

/* --- units --- */

/* A unit in one number, never 0: two that have the same are one to a trace. */
static uint64_t unit_hash(uint16_t layer, uint32_t ino, uint32_t unit)
{
	const uint32_t name[] = {layer, ino, unit};

	return hash64(0, name, sizeof(name)) | 1;
}

/* Where the unit is among those seen, or the empty slot where it would be. There is always one:
 * half of them are empty. */
static uint64_t *seen_slot(const struct trace *trace, uint64_t hash)
{
	size_t at = (hash >> 1) % SEEN_SLOTS;

	while (trace->seen[at] && trace->seen[at] != hash)
		at = (at + 1) % SEEN_SLOTS;
	return &trace->seen[at];
}

/* A unit that continues the last part makes it longer. False if there is no room. */
static bool part_append(struct trace *trace, const struct trace_part *one)
{
	struct trace_part *last = trace->nparts ? &trace->parts[trace->nparts - 1] : NULL;

	if (last && last->layer == one->layer && last->ino == one->ino && last->age == one->age &&
	    last->unit + last->count == one->unit) {
		last->count++;
		return true;
	}
	if (trace->nparts == TRACE_PARTS_MAX)
		return false;
	trace->parts[trace->nparts++] = *one;
	return true;
}

/* True if it is new. ONE's count is 1. */
static bool unit_add(struct trace *trace, const struct trace_part *one)
{
	uint64_t hash = unit_hash(one->layer, one->ino, one->unit);
	uint64_t *slot = seen_slot(trace, hash);

	if (*slot || trace->nunits == TRACE_UNITS_MAX || !part_append(trace, one))
		return false;
	*slot = hash;
	trace->nunits++;
	return true;
}

bool trace_add(struct trace *trace, uint16_t layer, uint32_t ino, uint64_t off, uint64_t len)
{
	bool fresh = false;

	if (layer >= TRACE_LAYERS_MAX || len == 0 || off > UINT64_MAX - len ||
	    (off + len - 1) / TRACE_UNIT >= UINT32_MAX)
		return false;
	for (uint64_t unit = off / TRACE_UNIT; unit <= (off + len - 1) / TRACE_UNIT; unit++) {
		const struct trace_part one = {
			.layer = layer, .ino = ino, .unit = (uint32_t)unit, .count = 1};

		if (trace->nunits == TRACE_UNITS_MAX)
			break;
		fresh |= unit_add(trace, &one);
	}
	return fresh;
}

bool trace_has(const struct trace *trace, const struct trace_part *part)
{
	for (uint32_t i = 0; i < part->count; i++)
		if (*seen_slot(trace, unit_hash(part->layer, part->ino, part->unit + i)))
			return true;
	return false;
}

void trace_merge(struct trace *trace, const struct trace *old)
{
	for (uint32_t i = 0; i < old->nparts; i++) {
		struct trace_part one = old->parts[i];

		if (one.age >= TRACE_AGE_MAX || old->tags[one.layer] != trace->tags[one.layer])
			continue;
		one.age++;
		for (one.count = 1; one.unit < old->parts[i].unit + old->parts[i].count; one.unit++)
			(void)unit_add(trace, &one);
	}
}

/* --- at rest --- */

static uint32_t count_layers(const struct trace *trace)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < trace->nparts; i++)
		n = MAX(n, trace->parts[i].layer + 1U);
	return n;
}

int trace_write(const struct trace *trace, struct buf *ret)
{
	struct trace_head head = {.nlayers = htole32(count_layers(trace)),
				  .nparts = htole32(trace->nparts)};

	memcpy(head.magic, MAGIC, sizeof(head.magic));
	int r = buf_add(ret, &head, sizeof(head));
	for (uint32_t i = 0; r == 0 && i < count_layers(trace); i++) {
		uint64_t tag = htole64(trace->tags[i]);
		r = buf_add(ret, &tag, sizeof(tag));
	}
	for (uint32_t i = 0; r == 0 && i < trace->nparts; i++) {
		const struct trace_part *part = &trace->parts[i];
		const struct trace_rec rec = {.ino = htole32(part->ino),
					      .unit = htole32(part->unit),
					      .count = htole32(part->count),
					      .layer = htole16(part->layer),
					      .age = part->age};

		r = buf_add(ret, &rec, sizeof(rec));
	}
	return r;
}

/* False for a part that no trace has. */
static bool part_take(struct trace *trace, const struct trace_rec *rec, uint32_t nlayers)
{
	struct trace_part one = {
		.ino = le32toh(rec->ino),
		.unit = le32toh(rec->unit),
		.count = 1,
		.layer = le16toh(rec->layer),
		.age = rec->age,
	};
	uint32_t count = le32toh(rec->count);

	if (one.layer >= nlayers || one.age > TRACE_AGE_MAX || count == 0 ||
	    count > TRACE_UNITS_MAX || one.unit > UINT32_MAX - count)
		return false;
	for (; count > 0; count--, one.unit++)
		if (!unit_add(trace, &one))
			return false;
	return true;
}

int trace_parse(const void *data, size_t len, struct trace **ret)
{
	AUTO_TRACE struct trace *trace = NULL;
	const uint8_t *at = data;
	struct trace_head head;

	if (len < sizeof(head))
		return -EINVAL;
	memcpy(&head, at, sizeof(head));
	uint32_t nlayers = le32toh(head.nlayers), nparts = le32toh(head.nparts);
	if (memcmp(head.magic, MAGIC, sizeof(head.magic)) != 0 || nlayers > TRACE_LAYERS_MAX ||
	    nparts > TRACE_PARTS_MAX ||
	    len != sizeof(head) + nlayers * sizeof(uint64_t) + nparts * sizeof(struct trace_rec))
		return -EINVAL;
	trace = trace_new();
	if (!trace)
		return -ENOMEM;
	at += sizeof(head);
	for (uint32_t i = 0; i < nlayers; i++, at += sizeof(uint64_t)) {
		memcpy(&trace->tags[i], at, sizeof(uint64_t));
		trace->tags[i] = le64toh(trace->tags[i]);
	}
	for (uint32_t i = 0; i < nparts; i++, at += sizeof(struct trace_rec)) {
		struct trace_rec rec;

		memcpy(&rec, at, sizeof(rec));
		if (!part_take(trace, &rec, nlayers))
			return -EINVAL;
	}
	*ret = STEAL(trace);
	return 0;
}
