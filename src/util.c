/* SPDX-License-Identifier: Apache-2.0 */
/*
 * util: clocks, whole reads and writes, numbers, hashing.
 * Knows the C library. Must not know anything else of regfs.
 */
#include <errno.h>
#include <endian.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <time.h>

#include "regfs/util.h"

static int64_t clock_ms(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t now_ms(void)
{
	return clock_ms(CLOCK_MONOTONIC);
}

int64_t wall_ms(void)
{
	return clock_ms(CLOCK_REALTIME);
}

ssize_t pread_full(int fd, void *buf, size_t len, off_t off)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, (char *)buf + done, len - done, off + (off_t)done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

ssize_t pwrite_full(int fd, const void *buf, size_t len, off_t off)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pwrite(fd, (const char *)buf + done, len - done, off + (off_t)done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

/* So that what is made below PATH is not lost with it; as far as the directory above can be read.
 */
static void sync_above(const char *path)
{
	const char *slash = strrchr(path, '/');
	AUTO_FREE char *above = slash ? strndup(path, MAX((size_t)(slash - path), 1)) : strdup(".");
	AUTO_CLOSE int fd = above ? open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	if (fd >= 0)
		(void)!fsync(fd);
}

static int make_dir(const char *path, mode_t mode)
{
	struct stat st;
	int err;

	if (mkdir(path, mode) == 0) {
		sync_above(path);
		return 0;
	}
	err = errno;
	/* A directory that is there may answer EROFS or EACCES before EEXIST. */
	if (stat(path, &st) != 0)
		return -err;
	return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

int make_dirs(const char *path, mode_t mode)
{
	AUTO_FREE char *copy = strdup(path);
	int err;

	if (!copy)
		return -ENOMEM;
	for (char *slash = copy; (slash = strchr(slash + 1, '/'));) {
		*slash = '\0';
		err = make_dir(copy, mode);
		if (err)
			return err;
		*slash = '/';
	}
	return ends_with(path, "/") ? 0 : make_dir(path, mode);
}

/* For file systems without O_TMPFILE. */
static int open_and_unlink(const char *dir)
{
	AUTO_FREE char *path = format("%s/spool-XXXXXX", dir);

	if (!path)
		return -ENOMEM;
	int fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	unlink(path);
	return fd;
}

int open_unnamed(const char *dir, mode_t dir_mode)
{
	int err = make_dirs(dir, dir_mode);

	if (err)
		return err;
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0)
		return fd;
	if (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL || errno == ENOENT)
		return open_and_unlink(dir);
	return -errno;
}

/* Reads to the end of the file into *DATA, which has room for CAP bytes and a NUL and grows to MAX.
 */
static ssize_t read_growing(int fd, char **data, size_t cap, size_t max)
{
	size_t len = 0;

	for (;;) {
		ssize_t n = pread_full(fd, *data + len, cap - len, (off_t)len);
		if (n < 0)
			return n;
		len += (size_t)n;
		if (len < cap)
			return (ssize_t)len;
		if (len > max)
			return -EFBIG;
		cap = MIN(cap * 2, max + 1);
		char *grown = realloc(*data, cap + 1);
		if (!grown)
			return -ENOMEM;
		*data = grown;
	}
}

int read_file(const char *path, size_t max, char **ret, size_t *ret_len)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	AUTO_FREE char *data = NULL;
	/* One byte more than may be is asked for, so that a longer file is noticed. */
	size_t cap = MIN(max, (size_t)4 * KIB) + 1;
	ssize_t len;

	if (fd < 0)
		return -errno;
	data = malloc(cap + 1);
	if (!data)
		return -ENOMEM;
	len = read_growing(fd, &data, cap, max);
	if (len < 0)
		return (int)len;
	data[len] = '\0';
	*ret = STEAL(data);
	*ret_len = (size_t)len;
	return 0;
}

ssize_t read_proc(pid_t id, const char *file, char *buf, size_t cap)
{
	AUTO_FREE char *path = format("/proc/%d/%s", (int)id, file);
	FILE *stream = path ? fopen(path, "re") : NULL;
	size_t len;

	if (!stream)
		return -ENOENT;
	len = fread(buf, 1, cap - 1, stream);
	fclose(stream);
	buf[len] = '\0';
	return (ssize_t)len;
}

/* The decimal number that STR begins with; NULL if there is none or it overflows, else what
 * follows. */
static const char *scan_u64(const char *str, uint64_t *ret)
{
	uint64_t value = 0;
	const char *at = str;

	for (; *at >= '0' && *at <= '9'; at++) {
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*at - '0'), &value))
			return NULL;
	}
	if (at == str)
		return NULL;
	*ret = value;
	return at;
}

