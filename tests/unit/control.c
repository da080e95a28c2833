/* The rules of control, extended-control, debug and flag registers, and of I/O ports: each a row of (state, what is
 * tried, what comes of it). */
#include "small_vm.h"

#include "cpu/control.h"

/* ---- MOV to CR, LMSW, EFER, XCR0 ---- */

enum target { CR0 = 0, CR2 = 2, CR3 = 3, CR4 = 4, CR8 = 8, LMSW = 20, CLTS, EFER, XCR };

#define REAL (CR0_ET)
#define PROT (CR0_PE | CR0_ET)
#define PAGED (CR0_PE | CR0_ET | CR0_PG)
#define LONG (EFER_LME | EFER_LMA)
#define OK 0
#define GP VEC_GP
#define UD VEC_UD

static const struct write_case {
	const char *name;
	u64 cr0, cr3, cr4, efer;
	unsigned target;
	u64 value;
	u8 vector;  /* OK, or what is raised */
	u64 result; /* of the target register */
	u64 cs_attr;
	u8 cpl;
	u8 tr_type;
} write_cases[] = {
	{ "cr0: enter protected mode", REAL, 0, 0, 0, CR0, CR0_PE, OK, PROT },
	{ "cr0: ET is fixed", REAL, 0, 0, 0, CR0, 0, OK, CR0_ET },
	{ "cr0: reserved low bits are ignored", REAL, 0, 0, 0, CR0, 0x1ffaffc0, OK, CR0_ET },
	{ "cr0: high half", PROT, 0, 0, 0, CR0, BIT(32) | PROT, GP, PROT },
	{ "cr0: PG without PE", REAL, 0, 0, 0, CR0, CR0_PG, GP, REAL },
	{ "cr0: clear PE with PG", PAGED, 0, 0, 0, CR0, CR0_PG, GP, PAGED },
	{ "cr0: NW without CD", PROT, 0, 0, 0, CR0, PROT | CR0_NW, GP, PROT },
	{ "cr0: NW with CD", PROT, 0, 0, 0, CR0, PROT | CR0_NW | CR0_CD, OK, PROT | CR0_NW | CR0_CD },
	{ "cr0: CPL 3", PAGED, 0, 0, 0, CR0, PAGED, GP, PAGED, .cpl = 3 },
	{ "cr0: 32-bit paging on", PROT, 0, 0, 0, CR0, PAGED, OK, PAGED },
	{ "cr0: long mode on", PROT, 0, CR4_PAE, EFER_LME, CR0, PAGED, OK, PAGED },
	{ "cr0: long mode without PAE", PROT, 0, 0, EFER_LME, CR0, PAGED, GP, PROT },
	{ "cr0: long mode with CS.L", PROT, 0, CR4_PAE, EFER_LME, CR0, PAGED, GP, PROT, .cs_attr = SEG_ATTR_L },
	{ "cr0: long mode, 16-bit TSS", PROT, 0, CR4_PAE, EFER_LME, CR0, PAGED, GP, PROT, .tr_type = SYS_TSS16_BUSY },
	{ "cr0: paging off in 64-bit mode", PAGED, 0, CR4_PAE, LONG, CR0, PROT, GP, PAGED, .cs_attr = SEG_ATTR_L },
	{ "cr0: paging off in compatibility mode", PAGED, 0, CR4_PAE, LONG, CR0, PROT, OK, PROT },
	{ "cr0: paging off with PCIDE", PAGED, 0, CR4_PAE | CR4_PCIDE, LONG, CR0, PROT, GP, PAGED },
	{ "cr0: PAE paging with bad PDPTE", PROT, 0x1000, CR4_PAE, 0, CR0, PAGED, GP, PROT },
	{ "cr0: PAE paging with good PDPTEs", PROT, 0x2000, CR4_PAE, 0, CR0, PAGED, OK, PAGED },

	{ "cr1", PROT, 0, 0, 0, 1, 0, UD, 0 },
	{ "cr5 at CPL 3", PAGED, 0, 0, 0, 5, 0, UD, 0, .cpl = 3 },
	{ "cr9", PROT, 0, 0, 0, 9, 0, UD, 0 },
	{ "cr2", PROT, 0, 0, 0, CR2, ~0ull, OK, ~0ull },

	{ "cr3", PAGED, 0, CR4_PAE, LONG, CR3, 0x5018, OK, 0x5018, .cs_attr = SEG_ATTR_L },
	{ "cr3: above MAXPHYADDR", PAGED, 0, CR4_PAE, LONG, CR3, BIT(40), GP, 0, .cs_attr = SEG_ATTR_L },
	{ "cr3: below MAXPHYADDR", PAGED, 0, CR4_PAE, LONG, CR3, BIT(39), OK, BIT(39), .cs_attr = SEG_ATTR_L },
	{ "cr3: no flush without PCIDE", PAGED, 0, CR4_PAE, LONG, CR3, BIT(63), GP, 0, .cs_attr = SEG_ATTR_L },
	{ "cr3: no flush with PCIDE", PAGED, 0, CR4_PAE | CR4_PCIDE, LONG, CR3, BIT(63) | 0x1007, OK, 0x1007,
	  .cs_attr = SEG_ATTR_L },
	{ "cr3: bad PDPTE", PAGED, 0x2000, CR4_PAE, 0, CR3, 0x1000, GP, 0x2000 },
	{ "cr3: good PDPTEs", PAGED, 0x2000, CR4_PAE, 0, CR3, 0x2020, OK, 0x2020 },

	{ "cr4: reserved bit", PROT, 0, 0, 0, CR4, CR4_VMXE, GP, 0 },
	{ "cr4: reserved high bit", PROT, 0, 0, 0, CR4, BIT(32), GP, 0 },
	{ "cr4", PROT, 0, 0, 0, CR4, CR4_PAE | CR4_OSFXSR, OK, CR4_PAE | CR4_OSFXSR },
	{ "cr4: clear PAE in long mode", PAGED, 0, CR4_PAE, LONG, CR4, 0, GP, CR4_PAE, .cs_attr = SEG_ATTR_L },
	{ "cr4: LA57 in long mode", PAGED, 0, CR4_PAE, LONG, CR4, CR4_PAE | CR4_LA57, GP, CR4_PAE },
	{ "cr4: LA57 before long mode", PROT, 0, CR4_PAE, 0, CR4, CR4_PAE | CR4_LA57, OK, CR4_PAE | CR4_LA57 },
	{ "cr4: PCIDE outside long mode", PROT, 0, CR4_PAE, 0, CR4, CR4_PAE | CR4_PCIDE, GP, CR4_PAE },
	{ "cr4: PCIDE with a PCID", PAGED, 0x1001, CR4_PAE, LONG, CR4, CR4_PAE | CR4_PCIDE, GP, CR4_PAE },
	{ "cr4: PCIDE", PAGED, 0x1000, CR4_PAE, LONG, CR4, CR4_PAE | CR4_PCIDE, OK, CR4_PAE | CR4_PCIDE },
	{ "cr4: PCIDE stays with a PCID", PAGED, 0x1001, CR4_PAE | CR4_PCIDE, LONG, CR4, CR4_PAE | CR4_PCIDE | CR4_PGE,
	  OK, CR4_PAE | CR4_PCIDE | CR4_PGE },
	{ "cr4: PAE on with bad PDPTE", PAGED, 0x1000, 0, 0, CR4, CR4_PAE, GP, 0 },
	{ "cr4: PAE on with good PDPTEs", PAGED, 0x2000, 0, 0, CR4, CR4_PAE, OK, CR4_PAE },
	{ "cr4: PGE reloads PDPTEs", PAGED, 0x1000, CR4_PAE, 0, CR4, CR4_PAE | CR4_PGE, GP, CR4_PAE },
	{ "cr4: DE does not", PAGED, 0x1000, CR4_PAE, 0, CR4, CR4_PAE | CR4_DE, OK, CR4_PAE | CR4_DE },

	{ "lmsw sets PE", REAL, 0, 0, 0, LMSW, 1, OK, PROT },
	{ "lmsw cannot clear PE", PROT | CR0_TS, 0, 0, 0, LMSW, 0, OK, PROT },
	{ "lmsw sets four bits", PROT, 0, 0, 0, LMSW, 0xfffe, OK, PROT | CR0_MP | CR0_EM | CR0_TS },
	{ "lmsw at CPL 3", PROT, 0, 0, 0, LMSW, 0, GP, PROT, .cpl = 3 },
	{ "clts", PROT | CR0_TS, 0, 0, 0, CLTS, 0, OK, PROT },
	{ "clts at CPL 1", PROT | CR0_TS, 0, 0, 0, CLTS, 0, GP, PROT | CR0_TS, .cpl = 1 },

	{ "efer: reserved bit", PROT, 0, 0, 0, EFER, EFER_SVME, GP, 0 },
	{ "efer: LME", PROT, 0, 0, 0, EFER, EFER_LME | EFER_SCE, OK, EFER_LME | EFER_SCE },
	{ "efer: LME with paging", PAGED, 0, 0, 0, EFER, EFER_LME, GP, 0 },
	{ "efer: clear LME in long mode", PAGED, 0, CR4_PAE, LONG, EFER, EFER_LMA, GP, LONG },
	{ "efer: LMA cannot be set", PROT, 0, 0, 0, EFER, EFER_LMA, OK, 0 },
	{ "efer: LMA cannot be cleared", PAGED, 0, CR4_PAE, LONG, EFER, EFER_LME | EFER_NXE, OK, LONG | EFER_NXE },

	{ "xcr0 without OSXSAVE", PROT, 0, 0, 0, XCR, 1, UD, 1 },
	{ "xcr0 at CPL 3", PROT, 0, CR4_OSXSAVE, 0, XCR, 1, GP, 1, .cpl = 3 },
	{ "xcr0 without x87", PROT, 0, CR4_OSXSAVE, 0, XCR, 2, GP, 1 },
	{ "xcr0: SSE", PROT, 0, CR4_OSXSAVE, 0, XCR, 3, OK, 3 },
	{ "xcr0: AVX without SSE", PROT, 0, CR4_OSXSAVE, 0, XCR, 5, GP, 1 },
	{ "xcr0: AVX", PROT, 0, CR4_OSXSAVE, 0, XCR, 7, OK, 7 },
	{ "xcr0: part of AVX-512", PROT, 0, CR4_OSXSAVE, 0, XCR, 0x67, GP, 1 },
	{ "xcr0: AVX-512 without AVX", PROT, 0, CR4_OSXSAVE, 0, XCR, 0xe3, GP, 1 },
	{ "xcr0: AVX-512", PROT, 0, CR4_OSXSAVE, 0, XCR, 0xe7, OK, 0xe7 },
	{ "xcr0: component nobody has", PROT, 0, CR4_OSXSAVE, 0, XCR, 0x207, GP, 1 },
};

