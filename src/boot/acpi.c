/* The fixed ACPI tables, each as the table in the manual that lists its fields.
 * ACPI specification 6.4, "ACPI Software Programming Model"; PCI Firmware Specification, "MCFG Table"; Microsoft,
 * "Windows ACPI Emulated Devices Table". */
#include "boot/acpi.h"

#include "dev/hpet.h"
#include "dev/map.h"
#include "dev/pm.h"
#include "host/port.h"
#include "lib/bytes.h"
#include "lib/string.h"

struct header {
	char signature[4];
	u32 length;
	u8 revision, checksum;
	char oem_id[6], oem_table_id[8];
	u32 oem_revision;
	char creator_id[4];
	u32 creator_revision;
} __attribute__((packed));
static_assert(sizeof(struct header) == 36, "System Description Table Header");

struct gas {
	u8 space, width, offset, access;
	u64 address;
} __attribute__((packed));
static_assert(sizeof(struct gas) == 12, "Generic Address Structure");

struct rsdp {
	char signature[8];
	u8 checksum; /* of the first 20 bytes */
	char oem_id[6];
	u8 revision;
	u32 rsdt;
	u32 length;
	u64 xsdt;
	u8 extended_checksum, reserved[3];
} __attribute__((packed));
static_assert(sizeof(struct rsdp) == ACPI_RSDP_SIZE, "Root System Description Pointer");

struct fadt {
	struct header header;
	u32 firmware_ctrl, dsdt;
	u8 reserved, profile;
	u16 sci_int;
	u32 smi_cmd;
	u8 acpi_enable, acpi_disable, s4bios_req, pstate_cnt;
	u32 pm1a_evt, pm1b_evt, pm1a_cnt, pm1b_cnt, pm2_cnt, pm_tmr, gpe0, gpe1;
	u8 pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_tmr_len, gpe0_len, gpe1_len, gpe1_base, cst_cnt;
	u16 c2_latency, c3_latency, flush_size, flush_stride;
	u8 duty_offset, duty_width, day_alarm, month_alarm, century;
	u16 boot_arch;
	u8 reserved2;
	u32 flags;
	struct gas reset_reg;
	u8 reset_value;
	u16 arm_boot_arch;
	u8 minor_version;
	u64 x_firmware_ctrl, x_dsdt;
	struct gas x_pm1a_evt, x_pm1b_evt, x_pm1a_cnt, x_pm1b_cnt, x_pm2_cnt, x_pm_tmr, x_gpe0, x_gpe1;
	struct gas sleep_control, sleep_status;
	u64 hypervisor;
} __attribute__((packed));
static_assert(offsetof(struct fadt, flags) == 112, "Fixed ACPI Description Table");
static_assert(sizeof(struct fadt) == 276, "Fixed ACPI Description Table");

/* IA-PC boot architecture flags. */
#define BOOT_ARCH_LEGACY_DEVICES BIT(0)
#define BOOT_ARCH_8042 BIT(1)
#define BOOT_ARCH_NO_VGA BIT(2)

/* Fixed feature flags. A clear PWR_BUTTON says that the power button is fixed hardware. */
#define FADT_WBINVD BIT(0)
#define FADT_PROC_C1 BIT(2)
#define FADT_SLP_BUTTON BIT(5)
#define FADT_FIX_RTC BIT(6)
#define FADT_RESET_REG_SUP BIT(10)

#define FADT_REVISION 6
#define FADT_MINOR 4
#define PROFILE_ENTERPRISE_SERVER 4
#define NO_C2 0xfff
#define NO_C3 0xfff
#define RTC_CENTURY 0x32

#define SPACE_IO 1
enum { ACCESS_BYTE = 1, ACCESS_WORD, ACCESS_DWORD };

#define PM1_CNT_OFFSET 4
#define PM_TMR_OFFSET 8

#define MADT_PCAT_COMPAT BIT(0)
#define MADT_CPU_ENABLED BIT(0)
#define MADT_ACTIVE_HIGH 1
#define MADT_LEVEL (3 << 2)
#define XAPIC_ID_END 255 /* IDs from here on need x2APIC entries */

