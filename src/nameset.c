/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nameset: names back to back in one block, and an array of their offsets.
 * Must not know what the names are of.
 */
#include <errno.h>
#include <stdatomic.h>

#include "regfs/nameset.h"

#define NAMESET_MAX (256u * MIB)

struct nameset {
	atomic_uint refs;
	char *text;
	size_t text_len, text_cap;
	uint32_t *offs;
	size_t n, cap;
	bool sealed;
};

struct nameset *nameset_new(void)
{
	struct nameset *set = calloc(1, sizeof(*set));

	if (set)
		atomic_init(&set->refs, 1);
	return set;
}

static int grow(void **array, size_t *cap, size_t need, size_t item)
{
	size_t want = MAX(MAX(*cap * 2, need), 64);
	void *bigger;

	if (need <= *cap)
		return 0;
	bigger = realloc(*array, want * item);
	if (!bigger)
		return -ENOMEM;
	*array = bigger;
	*cap = want;
	return 0;
}

int nameset_add(struct nameset *set, const char *name)
{
	size_t len = strlen(name) + 1;

	if (set->text_len + len > NAMESET_MAX)
		return -E2BIG;
	if (grow((void **)&set->text, &set->text_cap, set->text_len + len, 1) < 0 ||
	    grow((void **)&set->offs, &set->cap, set->n + 1, sizeof(*set->offs)) < 0)
		return -ENOMEM;
	set->offs[set->n++] = set->text_len;
	memcpy(set->text + set->text_len, name, len);
	set->text_len += len;
	return 0;
}

static int compare_offsets(const void *a, const void *b, void *text)
{
	return strcmp((char *)text + *(const uint32_t *)a, (char *)text + *(const uint32_t *)b);
}

void nameset_seal(struct nameset *set)
{
	size_t kept = 0;

	if (set->n > 1)
		qsort_r(set->offs, set->n, sizeof(*set->offs), compare_offsets, set->text);
	for (size_t i = 0; i < set->n; i++) {
		if (kept && !strcmp(set->text + set->offs[kept - 1], set->text + set->offs[i]))
			continue;
		set->offs[kept++] = set->offs[i];
	}
	set->n = kept;
	set->sealed = true;
}

struct nameset *nameset_ref(struct nameset *set)
{
	if (set)
		atomic_fetch_add(&set->refs, 1);
	return set;
}

void nameset_unref(struct nameset *set)
{
	if (!set || atomic_fetch_sub(&set->refs, 1) != 1)
		return;
	free(set->text);
	free(set->offs);
	free(set);
}

size_t nameset_len(const struct nameset *set)
{
	return set ? set->n : 0;
}

const char *nameset_at(const struct nameset *set, size_t n)
{
	return set->text + set->offs[n];
}

size_t nameset_lower(const struct nameset *set, const char *name)
{
	size_t low = 0, high = nameset_len(set);

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (strcmp(nameset_at(set, mid), name) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

bool nameset_has(const struct nameset *set, const char *name)
{
	size_t at = nameset_lower(set, name);

	return at < nameset_len(set) && !strcmp(nameset_at(set, at), name);
}

bool nameset_equal(const struct nameset *a, const struct nameset *b)
{
	if (nameset_len(a) != nameset_len(b))
		return false;
	for (size_t i = 0; i < nameset_len(a); i++)
		if (strcmp(nameset_at(a, i), nameset_at(b, i)) != 0)
			return false;
	return true;
}

/* Adds those of SET but EXCEPT (or NULL). */
static int add_all(struct nameset *to, const struct nameset *set, const char *except)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < nameset_len(set); i++)
		if (!except || strcmp(nameset_at(set, i), except) != 0)
			r = nameset_add(to, nameset_at(set, i));
	return r;
}

/* What R says was put into SET, sealed; NULL if it was not. */
static struct nameset *sealed(struct nameset *set, int r)
{
	if (r < 0) {
		nameset_unref(set);
		return NULL;
	}
	nameset_seal(set);
	return set;
}

struct nameset *nameset_with(const struct nameset *set, const char *name)
{
	struct nameset *bigger = nameset_new();
	int r = bigger ? add_all(bigger, set, NULL) : -ENOMEM;

	if (r == 0)
		r = nameset_add(bigger, name);
	return sealed(bigger, r);
}

struct nameset *nameset_without(const struct nameset *set, const char *name)
{
	struct nameset *smaller = nameset_new();

	return sealed(smaller, smaller ? add_all(smaller, set, name) : -ENOMEM);
}

struct nameset *nameset_union(struct nameset *a, struct nameset *b)
{
	struct nameset *both;
	int r;

	if (!nameset_len(a) || !nameset_len(b))
		return nameset_ref(nameset_len(a) || !b ? a : b);
	both = nameset_new();
	r = both ? add_all(both, a, NULL) : -ENOMEM;
	if (r == 0)
		r = add_all(both, b, NULL);
	return sealed(both, r);
}

/* The part of NAME below PREFIX, or NULL if it does not lie below it. */
static const char *below(const char *name, const char *prefix, size_t prefix_len)
{
	if (!prefix_len)
		return name;
	if (strncmp(name, prefix, prefix_len) != 0 || name[prefix_len] != '/')
		return NULL;
	return name + prefix_len + 1;
}

/* Names below PREFIX need not follow PREFIX itself at once ("a", "a-b", "a/c"), so the search
 * starts at "PREFIX/". */
static size_t first_below(const struct nameset *set, const char *prefix)
{
	size_t at;
	char *dir;

	if (!*prefix)
		return 0;
	dir = format("%s/", prefix);
	if (!dir)
		return nameset_lower(set, prefix);
	at = nameset_lower(set, dir);
	free(dir);
	return at;
}

bool nameset_has_under(const struct nameset *set, const char *prefix)
{
	size_t at = first_below(set, prefix);

	if (!*prefix)
		return nameset_len(set) > 0;
	return nameset_has(set, prefix) ||
	       (at < nameset_len(set) && below(nameset_at(set, at), prefix, strlen(prefix)));
}

struct nameset *nameset_children(const struct nameset *set, const char *prefix)
{
	struct nameset *children = nameset_new();
	size_t prefix_len = strlen(prefix);
	AUTO_FREE char *component = NULL;

	for (size_t i = first_below(set, prefix); children && i < nameset_len(set); i++) {
		const char *rest = below(nameset_at(set, i), prefix, prefix_len);
		size_t len;

		if (!rest)
			break;
		len = strcspn(rest, "/");
		if (component && !strncmp(component, rest, len) && !component[len])
			continue;
		free(component);
		component = strndup(rest, len);
		if (!component || nameset_add(children, component) < 0) {
			nameset_unref(children);
			return NULL;
		}
	}
	if (children)
		nameset_seal(children);
	return children;
}