static bool try_write(struct vcpu *v, unsigned target, u64 value)
{
	switch (target) {
	case LMSW:
		return control_lmsw(v, (u16)value);
	case CLTS:
		return control_clts(v);
	case EFER:
		return control_write_efer(v, value);
	case XCR:
		return control_xsetbv(v, 0, value);
	default:
		return control_write_cr(v, target, value);
	}
}

static u64 target_value(const struct vcpu *v, unsigned target)
{
	switch (target) {
	case CR0:
	case LMSW:
	case CLTS:
		return v->cr0;
	case CR2:
		return v->cr2;
	case CR3:
		return v->cr3;
	case CR4:
		return v->cr4;
	case EFER:
		return v->efer;
	case XCR:
		return v->xcr0;
	default:
		return 0;
	}
}

static void check_write(struct small_vm *vm, const struct write_case *c)
{
	struct vcpu *v = &vm->vcpu;
	v->cr0 = c->cr0;
	v->cr3 = c->cr3;
	v->cr4 = c->cr4;
	v->efer = c->efer;
	v->xcr0 = XCR0_X87;
	v->cpl = c->cpl;
	v->seg[SEG_CS].attr = SEG_ATTR_P | SEG_ATTR_S | SEG_ATTR_CODE | (u32)c->cs_attr;
	v->tr.attr = SEG_ATTR_P | (c->tr_type ? c->tr_type : SYS_TSS_BUSY);
	v->fault = (struct guest_fault){ 0 };
	bool done = try_write(v, c->target, c->value);
	if (done != (c->vector == OK) || v->fault.vector != c->vector || target_value(v, c->target) != c->result)
		fail_msg("%s: done %d vector %u value %llx", c->name, done, v->fault.vector,
			 (unsigned long long)target_value(v, c->target));
	assert_int_equal(v->fault.has_error, c->vector == GP);
	bool active = (v->efer & EFER_LME) && (v->cr0 & CR0_PG);
	if (!!(v->efer & EFER_LMA) != active)
		fail_msg("%s: LMA is wrong", c->name);
}

