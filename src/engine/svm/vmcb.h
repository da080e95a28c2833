/* The virtual machine control block, and the registers and bits around it. AMD APM volume 2, "Secure Virtual Machine" and "VMCB Layout". */
#ifndef NADIR_ENGINE_SVM_VMCB_H
#define NADIR_ENGINE_SVM_VMCB_H

#include "arch/types.h"

/* CPUID 80000001H ECX, and 8000000AH. */
#define CPUID_SVM BIT(2)
#define SVM_NESTED_PAGING BIT(0)
#define SVM_NEXT_RIP BIT(3)
#define SVM_CLEAN_BITS BIT(5)
#define SVM_FLUSH_BY_ASID BIT(6)
#define SVM_DECODE_ASSISTS BIT(7)
#define SVM_PAUSE_FILTER BIT(10)

#define MSR_VM_CR 0xc0010114
#define VM_CR_SVMDIS BIT(4)
#define MSR_VM_HSAVE_PA 0xc0010117

#define INTERCEPT_WORDS 6 /* the bit of an intercept is the number of its exit code */

#define TLB_KEEP 0
#define TLB_FLUSH_ALL 1
#define TLB_FLUSH_ASID 3

#define V_TPR 0xfull
#define V_IRQ BIT(8)
#define V_PRIORITY (0xfull << 16)
#define V_IGNORE_TPR BIT(20)
#define V_VECTOR(vector) ((u64)(vector) << 32)
#define V_INTR_MASKING BIT(24)

#define INTERRUPT_SHADOW BIT(0)

#define NP_ENABLE BIT(0)

#define VMEXIT_INVALID ~0u /* some CPUs write all 64 bits, some 32 */

/* Clean bits: what of the VMCB the CPU may keep from the last run. */
#define CLEAN_INTERCEPTS BIT(0)
#define CLEAN_ASID BIT(2)
#define CLEAN_INTERRUPT BIT(3)
#define CLEAN_NESTED BIT(4)
#define CLEAN_CONTROL BIT(5)
#define CLEAN_DEBUG BIT(6)
#define CLEAN_TABLES BIT(7)
#define CLEAN_SEGMENTS BIT(8)
#define CLEAN_CR2 BIT(9)
#define CLEAN_ALL 0x3ffu

/* EXITINFO1 of nested page faults: it was the access itself, not a walk of the guest's tables; of control registers. */
#define NPF_FINAL BIT(32)
#define CR_IS_MOV BIT(63)

/* EXITINFO1 of IOIO. */
#define IOIO_IN BIT(0)
#define IOIO_STRING BIT(2)
#define IOIO_SIZE_SHIFT 4
#define IOIO_PORT_SHIFT 16

struct vmcb_segment {
	u16 selector;
	u16 attr; /* as in a descriptor, without the bits of the limit between */
	u32 limit;
	u64 base;
};

struct vmcb {
	u32 intercept[INTERCEPT_WORDS];
	u8 reserved1[0x3c - 4 * INTERCEPT_WORDS];
	u16 pause_threshold, pause_count;
	u64 iopm, msrpm;
	u64 tsc_offset;
	u32 asid;
	u8 tlb_control, reserved2[3];
	u64 interrupt_control;
	u64 interrupt_state;
	u64 exit_code, exit_info1, exit_info2;
	u64 exit_event;
	u64 nested;
	u8 reserved3[0xa8 - 0x98];
	u64 event;
	u64 nested_cr3;
	u64 virtual_extensions;
	u32 clean, reserved4;
	u64 next_rip;
	u8 fetched, bytes[15];
	u8 reserved5[0x400 - 0xe0];

	struct vmcb_segment es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr;
	u8 reserved6[0x4cb - 0x4a0];
	u8 cpl;
	u32 reserved7;
	u64 efer;
	u8 reserved8[0x548 - 0x4d8];
	u64 cr4, cr3, cr0, dr7, dr6, rflags, rip;
	u8 reserved9[0x5d8 - 0x580];
	u64 rsp;
	u8 reserved10[0x5f8 - 0x5e0];
	u64 rax;
	u64 star, lstar, cstar, sfmask, kernel_gs_base;
	u64 sysenter_cs, sysenter_esp, sysenter_eip;
	u64 cr2;
	u8 reserved11[0x668 - 0x648];
	u64 pat;
	u8 reserved12[0x1000 - 0x670];
};
static_assert(offsetof(struct vmcb, pause_threshold) == 0x3c, "VMCB layout");
static_assert(offsetof(struct vmcb, asid) == 0x58, "VMCB layout");
static_assert(offsetof(struct vmcb, exit_code) == 0x70, "VMCB layout");
static_assert(offsetof(struct vmcb, nested) == 0x90, "VMCB layout");
static_assert(offsetof(struct vmcb, event) == 0xa8, "VMCB layout");
static_assert(offsetof(struct vmcb, clean) == 0xc0, "VMCB layout");
static_assert(offsetof(struct vmcb, next_rip) == 0xc8, "VMCB layout");
static_assert(offsetof(struct vmcb, es) == 0x400, "VMCB layout");
static_assert(offsetof(struct vmcb, cpl) == 0x4cb, "VMCB layout");
static_assert(offsetof(struct vmcb, efer) == 0x4d0, "VMCB layout");
static_assert(offsetof(struct vmcb, cr4) == 0x548, "VMCB layout");
static_assert(offsetof(struct vmcb, rip) == 0x578, "VMCB layout");
static_assert(offsetof(struct vmcb, rsp) == 0x5d8, "VMCB layout");
static_assert(offsetof(struct vmcb, rax) == 0x5f8, "VMCB layout");
static_assert(offsetof(struct vmcb, cr2) == 0x640, "VMCB layout");
static_assert(offsetof(struct vmcb, pat) == 0x668, "VMCB layout");
static_assert(sizeof(struct vmcb) == 4096, "a VMCB is a page");

#endif
