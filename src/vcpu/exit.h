/* What made a vCPU leave its guest code: the abstract exit every engine speaks, whether hardware exited or software
 * called out. An engine never touches a device: it describes what the guest did and leaves the answer to the VM.
 *
 * Two ways out:
 *  - Exits that end `run`: HLT, INTERRUPTED, SHUTDOWN, DEBUG, ERROR, PAUSE. The engine returns them.
 *  - Exits in the middle of an instruction that need an answer (IO, MMIO, CPUID, RDMSR, WRMSR, HYPERCALL, TPR...). Software
 *    engines call vcpu->ops->exit(); the answer is in the struct when it returns, so no instruction is ever restarted.
 *    Hardware engines return them from `run` and take the answer from the struct at the next entry. The same dispatcher
 *    (vm/dispatch.c) sees both.
 */
#ifndef NADIR_VCPU_EXIT_H
#define NADIR_VCPU_EXIT_H

#include "arch/types.h"

#define EXIT_REASONS(X)                                                                        \
	X(NONE, "none")                                                                        \
	X(INTERRUPTED, "kicked")                                                               \
	X(INTERRUPT, "external interrupt")                                                     \
	X(NMI, "NMI")                                                                          \
	X(EXCEPTION, "exception")                                                              \
	X(IO, "port I/O")                                                                      \
	X(MMIO, "MMIO")                                                                        \
	X(CPUID, "CPUID")                                                                      \
	X(RDMSR, "RDMSR")                                                                      \
	X(WRMSR, "WRMSR")                                                                      \
	X(CR_READ, "control-register read")                                                    \
	X(CR_WRITE, "control-register write")                                                  \
	X(DR_ACCESS, "debug-register access")                                                  \
	X(INVLPG, "INVLPG")                                                                    \
	X(HLT, "HLT")                                                                          \
	X(PAUSE, "PAUSE")                                                                      \
	X(HYPERCALL, "hypercall")                                                              \
	X(TASK_SWITCH, "task switch")                                                          \
	X(DESCRIPTOR_TABLE, "descriptor-table access")                                         \
	X(APIC_WRITE, "APIC write")                                                            \
	X(EOI, "end of interrupt")                                                             \
	X(WBINVD, "cache flush")                                                               \
	X(XSETBV, "XSETBV")                                                                    \
	X(DEBUG, "debug")                                                                      \
	X(SHUTDOWN, "shutdown (triple fault)")                                                 \
	X(ERROR, "engine error")

enum exit_reason {
#define X(name, text) EXIT_##name,
	EXIT_REASONS(X)
#undef X
	EXIT_REASON_COUNT
};

struct exit {
	enum exit_reason reason;
	union {
		struct {
			u16 port;
			u8 size; /* 1, 2 or 4 bytes */
			bool write;
			u32 value; /* in: written; out: read */
		} io;
		struct {
			gpa_t gpa;
			u8 size; /* 1, 2, 4 or 8 bytes, naturally aligned or not, never across a page */
			bool write;
			u64 value;
		} mmio;
		struct {
			u32 leaf, subleaf;
			u32 eax, ebx, ecx, edx; /* out */
		} cpuid;
		struct {
			u32 index;
			u64 value;
			bool fault; /* out: #GP(0) */
		} msr;
		struct {
			u8 number; /* 0, 2, 3, 4, 8 */
			u64 value; /* CR8 only: the task priority read or written; others are counted, not answered */
		} cr;
		struct {
			u64 number;
			u64 args[4];
			u64 result; /* out */
		} hypercall;
		struct {
			u16 offset; /* APIC_WRITE: the processor has stored to this register of the local APIC's page (irq/lapic.h) */
			u8 vector; /* EOI: of which the processor has taken the end */
		} apic;
		struct {
			u8 vector;
		} event;
		struct {
			bool step; /* an instruction was executed, as wanted */
			u8 kind; /* else: enum debug_kind and address of the point */
			gla_t gla;
		} debug;
		struct {
			const char *what; /* static text */
			bool own; /* a mistake of this program, whatever the guest did */
		} error;
	};
};

const char *exit_reason_name(enum exit_reason reason);

#endif
