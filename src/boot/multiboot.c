/* What the two multiboot versions have in common: loading the image. Multiboot Specification, "The address fields of
 * Multiboot header"; Multiboot2 Specification, "The address tag of Multiboot2 header". */
#include "boot/multiboot.h"

#include "boot/elf.h"
#include "dev/map.h"
#include "lib/bytes.h"

static bool load_raw(struct boot_job *job, u64 offset, const struct multiboot_address *a)
{
	const struct boot_source *s = job->source;
	u64 before = (u64)a->header - a->load; /* image bytes before the header */

	if (a->header < a->load || before > offset)
		return boot_fail(job, "kernel: its multiboot header has a load address after its own, or before the "
				      "file: mend the header");
	u64 start = offset - before;
	u64 size = a->load_end ? (u64)a->load_end - a->load : s->kernel_size - start;
	if (a->load_end && a->load_end < a->load)
		return boot_fail(job, "kernel: its multiboot header has an end before its start: mend the header");
	if (!range_within(start, size, s->kernel_size))
		return boot_fail(
			job, "kernel: the file is truncated: its multiboot header promises %lu bytes, the file has %zu",
			start + size, s->kernel_size);
	u64 end = MAX(a->load + size, a->bss_end);
	boot_set_kernel(job, a->load, end - a->load);
	return boot_check_range(job, a->load, end - a->load) && boot_copy(job, a->load, s->kernel + start, size) &&
	       boot_zero(job, a->load + size, end - a->load - size);
}

bool multiboot_load_image(struct boot_job *job, u64 offset, const struct multiboot_address *address, const u32 *entry)
{
	struct elf elf;

	if (address)
		return load_raw(job, offset, address) && boot_set_start(job, *entry);
	if (!elf_open(job, job->source, &elf) || !elf_load(job, &elf))
		return false;
	return boot_set_start(job, entry ? *entry : elf_physical_entry(&elf));
}

u32 multiboot_lower_kib(void)
{
	return MAP_EBDA / 1024;
}

u32 multiboot_upper_kib(const struct boot_job *job)
{
	return (job->low_end - MAP_LEGACY_END) / 1024;
}