static void writes(void **state)
{
	struct small_vm *vm = *state;
	for (unsigned i = 0; i < 4; i++)
		*entry64(vm, 0x1000 + i * 8) = BIT(1) | PTE_P;
	for (unsigned i = 0; i < ARRAY_SIZE(write_cases); i++)
		check_write(vm, &write_cases[i]);
}

static void xcr_index(void **state)
{
	struct small_vm *vm = *state;
	u64 value;
	vm->vcpu.xcr0 = 7;
	assert_false(control_xgetbv(&vm->vcpu, 0, &value));
	assert_int_equal(vm->vcpu.fault.vector, VEC_UD);
	vm->vcpu.cr4 = CR4_OSXSAVE;
	assert_true(control_xgetbv(&vm->vcpu, 0, &value));
	assert_int_equal(value, 7);
	assert_false(control_xgetbv(&vm->vcpu, 2, &value));
	assert_int_equal(vm->vcpu.fault.vector, VEC_GP);
	assert_false(control_xsetbv(&vm->vcpu, 1, 7));
	assert_int_equal(vm->vcpu.fault.vector, VEC_GP);
}

static void reads(void **state)
{
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	u64 value;
	v->cr0 = PAGED;
	v->cr2 = 2;
	v->cr3 = 3;
	v->cr4 = 4;
	vm->answer = 0xf5;
	static const struct {
		u8 number;
		u64 value;
	} cases[] = { { 0, PAGED }, { 2, 2 }, { 3, 3 }, { 4, 4 }, { 8, 5 } };
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		v->cpl = 0;
		assert_true(control_read_cr(v, cases[i].number, &value));
		assert_int_equal(value, cases[i].value);
		v->cpl = 3;
		assert_false(control_read_cr(v, cases[i].number, &value));
		assert_int_equal(v->fault.vector, VEC_GP);
	}
	assert_int_equal(vm->exit_count, 1);
	assert_false(control_read_cr(v, 7, &value));
	assert_int_equal(v->fault.vector, VEC_UD);
	assert_true(control_smsw(v, &value));
	assert_int_equal(value, PAGED);
	v->cr4 = CR4_UMIP;
	assert_false(control_smsw(v, &value));
	v->cpl = 0;
	assert_true(control_smsw(v, &value));
}

