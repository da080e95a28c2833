/* A triple fault: nothing is left to handle the fault during the delivery of #DF, and the machine shuts down. The run
 * must end with the VMM's report, not with this guest's exit. Intel SDM volume 3, "Interrupt 8". */
#include "lib/guest.h"

void guest_main(void)
{
	struct table_register none = { 0, 0 };
	print("no interrupt table from here on\n");
	asm volatile("lidt %0\n ud2" : : "m"(none));
	check(false, "triple.c", 0, "the machine goes on after a triple fault");
}
