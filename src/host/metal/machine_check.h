/* Machine checks: errors of the hardware, which the processor writes into banks of registers. Intel SDM volume 3, "Machine-Check Architecture"; AMD APM
 * volume 2, "Machine Check Architecture". */
#ifndef NADIR_HOST_METAL_MACHINE_CHECK_H
#define NADIR_HOST_METAL_MACHINE_CHECK_H

/* Let this CPU's banks report what they find. CR4.MCE is set, and a thread runs here. */
void machine_check_init(void);
/* One line for each error in this CPU's banks; in a panic. */
void machine_check_report(void);

#endif
