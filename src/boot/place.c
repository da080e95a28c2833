/* Placing a guest's parts in its memory so that nothing lies over anything else. */
#include "boot/loader.h"

#include "dev/map.h"
#include "lib/bytes.h"
#include "lib/string.h"

bool boot_check_range(struct boot_job *job, u64 gpa, u64 size)
{
	u64 low_end = job->low_end;

	if (range_within(gpa - MAP_LEGACY_END, size, low_end - MAP_LEGACY_END))
		return true;
	if (gpa >= BOOT_LOW_END && range_within(gpa, size, MAP_EBDA))
		return true;
	if (gpa < MAP_LEGACY_END)
		return boot_fail(job,
				 "kernel: %lu bytes at %#lx would lie over memory below 1 MiB that is reserved: link "
				 "it at 1 MiB",
				 size, gpa);
	if (range_within(gpa, size, MAP_LOW_RAM_END))
		return boot_fail(job,
				 "memory: %lu MiB is too little for this kernel, which needs %lu MiB: use --memory",
				 boot_mib(job->source->ram_size), boot_mib(gpa + size));
	return boot_fail(job,
			 "kernel: %lu bytes at %#lx lie above the 3 GiB where a kernel can be loaded: link it lower",
			 size, gpa);
}

#define COPY_PART (1u << 20) /* of a file, that its owner is told of at a time */

static bool holds(const u8 *file, u64 file_size, const void *data, u64 size)
{
	return range_within((u64)(uintptr_t)data - (u64)(uintptr_t)file, size, file_size);
}

static bool in_file(const struct boot_source *s, const void *data, u64 size)
{
	return holds(s->kernel, s->kernel_size, data, size) || holds(s->initrd, s->initrd_size, data, size);
}

bool boot_copy(struct boot_job *job, gpa_t gpa, const void *data, u64 size)
{
	const u8 *from = data;
	bool tell = job->source->copied && in_file(job->source, data, size);
	for (u64 done = 0, part; done < size; done += part) {
		part = MIN(size - done, COPY_PART);
		if (!ram_write(job->ram, gpa + done, from + done, part))
			return boot_fail(job, "memory: the guest has no RAM for %lu bytes at %#lx: use --memory", size, gpa);
		if (tell)
			job->source->copied(from + done, part);
	}
	return true;
}

bool boot_zero(struct boot_job *job, gpa_t gpa, u64 size)
{
	static const u8 zeroes[PAGE_SIZE];

	while (size) {
		u64 part = MIN(size, PAGE_SIZE - gpa % PAGE_SIZE);
		if (!boot_copy(job, gpa, zeroes, part))
			return false;
		gpa += part;
		size -= part;
	}
	return true;
}

void boot_set_kernel(struct boot_job *job, gpa_t base, u64 size)
{
	job->entry->kernel_base = base;
	job->entry->kernel_size = size;
}

bool boot_set_start(struct boot_job *job, u64 gpa)
{
	if (gpa - job->entry->kernel_base >= job->entry->kernel_size)
		return boot_fail(
			job, "kernel: its entry point %#lx is outside of what it loads: link it with the right entry",
			gpa);
	job->entry->rip = gpa;
	return true;
}

/* The highest page-aligned address in [bottom, top) with room for size bytes. */
static bool place_between(u64 bottom, u64 top, u64 size, gpa_t *base)
{
	if (top < bottom || size > top - bottom)
		return false;
	*base = (top - size) & PAGE_MASK;
	return *base >= bottom;
}

bool boot_place_initrd(struct boot_job *job, u64 limit)
{
	const struct boot_source *s = job->source;
	struct boot_entry *e = job->entry;
	u64 kernel_end = e->kernel_base + e->kernel_size;
	u64 most = MIN(limit, MAP_LOW_RAM_END);
	u64 top = MIN(limit, job->low_end);

	if (!s->initrd_size)
		return true;
	if (!place_between(MAX(kernel_end, MAP_LEGACY_END), top, s->initrd_size, &e->initrd_base) &&
	    !place_between(MAP_LEGACY_END, MIN(e->kernel_base, top), s->initrd_size, &e->initrd_base)) {
		u64 need = boot_round_up(kernel_end, PAGE_SIZE) + boot_round_up(s->initrd_size, PAGE_SIZE);
		if (need > most)
			return boot_fail(
				job, "initrd: its %lu bytes do not fit below %#lx beside the kernel: use a smaller one",
				s->initrd_size, most);
		return boot_fail(job,
				 "memory: %lu MiB is too little for this kernel and its initrd, which need %lu MiB: "
				 "use --memory",
				 boot_mib(s->ram_size), boot_mib(need));
	}
	e->initrd_size = s->initrd_size;
	return boot_copy(job, e->initrd_base, s->initrd, s->initrd_size);
}

bool boot_put_cmdline(struct boot_job *job, u64 limit)
{
	const char *cmdline = job->source->cmdline ? job->source->cmdline : "";
	u64 length = string_length(cmdline);

	limit = MIN(limit, BOOT_CMDLINE_MAX - 1);
	if (length > limit)
		return boot_fail(job,
				 "--append: the command line has %lu bytes, this kernel takes at most %lu: shorten it",
				 length, limit);
	return boot_copy(job, BOOT_CMDLINE, cmdline, length + 1);
}
