/* SPDX-License-Identifier: Apache-2.0 */
/*
 * app: the rooms from the cache up to the images, made as the options say: for a mount (main.c),
 * and for a command that works on an image without one.
 * Must not know names in the tree, nor the kernel.
 */
#ifndef REGFS_APP_H
#define REGFS_APP_H

#include "regfs/cli.h"
#include "regfs/creds.h"
#include "regfs/image.h"

/* All zeros before app_prepare(). What the fields point to is the app's. */
struct app {
	struct cli_options *options; /* borrowed; outlive the app */
	struct cache *cache;
	struct pool *jobs;
	struct http *http;
	struct creds *creds;
	struct hosts *hosts;
	struct blobs *blobs;
	struct layers *layers;
	struct images *images;
};

/* Signals, log level and core files, as every process that has these rooms needs them. */
void app_process(const struct cli_options *options);
/* What starts no thread and sends nothing; relative paths are taken while the working directory is
 * the user's. 0, or a negative errno that was said on stderr. */
int app_prepare(struct app *app, struct cli_options *options);
/* The rest. 0 or -ENOMEM. */
int app_start(struct app *app);
/* The store of HOST, for the caller to free. 0, -ENOMEM, registry_new()'s errors. ARG is the app.
 */
int app_make_store(void *arg, const char *host, struct store **ret);
/* An image TEXT that names no host may be another's by a configured alias: changes REF, that it was
 * parsed to. */
void app_follow_alias(const struct app *app, const char *text, struct ref *ref);
/* Ends what is under way in the background: after it no store is used by any of the rooms here.
 * What they have made may still be held. */
void app_halt(struct app *app);
/* Both let go of rooms in the reverse order, and pass over those that were never made; between them
 * is the time for the stores. */
void app_stop(struct app *app);
void app_release(struct app *app);

#endif
