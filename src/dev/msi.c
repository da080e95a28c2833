/* MSI (msi.h). */
#include "dev/msi.h"

#define CAPABILITY_ID 0x05
#define CAPABILITY_SIZE 14
#define CONTROL 2 /* in the capability, as those that follow */
#define ADDRESS 4
#define ADDRESS_HIGH 8
#define DATA 12
#define CONTROL_ENABLE 0x0001
#define CONTROL_64BIT 0x0080

int msi_add(struct msi *msi, struct pci_function *function)
{
	unsigned at = pci_add_capability(function, CAPABILITY_ID, CAPABILITY_SIZE);
	if (!at)
		return -1;
	*msi = (struct msi){ .function = function, .capability = at };
	pci_put(function, at + CONTROL, 2, CONTROL_64BIT);
	pci_allow(function, at + CONTROL, 2, CONTROL_ENABLE);
	pci_allow(function, at + ADDRESS, 4, ~3u);
	pci_allow(function, at + ADDRESS_HIGH, 4, ~0u);
	pci_allow(function, at + DATA, 2, 0xffff);
	return 0;
}

bool msi_enabled(const struct msi *msi)
{
	return pci_get(msi->function, msi->capability + CONTROL, 2) & CONTROL_ENABLE;
}

void msi_signal(struct msi *msi)
{
	unsigned at = msi->capability;
	if (!msi_enabled(msi))
		return;
	const struct msi_message message = { (u64)pci_get(msi->function, at + ADDRESS_HIGH, 4) << 32 | pci_get(msi->function, at + ADDRESS, 4),
					     pci_get(msi->function, at + DATA, 2) };
	pci_message(msi->function, &message);
}
