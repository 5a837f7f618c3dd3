/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collecting in one layout: after a deletion, the blobs that nothing leads to.
 * Knows what leads to what. Must not delete where it is not sure: a document that cannot be read
 * ends the collection before anything is gone, and so does a writer who knows no lock.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

#include "layout_priv.h"
#include "regfs/log.h"

#define NEST_MAX	  16	    /* indexes in indexes */
#define DOCUMENTS_MAX	  (1 << 16) /* manifests of one repository */
#define SKOPEO_TMP_PREFIX "oci-put-blob"

/* --- the set of digests that are led to --- */

/* Open addressing; a slot with DIGEST_NONE is free. */
struct digest_set {
	struct digest *slots;
	size_t nslots; /* 0 or a power of two, at least twice COUNT */
	size_t count;
};

static void digest_set_cleanup(struct digest_set *set)
{
	free(set->slots);
}

static struct digest *digest_set_slot(const struct digest_set *set, const struct digest *digest)
{
	size_t at = (size_t)hash64(digest->algo, digest->bytes, sizeof(digest->bytes));

	for (;; at++) {
		struct digest *slot = &set->slots[at & (set->nslots - 1)];
		if (slot->algo == DIGEST_NONE || digest_equal(slot, digest))
			return slot;
	}
}

static bool digest_set_has(const struct digest_set *set, const struct digest *digest)
{
	return set->count && digest_set_slot(set, digest)->algo != DIGEST_NONE;
}

static int digest_set_grow(struct digest_set *set)
{
	struct digest_set bigger = {.nslots = set->nslots ? set->nslots * 2 : 64};

	bigger.slots = calloc(bigger.nslots, sizeof(*bigger.slots));
	if (!bigger.slots)
		return -ENOMEM;
	for (size_t i = 0; i < set->nslots; i++) {
		if (set->slots[i].algo != DIGEST_NONE)
			*digest_set_slot(&bigger, &set->slots[i]) = set->slots[i];
	}
	bigger.count = set->count;
	free(set->slots);
	*set = bigger;
	return 0;
}

/* 1 if it is new, 0 if it was there, or -ENOMEM. */
static int digest_set_add(struct digest_set *set, const struct digest *digest)
{
	if (set->count * 2 >= set->nslots) {
		int err = digest_set_grow(set);
		if (err)
			return err;
	}
	struct digest *slot = digest_set_slot(set, digest);
	if (slot->algo != DIGEST_NONE)
		return 0;
	*slot = *digest;
	set->count++;
	return 1;
}

/* --- marking --- */

struct marks {
	const struct layout_repo *repo;
	struct wait *wait;
	struct digest_set seen;
	size_t documents;
};

static int mark_document(struct marks *marks, const struct oci_descriptor *descriptor,
			 unsigned depth);

static int mark_blobs(struct marks *marks, const struct oci_descriptor *descriptors, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int err = digest_set_add(&marks->seen, &descriptors[i].digest);
		if (err < 0)
			return err;
	}
	return 0;
}

static int mark_children(struct marks *marks, const struct oci_manifest *index, unsigned depth)
{
	for (size_t i = 0; i < index->nchildren; i++) {
		int err = mark_document(marks, &index->children[i], depth + 1);
		if (err)
			return err;
	}
	return 0;
}

static int mark_parts(struct marks *marks, const struct oci_manifest *manifest, unsigned depth)
{
	if (manifest->kind == OCI_KIND_INDEX)
		return mark_children(marks, manifest, depth);
	int err = mark_blobs(marks, &manifest->config, 1);
	return err ? err : mark_blobs(marks, manifest->layers, manifest->nlayers);
}

static int read_manifest(struct marks *marks, const struct oci_descriptor *descriptor,
			 struct oci_manifest *ret)
{
	AUTO_BUF struct buf bytes = BUF_INIT(0);
	char digest[DIGEST_STR_MAX];
	const char *why = "";

	int err = layout_document_read(marks->repo, &descriptor->digest, marks->wait, &bytes);
	if (err)
		return err;
	err = oci_manifest_parse(bytes.data, bytes.len, descriptor->media_type, ret, &why);
	if (err && err != -ENOMEM)
		log_warn("%s/%s: nothing is collected: the manifest %s cannot be used: %s",
			 marks->repo->layout->store.name, marks->repo->name,
			 digest_format(&descriptor->digest, digest), why);
	return err;
}

/* An index names documents; one that is not there (another platform's) leads to nothing. */
static int mark_document(struct marks *marks, const struct oci_descriptor *descriptor,
			 unsigned depth)
{
	CLEANUP(oci_manifest_release) struct oci_manifest manifest = {0};

	if (wait_cancelled(marks->wait))
		return -EINTR;
	int added = digest_set_add(&marks->seen, &descriptor->digest);
	if (added <= 0)
		return added;
	if (depth > NEST_MAX || ++marks->documents > DOCUMENTS_MAX)
		return -EIO;
	int err = read_manifest(marks, descriptor, &manifest);
	if (err)
		return err == -ENOENT ? 0 : err;
	return mark_parts(marks, &manifest, depth);
}

