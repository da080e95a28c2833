/* The fields of the VMCS in its six groups. Intel SDM volume 3, "Virtual-Machine Control Structures" and "Field Encoding in VMCS". X(NAME, encoding, text). */
#ifndef NADIR_ARCH_VMCS_H
#define NADIR_ARCH_VMCS_H

#include "arch/types.h"

/* clang-format off */
#define VMCS_GUEST_FIELDS(X) \
	X(GUEST_ES, 0x0800, "guest ES selector") \
	X(GUEST_CS, 0x0802, "guest CS selector") \
	X(GUEST_SS, 0x0804, "guest SS selector") \
	X(GUEST_DS, 0x0806, "guest DS selector") \
	X(GUEST_FS, 0x0808, "guest FS selector") \
	X(GUEST_GS, 0x080a, "guest GS selector") \
	X(GUEST_LDTR, 0x080c, "guest LDTR selector") \
	X(GUEST_TR, 0x080e, "guest TR selector") \
	X(GUEST_INTERRUPT_STATUS, 0x0810, "guest interrupt status") \
	X(GUEST_PML_INDEX, 0x0812, "PML index") \
	X(GUEST_VMCS_LINK, 0x2800, "VMCS link pointer") \
	X(GUEST_DEBUGCTL, 0x2802, "guest IA32_DEBUGCTL") \
	X(GUEST_PAT, 0x2804, "guest IA32_PAT") \
	X(GUEST_EFER, 0x2806, "guest IA32_EFER") \
	X(GUEST_PERF_GLOBAL_CTRL, 0x2808, "guest IA32_PERF_GLOBAL_CTRL") \
	X(GUEST_PDPTE0, 0x280a, "guest PDPTE0") \
	X(GUEST_PDPTE1, 0x280c, "guest PDPTE1") \
	X(GUEST_PDPTE2, 0x280e, "guest PDPTE2") \
	X(GUEST_PDPTE3, 0x2810, "guest PDPTE3") \
	X(GUEST_BNDCFGS, 0x2812, "guest IA32_BNDCFGS") \
	X(GUEST_ES_LIMIT, 0x4800, "guest ES limit") \
	X(GUEST_CS_LIMIT, 0x4802, "guest CS limit") \
	X(GUEST_SS_LIMIT, 0x4804, "guest SS limit") \
	X(GUEST_DS_LIMIT, 0x4806, "guest DS limit") \
	X(GUEST_FS_LIMIT, 0x4808, "guest FS limit") \
	X(GUEST_GS_LIMIT, 0x480a, "guest GS limit") \
	X(GUEST_LDTR_LIMIT, 0x480c, "guest LDTR limit") \
	X(GUEST_TR_LIMIT, 0x480e, "guest TR limit") \
	X(GUEST_GDTR_LIMIT, 0x4810, "guest GDTR limit") \
	X(GUEST_IDTR_LIMIT, 0x4812, "guest IDTR limit") \
	X(GUEST_ES_RIGHTS, 0x4814, "guest ES access rights") \
	X(GUEST_CS_RIGHTS, 0x4816, "guest CS access rights") \
	X(GUEST_SS_RIGHTS, 0x4818, "guest SS access rights") \
	X(GUEST_DS_RIGHTS, 0x481a, "guest DS access rights") \
	X(GUEST_FS_RIGHTS, 0x481c, "guest FS access rights") \
	X(GUEST_GS_RIGHTS, 0x481e, "guest GS access rights") \
	X(GUEST_LDTR_RIGHTS, 0x4820, "guest LDTR access rights") \
	X(GUEST_TR_RIGHTS, 0x4822, "guest TR access rights") \
	X(GUEST_INTERRUPTIBILITY, 0x4824, "guest interruptibility state") \
	X(GUEST_ACTIVITY, 0x4826, "guest activity state") \
	X(GUEST_SMBASE, 0x4828, "guest SMBASE") \
	X(GUEST_SYSENTER_CS, 0x482a, "guest IA32_SYSENTER_CS") \
	X(GUEST_PREEMPTION_TIMER, 0x482e, "VMX-preemption timer value") \
	X(GUEST_CR0, 0x6800, "guest CR0") \
	X(GUEST_CR3, 0x6802, "guest CR3") \
	X(GUEST_CR4, 0x6804, "guest CR4") \
	X(GUEST_ES_BASE, 0x6806, "guest ES base") \
	X(GUEST_CS_BASE, 0x6808, "guest CS base") \
	X(GUEST_SS_BASE, 0x680a, "guest SS base") \
	X(GUEST_DS_BASE, 0x680c, "guest DS base") \
	X(GUEST_FS_BASE, 0x680e, "guest FS base") \
	X(GUEST_GS_BASE, 0x6810, "guest GS base") \
	X(GUEST_LDTR_BASE, 0x6812, "guest LDTR base") \
	X(GUEST_TR_BASE, 0x6814, "guest TR base") \
	X(GUEST_GDTR_BASE, 0x6816, "guest GDTR base") \
	X(GUEST_IDTR_BASE, 0x6818, "guest IDTR base") \
	X(GUEST_DR7, 0x681a, "guest DR7") \
	X(GUEST_RSP, 0x681c, "guest RSP") \
	X(GUEST_RIP, 0x681e, "guest RIP") \
	X(GUEST_RFLAGS, 0x6820, "guest RFLAGS") \
	X(GUEST_PENDING_DEBUG, 0x6822, "guest pending debug exceptions") \
	X(GUEST_SYSENTER_ESP, 0x6824, "guest IA32_SYSENTER_ESP") \
	X(GUEST_SYSENTER_EIP, 0x6826, "guest IA32_SYSENTER_EIP")

