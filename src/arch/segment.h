/* Segment and system descriptors, task-state segments and gates as they lie in memory.
 * Intel SDM volume 3, "Protected-Mode Memory Management" and "Task Management". */
#ifndef NADIR_ARCH_SEGMENT_H
#define NADIR_ARCH_SEGMENT_H

#include "arch/types.h"

#define SELECTOR_RPL 3u
#define SELECTOR_TI 4u
#define SELECTOR_INDEX 0xfff8u

/* Attribute word of a descriptor in the form VMCS and VMCB-like code keep it: bits 7:0 are the descriptor's access byte
 * (type, S, DPL, P), bits 15:12 are AVL, L, D/B and G; bits 11:8 are zero. UNUSABLE is the VMCS's bit 16.
 * Intel SDM volume 3, "Guest Register State", access-rights format. */
#define SEG_ATTR_TYPE 0x000fu
#define SEG_ATTR_ACCESSED 0x0001u
#define SEG_ATTR_WRITABLE 0x0002u /* data */
#define SEG_ATTR_READABLE 0x0002u /* code */
#define SEG_ATTR_EXPAND_DOWN 0x0004u /* data */
#define SEG_ATTR_CONFORMING 0x0004u /* code */
#define SEG_ATTR_CODE 0x0008u
#define SEG_ATTR_S 0x0010u
#define SEG_ATTR_DPL_SHIFT 5
#define SEG_ATTR_DPL 0x0060u
#define SEG_ATTR_P 0x0080u
#define SEG_ATTR_AVL 0x1000u
#define SEG_ATTR_L 0x2000u
#define SEG_ATTR_DB 0x4000u
#define SEG_ATTR_G 0x8000u
#define SEG_ATTR_UNUSABLE 0x10000u

/* Types of system descriptors (S = 0). */
enum system_type {
	SYS_TSS16 = 1,
	SYS_LDT = 2,
	SYS_TSS16_BUSY = 3,
	SYS_CALL_GATE16 = 4,
	SYS_TASK_GATE = 5,
	SYS_INT_GATE16 = 6,
	SYS_TRAP_GATE16 = 7,
	SYS_TSS = 9,
	SYS_TSS_BUSY = 11,
	SYS_CALL_GATE = 12,
	SYS_INT_GATE = 14,
	SYS_TRAP_GATE = 15,
};

#endif
