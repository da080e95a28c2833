/* Instructions that C has no words for, and the bits they speak in. Intel SDM volume 3, "System Architecture Overview".
 */
#ifndef GUEST_CPU_H
#define GUEST_CPU_H

#define FLAG_CF BIT(0)
#define FLAG_FIXED BIT(1)
#define FLAG_PF BIT(2)
#define FLAG_AF BIT(4)
#define FLAG_ZF BIT(6)
#define FLAG_SF BIT(7)
#define FLAG_TF BIT(8)
#define FLAG_IF BIT(9)
#define FLAG_DF BIT(10)
#define FLAG_OF BIT(11)
#define FLAG_IOPL(n) ((ulong)(n) << 12)
#define FLAG_NT BIT(14)
#define FLAG_RF BIT(16)
#define FLAG_VM BIT(17)
#define FLAG_AC BIT(18)
#define FLAG_VIF BIT(19)
#define FLAG_VIP BIT(20)
#define FLAG_ID BIT(21)

#define CR0_PE BIT(0)
#define CR0_MP BIT(1)
#define CR0_EM BIT(2)
#define CR0_TS BIT(3)
#define CR0_ET BIT(4)
#define CR0_NE BIT(5)
#define CR0_WP BIT(16)
#define CR0_AM BIT(18)
#define CR0_NW BIT(29)
#define CR0_CD BIT(30)
#define CR0_PG BIT(31)

#define CR4_VME BIT(0)
#define CR4_PVI BIT(1)
#define CR4_TSD BIT(2)
#define CR4_DE BIT(3)
#define CR4_PSE BIT(4)
#define CR4_PAE BIT(5)
#define CR4_MCE BIT(6)
#define CR4_PGE BIT(7)
#define CR4_PCE BIT(8)
#define CR4_OSFXSR BIT(9)
#define CR4_OSXMMEXCPT BIT(10)
#define CR4_UMIP BIT(11)
#define CR4_LA57 BIT(12)
#define CR4_FSGSBASE BIT(16)
#define CR4_PCIDE BIT(17)
#define CR4_OSXSAVE BIT(18)
#define CR4_SMEP BIT(20)
#define CR4_SMAP BIT(21)

#define EFER_SCE BIT(0)
#define EFER_LME BIT(8)
#define EFER_LMA BIT(10)
#define EFER_NXE BIT(11)

#define MSR_TSC 0x10
#define MSR_APIC_BASE 0x1b
#define MSR_SYSENTER_CS 0x174
#define MSR_SYSENTER_ESP 0x175
#define MSR_SYSENTER_EIP 0x176
#define MSR_PAT 0x277
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_EFER 0xc0000080
#define MSR_STAR 0xc0000081
#define MSR_LSTAR 0xc0000082
#define MSR_CSTAR 0xc0000083
#define MSR_SFMASK 0xc0000084
#define MSR_FS_BASE 0xc0000100
#define MSR_GS_BASE 0xc0000101
#define MSR_KERNEL_GS_BASE 0xc0000102
#define MSR_TSC_AUX 0xc0000103

enum vector {
	VEC_DE = 0,
	VEC_DB = 1,
	VEC_NMI = 2,
	VEC_BP = 3,
	VEC_OF = 4,
	VEC_BR = 5,
	VEC_UD = 6,
	VEC_NM = 7,
	VEC_DF = 8,
	VEC_TS = 10,
	VEC_NP = 11,
	VEC_SS = 12,
	VEC_GP = 13,
	VEC_PF = 14,
	VEC_MF = 16,
	VEC_AC = 17,
	VEC_XM = 19,
};

#define PF_P 1u
#define PF_W 2u
#define PF_U 4u
#define PF_RSVD 8u
#define PF_I 16u

