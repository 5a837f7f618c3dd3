/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names_priv: what the files of the names room share: hosts, answers about names, and
 * listings whose positions stay good.
 */
#ifndef REGFS_NAMES_PRIV_H
#define REGFS_NAMES_PRIV_H

#include "regfs/layerstore.h"
#include "regfs/names.h"
#include "regfs/nameset.h"
#include "regfs/pushdir.h"

struct answers;

/* A registry (or the embedded store). Never goes. */
struct host {
	char *name;
	struct store *store;
	struct host *next;
	/* guarded by names->lock */
	bool known; /* listed: configured, or it answered as a registry */
	int failure;
	int64_t failed_until_ms;
	int gone; /* why it did not tell of a blob; guarded by names->lock */
	int64_t gone_until_ms;
};

static inline bool host_is_local(const struct host *host)
{
	return !strcmp(host->store->ops->kind, "layout");
}

struct names {
	struct names_options options;
	const struct context *context;
	struct pushdirs *pushdirs;
	struct answers *answers;
	struct pendings *pendings;
	struct glimpses *glimpses;
	/* Changes whose links the kernel is still to be told of. On a thread of its own: the kernel
	 * keeps _tags locked while it waits for ln, which waits for the images' names to be told.
	 */
	struct events *links;
	struct node *root;    /* borrowed: the mount's root while it is served; guarded by lock */
	bool has_hosts;	      /* the root lists registries; constant once there is one */
	struct source source; /* what is mounted; constant once there is a root */
	struct layerstore_source layers;
	pthread_mutex_t lock;
	struct host *hosts;	       /* guarded by lock; only grows, at its head */
	size_t nhosts;		       /* guarded by lock */
	struct timespec hosts_changed; /* guarded by lock */
	uint64_t changes;	       /* of tags and images; guarded by lock */
	/* Of these, told to the kernel: the images' names, and all of it; guarded by lock */
	uint64_t told_images, told;
	struct wait_queue settled;
};

/* --- what is known of lists from before (names_kept.c); any thread --- */

enum list_kind { LIST_REPOS, LIST_TAGS };

struct kept_key {
	enum list_kind kind;
	const char *host, *repo; /* repo "" for LIST_REPOS */
};
struct kept_list {
	struct nameset *names; /* NULL: it was refused, or never listed */
	int64_t refused_ms;    /* when, in wall_ms() time; 0: it was not */
	int64_t asked_ms;      /* when the store was asked for it, the same; not loaded */
	struct nameset *added; /* what was confirmed since it was listed; NULL: nothing */
};
/* Keeps the names, or that it was refused; .added is kept by kept_add() alone, and forgotten where
 * the names say more. */
void kept_list_save(struct cache *cache, const struct kept_key *key, const struct kept_list *list);
/* The caller unrefs the names. -ENOENT, -ENOMEM, -E2BIG. */
int kept_list_load(struct cache *cache, const struct kept_key *key, struct kept_list *ret);
/* The store has confirmed that the list has NAME, or that it has not. */
void kept_add(struct cache *cache, const struct kept_key *key, const char *name);
void kept_drop(struct cache *cache, const struct kept_key *key, const char *name);

/* --- which digests tags were found to name (names_memo.c); any thread --- */

struct memos;
struct memo {
	struct digest digest;
	int64_t until_ms; /* believed until then */
	uint64_t moves;	  /* how many tags we had moved when it was asked for */
};
struct memos *memos_new(void);
void memos_free(struct memos *memos);
/* NAME is "repo:tag". False: there is none that may be believed, and RET has its .moves alone. */
bool memos_find(struct memos *memos, const struct host *host, const char *name, struct memo *ret);
/* Takes the name. False: a tag was moved since memos_find(), before the store was asked, so that it
 * may not be believed. */
bool memos_store(struct memos *memos, const struct host *host, char **name,
		 const struct memo *fresh);
/* The tag was moved, made or deleted by us. */
void memos_forget(struct memos *memos, const struct host *host, const char *name);
/* The tags of REPO that name DIGEST, of whatever age. The caller unrefs; NULL when memory is short.
 */
