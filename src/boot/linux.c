/* Loads a bzImage: its protected-mode part to the address it prefers, the initrd as high as it may be, and fills the
 * zero page ("boot_params"), whose address the kernel finds in RSI. Linux, Documentation/arch/x86/boot.rst, "The
 * Real-Mode Kernel Header", "64-bit Boot Protocol"; zero-page.rst. */
#include "boot/linux.h"

#include "boot/e820.h"
#include "dev/map.h"
#include "lib/bytes.h"

#define HEADER_OFFSET 0x1f1
#define HEADER_MAGIC 0x53726448 /* "HdrS" */
#define BOOT_FLAG 0xaa55
#define SECTOR 512
#define SETUP_SECTS_DEFAULT 4
#define ENTRY64_OFFSET 0x200

#define VERSION_MIN 0x0206
#define VERSION_PREF_ADDRESS 0x020a
#define VERSION_XLOADFLAGS 0x020c

#define LOADFLAGS_LOADED_HIGH BIT(0)
#define XLF_KERNEL_64 BIT(0)
#define LOADER_UNDEFINED 0xff
#define SETUP_RNG_SEED 9
#define RNG_SEED_SIZE 32

/* Before protocol 2.10 a kernel does not say where it unpacks to or how much memory that takes. */
#define LOAD_ADDRESS_OLD 0x100000
#define UNPACK_FACTOR_OLD 4

struct setup_header {
	u8 setup_sects;
	u16 root_flags;
	u32 syssize; /* of the protected-mode part, in 16-byte units */
	u16 ram_size;
	u16 vid_mode;
	u16 root_dev;
	u16 boot_flag;
	u8 jump_opcode;
	u8 jump_offset; /* from here to the end of the header */
	u32 header;
	u16 version;
	u32 realmode_swtch;
	u16 start_sys_seg;
	u16 kernel_version;
	u8 type_of_loader;
	u8 loadflags;
	u16 setup_move_size;
	u32 code32_start;
	u32 ramdisk_image;
	u32 ramdisk_size;
	u32 bootsect_kludge;
	u16 heap_end_ptr;
	u8 ext_loader_ver;
	u8 ext_loader_type;
	u32 cmd_line_ptr;
	u32 initrd_addr_max;
	u32 kernel_alignment;
	u8 relocatable_kernel;
	u8 min_alignment;
	u16 xloadflags;
	u32 cmdline_size;
	u32 hardware_subarch;
	u64 hardware_subarch_data;
	u32 payload_offset;
	u32 payload_length;
	u64 setup_data;
	u64 pref_address;
	u32 init_size;
	u32 handover_offset;
	u32 kernel_info_offset;
	u8 later[0x290 - 0x26c]; /* what versions after 2.15 add */
} __attribute__((packed));

#define E820_ZERO_PAGE_MAX 128

/* Linux, include/uapi/linux/screen_info.h, as a BIOS tells of its mode 3. */
struct screen_info {
	u8 x, y;
	u16 ext_mem_k;
	u16 page;
	u8 mode, columns;
	u16 flags, ega_bx, unused;
	u8 lines, is_vga;
	u16 points;
	u8 linear[0x2e]; /* of a frame buffer; all zero: there is none */
} __attribute__((packed));
static_assert(sizeof(struct screen_info) == 0x40, "zero-page.rst");

struct boot_params {
	struct screen_info screen; /* all zero: no video */
	u8 apm_to_ist[0x30];
	u64 acpi_rsdp_addr;
	u8 hd_to_efi[0x170];
	u8 e820_entries;
	u8 eddbuf_to_sentinel[8];
	struct setup_header hdr;
	u8 edd_mbr_sig[0x40];
	struct e820_entry e820_table[E820_ZERO_PAGE_MAX];
	u8 eddbuf[0x330];
} __attribute__((packed));

#define AT(field, offset) static_assert(offsetof(struct boot_params, field) == (offset), "zero-page.rst")
AT(acpi_rsdp_addr, 0x070);
AT(e820_entries, 0x1e8);
AT(hdr, HEADER_OFFSET);
AT(hdr.boot_flag, 0x1fe);
AT(hdr.header, 0x202);
AT(hdr.version, 0x206);
AT(hdr.type_of_loader, 0x210);
AT(hdr.code32_start, 0x214);
AT(hdr.cmd_line_ptr, 0x228);
AT(hdr.xloadflags, 0x236);
AT(hdr.setup_data, 0x250);
AT(hdr.init_size, 0x260);
AT(e820_table, 0x2d0);
static_assert(sizeof(struct boot_params) == PAGE_SIZE, "the zero page is a page");

struct setup_data {
	u64 next;
	u32 type;
	u32 length;
	u8 data[RNG_SEED_SIZE];
};

static bool has_magic(const struct boot_source *s)
{
	return s->kernel_size >= HEADER_OFFSET + offsetof(struct setup_header, later) &&
	       get_u16(s->kernel + offsetof(struct boot_params, hdr.boot_flag)) == BOOT_FLAG &&
	       get_u32(s->kernel + offsetof(struct boot_params, hdr.header)) == HEADER_MAGIC;
}

/* The header as far as the file has it; what the kernel's version does not define is zero. */
static void read_header(const struct boot_source *s, struct setup_header *h)
{
	u64 end = 0x202 + (u64)s->kernel[0x201];
	u64 size = MIN(MIN(end, s->kernel_size) - HEADER_OFFSET, sizeof(*h));

	*h = (struct setup_header){ 0 };
	__builtin_memcpy(h, s->kernel + HEADER_OFFSET, size);
}