#define VMCS_HOST_FIELDS(X) \
	X(HOST_ES, 0x0c00, "host ES selector") \
	X(HOST_CS, 0x0c02, "host CS selector") \
	X(HOST_SS, 0x0c04, "host SS selector") \
	X(HOST_DS, 0x0c06, "host DS selector") \
	X(HOST_FS, 0x0c08, "host FS selector") \
	X(HOST_GS, 0x0c0a, "host GS selector") \
	X(HOST_TR, 0x0c0c, "host TR selector") \
	X(HOST_PAT, 0x2c00, "host IA32_PAT") \
	X(HOST_EFER, 0x2c02, "host IA32_EFER") \
	X(HOST_PERF_GLOBAL_CTRL, 0x2c04, "host IA32_PERF_GLOBAL_CTRL") \
	X(HOST_SYSENTER_CS, 0x4c00, "host IA32_SYSENTER_CS") \
	X(HOST_CR0, 0x6c00, "host CR0") \
	X(HOST_CR3, 0x6c02, "host CR3") \
	X(HOST_CR4, 0x6c04, "host CR4") \
	X(HOST_FS_BASE, 0x6c06, "host FS base") \
	X(HOST_GS_BASE, 0x6c08, "host GS base") \
	X(HOST_TR_BASE, 0x6c0a, "host TR base") \
	X(HOST_GDTR_BASE, 0x6c0c, "host GDTR base") \
	X(HOST_IDTR_BASE, 0x6c0e, "host IDTR base") \
	X(HOST_SYSENTER_ESP, 0x6c10, "host IA32_SYSENTER_ESP") \
	X(HOST_SYSENTER_EIP, 0x6c12, "host IA32_SYSENTER_EIP") \
	X(HOST_RSP, 0x6c14, "host RSP") \
	X(HOST_RIP, 0x6c16, "host RIP")

#define VMCS_EXECUTION_FIELDS(X) \
	X(VPID, 0x0000, "virtual-processor identifier") \
	X(POSTED_VECTOR, 0x0002, "posted-interrupt notification vector") \
	X(EPTP_INDEX, 0x0004, "EPTP index") \
	X(IO_BITMAP_A, 0x2000, "I/O bitmap A") \
	X(IO_BITMAP_B, 0x2002, "I/O bitmap B") \
	X(MSR_BITMAPS, 0x2004, "MSR bitmaps") \
	X(EXECUTIVE_VMCS, 0x200c, "executive-VMCS pointer") \
	X(PML_ADDRESS, 0x200e, "PML address") \
	X(TSC_OFFSET, 0x2010, "TSC offset") \
	X(VIRTUAL_APIC, 0x2012, "virtual-APIC address") \
	X(APIC_ACCESS, 0x2014, "APIC-access address") \
	X(POSTED_DESCRIPTOR, 0x2016, "posted-interrupt descriptor address") \
	X(VM_FUNCTIONS, 0x2018, "VM-function controls") \
	X(EPTP, 0x201a, "EPT pointer") \
	X(EOI_EXIT0, 0x201c, "EOI-exit bitmap 0") \
	X(EOI_EXIT1, 0x201e, "EOI-exit bitmap 1") \
	X(EOI_EXIT2, 0x2020, "EOI-exit bitmap 2") \
	X(EOI_EXIT3, 0x2022, "EOI-exit bitmap 3") \
	X(EPTP_LIST, 0x2024, "EPTP-list address") \
	X(VMREAD_BITMAP, 0x2026, "VMREAD bitmap") \
	X(VMWRITE_BITMAP, 0x2028, "VMWRITE bitmap") \
	X(VE_INFORMATION, 0x202a, "virtualization-exception information") \
	X(XSS_EXITING, 0x202c, "XSS-exiting bitmap") \
	X(TSC_MULTIPLIER, 0x2032, "TSC multiplier") \
	X(PIN_CONTROLS, 0x4000, "pin-based controls") \
	X(PROCESSOR_CONTROLS, 0x4002, "primary processor-based controls") \
	X(EXCEPTION_BITMAP, 0x4004, "exception bitmap") \
	X(PF_ERROR_MASK, 0x4006, "page-fault error-code mask") \
	X(PF_ERROR_MATCH, 0x4008, "page-fault error-code match") \
	X(CR3_TARGETS, 0x400a, "CR3-target count") \
	X(TPR_THRESHOLD, 0x401c, "TPR threshold") \
	X(SECONDARY_CONTROLS, 0x401e, "secondary processor-based controls") \
	X(PLE_GAP, 0x4020, "PLE gap") \
	X(PLE_WINDOW, 0x4022, "PLE window") \
	X(CR0_MASK, 0x6000, "CR0 guest/host mask") \
	X(CR4_MASK, 0x6002, "CR4 guest/host mask") \
	X(CR0_SHADOW, 0x6004, "CR0 read shadow") \
	X(CR4_SHADOW, 0x6006, "CR4 read shadow") \
	X(CR3_TARGET0, 0x6008, "CR3-target value 0") \
	X(CR3_TARGET1, 0x600a, "CR3-target value 1") \
	X(CR3_TARGET2, 0x600c, "CR3-target value 2") \
	X(CR3_TARGET3, 0x600e, "CR3-target value 3")

