// SPDX-License-Identifier: Apache-2.0
/*
 * layer_toc: an index out of the table of contents that a blob carries, without the rest of it, or
 * out of a ztoc (layer_ztoc.c).
 * Knows which ranges to ask for, and what to do about a table that is no use. Must not know the
 * formats (toc.h).
 */
#include <errno.h>

#include "layer_priv.h"
#include "regfs/log.h"
#include "regfs/stats.h"

/*
 * What is asked for first where the footer has to tell where the table lies: that of most layers is
 * in it. An entry is about 100 bytes of the table, and a file seldom fewer than 16 KiB of the blob:
 * tables of Debian's packages were between 1/146 and 1/550 of theirs.
 */
#define TAIL_MIN   (64 * KIB)
#define TAIL_MAX   (1 * MIB)
#define TAIL_SHARE 128 /* of the blob */

struct table {
	struct layer *layer;
	const struct blob_id *id;
	struct wait *wait;
	struct toc_ref ref;
	uint64_t tail_off; /* of what tail holds; the blob's size: nothing */
	struct buf tail;
	uint8_t *bytes;	   /* REF.len of them */
	uint64_t data_end; /* in the blob: where files' data end */
	bool elsewhere;	   /* they are of a blob that was checked as a whole */
	bool vouched;	   /* their digest is right */
	const char *why;
};

static void table_begin(struct table *table)
{
	table->ref = table->layer->toc;
	table->tail_off = table->layer->size;
	table->why = "it cannot be had";
}

static void table_release(struct table *table)
{
	buf_release(&table->tail);
	free(STEAL(table->bytes));
}

static int fetch(const struct table *table, uint64_t off, void *buf, size_t len)
{
	ssize_t n = blob_fetch_unverified(table->layer->layers->blobs, table->id, off, buf, len,
					  table->wait);

	if (n < 0)
		return (int)n;
	return n == (ssize_t)len ? 0 : -EIO;
}

static int locate(struct table *table)
{
	uint64_t size = table->layer->size;
	size_t len = MIN(size, MIN(MAX(size / TAIL_SHARE, TAIL_MIN), TAIL_MAX));

	int r = buf_reserve(&table->tail, len);
	if (r == 0)
		r = fetch(table, size - len, table->tail.data, len);
	if (r < 0)
		return r;
	table->tail.len = len;
	table->tail_off = size - len;
	return toc_locate(table->tail.data, len, size, &table->ref, &table->why);
}

/* The table's bytes, which are all of a blob of their own. */
static int fetch_apart(struct table *table, const struct toc_apart *apart)
{
	AUTO_BUF struct buf bytes = BUF_INIT(TOC_PACKED_MAX);

	if (apart->digest.algo == DIGEST_NONE) {
		table->why = "it is in an image whose tag is this one's with " TOC_APART_TAG
			     ", and was not found by that";
		return -EINVAL;
	}
	const struct blob_id id = {.digest = &apart->digest,
				   .size = apart->size,
				   .store = table->id->store,
				   .repo = table->id->repo};
	int r = blob_get(table->layer->layers->blobs, &id, bytes.max, &bytes, table->wait);
	/* who lacks it may have the layer */
	if (r < 0)
		return r == -ENOENT ? -EINVAL : r;
	table->ref.len = bytes.len;
	table->data_end = table->layer->size - TOC_APART_FOOTER;
	table->bytes = (uint8_t *)buf_steal(&bytes, NULL);
	return table->bytes ? 0 : -EINVAL;
}

/* The table's bytes: what the tail does not have of them is fetched. */
static int fetch_table(struct table *table)
{
	const struct toc_ref *ref = &table->ref;
	uint64_t size = table->layer->size;

	if (ref->len > size || ref->off > size - ref->len) {
		table->why = "it would lie outside of the blob";
		return -EINVAL;
	}
	table->bytes = malloc(ref->len);
	if (!table->bytes)
		return -ENOMEM;
	table->data_end = ref->off;
	uint64_t in_tail = MAX(ref->off, table->tail_off);
	uint64_t front = MIN(ref->len, in_tail - ref->off);
	if (front < ref->len)
		memcpy(table->bytes + front, table->tail.data + (in_tail - table->tail_off),
		       ref->len - front);
	return front ? fetch(table, ref->off, table->bytes, front) : 0;
}

/* Its entries to an index file. */
static int build(struct table *table, struct buf *ret)
{
	CLEANUP(index_builder_cleanup) struct index_builder *builder = index_builder_new();
	AUTO_BUF struct buf json = BUF_INIT(TOC_JSON_MAX);
	struct index_info info = {
		.blob = table->layer->digest,
		.blob_size = table->layer->size,
		.codec = codec_detect(table->bytes, table->ref.len),
		.by_toc = true,
	};

	if (!builder)
		return -ENOMEM;
	int r = toc_unpack(&table->ref, table->bytes, &json, &table->why);
	table->vouched = r == 0;
	if (r == 0)
		r = toc_index(&json, table->data_end, builder, &table->why);
	if (r < 0)
		return r;
	buf_release(&json);
	return index_builder_finish(builder, &info, ret);
}

static int check(struct table *table, const struct buf *file)
{
	struct index index;
	int r = index_open(file->data, file->len, &index);

	return r < 0 ? r : toc_check(&index, &table->why);
}

static int from_blob(struct table *table, struct buf *ret)
{
	struct toc_apart apart;
	int r = 0;

	/* looked for because the footer said so */
	if (layer_apart(table->layer, &apart)) {
		table->elsewhere = true;
		r = fetch_apart(table, &apart);
		return r < 0 ? r : build(table, ret);
	}
	if (!table->ref.len)
		r = locate(table);
	if (r == 0)
		r = fetch_table(table);
	return r < 0 ? r : build(table, ret);
}

static int try_table(struct table *table)
{
	AUTO_BUF struct buf file = BUF_INIT(INDEX_MAX);
	int r = table->ref.kind == TOC_ZTOC
			? layer_ztoc(table->layer, table->id, table->wait, &file, &table->why)
			: from_blob(table, &file);

	if (r == 0)
		r = check(table, &file);
	return r < 0 ? r : layer_publish(table->layer, CACHE_TOC, &file);
}

/* Bytes that do not lead to the digest are asked for once more, elsewhere if there is such a place:
 * it may have been the way. */
static int open_table(struct table *table)
{
	int r = try_table(table);
	bool fetched = !table->elsewhere && (table->bytes || table->tail.len);

	if (r != -EINVAL || table->vouched || !fetched)
		return r;
	store_distrust(table->id->store, table->id->repo, table->id->digest);
	table_release(table);
	table_begin(table);
	return try_table(table);
}

/* What says something about the table, and not about the way to the blob. */
static bool is_the_tables(int error)
{
	return error == -EINVAL || error == -EIO || error == -EFBIG || error == -EOPNOTSUPP;
}

int layer_by_toc(struct layer *layer, const struct blob_id *id, struct wait *wait)
{
	CLEANUP(table_release)
	struct table table = {
		.layer = layer,
		.id = id,
		.wait = wait,
		.tail.max = TAIL_MAX,
	};
	char name[DIGEST_STR_MAX];

	table_begin(&table);
	int r = open_table(&table);
	if (r == 0)
		stats_add(STAT_TOCS, 1);
	if (r == 0 || !is_the_tables(r))
		return r;
	layer_log_name(layer, name);
	log_warn("%s/%s: layer %s: its table of contents is not used, the whole layer is fetched: "
		 "%s",
		 id->store->name, id->repo, name, table.why);
	return 1;
}
