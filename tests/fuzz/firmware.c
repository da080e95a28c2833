/* What firmware talks to, under any sequence of accesses: the firmware configuration device, the chipset's PAM and PCIEXBAR registers, and
 * the flash chip. Whatever a guest asks, bytes stay within guest memory, the items and the chip, and what areas hold is never lost. */
#include "boot/acpi_loader.h"
#include "dev/fw_cfg.h"
#include "dev/map.h"
#include "dev/mch.h"
#include "dev/pflash.h"
#include "input.h"

#define FLASH_BASE 0xff000000ull
#define FLASH_SIZE 0x2000ull

static u8 memory[MAP_LEGACY_END] __attribute__((aligned(4096)));

struct machine {
	struct bus io, memory_bus;
	struct ram ram;
	struct pci_host pci;
	struct mch mch;
	struct fw_cfg fw;
	struct pflash flash;
	u8 *chip;
};

static void changed(void *opaque)
{
}

static int store(void *opaque, u64 offset, u64 size)
{
	CHECK(size && offset < FLASH_SIZE && size <= FLASH_SIZE - offset);
	return offset & 1 ? -1 : 0;
}

static void create(struct machine *m, u8 *item, u32 item_size)
{
	const struct pflash_backend backend = { .data = m->chip, .size = FLASH_SIZE, .store = store };
	m->mch = (struct mch){ .memory_changed = changed, .firmware = true };
	CHECK(!ram_add(&m->ram, 0, sizeof(memory), memory, false));
	CHECK(!pci_attach(&m->pci, &m->io, &m->memory_bus));
	CHECK(!mch_attach(&m->mch, &m->pci, &m->ram));
	fw_cfg_add_file(&m->fw, "item", item, item_size);
	fw_cfg_add_file_number(&m->fw, "number", 1, 4);
	CHECK(!fw_cfg_attach(&m->fw, &m->io, &m->ram));
	CHECK(!pflash_attach(&m->flash, &backend, &m->memory_bus, FLASH_BASE));
}

static void step(struct machine *m, struct input *in)
{
	static const u64 ports[] = { PORT_FW_CFG, PORT_FW_CFG_DMA, PORT_FW_CFG_DMA + 4, PORT_PCI_CONFIG + 4 };
	u8 op = input_u8(in), index = input_u8(in);
	unsigned size = input_size(in);
	u64 value = input_u32(in);

	switch (op % 8) {
	case 0:
		bus_write(&m->io, ports[index % 4] + (index >> 6), size, value, 0);
		break;
	case 1:
		bus_read(&m->io, ports[index % 4] + (index >> 6), size, 0);
		break;
	case 2: /* a register of the bridge */
		bus_write(&m->io, PORT_PCI_CONFIG, 4, 0x80000000 | (index & 1 ? 0x90 : 0x60), 0);
		bus_write(&m->io, PORT_PCI_CONFIG + 4, 4, value, 0);
		break;
	case 3:
		bus_write(&m->memory_bus, FLASH_BASE + value % FLASH_SIZE, size, index, 0);
		break;
	case 4:
		bus_read(&m->memory_bus, FLASH_BASE + value % FLASH_SIZE, size, 0);
		break;
	case 5:
		bus_write(&m->memory_bus, MAP_PAM + value % MAP_PAM_SIZE, size, value, 0);
		break;
	case 6: /* a command's bytes */
		memory[0x1000 + index % 16] = (u8)value;
		break;
	default:
		bus_write(&m->io, PORT_FW_CFG_DMA + 4, 4, __builtin_bswap32(0x1000), 0);
	}
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	static struct machine m;
	struct input in = { bytes, size };
	u32 item_size = input_take(&in, 2);
	u8 *item = __builtin_malloc(item_size ? item_size : 1);

	__builtin_memset(&m, 0, sizeof(m));
	__builtin_memset(memory, 0, sizeof(memory));
	__builtin_memset(item, 0xa5, item_size ? item_size : 1);
	m.chip = __builtin_malloc(FLASH_SIZE);
	__builtin_memset(m.chip, 0xff, FLASH_SIZE);
	create(&m, item, item_size);
	while (in.left)
		step(&m, &in);
	mch_reset(&m.mch);
	fw_cfg_reset(&m.fw);
	pflash_reset(&m.flash);
	mch_destroy(&m.mch);
	ram_release(&m.ram);
	__builtin_free(m.chip);
	__builtin_free(item);
	return 0;
}
