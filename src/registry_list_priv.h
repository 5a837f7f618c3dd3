/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files about lists share; nobody else includes it.
 *
 * registry_list.c        a list from its first page to its last
 * registry_list_page.c   one page
 * registry_list_ahead.c  several pages of a long list at a time
 * registry_list_split.c  between which names a list is divided for that
 */
#ifndef REGFS_REGISTRY_LIST_PRIV_H
#define REGFS_REGISTRY_LIST_PRIV_H

#include "registry_priv.h"

struct listing {
	struct registry *registry;
	struct registry_call call; /* .url is set for each page */
	const char *field;
	bool (*valid)(const char *name);
	store_name_fn *fn;
	void *arg;
	int stopped; /* what FN returned */
	size_t nnames;
	char *first;	/* the list's first name, if it has one */
	size_t npages;	/* that were read */
	uint64_t *seen; /* hashes of the URLs visited one by one */
	size_t nseen, cap;
	size_t nempty;	  /* pages in a row that brought nothing */
	bool small;	  /* large pages were refused, or not given */
	bool tried_ahead; /* registry_list_ahead.c has had its turn */
	char *verbatim;	  /* the Link behind .call.url, where that asks for a larger page */
};

/* Gives NAME to the caller, if it is one. Non-zero: what FN returned, kept in .stopped. */
int listing_give(struct listing *listing, const char *name);
/* It has as many pages or names as we take. */
bool listing_is_full(const struct listing *listing);

/* ---- registry_list_page.c ---- */

struct list_page {
	struct buf text; /* the names as they came, each with its NUL */
	size_t n;
	const char *last; /* NULL: there is none */
	char *next;	  /* the URL of the next page; NULL: it is the last */
	/* Why .next cannot be told though there is one: -EXDEV, -EINVAL; else 0. */
	int lost;
};
void list_page_release(struct list_page *page);
#define AUTO_LIST_PAGE CLEANUP(list_page_release)

/* Reads the page that TRANSFER brings, an answer of 2xx to LISTING's question, whose changing
 * fields are left alone: any thread. 0, or a negative errno, logged. */
int list_page_read(const struct listing *listing, struct http_transfer *transfer,
		   struct list_page *ret, struct wait *wait);
/* Where the page goes on behind its last name, by that name: *RET_FROM and *RET_LEN are the name's
 * place in .next. False where the server pages by something else. */
bool list_page_is_named(const struct list_page *page, const char *path, size_t *ret_from,
			size_t *ret_len);

/* ---- registry_list_ahead.c ---- */

/* Reads on behind PAGE, which list_page_is_named() (the name at FROM, LEN bytes). *RET stays NULL
 * if that was all of the list; else it is the page from which it has to be read one by one. Names
 * may be given twice. 0, what FN returned, -EINTR, -ENOMEM. */
int list_ahead(struct listing *listing, const struct list_page *page, const char *path,
	       struct wait *wait, char **ret);

/* ---- registry_list_split.c: pure ---- */

#define LIST_PLACES 64 /* characters of a name that are looked at */

/* Which characters (7 bits) names have had, at each place and anywhere. */
struct list_alphabet {
	uint64_t at[LIST_PLACES][2];
	uint64_t all[2];
};
void list_alphabet_init(struct list_alphabet *alphabet);
void list_alphabet_note(struct list_alphabet *alphabet, const char *name);

/* Whether N names, each with its NUL, are more or less in the order of their bytes: some sort '/'
 * before all else, or pass over punctuation. */
bool list_is_sorted(const char *names, size_t n);

/* The part of a list that nobody reads yet: behind .from and before .to. */
struct list_gap {
	const char *from;
	const char *to; /* NULL: the end of the list */
	size_t turn;	/* the first place in which the names of the last page before it differ */
	size_t advance; /* and by how many characters of the alphabet they do */
	size_t level;	/* no .to: the place that is varied first */
	size_t floor;	/* .to: nothing was found by varying a place before this one */
};
/* Sets .turn and .advance behind a page of names from FIRST to LAST, which have been noted. */
void list_gap_measure(const struct list_alphabet *alphabet, const char *first, const char *last,
		      struct list_gap *gap);
/* A text that divides the gap, and the place that was varied; the caller frees. NULL: it is not
 * worth it, or memory is short. */
char *list_gap_split(const struct list_alphabet *alphabet, const struct list_gap *gap,
		     size_t *ret_place);

#endif
