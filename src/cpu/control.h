/* Rules of the control, debug and extended-control registers: what a MOV to them may set, and what else it changes.
 * Intel SDM volume 3, "Control Registers", "Initializing IA-32e Mode", "Debug Registers"; volume 2, MOV, LMSW, CLTS,
 * XSETBV. The callers have not checked CPL: these functions check everything. */
#ifndef NADIR_CPU_CONTROL_H
#define NADIR_CPU_CONTROL_H

#include "vcpu/vcpu.h"

bool control_read_cr(struct vcpu *vcpu, unsigned number, u64 *value);
/* CR0, CR2, CR3, CR4, CR8. Flushes the TLB, reloads PDPTEs, enters and leaves long mode. */
bool control_write_cr(struct vcpu *vcpu, unsigned number, u64 value);
bool control_lmsw(struct vcpu *vcpu, u16 value);
bool control_clts(struct vcpu *vcpu);
bool control_smsw(struct vcpu *vcpu, u64 *value); /* UMIP */
/* From WRMSR, which has checked CPL. */
bool control_write_efer(struct vcpu *vcpu, u64 value);
/* A #DB of general detect (DR7.GD) comes as a fault with payload DR6_BD. */
bool control_read_dr(struct vcpu *vcpu, unsigned number, u64 *value);
bool control_write_dr(struct vcpu *vcpu, unsigned number, u64 value);
bool control_xsetbv(struct vcpu *vcpu, u32 index, u64 value);
bool control_xgetbv(struct vcpu *vcpu, u32 index, u64 *value);

/* RFLAGS as POPF, IRET and task switches may set them: which bits of `value` take effect at this CPL and IOPL, for an
 * operand of `size` bytes. Calls mmu_update_view where AC changed. Intel SDM volume 2, POPF. */
bool control_popf(struct vcpu *vcpu, u64 value, unsigned size);
bool control_pushf(struct vcpu *vcpu, unsigned size, u64 *value);
bool control_cli(struct vcpu *vcpu); /* VME and PVI too */
bool control_sti(struct vcpu *vcpu); /* sets the shadow where IF was clear */

/* May this CPL use the port? IOPL, then the TSS's I/O permission bitmap. Intel SDM volume 1, "Input/Output". */
bool control_check_io(struct vcpu *vcpu, u16 port, unsigned size);

/* Breakpoints of DR0-DR3/DR7 that an access or fetch hits, as DR6 bits (0: none). DEBUG_WRITE for a data write, DEBUG_ACCESS for a data
 * read, DEBUG_IO with the port as gla, DEBUG_EXECUTE with the instruction's address (size is ignored). */
u64 control_debug_match(const struct vcpu *vcpu, enum debug_kind kind, gla_t gla, unsigned size);
/* Must be called when DR0 to DR3 or DR7 changed: vcpu->debug follows, and whoever relies on it (vcpu/debug.h). */
void debug_update(struct vcpu *vcpu);
/* Whether there is any point, the guest's or the debugger's. */
static inline bool control_debug_armed(const struct vcpu *vcpu)
{
	return (vcpu->dr7 & 0xff) || vcpu->debug.points;
}

/* Points of a debugger (vcpu/debug.h): by memory accesses and execution only. False: no room, or no such point is possible; none like it. */
bool debug_insert(struct vcpu *vcpu, const struct debug_point *point);
bool debug_remove(struct vcpu *vcpu, const struct debug_point *point);
/* No points and no step any more, and nothing to tell of them. */
void debug_clear(struct vcpu *vcpu);
/* The next run goes past a break point at gla, as it does by itself where the last run ended at one. */
void debug_pass(struct vcpu *vcpu, gla_t gla);
/* A run ended at `hit` (vcpu->debug.hit), but nobody is going to be told: the next run ends there again. */
void debug_put_back(struct vcpu *vcpu, const struct debug_point *hit);
/* Before a run, as the debugger wants it: what was put back and is no longer wanted is forgotten. */
void debug_prepare(struct vcpu *vcpu, bool step, bool quiet);
/* An access by an instruction that will be done hits what the debugger watches: PENDING_DEBUG is set. */
void debug_watch(struct vcpu *vcpu, enum debug_kind kind, gla_t gla, unsigned size);
/* Whether an access would hit any point. */
bool debug_hits(const struct vcpu *vcpu, enum debug_kind kind, gla_t gla, unsigned size);
/* The instruction at gla is about to be executed. True: the run ends in front of it, debug.hit says why. */
bool debug_stop(struct vcpu *vcpu, gla_t gla);

/* Registers after RESET or INIT. Intel SDM volume 3, "Processor State After Reset". INIT keeps CR0.CD/NW,
 * MSRs, XCR0 and x87/XSAVE state. The vCPU is ACTIVE afterwards: waiting for SIPI is the VM's affair, as is tsc_offset.
 * Needs the CPUID policy and the mmu. */
void cpu_reset(struct vcpu *vcpu, bool init);

#endif
