/* Files and items for firmware (firmware_files.h). QEMU, docs/specs/fw_cfg.rst; SeaBIOS, docs/Runtime_config.md. */
#include "boot/firmware_files.h"

#include "boot/loader.h"
#include "dev/map.h"
#include "lib/bytes.h"
#include "lib/string.h"

#define ACPI_SIZE 0x20000u
#define ACPI_FILE_UNIT 4096u

#define OPTION_ROM "genroms/linuxboot_dma.bin"
#define BOOT_OPTION_ROM "/rom@" OPTION_ROM
#define NET_ROM "pci1af4,1041.rom"
#define VGA_ROM "pci1234,1111.rom" /* SeaBIOS: a ROM for the PCI device of these numbers */
#define NO_REBOOT_AFTER_FAILURE 0xffffffff

/* Linux, Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header". */
enum {
	SETUP_SECTS = 0x1f1,
	SETUP_MAGIC = 0x202,
	SETUP_TYPE_OF_LOADER = 0x210,
	SETUP_LOADFLAGS = 0x211,
	SETUP_RAMDISK_IMAGE = 0x218,
	SETUP_RAMDISK_SIZE = 0x21c,
	SETUP_HEAP_END_PTR = 0x224,
	SETUP_CMD_LINE_PTR = 0x228,
	SETUP_INITRD_ADDR_MAX = 0x22c,
	SETUP_CMDLINE_SIZE = 0x238,
	SETUP_END = 0x268
};
#define LOADER_QEMU 0xb0
#define CAN_USE_HEAP 0x80
#define SETUP_STACK 0x200 /* below the end of the heap */

/* Where a BIOS puts the parts of a kernel. Above the initrd it has tables of its own. */
#define SETUP_ADDRESS 0x10000u
#define CMDLINE_ADDRESS 0x20000u
#define KERNEL_ADDRESS 0x100000u
#define BIOS_TOP_SIZE 0x40000u

/* ---- ACPI ---- */

/* Firmware that leaves the ECAM window where it is (OVMF) puts BARs between RAM, or 2 GiB, and the window; the other (SeaBIOS) above. */
static void describe(struct firmware_files *f, gpa_t ecam)
{
	f->machine.ecam = ecam;
	f->machine.bars = ecam == MAP_ECAM ? MAX(f->low_end, 0x80000000) : MAP_PCI_MMIO;
}

static void selected(void *opaque, unsigned key)
{
	struct firmware_files *f = opaque;
	gpa_t ecam = mch_ecam(f->mch);
	bool is_acpi = false;
	for (unsigned i = 0; i < ARRAY_SIZE(f->acpi_key); i++)
		is_acpi |= f->acpi_key[i] == key;
	if (!is_acpi || ecam == f->machine.ecam)
		return;
	describe(f, ecam);
	acpi_loader_build(f->acpi, ACPI_SIZE, f->script, &f->machine);
}

/* The tables file has room for tables that get longer when they are made again. */
static bool add_acpi(struct firmware_files *f, struct fw_cfg *fw)
{
	f->acpi = host_alloc(ACPI_SIZE);
	describe(f, MAP_ECAM);
	u32 size = f->acpi ? acpi_loader_build(f->acpi, ACPI_SIZE, f->script, &f->machine) : 0;
	u64 room = boot_round_up(size + 1, ACPI_FILE_UNIT);
	if (!size || room > ACPI_SIZE - ACPI_LOADER_TABLES_START)
		return false;
	f->acpi_key[0] = fw_cfg_add_file(fw, ACPI_LOADER_RSDP, f->acpi, ACPI_RSDP_SIZE);
	f->acpi_key[1] = fw_cfg_add_file(fw, ACPI_LOADER_TABLES, f->acpi + ACPI_LOADER_TABLES_START, (u32)room);
	f->acpi_key[2] = fw_cfg_add_file(fw, ACPI_LOADER_SCRIPT, f->script, sizeof(f->script));
	fw->selected = selected;
	fw->opaque = f;
	return true;
}

/* ---- memory and boot order ---- */

/* Only RAM: firmware itself reserves what it knows of. */
static void add_e820(struct firmware_files *f, struct fw_cfg *fw, u64 ram_size)
{
	u64 high = ram_size - f->low_end;
	f->e820[0] = (struct e820_entry){ 0, f->low_end, E820_RAM };
	f->e820[1] = (struct e820_entry){ MAP_HIGH_RAM, high, E820_RAM };
	fw_cfg_add_file(fw, "etc/e820", f->e820, high ? sizeof(f->e820) : sizeof(f->e820[0]));
}

static void add_smbios(struct firmware_files *f, struct fw_cfg *fw, const struct boot_source *source)
{
	smbios_build(&f->smbios, source->cpus, source->ram_size);
	fw_cfg_add_file(fw, "etc/smbios/smbios-anchor", f->smbios.anchor, sizeof(f->smbios.anchor));
	fw_cfg_add_file(fw, "etc/smbios/smbios-tables", f->smbios.tables, f->smbios.size);
}

