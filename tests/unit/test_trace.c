// SPDX-License-Identifier: Apache-2.0
/* trace: what is kept of reads, how it ages, and its bytes at rest. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "regfs/trace.h"

static void check_part(const struct trace *trace, uint32_t n, const struct trace_part *want)
{
	assert_in_range(n, 0, trace->nparts - 1);
	const struct trace_part *part = &trace->parts[n];
	assert_int_equal(part->layer, want->layer);
	assert_int_equal(part->ino, want->ino);
	assert_int_equal(part->unit, want->unit);
	assert_int_equal(part->count, want->count);
	assert_int_equal(part->age, want->age);
}

static struct trace *again(const struct trace *trace)
{
	AUTO_BUF struct buf bytes = BUF_INIT(TRACE_BYTES_MAX);
	struct trace *back = NULL;

	assert_int_equal(trace_write(trace, &bytes), 0);
	assert_int_equal(trace_parse(bytes.data, bytes.len, &back), 0);
	assert_int_equal(back->nparts, trace->nparts);
	assert_int_equal(back->nunits, trace->nunits);
	for (uint32_t i = 0; i < trace->nparts; i++)
		check_part(back, i, &trace->parts[i]);
	return back;
}

static void test_order_and_units(void **state)
{
	AUTO_TRACE struct trace *trace = trace_new();

	(void)state;
	assert_true(trace_add(trace, 3, 7, 0, 1));
	assert_false(trace_add(trace, 3, 7, 100, TRACE_UNIT - 100));
	assert_true(trace_add(trace, 0, 7, 5 * TRACE_UNIT - 1, 2));
	/* goes on, then comes back */
	assert_true(trace_add(trace, 0, 7, 6 * TRACE_UNIT, TRACE_UNIT));
	assert_true(trace_add(trace, 3, 7, 0, 3 * TRACE_UNIT));
	assert_false(trace_add(trace, 3, 7, 0, 0));
	assert_int_equal(trace->nparts, 3);
	check_part(trace, 0, &(struct trace_part){.layer = 3, .ino = 7, .unit = 0, .count = 1});
	check_part(trace, 1, &(struct trace_part){.layer = 0, .ino = 7, .unit = 4, .count = 3});
	check_part(trace, 2, &(struct trace_part){.layer = 3, .ino = 7, .unit = 1, .count = 2});
	assert_int_equal(trace->nunits, 6);
	assert_true(trace_has(trace, &(struct trace_part){.ino = 7, .unit = 1, .count = 4}));
	assert_false(trace_has(trace, &(struct trace_part){.ino = 7, .unit = 1, .count = 3}));
	trace->tags[0] = 11;
	trace->tags[3] = UINT64_MAX;
	AUTO_TRACE struct trace *back = again(trace);
	assert_int_equal(back->tags[0], 11);
	assert_int_equal(back->tags[1], 0);
	assert_int_equal(back->tags[3], UINT64_MAX);
}

static void test_bounded(void **state)
{
	AUTO_TRACE struct trace *parts = trace_new();
	AUTO_TRACE struct trace *units = trace_new();
	AUTO_BUF struct buf bytes = BUF_INIT(TRACE_BYTES_MAX);

	(void)state;
	for (uint32_t i = 0; i < 2 * TRACE_PARTS_MAX; i++)
		assert_int_equal(trace_add(parts, i % TRACE_LAYERS_MAX, i, 0, 1),
				 i < TRACE_PARTS_MAX);
	assert_int_equal(parts->nparts, TRACE_PARTS_MAX);
	assert_int_equal(trace_write(parts, &bytes), 0);
	assert_true(trace_add(units, 0, 1, 0, UINT32_MAX));
	assert_int_equal(units->nunits, TRACE_UNITS_MAX);
	assert_false(trace_add(units, 0, 2, 0, 1));
	/* what cannot be */
	assert_false(trace_add(parts, TRACE_LAYERS_MAX, 1, 0, 1));
	assert_false(trace_add(parts, 0, 1, UINT64_MAX, 1));
	assert_false(trace_add(parts, 0, 1, UINT64_MAX / 2, 1));
	trace_free(again(parts));
	trace_free(again(units));
}

static void test_what_is_not_read_any_more_goes(void **state)
{
	struct trace *last = trace_new();

	(void)state;
	trace_add(last, 0, 1, 0, 1);
	trace_add(last, 0, 2, 0, 1);
	for (int run = 1; run <= TRACE_AGE_MAX + 1; run++) {
		struct trace *next = trace_new();

		/* it comes first, and is young */
		trace_add(next, 0, 2, 0, 1);
		trace_merge(next, last);
		trace_free(last);
		last = again(next);
		trace_free(next);
		check_part(last, 0, &(struct trace_part){.ino = 2, .count = 1});
		assert_int_equal(last->nparts, run <= TRACE_AGE_MAX ? 2 : 1);
		if (run <= TRACE_AGE_MAX)
			check_part(last, 1, &(struct trace_part){.ino = 1, .count = 1, .age = run});
	}
	trace_free(last);
}

static void test_other_numbering(void **state)
{
	AUTO_TRACE struct trace *old = trace_new();
	AUTO_TRACE struct trace *fresh = trace_new();

	(void)state;
	trace_add(old, 0, 1, 0, 1);
	trace_add(old, 1, 1, 0, 1);
	old->tags[0] = 5;
	old->tags[1] = 6;
	fresh->tags[0] = 5;
	fresh->tags[1] = 7;
	trace_merge(fresh, old);
	assert_int_equal(fresh->nparts, 1);
	assert_int_equal(fresh->parts[0].layer, 0);
}

static void test_what_is_no_trace(void **state)
{
	AUTO_TRACE struct trace *trace = trace_new();
	AUTO_BUF struct buf bytes = BUF_INIT(TRACE_BYTES_MAX);
	struct trace *back = NULL;

	(void)state;
	trace_add(trace, 2, 7, 0, 1);
	assert_int_equal(trace_write(trace, &bytes), 0);
	const size_t part = 16 + 3 * 8;
	static const struct {
		size_t at;
		uint8_t value;
	} lies[] = {
		{0, 'X'},	  /* the magic */
		{9, 3},		  /* more layers than there may be */
		{12, 2},	  /* more parts than there are */
		{13, 255},	  /* … than there may be */
		{part + 8, 0},	  /* no unit */
		{part + 10, 255}, /* more than there may be */
		{part + 12, 3},	  /* a layer beyond the last */
		{part + 14, TRACE_AGE_MAX + 1},
	};
	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		uint8_t right = (uint8_t)bytes.data[lies[i].at];

		bytes.data[lies[i].at] = (char)lies[i].value;
		assert_int_equal(trace_parse(bytes.data, bytes.len, &back), -EINVAL);
		bytes.data[lies[i].at] = (char)right;
	}
	for (size_t len = 0; len < bytes.len; len++)
		assert_int_equal(trace_parse(bytes.data, len, &back), -EINVAL);
	assert_int_equal(trace_parse(bytes.data, bytes.len, &back), 0);
	trace_free(back);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order_and_units),
		cmocka_unit_test(test_bounded),
		cmocka_unit_test(test_what_is_not_read_any_more_goes),
		cmocka_unit_test(test_other_numbering),
		cmocka_unit_test(test_what_is_no_trace),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
