/* The ACPI tables for any number of CPUs in any buffer, and the AML writer under any sequence of calls: nothing is
 * written past the buffer, and what is closed has the length it says. */
#include "boot/acpi.h"
#include "input.h"

static void put_tables(struct input *in)
{
	u32 size = input_take(in, 2);
	unsigned cpus = input_take(in, 2) & 511;
	u8 *buffer = __builtin_calloc(size ? size : 1, 1);

	struct acpi_machine machine = { .cpus = cpus, .ecam = input_u8(in) & 1 ? 0xe0000000 : 0, .bars = 0xc0000000 };
	struct acpi_links links;
	CHECK(acpi_tables(buffer, size, 0xe0000, &machine, &links) <= size);
	__builtin_free(buffer);
}

static void put_term(struct aml *aml, struct input *in)
{
	static const char *const paths[] = { "A", "_SB", "\\_SB.PCI0", "A.B.C", "ABCD.EFGH.IJKL.MNOP" };
	const char *path = paths[input_u8(in) % ARRAY_SIZE(paths)];

	switch (input_u8(in) % 12) {
	case 0:
		aml_scope(aml, path);
		break;
	case 1:
		aml_device(aml, path);
		break;
	case 2:
		aml_method(aml, path, input_u8(in) & 7);
		break;
	case 3:
		aml_block(aml, AML_IF);
		break;
	case 4:
		aml_package(aml, input_u8(in));
		break;
	case 5:
		aml_name_integer(aml, path, input_take(in, 8));
		break;
	case 6:
		aml_name_string(aml, path, path);
		break;
	case 7:
		aml_buffer(aml, in->bytes, MIN(in->left, 300));
		break;
	case 8:
		aml_resources(aml, path);
		aml_memory_window(aml, input_u32(in), input_u32(in));
		aml_resources_end(aml);
		break;
	case 9:
		aml_irq(aml, input_u8(in) & 15);
		break;
	default:
		aml_end(aml);
		break;
	}
	CHECK(aml->used <= aml->size && aml->depth <= AML_DEPTH_MAX);
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	struct input in = { bytes, size };
	u32 room = input_take(&in, 2);
	struct aml aml = { .data = __builtin_malloc(room ? room : 1), .size = room };

	if (input_u8(&in) == 1)
		put_tables(&in);
	while (in.left)
		put_term(&aml, &in);
	__builtin_free(aml.data);
	return 0;
}