#define WAET_RTC_GOOD BIT(0)
#define WAET_PM_TIMER_GOOD BIT(1)

#define TABLES_MAX 8

/* Tables one after the other in a buffer that will lie at `base`. */
struct writer {
	struct aml out; /* the same bounded output as for AML */
	gpa_t base;
	u32 table;            /* where the table in hand starts */
	u32 list[TABLES_MAX]; /* physical addresses for RSDT and XSDT */
	unsigned listed;
	struct acpi_links links;
};

static u8 checksum(const void *table, u32 length)
{
	const u8 *p = table;
	u8 sum = 0;

	for (u32 i = 0; i < length; i++)
		sum += p[i];
	return -sum;
}

static void align(struct writer *w, u32 alignment)
{
	while (w->out.used % alignment && !w->out.overflow)
		aml_byte(&w->out, 0);
}

static struct header make_header(const char *signature, u8 revision)
{
	struct header h = {
		.revision = revision,
		.oem_id = "NADIR ",
		.oem_table_id = "NADIRVM ",
		.oem_revision = 1,
		.creator_id = "NADR",
		.creator_revision = 1,
	};

	memcpy(h.signature, signature, sizeof(h.signature));
	return h;
}

static void begin_table(struct writer *w, const char *signature, u8 revision)
{
	struct header h = make_header(signature, revision);

	align(w, 16);
	w->table = w->out.used;
	aml_bytes(&w->out, &h, sizeof(h));
}

/* Fill in length and checksum; returns the table's physical address. */
static u32 end_table(struct writer *w)
{
	struct header *h = (struct header *)(w->out.data + w->table);

	if (w->out.overflow)
		return 0;
	h->length = w->out.used - w->table;
	h->checksum = checksum(h, h->length);
	w->links.table[w->links.tables++] = (struct acpi_table){ w->table, h->length };
	return w->base + w->table;
}

/* A pointer lies at `at`. */
static void note_pointer(struct writer *w, u32 at, u8 size)
{
	w->links.pointer[w->links.pointers++] = (struct acpi_pointer){ at, size };
}

static void end_listed_table(struct writer *w)
{
	w->list[w->listed++] = end_table(w);
}

static u32 put_facs(struct writer *w)
{
	u8 facs[64] = "FACS";

	put_u32(facs + 4, sizeof(facs));
	facs[32] = 2; /* version */
	align(w, sizeof(facs));
	aml_bytes(&w->out, facs, sizeof(facs));
	return w->base + w->out.used - sizeof(facs);
}

static u32 put_dsdt(struct writer *w, const struct acpi_machine *machine)
{
	begin_table(w, "DSDT", 2);
	acpi_dsdt(&w->out, machine);
	return end_table(w);
}

static struct gas port(u16 number, u8 bits, u8 access)
{
	return (struct gas){ .space = SPACE_IO, .width = bits, .access = access, .address = number };
}

static void put_fadt(struct writer *w, const struct acpi_machine *machine, u32 facs, u32 dsdt)
{
	struct fadt fadt = {
		.header = make_header("FACP", FADT_REVISION),
		.firmware_ctrl = facs,
		.dsdt = dsdt,
		.x_dsdt = dsdt,
		.minor_version = FADT_MINOR,
		.profile = PROFILE_ENTERPRISE_SERVER,
		.sci_int = IRQ_SCI,
		.pm1a_evt = PORT_PM,
		.pm1_evt_len = 4,
		.x_pm1a_evt = port(PORT_PM, 32, ACCESS_WORD),
		.pm1a_cnt = PORT_PM + PM1_CNT_OFFSET,
		.pm1_cnt_len = 2,
		.x_pm1a_cnt = port(PORT_PM + PM1_CNT_OFFSET, 16, ACCESS_WORD),
		.pm_tmr = PORT_PM + PM_TMR_OFFSET,
		.pm_tmr_len = 4,
		.gpe0 = PORT_PM + PM_GPE0,
		.gpe0_len = 2,
		.x_pm_tmr = port(PORT_PM + PM_TMR_OFFSET, 32, ACCESS_DWORD),
		.x_gpe0 = port(PORT_PM + PM_GPE0, 16, ACCESS_BYTE),
		.c2_latency = NO_C2,
		.c3_latency = NO_C3,
		.century = RTC_CENTURY,
		.boot_arch = BOOT_ARCH_LEGACY_DEVICES | BOOT_ARCH_8042 | (machine->vga ? 0 : BOOT_ARCH_NO_VGA),
		.flags = FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_FIX_RTC | FADT_RESET_REG_SUP,
		.reset_reg = port(PORT_RESET, 8, ACCESS_BYTE),
		.reset_value = RESET_VALUE,
	};

	align(w, 16);
	w->table = w->out.used;
	aml_bytes(&w->out, &fadt, sizeof(fadt));
	note_pointer(w, w->table + offsetof(struct fadt, firmware_ctrl), sizeof(fadt.firmware_ctrl));
	note_pointer(w, w->table + offsetof(struct fadt, dsdt), sizeof(fadt.dsdt));
	note_pointer(w, w->table + offsetof(struct fadt, x_dsdt), sizeof(fadt.x_dsdt));
	end_listed_table(w);
}