static void cr8_goes_to_the_apic(void **state)
{
	struct small_vm *vm = *state;
	assert_true(control_write_cr(&vm->vcpu, 8, 0xb));
	assert_int_equal(vm->exit_count, 1);
	assert_int_equal(vm->exits[0].reason, EXIT_CR_WRITE);
	assert_int_equal(vm->exits[0].cr.number, 8);
	assert_int_equal(vm->exits[0].cr.value, 0xb);
	assert_false(control_write_cr(&vm->vcpu, 8, 0x10));
	assert_int_equal(vm->vcpu.fault.vector, VEC_GP);
	assert_int_equal(vm->exit_count, 1);
}

/* What each write does to a cached translation. */
static void writes_that_flush(void **state)
{
	static const struct {
		unsigned target;
		u64 toggled;
		bool flushes;
	} cases[] = {
		{ CR4, CR4_PGE, true },     { CR4, CR4_SMEP, true },     { CR4, CR4_DE, false },
		{ CR4, CR4_OSFXSR, false }, { CR0, CR0_WP, true },       { CR0, CR0_TS, false },
		{ CR3, 0, true },           { CR3, CR3_NOFLUSH, false }, { EFER, EFER_NXE, true },
		{ EFER, EFER_SCE, false },  { CR4, CR4_PCIDE, true },
	};
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct translation t;
		paging_enable(vm, PAGING_4LEVEL, CR4_PCIDE, 0);
		map_page(vm, PAGING_4LEVEL, 0x5000, 0x5000 | PTE_P | PTE_W | PTE_U);
		assert_true(mmu_translate(v, 0x5000, ACCESS_READ, &t));
		assert_true(try_write(v, cases[i].target, target_value(v, cases[i].target) ^ cases[i].toggled));
		if (!!tlb_lookup(v->mmu, v->mmu->view, 0x5000, 1, ACCESS_READ) == cases[i].flushes)
			fail_msg("flush case %u", i);
	}
}

/* ---- flags ---- */

#define VM86 RFLAGS_VM
#define IOPL(n) ((u64)(n) << RFLAGS_IOPL_SHIFT)
#define EVERYTHING 0x3f7fd5ull

enum flag_op { POPF, PUSHF, CLI, STI };

