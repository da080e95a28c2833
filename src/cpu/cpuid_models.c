/* Tables of the CPUID policy. The x86-64 levels are those of the psABI ("Micro-Architecture Levels"), with the
 * privileged features a kernel of that time expects; named processors follow their makers' datasheets, without what is
 * never shown. */
#include "cpu/cpuid_models.h"

#define INTEL "GenuineIntel"
#define AMD "AuthenticAMD"

#define BASELINE                                                                                                       \
	"fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 syscall "   \
	"nx lm"

/* clang-format off */
/* name, base, features, vendor, family, model, stepping: struct cpu_model says what they mean. */
#define MODELS(X) \
	X("host", NULL, NULL, NULL, 0, 0, 0) \
	X("max", NULL, NULL, NULL, 0, 0, 0) \
	X("x86-64", NULL, BASELINE, NULL, 0, 0, 0) \
	X("x86-64-v2", "x86-64", "cx16 lahf-lm popcnt sse3 ssse3 sse4.1 sse4.2 rdtscp pcid", NULL, 0, 0, 0) \
	X("x86-64-v3", "x86-64-v2", "avx avx2 bmi1 bmi2 f16c fma lzcnt movbe xsave xsaveopt smep smap umip fsgsbase invpcid " \
	  "pdpe1gb erms", NULL, 0, 0, 0) \
	X("x86-64-v4", "x86-64-v3", "avx512f avx512bw avx512cd avx512dq avx512vl xsavec xgetbv1 xsaves", NULL, 0, 0, 0) \
	X("Nehalem", "x86-64-v2", "ss", INTEL, 6, 26, 3) \
	X("Westmere", "Nehalem", "aes pclmulqdq arat pdpe1gb", INTEL, 6, 44, 1) \
	X("SandyBridge", "Westmere", "avx xsave xsaveopt", INTEL, 6, 42, 1) \
	X("IvyBridge", "SandyBridge", "f16c rdrand fsgsbase smep erms", INTEL, 6, 58, 9) \
	X("Haswell", "IvyBridge", "avx2 bmi1 bmi2 fma lzcnt movbe invpcid", INTEL, 6, 60, 4) \
	X("Broadwell", "Haswell", "adx rdseed smap prefetchw", INTEL, 6, 61, 2) \
	X("Skylake-Client", "Broadwell", "clflushopt xsavec xgetbv1 xsaves", INTEL, 6, 94, 3) \
	X("Skylake-Server", "Skylake-Client", "avx512f avx512bw avx512cd avx512dq avx512vl clwb", INTEL, 6, 85, 4) \
	X("Cascadelake-Server", "Skylake-Server", "avx512vnni", INTEL, 6, 85, 6) \
	X("Icelake-Server", "Cascadelake-Server", "avx512ifma avx512vbmi avx512vbmi2 avx512bitalg avx512vpopcntdq gfni vaes " \
	  "vpclmulqdq sha-ni umip rdpid fsrm la57 wbnoinvd", INTEL, 6, 106, 6) \
	X("Sapphirerapids", "Icelake-Server", "avx512-bf16 avx512fp16 avx-vnni fzrm fsrs fsrc serialize cldemote movdiri", \
	  INTEL, 6, 143, 4) \
	X("EPYC", "x86-64-v3", "mmxext fxsr-opt aes pclmulqdq rdrand rdseed adx sha-ni clflushopt xsavec xgetbv1 xsaves sse4a " \
	  "misalignsse prefetchw", AMD, 23, 1, 2) \
	X("EPYC-Rome", "EPYC", "clwb rdpid wbnoinvd xsaveerptr", AMD, 23, 49, 0) \
	X("EPYC-Milan", "EPYC-Rome", "erms fsrm invpcid vaes vpclmulqdq", AMD, 25, 1, 1) \
	X("EPYC-Genoa", "EPYC-Milan", "avx512f avx512bw avx512cd avx512dq avx512vl avx512ifma avx512vbmi avx512vbmi2 avx512vnni " \
	  "avx512bitalg avx512vpopcntdq avx512-bf16 gfni la57 null-sel-clr-base", AMD, 25, 17, 0) \
	X("EPYC-Turin", "EPYC-Genoa", "avx-vnni movdiri avx512vp2intersect", AMD, 26, 2, 1)

const struct cpu_model cpu_models[] = {
#define X(...) { __VA_ARGS__ },
	MODELS(X)
#undef X
};
const unsigned cpu_model_count = ARRAY_SIZE(cpu_models);

const char *const cpu_model_names[] = {
#define X(name, ...) name,
	MODELS(X)
#undef X
	NULL
};