/* ---- MADT: ACPI specification, "Multiple APIC Description Table" ---- */

static void put_local_apic(struct writer *w, u32 id)
{
	const struct {
		u8 type, length, uid, id;
		u32 flags;
	} __attribute__((packed)) e = { 0, sizeof(e), id, id, MADT_CPU_ENABLED };

	aml_bytes(&w->out, &e, sizeof(e));
}

static void put_local_x2apic(struct writer *w, u32 id)
{
	const struct {
		u8 type, length;
		u16 reserved;
		u32 id, flags, uid;
	} __attribute__((packed)) e = { 9, sizeof(e), 0, id, MADT_CPU_ENABLED, id };

	aml_bytes(&w->out, &e, sizeof(e));
}

static void put_io_apic(struct writer *w)
{
	const struct {
		u8 type, length, id, reserved;
		u32 address, gsi_base;
	} __attribute__((packed)) e = { 1, sizeof(e), 0, 0, MAP_IOAPIC, 0 };

	aml_bytes(&w->out, &e, sizeof(e));
}

static void put_override(struct writer *w, u8 irq, u32 gsi, u16 flags)
{
	const struct {
		u8 type, length, bus, irq;
		u32 gsi;
		u16 flags;
	} __attribute__((packed)) e = { 2, sizeof(e), 0, irq, gsi, flags };

	aml_bytes(&w->out, &e, sizeof(e));
}

/* LINT1 of every CPU is the NMI pin. */
static void put_nmi(struct writer *w, bool x2apic)
{
	const struct {
		u8 type, length, uid;
		u16 flags;
		u8 lint;
	} __attribute__((packed)) e = { 4, sizeof(e), 0xff, 0, 1 };
	const struct {
		u8 type, length;
		u16 flags;
		u32 uid;
		u8 lint, reserved[3];
	} __attribute__((packed)) x = { 0xa, sizeof(x), 0, 0xffffffff, 1 };

	aml_bytes(&w->out, &e, sizeof(e));
	if (x2apic)
		aml_bytes(&w->out, &x, sizeof(x));
}

static void put_madt(struct writer *w, unsigned cpus)
{
	const u32 fixed[] = { MAP_LAPIC, MADT_PCAT_COMPAT };

	begin_table(w, "APIC", 5);
	aml_bytes(&w->out, fixed, sizeof(fixed));
	for (u32 id = 0; id < cpus && id < XAPIC_ID_END; id++)
		put_local_apic(w, id);
	for (u32 id = XAPIC_ID_END; id < cpus; id++)
		put_local_x2apic(w, id);
	put_io_apic(w);
	put_override(w, IRQ_PIT, GSI_PIT, 0);
	put_override(w, IRQ_SCI, IRQ_SCI, MADT_ACTIVE_HIGH | MADT_LEVEL);
	put_nmi(w, cpus > XAPIC_ID_END);
	end_listed_table(w);
}

