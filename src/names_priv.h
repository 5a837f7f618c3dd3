/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names_priv: what the files of the names room share: hosts, answers about names, and
 * listings whose positions stay good.
 */
#ifndef REGFS_NAMES_PRIV_H
#define REGFS_NAMES_PRIV_H

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
	struct node *root; /* borrowed: the mount's root while it is served */
	pthread_mutex_t lock;
	struct host *hosts;	       /* guarded by lock; only grows, at its head */
	size_t nhosts;		       /* guarded by lock */
	struct timespec hosts_changed; /* guarded by lock */
	uint64_t changes, told;	       /* of tags, and told to the kernel; guarded by lock */
	struct wait_queue settled;
};

/* --- answers about names (names_answers.c); any thread --- */

struct answers *answers_new(const struct context *context);
void answers_free(struct answers *answers);

/* The repositories of HOST: its catalogue (where it has one) and those that were visited or
 * made. The caller unrefs. 0 also where there is no catalogue (*RET_COMPLETE false). */
int answers_repos(struct answers *answers, struct host *host, struct wait *wait,
		  struct nameset **ret, bool *ret_complete);
/* The same without asking anybody, and whether it is still fresh. */
struct nameset *answers_repos_known(struct answers *answers, struct host *host, bool *ret_fresh);
/* A repository exists for us: it was made, or its tags answered. */
int answers_add_repo(struct answers *answers, struct host *host, const char *repo);
/* A repository was not found in the catalogue: it may be new, so that the next use asks again
 * unless it was asked for within a second. */
void answers_miss_repo(struct answers *answers, struct host *host);
/* Whether ERROR means that the store cannot be reached just now, not that it said no. */
bool store_is_gone(int error);

int answers_tags(struct answers *answers, struct host *host, const char *repo, struct wait *wait,
		 struct nameset **ret);
struct nameset *answers_tags_known(struct answers *answers, struct host *host, const char *repo,
				   bool *ret_fresh);

/* The digest a tag names, believed for tag_ttl; *RET_LEFT_MS is how much longer. */
int answers_resolve(struct answers *answers, struct host *host, const char *repo, const char *tag,
		    struct wait *wait, struct digest *ret, int64_t *ret_left_ms);
/* Drops what is remembered of TAG, and of the repository's list of tags. */
void answers_forget_tag(struct answers *answers, struct host *host, const char *repo,
			const char *tag);

/* Digests that images were entered by or that tags named, as "sha256-<hex>". */
void answers_saw(struct answers *answers, struct host *host, const char *repo,
		 const struct digest *digest);
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

/* --- directories (names_place.c, names_links.c) --- */

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

/* The host NAME, made if need be. */
int names_host(struct names *names, const char *name, struct host **ret);
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