struct nameset *memos_tags(struct memos *memos, const struct host *host, const char *repo,
			   const struct digest *digest);

/* --- answers about names (names_answers.c); any thread --- */

struct answers *answers_new(const struct context *context);
void answers_free(struct answers *answers);

/* The repositories of HOST: its catalogue (where it has one) and those that were visited or
 * made. The caller unrefs. 0 also where there is no catalogue (*RET_COMPLETE false); -EACCES where
 * it lets us not in. */
int answers_repos(struct answers *answers, struct host *host, struct wait *wait,
		  struct nameset **ret, bool *ret_complete);
/* The same without asking anybody, and whether it is still fresh. */
struct nameset *answers_repos_known(struct answers *answers, struct host *host, bool *ret_fresh);
/* Whether REPO can be entered by what is known already, of whatever age: the last catalogue names
 * it or something below it, it was visited or made, or the catalogue was refused within a day. 1;
 * 0: the store has to be asked; -EWOULDBLOCK, -ENOMEM. */
int answers_has_repo(struct answers *answers, struct host *host, const char *repo,
		     struct wait *wait);
/* A repository exists for us: it was made, or its tags answered. */
int answers_add_repo(struct answers *answers, struct host *host, const char *repo);
/* The store has confirmed that REPO has TAG, by a push or a copy: both are known from now on, to
 * later mounts too, until the store lists them itself. */
void answers_add_tag(struct answers *answers, struct host *host, const char *repo, const char *tag);
/* It was deleted. */
void answers_drop_tag(struct answers *answers, struct host *host, const char *repo,
		      const char *tag);
/* A repository was not found in the catalogue: it may be new, so that the next use asks again
 * unless it was asked for within a second. */
void answers_miss_repo(struct answers *answers, struct host *host);
/* Whether ERROR means that the store cannot be reached just now, not that it said no. */
bool store_is_gone(int error);
/* For how long that is believed by who was kept waiting for it since BEGIN_MS: he is not to be
 * again at the next name. 0: it was told at once. */
int64_t store_gone_ms(int64_t begin_ms);

/* A repository that was made here is no more. */
void answers_drop_repo(struct answers *answers, struct host *host, const char *repo);

int answers_tags(struct answers *answers, struct host *host, const char *repo, struct wait *wait,
		 struct nameset **ret);
struct nameset *answers_tags_known(struct answers *answers, struct host *host, const char *repo,
				   bool *ret_fresh);

/* The digest a tag names, believed for tag_ttl; *RET_LEFT_MS is how much longer. */
int answers_resolve(struct answers *answers, struct host *host, const char *repo, const char *tag,
		    struct wait *wait, struct digest *ret, int64_t *ret_left_ms);
/* The repository's list of tags is shorter than it was. */
void answers_forget_tags(struct answers *answers, struct host *host, const char *repo);
/* Drops what is remembered of TAG, and of the repository's list of tags if TAG is not in it. */
void answers_forget_tag(struct answers *answers, struct host *host, const char *repo,
			const char *tag);

/* Digests that images were entered by or that tags named, as "sha256-<hex>". */
void answers_saw(struct answers *answers, struct host *host, const char *repo,
		 const struct digest *digest);
/* The image was deleted: it is not seen any more, nor opened out of the cache. */
void answers_forget_image(struct answers *answers, struct host *host, const char *repo,
			  const struct digest *digest);
/* Calls FN for each tag of REPO that is remembered to name DIGEST; its non-zero stops. */
typedef int answers_tag_fn(void *arg, struct host *host, const char *repo, const char *tag);
void answers_tags_of_image(struct answers *answers, struct host *host, const char *repo,
			   const struct digest *digest, answers_tag_fn *fn, void *arg);
struct nameset *answers_seen(struct answers *answers, struct host *host, const char *repo);

/* --- a directory's listing: the set that was current when the reading began --- */