/* --- sweeping --- */

static bool is_old(const struct stat *st)
{
	return wall_ms() / 1000 - st->st_mtim.tv_sec > LAYOUT_COLLECT_AGE_S;
}

/* Somebody looked whether it is there, and may be about to name it: it is kept until its time of
 * access, which no reader sets to what is to come. */
static bool is_asked_for(const struct stat *st)
{
	int64_t left_s = st->st_atim.tv_sec - wall_ms() / 1000;

	return left_s > 0 && left_s <= LAYOUT_COLLECT_AGE_S;
}

/* What is led to before and after a deletion, and what was deleted by name (or NULL). */
struct sweep {
	const struct layout_repo *repo;
	struct digest_set before, after;
	const struct digest *gone;
};

/*
 * Deleted by name: whatever its age. What only the deleted one led to: unless somebody asks for it.
 * What nothing led to either time may belong to a writer who has not named it yet.
 */
static bool may_go(const struct sweep *sweep, const struct digest *digest, const struct stat *st)
{
	if (digest_set_has(&sweep->after, digest) || !S_ISREG(st->st_mode))
		return false;
	if (sweep->gone && digest_equal(sweep->gone, digest))
		return true;
	return (digest_set_has(&sweep->before, digest) || is_old(st)) && !is_asked_for(st);
}

static void sweep_blobs(const struct sweep *sweep, enum digest_algo algo)
{
	char path[sizeof("blobs/") + DIGEST_STR_MAX], name[sizeof("sha512:") + NAME_MAX];
	AUTO_LAYOUT_DIR DIR *dir = NULL;
	struct dirent *entry;
	struct digest digest;
	struct stat st;
	size_t swept = 0;

	snprintf(path, sizeof(path), "blobs/%s", digest_algo_name(algo));
	dir = layout_dir(sweep->repo, path);
	while (dir && (entry = readdir(dir))) {
		snprintf(name, sizeof(name), "%s:%s", digest_algo_name(algo), entry->d_name);
		if (digest_parse(name, &digest) ||
		    fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (may_go(sweep, &digest, &st) && unlinkat(dirfd(dir), entry->d_name, 0) == 0)
			swept++;
	}
	if (swept)
		log_info("%s/%s: %zu blobs that nothing names any more are deleted",
			 sweep->repo->layout->store.name, sweep->repo->name, swept);
}

/* What a writer left behind that was killed, ours or skopeo's. True: one is still at work that
 * knows no lock. */
static bool sweep_temporaries(const struct layout_repo *repo)
{
	AUTO_LAYOUT_DIR DIR *dir = layout_dir(repo, ".");
	bool at_work = false;
	struct dirent *entry;
	struct stat st;

	while (dir && (entry = readdir(dir))) {
		bool ours = starts_with(entry->d_name, LAYOUT_TMP_PREFIX) &&
			    ends_with(entry->d_name, LAYOUT_TMP_SUFFIX);
		bool theirs = starts_with(entry->d_name, SKOPEO_TMP_PREFIX);

		if ((!ours && !theirs) ||
		    fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (!is_old(&st))
			at_work |= theirs;
		else if (S_ISREG(st.st_mode))
			unlinkat(dirfd(dir), entry->d_name, 0);
	}
	return at_work;
}

/* --- */

static int mark_index(struct marks *marks, const struct layout_index *index)
{
	return mark_children(marks, &index->parsed, 0);
}

/* What was led to before, a manifest that was only put by its digest included. What cannot be
 * read leads to nothing: it only stays longer. */
static void mark_before(struct marks *marks, const struct layout_index *before,
			const struct digest *gone)
{
	const struct oci_descriptor descriptor = {
		.media_type = (char *)"",
		.digest = gone ? *gone : (struct digest){.algo = DIGEST_NONE},
	};

	(void)mark_index(marks, before);
	if (gone)
		(void)mark_document(marks, &descriptor, 0);
}

bool layout_collect(const struct layout_repo *repo, const struct layout_change *change,
		    const struct digest *gone, struct wait *wait)
{
	struct marks before = {.repo = repo, .wait = wait};
	struct marks after = {.repo = repo, .wait = wait};
	bool really_gone = true;

	if (mark_index(&after, &change->after) == 0) {
		mark_before(&before, &change->before, gone);
		const struct sweep sweep = {
			.repo = repo, .before = before.seen, .after = after.seen, .gone = gone};

		if (!sweep_temporaries(repo) && layout_index_is(repo, &change->after.bytes)) {
			sweep_blobs(&sweep, DIGEST_SHA256);
			sweep_blobs(&sweep, DIGEST_SHA512);
		}
		really_gone = !gone || !digest_set_has(&after.seen, gone);
	}
	digest_set_cleanup(&before.seen);
	digest_set_cleanup(&after.seen);
	return really_gone;
}