/* One device a line, by its path in Open Firmware's manner, the last ended by a zero. */
struct boot_order {
	char *text;
	size_t size, used;
};

static void add_line(struct boot_order *o, const char *format, unsigned number)
{
	o->used += (size_t)host_snprintf(o->text + o->used, o->size - o->used, format, number);
}

static void add_drives(struct boot_order *o, bool cdroms, const struct block_backend *disk, unsigned disks)
{
	for (unsigned i = 0, sata = 0; i < disks; i++) {
		bool is_virtio = disk[i].bus == BLOCK_VIRTIO;
		if (!disk[i].submit)
			continue;
		if (cdroms == (disk[i].bus == BLOCK_CDROM))
			add_line(o, is_virtio ? "/pci@i0cf8/scsi@%x/disk@0,0\n" : "/pci@i0cf8/pci8086,2922@1f,2/drive@%x/disk@0\n",
				 is_virtio ? PCI_SLOT_DISK + i : sata);
		sata += !is_virtio;
	}
}

static void add_boot_order(struct firmware_files *f, struct fw_cfg *fw, const struct boot_source *source,
			   const struct boot_devices *devices)
{
	const enum boot_device always[] = { BOOT_DEVICE_DISK, BOOT_DEVICE_CDROM };
	struct boot_order order = { f->boot_order, sizeof(f->boot_order), 0 };
	u64 done = 0;
	if (source->kernel_size && source->option_rom_size)
		add_line(&order, BOOT_OPTION_ROM "\n", 0);
	for (unsigned i = 0; i < BOOT_DEVICES + ARRAY_SIZE(always); i++) {
		enum boot_device device = i < BOOT_DEVICES ? source->order[i] : always[i - BOOT_DEVICES];
		if (done & BIT(device))
			continue;
		done |= BIT(device);
		for (unsigned net = 0; device == BOOT_DEVICE_NETWORK && net < devices->nets; net++)
			if (devices->net[net].send)
				add_line(&order, "/pci@i0cf8/ethernet@%x/ethernet-phy@0\n", PCI_SLOT_NET + net);
		if (device == BOOT_DEVICE_DISK || device == BOOT_DEVICE_CDROM)
			add_drives(&order, device == BOOT_DEVICE_CDROM, devices->disk, devices->disks);
	}
	if (order.used)
		fw_cfg_add_file(fw, "bootorder", f->boot_order, (u32)order.used + 1);
}

/* ---- a kernel ---- */

static bool is_linux(const struct boot_source *s)
{
	return s->kernel_size > SETUP_END && !memcmp(s->kernel + SETUP_MAGIC, "HdrS", 4);
}

/* Of the 16-bit part. */
static u32 setup_size(const struct boot_source *s)
{
	u32 sectors = s->kernel[SETUP_SECTS] ? s->kernel[SETUP_SECTS] : 4;
	return (u32)MIN((sectors + 1) * 512u, s->kernel_size);
}

/* As high as the kernel wants it and RAM goes. */
static u32 initrd_address(const struct firmware_files *f, const struct boot_source *s)
{
	u64 top = MIN(f->low_end - BIOS_TOP_SIZE, get_u32(s->kernel + SETUP_INITRD_ADDR_MAX));
	return s->initrd_size < top ? (u32)((top - s->initrd_size) & PAGE_MASK) : 0;
}

/* The 16-bit part with the fields that a loader fills in. */
static bool make_setup(struct firmware_files *f, struct fw_cfg *fw, const struct boot_source *s)
{
	u32 size = setup_size(s);
	u8 *p = f->setup = host_alloc(MAX(size, SETUP_END));
	if (!p)
		return false;
	memcpy(p, s->kernel, size);
	p[SETUP_TYPE_OF_LOADER] = LOADER_QEMU;
	p[SETUP_LOADFLAGS] |= CAN_USE_HEAP;
	put_u16(p + SETUP_HEAP_END_PTR, CMDLINE_ADDRESS - SETUP_ADDRESS - SETUP_STACK);
	put_u32(p + SETUP_CMD_LINE_PTR, CMDLINE_ADDRESS);
	put_u32(p + SETUP_RAMDISK_IMAGE, s->initrd_size ? initrd_address(f, s) : 0);
	put_u32(p + SETUP_RAMDISK_SIZE, (u32)s->initrd_size);
	fw_cfg_add_number(fw, FW_CFG_SETUP_ADDRESS, SETUP_ADDRESS, 4);
	fw_cfg_add_number(fw, FW_CFG_SETUP_SIZE, size, 4);
	fw_cfg_add(fw, FW_CFG_SETUP_DATA, p, size);
	return true;
}