static const struct flag_case {
	const char *name;
	u64 cr0, cr4;
	u8 cpl;
	u64 rflags;
	enum flag_op op;
	u8 size;
	u64 value;
	u8 vector;
	u64 result; /* rflags, or the image */
	u8 shadow;
} flag_cases[] = {
	{ "popf real 16", REAL, 0, 0, 2, POPF, 2, EVERYTHING, OK, 0x7fd7 },
	{ "popf real 32", REAL, 0, 0, 2, POPF, 4, EVERYTHING, OK, 0x247fd7 },
	{ "popf ring 0", PROT, 0, 0, 2, POPF, 8, ~0ull, OK, 0x247fd7 },
	{ "popf ring 3", PROT, 0, 3, 2, POPF, 8, ~0ull, OK, 0x244dd7 },
	{ "popf ring 3 keeps IF", PROT, 0, 3, 2 | RFLAGS_IF, POPF, 4, 0, OK, 2 | RFLAGS_IF },
	{ "popf ring 3, IOPL 3", PROT, 0, 3, 2 | IOPL(3) | RFLAGS_IF, POPF, 4, 0, OK, 2 | IOPL(3) },
	{ "popf ring 1, IOPL 1", PROT, 0, 1, 2 | IOPL(1), POPF, 4, RFLAGS_IF | IOPL(3), OK, 2 | IOPL(1) | RFLAGS_IF },
	{ "popf keeps VIF and VIP", PROT, 0, 0, 2 | RFLAGS_VIF | RFLAGS_VIP, POPF, 4, 0, OK,
	  2 | RFLAGS_VIF | RFLAGS_VIP },
	{ "popf 16 keeps AC", PROT, 0, 0, 2 | RFLAGS_AC, POPF, 2, 0, OK, 2 | RFLAGS_AC },
	{ "popf v86, IOPL 3", PROT, 0, 3, 2 | VM86 | IOPL(3), POPF, 2, RFLAGS_IF, OK, 2 | VM86 | IOPL(3) | RFLAGS_IF },
	{ "popf v86, IOPL 0", PROT, 0, 3, 2 | VM86, POPF, 2, 0, GP, 2 | VM86 },
	{ "popf v86 VME sets VIF", PROT, CR4_VME, 3, 2 | VM86, POPF, 2, RFLAGS_IF | RFLAGS_CF, OK,
	  3 | VM86 | RFLAGS_VIF },
	{ "popf v86 VME clears VIF", PROT, CR4_VME, 3, 2 | VM86 | RFLAGS_IF | RFLAGS_VIF, POPF, 2, 0, OK,
	  2 | VM86 | RFLAGS_IF },
	{ "popf v86 VME, VIP", PROT, CR4_VME, 3, 2 | VM86 | RFLAGS_VIP, POPF, 2, RFLAGS_IF, GP, 2 | VM86 | RFLAGS_VIP },
	{ "popf v86 VME, TF", PROT, CR4_VME, 3, 2 | VM86, POPF, 2, RFLAGS_TF, GP, 2 | VM86 },
	{ "popf v86 VME, 32 bits", PROT, CR4_VME, 3, 2 | VM86, POPF, 4, 0, GP, 2 | VM86 },
	{ "pushf hides VM and RF", PROT, 0, 3, 2 | VM86 | IOPL(3) | RFLAGS_RF, PUSHF, 4, 0, OK, 2 | IOPL(3) },
	{ "pushf 16", PROT, 0, 0, 2 | RFLAGS_AC | RFLAGS_IF, PUSHF, 2, 0, OK, 2 | RFLAGS_IF },
	{ "pushf v86, IOPL 0", PROT, 0, 3, 2 | VM86, PUSHF, 2, 0, GP, 2 | VM86 },
	{ "pushf v86 VME", PROT, CR4_VME, 3, 2 | VM86 | RFLAGS_IF, PUSHF, 2, 0, OK, 2 | IOPL(3) },
	{ "pushf v86 VME, VIF", PROT, CR4_VME, 3, 2 | VM86 | RFLAGS_VIF, PUSHF, 2, 0, OK, 2 | IOPL(3) | RFLAGS_IF },
	{ "pushf v86 VME, 32 bits", PROT, CR4_VME, 3, 2 | VM86, PUSHF, 4, 0, GP, 2 | VM86 },
	{ "cli real", REAL, 0, 0, 2 | RFLAGS_IF, CLI, 0, 0, OK, 2 },
	{ "cli ring 3", PROT, 0, 3, 2 | RFLAGS_IF, CLI, 0, 0, GP, 2 | RFLAGS_IF },
	{ "cli ring 3, IOPL 3", PROT, 0, 3, 2 | RFLAGS_IF | IOPL(3), CLI, 0, 0, OK, 2 | IOPL(3) },
	{ "cli ring 3 PVI", PROT, CR4_PVI, 3, 2 | RFLAGS_IF | RFLAGS_VIF, CLI, 0, 0, OK, 2 | RFLAGS_IF },
	{ "cli ring 2 PVI", PROT, CR4_PVI, 2, 2 | RFLAGS_IF, CLI, 0, 0, GP, 2 | RFLAGS_IF },
	{ "cli v86", PROT, CR4_PVI, 3, 2 | VM86, CLI, 0, 0, GP, 2 | VM86 },
	{ "cli v86 VME", PROT, CR4_VME, 3, 2 | VM86 | RFLAGS_VIF, CLI, 0, 0, OK, 2 | VM86 },
	{ "sti", PROT, 0, 0, 2, STI, 0, 0, OK, 2 | RFLAGS_IF, SHADOW_STI },
	{ "sti again", PROT, 0, 0, 2 | RFLAGS_IF, STI, 0, 0, OK, 2 | RFLAGS_IF },
	{ "sti ring 3", PROT, 0, 3, 2, STI, 0, 0, GP, 2 },
	{ "sti ring 3 PVI", PROT, CR4_PVI, 3, 2, STI, 0, 0, OK, 2 | RFLAGS_VIF },
	{ "sti ring 3 PVI, VIP", PROT, CR4_PVI, 3, 2 | RFLAGS_VIP, STI, 0, 0, GP, 2 | RFLAGS_VIP },
	{ "sti v86 VME", PROT, CR4_VME, 3, 2 | VM86, STI, 0, 0, OK, 2 | VM86 | RFLAGS_VIF },
	{ "sti v86 VME, VIP", PROT, CR4_VME, 3, 2 | VM86 | RFLAGS_VIP, STI, 0, 0, GP, 2 | VM86 | RFLAGS_VIP },
};

