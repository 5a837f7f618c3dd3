/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reader: reads files in the ways that programs do, and says how long it took and what CPU time of
 * its own, in seconds.
 *
 *   reader sequential|mmap ROUNDS FILE    all of it, ROUNDS times
 *   reader random ROUNDS FILE             4 KiB here and there, as often
 *   reader small ROUNDS DIR <LIST         opens, reads and closes each file of the list, as often
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define RANDOM_READS 20000

static char buffer[1 << 20];

static int open_or_die(const char *path)
{
	int fd = open(path, O_RDONLY);

	if (fd < 0) {
		perror(path);
		exit(1);
	}
	return fd;
}

static void sequential(int fd, off_t size)
{
	for (off_t off = 0; off < size;) {
		ssize_t n = pread(fd, buffer, 131072, off);

		if (n <= 0)
			exit(1);
		off += n;
	}
}

static void at_random(int fd, off_t size)
{
	unsigned x = 1;

	for (int i = 0; i < RANDOM_READS; i++) {
		x = x * 1664525 + 1013904223;
		if (pread(fd, buffer, 4096, x % (size / 4096) * 4096) <= 0)
			exit(1);
	}
}

static void mapped(int fd, off_t size)
{
	const volatile char *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	unsigned sum = 0;

	if (map == MAP_FAILED)
		exit(1);
	for (off_t off = 0; off < size; off += 4096)
		sum += map[off];
	buffer[0] = (char)sum;
	munmap((void *)map, size);
}

static void small(void)
{
	char name[4096];

	rewind(stdin);
	while (fgets(name, sizeof(name), stdin)) {
		name[strcspn(name, "\n")] = 0;
		int fd = open_or_die(name);
		if (read(fd, buffer, sizeof(buffer)) < 0)
			exit(1);
		close(fd);
	}
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static double cpu(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void read_file(const char *way, int rounds, int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		exit(1);
	while (rounds-- > 0) {
		if (!strcmp(way, "sequential"))
			sequential(fd, st.st_size);
		else if (!strcmp(way, "random"))
			at_random(fd, st.st_size);
		else
			mapped(fd, st.st_size);
	}
}

int main(int argc, char **argv)
{
	double start = now(), start_cpu = cpu();

	if (argc != 4)
		return 2;
	int rounds = atoi(argv[2]);
	if (strcmp(argv[1], "small") != 0) {
		read_file(argv[1], rounds, open_or_die(argv[3]));
	} else {
		if (chdir(argv[3]) < 0)
			return 1;
		while (rounds-- > 0)
			small();
	}
	printf("%f %f\n", now() - start, cpu() - start_cpu);
	return 0;
}
