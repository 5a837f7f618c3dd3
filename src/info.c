/* SPDX-License-Identifier: Apache-2.0 */
/*
 * info: _regfs/. Each file's text is made by a function of its own.
 * Must not know FUSE.
 */
#include <errno.h>
#include <inttypes.h>

#include "regfs/info.h"
#include "regfs/log.h"
#include "regfs/stats.h"

#define KEEP_MS	  300 /* a size that was told and the bytes agree for that long */
#define TEXT_MAX  (16 * MIB)
#define SIZE_STEP 512 /* sizes that the counters' texts have */

#define STORE_NAME "store" /* a directory, behind the files */

typedef int text_fn(const struct context *context, struct buf *ret);

static int version_text(const struct context *context, struct buf *ret)
{
	return buf_printf(ret, "%s\n", context->version);
}

static const char *text_of(bool value)
{
	return value ? "true" : "false";
}

/* Spaces, before the TAIL bytes that end the text. Who has read all that it was told of asks for
 * more, maybe a while later, and must not get the end of a text that is longer by a digit. */
static int fill_up(struct buf *text, size_t tail)
{
	size_t over = (text->len + tail) % SIZE_STEP;

	return buf_printf(text, "%*s", over ? (int)(SIZE_STEP - over) : 0, "");
}

static int stats_text(const struct context *context, struct buf *ret)
{
	struct cache_info info;
	int r = buf_puts(ret, "{\n");

	for (int id = 0; id < STAT_COUNT && r == 0; id++)
		r = buf_printf(ret, "  \"%s\": %" PRId64 ",\n", stats_name(id), stats_get(id));
	cache_info(context->cache, &info);
	if (r < 0)
		return r;
	r = buf_printf(ret,
		       "  \"cache_limit_bytes\": %" PRIu64 ",\n"
		       "  \"cache_used_bytes\": %" PRIu64 ",\n"
		       "  \"cache_blocks\": %" PRIu64 ",\n"
		       "  \"cache_files\": %" PRIu64 ",\n"
		       "  \"cache_writable\": %s,\n"
		       "  \"passthrough\": %s,\n"
		       "  \"io_uring\": %s,\n"
		       "  \"uptime_seconds\": %" PRId64,
		       info.limit_bytes, info.used_bytes, info.blocks, info.files,
		       text_of(info.writable), text_of(context->modes->passthrough),
		       text_of(context->modes->io_uring),
		       wall_ms() / 1000 - (int64_t)context->started.tv_sec);
	r = r < 0 ? r : fill_up(ret, strlen("\n}\n"));
	return r < 0 ? r : buf_puts(ret, "\n}\n");
}

static int metric(struct buf *ret, const char *name, const char *type, const char *help,
		  int64_t value)
{
	return buf_printf(ret, "# HELP regfs_%s %s\n# TYPE regfs_%s %s\nregfs_%s %" PRId64 "\n",
			  name, help, name, type, name, value);
}

static int metrics_text(const struct context *context, struct buf *ret)
{
	struct cache_info info;
	int r = 0;

	for (int id = 0; id < STAT_COUNT && r == 0; id++)
		r = metric(ret, stats_name(id),
			   ends_with(stats_name(id), "_now") ? "gauge" : "counter", stats_help(id),
			   stats_get(id));
	cache_info(context->cache, &info);
	if (r == 0)
		r = metric(ret, "cache_limit_bytes", "gauge", "Most bytes the cache may use",
			   info.limit_bytes);
	if (r == 0)
		r = metric(ret, "cache_used_bytes", "gauge", "Bytes the cache uses",
			   info.used_bytes);
	r = r < 0 ? r : buf_puts(ret, "#");
	r = r < 0 ? r : fill_up(ret, strlen("\n"));
	return r < 0 ? r : buf_puts(ret, "\n");
}

static int log_text(const struct context *context, struct buf *ret)
{
	(void)context;
	return log_recent(ret);
}

static int pushes_list_text(const struct context *context, struct buf *ret)
{
	return pushes_text(context->pushes, ret);
}

static const struct {
	const char *name;
	text_fn *text;
} info_files[] = {
	{"version", version_text}, {"stats.json", stats_text},	 {"metrics", metrics_text},
	{"log", log_text},	   {"pushes", pushes_list_text},
};

/* Sub 0 is the directory, N the file info_files[N - 1]. */
struct info {
	struct node node;
	const struct context *context;
	const struct layerstore_source *source;
	pthread_mutex_t lock;
	struct {
		struct buf text;
		bool made;
		int64_t made_ms;
		uint64_t log; /* log_generation() then */
		struct timespec mtime;
	} made[ARRAY_SIZE(info_files)]; /* guarded by lock */
};

static struct info *info_of(const struct node_ref *ref)
{
	return CONTAINER_OF(ref->node, struct info, node);
}