static void put_mcfg(struct writer *w, gpa_t ecam)
{
	const struct {
		u64 reserved, base;
		u16 segment;
		u8 first_bus, last_bus;
		u32 reserved2;
	} __attribute__((packed)) e = { 0, ecam, 0, 0, MAP_ECAM_SIZE / 0x100000 - 1, 0 };

	begin_table(w, "MCFG", 1);
	aml_bytes(&w->out, &e, sizeof(e));
	end_listed_table(w);
}

/* IA-PC HPET Specification, "ACPI Description Table". */
static void put_hpet(struct writer *w)
{
	const struct {
		u32 id;
		struct gas base;
		u8 number;
		u16 minimum_tick; /* in periodic mode, so that none is lost */
		u8 protection;
	} __attribute__((packed)) e = { (u32)HPET_CAPABILITIES, { .width = 64, .address = MAP_HPET }, 0, HPET_MIN_PERIOD / HPET_TICK, 0 };

	begin_table(w, "HPET", 1);
	aml_bytes(&w->out, &e, sizeof(e));
	end_listed_table(w);
}

static void put_waet(struct writer *w)
{
	const u32 flags = WAET_RTC_GOOD | WAET_PM_TIMER_GOOD;

	begin_table(w, "WAET", 1);
	aml_bytes(&w->out, &flags, sizeof(flags));
	end_listed_table(w);
}

/* RSDT (4-byte addresses) or XSDT (8-byte addresses). */
static u32 put_root(struct writer *w, const char *signature, unsigned width)
{
	begin_table(w, signature, 1);
	for (unsigned i = 0; i < w->listed; i++) {
		u64 address = w->list[i];
		note_pointer(w, w->out.used, (u8)width);
		aml_bytes(&w->out, &address, width);
	}
	return end_table(w);
}

static void fill_rsdp(struct writer *w, u32 rsdt, u32 xsdt)
{
	struct rsdp *rsdp = (struct rsdp *)w->out.data;

	*rsdp = (struct rsdp){
		.signature = "RSD PTR ",
		.oem_id = "NADIR ",
		.revision = 2,
		.rsdt = rsdt,
		.length = sizeof(*rsdp),
		.xsdt = xsdt,
	};
	note_pointer(w, offsetof(struct rsdp, rsdt), sizeof(rsdp->rsdt));
	note_pointer(w, offsetof(struct rsdp, xsdt), sizeof(rsdp->xsdt));
	rsdp->checksum = checksum(rsdp, ACPI_RSDP_V1_SIZE);
	rsdp->extended_checksum = checksum(rsdp, sizeof(*rsdp));
}

u32 acpi_tables(u8 *buffer, u32 size, gpa_t base, const struct acpi_machine *machine, struct acpi_links *links)
{
	static const u8 rsdp_room[sizeof(struct rsdp)];
	struct writer w = { .out = { .data = buffer, .size = size }, .base = base };

	aml_bytes(&w.out, rsdp_room, sizeof(rsdp_room));
	u32 facs = put_facs(&w);
	u32 dsdt = put_dsdt(&w, machine);
	put_fadt(&w, machine, facs, dsdt);
	put_madt(&w, machine->cpus);
	if (machine->ecam)
		put_mcfg(&w, machine->ecam);
	put_hpet(&w);
	put_waet(&w);
	u32 rsdt = put_root(&w, "RSDT", 4);
	u32 xsdt = put_root(&w, "XSDT", 8);
	if (w.out.overflow)
		return 0;
	fill_rsdp(&w, rsdt, xsdt);
	if (links)
		*links = w.links;
	return w.out.used;
}

bool acpi_build(struct ram *ram, unsigned cpus, bool vga)
{
	const struct acpi_machine machine = { .cpus = cpus, .ecam = MAP_ECAM, .bars = MAP_PCI_MMIO, .vga = vga };
	u8 *buffer = host_alloc(MAP_ACPI_SIZE);
	u32 size = buffer ? acpi_tables(buffer, MAP_ACPI_SIZE, MAP_ACPI, &machine, NULL) : 0;
	bool done = size && ram_write(ram, MAP_ACPI, buffer, size);

	host_free(buffer);
	return done;
}
