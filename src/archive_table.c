// SPDX-License-Identifier: Apache-2.0
/*
 * archive_table: the members of an archive by name. Knows tar's links and repetitions. Must not
 * know what the members mean.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <sys/stat.h>

#include "archive_priv.h"
#include "regfs/tar.h"

#define LINKS_MAX  16 /* followed for one name */
#define CHUNK_SIZE (32 * KIB)

int archive_invalid(struct reading *reading, const char *fmt, ...)
{
	va_list args;

	if (reading->why_len == 0)
		return -EINVAL;
	va_start(args, fmt);
	vsnprintf(reading->why, reading->why_len, fmt, args);
	va_end(args);
	/* Names out of the archive must not break a line of the log. */
	replace_controls(reading->why, '?');
	return -EINVAL;
}

/* --- paths --- */

/* Appends the components of PATH to the LEN bytes of OUT, as a shell would walk them. The new
 * length, or -1 if it leaves the archive or is too long. */
static ssize_t walk(char out[static ARCHIVE_PATH_MAX], size_t len, const char *path)
{
	while (*path) {
		size_t n = strcspn(path, "/");

		if (n == 2 && path[0] == '.' && path[1] == '.') {
			if (len == 0)
				return -1;
			while (len > 0 && out[--len] != '/')
				;
		} else if (n > 0 && !(n == 1 && path[0] == '.')) {
			if (len + 1 + n >= ARCHIVE_PATH_MAX)
				return -1;
			if (len > 0)
				out[len++] = '/';
			memcpy(out + len, path, n);
			len += n;
		}
		path += n + (path[n] == '/');
	}
	out[len] = '\0';
	return (ssize_t)len;
}

/* Where MEMBER, a link, leads. */
static bool link_path(const struct member *member, char out[static ARCHIVE_PATH_MAX])
{
	const char *slash = strrchr(member->path, '/');
	size_t dir_len = 0;

	if (member->type == MEMBER_SYMLINK && member->target[0] != '/' && slash) {
		dir_len = slash - member->path;
		memcpy(out, member->path, dir_len);
	}
	return walk(out, dir_len, member->target) > 0;
}

/* --- scanning --- */

struct input_source {
	const struct archive_input *input;
	uint64_t off;
	bool at_end; /* it was asked for more than there is */
	uint8_t chunk[CHUNK_SIZE];
};

static ssize_t source_read(void *arg, const void **ret)
{
	struct input_source *source = arg;
	ssize_t got;

	*ret = source->chunk;
	if (source->off >= source->input->size) {
		source->at_end = true;
		return 0;
	}
	got = source->input->pread(source->input->arg, source->off, source->chunk,
				   MIN(sizeof(source->chunk), source->input->size - source->off));
	if (got == 0)
		source->at_end = true;
	if (got > 0)
		source->off += (uint64_t)got;
	return got;
}

static int64_t source_skip(void *arg, int64_t len)
{
	struct input_source *source = arg;
	int64_t left = (int64_t)(source->input->size - source->off);

	len = MIN(len, left);
	source->off += (uint64_t)len;
	return len;
}

