/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry_list_split: where to divide the rest of a long list whose names are not known yet.
 * Knows how names look. Must not know pages; pure.
 *
 * All this is guessing, and only costs a request where it is wrong. Names are looked at as numbers
 * whose digits are the characters seen so far. A gap is divided at its leftmost place that has a
 * character between the two ends; or, where its end is open, at the place that has just begun to
 * change, then at the one before that, and so on, as one looks for the end of a street.
 */
#include "registry_list_priv.h"

/* So many characters at one place are all there are. */
#define ALPHABET_KNOWN 12

static bool has(const uint64_t set[static 2], unsigned c)
{
	return set[c / 64] >> c % 64 & 1;
}

static void put(uint64_t set[static 2], unsigned c)
{
	set[c / 64] |= (uint64_t)1 << c % 64;
}

void list_alphabet_init(struct list_alphabet *alphabet)
{
	*alphabet = (struct list_alphabet){0};
	for (unsigned c = '0'; c <= '9'; c++)
		put(alphabet->all, c);
}

void list_alphabet_note(struct list_alphabet *alphabet, const char *name)
{
	for (size_t i = 0; i < LIST_PLACES && name[i]; i++) {
		put(alphabet->at[i], name[i] & 0x7f);
		put(alphabet->all, name[i] & 0x7f);
	}
}

bool list_is_sorted(const char *names, size_t n)
{
	size_t descents = 0;
	for (size_t i = 1; i < n; i++) {
		const char *next = names + strlen(names) + 1;
		descents += strcmp(names, next) > 0;
		names = next;
	}
	return descents <= n / 8;
}

static bool is_within(unsigned c, unsigned first, unsigned last)
{
	return c >= first && c <= last;
}

/* Digits, small letters, capitals: names seldom mix them in one place. */
static bool is_alike(unsigned a, unsigned b)
{
	static const char *const kinds[] = {"09", "az", "AZ"};
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		unsigned first = (unsigned)kinds[i][0], last = (unsigned)kinds[i][1];
		if (is_within(a, first, last) && is_within(b, first, last))
			return true;
	}
	return false;
}

/* The middle one of the characters that names may have at PLACE between LOW and HIGH, both
 * exclusive; 0 where there are less than LEAST. */
static char middle(const struct list_alphabet *alphabet, size_t place, unsigned low, unsigned high,
		   size_t least)
{
	const uint64_t *here = alphabet->at[place];
	int known = __builtin_popcountll(here[0]) + __builtin_popcountll(here[1]);
	char found[128];
	size_t n = 0;
	for (unsigned c = low + 1; c < high; c++) {
		bool guessed = known < ALPHABET_KNOWN && is_alike(c, low) && has(alphabet->all, c);
		if (has(here, c) || guessed)
			found[n++] = (char)c;
	}
	return n && n >= least ? found[n / 2] : 0;
}

void list_gap_measure(const struct list_alphabet *alphabet, const char *first, const char *last,
		      struct list_gap *gap)
{
	size_t turn = 0;
	while (first[turn] && first[turn] == last[turn])
		turn++;
	gap->turn = turn;
	gap->advance = 0;
	for (unsigned c = first[turn] & 0x7f; turn < LIST_PLACES && c < (last[turn] & 0x7fu); c++)
		gap->advance += has(alphabet->at[turn], c);
	gap->advance = MAX(gap->advance, 1);
}

/* .from up to PLACE, and there another character, below HIGH. */
static char *vary(const struct list_alphabet *alphabet, const struct list_gap *gap, size_t place,
		  unsigned high, size_t *ret_place)
{
	size_t least = place == gap->turn ? gap->advance : 1;
	char c = middle(alphabet, place, gap->from[place] & 0x7f, high, least);
	char *text = c ? format("%.*s%c", (int)place, gap->from, c) : NULL;
	if (text)
		*ret_place = place;
	return text;
}

#define OPEN 128

/* There may be anything behind it, or nothing. */
static char *split_open(const struct list_alphabet *alphabet, const struct list_gap *gap,
			size_t top, size_t *ret_place)
{
	char *text = NULL;
	size_t level = MIN(gap->level, top);
	for (size_t place = level + 1; place-- > 0 && !text;)
		text = vary(alphabet, gap, place, OPEN, ret_place);
	for (size_t place = level + 1; place <= top && !text; place++)
		text = vary(alphabet, gap, place, OPEN, ret_place);
	return text;
}

/* Nothing was found by varying the places before FLOOR: words, of which there are few. What is
 * behind the last slash is more likely to be anything. */
static size_t raise_floor(const struct list_gap *gap, size_t top)
{
	const char *slash = gap->floor ? strrchr(gap->from, '/') : NULL;
	size_t behind = slash ? (size_t)(slash - gap->from) + 1 : 0;
	return behind <= top ? MAX(gap->floor, behind) : gap->floor;
}

char *list_gap_split(const struct list_alphabet *alphabet, const struct list_gap *gap,
		     size_t *ret_place)
{
	size_t len = strlen(gap->from);
	size_t top = MIN(MIN(gap->turn, len - 1), LIST_PLACES - 1);
	if (!len)
		return NULL;
	if (!gap->to)
		return split_open(alphabet, gap, top, ret_place);
	size_t same = 0;
	while (gap->from[same] && gap->from[same] == gap->to[same])
		same++;
	/* What is left is less than a page, or it is not sorted as we think. */
	if (same > top || gap->from[same] >= gap->to[same])
		return NULL;
	size_t floor = raise_floor(gap, top);
	char *text = NULL;
	if (same >= floor)
		text = vary(alphabet, gap, same, gap->to[same] & 0x7f, ret_place);
	for (size_t place = MAX(same + 1, floor); place <= top && !text; place++)
		text = vary(alphabet, gap, place, OPEN, ret_place);
	return text;
}