bool parse_u64(const char *str, uint64_t *ret)
{
	uint64_t value;
	const char *end = scan_u64(str, &value);

	if (!end || *end)
		return false;
	*ret = value;
	return true;
}

int parse_size(const char *str, uint64_t *ret_bytes)
{
	static const char units[] = "KMGT";
	uint64_t value;
	const char *end = scan_u64(str, &value);

	if (!end)
		return -EINVAL;
	if (*end) {
		char letter = *end >= 'a' && *end <= 'z' ? (char)(*end - 'a' + 'A') : *end;
		const char *unit = strchr(units, letter);
		if (!unit || end[1])
			return -EINVAL;
		unsigned shift = 10 * (unsigned)(unit - units + 1);
		if (value > UINT64_MAX >> shift)
			return -EINVAL;
		value <<= shift;
	}
	*ret_bytes = value;
	return 0;
}

bool starts_with(const char *str, const char *prefix)
{
	return strncmp(str, prefix, strlen(prefix)) == 0;
}

void replace_controls(char *text, char with)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text, next = (unsigned char)text[1];

		if (c == 0xc2 && next >= 0x80 && next < 0xa0)
			*text++ = with;
		else if (c >= ' ' && c != 0x7f)
			continue;
		*text = with;
	}
}

bool ends_with(const char *str, const char *suffix)
{
	size_t len = strlen(str), suffix_len = strlen(suffix);

	return len >= suffix_len && memcmp(str + len - suffix_len, suffix, suffix_len) == 0;
}

/* Odd, with half of their bits set. */
#define HASH_A UINT64_C(0xc5a1d6b30f29e74d)
#define HASH_B UINT64_C(0x96e8b1537ad40dcb)
#define HASH_C UINT64_C(0xa3d94c6be0571f39)

/* A bijection of H for each WORD and of WORD for each H: one differing word never collides. */
static uint64_t hash_absorb(uint64_t h, uint64_t word)
{
	h = (h ^ word) * HASH_A;
	h ^= h >> 32;
	return h * HASH_B;
}

uint64_t hash64(uint64_t seed, const void *data, size_t len)
{
	const uint8_t *at = data;
	uint64_t h = seed + HASH_C;
	size_t left = len;
	uint64_t word;

	for (; left >= sizeof(word); left -= sizeof(word), at += sizeof(word)) {
		memcpy(&word, at, sizeof(word));
		h = hash_absorb(h, le64toh(word));
	}
	word = 0;
	for (size_t i = 0; i < left; i++)
		word |= (uint64_t)at[i] << (8 * i);
	h = hash_absorb(h, word);
	h = hash_absorb(h, (uint64_t)len * HASH_C);
	h ^= h >> 29;
	h *= HASH_C;
	return h ^ (h >> 32);
}

uint64_t hash_to_ino(uint64_t hash)
{
	uint64_t ino = hash >> 4;

	return ino > 1 ? ino : ino + 2;
}

char *format(const char *fmt, ...)
{
	va_list args;
	char *str;
	int n;

	va_start(args, fmt);
	n = vasprintf(&str, fmt, args);
	va_end(args);
	return n < 0 ? NULL : str;
}

void secret_free(char **secret)
{
	if (*secret)
		explicit_bzero(*secret, strlen(*secret));
	free(*secret);
	*secret = NULL;
}