#define DEFINE_REGISTER(name)                                                                                          \
	static inline ulong read_##name(void)                                                                          \
	{                                                                                                              \
		ulong value;                                                                                           \
		asm volatile("mov %%" #name ", %0" : "=r"(value) : : "memory");                                        \
		return value;                                                                                          \
	}                                                                                                              \
	static inline void write_##name(ulong value)                                                                   \
	{                                                                                                              \
		asm volatile("mov %0, %%" #name : : "r"(value) : "memory");                                            \
	}
DEFINE_REGISTER(cr0)
DEFINE_REGISTER(cr2)
DEFINE_REGISTER(cr3)
DEFINE_REGISTER(cr4)
#ifdef __x86_64__
DEFINE_REGISTER(cr8)
#endif
DEFINE_REGISTER(dr0)
DEFINE_REGISTER(dr1)
DEFINE_REGISTER(dr2)
DEFINE_REGISTER(dr3)
DEFINE_REGISTER(dr6)
DEFINE_REGISTER(dr7)
#undef DEFINE_REGISTER

static inline u64 rdmsr(u32 index)
{
	u32 low, high;
	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index) : "memory");
	return (u64)high << 32 | low;
}

static inline void wrmsr(u32 index, u64 value)
{
	asm volatile("wrmsr" : : "c"(index), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

static inline u64 rdtsc(void)
{
	u32 low, high;
	asm volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (u64)high << 32 | low;
}

struct cpuid {
	u32 eax, ebx, ecx, edx;
};

static inline struct cpuid cpuid(u32 leaf, u32 subleaf)
{
	struct cpuid r;
	asm volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(subleaf));
	return r;
}

/* Features by leaf, register and bit: CPUID_HAS(1, edx, 9). Leaves above the maximum are zero. */
static inline struct cpuid cpuid_checked(u32 leaf, u32 subleaf)
{
	struct cpuid none = { 0 };
	return cpuid(leaf & 0xffff0000u, 0).eax >= leaf ? cpuid(leaf, subleaf) : none;
}
#define CPUID_HAS(leaf, reg, bit) ((cpuid_checked(leaf, 0).reg >> (bit)) & 1)
#define HAS_VME CPUID_HAS(1, edx, 1)
#define HAS_PGE CPUID_HAS(1, edx, 13)
#define HAS_SEP CPUID_HAS(1, edx, 11)
#define HAS_PCID CPUID_HAS(1, ecx, 17)
#define HAS_X2APIC CPUID_HAS(1, ecx, 21)
#define HAS_TSC_DEADLINE CPUID_HAS(1, ecx, 24)
#define HAS_XSAVE CPUID_HAS(1, ecx, 26)
#define HAS_AVX CPUID_HAS(1, ecx, 28)
#define HAS_FSGSBASE CPUID_HAS(7, ebx, 0)
#define HAS_SMEP CPUID_HAS(7, ebx, 7)
#define HAS_INVPCID CPUID_HAS(7, ebx, 10)
#define HAS_SMAP CPUID_HAS(7, ebx, 20)
#define HAS_UMIP CPUID_HAS(7, ecx, 2)
#define HAS_SYSCALL CPUID_HAS(0x80000001, edx, 11)
#define HAS_NX CPUID_HAS(0x80000001, edx, 20)
#define HAS_1G_PAGES CPUID_HAS(0x80000001, edx, 26)
#define HAS_RDTSCP CPUID_HAS(0x80000001, edx, 27)
#define HAS_LM CPUID_HAS(0x80000001, edx, 29)

static inline ulong read_flags(void)
{
	ulong flags;
	asm volatile("pushf; pop %0" : "=r"(flags) : : "memory");
	return flags;
}

static inline void cli(void)
{
	asm volatile("cli" : : : "memory");
}

static inline void sti(void)
{
	asm volatile("sti" : : : "memory");
}

static inline void pause(void)
{
	asm volatile("pause" : : : "memory");
}

static inline void invlpg(const void *address)
{
	asm volatile("invlpg %0" : : "m"(*(const u8 *)address) : "memory");
}

#endif