static void add_cmdline(struct fw_cfg *fw, const char *cmdline)
{
	u32 size = (u32)string_length(cmdline) + 1;
	fw_cfg_add_number(fw, FW_CFG_CMDLINE_ADDRESS, CMDLINE_ADDRESS, 4);
	fw_cfg_add_number(fw, FW_CFG_CMDLINE_SIZE, size, 4);
	fw_cfg_add(fw, FW_CFG_CMDLINE_DATA, cmdline, size);
}

static void add_payload(const struct firmware_files *f, struct fw_cfg *fw, const struct boot_source *s)
{
	u32 setup = setup_size(s);
	fw_cfg_add_number(fw, FW_CFG_KERNEL_ADDRESS, KERNEL_ADDRESS, 4);
	fw_cfg_add_number(fw, FW_CFG_KERNEL_SIZE, s->kernel_size - setup, 4);
	fw_cfg_add(fw, FW_CFG_KERNEL_DATA, s->kernel + setup, (u32)(s->kernel_size - setup));
	if (!s->initrd_size)
		return;
	fw_cfg_add_number(fw, FW_CFG_INITRD_ADDRESS, initrd_address(f, s), 4);
	fw_cfg_add_number(fw, FW_CFG_INITRD_SIZE, s->initrd_size, 4);
	fw_cfg_add(fw, FW_CFG_INITRD_DATA, s->initrd, (u32)s->initrd_size);
}

static bool add_kernel(struct firmware_files *f, struct fw_cfg *fw, const struct boot_source *s, struct boot_job *job)
{
	const char *cmdline = s->cmdline ? s->cmdline : "";
	if (!is_linux(s))
		return boot_fail(job, "kernel: firmware starts Linux bzImages only: leave out --firmware for others");
	if (s->kernel_size > ~0u || s->initrd_size > ~0u)
		return boot_fail(job, "kernel: firmware loads files of less than 4 GiB only");
	if (string_length(cmdline) > get_u32(s->kernel + SETUP_CMDLINE_SIZE))
		return boot_fail(job, "--append: the command line has %zu bytes, this kernel takes at most %u: shorten it",
				 string_length(cmdline), get_u32(s->kernel + SETUP_CMDLINE_SIZE));
	if (!make_setup(f, fw, s))
		return boot_fail(job, "the host has no memory left for the kernel's header");
	add_cmdline(fw, cmdline);
	add_payload(f, fw, s);
	if (s->option_rom_size)
		fw_cfg_add_file(fw, OPTION_ROM, s->option_rom, (u32)s->option_rom_size);
	return true;
}

/* ---- all of it ---- */

bool firmware_files_create(struct firmware_files *f, struct fw_cfg *fw, const struct mch *mch, const struct boot_source *source,
			   const struct boot_devices *devices, char *error, size_t error_size)
{
	struct boot_job job = { .error = error, .error_size = error_size };
	f->mch = mch;
	f->machine.cpus = source->cpus;
	f->machine.vga = source->vga;
	f->low_end = e820_low_end(source->ram_size);
	f->machine.high_bars = boot_round_up(MAP_HIGH_RAM + source->ram_size - f->low_end, 1ull << 30);
	f->machine.high_bars_end = BIT(source->physical_bits);
	fw->copied = source->copied;
	fw_cfg_add_number(fw, FW_CFG_RAM_SIZE, source->ram_size, 8);
	fw_cfg_add_number(fw, FW_CFG_NOGRAPHIC, !source->vga, 2);
	fw_cfg_add_number(fw, FW_CFG_CPUS, source->cpus, 2);
	fw_cfg_add_number(fw, FW_CFG_MAX_CPUS, source->cpus, 2);
	fw_cfg_add_number(fw, FW_CFG_BOOT_MENU, 0, 2);
	if (!add_acpi(f, fw))
		return boot_fail(&job, "ACPI tables for %u CPUs do not fit: use fewer CPUs", source->cpus);
	add_e820(f, fw, source->ram_size);
	add_smbios(f, fw, source);
	fw_cfg_add_file_number(fw, "etc/sercon-port", PORT_UART0, 2);
	fw_cfg_add_file_number(fw, "etc/boot-fail-wait", NO_REBOOT_AFTER_FAILURE, 4);
	if (source->vga_rom)
		fw_cfg_add_file(fw, VGA_ROM, source->vga_rom, (u32)source->vga_rom_size);
	if (source->net_rom)
		fw_cfg_add_file(fw, NET_ROM, source->net_rom, (u32)source->net_rom_size);
	add_boot_order(f, fw, source, devices);
	return !source->kernel_size || add_kernel(f, fw, source, &job);
}

void firmware_files_destroy(struct firmware_files *f)
{
	host_free(f->acpi);
	host_free(f->setup);
}
