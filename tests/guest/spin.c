/* A guest that spins for ever with interrupts off: the VMM must notice, report and end it. */
#include "lib/guest.h"

void guest_main(void)
{
	print("spinning\n");
	for (;;)
		cli();
}