static int grow(struct reading *reading)
{
	size_t cap = reading->table->members_cap ? 2 * reading->table->members_cap : 64;
	struct member *grown;

	if (reading->table->nmembers < reading->table->members_cap)
		return 0;
	if (reading->table->nmembers >= ARCHIVE_MEMBERS_MAX)
		return archive_invalid(reading, "it has more than %d files: no image archive",
				       ARCHIVE_MEMBERS_MAX);
	grown = reallocarray(reading->table->members, cap, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	reading->table->members = grown;
	reading->table->members_cap = cap;
	return 0;
}

/* In several pieces: with holes that the archive leaves out. */
static bool is_sparse(const struct tar_member *member)
{
	return member->sparse && !(member->nextents == 1 && member->extents[0].off == 0 &&
				   member->extents[0].len == member->size);
}

static int add_member(void *arg, const struct tar_member *from)
{
	struct reading *reading = arg;
	const char *target = from->hard_link ? from->hard_link : from->symlink;
	char path[ARCHIVE_PATH_MAX];
	struct member *member;
	int err;

	if (!target && !S_ISREG(from->mode))
		return 0;
	/* A name outside of the archive is one that nothing in it can refer to. */
	if (walk(path, 0, from->path) <= 0)
		return 0;
	err = grow(reading);
	if (err)
		return err;
	member = &reading->table->members[reading->table->nmembers];
	*member = (struct member){
		.path = strdup(path),
		.target = target ? strdup(target) : NULL,
		.type = from->hard_link ? MEMBER_HARD_LINK
			: target	? MEMBER_SYMLINK
					: MEMBER_FILE,
		.sparse = is_sparse(from),
		.order = reading->table->nmembers,
		.at = {from->data_off, from->size},
	};
	reading->table->nmembers++;
	if (!member->path || (target && !member->target))
		return -ENOMEM;
	if (!reading->seen || target || member->sparse)
		return 0;
	const struct archive_seen seen = {.path = member->path, .at = member->at};
	return reading->seen(reading->seen_arg, &seen);
}

static int compare_members(const void *a, const void *b)
{
	const struct member *left = a, *right = b;
	int order = strcmp(left->path, right->path);

	if (order)
		return order;
	return left->order < right->order ? -1 : left->order > right->order;
}

static int cut_off(struct reading *reading)
{
	archive_invalid(reading, reading->table->nmembers
					 ? "the archive is not finished: it has no end marker"
					 : "it is no archive, or only the beginning of one");
	return -ENODATA;
}

int archive_scan(struct reading *reading)
{
	AUTO_FREE struct input_source *source = calloc(1, sizeof(*source));
	struct tar_source tar = {
		.read = source_read,
		.skip = source_skip,
		.arg = source,
		.to_marker = reading->seen,
	};
	bool marker = false;
	int err;

	if (!source)
		return -ENOMEM;
	source->input = reading->input;
	err = tar_scan(&tar, add_member, reading, &marker, reading->why, reading->why_len);
	if (err == -EINVAL && source->at_end)
		return cut_off(reading);
	if (err)
		return err;
	if (!marker)
		return cut_off(reading);
	if (reading->table->nmembers > 0)
		qsort(reading->table->members, reading->table->nmembers,
		      sizeof(*reading->table->members), compare_members);
	return 0;
}

void archive_table_free(struct archive_table *table)
{
	if (!table)
		return;
	for (size_t i = 0; i < table->nmembers; i++) {
		free(table->members[i].path);
		free(table->members[i].target);
	}
	free(table->members);
	free(table);
}

/* --- finding and reading --- */

/* Of several of one name the last: it would have replaced the others on extraction. */
static struct member *find_exact(const struct reading *reading, const char *path)
{
	size_t low = 0, high = reading->table->nmembers;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(reading->table->members[middle].path, path) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0 || strcmp(reading->table->members[low - 1].path, path) != 0)
		return NULL;
	return &reading->table->members[low - 1];
}

struct member *archive_find(const struct reading *reading, const char *path)
{
	struct member *member = find_exact(reading, path);
	char target[ARCHIVE_PATH_MAX];

	for (int links = 0; member && member->type != MEMBER_FILE; links++) {
		if (links == LINKS_MAX || !link_path(member, target))
			return NULL;
		member = find_exact(reading, target);
	}
	return member;
}

int archive_need(struct reading *reading, const char *what, const char *path, struct member **ret)
{
	char clean[ARCHIVE_PATH_MAX];
	struct member *member = walk(clean, 0, path) > 0 ? archive_find(reading, clean) : NULL;

	if (!member)
		return archive_invalid(reading, "%s %s is not in the archive", what, path);
	if (member->sparse)
		return archive_invalid(reading,
				       "%s %s is stored with holes: write the archive without "
				       "--sparse",
				       what, path);
	*ret = member;
	return 0;
}

int archive_read_member(struct reading *reading, const struct member *member, size_t max,
			char **ret)
{
	const struct archive_input *input = reading->input;
	AUTO_FREE char *bytes = NULL;
	size_t done = 0, len = member->at.len;

	if (member->at.len > max)
		return archive_invalid(reading, "%s is larger than %zu bytes", member->path, max);
	bytes = malloc(len + 1);
	if (!bytes)
		return -ENOMEM;
	while (done < len) {
		ssize_t got = input->pread(input->arg, member->at.off + done, bytes + done,
					   len - done);

		if (got <= 0)
			return got < 0 ? (int)got : cut_off(reading);
		done += (size_t)got;
	}
	bytes[len] = '\0';
	*ret = STEAL(bytes);
	return 0;
}
