/* Says what is typed at its serial port, with the number "me=N", until that is a q: by which keys reach which guest. */
#include "lib/guest.h"

#define UART 0x3f8
#define UART_LINE_STATUS (UART + 5)
#define DATA_READY 1

static u8 typed(void)
{
	while (!(inb(UART_LINE_STATUS) & DATA_READY))
		asm volatile("pause");
	return inb(UART);
}

void guest_main(void)
{
	u64 me = 0;
	u8 key;
	command_option("me", &me);
	print("guest %u is ready\n", (unsigned)me);
	do {
		key = typed();
		print("guest %u: key %02x\n", (unsigned)me, key);
	} while (key != 'q');
	CHECK(true);
}
