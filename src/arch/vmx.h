/* Virtual-machine extensions: capability MSRs, controls, exit reasons, errors, events. The VMCS is in arch/vmcs.h.
 * Intel SDM volume 3, "VMX Capability Reporting Facility", "VMX Basic Exit Reasons", "VM-Instruction Error Numbers". */
#ifndef NADIR_ARCH_VMX_H
#define NADIR_ARCH_VMX_H

#include "arch/types.h"

#define MSR_FEATURE_CONTROL 0x3a
#define FEATURE_CONTROL_LOCK BIT(0)
#define FEATURE_CONTROL_VMX BIT(2) /* outside SMX */

#define MSR_VMX_BASIC 0x480
#define MSR_VMX_PIN 0x481
#define MSR_VMX_PROCESSOR 0x482
#define MSR_VMX_EXIT 0x483
#define MSR_VMX_ENTRY 0x484
#define MSR_VMX_MISC 0x485
#define MSR_VMX_CR0_FIXED0 0x486
#define MSR_VMX_CR0_FIXED1 0x487
#define MSR_VMX_CR4_FIXED0 0x488
#define MSR_VMX_CR4_FIXED1 0x489
#define MSR_VMX_SECONDARY 0x48b
#define MSR_VMX_EPT_VPID 0x48c
#define MSR_VMX_TRUE_PIN 0x48d
#define MSR_VMX_TRUE_PROCESSOR 0x48e
#define MSR_VMX_TRUE_EXIT 0x48f
#define MSR_VMX_TRUE_ENTRY 0x490

#define VMX_BASIC_REVISION 0x7fffffffu
#define VMX_BASIC_TRUE BIT(55) /* the "true" MSRs are there */
#define VMX_MISC_TIMER_RATE(misc) ((misc) & 0x1f) /* the preemption timer counts when this bit of the time-stamp counter changes */
#define VMX_MISC_ACTIVITY_HLT BIT(6)
#define VMX_MISC_CR3_TARGETS(misc) ((misc) >> 16 & 0x1ff)

#define EPT_CAP_EXECUTE_ONLY BIT(0)
#define EPT_CAP_WALK_4 BIT(6)
#define EPT_CAP_WB BIT(14)
#define EPT_CAP_2M BIT(16)
#define EPT_CAP_1G BIT(17)
#define EPT_CAP_INVEPT BIT(20)
#define EPT_CAP_AD BIT(21)
#define EPT_CAP_INVEPT_SINGLE BIT(25)
#define EPT_CAP_INVEPT_ALL BIT(26)
#define VPID_CAP_INVVPID BIT(32)
#define VPID_CAP_SINGLE BIT(41)
#define VPID_CAP_ALL BIT(42)

#define EPTP_WB 6u
#define EPTP_WALK_4 (3u << 3)
#define EPTP_AD BIT(6)

enum invalidation { INVALIDATE_ADDRESS, INVALIDATE_SINGLE, INVALIDATE_ALL };

/* ---- controls ---- */

#define PIN_INTERRUPT BIT(0)
#define PIN_NMI BIT(3)
#define PIN_VIRTUAL_NMI BIT(5)
#define PIN_PREEMPTION_TIMER BIT(6)
#define PIN_POSTED BIT(7)

#define PROC_INTERRUPT_WINDOW BIT(2)
#define PROC_TSC_OFFSET BIT(3)
#define PROC_HLT BIT(7)
#define PROC_INVLPG BIT(9)
#define PROC_MWAIT BIT(10)
#define PROC_RDPMC BIT(11)
#define PROC_RDTSC BIT(12)
#define PROC_CR3_LOAD BIT(15)
#define PROC_CR3_STORE BIT(16)
#define PROC_CR8_LOAD BIT(19)
#define PROC_CR8_STORE BIT(20)
#define PROC_TPR_SHADOW BIT(21)
#define PROC_NMI_WINDOW BIT(22)
#define PROC_MOV_DR BIT(23)
#define PROC_IO BIT(24)
#define PROC_IO_BITMAPS BIT(25)
#define PROC_MONITOR_TRAP BIT(27)
#define PROC_MSR_BITMAPS BIT(28)
#define PROC_MONITOR BIT(29)
#define PROC_PAUSE BIT(30)
#define PROC_SECONDARY BIT(31)