const u8 cpu_features_own[] = {
	FEATURE_VME, FEATURE_DE, FEATURE_PSE, FEATURE_MSR, FEATURE_PAE, FEATURE_MCE, FEATURE_APIC, FEATURE_SEP, FEATURE_MTRR,
	FEATURE_PGE, FEATURE_MCA, FEATURE_PAT, FEATURE_PSE36, FEATURE_HT, FEATURE_PCID, FEATURE_X2APIC, FEATURE_TSC_DEADLINE,
	FEATURE_HYPERVISOR, FEATURE_ARAT, FEATURE_FSGSBASE, FEATURE_TSC_ADJUST, FEATURE_SMEP, FEATURE_INVPCID, FEATURE_SMAP,
	FEATURE_UMIP, FEATURE_RDPID, FEATURE_SPEC_CTRL, FEATURE_ARCH_CAPABILITIES, FEATURE_XSAVEOPT, FEATURE_XSAVEC,
	FEATURE_XGETBV1, FEATURE_XSAVES, FEATURE_SYSCALL, FEATURE_NX, FEATURE_FFXSR, FEATURE_PDPE1GB, FEATURE_RDTSCP, FEATURE_LM,
	FEATURE_ZERO_FCS_FDS, FEATURE_CMP_LEGACY, FEATURE_CR8_LEGACY, FEATURE_TOPOEXT, FEATURE_INVARIANT_TSC, FEATURE_AMD_SSB_NO, FEATURE_BTC_NO,
	FEATURE_LFENCE_RDTSC, FEATURE_NULL_SEL_CLR_BASE, FEATURE_SRSO_NO, FEATURE_TSA_SQ_NO, FEATURE_TSA_L1_NO,
	FEATURE_KVM_NOPIODELAY, FEATURE_KVM_CLOCK, FEATURE_KVM_STEAL_TIME, FEATURE_KVM_PV_EOI, FEATURE_KVM_PV_UNHALT, FEATURE_KVM_PV_TLB_FLUSH,
	FEATURE_KVM_PV_IPI, FEATURE_KVM_PV_SCHED_YIELD, FEATURE_KVM_CLOCK_STABLE,
};
const unsigned cpu_features_own_count = ARRAY_SIZE(cpu_features_own);

const u8 cpu_features_never[] = {
	FEATURE_OSXSAVE, /* a copy of CR4.OSXSAVE, not a choice */
	FEATURE_VMX, FEATURE_SVM, /* nested virtualization: row D8 */
	FEATURE_SGX, /* enclaves cannot be emulated */
	FEATURE_HLE, FEATURE_RTM, /* transactions would abort at every exit */
	FEATURE_MPX, FEATURE_PKU, FEATURE_CET_SS, FEATURE_CET_IBT, /* checks on each access or branch that no engine makes */
	FEATURE_MONITOR, FEATURE_WAITPKG, /* a guest that waits halts, and costs nothing */
	FEATURE_STIBP, FEATURE_SSBD, FEATURE_MD_CLEAR, /* belong to the host, not to a guest beside others in one process */
	FEATURE_OSVW, /* promises MSRs about errata of the real processor */
	FEATURE_CLZERO, FEATURE_MOVDIR64B, /* memory operands outside ModRM, used by nobody who does not ask CPUID */
};
const unsigned cpu_features_never_count = ARRAY_SIZE(cpu_features_never);

/* arch-capabilities, spec-ctrl and the "not affected" bits keep kernels from building in retpolines, safe returns and buffer
 * clearing. Those defend a real kernel's branch predictor; under a software engine the branches that run are not the guest's own, and
 * what separates guest from host is the engine and the host kernel. A user who wants them can take the features away. */
const u8 cpu_features_always[] = {
	FEATURE_X2APIC, FEATURE_TSC_DEADLINE, FEATURE_HYPERVISOR, FEATURE_ARAT, FEATURE_INVARIANT_TSC, FEATURE_TSC_ADJUST,
	FEATURE_TOPOEXT, FEATURE_CR8_LEGACY, FEATURE_ZERO_FCS_FDS, FEATURE_SPEC_CTRL, FEATURE_ARCH_CAPABILITIES, FEATURE_AMD_SSB_NO, FEATURE_BTC_NO,
	FEATURE_LFENCE_RDTSC, FEATURE_NULL_SEL_CLR_BASE, FEATURE_SRSO_NO, FEATURE_TSA_SQ_NO, FEATURE_TSA_L1_NO,
	FEATURE_KVM_NOPIODELAY, FEATURE_KVM_CLOCK, FEATURE_KVM_STEAL_TIME, FEATURE_KVM_PV_EOI, FEATURE_KVM_PV_UNHALT, FEATURE_KVM_PV_TLB_FLUSH,
	FEATURE_KVM_PV_IPI, FEATURE_KVM_PV_SCHED_YIELD, FEATURE_KVM_CLOCK_STABLE,
};
const unsigned cpu_features_always_count = ARRAY_SIZE(cpu_features_always);

