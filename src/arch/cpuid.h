/* CPU features: where CPUID shows them, and the names users know them by.
 * Intel SDM volume 2, CPUID; AMD APM volume 3, "CPUID". One row a feature: X(NAME, "name", leaf, subleaf, register, bit). */
#ifndef NADIR_ARCH_CPUID_H
#define NADIR_ARCH_CPUID_H

#include "arch/types.h"

enum cpuid_register { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX };

/* clang-format off */
#define CPU_FEATURES(X) \
	X(FPU, "fpu", 1, 0, CPUID_EDX, 0) \
	X(VME, "vme", 1, 0, CPUID_EDX, 1) \
	X(DE, "de", 1, 0, CPUID_EDX, 2) \
	X(PSE, "pse", 1, 0, CPUID_EDX, 3) \
	X(TSC, "tsc", 1, 0, CPUID_EDX, 4) \
	X(MSR, "msr", 1, 0, CPUID_EDX, 5) \
	X(PAE, "pae", 1, 0, CPUID_EDX, 6) \
	X(MCE, "mce", 1, 0, CPUID_EDX, 7) \
	X(CX8, "cx8", 1, 0, CPUID_EDX, 8) \
	X(APIC, "apic", 1, 0, CPUID_EDX, 9) \
	X(SEP, "sep", 1, 0, CPUID_EDX, 11) \
	X(MTRR, "mtrr", 1, 0, CPUID_EDX, 12) \
	X(PGE, "pge", 1, 0, CPUID_EDX, 13) \
	X(MCA, "mca", 1, 0, CPUID_EDX, 14) \
	X(CMOV, "cmov", 1, 0, CPUID_EDX, 15) \
	X(PAT, "pat", 1, 0, CPUID_EDX, 16) \
	X(PSE36, "pse36", 1, 0, CPUID_EDX, 17) \
	X(CLFLUSH, "clflush", 1, 0, CPUID_EDX, 19) \
	X(MMX, "mmx", 1, 0, CPUID_EDX, 23) \
	X(FXSR, "fxsr", 1, 0, CPUID_EDX, 24) \
	X(SSE, "sse", 1, 0, CPUID_EDX, 25) \
	X(SSE2, "sse2", 1, 0, CPUID_EDX, 26) \
	X(SS, "ss", 1, 0, CPUID_EDX, 27) \
	X(HT, "ht", 1, 0, CPUID_EDX, 28) \
	X(SSE3, "sse3", 1, 0, CPUID_ECX, 0) \
	X(PCLMULQDQ, "pclmulqdq", 1, 0, CPUID_ECX, 1) \
	X(MONITOR, "monitor", 1, 0, CPUID_ECX, 3) \
	X(VMX, "vmx", 1, 0, CPUID_ECX, 5) \
	X(SSSE3, "ssse3", 1, 0, CPUID_ECX, 9) \
	X(FMA, "fma", 1, 0, CPUID_ECX, 12) \
	X(CX16, "cx16", 1, 0, CPUID_ECX, 13) \
	X(PCID, "pcid", 1, 0, CPUID_ECX, 17) \
	X(SSE4_1, "sse4.1", 1, 0, CPUID_ECX, 19) \
	X(SSE4_2, "sse4.2", 1, 0, CPUID_ECX, 20) \
	X(X2APIC, "x2apic", 1, 0, CPUID_ECX, 21) \
	X(MOVBE, "movbe", 1, 0, CPUID_ECX, 22) \
	X(POPCNT, "popcnt", 1, 0, CPUID_ECX, 23) \
	X(TSC_DEADLINE, "tsc-deadline", 1, 0, CPUID_ECX, 24) \
	X(AES, "aes", 1, 0, CPUID_ECX, 25) \
	X(XSAVE, "xsave", 1, 0, CPUID_ECX, 26) \
	X(OSXSAVE, "osxsave", 1, 0, CPUID_ECX, 27) \
	X(AVX, "avx", 1, 0, CPUID_ECX, 28) \
	X(F16C, "f16c", 1, 0, CPUID_ECX, 29) \
	X(RDRAND, "rdrand", 1, 0, CPUID_ECX, 30) \
	X(HYPERVISOR, "hypervisor", 1, 0, CPUID_ECX, 31) \
	X(ARAT, "arat", 6, 0, CPUID_EAX, 2) \
	X(FSGSBASE, "fsgsbase", 7, 0, CPUID_EBX, 0) \
	X(TSC_ADJUST, "tsc-adjust", 7, 0, CPUID_EBX, 1) \
	X(SGX, "sgx", 7, 0, CPUID_EBX, 2) \
	X(BMI1, "bmi1", 7, 0, CPUID_EBX, 3) \
	X(HLE, "hle", 7, 0, CPUID_EBX, 4) \
	X(AVX2, "avx2", 7, 0, CPUID_EBX, 5) \
	X(SMEP, "smep", 7, 0, CPUID_EBX, 7) \
	X(BMI2, "bmi2", 7, 0, CPUID_EBX, 8) \
	X(ERMS, "erms", 7, 0, CPUID_EBX, 9) \
	X(INVPCID, "invpcid", 7, 0, CPUID_EBX, 10) \
	X(RTM, "rtm", 7, 0, CPUID_EBX, 11) \
	X(ZERO_FCS_FDS, "zero-fcs-fds", 7, 0, CPUID_EBX, 13) \
	X(MPX, "mpx", 7, 0, CPUID_EBX, 14) \
	X(AVX512F, "avx512f", 7, 0, CPUID_EBX, 16) \
	X(AVX512DQ, "avx512dq", 7, 0, CPUID_EBX, 17) \
	X(RDSEED, "rdseed", 7, 0, CPUID_EBX, 18) \
	X(ADX, "adx", 7, 0, CPUID_EBX, 19) \
	X(SMAP, "smap", 7, 0, CPUID_EBX, 20) \
	X(AVX512IFMA, "avx512ifma", 7, 0, CPUID_EBX, 21) \
	X(CLFLUSHOPT, "clflushopt", 7, 0, CPUID_EBX, 23) \
	X(CLWB, "clwb", 7, 0, CPUID_EBX, 24) \
	X(AVX512CD, "avx512cd", 7, 0, CPUID_EBX, 28) \
	X(SHA, "sha-ni", 7, 0, CPUID_EBX, 29) \
	X(AVX512BW, "avx512bw", 7, 0, CPUID_EBX, 30) \
	X(AVX512VL, "avx512vl", 7, 0, CPUID_EBX, 31) \
	X(AVX512VBMI, "avx512vbmi", 7, 0, CPUID_ECX, 1) \
	X(UMIP, "umip", 7, 0, CPUID_ECX, 2) \
	X(PKU, "pku", 7, 0, CPUID_ECX, 3) \
	X(WAITPKG, "waitpkg", 7, 0, CPUID_ECX, 5) \
	X(AVX512VBMI2, "avx512vbmi2", 7, 0, CPUID_ECX, 6) \
	X(CET_SS, "shstk", 7, 0, CPUID_ECX, 7) \
	X(GFNI, "gfni", 7, 0, CPUID_ECX, 8) \
	X(VAES, "vaes", 7, 0, CPUID_ECX, 9) \
	X(VPCLMULQDQ, "vpclmulqdq", 7, 0, CPUID_ECX, 10) \
	X(AVX512VNNI, "avx512vnni", 7, 0, CPUID_ECX, 11) \
	X(AVX512BITALG, "avx512bitalg", 7, 0, CPUID_ECX, 12) \
	X(AVX512VPOPCNTDQ, "avx512vpopcntdq", 7, 0, CPUID_ECX, 14) \
	X(LA57, "la57", 7, 0, CPUID_ECX, 16) \
	X(RDPID, "rdpid", 7, 0, CPUID_ECX, 22) \
	X(CLDEMOTE, "cldemote", 7, 0, CPUID_ECX, 25) \
	X(MOVDIRI, "movdiri", 7, 0, CPUID_ECX, 27) \
	X(MOVDIR64B, "movdir64b", 7, 0, CPUID_ECX, 28) \
	X(FSRM, "fsrm", 7, 0, CPUID_EDX, 4) \
	X(AVX512VP2INTERSECT, "avx512vp2intersect", 7, 0, CPUID_EDX, 8) \
	X(MD_CLEAR, "md-clear", 7, 0, CPUID_EDX, 10) \
	X(SERIALIZE, "serialize", 7, 0, CPUID_EDX, 14) \
	X(CET_IBT, "ibt", 7, 0, CPUID_EDX, 20) \
	X(AVX512FP16, "avx512fp16", 7, 0, CPUID_EDX, 23) \
	X(SPEC_CTRL, "spec-ctrl", 7, 0, CPUID_EDX, 26) \
	X(STIBP, "stibp", 7, 0, CPUID_EDX, 27) \
	X(ARCH_CAPABILITIES, "arch-capabilities", 7, 0, CPUID_EDX, 29) \
	X(SSBD, "ssbd", 7, 0, CPUID_EDX, 31) \
	X(AVX_VNNI, "avx-vnni", 7, 1, CPUID_EAX, 4) \
	X(AVX512BF16, "avx512-bf16", 7, 1, CPUID_EAX, 5) \
	X(FZRM, "fzrm", 7, 1, CPUID_EAX, 10) \
	X(FSRS, "fsrs", 7, 1, CPUID_EAX, 11) \
	X(FSRC, "fsrc", 7, 1, CPUID_EAX, 12) \
	X(AVX_IFMA, "avx-ifma", 7, 1, CPUID_EAX, 23) \
	X(XSAVEOPT, "xsaveopt", 0xd, 1, CPUID_EAX, 0) \
	X(XSAVEC, "xsavec", 0xd, 1, CPUID_EAX, 1) \
	X(XGETBV1, "xgetbv1", 0xd, 1, CPUID_EAX, 2) \
	X(XSAVES, "xsaves", 0xd, 1, CPUID_EAX, 3) \
	X(KVM_NOPIODELAY, "kvm-nopiodelay", 0x40000001, 0, CPUID_EAX, 1) \
	X(KVM_CLOCK, "kvmclock", 0x40000001, 0, CPUID_EAX, 3) \
	X(KVM_STEAL_TIME, "kvm-steal-time", 0x40000001, 0, CPUID_EAX, 5) \
	X(KVM_PV_EOI, "kvm-pv-eoi", 0x40000001, 0, CPUID_EAX, 6) \
	X(KVM_PV_UNHALT, "kvm-pv-unhalt", 0x40000001, 0, CPUID_EAX, 7) \
	X(KVM_PV_TLB_FLUSH, "kvm-pv-tlb-flush", 0x40000001, 0, CPUID_EAX, 9) \
	X(KVM_PV_IPI, "kvm-pv-ipi", 0x40000001, 0, CPUID_EAX, 11) \
	X(KVM_PV_SCHED_YIELD, "kvm-pv-sched-yield", 0x40000001, 0, CPUID_EAX, 13) \
	X(KVM_CLOCK_STABLE, "kvmclock-stable-bit", 0x40000001, 0, CPUID_EAX, 24) \
	X(SYSCALL, "syscall", 0x80000001, 0, CPUID_EDX, 11) \
	X(NX, "nx", 0x80000001, 0, CPUID_EDX, 20) \
	X(MMXEXT, "mmxext", 0x80000001, 0, CPUID_EDX, 22) \
	X(FFXSR, "fxsr-opt", 0x80000001, 0, CPUID_EDX, 25) \
	X(PDPE1GB, "pdpe1gb", 0x80000001, 0, CPUID_EDX, 26) \
	X(RDTSCP, "rdtscp", 0x80000001, 0, CPUID_EDX, 27) \
	X(LM, "lm", 0x80000001, 0, CPUID_EDX, 29) \
	X(AMD_3DNOWEXT, "3dnowext", 0x80000001, 0, CPUID_EDX, 30) \
	X(AMD_3DNOW, "3dnow", 0x80000001, 0, CPUID_EDX, 31) \
	X(LAHF_LM, "lahf-lm", 0x80000001, 0, CPUID_ECX, 0) \
	X(CMP_LEGACY, "cmp-legacy", 0x80000001, 0, CPUID_ECX, 1) \
	X(SVM, "svm", 0x80000001, 0, CPUID_ECX, 2) \
	X(CR8_LEGACY, "cr8-legacy", 0x80000001, 0, CPUID_ECX, 4) \
	X(LZCNT, "lzcnt", 0x80000001, 0, CPUID_ECX, 5) \
	X(SSE4A, "sse4a", 0x80000001, 0, CPUID_ECX, 6) \
	X(MISALIGNSSE, "misalignsse", 0x80000001, 0, CPUID_ECX, 7) \
	X(PREFETCHW, "prefetchw", 0x80000001, 0, CPUID_ECX, 8) \
	X(OSVW, "osvw", 0x80000001, 0, CPUID_ECX, 9) \
	X(XOP, "xop", 0x80000001, 0, CPUID_ECX, 11) \
	X(FMA4, "fma4", 0x80000001, 0, CPUID_ECX, 16) \
	X(TBM, "tbm", 0x80000001, 0, CPUID_ECX, 21) \
	X(TOPOEXT, "topoext", 0x80000001, 0, CPUID_ECX, 22) \
	X(INVARIANT_TSC, "invtsc", 0x80000007, 0, CPUID_EDX, 8) \
	X(CLZERO, "clzero", 0x80000008, 0, CPUID_EBX, 0) \
	X(XSAVEERPTR, "xsaveerptr", 0x80000008, 0, CPUID_EBX, 2) \
	X(WBNOINVD, "wbnoinvd", 0x80000008, 0, CPUID_EBX, 9) \
	X(AMD_SSB_NO, "amd-ssb-no", 0x80000008, 0, CPUID_EBX, 26) \
	X(BTC_NO, "btc-no", 0x80000008, 0, CPUID_EBX, 29) \
	X(LFENCE_RDTSC, "lfence-always-serializing", 0x80000021, 0, CPUID_EAX, 2) \
	X(NULL_SEL_CLR_BASE, "null-sel-clr-base", 0x80000021, 0, CPUID_EAX, 6) \
	X(SRSO_NO, "srso-no", 0x80000021, 0, CPUID_EAX, 29) \
	X(TSA_SQ_NO, "tsa-sq-no", 0x80000021, 0, CPUID_ECX, 1) \
	X(TSA_L1_NO, "tsa-l1-no", 0x80000021, 0, CPUID_ECX, 2)
/* clang-format on */

enum cpu_feature {
#define X(name, text, leaf, subleaf, reg, bit) FEATURE_##name,
	CPU_FEATURES(X)
#undef X
	FEATURE_COUNT
};

#endif