static void check_flags(struct vcpu *v, const struct flag_case *c)
{
	u64 image = 0;
	bool done = false;
	v->cr0 = c->cr0;
	v->cr4 = c->cr4;
	v->cpl = c->cpl;
	v->rflags = c->rflags;
	v->shadow = 0;
	v->fault = (struct guest_fault){ 0 };
	switch (c->op) {
	case POPF:
		done = control_popf(v, c->value, c->size);
		break;
	case PUSHF:
		done = control_pushf(v, c->size, &image);
		break;
	case CLI:
		done = control_cli(v);
		break;
	case STI:
		done = control_sti(v);
		break;
	}
	u64 result = c->op == PUSHF && done ? image : v->rflags;
	if (done != (c->vector == OK) || v->fault.vector != c->vector || result != c->result || v->shadow != c->shadow)
		fail_msg("%s: done %d vector %u result %llx shadow %u", c->name, done, v->fault.vector,
			 (unsigned long long)result, v->shadow);
}

static void flags(void **state)
{
	struct small_vm *vm = *state;
	for (unsigned i = 0; i < ARRAY_SIZE(flag_cases); i++)
		check_flags(&vm->vcpu, &flag_cases[i]);
}

static void popf_of_ac_changes_the_view(void **state)
{
	struct small_vm *vm = *state;
	vm->vcpu.cr4 = CR4_SMAP;
	mmu_update_view(&vm->vcpu);
	assert_int_equal(vm->vcpu.mmu->view, VIEW_SUPERVISOR_SMAP);
	assert_true(control_popf(&vm->vcpu, RFLAGS_AC, 8));
	assert_int_equal(vm->vcpu.mmu->view, VIEW_SUPERVISOR);
	assert_true(control_popf(&vm->vcpu, 0, 8));
	assert_int_equal(vm->vcpu.mmu->view, VIEW_SUPERVISOR_SMAP);
}

/* ---- debug registers ---- */

static const struct dr_case {
	u8 number, cpl;
	u64 cr4, dr7;
	u64 value;
	u8 vector;
	u64 result; /* read back from DR6 or DR7, or the same register */
} dr_cases[] = {
	{ 0, 0, 0, 0x400, ~0ull, OK, ~0ull },
	{ 3, 0, CR4_DE, 0x400, 0x1234, OK, 0x1234 },
	{ 4, 0, 0, 0x400, 0, OK, 0xffff0ff0 },
	{ 4, 0, CR4_DE, 0x400, 0, UD, 0 },
	{ 5, 3, CR4_DE, 0x400, 0, UD, 0 },
	{ 5, 0, 0, 0x400, 0xffffffff, OK, 0xffff27ff },
	{ 6, 0, 0, 0x400, 0xffffffff, OK, 0xffffefff },
	{ 6, 0, 0, 0x400, BIT(32), GP, 0 },
	{ 7, 0, 0, 0x400, 0, OK, 0x400 },
	{ 7, 0, 0, 0x400, BIT(32), GP, 0 },
	{ 8, 0, 0, 0x400, 0, UD, 0 },
	{ 1, 3, 0, 0x400, 0, GP, 0 },
	{ 1, 3, 0, 0x400 | DR7_GD, 0, GP, 0 },
	{ 1, 0, 0, 0x400 | DR7_GD, 0, VEC_DB, 0 },
};