const u8 cpu_features_amd[] = {
	FEATURE_MMXEXT, FEATURE_FFXSR, FEATURE_AMD_3DNOWEXT, FEATURE_AMD_3DNOW, FEATURE_CMP_LEGACY, FEATURE_CR8_LEGACY, FEATURE_SSE4A,
	FEATURE_MISALIGNSSE, FEATURE_XOP, FEATURE_FMA4, FEATURE_TBM, FEATURE_TOPOEXT, FEATURE_XSAVEERPTR, FEATURE_AMD_SSB_NO,
	FEATURE_BTC_NO, FEATURE_LFENCE_RDTSC, FEATURE_NULL_SEL_CLR_BASE, FEATURE_SRSO_NO, FEATURE_TSA_SQ_NO, FEATURE_TSA_L1_NO,
};
const unsigned cpu_features_amd_count = ARRAY_SIZE(cpu_features_amd);

#define NEEDS(a, b) { FEATURE_##a, FEATURE_##b }
const struct cpu_dependency cpu_dependencies[] = {
	NEEDS(FXSR, FPU), NEEDS(MMX, FPU), NEEDS(MMXEXT, MMX), NEEDS(AMD_3DNOW, MMX), NEEDS(AMD_3DNOWEXT, AMD_3DNOW),
	NEEDS(SSE, FXSR), NEEDS(SSE2, SSE), NEEDS(SSE3, SSE2), NEEDS(SSSE3, SSE3), NEEDS(SSE4_1, SSSE3), NEEDS(SSE4_2, SSE4_1),
	NEEDS(SSE4A, SSE3), NEEDS(MISALIGNSSE, SSE), NEEDS(AES, SSE2), NEEDS(PCLMULQDQ, SSE2), NEEDS(SHA, SSE2), NEEDS(GFNI, SSE2),
	NEEDS(FFXSR, FXSR), NEEDS(XSAVEERPTR, FXSR),
	NEEDS(XSAVE, FXSR), NEEDS(XSAVEOPT, XSAVE), NEEDS(XSAVEC, XSAVE), NEEDS(XGETBV1, XSAVE), NEEDS(XSAVES, XSAVEC),
	NEEDS(AVX, XSAVE), NEEDS(AVX, SSE4_2), NEEDS(AVX2, AVX), NEEDS(FMA, AVX), NEEDS(FMA4, AVX), NEEDS(XOP, AVX), NEEDS(F16C, AVX),
	NEEDS(VAES, AVX), NEEDS(VAES, AES), NEEDS(VPCLMULQDQ, AVX), NEEDS(VPCLMULQDQ, PCLMULQDQ), NEEDS(AVX_VNNI, AVX2),
	NEEDS(AVX_IFMA, AVX2), NEEDS(AVX512F, AVX2), NEEDS(AVX512F, FMA), NEEDS(AVX512F, F16C),
	NEEDS(AVX512DQ, AVX512F), NEEDS(AVX512IFMA, AVX512F), NEEDS(AVX512CD, AVX512F), NEEDS(AVX512BW, AVX512F),
	NEEDS(AVX512VL, AVX512F), NEEDS(AVX512VBMI, AVX512BW), NEEDS(AVX512VBMI2, AVX512BW), NEEDS(AVX512VNNI, AVX512F),
	NEEDS(AVX512BITALG, AVX512BW), NEEDS(AVX512VPOPCNTDQ, AVX512F), NEEDS(AVX512VP2INTERSECT, AVX512F),
	NEEDS(AVX512FP16, AVX512BW), NEEDS(AVX512FP16, AVX512VL), NEEDS(AVX512BF16, AVX512BW),
	NEEDS(LM, PAE), NEEDS(NX, PAE), NEEDS(PDPE1GB, LM), NEEDS(LA57, LM), NEEDS(PCID, LM), NEEDS(SYSCALL, LM), NEEDS(CX16, LM),
	NEEDS(LAHF_LM, LM), NEEDS(FSGSBASE, LM), NEEDS(CR8_LEGACY, LM), NEEDS(X2APIC, APIC), NEEDS(TSC_DEADLINE, APIC),
	NEEDS(ARAT, APIC), NEEDS(TSC_DEADLINE, TSC), NEEDS(INVARIANT_TSC, TSC), NEEDS(TSC_ADJUST, TSC), NEEDS(RDTSCP, TSC),
	NEEDS(MCA, MCE), NEEDS(PSE36, PSE), NEEDS(CLFLUSHOPT, CLFLUSH), NEEDS(FSRM, ERMS), NEEDS(BMI2, BMI1),
	NEEDS(KVM_NOPIODELAY, HYPERVISOR), NEEDS(KVM_CLOCK, HYPERVISOR), NEEDS(KVM_CLOCK_STABLE, KVM_CLOCK), NEEDS(KVM_STEAL_TIME, HYPERVISOR),
	NEEDS(KVM_PV_EOI, HYPERVISOR), NEEDS(KVM_PV_UNHALT, HYPERVISOR), NEEDS(KVM_PV_IPI, HYPERVISOR), NEEDS(KVM_PV_TLB_FLUSH, KVM_STEAL_TIME),
	NEEDS(KVM_PV_SCHED_YIELD, KVM_STEAL_TIME),
};
const unsigned cpu_dependency_count = ARRAY_SIZE(cpu_dependencies);
/* clang-format on */