static bool has_entry64(const struct setup_header *h)
{
	return h->version >= VERSION_XLOADFLAGS && (h->xloadflags & XLF_KERNEL_64);
}

bool linux32_probe(const struct boot_source *s)
{
	return has_magic(s);
}

bool linux64_probe(const struct boot_source *s)
{
	struct setup_header h;

	if (!has_magic(s))
		return false;
	read_header(s, &h);
	return has_entry64(&h);
}

/* Where the protected-mode part is in the file, and where it goes and unpacks to in memory. */
struct kernel_image {
	struct setup_header header;
	u64 offset, size;
	gpa_t load;
	u64 memory; /* bytes from load that the kernel needs before it knows the memory map */
};

static bool check_version(struct boot_job *job, const struct setup_header *h)
{
	if (h->version < VERSION_MIN)
		return boot_fail(job,
				 "kernel: its boot protocol %u.%02u is too old: use a kernel of 2007 or later (2.06)",
				 h->version >> 8, h->version & 0xff);
	if (!(h->loadflags & LOADFLAGS_LOADED_HIGH))
		return boot_fail(job, "kernel: it is a zImage, which loads below 1 MiB: use a bzImage");
	return true;
}

static bool parse(struct boot_job *job, struct kernel_image *k)
{
	const struct boot_source *s = job->source;
	struct setup_header *h = &k->header;

	if (!has_magic(s))
		return boot_fail(job, "kernel: no Linux boot header: use a bzImage, such as /boot/vmlinuz");
	read_header(s, h);
	if (!check_version(job, h))
		return false;
	k->offset = ((u64)(h->setup_sects ? h->setup_sects : SETUP_SECTS_DEFAULT) + 1) * SECTOR;
	k->size = (u64)h->syssize * 16;
	if (!range_within(k->offset, k->size, s->kernel_size)) {
		/* The last 16-byte unit may be cut short. */
		if (k->offset >= s->kernel_size || s->kernel_size - k->offset + 16 <= k->size)
			return boot_fail(
				job, "kernel: the file is truncated: its header promises %lu bytes, the file has %zu",
				k->offset + k->size, s->kernel_size);
		k->size = s->kernel_size - k->offset;
	}
	if (!k->size)
		return boot_fail(job, "kernel: its header says that the kernel is empty: get the file again");
	return true;
}

/* Wherever it is loaded, a kernel unpacks itself to its preferred address or above, so it goes there. */
static bool place(struct boot_job *job, struct kernel_image *k)
{
	const struct setup_header *h = &k->header;

	k->load = LOAD_ADDRESS_OLD;
	k->memory = k->size * UNPACK_FACTOR_OLD;
	if (h->version >= VERSION_PREF_ADDRESS) {
		k->load = h->pref_address;
		k->memory = MAX(k->size, h->init_size);
	}
	if (k->load < MAP_LEGACY_END)
		return boot_fail(
			job, "kernel: it wants to be loaded at %#lx, below 1 MiB: the file is damaged, get it again",
			k->load);
	return boot_check_range(job, k->load, k->memory);
}

/* A seed makes the guest's random numbers good from the first moment. */
static bool put_setup_data(struct boot_job *job)
{
	struct setup_data seed = { .type = SETUP_RNG_SEED, .length = RNG_SEED_SIZE };

	host_random(seed.data, sizeof(seed.data));
	return boot_copy(job, BOOT_DATA, &seed, sizeof(seed));
}

static bool put_zero_page(struct boot_job *job, const struct kernel_image *k)
{
	struct boot_params p = { .hdr = k->header, .acpi_rsdp_addr = job->rsdp };
	struct setup_header *h = &p.hdr;
	struct e820_entry map[E820_ENTRIES_MAX];

	if (job->source->vga)
		p.screen = (struct screen_info){ .mode = 3, .columns = 80, .ega_bx = 3, .lines = 25, .is_vga = 1, .points = 16 };
	p.e820_entries = e820_build(job->source->ram_size, map);
	__builtin_memcpy(p.e820_table, map, sizeof(map));
	h->type_of_loader = LOADER_UNDEFINED;
	h->code32_start = k->load;
	h->ramdisk_image = job->entry->initrd_base;
	h->ramdisk_size = job->entry->initrd_size;
	h->cmd_line_ptr = BOOT_CMDLINE;
	h->setup_data = BOOT_DATA;
	return boot_copy(job, BOOT_INFO, &p, sizeof(p));
}

static bool load(struct boot_job *job, const struct kernel_image *k, u64 entry)
{
	const struct setup_header *h = &k->header;

	boot_set_kernel(job, k->load, k->memory);
	job->entry->gpr[RSI] = BOOT_INFO;
	return boot_set_start(job, k->load + entry) &&
	       boot_copy(job, k->load, job->source->kernel + k->offset, k->size) &&
	       boot_place_initrd(job, (u64)h->initrd_addr_max + 1) && boot_put_cmdline(job, h->cmdline_size) &&
	       put_setup_data(job) && put_zero_page(job, k);
}

bool linux64_load(struct boot_job *job)
{
	struct kernel_image k;

	if (!parse(job, &k) || !place(job, &k))
		return false;
	if (!has_entry64(&k.header))
		return boot_fail(job, "kernel: it has no 64-bit entry: use --protocol linux32");
	return load(job, &k, ENTRY64_OFFSET) && boot_put_descriptors(job, BOOT_MODE_LONG);
}

bool linux32_load(struct boot_job *job)
{
	struct kernel_image k;

	return parse(job, &k) && place(job, &k) && load(job, &k, 0) && boot_put_descriptors(job, BOOT_MODE_PROTECTED);
}
