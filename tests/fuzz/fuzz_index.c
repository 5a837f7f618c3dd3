// SPDX-License-Identifier: Apache-2.0
/* index: any bytes as an index file (the CRC is not looked at in this build). */
#include "index_exercise.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct index index;

	if (index_open(data, len, &index) == 0)
		exercise_index(&index, 64);
	return 0;
}