struct snapshot {
	pthread_mutex_t lock;
	struct nameset *set, *previous; /* guarded by lock */
	uint32_t version;		/* of .set; guarded by lock */
	struct timespec changed;	/* guarded by lock */
};
void snapshot_init(struct snapshot *snapshot, const struct timespec *time);
void snapshot_release(struct snapshot *snapshot);
/* Takes FRESH (a reference) as what is to be listed from now on. */
void snapshot_update(struct snapshot *snapshot, struct nameset *fresh);
/* Lists from POS on, each name with TYPE, below NODE. */
int snapshot_list(struct snapshot *snapshot, const struct node *node, uint64_t pos, mode_t type,
		  node_list_fn *fn, void *arg);
/* When the listing last changed: for st_mtime. */
struct timespec snapshot_time(struct snapshot *snapshot);

/* --- links under temporary names (names_pending.c); any thread --- */

struct pending;
struct pendings_options {
	int64_t stays_ms; /* so long a link is left alone */
	/* Makes TAG of what TEXT names; on a thread that may wait. */
	void (*publish)(void *arg, struct host *host, const char *repo, const char *tag,
			const char *text, struct wait *wait);
	void *arg;
};
struct pendings *pendings_new(const struct pendings_options *options);
/* What was meant is published, now; nothing is added any more. */
void pendings_finish(struct pendings *pendings);
void pendings_free(struct pendings *pendings);

/* "Cu" and six letters or digits, or a leading dot. */
bool pending_is_temporary(const char *name);
struct pending_link {
	struct host *host;
	const char *repo, *name, *text;
	pid_t pid; /* of its maker; 0: not known */
};
/* 0, -EEXIST, -EBUSY, -ENOMEM. */
int pendings_add(struct pendings *pendings, const struct pending_link *link);
/* -ENOENT if there is none. The caller frees the text; the number tells apart those of one name. */
int pendings_find(struct pendings *pendings, const struct host *host, const char *repo,
		  const char *name, char **ret_text, uint64_t *ret_number);
/* Forgets one. -ENOENT; -EBUSY while somebody has taken it. */
int pendings_drop(struct pendings *pendings, const struct host *host, const char *repo,
		  const char *name);
/* Takes one to rename it: from then on it was not meant. The same errors. It is given back, or, if
 * it is DONE with, forgotten. */
int pendings_take(struct pendings *pendings, const struct host *host, const char *repo,
		  const char *name, struct pending **ret);
const char *pending_text(const struct pending *pending);
void pendings_put(struct pendings *pendings, struct pending *pending, bool done);

/* --- what a process was told a moment ago (names_glimpse.c); any thread --- */

struct glimpse {
	const struct host *host;
	const char *repo, *tag;
	pid_t pid; /* 0: not known, and nothing is remembered */
};
struct glimpses *glimpses_new(void);
void glimpses_free(struct glimpses *glimpses);
/* It was told NOW (now_ms()) that the tag is there. */
void glimpses_add(struct glimpses *glimpses, const struct glimpse *key, int64_t now);
/* Whether it was, within two seconds. */
bool glimpses_has(struct glimpses *glimpses, const struct glimpse *key, int64_t now);
/* Something was deleted here: nobody is to be told anything else. */
void glimpses_forget(struct glimpses *glimpses);

/* --- what a link's text names (names_target.c); pure --- */

struct target_base {
	const char *mountpoint;	 /* NULL: none */
	bool has_hosts;		 /* the root lists registries */
	const char *host, *repo; /* of the _tags that the link is in */
};
/* 0, or -EINVAL: no image's path. */
int target_resolve(const struct target_base *base, const char *text, struct ref *ret);

/* --- deleting (names_delete.c) --- */

/* Each: 0, or -EROFS without allow_delete (logged), or the store's error. */
int names_untag(struct names *names, struct host *host, const char *repo, const char *tag,
		struct wait *wait);
/* Whether names_untag() could work. */
int names_can_untag(struct names *names, struct host *host, const char *repo, const char *tag,
		    struct wait *wait);
int names_delete_image(struct names *names, struct host *host, const char *repo,
		       const struct digest *digest, struct wait *wait);
/* rmdir of a repository: undoes a mkdir. -ENOTEMPTY. */
int names_remove_repo(struct names *names, struct host *host, const char *repo, struct wait *wait);

/* --- directories (names_place.c, names_links.c, names_tags.c) --- */

