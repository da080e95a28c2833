/* SYSCALL, SYSRET, SYSENTER and SYSEXIT: transfers with fixed hidden segments and no table access (B4).
 * Intel SDM volume 2, SYSCALL, SYSRET, SYSENTER, SYSEXIT; AMD APM volume 3, the same: its SYSCALL works outside 64-bit mode, too, and its
 * SYSENTER does not work in long mode. */
#include "cpu/cpuid.h"
#include "cpu/descriptor.h"
#include "cpu/segment.h"
#include "cpu/transfer.h"

#define ATTR_DATA (SEG_ATTR_P | SEG_ATTR_S | SEG_ATTR_WRITABLE | SEG_ATTR_ACCESSED | SEG_ATTR_G | SEG_ATTR_DB)
#define ATTR_CODE_COMMON \
	(SEG_ATTR_P | SEG_ATTR_S | SEG_ATTR_CODE | SEG_ATTR_READABLE | SEG_ATTR_ACCESSED | SEG_ATTR_G)
#define ATTR_CODE32 (ATTR_CODE_COMMON | SEG_ATTR_DB)
#define ATTR_CODE64 (ATTR_CODE_COMMON | SEG_ATTR_L)

/* What SYSRET may load from R11: 3C7FD7H of the manual. RF and VM end up clear. */
#define SYSRET_FLAGS 0x3c7fd7ull

static void set_flat(struct segment *seg, u16 selector, u32 attr, unsigned dpl)
{
	seg->selector = selector;
	seg->attr = attr | dpl << SEG_ATTR_DPL_SHIFT;
	seg->limit = 0xffffffff;
	seg->base = 0;
}

static void enter(struct vcpu *vcpu, u16 cs, u16 ss, u32 code, unsigned cpl)
{
	set_flat(&vcpu->seg[SEG_CS], cs, code, cpl);
	set_flat(&vcpu->seg[SEG_SS], ss, ATTR_DATA, cpl);
	cpu_set_cpl(vcpu, cpl);
}

/* AMD's SYSCALL in legacy mode. */
static bool syscall_legacy(struct vcpu *vcpu)
{
	u16 cs = vcpu->msr.star >> 32 & ~3u;
	vcpu->gpr[RCX] = (u32)vcpu->next_rip;
	vcpu->next_rip = (u32)vcpu->msr.star;
	enter(vcpu, cs, cs + 8, ATTR_CODE32, 0);
	cpu_set_rflags(vcpu, vcpu->rflags & ~(RFLAGS_IF | RFLAGS_VM | RFLAGS_RF));
	return true;
}

bool transfer_syscall(struct vcpu *vcpu)
{
	const bool from_64bit = vcpu_64bit(vcpu);
	if (!(vcpu->efer & EFER_SCE) || (!from_64bit && !vcpu->cpuid->amd))
		return vcpu_raise_ud(vcpu);
	if (unlikely(!vcpu_long_mode(vcpu)))
		return syscall_legacy(vcpu);
	u16 cs = vcpu->msr.star >> 32 & ~3u;
	vcpu->gpr[RCX] = vcpu->next_rip;
	vcpu->gpr[R11] = vcpu->rflags & ~RFLAGS_RF;
	vcpu->next_rip = from_64bit ? vcpu->msr.lstar : vcpu->msr.cstar;
	enter(vcpu, cs, cs + 8, ATTR_CODE64, 0);
	cpu_set_rflags(vcpu, vcpu->rflags & ~(vcpu->msr.fmask | RFLAGS_RF));
	return true;
}

static bool sysret_legacy(struct vcpu *vcpu)
{
	u16 cs = vcpu->msr.star >> 48 | 3;
	vcpu->next_rip = (u32)vcpu->gpr[RCX];
	cpu_set_rflags(vcpu, (vcpu->rflags & ~RFLAGS_RF) | RFLAGS_IF);
	enter(vcpu, cs, ((vcpu->msr.star >> 48) + 8) | 3, ATTR_CODE32, 3);
	return true;
}

bool transfer_sysret(struct vcpu *vcpu, bool rex_w)
{
	const u16 base = vcpu->msr.star >> 48;
	const u64 rcx = vcpu->gpr[RCX];
	if (!(vcpu->efer & EFER_SCE) || (!vcpu_64bit(vcpu) && !vcpu->cpuid->amd))
		return vcpu_raise_ud(vcpu);
	if (!vcpu_protected(vcpu) || vcpu->cpl != 0)
		return vcpu_raise_gp(vcpu, 0);
	if (unlikely(!vcpu_long_mode(vcpu)))
		return sysret_legacy(vcpu);
	/* On AMD the fault is that of the fetch at the target, in user mode. */
	if (rex_w && !vcpu->cpuid->amd && !is_canonical(rcx, vcpu_linear_bits(vcpu)))
		return vcpu_raise_gp(vcpu, 0);
	vcpu->next_rip = rex_w ? rcx : (u32)rcx;
	cpu_set_rflags(vcpu, vcpu->gpr[R11] & SYSRET_FLAGS);
	enter(vcpu, (base + (rex_w ? 16 : 0)) | 3, (base + 8) | 3, rex_w ? ATTR_CODE64 : ATTR_CODE32, 3);
	return true;
}

bool transfer_sysenter(struct vcpu *vcpu)
{
	const bool wide = vcpu_long_mode(vcpu);
	const u16 cs = vcpu->msr.sysenter_cs & ~3u;
	if (wide && vcpu->cpuid->amd)
		return vcpu_raise_ud(vcpu);
	if (!vcpu_protected(vcpu) || !cs)
		return vcpu_raise_gp(vcpu, 0);
	vcpu->gpr[RSP] = wide ? vcpu->msr.sysenter_esp : (u32)vcpu->msr.sysenter_esp;
	vcpu->next_rip = wide ? vcpu->msr.sysenter_eip : (u32)vcpu->msr.sysenter_eip;
	cpu_set_rflags(vcpu, vcpu->rflags & ~(RFLAGS_VM | RFLAGS_IF | RFLAGS_RF));
	enter(vcpu, cs, cs + 8, wide ? ATTR_CODE64 : ATTR_CODE32, 0);
	return true;
}

bool transfer_sysexit(struct vcpu *vcpu, bool rex_w)
{
	const u16 base = vcpu->msr.sysenter_cs & ~3u;
	const u64 rsp = vcpu->gpr[RCX], rip = vcpu->gpr[RDX];
	const unsigned bits = vcpu_linear_bits(vcpu);
	if (vcpu_long_mode(vcpu) && vcpu->cpuid->amd)
		return vcpu_raise_ud(vcpu);
	if (!vcpu_protected(vcpu) || !base || vcpu->cpl != 0)
		return vcpu_raise_gp(vcpu, 0);
	if (rex_w && (!is_canonical(rsp, bits) || !is_canonical(rip, bits)))
		return vcpu_raise_gp(vcpu, 0);
	const u16 cs = (base + (rex_w ? 32 : 16)) | 3;
	vcpu->gpr[RSP] = rex_w ? rsp : (u32)rsp;
	vcpu->next_rip = rex_w ? rip : (u32)rip;
	enter(vcpu, cs, cs + 8, rex_w ? ATTR_CODE64 : ATTR_CODE32, 3);
	return true;
}
