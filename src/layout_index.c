/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changing index.json. We hold the repository's lock, but others write beside us that know none
 * (skopeo reads index.json when it begins, and writes all of it anew at its end): what they wrote
 * since we read it is not lost, as far as we can see it.
 * Must not know blobs.
 */
#include <errno.h>
#include <fcntl.h>

#include "layout_priv.h"
#include "regfs/log.h"

#define TRIES 16

void layout_change_release(struct layout_change *change)
{
	layout_index_release(&change->before);
	layout_index_release(&change->after);
}

bool layout_file_is(const struct layout_repo *repo, const char *name, const struct buf *bytes)
{
	AUTO_FREE char *now = malloc(bytes->len + 1);
	AUTO_CLOSE int fd = layout_open_in(repo->fd, name, O_RDONLY | O_NONBLOCK);

	return now && fd >= 0 && pread_full(fd, now, bytes->len + 1, 0) == (ssize_t)bytes->len &&
	       !memcmp(now, bytes->data, bytes->len);
}

/* What could not be read again is not written: a repository has room for so many. */
static int check(const struct layout_repo *repo, struct layout_index *after)
{
	const char *why = "";

	int err = oci_manifest_parse(after->bytes.data, after->bytes.len, OCI_TYPE_INDEX,
				     &after->parsed, &why);
	if (!err || err == -ENOMEM)
		return err;
	log_error("%s/%s: index.json would be no good with another name in it: %s",
		  repo->layout->store.name, repo->name, why);
	return -EDQUOT;
}

static int change_once(const struct layout_repo *repo, const struct layout_edit *edit,
		       struct wait *wait, struct layout_change *change)
{
	int err = layout_index_read(repo, wait, &change->before);
	if (err)
		return err;
	change->after.bytes = (struct buf)BUF_INIT(2 * OCI_MANIFEST_MAX);
	err = edit->edit(edit->arg, &change->before, &change->after.bytes);
	if (!err)
		err = check(repo, &change->after);
	return err ? err : layout_replace_index(repo, &change->after.bytes, &change->before.bytes);
}

int layout_index_change(const struct layout_repo *repo, const struct layout_edit *edit,
			struct wait *wait, struct layout_change *ret)
{
	for (unsigned tries = 0; tries < TRIES; tries++) {
		struct layout_change change = {0};

		int err = change_once(repo, edit, wait, &change);
		if (!err)
			*ret = change;
		else
			layout_change_release(&change);
		if (err != -ESTALE)
			return err;
	}
	log_error("%s/%s: index.json is changed by somebody else all the time",
		  repo->layout->store.name, repo->name);
	return -EBUSY;
}
