/* PAM and PCIEXBAR of the MCH (mch.h). */
#include "dev/mch.h"

#include "dev/map.h"
#include "host/port.h"
#include "lib/string.h"

#define PCIEXBAR 0x60
#define PCIEXBAR_ENABLE BIT(0)
#define PCIEXBAR_BASE 0xff0000000ull /* 36 bits of address; of the three sizes only 256 MiB */
#define PAM0 0x90

/* "PAM0": of the four bits of an area, two are defined. */
#define PAM_READ 1
#define PAM_WRITE 2
#define PAM_AREA 3

/* Bits of one area among the seven registers, and its place in memory. */
struct area {
	unsigned reg, shift;
	gpa_t base;
	u64 size;
};

#define AREAS 13
#define AREA_SIZE 0x4000

/* Area 0 is the last 64 KiB, by the upper half of PAM0; the others follow each other in pairs. */
static struct area area_of(unsigned index)
{
	if (!index)
		return (struct area){ 0, 4, MAP_LEGACY_END - 0x10000, 0x10000 };
	return (struct area){ (index + 1) / 2, index & 1 ? 0 : 4, MAP_PAM + (index - 1) * AREA_SIZE, AREA_SIZE };
}

static u8 attributes(const u8 *pam, const struct area *a)
{
	return pam[a->reg] >> a->shift & PAM_AREA;
}

static void exchange(u8 *a, u8 *b, u64 size)
{
	for (u64 i = 0; i < size; i += sizeof(u64)) {
		u64 word = *(u64 *)(void *)(a + i);
		*(u64 *)(void *)(a + i) = *(u64 *)(void *)(b + i);
		*(u64 *)(void *)(b + i) = word;
	}
}

static void set_readonly(const struct mch *mch, const struct area *a)
{
	u8 now = attributes(mch->pam, a);
	ram_set_readonly(mch->ram, a->base, a->size, now != PAM_AREA);
}

static bool update_area(struct mch *mch, const struct area *a, const u8 *pam)
{
	u8 before = attributes(mch->pam, a), after = attributes(pam, a);
	if (before == after)
		return false;
	u8 *memory = ram_pointer(mch->ram, a->base, a->size);
	if ((before ^ after) & PAM_READ) {
		exchange(memory, mch->hidden + (a->base - MAP_PAM), a->size);
		ram_written(mch->ram, a->base, a->size);
	}
	mch->pam[a->reg] = (u8)((mch->pam[a->reg] & ~(PAM_AREA << a->shift)) | after << a->shift);
	set_readonly(mch, a);
	return true;
}

static void update_pam(struct mch *mch)
{
	const u8 *pam = mch->host->bridge.config + PAM0;
	bool changed = false;
	for (unsigned i = 0; i < AREAS; i++) {
		struct area a = area_of(i);
		changed |= update_area(mch, &a, pam);
	}
	if (changed)
		mch->memory_changed(mch->opaque);
}

static u64 pciexbar(const struct mch *mch)
{
	return pci_get(&mch->host->bridge, PCIEXBAR, 4) | (u64)pci_get(&mch->host->bridge, PCIEXBAR + 4, 4) << 32;
}

u64 mch_ecam(const struct mch *mch)
{
	u64 value = pciexbar(mch);
	return value & PCIEXBAR_ENABLE ? value & PCIEXBAR_BASE : 0;
}

static void written(void *opaque, unsigned offset, unsigned size, u64 now)
{
	struct mch *mch = opaque;
	if (offset < PAM0 + MCH_PAM_REGISTERS && offset + size > PAM0)
		update_pam(mch);
	if (offset < PCIEXBAR + 8 && offset + size > PCIEXBAR)
		pci_place_ecam(mch->host, mch_ecam(mch));
}

/* ---- writes of vCPUs to areas that are not plain RAM ---- */

static u64 area_read(void *device, u64 offset, unsigned size, u64 now)
{
	return ~0ull; /* reads find RAM */
}

static void area_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	struct mch *mch = device;
	for (unsigned i = 0; i < AREAS; i++) {
		struct area a = area_of(i);
		if (offset - (a.base - MAP_PAM) < a.size && attributes(mch->pam, &a) == PAM_WRITE)
			mch->hidden[offset] = (u8)value;
	}
}

static const struct region_ops area_ops = { .read = area_read, .write = area_write, .width = 1 };

/* ---- life ---- */

void mch_reset(struct mch *mch)
{
	struct pci_function *bridge = &mch->host->bridge;
	memset(mch->hidden, 0, MAP_PAM_SIZE);
	for (unsigned i = 0; i < MCH_PAM_REGISTERS; i++) {
		mch->pam[i] = mch->firmware ? 0 : i ? PAM_AREA | PAM_AREA << 4 : PAM_AREA << 4;
		pci_put(bridge, PAM0 + i, 1, mch->pam[i]);
	}
	for (unsigned i = 0; i < AREAS; i++) {
		struct area a = area_of(i);
		set_readonly(mch, &a);
	}
	pci_put(bridge, PCIEXBAR, 4, (u32)MAP_ECAM | PCIEXBAR_ENABLE);
	pci_put(bridge, PCIEXBAR + 4, 4, 0);
	pci_place_ecam(mch->host, MAP_ECAM);
}

int mch_attach(struct mch *mch, struct pci_host *host, struct ram *ram)
{
	struct pci_function *bridge = &host->bridge;
	mch->host = host;
	mch->ram = ram;
	mch->hidden = host_alloc(MAP_PAM_SIZE);
	if (!mch->hidden || !ram_pointer(ram, MAP_PAM, MAP_PAM_SIZE))
		return -1;
	bridge->written = written;
	bridge->opaque = mch;
	pci_allow(bridge, PCIEXBAR, 4, (u32)(PCIEXBAR_BASE | PCIEXBAR_ENABLE));
	pci_allow(bridge, PCIEXBAR + 4, 4, PCIEXBAR_BASE >> 32);
	pci_allow(bridge, PAM0, 1, PAM_AREA << 4);
	for (unsigned i = 1; i < MCH_PAM_REGISTERS; i++)
		pci_allow(bridge, PAM0 + i, 1, PAM_AREA | PAM_AREA << 4);
	mch_reset(mch);
	return bus_add(host->memory, "PAM", MAP_PAM, MAP_PAM_SIZE, &area_ops, mch);
}

void mch_destroy(struct mch *mch)
{
	host_free(mch->hidden);
}

/* ---- state ---- */

/* The bridge's registers are loaded before. What memory shows is memory. */
static bool mch_loaded(void *object)
{
	struct mch *mch = object;
	for (unsigned i = 0; i < AREAS; i++) {
		struct area a = area_of(i);
		set_readonly(mch, &a);
	}
	pci_place_ecam(mch->host, mch_ecam(mch));
	return true;
}

static const struct state_table mch_state_table = STATE_TABLE(struct mch, mch_loaded,
	STATE_NONE(struct mch, memory_changed), STATE_NONE(struct mch, opaque), STATE_SAME(struct mch, firmware),
	STATE_NONE(struct mch, host), STATE_NONE(struct mch, ram), STATE_NONE(struct mch, hidden), STATE(struct mch, pam));

void mch_state(struct state *s, struct mch *mch)
{
	state_section(s, "MCH", 0, &mch_state_table, mch);
	state_bytes(s, "MCH hidden memory", 0, mch->hidden, MAP_PAM_SIZE);
}
