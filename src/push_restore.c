/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A layer that was sent compressed, and turns out to be a blob of an OCI archive, wanted as it was.
 * Knows stores and codecs. Must not know archives.
 *
 * The archive's own bytes are gone; what was sent holds them all.
 */
#include <errno.h>

#include "push_priv.h"

#define CHUNK (256 * KIB)

struct restore {
	struct push_run *run;
	struct store_stream *in;
	struct decoder *decoder;
	char *packed, *plain;
	int spool;
	uint64_t len, max;
};

static void restore_release(struct restore *restore)
{
	store_stream_close(restore->in);
	decoder_free(restore->decoder);
	free(restore->packed);
	free(restore->plain);
	if (restore->spool >= 0)
		close(restore->spool);
}

static int decode(struct restore *restore)
{
	ssize_t got;

	while ((got = decoder_read(restore->decoder, restore->plain, CHUNK)) > 0) {
		/* What the store gives is not what it got. */
		if ((uint64_t)got > restore->max - restore->len)
			return -EIO;
		ssize_t put = pwrite_full(restore->spool, restore->plain, (size_t)got,
					  (off_t)restore->len);
		if (put < 0)
			return push_fail_spool(restore->run->why, (int)put, "unpacking a layer");
		restore->len += (uint64_t)got;
	}
	return got == -EINVAL ? -EIO : (int)got;
}

static int fetch(struct restore *restore)
{
	for (;;) {
		ssize_t got = restore->in->read(restore->in, restore->packed, CHUNK,
						restore->run->wait);
		if (got < 0)
			return (int)got;
		decoder_input(restore->decoder, restore->packed, (size_t)got, got == 0);
		int err = decode(restore);
		if (err || got == 0)
			return err;
	}
}

int push_restore(struct push_run *run, const struct push_layer *layer, const char *repo,
		 const struct digest *wanted)
{
	struct store *store = run->push->store;
	CLEANUP(restore_release)
	struct restore restore = {
		.run = run,
		.decoder = decoder_new(layer->codec, NULL),
		.packed = malloc(CHUNK),
		.plain = malloc(CHUNK),
		.spool = push_spool_open(run->push->pushes->spool_dir),
		.max = layer->at.len,
	};

	if (!digest_equal(&layer->diff_id, wanted))
		return push_fail_digest(run->why, wanted, &layer->diff_id);
	if (restore.spool < 0)
		return push_fail_spool(run->why, restore.spool, "the spool");
	if (!restore.decoder || !restore.packed || !restore.plain)
		return -ENOMEM;
	int err = store->ops->open_blob(store, repo, &layer->digest, 0, UINT64_MAX, &restore.in,
					run->wait);
	if (!err)
		err = fetch(&restore);
	if (err)
		return push_fail_errno(run->why, err, "reading a layer again");
	struct store_file file = {.fd = restore.spool, .len = restore.len};
	const struct store_source source = {
		.read = store_file_read, .arg = &file, .size = restore.len};
	const struct push_blob blob = {.repo = repo, .digest = wanted, .source = &source};
	return push_send(run, &blob, run->wait);
}
