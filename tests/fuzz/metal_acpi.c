/* The bare machine's reading of ACPI's tables: whatever they hold, nothing is read but them, and the answer lies within its arrays. */
#include "input.h"

#include "acpi_machine.h"

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	static const char *const signatures[] = { "APIC", "MCFG", "DMAR", "IVRS", "FACP", "DSDT", "SPCR", "XXXX" };
	struct input in = { bytes, size };
	static struct acpi_info info;
	static u8 body[4096];
	acpi_machine_begin(input_u8(&in) & 2);
	unsigned tables = input_u8(&in) % 8;
	for (unsigned i = 0; i < tables; i++) {
		const char *signature = signatures[input_u8(&in) % ARRAY_SIZE(signatures)];
		size_t length = input_take(&in, 2) % sizeof(body);
		for (size_t n = 0; n < length; n++)
			body[n] = in.left ? input_u8(&in) : 0;
		acpi_machine_add(signature, body, length);
	}
	const u8 *rsdp = acpi_machine_end();
	acpi_read(&info, size & 1 ? rsdp : NULL);
	CHECK(info.cpus <= CPUS_MAX && info.ecams <= ACPI_UNITS_MAX && info.iommus <= ACPI_UNITS_MAX);
	acpi_machine_begin(0);
	return 0;
}