#define VMCS_EXIT_FIELDS(X) \
	X(EXIT_MSR_STORE, 0x2006, "VM-exit MSR-store address") \
	X(EXIT_MSR_LOAD, 0x2008, "VM-exit MSR-load address") \
	X(EXIT_CONTROLS, 0x400c, "VM-exit controls") \
	X(EXIT_MSR_STORES, 0x400e, "VM-exit MSR-store count") \
	X(EXIT_MSR_LOADS, 0x4010, "VM-exit MSR-load count")

#define VMCS_ENTRY_FIELDS(X) \
	X(ENTRY_MSR_LOAD, 0x200a, "VM-entry MSR-load address") \
	X(ENTRY_CONTROLS, 0x4012, "VM-entry controls") \
	X(ENTRY_MSR_LOADS, 0x4014, "VM-entry MSR-load count") \
	X(ENTRY_EVENT, 0x4016, "VM-entry interruption information") \
	X(ENTRY_EVENT_ERROR, 0x4018, "VM-entry exception error code") \
	X(ENTRY_LENGTH, 0x401a, "VM-entry instruction length")

#define VMCS_INFORMATION_FIELDS(X) \
	X(EXIT_GUEST_PHYSICAL, 0x2400, "guest-physical address") \
	X(INSTRUCTION_ERROR, 0x4400, "VM-instruction error") \
	X(EXIT_REASON, 0x4402, "exit reason") \
	X(EXIT_EVENT, 0x4404, "VM-exit interruption information") \
	X(EXIT_EVENT_ERROR, 0x4406, "VM-exit interruption error code") \
	X(EXIT_VECTORING, 0x4408, "IDT-vectoring information") \
	X(EXIT_VECTORING_ERROR, 0x440a, "IDT-vectoring error code") \
	X(EXIT_LENGTH, 0x440c, "VM-exit instruction length") \
	X(EXIT_INSTRUCTION, 0x440e, "VM-exit instruction information") \
	X(EXIT_QUALIFICATION, 0x6400, "exit qualification") \
	X(EXIT_IO_RCX, 0x6402, "I/O RCX") \
	X(EXIT_IO_RSI, 0x6404, "I/O RSI") \
	X(EXIT_IO_RDI, 0x6406, "I/O RDI") \
	X(EXIT_IO_RIP, 0x6408, "I/O RIP") \
	X(EXIT_GUEST_LINEAR, 0x640a, "guest-linear address")

#define VMCS_FIELDS(X) \
	VMCS_GUEST_FIELDS(X) VMCS_HOST_FIELDS(X) VMCS_EXECUTION_FIELDS(X) VMCS_EXIT_FIELDS(X) VMCS_ENTRY_FIELDS(X) VMCS_INFORMATION_FIELDS(X)
/* clang-format on */

enum vmcs_field {
#define X(name, encoding, text) VMCS_##name = encoding,
	VMCS_FIELDS(X)
#undef X
};

enum vmcs_group { VMCS_GUEST, VMCS_HOST, VMCS_EXECUTION, VMCS_EXIT, VMCS_ENTRY, VMCS_INFORMATION, VMCS_GROUPS };

/* What an encoding says of its field. */
enum vmcs_type { VMCS_TYPE_CONTROL, VMCS_TYPE_INFORMATION, VMCS_TYPE_GUEST, VMCS_TYPE_HOST };

static inline unsigned vmcs_field_bits(u32 field)
{
	static const u8 bits[] = { 16, 64, 32, 64 };
	return bits[field >> 13 & 3];
}

static inline enum vmcs_type vmcs_field_type(u32 field)
{
	return field >> 10 & 3;
}

/* Fields of segment registers follow each other in the order of enum segment_register, then LDTR, TR. */
#define VMCS_SEGMENT(field, n) ((u32)(field) + 2 * (n))
enum { VMCS_SEG_LDTR = 6, VMCS_SEG_TR, VMCS_SEG_COUNT };

#endif
