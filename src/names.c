/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names: hosts, the root that lists them, and telling the kernel of changed names.
 * Must not know what an image directory holds.
 */
#include <errno.h>

#include "regfs/imagedir.h"
#include "regfs/info.h"
#include "regfs/log.h"

#include "names_priv.h"

#define MAX_HOSTS	4096
#define PROBE_FAILED_MS 5000
#define SETTLE_MS	2000
#define PENDING_MS	5000 /* ln -sf needs less */

/* --- hosts --- */

/* Lock held. */
static struct host *host_find(struct names *names, const char *name)
{
	struct host *host = names->hosts;

	while (host && strcmp(host->name, name) != 0)
		host = host->next;
	return host;
}

static int host_make(struct names *names, const char *name, struct host **ret)
{
	struct host *host = calloc(1, sizeof(*host));
	struct store *store;
	int r = -ENOMEM;

	if (!host)
		return -ENOMEM;
	host->name = strdup(name);
	if (host->name)
		r = names->options.store(names->options.arg, name, &store);
	if (r < 0) {
		free(host->name);
		free(host);
		return r;
	}
	host->store = store;
	*ret = host;
	return 0;
}

static void host_free(struct host *host)
{
	store_free(host->store);
	free(host->name);
	free(host);
}

int names_host(struct names *names, const char *name, struct host **ret)
{
	struct host *host, *fresh;
	int r;

	pthread_mutex_lock(&names->lock);
	host = host_find(names, name);
	pthread_mutex_unlock(&names->lock);
	if (host) {
		*ret = host;
		return 0;
	}
	r = host_make(names, name, &fresh);
	if (r < 0)
		return r;
	pthread_mutex_lock(&names->lock);
	host = host_find(names, name);
	if (!host && names->nhosts < MAX_HOSTS) {
		fresh->next = names->hosts;
		names->hosts = fresh;
		names->nhosts++;
		host = STEAL(fresh);
	}
	pthread_mutex_unlock(&names->lock);
	if (fresh)
		host_free(fresh);
	if (!host)
		return -ENOENT;
	*ret = host;
	return 0;
}

static void host_set_known(struct names *names, struct host *host)
{
	pthread_mutex_lock(&names->lock);
	if (!host->known)
		clock_gettime(CLOCK_REALTIME, &names->hosts_changed);
	host->known = true;
	pthread_mutex_unlock(&names->lock);
}

/* A host that is not listed yet is entered if it answers as a registry; a failure is believed
 * for some seconds, so that whoever stats it again and again costs no traffic. */
static int host_probe(struct names *names, struct host *host, struct wait *wait)
{
	int64_t now = now_ms();
	int r;

	pthread_mutex_lock(&names->lock);
	r = host->known ? 1 : now < host->failed_until_ms ? host->failure : 0;
	pthread_mutex_unlock(&names->lock);
	if (r != 0)
		return MIN(r, 0);
	r = host->store->ops->ping(host->store, wait);
	if (r == 0)
		host_set_known(names, host);
	if (r < 0 && r != -EINTR && r != -EWOULDBLOCK) {
		pthread_mutex_lock(&names->lock);
		host->failure = r;
		host->failed_until_ms = now_ms() + PROBE_FAILED_MS;
		pthread_mutex_unlock(&names->lock);
	}
	return r;
}

static int on_stored_host(void *arg, const char *name)
{
	struct names *names = arg;
	struct host *host;
	int r = names_host(names, name, &host);

	if (r == 0)
		host_set_known(names, host);
	return r == -ENOMEM ? r : 0;
}

/* Hosts that somebody has logged in to since are listed, and entered without asking them. */
static int hosts_update(struct names *names, struct wait *wait)
{
	const struct names_options *options = &names->options;

	if (!options->stored_hosts)
		return 0;
	return options->stored_hosts(options->arg, on_stored_host, names, wait);
}

