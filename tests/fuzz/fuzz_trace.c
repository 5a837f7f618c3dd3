// SPDX-License-Identifier: Apache-2.0
/* trace: any bytes; what is taken is within bounds, and the same when it is written and read again.
 */
#include <errno.h>

#include "regfs/trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(bool holds)
{
	if (!holds)
		__builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	AUTO_TRACE struct trace *trace = NULL, *back = NULL;
	AUTO_BUF struct buf bytes = BUF_INIT(TRACE_BYTES_MAX);
	uint32_t units = 0;

	int err = trace_parse(data, len, &trace);
	check(err == 0 || err == -EINVAL);
	if (err)
		return 0;
	check(trace->nparts <= TRACE_PARTS_MAX && trace->nunits <= TRACE_UNITS_MAX);
	for (uint32_t i = 0; i < trace->nparts; i++) {
		units += trace->parts[i].count;
		check(trace->parts[i].layer < TRACE_LAYERS_MAX &&
		      trace_has(trace, &trace->parts[i]));
	}
	check(units == trace->nunits);
	check(trace_write(trace, &bytes) == 0);
	check(trace_parse(bytes.data, bytes.len, &back) == 0);
	check(back->nparts <= trace->nparts && back->nunits == trace->nunits);
	return 0;
}