/* Makes the text of file N anew if it is too old. The mtime changes with the text only. */
static int info_refresh(struct info *info, size_t n)
{
	struct buf fresh = BUF_INIT(TEXT_MAX);
	uint64_t log = log_generation();
	bool keep;
	int r;

	pthread_mutex_lock(&info->lock);
	keep = info->made[n].made && now_ms() - info->made[n].made_ms < KEEP_MS;
	/* the log only grows: what was read of it stays right */
	if (info_files[n].text == log_text)
		keep = info->made[n].made && info->made[n].log == log;
	pthread_mutex_unlock(&info->lock);
	if (keep)
		return 0;
	r = info_files[n].text(info->context, &fresh);
	if (r < 0) {
		buf_release(&fresh);
		return r;
	}
	pthread_mutex_lock(&info->lock);
	if (fresh.len != info->made[n].text.len || !info->made[n].made ||
	    (fresh.len && memcmp(fresh.data, info->made[n].text.data, fresh.len) != 0)) {
		struct buf old = info->made[n].text;

		info->made[n].text = fresh;
		fresh = old;
		clock_gettime(CLOCK_REALTIME, &info->made[n].mtime);
	}
	info->made[n].made = true;
	info->made[n].made_ms = now_ms();
	info->made[n].log = log;
	pthread_mutex_unlock(&info->lock);
	buf_release(&fresh);
	return 0;
}

static int info_getattr(const struct node_ref *ref, struct call *call, struct node_attr *ret)
{
	struct info *info = info_of(ref);
	size_t n = ref->sub - 1;
	int r;

	(void)call;
	if (ref->sub == 0) {
		context_stat(info->context, ref->node->ino,
			     S_IFDIR | (info->context->allow_other ? 0700 : 0755), 0, &ret->st);
		ret->timeout = NODE_FOREVER;
		return 0;
	}
	r = info_refresh(info, n);
	if (r < 0)
		return r;
	pthread_mutex_lock(&info->lock);
	context_stat(info->context, node_ino(ref->node, info_files[n].name), S_IFREG | 0444,
		     info->made[n].text.len, &ret->st);
	ret->st.st_mtim = ret->st.st_ctim = info->made[n].mtime;
	pthread_mutex_unlock(&info->lock);
	ret->timeout = 0;
	return 0;
}

static int lookup_store(const struct node_ref *dir, struct call *call, struct node_entry *ret)
{
	const struct info *info = info_of(dir);
	struct node_entry entry = {.timeout = NODE_FOREVER};
	int r = layerstore_new(info->context, info->source, dir->node, &entry.ref.node);

	if (r < 0)
		return r;
	r = node_getattr(&entry.ref, call, &entry.attr);
	if (r < 0)
		node_unref(entry.ref.node);
	else
		*ret = entry;
	return r;
}

static int info_lookup(const struct node_ref *dir, const char *name, struct call *call,
		       struct node_entry *ret)
{
	struct node_entry entry = {.timeout = NODE_FOREVER};
	size_t n = 0;
	int r;

	if (dir->sub == 0 && !strcmp(name, STORE_NAME))
		return lookup_store(dir, call, ret);
	while (n < ARRAY_SIZE(info_files) && strcmp(info_files[n].name, name) != 0)
		n++;
	if (dir->sub != 0 || n == ARRAY_SIZE(info_files))
		return -ENOENT;
	entry.ref = (struct node_ref){.node = dir->node, .sub = n + 1};
	r = info_getattr(&entry.ref, call, &entry.attr);
	if (r < 0)
		return r;
	node_ref(dir->node);
	*ret = entry;
	return 0;
}

static int info_list(const struct node_ref *dir, uint64_t pos, node_list_fn *fn, void *arg,
		     struct call *call)
{
	(void)call;
	if (dir->sub != 0)
		return -ENOTDIR;
	for (size_t n = pos; n <= ARRAY_SIZE(info_files); n++) {
		bool is_file = n < ARRAY_SIZE(info_files);
		const char *name = is_file ? info_files[n].name : STORE_NAME;
		struct node_listed listed = {
			.pos = n + 1,
			.name = name,
			.len = strlen(name),
			.type = is_file ? S_IFREG : S_IFDIR,
			.ino = node_ino(dir->node, name),
		};

		if (fn(arg, &listed) != 0)
			break;
	}
	return 0;
}

static ssize_t info_read(const struct node_ref *ref, uint64_t off, void *buf, size_t len,
			 struct call *call)
{
	struct info *info = info_of(ref);
	ssize_t copied;

	(void)call;
	if (ref->sub == 0)
		return -EISDIR;
	pthread_mutex_lock(&info->lock);
	copied = context_copy(info->made[ref->sub - 1].text.data, info->made[ref->sub - 1].text.len,
			      off, buf, len);
	pthread_mutex_unlock(&info->lock);
	return copied;
}

static void info_free(struct node *node)
{
	struct info *info = CONTAINER_OF(node, struct info, node);

	for (size_t n = 0; n < ARRAY_SIZE(info_files); n++)
		buf_release(&info->made[n].text);
	pthread_mutex_destroy(&info->lock);
	free(info);
}

static const struct node_ops info_ops = {
	.kind = "info",
	.free = info_free,
	.getattr = info_getattr,
	.lookup = info_lookup,
	.list = info_list,
	.read = info_read,
};

int info_new(const struct context *context, const struct layerstore_source *source,
	     struct node *parent, struct node **ret)
{
	struct node *found = node_find(context->nodes, parent, "_regfs", 0);
	struct info *info;

	if (found) {
		*ret = found;
		return 0;
	}
	info = node_new(sizeof(*info), context->nodes, &info_ops, parent, "_regfs");
	if (!info)
		return -ENOMEM;
	info->context = context;
	info->source = source;
	pthread_mutex_init(&info->lock, NULL);
	*ret = node_intern(&info->node, 0);
	return 0;
}