int names_enter_host(struct names *names, const char *name, struct call *call, struct host **ret)
{
	struct host *host;
	bool is_known;
	int r;

	if (!ref_host_valid(name))
		return -ENOENT;
	pthread_mutex_lock(&names->lock);
	host = host_find(names, name);
	is_known = host && host->known;
	pthread_mutex_unlock(&names->lock);
	/* a stranger must not make us talk to hosts of his choice */
	if (!is_known && call->uid != names->context->uid)
		return -EACCES;
	r = is_known ? 0 : hosts_update(names, call->wait);
	if (r == 0)
		r = names_host(names, name, &host);
	if (r == 0)
		r = host_probe(names, host, call->wait);
	if (r == 0)
		*ret = host;
	return r;
}

/* --- the root of all registries --- */

struct root {
	struct node node;
	struct names *names;
	struct snapshot snapshot;
};

static struct root *root_of(const struct node_ref *ref)
{
	return CONTAINER_OF(ref->node, struct root, node);
}

static int root_getattr(const struct node_ref *ref, struct call *call, struct node_attr *ret)
{
	struct root *root = root_of(ref);
	/* the kernel keeps a listing until the time of change is another */
	int r = hosts_update(root->names, call->wait);

	if (r < 0)
		return r;
	names_dir_attr(root->names, ref->node, 0755, &root->snapshot, true, ret);
	pthread_mutex_lock(&root->names->lock);
	ret->st.st_mtim = ret->st.st_ctim = root->names->hosts_changed;
	pthread_mutex_unlock(&root->names->lock);
	return 0;
}

/* "localhost+5000" is a link to "localhost:5000": for tools that split paths at colons. */
static int root_lookup_plus(struct root *root, const char *name, struct call *call,
			    struct node_entry *ret)
{
	AUTO_FREE char *host = strdup(name);
	struct node *link;
	char *plus;
	int r;

	if (!host)
		return -ENOMEM;
	plus = strrchr(host, '+');
	*plus = ':';
	if (!ref_host_valid(host))
		return -ENOENT;
	r = link_new(root->names, &root->node, name, host, &link);
	return r < 0 ? r : names_entry(link, NODE_FOREVER, call, ret);
}

static int root_lookup(const struct node_ref *dir, const char *name, struct call *call,
		       struct node_entry *ret)
{
	struct root *root = root_of(dir);
	struct names *names = root->names;
	struct node *place;
	struct host *host;
	int r;

	if (!strcmp(name, "_regfs"))
		return names_info(names, dir->node, call, ret);
	if (strchr(name, '+'))
		return root_lookup_plus(root, name, call, ret);
	r = names_enter_host(names, name, call, &host);
	if (r == 0)
		r = place_new(names, host, dir->node, name, "", &place);
	return r < 0 ? r : names_entry(place, NODE_FOREVER, call, ret);
}

static int root_list(const struct node_ref *dir, uint64_t pos, node_list_fn *fn, void *arg,
		     struct call *call)
{
	struct root *root = root_of(dir);
	struct names *names = root->names;
	struct nameset *set;
	int r = 0;

	/* a listing goes on with what it began with */
	if (pos == 0)
		r = hosts_update(names, call->wait);
	if (r < 0)
		return r;
	set = nameset_new();
	if (!set)
		return -ENOMEM;
	r = nameset_add(set, "_regfs");
	pthread_mutex_lock(&names->lock);
	for (const struct host *host = names->hosts; host && r == 0; host = host->next)
		if (host->known)
			r = nameset_add(set, host->name);
	pthread_mutex_unlock(&names->lock);
	nameset_seal(set);
	if (r < 0) {
		nameset_unref(set);
		return r;
	}
	if (pos == 0)
		snapshot_update(&root->snapshot, nameset_ref(set));
	nameset_unref(set);
	return snapshot_list(&root->snapshot, dir->node, pos, S_IFDIR, fn, arg);
}

