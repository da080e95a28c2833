/* What every instruction is to a virtual CPU: the one table of classes, shared by all software engines.
 *
 * Popek and Goldberg: an innocuous instruction may run on the real CPU; a sensitive one reads or changes what
 * virtualization must keep to itself and is answered in C; a control transfer only changes RIP and is done by the
 * engine. The gate says which CPUID feature shows an instruction: outside the guest's policy it is #UD. */
#ifndef NADIR_ENGINE_INSN_CLASSIFY_H
#define NADIR_ENGINE_INSN_CLASSIFY_H

#include <Zydis/Zydis.h>

#include "cpu/cpuid.h"

enum insn_class {
	INSN_CLASS_REFUSED,   /* #UD on every virtual CPU */
	INSN_CLASS_INNOCUOUS, /* runs natively, memory operands rebased */
	INSN_CLASS_MOVE,      /* innocuous, but so frequent or so simple that C does it */
	INSN_CLASS_CONTROL,   /* changes RIP */
	INSN_CLASS_SENSITIVE, /* answered in C: privilege, segments, state of the virtual machine */
	INSN_CLASS_LEGACY,    /* innocuous, but has no 64-bit form or an implied memory operand: C semantics */
};

/* Each kind has one handler in an engine. */
/* clang-format off */
#define INSN_KINDS(X) \
	X(REFUSED, REFUSED) X(NATIVE, INNOCUOUS) X(X87_ENV, INNOCUOUS) X(FWAIT, INNOCUOUS) X(BIT, INNOCUOUS) \
	X(MASKED, INNOCUOUS) X(VMASKMOV, INNOCUOUS) X(GATHER, INNOCUOUS) X(SCATTER, INNOCUOUS) X(MASKMOV, LEGACY) X(VZERO, INNOCUOUS) \
	X(MOVDIR64B, LEGACY) X(CLZERO, LEGACY) \
	X(LEA, MOVE) X(MOV, MOVE) X(MOVZX, MOVE) X(MOVSX, MOVE) X(NOP, MOVE) \
	X(PUSH, MOVE) X(POP, MOVE) X(ENTER, MOVE) X(LEAVE, MOVE) X(XLAT, MOVE) X(LAHF, MOVE) X(SAHF, MOVE) \
	X(CLC, MOVE) X(STC, MOVE) X(CMC, MOVE) X(CLD, MOVE) X(STD, MOVE) \
	X(CALL, CONTROL) X(RET, CONTROL) X(JMP, CONTROL) X(JCC, CONTROL) X(JCXZ, CONTROL) X(LOOP, CONTROL) \
	X(INT, SENSITIVE) X(INT3, SENSITIVE) X(INT1, SENSITIVE) X(INTO, SENSITIVE) X(IRET, SENSITIVE) \
	X(SYSCALL, SENSITIVE) X(SYSRET, SENSITIVE) X(SYSENTER, SENSITIVE) X(SYSEXIT, SENSITIVE) \
	X(PUSHF, SENSITIVE) X(POPF, SENSITIVE) X(CLI, SENSITIVE) X(STI, SENSITIVE) X(CLAC, SENSITIVE) X(STAC, SENSITIVE) \
	X(STRING_MOVS, LEGACY) X(STRING_STOS, LEGACY) X(STRING_LODS, LEGACY) X(STRING_CMPS, LEGACY) \
	X(STRING_SCAS, LEGACY) X(STRING_INS, SENSITIVE) X(STRING_OUTS, SENSITIVE) X(IN, SENSITIVE) X(OUT, SENSITIVE) \
	X(AAA, LEGACY) X(AAS, LEGACY) X(AAD, LEGACY) X(AAM, LEGACY) X(DAA, LEGACY) X(DAS, LEGACY) X(SALC, LEGACY) \
	X(BOUND, LEGACY) X(ARPL, LEGACY) X(PUSHA, LEGACY) X(POPA, LEGACY) X(LOAD_FAR, SENSITIVE) \
	X(CLFLUSH, MOVE) X(HLT, SENSITIVE) X(PAUSE, SENSITIVE) X(CPUID, SENSITIVE) X(RDTSC, SENSITIVE) \
	X(RDTSCP, SENSITIVE) X(RDPMC, SENSITIVE) X(RDPID, SENSITIVE) X(RDMSR, SENSITIVE) X(WRMSR, SENSITIVE) \
	X(XGETBV, SENSITIVE) X(XSETBV, SENSITIVE) X(LGDT, SENSITIVE) X(LIDT, SENSITIVE) X(SGDT, SENSITIVE) \
	X(SIDT, SENSITIVE) X(LLDT, SENSITIVE) X(SLDT, SENSITIVE) X(LTR, SENSITIVE) X(STR, SENSITIVE) X(LMSW, SENSITIVE) \
	X(SMSW, SENSITIVE) X(LAR, SENSITIVE) X(LSL, SENSITIVE) X(VERR, SENSITIVE) X(VERW, SENSITIVE) X(CLTS, SENSITIVE) \
	X(INVLPG, SENSITIVE) X(INVPCID, SENSITIVE) X(WBINVD, SENSITIVE) X(SWAPGS, SENSITIVE) X(RDSEGBASE, SENSITIVE) \
	X(WRSEGBASE, SENSITIVE) X(HYPERCALL, SENSITIVE) X(XSAVE, SENSITIVE) X(XRSTOR, SENSITIVE) X(FXSAVE, SENSITIVE) \
	X(FXRSTOR, SENSITIVE) X(LDMXCSR, SENSITIVE) X(STMXCSR, SENSITIVE) X(MOV_SYSTEM, SENSITIVE) \
	X(MOV_SEGMENT, SENSITIVE)
/* clang-format on */

enum insn_kind {
#define X(kind, class) KIND_##kind,
	INSN_KINDS(X)
#undef X
		KIND_COUNT
};

/* The kind of a mnemonic. MOVSD and CMPSD, which name a string and an SSE instruction, and MOV, which has privileged
 * forms, are refined by insn_decode. */
enum insn_kind insn_kind_of(ZydisMnemonic mnemonic);
/* Whether a list names the mnemonic at all (for the test of completeness). */
bool insn_kind_listed(ZydisMnemonic mnemonic);
enum insn_class insn_class_of(enum insn_kind kind);
const char *insn_kind_name(enum insn_kind kind);

/* Whether the guest's CPUID policy shows instructions of this set. */
bool insn_set_allowed(const struct cpuid_policy *policy, ZydisISASet set);

#endif