/* A directory of links of one repository. */
struct linkdir {
	struct node node;
	struct names *names;
	struct host *host;
	char *repo;
	struct snapshot snapshot;
};
static inline struct linkdir *linkdir_of(const struct node_ref *ref)
{
	return CONTAINER_OF(ref->node, struct linkdir, node);
}
struct linkdir_options {
	struct names *names;
	struct host *host;
	struct node *parent;
	const char *name, *repo;
	const struct node_ops *ops;
};
int linkdir_new(const struct linkdir_options *options, struct node **ret);
void linkdir_free(struct node *node);
/* The link from _tags/TAG or _digests/ALGO-HEX to its image, which lies beside the repository. */
int linkdir_entry(struct linkdir *dir, const char *name, char separator, const char *reference,
		  struct call *call, struct node_entry *ret);

/* Each finds or makes a node; held, interned. A place is a registry (REPO "") or a path
 * component of repositories. */
int place_new(struct names *names, struct host *host, struct node *parent, const char *name,
	      const char *repo, struct node **ret);
/* The tags of REPO; none (NULL) for one that was only made here. The caller unrefs. */
int tags_of(struct names *names, struct host *host, const char *repo, struct wait *wait,
	    struct nameset **ret);
int tags_new(struct names *names, struct host *host, struct node *parent, const char *repo,
	     struct node **ret);
int digests_new(struct names *names, struct host *host, struct node *parent, const char *repo,
		struct node **ret);
int blobs_dir_new(struct names *names, struct host *host, struct node *parent, const char *repo,
		  struct node **ret);
int link_new(struct names *names, struct node *parent, const char *name, const char *target,
	     struct node **ret);
/* The same where a name has had other texts: DISC tells them apart. */
struct link_text {
	const char *target;
	uint64_t disc;
};
int link_make(struct names *names, struct node *parent, const char *name,
	      const struct link_text *text, struct node **ret);
/* pendings_options.publish; ARG is the names. */
void tags_publish_pending(void *arg, struct host *host, const char *repo, const char *tag,
			  const char *text, struct wait *wait);

/* The tag was deleted: nothing is remembered of it, and the kernel is told. */
void names_tag_gone(struct names *names, struct host *host, const char *repo, const char *tag);
/* The image was deleted: the kernel is told. */
void names_image_gone(struct names *names, struct host *host, const char *repo,
		      const struct digest *digest);
/* Waits (a moment at most) until the kernel was told of the images' names that changed so far. It
 * cannot be told of a name in a directory that a request of it holds. */
void names_settle_images(struct names *names, struct wait *wait);

/* The host NAME, made if need be. */
int names_host(struct names *names, const char *name, struct host **ret);
/* The same as it is entered by name: -EACCES for a stranger, an error if it does not answer. */
int names_enter_host(struct names *names, const char *name, struct call *call, struct host **ret);
/* layerstore_source's (names_layers.c); ARG is the names. */
int names_ref_image(void *arg, const struct ref *ref, struct call *call, struct image **ret);
int names_ref_layer(void *arg, const struct ref *ref, const struct digest *digest,
		    struct call *call, struct image_part *ret);
/* Directory _regfs of a root. */
int names_info(struct names *names, struct node *parent, struct call *call, struct node_entry *ret);
/* The image directory NAME of PARENT for DIGEST in REPO; TAG may be NULL. Held, interned. */
struct image_name {
	struct host *host;
	const char *repo, *tag;
	const struct digest *digest;
};
int names_image(struct names *names, struct node *parent, const char *name,
		const struct image_name *what, struct wait *wait, struct node **ret);
/* The root for an image reference: the image that the tag names at first use. */
int imageroot_new(struct names *names, struct host *host, const struct ref *ref, struct node **ret);

/* Completes an entry for NODE (taking its reference): its attributes, TIMEOUT for the name. */
int names_entry(struct node *node, double timeout, struct call *call, struct node_entry *ret);
double names_ttl(const struct names *names, const struct host *host);
/* Attributes of a directory whose listing is SNAPSHOT; FRESH: the listing is what it would be now.
 */
void names_dir_attr(const struct names *names, const struct node *node, mode_t mode,
		    struct snapshot *snapshot, bool fresh, struct node_attr *ret);

#endif
