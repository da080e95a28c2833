/* Options of the bare machine: whatever a description or the command line holds, it is read within its bounds, and a refusal says something. */
#include "host/metal/options.h"
#include "input.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	static struct guest_options options;
	char error[256] = "";
	if (!size)
		return 0;
	char *text = malloc(size);
	memcpy(text, bytes + 1, size - 1);
	text[size - 1] = 0;
	options_init(&options);
	bool good = bytes[0] & 1 ? options_read_line(&options, text, error, sizeof(error)) :
				   options_read_file(&options, "fuzz", text, size - 1, error, sizeof(error));
	CHECK(good || *error);
	CHECK(options.cpus >= 1 && options.cpus <= OPTION_CPUS_MAX && options.memory >= OPTION_MEMORY_MIN && options.weight);
	free(text);
	return 0;
}