static void debug_registers(void **state)
{
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	for (unsigned i = 0; i < ARRAY_SIZE(dr_cases); i++) {
		const struct dr_case *c = &dr_cases[i];
		u64 value = 0;
		v->cpl = c->cpl;
		v->cr4 = c->cr4;
		v->dr7 = c->dr7;
		v->fault = (struct guest_fault){ 0 };
		bool done = control_write_dr(v, c->number, c->value);
		if (done != (c->vector == OK) || v->fault.vector != c->vector)
			fail_msg("debug register case %u: vector %u", i, v->fault.vector);
		if (c->vector == VEC_DB)
			assert_int_equal(v->fault.payload, DR6_BD);
		if (!done)
			continue;
		v->dr7 &= ~DR7_GD;
		assert_true(control_read_dr(v, c->number, &value));
		assert_int_equal(value & ~DR7_GD, c->result & ~DR7_GD);
	}
}

/* DR7 of breakpoint n with its R/W and LEN fields. */
static u64 dr7_of(unsigned n, unsigned rw, unsigned len)
{
	return DR7_FIXED1 | BIT(2 * n) | (u64)(len << 2 | rw) << (16 + 4 * n);
}

static void breakpoints(void **state)
{
	static const struct {
		u8 rw, len;
		u64 dr;
		enum debug_kind kind;
		gla_t gla;
		u8 size;
		bool hit, no_de;
	} cases[] = {
		{ 0, 0, 0x1000, DEBUG_EXECUTE, 0x1000, 3, true },
		{ 0, 0, 0x1001, DEBUG_EXECUTE, 0x1000, 3, false },
		{ 0, 1, 0x1000, DEBUG_EXECUTE, 0x1000, 1, false },
		{ 0, 0, 0x1000, DEBUG_ACCESS, 0x1000, 1, false },
		{ 1, 0, 0x1003, DEBUG_WRITE, 0x1000, 4, true },
		{ 1, 0, 0x1004, DEBUG_WRITE, 0x1000, 4, false },
		{ 1, 0, 0x1000, DEBUG_ACCESS, 0x1000, 4, false },
		{ 3, 0, 0x1000, DEBUG_ACCESS, 0x0ffd, 4, true },
		{ 3, 0, 0x1000, DEBUG_WRITE, 0x1000, 1, true },
		{ 3, 0, 0x1000, DEBUG_EXECUTE, 0x1000, 1, false },
		{ 1, 3, 0x1002, DEBUG_WRITE, 0x1000, 1, true }, /* aligned down */
		{ 1, 3, 0x1000, DEBUG_WRITE, 0x1004, 1, false },
		{ 1, 2, 0x1000, DEBUG_WRITE, 0x1007, 1, true }, /* 8 bytes */
		{ 1, 1, 0x1000, DEBUG_WRITE, 0x1001, 1, true },
		{ 1, 1, 0x1000, DEBUG_WRITE, 0x1002, 1, false },
		{ 2, 0, 0x61, DEBUG_IO, 0x60, 2, true },
		{ 2, 0, 0x61, DEBUG_IO, 0x60, 2, false, .no_de = true },
		{ 2, 0, 0x61, DEBUG_IO, 0x60, 1, false },
		{ 3, 0, 0x61, DEBUG_IO, 0x61, 1, false },
		{ 3, 3, 0, DEBUG_ACCESS, ~0ull, 2, true },
	};
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++)
		for (unsigned n = 0; n < 4; n++) {
			memset(v->dr, 0xaa, sizeof(v->dr));
			v->dr[n] = cases[i].dr;
			v->dr7 = dr7_of(n, cases[i].rw, cases[i].len);
			v->cr4 = cases[i].no_de ? 0 : CR4_DE;
			u64 hits = control_debug_match(v, cases[i].kind, cases[i].gla, cases[i].size);
			if (hits != (cases[i].hit ? DR6_B(n) : 0))
				fail_msg("breakpoint case %u: %llx", i, (unsigned long long)hits);
			v->dr7 &= ~0xffull;
			assert_int_equal(control_debug_match(v, cases[i].kind, cases[i].gla, cases[i].size), 0);
		}
}

