/* The CPU's own local APIC, as the host uses it: its timer and interrupts between CPUs. x2APIC where the CPU has it, else the page of registers.
 * Intel SDM volume 3, "Advanced Programmable Interrupt Controller (APIC)". */
#ifndef NADIR_HOST_METAL_APIC_H
#define NADIR_HOST_METAL_APIC_H

#include "arch/types.h"

/* Once, on the first CPU: find and map it, quiet the 8259 pair. */
void apic_init(void);
/* Each CPU. */
void apic_enable(void);
u32 apic_id(void);
void apic_eoi(void);
/* An interrupt to another CPU; INIT, and the start at `page` below 1 MiB. */
void apic_send(u32 apic_id, u8 vector);
void apic_send_nmi_to_others(void);
void apic_send_init(u32 apic_id);
void apic_send_startup(u32 apic_id, u8 page);
/* VECTOR_TIMER once, in so many nanoseconds or a little later; 0: never. Returns what the time-stamp counter will be then, or HOST_NEVER. */
u64 apic_timer(u64 nanoseconds);

#endif