static void root_free(struct node *node)
{
	struct root *root = CONTAINER_OF(node, struct root, node);

	snapshot_release(&root->snapshot);
	free(root);
}

static const struct node_ops root_ops = {
	.kind = "registries",
	.free = root_free,
	.getattr = root_getattr,
	.lookup = root_lookup,
	.list = root_list,
};

static int root_new(struct names *names, struct node **ret)
{
	struct root *root = node_new(sizeof(*root), names->context->nodes, &root_ops, NULL, "");

	if (!root)
		return -ENOMEM;
	root->names = names;
	snapshot_init(&root->snapshot, &names->context->started);
	*ret = &root->node;
	return 0;
}

/* --- shared by the directories --- */

int names_entry(struct node *node, double timeout, struct call *call, struct node_entry *ret)
{
	struct node_entry entry = {.ref = {.node = node}, .timeout = timeout};
	int r = node_getattr(&entry.ref, call, &entry.attr);

	if (r < 0) {
		node_unref(node);
		return r;
	}
	*ret = entry;
	return 0;
}

int names_info(struct names *names, struct node *parent, struct call *call, struct node_entry *ret)
{
	struct node *info;
	int r = info_new(names->context, &names->layers, parent, &info);

	return r < 0 ? r : names_entry(info, NODE_FOREVER, call, ret);
}

double names_ttl(const struct names *names, const struct host *host)
{
	return host_is_local(host) ? 0 : names->context->tag_ttl_ms / 1000.0;
}

void names_dir_attr(const struct names *names, const struct node *node, mode_t mode,
		    struct snapshot *snapshot, bool fresh, struct node_attr *ret)
{
	context_stat(names->context, node->ino, S_IFDIR | mode, 0, &ret->st);
	if (fresh)
		ret->st.st_mtim = snapshot_time(snapshot);
	else
		clock_gettime(CLOCK_REALTIME, &ret->st.st_mtim);
	ret->st.st_ctim = ret->st.st_mtim;
	ret->timeout = 0;
}

int names_image(struct names *names, struct node *parent, const char *name,
		const struct image_name *what, struct wait *wait, struct node **ret)
{
	struct imagedir_options options = {
		.context = names->context,
		.parent = parent,
		.name = name,
		.ref_name = what->tag,
	};
	AUTO_FREE char *repo_tag = NULL;
	int r;

	if (what->tag) {
		repo_tag = format("%s/%s:%s", what->host->name, what->repo, what->tag);
		if (!repo_tag)
			return -ENOMEM;
		options.repo_tag = repo_tag;
	}
	r = image_open(names->context->images, what->host->store, what->repo, what->digest, wait,
		       &options.image);
	if (r < 0)
		return r;
	if (what->tag)
		image_tagged(options.image, what->tag);
	r = imagedir_new(&options, wait, ret);
	image_unref(options.image);
	if (r == 0)
		answers_saw(names->answers, what->host, what->repo, what->digest);
	return r;
}

/* --- telling the kernel --- */

/* The place of REPO below the root, if the kernel has walked there. */
static struct node *find_place(struct names *names, const struct event *event, const char *repo)
{
	AUTO_FREE char *path = NULL;
	char *rest, *component;
	struct node *at;

	pthread_mutex_lock(&names->lock);
	at = names->root ? node_ref(names->root) : NULL;
	pthread_mutex_unlock(&names->lock);

	if (at && at->ops == &root_ops)
		path = format("%s%s%s", event->host, *repo ? "/" : "", repo);
	else
		path = strdup(repo);
	rest = path;
	while (at && rest && *rest && (component = strsep(&rest, "/"))) {
		struct node *next = node_find(names->context->nodes, at, component, 0);

		node_unref(at);
		at = next;
	}
	return at;
}

static void forget(struct names *names, struct node *dir, const char *name)
{
	const struct node_ref ref = {.node = dir};

	if (names->options.forget)
		names->options.forget(names->options.forget_arg, &ref, name);
}

