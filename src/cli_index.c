// SPDX-License-Identifier: Apache-2.0
/*
 * cli_index: regfs index push: an image's index is made and put beside it, without a mount.
 * Must not know what an index is made of.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>

#include "cli_priv.h"
#include "regfs/app.h"
#include "regfs/share.h"
#include "regfs/ztoc.h"

static const char usage_text[] =
	"usage: regfs index push [-o OPTION[,OPTION...]] [--min-layer-size SIZE] REF\n";

struct index_command {
	struct cli_options options;
	uint64_t layer_min;
	const char *verb, *given; /* REF as it was typed */
	struct ref ref;
	struct app app;
	struct store *store;
	struct wait wait;
};

static int PRINTF_LIKE(1, 2) complain(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fputs("regfs: index: ", stderr);
	vfprintf(stderr, fmt, args);
	fputs("\n", stderr);
	va_end(args);
	return -EINVAL;
}

/* --- the command line --- */

static int one_argument(struct index_command *command, const char *arg, const char *value,
			int *ret_used)
{
	*ret_used = value ? 1 : 0;
	if (!strcmp(arg, "-o") && value)
		return cli_option_list(&command->options, value);
	if (!strcmp(arg, "--min-layer-size") && value)
		return parse_size(value, &command->layer_min) < 0
			       ? complain("--min-layer-size: not a size: %s", value)
			       : 0;
	*ret_used = 0;
	if (starts_with(arg, "-o") && arg[2])
		return cli_option_list(&command->options, arg + 2);
	if (*arg == '-' || command->given)
		return complain("not understood: %s", arg);
	*(command->verb ? &command->given : &command->verb) = arg;
	return 0;
}

static int check_args(struct index_command *command)
{
	const char *why;

	if (!command->verb || strcmp(command->verb, "push") != 0)
		return complain(command->verb ? "not understood: %s" : "push what?%s",
				command->verb ? command->verb : "");
	if (!command->given)
		return complain("push which image?");
	if (ref_parse(command->given, &command->ref, &why) < 0)
		return complain("%s: %s", command->given, why);
	if (command->options.offline)
		return complain("option offline: an index cannot be pushed without the network");
	return 0;
}

static int parse_args(struct index_command *command, int argc, char **argv)
{
	int r = cli_options_init(&command->options);

	for (int i = 2; i < argc && r == 0; i++) {
		int used = 0;

		r = one_argument(command, argv[i], i + 1 < argc ? argv[i + 1] : NULL, &used);
		i += used;
	}
	r = r < 0 ? r : check_args(command);
	if (r < 0)
		fputs(usage_text, stderr);
	return r;
}

/* --- the work --- */

static void say_layer(void *arg, const struct share_layer *layer)
{
	char digest[DIGEST_STR_MAX], ztoc[DIGEST_STR_MAX];

	(void)arg;
	digest_format(&layer->layer->digest, digest);
	if (layer->left_out)
		printf("layer %s (%" PRId64 " bytes) left out: %s\n", digest, layer->layer->size,
		       layer->left_out);
	else
		printf("layer %s (%" PRId64 " bytes) indexed: %" PRIu32 " files, %" PRIu32
		       " spans, %s (%" PRIu64 " bytes)\n",
		       digest, layer->layer->size, layer->nfiles, layer->nspans,
		       digest_format(&layer->ztoc, ztoc), layer->ztoc_size);
	fflush(stdout);
}

/* The image of this platform that REF names. */
static int open_image(struct index_command *command, struct image **ret)
{
	struct app *app = &command->app;
	const struct ref *ref = &command->ref;
	struct digest digest = ref->digest;
	struct image *named;
	int r = 0;

	if (digest.algo == DIGEST_NONE)
		r = image_resolve(app->images, command->store, ref->repo, ref->tag, &command->wait,
				  &digest);
	if (r == 0)
		r = image_open(app->images, command->store, ref->repo, &digest, &command->wait,
			       &named);
	if (r < 0)
		return r;
	r = image_platform(named, &command->wait, ret);
	image_unref(named);
	if (r == -ENOENT)
		complain("%s has no image for this platform; -o platform=OS/ARCH names another",
			 command->given);
	return r;
}

static int push_index(struct index_command *command, struct image *image)
{
	const struct share_options options = {
		.blobs = command->app.blobs,
		.layer_min = command->layer_min,
		.span_size = ZTOC_SPAN_SIZE,
		.say = say_layer,
	};
	char text[DIGEST_STR_MAX];
	struct digest index;

	printf("image %s/%s@%s\n", image_store(image)->name, image_repo(image),
	       digest_format(image_digest(image), text));
	int r = share_image(&options, image, &command->wait, &index);
	if (r == 0)
		printf("index %s/%s@%s\n", image_store(image)->name, image_repo(image),
		       digest_format(&index, text));
	else if (r > 0)
		printf("no layer needs an index; nothing was pushed\n");
	return MIN(r, 0);
}

static int run(struct index_command *command)
{
	struct app *app = &command->app;
	struct image *image = NULL;
	int r = app_start(app);

	if (r == 0)
		app_follow_alias(app, command->given, &command->ref);
	if (r == 0)
		r = app_make_store(app, command->ref.host, &command->store);
	if (r == 0)
		r = open_image(command, &image);
	if (r == 0)
		r = push_index(command, image);
	if (r < 0)
		complain("%s: %s", command->given,
			 r == -EMEDIUMTYPE ? "it is no image with layers" : strerrordesc_np(-r));
	image_unref(image);
	return r;
}

int cli_index(int argc, char **argv)
{
	struct index_command command = {.layer_min = SHARE_LAYER_MIN};
	int status = CLI_USAGE;

	wait_init(&command.wait, true);
	if (parse_args(&command, argc, argv) == 0) {
		app_process(&command.options);
		status = CLI_FAILED;
		if (app_prepare(&command.app, &command.options) == 0 && run(&command) == 0)
			status = CLI_OK;
		app_stop(&command.app);
		store_free(command.store);
		app_release(&command.app);
	}
	wait_release(&command.wait);
	cli_options_release(&command.options);
	return status;
}