/* ---- I/O ports ---- */

#define TSS 0x3000ull
#define MAP 0x68

static const struct io_case {
	u64 cr0, rflags;
	u8 cpl, tr_type;
	u32 limit;
	u16 port;
	u8 size;
	bool allowed;
} io_cases[] = {
	{ REAL, 2, 0, SYS_TSS_BUSY, 0, 0xffff, 4, true },
	{ PROT, 2, 0, SYS_TSS_BUSY, 0, 0xffff, 1, true },
	{ PROT, 2 | IOPL(3), 3, SYS_TSS_BUSY, 0, 0xffff, 1, true },
	{ PROT, 2, 3, SYS_TSS_BUSY, 0xfff, 0x60, 1, true },
	{ PROT, 2, 3, SYS_TSS_BUSY, 0xfff, 0x61, 1, false },
	{ PROT, 2, 3, SYS_TSS_BUSY, 0xfff, 0x60, 2, false },
	{ PROT, 2, 3, SYS_TSS_BUSY, 0xfff, 0x67, 1, true },
	{ PROT, 2, 3, SYS_TSS_BUSY, 0xfff, 0x67, 2, false }, /* bit 0 of the next byte */
	{ PROT, 2, 3, SYS_TSS_BUSY, 0xfff, 0x69, 4, true },
	{ PROT, 2, 3, SYS_TSS16_BUSY, 0xfff, 0x60, 1, false },
	{ PROT, 2, 3, SYS_TSS_BUSY, 102, 0x60, 1, false },
	{ PROT, 2, 3, SYS_TSS_BUSY, MAP + 0xc, 0x60, 1, false }, /* second byte is outside */
	{ PROT, 2, 3, SYS_TSS_BUSY, MAP + 0xd, 0x60, 1, true },
	{ PROT, 2, 3, SYS_TSS_BUSY, 0xfff, 0xffff, 1, false },
	{ PROT, 2 | VM86 | IOPL(3), 3, SYS_TSS_BUSY, 0xfff, 0x61, 1, false },
	{ PROT, 2 | VM86, 3, SYS_TSS_BUSY, 0xfff, 0x60, 1, true },
};

static void io_permission(void **state)
{
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	vm->memory[TSS + 102] = MAP;
	vm->memory[TSS + MAP + 0x60 / 8] = 0x02;
	vm->memory[TSS + MAP + 0x68 / 8] = 0x01;
	v->tr.base = TSS;
	for (unsigned i = 0; i < ARRAY_SIZE(io_cases); i++) {
		const struct io_case *c = &io_cases[i];
		v->cr0 = c->cr0;
		v->rflags = c->rflags;
		v->cpl = c->cpl;
		v->tr.attr = SEG_ATTR_P | c->tr_type;
		v->tr.limit = c->limit;
		v->fault = (struct guest_fault){ 0 };
		if (control_check_io(v, c->port, c->size) != c->allowed)
			fail_msg("I/O case %u", i);
		assert_int_equal(v->fault.vector, c->allowed ? 0 : VEC_GP);
	}
}

/* The bitmap is read as the supervisor, and its page may be absent. */
static void io_bitmap_faults(void **state)
{
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	paging_enable(vm, PAGING_32BIT, 0, 0);
	map_page(vm, PAGING_32BIT, TSS, TSS | PTE_P);
	vm->memory[TSS + 102] = MAP;
	v->cpl = 3;
	mmu_update_view(v);
	v->tr = (struct segment){ .base = TSS, .limit = 0x2fff, .attr = SEG_ATTR_P | SYS_TSS_BUSY };
	assert_true(control_check_io(v, 0x60, 1));
	assert_false(control_check_io(v, 0xffff, 1));
	assert_int_equal(v->fault.vector, VEC_PF);
	assert_int_equal(v->fault.payload, TSS + MAP + 0x1fff);
	assert_int_equal(v->fault.error, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, small_vm_setup, small_vm_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(writes),
		TEST(xcr_index),
		TEST(reads),
		TEST(cr8_goes_to_the_apic),
		TEST(writes_that_flush),
		TEST(flags),
		TEST(popf_of_ac_changes_the_view),
		TEST(debug_registers),
		TEST(breakpoints),
		TEST(io_permission),
		TEST(io_bitmap_faults),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
