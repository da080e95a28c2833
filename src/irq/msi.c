/* Decoding of message-signalled interrupts. Intel SDM volume 3, "Message Signalled Interrupts". */
#include "irq/msi.h"

#define MSI_ADDRESS_BASE 0xfee00000ull
#define MSI_ADDRESS_MASK (~0xfffffull)
#define MSI_ADDRESS_LOGICAL BIT(2)
#define MSI_ADDRESS_REDIRECTION_HINT BIT(3)
#define MSI_DATA_LEVEL BIT(15)
#define MSI_DATA_ASSERT BIT(14)

static u32 msi_destination(u64 address, bool extended)
{
	u8 low = (u8)(address >> 12);
	u32 high = extended ? (u32)(address >> 5) & 0x7f : 0;
	return high ? high << 8 | low : destination_from_8(low);
}

bool msi_decode(const struct msi_message *message, bool extended_destination, struct interrupt *interrupt)
{
	u64 address = message->address;
	u32 data = message->data;
	u8 delivery = (data >> 8) & 7;
	bool level = data & MSI_DATA_LEVEL;

	if ((address & MSI_ADDRESS_MASK) != MSI_ADDRESS_BASE)
		return false;
	if (delivery == DELIVERY_RESERVED || delivery == DELIVERY_SIPI)
		return false;
	if (level && !(data & MSI_DATA_ASSERT))
		return false;
	/* A hint to redirect means the least busy of a logical set; with a physical destination there is nothing to
	 * choose. */
	bool logical = address & MSI_ADDRESS_LOGICAL;
	if (delivery == DELIVERY_FIXED && logical && (address & MSI_ADDRESS_REDIRECTION_HINT))
		delivery = DELIVERY_LOWEST_PRIORITY;
	*interrupt = (struct interrupt){
		.destination = msi_destination(address, extended_destination),
		.vector = (u8)data,
		.delivery = delivery,
		.logical = logical,
		.level = level,
	};
	return true;
}