/* The image's own name, which lies beside the repository. */
static void tell_image(struct names *names, const struct event *event)
{
	char separator = event->kind == EVENT_TAG ? ':' : '@';
	AUTO_FREE char *above = strdup(event->repo);
	char *slash = above ? strrchr(above, '/') : NULL;
	const char *component = slash ? slash + 1 : event->repo;
	AUTO_FREE char *image = format("%s%c%s", component, separator, event->name);
	AUTO_NODE struct node *parent = NULL;

	if (!above || !image)
		return;
	if (slash)
		*slash = 0;
	parent = find_place(names, event, slash ? above : "");
	if (parent) {
		forget(names, parent, image);
		forget(names, parent, component);
	}
}

/* The link to it in the repository. */
static void tell_link(struct names *names, const struct event *event)
{
	const char *dir_name = event->kind == EVENT_TAG ? "_tags" : "_digests";
	AUTO_FREE char *link = strdup(event->name);
	AUTO_NODE struct node *repo = find_place(names, event, event->repo);
	AUTO_NODE struct node *dir = NULL;
	char *colon;

	if (!link || !repo)
		return;
	colon = strchr(link, ':');
	if (colon)
		*colon = '-';
	dir = node_find(names->context->nodes, repo, dir_name, 0);
	if (dir)
		forget(names, dir, link);
	forget(names, repo, dir_name);
}

static void count_told(struct names *names, uint64_t *counter)
{
	pthread_mutex_lock(&names->lock);
	++*counter;
	wait_wake(&names->settled);
	pthread_mutex_unlock(&names->lock);
}

static void on_event(void *arg, const struct event *event)
{
	struct names *names = arg;

	if (event->kind != EVENT_TAG && event->kind != EVENT_IMAGE)
		return;
	tell_image(names, event);
	count_told(names, &names->told_images);
	events_publish(names->links, event);
}

static void on_link_event(void *arg, const struct event *event)
{
	struct names *names = arg;

	tell_link(names, event);
	count_told(names, &names->told);
}

static void publish_change(struct names *names, const struct event *event)
{
	pthread_mutex_lock(&names->lock);
	names->changes++;
	pthread_mutex_unlock(&names->lock);
	events_publish(names->context->events, event);
}

/* What is remembered of TAG is dropped, and the kernel is told. */
static void tag_changed(struct names *names, struct host *host, const char *repo, const char *tag)
{
	const struct event event = {
		.kind = EVENT_TAG, .host = host->name, .repo = repo, .name = tag};

	(void)answers_add_repo(names->answers, host, repo);
	answers_forget_tag(names->answers, host, repo, tag);
	publish_change(names, &event);
}

void names_tag_made(struct names *names, struct store *store, const char *repo, const char *tag,
		    const struct digest *digest)
{
	struct host *host;

	pthread_mutex_lock(&names->lock);
	for (host = names->hosts; host && host->store != store; host = host->next)
		;
	pthread_mutex_unlock(&names->lock);
	if (!host)
		return;
	answers_add_tag(names->answers, host, repo, tag);
	tag_changed(names, host, repo, tag);
	image_remember_tag(names->context->images, store, repo, tag, digest);
}

void names_tag_gone(struct names *names, struct host *host, const char *repo, const char *tag)
{
	answers_drop_tag(names->answers, host, repo, tag);
	tag_changed(names, host, repo, tag);
}

void names_image_gone(struct names *names, struct host *host, const char *repo,
		      const struct digest *digest)
{
	char text[DIGEST_STR_MAX];
	const struct event event = {
		.kind = EVENT_IMAGE,
		.host = host->name,
		.repo = repo,
		.name = digest_format(digest, text),
	};

	publish_change(names, &event);
}

static void settle(struct names *names, const uint64_t *counter, struct wait *wait)
{
	int64_t deadline = now_ms() + SETTLE_MS;
	uint64_t until;
	int r = 0;

	pthread_mutex_lock(&names->lock);
	until = names->changes;
	while (r == 0 && *counter < until)
		r = wait_on(wait, &names->settled, &names->lock, deadline);
	pthread_mutex_unlock(&names->lock);
}

