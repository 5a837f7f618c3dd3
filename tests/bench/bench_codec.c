/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_codec FILE…: how fast gzip and zstd files decode, in MB of decoded bytes a second: the
 * libraries alone, and our decoder without and with resume points each MiB; then how long a read
 * of 4 KiB takes from the point before it. Medians of five.
 */
#include <isa-l/igzip_lib.h>
#include <time.h>
#include <zlib.h>
#include <zstd.h>

#include "regfs/codec.h"

#define RUNS	5
#define SPACING (1 * MIB)
#define READ	(1 * MIB) /* what decoder_read gets */
#define FEED	(256 * KIB)
#define SAMPLES 200

struct file {
	char *data;
	size_t len;
	enum codec codec;
	uint8_t *out;
	size_t out_len;
};

struct kept_points {
	struct codec_point *points;
	size_t count;
};

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void bare_isal(struct file *file)
{
	AUTO_FREE struct inflate_state *state = malloc(sizeof(*state));

	isal_inflate_init(state);
	state->crc_flag = ISAL_GZIP;
	state->next_in = (uint8_t *)file->data;
	state->avail_in = (uint32_t)file->len;
	state->next_out = file->out;
	state->avail_out = (uint32_t)file->out_len;
	while (isal_inflate(state) == ISAL_DECOMP_OK && state->avail_in && state->avail_out)
		if (state->block_state == ISAL_BLOCK_FINISH)
			isal_inflate_reset(state);
}

static void bare_zlib(struct file *file)
{
	z_stream z = {.next_in = (uint8_t *)file->data,
		      .avail_in = (uInt)file->len,
		      .next_out = file->out,
		      .avail_out = (uInt)file->out_len};

	inflateInit2(&z, 31);
	while (inflate(&z, Z_NO_FLUSH) == Z_STREAM_END && z.avail_in)
		inflateReset(&z);
	inflateEnd(&z);
}

static void bare_zstd(struct file *file)
{
	ZSTD_decompress(file->out, file->out_len, file->data, file->len);
}

static int keep_point(void *arg, const struct codec_point *point)
{
	struct kept_points *kept = arg;
	uint8_t *window = malloc(point->window_len + 1);

	kept->points = reallocarray(kept->points, kept->count + 1, sizeof(*point));
	if (!kept->points || !window)
		abort();
	memcpy(window, point->window, point->window_len);
	kept->points[kept->count] = *point;
	kept->points[kept->count++].window = window;
	return 0;
}

static void forget_points(struct kept_points *kept)
{
	for (size_t i = 0; i < kept->count; i++)
		free((void *)kept->points[i].window);
	free(kept->points);
	*kept = (struct kept_points){0};
}

/* As a layer is read: input in pieces, output through one buffer. Returns the decoded length. */
static size_t our_decoder(struct file *file, struct kept_points *kept)
{
	const struct decoder_options options = {
		.spacing = kept ? SPACING : 0, .on_point = keep_point, .arg = kept};
	AUTO_DECODER struct decoder *decoder = decoder_new(file->codec, &options);
	AUTO_FREE uint8_t *buf = malloc(READ);
	size_t fed = 0;

	while (!decoder_done(decoder)) {
		ssize_t got = decoder_read(decoder, buf, READ);
		size_t step = MIN(FEED, file->len - fed);

		if (got < 0) {
			fprintf(stderr, "%s\n", decoder_error(decoder));
			exit(1);
		}
		if (got > 0 || decoder_done(decoder))
			continue;
		decoder_input(decoder, file->data + fed, step, fed + step == file->len);
		fed += step;
	}
	return decoder_out_off(decoder);
}

static void with_points(struct file *file)
{
	CLEANUP(forget_points) struct kept_points kept = {0};

	our_decoder(file, &kept);
}

static void without_points(struct file *file)
{
	our_decoder(file, NULL);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void measure(const char *what, struct file *file, void (*run)(struct file *))
{
	double times[RUNS];

	for (int i = 0; i < RUNS; i++) {
		double start = seconds();

		run(file);
		times[i] = seconds() - start;
	}
	qsort(times, RUNS, sizeof(*times), compare);
	printf("  %-28s %7.0f MB/s\n", what, (double)file->out_len / times[RUNS / 2] / 1e6);
}

static double resume_once(struct file *file, const struct kept_points *kept, uint64_t off)
{
	struct codec_point point = {.member = true};
	uint8_t *skip = file->out;
	double start = seconds();
	struct decoder *decoder;

	for (size_t i = 0; i < kept->count && kept->points[i].out_off <= off; i++)
		point = kept->points[i];
	decoder = decoder_resume(file->codec, &point,
				 point.in_off ? (uint8_t)file->data[point.in_off - 1] : 0);
	decoder_input(decoder, file->data + point.in_off, file->len - point.in_off, true);
	decoder_read(decoder, skip, (size_t)(off - point.out_off) + 4096);
	decoder_free(decoder);
	return seconds() - start;
}

static void measure_resume(struct file *file)
{
	CLEANUP(forget_points) struct kept_points kept = {0};
	double times[SAMPLES];

	our_decoder(file, &kept);
	for (int i = 0; i < SAMPLES; i++)
		times[i] = resume_once(file, &kept,
				       hash64(1, &i, sizeof(i)) % (file->out_len - 4096));
	qsort(times, SAMPLES, sizeof(*times), compare);
	printf("  4 KiB read, p50 (p99)        %7.2f ms (%.2f), %zu points\n",
	       times[SAMPLES / 2] * 1e3, times[SAMPLES * 99 / 100] * 1e3, kept.count);
}

static int bench(const char *path)
{
	struct file file = {0};

	if (read_file(path, SIZE_MAX / 2, &file.data, &file.len) < 0) {
		fprintf(stderr, "cannot read %s\n", path);
		return 1;
	}
	file.codec = codec_detect(file.data, file.len);
	file.out_len = our_decoder(&file, NULL);
	file.out = malloc(file.out_len + 4096);
	if (!file.out)
		return 1;
	memset(file.out, 0, file.out_len);
	printf("%s: %.1f MB, %.1f decoded\n", path, (double)file.len / 1e6,
	       (double)file.out_len / 1e6);
	if (file.codec == CODEC_GZIP) {
		measure("zlib alone", &file, bare_zlib);
		measure("ISA-L alone", &file, bare_isal);
	}
	if (file.codec == CODEC_ZSTD)
		measure("zstd alone", &file, bare_zstd);
	measure("decoder", &file, without_points);
	measure("decoder, points each MiB", &file, with_points);
	measure_resume(&file);
	free(file.out);
	free(file.data);
	return 0;
}

int main(int argc, char **argv)
{
	int rc = argc < 2;

	for (int i = 1; i < argc; i++)
		rc |= bench(argv[i]);
	return rc;
}