#define PROC2_APIC_ACCESS BIT(0)
#define PROC2_EPT BIT(1)
#define PROC2_DESCRIPTOR_TABLE BIT(2)
#define PROC2_RDTSCP BIT(3)
#define PROC2_X2APIC BIT(4)
#define PROC2_VPID BIT(5)
#define PROC2_WBINVD BIT(6)
#define PROC2_UNRESTRICTED BIT(7)
#define PROC2_APIC_REGISTERS BIT(8)
#define PROC2_INTERRUPT_DELIVERY BIT(9)
#define PROC2_PAUSE_LOOP BIT(10)
#define PROC2_RDRAND BIT(11)
#define PROC2_INVPCID BIT(12)
#define PROC2_VMFUNC BIT(13)
#define PROC2_SHADOWING BIT(14)
#define PROC2_ENCLS BIT(15)
#define PROC2_RDSEED BIT(16)
#define PROC2_PML BIT(17)
#define PROC2_VE BIT(18)
#define PROC2_XSAVES BIT(20)
#define PROC2_MODE_EXECUTE BIT(22)
#define PROC2_TSC_SCALING BIT(25)
#define PROC2_WAITPKG BIT(26)

#define EXIT_SAVE_DEBUG BIT(2)
#define EXIT_HOST_64 BIT(9)
#define EXIT_LOAD_PERF BIT(12)
#define EXIT_ACKNOWLEDGE BIT(15)
#define EXIT_SAVE_PAT BIT(18)
#define EXIT_LOAD_PAT BIT(19)
#define EXIT_SAVE_EFER BIT(20)
#define EXIT_LOAD_EFER BIT(21)
#define EXIT_SAVE_TIMER BIT(22)

#define ENTRY_LOAD_DEBUG BIT(2)
#define ENTRY_LONG_MODE BIT(9)
#define ENTRY_SMM BIT(10)
#define ENTRY_DUAL_MONITOR BIT(11)
#define ENTRY_LOAD_PERF BIT(13)
#define ENTRY_LOAD_PAT BIT(14)
#define ENTRY_LOAD_EFER BIT(15)

/* ---- events ---- */

#define EVENT_VALID BIT(31)
#define EVENT_HAS_ERROR BIT(11)
#define EVENT_NMI_UNBLOCKED BIT(12) /* at exits: IRET had unblocked NMIs */
#define EVENT_TYPE(event) ((event) >> 8 & 7)
enum event_type {
	TYPE_EXTERNAL = 0, TYPE_NMI = 2, TYPE_EXCEPTION = 3, TYPE_SOFTWARE = 4, TYPE_PRIVILEGED_SOFTWARE = 5, TYPE_SOFTWARE_EXCEPTION = 6, TYPE_OTHER = 7,
};

#define INTERRUPTIBILITY_STI BIT(0)
#define INTERRUPTIBILITY_MOV_SS BIT(1)
#define INTERRUPTIBILITY_SMI BIT(2)
#define INTERRUPTIBILITY_NMI BIT(3)

enum guest_activity { GUEST_ACTIVE, GUEST_HLT, GUEST_SHUTDOWN, GUEST_WAIT_SIPI };

#define PENDING_DEBUG_ENABLED BIT(12)
#define PENDING_DEBUG_BS BIT(14)
#define PENDING_DEBUG_RTM BIT(16)

/* ---- exit reasons ---- */

#define EXIT_REASON_FAILED_ENTRY BIT(31)
#define EXIT_REASON_BASIC(reason) ((reason) & 0xffff)

