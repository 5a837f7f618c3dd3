/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stage_data: the bytes of files: chunks of one spool file, and which of them a file has.
 * Must not know names.
 *
 * Chunks are taken and given back under the lock, and read and written without it. What keeps that
 * safe: a truncation waits for the file's writers and keeps others out; a read that a truncation
 * ran beside begins anew; a file's chunks are given back when nobody holds it any more.
 */
#include <errno.h>
#include <fcntl.h>

#include "regfs/log.h"

#include "stage_priv.h"

#define CHUNKS_MAX UINT32_MAX
#define SPOOL_MODE 0700

/* --- extents --- */

static int extents_reserve(struct stage_extents *list, size_t extra)
{
	size_t cap = MAX(list->n + extra, list->cap * 2);
	struct stage_extent *grown;

	if (list->n + extra <= list->cap)
		return 0;
	grown = reallocarray(list->extents, cap, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	list->extents = grown;
	list->cap = cap;
	return 0;
}

/* The first extent that ends behind chunk AT. */
static size_t extent_at(const struct stage_extents *list, uint32_t at)
{
	size_t low = 0, high = list->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct stage_extent *extent = &list->extents[middle];

		if (extent->at + extent->n <= at)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Room was reserved. Extents that continue each other become one. */
static void extent_insert(struct stage_extents *list, size_t i, struct stage_extent extent)
{
	struct stage_extent *before = i ? &list->extents[i - 1] : NULL;

	if (before && before->at + before->n == extent.at &&
	    before->spool + before->n == extent.spool) {
		before->n += extent.n;
		return;
	}
	memmove(list->extents + i + 1, list->extents + i, (list->n - i) * sizeof(extent));
	list->extents[i] = extent;
	list->n++;
}

/* --- the spool; lock held --- */

/* At most WANTED chunks in a row, all zero. How many, or 0: there are no more. */
static uint32_t take_chunks(struct stage *stage, uint32_t wanted, uint32_t *ret_first)
{
	struct stage_extents *pool = &stage->free;
	uint32_t n;

	if (pool->n) {
		struct stage_extent *last = &pool->extents[pool->n - 1];

		n = MIN(wanted, last->n);
		last->n -= n;
		*ret_first = last->spool + last->n;
		if (!last->n)
			pool->n--;
		return n;
	}
	n = MIN(wanted, CHUNKS_MAX - stage->spool_chunks);
	*ret_first = stage->spool_chunks;
	stage->spool_chunks += n;
	return n;
}

/* Part of a file's bytes that lie in a row in the spool, or a hole. */
struct run {
	bool hole;
	uint64_t spool_off;
	size_t len;
};

static struct run run_at(const struct stage_data *data, uint64_t off, size_t len)
{
	uint32_t chunk = (uint32_t)(off / STAGE_CHUNK);
	size_t i = extent_at(&data->extents, chunk);
	const struct stage_extent *extent;
	uint64_t end;

	if (i == data->extents.n)
		return (struct run){.hole = true, .len = len};
	extent = &data->extents.extents[i];
	if (extent->at > chunk) {
		end = (uint64_t)extent->at * STAGE_CHUNK;
		return (struct run){.hole = true, .len = (size_t)MIN(len, end - off)};
	}
	end = (uint64_t)(extent->at + extent->n) * STAGE_CHUNK;
	return (struct run){
		.spool_off = (uint64_t)extent->spool * STAGE_CHUNK +
			     (off - (uint64_t)extent->at * STAGE_CHUNK),
		.len = (size_t)MIN(len, end - off),
	};
}

/* The run for writing at OFF: what is a hole there gets chunks. */
static int run_make(struct stage *stage, struct stage_data *data, uint64_t off, size_t len,
		    struct run *ret)
{
	struct run run = run_at(data, off, len);
	struct stage_extent extent = {.at = (uint32_t)(off / STAGE_CHUNK)};

	if (run.hole) {
		uint32_t last = (uint32_t)((off + run.len - 1) / STAGE_CHUNK);

		if (extents_reserve(&data->extents, 1) < 0)
			return -ENOMEM;
		extent.n = take_chunks(stage, last - extent.at + 1, &extent.spool);
		if (!extent.n)
			return -ENOSPC;
		extent_insert(&data->extents, extent_at(&data->extents, extent.at), extent);
		run = run_at(data, off, len);
	}
	*ret = run;
	return 0;
}

/* --- the spool, without the lock --- */

static int spool_failed(const struct stage *stage, int err)
{
	errno = -err;
	log_error("the spool %s, for a directory under _push: %m", stage->spool_dir);
	/* EDQUOT would say that the registry's quota is full. */
	return err == -EDQUOT ? -ENOSPC : err;
}

/* Makes the bytes zero, and gives their room back where that is possible. */
static int spool_clear(int spool, uint64_t off, uint64_t len)
{
	static const char zeros[4 * KIB];

	if (!len || fallocate(spool, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off,
			      (off_t)len) == 0)
		return 0;
	while (len) {
		size_t part = (size_t)MIN(len, sizeof(zeros));
		ssize_t put = pwrite_full(spool, zeros, part, (off_t)off);

		if (put < 0)
			return (int)put;
		off += part;
		len -= part;
	}
	return 0;
}

static int spool_need(struct stage *stage)
{
	int fd;

	pthread_mutex_lock(&stage->lock);
	fd = stage->spool;
	pthread_mutex_unlock(&stage->lock);
	if (fd >= 0)
		return 0;
	fd = open_unnamed(stage->spool_dir, SPOOL_MODE);
	if (fd < 0)
		return spool_failed(stage, fd);
	pthread_mutex_lock(&stage->lock);
	if (stage->spool < 0)
		stage->spool = steal_fd(&fd);
	pthread_mutex_unlock(&stage->lock);
	if (fd >= 0)
		close(fd);
	return 0;
}

/* Chunks that could not be made zero are lost until the spool goes. */
static void give_back(struct stage *stage, const struct stage_extent *extent)
{
	if (spool_clear(stage->spool, (uint64_t)extent->spool * STAGE_CHUNK,
			(uint64_t)extent->n * STAGE_CHUNK) < 0)
		return;
	pthread_mutex_lock(&stage->lock);
	if (extents_reserve(&stage->free, 1) == 0)
		stage->free.extents[stage->free.n++] = *extent;
	pthread_mutex_unlock(&stage->lock);
}

void stage_data_release(struct stage *stage, struct stage_data *data)
{
	for (size_t i = 0; stage->spool >= 0 && i < data->extents.n; i++)
		give_back(stage, &data->extents.extents[i]);
	free(data->extents.extents);
}

/* --- reading --- */

/* What a read at OFF finds: 0 at the end, or RET_RUN's length, or -ESTALE. */
static ssize_t read_plan(struct stage_inode *file, uint64_t off, size_t len, struct run *ret_run,
			 uint64_t *ret_cuts)
{
	const struct stage_data *data = &file->data;
	ssize_t found = 0;

	pthread_mutex_lock(&file->stage->lock);
	*ret_cuts = data->cuts;
	if (file->stage->spent) {
		found = -ESTALE;
	} else if (off < data->size) {
		*ret_run = run_at(data, off, (size_t)MIN((uint64_t)len, data->size - off));
		found = (ssize_t)ret_run->len;
	}
	pthread_mutex_unlock(&file->stage->lock);
	return found;
}

static bool was_cut(struct stage_inode *file, uint64_t cuts)
{
	bool cut;

	pthread_mutex_lock(&file->stage->lock);
	cut = file->data.cuts != cuts || file->stage->spent;
	pthread_mutex_unlock(&file->stage->lock);
	return cut;
}

ssize_t stage_read(struct stage_inode *file, uint64_t off, void *buf, size_t len)
{
	size_t done = 0;

	if (!S_ISREG(file->mode))
		return stage_is_dir(file) ? -EISDIR : -EINVAL;
	while (done < len) {
		char *to = (char *)buf + done;
		struct run run;
		uint64_t cuts;
		ssize_t got = 0, found = read_plan(file, off + done, len - done, &run, &cuts);

		if (found < 0)
			return found;
		if (!found)
			break;
		if (!run.hole)
			got = pread_full(file->stage->spool, to, run.len, (off_t)run.spool_off);
		if (was_cut(file, cuts))
			continue;
		if (got < 0)
			return spool_failed(file->stage, (int)got);
		/* Behind the spool's end is what was never written. */
		memset(to + got, 0, run.len - (size_t)got);
		done += run.len;
	}
	return (ssize_t)done;
}

int64_t stage_seek(struct stage_inode *file, uint64_t off, int whence)
{
	int64_t found = (int64_t)off;
	bool hole = true;

	if (!S_ISREG(file->mode))
		return -EINVAL;
	pthread_mutex_lock(&file->stage->lock);
	while (found >= 0 && (uint64_t)found < file->data.size) {
		struct run run = run_at(&file->data, (uint64_t)found, SIZE_MAX / 2);

		hole = run.hole;
		if (hole == (whence == SEEK_HOLE))
			break;
		found += (int64_t)MIN(run.len, file->data.size);
	}
	if (off >= file->data.size || (whence == SEEK_DATA && (uint64_t)found >= file->data.size))
		found = -ENXIO;
	else
		found = MIN(found, (int64_t)file->data.size);
	pthread_mutex_unlock(&file->stage->lock);
	return found;
}

uint64_t stage_bytes_version(struct stage_inode *file)
{
	uint64_t version;

	pthread_mutex_lock(&file->stage->lock);
	version = file->data.version;
	pthread_mutex_unlock(&file->stage->lock);
	return version;
}

void stage_spend(struct stage *stage)
{
	pthread_mutex_lock(&stage->lock);
	bool idle = !stage->frozen && !stage->writers;
	stage->spent |= idle;
	int spool = stage->spool;
	pthread_mutex_unlock(&stage->lock);
	if (idle && spool >= 0)
		(void)!ftruncate(spool, 0);
}

/* --- writing --- */

static int write_begin(struct stage_inode *file, struct wait *wait)
{
	struct stage *stage = file->stage;
	int r = stage_begin(stage);

	if (r < 0)
		return r;
	while (r == 0 && file->data.cutting)
		r = wait_on(wait, &stage->changed, &stage->lock, WAIT_FOREVER);
	if (r == 0 && stage->frozen)
		r = -EBUSY;
	if (r == 0) {
		file->data.writers++;
		stage->writers++;
	}
	pthread_mutex_unlock(&stage->lock);
	return r;
}

/* DONE bytes from OFF on are there. */
static void write_end(struct stage_inode *file, uint64_t off, size_t done)
{
	struct stage *stage = file->stage;

	pthread_mutex_lock(&stage->lock);
	file->data.writers--;
	stage->writers--;
	wait_wake(&stage->changed);
	if (done)
		file->data.size = MAX(file->data.size, off + done);
	file->data.version++;
	stage_touch(file, true);
	stage_end(stage, true);
}

static ssize_t write_run(struct stage_inode *file, uint64_t off, const void *buf, size_t len)
{
	struct stage *stage = file->stage;
	struct run run;
	uint64_t size;
	ssize_t put;
	int r;

	pthread_mutex_lock(&stage->lock);
	r = run_make(stage, &file->data, off, len, &run);
	size = file->data.size;
	pthread_mutex_unlock(&stage->lock);
	if (r < 0)
		return r;
	put = pwrite_full(stage->spool, buf, run.len, (off_t)run.spool_off);
	/* Some of it may be there: behind the file's end there are zeros only. */
	if (put < 0 && off + run.len > size) {
		uint64_t keep = size > off ? size - off : 0;

		(void)spool_clear(stage->spool, run.spool_off + keep, run.len - keep);
	}
	return put < 0 ? spool_failed(stage, (int)put) : put;
}

ssize_t stage_write(struct stage_inode *file, uint64_t off, const void *buf, size_t len,
		    struct wait *wait)
{
	size_t done = 0;
	ssize_t put = 0;
	int r;

	if (!S_ISREG(file->mode))
		return stage_is_dir(file) ? -EISDIR : -EINVAL;
	if (off > STAGE_FILE_MAX || len > STAGE_FILE_MAX - off)
		return -EFBIG;
	r = spool_need(file->stage);
	if (r == 0)
		r = write_begin(file, wait);
	if (r < 0)
		return r;
	while (done < len && put >= 0) {
		put = write_run(file, off + done, (const char *)buf + done, len - done);
		done += put < 0 ? 0 : (size_t)put;
	}
	write_end(file, off, done);
	return done ? (ssize_t)done : put;
}

/* --- truncating --- */

/* Lock held. Takes the chunks behind SIZE out of the file into *RET_CUT. */
static int cut_locked(struct stage_data *data, uint64_t size, struct stage_extents *ret_cut)
{
	uint32_t keep = (uint32_t)((size + STAGE_CHUNK - 1) / STAGE_CHUNK);
	size_t first = extent_at(&data->extents, keep);
	size_t n = data->extents.n - first;

	if (n && extents_reserve(ret_cut, n) < 0)
		return -ENOMEM;
	for (size_t i = first; i < data->extents.n; i++) {
		struct stage_extent cut = data->extents.extents[i];

		if (cut.at < keep) {
			data->extents.extents[i].n = keep - cut.at;
			cut.spool += keep - cut.at;
			cut.n -= keep - cut.at;
			first = i + 1;
		}
		ret_cut->extents[ret_cut->n++] = cut;
	}
	data->extents.n = first;
	data->cuts++;
	return 0;
}

/* The rest of the chunk that SIZE is in. No writer is in the file. */
static int clear_tail(struct stage_inode *file, uint64_t size)
{
	uint64_t rest = -size % STAGE_CHUNK;
	struct run run = {.hole = true};

	if (rest) {
		pthread_mutex_lock(&file->stage->lock);
		run = run_at(&file->data, size, (size_t)rest);
		pthread_mutex_unlock(&file->stage->lock);
	}
	return run.hole ? 0 : spool_clear(file->stage->spool, run.spool_off, run.len);
}

/* Lock held: waits until the file is this thread's alone. */
static int cut_begin(struct stage_inode *file, struct wait *wait)
{
	struct stage *stage = file->stage;
	int r = 0;

	while (r == 0 && (file->data.cutting || file->data.writers))
		r = wait_on(wait, &stage->changed, &stage->lock, WAIT_FOREVER);
	if (r == 0 && stage->frozen)
		r = -EBUSY;
	if (r < 0)
		return r;
	file->data.cutting = true;
	stage->writers++;
	return 0;
}

int stage_truncate(struct stage_inode *file, uint64_t size, struct wait *wait)
{
	struct stage *stage = file->stage;
	struct stage_extents cut = {0};
	int r;

	if (!S_ISREG(file->mode))
		return stage_is_dir(file) ? -EISDIR : -EINVAL;
	if (size > STAGE_FILE_MAX)
		return -EFBIG;
	r = stage_begin(stage);
	if (r < 0)
		return r;
	r = cut_begin(file, wait);
	if (r == 0 && size < file->data.size)
		r = cut_locked(&file->data, size, &cut);
	if (r < 0) {
		pthread_mutex_unlock(&stage->lock);
		return r;
	}
	bool shrinks = size < file->data.size;
	file->data.size = size;
	pthread_mutex_unlock(&stage->lock);

	r = shrinks ? clear_tail(file, size) : 0;
	for (size_t i = 0; i < cut.n; i++)
		give_back(stage, &cut.extents[i]);
	free(cut.extents);

	pthread_mutex_lock(&stage->lock);
	file->data.cutting = false;
	stage->writers--;
	wait_wake(&stage->changed);
	file->data.version++;
	stage_touch(file, true);
	stage_end(stage, true);
	return r < 0 ? spool_failed(stage, r) : 0;
}