void names_settle(struct names *names, struct wait *wait)
{
	settle(names, &names->told, wait);
}

void names_settle_images(struct names *names, struct wait *wait)
{
	settle(names, &names->told_images, wait);
}

static void on_push(void *arg, struct wait *wait)
{
	names_settle(arg, wait);
}

static void on_push_failed(void *arg, const struct node_ref *dir, const char *name)
{
	forget(arg, dir->node, name);
}

/* --- */

struct names *names_new(const struct names_options *options)
{
	struct names *names = calloc(1, sizeof(*names));
	const struct pushdirs_hooks hooks = {
		.changed = on_push,
		.forget = on_push_failed,
		.arg = names,
	};
	const struct pendings_options pendings = {
		.stays_ms = PENDING_MS,
		.publish = tags_publish_pending,
		.arg = names,
	};
	struct host *host;

	if (!names)
		return NULL;
	names->options = *options;
	names->context = options->context;
	names->hosts_changed = options->context->started;
	names->layers = (struct layerstore_source){
		.image = names_ref_image,
		.layer = names_ref_layer,
		.arg = names,
	};
	pthread_mutex_init(&names->lock, NULL);
	names->answers = answers_new(names->context);
	names->pushdirs = pushdirs_new(names->context, &hooks);
	names->pendings = pendings_new(&pendings);
	names->glimpses = glimpses_new();
	names->links = events_new();
	if (!names->answers || !names->pushdirs || !names->pendings || !names->glimpses ||
	    !names->links || events_subscribe(names->links, on_link_event, names) < 0 ||
	    events_subscribe(names->context->events, on_event, names) < 0) {
		names_free(names);
		return NULL;
	}
	for (const char *const *name = options->hosts; *name; name++) {
		if (names_host(names, *name, &host) < 0) {
			names_free(names);
			return NULL;
		}
		host_set_known(names, host);
	}
	return names;
}

void names_finish(struct names *names)
{
	if (!names)
		return;
	pendings_finish(names->pendings);
	/* The kernel is gone, and the root goes: there is nobody to tell. */
	pthread_mutex_lock(&names->lock);
	names->root = NULL;
	pthread_mutex_unlock(&names->lock);
}

void names_free(struct names *names)
{
	if (!names)
		return;
	pendings_free(names->pendings);
	glimpses_free(names->glimpses);
	events_free(names->links);
	pushdirs_free(names->pushdirs);
	answers_free(names->answers);
	while (names->hosts) {
		struct host *host = names->hosts;

		names->hosts = host->next;
		host_free(host);
	}
	pthread_mutex_destroy(&names->lock);
	free(names);
}

static int source_root(struct names *names, const char *host_name, const struct ref *ref,
		       struct node **ret)
{
	struct host *host;
	int r = names_host(names, host_name, &host);

	if (r < 0)
		return r;
	host_set_known(names, host);
	return ref ? imageroot_new(names, host, ref, ret)
		   : place_new(names, host, NULL, "", "", ret);
}

int names_root(struct names *names, const struct source *source, struct node **ret)
{
	struct node *root;
	int r = -EINVAL;

	switch (source->kind) {
	case SOURCE_NONE:
		r = root_new(names, &root);
		break;
	case SOURCE_LOCAL:
		r = source_root(names, "local", NULL, &root);
		break;
	case SOURCE_HOST:
		r = source_root(names, source->ref.host, NULL, &root);
		break;
	case SOURCE_IMAGE:
		r = source_root(names, source->ref.host, &source->ref, &root);
		break;
	}
	if (r < 0)
		return r;
	names->root = root;
	names->has_hosts = source->kind == SOURCE_NONE;
	names->source = *source;
	*ret = root;
	return 0;
}
