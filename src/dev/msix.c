/* MSI-X (msix.h): messages are sent, or kept in the pending bits while they are masked. */
#include "dev/msix.h"

#include "lib/string.h"

#define CAPABILITY_ID 0x11
#define CAPABILITY_SIZE 12
#define CONTROL_OFFSET 2 /* in the capability */
#define TABLE_OFFSET 4
#define PBA_OFFSET 8
#define CONTROL_MASKED 0x4000
#define CONTROL_ENABLE 0x8000
#define VECTOR_MASKED 1u

#define BAR_SIZE 0x1000
#define PBA 0x800 /* where the pending bits are in the BAR; the table is at 0 */
static_assert(sizeof(struct msix_entry) == 16, "an entry of the table");
static_assert(sizeof(struct msix_entry) * MSIX_VECTORS_MAX <= PBA, "the table ends below the pending bits");
static_assert(MSIX_VECTORS_MAX <= 64, "pending bits in one word");

static u16 control(const struct msix *msix)
{
	return (u16)pci_get(msix->function, msix->capability + CONTROL_OFFSET, 2);
}

bool msix_enabled(const struct msix *msix)
{
	return control(msix) & CONTROL_ENABLE;
}

static bool masked(const struct msix *msix, unsigned vector)
{
	return (control(msix) & CONTROL_MASKED) || (msix->table[vector].control & VECTOR_MASKED);
}

static void send_pending(struct msix *msix)
{
	for (unsigned i = 0; msix->pending && msix_enabled(msix) && i < msix->vectors; i++) {
		const struct msix_entry *e = &msix->table[i];
		if (!(msix->pending & BIT(i)) || masked(msix, i))
			continue;
		msix->pending &= ~BIT(i);
		const struct msi_message message = { (u64)e->address_high << 32 | e->address_low, e->data };
		pci_message(msix->function, &message);
	}
}

void msix_signal(struct msix *msix, unsigned vector)
{
	if (vector >= msix->vectors || !msix_enabled(msix))
		return;
	msix->pending |= BIT(vector);
	send_pending(msix);
}

void msix_config_written(struct msix *msix)
{
	send_pending(msix);
}

static u64 table_read(void *device, u64 offset, unsigned size, u64 now)
{
	const struct msix *msix = device;
	u64 value = 0;
	if (offset + size <= msix->vectors * sizeof(struct msix_entry))
		memcpy(&value, (const u8 *)msix->table + offset, size);
	else if (offset >= PBA && offset + size <= PBA + sizeof(msix->pending))
		memcpy(&value, (const u8 *)&msix->pending + (offset - PBA), size);
	return value;
}

static void table_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	struct msix *msix = device;
	if (offset + size > msix->vectors * sizeof(struct msix_entry))
		return;
	memcpy((u8 *)msix->table + offset, &value, size);
	send_pending(msix);
}

static const struct region_ops table_ops = { .read = table_read, .write = table_write, .width = 4 };

void msix_reset(struct msix *msix)
{
	memset(msix->table, 0, sizeof(msix->table));
	for (unsigned i = 0; i < msix->vectors; i++)
		msix->table[i].control = VECTOR_MASKED;
	msix->pending = 0;
}

int msix_add(struct msix *msix, struct pci_function *function, unsigned bar, unsigned vectors)
{
	if (!vectors || vectors > MSIX_VECTORS_MAX ||
	    pci_add_bar(function, bar, PCI_BAR_MEM32, BAR_SIZE, "MSI-X table", &table_ops, msix))
		return -1;
	unsigned at = pci_add_capability(function, CAPABILITY_ID, CAPABILITY_SIZE);
	if (!at)
		return -1;
	*msix = (struct msix){ .function = function, .capability = at, .vectors = vectors };
	pci_put(function, at + CONTROL_OFFSET, 2, vectors - 1);
	pci_put(function, at + TABLE_OFFSET, 4, bar);
	pci_put(function, at + PBA_OFFSET, 4, PBA | bar);
	pci_allow(function, at + CONTROL_OFFSET, 2, CONTROL_MASKED | CONTROL_ENABLE);
	msix_reset(msix);
	return 0;
}

static const struct state_table entry_state = STATE_TABLE(struct msix_entry, NULL,
	STATE(struct msix_entry, address_low), STATE(struct msix_entry, address_high), STATE(struct msix_entry, data),
	STATE(struct msix_entry, control));

const struct state_table msix_state = STATE_TABLE(struct msix, NULL,
	STATE_NONE(struct msix, function), STATE_SAME(struct msix, capability), STATE_SAME(struct msix, vectors),
	STATE_IN(struct msix, table, entry_state), STATE(struct msix, pending));