/* clang-format off */
#define VMX_EXITS(X) \
	X(EXCEPTION, 0, "exception or NMI") \
	X(INTERRUPT, 1, "external interrupt") \
	X(TRIPLE_FAULT, 2, "triple fault") \
	X(INIT, 3, "INIT signal") \
	X(SIPI, 4, "start-up IPI") \
	X(IO_SMI, 5, "I/O SMI") \
	X(OTHER_SMI, 6, "other SMI") \
	X(INTERRUPT_WINDOW, 7, "interrupt window") \
	X(NMI_WINDOW, 8, "NMI window") \
	X(TASK_SWITCH, 9, "task switch") \
	X(CPUID, 10, "CPUID") \
	X(GETSEC, 11, "GETSEC") \
	X(HLT, 12, "HLT") \
	X(INVD, 13, "INVD") \
	X(INVLPG, 14, "INVLPG") \
	X(RDPMC, 15, "RDPMC") \
	X(RDTSC, 16, "RDTSC") \
	X(RSM, 17, "RSM") \
	X(VMCALL, 18, "VMCALL") \
	X(VMCLEAR, 19, "VMCLEAR") \
	X(VMLAUNCH, 20, "VMLAUNCH") \
	X(VMPTRLD, 21, "VMPTRLD") \
	X(VMPTRST, 22, "VMPTRST") \
	X(VMREAD, 23, "VMREAD") \
	X(VMRESUME, 24, "VMRESUME") \
	X(VMWRITE, 25, "VMWRITE") \
	X(VMXOFF, 26, "VMXOFF") \
	X(VMXON, 27, "VMXON") \
	X(CR_ACCESS, 28, "control-register access") \
	X(MOV_DR, 29, "MOV DR") \
	X(IO, 30, "I/O instruction") \
	X(RDMSR, 31, "RDMSR") \
	X(WRMSR, 32, "WRMSR") \
	X(GUEST_STATE, 33, "VM-entry failure: guest state") \
	X(MSR_LOADING, 34, "VM-entry failure: MSR loading") \
	X(MWAIT, 36, "MWAIT") \
	X(MONITOR_TRAP, 37, "monitor trap flag") \
	X(MONITOR, 39, "MONITOR") \
	X(PAUSE, 40, "PAUSE") \
	X(MACHINE_CHECK, 41, "VM-entry failure: machine check") \
	X(TPR_THRESHOLD, 43, "TPR below threshold") \
	X(APIC_ACCESS, 44, "APIC access") \
	X(EOI, 45, "virtualized EOI") \
	X(GDTR_IDTR, 46, "access to GDTR or IDTR") \
	X(LDTR_TR, 47, "access to LDTR or TR") \
	X(EPT_VIOLATION, 48, "EPT violation") \
	X(EPT_MISCONFIGURATION, 49, "EPT misconfiguration") \
	X(INVEPT, 50, "INVEPT") \
	X(RDTSCP, 51, "RDTSCP") \
	X(PREEMPTION_TIMER, 52, "VMX-preemption timer") \
	X(INVVPID, 53, "INVVPID") \
	X(WBINVD, 54, "WBINVD or WBNOINVD") \
	X(XSETBV, 55, "XSETBV") \
	X(APIC_WRITE, 56, "APIC write") \
	X(RDRAND, 57, "RDRAND") \
	X(INVPCID, 58, "INVPCID") \
	X(VMFUNC, 59, "VMFUNC") \
	X(ENCLS, 60, "ENCLS") \
	X(RDSEED, 61, "RDSEED") \
	X(PML_FULL, 62, "page-modification log full") \
	X(XSAVES, 63, "XSAVES") \
	X(XRSTORS, 64, "XRSTORS") \
	X(PCONFIG, 65, "PCONFIG") \
	X(SPP, 66, "sub-page permission event") \
	X(UMWAIT, 67, "UMWAIT") \
	X(TPAUSE, 68, "TPAUSE") \
	X(LOADIWKEY, 69, "LOADIWKEY") \
	X(ENCLV, 70, "ENCLV") \
	X(ENQCMD_PASID, 72, "ENQCMD PASID translation failure") \
	X(ENQCMDS_PASID, 73, "ENQCMDS PASID translation failure") \
	X(BUS_LOCK, 74, "bus lock") \
	X(NOTIFY_WINDOW, 75, "instruction timeout") \
	X(SEAMCALL, 76, "SEAMCALL") \
	X(TDCALL, 77, "TDCALL")

#define VMX_ERRORS(X) \
	X(1, "VMCALL executed in VMX root operation") \
	X(2, "VMCLEAR with invalid physical address") \
	X(3, "VMCLEAR with VMXON pointer") \
	X(4, "VMLAUNCH with non-clear VMCS") \
	X(5, "VMRESUME with non-launched VMCS") \
	X(6, "VMRESUME after VMXOFF") \
	X(7, "VM entry with invalid control fields") \
	X(8, "VM entry with invalid host-state fields") \
	X(9, "VMPTRLD with invalid physical address") \
	X(10, "VMPTRLD with VMXON pointer") \
	X(11, "VMPTRLD with incorrect VMCS revision identifier") \
	X(12, "VMREAD or VMWRITE from or to unsupported VMCS component") \
	X(13, "VMWRITE to read-only VMCS component") \
	X(15, "VMXON executed in VMX root operation") \
	X(16, "VM entry with invalid executive-VMCS pointer") \
	X(17, "VM entry with non-launched executive VMCS") \
	X(18, "VM entry with executive-VMCS pointer not VMXON pointer") \
	X(19, "VMCALL with non-clear VMCS") \
	X(20, "VMCALL with invalid VM-exit control fields") \
	X(22, "VMCALL with incorrect MSEG revision identifier") \
	X(23, "VMXOFF under dual-monitor treatment of SMIs and SMM") \
	X(24, "VMCALL with invalid SMM-monitor features") \
	X(25, "VM entry with invalid VM-execution control fields in executive VMCS") \
	X(26, "VM entry with events blocked by MOV SS") \
	X(28, "invalid operand to INVEPT or INVVPID")
/* clang-format on */

enum vmx_exit {
#define X(name, number, text) VMX_##name = number,
	VMX_EXITS(X)
#undef X
	VMX_EXIT_COUNT = 78
};

#endif
